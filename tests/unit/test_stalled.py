"""Pods of which a kubelet has put off what it knows to be next."""

from __future__ import annotations

from typing import Any

from sykube.kubernetes import stalled
from tests.fakes import Calls
from tests.fakes.apiserver import FakeApi, Kubernetes

PODS = "/api/v1/namespaces/kube-system/pods"
MESSAGE = "services have not yet been read at least once, cannot construct envvars"


def pod(name: str, **state: dict[str, str]) -> dict[str, Any]:
    return {"metadata": {"name": name}, "status": {"containerStatuses": [{"state": state}]}}


def status(*, started: bool, ready: bool = True) -> dict[str, Any]:
    state: dict[str, Any] = {"running": {}}
    return {"containerStatuses": [{"state": state, "started": started, "ready": ready}]}


def hastened(server: Kubernetes, found: dict[str, Any]) -> list[str]:
    """The pods that are changed, of some."""
    server.objects |= {f"{PODS}/{name}": each for name, each in found.items()}
    # The fake's own are those that its nodes run.
    server.shown = lambda _: [*found.values()]
    calls = Calls()
    stalled.hasten(FakeApi(server, calls))
    changed = [call.words[1] for call in calls.all if call.words[0] == "PATCH"]
    return [path.removeprefix(f"{PODS}/") for path in changed]


def test_only_pods_that_wait_for_the_kubelet_are_changed() -> None:
    server = Kubernetes()
    found = {
        "stalled": pod(
            "stalled", waiting={"reason": "CreateContainerConfigError", "message": MESSAGE}
        ),
        "pulling": pod(
            "pulling", waiting={"reason": "ImagePullBackOff", "message": "no such image"}
        ),
        "creating": pod("creating", waiting={"reason": "ContainerCreating"}),
        "running": pod("running", running={}),
        "new": {"metadata": {"name": "new"}},
    }
    assert hastened(server, found) == ["stalled"]
    assert server.objects[f"{PODS}/stalled"]["metadata"]["annotations"]


def test_of_pods_that_have_started_the_static_ones_are_looked_at_again() -> None:
    server = Kubernetes()
    mirror = {"kubernetes.io/config.mirror": "0"}
    static = {"name": "static", "annotations": mirror}
    found = {
        "static": {"metadata": static, "status": status(started=True, ready=False)},
        "ready": {"metadata": {**static, "name": "ready"}, "status": status(started=True)},
        "starts": {
            "metadata": {**static, "name": "starts"},
            "status": status(started=False, ready=False),
        },
        # Its readiness probe says when it is Ready.
        "other": {"metadata": {"name": "other"}, "status": status(started=True, ready=False)},
    }
    assert hastened(server, found) == ["static"]
