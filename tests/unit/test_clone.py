"""New clusters of a snapshot (init --from) on a fake host, and what is taken out of etcd."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from sykube.addons import catalog, network_policy
from sykube.addons.addon import Addon
from sykube.cluster.commands import lifecycle, removal, snapshots, steps
from sykube.cluster.commands.lifecycle import InitOptions
from sykube.cluster.model import lookup
from sykube.cluster.model.spec import ClusterSpec
from sykube.cluster.model.spec_reader import make_spec
from sykube.cluster.model.state import State, clusters
from sykube.cluster.operations import archive, clone, nodes
from sykube.errors import ExitCode, SykubeError, UsageError
from sykube.host.host import Host
from sykube.host.paths import ClusterPaths
from sykube.kubernetes import etcd_scrub
from sykube.kubernetes.etcd_scrub import edit
from tests.fakes import Answer, Injected, World
from tests.fakes.apiserver import NODES
from tests.fakes.node_programs import KUBELET_START
from tests.unit import test_snapshots
from tests.unit.helpers import Sykube
from tests.unit.test_snapshots import unchanged

OVERLAY = "overlay/upper"


@pytest.fixture
def saved(world: World) -> World:
    """A host with a snapshot `kept` of a cluster `old`, which is there no more."""
    world.programs.answers["tar"] = test_snapshots.fake_tar

    def with_etcd(_name: str, argv: list[str], _stdin: str | None) -> Answer | None:
        match argv:
            case ["sh", "start-etcd" | "stop-etcd" | "restore-etcd", *_] | ["python3", "-", _]:
                return 0, "", ""
        return None

    world.node_programs.first = with_etcd
    test_snapshots.make(world, "old", workers=2)
    test_snapshots.stop(world, "old")
    for node in lookup.load(world.host, "old", world.ui()).nodes:
        for file in (
            "etc/kubernetes/pki/ca.key",
            "etc/machine-id",
            "etc/cni/net.d/10-sykube.conflist",
            "var/lib/cni/results/x",
            "var/log/kept",
            "opt/etc/kubernetes",
        ):
            _write(node.pull("/") / file, "of the old one")
        # What the fake node wrote itself is not in its overlay; this leads to it.
        (node.pull("/").parent / ".disk").unlink()
        _write(node.pull("/var/lib/kubelet/pki/kubelet.key"), "of the old one")
        _write(node.pull("/var/lib/kubelet/kubeadm-flags.env"), "of the old one")
        _write(node.pull("/var/log/pods/x"), "of the old one")
        _write(node.pull("/var/lib/containerd/log/image"), "of the old one")
    _write(ClusterPaths(world.host, "old").sifs / "a.sif", "a SIF")
    snapshots.save(world.host, "old", "kept", world.ui())
    removal.delete(world.host, "old", world.ui())
    world.calls.all.clear()
    return world


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def spec(host: Host, name: str = "new", **fields: Any) -> ClusterSpec:
    flags = {"name": name, "from_snapshot": "kept", "dns": ("192.0.2.1",)} | fields
    return make_spec(host, None, flags, clone.defaults(archive.find(host, "kept")))


def init(world: World, *, retain: bool = False, **fields: Any) -> None:
    lifecycle.init(world.host, spec(world.host, **fields), InitOptions(retain=retain), world.ui())


def files(host: Host, name: str, node: str = "master") -> set[str]:
    folder = ClusterPaths(host, name).node(f"{name}-{node}")
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_new_cluster_has_the_old_ones_files_but_not_its_keys(saved: World) -> None:
    with unchanged(saved):
        init(saved)
        assert sorted(saved.instances) == ["new-master", "new-node1", "new-node2"]
        for node in ("master", "node1", "node2"):
            found = files(saved.host, "new", node)
            assert f"{OVERLAY}/var/log/kept" in found
            assert f"{OVERLAY}/opt/etc/kubernetes" in found
            assert "containerd/log/image" in found
            for name in ("etc/kubernetes/pki/ca.key", "etc/machine-id", "var/lib/cni/results/x"):
                assert f"{OVERLAY}/{name}" not in found
            # Those that kubeadm has written for the new one.
            found -= {"kubelet/config.yaml", "kubelet/kubeadm-flags.env"}
            assert not any(name.startswith(("kubelet/", "log/pods")) for name in found)
        state = State.load(ClusterPaths(saved.host, "new").state)
        assert state is not None
        assert state.complete
        assert not (ClusterPaths(saved.host, "new").root / ".unpack").exists()
        assert [file.name for file in ClusterPaths(saved.host, "new").sifs.iterdir()] == ["a.sif"]
        assert removal.delete(saved.host, "new", saved.ui()) == []


@pytest.mark.parametrize("policies", ["/registry/networkpolicies/x/deny\n", ""])
def test_where_there_are_policies_no_pod_starts_before_its_node_is_closed(
    saved: World, policies: str
) -> None:
    others = saved.node_programs.first

    def scrubbed(name: str, words: list[str], stdin: str | None) -> Answer | None:
        return (0, policies, "") if words[:2] == ["python3", "-"] else others(name, words, stdin)

    saved.node_programs.first = scrubbed
    init(saved)
    rules = [instance.nft for instance in saved.instances.values()]
    assert rules == [[network_policy.closed()] if policies else []] * 3
    words = [" ".join(call.words) for call in saved.calls.all if call.kind in ("engine", "service")]
    started = next(n for n, each in enumerate(words) if "startProcess new-master kubelet" in each)
    closed = [n for n, each in enumerate(words) if each.endswith("nft -f -")]
    assert len(closed) == (3 if policies else 0) and all(n < started for n in closed)


def test_no_kubelet_starts_an_etcd_that_is_not_renewed(saved: World) -> None:
    init(saved)
    words = [" ".join(call.words) for call in saved.calls.all if call.kind in ("engine", "service")]

    def place_of(part: str) -> int:
        return next(place for place, line in enumerate(words) if part in line)

    order = [
        place_of(part)
        for part in (
            *("stopProcess new-master kubelet", "ctr run", "python3 - "),
            *("tasks kill --signal SIGTERM", "snapshot restore", "startProcess new-master kubelet"),
        )
    ]
    assert order == sorted(order)
    # Meanwhile kubeadm writes its files.
    assert order[0] < place_of("kubeadm init") < order[-1]
    assert 'python3 - {"old-master": "new-master", "old-node1": "new-node1"' in words[order[2]]


def test_both_live_side_by_side(saved: World) -> None:
    snapshots.restore(saved.host, "kept", lambda _: True, saved.ui())
    init(saved)
    old, new = (State.load(ClusterPaths(saved.host, name).state) for name in ("old", "new"))
    assert old is not None
    assert new is not None
    assert not old.subnets.nodes.overlaps(new.subnets.nodes)
    assert (old.subnets.pods, old.subnets.services) == (new.subnets.pods, new.subnets.services)
    assert clusters(saved.host) == ["new", "old"]


def test_it_is_the_same_cluster_when_asked_for_again(saved: World) -> None:
    init(saved)
    assert lifecycle.init(saved.host, spec(saved.host), InitOptions(), saved.ui()) is None
    with pytest.raises(SykubeError, match="not as asked"):
        lifecycle.init(saved.host, ClusterSpec(name="new"), InitOptions(), saved.ui())


@pytest.mark.parametrize(
    "step", [step.name for step in steps.steps_of_init(ClusterSpec(from_snapshot="x"))]
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_failing_init_leaves_nothing(
    saved: World, step: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYKUBE_FAIL_AT", f"{when}:{step}")
    with unchanged(saved), pytest.raises(SykubeError, match="made to fail"):
        init(saved)


@pytest.mark.parametrize(
    "words", ["python3 -", "snapshot restore", "kubeadm init", " ".join(KUBELET_START)]
)
def test_a_retained_failure_starts_again_from_the_snapshot(saved: World, words: str) -> None:
    saved.calls.fail(lambda call: call.kind == "engine" and words in " ".join(call.words))
    with pytest.raises(Injected):
        init(saved, retain=True)
    init(saved)
    for node in ("master", "node1", "node2"):
        assert f"{OVERLAY}/var/log/kept" in files(saved.host, "new", node)
        assert f"{OVERLAY}/etc/machine-id" not in files(saved.host, "new", node)


def test_a_node_that_joins_later_is_empty(saved: World) -> None:
    """What was made of the snapshot is complete: a node that is made anew is a new one."""
    init(saved)
    cluster = lookup.load(saved.host, "new", saved.ui())
    nodes.recreate(cluster, cluster.workers[0])
    assert not any(name.startswith(OVERLAY) for name in files(saved.host, "new", "node1"))


@pytest.mark.parametrize(
    "fields",
    [
        {"workers": 1},
        {"control_planes": 3},
        {"pod_subnet": "10.245.0.0/16"},
        {"service_subnet": "10.112.0.0/12"},
        {"pod_network": "none"},
        {"local_image": "/x.sif"},
    ],
    ids=str,
)
def test_what_the_snapshot_decides(saved: World, fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="cannot become"):
        clone.require_clonable(spec(saved.host, **fields), archive.find(saved.host, "kept"))
    agreed: dict[str, Any] = {"workers": 2, "control_planes": 1, "pod_subnet": "10.244.0.0/16"}
    clone.require_clonable(spec(saved.host, **agreed), archive.find(saved.host, "kept"))


def test_limits_are_the_snapshots_unless_others_are_given(saved: World) -> None:
    folder = archive.find(saved.host, "kept").folder
    stored = json.loads((folder / "state.json").read_text())
    stored["spec"] |= {"cpus": "2", "taintMaster": True, "allowCgroupV1": True, "runtime": "crun"}
    (folder / "state.json").write_text(json.dumps(stored))
    assert (spec(saved.host).cpus, spec(saved.host).taint_master) == ("2", True)
    assert spec(saved.host).allow_cgroup_v1
    assert spec(saved.host, cpus="1").cpus == "1"
    assert spec(saved.host).runtime == "crun"
    assert spec(saved.host, runtime="runc").runtime == "runc"


def test_what_its_pods_may_ask_for_is_the_snapshots_without_the_hosts_folders(saved: World) -> None:
    folder = archive.find(saved.host, "kept").folder
    stored = json.loads((folder / "state.json").read_text())
    stored["spec"] |= {"allowPodOption": ["nv", "bind=/opt/site:rw", "fakeroot"]}
    (folder / "state.json").write_text(json.dumps(stored))
    assert spec(saved.host).allow_pod_option == ("nv", "fakeroot")
    assert spec(saved.host, allow_pod_option=("bind=/opt",)).allow_pod_option == ("bind=/opt",)


def test_nodes_gates_and_patches_are_the_snapshots_too(saved: World) -> None:
    folder = archive.find(saved.host, "kept").folder
    stored = json.loads((folder / "state.json").read_text())
    worker = {"labels": {"tier": "back"}, "mounts": ["/nowhere:/x"], "ports": ["80:80"]}
    stored["spec"] |= {
        "featureGates": {"Alpha": True},
        "runtimeConfig": {"api/alpha": "true"},
        "kubeadmConfigPatches": ["kind: ClusterConfiguration\ndns: {disabled: true}\n"],
        "kubeletConfigPatches": ["maxPods: 7\n"],
        "containerdConfigPatches": ["oom_score = 1\n"],
        "nodes": [{"role": "control-plane"}, {"role": "worker", **worker}],
    }
    (folder / "state.json").write_text(json.dumps(stored))
    init(saved)
    found, *_ = [
        {each["kind"]: each for each in documents}
        for name, argv, documents in saved.configurations
        if name == "new-master" and "phase" not in argv
    ]
    assert found["ClusterConfiguration"]["dns"] == {"disabled": True}
    assert found["KubeletConfiguration"]["maxPods"] == 7
    assert found["KubeletConfiguration"]["featureGates"] == {"Alpha": True}
    nodes = saved.kubernetes["new"].objects
    # Of three nodes of the snapshot, the second worker was added later.
    assert nodes[f"{NODES}/new-node1"]["metadata"]["labels"]["tier"] == "back"
    assert "tier" not in nodes[f"{NODES}/new-node2"]["metadata"]["labels"]
    config = ClusterPaths(saved.host, "new").node("new-node2") / "config/containerd.toml"
    assert "oom_score = 1\n" in config.read_text()
    state = State.load(ClusterPaths(saved.host, "new").state)
    assert state is not None
    # Those of the host are the other cluster's.
    assert (state.ports, state.spec.nodes[1].mounts) == ([], ())
    assert spec(saved.host, feature_gates={"Beta": True}).feature_gates == {"Beta": True}


def test_its_pod_network_is_the_snapshots_without_the_file_that_it_was_made_of(
    saved: World,
) -> None:
    folder = archive.find(saved.host, "kept").folder
    stored = json.loads((folder / "state.json").read_text())
    stored["spec"]["podNetwork"] = "/nowhere/cni.yaml"
    stored["addons"].remove("network-policy")
    (folder / "state.json").write_text(json.dumps(stored))
    assert spec(saved.host).pod_network == "/nowhere/cni.yaml"
    saved.plugin = True
    init(saved)
    assert not saved.applied
    node = lookup.load(saved.host, "new", saved.ui()).node("node1")
    assert node.pull("/etc/sykube/pod-network.conflist").read_text() == ""


def test_several_control_planes_are_refused(saved: World) -> None:
    folder = archive.find(saved.host, "kept").folder
    stored = json.loads((folder / "state.json").read_text())
    stored["nodes"] = ["master", "master2", "master3"]
    (folder / "state.json").write_text(json.dumps(stored))
    with pytest.raises(UsageError, match="3 control planes") as raised:
        clone.require_clonable(spec(saved.host), archive.find(saved.host, "kept"))
    assert "sykube snapshot restore kept" in raised.value.resolution


def test_as_a_person_types_it(saved: World, sykube: Sykube) -> None:
    assert sykube("init", "--name", "new", "--from", "kept").code == 0
    assert sykube("list").out.startswith("new")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--from", "none"], ExitCode.NO_SUCH_SNAPSHOT),
        (["--from", "a/b"], ExitCode.USAGE),
        (["--from", "kept", "--workers", "7"], ExitCode.USAGE),
        (["--from", "kept", "--workers", "7", "--dry-run"], ExitCode.USAGE),
    ],
)
def test_bad_input_changes_nothing(
    saved: World, sykube: Sykube, arguments: list[str], code: ExitCode
) -> None:
    with unchanged(saved):
        result = sykube("init", "--name", "new", *arguments)
    assert result.code == code
    assert result.err.count("error:") == 1


def test_a_damaged_archive_changes_nothing(saved: World) -> None:
    archive.find(saved.host, "kept").file.write_text("short")
    with unchanged(saved), pytest.raises(SykubeError, match="damaged"):
        init(saved)


def test_dry_run_names_the_step(saved: World, sykube: Sykube) -> None:
    shown = json.loads(sykube("init", "--from", "kept", "--dry-run", "-o", "json").out)
    assert shown["steps"][1] == "Unpacking the snapshot"
    assert shown["nodeImage"] == archive.find(saved.host, "kept").image


# --- what is taken out of etcd ---


def field(number: int, payload: bytes | int) -> bytes:
    if isinstance(payload, int):
        return bytes([number << 3]) + etcd_scrub._varint(payload)
    return bytes([number << 3 | 2]) + etcd_scrub._varint(len(payload)) + payload


def stored(*fields: bytes) -> bytes:
    """An object as the API server writes it."""
    kind = field(1, field(1, b"v1") + field(2, b"Kind"))
    return b"k8s\0" + kind + field(2, b"".join(fields)) + field(3, b"") + field(4, b"")


def edits(**objects: dict[str, Any]) -> tuple[dict[str, bytes], set[str]]:
    """What the program would do about some objects."""
    kinds = ("secrets", "accounts", "endpoints", "slices", "volumes", "nodes")
    return etcd_scrub.edits(**{kind: objects.get(kind, {}) for kind in kinds})


TOKEN = b"kubernetes.io/service-account-token"
METADATA = field(1, field(1, b"name") + field(8, 1))


def test_edit_leaves_all_else_byte_for_byte() -> None:
    long = b"x" * 300
    message = (
        field(1, 300) + field(2, field(1, b"a") + field(1, b"b")) + b"\x1d1234" + field(4, long)
    )
    same = edit(message, (2, 1), lambda payload: payload)
    assert same == message
    changed = edit(message, (2, 1), lambda payload: None if payload == b"a" else long)
    assert changed == field(1, 300) + field(2, field(1, long)) + b"\x1d1234" + field(4, long)
    assert edit(message, (9,), lambda _: None) == message


@pytest.mark.parametrize("message", [b"\x0b", b"\x12\x05abc"])
def test_what_is_no_protobuf_is_refused(message: bytes) -> None:
    with pytest.raises(ValueError, match="no protobuf"):
        edit(message, (2,), lambda payload: payload)


def test_an_object_in_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="not stored as protobuf"):
        edits(accounts={"/registry/serviceaccounts/a/b": b"{}"})


def test_tokens_go_and_come_back_with_new_keys() -> None:
    reference = field(3, b"default-token-1")
    pulls = field(3, field(1, b"registry"))
    secrets = {
        "/registry/secrets/a/default-token-1": stored(METADATA, field(2, b"jwt"), field(3, TOKEN)),
        "/registry/secrets/a/mine": stored(METADATA, field(2, b"jwt"), field(3, TOKEN)),
        "/registry/secrets/a/other": stored(METADATA, field(2, b"data"), field(3, b"Opaque")),
        "/registry/secrets/b/default-token-1": stored(field(2, b"data"), field(3, b"Opaque")),
    }
    other = field(2, field(3, b"other"))
    accounts = {
        "/registry/serviceaccounts/a/default": stored(METADATA, field(2, reference), other, pulls),
        "/registry/serviceaccounts/b/default": stored(METADATA, field(2, reference)),
    }
    puts, gone = edits(secrets=secrets, accounts=accounts)
    # One that Kubernetes made: it makes another.
    assert gone == {"/registry/secrets/a/default-token-1"}
    assert puts == {
        "/registry/serviceaccounts/a/default": stored(METADATA, other, pulls),
        # One that a user asked for: it is filled again.
        "/registry/secrets/a/mine": stored(METADATA, field(3, TOKEN)),
    }


def test_local_volumes_follow_their_nodes() -> None:
    def volume(node: bytes) -> bytes:
        expression = field(1, b"kubernetes.io/hostname") + field(2, b"In") + field(3, node)
        terms = field(1, field(1, expression))
        return stored(METADATA, field(2, field(6, b"local") + field(9, field(1, terms))))

    volumes = {"/registry/persistentvolumes/p": volume(b"old-node1")}
    volumes["/registry/persistentvolumes/q"] = volume(b"elsewhere")
    puts, gone = edits(volumes=volumes, nodes={"old-node1": "new-node1"})
    assert puts == {"/registry/persistentvolumes/p": volume(b"new-node1")}
    assert gone == set()


def test_services_lead_to_no_pod_that_is_gone() -> None:
    pod, port = field(2, field(1, b"Pod")), field(3, field(2, 80))
    mine, theirs = field(1, b"192.0.2.1"), field(1, b"10.244.0.2") + pod
    subset = field(1, mine) + field(1, theirs) + field(2, theirs) + port
    endpoints = {
        "/registry/services/endpoints/a/mixed": stored(METADATA, field(2, subset)),
        "/registry/services/endpoints/a/pods": stored(METADATA, field(2, field(1, theirs) + port)),
        "/registry/services/endpoints/a/mine": stored(METADATA, field(2, field(1, mine) + port)),
    }
    of_pod = field(2, field(1, b"10.244.0.2") + field(4, field(1, b"Pod")))
    slices = {
        "/registry/endpointslices/a/pods": stored(METADATA, of_pod, field(4, b"IPv4")),
        "/registry/endpointslices/a/mine": stored(METADATA, field(2, mine), field(4, b"IPv4")),
    }
    puts, gone = edits(endpoints=endpoints, slices=slices)
    assert gone == set()
    assert puts == {
        "/registry/services/endpoints/a/mixed": stored(METADATA, field(2, field(1, mine) + port)),
        "/registry/services/endpoints/a/pods": stored(METADATA),
        "/registry/endpointslices/a/pods": stored(METADATA, field(4, b"IPv4")),
    }


class Etcd:
    """etcd's JSON gateway, in memory; like the real one, it takes no key twice in a transaction."""

    def __init__(self, keys: dict[str, bytes]) -> None:
        self.keys = keys
        self.done: list[str] = []

    def call(self, path: str, request: dict[str, Any]) -> Any:
        self.done.append(path)
        match path:
            case "kv/range":
                found = self._matching(request)
                return {
                    "kvs": [
                        {"key": _base64(key)}
                        | ({} if request.get("keys_only") else {"value": _base64(self.keys[key])})
                        for key in found
                    ]
                }
            case "kv/txn":
                touched: list[str] = []
                for operation in request["success"]:
                    if "requestPut" in operation:
                        key = base64.b64decode(operation["requestPut"]["key"]).decode()
                        self.keys[key] = base64.b64decode(operation["requestPut"]["value"])
                        touched.append(key)
                    else:
                        for key in self._matching(operation["requestDeleteRange"]):
                            del self.keys[key]
                            touched.append(key)
                assert len(touched) == len(set(touched))
            case "kv/deleterange":
                return {"header": {"revision": "7"}}
            case "kv/compaction":
                assert request == {"revision": "7", "physical": True}
        return {}

    def _matching(self, request: dict[str, Any]) -> list[str]:
        start = base64.b64decode(request["key"]).decode()
        end = base64.b64decode(request.get("range_end", "")).decode()
        return [key for key in self.keys if (start <= key < end if end else key == start)]


def _base64(data: str | bytes) -> str:
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


def test_the_whole_program(capsys: pytest.CaptureFixture[str]) -> None:
    account = stored(METADATA, field(2, field(3, b"t")))
    kept = {
        "/registry/configmaps/a/kept": b"",
        "/registry/configmaps/kube-system/kubeadm-config-of-mine": b"",
        "/registry/deployments/a/web": b"",
        "/registry/deployments/kube-system/cluster-dns-of-mine": b"",
        "/registry/leases/kube-system/kube-scheduler-of-mine": b"",
        "/registry/networkpolicies/a/deny": b"",
        "/registry/services/specs/a/web": b"",
        "/registry/serviceaccounts/a/default": account,
    }
    gone = {
        "/registry/minions/old-master": b"",
        "/registry/pods/a/web-1": b"",
        "/registry/leases/kube-node-lease/old-master": b"",
        "/registry/leases/kube-system/kube-scheduler": b"",
        "/registry/secrets/a/t": stored(field(2, b"jwt"), field(3, TOKEN)),
        "/registry/secrets/kube-system/bootstrap-token-abcdef": stored(field(3, b"x")),
        "/registry/configmaps/a/kube-root-ca.crt": b"",
        "/registry/configmaps/kube-system/kube-root-ca.crt": b"",
        "/registry/configmaps/kube-system/kubeadm-config": b"",
        "/registry/configmaps/kube-system/kubelet-config-1.20": b"",
        "/registry/configmaps/kube-system/extension-apiserver-authentication": b"",
        "/registry/deployments/kube-system/cluster-dns": b"",
    }
    etcd = Etcd(kept | gone)
    etcd_scrub.main({}, etcd.call)
    assert capsys.readouterr().out == "/registry/networkpolicies/a/deny\n"
    assert etcd.keys == kept | {"/registry/serviceaccounts/a/default": stored(METADATA)}
    assert etcd.done[-3:] == [
        "kv/deleterange",
        "kv/compaction",
        "maintenance/defragment",
    ]


@pytest.mark.parametrize("addon", [each for each in catalog.ALL if each.by_default])
def test_pods_of_an_addon_begin_with_what_the_new_cluster_tells_them(addon: Addon) -> None:
    """Those of before would begin, and be replaced at once."""
    for each in addon.deployments:
        etcd = Etcd(
            {
                f"/registry/deployments/{each}": b"",
                f"/registry/replicasets/{each}-59d4bddf8d": b"",
            }
        )
        etcd_scrub.main({}, etcd.call)
        assert etcd.keys == {}


def test_it_waits_for_etcd() -> None:
    answers = iter([OSError("refused"), OSError("refused"), {}])

    def call(_path: str, _request: dict[str, Any]) -> Any:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    etcd_scrub.wait_for_etcd(call, lambda _: None)
    assert next(answers, None) is None


def test_the_program_needs_nothing_that_a_node_lacks() -> None:
    text = Path(etcd_scrub.__file__).read_text(encoding="utf-8")
    assert "import sykube" not in text
    assert "from sykube" not in text
