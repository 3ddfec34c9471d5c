"""Several control planes that stand in for each other, in a fake world."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sykube.cluster.commands import power, removal
from sykube.cluster.commands.power import StopOptions
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.operations.registration import register
from sykube.errors import ExitCode, SykubeError
from sykube.image.versions import minor
from sykube.kubernetes import kubeadm
from sykube.kubernetes.api import ApiError
from sykube.patches import Patch
from tests.fakes import Calls, Injected, World
from tests.fakes.answers import Answer
from tests.fakes.apiserver import (
    CONTROL_PLANE_LABEL,
    KUBEADM_CONFIG,
    NODES,
    FakeApi,
    Kubernetes,
)
from tests.fakes.instance import SHARED_KEYS
from tests.fakes.node_programs import KUBELET_START
from tests.unit.helpers import fake_spec, init, made, unchanged

MASTERS = ["fake-master", "fake-master2", "fake-master3"]


def begun(world: World) -> list[tuple[str, dict[str, str]]]:
    """The nodes on which kubeadm wrote an etcd, in order, and what it told etcd of its members."""
    found = []
    for name, argv, documents in world.configurations:
        etcd = next(each for each in documents if each["kind"] == "ClusterConfiguration")["etcd"]
        arguments = etcd["local"].get("extraArgs", {})
        if "phase" not in argv and "initial-cluster" in arguments:
            found.append((name, arguments))
    return found


def peers(cluster: Cluster) -> dict[str, str]:
    """Each control plane, and how etcd's members are told of it."""
    return {
        node.instance: f"{node.instance}=https://{node.address}:2380"
        for node in cluster.control_planes
    }


def keepalived(cluster: Cluster, node: str) -> str:
    return cluster.node(node).pull("/etc/sykube/keepalived.conf").read_text()


def test_the_others_are_marked_once_their_api_servers_know_what_the_administrator_may_do(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer = [], FakeApi.request

    def request(api: FakeApi, method: str, path: str, *body: Any, **options: Any) -> Any:
        if (method, path) == ("GET", "/api/v1/nodes"):
            asked.append(len(marked(world)))
            if len(asked) <= 4:
                raise ApiError(f"GET {path}: forbidden", 403)
        return answer(api, method, path, *body, **options)

    monkeypatch.setattr(FakeApi, "request", request)
    made(world, control_planes=3)
    assert asked[:6] == [0] * 6
    assert {*marked(world)} == {*MASTERS[1:]}


def marked(world: World) -> list[str]:
    """Control planes, but for the first, whose kubeadm has noted in the cluster that they are."""
    return [
        name
        for name, argv, _ in world.configurations
        if name in MASTERS[1:] and argv[2] != "phase" and "mark-control-plane" not in " ".join(argv)
    ]


@pytest.mark.parametrize("count", [3, 5])
def test_init_makes_each_of_them_a_member_of_etcd_and_delete_leaves_nothing(
    world: World, count: int
) -> None:
    with unchanged(world):
        cluster = made(world, control_planes=count)
        names = [node.instance for node in cluster.control_planes]
        assert names[:3] == MASTERS
        server = world.kubernetes["fake"]
        assert server.members == {node.instance: node.address for node in cluster.control_planes}
        labelled = {
            name
            for name, node in server.nodes.items()
            if CONTROL_PLANE_LABEL in node["metadata"].get("labels", {})
        }
        assert labelled == set(names)
        assert removal.delete(world.host, "fake", world.ui()) == []


def test_etcd_begins_with_all_of_them_and_the_cluster_does_not_keep_that(world: World) -> None:
    """In its ConfigMap, a member that joins later would be told it as well."""
    cluster = made(world, control_planes=3)
    wanted = {"initial-cluster": ",".join(peers(cluster).values())}
    found = begun(world)
    assert found[0][0] == "fake-master"
    assert sorted(found) == [(name, wanted) for name in MASTERS]
    kept = world.kubernetes["fake"].objects[KUBEADM_CONFIG]["data"]["ClusterConfiguration"]
    assert "initial-cluster" not in kept


def test_of_one_control_plane_kubeadm_itself_tells_etcd(world: World) -> None:
    made(world)
    assert begun(world) == []


def test_a_users_own_arguments_of_etcd_stay(world: World) -> None:
    text = "kind: ClusterConfiguration\netcd: {local: {extraArgs: {quota-backend-bytes: '1'}}}"
    init(world, fake_spec(control_planes=3, kubeadm_config_patches=(Patch(text),)))
    for _, arguments in begun(world)[:3]:
        assert arguments.keys() == {"quota-backend-bytes", "initial-cluster"}


def test_a_users_own_etcd_has_no_members_of_the_clusters(world: World) -> None:
    external = {
        "endpoints": ["https://192.0.2.1:2379"],
        "caFile": "",
        "certFile": "",
        "keyFile": "",
    }
    init = {"kind": "ClusterConfiguration", "apiVersion": "kubeadm.k8s.io/v1beta4"}
    given = [init | {"etcd": {"external": external}}]
    assert kubeadm.with_etcd_members(minor("1.36"), given, {"a": "192.0.2.2"}) == given


def test_the_workers_join_when_all_of_them_are_there(world: World) -> None:
    init(world, fake_spec(control_planes=3, workers=2))
    words = [call.words for call in world.calls.all if call.words[2:4] == ("kubeadm", "init")]
    workers = [each[1] for each in words if each[2:6] == KUBELET_START]
    assert {*workers} == {"fake-node1", "fake-node2"}
    places = [place for place, each in enumerate(words) if each[2:6] == KUBELET_START]
    started = [
        place
        for place, each in enumerate(words)
        if "--skip-phases" in each
        and "control-plane/scheduler" not in each[each.index("--skip-phases") + 1].split(",")
    ]
    assert len(started) == 3
    assert max(started) < min(places)


def test_workers_kubelets_trust_the_clusters_ca(world: World) -> None:
    """kubeadm would take one of a folder that they do not have."""
    made(world)
    (found,) = (
        {each["kind"]: each for each in documents}
        for name, _, documents in world.configurations
        if name == "fake-node1"
    )
    folder = found["ClusterConfiguration"]["certificatesDir"]
    ca = found["KubeletConfiguration"]["authentication"]["x509"]["clientCAFile"]
    assert not ca.startswith(folder)
    assert ca in world.instances["fake-node1"].files


def test_a_slow_kubelet_has_room_for_its_static_pods(world: World) -> None:
    cluster, server = made(world, control_planes=3), Kubernetes()
    register(cluster, FakeApi(server, Calls()), cluster.node("master2"), {})
    status = server.objects[f"{NODES}/fake-master2"]["status"]
    assert status["allocatable"] == status["capacity"]
    # What kubeadm 1.20 asks for: 650m for all four, and 100Mi of the others for etcd.
    assert status["allocatable"].keys() == {"cpu", "memory", "ephemeral-storage", "pods"}
    assert int(status["allocatable"]["cpu"]) >= 1


def test_kubeadm_need_not_wait_for_a_kubelet_to_mark_its_node(world: World) -> None:
    cluster, server = made(world, control_planes=3), Kubernetes()
    register(cluster, FakeApi(server, Calls()), cluster.node("master2"), {})
    labels = server.objects[f"{NODES}/fake-master2"]["metadata"]["labels"]
    assert labels["kubernetes.io/hostname"] == "fake-master2"


@pytest.mark.parametrize("control_planes", [1, 3])
def test_what_later_programs_need_is_made_while_the_api_server_starts(
    world: World, control_planes: int
) -> None:
    init(world, fake_spec(control_planes=control_planes))
    words = [call.words for call in world.calls.all]
    first_answer = words.index(("POST", "/api/v1/namespaces"))
    for name in MASTERS[:control_planes]:
        of_node = [each for each in words if each[1:4] == (name, "kubeadm", "init")]
        kubelet, *later = of_node[:3]
        assert {"kubeconfig/controller-manager", "kubeconfig/scheduler"} <= {
            *kubelet[kubelet.index("--skip-phases") + 1].split(",")
        }
        assert [each[4:7] for each in later] == [
            ("phase", "kubeconfig", "controller-manager"),
            ("phase", "kubeconfig", "scheduler"),
        ]
        assert words.index(later[-1]) < first_answer


def test_they_share_the_clusters_keys_and_workers_get_none(world: World) -> None:
    made(world, control_planes=3)
    first = world.instances["fake-master"].files
    for name in MASTERS[1:]:
        files = world.instances[name].files
        assert {key: files[key] for key in SHARED_KEYS} == {key: first[key] for key in SHARED_KEYS}
    assert not [key for key in world.instances["fake-node1"].files if key.endswith(".key")]


def test_the_endpoint_moves_between_them(world: World) -> None:
    cluster = made(world, control_planes=3)
    priorities = []
    for node in cluster.control_planes:
        text = keepalived(cluster, node.name)
        others = {other.address for other in cluster.control_planes if other != node}
        assert f"unicast_src_ip {node.address}\n" in text
        peers = re.search(r"unicast_peer \{(.*?)\}", text, re.DOTALL)
        assert peers is not None
        assert set(peers[1].split()) == others
        assert f"{cluster.endpoint_address}/32" in text
        assert "SYKUBE_ENDPOINT=\n" in node.pull("/etc/sykube/node.env").read_text()
        found = re.search(r"priority (\d+)", text)
        assert found is not None
        priorities.append(int(found[1]))
    # The first one has it as long as it can; no two want it alike. VRRP: 1 to 254.
    assert priorities == sorted(set(priorities), reverse=True)
    assert 1 <= priorities[-1] <= priorities[0] <= 254
    assert keepalived(cluster, "node1") == ""


def test_one_alone_has_the_endpoint_itself(world: World) -> None:
    cluster = made(world)
    assert keepalived(cluster, "master") == ""
    assert (
        "SYKUBE_ENDPOINT=10.11.11.254\n" in cluster.master.pull("/etc/sykube/node.env").read_text()
    )


def test_the_cluster_dns_runs_on_two_of_them(world: World) -> None:
    made(world, control_planes=3)
    deployment = next(
        each
        for path, each in world.kubernetes["fake"].objects.items()
        if path.endswith("/deployments/cluster-dns")
    )
    assert deployment["spec"]["replicas"] == 2


def test_a_control_plane_whose_start_failed_starts_anew_with_all_others(world: World) -> None:
    """None of them has anything yet that another etcd would not take for its own."""
    world.calls.fail(lambda call: call.words[1:4] == ("fake-master2", "kubeadm", "init"))
    with pytest.raises(Injected):
        init(world, fake_spec(control_planes=3), retain=True)
    pids = {name: world.instances[name].pid for name in MASTERS}
    assert init(world, fake_spec(control_planes=3)) is not None
    assert sorted(world.kubernetes["fake"].members) == MASTERS
    assert all(world.instances[name].pid != pid for name, pid in pids.items())


def lose(world: World, name: str) -> None:
    """What `kubectl delete node` does."""
    del world.kubernetes["fake"].objects[f"{NODES}/{name}"]


@pytest.mark.parametrize("lost", MASTERS)
def test_start_replaces_a_control_plane_that_the_cluster_has_no_node_of(
    world: World, lost: str
) -> None:
    cluster = made(world, control_planes=3)
    pids = {name: world.instances[name].pid for name in MASTERS}
    lose(world, lost)
    world.calls.all.clear()
    world.configurations.clear()
    power.start(world.host, "fake", world.ui())
    assert [name for name, pid in pids.items() if world.instances[name].pid != pid] == [lost]
    on_etcd = [call.words for call in world.calls.all if call.words[2:3] == ("etcdctl",)]
    assert [words[-2] for words in on_etcd if "list" not in words] == ["remove", lost]
    assert {words[1] for words in on_etcd} == {MASTERS[lost == "fake-master"]}
    (name, told), *_ = begun(world)
    assert name == lost
    assert told["initial-cluster-state"] == "existing"
    assert {*told["initial-cluster"].split(",")} == {*peers(cluster).values()}
    assert sorted(world.kubernetes["fake"].members) == MASTERS
    labels = world.kubernetes["fake"].nodes[lost]["metadata"]["labels"]
    assert CONTROL_PLANE_LABEL in labels


@pytest.mark.parametrize("words", [("etcdctl", "add"), ("kubeadm", "init"), ("sh", "import-keys")])
def test_a_replacement_that_failed_is_made_again(world: World, words: tuple[str, str]) -> None:
    made(world, control_planes=3)
    lose(world, "fake-master3")
    world.calls.fail(lambda call: call.words[2:3] == words[:1] and words[1] in call.words, times=1)
    with pytest.raises(Injected):
        power.start(world.host, "fake", world.ui())
    power.start(world.host, "fake", world.ui())
    assert sorted(world.kubernetes["fake"].members) == MASTERS
    assert [*world.kubernetes["fake"].nodes] and begun(world)[-1][0] == "fake-master3"


def test_etcd_may_refuse_a_member_that_comes_soon_after_another(world: World) -> None:
    made(world, control_planes=5)
    lose(world, "fake-master4")
    refused: list[str] = []

    def busy(name: str, words: list[str], _stdin: str | None) -> Answer | None:
        if "add" in words and not refused:
            refused.append(name)
            return 1, "", "etcdserver: unhealthy cluster"
        return None

    world.node_programs.first = busy
    power.start(world.host, "fake", world.ui())
    assert refused == ["fake-master"]
    assert "fake-master4" in world.kubernetes["fake"].members


SLOW = "Error writing Crisocket information: timed out waiting for the condition"


@pytest.mark.parametrize(
    ("problem", "times", "tries"), [(SLOW, 2, 3), (SLOW, 3, 3), ("unknown flag: --config", 1, 1)]
)
def test_init_gives_a_busy_control_plane_further_tries(
    world: World, problem: str, times: int, tries: int
) -> None:
    seen: list[str] = []

    def slow(name: str, words: list[str], _stdin: str | None) -> Answer | None:
        # It makes the objects: what is skipped has what came before.
        if words[:2] != ["kubeadm", "init"] or ",upload-config/kubeadm," not in " ".join(words):
            return None
        seen.append(name)
        return (1, "", problem) if len(seen) <= times else None

    world.node_programs.first = slow
    if times < tries:
        made(world)
    else:
        with pytest.raises(SykubeError) as raised:
            made(world)
        assert problem in raised.value.details
    assert seen == ["fake-master"] * tries


def test_what_kubeadm_of_1_20_notes_of_each_of_them_is_noted(world: World) -> None:
    """Its ConfigMap has a list of control planes, which its upgrades go by."""
    made(world, control_planes=3)
    skipped = [
        argv[argv.index("--skip-phases") + 1].split(",")
        for name, argv, _ in world.configurations
        if name == "fake-master2" and "--skip-phases" in argv
    ]
    started, clients, marked = skipped
    assert {"mark-control-plane", "upload-config"} <= {*started} & {*clients}
    assert {"certs", "bootstrap-token", "addon", "upload-config/kubelet"} <= {*marked}
    assert not {"mark-control-plane", "upload-config", "upload-config/kubeadm"} & {*marked}


@pytest.mark.parametrize("lost", MASTERS)
def test_the_cluster_goes_on_without_one_of_them_and_start_brings_it_back(
    world: World, lost: str
) -> None:
    cluster = made(world, control_planes=3)
    world.end(lost)
    assert cluster.running_control_plane().instance == MASTERS[lost == "fake-master"]
    world.configurations.clear()
    assert power.start(world.host, "fake", world.ui()) is True
    assert lost in world.instances
    assert begun(world) == []
    assert sorted(world.kubernetes["fake"].members) == MASTERS


def test_without_any_of_them_there_is_nobody_to_ask(world: World) -> None:
    cluster = made(world, control_planes=3)
    for name in MASTERS:
        world.end(name)
    with pytest.raises(SykubeError, match="no control plane") as raised:
        cluster.running_control_plane()
    assert raised.value.exit_code is ExitCode.STOPPED


def test_they_come_back_after_a_stop(world: World) -> None:
    made(world, control_planes=3)
    power.stop(world.host, "fake", StopOptions(), world.ui())
    assert power.start(world.host, "fake", world.ui()) is True
    assert sorted(world.instances) == [*MASTERS, "fake-node1"]


@pytest.mark.parametrize("control_planes", [1, 3])
def test_kubelets_are_started_for_the_api_server_once_it_takes_their_pods(
    world: World, control_planes: int
) -> None:
    """Without their priority class, those of the control plane are refused."""
    init(world, fake_spec(control_planes=control_planes))
    words = [call.words for call in world.calls.all]
    posted = ("POST", "/apis/scheduling.k8s.io/v1/priorityclasses")
    assert words.count(posted) == 2
    after = words[len(words) - words[::-1].index(posted) :]
    for name in MASTERS[:control_planes]:
        assert ("startProcess", name, "kubelet") in after
