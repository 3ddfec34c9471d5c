"""Users' patches of what sykube writes for kubeadm and containerd.

A merge is that of RFC 7386: mappings are merged, all else is replaced, null removes. It is what a
strategic merge comes to for kinds without merge keys, as kubeadm's, the kubelet's and kube-proxy's
are (no patchMergeKey in their types). Further operations are those of RFC 6902.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

# What is merged otherwise, by its key: what is there and the patch → what there is to be.
Special = dict[str, Callable[[Any, Any], Any]]


class PatchError(ValueError):
    """A patch cannot be read or applied.

    Args:
        line: of the patch's text, from 1 on; 0 where none is to blame.
    """

    def __init__(self, text: str, line: int = 0) -> None:
        super().__init__(text)
        self.line = line


@dataclass(frozen=True)
class Patch:
    """A patch as a user wrote it.

    Attributes:
        text: in YAML, JSON or TOML.
        place: FILE:LINE; empty where that is not known any more.
    """

    text: str
    place: str = field(default="", compare=False)

    @classmethod
    def parse(cls, text: str) -> Patch:
        return cls(text)

    def __str__(self) -> str:
        return self.text


def merge(target: Any, patch: Any, special: Special | None = None) -> Any:
    """What RFC 7386 makes of a target."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif special and key in special:
            merged[key] = special[key](merged.get(key), value)
        else:
            merged[key] = merge(merged.get(key), value, special)
    return merged


def operate(target: Any, operations: list[Any]) -> Any:
    """What RFC 6902's operations make of a target.

    Raises:
        PatchError: one of them is none, or cannot be applied.
    """
    import jsonpatch

    for operation in operations:
        # Not its own words: they may repeat all of the document, with a token in it.
        try:
            target = jsonpatch.apply_patch(target, [operation])
        except jsonpatch.JsonPatchTestFailed:
            raise PatchError(f"test {operation['path']}: the document has another value") from None
        # TypeError: a place below what is neither mapping nor list.
        except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, TypeError):
            place = operation.get("from") or operation["path"]
            raise PatchError(f"{operation['op']}: the document has no {place}") from None
    return target


def mappings(text: str) -> list[dict[str, Any]]:
    """The YAML documents of a text, empty ones left out.

    Raises:
        PatchError: it is no YAML, or one of them is no mapping.
    """
    found = [document for document in _load_all(text) if document is not None]
    if not found or not all(isinstance(document, dict) for document in found):
        raise PatchError("the patch must be a mapping, such as `maxPods: 200`")
    return found


def operations(text: str) -> list[Any]:
    """The operations of a JSON patch, which may be written in YAML.

    Raises:
        PatchError: it is no YAML, or no list of operations.
    """
    import jsonpatch

    found = _load_all(text)
    if len(found) != 1 or not isinstance(found[0], list):
        raise PatchError("the JSON patch must be a list of operations (RFC 6902)")
    try:
        jsonpatch.JsonPatch(found[0])
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, TypeError) as error:
        raise PatchError(f"the JSON patch is none (RFC 6902): {_in_a_line(error)}") from error
    return found[0]


def toml(text: str) -> dict[str, Any]:
    """What a text in TOML holds.

    Raises:
        PatchError: it is no TOML.
    """
    import re
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"at line (\d+)", str(error))
        last = len(text.splitlines())
        raise PatchError(
            f"the patch is no valid TOML: {error}", int(at[1]) if at else last
        ) from error


def _load_all(text: str) -> list[Any]:
    # Not above: most commands read no patch.
    import yaml

    from sykube import documents

    try:
        return documents.load_all(text)
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        why = getattr(error, "problem", None) or error
        line = min(mark.line + 1, len(text.splitlines())) if mark else 0
        raise PatchError(f"the patch is no valid YAML: {_in_a_line(why)}", line) from error


def _in_a_line(error: object) -> str:
    return " ".join(str(error).split())
