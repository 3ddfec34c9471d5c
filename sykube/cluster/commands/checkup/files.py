"""What can be seen of a stopped cluster, too: its record, files and certificates, the clock."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sykube.cluster.commands.checkup.context import CheckContext, failure, ok, warning
from sykube.cluster.operations import certs
from sykube.host import engines, space
from sykube.host import inotify as inotify_limits
from sykube.host.finding import Finding, Level

_LEAST_INODES = 0.05
_BIG_OVERLAY_BYTES = 2_000_000_000
_INOTIFY_SHARE = 0.9
_CLOCK_TOLERANCE = timedelta(minutes=2)


def record(context: CheckContext) -> Iterator[Finding]:
    """Whether init came to its end."""
    if not context.cluster.state.complete:
        yield failure("record", "init did not finish this cluster", context.command("init"))


def engine(context: CheckContext) -> Iterator[Finding]:
    """The engine that the cluster was made with, which it keeps."""
    looked_at = engines.probe(context.cluster.host, Path(context.cluster.state.engine))
    if looked_at.problem:
        cure = f"Install it again at {looked_at.binary}, or create the cluster again"
        yield failure("engine", f"{looked_at.problem}; this cluster was made with it", cure)
    else:
        yield ok("engine", f"{looked_at.version}, {looked_at.binary}")


def clock(context: CheckContext) -> Iterator[Finding]:
    """A clock that went back: certificates do not hold yet, files are of the future."""
    marks = [one.certificate.not_before for one in certs.find(context.cluster) if one.certificate]
    for file in (context.cluster.paths.state, context.cluster.paths.log):
        with contextlib.suppress(OSError):
            marks.append(datetime.fromtimestamp(file.stat().st_mtime, UTC))
    latest = max(marks, default=context.now)
    if latest - context.now > _CLOCK_TOLERANCE:
        shown, seen = (f"{time:%Y-%m-%d %H:%M} UTC" for time in (context.now, latest))
        yield failure(
            "clock",
            f"it shows {shown}, but the cluster has seen {seen}",
            "Set the host's clock: timedatectl set-ntp true, or date --set",
        )


def certificates(context: CheckContext) -> Iterator[Finding]:
    """Certificates that end within a month, are past their end, or cannot be read."""
    found = certs.find(context.cluster)
    for one in found:
        if one.problem:
            detail = f"{one.name} of {one.node} cannot be read: {one.problem}"
            yield failure("certificates", detail, context.command("certs renew"))
    near = certs.ending(found, context.now)
    for group, cure in (
        ([one for one in near if not one.authority], context.command("certs renew")),
        (
            [one for one in near if one.authority],
            f"It signs all others: create the cluster again, {context.command('delete')} and init",
        ),
    ):
        if group:
            first = group[0].certificate
            past = first is not None and first.not_after <= context.now
            level = Level.FAILURE if past else Level.WARNING
            yield Finding("certificates", level, certs.describe(group, context.now), cure)
    ends = [one.certificate.not_after for one in found if one.certificate]
    if ends and not near:
        days = (min(ends) - context.now).days
        yield ok("certificates", f"the first of {len(ends)} ends in {days} days")


def disk(context: CheckContext) -> Iterator[Finding]:
    """Space for the cluster's folder, and what nodes wrote where it is not expected."""
    root = context.cluster.paths.root.resolve()
    room = space.free(context.cluster.host, root)
    cure = f"Free some space there; what the nodes take: du -xsh {root}/nodes/*"
    if room.is_short:
        yield failure("disk", str(room), cure)
    elif room.is_low:
        yield warning("disk", str(room), cure)
    else:
        yield ok("disk", str(room))
    files = context.cluster.host.statvfs(root)
    if files.f_files and files.f_favail < _LEAST_INODES * files.f_files:
        detail = f"{files.f_favail} of {files.f_files} inodes are free in {root}"
        yield failure("disk", detail, "Remove files there: see df -i")
    for node in context.cluster.nodes:
        size, listing = node.overlay_usage()
        if size > _BIG_OVERLAY_BYTES:
            yield warning(
                f"node {node.name}",
                f"{size // 1_000_000} MB were written outside of the folders that are for it",
                f"See what it is: {listing}",
            )


def inotify(context: CheckContext) -> Iterator[Finding]:
    """Limits that nodes share with everything else of root's; used up, kubelets cannot start."""
    for usage in inotify_limits.usage(context.cluster.host):
        if usage.share < _INOTIFY_SHARE:
            continue
        name = usage.sysctl.replace("/", ".")
        most = ", ".join(f"{who} {count}" for who, count in usage.most)
        level = Level.FAILURE if usage.share >= 1 else Level.WARNING
        detail = f"root uses {usage.used} of {usage.limit} ({name}); most have: {most}"
        yield Finding("inotify", level, detail, f"sysctl -w {name}={2 * usage.limit}")


def ended(context: CheckContext) -> list[certs.Found]:
    """Certificates that are past their end."""
    near = certs.ending(certs.find(context.cluster), context.now)
    return [one for one in near if one.certificate and one.certificate.not_after <= context.now]
