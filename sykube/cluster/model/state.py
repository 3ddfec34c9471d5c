"""A cluster's state on disk, written before and after each step, under a lock."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from sykube import stored
from sykube.cluster.model import members
from sykube.cluster.model.progress import Progress
from sykube.cluster.model.spec import ClusterSpec
from sykube.errors import SykubeError
from sykube.host import belonging, lock
from sykube.host.files import write_atomically
from sykube.host.host import Host
from sykube.host.paths import ClusterPaths
from sykube.host.proxies import Proxies
from sykube.image.choice import Choice
from sykube.network.ports import PortMap
from sykube.network.subnets import Subnets

VERSION = 1
STARTED = "started"
DONE = "done"


@dataclass
class State:
    """What was decided for a cluster and how far it has come.

    Attributes:
        nodes: names of its nodes, control planes first; at the beginning what the spec asks for.
        steps: step name → "started" or "done".
        image: fingerprint of its node image.
        engine: the engine's program.
        choice: which Kubernetes its node image is of, and why; None where that was not recorded.
        kubeconfig: the user's file that its context was merged into.
        previous_context: what was current there before.
        owned_folders: folders that sykube made for it outside its data folder.
        ports: ports of the host that lead to nodes.
        api_port: the port of the host's loopback by which its user reaches the API server; 0 where
            the server's own address is reached.
        registry: the port of the host, among `ports`, that leads to the add-on of that name.
        addons: names of those that are on.
        without_policies: it had no NetworkPolicy when it stopped, and no node has started since.
        cordoned: nodes that `stop --drain` or an update emptied and start opens again.
        proxies: those that nodes fetch images by; a password may be among them.
        authorities: certificates, in PEM, that nodes trust beside Debian's.
        stop_at: when it stops by itself, in seconds since the epoch; 0 for never.
        gpus: of nodes that have some, by name: their places on the host's PCI bus.
        update: the update that is under way; `image`, `versions` and `choice` are those of the
            control planes.
    """

    spec: ClusterSpec
    subnets: Subnets
    engine: str
    engine_environment: dict[str, str]
    image: str
    image_folder: str
    versions: dict[str, str]
    loopback_resolver: str
    resolvers: tuple[str, ...]
    steps: dict[str, str] = field(default_factory=dict)
    kubeconfig: str = ""
    previous_context: str = ""
    owned_folders: list[str] = field(default_factory=list)
    without_policies: bool = False
    cordoned: list[str] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)
    ports: list[PortMap] = field(default_factory=list)
    registry: PortMap | None = None
    api_port: int = 0
    addons: list[str] = field(default_factory=list)
    proxies: Proxies = field(default_factory=Proxies)
    authorities: tuple[str, ...] = ()
    choice: Choice | None = None
    stop_at: float = 0.0
    gpus: dict[str, list[str]] = field(default_factory=dict)
    update: Progress | None = None

    def __post_init__(self) -> None:
        self.nodes = self.nodes or members.initial(self.spec.control_planes, self.spec.workers)

    @property
    def complete(self) -> bool:
        """Whether init ran to its end."""
        return bool(self.steps) and self.steps.get("kubeconfig") == DONE

    @property
    def images(self) -> set[str]:
        """Fingerprints of the node images that its nodes are started from, or may be again."""
        both = (self.update.before, self.update.after) if self.update else ()
        return {self.image, *(each.fingerprint for each in both)}

    def save(self, path: Path) -> None:
        """Write it atomically; only root reads it."""
        record = {"version": VERSION, **stored.dump(self)}
        write_atomically(path, json.dumps(record, indent=2), mode=0o600)

    @classmethod
    def load(cls, path: Path) -> State | None:
        """Read it; None where there is none.

        Raises:
            SykubeError: it is damaged or of a later version of sykube.
        """
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise _damaged(path, str(error)) from error
        try:
            if record["version"] > VERSION:
                raise SykubeError(
                    f"{path} was written by a later version of sykube",
                    resolution="Use that version, or a later one.",
                )
            state: State = stored.load(cls, record)
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(path, repr(error)) from error
        return state


def _damaged(path: Path, why: str) -> SykubeError:
    return SykubeError(
        f"the state of the cluster is damaged: {path}",
        details=why,
        resolution="`sykube delete` removes what it finds of the cluster without it.",
    )


def clusters(host: Host) -> list[str]:
    """Names of the clusters that have a data folder with a state, and belong to this host."""
    if not host.data.is_dir():
        return []
    return sorted(
        folder.name
        for folder in host.data.iterdir()
        if folder.name not in (host.records.name, host.snapshots.name)
        and (folder / "state.json").exists()
        and not belonging.elsewhere(host, folder.name)
    )


def others(host: Host, name: str) -> list[State]:
    """The records of all clusters but one."""
    found = [State.load(ClusterPaths(host, each).state) for each in clusters(host) if each != name]
    return [each for each in found if each]


def locked(cluster: ClusterPaths) -> contextlib.AbstractContextManager[None]:
    """Hold the cluster's lock.

    Raises:
        LockedError: another command holds it; says which.
    """
    return lock.exclusive(cluster.lock, f"the cluster {cluster.name}")
