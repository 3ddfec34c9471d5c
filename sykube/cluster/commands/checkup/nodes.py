"""A cluster's nodes, what runs in them, and Kubernetes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from sykube.cluster.commands.checkup.context import CheckContext, failure, ok, warning
from sykube.cluster.commands.checkup.files import ended
from sykube.cluster.model import pod_network
from sykube.cluster.operations.dns import deployment
from sykube.cluster.operations.policies import enforcement
from sykube.errors import SykubeError
from sykube.host.finding import Finding
from sykube.kubernetes import readiness, webhooks
from sykube.kubernetes.api import Api
from sykube.node import supervised
from sykube.node.node import Node

_PODS, _DNS = "pods of kube-system", "cluster DNS"
_POLICIES = "network policies"
# Findings that are mostly what others lead to.
LAST = (_PODS, _DNS)
_PRESSURE_CURES = {
    "DiskPressure": "Free space on the file system of the cluster's folder: see df",
    "MemoryPressure": "End other programs, or give nodes more: init --memory",
    "PIDPressure": "End processes, or give nodes more: init --pids",
}


def stopped(context: CheckContext) -> Iterator[Finding]:
    """In the place of the checks below, where no node runs."""
    lost = list(_lost_nodes(context))
    yield from lost
    if not lost:
        yield warning("nodes", "the cluster is stopped", context.command("start"))


def _lost_nodes(context: CheckContext) -> Iterator[Finding]:
    """Nodes that run, but not for the engine.

    It removes its notes of instances whose processes it does not see: called once in a container
    with the same home folder and host name, it forgets all of those outside.
    """
    missing = [node for node in context.cluster.nodes if node not in context.running]
    found = {node.name: str(first) for node in missing if (first := node.lost_process())}
    # All of them, before start makes a second one of any.
    cure = f"kill -9 {' '.join(found.values())} && {context.command('start')}"
    for name in found:
        detail = "the engine has lost track of its instance, whose processes go on"
        yield failure(f"node {name}", detail, cure)


def nodes(context: CheckContext) -> Iterator[Finding]:
    """Nodes that do not run, or are paused."""
    start, unpause = context.command("start"), context.command("unpause")
    lost = {finding.what: finding for finding in _lost_nodes(context)}
    yield from lost.values()
    for node in context.cluster.nodes:
        if node not in context.running:
            if f"node {node.name}" not in lost:
                yield failure(f"node {node.name}", "its instance does not run", start)
        elif node not in context.awake:
            yield failure(f"node {node.name}", "it is paused", unpause)
    if context.awake == context.cluster.nodes:
        yield ok("nodes", f"{len(context.awake)} run")


def inherited(context: CheckContext) -> Iterator[Finding]:
    """Nodes that have something of what started them, such as a umask or a limit of open files."""
    for node in context.running:
        # A node that ends meanwhile is another check's.
        with contextlib.suppress(OSError):
            if found := node.inherited():
                detail = f"it has of what started it: {'; '.join(found)}"
                yield warning(f"node {node.name}", detail, context.command("restart"))


def programs(context: CheckContext) -> Iterator[Finding]:
    """What supervisord keeps running in each node."""
    for node in context.awake:
        try:
            states = node.services()
        except SykubeError as error:
            yield failure(f"node {node.name}", error.brief, context.command("restart"))
            continue
        for program, state in states.items():
            if state != supervised.RUNNING:
                enter = context.command("exec", node.name, "supervisorctl", "start", program)
                logs = context.command("logs", node.name, "--service", program, "--tail", "50")
                cure = enter if state in ("STOPPED", "EXITED") else f"{logs} says why"
                yield failure(f"node {node.name}", f"{program} is {state}", cure)


def api(context: CheckContext) -> Iterator[Finding]:
    """The API server, and what it knows of nodes and of its own pods."""
    masters = [node for node in context.awake if node.is_control_plane]
    if not masters:
        return
    cure = f"{context.command('restart')}; the reason is in: {context.kubelet_log(masters[0])}"
    if any(not one.authority for one in ended(context)):
        cure = context.command("certs renew")
    try:
        with context.cluster.api() as api:
            problem = readiness.health(api)
            if not problem:
                yield ok("API server", f"well at {context.cluster.endpoint}")
                yield from _kubernetes(context, api)
    except SykubeError as error:
        problem = error.brief
    if problem:
        yield failure("API server", problem, cure)


def _kubernetes(context: CheckContext, api: Api) -> Iterator[Finding]:
    registered, network = readiness.registered(api), context.cluster.pod_network
    awaited = network.is_awaited(registered, context.cluster.nodes)
    if awaited:
        yield failure("pod network", pod_network.NO_PLUGIN, pod_network.INSTALL)
    for node in context.awake:
        item = registered.get(node.instance)
        if item is None:
            yield failure(
                f"node {node.name}", "it is not registered", f"{context.kubelet_log(node)} says why"
            )
        else:
            yield from _conditions(context, node, item, networked=not awaited)
    refusing = webhooks.refusing(api)
    for each in refusing:
        cure = webhooks.fix([each], context.cluster.name_option)
        yield failure("webhook", f"{each}: {each.reason}", cure)
    masters = len(context.cluster.control_planes)
    pods = readiness.system_pods(api, len(context.cluster.nodes), masters, networked=not awaited)
    if pods:
        cure = context.command("kubectl", "-n", "kube-system", "describe", "pods")
        yield failure(_PODS, pods, f"{cure} says why")
    found = enforcement(context.cluster, api)
    if found.problem:
        yield failure(_POLICIES, found.said, found.fix)
    elif found.unenforced or found.parts:
        yield warning(_POLICIES, found.said, found.fix)
    elif found.said:
        yield ok(_POLICIES, found.said)


def _conditions(
    context: CheckContext, node: Node, item: dict[str, Any], *, networked: bool
) -> Iterator[Finding]:
    name, logs = f"node {node.name}", context.kubelet_log(node)
    for condition in item.get("status", {}).get("conditions", []):
        kind, status = condition["type"], condition["status"]
        reason = condition.get("message") or condition.get("reason") or ""
        if kind == "Ready" and status != "True" and networked:
            yield failure(name, f"NotReady: {reason}", f"{logs} says why")
        elif kind != "Ready" and status == "True":
            yield failure(name, f"{kind}: {reason}", _PRESSURE_CURES.get(kind, logs))
    if item.get("spec", {}).get("unschedulable"):
        cure = context.command("kubectl", "uncordon", node.instance)
        yield warning(name, "it takes no new pods (cordoned)", cure)


def dns(context: CheckContext) -> Iterator[Finding]:
    """The cluster's DNS, asked from each node."""
    problems = {node.name: context.cluster.dns_problem(node) for node in context.awake}
    failing = [name for name, problem in problems.items() if problem]
    if failing:
        restart = (
            "-n",
            "kube-system",
            "rollout",
            "restart",
            f"deployment/{deployment(context.cluster)}",
        )
        detail = f"{problems[failing[0]]} (asked from {', '.join(failing)})"
        yield failure(_DNS, detail, context.command("kubectl", *restart))
    elif problems:
        yield ok(_DNS, f"answers at {context.cluster.state.subnets.dns}")
