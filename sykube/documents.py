"""YAML as Kubernetes' own programs read it, by libyaml where PyYAML has it.

They read neither YAML 1.1, as PyYAML does, nor 1.2, as ruamel.yaml: the rules are those of
go.yaml.in/yaml/v2, resolve.go. What they take for text is text here, as it was written; what is
written here is the same for readers of 1.1, of 1.2, and for them. libyaml is ten times as fast as
Python, and each `status` reads a kubeconfig.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml

_TAG = "tag:yaml.org,2002:"
_TRUE = ("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON")
_FALSE = ("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF")
# Of an integer: base by prefix, a leading 0 is octal (ParseInt of Go with base 0).
_INTEGER = (
    r"[-+]?(?:0[xX]_*[0-9a-fA-F][0-9a-fA-F_]*|0[bB]_*[01][01_]*"
    r"|0(?:[oO]_*[0-7])?[0-7_]*|[1-9][0-9_]*)"
)
_FLOAT = (
    r"[-+]?(?:\.[0-9_]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
# What some reader of YAML may take for anything but text is quoted, be it a number (433e40, 0o17),
# a time (1:30, 2001-01-01) or YAML 1.1's "=".
_DOUBTFUL = r"[-+.0-9].*|="


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's way to replace them


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012


def _bool(loader: Any, node: yaml.ScalarNode) -> bool:
    return loader.construct_scalar(node) in _TRUE


def _integer(loader: Any, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node)).replace("_", "")
    digits = text.lstrip("-+")
    octal = len(digits) > 1 and digits.isdigit() and digits.startswith("0")
    return int(text, 8 if octal else 0)


def _float(loader: Any, node: yaml.ScalarNode) -> float:
    text = str(loader.construct_scalar(node)).replace("_", "")
    return float(text.replace(".", "", 1) if text[-1] in "fFnN" else text)


def _text(loader: Any, node: yaml.ScalarNode) -> str:
    return str(loader.construct_scalar(node))


def _extend(target: Any, tag: str, pattern: str, first: list[str]) -> None:
    """Take plain scalars of that pattern for the tag; earlier patterns go before."""
    target.add_implicit_resolver(_TAG + tag, re.compile(f"^(?:{pattern})$", re.DOTALL), first)


for _each in (_Loader, _Dumper):
    _extend(_each, "bool", "|".join(_TRUE + _FALSE), [*"yYnNtTfFoO"])
    _extend(_each, "int", _INTEGER, [*"-+0123456789"])
    _extend(_each, "float", _FLOAT, [*"-+.0123456789"])
    _extend(_each, "null", "~|null|Null|NULL|", [*"~nN", ""])
    _extend(_each, "merge", "<<", ["<"])
_extend(_Dumper, "value", _DOUBTFUL, [*"-+.0123456789="])
for _tag, _construct in (("bool", _bool), ("int", _integer), ("float", _float), ("merge", _text)):
    _Loader.add_constructor(_TAG + _tag, _construct)


def load(text: str) -> Any:
    """What a text of one document holds.

    Raises:
        yaml.YAMLError: it is no valid YAML.
    """
    return yaml.load(text, _Loader)


def load_all(text: str) -> list[Any]:
    """What each document of a text holds that is not empty.

    Raises:
        yaml.YAMLError: it is no valid YAML.
    """
    return [each for each in yaml.load_all(text, _Loader) if each is not None]


def dump(value: Any) -> str:
    """A document, its keys in the order that they have."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False))


def dump_all(values: Iterable[Any], *, width: int | None = None) -> str:
    """A document for each value.

    Args:
        width: after which long lines are folded; None for PyYAML's own, 80.
    """
    return str(yaml.dump_all(values, Dumper=_Dumper, sort_keys=False, width=width))
