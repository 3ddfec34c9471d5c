"""Container engines that run nodes: Apptainer, and SingularityCE, which shares its command line."""

from __future__ import annotations

import contextlib
import json
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sykube.errors import SykubeError
from sykube.host import orphans, processes
from sykube.host.host import Host
from sykube.host.run import (
    WITHOUT_PROXIES,
    Completed,
    clean_environment,
)
from sykube.node import launch

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
        host: name of this host when it was started: the engine looks below the present one alone.
    """

    name: str
    pid: int
    image: str
    host: str = ""


class Engine(Protocol):
    """What sykube asks of a container engine."""

    def start(self, name: str, options: InstanceOptions) -> None:
        """Start an instance; return once its start script runs."""

    def kill(self, name: str) -> None:
        """End an instance at once and return when it is gone; none of that name is no error."""

    def instances(self, name: str = "*") -> dict[str, Instance]:
        """Running instances by name: all, or the one of that name where it runs."""

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

    host: Host
    binary: Path
    config: Path | None
    environment: Mapping[str, str]

    def start(self, name: str, options: InstanceOptions) -> None:
        binds = ",".join(f"{source}:{inside}" for source, inside in options.binds)
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
            *self._network(options),
            "--hostname",
            options.hostname,
            "--keep-privs",
            *options.extra,
            str(self._image(options.image)),
            name,
        ]
        running = self.instances(name).get(name)
        if not running:
            self._forget(name)
            # Two instances of a node would share its files.
            self._end_unrecorded(name)
        self.host.run(
            [*self._before(name, options), *self._argv(), *arguments],
            env=self._inside,
            timeout=120,
            wrapper=launch.wrapper(settled=True, hostname=running.host if running else ""),
        )

    def _network(self, options: InstanceOptions) -> list[str]:
        """Options by which the engine connects an instance."""
        arguments = f"IP={options.address},GATEWAY={options.gateway}"
        return ["--net", "--network", options.network, "--network-args", arguments]

    def _image(self, sif: Path) -> Path:
        """What an instance of an image is started from."""
        return sif

    def _before(self, name: str, options: InstanceOptions) -> list[str]:
        """Prepare what an instance needs; words that go before the engine's."""
        return []

    def kill(self, name: str) -> None:
        running = self.instances(name).get(name)
        if running:
            self._stop(running)
        # The monitor removes the record below the name that the host has now.
        self._forget(name)
        self._end_unrecorded(name)

    def _stop(self, instance: Instance) -> None:
        # Not by `instance stop`: it waits until process 1 has noticed that the monitor ended, which
        # some look for once a second.
        name, deadline = instance.name, self.host.monotonic() + _GONE_TIMEOUT_S
        with contextlib.suppress(ProcessLookupError):
            self.host.kill(instance.pid, signal.SIGKILL)
        while (there := self.instances(name)) or _monitors(self.host, name):
            if self.host.monotonic() > deadline:
                if there:
                    raise _stays(self.host, name, [instance.pid])
                return
            self.host.sleep(0.05)

    def instances(self, name: str = "*") -> dict[str, Instance]:
        # Not by `instance list`, which takes as long as all else in `status`, and which removes the
        # records of instances that it does not see: all of them in a PID namespace of its own.
        files = self._records(f"*/*/*/{name}/*.json")
        found = (read_record(file) for file in files if file.stem == file.parent.name)
        return {each.name: each for each in found if each and _lives(self.host, each)}

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
        return self.host.run(
            [*self._exec(name), *argv],
            env=self._inside,
            stdin=stdin,
            timeout=timeout,
            check=check,
            secret=secret,
            wrapper=self._wrapper(name),
        )

    def replace_with_exec(self, name: str, argv: Sequence[str]) -> None:
        words = [*self._wrapper(name), *self._exec(name), *argv]
        self.host.replace_process(words, clean_environment(self._inside))

    def leftovers(self, name: str) -> list[Path]:
        logs = self._records(f"logs/*/*/{name}.*")
        return [log for log in logs if log.suffix in (".out", ".err")]

    def output(self, name: str) -> str:
        return "\n".join(
            log.read_text(encoding="utf-8", errors="replace") for log in self.leftovers(name)
        )

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
        """End an instance that goes on without the engine's record of it (see `instances`).

        Raises:
            SykubeError: it does not end.
        """
        deadline = self.host.monotonic() + _GONE_TIMEOUT_S
        while monitors := _monitors(self.host, name):
            late = self.host.monotonic() > deadline
            if self.host.monotonic() > deadline + _GONE_TIMEOUT_S:
                raise _stays(self.host, name, monitors)
            for pid in monitors:
                # The monitor cleans up after its child, unless it hangs.
                for each in [pid] if late else _children(self.host, pid):
                    with contextlib.suppress(ProcessLookupError):
                        self.host.kill(each, signal.SIGKILL)
            self.host.sleep(0.05)

    def _wrapper(self, name: str) -> tuple[str, ...]:
        """What makes the engine find an instance although the host's name changed."""
        running = self.instances(name).get(name)
        return launch.wrapper(hostname=running.host) if running else ()

    def _argv(self) -> list[str]:
        # Before the network is laid there is none, and after its folder was lost.
        config = ["--config", str(self.config)] if self.config and self.config.exists() else []
        return [str(self.binary), *config]

    def _exec(self, name: str) -> list[str]:
        return [*self._argv(), "--silent", "exec", "--cleanenv", "--pwd", "/", f"instance://{name}"]


def _stays(host: Host, name: str, pids: Sequence[int]) -> SykubeError:
    left = " ".join(map(str, pids))
    brief = f"the instance {name} is there {_GONE_TIMEOUT_S:.0f} s after it was killed"
    if zombies := orphans.unreaped(host):
        details = f"process 1 does not wait for what has ended: {' '.join(map(str, zombies))}"
        return SykubeError(brief, details=details, resolution=f"{orphans.CURE}.")
    return SykubeError(
        brief,
        details=f"processes: {left}",
        resolution=f"See what it waits for (ps -o pid,wchan,args {left}), then try again.",
    )


def _lives(host: Host, instance: Instance) -> bool:
    """Whether an instance's first process is its own, and not a later one of that number."""
    process = host.proc / str(instance.pid)
    try:
        name = (process / "comm").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    if name.strip() not in _INIT_NAMES:
        return False
    try:
        watched = _watched(host.proc / str(_parent(process)))
    except OSError:
        return True
    return watched in ("", instance.name)


def _watched(process: Path) -> str:
    """The instance whose end a process of the engine waits for, by its title; empty for others."""
    title = (process / "cmdline").read_bytes().rstrip(b"\0 ").decode(errors="replace")
    match = re.fullmatch(r"\w+ instance: \S+ \[(.+)\]", title)
    return match[1] if match else ""


def _monitors(host: Host, name: str) -> list[int]:
    """Processes of the engine that wait for the end of an instance.

    Not those of clusters of the same name that ordinary users have, each in a user namespace.
    """
    found = []
    for folder in host.proc.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if _watched(folder) == name and not _is_of_others(host, folder):
                found.append(int(folder.name))
    return found


def _is_of_others(host: Host, process: Path) -> bool:
    try:
        own = (host.proc / "self/ns/user").readlink()
        return (process / "ns/user").readlink() != own
    except OSError:
        return False


def _parent(process: Path) -> int:
    return int(processes.stat(process)[1])


def _children(host: Host, pid: int) -> list[int]:
    found = []
    for folder in host.proc.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if _parent(folder) == pid:
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
        text = file.read_text(encoding="utf-8")
        entry = json.loads(text)
        # Below instances/app/HOST/USER/NAME, where HOST is the name at its start.
        return Instance(entry["name"], int(entry["pid"]), entry["image"], file.parents[2].name)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SykubeError(
            f"the engine's record of an instance has a form that sykube does not know: {file}",
            details=repr(error),
            resolution="See whether `apptainer instance list` shows it, and report this.",
        ) from error
