"""Files that other processes may read or that must survive a crash."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sykube.errors import UsageError


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace a file as a whole, so that a reader or a crash sees the old or the new text.

    Raises:
        OSError: the disk is full or the folder is missing; the old file is untouched.
    """
    # Not above: most commands only read.
    import tempfile

    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(text.encode())
            file.flush()
            os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def replaced(file: Path) -> Iterator[Path]:
    """A file of the same name beside one of the user's, which it replaces on success.

    Raises:
        UsageError: nothing can be written there.
    """
    # Not above: most commands only read.
    import shutil
    import tempfile

    try:
        folder = Path(tempfile.mkdtemp(prefix=".sykube-", dir=file.parent))
    except OSError as error:
        raise UsageError(
            f"cannot write into {file.parent}: {error.strerror}",
            resolution="Give a file in a folder that is there and that you can write to.",
        ) from error
    try:
        work = folder / file.name
        yield work
        work.replace(file)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def require_place(file: Path) -> None:
    """Refuse to write a file where none can be.

    Raises:
        UsageError: there is no folder for it, or it is one.
    """
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise UsageError(
            f"{file} cannot be written: there is no such folder, or it is one itself",
            resolution="Give the name of a file in a folder that is there.",
        )


def unreadable(file: Path, error: OSError) -> UsageError:
    return UsageError(
        f"cannot read {file}: {error.strerror or error}",
        resolution="Let root read it, or copy it to where root can.",
    )
