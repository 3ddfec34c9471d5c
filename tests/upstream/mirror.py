"""What stands for upstream on loopback: its release sites and its registry, of this very machine.

They have the programs and container images of releases in folders (release.py), or, where none is
given, those that sykube has built of Debian's source (debian.py), laid out as upstream's releases
and put into Debian's docker-registry. containerd and runc are under the numbers that sykube's
table has for that Kubernetes, and images under those that its kubeadm names, whatever they are.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sykube.host import engines
from sykube.host.host import Host
from sykube.image import mirrors, oci, upstream
from sykube.image.build import Builder
from tests import releases
from tests.e2e.site import make_authority
from tests.releases import CONTAINERD, RUNC, Server
from tests.upstream import debian, release
from tests.upstream.registry import LOGIN, DebianRegistry
from tests.upstream.release import Release

# A folder of a release; none for that of Debian's source.
VARIABLE = "SYKUBE_TEST_RELEASE"
SITE_LOGIN = "me:secret-of-the-site"
# The node image is named after it: one that is cached is found again.
PORT = 5443
# Folders with the certificates of the one and the other, each of an authority of its own.
_SITE, _REGISTRY = "site", "registry"
_BUILD_S = 3000


@dataclass(frozen=True)
class Mirror:
    """The servers, and how a user names them."""

    server: Server
    registry: DebianRegistry
    folder: Path
    releases: tuple[Release, ...]

    @property
    def version(self) -> str:
        """The newest Kubernetes that it has."""
        return self.releases[0].kubernetes

    @property
    def host(self) -> str:
        """The registry's name and port."""
        return f"localhost:{self.registry.port}"

    @property
    def repository(self) -> str:
        """Where the images of the control plane are."""
        return f"{self.host}/kubernetes"

    @property
    def references(self) -> dict[str, str]:
        """The images that it has of its newest Kubernetes, by the last part of their names."""
        return self.releases[0].names(self.repository)

    @property
    def sites(self) -> dict[str, str]:
        """By the field of mirrors.Mirrors."""
        url = self.server.url
        return {
            "kubernetes": url,
            "containerd": f"{url}{CONTAINERD}",
            "runc": f"{url}{RUNC}",
            "images": self.repository,
        }

    def options(
        self,
        *,
        repository: str = "",
        authorities: Sequence[str] = (_SITE, _REGISTRY),
        auth: str = "auth",
    ) -> tuple[str, ...]:
        """Of the commands that choose a Kubernetes."""
        named = self.sites | ({"images": repository} if repository else {})
        return (
            *("--source", "upstream", "--kubernetes-version", self.version),
            *(word for name, at in named.items() for word in (mirrors.SETTINGS[name].option, at)),
            *self.trust(authorities, auth),
        )

    def trust(
        self, authorities: Sequence[str] = (_REGISTRY,), auth: str = "auth"
    ) -> tuple[str, ...]:
        """Of the commands that make a node image: authorities and the password of the registry."""
        trusted = [f"{self.folder}/{each}/ca.pem" for each in authorities]
        return (
            *(word for file in trusted for word in ("--ca-certificate", file)),
            *("--registry-auth", str(self.folder / f"{auth}.json")),
        )

    @property
    def variables(self) -> dict[str, str]:
        """Of their environment."""
        return {"NETRC": str(self.folder / "netrc")}

    @property
    def choice(self) -> dict[str, str]:
        """Variables that make sykube take its newest Kubernetes from it."""
        named = {mirrors.SETTINGS[name].variable: at for name, at in self.sites.items()}
        return {"SYKUBE_SOURCE": "upstream", **named}

    @property
    def secrets(self) -> tuple[str, ...]:
        """What nothing may show."""
        logins = (LOGIN, SITE_LOGIN)
        packed = (base64.b64encode(each.encode()).decode() for each in logins)
        return (*(each.partition(":")[2] for each in logins), *packed)

    def asked(self) -> tuple[list[str], list[str]]:
        """What the sites, and the registry, have been asked for since the last call."""
        found = self.server.asked, self.registry.asked
        self.server.requests.clear()
        self.registry.forget()
        return found


@contextmanager
def running(
    folder: Path,
    folders: Sequence[Path],
    *,
    plain: bool = False,
    ports: tuple[int, int] = (PORT, 0),
) -> Iterator[Mirror]:
    """The mirror of releases in folders, the newest first; of Debian's source, where none is given.

    Args:
        plain: the sites have neither https nor a password; the registry has, in any case.
        ports: of the registry, and of the sites; 0 is any.

    Raises:
        ReleaseError: a folder is none of a release.
    """
    for each in folders:
        release.versions_of(each)
    engine = engines.find(Host())
    assert engine
    builder = Builder(engine.binary, {**os.environ, **engine.environment})
    if folders:
        layer = debian.layer()
        found = [release.of_folder(each, layer) for each in folders]
    else:
        of_debian, layer = debian.release(folder, builder)
        found = [of_debian]
    for name in (_SITE, _REGISTRY):
        make_authority(folder / name, "localhost")
    _write_logins(folder, f"localhost:{ports[0]}")
    certificate, login = (None, "") if plain else (folder / _SITE, SITE_LOGIN)
    with ExitStack() as held:
        made = Server(_files(found), certificate=certificate, login=login, port=ports[1])
        server = held.enter_context(closing(made))
        root = debian.unpack(layer, folder / "root")
        registry = held.enter_context(DebianRegistry(root, folder / _REGISTRY, ports[0]))
        mirror = Mirror(server, registry, folder, tuple(found))
        for one in found:
            for name, reference in one.names(mirror.repository).items():
                path, _, tag = reference.removeprefix(f"{mirror.host}/").rpartition(":")
                registry.put(path, tag, one.images[name])
        yield mirror


def node_image(running: Mirror) -> Path:
    """The SIF of its newest Kubernetes, built unless sykube's cache has it."""
    words = [sys.executable, "-m", "sykube", "node-image", "build", *running.options(), "--yes"]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, timeout=_BUILD_S)
    return Path(done.stdout.strip())


def folders() -> list[Path]:
    """The folder of a release that the variable names, if it does."""
    named = os.environ.get(VARIABLE, "")
    return [Path(named).absolute()] if named else []


def _files(found: Sequence[Release]) -> dict[str, bytes]:
    """The release sites."""
    architecture = oci.machine(Host())
    files = releases.stable([each.kubernetes for each in found])
    for each in found:
        programs = {name: file.read_bytes() for name, file in each.programs.items()}
        table = upstream.Release.of(each.kubernetes)
        own = {name: programs[name] for name in release.KUBERNETES if name in programs}
        files |= releases.kubernetes(each.kubernetes, own, architecture)
        files |= releases.containerd(table.containerd, _containerd(programs), architecture)
        files |= releases.runc(table.runc, {architecture: programs["runc"]})
    return files


def _containerd(programs: dict[str, bytes]) -> bytes:
    """As the target releases/%.tar.gz of containerd's Makefile packs it."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as packed:
        for name in release.CONTAINERD:
            member = tarfile.TarInfo(f"bin/{name}")
            member.size, member.mode = len(programs[name]), 0o755
            packed.addfile(member, io.BytesIO(programs[name]))
    # The same programs are the same archive, and so the same node image.
    return gzip.compress(archive.getvalue(), compresslevel=1, mtime=0)


def _write_logins(folder: Path, host: str) -> None:
    user, _, password = SITE_LOGIN.partition(":")
    for name, text in (
        ("auth.json", _auth(host, LOGIN)),
        ("wrong.json", _auth(host, f"{LOGIN}-of-another")),
        ("netrc", f"machine localhost login {user} password {password}\n"),
    ):
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(text)


def _auth(host: str, login: str) -> str:
    return json.dumps({"auths": {host: {"auth": base64.b64encode(login.encode()).decode()}}})
