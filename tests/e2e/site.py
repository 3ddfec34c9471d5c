"""A site as companies have them: the world is behind a proxy, and its authority is their own.

The registry has a name that no resolver knows and listens on the host's loopback: only who asks
the proxy for it gets there.
"""

from __future__ import annotations

import base64
import gzip
import json
import select
import socket
import ssl
import subprocess
import tarfile
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from sykube.image import oci
from tests.containers import descriptor, digest
from tests.e2e.registry import Served

REGISTRY, STRANGER = "registry.site.test", "stranger.site.test"
# Of what RFC 2544 keeps for benchmarks: it is on no network, and on no other link of the host.
LINK, ADDRESS = "e2esite0", "198.18.53.1"


class Link:
    """An address of the host that nodes reach and that nothing else listens on."""

    def __init__(self) -> None:
        self.close()
        for words in (
            ["link", "add", LINK, "type", "bridge"],
            # An address of IPv6 would come by itself, some time later.
            ["link", "set", LINK, "addrgenmode", "none"],
            ["address", "add", f"{ADDRESS}/32", "dev", LINK],
            ["link", "set", LINK, "up"],
        ):
            subprocess.run(["ip", *words], check=True)

    def close(self) -> None:
        subprocess.run(["ip", "link", "delete", LINK], check=False, stderr=subprocess.DEVNULL)


class Proxy(Served):
    """A forward proxy that asks for a password, and notes who wanted to go where."""

    def __init__(self, user: str, password: str, places: dict[str, int]) -> None:
        self.wanted: list[tuple[str, str]] = []
        self.refused: list[str] = []
        self._places = places
        credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._expected = f"Basic {credentials}"
        super().__init__((ADDRESS, 0), self._handler())

    def _handler(proxy) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            def do_CONNECT(self) -> None:
                if self.headers.get("Proxy-Authorization") != proxy._expected:
                    proxy.refused.append(self.path)
                    self.send_error(407)
                    return
                proxy.wanted.append((self.client_address[0], self.path))
                name, _, port = self.path.partition(":")
                if port != "443" or name not in proxy._places:
                    self.send_error(502)
                    return
                with socket.create_connection(("127.0.0.1", proxy._places[name])) as there:
                    self.send_response(200, "Connection established")
                    self.end_headers()
                    _pass_on(self.connection, there)
                self.close_connection = True

            def do_GET(self) -> None:
                proxy.wanted.append((self.client_address[0], self.path))
                self.send_error(502)

            def log_message(self, *_: object) -> None:
                """Not on the tests' terminal."""

        return Handler


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    """Bytes, both ways, until one side ends."""
    while True:
        for source in select.select([one, other], [], [])[0]:
            data = source.recv(65536)
            if not data:
                return
            (other if source is one else one).sendall(data)


def secured(folder: Path) -> ssl.SSLContext:
    """TLS with the server's certificate that `make_authority` has made in a folder."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "crt", folder / "key")
    return context


def new_image(archive: Path) -> tuple[dict[str, bytes], bytes]:
    """The image of an OCI archive with other digests, so that no node has any part of it.

    Returns:
        Its blobs by digest, and its manifest.
    """
    with tarfile.open(archive) as tar:
        files = {
            member.name: stream.read() for member in tar if (stream := tar.extractfile(member))
        }
    blobs = {f"sha256:{Path(name).name}": data for name, data in files.items() if "blobs" in name}
    manifest: dict[str, Any] = json.loads(
        blobs[json.loads(files["index.json"])["manifests"][0]["digest"]]
    )
    config = json.loads(blobs[manifest["config"]["digest"]])
    config["config"]["Labels"] = {"site": "test"}
    new = {"config": (json.dumps(config).encode(), oci.CONFIG)}
    for number, layer in enumerate(manifest["layers"]):
        data = blobs[layer["digest"]]
        plain = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        new[str(number)] = (
            gzip.compress(plain, compresslevel=1, mtime=1),
            f"{oci.LAYER}+gzip",
        )
    described = {name: descriptor(data, kind) for name, (data, kind) in new.items()}
    manifest |= {
        "schemaVersion": 2,
        "mediaType": oci.MANIFEST,
        "config": described.pop("config"),
        "layers": list(described.values()),
    }
    return {digest(data): data for data, _ in new.values()}, json.dumps(manifest).encode()


def make_authority(folder: Path, name: str) -> Path:
    """A certificate authority and, by it, a server's certificate for a name; the authority's."""
    folder.mkdir()
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    usage = ("-addext", "keyUsage=critical,digitalSignature,keyCertSign")
    authority = folder / "ca.pem"
    _openssl("req", "-x509", *key, "-subj", f"/CN=authority of {name}", *usage,
             "-keyout", folder / "ca.key", "-out", authority)  # fmt: skip
    _openssl("req", *key[:-2], "-subj", f"/CN={name}",
             "-keyout", folder / "key", "-out", folder / "csr")  # fmt: skip
    (folder / "extensions").write_text(f"subjectAltName=DNS:{name}\nbasicConstraints=CA:FALSE\n")
    _openssl("x509", "-req", "-in", folder / "csr", "-CA", authority, "-CAkey", folder / "ca.key",
             "-CAcreateserial", "-days", "2", "-extfile", folder / "extensions",
             "-out", folder / "crt")  # fmt: skip
    return authority


def _openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
