"""The user's kubeconfig: a cluster's context goes in and out, all else stays."""

from __future__ import annotations

import copy
import itertools
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from sykube.errors import SykubeError, UsageError
from sykube.host.owner import Owner
from sykube.kubernetes import kubeconfig
from sykube.kubernetes.kubeconfig import merge, remove, require_writable, user_kubeconfig
from tests.fakes import FakeHost
from tests.fakes.kubeconfig import OTHER_KUBECONFIG, admin_kubeconfig

SERVER = "https://10.11.11.254:6443"
# This machine's own, as far as it has no programs.
HOST = FakeHost()
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
    assert merge(HOST, path, ADMIN, "lab", owner) == ""
    config = load(path)
    assert config["kind"] == "Config"
    assert config["current-context"] == "lab"
    assert config["contexts"] == [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}]
    assert config["clusters"][0]["cluster"]["server"] == SERVER
    assert config["users"][0]["user"]["client-key-data"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_uid == owner.uid
    remove(HOST, path, "lab", "", owner)
    assert not path.parent.exists()


def test_what_is_there_stays_and_comes_back(
    path: Path, owner: Owner, other: dict[str, Any]
) -> None:
    assert merge(HOST, path, ADMIN, "lab", owner) == "work"
    config = load(path)
    for section in ("clusters", "contexts", "users"):
        assert config[section][:-1] == other[section]
    assert config["current-context"] == "lab"
    remove(HOST, path, "lab", "work", owner)
    assert load(path) == other
    assert path.stat().st_mode & 0o777 == 0o600


def test_merging_again_replaces_the_clusters_own_entries(
    path: Path, owner: Owner, other: dict[str, Any]
) -> None:
    merge(HOST, path, ADMIN, "lab", owner)
    merge(HOST, path, admin_kubeconfig("https://10.11.12.254:6443"), "lab", owner)
    config = load(path)
    for section in ("clusters", "contexts", "users"):
        assert [entry["name"] for entry in config[section]].count("lab") == 1
    assert config["clusters"][-1]["cluster"]["server"] == "https://10.11.12.254:6443"


def test_a_context_that_the_user_has_chosen_since_stays_current(
    path: Path, owner: Owner, other: dict[str, Any]
) -> None:
    merge(HOST, path, ADMIN, "lab", owner)
    path.write_text(yaml.safe_dump(load(path) | {"current-context": "work"}), encoding="utf-8")
    remove(HOST, path, "lab", "", owner)
    assert load(path)["current-context"] == "work"


def test_an_earlier_context_that_is_gone_is_not_restored(
    path: Path, owner: Owner, other: dict[str, Any]
) -> None:
    merge(HOST, path, ADMIN, "lab", owner)
    remove(HOST, path, "lab", "gone", owner)
    assert load(path)["current-context"] == ""


def test_a_context_of_that_name_for_another_server_is_the_users(
    path: Path, owner: Owner, other: dict[str, Any]
) -> None:
    before = path.read_text(encoding="utf-8")
    remove(HOST, path, "work", "", owner)
    assert path.read_text(encoding="utf-8") == before


def test_a_users_own_context_of_that_name_is_not_overwritten(
    path: Path, owner: Owner, other: dict[str, Any]
) -> None:
    try:
        previous = merge(HOST, path, ADMIN, "work", owner)
        remove(HOST, path, "work", previous, owner)
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
            merge(HOST, path, ADMIN, "lab", owner)
        else:
            remove(HOST, path, "lab", "", owner)
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
    remove(HOST, path, "lab", "", owner)
    assert load(path) == other


@pytest.mark.parametrize("text", ["", "apiVersion: v1\nkind: Config\nclusters: null\n"])
def test_an_empty_file_is_as_good_as_none(path: Path, owner: Owner, other: Any, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    merge(HOST, path, ADMIN, "lab", owner)
    assert load(path)["current-context"] == "lab"


def test_removing_from_a_file_that_is_gone(path: Path, owner: Owner) -> None:
    remove(HOST, path, "lab", "", owner)
    assert not path.parent.exists()


def test_another_file_in_the_folder_keeps_it(path: Path, owner: Owner) -> None:
    merge(HOST, path, ADMIN, "lab", owner)
    (path.parent / "cache").mkdir()
    remove(HOST, path, "lab", "", owner)
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
    merge(HOST, path, ADMIN, "lab", owner)
    assert path.is_symlink()
    assert load(target)["current-context"] == "lab"
    assert target.stat().st_mode & 0o777 == 0o600
    remove(HOST, path, "lab", "work", owner)
    assert path.is_symlink()
    assert load(target) == other


def test_no_credentials_stay_behind_a_link(path: Path, owner: Owner, tmp_path: Path) -> None:
    target = tmp_path / "kubeconfig"
    target.write_text("")
    path.parent.mkdir()
    path.symlink_to(target)
    merge(HOST, path, ADMIN, "lab", owner)
    remove(HOST, path, "lab", "", owner)
    assert "client-key-data" not in target.read_text()


def test_a_crash_while_writing_leaves_the_old_file(
    path: Path, owner: Owner, other: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    # A disk that is full is met by the system's calls.
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        merge(HOST, path, ADMIN, "lab", owner)
    assert load(path) == other
    assert sorted(path.parent.iterdir()) == [path]


# --- kubectl's lock ---


def test_the_lock_of_another_program_is_waited_for(path: Path, owner: Owner, other: object) -> None:
    lock = path.with_name("config.lock")
    lock.touch()
    merged = threading.Event()

    def work() -> None:
        merge(HOST, path, ADMIN, "lab", owner)
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
    path: Path, owner: Owner, other: object
) -> None:
    # Each look at the clock is a minute after the one before.
    host = replace(HOST, monotonic=itertools.count(step=60).__next__, sleep=lambda _: None)
    lock = path.with_name("config.lock")
    lock.touch()
    before = path.read_text(encoding="utf-8")
    with pytest.raises(SykubeError, match="locked by another program") as raised:
        merge(host, path, ADMIN, "lab", owner)
    assert raised.value.resolution.endswith(f"rm {lock}")
    assert path.read_text(encoding="utf-8") == before
    assert lock.exists(), "it is not ours to remove"


# --- whose file ---


# As `kubectl config set-context new` of 1.36.2 wrote, of {0} the folder with "one" and "two" in it.
@pytest.mark.parametrize(
    ("named", "chosen"),
    [
        ("{0}/absent", "absent"),
        ("{0}/absent:{0}/one", "one"),
        ("{0}/one:{0}/two", "one"),
        ("{0}/two:{0}/one", "two"),
        (":{0}/two", "two"),
        ("{0}/absent::{0}/two:", "two"),
        ("{0}/absent:{0}/gone", "gone"),
        ("{0}/absent:{0}/absent", "absent"),
        ("{0}/broken-link:{0}/one", "one"),
        ("", "home/.kube/config"),
    ],
)
def test_what_is_new_goes_where_kubectl_puts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, chosen: str
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).touch()
    (tmp_path / "broken-link").symlink_to("nowhere")
    monkeypatch.setenv("KUBECONFIG", named.format(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    owner = Owner(os.getuid(), os.getgid(), tmp_path / "home")
    assert user_kubeconfig(owner, "lab") == tmp_path / chosen
    assert require_writable(HOST, owner, "lab") == tmp_path / chosen


def test_a_context_stays_in_the_file_that_it_is_in(
    tmp_path: Path, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    merge(HOST, two, ADMIN, "lab", owner)
    merge(HOST, one, ADMIN, "other", owner)
    monkeypatch.setenv("KUBECONFIG", f"{one}::{two}")
    assert user_kubeconfig(owner, "lab") == two
    assert kubeconfig.default_file(owner) == one
    assert kubeconfig.switch(HOST, one, "lab", owner) == "other"
    assert load(one)["current-context"] == "lab"
    assert kubeconfig.switch(HOST, one, "other", owner, only_from="unlike") == "lab"
    assert load(one)["current-context"] == "lab"
    assert kubeconfig.has_context(owner, "lab")
    assert not kubeconfig.has_context(owner, "third")


@pytest.mark.parametrize("section", ["contexts", "clusters", "users"])
def test_an_entry_of_that_name_in_any_file_is_another_clusters(
    tmp_path: Path, owner: Owner, monkeypatch: pytest.MonkeyPatch, section: str
) -> None:
    (tmp_path / "two").write_text(f"{section}: [{{name: lab}}]\n", encoding="utf-8")
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/one:{tmp_path}/two")
    with pytest.raises(SykubeError, match=f"has a {section[:-1]} 'lab' of another cluster"):
        require_writable(HOST, owner, "lab")


def test_a_kubeconfig_variable_that_names_nothing(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "::")
    with pytest.raises(SykubeError, match="names no file"):
        require_writable(HOST, owner, "lab")


@pytest.mark.parametrize("home", ["", None])
def test_without_a_home_it_is_below_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str | None
) -> None:
    for name in ("KUBECONFIG", "SUDO_UID", "HOME"):
        monkeypatch.delenv(name, raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    monkeypatch.chdir(tmp_path)
    owner = Owner.of_caller()
    assert user_kubeconfig(owner, "lab") == tmp_path / ".kube/config"
    assert owner.home.is_absolute()


# --- what cannot be written ---


def folder_in_its_place(path: Path) -> None:
    path.mkdir()


def link_into_no_folder(path: Path) -> None:
    path.symlink_to("/nowhere/at/all")


def link_loop(path: Path) -> None:
    path.symlink_to(path.name)


def utf_16(path: Path) -> None:
    path.write_bytes("kind: Config\n".encode("utf-16"))


@pytest.mark.parametrize(
    ("plant", "cause"),
    [
        (folder_in_its_place, "Is a directory"),
        (link_into_no_folder, "no such folder: /nowhere/at"),
        (link_loop, "Too many levels of symbolic links"),
        (utf_16, "can't decode"),
    ],
)
def test_what_cannot_be_written_is_named_with_its_cause(
    path: Path, owner: Owner, monkeypatch: pytest.MonkeyPatch, plant: Any, cause: str
) -> None:
    path.parent.mkdir()
    plant(path)
    before = sorted(path.parent.iterdir())
    monkeypatch.setenv("KUBECONFIG", str(path))
    with pytest.raises(SykubeError) as raised:
        require_writable(HOST, owner, "lab")
    assert str(path) in raised.value.brief
    assert cause in raised.value.details
    assert raised.value.resolution
    with pytest.raises(SykubeError):
        merge(HOST, path, ADMIN, "lab", owner)
    assert sorted(path.parent.iterdir()) == before


def test_a_file_in_the_place_of_a_folder(
    tmp_path: Path, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/file/config")
    with pytest.raises(SykubeError, match="Not a directory|cannot be") as raised:
        require_writable(HOST, owner, "lab")
    assert "Not a directory" in raised.value.details


@pytest.mark.parametrize("call", ["chown", "open"])
def test_a_file_system_that_refuses_is_asked_and_named(
    path: Path, owner: Owner, other: object, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """As one that is read-only, or NFS for a root that is nobody there."""

    def refuse(*arguments: Any, **_: object) -> Any:
        raise OSError(30, "Read-only file system", str(arguments[0]))

    monkeypatch.setenv("KUBECONFIG", str(path))
    before = sorted(path.parent.iterdir())
    host = HOST
    if call == "chown":
        host = replace(HOST, chown=refuse)
    else:
        # A file system that is read-only; root writes everywhere else.
        monkeypatch.setattr(os, call, refuse)
    with pytest.raises(SykubeError, match="cannot be written") as raised:
        require_writable(host, owner, "lab")
    monkeypatch.undo()
    assert "Read-only file system" in raised.value.details
    assert sorted(path.parent.iterdir()) == before


def test_a_check_changes_nothing(path: Path, owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(path))
    assert require_writable(HOST, owner, "lab") == path
    assert not path.parent.exists()


def test_extensions_that_are_null_are_none(path: Path, owner: Owner, other: dict[str, Any]) -> None:
    other["clusters"].append({"name": "lab", "cluster": {"extensions": None}})
    path.write_text(yaml.safe_dump(other), encoding="utf-8")
    remove(HOST, path, "lab", "", owner)
    assert load(path) == other


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


def test_files_and_folders_are_given_to_their_owner(path: Path) -> None:
    given: list[tuple[str, int, int]] = []
    host = replace(HOST, chown=lambda file, uid, gid: given.append((str(file), uid, gid)))
    merge(host, path, ADMIN, "lab", Owner(1000, 1001, path.parent.parent))
    assert given == [(str(path.parent), 1000, 1001), (str(path), 1000, 1001)]


@pytest.mark.parametrize("number", ["somebody", "-1", "4294967290", "99999999999999999999", "1e3"])
def test_a_caller_of_sudo_whom_the_host_does_not_know(
    number: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_UID", number)
    with pytest.raises(UsageError, match="this host knows no such user") as raised:
        Owner.of_caller()
    assert "env -u SUDO_UID" in raised.value.resolution
