"""CPU seconds by program, on a /proc of the test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.processes import Sampled, Sampler, listens, program_at, program_of, spent_by
from benchmarks.profile import figures

TICKS = os.sysconf("SC_CLK_TCK")
OWN = os.getpid()
LISTENING = "  sl  local_address rem_address   st\n   0: 00000000:{port} 00000000:0000 {state} 0\n"


class Proc:
    """A /proc whose processes the test makes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.machine(0, 0)

    def machine(self, busy: float, idle: float) -> None:
        """Seconds of all cores; a tenth of what is idle waits for a disk, and 9 were others'."""
        ticks = [busy / 2, 0, busy / 2, idle * 0.9, idle * 0.1, 0, 0, 9, 0, 0]
        words = [str(round(each * TICKS)) for each in ticks]
        (self.root / "stat").write_text(f"cpu  {' '.join(words)}\ncpu0 1 1\n")

    def process(
        self, pid: int, name: str, spent: float = 0, parent: int = 1, node: str = "", began: int = 5
    ) -> None:
        folder = self.root / str(pid)
        folder.mkdir(exist_ok=True)
        half = round(spent * TICKS / 2)
        fields = ["S", str(parent), *"000000000", str(half), str(half), *"000000", str(began), "0"]
        (folder / "stat").write_text(f"{pid} ({name}) {' '.join(fields)}")
        (folder / "comm").write_text(f"{name}\n")
        (folder / "cgroup").write_text(f"4:cpu:/docker/x{f'/sykube/{node}/pod' if node else ''}\n")


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path)


def sampler(proc: Proc) -> Sampler:
    """It looks when the test says so, and at the end."""
    return Sampler("lab", proc.root, interval=3600)


def test_what_began_before_or_is_nobody_of_ours_is_not_counted(proc: Proc) -> None:
    proc.process(10, "etcd", 7, node="lab-master")
    proc.process(11, "etcd", 7)
    with sampler(proc) as looking:
        proc.process(10, "etcd", 9, node="lab-master")
        proc.process(12, "etcd", 3, node="lab-master")
        proc.process(13, "etcd", 5, node="other-master")
        proc.process(14, "etcd", 5)
    assert looking.found.programs_s == {"etcd": pytest.approx(3)}


def test_what_sykube_starts_and_what_that_starts_is_counted(proc: Proc) -> None:
    with sampler(proc) as looking:
        proc.process(20, "python3", 1, parent=OWN)
        looking.look()
        proc.process(21, "starter", 2, parent=20)
        looking.look()
        proc.process(22, "python3", 4, parent=21)
        looking.look()
        # Its parent has ended since.
        proc.process(22, "python3", 6, parent=1)
    assert looking.found.programs_s == pytest.approx({"sykube": 1, "apptainer": 2})
    assert looking.found.others_s == pytest.approx({"python3": 6})


def test_a_process_that_becomes_another_program_counts_for_both(proc: Proc) -> None:
    with sampler(proc) as looking:
        proc.process(20, "starter", 2, node="lab-master")
        looking.look()
        proc.process(20, "kubeadm", 5, node="lab-master")
    assert looking.found.programs_s == pytest.approx({"apptainer": 2, "kubeadm": 3})


def test_a_number_that_is_given_again_is_another_process(proc: Proc) -> None:
    with sampler(proc) as looking:
        proc.process(20, "runc", 2, node="lab-master")
        looking.look()
        proc.process(20, "etcd", 1, node="lab-master", began=6)
        looking.look()
        proc.process(20, "etcd", 4, began=7)
    assert looking.found.programs_s == pytest.approx({"containerd": 2, "etcd": 1})


def test_what_no_process_was_seen_for_is_missed(proc: Proc) -> None:
    with sampler(proc) as looking:
        proc.process(20, "etcd", 3, node="lab-master")
        proc.machine(10, 4)
    found = looking.found
    assert [found.machine_s, found.idle_s] == pytest.approx([10, 4])
    assert found.missed_s == pytest.approx(7 - found.sampler_s)


def test_it_looks_by_itself_at_real_processes() -> None:
    busy = "import time\nwhile time.process_time() < 0.5: pass"
    with Sampler("no-such-cluster") as looking:
        subprocess.run([sys.executable, "-c", busy], check=True)
    assert looking.found.programs_s["sykube"] > 0
    assert looking.found.machine_s > 0
    assert looking.found.wall_s > 0


def test_the_api_server_has_started_when_it_listens(proc: Proc) -> None:
    with sampler(proc) as looking:
        proc.process(20, "kube-apiserver", 1, node="lab-master")
        tables = proc.root / "20/net"
        tables.mkdir()
        (tables / "tcp").write_text(LISTENING.format(port="192B", state="01"))
        (tables / "tcp6").write_text(LISTENING.format(port="0050", state="0A"))
        looking.look()
        assert looking.found.api_listens_s is None
        (tables / "tcp6").write_text(LISTENING.format(port="192B", state="0A"))
        assert listens(proc.root / "20")
    assert looking.found.api_listens_s is not None
    assert looking.found.first_seen_s["kube-apiserver"] <= looking.found.api_listens_s


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("kube-controller", "kube-controller-manager"),
        ("containerd-shim", "containerd"),
        ("runc:[2:INIT]", "containerd"),
        ("coredns", "others"),
    ],
)
def test_programs_by_the_kernels_name(name: str, program: str) -> None:
    assert program_of(name) == program


def test_the_floor_is_the_cpu_time_of_all_programs_divided_by_the_cores() -> None:
    sampled = Sampled(
        programs_s={"etcd": 2.0, "kubelet": 5.0},
        others_s={"sh": 1.0},
        first_seen_s={"kube-apiserver": 3.0},
        api_listens_s=5.5,
        wall_s=9.0,
        machine_s=11.0,
        sampler_s=1.0,
    )
    step = {"step": "Starting", "seconds": 4.0}
    chain = [{"name": "DNS", "seconds": 2}, {"name": "ip link", "seconds": 0.01}]
    found = figures(sampled, {"steps": [step], "chain": chain}, cores=2)
    assert (found["cpu_s"], found["floor_s"], found["missed_s"]) == (10, 5, 2)
    assert found["apiserver_start_s"] == 2.5
    assert list(found["programs_s"].items()) == [("kubelet", 5), ("etcd", 2), ("others", 1)]
    assert found["steps_s"] == {"Starting": 4}
    assert [part["name"] for part in found["chain"]] == ["DNS"]
    nothing = figures(Sampled(), None, cores=2)
    assert (nothing["apiserver_start_s"], nothing["chain"]) == (None, [])


@pytest.mark.parametrize(
    ("name", "command", "program"),
    [
        ("kube-controller", "kube-controller-manager --v=2", "kube-controller"),
        ("python3", "python3 -m incluster.dns.front --listen=:53", "incluster.dns.front"),
        ("supervisord", "/usr/bin/python3 /usr/bin/supervisord --nodaemon", "supervisord"),
    ],
)
def test_a_program_in_python_goes_by_its_module_or_script(
    proc: Proc, name: str, command: str, program: str
) -> None:
    proc.process(30, name, 4)
    (proc.root / "30" / "cmdline").write_text(command.replace(" ", "\0") + "\0")
    assert program_at(proc.root / "30") == program
    assert spent_by(proc.root / "30") == pytest.approx(4)
