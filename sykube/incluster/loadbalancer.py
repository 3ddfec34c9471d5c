"""`python3 -m incluster.loadbalancer`: gives each LoadBalancer Service its cluster address.

The host has a route to the range of Services, so that it is an address for the host, too.
"""

from __future__ import annotations

import http.client
import logging

from .api import Api, ApiError, Json
from .reconcile import Objects, serve

log = logging.getLogger("incluster.loadbalancer")

_MERGE = "application/merge-patch+json"


def wanted(service: Json) -> list[Json] | None:
    """What status.loadBalancer.ingress shall be; None where it is well, or not ours."""
    spec = service["spec"]
    address = spec.get("clusterIP", "")
    balanced = spec["type"] == "LoadBalancer" and not spec.get("loadBalancerClass")
    ingress = [{"ip": address}] if balanced and address not in ("", "None") else []
    now = service.get("status", {}).get("loadBalancer", {}).get("ingress", [])
    ours = [each.get("ip") for each in now] in ([], [address])
    return ingress if ours and now != ingress else None


def reconcile(api: Api, objects: Objects) -> None:
    """Give and take addresses; what fails is tried again at the next call."""
    for service in objects.all("services"):
        ingress = wanted(service)
        if ingress is None:
            continue
        metadata = service["metadata"]
        place = f"/api/v1/namespaces/{metadata['namespace']}/services/{metadata['name']}/status"
        try:
            api.send("PATCH", place, {"status": {"loadBalancer": {"ingress": ingress}}}, _MERGE)
        except (ApiError, OSError, http.client.HTTPException) as error:
            log.warning("service=%s/%s error=%s", metadata["namespace"], metadata["name"], error)
        else:
            log.info("service=%s/%s ingress=%s", metadata["namespace"], metadata["name"], ingress)


if __name__ == "__main__":
    serve(("services",), reconcile)
