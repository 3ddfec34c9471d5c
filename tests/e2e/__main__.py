"""Runs the tests of this folder, the halves of them side by side: python3 -m tests.e2e [--long]

Much of a test is waiting, for which two cores are too many. Each half runs on a machine of its own:
namespaces, cgroups and, below /var/tmp, the folders where a cluster leaves anything. What a cluster
does to the settings that all of them share is tested first, by itself. With --long, it runs those that
`make soak` runs.

Ends with 1 when a test failed or was left out. What each half said stays in
/var/tmp/sykube-e2e-NUMBER.log until the next run.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from shlex import join
from typing import IO

from tests.e2e import settings
from tests.machine import cgroup as machine_cgroup

FIRST = ("host",)
# Files that share a cluster are in one half; the longest of each begins, and stock before the others,
# as it looks at what a cluster has that nothing was done with.
HALVES = (
    (
        "rootless", "neighbours", "jobs", "failures", "lifecycle", "cluster", "dashboard", "metrics",
        "network_policy", "runtime_faults", "slurm", "site",
    ),
    (
        "faults", "stock", "everyday", "snapshots", "runtimes", "bench", "pod_options", "gpus", "sif",
        "images", "diagnosis", "docs", "bundle", "benchmarks", "pod_network",
    ),
)  # fmt: skip
_DELETE_S = 120.0
# Characters of what is said at the end of a test that failed.
_SUMMARY = 250
_CHECKOUT = Path(__file__).resolve().parents[2]
_ENTER = _CHECKOUT / "tests/machine/enter"
# Where a cluster, its tests, CNI's plugins and the engine leave files. An engine that sees another
# one's records removes them, since it does not see the processes.
_FOLDERS = (
    "/etc/systemd/system", "/root/.apptainer", "/var/lib/cni", "/var/lib/sykube", "/var/log/sykube",
)  # fmt: skip


def main(long: bool) -> int:
    """Run all of them, or the long ones; an exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    with _one_at_a_time():
        settings.restore_left()
        if not long and (code := _run_first()):
            return code
        with settings.held(), contextlib.ExitStack() as stack:
            running = [
                stack.enter_context(_running(number, _pytest(files, *["--long"] * long)))
                for number, files in enumerate(HALVES, start=1)
            ]
            codes = [process.wait() for process, _ in running]
    print(f"halves ended with {', '.join(map(str, codes))}", flush=True)
    # Last, as of a long output the end is what people see.
    for _, failed in running:
        for line in failed:
            print(line, flush=True)
    return int(any(codes))


def _pytest(files: tuple[str, ...], *options: str) -> list[str]:
    paths = [f"tests/e2e/test_{name}.py" for name in files]
    return [sys.executable, "-m", "pytest", "-v", "--durations=40", *options, *paths]


def _run_first() -> int:
    process = subprocess.Popen(_pytest(FIRST), cwd=_CHECKOUT)
    try:
        return process.wait()
    except BaseException:
        # It deletes its cluster.
        process.send_signal(signal.SIGINT)
        process.wait(_DELETE_S)
        raise


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    with Path("/var/tmp/sykube-e2e.lock").open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _running(number: int, command: list[str]) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A command on a machine of its own, and what pytest says of tests that failed, once it has ended.

    What is left of it is removed, and of one killed before.

    Raises:
        TimeoutError: processes of it do not end within 2 minutes.
    """
    name = f"sykube-e2e-{number}"
    folder = Path("/var/tmp") / name
    _remove(folder, name)
    (folder / "root").mkdir(parents=True)
    environment = os.environ | {
        "MACHINE_LINK": "",
        "MACHINE_ADDRESS": "192.0.2.2/24",
        "MACHINE_GATEWAY": "192.0.2.1",
        "MACHINE_CGROUP": name,
        "MACHINE_OWN": str(folder / "own"),
        "MACHINE_FOLDERS": " ".join(_FOLDERS),
    }
    process = subprocess.Popen(
        ["sh", str(_ENTER), str(folder / "root"), str(_CHECKOUT), join(command)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert process.stdout
    failed: list[str] = []
    log = folder.with_suffix(".log")
    shown = threading.Thread(target=_show, args=(number, process.stdout, log, failed))
    shown.start()
    try:
        yield process, failed
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shown.join()
        _remove(folder, name)


def _show(number: int, output: IO[str], log: Path, failed: list[str]) -> None:
    with log.open("w", encoding="utf-8") as file:
        for line in output:
            file.write(line)
            if line.startswith(("FAILED ", "ERROR ")):
                failed.append(line[:_SUMMARY].strip())
            # Whoever reads them may have gone; pytest goes on.
            with contextlib.suppress(OSError):
                print(f"{number} {line}", end="", flush=True)


def _remove(folder: Path, cgroup: str) -> None:
    machine_cgroup.remove(cgroup)
    # Nothing is mounted here: mounts of the machine end with its namespace.
    if folder.exists():
        shutil.rmtree(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="tests.e2e")
    parser.add_argument("--long", action="store_true", help="those that `make soak` runs")
    sys.exit(main(parser.parse_args().long))
