"""What the logout of a user ends: logind.conf(5), KillUserProcesses; loginctl(1), enable-linger."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sykube.host import delegation

if TYPE_CHECKING:
    # A host knows it; this asks the host.
    from sykube.host.host import Host

_LOGIND = (
    "org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager",
    "KillUserProcesses", "KillOnlyUsers", "KillExcludeUsers",
)  # fmt: skip
_MAY_LINGER = ("pkcheck", "--action-id", "org.freedesktop.login1.set-self-linger", "--process")
_ASK = "Ask the administrator for: "


@dataclass(frozen=True)
class Logout:
    """What becomes of a user's clusters.

    Attributes:
        lingers: the user's systemd runs from the host's boot on, and not from login to logout.
        ends: what ends them; empty where nothing does.
        cure: what lets them go on, and start with the host.
    """

    lingers: bool
    ends: str = ""
    cure: str = ""


def asked(host: Host, cgroup: str, runtime: Path) -> Logout | None:
    """Ask logind; to be called outside of namespaces of the user's, from which it is not reached.

    Args:
        cgroup: that the clusters' processes are in.
        runtime: where it is recorded what runs.

    Returns:
        None where systemd does not run.
    """
    if not host.systemd.is_dir():
        return None
    user = host.grants.user
    lingers = (host.root / "var/lib/systemd/linger" / user).exists()
    cures = [] if lingers else [_linger(host)]
    if _is_of_a_login(cgroup) and _kills(host):
        # Where the user's own systemd cannot be asked to take them out of the login.
        conf = "/etc/systemd/logind.conf.d/sykube.conf"
        cures.append(
            f"{_ASK}mkdir -p {Path(conf).parent} && "
            f"printf '[Login]\\nKillExcludeUsers=root {shlex.quote(user)}\\n' > {conf} && "
            "systemctl kill -s HUP systemd-logind"
        )
        ends = "the end of the login that made them kills your clusters (KillUserProcesses)"
        return Logout(lingers, ends, "\n  ".join(cures))
    in_manager = f"user@{host.grants.uid}.service" in cgroup
    recorded = runtime.is_relative_to(delegation.runtime_of(host))
    if not lingers and (in_manager or recorded):
        return Logout(lingers, "your last logout ends your clusters", *cures)
    return Logout(lingers, "", *cures)


def _is_of_a_login(cgroup: str) -> bool:
    return any(
        each.startswith("session-") and each.endswith(".scope") for each in cgroup.split("/")
    )


def _kills(host: Host) -> bool:
    """Whether a logout kills what the user runs in it: logind-core.c, manager_shall_kill."""
    if host.which("busctl") is None:
        return False
    found = host.run(["busctl", "--json=short", "get-property", *_LOGIND], check=False)
    try:
        kills, only, exclude = (json.loads(line)["data"] for line in found.stdout.splitlines())
    except (ValueError, KeyError, TypeError):
        return False
    user = host.grants.user
    return bool(kills) and user not in exclude and (not only or user in only)


def _linger(host: Host) -> str:
    """The command that lets the user linger; who may give it is polkit's to say."""
    if host.which(_MAY_LINGER[0]) and host.run([*_MAY_LINGER, str(os.getpid())], check=False).ok:
        return "loginctl enable-linger"
    return f"{_ASK}loginctl enable-linger {shlex.quote(host.grants.user)}"
