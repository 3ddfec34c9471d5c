"""A user's cluster in a fake world: what differs from root's."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from sykube.cluster.commands import lifecycle, power, removal, service_urls, status
from sykube.cluster.commands.lifecycle import InitOptions
from sykube.cluster.commands.power import StopOptions
from sykube.cluster.model import lookup
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.model.state import clusters
from sykube.cluster.operations import cgroup_version, control_plane, nodes
from sykube.errors import ExitCode, HostError, SykubeError
from sykube.host import belonging, granted
from sykube.host.grants import Grants
from sykube.host.logout import Logout
from sykube.host.records import HostRecords
from sykube.image import versions
from sykube.kubernetes.kubeadm import init_documents
from sykube.network.ports import PortMap
from tests.fakes import World, fill
from tests.unit.helpers import fake_spec, init, unchanged

NOTHING = Grants(rootless=True, cgroups=False, users=False, user="ada", uid=1000)
ARRIVAL = "10.0.2.100"


@pytest.fixture
def published(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> dict[str, set[tuple[str, str, int]]]:
    """The world as a user sees it; the host's ports that lead there, by cluster."""
    found: dict[str, set[tuple[str, str, int]]] = {}

    def publish(cluster: str, ports: Collection[tuple[str, str, int]]) -> None:
        if any(number in network.taken for _, _, number in ports):
            raise HostError("in use", resolution="Take another one.")
        found[cluster] = {*ports}

    network = world.network
    monkeypatch.setattr(network, "arrival", ARRIVAL, raising=False)
    monkeypatch.setattr(network, "publish", publish)
    monkeypatch.setattr(network, "api_port", lambda taken: max([16442, *taken]) + 1)
    fill(world.root / "dev/net", {"tun": ""})
    # Root has raised them, or else there is a warning.
    world.kernel.define("fs/inotify/max_user_instances", "1024")
    world.kernel.define("net/bridge/bridge-nf-call-iptables", "1")
    monkeypatch.setattr(granted, "PROGRAMS", ("ip",))
    world.host = replace(world.host, grants=NOTHING)
    return found


Published = dict[str, set[tuple[str, str, int]]]


def made(world: World, **fields: Any) -> Cluster:
    cluster = init(world, fake_spec(**fields))
    assert cluster is not None
    return cluster


def test_it_is_made_and_deleted_without_changing_anything_of_the_hosts(
    world: World, published: Published
) -> None:
    with unchanged(world):
        cluster = made(world)
        recorded = HostRecords.load(world.host)
        assert recorded
        assert all(key.startswith("net/") for key in recorded.sysctls)
        assert cluster.state.complete
        assert published["fake"] == {("tcp", "127.0.0.1", 16443)}
        assert not (world.cgroup_root / "cpu/sykube").exists()
        assert removal.delete(world.host, "fake", world.ui()) == []
        assert published["fake"] == set()


def test_init_says_in_a_line_what_is_granted(world: World, published: Published) -> None:
    ui = world.ui()
    assert init(world, ui=ui)
    (line,) = (each for each in ui.said if each.startswith("Without root"))
    assert "one user ID and no limits" in line
    assert not any("administrator" in each for each in ui.warnings)


def test_nodes_are_told_that_they_have_no_cgroups(world: World, published: Published) -> None:
    lines = made(world).master.pull("/etc/sykube/node.env").read_text().splitlines()
    assert {"SYKUBE_CGROUP=", "SYKUBE_ROOTLESS=yes"} <= {*lines}


def test_nodes_of_root_are_told_nothing_of_that(world: World) -> None:
    lines = made(world).master.pull("/etc/sykube/node.env").read_text().splitlines()
    assert "SYKUBE_CGROUP=sykube/fake-master" in lines
    assert not any("ROOTLESS" in line for line in lines)


@pytest.mark.parametrize("each", versions.MINORS, ids=lambda each: each.version)
def test_nodes_are_told_whether_their_kubelet_refuses_cgroup_v1(
    world: World, published: Published, each: versions.Minor
) -> None:
    cluster = made(world)
    image = cluster.image.folder / "versions"
    image.write_text(f"kubernetes=v{each.version}.1\ncontainerd={each.containerd}\n")
    nodes.prepare(cluster, cluster.master)
    lines = cluster.master.pull("/etc/sykube/node.env").read_text().splitlines()
    assert f"SYKUBE_REFUSES_V1={'yes' if each.refuses_cgroup_v1 else ''}" in lines


def test_where_cgroups_are_granted_nodes_have_them(world: World, published: Published) -> None:
    world.host = replace(world.host, grants=replace(NOTHING, cgroups=True))
    lines = made(world).master.pull("/etc/sykube/node.env").read_text().splitlines()
    assert {"SYKUBE_CGROUP=sykube/fake-master", "SYKUBE_ROOTLESS=yes"} <= {*lines}


def test_the_users_kubeconfig_leads_to_the_hosts_loopback(
    world: World, published: Published
) -> None:
    cluster = made(world)
    for file in (cluster.paths.kubeconfig, Path(cluster.state.kubeconfig)):
        servers = [
            each["cluster"]["server"] for each in yaml.safe_load(file.read_text())["clusters"]
        ]
        assert "https://127.0.0.1:16443" in servers
        assert f"https://{cluster.endpoint}" not in servers


def test_what_arrives_for_a_port_is_led_on(world: World, published: Published) -> None:
    cluster = made(world, ports=("8080:30080",))
    assert ("tcp", "127.0.0.1", 8080) in published["fake"]
    addresses = {port.address for port, _ in cluster.wiring.ports if port.host_port == 8080}
    assert addresses == {"127.0.0.1", ARRIVAL}


def test_two_clusters_have_ports_of_their_own(world: World, published: Published) -> None:
    assert made(world).state.api_port == 16443
    assert made(world, name="other").state.api_port == 16444


def test_an_api_server_whose_port_was_taken_meanwhile_gets_another(
    world: World, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = made(world)
    power.stop(world.host, "fake", StopOptions(), world.ui())
    world.network.taken.add(16443)
    monkeypatch.setattr(world.network, "api_port", lambda _: 16500)
    assert power.start(world.host, "fake", world.ui())
    assert published["fake"] == {("tcp", "127.0.0.1", 16500)}
    for file in (cluster.paths.kubeconfig, Path(cluster.state.kubeconfig)):
        assert "https://127.0.0.1:16500" in file.read_text()
        assert "16443" not in file.read_text()


def test_a_port_that_another_user_takes_at_the_same_time_is_not_the_api_servers(
    world: World, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have looked before one of them has it."""
    free = iter((16443, 16443, 16444))
    monkeypatch.setattr(world.network, "api_port", lambda _: next(free))
    world.network.taken.add(16443)
    cluster = made(world)
    assert published["fake"] == {("tcp", "127.0.0.1", 16444)}
    assert "https://127.0.0.1:16444" in cluster.paths.kubeconfig.read_text()


def test_what_needs_cgroups_says_so(world: World, published: Published) -> None:
    made(world)
    with pytest.raises(HostError, match="pausing needs cgroups"):
        power.pause(world.host, "fake", world.ui())


def test_start_says_that_a_logout_would_end_it(world: World, published: Published) -> None:
    made(world)
    for logout, said in ((Logout(False, "so ends it", "so lives it"), 1), (Logout(True), 0)):
        world.host = replace(world.host, grants=replace(NOTHING, logout=logout))
        ui = world.ui()
        power.start(world.host, "fake", ui)
        assert ui.warnings.count("logout: so ends it. so lives it") == said


def test_init_says_it_too(world: World, published: Published) -> None:
    logout = Logout(False, "so ends it", "so lives it")
    world.host = replace(world.host, grants=replace(NOTHING, logout=logout))
    ui = world.ui()
    assert init(world, ui=ui)
    assert "logout: so ends it. so lives it" in ui.warnings


def test_what_needs_root_says_so(world: World, published: Published) -> None:
    made(world)
    records = HostRecords(world.host)
    with pytest.raises(HostError) as caught:
        records.load_module("br_netfilter")
    assert "modprobe br_netfilter" in caught.value.resolution
    records.set_sysctl("fs/inotify/max_user_instances", "9999")
    assert world.kernel.sysctl("fs/inotify/max_user_instances") == "1024"


def test_an_image_that_nobody_built_is_asked_for(
    world: World, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sykube.image.build.list_images", lambda _: [])
    with pytest.raises(HostError) as caught:
        lifecycle.init(world.host, fake_spec(), InitOptions(yes=True), world.ui())
    assert "sykube node-image build" in caught.value.resolution
    assert "--local-image" in caught.value.resolution


def test_without_cgroups_every_kubernetes_runs(world: World, published: Published) -> None:
    """Its nodes see no cgroup v1, which the newest refuse where it is granted."""
    newest = versions.MINORS[-1]
    assert cgroup_version.fitting(world.host, allow_v1=False)[0] == newest.version
    cgroup_version.require_cgroup_version(world.host, newest, allow_v1=False)
    with_cgroups = replace(world.host, grants=replace(NOTHING, cgroups=True))
    assert newest.version not in cgroup_version.fitting(with_cgroups, allow_v1=False)
    with pytest.raises(HostError, match="this host has cgroup v1"):
        cgroup_version.require_cgroup_version(with_cgroups, newest, allow_v1=False)
    cgroup_version.require_cgroup_version(with_cgroups, newest, allow_v1=True)


def test_a_cluster_that_was_made_without_them_says_what_was_granted_since(
    world: World, published: Published
) -> None:
    newest = versions.MINORS[-1]
    cgroup_version.check_again(world.host, newest, allow_v1=False)
    granted_since = replace(world.host, grants=replace(NOTHING, cgroups=True))
    with pytest.raises(HostError) as caught:
        cgroup_version.check_again(granted_since, newest, allow_v1=False)
    assert "rmdir /sys/fs/cgroup/*/sykube-1000" in caught.value.resolution
    assert "--allow-cgroup-v1" in caught.value.resolution


@pytest.mark.parametrize(("version", "told"), [("1.20", False), ("1.30", True), ("1.36", True)])
def test_a_newer_kubelet_is_told_that_it_is_in_a_user_namespace(
    world: World, published: Published, version: str, told: bool
) -> None:
    settings = replace(control_plane.settings(made(world)), minor=versions.minor(version))
    for rootless in (True, False):
        documents = init_documents(replace(settings, rootless=rootless))
        (found,) = (each for each in documents if each["kind"] == "KubeletConfiguration")
        assert ("KubeletInUserNamespace" in found.get("featureGates", {})) is (told and rootless)


def test_a_service_is_reached_by_a_port_of_the_host_only(
    world: World, published: Published
) -> None:
    cluster = made(world)
    port = {"port": 80, "nodePort": 30080, "protocol": "TCP"}
    spec = {"ports": [port], "clusterIP": "10.96.0.7", "type": "NodePort"}
    service = {"metadata": {"name": "web"}, "spec": spec}
    assert list(service_urls._ways(cluster, service, port)) == []
    error = service_urls._unpublished(cluster, service)
    assert (error.exit_code, error.resolution) == (
        ExitCode.DEGRADED, "sykube port add 8080:30080 --name fake",
    )  # fmt: skip
    cluster.state.ports.append(PortMap("127.0.0.1", 8080, 30080))
    assert list(service_urls._ways(cluster, service, port)) == [("host port", "127.0.0.1", 8080)]


def test_no_error_of_a_user_names_sudo(world: World, published: Published) -> None:
    world.user = 1000
    with pytest.raises(SykubeError) as caught:
        removal.delete(world.host, "absent", world.ui())
    assert caught.value.exit_code is ExitCode.NO_SUCH_CLUSTER


def test_the_cluster_of_another_host_is_listed_and_not_touched(
    world: World, published: Published
) -> None:
    fill(world.root / "etc", {"machine-id": "0123\n"})
    world.kernel.define("kernel/hostname", "login1")
    made(world)
    fill(world.root / "etc", {"machine-id": "4567\n"})
    world.kernel.define("kernel/hostname", "login2")
    other, ui = world.host, world.ui()
    with unchanged(world):
        (listed,) = status.glances(other, ui)
        assert (listed.name, listed.state) == ("fake", "elsewhere on login1")
        assert clusters(other) == []
        refused: list[Callable[[], object]] = [
            lambda: power.start(other, "fake", ui),
            lambda: power.stop(other, "fake", StopOptions(), ui),
            lambda: removal.delete(other, "fake", ui),
            lambda: init(world),
            lambda: lookup.load(other, "fake", ui),
            lambda: belonging.require_no_others(other, "these"),
        ]
        for action in refused:
            with pytest.raises(SykubeError) as caught:
                action()
            assert caught.value.exit_code is ExitCode.ELSEWHERE
            assert "login1" in caught.value.brief
        assert removal.delete_all(other, ui) == []
    # Another one is this host's, and the last of it to go.
    assert init(world, fake_spec("here"))
    assert removal.delete(other, "here", ui) == []
    fill(world.root / "etc", {"machine-id": "0123\n"})
    assert [each.name for each in status.glances(world.host, ui)] == ["fake"]
    assert removal.delete(world.host, "fake", ui) == []
    assert not (world.host.data / "fake.host").exists()
