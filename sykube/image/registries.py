"""How containerd of a node reaches registries: mirrors, and credentials for them.

Sources: https://github.com/containerd/containerd/blob/release/1.7/docs/hosts.md and
https://github.com/containerd/containerd/blob/release/1.7/docs/cri/registry.md
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sykube import patches
from sykube.errors import UsageError
from sykube.host.files import unreadable
from sykube.patches import PatchError

# Of a registry, with a port where it has one.
HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]+)?")
# What fetches images for the kubelet, by containerd's major version; from 2.4 on it is to read
# credentials no more (RELEASES.md, "Deprecated config properties").
_PLUGINS = {"1": "io.containerd.grpc.v1.cri", "2": "io.containerd.cri.v1.images"}
# The registry docker.io is at another host than its name says, and `docker login` notes a third.
_DOCKER_HUB = "registry-1.docker.io"
_ALIASES = {"docker.io": _DOCKER_HUB, "index.docker.io": _DOCKER_HUB}


@dataclass(frozen=True)
class Mirror:
    """Where images of a registry are looked for before the registry itself.

    Attributes:
        host: of the registry, as images' names have it.
        url: of the mirror.
    """

    host: str
    url: str

    @classmethod
    def parse(cls, text: str) -> Mirror:
        """Read HOST=URL.

        Raises:
            ValueError: it is not that; says what is wrong.
        """
        host, equals, url = text.partition("=")
        if not equals or not HOST.fullmatch(host):
            raise ValueError(
                f"the registry mirror {_shown(text)!r} is not HOST=URL, such as "
                "docker.io=https://mirror.example"
            )
        try:
            parts = urlsplit(url)
            is_url = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            is_url = False
        if not is_url:
            raise ValueError(f"the mirror of {host} is not at an http or https URL")
        if parts.username or parts.password:
            raise ValueError(
                f"the mirror of {host} has a password in its URL, which everybody could read: "
                "put it into a file for --registry-auth"
            )
        return cls(host, url.rstrip("/"))

    @property
    def hosts(self) -> tuple[str, str]:
        """The registry's host and the mirror's, as credentials are kept for them."""
        return canonical(self.host), canonical(urlsplit(self.url).netloc)


@dataclass(frozen=True)
class Login:
    """Credentials for a registry; they are never shown."""

    host: str
    user: str
    password: str = field(repr=False)
    token: str = field(repr=False)


def canonical(host: str) -> str:
    """The host that containerd asks for credentials of, from a key of Docker's configuration."""
    bare = host.partition("://")[2] or host
    bare = bare.split("/", 1)[0]
    return _ALIASES.get(bare, bare)


def mirrored(mirrors: Iterable[Mirror]) -> dict[str, str]:
    """hosts.toml of each registry that has mirrors, by its host."""
    by_host: dict[str, list[str]] = {}
    for mirror in mirrors:
        by_host.setdefault(mirror.host, []).append(mirror.url)
    return {host: _hosts_toml(host, urls) for host, urls in by_host.items()}


def elsewhere(url: str) -> str:
    """hosts.toml of a registry that is at another place than its name says."""
    # A file without a host is refused, though the server says it all.
    return (
        f"server = {_quoted(url)}\n\n[host.{_quoted(url)}]\n"
        '  capabilities = ["pull", "resolve", "push"]\n'
    )


def read_logins(file: Path, only: Collection[str] | None = None) -> list[Login]:
    """The credentials of a configuration file of Docker's (~/.docker/config.json).

    Args:
        only: hosts whose credentials are taken, instead of all.

    Raises:
        UsageError: it is none, or has none in it; what is in it is never shown.
    """
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise unreadable(file, error) from error
    except ValueError:
        raise _unusable(file, "it is no JSON") from None
    entries = stored.get("auths") if isinstance(stored, dict) else None
    if not isinstance(entries, dict):
        raise _unusable(file, 'it has no "auths"')
    wanted = {
        key: value for key, value in entries.items() if only is None or canonical(key) in only
    }
    found = [_login(file, key, value) for key, value in wanted.items()]
    logins = [login for login in found if login]
    if only is None and not logins:
        raise _unusable(file, "it holds no password: a credential helper may keep them")
    return logins


def auth_toml(logins: Iterable[Login], containerd: str) -> str:
    """The part of containerd's configuration with credentials.

    Args:
        containerd: its version, such as 1.7.24.
    """
    plugin = _PLUGINS[containerd.partition(".")[0]]
    sections = []
    for login in logins:
        lines = [f'[plugins."{plugin}".registry.configs.{_quoted(login.host)}.auth]']
        for key, value in (
            ("username", login.user),
            ("password", login.password),
            ("identitytoken", login.token),
        ):
            lines += [f"  {key} = {_quoted(value)}"] if value else []
        sections.append("\n".join(lines))
    return "".join(f"\n{section}\n" for section in sections)


def check_patch(text: str) -> None:
    """Check what is to be merged into containerd's configuration.

    Raises:
        PatchError: it is no TOML, or has mirrors, which containerd takes in files of nodes only.
    """
    config = patches.toml(text)
    tables = config.get("plugins", {})
    if not isinstance(config.get("version", 0), int) or not isinstance(tables, dict):
        raise PatchError("version must be a number, and plugins a table")
    for table in tables.values():
        registry = table.get("registry") if isinstance(table, dict) else None
        if isinstance(registry, dict) and "mirrors" in registry:
            raise PatchError("mirrors are not to be patched: name them with registryMirrors")


def _hosts_toml(host: str, urls: Iterable[str]) -> str:
    server = f"https://{_DOCKER_HUB if host == 'docker.io' else host}"
    mirrors = [
        f'\n[host.{_quoted(url)}]\n  capabilities = ["pull", "resolve"]\n'
        for url in dict.fromkeys(urls)
    ]
    return f"server = {_quoted(server)}\n" + "".join(mirrors)


def _login(file: Path, key: str, entry: Any) -> Login | None:
    """One entry of "auths"; nothing where it holds no password."""
    if not isinstance(entry, dict):
        raise _unusable(file, f"its entry {key} is no mapping")
    user, password = str(entry.get("username", "")), str(entry.get("password", ""))
    if packed := entry.get("auth"):
        try:
            decoded = base64.b64decode(packed, validate=True).decode()
        except (binascii.Error, TypeError, ValueError):
            raise _unusable(file, f"its entry {key} is no Base64") from None
        user, colon, password = decoded.rstrip("\0").partition(":")
        if not colon:
            raise _unusable(file, f"its entry {key} is not USER:PASSWORD")
    token = str(entry.get("identitytoken", ""))
    return Login(canonical(key), user, password, token) if password or token else None


def _quoted(text: str) -> str:
    """A TOML text; JSON's are among these."""
    return json.dumps(text)


def _shown(text: str) -> str:
    """A text without what may be a password before an @."""
    return re.sub(r"(?<==).*@", "…@", text)


def _unusable(file: Path, why: str) -> UsageError:
    return UsageError(
        f"{file} has no credentials for registries",
        details=why,
        resolution='It is to be as `docker login` writes it: {"auths": {HOST: {"auth": …}}}',
    )
