"""SIFs that a cluster's nodes run as they are: loaded, listed, kept, removed, saved."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from sykube.cluster.commands import images, power, scaling
from sykube.cluster.commands.images import Loaded
from sykube.cluster.commands.scaling import RemovalOptions
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.operations import sifs
from sykube.errors import SykubeError, UsageError
from sykube.host.grants import Grants
from sykube.image import sif_header, sif_store
from tests import containers
from tests import sifs as files
from tests.fakes import World
from tests.fakes.instance import FakeInstance
from tests.fakes.signatures import TRUSTED
from tests.unit.helpers import made

NAME, OTHER = "docker.io/library/tool:1", "0" * 40
TOLD = {
    "labels": json.dumps({"maker": "me", "org.label-schema.build-date": "now"}),
    "passwd": "ada:x:1000:1000::/:/bin/sh\n",
}


@pytest.fixture
def cluster(world: World) -> Cluster:
    """Two nodes that can mount a SIF."""
    world.machine, world.sif_told = "x86_64", TOLD
    known = world.programs.apptainer

    def engine(words: list[str]) -> Any:
        assert words[0] not in ("build", "--silent"), "a SIF is unpacked, or run"
        return known(words)

    world.programs.answers["apptainer"] = engine
    return made(world, workers=1)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "tool_1.sif"
    file.write_bytes(files.made())
    return file


def load(world: World, source: Path, *nodes: str, wanted: str = "") -> Loaded:
    (found,) = images.load(world.host, "fake", [source], nodes, wanted, world.ui())
    return found


def node(world: World, name: str) -> FakeInstance:
    return world.instances[f"fake-{name}"]


def kept(cluster: Cluster) -> list[str]:
    return sorted(file.name for file in cluster.paths.sifs.iterdir())


def of(source: Path) -> list[str]:
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    return [f"{digest}.json", f"{digest}.sif"]


# --- load ---


def test_a_sif_is_kept_once_and_nodes_get_an_image_that_names_it(
    world: World, cluster: Cluster, source: Path
) -> None:
    found = load(world, source)
    assert (found.name, found.loaded) == (NAME, ("master", "node1"))
    assert kept(cluster) == of(source)
    file = cluster.paths.sifs / of(source)[1]
    assert file.read_bytes() == source.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o400
    assert cluster.paths.sifs.stat().st_mode & 0o777 == 0o700
    assert found.size > file.stat().st_size
    for name in ("master", "node1"):
        instance = node(world, name)
        manifest = json.loads(instance.part(found.digest.removeprefix("sha256:")).read_text())
        (layer,) = manifest["layers"]
        with tarfile.open(
            fileobj=io.BytesIO(instance.part(layer["digest"].removeprefix("sha256:")).read_bytes())
        ) as archive:
            inside = {
                each.name: archive.extractfile(each).read().decode()  # type: ignore[union-attr]
                for each in archive
                if each.isfile()
            }
        assert inside == {
            ".sykube-sif": of(source)[1].removesuffix(".sif") + "\n",
            "etc/passwd": TOLD["passwd"],
        }
        config = json.loads(instance.part(found.id.removeprefix("sha256:")).read_text())["config"]
        assert config == {
            "Entrypoint": ["/.singularity.d/actions/run"], "Labels": {"maker": "me"},
        }  # fmt: skip


def test_nodes_see_the_sifs_and_cannot_change_them(world: World, cluster: Cluster) -> None:
    for each in world.instances.values():
        assert (cluster.paths.sifs, f"{sif_store.PLACE}:ro") in each.options.binds


def test_the_same_sif_is_the_same_image(world: World, cluster: Cluster, source: Path) -> None:
    first = load(world, source, "node1")
    second = load(world, source)
    assert (second.digest, second.loaded) == (first.digest, ("master",))
    assert kept(cluster) == of(source)


def test_what_a_name_no_longer_stands_for_goes(
    world: World, cluster: Cluster, source: Path
) -> None:
    load(world, source)
    source.write_bytes(files.made(b"another"))
    load(world, source)
    # The first one has its ID as its name in the nodes.
    assert len(kept(cluster)) == 4
    for each in world.instances.values():
        each.images = {name: digest for name, digest in each.images.items() if ":1" in name}
    sifs.prune(cluster)
    assert kept(cluster) == of(source)


@pytest.mark.parametrize("why", ["cannot mount it", "no rights"])
def test_where_a_node_cannot_mount_it_is_unpacked(
    why: str, world: World, cluster: Cluster, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked: list[Path] = []

    def convert(*_: object, shown: Path) -> None:
        unpacked.append(shown)
        raise UsageError("as far as here", resolution="")

    monkeypatch.setattr("sykube.cluster.operations.sifs.sif.convert", convert)
    world.programs.answers["apptainer"] = lambda _: (0, "apptainer version 1.4.5\n", "")
    if why == "cannot mount it":
        world.sif_told = None
    else:
        grants = Grants(rootless=True, user="ada", uid=1000)
        cluster = dataclasses.replace(cluster, host=dataclasses.replace(world.host, grants=grants))
    work = cluster.paths.root / ".work"
    work.mkdir()
    with pytest.raises(UsageError, match="as far as here"):
        sifs.image(cluster, cluster.nodes, source, NAME, work)
    assert unpacked == [source]
    assert kept(cluster) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (files.made()[:-1], "is damaged or cut off"),
        (files.made()[:300], "is damaged or cut off"),
        *((files.made(file_system=each), "is encrypted") for each in files.ENCRYPTED),
        (files.made(architecture=b"04\0"), "is for arm64"),
        (files.made(architecture=b"99\0"), "is for a machine that sykube does not know"),
    ],
    ids=["cut", "cut in its table", "encrypted by root", "encrypted by a user", "arm64", "unknown"],
)
def test_a_sif_that_cannot_run_is_refused_before_anything_is_made(
    content: bytes, message: str, world: World, cluster: Cluster, source: Path
) -> None:
    source.write_bytes(content)
    before = node(world, "master").images
    with pytest.raises(UsageError, match=message) as raised:
        load(world, source)
    assert raised.value.resolution
    assert kept(cluster) == []
    assert node(world, "master").images == before


def test_a_header_without_end_is_not_read_for_ever(tmp_path: Path) -> None:
    file = tmp_path / "x.sif"
    content = bytearray(files.made(b"\1" * 10_000_000))
    content[88:96] = (1 << 62).to_bytes(8, "little")
    file.write_bytes(content)
    assert sif_header.read(file).end > 0


@pytest.mark.parametrize("call", ["sendfile", "fdatasync"])
def test_a_disk_that_is_full_leaves_nothing(
    call: str, world: World, cluster: Cluster, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File systems say it of a write, or once it is to be on the disk."""
    before = node(world, "master").images

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left"):
        load(world, source)
    assert kept(cluster) == []
    assert [*cluster.paths.root.glob(".images-*")] == []
    assert node(world, "master").images == before


def test_a_copy_is_named_for_what_it_holds(tmp_path: Path) -> None:
    source, folder, work = tmp_path / "x", tmp_path / "sifs", tmp_path / "work"
    folder.mkdir()
    work.mkdir()
    for content in (b"", b"short", b"long" * 3_000_000):
        source.write_bytes(content)
        found = sif_store.adopt(folder, source, work)
        assert found.digest == containers.digest(content)
        assert found.file.read_bytes() == content
        assert (found.size, found.file.stem) == (len(content), found.digest[7:])
    assert list(work.iterdir()) == []


# --- signatures ---


@pytest.mark.parametrize("requires", [(), (TRUSTED,), (OTHER, TRUSTED), (OTHER,)])
@pytest.mark.parametrize("is_signed", [True, False])
def test_a_cluster_can_require_a_signature(
    is_signed: bool, requires: tuple[str, ...], world: World, cluster: Cluster, source: Path
) -> None:
    spec = dataclasses.replace(cluster.state.spec, require_signed=requires)
    cluster.state.spec = spec
    cluster.save()
    if is_signed:
        # As the fake engine knows it, by TRUSTED's key.
        source.write_bytes(files.made(b"signed"))
    if not requires or (is_signed and TRUSTED in requires):
        load(world, source)
        note = json.loads((cluster.paths.sifs / of(source)[0]).read_text())
        assert note["signers"] == ([TRUSTED] if requires else [])
        return
    with pytest.raises(SykubeError) as raised:
        load(world, source)
    assert str(source) in raised.value.brief or OTHER in raised.value.brief
    assert kept(cluster) == []


def test_nodes_know_which_keys_are_required(world: World) -> None:
    fingerprint = " ".join(TRUSTED[i : i + 4] for i in range(0, 40, 4)).lower()
    made(world, require_signed=(fingerprint, OTHER))
    assert node(world, "master").config("sif-signers") == [TRUSTED, OTHER]


# --- list, delete ---


def test_the_list_counts_the_sif(world: World, cluster: Cluster, source: Path) -> None:
    source.write_bytes(files.made(b"x" * 100_000))
    load(world, source)
    (found,) = [
        each for each in images.listing(world.host, "fake", world.ui()) if each.name == NAME
    ]
    assert found.size > source.stat().st_size


def test_a_sif_goes_with_the_last_name_of_it(world: World, cluster: Cluster, source: Path) -> None:
    load(world, source)
    load(world, source, wanted="other:1")

    def delete(image: str, *nodes: str) -> None:
        images.delete(world.host, "fake", image, nodes, world.ui())

    delete("other:1")
    assert kept(cluster) == of(source)
    delete("tool:1", "master")
    assert kept(cluster) == of(source)
    delete("tool:1")
    assert kept(cluster) == []


def test_a_sif_in_use_is_kept(world: World, cluster: Cluster, source: Path) -> None:
    load(world, source)
    world.kubernetes["fake"].pods_of_user = [
        {
            "metadata": {"name": "one", "namespace": "default"},
            "spec": {"nodeName": "fake-node1", "containers": [{"image": "tool:1"}]},
            "status": {"phase": "Running"},
        }
    ]
    with pytest.raises(SykubeError, match="in use by 1 pod"):
        images.delete(world.host, "fake", "tool:1", (), world.ui())
    assert kept(cluster) == of(source)


def test_start_removes_what_kubelets_no_longer_have(
    world: World, cluster: Cluster, source: Path
) -> None:
    before = node(world, "master").images
    load(world, source)
    for each in world.instances.values():
        each.images = before
    power.start(world.host, "fake", world.ui())
    assert kept(cluster) == []


@pytest.mark.parametrize(
    "change", ["a node does not run", "an update is under way", "an image was made of it"]
)
def test_what_may_be_needed_is_kept(
    change: str, world: World, cluster: Cluster, source: Path
) -> None:
    found = load(world, source)
    for each in world.instances.values():
        if change == "an image was made of it":
            part = each.part(found.digest.removeprefix("sha256:"))
            manifest = json.loads(part.read_text()) | {"annotations": {"made": "of it"}}
            text = json.dumps(manifest)
            digest = containers.digest(text.encode())
            (each.content / digest.removeprefix("sha256:")).write_text(text)
            each.images = {"derived": digest}
        else:
            each.images = {}
    if change == "a node does not run":
        world.end("fake-node1")
    if change == "an update is under way":
        cluster.state.update = cast("Any", object())
    sifs.prune(cluster)
    assert kept(cluster) == of(source)


# --- nodes ---


def test_a_new_node_has_the_images_of_sifs(world: World, cluster: Cluster, source: Path) -> None:
    web = containers.docker_archive(
        source.with_name("web.tar"), containers.Image([containers.tar({"a": b""})], {}), "web:1"
    )
    images.load(world.host, "fake", [web], (), "", world.ui())
    found = load(world, source, "node1")
    assert scaling.add(world.host, "fake", 1, world.ui()) == ["node2"]
    new = node(world, "node2").images
    assert new[NAME] == found.digest
    # Others are the user's to load.
    assert "docker.io/library/web:1" not in new
    assert kept(cluster) == of(source)
    for each in ("node1", "node2"):
        assert kept(cluster) == of(source)
        scaling.remove_node(world.host, "fake", each, RemovalOptions(force=True), world.ui())
    assert kept(cluster) == []


# --- snapshots ---


@pytest.fixture
def saved(world: World, cluster: Cluster, source: Path) -> Callable[[bool], Cluster]:
    """Saves the cluster, with a SIF or without one."""
    from sykube.cluster.commands import snapshots
    from tests.unit.test_snapshots import fake_tar, stop

    world.programs.answers["tar"] = fake_tar

    def save(with_sif: bool) -> Cluster:
        if with_sif:
            load(world, source)
        stop(world, "fake")
        snapshots.save(world.host, "fake", "kept", world.ui())
        return cluster

    return save


@pytest.mark.parametrize("with_sif", [True, False])
def test_a_snapshot_has_the_sifs(
    with_sif: bool, saved: Callable[[bool], Cluster], world: World, source: Path
) -> None:
    from sykube.cluster.commands import snapshots

    cluster = saved(with_sif)
    manifest = json.loads((world.host.snapshots / "kept/manifest.json").read_text())
    # What knows no SIFs reads only those without any.
    assert manifest["version"] == (2 if with_sif else 1)
    for file in cluster.paths.sifs.iterdir():
        file.unlink()
    (cluster.paths.sifs / "later.sif").touch()
    snapshots.restore(world.host, "kept", lambda _: True, world.ui())
    assert kept(cluster) == (of(source) if with_sif else [])
