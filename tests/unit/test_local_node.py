"""Files of a node on this host, which are where the node sees them, whether it runs or not."""

from __future__ import annotations

from pathlib import Path

import pytest

from sykube.node import local
from sykube.node.limits import Limits
from sykube.node.local import LocalNode
from tests.fakes import World
from tests.unit.helpers import made


@pytest.fixture
def node(world: World) -> LocalNode:
    found = made(world).node("node1")
    assert isinstance(found, LocalNode)
    return found


def test_a_path_of_a_node_is_in_a_folder_of_its_own_or_in_its_overlay(node: LocalNode) -> None:
    for path, place in (
        ("/var/lib/kubelet/pki/kubelet.crt", "kubelet/pki/kubelet.crt"),
        ("/etc/sykube", "config"),
        ("/etc/sykube2/x", "overlay/upper/etc/sykube2/x"),
        ("/", "overlay/upper"),
    ):
        assert node.pull(path) == node.folder / place


def test_a_file_is_pushed_as_a_copy_or_where_it_is_shared_as_a_link(
    world: World, node: LocalNode
) -> None:
    # Links are of one file system.
    source = world.root / "source"
    source.write_text("text")
    for shared in (False, True, True, False):
        node.push(source, "/var/lib/containerd/new/file", shared=shared)
        target = node.pull("/var/lib/containerd/new/file")
        assert target.read_text() == "text"
        assert target.samefile(source) is shared
    node.push(b"\0bytes", "/var/lib/containerd/new/file")
    assert target.read_bytes() == b"\0bytes"
    assert source.read_text() == "text"
    assert [each.name for each in target.parent.iterdir()] == ["file"]


def test_a_folder_is_pushed_in_the_place_of_another(node: LocalNode, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/new").touch()
    target = node.pull("/etc/kubernetes")
    target.mkdir(parents=True)
    (target / "old").touch()
    # What a push that was interrupted has left.
    target.with_name(".kubernetes.new").mkdir()
    node.push(tmp_path / "source", "/etc/kubernetes")
    assert [each.name for each in target.iterdir()] == ["new"]
    assert not target.with_name(".kubernetes.new").exists()


def test_its_own_folders_are_written_without_a_command(world: World, node: LocalNode) -> None:
    node.write("/etc/sykube/some/file", "secret", mode="0600")
    file = node.pull("/etc/sykube/some/file")
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("secret", 0o600)
    node.discard("/etc/sykube/some")
    node.discard("/etc/sykube/some")
    assert not file.parent.exists()
    assert world.calls.all == []


def test_links_in_its_folders_are_removed_and_not_followed(node: LocalNode, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    node.pull("/var/lib/containerd/link").symlink_to(tmp_path / "kept")
    node.discard("/var/lib/containerd/link")
    assert (tmp_path / "kept").exists()
    assert not node.pull("/var/lib/containerd/link").is_symlink()


def test_addresses_are_forgotten_of_instances_that_do_not_run(
    world: World, node: LocalNode
) -> None:
    results = world.path("/var/lib/cni/results")
    others = ("sk-fake-x-1-eth0", "sk-other-1-eth0")
    before = {each.name for each in results.iterdir()}
    for name in ("sk-fake-1-eth0", *others):
        (results / name).touch()
    local.forget_addresses(world.host, node.engine, "sk-fake")
    assert {each.name for each in results.iterdir()} == {*before, *others}
    world.end(node.instance)
    local.forget_addresses(world.host, node.engine, "sk-fake")
    assert {each.name for each in results.iterdir()} < {*before, *others}


def test_a_node_without_files_takes_no_space(world: World, node: LocalNode) -> None:
    # The fake du says 7 for each folder: config, kubelet and log are the others.
    assert node.disk() == {"overlay": 7, "images": 7, "etcd": 7, "other": 21}
    node.remove()
    assert set(node.disk().values()) == {0}
    assert not node.exists()
    assert not node.is_running()


def test_what_an_earlier_sykube_kept_elsewhere_is_taken_over(node: LocalNode) -> None:
    (node.folder / "kept-images.json").write_text('{"a": "b"}')
    work = node.folder / "containerd/.load-abcd"
    work.mkdir(parents=True)
    (work / "layer").touch()
    files = {path.name: path.read_text() for path in (node.folder / "config").iterdir()}
    for _ in range(2):
        node.prepare({"node.env": files["node.env"].partition("\n")[2]}, Limits())
        assert node.pull("/etc/sykube/kept-images.json").read_text() == '{"a": "b"}'
        assert not work.exists() and not (node.folder / "kept-images.json").exists()
