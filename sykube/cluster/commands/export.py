"""Everything that a report of a bug needs, in one folder, without secrets.

Each part is had by itself: what is broken is no reason to leave out the rest.
"""

from __future__ import annotations

import gzip
import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from sykube import documents, redaction
from sykube.cluster.commands import checkup
from sykube.cluster.commands import status as cluster_status
from sykube.cluster.model import lookup
from sykube.cluster.model.cluster import Cluster, on_each
from sykube.cluster.operations import logs
from sykube.errors import SykubeError, UsageError
from sykube.host import engines, preflight, space
from sykube.host.host import Host
from sykube.host.paths import ClusterPaths
from sykube.host.run import Completed
from sykube.kubernetes.api import Api, ApiError
from sykube.node import cgroups
from sykube.node.node import Node
from sykube.ui import Ui

MISSING = "missing.txt"
_TIMEOUT_S = 20.0

# File → what is run for it, in each node.
_NODE_COMMANDS = {
    "processes.txt": "ps -eo pid,ppid,stat,etime,rss,args",
    "addresses.txt": "ip -details address",
    "routes.txt": "ip route show table all",
    "iptables.txt": "iptables-save",
    "disk.txt": "df -h; df -i",
    "mounts.txt": "cat /proc/self/mountinfo",
    "programs.txt": "supervisorctl status",
    "containers.txt": "ctr -n k8s.io containers list; ctr -n k8s.io tasks list",
    "kubelet.yaml": "cat /var/lib/kubelet/config.yaml",
}
_HOST_COMMANDS = {
    "addresses.txt": ("ip", "address"),
    "routes.txt": ("ip", "route", "show", "table", "all"),
    "iptables.txt": ("iptables-save",),
    "disk.txt": ("df", "-h"),
    "mounts.txt": ("cat", "/proc/self/mountinfo"),
}
# No Secrets; of ConfigMaps, those of kube-system alone.
_OBJECTS = (
    *("/api/v1/nodes", "/api/v1/namespaces", "/api/v1/pods", "/api/v1/events", "/api/v1/services"),
    *("/api/v1/endpoints", "/api/v1/persistentvolumes", "/api/v1/persistentvolumeclaims"),
    "/api/v1/namespaces/kube-system/configmaps",
    *(f"/apis/apps/v1/{kind}" for kind in ("deployments", "daemonsets", "statefulsets")),
    *("/apis/apps/v1/replicasets", "/apis/batch/v1/jobs"),
    *("/apis/networking.k8s.io/v1/ingresses", "/apis/networking.k8s.io/v1/networkpolicies"),
    *("/apis/storage.k8s.io/v1/storageclasses", "/apis/coordination.k8s.io/v1/leases"),
    "/apis/certificates.k8s.io/v1/certificatesigningrequests",
    "/apis/apiregistration.k8s.io/v1/apiservices",
)


def export(host: Host, name: str, folder: Path, ui: Ui) -> list[str]:
    """Write all that is known of a cluster to a new or empty folder, for its owner's eyes alone.

    Returns:
        What could not be had, a line each; they are in the file `MISSING`, too.

    Raises:
        UsageError: the folder holds something already.
        SykubeError: there is no such cluster (NO_SUCH_CLUSTER).
    """
    if not lookup.exists(host, name):
        raise lookup.no_such_cluster(host, name)
    report = _Report(folder)
    cluster: Cluster | None = None
    try:
        cluster = lookup.load(host, name, ui)
    except SykubeError as error:
        report.lacks("state.json", error)
    with ui.step("Collecting what the host knows"):
        _host(host, report, name, cluster)
    with ui.step("Collecting the nodes' logs"):
        _node_logs(host, report, name, ui)
    if cluster is not None:
        with ui.step("Looking into the nodes"):
            _nodes(report, cluster)
        with ui.step("Asking the API server"):
            report.attempt("status.json", lambda: _json(cluster_status.collect(cluster).to_dict()))
            _objects(report, cluster)
    report.close()
    return report.missing


class _Report:
    """A folder to which nothing is written but without its secrets."""

    def __init__(self, folder: Path) -> None:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(
                f"{folder} is not empty",
                resolution="Give a folder that does not exist yet, or an empty one.",
            )
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        self._folder = folder
        self.missing: list[str] = []

    def write(self, name: str, content: str) -> None:
        """Write one file; folders in its name are made."""
        path = self._folder / name
        for folder in reversed(path.relative_to(self._folder).parents[:-1]):
            (self._folder / folder).mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(redaction.text(content))

    def attempt(self, name: str, make: Callable[[], str]) -> None:
        """Write what `make` returns; where it fails, note that."""
        try:
            content = make()
        except Exception as error:
            # Whatever it is: a report on something broken meets what nobody thought of.
            self.lacks(name, error)
            return
        self.write(name, content)

    def lacks(self, name: str, error: object) -> None:
        details = error.details if isinstance(error, SykubeError) else ""
        self.missing.append("\n    ".join([f"{name}: {error}", *details.splitlines()]))

    def close(self) -> None:
        """Say what could not be had."""
        if self.missing:
            self.write(MISSING, "".join(f"{line}\n" for line in self.missing))


def _host(host: Host, report: _Report, name: str, cluster: Cluster | None) -> None:
    paths = ClusterPaths(host, name)
    report.attempt("sykube.json", lambda: _json({"sykube": installed_version("sykube")}))
    report.attempt("host/facts.json", lambda: _json(_facts(host, paths)))
    for file, command in _HOST_COMMANDS.items():
        report.attempt(f"host/{file}", partial(_host_output, host, command))
    report.attempt("doctor.json", lambda: _json(_findings(host, name, cluster)))
    if paths.state.exists():
        report.attempt("state.json", paths.state.read_text)
    kept = (path for path in sorted(paths.node_logs.rglob("*")) if path.is_file())
    for log in kept:
        file = f"failed-init/{log.relative_to(paths.node_logs)}".removesuffix(".gz")
        report.attempt(file, partial(_log_text, log))
    for log in sorted(paths.log.parent.glob(f"{paths.log.name}*")):
        report.attempt(f"sykube-log/{log.name}", partial(_log_text, log))


def _facts(host: Host, paths: ClusterPaths) -> dict[str, Any]:
    memory = (host.proc / "meminfo").read_text(encoding="utf-8").splitlines()[:3]
    room = space.free(host, paths.root)
    engine = engines.find(host)
    return {
        "kernel": " ".join(os.uname()[2:]),
        "operatingSystem": (host.etc / "os-release").read_text(encoding="utf-8").splitlines()
        if (host.etc / "os-release").exists()
        else [],
        "python": platform.python_version(),
        "cgroupVersion": 2 if cgroups.is_v2(host) else 1,
        "processors": os.cpu_count(),
        "memory": dict(line.replace(" ", "").split(":", 1) for line in memory),
        "disk": {"folder": str(room.place), "total": room.total, "free": room.free},
        "engine": {"version": engine.version, "binary": str(engine.binary)} if engine else None,
    }


def _findings(host: Host, name: str, cluster: Cluster | None) -> list[dict[str, Any]]:
    found = preflight.check_host(
        host,
        nodes=0,
        data=ClusterPaths(host, name).root,
        cache=host.cache,
        building=False,
    )
    if cluster is not None:
        found += checkup.run_checks(cluster).findings
    return [asdict(finding) | {"level": finding.level.value} for finding in found]


def _node_logs(host: Host, report: _Report, name: str, ui: Ui) -> None:
    """Those of programs and of pods; also where the cluster has no record or does not run."""
    kept = {"sykube": "programs", "pods": "pods"}
    for node, found in logs.nodes(host, name, ui).items():
        for place, called in kept.items():
            root = found.pull("/var/log") / place
            for log in sorted(path for path in root.rglob("*") if path.is_file()):
                part = str(log.relative_to(root)).removesuffix(".gz")
                report.attempt(f"nodes/{node}/{called}/{part}", partial(_log_text, log))


def _nodes(report: _Report, cluster: Cluster) -> None:
    try:
        running = cluster.running()
    except SykubeError as error:
        report.lacks("what runs in the nodes", error)
        return

    def collect(node: Node) -> None:
        if node not in running:
            report.lacks(f"nodes/{node.name}", "its instance does not run: its logs alone")
            return
        if node.is_frozen():
            report.lacks(f"nodes/{node.name}", "it is paused: its logs alone")
            return
        report.attempt(f"nodes/{node.name}/engine.log", node.boot_log)
        for file, script in _NODE_COMMANDS.items():
            report.attempt(
                f"nodes/{node.name}/{file}",
                partial(_node_output, node, script),
            )

    on_each(cluster.nodes, collect)


def _objects(report: _Report, cluster: Cluster) -> None:
    try:
        with cluster.api() as api:
            _answers(api)
            report.attempt("kubernetes/health.txt", lambda: str(api.get("/readyz?verbose")))
            for path in (*_OBJECTS, f"/apis/{cluster.minor.cron_jobs_api}/cronjobs"):
                file = f"kubernetes/{path.rpartition('/')[2]}.yaml"
                report.attempt(file, partial(_listed, api, path))
    except SykubeError as error:
        report.lacks("kubernetes", error)


def _answers(api: Api) -> None:
    """Refuse an API server that does not answer at all: it would be waited for twenty times."""
    try:
        api.get("/version")
    except ApiError as error:
        if error.status == 0:
            raise


def _listed(api: Api, path: str) -> str:
    items = [redaction.structure(item) for item in api.get(path)["items"]]
    for item in items:
        # Who wrote which field when: more text than all the rest.
        item["metadata"].pop("managedFields", None)
    # Unfolded: a long line that is broken up can no longer be searched for.
    return documents.dump_all(items, width=10**9)


def _host_output(host: Host, command: tuple[str, ...]) -> str:
    return _output(host.run(command, timeout=_TIMEOUT_S, check=False, secret=True))


def _node_output(node: Node, script: str) -> str:
    # Kept out of the log, which is part of the report.
    command = ["sh", "-c", script]
    return _output(node.run(command, timeout=_TIMEOUT_S, check=False, secret=True))


def _output(done: Completed) -> str:
    ending = "" if done.ok else f"(exit code {done.code})\n"
    return f"{done.stdout}{done.stderr}{ending}"


def _log_text(path: Path) -> str:
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes()).decode(errors="replace")
    return path.read_text(encoding="utf-8", errors="replace")


def _json(data: Any) -> str:
    return json.dumps(data, indent=2) + "\n"
