"""Other clusters of the user's kubeconfig, beside sykube's own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from sykube.bench.messages import CONSUMER
from sykube.cluster.commands.bench import contexts, stream
from sykube.cluster.commands.bench.contexts import Other
from sykube.cluster.commands.bench.stream_wanted import Wanted, chosen, pod_of
from sykube.errors import SykubeError, UsageError
from sykube.host.owner import Owner
from sykube.host.run import Completed
from sykube.kubernetes.api import ApiError
from sykube.kubernetes.elsewhere import Elsewhere
from tests.fakes import FakeHost
from tests.unit.bench import quiet_machine
from tests.unit.bench.test_stream import IMAGE, SMALL, Lab, lab, status

__all__ = ["lab"]

OWNER = Owner(1000, 1000, Path("/home/user"))
NAMESPACE = "/api/v1/namespaces/sykube-bench"
KUBECONFIG = """\
apiVersion: v1
kind: Config
contexts:
- name: kind-kind
  context: {cluster: kind-kind, user: kind-kind}
- name: second
  context: {cluster: second, user: second}
- name: runc
  context: {cluster: second, user: second}
"""


def node(name: str, *, ready: str = "True", **spec: Any) -> dict[str, Any]:
    labels = {"node-role.kubernetes.io/control-plane": ""} if "control" in name else {}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }


@dataclass
class There:
    """The API server of another cluster, as kubectl reaches it.

    Attributes:
        forbidden: what its user may not do.
        waiting: why containers of its pods wait, where they do.
        slow: how often it is asked for the service account of the namespace before it has one.
        words: command lines of kubectl that were no exec.
    """

    uid: str = "there"
    nodes: list[dict[str, Any]] = field(
        default_factory=lambda: [node("a-worker"), node("z-control-plane")]
    )
    forbidden: tuple[str, ...] = ()
    waiting: dict[str, str] = field(default_factory=dict)
    slow: int = 0
    namespace: bool = False
    pods: list[dict[str, Any]] = field(default_factory=list)
    words: list[list[str]] = field(default_factory=list)
    unreachable: str = ""

    def kubectl(self, words: Sequence[str], given: str | None) -> Completed:
        self.words.append([*words])
        verb = next(word for word in words if word in ("get", "create", "delete"))
        path = urlsplit(next(word[6:] for word in words if word[:6] == "--raw=")).path
        if self.unreachable:
            return Completed(tuple(words), 1, "", f"{self.unreachable}\n")
        try:
            body = json.loads(given) if given else None
            found = self.answer(verb, path, body)
            said = found if isinstance(found, str) else json.dumps(found)
            return Completed(tuple(words), 0, said, "")
        except KeyError as error:
            said = f"Error from server ({error.args[0]}): {path} {error.args[0]}\n"
            return Completed(tuple(words), 1, "", said)

    def answer(self, verb: str, path: str, body: Any) -> Any:
        match verb, path:
            case "create", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews":
                asked = body["spec"]["resourceAttributes"]
                what = f"{asked['verb']} {asked['resource']}"
                what += f"/{asked['subresource']}" if asked["subresource"] else ""
                return {"status": {"allowed": what not in self.forbidden}}
            case "create", "/api/v1/namespaces":
                assert not self.namespace
                self.namespace = True
            case "create", _:
                if self.slow:
                    raise KeyError("Forbidden")
                self.pods.append(body)
            case "delete", path if path == NAMESPACE:
                self.namespace = False
            case "delete", _:
                pass
            case "get", "/api/v1/namespaces/kube-system":
                return {"metadata": {"uid": self.uid}}
            case "get", "/api/v1/nodes":
                return {"items": self.nodes}
            case "get", path if path == f"{NAMESPACE}/serviceaccounts/default" and self.slow:
                self.slow -= 1
                raise KeyError("NotFound")
            case "get", "/version":
                return {"gitVersion": "v1.36.2"}
            case "get", path if path == NAMESPACE and not self.namespace:
                raise KeyError("NotFound")
            case "get", path if path.endswith("/pods"):
                state = {"waiting": self.waiting} if self.waiting else None
                found = [{**pod, "status": status(pod, state)} for pod in self.pods]
                for pod in found if self.waiting else []:
                    pod["status"]["conditions"] = []
                return {"items": found}
            case "get", path if path.endswith("/log"):
                return "it was killed"
            case "get", path if "/pods/" in path:
                pod = next(each for each in self.pods if path.endswith(each["metadata"]["name"]))
                return {"status": status(pod, {"terminated": {"reason": "OOMKilled"}})}
        return {}


@dataclass
class Both(Lab):
    """sykube's cluster, and another one."""

    there: There = field(default_factory=There)

    def run(self, argv: Sequence[str | Path], **options: Any) -> Completed:
        words = [str(word) for word in argv]
        if any(word.startswith("--raw=") for word in words):
            return self.there.kubectl(words, options.get("stdin"))
        return super().run(argv, **options)

    def get(self, path: str, **options: str) -> Any:
        if path == "/api/v1/namespaces/kube-system":
            return {"metadata": {"uid": "here"}}
        return super().get(path, **options)


@pytest.fixture
def both(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Both:
    found = Both(tmp_path)
    found.events = lab.events
    file = tmp_path / "kubeconfig"
    file.write_text(KUBECONFIG)
    monkeypatch.setenv("KUBECONFIG", str(file))
    quiet_machine.prepare(monkeypatch, stream, found, IMAGE, ("runc",))
    return found


def measure(both: Both, wanted: Wanted) -> Any:
    return quiet_machine.measure(stream, both, wanted)


def asked(*names: str, places: tuple[str, ...] = ("host",), **options: Any) -> Wanted:
    return Wanted(places, 20, 10, contexts=names, **options)


def assert_nothing_was_made(both: Both) -> None:
    assert not both.there.pods
    assert not both.there.namespace
    assert not both.made
    assert not both.ran
    assert not both.events


def test_another_cluster_is_measured_in_the_same_run(both: Both) -> None:
    wanted = asked("kind-kind", places=("host", "runc:node"), image="registry.test/stream:1")
    result = measure(both, wanted)
    assert [*result.measures["p50"].values] == [
        *("host", "runc:node", "kind-kind:pod", "kind-kind:node", "kind-kind:nodes"),
    ]
    assert {*result.curves["course"].lines} == {*result.measures["p50"].values}
    assert result.versions["the context kind-kind"] == "v1.36.2 with registry.test/stream:1"
    there = both.there
    assert not there.namespace
    found = {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in there.pods}
    assert found == {
        "kind-kind-pod": "a-worker",
        **{f"kind-kind-node-{role}": "a-worker" for role in ("broker", "producer", "consumer")},
        "kind-kind-nodes-broker": "a-worker",
        **{f"kind-kind-nodes-{role}": "z-control-plane" for role in ("producer", "consumer")},
    }  # fmt: skip
    for pod in there.pods:
        assert "runtimeClassName" not in pod["spec"]
        images = {each["image"] for each in pod["spec"]["containers"]}
        assert images == {"registry.test/stream:1"}
    # Its own image goes into its own nodes alone.
    assert both.events[:2] == ["unpacked", "loaded into node1"]
    assert len(both.made) == 3
    ran = [words for words in both.programs(CONSUMER) if "--context=kind-kind" in words]
    assert len(ran) == 4 * 3
    assert ran[0][:2] == ["/kubectl", "--context=kind-kind"]


def test_pods_wait_for_what_they_need_of_a_slow_controller(both: Both) -> None:
    both.there.slow = 3
    measure(both, asked("kind-kind", places=("kind-kind:node",)))
    assert not both.there.slow
    assert both.there.pods


def test_places_of_another_cluster_can_be_chosen(both: Both) -> None:
    result = measure(both, asked("kind-kind", places=("kind-kind:nodes", "host")))
    assert [*result.measures["p50"].values] == ["kind-kind:nodes", "host"]
    both.there.nodes.pop()
    result = measure(both, asked("kind-kind", places=("host", "kind-kind")))
    assert [*result.measures["p50"].values] == ["host", "kind-kind:pod", "kind-kind:node"]
    # By default, what the SIF is called in nodes.
    assert both.there.pods[-1]["spec"]["containers"][0]["image"].startswith("sykube.local/stream:")


def test_without_places_all_of_all_clusters_are_measured(both: Both) -> None:
    with both.cluster.ui.step("nothing"):
        found = chosen(both.cluster, (), {"second": 1})
    assert found == [
        "host", "exec", "runc:pod", "runc:node", "runc:nodes", "second:pod", "second:node",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("kind-kind:nodes", "kind-kind-nodes-broker"),
        ("arn:aws:eks:eu:1:cluster/A_b:node", "arn-aws-eks-eu-1-cluster-a-b-node-broker"),
        (f"{'long' * 20}:nodes", f"{'long' * 10}-nodes-broker"),
        ("@:nodes", "nodes-broker"),
    ],
)
def test_pods_have_names_whatever_their_context_is_called(place: str, name: str) -> None:
    assert pod_of(place, "broker") == name
    assert len(pod_of(place, "producer")) <= 63


@pytest.mark.parametrize(
    ("names", "said", "next_"),
    [
        (["minikube"], "no context 'minikube'", "There are kind-kind, second, runc"),
        (["runc"], "would be taken for a place", "kubectl config rename-context"),
        (["kind-kind", "second"], "second is of the same cluster as the context kind-kind", ""),
    ],
)
def test_a_context_that_is_none_is_refused_before_anything_is_made(
    both: Both, names: list[str], said: str, next_: str
) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        measure(both, asked(*names))
    assert next_ in caught.value.resolution
    assert_nothing_was_made(both)


def test_the_cluster_itself_is_no_other_one(both: Both) -> None:
    both.there.uid = "here"
    with pytest.raises(UsageError, match="kind-kind is of the same cluster as the cluster sykube"):
        measure(both, asked("kind-kind"))
    assert_nothing_was_made(both)


def test_a_user_without_rights_is_told_which(both: Both) -> None:
    both.there.forbidden = ("create namespaces", "create pods/exec")
    with pytest.raises(SykubeError, match="kind-kind lacks rights") as caught:
        measure(both, asked("kind-kind"))
    assert caught.value.details == "it may not: create namespaces, create pods/exec"
    assert_nothing_was_made(both)


def test_a_cluster_that_does_not_answer_is_one_error(both: Both) -> None:
    both.there.unreachable = "Unable to connect to the server: dial tcp: i/o timeout"
    with pytest.raises(ApiError, match="kind-kind is not reached: Unable to connect") as caught:
        measure(both, asked("kind-kind"))
    assert caught.value.resolution == "Try: kubectl --context kind-kind get namespaces"
    assert_nothing_was_made(both)


def test_a_namespace_that_is_left_is_said_before_anything_is_made(both: Both) -> None:
    both.there.namespace = True
    with pytest.raises(SykubeError, match="has a namespace sykube-bench already") as caught:
        measure(both, asked("kind-kind"))
    assert caught.value.resolution == "kubectl --context kind-kind delete namespace sykube-bench"
    assert both.there.namespace
    assert not both.there.pods


def test_nodes_that_are_not_ready_have_no_pods(both: Both) -> None:
    both.there.nodes = [
        node("control", ready="Unknown"), node("closed", unschedulable=True), node("open"),
    ]  # fmt: skip
    measure(both, asked("kind-kind"))
    assert {pod["spec"]["nodeName"] for pod in both.there.pods} == {"open"}
    both.there.nodes.pop()
    with pytest.raises(SykubeError, match="no node of the context kind-kind is ready"):
        measure(both, asked("kind-kind"))


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName"])
def test_an_image_that_is_not_to_be_had_is_one_error_and_nothing_is_left(
    both: Both, reason: str
) -> None:
    both.there.waiting = {"reason": reason, "message": "no such host"}
    with pytest.raises(SykubeError, match="kind-kind cannot get the image") as caught:
        measure(both, asked("kind-kind"))
    assert caught.value.details == f"kind-kind-pod: {reason}: no such host"
    assert "--image REFERENCE" in caught.value.resolution
    assert not both.there.namespace
    assert not both.left


def test_a_broker_that_dies_there_is_one_error(both: Both) -> None:
    both.fails[CONSUMER, "kind-kind-node-consumer"] = "consumer: the broker has ended it"
    with pytest.raises(SykubeError, match="did not get through in kind-kind:node$") as caught:
        measure(both, asked("kind-kind", places=("kind-kind:node",)))
    assert caught.value.details == (
        "consumer: the broker has ended it\nbroker: it was killed\nbroker: it has ended: OOMKilled"
    )
    assert caught.value.resolution == "kubectl --context kind-kind get nodes"
    assert not both.there.namespace


def test_kubectl_runs_as_whose_kubeconfig_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/a:{tmp_path}/b")
    host = FakeHost(root=tmp_path)
    server = Elsewhere(host, "kind-kind", Path("/kubectl"), OWNER)
    assert server.command("version") == [
        "setpriv", "--reuid=1000", "--regid=1000", "--init-groups", Path("/kubectl"),
        "--context=kind-kind", "version",
    ]  # fmt: skip
    assert server.environment == {
        "HOME": "/home/user", "KUBECONFIG": f"{tmp_path}/a:{tmp_path}/b",
    }  # fmt: skip


def test_an_image_is_for_pods_of_other_clusters() -> None:
    with pytest.raises(UsageError, match="--image is of pods of --context"):
        Wanted(image="registry.test/stream:1")


def test_pods_that_only_start_are_waited_for() -> None:
    other: Any = Other(None, ["a"], "image", "v1")  # type: ignore[arg-type]
    waiting = {"state": {"waiting": {"reason": "ContainerCreating"}}}
    other.require_image({"a": {"containerStatuses": [waiting]}, "b": {}})


def test_without_contexts_nobody_reads_the_kubeconfig(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", ":")
    assert contexts.found(both.cluster, (), "image", ()) == {}
    assert measure(both, SMALL).base == "host"
