"""Container images of a cluster's nodes: load, list, delete."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sykube.cluster.commands import images, power
from sykube.cluster.commands.power import StopOptions
from sykube.cluster.model.cluster import Cluster
from sykube.errors import ExitCode, SykubeError, UsageError
from sykube.host.host import Host
from sykube.host.run import CommandError
from sykube.image import oci, sif
from tests import containers
from tests.containers import Image
from tests.fakes import World
from tests.fakes.instance import FakeInstance
from tests.unit.helpers import made

IMAGE = Image([containers.tar({"a": b"one"})], {})
OTHER = Image([containers.tar({"a": b"two"})], {})
NAME = "docker.io/library/web:1"


@pytest.fixture
def cluster(world: World) -> Iterator[Cluster]:
    """Two nodes; whatever a test does, nothing of it is left in their folders."""
    cluster = made(world, workers=1)
    yield cluster
    assert not list(cluster.paths.root.glob(".images-*"))
    assert not list(cluster.paths.root.glob("nodes/*/containerd/.load*"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return containers.docker_archive(tmp_path / "web.tar", IMAGE, "web:1")


def node(world: World, name: str) -> FakeInstance:
    return world.instances[f"fake-{name}"]


def load(world: World, *sources: Path, nodes: tuple[str, ...] = (), wanted: str = "") -> Any:
    return images.load(world.host, "fake", sources, nodes, wanted, world.ui())


def pod(name: str, image: str, where: str, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"nodeName": where, "containers": [{"image": image}]},
        "status": {"phase": "Running"} | status,
    }


# --- load ---


def test_all_nodes_get_it_from_one_copy(world: World, cluster: Cluster, source: Path) -> None:
    (found,) = load(world, source)
    assert (found.name, found.id) == (NAME, IMAGE.id)
    assert (found.loaded, found.present) == (("master", "node1"), ())
    for name in found.loaded:
        assert node(world, name).images[NAME] == found.digest


def test_who_has_it_is_left_alone_and_told_in_one_line(
    world: World, cluster: Cluster, source: Path
) -> None:
    (first,) = load(world, source, nodes=("node1",))
    assert (first.loaded, first.present) == (("node1",), ())
    ui = world.ui()
    (second,) = images.load(cluster.host, "fake", [source], (), "", ui)
    assert (second.loaded, second.present) == (("master",), ("node1",))
    assert ui.said == [f"node1 has {NAME} already"]
    world.calls.all.clear()
    (third,) = load(world, source)
    assert third.loaded == ()
    assert not [call for call in world.calls.all if "import" in str(call)]


def test_a_name_can_come_to_stand_for_another_image(
    world: World, cluster: Cluster, source: Path, tmp_path: Path
) -> None:
    load(world, source)
    other = containers.docker_archive(tmp_path / "other.tar", OTHER, "web:1")
    (found,) = load(world, other)
    assert found.loaded == ("master", "node1")
    assert node(world, "master").images[NAME] == found.digest


def test_the_same_image_in_two_files_is_loaded_once(
    world: World, cluster: Cluster, source: Path, tmp_path: Path
) -> None:
    again = containers.docker_archive(tmp_path / "again.tar", IMAGE, "web:1")
    assert len(load(world, source, again)) == 1


def test_an_image_with_the_same_layer_twice(world: World, cluster: Cluster, tmp_path: Path) -> None:
    twice = Image([*IMAGE.layers, *IMAGE.layers], {})
    for make in (containers.docker_archive, containers.oci_archive):
        (found,) = load(world, make(tmp_path / "twice.tar", twice, "twice:1"))
        assert found.id == twice.id


def test_another_name(world: World, cluster: Cluster, source: Path) -> None:
    (found,) = load(world, source, wanted="team/tool:2")
    assert found.name == "docker.io/team/tool:2"


def test_a_file_without_a_name_gives_its_own(
    world: World, cluster: Cluster, tmp_path: Path
) -> None:
    (found,) = load(world, containers.docker_archive(tmp_path / "Tool.tar", IMAGE))
    assert found.name == "docker.io/library/tool:local"


def test_one_name_for_several_images_is_refused(
    world: World, cluster: Cluster, source: Path, tmp_path: Path
) -> None:
    other = containers.docker_archive(tmp_path / "other.tar", OTHER, "other:1")
    with pytest.raises(UsageError, match="several images would be called"):
        load(world, source, other, wanted="web:1")
    assert NAME not in node(world, "master").images


@pytest.mark.parametrize("what", ["missing", "empty", "cut"])
def test_bad_files_change_nothing(
    what: str, world: World, cluster: Cluster, source: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.tar"
    if what != "missing":
        bad.write_bytes(b"" if what == "empty" else source.read_bytes()[:1500])
    with pytest.raises(UsageError):
        load(world, source, bad)
    assert NAME not in node(world, "master").images


def test_an_unknown_node(world: World, cluster: Cluster, source: Path) -> None:
    with pytest.raises(UsageError, match="no node 'node7'") as raised:
        load(world, source, nodes=("node1", "node7"))
    assert "node1" in raised.value.resolution
    assert NAME not in node(world, "node1").images


@pytest.mark.parametrize("action", ["load", "list", "delete"])
def test_a_stopped_cluster(action: str, world: World, cluster: Cluster, source: Path) -> None:
    power.stop(cluster.host, "fake", StopOptions(), world.ui())
    with pytest.raises(SykubeError) as raised:
        if action == "load":
            load(world, source)
        elif action == "list":
            images.listing(cluster.host, "fake", world.ui())
        else:
            images.delete(cluster.host, "fake", "web:1", (), world.ui())
    assert raised.value.exit_code == ExitCode.STOPPED


def test_a_stopped_node(world: World, cluster: Cluster, source: Path) -> None:
    world.end("fake-node1")
    with pytest.raises(SykubeError, match="do not run: node1") as raised:
        load(world, source)
    assert raised.value.exit_code == ExitCode.DEGRADED
    (found,) = load(world, source, nodes=("master",))
    assert found.loaded == ("master",)
    ui = world.ui()
    assert {each.name for each in images.listing(cluster.host, "fake", ui)} >= {NAME}
    assert "node1" in ui.warnings[0]


def test_a_paused_cluster(world: World, cluster: Cluster, source: Path) -> None:
    power.pause(cluster.host, "fake", world.ui())
    with pytest.raises(SykubeError, match="is paused") as raised:
        load(world, source)
    assert raised.value.exit_code == ExitCode.STOPPED


def test_parts_that_were_collected_in_between_are_given_again(
    world: World, cluster: Cluster, source: Path
) -> None:
    world.calls.fail(
        lambda call: "import" in str(call.words),
        lambda call: CommandError("failed", call.words, "content digest sha256:1: not found"),
    )
    (found,) = load(world, source, nodes=("node1",))
    assert node(world, "node1").images[NAME] == found.digest


def test_a_refusal_of_containerd_is_shown(world: World, cluster: Cluster, source: Path) -> None:
    world.calls.fail(
        lambda call: "import" in str(call.words),
        lambda call: CommandError("ctr failed", call.words, "wrong diff id"),
    )
    with pytest.raises(CommandError, match="ctr failed"):
        load(world, source, nodes=("node1",))


def test_what_a_killed_load_left_is_removed(world: World, cluster: Cluster, source: Path) -> None:
    for folder in (
        cluster.paths.root / ".images-x",
        cluster.master.pull("/var/lib/containerd/.load"),
    ):
        folder.mkdir()
        (folder / "part").touch()
    load(world, source)


# --- list ---


def test_the_list_says_which_nodes_have_what(world: World, cluster: Cluster, source: Path) -> None:
    (found,) = load(world, source, nodes=("node1",))
    (listed,) = [
        each for each in images.listing(cluster.host, "fake", world.ui()) if each.name == NAME
    ]
    assert (listed.id, listed.digest, listed.nodes) == (IMAGE.id, found.digest, ("node1",))
    sizes = [len(each) for each in (*IMAGE.layers, IMAGE.configuration)]
    assert listed.size == sum(sizes)


def test_an_image_without_a_name_is_listed(
    world: World, cluster: Cluster, source: Path, tmp_path: Path
) -> None:
    load(world, source)
    load(world, containers.docker_archive(tmp_path / "other.tar", OTHER, "web:1"))
    found = images.listing(cluster.host, "fake", world.ui())
    assert {(each.name, each.id) for each in found} == {(NAME, OTHER.id), ("", IMAGE.id)}


# --- delete ---


@pytest.mark.parametrize("by", ["web:1", NAME, IMAGE.id])
def test_delete_removes_the_name_and_the_id(
    by: str, world: World, cluster: Cluster, source: Path
) -> None:
    before = node(world, "master").images
    load(world, source)
    assert images.delete(cluster.host, "fake", by, (), world.ui()) == ["master", "node1"]
    assert node(world, "master").images == node(world, "node1").images == before


def test_delete_from_one_node(world: World, cluster: Cluster, source: Path) -> None:
    load(world, source)
    assert images.delete(cluster.host, "fake", "web:1", ("node1",), world.ui()) == ["node1"]
    assert NAME in node(world, "master").images


def test_one_of_two_names_goes_and_the_image_stays(
    world: World, cluster: Cluster, source: Path
) -> None:
    load(world, source)
    load(world, source, wanted="web:2")
    images.delete(cluster.host, "fake", "web:1", (), world.ui())
    left = node(world, "master").images
    assert NAME not in left
    assert {IMAGE.id, "docker.io/library/web:2"} <= {*left}


def test_an_image_that_is_not_there(world: World, cluster: Cluster) -> None:
    with pytest.raises(UsageError, match="there is no image docker.io/library/nope:latest"):
        images.delete(cluster.host, "fake", "nope", (), world.ui())


@pytest.mark.parametrize("how", ["name", "id"])
def test_an_image_in_use_is_kept(how: str, world: World, cluster: Cluster, source: Path) -> None:
    load(world, source)
    user = pod("one", "web:1", "fake-node1")
    if how == "id":
        user = pod("one", "moved:1", "fake-node1", containerStatuses=[{"imageID": IMAGE.id}])
    world.kubernetes["fake"].pods_of_user = [user]
    with pytest.raises(SykubeError, match="in use by 1 pod") as raised:
        images.delete(cluster.host, "fake", "web:1", (), world.ui())
    assert raised.value.details == "default/one"
    assert NAME in node(world, "master").images
    # Not on this node.
    assert images.delete(cluster.host, "fake", "web:1", ("master",), world.ui()) == ["master"]


def test_a_pod_that_has_ended_uses_nothing(world: World, cluster: Cluster, source: Path) -> None:
    load(world, source)
    world.kubernetes["fake"].pods_of_user = [pod("one", "web:1", "fake-node1", phase="Succeeded")]
    assert images.delete(cluster.host, "fake", "web:1", (), world.ui()) == ["master", "node1"]


def test_what_the_node_image_brought_is_kept(world: World, cluster: Cluster) -> None:
    own = cluster.image.container_images()[0]
    with pytest.raises(UsageError, match="part of the node image"):
        images.delete(cluster.host, "fake", own, (), world.ui())
    assert own in node(world, "master").images


# --- SIFs ---


def write_sif(file: Path, architecture: bytes = b"02\0") -> Path:
    header = struct.pack("<32s10s3s3s16sq", b"#!", b"SIF_MAGIC\0", b"01\0", architecture, b"", 99)
    file.write_bytes(header + b"\0" * 100)
    return file


@pytest.fixture
def apptainer(world: World, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """An engine that unpacks a SIF; what is in it can be changed."""
    inside: dict[str, Any] = {
        "files": {".singularity.d/actions/run": "", ".singularity.d/runscript": ""},
        "env": "A=b c\0PATH=/bin\0PS1=> \0APPTAINER_NAME=x\0LD_LIBRARY_PATH=/.singularity.d/libs\0",
    }

    def engine(words: list[str]) -> tuple[int, str, str]:
        match words:
            case ["--version"]:
                return 0, "apptainer version 1.4.5\n", ""
            case ["build", "--sandbox", root, _]:
                for name, text in inside["files"].items():
                    (Path(root) / name).parent.mkdir(parents=True, exist_ok=True)
                    (Path(root) / name).write_text(text)
                return 0, "", ""
            case ["--silent", "exec", *options, _, "env", "-0"]:
                inside["options"] = options
                return 0, inside["env"], ""
        raise AssertionError(words)

    def tar(words: list[str]) -> tuple[int, str, str]:
        inside["tar"] = words
        target = next(word for word in words if word.startswith("--file=")).removeprefix("--file=")
        Path(target).write_bytes(containers.tar({"x": b""}))
        return 0, "", ""

    monkeypatch.setitem(world.programs.answers, "apptainer", engine)
    monkeypatch.setitem(world.programs.answers, "tar", tar)
    world.machine = "x86_64"
    return inside


def configuration(folder: Path, found: oci.ContainerImage) -> dict[str, Any]:
    return json.loads(found.config.file.read_text())["config"]  # type: ignore[no-any-return]


def convert(host: Host, tmp_path: Path) -> oci.ContainerImage:
    from sykube.image.build import Builder

    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    file = write_sif(tmp_path / "tool_1.sif")
    return sif.convert(host, file, "tool:1", work, Builder(Path("/usr/bin/apptainer"), {}))


def test_a_sif_becomes_an_image(
    world: World, cluster: Cluster, apptainer: dict[str, Any], tmp_path: Path
) -> None:
    (found,) = load(world, write_sif(tmp_path / "tool_1.2.sif"))
    assert found.name == "docker.io/library/tool:1.2"
    assert found.loaded == ("master", "node1")


def test_a_sif_keeps_its_runscript_and_environment(
    world: World, apptainer: dict[str, Any], tmp_path: Path
) -> None:
    apptainer["files"][".singularity.d/labels.json"] = json.dumps(
        {"org.label-schema.build-date": "now", "maker": "me"}
    )
    found = configuration(tmp_path, convert(world.host, tmp_path))
    assert found["Entrypoint"] == ["/.singularity.d/actions/run"]
    assert found["Env"] == ["A=b c", "PATH=/bin"]
    assert found["Labels"] == {"maker": "me"}
    assert "--clamp-mtime" in apptainer["tar"]
    assert "--mtime=@99" in apptainer["tar"]
    assert {"--no-privs", "--containall", "none"} <= {*apptainer["options"]}


@pytest.mark.parametrize("script", [".singularity.d/runscript", ""])
def test_an_old_sif_gets_a_start_of_its_own(
    script: str, world: World, apptainer: dict[str, Any], tmp_path: Path
) -> None:
    apptainer["files"] = {script or "bin/sh": ""}
    entrypoint = configuration(tmp_path, convert(world.host, tmp_path))["Entrypoint"]
    assert entrypoint[:2] == ["/bin/sh", "-c"]
    assert entrypoint[3] == (f"/{script}" if script else "/bin/sh")


def test_a_link_in_a_sif_does_not_lead_to_the_host(
    world: World, apptainer: dict[str, Any], tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "labels.json").write_text('{"a": "b"}')
    root = tmp_path / "root"
    root.mkdir()
    (root / ".singularity.d").symlink_to(outside)
    assert sif._labels(root) == {}
    assert (outside / "labels.json").read_text() == '{"a": "b"}'


@pytest.mark.parametrize(("code", "what"), [(b"04\0", "arm64"), (b"99\0", "does not know")])
def test_a_sif_for_another_machine(
    code: bytes, what: str, world: World, cluster: Cluster, apptainer: object, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=what):
        load(world, write_sif(tmp_path / "tool.sif", code))


def test_a_sif_that_cannot_be_unpacked(world: World, cluster: Cluster, tmp_path: Path) -> None:
    world.machine = "x86_64"
    known = world.programs.apptainer
    world.programs.answers["apptainer"] = lambda words: (
        known(words) if words == ["--version"] else (255, "", "FATAL: truncated")
    )
    with pytest.raises(UsageError, match="damaged or cut off") as raised:
        load(world, write_sif(tmp_path / "tool.sif"))
    assert "truncated" in raised.value.details
