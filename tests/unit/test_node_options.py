"""Nodes of a cluster's own, feature gates and patches: what each node and kubeadm are given."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from sykube import stored
from sykube.cluster.commands import power, scaling
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.model.spec import ClusterSpec, NodeSpec
from sykube.cluster.model.spec_reader import make_spec
from sykube.errors import ExitCode, SykubeError, UsageError
from sykube.host.host import Host
from sykube.kubernetes.kubeadm_patches import JsonPatch
from sykube.node import cgroups
from sykube.patches import Patch
from tests.fakes import World
from tests.fakes.apiserver import NODES
from tests.unit.helpers import Sykube, init, unchanged

Json = dict[str, Any]
FILE = """\
name: fake
dns: [192.0.2.53]
pids: 900
mounts: ["{folder}:/shared"]
featureGates: {{Alpha: true, Beta: "false"}}
runtimeConfig: {{api/alpha: true, batch/v2alpha1: "false"}}
kubeletConfigPatches:
- maxPods: 77
- |
  evictionHard: {{memory.available: 50Mi}}
kubeadmConfigPatches:
- |
  kind: ClusterConfiguration
  apiServer: {{extraArgs: {{v: "4"}}}}
- kind: JoinConfiguration
  nodeRegistration:
    kubeletExtraArgs: {{node-labels: "of-patch=yes,tier=patched"}}
    taints: [{{key: of-patch, effect: PreferNoSchedule}}]
kubeadmConfigPatchesJSON6902:
- group: kubeadm.k8s.io
  kind: ClusterConfiguration
  patch: |
    - {{op: add, path: /apiServer/certSANs/-, value: api.example}}
containerdConfigPatches:
- |
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.foo]
    runtime_type = "foo"
nodes:
- role: worker
  labels: {{tier: back, ready: true}}
  taints: [dedicated=ci:NoSchedule, alone:NoExecute]
  cpus: 1.5
  memory: 2Gi
  ports: ["8080:80", "127.0.0.1:5353:53/udp"]
  kubeadmConfigPatches:
  - {{kind: JoinConfiguration, nodeRegistration: {{ignorePreflightErrors: [all]}}}}
- role: control-plane
  labels: {{node-role.kubernetes.io/edge: ""}}
  taints: [dedicated=master:NoSchedule]
  kubeadmConfigPatches:
  - |
    kind: InitConfiguration
    nodeRegistration: {{imagePullPolicy: Never}}
- role: worker
  pids: 1200
  mounts: ["{folder}:/own:ro"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.yaml"
    path.write_text(FILE.format(folder=tmp_path), encoding="utf-8")
    return path


@pytest.fixture
def cluster(host: Host, world: World, file: Path) -> Cluster:
    made = init(world, make_spec(host, file, {}))
    assert made is not None
    return made


def given(world: World, node: str, kind: str) -> Json:
    """The last document of a kind that kubeadm of a node was given."""
    return next(
        document
        for name, _, found in reversed(world.configurations)
        for document in found
        if name == f"fake-{node}" and document["kind"] == kind
    )


def node_object(world: World, node: str) -> Json:
    return world.kubernetes["fake"].objects[f"{NODES}/fake-{node}"]


# --- what kubeadm is given ---


def test_feature_gates_go_to_every_program(world: World, cluster: Cluster) -> None:
    config = given(world, "master", "ClusterConfiguration")
    for program in ("apiServer", "controllerManager", "scheduler"):
        assert config[program]["extraArgs"]["feature-gates"] == "Alpha=true,Beta=false"
    for kind in ("KubeletConfiguration", "KubeProxyConfiguration"):
        assert given(world, "master", kind)["featureGates"] == {"Alpha": True, "Beta": False}
    served = "api/alpha=true,batch/v2alpha1=false"
    assert config["apiServer"]["extraArgs"]["runtime-config"] == served
    # What sykube itself asks for is still there.
    assert config["controllerManager"]["extraArgs"]["allocate-node-cidrs"] == "false"


def test_patches_reach_the_documents_that_they_are_for(world: World, cluster: Cluster) -> None:
    config = given(world, "master", "ClusterConfiguration")
    assert config["apiServer"]["extraArgs"]["v"] == "4"
    assert config["apiServer"]["certSANs"][-1] == "api.example"
    kubelet = given(world, "master", "KubeletConfiguration")
    assert kubelet["maxPods"] == 77
    assert kubelet["evictionHard"]["memory.available"] == "50Mi"
    assert kubelet["evictionHard"]["nodefs.available"] == "0%"
    assert given(world, "master", "InitConfiguration")["nodeRegistration"]["imagePullPolicy"]
    first = given(world, "node1", "InitConfiguration")["nodeRegistration"]
    second = given(world, "node2", "InitConfiguration")["nodeRegistration"]
    assert first["ignorePreflightErrors"] == ["all"]
    assert "ignorePreflightErrors" not in second
    for registered in (first, second):
        assert registered["kubeletExtraArgs"]["node-labels"] == "of-patch=yes,tier=patched"
        assert "node-ip" in registered["kubeletExtraArgs"]


# --- what each node is ---


def test_nodes_have_their_labels_and_taints(world: World, cluster: Cluster) -> None:
    first, second = node_object(world, "node1"), node_object(world, "node2")
    # The kubelet of a Node that exists leaves the patch's alone.
    assert first["metadata"]["labels"].items() >= {"of-patch": "yes", "tier": "back"}.items()
    assert first["metadata"]["labels"]["ready"] == "true"
    assert second["metadata"]["labels"]["tier"] == "patched"
    of_patch = {"key": "of-patch", "effect": "PreferNoSchedule"}
    assert first["spec"]["taints"] == [
        of_patch,
        {"key": "dedicated", "value": "ci", "effect": "NoSchedule"},
        {"key": "alone", "value": "", "effect": "NoExecute"},
    ]
    assert second["spec"]["taints"] == [of_patch]
    master = node_object(world, "master")
    assert master["metadata"]["labels"]["node-role.kubernetes.io/edge"] == ""
    taints = [(each["key"], each["effect"]) for each in master["spec"]["taints"]]
    assert ("dedicated", "NoSchedule") in taints
    assert len(taints) == len({*taints}), "an API server refuses these"
    assert master["spec"]["podCIDR"] == cluster.master.pod_subnet


def test_taints_that_a_master_has_already_stay(world: World, cluster: Cluster) -> None:
    from sykube.cluster.operations import control_plane

    theirs = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
    node_object(world, "master")["spec"]["taints"] = [theirs]
    with cluster.api() as api:
        control_plane._describe_node(cluster, api, cluster.master)
    assert node_object(world, "master")["spec"]["taints"][0] == theirs
    assert len(node_object(world, "master")["spec"]["taints"]) == 2


def test_nodes_have_limits_of_their_own(world: World, cluster: Cluster) -> None:
    def limits(name: str) -> Json:
        node = cluster.node(name)
        lines = node.pull("/etc/sykube/node.env").read_text().splitlines()
        folders = [each / cgroups.path_of(node.instance) for each in world.cgroup_hierarchies()]
        pids = [file.read_text().strip() for each in folders for file in each.glob("pids.max")]
        return dict(line.split("=", 1) for line in lines) | {"pids": pids}

    own, other, master = limits("node1"), limits("node2"), limits("master")
    assert (own["SYKUBE_MILLICORES"], own["SYKUBE_MEMORY"]) == ("1500", str(2 * 1024**3))
    assert (other["SYKUBE_MILLICORES"], other["SYKUBE_MEMORY"]) == ("0", "0")
    assert (own["pids"], other["pids"], master["pids"]) == (["900"], ["1200"], ["900"])


def test_nodes_see_folders_of_their_own_beside_the_clusters(
    world: World, cluster: Cluster, tmp_path: Path
) -> None:
    def seen(name: str) -> set[tuple[Path, str]]:
        return set(world.instances[f"fake-{name}"].options.binds)

    for name in ("master", "node1", "node2"):
        assert (tmp_path, "/shared") in seen(name)
    assert (tmp_path, "/own:ro") in seen("node2")
    assert "/own:ro" not in dict(seen("node1")).values()


def test_ports_lead_to_the_node_that_they_are_of(cluster: Cluster) -> None:
    shown = [str(port) for port in cluster.state.ports]
    assert shown == ["127.0.0.1:8080:80@node1", "127.0.0.1:5353:53/udp@node1"]


def test_containerd_of_each_node_gets_the_patched_configuration(
    world: World, cluster: Cluster
) -> None:
    for node in cluster.nodes:
        file = node.pull("/etc/sykube/containerd.toml")
        assert file.stat().st_mode & 0o777 == 0o600
        text = file.read_text().replace("@RESTRICT@", "false")
        plugin = tomllib.loads(text)["plugins"]["io.containerd.grpc.v1.cri"]
        assert plugin["containerd"]["runtimes"].keys() == {
            "runc",
            "crun",
            "apptainer",
            "default",
            "foo",
        }
        binds = world.instances[node.instance].options.binds
        assert (file, "/etc/containerd/config.toml") in binds


def test_without_patches_nothing_is_in_the_place_of_the_images_file(world: World) -> None:
    made = init(world)
    assert made is not None
    assert not made.master.pull("/etc/sykube/containerd.toml").exists()
    binds = world.instances["fake-master"].options.binds
    assert "/etc/containerd/config.toml" not in [inside for _, inside in binds]
    config = given(world, "master", "ClusterConfiguration")
    assert "extraArgs" not in config["apiServer"]
    assert "featureGates" not in given(world, "master", "KubeletConfiguration")
    assert node_object(world, "node1")["spec"]["taints"] == []


def test_what_the_user_sets_for_kubelets_is_not_set_again_beside_it() -> None:
    from sykube.image.versions import minor
    from sykube.kubernetes import kubelet

    text = "imagePullCredentialsVerificationPolicy: AlwaysVerify\nkind: KubeletConfiguration\n"
    spec = ClusterSpec(kubelet_config_patches=(Patch(text),))
    fields = spec.kubeadm_patches("node1").fields("KubeletConfiguration")
    found = yaml.safe_load(kubelet.drop_in(minor("1.36"), allow_cgroup_v1=True, patched=fields))
    assert found.keys() == {"apiVersion", "kind", "failCgroupV1"}


# --- the record ---


def test_all_of_it_survives_being_stored(host: Host, file: Path) -> None:
    spec = make_spec(host, file, {})
    again = stored.load(ClusterSpec, json.loads(json.dumps(stored.dump(spec))))
    assert again == spec
    assert again.differences(spec) == []
    assert (spec.workers, spec.control_planes) == (2, 1)
    assert again.nodes[0].kubeadm_config_patches == spec.nodes[0].kubeadm_config_patches
    assert isinstance(again.kubeadm_config_patches_json6902[0], JsonPatch)


def test_init_again_with_the_same_file_finds_the_cluster_as_asked(
    host: Host, world: World, cluster: Cluster, file: Path
) -> None:
    assert init(world, make_spec(host, file, {})) is None
    changed = file.read_text(encoding="utf-8").replace("maxPods: 77", "maxPods: 78")
    file.write_text(changed, encoding="utf-8")
    with pytest.raises(SykubeError, match="not as asked") as raised:
        init(world, make_spec(host, file, {}))
    assert "kubeletConfigPatches" in raised.value.details


# state.json's "spec" as the version before wrote it.
OLD = {
    "name": "old", "workers": 2, "controlPlanes": 1, "taintMaster": True, "dest": "",
    "dns": ["192.0.2.1"], "ephemeral": False, "networkDir": "", "options": ["--nv"],
    "localImage": "", "fingerprint": "", "publicKey": "", "noVerify": False, "source": "auto",
    "kubernetesVersion": "", "kubernetesMirror": "", "containerdMirror": "", "runcMirror": "",
    "imageRepository": "", "allowCgroupV1": False, "mirror": "", "nodeSubnet": "",
    "podSubnet": "10.244.0.0/16", "serviceSubnet": "", "cpus": "1.5", "memory": "", "pids": 0,
    "fromSnapshot": "", "addons": ["metrics"], "registryMirrors": [], "registryAuth": "",
    "ports": ["8080:80@node1"], "mounts": ["/srv:/srv:ro"], "httpProxy": "", "httpsProxy": "",
    "noProxy": [], "caCertificates": [],
}  # fmt: skip


def test_a_record_of_the_version_before_is_read() -> None:
    spec = stored.load(ClusterSpec, OLD)
    assert spec == ClusterSpec(
        name="old", workers=2, taint_master=True, dns=("192.0.2.1",), options=("--nv",),
        pod_subnet="10.244.0.0/16", cpus="1.5", addons=("metrics",), ports=("8080:80@node1",),
        mounts=("/srv:/srv:ro",),
    )  # fmt: skip
    assert {key: stored.dump(spec)[key] for key in OLD} == OLD
    assert spec.node("node2").limits.millicores == 1500
    assert spec.node("node1").mounts == ("/srv:/srv:ro",)


# --- later ---


def test_nodes_that_join_later_get_the_same(world: World, cluster: Cluster) -> None:
    assert scaling.add(world.host, "fake", 1, world.ui()) == ["node3"]
    registered = given(world, "node3", "InitConfiguration")["nodeRegistration"]
    assert "of-patch=yes" in registered["kubeletExtraArgs"]["node-labels"]
    assert "ignorePreflightErrors" not in registered
    assert node_object(world, "node3")["metadata"]["labels"]["tier"] == "patched"
    assert cluster.node("node3").pull("/etc/sykube/containerd.toml").exists()


def test_a_node_that_is_added_again_is_what_the_file_says(world: World, cluster: Cluster) -> None:
    scaling.remove_node(world.host, "fake", "node1", scaling.RemovalOptions(), world.ui())
    assert scaling.add(world.host, "fake", 1, world.ui()) == ["node1"]
    assert node_object(world, "node1")["metadata"]["labels"]["tier"] == "back"
    assert given(world, "node1", "InitConfiguration")["nodeRegistration"]["ignorePreflightErrors"]


def test_start_writes_the_same_files_again(world: World, cluster: Cluster, tmp_path: Path) -> None:
    before = cluster.node("node1").pull("/etc/sykube/containerd.toml").read_text()
    power.stop(world.host, "fake", power.StopOptions(), world.ui())
    cluster.node("node1").pull("/etc/sykube/containerd.toml").unlink()
    power.start(world.host, "fake", world.ui())
    assert cluster.node("node1").pull("/etc/sykube/containerd.toml").read_text() == before
    binds = world.instances["fake-node2"].options.binds
    assert (tmp_path, "/own:ro") in binds


# --- refusals ---


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- role: master", "1: there is no 'master'; there are: control-plane, worker"),
        ("- labels: {'a b': c}", "'a b' is not a label's key"),
        ("- labels: {a: 'b c'}", "'b c' is not a value of the label a"),
        ("- labels: [a]", "labels must be a mapping of texts"),
        ("- taints: [a=b]", "the taint 'a=b' is not KEY=VALUE:EFFECT"),
        ("- taints: ['a=b:Never']", "NoSchedule, PreferNoSchedule, NoExecute"),
        ("- cpus: 0.1", "too low"),
        ("- memory: lots", "is not a size"),
        ("- pids: 3", "at least 500"),
        ("- mounts: ['/a:/etc']", "where nodes have something of their own"),
        ("- ports: ['80:80@node1']", "names a node, and is one of a node already"),
        ("- lables: {}", "unknown key 'lables'; did you mean 'labels'?"),
        ("- worker", "a mapping is needed here, of role, labels"),
        ("- role: worker", "the number of control planes must be 1, 3 or 5, not 0"),
        ("- {}\n- {}", "the number of control planes must be 1, 3 or 5, not 2"),
        ("- ports: ['80:80']\n- {role: worker, ports: ['80:81']}", "80 of 127.0.0.1 is asked for"),
        ("- mounts: ['/a:/x', '/b:/x']", "two folders are to be at /x"),
    ],
)
def test_a_node_that_cannot_be_is_refused_with_its_line(
    host: Host, tmp_path: Path, text: str, words: str
) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(f"nodes:\n{text}\n")
    with pytest.raises(UsageError) as raised:
        make_spec(host, file, {})
    found = (raised.value.details or raised.value.brief).splitlines()
    assert any(words.removeprefix("1: ") in line for line in found), found
    assert all(line.startswith((f"{file}:1: ", f"{file}:2: ", f"{file}:3: ")) for line in found)


def test_a_mount_of_a_node_and_one_of_the_cluster_at_one_place(host: Host, tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("mounts: ['/a:/x']\nnodes:\n- mounts: ['/b:/x']\n")
    with pytest.raises(UsageError, match=r":2: two folders are to be at /x"):
        make_spec(host, file, {})


def test_the_number_of_nodes_is_said_once(host: Host, tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("nodes: [{}]\nworkers: 1\n")
    with pytest.raises(UsageError, match=r":2: workers and nodes both give a number of nodes"):
        make_spec(host, file, {})
    file.write_text("nodes: [{}]\n")
    with pytest.raises(UsageError, match=r"^controlPlanes and nodes both give"):
        make_spec(host, file, {"control_planes": 1})
    assert make_spec(host, file, {}).nodes == (NodeSpec(),)
    file.write_text("nodes:\n- {}\n" + "- {role: worker}\n" * 241)
    with pytest.raises(UsageError, match=r":1: the number of workers must be from 0 to 240"):
        make_spec(host, file, {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("featureGates: {'A-B': true}", "'A-B' is not a feature gate"),
        ("featureGates: {A: maybe}", "featureGates can be true or false, not 'maybe'"),
        ("runtimeConfig: {API: true}", "'API' is not an API"),
        ("runtimeConfig: {api/all: on}", "the API api/all can be true or false, not 'on'"),
    ],
)
def test_gates_that_cannot_be(host: Host, tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as raised:
        make_spec(host, file, {})
    assert raised.value.brief.startswith(f"{file}:1: {words}")


def test_a_patch_that_cannot_be_applied_is_refused_before_anything_is_made(
    world: World, tmp_path: Path, sykube: Sykube
) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(
        "kubeadmConfigPatchesJSON6902:\n- kind: KubeletConfiguration\n"
        '  patch: \'[{"op": "remove", "path": "/nothing"}]\'\n'
    )
    with unchanged(world):
        found = sykube("init", "--config", str(file))
        assert found.code == ExitCode.USAGE
        assert f"{file}:3: remove: the document has no /nothing" in found.err
        assert sykube("init", "--config", str(file), "--dry-run").code == ExitCode.USAGE
        file.write_text("containerdConfigPatches:\n- version = 9\n")
        found = sykube("init", "--config", str(file))
        assert found.code == ExitCode.USAGE
        assert f"{file}:2: this is of version 9 of containerd's configuration" in found.err
    assert world.instances == {}
    assert world.configurations == []


def test_node_add_refuses_what_cannot_be_applied_any_more(world: World, cluster: Cluster) -> None:
    cluster.state.spec = stored.load(ClusterSpec,
        stored.dump(cluster.state.spec)
        | {
            "kubeadmConfigPatchesJSON6902": [
                {
                    "kind": "JoinConfiguration", "group": "", "version": "",
                    "patch": "- {op: remove, path: /nothing}",
                }
            ]
        }
    )  # fmt: skip
    cluster.save()
    with pytest.raises(UsageError, match="remove: the document has no /nothing"):
        scaling.add(world.host, "fake", 1, world.ui())
    assert "fake-node3" not in world.instances
