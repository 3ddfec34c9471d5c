"""The Kubernetes objects of a Slurm cluster."""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Iterable, Sequence
from typing import Any

from sykube import documents, resources
from sykube.slurm.spec import SlurmSpec

# Bytes; slurm.conf(5), AuthType, and munged(8): 32 at least, and for the latter 1024 at most.
_KEY_BYTES = 1024
_NODE = re.compile(r"c([1-9][0-9]*)")


def new_key() -> str:
    """A new key of a Slurm cluster, in base64."""
    return base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()


def node_name(number: int) -> str:
    """The name of a node's StatefulSet."""
    return f"c{number}"


def pod_names(numbers: Iterable[int]) -> list[str]:
    """What Slurm calls nodes: the names of their pods."""
    return [f"{node_name(number)}-0" for number in numbers]


def node_number(name: str) -> int:
    """The number of a node by its StatefulSet's name, or by its pod's; 0 where it is none."""
    match = _NODE.fullmatch(name.removesuffix("-0"))
    return int(match[1]) if match else 0


def text(spec: SlurmSpec, key: str, *, owned: bool = False) -> str:
    """All but the nodes, as YAML.

    Args:
        key: of its authentication, in base64.
        owned: whether the namespace is made for it.
    """
    found = resources.render(
        "manifests", "slurm.yaml.j2", spec=spec, key=key, owned=owned, record=spec.to_json()
    )
    if spec.accounting:
        found += f"---\n{_accounting_text(spec)}"
    return found


def _accounting_text(spec: SlurmSpec) -> str:
    return resources.render("manifests", "slurm-accounting.yaml.j2", spec=spec)


def _rest_text(spec: SlurmSpec, key: str) -> str:
    return resources.render("manifests", "slurm-rest.yaml.j2", spec=spec, key=key)


def node_text(spec: SlurmSpec, number: int) -> str:
    """A node, as YAML."""
    return resources.render("manifests", "slurm-node.yaml.j2", spec=spec, name=node_name(number))


def whole_text(spec: SlurmSpec, key: str) -> str:
    """All of a Slurm cluster, as YAML for `kubectl apply`."""
    nodes = (node_text(spec, number) for number in range(1, spec.largest + 1))
    rest = [_rest_text(spec, new_key())] if spec.rest else []
    return "---\n".join([text(spec, key), *rest, *nodes])


def probe_object(spec: SlurmSpec, name: str, words: Sequence[str]) -> dict[str, Any]:
    """A pod of another namespace, which ends with what slurm-role, of these words, finds."""
    rendered = resources.render(
        "manifests", "slurm-probe.yaml.j2", spec=spec, name=name, words=[*words]
    )
    (found,) = documents.load_all(rendered)
    return dict(found)


def objects(spec: SlurmSpec, key: str, *, owned: bool) -> list[dict[str, Any]]:
    """As `text`, in the order in which they are created."""
    return documents.load_all(text(spec, key, owned=owned))


def accounting_objects(spec: SlurmSpec) -> list[dict[str, Any]]:
    """Those of them by which it has accounting."""
    return documents.load_all(_accounting_text(spec))


def rest_objects(spec: SlurmSpec, key: str) -> list[dict[str, Any]]:
    """Those of its REST API.

    Args:
        key: of its tokens, in base64.
    """
    return documents.load_all(_rest_text(spec, key))


def node_objects(spec: SlurmSpec, number: int) -> list[dict[str, Any]]:
    """As `node_text`."""
    return documents.load_all(node_text(spec, number))
