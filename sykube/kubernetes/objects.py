"""Objects of Kubernetes as manifests have them, and their paths in the API."""

from __future__ import annotations

from typing import Any

_CLUSTER_SCOPED = frozenset(
    [
        "Namespace",
        "Node",
        "ClusterRole",
        "ClusterRoleBinding",
        "PersistentVolume",
        "StorageClass",
        "PriorityClass",
        "APIService",
        "IngressClass",
        "CustomResourceDefinition",
        "CSIDriver",
    ]
)


def _plural(kind: str) -> str:
    """The name of a kind's collection, as apimachinery's UnsafeGuessKindToResource forms it."""
    name = kind.lower()
    if name == "endpoints":
        return name
    if name.endswith("s"):
        return f"{name}es"
    return f"{name[:-1]}ies" if name.endswith("y") else f"{name}s"


def collection_path(manifest: dict[str, Any]) -> str:
    """The path of the collection that an object belongs to."""
    version, kind = manifest["apiVersion"], manifest["kind"]
    plural = _plural(kind)
    prefix = f"/apis/{version}" if "/" in version else f"/api/{version}"
    if kind in _CLUSTER_SCOPED:
        return f"{prefix}/{plural}"
    return f"{prefix}/namespaces/{manifest['metadata'].get('namespace', 'default')}/{plural}"


def path_of(manifest: dict[str, Any]) -> str:
    """The path of an object itself."""
    return f"{collection_path(manifest)}/{manifest['metadata']['name']}"


def read(text: str) -> list[dict[str, Any]]:
    """The objects of a YAML stream."""
    # Not above: most commands read no YAML.
    from sykube import documents

    return [document for document in documents.load_all(text) if document]
