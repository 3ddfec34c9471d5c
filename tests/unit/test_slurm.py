"""Slurm clusters in pods: their options and objects, and what scaling does to jobs."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sykube.cluster.commands.slurm import (
    image,
    isolation,
    jobs,
    removal,
    scaling,
    setup,
    status,
)
from sykube.cluster.commands.slurm.place import Place
from sykube.cluster.operations import debian_image
from sykube.errors import ExitCode, SykubeError, UsageError
from sykube.image import slurm as of_slurm
from sykube.slurm import manifests, users
from sykube.slurm.controller import SlurmNode
from sykube.slurm.spec import SlurmSpec
from tests.fakes import World
from tests.fakes.files import fill
from tests.fakes.slurm import FakeSlurm
from tests.unit.helpers import Sykube, made

ROLE = Path(__file__).resolve().parents[2] / "definitions/slurm/slurm-role"
ONE = SlurmSpec("slurm", "sykube.local/slurm:1")
MANY = dataclasses.replace(ONE, users="many", names=("ada", "bob"))
MUNGE = dataclasses.replace(ONE, auth="munge")
SIDECARS = dataclasses.replace(MUNGE, sidecars=True)
NONE = dataclasses.replace(ONE, auth="none")
CGROUP = dataclasses.replace(MANY, confine="cgroup", cpus=2, memory="512Mi")
ACCOUNTED = [
    dataclasses.replace(each, accounting=True)
    for each in (ONE, MUNGE, SIDECARS, NONE, dataclasses.replace(ONE, users="many"))
]
REST = [
    dataclasses.replace(each, rest=True)
    for each in (ONE, MANY, MUNGE, dataclasses.replace(ONE, accounting=True))
]
FOUR = dataclasses.replace(MANY, nodes=4)
Json = dict[str, Any]


# --- options ---


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"nodes": 0}, "0 nodes: there are 1 to 64"),
        ({"nodes": -1}, "-1 nodes"),
        ({"cpus": 0}, "--cpus 0"),
        ({"memory": "64Mi"}, "128Mi at least"),
        ({"memory": "much"}, "no quantity"),
        ({"names": ("ada", "bob")}, "--users many"),
        ({"names": ("root",)}, "a user of the image"),
        ({"names": ("munged",)}, "a user of the image"),
        ({"uids": (0,)}, "user has the number 0, which no user can have"),
        ({"uids": (64032,)}, "64032, which no user can have"),
        ({"users": "many", "names": ("ada", "bob"), "uids": (2000, 2000)}, "the same number"),
        ({"names": ("Ada",)}, "letters a to z"),
        ({"users": "many", "names": ("ada", "ada")}, "twice"),
        ({"namespace": "kube-system"}, "a namespace of its own"),
        ({"namespace": "a/b"}, "no name of a namespace"),
        ({"image": "Slurm:1"}, "--image"),
        ({"login_image": "Slurm:1"}, "--login-image"),
        ({"domain": "a b"}, "no domain"),
        ({"home_class": "a b"}, "no name of a StorageClass"),
        ({"runtime": "a b"}, "no name of a RuntimeClass"),
        ({"users": "many", "auth": "none"}, "--auth none: each user could be every other"),
        (
            {"confine": "cgroup"},
            "--confine cgroup: only root makes cgroups, so it is for --users many",
        ),
        ({"rest": True, "auth": "none"}, "--auth none: no token is needed"),
        ({"uids": (64033,)}, "64033, which no user can have"),
    ],
)
def test_what_a_slurm_cluster_cannot_be_is_refused_in_one_line(changed: Json, why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        dataclasses.replace(ONE, **changed).check()
    assert "\n" not in caught.value.brief


def test_its_record_is_read_as_it_was_written_and_by_others() -> None:
    assert SlurmSpec.from_json(MANY.to_json()) == MANY
    later = MANY.to_json().replace("{", '{"of_later": 1, ', 1)
    assert SlurmSpec.from_json(later) == MANY
    before = ONE.to_json().replace('"auth": "slurm", ', "").replace(', "sidecars": false', "")
    before = before.replace('"uids": [], ', "").replace('"accounting": false, ', "")
    numbered = dataclasses.replace(MANY, uids=(2001, 2000))
    assert SlurmSpec.from_json(numbered.to_json()) == numbered
    assert not {"auth", "sidecars", "uids", "accounting"} & {*json.loads(before)}
    assert SlurmSpec.from_json(before) == ONE


# --- objects ---


def made_of(spec: SlurmSpec, kind: str) -> list[Json]:
    """The objects of a Slurm cluster that are of that kind."""
    found = yaml.safe_load_all(manifests.whole_text(spec, "QQ=="))
    return [each for each in found if each["kind"] == kind]


def secret(spec: SlurmSpec) -> Json:
    (found,) = made_of(spec, "Secret")
    return found


def pods(spec: SlurmSpec) -> dict[str, Json]:
    """The pods of a Slurm cluster, by the names of what makes them."""
    documents = yaml.safe_load_all(manifests.whole_text(spec, "QQ=="))
    return {
        each["metadata"]["name"]: each["spec"]["template"]["spec"]
        for each in documents
        if each["kind"] in ("Deployment", "StatefulSet")
    }


def containers(pod: Json) -> list[Json]:
    """All of a pod, of which sidecars are first."""
    return [*pod.get("initContainers", []), *pod["containers"]]


def mounted(container: Json) -> set[str]:
    return {each["name"] for each in container["volumeMounts"]}


@pytest.mark.parametrize("spec", [ONE, MUNGE, SIDECARS, NONE, *ACCOUNTED[:4], REST[0], REST[2]])
def test_with_one_user_no_container_has_any_right_of_roots(spec: SlurmSpec) -> None:
    for pod in pods(spec).values():
        assert pod["securityContext"]["runAsNonRoot"]
        for container in containers(pod):
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_with_many_users_slurmd_alone_is_root_with_four_capabilities() -> None:
    found = pods(MANY)
    for name, pod in found.items():
        assert pod["securityContext"].get("runAsNonRoot", False) == (name not in ("c1", "c2"))
    (slurmd,) = found["c1"]["containers"]
    added = {"drop": ["ALL"], "add": ["CHOWN", "KILL", "SETGID", "SETUID"]}
    assert slurmd["securityContext"]["capabilities"] == added
    users = {e["name"]: e["securityContext"]["runAsUser"] for e in found["login"]["containers"]}
    assert users == {"ada": 1001, "bob": 1002, "sackd": 64030}


@pytest.mark.parametrize("spec", [ONE, MANY, MUNGE, SIDECARS, NONE, *ACCOUNTED, *REST])
def test_no_container_can_write_to_its_image_or_ask_kubernetes(spec: SlurmSpec) -> None:
    probe = manifests.probe_object(spec, "probe", ["outside", "192.0.2.1"])
    for pod in (*pods(spec).values(), probe["spec"]):
        assert not pod["automountServiceAccountToken"]
        for container in containers(pod):
            assert container["securityContext"]["readOnlyRootFilesystem"]
            assert not container["securityContext"]["allowPrivilegeEscalation"]


@pytest.mark.parametrize("spec", [ONE, MANY, MUNGE, SIDECARS, NONE, *ACCOUNTED, *REST])
def test_system_calls_are_filtered_of_all_but_jobs(spec: SlurmSpec) -> None:
    for pod in pods(spec).values():
        for container in containers(pod):
            context = pod["securityContext"] | container["securityContext"]
            wanted = None if container["name"] == "slurmd" else {"type": "RuntimeDefault"}
            assert context.get("seccompProfile") == wanted, container["name"]


def test_where_jobs_have_cgroups_slurmd_alone_begins_with_the_rights_to_mount_them() -> None:
    rights = ["CHOWN", "KILL", "SETGID", "SETUID", "SETPCAP", "SYS_ADMIN"]
    for name, pod in pods(CGROUP).items():
        for container in containers(pod):
            context = container["securityContext"]
            is_node = name in ("c1", "c2")
            added = {"drop": ["ALL"]} | ({"add": rights} if is_node else {})
            assert context["capabilities"] == added
            # Kubernetes has it no other way with SYS_ADMIN.
            assert context["allowPrivilegeEscalation"] == is_node
            assert context["readOnlyRootFilesystem"]
    (slurmd,) = pods(CGROUP)["c1"]["containers"]
    assert {"name": "SLURM_CONFINE", "value": "cgroup"} in slurmd["env"]
    # What tries beforehand whether that can be is no more and no less.
    probe = manifests.probe_object(CGROUP, "probe", ["confines"])["spec"]
    assert probe["containers"][0]["securityContext"] == slurmd["securityContext"]
    assert "runAsNonRoot" not in probe["securityContext"]
    assert manifests.probe_object(CGROUP, "probe", ["outside"])["spec"]["securityContext"][
        "runAsNonRoot"
    ]


def configured(spec: SlurmSpec, file: str) -> dict[str, str]:
    """The settings in a file of its ConfigMap."""
    lines = made_of(spec, "ConfigMap")[0]["data"][file].splitlines()
    return dict(line.split("=", 1) for line in lines if line[0] != "#")


def test_jobs_share_nodes_only_where_each_is_held_to_its_memory() -> None:
    alone, shared = (configured(each, "slurm.conf") for each in (MANY, CGROUP))
    assert "OverSubscribe=EXCLUSIVE" in alone["PartitionName"]
    assert "DefMemPerCPU" not in alone
    assert configured(MANY, "cgroup.conf") == {"CgroupPlugin": "disabled"}
    assert "OverSubscribe=NO" in shared["PartitionName"]
    # Two jobs that say nothing of memory fit in a node of 512 MiB less 64.
    assert shared["DefMemPerCPU"] == "224"
    plugins = ("ProctrackType", "TaskPlugin", "JobAcctGatherType")
    assert {shared[each].rpartition("/")[2] for each in plugins} == {"cgroup"}
    assert not {alone[each] for each in plugins} & {shared[each] for each in plugins}
    assert configured(CGROUP, "cgroup.conf") == {
        "CgroupPlugin": "cgroup/v1",
        "ConstrainRAMSpace": "yes",
        "ConstrainCores": "no",
    }


@pytest.mark.parametrize("spec", [ONE, CGROUP, NONE])
def test_ranks_wait_for_those_of_all_nodes_and_not_of_their_own(spec: SlurmSpec) -> None:
    assert configured(spec, "mpi.conf") == {"PMIxCollFence": "ring"}
    for pod in pods(spec).values():
        for volume in pod["volumes"]:
            if volume["name"] == "conf":
                files = [each["path"] for each in volume["configMap"]["items"]]
                assert sorted(files) == ["cgroup.conf", "mpi.conf", "slurm.conf"]


def test_users_containers_do_not_see_the_key() -> None:
    for container in pods(MANY)["login"]["containers"]:
        seen = mounted(container)
        assert ("key" in seen) == ("run" in seen) == (container["name"] == "sackd")


@pytest.mark.parametrize("spec", [ONE, MANY, MUNGE, SIDECARS, NONE, CGROUP, *ACCOUNTED, *REST])
def test_every_volume_that_is_mounted_is_there_and_no_other(spec: SlurmSpec) -> None:
    for pod in pods(spec).values():
        names = [each["name"] for each in pod["volumes"]]
        assert sorted(names) == sorted({*names})
        assert {*names} == {name for each in containers(pod) for name in mounted(each)}


@pytest.mark.parametrize(
    "spec", [MUNGE, SIDECARS, dataclasses.replace(MANY, auth="munge")], ids=["one", "new", "many"]
)
def test_of_munge_one_container_of_each_pod_has_the_key_as_nobody_else(spec: SlurmSpec) -> None:
    assert [*secret(spec)["data"]] == ["munge.key"]
    for pod in pods(spec).values():
        of_others = {each["securityContext"].get("runAsUser") for each in containers(pod)}
        (munged,) = [each for each in containers(pod) if each["name"] == "munged"]
        assert "key" in mounted(munged)
        uid = munged["securityContext"]["runAsUser"]
        assert uid not in {0, spec.slurm_user.uid, *(user.uid for user in spec.accounts)}
        assert uid in of_others
        for each in containers(pod):
            if each is not munged:
                (socket,) = [e for e in each["volumeMounts"] if e["name"] == "munge"]
                assert socket["readOnly"]
                assert "key" not in mounted(each)
                assert each["securityContext"].get("runAsUser") != uid


def test_munged_outlives_slurmd_as_a_sidecar_or_by_waiting() -> None:
    for name, pod in pods(MUNGE).items():
        # What kubectl takes where no container is named.
        assert containers(pod)[0]["name"] != "munged"
        munged = pod["containers"][-1]
        waits = {"preStop": {"exec": {"command": ["slurm-role", "after-slurmd"]}}}
        assert munged.get("lifecycle") == (waits if name in ("c1", "c2") else None)
    for pod in pods(SIDECARS).values():
        (munged,) = pod["initContainers"]
        assert munged["restartPolicy"] == "Always"
        assert "lifecycle" not in munged
        assert "startupProbe" in munged
        assert "munged" not in [each["name"] for each in pod["containers"]]


@pytest.mark.parametrize(
    ("spec", "auth", "cred"),
    [
        (ONE, "auth/slurm", "auth/slurm"),
        (MUNGE, "auth/munge", "cred/munge"),
        (NONE, "auth/none", "auth/slurm"),
    ],
)
def test_slurm_is_told_how_it_knows_who_asks(spec: SlurmSpec, auth: str, cred: str) -> None:
    conf = made_of(spec, "ConfigMap")[0]["data"]["slurm.conf"].splitlines()
    assert [line for line in conf if line.startswith(("AuthType", "CredType"))] == [
        f"AuthType={auth}",
        f"CredType={cred}",
    ]


def test_without_authentication_the_network_is_closed_before_there_is_a_pod() -> None:
    kinds = [each["kind"] for each in yaml.safe_load_all(manifests.whole_text(NONE, "QQ=="))]
    assert kinds.index("NetworkPolicy") < kinds.index("StatefulSet")
    (policy,) = made_of(NONE, "NetworkPolicy")
    assert policy["spec"] == {
        "podSelector": {},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {}}]}],
    }
    # Nobody could ask slurmctld for it. What it signs is no matter of users.
    for name, pod in pods(NONE).items():
        for each in containers(pod):
            assert "conf" in mounted(each)
            assert ("key" in mounted(each)) == (name != "login")
    assert made_of(ONE, "NetworkPolicy") == []


def test_every_pod_finds_every_other_by_its_short_name() -> None:
    spec = dataclasses.replace(ONE, namespace="lab", domain="site.example")
    for pod in pods(spec).values():
        assert pod["dnsConfig"]["searches"] == ["slurm.lab.svc.site.example"]
    made_ = list(yaml.safe_load_all(manifests.whole_text(spec, "QQ==")))
    names = {
        each["spec"].get("serviceName") or each["spec"]["template"]["spec"]["subdomain"]
        for each in made_
        if each["kind"] in ("Deployment", "StatefulSet")
    }
    assert names == {"slurm"}


@pytest.mark.parametrize("spec", [ONE, MUNGE, *ACCOUNTED[:1], *REST[:1]])
def test_all_of_its_pods_are_of_the_runtime_that_is_asked_for_or_of_none(spec: SlurmSpec) -> None:
    for pod in pods(spec).values():
        assert "runtimeClassName" not in pod
    for pod in pods(dataclasses.replace(spec, runtime="crun")).values():
        assert pod["runtimeClassName"] == "crun"


def test_processes_on_a_node_share_as_much_memory_as_the_pod_has() -> None:
    found = pods(ONE)["c1"]
    assert {"name": "shm", "emptyDir": {"medium": "Memory"}} in found["volumes"]
    (slurmd,) = found["containers"]
    assert {"name": "shm", "mountPath": "/dev/shm"} in slurmd["volumeMounts"]


def test_every_object_is_in_the_namespace() -> None:
    for each in yaml.safe_load_all(manifests.whole_text(ONE, "QQ==")):
        where = each["metadata"].get("namespace", each["metadata"]["name"])
        assert where == "slurm", each


# --- accounting ---


@pytest.mark.parametrize("spec", ACCOUNTED)
def test_with_accounting_slurmctld_knows_slurmdbd_and_nothing_else_does_mariadb(
    spec: SlurmSpec,
) -> None:
    conf, dbd = (
        dict(line.split("=", 1) for line in each["data"][name].splitlines() if line[0] != "#")
        for each, name in zip(
            made_of(spec, "ConfigMap"), ("slurm.conf", "slurmdbd.conf"), strict=True
        )
    )
    assert conf["AccountingStorageType"] == "accounting_storage/slurmdbd"
    (service,) = [e for e in made_of(spec, "Service") if e["metadata"]["name"] == "slurmdbd"]
    assert conf["AccountingStorageHost"] == service["metadata"]["name"]
    assert [each["port"] for each in service["spec"]["ports"]] == [int(dbd["DbdPort"])]
    assert (dbd["AuthType"], dbd["SlurmUser"]) == (conf["AuthType"], conf["SlurmUser"])
    assert "StoragePass" not in dbd
    pod = pods(spec)["slurmdbd"]
    # What MariaDB knows slurmdbd by.
    assert pod["securityContext"]["runAsUser"] == spec.slurm_user.uid
    assert dbd["StorageUser"] == spec.slurm_user.name
    having = {each["name"] for each in containers(pod) if "mysqld" in mounted(each)}
    assert having == {"slurmdbd", "mariadb"}
    (mariadb,) = [each for each in containers(pod) if each["name"] == "mariadb"]
    assert not {"key", "conf", "munge"} & mounted(mariadb)


def test_without_accounting_nothing_is_said_of_it() -> None:
    assert "slurmdbd" not in manifests.whole_text(ONE, "QQ==").replace('"accounting": false', "")


# What mariadbd is started with, and what it is told.
MARIADBD = 'echo "mariadbd $*"; case $* in *--bootstrap*) cat ;; esac'


def test_mariadb_listens_on_a_socket_only_and_lets_in_who_has_its_own_number(
    tmp_path: Path,
) -> None:
    def started() -> list[str]:
        done = role(
            tmp_path,
            "mariadbd",
            files={
                **{f"sql/mariadb_{n}.sql": n for n in ("system_tables", "performance_tables")},
                "sql/mariadb_system_tables_data.sql": "data",
            },
            programs={"mariadbd": MARIADBD, "id": "echo ada"},
        )
        return done.stdout.splitlines()

    # Of one that was killed.
    (tmp_path / "mysql/new").mkdir(parents=True)
    (tmp_path / "mysql/new/half").touch()
    (tmp_path / "run/mysqld").mkdir(parents=True)
    (tmp_path / "run/mysqld/mysqld.sock").touch()
    made_, *told, running = started()
    assert f"--datadir={tmp_path}/mysql/new " in made_
    assert told == [
        "CREATE DATABASE mysql;", "USE mysql;", "SET @auth_root_socket='ada';",
        "system_tables", "performance_tables", "data", "CREATE DATABASE slurm_acct_db;",
    ]  # fmt: skip
    assert f"--datadir={tmp_path}/mysql/data " in running
    assert "--bootstrap" not in running
    assert {"--skip-networking", f"--socket={tmp_path}/run/mysqld/mysqld.sock"} <= {
        *running.split()
    }
    assert [each.name for each in (tmp_path / "mysql").iterdir()] == ["data"]
    assert [*(tmp_path / "mysql/data").iterdir()] == []
    assert not (tmp_path / "run/mysqld/mysqld.sock").exists()
    shutil.rmtree(tmp_path / "bin")
    assert started() == [running]


def test_slurmdbd_has_a_configuration_that_only_it_reads_and_waits_for_mariadb(
    tmp_path: Path,
) -> None:
    listener = tmp_path / "run/mysqld/mysqld.sock"
    listener.parent.mkdir(parents=True)
    bind = f"{sys.executable} -c 'import socket; socket.socket(1).bind(\"{listener}\")'"
    done = role(
        tmp_path,
        "slurmdbd",
        files={"key/slurm.key": "k", "dbd/slurmdbd.conf": "DbdHost=slurmdbd-0"},
        programs={"slurmdbd": 'echo "$@" "$SLURM_CONF"', "sleep": f"echo waited; {bind}"},
    )
    keys = tmp_path / "run/keys"
    assert done.stdout == f"waited\n-D {keys}/slurm.conf\n"
    assert (keys / "slurmdbd.conf").read_text() == "DbdHost=slurmdbd-0\n"
    assert (keys / "slurmdbd.conf").stat().st_mode & 0o777 == 0o600


def test_slurmctld_waits_once_for_slurmdbd_which_gives_its_cluster_a_number(
    tmp_path: Path,
) -> None:
    state = tmp_path / "spool/state"

    def started(*, reached: bool) -> list[str]:
        shutil.rmtree(tmp_path / "bin", ignore_errors=True)
        (state / "clustername").write_text("slurm 2666")
        up_ = tmp_path / "up"
        up_.touch() if reached else up_.unlink(missing_ok=True)
        return role(
            tmp_path,
            "slurmctld",
            files={"key/slurm.key": "k", "etc/slurm.conf": "AccountingStorageHost=slurmdbd"},
            programs={
                "slurmctld": 'echo "$@"',
                "timeout": f'[ "$5 $6" = "slurmdbd 6819" ] && [ -e {up_} ]',
                "sleep": f"echo waited; touch {up_}",
            },
            environment={"ACCOUNTING_HOST": "slurmdbd"},
        ).stdout.splitlines()

    state.mkdir(parents=True)
    assert started(reached=False) == ["waited", "-D"]
    assert not (state / "clustername").exists()
    # It has slurmdbd's now, and its own state, with which it begins without.
    assert started(reached=False) == ["-D"]
    assert (state / "clustername").exists()


def test_mariadb_stays_until_slurmdbd_has_ended(tmp_path: Path) -> None:
    table = tmp_path / "tcp"
    ends = f"echo waited; printf '%s\\n' '{OTHER}' > {table}"
    files = {"tcp": f"{OTHER}\n{LISTENS.replace('1AA2', '1AA3')}"}
    assert role(tmp_path, "listens", "1AA3", files=files).returncode == 0
    shutil.rmtree(tmp_path / "bin")
    done = role(tmp_path, "after-slurmdbd", files=files, programs={"sleep": ends})
    assert done.stdout == "waited\n"
    shutil.rmtree(tmp_path / "bin")
    assert role(tmp_path, "listens", "1AA3", files={"tcp": OTHER}, check=False).returncode == 1


def test_accounting_is_added_to_one_that_is_up_and_stays(ready: Place, slurm: FakeSlurm) -> None:
    assert up(ready, "ada", "bob") is None
    assert not status.collect(ready).to_dict()["accounting"]
    made_ = up(ready, "ada", "bob", accounting=True)
    assert made_
    assert made_.accounting
    assert ready.spec() == made_
    assert slurm.slurmdbd
    assert slurm.accounting is not None
    assert slurm.ended == slurm.deleted == []
    assert status.collect(ready).to_dict()["accounting"]
    # It had been interrupted before users' commands knew.
    slurm.accounting = None
    assert up(ready, "ada", "bob")
    assert slurm.accounting is not None
    # Who does not ask for it has it still.
    assert up(ready, "ada", "bob") is up(ready, "ada", "bob", accounting=True) is None
    slurm.broken = True
    assert "slurmdbd-0: it is not Ready yet" in setup.problem(ready, [1])


@pytest.mark.parametrize("kept", [False, True])
def test_where_slurmdbd_does_not_start_slurmctld_is_as_it_was(
    ready: Place, slurm: FakeSlurm, world: World, *, kept: bool
) -> None:
    before = ready.spec()
    world.stride = 10.0
    slurm.broken = True
    claim = "/api/v1/namespaces/slurm/persistentvolumeclaims/accounting"
    if kept:
        slurm.objects[claim] = {}
    with pytest.raises(SykubeError) as caught:
        up(ready, "ada", "bob", accounting=True)
    assert "slurmdbd-0: it is not Ready yet" in caught.value.details
    assert ready.spec() == before
    assert not slurm.slurmdbd
    assert (claim in slurm.deleted) == (not kept)
    assert not any(each.get("env") for each in slurm.controller["containers"])
    assert "scontrol reconfigure" not in slurm.said


def test_one_of_another_image_gets_no_accounting(ready: Place, slurm: FakeSlurm) -> None:
    with pytest.raises(UsageError, match="may have no slurmdbd") as caught:
        up(ready, "ada", "bob", accounting=True, image="sykube.local/slurm:2")
    assert "sykube slurm down" in caught.value.resolution
    assert not slurm.slurmdbd
    assert up(ready, "ada", "bob", image="sykube.local/slurm:2") is None


COMPILERS = "sykube.local/slurm-compilers:1"


@pytest.mark.parametrize("spec", [ONE, MANY, MUNGE, NONE, *ACCOUNTED, *REST])
def test_only_users_in_the_login_pod_have_compilers(spec: SlurmSpec) -> None:
    of_users = {user.name for user in spec.accounts}
    for name, pod in pods(dataclasses.replace(spec, login_image=COMPILERS)).items():
        for each in containers(pod):
            is_theirs = name == "login" and each["name"] in of_users
            assert each["image"] == (COMPILERS if is_theirs else spec.image), name


def test_compilers_are_added_to_one_that_is_up_and_stay(ready: Place, slurm: FakeSlurm) -> None:
    assert up(ready, "ada", "bob") is None
    made_ = up(ready, "ada", "bob", login_image=COMPILERS)
    assert made_
    assert ready.spec() == made_
    # Not before the new pod is there.
    assert slurm.login == [{"ada": COMPILERS, "bob": COMPILERS, "sackd": FOUR.image}]
    assert slurm.ended == slurm.deleted == []
    # Nor with those of another sykube, or where nobody asks for them.
    later = COMPILERS.replace(":1", ":2")
    assert up(ready, "ada", "bob", login_image=later) is up(ready, "ada", "bob") is None


def test_one_of_another_image_gets_no_compilers(ready: Place, slurm: FakeSlurm) -> None:
    with pytest.raises(UsageError, match="Slurm may not be that of the compilers") as caught:
        up(ready, "ada", "bob", login_image=COMPILERS, image="sykube.local/slurm:2")
    assert "again with --compilers" in caught.value.resolution
    assert COMPILERS not in slurm.login[0].values()


def test_nodes_are_given_the_images_of_a_slurm_cluster_that_are_of_this_sykube(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, cluster = list[object](), place.cluster
    monkeypatch.setattr(debian_image, "obtain", lambda _host, recipe, *_: recipe)
    monkeypatch.setattr(image, "require_loaded", lambda _, found: given.append(found))
    own = of_slurm.RECIPE.name(cluster.host)
    compilers = of_slurm.COMPILERS.name(cluster.host)
    for spec, wanted in (
        (ONE, []),
        (dataclasses.replace(ONE, image=own), [of_slurm.RECIPE]),
        (
            dataclasses.replace(ONE, image=own, login_image=compilers),
            [of_slurm.RECIPE, of_slurm.COMPILERS],
        ),
    ):
        image.give(cluster, spec, lambda _: False)
        assert given == wanted
        given.clear()


@pytest.mark.parametrize("volumes", [False, True])
def test_what_is_kept_of_jobs_goes_with_the_volumes_only(
    place: Place, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch, *, volumes: bool
) -> None:
    monkeypatch.setattr(removal, "_labelled", lambda *_: [])
    monkeypatch.setattr(FakeSlurm, "_pods", lambda _: [])
    removal.remove(place, volumes=volumes)
    names = [each.rpartition("/")[2] for each in slurm.deleted]
    assert ("accounting" in names, "home" in names) == (volumes, volumes)
    assert names[-2:] == ["slurmdbd", "slurm"]


# --- the entrypoint ---


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (
            {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000",
             "memory/memory.limit_in_bytes": "536870912"},
            "CPUs=2 RealMemory=448",
        ),
        (
            {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000",
             "memory/memory.limit_in_bytes": "9223372036854771712"},
            "CPUs=7 RealMemory=936",
        ),
        ({"cpu.max": "100000 100000", "memory.max": "268435456"}, "CPUs=1 RealMemory=192"),
        ({"cpu.max": "50000 100000", "memory.max": "max"}, "CPUs=1 RealMemory=936"),
        ({"cpu.max": "max 100000", "memory.max": "max"}, "CPUs=7 RealMemory=936"),
        # A user's cluster without cgroups.
        ({}, "CPUs=7 RealMemory=936"),
    ],
)  # fmt: skip
def test_slurmd_is_told_of_the_cpus_and_the_memory_of_its_cgroup(
    files: dict[str, str], told: str, tmp_path: Path
) -> None:
    done = role(tmp_path, "slurmd", files={"key/slurm.key": "k", **files})
    assert f"--conf {told} --conf-server slurmctld:6817\n" in done.stdout
    assert (tmp_path / "run/keys/slurm.key").stat().st_mode & 0o777 == 0o400


# The cgroups of a pod, for what makes them; mount says what it is told.
GROUPS = {f"{each}/tasks": "1" for each in ("freezer", "memory", "cpuacct")}
MOUNT = 'echo mount "$@"'


def test_slurmd_has_the_pods_cgroups_to_write_to_and_none_of_the_rights_by_which_it_has(
    tmp_path: Path,
) -> None:
    done = role(
        tmp_path, "slurmd", files={"key/slurm.key": "k", **GROUPS},
        programs={
            "mount": MOUNT,
            "setpriv": 'echo setpriv "$@"; cat /proc/self/oom_score_adj',
            # Nobody else may remove what a user has there.
            "chmod": '[ "$2" != /tmp ] || echo chmod "$@"',
        },
        environment={"SLURM_CONFINE": "cgroup"},
    )  # fmt: skip
    *mounts, sticky, started, score = done.stdout.splitlines()
    assert sticky == "chmod 1777 /tmp"
    assert mounts == [
        f"mount -o remount,bind,rw {tmp_path / each}" for each in ("freezer", "memory", "cpuacct")
    ]
    assert started.startswith(
        "setpriv --bounding-set -setpcap,-sys_admin --inh-caps -setpcap,-sys_admin --no-new-privs "
        "tini -- slurmd -D -Z -N c1-0 "
    )
    assert score == "0"
    assert not [*tmp_path.glob("*/slurm-role")]


@pytest.mark.parametrize("words", [("slurmd",), ("confines",)])
@pytest.mark.parametrize(
    ("files", "mount", "code", "said"),
    [
        (GROUPS, "exit 32", 4, ""),
        # It could be mounted, and yet there is nothing in it to be written to.
        ({}, MOUNT, 4, ""),
        ({"cgroup.controllers": "memory"}, MOUNT, 3, "by cgroup v1, and this machine has v2"),
    ],
)
def test_where_it_cannot_make_cgroups_it_does_not_start(
    files: dict[str, str], mount: str, code: int, said: str, words: tuple[str], tmp_path: Path
) -> None:
    done = role(
        tmp_path, *words, files={"key/slurm.key": "k", **files}, programs={"mount": mount},
        environment={"SLURM_CONFINE": "cgroup"}, check=False,
    )  # fmt: skip
    assert done.returncode == code
    assert said in done.stderr
    assert "tini" not in done.stdout


def test_slurmstepd_is_taken_out_of_its_jobs_memory_and_no_task_is(tmp_path: Path) -> None:
    group = "memory/slurm_c1-0/uid_1001/job_1/step_batch"
    processes = {
        1: "(tini) S 0",
        70: "(slurmd) S 1",
        71: "(slurmstepd) S 70",
        # Not yet in its own cgroup, and in it.
        72: "(slurmstepd) S 71",
        73: "(slurmstepd) S 1",
        # It was ended by Slurm and is a child of tini now.
        74: "(sh) S 1",
    }
    role(
        tmp_path, "spare",
        files={
            "memory/slurm_c1-0/cgroup.procs": "",
            f"{group}/cgroup.procs": "72\n99\n74\n71",
            f"{group}/task_0/cgroup.procs": "73",
            **{f"proc/{pid}/stat": f"{pid} {rest} 0" for pid, rest in processes.items()},
        },
        programs={"sleep": f"[ ! -e {tmp_path}/once ] && touch {tmp_path}/once"},
    )  # fmt: skip
    assert (tmp_path / "memory/slurm_c1-0/cgroup.procs").read_text() == "71\n"


def test_a_pod_that_can_make_cgroups_says_so_by_its_exit_code(tmp_path: Path) -> None:
    assert role(tmp_path, "confines", files=GROUPS, programs={"mount": MOUNT}).returncode == 0


def test_where_the_configuration_is_mounted_slurmd_asks_nobody_for_it(tmp_path: Path) -> None:
    files = {"etc/slurm.conf": "AuthType=auth/none", "etc/mpi.conf": "", "key/none.key": "k"}
    shows = 'echo "$@" "$SLURM_CONF" "${SLURM_SACK_KEY-}"'
    done = role(tmp_path, "slurmd", files=files, programs={"tini": shows})
    keys = tmp_path / "run/keys"
    assert f" slurmd -D -Z -N c1-0 --conf CPUs=7 RealMemory=936 {keys}/slurm.conf \n" in done.stdout
    assert sorted(each.name for each in keys.iterdir()) == [
        "mpi.conf",
        "slurm.conf",
        "slurm.key",
    ]
    assert (keys / "slurm.key").stat().st_mode & 0o777 == 0o400


@pytest.mark.parametrize("name", ["slurmd", "sackd"])
def test_slurm_waits_for_munged(name: str, tmp_path: Path) -> None:
    (tmp_path / "run/munge").mkdir(parents=True)
    listener = tmp_path / "run/munge/munge.socket.2"
    bind = f"{sys.executable} -c 'import socket; socket.socket(1).bind(\"{listener}\")'"
    # The third time it waits, there is one.
    sleep = (
        f'echo waited; echo >> {tmp_path}/times; [ "$(wc -l < {tmp_path}/times)" -lt 3 ] || {bind}'
    )
    done = role(tmp_path, name, programs={"sleep": sleep, "sackd": 'echo sackd "$@"'})
    assert done.stdout.startswith("waited\nwaited\nwaited\n")
    assert f"{name} -D" in done.stdout


def test_munged_has_a_key_of_its_own_and_the_socket_that_slurm_asks(tmp_path: Path) -> None:
    done = role(
        tmp_path,
        "munged",
        files={"key/munge.key": "k", "run/keys/munged.pid": "7"},
        programs={"munged": 'echo "$@"'},
    )
    assert f"--key-file={tmp_path}/run/keys/munge.key " in done.stdout
    assert f"--socket={tmp_path}/run/munge/munge.socket.2 " in done.stdout
    assert (tmp_path / "run/keys/munge.key").stat().st_mode & 0o777 == 0o400
    assert not (tmp_path / "run/keys/munged.pid").exists()


# Of /proc/net/tcp: slurmd's port, listening; a connection to it; another port, listening.
LISTENS = "   0: 00000000:1AA2 00000000:0000 0A 00000000:00000000 00:00000000 00000000 1001 0 1"
TALKS = "   1: 0A020003:1AA2 0A020004:9C40 01 00000000:00000000 00:00000000 00000000 1001 0 2"
OTHER = "   2: 00000000:1AA1 00000000:0000 0A 00000000:00000000 00:00000000 00000000 1001 0 3"


def test_munged_stays_until_slurmd_has_ended(tmp_path: Path) -> None:
    table = tmp_path / "tcp"
    ends = f"echo waited; printf '%s\\n' '{TALKS}' '{OTHER}' > {table}"
    done = role(
        tmp_path, "after-slurmd", files={"tcp": f"{LISTENS}\n{OTHER}"}, programs={"sleep": ends}
    )
    assert done.stdout == "waited\n"


@pytest.mark.parametrize(
    ("reached", "code"),
    [
        ("192.0.2.1 443", 0),
        ("192.0.2.1 443|10.2.0.9 6817", 3),
        ("192.0.2.1 443|10.96.0.7 6817", 3),
        ("192.0.2.1 443|10.96.0.7 6818", 0),
        ("", 4),
        ("10.96.0.7 6817", 4),
    ],
)
def test_what_a_pod_of_another_namespace_reaches_is_its_exit_code(
    reached: str, code: int, tmp_path: Path
) -> None:
    # It is called as: timeout 3 bash -c … ADDRESS PORT
    timeout = f'case "|{reached}|" in *"|$5 $6|"*) exit 0 ;; esac; exit 124'
    done = role(
        tmp_path, "outside", "10.96.0.7", "10.2.0.9",
        programs={"timeout": timeout}, check=False,
        environment={"KUBERNETES_SERVICE_HOST": "192.0.2.1", "KUBERNETES_SERVICE_PORT": "443"},
    )  # fmt: skip
    assert done.returncode == code


def test_a_try_in_vain_is_not_enough(tmp_path: Path) -> None:
    # slurmctld answers but every other time.
    turn = f"echo >> {tmp_path}/turns; [ $(($(wc -l < {tmp_path}/turns) % 2)) = 0 ] || exit 124"
    timeout = f'[ "$6" = 443 ] || {{ {turn}; }}'
    done = role(
        tmp_path, "outside", "10.96.0.7", programs={"timeout": timeout}, check=False,
        environment={"KUBERNETES_SERVICE_HOST": "192.0.2.1", "KUBERNETES_SERVICE_PORT": "443"},
    )  # fmt: skip
    assert done.returncode == 3


def role(
    folder: Path,
    *words: str,
    files: dict[str, str] | None = None,
    programs: dict[str, str] | None = None,
    environment: dict[str, str] | None = None,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run slurm-role with a machine's files in a folder, and programs that do as they are told."""
    for name, text in {"meminfo": "MemTotal:  1024000 kB", **(files or {})}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{text}\n")
    bin_ = folder / "bin"
    bin_.mkdir()
    for name, does in {
        "nproc": "echo 7", "hostname": "echo c1-0", "tini": 'echo "$@"', "scontrol": "exit 1",
        "sleep": "exit 0", **(programs or {}),
    }.items():  # fmt: skip
        (bin_ / name).write_text(f"#!/bin/sh\n{does}\n")
        (bin_ / name).chmod(0o755)
    script = ROLE.read_text()
    for there, here in (
        ("/sys/fs/cgroup", folder),
        ("/proc/meminfo", folder / "meminfo"),
        ("/proc/net/tcp", folder / "tcp"),
        ("/proc/$", f"{folder / 'proc'}/$"),
        ("/run", folder / "run"),
        ("/etc/slurm-key", folder / "key"),
        ("/etc/slurm-jwt", folder / "jwt"),
        ("/etc/slurm/", f"{folder / 'etc'}/"),
        ("/etc/slurmdbd", folder / "dbd"),
        ("/usr/share/mariadb", folder / "sql"),
        ("/var/lib/mysql", folder / "mysql"),
        ("/var/spool/slurmctld", folder / "spool"),
    ):
        script = script.replace(there, str(here))
    (folder / "run").mkdir(exist_ok=True)
    return subprocess.run(
        [shutil.which("sh") or "/bin/sh", "-c", script, "slurm-role", *words],
        env={"PATH": f"{bin_}:/usr/bin:/bin", **(environment or {})},
        capture_output=True,
        text=True,
        check=check,
    )


# --- no authentication ---


@pytest.mark.parametrize(
    ("code", "error", "why"),
    [
        (0, None, ""),
        (3, UsageError, "other namespaces reach the slurmctld of slurm"),
        (4, SykubeError, "cannot be told"),
        (137, SykubeError, "cannot be told"),
    ],
)
def test_whether_others_reach_slurmctld_is_tried_from_another_namespace(
    place: Place, slurm: FakeSlurm, code: int, error: type[SykubeError] | None, why: str
) -> None:
    slurm.objects["/api/v1/namespaces/slurm/services/slurmctld"] = {
        "spec": {"clusterIP": "10.96.0.7"}
    }
    slurm.probe = code
    if error:
        with pytest.raises(error, match=why) as caught:
            isolation.require(place, NONE)
        assert "--auth slurm" in caught.value.resolution
    else:
        isolation.require(place, NONE)
    ((where, pod),) = slurm.probes.items()
    assert where.startswith("/api/v1/namespaces/default/pods/slurm-probe-")
    assert pod["spec"]["containers"][0]["args"] == ["outside", "10.96.0.7", "10.2.0.9"]
    assert slurm.deleted == [where]


def test_where_they_do_no_node_is_created_and_all_is_removed_again(
    place: Place, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm.sets, slurm.nodes = set(), {}
    order: list[str] = []

    def refuse(*_: object) -> None:
        order.append("tried")
        raise UsageError("other namespaces reach it")

    monkeypatch.setattr(setup, "wait_for", lambda _, numbers: order.append(f"up: {numbers}"))
    monkeypatch.setattr(isolation, "require", refuse)
    monkeypatch.setattr(removal, "remove", lambda *_, **options: order.append(f"{options}"))
    with pytest.raises(UsageError):
        setup.set_up(place, NONE, new=True)
    assert order == ["up: []", "tried", "{'volumes': True}"]
    assert slurm.sets == set()


# --- confinement ---


@pytest.mark.parametrize("code", [0, 4])
def test_whether_pods_can_make_cgroups_is_tried_before_anything_is_created(
    ready: Place, slurm: FakeSlurm, code: int
) -> None:
    with pytest.raises(UsageError, match="has other options") as caught:
        up(ready, "ada", "bob", confine="cgroup")
    assert caught.value.details == "confine: pod, and not cgroup"
    del slurm.objects["/api/v1/namespaces/slurm/configmaps/slurm"]
    before = dict(slurm.objects)
    slurm.probe = code
    if code:
        with pytest.raises(UsageError, match="pods of this cluster cannot make cgroups") as caught:
            up(ready, "ada", "bob", confine="cgroup")
        assert "--confine pod" in caught.value.resolution
        assert slurm.objects == before
    else:
        made_ = up(ready, "ada", "bob", confine="cgroup")
        assert made_
        assert made_.confine == "cgroup"
        # It is not tried again where it is there.
        assert up(ready, "ada", "bob", confine="cgroup") is None
    ((where, pod),) = slurm.probes.items()
    assert pod["spec"]["containers"][0]["args"] == ["confines"]
    assert slurm.deleted == [where]


def test_on_cgroup_v2_jobs_get_none_and_nothing_is_created(
    ready: Place, slurm: FakeSlurm, world: World
) -> None:
    fill(world.cgroup_root, {"cgroup.controllers": "cpu memory\n"})
    del slurm.objects["/api/v1/namespaces/slurm/configmaps/slurm"]
    before = dict(slurm.objects)
    with pytest.raises(UsageError, match="for cgroup v1, and this host has cgroup v2"):
        up(ready, "ada", "bob", confine="cgroup")
    assert slurm.objects == before
    assert slurm.probes == {}


# --- scaling ---


@pytest.fixture
def slurm() -> FakeSlurm:
    """A Slurm cluster of four nodes."""
    found = FakeSlurm()
    found.sets = {"c1", "c2", "c3", "c4"}
    found.nodes = {f"c{number}-0": ("idle", "") for number in range(1, 5)}
    return found


@pytest.fixture
def place(world: World, slurm: FakeSlurm) -> Place:
    cluster = made(world, workers=0)
    world.programs.answers["kubectl"] = slurm.kubectl
    world.stride = 0.0
    return Place(cluster, "slurm", slurm)


def test_idle_nodes_go_first_and_the_youngest_of_them(place: Place, slurm: FakeSlurm) -> None:
    slurm.work = {"c4-0": 99, "c2-0": 99}
    assert scaling.shrink(place, 2, None).removed == ("c3-0", "c1-0")
    assert sorted(slurm.nodes) == ["c2-0", "c4-0"]
    assert slurm.ended == []
    assert {state for state, _ in slurm.nodes.values()} == {"idle"}


def test_a_node_with_a_job_goes_when_that_has_ended(place: Place, slurm: FakeSlurm) -> None:
    slurm.work = {"c1-0": 99, "c2-0": 99, "c3-0": 99, "c4-0": 12}
    assert scaling.shrink(place, 3, None).removed == ("c4-0",)
    assert slurm.ended == []
    assert sorted(slurm.nodes) == ["c1-0", "c2-0", "c3-0"]


def test_one_that_becomes_idle_goes_instead_of_one_that_is_waited_for(
    place: Place, slurm: FakeSlurm
) -> None:
    slurm.work = {"c1-0": 9, "c2-0": 99, "c3-0": 99, "c4-0": 99}
    assert scaling.shrink(place, 3, None).removed == ("c1-0",)
    # It has been drained before, and has jobs again.
    assert slurm.nodes["c4-0"] == ("idle", "")
    assert slurm.ended == []


def test_with_a_grace_period_jobs_are_queued_again_and_nobody_waits_for_ever(
    place: Place, slurm: FakeSlurm, world: World
) -> None:
    world.stride = 10.0
    slurm.work = {f"c{number}-0": 10_000 for number in range(1, 5)}
    assert scaling.shrink(place, 3, 60.0).removed == ("c4-0",)
    failed = [each for each in slurm.said if "state=down" in each]
    assert failed == ["scontrol update nodename=c4-0 state=down reason=sykube slurm scale"]
    assert slurm.ended == []


def test_whoever_stops_waiting_leaves_all_nodes_to_jobs(
    place: Place, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm.work = {f"c{number}-0": 10_000 for number in range(1, 5)}

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scaling, "_POLL_S", 1.0)
    host = dataclasses.replace(place.cluster.host, sleep=interrupt)
    place.cluster.host = host
    with pytest.raises(KeyboardInterrupt):
        scaling.shrink(place, 1, None)
    assert {state for state, _ in slurm.nodes.values()} == {"idle"}
    assert len(slurm.sets) == 4


def test_a_node_that_somebody_else_drained_stays_so(place: Place, slurm: FakeSlurm) -> None:
    slurm.nodes["c1-0"] = ("drained", "broken fan")
    slurm.work = {"c2-0": 99}
    assert scaling.shrink(place, 2, None).removed == ("c4-0", "c3-0")
    assert slurm.nodes["c1-0"] == ("drained", "broken fan")


def test_at_zero_slurm_keeps_an_entry_that_comes_back_with_its_pod(
    place: Place, slurm: FakeSlurm
) -> None:
    assert len(scaling.shrink(place, 0, None).removed) == 4
    assert slurm.sets == set()
    ((name, (state, _)),) = slurm.nodes.items()
    assert state == "down*"
    assert scaling.grow(place, ONE, 1).added == (name,)
    assert slurm.nodes[name] == ("idle", "")


def test_new_nodes_have_the_lowest_free_numbers(place: Place, slurm: FakeSlurm) -> None:
    slurm.work = {"c3-0": 99}
    scaling.shrink(place, 1, None)
    assert scaling.grow(place, ONE, 4).added == ("c1-0", "c2-0", "c4-0")


@pytest.mark.parametrize(
    ("state", "busy", "ready"),
    [
        ("idle", False, True),
        ("mixed", True, True),
        ("allocated", True, True),
        ("completing", True, True),
        ("planned", False, True),
        ("idle*", False, False),
        ("draining", True, False),
        ("draining*", True, False),
        ("drained", False, False),
        ("down*", False, False),
    ],
)
def test_what_a_state_of_slurms_means(state: str, busy: bool, ready: bool) -> None:
    node = SlurmNode("c1-0", state, 1, 0, 960)
    assert (node.is_busy, node.is_ready) == (busy, ready)


# --- room ---


@pytest.mark.parametrize(
    ("changed", "count", "why"),
    [
        ({"cpus": 3}, 1, "larger than any"),
        ({"memory": "9Gi"}, 1, "only for 0"),
        ({"memory": "3Gi"}, 5, "only for 4"),
    ],
)
def test_nodes_for_which_there_is_no_room_are_refused(
    place: Place, slurm: FakeSlurm, changed: Json, count: int, why: str
) -> None:
    node = {"status": {"allocatable": {"cpu": "2", "memory": f"{8 * 1024**2}Ki"}}}
    slurm.objects["/api/v1/nodes"] = {"items": [node, node]}
    setup.require_room(place, ONE, 8)
    with pytest.raises(UsageError, match=why):
        setup.require_room(place, dataclasses.replace(ONE, **changed), count)
    assert slurm.said == []


# --- users ---


@pytest.fixture
def ready(place: Place, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> Place:
    """That of the four nodes is of many users, and commands find it."""

    @contextlib.contextmanager
    def found(*_: object) -> Iterator[Place]:
        yield place

    monkeypatch.setattr(setup, "at", found)
    monkeypatch.setattr(image, "require_loaded", lambda *_: None)
    node = {"status": {"allocatable": {"cpu": "2", "memory": f"{8 * 1024**2}Ki"}}}
    classes = {"items": [{"metadata": {"name": "shared"}}]}
    slurm.objects |= {
        "/api/v1/nodes": {"items": [node]},
        "/apis/storage.k8s.io/v1/storageclasses": classes,
        "/api/v1/namespaces/slurm/secrets/slurm-key": {"data": {"slurm.key": "QQ=="}},
    }
    for each in manifests.objects(FOUR, "QQ==", owned=True):
        slurm.apply(each)
    return place


def up(place: Place, *names: str, **changed: Any) -> SlurmSpec | None:
    wanted = dataclasses.replace(FOUR, names=names, **changed)
    host = place.cluster.host
    return setup.up(host, "fake", wanted, lambda _: False, place.cluster.ui)


def test_a_runtime_that_the_cluster_has_not_or_another_one_than_before_is_refused(
    ready: Place, slurm: FakeSlurm
) -> None:
    with pytest.raises(UsageError, match="has other options") as caught:
        up(ready, "ada", "bob", runtime="crun")
    assert caught.value.details == "runtime: the default, and not crun"
    del slurm.objects["/api/v1/namespaces/slurm/configmaps/slurm"]
    before = dict(slurm.objects)
    with pytest.raises(UsageError, match="the cluster has no RuntimeClass crun"):
        up(ready, "ada", "bob", runtime="crun")
    assert slurm.objects == before
    slurm.objects["/apis/node.k8s.io/v1/runtimeclasses/crun"] = {}
    made_ = up(ready, "ada", "bob", runtime="crun")
    assert made_
    assert made_.runtime == "crun"


def test_users_are_added_to_one_that_is_up_once_every_pod_knows_them(
    ready: Place, slurm: FakeSlurm
) -> None:
    assert up(ready, "ada", "bob") is None
    made_ = up(ready, "ada", "bob", "eve")
    assert made_
    assert ready.spec() == made_
    assert [user.uid for user in made_.accounts] == [1001, 1002, 1003]
    assert slurm.accounts == ["ada", "bob", "eve"]
    assert sorted(slurm.users) == ["c1-0", "c2-0", "c3-0", "c4-0", "slurmctld-0"]
    assert all(known == {"ada", "bob", "eve"} for known in slurm.users.values())
    assert slurm.ended == slurm.deleted == []
    assert up(ready, "ada", "bob", "eve") is None


def test_a_file_has_users_and_their_numbers(sykube: Sykube, tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_text(
        "# Of the lab.\nada:x:2000:100:Ada:/elsewhere/ada:/bin/zsh\n\nbob\neve:*:1000\n"
    )
    done = sykube("slurm", "render", "--users", "many", "--users-file", str(file))
    assert done.code == ExitCode.OK
    (found,) = [e for e in yaml.safe_load_all(done.out) if e["kind"] == "ConfigMap"]
    assert found["data"]["passwd"].splitlines() == [
        "ada:x:2000:2000::/home/ada:/bin/bash",
        "bob:x:1002:1002::/home/bob:/bin/bash",
        "eve:x:1000:1000::/home/eve:/bin/bash",
    ]
    # By their places, they are as without a file.
    file.write_text("ada\nbob:x:1002\n")
    assert MANY.with_users(users.read(file)) == MANY
    assert sykube("slurm", "render", "--user", "ada", "--users-file", str(file)).code == 2


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "has no users"),
        (b"# none\n", "has no users"),
        (b"ada\nbob:x:many\n", "line 2: 'bob:x:many' is no user"),
        (b":x:2000\n", "line 1: ':x:2000' is no user"),
        (b"\xff\xfe", "is no list of users"),
    ],
)
def test_a_file_that_lists_no_users_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "users").write_bytes(content)
    with pytest.raises(UsageError, match=why):
        users.read(tmp_path / "users")
    with pytest.raises(UsageError, match="cannot read"):
        users.read(tmp_path / "none")


def test_who_is_there_keeps_a_number_whatever_a_file_says(ready: Place) -> None:
    with pytest.raises(UsageError, match="has other options") as caught:
        up(ready, "ada", "bob", uids=(1001, 3000))
    assert (
        caught.value.details == "accounts: ada (1001), bob (1002), and not ada (1001), bob (3000)"
    )
    made_ = up(ready, "ada", "bob", "eve", uids=(1001, 1002, 3000))
    assert made_
    assert made_.accounts[2].uid == 3000


@pytest.mark.parametrize("names", [("ada",), ("bob", "ada"), ("eve", "ada", "bob"), ("ada", "eve")])
def test_those_that_are_there_keep_their_numbers(
    ready: Place, slurm: FakeSlurm, names: tuple[str, ...]
) -> None:
    with pytest.raises(UsageError, match="has other options"):
        up(ready, *names)
    assert slurm.accounts == ["ada", "bob"]


def test_a_user_who_does_not_exist_is_refused_by_name() -> None:
    assert jobs.user_of(MANY, "") == "ada"
    assert jobs.user_of(MANY, "bob") == "bob"
    with pytest.raises(UsageError, match="no user 'eve'") as caught:
        jobs.user_of(MANY, "eve")
    assert caught.value.resolution == "Its users: ada, bob"


def test_what_slurm_says_of_a_script_is_the_error(
    place: Place, world: World, tmp_path: Path
) -> None:
    script = tmp_path / "job.sh"
    script.write_text("#!/bin/sh\n#SBATCH -p gpu\n")
    asked: list[list[str]] = []

    def kubectl(words: list[str]) -> tuple[int, str, str]:
        asked.append(words)
        return 1, "", (
            "sbatch: error: invalid partition specified: gpu\n"
            "sbatch: error: Batch job submission failed: Invalid partition name specified\n"
            "command terminated with exit code 1\n"
        )  # fmt: skip

    world.programs.answers["kubectl"] = kubectl
    with pytest.raises(SykubeError, match="invalid partition specified: gpu") as caught:
        jobs.submit(place, "user", script, ["--array=1-3"])
    assert caught.value.exit_code == ExitCode.FAILED
    assert "command terminated" not in caught.value.details
    assert asked[0][-3:] == ["sbatch", "--job-name=job.sh", "--array=1-3"]


@pytest.mark.parametrize("text", ["", "echo hello\n"])
def test_a_file_that_is_no_script_is_not_submitted(
    place: Place, slurm: FakeSlurm, tmp_path: Path, text: str
) -> None:
    (tmp_path / "job").write_text(text)
    with pytest.raises(UsageError, match="is no script"):
        jobs.submit(place, "user", tmp_path / "job", [])
    with pytest.raises(UsageError, match="cannot read"):
        jobs.submit(place, "user", tmp_path / "none", [])
    assert slurm.said == []


# --- the command line ---


def test_render_prints_manifests_of_its_options(sykube: Sykube) -> None:
    done = sykube(
        "slurm", "render", "-n", "lab", "--nodes", "3", "--cpus", "4", "--memory", "2Gi",
        "--image", "registry.example/slurm:1", "--domain", "site.example", "--home-class", "nfs",
    )  # fmt: skip
    assert done.code == 0
    found = list(yaml.safe_load_all(done.out))
    nodes = [e for e in found if e["kind"] == "StatefulSet" and e["metadata"]["name"][0] == "c"]
    assert len(nodes) == 3
    (container,) = nodes[0]["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"cpu": "4", "memory": "2Gi"}
    assert container["image"] == "registry.example/slurm:1"
    claims = {e["metadata"]["name"]: e["spec"] for e in found if e["kind"].endswith("Claim")}
    assert claims["home"]["storageClassName"] == "nfs"
    assert "storageClassName" not in claims["state"]


@pytest.mark.parametrize(
    "words", [("render", "--nodes", "-1"), ("up", "--nodes", "-1"), ("scale", "-1")]
)
def test_a_count_below_zero_is_refused(
    sykube: Sykube, world: World, words: tuple[str, ...]
) -> None:
    made(world, workers=0)
    named = () if words[0] == "render" else ("--name", "fake")
    done = sykube("slurm", *words, *named)
    assert done.code == ExitCode.USAGE
    assert "-1 nodes: there are" in done.err


def test_render_refuses_cgroups_for_jobs_of_one_user(sykube: Sykube) -> None:
    done = sykube("slurm", "render", "--confine", "cgroup")
    assert done.code == ExitCode.USAGE
    assert "--users many" in done.err
    done = sykube("slurm", "render", "--confine", "cgroup", "--users", "many")
    assert done.code == ExitCode.OK
    assert "CgroupPlugin=cgroup/v1" in done.out
    assert sykube("slurm", "render", "--confine", "cpuset").code == ExitCode.USAGE


def login_image(sykube: Sykube, *words: str) -> str:
    """What `render` says of the container of the user in the login pod."""
    documents = yaml.safe_load_all(sykube("slurm", "render", *words).out)
    (login,) = [each for each in documents if each["kind"] == "Deployment"]
    return str(login["spec"]["template"]["spec"]["containers"][0]["image"])


def test_compilers_are_rendered_by_an_image_that_the_other_kubernetes_has(sykube: Sykube) -> None:
    there = ("--image", "registry.example/slurm:1")
    assert login_image(sykube, *there) == "registry.example/slurm:1"
    assert login_image(sykube, "--compilers").startswith("sykube.local/slurm-compilers:")
    own = ("--login-image", "registry.example/compilers:1")
    assert login_image(sykube, *there, "--compilers", *own) == "registry.example/compilers:1"
    for words, why in (
        ((*there, "--compilers"), "--login-image NAME:TAG"),
        (own, "--login-image is for --compilers"),
    ):
        done = sykube("slurm", "render", *words)
        assert (done.code, why in done.err) == (ExitCode.USAGE, True), done.err


def test_accounting_is_rendered_on_the_daemons_storage(sykube: Sykube) -> None:
    done = sykube("slurm", "render", "--accounting", "--state-class", "fast")
    found = list(yaml.safe_load_all(done.out))
    claims = {e["metadata"]["name"]: e["spec"] for e in found if e["kind"].endswith("Claim")}
    assert claims["accounting"]["storageClassName"] == claims["state"]["storageClassName"] == "fast"
    names = [e["metadata"]["name"] for e in found if e["kind"] == "StatefulSet"]
    assert sorted(names) == ["c1", "c2", "slurmctld", "slurmdbd"]


def test_munge_is_rendered_for_any_kubernetes_or_for_a_new_one(sykube: Sykube) -> None:
    for options, place_ in (((), "containers"), (("--sidecars",), "initContainers")):
        done = sykube("slurm", "render", "--auth", "munge", *options)
        for each in yaml.safe_load_all(done.out):
            if each["kind"] in ("Deployment", "StatefulSet"):
                pod = each["spec"]["template"]["spec"]
                assert "munged" in [container["name"] for container in pod[place_]]
