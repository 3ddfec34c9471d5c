"""Where a Service is reached from this host."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sykube.cluster.model.cluster import Cluster
from sykube.errors import ExitCode, SykubeError
from sykube.kubernetes.api import ApiError
from sykube.network import ports

_SCHEMES = {80: "http", 443: "https", 8080: "http", 8443: "https"}


@dataclass(frozen=True)
class Address:
    """A port of a Service as this host reaches it.

    Attributes:
        port: name of the Service's port, or its number.
        by: what leads there: host port, load balancer, cluster address or node port.
        url: with http or https where the Service says so or its port is known for it.
    """

    port: str
    by: str
    url: str


def addresses(cluster: Cluster, namespace: str, name: str) -> list[Address]:
    """All addresses of a Service that answer now, the most lasting ones first.

    Raises:
        SykubeError: there is no such Service, it has no pod that is Ready, or nothing answers.
    """
    with cluster.api() as api:
        try:
            service = api.get(f"/api/v1/namespaces/{namespace}/services/{name}")
        except ApiError as error:
            if error.status == 404:
                raise _no_such(cluster, namespace, name) from error
            raise
        endpoints = api.get(f"/api/v1/namespaces/{namespace}/endpoints/{name}")
    if not any(subset.get("addresses") for subset in endpoints.get("subsets") or []):
        raise SykubeError(
            f"the Service {name} has no pod that is Ready",
            resolution=f"sykube kubectl{cluster.name_option} get pods -n {namespace}",
            exit_code=ExitCode.DEGRADED,
        )
    found = [
        Address(str(port.get("name", port["port"])), by, _url(port, address, number))
        for port in service["spec"].get("ports", [])
        for by, address, number in _ways(cluster, service, port)
        if port["protocol"] != "TCP" or not ports.silence(cluster.host, address, number)
    ]
    if not found and cluster.host.network.arrival:
        raise _unpublished(cluster, service)
    if not found:
        raise SykubeError(
            f"no address of the Service {name} answers from this host",
            resolution=f"sykube doctor{cluster.name_option}",
            exit_code=ExitCode.DEGRADED,
        )
    return found


def _ways(
    cluster: Cluster, service: dict[str, Any], port: dict[str, Any]
) -> Iterator[tuple[str, str, int]]:
    """What leads to a port, as (by, host, port)."""
    node_port = port.get("nodePort", 0)
    for mapped in cluster.state.ports:
        if (mapped.node_port, mapped.protocol.upper()) == (node_port, port["protocol"]):
            host = "127.0.0.1" if mapped.address == "0.0.0.0" else mapped.address
            yield "host port", host, mapped.host_port
    if cluster.host.network.arrival:
        # The others are in a network that this host is not in.
        return
    for ingress in service.get("status", {}).get("loadBalancer", {}).get("ingress", []):
        yield "load balancer", ingress["ip"], port["port"]
    address = service["spec"].get("clusterIP", "None")
    if address != "None" and service["spec"]["type"] != "LoadBalancer":
        yield "cluster address", address, port["port"]
    if node_port:
        yield "node port", cluster.endpoint_address, node_port


def _unpublished(cluster: Cluster, service: dict[str, Any]) -> SykubeError:
    ports = [port.get("nodePort", 0) for port in service["spec"].get("ports", [])]
    resolution = (
        f"sykube port add 8080:{ports[0]}{cluster.name_option}"
        if any(ports)
        else "Make it one of type NodePort, then let a port lead to that: sykube port add"
    )
    return SykubeError(
        f"no port of this host leads to the Service {service['metadata']['name']}",
        resolution=resolution,
        exit_code=ExitCode.DEGRADED,
    )


def _url(port: dict[str, Any], host: str, number: int) -> str:
    scheme = _SCHEMES.get(port["port"], "")
    if (port.get("name") or port.get("appProtocol")) in ("http", "https"):
        scheme = port.get("appProtocol") or port["name"]
    if port["protocol"] != "TCP":
        scheme = ""
    return f"{scheme}://{host}:{number}" if scheme else f"{host}:{number}"


def _no_such(cluster: Cluster, namespace: str, name: str) -> SykubeError:
    return SykubeError(
        f"there is no Service {name!r} in the namespace {namespace!r}",
        resolution=f"sykube kubectl{cluster.name_option} get services --all-namespaces",
    )
