"""Options of the commands that make a node image: which Kubernetes, and from where."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from sykube.cli import completion
from sykube.image import sites
from sykube.image.choice import AUTO, SOURCES, VARIABLE
from sykube.image.sites import Sites

_F = TypeVar("_F", bound=Callable[..., Any])


def of_kubernetes(command: _F) -> _F:
    """--source, --kubernetes-version, and the sites of upstream."""
    for name, setting in reversed(list(sites.SETTINGS.items())):
        command = click.option(
            setting.option,
            metavar="REGISTRY" if name == "images" else "URL",
            # Read by sites.chosen: what a configuration file says comes between the two.
            help=f"{setting.help} [default: {setting.variable}, or {getattr(Sites(), name)}]",
        )(command)
    command = click.option(
        "--kubernetes-version",
        metavar="VERSION",
        help="Version: stable, a minor or an exact one; `sykube versions` lists them. "
        "[default: the newest]",
    )(command)
    return click.option(
        "--source",
        type=click.Choice(SOURCES),
        help=f"Where Kubernetes comes from; auto is upstream if its release site answers. "
        f"[default: {VARIABLE}, or {AUTO}]",
    )(command)


def allow_cgroup_v1(command: _F) -> _F:
    """--allow-cgroup-v1."""
    return click.option(
        "--allow-cgroup-v1",
        is_flag=True,
        default=None,
        help="Run a kubelet of 1.35 or later even though this host has cgroup v1.",
    )(command)


def of_image(command: _F) -> _F:
    """--local-image, and whose signature it must have."""
    options = (
        click.option(
            "--local-image",
            metavar="FILE",
            shell_complete=completion.files,
            help="Use this bundle or node image; build and download nothing.",
        ),
        click.option(
            "--fingerprint",
            metavar="FINGERPRINT",
            envvar="SYKUBE_FINGERPRINT",
            show_envvar=True,
            help="Fingerprint of the key that must have signed the image.",
        ),
        click.option(
            "--public-key",
            metavar="FILE",
            envvar="SYKUBE_PUBLIC_KEY",
            show_envvar=True,
            shell_complete=completion.files,
            help="PEM file with that key, instead of root's key ring.",
        ),
        click.option(
            "--no-verify",
            is_flag=True,
            default=None,
            help="Do not verify the image's signature.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def of_site(command: _F) -> _F:
    """--registry-auth and --ca-certificate, for what builds an image but no cluster."""
    command = click.option(
        "--ca-certificate",
        "ca_certificates",
        multiple=True,
        metavar="FILE",
        shell_complete=completion.files,
        help="Also trust the CAs in this PEM file; may be repeated.",
    )(command)
    return click.option(
        "--registry-auth",
        metavar="FILE",
        shell_complete=completion.files,
        help="Credentials for registries, as in ~/.docker/config.json.",
    )(command)


def absolute(flags: dict[str, Any]) -> dict[str, Any]:
    """Flags of `of_site` with whole paths."""
    files = tuple(str(Path(each).absolute()) for each in flags["ca_certificates"] or ())
    auth = flags["registry_auth"] and str(Path(flags["registry_auth"]).absolute())
    return {**flags, "ca_certificates": files or None, "registry_auth": auth}
