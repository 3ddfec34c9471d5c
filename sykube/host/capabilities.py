"""Linux capabilities of this process, by their kernel names."""

from __future__ import annotations

import re

from sykube.host.host import Host

# include/uapi/linux/capability.h, in the order of their numbers
_NAMES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID"),
    *("SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW"),
    *("IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT"),
    *("SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD"),
    *("LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG"),
    *("WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE"),
)

# What a node cannot do without. Not SYS_RESOURCE, which containers and CI runners lack.
REQUIRED = frozenset(
    f"CAP_{name}"
    for name in (
        *("CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "MKNOD", "NET_ADMIN", "NET_BIND_SERVICE"),
        *("NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_ADMIN", "SYS_CHROOT"),
        "SYS_PTRACE",
    )
)


def effective(host: Host) -> int:
    status = (host.proc / "self/status").read_text(encoding="utf-8")
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return int(match[1], 16) if match else 0


def known(host: Host) -> int:
    """The mask of every capability that this kernel knows."""
    last = int((host.proc_sys / "kernel/cap_last_cap").read_text(encoding="utf-8"))
    return (1 << (last + 1)) - 1


def missing(host: Host) -> frozenset[str]:
    """Names of the capabilities that the kernel knows and this process lacks.

    A user's clusters have all of them, in namespaces that this process may not have entered.
    """
    if host.grants.rootless:
        return frozenset()
    return names(known(host) & ~effective(host))


def names(mask: int) -> frozenset[str]:
    """Names, such as CAP_NET_ADMIN, of the capabilities in a mask."""
    return frozenset(f"CAP_{name}" for number, name in enumerate(_NAMES) if mask >> number & 1)
