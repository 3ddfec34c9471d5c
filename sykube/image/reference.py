"""Names of container images: REGISTRY/REPOSITORY:TAG, as containerd and Docker read them."""

from __future__ import annotations

import re
from pathlib import Path

from sykube.errors import UsageError
from sykube.image.registries import HOST

_DEFAULT_REGISTRY = "docker.io"
# github.com/distribution/reference, regexp.go
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SUFFIXES = (".sif", ".tar", ".tar.gz", ".tgz", ".tar.zst", ".oci")
# Not `latest`: the kubelet would look for it in a registry before every start.
LOCAL_TAG = "local"


def full(name: str) -> str:
    """A name as nodes know it: `web` is docker.io/library/web:latest.

    Raises:
        UsageError: it is no name of an image.
    """
    rest, _, digest = name.partition("@")
    head, slash, tail = rest.partition("/")
    is_registry = bool(slash) and (any(each in head for each in ".:") or head == "localhost")
    registry, path = (head, tail) if is_registry else (_DEFAULT_REGISTRY, rest)
    path, colon, tag = path.partition(":")
    if registry == _DEFAULT_REGISTRY and "/" not in path:
        path = f"library/{path}"
    if (
        not HOST.fullmatch(registry)
        or not _PATH.fullmatch(path)
        or (colon and not _TAG.fullmatch(tag))
        or (digest and not _DIGEST.fullmatch(digest))
        or name.endswith("@")
    ):
        raise UsageError(
            f"{name!r} is no name of a container image",
            resolution="Take NAME:TAG or REGISTRY/NAME:TAG, in lower-case letters, such as web:1.0",
        )
    if digest:
        return f"{registry}/{path}@{digest}"
    return f"{registry}/{path}:{tag or 'latest'}"


def is_id(text: str) -> bool:
    """Whether this is the digest of an image's configuration, which no name can look like."""
    return _DIGEST.fullmatch(text) is not None


def of_file(file: Path, tag: str = "") -> str:
    """A name from that of a file: tool_1.2.sif is docker.io/library/tool:1.2.

    Args:
        tag: of the image, where it is known from elsewhere.
    """
    stem = file.name
    for suffix in sorted(_SUFFIXES, key=len, reverse=True):
        if stem.lower().endswith(suffix) and len(stem) > len(suffix):
            stem = stem[: -len(suffix)]
            break
    # Apptainer names what it pulls NAME_TAG.sif.
    name, _, version = stem.rpartition("_")
    if tag or not name or not _TAG.fullmatch(version):
        name, version = stem, tag or LOCAL_TAG
    name = "-".join(re.findall(r"[a-z0-9]+", name.lower())) or "image"
    return full(f"{name}:{version}")
