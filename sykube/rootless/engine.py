"""The engine in a user's namespaces, where it refuses two things that sykube asks of it as root.

It connects no instance (`--net` with a network needs its setuid program), so that the network comes
first and the engine is started in it; and `exec` fails, since it enters the instance's user
namespace, which it is in: setns(2), EINVAL. Seen with Apptainer 1.5.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sykube.errors import ExitCode, SykubeError
from sykube.node.engine import CommandLineEngine, InstanceOptions
from sykube.rootless import links, unpacked

_NAMESPACES = ("--mount", "--net", "--pid", "--uts", "--ipc", "--cgroup")
# What the image sets, as `apptainer exec` would read it.
_IN_ENVIRONMENT = '. /.singularity.d/env/90-environment.sh; exec "$@"'


@dataclass(frozen=True)
class RootlessEngine(CommandLineEngine):
    """See CommandLineEngine."""

    def _network(self, options: InstanceOptions) -> list[str]:
        return []

    def _image(self, sif: Path) -> Path:
        return unpacked.root_of(self.host, sif)

    def _before(self, name: str, options: InstanceOptions) -> list[str]:
        links.connect(self.host, name, options.network, options.address, options.gateway)
        return ["nsenter", f"--net={links.namespace(name)}"]

    def kill(self, name: str) -> None:
        super().kill(name)
        links.remove(self.host, name)

    def _exec(self, name: str) -> list[str]:
        running = self.instances(name).get(name)
        if running is None:
            raise SykubeError(
                f"the instance {name} does not run",
                resolution="sykube start",
                exit_code=ExitCode.STOPPED,
            )
        enter = ["nsenter", f"--target={running.pid}", *_NAMESPACES, "--root"]
        terminal = os.environ.get("TERM", "linux")
        clean = ["env", "-i", "--chdir=/", "HOME=/root", "LANG=C.UTF-8", f"TERM={terminal}"]
        return [*enter, *clean, "sh", "-c", _IN_ENVIRONMENT, "sh"]

    def _wrapper(self, name: str) -> tuple[str, ...]:
        # It is not the engine that enters, and so no name of the host is looked up.
        return ()
