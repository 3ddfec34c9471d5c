"""Who may see the page: who has the link, once; then the browser that it was opened in.

The link's token is exchanged for a cookie. Cookies do not tell ports apart, so the page lives below
a path of its own that no other program on this host's loopback knows, and the cookie is only for
that path. Requests that another site makes are refused before any cookie is looked at:
https://cheatsheetseries.owasp.org/cheatsheets/Cross-Site_Request_Forgery_Prevention_Cheat_Sheet.html
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie

# Long enough to walk to another terminal; a link in somebody's notes is of no use.
TOKEN_LIFE_S = 600.0
COOKIE = "sykube-dashboard"
_NAMES = ("127.0.0.1", "localhost")


def _secret() -> str:
    return secrets.token_urlsafe(32)


@dataclass
class Access:
    """What opens the page of one server, as long as it runs.

    Attributes:
        port: that it is served on.
        place: the path that the page is below; no secret by itself.
        now: seconds of a clock that only goes on.
    """

    port: int
    now: Callable[[], float] = time.monotonic
    place: str = field(default_factory=lambda: f"/{secrets.token_hex(8)}")
    token: str = field(default_factory=_secret)
    _session: str = field(default_factory=_secret)
    _made: float = 0.0
    _used: bool = False

    def __post_init__(self) -> None:
        self._made = self.now()

    @property
    def link(self) -> str:
        """What opens the page, once."""
        return f"http://127.0.0.1:{self.port}/enter?token={self.token}"

    def exchange(self, token: str) -> str:
        """The cookie for a token, as a Set-Cookie header; empty where it is wrong, used or old."""
        right = secrets.compare_digest(token.encode(), self.token.encode())
        if not right or self._used or self.now() - self._made > TOKEN_LIFE_S:
            return ""
        self._used = True
        return f"{COOKIE}={self._session}; Path={self.place}/; HttpOnly; SameSite=Strict"

    def admits(self, cookies: str) -> bool:
        """Whether a Cookie header holds the session.

        Args:
            cookies: the header's value.
        """
        try:
            found = SimpleCookie(cookies).get(COOKIE)
        except CookieError:
            return False
        value = found.value if found else ""
        return secrets.compare_digest(value.encode(), self._session.encode())

    def refusal(self, method: str, headers: Mapping[str, str]) -> str:
        """Why a request cannot be from the page itself or from its link, or nothing.

        Args:
            headers: by their names in lower case.
        """
        hosts = [f"{name}:{self.port}" for name in _NAMES]
        # A name of somebody else's that leads to this address (DNS rebinding).
        if headers.get("host", "") not in hosts:
            return "the request is for another host"
        origin = headers.get("origin")
        if origin is None and method not in ("GET", "HEAD"):
            return "the request does not say where it comes from"
        if origin is not None and origin != f"http://{headers['host']}":
            return "the request comes from another site"
        # Also of requests without an Origin. A link that is opened is a navigation.
        if headers.get("sec-fetch-site", "none") in ("cross-site", "same-site") and (
            method != "GET" or headers.get("sec-fetch-mode") != "navigate"
        ):
            return "the request comes from another site"
        return ""
