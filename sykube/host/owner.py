"""Whom files belong to that are written for the user, such as a kubeconfig."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from sykube.errors import UsageError


@dataclass(frozen=True)
class Owner:
    """A user of this host, and where the user's own files are."""

    uid: int
    gid: int
    home: Path

    @classmethod
    def of_caller(cls) -> Owner:
        """Who called sudo, otherwise this process's user.

        Raises:
            UsageError: there is no such user on this host.
        """
        sudo = os.environ.get("SUDO_UID", "")
        try:
            entry = pwd.getpwuid(int(sudo or os.getuid()))
        except (ValueError, KeyError, OverflowError) as error:
            where = f"SUDO_UID is {sudo!r}" if sudo else f"the user ID is {os.getuid()}"
            raise UsageError(
                f"{where}, and this host knows no such user",
                details=str(error),
                resolution="Call it by sudo itself, or as root without that variable: "
                "env -u SUDO_UID sykube …",
            ) from error
        # Empty is as good as unset.
        home = entry.pw_dir if sudo else os.environ.get("HOME") or entry.pw_dir
        return cls(entry.pw_uid, entry.pw_gid, Path(home))
