"""sykube completion, and the names that it offers: clusters, nodes, ports, snapshots.

Names are read from files, which is fast; where those cannot be read, as without root, nothing is
offered and no error is shown.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import click
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class

from sykube.host.host import Host
from sykube.host.paths import ClusterPaths

_SHELLS = ("bash", "zsh", "fish")
Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script for shell completion of commands, clusters, nodes and more.

    \b
    bash: source <(sykube completion bash)
    zsh:  source <(sykube completion zsh), after compinit
    fish: sykube completion fish | source
    """
    found = get_completion_class(shell)
    assert found is not None
    program = ctx.find_root().command
    # Not the class's own source(): bash's starts a bash to ask for its version.
    click.echo(ShellComplete.source(found(program, {}, "sykube", "_SYKUBE_COMPLETE")), nl=False)


def _completer(names: Callable[[click.Context], Iterable[str]]) -> Completer:
    def complete(
        ctx: click.Context, _parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        try:
            return [CompletionItem(name) for name in names(ctx) if name.startswith(incomplete)]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    return complete


def host_of(ctx: click.Context) -> Host:
    found = ctx.find_object(Host)
    assert found is not None, "main() hands it over"
    return found


def _cluster_names(ctx: click.Context) -> list[str]:
    host = host_of(ctx)
    places = [host.data]
    if host.grants.rootless:
        # What follows sudo is completed by the user's shell.
        places = [place for place in (host.data, Host().data) if place.is_dir()]
    folders = {folder for place in places for folder in place.iterdir()}
    return sorted({folder.name for folder in folders if (folder / "state.json").exists()})


def _stored(ctx: click.Context) -> dict[str, Any]:
    name = ctx.params.get("name") or "sykube"
    stored: dict[str, Any] = json.loads(
        ClusterPaths(host_of(ctx), name).state.read_text(encoding="utf-8")
    )
    return stored


def _node_names(ctx: click.Context) -> list[str]:
    return [str(node) for node in _stored(ctx)["nodes"]]


def _worker_names(ctx: click.Context) -> list[str]:
    return [name for name in _node_names(ctx) if not name.startswith("master")]


def _port_names(ctx: click.Context) -> list[str]:
    from sykube.network.ports import PortMap

    return [str(PortMap.parse(text).host_port) for text in _stored(ctx)["ports"]]


def _snapshot_names(ctx: click.Context) -> list[str]:
    return sorted(
        folder.name
        for folder in host_of(ctx).snapshots.iterdir()
        if not folder.name.startswith(".")
    )


def _addon_names(_: click.Context) -> tuple[str, ...]:
    from sykube.addons import catalog

    return catalog.NAMES


def _of_shell(kind: str) -> Completer:
    """What the shell itself offers: names of files (file) or of folders (dir)."""
    return lambda _ctx, _parameter, incomplete: [CompletionItem(incomplete, type=kind)]


files = _of_shell("file")
folders = _of_shell("dir")
clusters = _completer(_cluster_names)
nodes = _completer(_node_names)
workers = _completer(_worker_names)
ports = _completer(_port_names)
snapshots = _completer(_snapshot_names)
addons = _completer(_addon_names)
