"""sykube versions"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

import click

from sykube.cli import completion, context
from sykube.cluster.operations import site_network
from sykube.host.download import Access, Downloader, DownloadError
from sykube.image import build, downloads, mirrors, upstream, versions
from sykube.image.mirrors import Mirrors

# One text each, all at once; whoever has no network shall not wait for long.
_ANSWER_S = 10.0
_MIRROR = mirrors.SETTINGS["kubernetes"]


@click.command("versions")
@click.option(
    _MIRROR.option, metavar="URL",
    help=f"{_MIRROR.help} [default: ${_MIRROR.variable}, or {Mirrors.kubernetes}]",
)  # fmt: skip
@click.option(
    "--ca-certificate", "ca_certificates", multiple=True, metavar="FILE",
    shell_complete=completion.files,
    help="Also trust the CAs in this PEM file; may be repeated.",
)  # fmt: skip
@context.output_option
@context.common
def versions_(kubernetes_mirror: str | None, ca_certificates: tuple[str, ...], output: str) -> None:
    """List available versions of Kubernetes, and what is cached."""
    chosen = mirrors.chosen({"kubernetes": kubernetes_mirror or ""}, os.environ)
    downloader = Downloader(Access(authorities=site_network.authorities(ca_certificates)))
    found = _find(chosen, downloader)
    if output == "json":
        context.emit(found)
    else:
        _show(found)


def _find(chosen: Mirrors, downloader: Downloader) -> dict[str, Any]:
    minors = [versions.minor(each) for each in upstream.minors()]
    newest: dict[str, str] = {}
    problem = ""
    try:
        with context.ui().step(f"Asking {chosen.kubernetes}"):
            quick = downloader.with_timeout(_ANSWER_S * context.host().patience)
            newest = upstream.newest(upstream.minors(), chosen, quick)
    except DownloadError as error:
        problem = f"{error.brief}: {error.details}"
    return {
        "site": chosen.kubernetes,
        "problem": problem,
        "upstream": [
            {"minor": e.version, "newest": newest.get(e.version, ""), "endOfLife": e.end_of_life}
            for e in minors
        ],
        "debian": versions.DEBIAN.kubernetes_version,
        "nodeImages": [
            {
                "fingerprint": image.fingerprint,
                "kubernetes": image.versions()["kubernetes"].removeprefix("v"),
                "source": image.source,
                "bytes": image.size,
            }
            for image in build.list_images(context.host())
        ],
        "downloads": [
            {
                "project": each.project,
                "version": each.version,
                "architecture": each.architecture,
                "file": str(each.file),
                "bytes": each.size,
            }
            for each in downloads.listed(context.host())
        ],
    }


def _show(found: dict[str, Any]) -> None:
    if found["problem"]:
        known = ", ".join(each["minor"] for each in found["upstream"])
        click.echo(f"upstream: the release site does not answer ({found['problem']})")
        click.echo(f"  known to this sykube: {known}")
    else:
        click.echo(f"upstream ({found['site']}):")
        for each in found["upstream"]:
            newest = each["newest"] or "not there"
            over = each["endOfLife"] < f"{datetime.now(UTC):%Y-%m-%d}"
            until = "past its end of life:" if over else "supported until"
            click.echo(f"  {each['minor']:6} {newest:12} {until} {each['endOfLife']}")
    click.echo(f"debian:\n  {found['debian']}")
    click.echo("cached:" if found["nodeImages"] or found["downloads"] else "cached: nothing")
    for each in found["nodeImages"]:
        size = each["bytes"] // 1_000_000
        version = f"{each['kubernetes']} ({each['source']})"
        click.echo(f"  node image {each['fingerprint']}  {version}  {size} MB")
    for each in found["downloads"]:
        size = each["bytes"] // 1_000_000
        what = f"{each['project']} {each['version']} {each['architecture']}"
        click.echo(f"  {what}  {each['file'].rpartition('/')[2]}  {size} MB")
