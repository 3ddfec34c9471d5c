"""Dataclasses as JSON and back, by their annotations.

cattrs and msgspec do more of it, and take longer to import than `sykube status` takes for the rest.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from ipaddress import IPv4Network
from typing import Any


@functools.cache
def key(field: dataclasses.Field[Any]) -> str:
    """What a field is called in JSON, and in a configuration file: its name as Kubernetes would."""
    head, *rest = field.name.split("_")
    return str(field.metadata.get("key") or head + "".join(word.capitalize() for word in rest))


def dump(value: Any) -> Any:
    """A value as JSON has it; what has a method `parse` is a text."""
    if isinstance(value, IPv4Network) or hasattr(value, "parse"):
        return str(value)
    if dataclasses.is_dataclass(value):
        return {key(each): dump(getattr(value, each.name)) for each in dataclasses.fields(value)}
    return [*map(dump, value)] if isinstance(value, list | tuple) else value


def load(kind: Any, value: Any) -> Any:
    """What `dump` gave. Keys of a later version are left out; others may be missing with a default.

    Raises:
        TypeError, ValueError: it is not of that kind.
    """
    arguments = typing.get_args(kind)
    if isinstance(kind, types.UnionType):
        return load(arguments[0], value) if value else None
    if typing.get_origin(kind) in (list, tuple):
        return typing.get_origin(kind)(load(arguments[0], item) for item in value)
    if kind is IPv4Network:
        return IPv4Network(value)
    if hasattr(kind, "parse"):
        return kind.parse(value)
    if not isinstance(kind, type) or not dataclasses.is_dataclass(kind):
        return value
    found = {}
    for each in dataclasses.fields(kind):
        # Records of updates had names as Python writes them.
        for name in {key(each), each.name} & {*value}:
            found[each.name] = load(_hints(kind)[each.name], value[name])
    return kind(**found)


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)
