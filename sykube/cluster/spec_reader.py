"""A cluster as it is asked for: a configuration file, and flags, which win."""

from __future__ import annotations

import difflib
import shlex
from pathlib import Path
from typing import Any

import yaml

from sykube import redaction
from sykube.cluster.spec import KEYS, ClusterSpec, problem_with
from sykube.errors import UsageError
from sykube.host import proxies

_API_VERSION = "sykube/v1alpha1"
_KIND = "Cluster"
# YAML would take 1.30 for the number 1.3.
_AS_WRITTEN = frozenset({"kubernetesVersion"})
_QUANTITIES = frozenset({"cpus", "memory"})


def make_spec(
    file: Path | None, flags: dict[str, Any], defaults: dict[str, Any] | None = None
) -> ClusterSpec:
    """Combine a configuration file with flags; flags win.

    Args:
        flags: fields of ClusterSpec; those that are None were not given.
        defaults: fields for what neither gives, instead of ClusterSpec's own.

    Raises:
        UsageError: with every error of the file (by line number) and of the flags.
    """
    values, lines, problems = _read_file(file) if file else ({}, {}, [])
    for name, value in flags.items():
        if value is not None:
            values[name] = value
            lines.pop(name, None)
    for name, value in values.items():
        if problem := problem_with(name, value):
            problems.append((lines.get(name, 0), problem))
    if problems:
        where = f"{file}:" if file else ""
        shown = [f"{where}{line}: {text}" if line else text for line, text in sorted(problems)]
        if len(shown) == 1:
            raise UsageError(shown[0], resolution="Correct it and run the command again.")
        raise UsageError(
            f"{len(shown)} errors in what was asked for",
            details="\n".join(shown),
            resolution="Correct them and run the command again.",
        )
    return ClusterSpec(**{**(defaults or {}), **values})


def _read_file(file: Path) -> tuple[dict[str, Any], dict[str, int], list[tuple[int, str]]]:
    """Values and line numbers by field name, and the errors found so far."""
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
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    problems: list[tuple[int, str]] = []
    fixed = {"apiVersion": _API_VERSION, "kind": _KIND}
    seen: set[str] = set()
    for key_node, value_node in root.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        try:
            if key in _AS_WRITTEN and isinstance(value_node, yaml.ScalarNode):
                value = value_node.value
            else:
                value = yaml.safe_load(yaml.serialize(value_node))
        except (yaml.YAMLError, ValueError) as error:
            text = " ".join(str(error).split())
            problems.append((line, f"the value of {key!r} cannot be read: {text}"))
            continue
        if key in seen:
            problems.append((line, f"the key {key!r} stands here for the second time"))
        elif key in fixed:
            if value != fixed[key]:
                problems.append((line, f"{key} must be {fixed[key]!r}, not {value!r}"))
        elif key not in KEYS:
            near = difflib.get_close_matches(key, [*KEYS, *fixed], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            problems.append((line, f"unknown key {key!r}{hint}"))
        else:
            converted, problem = _convert(KEYS[key], key, value)
            if problem:
                problems.append((line, problem))
            else:
                values[KEYS[key]], lines[KEYS[key]] = converted, line
        seen.add(key)
    return values, lines, problems


def split_options(text: str) -> tuple[tuple[str, ...] | None, str]:
    """The words of --options as a shell splits them, or what is wrong with it."""
    try:
        return tuple(shlex.split(text)), ""
    except ValueError as error:
        return None, f"options {text!r} cannot be split into words: {error}"


def _convert(name: str, key: str, value: Any) -> tuple[Any, str]:
    """The value in the field's own type, or what is wrong with it."""
    default = getattr(ClusterSpec(), name)
    if isinstance(default, bool):
        return value, "" if isinstance(value, bool) else f"{key} must be true or false"
    if isinstance(default, int):
        ok = isinstance(value, int) and not isinstance(value, bool)
        return value, "" if ok else f"{key} must be a whole number"
    if isinstance(default, tuple):
        if name == "options" and isinstance(value, str):
            return split_options(value)
        if name == "no_proxy" and isinstance(value, str):
            return proxies.split_exceptions(value), ""
        ok = isinstance(value, list) and all(isinstance(item, str) for item in value)
        return (tuple(value), "") if ok else (None, f"{key} must be a list of texts")
    if name in _QUANTITIES:
        # YAML takes 2 and 1.5 for numbers, and Kubernetes takes both for quantities.
        ok = isinstance(value, str | int | float) and not isinstance(value, bool)
        return (str(value), "") if ok else (None, f"{key} must be a number or a text")
    return value, "" if isinstance(value, str) else f"{key} must be a text"
