"""Clusters in batch jobs of a real Slurm, of an ordinary user."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sykube.image.versions import SYSTEM_IMAGE
from tests.e2e.cluster import eventually
from tests.e2e.manifests import deployment
from tests.hostdiff import HostSnapshot
from tests.machine import slurm, users
from tests.machine.slurm import Slurm
from tests.machine.users import User

FIRST_ID = 800_000
DOCS = Path(__file__).resolve().parents[2] / "docs"
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# How slurmd knows what belongs to a job, and what it holds that to.
KINDS = {"linuxproc": ("linuxproc", "none"), "cgroup": ("cgroup", "cgroup")}
# What a command of a job waits with, and shows that it does.
_WAITS = "trap 'echo asked; exit 9' TERM; echo up; sleep 300 & wait"
_ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"}


@dataclass
class Site:
    """A user of a Slurm.

    Attributes:
        before: the host without any job.
    """

    slurm: Slurm
    user: User
    before: HostSnapshot

    def submit(self, script: str, *options: str) -> Job:
        return Job(self, self.slurm.submit(self.user, script, "--output=%j.out", *options))

    def sykube(self, words: str, *options: str) -> Job:
        """A job that becomes sykube."""
        small = ("--cpus-per-task=1", "--mem=3000", "--time=5")
        return self.submit(f"#!/bin/sh\nexec sykube {words}\n", *small, *options)

    def left(self) -> list[str]:
        """What is left of the user's jobs, which get some seconds to end."""
        deadline = time.monotonic() + 10
        while (found := self._there()) and time.monotonic() < deadline:
            time.sleep(0.5)
        return found

    def _there(self) -> list[str]:
        """Processes, links, mounts, and files but for caches, logs and what jobs have said."""
        kept = ("/.cache/", "/.kube/cache/", "/.local/state/", "/.bash", "/.profile", ".out")
        work = ("/bin/sykube", "/work.sh", "/work.yaml")
        files = [
            str(each)
            for each in self.user.home.rglob("*")
            if each.is_file() and not any(part in str(each) for part in (*kept, *work))
        ]
        changes = [
            str(each)
            for each in self.before.diff(HostSnapshot.take(self.before.data_folders))
            if each.kind in ("mount", "link", "loop")
        ]
        return [*self.user.processes(), *files, *map(str, self.folders()), *changes]

    def snapshots(self) -> list[Path]:
        return [*(self.user.home / ".local/share/sykube/snapshots").iterdir()]

    def delete_snapshot(self, name: str) -> None:
        """By the user, outside of any job."""
        self.user.run(str(self.user.home / "bin/sykube"), "snapshot", "delete", name)

    def folders(self) -> list[Path]:
        return [*Path("/tmp").glob(f"sykube-{self.user.uid}*")]


@dataclass
class Job:
    site: Site
    number: int

    @property
    def said(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return (self.site.user.home / f"{self.number}.out").read_text(encoding="utf-8")
        return ""

    @property
    def state(self) -> str:
        return self.site.slurm.show(self.number)["JobState"]

    def up(self) -> None:
        """Wait until its command runs."""
        eventually("the command runs", lambda: "\nup\n" in self.said or self.state in _ENDED)
        assert "\nup\n" in self.said, self.said

    def ended(self) -> str:
        """Its exit code and signal, once it has ended."""
        eventually("the job has ended", lambda: self.state in _ENDED, timeout=240)
        return self.site.slurm.show(self.number)["ExitCode"]


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    with users.made("e2e-jobs", ids=FIRST_ID) as user:
        command = user.home / "bin/sykube"
        command.parent.mkdir()
        text = f'#!/bin/sh\nexec {users.PYTHON} -m sykube "$@"\n'
        command.write_text(text, encoding="utf-8")
        command.chmod(0o755)
        yield user


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest, user: User) -> Iterator[Site]:
    with slurm.running("e2e-slurm", *KINDS[request.param]) as running:
        yield Site(running, user, HostSnapshot.take([user.home]))


@pytest.mark.parametrize("site", ["cgroup"], indirect=True)
def test_the_script_of_the_how_to_makes_a_cluster_uses_it_and_is_gone(site: Site) -> None:
    script, work = _BLOCK.findall((DOCS / "jobs.md").read_text(encoding="utf-8"))
    home = site.user.home
    each = '{range .items[*]}{.status.allocatable.cpu} {.status.allocatable.memory}{"\\n"}{end}'
    announced = f"kubectl get nodes -o jsonpath='{each}'"
    # sykube in the namespaces: of the same user, and of the same job.
    status = "sykube status --output json | grep -e healthy -e Slurm"
    text = f"{work}{announced}\n{status}\nexit 7\n"
    (home / "work.sh").write_text(text, encoding="utf-8")
    (home / "work.yaml").write_text(json.dumps(_work()), encoding="utf-8")
    job = site.submit(script)
    assert job.ended() == "7:0", job.said
    lines = job.said.splitlines()
    assert 'deployment "web" successfully rolled out' in lines
    assert "job.batch/sum condition met" in lines
    assert "5050" in lines
    # The kubelet keeps 100Mi back, below which it evicts.
    assert lines.count("2 2972Mi") == 2, lines
    assert '  "status": "healthy",' in lines
    assert "Slurm job 1: 2 CPUs, 3072 MiB" in job.said
    assert site.left() == []


def _work() -> dict[str, object]:
    """A Deployment and a Job; indexed Jobs are of Kubernetes 1.21 and later."""
    add = ["python3", "-c", "print(sum(range(101)))"]
    container = {"name": "sum", "image": SYSTEM_IMAGE, "command": add}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "sum"},
        "spec": {"completions": 4, "parallelism": 2, "template": template},
    }
    items = [deployment("web", SYSTEM_IMAGE, 2), job]
    return {"apiVersion": "v1", "kind": "List", "items": items}


@pytest.mark.long
@pytest.mark.parametrize("site", ["cgroup"], indirect=True)
def test_a_job_that_is_cancelled_leaves_nothing(site: Site) -> None:
    job = site.sykube(f'run --workers 0 -- sh -c "{_WAITS}"')
    job.up()
    site.slurm.cancel(job.number)
    job.ended()
    assert job.state == "CANCELLED"
    assert "asked" in job.said
    assert site.left() == []


@pytest.mark.long
@pytest.mark.parametrize("site", ["cgroup"], indirect=True)
def test_after_kill_9_of_all_of_it_no_cluster_is_taken_for_one_and_the_files_go(
    site: Site,
) -> None:
    job = site.sykube(f'run --workers 0 -- sh -c "{_WAITS}"')
    job.up()
    for line in site.user.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(line.split()[0]), signal.SIGKILL)
    job.ended()
    eventually("all processes have ended", lambda: not site.user.processes(), timeout=10)
    (data,) = [each for each in site.folders() if each.name.endswith("-data")]
    command = str(site.user.home / "bin/sykube")
    for words in (["status"], ["start"], ["delete", "--yes"]):
        assert site.user.run(command, *words, check=False).returncode == 5, words
    # Any command that needs the namespaces takes them, on the host where they are.
    script = f"sykube status; echo $?; sykube start; echo $?; ls -d {data}; sykube snapshot list"
    after = site.submit(f"#!/bin/sh\n{script}\n")
    after.ended()
    said = [line for line in after.said.splitlines() if not line.startswith(("error:", "what to"))]
    assert said == ["5", "5", str(data)]
    assert site.left() == []


@pytest.mark.long
@pytest.mark.parametrize("site", ["linuxproc"], indirect=True)
def test_jobs_at_their_time_limit_leave_nothing_but_what_is_saved_in_time(site: Site) -> None:
    """Two at the same time: `run`, and `init` that nobody deletes."""
    # Slurm counts in minutes.
    words = "init --workers 0 --stop-before 20s --snapshot early"
    made = site.submit(f"#!/bin/sh\nsykube {words}\nsleep 300\n", "--mem=3000", "--time=1")
    eventually("it is up", lambda: "is up. Try:" in made.said or made.state in _ENDED)
    ran = site.sykube(f'run --workers 0 -- sh -c "{_WAITS}"', "--time=1")
    for job in (ran, made):
        job.ended()
        assert job.state == "TIMEOUT", job.said
    assert "asked" in ran.said
    assert [each.name for each in site.snapshots()] == ["early"], made.said
    site.delete_snapshot("early")
    assert site.left() == []


@pytest.mark.long
@pytest.mark.parametrize("site", ["linuxproc"], indirect=True)
def test_a_command_is_asked_to_end_before_the_job_and_its_cluster_is_saved(site: Site) -> None:
    words = "run --workers 0 --stop-before 70s --snapshot kept"
    job = site.sykube(f'{words} -- sh -c "{_WAITS}"', "--time=2")
    assert job.ended() == "9:0", job.said
    assert "done: Saving the cluster sykube" in job.said
    assert [each.name for each in site.snapshots()] == ["kept"]
    site.delete_snapshot("kept")
    assert site.left() == []
