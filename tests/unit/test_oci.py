"""Reading container images from files."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sykube.errors import UsageError
from sykube.host.host import Host
from sykube.image import archive, layout, oci, reference
from sykube.image.oci import ContainerImage
from sykube.image.zstandard import zstd
from tests import containers
from tests.containers import Image

IMAGE = Image([containers.tar({"a": b"one"}), containers.tar({"b": b"two" * 5000})], {"Env": []})
NAME = "docker.io/library/web:1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "parts"
    made.mkdir()
    return made


def one(host: Host, source: Path, folder: Path) -> ContainerImage:
    (found,) = layout.read(host, source, folder)
    return found


def refused(host: Host, source: Path, folder: Path) -> UsageError:
    with pytest.raises(UsageError) as raised:
        layout.read(host, source, folder)
    assert raised.value.resolution
    return raised.value


def check(found: ContainerImage, image: Image = IMAGE) -> None:
    assert found.id == image.id
    assert [part.digest for part in found.layers] == [containers.digest(x) for x in image.layers]
    for part in found.parts:
        content = part.file.read_bytes()
        assert (containers.digest(content), len(content)) == (part.digest, part.size)
        assert f"sha256:{part.file.name}" == part.digest


# --- what is read ---


def test_the_folder_of_an_oci_layout(host: Host, tmp_path: Path, folder: Path) -> None:
    found = one(host, containers.oci_layout(tmp_path / "layout", IMAGE, NAME), folder)
    check(found)
    assert (found.name, found.digest) == (NAME, IMAGE.digest)


def test_an_oci_archive(host: Host, tmp_path: Path, folder: Path) -> None:
    found = one(host, containers.oci_archive(tmp_path / "x.tar", IMAGE, NAME), folder)
    check(found)
    assert (found.name, found.digest) == (NAME, IMAGE.digest)


def test_a_docker_archive_gets_a_manifest_that_is_always_the_same(
    host: Host, tmp_path: Path, folder: Path
) -> None:
    file = containers.docker_archive(tmp_path / "x.tar", IMAGE, "web:1", "other/web:2")
    first, second = layout.read(host, file, folder)
    check(first)
    assert [first.name, second.name] == [NAME, "docker.io/other/web:2"]
    manifest = json.loads(first.manifest.file.read_text())
    assert manifest["config"]["digest"] == IMAGE.id
    assert {layer["mediaType"] for layer in manifest["layers"]} == {oci.LAYER}
    again = tmp_path / "again"
    again.mkdir()
    assert one(host, containers.docker_archive(file, IMAGE, "web:1"), again).digest == first.digest


@pytest.mark.parametrize("make", [containers.oci_archive, containers.docker_archive])
def test_compressed_archives(host: Host, make: object, tmp_path: Path, folder: Path) -> None:
    plain = make(tmp_path / "x.tar", IMAGE, NAME)  # type: ignore[operator]
    packed = tmp_path / "x.tar.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    check(one(host, packed, folder))


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd.compress])
def test_an_archive_through_a_pipe(
    host: Host, pack: Callable[[bytes], bytes], tmp_path: Path, folder: Path
) -> None:
    content = containers.tar(containers.oci_files(IMAGE))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(pack(content),))
    writer.start()
    check(one(host, pipe, folder))
    writer.join()


@pytest.mark.parametrize(("pack", "kind"), [(gzip.compress, "gzip"), (zstd.compress, "zstd")])
def test_compressed_layers_of_a_docker_archive_stay_so(
    host: Host, pack: Callable[[bytes], bytes], kind: str, tmp_path: Path, folder: Path
) -> None:
    files = containers.docker_files(IMAGE, "web:1")
    files = {k: pack(v) if k.endswith("layer.tar") else v for k, v in files.items()}
    (tmp_path / "x.tar").write_bytes(containers.tar(files))
    found = one(host, tmp_path / "x.tar", folder)
    manifest = json.loads(found.manifest.file.read_text())
    assert {layer["mediaType"] for layer in manifest["layers"]} == {f"{oci.LAYER}+{kind}"}


def test_a_layer_that_is_a_link_to_that_of_another_image(
    host: Host, tmp_path: Path, folder: Path
) -> None:
    files = containers.docker_files(IMAGE, "web:1")
    layers = [name for name in files if name.endswith("layer.tar")]
    entry = json.loads(files["manifest.json"])
    entry[0]["Layers"][1] = "twin/layer.tar"
    files["manifest.json"] = json.dumps(entry).encode()
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("twin/layer.tar")
        link.type, link.linkname = tarfile.SYMTYPE, f"../{layers[1]}"
        archive.addfile(link)
    (tmp_path / "x.tar").write_bytes(made.getvalue())
    check(one(host, tmp_path / "x.tar", folder))


def indexed(
    *entries: tuple[Image, str], nested: bool, name: str = NAME, only: str = ""
) -> dict[str, bytes]:
    """The files of a layout whose images are for platforms such as amd64/v3.

    Args:
        nested: they are in an index that the layout's own leads to, as buildx writes it; otherwise
            in the layout's own, as skopeo does.
        only: the one platform whose parts are there.
    """
    listed, files = [], {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}
    for image, platform in entries:
        architecture, _, variant = platform.partition("/")
        of = {"os": "linux", "architecture": architecture} | (
            {"variant": variant} if variant else {}
        )
        notes = {} if nested else {oci.NAME: name}
        listed.append(
            containers.descriptor(image.manifest, oci.MANIFEST, platform=of, annotations=notes)
        )
        if only in ("", platform):
            files |= image.blobs
    if nested:
        index = json.dumps({"schemaVersion": 2, "manifests": listed}).encode()
        files[f"blobs/{containers.digest(index).replace(':', '/')}"] = index
        notes = {oci.NAME: name}
        listed = [containers.descriptor(index, containers.INDEX, annotations=notes)]
    return files | {"index.json": json.dumps({"manifests": listed}).encode()}


OTHER = Image(IMAGE.layers, {}, architecture="s390x")


def amd64(host: Host) -> Host:
    return replace(host, machine=lambda: "x86_64")


NEWER = Image(IMAGE.layers, {"Env": ["of=v3"]})


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("only", ["", "amd64"])
def test_of_several_architectures_this_machines_is_taken(
    host: Host, only: str, nested: bool, tmp_path: Path, folder: Path
) -> None:
    host = amd64(host)
    files = indexed((OTHER, "s390x"), (IMAGE, "amd64"), nested=nested, only=only)
    (tmp_path / "x.tar").write_bytes(containers.tar(files))
    found = one(host, tmp_path / "x.tar", folder)
    check(found)
    assert found.name == NAME


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("plain", ["amd64", "amd64/v1"])
def test_of_several_variants_the_one_that_every_machine_runs_is_taken(
    host: Host, plain: str, nested: bool, tmp_path: Path, folder: Path
) -> None:
    host = amd64(host)
    files = indexed((NEWER, "amd64/v3"), (IMAGE, plain), (NEWER, "amd64/v2"), nested=nested)
    (tmp_path / "x.tar").write_bytes(containers.tar(files))
    check(one(host, tmp_path / "x.tar", folder))


@pytest.mark.parametrize("nested", [True, False])
def test_several_platforms_and_none_for_this_machine(
    host: Host, nested: bool, tmp_path: Path, folder: Path
) -> None:
    host = amd64(host)
    files = indexed((NEWER, "amd64/v3"), (OTHER, "s390x"), nested=nested)
    (tmp_path / "x.tar").write_bytes(containers.tar(files))
    error = refused(host, tmp_path / "x.tar", folder)
    assert "is for linux/amd64/v3, linux/s390x" in error.brief
    assert "needs one for linux/amd64." in error.resolution


def test_one_of_two_images_is_for_another_machine(host: Host, tmp_path: Path, folder: Path) -> None:
    file = containers.oci_archive_of(tmp_path / "x.tar", {NAME: IMAGE, "ghcr.io/b/c:1": OTHER})
    assert "is for linux/s390x" in refused(host, file, folder).brief


@pytest.mark.parametrize("make", [containers.oci_archive, containers.docker_archive])
def test_an_archive_compressed_with_zstd(
    host: Host, make: object, tmp_path: Path, folder: Path
) -> None:
    plain = make(tmp_path / "x.tar", IMAGE, NAME)  # type: ignore[operator]
    (tmp_path / "x.tar.zst").write_bytes(zstd.compress(plain.read_bytes()))
    check(one(host, tmp_path / "x.tar.zst", folder))


@pytest.mark.parametrize(
    ("annotations", "name"),
    [
        ({"org__opencontainers__image__ref__name": "2"}, "docker.io/library/my-tool:2"),
        ({"org__opencontainers__image__ref__name": "a/b:3"}, "docker.io/a/b:3"),
        ({"io__containerd__image__name": "ghcr.io/a/b:3"}, "ghcr.io/a/b:3"),
        ({}, ""),
    ],
)
def test_the_name_is_what_the_layout_says(
    host: Host, annotations: dict[str, str], name: str, tmp_path: Path, folder: Path
) -> None:
    (tmp_path / "My_Tool.tar").write_bytes(
        containers.tar(containers.oci_files(IMAGE, **annotations))
    )
    assert one(host, tmp_path / "My_Tool.tar", folder).name == name


# --- what is refused ---


@pytest.mark.parametrize(
    "content", [b"", b"words", b"\0" * 20480, gzip.compress(b"words", mtime=0)]
)
def test_what_is_no_image(host: Host, content: bytes, tmp_path: Path, folder: Path) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    assert "is no container image" in refused(host, tmp_path / "x.tar", folder).brief
    assert "is no container image" in refused(host, folder, folder).brief


def test_an_archive_of_something_else(host: Host, tmp_path: Path, folder: Path) -> None:
    (tmp_path / "x.tar").write_bytes(containers.tar({"etc/passwd": b"root"}))
    assert "is no container image" in refused(host, tmp_path / "x.tar", folder).brief


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd.compress])
@pytest.mark.parametrize("make", [containers.oci_archive, containers.docker_archive])
def test_an_archive_that_is_cut_off_anywhere(
    host: Host, make: object, pack: Callable[[bytes], bytes], tmp_path: Path, folder: Path
) -> None:
    whole = make(tmp_path / "x.tar", IMAGE, NAME).read_bytes()  # type: ignore[operator]
    # What follows the last file is empty.
    end = whole.rstrip(b"\0")
    content = pack(end)
    # The last of a compressed one is a checksum alone.
    for part in range(1, 18):
        (tmp_path / "x.tar").write_bytes(content[: len(content) * part // 20])
        error = refused(host, tmp_path / "x.tar", folder)
        assert "damaged or cut off" in error.brief or "no container image" in error.brief


def test_a_part_that_was_changed(host: Host, tmp_path: Path, folder: Path) -> None:
    files = containers.oci_files(IMAGE)
    layer = f"blobs/{containers.digest(IMAGE.layers[1]).replace(':', '/')}"
    files[layer] = files[layer].replace(b"two", b"oww", 1)
    (tmp_path / "x.tar").write_bytes(containers.tar(files))
    error = refused(host, tmp_path / "x.tar", folder)
    assert containers.digest(IMAGE.layers[1]) in error.details
    layout = containers.oci_layout(tmp_path / "layout", IMAGE, NAME)
    (layout / layer).write_bytes(b"other")
    assert "holds something else" in refused(host, layout, folder).details


def test_layers_of_a_docker_archive_that_are_not_its_configurations(
    host: Host, tmp_path: Path, folder: Path
) -> None:
    files = containers.docker_files(IMAGE, "web:1")
    layer = next(name for name in files if name.endswith("layer.tar"))
    files[layer] = containers.tar({"a": b"six"})
    (tmp_path / "x.tar").write_bytes(containers.tar(files))
    assert "not those" in refused(host, tmp_path / "x.tar", folder).details


def test_an_image_for_another_machine(host: Host, tmp_path: Path, folder: Path) -> None:
    other = Image(IMAGE.layers, {}, architecture="s390x")
    file = containers.oci_archive(tmp_path / "x.tar", other, NAME)
    assert "is for linux/s390x" in refused(host, file, folder).brief


@pytest.mark.parametrize(
    "manifests", ["[]", "{}", '[{"digest": 1}]', "7", '[{"digest": "sha256:beef", "size": 1}]']
)
def test_an_index_that_leads_nowhere(
    host: Host, manifests: str, tmp_path: Path, folder: Path
) -> None:
    files = containers.oci_files(IMAGE)
    files["index.json"] = f'{{"manifests": {manifests}}}'.encode()
    (tmp_path / "x.tar").write_bytes(containers.tar(files))
    refused(host, tmp_path / "x.tar", folder)


# --- names ---


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("web", "docker.io/library/web:latest"),
        ("web:1.0", "docker.io/library/web:1.0"),
        ("team/web:1", "docker.io/team/web:1"),
        ("localhost/web:1", "localhost/web:1"),
        ("127.0.0.1:5000/web", "127.0.0.1:5000/web:latest"),
        ("ghcr.io/a/b/c:x_Y.z", "ghcr.io/a/b/c:x_Y.z"),
        (f"web@sha256:{'a' * 64}", f"docker.io/library/web@sha256:{'a' * 64}"),
    ],
)
def test_names_in_full(name: str, full: str) -> None:
    assert reference.full(name) == full
    assert reference.full(full) == full


@pytest.mark.parametrize(
    "name", ["", "Web", "web:", "web:-1", "a//b", "-a", "web@sha256:1", "we b", "web@", "a.b/"]
)
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(UsageError, match="no name of a container image"):
        reference.full(name)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("alpine_3.19.sif", "alpine:3.19"),
        ("My Tool.sif", "my-tool:local"),
        ("web.tar.gz", "web:local"),
        ("web.tar.zst", "web:local"),
        ("layout", "layout:local"),
        ("___.sif", "image:local"),
    ],
)
def test_names_of_files(file: str, name: str) -> None:
    assert reference.of_file(Path(file)) == f"docker.io/library/{name}"


# --- what is written ---


def test_what_is_written_is_read_again_by_both_of_its_names(
    host: Host, tmp_path: Path, folder: Path
) -> None:
    source = one(host, containers.oci_layout(tmp_path / "layout", IMAGE, NAME), folder)
    file = tmp_path / "image.tar"
    with file.open("wb") as stream:
        archive.write(source, stream)
    again = tmp_path / "again"
    again.mkdir()
    found = one(host, file, again)
    check(found)
    assert found.name == NAME
    assert found.digest == source.digest
    with tarfile.open(file) as tar:
        files = {each.name: (tar.extractfile(each) or io.BytesIO()).read() for each in tar}
    [docker] = json.loads(files["manifest.json"])
    assert docker["RepoTags"] == [NAME]
    assert files[docker["Config"]] == IMAGE.configuration
    assert [files[layer] for layer in docker["Layers"]] == IMAGE.layers


def test_a_layer_that_is_there_twice_is_written_once(
    host: Host, tmp_path: Path, folder: Path
) -> None:
    twice = Image([IMAGE.layers[0]] * 2, {})
    source = one(host, containers.oci_layout(tmp_path / "layout", twice, NAME), folder)
    written = io.BytesIO()
    archive.write(source, written)
    written.seek(0)
    with tarfile.open(fileobj=written) as tar:
        names = tar.getnames()
    assert len(names) == len({*names}) == 6
