"""What a cluster does to the settings that the whole machine shares, and undoes."""

from __future__ import annotations

import pytest

from sykube.host.host import Host
from tests.e2e import settings
from tests.e2e.cluster import TestCluster, data_folders
from tests.hostdiff import HostSnapshot, leaks_since

NAME = "e2e-host"


def test_the_last_cluster_puts_the_hosts_settings_back(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    cluster = TestCluster(NAME, tmp_path_factory.mktemp("host"))
    cluster.delete_quietly()
    before, host = HostSnapshot.take(data_folders(NAME)), Host()
    of_host = settings.read(host)
    cluster.init("--workers", "0", "--dns", "192.0.2.53", "--yes")
    try:
        assert settings.read(host) == settings.of_nodes(of_host)
    finally:
        cluster.sykube("delete", "--name", NAME, "--yes")
    leaks = leaks_since(before)
    assert not leaks, "\n".join(str(leak) for leak in leaks)
    assert settings.read(host) == of_host
