"""sykube man: manual pages, made from the commands themselves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib.metadata import version as installed_version
from pathlib import Path

import click

from sykube.cli import completion, context
from sykube.cluster.spec import SETTINGS
from sykube.errors import ExitCode, UsageError
from sykube.host import engines
from sykube.host.host import Host

_ENVIRONMENT = {
    "KUBECONFIG": "Its first file gets the contexts of clusters, instead of ~/.kube/config.",
    "NO_COLOR": "When it is set, nothing is coloured: https://no-color.org",
    "SYKUBE_CACHE_DIR": "Folder of node images and of what they are built from, instead of "
    "/var/cache/sykube.",
    engines.VARIABLE: "The engine to use: apptainer, singularity, private, or a program's path.",
    **{
        declared.variable: f"Stands in for {declared.flags[0]}. {declared.help}"
        for declared in SETTINGS.values()
        if declared.variable
    },
}
_FILES = {
    f"{Host().data}/CLUSTER": "A cluster's data.",
    "/var/cache/sykube": "Node images, and the private Apptainer.",
    f"{Host().logs}/CLUSTER.log": "What sykube did for a cluster.",
}


@click.command()
@click.option(
    "--dir", "folder", required=True, type=click.Path(path_type=Path), metavar="DIR",
    shell_complete=completion.folders,
    help="Folder to write to, such as /usr/local/share/man/man1.",
)  # fmt: skip
@context.common
@click.pass_context
def man(ctx: click.Context, folder: Path) -> None:
    """Write the manual pages: sykube(1), and one for each command."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in pages(ctx.find_root()):
            (folder / f"{name}.1").write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"cannot write to {folder}: {error.strerror}",
            resolution="Give a folder of your own with --dir.",
        ) from error
    context.ui().say(f"Read them with: man {folder}/sykube.1")


def pages(ctx: click.Context) -> Iterator[tuple[str, str]]:
    """The name and the text of the manual page of a command, then those of its commands."""
    yield _page_name(ctx), _page(ctx)
    for child in _children(ctx):
        yield from pages(child)


def _children(ctx: click.Context) -> list[click.Context]:
    group = ctx.command
    if not isinstance(group, click.Group):
        return []
    commands = {name: group.get_command(ctx, name) for name in group.list_commands(ctx)}
    return [
        click.Context(command, ctx, info_name=name, **command.context_settings)
        for name, command in commands.items()
        if command
    ]


def _page_name(ctx: click.Context) -> str:
    return ctx.command_path.replace(" ", "-")


def _page(ctx: click.Context) -> str:
    command, name = ctx.command, _page_name(ctx)
    synopsis = " ".join(command.collect_usage_pieces(ctx))
    lines = [
        f'.TH "{_plain(name.upper())}" "1" "" "sykube {installed_version("sykube")}" "sykube"',
        ".SH NAME",
        f"{_plain(name)} \\- {_plain(command.get_short_help_str(limit=200).rstrip('.'))}",
        ".SH SYNOPSIS",
        f"\\fB{_plain(ctx.command_path)}\\fR {_plain(synopsis)}".rstrip(),
        ".SH DESCRIPTION",
        *_paragraphs(inspect.cleandoc(command.help or "")),
        ".SH OPTIONS",
    ]
    records = [parameter.get_help_record(ctx) for parameter in command.get_params(ctx)]
    for options, help_text in filter(None, records):
        # Newer versions of click have a record, without a word, for arguments, too.
        if help_text:
            lines += [".TP", _option(options), _line(help_text)]
    children = _children(ctx)
    if children:
        lines.append(".SH COMMANDS")
        for child in children:
            help_text = child.command.get_short_help_str(limit=200)
            lines += [".TP", f"\\fB{_plain(_page_name(child))}\\fR(1)", _line(help_text)]
    if ctx.parent is None:
        lines += _definitions("ENVIRONMENT", _ENVIRONMENT) + _definitions("FILES", _FILES)
    lines += _definitions("EXIT STATUS", {str(code.value): code.meaning for code in ExitCode})
    if ctx.parent is not None:
        lines += [".SH SEE ALSO", f"\\fB{_plain(_page_name(ctx.parent))}\\fR(1)"]
    return "\n".join(lines) + "\n"


def _definitions(title: str, entries: dict[str, str]) -> list[str]:
    lines = [f".SH {title}"]
    for what, meaning in entries.items():
        lines += [".TP", f"\\fB{_plain(what)}\\fR", _line(meaning)]
    return lines


def _paragraphs(text: str) -> list[str]:
    """A command's help; \\b before a paragraph keeps its lines as they are, as for click."""
    lines: list[str] = []
    for number, paragraph in enumerate(text.split("\n\n")):
        lines += [".PP"] if number else []
        kept = paragraph.startswith("\b")
        found = [_line(line) for line in paragraph.strip("\b\n").splitlines()]
        lines += [".nf", *found, ".fi"] if kept else found
    return lines


def _option(text: str) -> str:
    """`-o, --output [text|json]` with its options in bold."""
    return re.sub(r"(?<![\w-])(--?[\w-]+)", r"\\fB\1\\fR", text).replace("-", r"\-")


def _line(text: str) -> str:
    """A line of text, which is no request of roff however it begins."""
    escaped = _plain(text)
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def _plain(text: str) -> str:
    """Text as roff wants it: a hyphen that can be copied, and only ASCII."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...")
    return "".join(c if ord(c) < 128 else f"\\[u{ord(c):04X}]" for c in escaped)
