"""Somebody who signs SIFs, with a key and a key ring of their own."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from sykube.host import engines
from sykube.host.host import Host
from sykube.host.run import clean_environment


class Signer:
    """A new PGP key, without a passphrase.

    Attributes:
        environment: by which the engine, and so sykube, finds the key ring.
    """

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o700)
        self.environment = {"APPTAINER_KEYSDIR": str(folder)}
        who = ("-N", "Tests", "-E", "tests@example.org", "-C", "", "-P", "")
        self._apptainer("key", "newpair", "-b", "2048", *who, "--push=false")
        (self.fingerprint,) = re.findall(
            r"Fingerprint: +([0-9A-F]{40})", self._apptainer("key", "list", "--secret")
        )

    def sign(self, sif: Path) -> None:
        self._apptainer("sign", str(sif))

    def _apptainer(self, *arguments: str) -> str:
        engine = engines.find(Host())
        assert engine is not None
        done = subprocess.run(
            [engine.binary, *arguments],
            env=clean_environment({**engine.environment, **self.environment}),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout
