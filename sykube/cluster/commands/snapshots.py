"""Saving a stopped cluster, and giving it back."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from sykube.cluster.commands import removal
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.model.state import State, others
from sykube.cluster.operations import archive, data, preparation, user_kubeconfig
from sykube.cluster.operations.archive import Snapshot
from sykube.cluster.operations.data import make_root, remains_after_boot
from sykube.cluster.operations.opening import held, opened
from sykube.errors import HostError, SykubeError, UsageError
from sykube.host import identity, lock, signals
from sykube.host.host import Host
from sykube.host.owner import Owner
from sykube.host.paths import ClusterPaths
from sykube.host.records import HostRecords
from sykube.kubernetes import kubeconfig
from sykube.network import subnets
from sykube.network.bridge import Bridge
from sykube.ui import Ui

# Beside what it will replace, so that replacing is a matter of names.
_WORK = ".restore"


def save(host: Host, cluster_name: str, name: str, ui: Ui) -> Snapshot:
    """Save a stopped cluster.

    Args:
        name: of the snapshot; empty for one made of the cluster's name and the time.

    Raises:
        SykubeError: the cluster runs or was never finished, a snapshot has that name, or the disk
            is full; nothing was changed.
    """
    name = name or f"{cluster_name}-{datetime.now():%Y%m%d-%H%M%S}"
    with opened(host, cluster_name, ui, stopped=True, paused=True) as cluster:
        archive.check_free(host, name)
        _require_stopped(cluster)
        remains_after_boot(cluster)
        with ui.step(f"Saving the cluster {cluster_name}"):
            return archive.create(host, name, cluster.state, cluster.paths.root)


def restore(host: Host, name: str, confirm: Callable[[str], bool], ui: Ui) -> Cluster:
    """Give a cluster back as it was when a snapshot was saved, under its name and addresses.

    It replaces the present cluster of that name, which keeps its place (--dest, --ephemeral).

    Args:
        confirm: asked before a cluster is replaced.

    Raises:
        SykubeError: the snapshot cannot be used, its cluster runs, its addresses are taken, or
            the disk is full; what was there before is there still.
    """
    identity.check(host)
    snapshot = archive.find(host, name)
    with held(host, snapshot.cluster):
        present = State.load(ClusterPaths(host, snapshot.cluster).state)
        if present is not None:
            _require_stopped(Cluster.of(host, present, ui))
        with ui.step(f"Checking the snapshot {name}"):
            archive.check_whole(host, snapshot)
        if present is None:
            return _bring_back(host, snapshot, ui)
        _check_addresses(host, snapshot)
        question = f"Replace the cluster {snapshot.cluster} by what it was on {snapshot.created}?"
        if not confirm(question):
            raise UsageError(
                f"the cluster {snapshot.cluster} was left as it is",
                resolution="With --yes it is replaced by what is in the snapshot, and what it "
                "holds now is lost.",
            )
        return _replace(host, snapshot, present, ui)


def _require_stopped(cluster: Cluster) -> None:
    names = [node.name for node in cluster.running()]
    if names or cluster.bridge.exists():
        raise SykubeError(
            f"the cluster {cluster.name} is not stopped",
            details=f"nodes that run: {', '.join(names)}" if names else "its network is up",
            resolution=f"sykube stop{cluster.name_option}",
        )


def _check_addresses(host: Host, snapshot: Snapshot) -> None:
    """The nodes' subnet is not used by anything else by now.

    Raises:
        HostError: it is.
    """
    taken = subnets.host_routes(host)
    taken += [each.subnets.nodes for each in others(host, snapshot.cluster)]
    try:
        subnets.choose(taken, nodes=snapshot.state().subnets.nodes)
    except HostError as error:
        raise HostError(
            error.brief,
            resolution="Free it, or make a new cluster, with other addresses, of the snapshot: "
            f"sykube init --from {snapshot.name} --name NAME",
        ) from error


def _replace(host: Host, snapshot: Snapshot, present: State, ui: Ui) -> Cluster:
    """Put a snapshot in the place of a stopped cluster."""
    saved = snapshot.state()
    # Where things are on this host is as it is now.
    spec = replace(
        saved.spec,
        dest=present.spec.dest,
        ephemeral=present.spec.ephemeral,
        network_dir=present.spec.network_dir,
        http_proxy=present.spec.http_proxy,
        https_proxy=present.spec.https_proxy,
        no_proxy=present.spec.no_proxy,
        ca_certificates=present.spec.ca_certificates,
    )
    state = replace(
        saved,
        spec=spec,
        engine=present.engine,
        engine_environment=present.engine_environment,
        kubeconfig=present.kubeconfig,
        previous_context=present.previous_context,
        owned_folders=present.owned_folders,
        proxies=present.proxies,
        authorities=present.authorities,
    )
    cluster = Cluster.of(host, state, ui)
    before = _text(cluster.paths.kubeconfig)
    with ui.step(f"Restoring the cluster {cluster.name}"):
        _unpack_and_swap(snapshot, cluster)
    if _text(cluster.paths.kubeconfig) != before:
        kubeconfig.renew_copies(host, cluster.paths.kubeconfig)
        _add_context(cluster)
    return cluster


def _bring_back(host: Host, snapshot: Snapshot, ui: Ui) -> Cluster:
    """Restore a cluster that was deleted, or that was in memory before a reboot."""
    saved, paths = snapshot.state(), ClusterPaths(host, snapshot.cluster)
    if Bridge(host, snapshot.cluster).exists() or (
        paths.root.is_dir() and any(paths.root.iterdir())
    ):
        raise SykubeError(
            f"there are remains of a cluster {snapshot.cluster} without a record",
            resolution=f"sykube delete --name {snapshot.cluster}",
        )
    kubeconfig.require_writable(host, Owner.of_caller(), snapshot.cluster)
    engine = preparation.find_engine(host, saved.spec, ui)
    state = replace(
        saved,
        engine=str(engine.binary),
        engine_environment=dict(engine.environment),
        kubeconfig="",
        previous_context="",
        owned_folders=[],
    )
    cluster = Cluster.of(host, state, ui)
    with ui.step(f"Restoring the cluster {cluster.name}"):
        try:
            _take_place(snapshot, cluster)
            _unpack_and_swap(snapshot, cluster)
        except BaseException:
            with signals.uninterrupted():
                for problem in removal.remove_cluster(cluster):
                    ui.warn(f"not undone: {problem}")
            raise
    _add_context(cluster)
    return cluster


def _take_place(snapshot: Snapshot, cluster: Cluster) -> None:
    """Make the data folder, with the record that keeps the cluster's addresses from others."""
    state = cluster.state
    with lock.host_settings(cluster.host):
        _check_addresses(cluster.host, snapshot)
        spec = state.spec
        state.owned_folders = make_root(
            cluster.host, cluster.paths.root, spec.dest, ephemeral=spec.ephemeral
        )
        data.make(cluster)
        # Until it is started, nothing of the host is changed for it: delete looks here.
        (HostRecords.load(cluster.host) or HostRecords(cluster.host)).save()
        cluster.save()


def _unpack_and_swap(snapshot: Snapshot, cluster: Cluster) -> None:
    """Unpack beside what is there, then exchange the two."""
    work = cluster.paths.root / _WORK
    shutil.rmtree(work, ignore_errors=True)
    try:
        for folder in (work, work / "new", work / "old"):
            folder.mkdir(mode=0o700)
        archive.unpack(cluster.host, snapshot, work / "new")
        (work / "new" / archive.SIFS).mkdir(mode=0o700, exist_ok=True)
        with signals.uninterrupted(), _swapped(cluster.paths.root, work):
            cluster.save()
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def _swapped(root: Path, work: Path) -> Iterator[None]:
    """Exchange what is in `root` and in `work`/new; an error puts it all back."""
    moved: list[tuple[Path, Path]] = []

    def move(source: Path, target: Path) -> None:
        source.rename(target)
        moved.append((source, target))

    try:
        for name in archive.CONTENTS:
            if (root / name).exists():
                move(root / name, work / "old" / name)
            move(work / "new" / name, root / name)
        yield
    except BaseException:
        for source, target in reversed(moved):
            target.rename(source)
        raise


def _add_context(cluster: Cluster) -> None:
    """Put its context into the user's kubeconfig; without it, the cluster is restored as well."""
    try:
        user_kubeconfig.add(cluster)
    except SykubeError as error:
        cluster.ui.warn(
            f"{error.brief}: it has no context of the cluster; "
            f"`sykube config{cluster.name_option}` prints one"
        )


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""
