"""Users' patches: how they are merged, what they are for, and how wrong ones are refused."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sykube import documents, patches
from sykube.cluster.model.spec import ClusterSpec
from sykube.cluster.model.spec_reader import make_spec
from sykube.cluster.operations import containerd_config, patch_check
from sykube.errors import UsageError
from sykube.host.host import Host
from sykube.host.run import Completed
from sykube.image.build import Builder
from sykube.image.node_image import NodeImage
from sykube.kubernetes import kubeadm_patches
from sykube.kubernetes.kubeadm_patches import JsonPatch, KubeadmPatches
from sykube.patches import Patch, PatchError
from tests.fakes import FakeHost
from tests.unit.helpers import errors

Json = dict[str, Any]
REPOSITORY = Path(__file__).resolve().parents[2]
CLUSTER: Json = {
    "apiVersion": "kubeadm.k8s.io/v1beta4",
    "kind": "ClusterConfiguration",
    "apiServer": {
        "certSANs": ["localhost"],
        "extraArgs": [{"name": "v", "value": "1"}, {"name": "profiling", "value": "false"}],
    },
}
OLD_CLUSTER: Json = {
    "apiVersion": "kubeadm.k8s.io/v1beta3",
    "kind": "ClusterConfiguration",
    "apiServer": {"extraArgs": {"v": "1", "profiling": "false"}},
}


# Appendix A of RFC 7386, but for those whose result is no mapping at all.
@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_a_merge_is_that_of_rfc_7386(target: Any, patch: Any, result: Any) -> None:
    assert patches.merge(target, patch) == result


def test_a_merge_leaves_what_it_was_given_as_it_is() -> None:
    target = {"a": {"b": 1}, "c": [1]}
    patches.merge(target, {"a": {"b": 2, "d": 3}, "c": None})
    assert target == {"a": {"b": 1}, "c": [1]}


# --- documents of kubeadm ---


def merged(text: str, document: Json = CLUSTER) -> Json:
    return KubeadmPatches((Patch(text),)).apply(document)


@pytest.mark.parametrize(
    "arguments", ["{v: '4'}", "[{name: v, value: '4'}]"], ids=["a mapping", "a list"]
)
@pytest.mark.parametrize("document", [CLUSTER, OLD_CLUSTER], ids=["v1beta4", "v1beta3"])
def test_arguments_are_merged_by_name_in_the_form_of_the_version(
    arguments: str, document: Json
) -> None:
    found = merged(
        f"kind: ClusterConfiguration\napiServer: {{extraArgs: {arguments}}}\n", document
    )["apiServer"]["extraArgs"]
    if document is CLUSTER:
        assert found == [{"name": "profiling", "value": "false"}, {"name": "v", "value": "4"}]
    else:
        assert found == {"profiling": "false", "v": "4"}


def test_arguments_get_the_versions_form_where_there_were_none() -> None:
    text = "kind: ClusterConfiguration\nscheduler: {extraArgs: {v: '2'}}\n"
    assert merged(text)["scheduler"] == {"extraArgs": [{"name": "v", "value": "2"}]}
    assert merged(text, OLD_CLUSTER)["scheduler"] == {"extraArgs": {"v": "2"}}


def test_an_argument_is_removed_by_null_and_may_be_given_twice() -> None:
    found = merged("kind: ClusterConfiguration\napiServer: {extraArgs: {v: null}}\n")
    assert found["apiServer"]["extraArgs"] == [{"name": "profiling", "value": "false"}]
    issuer = "service-account-issuer"
    twice = f"[{{name: {issuer}, value: a}}, {{name: {issuer}, value: b}}]"
    found = merged(f"kind: ClusterConfiguration\napiServer: {{extraArgs: {twice}}}\n")
    assert [each["value"] for each in found["apiServer"]["extraArgs"]] == ["1", "false", "a", "b"]


def test_other_lists_are_replaced() -> None:
    found = merged("kind: ClusterConfiguration\napiServer: {certSANs: [a.example]}\n")
    assert found["apiServer"]["certSANs"] == ["a.example"]


@pytest.mark.parametrize(
    ("text", "applies"),
    [
        ("kind: ClusterConfiguration", True),
        ("kind: ClusterConfiguration\napiVersion: kubeadm.k8s.io/v1beta4", True),
        ("kind: ClusterConfiguration\napiVersion: kubeadm.k8s.io/v1beta3", False),
        ("kind: InitConfiguration", False),
        ("kind: InitConfiguration\n---\nkind: ClusterConfiguration", True),
    ],
)
def test_a_patch_is_for_documents_of_its_kind_and_version(text: str, applies: bool) -> None:
    *others, last = text.split("---\n")
    text = "---\n".join([*others, f"{last}\nclusterName: other\n"])
    assert (merged(text).get("clusterName") == "other") is applies
    assert bool(KubeadmPatches((Patch(text),)).unused([CLUSTER])) is not applies or others


@pytest.mark.parametrize(
    ("group", "version", "applies"),
    [
        ("", "", True),
        ("kubeadm.k8s.io", "v1beta4", True),
        ("kubeadm.k8s.io", "", True),
        ("", "v1beta4", True),
        ("kubeadm.k8s.io", "v1beta3", False),
        ("kubelet.config.k8s.io", "", False),
    ],
)
def test_so_is_a_json_patch(group: str, version: str, applies: bool) -> None:
    patch = JsonPatch(
        "ClusterConfiguration",
        group,
        version,
        Patch("- {op: add, path: /apiServer/certSANs/-, value: a.example}"),
    )
    found = KubeadmPatches((), (patch,)).apply(CLUSTER)
    assert ("a.example" in found["apiServer"]["certSANs"]) is applies
    assert CLUSTER["apiServer"]["certSANs"] == ["localhost"]


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        ("{op: add, path: /scheduler/x/y, value: 1}", "add: the document has no /scheduler/x/y"),
        ("{op: remove, path: /nothing}", "remove: the document has no /nothing"),
        ("{op: replace, path: /apiServer/certSANs/7, value: a}", "no /apiServer/certSANs/7"),
        ("{op: move, from: /nothing, path: /a}", "move: the document has no /nothing"),
        ("{op: add, path: /kind/x, value: 1}", "add: the document has no /kind/x"),
        ("{op: add, path: /kind/x/y, value: 1}", "add: the document has no /kind/x/y"),
        ("{op: test, path: /token, value: a}", "test /token: the document has another value"),
        ("{op: replace, path: /kind, value: Pod}", "kind and apiVersion cannot be patched"),
        ("{op: replace, path: '', value: []}", "kind and apiVersion cannot be patched"),
    ],
)
def test_a_json_patch_that_cannot_be_applied_shows_nothing_of_the_document(
    operation: str, words: str
) -> None:
    patch = JsonPatch("ClusterConfiguration", patch=Patch(f"- {operation}", "f.yaml:7"))
    secret = CLUSTER | {"token": "abcdef.0123456789abcdef"}
    with pytest.raises(UsageError) as raised:
        KubeadmPatches((), (patch,)).apply(secret)
    assert raised.value.brief.startswith("f.yaml:7: ")
    assert words in raised.value.brief
    assert "abcdef" not in f"{raised.value.brief}{raised.value.details}{raised.value.__cause__}"


def test_operations_come_after_merges() -> None:
    merge = Patch("kind: ClusterConfiguration\napiServer: {certSANs: [merged]}\n")
    operation = JsonPatch(
        "ClusterConfiguration", patch=Patch("- {op: add, path: /apiServer/certSANs/-, value: last}")
    )
    found = KubeadmPatches((merge,), (operation,)).apply(CLUSTER)
    assert found["apiServer"]["certSANs"] == ["merged", "last"]


def test_labels_and_taints_that_a_patch_lets_a_node_register() -> None:
    arguments = [{"name": "node-labels", "value": "a=b,c="}]
    taint = {"key": "k", "effect": "NoSchedule"}
    join: Json = {"nodeRegistration": {"kubeletExtraArgs": arguments, "taints": [taint]}}
    assert kubeadm_patches.registration(join) == ({"a": "b", "c": ""}, [taint])
    join = {"nodeRegistration": {"kubeletExtraArgs": {"node-labels": "a=b"}, "taints": None}}
    assert kubeadm_patches.registration(join) == ({"a": "b"}, [])
    assert kubeadm_patches.registration({"nodeRegistration": None}) == ({}, [])


# --- wrong ones, in a file ---


def refused(host: Host, tmp_path: Path, text: str, **flags: Any) -> list[str]:
    return errors(host, tmp_path / "cluster.yaml", text, **flags)


def test_every_wrong_patch_is_shown_with_its_own_line(host: Host, tmp_path: Path) -> None:
    found = refused(
        host,
        tmp_path,
        """\
kubeadmConfigPatches:
- |
  kind: ClusterConfiguration
  apiServer: [
- |
  kind: Deployment
- "apiServer: {}"
- 5
- kind: InitConfiguration
  nodeRegistration:
    kubeletExtraArgs: {v: 4}
- just words
kubeletConfigPatches: [{kind: ClusterConfiguration}, "- a"]
kubeadmConfigPatchesJSON6902:
- kind: ClusterConfiguration
  patch: |
    - op: add
- kind: Pod
  patch: "[]"
- kind: KubeletConfiguration
- kind: ClusterConfiguration
  name: x
  patch: "{}"
containerdConfigPatches:
- |
  version = 2
  oom_score = = 1
- |
  [plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]
  endpoint = ["https://mirror.example"]
- {version: 2}
- version = "2"
- 'plugins."a" = 1'
- "plugins.a.registry = 1"
""",
    )
    for line, (number, words) in zip(
        found,
        [
            (4, "the patch is no valid YAML"),
            (5, "its kind is 'Deployment'"),
            (7, "it has no kind"),
            (8, "must be a text"),
            (9, "the argument 'v' must be a text: quote its value"),
            (12, "the patch must be a mapping"),
            (13, "the kind is 'ClusterConfiguration', and can only be 'KubeletConfiguration' here"),
            (13, "the patch must be a mapping"),
            (16, "Operation must have a 'path' member"),
            (18, "its kind is 'Pod'"),
            (20, "the patch is missing"),
            (22, "unknown key 'name'"),
            (23, "the JSON patch must be a list of operations"),
            (27, "the patch is no valid TOML"),
            (28, "name them with registryMirrors"),
            (31, "the patch is no valid TOML"),
            (32, "version must be a number"),
        ],
        strict=True,
    ):
        assert line.startswith(f"{number}: "), line
        assert words in line


def test_patches_are_lists(host: Host, tmp_path: Path) -> None:
    found = refused(
        host,
        tmp_path,
        "kubeadmConfigPatches: 'kind: InitConfiguration'\nnodes: {role: worker}\n"
        "featureGates: [A]\nruntimeConfig: {api/alpha: [true]}\n",
    )
    assert [line.split(":")[0] for line in found] == ["1", "2", "3", "4"]
    assert "must be a list of patches" in found[0]


def test_files_of_the_command_line_are_refused_with_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "patch.toml"
    kind = ClusterSpec
    from sykube.cluster.model.spec import SETTINGS

    for name, text, words in (
        ("containerd_config_patches", "a = 1\nb = =\n", f"{file}:2: the patch is no valid TOML"),
        ("kubelet_config_patches", "a: 1\nb: [\n", f"{file}:2: the patch is no valid YAML"),
        ("kubeadm_config_patches", "a: 1\n", f"{file}:1: the patch is for nothing"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"\S") as raised:
            SETTINGS[name].type.parse((str(file),))
        assert words in str(raised.value)
    file.write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"."):
        SETTINGS["kubelet_config_patches"].type.parse((str(file),))
    with pytest.raises(ValueError, match="cannot read /nowhere: No such file"):
        SETTINGS["kubelet_config_patches"].type.parse(("/nowhere",))
    file.write_text("maxPods: 9\n")
    (patch,) = SETTINGS["kubelet_config_patches"].type.parse((str(file),))
    assert patch == Patch("maxPods: 9\n")
    assert kind(kubelet_config_patches=(patch,)).kubeadm_patches("node1").fields(
        "KubeletConfiguration"
    ) == {"kind": f"{file}:1: ", "maxPods": f"{file}:1: "}


def test_what_limits_set_is_not_patched(host: Host, tmp_path: Path) -> None:
    patch = "kubeletConfigPatches:\n- maxPods: 1\n- systemReserved: {cpu: 1}\n"
    (line,) = refused(host, tmp_path, patch + "cpus: 2\n")
    assert line == "3: systemReserved comes from cpus and memory"
    (line,) = refused(host, tmp_path, patch + "nodes: [{}, {role: worker, memory: 2Gi}]\n")
    assert line == "3: systemReserved comes from cpus and memory"
    (tmp_path / "cluster.yaml").write_text(patch)
    assert len(make_spec(host, tmp_path / "cluster.yaml", {}).kubelet_config_patches) == 2


# --- before a cluster is made ---


def tried(host: Host, tmp_path: Path, text: str, kubernetes: str = "1.36.2") -> list[str]:
    file = tmp_path / "cluster.yaml"
    file.write_text(text, encoding="utf-8")
    warnings: list[str] = []
    patch_check.check_patches(make_spec(host, file, {}), kubernetes, warnings.append)
    return [line.removeprefix(f"{file}:") for line in warnings]


def test_patches_of_another_version_are_warned_of(host: Host, tmp_path: Path) -> None:
    text = """\
kubeadmConfigPatches:
- {kind: JoinConfiguration, nodeRegistration: {ignorePreflightErrors: [all]}}
- {kind: ClusterConfiguration, apiVersion: kubeadm.k8s.io/v1beta3, clusterName: x}
- {kind: ClusterConfiguration, apiVersion: kubeadm.k8s.io/v1beta4, clusterName: x}
workers: 0
"""
    assert tried(host, tmp_path, text) == [
        "3: the patch is not applied: it is for ClusterConfiguration of kubeadm.k8s.io/v1beta3, "
        "which Kubernetes 1.36 does not read"
    ]
    assert len(tried(host, tmp_path, text, "1.30.1")) == 1
    assert len(tried(host, tmp_path, text, "1.20.2")) == 2


def test_patches_of_a_node_that_does_not_read_them_are_warned_of(
    host: Host, tmp_path: Path
) -> None:
    text = """\
nodes:
- kubeadmConfigPatches: [{kind: InitConfiguration}, {kind: JoinConfiguration}]
- role: worker
  kubeadmConfigPatches:
  - kind: JoinConfiguration
  - kind: KubeletConfiguration
"""
    assert [line.split(": ", 1)[0] for line in tried(host, tmp_path, text)] == ["2", "6"]
    assert tried(host, tmp_path, text)[1].endswith(
        "KubeletConfiguration, which node1 does not read"
    )


def test_a_patch_of_one_node_that_cannot_be_applied_is_found(host: Host, tmp_path: Path) -> None:
    text = """\
nodes:
- {}
- role: worker
- role: worker
  kubeadmConfigPatchesJSON6902:
  - kind: JoinConfiguration
    patch: '[{"op": "remove", "path": "/nodeRegistration/taints"}]'
"""
    with pytest.raises(UsageError) as raised:
        tried(host, tmp_path, text)
    assert raised.value.brief == (
        f"{tmp_path}/cluster.yaml:7: remove: the document has no /nodeRegistration/taints"
    )


# --- containerd ---


def config_toml(
    base: Path, *texts: str, operations: Sequence[str] = ()
) -> tuple[Json, dict[str, str]]:
    """What a node gets, parsed, and its further files; the image holds what a build puts there."""
    text = base.read_text(encoding="utf-8").replace("@PAUSE@", "pause:3")

    def extract(argv: Sequence[str | Path], **_: Any) -> Completed:
        words = [str(word) for word in argv]
        assert words[-4:-1] == ["/x/node.sif", "cp", "/etc/containerd/config.toml"]
        folder, inside = words[words.index("--bind") + 1].split(":")
        Path(words[-1].replace(inside, folder, 1)).write_text(text, encoding="utf-8")
        return Completed((), 0, "", "")

    files = containerd_config.patched(
        FakeHost(Path("/nonexistent"), extract),
        NodeImage("x", Path("/x")),
        tuple(map(Patch, texts)),
        Builder(Path("/x"), {}),
        tuple(map(Patch, operations)),
    )
    main = files.pop("containerd.toml")
    assert "restrict_oom_score_adj = @RESTRICT@\n" in main
    return tomllib.loads(main.replace("@RESTRICT@", "false")), files


DEBIANS = REPOSITORY / "definitions/node/containerd.toml"
THIRD = REPOSITORY / "definitions/upstream/containerd-v3.toml"
FOURTH = REPOSITORY / "definitions/upstream/containerd-v4.toml"
OLD = 'io.containerd.grpc.v1.cri"'
RUNTIME = f'[plugins."{OLD}.containerd.runtimes.foo]\nruntime_type = "foo"\n'


def test_a_patch_of_containerd_keeps_the_rest() -> None:
    found, more = config_toml(DEBIANS, RUNTIME, "oom_score = -999\n")
    cri = found["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["containerd"]["runtimes"].keys() == {"runc", "crun", "apptainer", "default", "foo"}
    assert cri["registry"] == {"config_path": "/etc/sykube/certs.d"}
    assert (found["oom_score"], found["version"], more) == (-999, 2, {})


def test_a_patch_of_an_older_version_is_left_to_containerd() -> None:
    found, more = config_toml(THIRD, RUNTIME, "version = 2\noom_score = 1\n")
    assert found["imports"] == [
        "/etc/sykube/containerd.0.toml",
        "/etc/sykube/containerd.1.toml",
    ]
    assert OLD.strip('"') not in found["plugins"]
    assert tomllib.loads(more["containerd.0.toml"])["version"] == 2
    assert tomllib.loads(more["containerd.1.toml"]) == {"version": 2, "oom_score": 1}


def test_a_patch_of_a_later_version_is_refused() -> None:
    with pytest.raises(UsageError, match="version 3 .* the node image has version 2"):
        config_toml(DEBIANS, "version = 3\noom_score = 1\n")


def test_plugins_of_a_later_version_say_so_themselves() -> None:
    text = '[plugins."io.containerd.cri.v1.runtime".cni]\nbin_dir = "/x"\n'
    with pytest.raises(UsageError, match="version 3 .* the node image has version 2"):
        config_toml(DEBIANS, text)
    found, more = config_toml(THIRD, text)
    cni = found["plugins"]["io.containerd.cri.v1.runtime"]["cni"]
    assert cni == {"bin_dir": "/x", "conf_dir": "/etc/cni/net.d"}
    assert more == {}


METRICS = {"address": "127.0.0.1:1338"}


@pytest.mark.parametrize(
    "patches",
    [
        {"texts": ('[metrics]\naddress = "127.0.0.1:1338"\n[debug]\nlevel = "debug"\n',)},
        {
            "operations": (
                json.dumps(
                    [
                        {"op": "add", "path": "/metrics", "value": METRICS},
                        {"op": "add", "path": "/debug", "value": {"level": "debug"}},
                    ]
                ),
            )
        },
    ],
    ids=["merged", "operations"],
)
def test_servers_that_version_4_has_as_plugins_are_left_to_containerd_to_migrate(
    patches: dict[str, tuple[str, ...]],
) -> None:
    texts, operations = patches.get("texts", ()), patches.get("operations", ())
    found, more = config_toml(FOURTH, *texts, operations=operations)
    assert (found["version"], found["debug"]) == (4, {"level": "debug"})
    assert "metrics" not in found
    assert found["imports"] == ["/etc/sykube/containerd.servers.toml"]
    assert tomllib.loads(more["containerd.servers.toml"]) == {"version": 3, "metrics": METRICS}
    found, more = config_toml(THIRD, *texts, operations=operations)
    assert (found["metrics"], more) == (METRICS, {})


def test_without_patches_no_image_is_asked(host: Host) -> None:
    assert (
        containerd_config.patched(host, NodeImage("x", Path("/x")), (), Builder(Path("/x"), {}))
        == {}
    )


def test_a_patch_error_says_where() -> None:
    with pytest.raises(PatchError) as raised:
        patches.toml("a = 1\n\nb = [\n")
    assert raised.value.line >= 3
    with pytest.raises(PatchError) as raised:
        patches.mappings("a: 1\nb: ]\n")
    assert raised.value.line == 2


def test_a_kubelets_patch_of_several_documents_names_its_kind_in_each() -> None:
    patch = kubeadm_patches.of_kubelet(Patch("maxPods: 1\n---\nregisterNode: true\n"))
    assert [each["kind"] for each in documents.load_all(patch.text)] == 2 * ["KubeletConfiguration"]
