"""The user's kubeconfig: a cluster's context goes in and out, all else stays."""

from __future__ import annotations

import copy
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from sykube.errors import SykubeError
from sykube.kubernetes import kubeconfig
from sykube.kubernetes.kubeconfig import Owner, merge, remove, user_kubeconfig
from tests.fakes import OTHER_KUBECONFIG, admin_kubeconfig

SERVER = "https://10.11.11.254:6443"
ADMIN = admin_kubeconfig(SERVER)


@pytest.fixture
def owner(tmp_path: Path) -> Owner:
    return Owner(os.getuid(), os.getgid(), tmp_path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".kube/config"


@pytest.fixture
def other(path: Path) -> dict[str, Any]:
    """A kubeconfig that is there before."""
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(OTHER_KUBECONFIG), encoding="utf-8")
    path.chmod(0o600)
    return copy.deepcopy(OTHER_KUBECONFIG)


def load(path: Path) -> dict[str, Any]:
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def test_a_new_file_is_made_and_goes_again(path: Path, owner: Owner) -> None:
    assert merge(path, ADMIN, "lab", owner) == ""
    config = load(path)
    assert config["kind"] == "Config"
    assert config["current-context"] == "lab"
    assert config["contexts"] == [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}]
    assert config["clusters"][0]["cluster"]["server"] == SERVER
    assert config["users"][0]["user"]["client-key-data"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_uid == owner.uid
    remove(path, "lab", "", owner)
    assert not path.parent.exists()


def test_what_is_there_stays_and_comes_back(
    path: Path, owner: Owner, other: dict[str, Any]
) -> None:
    assert merge(path, ADMIN, "lab", owner) == "work"
    config = load(path)
    for section in ("clusters", "contexts", "users"):
        assert config[section][:-1] == other[section]
    assert config["current-context"] == "lab"
    remove(path, "lab", "work", owner)
    assert load(path) == other
    assert path.stat().st_mode & 0o777 == 0o600


def test_merging_again_replaces_the_clusters_own_entries(
    path: Path, owner: Owner, other: dict[str, Any]
) -> None:
    merge(path, ADMIN, "lab", owner)
    merge(path, admin_kubeconfig("https://10.11.12.254:6443"), "lab", owner)
    config = load(path)
    for section in ("clusters", "contexts", "users"):
        assert [entry["name"] for entry in config[section]].count("lab") == 1
    assert config["clusters"][-1]["cluster"]["server"] == "https://10.11.12.254:6443"


def test_a_context_that_the_user_has_chosen_since_stays_current(
    path: Path, owner: Owner, other: dict[str, Any]
) -> None:
    merge(path, ADMIN, "lab", owner)
    path.write_text(yaml.safe_dump(load(path) | {"current-context": "work"}), encoding="utf-8")
    remove(path, "lab", "", owner)
    assert load(path)["current-context"] == "work"


def test_an_earlier_context_that_is_gone_is_not_restored(
    path: Path, owner: Owner, other: dict[str, Any]
) -> None:
    merge(path, ADMIN, "lab", owner)
    remove(path, "lab", "gone", owner)
    assert load(path)["current-context"] == ""


def test_a_context_of_that_name_for_another_server_is_the_users(
    path: Path, owner: Owner, other: dict[str, Any]
) -> None:
    before = path.read_text(encoding="utf-8")
    remove(path, "work", "", owner)
    assert path.read_text(encoding="utf-8") == before


def test_a_users_own_context_of_that_name_is_not_overwritten(
    path: Path, owner: Owner, other: dict[str, Any]
) -> None:
    try:
        previous = merge(path, ADMIN, "work", owner)
        remove(path, "work", previous, owner)
    except SykubeError:
        pass  # to refuse is well, too
    assert load(path) == other


@pytest.mark.parametrize("action", ["merge", "remove"])
@pytest.mark.parametrize(
    ("text", "brief"),
    [
        ("clusters: [\n", "is no valid YAML"),
        ("- a\n- list\n", "is no kubeconfig"),
        ("kind: Deployment\n", "is no kubeconfig"),
        ("just words\n", "is no kubeconfig"),
    ],
)
def test_a_file_that_is_none_is_left_alone(
    path: Path, owner: Owner, other: object, action: str, text: str, brief: str
) -> None:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SykubeError, match=brief) as raised:
        if action == "merge":
            merge(path, ADMIN, "lab", owner)
        else:
            remove(path, "lab", "", owner)
    assert raised.value.resolution
    assert path.read_text(encoding="utf-8") == text
    assert sorted(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "entry", [{"name": "x"}, {"name": "x", "cluster": None}, {"cluster": {}}, None]
)
def test_an_odd_entry_does_not_keep_a_cluster_from_being_removed(
    path: Path, owner: Owner, other: dict[str, Any], entry: object
) -> None:
    other["clusters"].append(entry)
    path.write_text(yaml.safe_dump(other), encoding="utf-8")
    remove(path, "lab", "", owner)
    assert load(path) == other


@pytest.mark.parametrize("text", ["", "apiVersion: v1\nkind: Config\nclusters: null\n"])
def test_an_empty_file_is_as_good_as_none(path: Path, owner: Owner, other: Any, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    merge(path, ADMIN, "lab", owner)
    assert load(path)["current-context"] == "lab"


def test_removing_from_a_file_that_is_gone(path: Path, owner: Owner) -> None:
    remove(path, "lab", "", owner)
    assert not path.parent.exists()


def test_another_file_in_the_folder_keeps_it(path: Path, owner: Owner) -> None:
    merge(path, ADMIN, "lab", owner)
    (path.parent / "cache").mkdir()
    remove(path, "lab", "", owner)
    assert not path.exists()
    assert path.parent.is_dir()


@pytest.mark.parametrize("relative", [True, False])
def test_a_link_stays_a_link(
    path: Path, owner: Owner, other: dict[str, Any], tmp_path: Path, relative: bool
) -> None:
    target = tmp_path / "dotfiles/kubeconfig"
    target.parent.mkdir()
    path.rename(target)
    path.symlink_to(Path("../dotfiles/kubeconfig") if relative else target)
    merge(path, ADMIN, "lab", owner)
    assert path.is_symlink()
    assert load(target)["current-context"] == "lab"
    assert target.stat().st_mode & 0o777 == 0o600
    remove(path, "lab", "work", owner)
    assert path.is_symlink()
    assert load(target) == other


def test_no_credentials_stay_behind_a_link(path: Path, owner: Owner, tmp_path: Path) -> None:
    target = tmp_path / "kubeconfig"
    target.write_text("")
    path.parent.mkdir()
    path.symlink_to(target)
    merge(path, ADMIN, "lab", owner)
    remove(path, "lab", "", owner)
    assert "client-key-data" not in target.read_text()


def test_a_crash_while_writing_leaves_the_old_file(
    path: Path, owner: Owner, other: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        merge(path, ADMIN, "lab", owner)
    assert load(path) == other
    assert sorted(path.parent.iterdir()) == [path]


# --- kubectl's lock ---


def test_the_lock_of_another_program_is_waited_for(path: Path, owner: Owner, other: object) -> None:
    lock = path.with_name("config.lock")
    lock.touch()
    merged = threading.Event()

    def work() -> None:
        merge(path, ADMIN, "lab", owner)
        merged.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert load(path)["current-context"] == "work"
    assert not merged.is_set()
    lock.unlink()
    thread.join()
    assert merged.is_set()
    assert load(path)["current-context"] == "lab"
    assert not lock.exists()


def test_a_lock_that_stays_is_an_error_that_names_it(
    path: Path, owner: Owner, other: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubeconfig, "_LOCK_TIMEOUT_S", 0.0)
    lock = path.with_name("config.lock")
    lock.touch()
    before = path.read_text(encoding="utf-8")
    with pytest.raises(SykubeError, match="locked by another program") as raised:
        merge(path, ADMIN, "lab", owner)
    assert raised.value.resolution.endswith(f"rm {lock}")
    assert path.read_text(encoding="utf-8") == before
    assert lock.exists(), "it is not ours to remove"


# --- whose file ---


def test_the_file_is_the_one_that_kubectl_takes(
    tmp_path: Path, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert user_kubeconfig(owner) == tmp_path / ".kube/config"
    monkeypatch.setenv("KUBECONFIG", "/a/first:/a/second")
    assert user_kubeconfig(owner) == Path("/a/first")
    monkeypatch.setenv("KUBECONFIG", "")
    assert user_kubeconfig(owner) == tmp_path / ".kube/config"


def test_it_belongs_to_who_called_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    import pwd

    entry = next(entry for entry in pwd.getpwall() if entry.pw_uid != os.getuid())
    monkeypatch.setenv("SUDO_UID", str(entry.pw_uid))
    monkeypatch.setenv("HOME", "/root")
    assert Owner.of_caller() == Owner(entry.pw_uid, entry.pw_gid, Path(entry.pw_dir))
    monkeypatch.delenv("SUDO_UID")
    monkeypatch.setenv("HOME", "/somewhere")
    assert Owner.of_caller().home == Path("/somewhere")
    assert Owner.of_caller().uid == os.getuid()


def test_files_and_folders_are_given_to_their_owner(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[str, int, int]] = []
    monkeypatch.setattr(os, "chown", lambda file, uid, gid: given.append((str(file), uid, gid)))
    merge(path, ADMIN, "lab", Owner(1000, 1001, path.parent.parent))
    assert given == [(str(path.parent), 1000, 1001), (str(path), 1000, 1001)]
