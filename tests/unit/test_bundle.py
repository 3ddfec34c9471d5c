"""sykube bundle and node-image sign, verify on a fake engine."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sykube import resources
from sykube.errors import ExitCode, SykubeError
from sykube.host.grants import Grants
from sykube.host.run import CommandError
from sykube.image import build, bundle
from sykube.image.build import Builder
from tests.fakes import Call, World
from tests.fakes.image import write_sif
from tests.fakes.signatures import PUBLIC_KEY, TRUSTED
from tests.unit.helpers import Sykube

BUILDER = Builder(Path("/usr/bin/apptainer"), {})
SAVED = ["bundle", "save", "--key", TRUSTED]


def failing(words: str) -> tuple[Callable[[Call], bool], Callable[[Call], CommandError]]:
    return (
        lambda call: words in " ".join(call.words),
        lambda call: CommandError("apptainer failed", call.words, "No space left on device"),
    )


@pytest.fixture
def folder(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("APPTAINER_KEYSDIR", "SINGULARITY_SYPGPDIR", "SYKUBE_FINGERPRINT"):
        monkeypatch.delenv(name, raising=False)
    made = tmp_path / "out"
    made.mkdir()
    return made


def test_a_bundle_is_the_image_with_the_manifests_signed(
    world: World, sykube: Sykube, folder: Path
) -> None:
    file, public = folder / "k.sif", folder / "site.pub"
    done = sykube(*SAVED, str(file), "--export-key", str(public))
    assert done.code == 0, done.err
    assert done.out == f"{file}\n"
    (image,) = build.list_images(world.host)
    data = file.read_bytes()
    assert data.startswith(image.sif.read_bytes())
    assert data.endswith(b"signed")
    described = json.loads(data.removeprefix(image.sif.read_bytes()).removesuffix(b"signed"))
    dns = resources.folder("manifests") / "dns.yaml.j2"
    assert described["files"]["manifests/dns.yaml.j2"] == dns.read_text()
    assert public.read_text() == PUBLIC_KEY
    assert f"--local-image k.sif --fingerprint {TRUSTED} --public-key site.pub" in done.err
    assert sorted(path.name for path in folder.iterdir()) == ["k.sif", "site.pub"]
    # The image in the cache stays unsigned.
    assert b"signed" not in image.sif.read_bytes()


@pytest.mark.parametrize("rootless", [False, True])
def test_a_users_bundle_is_the_users_whoever_has_the_image(
    world: World, folder: Path, rootless: bool
) -> None:
    """In a user's namespaces files of root's have no owner, or another user for one."""
    host = replace(world.host, grants=Grants(rootless=rootless))
    (image,) = build.list_images(host)
    bundle.save(host, image, folder / "k.sif", None, BUILDER)
    (copy,) = [words for words in world.programs.argvs if words[0] == "cp"]
    assert ("ownership" in " ".join(copy)) is not rootless


def test_the_line_for_the_other_machine_is_in_the_report(
    world: World, sykube: Sykube, folder: Path
) -> None:
    report = json.loads(sykube(*SAVED, str(folder / "my k.sif"), "-o", "json").out)
    assert report["fingerprint"] == TRUSTED
    assert shlex.split(report["init"]) == [
        *("sykube", "init", "--local-image", "my k.sif", "--fingerprint", TRUSTED)
    ]


def test_an_unsigned_bundle_says_so(world: World, sykube: Sykube, folder: Path) -> None:
    done = sykube("bundle", "save", "--unsigned", str(folder / "k.sif"))
    assert done.code == 0
    assert "Not signed" in done.err
    assert "--no-verify" in done.err
    assert not [argv for argv in world.programs.argvs if argv[1] in ("sign", "key")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--unsigned", "--key", TRUSTED, "OUT/k.sif"], "--unsigned"),
        (["OUT/nowhere/k.sif"], "no such folder"),
        (["OUT"], "cannot be written"),
        (["OUT/k.sif"], "several secret keys"),
        (["--key", TRUSTED[-16:], "OUT/k.sif"], "no whole fingerprint"),
        (["--key", "0" * 40, "OUT/k.sif"], "no secret key"),
    ],
)
def test_what_cannot_become_a_bundle(
    world: World, sykube: Sykube, folder: Path, arguments: list[str], words: str
) -> None:
    done = sykube("bundle", "save", *(text.replace("OUT", str(folder)) for text in arguments))
    assert done.code == ExitCode.USAGE
    assert words in done.err
    assert done.out == ""
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("fails", ["cp --reflink", "sif add", "verify --local"])
def test_a_bundle_that_fails_half_way_leaves_the_old_file(
    world: World, sykube: Sykube, folder: Path, fails: str
) -> None:
    file = folder / "k.sif"
    file.write_text("old")
    world.calls.fail(*failing(fails))
    assert sykube(*SAVED, str(file)).code == ExitCode.FAILED
    assert file.read_text() == "old"
    assert list(folder.iterdir()) == [file]


def test_signing_a_file(world: World, sykube: Sykube, folder: Path) -> None:
    file = folder / "node.sif"
    write_sif(file, "mine")
    done = sykube("node-image", "sign", str(file), "--key", TRUSTED)
    assert done.out == f"{TRUSTED}\n"
    assert file.read_bytes().endswith(b"minesigned")
    done = sykube("node-image", "verify", str(file), "--fingerprint", TRUSTED.lower())
    assert done.out == f"{file}: signed by {TRUSTED}\n"


def test_an_image_in_the_cache_is_not_signed_in_its_place(
    world: World, sykube: Sykube, folder: Path
) -> None:
    (image,) = build.list_images(world.host)
    before = image.sif.read_bytes()
    done = sykube("node-image", "sign", str(image.sif), "--key", TRUSTED)
    assert done.code == ExitCode.USAGE
    assert "bundle save" in done.err
    assert image.sif.read_bytes() == before


def test_an_image_that_is_not_signed(world: World, sykube: Sykube, folder: Path) -> None:
    write_sif(folder / "node.sif", "mine")
    done = sykube("node-image", "verify", str(folder / "node.sif"), "--fingerprint", TRUSTED)
    assert done.code == ExitCode.UNTRUSTED
    assert done.out == ""
    assert done.err.count("error:") == 1


# --- bundles of another sykube ---


def described(world: World, text: str) -> None:
    """Let every image have an object of bundles that holds this."""
    known = world.programs.answers["apptainer"]
    answers = {
        "list": "4    |1       |NONE    |356352-356360             |JSON.Generic\n",
        "info": f"  Data Type:    JSON.Generic\n  Name:         {bundle.OBJECT}\n",
        "dump": text,
    }

    def apptainer(words: list[str]) -> tuple[int, str, str]:
        return (0, answers[words[1]], "") if words[0] == "sif" else known(words)

    world.programs.answers["apptainer"] = apptainer


def test_a_bundle_of_this_sykube_fits(world: World) -> None:
    described(world, json.dumps(bundle._description()))
    bundle.check_fits(world.host, Path("/cache/node.sif"), BUILDER, shown=Path("/k.sif"))


@pytest.mark.parametrize(
    ("change", "different"),
    [
        ({"files": {}}, "cni/host-bridge.conflist.j2"),
        ({"files": None}, "the form of bundles"),
        ({"apiVersion": "sykube/v2"}, "the form of bundles"),
    ],
)
def test_a_bundle_of_another_sykube_does_not(
    world: World, change: dict[str, object], different: str
) -> None:
    described(world, json.dumps(bundle._description() | {"sykube": "9.9"} | change))
    with pytest.raises(SykubeError, match=r"/k.sif was made by sykube 9\.9") as raised:
        bundle.check_fits(world.host, Path("/cache/node.sif"), BUILDER, shown=Path("/k.sif"))
    assert different in raised.value.details


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_bundle_that_says_nothing_of_itself(world: World, text: str) -> None:
    described(world, text)
    with pytest.raises(SykubeError, match="the bundle /k.sif"):
        bundle.check_fits(world.host, Path("/cache/node.sif"), BUILDER, shown=Path("/k.sif"))
