"""Signed images on the real engine: what is taken, and what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sykube import resources
from sykube.errors import ExitCode, SykubeError, UsageError
from sykube.host import apt, engines
from sykube.host.host import Host
from sykube.image import bundle, local, signature
from sykube.image.build import Builder, list_images
from sykube.image.node_image import NodeImage
from sykube.image.trust import Trust
from tests.e2e.cluster import host_before
from tests.hostdiff import Difference, leaks_since
from tests.integration.images import make_root

pytestmark = pytest.mark.integration

_PROGRAMS = ("/bin/sh", "/bin/cp")
_SECRET = "correct horse"


@dataclass
class Site:
    """A person's machine: an engine, a key ring, an image that was never signed."""

    folder: Path
    builder: Builder
    unsigned: Path

    def apptainer(self, *arguments: str | Path, ring: str = "ring", stdin: str = "") -> str:
        done = subprocess.run(
            [self.builder.binary, *arguments],
            env=os.environ | self.builder.environment | {"APPTAINER_KEYSDIR": str(self.ring(ring))},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ring(self, name: str) -> Path:
        (self.folder / name).mkdir(mode=0o700, exist_ok=True)
        return self.folder / name

    def new_key(self, ring: str = "ring", name: str = "Own", password: str = "") -> str:
        """A new PGP key; its fingerprint."""
        self.apptainer(
            *("key", "newpair", "-b", "2048", "-N", name, "-E", "own@example.org", "-C", ""),
            *("-P", password, "--push=false"),
            ring=ring,
        )
        listed = self.apptainer("key", "list", "--secret", ring=ring)
        return str(re.findall(r"Fingerprint: +([0-9A-F]{40})", listed)[-1])

    def public(self, fingerprint: str, ring: str = "ring") -> Path:
        """The file with a public key, as its owner gives it away."""
        listed = self.apptainer("key", "list", ring=ring)
        number = re.findall(r"Fingerprint: +([0-9A-F]{40})", listed).index(fingerprint)
        file = self.folder / f"{fingerprint}.asc"
        file.unlink(missing_ok=True)
        self.apptainer("key", "export", "--armor", file, ring=ring, stdin=f"{number}\n")
        return file

    def pem(self, name: str) -> tuple[Path, Path, str]:
        """A new PEM key: its private and its public file, and its fingerprint as openssl has it."""
        private, public = self.folder / f"{name}.pem", self.folder / f"{name}.pub"
        _shell(
            f"openssl ecparam -name prime256v1 -genkey -noout -out {private}"
            f" && openssl pkey -in {private} -pubout -out {public}"
        )
        der = f"openssl pkey -pubin -in {public} -outform DER | sha256sum"
        return private, public, _shell(der).split()[0]

    def copy(self, source: Path, name: str) -> Path:
        return Path(shutil.copyfile(source, self.folder / name))


def _shell(command: str) -> str:
    return subprocess.run(
        ["sh", "-ec", command], capture_output=True, text=True, check=True, timeout=60
    ).stdout


def _root(folder: Path) -> Path:
    """Files of what looks to sykube like a node image, and runs sh and cp."""
    make_root(folder, _PROGRAMS)
    share = folder / "usr/share/sykube"
    share.mkdir(parents=True)
    (share / "versions").write_text("kubernetes=v1.20.2\n")
    (share / "container-images").write_text("k8s.gcr.io/etcd:3.4.13-0\n")
    (folder / "usr/bin").mkdir(exist_ok=True)
    (folder / "usr/bin/kubectl").write_bytes(b"kubectl")
    (folder / "random").write_bytes(os.urandom(200_000))
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    engine = engines.find_or_create(Host(), lambda: apt.find_mirror(Host()), print)
    folder = tmp_path_factory.mktemp("site")
    made = Site(folder, Builder(engine.binary, engine.environment), folder / "node.sif")
    made.apptainer("build", made.unsigned, _root(folder / "root"))
    yield made


@pytest.fixture(autouse=True)
def place(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test has a cache and a key ring of its own, and the engine of this machine."""
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "apptainer").symlink_to(engines.private(Host()).root)
    for name in ("ring", "other"):
        shutil.rmtree(site.folder / name, ignore_errors=True)
    monkeypatch.setenv("APPTAINER_KEYSDIR", str(site.ring("ring")))
    monkeypatch.setenv("SYKUBE_CACHE_DIR", str(cache))
    return tmp_path


def signed(site: Site, fingerprint: str, name: str = "signed.sif") -> Path:
    file = site.copy(site.unsigned, name)
    signature.sign(
        Host(), file, signature.signing_key(Host(), fingerprint, site.builder), site.builder
    )
    return file


def refused(site: Site, file: Path, trust: Trust | None) -> SykubeError:
    """The error that an image is refused with; the cache is as it was."""
    before = list_images(Host())
    with pytest.raises(SykubeError) as raised:
        local.adopt(Host(), file, trust, site.builder, unverified=trust is None)
    assert list_images(Host()) == before
    left = Path(os.environ["SYKUBE_CACHE_DIR"], "node-images")
    assert sorted(left.iterdir()) == sorted(image.folder for image in before)
    return raised.value


# --- what is taken ---


def test_an_image_signed_by_the_trusted_key_is_taken_and_used(site: Site) -> None:
    own = site.new_key()
    file = signed(site, own)
    image = local.adopt(Host(), file, Trust(own), site.builder)
    assert image.versions()["kubernetes"] == "v1.20.2"
    assert image.kubectl.read_bytes() == b"kubectl"
    assert local.adopt(Host(), file, Trust(own), site.builder) == image


def test_the_public_key_may_come_in_a_file(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    own = site.new_key()
    file, public = signed(site, own), site.public(own)
    monkeypatch.setenv("APPTAINER_KEYSDIR", str(site.ring("other")))
    with pytest.raises(UsageError, match="is not in your key ring"):
        local.adopt(Host(), file, Trust(own), site.builder)
    assert local.adopt(Host(), file, Trust(own, public), site.builder)
    listed = site.apptainer("key", "list", ring="other")
    assert own not in listed


def test_a_key_with_a_passphrase_is_asked_for_it(site: Site) -> None:
    own = site.new_key(password=_SECRET)
    file = site.copy(site.unsigned, "passphrase.sif")
    file.chmod(0o640)
    before = file.read_bytes()
    for given, code in (("wrong", 1), (_SECRET, 0)):
        done = subprocess.run(
            [sys.executable, "-m", "sykube", "node-image", "sign", file],
            input=f"{given}\n", capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert "Enter key passphrase" in done.stderr
        assert _SECRET not in done.stdout + done.stderr
        assert (file.read_bytes() == before) == bool(code)
    assert done.stdout.strip() == own
    assert file.stat().st_mode & 0o777 == 0o640
    signature.verify(Host(), file, Trust(own), site.builder)
    assert not list(file.parent.glob(".sykube-*"))


def test_a_pem_key(site: Site) -> None:
    private, public, fingerprint = site.pem("own")
    _, other_public, other = site.pem("stranger")
    key = signature.signing_key(Host(), str(private), site.builder)
    assert key.fingerprint == fingerprint.upper()
    file = site.copy(site.unsigned, "pem.sif")
    signature.sign(Host(), file, key, site.builder)
    assert local.adopt(Host(), file, Trust(key.fingerprint, public), site.builder)
    wrong = refused(site, file, Trust(other.upper(), other_public))
    assert wrong.exit_code is ExitCode.UNTRUSTED
    assert "not the trusted one" in wrong.brief
    # A stranger's key under the trusted fingerprint, as one that came along with the file.
    assert refused(site, file, Trust(key.fingerprint, other_public)).exit_code is ExitCode.USAGE


# --- what is refused ---


def test_an_unsigned_image(site: Site) -> None:
    own = site.new_key()
    error = refused(site, site.unsigned, Trust(own))
    assert error.exit_code is ExitCode.UNTRUSTED
    assert error.brief == f"{site.unsigned} is not signed, or not all of it"
    # Unless it was meant.
    assert local.adopt(Host(), site.unsigned, None, site.builder, unverified=True)


def test_an_image_signed_by_a_stranger(site: Site) -> None:
    own, stranger = site.new_key(), site.new_key("other", "Stranger")
    file = site.copy(site.unsigned, "stranger.sif")
    site.apptainer("sign", file, ring="other")
    error = refused(site, file, Trust(own))
    assert error.exit_code is ExitCode.UNTRUSTED
    assert "not the trusted one" in error.brief
    # Whom the key ring knows is not for that trusted.
    site.apptainer("key", "import", site.public(stranger, "other"))
    error = refused(site, file, Trust(own))
    assert "not the trusted one" in error.brief
    assert stranger in error.details
    # Nor does a key file of the stranger's become the trusted key.
    error = refused(site, file, Trust(own, site.public(stranger, "other")))
    assert "is not the public key" in error.brief


@pytest.mark.parametrize("known", [False, True])
def test_a_second_signature_by_a_stranger(site: Site, known: bool) -> None:
    own, stranger = site.new_key(), site.new_key("other", "Stranger")
    file = signed(site, own)
    site.apptainer("sign", file, ring="other")
    if known:
        site.apptainer("key", "import", site.public(stranger, "other"))
    assert "not the trusted one" in refused(site, file, Trust(own)).brief


def test_a_part_signed_by_a_stranger_whom_the_key_ring_knows(site: Site) -> None:
    own, stranger = site.new_key(), site.new_key("other", "Stranger")
    file, extra = signed(site, own), site.folder / "extra"
    extra.write_text("evil")
    site.apptainer("sif", "add", "--datatype", "7", "--groupid", "2", file, extra)
    assert "not all of it" in refused(site, file, Trust(own)).brief
    site.apptainer("sign", "--group-id", "2", file, ring="other")
    site.apptainer("key", "import", site.public(stranger, "other"))
    assert "not the trusted one" in refused(site, file, Trust(own)).brief


@pytest.mark.parametrize("group", ["0", "1"])
def test_an_object_that_was_added_later(site: Site, group: str) -> None:
    own = site.new_key()
    file, extra = signed(site, own), site.folder / "extra"
    extra.write_text("evil")
    site.apptainer("sif", "add", "--datatype", "7", "--groupid", group, file, extra)
    assert "only a part" in refused(site, file, Trust(own)).brief


def test_a_signature_of_one_object_alone(site: Site) -> None:
    own = site.new_key()
    file = site.copy(site.unsigned, "part.sif")
    site.apptainer("sign", "--sif-id", "3", file)
    assert "only a part" in refused(site, file, Trust(own)).brief


def _flip_partition(data: bytearray) -> None:
    data[len(data) // 2] ^= 1


def _flip_launch_script(data: bytearray) -> None:
    data[5] ^= 1


def _flip_signature(data: bytearray) -> None:
    data[-700] ^= 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_flip_partition, "was changed after it was signed"),
        (_flip_launch_script, "was changed after it was signed"),
        (_flip_signature, "not valid"),
    ],
)
def test_a_changed_byte(site: Site, change: Callable[[bytearray], None], words: str) -> None:
    own = site.new_key()
    file = signed(site, own)
    data = bytearray(file.read_bytes())
    change(data)
    file.write_bytes(data)
    error = refused(site, file, Trust(own))
    assert error.exit_code is ExitCode.UNTRUSTED
    assert words in error.brief


@pytest.mark.parametrize("kept", [50, 200, 20_000, 100_000, -10])
def test_a_file_that_was_cut_short(site: Site, kept: int) -> None:
    own = site.new_key()
    file = signed(site, own)
    file.write_bytes(file.read_bytes()[:kept])
    assert "damaged or cut short" in refused(site, file, Trust(own)).brief
    if kept > 0:
        assert refused(site, file, None).exit_code is ExitCode.USAGE


def test_what_was_taken_unverified_is_not_taken_for_verified(site: Site) -> None:
    own = site.new_key()
    local.adopt(Host(), site.unsigned, None, site.builder, unverified=True)
    assert "not signed" in refused(site, site.unsigned, Trust(own)).brief


def test_without_a_key_to_sign_with(site: Site) -> None:
    with pytest.raises(UsageError, match="no secret key") as raised:
        signature.signing_key(Host(), "", site.builder)
    assert "key newpair" in raised.value.resolution
    first, second = site.new_key(), site.new_key(name="Second")
    with pytest.raises(UsageError, match="several secret keys") as raised:
        signature.signing_key(Host(), "", site.builder)
    assert raised.value.details.split() == [first, second]
    file = signed(site, second.lower())
    signature.verify(Host(), file, Trust(second), site.builder)


def test_what_somebody_else_has_signed_is_not_signed_as_well(site: Site) -> None:
    own = site.new_key()
    site.new_key("other", "Stranger")
    file = site.copy(site.unsigned, "stranger.sif")
    site.apptainer("sign", file, ring="other")
    before = file.read_bytes()
    with pytest.raises(SykubeError, match="would be refused") as raised:
        bundle.sign(Host(), file, signature.signing_key(Host(), own, site.builder), site.builder)
    assert "not the trusted one" in raised.value.details
    assert file.read_bytes() == before


# --- init ---


@dataclass(frozen=True)
class Refusal:
    """An image as `make` leaves it, the exit code of init, and words of its error."""

    make: Callable[[Site, str], Path]
    code: int
    words: str


def _unsigned(site: Site, _own: str) -> Path:
    return site.unsigned


def _by_a_stranger(site: Site, _own: str) -> Path:
    site.new_key("other", "Stranger")
    file = site.copy(site.unsigned, "stranger.sif")
    site.apptainer("sign", file, ring="other")
    return file


def _tampered(site: Site, own: str) -> Path:
    file = signed(site, own)
    data = bytearray(file.read_bytes())
    _flip_partition(data)
    file.write_bytes(data)
    return file


def _cut_short(site: Site, own: str) -> Path:
    file = signed(site, own)
    file.write_bytes(file.read_bytes()[:100_000])
    return file


REFUSALS = {
    "unsigned": Refusal(_unsigned, ExitCode.UNTRUSTED, "is not signed"),
    "an unknown key": Refusal(_by_a_stranger, ExitCode.UNTRUSTED, "not the trusted one"),
    "a bad signature": Refusal(_tampered, ExitCode.UNTRUSTED, "was changed after it was signed"),
    "truncated": Refusal(_cut_short, ExitCode.UNTRUSTED, "damaged or cut short"),
}


@pytest.mark.parametrize(
    ("case", "by"),
    [*((case, "option") for case in REFUSALS), ("unsigned", "variable"), ("unsigned", "file")],
)
def test_init_refuses_with_one_error_and_changes_nothing(
    site: Site, place: Path, case: str, by: str
) -> None:
    own = site.new_key()
    file = REFUSALS[case].make(site, own)
    arguments, variables = ["--local-image", str(file)], {}
    if by == "option":
        arguments += ["--fingerprint", own]
    elif by == "variable":
        variables["SYKUBE_FINGERPRINT"] = own
    else:
        config = place / "cluster.yaml"
        config.write_text(f"localImage: {file}\nfingerprint: '{own}'\n")
        arguments = ["--config", str(config)]
    before = host_before("unsigned", place)
    done = _init(*arguments, **variables)
    assert done.returncode == REFUSALS[case].code, done.stderr
    assert done.stderr.count("error:") == 1
    assert REFUSALS[case].words in done.stderr
    leaks = [leak for leak in leaks_since(before) if not _is_cache_lock(leak, place)]
    assert not leaks, "\n".join(map(str, leaks))


def test_init_asks_whose_signature_to_trust(site: Site, place: Path) -> None:
    before = host_before("unsigned", place)
    done = _init("--local-image", str(site.unsigned))
    assert done.returncode == ExitCode.USAGE
    assert done.stderr.count("error:") == 1
    assert "--fingerprint" in done.stderr
    assert not leaks_since(before)


def _init(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sykube", "init", "--name", "unsigned", "--workers", "0", *arguments],
        env=os.environ | variables, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def _is_cache_lock(leak: Difference, place: Path) -> bool:
    """The cache is no cluster's: what is in it is not undone, and here it is empty."""
    return leak.what in (f"{place}/cache/.lock", f"{place}/cache/node-images")


# --- bundles ---


def a_node_image(site: Site, cache: Path) -> NodeImage:
    folder = cache / "node-images/0123456789abcdef"
    folder.mkdir(parents=True)
    shutil.copyfile(site.unsigned, folder / "node.sif")
    return NodeImage(folder.name, folder)


def test_a_bundle_is_signed_as_a_whole_and_carries_the_manifests(site: Site, place: Path) -> None:
    own = site.new_key()
    image = a_node_image(site, place / "elsewhere")
    file = place / "k.sif"
    bundle.save(Host(), image, file, signature.signing_key(Host(), "", site.builder), site.builder)
    assert sorted(path.name for path in place.iterdir()) == ["cache", "elsewhere", "k.sif"]
    taken = local.adopt(Host(), file, Trust(own), site.builder)
    assert taken.sif.read_bytes() == file.read_bytes()
    numbers = re.findall(
        r"^(\d+) .*JSON\.Generic", site.apptainer("sif", "list", file), re.MULTILINE
    )
    found = json.loads(site.apptainer("sif", "dump", numbers[-1], file))
    for folder in ("manifests", "cni"):
        for template in resources.folder(folder).iterdir():
            assert found["files"][f"{folder}/{template.name}"] == template.read_text()


def test_a_bundle_of_another_sykube(
    site: Site, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = site.new_key()
    other = bundle._description()
    other["files"]["manifests/dns.yaml.j2"] += "# changed\n"
    with monkeypatch.context() as patched:
        # The description of another release of sykube, which there is none of here.
        patched.setattr(bundle, "_description", lambda: other)
        bundle.save(
            Host(),
            a_node_image(site, place / "elsewhere"),
            place / "k.sif",
            signature.signing_key(Host(), "", site.builder),
            site.builder,
        )
    error = refused(site, place / "k.sif", Trust(own))
    assert "not like this one" in error.brief
    assert error.details == "different: manifests/dns.yaml.j2"


def test_a_bundle_that_cannot_be_signed_leaves_nothing(site: Site, place: Path) -> None:
    site.new_key(password=_SECRET)
    key = signature.signing_key(Host(), "", site.builder)
    image = a_node_image(site, place / "elsewhere")
    (place / "k.sif").write_text("what was there before")
    with (place / "empty").open("w+") as empty:
        stdin = os.dup(0)
        os.dup2(empty.fileno(), 0)
        try:
            with pytest.raises(SykubeError, match="could not sign"):
                bundle.save(Host(), image, place / "k.sif", key, site.builder)
        finally:
            os.dup2(stdin, 0)
            os.close(stdin)
    assert (place / "k.sif").read_text() == "what was there before"
    assert not list(place.glob(".sykube-*"))


def test_node_image_verify_at_the_command_line(site: Site) -> None:
    own = site.new_key()
    file = signed(site, own)

    def verify(file: Path, *options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sykube", "node-image", "verify", str(file), *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    spaced = " ".join(re.findall("....", own))
    assert verify(file, "--fingerprint", spaced).stdout == f"{file}: signed by {own}\n"
    for options, code, words in (
        ((), 2, "--fingerprint"),
        (("--fingerprint", own[-16:]), 2, "no whole fingerprint"),
        (("--fingerprint", "0" * 40), 2, "not in your key ring"),
        (("--fingerprint", own, "--public-key", "/nowhere"), 2, "No such file"),
    ):
        done = verify(file, *options)
        assert done.returncode == code
        assert words in done.stderr
    done = verify(site.unsigned, "--fingerprint", own)
    assert done.returncode == ExitCode.UNTRUSTED
    assert done.stdout == ""
