"""The way back of an update, until all control planes are through.

What is kept in the cluster's folder, which root alone can read: a snapshot of etcd, and of each
control plane /etc/kubernetes and the kubelet's configuration. The image that a node was started
from, and what its containerd had, the node keeps.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from sykube import resources
from sykube.cluster.model.cluster import Cluster, on_each
from sykube.cluster.model.progress import Progress
from sykube.cluster.operations.etcd_members import ETCDCTL
from sykube.cluster.operations.nodes import shut_down, start_missing
from sykube.cluster.operations.ready import reelect, wait_api, wait_ready
from sykube.host.host import Host
from sykube.image import inside
from sykube.image.build import Builder
from sykube.node.node import Node

_FOLDER = "update"
_TIMEOUT_S = 300.0
_GRACE_S = 10
_KUBERNETES, _KUBELET = "/etc/kubernetes", "/var/lib/kubelet"
_KUBELET_FILES = ("config.yaml", "kubeadm-flags.env")
_SNAPSHOT = "etcd.db"
# Only root can read it there.
_INSIDE = f"{_KUBELET}/.etcd.db"


def save(cluster: Cluster) -> None:
    """Keep what the way back needs; of the nodes' files only what is not kept yet.

    Raises:
        SykubeError: etcd does not give a snapshot.
        OSError: the disk is full.
    """
    folder = _folder(cluster)
    folder.mkdir(mode=0o700, exist_ok=True)
    for node in cluster.control_planes:
        if not (folder / node.instance).is_dir():
            _save_files(cluster.host, node, folder)
    leader = cluster.running_control_plane()
    try:
        leader.run([*ETCDCTL, "snapshot", "save", _INSIDE], timeout=_TIMEOUT_S)
        taken = leader.pull(_INSIDE)
        taken.chmod(0o600)
        taken.replace(folder / _SNAPSHOT)
    finally:
        leader.discard(_INSIDE)


def _save_files(host: Host, node: Node, folder: Path) -> None:
    work = folder / ".new"
    shutil.rmtree(work, ignore_errors=True)
    (work / "kubelet").mkdir(parents=True)
    host.run(["cp", "-a", node.pull(_KUBERNETES), work / "kubernetes"])
    for name in _KUBELET_FILES:
        host.run(["cp", "-a", node.pull(f"{_KUBELET}/{name}"), work / "kubelet" / name])
    work.rename(folder / node.instance)


def is_untouched(cluster: Cluster, progress: Progress) -> bool:
    """Whether every control plane is still as it was saved, and etcd's data with it.

    A kubeadm that has failed puts back the static pods that it had changed, but not the
    certificates that it had made anew, and waits for nothing.
    """
    return not progress.renewed and all(
        _files(node.pull(_KUBERNETES)) == _files(_folder(cluster) / node.instance / "kubernetes")
        for node in cluster.control_planes
    )


def _files(kubernetes: Path) -> dict[Path, bytes]:
    """What /etc/kubernetes holds, but for what kubeadm itself puts aside."""
    found = {file.relative_to(kubernetes): file for file in kubernetes.rglob("*")}
    return {
        name: file.read_bytes()
        for name, file in found.items()
        if file.is_file() and name.parts[0] != "tmp"
    }


def put_back(cluster: Cluster, progress: Progress, builder: Builder) -> None:
    """Bring the control planes back to what they were; may be called again after it failed.

    Raises:
        SykubeError: the cluster does not become well.
    """
    planes = cluster.control_planes
    awake = [node for node in planes if node.is_running()]
    on_each(awake, lambda node: shut_down(node, _GRACE_S))
    progress.undoing, progress.upgraded, progress.renewed, progress.finished = True, [], [], []
    cluster.save()
    members = ",".join(f"{node.instance}=https://{node.address}:2380" for node in planes)
    for node in planes:
        _put_back_files(node, _folder(cluster))
        _put_back_etcd(cluster.host, node, _folder(cluster), members, progress, builder)
    start_missing(cluster)
    wait_api(cluster)
    reelect(cluster)
    on_each(cluster.workers, _restart_kubelet)
    wait_ready(cluster)


def _restart_kubelet(node: Node) -> None:
    """It has seen a later state than the one that was put back."""
    node.run(["supervisorctl", "restart", "kubelet"])


def forget(cluster: Cluster) -> None:
    """Remove what was kept: there is no way back any more, or no need for it."""
    shutil.rmtree(_folder(cluster), ignore_errors=True)
    for node in cluster.nodes:
        node.forget_previous()


def _put_back_files(node: Node, folder: Path) -> None:
    kept = folder / node.instance
    node.push(kept / "kubernetes", _KUBERNETES)
    for name in _KUBELET_FILES:
        node.push(kept / "kubelet" / name, f"{_KUBELET}/{name}")


def _put_back_etcd(
    host: Host, node: Node, folder: Path, members: str, progress: Progress, builder: Builder
) -> None:
    restored = folder / node.instance / "etcd"
    shutil.rmtree(restored, ignore_errors=True)
    peer = f"https://{node.address}:2380"
    folder_inside, file = f"/mnt/{node.instance}/etcd", f"/mnt/{_SNAPSHOT}"
    command = resources.script("restore-etcd", folder_inside, file, node.instance, members, peer)
    inside.run_in(host, progress.before.image.sif, command, folder, builder, timeout=_TIMEOUT_S)
    node.push(restored / "member", "/var/lib/etcd/member", shared=True)
    shutil.rmtree(restored)


def _folder(cluster: Cluster) -> Path:
    return cluster.paths.root / _FOLDER
