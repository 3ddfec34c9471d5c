"""What every command shares: its user interface and its common options."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import click

from sykube.cli import completion
from sykube.host.host import Host
from sykube.host.paths import CLUSTER_VARIABLE, ClusterPaths
from sykube.ui import Ui

# What ask for files of no cluster; and what work where there is no cluster yet.
_OUTSIDE = frozenset({"version", "versions", "completion", "man"})
_INSIDE = frozenset({"init", "run", "image", "node-image", "snapshot", "bundle", "uninstall"})
# What shows, or needs to know, when a batch job ends.
_ABOUT_JOBS = frozenset({"init", "run", "status", "doctor"})
# What says what a logout ends.
_ABOUT_LOGOUT = frozenset({"init", "start", "restart", "doctor", "autostart"})
# What removes a cluster's unit, or makes one.
_ABOUT_UNITS = frozenset({"autostart", "delete", "uninstall"})
_HOST = "sykube.host"
_ui: list[Ui] = []
_callers_umask: list[int] = []


def ui() -> Ui:
    """The present command's user interface."""
    if not _ui:
        _ui.append(Ui())
    return _ui[0]


def host() -> Host:
    """The machine that the present command works on, as it is to the user who called it.

    An ordinary user's commands go on in the user's namespaces from the first call on.
    """
    ctx = click.get_current_context()
    found = completion.host_of(ctx)
    if not found.grants.rootless:
        return found
    if _HOST not in ctx.meta:
        ctx.meta[_HOST] = _of_user(ctx, found)
    entered: Host = ctx.meta[_HOST]
    return entered


def outside(check: Callable[[], None]) -> Host:
    """The machine for a program that takes this process's place, once a check has passed.

    A user's namespaces are entered by a child, for the check.

    Raises:
        SykubeError: the check does not pass.
        Exit: it does not pass in the child, which has said so; or this is the child.
    """
    found = completion.host_of(click.get_current_context())
    if not found.grants.rootless:
        check()
        return found
    # Not above: root needs none of it.
    from sykube.rootless import entry
    from sykube.rootless.host import RootlessHost

    assert isinstance(found, RootlessHost)
    if found.inside:
        check()
        return found
    code = entry.go_ahead()
    if code is None:
        check()
        raise click.exceptions.Exit(0)
    if code:
        raise click.exceptions.Exit(code)
    return found


def _of_user(ctx: click.Context, found: Host) -> Host:
    """The machine from within the user's namespaces, where there are or are to be clusters.

    Raises:
        HostError: the user may not look into the folder that they are in.
        Exit: this process is not the one that went on there, which has ended.
    """
    # Not above: root needs none of it.
    from sykube.cluster.model.state import clusters
    from sykube.host import job, logout, places
    from sykube.rootless import entry, namespaces
    from sykube.rootless.host import RootlessHost

    assert isinstance(found, RootlessHost)
    command = ctx.find_root().invoked_subcommand
    if command in _OUTSIDE or found.inside:
        return found
    places.require_readable(found)
    if found.grants.job and command in _ABOUT_JOBS:
        asked = job.asked(found, found.grants.job, os.environ)
        found = replace(found, grants=replace(found.grants, job=asked))
    elif command in _ABOUT_LOGOUT and not found.grants.job:
        ends = logout.asked(found, namespaces.cgroup(found), found.folders.runtime)
        found = replace(found, grants=replace(found.grants, logout=ends))
    found = replace(found, asks=command in _ABOUT_UNITS and found.manager.is_dir())
    if command not in _INSIDE and not clusters(found) and not namespaces.present(found):
        return found
    went = entry.enter(found, lambda: not clusters(found))
    if isinstance(went, int):
        raise click.exceptions.Exit(went)
    return went


def own_umask() -> None:
    """Let files have the modes that sykube names: nodes and other users must read some of them."""
    _callers_umask[:] = [os.umask(0o022)]


def give_back_umask() -> None:
    """Before sykube becomes a program that writes the caller's own files."""
    for umask in _callers_umask:
        os.umask(umask)


def common(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options -v and --quiet."""

    @click.option("-v", "--verbose", is_flag=True, help="Print every command that is run.")
    @click.option("-q", "--quiet", is_flag=True, help="Print only results and errors.")
    @functools.wraps(function)
    def wrapper(*args: Any, verbose: bool, quiet: bool, **kwargs: Any) -> Any:
        _ui[:] = [Ui(verbose=verbose, quiet=quiet)]
        return function(*args, **kwargs)

    return wrapper


def named(function: Callable[..., Any]) -> Callable[..., Any]:
    """The option --name, checked."""

    @click.option("--name", default="sykube", show_default=True, metavar="CLUSTER",
                  envvar=CLUSTER_VARIABLE, shell_complete=completion.clusters,
                  help="Name of the cluster.")  # fmt: skip
    @functools.wraps(function)
    def wrapper(*args: Any, name: str, **kwargs: Any) -> Any:
        # Not above: a shell that completes words needs none of it.
        from sykube.cluster.model.spec import check_name

        check_name(name)
        return function(*args, name=name, **kwargs)

    return wrapper


def output_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """The option --output."""
    return click.option(
        "--output", "-o", type=click.Choice(["text", "json"]), default="text", show_default=True,
        help="Output format.",
    )(function)  # fmt: skip


def timings_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """The option --timings; see `timed`."""
    return click.option(
        "--timings", is_flag=True, help="Show what the time of each step was spent on."
    )(function)


@contextlib.contextmanager
def timed(*, shown: bool) -> Iterator[Host]:
    """The machine, of which the user interface's timings record what is run and waited for.

    Args:
        shown: print them on stderr at the end, also after an error.
    """
    try:
        yield ui().timings.watch(host())
    finally:
        # A stream that is gone hides no error.
        with contextlib.suppress(OSError):
            for line in ui().timings.lines() if shown else []:
                click.echo(line, err=True)


def signing_key(function: Callable[..., Any]) -> Callable[..., Any]:
    """The option --key."""
    return click.option(
        "--key", default="", metavar="FILE|FINGERPRINT", shell_complete=completion.files,
        help="Private key: a PEM file, or the fingerprint of one in your key ring. "
        "[default: the only one there]",
    )(function)  # fmt: skip


def open_log(name: str) -> None:
    """Log to the cluster's file from here on."""
    ui().open_log(ClusterPaths(host(), name).log)


def ask(question: str) -> bool:
    """Put a question to the person at the terminal; False where there is none."""
    return sys.stdin.isatty() and sys.stderr.isatty() and click.confirm(question, err=True)


def emit(data: Any) -> None:
    """Print a result for programs."""
    click.echo(json.dumps(data, indent=2))


def show(output: str, data: Any, lines: Iterable[str]) -> None:
    """Print a result as --output asks for it: data for programs, or lines for people."""
    if output == "json":
        emit(data)
        return
    for line in lines:
        click.echo(line)
