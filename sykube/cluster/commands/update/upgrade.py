"""kubeadm upgrade in the nodes of a cluster, which still run the image of before.

The new kubeadm and the new container images are handed to them first; a node that is started from
the new image afterwards has both of its own.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sykube import documents, resources
from sykube.cluster.model.cluster import Cluster, on_each
from sykube.cluster.model.progress import Origin, Progress
from sykube.cluster.operations import busy
from sykube.cluster.operations.ready import wait_api
from sykube.image import containerd, node_image_contents, versions
from sykube.image.build import Builder
from sykube.image.node_image import NodeImage
from sykube.image.oci import ContainerImage
from sykube.kubernetes import kubeadm, node_checks
from sykube.kubernetes.api import Api, ApiError
from sykube.node.node import Node

# kubeadm gives each static pod 5 minutes (UpgradeManifestTimeout), and there are four.
_TIMEOUT_S = 1500.0
# The static pods had their time, and were put back: app/phases/upgrade/staticpods.go.
_GAVE_UP = "kubeadm has tried to recover everything"
_WORK = ".update-"
_INSIDE = "/etc/sykube/update"
_CONFIG = "/api/v1/namespaces/kube-system/configmaps/kubeadm-config"
_APPS = "/apis/apps/v1/namespaces/kube-system"
_OF_KUBEADM = (
    (f"{_APPS}/daemonsets/kube-proxy", "kube-proxy"),
    (f"{_APPS}/deployments/coredns", "coredns"),
)
_STRATEGIC = "application/strategic-merge-patch+json"
_CONTROL_PLANE = frozenset({"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"})


def is_needed(progress: Progress) -> bool:
    """Whether kubeadm has anything to do: another node image may hold the same Kubernetes."""
    return bool(new_names(progress))


def new_names(progress: Progress) -> list[str]:
    """Names of the container images that the nodes have not had yet."""
    known = progress.before.image.container_images()
    return [name for name in progress.after.image.container_images() if name not in known]


@contextmanager
def handed_out(cluster: Cluster, progress: Progress, builder: Builder) -> Iterator[None]:
    """Give the nodes what kubeadm needs of the new image; the tools are taken away again."""
    waiting = [node for node in cluster.nodes if node.name not in progress.renewed]
    forget(cluster)
    work = Path(tempfile.mkdtemp(prefix=_WORK, dir=cluster.paths.root))
    try:
        images = node_image_contents.container_images(
            cluster.host, progress.after.image, new_names(progress), work, builder
        )
        node_image_contents.tools(cluster.host, progress.after.image, work, builder)
        for node in waiting:
            _give_tools(work, node)
        on_each(waiting, lambda node: _give_images(node, images))
        yield
    finally:
        forget(cluster)


def forget(cluster: Cluster) -> None:
    """Remove what was handed out, also by one that was killed."""
    for left in cluster.paths.root.glob(f"{_WORK}*"):
        shutil.rmtree(left, ignore_errors=True)
    for node in cluster.nodes:
        node.discard(_INSIDE)


def take_back(cluster: Cluster, progress: Progress) -> None:
    """Remove the container images from the nodes that they were handed to in vain.

    Raises:
        SykubeError: a node does not answer.
    """
    for node in cluster.nodes:
        there = containerd.names(node)
        digests = {there[name] for name in new_names(progress) if name in there}
        if references := [name for name, digest in there.items() if digest in digests]:
            containerd.remove(node, references)


def _give_tools(work: Path, node: Node) -> None:
    node.push(work / "kubeadm-patches", f"{_INSIDE}/kubeadm-patches")
    node.push(work / "kubeadm", f"{_INSIDE}/kubeadm", shared=True)
    crictl = resources.folder("definitions") / "scripts/crictl"
    node.write(f"{_INSIDE}/crictl", crictl.read_text(encoding="utf-8"), mode="0755")


def _give_images(node: Node, images: list[ContainerImage]) -> None:
    there = containerd.names(node)
    for image in images:
        part = image.name.rpartition(":")[0].rpartition("/")[2]
        wanted = node.is_control_plane or part not in _CONTROL_PLANE
        if wanted and there.get(image.name) != image.digest:
            containerd.load(node, image)


def apply(cluster: Cluster, node: Node, progress: Progress) -> None:
    """kubeadm upgrade apply, on the first control plane.

    Raises:
        CommandError: kubeadm refused or failed.
    """
    with cluster.api() as api:
        set_image_repository(api, progress.after.image)
    _run(cluster, node, progress, ["apply", progress.after.kubernetes, "--yes"])


def node(cluster: Cluster, node: Node, progress: Progress) -> None:
    """kubeadm upgrade node, on any other.

    Raises:
        CommandError: kubeadm refused or failed.
    """
    _run(cluster, node, progress, ["node"])


def set_image_repository(api: Api, image: NodeImage) -> None:
    """Let kubeadm know what the container images of a node image are called."""
    stored = api.get(_CONFIG)["data"]["ClusterConfiguration"]
    config = documents.load(stored)
    config["imageRepository"] = image.repository
    etcd = config.get("etcd", {}).get("local", {})
    if etcd.get("imageTag"):
        etcd["imageTag"] = image.tag_of("etcd")
    _write(api, config)


def restore_images(api: Api, before: Origin) -> None:
    """Point kubeadm, kube-proxy and CoreDNS back at the images of before.

    It is already, where etcd was saved before kubeadm began.
    """
    stored = api.get(_CONFIG)["data"]["ClusterConfiguration"]
    config = documents.load(stored) | {"kubernetesVersion": before.kubernetes}
    _write(api, config)
    set_image_repository(api, before.image)
    use_images(api, before.image)


def use_images(api: Api, image: NodeImage) -> None:
    """Let kube-proxy and CoreDNS run the container images of a node image.

    With several control planes kubeadm does it with the last of them, when those that are started
    from the new node image have none of before any more: app/cmd/phases/upgrade/addons.go.
    """
    for path, name in _OF_KUBEADM:
        try:
            found = api.get(path)
        except ApiError as error:
            if error.status != 404:
                raise
            continue
        (container,) = found["spec"]["template"]["spec"]["containers"]
        wanted = image.name_of(name)
        if container["image"] != wanted:
            named = {"containers": [{"name": container["name"], "image": wanted}]}
            patch = {"spec": {"template": {"spec": named}}}
            api.request("PATCH", path, patch, content_type=_STRATEGIC)


def _write(api: Api, config: dict[str, Any]) -> None:
    patch = {"data": {"ClusterConfiguration": documents.dump(config)}}
    api.request("PATCH", _CONFIG, patch, content_type="application/merge-patch+json")


def _run(cluster: Cluster, node: Node, progress: Progress, arguments: list[str]) -> None:
    """Run kubeadm upgrade, again where only the control plane was too slow for it."""
    minor = versions.minor(progress.after.kubernetes)
    patches = f"{_INSIDE}/kubeadm-patches" if node.is_control_plane else ""
    options = [*arguments, *kubeadm.upgrade_options(minor, patches=patches)]
    # Its crictl last: a real one is preferred.
    script = f'PATH=$PATH:{_INSIDE} exec {_INSIDE}/kubeadm upgrade "$@"'
    # Some of what kubeadm is told to leave alone is checked by this.
    node_checks.run_checks(node)
    # It may be run again after any failure: "Recovering from a failure state" of
    # https://kubernetes.io/docs/tasks/administer-cluster/kubeadm/kubeadm-upgrade/
    command = ["sh", "-c", script, "kubeadm-upgrade", *options]
    busy.until_done(
        lambda: node.run(command, timeout=_TIMEOUT_S), lambda: wait_api(cluster), final=_GAVE_UP
    )
