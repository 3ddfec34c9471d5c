"""The order of an update.

As kubeadm's documentation has it: control planes first, one by one, then the workers, each emptied
before it is started anew. What a node is started from is part of the cluster's record, so that an
update that was ended, however, goes on where it was.

Source: https://kubernetes.io/docs/tasks/administer-cluster/kubeadm/kubeadm-upgrade/
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from pathlib import Path

from sykube.addons import catalog
from sykube.cluster.commands.update import checks, nodes, rollback, target, upgrade
from sykube.cluster.commands.update.nodes import UpdateOptions
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.model.progress import Origin, Progress
from sykube.cluster.model.spec import ClusterSpec
from sykube.cluster.operations import addons, logs, preparation, runtimes, user_kubeconfig
from sykube.cluster.operations.control_plane import keep_credentials
from sykube.cluster.operations.dns import COREDNS, adjust, deployment, install
from sykube.cluster.operations.drain import uncordon
from sykube.cluster.operations.nodes import bring_up
from sykube.cluster.operations.opening import opened, require_running
from sykube.cluster.operations.ready import wait_api, wait_ready
from sykube.errors import SykubeError, UsageError
from sykube.host import identity, signals
from sykube.host.host import Host
from sykube.image.build import Builder
from sykube.kubernetes import readiness
from sykube.kubernetes.api import wait_until
from sykube.ui import Ui

_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Outcome:
    """What became of an update.

    Attributes:
        before, after: versions of Kubernetes, with their v.
        changed: whether there was anything to do.
        nodes: each node's version of Kubernetes by its name.
        steps: what would be done, for a dry run.
    """

    before: str
    after: str
    changed: bool
    nodes: dict[str, str] = field(default_factory=dict)
    steps: tuple[str, ...] = ()


def update(
    host: Host,
    name: str,
    wish: ClusterSpec,
    options: UpdateOptions,
    ui: Ui,
    *,
    dry_run: bool = False,
) -> Outcome:
    """Bring a cluster to a newer node image.

    Args:
        wish: which one, by its fields about images, and allow_cgroup_v1; the others are not read.
        dry_run: change nothing, and say what would be done.

    Raises:
        UsageError: the version cannot follow the present one; nothing was changed.
        SykubeError: the cluster is not well, before anything changed; or something failed on the
            way: the control planes are as before, or the same command goes on.
    """
    identity.check(host)
    preparation.require_local_image(host, wish)
    with opened(host, name, ui, stopped=True, updating=True) as cluster:
        # What an update has ended, it starts again.
        if not cluster.state.update or not cluster.running():
            require_running(cluster)
        progress = cluster.state.update
        if progress is None:
            found = target.find_target(cluster, wish, options, dry_run=dry_run)
            before = _present(cluster)
            if found.fingerprint == before.fingerprint:
                return Outcome(before.kubernetes, found.kubernetes, changed=False)
            progress = Progress(before, found, allow_cgroup_v1=wish.allow_cgroup_v1)
            checks.require_updatable(cluster, progress)
        elif target.is_other(wish, progress):
            raise UsageError(
                f"the cluster {name} is on its way to Kubernetes {progress.after.kubernetes}",
                resolution=f"Let that end first: sykube update{cluster.name_option}",
            )
        elif wish.allow_cgroup_v1:
            progress.allow_cgroup_v1 = True
        outcome = Outcome(
            progress.before.kubernetes,
            progress.after.kubernetes,
            changed=True,
            steps=tuple(_steps(cluster, progress)),
        )
        if dry_run:
            return outcome
        builder = Builder(Path(cluster.state.engine), cluster.state.engine_environment)
        _go(cluster, progress, builder, options)
        with cluster.api() as api:
            found_versions = readiness.kubelets(readiness.registered(api))
        return replace(
            outcome, nodes={node.name: found_versions[node.instance] for node in cluster.nodes}
        )


def _go(cluster: Cluster, progress: Progress, builder: Builder, options: UpdateOptions) -> None:
    ui = cluster.ui
    if progress.undoing:
        _put_back(cluster, progress, builder)
        raise _was_put_back(cluster, progress, None)
    if cluster.state.update is None:
        rollback.forget(cluster)
        cluster.state.update = progress
        cluster.save()
    else:
        # What an update that was ended has left behind.
        bring_up(cluster)
    with contextlib.ExitStack() as stack:
        try:
            if not progress.committed:
                with ui.step("Saving etcd and the control planes' configuration"):
                    wait_api(cluster)
                    rollback.save(cluster)
            if upgrade.is_needed(progress):
                with ui.step("Handing the new kubeadm and images to the nodes"):
                    stack.enter_context(upgrade.handed_out(cluster, progress, builder))
            if not progress.committed:
                _renew_control_planes(cluster, progress, options)
        except nodes.EvictionTimeoutError:
            raise
        except BaseException as error:
            if progress.committed or not _undo(cluster, progress, builder):
                raise
            if not isinstance(error, SykubeError):
                raise
            raise _was_put_back(cluster, progress, error) from error
        for node in cluster.workers:
            if node.name not in progress.finished:
                nodes.recreate_node(cluster, node, progress, options)
    _finish(cluster, progress)


def _present(cluster: Cluster) -> Origin:
    state = cluster.state
    return Origin(state.image, state.image_folder, state.versions, state.choice)


def _steps(cluster: Cluster, progress: Progress) -> list[str]:
    """What is to be done, a line each."""
    lines = []
    if not progress.committed:
        lines.append("save etcd and the control planes' configuration")
    if progress.after.fingerprint:
        by_kubeadm = upgrade.is_needed(progress)
    else:
        lines.insert(0, "make the node image")
        by_kubeadm = progress.before.kubernetes != progress.after.kubernetes
    if by_kubeadm:
        lines.append("hand the new kubeadm and container images to the nodes")
    for node in cluster.nodes:
        if node.name in progress.finished:
            continue
        if by_kubeadm and node.name not in progress.upgraded:
            command = "apply" if node == cluster.master else "node"
            lines.append(f"{node.name}: kubeadm upgrade {command}")
        lines.append(f"{node.name}: drain, start from the new node image, uncordon")
    return [*lines, "bring the cluster DNS and the add-ons up to date"]


def _renew_control_planes(cluster: Cluster, progress: Progress, options: UpdateOptions) -> None:
    state = cluster.state
    progress.begun = True
    cluster.save()
    for node in cluster.control_planes:
        if node.name not in progress.finished:
            nodes.recreate_node(cluster, node, progress, options)
    after = progress.after
    state.image, state.image_folder = after.fingerprint, after.folder
    state.versions, state.choice = after.versions, after.choice
    state.spec = replace(state.spec, allow_cgroup_v1=cluster.allows_cgroup_v1)
    progress.committed = True
    cluster.save()


def _finish(cluster: Cluster, progress: Progress) -> None:
    """Bring up to date what runs in the cluster, and forget the way back."""
    ui, state = cluster.ui, cluster.state
    with ui.step("Bringing the cluster DNS and the add-ons up to date"):
        if deployment(cluster) != COREDNS:
            install(cluster)
        runtimes.reconcile(cluster)
        with cluster.api() as api:
            if deployment(cluster) == COREDNS:
                # kubeadm has put its own in the place of what init had changed.
                adjust(cluster, api)
            there = addons.addon_context(cluster, api)
            for name in [each for each in catalog.NAMES if each in state.addons]:
                addon = catalog.find(name)
                addon.enable(there)
                wait_until(
                    cluster.host,
                    f"the add-on {name}",
                    lambda addon=addon: addon.problem(there),  # type: ignore[misc]
                    _TIMEOUT_S,
                )
    with ui.step("Waiting for nodes, pods and DNS"):
        wait_ready(cluster)
    with ui.step("Adding the new credentials to your kubeconfig"):
        # kubeadm has made them anew.
        keep_credentials(cluster, cluster.master)
        user_kubeconfig.rewrite(cluster)
    state.update = None
    cluster.save()
    rollback.forget(cluster)


def _undo(cluster: Cluster, progress: Progress, builder: Builder) -> bool:
    """Put the control planes back, so that all is as before; whether that went well."""
    with signals.uninterrupted():
        try:
            if progress.begun and not rollback.is_untouched(cluster, progress):
                _put_back(cluster, progress, builder)
            else:
                _forget(cluster, progress)
        except Exception as second:
            cluster.ui.warn(
                f"not put back: {second}; sykube update{cluster.name_option} tries it again"
            )
            return False
    return True


def _forget(cluster: Cluster, progress: Progress) -> None:
    """Take back what was handed out, where nothing else was changed."""
    if progress.begun and upgrade.is_needed(progress):
        wait_api(cluster)
        with cluster.api() as api:
            upgrade.set_image_repository(api, progress.before.image)
    upgrade.take_back(cluster, progress)
    cluster.state.update = None
    cluster.save()
    rollback.forget(cluster)


def _put_back(cluster: Cluster, progress: Progress, builder: Builder) -> None:
    state, before = cluster.state, progress.before
    logs.keep(cluster)
    with cluster.ui.step("Putting the control plane back"):
        rollback.put_back(cluster, progress, builder)
        with cluster.api() as api:
            upgrade.restore_images(api, before)
        upgrade.take_back(cluster, progress)
        uncordon(cluster, state.cordoned)
        state.update = None
        state.image, state.image_folder = before.fingerprint, before.folder
        state.versions, state.choice = before.versions, before.choice
        cluster.save()
        rollback.forget(cluster)


def _was_put_back(cluster: Cluster, progress: Progress, error: SykubeError | None) -> SykubeError:
    """The error for an update whose control planes were put back.

    Args:
        error: what went wrong; None where that was in an earlier call.
    """
    return SykubeError(
        f"Kubernetes {progress.after.kubernetes} did not come up; the cluster {cluster.name} is "
        f"back on {progress.before.kubernetes} and works as before",
        details=f"{error.brief}\n{error.details}".strip() if error else "",
        resolution=f"{error.resolution if error else ''}\n  What the nodes said is in "
        f"{cluster.paths.node_logs}.".strip(),
    )
