"""Options of the command line from those that ClusterSpec declares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from sykube.cli import completion
from sykube.cluster.model.spec import SETTINGS
from sykube.errors import UsageError
from sykube.settings import Setting

_F = TypeVar("_F", bound=Callable[..., Any])

# Of all commands that make a node image.
KUBERNETES = (
    *("source", "kubernetes_version", "kubernetes_mirror", "containerd_mirror", "runc_mirror"),
    "image_repository",
)
IMAGE = ("local_image", "fingerprint", "public_key", "no_verify")
SITE = ("registry_auth", "ca_certificates")


def of_cluster(*names: str) -> Callable[[_F], _F]:
    """Options for fields of ClusterSpec, by these names; None is given where one is left out."""

    def decorate(command: _F) -> _F:
        for name in reversed(names):
            command = option(name)(command)
        return command

    return decorate


def option(name: str, **changes: Any) -> Callable[[_F], _F]:
    """One of them.

    Args:
        changes: of what click is told.
    """
    declared = SETTINGS[name]
    told: dict[str, Any] = {
        "help": described(declared),
        "metavar": declared.metavar or None,
        "callback": lambda _ctx, _parameter, given: _parsed(declared, given),
    }
    if declared.choices:
        told["type"] = click.Choice(declared.choices)
    if isinstance(declared.default, bool):
        told |= {"is_flag": True, "default": None}
    elif isinstance(declared.default, int):
        told["type"] = int
    if declared.type.many:
        told["multiple"] = True
    if declared.variable_first:
        told |= {"envvar": declared.variable, "show_envvar": True}
    if declared.completion:
        told["shell_complete"] = getattr(completion, declared.completion)
    return click.option(*declared.flags, name, **(told | changes))


def described(declared: Setting) -> str:
    """An option's help, with its default."""
    variable = "" if declared.variable_first else declared.variable
    default = ", or ".join(filter(None, (variable, declared.shown)))
    many = " May be repeated." if declared.type.many else ""
    return f"{declared.help}{many}" + (f" [default: {default}]" if default else "")


def _parsed(declared: Setting, given: Any) -> Any:
    if given is None or (declared.type.many and not given):
        return None
    try:
        return declared.type.parse(given)
    except ValueError as error:
        raise UsageError(
            f"{declared.flags[0]}: {error}", resolution="Correct it and run the command again."
        ) from error
