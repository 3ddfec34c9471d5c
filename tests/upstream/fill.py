"""Fills a folder with the programs of a release, as release.py reads it: scripts/release-programs.

The programs of Kubernetes, containerd and runc come from the release sites as for a cluster, with
their checksums verified; those of etcd, CoreDNS and pause out of the very images that its kubeadm
names, which skopeo verifies by their digests. Mirrors are named by sykube's own variables.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from sykube.cluster.operations import site_network
from sykube.errors import SykubeError
from sykube.host.download import Access, Downloader
from sykube.host.host import Host
from sykube.image import mirrors, upstream
from sykube.image.mirrors import SETTINGS
from sykube.image.upstream import Release
from sykube.ui import Ui
from tests.upstream import release

# The names of images, and where their programs are.
_IN_IMAGES = {
    "etcd": tuple(f"usr/local/bin/{name}" for name in ("etcd", "etcdctl", "etcdutl")),
    "coredns": ("coredns",),
    "pause": ("pause",),
}
_PULL_S = 1800


def main(argv: Sequence[str] | None = None) -> int:
    """Fill a folder; the exit code."""
    variables = ", ".join(each.variable for each in SETTINGS.values())
    parser = argparse.ArgumentParser(
        prog="scripts/release-programs",
        description="Fill a folder with the programs of a release of Kubernetes, and of what goes "
        f"with it, for SYKUBE_TEST_RELEASE. Mirrors: {variables}.",
    )
    parser.add_argument("version", metavar="VERSION", help="stable, 1.36 or 1.36.2")
    parser.add_argument("folder", metavar="DIR", type=Path)
    parser.add_argument("--ca-certificate", metavar="FILE", action="append", default=[])
    parser.add_argument("--registry-auth", metavar="FILE", type=Path)
    options = parser.parse_args(argv)
    ui = Ui()
    try:
        _fill(options.version, options.folder, options.ca_certificate, options.registry_auth, ui)
    except SykubeError as error:
        ui.error(error)
        return int(error.exit_code)
    return 0


def _fill(
    version: str, folder: Path, authorities: Sequence[str], auth: Path | None, ui: Ui
) -> None:
    found_sites = mirrors.chosen({}, os.environ)
    downloader = Downloader(Access(authorities=site_network.authorities(tuple(authorities))))
    resolved = upstream.resolve(Host(), version, upstream.minors(), found_sites, downloader)
    wanted = Release.of(resolved.kubernetes)
    files = upstream.fetch(
        Host(), wanted, found_sites, downloader, ui.step, ui.note, further=release.KUBERNETES
    )
    folder.mkdir(parents=True, exist_ok=True)
    # A folder that is half filled is none of a release.
    (folder / release.VERSIONS_FILE).unlink(missing_ok=True)
    for name, file in files.items():
        if name != "containerd":
            _put(file.path, folder / name)
    with tarfile.open(files["containerd"].path) as archive:
        for name in release.CONTAINERD:
            _take(archive, f"bin/{name}", folder / name)
    names = release.image_names(folder / "kubeadm", resolved.kubernetes, found_sites.images)
    for name, paths in _IN_IMAGES.items():
        with ui.step(f"Pulling {names[name]}"):
            _from_image(names[name], paths, folder, authorities, auth)
    versions = {
        "kubernetes": resolved.kubernetes,
        "containerd": wanted.containerd,
        "runc": wanted.runc,
        # Tags such as 3.6.8-0, v1.14.2 and 3.10.2.
        **{
            name: names[name].rpartition(":")[2].lstrip("v").partition("-")[0]
            for name in _IN_IMAGES
        },
    }
    lines = [f"{name}={versions[name]}\n" for name in release.VERSIONS]
    (folder / release.VERSIONS_FILE).write_text("".join(lines), encoding="utf-8")
    ui.say(f"{folder} has Kubernetes {resolved.kubernetes}.")


def _from_image(
    reference: str,
    paths: Iterable[str],
    folder: Path,
    authorities: Sequence[str],
    auth: Path | None,
) -> None:
    """Take programs out of an image; those that no layer has are left out."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        words = ["skopeo", "--insecure-policy", "copy", "--quiet", "--retry-times=5"]
        if auth:
            words += ["--src-authfile", str(auth)]
        if authorities:
            (work / "authorities").mkdir()
            for number, file in enumerate(authorities):
                shutil.copyfile(file, work / f"authorities/{number}.crt")
            words += ["--src-cert-dir", str(work / "authorities")]
        words += [f"docker://{reference}", f"dir:{work / 'image'}"]
        done = subprocess.run(
            words, stderr=subprocess.PIPE, text=True, check=False, timeout=_PULL_S
        )
        if done.returncode != 0:
            raise SykubeError(
                f"cannot pull the image {reference}",
                details=done.stderr.strip(),
                resolution="Another registry: SYKUBE_IMAGE_REPOSITORY",
            )
        manifest = json.loads((work / "image/manifest.json").read_text(encoding="utf-8"))
        for layer in manifest["layers"]:
            with tarfile.open(work / "image" / layer["digest"].partition(":")[2]) as archive:
                there = {each.removeprefix("./").lstrip("/"): each for each in archive.getnames()}
                for path in paths:
                    if path in there:
                        _take(archive, there[path], folder / Path(path).name)


def _take(archive: tarfile.TarFile, path: str, target: Path) -> None:
    stream = archive.extractfile(path)
    assert stream, path
    with tempfile.NamedTemporaryFile(dir=target.parent) as file:
        shutil.copyfileobj(stream, file)
        file.flush()
        _put(Path(file.name), target)


def _put(source: Path, target: Path) -> None:
    """A program at its place, also where one of an earlier run is being executed."""
    target.unlink(missing_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755)


if __name__ == "__main__":
    sys.exit(main())
