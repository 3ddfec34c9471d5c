"""YAML, by libyaml where PyYAML has it: ten times as fast as its own Python."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def load(text: str) -> Any:
    """What a text of one document holds.

    Raises:
        yaml.YAMLError: it is no valid YAML.
    """
    return yaml.load(text, _Loader)


def load_all(text: str) -> list[Any]:
    """What each document of a text holds.

    Raises:
        yaml.YAMLError: it is no valid YAML.
    """
    return list(yaml.load_all(text, _Loader))


def dump(value: Any) -> str:
    """A document, its keys in the order that they have."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False))


def dump_all(values: Iterable[Any], *, width: int | None = None) -> str:
    """A document for each value.

    Args:
        width: after which long lines are folded; None for PyYAML's own, 80.
    """
    return str(yaml.dump_all(values, Dumper=_Dumper, sort_keys=False, width=width))
