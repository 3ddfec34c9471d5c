"""What can be seen of a stopped cluster, too: its record, files and certificates, the clock."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sykube.cluster import certs
from sykube.cluster.checkup.look import Look, failure, ok, warning
from sykube.host import engines, space
from sykube.host import inotify as inotify_limits
from sykube.host.preflight import Finding, Level

_LEAST_INODES = 0.05
_BIG_OVERLAY_BYTES = 2_000_000_000
_INOTIFY_SHARE = 0.9
_CLOCK_TOLERANCE = timedelta(minutes=2)


def record(look: Look) -> Iterator[Finding]:
    """Whether init came to its end."""
    if not look.cluster.state.complete:
        yield failure("record", "init did not finish this cluster", look.command("init"))


def engine(look: Look) -> Iterator[Finding]:
    """The engine that the cluster was made with, which it keeps."""
    looked_at = engines.probe(look.cluster.host, Path(look.cluster.state.engine))
    if looked_at.problem:
        cure = f"Install it again at {looked_at.binary}, or create the cluster again"
        yield failure("engine", f"{looked_at.problem}; this cluster was made with it", cure)
    else:
        yield ok("engine", f"{looked_at.version}, {looked_at.binary}")


def clock(look: Look) -> Iterator[Finding]:
    """A clock that went back: certificates do not hold yet, files are of the future."""
    marks = [one.certificate.not_before for one in certs.find(look.cluster) if one.certificate]
    for file in (look.cluster.paths.state, look.cluster.paths.log):
        with contextlib.suppress(OSError):
            marks.append(datetime.fromtimestamp(file.stat().st_mtime, UTC))
    latest = max(marks, default=look.now)
    if latest - look.now > _CLOCK_TOLERANCE:
        shown, seen = (f"{time:%Y-%m-%d %H:%M} UTC" for time in (look.now, latest))
        yield failure(
            "clock",
            f"it shows {shown}, but the cluster has seen {seen}",
            "Set the host's clock: timedatectl set-ntp true, or date --set",
        )


def certificates(look: Look) -> Iterator[Finding]:
    """Certificates that end within a month, are past their end, or cannot be read."""
    found = certs.find(look.cluster)
    for one in found:
        if one.problem:
            detail = f"{one.name} of {one.node} cannot be read: {one.problem}"
            yield failure("certificates", detail, look.command("certs renew"))
    near = certs.ending(found, look.now)
    for group, cure in (
        ([one for one in near if not one.authority], look.command("certs renew")),
        (
            [one for one in near if one.authority],
            f"It signs all others: create the cluster again, {look.command('delete')} and init",
        ),
    ):
        if group:
            first = group[0].certificate
            past = first is not None and first.not_after <= look.now
            level = Level.FAILURE if past else Level.WARNING
            yield Finding("certificates", level, certs.describe(group, look.now), cure)
    ends = [one.certificate.not_after for one in found if one.certificate]
    if ends and not near:
        days = (min(ends) - look.now).days
        yield ok("certificates", f"the first of {len(ends)} ends in {days} days")


def disk(look: Look) -> Iterator[Finding]:
    """Space for the cluster's folder, and what nodes wrote where it is not expected."""
    root = look.cluster.paths.root.resolve()
    room = space.free(look.cluster.host, root)
    cure = f"Free some space there; what the nodes take: du -xsh {root}/nodes/*"
    if room.is_short:
        yield failure("disk", str(room), cure)
    elif room.is_low:
        yield warning("disk", str(room), cure)
    else:
        yield ok("disk", str(room))
    files = os.statvfs(root)
    if files.f_files and files.f_favail < _LEAST_INODES * files.f_files:
        detail = f"{files.f_favail} of {files.f_files} inodes are free in {root}"
        yield failure("disk", detail, "Remove files there: see df -i")
    for node in look.cluster.nodes:
        size = _size(node.overlay / "upper")
        if size > _BIG_OVERLAY_BYTES:
            yield warning(
                f"node {node.name}",
                f"{size // 1_000_000} MB were written outside of the folders that are for it",
                f"See what it is: du -xa {node.overlay}/upper | sort -n | tail",
            )


def inotify(look: Look) -> Iterator[Finding]:
    """Limits that nodes share with everything else of root's; used up, kubelets cannot start."""
    for usage in inotify_limits.usage(look.cluster.host):
        if usage.share < _INOTIFY_SHARE:
            continue
        name = usage.sysctl.replace("/", ".")
        most = ", ".join(f"{who} {count}" for who, count in usage.most)
        level = Level.FAILURE if usage.share >= 1 else Level.WARNING
        detail = f"root uses {usage.used} of {usage.limit} ({name}); most have: {most}"
        yield Finding("inotify", level, detail, f"sysctl -w {name}={2 * usage.limit}")


def ended(look: Look) -> list[certs.Found]:
    """Certificates that are past their end."""
    near = certs.ending(certs.find(look.cluster), look.now)
    return [one for one in near if one.certificate and one.certificate.not_after <= look.now]


def _size(folder: Path) -> int:
    """Bytes that the files of a folder take; what goes away meanwhile counts nothing."""
    total = 0
    for below, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(below, name)).st_blocks * 512  # noqa: PTH118
    return total
