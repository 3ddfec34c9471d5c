"""Images that are no part of a node image: what they are built of, and when."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sykube.cluster.operations.debian_image import obtain
from sykube.errors import HostError
from sykube.host.apt import Mirror
from sykube.host.grants import Grants
from sykube.host.host import Host
from sykube.host.run import CommandError
from sykube.image import hpcc, slurm, stream, versions
from sykube.image.build import Builder
from sykube.image.debian_image import DebianImage, Recipe
from tests.fakes import Answer, Calls, FakeHost, FakePrograms, Kernel, World

MIRROR = Mirror("http://m/debian")
BUILDER = Builder(Path("/usr/bin/apptainer"), {})
# Each by the name of its layer.
RECIPES = {"slurm": slurm.RECIPE, "hpcc": hpcc.RECIPE, "stream": stream.RECIPE}
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
    [("slurm", "SLURM_PACKAGES"), ("hpcc", "HPCC_PACKAGES"), ("stream", "STREAM_PACKAGES")],
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
