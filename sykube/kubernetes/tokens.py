"""Bootstrap tokens: what a node shows to be let into the cluster."""

from __future__ import annotations

import contextlib
import secrets
import string
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from sykube.kubernetes.api import Api, ApiError

# For nodes that join at once; it is deleted when they have.
TTL = timedelta(minutes=15)
_SECRETS = "/api/v1/namespaces/kube-system/secrets"


def new_token() -> str:
    """Six characters that name it, a dot, sixteen that are secret."""
    alphabet = string.ascii_lowercase + string.digits
    word = "".join(secrets.choice(alphabet) for _ in range(22))
    return f"{word[:6]}.{word[6:]}"


@contextlib.contextmanager
def bootstrap_token(api: Api) -> Iterator[str]:
    """A token for kubeadm join that exists in the cluster as long as it is needed.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/
    """
    token = new_token()
    name, secret = token.split(".")
    manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": f"bootstrap-token-{name}", "namespace": "kube-system"},
        "type": "bootstrap.kubernetes.io/token",
        "stringData": {
            "token-id": name,
            "token-secret": secret,
            "expiration": (datetime.now(UTC) + TTL).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "usage-bootstrap-authentication": "true",
            "usage-bootstrap-signing": "true",
            "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
        },
    }
    api.request("POST", _SECRETS, manifest)
    try:
        yield token
    finally:
        # An API server that is gone takes the token along; it expires anyway.
        with contextlib.suppress(ApiError):
            api.delete(f"{_SECRETS}/bootstrap-token-{name}")
