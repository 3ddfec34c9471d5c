"""SELinux and AppArmor, as far as they keep root from running nodes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sykube.host.host import Host

# Domains that the targeted policy lets do everything: a login of root and its children, services
# without a policy of their own, early boot. Source: selinux-policy, unconfined.te and init.te
_FREE_DOMAINS = frozenset({"unconfined_t", "unconfined_service_t", "initrc_t", "kernel_t"})


@dataclass(frozen=True)
class Trouble:
    """What is in the way, and what to do about it."""

    detail: str
    fix: str


def selinux(host: Host) -> Trouble | None:
    """Whether SELinux refuses this process what nodes need.

    An enforcing SELinux does not by itself: what root starts from an unconfined shell is as
    unconfined, nodes and pods included, since neither engine nor the nodes' containerd changes
    domains. A confined root (staff_u, sysadm_u, a container) is refused mounts and networks.
    """
    if _read(host.root / "sys/fs/selinux/enforce") != "1":
        return None
    context = _read(host.proc / "self/attr" / "current")
    domain = next(iter(context.split(":")[2:3]), "")
    if domain in _FREE_DOMAINS:
        return None
    return Trouble(
        f"SELinux is enforcing and confines this process ({context or 'unknown'})",
        "Run sykube as an unconfined root: sudo -r unconfined_r -t unconfined_t sykube …",
    )


def apparmor(host: Host) -> Trouble | None:
    """Whether an AppArmor profile holds this process, such as a container's.

    Ubuntu's kernel.apparmor_restrict_unprivileged_userns is about users other than root, and
    sykube's nodes have no user namespace: https://apptainer.org/docs/admin/main/installation.html
    has what such users need.
    """
    if _read(host.root / "sys/module/apparmor/parameters/enabled") != "Y":
        return None
    # Linux 5.8 and later keep it apart from other modules' attributes: Documentation/
    # admin-guide/LSM/apparmor.rst
    profile = _read(host.proc / "self/attr" / "apparmor/current") or _read(
        host.proc / "self/attr" / "current"
    )
    # "unconfined", "NAME (unconfined)" for profiles that only name a program, "NAME (complain)"
    if not profile or profile.endswith(("unconfined", "(unconfined)", "(complain)")):
        return None
    return Trouble(
        f"the AppArmor profile {profile} holds this process and may refuse it mounts",
        "Run sykube outside of that container or service, or without the profile: "
        "--security-opt apparmor=unconfined for a container.",
    )


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip("\n\0 ")
    except OSError:
        return ""
