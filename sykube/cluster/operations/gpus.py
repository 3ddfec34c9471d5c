"""GPUs of the host in nodes: which node has which, and what it gets to hand them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sykube.cluster.model import gpus as model
from sykube.cluster.model.cluster import Cluster
from sykube.errors import HostError, UsageError
from sykube.host import gpus
from sykube.host.host import Host
from sykube.image.node_image import NodeImage
from sykube.node.node import Node

# A node image that has the device plugin names its version by this.
_PLUGIN = "gpu-plugin"
# Apptainer's option for a node: the driver's libraries and programs. Devices nodes have all of.
_DRIVER = "--nv"


def require_of_image(image: NodeImage, *, asked: bool) -> None:
    """Refuse a node image that could not hand GPUs out.

    Args:
        asked: whether a node has any.

    Raises:
        UsageError: it is from before nodes could.
    """
    if asked and _PLUGIN not in image.versions():
        raise UsageError(
            f"the node image {image.sif} is from before nodes could hand out GPUs",
            resolution="Build another one (sykube node-image build), or leave --gpus out.",
        )


def shared(
    host: Host, asked: Mapping[str, str], taken: Mapping[str, Sequence[str]] | None = None
) -> dict[str, list[str]]:
    """Which GPUs of the host nodes get, each by its place on the bus.

    Args:
        asked: by the nodes' names.
        taken: what other nodes of the cluster have.

    Raises:
        HostError: there are none, or too few.
    """
    asked = {node: value for node, value in asked.items() if model.is_asked(value)}
    if not asked:
        return {}
    there = gpus.usable(host)
    others = {bus: node for node, each in (taken or {}).items() for bus in each}
    free = [gpu.bus for gpu in there if gpu.bus not in others]
    try:
        return model.shares(free, asked)
    except ValueError:
        wanted = ", ".join(f"{node} ({value})" for node, value in asked.items())
        raise HostError(
            f"of this host's {len(there)} GPUs, {len(free)} are free: too few for {wanted}",
            details="\n".join(
                f"{gpu.bus}: {gpu.model}" + (f", of {others[gpu.bus]}" if gpu.bus in others else "")
                for gpu in there
            ),
            resolution="Ask for fewer: a GPU belongs to one node of a cluster.",
        ) from None


def introduction(host: Host, given: Mapping[str, Sequence[str]]) -> str:
    """Which nodes have which, for people."""
    models = {gpu.bus: gpu.model for gpu in gpus.known(host)}
    shown = [
        f"{node} has {len(each)} ({', '.join(dict.fromkeys(models[bus] for bus in each))})"
        for node, each in given.items()
    ]
    return f"GPUs: {', '.join(shown)}."


def node_file(cluster: Cluster, node: Node) -> str:
    """What the node's device plugin reads: those that are there now, a line for each."""
    wanted = cluster.state.gpus.get(node.name, ())
    there = {gpu.bus: gpu for gpu in gpus.known(cluster.host)} if wanted else {}
    found = [there[bus] for bus in wanted if bus in there]
    return "\n".join(f"{gpu.bus} /dev/{gpu.device.name} {gpu.name}" for gpu in found)


def options(cluster: Cluster, node: Node) -> tuple[str, ...]:
    """Options of the engine for a node; warns where a GPU of it is gone."""
    wanted = cluster.state.gpus.get(node.name, ())
    there = {gpu.bus for gpu in gpus.known(cluster.host)} if wanted else set()
    if gone := [bus for bus in wanted if bus not in there]:
        cluster.ui.warn(f"GPUs of {node.name} are not on this host any more: {', '.join(gone)}")
    return (_DRIVER,) if wanted else ()
