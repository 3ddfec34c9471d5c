"""The batch job that sykube runs in: what it was given, where its clusters are, when it ends."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sykube.cluster.commands import deadline
from sykube.cluster.commands.deadline import Deadline
from sykube.cluster.model.state import State, clusters
from sykube.cluster.operations import archive, nodes
from sykube.errors import ExitCode, HostError, SykubeError, UsageError
from sykube.host import granted, job, preflight
from sykube.host.job import Job
from sykube.host.run import CommandError, Completed
from sykube.rootless import folders, keeper, namespaces
from sykube.rootless.host import RootlessHost
from tests.fakes import FakeHost, World, fill
from tests.unit.helpers import Sykube, init
from tests.unit.test_snapshots import fake_tar

GIB = 1024**3
SLURM = {
    "SLURM_JOB_ID": "42",
    "SLURMD_NODENAME": "n1",
    "SLURM_CPUS_ON_NODE": "4",
    "SLURM_MEM_PER_NODE": "8192",
}
JOB = Job("Slurm", "42", 4000, 8 * GIB, Path("/tmp"))
MANY = range(64)
HERE = os.uname().nodename.partition(".")[0]


# --- what it was given ---


def tree(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        fill(path.parent, {path.name: text})


def test_a_job_of_slurm_is_known_by_what_slurmd_sets(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    found = job.of_this_process(FakeHost(tmp_path), SLURM | {"TMPDIR": str(scratch)}, MANY)
    assert found == Job("Slurm", "42", 4000, 8 * GIB, scratch)
    assert str(found) == "Slurm job 42: 4 CPUs, 8192 MiB"


def test_the_shell_of_salloc_on_a_login_node_is_in_no_job(tmp_path: Path) -> None:
    without = {name: value for name, value in SLURM.items() if name != "SLURMD_NODENAME"}
    assert job.of_this_process(FakeHost(tmp_path), without, MANY) is None
    assert job.of_this_process(FakeHost(tmp_path), {}, MANY) is None


def test_memory_for_each_cpu_is_counted_together(tmp_path: Path) -> None:
    environ = SLURM | {"SLURM_MEM_PER_CPU": "1024", "SLURM_MEM_PER_NODE": ""}
    found = job.of_this_process(FakeHost(tmp_path), environ, MANY)
    assert found is not None
    assert found.memory == 4 * GIB


def test_a_job_of_pbs_is_known_and_its_name_can_be_a_files(tmp_path: Path) -> None:
    environ = {"PBS_JOBID": "7[3].server", "PBS_ENVIRONMENT": "PBS_BATCH", "NCPUS": "2"}
    found = job.of_this_process(FakeHost(tmp_path), environ, MANY)
    assert found == Job("PBS", "7-3-.server", 2000, 0, tmp_path / "tmp")


def test_the_processors_that_it_may_use_count_where_they_are_fewer(tmp_path: Path) -> None:
    found = job.of_this_process(FakeHost(tmp_path), SLURM, [0, 3])
    assert found is not None
    assert found.millicores == 2000


def test_the_limits_of_its_cgroups_count_where_they_are_lower(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/slurm/job_42/step_0\n3:cpu,cpuacct:/slurm\n0::/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/slurm/job_42/memory.limit_in_bytes": f"{2 * GIB}\n",
            "sys/fs/cgroup/memory/slurm/job_42/step_0/memory.limit_in_bytes": f"{4 * GIB}\n",
            "sys/fs/cgroup/cpu,cpuacct/slurm/cpu.cfs_quota_us": "150000\n",
            "sys/fs/cgroup/cpu,cpuacct/slurm/cpu.cfs_period_us": "100000\n",
        },
    )
    found = job.of_this_process(FakeHost(tmp_path), SLURM, MANY)
    assert found is not None
    assert (found.memory, found.millicores) == (2 * GIB, 1500)


def test_the_limits_of_cgroup_v2_count_as_well(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/system.slice/slurmstepd.scope/job_42/step_0\n",
            "sys/fs/cgroup/system.slice/slurmstepd.scope/job_42/memory.max": f"{GIB}\n",
            "sys/fs/cgroup/system.slice/slurmstepd.scope/job_42/step_0/memory.max": "max\n",
            "sys/fs/cgroup/system.slice/slurmstepd.scope/job_42/cpu.max": "50000 100000\n",
            "sys/fs/cgroup/system.slice/cpu.max": "max 100000\n",
        },
    )
    found = job.of_this_process(FakeHost(tmp_path), SLURM, MANY)
    assert found is not None
    assert (found.memory, found.millicores) == (GIB, 500)


def test_a_folder_for_temporary_files_that_is_not_there_is_not_used(tmp_path: Path) -> None:
    for named in (str(tmp_path / "absent"), "relative", ""):
        found = job.of_this_process(FakeHost(tmp_path), SLURM | {"TMPDIR": named}, MANY)
        assert found is not None
        assert found.scratch == tmp_path / "tmp"


# --- when it ends ---


@pytest.fixture
def squeue(tmp_path: Path) -> dict[str, str]:
    """Variables by whose PATH there is a squeue."""
    fill(tmp_path / "bin", {"squeue": "#!/bin/sh\n"})
    (tmp_path / "bin/squeue").chmod(0o755)
    return {"PATH": str(tmp_path / "bin"), "SLURM_CONF": "/etc/own.conf"}


def answering(text: str) -> Callable[..., Completed]:
    def run(argv: Sequence[str | Path], **options: Any) -> Completed:
        assert [Path(argv[0]).name, *argv[1:]] == ["squeue", "-h", "-j", "42", "-o", "%e"]
        assert options["env"] == {"SLURM_TIME_FORMAT": "%s", "SLURM_CONF": "/etc/own.conf"}
        return Completed((), 0, text, "")

    return run


def test_slurm_is_asked_when_it_ends(tmp_path: Path, squeue: dict[str, str]) -> None:
    found = job.asked(FakeHost(tmp_path, answering("1795949654\n")), JOB, squeue)
    assert found == replace(JOB, end=1795949654.0, unknown="")
    assert found.until.startswith("until 20")


def test_an_end_that_nobody_knows_is_told_with_the_reason(
    tmp_path: Path, squeue: dict[str, str]
) -> None:
    def fails(argv: Sequence[str | Path], **_: Any) -> Completed:
        raise CommandError("squeue did not end within 10 s", list(map(str, argv)), "")

    for host, environ, why in (
        (FakeHost(tmp_path, answering("NONE\n")), squeue, "squeue says NONE"),
        (FakeHost(tmp_path, fails), squeue, "squeue did not end within 10 s"),
        (FakeHost(tmp_path), {"PATH": "/nowhere"}, "no squeue"),
    ):
        found = job.asked(host, JOB, environ)
        assert not found.end
        assert why in found.until
        told = job.asked(host, JOB, environ | {"SLURM_JOB_END_TIME": "1795949654"})
        assert (told.end, told.unknown) == (1795949654.0, "")


# As in openpbs issue 2541: a job is told by lines, and what is too long for one goes on in the next.
QSTAT = """Job Id: 7[3].server
    Job_Name = work
    resources_used.walltime = 00:00:10
    ctime = Fri Jul  1 14:42:57 2022
    Resource_List.ncpus = 1
    Resource_List.walltime = {walltime}
    {started}
    Variable_List = PBS_O_HOME=/home/ann,BASH_FUNC_module%%=() {{  eval
	`/usr/bin/modulecmd "$*"`{{}}
\tstime = Fri Jul  1 00:00:00 2022
"""
STARTED = "stime = Fri Jul  1 14:43:07 2022"
BEGIN = time.mktime((2022, 7, 1, 14, 43, 7, 0, 0, -1))


@pytest.fixture
def qstat(tmp_path: Path) -> dict[str, str]:
    """The variables of a job of PBS by whose PATH there is a qstat."""
    fill(tmp_path / "bin", {"qstat": "#!/bin/sh\n"})
    (tmp_path / "bin/qstat").chmod(0o755)
    return {"PATH": str(tmp_path / "bin"), "PBS_JOBID": "7[3].server", "PBS_DEFAULT": "server"}


def telling(walltime: str, started: str = STARTED) -> Callable[..., Completed]:
    def run(argv: Sequence[str | Path], **options: Any) -> Completed:
        assert [Path(argv[0]).name, *argv[1:]] == ["qstat", "-f", "7[3].server"]
        assert options["env"]["PBS_DEFAULT"] == "server"
        text = QSTAT.format(walltime=walltime, started=started)
        return Completed((), 0, text, "")

    return run


PBS_JOB = replace(JOB, scheduler="PBS", id="7-3-.server")


@pytest.mark.parametrize(
    ("walltime", "seconds"), [("01:00:00", 3600), ("100:00:05", 360005), ("05:30", 330), ("90", 90)]
)
def test_pbs_is_asked_when_it_ends(
    tmp_path: Path, qstat: dict[str, str], walltime: str, seconds: int
) -> None:
    found = job.asked(FakeHost(tmp_path, telling(walltime)), PBS_JOB, qstat)
    assert found == replace(PBS_JOB, end=BEGIN + seconds, unknown="")


def test_an_end_that_pbs_does_not_know_is_told_with_the_reason(
    tmp_path: Path, qstat: dict[str, str]
) -> None:
    for walltime, started, why in (
        ("", STARTED, "qstat says stime Fri Jul  1 14:43:07 2022 and walltime (none)"),
        ("01:00:00", "", "qstat says stime (none) and walltime 01:00:00"),
        ("soon", STARTED, "walltime soon"),
    ):
        host = FakeHost(tmp_path, telling(walltime, started))
        assert job.asked(host, PBS_JOB, qstat).until.endswith(why)
    nowhere = job.asked(FakeHost(tmp_path), PBS_JOB, qstat | {"PATH": "/nowhere"})
    assert nowhere.unknown == "there is no qstat here to ask PBS by"


# --- where its clusters are ---


def rootless(root: Path, batch: Job | None) -> RootlessHost:
    found = folders.of_user(1000, root / "home", {}, root, batch)
    grants = replace(FakeHost(root).grants, rootless=True, cgroups=False, uid=1000, job=batch)
    return RootlessHost(root, folders=found, grants=grants)


@pytest.fixture
def batch(tmp_path: Path) -> Job:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "scratch").mkdir()
    return replace(JOB, scratch=tmp_path / "scratch")


def test_clusters_are_the_jobs_and_images_logs_and_snapshots_the_users(
    tmp_path: Path, batch: Job
) -> None:
    host, home = rootless(tmp_path, batch), tmp_path / "home"
    assert host.data == tmp_path / f"scratch/sykube-1000-job-42-{HERE}-data"
    assert host.folders.runtime == tmp_path / "tmp/sykube-1000-job-42"
    assert host.snapshots == home / ".local/share/sykube/snapshots"
    assert host.logs == home / ".local/state/sykube"
    assert rootless(tmp_path, None).snapshots == host.snapshots
    fill(home / ".local/share/sykube/lab", {"state.json": "{}"})
    assert clusters(host) == []


def test_a_job_leaves_its_cgroup_for_none_that_its_user_has(tmp_path: Path, batch: Job) -> None:
    fill(tmp_path / "sys/fs/cgroup/cpu", {"tasks": ""})
    fill(tmp_path / "sys/fs/cgroup/cpu/sykube-65534", {"cgroup.procs": ""})
    assert rootless(tmp_path, None).granted_cgroups()
    assert rootless(tmp_path, batch).granted_cgroups() == []


def test_what_a_job_left_that_was_killed_is_taken_by_the_next_command(
    tmp_path: Path, batch: Job
) -> None:
    for name in (
        f"scratch/sykube-1000-job-41-{HERE}-data", f"scratch/sykube-1000-job-42-{HERE}-data",
        f"tmp/sykube-1000-job-40-{HERE}-data", f"tmp/sykube-1000-job-39-{HERE}-data.gone",
        f"tmp/sykube-1001-job-38-{HERE}-data", "scratch/sykube-1000-job-37-another-data",
    ):  # fmt: skip
        fill(tmp_path / name / "lab", {"state.json": "{}"})
    (tmp_path / "tmp/sykube-1000-job-41").mkdir(mode=0o700)
    left = keeper.take_left(rootless(tmp_path, batch))
    assert sorted(each.name for each in left) == [
        f"sykube-1000-job-{number}-{HERE}-data.gone" for number in (39, 40, 41)
    ]
    keeper.remove(left)
    there = [each.name for each in (*(tmp_path / "tmp").iterdir(), *batch.scratch.iterdir())]
    # The present one's, another user's, and another host's.
    assert sorted(there) == [
        "sykube-1000-job-37-another-data",
        f"sykube-1000-job-42-{HERE}-data",
        f"sykube-1001-job-38-{HERE}-data",
    ]


def test_what_another_job_uses_is_left_alone(
    tmp_path: Path, batch: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, other = rootless(tmp_path, batch), rootless(tmp_path, replace(batch, id="41"))
    fill(other.data / "lab", {"state.json": "{}"})
    with namespaces.locked(other, fcntl.LOCK_EX):
        assert keeper.take_left(host) == []
    with (other.data / ".keeper").open("w", encoding="utf-8") as kept:
        fcntl.flock(kept, fcntl.LOCK_EX)
        assert keeper.take_left(host) == []
    monkeypatch.setattr(namespaces, "present", lambda _host: namespaces.Namespaces(7, "1"))
    assert keeper.take_left(host) == []
    assert clusters(other) == ["lab"]


@pytest.mark.parametrize(("parents", "leader"), [
    ({9: (8, 1000, "sh"), 8: (7, 1000, "bash"), 7: (1, 0, "slurmstepd")}, 8),
    ({9: (7, 1000, "sh"), 7: (1, 1000, "slurmstepd")}, 9),
    ({9: (1, 1000, "sh"), 1: (0, 1000, "init")}, 9),
])  # fmt: skip
def test_the_job_is_over_with_its_users_first_process(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    parents: dict[int, tuple[int, int, str]],
    leader: int,
) -> None:
    owners = {str(tmp_path / f"proc/{pid}"): uid for pid, (_, uid, _) in parents.items()}
    for pid, (parent, _, name) in parents.items():
        stat = f"{pid} ({name}) S {parent} " + "0 " * 20
        fill(tmp_path / f"proc/{pid}", {"stat": stat, "comm": f"{name}\n"})
    real = Path.stat

    class Owned:
        def __init__(self, uid: int) -> None:
            self.st_uid = uid

    def stat_of(path: Path, **options: Any) -> Any:
        return Owned(owners[str(path)]) if str(path) in owners else real(path, **options)

    monkeypatch.setattr(Path, "stat", stat_of)
    assert keeper.leader_of(rootless(tmp_path, JOB), 9) == leader


# --- what its clusters have ---


def in_job(world: World, batch: Job = JOB) -> None:
    world.host = replace(world.host, grants=replace(world.host.grants, job=batch))


def node_variables(world: World) -> dict[str, str]:
    cluster = init(world)
    assert cluster is not None
    nodes.prepare(cluster, cluster.master)
    file = next(world.root.rglob("*master*/**/node.env"))
    return dict(line.split("=", 1) for line in file.read_text().splitlines() if "=" in line)


def test_nodes_announce_what_the_job_was_given(world: World) -> None:
    in_job(world)
    found = node_variables(world)
    assert found["SYKUBE_MILLICORES"] == "4000"
    assert found["SYKUBE_MEMORY"] == str(8 * GIB)


def test_doctor_and_the_memory_for_nodes_know_the_job(tmp_path: Path) -> None:
    host = rootless(tmp_path, replace(JOB, memory=GIB, end=1795949654.0))
    assert "in Slurm job 42" in granted.tier(host)
    fill(tmp_path / "proc", {"meminfo": "MemAvailable: 99999999 kB\n"})
    found = preflight.check_for_workers(host, 4, tmp_path)[0]
    assert found.detail.startswith("1024 MB available")


# --- --stop-before ---


NOW = 1_000_000.0


def at_noon(world: World, end: float = NOW + 600) -> dict[str, Any]:
    """Let the world's host be in a job, at that time; what a command's host has to have, too."""
    world.programs.answers["tar"] = fake_tar
    in_job(world, replace(JOB, end=end))
    world.host = replace(world.host, time=lambda: NOW + world.slept)
    return {"grants": world.host.grants, "time": world.host.time}


@pytest.mark.parametrize(
    ("text", "seconds"), [("5m", 300), ("90s", 90), ("60", 60)], ids=["minutes", "seconds", "bare"]
)
def test_a_cluster_stops_so_long_before_the_end(world: World, text: str, seconds: int) -> None:
    at_noon(world)
    assert deadline.before_end(world.host, text, "") == Deadline(NOW + 600 - seconds)
    assert deadline.before_end(world.host, "", "") == Deadline()


def test_what_cannot_be_is_refused_with_the_reason(world: World) -> None:
    with pytest.raises(UsageError, match="this is none that sykube knows"):
        deadline.before_end(world.host, "5m", "")
    in_job(world, replace(JOB, unknown="there is no qstat here to ask PBS by"))
    with pytest.raises(HostError, match="there is no qstat"):
        deadline.before_end(world.host, "5m", "")
    at_noon(world)
    with pytest.raises(UsageError, match="'soon'"):
        deadline.before_end(world.host, "soon", "")
    with pytest.raises(HostError, match="in less than 1h"):
        deadline.before_end(world.host, "1h", "")


def test_init_lets_it_stop_in_time_and_be_saved(world: World, sykube: Sykube) -> None:
    changes = at_noon(world)
    words = ("--name", "fake", "--workers", "0", "--dns", "192.0.2.1")
    made = sykube("init", *words, "--stop-before", "5m", "--snapshot", "shot", **changes)
    assert made.code == 0, made.err
    shown = sykube("status", "--name", "fake", **changes).out
    assert "job: Slurm job 42" in shown
    assert f"stops by itself: {job.clock(NOW + 300)}" in shown
    (waiting,) = world.background
    waiting()
    assert world.slept >= 300
    assert sykube("status", "--name", "fake").code == ExitCode.STOPPED
    assert sykube("snapshot", "list").out.startswith("shot")


def test_another_cluster_of_its_name_is_not_stopped(world: World) -> None:
    at_noon(world)
    cluster = init(world)
    assert cluster is not None
    deadline.keep(world.host, "fake", Deadline(NOW + 300), world.ui())
    (waiting,) = world.background
    state = State.load(cluster.paths.state)
    assert state is not None
    state.stop_at = 0.0
    state.save(cluster.paths.state)
    waiting()
    assert len(cluster.running()) == len(cluster.nodes)


def test_a_snapshot_without_a_time_is_refused_and_one_that_is_there(
    world: World, sykube: Sykube
) -> None:
    at_noon(world)
    done = sykube("init", "--name", "fake", "--snapshot", "shot")
    assert done.code == ExitCode.USAGE
    assert "sykube snapshot save shot" in done.err
    (world.host.snapshots / "shot").mkdir(parents=True)
    with pytest.raises(SykubeError, match="there is a snapshot 'shot'"):
        deadline.before_end(world.host, "5m", "shot")


def test_the_command_of_run_is_asked_to_end_in_time_and_the_cluster_saved(
    world: World, sykube: Sykube, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where a job's user has made no cluster outside of jobs.
    elsewhere = property(lambda host: host.root / "home/ada/.local/share/sykube/snapshots")
    monkeypatch.setattr(FakeHost, "snapshots", elsewhere)
    changes = at_noon(world)
    asked: list[float | None] = []

    def attached(*given: Any) -> int:
        asked.append(given[2])
        return 143

    world.programs.attached = attached
    words = ("--name", "fake", "--workers", "0", "--dns", "192.0.2.1")
    done = sykube("run", *words, "--stop-before", "5m", "--snapshot", "shot", "--", "sh", **changes)
    assert done.code == 143, done.err
    assert asked == [NOW + 300]
    assert clusters(world.host) == []
    assert sykube("snapshot", "list").out.startswith("shot")


@pytest.mark.parametrize("full", [False, True])
def test_a_cluster_that_cannot_be_saved_is_deleted(
    world: World, sykube: Sykube, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    def attached(*_: Any) -> int:
        if full:
            monkeypatch.setattr(archive, "create", full_disk)
        else:
            (world.host.snapshots / "shot").mkdir(parents=True)
        return 0

    world.programs.attached = attached
    done = sykube(
        "run", "--name", "fake", "--workers", "0", "--dns", "192.0.2.1", "--snapshot", "shot",
        "--", "sh",
    )  # fmt: skip
    assert done.code == 0
    assert "not saved as shot" in done.err
    assert ("No space left" in done.err) == full
    assert clusters(world.host) == []


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")
