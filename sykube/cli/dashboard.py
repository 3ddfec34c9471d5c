"""sykube dashboard"""

from __future__ import annotations

import contextlib
import os

import click

from sykube.cli import context
from sykube.cluster.model import lookup
from sykube.host.owner import Owner


@click.command()
@context.named
@click.option("--port", type=click.IntRange(0, 65535), default=0, metavar="N",
              help="Port on the loopback interface. [default: any free port]")  # fmt: skip
@click.option("--no-open", is_flag=True, help="Print the link only; do not open a browser.")
@context.common
def dashboard(name: str, port: int, no_open: bool) -> None:
    """Show the cluster on a web page: nodes, pods, events, logs. Ctrl-C ends it."""
    # They take longer to import than most commands take to run.
    from sykube.cli import browser
    from sykube.dashboard import serve
    from sykube.dashboard.access import Access
    from sykube.dashboard.cluster_data import LiveData

    lookup.load(context.host(), name, context.ui())
    network = context.host().network
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(serve.listen(port, network.arrival))
        number = listening.getsockname()[1]
        key = f"{name}/dashboard-{os.getpid()}"
        stack.callback(network.publish, key, ())
        network.publish(key, [("tcp", "127.0.0.1", number)])
        access = Access(number)
        owner = Owner.of_caller()
        server = serve.server(LiveData(context.host(), name, context.ui()), access)
        with browser.page_leading_to(context.host(), access.link, owner) as page:
            opened = not no_open and browser.show(context.host(), page, owner, os.environ)
            click.echo(access.link)
            how = "Your browser was asked to open it" if opened else "Open it in a browser here"
            context.ui().say(f"{how}: the link works once, within ten minutes. Ctrl-C ends it.")
            # uvicorn raises the signal again once it has ended in order.
            with contextlib.suppress(KeyboardInterrupt):
                server.run(sockets=[listening])
