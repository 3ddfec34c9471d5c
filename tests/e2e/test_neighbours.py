"""Root and two ordinary users have a cluster of the same name each: none knows of the others'."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cluster import TestCluster, eventually, free_port, host_before
from tests.e2e.of_users import cluster_of, host_changes
from tests.hostdiff import HostSnapshot, leaks_since
from tests.machine import users
from tests.machine.users import User

pytestmark = pytest.mark.long

NAME = "e2e-same"
# One with IDs of its own, and one that has nothing.
USERS = {"e2e-left": 470_000, "e2e-right": 0}
_INIT_S = 900


@dataclass
class Street:
    """Whose cluster is whose.

    Attributes:
        owners: root first.
        before: the host without any of them.
    """

    owners: dict[str, TestCluster]
    data: dict[str, Path]
    users: dict[str, User]
    before: HostSnapshot

    @property
    def root(self) -> TestCluster:
        return self.owners["root"]

    def delete(self, owner: str) -> None:
        self.owners.pop(owner).sykube("delete", "--name", NAME, "--yes")


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Street]:
    """The three are made at the same time."""
    with contextlib.ExitStack() as stack:
        made = {name: stack.enter_context(users.made(name, ids=ids)) for name, ids in USERS.items()}
        owners = {"root": TestCluster(NAME, tmp_path_factory.mktemp("root"))}
        data = {"root": Path("/var/lib/sykube")}
        for name, user in made.items():
            owners[name] = cluster_of(user, NAME)
            # Nodes and pods that are other users have to read what sykube writes.
            owners[name].prefix += ("sh", "-c", 'umask 077; exec "$@"', "sh")
            data[name] = user.home / ".local/share/sykube"
        owners["root"].delete_quietly()
        homes = [user.home for user in made.values()]
        before = host_before(NAME, *homes)
        for cluster in owners.values():
            stack.callback(cluster.delete_quietly)
        _init_all(owners)
        yield Street(dict(owners), data, made, before)


def _init_all(owners: dict[str, TestCluster]) -> None:
    inits = []
    for owner, cluster in owners.items():
        # What is asked for of several nodes is in test_rootless.py; here root has one.
        workers = "0" if owner == "root" else "1"
        command = cluster.init_command("--workers", workers, "--dns", "192.0.2.53")
        inits.append(subprocess.Popen(command, env=cluster.environment))
    codes = [init.wait(_INIT_S) for init in inits]
    assert codes == [0, 0, 0]


def _listed(cluster: TestCluster) -> list[tuple[str, str, int]]:
    found = json.loads(cluster.sykube("list", "-o", "json").stdout)
    return [(each["name"], each["state"], each["nodes"]) for each in found]


def _status(cluster: TestCluster) -> Any:
    return json.loads(cluster.sykube("status", "--name", NAME, "-o", "json").stdout)


def _owner_in(cluster: TestCluster) -> str:
    return cluster.kubectl("get", "configmap", "owner", "-o", "jsonpath={.data.name}")


def _assert_own(owner: str, cluster: TestCluster) -> None:
    nodes = 1 if owner == "root" else 2
    assert _listed(cluster) == [(NAME, "running", nodes)]
    found = _status(cluster)
    assert found["status"] == "healthy", found
    assert len(found["nodes"]) == nodes
    assert _owner_in(cluster) == owner


def test_they_have_the_same_name_and_subnets(street: Street) -> None:
    ranges = []
    for owner, cluster in street.owners.items():
        state = json.loads((street.data[owner] / NAME / "state.json").read_text())
        ranges.append(state["subnets"])
        cluster.kubectl("create", "configmap", "owner", f"--from-literal=name={owner}")
    assert ranges[0] == ranges[1] == ranges[2]


def test_each_lists_and_reaches_its_own(street: Street) -> None:
    for owner, cluster in street.owners.items():
        _assert_own(owner, cluster)


def test_each_has_one_context_and_an_address_of_its_own(street: Street) -> None:
    servers = []
    for cluster in street.owners.values():
        kubeconfig = ("--kubeconfig", str(cluster.kubeconfig))
        named = cluster.kubectl(*kubeconfig, "config", "get-contexts", "-o", "name")
        assert named.split() == [NAME]
        servers.append(
            cluster.kubectl(
                *kubeconfig, "config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"
            )
        )
    assert len({*servers}) == len(street.owners), servers


def test_a_port_that_one_has_is_refused_to_the_others(street: Street) -> None:
    port = str(free_port())
    first, *others = [street.owners[owner] for owner in ("e2e-left", "root", "e2e-right")]
    first.sykube("port", "add", "--name", NAME, f"{port}:30080")
    for cluster in others:
        done = cluster.sykube("port", "add", "--name", NAME, f"{port}:30080", check=False)
        assert done.returncode == 6
        assert f"the port {port} of 127.0.0.1 is in use on this host" in done.stderr
        assert cluster.sykube("port", "list", "--name", NAME).stdout == ""
    first.sykube("port", "delete", "--name", NAME, port)
    others[1].sykube("port", "add", "--name", NAME, f"{port}:30080")


@pytest.mark.parametrize(("protocol", "owners"), [("tcp", [*USERS]), ("udp", ["e2e-right"])])
def test_a_port_that_rules_of_the_host_lead_to_root_is_refused_to_users(
    street: Street, protocol: str, owners: list[str]
) -> None:
    """Nobody listens on it; a user who did would get nothing of what is sent there."""
    text = f"{free_port()}:30080/{protocol}"
    street.root.sykube("port", "add", "--name", NAME, text)
    for owner in owners:
        done = street.owners[owner].sykube("port", "add", "--name", NAME, text, check=False)
        assert done.returncode == 6
        assert "is led elsewhere on this host" in done.stderr
    street.root.sykube("port", "delete", "--name", NAME, text.partition(":")[0])
    for owner in owners[:1]:
        street.owners[owner].sykube("port", "add", "--name", NAME, text)


def test_one_that_stops_stops_no_other(street: Street) -> None:
    street.root.sykube("stop", "--name", NAME)
    for owner in USERS:
        _assert_own(owner, street.owners[owner])
    street.owners["e2e-left"].sykube("stop", "--name", NAME)
    street.root.sykube("start", "--name", NAME)
    _assert_own("root", street.root)
    _assert_own("e2e-right", street.owners["e2e-right"])


def test_each_deletes_its_own_and_no_other(street: Street) -> None:
    """The last test: one that is stopped, root's, and one that runs."""
    street.delete("e2e-left")
    left = street.users["e2e-left"]
    eventually("all its processes have ended", lambda: not left.processes(), timeout=10)
    for owner, cluster in street.owners.items():
        _assert_own(owner, cluster)
    street.delete("root")
    assert host_changes(street.before) == []
    _assert_own("e2e-right", street.owners["e2e-right"])
    street.delete("e2e-right")
    right = street.users["e2e-right"]
    eventually("all its processes have ended", lambda: not right.processes(), timeout=10)
    kept = ("/.cache", "/.local", "/.kube", "/kubeconfig")
    left_over = [each for each in leaks_since(street.before) if not _is_of(each.what, kept)]
    assert left_over == [], "\n".join(map(str, left_over))
    for data in street.data.values():
        assert not (data / NAME).exists()


def _is_of(file: str, folders: tuple[str, ...]) -> bool:
    return any(f"/home-{name}{folder}" in file for name in USERS for folder in folders)
