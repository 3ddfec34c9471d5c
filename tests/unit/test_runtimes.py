"""RuntimeClasses: which a cluster offers, and that they follow its node image."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from sykube import documents, resources
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.operations import runtimes
from sykube.host.grants import Grants
from tests.fakes import World
from tests.unit.helpers import Sykube, made

CLASSES = "/apis/node.k8s.io/v1/runtimeclasses"


def present(world: World) -> set[str]:
    found = world.kubernetes["fake"].collection(CLASSES)
    return {each["metadata"]["name"] for each in found}


def with_apptainer(cluster: Cluster) -> Cluster:
    cluster.state.versions["apptainer"] = "1.4.5-2"
    return cluster


def test_a_node_image_without_apptainer_offers_none(world: World) -> None:
    cluster = made(world)
    assert "apptainer" not in cluster.state.versions
    assert present(world) == {"runc", "crun"}
    assert runtimes.are_there(cluster)


def test_a_node_image_with_apptainer_offers_it_and_one_of_before_no_more(world: World) -> None:
    cluster = with_apptainer(made(world))
    assert not runtimes.are_there(cluster)
    runtimes.reconcile(cluster)
    assert present(world) == {"runc", "crun", "apptainer"}
    assert runtimes.are_there(cluster)
    del cluster.state.versions["apptainer"]
    runtimes.reconcile(cluster)
    assert present(world) == {"runc", "crun"}


def test_without_root_there_is_no_apptainer(world: World) -> None:
    cluster = with_apptainer(made(world))
    assert "apptainer" in runtimes.offered(cluster)
    grants = Grants(rootless=True, user="ada", uid=1000)
    cluster = dataclasses.replace(cluster, host=dataclasses.replace(world.host, grants=grants))
    assert runtimes.offered(cluster) == ("runc", "crun")


def test_a_users_own_class_of_a_runtime_is_kept(world: World) -> None:
    cluster = made(world)
    own = {"metadata": {"name": "mine"}, "handler": "apptainer"}
    world.kubernetes["fake"].objects[f"{CLASSES}/mine"] = own
    runtimes.reconcile(cluster)
    assert present(world) == {"runc", "crun", "mine"}


def test_apptainers_own_memory_is_counted() -> None:
    names = ("runc", "crun", "apptainer")
    text = resources.render("manifests", "runtimes.yaml.j2", runtimes=names)
    found: dict[str, Any] = {each["metadata"]["name"]: each for each in documents.load_all(text)}
    assert {name: each["handler"] for name, each in found.items()} == {n: n for n in names}
    assert found["apptainer"]["overhead"]["podFixed"]["memory"].endswith("Mi")
    assert "overhead" not in found["runc"] | found["crun"]


@pytest.mark.parametrize("output", ["text", "json"])
def test_the_version_of_a_cluster_is_that_of_its_programs(
    world: World, sykube: Sykube, output: str
) -> None:
    cluster = with_apptainer(made(world))
    cluster.save()
    said = sykube("version", "--name", "fake", "--output", output).out
    if output == "json":
        assert json.loads(said)["cluster"]["versions"]["apptainer"] == "1.4.5-2"
    else:
        assert "cluster fake: apptainer 1.4.5-2\n" in said
    assert "apptainer" not in sykube("version", "--name", "other", "--output", output).out
