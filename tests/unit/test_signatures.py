"""Trusting images: fingerprints, keys, and what the engine reports (recorded from Apptainer 1.4.5)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sykube.errors import ExitCode, SykubeError, UsageError
from sykube.host.host import Host
from sykube.host.run import CommandError
from sykube.image import local, signature
from sykube.image.build import Builder, list_images
from sykube.image.local import adopt
from sykube.image.trust import Trust, read_fingerprint
from tests.fakes import Calls, FakeHost, FakePrograms, Kernel
from tests.fakes.image import add_image, write_sif
from tests.fakes.signatures import TRUSTED, signed_by

BUILDER = Builder(Path("/usr/bin/apptainer"), {"APPTAINER_DROP_CAPS": "CAP_BPF"})
STRANGER = "DDA3F9244C7D1CA13BF07E0C6B1FE319D3A2F017"
# Of openssl: ecparam -name prime256v1 -genkey; the digest is sha256sum's of its DER.
PEM = """-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE4jnZJiCpYUFgfh7SaAQ0Awr3eIZx
eNdAYxiN9rpF0cg5ckqyPu8s1UUchnwz/5kwaiX+RVwtd4YhIG88e97cdQ==
-----END PUBLIC KEY-----
"""
PEM_FINGERPRINT = "29038F58A895661C4F8AD5ED0452386A6337ED435B42CF3D72F4C8D84B458A16"


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakePrograms:
    made = FakePrograms(Kernel(tmp_path / "kernel"), Calls(), tmp_path)
    for name in ("APPTAINER_KEYSDIR", "SINGULARITY_SYPGPDIR"):
        monkeypatch.delenv(name, raising=False)
    return made


@pytest.fixture
def host(programs: FakePrograms, tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path / "host", programs.run)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def report(programs: FakePrograms, code: int, stdout: object, stderr: str = "") -> None:
    """Let `apptainer verify` answer so."""
    known: Callable[[list[str]], Any] = programs.answers["apptainer"]
    text = stdout if isinstance(stdout, str) else json.dumps(stdout)
    programs.answers["apptainer"] = lambda words: (
        (code, text, stderr) if words[0] == "verify" else known(words)
    )


def refused(host: Host, trust: Trust, file: Path = Path("/k.sif")) -> SykubeError:
    with pytest.raises(SykubeError) as raised:
        signature.verify(host, file, trust, BUILDER)
    return raised.value


# --- fingerprints ---


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (TRUSTED.lower(), TRUSTED),
        (f"0x{TRUSTED}", TRUSTED),
        (" ".join(TRUSTED[i : i + 4] for i in range(0, 40, 4)), TRUSTED),
        ("SHA256:" + "ab" * 32, "AB" * 32),
    ],
)
def test_fingerprints_as_people_write_them(text: str, read: str) -> None:
    assert read_fingerprint(text) == read


@pytest.mark.parametrize("text", ["", TRUSTED[-8:], TRUSTED[-16:], TRUSTED + "0", "G" * 40])
def test_what_is_no_whole_fingerprint(text: str) -> None:
    with pytest.raises(ValueError, match="no whole fingerprint"):
        read_fingerprint(text)


# --- what the engine reports ---


def test_all_signed_by_the_trusted_key(host: Host, programs: FakePrograms) -> None:
    report(programs, 0, signed_by(TRUSTED, TRUSTED))
    signature.verify(host, Path("/k.sif"), Trust(TRUSTED), BUILDER)


@pytest.mark.parametrize(
    ("code", "stdout", "words"),
    [
        (0, signed_by(STRANGER), "not the trusted one"),
        (0, signed_by(TRUSTED, STRANGER), "not the trusted one"),
        (0, signed_by(TRUSTED, ""), "not the trusted one"),
        (0, {"Signatures": 0, "SignerKeys": None}, "not signed"),
        (0, {"Signatures": 1, "SignerKeys": signed_by(TRUSTED)["SignerKeys"][:2]}, "not signed"),
        (0, "", "form that sykube does not know"),
        (0, "[]", "form that sykube does not know"),
        (0, {"SignerKeys": [{"Signer": {}}]}, "form that sykube does not know"),
        (255, signed_by(TRUSTED), "could not verify"),
    ],
)
def test_reports_that_are_no_proof(
    host: Host, programs: FakePrograms, code: int, stdout: object, words: str
) -> None:
    report(programs, code, stdout)
    error = refused(host, Trust(TRUSTED))
    assert words in error.brief
    assert error.exit_code is ExitCode.UNTRUSTED
    assert f"trusted: {TRUSTED}" in error.details


def test_an_object_that_fails_its_check_is_no_proof_whatever_the_exit_code(
    host: Host,
    programs: FakePrograms,
) -> None:
    found = signed_by(TRUSTED)
    found["SignerKeys"][2]["Signer"]["DataCheck"] = False
    report(programs, 0, found)
    assert "not signed" in refused(host, Trust(TRUSTED)).brief


@pytest.mark.parametrize(
    ("fatal", "brief"),
    [
        ("integrity: signature not found for object group 1", "is not signed, or not all of it"),
        ("integrity: signature not found for object group 2", "is not signed, or not all of it"),
        (
            "integrity: signature object 6 not valid: openpgp: signature made by unknown entity",
            "a signature of a key that is not the trusted one",
        ),
        ("integrity: object 6: object not signed", "only a part"),
        ("integrity: non-signature object not associated with object group", "only a part"),
        ("integrity: data object integrity compromised: 3", "changed after it was signed"),
        ("integrity: header integrity compromised", "changed after it was signed"),
        (
            "integrity: signature object 5 not valid: openpgp: invalid signature: RSA verification "
            "failure",
            "a signature that is not valid",
        ),
        ("integrity: EOF", "damaged or cut short"),
        ("integrity: unexpected EOF", "damaged or cut short"),
        ("reading global header: unexpected EOF", "damaged or cut short"),
        ("reading descriptors: EOF", "damaged or cut short"),
        (
            "integrity: key material not provided for DSSE envelope signature",
            "a signature of a key that is not the trusted one",
        ),
        (
            "integrity: signature object 5 not valid: dsse: verify envelope failed: accepted "
            "signatures do not match threshold, Found: 0, Expected 1",
            "a signature of a key that is not the trusted one",
        ),
    ],
)
def test_what_the_engine_finds_wrong_is_said_in_one_line(
    host: Host, programs: FakePrograms, fatal: str, brief: str
) -> None:
    said = "INFO:    Verifying image with PGP key material\n"
    report(programs, 255, "{}", f"{said}FATAL:   Failed to verify container: {fatal}\n")
    error = refused(host, Trust(TRUSTED))
    assert "/k.sif" in error.brief
    assert brief in error.brief
    assert fatal in error.details
    assert "INFO" not in error.details


# --- keys ---


def test_a_trusted_key_that_the_ring_lacks(host: Host, programs: FakePrograms) -> None:
    error = refused(host, Trust("0" * 40))
    assert error.exit_code is ExitCode.USAGE
    assert "--public-key" in error.resolution
    assert not [argv for argv in programs.argvs if argv[1] == "verify"]


def test_a_pem_key_is_handed_on_as_its_fingerprint_was_taken(
    host: Host, programs: FakePrograms, tmp_path: Path
) -> None:
    file = tmp_path / "key.pub"
    file.write_text("Bag Attributes: x\n" + PEM)
    given: list[str] = []

    def apptainer(words: list[str]) -> tuple[int, str, str]:
        given.append(Path(words[words.index("--key") + 1]).read_text(encoding="utf-8"))
        return 0, json.dumps(signed_by("")), ""

    programs.answers["apptainer"] = apptainer
    signature.verify(host, Path("/k.sif"), Trust(PEM_FINGERPRINT, file), BUILDER)
    assert "".join(given).split() == PEM.split()


@pytest.mark.parametrize("text", [PEM + PEM, PEM.replace("A", "?", 1), PEM.split("\n")[0]])
def test_a_file_that_is_not_one_pem_key(
    host: Host, programs: FakePrograms, tmp_path: Path, text: str
) -> None:
    file = tmp_path / "key.pub"
    file.write_text(text)
    error = refused(host, Trust(PEM_FINGERPRINT, file))
    assert error.exit_code is ExitCode.USAGE
    assert "one public key in PEM" in error.brief
    assert programs.argvs == []


def test_a_pem_key_with_another_fingerprint(
    host: Host, programs: FakePrograms, tmp_path: Path
) -> None:
    file = tmp_path / "key.pub"
    file.write_text(PEM)
    error = refused(host, Trust("AB" * 32, file))
    assert error.exit_code is ExitCode.USAGE
    assert PEM_FINGERPRINT in error.details
    assert programs.argvs == []


# --- the user's own image ---


def test_an_image_of_the_user_is_taken_into_the_cache_once(
    host: Host, programs: FakePrograms, cache: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.sif"
    write_sif(own, "signed")
    image = adopt(host, own, Trust(TRUSTED), BUILDER)
    assert image.sif.read_bytes() == own.read_bytes()
    assert image.versions()["kubernetes"] == "v1.20.2"
    assert list_images(host) == [image]
    programs.calls.all.clear()
    assert adopt(host, own, Trust(TRUSTED), BUILDER) == image
    # What is started is verified, each time.
    verified = [argv[-1] for argv in programs.argvs if argv[1] == "verify"]
    assert verified == [str(image.sif)]
    assert not [argv for argv in programs.argvs if "exec" in argv]


def test_the_copy_is_verified_before_any_of_it_is_run(
    host: Host, programs: FakePrograms, cache: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.sif"
    write_sif(own, "signed")
    adopt(host, own, Trust(TRUSTED), BUILDER)
    engine = [argv for argv in programs.argvs if argv[0].endswith("apptainer")]
    first_run = next(number for number, argv in enumerate(engine) if "exec" in argv)
    verify = next(number for number, argv in enumerate(engine) if argv[1] == "verify")
    assert verify < first_run
    assert all(str(own) not in argv for argv in engine)


def test_an_image_that_is_not_signed_leaves_nothing(
    host: Host, programs: FakePrograms, cache: Path, tmp_path: Path
) -> None:
    write_sif(tmp_path / "own.sif", "mine")
    with pytest.raises(SykubeError, match=f"{tmp_path}/own.sif is not signed"):
        adopt(host, tmp_path / "own.sif", Trust(TRUSTED), BUILDER)
    assert list((cache / "node-images").iterdir()) == []
    assert not [argv for argv in programs.argvs if "exec" in argv]


def test_an_image_that_changes_under_way(
    host: Host, programs: FakePrograms, cache: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.sif"
    write_sif(own, "signed")
    copy = programs.answers["cp"]

    def change(words: list[str]) -> tuple[int, str, str]:
        write_sif(own, "signed, and something else")
        return copy(words)

    programs.answers["cp"] = change
    with pytest.raises(UsageError, match="changed while it was read"):
        adopt(host, own, Trust(TRUSTED), BUILDER)
    assert list((cache / "node-images").iterdir()) == []


@pytest.mark.parametrize("data", [b"", b"SIF_MAGIC", b"x" * 100, b"\x7fELF" + b"\0" * 100])
def test_a_file_that_is_no_image(
    host: Host, programs: FakePrograms, tmp_path: Path, data: bytes
) -> None:
    (tmp_path / "own.sif").write_bytes(data)
    with pytest.raises(UsageError, match="is no SIF image") as raised:
        adopt(host, tmp_path / "own.sif", None, BUILDER, unverified=True)
    assert raised.value.exit_code is ExitCode.USAGE
    assert "bundle save" in raised.value.resolution
    assert list_images(host) == []


def test_a_file_that_cannot_be_read(host: Host, programs: FakePrograms, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        adopt(host, tmp_path / "absent.sif", None, BUILDER, unverified=True)
    with pytest.raises(UsageError, match="Is a directory"):
        adopt(host, tmp_path, None, BUILDER, unverified=True)


def test_an_image_of_something_else(
    host: Host, programs: FakePrograms, cache: Path, tmp_path: Path
) -> None:
    write_sif(tmp_path / "own.sif")
    programs.calls.fail(
        lambda call: "exec" in call.words,
        lambda call: CommandError("apptainer failed", call.words, "cp: cannot stat"),
    )
    with pytest.raises(UsageError, match="no node image of sykube") as raised:
        adopt(host, tmp_path / "own.sif", None, BUILDER, unverified=True)
    assert "cp: cannot stat" in raised.value.details
    assert list((cache / "node-images").iterdir()) == []


def test_only_an_image_that_was_built_here_needs_no_word_about_trust(
    host: Host, programs: FakePrograms, cache: Path, tmp_path: Path
) -> None:
    built = add_image(cache, "a" * 16, source="x")
    local.require_trust(host, built.sif, trusted=False)
    assert adopt(host, built.sif, Trust(TRUSTED), BUILDER) == built
    (built.folder / "parts.json").write_text("{}")
    with pytest.raises(UsageError, match="whose signature"):
        local.require_trust(host, built.sif, trusted=False)
    # Nor when it was another file the first time.
    with pytest.raises(UsageError, match="whose signature"):
        adopt(host, built.sif, None, BUILDER)
