"""The container image of Slurm: what it is built of, and when."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sykube.cluster.commands.slurm.image import obtain
from sykube.errors import HostError
from sykube.host.apt import Mirror
from sykube.host.grants import Grants
from sykube.host.host import Host
from sykube.host.run import CommandError
from sykube.image import slurm, versions
from sykube.image.build import Builder
from sykube.image.slurm import SlurmImage
from tests.fakes import Answer, Calls, FakeHost, FakePrograms, Kernel, World

MIRROR = Mirror("http://m/debian")
BUILDER = Builder(Path("/usr/bin/apptainer"), {})


@pytest.fixture
def programs(tmp_path: Path) -> FakePrograms:
    return FakePrograms(Kernel(tmp_path / "kernel"), Calls(), tmp_path)


@pytest.fixture
def host(programs: FakePrograms, tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path / "host", programs.run)


def create(host: Host, *, force: bool = False) -> SlurmImage:
    @contextlib.contextmanager
    def step(_: str) -> Iterator[None]:
        yield

    return slurm.create(host, MIRROR, "202611", BUILDER, step, lambda _: None, force=force)


def builds(programs: FakePrograms) -> list[str]:
    """The definitions that were built since the last time."""
    found = [Path(argv[-1]).stem for argv in programs.argvs if argv[1] == "build"]
    programs.calls.all.clear()
    return found


def test_it_is_built_of_debians_root_once(host: Host, programs: FakePrograms) -> None:
    assert slurm.cached(host) is None
    image = create(host)
    assert builds(programs) == ["debian", "slurm"]
    assert image.archive.is_file()
    assert image.name == slurm.name(host) == f"sykube.local/slurm:{image.fingerprint}"
    assert slurm.cached(host) == create(host) == image
    assert builds(programs) == []
    assert create(host, force=True) == image
    assert builds(programs) == ["slurm"]


def test_another_sykube_has_another_one_and_the_old_one_goes(
    host: Host, programs: FakePrograms, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = create(host)
    builds(programs)
    monkeypatch.setattr(versions, "SLURM_PACKAGES", ("slurmd",))
    assert slurm.cached(host) is None
    after = create(host)
    assert builds(programs) == ["slurm"]
    assert after.name != before.name
    assert [each.name for each in after.archive.parents[1].iterdir()] == [after.fingerprint]


def test_a_build_that_fails_leaves_the_cache_as_it_was(host: Host, programs: FakePrograms) -> None:
    image = create(host)
    build = programs.answers["apptainer"]

    def fail(words: list[str]) -> Answer:
        return (255, "", "FATAL: no space") if words[0] == "build" else build(words)

    programs.answers["apptainer"] = fail
    with pytest.raises(CommandError):
        create(host, force=True)
    assert slurm.cached(host) == image
    assert len([*image.archive.parents[1].iterdir()]) == 1


def test_a_user_with_one_id_is_told_what_to_ask_for(world: World) -> None:
    user = replace(world.host, grants=Grants(rootless=True, users=False))
    with pytest.raises(HostError, match="more user IDs than one") as caught:
        obtain(user, "", lambda _: True, world.ui())
    assert "Ask the administrator for: sykube slurm image" in caught.value.resolution
