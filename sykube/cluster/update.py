"""Bringing a running cluster to a newer Kubernetes, or to a newer build of its node image.

As kubeadm's documentation has it: control planes first, one by one, then the workers, each emptied
before it is started anew. What a node is started from is part of the cluster's record, so that an
update that was ended, however, goes on where it was.

Source: https://kubernetes.io/docs/tasks/administer-cluster/kubeadm/kubeadm-upgrade/
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from sykube.addons import catalog, dns
from sykube.cluster import (
    cgroup_version,
    lifecycle,
    lookup,
    node_files,
    power,
    preparation,
    renewal,
    rollback,
    site,
    skew,
    status,
    upgrade,
)
from sykube.cluster.addon_site import site as addon_site
from sykube.cluster.cluster import Cluster
from sykube.cluster.progress import Origin, Progress
from sykube.cluster.spec import ClusterSpec
from sykube.cluster.state import locked
from sykube.cluster.steps import nodes as node_steps
from sykube.cluster.steps.dns import COREDNS, Dns, deployment
from sykube.cluster.steps.network import Network
from sykube.cluster.steps.ready import wait_ready, wait_restarted
from sykube.cluster.wanted import Wanted, choose
from sykube.errors import ExitCode, SykubeError, UsageError
from sykube.host import preflight, signals
from sykube.host.files import write_atomically
from sykube.host.paths import ClusterPaths
from sykube.image import containerd, reference, versions
from sykube.image.build import Builder
from sykube.image.choice import AUTO, DEBIAN, Choice
from sykube.kubernetes import readiness
from sykube.kubernetes.api import Api, wait_until
from sykube.node import cgroups
from sykube.node.node import Node
from sykube.ui import Ui

_TIMEOUT_S = 300.0
# Names of the images that a node had beside those of its node image; in its folder.
_KEPT = "kept-images.json"
# Where what is downloaded comes from, unless it is asked for otherwise: as for init.
_SITES = (
    *("kubernetes_mirror", "containerd_mirror", "runc_mirror", "image_repository"),
    *("mirror", "registry_auth"),
)


@dataclass(frozen=True)
class UpdateOptions:
    """How an update goes about it.

    Attributes:
        drain_timeout: seconds that emptying a node may take.
        grace: seconds that the pods which stay on a node have to end by themselves.
        yes: install missing packages without asking.
        ask: puts a question to the user.
    """

    drain_timeout: int = 300
    grace: int = 10
    yes: bool = False
    ask: Callable[[str], bool] = lambda _question: False


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


class Postponed(SykubeError):
    """The cluster works as it is; the same command goes on from here."""


def update(
    name: str, wish: ClusterSpec, options: UpdateOptions, ui: Ui, *, dry_run: bool = False
) -> Outcome:
    """Bring a cluster to a newer node image.

    Args:
        wish: which one, by its fields about images; the others are not read.
        dry_run: change nothing, and say what would be done.

    Raises:
        UsageError: the version cannot follow the present one; nothing was changed.
        SykubeError: the cluster is not well, before anything changed; or something failed on the
            way: the control planes are as before, or the same command goes on.
    """
    preflight.check_identity()
    preparation.examine_local_image(wish)
    with locked(ClusterPaths(name)):
        cluster = lookup.load(name, ui)
        power.require_complete(cluster)
        _require_awake(cluster)
        progress = cluster.state.update
        if progress is None:
            found = _find(cluster, wish, options, dry_run=dry_run)
            before = _present(cluster)
            if found.fingerprint == before.fingerprint:
                return Outcome(before.kubernetes, found.kubernetes, changed=False)
            progress = Progress(before, found)
            _check(cluster, progress)
        elif _wish_is_other(wish, progress):
            raise UsageError(
                f"the cluster {name} is on its way to Kubernetes {progress.after.kubernetes}",
                resolution=f"Let that end first: sykube update{cluster.name_option}",
            )
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
        _bring_up(cluster)
    with contextlib.ExitStack() as held:
        try:
            if not progress.committed:
                with ui.step("Saving etcd and the control planes' configuration"):
                    _wait_api(cluster)
                    rollback.save(cluster)
            if upgrade.is_needed(progress):
                with ui.step("Handing the new kubeadm and images to the nodes"):
                    held.enter_context(upgrade.handed_out(cluster, progress, builder))
            if not progress.committed:
                _renew_control_planes(cluster, progress, options)
        except Postponed:
            raise
        except BaseException as error:
            if progress.committed or not _undo(cluster, progress, builder):
                raise
            if not isinstance(error, SykubeError):
                raise
            raise _was_put_back(cluster, progress, error) from error
        for node in cluster.workers:
            if node.name not in progress.finished:
                _renew(cluster, node, progress, options)
    _finish(cluster, progress)


def _present(cluster: Cluster) -> Origin:
    state = cluster.state
    return Origin(state.image, state.image_folder, state.versions, state.choice)


# --- what the cluster is to be brought to ---


def _find(cluster: Cluster, wish: ClusterSpec, options: UpdateOptions, *, dry_run: bool) -> Origin:
    """The node image that is wanted, made where it is not there.

    In a dry run it is not made: its fingerprint is empty then.
    """
    ui, state = cluster.ui, cluster.state
    own = {name: getattr(state.spec, name) for name in _SITES if not getattr(wish, name)}
    wish = replace(wish, **own)
    engine = preparation.find_engine(wish, ui)
    choice: Choice | None
    if wish.local_image:
        image = preparation.local_image(wish, engine, ui)
        version = image.versions()["kubernetes"].removeprefix("v")
        choice = Choice(image.source, version, _reason(wish))
    else:
        wanted = _choose(cluster, wish)
        choice = wanted.choice
        ui.say(choice.introduction)
        cached = wanted.cached_image()
        if cached is None:
            skew.check(state.versions["kubernetes"], {}, choice.kubernetes)
            if dry_run:
                return Origin("", "", {"kubernetes": f"v{choice.kubernetes}"}, choice)
            _require_well(cluster)
            preparation.prepare_host(
                wish, lambda question: options.yes or options.ask(question), ui,
                building=True, starting=False,
            )  # fmt: skip
        image = cached or preparation.node_image(wish, engine, wanted, ui)
    return Origin(image.fingerprint, str(image.folder), image.versions(), choice)


def _source(cluster: Cluster) -> str:
    """Where the cluster's Kubernetes comes from."""
    choice = cluster.state.choice
    return choice.source if choice else cluster.image.source


def _reason(wish: ClusterSpec) -> str:
    return f"that of {wish.local_image}"


def _choose(cluster: Cluster, wish: ClusterSpec) -> Wanted:
    """What is asked for; where nothing is, the newest patch of the cluster's own minor version."""
    state = cluster.state
    source = _source(cluster)
    version = wish.kubernetes_version
    if wish.source == AUTO:
        wish = replace(wish, source=source)
        if not version and source != DEBIAN:
            wish = replace(wish, kubernetes_version=cluster.minor.version)
    authorities = (*state.authorities, *site.authorities(wish.ca_certificates))
    return choose(wish, cluster.ui, proxies=state.proxies, authorities=authorities)


def _wish_is_other(wish: ClusterSpec, progress: Progress) -> bool:
    """Whether something else is asked for than what an update leads to."""
    choice = progress.after.choice
    if wish.local_image:
        return choice is None or choice.reason != _reason(wish)
    after = progress.after.kubernetes.removeprefix("v")
    asked = wish.kubernetes_version.removeprefix("v")
    return bool(asked) and asked not in (after, after.rpartition(".")[0])


def _check(cluster: Cluster, progress: Progress) -> None:
    """Refuse what cannot be, before anything changes.

    Raises:
        SykubeError: the cluster is not well, or the versions do not follow each other.
    """
    before, after = progress.before, progress.after
    skew.check(before.kubernetes, {}, after.kubernetes)
    minor = versions.minor(after.kubernetes)
    source = _source(cluster)
    if after.choice and after.choice.source != source:
        raise UsageError(
            f"the cluster {cluster.name} is made of {source.capitalize()}'s Kubernetes, and "
            f"{after.kubernetes} is of {after.choice.source.capitalize()}",
            details="Their etcd and cluster DNS are others.",
            resolution="Make another cluster of it: sykube init --name NAME",
        )
    cgroup_version.check(minor, allow_v1=cluster.state.spec.allow_cgroup_v1)
    _require_well(cluster)
    servers = []
    for node in cluster.control_planes:
        with renewal.api_on(cluster, node) as api:
            servers.append(str(api.get("/version")["gitVersion"]))
    with cluster.api() as api:
        skew.check(
            min(servers, key=skew.parse),
            readiness.kubelets(readiness.registered(api)),
            after.kubernetes,
        )


def _require_well(cluster: Cluster) -> None:
    """Refuse a cluster that has a problem of its own already.

    Raises:
        SykubeError: it has; says which.
    """
    found = status.look(cluster)
    if found.exit_code is not ExitCode.OK:
        problems = [f"{node.name}: {node.problem}" for node in found.nodes if node.problem]
        problems += [f"{what}: {problem}" for what, problem in found.parts.items() if problem]
        raise SykubeError(
            f"the cluster {cluster.name} is not well, so it is not updated",
            details="\n".join(problems),
            resolution=f"`sykube start{cluster.name_option}` mends what is missing; see also: "
            f"sykube doctor{cluster.name_option}",
            exit_code=found.exit_code,
        )


def _require_awake(cluster: Cluster) -> None:
    """Refuse a cluster that is stopped or paused.

    Raises:
        SykubeError: it is.
    """
    running = cluster.engine.instances()
    stopped = [node.name for node in cluster.nodes if node.instance not in running]
    # What an update has ended, it starts again.
    if stopped and (cluster.state.update is None or len(stopped) == len(cluster.nodes)):
        raise SykubeError(
            f"nodes of the cluster {cluster.name} do not run: {', '.join(stopped)}",
            resolution=f"sykube start{cluster.name_option}",
            exit_code=ExitCode.STOPPED if len(stopped) == len(cluster.nodes) else ExitCode.DEGRADED,
        )
    if any(cgroups.is_frozen(node.instance) for node in cluster.nodes):
        raise SykubeError(
            f"the cluster {cluster.name} is paused",
            resolution=f"sykube unpause{cluster.name_option}",
            exit_code=ExitCode.STOPPED,
        )


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


# --- going on ---


def _bring_up(cluster: Cluster) -> None:
    """Start what an update that was ended has left behind."""
    if not node_steps.Nodes().is_done(cluster) or not Network().is_done(cluster):
        with cluster.ui.step("Starting the nodes"):
            Network().apply(cluster)
            node_steps.Nodes().apply(cluster)


def _renew_control_planes(cluster: Cluster, progress: Progress, options: UpdateOptions) -> None:
    state = cluster.state
    progress.begun = True
    cluster.save()
    for node in cluster.control_planes:
        if node.name not in progress.finished:
            _renew(cluster, node, progress, options)
    after = progress.after
    state.image, state.image_folder = after.fingerprint, after.folder
    state.versions, state.choice = after.versions, after.choice
    progress.committed = True
    cluster.save()


def _renew(cluster: Cluster, node: Node, progress: Progress, options: UpdateOptions) -> None:
    """Bring one node up to date: its kubeadm's part, then all the rest, started anew."""
    ui = cluster.ui
    if upgrade.is_needed(progress) and node.name not in {*progress.upgraded, *progress.renewed}:
        with ui.step(f"Upgrading {node.name} (kubeadm upgrade)"):
            if node == cluster.master:
                upgrade.apply(cluster, node, progress)
            else:
                upgrade.node(node, progress)
            progress.upgraded.append(node.name)
            cluster.save()
    since = 0.0
    if node.name not in progress.renewed:
        _empty(cluster, node, options)
        with ui.step(f"Starting {node.name} from the new node image"):
            _note_images(cluster, node)
            power.shut_down(cluster, node, options.grace)
            progress.renewed.append(node.name)
            cluster.save()
            since = float(int(time.time()))
            node_steps.prepare(cluster, node)
            node_steps.start(cluster, node)
            node_steps.check(cluster, [node])
    with ui.step(f"Waiting for {node.name}"):
        _give_back_images(cluster, node)
        _wait_api(cluster)
        wait_restarted(cluster, [node.instance], since)
        with cluster.api() as api:
            wait_until(
                f"the new kubelet of {node.name}",
                lambda: _kubelet_problem(api, node, progress),
                _TIMEOUT_S,
            )
            if node.name in cluster.state.cordoned:
                power.uncordon(api, node)
                cluster.state.cordoned.remove(node.name)
                cluster.save()
        wait_ready(cluster)
    progress.finished.append(node.name)
    cluster.save()


def _empty(cluster: Cluster, node: Node, options: UpdateOptions) -> None:
    """Evict a node's pods, within their disruption budgets.

    Raises:
        Postponed: they could not be in time: the node takes pods again.
    """
    state = cluster.state
    with cluster.api() as api:
        found = api.get(f"/api/v1/nodes/{node.instance}")
    # What the user has closed stays closed.
    if not found["spec"].get("unschedulable") and node.name not in state.cordoned:
        state.cordoned.append(node.name)
        cluster.save()
    try:
        with cluster.ui.step(f"Draining {node.name}"):
            power.drain(cluster, node, options.drain_timeout)
    except SykubeError as error:
        if node.name in state.cordoned:
            with cluster.api() as api:
                power.uncordon(api, node)
            state.cordoned.remove(node.name)
            cluster.save()
        raise Postponed(
            f"not all pods of {node.name} could be evicted; the cluster works, and is updated "
            "in part",
            details=error.details or error.brief,
            resolution="Let their disruption budget allow it, end them yourself, or give more "
            f"--drain-timeout; then sykube update{cluster.name_option} goes on from here.",
        ) from error


def _kubelet_problem(api: Api, node: Node, progress: Progress) -> str:
    found = readiness.kubelets(readiness.registered(api)).get(node.instance, "")
    if found != progress.after.kubernetes:
        return f"the kubelet of {node.name} is {found or 'unknown'} yet"
    return readiness.nodes(api, [node.instance])


def _wait_api(cluster: Cluster) -> None:
    with cluster.api() as api:
        wait_until("the API server", lambda: readiness.health(api), _TIMEOUT_S)


def _note_images(cluster: Cluster, node: Node) -> None:
    """Note the images that a node has beside those of its node image."""
    own = {*cluster.image_of(node).container_images()}
    update = cluster.state.update
    own |= {*update.after.image.container_images()} if update else set()
    kept = {
        name: digest
        for name, digest in containerd.names(node).items()
        if name not in own and not reference.is_id(name) and "@" not in name
    }
    write_atomically(node.folder / _KEPT, json.dumps(kept), mode=0o600)


def _give_back_images(cluster: Cluster, node: Node) -> None:
    """Give a node the images that it had, out of what its containerd had."""
    file = node.folder / _KEPT
    if not file.exists():
        return
    kept = json.loads(file.read_text())
    images, missing = containerd.stored(node_files.aside(node), kept)
    for image in images:
        containerd.load(node, image)
    if missing:
        cluster.ui.warn(f"{node.name} has no longer: {', '.join(missing)}")
    file.unlink()


def _finish(cluster: Cluster, progress: Progress) -> None:
    """Bring up to date what runs in the cluster, and forget the way back."""
    ui, state = cluster.ui, cluster.state
    with ui.step("Bringing the cluster DNS and the add-ons up to date"):
        if deployment(cluster) != COREDNS:
            Dns().apply(cluster)
        with cluster.api() as api:
            if deployment(cluster) == COREDNS and len(cluster.control_planes) > 1:
                # kubeadm has put its own in the place of what init had changed.
                dns.spread(api, COREDNS)
            there = addon_site(cluster, api)
            for name in [each for each in catalog.NAMES if each in state.addons]:
                addon = catalog.find(name)
                addon.enable(there)
                wait_until(
                    f"the add-on {name}",
                    lambda addon=addon: addon.problem(there),  # type: ignore[misc]
                    _TIMEOUT_S,
                )
    with ui.step("Waiting for nodes, pods and DNS"):
        wait_ready(cluster)
    with ui.step("Adding the new credentials to your kubeconfig"):
        # kubeadm has made them anew.
        admin = cluster.master.read("/etc/kubernetes/admin.conf", secret=True)
        write_atomically(cluster.paths.kubeconfig, admin, mode=0o600)
        renewal.hand_out(cluster)
    state.update = None
    cluster.save()
    rollback.forget(cluster)


# --- the way back ---


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
        _wait_api(cluster)
        with cluster.api() as api:
            upgrade.tell(api, progress.before.image)
    upgrade.take_back(cluster, progress)
    cluster.state.update = None
    cluster.save()
    rollback.forget(cluster)


def _put_back(cluster: Cluster, progress: Progress, builder: Builder) -> None:
    state, before = cluster.state, progress.before
    lifecycle.keep_node_logs(cluster)
    with cluster.ui.step("Putting the control plane back"):
        rollback.put_back(cluster, progress, builder)
        with cluster.api() as api:
            upgrade.untell(api, before)
        upgrade.take_back(cluster, progress)
        with cluster.api() as api:
            for name in state.cordoned:
                power.uncordon(api, cluster.node(name))
        state.cordoned, state.update = [], None
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
