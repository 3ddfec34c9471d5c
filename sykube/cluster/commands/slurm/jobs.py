"""Commands of users in a Slurm cluster: in the login pod, as one of its users."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from sykube.cluster.commands.slurm.place import Place
from sykube.errors import SykubeError, UsageError
from sykube.host.files import unreadable
from sykube.slurm.controller import LOGIN
from sykube.slurm.spec import SlurmSpec

_TIMEOUT_S = 120.0
_SCRIPT = "Take a script as sbatch takes it: it begins with #!/bin/sh"
# sbatch(1): a script names its job, or the job is named for the script, which has no name here.
_NAMED = re.compile(r"^#SBATCH\s+(-J|--job-name\b)", re.MULTILINE)


def user_of(spec: SlurmSpec, wanted: str) -> str:
    """The user whose command it is: the first one where none is named.

    Raises:
        UsageError: there is no such user.
    """
    if wanted and wanted not in spec.names:
        raise UsageError(
            f"the Slurm cluster {spec.namespace} has no user {wanted!r}",
            resolution=f"Its users: {', '.join(spec.names)}",
        )
    return wanted or spec.names[0]


def entering(place: Place, user: str, command: Sequence[str], *, terminal: bool) -> list[str]:
    """The command line by which a user's command runs in that user's home, with our input."""
    cluster = place.cluster
    return [
        str(cluster.image.kubectl), "--namespace", place.namespace, "exec", "--stdin",
        *(["--tty"] if terminal else []), LOGIN, "--container", user, "--",
        "slurm-role", "in-home", *command,
    ]  # fmt: skip


def submit(place: Place, user: str, file: Path, options: Sequence[str]) -> str:
    """Submit a script of this host.

    Args:
        options: of sbatch, before those in the script.

    Returns:
        What sbatch says: the job's number.

    Raises:
        UsageError: the file cannot be read, or is no script.
        SykubeError: Slurm refuses it; says why.
    """
    try:
        script = file.read_text(encoding="utf-8")
    except OSError as error:
        raise unreadable(file, error) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is no script", resolution=_SCRIPT) from error
    if not script.startswith("#!"):
        raise UsageError(f"{file} is no script: it has no #! in its first line", resolution=_SCRIPT)
    named = [] if _NAMED.search(script) else [f"--job-name={file.name}"]
    done = place.controller.kubectl(
        "exec", "--stdin", LOGIN, "--container", user, "--",
        "slurm-role", "in-home", "sbatch", *named, *options,
        stdin=script, timeout=_TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.code != 0:
        lines = [line.removeprefix("sbatch: ") for line in done.stderr.splitlines()]
        # The last line is kubectl's, about the exit code.
        said = [line.removeprefix("error: ") for line in lines if not line.startswith("command ")]
        raise SykubeError(
            f"Slurm refuses {file}: {said[0] if said else 'it does not say why'}",
            details="\n".join(said[1:]),
            resolution=f"Its partitions and nodes: sykube slurm shell{place.options} -- sinfo",
        )
    return done.stdout.strip()
