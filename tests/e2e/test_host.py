"""What a cluster does to the settings that the whole machine shares, and undoes."""

from __future__ import annotations

import pytest

from sykube.host.host import Host
from tests.e2e import settings
from tests.e2e.cluster import TestCluster

NAME = "e2e-host"


def test_the_last_cluster_puts_the_hosts_settings_back(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    cluster = TestCluster(NAME, tmp_path_factory.mktemp("host"))
    cluster.delete_quietly()
    host = Host()
    before = settings.read(host)
    cluster.init("--workers", "0", "--dns", "192.0.2.53", "--yes")
    try:
        assert settings.read(host) == settings.of_nodes(before)
    finally:
        cluster.sykube("delete", "--name", NAME, "--yes")
    assert settings.read(host) == before
