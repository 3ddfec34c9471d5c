"""Bootstrap tokens: what a node shows to be let into the cluster."""

from __future__ import annotations

import secrets
import string


def new_token() -> str:
    """Six characters that name it, a dot, sixteen that are secret."""
    alphabet = string.ascii_lowercase + string.digits
    word = "".join(secrets.choice(alphabet) for _ in range(22))
    return f"{word[:6]}.{word[6:]}"
