"""The self-signed serving certificate, in memory, which the APIService names as its CA.

The key is in no Secret and not in etcd, and nobody has to renew it.
"""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

DAYS = 90

_EXTENSIONS = (
    *("basicConstraints=critical,CA:FALSE", "keyUsage=critical,digitalSignature"),
    "extendedKeyUsage=serverAuth",
)


@dataclass(frozen=True)
class Certificate:
    """Files of a certificate and its key, and the certificate's text."""

    certificate: Path
    key: Path
    text: str

    def load(self, context: ssl.SSLContext) -> None:
        context.load_cert_chain(self.certificate, self.key)


def make(folder: Path, names: tuple[str, ...]) -> Certificate:
    """A new key and a certificate for some DNS names, 90 days long.

    Args:
        folder: in memory, only for this program.

    Raises:
        subprocess.CalledProcessError: openssl failed.
    """
    key, certificate = folder / "key.pem", folder / "cert.pem"
    extensions = ("subjectAltName=" + ",".join(f"DNS:{name}" for name in names), *_EXTENSIONS)
    # openssl keeps the mode of a file that is there.
    key.touch(mode=0o600)
    subprocess.run(
        [
            "openssl", "req", "-x509", "-config", "/dev/null", "-subj", f"/CN={names[0]}",
            "-days", str(DAYS), "-nodes",
            "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
            "-keyout", key, "-out", certificate,
            *(word for each in extensions for word in ("-addext", each)),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )  # fmt: skip
    return Certificate(certificate, key, certificate.read_text(encoding="ascii"))
