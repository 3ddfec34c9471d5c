"""sykube certs"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from sykube.cli import context, logfile
from sykube.cluster.commands import renewal
from sykube.cluster.model import lookup
from sykube.cluster.operations import certs as cluster_certs
from sykube.cluster.operations.certs import Found


@click.group()
def certs() -> None:
    """Show when certificates expire, and renew them."""


@certs.command("list")
@context.named
@context.output_option
@context.common
def list_certificates(name: str, output: str) -> None:
    """List all certificates with their expiry dates, also of a stopped cluster."""
    _show(cluster_certs.find(lookup.load(context.host(), name, context.ui())), output)


@certs.command()
@context.named
@context.output_option
@context.common
def renew(name: str, output: str) -> None:
    """Renew all certificates for one year, even if they have expired.

    This restarts the control plane; pods keep running. CAs are valid for ten years and are kept.
    """
    logfile.open_for(name)
    _show(
        cluster_certs.find(renewal.renew_certificates(context.host(), name, context.ui())), output
    )


def _show(found: list[Found], output: str) -> None:
    now = datetime.now(UTC)
    if output == "json":
        context.emit([_describe(one, now) for one in found])
        return
    for one in found:
        if one.certificate is None:
            click.echo(f"{one.node:8} {one.name:32} {one.problem}")
            continue
        end = f"{one.certificate.not_after:%Y-%m-%d %H:%M}"
        kind = "  authority" if one.authority else ""
        days = one.certificate.left(now).days
        click.echo(f"{one.node:8} {one.name:32} {end}  {days:5} days{kind}")


def _describe(one: Found, now: datetime) -> dict[str, Any]:
    described = {"node": one.node, "name": one.name, "authority": one.authority}
    if one.certificate is None:
        return described | {"problem": one.problem}
    return described | {
        "serial": f"{one.certificate.serial:x}",
        "begins": one.certificate.not_before.isoformat(),
        "ends": one.certificate.not_after.isoformat(),
        "daysLeft": one.certificate.left(now).days,
    }
