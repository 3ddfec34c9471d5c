"""A Slurm cluster: what its slurmctld answers, and its objects in Kubernetes."""

from __future__ import annotations

from typing import Any

from sykube.kubernetes.api import Api, ApiError
from tests.fakes.answers import Answer


class FakeSlurm(Api):
    """slurmctld as `kubectl exec` reaches it, and the API server as far as it has Slurm's objects.

    As strict as the real one where that matters: a node that was drained stays so when its pod comes
    back, and the entry of one that has a pod must not be deleted. Pods are gone at once.

    Attributes:
        nodes: the state and the reason of each, by name.
        asleep: StatefulSets of no pod.
        unready: pods that cannot be scheduled, and why.
        queue: what squeue prints; listed: the same where it is asked for all of each job.
        work: how many more times sinfo says that a node is busy.
        ended: nodes whose pods were removed while they had jobs.
        accounting: what sacct prints, where there is accounting, which daemons hear of when they are
            reconfigured.
        rest: whether slurmrestd has a pod.
        slurmdbd: whether it has a pod; broken: whether that does not become Ready.
        accounts: the users of its ConfigMap, and of the login pod; users: those that each pod knows.
        login: the image of each user's container in the login pod, which is another one a moment
            after that was said.
        probe: what the pod ends with that tries to reach slurmctld; probes: those there have been.
        deleted: what was, by its path.
    """

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.sets: set[str] = set()
        self.asleep: set[str] = set()
        self.unready: dict[str, str] = {}
        self.nodes: dict[str, tuple[str, str]] = {}
        self.work: dict[str, int] = {}
        self.ended: list[str] = []
        self.said: list[str] = []
        self.queue: list[str] = []
        self.listed: list[str] = []
        self.accounting: str | None = None
        self.slurmdbd = self.broken = self.rest = False
        self.controller: dict[str, Any] = {"containers": []}
        self.probe = 0
        self.accounts: list[str] = []
        self.login: list[dict[str, str]] = []
        self.users: dict[str, set[str]] = {}
        self.probes: dict[str, dict[str, Any]] = {}
        self.deleted: list[str] = []

    # --- Kubernetes ---

    def get(self, path: str, **params: str) -> Any:
        kind, _, name = path.rpartition("/slurm/")[2].partition("/")
        if kind == "statefulsets" and not name:
            all_ = [*((each, 1) for each in self.sets), *((each, 0) for each in self.asleep)]
            items = [{"metadata": {"name": n}, "spec": {"replicas": count}} for n, count in all_]
            return {"items": items}
        if kind == "pods" and not name:
            return {"items": [self._pod(each) | self._containers(each) for each in self._pods()]}
        if kind == "pods" and name in self._pods():
            return self._pod(name)
        if (kind, name, self.slurmdbd) == ("statefulsets", "slurmdbd", True):
            return {}
        if (kind, name, self.rest) == ("deployments", "slurmrestd", True):
            return {}
        if path in self.probes:
            ended = {"state": {"terminated": {"exitCode": self.probe}}}
            return {"status": {"phase": "Failed", "containerStatuses": [ended]}}
        if path in self.objects:
            return self.objects[path]
        raise ApiError(f"GET {path}: not found", 404)

    def _containers(self, pod: str) -> dict[str, Any]:
        containers = [{"name": pod, "image": ""}]
        if pod == "login-x":
            seen = self.login[0].items() if self.login else ()
            containers = [{"name": name, "image": image} for name, image in seen]
            del self.login[:-1]
        return {"spec": {"nodeName": "lab-master", "containers": containers}}

    def _pod(self, name: str) -> dict[str, Any]:
        pod = _pod(name)
        if why := self.unready.get(name):
            pod["status"]["conditions"] = [
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": why,
                }
            ]
        if name == "slurmdbd-0" and self.broken:
            pod["status"]["conditions"] = []
        return pod

    def _pods(self) -> list[str]:
        accounts = ["slurmdbd-0"] if self.slurmdbd else []
        rest = ["slurmrestd-x"] if self.rest else []
        return ["slurmctld-0", "login-x", *accounts, *rest, *(f"{each}-0" for each in self.sets)]

    def apply(self, manifest: dict[str, Any]) -> None:
        self.rest = self.rest or manifest["metadata"]["name"] == "slurmrestd"
        if (manifest["kind"], manifest["metadata"]["name"]) == ("Deployment", "login"):
            containers = manifest["spec"]["template"]["spec"]["containers"]
            self.accounts = [each["name"] for each in containers if each["name"] != "sackd"]
            self.login.append({each["name"]: each["image"] for each in containers})
        if manifest["kind"] == "Secret":
            where = f"/api/v1/namespaces/slurm/secrets/{manifest['metadata']['name']}"
            self.objects[where] = manifest
        if manifest["kind"] == "ConfigMap":
            where = f"/api/v1/namespaces/slurm/configmaps/{manifest['metadata']['name']}"
            self.objects[where] = manifest
        if manifest["kind"] == "Pod":
            where = manifest["metadata"]
            self.probes[f"/api/v1/namespaces/{where['namespace']}/pods/{where['name']}"] = manifest
        name = manifest["metadata"]["name"]
        if manifest["kind"] == "StatefulSet" and name == "slurmctld":
            self.controller = manifest["spec"]["template"]["spec"]
        elif manifest["kind"] == "StatefulSet" and name == "slurmdbd":
            self.slurmdbd = True
        elif manifest["kind"] == "StatefulSet":
            if not manifest["spec"]["replicas"]:
                self.asleep.add(name)
                self.nodes[f"{name}-0"] = ("idle~", "")
                return
            self.sets.add(name)
            if f"{name}-0" in self.unready:
                return
            before, reason = self.nodes.get(f"{name}-0", ("", ""))
            self.nodes[f"{name}-0"] = ("drained", reason) if "drain" in before else ("idle", "")

    def delete(self, found: str | dict[str, Any]) -> None:
        assert isinstance(found, str)
        name = found.rpartition("/")[2]
        self.deleted.append(found)
        self.asleep.discard(name)
        self.slurmdbd = self.slurmdbd and not found.endswith("/statefulsets/slurmdbd")
        if name not in self.sets:
            return
        self.sets.discard(name)
        if self.work.get(f"{name}-0"):
            self.ended.append(f"{name}-0")
        if f"{name}-0" not in self.nodes:
            return
        state, reason = self.nodes[f"{name}-0"]
        self.nodes[f"{name}-0"] = (f"{state}*", reason)

    # --- Slurm ---

    def kubectl(self, words: list[str]) -> Answer:
        """kubectl, with the command that it is to run in a pod."""
        assert words[2:4] == ["--namespace", "slurm"]
        command = words[words.index("--") + 1 :]
        if command[:2] == ["getent", "passwd"]:
            # What is mounted in a pod follows with the next look at it.
            pod = words[words.index("exec") + 1]
            seen, self.users[pod] = self.users.get(pod, set()), {*self.accounts}
            return (0 if {*command[2:]} <= seen else 2), "", ""
        self.said.append(" ".join(command))
        match command:
            case ["sinfo", "--noheader", "--Node", _]:
                return 0, "".join(map(self._line, [*self.nodes])), ""
            case ["scontrol", "update", of, change, *rest]:
                for name in of.removeprefix("nodename=").split(","):
                    self._update(name, change, (rest or ["reason="])[0].removeprefix("reason="))
                return 0, "", ""
            case ["scontrol", "delete", of]:
                for name in of.removeprefix("nodename=").split(","):
                    assert name.removesuffix("-0") not in self.sets, "its pod would register again"
                    del self.nodes[name]
                return 0, "", ""
            case ["scontrol", "token", user, _]:
                return 0, f"SLURM_JWT=eyJ-of-{user.removeprefix('username=')}\n", ""
            case ["scontrol", "reconfigure"]:
                if any(each.get("env") for each in self.controller["containers"]):
                    assert self.slurmdbd, "slurmctld would end"
                    self.accounting = self.accounting or ""
                return 0, "", ""
            case ["sacct", *_]:
                if self.accounting is None:
                    return 1, "", "Slurm accounting storage is disabled\n"
                return 0, self.accounting, ""
            case ["squeue", *options]:
                lines = self.listed if options[-1].endswith("%j") else self.queue
                return 0, "".join(f"{each}\n" for each in lines), ""
        raise AssertionError(f"the fake slurmctld does not know: {command}")

    def _line(self, name: str) -> str:
        state, reason = self.nodes[name]
        left = self.work.get(name, 0)
        self.work[name] = max(0, left - 1)
        if left:
            state = {"idle": "allocated", "drained": "draining"}.get(state, state)
        return f"{name}|{state}|{int(bool(left))}/0/0/1|960|{reason or 'none'}\n"

    def _update(self, name: str, change: str, reason: str) -> None:
        state, before = self.nodes[name]
        gone = "*" if state.endswith("*") else ""
        match change:
            case "state=drain":
                self.nodes[name] = (f"drained{gone}", reason)
            case "state=down":
                self.work[name] = 0
                self.nodes[name] = (f"down{gone}", reason)
            case "state=undrain":
                of = name.removesuffix("-0")
                away = "idle~" if of in self.asleep else "down*"
                back = "idle" if of in self.sets else away
                self.nodes[name] = (back, "") if "drain" in state else (state, before)
            case _:
                raise AssertionError(change)


def _pod(name: str) -> dict[str, Any]:
    of = {
        "slurmctld-0": "controller",
        "login-x": "login",
        "slurmdbd-0": "accounting",
        "slurmrestd-x": "rest",
    }
    component = of.get(name, "node")
    return {
        "metadata": {"name": name, "labels": {"app.kubernetes.io/component": component}},
        "spec": {"nodeName": "lab-master"},
        "status": {"podIP": "10.2.0.9", "conditions": [{"type": "Ready", "status": "True"}]},
    }
