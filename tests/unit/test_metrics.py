"""The add-on metrics in a fake cluster; the program itself is in incluster/test_metrics.py."""

from __future__ import annotations

import pytest

from sykube.addons.metrics import METRICS
from sykube.cluster.commands import addons, scaling
from sykube.cluster.model import lookup
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.operations.addons import addon_context
from sykube.errors import SykubeError
from sykube.kubernetes.api import ApiError
from tests.fakes import World
from tests.unit.helpers import made

MAP = "/api/v1/namespaces/kube-system/configmaps/kubelet-certificates"
SERVICE = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io"
DEPLOYMENT = "/apis/apps/v1/namespaces/kube-system/deployments/metrics"
NODES = "/apis/metrics.k8s.io/v1beta1/nodes"


def certify(cluster: Cluster) -> dict[str, str]:
    """Every kubelet serves a certificate that it has made."""
    for node in cluster.nodes:
        folder = node.pull("/var/lib/kubelet/pki")
        folder.mkdir(exist_ok=True)
        (folder / "kubelet.crt").write_text(f"certificate of {node.instance}")
    return {node.instance: f"certificate of {node.instance}" for node in cluster.nodes}


def measured(world: World, *names: str) -> None:
    """The program answers for these nodes."""
    world.kubernetes["fake"].objects[NODES] = {"items": [{"metadata": {"name": n}} for n in names]}


def test_it_tells_the_cluster_what_each_kubelet_serves(world: World) -> None:
    cluster = made(world)
    expected = certify(cluster)
    with cluster.api() as api:
        METRICS.enable(addon_context(cluster, api))
    objects = world.kubernetes["fake"].objects
    assert objects[MAP]["data"] == expected
    # The certificate that is served is the program's own to tell.
    assert "caBundle" not in objects[SERVICE]["spec"]
    assert "insecureSkipTLSVerify" not in objects[SERVICE]["spec"]


def test_a_node_that_joins_is_told_of(world: World) -> None:
    cluster = made(world)
    certify(cluster)
    cluster.state.addons.append("metrics")
    cluster.save()
    scaling.add(world.host, "fake", 1, world.ui())
    grown = lookup.load(world.host, "fake", world.ui())
    expected = certify(grown)
    scaling.add(world.host, "fake", 1, world.ui())
    assert world.kubernetes["fake"].objects[MAP]["data"] == expected


def test_clusters_without_it_are_told_nothing(world: World) -> None:
    cluster = made(world)
    certify(cluster)
    scaling.add(world.host, "fake", 1, world.ui())
    assert MAP not in world.kubernetes["fake"].objects


def test_its_problem_is_what_a_user_of_it_would_meet(world: World) -> None:
    cluster = made(world)
    with cluster.api() as api:
        there = addon_context(cluster, api)
        assert METRICS.problem(there) == "there is no Deployment kube-system/metrics"
        METRICS.enable(there)
        objects = world.kubernetes["fake"].objects
        objects[DEPLOYMENT]["status"] = {"observedGeneration": 1, "replicas": 1,
                                         "updatedReplicas": 1, "availableReplicas": 1}  # fmt: skip
        world.calls.fail(
            lambda call: call.words == ("GET", NODES),
            lambda _: ApiError("the server is currently unable to handle it", 503),
        )
        unable = f"GET {NODES}: the server is currently unable to handle it"
        assert METRICS.problem(there) == unable
        measured(world, "fake-master")
        assert METRICS.problem(there) == "no metrics of fake-node1"
        measured(world, "fake-master", "fake-node1")
        assert METRICS.problem(there) == ""


def test_disabling_takes_the_apiservice_first_and_leaves_nothing(world: World) -> None:
    cluster = made(world)
    before = set(world.kubernetes["fake"].objects)
    with cluster.api() as api:
        METRICS.enable(addon_context(cluster, api))
        world.calls.all.clear()
        METRICS.disable(addon_context(cluster, api))
    # Otherwise every discovery would fail while its program is gone already.
    assert world.calls.all[0].words == ("DELETE", SERVICE)
    assert set(world.kubernetes["fake"].objects) == before


def test_enabling_that_fails_takes_it_away_again(world: World) -> None:
    made(world)
    with pytest.raises(SykubeError, match="the add-on metrics"):
        addons.enable(world.host, "fake", "metrics", world.ui())
    assert SERVICE not in world.kubernetes["fake"].objects
    assert "metrics" not in lookup.load(world.host, "fake", world.ui()).state.addons
