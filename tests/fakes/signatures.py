"""Keys, and images that are signed with them."""

from __future__ import annotations

from typing import Any

TRUSTED = "11811599135F074136577927587C460A0C2C1FCC"


PUBLIC_KEY = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n"


KEY_LIST = f"""Public key listing (/root/.apptainer/keys/pgp-public):

0)  User:              Stranger () <s@example.org>
    Creation time:     2026-11-22 21:39:22 +0000 UTC
    Fingerprint:       DDA3F9244C7D1CA13BF07E0C6B1FE319D3A2F017
    Length (in bits):  2048

1)  User:              Own (c) <own@example.org>
    Creation time:     2026-11-22 21:38:58 +0000 UTC
    Fingerprint:       {TRUSTED}
    Length (in bits):  2048

"""


def signed_by(*fingerprints: str) -> dict[str, Any]:
    """What `apptainer verify --json` reports on an image with a signature of each of these keys."""
    entries = [
        {
            "Signer": {
                "Partition": partition,
                "Name": "Own (c) <own@example.org>",
                "Fingerprint": fingerprint.lower(),
                "KeyLocal": True,
                "KeyCheck": bool(fingerprint),
                "DataCheck": True,
            }
        }
        for fingerprint in fingerprints
        for partition in ("Def.FILE", "JSON.Generic", "FS")
    ]
    return {"Signatures": len(fingerprints), "SignerKeys": entries}
