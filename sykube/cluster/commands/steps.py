"""The steps of init, in their order; delete undoes them from the last to the first."""

from __future__ import annotations

from sykube.cluster.commands.plan import Step
from sykube.cluster.model.pod_network import Manifest, from_setting
from sykube.cluster.model.spec import ClusterSpec
from sykube.cluster.operations import (
    addons,
    clone,
    control_plane,
    data,
    dns,
    join,
    network,
    nodes,
    pod_network,
    ready,
    runtimes,
    user_kubeconfig,
)

DATA = Step("data", "Preparing the cluster's folder", data.exists, data.make, data.remove)
NETWORK = Step("network", "Setting up the network", network.is_up, network.set_up, network.remove)
_JOINING = "Joining the other nodes, installing DNS and add-ons"
OBJECTS = Step("objects", _JOINING, lambda _cluster: True, control_plane.create_objects)
ALL = (
    DATA,
    NETWORK,
    Step("nodes", "Starting the nodes", nodes.all_run, nodes.start_missing, nodes.remove_all),
    Step(
        "control-plane",
        "Starting the control plane (kubeadm init)",
        control_plane.is_ready,
        control_plane.create,
    ),
    OBJECTS,
    Step("dns", _JOINING, dns.is_installed, dns.install),
    Step("addons", _JOINING, addons.are_enabled, addons.enable),
    Step("runtimes", _JOINING, runtimes.are_there, runtimes.reconcile),
    Step(
        "join",
        _JOINING,
        lambda cluster: not join.missing(cluster),
        lambda cluster: join.join_all(
            cluster, cluster.workers, control_plane.shared_documents(cluster)
        ),
    ),
    Step("ready", "Waiting for nodes, pods and DNS", lambda _cluster: False, ready.wait_ready),
    Step(
        "kubeconfig",
        "Adding the context to your kubeconfig",
        user_kubeconfig.is_added,
        user_kubeconfig.add,
        user_kubeconfig.remove,
    ),
)
_UNPACK = Step("unpack", "Unpacking the snapshot", clone.is_unpacked, clone.unpack_all)
_POD_NETWORK = Step(
    "pod-network",
    "Installing the pod network (kubectl apply)",
    lambda _cluster: True,
    pod_network.apply,
)


def steps_of_init(spec: ClusterSpec) -> tuple[Step, ...]:
    """The steps for one cluster: with a snapshot's files (init --from), or a manifest of CNI."""
    steps = [*ALL]
    if spec.from_snapshot:
        steps.insert(1, _UNPACK)
    elif isinstance(from_setting(spec.pod_network), Manifest):
        steps.insert(steps.index(OBJECTS), _POD_NETWORK)
    return tuple(steps)
