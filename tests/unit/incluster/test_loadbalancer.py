"""Addresses of LoadBalancer Services."""

from __future__ import annotations

from typing import Any

import pytest

from sykube.incluster import loadbalancer
from sykube.incluster.api import ApiError
from sykube.incluster.reconcile import Objects

Json = dict[str, Any]
OURS = [{"ip": "10.96.0.7"}]


def service(kind: str = "LoadBalancer", ingress: list[Json] | None = None, **spec: Any) -> Json:
    balancer = {} if ingress is None else {"ingress": ingress}
    return {
        "metadata": {"name": "web", "namespace": "shop", "uid": "1"},
        "spec": {"type": kind, "clusterIP": "10.96.0.7", **spec},
        "status": {"loadBalancer": balancer},
    }


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (service(), OURS),
        (service(ingress=OURS), None),
        (service(clusterIP=""), None),
        (service(clusterIP="None"), None),
        (service("ClusterIP"), None),
        # It was one before.
        (service("NodePort", OURS), []),
        # Another controller's.
        (service(ingress=[{"ip": "192.0.2.1"}]), None),
        (service(loadBalancerClass="another.example"), None),
    ],
)
def test_each_gets_its_cluster_address(seen: Json, expected: list[Json] | None) -> None:
    assert loadbalancer.wanted(seen) == expected


class FakeApi:
    def __init__(self) -> None:
        self.sent: list[tuple[str, ...]] = []
        self.refuses = False

    def send(self, method: str, path: str, body: Json, content_type: str) -> Json:
        if self.refuses:
            raise ApiError("409 conflict", 409)
        self.sent.append((method, path, str(body), content_type))
        return {}


def test_only_the_status_is_written_and_a_refusal_is_no_end() -> None:
    objects, api = Objects(), FakeApi()
    objects.replace("services", [service()])
    api.refuses = True
    loadbalancer.reconcile(api, objects)  # type: ignore[arg-type]
    api.refuses = False
    loadbalancer.reconcile(api, objects)  # type: ignore[arg-type]
    assert api.sent == [
        (
            "PATCH",
            "/api/v1/namespaces/shop/services/web/status",
            str({"status": {"loadBalancer": {"ingress": OURS}}}),
            "application/merge-patch+json",
        )
    ]


def test_objects_are_what_was_seen_last() -> None:
    objects = Objects()
    assert not objects.has("services")
    objects.replace("services", [service()])
    assert objects.has("services")
    before = objects.all("services")
    objects.change("services", service("NodePort"))
    assert [each["spec"]["type"] for each in objects.all("services")] == ["NodePort"]
    objects.remove("services", service())
    assert objects.all("services") == []
    assert [each["spec"]["type"] for each in before] == ["LoadBalancer"]
    assert objects.changed.is_set()
