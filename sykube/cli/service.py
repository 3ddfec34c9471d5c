"""sykube service"""

from __future__ import annotations

import os
from dataclasses import asdict

import click

from sykube.cli import browser, context
from sykube.cluster.commands import service_urls as cluster_service
from sykube.cluster.model import lookup
from sykube.errors import SykubeError
from sykube.host.owner import Owner


@click.command()
@context.named
@click.argument("service_name", metavar="SERVICE")
@click.option(
    "--namespace", "-n", default="default", show_default=True, metavar="NAMESPACE",
    help="Namespace of the Service.",
)  # fmt: skip
@click.option("--open", "open_it", is_flag=True, help="Open the first address in a browser.")
@context.output_option
@context.common
def service(name: str, service_name: str, namespace: str, open_it: bool, output: str) -> None:
    """Print the URLs at which this host reaches a Service; only those that answer."""
    cluster = lookup.load(context.host(), name, context.ui())
    cluster.running_control_plane()
    found = cluster_service.addresses(cluster, namespace, service_name)
    context.show(output, [asdict(each) for each in found], (each.url for each in found))
    if open_it:
        url = next((each.url for each in found if each.url.startswith("http")), "")
        if not url:
            raise SykubeError(
                f"the Service {service_name} has no port that is known for http or https",
                resolution="Name its port http or https, or open an address yourself.",
            )
        if not browser.show(context.host(), url, Owner.of_caller(), os.environ):
            raise SykubeError(
                "there is no desktop here with a browser that xdg-open finds",
                resolution=f"Open it elsewhere: {url}",
            )
