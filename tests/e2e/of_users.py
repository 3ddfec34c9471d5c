"""Clusters of ordinary users, as the tests of them have them."""

from __future__ import annotations

import subprocess

from sykube.host import granted
from sykube.host.grants import Grants
from sykube.host.host import Host
from tests.e2e.cluster import TestCluster
from tests.hostdiff import HostSnapshot
from tests.machine import users
from tests.machine.users import User

# What a cluster of a user has of its own on the host.
_OWN = ("process", "cgroup", "file")


def cluster_of(user: User, name: str) -> TestCluster:
    """A cluster that a user's sykube makes."""
    return TestCluster(
        name, user.home, prefix=user.prefix, own=user.environment, instead=True,
        python=users.PYTHON,
    )  # fmt: skip


def give_cgroups(user: User) -> None:
    """As root, by the line that `doctor` tells a user without them to ask for."""
    host = Host(grants=Grants(rootless=True, user=user.name, uid=user.uid))
    subprocess.run(["sh", "-ec", granted.cgroup_command(host)], check=True)


def host_changes(before: HostSnapshot) -> list[str]:
    """What is different on the host, but for what a user's cluster has there of its own."""
    found = before.diff(HostSnapshot.take(before.data_folders))
    # A namespace without a name is one of the user's processes.
    return [
        str(each) for each in found if each.kind not in _OWN and not each.what.startswith("net:[")
    ]
