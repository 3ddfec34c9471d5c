"""A real cluster for the tests of this folder.

With --long, those marked `long` run, and no other one; without it, all the others. Of these none may
be left out unseen: a run of this folder in which one was skipped or deselected fails, unless
SYKUBE_E2E_PARTIAL=1 says that it is meant.

SYKUBE_TEST_CLUSTER=NAME: the cluster that files share is that one, which somebody has made and deletes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sykube.host import apt, engines
from sykube.host.host import Host
from tests.e2e import release
from tests.e2e.cluster import UPSTREAM_NAME, TestCluster, host_before
from tests.e2e.resolver import Resolver
from tests.hostdiff import HostSnapshot
from tests.upstream import mirror

_left_out: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="what `make soak` runs, and only that")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/e2e" in str(item.path):
            item.add_marker(pytest.mark.e2e)
    other = [item for item in items if _is_of_other_run(item)]
    items[:] = [item for item in items if item not in other]
    config.hook.pytest_deselected(items=other)


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    _left_out.extend(
        item.nodeid
        for item in items
        if "tests/e2e" in str(item.path) and not _is_of_other_run(item)
    )


def _is_of_other_run(item: pytest.Item) -> bool:
    long = item.get_closest_marker("long") is not None
    return "tests/e2e" in str(item.path) and long != item.config.getoption("--long")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and "tests/e2e" in report.nodeid:
        _left_out.append(report.nodeid)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if _left_out and os.environ.get("SYKUBE_E2E_PARTIAL") != "1":
        print(f"\nreal-cluster tests were left out: {', '.join(sorted(set(_left_out)))}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session", autouse=True)
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """With SYKUBE_TEST_RELEASE=DIR: a mirror of that release, which the clusters are made of.

    Its node image is built first, unless the cache has it: then no other command needs the
    registry's password and authority.
    """
    folders = mirror.folders()
    if not folders:
        yield
        return
    engines.find_or_create(Host(), lambda: apt.find_mirror(Host()), print)
    ports = (mirror.PORT, mirror.PORT + 1)
    folder = tmp_path_factory.mktemp("release")
    with (
        mirror.running(folder, folders, plain=True, ports=ports) as running,
        pytest.MonkeyPatch.context() as patched,
    ):
        for name, value in {**running.choice, release.SERVED: running.version}.items():
            patched.setenv(name, value)
        mirror.node_image(running)
        yield


@pytest.fixture(scope="session")
def resolver() -> Iterator[Resolver]:
    """A resolver on the host's loopback that knows one name of the outside."""
    with Resolver({UPSTREAM_NAME: "192.0.2.80"}) as running:
        yield running


@pytest.fixture(scope="session")
def cluster(resolver: Resolver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestCluster]:
    """Two nodes, whose host has its resolver on loopback alone; deleted at the end."""
    folder = tmp_path_factory.mktemp("e2e")
    if made := os.environ.get("SYKUBE_TEST_CLUSTER"):
        yield TestCluster(made, folder)
        return
    cluster = TestCluster("e2e", folder, before=_clean_snapshot("e2e", folder))
    resolv_conf = folder / "resolv.conf"
    resolv_conf.write_text(f"nameserver {resolver.address}\n")
    (cluster.site / "scratch").mkdir(parents=True)
    cluster.init("--workers", "1", "--yes", *cluster.pod_options, resolv_conf=resolv_conf)
    yield cluster
    cluster.delete_quietly()


@pytest.fixture(scope="session")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestCluster]:
    """Two nodes with the add-on metrics, for the tests of what shows a cluster; both leave it."""
    made = TestCluster("e2e-dash", tmp_path_factory.mktemp("dash"))
    made.delete_quietly()
    made.init("--workers", "1", "--dns", "192.0.2.53", "--addon", "metrics", "--yes")
    yield made
    made.delete_quietly()


def _clean_snapshot(name: str, folder: Path) -> HostSnapshot:
    """What the host is like without this cluster, whatever an earlier run left."""
    leftover = TestCluster(name, folder)
    leftover.delete_quietly()
    # The first init sets up what is never undone; its folders are not the cluster's.
    shutil.rmtree("/var/log/sykube/e2e", ignore_errors=True)
    return host_before(name)
