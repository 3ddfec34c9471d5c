"""The user's kubeconfig: add and remove a cluster's context; everything else is kept."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from sykube import documents
from sykube.errors import SykubeError
from sykube.host.files import write_atomically
from sykube.host.host import Host
from sykube.host.owner import Owner

_LOCK_TIMEOUT_S = 10.0
# Kubeconfig's own way to say whose an entry is: clientcmd/api/v1/types.go, NamedExtension.
_MARK = {"name": "sykube", "extension": {"provider": "sykube"}}
_SECTIONS = ("clusters", "contexts", "users")


def user_kubeconfigs(owner: Owner) -> list[Path]:
    """The files that kubectl reads (clientcmd, NewDefaultClientConfigLoadingRules).

    Raises:
        SykubeError: KUBECONFIG names no file at all.
    """
    named = os.environ.get("KUBECONFIG", "")
    if named:
        # Empty parts name nothing.
        files = [Path(part).absolute() for part in dict.fromkeys(named.split(":")) if part]
        if not files:
            raise SykubeError(
                f"KUBECONFIG is {named!r}, which names no file",
                resolution="Let it name one, or unset it for ~/.kube/config.",
            )
        return files
    if "SUDO_UID" not in os.environ and not os.environ.get("HOME"):
        # filepath.Join of an empty HOME: below the working folder.
        return [Path(".kube/config").absolute()]
    return [owner.home / ".kube" / "config"]


def user_kubeconfig(owner: Owner, name: str) -> Path:
    """The file that a cluster's context belongs into.

    As kubectl chooses (clientcmd, ModifyConfig): where it is already, otherwise the first file
    that exists, otherwise the last.

    Raises:
        SykubeError: a file is no kubeconfig or cannot be read, or KUBECONFIG names none.
    """
    files = user_kubeconfigs(owner)
    for path in files:
        if _is_ours(_read(path), name):
            return path
    return _default(files)


def _default(files: list[Path]) -> Path:
    """As PathOptions.GetDefaultFilename of clientcmd."""
    return next((path for path in files if path.exists()), files[-1])


def require_writable(host: Host, owner: Owner, name: str) -> Path:
    """The file that a cluster's context belongs into, if it can be written there.

    It changes nothing that lasts: what is tried is undone.

    Raises:
        SykubeError: a context, cluster or user of another cluster has the name, a file is no
            kubeconfig, or one that is to be written cannot be.
    """
    files = user_kubeconfigs(owner)
    for path in files:
        check_free(path, name)
    path = user_kubeconfig(owner, name)
    for each in dict.fromkeys((path, _default(files))):
        with _explained(each):
            _try(host, each, owner)
    return path


def check_free(path: Path, name: str) -> None:
    """Refuse a name that an entry of another cluster of the user's has.

    Raises:
        SykubeError: it is taken, or the file is no kubeconfig.
    """
    config = _read(path)
    if _is_ours(config, name):
        return
    for section in ("contexts", "clusters", "users"):
        if any(_name(entry) == name for entry in config[section]):
            raise SykubeError(
                f"your kubeconfig has a {section[:-1]} {name!r} of another cluster",
                details=str(path),
                resolution="Choose another name for this one: sykube init --name NAME",
            )


def merge(
    host: Host, path: Path, cluster_config: str, name: str, owner: Owner, *, switch: bool = True
) -> str:
    """Add a cluster's context to a kubeconfig and, with `switch`, make it the current one.

    Args:
        cluster_config: the cluster's own admin kubeconfig.
        name: of its context, cluster and user in the merged file.

    Returns:
        The context that was current before; empty when it was this one.

    Raises:
        SykubeError: the file is no kubeconfig, another program holds its lock, or the user has
            a context of that name for another cluster.
    """
    source = documents.load(cluster_config)
    with _explained(path), _locked(host, path, owner):
        check_free(path, name)
        config = _read(path)
        _drop(config, name)
        cluster = source["clusters"][0]["cluster"] | {"extensions": [_MARK]}
        config["clusters"].append({"name": name, "cluster": cluster})
        config["users"].append({"name": name, "user": source["users"][0]["user"]})
        config["contexts"].append({"name": name, "context": {"cluster": name, "user": name}})
        previous = str(config.get("current-context") or "")
        if switch:
            config["current-context"] = name
        _write(host, path, config, owner)
    return previous if previous != name else ""


def switch(host: Host, path: Path, name: str, owner: Owner, *, only_from: str | None = None) -> str:
    """Make a context the current one in a file that need not have its entry.

    Args:
        only_from: do nothing unless this one is current.

    Returns:
        The one that was current before; empty when it was this one.
    """
    with _explained(path), _locked(host, path, owner):
        config = _read(path)
        previous = str(config.get("current-context") or "")
        if previous != name and only_from in (None, previous):
            config["current-context"] = name
            _write(host, path, config, owner)
    return previous if previous != name else ""


def has_context(owner: Owner, name: str) -> bool:
    """Whether any of the user's files has a context of that name."""
    return name in contexts(owner)


def contexts(owner: Owner) -> list[str]:
    """The contexts of all of the user's files."""
    found = (_read(path)["contexts"] for path in user_kubeconfigs(owner))
    return [_name(entry) for entries in found for entry in entries]


def default_file(owner: Owner) -> Path:
    """The file where kubectl puts what is new, and the current context.

    Raises:
        SykubeError: KUBECONFIG names no file at all.
    """
    return _default(user_kubeconfigs(owner))


def remove(host: Host, path: Path, name: str, previous: str, owner: Owner) -> None:
    """Take a cluster's context out again; a file that then holds nothing goes, too.

    A context of that name that sykube did not make stays.

    Args:
        previous: what becomes the current context, where it still exists.
    """
    if not path.exists():
        return
    with _explained(path), _locked(host, path, owner):
        config = _read(path)
        if not _is_ours(config, name):
            return
        _drop(config, name)
        contexts = [_name(entry) for entry in config["contexts"]]
        if config.get("current-context") == name:
            config["current-context"] = previous if previous in contexts else ""
        if path.is_symlink() or any(config[section] for section in _SECTIONS):
            _write(host, path, config, owner)
            return
        path.unlink()
    if path.parent.name == ".kube":
        with contextlib.suppress(OSError):
            path.parent.rmdir()


def copy_for(source: Path, uid: int) -> Path:
    """Where the copy of a cluster's kubeconfig is that one user can read."""
    return source.with_name(f"{source.name}-{uid}")


def share(host: Host, source: Path, owner: Owner) -> Path:
    """Make, or renew, a copy of a cluster's kubeconfig that one user alone can read.

    Not the file itself: root's kubectl runs what a kubeconfig tells it to run.

    Raises:
        SykubeError: the user cannot reach the cluster's folder.
    """
    copy = copy_for(source, owner.uid)
    closed = [str(folder) for folder in source.resolve().parents if not _may_enter(folder, owner)]
    if closed:
        raise SykubeError(
            "you cannot reach the cluster's kubeconfig",
            details=f"the folder {closed[-1]} is closed to you",
            resolution="Write a copy to a place of your own: sudo sykube config > FILE",
        )
    _write_copy(host, source, copy, owner.uid, owner.gid)
    return copy


def renew_copies(host: Host, source: Path) -> None:
    """Give the users' copies of a cluster's kubeconfig the credentials that it has now."""
    for copy in source.parent.glob(f"{source.name}-*"):
        found = copy.stat()
        _write_copy(host, source, copy, found.st_uid, found.st_gid)


def _write_copy(host: Host, source: Path, copy: Path, uid: int, gid: int) -> None:
    write_atomically(copy, source.read_text(encoding="utf-8"), mode=0o600)
    host.chown(copy, uid, gid)


def _may_enter(folder: Path, owner: Owner) -> bool:
    found = folder.stat()
    if found.st_uid == owner.uid:
        return bool(found.st_mode & 0o100)
    return bool(found.st_mode & (0o010 if found.st_gid == owner.gid else 0o001))


def _is_ours(config: dict[str, Any], name: str) -> bool:
    """Whether the cluster entry of that name carries sykube's mark."""
    for entry in config["clusters"]:
        if _name(entry) == name:
            cluster = entry.get("cluster") or {}
            return _MARK in (cluster.get("extensions") or [])
    return False


def _name(entry: Any) -> str:
    return str(entry.get("name", "")) if isinstance(entry, dict) else ""


def _read(path: Path) -> dict[str, Any]:
    try:
        config = documents.load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        config = None
    except OSError as error:
        raise _unusable(path, "read", error) from error
    except UnicodeDecodeError as error:
        raise SykubeError(
            f"{path} is no text in UTF-8; it was left alone",
            details=str(error),
            resolution="Convert it (iconv) or move it away, then run the command again.",
        ) from error
    except yaml.YAMLError as error:
        raise SykubeError(
            f"{path} is no valid YAML; it was left alone",
            details=str(error),
            resolution="Repair it or move it away, then run the command again.",
        ) from error
    config = config or {"apiVersion": "v1", "kind": "Config", "preferences": {}}
    if not isinstance(config, dict) or config.get("kind", "Config") != "Config":
        raise SykubeError(
            f"{path} is no kubeconfig; it was left alone",
            resolution="Move it away, or point KUBECONFIG to another file.",
        )
    for section in _SECTIONS:
        config[section] = config.get(section) or []
    return config


def _drop(config: dict[str, Any], name: str) -> None:
    for section in _SECTIONS:
        config[section] = [entry for entry in config[section] if _name(entry) != name]


def _write(host: Host, path: Path, config: dict[str, Any], owner: Owner) -> None:
    # A link stays a link: many people keep the file elsewhere.
    target = Path(os.path.realpath(path))
    write_atomically(target, documents.dump(config), mode=0o600)
    host.chown(target, owner.uid, owner.gid)


def _try(host: Host, path: Path, owner: Owner) -> None:
    """Try all that a change of a kubeconfig needs, without changing it.

    Only a trial shows it: root may write everywhere but on file systems that are read-only or
    another machine's.

    Raises:
        OSError: it cannot be written.
    """
    target = Path(os.path.realpath(path))
    if target.exists():
        os.close(os.open(target, os.O_WRONLY))
        if target in _mount_points(host):
            raise OSError(errno.EBUSY, "it is mounted there on its own and cannot be replaced")
    folders = {_nearest(path.parent)}  # where the lock is
    if path.is_symlink():
        if not target.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, "there is no such folder", str(target.parent))
        folders.add(target.parent)
    for folder in sorted(folders):
        descriptor, trial = tempfile.mkstemp(dir=folder, prefix=f".{path.name}.")
        try:
            os.close(descriptor)
            host.chown(trial, owner.uid, owner.gid)
        finally:
            Path(trial).unlink()


def _nearest(folder: Path) -> Path:
    """The folder, or of those above it the first that exists: what is between can be made there."""
    return next(each for each in (folder, *folder.parents) if os.path.lexists(each))


def _mount_points(host: Host) -> set[Path]:
    mounts = (host.proc / "self/mountinfo").read_text(encoding="utf-8", errors="replace")
    # Spaces and the like stand as octal numbers (proc_pid_mountinfo(5)).
    named = (line.split(" ")[4] for line in mounts.splitlines())
    return {Path(re.sub(r"\\([0-7]{3})", lambda o: chr(int(o[1], 8)), name)) for name in named}


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what the system refuses into an error that names the cause; a full disk stays itself."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _unusable(path, "written", error) from error


def _unusable(path: Path, what: str, error: OSError) -> SykubeError:
    place = f"{path}, a link to {os.path.realpath(path)}" if path.is_symlink() else str(path)
    cause = error.strerror or str(error)
    if error.filename and str(error.filename) != str(path):
        cause = f"{cause}: {error.filename}"
    return SykubeError(
        f"your kubeconfig {path} cannot be {what}",
        details=f"{place}: {cause}",
        resolution="Fix that, or name another file: [sudo] KUBECONFIG=FILE sykube …",
    )


@contextlib.contextmanager
def _locked(host: Host, path: Path, owner: Owner) -> Iterator[None]:
    """kubectl's own lock: a file beside the configuration that exists while it is changed."""
    if not path.parent.exists():
        path.parent.mkdir(parents=True, mode=0o750)
        host.chown(path.parent, owner.uid, owner.gid)
    lock = path.with_name(path.name + ".lock")
    deadline = host.monotonic() + _LOCK_TIMEOUT_S
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL))
            break
        except FileExistsError:
            if host.monotonic() > deadline:
                raise SykubeError(
                    f"{path} is locked by another program",
                    details=f"{lock} has been there for {_LOCK_TIMEOUT_S:.0f} s",
                    resolution=f"If no kubectl is running: rm {lock}",
                ) from None
            host.sleep(0.1)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
