"""What to say to who mistypes a command, or uses the words of kind, k3d and minikube."""

from __future__ import annotations

from collections.abc import Collection

import click

# Their commands, and what does the same here.
ELSEWHERE = {
    "create": "init",
    "up": "init",
    "down": "delete",
    "destroy": "delete",
    "remove": "delete",
    "rm": "delete",
    "cluster": "init` or `sykube delete",
    "get": "list` or `sykube kubectl get",
    "ls": "list",
    "profile": "list",
    "ps": "status",
    "ssh": "shell",
    "kubeconfig": "config",
    "load": "image load",
    "export": "logs",
    "tunnel": "service",
}


def for_command(name: str, commands: Collection[str]) -> str:
    """What may have been meant by a command that there is none of; empty if nothing comes near."""
    # Not above: commands that there are do without.
    from difflib import get_close_matches

    near = ELSEWHERE.get(name) or next(iter(get_close_matches(name, commands, 1)), "")
    return f"Did you mean `sykube {near}`?" if near else ""


def for_error(error: click.UsageError) -> str:
    """What to do about arguments that a command does not take; empty if there is nothing to say."""
    ctx = error.ctx
    # Click has no error of its own for them.
    if ctx is None or not error.message.startswith("Got unexpected extra argument"):
        return ""
    if not any("--name" in option.opts for option in ctx.command.params):
        return ""
    return f"A cluster is named by an option: {ctx.command_path} --name CLUSTER"
