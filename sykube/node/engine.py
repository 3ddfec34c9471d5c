"""Container engines that run nodes: Apptainer, and SingularityCE, which shares its command line."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sykube.errors import SykubeError
from sykube.host.run import (
    WITHOUT_PROXIES,
    Completed,
    clean_environment,
    replace_process,
    run,
)

PROC = Path("/proc")
_GONE_TIMEOUT_S = 30.0
# How Apptainer and SingularityCE call the first process of an instance.
_INIT_NAMES = ("appinit", "sinit")


@dataclass(frozen=True)
class InstanceOptions:
    """What a node's instance is started with.

    Attributes:
        binds: (host path, path in the node) pairs; every host path must exist.
        network: name of a CNI configuration in the engine's network folder.
        address: the node's address with its prefix length, such as 10.11.11.2/24.
        extra: further options of the engine, as the user gave them.
    """

    image: Path
    overlay: Path
    binds: tuple[tuple[Path, str], ...]
    network: str
    address: str
    gateway: str
    hostname: str
    extra: tuple[str, ...] = ()


@dataclass(frozen=True)
class Instance:
    """A running instance as the engine records it.

    Attributes:
        pid: its first process, seen from the host.
    """

    name: str
    pid: int
    image: str


class Engine(Protocol):
    """What sykube asks of a container engine."""

    def start(self, name: str, options: InstanceOptions) -> None:
        """Start an instance; return once its start script runs."""

    def kill(self, name: str) -> None:
        """End an instance at once and return when it is gone; none of that name is no error."""

    def instances(self) -> dict[str, Instance]:
        """Running instances by name."""

    def exec(
        self,
        name: str,
        argv: Sequence[str],
        *,
        stdin: str | None = None,
        timeout: float = 60.0,
        check: bool = True,
        secret: bool = False,
    ) -> Completed:
        """Run a command in an instance, to its end."""

    def replace_with_exec(self, name: str, argv: Sequence[str]) -> None:
        """Become a command that runs in an instance."""

    def leftovers(self, name: str) -> list[Path]:
        """Files of the engine's own that an instance leaves on the host."""

    def output(self, name: str) -> str:
        """What an instance's start script has written."""


@dataclass(frozen=True)
class CommandLineEngine:
    """Apptainer or SingularityCE, driven by its command line.

    Attributes:
        binary: its program.
        config: an apptainer.conf that replaces its own.
        environment: variables for each call.
    """

    binary: Path
    config: Path | None
    environment: Mapping[str, str]

    def start(self, name: str, options: InstanceOptions) -> None:
        binds = ",".join(f"{host}:{inside}" for host, inside in options.binds)
        arguments = [
            "instance",
            "start",
            "--cleanenv",
            # Nothing of the host's files but what is bound here.
            "--no-home",
            "--no-mount",
            "tmp,cwd,bind-paths",
            "--overlay",
            str(options.overlay),
            "--bind",
            binds,
            "--bind",
            "/sys/fs/cgroup",
            "--net",
            "--network",
            options.network,
            "--network-args",
            f"IP={options.address},GATEWAY={options.gateway}",
            "--hostname",
            options.hostname,
            "--keep-privs",
            *options.extra,
            str(options.image),
            name,
        ]
        if name not in self.instances():
            self._forget(name)
            # Two instances of a node would share its files.
            self._end_unrecorded(name)
        run([*self._argv(), *arguments], env=self._inside, timeout=120)

    def kill(self, name: str) -> None:
        if name not in self.instances():
            self._forget(name)
            self._end_unrecorded(name)
            return
        # May fail where it ends by itself; whether it is left is looked at below.
        run(
            [*self._argv(), "instance", "stop", "--signal", "SIGKILL", "--timeout", "5", name],
            env=self.environment,
            check=False,
        )
        deadline = time.monotonic() + _GONE_TIMEOUT_S
        while name in self.instances():
            if time.monotonic() > deadline:
                raise SykubeError(
                    f"the instance {name} is there {_GONE_TIMEOUT_S:.0f} s after it was killed",
                    resolution=f"{self.binary} instance stop --force {name}",
                )
            time.sleep(0.05)

    def instances(self) -> dict[str, Instance]:
        # Not by `instance list`, which takes as long as all else in `status`, and which removes the
        # records of instances that it does not see: all of them in a PID namespace of its own.
        files = self._records("*/*/*/*/*.json")
        found = (read_record(file) for file in files if file.stem == file.parent.name)
        return {each.name: each for each in found if each and _lives(each)}

    def exec(
        self,
        name: str,
        argv: Sequence[str],
        *,
        stdin: str | None = None,
        timeout: float = 60.0,
        check: bool = True,
        secret: bool = False,
    ) -> Completed:
        return run(
            [*self._exec(name), *argv],
            env=self._inside,
            stdin=stdin,
            timeout=timeout,
            check=check,
            secret=secret,
        )

    def replace_with_exec(self, name: str, argv: Sequence[str]) -> None:
        replace_process([*self._exec(name), *argv], clean_environment(self._inside))

    def leftovers(self, name: str) -> list[Path]:
        logs = self._records(f"logs/*/*/{name}.*")
        return [log for log in logs if log.suffix in (".out", ".err")]

    def output(self, name: str) -> str:
        return "\n".join(log.read_text(errors="replace") for log in self.leftovers(name))

    @property
    def _inside(self) -> Mapping[str, str | None]:
        """Variables for calls that start something in an instance.

        Apptainer hands proxies on in spite of --cleanenv; a node's kubelet would ask one for the
        API server, and kubeadm write it into the control plane's pods.
        """
        return {**WITHOUT_PROXIES, **self.environment}

    def _records(self, pattern: str) -> list[Path]:
        """Files that the engine keeps of instances, in the home folder of its user."""
        home = Path(clean_environment(self.environment)["HOME"])
        engines = (".apptainer", ".singularity")
        return sorted(file for name in engines for file in home.glob(f"{name}/instances/{pattern}"))

    def _forget(self, name: str) -> None:
        """Remove the engine's record of an instance that a reboot took.

        The engine takes such an instance for running once its process number is another's: it
        would refuse to start one of that name, and kill the other process when asked to stop it.
        """
        for file in self._records(f"*/*/*/{name}/{name}.json"):
            file.unlink()

    def _end_unrecorded(self, name: str) -> None:
        """End an instance that goes on without the engine's record of it (see `instances`)."""
        deadline = time.monotonic() + _GONE_TIMEOUT_S
        while monitors := _monitors(name):
            late = time.monotonic() > deadline
            for pid in monitors:
                # The monitor cleans up after its child, unless it hangs.
                for each in [pid] if late else _children(pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(each, signal.SIGKILL)
            time.sleep(0.05)

    def _argv(self) -> list[str]:
        # Before the network is laid there is none, and after its folder was lost.
        config = ["--config", str(self.config)] if self.config and self.config.exists() else []
        return [str(self.binary), *config]

    def _exec(self, name: str) -> list[str]:
        return [*self._argv(), "--silent", "exec", "--cleanenv", "--pwd", "/", f"instance://{name}"]


def _lives(instance: Instance) -> bool:
    """Whether an instance's first process is one of an engine, and not a later one's."""
    try:
        return (PROC / str(instance.pid) / "comm").read_text().strip() in _INIT_NAMES
    except OSError:
        return False


def _monitors(name: str) -> list[int]:
    """Processes of the engine that wait for the end of an instance, by the title they carry."""
    title = re.compile(rf"\w+ instance: \S+ \[{re.escape(name)}\]")
    found = []
    for folder in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_bytes().rstrip(b"\0 ").decode(errors="replace")
            if title.fullmatch(command):
                found.append(int(folder.name))
    return found


def _children(pid: int) -> list[int]:
    found = []
    for folder in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # The name before it, in brackets, may hold anything.
            state = (folder / "stat").read_text(errors="replace").rpartition(") ")[2]
            if state.split()[1] == str(pid):
                found.append(int(folder.name))
    return found


def read_record(file: Path) -> Instance | None:
    """Read the engine's record of an instance; None where it went just now.

    Source: github.com/apptainer/apptainer, internal/pkg/instance, type File; SingularityCE has the
    same one.

    Raises:
        SykubeError: it is not that.
    """
    try:
        text = file.read_text()
        entry = json.loads(text)
        return Instance(entry["name"], int(entry["pid"]), entry["image"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SykubeError(
            f"the engine's record of an instance has a form that sykube does not know: {file}",
            details=repr(error),
            resolution="See whether `apptainer instance list` shows it, and report this.",
        ) from error
