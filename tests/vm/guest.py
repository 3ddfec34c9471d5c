"""A guest in qemu: started, watched through its serial ports, ended in any case."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.vm import emulator
from tests.vm.disk import ROOT_LABEL, SystemDisk
from tests.vm.scenario import BOOT_LIMIT_S, WHOLE_LIMIT_S
from tests.vm.tools import VmError, say

MEMORY_MB = 6144
# What the guest's own limit of a stage does not cover: ending it, looking for the cause.
_STAGE_GRACE_S = 420
# systemd lets the cluster stop in order first.
_SHUTDOWN_LIMIT_S = 660
_POLL_S = 0.5
_MARKER = re.compile(r"^SYKUBE-VM-([A-Z]+) ?(.*)$")
_PANIC = "Kernel panic - not syncing"
# The kernel patches its own code as it boots, which qemu's threads now and then run half patched.
_PANICS_AT_BOOT = 2
_BOOTING = "the machine to boot", "the machine to reboot"


@dataclass
class Guest:
    """A running guest and what it writes.

    Attributes:
        output: file with what the stages print, and the driver's markers.
        console: file with what the kernel and systemd print.
    """

    process: subprocess.Popen[bytes]
    output: Path
    console: Path
    started: float = field(default_factory=time.monotonic)
    _read: int = 0
    _panics: int = 0

    def result(self) -> int:
        """Follow the guest to its end.

        Returns:
            The exit code of the stage that failed, or 0.

        Raises:
            VmError: it panicked, but for a boot that it began once more by itself; it ended without
                a result or took too long.
        """
        deadline, waiting_for = time.monotonic() + BOOT_LIMIT_S, _BOOTING[0]
        while True:
            for marker, words in self._markers():
                limit: float
                match marker:
                    case "BOOT":
                        self._say(f"booted ({words[0]})")
                        waiting_for, limit = "a stage to start", 60
                    case "STAGE":
                        self._say(f"{words[0]} ...")
                        waiting_for, limit = words[0], float(words[1]) + _STAGE_GRACE_S
                    case "DONE":
                        verdict = "well" if words[1] == "0" else f"FAILED, exit code {words[1]}"
                        self._say(f"{words[0]}: {verdict} ({words[2]} s)")
                        waiting_for, limit = "the next stage to start", _STAGE_GRACE_S
                    case "REBOOT":
                        self._say("reboots")
                        waiting_for, limit = _BOOTING[1], BOOT_LIMIT_S
                    case "RESULT":
                        self._wait_for_power_off()
                        return int(words[0])
                    case _:
                        continue
                deadline = time.monotonic() + limit
            self._check(deadline, waiting_for)
            time.sleep(_POLL_S)

    def _markers(self) -> Iterator[tuple[str, list[str]]]:
        """Markers in the complete lines that came since the last call."""
        with self.output.open("rb") as file:
            file.seek(self._read)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._read += len(whole) + len(newline)
        for line in whole.decode(errors="replace").splitlines():
            if match := _MARKER.match(line):
                yield match[1], match[2].split()

    def _check(self, deadline: float, waiting_for: str) -> None:
        panics = self.console.read_text(errors="replace").count(_PANIC)
        if panics > self._panics:
            self._panics = panics
            self._say("the guest's kernel panicked")
            if waiting_for not in _BOOTING or panics > _PANICS_AT_BOOT:
                raise VmError(f"the guest's kernel panicked, see {self.console}")
        if self.process.poll() is not None:
            raise VmError(f"qemu ended with {self.process.returncode} before the test did")
        now = time.monotonic()
        if now > deadline or now - self.started > WHOLE_LIMIT_S:
            raise VmError(f"waited for too long for {waiting_for}")

    def _wait_for_power_off(self) -> None:
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(_SHUTDOWN_LIMIT_S)
            return
        raise VmError("the guest did not power off after the test")

    def _say(self, text: str) -> None:
        took = int(time.monotonic() - self.started)
        say(f"  {took // 60:2d}:{took % 60:02d}  {text}")


@contextmanager
def running(system: SystemDisk, data: Path, work: Path, logs: Path, name: str) -> Iterator[Guest]:
    """A guest, from its start to the end of the block; it never outlives that.

    Args:
        data: image of the disk with the plan; it is written to.
        work: folder for what the guest writes to its system disk, which is thrown away.
        logs: folder for the two logs, which start with `name`.
    """
    output, console = logs / f"{name}.output.log", logs / f"{name}.console.log"
    for log in (output, console):
        log.write_bytes(b"")
    command: list[str | Path] = [
        *emulator.command(),
        *("-nodefaults", "-no-user-config", "-display", "none"),
        # Emulated on purpose: it works where /dev/kvm is missing or of no use. The kernel's
        # 16-byte compare-and-swap goes wrong in qemu's threads now and then: cx16=off. Newer
        # processors have wider registers, which take longer to emulate.
        *("-accel", "tcg,thread=multi", "-cpu", "Nehalem,cx16=off"),
        *("-smp", "2", "-m", str(MEMORY_MB)),
        *("-kernel", system.kernel, "-initrd", system.initrd),
        "-append",
        f"root=LABEL={ROOT_LABEL} rw console=ttyS0 mitigations=off panic=1",
        "-drive",
        f"file={system.image},format=raw,if=virtio,snapshot=on,cache=unsafe",
        "-drive",
        f"file={data},format=raw,if=virtio,cache=unsafe",
        *("-device", "virtio-rng-pci"),
        *("-serial", f"file:{console}", "-serial", f"file:{output}"),
    ]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR": str(work)}
    messages = work / "qemu.log"
    with messages.open("wb") as stream:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env=environment
        )
    try:
        yield Guest(process, output, console)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if text := messages.read_text(errors="replace").strip():
            say(f"qemu said: {text}")
