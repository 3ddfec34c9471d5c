"""sykube as it was: a checkout of the last release before this one, to make clusters with."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# What users had before Hosts, options and pod networks became modules.
COMMIT = "b0332a574bc0401f30c1896105de5991926c4b5d"
_ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def checkout(folder: Path) -> Iterator[Path]:
    """The tree of that commit.

    Raises:
        subprocess.CalledProcessError: this is no clone that has it.
    """
    tree = folder / "earlier"
    git = ("git", "-C", str(_ROOT), "worktree")
    subprocess.run([*git, "add", "--quiet", "--detach", tree, COMMIT], check=True)
    try:
        yield tree
    finally:
        subprocess.run([*git, "remove", "--force", tree], check=True)


def sykube(tree: Path, environment: dict[str, str], *arguments: str, timeout: float) -> None:
    """Run the sykube of a tree to its end.

    Raises:
        subprocess.CalledProcessError: it failed; its messages are on standard error.
    """
    command = [sys.executable, "-m", "sykube", *arguments]
    environment = environment | {"PYTHONPATH": str(tree)}
    subprocess.run(command, cwd=tree, env=environment, timeout=timeout, check=True)
