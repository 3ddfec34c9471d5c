"""The nodes' instances, up to containerd answering."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from sykube import resources
from sykube.addons import network_policy
from sykube.addons.network_policy import NETWORK_POLICY
from sykube.addons.storage import VOLUMES
from sykube.cluster.model import members, pod_options
from sykube.cluster.model.cluster import Cluster, on_each
from sykube.cluster.model.spec import NodeSpec
from sykube.cluster.operations import (
    cgroup_version,
    clone,
    containerd_config,
    gpus,
    network,
    registries,
    site_network,
)
from sykube.errors import SykubeError
from sykube.image import sif_store, versions
from sykube.kubernetes import kubelet, node_checks
from sykube.kubernetes.kubeadm_patches import KUBELET
from sykube.node import cgroups, local
from sykube.node.limits import Limits
from sykube.node.mounts import Mount
from sykube.node.node import Node

# Beyond the grace for what ends, and for what follows it.
_STOP_MARGIN_S = 60.0
# An API server that others watch waits a minute for them; etcd can be killed at any time.
_PLANE_GRACE_S = 5


def all_run(cluster: Cluster) -> bool:
    return cluster.running() == cluster.nodes


def start_missing(cluster: Cluster, without_kubelet: Sequence[Node] = ()) -> None:
    """Start the nodes that do not run, up to containerd answering.

    Args:
        without_kubelet: those whose kubelet is stopped again at once.

    Raises:
        SykubeError: one does not start, or is not fit for Kubernetes.
    """
    # A host that was booted otherwise, or another one, since the cluster was made.
    cgroup_version.check_again(cluster.host, cluster.minor, allow_v1=cluster.allows_cgroup_v1)
    running = cluster.running()
    missing = [node for node in cluster.nodes if node not in running]
    for node in cluster.nodes:
        prepare(cluster, node)
    without_policies = cluster.state.without_policies
    if missing and without_policies:
        # From now on there is an API server that takes some.
        cluster.state.without_policies = False
        cluster.save()
    on_each(missing, lambda node: start(cluster, node, without_policies=without_policies))
    held = [node for node in missing if node in without_kubelet]
    on_each(held, _hold_kubelet)
    wait_and_check(cluster, cluster.nodes)


def _hold_kubelet(node: Node) -> None:
    node.wait_booted()
    node.stop_service("kubelet")


def bring_up(cluster: Cluster) -> None:
    """Start what does not run of nodes and network, without asking for the API server."""
    resume(cluster.running())
    if not all_run(cluster) or not network.is_up(cluster):
        with cluster.ui.step("Starting the nodes"):
            network.set_up(cluster)
            start_missing(cluster)


def remove_all(cluster: Cluster) -> None:
    """Remove every node that is found on this host, whatever the record knows of it."""
    prefix = f"{cluster.name}-"
    left = [*cluster.engine.instances(), *cgroups.leftovers(cluster.host, prefix)]
    names = {each.removeprefix(prefix) for each in left if is_node(each, prefix)}
    names |= {node.name for node in cluster.nodes}
    on_each([cluster.node(each) for each in sorted(names)], lambda node: node.remove())
    local.forget_addresses(cluster.host, cluster.engine, cluster.network_name)


def apply_network(node: Node) -> None:
    """Let a running node apply the rules, routes and addresses that its files name."""
    node.run(["/usr/lib/sykube/node-network"])


def reconnect(cluster: Cluster, nodes: Sequence[Node]) -> list[Node]:
    """Put running nodes back on the bridge, with their rules and routes.

    Returns:
        Nodes whose link is gone: they are ended, to be started again.
    """
    ended = []
    for node in nodes:
        index = node.run(["cat", "/sys/class/net/eth0/iflink"], check=False).stdout.strip()
        if index and cluster.bridge.attach(int(index)):
            prepare(cluster, node)
            apply_network(node)
        else:
            node.kill()
            ended.append(node)
    return ended


def end_pods(node: Node, grace: int) -> None:
    """End the kubelet, and what pods run but for the control plane.

    A node in which this does not work, or hangs, is left to `end`.

    Args:
        grace: seconds that they have to end by themselves.
    """
    with contextlib.suppress(SykubeError):
        node.stop_service("kubelet")
    _end_containers(node, "pods", grace)


def shut_down(node: Node, grace: int) -> None:
    """End a node's pods and programs in order, then the instance, while other nodes go on."""
    end_pods(node, grace)
    end(node, min(grace, _PLANE_GRACE_S))


def end(node: Node, grace: int) -> bool:
    """End what `end_pods` has left of a node, etcd after the rest, then the instance.

    Returns:
        Whether its etcd had no NetworkPolicy after its API server had ended.
    """
    said = _end_containers(node, "rest", grace)
    with contextlib.suppress(SykubeError):
        node.stop_service("containerd")
    node.kill()
    return said.strip() == "without policies"


def _end_containers(node: Node, which: str, grace: int) -> str:
    """What the script says; nothing where it did not come to its end."""
    with contextlib.suppress(SykubeError):
        command = resources.script("stop-containers", which, str(grace))
        return node.run(command, timeout=2 * grace + _STOP_MARGIN_S).stdout
    return ""


def wait_and_check(cluster: Cluster, nodes: list[Node]) -> None:
    """Wait until nodes have booted, then check that they are fit for Kubernetes."""
    on_each(nodes, lambda node: node.wait_booted())
    on_each(nodes, node_checks.run_checks)


def look_for_api(nodes: Sequence[Node]) -> None:
    """Have kubelets look for the API server, now that it is there, also those that are stopped.

    Each time that it was not, they look again later: up to 30 s from now (client-go's reflector);
    before that, they start no pods.
    """

    def restart(node: Node) -> None:
        node.stop_service("kubelet")
        node.start_service("kubelet")

    on_each(nodes, restart)


def resume(nodes: Sequence[Node]) -> list[Node]:
    """Start what is stopped in running nodes, as a stop leaves it that was killed.

    Returns:
        Nodes whose kubelet was stopped.
    """
    found = []
    for node in nodes:
        states = node.services()
        stopped = sorted(name for name in states if states[name] in ("STOPPED", "STOPPING"))
        # containerd first: a kubelet ends where there is none.
        for name in stopped:
            if states[name] == "STOPPING":
                node.stop_service(name)
            node.start_service(name)
        if "kubelet" in stopped:
            found.append(node)
    return found


def recreate(cluster: Cluster, node: Node) -> None:
    """Recreate a node in which kubeadm failed: kubeadm only starts in a clean one."""
    node.remove()
    if cluster.state.spec.from_snapshot and not cluster.state.complete:
        clone.unpack(cluster, [node], volumes=False)
    prepare(cluster, node)
    start(cluster, node)
    wait_and_check(cluster, [node])


def is_node(instance: str, prefix: str) -> bool:
    """Whether an instance is a node of the cluster with that prefix (CLUSTER-)."""
    return instance.startswith(prefix) and members.is_node(instance.removeprefix(prefix))


def prepare(cluster: Cluster, node: Node) -> None:
    """Write what the node finds in /etc/sykube, and make its folders and cgroups."""
    cluster.paths.volumes.mkdir(mode=0o711, exist_ok=True)
    cluster.paths.sifs.mkdir(mode=0o700, exist_ok=True)
    is_single = [node] == cluster.control_planes
    asked = cluster.state.spec.node(node.name)
    limits = _limits(cluster, asked)
    domains = cluster.state.spec.dns_search
    search = [f"search {' '.join(domains)}"] if domains else []
    minor = versions.minor(cluster.image_of(node).versions()["kubernetes"])
    files = {
        "node.env": "\n".join(
            (
                f"SYKUBE_POD_SUBNET={cluster.state.subnets.pods}",
                f"SYKUBE_SERVICES={cluster.state.subnets.services}",
                f"SYKUBE_ENDPOINT={cluster.endpoint_address if is_single else ''}",
                f"SYKUBE_MILLICORES={limits.millicores}",
                f"SYKUBE_MEMORY={limits.memory}",
                f"SYKUBE_REFUSES_V1={'yes' if minor.refuses_cgroup_v1 else ''}",
                f"SYKUBE_RUNTIME={cluster.state.spec.runtime}",
            )
        ),
        "hosts": "\n".join(
            (
                "127.0.0.1 localhost",
                "::1 localhost ip6-localhost ip6-loopback",
                *(f"{other.address} {other.instance}" for other in cluster.nodes),
            )
        ),
        "resolv.conf": "\n".join(
            [*(f"nameserver {address}" for address in cluster.state.resolvers), *search]
        ),
        **cluster.pod_network.node_files(node, cluster.nodes),
        "kubelet.conf": kubelet.drop_in(
            minor,
            allow_cgroup_v1=cluster.allows_cgroup_v1,
            patched=cluster.state.spec.kubeadm_patches(node.name).fields(KUBELET),
        ),
        "keepalived.conf": _keepalived(cluster, node),
        "ca-certificates.pem": "\n".join(cluster.state.authorities),
        "sif-signers": "\n".join(cluster.state.spec.signers),
        "pod-options": "\n".join(cluster.state.spec.allow_pod_option),
        "gpus": gpus.node_file(cluster, node),
        "containerd.env": site_network.containerd_variables(cluster),
        **containerd_config.files(cluster, node),
    }
    node.prepare(files, limits)
    registries.configure(cluster, node)


def _limits(cluster: Cluster, asked: NodeSpec) -> Limits:
    """What a node may use; in a batch job, what the job was given, where nothing else is asked for.

    Nor where the kubelet is told by a patch what it may not use.
    """
    job = cluster.host.grants.job
    if job is None or "systemReserved" in asked.kubeadm_patches.fields(KUBELET):
        return asked.limits
    return asked.limits.or_else(job.millicores, job.memory)


def _keepalived(cluster: Cluster, node: Node) -> str:
    """Configuration of what moves the endpoint between control planes; empty for others."""
    if not node.is_control_plane or len(cluster.control_planes) == 1:
        return ""
    others = [other for other in cluster.control_planes if other != node]
    return resources.render(
        "cni",
        "keepalived.conf.j2",
        instance=node.instance,
        address=node.address,
        endpoint=cluster.endpoint_address,
        peers=[other.address for other in others],
        priority=200 - members.place(node.name) % 100,
    )


def start(cluster: Cluster, node: Node, *, without_policies: bool = False) -> None:
    """Start the node's instance.

    Args:
        without_policies: there are no NetworkPolicies that hold from its first moment.
    """
    image, update = cluster.image_of(node), cluster.state.update
    if update:
        node.fit(image.fingerprint, update.before.fingerprint)
    # Before init has ended, nobody has made any.
    guarded = cluster.state.complete and NETWORK_POLICY.name in cluster.state.addons
    rules = network_policy.closed() if guarded and not without_policies else ""
    node.push(rules.encode(), "/etc/sykube/closed.nft")
    node.start(
        image.sif,
        binds=(
            (cluster.paths.volumes, VOLUMES),
            (cluster.paths.sifs, f"{sif_store.PLACE}:ro"),
            *containerd_config.binds(cluster, node),
            *((mount.host, mount.destination) for mount in _mounts(cluster, node)),
        ),
        network=cluster.network_name,
        prefix_length=cluster.state.subnets.nodes.prefixlen,
        gateway=cluster.state.subnets.gateway,
        extra=(*gpus.options(cluster, node), *cluster.state.spec.options),
    )


def _mounts(cluster: Cluster, node: Node) -> list[Mount]:
    """The user's own folders, which are there, and those that pods may bind."""
    mounts = [Mount.parse(text) for text in cluster.state.spec.node(node.name).mounts]
    for mount in mounts:
        mount.check()
    allowed = cluster.state.spec.allow_pod_option
    pod_options.require_folders(allowed, cluster.paths.root)
    return [*mounts, *pod_options.mounts(allowed)]
