"""`sykube bench network`: what asks what, in sykube's cluster and in others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sykube.bench import machine, wire
from sykube.cluster.commands.bench import laboratory, network
from sykube.errors import SykubeError, UsageError
from sykube.host.run import Completed
from sykube.image.stream import RECIPE
from tests.unit.bench.quiet_machine import QUIET
from tests.unit.bench.test_contexts import KUBECONFIG, Both, There

FIGURES = {"throughput": 1000.0, "round_trip": 50.0, "connections": 9000.0}
PORTS = ["9000", "9001", "9002"]


def service(address: str) -> dict[str, Any]:
    ports = [{"nodePort": 30000 + number} for number in range(3)]
    return {"spec": {"clusterIP": address, "ports": ports}}


@dataclass
class ThereToo(There):
    """Another cluster, which has Services."""

    def answer(self, verb: str, path: str, body: Any) -> Any:
        if "/services" in path:
            return service("10.0.0.2")
        return super().answer(verb, path, body)


@dataclass
class Lab(Both):
    """Clusters of two nodes in which whoever asks has an answer."""

    there: There = field(default_factory=ThereToo)

    @property
    def cluster(self) -> Any:
        made: Any = super().cluster
        made.image.name_of = lambda name: f"sykube.local/{name}:1"
        made.state.spec = type("Spec", (), {"runtime": "runc"})
        for node in made.nodes:
            node.address = f"address of {node.name}"
        return made

    def run(self, argv: Sequence[str | Path], **options: Any) -> Completed:
        words = [str(word) for word in argv]
        if wire.program() not in words:
            return super().run(argv, **options)
        self.ran.append(words)
        return Completed(tuple(words), 0, json.dumps(FIGURES), "")

    def request(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        if "/services" in path:
            return service("10.0.0.1")
        return super().request(method, path, body, **options)

    def get(self, path: str, **options: str) -> Any:
        return service("10.0.0.1") if "/services" in path else super().get(path, **options)

    def asked(self, place: str) -> list[str]:
        """What a program that asks is told, of the only one that has this word."""
        (words, *_) = [each for each in self.ran if place in each]
        return words[words.index(wire.program()) + 1 :]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    found = Lab(tmp_path)
    file = tmp_path / "kubeconfig"
    file.write_text(KUBECONFIG)
    monkeypatch.setenv("KUBECONFIG", str(file))
    monkeypatch.setattr(machine, "usable_cores", lambda: [4, 7, 9])
    monkeypatch.setattr(laboratory, "quiet", lambda *_, **__: nullcontext((found.cluster, QUIET)))
    return found


def measure(lab: Lab, *others: str, image: str = "") -> Any:
    cluster = lab.cluster
    return network.measure(
        cluster.host, "sykube", cluster.ui,
        runs=3, seconds=0.5, margin=0.02, anyway=False, others=others, image=image,
    )  # fmt: skip


def test_each_place_has_figures_of_each_block_and_nothing_is_left(lab: Lab) -> None:
    result = measure(lab)
    places = [
        *("loopback", "pods of one node", "pods of two nodes", "pod to ClusterIP"),
        "host to NodePort",
    ]
    for what, value in FIGURES.items():
        assert result.measures[what].values == {place: [value] * 3 for place in places}
    assert not lab.namespace
    nodes = {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in lab.made}
    assert nodes == {"client": "sykube-master", "near": "sykube-master", "far": "sykube-node1"}
    assert lab.asked("address of near") == ["4", "ask", "address of near", "0.5", *PORTS]
    assert lab.asked("address of far") == ["4", "ask", "address of far", "0.5", *PORTS]
    assert lab.asked("10.0.0.1") == ["4", "ask", "10.0.0.1", "0.5", *PORTS]
    # From this host, by the node's ports.
    assert lab.asked("address of node1")[4:] == ["30000", "30001", "30002"]
    assert lab.asked("alone") == ["4", "alone", "7", "0.5"]
    serving = [pod["spec"]["containers"][0]["command"] for pod in lab.made[1:]]
    assert [words[-2:] for words in serving] == [["7", "serve"]] * 2
    assert result.pinned == (
        "pinned alike in every place: who asks to core 4 and who answers to core 7"
    )


def test_on_a_single_core_both_ends_share_it(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: [4])
    measure(lab)
    assert lab.asked("alone") == ["4", "alone", "4", "0.5"]


def test_one_node_has_no_pods_of_two(lab: Lab) -> None:
    lab.nodes = lab.nodes[:1]
    assert "pods of two nodes" not in measure(lab).measures["throughput"].values


def test_another_cluster_is_asked_in_the_same_run(lab: Lab) -> None:
    result = measure(lab, "kind-kind", image="python:3")
    found = [place for place in result.measures["throughput"].values if "kind" in place]
    assert found == [
        f"kind-kind: {place}"
        for place in ("pods of one node", "pods of two nodes", "pod to ClusterIP")
    ]
    assert result.versions["the context kind-kind"] == "v1.36.2 with python:3"
    assert not lab.there.namespace
    containers = [pod["spec"]["containers"][0] for pod in lab.there.pods]
    assert {each["image"] for each in containers} == {"python:3"}
    there = [words for words in lab.ran if "--context=kind-kind" in words]
    assert len(there) == 4 * 3
    assert lab.asked("10.0.0.2") == ["4", "ask", "10.0.0.2", "0.5", *PORTS]


def test_a_user_who_may_make_no_service_is_told_so(lab: Lab) -> None:
    lab.there.forbidden = ("create services",)
    with pytest.raises(SykubeError, match="kind-kind lacks rights") as caught:
        measure(lab, "kind-kind", image="python:3")
    assert caught.value.details == "it may not: create services"
    assert not lab.there.pods


def test_others_run_the_image_of_stream_by_default(lab: Lab) -> None:
    measure(lab, "kind-kind")
    images = {pod["spec"]["containers"][0]["image"] for pod in lab.there.pods}
    assert images == {RECIPE.name(lab.cluster.host)}


def test_an_image_is_of_a_context(lab: Lab) -> None:
    with pytest.raises(UsageError, match="--image is of pods of --context"):
        measure(lab, image="python:3")
    assert not lab.made
