"""What a cluster is to be brought to."""

from __future__ import annotations

from dataclasses import replace

from sykube.cluster.commands.update import checks, skew
from sykube.cluster.commands.update.nodes import UpdateOptions
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.model.progress import Origin, Progress
from sykube.cluster.model.spec import ClusterSpec
from sykube.cluster.operations import preparation, site_network
from sykube.cluster.operations.kubernetes_release import KubernetesRelease, choose
from sykube.image.choice import AUTO, DEBIAN, Choice

# Where what is downloaded comes from, unless it is asked for otherwise: as for init.
_SITES = (
    *("kubernetes_mirror", "containerd_mirror", "runc_mirror", "image_repository"),
    *("mirror", "registry_auth"),
)


def find_target(
    cluster: Cluster, wish: ClusterSpec, options: UpdateOptions, *, dry_run: bool
) -> Origin:
    """The node image that is wanted, made where it is not there.

    In a dry run it is not made: its fingerprint is empty then.
    """
    ui, state = cluster.ui, cluster.state
    own = {name: getattr(state.spec, name) for name in _SITES if not getattr(wish, name)}
    wish = replace(wish, **own)
    engine = preparation.find_engine(cluster.host, wish, ui)
    choice: Choice | None
    if wish.local_image:
        image = preparation.local_image(cluster.host, wish, engine, ui)
        version = image.versions()["kubernetes"].removeprefix("v")
        choice = Choice(image.source, version, _reason(wish))
    else:
        release = _choose(cluster, wish)
        choice = release.choice
        ui.say(choice.introduction)
        cached = release.cached_image()
        if cached is None:
            skew.require_supported_skew(state.versions["kubernetes"], {}, choice.kubernetes)
            preparation.require_builder(cluster.host, release)
            if dry_run:
                return Origin("", "", {"kubernetes": f"v{choice.kubernetes}"}, choice)
            checks.require_healthy(cluster)
            preparation.prepare_host(cluster.host,
                wish, lambda question: options.yes or options.ask(question), ui,
                building=True, starting=False,
            )  # fmt: skip
        image = cached or preparation.node_image(cluster.host, wish, engine, release, ui)
    return Origin(image.fingerprint, str(image.folder), image.versions(), choice)


def _reason(wish: ClusterSpec) -> str:
    return f"that of {wish.local_image}"


def _choose(cluster: Cluster, wish: ClusterSpec) -> KubernetesRelease:
    """What is asked for; where nothing is, the newest patch of the cluster's own minor version."""
    state, source = cluster.state, cluster.image.source
    if wish.source == AUTO:
        wish = replace(wish, source=source)
        if not wish.kubernetes_version and source != DEBIAN:
            wish = replace(wish, kubernetes_version=cluster.minor.version)
    authorities = (*state.authorities, *site_network.authorities(wish.ca_certificates))
    return choose(cluster.host, wish, cluster.ui, proxies=state.proxies, authorities=authorities)


def is_other(wish: ClusterSpec, progress: Progress) -> bool:
    """Whether something else is asked for than what an update leads to."""
    choice = progress.after.choice
    if wish.local_image:
        return choice is None or choice.reason != _reason(wish)
    after = progress.after.kubernetes.removeprefix("v")
    asked = wish.kubernetes_version.removeprefix("v")
    return bool(asked) and asked not in (after, after.rpartition(".")[0])
