"""Images that are no part of a node image: what they are built of, and when."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import pytest
from click.testing import CliRunner

from sykube.cli.bench import bench
from sykube.cluster.operations.debian_image import obtain, save
from sykube.errors import HostError, UsageError
from sykube.host.apt import Mirror
from sykube.host.grants import Grants
from sykube.host.host import Host
from sykube.host.run import CommandError
from sykube.image import hpcc, oci, slurm, stream, versions
from sykube.image.build import Builder
from sykube.image.debian_image import DebianImage, Recipe
from sykube.image.oci import ContainerImage, Staging
from tests.fakes import Answer, Calls, FakeHost, FakePrograms, Kernel, World

MIRROR = Mirror("http://m/debian")
BUILDER = Builder(Path("/usr/bin/apptainer"), {})
# Each by the name of its layer.
RECIPES = {
    "slurm": slurm.RECIPE,
    "slurm-compilers": slurm.COMPILERS,
    "hpcc": hpcc.RECIPE,
    "stream": stream.RECIPE,
}
each_of_them = pytest.mark.parametrize("what", RECIPES)


@pytest.fixture
def programs(tmp_path: Path) -> FakePrograms:
    return FakePrograms(Kernel(tmp_path / "kernel"), Calls(), tmp_path)


@pytest.fixture
def host(programs: FakePrograms, tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path / "host", programs.run)


def create(host: Host, recipe: Recipe, *, force: bool = False) -> DebianImage:
    @contextlib.contextmanager
    def step(_: str) -> Iterator[None]:
        yield

    return recipe.create(host, MIRROR, "202611", BUILDER, step, lambda _: None, force=force)


def builds(programs: FakePrograms) -> list[str]:
    """The definitions that were built since the last time."""
    found = [Path(argv[-1]).stem for argv in programs.argvs if argv[1] == "build"]
    programs.calls.all.clear()
    return found


@each_of_them
def test_it_is_built_of_debians_root_once(host: Host, programs: FakePrograms, what: str) -> None:
    recipe = RECIPES[what]
    assert recipe.cached(host) is None
    image = create(host, recipe)
    assert builds(programs) == ["debian", what]
    assert image.archive.is_file()
    assert image.name == recipe.name(host) == f"sykube.local/{what}:{image.fingerprint}"
    assert recipe.cached(host) == create(host, recipe) == image
    assert builds(programs) == []
    assert create(host, recipe, force=True) == image
    assert builds(programs) == [what]


def test_they_are_beside_each_other(host: Host) -> None:
    images = [create(host, recipe) for recipe in RECIPES.values()]
    assert [recipe.cached(host) for recipe in RECIPES.values()] == images


@pytest.mark.parametrize(
    ("what", "packages"),
    [
        ("slurm", "SLURM_PACKAGES"),
        ("slurm-compilers", "SLURM_COMPILERS_PACKAGES"),
        ("hpcc", "HPCC_PACKAGES"),
        ("stream", "STREAM_PACKAGES"),
    ],
)
def test_another_sykube_has_another_one_and_the_old_one_goes(
    host: Host,
    programs: FakePrograms,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    packages: str,
) -> None:
    before = create(host, RECIPES[what])
    builds(programs)
    monkeypatch.setattr(versions, packages, ("slurmd",))
    assert RECIPES[what].cached(host) is None
    after = create(host, RECIPES[what])
    assert builds(programs) == [what]
    assert after.name != before.name
    assert [each.name for each in after.archive.parents[1].iterdir()] == [after.fingerprint]


@each_of_them
def test_a_build_that_fails_leaves_the_cache_as_it_was(
    host: Host, programs: FakePrograms, what: str
) -> None:
    image = create(host, RECIPES[what])
    build = programs.answers["apptainer"]

    def fail(words: list[str]) -> Answer:
        return (255, "", "FATAL: no space") if words[0] == "build" else build(words)

    programs.answers["apptainer"] = fail
    with pytest.raises(CommandError):
        create(host, RECIPES[what], force=True)
    assert RECIPES[what].cached(host) == image
    assert len([*image.archive.parents[1].iterdir()]) == 1


def test_pods_have_sifs_of_what_is_measured_and_an_archive_of_slurm(
    host: Host, programs: FakePrograms
) -> None:
    sif = "--mksquashfs-args"
    for what, form in (("slurm", "--sandbox"), ("hpcc", sif), ("stream", sif)):
        create(host, RECIPES[what])
        [command] = [argv for argv in programs.argvs if argv[-1].endswith(f"/{what}.def")]
        assert form in command


@each_of_them
def test_a_user_with_one_id_is_told_what_to_ask_for(world: World, what: str) -> None:
    user = replace(world.host, grants=Grants(rootless=True, users=False))
    recipe = RECIPES[what]
    with pytest.raises(HostError, match="more user IDs than one") as caught:
        obtain(user, recipe, "", lambda _: True, world.ui())
    assert f"Ask the administrator for: {recipe.command}" in caught.value.resolution


@pytest.fixture
def made(tmp_path: Path) -> ContainerImage:
    staging = tmp_path / "staging"
    staging.mkdir()
    parts = Staging(staging)
    layer, config = parts.add(io.BytesIO(b"files")), parts.add_json({"os": "linux"})
    manifest = parts.add_json(oci.made_manifest(config, [(layer, oci.LAYER)]))
    return ContainerImage("sykube.local/stream:1", oci.MANIFEST, manifest, config, (layer,))


def test_the_archive_of_a_sif_is_beside_it(
    host: FakeHost, made: ContainerImage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[Path, str, Path]] = []

    def convert(_: Host, sif: Path, name: str, work: Path, *__: object) -> ContainerImage:
        asked.append((sif, name, work))
        return made

    engine = SimpleNamespace(binary=BUILDER.binary, environment=BUILDER.environment)
    monkeypatch.setattr("sykube.host.engines.find_for_files", lambda _: engine)
    monkeypatch.setattr("sykube.image.sif.convert", convert)
    monkeypatch.setattr("sykube.cli.context.host", lambda: host)
    create(host, stream.RECIPE)
    file = tmp_path / "stream.tar"
    done = CliRunner().invoke(bench, ["image", "stream", "--archive", str(file), "-o", "json"])
    assert done.exit_code == 0, done.output
    [(sif, name, work)] = asked
    described = json.loads(done.stdout)
    assert (described["file"], described["image"]) == (str(sif), name)
    assert described["archive"] == str(file)
    assert not work.exists()
    with tarfile.open(file) as tar:
        assert "manifest.json" in tar.getnames()


@pytest.mark.parametrize("before", [b"", b"of another day"])
def test_of_an_archive_that_cannot_be_finished_nothing_is_left_or_what_was_there(
    host: FakeHost,
    made: ContainerImage,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    before: bytes,
) -> None:
    def full(_: ContainerImage, stream: IO[bytes]) -> None:
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    file = tmp_path / "of a user/stream.tar"
    file.parent.mkdir()
    if before:
        file.write_bytes(before)
    monkeypatch.setattr("sykube.image.archive.write", full)
    with pytest.raises(UsageError, match=f"cannot write {file}: No space left"):
        save(host, made, file)
    assert {each: each.read_bytes() for each in file.parent.iterdir()} == (
        {file: before} if before else {}
    )


def test_a_link_stays_one_and_a_pipe_is_written_to(
    host: FakeHost, made: ContainerImage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sykube.image.archive.write", lambda _, stream: stream.write(b"whole"))
    link, file, pipe = tmp_path / "link", tmp_path / "stream.tar", tmp_path / "pipe"
    file.write_bytes(b"of another day")
    link.symlink_to(file)
    save(host, made, link)
    assert link.is_symlink()
    assert file.read_bytes() == b"whole"
    os.mkfifo(pipe)
    # Open for both, so that neither end waits for the other.
    reader = os.open(pipe, os.O_RDWR)
    save(host, made, pipe)
    assert os.read(reader, 100) == b"whole"
    os.close(reader)
    assert pipe.is_fifo()


def test_what_cannot_be_written_stays_as_it_was(
    host: FakeHost, made: ContainerImage, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(UsageError, match="cannot write"):
        save(host, made, folder)
    assert folder.is_dir()
