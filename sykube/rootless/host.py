"""The machine as an ordinary user's sykube sees it: the user's folders, and what is granted."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from pathlib import Path

from sykube.errors import HostError
from sykube.host import delegation, granted, job
from sykube.host.grants import Grants
from sykube.host.host import Host
from sykube.host.network import Network
from sykube.host.run import Completed
from sykube.rootless import folders, ids
from sykube.rootless.folders import Folders
from sykube.rootless.host_ports import HostPorts
from sykube.rootless.ids import Ids
from sykube.rootless.network import RootlessNetwork, routes
from sykube.rootless.outside import Outside
from sykube.rootless.slirp import Slirp

# Names root's cache where that is not /var/cache/sykube.
SHARED_CACHE = "SYKUBE_SHARED_CACHE_DIR"
# Whose namespaces they are, for what runs in them: the user and group that root there is outside.
INSIDE = "SYKUBE_USER"
_NOBODY = Folders(*[Path("/nonexistent")] * 6)


@dataclass(frozen=True)
class RootlessHost(Host):
    """See Host; before the namespaces are entered, only its files are what they will be.

    Attributes:
        folders: the user's own.
        ids: what is mapped into the user's namespaces.
        beyond: what the host has routes to.
        inside: this process is in the user's namespaces already.
        asks: this command may ask the user's systemd.
        outside: the process by which it does so in the namespaces.
    """

    folders: Folders = _NOBODY
    beyond: tuple[IPv4Network, ...] = ()
    inside: bool = False
    asks: bool = False
    outside: Outside | None = None
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
        """Units of the user's own systemd."""
        return self.folders.units

    @property
    def manager(self) -> Path:
        return delegation.runtime_of(self) / "systemd"

    def systemctl(self, *words: str, check: bool = True) -> Completed:
        argv = ["systemctl", "--user", *words]
        if self.outside:
            return self.outside.run(argv, check=check)
        if self.inside:
            raise HostError(
                "your systemd is not reached from what `sykube run` has started",
                resolution="Run the command in another shell.",
            )
        return self.run(argv, env=self.manager_environment, check=check)

    @property
    def manager_environment(self) -> dict[str, str]:
        """By which programs find the user's systemd, outside of the namespaces."""
        return {"XDG_RUNTIME_DIR": str(delegation.runtime_of(self))}

    @property
    def cni_state(self) -> Path:
        """Where there is none, as CNI's plugins have no part in it."""
        return self.folders.runtime / "cni"

    @property
    def snapshots(self) -> Path:
        return self.folders.snapshots

    @property
    def slirp(self) -> Slirp:
        return Slirp(self.folders.runtime / "slirp4netns.sock")

    def entered(
        self, host_ports: HostPorts | None = None, outside: Outside | None = None
    ) -> RootlessHost:
        """The same machine, asked from within the namespaces.

        Args:
            host_ports: what was opened before they were entered.
            outside: the process by which the user's systemd is asked.
        """
        cgroups = not self.grants.job and (
            granted.may_make_cgroups(self._hierarchies("")) or delegation.has_own_root(self)
        )
        network: Network = RootlessNetwork(self.slirp, self.beyond, host_ports)
        grants = replace(self.grants, cgroups=cgroups)
        return replace(self, network=network, grants=grants, inside=True, outside=outside)

    @property
    def variables(self) -> dict[str, str]:
        """In the namespaces: whose they are, for a program's sykube."""
        return {INSIDE: f"{self.ids.uid}:{self.ids.gid}"}

    def granted_cgroups(self) -> list[Path]:
        """The cgroups that an administrator gave the user, one in each hierarchy of cgroup v1.

        Of v2 there are those that the user's systemd makes: sykube.rootless.scope. In a batch job
        there are none: what leaves the job's cgroup has none of the job's limits, and does not end
        with it.
        """
        if self.grants.job:
            return []
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


def whose_namespaces(proc: Path = Path("/proc")) -> tuple[int, int] | None:
    """User and group outside, where this process is in a user's namespaces."""
    named = os.environ.get(INSIDE, "")
    try:
        maps = [
            (proc / "self" / name).read_text(encoding="utf-8").split()
            for name in ("uid_map", "gid_map")
        ]
        outside = [int(found[1]) for found in maps if found[0] == "0"]
    except (OSError, ValueError, IndexError):
        return None
    # A variable alone makes nobody of root.
    if len(outside) == 2 and outside[0] and named == f"{outside[0]}:{outside[1]}":
        return outside[0], outside[1]
    return None


def of_this_user() -> RootlessHost:
    """The machine of the user who runs this process, who is not root but in namespaces."""
    inside = whose_namespaces()
    uid, gid = inside or (os.geteuid(), os.getegid())
    # sudo's, of who called it: the user that sykube runs as is meant.
    os.environ.pop("SUDO_UID", None)
    try:
        entry = pwd.getpwuid(uid)
        name, home = entry.pw_name, entry.pw_dir
    except KeyError:
        # As in some containers; the number does, for all but subordinate IDs by name.
        name, home = str(uid), "/nonexistent"
    batch = job.of_this_process(Host(), os.environ)
    found = folders.of_user(uid, Path(os.environ.get("HOME") or home), os.environ, job=batch)
    if batch:
        # Not in a home that other hosts and jobs share: killed, this one leaves its context there.
        os.environ.setdefault("KUBECONFIG", str(found.runtime / "kubeconfig"))
    owned = ids.of_user(Host(), name, uid, gid)
    grants = Grants(True, cgroups=False, users=owned.has_ranges, user=name, uid=uid, job=batch)
    host = RootlessHost(
        folders=found, ids=owned, beyond=routes(Path("/proc/net/route")), grants=grants
    )
    if inside:
        return host.entered()
    given = None if batch else delegation.of_user(host)
    cgroups = bool(host.granted_cgroups()) or (given is not None and given.is_enough)
    return replace(host, grants=replace(grants, cgroups=cgroups, delegation=given))
