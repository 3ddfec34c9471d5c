"""GPUs of a fake host: which are found, which node gets which, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from sykube.cluster.commands import power, scaling
from sykube.cluster.commands.scaling import RemovalOptions
from sykube.cluster.model import gpus as model
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.model.spec import NodeSpec
from sykube.cluster.model.state import State
from sykube.cluster.operations import gpus as operations
from sykube.errors import HostError, UsageError
from sykube.host import gpus
from tests.fakes import World
from tests.fakes.files import fill
from tests.unit.helpers import Sykube, differences, made, unchanged

RUNTIME = Path(__file__).parents[2] / "runtime/gpuplugin"
# As the driver 590.48 writes it, and 495 of a GPU that nobody has used yet.
INFORMATION = """\
Model: \t\t {model}
IRQ:   \t\t 77
GPU UUID: \t {uuid}
Video BIOS: \t 94.02.26.40.81
Bus Type: \t PCI
DMA Size: \t 47 bits
DMA Mask: \t 0x7fffffffffff
Bus Location: \t {bus}
Device Minor: \t {minor}
GPU Firmware: \t 590.48.01
GPU Excluded:\t No
"""
UNUSED = "GPU-????????-????-????-????-????????????"
# As `ldconfig -p` of glibc 2.41 says it.
LINKED = (
    "1 libs found in cache `/etc/ld.so.cache'\n\tlibcuda.so.1 (libc6,x86-64) => /lib/libcuda.so.1\n"
)


def bus(number: int) -> str:
    return f"0000:0{number + 1}:00.0"


def uuid(number: int) -> str:
    return f"GPU-eaf23aa1-4d3d-596c-da66-b86b0e5db58{number}"


def give_gpus(world: World, count: int, first: int = 0) -> None:
    """Let the host have so many, with a driver, and a node image that can hand them out."""
    for number in range(first, first + count):
        text = INFORMATION.format(
            model="NVIDIA GeForce RTX 3090", uuid=uuid(number), bus=bus(number), minor=number
        )
        fill(world.root / "proc/driver/nvidia/gpus" / bus(number), {"information": text})
        fill(world.root / "dev", {f"nvidia{number}": ""})
    world.programs.answers["ldconfig"] = lambda _words: (0, LINKED, "")


@pytest.fixture
def plugin(world: World) -> None:
    (file,) = (world.root / "cache/node-images").glob("*/versions")
    file.write_text(file.read_text() + "gpu-plugin=v1beta1\n")


def lines(cluster: Cluster, node: str) -> list[str]:
    return cluster.node(node).pull("/etc/sykube/gpus").read_text().splitlines()


def given(cluster: Cluster) -> dict[str, list[str]]:
    state = State.load(cluster.paths.state)
    assert state is not None
    return state.gpus


# --- what is shared ---


@pytest.mark.parametrize(
    ("free", "asked", "found"),
    [
        (4, {"node1": "all", "node2": "all"}, [[0, 1], [2, 3]]),
        (3, {"node1": "all", "node2": "all"}, [[0, 1], [2]]),
        (1, {"node1": "all", "node2": "all"}, [[0]]),
        (5, {"node1": "all", "node2": "2", "node3": "1"}, [[3, 4], [0, 1], [2]]),
        (2, {"node1": "1"}, [[0]]),
    ],
)
def test_each_gpu_belongs_to_one_node(
    free: int, asked: dict[str, str], found: list[list[int]]
) -> None:
    shares = model.shares([str(number) for number in range(free)], asked)
    assert [[*map(int, shares[node])] for node in asked if node in shares] == found


@pytest.mark.parametrize(
    ("free", "asked"),
    [(1, {"node1": "2"}), (0, {"node1": "all"}), (2, {"node1": "1", "node2": "1", "node3": "all"})],
)
def test_too_few_are_no_shares(free: int, asked: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        model.shares([str(number) for number in range(free)], asked)


# --- init ---


def test_the_workers_share_all_and_their_engine_is_asked_for_the_driver(
    world: World, plugin: None
) -> None:
    give_gpus(world, 3)
    cluster = made(world, workers=2, gpus="all", options=("--quiet",))
    assert given(cluster) == {"node1": [bus(0), bus(1)], "node2": [bus(2)]}
    assert lines(cluster, "master") == []
    assert lines(cluster, "node1") == [
        f"{bus(0)} /dev/nvidia0 {uuid(0)}",
        f"{bus(1)} /dev/nvidia1 {uuid(1)}",
    ]
    assert lines(cluster, "node2") == [f"{bus(2)} /dev/nvidia2 {uuid(2)}"]
    options = {name: each.options.extra for name, each in world.instances.items()}
    assert options == {
        "fake-master": ("--quiet",),
        "fake-node1": ("--nv", "--quiet"),
        "fake-node2": ("--nv", "--quiet"),
    }
    said = operations.introduction(world.host, given(cluster))
    assert said == (
        "GPUs: node1 has 2 (NVIDIA GeForce RTX 3090), node2 has 1 (NVIDIA GeForce RTX 3090)."
    )


def test_a_gpu_that_nobody_has_used_goes_by_its_number(world: World, plugin: None) -> None:
    give_gpus(world, 1)
    file = world.root / "proc/driver/nvidia/gpus" / bus(0) / "information"
    file.write_text(file.read_text().replace(uuid(0), UNUSED))
    assert lines(made(world, gpus="1"), "node1") == [f"{bus(0)} /dev/nvidia0 0"]


def test_where_there_are_no_workers_the_control_plane_has_them(world: World, plugin: None) -> None:
    give_gpus(world, 2)
    assert given(made(world, workers=0, gpus="1")) == {"master": [bus(0)]}


def test_single_nodes_of_a_file_have_their_own_number(world: World, plugin: None) -> None:
    give_gpus(world, 4)
    nodes = (
        NodeSpec(gpus="1"), NodeSpec(role="worker", gpus="0"), NodeSpec(role="worker", gpus="2"),
        NodeSpec(role="worker"),
    )  # fmt: skip
    cluster = made(world, workers=3, nodes=nodes, gpus="all")
    assert given(cluster) == {"master": [bus(0)], "node2": [bus(1), bus(2)], "node3": [bus(3)]}


def test_a_cluster_that_asks_for_none_looks_for_none(world: World) -> None:
    for wanted in ("", "0"):
        assert operations.shared(world.host, {"node1": wanted}) == {}
    cluster = made(world)
    assert (given(cluster), lines(cluster, "node1")) == ({}, [])


# --- what is refused before anything is made ---


def without_driver(world: World) -> None:
    pass


def without_module(world: World) -> None:
    devices = world.root / "sys/bus/pci/devices"
    fill(devices / "0000:00:1f.0", {"vendor": "0x8086\n", "class": "0x030000\n"})
    fill(devices / "0000:01:00.0", {"vendor": "0x10de\n", "class": "0x030200\n"})
    fill(devices / "0000:01:00.1", {"vendor": "0x10de\n", "class": "0x040300\n"})


def without_device(world: World) -> None:
    give_gpus(world, 2)
    for number in range(2):
        (world.root / f"dev/nvidia{number}").unlink()


def without_library(world: World) -> None:
    give_gpus(world, 1)
    world.programs.answers["ldconfig"] = lambda _words: (0, "0 libs found in cache\n", "")


@pytest.mark.parametrize(
    ("prepare", "brief", "details", "resolution"),
    [
        (without_driver, "no GPU of NVIDIA", "none on its PCI bus", "leave --gpus out"),
        (without_module, "no GPU of NVIDIA", "for what is there: 0000:01:00.0", "modprobe nvidia"),
        (
            without_device, "GPUs cannot be used", f"{bus(1)}: ", "nvidia-modprobe --unified-memory "
            "--create-nvidia-device-file=0 --create-nvidia-device-file=1",
        ),
        (without_library, "libcuda.so.1 is missing", "ldconfig -p", "leave --gpus out"),
    ],
)  # fmt: skip
def test_a_host_without_what_it_takes_is_refused(
    prepare: object, brief: str, details: str, resolution: str, world: World, plugin: None
) -> None:
    prepare(world)  # type: ignore[operator]
    with unchanged(world), pytest.raises(HostError, match=brief) as raised:
        made(world, gpus="all")
    assert details in raised.value.details
    assert resolution in raised.value.resolution


def test_more_than_there_are_is_refused(world: World, plugin: None) -> None:
    give_gpus(world, 3)
    with unchanged(world), pytest.raises(HostError) as raised:
        made(world, workers=2, gpus="2")
    assert raised.value.brief == (
        "of this host's 3 GPUs, 3 are free: too few for node1 (2), node2 (2)"
    )
    assert f"{bus(2)}: NVIDIA GeForce RTX 3090" in raised.value.details


def test_gpus_of_others_in_a_batch_job_are_not_counted(world: World) -> None:
    give_gpus(world, 2)
    (world.root / "dev/nvidia0").unlink()
    assert [gpu.bus for gpu in gpus.usable(world.host)] == [bus(1)]


def test_a_node_image_without_the_plugin_is_refused(world: World) -> None:
    give_gpus(world, 1)
    with unchanged(world), pytest.raises(UsageError, match="before nodes could hand out GPUs"):
        made(world, gpus="all")


def test_an_update_to_such_an_image_is_refused_where_nodes_have_some(
    world: World, plugin: None
) -> None:
    give_gpus(world, 1)
    cluster = made(world, gpus="all")
    operations.require_of_image(cluster.image, asked=bool(cluster.state.gpus))
    (file,) = (world.root / "cache/node-images").glob("*/versions")
    file.write_text(file.read_text().replace("gpu-plugin=", "other="))
    with pytest.raises(UsageError, match="before nodes could hand out GPUs"):
        operations.require_of_image(cluster.image, asked=bool(cluster.state.gpus))
    operations.require_of_image(cluster.image, asked=False)


# --- nodes that come and go ---


def add(world: World, wanted: str = "", count: int = 1) -> list[str]:
    return scaling.add(world.host, "fake", count, world.ui(), wanted)


def test_workers_that_join_take_of_what_is_left_and_give_it_back(
    world: World, plugin: None
) -> None:
    give_gpus(world, 4)
    cluster = made(world, gpus="1")
    add(world, "1", count=2)
    assert given(cluster) == {"node1": [bus(0)], "node2": [bus(1)], "node3": [bus(2)]}
    assert lines(cluster, "node3") == [f"{bus(2)} /dev/nvidia2 {uuid(2)}"]
    assert world.instances["fake-node3"].options.extra == ("--nv",)
    scaling.remove_node(world.host, "fake", "node2", RemovalOptions(), world.ui())
    add(world, "all")
    assert given(cluster) == {"node1": [bus(0)], "node3": [bus(2)], "node2": [bus(1), bus(3)]}


def test_workers_that_ask_for_none_get_none(world: World, plugin: None) -> None:
    give_gpus(world, 2)
    cluster = made(world, gpus="1")
    add(world)
    assert lines(cluster, "node2") == []
    assert world.instances["fake-node2"].options.extra == ()


def test_a_worker_for_which_too_few_are_left_is_not_made(world: World, plugin: None) -> None:
    give_gpus(world, 1)
    made(world, gpus="all")
    before = world.snapshot()
    with pytest.raises(HostError, match=r"0 are free: too few for node2 \(all\)") as raised:
        add(world, "all")
    assert raised.value.details == f"{bus(0)}: NVIDIA GeForce RTX 3090, of node1"
    assert differences(before, world.snapshot()) == []


def test_a_gpu_that_is_gone_is_told_at_start_and_not_handed_out(world: World, plugin: None) -> None:
    give_gpus(world, 2)
    cluster = made(world, gpus="all")
    power.stop(cluster.host, "fake", power.StopOptions(), world.ui())
    (world.root / "proc/driver/nvidia/gpus" / bus(0) / "information").unlink()
    ui = world.ui()
    power.start(cluster.host, "fake", ui)
    assert f"GPUs of node1 are not on this host any more: {bus(0)}" in ui.warnings
    assert lines(cluster, "node1") == [f"{bus(1)} /dev/nvidia1 {uuid(1)}"]


# --- the commands ---


@pytest.mark.parametrize("words", [("init", "--gpus", "two"), ("node", "add", "--gpus", "-1")])
def test_what_is_no_number_is_refused(words: Sequence[str], world: World, sykube: Sykube) -> None:
    said = sykube(*words)
    assert said.code == 2
    assert f"the number of GPUs can be all or a whole number, not '{words[-1]}'" in said.err


def test_the_plugin_reads_what_sykube_writes() -> None:
    program = "".join(file.read_text(encoding="utf-8") for file in RUNTIME.glob("*.go"))
    for text in ("/etc/sykube/gpus", "/.singularity.d/libs", "nvidia.com/gpu"):
        assert f'"{text}"' in program
