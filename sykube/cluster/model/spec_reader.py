"""A cluster as it is asked for: a configuration file, and flags, which win."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from sykube import redaction, settings
from sykube.cluster.model import checks, kind_config
from sykube.cluster.model.spec import SETTINGS, ClusterSpec, problem_with
from sykube.errors import UsageError
from sykube.host.host import Host
from sykube.settings import Document

_FIXED = {"apiVersion": "sykube/v1alpha1", "kind": "Cluster"}


def make_spec(
    host: Host,
    file: Path | None,
    flags: dict[str, Any],
    defaults: dict[str, Any] | None = None,
    warn: Callable[[str], None] = lambda _text: None,
) -> ClusterSpec:
    """Combine a configuration file with flags; flags win.

    Args:
        flags: fields of ClusterSpec; those that are None were not given.
        defaults: fields for what neither gives, instead of ClusterSpec's own.
        warn: told what of the file has no effect.

    Raises:
        UsageError: with every error of the file (by line number) and of the flags.
    """
    values, lines, document = _read_file(host, file) if file else ({}, {}, Document(Path()))
    problems = document.problems
    for name, value in flags.items():
        if value is not None:
            values[name] = value
            lines.pop(name, None)
    for name, value in values.items():
        if problem := problem_with(name, value):
            problems.append((lines.get(name, 0), problem))
    if nodes := values.get("nodes"):
        for name, role in zip(("control_planes", "workers"), checks.ROLES, strict=True):
            if name in values:
                key = SETTINGS[name].key
                problems.append(
                    (lines.get(name, 0), f"{key} and nodes both give a number of nodes")
                )
            values[name] = [node.role for node in nodes].count(role)
            if problem := problem_with(name, values[name]):
                problems.append((lines.get("nodes", 0), problem))
    _refuse(file, problems)
    spec = ClusterSpec(**{**(defaults or {}), **values})
    _refuse(file, [(lines.get(name, 0), problem) for name, problem in spec.conflicts()])
    for text, line in document.warnings.items():
        warn(f"{file}:{line}: {text}")
    return spec


def _refuse(file: Path | None, problems: list[tuple[int, str]]) -> None:
    if not problems:
        return
    where = f"{file}:" if file else ""
    shown = [f"{where}{line}: {text}" if line else text for line, text in sorted(problems)]
    if len(shown) == 1:
        raise UsageError(shown[0], resolution="Correct it and run the command again.")
    raise UsageError(
        f"{len(shown)} errors in what was asked for",
        details="\n".join(shown),
        resolution="Correct them and run the command again.",
    )


def _read_file(host: Host, file: Path) -> tuple[dict[str, Any], dict[str, int], Document]:
    """Values and line numbers by field name, and what was found in the file."""
    try:
        root = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise UsageError(
            f"cannot read {file}: {error.strerror}",
            resolution="Give a file that root can read with --config.",
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{file} is no valid YAML",
            details=redaction.text(str(error)),
            resolution="Correct it and run the command again.",
        ) from error
    if not isinstance(root, yaml.MappingNode):
        raise UsageError(
            f"{file} must hold a mapping such as `workers: 2`",
            resolution="Correct it and run the command again.",
        )
    document = Document(file)
    if kind_config.recognizes(root):
        root = kind_config.translate(host, root, document)
    values, lines = settings.read(ClusterSpec, root, document, _FIXED)
    return values, lines, document
