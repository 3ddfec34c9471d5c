"""What a cluster needs before it is made, and shares: a host in order, an engine, a node image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sykube.cluster.spec import ClusterSpec
from sykube.host import apt, engines, preflight
from sykube.host.paths import ClusterPaths, cache_dir
from sykube.host.preflight import Finding
from sykube.image import build, versions
from sykube.image.build import Builder
from sykube.image.node_image import NodeImage
from sykube.network import firewall
from sykube.network.bridge import bridge_name
from sykube.ui import Ui

# What images are known by does not depend on where they were downloaded from.
_ANY_MIRROR = apt.Mirror("")


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
    return findings + (firewall.examine_firewalld(bridge_name(spec.name)) if starting else [])


def prepare_host(
    spec: ClusterSpec,
    agrees: Callable[[str], bool],
    ui: Ui,
    *,
    building: bool,
    starting: bool = True,
) -> None:
    """Check the host, and install what its distribution has for it where the user agrees.

    Args:
        agrees: puts a question to the user.
        building: as for `examine`.
        starting: as for `examine`.

    Raises:
        HostError: it lacks something; nothing was changed.
    """
    with ui.step("Checking the host"):
        findings = examine(spec, building=building, starting=starting)
    packages = preflight.missing_packages(findings)
    if packages and agrees(f"Install {' '.join(packages)}?"):
        with ui.step(f"Installing {' '.join(packages)}"):
            preflight.install(packages)
        findings = examine(spec, building=building, starting=starting)
    for finding in findings:
        if finding.level is preflight.Level.WARNING:
            ui.warn(f"{finding.what}: {finding.detail}. {finding.cure}")
    preflight.require(findings)


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
        SykubeError: it could not be built or is none of sykube's.
    """
    builder = Builder(engine.binary, engine.environment)
    if spec.local_image:
        return build.adopt(Path(spec.local_image), builder)
    if not force:
        image = cached_image()
        if image:
            return image
        if changed := build.what_changed(versions.DEBIAN, _ANY_MIRROR):
            ui.say(f"The cached node image is out of date: {', '.join(changed)} changed.")
    mirror = apt.find_mirror(spec.mirror)
    return build.build(versions.DEBIAN, mirror, builder, ui.step, ui.note, force=force)
