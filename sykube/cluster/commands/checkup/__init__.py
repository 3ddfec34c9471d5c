"""What is wrong with a cluster, each finding with its cure: problems that are known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from sykube.cluster.commands.checkup import files, network, nodes
from sykube.cluster.commands.checkup.context import CheckContext, failure
from sykube.cluster.model.cluster import Cluster
from sykube.errors import ExitCode, SykubeError
from sykube.host.finding import Finding, Level

_ALWAYS: tuple[Callable[[CheckContext], Iterable[Finding]], ...] = (
    files.record,
    files.engine,
    files.clock,
    files.certificates,
    files.disk,
    files.inotify,
)
# In the order in which one thing rests on another.
_RUNNING: tuple[Callable[[CheckContext], Iterable[Finding]], ...] = (
    nodes.nodes,
    network.bridge,
    network.rules,
    network.firewalls,
    network.links,
    nodes.inherited,
    nodes.programs,
    network.node_networks,
    nodes.api,
    nodes.dns,
    network.resolvers,
)


@dataclass(frozen=True)
class Checkup:
    """What was found of a cluster."""

    findings: tuple[Finding, ...]
    stopped: bool = False

    @property
    def exit_code(self) -> ExitCode:
        """STOPPED where nothing else is wrong with a stopped cluster."""
        if any(finding.level is Level.FAILURE for finding in self.findings):
            return ExitCode.DEGRADED
        return ExitCode.STOPPED if self.stopped else ExitCode.OK


def run_checks(cluster: Cluster, now: datetime | None = None) -> Checkup:
    """Look for every known problem; of a stopped cluster, for what can be seen then."""
    context = CheckContext(cluster, now or datetime.now(UTC), cluster.running())
    stopped = not context.running
    findings: list[Finding] = []
    for check in (*_ALWAYS, *((nodes.stopped,) if stopped else _RUNNING)):
        try:
            findings += check(context)
        except (SykubeError, OSError) as error:
            # What one check cannot see is said, and keeps no other from looking.
            what = check.__name__.replace("_", " ")
            findings.append(
                failure(what, f"cannot be looked at: {error}", context.command("start"))
            )
    return Checkup(tuple(_in_order(findings)), stopped)


def _in_order(findings: list[Finding]) -> Iterator[Finding]:
    """With the first failures' cures: where the network is broken, DNS is no problem of its own."""
    broken = False
    for finding in findings:
        failed, last = finding.level is Level.FAILURE, finding.what in nodes.LAST
        if failed and last and broken:
            yield replace(finding, cure="Cure what is above first, then look again")
        else:
            yield finding
        broken = broken or (failed and not last)
