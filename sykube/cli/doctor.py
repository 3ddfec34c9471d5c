"""sykube doctor"""

from __future__ import annotations

from dataclasses import asdict

import click

from sykube.cli import context
from sykube.errors import ExitCode
from sykube.host import engines, preflight
from sykube.host.paths import DATA, cache_dir
from sykube.host.preflight import Level


@click.command()
@click.option("--name", default="sykube", metavar="CLUSTER", help="Which cluster.")
@click.option(
    "--workers", type=click.IntRange(0), default=1, help="Workers of the cluster to check for."
)
@context.output_option
@context.common
@click.pass_context
def doctor(ctx: click.Context, name: str, workers: int, output: str) -> None:
    """Say what the host has and lacks, each finding with its cure."""
    preflight.check_identity()
    findings = preflight.examine(
        nodes=workers + 1, data=DATA / name, cache=cache_dir(), building=True
    )
    engine = engines.find()
    shown = engine.version if engine else "none usable; init sets up a private Apptainer"
    bad = [finding for finding in findings if finding.level is Level.FAILURE]
    if output == "json":
        listed = [asdict(finding) | {"level": finding.level.value} for finding in findings]
        context.emit({"engine": shown, "findings": listed})
    else:
        for finding in findings:
            click.echo(f"{finding.level.value:8} {finding.what}: {finding.detail}")
            if finding.cure:
                click.echo(f"{'':8} → {finding.cure}")
        click.echo(f"{'ok':8} engine: {shown}")
    ctx.exit(ExitCode.HOST_NOT_READY if bad else ExitCode.OK)
