"""sykube doctor"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from sykube.cli import context
from sykube.cluster.commands import checkup
from sykube.cluster.commands.checkup import Checkup
from sykube.cluster.model import lookup
from sykube.cluster.model.cluster import Cluster
from sykube.errors import ExitCode, SykubeError
from sykube.host import engines, identity, preflight
from sykube.host.engines import FoundEngine
from sykube.host.finding import Finding, Level
from sykube.host.paths import ClusterPaths
from sykube.network import firewall
from sykube.network.bridge import bridge_name


@click.command()
@context.named
@click.option(
    "--workers", type=click.IntRange(0), default=1,
    help="Number of workers to check for, if the cluster does not exist yet.",
)  # fmt: skip
@context.output_option
@context.common
@click.pass_context
def doctor(ctx: click.Context, name: str, workers: int, output: str) -> None:
    """Check the host, and the cluster if there is one; show what is wrong and how to fix it."""
    identity.check(context.host())
    there = lookup.exists(context.host(), name)
    findings = preflight.check_host(
        context.host(),
        nodes=0 if there else workers + 1,
        data=ClusterPaths(context.host(), name).root,
        cache=context.host().cache,
        building=not there,
        mirror=None,
    )
    if not there:
        findings += firewall.check_firewalld(context.host(), bridge_name(name))
    engine = engines.find(context.host())
    found = _check_cluster(name) if there else None
    if output == "json":
        context.emit(
            {
                "engine": _describe(engine) if engine else None,
                "findings": _listed(findings),
                "cluster": {"name": name, "findings": _listed(found.findings)} if found else None,
            }
        )
    else:
        click.echo("host")
        _show(findings)
        if found:
            click.echo(f"cluster {name}")
            _show(found.findings)
    bad = any(finding.level is Level.FAILURE for finding in findings)
    cluster_code = found.exit_code if found else ExitCode.OK
    ctx.exit(ExitCode.HOST_NOT_READY if bad else cluster_code)


def _check_cluster(name: str) -> Checkup:
    try:
        cluster: Cluster = lookup.load(context.host(), name, context.ui())
    except SykubeError as error:
        cure = error.resolution or f"sykube delete --name {name}"
        return Checkup((Finding("record", Level.FAILURE, error.brief, cure),))
    return checkup.run_checks(cluster)


def _describe(engine: FoundEngine) -> dict[str, Any]:
    return {
        "version": engine.version,
        "binary": str(engine.binary),
        "why": engine.why,
    }


def _listed(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    return [asdict(finding) | {"level": finding.level.value} for finding in findings]


def _show(findings: Sequence[Finding]) -> None:
    for finding in findings:
        click.echo(f"  {finding.level.value:8} {finding.what}: {finding.detail}")
        if finding.cure:
            click.echo(f"  {'':8} → {finding.cure}")
