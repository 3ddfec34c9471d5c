"""Serves releases as upstream's sites and registry do, on loopback, until it is interrupted.

    python3 -m tests.upstream DIR...                the newest release first
    python3 -m tests.upstream --port 5453 DIR...    beside another one; the sites have the next port

Needs root, as the registry runs in a root file system of Debian. What it prints makes sykube take
its Kubernetes from there: variables for your shell, and options for the commands that make a node
image. Several commands may use it at the same time.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from sykube.host import apt, engines
from sykube.host.host import Host
from sykube.image import upstream
from tests.upstream import debian, mirror
from tests.upstream.mirror import Mirror
from tests.upstream.release import ReleaseError


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM; its exit code."""
    parser = argparse.ArgumentParser(
        prog="python3 -m tests.upstream", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("folders", nargs="*", type=Path, metavar="DIR", help="of a release")
    parser.add_argument("--port", type=int, default=mirror.PORT, metavar="N", help="the registry's")
    options = parser.parse_args(argv)
    if os.geteuid() != 0:
        print("it needs root, as sykube does", file=sys.stderr)
        return 2
    folder = debian.mirror_cache() / str(options.port)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    # A request to end becomes an exception, so that the registry goes, too.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    engines.find_or_create(Host(), lambda: apt.find_mirror(Host()), print)
    folders = [each.absolute() for each in options.folders] or mirror.folders()
    try:
        ports = (options.port, options.port + 1)
        with mirror.running(folder, folders, plain=True, ports=ports) as running:
            print(_usage(running), flush=True)
            while True:
                signal.pause()
    except ReleaseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _usage(running: Mirror) -> str:
    lines = []
    for each in running.releases:
        lines.append(
            f"# Kubernetes {each.kubernetes}{_other_numbers(each.kubernetes, each.versions)}"
        )
    lines += [f"export {name}={shlex.quote(at)}" for name, at in running.choice.items()]
    trust = shlex.join(running.trust())
    lines.append(f"# sykube init {trust} --kubernetes-version {running.version}")
    return "\n".join(lines)


def _other_numbers(kubernetes: str, versions: Mapping[str, str]) -> str:
    """What is served under the number that sykube's table has, where that is another one."""
    table = upstream.Release.of(kubernetes)
    served = {"containerd": table.containerd, "runc": table.runc}
    differ = [
        f"{name} {versions[name]} as {number}"
        for name, number in served.items()
        if versions.get(name, number) != number
    ]
    return f": {', '.join(differ)}" if differ else ""


if __name__ == "__main__":
    sys.exit(main())
