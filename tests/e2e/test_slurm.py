"""A Slurm cluster in pods: jobs, MPI, nodes that come and go, and a slurmctld that is killed.

The tests follow one another: from two nodes to four, to one, to none and back.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from platform import machine
from typing import Any

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from sykube.cluster.model import lookup
from sykube.dashboard.rows import quantity
from sykube.errors import ExitCode
from sykube.host.host import Host
from sykube.slurm import sacct
from sykube.ui import Ui
from tests.browser import chromium
from tests.e2e import manifests, release, terminal
from tests.e2e.cluster import TestCluster, eventually
from tests.e2e.page import Dashboard, go, shot, texts

NAMESPACE, OTHER = "e2e-slurm", "e2e-users"
_BUILD = Path(__file__).parent / "mpi/build"
# What kubectl knows of the terminal comes a moment after the command.
SIZE = "sleep 1; stty size"
# Lines of one task: how often one has begun, and ended, is how often it was run.
_TASK = """#!/bin/sh
#SBATCH --array=1-{count} --output={name}-%a.out
echo begun
sleep {seconds}
echo ended
"""
# kcmp(2) of a process and its parent, KCMP_VM: not less than 0 where it is allowed, by its number in
# <asm/unistd.h>.
_KCMP = f"""
my $parent = $$;
my $child = fork() // die;
exit(syscall({312 if machine() == "x86_64" else 272}, $parent, $$, 1, 0, 0) < 0) if !$child;
waitpid($child, 0);
print $?;
"""
# What tests/e2e/mpi/late.c says, without the rank.
_FENCE = re.compile(r"^fence (\d+) (enters|leaves) \d+ (\d+)$", re.MULTILINE)
_TIMES = "for i in $(seq {}); do a=$(date +%s%N); srun true; echo $((($(date +%s%N) - a) / 1000000)); done"


@dataclass(frozen=True)
class Lab:
    """A Slurm cluster, driven by sykube's own command line."""

    cluster: TestCluster
    folder: Path
    namespace: str = NAMESPACE

    def slurm(self, command: str, *words: str, check: bool = True, **options: Any) -> Any:
        """sykube slurm COMMAND: how it ended."""
        named = ("--name", self.cluster.name, "--namespace", self.namespace)
        return self.cluster.sykube("slurm", command, *named, *words, check=check, **options)

    def shell(self, *command: str, check: bool = True) -> str:
        """The output of a command in the login pod."""
        return str(self.slurm("shell", "--", *command, check=check).stdout)

    def status(self) -> Any:
        return json.loads(self.slurm("status", "--output", "json", check=False).stdout)

    def script(self, name: str, text: str) -> Path:
        (self.folder / name).write_text(text)
        return self.folder / name

    def submit_tasks(self, name: str, count: int, seconds: float) -> None:
        script = self.script(f"{name}.sh", _TASK.format(name=name, count=count, seconds=seconds))
        assert "Submitted batch job" in self.slurm("submit", str(script)).stdout

    def give(self, program: Path) -> None:
        """Put a program of this host into the home."""
        does = f"base64 -d > {program.name} && chmod 755 {program.name}"
        content = base64.b64encode(program.read_bytes()).decode()
        self.slurm("shell", "--", "sh", "-c", does, stdin=content)

    def wait_until_idle(self) -> None:
        eventually("no job is left", lambda: not self.shell("squeue", "--noheader"), 180)

    def require_all(self, name: str, count: int) -> None:
        """Each task was run once, to its end, and nothing else is in its output."""
        self.wait_until_idle()
        said = self.shell(
            "sh", "-c", f"for i in $(seq {count}); do tr '\\n' ' ' < {name}-$i.out; echo; done"
        )
        assert said.splitlines() == ["begun ended "] * count

    def require_names(self, count: int) -> None:
        """So many jobs in a row, none of which waits for a name."""
        times = [int(line) for line in self.shell("sh", "-c", _TIMES.format(count)).split()]
        assert len(times) == count
        # A name that nobody knows costs 10 s: the resolver asks twice for 5 s.
        assert max(times) < 5000, times

    def require_rings(self, count: int) -> None:
        """An MPI ring through all four nodes, so many times."""
        subprocess.run([_BUILD, self.folder, _BUILD.with_name("ring.c")], check=True)
        self.give(self.folder / "ring")
        on = {each["name"]: each["on"] for each in self.status()["nodes"]}
        assert len({*on.values()}) == 2
        for _ in range(count):
            said = self.slurm("run", "--", "-N", "4", "-n", "4", "./ring").stdout.splitlines()
            found = sorted(line.replace(":", "").split() for line in said)
            # What came back to the first, and the last that each of the others has sent.
            assert [(words[1], words[-1]) for words in found] == [
                ("0", "400"), ("1", "398"), ("2", "399"), ("3", "400"),
            ]  # fmt: skip
            # Which rank is where is Slurm's to say.
            assert sorted(words[5] for words in found) == sorted(on)

    def require_queue(self, count: int, seconds: float) -> None:
        """So many tasks on four nodes, of which none is lost when slurmctld is killed."""
        self.submit_tasks("queue", count, seconds)
        # Not while one is handed out: its node may not hear of it (docs/slurm.md).
        eventually("jobs run", lambda: self.status()["jobs"].get("running", 0) == 4)
        self.kubernetes("delete", "pod", "slurmctld-0", "--grace-period=0", "--force")
        eventually("slurmctld is back", lambda: not self.status()["problem"])
        self.require_all("queue", count)

    def require_removal(self, count: int) -> None:
        """So many tasks on four nodes, of which none is lost when three of these go."""
        self.submit_tasks("down", count, 3)
        eventually("jobs run", lambda: self.status()["jobs"].get("running", 0) == 4)
        done = self.slurm("scale", "1", "--output", "json")
        assert len(json.loads(done.stdout)["removed"]) == 3
        self.require_all("down", count)
        assert len(self.status()["nodes"]) == 1

    def kubernetes(self, *words: str, **options: Any) -> str:
        return self.cluster.kubectl("--namespace", self.namespace, *words, **options)


@pytest.fixture(scope="module")
def bare(observed: TestCluster, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Where a Slurm cluster is to be."""
    lab = Lab(observed, tmp_path_factory.mktemp("slurm"))
    lab.slurm("down", "--volumes", "--force", check=False)
    return lab


@pytest.fixture(scope="module")
def lab(bare: Lab) -> Iterator[Lab]:
    """Two nodes of one user's, with the REST API."""
    bare.slurm("up", "--nodes", "2", "--memory", "512Mi", "--rest")
    yield bare
    bare.slurm("down", "--volumes", "--force", check=False)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--nodes", "-1"), "-1 nodes"),
        (("--memory", "100000Gi"), "no room for 2 nodes"),
        (("--cpus", "4096"), "larger than any"),
        (("--user", "root"), "a user of the image"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_created(
    bare: Lab, words: tuple[str, ...], why: str
) -> None:
    refused = bare.slurm("up", *words, check=False)
    assert refused.returncode == ExitCode.USAGE
    assert why in refused.stderr
    assert refused.stderr.count("error: ") == 1
    assert "NotFound" in bare.cluster.sykube(
        "kubectl", "--name", bare.cluster.name, "get", "namespace", NAMESPACE, check=False
    ).stderr  # fmt: skip
    assert bare.slurm("status", check=False).returncode == ExitCode.NO_SUCH_CLUSTER


def test_nodes_of_one_cpu_are_of_one_cpu_for_slurm_and_nothing_has_roots_rights(lab: Lab) -> None:
    found = lab.status()
    assert found["healthy"]
    sizes = {each["name"]: (each["cpus"], each["memory_mib"]) for each in found["nodes"]}
    assert sizes == {"c1-0": (1, 448), "c2-0": (1, 448)}
    assert len({each["on"] for each in found["nodes"]}) == 2
    for pod in ("slurmctld-0", "c1-0"):
        said = lab.kubernetes("exec", pod, "--", "cat", "/proc/self/status")
        facts = dict(line.split(":\t", 1) for line in said.splitlines() if ":\t" in line)
        assert int(facts["CapBnd"], 16) == 0
        assert facts["Uid"].split()[0] == "1001"
    assert "is up already" in lab.slurm("up", "--nodes", "2", "--memory", "512Mi").stderr


def test_a_command_has_its_input_output_terminal_and_exit_code(lab: Lab) -> None:
    done = lab.slurm(
        "run", "--", "sh", "-c", "cat; id -un; pwd; exit 7", stdin="hello\n", check=False
    )
    assert (done.returncode, done.stdout) == (7, "hello\nuser\n/home/user\n")
    words = [
        "slurm",
        "run",
        "--name",
        lab.cluster.name,
        "-n",
        NAMESPACE,
        "--",
        "--pty",
        "stty",
        "size",
    ]
    code, output = terminal.run(release.command(words), lab.cluster.environment, (33, 99))
    assert (code, "33 99" in output) == (0, True), output


def test_no_job_waits_for_a_name(lab: Lab) -> None:
    lab.require_names(40)


def test_a_bag_of_tasks_is_worked_off(lab: Lab) -> None:
    lab.submit_tasks("bag", 20, 0.2)
    lab.require_all("bag", 20)


# What a pod asks slurmrestd: a token, a path and a body, by its input; prints status and answer.
_ASK = """
import json, sys, urllib.error, urllib.request
token, address, path, body = json.load(sys.stdin)
headers = {"Content-Type": "application/json"}
if token:
    headers["X-SLURM-USER-TOKEN"] = token
url = f"http://{address}:6820/slurm/v0.0.42/{path}"
request = urllib.request.Request(url, json.dumps(body).encode() if body else None, headers)
try:
    with urllib.request.urlopen(request, timeout=30) as answer:
        print(json.dumps([answer.status, json.load(answer)]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, {}]))
"""


def ask(lab: Lab, token: str, path: str, body: Any = None) -> Any:
    """What slurmrestd answers a pod of another namespace: the status, and the answer."""
    words = ("service", "slurmrestd", "--output", "jsonpath={.spec.clusterIP}")
    address = lab.kubernetes("get", *words)
    command = ("exec", "--stdin", "deployment/metrics", "--", "python3", "-c", _ASK)
    asked = json.dumps([token, address, path, body])
    said = lab.cluster.kubectl("--namespace", "kube-system", *command, stdin=asked)
    return json.loads(said)


def submit_by_rest(lab: Lab, token: str, home: str) -> int:
    """Submit a job that says whose it is, in the file rest.out of a home; its number."""
    job = {
        "name": "rest", "current_working_directory": home, "standard_output": "rest.out",
        "environment": ["PATH=/usr/bin:/bin"],
    }  # fmt: skip
    body = {"script": "#!/bin/sh\nid -un\n", "job": job}
    code, answer = ask(lab, token, "job/submit", body)
    assert (code, answer["errors"]) == (200, [])
    return int(answer["job_id"])


def test_a_job_is_submitted_by_the_rest_api_to_whoever_has_a_token(lab: Lab) -> None:
    done = lab.slurm("token", "-v", "--lifetime", "300")
    token = done.stdout.strip()
    assert token.startswith("eyJ")
    assert token not in done.stderr
    assert "scontrol token" in done.stderr
    code, answer = ask(lab, token, "ping/")
    assert code == 200
    assert [each["pinged"] for each in answer["pings"]] == ["UP"]
    # 401 of slurmrestd itself; the other one slurmctld refuses.
    assert ask(lab, "", "ping/")[0] == 401
    assert ask(lab, token[:-4] + "AAAA", "jobs/")[0] != 200
    assert submit_by_rest(lab, token, "/home/user") > 0
    lab.wait_until_idle()
    assert lab.shell("cat", "rest.out") == "user\n"
    pod = lab.kubernetes("exec", "deployment/slurmrestd", "--", "cat", "/proc/self/status")
    assert "CapBnd:\t0000000000000000" in pod
    assert "Uid:\t64033" in pod


def rows(page: Chrome, table: str) -> list[str]:
    return texts(page, f'[aria-label="{table}"] tbody tr')


@contextmanager
def slurm_page(cluster: TestCluster, folder: Path) -> Iterator[Chrome]:
    """The dashboard's page of Slurm clusters, in a browser."""
    dashboard = Dashboard(cluster)
    try:
        with chromium(folder) as page:
            page.get(dashboard.link)
            shown = 'nav a[href="#slurm"]:not([hidden])'
            eventually("a tab of Slurm", lambda: page.find_elements(By.CSS_SELECTOR, shown))
            go(page, "slurm")
            yield page
    finally:
        dashboard.end()


def test_the_dashboard_shows_its_queue_and_nodes(lab: Lab, tmp_path: Path) -> None:
    script = lab.script("page.sh", _UNTIL_GO)
    lab.slurm("submit", str(script), "--array=1-4", "--output=page-%a.out")
    eventually("jobs run", lambda: lab.status()["jobs"].get("running") == 2)
    with slurm_page(lab.cluster, tmp_path) as page:
        eventually("jobs are shown", lambda: rows(page, f"Jobs of {NAMESPACE}"))
        words = " ".join(rows(page, f"Jobs of {NAMESPACE}"))
        assert "page.shuserrunningc1-01" in words
        assert "page.shuserpending" in words
        shown = rows(page, f"Slurm nodes of {NAMESPACE}")
        assert [
            each.startswith(f"c{n}-0allocated11448 MiB") for n, each in enumerate(shown, 1)
        ] == [True] * 2
        shot(page, "slurm")
        lab.shell("touch", "go")
        lab.require_all("page", 4)
        lab.shell("rm", "go")
        eventually(
            "they are gone",
            lambda: "No job waits or runs." in texts(page, ".slurm .note:not([hidden])"),
        )
        assert texts(page, ".slurm .pill")[0] == "healthy"
        assert "--accounting" in " ".join(texts(page, ".slurm .note:not([hidden])"))
        shot(page, "slurm-idle")


def test_what_slurm_or_the_cluster_does_not_know_is_one_clear_error(lab: Lab) -> None:
    script = lab.script("gpu.sh", "#!/bin/sh\n#SBATCH --partition=gpu\ntrue\n")
    refused = lab.slurm("submit", str(script), check=False)
    assert refused.returncode == ExitCode.FAILED
    assert refused.stderr.count("error: ") == 1, refused.stderr
    assert "invalid partition specified: gpu" in refused.stderr
    refused = lab.slurm("run", "--user", "eve", "--", "true", check=False)
    assert refused.returncode == ExitCode.USAGE
    assert "no user 'eve'" in refused.stderr
    refused = lab.slurm("up", "--memory", "1Gi", check=False)
    assert refused.returncode == ExitCode.USAGE
    assert "has other options" in refused.stderr
    refused = lab.slurm("efficiency", check=False)
    assert refused.returncode == ExitCode.FAILED
    assert "has no accounting" in refused.stderr
    assert "--accounting" in refused.stderr
    assert lab.shell("squeue", "--noheader") == ""


def test_nodes_are_added_while_jobs_run(lab: Lab) -> None:
    lab.submit_tasks("up", 12, 2)
    done = lab.slurm("scale", "4", "--output", "json")
    assert json.loads(done.stdout) == {"added": ["c3-0", "c4-0"], "removed": []}
    # No entry of slurmctld's was lost on the way, and it was not restarted.
    lab.require_all("up", 12)
    assert len(lab.status()["nodes"]) == 4


def test_an_mpi_ring_goes_through_four_pods_on_two_nodes(lab: Lab) -> None:
    lab.require_rings(3)


def test_processes_of_a_job_may_copy_each_others_memory(lab: Lab) -> None:
    # Open MPI asks this, and else each message between ranks of a node is copied twice.
    assert lab.slurm("run", "--", "perl", "-e", _KCMP).stdout == "0"


def test_no_rank_goes_on_before_one_of_another_node_that_is_late(lab: Lab) -> None:
    # Else that one may end with a segmentation fault in MPI_Init, as manifests/slurm.yaml.j2 says.
    late = lab.folder / "late.so"
    source = _BUILD.with_name("late.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", late, source, "-ldl"], check=True)
    lab.give(late)
    preloaded = ("env", "LATE=3", "LD_PRELOAD=/home/user/late.so", "./ring")
    said = lab.slurm("run", "--", "-N", "4", "-n", "4", *preloaded).stdout
    times: dict[tuple[str, str], list[int]] = {}
    for number, does, time in _FENCE.findall(said):
        times.setdefault((number, does), []).append(int(time))
    fences = {number for number, _ in times}
    # With data and without.
    assert len(fences) > 2
    for number in fences:
        assert len(times[number, "enters"]) == len(times[number, "leaves"]) == 4
        assert min(times[number, "leaves"]) > max(times[number, "enters"]), number


def test_the_queue_outlives_slurmctld(lab: Lab) -> None:
    lab.require_queue(20, 5)


def test_nodes_are_removed_while_jobs_run_and_none_is_lost(lab: Lab) -> None:
    lab.require_removal(8)
    eventually("its node is idle", lambda: lab.status()["nodes"][0]["state"] == "idle")
    (left,) = lab.status()["nodes"]
    assert left["name"] in lab.kubernetes("get", "pods", "--output", "name")


def test_with_no_node_a_job_waits_until_there_is_one(lab: Lab) -> None:
    lab.slurm("scale", "0")
    lab.submit_tasks("zero", 1, 0)
    assert lab.status()["jobs"].get("pending") == 1
    lab.slurm("scale", "1")
    lab.require_all("zero", 1)


def test_a_pod_that_is_deleted_lets_its_job_end_and_comes_back(lab: Lab) -> None:
    # Long enough to be seen on a busy machine, and shorter than a pod may take to end.
    lab.submit_tasks("hook", 1, 20)
    eventually("it runs", lambda: lab.status()["jobs"].get("running") == 1)
    (node,) = lab.status()["nodes"]
    lab.kubernetes("delete", "pod", node["name"])
    lab.require_all("hook", 1)
    eventually("its node takes jobs again", lambda: lab.status()["healthy"])
    assert lab.slurm("run", "--", "hostname").stdout == f"{node['name']}\n"


def test_it_goes_with_its_jobs_only_when_that_is_meant(lab: Lab) -> None:
    lab.submit_tasks("last", 3, 60)
    refused = lab.slurm("down", check=False)
    assert refused.returncode == ExitCode.FAILED
    assert "3 jobs wait or run" in refused.stderr
    lab.slurm("down", "--volumes", "--force")
    assert NAMESPACE not in lab.cluster.kubectl("get", "namespaces")


@pytest.mark.parametrize(("auth", "users"), [("slurm", "one"), ("slurm", "many"), ("none", "one")])
@pytest.mark.long
def test_of_many_jobs_of_one_or_of_many_users_none_is_lost(
    bare: Lab, auth: str, users: str
) -> None:
    lab = Lab(bare.cluster, bare.folder, f"e2e-jobs-{auth}-{users}")
    try:
        size = ("--nodes", "2", "--memory", "256Mi")
        lab.slurm("up", *size, "--auth", auth, "--users", users)
        lab.require_names(100)
        lab.submit_tasks("bag", 100, 0.5)
        lab.slurm("scale", "4")
        lab.require_all("bag", 100)
        lab.require_rings(20)
        lab.require_queue(50, 3)
        lab.require_removal(12)
    finally:
        lab.slurm("down", "--volumes", "--force", check=False)


@pytest.mark.long
def test_manifests_that_kubectl_applies_are_a_cluster_of_several_users(bare: Lab) -> None:
    users = Lab(bare.cluster, bare.folder, OTHER)
    rendered = bare.cluster.sykube(
        "slurm", "render", "--namespace", OTHER, "--nodes", "2", "--memory", "256Mi",
        "--users", "many", "--user", "ada", "--user", "bob", "--home-class", "shared",
    ).stdout  # fmt: skip
    try:
        bare.cluster.kubectl("apply", "-f", "-", stdin=rendered)
        # The image is there from the cluster before.
        eventually("it takes jobs", lambda: users.slurm("status", check=False).returncode == 0, 180)
        for name, uid in (("ada", 1001), ("bob", 1002)):
            who = ("--user", name, "--", "sh", "-c", "id -un; id -u; stat -c %a .; touch own")
            assert users.slurm("run", *who).stdout.split() == [name, str(uid), "700"]
        users.submit_tasks("stays", 1, 20)
        named = ("--users-file", str(users.script("users", "ada\nbob\neve:x:2000:\n")))
        users.slurm("up", "--nodes", "2", "--memory", "256Mi", "--users", "many", *named)
        assert users.slurm("run", "--user", "eve", "--", "id", "-u").stdout == "2000\n"
        users.require_all("stays", 1)
        prying = users.slurm("run", "--user", "bob", "--", "cat", "/home/ada/own", check=False)
        assert prying.returncode == 1
        assert "Permission denied" in prying.stderr
        said = users.kubernetes("exec", "c1-0", "--", "cat", "/proc/self/status")
        # CHOWN, KILL, SETGID and SETUID: linux/capability.h.
        assert f"CapBnd:\t{1 << 0 | 1 << 5 | 1 << 6 | 1 << 7:016x}" in said
    finally:
        users.slurm("down", "--volumes", "--force", check=False)
        bare.cluster.kubectl("delete", "namespace", OTHER, check=False)


@pytest.mark.long
def test_nodes_come_for_jobs_and_go_when_they_are_idle(bare: Lab) -> None:
    lab = Lab(bare.cluster, bare.folder, "e2e-burst")

    def nodes() -> list[str]:
        node = ("--selector", "app.kubernetes.io/component=node")
        return lab.kubernetes("get", "pods", *node, "--output", "name").split()

    def states() -> list[str]:
        return sorted(each["state"] for each in lab.status()["nodes"])

    try:
        lab.slurm("up", "--nodes", "0-2", "--memory", "256Mi", "--idle", "10")
        assert lab.status()["automatic"] == {"least": 0, "most": 2, "idle_seconds": 10}
        assert lab.status()["healthy"]
        # What waits for something else than a node brings none, and what never fits is refused.
        lab.shell("sbatch", "--hold", "--wrap", "true")
        lab.shell("sbatch", "--begin", "now+1hour", "--wrap", "true")
        refused = lab.shell("sh", "-c", "sbatch --nodes 3 --wrap true 2>&1", check=False)
        assert "Requested node configuration is not available" in refused
        refused = lab.slurm("scale", "2", check=False)
        assert refused.returncode == ExitCode.USAGE
        assert "scales by itself" in refused.stderr
        assert nodes() == []
        lab.shell("scancel", "--user", "user")

        # From none to the most, and no further.
        lab.submit_tasks("burst", 6, 2)
        eventually("two have come", lambda: len(nodes()) == 2)
        lab.require_all("burst", 6)
        assert lab.kubernetes("get", "statefulsets", "--output", "name").split() == [
            "statefulset.apps/c1",
            "statefulset.apps/c2",
            "statefulset.apps/slurmctld",
        ]

        # One goes while the other has a job, which is longer than a node may be idle.
        lab.submit_tasks("long", 1, 60)
        eventually("one goes", lambda: states() in (["allocated", "idle%"], ["allocated", "idle~"]))
        assert lab.status()["healthy"]
        assert lab.status()["jobs"].get("running") == 1
        lab.require_all("long", 1)

        eventually("all are gone", lambda: states() == ["idle~", "idle~"] and not nodes())
        # And back, for a job of two nodes, of which each has its name.
        said = lab.slurm("run", "--", "-N", "2", "hostname").stdout.split()
        assert sorted(said) == ["c1-0", "c2-0"]
        # A pod that something else deletes comes back with its node.
        lab.kubernetes("delete", "pod", "c1-0")
        lab.submit_tasks("after", 2, 0)
        lab.require_all("after", 2)

        # Other limits, while a job runs.
        lab.submit_tasks("limits", 1, 45)
        eventually("it runs", lambda: lab.status()["jobs"].get("running") == 1)
        done = lab.slurm("scale", "0-3", "--output", "json")
        assert json.loads(done.stdout) == {"added": ["c3-0"], "removed": []}
        assert len(lab.slurm("run", "--", "-N", "2", "hostname").stdout.split()) == 2
        done = lab.slurm("scale", "1-2", "--output", "json")
        assert json.loads(done.stdout) == {"added": [], "removed": ["c3-0"]}
        assert len(states()) == 2
        lab.require_all("limits", 1)
        eventually("one stays", lambda: states() == ["idle", "idle~"])
    finally:
        lab.slurm("down", "--volumes", "--force", check=False)
    left = ("serviceaccounts", "roles", "rolebindings")
    assert "slurmctld" not in lab.cluster.kubectl("get", ",".join(left), "--all-namespaces")


def half_of_a_node(cluster: TestCluster) -> str:
    """Memory of which a node of Kubernetes has room for one, and not for two."""
    nodes = cluster.get("nodes")["items"]
    least = min(quantity(each["status"]["allocatable"]["memory"]) for each in nodes)
    return f"{least * 0.55 / 2**20:.0f}Mi"


@contextmanager
def filled(cluster: TestCluster, memory: str, *nodes: str) -> Iterator[list[str]]:
    """Pods that ask for memory on nodes, and take none of it: their names."""
    pods = [
        manifests.pod(f"filler-{node}", cluster.image, f"{cluster.name}-{node}", ["sleep", "3600"],
                      resources={"requests": {"memory": memory}})
        for node in nodes
    ]  # fmt: skip
    cluster.apply(*pods)
    names = [f"pod/{each['metadata']['name']}" for each in pods]
    try:
        yield names
    finally:
        cluster.kubectl("delete", "--ignore-not-found", *names)


@pytest.mark.long
def test_nodes_without_room_are_said_to_wait_for_it_and_no_job_is_lost(bare: Lab) -> None:
    lab = Lab(bare.cluster, bare.folder, "e2e-room")
    memory = half_of_a_node(bare.cluster)

    def require_one_waits(refused: Any) -> str:
        assert refused.returncode == ExitCode.NO_ROOM, refused.stderr
        assert refused.stderr.count("error: ") == 1
        assert "no room for 1 of the 2 nodes of the Slurm cluster e2e-room" in refused.stderr
        found = lab.status()
        (waiting,) = found["unscheduled"]
        assert "Insufficient memory" in waiting["reason"]
        assert f"{waiting['pod']} is Pending: {waiting['reason']}" in refused.stderr
        shown = lab.slurm("status", check=False)
        assert shown.returncode == ExitCode.DEGRADED
        assert f"{waiting['pod']}     waits for room: {waiting['reason']}" in shown.stdout
        return str(waiting["pod"])

    try:
        with filled(bare.cluster, memory, "node1") as fillers:
            wanted = ("up", "--nodes", "2", "--memory", memory)
            waiting = require_one_waits(lab.slurm(*wanted, check=False))
            # The other takes jobs, and what waits goes before it.
            script = lab.script("room.sh", _UNTIL_GO)
            lab.slurm("submit", str(script), "--output=room-1.out")
            eventually("it runs", lambda: lab.status()["jobs"].get("running") == 1)
            done = lab.slurm("scale", "1", "--output", "json")
            assert json.loads(done.stdout)["removed"] == [waiting]
            assert lab.status()["healthy"]
            require_one_waits(lab.slurm("scale", "2", check=False))
            assert lab.status()["jobs"].get("running") == 1
            lab.cluster.kubectl("delete", *fillers)
            eventually("it has come", lambda: lab.status()["healthy"])
        assert lab.slurm(*wanted).returncode == ExitCode.OK
        lab.shell("touch", "go")
        assert len(lab.slurm("run", "--", "-N", "2", "hostname").stdout.split()) == 2
        lab.require_all("room", 1)
    finally:
        lab.slurm("down", "--volumes", "--force", check=False)


@pytest.mark.long
def test_a_node_that_comes_by_itself_and_finds_no_room_is_given_up_and_its_job_is_not(
    bare: Lab,
) -> None:
    lab = Lab(bare.cluster, bare.folder, "e2e-tight")
    memory = half_of_a_node(bare.cluster)

    def state() -> str:
        return " ".join(each["state"] for each in lab.status()["nodes"])

    try:
        with filled(bare.cluster, memory, "master", "node1") as fillers:
            lab.slurm("up", "--nodes", "0-2", "--memory", memory, "--idle", "10")
            # Five minutes would be long for a test.
            conf = json.loads(lab.kubernetes("get", "configmap", "slurm", "--output", "json"))
            text = conf["data"]["slurm.conf"]
            assert "ResumeTimeout=300" in text
            conf["data"]["slurm.conf"] = text.replace("ResumeTimeout=300", "ResumeTimeout=40")
            lab.cluster.apply(conf)
            lab.kubernetes("delete", "pod", "slurmctld-0")
            eventually("it takes jobs", lambda: lab.status()["healthy"])
            lab.submit_tasks("tight", 1, 1)
            with ThreadPoolExecutor() as pool:
                interactive = pool.submit(lab.slurm, "run", "--", "hostname", check=False)
                eventually("nodes are to come", lambda: len(lab.status()["unscheduled"]) == 2)
                found = lab.status()
                assert found["healthy"]
                assert [each["pod"] for each in found["unscheduled"]] == ["c1-0", "c2-0"]
                eventually("they are given up", lambda: state() == "down~ down~", 180)
                # Nobody could see it run later.
                assert interactive.result().returncode != 0
            found = lab.status()
            assert not found["healthy"]
            assert "Insufficient memory" in found["problem"]
            assert found["jobs"].get("pending") == 1
            lab.cluster.kubectl("delete", *fillers)
            eventually("they have come", lambda: lab.status()["healthy"], 180)
            lab.require_all("tight", 1)
        eventually("they go as any other", lambda: state() == "idle~ idle~")
    finally:
        lab.slurm("down", "--volumes", "--force", check=False)


@pytest.mark.long
def test_the_job_of_a_kubernetes_node_that_is_lost_is_run_by_another(bare: Lab) -> None:
    lab, name = Lab(bare.cluster, bare.folder, "e2e-lost"), bare.cluster.name
    # Slurm's daemons stay, and who tells their addresses.
    bare.cluster.kubectl("cordon", f"{name}-node1")
    try:
        dns = ("delete", "pod", "--selector", "k8s-app=kube-dns")
        bare.cluster.kubectl("--namespace", "kube-system", *dns)
        lab.slurm("up", "--nodes", "1", "--memory", "256Mi")
    finally:
        bare.cluster.kubectl("uncordon", f"{name}-node1")
    try:
        lab.slurm("scale", "2")
        on = {each["name"]: each["on"] for each in lab.status()["nodes"]}
        assert on == {"c1-0": f"{name}-master", "c2-0": f"{name}-node1"}
        script = lab.script("lost.sh", f"{_UNTIL_GO}hostname\n")
        lab.slurm("submit", str(script), "--array=1-2", "--output=lost.out", "--open-mode=append")
        eventually("both run", lambda: lab.status()["jobs"].get("running") == 2)
        instances = lookup.load(Host(), name, Ui(quiet=True)).engine.instances()
        os.kill(instances[f"{name}-node1"].pid, signal.SIGKILL)
        eventually("one is queued again", lambda: lab.status()["jobs"].get("pending") == 1, 180)
        assert lab.status()["jobs"].get("running") == 1
        lab.shell("touch", "go")
        lab.wait_until_idle()
        said = lab.shell("sort", "lost.out").split()
        assert said == ["begun"] * 3 + ["c1-0"] * 2 + ["ended"] * 2
        lab.cluster.sykube("start", "--name", name, timeout=600)
        eventually("its node is back", lambda: lab.status()["healthy"], 180)
        assert len(lab.slurm("run", "--", "-N", "2", "hostname").stdout.split()) == 2
    finally:
        lab.cluster.sykube("start", "--name", name, timeout=600)
        lab.slurm("down", "--volumes", "--force", check=False)


@pytest.mark.long
def test_with_munge_a_pod_that_is_deleted_lets_its_job_end(bare: Lab) -> None:
    lab = Lab(bare.cluster, bare.folder, "e2e-munge")
    try:
        lab.slurm("up", "--nodes", "1", "--memory", "256Mi", "--users", "many", "--auth", "munge")
        assert "AuthType                = auth/munge" in lab.shell("scontrol", "show", "config")
        assert lab.slurm("run", "--", "id", "-un").stdout == "user\n"
        seen = lab.kubernetes(
            "exec", "c1-0", "--container", "slurmd", "--", "ls", "/etc", "/run/munge"
        )
        assert "slurm-key" not in seen
        assert "munge.socket.2" in seen
        lab.submit_tasks("munge", 1, 5)
        eventually("it runs", lambda: lab.status()["jobs"].get("running") == 1)
        # Without munged, slurmd's hook could ask nothing, and the job would be queued again.
        lab.kubernetes("delete", "pod", "c1-0")
        lab.require_all("munge", 1)
        eventually("its node takes jobs again", lambda: lab.status()["healthy"])
    finally:
        lab.slurm("down", "--volumes", "--force", check=False)


# In C++ and in Fortran: each rank says which of how many it is.
_HELLO_CC = """#include <iostream>
#include <mpi.h>
int main(int count, char **words) {
    int rank, size;
    MPI_Init(&count, &words);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    std::cout << rank << " of " << size << std::endl;
    MPI_Finalize();
}
"""
_HELLO_F90 = """use mpi
integer rank, ranks, error
call MPI_Init(error)
call MPI_Comm_rank(MPI_COMM_WORLD, rank, error)
call MPI_Comm_size(MPI_COMM_WORLD, ranks, error)
print "(I0, A, I0)", rank, " of ", ranks
call MPI_Finalize(error)
end
"""
_MAKEFILE = """all: ring hello-cc hello-f90
ring: ring.c
\tmpicc -O2 -o $@ $<
hello-cc: hello.cc
\tmpicxx -O2 -o $@ $<
hello-f90: hello.f90
\tmpifort -O2 -o $@ $<
"""


@pytest.mark.long
def test_what_users_compile_in_the_login_pod_runs_on_nodes_that_have_no_compiler(
    bare: Lab,
) -> None:
    lab = Lab(bare.cluster, bare.folder, "e2e-compile")
    wanted = ("up", "--nodes", "2", "--memory", "256Mi")

    def images(component: str) -> set[str]:
        chosen = ("--selector", f"app.kubernetes.io/component={component}")
        found = json.loads(lab.kubernetes("get", "pods", *chosen, "--output", "json"))
        return {each["image"] for pod in found["items"] for each in pod["spec"]["containers"]}

    try:
        lab.slurm(*wanted)
        assert lab.shell("sh", "-c", "command -v gcc mpicc || true") == ""
        (plain,) = images("login")
        script = lab.script("compile.sh", _UNTIL_GO)
        lab.slurm("submit", str(script), "--output=compile-1.out")
        eventually("it runs", lambda: lab.status()["jobs"].get("running") == 1)
        lab.slurm(*wanted, "--compilers")
        assert lab.status()["jobs"].get("running") == 1
        assert lab.slurm(*wanted, "--compilers").returncode == 0
        assert images("node") == images("controller") == {plain}
        assert len(images("login")) == 2
        assert lab.shell("srun", "--version") == lab.slurm("run", "--", "srun", "--version").stdout
        for name, text in {
            "ring.c": _BUILD.with_name("ring.c").read_text().replace('"openmpi.h"', "<mpi.h>"),
            "hello.cc": _HELLO_CC,
            "hello.f90": _HELLO_F90,
            "Makefile": _MAKEFILE,
        }.items():
            lab.slurm("shell", "--", "sh", "-c", f"cat > {name}", stdin=text)
        lab.shell("make")
        lab.shell("touch", "go")
        lab.require_all("compile", 1)
        for name in ("hello-cc", "hello-f90"):
            said = lab.slurm("run", "--", "-N", "2", f"./{name}").stdout.splitlines()
            assert sorted(said) == ["0 of 2", "1 of 2"]
        said = lab.slurm("run", "--", "-N", "2", "./ring").stdout.splitlines()
        assert {line.split()[5] for line in said} == {"c1-0:", "c2-0:"}
        assert lab.slurm("run", "--", "gcc", "--version", check=False).returncode != 0
    finally:
        lab.slurm("down", "--volumes", "--force", check=False)


# Each waits until the other is there, too, which has a CPU of the same pod.
_SIDE_BY_SIDE = """#!/bin/sh -e
touch {name}
until [ -e small ] && [ -e large ]; do sleep 0.2; done
{does}
echo ended
"""
# It takes 300 MB: perl copies what it makes.
_LARGE = "perl -e '$x = \"a\" x 150e6; sleep {seconds}'"
# Together they take 500 MB, and none of them as much as slurmstepd, which must be out of their cgroup
# by then.
_MANY = "sleep 2; for _ in $(seq 60); do perl -e '$x = \"a\" x 2e6; sleep 20' & done; wait"


@pytest.mark.long
def test_of_two_jobs_in_a_pod_the_one_over_its_memory_is_ended_and_nothing_else(bare: Lab) -> None:
    lab = Lab(bare.cluster, bare.folder, "e2e-confined")

    def submit(name: str, does: str) -> str:
        script = lab.script(f"{name}.sh", _SIDE_BY_SIDE.format(name=name, does=does))
        options = ("--mem=100", f"--output={name}.out")
        return str(lab.slurm("submit", str(script), *options).stdout.split()[-1])

    def state(job: str) -> str:
        said = lab.shell("scontrol", "--oneliner", "show", "job", job)
        return dict(word.split("=", 1) for word in said.split() if "=" in word)["JobState"]

    def require_untouched() -> None:
        assert lab.status()["healthy"]
        restarts = "jsonpath={.status.containerStatuses[0].restartCount}"
        assert lab.kubernetes("get", "pod", "c1-0", "--output", restarts) == "0"

    try:
        refused = lab.slurm("up", "--confine", "cgroup", check=False)
        assert refused.returncode == ExitCode.USAGE
        assert "--users many" in refused.stderr
        size = ("--nodes", "1", "--cpus", "2", "--memory", "512Mi")
        lab.slurm("up", *size, "--users", "many", "--confine", "cgroup")
        small = submit("small", "until [ -e go ]; do sleep 0.2; done")
        large = submit("large", _LARGE.format(seconds=600))
        eventually("it is ended", lambda: state(large) == "OUT_OF_MEMORY")
        assert state(small) == "RUNNING"
        require_untouched()
        # Beside it: nothing of what slurm-role had is left to slurmd and to jobs.
        status_ = lab.slurm("run", "--", "cat", "/proc/self/status").stdout
        assert "CapEff:\t0000000000000000" in status_
        assert "CapBnd:\t00000000000000e1" in status_
        assert "NoNewPrivs:\t1" in status_
        lab.slurm("run", "--", "test", "-k", "/tmp")
        # A command that is over its memory is ended as well, and not one that asks for enough.
        over = lab.slurm(
            "run", "--", "--mem=100", "sh", "-c", _LARGE.format(seconds=600), check=False
        )
        assert over.returncode != 0
        assert "oom" in over.stderr.lower()
        lab.slurm("run", "--", "--mem=340", "sh", "-c", _LARGE.format(seconds=1))
        many = submit("many", _MANY)
        eventually("it is ended", lambda: state(many) == "OUT_OF_MEMORY")
        assert state(small) == "RUNNING"
        lab.shell("touch", "go")
        lab.wait_until_idle()
        assert state(small) == "COMPLETED"
        assert lab.shell("cat", "small.out") == "ended\n"
        assert "ended" not in lab.shell("cat", "large.out")
        require_untouched()
    finally:
        lab.slurm("down", "--volumes", "--force", check=False)


_UNTIL_GO = """#!/bin/sh
echo begun
until [ -e go ]; do sleep 0.5; done
echo ended
"""
# A job that takes 2 s of a CPU in a step, and 2 s by itself, however busy the machine is.
_BUSY = """#!/bin/sh
busy='ulimit -t 2; while :; do :; done'
srun sh -c "$busy"
sh -c "$busy"
echo ended
"""


def took(lab: Lab) -> dict[str, sacct.Job]:
    """What a user finds of all jobs."""
    said = lab.shell(*sacct.COMMAND, "--duplicates", "--starttime=1970-01-01")
    return {each.id: each for each in sacct.read(said.splitlines(), "sacct")}


def kill_on_nodes(lab: Lab, program: str) -> None:
    """Kill it in whatever container it is PID 1."""
    for node in lab.cluster.get("nodes")["items"]:
        name = node["metadata"]["name"].removeprefix(f"{lab.cluster.name}-")
        words = ("exec", "--name", lab.cluster.name, name, "pkill", "-KILL", "-x", program)
        lab.cluster.sykube(*words, check=False)


@pytest.mark.parametrize(
    ("auth", "users"), [("slurm", "one"), ("munge", "one"), ("none", "one"), ("munge", "many")]
)
@pytest.mark.long
def test_what_jobs_took_is_kept_whatever_is_killed(bare: Lab, auth: str, users: str) -> None:
    lab = Lab(bare.cluster, bare.folder, f"e2e-accounts-{auth}-{users}")
    wanted = ("up", "--nodes", "1", "--memory", "256Mi", "--auth", auth, "--users", users)
    ids: list[str] = []

    def submit() -> None:
        script = lab.script("busy.sh", _BUSY)
        said = lab.slurm("submit", str(script), "--output=busy.out").stdout
        ids.append(said.split()[-1])

    def require_all_kept() -> None:
        eventually("it has ended", lambda: not lab.shell("squeue", "--noheader"), 180)
        eventually("it is kept", lambda: {*ids} <= {i for i, j in took(lab).items() if j.finished})
        found = took(lab)
        assert all(3 < found[each].cpu_s < 6 for each in ids), found

    try:
        lab.slurm(*wanted)
        assert "--accounting" in lab.slurm("efficiency", check=False).stderr
        before = lab.script("before.sh", _UNTIL_GO)
        lab.slurm("submit", str(before), "--output=before.out")
        eventually("it runs", lambda: lab.status()["jobs"].get("running") == 1)
        lab.slurm(*wanted, "--accounting")
        assert lab.status()["accounting"]
        # It ran on meanwhile.
        assert lab.status()["jobs"].get("running") == 1
        lab.shell("touch", "go")
        lab.wait_until_idle()
        assert lab.shell("cat", "before.out") == "begun\nended\n"
        submit()
        require_all_kept()
        kill_on_nodes(lab, "mariadbd")
        submit()
        require_all_kept()
        kill_on_nodes(lab, "slurmdbd")
        submit()
        require_all_kept()
        lab.kubernetes("delete", "pod", "slurmdbd-0", "--grace-period=0", "--force")
        lab.kubernetes("delete", "pod", "slurmctld-0", "--grace-period=0", "--force")
        eventually("both are back", lambda: not lab.status()["problem"], 180)
        submit()
        require_all_kept()
        (shown,) = json.loads(lab.slurm("efficiency", "--output", "json").stdout)
        assert {*ids} <= {each["job"] for each in shown["efficiencies"]}
        cluster = lab.shell("sacctmgr", "--noheader", "--parsable2", "list", "cluster")
        assert cluster.startswith(f"{lab.namespace}|")
        # It has figures of whole hours.
        assert "Cluster Utilization" in lab.shell("sreport", "cluster", "utilization")
        for program in ("slurmdbd", "mariadb"):
            said = lab.kubernetes(
                "exec", "slurmdbd-0", "--container", program, "--", "cat", "/proc/self/status"
            )
            assert "CapBnd:\t0000000000000000" in said
    finally:
        lab.slurm("down", "--volumes", "--force", check=False)


@pytest.mark.long
def test_the_rest_api_is_added_for_many_users_of_munge_and_its_jobs_are_kept(bare: Lab) -> None:
    lab = Lab(bare.cluster, bare.folder, "e2e-rest")
    users = ("--users", "many", "--user", "ada", "--user", "bob", "--auth", "munge")
    wanted = ("up", "--nodes", "1", "--memory", "256Mi", *users, "--accounting")
    try:
        lab.slurm(*wanted)
        lab.slurm("submit", str(lab.script("rest.sh", _UNTIL_GO)), "--output=before.out")
        eventually("it runs", lambda: lab.status()["jobs"].get("running") == 1)
        lab.slurm(*wanted, "--rest")
        assert lab.status()["jobs"].get("running") == 1
        lab.shell("touch", "go")
        lab.wait_until_idle()
        assert lab.shell("cat", "before.out") == "begun\nended\n"
        tokens = {
            user: lab.slurm("token", "--user", user).stdout.strip() for user in ("ada", "bob")
        }
        jobs = {user: submit_by_rest(lab, token, f"/home/{user}") for user, token in tokens.items()}
        lab.wait_until_idle()
        for user in jobs:
            assert lab.slurm("shell", "--user", user, "--", "cat", "rest.out").stdout == f"{user}\n"
        kept = {f"{job}|{user}" for user, job in jobs.items()}
        words = ("sacct", "--allusers", "--allocations", "--parsable2", "--format=JobID,User")
        eventually("they are kept", lambda: kept <= {*lab.shell(*words).splitlines()})
    finally:
        lab.slurm("down", "--volumes", "--force", check=False)


@pytest.mark.long
def test_what_jobs_took_is_there_after_a_stop_and_for_the_next_slurm_cluster(
    bare: Lab, tmp_path: Path
) -> None:
    lab = Lab(bare.cluster, bare.folder, "e2e-accounts")
    wanted = ("up", "--nodes", "1", "--memory", "256Mi", "--accounting")
    name = ("--name", bare.cluster.name)
    try:
        lab.slurm(*wanted)
        lab.submit_tasks("stop", 3, 2)
        lab.wait_until_idle()
        eventually("they are kept", lambda: len(took(lab)) == 3)
        before = took(lab)
        lab.cluster.sykube("stop", *name)
        lab.cluster.sykube("start", *name, timeout=600)
        eventually("it takes jobs", lambda: not lab.status()["problem"], 300)
        assert took(lab) == before
        lab.slurm("down")
        lab.slurm(*wanted)
        assert took(lab) == before
        lab.submit_tasks("again", 1, 2)
        lab.wait_until_idle()
        eventually(
            "it is kept", lambda: len(lab.shell("sacct", "-nXD", "-S1970-01-01").splitlines()) == 4
        )
        (shown,) = json.loads(lab.slurm("efficiency", "--output", "json").stdout)
        assert shown["jobs"] == 4
        with slurm_page(lab.cluster, tmp_path) as page:
            figures = [
                f"{shown[f'{each}_percent']:.1f} %" for each in ("average", "median", "overall")
            ]
            eventually(
                "the page has the same",
                lambda: texts(page, ".slurm .tile dd:not(.more)") == figures,
            )
            assert page.find_elements(By.CSS_SELECTOR, "circle.job")
            shot(page, "slurm-efficiency")
    finally:
        lab.slurm("down", "--volumes", "--force", check=False)


# What a pod of another namespace prints of a port: whether it is let in.
_KNOCK = """
import socket
try:
    socket.create_connection(("{address}", {port}), 3)
    print("open")
except OSError:
    print("closed")
"""


@pytest.mark.long
def test_no_authentication_is_for_a_namespace_that_no_other_one_reaches(bare: Lab) -> None:
    lab = Lab(bare.cluster, bare.folder, "e2e-none")
    name = ("--name", bare.cluster.name)
    wanted = ("up", "--nodes", "1", "--memory", "256Mi", "--auth", "none")

    def knock(pod: str, port: int) -> str:
        address = lab.kubernetes("get", "pod", pod, "--output", "jsonpath={.status.podIP}")
        command = ("python3", "-c", _KNOCK.format(address=address, port=port))
        words = ("--namespace", "kube-system", "exec", "deployment/metrics", "--", *command)
        return lab.cluster.kubectl(*words).strip()

    lab.cluster.sykube("addons", "disable", "network-policy", *name)
    try:
        refused = lab.slurm(*wanted, check=False)
    finally:
        lab.cluster.sykube("addons", "enable", "network-policy", *name)
    assert refused.returncode == ExitCode.USAGE, refused.stderr
    assert refused.stderr.count("error: ") == 1
    assert "other namespaces reach the slurmctld of e2e-none" in refused.stderr
    assert "e2e-none" not in lab.cluster.kubectl("get", "namespaces")
    try:
        lab.slurm(*wanted)
        assert "AuthType                = auth/none" in lab.shell("scontrol", "show", "config")
        assert lab.slurm("run", "--", "hostname").stdout == "c1-0\n"
        assert (knock("slurmctld-0", 6817), knock("c1-0", 6818)) == ("closed", "closed")
        lab.kubernetes("delete", "networkpolicy", "slurm")
        # So it was the policy.
        eventually("it is open", lambda: knock("slurmctld-0", 6817) == "open")
        # And no other pod is left that tried.
        assert "slurm-probe" not in lab.cluster.kubectl("--namespace", "default", "get", "pods")
    finally:
        lab.slurm("down", "--volumes", "--force", check=False)
