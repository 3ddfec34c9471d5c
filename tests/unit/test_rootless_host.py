"""A user's folders and IDs, and the machine as the user's sykube sees it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sykube.cli import context, main
from sykube.cluster.model.spec import ClusterSpec
from sykube.cluster.model.state import State
from sykube.errors import ExitCode, HostError
from sykube.host import capabilities, engines
from sykube.host.grants import Grants
from sykube.host.paths import ClusterPaths
from sykube.host.run import CommandError, Completed
from sykube.image import build
from sykube.network.subnets import choose
from sykube.rootless import entry, folders, ids
from sykube.rootless.host import RootlessHost, whose_namespaces
from sykube.rootless.ids import Ids
from sykube.rootless.network import RootlessNetwork
from tests.fakes import FakeHost, World, fill
from tests.fakes.host import no_process
from tests.unit.helpers import Sykube
from tests.unit.test_opening import COMMANDS

HOME = Path("/home/ada")


# --- folders ---


def test_each_folder_is_where_the_specification_has_it(tmp_path: Path) -> None:
    found = folders.of_user(1000, HOME, {}, tmp_path)
    assert found.data == HOME / ".local/share/sykube"
    assert found.cache == HOME / ".cache/sykube"
    assert found.logs == HOME / ".local/state/sykube"


def test_variables_name_other_folders_and_relative_ones_are_ignored(tmp_path: Path) -> None:
    named = {"XDG_DATA_HOME": "/scratch/ada", "XDG_CACHE_HOME": "cache", "XDG_STATE_HOME": ""}
    found = folders.of_user(1000, HOME, named, tmp_path)
    assert found.data == Path("/scratch/ada/sykube")
    assert found.cache == HOME / ".cache/sykube"
    assert found.logs == HOME / ".local/state/sykube"


def test_what_runs_is_in_the_users_own_folder_of_that(tmp_path: Path) -> None:
    own = tmp_path / "run/user/1000"
    own.mkdir(parents=True, mode=0o700)
    assert folders.of_user(1000, HOME, {}, tmp_path).runtime == own / "sykube"
    named = tmp_path / "named"
    named.mkdir(mode=0o700)
    variables = {"XDG_RUNTIME_DIR": str(named)}
    assert folders.of_user(1000, HOME, variables, tmp_path).runtime == named / "sykube"


@pytest.mark.parametrize("made", [None, 0o755])
def test_where_nobody_made_one_for_the_user_alone_it_is_in_tmp(
    tmp_path: Path, made: int | None
) -> None:
    if made is not None:
        (tmp_path / "run/user/1000").mkdir(parents=True, mode=made)
    found = folders.of_user(1000, HOME, {}, tmp_path)
    assert found.runtime == tmp_path / "tmp/sykube-1000"


def test_a_folder_in_tmp_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    folders.make_private(tmp_path / "own")
    assert (tmp_path / "own").stat().st_mode & 0o777 == 0o700
    (tmp_path / "own").chmod(0o750)
    with pytest.raises(HostError, match="only you may enter"):
        folders.make_private(tmp_path / "own")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(HostError, match="only you may enter"):
        folders.make_private(tmp_path / "link")


# --- IDs ---


def machine(root: Path, subuid: str, subgid: str = "", *, programs: bool = True) -> FakeHost:
    fill(root / "etc", {"subuid": subuid, "subgid": subgid or subuid})
    return FakeHost(root, which=lambda program: f"/usr/bin/{program}" if programs else None)


@pytest.mark.parametrize("line", ["ada:100000:65536\n", "1000:100000:65536\n"])
def test_a_range_is_found_by_name_or_number(tmp_path: Path, line: str) -> None:
    host = machine(tmp_path, f"# none\nbob:1:65536\n{line}")
    assert ids.of_user(host, "ada", 1000, 100) == Ids(
        1000, 100, ((100000, 65536),), ((100000, 65536),)
    )


@pytest.mark.parametrize(
    ("subuid", "subgid", "programs"),
    [
        ("bob:100000:65536\n", "", True),
        ("ada:100000:1000\n", "", True),
        ("ada:100000:65536\n", "bob:100000:65536\n", True),
        ("ada:100000:65536\n", "", False),
        ("ada:x:65536\n", "", True),
    ],
    ids=["another's", "too few", "no groups", "no newuidmap", "no number"],
)
def test_without_a_range_that_can_be_used_there_is_one_id(
    tmp_path: Path, subuid: str, subgid: str, programs: bool
) -> None:
    host = machine(tmp_path, subuid, subgid, programs=programs)
    assert not ids.of_user(host, "ada", 1000, 100).has_ranges


def test_ranges_are_mapped_one_after_the_other_by_the_programs(tmp_path: Path) -> None:
    called = []

    def run(argv: Sequence[str | Path], **_: Any) -> Completed:
        called.append(list(map(str, argv)))
        return Completed((), 0, "", "")

    owned = Ids(1000, 100, ((100000, 65536), (300000, 10)), ((100000, 65536),))
    ids.map_into(FakeHost(tmp_path, run), 77, owned)
    assert called == [
        ["newuidmap", "77", "0", "1000", "1", "1", "100000", "65536", "65537", "300000", "10"],
        ["newgidmap", "77", "0", "100", "1", "1", "100000", "65536"],
    ]


def test_newuidmap_without_its_rights_is_what_the_administrator_is_asked_about(
    tmp_path: Path,
) -> None:
    def run(argv: Sequence[str | Path], **_: Any) -> Completed:
        raise CommandError("failed", list(map(str, argv)), "newuidmap: write to uid_map failed")

    owned = Ids(1000, 100, ((100000, 65536),), ((100000, 65536),))
    with pytest.raises(HostError) as caught:
        ids.map_into(FakeHost(tmp_path, run), 77, owned)
    assert "chmod u+s" in caught.value.resolution


def test_one_id_is_mapped_by_the_kernels_own_files(tmp_path: Path) -> None:
    fill(tmp_path / "proc/77", {"setgroups": "", "uid_map": "", "gid_map": ""})
    ids.map_into(FakeHost(tmp_path), 77, Ids(1000, 100))
    found = {
        each: (tmp_path / "proc/77" / each).read_text() for each in os.listdir(tmp_path / "proc/77")
    }
    assert found == {"setgroups": "deny", "uid_map": "0 1000 1\n", "gid_map": "0 100 1\n"}


# --- the machine ---


@pytest.fixture
def rootless(tmp_path: Path) -> RootlessHost:
    found = folders.of_user(1000, tmp_path / "home", {}, tmp_path)
    grants = Grants(rootless=True, user="ada", uid=1000)
    return RootlessHost(tmp_path, folders=found, ids=Ids(1000, 100), grants=grants)


def test_its_files_are_the_users(
    rootless: RootlessHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SYKUBE_CACHE_DIR")
    share = tmp_path / "home/.local/share/sykube"
    assert rootless.data == share
    # Of namespaces, which other hosts that share the folder have others of.
    assert rootless.records == tmp_path / "tmp/sykube-1000/host"
    assert rootless.cache == tmp_path / "home/.cache/sykube"
    assert rootless.caches == (rootless.cache, tmp_path / "var/cache/sykube")
    assert rootless.locks == tmp_path / "tmp/sykube-1000/locks"
    # Those of root's clusters of the same name are not touched.
    assert rootless.units == tmp_path / "home/.config/systemd/user"
    assert rootless.manager == tmp_path / "run/user/1000/systemd"
    for place in (rootless.cni_state, rootless.snapshots):
        assert place.is_relative_to(tmp_path / "tmp/sykube-1000") or place.is_relative_to(share)
    monkeypatch.setenv("SYKUBE_SHARED_CACHE_DIR", "/sw/sykube")
    assert rootless.caches[1] == Path("/sw/sykube")


def test_a_cache_that_one_may_only_read_is_used_and_not_written_to(
    rootless: RootlessHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = tmp_path / "sw/sykube"
    named.mkdir(parents=True)
    monkeypatch.setenv("SYKUBE_CACHE_DIR", str(named))
    assert (rootless.cache, rootless.caches[0]) == (named, named)
    # As root this test may write everywhere.
    monkeypatch.setattr(os, "access", lambda folder, _mode: folder != named)
    own = tmp_path / "home/.cache/sykube"
    assert rootless.cache == own
    assert rootless.caches == (own, named, tmp_path / "var/cache/sykube")


def test_images_and_the_engine_of_root_are_found_and_stay(
    rootless: RootlessHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SYKUBE_CACHE_DIR")
    own, shared = rootless.caches
    for cache, image in ((own, "mine"), (shared, "roots")):
        fill(cache / "node-images" / image, {"complete": ""})
    assert {image.fingerprint for image in build.list_images(rootless)} == {"mine", "roots"}
    fill(shared / "apptainer/usr/bin", {"apptainer": ""})
    assert engines.private(rootless).root == shared / "apptainer"
    assert build.prune(rootless, frozenset()) == [own / "node-images/mine"]
    assert (shared / "node-images/roots/complete").exists()


@pytest.mark.parametrize("granted", [True, False])
def test_cgroups_are_granted_in_each_hierarchy_or_not_at_all(
    rootless: RootlessHost, granted: bool
) -> None:
    for name in ("cpu", "memory"):
        hierarchy = rootless.cgroups / name
        fill(hierarchy, {"tasks": ""})
        if granted or name == "cpu":
            fill(hierarchy / "sykube-1000", {"cgroup.procs": ""})
    expected = {"cpu", "memory"} if granted else set()
    assert {each.parent.name for each in rootless.granted_cgroups()} == expected


def test_its_namespaces_have_every_capability(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, grants=Grants(rootless=True))
    assert capabilities.missing(host) == frozenset()


def test_what_only_root_can_is_refused_to_others(tmp_path: Path) -> None:
    Grants().require_host_root("this", "that")
    Grants().require_cgroups("this")
    user = replace(FakeHost(tmp_path), grants=Grants(rootless=True, cgroups=False)).grants
    with pytest.raises(HostError, match="this needs the host's root"):
        user.require_host_root("this", "that")
    with pytest.raises(HostError, match="this needs cgroups"):
        user.require_cgroups("this")


def test_root_is_refused_a_cluster_without_root(world: World, sykube: Sykube) -> None:
    done = sykube("init", "--rootless")
    assert done.code == ExitCode.USAGE
    assert "for users other than root" in done.err


def maps(root: Path, line: str) -> Path:
    fill(root / "self", {"uid_map": line, "gid_map": line})
    return root


@pytest.mark.parametrize(
    ("line", "named", "expected"),
    [
        ("0 1000 1\n1 100000 65536\n", "1000:1000", (1000, 1000)),
        ("0 1000 1\n", "1001:1000", None),
        ("0 1000 1\n", "", None),
        ("0 0 4294967295\n", "0:0", None),
        ("0 0 4294967295\n", "1000:1000", None),
    ],
    ids=["sykube's", "another user's", "of another program", "root", "root who has the variable"],
)
def test_whose_namespaces_these_are(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    named: str,
    expected: tuple[int, int] | None,
) -> None:
    monkeypatch.setenv("SYKUBE_USER", named)
    assert whose_namespaces(maps(tmp_path, line)) == expected


# --- commands ---


def test_a_command_that_is_in_the_namespaces_does_not_enter_them_again(
    rootless: RootlessHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry, "enter", no_process)
    rootless.cgroups.mkdir(parents=True)
    inside = replace(rootless, inside=True)
    assert ended_with(inside, monkeypatch, "snapshot", "list") == 0
    assert inside.variables == {"SYKUBE_USER": "1000:100"}


def ended_with(host: RootlessHost, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The exit code of a command of this user's."""
    context._ui.clear()
    monkeypatch.setattr(sys, "argv", ["sykube", *words])
    with pytest.raises(SystemExit) as ended:
        main.main(host)
    context._ui.clear()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("command", "code"),
    [("status", ExitCode.NO_SUCH_CLUSTER), ("list", ExitCode.OK), ("delete", 5), ("version", 0)],
)
def test_where_there_is_no_cluster_there_are_no_namespaces(
    rootless: RootlessHost, monkeypatch: pytest.MonkeyPatch, command: str, code: int
) -> None:
    monkeypatch.setattr(entry, "enter", no_process)
    rootless.cgroups.mkdir(parents=True)
    assert ended_with(rootless, monkeypatch, command) == code


@pytest.mark.parametrize("words", [*COMMANDS, ("update", "--name", "fake", "--dry-run")])
def test_where_there_is_no_cluster_a_command_leaves_no_folder_that_init_would_refuse(
    rootless: RootlessHost, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setattr(entry, "enter", lambda *_: 7)
    monkeypatch.setattr(entry, "go_ahead", lambda: 7)
    rootless.cgroups.mkdir(parents=True)
    assert ended_with(rootless, monkeypatch, *words) != 0
    assert not rootless.folders.runtime.exists()


def test_a_command_ends_with_the_code_of_the_one_in_the_namespaces(
    rootless: RootlessHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry, "enter", lambda *_: 7)
    fill(rootless.data / "sykube", {"state.json": "{}"})
    for words in (["init"], ["status"], ["snapshot", "list"]):
        assert ended_with(rootless, monkeypatch, *words) == 7


def recorded(host: RootlessHost) -> None:
    """The files of a cluster, as one that is up has them."""
    image = str(host.cache / "node-images/x")
    state = State(ClusterSpec(), choose(()), "apptainer", {}, "x", image, {}, "", ())
    fill(host.data / "sykube", {"kubeconfig": "of the cluster\n"})
    state.save(ClusterPaths(host, "sykube").state)


def test_kubectl_runs_where_what_it_listens_on_is_reached(
    rootless: RootlessHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outside of the namespaces, in which a child has seen that the cluster runs."""
    became: list[tuple[list[str], str]] = []

    def become(argv: Sequence[str | Path], environment: Mapping[str, str]) -> None:
        became.append(([*map(str, argv)], environment["KUBECONFIG"]))

    host = replace(rootless, replace_process=become)
    recorded(host)
    monkeypatch.setattr(entry, "enter", no_process)
    monkeypatch.setattr(entry, "go_ahead", lambda: 0)
    words = ("kubectl", "port-forward", "service/web", "8080:80")
    assert ended_with(host, monkeypatch, *words) == 0
    kubectl = host.cache / "node-images/x/kubectl"
    assert became == [([str(kubectl), *words[1:]], str(host.data / "sykube/kubeconfig"))]


def test_where_the_cluster_does_not_run_kubectl_is_not_run(
    rootless: RootlessHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host = replace(rootless, replace_process=no_process)
    recorded(host)
    monkeypatch.setattr(entry, "go_ahead", lambda: ExitCode.STOPPED.value)
    assert ended_with(host, monkeypatch, "kubectl", "get", "pods") == ExitCode.STOPPED
    # The child, which says so, and one that finds it running.
    monkeypatch.setattr(entry, "go_ahead", lambda: None)
    monkeypatch.setattr(entry, "enter", lambda host, _: host.entered())
    assert ended_with(host, monkeypatch, "kubectl", "get", "pods") == ExitCode.STOPPED
    assert "the cluster sykube does not run" in capsys.readouterr().err
    (host.class_net / "sk-sykube").mkdir(parents=True)
    assert ended_with(host, monkeypatch, "kubectl", "get", "pods") == 0


@pytest.mark.parametrize("code", [0, 7])
def test_a_child_that_goes_ahead_ends_with_its_code(code: int) -> None:
    found = entry.go_ahead()
    if found is None:
        os._exit(code)
    assert found == code


def test_it_goes_on_there_with_the_machine_as_it_is_there(
    rootless: RootlessHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entered = []

    def enter(host: RootlessHost, is_unused: Callable[[], bool]) -> RootlessHost:
        entered.append(is_unused())
        return host.entered()

    monkeypatch.setattr(entry, "enter", enter)
    assert ended_with(rootless, monkeypatch, "snapshot", "list") == ExitCode.OK
    # Once, however often it asks for the machine; without a cluster they end with it.
    assert entered == [True]


@pytest.mark.parametrize("command", ["init", "start", "restart", "doctor", "autostart", "list"])
def test_what_a_logout_ends_is_asked_before_by_those_who_say_it(
    rootless: RootlessHost, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    went: list[RootlessHost] = []

    def enter(host: RootlessHost, _: object) -> int:
        went.append(host)
        return 0

    monkeypatch.setattr(entry, "enter", enter)
    fill(rootless.data / "sykube", {"state.json": "{}"})
    (rootless.root / "run/systemd/system").mkdir(parents=True)
    fill(rootless.proc / "self", {"cgroup": "0::/user.slice/user-1000.slice/user@1000.service\n"})
    host = replace(rootless, which=lambda _: None)
    words = [command, "enable"] if command == "autostart" else [command]
    assert ended_with(host, monkeypatch, *words) == 0
    (found,) = {each.grants.logout for each in went}
    assert (found is None) is (command == "list")
    assert found is None or found.cure.endswith("loginctl enable-linger ada")


def test_the_machine_in_there_reaches_the_hosts_ports_by_slirp4netns(
    rootless: RootlessHost,
) -> None:
    inside = rootless.entered()
    assert isinstance(inside.network, RootlessNetwork)
    assert inside.network.arrival == "10.0.2.100"
    assert not inside.grants.cgroups
    assert inside.data == rootless.data
