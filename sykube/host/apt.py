"""Debian's archive as the user or the host's own apt configuration names it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from sykube.errors import SykubeError, UsageError
from sykube.host.host import Host

# Stands for --mirror where that is not given.
VARIABLE = "SYKUBE_MIRROR"
_SUITES = frozenset(
    (
        *("bullseye", "bookworm", "trixie", "forky", "duke", "sid", "oldoldstable", "oldstable"),
        *("stable", "testing", "unstable"),
    )
)
# What apt takes for "no": apt-pkg/contrib/strutl.cc, StringToBool
_NO = frozenset({"no", "false", "without", "off", "disable", "0"})
# Of the lists of packages in a Release file: https://wiki.debian.org/DebianRepository/Format
_LIST = re.compile(
    r"^ ([0-9a-f]{64}) +\d+ (?:\S+/)?main/binary-[^/]+/Packages(?:\.\w+)?$", re.MULTILINE
)


@dataclass(frozen=True)
class Mirror:
    """Base URLs of a Debian mirror; `security` is empty where the host names none."""

    main: str
    security: str = ""

    def sources(self, suite: str, *, source_packages: bool = False) -> tuple[str, ...]:
        """Lines of a sources.list for one suite, security updates included where known."""
        lines = [f"deb {self.main} {suite} main"]
        if source_packages:
            lines.append(f"deb-src {self.main} {suite} main")
        if self.security and suite != "sid":
            lines.append(f"deb {self.security} {suite}-security main")
        return tuple(lines)

    def state(self, suite: str, text: Callable[[str], str]) -> str:
        """A word for the packages of a suite that it has now; another one once they change.

        Signatures are not checked here: apt does when it installs them.

        Args:
            text: reads a URL of http or https.

        Returns:
            Nothing where it does not say.
        """
        found: list[str] = []
        for line in self.sources(suite):
            _, uri, of, _ = line.split(" ")
            url = f"{uri}/dists/{of}/InRelease"
            try:
                is_here = url.startswith("file:")
                said = (
                    Path(urlsplit(url).path).read_text(encoding="utf-8") if is_here else text(url)
                )
            except (OSError, SykubeError):
                return ""
            lists = _LIST.findall(said)
            if not lists:
                return ""
            found += [line, *sorted(lists)]
        # Not above: it loads OpenSSL, and every command knows the mirror's option.
        import hashlib

        return hashlib.sha256("".join(found).encode()).hexdigest()[:16]


def find_mirror(host: Host, wanted: str = "") -> Mirror:
    """The mirror to use: `wanted` (--mirror), else SYKUBE_MIRROR, else the first of apt's sources.

    Raises:
        UsageError: what is wanted is no URL, or the host names no Debian mirror.
    """
    apt = host.etc / "apt"
    named = "--mirror" if wanted else VARIABLE
    wanted = wanted or os.environ.get(VARIABLE, "")
    entries = [entry for file in _source_files(apt) for entry in _entries(file)]
    security = next((uri for uri, suite in entries if suite.endswith("-security")), "")
    if wanted:
        if urlsplit(wanted).scheme not in ("http", "https", "file"):
            raise UsageError(
                f"{named} {wanted!r} is not a URL",
                resolution="Give the base URL of a Debian mirror, the folder that holds dists/.",
            )
        return Mirror(wanted.rstrip("/"))
    for uri, suite in entries:
        if suite.removesuffix("-updates").removesuffix("-backports") in _SUITES:
            return Mirror(uri, security)
    raise UsageError(
        "this host names no Debian mirror, which nodes are built from",
        details=f"looked in {apt}/sources.list and {apt}/sources.list.d",
        resolution="Name one by the URL that holds dists/: sykube init --mirror URL, or "
        f"{VARIABLE}=URL in the environment.",
    )


def _source_files(apt: Path) -> list[Path]:
    files = [apt / "sources.list"]
    files += sorted((apt / "sources.list.d").glob("*.list"))
    files += sorted((apt / "sources.list.d").glob("*.sources"))
    return [file for file in files if file.is_file()]


def _entries(file: Path) -> list[tuple[str, str]]:
    """(URI, suite) pairs of the enabled binary sources in a file that have a `main`."""
    text = file.read_text(encoding="utf-8", errors="replace")
    pairs: list[tuple[str, str]] = []
    if file.suffix == ".sources":
        for stanza in re.split(r"\n\s*\n", text):
            fields = _deb822(stanza)
            enabled = fields.get("enabled", "yes").lower() not in _NO
            has_main = "main" in fields.get("components", "main").split()
            if "deb" in fields.get("types", "").split() and enabled and has_main:
                pairs += [
                    (uri.rstrip("/"), suite)
                    for uri in fields.get("uris", "").split()
                    for suite in fields.get("suites", "").split()
                ]
    else:
        line = re.compile(r"^\s*deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)\s+(.*)$", re.MULTILINE)
        for match in line.finditer(text):
            if "main" in match[3].split():
                pairs.append((match[1].rstrip("/"), match[2]))
    return pairs


def _deb822(stanza: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line.startswith("#"):
            continue
        if line[:1].isspace():
            fields[name] = f"{fields.get(name, '')} {line.strip()}"
        elif ":" in line:
            name, value = line.split(":", 1)
            name = name.strip().lower()
            fields[name] = value.strip()
    return fields
