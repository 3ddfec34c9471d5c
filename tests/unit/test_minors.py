"""Every minor version of Kubernetes: what is written for it, and what differs."""

from __future__ import annotations

import copy
import re
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from sykube.cluster.commands import export, power, removal, renewal, scaling
from sykube.cluster.model import lookup
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.operations.dns import deployment, is_installed
from sykube.errors import ExitCode, HostError, UsageError
from sykube.image import versions
from sykube.image.mirrors import Mirrors
from sykube.image.versions import MINORS, Minor, minor
from sykube.kubernetes import kubeadm, kubelet
from sykube.node.node import Node
from sykube.patches import Patch
from tests.fakes import Answer, World
from tests.fakes.apiserver import CONFIG_MAPS, COREFILE
from tests.unit import schema
from tests.unit.helpers import Sykube, fake_spec, init, unchanged

Json = dict[str, Any]
IDS = [each.version for each in MINORS]
UPSTREAM = [each for each in MINORS if "upstream" in each.sources]
REPOSITORY = "registry.example:5000/kubernetes"

# The rows of "Kubernetes Support" in containerd's RELEASES.md, as far as they name a 2.x. 1.30 and
# 1.31: at its tag v2.1.0; the others: at 301026e58c619e63d09c0ec411012e54c0124b03. 1.20 is among
# the "Deprecated" ones there: any 1.5 or later that speaks v1alpha2, until 1.7's end.
CONTAINERD = {
    "1.20": ("1.5.0", "1.6.0", "1.7.0"),
    "1.30": ("2.0.0", "2.1.0"),
    "1.31": ("2.0.0", "2.1.0"),
    "1.32": ("2.0.1", "2.1.0"),
    "1.33": ("2.0.4", "2.1.0"),
    "1.34": ("2.0.6", "2.1.3"),
    "1.35": ("2.1.5", "2.2.0"),
    "1.36": ("2.2.0", "2.3.0"),
}


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


# --- the table ---


@pytest.mark.parametrize("text", ["1.36", "1.36.4", "v1.36.4", "1.36.0-rc.1"])
def test_a_minor_version_is_found_by_any_form_of_a_version(text: str) -> None:
    assert minor(text).version == "1.36"


@pytest.mark.parametrize("text", ["1.19.3", "1.29", "2.0", "1", "1.3", "stable", "", "v", "1.36x"])
def test_a_version_that_is_not_in_the_table_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        minor(text)
    assert "1.20, 1.30," in raised.value.details
    assert MINORS[-1].version in raised.value.resolution


def test_the_table_is_in_order_and_whole() -> None:
    assert [each.number for each in MINORS] == sorted({each.number for each in MINORS})
    assert [each.end_of_life for each in MINORS] == sorted(each.end_of_life for each in MINORS)
    assert all(date.fromisoformat(each.end_of_life) for each in MINORS)
    # A jump would leave out versions that an update cannot leave out; 1.20 is Debian's.
    debians = minor(versions.DEBIAN.kubernetes_version)
    others = [each.number for each in MINORS if each != debians]
    assert others == list(range(others[0], others[-1] + 1))
    assert [each for each in MINORS if each.sources[0] == "debian"] == [debians]


@pytest.mark.parametrize("each", UPSTREAM, ids=lambda each: each.version)
def test_each_has_a_containerd_that_was_tested_with_it(each: Minor) -> None:
    chosen = numbers(each.containerd)
    listed = CONTAINERD.get(each.version, CONTAINERD[max(CONTAINERD)])
    least = [numbers(version) for version in listed]
    # The first of its own series, or later than all that are listed.
    assert any(chosen[:2] == one[:2] and chosen >= one for one in least) or chosen > max(least)
    assert chosen < (2, 4), "registry.configs and bin_dir are to go with 2.4"
    assert each.number >= 23 or chosen < (2,), "its kubelet speaks the CRI v1alpha2 alone"
    assert numbers(each.runc) >= (1, 2)


# --- what is written, by the published types ---


def cluster_of(world: World, each: Minor, source: str = "", **fields: Any) -> Cluster:
    if (source or each.sources[0]) == "upstream":
        world.use_kubernetes(f"{each.version}.3", each.containerd, REPOSITORY)
        fields["kubernetes_version"] = f"{each.version}.3"
    cluster = init(world, fake_spec(**fields))
    assert cluster is not None
    return cluster


def documents(world: World) -> list[Json]:
    return [document for _, _, found in world.configurations for document in found]


def of_kind(world: World, kind: str) -> list[Json]:
    return [document for document in documents(world) if document["kind"] == kind]


SHAPES: dict[str, Json] = {
    "one node": {"workers": 0},
    "feature gates, and arguments in a mapping": {
        "workers": 1,
        "feature_gates": {"Alpha": True},
        "runtime_config": {"api/alpha": "true"},
        "kubelet_config_patches": (Patch("maxPods: 7\n"),),
        "kubeadm_config_patches": (
            Patch("kind: ClusterConfiguration\napiServer: {extraArgs: {v: '4'}}\n"),
            Patch(
                "kind: JoinConfiguration\n"
                "nodeRegistration: {kubeletExtraArgs: [{name: node-labels, value: a=b}]}\n"
            ),
        ),
    },
    "a worker, with all that can be said of it": {
        "workers": 1,
        "cpus": "1.5",
        "memory": "2Gi",
        "pids": 1000,
        "registry_mirrors": ("docker.io=https://mirror.example",),
        "pod_subnet": "10.50.0.0/16",
        "service_subnet": "10.60.0.0/20",
    },
    "three control planes": {"workers": 1, "control_planes": 3},
    "tainted control planes, and cgroup v1": {
        "workers": 1,
        "control_planes": 3,
        "taint_master": True,
        "allow_cgroup_v1": True,
    },
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("each", MINORS, ids=IDS)
def test_what_is_written_is_what_each_version_reads(world: World, each: Minor, shape: str) -> None:
    fields = {"allow_cgroup_v1": each.refuses_cgroup_v1, **SHAPES[shape]}
    cluster_of(world, each, **fields)
    problems = [
        problem
        for document in documents(world)
        for problem in schema.problems(document, each.version, each.kubeadm_api)
    ]
    assert problems == []
    kinds = {document["kind"] for document in documents(world)}
    assert kinds == {
        "InitConfiguration",
        "ClusterConfiguration",
        "KubeletConfiguration",
        "KubeProxyConfiguration",
    }


@pytest.mark.parametrize("each", MINORS, ids=IDS)
def test_what_is_written_to_renew_certificates_is_what_each_version_reads(each: Minor) -> None:
    text = kubeadm.renewal_configuration(each, f"v{each.version}.3")
    document = yaml.safe_load(text)
    assert schema.problems(document, each.version, each.kubeadm_api) == []
    assert document["kubernetesVersion"] == f"v{each.version}.3"


def test_a_version_is_given_no_other_versions_documents(world: World) -> None:
    cluster_of(world, minor("1.36"), allow_cgroup_v1=True, control_planes=3, workers=0)
    by_kind = {document["kind"]: document for document in documents(world)}

    def problems(kind: str, version: str, api: str) -> list[str]:
        document = copy.deepcopy(by_kind[kind])
        if "kubeadm" in document["apiVersion"]:
            document["apiVersion"] = f"kubeadm.k8s.io/{api}"
        return schema.problems(document, version, api)

    drop_in = yaml.safe_load(kubelet.drop_in(minor("1.36"), allow_cgroup_v1=True))
    assert schema.problems(drop_in, "1.30", "v1beta3") == [
        "KubeletConfiguration.imagePullCredentialsVerificationPolicy: unknown",
        "KubeletConfiguration.failCgroupV1: unknown",
    ]
    older = problems("InitConfiguration", "1.30", "v1beta3")
    assert "InitConfiguration.timeouts: unknown" in older
    assert any("kubeletExtraArgs" in each and "no mapping" in each for each in older)
    assert "InitConfiguration.patches: unknown" in problems("InitConfiguration", "1.20", "v1beta2")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"apiVersion": "kubeadm.k8s.io/v1beta3"}, "apiVersion"),
        ({"clusterNam": "x"}, "clusterNam: unknown"),
        ({"clusterName": 1}, "1 is no text"),
        ({"networking": {"podSubnet": ["10.0.0.0/8"]}}, "is no text"),
        ({"networking": "10.0.0.0/8"}, "is no mapping"),
        ({"certificateValidityPeriod": "a year"}, "is no duration"),
        ({"certificateValidityPeriod": 3600}, "is no duration"),
        ({"featureGates": {"X": "true"}}, "is no bool"),
        ({"scheduler": {"extraArgs": {"v": "2"}}}, "is no list"),
        ({"scheduler": {"extraArgs": [{"name": "v"}]}}, "value: missing"),
        ({"etcd": {"local": {"imageTag": "3"}}}, "dataDir: missing"),
        ({"kind": "Clusterconfiguration"}, "unknown kind"),
    ],
)
def test_the_schema_finds_what_is_wrong(change: Json, expected: str) -> None:
    document = {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "ClusterConfiguration",
        "clusterName": "x",
    }
    assert schema.problems(document, "1.36", "v1beta4") == []
    (problem,) = schema.problems(document | change, "1.36", "v1beta4")
    assert expected in problem


def test_the_schema_takes_no_truth_value_for_a_number_and_no_undescribed_field() -> None:
    document: Json = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
    }
    for field, expected in (
        ({"maxPods": True}, "no int"),
        ({"failSwapOn": 1}, "no bool"),
        ({"authorization": {}}, "not described"),
    ):
        (problem,) = schema.problems(document | field, "1.36", "v1beta4")
        assert expected in problem


# --- what differs ---


def arguments(registration: Json) -> dict[str, str]:
    found = registration["kubeletExtraArgs"]
    return found if isinstance(found, dict) else {each["name"]: each["value"] for each in found}


@pytest.mark.parametrize("each", MINORS, ids=IDS)
def test_flags_that_went_are_given_to_no_version_that_lacks_them(world: World, each: Minor) -> None:
    cluster_of(world, each, control_planes=3, allow_cgroup_v1=each.refuses_cgroup_v1)
    for document in of_kind(world, "InitConfiguration"):
        flags = arguments(document["nodeRegistration"])
        assert flags["node-ip"].startswith("10.")
        # CHANGELOG-1.27.md: "unknown flag" is what such a kubelet ends with.
        assert ("container-runtime" in flags) == (each.number < 24)
    for name, argv, found in world.configurations:
        masters = "master" in name
        by_option = "--experimental-patches" in argv
        by_file = "patches" in found[0]
        phase = "phase" in argv
        assert by_option == (masters and not phase and each.number < 22)
        assert by_file == (masters and each.number >= 22)


@pytest.mark.parametrize("each", MINORS, ids=IDS)
def test_a_slow_machine_has_nine_minutes_in_each_version(world: World, each: Minor) -> None:
    cluster_of(world, each, control_planes=3, allow_cgroup_v1=each.refuses_cgroup_v1)
    text = str(documents(world))
    if each.number < 31:
        (cluster,) = of_kind(world, "ClusterConfiguration")[:1]
        assert cluster["apiServer"]["timeoutForControlPlane"] == "9m0s"
        assert "Health" not in text
    else:
        for document in of_kind(world, "InitConfiguration"):
            assert document["timeouts"]["controlPlaneComponentHealthCheck"] == "9m0s"
            assert document["timeouts"]["kubeletHealthCheck"] == "9m0s"
            assert document["timeouts"]["kubernetesAPICall"] == "5m0s"


@pytest.mark.parametrize("each", MINORS, ids=IDS)
def test_keys_are_ecdsas_where_kubeadm_can(world: World, each: Minor) -> None:
    cluster_of(world, each, allow_cgroup_v1=each.refuses_cgroup_v1)
    found = of_kind(world, "ClusterConfiguration")[0]
    if each.number >= 31:
        assert found["encryptionAlgorithm"] == "ECDSA-P256"
    else:
        # The gate goes with v1beta3, which a cluster of 1.30 could not be updated beyond.
        gates = {"PublicKeysECDSA": True} if each.number == 20 else None
        assert found.get("featureGates") == gates


def test_a_workers_kubelet_is_configured_by_what_the_cluster_keeps(world: World) -> None:
    cluster_of(world, minor("1.36"), allow_cgroup_v1=True)
    kept = world.kubernetes["fake"].objects[f"{CONFIG_MAPS}/kubelet-config"]["data"]
    kept["kubelet"] = yaml.safe_dump({**yaml.safe_load(kept["kubelet"]), "maxPods": 42})
    scaling.add(world.host, "fake", 1, world.ui())
    name, _, given = world.configurations[-1]
    documents = {each["kind"]: each for each in given}
    assert name == "fake-node2"
    assert documents["KubeletConfiguration"]["maxPods"] == 42
    assert documents["InitConfiguration"]["nodeRegistration"]["name"] == "fake-node2"
    assert "JoinConfiguration" not in documents


def test_the_controllers_arguments_are_the_same_in_both_forms(world: World) -> None:
    cluster_of(world, minor("1.36"), allow_cgroup_v1=True)
    (now, *_) = of_kind(world, "ClusterConfiguration")
    assert now["controllerManager"]["extraArgs"] == [
        {"name": "allocate-node-cidrs", "value": "false"},
        {"name": "kube-api-qps", "value": "200"},
        {"name": "kube-api-burst", "value": "400"},
        {"name": "leader-elect-retry-period", "value": "1s"},
        {"name": "leader-elect-lease-duration", "value": "90s"},
        {"name": "leader-elect-renew-deadline", "value": "80s"},
        {"name": "tls-cert-file", "value": "/etc/kubernetes/serving/tls.crt"},
        {"name": "tls-private-key-file", "value": "/etc/kubernetes/serving/tls.key"},
    ]


def test_images_and_etcd_are_the_ones_of_the_node_image(world: World) -> None:
    cluster = cluster_of(world, minor("1.34"))
    (found, *_) = of_kind(world, "ClusterConfiguration")
    assert found["imageRepository"] == REPOSITORY == cluster.image.repository
    assert found["kubernetesVersion"] == "v1.34.3"
    # kubeadm upgrade leaves an etcd alone whose tag was given.
    assert {*found["etcd"]["local"]} == {"dataDir", "extraArgs"}
    assert cluster.image.name_of("etcd") == f"{REPOSITORY}/etcd:3.6.5-0"


@pytest.mark.parametrize(("version", "control_planes"), [("1.20", 1), ("1.34", 1), ("1.34", 3)])
def test_an_etcd_of_one_member_does_not_wait_long_for_others(
    world: World, version: str, control_planes: int
) -> None:
    cluster_of(world, minor(version), control_planes=control_planes, allow_cgroup_v1=True)
    (found, *_) = of_kind(world, "ClusterConfiguration")
    arguments = found["etcd"]["local"].get("extraArgs", [])
    pairs = {each["name"]: each["value"] for each in arguments} if version > "1.3" else arguments
    assert pairs.get("election-timeout") == ("500" if control_planes == 1 else None)


@pytest.mark.parametrize(("version", "looks"), [("1.20", "2s"), ("1.34", None)])
def test_a_kubelet_says_soon_that_it_is_ready(
    world: World, version: str, looks: str | None
) -> None:
    cluster_of(world, minor(version), allow_cgroup_v1=True)
    (found, *_) = of_kind(world, "KubeletConfiguration")
    assert found.get("nodeStatusUpdateFrequency") == looks
    # It would be as often: each kubelet would write every 2 s.
    assert found.get("nodeStatusReportFrequency") == (looks and "5m0s")


def test_debians_etcd_has_a_tag_of_its_own(world: World) -> None:
    cluster_of(world, minor("1.20"))
    (found, *_) = of_kind(world, "ClusterConfiguration")
    assert found["imageRepository"] == "k8s.gcr.io"
    assert found["etcd"]["local"]["imageTag"] == "3.4.23-4"


def test_upstreams_etcd_is_the_one_that_kubeadm_names_also_of_debians_minor(world: World) -> None:
    cluster = cluster_of(world, minor("1.20"), "upstream")
    assert cluster.state.choice is not None
    assert (cluster.state.choice.source, cluster.image.source) == ("upstream", "upstream")
    (found, *_) = (each for each in documents(world) if each["kind"] == "ClusterConfiguration")
    assert found["imageRepository"] == REPOSITORY
    assert "imageTag" not in found["etcd"]["local"]


# --- cluster DNS ---


def deployments(world: World) -> set[str]:
    objects = world.kubernetes["fake"].objects
    return {path.rpartition("/")[2] for path in objects if "kube-system/deployments/" in path}


def _is_skipped(phase: str, argv: list[str]) -> bool:
    """Whether a run of `kubeadm init` leaves out a phase of the two-part name, as a/b."""
    if "phase" in argv:
        return phase.split("/") != argv[3:5]
    return bool({phase, phase.split("/")[0]} & {*argv[-1].split(",")})


def test_upstreams_dns_is_kubeadms_own(world: World) -> None:
    cluster = cluster_of(world, minor("1.34"))
    assert "coredns" in deployments(world)
    assert "cluster-dns" not in deployments(world)
    inits = [argv[2:] for name, argv, _ in world.configurations if name == "fake-master"]
    files, clients, objects = (argv[-1].split(",") for argv in inits if argv[0] != "phase")
    phases = ["/".join(argv[1:3]) for argv in inits if argv[0] == "phase"]
    assert "addon" in {*files} & {*clients}
    # Each phase is run once, but for what sykube has in its place.
    never = {"preflight", "wait-control-plane", "show-join-command"}
    assert {*files} & {*clients} & {*objects} == never
    programs = {"control-plane/controller-manager", "control-plane/scheduler"}
    assert programs <= {*files} & {*objects} - {*clients}
    kubeconfigs = {"kubeconfig/controller-manager", "kubeconfig/scheduler"}
    assert sorted(phases) == ["addon/coredns", *sorted(kubeconfigs), "upload-config/kubeadm"]
    assert {"addon/coredns", "upload-config/kubeadm"} <= {*objects}
    assert kubeconfigs <= {*files}
    assert deployment(cluster) == "coredns"
    # The configuration holds a bootstrap token.
    assert not [path for path in world.instances["fake-master"].files if "kubeadm-init" in path]
    before = len(world.configurations)
    assert is_installed(cluster)
    assert len(world.configurations) == before


def test_kubeadm_keeps_that_there_is_a_dns(world: World) -> None:
    """In a run of all phases without that of CoreDNS, it would keep that there is none."""
    cluster_of(world, minor("1.34"))
    kept = [
        argv[2:5]
        for name, argv, _ in world.configurations
        if name == "fake-master" and not _is_skipped("upload-config/kubeadm", argv)
    ]
    assert kept == [["phase", "upload-config", "kubeadm"]]


@pytest.mark.parametrize(("control_planes", "rules"), [(1, 0), (3, 1)])
def test_upstreams_dns_outlives_a_control_plane_where_there_are_others(
    world: World, control_planes: int, rules: int
) -> None:
    cluster_of(world, minor("1.34"), control_planes=control_planes)
    objects = world.kubernetes["fake"].objects
    (found,) = (each for path, each in objects.items() if path.endswith("/deployments/coredns"))
    text = str(found)
    assert text.count("'requiredDuringSchedulingIgnoredDuringExecution'") == rules
    assert text.count("'k8s-app': 'kube-dns'") == rules
    (container,) = found["spec"]["template"]["spec"]["containers"]
    # kubeadm's is looked at every 10 s, and that is what init would wait for.
    assert container["readinessProbe"] == {"periodSeconds": 1}
    assert container["image"]


@pytest.mark.parametrize(("resolvers", "forwards"), [(("192.0.2.53",), True), (("none",), False)])
def test_upstreams_dns_forwards_nothing_where_there_is_no_resolver(
    world: World, resolvers: tuple[str, ...], forwards: bool
) -> None:
    """CoreDNS ends at once where it is to forward to a resolv.conf without a nameserver."""
    cluster = cluster_of(world, minor("1.34"), dns=resolvers)
    corefile = world.kubernetes["fake"].objects[COREFILE]["data"]["Corefile"]
    assert ("forward" in corefile) is forwards
    assert ("max_concurrent" in corefile) is forwards
    # Of the ranges of Services and pods it asks nobody, and of other addresses it knows nothing.
    zones = " ".join(f"{number}.10.in-addr.arpa" for number in (*range(96, 112), 244))
    zones += " 0.in-addr.arpa 127.in-addr.arpa"
    options = "       pods insecure\n       ttl 30\n"
    assert f"kubernetes cluster.local {zones} {{\n{options}    }}\n" in corefile
    assert "    cache 30\n}\n" in corefile
    assert bool(cluster.master.pull("/etc/sykube/resolv.conf").read_text()) is forwards


@pytest.mark.parametrize("source", ["debian", "upstream"])
def test_the_dns_of_debians_minor_is_sykubes_own(world: World, source: str) -> None:
    cluster = cluster_of(world, minor("1.20"), source)
    assert "cluster-dns" in deployments(world)
    assert "coredns" not in deployments(world)
    assert deployment(cluster) == "cluster-dns"


# --- cgroup v1 ---


@pytest.fixture
def modern(fast_path: Any, monkeypatch: pytest.MonkeyPatch) -> World:
    """A fake host with cgroup v2."""
    made = World(fast_path / "modern", cgroup_version=2)
    made.install(monkeypatch)
    return made


@pytest.mark.parametrize("version", ["1.35", "1.36", "1.37"])
def test_a_kubelet_that_would_end_there_is_refused_before_anything_changes(
    world: World, version: str
) -> None:
    world.use_kubernetes(f"{version}.1", "2.3.4", REPOSITORY)
    with unchanged(world), pytest.raises(HostError) as raised:
        init(world, fake_spec(kubernetes_version=f"{version}.1"))
    error = raised.value
    assert error.exit_code is ExitCode.HOST_NOT_READY
    assert f"cgroup v1, which the kubelet of Kubernetes {version} refuses" in error.brief
    for choice in ("Kubernetes 1.34 or earlier", "cgroup v2", "--allow-cgroup-v1"):
        assert choice in error.resolution
    assert world.instances == {}
    assert world.configurations == []


@pytest.mark.parametrize("each", MINORS, ids=IDS)
def test_the_kubelets_own_way_out_is_taken_only_when_it_was_asked_for(
    world: World, each: Minor
) -> None:
    cluster = cluster_of(world, each, allow_cgroup_v1=True)
    for node in cluster.nodes:
        assert drop_in(node).get("failCgroupV1") == (False if each.number >= 35 else None)
    # An update to a version that refuses it would find none in what it was made with.
    assert "failCgroupV1" not in str(documents(world))


@pytest.mark.parametrize("each", MINORS, ids=IDS)
def test_a_kubelet_uses_the_images_that_it_has_whoever_pulled_them(
    world: World, each: Minor
) -> None:
    cluster = cluster_of(world, each, allow_cgroup_v1=each.refuses_cgroup_v1)
    for node in cluster.nodes:
        found = drop_in(node)
        if each.number < 35:
            assert found == {}
            continue
        assert schema.problems(found, each.version, each.kubeadm_api) == []
        assert found["imagePullCredentialsVerificationPolicy"] == "NeverVerify"


def drop_in(node: Node) -> Json:
    return yaml.safe_load(node.pull("/etc/sykube/kubelet.conf").read_text()) or {}


@pytest.mark.parametrize("version", ["1.20", "1.34"])
def test_older_ones_run_with_cgroup_v1_as_ever(world: World, version: str) -> None:
    cluster = cluster_of(world, minor(version))
    assert "failCgroupV1" not in str(documents(world))
    assert "failCgroupV1" not in str([drop_in(node) for node in cluster.nodes])


def test_with_cgroup_v2_there_is_nothing_to_choose(modern: World) -> None:
    cluster = cluster_of(modern, minor("1.36"))
    assert "failCgroupV1" not in str(documents(modern))
    assert "failCgroupV1" not in str([drop_in(node) for node in cluster.nodes])


def test_a_host_that_was_booted_with_cgroup_v1_since_is_refused_at_start(modern: World) -> None:
    cluster_of(modern, minor("1.36"))
    power.stop(modern.host, "fake", power.StopOptions(), modern.ui())
    (modern.cgroup_root / "cgroup.controllers").unlink()
    with pytest.raises(HostError, match="refuses") as raised:
        power.start(modern.host, "fake", modern.ui())
    assert modern.instances == {}
    # What `start` has not, it does not advise.
    assert "--" not in raised.value.resolution
    assert "cgroup v2" in raised.value.resolution


def test_the_option_of_init(world: World, sykube: Sykube) -> None:
    world.use_kubernetes("1.36.4", "2.3.4", REPOSITORY)
    asked = ("init", "--name", "fake", "--dns", "192.0.2.53", "--kubernetes-version", "1.36.4")
    refused = sykube(*asked)
    assert refused.code == ExitCode.HOST_NOT_READY
    assert "--allow-cgroup-v1" in refused.err
    taken = sykube(*asked, "--allow-cgroup-v1")
    assert taken.code == 0, taken.err
    cluster = lookup.load(world.host, "fake", world.ui())
    assert drop_in(cluster.master)["failCgroupV1"] is False


# --- the rest ---


def test_init_says_what_it_makes(world: World) -> None:
    ui = world.ui()
    world.use_kubernetes("1.37.1", "2.3.4", REPOSITORY)
    init(world, fake_spec(allow_cgroup_v1=True, kubernetes_version="1.37.1"), ui)
    assert ui.said[0] == f"Kubernetes 1.37.1 from Upstream (a release of {Mirrors.kubernetes})."


@pytest.mark.parametrize(("version", "end"), [("1.30.14", "2025-07-15"), ("1.20.15", "2022-02-28")])
def test_a_version_past_its_end_of_life_is_named_so(world: World, version: str, end: str) -> None:
    ui = world.ui()
    world.use_kubernetes(version, minor(version).containerd, REPOSITORY)
    init(world, fake_spec(kubernetes_version=version, source="upstream"), ui)
    assert f"Kubernetes {version} from Upstream" in ui.said[0]
    assert f"past its end of life ({end})" in ui.said[0]


@pytest.mark.parametrize(("version", "api"), [("1.20", "v1beta1"), ("1.34", "v1")])
def test_a_report_asks_for_cron_jobs_where_they_are(
    world: World, tmp_path: Path, version: str, api: str
) -> None:
    cluster = cluster_of(world, minor(version))
    world.calls.all.clear()
    export._objects(export._Report(tmp_path / "report"), cluster)
    asked = [str(call) for call in world.calls.all if "cronjobs" in str(call)]
    assert asked == [f"api: GET /apis/batch/{api}/cronjobs"]


def test_credentials_are_where_containerd_2_reads_them(world: World) -> None:
    file = world.root / "auth.json"
    file.write_text('{"auths": {"x.example": {"auth": "bWU6c2VjcmV0"}}}')
    for version, plugin in (
        ("1.20", "io.containerd.grpc.v1.cri"),
        ("1.34", "io.containerd.cri.v1.images"),
    ):
        cluster = cluster_of(world, minor(version), registry_auth=str(file))
        for node in cluster.nodes:
            text = node.pull("/etc/sykube/registry-auth.toml").read_text()
            assert list(tomllib.loads(text)["plugins"]) == [plugin]
        removal.delete(world.host, "fake", world.ui())


def test_certificates_are_renewed_with_the_clusters_own_format(
    world: World,
) -> None:
    cluster = cluster_of(world, minor("1.36"), allow_cgroup_v1=True)
    written: list[str] = []

    def up_to_kubeadm(_name: str, argv: list[str], stdin: str | None) -> Answer | None:
        if argv[:3] == ["kubeadm", "certs", "renew"]:
            pytest.fail("far enough")
        if stdin:
            written.append(stdin)
        return None

    world.node_programs.first = up_to_kubeadm
    with pytest.raises(pytest.fail.Exception, match="far enough"):
        renewal._renew_control_plane(cluster, cluster.master, cluster.master)
    assert re.search(r"apiVersion: kubeadm.k8s.io/v1beta4\n", written[0])
