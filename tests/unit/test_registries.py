"""Mirrors of registries, credentials for them, and the cluster's own registry."""

from __future__ import annotations

import base64
import json
import logging
import tomllib
from pathlib import Path
from typing import Any

import pytest

from sykube.cluster.commands import addons, lifecycle, power, scaling
from sykube.cluster.commands import ports as cluster_ports
from sykube.cluster.commands.lifecycle import InitOptions
from sykube.cluster.commands.power import StopOptions
from sykube.cluster.model import lookup
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.model.spec import ClusterSpec
from sykube.cluster.model.spec_reader import make_spec
from sykube.errors import SykubeError, UsageError
from sykube.host.host import Host
from sykube.image import registries
from sykube.image.registries import Mirror
from tests.fakes import World
from tests.unit.helpers import init, unchanged

MIRROR = "docker.io=https://mirror.example"
PASSWORD = 'pa"ss\\w:rd'
DEPLOYMENT = "/apis/apps/v1/namespaces/kube-system/deployments/registry"
PLUGIN = "io.containerd.grpc.v1.cri"


def docker_config(file: Path, **logins: str) -> Path:
    """As `docker login` writes it; dots in hosts are written as two underscores."""
    file.parent.mkdir(parents=True, exist_ok=True)
    auths = {
        host.replace("__", "."): {"auth": base64.b64encode(login.encode()).decode()}
        for host, login in logins.items()
    }
    file.write_text(json.dumps({"auths": auths}), encoding="utf-8")
    return file


def up(world: World, **fields: Any) -> Cluster:
    found = init(world, ClusterSpec(name="fake", dns=("192.0.2.1",), **fields))
    assert found is not None
    return found


def hosts(cluster: Cluster, name: str) -> dict[str, Any]:
    """What a node's containerd knows of each registry."""
    folder = cluster.node(name).pull("/etc/sykube/certs.d")
    return {file.parent.name: tomllib.loads(file.read_text()) for file in folder.glob("*/*")}


def passwords(cluster: Cluster, name: str) -> dict[str, Any]:
    text = cluster.node(name).pull("/etc/sykube/registry-auth.toml").read_text()
    configs = tomllib.loads(text)["plugins"][PLUGIN]["registry"]["configs"]
    return {host: value["auth"] for host, value in configs.items()}


# --- mirrors ---


def test_every_node_looks_at_the_mirrors_first(world: World) -> None:
    mirrors = (MIRROR, "docker.io=http://second.example:5000/", "ghcr.io=https://m.example/v2")
    cluster = up(world, registry_mirrors=mirrors)
    able = {"capabilities": ["pull", "resolve"]}
    for name in ("master", "node1"):
        assert hosts(cluster, name) == {
            "docker.io": {
                "server": "https://registry-1.docker.io",
                "host": {"https://mirror.example": able, "http://second.example:5000": able},
            },
            "ghcr.io": {
                "server": "https://ghcr.io",
                "host": {"https://m.example/v2": able},
            },
        }


def test_a_node_that_joins_knows_them_too(world: World) -> None:
    login = docker_config(world.root / "auth.json", mirror__example=f"me:{PASSWORD}")
    cluster = up(world, registry_mirrors=(MIRROR,), registry_auth=str(login))
    scaling.add(world.host, "fake", 1, world.ui())
    assert hosts(cluster, "node2") == hosts(cluster, "node1") != {}
    assert passwords(cluster, "node2") == passwords(cluster, "node1")


@pytest.mark.parametrize(
    "text",
    [
        "docker.io", "=https://x", "docker.io=x", "docker.io=ftp://x", "docker.io=https://",
        "a b=https://x", "../x=https://y", "docker.io=https://[x",
    ],
)  # fmt: skip
def test_what_is_no_mirror(host: Host, text: str) -> None:
    with pytest.raises(UsageError, match="mirror"):
        make_spec(host, None, {"registry_mirrors": (text,)})


def test_a_password_in_the_url_is_refused_and_not_shown(
    host: Host,
) -> None:
    for text in ("docker.io=https://me:geheim@x.example", "docker io=https://me:geheim@x"):
        with pytest.raises(UsageError) as raised:
            make_spec(host, None, {"registry_mirrors": (text,)})
        assert "geheim" not in f"{raised.value.brief}{raised.value.details}"


def test_mirrors_of_the_configuration_file(host: Host, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(f"registryMirrors: ['{MIRROR}']\n")
    assert make_spec(host, tmp_path / "c.yaml", {}).registry_mirrors == (MIRROR,)


# --- credentials ---


def test_credentials_are_for_root_alone_and_in_no_log(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    file = docker_config(
        world.root / "auth.json",
        **{"ghcr__io": f"me:{PASSWORD}", "https://index__docker__io/v1/": "you:other"},
    )
    cluster = up(world, registry_auth=str(file))
    for name in ("master", "node1"):
        assert passwords(cluster, name) == {
            "ghcr.io": {"username": "me", "password": PASSWORD},
            "registry-1.docker.io": {"username": "you", "password": "other"},
        }
        assert (
            cluster.node(name).pull("/etc/sykube/registry-auth.toml").stat().st_mode & 0o777
            == 0o600
        )
    kept = cluster.paths.root / "registry-auth.toml"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert PASSWORD not in caplog.text
    assert json.dumps(PASSWORD) not in caplog.text
    assert PASSWORD not in "".join(map(str, world.calls.all))
    assert PASSWORD not in cluster.paths.state.read_text()


def test_of_the_users_own_file_only_what_mirrors_need_is_taken(world: World) -> None:
    docker_config(
        world.root / "home/.docker/config.json",
        mirror__example="me:one", ghcr__io="me:two", docker__io="me:three",
    )  # fmt: skip
    cluster = up(world, registry_mirrors=(MIRROR,))
    assert {*passwords(cluster, "node1")} == {"mirror.example", "registry-1.docker.io"}


def test_without_mirrors_the_users_own_file_is_left_alone(world: World) -> None:
    docker_config(world.root / "home/.docker/config.json", ghcr__io="me:two")
    cluster = up(world)
    assert not cluster.master.pull("/etc/sykube/registry-auth.toml").exists()


def test_a_broken_file_of_the_user_is_only_a_warning(world: World) -> None:
    file = docker_config(world.root / "home/.docker/config.json")
    file.write_text("geheim")
    ui = world.ui()
    init(world, ClusterSpec(name="fake", registry_mirrors=(MIRROR,), dns=("192.0.2.1",)), ui)
    assert len(ui.warnings) == 1
    assert "geheim" not in ui.warnings[0]


@pytest.mark.parametrize(
    "content",
    [
        None, "geheim", "[]", '{"auths": []}', '{"auths": {}}', '{"auths": {"a": "geheim"}}',
        '{"auths": {"a": {"auth": "geheim!"}}}', '{"auths": {"a": {"auth": "Z2VoZWlt"}}}',
        '{"auths": {"a": {}}, "credsStore": "desktop"}',
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_changes_nothing(content: str | None, world: World) -> None:
    file = world.root / "auth.json"
    if content is not None:
        file.write_text(content)
    with unchanged(world), pytest.raises(UsageError) as raised:
        up(world, registry_auth=str(file))
    assert "geheim" not in f"{raised.value.brief}{raised.value.details}"


def test_an_identity_token_is_passed_on(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    file.write_text('{"auths": {"x.example": {"username": "me", "identitytoken": "geheim"}}}')
    (login,) = registries.read_logins(file)
    assert "geheim" not in repr(login)
    text = registries.auth_toml([login], "1.7.24")
    auth = tomllib.loads(text)["plugins"][PLUGIN]["registry"]["configs"]["x.example"]["auth"]
    assert auth == {"username": "me", "identitytoken": "geheim"}


def test_hosts_of_a_mirror_as_containerd_asks_for_them() -> None:
    assert Mirror.parse(MIRROR).hosts == ("registry-1.docker.io", "mirror.example")


# --- the cluster's own ---


@pytest.fixture
def cluster(world: World) -> Cluster:
    return up(world)


def now(world: World) -> Cluster:
    return lookup.load(world.host, "fake", world.ui())


def test_the_registry_is_on_the_hosts_loopback_and_known_to_every_node(
    world: World, cluster: Cluster
) -> None:
    ui = world.ui()
    addons.enable(cluster.host, "fake", "registry", ui)
    found = now(world)
    assert [str(port) for port in found.state.ports] == ["127.0.0.1:5000:31000"]
    assert "127.0.0.1:5000" in ui.said[0]
    url = f"http://{cluster.endpoint_address}:31000"
    place = {"server": url, "host": {url: {"capabilities": ["pull", "resolve", "push"]}}}
    names = ("127.0.0.1:5000", "localhost:5000", "registry.kube-system.svc.cluster.local:5000")
    for name in ("master", "node1"):
        assert hosts(found, name) == dict.fromkeys(names, place)
    rules = [rule for rules in world.kernel.tables["nat"].values() for rule in rules]
    assert any("5000" in rule and "DNAT" in rule for rule in rules)


def test_it_survives_stop_and_start_and_new_nodes_know_it(world: World, cluster: Cluster) -> None:
    addons.enable(cluster.host, "fake", "registry", world.ui())
    before = hosts(now(world), "node1")
    power.stop(cluster.host, "fake", StopOptions(), world.ui())
    power.start(cluster.host, "fake", world.ui())
    scaling.add(cluster.host, "fake", 1, world.ui())
    assert hosts(now(world), "node2") == hosts(now(world), "node1") == before


def test_start_waits_until_it_answers_again(world: World, cluster: Cluster) -> None:
    addons.enable(cluster.host, "fake", "registry", world.ui())
    power.stop(cluster.host, "fake", StopOptions(), world.ui())
    silence = ["refused", "refused", ""]
    world.network.refused = lambda _: silence.pop(0)
    power.start(cluster.host, "fake", world.ui())
    assert silence == []


@pytest.mark.parametrize("what", ["its port", "its pods", "its Deployment"])
def test_start_does_not_wait_for_what_the_user_took_away(
    world: World, cluster: Cluster, what: str
) -> None:
    addons.enable(cluster.host, "fake", "registry", world.ui())
    objects = world.kubernetes["fake"].objects
    if what == "its port":
        cluster_ports.remove(cluster.host, "fake", "5000", world.ui())
    elif what == "its pods":
        objects[DEPLOYMENT]["spec"]["replicas"] = 0
    else:
        del objects[DEPLOYMENT]
    power.stop(cluster.host, "fake", StopOptions(), world.ui())
    world.network.refused = lambda _: "refused"
    power.start(cluster.host, "fake", world.ui())


def test_off_leaves_the_images_and_nothing_else(world: World, cluster: Cluster) -> None:
    objects = world.kubernetes["fake"].objects
    before = dict(objects)
    rules = world.kernel.snapshot()["tables"]
    addons.enable(cluster.host, "fake", "registry", world.ui())
    addons.disable(cluster.host, "fake", "registry", world.ui())
    left = {path for path in objects if path not in before}
    assert left == {"/api/v1/namespaces/kube-system/persistentvolumeclaims/registry"}
    assert now(world).state.ports == []
    assert hosts(now(world), "node1") == {}
    assert world.kernel.snapshot()["tables"] == rules


def test_a_taken_port_is_passed_over(world: World, cluster: Cluster) -> None:
    world.network.taken = {5000}
    addons.enable(cluster.host, "fake", "registry", world.ui())
    assert [port.host_port for port in now(world).state.ports] == [5001]


def test_no_port_at_all(world: World, cluster: Cluster) -> None:
    world.network.taken = {*range(1 << 16)}
    with pytest.raises(SykubeError, match="all in use"):
        addons.enable(cluster.host, "fake", "registry", world.ui())
    assert now(world).state.registry is None
    assert "registry" not in now(world).state.addons


def test_a_registry_that_the_host_does_not_reach_is_off_again(
    world: World, cluster: Cluster
) -> None:
    world.network.refused = lambda _: "refused"
    with pytest.raises(SykubeError, match="the add-on registry: not there"):
        addons.enable(cluster.host, "fake", "registry", world.ui())
    assert now(world).state.ports == []
    assert "registry" not in now(world).state.addons


def test_on_again_brings_back_a_port_that_was_taken_away(world: World, cluster: Cluster) -> None:
    def refused(address: tuple[str, int]) -> str:
        led = [(each.address, each.host_port) for each in now(world).state.ports]
        return "" if address in led else "refused"

    world.network.refused = refused
    addons.enable(cluster.host, "fake", "registry", world.ui())
    assert addons.enable(cluster.host, "fake", "registry", world.ui()) is False
    cluster_ports.remove(cluster.host, "fake", "5000", world.ui())
    assert addons.enable(cluster.host, "fake", "registry", world.ui()) is True
    assert [port.host_port for port in now(world).state.ports] == [5000]


def test_without_storage_it_says_what_to_do(world: World, cluster: Cluster) -> None:
    addons.disable(cluster.host, "fake", "storage", world.ui())
    with pytest.raises(SykubeError, match="StorageClass standard") as raised:
        addons.enable(cluster.host, "fake", "registry", world.ui())
    assert raised.value.resolution == "sykube addons enable storage"


def test_init_can_begin_with_it(world: World) -> None:
    spec = ClusterSpec(name="fake", dns=("192.0.2.1",), addons=("registry",))
    assert lifecycle.init(world.host, spec, InitOptions(), world.ui()) is not None
    assert "localhost:5000" in hosts(now(world), "node1")


def test_mirrors_and_the_registry_stand_side_by_side(world: World) -> None:
    cluster = up(world, registry_mirrors=(MIRROR,), addons=("registry",))
    assert {"docker.io", "localhost:5000"} <= {*hosts(cluster, "master")}
