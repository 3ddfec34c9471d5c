"""Signatures of SIF images: made and checked by the engine, trusted by a fingerprint of the user's.

What the engine checks (github.com/apptainer/sif, pkg/integrity/verify.go): every object of the
image belongs to a group, every group has a signature, each signature covers all objects of its
group and the header, and every signature is valid by a key that the engine was given. Whose keys
these may be is checked here: all signatures must be the trusted key's, so that neither a second
signature nor a signature of a part makes up for a missing one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
import tempfile
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sykube.errors import ExitCode, SykubeError, UsageError
from sykube.host.host import Host
from sykube.host.run import Completed
from sykube.image.build import Builder
from sykube.image.trust import Trust, read_fingerprint

_PEM_BEGIN, _PEM_END = "-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----"
_PEM = re.compile(rf"{_PEM_BEGIN}([A-Za-z0-9+/=\s]+){_PEM_END}")
_LISTED = re.compile(r"^(\d+)\) .*?^ +Fingerprint: +([0-9A-F]+)$", re.MULTILINE | re.DOTALL)
# internal/pkg/sypgp or pkg/syfs of github.com/apptainer/apptainer and github.com/sylabs/singularity
_RING_VARIABLES = ("APPTAINER_KEYSDIR", "SINGULARITY_SYPGPDIR")
_SYSTEM_PARTITION = "FS"
# An image of some hundred MB is read once, on a slow disk; a person is asked for a passphrase.
_TIMEOUT_S = 1200.0
_ANSWER_TIMEOUT_S = 600.0
# Words of the engine's error → what it means.
_REASONS = {
    "signature not found": "{file} is not signed, or not all of it",
    "object not signed": "only a part of {file} is signed",
    "not associated with object group": "only a part of {file} is signed",
    "integrity compromised": "{file} was changed after it was signed",
    "signed object not found": "{file} was changed after it was signed",
    "invalid signature": "{file} has a signature that is not valid",
    "unknown entity": "{file} has a signature of a key that is not the trusted one",
    "do not match threshold": "{file} has a signature of a key that is not the trusted one",
    "key material not provided": "{file} has a signature of a key that is not the trusted one",
    "EOF": "{file} is damaged or cut short",
    "reading ": "{file} is damaged or cut short",
}


@dataclass(frozen=True)
class SigningKey:
    """A key of the user's own, by its public half.

    Attributes:
        options: how `sign` is told to use it.
        public: what a file with its public half holds.
    """

    fingerprint: str
    options: tuple[str, ...]
    public: str

    @property
    def is_pem(self) -> bool:
        """Whether it is a PEM key, which no key ring holds."""
        return self.public.startswith(_PEM_BEGIN)


def verify(
    host: Host, sif: Path, trust: Trust, builder: Builder, *, shown: Path | None = None
) -> None:
    """Check that all of an image is signed by the trusted key, and by no other one.

    Args:
        shown: what the image is called in errors, instead of its own path.

    Raises:
        UsageError: the trusted key cannot be had.
        SykubeError: it is not signed so (UNTRUSTED).
    """
    with tempfile.TemporaryDirectory(prefix="sykube-keys-") as folder:
        pem = _pem_of(trust)
        if pem:
            key = Path(folder) / "key.pem"
            key.write_text(pem, encoding="utf-8")
            options, environment = ["--key", str(key)], _ring(None)
        else:
            options = ["--local"]
            environment = _ring(_imported(host, trust, Path(folder), builder))
        done = host.run(
            [builder.binary, "verify", *options, "--json", sif],
            env={**builder.environment, **environment},
            check=False,
            timeout=_TIMEOUT_S,
        )
    _judge(done, trust, pem_key=bool(pem), file=shown or sif)


def signing_key(host: Host, wanted: str, builder: Builder) -> SigningKey:
    """The user's key that is to sign: a PEM file, a fingerprint in the key ring, or its only key.

    Raises:
        UsageError: there is none, or several of which none was chosen.
    """
    if wanted and Path(wanted).is_file():
        return _pem_key(host, Path(wanted).absolute())
    listed = _listed(host, builder, _ring(_users_ring()), "--secret")
    engine = builder.binary
    if wanted:
        try:
            fingerprint = read_fingerprint(wanted)
        except ValueError as error:
            raise UsageError(
                f"--key {wanted}: there is no such file, and it is no whole fingerprint",
                resolution=f"Give the file of a PEM key, or one of: {engine} key list --secret",
            ) from error
        if fingerprint not in listed:
            raise UsageError(
                f"there is no secret key {fingerprint} in your key ring",
                resolution=f"See which there are: {engine} key list --secret",
            )
    elif len(listed) == 1:
        (fingerprint,) = listed
    elif listed:
        raise UsageError(
            "there are several secret keys in your key ring",
            details="\n".join(listed),
            resolution="Choose one with --key FINGERPRINT.",
        )
    else:
        raise UsageError(
            "there is no secret key in your key ring to sign with",
            resolution=f"Make one: {engine} key newpair\n"
            "  or give a PEM key with --key FILE; APPTAINER_KEYSDIR names another key ring.",
        )
    public = _exported(host, fingerprint, builder)
    return SigningKey(fingerprint, ("--keyidx", str(listed[fingerprint])), public)


def sign(host: Host, sif: Path, key: SigningKey, builder: Builder) -> None:
    """Sign all of an image; the engine asks at the terminal for a passphrase.

    Raises:
        SykubeError: it could not, or what it made is not valid.
    """
    done = host.run(
        [builder.binary, "sign", *key.options, sif],
        env={**builder.environment, **_ring(_users_ring())},
        check=False,
        timeout=_ANSWER_TIMEOUT_S,
        terminal=True,
    )
    if not done.ok:
        raise SykubeError(
            f"the engine could not sign with the key {key.fingerprint}",
            resolution="What it wrote above says why; a wrong passphrase is the usual cause.",
        )
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", prefix="sykube-key-", suffix=".pub"
    ) as file:
        file.write(key.public)
        file.flush()
        try:
            verify(host, sif, Trust(key.fingerprint, Path(file.name)), builder)
        except SykubeError as error:
            raise SykubeError(
                "the signed image would be refused, so it was not kept",
                details=f"{error.brief}\n{error.details}",
                resolution="Sign one without a signature: sykube bundle save --unsigned FILE",
            ) from error


def _judge(done: Completed, trust: Trust, *, pem_key: bool, file: Path) -> None:
    """Take an image for signed only where the engine's every word says so."""
    said = [line for line in done.stderr.splitlines() if not line.startswith(("INFO", "WARNING"))]
    if not done.ok:
        reason = next((text for words, text in _REASONS.items() if words in done.stderr), "")
        raise _untrusted(
            reason or "the engine could not verify {file}", file, trust, "\n".join(said)
        )
    try:
        signed = [entry["Signer"] for entry in json.loads(done.stdout)["SignerKeys"] or ()]
        signers = {entry["Fingerprint"].upper() for entry in signed}
        whole = _SYSTEM_PARTITION in {entry["Partition"] for entry in signed}
        whole &= all(entry["DataCheck"] is True for entry in signed)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _untrusted(
            "the engine's report on {file} has a form that sykube does not know",
            file,
            trust,
            done.stdout,
        ) from error
    if not whole:
        raise _untrusted("{file} is not signed, or not all of it", file, trust, "")
    # With a PEM key the engine was given no other key, and names none.
    strangers = signers - {"" if pem_key else trust.fingerprint}
    if strangers:
        raise _untrusted(
            "{file} has a signature of a key that is not the trusted one",
            file,
            trust,
            "signed by " + ", ".join(sorted(strangers)),
        )


def _untrusted(brief: str, file: Path, trust: Trust, details: str) -> SykubeError:
    return SykubeError(
        brief.format(file=file),
        details=f"{details}\ntrusted: {trust.fingerprint}".strip(),
        resolution="Get the file again from whom you trust, and the fingerprint by another way. "
        "Nothing of it was run.",
        exit_code=ExitCode.UNTRUSTED,
    )


def _ring(folder: Path | None) -> dict[str, str]:
    return dict.fromkeys(_RING_VARIABLES, str(folder)) if folder else {}


def _users_ring() -> Path | None:
    """The key ring that the caller's environment names; the engine's own default where None."""
    named = next(filter(None, map(os.environ.get, _RING_VARIABLES)), None)
    return Path(named).absolute() if named else None


def _listed(
    host: Host, builder: Builder, environment: Mapping[str, str], *options: str
) -> dict[str, int]:
    """Keys of a ring: fingerprint → the number by which the engine's commands know it."""
    done = host.run(
        [builder.binary, "key", "list", *options], env={**builder.environment, **environment}
    )
    return {fingerprint: int(number) for number, fingerprint in _LISTED.findall(done.stdout)}


def _imported(host: Host, trust: Trust, folder: Path, builder: Builder) -> Path | None:
    """A key ring that holds the trusted key.

    Raises:
        UsageError: there is none with it.
    """
    if trust.public_key is None:
        users = _users_ring()
        rings = _listed(host, builder, _ring(users)) | _listed(host, builder, {}, "--global")
        if trust.fingerprint not in rings:
            raise UsageError(
                f"the trusted key {trust.fingerprint} is not in your key ring",
                resolution="Give the file with the public key: --public-key FILE\n"
                f"  or put it into the key ring: {builder.binary} key import FILE",
            )
        return users
    _readable(trust.public_key)
    done = host.run(
        [builder.binary, "key", "import", trust.public_key],
        env={**builder.environment, **_ring(folder)},
        check=False,
    )
    found = _listed(host, builder, _ring(folder)) if done.ok else {}
    if trust.fingerprint not in found:
        raise _wrong_key_file(trust, ", ".join(found) or done.stderr.strip())
    return folder


def _pem_of(trust: Trust) -> str:
    """The trusted key in PEM; empty where it is a PGP key.

    The engine is given what the fingerprint was taken of and not the file, which may come from
    anybody and which the engine may read in another way.
    """
    if trust.public_key is None:
        return ""
    text = _readable(trust.public_key)
    if _PEM_BEGIN not in text:
        return ""
    fingerprint, pem = _public_pem(text, trust.public_key)
    if fingerprint != trust.fingerprint:
        raise _wrong_key_file(trust, fingerprint)
    return pem


def _wrong_key_file(trust: Trust, found: str) -> UsageError:
    return UsageError(
        f"{trust.public_key} is not the public key {trust.fingerprint}",
        details=f"what it holds: {found}",
        resolution="Give the file of the key with that fingerprint with --public-key.",
    )


def _readable(file: Path) -> str:
    try:
        return file.read_bytes().decode(errors="replace")
    except OSError as error:
        raise UsageError(
            f"cannot read the public key {file}: {error.strerror}",
            resolution="Give a file that you can read with --public-key.",
        ) from error


def _public_pem(text: str, file: Path) -> tuple[str, str]:
    """Fingerprint of the only public key in a PEM text, and the key in PEM, re-encoded."""
    try:
        (body,) = _PEM.findall(text)
        der = base64.b64decode("".join(body.split()), validate=True)
    except (ValueError, binascii.Error) as error:
        raise UsageError(
            f"{file} does not hold one public key in PEM",
            resolution="Make it: openssl pkey -in PRIVATE.pem -pubout -out PUBLIC.pem",
        ) from error
    lines = textwrap.fill(base64.b64encode(der).decode(), 64)
    return hashlib.sha256(der).hexdigest().upper(), f"{_PEM_BEGIN}\n{lines}\n{_PEM_END}\n"


def _pem_key(host: Host, file: Path) -> SigningKey:
    done = host.run(["openssl", "pkey", "-in", file, "-passin", "pass:", "-pubout"], check=False)
    if not done.ok:
        raise UsageError(
            f"cannot read the key {file}",
            details=done.stderr,
            resolution="Give a private key in PEM without a passphrase, or one of your PGP keys.",
        )
    fingerprint, public = _public_pem(done.stdout, file)
    return SigningKey(fingerprint, ("--key", str(file)), public)


def _exported(host: Host, fingerprint: str, builder: Builder) -> str:
    """The public half of a key of the user's key ring, in ASCII."""
    ring = _ring(_users_ring())
    number = _listed(host, builder, ring).get(fingerprint)
    if number is None:
        raise UsageError(
            f"your key ring has the secret key {fingerprint}, but not its public half",
            resolution=f"Put it there: {builder.binary} key import FILE",
        )
    with tempfile.TemporaryDirectory(prefix="sykube-keys-") as folder:
        file = Path(folder) / "public.asc"
        # It asks for the number even if there is only one key.
        host.run(
            [builder.binary, "key", "export", "--armor", file],
            env={**builder.environment, **ring},
            stdin=f"{number}\n",
        )
        return file.read_text(encoding="utf-8")
