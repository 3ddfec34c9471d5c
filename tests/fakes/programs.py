"""Programs of a fake host."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sykube.host.run import CommandError, Completed
from tests.fakes.answers import Answer
from tests.fakes.apptainer import Apptainer
from tests.fakes.calls import Calls
from tests.fakes.host import no_process
from tests.fakes.ip import Ip
from tests.fakes.iptables import Iptables
from tests.fakes.kernel import Kernel


class FakePrograms:
    """Stands in for sykube.host.run.run: records each argv and answers as the program would.

    A test adds programs of its own to `answers`.
    """

    def __init__(self, kernel: Kernel, calls: Calls, etc: Path) -> None:
        self.kernel = kernel
        self.calls = calls
        self.apptainer = Apptainer(etc)
        self.stdin = ""
        # Told of the program that sykube becomes.
        self.become: Callable[..., None] = no_process
        # Told of the program that sykube runs in the caller's place; its exit code.
        self.attached: Callable[..., int] = no_process
        iptables = Iptables(kernel)
        self.answers: dict[str, Callable[[list[str]], Answer]] = {
            "ip": Ip(kernel),
            "iptables": iptables,
            "iptables-restore": lambda words: iptables.restore(words, self.stdin),
            "sysctl": self._sysctl,
            "modprobe": self._modprobe,
            "mount": self._mount,
            "umount": self._umount,
            "cp": self._cp,
            "du": self._du,
            "apptainer": self.apptainer,
            "nft": _nft,
            "firewall-cmd": _firewall_cmd,
        }

    @property
    def argvs(self) -> list[list[str]]:
        """Every command so far."""
        return [list(call.words) for call in self.calls.all if call.kind == "run"]

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        stdin: str | None = None,
        env: Mapping[str, str | None] | None = None,
        cwd: str | Path = "/",
        timeout: float = 60.0,
        check: bool = True,
        on_line: Callable[[str], None] | None = None,
        secret: bool = False,
        terminal: bool = False,
        wrapper: Sequence[str] = (),
        stop: threading.Event | None = None,
    ) -> Completed:
        """See sykube.host.run.run."""
        words = tuple(str(word) for word in argv)
        self.calls.record("run", *words)
        program = Path(words[0]).name
        assert program in self.answers, f"the fake host has no program {program!r}: {words}"
        self.stdin = stdin or ""
        code, stdout, stderr = self.answers[program](list(words[1:]))
        for line in (stdout + stderr).splitlines() if on_line else []:
            assert on_line is not None
            on_line(line)
        if check and code != 0:
            raise CommandError(f"{program} failed with exit code {code}", words, stdout + stderr)
        return Completed(words, code, stdout, stderr)

    def _sysctl(self, words: list[str]) -> Answer:
        match words:
            case ["-q", "-w", setting]:
                key, value = setting.split("=")
            case unknown:
                raise AssertionError(f"the fake sysctl does not know: {unknown}")
        try:
            (self.kernel.proc_sys / key.replace(".", "/")).write_text(value)
        except FileNotFoundError:
            return 255, "", f"sysctl: cannot stat /proc/sys/{key.replace('.', '/')}"
        return 0, "", ""

    def _modprobe(self, words: list[str]) -> Answer:
        key = "net/bridge/bridge-nf-call-iptables"
        match words:
            case ["br_netfilter"]:
                self.kernel.modules.add("br_netfilter")
                self.kernel.define(key, "1")
            case ["-r", "br_netfilter"]:
                self.kernel.modules.discard("br_netfilter")
                with contextlib.suppress(FileNotFoundError):
                    shutil.rmtree((self.kernel.proc_sys / key).parent)
            case unknown:
                raise AssertionError(f"the fake modprobe does not know: {unknown}")
        return 0, "", ""

    def _mount(self, words: list[str]) -> Answer:
        match words:
            case ["-t", "tmpfs", "-o", "mode=711", "sykube", folder]:
                assert Path(folder).is_dir()
                self.kernel.mounts.add(folder)
                return 0, "", ""
        raise AssertionError(f"the fake mount does not know: {words}")

    def _umount(self, words: list[str]) -> Answer:
        (folder,) = words
        if folder not in self.kernel.mounts:
            return 32, "", f"umount: {folder}: not mounted."
        self.kernel.mounts.remove(folder)
        for entry in Path(folder).iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        return 0, "", ""

    def _du(self, words: list[str]) -> Answer:
        match words:
            case ["-s", "-x", "--block-size=1MB" | "--block-size=1", *folders]:
                return 0, "".join(f"7\t{folder}\n" for folder in folders), ""
        raise AssertionError(f"the fake du does not know: {words}")

    def _cp(self, words: list[str]) -> Answer:
        *options, source, target = words
        assert Path(source).exists(), f"cp: cannot stat {source}"
        match options:
            case ["-a"] | ["-a", "--link"] if Path(source).is_dir():
                assert not Path(target).exists()
                shutil.copytree(
                    source, target, copy_function=os.link if options[1:] else shutil.copy2
                )
            case (
                ["-a"]
                | ["--reflink=auto"]
                | ["--reflink=auto", "--preserve=mode" | "--preserve=mode,ownership"]
            ):
                shutil.copyfile(source, target)
            case unknown:
                raise AssertionError(f"the fake cp does not know: {unknown}")
        return 0, "", ""


def _nft(words: list[str]) -> Answer:
    """Nothing but iptables has rules."""
    match words:
        case ["--json", "list", "chains"]:
            return 0, '{"nftables": []}', ""
    raise AssertionError(f"the fake nft does not know: {words}")


def _firewall_cmd(words: list[str]) -> Answer:
    """It is installed and does not run."""
    match words:
        case [option] if option.startswith("--get-zone-of-interface="):
            return 252, "", "FirewallD is not running"
    raise AssertionError(f"the fake firewall-cmd does not know: {words}")
