"""The machine as an ordinary user's sykube sees it: the user's folders, and what is granted."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from pathlib import Path

from sykube.host import granted
from sykube.host.grants import Grants
from sykube.host.host import Host
from sykube.host.network import Network
from sykube.rootless import folders, ids
from sykube.rootless.folders import Folders
from sykube.rootless.ids import Ids
from sykube.rootless.network import RootlessNetwork, routes
from sykube.rootless.slirp import Slirp

# Names root's cache where that is not /var/cache/sykube.
SHARED_CACHE = "SYKUBE_SHARED_CACHE_DIR"
_NOBODY = Folders(*[Path("/nonexistent")] * 4)


@dataclass(frozen=True)
class RootlessHost(Host):
    """See Host; before the namespaces are entered, only its files are what they will be.

    Attributes:
        folders: the user's own.
        ids: what is mapped into the user's namespaces.
        beyond: what the host has routes to.
    """

    folders: Folders = _NOBODY
    beyond: tuple[IPv4Network, ...] = ()
    ids: Ids = Ids(65534, 65534)  # noqa: RUF009 - it cannot be changed

    @property
    def data(self) -> Path:
        return self.folders.data

    @property
    def cache(self) -> Path:
        """The user's own: a folder that others let the user only read is one of `caches`."""
        named = _named_cache()
        return self.folders.cache if not named or _only_read(named) else named

    @property
    def caches(self) -> tuple[Path, ...]:
        """The user's own, and those in which root builds images for all users."""
        shared = Path(os.environ.get(SHARED_CACHE) or self.root / "var/cache/sykube")
        named = _named_cache()
        return (self.cache, named, shared) if named and _only_read(named) else (self.cache, shared)

    @property
    def records(self) -> Path:
        """The settings of the namespaces, which end with them; other hosts have others."""
        return self.folders.runtime / "host"

    @property
    def logs(self) -> Path:
        return self.folders.logs

    @property
    def locks(self) -> Path:
        return self.folders.runtime / "locks"

    @property
    def units(self) -> Path:
        """Where there are none: root's units are of root's clusters, whatever they are called."""
        return self.folders.runtime / "units"

    @property
    def cni_state(self) -> Path:
        """Where there is none, as CNI's plugins have no part in it."""
        return self.folders.runtime / "cni"

    @property
    def slirp(self) -> Slirp:
        return Slirp(self.folders.runtime / "slirp4netns.sock")

    def entered(self) -> RootlessHost:
        """The same machine, asked from within the namespaces."""
        cgroups = granted.may_make_cgroups(self._hierarchies(""))
        network: Network = RootlessNetwork(self.slirp, self.beyond)
        return replace(self, network=network, grants=replace(self.grants, cgroups=cgroups))

    def granted_cgroups(self) -> list[Path]:
        """The cgroups that an administrator gave the user, one in each hierarchy of cgroup v1.

        Not of v2: only its user's systemd could move what runs into one of its own, and sykube does
        not ask it yet.
        """
        found = [*self._hierarchies(f"/{granted.cgroup_name(self.ids.uid)}")]
        return found if granted.may_make_cgroups(iter(found)) else []

    def _hierarchies(self, below: str) -> Iterator[Path]:
        for tasks in self.cgroups.glob("*/tasks"):
            yield Path(f"{tasks.parent}{below}")


def _named_cache() -> Path | None:
    named = os.environ.get("SYKUBE_CACHE_DIR")
    return Path(named) if named else None


def _only_read(folder: Path) -> bool:
    return folder.is_dir() and not os.access(folder, os.W_OK)


def of_this_user() -> RootlessHost:
    """The machine of the user who runs this process, who is not root."""
    uid, gid = os.geteuid(), os.getegid()
    # sudo's, of who called it: the user that sykube runs as is meant.
    os.environ.pop("SUDO_UID", None)
    try:
        entry = pwd.getpwuid(uid)
        name, home = entry.pw_name, entry.pw_dir
    except KeyError:
        # As in some containers; the number does, for all but subordinate IDs by name.
        name, home = str(uid), "/nonexistent"
    found = folders.of_user(uid, Path(os.environ.get("HOME") or home), os.environ)
    owned = ids.of_user(Host(), name, uid, gid)
    host = RootlessHost(folders=found, ids=owned, beyond=routes(Path("/proc/net/route")))
    grants = Grants(True, bool(host.granted_cgroups()), owned.has_ranges, name, uid)
    return replace(host, grants=grants)
