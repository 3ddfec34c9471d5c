"""What a cluster does to the settings that the whole machine shares, and undoes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sykube.host.host import Host
from tests.e2e import settings
from tests.e2e.cluster import TestCluster, data_folders
from tests.hostdiff import HostSnapshot, leaks_since

NAME = "e2e-host"
# Of these that a test may change, neither what a node makes them nor what Linux has.
UNUSUAL = {"kernel/panic": "7", "kernel/keys/root_maxkeys": "900000"}


@pytest.fixture
def unusual() -> Iterator[dict[str, int]]:
    host = Host()
    files = {host.proc_sys / key: value for key, value in UNUSUAL.items()}
    before = {file: file.read_text(encoding="utf-8") for file in files}
    try:
        for file, value in files.items():
            file.write_text(value, encoding="utf-8")
        yield settings.read(host)
    finally:
        for file, value in before.items():
            file.write_text(value, encoding="utf-8")


def test_the_last_cluster_puts_the_hosts_settings_back(
    tmp_path_factory: pytest.TempPathFactory, unusual: dict[str, int]
) -> None:
    cluster = TestCluster(NAME, tmp_path_factory.mktemp("host"))
    cluster.delete_quietly()
    before = HostSnapshot.take(data_folders(NAME))
    cluster.init("--workers", "0", "--dns", "192.0.2.53", "--yes")
    try:
        assert settings.read(Host()) == settings.of_nodes(unusual)
    finally:
        cluster.sykube("delete", "--name", NAME, "--yes")
    leaks = leaks_since(before)
    assert not leaks, "\n".join(str(leak) for leak in leaks)
    assert settings.read(Host()) == unusual
