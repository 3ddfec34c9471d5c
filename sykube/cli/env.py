"""sykube env: a shell's own kubectl talks to the cluster."""

from __future__ import annotations

import os
import pwd
import shlex
from pathlib import Path

import click

from sykube.cli import context
from sykube.cli.access import load_finished
from sykube.host.host import Host
from sykube.host.owner import Owner
from sykube.host.paths import ClusterPaths
from sykube.kubernetes import kubeconfig

# Shell → how it sets a variable of everything it starts, and how it forgets one.
_SYNTAX = {
    "bash": ("export KUBECONFIG={}", "unset KUBECONFIG", 'eval "$({})"'),
    "zsh": ("export KUBECONFIG={}", "unset KUBECONFIG", 'eval "$({})"'),
    "fish": ("set -gx KUBECONFIG {}", "set -e KUBECONFIG", "{} | source"),
}


@click.command()
@context.named
@click.option(
    "--shell", type=click.Choice(list(_SYNTAX)),
    help="Shell to print for. [default: yours, else bash]",
)  # fmt: skip
@click.option("--unset", is_flag=True, help="Make kubectl use your own kubeconfig again.")
@context.common
def env(name: str, shell: str | None, unset: bool) -> None:
    """Print what points kubectl in this shell at the cluster: eval "$(sykube env)"

    Under sudo, it makes a copy of the cluster's kubeconfig that only you can read; delete
    removes it.
    """
    export, forget, call = _SYNTAX[shell or _shell_of_caller()]
    if unset:
        click.echo(forget)
        return
    sudo = "sudo " if "SUDO_UID" in os.environ else ""
    option = "" if name == "sykube" else f" --name {name}"
    click.echo(export.format(shlex.quote(str(_readable(name)))))
    click.echo(f"# To set it: {call.format(f'{sudo}sykube env{option}')}")


def _readable(name: str) -> Path:
    """The cluster's kubeconfig, or the copy of it that the caller can read.

    Raises:
        SykubeError: there is none yet, or the caller cannot reach the cluster's folder.
    """
    paths = ClusterPaths(context.host(), name)
    if context.host().grants.rootless and not paths.kubeconfig.exists():
        # Not one's own, but perhaps root's.
        copy = kubeconfig.copy_for(ClusterPaths(Host(), name).kubeconfig, os.geteuid())
        if os.access(copy, os.R_OK):
            return copy
    if context.host().user() != 0:
        copy = kubeconfig.copy_for(paths.kubeconfig, context.host().user())
        if os.access(copy, os.R_OK):
            return copy
    load_finished(name)
    owner = Owner.of_caller()
    if owner.uid == 0:
        return paths.kubeconfig
    return kubeconfig.share(context.host(), paths.kubeconfig, owner)


def _shell_of_caller() -> str:
    # sudo sets SHELL to root's.
    program = pwd.getpwuid(Owner.of_caller().uid).pw_shell if "SUDO_UID" in os.environ else ""
    name = Path(program or os.environ.get("SHELL", "")).name
    return name if name in _SYNTAX else "bash"
