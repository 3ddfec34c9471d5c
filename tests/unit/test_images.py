"""The cache of node images on a fake engine."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sykube.errors import SykubeError
from sykube.host.apt import Mirror
from sykube.host.host import Host
from sykube.host.run import CommandError, Completed
from sykube.image import build, versions
from sykube.image.build import Builder, list_images, prune
from sykube.image.node_image import NodeImage
from tests.fakes import Answer, Calls, FakeHost, FakePrograms, Kernel
from tests.fakes.image import add_image, write_sif

MIRROR = Mirror("http://m/debian")
BUILDER = Builder(Path("/usr/bin/apptainer"), {"APPTAINER_DROP_CAPS": "CAP_BPF"})


@pytest.fixture
def programs(tmp_path: Path) -> FakePrograms:
    return FakePrograms(Kernel(tmp_path / "kernel"), Calls(), tmp_path)


@pytest.fixture
def host(programs: FakePrograms, tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path / "host", programs.run)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def build_all(
    host: Host,
    *,
    force: bool = False,
    titles: list[str] | None = None,
    state: str = "202611",
    note: Callable[[str], None] = lambda _: None,
) -> NodeImage:
    @contextlib.contextmanager
    def step(title: str) -> Iterator[None]:
        (titles if titles is not None else []).append(title)
        yield

    return build.build(host, versions.DEBIAN, MIRROR, BUILDER, step, note, state=state, force=force)


def builds(programs: FakePrograms) -> list[str]:
    """The definitions that were built."""
    return [Path(argv[-1]).stem for argv in programs.argvs if argv[1] == "build"]


# Each after those that it is made from.
MADE_FROM = {
    "kubernetes": (),
    "debian": (),
    "runtime": ("debian",),
    "system": ("debian",),
    "packages": ("debian",),
    "container-images": ("system", "kubernetes"),
    "node": ("kubernetes", "runtime", "packages", "container-images"),
}


# --- building ---


def test_images_are_built_one_from_the_other_and_kept(
    host: Host, programs: FakePrograms, cache: Path
) -> None:
    titles: list[str] = []
    assert build.cached(host, versions.DEBIAN, MIRROR) is None
    image = build_all(host, titles=titles)
    order = builds(programs)
    assert sorted(order) == sorted(MADE_FROM)
    for name, bases in MADE_FROM.items():
        assert all(order.index(base) < order.index(name) for base in bases), order
    assert titles == ["Building the parts of the node image", "Building the node image"]
    assert build.cached(host, versions.DEBIAN, MIRROR) == image
    assert list_images(host) == [image]
    assert image.sif.exists()
    assert os.access(image.kubectl, os.X_OK)
    assert list((cache / "tmp").iterdir()) == []
    parts = [path.name for path in (cache / "build").iterdir()]
    assert len(parts) == 6
    # Programs of root's own are in them.
    assert (cache / "build").stat().st_mode & 0o777 == 0o700
    # One at a time is compressed, and that once.
    assert [argv[2] for argv in programs.argvs if argv[1] == "build"].count("--sandbox") == 6


def test_what_is_in_the_cache_is_not_built_again(host: Host, programs: FakePrograms) -> None:
    first = build_all(host)
    programs.calls.all.clear()
    assert build_all(host) == first
    assert programs.argvs == []


def test_a_changed_node_image_takes_the_others_from_the_cache(
    host: Host, programs: FakePrograms, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build_all(host)
    programs.calls.all.clear()
    # A later release of sykube: its constants are what images are known by.
    monkeypatch.setattr(versions, "NODE_PACKAGES", ("containerd", "runc"))
    assert build.cached(host, versions.DEBIAN, MIRROR) is None
    assert build.what_changed(host, versions.DEBIAN, MIRROR) == ["the image packages"]
    assert build_all(host) != first
    assert builds(programs) == ["packages", "node"]


def test_another_kubernetes_takes_the_roots_from_the_cache(
    host: Host, programs: FakePrograms, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build_all(host)
    programs.calls.all.clear()
    newer = replace(versions.DEBIAN, kubernetes_version="1.20.3")
    monkeypatch.setattr(versions, "DEBIAN", newer)
    assert build_all(host) != first
    assert builds(programs) == ["kubernetes", "container-images", "node"]


@pytest.mark.parametrize("state", ["202612", ""])
def test_the_roots_are_made_again_once_the_mirror_has_other_packages(
    host: Host, programs: FakePrograms, cache: Path, state: str
) -> None:
    """Also where it does not say what it has."""
    build_all(host)
    before = sorted(path.name for path in (cache / "build").iterdir())
    programs.calls.all.clear()
    assert build_all(host, state="202611", force=True)
    assert builds(programs) == ["node"]
    programs.calls.all.clear()
    assert build_all(host, state=state, force=True)
    assert builds(programs) == ["debian", "packages", "node"]
    after = sorted(path.name for path in (cache / "build").iterdir())
    # Those that went before are gone.
    assert len(after) == len(before)
    assert {each.rpartition("-")[0] for each in {*before} - {*after}} == {
        each.rpartition("-")[0] for each in {*after} - {*before}
    }


def test_what_is_being_built_is_said_of_each(host: Host) -> None:
    said: list[str] = []
    build_all(host, note=said.append)
    assert "debian: INFO:    Build complete" in " ".join(said)
    assert said[-1] == "INFO:    Build complete"


def test_a_failure_ends_what_is_built_at_the_same_time(
    host: Host, programs: FakePrograms, cache: Path
) -> None:
    begun = threading.Event()

    def look(argv: Sequence[str | Path], **options: Any) -> Completed:
        name = Path(argv[-1]).stem
        if argv[1] == "build" and name == "kubernetes":
            begun.set()
            assert options["stop"].wait(60), "it would go on"
            raise InterruptedError
        if argv[1] == "build" and name == "system":
            assert begun.wait(60)
            raise CommandError("apptainer failed with exit code 255", ["apptainer"], "E: full")
        return programs.run(argv, **options)

    with pytest.raises(CommandError, match="exit code 255"):
        build_all(replace(host, run=look))
    assert list((cache / "tmp").iterdir()) == []
    done = {path.name.split("-")[0] for path in (cache / "build").iterdir()}
    assert "debian" in done
    assert not {"kubernetes", "system"} & done


def test_force_builds_the_node_image_anew(host: Host, programs: FakePrograms) -> None:
    first = build_all(host)
    programs.calls.all.clear()
    assert build_all(host, force=True) == first
    assert builds(programs) == ["node"]
    assert list_images(host) == [first]


@pytest.mark.parametrize("fails", MADE_FROM)
def test_a_build_that_fails_leaves_what_was_done_before(
    host: Host, programs: FakePrograms, cache: Path, fails: str
) -> None:
    programs.calls.fail(
        lambda call: call.words[1] == "build" and call.words[-1].endswith(f"/{fails}.def"),
        lambda call: CommandError("apptainer failed with exit code 255", call.words, "E: no space"),
    )
    with pytest.raises(CommandError) as raised:
        build_all(host)
    assert "E: no space" in raised.value.details
    assert list_images(host) == []
    assert list((cache / "tmp").iterdir()) == []
    leftovers = [path for path in (cache / "node-images").glob("*")]
    assert leftovers == []
    done = [name for name in builds(programs) if name != fails]
    programs.calls.all.clear()
    build_all(host)
    again = builds(programs)
    assert fails in again
    assert not {*again} & {*MADE_FROM[fails]}
    assert {*done} | {*again} == {*MADE_FROM}


def test_an_image_that_cannot_be_pulled_is_named(
    host: Host, programs: FakePrograms, cache: Path
) -> None:
    said = 'level=fatal msg="unauthorized"\nsykube: cannot pull registry.example/kube-proxy:v1'
    programs.calls.fail(
        lambda call: call.words[1] == "build",
        lambda call: CommandError("apptainer failed with exit code 255", call.words, said),
    )
    with pytest.raises(SykubeError) as raised:
        build_all(host)
    assert raised.value.brief == "cannot pull the image registry.example/kube-proxy:v1"
    assert raised.value.details == "unauthorized"
    assert list((cache / "tmp").iterdir()) == []


def test_a_copy_out_of_the_image_that_fails_leaves_no_half_image(
    host: Host, programs: FakePrograms, cache: Path
) -> None:
    programs.calls.fail(lambda call: "/usr/share/sykube/versions" in call.words)
    with pytest.raises(SykubeError):
        build_all(host)
    assert list_images(host) == []
    assert list((cache / "node-images").iterdir()) == []


def environments_of_builds(host: Host, programs: FakePrograms) -> list[dict[str, str]]:
    """Build all images; the variables that the engine was called with."""
    environments: list[dict[str, str]] = []

    def look(argv: Sequence[str | Path], **options: Any) -> Completed:
        if argv[1] == "build":
            environments.append(dict(options["env"]))
        return programs.run(argv, **options)

    build_all(replace(host, run=look))
    return environments


def test_the_engine_builds_with_its_own_settings_in_the_cache(
    host: Host, programs: FakePrograms, cache: Path
) -> None:
    environments = environments_of_builds(host, programs)
    assert environments
    for environment in environments:
        assert environment["APPTAINER_DROP_CAPS"] == "CAP_BPF"
        for name in ("APPTAINER_TMPDIR", "APPTAINER_CACHEDIR", "TMPDIR"):
            assert environment[name].startswith(str(cache))


@pytest.mark.parametrize(
    ("said", "compresses", "prefix"),
    [
        ("apptainer version 1.4.5", True, "APPTAINER"),
        ("apptainer version 1.2.5", False, "APPTAINER"),
        ("singularity-ce version 4.1.1", False, "SINGULARITY"),
    ],
)
def test_each_engine_builds_as_it_can(host: Host,
    programs: FakePrograms, cache: Path, said: str, compresses: bool,
    prefix: str,
) -> None:  # fmt: skip
    apptainer = programs.answers["apptainer"]

    def engine(words: list[str]) -> Answer:
        return (0, said, "") if words == ["--version"] else apptainer(words)

    programs.answers["apptainer"] = engine
    environments = environments_of_builds(host, programs)
    builds = [argv for argv in programs.argvs if argv[1] == "build"]
    assert builds
    assert [argv[-1] for argv in builds if "--sandbox" not in argv] == [builds[-1][-1]]
    assert ("--mksquashfs-args" in builds[-1]) is compresses
    assert all(each[f"{prefix}_TMPDIR"].startswith(str(cache)) for each in environments)
    for each in environments:
        # Nothing is left in the host's folders by programs that are ended.
        binds = [bind.split(":") for bind in each[f"{prefix}_BINDPATH"].split(",")]
        assert [inside for _, inside in binds] == ["/tmp", "/var/tmp"]
        assert all(outside.startswith(f"{cache}/tmp/") for outside, _ in binds)


# --- the cache ---


def test_the_newest_image_is_listed_first_and_half_ones_never(host: Host, cache: Path) -> None:
    assert list_images(host) == []
    old, new = add_image(cache, "a" * 16), add_image(cache, "b" * 16)
    os.utime(old.folder / "complete", (1_000, 1_000))
    half = add_image(cache, "c" * 16)
    (half.folder / "complete").unlink()
    assert list_images(host) == [new, old]


def test_prune_keeps_what_is_used(host: Host, programs: FakePrograms, cache: Path) -> None:
    used, other = add_image(cache, "a" * 16), add_image(cache, "b" * 16)
    stage = cache / "build/kubernetes-0"
    work = cache / "tmp/node-x"
    stage.mkdir(parents=True)
    work.mkdir(parents=True)
    removed = prune(host, frozenset([used.fingerprint]))
    assert set(removed) == {other.folder, stage, work}
    assert list_images(host) == [used]
    assert not stage.exists()
    assert not work.exists()
    assert prune(host, frozenset([used.fingerprint])) == []


def test_prune_removes_what_a_killed_build_left(
    host: Host, programs: FakePrograms, cache: Path
) -> None:
    half = cache / "node-images/.new-x"
    half.mkdir(parents=True)
    write_sif(half / "node.sif")
    prune(host, frozenset())
    assert not half.exists()


def test_what_changed_compares_with_the_newest_image(host: Host, cache: Path) -> None:
    assert build.what_changed(host, versions.DEBIAN, MIRROR) == []
    parts = build.layers(host, versions.DEBIAN, MIRROR)[-1].parts()
    image = add_image(cache, "a" * 16)
    (image.folder / "parts.json").write_text(
        json.dumps(parts | {"supervisor/programs/kubelet.conf": "other", "gone": "x"})
    )
    assert build.what_changed(host, versions.DEBIAN, MIRROR) == [
        "gone",
        "supervisor/programs/kubelet.conf",
    ]


@pytest.mark.parametrize("text", ["{", "{}"])
def test_an_image_of_unknown_parts_is_compared_with_nothing(
    host: Host, cache: Path, text: str
) -> None:
    image = add_image(cache, "a" * 16)
    (image.folder / "parts.json").write_text(text)
    assert build.what_changed(host, versions.DEBIAN, MIRROR) == []


def test_an_image_knows_its_contents(cache: Path) -> None:
    image = add_image(cache, "a" * 16)
    assert image.versions() == {
        "kubernetes": "v1.20.2",
        "containerd": "1.7.24",
        "nftables": "1.1.3",
    }
    assert image.source == "debian"
    assert image.tag_of("etcd") == "3.4.23-4"
    assert image.tag_of("kube-apiserver") == "v1.20.2"
    with pytest.raises(SykubeError, match="no container image 'apiserver'"):
        image.tag_of("apiserver")
    assert image.size == sum(file.stat().st_size for file in image.folder.iterdir())


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("kubernetes=v1.20.2\nsource=upstream\n", "upstream"),
        # As it was before 1.20 was of both.
        ("kubernetes=v1.36.2\n", "upstream"),
        ("kubernetes=v1.20.2\n", "debian"),
    ],
)
def test_an_image_knows_its_source(cache: Path, lines: str, expected: str) -> None:
    image = add_image(cache, "a" * 16)
    (image.folder / "versions").write_text(lines)
    assert image.source == expected
    assert set(image.versions()) == {"kubernetes"}
