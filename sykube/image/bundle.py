"""Bundles: everything that init needs, in one signed file.

A bundle is a node image, which holds Kubernetes' programs and the container images of its control
plane and of the add-ons, with one more object: the manifests and the network configuration that
this sykube applies to a cluster. They are installed with sykube, whose code fills them in, so init
does not take them from the bundle; it refuses a bundle whose own differ from them. What is applied
is then what was signed, and what the container images of the bundle were made for.
"""

from __future__ import annotations

import json
import re
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from sykube import resources
from sykube.errors import SykubeError, UsageError
from sykube.host import files
from sykube.host.host import Host
from sykube.image import signature
from sykube.image.build import Builder
from sykube.image.node_image import NodeImage
from sykube.image.signature import SigningKey

OBJECT = "sykube-bundle.json"
_VERSION = "sykube/v1alpha1"
_KIND = "Bundle"
_FOLDERS = ("manifests", "cni")
# `apptainer sif add --help`: GenericJSON. The image's own objects are in group 1, too, and so one
# signature covers all of them.
_GENERIC_JSON = "6"
_GROUP = "1"
_JSON_ROW = re.compile(r"^(\d+) *\|[^|]*\|[^|]*\|[^|]*\|JSON\.Generic", re.MULTILINE)
_COPY_TIMEOUT_S = 3600.0


def save(
    host: Host, image: NodeImage, file: Path, key: SigningKey | None, builder: Builder
) -> None:
    """Write a bundle, signed where there is a key; a file of that name is replaced at the end.

    Raises:
        SykubeError: it could not be written or signed; nothing was changed.
    """
    with files.replaced(file) as work:
        _copy(host, image.sif, work)
        description = work.parent / OBJECT
        description.write_text(
            json.dumps(_description(), indent=1, sort_keys=True), encoding="utf-8"
        )
        host.run(
            [
                builder.binary, "sif", "add", "--datatype", _GENERIC_JSON, "--groupid", _GROUP,
                "--filename", OBJECT, work, description,
            ],
            env=builder.environment,
        )  # fmt: skip
        if key:
            signature.sign(host, work, key, builder)


def sign(host: Host, file: Path, key: SigningKey, builder: Builder) -> None:
    """Add a signature to an image file of the user's.

    Raises:
        SykubeError: it could not be signed; nothing was changed.
    """
    with files.replaced(file) as work:
        _copy(host, file, work)
        signature.sign(host, work, key, builder)


def check_fits(host: Host, sif: Path, builder: Builder, *, shown: Path) -> None:
    """Refuse a bundle that was made by a sykube with other manifests; any other image fits.

    Raises:
        SykubeError: it is so.
    """
    found = _read(host, sif, builder)
    if found is None:
        return
    own = _description()
    if found.get("apiVersion") != _VERSION or not isinstance(found.get("files"), dict):
        differ = ["the form of bundles"]
    else:
        ours, theirs = own["files"], found["files"]
        differ = sorted(name for name in ours | theirs if ours.get(name) != theirs.get(name))
    if differ:
        raise SykubeError(
            f"the bundle {shown} was made by sykube {found.get('sykube', '?')}, which is not like "
            f"this one ({own['sykube']})",
            details="different: " + ", ".join(differ),
            resolution="Install the same sykube here, or create the bundle again with this one's "
            "version: sykube bundle save FILE",
        )


def _description() -> dict[str, Any]:
    return {
        "apiVersion": _VERSION,
        "kind": _KIND,
        "sykube": installed_version("sykube"),
        "files": {
            f"{name}/{file.name}": file.read_text(encoding="utf-8")
            for name in _FOLDERS
            for file in sorted(resources.folder(name).iterdir())
            if file.is_file()
        },
    }


def _read(host: Host, sif: Path, builder: Builder) -> dict[str, Any] | None:
    """What a bundle says of itself; None where an image is no bundle."""
    listed = host.run([builder.binary, "sif", "list", sif], env=builder.environment, check=False)
    if not listed.ok:
        raise UsageError(
            f"{sif} is damaged or cut short",
            details=listed.stderr.strip(),
            resolution="Get the file again.",
        )
    for number in _JSON_ROW.findall(listed.stdout):
        info = host.run([builder.binary, "sif", "info", number, sif], env=builder.environment)
        if re.search(rf"^ *Name: +{re.escape(OBJECT)}$", info.stdout, re.MULTILINE):
            text = host.run(
                [builder.binary, "sif", "dump", number, sif], env=builder.environment
            ).stdout
            return _mapping(text)
    return None


def _mapping(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _copy(host: Host, source: Path, target: Path) -> None:
    # What a user writes is the user's, to whom a cache may show files of others.
    kept = "mode" if host.grants.rootless else "mode,ownership"
    host.run(
        ["cp", "--reflink=auto", f"--preserve={kept}", source, target], timeout=_COPY_TIMEOUT_S
    )
