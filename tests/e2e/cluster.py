"""Driving a real cluster by its own command line."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dns.message
import dns.rcode
import dns.rdatatype

from sykube.cluster.model.cluster import Cluster
from sykube.cluster.model.state import State, clusters
from sykube.host import lock
from sykube.host.host import Host
from sykube.host.paths import ClusterPaths
from sykube.ui import Ui
from tests.e2e import release
from tests.hostdiff import HostSnapshot

UPSTREAM_NAME = "outside.sykube.test"
_INIT_TIMEOUT_S = 3000
_PATIENCE = float(os.environ.get("SYKUBE_TEST_PATIENCE", "1"))


@dataclass
class TestCluster:
    """A cluster of the tests; `before` is the host as it was without it.

    `prefix` is a command that runs sykube somewhere else, as nsenter does, by the Python that can be
    run there; `own` are variables beside this process's, or instead of them: those of another user.
    """

    __test__ = False

    name: str
    folder: Path
    before: HostSnapshot | None = None
    prefix: tuple[str, ...] = ()
    own: dict[str, str] = field(default_factory=dict)
    instead: bool = False
    python: str = sys.executable

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def site(self) -> Path:
        """What pods of the shared cluster may bind."""
        return self.folder / "site"

    @property
    def pod_options(self) -> tuple[str, ...]:
        """What they may ask for."""
        folders = f"bind={self.site},bind={self.site}/scratch:rw"
        return ("--allow-pod-option", f"nv,writable-tmpfs,fakeroot,{folders}")

    @property
    def environment(self) -> dict[str, str]:
        inherited = {} if self.instead else os.environ
        return {**inherited, "KUBECONFIG": str(self.kubeconfig), **self.own}

    def sykube(
        self,
        *arguments: str,
        check: bool = True,
        timeout: float = 300,
        stdin: str | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run sykube and return how it ended."""
        command = [*self.prefix, *release.command(arguments, self.python)]
        done = _run(command, self.environment, timeout, stdin, cwd)
        if check:
            _require_success(f"sykube {' '.join(arguments)}", done)
        return done

    def init_command(self, *arguments: str) -> list[str]:
        """sykube init of this cluster."""
        words = ["init", "--name", self.name, *arguments]
        return [*self.prefix, *release.command(words, self.python)]

    def init(
        self, *arguments: str, resolv_conf: Path | None = None, cwd: Path | None = None
    ) -> None:
        """sykube init; `resolv_conf` becomes the host's for this command."""
        command = self.init_command(*arguments)
        if resolv_conf:
            mount = f'mount --bind {resolv_conf} /etc/resolv.conf && exec "$@"'
            command = ["unshare", "--mount", "sh", "-c", mount, "sh", *command]
        subprocess.run(command, env=self.environment, check=True, timeout=_INIT_TIMEOUT_S, cwd=cwd)

    def delete_quietly(self) -> None:
        """Remove the cluster, if any of it is there."""
        self.sykube("delete", "--name", self.name, "--yes", check=False)

    def kubectl(
        self,
        *arguments: str,
        check: bool = True,
        timeout: float = 300,
        stdin: str | None = None,
        cwd: Path | None = None,
    ) -> str:
        """Run kubectl; its standard output.

        By the program and the variables that `sykube kubectl` would have, without another Python
        for each call, of which there are thousands. That command itself is shown by `sykube`.
        """
        cluster = self._running()
        if cluster is None:
            words = ("kubectl", "--name", self.name, *arguments)
            return self.sykube(*words, check=check, timeout=timeout, stdin=stdin, cwd=cwd).stdout
        command = [str(cluster.image.kubectl), *arguments]
        done = _run(command, cluster.environment(self.environment), timeout, stdin, cwd)
        if check:
            _require_success(f"kubectl {' '.join(arguments)}", done)
        return done.stdout

    def _running(self) -> Cluster | None:
        """The cluster, where it is root's, of this machine, and runs."""
        state = None if self.prefix else State.load(ClusterPaths(Host(), self.name).state)
        found = Cluster.of(Host(), state, Ui()) if state else None
        return found if found and found.bridge.exists() else None

    def get(self, *arguments: str) -> Any:
        """An object or list of the API."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def apply(self, *objects: dict[str, Any]) -> None:
        """Create or update objects."""
        documents = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.kubectl("apply", "-f", "-", stdin=documents)

    def in_pod(self, pod: str, *command: str, check: bool = True) -> str:
        """Run a command in a pod; its standard output."""
        return self.kubectl("exec", pod, "--", *command, check=check)

    def fetch(self, pod: str, url: str) -> str:
        """The body that a pod gets from a URL; an empty text when it gets none."""
        program = (
            "import sys,urllib.request as r\n"
            "print(r.urlopen(sys.argv[1],timeout=5).read().decode(),end='')"
        )
        return self.in_pod(pod, "python3", "-c", program, url, check=False)

    def fetch_often(self, pod: str, url: str, count: int) -> list[str]:
        """What a pod gets from a URL, each time by a new connection; empty where it gets nothing.

        By one program in the pod: to start one takes longer than all the answers.
        """
        program = (
            "import json,sys,urllib.request as r\n"
            "def fetch():\n"
            "    try: return r.urlopen(sys.argv[1],timeout=5).read().decode()\n"
            "    except OSError: return ''\n"
            "print(json.dumps([fetch() for _ in range(int(sys.argv[2]))]))"
        )
        found = self.in_pod(pod, "python3", "-c", program, url, str(count))
        answers: list[str] = json.loads(found)
        return answers

    def ask(self, pod: str, name: str, kind: str = "A") -> list[str]:
        """What the name server of a pod answers for a full name, by UDP or else TCP."""
        program = (
            "import socket,struct,sys\n"
            "lines=[l.split() for l in open('/etc/resolv.conf')]\n"
            "server=next(l[1] for l in lines if l[:1]==['nameserver']),53\n"
            "query=bytes.fromhex(sys.argv[1])\n"
            "for attempt in range(3):\n"
            "    s=socket.socket(type=socket.SOCK_DGRAM); s.settimeout(5)\n"
            "    s.sendto(query,server)\n"
            "    try: answer=s.recv(65535); break\n"
            "    except TimeoutError: pass\n"
            "if answer[2]&2:\n"
            "    s=socket.create_connection(server,5)\n"
            "    s.sendall(struct.pack('!H',len(query))+query)\n"
            "    f=s.makefile('rb'); answer=f.read(struct.unpack('!H',f.read(2))[0])\n"
            "print(answer.hex())\n"
        )
        query = dns.message.make_query(name, kind)
        found = self.in_pod(pod, "python3", "-c", program, query.to_wire().hex())
        answer = dns.message.from_wire(bytes.fromhex(found))
        assert answer.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN), answer
        wanted = dns.rdatatype.from_text(kind)
        return [str(each) for rrset in answer.answer for each in rrset if rrset.rdtype == wanted]

    def lookup(self, pod: str, name: str) -> str:
        """The address that the C library finds for a name, search domains included."""
        found = self.in_pod(pod, "getent", "ahostsv4", name, check=False).split()
        return found[0] if found else ""

    @property
    def minor(self) -> int:
        """The MINOR of its Kubernetes, 1.MINOR.PATCH."""
        version = json.loads(self.kubectl("get", "--raw", "/version"))["gitVersion"]
        return int(version.split(".")[1])

    @property
    def image(self) -> str:
        """A container image that every node has and that holds Python and a shell."""
        images = self.get("nodes")["items"][0]["status"]["images"]
        names = [name for image in images for name in image["names"]]
        return str(next(name for name in names if "/system:" in name))


def patient(seconds: float) -> float:
    """Seconds of an ordinary machine, as they are on this one: SYKUBE_TEST_PATIENCE says how slow it is."""
    return seconds * _PATIENCE


def _run(
    command: Sequence[str],
    environment: Mapping[str, str],
    timeout: float,
    stdin: str | None,
    cwd: Path | None,
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=environment, input=stdin, capture_output=True, text=True,
        timeout=patient(timeout), cwd=cwd, check=False,
    )  # fmt: skip


def _require_success(what: str, done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode != 0:
        raise AssertionError(f"{what}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")


def host_before(name: str, *folders: Path) -> HostSnapshot:
    """The host as it is before a cluster of that name; more folders count as its own."""
    host = Host()
    # Of a run that was killed; the cluster's own commands would remove it, which were a difference.
    lock.remove_abandoned(host, host.locks / f"{name}.lock")
    with contextlib.suppress(OSError):
        host.locks.rmdir()
    return HostSnapshot.take([*_data_folders(host, name), *folders])


def _data_folders(host: Host, name: str) -> list[Path]:
    """Where a cluster of that name may leave files; all of sykube's where it is the only one."""
    if any(other != name for other in clusters(host)):
        return [host.data / name, host.locks / f"{name}.lock"]
    return [host.data, host.locks]


def free_port() -> int:
    """A port of loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(what: str, check: Callable[[], object], timeout: float = 90) -> None:
    """Wait until a check is true; a cluster settles, it does not switch.

    A slow check leaves as much time as it takes, so that looking is never most of what is done.
    """
    timeout = patient(timeout)
    deadline = time.monotonic() + timeout
    while True:
        started = time.monotonic()
        if check():
            return
        assert time.monotonic() < deadline, f"not within {timeout:.0f} s: {what}"
        time.sleep(max(patient(0.5), time.monotonic() - started))
