"""Checks what is written for kubeadm, the kubelet and kube-proxy against their published types.

The files in schemas/ say where each type was read. Like those programs, this refuses a field that
is not known (strict decoding) or that is of another type.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sykube import documents

_SCHEMAS = Path(__file__).parent / "schemas"
# time.ParseDuration of Go.
_DURATION = re.compile(r"([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+")
_TYPES: dict[str, type | tuple[type, ...]] = {
    "text": str,
    "bool": bool,
    "int": int,
    "number": (int, float),
}
Structs = dict[str, dict[str, str]]


def problems(document: dict[str, Any], kubernetes: str, kubeadm_api: str) -> list[str]:
    """What a Kubernetes would not take of a document, a line each.

    Args:
        kubernetes: its minor version, such as 1.36.
        kubeadm_api: the version of kubeadm's API that it is to be written in.
    """
    kind = document.get("kind", "")
    found = next(
        (each for each in _structs(kubernetes, kubeadm_api) if kind in each[1]),
        None,
    )
    if found is None:
        return [f"unknown kind {kind!r}"]
    api, structs = found
    if document.get("apiVersion") != api:
        return [f"{kind}: apiVersion {document.get('apiVersion')!r} is not {api!r}"]
    rest = {key: value for key, value in document.items() if key not in ("apiVersion", "kind")}
    return list(_check(kind, rest, kind, structs))


def _structs(kubernetes: str, kubeadm_api: str) -> Iterator[tuple[str, Structs]]:
    for name in ("kubelet", "kube-proxy"):
        schema = _schema(name)
        versioned = {schema["kind"]: schema["fields"], **schema.get("structs", {})}
        yield (
            schema["apiVersion"],
            {struct: _as_of(changes, kubernetes) for struct, changes in versioned.items()},
        )
    schema = _schema(f"kubeadm-{kubeadm_api}")
    yield schema["apiVersion"], schema["structs"]


@functools.cache
def _schema(name: str) -> dict[str, Any]:
    """To be read alone: every test has the same one."""
    return documents.load((_SCHEMAS / f"{name}.yaml").read_text())  # type: ignore[no-any-return]


def _as_of(changes: dict[str, dict[str, str]], kubernetes: str) -> dict[str, str]:
    """The fields that a version has: its own changes, and those of the versions before it."""
    assert kubernetes in changes, f"no schema was read for {kubernetes}"
    fields: dict[str, str] = {}
    for version, changed in changes.items():
        fields |= changed
        if version == kubernetes:
            break
    return {name: kind for name, kind in fields.items() if kind != "gone"}


def _check(where: str, value: Any, kind: str, structs: Structs) -> Iterator[str]:
    if kind.startswith("["):
        if not isinstance(value, list):
            yield f"{where}: {value!r} is no list"
            return
        for number, item in enumerate(value):
            yield from _check(f"{where}[{number}]", item, kind[1:-1], structs)
    elif kind.startswith("{"):
        if not isinstance(value, dict):
            yield f"{where}: {value!r} is no mapping"
            return
        for key, item in value.items():
            yield from _check(f"{where}.{key}", item, kind[1:-1], structs)
    elif kind == "object":
        yield f"{where}: its fields are not described: describe them in tests/unit/schemas"
    elif kind == "duration":
        if not isinstance(value, str) or not _DURATION.fullmatch(value):
            yield f"{where}: {value!r} is no duration"
    elif kind in _TYPES:
        # To Python a truth value is a number, too.
        if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "bool"):
            yield f"{where}: {value!r} is no {kind}"
    else:
        yield from _check_struct(where, value, structs[kind], structs)


def _check_struct(
    where: str, value: Any, fields: dict[str, str], structs: Structs
) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where}: {value!r} is no mapping"
        return
    for name, kind in fields.items():
        if kind.endswith("!") and name not in value:
            yield f"{where}.{name}: missing"
    for name, item in value.items():
        if name not in fields:
            yield f"{where}.{name}: unknown"
        else:
            yield from _check(f"{where}.{name}", item, fields[name].rstrip("!"), structs)
