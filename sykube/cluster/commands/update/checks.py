"""What is refused before an update changes anything."""

from __future__ import annotations

from pathlib import Path

from sykube.cluster.commands import status
from sykube.cluster.commands.update import skew
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.model.progress import Progress
from sykube.cluster.operations import cgroup_version, gpus, runtimes
from sykube.errors import ExitCode, SykubeError, UsageError
from sykube.image import versions
from sykube.image.build import Builder
from sykube.kubernetes import readiness


def require_updatable(cluster: Cluster, progress: Progress) -> None:
    """Refuse what cannot be, before anything changes.

    Raises:
        SykubeError: the cluster is not well, or the versions do not follow each other.
    """
    before, after = progress.before, progress.after
    skew.require_supported_skew(before.kubernetes, {}, after.kubernetes)
    minor = versions.minor(after.kubernetes)
    source = cluster.image.source
    if after.choice and after.choice.source != source:
        raise UsageError(
            f"the cluster {cluster.name} is made of {source.capitalize()}'s Kubernetes, and "
            f"{after.kubernetes} is of {after.choice.source.capitalize()}",
            details="Their etcd and cluster DNS are others.",
            resolution="Make another cluster of it: sykube init --name NAME",
        )
    cgroup_version.require_cgroup_version(
        cluster.host, minor, allow_v1=cluster.allows_cgroup_v1 or progress.allow_cgroup_v1
    )
    if after.fingerprint:
        builder = Builder(Path(cluster.state.engine), cluster.state.engine_environment)
        runtimes.require_of_image(cluster.host, cluster.state.spec, after.image, builder)
        gpus.require_of_image(after.image, asked=bool(cluster.state.gpus))
    require_healthy(cluster)
    servers = []
    for node in cluster.control_planes:
        with cluster.api_of(node) as api:
            servers.append(str(api.get("/version")["gitVersion"]))
    with cluster.api() as api:
        skew.require_supported_skew(
            min(servers, key=skew.parse),
            readiness.kubelets(readiness.registered(api)),
            after.kubernetes,
        )


def require_healthy(cluster: Cluster) -> None:
    """Refuse a cluster that has a problem of its own already.

    Raises:
        SykubeError: it has; says which.
    """
    found = status.collect(cluster)
    if found.exit_code is not ExitCode.OK:
        problems = [f"{node.name}: {node.problem}" for node in found.nodes if node.problem]
        problems += [f"{what}: {problem}" for what, problem in found.parts.items() if problem]
        raise SykubeError(
            f"the cluster {cluster.name} is not healthy, so it was not updated",
            details="\n".join(problems),
            resolution=f"`sykube start{cluster.name_option}` repairs it; see also: "
            f"sykube doctor{cluster.name_option}",
            exit_code=found.exit_code,
        )
