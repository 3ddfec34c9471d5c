"""Runs sykube on a Debian 13 machine with systemd and cgroup v2, emulated by qemu.

    python3 -m tests.vm                     the scenario `cluster`
    python3 -m tests.vm users               another one: `users` without root, `runtimes` of pods, `boot`
                                            without cluster
    python3 -m tests.vm --run FILE ...      given shell files instead; `ada:FILE` runs one as that
                                            user, `reboot` reboots

Needs root and sykube's cache on this host: a node image and the private Apptainer, which
`sykube node-image build` makes. Nothing of sykube runs on the host itself. Ends with 1 when
anything in the guest failed; what the guest printed is shown, and kept below the cache folder.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.vm import cache, disk, guest, scenario, tools
from tests.vm.tools import VmError, say

_CONSOLE_LINES = 60


def main(argv: Sequence[str] | None = None) -> int:
    """Run a scenario; its exit code."""
    options = _arguments().parse_args(argv)
    # A request to end becomes an exception, so that qemu and the run's folder go, too.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))
    chosen = scenario.SCENARIOS[options.scenario]
    if options.run:
        chosen = scenario.of_files(options.run, options.limit * 60)
    logs: Path = options.logs or cache.base() / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    try:
        code = _run(chosen, options.image, logs)
    except VmError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    say(f"{chosen.name}: {'passed' if code == 0 else 'FAILED'}; logs: {logs}/{chosen.name}.*.log")
    return 0 if code == 0 else 1


def _run(chosen: scenario.Scenario, image: Path | None, logs: Path) -> int:
    say(f"{chosen.name}: {chosen.summary}")
    tools.require_root()
    tools.install_missing()
    system = disk.system_disk()
    image = image or disk.node_image()
    say(f"node image: {image}")
    with tempfile.TemporaryDirectory(prefix="run-", dir=cache.base()) as name:
        work = Path(name)
        started = time.monotonic()
        disk.data_disk(work / "data.ext4", chosen, image)
        say(f"made the data disk in {time.monotonic() - started:.0f} s; starting the guest")
        with guest.running(system, work / "data.ext4", work, logs, chosen.name) as machine:
            try:
                code = machine.result()
            except VmError:
                _show(machine.output, 0)
                _show(machine.console, _CONSOLE_LINES)
                raise
            _show(machine.output, 0)
            return code


def _show(file: Path, lines: int) -> None:
    """Print the last lines of what the guest wrote, or all (0)."""
    say(f"{'─' * 20} {file.name} {'─' * 20}")
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]:
        say(line)
    say("─" * 60)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m tests.vm", description="Run sykube on an emulated Debian 13 machine."
    )
    parser.add_argument(
        "scenario", nargs="?", default="cluster", choices=sorted(scenario.SCENARIOS),
        help="what to do there (default: cluster)",
    )  # fmt: skip
    parser.add_argument(
        "--image", type=Path, metavar="FILE", help="node image (default: this checkout's)"
    )
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="where logs are kept")
    parser.add_argument(
        "--run", nargs="+", metavar="FILE", help="shell files instead of a scenario"
    )
    parser.add_argument(
        "--limit", type=int, default=20, metavar="MINUTES", help="limit of each of these files"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
