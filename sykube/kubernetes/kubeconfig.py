"""The user's kubeconfig: a cluster's context goes in and out, everything else stays."""

from __future__ import annotations

import contextlib
import os
import pwd
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sykube import documents
from sykube.errors import SykubeError
from sykube.host.files import write_atomically

_LOCK_TIMEOUT_S = 10.0
# Kubeconfig's own way to say whose an entry is: clientcmd/api/v1/types.go, NamedExtension.
_MARK = {"name": "sykube", "extension": {"provider": "sykube"}}
_SECTIONS = ("clusters", "contexts", "users")


@dataclass(frozen=True)
class Owner:
    """Whom the kubeconfig belongs to: who called sudo, otherwise this process's user."""

    uid: int
    gid: int
    home: Path

    @classmethod
    def of_caller(cls) -> Owner:
        uid = int(os.environ.get("SUDO_UID") or os.getuid())
        entry = pwd.getpwuid(uid)
        home = entry.pw_dir if "SUDO_UID" in os.environ else os.environ.get("HOME", entry.pw_dir)
        return cls(entry.pw_uid, entry.pw_gid, Path(home))


def user_kubeconfig(owner: Owner) -> Path:
    """The first file of KUBECONFIG, else ~/.kube/config, as kubectl chooses it."""
    first = os.environ.get("KUBECONFIG", "").split(":")[0]
    return Path(first) if first else owner.home / ".kube" / "config"


def check_free(path: Path, name: str) -> None:
    """Refuse a name that a context of another cluster of the user's has.

    Raises:
        SykubeError: it is taken, or the file is no kubeconfig.
    """
    config = _read(path)
    if any(_name(entry) == name for entry in config["contexts"]) and not _is_ours(config, name):
        raise SykubeError(
            f"your kubeconfig has a context {name!r} of another cluster",
            details=str(path),
            resolution="Choose another name for this one: sykube init --name NAME",
        )


def merge(path: Path, cluster_config: str, name: str, owner: Owner, *, switch: bool = True) -> str:
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
    with _locked(path, owner):
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
        _write(path, config, owner)
    return previous if previous != name else ""


def remove(path: Path, name: str, previous: str, owner: Owner) -> None:
    """Take a cluster's context out again; a file that then holds nothing goes, too.

    A context of that name that sykube did not make stays.

    Args:
        previous: what becomes the current context, where it still exists.
    """
    if not path.exists():
        return
    with _locked(path, owner):
        config = _read(path)
        if not _is_ours(config, name):
            return
        _drop(config, name)
        contexts = [_name(entry) for entry in config["contexts"]]
        if config.get("current-context") == name:
            config["current-context"] = previous if previous in contexts else ""
        if path.is_symlink() or any(config[section] for section in _SECTIONS):
            _write(path, config, owner)
            return
        path.unlink()
    if path.parent.name == ".kube":
        with contextlib.suppress(OSError):
            path.parent.rmdir()


def copy_for(source: Path, uid: int) -> Path:
    """Where the copy of a cluster's kubeconfig is that one user can read."""
    return source.with_name(f"{source.name}-{uid}")


def share(source: Path, owner: Owner) -> Path:
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
    _write_copy(source, copy, owner.uid, owner.gid)
    return copy


def renew_copies(source: Path) -> None:
    """Give the users' copies of a cluster's kubeconfig the credentials that it has now."""
    for copy in source.parent.glob(f"{source.name}-*"):
        found = copy.stat()
        _write_copy(source, copy, found.st_uid, found.st_gid)


def _write_copy(source: Path, copy: Path, uid: int, gid: int) -> None:
    write_atomically(copy, source.read_text(encoding="utf-8"), mode=0o600)
    os.chown(copy, uid, gid)


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
            return _MARK in cluster.get("extensions", [])
    return False


def _name(entry: Any) -> str:
    return str(entry.get("name", "")) if isinstance(entry, dict) else ""


def _read(path: Path) -> dict[str, Any]:
    try:
        config = documents.load(path.read_text(encoding="utf-8")) if path.exists() else None
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


def _write(path: Path, config: dict[str, Any], owner: Owner) -> None:
    # A link stays a link: many people keep the file elsewhere.
    target = path.resolve()
    write_atomically(target, documents.dump(config), mode=0o600)
    os.chown(target, owner.uid, owner.gid)


@contextlib.contextmanager
def _locked(path: Path, owner: Owner) -> Iterator[None]:
    """kubectl's own lock: a file beside the configuration that exists while it is changed."""
    if not path.parent.exists():
        path.parent.mkdir(parents=True, mode=0o750)
        os.chown(path.parent, owner.uid, owner.gid)
    lock = path.with_name(path.name + ".lock")
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL))
            break
        except FileExistsError:
            if time.monotonic() > deadline:
                raise SykubeError(
                    f"{path} is locked by another program",
                    details=f"{lock} has been there for {_LOCK_TIMEOUT_S:.0f} s",
                    resolution=f"If no kubectl is running: rm {lock}",
                ) from None
            time.sleep(0.1)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
