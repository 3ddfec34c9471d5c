"""The command `sykube`: the only place that exits."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import signal
import sys
from types import FrameType

import click
from click.shell_completion import CompletionItem

from sykube.cli import context, hints, streams
from sykube.cli.commands import COMMANDS
from sykube.errors import ExitCode, SykubeError
from sykube.host.host import Host

# What the system says where a disk is full, or somebody's share of it.
_FULL = (errno.ENOSPC, errno.EDQUOT)


class _LazyGroup(click.Group):
    """Each command's module is imported only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name][0].split(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            hint = hints.for_command(name, COMMANDS)
            raise click.UsageError(f"No such command '{name}'. {hint}".rstrip(), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click's own, which would import all of them."""
        room = formatter.width - 6 - max(map(len, COMMANDS))
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, click.Command(name, help=line).get_short_help_str(room))
                    for name, (_, line) in COMMANDS.items()
                ]
            )

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The same: what zsh and fish show beside a name is its line."""
        found = {name: line for name, (_, line) in COMMANDS.items() if name.startswith(incomplete)}
        names = [CompletionItem(name, help=line) for name, line in found.items()]
        return names + click.Command.shell_complete(self, ctx, incomplete)


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes and how-tos are in docs/. Start with: sykube init",
)
def cli() -> None:
    """Local multi-node Kubernetes clusters whose nodes are Apptainer instances."""


def main(host: Host | None = None) -> None:
    """Run a command; turn what went wrong into one clear error and its exit code."""
    host = host or _this_machine()
    streams.open_closed()
    context.own_umask()
    signal.signal(signal.SIGTERM, _terminated)
    try:
        code = cli.main(prog_name="sykube", standalone_mode=False, obj=host)
        sys.exit(code if isinstance(code, int) else 0)
    except SykubeError as error:
        if any(os.strerror(number) in error.details for number in _FULL):
            error.resolution = _make_room(host)
        context.ui().error(error)
        sys.exit(error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        # Words that nobody takes change no exit code.
        with contextlib.suppress(OSError):
            error.show()
            if isinstance(error, click.UsageError) and (hint := hints.for_error(error)):
                click.echo(hint, err=True)
        sys.exit(ExitCode.USAGE if isinstance(error, click.UsageError) else ExitCode.FAILED)
    except (KeyboardInterrupt, click.Abort):
        context.ui().error(SykubeError("interrupted", exit_code=ExitCode.INTERRUPTED))
        sys.exit(ExitCode.INTERRUPTED)
    except OSError as error:
        context.ui().error(
            SykubeError(
                f"{error.filename or 'the system'}: {error.strerror or error}",
                resolution=_make_room(host)
                if error.errno in _FULL
                else f"See {host.logs}, and please report it.",
            )
        )
        sys.exit(ExitCode.FAILED)
    except Exception as error:
        context.ui().error(
            SykubeError(
                f"sykube itself failed: {type(error).__name__}: {error}",
                resolution="Run the command again with -v for the place, and please report it.",
            )
        )
        if context.ui().verbose:
            raise
        sys.exit(ExitCode.FAILED)
    finally:
        streams.give_up_unheard()


def _this_machine() -> Host:
    # Root of a user's namespaces, as what `run` runs is, has the variable.
    if os.geteuid() == 0 and "SYKUBE_USER" not in os.environ:
        return Host()
    # Not above: root needs none of it.
    from sykube.rootless.host import of_this_user, whose_namespaces

    return of_this_user() if os.geteuid() or whose_namespaces() else Host()


def _make_room(host: Host) -> str:
    """What to do when a disk is full; which one it is, the system does not say."""
    return (
        f"A disk is full, or a quota used up. Make room in {host.data} (or the cluster's --dest), "
        f"{host.cache}, {host.logs} and /tmp, then run the command again."
    )


def _terminated(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
