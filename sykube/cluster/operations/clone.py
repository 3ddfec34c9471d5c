"""A new cluster of a snapshot: its data, with names, addresses and keys of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sykube import resources
from sykube.addons import network_policy
from sykube.addons.network_policy import NETWORK_POLICY
from sykube.cluster.model import members, pod_options
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.model.spec import ClusterSpec
from sykube.cluster.operations import archive
from sykube.cluster.operations.addons import fits
from sykube.cluster.operations.archive import Snapshot
from sykube.errors import SykubeError, UsageError
from sykube.image.choice import AUTO
from sykube.node import local
from sykube.node.node import Node

_LEFT_OUT = tuple(f"nodes/*/{name}" for name in local.IDENTITY)
_WORK = ".unpack"
_TIMEOUT_S = 180.0
# Options of the snapshot's cluster that a new one has, too.
_KEPT = (
    *("cpus", "memory", "pids", "taint_master", "allow_cgroup_v1", "options", "registry_mirrors"),
    *("runtime", "require_signed", "feature_gates", "runtime_config", "kubeadm_config_patches"),
    *("kubeadm_config_patches_json6902", "kubelet_config_patches", "containerd_config_patches"),
    "containerd_config_patches_json6902",
)


def defaults(snapshot: Snapshot) -> dict[str, Any]:
    """What a cluster of this snapshot is unless it is asked for otherwise, by ClusterSpec's names.

    Raises:
        SykubeError: the snapshot is damaged.
    """
    saved = snapshot.state()
    workers = [name for name in saved.nodes if not members.is_control_plane(name)]
    return {name: getattr(saved.spec, name) for name in _KEPT} | {
        "workers": len(workers),
        "control_planes": len(saved.nodes) - len(workers),
        # Ports, folders and GPUs of the host are the other cluster's.
        "nodes": tuple(
            dataclasses.replace(each, mounts=(), ports=(), gpus="") for each in saved.spec.nodes
        ),
        "allow_pod_option": pod_options.without_folders(saved.spec.allow_pod_option),
        "addons": tuple(saved.addons),
        "pod_subnet": str(saved.subnets.pods),
        "service_subnet": str(saved.subnets.services),
        "pod_network": saved.spec.pod_network,
    }


def require_clonable(spec: ClusterSpec, snapshot: Snapshot) -> None:
    """Refuse what a cluster of a snapshot cannot be.

    Raises:
        UsageError: the snapshot has several control planes, or other nodes or ranges than asked.
    """
    fixed = defaults(snapshot)
    if fixed["control_planes"] != 1:
        raise UsageError(
            f"the snapshot {snapshot.name} has {fixed['control_planes']} control planes: a new "
            "cluster can be made of one with a single one",
            resolution=f"It can be restored: sykube snapshot restore {snapshot.name}",
        )
    problems = [
        f"{what} is {fixed[name]} in the snapshot, not {getattr(spec, name)}"
        for name, what in (
            ("workers", "the number of workers"),
            ("control_planes", "the number of control planes"),
            ("pod_subnet", "the subnet of pods"),
            ("service_subnet", "the subnet of Services"),
            ("pod_network", "the pod network"),
        )
        if getattr(spec, name) != fixed[name]
    ]
    if wrong := _other_kubernetes(spec, snapshot):
        problems.append(wrong)
    if spec.local_image:
        problems.append(f"the node image is the snapshot's, not {spec.local_image}")
    if problems:
        raise UsageError(
            f"the snapshot {snapshot.name} cannot become the cluster that was asked for",
            details="\n".join(problems),
            resolution="Leave these options out; nodes can be added and removed afterwards.",
        )


def _other_kubernetes(spec: ClusterSpec, snapshot: Snapshot) -> str:
    """What is asked for that is not the snapshot's Kubernetes."""
    saved = snapshot.state().choice
    version = snapshot.kubernetes.removeprefix("v")
    asked = spec.kubernetes_version.removeprefix("v")
    if asked and asked not in (version, version.rpartition(".")[0]):
        return f"Kubernetes is {version} in the snapshot, not {spec.kubernetes_version}"
    if saved and spec.source not in (AUTO, saved.source):
        return f"the snapshot's Kubernetes is from {saved.source}, not {spec.source}"
    return ""


def is_unpacked(cluster: Cluster) -> bool:
    return all(node.exists() for node in cluster.nodes)


def unpack_all(cluster: Cluster) -> None:
    """Unpack the files of all nodes, and the volumes."""
    unpack(cluster, cluster.nodes, volumes=True)


def unpack(cluster: Cluster, nodes: Sequence[Node], *, volumes: bool) -> None:
    """Put what the snapshot has of some nodes in their place, without keys and names.

    Args:
        volumes: the cluster's volumes as well, and its SIFs.

    Raises:
        SykubeError: the disk is too small, or tar failed.
    """
    snapshot = archive.find(cluster.host, cluster.state.spec.from_snapshot)
    work = cluster.paths.root / _WORK
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(mode=0o700)
    try:
        saved = {f"nodes/{snapshot.cluster}-{node.name}": node for node in nodes}
        whole = [name for name in ("volumes", archive.SIFS) if name in snapshot.contents]
        only = [*saved, *(whole if volumes else ())]
        archive.unpack(cluster.host, snapshot, work, only=only, without=_LEFT_OUT)
        for name, node in saved.items():
            node.restore(work / name)
        for name in whole if volumes else ():
            shutil.rmtree(cluster.paths.root / name, ignore_errors=True)
            (work / name).rename(cluster.paths.root / name)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def scrub_etcd(cluster: Cluster) -> None:
    """Take the names, addresses and tokens of the snapshot's cluster out of the master's etcd.

    Where it has NetworkPolicies, no node lets a pod through from then on, before one can start.

    Raises:
        SykubeError: etcd does not start from what was saved, or holds what sykube does not know.
    """
    master, snapshot = cluster.master, archive.find(cluster.host, cluster.state.spec.from_snapshot)
    nodes = {f"{snapshot.cluster}-{node.name}": node.instance for node in cluster.nodes}
    image = cluster.image.name_of("etcd")
    start = resources.script("start-etcd", image, master.instance)
    master.run(start, timeout=_TIMEOUT_S)
    try:
        # Not above: it imports what a node needs for it, and is wanted here only as a text.
        from sykube.kubernetes import etcd_scrub

        program = Path(etcd_scrub.__file__).read_text(encoding="utf-8")
        command = ["python3", "-", json.dumps(nodes)]
        policies = master.run(command, stdin=program, timeout=_TIMEOUT_S).stdout
    except BaseException:
        with contextlib.suppress(SykubeError):
            master.run(resources.script("stop-etcd"))
        raise
    master.run(resources.script("stop-etcd"), timeout=_TIMEOUT_S)
    if policies and fits(cluster, NETWORK_POLICY):
        network_policy.close(cluster.nodes)
    # What etcd wrote before it wrote its database still has the secrets that were taken out. This
    # leaves it behind, and makes a member of a cluster of its own.
    name, peer = master.instance, f"https://{master.address}:2380"
    data = ("/var/lib/etcd", "/var/lib/etcd/member/snap/db")
    command = resources.script(
        "restore-etcd", *data, name, f"{name}={peer}", peer, "--skip-hash-check"
    )
    master.run(command, timeout=_TIMEOUT_S)
