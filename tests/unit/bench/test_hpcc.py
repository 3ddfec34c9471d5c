"""`sykube bench hpcc`: what runs where, and that nothing is left of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from click.testing import CliRunner

from sykube.bench import hpcc_input, machine
from sykube.bench.hpcc_input import Shape
from sykube.bench.results import Measure
from sykube.cli.bench import bench
from sykube.cluster.commands.bench import hpcc
from sykube.cluster.commands.bench.hpcc import Wanted
from sykube.cluster.model.cluster import Cluster
from sykube.errors import HostError, SykubeError, UsageError
from sykube.host.run import Completed
from sykube.image.debian_image import DebianImage
from sykube.kubernetes.api import ApiError
from sykube.node.node import Node
from tests.fakes import FakeHost
from tests.fakes.calls import Calls
from tests.fakes.ui import RecordingUi
from tests.unit.bench import quiet_machine
from tests.unit.bench.test_hpcc_output import RING, output

PLACES = ["host", "exec", "runc", "crun"]
IMAGE = DebianImage("sykube.local/hpcc", "1234", Path("/cache/hpcc-images/1234/image.sif"))
NODE = cast(Node, SimpleNamespace(name="worker", instance="sykube-worker"))
SMALL = {Shape(2, 1): hpcc_input.written(Shape(2, 1), 200)}


@dataclass
class Lab:
    """A cluster with an API server whose pods are ready, and programs that say what they are asked.

    Attributes:
        said: what HPC Challenge writes in a place, by a word of its command.
        ran: each command line, and its input.
        image_there: whether the node has the image.
        events: what was done to the node's images.
    """

    folder: Path
    said: dict[str, str] = field(default_factory=dict)
    ran: list[tuple[list[str], str]] = field(default_factory=list)
    made: list[dict[str, Any]] = field(default_factory=list)
    namespace: bool = False
    image_there: bool = False
    events: list[str] = field(default_factory=list)

    @property
    def cluster(self) -> Cluster:
        made = SimpleNamespace(
            name="sykube",
            name_option="",
            host=FakeHost(root=self.folder, run=self.run),
            image=SimpleNamespace(kubectl=Path("/kubectl")),
            paths=SimpleNamespace(kubeconfig=Path("/kubeconfig")),
            state=SimpleNamespace(
                engine="/usr/bin/apptainer", engine_environment={}, versions={"runc": "1.1"}
            ),
            nodes=[NODE],
            ui=RecordingUi(Calls()),
            api=lambda: nullcontext(self),
        )
        return cast(Cluster, made)

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        stdin: str | None = None,
        on_line: Callable[[str], None] | None = None,
        stop: threading.Event | None = None,
        **_: Any,
    ) -> Completed:
        words = [str(word) for word in argv]
        self.ran.append((words, stdin or ""))
        said = next((text for word, text in self.said.items() if word in words), output())
        assert on_line and stop
        for line in said.splitlines():
            on_line(line)
            if stop.is_set():
                raise InterruptedError
        return Completed(tuple(words), 0, "", "")

    def request(self, method: str, path: str, body: Any = None, **_: Any) -> None:
        match method, path:
            case "POST", "/api/v1/namespaces":
                self.namespace = True
            case "POST", _:
                self.made.append(body)

    def get(self, path: str) -> Any:
        if path.endswith("/pods"):
            ready = {"conditions": [{"type": "Ready", "status": "True"}]}
            return {"items": [{**pod, "status": ready} for pod in self.made]}
        if path == "/api/v1/nodes/sykube-worker":
            return {"status": {"allocatable": {"memory": "2097152Ki"}}}
        if path.endswith("/serviceaccounts/default"):
            return {}
        raise ApiError("not found", 404)

    def delete(self, _manifest: Any) -> None:
        self.namespace = False
        self.events.append("namespace gone")

    @property
    def left(self) -> list[Path]:
        return [*(self.cluster.host.cache / "tmp").iterdir()]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    lab = Lab(tmp_path)

    def load(*_: Any) -> None:
        lab.image_there = True
        lab.events.append("loaded")

    def delete(*_: Any) -> None:
        lab.image_there = False
        lab.events.append("deleted")

    def unpack(_host: Any, _file: Path, root: Path, *_: Any, **__: Any) -> None:
        root.mkdir()
        lab.events.append("unpacked")

    monkeypatch.setattr("sykube.cluster.commands.images.load_into", load)
    monkeypatch.setattr("sykube.cluster.commands.images.delete_from", delete)
    monkeypatch.setattr(
        "sykube.image.containerd.names",
        lambda _: {IMAGE.name: "sha256:1"} if lab.image_there else {},
    )
    monkeypatch.setattr("sykube.image.sif.unpack", unpack)
    return lab


def measured(
    lab: Lab, places: Sequence[str], asked: dict[Shape, hpcc_input.Asked] | None = None
) -> dict[str, Measure]:
    return hpcc.in_blocks(
        lab.cluster, NODE, IMAGE, places, asked or SMALL, [0, 1], runs=3, margin=0.02
    )


def test_each_place_has_a_figure_of_each_block(lab: Lab) -> None:
    lab.said["--mount"] = output({"HPL_Tflops": "0.004"})
    found = measured(lab, PLACES)
    assert dict(found["hpl-2x1"].values) == {
        "host": [pytest.approx(4.0)] * 3,
        **{place: [pytest.approx(3.13199)] * 3 for place in PLACES[1:]},
    }
    assert found["hpl-2x1"].title == "HPL (2x1)"
    assert found["seconds-2x1"].values["runc"] == [1.25] * 3
    # One more of each, to warm up.
    assert len(lab.ran) == 4 * len(PLACES)
    assert [pod["spec"]["runtimeClassName"] for pod in lab.made] == ["runc", "crun"]
    assert lab.events == ["unpacked", "loaded", "namespace gone", "deleted"]
    assert not lab.left


def test_the_same_program_runs_in_each_place_on_the_same_cores(lab: Lab) -> None:
    shape = Shape(2, 2)
    asked = {**SMALL, shape: hpcc_input.written(shape, 200)}
    measured(lab, PLACES, asked)
    tails: dict[str, set[tuple[str, ...]]] = {}
    for words, given in lab.ran:
        start = words.index("/usr/local/bin/hpcc-run")
        tails.setdefault(words[0], set()).add((*words[start:], given))
    program = "/usr/local/bin/hpcc-run"
    # Four threads on two cores leave them to each other.
    wanted = {
        (program, "1", "0", "0", "1", asked[Shape(2, 1)].text),
        (program, "2", "1", "0,1", "0,1", asked[shape].text),
    }
    assert tails == {"unshare": wanted, "/usr/bin/apptainer": wanted, "/kubectl": wanted}


def test_one_process_is_asked_for_no_ring(lab: Lab) -> None:
    one = Shape(1, 2)
    lab.said["--mount"] = output({**RING})
    found = measured(lab, ["host"], {one: hpcc_input.written(one, 200)})
    assert "hpl-1x2" in found
    assert not any("ring" in key for key in found)
    # Nor does the host take a pod.
    assert lab.events == ["unpacked"]


def test_an_image_that_was_there_stays(lab: Lab) -> None:
    lab.image_there = True
    measured(lab, ["runc"])
    assert lab.events == ["namespace gone"]
    assert lab.image_there


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("HPL ERROR from process # 0\n>>> Illegal N <<<\nnever read", "HPL does not take it."),
        ("prterun noticed that process rank 0 exited on signal 9", "no whole summary"),
        (output({"Success": "0"}), "Success=0"),
    ],
)
def test_a_run_that_fails_is_one_error_and_nothing_is_left(lab: Lab, said: str, why: str) -> None:
    lab.said["crun"] = said
    with pytest.raises(SykubeError, match="a run of HPC Challenge failed") as caught:
        measured(lab, PLACES)
    assert why in caught.value.details
    assert "never read" not in caught.value.details
    assert not lab.namespace
    assert not lab.image_there
    assert not lab.left


def test_what_failed_first_is_said(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise SykubeError("the cluster is gone", resolution="")

    monkeypatch.setattr("sykube.cluster.commands.images.delete_from", fail)
    with pytest.raises(SykubeError, match="the cluster is gone"):
        measured(lab, ["runc"])
    lab.image_there = False
    lab.said["runc"] = ""
    with pytest.raises(SykubeError, match="a run of HPC Challenge failed"):
        measured(lab, ["runc"])


def test_an_interruption_leaves_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(lab, "run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        measured(lab, PLACES)
    assert lab.events == ["unpacked", "loaded", "namespace gone", "deleted"]
    assert not lab.left


@pytest.fixture
def whole(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """All that `measure` needs."""
    runtimes = ("runc", "crun", "apptainer")
    quiet_machine.prepare(monkeypatch, hpcc, lab, IMAGE, runtimes)
    return lab


def measure(lab: Lab, wanted: Wanted) -> Any:
    return quiet_machine.measure(hpcc, lab, wanted)


def test_the_result_says_what_it_depends_on(whole: Lab) -> None:
    result = measure(whole, Wanted())
    # A fifth of what a pod can have, which is less than the host has.
    assert result.asked == {"runs": 3, "rows of HPL's matrix": hpcc_input.order_for(2 * 1024**3)}
    assert result.base == "host"
    assert result.pinned == "processes are pinned alike in every place: 2x1 on cores 0 | 1"
    assert result.versions["hpcc"] == IMAGE.name
    assert result.versions["runc"] == "1.1"
    assert {*result.measures["fft-2x1"].values} == {"host", "exec", "runc", "crun", "apptainer"}


def test_what_cannot_be_is_refused_before_anything_is_made(whole: Lab, tmp_path: Path) -> None:
    file = tmp_path / "hpccinf.txt"
    file.write_text(hpcc_input.written(Shape(8, 1), 200).text)
    for wanted, error, said in (
        (Wanted(places=("gvisor",)), UsageError, "cannot run in 'gvisor'"),
        (Wanted(order=1_000_000), HostError, "2.1 GB are free"),
        (Wanted(file=file), UsageError, "a grid of 8 processes, and 2x1 has 2"),
        (Wanted(file=tmp_path / "none"), UsageError, "none"),
    ):
        with pytest.raises(error, match=said):
            measure(whole, wanted)
    assert not whole.ran
    assert not whole.made
    assert not whole.events


def test_a_file_of_the_users_is_taken_as_it_is(whole: Lab, tmp_path: Path) -> None:
    file = tmp_path / "hpccinf.txt"
    text = hpcc_input.written(Shape(4, 1), 300).text.replace("written by sykube", "by me")
    file.write_text(text)
    result = measure(whole, Wanted(places=("exec",), shapes=(Shape(4, 1),), file=file))
    assert {given for _, given in whole.ran} == {text}
    assert result.asked["rows of HPL's matrix"] == 300


def test_more_threads_than_cores_are_said(whole: Lab) -> None:
    cluster = whole.cluster
    ui = cast(RecordingUi, cluster.ui)
    hpcc.measure(
        cluster.host, "sykube", ui, lambda _: True,
        wanted=Wanted(places=("exec",), shapes=(Shape(4, 2),), order=200),
        runs=3, margin=0.02, anyway=False,
    )  # fmt: skip
    assert ui.warnings == ["4x2: 8 threads share 2 cores"]


@pytest.mark.parametrize("options", [["--shape", "two"], ["--size", "0"], ["--size", "many"]])
def test_options_are_checked(options: list[str]) -> None:
    done = CliRunner().invoke(bench, ["hpcc", *options])
    assert done.exit_code == 2
    assert options[0] in done.output


def test_sizes_have_one_source(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="by --size or by --input"):
        Wanted(order=200, file=tmp_path / "a")


def test_there_are_cores() -> None:
    assert machine.usable_cores()
