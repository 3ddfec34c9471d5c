"""A cluster's nodes, what runs in them, and Kubernetes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sykube.cluster import pod_network
from sykube.cluster.checkup.files import ended
from sykube.cluster.checkup.look import Look, failure, ok, warning
from sykube.cluster.dns import dns_problem
from sykube.cluster.steps.dns import deployment
from sykube.errors import SykubeError
from sykube.host import processes
from sykube.host.host import Host
from sykube.host.preflight import Finding
from sykube.kubernetes import readiness, webhooks
from sykube.kubernetes.api import Api
from sykube.node import cgroups, process, services
from sykube.node.node import Node

_PODS, _DNS = "pods of kube-system", "cluster DNS"
# Findings that are mostly what others lead to.
LAST = (_PODS, _DNS)
_PRESSURE_CURES = {
    "DiskPressure": "Free space on the file system of the cluster's folder: see df",
    "MemoryPressure": "End other programs, or give nodes more: init --memory",
    "PIDPressure": "End processes, or give nodes more: init --pids",
}


def stopped(look: Look) -> Iterator[Finding]:
    """In the place of the checks below, where no node runs."""
    lost = list(_lost_nodes(look))
    yield from lost
    if not lost:
        yield warning("nodes", "the cluster is stopped", look.command("start"))


def _lost_nodes(look: Look) -> Iterator[Finding]:
    """Nodes that run, but not for the engine.

    It removes its notes of instances whose processes it does not see: called once in a container
    with the same home folder and host name, it forgets all of those outside.
    """
    missing = [node for node in look.cluster.nodes if node not in look.running]
    firsts = {
        node.name: _first_process(
            look.cluster.host, cgroups.members(look.cluster.host, node.instance)
        )
        for node in missing
    }
    found = {name: str(first) for name, first in firsts.items() if first}
    # All of them, before start makes a second one of any.
    cure = f"kill -9 {' '.join(found.values())} && {look.command('start')}"
    for name in found:
        detail = "the engine has lost track of its instance, whose processes go on"
        yield failure(f"node {name}", detail, cure)


def _first_process(host: Host, members: list[int]) -> int:
    """The process whose end is the end of all of some node's, seen from the host; 0 for none."""
    for member in members:
        with contextlib.suppress(OSError):
            space = (host.proc / str(member) / "ns/pid").readlink()
            for process in host.proc.iterdir():
                if process.name.isdigit() and _is_first(process, space):
                    return int(process.name)
    return 0


def _is_first(process: Path, space: Path) -> bool:
    try:
        if (process / "ns/pid").readlink() != space:
            return False
        status = (process / "status").read_text(encoding="utf-8")
    except OSError:
        return False
    numbers = next(line for line in status.splitlines() if line.startswith("NSpid:"))
    # Its numbers in each namespace, from ours inwards: proc_pid_status(5).
    return numbers.split()[-1] == "1"


def nodes(look: Look) -> Iterator[Finding]:
    """Nodes that do not run, or are paused."""
    start, unpause = look.command("start"), look.command("unpause")
    lost = {finding.what: finding for finding in _lost_nodes(look)}
    yield from lost.values()
    for node in look.cluster.nodes:
        if node not in look.running:
            if f"node {node.name}" not in lost:
                yield failure(f"node {node.name}", "its instance does not run", start)
        elif node not in look.awake:
            yield failure(f"node {node.name}", "it is paused", unpause)
    if look.awake == look.cluster.nodes:
        yield ok("nodes", f"{len(look.awake)} run")


def inherited(look: Look) -> Iterator[Finding]:
    """Nodes that have something of what started them, such as a umask or a limit of open files."""
    for node in look.running:
        # A node that ends meanwhile is another check's.
        with contextlib.suppress(OSError):
            first = _started_by(
                look.cluster.host, look.pid(node), cgroups.members(look.cluster.host, node.instance)
            )
            if first and (found := list(process.inherited(look.cluster.host, first))):
                detail = f"it has of what started it: {'; '.join(found)}"
                yield warning(f"node {node.name}", detail, look.command("restart"))


def _started_by(host: Host, parent: int, members: list[int]) -> int:
    """The process that an instance was started for, which all others of a node come from.

    The oldest: orphans become its siblings, such as the shims of pods.
    """
    origins = {pid: _origin(host, pid) for pid in members}
    children = [pid for pid, (of, _) in origins.items() if of == parent]
    return min(children, key=lambda pid: origins[pid], default=0)


def _origin(host: Host, pid: int) -> tuple[int, int]:
    """The parent of a process and the clock tick of its start; zeros for one that is gone."""
    try:
        fields = processes.stat(host.proc / str(pid))
    except OSError:
        return 0, 0
    return int(fields[1]), int(fields[19])


def programs(look: Look) -> Iterator[Finding]:
    """What supervisord keeps running in each node."""
    for node in look.awake:
        try:
            states = services.states(look.cluster.host, look.pid(node))
        except SykubeError as error:
            yield failure(f"node {node.name}", error.brief, look.command("restart"))
            continue
        for program, state in states.items():
            if state != services.RUNNING:
                enter = look.command("exec", node.name, "supervisorctl", "start", program)
                logs = look.command("logs", node.name, "--service", program, "--tail", "50")
                cure = enter if state in ("STOPPED", "EXITED") else f"{logs} says why"
                yield failure(f"node {node.name}", f"{program} is {state}", cure)


def api(look: Look) -> Iterator[Finding]:
    """The API server, and what it knows of nodes and of its own pods."""
    masters = [node for node in look.awake if node.is_control_plane]
    if not masters:
        return
    cure = f"{look.command('restart')}; the reason is in: {look.kubelet_log(masters[0])}"
    if any(not one.authority for one in ended(look)):
        cure = look.command("certs renew")
    try:
        with look.cluster.api() as api:
            problem = readiness.health(api)
            if not problem:
                yield ok("API server", f"well at {look.cluster.endpoint}")
                yield from _kubernetes(look, api)
    except SykubeError as error:
        problem = error.brief
    if problem:
        yield failure("API server", problem, cure)


def _kubernetes(look: Look, api: Api) -> Iterator[Finding]:
    registered, network = readiness.registered(api), look.cluster.pod_network
    awaited = network.is_awaited(registered, look.cluster.nodes)
    if awaited:
        yield failure("pod network", pod_network.NO_PLUGIN, pod_network.INSTALL)
    for node in look.awake:
        item = registered.get(node.instance)
        if item is None:
            yield failure(
                f"node {node.name}", "it is not registered", f"{look.kubelet_log(node)} says why"
            )
        else:
            yield from _conditions(look, node, item, networked=not awaited)
    refusing = webhooks.refusing(api)
    for each in refusing:
        cure = webhooks.fix([each], look.cluster.name_option)
        yield failure("webhook", f"{each}: {each.reason}", cure)
    masters = len(look.cluster.control_planes)
    pods = readiness.system_pods(api, len(look.cluster.nodes), masters, networked=not awaited)
    if pods:
        cure = look.command("kubectl", "-n", "kube-system", "describe", "pods")
        yield failure(_PODS, pods, f"{cure} says why")
    if unenforced := network.unenforced_policies(api):
        cure = "Rely on none of them here: docs/how-it-works.md"
        yield warning("network policies", unenforced, cure)


def _conditions(
    look: Look, node: Node, item: dict[str, Any], *, networked: bool
) -> Iterator[Finding]:
    name, logs = f"node {node.name}", look.kubelet_log(node)
    for condition in item.get("status", {}).get("conditions", []):
        kind, status = condition["type"], condition["status"]
        reason = condition.get("message") or condition.get("reason") or ""
        if kind == "Ready" and status != "True" and networked:
            yield failure(name, f"NotReady: {reason}", f"{logs} says why")
        elif kind != "Ready" and status == "True":
            yield failure(name, f"{kind}: {reason}", _PRESSURE_CURES.get(kind, logs))
    if item.get("spec", {}).get("unschedulable"):
        cure = look.command("kubectl", "uncordon", node.instance)
        yield warning(name, "it takes no new pods (cordoned)", cure)


def dns(look: Look) -> Iterator[Finding]:
    """The cluster's DNS, asked from each node."""
    problems = {node.name: dns_problem(look.cluster, look.pid(node)) for node in look.awake}
    failing = [name for name, problem in problems.items() if problem]
    if failing:
        restart = (
            "-n",
            "kube-system",
            "rollout",
            "restart",
            f"deployment/{deployment(look.cluster)}",
        )
        detail = f"{problems[failing[0]]} (asked from {', '.join(failing)})"
        yield failure(_DNS, detail, look.command("kubectl", *restart))
    elif problems:
        yield ok(_DNS, f"answers at {look.cluster.state.subnets.dns}")
