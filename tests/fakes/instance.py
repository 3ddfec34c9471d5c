"""A node that runs: its files, and what its containerd has."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
from dataclasses import dataclass, field
from pathlib import Path

from sykube.node.engine import InstanceOptions
from tests.fakes.files import fill
from tests.fakes.image import kubernetes_of

PKI = "/etc/kubernetes/pki"


KUBELET_CONF = "/etc/kubernetes/kubelet.conf"


# What kubeadm init makes and further control planes need.
SHARED_KEYS = tuple(
    f"{PKI}/{name}"
    for name in (
        *("ca.crt", "ca.key", "sa.pub", "sa.key", "front-proxy-ca.crt", "front-proxy-ca.key"),
        *("etcd/ca.crt", "etcd/ca.key"),
    )
)


@dataclass
class FakeInstance:
    """A running instance: what it was started with and the files made in it."""

    pid: int
    options: InstanceOptions
    files: dict[str, str] = field(default_factory=dict)
    # Its link on the host, and the routes and names that it knows.
    link: str = ""
    index: int = 0
    routes: list[str] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)
    # Scripts that nftables took.
    nft: list[str] = field(default_factory=list)
    has_nftables: bool = True
    # Held by what reads its standard input, which is a file here.
    reading: threading.Lock = field(default_factory=threading.Lock)

    def on_host(self, path: str) -> Path | None:
        """Where a path of the instance lies on the host, if it is bound."""
        for host, bound in self.options.binds:
            inside = bound.removesuffix(":ro")
            if path.startswith(inside + "/"):
                return host / path.removeprefix(inside + "/")
        return None

    def config(self, name: str) -> list[str]:
        """Lines of a file of /etc/sykube."""
        file = self.on_host(f"/etc/sykube/{name}")
        assert file is not None
        return file.read_text().splitlines()

    def lay_network(self) -> None:
        """What node-network does."""
        self.routes, self.hosts = self.config("routes"), self.config("hosts")

    @property
    def version(self) -> str:
        """Of Kubernetes, with its v, that its image is of."""
        return kubernetes_of(self.options.image.parent)

    def seed(self) -> None:
        """Let containerd have the images of the node image, as node-init does where it has none.

        What it has of another node image leads nowhere.
        """
        file = self._store / "images.json"
        if not file.exists():
            names = (self.options.image.parent / "container-images").read_text().split()
            seeded = dict.fromkeys(names, "sha256:" + "0" * 64)
            fill(self._store, {file.name: json.dumps(seeded), "seeded-from": self.version})
        assert (self._store / "seeded-from").read_text() == self.version, "links lead nowhere"

    @property
    def _store(self) -> Path:
        return next(host for host, inside in self.options.binds if inside.endswith("/containerd"))

    @property
    def images(self) -> dict[str, str]:
        """What containerd calls its images, and the digest of each."""
        return json.loads((self._store / "images.json").read_text())  # type: ignore[no-any-return]

    @images.setter
    def images(self, value: dict[str, str]) -> None:
        (self._store / "images.json").write_text(json.dumps(value))

    @property
    def content(self) -> Path:
        """The folder with parts of images, each under its digest."""
        return self._store / "io.containerd.content.v1.content/blobs/sha256"

    def part(self, name: str) -> Path:
        """A part of an image, as the node sees it: what its node image brought is a link."""
        file = self.content / name
        return self.options.image.parent / "seed" / name if file.is_symlink() else file

    @property
    def manifests(self) -> Path:
        """Its static pods, as they lie on the host."""
        return self.options.overlay / "upper/etc/kubernetes/manifests"

    @property
    def works(self) -> bool:
        """Whether it has the images that its static pods name."""
        wanted = [file.read_text() for file in self.manifests.glob("*.yaml")]
        return bool(wanted) and {*wanted} <= {*self.images}

    def import_image(self, folder: str, id_: str, image: str) -> None:
        """What containerd does with the folder of a load: every part must be there."""
        place = self.on_host(folder)
        assert place is not None
        parts = {file.name: file.read_bytes() for file in place.iterdir()}
        with tarfile.open(fileobj=io.BytesIO(parts.pop("index.tar"))) as archive:
            for member in archive:
                file = archive.extractfile(member)
                assert file is not None
                parts[member.name.rpartition("/")[2]] = file.read()
        (entry,) = json.loads(parts["index.json"])["manifests"]
        assert entry["annotations"]["io.containerd.image.name"] == image
        manifest = json.loads(parts[entry["digest"].removeprefix("sha256:")])
        wanted = [entry, manifest["config"], *manifest["layers"]]
        for each in wanted:
            content = parts[each["digest"].removeprefix("sha256:")]
            assert f"sha256:{hashlib.sha256(content).hexdigest()}" == each["digest"]
        assert manifest["config"]["digest"] == id_
        self.images = self.images | {image: entry["digest"], id_: entry["digest"]}
        self.content.mkdir(parents=True, exist_ok=True)
        for name, content in parts.items():
            (self.content / name).write_bytes(content)

    @property
    def joined(self) -> bool:
        """Whether its kubelet is a member of a cluster."""
        return {KUBELET_CONF, f"{PKI}/ca.crt"} <= set(self.files)

    @property
    def has_control_plane(self) -> bool:
        return "/etc/kubernetes/admin.conf" in self.files
