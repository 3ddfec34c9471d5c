"""What pods may expect under RuntimeClass apptainer, which is what they may under runc (docs/runtimes.md).

All pods of a class are applied at once, and looked at one after the other. With
SYKUBE_RUNTIMES_TABLE=FILE they are under runc and crun, too, and the results are written side by side,
as docs/runtimes.md has them: python -m pytest tests/e2e/test_runtimes.py

`python3 -m tests.vm runtimes` does so on cgroup v2.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import release, terminal
from tests.e2e.cluster import TestCluster, eventually, free_port, patient

Json = dict[str, Any]
RUNTIMES = ("runc", "crun", "apptainer")
TABLE = os.environ.get("SYKUBE_RUNTIMES_TABLE", "")
# First the one that is most likely to fail.
TESTED = RUNTIMES[::-1] if TABLE else ("apptainer",)
# Of each stream: the kubelet begins a new file at 10 MiB, and shows that one alone.
LINES, ERRORS = 150_000, 2_000
# linux/capability.h: what containerd gives where nothing is said, and numbers of two of them.
DEFAULT_CAPABILITIES, CHOWN, NET_ADMIN = 0xA80425FB, 0, 12
# The kubelet ends a container that has it, and the pod stays to show how. A kubelet of 1.20 may forget
# that of a pod that is deleted.
FAILS = {
    "livenessProbe": {
        "exec": {"command": ["false"]},
        "initialDelaySeconds": 5,
        "periodSeconds": 1,
        "failureThreshold": 1,
    }
}
STATUS = "cat /proc/self/status"
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


@dataclass(frozen=True)
class Suite:
    """The pods of one class."""

    cluster: TestCluster
    runtime: str
    # All pods, and until when they are not asked for again.
    known: dict[str, Json] = field(default_factory=dict)
    fresh_until: list[float] = field(default_factory=lambda: [0.0])

    @property
    def namespace(self) -> str:
        return f"runtime-{self.runtime}"

    def kubectl(self, *arguments: str, check: bool = True, **options: Any) -> str:
        return self.cluster.kubectl("-n", self.namespace, *arguments, check=check, **options)

    def get(self, pod: str) -> Json:
        if time.monotonic() > self.fresh_until[0]:
            self.known.clear()
            for each in self.cluster.get("-n", self.namespace, "pods")["items"]:
                self.known[each["metadata"]["name"]] = each
            self.fresh_until[0] = time.monotonic() + patient(1)
        return self.known[pod]

    def log(self, pod: str, container: str = "main") -> str:
        return self.kubectl("logs", pod, "-c", container)

    def status(self, pod: str, container: str = "main") -> Json:
        found = self.get(pod)["status"].get("containerStatuses", [])
        return next((each for each in found if each["name"] == container), {"state": {}})

    def ended(self, pod: str, container: str = "main") -> Json:
        """How a container has ended; it is waited for."""
        eventually(
            f"{pod} ends under {self.runtime}",
            lambda: "terminated" in self.status(pod, container)["state"],
        )
        return self.status(pod, container)["state"]["terminated"]  # type: ignore[no-any-return]

    def output(self, pod: str, container: str = "main", code: int = 0) -> str:
        """What a container has written, once it has ended with a code."""
        ended = self.ended(pod, container)
        text = self.log(pod, container)
        assert ended["exitCode"] == code, (ended, text)
        return text

    def ready(self, pod: str) -> None:
        eventually(
            f"{pod} is ready under {self.runtime}",
            lambda: {"type": "Ready", "status": "True"} in self.conditions(pod),
        )

    def conditions(self, pod: str) -> list[Json]:
        found = self.get(pod)["status"].get("conditions", [])
        return [{key: each[key] for key in ("type", "status")} for each in found]

    def exec(self, pod: str, *command: str, **options: Any) -> str:
        return self.kubectl("exec", pod, *options.pop("flags", ()), "--", *command, **options)

    def events(self, pod: str) -> str:
        found = self.cluster.get(
            "-n", self.namespace, "events", "--field-selector", f"involvedObject.name={pod}"
        )
        return "\n".join(each["message"] for each in found["items"])


Check = Callable[[Suite], None]
PODS: dict[str, Json] = {}
CHECKS: dict[str, Check] = {}


def pod(name: str, script: str, **container: Any) -> Json:
    """Add a pod with a container `main`; its manifest, whose spec may be changed."""
    PODS[name] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "containers": [shell("main", script, **container)],
        },
    }
    return PODS[name]


def shell(name: str, script: str, **container: Any) -> Json:
    return {"name": name, "command": ["sh", "-c", script], **container}


def check(title: str) -> Callable[[Check], Check]:
    """Add a check, by what docs/runtimes.md calls it."""

    def add(function: Check) -> Check:
        CHECKS[title] = function
        return function

    return add


def line_of(text: str, name: str) -> str:
    """A field of /proc/PID/status."""
    match = re.search(rf"^{name}:\s*(.*)$", text, re.MULTILINE)
    assert match, text
    return match[1].strip()


def number(text: str, name: str) -> int:
    return int(line_of(text, name), 16)


# --- streams, exec, attach ---

pod("streams", f"seq -f 'e%.0f' 1 {ERRORS} >&2; seq 1 {LINES}; exit 3")


@check("logs of both streams whole and in order, exit code")
def logs(suite: Suite) -> None:
    assert suite.ended("streams")["exitCode"] == 3
    lines = suite.log("streams").splitlines()
    assert [line for line in lines if line[0] != "e"] == [str(n) for n in range(1, LINES + 1)]
    assert [line for line in lines if line[0] == "e"] == [f"e{n}" for n in range(1, ERRORS + 1)]


pod("stays", "echo up; sleep 100000 & wait")


@check("exec: streams, exit code, standard input")
def exec_(suite: Suite) -> None:
    suite.ready("stays")
    said = suite.cluster.sykube(
        *("kubectl", "--name", suite.cluster.name, "-n", suite.namespace, "exec", "stays", "--"),
        *("sh", "-c", "echo out; echo err >&2; exit 5"),
        check=False,
    )
    assert (said.returncode, said.stdout) == (5, "out\n")
    assert "err\n" in said.stderr
    text = "hello\n" * 5000
    assert suite.exec("stays", "cat", flags=("-i",), stdin=text) == text


@check("exec runs in the container: processes, host name, capabilities")
def exec_place(suite: Suite) -> None:
    suite.ready("stays")
    found = suite.exec(
        "stays", "sh", "-c",
        f"{STATUS}; readlink /proc/self/ns/pid /proc/1/ns/pid /proc/self/ns/mnt /proc/1/ns/mnt;"
        " hostname; pwd; tr '\\0' ' ' < /proc/1/cmdline",
    )  # fmt: skip
    own_pid, pid, own_mount, mount, hostname, folder, first = found.splitlines()[-7:]
    assert (own_pid, own_mount, hostname, folder) == (pid, mount, "stays", "/")
    assert "echo up" in first
    assert number(found, "CapEff") == DEFAULT_CAPABILITIES


@check("exec with a terminal of the caller's size")
def exec_terminal(suite: Suite) -> None:
    suite.ready("stays")
    words = ["kubectl", "--name", suite.cluster.name, "-n", suite.namespace]
    command = release.command([*words, "exec", "-it", "stays", "--", "sh", "-c"])
    ended, text = terminal.run(
        [*command, f"sleep {patient(1):g}; tty; stty size; exit 4"],
        suite.cluster.environment, (31, 101),
    )  # fmt: skip
    assert ended == 4, text
    assert "/dev/pts/" in text
    assert "31 101" in text


pod("attached", "read line; echo got $line; sleep 1000", stdin=True)


@check("attach")
def attach(suite: Suite) -> None:
    suite.ready("attached")
    words = ["kubectl", "--name", suite.cluster.name, "-n", suite.namespace]
    with subprocess.Popen(
        release.command([*words, "attach", "-i", "attached"]),
        env=suite.cluster.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin
        assert process.stdout
        process.stdin.write("this\n")
        process.stdin.flush()
        line = process.stdout.readline()
        process.kill()
    assert line == "got this\n"


pod("terminal", "tty; test -t 0 && test -t 1 && echo is", tty=True, stdin=True)


@check("tty: true")
def tty(suite: Suite) -> None:
    found = suite.output("terminal").replace("\r", "")
    assert re.fullmatch(r"/dev/(pts/0|console)\nis\n", found), found


# --- ends ---

pod("terms", "trap 'echo bye > /dev/termination-log; exit 9' TERM; sleep 100000 & wait", **FAILS)
pod("terms-tty", "trap 'exit 9' TERM; sleep 100000 & wait", tty=True, **FAILS)
pod("kills", "trap '' TERM; sleep 100000 & wait", **FAILS)
for name, grace in (("terms", 60), ("terms-tty", 60), ("kills", 2)):
    PODS[name]["spec"]["terminationGracePeriodSeconds"] = grace


@check("SIGTERM and the termination message, also with a terminal")
def term(suite: Suite) -> None:
    for name, message in (("terms", "bye\n"), ("terms-tty", None)):
        ended = suite.ended(name)
        assert (ended["exitCode"], ended.get("message")) == (9, message), name


@check("SIGKILL after the grace period")
def kill(suite: Suite) -> None:
    assert suite.ended("kills")["exitCode"] == 137


pod(
    "memory", "sleep 1; exec python3 -c 'x = bytearray(300 << 20)'",
    resources={"limits": {"memory": "64Mi", "cpu": "300m"}},
)  # fmt: skip


@check("memory limit: OOMKilled")
def oom(suite: Suite) -> None:
    ended = suite.ended("memory")
    assert (ended["exitCode"], ended["reason"]) == (137, "OOMKilled")


pod(
    "limits",
    "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory.max 2> /dev/null;"
    " cat cpu/cpu.cfs_quota_us cpu.max 2> /dev/null; true",
    resources={"limits": {"memory": "64Mi", "cpu": "300m"}},
)


@check("limits as the container sees them")
def limits(suite: Suite) -> None:
    memory, cpu = suite.output("limits").splitlines()
    assert (memory, cpu.split()[0]) == (str(64 << 20), "30000")


pod("missing", "", command=["/no/such"])


@check("a program that is not there: StartError with its name")
def missing(suite: Suite) -> None:
    ended = suite.ended("missing")
    assert (ended["reason"], ended["exitCode"]) == ("StartError", 128)
    assert "/no/such" in ended["message"]
    assert re.search("no such file", ended["message"], re.IGNORECASE)


pod(
    "again", "test -e /ed/before && exit 0; touch /ed/before; exit 1",
    volumeMounts=[{"name": "ed", "mountPath": "/ed"}],
)["spec"] |= {"restartPolicy": "OnFailure", "volumes": [{"name": "ed", "emptyDir": {}}]}  # fmt: skip


@check("restarts")
def restarts(suite: Suite) -> None:
    eventually(
        f"the pod succeeds at its second start under {suite.runtime}",
        lambda: suite.get("again")["status"]["phase"] == "Succeeded",
    )
    assert suite.status("again")["restartCount"] == 1


# --- probes, hooks, several containers ---

pod(
    "served", "touch /tmp/started; cd /tmp; exec python3 -m http.server 8080",
    startupProbe={
        "httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1, "failureThreshold": 60,
    },
    readinessProbe={"exec": {"command": ["cat", "/tmp/started"]}, "periodSeconds": 1},
    livenessProbe={"tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 30},
)  # fmt: skip


@check("startup, readiness and liveness probes: http, exec, tcp")
def probes(suite: Suite) -> None:
    suite.ready("served")
    assert suite.status("served")["restartCount"] == 0


@check("port-forward")
def forward(suite: Suite) -> None:
    suite.ready("served")
    port = free_port()
    words = ["kubectl", "--name", suite.cluster.name, "-n", suite.namespace]
    with subprocess.Popen(
        release.command([*words, "port-forward", "pod/served", f"{port}:8080"]),
        env=suite.cluster.environment, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout
        process.stdout.readline()
        try:
            url = f"http://127.0.0.1:{port}/started"
            with urllib.request.urlopen(url, timeout=patient(20)) as answer:
                assert answer.status == 200
        finally:
            process.kill()


@check("cp")
def copy(suite: Suite, size: int = 1 << 20) -> None:
    suite.ready("served")
    there, back = (suite.cluster.folder / f"{suite.runtime}-{n}" for n in ("there", "back"))
    there.write_bytes(os.urandom(size))
    suite.kubectl("cp", str(there), "served:/tmp/copied")
    suite.kubectl("cp", "served:/tmp/copied", str(back))
    assert back.read_bytes() == there.read_bytes()


pod(
    "hooked", "trap 'cat /ed/pre > /dev/termination-log; exit 0' TERM; sleep 100000 & wait",
    volumeMounts=[{"name": "ed", "mountPath": "/ed"}],
    **FAILS,
    lifecycle={
        "postStart": {"exec": {"command": ["sh", "-c", "echo post > /ed/post"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "cat /ed/* > /tmp/all; mv /tmp/all /ed/pre"]}},
    },
)["spec"] |= {
    "terminationGracePeriodSeconds": 60,
    "volumes": [{"name": "ed", "emptyDir": {}}],
    "initContainers": [
        shell("init", "echo init > /ed/init", volumeMounts=[{"name": "ed", "mountPath": "/ed"}])
    ],
}  # fmt: skip


@check("init containers, postStart and preStop")
def hooks(suite: Suite) -> None:
    assert suite.ended("hooked")["message"] == "init\npost\n"


pod(
    "shared",
    "cat /proc/1/comm; until grep -x sleep /proc/[0-9]*/comm; do sleep 0.2; done; cat /proc/[0-9]*/comm",
)["spec"] |= {"shareProcessNamespace": True}
PODS["shared"]["spec"]["containers"].append(shell("other", "exec sleep 1000"))


@check("shareProcessNamespace, a sidecar")
def shared(suite: Suite) -> None:
    first, *others = suite.output("shared").split()
    assert first == "pause"
    assert {"sh", "sleep", "pause"} <= {*others}


# --- files ---

pod(
    "volumes",
    "exec 2>&1; cat /cm/key /sub/key /secret/key /projected/key /projected/labels /etc/hosts; mount > /ed/m;"
    " echo x > /pvc/file && cat /pvc/file; echo y > /ed/file && cat /ed/file; echo z > /mem/file;"
    " touch /cm/new; touch /new && echo root; pwd; grep ' /mem ' /proc/mounts;"
    " grep ' /dev/shm ' /proc/mounts; ls /node-etc/sykube/node.env; echo $NAME; ls -A /; df -k /dev/shm;"
    " touch /read-only/x; echo message > /dev/termination-log",
    workingDir="/made/by/runtime",
    volumeMounts=[
        {"name": "cm", "mountPath": "/cm"},
        {"name": "cm", "mountPath": "/sub/key", "subPath": "key"},
        {"name": "secret", "mountPath": "/secret"},
        {"name": "projected", "mountPath": "/projected"},
        {"name": "pvc", "mountPath": "/pvc"},
        {"name": "ed", "mountPath": "/ed"},
        {"name": "ed", "mountPath": "/ed/deeper", "subPath": "below"},
        {"name": "ed", "mountPath": "/read-only", "readOnly": True},
        {"name": "mem", "mountPath": "/mem"},
        {"name": "node", "mountPath": "/node-etc", "readOnly": True},
    ],
    env=[{"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
)["spec"] |= {
    "hostAliases": [{"ip": "192.0.2.7", "hostnames": ["alias.test"]}],
    "volumes": [
        {"name": "cm", "configMap": {"name": "files"}},
        {"name": "secret", "secret": {"secretName": "files"}},
        {
            "name": "projected",
            "projected": {
                "sources": [
                    {"configMap": {"name": "files"}},
                    {
                        "downwardAPI": {
                            "items": [
                                {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
                            ]
                        }
                    },
                ]
            },
        },
        {"name": "pvc", "persistentVolumeClaim": {"claimName": "files"}},
        {"name": "ed", "emptyDir": {}},
        {"name": "mem", "emptyDir": {"medium": "Memory"}},
        {"name": "node", "hostPath": {"path": "/etc"}},
    ],
}


@check(
    "volumes: ConfigMap, Secret, projected, subPath, emptyDir, Memory, PVC, hostPath; hostAliases"
)
def volumes(suite: Suite) -> None:
    text = suite.output("volumes")
    assert text.startswith('of the map\nof the map\nof the secret\nof the map\napp="volumes"')
    for wanted in (
        "alias.test", "\nx\n", "\ny\n", "\nroot\n", "\n/made/by/runtime\n", " /mem tmpfs ",
        "/node-etc/sykube/node.env", "\nvolumes\n", " /dev/shm ",
        "/cm/new': Read-only file system", "/read-only/x': Read-only file system",
    ):  # fmt: skip
        assert wanted in text, (wanted, text)
    assert suite.status("volumes")["state"]["terminated"]["message"] == "message\n"
    # Nothing of the runtime's own is seen by the program.
    assert not [
        word for word in ("rootfs", "pod", "singularity", "sykube") if f"\n{word}\n" in text
    ]


pod(
    "read-only", "touch /x; touch /ed/x && echo written; touch /tmp/x",
    securityContext={"readOnlyRootFilesystem": True},
    volumeMounts=[{"name": "ed", "mountPath": "/ed"}],
)["spec"]["volumes"] = [{"name": "ed", "emptyDir": {}}]  # fmt: skip


@check("readOnlyRootFilesystem")
def read_only(suite: Suite) -> None:
    text = suite.output("read-only", code=1)
    assert "written\n" in text
    assert text.count("Read-only file system") == 2


def seen_on_the_node(name: str, propagation: str) -> Json:
    return {
        "volumeMounts": [{"name": name, "mountPath": "/seen", "mountPropagation": propagation}],
    }


pod(
    "propagated", "touch /seen/ready; until test -e /seen/below/file; do sleep 0.2; done; echo came",
    **seen_on_the_node("node", "HostToContainer"),
)  # fmt: skip
# What mounts there is a pod of runc's, whatever the class.
pod(
    "mounts",
    "trap 'umount /seen/below; exit 0' TERM; until test -e /seen/ready; do sleep 0.2; done;"
    " mkdir -p /seen/below; mount -t tmpfs tmpfs /seen/below && touch /seen/below/file;"
    " sleep 100000 & wait",
    securityContext={"privileged": True}, **seen_on_the_node("node", "Bidirectional"),
)  # fmt: skip
PODS["mounts"]["spec"] |= {"runtimeClassName": "runc", "terminationGracePeriodSeconds": 30}


@check("mountPropagation: HostToContainer")
def propagation(suite: Suite) -> None:
    assert suite.output("propagated") == "came\n"


# --- identity and confinement ---

pod(
    "user", f"{STATUS}; touch /ed/f; stat -c %u:%g /ed/f; echo opened > /dev/stdout",
    securityContext={"runAsUser": 1000, "runAsGroup": 2000},
    volumeMounts=[{"name": "ed", "mountPath": "/ed"}],
)["spec"] |= {
    "securityContext": {"fsGroup": 3000, "supplementalGroups": [4000]},
    "volumes": [{"name": "ed", "emptyDir": {}}],
}  # fmt: skip


@check("runAsUser, runAsGroup, fsGroup, supplementalGroups")
def user(suite: Suite) -> None:
    text = suite.output("user")
    assert line_of(text, "Uid").split() == ["1000"] * 4
    assert line_of(text, "Gid").split() == ["2000"] * 4
    assert {"3000", "4000"} <= {*line_of(text, "Groups").split()}
    assert number(text, "CapEff") == 0
    assert text.endswith("1000:3000\nopened\n")


pod("capabilities", STATUS)
PODS["capabilities"]["spec"]["containers"] += [
    shell(
        "changed", STATUS,
        securityContext={"capabilities": {"add": ["NET_ADMIN"], "drop": ["CHOWN"]}},
    ),
    shell("none", STATUS, securityContext={"capabilities": {"drop": ["ALL"]}}),
    shell(
        "kept", STATUS,
        securityContext={"allowPrivilegeEscalation": False},
    ),
]  # fmt: skip


@check("capabilities: default, add, drop, none; allowPrivilegeEscalation: false")
def capabilities(suite: Suite) -> None:
    changed = DEFAULT_CAPABILITIES & ~(1 << CHOWN) | 1 << NET_ADMIN
    for name, wanted, locked in (
        ("main", DEFAULT_CAPABILITIES, "0"), ("changed", changed, "0"), ("none", 0, "0"),
        ("kept", DEFAULT_CAPABILITIES, "1"),
    ):  # fmt: skip
        text = suite.output("capabilities", name)
        found = {number(text, each) for each in ("CapEff", "CapPrm", "CapBnd")}
        assert (found, line_of(text, "NoNewPrivs")) == ({wanted}, locked), name


pod(
    "filtered", f"{STATUS}; unshare -U true 2>&1; echo tried $?; sleep 100000 & wait",
    securityContext={"seccompProfile": {"type": "RuntimeDefault"}, "runAsUser": 1000},
)  # fmt: skip


@check("seccomp RuntimeDefault, also of exec")
def seccomp(suite: Suite) -> None:
    suite.ready("filtered")
    eventually("it has tried", lambda: suite.log("filtered").endswith("tried 1\n"))
    text = suite.log("filtered")
    assert line_of(text, "Seccomp") == "2"
    assert "Operation not permitted" in text
    assert line_of(suite.exec("filtered", *STATUS.split()), "Seccomp") == "2"


PROFILE = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}],
}
pod(
    "profiled", "mkdir /tmp/x", securityContext={
        "seccompProfile": {"type": "Localhost", "localhostProfile": "runtimes.json"}
    },
)["spec"] |= {
    "volumes": [
        {
            "name": "profiles",
            "hostPath": {"path": "/var/lib/kubelet/seccomp", "type": "DirectoryOrCreate"},
        }
    ],
    "initContainers": [
        shell(
            "init", f"echo '{json.dumps(PROFILE)}' > /profiles/runtimes.json",
            volumeMounts=[{"name": "profiles", "mountPath": "/profiles"}],
        )
    ],
}  # fmt: skip


@check("seccomp Localhost")
def localhost(suite: Suite) -> None:
    assert "Operation not supported" in suite.output("profiled", code=1)


pod(
    "confined",
    "exec 2>&1; echo first $$$$; for f in /proc/keys /proc/timer_list /proc/latency_stats; do wc -c < $f; done"
    " 2> /dev/null; ls /proc/acpi /proc/scsi /sys/firmware 2> /dev/null | grep -v :;"
    " echo x > /proc/sys/kernel/domainname; touch /sys/x; cat /proc/mounts; ls -l /dev",
)


@check("masked and read-only paths, the container's program is process 1")
def confined(suite: Suite) -> None:
    text = suite.output("confined")
    first, *rest = text.splitlines()
    assert first == "first 1"
    assert {line for line in rest if line.isdigit()} <= {"0"}
    assert text.count("Read-only file system") == 2
    mounts = {line.split()[1]: line.split()[3] for line in rest if len(line.split()) == 6}
    assert {"nosuid", "nodev", "noexec"} <= {*mounts["/proc"].split(",")}
    for path in ("/proc/sys", "/proc/fs", "/sys"):
        assert "ro" in mounts[path].split(","), path
    devices = {line.split()[-1] for line in rest if line.startswith("crw")}
    assert devices == {"full", "null", "random", "tty", "urandom", "zero"}


pod(
    "privileged", f"{STATUS}; mount -t tmpfs tmpfs /mnt && echo mounted; ls /dev | wc -l",
    securityContext={"privileged": True},
)  # fmt: skip


@check("privileged")
def privileged(suite: Suite) -> None:
    text = suite.output("privileged")
    assert number(text, "CapEff") & ~DEFAULT_CAPABILITIES
    assert "\nmounted\n" in text
    assert int(text.split()[-1]) > 20


# --- surroundings ---

pod("on-node", "hostname; cat /proc/1/comm; ls /sys/class/net")["spec"] |= {
    "hostNetwork": True, "hostPID": True,
}  # fmt: skip


@check("hostNetwork, hostPID")
def on_node(suite: Suite) -> None:
    hostname, first, *links = suite.output("on-node").split()
    assert hostname == suite.get("on-node")["spec"]["nodeName"]
    assert first != "sh"
    assert len(links) > 2


pod(
    "in-pod",
    "hostname; ls /sys/class/net; cat /etc/resolv.conf; cat /proc/sys/kernel/shm_rmid_forced",
)["spec"] |= {
    "dnsPolicy": "None",
    "dnsConfig": {"nameservers": ["192.0.2.53"], "searches": ["runtime.test"]},
    "securityContext": {"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}]},
}


@check("the pod's network, dnsPolicy, sysctls")
def in_pod(suite: Suite) -> None:
    text = suite.output("in-pod")
    assert text.startswith("in-pod\neth0\nlo\n")
    assert "nameserver 192.0.2.53" in text
    assert "search runtime.test" in text
    assert text.endswith("\n1\n")


VALUES = {
    "DOTTED.NAME-1": "x", "LINES": "one\ntwo\n", "QUOTES": "\"a\" 'b' `c` \\ = ", "EMPTY": "",
    "UNICODE": "grün 日本",
}  # fmt: skip
pod(
    "environment",
    "",
    command=["python3", "-c", "import os, json; print(json.dumps(dict(os.environ)))"],
    env=[{"name": name, "value": value} for name, value in VALUES.items()],
)


@check("environment: names with dots, values with newlines, nothing of the runtime's")
def environment(suite: Suite) -> None:
    found = json.loads(suite.output("environment"))
    assert {name: found.get(name) for name in VALUES} == VALUES
    assert found["HOME"] == "/root"
    assert found["HOSTNAME"] == "environment"
    assert not [name for name in found if re.match("APPTAINER|SINGULARITY|ENGINE", name)]
    assert {"PS1", "PROMPT_COMMAND", "LANG", "PWD"}.isdisjoint(found)


@check("the kubelet's summary of what pods use")
def summary(suite: Suite) -> None:
    suite.ready("stays")
    node = suite.get("stays")["spec"]["nodeName"]

    def used() -> int:
        path = f"/api/v1/nodes/{node}/proxy/stats/summary"
        stats = json.loads(suite.cluster.kubectl("get", "--raw", path))
        for each in stats["pods"]:
            if each["podRef"] == {**each["podRef"], "name": "stays", "namespace": suite.namespace}:
                return int(each.get("memory", {}).get("workingSetBytes", 0))
        return 0

    eventually("the pod's memory is measured", lambda: used() > 0)


# --- what a class refuses ---

pod("bidirectional", "true", **seen_on_the_node("node", "Bidirectional"))
PODS["bidirectional"]["spec"]["containers"][0]["securityContext"] = {"privileged": True}
# runc itself needs nearly as much on cgroup v2, until the program begins.
pod("small", "true", resources={"limits": {"memory": "15Mi"}})
NODE_FOLDER = {"path": "/var/lib/runtimes-test", "type": "DirectoryOrCreate"}
for name in ("propagated", "mounts", "bidirectional"):
    PODS[name]["spec"]["volumes"] = [{"name": "node", "hostPath": NODE_FOLDER}]
REFUSED = {
    "bidirectional": "mountPropagation: Bidirectional of /seen",
    "small": "resources.limits.memory of 15728640 bytes",
}


@check("mountPropagation: Bidirectional")
def bidirectional(suite: Suite) -> None:
    suite.output("bidirectional")


@check("a memory limit of 15 MiB")
def small(suite: Suite) -> None:
    suite.output("small")


# Checks that a class does not pass: the pod whose event says so.
MISSING = {
    "apptainer": {
        "mountPropagation: Bidirectional": "bidirectional",
        "a memory limit of 15 MiB": "small",
    }
}


OBJECTS: list[Json] = [
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "files"},
     "data": {"key": "of the map\n"}},
    {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "files"},
     "stringData": {"key": "of the secret\n"}},
    {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "files"},
     "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}},
]  # fmt: skip


def _give_time(container: Json) -> None:
    """Let its probes take, and wait, as long as they must on this machine."""
    for probe in (container[name] for name in PROBES if name in container):
        probe.setdefault("timeoutSeconds", 1)
        for name in ("initialDelaySeconds", "periodSeconds", "timeoutSeconds"):
            if name in probe:
                probe[name] = round(patient(probe[name]))


def objects(suite: Suite, image: str) -> list[Json]:
    """All of a class, with its pods."""
    # A worker, or the only node.
    node = suite.cluster.get("nodes")["items"][-1]["metadata"]["name"]
    found = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": suite.namespace}}]
    for each in [*OBJECTS, *PODS.values()]:
        made = json.loads(json.dumps(each))
        made["metadata"]["namespace"] = suite.namespace
        if made["kind"] == "Pod":
            made["spec"].setdefault("runtimeClassName", suite.runtime)
            spec = made["spec"]
            if {"name": "node", "hostPath": NODE_FOLDER} in spec.get("volumes", []):
                # By way of the scheduler, which makes pods wait where a node takes no more of them.
                spec["nodeSelector"] = {"kubernetes.io/hostname": node}
            for container in [*spec["containers"], *spec.get("initContainers", [])]:
                container["image"] = image
                _give_time(container)
        found.append(made)
    return found


@pytest.fixture(scope="module")
def results() -> Iterator[dict[str, dict[str, str]]]:
    """What each class made of each check; written at the end where that was asked for."""
    found: dict[str, dict[str, str]] = {title: {} for title in CHECKS}
    yield found
    if TABLE:
        lines = [f"| | {' | '.join(RUNTIMES)} |", f"|{'-|' * (len(RUNTIMES) + 1)}"]
        for title, by in found.items():
            lines.append(f"| {title} | {' | '.join(by.get(each, '') for each in RUNTIMES)} |")
        Path(TABLE).write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module", params=TESTED)
def suite(cluster: TestCluster, request: pytest.FixtureRequest) -> Iterator[Suite]:
    made = Suite(cluster, request.param)
    _remove(made)
    cluster.apply(*objects(made, cluster.image))
    yield made
    _remove(made)


def _remove(suite: Suite) -> None:
    namespace = ("delete", "namespace", suite.namespace, "--ignore-not-found", "--wait=true")
    suite.cluster.kubectl(*namespace, timeout=180)
    for inside in _inside_nodes(suite.cluster):
        # PROFILE, which the kubelet does not make; other tests look at what is on nodes.
        suite.cluster.sykube(*inside, "rm", "-rf", "/var/lib/kubelet/seccomp")


def _inside_nodes(cluster: TestCluster) -> list[tuple[str, ...]]:
    """What runs a command in each node."""
    names = [each["metadata"]["name"] for each in cluster.get("nodes")["items"]]
    return [
        ("exec", "--name", cluster.name, name.removeprefix(f"{cluster.name}-")) for name in names
    ]


def test_a_cluster_has_a_class_for_each_runtime(cluster: TestCluster) -> None:
    classes = {each["metadata"]["name"]: each for each in cluster.get("runtimeclasses")["items"]}
    assert {name: each["handler"] for name, each in classes.items()} == dict(
        zip(RUNTIMES, RUNTIMES, strict=True)
    )
    assert [name for name, each in classes.items() if "overhead" in each] == ["apptainer"]


def test_the_command_says_what_the_nodes_have(cluster: TestCluster) -> None:
    said = cluster.sykube("runtimes", "--name", cluster.name, "--output", "json").stdout
    found = {each["name"]: each for each in json.loads(said)}
    assert [*found] == [*RUNTIMES]
    assert [name for name, each in found.items() if each["default"]] == ["runc"]
    for name, each in found.items():
        # Debian's has a revision after it, which the program does not know.
        version = re.split(r"[-+~]", each["version"])[0]
        for inside in _inside_nodes(cluster):
            assert version in cluster.sykube(*inside, name, "--version").stdout, (name, each)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}Z", each["since"]), each
        assert each["lacking"] == "", each


@pytest.mark.parametrize("title", CHECKS)
def test_what_a_pod_may_expect(
    suite: Suite, results: dict[str, dict[str, str]], title: str
) -> None:
    refused = MISSING.get(suite.runtime, {}).get(title)
    if refused:
        wanted = f"RuntimeClass apptainer cannot do {REFUSED[refused]}"
        eventually(f"an event says: {wanted}", lambda: wanted in suite.events(refused))
        results[title][suite.runtime] = "refused"
        return
    results[title][suite.runtime] = "**no**"
    CHECKS[title](suite)
    results[title][suite.runtime] = "yes"


def test_nothing_of_a_pod_is_left(suite: Suite) -> None:
    """After all of its class: no process of Apptainer's, mount or file."""
    _remove(suite)
    look = (
        "ls /run/sykube/apptainer 2> /dev/null; cat /proc/[0-9]*/comm | grep -x starter;"
        " grep -c /rootfs/rootfs /proc/mounts; true"
    )
    for inside in _inside_nodes(suite.cluster):
        eventually(
            f"nothing of Apptainer is left on {inside[-1]}",
            lambda inside=inside: suite.cluster.sykube(*inside, "sh", "-c", look).stdout == "0\n",  # type: ignore[misc]
        )


# --- what a cluster lacks: a node image without Apptainer, as of an older sykube ---


def test_a_pod_of_a_class_that_is_not_there_is_refused_by_its_name(cluster: TestCluster) -> None:
    """And runs once the class is there, as after an update."""
    kept = cluster.get("runtimeclass", "apptainer")
    for field_ in ("creationTimestamp", "resourceVersion", "uid", "managedFields", "selfLink"):
        kept["metadata"].pop(field_, None)
    labels = {"app": "later"}
    spec = {"runtimeClassName": "apptainer", "terminationGracePeriodSeconds": 1}
    container = {"image": cluster.image, **shell("main", "sleep 100000 & wait")}
    later = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "later"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": spec | {"containers": [container]},
            },
        },
    }

    def why() -> str:
        return cluster.kubectl("get", "events", "-o", "jsonpath={.items[*].message}")

    cluster.kubectl("delete", "runtimeclass", "apptainer")
    try:
        cluster.apply(later)
        eventually(
            "an event names the class",
            lambda: 'pod rejected: RuntimeClass "apptainer" not found' in why(),
        )
        said = json.loads(
            cluster.sykube("runtimes", "--name", cluster.name, "--output", "json").stdout
        )
        assert "its RuntimeClass was deleted" in said[-1]["lacking"]
    finally:
        cluster.apply(kept)
    cluster.kubectl("rollout", "status", "deployment/later", f"--timeout={patient(90):.0f}s")
    cluster.kubectl("delete", "deployment", "later", "--wait=true")


def test_a_pod_whose_runtime_its_node_lacks_is_pending_and_says_why(cluster: TestCluster) -> None:
    cluster.apply(
        {
            "apiVersion": "node.k8s.io/v1",
            "kind": "RuntimeClass",
            "metadata": {"name": "lacking"},
            "handler": "lacking",
        }
    )
    try:
        made = json.loads(json.dumps(PODS["stays"]))
        made["metadata"]["name"] = "lacking"
        made["spec"]["runtimeClassName"] = "lacking"
        made["spec"]["containers"][0]["image"] = cluster.image
        cluster.apply(made)
        named = ("--field-selector", "involvedObject.name=lacking")
        eventually(
            "an event names the runtime",
            lambda: (
                'no runtime for "lacking" is configured'
                in cluster.kubectl("get", "events", *named, "-o", "jsonpath={.items[*].message}")
            ),
        )
        assert cluster.get("pod", "lacking")["status"]["phase"] == "Pending"
    finally:
        cluster.kubectl("delete", "pod", "lacking", "--ignore-not-found", "--wait=true")
        cluster.kubectl("delete", "runtimeclass", "lacking")
