"""RuntimeClasses: which a cluster offers, and that they follow its node image."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from sykube import documents, resources
from sykube.cluster.commands import lifecycle, power
from sykube.cluster.commands.runtimes import listing
from sykube.cluster.commands.update import update as update_module
from sykube.cluster.commands.update.nodes import UpdateOptions
from sykube.cluster.model import pod_options
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.model.spec import ClusterSpec
from sykube.cluster.operations import runtimes
from sykube.errors import UsageError
from sykube.host.grants import Grants
from sykube.patches import Patch
from tests.fakes import World
from tests.fakes import apptainer as fake_apptainer
from tests.fakes.image import CONTAINERD_CONFIG, add_image
from tests.unit.helpers import Sykube, fake_spec, init, made, unchanged

ROOT = Path(__file__).parents[2]
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


# --- sykube runtimes ---


def listed(sykube: Sykube) -> dict[str, dict[str, Any]]:
    said = sykube("runtimes", "--name", "fake", "--output", "json")
    assert said.code == 0, said.err
    return {each["name"]: each for each in json.loads(said.out)}


def test_what_each_is_and_since_when(world: World, sykube: Sykube) -> None:
    bring_apptainer(world)
    made(world, runtime="crun")
    classes = world.kubernetes["fake"].collection(CLASSES)
    for each in classes:
        each["metadata"]["creationTimestamp"] = f"2026-11-29T10:00:0{len(each['handler'])}Z"
    found = listed(sykube)
    assert [*found] == ["runc", "crun", "apptainer"]
    assert [name for name, each in found.items() if each["default"]] == ["crun"]
    assert found["apptainer"] == {
        "name": "apptainer",
        "summary": found["apptainer"]["summary"],
        "version": "1.4.5-2",
        "default": False,
        "since": "2026-11-29T10:00:09Z",
        "lacking": "",
        "options": [],
    }
    lines = sykube("runtimes", "--name", "fake").out.splitlines()
    assert [line.split()[0] for line in lines] == ["runc", "crun", "apptainer"]
    assert "1.4.5-2" in lines[2]
    assert lines[2].endswith("since 2026-11-29T10:00:09Z")
    assert ["default" in line for line in lines] == [False, True, False]


def test_why_a_cluster_lacks_one(world: World, sykube: Sykube) -> None:
    cluster = made(world)
    assert "sykube update --name fake" in listed(sykube)["apptainer"]["lacking"]
    del world.kubernetes["fake"].objects[f"{CLASSES}/crun"]
    assert "its RuntimeClass was deleted" in listed(sykube)["crun"]["lacking"]
    assert listed(sykube)["runc"]["lacking"] == ""
    grants = Grants(rootless=True, user="ada", uid=1000)
    users = dataclasses.replace(cluster, host=dataclasses.replace(world.host, grants=grants))
    (found,) = [each for each in listing(users) if each.name == "apptainer"]
    assert "this cluster is a user's" in found.lacking


def test_of_a_cluster_that_does_not_answer_the_rest_is_said(world: World, sykube: Sykube) -> None:
    made(world)
    world.kubernetes.clear()
    found = listed(sykube)
    assert (found["runc"]["since"], found["runc"]["lacking"]) == ("", "")
    assert "the nodes have none" in found["apptainer"]["lacking"]
    assert "since when is not known" in sykube("runtimes", "--name", "fake").out


# --- pods without a class ---

BEFORE = CONTAINERD_CONFIG.replace(".runtimes.default", ".runtimes.other")


def runtimes_of(cluster: Cluster) -> list[str]:
    """What each node is told that pods without a class run in."""
    files = [node.pull("/etc/sykube/node.env") for node in cluster.nodes]
    lines = [line for file in files for line in file.read_text().splitlines()]
    return [line.partition("=")[2] for line in lines if line.startswith("SYKUBE_RUNTIME=")]


def bring_apptainer(world: World) -> None:
    (file,) = (world.root / "cache/node-images").glob("*/versions")
    file.write_text(file.read_text() + "apptainer=1.4.5-2\n")


def test_nodes_are_told_what_pods_without_a_class_run_in(world: World) -> None:
    assert runtimes_of(made(world)) == ["runc", "runc"]


@pytest.mark.parametrize("runtime", ["crun", "apptainer"])
def test_another_runtime_than_runc(world: World, runtime: str) -> None:
    bring_apptainer(world)
    assert runtimes_of(made(world, runtime=runtime)) == [runtime, runtime]


def test_apptainer_is_refused_where_the_node_image_has_none(world: World) -> None:
    with unchanged(world), pytest.raises(UsageError, match=r"node\.sif has no Apptainer"):
        made(world, runtime="apptainer")


def test_another_one_is_refused_of_a_node_image_from_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_apptainer, "CONTAINERD_CONFIG", BEFORE)
    with unchanged(world), pytest.raises(UsageError, match="is from before .* run in crun"):
        made(world, runtime="crun")
    made(world, runtime="runc")


def test_no_update_leads_to_a_node_image_that_lacks_it(world: World) -> None:
    bring_apptainer(world)
    made(world, runtime="apptainer")
    image = add_image(world.root / "cache", "f00d", version="v1.20.3", part="other")
    wish = ClusterSpec(name="fake", local_image=str(image.sif))
    with unchanged(world), pytest.raises(UsageError, match="has no Apptainer"):
        update_module.update(world.host, "fake", wish, UpdateOptions(), world.ui(), dry_run=True)


def test_without_root_no_pod_runs_in_apptainer_by_default(world: World) -> None:
    bring_apptainer(world)
    world.host = dataclasses.replace(world.host, grants=Grants(rootless=True, user="ada", uid=1000))
    with unchanged(world), pytest.raises(UsageError, match="an ordinary user's cluster"):
        init(world, fake_spec(runtime="apptainer"))
    with unchanged(world), pytest.raises(UsageError, match="an ordinary user's cluster"):
        lifecycle.dry_run(world.host, fake_spec(runtime="apptainer"), world.ui())


def test_a_runtime_that_there_is_not(world: World, sykube: Sykube) -> None:
    with unchanged(world):
        said = sykube("init", "--runtime", "kata")
    assert said.code == 2
    assert "kata" in said.err
    assert "runc, crun, apptainer" in said.err.replace("'", "")


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


# --- what pods may ask for ---


@pytest.fixture
def site() -> Iterator[Path]:
    """Not in the folder of tests, which may be below /dev/shm."""
    with TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder, "scratch").mkdir()
        yield Path(folder)


def test_nodes_know_what_pods_may_ask_for_and_have_their_folders(
    world: World, site: Path, sykube: Sykube
) -> None:
    bring_apptainer(world)
    options = ("nv", f"bind={site}", f"bind={site}/scratch:rw")
    cluster = made(world, allow_pod_option=options)
    for node in cluster.nodes:
        assert node.pull("/etc/sykube/pod-options").read_text().splitlines() == [*options]
        binds = world.instances[node.instance].options.binds
        place = f"/var/lib/sykube/site{site}"
        assert [each for each in binds if place in each[1]] == [
            (site, f"{place}:ro"),
            (site / "scratch", f"{place}/scratch"),
        ]
    assert listed(sykube)["apptainer"]["options"] == [*options]
    assert listed(sykube)["runc"]["options"] == []
    (line,) = [
        each for each in sykube("runtimes", "--name", "fake").out.splitlines()
        if each.startswith("apptainer")
    ]  # fmt: skip
    assert line.endswith(f"; pods may ask for {', '.join(options)}")


@pytest.mark.parametrize(
    "file", ["node/containerd.toml", "upstream/containerd-v3.toml", "upstream/containerd-v4.toml"]
)
def test_each_containerd_hands_the_annotations_on_to_each_runtime(file: str) -> None:
    """And no others of a pod's, which the programs that it calls would have to look through."""
    text = (ROOT / "definitions" / file).read_text(encoding="utf-8")
    plugins = tomllib.loads(text.replace("@RESTRICT@", "true"))["plugins"]
    (found,) = [each["containerd"]["runtimes"] for each in plugins.values() if "containerd" in each]
    assert {*found} == {"runc", "crun", "apptainer", "default"}
    for each in found.values():
        assert each["pod_annotations"] == [f"{pod_options.ANNOTATION}*"]


def test_the_runtime_command_reads_what_sykube_writes() -> None:
    text = (ROOT / "runtime/options.go").read_text(encoding="utf-8")
    for each in (pod_options.ANNOTATION, pod_options.PLACE, *pod_options.SWITCHES):
        assert f'"{each}"' in text


def test_where_nothing_is_allowed_nodes_know_that(world: World) -> None:
    (node, *_) = made(world).nodes
    assert node.pull("/etc/sykube/pod-options").read_text().strip() == ""


def test_options_are_refused_of_a_node_image_without_apptainer(world: World) -> None:
    with unchanged(world), pytest.raises(UsageError, match=r"node\.sif has no Apptainer"):
        made(world, allow_pod_option=("nv",))


def test_options_are_refused_of_a_node_image_that_would_not_hand_them_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring_apptainer(world)
    before = CONTAINERD_CONFIG.replace("pod_annotations", "other")
    monkeypatch.setattr(fake_apptainer, "CONTAINERD_CONFIG", before)
    with unchanged(world), pytest.raises(UsageError, match="before pods could ask") as raised:
        made(world, allow_pod_option=("nv",))
    assert "leave out --allow-pod-option" in raised.value.resolution
    made(world, runtime="apptainer")


def test_a_patch_that_would_keep_annotations_from_a_runtime_is_refused(world: World) -> None:
    bring_apptainer(world)
    table = '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{}]\npod_annotations = {}\n'
    for runtime, others in (("apptainer", []), ("runc", ["mine/*"])):
        patch = Patch(table.format(runtime, others))
        with unchanged(world), pytest.raises(UsageError, match="keeps annotations of pods"):
            made(world, allow_pod_option=("nv",), containerd_config_patches=(patch,))
    both = Patch(table.format("runc", ["mine/*", f"{pod_options.ANNOTATION}*"]))
    made(world, allow_pod_option=("nv",), containerd_config_patches=(both,))


def test_folders_that_pods_may_bind_must_be_there_and_no_links_to_what_is_not_for_them(
    world: World, site: Path
) -> None:
    bring_apptainer(world)
    (site / "link").symlink_to("/etc")
    for name, wrong in (("none", "does not exist"), ("link", "the folder /etc is not for pods")):
        with unchanged(world), pytest.raises(UsageError, match=wrong) as raised:
            made(world, allow_pod_option=(f"bind={site}/{name}",))
        assert f"--allow-pod-option bind={site}/{name} out" in raised.value.resolution


def test_a_node_does_not_start_while_a_folder_that_pods_may_bind_is_gone(
    world: World, site: Path
) -> None:
    bring_apptainer(world)
    cluster = made(world, allow_pod_option=(f"bind={site}/scratch:rw",))
    power.stop(cluster.host, "fake", power.StopOptions(), world.ui())
    (site / "scratch").rmdir()
    with pytest.raises(UsageError, match=f"pods cannot bind {site}/scratch: .* does not exist"):
        power.start(cluster.host, "fake", world.ui())


def test_without_root_no_pod_asks_for_options(world: World) -> None:
    bring_apptainer(world)
    world.host = dataclasses.replace(world.host, grants=Grants(rootless=True, user="ada", uid=1000))
    with unchanged(world), pytest.raises(UsageError, match="an ordinary user's") as raised:
        init(world, fake_spec(allow_pod_option=("nv",)))
    assert "Leave out --allow-pod-option" in raised.value.resolution
