"""Add-ons, on and off."""

from __future__ import annotations

import pytest

from sykube.addons import catalog
from sykube.addons.addon import Addon, deployment_problem
from sykube.cluster.commands import addons, lifecycle
from sykube.cluster.commands.lifecycle import InitOptions
from sykube.cluster.model import lookup
from sykube.cluster.model.spec import ClusterSpec
from sykube.cluster.operations.addons import addon_context
from sykube.errors import ExitCode, SykubeError, UsageError
from tests.fakes import World

DEPLOYMENT = "/apis/apps/v1/namespaces/kube-system/deployments/storage"


@pytest.fixture
def up(world: World) -> World:
    lifecycle.init(
        world.host, ClusterSpec(name="fake", dns=("192.0.2.1",)), InitOptions(), world.ui()
    )
    return world


def listed(world: World) -> dict[str, bool]:
    found = addons.listing(lookup.load(world.host, "fake", world.ui()))
    return {each.name: each.enabled for each in found}


def test_a_new_cluster_has_those_that_every_cluster_has(up: World) -> None:
    by_default = {addon.name: addon.by_default for addon in catalog.ALL}
    assert by_default["storage"]
    assert listed(up) == by_default
    assert DEPLOYMENT in up.kubernetes["fake"].objects


def test_off_removes_every_object_and_on_brings_each_back(up: World) -> None:
    objects = up.kubernetes["fake"].objects
    before = dict(objects)
    assert addons.disable(up.host, "fake", "storage", up.ui()) is True
    gone = {path for path in before if path not in objects}
    assert DEPLOYMENT in gone
    assert not any("storage" in path for path in objects)
    assert listed(up)["storage"] is False
    assert addons.disable(up.host, "fake", "storage", up.ui()) is False
    assert addons.enable(up.host, "fake", "storage", up.ui()) is True
    assert objects == before
    assert listed(up)["storage"] is True


def test_on_twice_changes_nothing(up: World) -> None:
    up.calls.all.clear()
    assert addons.enable(up.host, "fake", "storage", up.ui()) is False
    assert not [call for call in up.calls.all if call.words[0] in ("PATCH", "POST", "DELETE")]


def test_one_that_does_not_come_up_is_off_again_and_says_why(up: World) -> None:
    addons.disable(up.host, "fake", "storage", up.ui())
    before = dict(up.kubernetes["fake"].objects)
    up.kubernetes["fake"].broken.add("storage")
    with pytest.raises(SykubeError, match="the add-on storage: not there after") as raised:
        addons.enable(up.host, "fake", "storage", up.ui())
    assert "0 of 1" in raised.value.details
    assert up.kubernetes["fake"].objects == before
    assert listed(up)["storage"] is False


@pytest.mark.parametrize("action", [addons.enable, addons.disable])
def test_one_that_there_is_not_is_wrong_use(up: World, action: object) -> None:
    with pytest.raises(UsageError, match="no add-on 'storrage'") as raised:
        action(up.host, "fake", "storrage", up.ui())  # type: ignore[operator]
    assert "storage" in raised.value.details


@pytest.mark.parametrize("action", [addons.enable, addons.disable])
def test_a_cluster_that_is_stopped_is_said(up: World, action: object) -> None:
    for name in list(up.instances):
        up.end(name)
    with pytest.raises(SykubeError) as raised:
        action(up.host, "fake", "storage", up.ui())  # type: ignore[operator]
    assert raised.value.exit_code is ExitCode.STOPPED


def test_names_are_words_for_a_command_line_and_summaries_are_one_line() -> None:
    for addon in catalog.ALL:
        assert addon.name.replace("-", "").isalpha()
        assert addon.name.islower()
        assert "\n" not in addon.summary
        assert len(addon.summary) < 80


@pytest.mark.parametrize("addon", catalog.ALL)
def test_what_waits_for_pods_makes_them(addon: Addon, up: World) -> None:
    cluster = lookup.load(up.host, "fake", up.ui())
    with cluster.api() as api:
        objects = addon.objects(addon_context(cluster, api))
    for kind, waited in (("Deployment", addon.deployments), ("DaemonSet", addon.daemon_sets)):
        made = {
            f"{each['metadata']['namespace']}/{each['metadata']['name']}"
            for each in objects
            if each["kind"] == kind
        }
        assert made == set(waited)


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        ({}, "was just changed"),
        ({"observedGeneration": 2}, "0 of 1 pods are available"),
        ({"observedGeneration": 2, "updatedReplicas": 1, "replicas": 1}, "0 of 1"),
        (
            {"observedGeneration": 2, "updatedReplicas": 1, "availableReplicas": 1, "replicas": 2},
            "1 of 1",
        ),
        (
            {"observedGeneration": 2, "updatedReplicas": 1, "availableReplicas": 1, "replicas": 1},
            "",
        ),
    ],
)
def test_a_deployment_is_well_when_its_newest_pods_are(
    world: World, status: dict[str, int], problem: str
) -> None:
    lifecycle.init(
        world.host, ClusterSpec(name="fake", dns=("192.0.2.1",)), InitOptions(), world.ui()
    )
    world.kubernetes["fake"].objects[DEPLOYMENT] = {
        "metadata": {"generation": 2},
        "spec": {"replicas": 1},
        "status": status,
    }
    found = deployment_problem(world.api("fake"), "kube-system/storage")
    assert problem in found if problem else found == ""
    assert deployment_problem(world.api("fake"), "kube-system/none") == (
        "there is no Deployment kube-system/none"
    )
