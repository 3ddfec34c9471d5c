"""`sykube bench stream`: what runs where, and that nothing is left of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from click.testing import CliRunner

from sykube.bench.messages import BROKER, CONSUMER, PRODUCER
from sykube.bench.results import Measure
from sykube.cli.bench import bench
from sykube.cluster.commands.bench import stream, stream_lab
from sykube.cluster.commands.bench.stream_wanted import Wanted
from sykube.cluster.model.cluster import Cluster
from sykube.errors import HostError, SykubeError, UsageError
from sykube.host.run import Completed
from sykube.image.debian_image import DebianImage
from sykube.kubernetes.api import ApiError
from tests.fakes import FakeHost
from tests.fakes.calls import Calls
from tests.fakes.ui import RecordingUi
from tests.unit.bench import quiet_machine

IMAGE = DebianImage("sykube.local/stream", "1234", Path("/cache/stream-images/1234/image.sif"))
NODES = [SimpleNamespace(name=name, instance=f"sykube-{name}") for name in ("master", "node1")]
SMALL = Wanted(messages=20, warm_up=10)
PODS = ["runc:pod", "runc:node", "runc:nodes"]


@dataclass(eq=False)
class Named:
    """A node."""

    name: str
    instance: str


@dataclass
class Lab:
    """A cluster whose pods are ready, and the three programs, which say what they are asked.

    Attributes:
        delay: of each message, in nanoseconds.
        most: messages a second that the consumer takes.
        fails: what a role says in a place before it ends with 1, by a word of its command.
        ran: the command line of each program.
        events: what was done to the nodes' images, and to brokers outside of pods.
    """

    folder: Path
    nodes: list[Any] = field(default_factory=lambda: NODES)
    fails: dict[tuple[str, str], str] = field(default_factory=dict)
    ran: list[list[str]] = field(default_factory=list)
    made: list[dict[str, Any]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    namespace: bool = False
    delay: int = 500_000
    most: float = 2000.0

    @property
    def cluster(self) -> Cluster:
        made = SimpleNamespace(
            name="sykube",
            name_option="",
            host=FakeHost(root=self.folder, run=self.run),
            image=SimpleNamespace(kubectl=Path("/kubectl")),
            paths=SimpleNamespace(kubeconfig=Path("/kubeconfig"), root=self.folder),
            state=SimpleNamespace(
                engine="/usr/bin/apptainer", engine_environment={}, versions={"runc": "1.1"}
            ),
            # As those of a cluster, which are made whenever they are asked for.
            nodes=[Named(**vars(node)) for node in self.nodes],
            ui=RecordingUi(Calls()),
            api=lambda: nullcontext(self),
        )
        return cast(Cluster, made)

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        on_line: Callable[[str], None] | None = None,
        stop: threading.Event | None = None,
        **_: Any,
    ) -> Completed:
        words = [str(word) for word in argv]
        self.ran.append(words)
        role, asked = words[-2], json.loads(words[-1])
        assert on_line and stop
        for (wanted, word), said in self.fails.items():
            if role == wanted and word in words:
                on_line(said)
                return Completed(tuple(words), 1, "", "")
        if role == CONSUMER:
            delays = [self.delay] * asked["count"]
            seconds = (asked["count"] - 1) / min(asked["rate"], self.most)
            on_line(json.dumps({"delays": delays, "seconds": seconds}))
        elif role == BROKER:
            assert stop.wait(60)
            self.events.append("broker ended")
            raise InterruptedError
        return Completed(tuple(words), 0, "", "")

    def request(self, method: str, path: str, body: Any = None, **_: Any) -> None:
        match method, path:
            case "POST", "/api/v1/namespaces":
                self.namespace = True
            case "POST", _:
                self.made.append(body)

    def get(self, path: str, **_: str) -> Any:
        if path.endswith("/pods"):
            return {"items": [{**pod, "status": status(pod)} for pod in self.made]}
        if path.endswith("/log"):
            return "panic: disk is full\n"
        for pod in self.made:
            if path.endswith(f"/pods/{pod['metadata']['name']}"):
                return {"status": status(pod, {"terminated": {"reason": "OOMKilled"}})}
        if path.endswith("/serviceaccounts/default"):
            return {}
        raise ApiError("not found", 404)

    def delete(self, _manifest: Any) -> None:
        self.namespace = False
        self.events.append("namespace gone")

    @property
    def left(self) -> list[Path]:
        return [*(self.cluster.host.cache / "tmp").iterdir()]

    def programs(self, role: str) -> Iterator[list[str]]:
        return (words for words in self.ran if words[-2] == role)


def status(pod: dict[str, Any], state: dict[str, Any] | None = None) -> dict[str, Any]:
    name = pod["metadata"]["name"]
    return {
        "conditions": [{"type": "Ready", "status": "True"}],
        "podIP": f"address of {name}",
        "containerStatuses": [
            {"name": each["name"], "state": state or {"running": {}}}
            for each in pod["spec"]["containers"]
        ],
    }


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    lab = Lab(tmp_path)

    def load(_cluster: Any, _sources: Any, nodes: Sequence[str], _name: str) -> None:
        lab.events.append(f"loaded into {' '.join(nodes)}")

    def delete(_cluster: Any, _name: str, nodes: Sequence[str]) -> None:
        lab.events.append(f"deleted from {' '.join(nodes)}")

    def unpack(_host: Any, _file: Path, root: Path, *_: Any, **__: Any) -> None:
        root.mkdir()
        lab.events.append("unpacked")

    monkeypatch.setattr("sykube.cluster.commands.images.load_into", load)
    monkeypatch.setattr("sykube.cluster.commands.images.delete_from", delete)
    monkeypatch.setattr("sykube.image.containerd.names", lambda _: {})
    monkeypatch.setattr("sykube.image.sif.unpack", unpack)
    return lab


def measured(lab: Lab, places: Sequence[str], wanted: Wanted = SMALL) -> dict[str, Measure]:
    return stream.in_blocks(lab.cluster, IMAGE, places, wanted, [4, 5], runs=3, margin=0.02)[0]


def test_each_place_has_figures_of_each_block(lab: Lab) -> None:
    places = ["host", "exec", *PODS]
    found = measured(lab, places)
    assert {*found} == {"warm_up", "p50", "p90", "p99", "p99.9"}
    for measure in found.values():
        assert dict(measure.values) == {place: [500.0] * 3 for place in places}
        assert measure.unit == "µs"
    # A broker each outside of pods, and one more run of each to warm up.
    assert len(lab.ran) == 2 + 4 * 2 * len(places)
    assert lab.events == [
        *("unpacked", "loaded into master node1"), *["broker ended"] * 2,
        *("namespace gone", "deleted from master node1"),
    ]  # fmt: skip
    assert not lab.left


def test_each_run_has_a_stream_of_its_own_and_the_same_job_in_each_place(lab: Lab) -> None:
    measured(lab, ["host", "runc:nodes"], Wanted(messages=30, warm_up=5, rate=7, size=100))
    jobs = [json.loads(words[-1]) for words in lab.programs(CONSUMER)]
    assert len({job["name"] for job in jobs}) == len(jobs) == 8
    for role, core in ((PRODUCER, 5), (CONSUMER, 4)):
        for words in lab.programs(role):
            job = json.loads(words[-1])
            assert (job["count"], job["size"], job["rate"]) == (35, 100, 7)
            assert job["cores"] == [core]
    # The same text of the program in each place.
    assert len({words[-3] for words in lab.ran}) == 1


def test_a_sweep_ends_where_the_consumer_falls_behind(lab: Lab) -> None:
    found = measured(lab, ["host"], Wanted(messages=20, warm_up=10, sweep=True))
    assert found["saturated"].unit == "messages a second"
    assert found["saturated"].values["host"] == [pytest.approx(2000)] * 3
    jobs = [json.loads(words[-1]) for words in lab.programs(CONSUMER)]
    asked = [(job["rate"], job["count"]) for job in jobs][: len(jobs) // 4]
    # The messages that are measured, then two seconds of each rate.
    assert asked == [(100, 30), (100, 200), (400, 800), (1600, 3200), (6400, 12800)]


def test_a_sweep_does_not_fill_the_disk() -> None:
    assert Wanted(size=1_000_000).of_sweep(100_000) == 268
    assert Wanted(rate=1).of_sweep(1) == 2


def test_pods_are_together_or_apart_as_their_layout_says(lab: Lab) -> None:
    measured(lab, PODS)
    found = {
        pod["metadata"]["name"]: (
            pod["spec"]["nodeName"],
            [each["name"] for each in pod["spec"]["containers"]],
        )
        for pod in lab.made
    }
    assert found == {
        "runc-pod": ("sykube-node1", ["broker", "producer", "consumer"]),
        "runc-node-broker": ("sykube-node1", ["broker"]),
        "runc-node-producer": ("sykube-node1", ["producer"]),
        "runc-node-consumer": ("sykube-node1", ["consumer"]),
        "runc-nodes-broker": ("sykube-node1", ["broker"]),
        "runc-nodes-producer": ("sykube-master", ["producer"]),
        "runc-nodes-consumer": ("sykube-master", ["consumer"]),
    }
    assert {pod["spec"]["runtimeClassName"] for pod in lab.made} == {"runc"}
    reached = {
        (words[words.index("--container") - 1], json.loads(words[-1])["address"])
        for words in lab.programs(PRODUCER)
    }
    assert reached == {
        ("runc-pod", "127.0.0.1"),
        ("runc-node-producer", "address of runc-node-broker"),
        ("runc-nodes-producer", "address of runc-nodes-broker"),
    }


def test_brokers_outside_of_pods_are_reached_by_the_loopback_alone(lab: Lab) -> None:
    measured(lab, ["host", "exec"])
    brokers = [json.loads(words[-1]) for words in lab.programs(BROKER)]
    assert {each["address"] for each in brokers} == {"127.0.0.1"}
    assert len({each["port"] for each in brokers}) == 2
    # Nor do they take a pod.
    assert lab.events == ["unpacked", "broker ended", "broker ended"]


def test_images_go_where_pods_are(lab: Lab) -> None:
    measured(lab, ["runc:node"])
    assert lab.events == ["loaded into node1", "namespace gone", "deleted from node1"]


def test_a_broker_of_pods_that_dies_is_one_error_and_nothing_is_left(lab: Lab) -> None:
    lab.fails[CONSUMER, "runc-node-consumer"] = "consumer: the broker has ended the connection"
    with pytest.raises(SykubeError, match="did not get through in runc:node$") as caught:
        measured(lab, ["runc:node", "host"])
    assert caught.value.details == (
        "consumer: the broker has ended the connection\n"
        "broker: panic: disk is full\n"
        "broker: it has ended: OOMKilled"
    )
    assert not lab.namespace
    assert not lab.left
    assert lab.events[-1] == "deleted from node1"


def test_a_broker_of_the_host_that_dies_is_one_error_and_nothing_is_left(lab: Lab) -> None:
    lab.fails[BROKER, "unshare"] = "no space left on device"
    lab.fails[PRODUCER, "unshare"] = "producer: [Errno 32] Broken pipe"
    with pytest.raises(SykubeError, match="did not get through in host$") as caught:
        measured(lab, ["host"])
    assert "producer: [Errno 32] Broken pipe" in caught.value.details
    assert "broker: no space left on device" in caught.value.details
    assert "broker: it has ended with exit code 1" in caught.value.details
    assert not lab.left


def test_what_the_consumer_says_is_a_result_or_an_error(lab: Lab) -> None:
    lab.delay = -1
    with pytest.raises(SykubeError, match="is no result"):
        measured(lab, ["host"])
    assert not lab.left


def test_an_interruption_leaves_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stream_lab, "run_in_order", interrupt)
    with pytest.raises(KeyboardInterrupt):
        measured(lab, ["host", *PODS])
    assert lab.events == [
        *("unpacked", "loaded into master node1", "broker ended", "namespace gone"),
        "deleted from master node1",
    ]
    assert not lab.left


@pytest.fixture
def whole(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """All that `measure` needs."""
    runtimes = ("runc", "crun")
    quiet_machine.prepare(monkeypatch, stream, lab, IMAGE, runtimes)
    return lab


def measure(lab: Lab, wanted: Wanted) -> Any:
    return quiet_machine.measure(stream, lab, wanted)


def test_the_result_says_what_it_depends_on(whole: Lab) -> None:
    result = measure(whole, SMALL)
    assert result.base == "host"
    assert result.asked == {
        "runs": 3, "broker (nats)": 1, "messages": 20, "messages before them": 10, "bytes each": 1024,
        "messages a second": 100, "fsyncs of each": 0,
    }  # fmt: skip
    assert result.pinned == (
        "pinned alike in every place: the broker to core 0 and the producer to core 1 and the "
        "consumer to core 0"
    )
    assert {*result.curves["course"].lines} == {*result.measures["p50"].values}
    assert result.versions["stream"] == IMAGE.name
    assert result.versions["runc"] == "1.1"
    layouts = ("pod", "node", "nodes")
    pods = [f"{runtime}:{layout}" for runtime in ("runc", "crun") for layout in layouts]
    assert [*result.measures["p50"].values] == ["host", "exec", *pods]


def test_a_runtime_stands_for_all_that_its_pods_can_be(whole: Lab) -> None:
    result = measure(whole, Wanted(("crun:node", "crun", "host"), 20, 10))
    assert [*result.measures["p50"].values] == ["crun:node", "crun:pod", "crun:nodes", "host"]
    assert result.base == "crun:node"


def test_one_node_has_no_pods_of_two(whole: Lab) -> None:
    whole.nodes = NODES[:1]
    result = measure(whole, Wanted(("runc",), 20, 10))
    assert [*result.measures["p50"].values] == ["runc:pod", "runc:node"]
    with pytest.raises(UsageError, match="cannot be sent in 'runc:nodes'"):
        measure(whole, Wanted(("runc:nodes",), 20, 10))


def test_what_cannot_be_is_refused_before_anything_is_made(whole: Lab) -> None:
    with pytest.raises(UsageError, match="cannot be sent in 'gvisor:pod'") as caught:
        measure(whole, Wanted(("gvisor:pod",)))
    assert "There are host, exec, runc:pod" in caught.value.resolution
    with pytest.raises(SykubeError, match="the disk is too small"):
        measure(whole, Wanted(messages=1_000_000, size=1_000_000_000))
    (whole.folder / "proc/meminfo").write_text("MemAvailable:    1048576 kB\n")
    with pytest.raises(
        HostError, match="brokers and messages need 1.3 GB of memory, and 1.1 GB are free"
    ):
        measure(whole, Wanted())
    assert not whole.ran
    assert not whole.made
    assert not whole.events


def test_what_valkey_keeps_in_memory_counts(whole: Lab) -> None:
    large = Wanted(("host",), messages=10_000, size=1_000_000, broker="valkey")
    (whole.folder / "proc/meminfo").write_text("MemAvailable:    8388608 kB\n")
    with pytest.raises(HostError, match="brokers and messages need 10.4 GB"):
        measure(whole, large)
    assert not whole.ran


@pytest.mark.parametrize("broker", ["nats", "valkey"])
def test_all_three_are_of_the_broker_that_is_asked_for(lab: Lab, broker: str) -> None:
    measured(lab, ["host", "runc:pod"], Wanted(messages=20, warm_up=10, broker=broker, fsync=True))
    assert {json.loads(words[-1])["broker"] for words in lab.ran} == {broker}
    [pod] = lab.made
    asked = json.loads(pod["spec"]["containers"][0]["command"][-1])
    assert (asked["broker"], asked["fsync"]) == (broker, True)


def test_cores_that_are_shared_are_said(whole: Lab) -> None:
    cluster = whole.cluster
    ui = cast(RecordingUi, cluster.ui)
    stream.measure(
        cluster.host, "sykube", ui, lambda _: True,
        wanted=Wanted(("exec",), 20, 10), runs=3, margin=0.02, anyway=False,
    )  # fmt: skip
    assert ui.warnings == ["the broker, the producer and the consumer share 2 cores"]


@pytest.mark.parametrize(
    ("words", "title"),
    [([], "HPC Challenge"), (["hpcc"], "HPC Challenge"), (["stream"], "message brokers")],
)
def test_each_image_is_built_by_its_name(
    monkeypatch: pytest.MonkeyPatch, words: list[str], title: str
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(
        "sykube.cli.debian_image.show", lambda recipe, **_: shown.append(recipe.title)
    )
    done = CliRunner().invoke(bench, ["image", *words])
    assert done.exit_code == 0, done.output
    assert shown == [title]


@pytest.mark.parametrize(
    "options",
    [
        *(["--messages", "9"], ["--warm-up", "0"], ["--rate", "0"], ["--size", "15"]),
        *(["--size", "1000001"], ["--rate", "many"], ["--broker", "kafka"]),
    ],
)
def test_options_are_checked(options: list[str]) -> None:
    done = CliRunner().invoke(bench, ["stream", *options])
    assert done.exit_code == 2
    assert options[0] in done.output
