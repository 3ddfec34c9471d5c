"""`sykube init` against `kind create cluster` on podman, in pairs within one run.

Both make one control plane and one worker of the same Kubernetes. The time is that of the command
and of what follows until both nodes are Ready and DNS answers in a pod on each: the same pod and
the same question for both. Deleting is timed, too.

Run it as root: SYKUBE_SOURCE=debian python3 -m benchmarks.kind [--pairs 5] [--name bench-kind]
    [--kind PROGRAM] [--podman PROGRAM] [--node-image NAME]
kind takes the podman that is first on its PATH. Where something is missing, it says what and exits
with 6. --pairs 0 makes no cluster: it says what is missing, and what would be run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.measure import middle, shown, sykube, timed
from sykube.errors import ExitCode
from sykube.image.versions import DEBIAN

_TWO_NODES = {
    "apiVersion": "kind.x-k8s.io/v1alpha4",
    "kind": "Cluster",
    "nodes": [{"role": "control-plane"}, {"role": "worker"}],
}
_POD = "dns-answers"
_ASK = (
    "until getent ahostsv4 kubernetes.default.svc.cluster.local > /dev/null; do sleep 0.1; done; "
    "date +%s.%N"
)


@dataclass(frozen=True)
class Tool:
    """How one of both makes a cluster (and what that reads), deletes it, and runs kubectl."""

    create: Sequence[str]
    delete: Sequence[str]
    kubectl: Sequence[str]
    given: str = ""


@dataclass(frozen=True)
class Run:
    """Seconds of the command, until DNS answers, and of deleting."""

    command_s: float
    dns_s: float
    delete_s: float


def ours(name: str, version: str) -> Tool:
    """sykube, with the Kubernetes that kind has."""
    command = [sys.executable, "-m", "sykube"]
    named = ["--name", name]
    return Tool(
        [*command, "init", *named, "--workers", "1", "--kubernetes-version", version, "--quiet"],
        [*command, "delete", *named, "--yes", "--quiet"],
        [*command, "kubectl", *named],
    )


def theirs(options: argparse.Namespace) -> Tool:
    """kind; its kubeconfig is of no use here, and no user's."""
    named = ["--name", options.name, "--kubeconfig", f"/run/{options.name}.kubeconfig", "--quiet"]
    in_node = [options.podman, "exec", "--interactive", f"{options.name}-control-plane"]
    return Tool(
        [options.kind, "create", "cluster", *named, "--image", options.node_image, "--config", "-"],
        [options.kind, "delete", "cluster", *named],
        [*in_node, "kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf"],
        json.dumps(_TWO_NODES),
    )


def missing(options: argparse.Namespace) -> list[str]:
    """What is not there, and how one gets it."""
    found = []
    if not shutil.which(options.kind):
        found.append(f"no {options.kind}: apt-get install kind (Debian's sid), or --kind PROGRAM")
    if not shutil.which(options.podman):
        found.append(f"no {options.podman}: apt-get install podman, or --podman PROGRAM")
    elif not timed([options.podman, "images", "--quiet", options.node_image])[1]:
        found.append(
            f"no node image {options.node_image} in podman's storage: podman pull or load it, "
            "or --node-image NAME"
        )
    return found


def asking(image: str) -> dict[str, Any]:
    """A pod on each node that says when DNS answered: of an image and programs each node has."""
    labels = {"app": _POD}
    folders = ("usr", "lib", "lib64")
    container = {
        "image": image,
        "volumeMounts": [
            {"name": each, "mountPath": f"/{each}", "readOnly": True} for each in folders
        ],
    }
    shell = {**container, "name": "ask", "command": ["/usr/bin/sh", "-c", f"PATH=/usr/bin; {_ASK}"]}
    sleep = {**container, "name": "answered", "command": ["/usr/bin/sleep", "infinity"]}
    pod = {
        "tolerations": [{"operator": "Exists"}],
        "initContainers": [shell],
        "containers": [sleep],
        "volumes": [{"name": each, "hostPath": {"path": f"/{each}"}} for each in folders],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": _POD},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def dns_answered(kubectl: Sequence[str]) -> float:
    """When both nodes were Ready and DNS had answered in a pod on each, as time.time() has it."""
    image = ["--namespace", "kube-system", "get", "daemonset", "kube-proxy", "--output"]
    image += ["jsonpath={.spec.template.spec.containers[0].image}"]
    pods = json.dumps(asking(timed([*kubectl, *image])[1]))
    timed([*kubectl, "apply", "--filename", "-"], given=pods)
    timed([*kubectl, "wait", "--for=condition=Ready", "node", "--all", "--timeout=300s"])
    ready = time.time()
    timed([*kubectl, "rollout", "status", f"daemonset/{_POD}", "--timeout=300s"])
    # The pods have the host's clock; rollout ends when the kubelets have noticed.
    said = timed([*kubectl, "logs", "--selector", f"app={_POD}", "--container", "ask"])[1]
    answered = [float(line) for line in said.split()]
    assert len(answered) == 2, f"there are not two nodes: {said}"
    return max(ready, *answered)


def measured(tool: Tool) -> Run:
    """Make a cluster, wait until DNS answers, delete it."""
    started = time.time()
    try:
        command_s, _ = timed(tool.create, given=tool.given)
        dns_s = dns_answered(tool.kubectl) - started
    finally:
        delete_s, _ = timed(tool.delete)
    return Run(command_s, dns_s, delete_s)


def main() -> None:
    """Run the pairs, print the table and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--name", default="bench-kind")
    parser.add_argument("--kind", default="kind")
    parser.add_argument("--podman", default="podman")
    parser.add_argument(
        "--node-image", default=f"docker.io/kindest/node:v{DEBIAN.kubernetes_version}"
    )
    options = parser.parse_args()
    os.environ["KIND_EXPERIMENTAL_PROVIDER"] = "podman"
    lacking = missing(options)
    if lacking and options.pairs:
        print(*lacking, sep="\n", file=sys.stderr)
        sys.exit(ExitCode.HOST_NOT_READY)
    version = DEBIAN.kubernetes_version
    if not lacking:
        read = ["run", "--rm", "--entrypoint", "cat", options.node_image, "/kind/version"]
        version = timed([options.podman, *read])[1].strip()
    tools = {"sykube": ours(options.name, version), "kind": theirs(options)}
    if not options.pairs:
        for tool in tools.values():
            print("would run:", *tool.create)
        sykube(*tools["sykube"].create[3:], "--dry-run")
        print(json.dumps({"pairs": 0, "missing": lacking}))
        return
    runs: dict[str, list[Run]] = {name: [] for name in tools}
    for number in range(options.pairs):
        # Which one goes first changes, so that neither has the warmer host.
        for name in list(tools)[:: 1 if number % 2 == 0 else -1]:
            run = measured(tools[name])
            runs[name].append(run)
            print(
                f"pair {number + 1}: {name} {run.dns_s:.1f} s until DNS answers, of these "
                f"{run.command_s:.1f} s the command; delete {run.delete_s:.1f} s",
                flush=True,
            )
    show(runs, version)


def show(runs: dict[str, list[Run]], version: str) -> None:
    """The table and the JSON."""
    result: dict[str, Any] = {"pairs": len(runs["kind"]), "kubernetes": version}
    print(f"\nmedians of {result['pairs']} alternated pairs, Kubernetes {version}")
    print(f"  {'':25} {'sykube':>8} {'kind':>8} {'ratio':>6}")
    for figure, title in (
        ("dns_s", "until DNS answers"),
        ("command_s", "of these, the command"),
        ("delete_s", "delete"),
    ):
        both = {name: middle([getattr(run, figure) for run in runs[name]]) for name in runs}
        mine, other = both["sykube"] or 0.0, both["kind"] or 0.0
        ratio = round(mine / other, 3)
        print(f"  {title:25} {shown(mine, '6.1', ' s')} {shown(other, '6.1', ' s')} {ratio:6.2f}")
        result |= {"ratio" if figure == "dns_s" else f"{figure[:-2]}_ratio": ratio, figure: both}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
