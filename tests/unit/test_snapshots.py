"""Saving and restoring on a fake host; a restore that fails leaves what was there."""

from __future__ import annotations

import contextlib
import fnmatch
import io
import itertools
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from sykube.cluster.commands import lifecycle, removal, snapshots
from sykube.cluster.commands.lifecycle import InitOptions
from sykube.cluster.model import lookup
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.model.spec import ClusterSpec
from sykube.cluster.model.state import State, clusters
from sykube.cluster.operations import archive, user_kubeconfig
from sykube.errors import ExitCode, HostError, SykubeError, UsageError
from sykube.host.host import Host
from sykube.host.paths import ClusterPaths
from sykube.node import cgroups, local
from tests.fakes import Answer, Injected, World
from tests.unit.helpers import Sykube

USERS_FILE = "overlay/upper/home/kept"


def fake_tar(words: list[str]) -> Answer:
    """GNU tar, as far as sykube uses it; xattrs and devices are for the real one to keep."""
    options = dict(word.partition("=")[::2] for word in words if word.startswith("--"))
    members = [word for word in words if not word.startswith("--")]
    excluded = [word.partition("=")[2] for word in words if word.startswith("--exclude=")]
    folder = Path(options["--directory"])
    if "--create" in options:
        with tarfile.open(options["--file"], "w") as made:
            for name in members:
                made.add(folder / name, name)
        return 0, "", ""
    with tarfile.open(options["--file"]) as read:
        wanted = [
            each
            for each in read.getmembers()
            if (not members or any(_below(each.name, name) for name in members))
            and not any(_below(each.name, pattern) for pattern in excluded)
        ]
        # Debian 12's Python has neither filters nor extractall's argument for them.
        read.extraction_filter = getattr(tarfile, "fully_trusted_filter", None)
        read.extractall(folder, wanted)
    return 0, "", ""


def _below(name: str, pattern: str) -> bool:
    """Whether a member is what a pattern means, or in it."""
    pairs = list(zip(name.split("/"), pattern.split("/"), strict=False))
    return len(pairs) == pattern.count("/") + 1 and all(
        fnmatch.fnmatch(part, wanted) for part, wanted in pairs
    )


@pytest.fixture
def stopped(world: World) -> World:
    """A host with a stopped cluster `fake` in which there is a file of a user's."""
    world.programs.answers["tar"] = fake_tar
    make(world, "fake")
    stop(world, "fake")
    return world


def make(world: World, name: str, **fields: object) -> None:
    spec = ClusterSpec(name=name, dns=("192.0.2.1",), **fields)  # type: ignore[arg-type]
    lifecycle.init(world.host, spec, InitOptions(), world.ui())
    write(world, name, "as it was")


def stop(world: World, name: str) -> None:
    """What `sykube stop` leaves."""
    cluster = lookup.load(world.host, name, world.ui())
    for node in cluster.nodes:
        cluster.engine.kill(node.instance)
        cgroups.remove(world.host, node.instance)
    local.forget_addresses(world.host, cluster.engine, cluster.network_name)
    cluster.bridge.remove()
    world.calls.all.clear()


def users_file(host: Host, name: str) -> Path:
    return ClusterPaths(host, name).node(f"{name}-master") / USERS_FILE


def write(world: World, name: str, text: str) -> None:
    file = users_file(world.host, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def restore(world: World, name: str = "kept", *, yes: bool = True) -> Cluster:
    return snapshots.restore(world.host, name, lambda _question: yes, world.ui())


def current_context(world: World) -> str:
    config = yaml.safe_load((world.root / "home/.kube/config").read_text())
    return str(config["current-context"])


@contextlib.contextmanager
def unchanged(world: World) -> Iterator[None]:
    before = world.snapshot()
    yield
    after = world.snapshot()
    for what in before:
        assert after[what] == before[what], what


# --- save ---


def test_what_is_saved_is_for_root_alone(stopped: World) -> None:
    saved = snapshots.save(stopped.host, "fake", "kept", stopped.ui())
    assert saved == archive.find(stopped.host, "kept")
    assert (saved.cluster, saved.kubernetes) == ("fake", "v1.20.2")
    assert archive.names(stopped.host) == ["kept"]
    assert archive.images(stopped.host) == {saved.image}
    assert oct(stopped.host.snapshots.stat().st_mode)[-3:] == "700"
    assert oct(saved.folder.stat().st_mode)[-3:] == "700"
    for file in saved.folder.iterdir():
        assert oct(file.stat().st_mode)[-3:] == "600", file
    assert clusters(stopped.host) == ["fake"]


def test_tar_keeps_what_overlays_are_made_of(stopped: World) -> None:
    snapshots.save(stopped.host, "fake", "kept", stopped.ui())
    restore(stopped)
    made, unpacked = (words for words in stopped.programs.argvs if words[0] == "tar")
    for words in (made, unpacked):
        assert {"--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner"} <= set(words)
    assert "--sparse" in made


def test_a_snapshot_without_a_name_gets_one_of_its_cluster(stopped: World) -> None:
    assert snapshots.save(stopped.host, "fake", "", stopped.ui()).name.startswith("fake-2")


@pytest.mark.parametrize("name", ["-x", "a/b", "..", ".new", "ä", "a b", "x" * 101])
def test_names_that_no_snapshot_can_have(stopped: World, name: str) -> None:
    with unchanged(stopped):
        for action in (
            lambda: snapshots.save(stopped.host, "fake", name, stopped.ui()),
            lambda: restore(stopped, name),
            lambda: archive.remove(stopped.host, name),
        ):
            with pytest.raises(UsageError):
                action()


def test_a_cluster_that_runs_is_not_saved(world: World) -> None:
    make(world, "fake")
    with unchanged(world), pytest.raises(SykubeError, match="not stopped") as raised:
        snapshots.save(world.host, "fake", "kept", world.ui())
    assert raised.value.exit_code == ExitCode.FAILED
    assert raised.value.resolution == "sykube stop --name fake"


def test_a_cluster_that_was_not_finished_is_not_saved(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYKUBE_FAIL_AT", "after:network")
    with pytest.raises(SykubeError):
        lifecycle.init(world.host, ClusterSpec(name="fake"), InitOptions(retain=True), world.ui())
    with unchanged(world), pytest.raises(SykubeError) as raised:
        snapshots.save(world.host, "fake", "kept", world.ui())
    assert raised.value.exit_code == ExitCode.DEGRADED


def test_a_cluster_that_is_not_there_is_not_saved(stopped: World) -> None:
    with unchanged(stopped), pytest.raises(SykubeError) as raised:
        snapshots.save(stopped.host, "other", "kept", stopped.ui())
    assert raised.value.exit_code == ExitCode.NO_SUCH_CLUSTER


def test_a_name_that_is_taken_stays_what_it_is(stopped: World) -> None:
    snapshots.save(stopped.host, "fake", "kept", stopped.ui())
    with unchanged(stopped), pytest.raises(SykubeError, match="already"):
        snapshots.save(stopped.host, "fake", "kept", stopped.ui())


def test_a_failing_save_leaves_nothing(stopped: World) -> None:
    stopped.calls.fail(lambda call: call.words[0] == "tar")
    with unchanged(stopped), pytest.raises(Injected):
        snapshots.save(stopped.host, "fake", "kept", stopped.ui())


def test_a_full_disk_is_seen_before(stopped: World) -> None:
    snapshots.save(stopped.host, "fake", "kept", stopped.ui())
    stopped.free = 0.0
    with unchanged(stopped):
        with pytest.raises(SykubeError, match="the disk is too small"):
            snapshots.save(stopped.host, "fake", "another", stopped.ui())
        with pytest.raises(SykubeError, match="the disk is too small"):
            restore(stopped)


def test_what_a_killed_save_left_is_no_snapshot(stopped: World) -> None:
    left = stopped.host.snapshots / ".new-fake"
    left.mkdir(parents=True)
    assert archive.names(stopped.host) == []
    snapshots.save(stopped.host, "fake", "kept", stopped.ui())
    assert not left.exists()


# --- restore ---


def test_restore_replaces_what_changed_since(stopped: World) -> None:
    snapshots.save(stopped.host, "fake", "kept", stopped.ui())
    with unchanged(stopped):
        write(stopped, "fake", "changed")
        (ClusterPaths(stopped.host, "fake").node("fake-node9")).mkdir()
        restore(stopped)
        assert users_file(stopped.host, "fake").read_text() == "as it was"


def test_what_the_site_is_now_stays(stopped: World) -> None:
    snapshots.save(stopped.host, "fake", "kept", stopped.ui())
    removal.delete(stopped.host, "fake", stopped.ui())
    make(stopped, "fake", http_proxy="http://proxy.example:1")
    stop(stopped, "fake")
    restored = restore(stopped)
    assert restored.state.proxies.http == "http://proxy.example:1"
    assert restored.state.spec.http_proxy == "http://proxy.example:1"


def test_where_a_cluster_is_on_this_host_stays(stopped: World) -> None:
    """A snapshot of one place is restored in the place that the cluster has now."""
    snapshots.save(stopped.host, "fake", "kept", stopped.ui())
    removal.delete(stopped.host, "fake", stopped.ui())
    place = stopped.root / "elsewhere"
    make(stopped, "fake", dest=str(place))
    stop(stopped, "fake")
    write(stopped, "fake", "changed")
    restore(stopped)
    assert (place / "fake/nodes/fake-master" / USERS_FILE).read_text() == "as it was"
    state = State.load(ClusterPaths(stopped.host, "fake").state)
    assert state is not None
    assert state.spec.dest == str(place)
    assert str(place) in state.owned_folders
    assert removal.delete(stopped.host, "fake", stopped.ui()) == []
    assert not place.exists()


@pytest.mark.parametrize("fields", [{}, {"dest": "elsewhere"}, {"ephemeral": True}], ids=str)
def test_a_deleted_cluster_comes_back(world: World, fields: dict[str, object]) -> None:
    world.programs.answers["tar"] = fake_tar
    if "dest" in fields:
        fields = {"dest": str(world.root / "elsewhere")}
    make(world, "fake", **fields)
    stop(world, "fake")
    snapshots.save(world.host, "fake", "kept", world.ui())
    before = world.snapshot()
    removal.delete(world.host, "fake", world.ui())
    assert current_context(world) == "work"
    restore(world)
    after = world.snapshot()
    for found in (before, after):
        # What the first start makes again, and where it can be.
        found["files"] = {
            name: text
            for name, text in found["files"].items()
            if "/engine" not in name and "/host" not in name and not name.endswith("state.json")
        }
    assert after["files"] == before["files"]
    assert after["mounts"] == before["mounts"]
    assert current_context(world) == "fake"
    assert removal.delete(world.host, "fake", world.ui()) == []
    archive.remove(world.host, "kept")
    assert not (world.host.data).exists()
    assert world.kernel.mounts == set()


def test_a_cluster_that_was_in_memory_comes_back_after_a_reboot(world: World) -> None:
    world.programs.answers["tar"] = fake_tar
    make(world, "fake", ephemeral=True)
    stop(world, "fake")
    snapshots.save(world.host, "fake", "kept", world.ui())
    root = ClusterPaths(world.host, "fake").root
    shutil.rmtree(root)
    root.mkdir()
    world.kernel.mounts.clear()
    restore(world)
    assert users_file(world.host, "fake").read_text() == "as it was"
    assert world.kernel.mounts == {str(root)}


@pytest.mark.parametrize("deleted", [False, True])
def test_a_restore_that_fails_anywhere_changes_nothing(stopped: World, deleted: bool) -> None:
    snapshots.save(stopped.host, "fake", "kept", stopped.ui())
    if deleted:
        removal.delete(stopped.host, "fake", stopped.ui())
    else:
        write(stopped, "fake", "changed")
    with unchanged(stopped):
        for number in range(1000):
            stopped.calls.all.clear()
            stopped.calls.faults.clear()
            stopped.calls.fail_number(number)
            try:
                restore(stopped)
            except Injected:
                continue
            break
        assert number >= 2, "nothing was made to fail"
        stopped.calls.faults.clear()
        if deleted:
            removal.delete(stopped.host, "fake", stopped.ui())
        else:
            write(stopped, "fake", "changed")


@pytest.mark.parametrize(
    ("deleted", "number"), [(False, 1), (False, 2), (False, 3), (False, 4), (True, 1), (True, 2)]
)
def test_a_restore_that_is_interrupted_while_it_swaps_changes_nothing(
    stopped: World, deleted: bool, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots.save(stopped.host, "fake", "kept", stopped.ui())
    if deleted:
        removal.delete(stopped.host, "fake", stopped.ui())
    else:
        write(stopped, "fake", "changed")
    renames, rename = itertools.count(1), Path.rename

    def failing(source: Path, target: Path) -> Path:
        if "/.restore/" in f"{source}{target}" and next(renames) == number:
            raise OSError(28, "No space left on device")
        return rename(source, target)

    with unchanged(stopped), monkeypatch.context() as patched:
        # A disk that is full is met by the system's calls.
        patched.setattr(Path, "rename", failing)
        with pytest.raises(OSError, match="No space"):
            restore(stopped)


def _full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_state_that_cannot_be_written_puts_all_back(
    stopped: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots.save(stopped.host, "fake", "kept", stopped.ui())
    write(stopped, "fake", "changed")
    with unchanged(stopped), monkeypatch.context() as patched:
        # A disk that is full when the record is written, and only then.
        patched.setattr(State, "save", _full)
        with pytest.raises(OSError, match="No space"):
            restore(stopped)


def test_a_restore_that_was_killed_half_way_is_finished_by_the_next(stopped: World) -> None:
    snapshots.save(stopped.host, "fake", "kept", stopped.ui())
    root = ClusterPaths(stopped.host, "fake").root
    (root / ".restore/old").mkdir(parents=True)
    (root / "nodes").rename(root / ".restore/old/nodes")
    restore(stopped)
    assert users_file(stopped.host, "fake").read_text() == "as it was"
    assert not (root / ".restore").exists()


def test_a_running_cluster_is_not_replaced(world: World) -> None:
    world.programs.answers["tar"] = fake_tar
    make(world, "fake")
    stop(world, "fake")
    snapshots.save(world.host, "fake", "kept", world.ui())
    removal.delete(world.host, "fake", world.ui())
    make(world, "fake")
    with unchanged(world), pytest.raises(SykubeError, match="not stopped"):
        restore(world)


def test_nobody_said_yes(stopped: World) -> None:
    snapshots.save(stopped.host, "fake", "kept", stopped.ui())
    with unchanged(stopped), pytest.raises(UsageError, match="left as it is") as raised:
        restore(stopped, yes=False)
    assert "--yes" in raised.value.resolution


def test_a_cluster_with_other_keys_is_replaced_with_its_context(stopped: World) -> None:
    snapshots.save(stopped.host, "fake", "kept", stopped.ui())
    kubeconfig = ClusterPaths(stopped.host, "fake").kubeconfig
    before = kubeconfig.read_text()
    kubeconfig.write_text(before.replace("Q0VSVA==", "T1RIRVI="))
    user_kubeconfig.add(lookup.load(stopped.host, "fake", stopped.ui()))
    restore(stopped)
    assert kubeconfig.read_text() == before
    assert "T1RIRVI=" not in (stopped.root / "home/.kube/config").read_text()


def test_a_kubeconfig_that_cannot_be_written_is_a_warning(
    stopped: World,
) -> None:
    snapshots.save(stopped.host, "fake", "kept", stopped.ui())
    removal.delete(stopped.host, "fake", stopped.ui())
    # kubectl's lock, of another program.
    (stopped.root / "home/.kube/config.lock").touch()
    ui = stopped.ui()
    snapshots.restore(stopped.host, "kept", lambda _: False, ui)
    assert "sykube config --name fake" in ui.warnings[0]
    assert users_file(stopped.host, "fake").exists()


def test_addresses_that_another_has_by_now(stopped: World) -> None:
    snapshots.save(stopped.host, "fake", "kept", stopped.ui())
    removal.delete(stopped.host, "fake", stopped.ui())
    make(stopped, "other")
    stop(stopped, "other")
    with unchanged(stopped), pytest.raises(HostError, match="overlaps") as raised:
        restore(stopped)
    assert "sykube init --from kept" in raised.value.resolution


def test_remains_without_a_record_are_not_overwritten(stopped: World) -> None:
    snapshots.save(stopped.host, "fake", "kept", stopped.ui())
    ClusterPaths(stopped.host, "fake").state.unlink()
    with unchanged(stopped), pytest.raises(SykubeError, match="remains"):
        restore(stopped)


def test_a_context_of_somebody_else(stopped: World) -> None:
    snapshots.save(stopped.host, "fake", "kept", stopped.ui())
    removal.delete(stopped.host, "fake", stopped.ui())
    file = stopped.root / "home/.kube/config"
    file.write_text(file.read_text().replace("name: work", "name: fake"))
    with unchanged(stopped), pytest.raises(SykubeError, match="context 'fake'"):
        restore(stopped)


# --- damage ---


def _cut(folder: Path) -> None:
    file = next(folder.glob("*.tar*"))
    file.write_bytes(file.read_bytes()[:-1] + b"x")


def _edit(folder: Path, **values: object) -> None:
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | values))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut, "not what was saved"),
        (lambda folder: next(folder.glob("*.tar*")).unlink(), "is missing"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "damaged"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "damaged"),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda folder: (folder / "state.json").unlink(), "state.json is missing"),
        (lambda folder: (folder / "state.json").write_text("{}"), "damaged"),
        (lambda folder: _edit(folder, version=3), "later version"),
        (lambda folder: _edit(folder, archive="state.json"), "not what was saved"),
    ],
)
def test_damaged_snapshots_are_refused_and_can_be_deleted(
    stopped: World, damage: Callable[[Path], None], message: str
) -> None:
    snapshots.save(stopped.host, "fake", "kept", stopped.ui())
    damage(stopped.host.snapshots / "kept")
    with unchanged(stopped), pytest.raises(SykubeError) as raised:
        restore(stopped)
    assert message in f"{raised.value.brief} {raised.value.details}"
    assert archive.names(stopped.host) == ["kept"]
    archive.remove(stopped.host, "kept")
    assert archive.names(stopped.host) == []
    assert not stopped.host.snapshots.exists()


def test_a_node_image_that_is_gone(stopped: World) -> None:
    saved = snapshots.save(stopped.host, "fake", "kept", stopped.ui())
    shutil.rmtree(archive.image_of(saved).folder)
    with unchanged(stopped), pytest.raises(SykubeError, match="node image .* is gone") as raised:
        restore(stopped)
    assert "sykube node-image build" in raised.value.resolution


def test_an_archive_of_a_program_that_this_host_lacks(stopped: World) -> None:
    stopped.present -= {"xz", "pigz"}
    assert snapshots.save(stopped.host, "fake", "kept", stopped.ui()).archive == "data.tar.zst"
    stopped.present.remove("zstd")
    assert snapshots.save(stopped.host, "fake", "slower", stopped.ui()).archive == "data.tar.gz"
    with unchanged(stopped), pytest.raises(SykubeError, match="could not find zstd"):
        restore(stopped)


@pytest.mark.parametrize("name", ["kept", "other"])
def test_there_is_no_such_snapshot(stopped: World, name: str) -> None:
    with unchanged(stopped):
        for action in (lambda: restore(stopped, name), lambda: archive.remove(stopped.host, name)):
            with pytest.raises(SykubeError) as raised:
                action()
            assert raised.value.exit_code == ExitCode.NO_SUCH_SNAPSHOT


def test_delete_of_the_last_cluster_leaves_snapshots(host: Host, stopped: World) -> None:
    saved = snapshots.save(stopped.host, "fake", "kept", stopped.ui())
    assert removal.delete(stopped.host, "fake", stopped.ui()) == []
    assert archive.names(stopped.host) == ["kept"]
    archive.check_whole(host, saved)


def test_a_later_sykube_that_knows_other_nodes(stopped: World) -> None:
    """What the cluster was is what the snapshot's record says, nodes among it."""
    snapshots.save(stopped.host, "fake", "kept", stopped.ui())
    paths_ = ClusterPaths(stopped.host, "fake")
    state = State.load(paths_.state)
    assert state is not None
    replace(state, nodes=["master"]).save(paths_.state)
    shutil.rmtree(paths_.node("fake-node1"))
    assert [node.name for node in restore(stopped).nodes] == ["master", "node1"]


# --- as a person types it ---


def test_save_list_restore_delete(stopped: World, sykube: Sykube) -> None:
    assert sykube("snapshot", "list").out == ""
    saved = sykube("snapshot", "save", "kept", "--name", "fake")
    assert (saved.code, saved.out) == (0, "kept\n")
    described = json.loads(sykube("snapshot", "list", "-o", "json").out)
    assert [each["name"] for each in described] == ["kept"]
    assert set(described[0]) == {"name", "cluster", "created", "bytes", "kubernetes"}
    line = sykube("snapshot", "list").out
    assert line.split()[:2] == ["kept", "fake"]
    assert line.endswith("MB  v1.20.2\n")
    write(stopped, "fake", "changed")
    restored = sykube("snapshot", "restore", "kept", "--yes")
    assert (restored.code, restored.out) == (0, "")
    assert "sykube start --name fake" in restored.err
    assert users_file(stopped.host, "fake").read_text() == "as it was"
    assert sykube("snapshot", "delete", "kept").code == 0
    assert sykube("snapshot", "list", "-o", "json").out == "[]\n"


def test_list_names_what_is_damaged(stopped: World, sykube: Sykube) -> None:
    for name in ("first", "second"):
        snapshots.save(stopped.host, "fake", name, stopped.ui())
    (stopped.host.snapshots / "first/manifest.json").write_text("{}")
    listed = sykube("snapshot", "list")
    assert (listed.code, listed.out.split()[0]) == (0, "second")
    assert "the snapshot first is damaged" in listed.err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["save", "kept", "--name", "fake"], ExitCode.FAILED),
        (["save", "a/b", "--name", "fake"], ExitCode.USAGE),
        (["save", "new", "--name", "none"], ExitCode.NO_SUCH_CLUSTER),
        (["restore", "none"], ExitCode.NO_SUCH_SNAPSHOT),
        (["restore", "kept"], ExitCode.USAGE),
        (["restore"], ExitCode.USAGE),
        (["delete", "none"], ExitCode.NO_SUCH_SNAPSHOT),
        (["delete", ".."], ExitCode.USAGE),
    ],
)
def test_bad_input_is_one_error_and_changes_nothing(
    stopped: World, sykube: Sykube, arguments: list[str], code: ExitCode
) -> None:
    snapshots.save(stopped.host, "fake", "kept", stopped.ui())
    with unchanged(stopped):
        result = sykube("snapshot", *arguments)
    assert result.code == code
    assert result.err.lower().count("error:") == 1
    assert result.out == ""


@pytest.mark.parametrize("command", ["save", "list", "restore", "delete"])
def test_it_needs_root(sykube: Sykube, command: str) -> None:
    result = sykube("snapshot", command, *([] if command == "list" else ["kept"]), user=1000)
    assert result.code == ExitCode.USAGE
    assert "needs root" in result.err


def test_prune_keeps_the_images_of_snapshots(stopped: World, sykube: Sykube) -> None:
    saved = snapshots.save(stopped.host, "fake", "kept", stopped.ui())
    removal.delete(stopped.host, "fake", stopped.ui())
    assert sykube("node-image", "prune", "--all").out == ""
    assert archive.image_of(saved).sif.exists()
    archive.remove(stopped.host, "kept")
    assert saved.image in sykube("node-image", "prune", "--all").out


def test_uninstall_says_which_snapshots_are_lost(stopped: World, sykube: Sykube) -> None:
    snapshots.save(stopped.host, "fake", "kept", stopped.ui())
    removal.delete(stopped.host, "fake", stopped.ui())
    refused = sykube("uninstall", stdin=io.StringIO("n\n"))
    assert refused.code == ExitCode.INTERRUPTED
    assert "The snapshots kept are lost with it." in refused.err
    assert archive.names(stopped.host) == ["kept"]
    assert sykube("uninstall", "--yes").code == 0
    assert not stopped.host.data.exists()


def test_no_cluster_can_be_named_as_the_folder_of_snapshots(world: World, sykube: Sykube) -> None:
    result = sykube("init", "--name", "snapshots")
    assert result.code == ExitCode.USAGE
    assert "kept for sykube itself" in result.err
