"""Admission webhooks that let nothing through: those whose own pods do not answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sykube.kubernetes.api import Api, ApiError

_REGISTERED = "/apis/admissionregistration.k8s.io/v1"
_KINDS = ("validatingwebhookconfigurations", "mutatingwebhookconfigurations")
# In k8s.io/apiserver, pkg/admission/plugin/webhook/errors.
_CALL_FAILED = re.compile(r'failed calling webhook "([^"]+)"')


@dataclass(frozen=True)
class Webhook:
    """A webhook that refuses whatever it is asked about, since nobody answers for it.

    Attributes:
        kind: of its configuration, as kubectl takes it.
        configuration: the name of the object that has it.
        reason: what the API server says of the last call.
    """

    name: str
    kind: str
    configuration: str
    reason: str

    def __str__(self) -> str:
        return f"the webhook {self.name} of the {self.kind} {self.configuration} refuses everything"


def fix(found: Sequence[Webhook], name_option: str) -> str:
    """The commands that let a cluster come up in spite of them.

    Args:
        name_option: as Cluster.name_option.
    """
    configurations = dict.fromkeys(f"{each.kind} {each.configuration}" for each in found)
    commands = " && ".join(f"sykube kubectl{name_option} delete {each}" for each in configurations)
    return f"{commands}; make it again once its pods run, or with failurePolicy Ignore"


def refusing(api: Api) -> list[Webhook]:
    """The webhooks that refuse what a cluster needs to come up.

    Kubelets' and controllers' own requests are made as trials, which change nothing: webhooks of
    admissionregistration.k8s.io/v1 all take these.

    Raises:
        ApiError: the API server does not answer.
    """
    found: dict[str, Webhook] = {}
    registered = _registered(api)
    if not registered:
        return []
    for path in _trials(api):
        try:
            api.request(
                "PATCH",
                path,
                {"metadata": {"annotations": {"sykube.local/trial": "true"}}},
                content_type="application/merge-patch+json",
                params={"dryRun": "All"},
            )
        except ApiError as error:
            if not error.status:
                raise
            for name in _CALL_FAILED.findall(error.brief):
                if name in registered:
                    found.setdefault(name, Webhook(name, *registered[name], error.brief))
    return list(found.values())


def _registered(api: Api) -> dict[str, tuple[str, str]]:
    """The kind and name of its configuration, by each webhook's own name."""
    return {
        hook["name"]: (kind.removesuffix("s"), each["metadata"]["name"])
        for kind in _KINDS
        for each in api.get(f"{_REGISTERED}/{kind}")["items"]
        for hook in each.get("webhooks") or ()
    }


def _trials(api: Api) -> list[str]:
    """One of each kind of what kubelets and controllers write all the time."""
    leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
    pods = "/api/v1/namespaces/kube-system/pods"
    node = next(iter(api.get("/api/v1/nodes")["items"]), None)
    pod = next(iter(api.get(pods)["items"]), None)
    found = []
    if node is not None:
        name = node["metadata"]["name"]
        found += [f"{leases}/{name}", f"/api/v1/nodes/{name}/status"]
    if pod is not None:
        found.append(f"{pods}/{pod['metadata']['name']}/status")
    return found
