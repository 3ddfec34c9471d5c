"""What an ordinary user's clusters need of a host, and what more an administrator could grant.

Each finding that is not healthy has the exact line to ask for.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from sykube.errors import HostError
from sykube.host import delegation, distribution, places
from sykube.host.delegation import Delegation
from sykube.host.finding import Finding, Level, failure, ok, warning
from sykube.host.host import Host
from sykube.host.records import read_sysctl

SLIRP = "slirp4netns"
PROGRAMS = ("ip", "iptables", "sysctl", "mount", "nsenter", "unshare", "unsquashfs", SLIRP)
_TUN = "dev/net/tun"
# A cluster of two nodes has about sixty; the kernel's default is 128.
_INOTIFY_LEAST, _INOTIFY = 64, 256
# What a user is refused user namespaces by, with what ends it.
_FORBIDDING = {
    "kernel/unprivileged_userns_clone": "0",
    "kernel/apparmor_restrict_unprivileged_userns": "1",
    "user/max_user_namespaces": "0",
}
_ALLOWING = {
    "kernel/unprivileged_userns_clone": "1",
    "kernel/apparmor_restrict_unprivileged_userns": "0",
    "user/max_user_namespaces": "10000",
}
# Container images have users up to nobody, 65534. useradd gives ranges from the first one on.
LEAST_IDS = 65536
_FIRST_ID = 100_000
# Findings about what more there could be.
OPTIONAL = frozenset({"user IDs", "cgroups"})
_ASK = "Ask the administrator for: "
_OWN = "yours to share out among nodes"
_NONE = "no limits, `pause` or usage of nodes and pods"


def findings(host: Host) -> list[Finding]:
    """All of them, those first without which there is no cluster."""
    job = [ok("job", f"{host.grants.job}, {host.grants.job.until}")] if host.grants.job else []
    return [
        *job, _user_namespaces(host), _programs(host), _tun(host), _modules(host), _tier(host),
        _user_ids(host), _cgroups(host), _inotify(host), *_logout(host),
    ]  # fmt: skip


def require(host: Host) -> None:
    """Refuse a host on which there can be no namespaces of a user's with a network.

    Raises:
        HostError: it lacks something, or the user has no folders to write to; says what to do.
    """
    places.require_writable(host)
    for each in (_user_namespaces(host), _programs(host), _tun(host)):
        if each.level is Level.FAILURE:
            raise HostError(
                f"this host is not ready for clusters without root: {each.detail}",
                resolution=each.cure,
            )


def forbidding(host: Host) -> str:
    """The command that lets users have user namespaces where a setting forbids it; else nothing."""
    for key, value in _FORBIDDING.items():
        if read_sysctl(host, key) == value:
            return f"sysctl -w {key.replace('/', '.')}={_ALLOWING[key]}"
    return ""


def _user_namespaces(host: Host) -> Finding:
    if command := forbidding(host):
        return failure("user namespaces", "users may have no user namespaces", f"{_ASK}{command}")
    return ok("user namespaces", "users may have them")


def _programs(host: Host) -> Finding:
    missing = [name for name in PROGRAMS if not host.which(name)]
    if not missing:
        return ok("programs", ", ".join(PROGRAMS))
    fix = distribution.this(host).fix(missing)
    return failure("programs", f"missing: {', '.join(missing)}", f"{_ASK}{fix}")


def _tun(host: Host) -> Finding:
    if os.access(host.root / _TUN, os.R_OK | os.W_OK):
        return ok("network", f"{SLIRP} may use /{_TUN}")
    fix = f"{_ASK}modprobe tun && chmod 666 /{_TUN}"
    return failure("network", f"/{_TUN} is not open to users", fix)


def _modules(host: Host) -> Finding:
    wanted = {"overlay": _has_overlay(host), "br_netfilter": _has_bridge_filter(host)}
    missing = [name for name, there in wanted.items() if not there]
    if not missing:
        return ok("kernel", "overlay, br_netfilter")
    fix = " && ".join(f"modprobe {name}" for name in missing)
    return failure("kernel", f"not loaded: {', '.join(missing)}", f"{_ASK}{fix}")


def _has_overlay(host: Host) -> bool:
    return "overlay" in (host.proc / "filesystems").read_text(encoding="utf-8").split()


def _has_bridge_filter(host: Host) -> bool:
    return read_sysctl(host, "net/bridge/bridge-nf-call-iptables") is not None


def tier(host: Host) -> str:
    """What this host grants, in words."""
    grants = host.grants
    users = "user IDs of their own" if grants.users else "one user ID"
    limits = "limits" if grants.cgroups else "no limits"
    job = f"; in {grants.job}" if grants.job else ""
    return f"containers have {users} and {limits}{job}"


def _tier(host: Host) -> Finding:
    return ok("without root", f"{tier(host)}: docs/rootless.md")


def _user_ids(host: Host) -> Finding:
    if host.grants.users:
        return ok("user IDs", "containers keep theirs")
    commands, all_as_one = [], "all containers run as you: one that needs another user fails"
    if not (host.which("newuidmap") and host.which("newgidmap")):
        commands.append(distribution.this(host).fix(["newuidmap"]))
        if has_enough_ids(host, host.grants.user, host.grants.uid):
            # Not among those that say what there could be beside: it was meant to be there.
            detail = f"you have some, but newuidmap is missing: {all_as_one}"
            return warning("your user IDs", detail, f"{_ASK}{commands[0]}")
    if not has_enough_ids(host, host.grants.user, host.grants.uid):
        files = (host.etc / "subuid", host.etc / "subgid")
        ends = [first + length for file in files for first, length in id_ranges(file, "")]
        first = max([_FIRST_ID, *ends])
        ids = f"{first}-{first + LEAST_IDS - 1}"
        name = shlex.quote(host.grants.user)
        commands.append(f"usermod --add-subuids {ids} --add-subgids {ids} {name}")
    return warning("user IDs", all_as_one, f"{_ASK}{' && '.join(commands)}")


def has_enough_ids(host: Host, name: str, uid: int) -> bool:
    """Whether a user has subordinate users and groups for all that container images have."""
    found = [id_ranges(host.etc / file, name, str(uid)) for file in ("subuid", "subgid")]
    return all(sum(length for _, length in each) >= LEAST_IDS for each in found)


def id_ranges(file: Path, *owners: str) -> tuple[tuple[int, int], ...]:
    """First IDs and lengths of ranges in /etc/subuid or /etc/subgid: subuid(5).

    Args:
        owners: whose, by name or number; everybody's for an empty one.
    """
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    fields = [line.split(":") for line in lines]
    return tuple(
        (int(first), int(length))
        for owner, first, length in (line for line in fields if len(line) == 3)
        if (owner in owners or "" in owners) and first.isdigit() and length.isdigit()
    )


def _cgroups(host: Host) -> Finding:
    if host.grants.job:
        return ok("cgroups", "the job's own, for all nodes together; no `pause`, no usage of pods")
    if host.grants.delegation:
        return _delegated(host, host.grants.delegation)
    if host.grants.cgroups:
        return ok("cgroups", _OWN)
    if (host.cgroups / "cgroup.controllers").exists():
        return warning("cgroups", _NONE, "`sykube doctor` outside of `sykube run` says why.")
    return warning("cgroups", _NONE, f"{_ASK}{cgroup_command(host)}")


def _delegated(host: Host, found: Delegation) -> Finding:
    """Of cgroup v2: what there is of it, and what could be."""
    command = f"{_ASK}{delegation.COMMAND}\n  Then log out everywhere and in again."
    if host.grants.cgroups:
        if not found.missing:
            return ok("cgroups", _OWN)
        lacking = "; ".join(f"without {each} {delegation.USES[each]}" for each in found.missing)
        return warning("cgroups", f"{_OWN}; {lacking}", command)
    if not found.manager:
        cure = "Log in by ssh or at a console: where the host has systemd, one of yours runs then."
        return warning("cgroups", f"{_NONE}: no systemd of yours runs", cure)
    if needed := [each for each in delegation.NEEDED if each in found.missing]:
        lacking = f"your systemd was not given {', '.join(needed)}"
        return warning("cgroups", f"{_NONE}: {lacking}", command)
    if not found.bus:
        bus = distribution.this(host).fix([distribution.USER_BUS])
        return warning("cgroups", f"{_NONE}: your systemd cannot be asked", f"{_ASK}{bus}")
    # Not among those that say what there could be beside, either: it is there.
    detail = f"{_NONE}: your clusters began without those that your systemd has"
    cure = "They get them after a reboot, or once all are deleted. Where init says this of the "
    return warning("your cgroups", detail, f"{cure}first one: `systemctl --user status`.")


def cgroup_command(host: Host) -> str:
    """What gives a user a cgroup in each hierarchy of cgroup v1, until the next boot."""
    name = cgroup_name(host.grants.uid)
    return (
        f"for each in /sys/fs/cgroup/*/; do mkdir -p ${{each}}{name}; done; "
        f"for each in cpus mems; do cat /sys/fs/cgroup/cpuset/cpuset.$each > "
        f"/sys/fs/cgroup/cpuset/{name}/cpuset.$each; done; "
        f"chown -R {shlex.quote(host.grants.user)} /sys/fs/cgroup/*/{name}"
    )


def cgroup_name(uid: int) -> str:
    """The cgroup of a user below the root of each hierarchy of cgroup v1."""
    return f"sykube-{uid}"


def may_make_cgroups(hierarchies: Iterator[Path]) -> bool:
    """Whether this process may make cgroups in each of these folders, and there are any."""
    found = [each for each in hierarchies if not each.is_symlink()]
    return bool(found) and all(os.access(each / "cgroup.procs", os.W_OK) for each in found)


def _logout(host: Host) -> list[Finding]:
    if not host.grants.logout:
        return []
    if problem := logout_warning(host):
        return [warning("logout", *problem)]
    return [ok("logout", "your clusters outlive it")]


def logout_warning(host: Host) -> tuple[str, str] | None:
    """That a logout ends the user's clusters, and what lets them go on; None where they do."""
    found = host.grants.logout
    return (found.ends, found.cure) if found and found.ends else None


def _inotify(host: Host) -> Finding:
    instances = int(read_sysctl(host, "fs/inotify/max_user_instances") or 0)
    if instances >= _INOTIFY:
        return ok("inotify", f"{instances} instances for each user")
    few, fix = (
        f"{instances} instances for each user",
        "sysctl -w fs.inotify.max_user_instances=1024",
    )
    if instances < _INOTIFY_LEAST:
        return failure("inotify", f"{few}: too few for two nodes", f"{_ASK}{fix}")
    return warning("inotify", f"{few}: enough for one small cluster", f"{_ASK}{fix}")
