"""Kubeconfigs."""

from __future__ import annotations

import functools
from typing import Any

from sykube import documents

OTHER_KUBECONFIG: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Config",
    "preferences": {},
    "clusters": [{"name": "work", "cluster": {"server": "https://work.example:6443"}}],
    "users": [{"name": "me", "user": {"token": "secret"}}],
    "contexts": [{"name": "work", "context": {"cluster": "work", "user": "me"}}],
    "current-context": "work",
}


@functools.cache
def admin_kubeconfig(server: str) -> str:
    """The admin kubeconfig that kubeadm init writes."""
    return documents.dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "c", "cluster": {"server": server, "certificate-authority-data": "Q0E="}}
            ],
            "users": [
                {
                    "name": "admin",
                    "user": {"client-certificate-data": "Q0VSVA==", "client-key-data": "S0VZ"},
                }
            ],
            "contexts": [{"name": "admin@c", "context": {"cluster": "c", "user": "admin"}}],
            "current-context": "admin@c",
        }
    )
