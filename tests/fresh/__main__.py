"""What is meant for fresh machines, in freshly bootstrapped Debian roots: python3 -m tests.fresh NAME…

`bookworm` and `trixie` are both commands of the README; `vagrant` is what the Vagrantfile's
machine runs, on a Debian 13 that has nothing yet.

A machine used for development hides missing steps. Each root has namespaces of
its own (mount, PID, network, host name, IPC, cgroup), so that what runs there
meets nothing of the machine but its kernel.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from sykube.host.apt import Mirror, find_mirror
from sykube.host.host import Host
from tests.machine import cgroup

CHECKOUT = Path(__file__).resolve().parents[2]
_ENTER = CHECKOUT / "tests/machine/enter"
# As long as CI has.
_COMMAND_TIMEOUT_S = 5400
# Of each cluster nothing may stay.
_END = (
    "sykube status",
    "sykube delete --yes",
    "sykube uninstall --yes",
    "test ! -e /var/lib/sykube -a ! -e /var/cache/sykube -a ! -e /var/log/sykube",
)


@dataclass(frozen=True)
class Machine:
    """A fresh machine: its Debian, the packages that it has been given, and what is run there."""

    suite: str
    packages: str
    commands: tuple[str, ...]


def _of_readme(suite: str) -> Machine:
    # The second time, the cluster is found up.
    again = "make cluster 2>&1 | grep 'The cluster sykube is up'"
    commands = ("make cluster", again, "make test", *_END)
    return Machine(suite, "ca-certificates,git,make,python3", commands)


_MACHINES = {
    "bookworm": _of_readme("bookworm"),
    "trixie": _of_readme("trixie"),
    # Tests in CI are `make test` there, too. The package of authorities would replace the site's,
    # which are this machine's, if it came later.
    "vagrant": Machine(
        "trixie",
        "ca-certificates",
        (
            "! command -v python3 && ! command -v git",
            "scripts/provision",
            "scripts/provision 2>&1 | grep 'The cluster sykube is up'",
            *_END,
        ),
    ),
}
# Programs of this machine, and Debian's packages that have them.
_NEEDED = {"debootstrap": "debootstrap", "ip": "iproute2", "iptables": "iptables"}
# One run at a time, as by its link.
_CGROUP = "sykube-fresh"
_HOST_LINK, _GUEST_LINK = "sykfresh0", "sykfresh1"
_SUBNET, _HOST_ADDRESS, _GUEST_ADDRESS = "10.253.253.0/30", "10.253.253.1", "10.253.253.2"


def main() -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    names = sys.argv[1:] or list(_MACHINES)
    missing = [package for program, package in _NEEDED.items() if not shutil.which(program)]
    if missing:
        _check(CHECKOUT / "scripts/install-packages", *missing)
    for name in names:
        machine = _MACHINES[name]
        print(f"== {name}: bootstrapping", flush=True)
        with _root(machine) as root, _network():
            lines = (f"echo {quote(f'== {line}')} && {line}" for line in machine.commands)
            code = _run(root, " && ".join(lines))
            if code != 0:
                print(f"== {name}: failed with exit code {code}", flush=True)
                return 1
        print(f"== {name}: passed", flush=True)
    print(f"{len(names)} passed, 0 failed")
    return 0


@contextlib.contextmanager
def _root(machine: Machine) -> Iterator[Path]:
    """A root file system with the machine's packages, and a clone of this checkout."""
    suite = machine.suite
    mirror = find_mirror(Host())
    root = Path(tempfile.mkdtemp(prefix=f"sykube-fresh-{suite}-", dir="/var/tmp"))
    try:
        root.chmod(0o755)
        command = ["debootstrap", "--variant=minbase", f"--include={machine.packages}"]
        log = root.with_suffix(".log")
        with log.open("w") as output:
            subprocess.run([*command, suite, root, mirror.main], check=True, stdout=output)
        log.unlink()
        _configure(root, mirror, suite)
        _check("git", "clone", "-q", CHECKOUT, root / "root/sykube")
        yield root
    finally:
        shutil.rmtree(root)


def _configure(root: Path, mirror: Mirror, suite: str) -> None:
    sources = "\n".join(mirror.sources(suite)) + "\n"
    (root / "etc/apt/sources.list").write_text(sources)
    # How this machine reaches its package registries is the site's, not the root's.
    for name in ("etc/resolv.conf", "etc/ssl/certs/ca-certificates.crt", "etc/pip.conf"):
        if (Path("/") / name).exists():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path("/") / name, root / name)


@contextlib.contextmanager
def _network() -> Iterator[None]:
    """A link for the roots to the machine's network; the roots' own rules stay in theirs."""
    forward = Path("/proc/sys/net/ipv4/ip_forward")
    before = forward.read_text(encoding="utf-8")
    rule = ["POSTROUTING", "-s", _SUBNET, "-j", "MASQUERADE"]
    subprocess.run(["ip", "link", "delete", _HOST_LINK], check=False, stderr=subprocess.DEVNULL)
    _check("ip", "link", "add", _HOST_LINK, "type", "veth", "peer", "name", _GUEST_LINK)
    try:
        _check("ip", "address", "add", f"{_HOST_ADDRESS}/30", "dev", _HOST_LINK)
        _check("ip", "link", "set", _HOST_LINK, "up")
        _check("iptables", "-w", "-t", "nat", "-A", *rule)
        forward.write_text("1", encoding="utf-8")
        yield
    finally:
        forward.write_text(before, encoding="utf-8")
        subprocess.run(["iptables", "-w", "-t", "nat", "-D", *rule], check=False)
        subprocess.run(["ip", "link", "delete", _HOST_LINK], check=False, stderr=subprocess.DEVNULL)


def _run(root: Path, command: str) -> int:
    """Run a command of the README in the root; its exit code."""
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "CI": "true",
        # What a machine without a network gets; others would make a cluster of upstream's.
        "SYKUBE_SOURCE": "debian",
    }
    # Not PIP_FIND_LINKS: those are folders of this machine.
    environment |= {
        name: os.environ[name]
        for name in ("PIP_CERT", "PIP_DEFAULT_TIMEOUT", "PIP_INDEX_URL")
        if name in os.environ
    }
    environment |= {
        "MACHINE_LINK": _GUEST_LINK,
        "MACHINE_ADDRESS": f"{_GUEST_ADDRESS}/30",
        "MACHINE_GATEWAY": _HOST_ADDRESS,
        "MACHINE_CGROUP": _CGROUP,
    }
    cgroup.remove(_CGROUP)
    process = subprocess.Popen(
        ["sh", _ENTER, root, "/root/sykube", command], env=environment, start_new_session=True
    )
    try:
        return process.wait(_COMMAND_TIMEOUT_S)
    finally:
        # Whatever runs in the root ends before it is removed.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        cgroup.remove(_CGROUP)


def _check(*command: str | Path) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    sys.exit(main())
