"""Node images of a fake host."""

from __future__ import annotations

import json
from pathlib import Path

from sykube.image.node_image import NodeImage

CONTAINER_IMAGES = {
    "k8s.gcr.io/kube-apiserver": "v1.20.2",
    "k8s.gcr.io/etcd": "3.4.23-4",
    "sykube.local/system": "1",
}


IMAGE_FILES = {
    "/usr/bin/kubectl": "#!/bin/sh\n",
    "/usr/share/sykube/versions": "kubernetes=v1.20.2\ncontainerd=1.7.24\nnftables=1.1.3\n",
    "/usr/share/sykube/container-images": "".join(
        f"{k}:{v}\n" for k, v in CONTAINER_IMAGES.items()
    ),
}


CONTAINERD_CONFIG = (Path(__file__).parents[2] / "definitions/node/containerd.toml").read_text()


def kubernetes_of(image: Path) -> str:
    """The version of Kubernetes, with its v, of a node image."""
    facts = dict(line.split("=") for line in (image / "versions").read_text().splitlines())
    return facts["kubernetes"]


def write_sif(path: Path, text: str = "") -> None:
    """Write what looks like a SIF image."""
    path.write_bytes(b"#!/usr/bin/env run-singularity\n\0" + b"SIF_MAGIC\0" + text.encode())


def add_image(
    cache: Path, fingerprint: str, *, version: str = "v1.20.2", **parts: str
) -> NodeImage:
    """Put a complete node image into a cache."""
    folder = cache / "node-images" / fingerprint
    folder.mkdir(parents=True)
    write_sif(folder / "node.sif", "" if version == "v1.20.2" else version)
    for path, text in IMAGE_FILES.items():
        text = text.replace("v1.20.2", version)
        # As tests/update has it: it is none of Debian's own versions.
        more = "source=debian\n" if "kubernetes=" in text and version != "v1.20.2" else ""
        (folder / Path(path).name).write_text(text + more)
    (folder / "parts.json").write_text(json.dumps(parts))
    (folder / "complete").touch()
    return NodeImage(fingerprint, folder)
