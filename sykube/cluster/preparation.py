"""What a cluster needs before it is made, and shares: a host in order, an engine, a node image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sykube.cluster.spec import ClusterSpec
from sykube.host import apt, engines, preflight
from sykube.host.paths import ClusterPaths, cache_dir
from sykube.host.preflight import Finding
from sykube.image import build, local, versions
from sykube.image.build import Builder
from sykube.image.node_image import NodeImage
from sykube.network import firewall
from sykube.network.bridge import bridge_name
from sykube.ui import Ui

# What images are known by does not depend on where they were downloaded from.
_ANY_MIRROR = apt.Mirror("")

_NO_ENGINE = Finding(
    "engine",
    preflight.Level.FAILURE,
    "there is no Apptainer that sykube can use, and none is downloaded with --local-image",
    "Ask the administrator to install Apptainer 1.2 or later, or let sykube set one up where "
    "there is a network: sykube node-image build",
)


def examine(spec: ClusterSpec, *, building: bool, starting: bool = True) -> list[Finding]:
    """What the host lacks for a cluster, and what is doubtful.

    Args:
        building: whether a node image is to be built.
        starting: whether nodes are to be started.
    """
    data = Path(spec.dest) if spec.dest else ClusterPaths(spec.name).root
    findings = preflight.examine(
        nodes=spec.control_planes + spec.workers if starting else 0,
        data=data,
        cache=cache_dir(),
        building=building,
        mirror=spec.mirror,
    )
    if starting:
        findings += firewall.examine_firewalld(bridge_name(spec.name))
    if spec.local_image and engines.find() is None:
        findings = [finding for finding in findings if finding.what != "engine"] + [_NO_ENGINE]
    return findings


def prepare_host(
    spec: ClusterSpec,
    agrees: Callable[[str], bool],
    ui: Ui,
    *,
    building: bool,
    starting: bool = True,
) -> None:
    """Check the host, and install what its distribution has for it where the user agrees.

    With an image of the user's nothing is installed, since nothing is to be downloaded then.

    Args:
        agrees: puts a question to the user.
        building: as for `examine`.
        starting: as for `examine`.

    Raises:
        HostError: it lacks something; nothing was changed.
    """
    with ui.step("Checking the host"):
        findings = examine(spec, building=building, starting=starting)
    packages = () if spec.local_image else preflight.missing_packages(findings)
    if packages and agrees(f"Install {' '.join(packages)}?"):
        with ui.step(f"Installing {' '.join(packages)}"):
            preflight.install(packages)
        findings = examine(spec, building=building, starting=starting)
    for finding in findings:
        if finding.level is preflight.Level.WARNING:
            ui.warn(f"{finding.what}: {finding.detail}. {finding.cure}")
    preflight.require(findings, downloading=not spec.local_image)


def examine_local_image(spec: ClusterSpec) -> None:
    """Refuse a file of the user's that cannot be used, before anything changes.

    Raises:
        UsageError: it is no image, or nobody said whose signature it must have.
    """
    if spec.local_image:
        local.examine(Path(spec.local_image), trusted=spec.no_verify or bool(spec.fingerprint))


def find_engine(spec: ClusterSpec, ui: Ui) -> engines.FoundEngine:
    """The host's engine, or a private one that is set up now."""
    found = engines.find()
    if found is None:
        with ui.step("Setting up a private Apptainer"):
            found = engines.find_or_create(lambda: apt.find_mirror(spec.mirror), ui.note)
    return found


def cached_image() -> NodeImage | None:
    """The node image where it is in the cache and up to date; no mirror is needed then."""
    return build.cached(versions.DEBIAN, _ANY_MIRROR)


def node_image(
    spec: ClusterSpec, engine: engines.FoundEngine, ui: Ui, *, force: bool = False
) -> NodeImage:
    """The node image to use: the user's own, the cached one, or a new one.

    Raises:
        SykubeError: it could not be built, is none of sykube's or is not signed as it must be.
    """
    builder = Builder(engine.binary, engine.environment)
    if spec.local_image:
        if spec.no_verify:
            ui.warn(f"{spec.local_image} is used unverified (--no-verify): it runs as root")
        file = Path(spec.local_image)
        with ui.step(f"Checking the image {file.name}"):
            return local.adopt(file, spec.trust, builder, unverified=spec.no_verify)
    if not force:
        image = cached_image()
        if image:
            return image
        if changed := build.what_changed(versions.DEBIAN, _ANY_MIRROR):
            ui.say(f"The cached node image is out of date: {', '.join(changed)} changed.")
    mirror = apt.find_mirror(spec.mirror)
    return build.build(versions.DEBIAN, mirror, builder, ui.step, ui.note, force=force)
