"""A node image in the cache."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from sykube.errors import SykubeError
from sykube.image.choice import DEBIAN, UPSTREAM

# Among the versions that an image of upstream's names.
_SOURCE = "source"


@dataclass(frozen=True)
class NodeImage:
    """A node image in the cache.

    Attributes:
        fingerprint: identifies what it was made from.
        folder: holds node.sif, kubectl, and what was read from the image.
    """

    fingerprint: str
    folder: Path

    @property
    def sif(self) -> Path:
        return self.folder / "node.sif"

    @property
    def built_here(self) -> bool:
        """Whether this machine built it; otherwise the user gave it (--local-image)."""
        try:
            return bool(json.loads((self.folder / "parts.json").read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return False

    @property
    def kubectl(self) -> Path:
        return self.folder / "kubectl"

    def container_images(self) -> list[str]:
        return (self.folder / "container-images").read_text(encoding="utf-8").split()

    def versions(self) -> dict[str, str]:
        """Program → version; `kubernetes` has its v."""
        return {name: value for name, value in self._facts().items() if name != _SOURCE}

    @property
    def source(self) -> str:
        """Where its Kubernetes comes from: debian or upstream."""
        # Not above: each cluster has an image, whose source is seldom asked for.
        from sykube.image import versions

        facts = self._facts()
        debians = facts["kubernetes"] == f"v{versions.DEBIAN.kubernetes_version}"
        return facts.get(_SOURCE) or (DEBIAN if debians else UPSTREAM)

    def _facts(self) -> dict[str, str]:
        lines = (self.folder / "versions").read_text(encoding="utf-8").splitlines()
        return dict(line.split("=", 1) for line in lines)

    def tag_of(self, image: str) -> str:
        """The tag of one of its container images, by the last part of its name."""
        return self.name_of(image).rpartition(":")[2]

    @property
    def repository(self) -> str:
        """The registry, and path, that the control plane's images are named after."""
        return self.name_of("kube-apiserver").rpartition("/")[0]

    def name_of(self, image: str) -> str:
        """The whole name of one of its container images, by the last part of it.

        Raises:
            SykubeError: it has none.
        """
        for name in self.container_images():
            if name.rpartition(":")[0].rpartition("/")[2] == image:
                return name
        raise SykubeError(
            f"the node image {self.sif} holds no container image {image!r}",
            resolution="Make one with: sykube node-image build",
        )

    @property
    def size(self) -> int:
        return sum(file.stat().st_size for file in self.folder.iterdir())
