"""HTTP downloads with retries, resume and checksums.

Transient errors are retried with growing pauses; an interrupted download is resumed, also by a
later run; no file is put in place before its checksum was verified.
Retries are counted here and not by urllib3's Retry, which only repeats a request whose answer has
not begun: a body that is cut off needs a loop of its own anyway, and the pauses of Retry cannot be
ended when another download fails.

Users and passwords come from a netrc file and proxies from the environment, as requests has them:
https://requests.readthedocs.io/en/latest/user/authentication/#netrc-authentication
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import random
import re
import ssl
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from http import HTTPStatus
from netrc import NetrcParseError
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import NETRC_FILES, get_netrc_auth, should_bypass_proxies
from urllib3.exceptions import HTTPError, InvalidHeader, NameResolutionError, ReadTimeoutError

from sykube.errors import SykubeError, UsageError
from sykube.host.checksum import Checksum
from sykube.host.partial import Partial, Progress, TransientError
from sykube.host.proxies import Proxies
from sykube.host.threads import run_concurrently

log = logging.getLogger("sykube.download")

_T = TypeVar("_T")
_AGAIN = frozenset({429, 500, 502, 503, 504})
_NOT_THERE = frozenset({404, 410})
_PIECE = 65536
# Checksums and version numbers; what is larger is none.
_TEXT_MAX = 1 << 20
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")
_LOGIN = "Put them into https_proxy, as http://USER:PASSWORD@PROXY:PORT."
_NETRC = "machine HOST login USER password PASSWORD"


class DownloadError(SykubeError):
    """Something could not be had; `status` is the server's answer, 0 where there was none."""

    def __init__(
        self, url: str, why: str, otherwise: str = "", *, resolution: str = "", status: int = 0
    ) -> None:
        network = "Look at the network and at https_proxy, then run the command again."
        cure = resolution or f"{network} {otherwise}".rstrip()
        super().__init__(f"cannot download {shown(url)}", details=why, resolution=cure)
        self.status = status

    @property
    def absent(self) -> bool:
        """Whether the server answered that there is no such file."""
        return self.status in _NOT_THERE


@dataclass(frozen=True)
class Access:
    """What a site asks of those who download.

    Attributes:
        proxies: instead of those of the environment, where there is any.
        authorities: certificates in PEM that are trusted beside the system's and certifi's.
    """

    proxies: Proxies = field(default_factory=Proxies)
    authorities: tuple[str, ...] = ()


@dataclass(frozen=True)
class RetryPolicy:
    """How long a server is waited for, in seconds.

    Attributes:
        connect_s: for a connection.
        stall_s: for the next piece of an answer.
        whole_s: for a whole text, also where the resolver hangs; 0 for any time.
        tries: that fail one after the other without bringing much of a file.
        pause_s: before the second try; twice as long before each further one.
        longest_s: between two tries. Who is told to wait longer gives up.
    """

    connect_s: float = 10.0
    stall_s: float = 60.0
    whole_s: float = 0.0
    tries: int = 6
    pause_s: float = 1.0
    longest_s: float = 120.0


class Downloader:
    """Asks servers, patiently; for several threads at once where they ask.

    Args:
        pause: waits some seconds, instead of a wait that the failure of another download ends.

    Raises:
        UsageError: the authorities are none.
    """

    def __init__(
        self,
        access: Access = Access(),
        policy: RetryPolicy = RetryPolicy(),
        pause: Callable[[float], object] | None = None,
    ) -> None:
        self._access, self._policy, self._tls = access, policy, _tls(access.authorities)
        self._stopped = threading.Event()
        self._given_pause = pause
        self._pause = self._stopped.wait if pause is None else pause

    def with_timeout(self, seconds: float) -> Downloader:
        """One that tries once, and not for longer than some seconds."""
        brief = replace(self._policy, connect_s=seconds, stall_s=seconds, whole_s=seconds, tries=1)
        return Downloader(self._access, brief, self._given_pause)

    def together(self, calls: Mapping[str, Callable[[Downloader], _T]]) -> dict[str, _T]:
        """What some calls make of a downloader, all at once; the first error ends the others."""
        shared = Downloader(self._access, self._policy, self._given_pause)
        try:
            return run_concurrently({name: partial(call, shared) for name, call in calls.items()})
        except BaseException:
            shared._stopped.set()
            raise

    def text(self, url: str, otherwise: str = "") -> str:
        """A short text, without space around it.

        Args:
            otherwise: what else can be done when it cannot be had, for the error.

        Raises:
            DownloadError: it cannot be had, or is no short text.
        """
        if not self._policy.whole_s:
            return self._text(url, otherwise)
        # The resolver knows no time limit of ours: it is left behind.
        try:
            call = {"text": lambda: self._text(url, otherwise)}
            return run_concurrently(call, self._policy.whole_s)["text"]
        except TimeoutError:
            why = f"no answer within {self._policy.whole_s:g} s"
            raise DownloadError(url, why, otherwise) from None

    def file(
        self,
        url: str,
        target: Path,
        checksum: Checksum,
        progress: Progress = lambda _done, _size: None,
        otherwise: str = "",
    ) -> None:
        """A file, which is at its place whole and right, or not at all.

        What has come of it when the network fails stays beside it for the next call.

        Args:
            progress: told bytes that are there and bytes in all, 0 where that is not known.
            otherwise: what else can be done when it cannot be had, for the error.

        Raises:
            DownloadError: it cannot be had, or is not what the checksum says: then nothing is left.
            SykubeError: it cannot be written.
        """
        arriving = Partial(target, progress)
        try:
            arriving.begin()
            found = self._arrived(url, arriving, checksum, otherwise)
            if found != checksum.value and arriving.pieced:
                # Its beginning may be of what was there before.
                arriving.discard()
                found = self._arrived(url, arriving, checksum, otherwise)
            if found != checksum.value:
                arriving.discard()
                raise DownloadError(
                    url,
                    f"its {checksum.algorithm.upper()} is {found}, but {checksum.value} is "
                    "published: it is damaged or was changed on the way",
                    resolution="Nothing of it was kept. Run the command again; where it stays so, "
                    f"ask those who keep the proxy or the mirror. {otherwise}".rstrip(),
                )
            arriving.finish()
        except OSError as error:
            arriving.discard()
            raise SykubeError(
                f"cannot write {target}: {error.strerror or error}",
                resolution="Make room there, or choose another place with SYKUBE_CACHE_DIR.",
            ) from error

    def _text(self, url: str, otherwise: str) -> str:
        def attempt() -> str:
            with self._ask(url, {}, otherwise) as answer:
                pieces, size = [], 0
                for piece in self._pieces(answer):
                    pieces.append(piece)
                    size += len(piece)
                    if size > _TEXT_MAX:
                        why = "what comes is no short text"
                        raise DownloadError(url, why, otherwise, status=200)
                return b"".join(pieces).decode(errors="replace").strip()

        return self._retried(url, otherwise, attempt)

    def _arrived(self, url: str, arriving: Partial, checksum: Checksum, otherwise: str) -> str:
        """Let all of a file come; its checksum."""

        def attempt() -> None:
            with self._ask(url, arriving.headers(), otherwise, (416,)) as answer:
                arriving.take(answer.status_code, answer.headers, self._pieces(answer))

        self._retried(url, otherwise, attempt)
        return checksum.of(arriving.part)

    def _pieces(self, answer: requests.Response) -> Iterator[bytes]:
        """What comes, as it comes.

        Raises:
            TransientError: it ends before its end.
        """
        host = _host(answer.url)
        try:
            while piece := answer.raw.read1(_PIECE, decode_content=False):
                yield piece
                if self._stopped.is_set():
                    raise TransientError("interrupted")
        except ReadTimeoutError as error:
            raise TransientError(
                f"{host} sent nothing more for {self._policy.stall_s:g} s"
            ) from error
        except (HTTPError, OSError) as error:
            raise TransientError(f"{host} has cut the connection") from error

    def _retried(self, url: str, otherwise: str, attempt: Callable[[], _T]) -> _T:
        """Try until it is done, until it is no use, or until too many tries were for nothing."""
        failures = 0
        while True:
            try:
                return attempt()
            except TransientError as failure:
                failures = 1 if failure.progressed else failures + 1
                log.debug("%s: %s (try %d)", shown(url), failure, failures)
                longest = self._policy.longest_s
                too_long = failure.wait_s is not None and failure.wait_s > longest
                if failures >= self._policy.tries or too_long or self._stopped.is_set():
                    tries = f" ({failures} tries)" if failures > 1 else ""
                    wait = f"; it asks to wait {failure.wait_s:.0f} s" if too_long else ""
                    why = f"{failure}{wait}{tries}"
                    raise DownloadError(url, why, otherwise, status=failure.status) from failure
                # Half of it by chance, so that those who failed together do not come back together.
                grown = min(longest, self._policy.pause_s * 2.0 ** (failures - 1))
                jittered = grown * random.uniform(0.5, 1.0)
                self._pause(jittered if failure.wait_s is None else failure.wait_s)

    @contextlib.contextmanager
    def _ask(
        self, url: str, headers: dict[str, str], otherwise: str, also: tuple[int, ...] = ()
    ) -> Iterator[requests.Response]:
        """An answer of success, or of one of some further kinds.

        Raises:
            TransientError: it may be well the next time.
            DownloadError: it will not.
        """
        _check_netrc(url)
        given = self._access.proxies
        with requests.Session() as session:
            for scheme in ("http://", "https://"):
                session.mount(scheme, _Adapter(self._tls, given))
            try:
                answer = session.get(
                    url,
                    # A range is of what is sent, and so must not be of something compressed.
                    headers={"Accept-Encoding": "identity", "User-Agent": "sykube", **headers},
                    stream=True,
                    timeout=(self._policy.connect_s, self._policy.stall_s),
                    proxies={"http": given.http, "https": given.https} if given else None,
                )
            except requests.RequestException as error:
                # Its own words hold whole URLs, with what signs them.
                raise self._failure(url, error, otherwise) from None
            with answer:
                _check_encrypted(url, answer, otherwise)
                if not answer.ok and answer.status_code not in also:
                    raise _refused(url, answer, otherwise)
                yield answer

    def _failure(
        self, url: str, error: requests.RequestException, otherwise: str
    ) -> SykubeError | TransientError:
        """What a request ended in that got no answer."""
        asked = error.request.url if error.request is not None else url
        # requests has bytes among its types, but makes none of them.
        host = _host(asked if isinstance(asked, str) else url)
        reason, said = _innermost(error), str(error)
        if "CERTIFICATE_VERIFY_FAILED" in said:
            why = getattr(reason, "verify_message", "") or "it cannot be verified"
            return DownloadError(
                url,
                f"the certificate of {host} is not trusted: {why}",
                resolution="If the site has its own CA: --ca-certificate FILE (PEM). "
                f"{otherwise}".rstrip(),
            )
        if tunnel := _TUNNEL.search(said):
            if tunnel[1] == "407":
                return DownloadError(
                    url, "the proxy wants a user and password", resolution=_LOGIN, status=407
                )
            return TransientError(f"the proxy answers {tunnel[1]} when asked for {host}")
        if isinstance(error, requests.exceptions.ConnectTimeout):
            return TransientError(f"no connection to {host} within {self._policy.connect_s:g} s")
        if isinstance(error, requests.exceptions.ReadTimeout):
            return TransientError(f"nothing came from {host} for {self._policy.stall_s:g} s")
        if isinstance(error, requests.exceptions.ProxyError):
            return TransientError(
                f"the proxy to {host} does not take the connection: {_said(reason)}"
            )
        if isinstance(error, requests.exceptions.ConnectionError):
            if isinstance(reason, NameResolutionError):
                return TransientError(f"the name {host} cannot be resolved")
            return TransientError(f"no connection to {host}: {_said(reason)}")
        if isinstance(error, requests.exceptions.TooManyRedirects):
            return DownloadError(url, f"{host} leads in a circle", otherwise)
        if "SOCKS" in said:
            return DownloadError(
                url,
                "sykube downloads only through http and https proxies, not SOCKS",
                resolution="Set https_proxy to one of those for this command.",
            )
        return DownloadError(url, f"{type(error).__name__} of {host}", otherwise)


class _Adapter(HTTPAdapter):
    """Trusts a site's authorities, too, and goes by its proxies where it names any."""

    def __init__(self, tls: ssl.SSLContext, proxies: Proxies) -> None:
        self._tls, self._proxies = tls, proxies
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, ssl_context=self._tls)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        return super().proxy_manager_for(
            proxy, **kwargs, ssl_context=self._tls, proxy_ssl_context=self._tls
        )

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> Any:
        # requests only looks at exceptions for the proxies of the environment.
        if self._proxies:
            exceptions = ",".join(self._proxies.exceptions)
            if should_bypass_proxies(request.url or "", no_proxy=exceptions):
                kwargs["proxies"] = {}
        return super().send(request, *args, **kwargs)


def shown(url: str) -> str:
    """A URL for people and logs: without a password, and without what signs it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@functools.cache
def _tls(authorities: tuple[str, ...]) -> ssl.SSLContext:
    """TLS that trusts the system's authorities and some more; requests adds certifi's.

    Reading them takes longer than most requests."""
    context = ssl.create_default_context()
    if authorities:
        try:
            context.load_verify_locations(cadata="\n".join(authorities))
        except ssl.SSLError as error:
            raise UsageError(
                "the certificates of --ca-certificate are damaged",
                details=str(error),
                resolution="Ask the site for whole ones, in PEM.",
            ) from error
    return context


def _retry_after(answer: requests.Response) -> float | None:
    try:
        return float(urllib3.Retry().parse_retry_after(answer.headers["Retry-After"]))
    except (KeyError, InvalidHeader):
        return None


def _check_encrypted(url: str, answer: requests.Response, otherwise: str) -> None:
    """Refuse what was asked for by https and came by a place where others could change it."""
    if not url.startswith("https://"):
        return
    for each in (*answer.history, answer):
        if not each.url.startswith("https://"):
            why = f"{_host(url)} leads to {_host(each.url)} without encryption"
            raise DownloadError(url, why, otherwise)


def _refused(url: str, answer: requests.Response, otherwise: str) -> DownloadError | TransientError:
    """What an answer comes to that says no."""
    host, status = _host(answer.url), answer.status_code
    # The server's own words could hold anything.
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
    why = f"{host} answers {status} {phrase}".rstrip()
    if status in _AGAIN:
        return TransientError(why, wait_s=_retry_after(answer), status=status)
    resolution = ""
    if status in (401, 403):
        resolution = f"Give a user and password in ~/.netrc or the file NETRC names: {_NETRC}"
    elif status == 407:
        resolution = _LOGIN
    elif status in _NOT_THERE:
        resolution = otherwise or "Look whether the URL is right."
    return DownloadError(url, why, otherwise, resolution=resolution, status=status)


def _check_netrc(url: str) -> None:
    """Refuse a netrc file whose password for this URL others can read, or that is none.

    Raises:
        UsageError: says which; nothing that is in it.
    """
    places = [os.environ["NETRC"]] if "NETRC" in os.environ else [f"~/{f}" for f in NETRC_FILES]
    file = next((file for place in places if (file := Path(place).expanduser()).exists()), None)
    if file is None:
        return
    try:
        login = get_netrc_auth(url, raise_errors=True)
        mode = file.stat().st_mode
    except NetrcParseError as error:
        raise UsageError(
            f"line {error.lineno} of {file} cannot be read", resolution=f"Write it as: {_NETRC}"
        ) from None
    except OSError as error:
        raise UsageError(
            f"cannot read {file}: {error.strerror}",
            resolution="Let the caller read it, or name another one: NETRC=FILE",
        ) from error
    if login and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UsageError(
            f"{file} holds a password for {_host(url)}, and others can read it",
            resolution=f"chmod 600 {file}",
        )


def _host(url: str | bytes | None) -> str:
    # requests' own types have all three of a request that was prepared.
    text = url.decode() if isinstance(url, bytes) else url or ""
    return urlsplit(text).netloc.rpartition("@")[2]


def _innermost(error: BaseException) -> BaseException:
    """The failure that the others are about."""
    deepest = error
    while True:
        below = getattr(deepest, "reason", None)
        if not isinstance(below, BaseException):
            below = next((arg for arg in deepest.args if isinstance(arg, BaseException)), None)
        if below is None and not isinstance(deepest, NameResolutionError):
            below = deepest.__cause__
        if below is None or isinstance(deepest, NameResolutionError):
            return deepest
        deepest = below


def _said(reason: BaseException) -> str:
    """A failure's own words. They are the system's: those of HTTP libraries hold whole URLs."""
    return reason.strerror if isinstance(reason, OSError) and reason.strerror else "it was cut"
