"""Users' patches of the documents that kubeadm reads.

A patch is for the documents of its kind and, where it names one, of its version of their API, as
kind's are: https://kind.sigs.k8s.io/docs/user/configuration/#kubeadm-config-patches
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sykube import patches, settings
from sykube.errors import UsageError
from sykube.patches import Patch, PatchError
from sykube.settings import setting

KUBELET = "KubeletConfiguration"
KINDS = (
    *("InitConfiguration", "ClusterConfiguration", "JoinConfiguration", KUBELET),
    "KubeProxyConfiguration",
)
# Lists of name and value from v1beta4 on, mappings before; a patch may be written either way, and
# is merged by the names.
_ARGUMENTS = ("extraArgs", "kubeletExtraArgs")
_WITH_MAPPINGS = ("kubeadm.k8s.io/v1beta2", "kubeadm.k8s.io/v1beta3")
# Kind, group and version; empty for any.
_Target = tuple[str, str, str]


def _check_kind(kind: Any) -> str:
    if kind in KINDS:
        return ""
    found = f"its kind is {kind!r}" if kind else "it has no kind"
    return f"the patch is for nothing: {found}, and can be {', '.join(KINDS)}"


@dataclass(frozen=True)
class JsonPatch:
    """Operations of RFC 6902, and the documents that they are for."""

    kind: str = setting("", "Of the documents that it is for.", check=_check_kind)
    group: str = setting("", "Group of their API; any where it is left out.")
    version: str = setting("", "Version of their API; any where it is left out.")
    patch: Patch = setting(
        Patch(""),
        "A list of operations, in JSON or YAML.",
        type=settings.patch(patches.operations),
        check=lambda patch: "" if patch.text else "the patch is missing",
    )


class KubeadmPatches(NamedTuple):
    """Those of a cluster, or of one of its nodes: merges come before operations."""

    merges: tuple[Patch, ...] = ()
    operations: tuple[JsonPatch, ...] = ()

    @property
    def _all(self) -> tuple[Patch | JsonPatch, ...]:
        return (*self.merges, *self.operations)

    def apply(self, document: dict[str, Any]) -> dict[str, Any]:
        """A document with all patches that are for it.

        Raises:
            UsageError: one cannot be applied; says where it was written.
        """
        for each in self._all:
            try:
                document = _apply(each, document)
            except PatchError as error:
                raise UsageError(
                    f"{_where(each)}{error}",
                    resolution=f"Correct the patch of {document['kind']}; the document is as "
                    "kubeadm's documentation shows it.",
                ) from error
        return document

    def fields(self, kind: str) -> dict[str, str]:
        """Fields at the top of a kind's documents that patches change, and the patches' places."""
        found: dict[str, str] = {}
        for each in self.merges:
            for document in patches.mappings(each.text):
                if document["kind"] == kind:
                    found |= dict.fromkeys(document, _where(each))
        for patch in self.operations:
            if patch.kind == kind:
                paths = [f"{each['path']}/" for each in patches.operations(patch.patch.text)]
                found |= dict.fromkeys((path.split("/")[1] for path in paths), _where(patch))
        return found

    def unused(self, documents: Sequence[Mapping[str, Any]]) -> list[str]:
        """What to warn of: patches that are for none of some documents."""
        return [
            f"{_where(each)}the patch is not applied: it is for {_shown(target)}"
            for each in self._all
            for target in _targets(each)
            if not any(_fits(target, document) for document in documents)
        ]


def check_merge(text: str) -> None:
    """Check what is to be merged into documents.

    Raises:
        PatchError: it is no YAML, or names no kind that kubeadm reads.
    """
    for document in patches.mappings(text):
        if problem := _check_kind(document.get("kind")):
            raise PatchError(problem)
        patches.merge({}, document, _special(listed=True))


def check_kubelet(text: str) -> None:
    """Check what is to be merged into the kubelets' configuration; its kind may be left out.

    Raises:
        PatchError: it is no YAML, or of another kind.
    """
    for document in patches.mappings(text):
        if document.get("kind", KUBELET) != KUBELET:
            raise PatchError(f"the kind is {document['kind']!r}, and can only be {KUBELET!r} here")


def of_kubelet(patch: Patch) -> Patch:
    """A kubelets' patch as one that names its kind."""
    from sykube import documents

    named = [{"kind": KUBELET, **each} for each in patches.mappings(patch.text)]
    return Patch(documents.dump_all(named), patch.place)


def registration(join: Mapping[str, Any]) -> tuple[dict[str, str], list[dict[str, str]]]:
    """The labels and taints that a JoinConfiguration registers its node with."""
    registered = join.get("nodeRegistration") or {}
    arguments = dict(_pairs(registered.get("kubeletExtraArgs")))
    pairs = (part.partition("=") for part in arguments.get("node-labels", "").split(",") if part)
    return {name: value for name, _, value in pairs}, list(registered.get("taints") or [])


def _where(patch: Patch | JsonPatch) -> str:
    place = patch.place if isinstance(patch, Patch) else patch.patch.place
    return f"{place}: " if place else ""


def _apply(patch: Patch | JsonPatch, document: dict[str, Any]) -> dict[str, Any]:
    if isinstance(patch, JsonPatch):
        if not _fits(_target(patch), document):
            return document
        patched = patches.operate(document, patches.operations(patch.patch.text))
        if not isinstance(patched, dict) or _target(patched) != _target(document):
            raise PatchError("kind and apiVersion cannot be patched")
        return patched
    for part in patches.mappings(patch.text):
        if _fits(_target(part), document):
            listed = document["apiVersion"] not in _WITH_MAPPINGS
            document = patches.merge(document, part, _special(listed=listed))
    return document


def _targets(patch: Patch | JsonPatch) -> list[_Target]:
    if isinstance(patch, JsonPatch):
        return [_target(patch)]
    return [_target(part) for part in patches.mappings(patch.text)]


def _target(found: JsonPatch | Mapping[str, Any]) -> _Target:
    """What a patch is for, or what a document is."""
    if isinstance(found, JsonPatch):
        return found.kind, found.group, found.version
    group, _, version = str(found.get("apiVersion", "")).partition("/")
    return str(found.get("kind", "")), group, version


def _fits(target: _Target, document: Mapping[str, Any]) -> bool:
    return all(
        not asked or asked == has for asked, has in zip(target, _target(document), strict=True)
    )


def _shown(target: _Target) -> str:
    kind, *api = target
    return " of ".join(filter(None, (kind, "/".join(filter(None, api)))))


def _special(*, listed: bool) -> patches.Special:
    def merged(target: Any, patch: Any) -> Any:
        asked = _pairs(patch)
        names = {name for name, _ in asked}
        found = [pair for pair in _pairs(target) if pair[0] not in names]
        found += [(name, value) for name, value in asked if value is not None]
        if listed:
            return [{"name": name, "value": value} for name, value in found]
        return dict(found)

    return dict.fromkeys(_ARGUMENTS, merged)


def _pairs(arguments: Any) -> list[tuple[str, Any]]:
    """Names and values of arguments, whichever way they are written."""
    found = arguments or []
    if isinstance(found, dict):
        found = [{"name": name, "value": value} for name, value in found.items()]
    for each in found if isinstance(found, list) else [None]:
        if not isinstance(each, dict) or set(each) != {"name", "value"}:
            raise PatchError("arguments must be a mapping, or a list of name and value")
        if not isinstance(each["value"], str | None):
            raise PatchError(f"the argument {each['name']!r} must be a text: quote its value")
    return [(each["name"], each["value"]) for each in found]
