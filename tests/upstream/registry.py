"""Debian's docker-registry, and images put into it by its own API.

API: https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import requests

from sykube.image import oci
from tests.containers import descriptor, digest
from tests.e2e.cluster import eventually

LOGIN = "me:secret-of-the-registry"
# Of that password, by crypt(3) with bcrypt, which is what the registry reads.
_HTPASSWD = "me:$2y$05$abcdefghijklmnopqrstuuIwTm9henchirBqUfvuoNrWExGiIP5SK\n"
_CONFIG = """\
version: 0.1
log:
  level: warn
storage:
  filesystem:
    rootdirectory: /srv/registry
http:
  addr: 127.0.0.1:{port}
  tls:
    certificate: /srv/crt
    key: /srv/key
auth:
  htpasswd:
    realm: site
    path: /srv/htpasswd
"""


@dataclass(frozen=True)
class Image:
    """A container image in memory."""

    blobs: Mapping[str, bytes]
    manifest: bytes

    @classmethod
    def of(cls, archive: Path) -> Image:
        """The image of an OCI archive."""
        with tarfile.open(archive) as opened:
            files = {
                each.name.removeprefix("./"): stream.read()
                for each in opened
                if (stream := opened.extractfile(each))
            }
        blobs = {digest(data): data for name, data in files.items() if name.startswith("blobs/")}
        return cls(blobs, blobs[json.loads(files["index.json"])["manifests"][0]["digest"]])

    def with_layer(self, layer: bytes) -> Image:
        """The same with one more layer, a tar."""
        manifest = json.loads(self.manifest)
        config = json.loads(self.blobs[manifest["config"]["digest"]])
        config["rootfs"]["diff_ids"].append(digest(layer))
        data = json.dumps(config).encode()
        manifest["config"] = descriptor(data, oci.CONFIG)
        manifest["layers"].append(descriptor(layer, oci.LAYER))
        return Image(
            {**self.blobs, digest(data): data, digest(layer): layer}, json.dumps(manifest).encode()
        )

    @property
    def parts(self) -> dict[str, bytes]:
        """Its configuration and layers by their digests."""
        manifest = json.loads(self.manifest)
        names = [each["digest"] for each in (manifest["config"], *manifest["layers"])]
        return {name: self.blobs[name] for name in names}


class DebianRegistry:
    """docker-registry with https and a password, from its making to `close`.

    Args:
        root: a root file system of Debian that has it.
        tls: a folder with crt, key, and ca.pem, the authority.
    """

    def __init__(self, root: Path, tls: Path, port: int) -> None:
        self.port, self._log, self._known = port, root.with_name("registry.log"), 0
        self._session = requests.Session()
        user, _, password = LOGIN.partition(":")
        self._session.verify, self._session.auth = str(tls / "ca.pem"), (user, password)
        # REQUESTS_CA_BUNDLE would stand above it.
        self._session.trust_env = False
        for name in ("crt", "key"):
            (root / "srv" / name).write_bytes((tls / name).read_bytes())
        (root / "srv/htpasswd").write_text(_HTPASSWD)
        (root / "srv/config.yml").write_text(_CONFIG.format(port=port))
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                ["chroot", root, "docker-registry", "serve", "/srv/config.yml"],
                stdout=log,
                stderr=log,
            )
        try:
            eventually("docker-registry answers", self._answers, 30)
        except AssertionError:
            self.close()
            raise

    @property
    def asked(self) -> list[str]:
        """Lines of its access log, since `forget`."""
        lines = self._log.read_text()[self._known :].splitlines()
        return [line for line in lines if "HTTP/" in line]

    def forget(self) -> None:
        """Begin `asked` anew."""
        self._known = len(self._log.read_text())

    def put(self, repository: str, tag: str, image: Image) -> None:
        """Keep an image under a name."""
        at = f"https://localhost:{self.port}/v2/{repository}"
        for name, data in image.parts.items():
            if self._session.head(f"{at}/blobs/{name}").ok:
                continue
            begun = self._session.post(f"{at}/blobs/uploads/")
            begun.raise_for_status()
            place = begun.headers["Location"]
            kind = {"Content-Type": "application/octet-stream"}
            put = self._session.put(place, params={"digest": name}, data=data, headers=kind)
            put.raise_for_status()
        kind = {"Content-Type": oci.MANIFEST}
        put = self._session.put(f"{at}/manifests/{tag}", data=image.manifest, headers=kind)
        put.raise_for_status()

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=30)
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answers(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        try:
            return self._session.get(f"https://localhost:{self.port}/v2/", timeout=5).ok
        except requests.ConnectionError:
            return False
