"""Making clusters."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from sykube.cluster.commands import plan, removal, steps
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.model.pod_network import Manifest
from sykube.cluster.model.spec import ClusterSpec
from sykube.cluster.model.state import State, others
from sykube.cluster.operations import (
    archive,
    cgroup_version,
    containerd_config,
    gpus,
    logs,
    patch_check,
    ports,
    preparation,
    registries,
    runtimes,
    site_network,
)
from sykube.cluster.operations.data import make_root
from sykube.cluster.operations.kubernetes_release import (
    KubernetesRelease,
    choice_of_image,
    choice_of_snapshot,
    choose_fitting,
)
from sykube.cluster.operations.opening import held
from sykube.errors import ExitCode, SykubeError
from sykube.host import engines, identity, lock, signals
from sykube.host.host import Host
from sykube.host.owner import Owner
from sykube.host.paths import ClusterPaths
from sykube.host.proxies import Proxies
from sykube.host.resolver import host_resolvers
from sykube.image import versions
from sykube.image.build import Builder
from sykube.image.choice import Choice
from sykube.kubernetes import kubeconfig
from sykube.network import subnets
from sykube.network.bridge import Bridge
from sykube.ui import Ui


@dataclass(frozen=True)
class InitOptions:
    """How init goes about it, apart from what the cluster shall be.

    Attributes:
        retain: leave a failed cluster for a look at it; init again resumes.
        yes: install missing packages without asking.
        ask: puts a question to the user; False where nobody is there to answer.
    """

    retain: bool = False
    yes: bool = False
    ask: Callable[[str], bool] = lambda _question: False


@dataclass(frozen=True)
class _Resolved:
    """What is asked for; with an image of the user's, it says which Kubernetes it is.

    Attributes:
        gpus: those of the host that nodes get.
    """

    proxies: Proxies
    authorities: tuple[str, ...]
    snapshot: archive.Snapshot | None
    release: KubernetesRelease | None
    choice: Choice | None
    gpus: dict[str, list[str]]


def init(host: Host, spec: ClusterSpec, options: InitOptions, ui: Ui) -> Cluster | None:
    """Make a cluster, or finish one that failed.

    Returns:
        The cluster; None when it was up already.

    Raises:
        SykubeError: with the host as it was before, unless `retain`.
    """
    with held(host, spec.name):
        state = State.load(ClusterPaths(host, spec.name).state)
        if state is not None:
            existing = _existing(host, state, spec, ui)
            if existing is None:
                return None
            cluster = existing
        else:
            cluster = _new(host, spec, options, ui)
        try:
            plan.execute(cluster, steps.steps_of_init(spec))
        except BaseException as error:
            _after_failure(cluster, options, error)
            raise
        return cluster


def dry_run(host: Host, spec: ClusterSpec, ui: Ui) -> dict[str, Any]:
    """What init would find and do, without any change."""
    identity.check(host)
    for mount in spec.every_mount():
        mount.check()
    context = kubeconfig.require_writable(host, Owner.of_caller(), spec.name)
    asked = _resolve(host, spec, ui)
    image = asked.release.cached_image() if asked.release else None
    if asked.snapshot:
        image = archive.image_of(asked.snapshot)
    engine = engines.find(host)
    without = "none" if spec.local_image else "a private Apptainer would be set up"
    building = not (image or spec.local_image)
    chosen = _choose_subnets(host, spec)
    return {
        "findings": [
            {"what": f.what, "level": f.level.value, "detail": f.detail, "cure": f.cure}
            for f in preparation.check_host_for(host, spec, building=building)
        ],
        "engine": engine.version if engine else without,
        "kubernetes": asdict(asked.choice) if asked.choice else None,
        "kubeconfig": str(context),
        "nodeImage": image.fingerprint if image else spec.local_image or "would be built",
        "subnets": {
            "nodes": str(chosen.nodes), "pods": str(chosen.pods), "services": str(chosen.services),
        },
        "steps": [*dict.fromkeys(step.title for step in steps.steps_of_init(spec))],
    }  # fmt: skip


def _existing(host: Host, state: State, spec: ClusterSpec, ui: Ui) -> Cluster | None:
    """The cluster to resume; None when it is complete and as asked.

    Raises:
        SykubeError: it differs from what is asked.
    """
    if differences := state.spec.differences(spec):
        raise SykubeError(
            f"the cluster {spec.name} is there already, but not as asked",
            details="\n".join(differences),
            resolution="`sykube delete` it first, choose another --name, or ask for what it is.",
        )
    cluster = Cluster.of(host, state, ui)
    running = cluster.running()
    stopped = [node.name for node in cluster.nodes if node not in running]
    if state.complete and not stopped:
        return None
    if state.complete:
        raise SykubeError(
            f"the cluster {spec.name} is there, but its nodes do not run: {', '.join(stopped)}",
            resolution=f"sykube start{cluster.name_option}",
            exit_code=ExitCode.STOPPED,
        )
    kubeconfig.require_writable(cluster.host, Owner.of_caller(), spec.name)
    _keep_manifest(cluster)
    ui.say(f"Resuming the cluster {spec.name} where it failed.")
    return cluster


def _new(host: Host, spec: ClusterSpec, options: InitOptions, ui: Ui) -> Cluster:
    """Everything that comes before the cluster's own steps and is never undone."""
    if Bridge(host, spec.name).exists() or ClusterPaths(host, spec.name).root.exists():
        raise SykubeError(
            f"there are remains of a cluster {spec.name} without a record",
            resolution=f"sykube delete --name {spec.name}",
        )
    # What the last step needs.
    kubeconfig.require_writable(host, Owner.of_caller(), spec.name)
    found_logins = registries.logins(spec, ui)
    asked = _resolve(host, spec, ui)
    snapshot, release, choice = asked.snapshot, asked.release, asked.choice
    if choice:
        ui.say(choice.introduction)
    if asked.gpus:
        ui.say(gpus.introduction(host, asked.gpus))
    building = release is not None and release.cached_image() is None
    if release and building:
        preparation.require_builder(host, release)
    preparation.prepare_host(
        host, spec, lambda question: options.yes or options.ask(question), ui, building=building
    )
    resolvers = host_resolvers(host, spec.dns)
    # Wrong ones are refused before the long steps; they are chosen for good below.
    _choose_subnets(host, spec)
    engine = preparation.find_engine(host, spec, ui)
    if snapshot:
        image = archive.image_of(snapshot)
    elif release:
        image = preparation.node_image(host, spec, engine, release, ui)
    else:
        image = preparation.local_image(host, spec, engine, ui)
        choice = choice_of_image(host, spec, image)
        patch_check.check_patches(spec, choice.kubernetes, ui.warn)
    builder = Builder(engine.binary, engine.environment)
    runtimes.require_of_image(host, spec, image, builder)
    gpus.require_of_image(image, asked=bool(asked.gpus))
    merges, operations = spec.containerd_config_patches, spec.containerd_config_patches_json6902
    containerd_config.patched(host, image, merges, builder, operations)
    with contextlib.ExitStack() as stack:
        stack.enter_context(lock.host_settings(host))
        chosen = _choose_subnets(host, spec)
        state = State(
            spec=spec,
            subnets=chosen,
            engine=str(engine.binary),
            engine_environment=dict(engine.environment),
            image=image.fingerprint,
            image_folder=str(image.folder),
            versions=image.versions(),
            loopback_resolver=resolvers.loopback,
            resolvers=resolvers.as_seen_by_nodes(chosen.gateway),
            nodes=snapshot.state().nodes if snapshot else [],
            proxies=asked.proxies,
            authorities=asked.authorities,
            choice=choice,
            gpus=asked.gpus,
        )
        taken = [each.api_port for each in others(host, spec.name)]
        state.api_port = host.network.api_port(taken)
        for port in spec.port_maps:
            ports.require_free(host, state, port)
            state.ports.append(port)
        cluster = Cluster.of(host, state, ui)
        try:
            state.owned_folders = make_root(
                host, cluster.paths.root, spec.dest, ephemeral=spec.ephemeral
            )
            registries.keep(cluster, found_logins)
            _keep_manifest(cluster)
            cluster.save()
        except BaseException:
            stack.close()
            for problem in removal.remove_cluster(cluster):
                ui.warn(f"not undone: {problem}")
            raise
    return cluster


def _keep_manifest(cluster: Cluster) -> None:
    """Keep the manifest of the pod network; that of a snapshot's cluster is in its etcd."""
    network = cluster.pod_network
    if isinstance(network, Manifest) and not cluster.state.spec.from_snapshot:
        network.keep(cluster.paths.pod_network)


def _resolve(host: Host, spec: ClusterSpec, ui: Ui) -> _Resolved:
    """Find out what is asked for, and refuse what cannot be, before anything changes."""
    preparation.require_local_image(host, spec)
    preparation.require_pod_network(spec)
    runtimes.require_of_host(host, spec)
    proxies, authorities = (
        site_network.proxies(spec, ui),
        site_network.authorities(spec.ca_certificates),
    )
    snapshot = release = choice = None
    if spec.from_snapshot:
        snapshot = archive.find(host, spec.from_snapshot)
        archive.check_whole(host, snapshot)
        choice = choice_of_snapshot(snapshot)
        cgroup_version.require_cgroup_version(
            host, versions.minor(choice.kubernetes), allow_v1=spec.allow_cgroup_v1
        )
    elif not spec.local_image:
        release = choose_fitting(host, spec, ui, proxies, authorities)
        choice = release.choice
    if choice:
        patch_check.check_patches(spec, choice.kubernetes, ui.warn)
    nodes = snapshot.state().nodes if snapshot else ()
    given = gpus.shared(host, spec.gpus_of_nodes(nodes))
    return _Resolved(proxies, authorities, snapshot, release, choice, given)


def _choose_subnets(host: Host, spec: ClusterSpec) -> subnets.Subnets:
    there = others(host, spec.name)
    return subnets.choose(
        [*subnets.host_routes(host), *(each.subnets.nodes for each in there)],
        # The host has one route to a range of Services.
        avoid=[each.subnets.services for each in there],
        nodes=subnets.parse(spec.node_subnet),
        pods=subnets.parse(spec.pod_subnet),
        services=subnets.parse(spec.service_subnet),
    )


def _after_failure(cluster: Cluster, options: InitOptions, error: BaseException) -> None:
    """Keep the nodes' logs, then roll back; the first error stays the one that is shown."""
    with signals.uninterrupted():
        logs.keep(cluster)
        if options.retain:
            cluster.ui.say("Kept as it is (--retain): init again resumes, delete removes it.")
            return
        with cluster.ui.step("Rolling back"):
            problems = removal.remove_cluster(cluster)
    for problem in problems:
        cluster.ui.warn(f"not undone: {problem}")
    if isinstance(error, SykubeError):
        kept = f"The nodes' logs are in {cluster.paths.node_logs}."
        error.resolution = f"{error.resolution}\n  {kept}".strip()
