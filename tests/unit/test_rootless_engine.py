"""How a user's instances are connected, started and entered, and what they are started from."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sykube.errors import ExitCode, HostError, SykubeError
from sykube.host.grants import Grants
from sykube.host.run import Completed
from sykube.image import inside
from sykube.image.build import Builder
from sykube.node.engine import InstanceOptions
from sykube.rootless import links, unpacked
from sykube.rootless.engine import RootlessEngine
from tests.fakes import FakeHost, fill

USER = Grants(rootless=True, cgroups=False, users=False)


class Recorder:
    """Stands in for run, and keeps what it was called with."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.act: Callable[[list[str]], int] = lambda _: 0

    def __call__(self, argv: Sequence[str | Path], **_: Any) -> Completed:
        words = [str(word) for word in argv]
        self.calls.append(words)
        return Completed(tuple(words), self.act(words), "", "why")


@pytest.fixture
def run() -> Recorder:
    return Recorder()


@pytest.fixture
def host(run: Recorder, tmp_path: Path) -> FakeHost:
    fill(tmp_path / "sys/class/net/lo", {"ifindex": "1\n"})
    return FakeHost(
        tmp_path,
        run,
        which=lambda program: f"/usr/bin/{program}",
        sleep=lambda _: None,
        grants=USER,
    )


@pytest.fixture
def sif(tmp_path: Path) -> Path:
    """A SIF whose file system begins with its third page."""
    fill(tmp_path / "shared/node-images/abc", {})
    file = tmp_path / "shared/node-images/abc/node.sif"
    file.write_bytes(b"x" * 8192 + b"hsqs" + b"x" * 100)
    return file


def unpacks(words: list[str], *files: str, code: int = 0) -> int:
    root = Path(words[words.index("-dest") + 1])
    for name in files:
        fill((root / name).parent, {Path(name).name: ""})
    return code


INIT = "usr/lib/sykube/node-init"


# --- links ---


def test_an_instance_is_connected_to_its_bridge(host: FakeHost, run: Recorder) -> None:
    links.connect(host, "lab-node1", "sk-lab", "10.1.1.3/24", "10.1.1.1")
    link = run.calls[1][3]
    assert len(link) <= 15
    said = [" ".join(call) for call in run.calls]
    assert said[:2] == [
        "ip netns add lab-node1",
        f"ip link add {link} type veth peer name eth0 netns lab-node1",
    ]
    assert f"ip link set dev {link} master sk-lab up" in said
    assert f"ip link set dev {link} type bridge_slave hairpin on" in said
    assert "ip -n lab-node1 address add 10.1.1.3/24 dev eth0" in said
    assert said[-1] == "ip -n lab-node1 route add default via 10.1.1.1"


def test_what_an_instance_leaves_is_removed_and_nothing_is_no_error(
    host: FakeHost, run: Recorder
) -> None:
    links.remove(host, "lab-node1")
    assert run.calls == []
    links.connect(host, "lab-node1", "sk-lab", "10.1.1.3/24", "10.1.1.1")
    link = run.calls[1][3]
    fill(host.class_net / link, {"ifindex": "9\n"})
    fill(host.root / "run/netns", {"lab-node1": ""})
    run.calls.clear()
    links.remove(host, "lab-node1")
    assert run.calls == [
        ["ip", "link", "delete", "dev", link],
        ["ip", "netns", "delete", "lab-node1"],
    ]


def test_no_two_instances_share_a_link(host: FakeHost, run: Recorder) -> None:
    for name in ("a-long-name-of-a-cluster-node1", "a-long-name-of-a-cluster-node2"):
        links.connect(host, name, "sk-x", "10.1.1.3/24", "10.1.1.1")
    assert len({call[3] for call in run.calls if call[1:3] == ["link", "add"]}) == 2


# --- images ---


def test_an_image_is_unpacked_once_and_by_a_user_who_is_not_root(
    host: FakeHost, run: Recorder, sif: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run.act = lambda words: unpacks(words, INIT, code=2)
    root = unpacked.root_of(host, sif)
    assert root == tmp_path / "cache/unpacked/abc-one-user"
    assert (root / INIT).exists()
    (call,) = run.calls
    assert call[:2] == ["unshare", "--user"]
    assert call[call.index("-offset") + 1] == "8192"
    assert "-no-xattrs" in call
    assert unpacked.root_of(host, sif) == root
    assert len(run.calls) == 1


def test_owners_are_kept_where_there_are_ids_for_them(
    host: FakeHost, run: Recorder, sif: Path, tmp_path: Path
) -> None:
    run.act = lambda words: unpacks(words, INIT)
    ranges = replace(host, grants=Grants(rootless=True))
    assert unpacked.root_of(ranges, sif) == tmp_path / "cache/unpacked/abc"
    assert run.calls[0][0] == "unsquashfs"
    assert "-no-xattrs" not in run.calls[0]


@pytest.mark.parametrize(
    ("files", "code", "said"),
    [(("etc/os-release",), 0, "no node image"), ((), 0, "unpacked"), ((INIT,), 1, "unpacked")],
)
def test_an_image_that_is_not_whole_is_not_kept(
    host: FakeHost, run: Recorder, sif: Path, files: tuple[str, ...], code: int, said: str
) -> None:
    run.act = lambda words: unpacks(words, *files, code=code)
    with pytest.raises(SykubeError, match=said):
        unpacked.root_of(host, sif)
    assert [each.name for each in unpacked.folder(host).iterdir()] == [".lock"]


def test_what_one_that_was_killed_had_unpacked_is_removed(
    host: FakeHost, run: Recorder, sif: Path
) -> None:
    fill(unpacked.folder(host) / ".unpacking-x/root", {"half": ""})
    run.act = lambda words: unpacks(words, INIT)
    root = unpacked.root_of(host, sif)
    assert {each.name for each in root.parent.iterdir()} == {".lock", root.name}


def test_what_is_no_image_is_said(host: FakeHost, sif: Path) -> None:
    sif.write_bytes(b"x" * 9000)
    with pytest.raises(SykubeError, match="holds no squashfs"):
        unpacked.root_of(host, sif)


def test_without_unsquashfs_the_administrator_is_to_be_asked(host: FakeHost, sif: Path) -> None:
    with pytest.raises(HostError) as caught:
        unpacked.root_of(replace(host, which=lambda _: None), sif)
    assert "squashfs-tools" in caught.value.resolution


def test_a_new_image_is_unpacked_once_for_a_look_and_for_its_nodes(
    host: FakeHost, run: Recorder, sif: Path, tmp_path: Path
) -> None:
    run.act = lambda words: unpacks(words, INIT) if "-dest" in words else 0
    builder = Builder(Path("/opt/apptainer"), {})
    done = inside.run_in(host, sif, ["cat", "/x"], tmp_path, builder, timeout=60)
    looked_at = tmp_path / "cache/unpacked/abc-one-user"
    assert done.argv[-3:] == (str(looked_at), "cat", "/x")
    (sif.parent).rename(tmp_path / "shared/node-images/kept")
    unpacked.keep(host, sif.parent, tmp_path / "shared/node-images/kept/node.sif")
    unpacked.forget(host, sif.parent)
    assert not looked_at.exists()
    kept = unpacked.root_of(host, tmp_path / "shared/node-images/kept/node.sif")
    assert kept == tmp_path / "cache/unpacked/kept-one-user"
    assert [call[0] for call in run.calls] == ["unshare", "/opt/apptainer"]


def test_one_that_is_refused_leaves_nothing(host: FakeHost, run: Recorder, sif: Path) -> None:
    run.act = lambda words: unpacks(words, INIT)
    unpacked.root_of(host, sif)
    unpacked.forget(host, sif.parent)
    assert [each.name for each in unpacked.folder(host).iterdir()] == [".lock"]


def test_those_of_images_that_nobody_uses_are_pruned(host: FakeHost, tmp_path: Path) -> None:
    assert unpacked.prune(host, frozenset()) == []
    for name in ("abc", "abc-one-user", "old-one-user", ".unpacking-killed"):
        fill(unpacked.folder(host) / name, {"file": ""})
    removed = unpacked.prune(host, frozenset({"abc"}))
    assert sorted(each.name for each in removed) == [".unpacking-killed", "old-one-user"]
    left = {each.name for each in unpacked.folder(host).iterdir()}
    assert left == {"abc", "abc-one-user", ".lock"}


# --- instances ---


@pytest.fixture
def engine(host: FakeHost, tmp_path: Path) -> RootlessEngine:
    return RootlessEngine(host, Path("/opt/apptainer"), None, {"HOME": str(tmp_path / "home")})


def record(tmp_path: Path, name: str, pid: int) -> None:
    """A running instance, as the engine records it."""
    entry = {"name": name, "pid": pid, "image": "/root"}
    folder = tmp_path / f"home/.apptainer/instances/app/here/root/{name}"
    fill(folder, {f"{name}.json": json.dumps(entry)})
    fill(tmp_path / f"proc/{pid}", {"comm": "appinit\n"})


def test_an_instance_is_started_in_its_network_from_an_unpacked_image(
    engine: RootlessEngine, run: Recorder, sif: Path, tmp_path: Path
) -> None:
    run.act = lambda words: unpacks(words, INIT) if "-dest" in words else 0
    options = InstanceOptions(
        sif, Path("/d/overlay"), (), "sk-lab", "10.1.1.3/24", "10.1.1.1", "lab-node1"
    )
    engine.start("lab-node1", options)
    assert ["ip", "netns", "add", "lab-node1"] in run.calls
    last = run.calls[-1]
    assert last[:3] == ["nsenter", "--net=/run/netns/lab-node1", "/opt/apptainer"]
    assert "--network" not in last
    assert last[-2:] == [str(tmp_path / "cache/unpacked/abc-one-user"), "lab-node1"]


def test_an_instance_is_entered_by_the_namespaces_of_its_process(
    engine: RootlessEngine, run: Recorder, tmp_path: Path
) -> None:
    record(tmp_path, "lab-node1", 77)
    engine.exec("lab-node1", ["ctr", "version"])
    (call,) = run.calls
    assert call[:2] == ["nsenter", "--target=77"]
    assert {"--mount", "--net", "--pid", "--root"} <= {*call}
    assert not any("user" in word for word in call)
    assert call[-3:] == ["sh", "ctr", "version"]


def test_one_that_does_not_run_cannot_be_entered(engine: RootlessEngine) -> None:
    with pytest.raises(SykubeError) as caught:
        engine.exec("lab-node1", ["true"])
    assert caught.value.exit_code is ExitCode.STOPPED


def test_the_network_of_an_instance_goes_with_it(
    engine: RootlessEngine, run: Recorder, host: FakeHost
) -> None:
    fill(host.root / "run/netns", {"lab-node1": ""})
    engine.kill("lab-node1")
    assert run.calls == [["ip", "netns", "delete", "lab-node1"]]
