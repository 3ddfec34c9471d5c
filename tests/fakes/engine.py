"""Engines that run instances in memory."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sykube.errors import SykubeError
from sykube.host.run import CommandError, Completed
from sykube.node.engine import Engine, Instance, InstanceOptions
from tests.fakes.instance import FakeInstance
from tests.fakes.node_programs import words_of

if TYPE_CHECKING:
    from tests.fakes.world import World


class FakeEngine:
    """Instances in memory that do what nodes do as far as sykube can see it.

    Like the real ones it refuses to work with a configuration file that is not there. Any of its
    calls can be made to fail through `World.calls`.
    """

    def __init__(self, world: World, config: Path | None = None) -> None:
        self.world = world
        self.config = config

    def start(self, name: str, options: InstanceOptions) -> None:
        self._call("start", name)
        world = self.world
        if name in world.instances:
            raise _refused(f"instance {name} already exists")
        for host, _ in options.binds:
            if not host.exists():
                raise _refused(f"while binding {host}: mount source {host} doesn't exist")
        assert options.overlay.is_dir()
        assert self.config is not None
        networks = world.engine_network_dir(self.config)
        if not (networks / f"50-{options.network}.conflist").is_file():
            raise _refused(f"no configuration found for network {options.network}")
        pid = next(world.pids)
        link = f"veth{pid}"
        index = world.kernel.add_link(link, options.network)
        instance = FakeInstance(pid, options, world.disk(options.overlay), link, index)
        instance.lay_network()
        instance.seed()
        world.instances[name] = instance
        for kubernetes in world.kubernetes.values():
            if instance.joined and name in kubernetes.started:
                kubernetes.kubelet_started(name, instance.version)
        run_folder = world.path(f"/proc/{pid}/root/run")
        for socket in ("supervisor.sock", "containerd/containerd.sock"):
            (run_folder / socket).parent.mkdir(parents=True, exist_ok=True)
            (run_folder / socket).touch()
        results = world.path("/var/lib/cni/results")
        results.mkdir(parents=True, exist_ok=True)
        (results / f"{options.network}-{pid}-eth0").write_text(options.address)
        for log in self._log_files(name):
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(f"the first words of {name}\n")
        granted = world.host.grants.cgroups
        for hierarchy in world.cgroup_hierarchies() if granted else ():
            procs = hierarchy / "sykube" / name / "cgroup.procs"
            assert procs.exists(), "the node's cgroup is missing"
            procs.write_text(f"{pid}\n")
        first_log = instance.on_host("/var/log/sykube/supervisord.log")
        assert first_log is not None
        first_log.parent.mkdir(exist_ok=True)
        first_log.write_text(f"{name} has booted\n")
        if name in world.stillborn:
            shutil.rmtree(world.path(f"/proc/{pid}"))

    def kill(self, name: str) -> None:
        self._call("kill", name)
        if self.world.cgroup_version == 1 and self.world.frozen(name):
            raise SykubeError(f"the instance {name} is there 30 s after it was killed")
        self.world.end(name)

    def instances(self, name: str = "*") -> dict[str, Instance]:
        self._call("instances")
        return {
            each: Instance(each, instance.pid, str(instance.options.image))
            for each, instance in self.world.instances.items()
            if name in ("*", each)
        }

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
        try:
            self._call("exec", name, *argv)
        except BaseException:
            self.world.node_programs.half(name, list(argv))
            raise
        if name not in self.world.instances:
            code, stdout, stderr = 255, "", f"no instance found with name {name}"
        else:
            instance = self.world.instances[name]
            code, stdout, stderr = self.world.node_programs.run(name, instance, list(argv), stdin)
        if check and code:
            raise CommandError(f"{argv[0]} failed with exit code {code}", argv, stdout + stderr)
        return Completed(tuple(argv), code, stdout, stderr)

    def replace_with_exec(self, name: str, argv: Sequence[str]) -> None:
        self._call("replace_with_exec", name, *argv)

    def leftovers(self, name: str) -> list[Path]:
        return [log for log in self._log_files(name) if log.exists()]

    def output(self, name: str) -> str:
        return "\n".join(log.read_text() for log in self.leftovers(name))

    def _call(self, *words: str) -> None:
        self.world.calls.record("engine", *words)

    def _log_files(self, name: str) -> list[Path]:
        folder = self.world.root / "root/.apptainer/instances/logs/host/root"
        return [folder / f"{name}.out", folder / f"{name}.err"]


def _refused(why: str) -> CommandError:
    """What the program's end becomes in sykube.host.run."""
    return CommandError("apptainer failed with exit code 255", ["apptainer"], f"FATAL:   {why}\n")


class ScriptedEngine:
    """An engine whose `exec` answers one thing; for checks that run a single script in a node."""

    def __init__(self, code: int = 0, stdout: str = "", stderr: str = "") -> None:
        self.answer = (code, stdout, stderr)
        self.argvs: list[list[str]] = []
        self.stdins: list[str | None] = []

    def exec(self, name: str, argv: Sequence[str], **options: Any) -> Completed:
        words_of(list(argv))
        self.argvs.append([name, *argv])
        self.stdins.append(options.get("stdin"))
        done = Completed(tuple(argv), *self.answer)
        if options.get("check", True) and not done.ok:
            raise CommandError("failed", argv, done.stderr)
        return done


def _typed(world: World) -> Engine:
    """mypy holds FakeEngine to the protocol here."""
    return FakeEngine(world)
