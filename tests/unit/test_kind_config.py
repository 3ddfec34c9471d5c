"""kind's configuration file: what sykube makes of it, and what it refuses, by line."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from sykube.cluster.model import lookup
from sykube.cluster.model.spec import ClusterSpec
from sykube.cluster.model.spec_reader import make_spec
from sykube.errors import ExitCode, UsageError
from sykube.host.host import Host
from tests.fakes import World, fill
from tests.unit.helpers import Sykube, unchanged

FIXTURES = Path(__file__).parent / "fixtures/kind"
REPOSITORY = Path(__file__).resolve().parents[2]
HEAD = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n"


@pytest.fixture(autouse=True)
def debian(monkeypatch: pytest.MonkeyPatch) -> None:
    """No release site is asked."""
    monkeypatch.setenv("SYKUBE_SOURCE", "debian")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that paths of a file are relative to, with what the fixtures mount."""
    (tmp_path / "data").mkdir()
    (tmp_path / "login.json").write_text('{"auths": {"r.example": {"auth": "bWU6c2VjcmV0"}}}')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def read(host: Host, here: Path) -> Any:
    """Reads the text of a file after its first two lines, or a fixture; also gives the warnings."""

    def call(text: str, **flags: Any) -> tuple[ClusterSpec, list[str]]:
        file = here / "kind.yaml"
        if text.endswith(".yaml"):
            file.write_text((FIXTURES / text).read_text())
        else:
            file.write_text(HEAD + text)
        warnings: list[str] = []
        spec = make_spec(host, file, flags, warn=warnings.append)
        return spec, [text.removeprefix(f"{file}:") for text in warnings]

    return call


def refused(read: Any, text: str) -> list[str]:
    """What is wrong with a file, without its name."""
    with pytest.raises(UsageError) as raised:
        read(text)
    assert raised.value.exit_code is ExitCode.USAGE
    shown = raised.value.details.splitlines() or [raised.value.brief]
    assert all("kind.yaml:" in line for line in shown)
    return [line.partition("kind.yaml:")[2] for line in shown]


# --- clusters ---


def test_every_field_has_its_effect(world: World, sykube: Sykube, here: Path) -> None:
    result = sykube("init", "--config", str(FIXTURES / "everything.yaml"))
    assert result.code == ExitCode.OK, result.err
    assert result.err.count("warning: ") == 1
    assert "everything.yaml:46: no Docker image is used" in result.err

    assert sorted(world.instances) == ["shop-master", "shop-node1", "shop-node2"]
    nodes = {
        name: each["metadata"]["labels"] for name, each in world.kubernetes["shop"].nodes.items()
    }
    assert nodes["shop-master"]["ingress-ready"] == "true"
    for name in ("shop-node1", "shop-node2"):
        assert nodes[name].items() >= {"tier": "backend", "generation": "2"}.items()

    documents = {each["kind"]: each for each in world.configurations[0][2]}
    cluster = documents["ClusterConfiguration"]
    assert cluster["networking"]["podSubnet"] == "10.244.0.0/16"
    assert cluster["networking"]["serviceSubnet"] == "10.96.0.0/12"
    assert cluster["apiServer"]["certSANs"][-1] == "shop.example"
    arguments = cluster["apiServer"]["extraArgs"]
    assert arguments["v"] == "4"
    assert set(arguments["runtime-config"].split(",")) == {"api/alpha=false", "batch/v1beta1=true"}
    assert documents["KubeletConfiguration"]["featureGates"] == {
        "SidecarContainers": True,
        "HonorPVReclaimPolicy": False,
    }
    registration = documents["InitConfiguration"]["nodeRegistration"]
    assert registration["kubeletExtraArgs"]["node-labels"] == "zone=front"
    assert "taints" not in registration
    registered = [
        each["nodeRegistration"]["name"]
        for _, _, found in world.configurations
        for each in found
        if each["kind"] == "InitConfiguration"
    ]
    assert "shop-node2" in registered

    made = lookup.load(world.host, "shop", world.ui())
    for node in made.nodes:
        assert "search corp.example example" in node.pull("/etc/sykube/resolv.conf").read_text()
        text = node.pull("/etc/sykube/containerd.toml").read_text().replace("@RESTRICT@", "true")
        assert tomllib.loads(text)["debug"].items() >= {"level": "debug", "format": "json"}.items()
    spec = made.state.spec
    assert spec.kubernetes_version == "1.20.2"
    assert spec.registry_auth == str(here / "login.json")
    assert [str(port) for port in spec.port_maps] == [
        "127.0.0.1:26443:6443",
        "127.0.0.1:28080:80@master",
        "0.0.0.0:28053:53/udp@master",
    ]
    binds = {name: dict(world.instances[name].options.binds) for name in world.instances}
    assert here / "data" not in binds["shop-master"]
    assert binds["shop-node1"][here / "data"] == "/data:ro"
    assert binds["shop-node2"][here / "data"] == "/scratch"


def test_the_file_may_come_by_standard_input(world: World, sykube: Sykube) -> None:
    stdin = os.dup(0)
    try:
        with (FIXTURES / "minimal.yaml").open() as file:
            os.dup2(file.fileno(), 0)
        result = sykube("init", "--config", "-", "--dns", "192.0.2.53")
    finally:
        os.dup2(stdin, 0)
        os.close(stdin)
    assert result.code == ExitCode.OK, result.err
    assert list(world.instances) == ["sykube-master"]


def test_a_file_without_nodes_is_one_node_that_options_add_to(read: Any) -> None:
    spec, warnings = read("minimal.yaml")
    assert (spec.control_planes, spec.workers, spec.taint_master) == (1, 0, False)
    assert spec.name == "sykube"
    assert warnings == []
    assert read("minimal.yaml", workers=2, name="lab")[0].workers == 2


def test_control_planes_alone_run_pods_and_have_one_address(world: World, sykube: Sykube) -> None:
    file = FIXTURES / "high-availability.yaml"
    result = sykube("init", "--config", str(file), "--dns", "192.0.2.53")
    assert result.code == ExitCode.OK, result.err
    assert sorted(world.instances) == ["sykube-master", "sykube-master2", "sykube-master3"]
    spec = lookup.load(world.host, "sykube", world.ui()).state.spec
    assert (spec.control_planes, spec.workers, spec.taint_master) == (3, 0, False)
    assert spec.ports == ("127.0.0.2:26444:6443",)
    documents = {each["kind"]: each for each in world.configurations[0][2]}
    assert "127.0.0.2" in documents["ClusterConfiguration"]["apiServer"]["certSANs"]


def test_control_planes_beside_workers_are_tainted(read: Any) -> None:
    spec, _ = read("nodes: [{role: worker}, {}, {role: worker}]\n")
    assert (spec.control_planes, spec.workers, spec.taint_master) == (1, 2, True)


@pytest.mark.parametrize("network", ["", "apiServerPort: 0", "apiServerPort: -1"])
def test_without_a_port_of_its_own_the_api_server_has_none_on_the_host(
    read: Any, network: str
) -> None:
    assert read(f"networking: {{ {network} }}\n")[0].ports == ()


def test_an_address_for_the_api_server_alone_has_its_usual_port(read: Any) -> None:
    assert read("networking: {apiServerAddress: 192.0.2.7}\n")[0].ports == ("192.0.2.7:6443:6443",)


def test_numbers_and_switches_are_read_as_yaml_has_them(read: Any) -> None:
    spec, _ = read(
        """\
nodes:
- extraMounts: [{hostPath: /a, containerPath: /b, readOnly: yes}]
  extraPortMappings: [{containerPort: 0x50, hostPort: 8_080, listenAddress: 127.0.0.1}]
"""
    )
    assert spec.node("master").mounts == ("/a:/b:ro",)
    assert [str(port) for port in spec.port_maps] == ["127.0.0.1:8080:80@master"]


def test_null_is_as_good_as_nothing(read: Any) -> None:
    spec, _ = read("name:\nnetworking:\nnodes:\n- role:\n  labels:\n  extraMounts: ~\n")
    assert (spec.name, spec.control_planes, spec.workers) == ("sykube", 1, 0)


def test_the_flag_for_the_version_wins_over_the_image(read: Any) -> None:
    text = "nodes:\n- image: kindest/node:v1.34.0\n"
    assert read(text)[0].kubernetes_version == "1.34.0"
    assert read(text, kubernetes_version="1.36")[0].kubernetes_version == "1.36"


def test_an_image_of_a_version_that_sykube_cannot_make_is_named_with_its_line(
    world: World, sykube: Sykube, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SYKUBE_SOURCE")
    file = here / "kind.yaml"
    file.write_text(f"{HEAD}nodes:\n- image: kindest/node:v1.27.3\n")
    with unchanged(world):
        result = sykube("init", "--config", str(file), "--dns", "192.0.2.53")
    assert result.code == ExitCode.USAGE
    assert f"{file}:4: no Docker image is used, only its version" in result.err
    assert "makes no clusters of upstream's Kubernetes 1.27" in result.err


def test_ipvs_where_the_kernel_has_it(host: Host, read: Any) -> None:
    text = (
        "networking: {kubeProxyMode: ipvs}\nkubeadmConfigPatches: ['kind: ClusterConfiguration']\n"
    )
    (problem,) = refused(read, text)
    assert problem.startswith("3: kubeProxyMode cannot be 'ipvs'")
    assert "modprobe ip_vs" in problem
    fill(host.proc / "net", {"ip_vs": ""})
    spec, warnings = read(text)
    assert [yaml.safe_load(patch.text) for patch in spec.kubeadm_config_patches] == [
        {"kind": "ClusterConfiguration"},
        {"kind": "KubeProxyConfiguration", "mode": "ipvs"},
    ]
    assert warnings == ["3: kubeProxyMode ipvs has not been tested with sykube"]


def test_what_has_no_effect_is_said_once(read: Any) -> None:
    mounts = "  extraMounts: [{hostPath: data, containerPath: /data, selinuxRelabel: true}]\n"
    _, warnings = read("nodes:\n" + 2 * f"- role: worker\n{mounts}" + f"- image:\n{mounts}")
    assert warnings == ["5: selinuxRelabel: no label of this host is changed"]


def test_a_cluster_without_kinds_own_pod_network_has_none_of_sykubes(
    world: World, sykube: Sykube, here: Path
) -> None:
    file = here / "kind.yaml"
    file.write_text(f"{HEAD}networking:\n  disableDefaultCNI: true\n")
    result = sykube("init", "--config", str(file), "--dns", "192.0.2.53")
    assert result.code == ExitCode.OK, result.err
    made = lookup.load(world.host, "sykube", world.ui())
    assert made.state.spec.pod_network == "none"
    assert made.master.pull("/etc/sykube/pod-network.conflist").read_text() == ""


def test_kinds_guide_to_audit_logs_works(read: Any, here: Path) -> None:
    (here / "policy.yaml").touch()
    spec, _ = read(
        """\
nodes:
- extraMounts:
  - hostPath: ./policy.yaml
    containerPath: /etc/kubernetes/policies/policy.yaml
"""
    )
    assert spec.node("master").mounts == (
        f"{here}/policy.yaml:/etc/kubernetes/policies/policy.yaml",
    )


def test_every_field_of_kind_is_in_the_documentation() -> None:
    lines = (REPOSITORY / "docs/kind-config.md").read_text().splitlines()
    rows = [line.split("|")[1] for line in lines if line.startswith("|")]
    named = {name for row in rows for name in re.findall(r"`(\w+)(?:\[\])?`", row)}
    assert keys(yaml.safe_load((FIXTURES / "everything.yaml").read_text())) <= named


def keys(value: Any) -> set[str]:
    """Those of kind's that are in a document."""
    if isinstance(value, list):
        return set().union(*map(keys, value))
    if not isinstance(value, dict):
        return set()
    of_user = {"labels", "featureGates", "runtimeConfig"}
    return {*value}.union(*(keys(each) for key, each in value.items() if key not in of_user))


# --- refused ---


def test_every_error_is_shown_at_once_by_its_line(world: World, sykube: Sykube, here: Path) -> None:
    file = FIXTURES / "wrong.yaml"
    with unchanged(world):
        result = sykube("init", "--config", str(file))
    assert result.code == ExitCode.USAGE
    assert world.calls.all == []
    found = re.findall(r"wrong.yaml:(\d+): (.*)", result.err)
    for (line, text), (wanted, words) in zip(found, WRONG.items(), strict=True):
        assert int(line) == wanted, text
        assert words in text


WRONG = {
    3: "'Shop' is not a DNS label",
    4: "unknown key 'networkin'; did you mean 'networking'?",
    6: "ipFamily cannot be 'dual'",
    7: "apiServerPort must be a whole number",
    8: "apiServerAddress '::1' is no IPv4 address",
    9: "10.244.0.0/24 is too small",
    10: "kubeProxyMode cannot be 'nftables', only iptables",
    11: "disableDefaultCNI must be true or false",
    12: "unknown key 'dnsServers'; did you mean 'dnsSearch'?",
    13: "control planes must be 1, 3 or 5, not 0",
    14: "'master'; there are: control-plane, worker",
    15: "nodes are not Docker images: 'registry.example/our-node:v1.30.0'",
    18: "all or a whole number, not 'device=0'",
    20: "a mount needs hostPath and containerPath",
    22: "'/data:/var/lib/kubelet' is where nodes have something of their own",
    25: "propagation cannot be 'Bidirectional'",
    27: "a hostPort is needed",
    29: "a hostPort is needed",
    30: "a number that is not from 1 to 65535",
    32: "neither of TCP nor of UDP",
    37: "listenAddress '::' is no IPv4 address",
    39: "another version of Kubernetes than line 17",
    40: "unknown key 'extraMount'; did you mean 'extraMounts'?",
    41: "labels must be a mapping",
    43: "its kind is 'ClusterConfig'",
    46: "can be true or false, not 'maybe'",
    50: "no valid TOML",
}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("nodes: [{role: worker}, {}, {}]\n", 3, "control planes must be 1, 3 or 5, not 2"),
        ("nodes: {role: worker}\n", 3, "nodes must be a list"),
        ("nodes:\n- worker\n", 4, "a mapping is needed here"),
        ("networking: iptables\n", 3, "a mapping is needed here"),
        ("name: []\n", 3, "name must be a text"),
        ("kubeadmConfigPatches:\n  kind: ClusterConfiguration\n", 3, "must be a list"),
        ("networking: {apiServerPort: 99999}\n", 3, "not from 1 to 65535"),
        ("networking: {kubeProxyMode: none}\n", 3, "kubeProxyMode cannot be 'none'"),
        ("networking: {dnsSearch: [a b]}\n", 3, "'a b' is not a domain name"),
        ("<<: a\n", 3, "'<<' needs a mapping"),
        ("name: a\nname: b\n", 4, "the key 'name' stands here for the second time"),
        (
            "nodes:\n- extraMounts:\n  - {hostPath: /x, containerPath: /var/run/docker.sock}\n",
            5,
            "nodes have something of their own",
        ),
        (
            "nodes:\n"
            "- extraMounts: [{hostPath: /a, containerPath: /var/lib/kubelet/config.json}]\n"
            "- extraMounts: [{hostPath: /b, containerPath: /var/lib/kubelet/config.json}]\n"
            "- {}\n",
            5,
            "all nodes get the same credentials",
        ),
        ("nodes:\n- image: kindest/node:latest\n", 4, "nodes are not Docker images"),
    ],
)
def test_what_cannot_be_is_refused_with_its_line(
    read: Any, text: str, line: int, words: str
) -> None:
    (problem,) = refused(read, text)
    assert problem.startswith(f"{line}: ")
    assert words in problem


def test_another_version_of_kinds_file_is_named_as_such(host: Host, here: Path) -> None:
    file = here / "kind.yaml"
    file.write_text("kind: Cluster\napiVersion: kind.sigs.k8s.io/v1alpha3\n")
    with pytest.raises(UsageError) as raised:
        make_spec(host, file, {})
    assert raised.value.brief == (
        f"{file}:2: apiVersion must be 'kind.x-k8s.io/v1alpha4', not 'kind.sigs.k8s.io/v1alpha3'"
    )


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        ('{"op": "remove", "path": "/nowhere"}', "the document has no /nowhere"),
        ('{"op": "add", "path": "/debug", "value": null}', "TOML cannot hold its result"),
        ('{"op": "replace", "path": "", "value": []}', "TOML cannot hold its result"),
        ('{"op": "multiply"}', "the JSON patch is none"),
    ],
)
def test_a_patch_of_containerd_that_cannot_be_applied_is_refused_before_anything_is_made(
    world: World, sykube: Sykube, here: Path, operation: str, words: str
) -> None:
    file = here / "kind.yaml"
    file.write_text(f"{HEAD}containerdConfigPatchesJSON6902:\n- '[{operation}]'\n")
    with unchanged(world):
        result = sykube("init", "--config", str(file), "--dns", "192.0.2.53")
    assert result.code == ExitCode.USAGE
    assert f"{file}:4: " in result.err
    assert words in result.err


def test_gpus_of_a_node_are_its_own(read: Any) -> None:
    spec, _ = read("nodes:\n- role: control-plane\n- role: worker\n  gpus: all\n")
    assert spec.gpus_of_nodes() == {"master": "", "node1": "all"}


def test_nodes_of_the_file_and_a_number_on_the_command_line_exclude_each_other(read: Any) -> None:
    with pytest.raises(UsageError, match="workers and nodes both give a number of nodes"):
        read("nodes: [{}]\n", workers=1)
