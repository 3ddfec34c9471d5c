"""Options of Apptainer that a cluster lets its pods ask for, by annotations: runtime/options.go."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from sykube.errors import UsageError
from sykube.node.mounts import Mount

ANNOTATION = "apptainer.sykube.local/"
SWITCHES = ("nv", "rocm", "writable-tmpfs", "fakeroot")
BIND = "bind"
# Where nodes have the folders that pods may bind, each at its own path below: runtime/options.go.
PLACE = "/var/lib/sykube/site"
# Of the host: what pods may not have, whoever allows it, nor a folder that it is in.
_CLOSED = (
    *("/boot", "/dev", "/etc/kubernetes", "/etc/shadow", "/etc/ssh", "/proc", "/root", "/run"),
    *("/sys", "/var/lib/sykube", "/var/run"),
)


def split(text: str) -> tuple[str, ...]:
    """The parts of a text, which commas separate."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def problem(value: Sequence[str]) -> str:
    """What is wrong with the options that pods may have, or nothing."""
    return next(filter(None, map(_problem_of_one, value)), "") or _twice(value)


def _problem_of_one(text: str) -> str:
    name, equals, folder = text.partition("=")
    if text in SWITCHES:
        return ""
    if name != BIND:
        known = ", ".join((*SWITCHES, f"{BIND}=/FOLDER", f"{BIND}=/FOLDER:rw"))
        return f"pods can have no option {text!r}; there are: {known}"
    if not equals:
        return f"the option {BIND} needs a folder that pods may bind, such as {BIND}=/opt/site"
    path = folder.removesuffix(":rw")
    # It becomes a line, a word of --bind, and a path below another one.
    if not path.isprintable() or any(each in path for each in ":,\\ "):
        return f"the folder {path!r} that pods may bind has a character that it cannot have"
    shortest = path == str(PurePosixPath(path)) and not {"", ".."} & {*path.split("/")[1:]}
    if not path.startswith("/") or not (shortest or path == "/"):
        return f"the folder {path!r} that pods may bind is no absolute path, or not the shortest"
    return closed(path)


def _twice(value: Sequence[str]) -> str:
    folders = [str(mount.host) for mount in mounts(value)]
    twice = next((each for each in folders if folders.count(each) > 1), "")
    return f"the folder {twice} that pods may bind is named twice" if twice else ""


def closed(path: str, *more: str) -> str:
    """Why pods may not have a folder of the host, or nothing.

    Args:
        more: further paths that are not for pods.
    """
    for each in (*_CLOSED, *more):
        if PurePosixPath(path).is_relative_to(each) or PurePosixPath(each).is_relative_to(path):
            return f"the folder {path} is not for pods: {each} is the host's own"
    return ""


def mounts(value: Sequence[str]) -> list[Mount]:
    """The folders that pods may bind, as nodes have them; a folder before what is in it."""
    found = []
    for text in value:
        name, _, folder = text.partition("=")
        if name == BIND:
            path = folder.removesuffix(":rw")
            found.append(Mount(Path(path), f"{PLACE}{path}", not folder.endswith(":rw")))
    return sorted(found, key=lambda mount: mount.inside)


def without_folders(value: Sequence[str]) -> tuple[str, ...]:
    """What says nothing of a host's folders."""
    return tuple(text for text in value if text in SWITCHES)


def require_folders(value: Sequence[str], *own: Path) -> None:
    """Refuse folders that are not there, or links to what is not for pods.

    Args:
        own: folders of the cluster's.

    Raises:
        UsageError: one is.
    """
    for mount in mounts(value):
        wrong = "" if mount.host.is_dir() else f"the folder {mount.host} does not exist"
        wrong = wrong or closed(str(mount.host.resolve()), *(str(path) for path in own))
        if wrong:
            raise UsageError(
                f"pods cannot bind {mount.host}: {wrong}",
                resolution=f"Make the folder, or leave --allow-pod-option {BIND}={mount.host} out.",
            )
