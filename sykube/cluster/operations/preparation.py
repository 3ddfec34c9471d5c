"""What a cluster needs before it is made, and shares: a host in order, an engine, a node image."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from sykube.addons import catalog
from sykube.cluster.model import pod_network
from sykube.cluster.model.spec import ClusterSpec
from sykube.cluster.operations.addons import check_pod_network
from sykube.cluster.operations.kubernetes_release import (
    ANY_MIRROR,
    KubernetesRelease,
    of_built,
)
from sykube.errors import HostError, UsageError
from sykube.host import apt, engines, granted, preflight
from sykube.host.download import Downloader
from sykube.host.finding import Finding, Level
from sykube.host.host import Host
from sykube.host.paths import ClusterPaths
from sykube.image import build, local, versions
from sykube.image.build import Builder
from sykube.image.choice import AUTO, UPSTREAM
from sykube.image.node_image import NodeImage
from sykube.network import firewall
from sykube.network.bridge import bridge_name
from sykube.ui import Ui

# For the list of a mirror's packages; a build that does without it takes longer.
_ANSWER_S = 10.0
_NO_ENGINE = Finding(
    "engine",
    Level.FAILURE,
    "there is no Apptainer that sykube can use, and none is downloaded with --local-image",
    "Ask the administrator to install Apptainer 1.2 or later, or let sykube set one up where "
    "there is a network: sykube node-image build",
)


def check_host_for(
    host: Host, spec: ClusterSpec, *, building: bool, starting: bool = True
) -> list[Finding]:
    """What the host lacks for a cluster, and what is doubtful.

    Args:
        building: whether a node image is to be built.
        starting: whether nodes are to be started.
    """
    data = Path(spec.dest) if spec.dest else ClusterPaths(host, spec.name).root
    findings = preflight.check_host(
        host,
        nodes=spec.control_planes + spec.workers if starting else 0,
        data=data,
        cache=host.cache,
        building=building,
        mirror=spec.mirror,
        ephemeral=spec.ephemeral,
    )
    if starting:
        findings += firewall.check_firewalld(host, bridge_name(spec.name))
    if spec.local_image and engines.find(host) is None:
        findings = [finding for finding in findings if finding.what != "engine"] + [_NO_ENGINE]
    return findings


def prepare_host(
    host: Host,
    spec: ClusterSpec,
    agrees: Callable[[str], bool],
    ui: Ui,
    *,
    building: bool,
    starting: bool = True,
) -> None:
    """Check the host, and install what its distribution has for it where the user agrees.

    With an image of the user's nothing is installed, since nothing is to be downloaded then, nor
    without root.

    Args:
        agrees: puts a question to the user.
        building: as for `check_host_for`.
        starting: as for `check_host_for`.

    Raises:
        HostError: it lacks something; nothing was changed.
    """
    with ui.step("Checking the host"):
        findings = check_host_for(host, spec, building=building, starting=starting)
    asked = not (spec.local_image or host.grants.rootless)
    packages = preflight.missing_packages(findings) if asked else ()
    if packages and agrees(f"Install {' '.join(packages)}?"):
        with ui.step(f"Installing {' '.join(packages)}"):
            preflight.install(host, packages)
        findings = check_host_for(host, spec, building=building, starting=starting)
    for finding in findings:
        if finding.what in granted.OPTIONAL and host.grants.rootless:
            # What there could be beside: doctor has it, with long lines to ask for.
            continue
        if finding.level is Level.WARNING:
            ui.warn(f"{finding.what}: {finding.detail}. {finding.cure}")
    preflight.require(host, findings, downloading=asked)
    if host.grants.rootless:
        ui.say(f"Without root: {granted.tier(host)} (docs/rootless.md, sykube doctor).")


def require_local_image(host: Host, spec: ClusterSpec) -> None:
    """Refuse a file of the user's that cannot be used, before anything changes.

    Raises:
        UsageError: it is no image, nobody said whose signature it must have, or a Kubernetes is
            asked for, too, which is the image's.
    """
    if spec.local_image:
        if spec.kubernetes_version or spec.source != AUTO:
            raise UsageError(
                f"{spec.local_image} has its own Kubernetes, and another one is asked for",
                resolution="Leave out --source and --kubernetes-version, or --local-image.",
            )
        local.require_trust(
            host, Path(spec.local_image), trusted=spec.no_verify or bool(spec.fingerprint)
        )


def require_pod_network(spec: ClusterSpec) -> None:
    """Refuse what the pod network cannot be, before anything changes.

    Raises:
        UsageError: a manifest of the user's cannot be read, or holds no Kubernetes objects; or an
            add-on is asked for that is a part of sykube's own.
    """
    network = pod_network.from_setting(spec.pod_network)
    for addon in map(catalog.find, spec.addons):
        check_pod_network(addon, spec.pod_network)
    if isinstance(network, pod_network.Manifest) and not spec.from_snapshot:
        network.read()


def find_engine(host: Host, spec: ClusterSpec, ui: Ui) -> engines.FoundEngine:
    """The host's engine, or a private one that is set up now."""
    found = engines.find(host)
    if found is None:
        with ui.step("Setting up a private Apptainer"):
            found = engines.find_or_create(
                host, lambda: apt.find_mirror(host, spec.mirror), ui.note
            )
    return found


def require_builder(host: Host, release: KubernetesRelease) -> None:
    """Refuse to build a node image where there is one user ID: packages have files of several.

    Raises:
        HostError: root here is a user with one ID; says what to ask the administrator for.
    """
    if host.grants.users:
        return
    choice = release.choice
    version = f" --kubernetes-version {choice.kubernetes}" if choice.source == UPSTREAM else ""
    there = of_built(host, lambda other: dataclasses.replace(release, choice=other))
    built = [
        f"--source {each.choice.source} --kubernetes-version {each.choice.kubernetes}"
        for each in there
    ]
    raise HostError(
        f"building the node image of Kubernetes {choice.kubernetes} needs more user IDs than one",
        resolution=f"Ask the administrator for: sykube node-image build --source {choice.source}"
        f"{version}\n  Or for user IDs of your own: the line is in `sykube doctor`"
        "\n  Or give one that another machine built: --local-image FILE"
        + "".join(f"\n  Or take what root has built already: {each}" for each in built[:1]),
    )


def node_image(
    host: Host,
    spec: ClusterSpec,
    engine: engines.FoundEngine,
    release: KubernetesRelease,
    ui: Ui,
    *,
    force: bool = False,
) -> NodeImage:
    """The node image of what was chosen: the cached one, or a new one.

    Raises:
        SykubeError: it could not be downloaded or built.
    """
    if not force and (image := release.cached_image()):
        return image
    require_builder(host, release)
    source = release.obtain(ui)
    if not force:
        # The downloads may have been pruned, and the image not.
        if image := build.cached(host, source, ANY_MIRROR):
            return image
        if changed := build.what_changed(host, source, ANY_MIRROR):
            ui.say(f"The cached node image is out of date: {', '.join(changed)} changed.")
    mirror = apt.find_mirror(host, spec.mirror)
    builder = Builder(engine.binary, {**engine.environment, **release.environment})
    state = mirror_state(host, mirror, release.downloader)
    return build.build(host, source, mirror, builder, ui.step, ui.note, state=state, force=force)


def mirror_state(host: Host, mirror: apt.Mirror, downloader: Downloader) -> str:
    """Mirror.state; nothing where it does not answer soon: a build without it takes longer."""
    brief = downloader.with_timeout(_ANSWER_S * host.patience)
    return mirror.state(versions.NODE_SUITE, brief.text)


def local_image(host: Host, spec: ClusterSpec, engine: engines.FoundEngine, ui: Ui) -> NodeImage:
    """The user's own node image.

    Raises:
        SykubeError: it is none of sykube's or is not signed as it must be.
    """
    if spec.no_verify:
        ui.warn(f"{spec.local_image} is used unverified (--no-verify): it runs as root")
    file = Path(spec.local_image)
    builder = Builder(engine.binary, engine.environment)
    with ui.step(f"Checking the image {file.name}"):
        return local.adopt(host, file, spec.trust, builder, unverified=spec.no_verify)
