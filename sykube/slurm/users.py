"""Users of a Slurm cluster, as a file lists them."""

from __future__ import annotations

import re
from pathlib import Path

from sykube.errors import UsageError
from sykube.host.files import unreadable
from sykube.slurm.spec import FIRST_UID, User

# Of passwd(5): name, password, number; what follows is made new, as home and shell are the image's.
_LINE = re.compile(r"([^:]+)(?::[^:]*:([0-9]{1,10})(?::.*)?)?")
_FORMAT = "A line has a name, or is one of passwd(5): getent passwd ada bob > users"


def read(file: Path) -> list[User]:
    """The users in a file, a line each: a name, or a line of passwd(5), whose number is kept.

    Those without a number have one by their place. Empty lines, and those that begin
    with #, are none.

    Raises:
        UsageError: it cannot be read, or a line is neither, or there is none.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise unreadable(file, error) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is no list of users", resolution=_FORMAT) from error
    found: list[User] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if not match:
            raise UsageError(f"{file}, line {number}: {line!r} is no user", resolution=_FORMAT)
        name, uid = match.groups()
        found.append(User(name, FIRST_UID + len(found) if uid is None else int(uid)))
    if not found:
        raise UsageError(f"{file} has no users", resolution=_FORMAT)
    return found
