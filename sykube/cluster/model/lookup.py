"""Finding a cluster by its name. Quick to import: most commands begin here."""

from __future__ import annotations

from sykube.cluster.model import members
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.model.spec import ClusterSpec
from sykube.cluster.model.state import State, clusters
from sykube.errors import ExitCode, SykubeError
from sykube.host import belonging, identity
from sykube.host.host import Host
from sykube.host.paths import ClusterPaths
from sykube.network import subnets
from sykube.network.bridge import Bridge
from sykube.node import cgroups, local
from sykube.ui import Ui


def load(host: Host, name: str, ui: Ui) -> Cluster:
    """The cluster of that name, to look at it; whoever changes it holds it (`opened`).

    Raises:
        UsageError: this process is not root's.
        SykubeError: there is none (NO_SUCH_CLUSTER), or it is another host's (ELSEWHERE).
    """
    identity.check(host)
    belonging.require_here(host, name)
    state = State.load(ClusterPaths(host, name).state)
    if state is None:
        raise no_such_cluster(host, name)
    return Cluster.of(host, state, ui)


def without_record(host: Host, name: str, ui: Ui) -> Cluster:
    """A cluster whose record is lost, with the nodes that are found on this host.

    Its engine, addresses and versions are unknown.
    """
    nodes = [each.removeprefix(f"{name}-") for each in local.found(host, name)]
    state = State(
        spec=ClusterSpec(name=name),
        subnets=subnets.choose(()),
        engine="",
        engine_environment={},
        image="",
        image_folder="",
        versions={},
        loopback_resolver="",
        resolvers=(),
    )
    state.nodes = members.order([each for each in nodes if members.is_node(each)])
    return Cluster.of(host, state, ui)


def exists(host: Host, name: str) -> bool:
    """Whether anything of a cluster is on this host."""
    paths = ClusterPaths(host, name)
    folder = paths.root.exists() or paths.root.is_symlink()
    return folder or Bridge(host, name).exists() or bool(living(host, name))


def living(host: Host, name: str) -> list[str]:
    """Instances of a cluster that have processes, whatever a record or an engine knows of them."""
    prefix = f"{name}-"
    return [
        instance
        for instance in cgroups.leftovers(host, prefix)
        if members.is_node(instance.removeprefix(prefix)) and cgroups.members(host, instance)
    ]


def no_such_cluster(host: Host, name: str) -> SykubeError:
    """The error for a name that no cluster has."""
    others = clusters(host)
    return SykubeError(
        f"there is no cluster {name!r}",
        details=f"clusters here: {', '.join(others)}" if others else "",
        resolution="Make it with: sykube init" + ("" if name == "sykube" else f" --name {name}"),
        exit_code=ExitCode.NO_SUCH_CLUSTER,
    )
