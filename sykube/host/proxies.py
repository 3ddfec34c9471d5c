"""The site's proxies: checked, and never shown with their password."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

# What Go's net/http, and so containerd, takes: golang.org/x/net/http/httpproxy
_SCHEMES = ("http", "https", "socks5")
# Without quotes, so that what is shown can be told from the rest: RFC 3986, section 3.2.1.
_USER = re.compile(r"[A-Za-z0-9._~%!$&()*+,;=:-]*")
_HOST = re.compile(r"[A-Za-z0-9._:-]+")
_EXCEPTION = re.compile(r"\*|[A-Za-z0-9.*:/_\[\]-]+")
_EXAMPLE = "such as http://proxy.example:3128"
# Names of nodes' own and of the cluster's, which no proxy knows.
_OWN_NAMES = ("localhost", "127.0.0.0/8", ".svc", ".cluster.local")


@dataclass(frozen=True)
class Proxies:
    """The proxies that nodes fetch images by.

    Attributes:
        http, https: URLs for these schemes, passwords among them; empty for none.
        exceptions: names, domains and ranges that are reached without.
    """

    http: str = ""
    https: str = ""
    exceptions: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.http or self.https)

    def variables(self, own: Sequence[str]) -> dict[str, str]:
        """Variables for a program, in both spellings; none where there is no proxy.

        Args:
            own: ranges of the cluster, which are reached without.
        """
        if not self:
            return {}
        without = ",".join(dict.fromkeys((*self.exceptions, *_OWN_NAMES, *own)))
        found = {"http_proxy": self.http, "https_proxy": self.https, "no_proxy": without}
        set_ones = {name: value for name, value in found.items() if value}
        return set_ones | {name.upper(): value for name, value in set_ones.items()}


def normal(url: str) -> str:
    """A proxy's URL with its scheme, which may be left out as for curl; an empty one as it is."""
    return url if not url or "://" in url else f"http://{url}"


def problem(url: str) -> str:
    """What is wrong with a proxy's URL, without saying it again: it may hold a password."""
    if not url:
        return ""
    # urlsplit leaves out line ends and tabs, and so would say nothing of them.
    if not url.isprintable():
        return f"is no URL of a proxy, {_EXAMPLE}"
    try:
        parts = urlsplit(normal(url))
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return f"is no URL of a proxy, {_EXAMPLE}"
    user = parts.netloc.rpartition("@")[0]
    if parts.scheme not in _SCHEMES or not _HOST.fullmatch(host) or port == 0:
        return f"is no URL of a proxy, {_EXAMPLE}"
    if parts.path not in ("", "/") or parts.query or parts.fragment or not _USER.fullmatch(user):
        return (
            f"is no URL of a proxy, {_EXAMPLE}; characters of a password that have a meaning in "
            "URLs are written as %40 and the like"
        )
    if _is_loopback(host):
        return (
            f"is on the host's loopback ({host}), which nodes do not reach: let the proxy listen "
            "on an address of the host, too"
        )
    return ""


def exception_problem(text: str) -> str:
    """What is wrong with one name, domain or range that is reached without a proxy."""
    return "" if _EXCEPTION.fullmatch(text) else f"{text!r} is no name, domain or range"


def split_exceptions(text: str) -> tuple[str, ...]:
    """The parts of `no_proxy`."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def of_environment(environment: Mapping[str, str]) -> tuple[Proxies, list[str]]:
    """The proxies that the caller has set, and what is wrong with those that nodes cannot use."""
    urls, problems = {}, []
    for scheme in ("http", "https"):
        name = f"{scheme}_proxy"
        value = environment.get(name) or environment.get(name.upper(), "")
        wrong = problem(value)
        if wrong:
            problems.append(f"{name} {wrong}")
        urls[scheme] = "" if wrong else normal(value)
    exceptions = split_exceptions(environment.get("no_proxy") or environment.get("NO_PROXY", ""))
    usable = tuple(part for part in exceptions if not exception_problem(part))
    return Proxies(urls["http"], urls["https"], usable), problems


def with_exception(environment: Mapping[str, str], address: str) -> dict[str, str]:
    """An environment in which an address is reached without the proxies that it may name."""
    found = dict(environment)
    if any(found.get(name) for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")):
        # Programs differ in which of the two they look at first.
        for name in ("no_proxy", "NO_PROXY"):
            before = environment.get(name) or environment.get(name.swapcase(), "")
            found[name] = ",".join((*split_exceptions(before), address))
    return found


def _is_loopback(host: str) -> bool:
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
