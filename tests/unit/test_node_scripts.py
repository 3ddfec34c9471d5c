"""Scripts that run in nodes and node images, here with their folders in one of the test's."""

from __future__ import annotations

import contextlib
import json
import os
import re
import runpy
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import yaml

from sykube.image.versions import minor
from sykube.kubernetes import kubelet
from tests.unit import schema

DEFINITIONS = Path(__file__).resolve().parents[2] / "definitions"
# What is mapped into a user namespace, of a user with one ID and with many.
FEW, MANY = "0 1000 1\n", "0 1000 1\n1 100000 65536\n"
PROGRAM = '#!/bin/sh\nfor word; do echo "$word"; done\n'


class Machine:
    """Folders of a node; the programs that its scripts call only say how."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.processes: list[subprocess.Popen[bytes]] = []
        (root / "bin").mkdir()

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def program(self, name: str, text: str = PROGRAM) -> None:
        self.write(f"bin/{name}", text)
        (self.root / "bin" / name).chmod(0o755)

    def start(
        self, name: str, *arguments: str, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        (file,) = DEFINITIONS.glob(f"*/{name}")
        folders = (
            "/etc/sykube",
            "/etc/kubernetes",
            "/run/sykube",
            "/run/containerd",
            "/var",
            "/mnt",
            "/proc/self",
            "/sys/fs/cgroup",
            "/usr/lib/sykube",
            "/usr/bin/containerd",
        )
        places = "|".join(map(re.escape, (*folders, "/usr/share/sykube")))
        # Not where it is a part of another path.
        script = re.sub(rf"(?<![\w/])({places})(?=[/\s\"]|$)", rf"{self.root}\1", file.read_text())
        return subprocess.run(
            ["sh", "-c", script, name, *arguments],
            env={"PATH": f"{self.root}/bin:/usr/sbin:/usr/bin:/bin"},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def run(self, name: str, *arguments: str, stdin: str = "") -> list[str]:
        """The lines that a script writes; it succeeds."""
        done = self.start(name, *arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    found = Machine(tmp_path)
    found.write("run/sykube/.there", "")
    found.write("proc/self/uid_map", MANY)
    return found


# --- kubelet-start ---

CONFIG = (
    "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nfailSwapOn: false\n"
)
ALL_MEMORY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def start_kubelet(machine: Machine, drop_in: str, **limits: int | str) -> tuple[list[str], Any]:
    """The kubelet's arguments, and the configuration that sykube gives it."""
    values = {"SYKUBE_MILLICORES": 0, "SYKUBE_MEMORY": 0} | limits
    machine.write("etc/sykube/node.env", "".join(f"{k}={v}\n" for k, v in values.items()))
    machine.write("etc/sykube/kubelet.conf", drop_in)
    machine.write("var/lib/kubelet/config.yaml", CONFIG)
    machine.write(
        "var/lib/kubelet/kubeadm-flags.env", 'KUBELET_KUBEADM_ARGS="--node-ip=10.0.0.2"\n'
    )
    machine.program("kubelet")
    arguments = machine.run("kubelet-start")
    options = dict(word.removeprefix("--").split("=", 1) for word in arguments)
    if "config-dir" in options:
        (file,) = Path(options["config-dir"]).iterdir()
        assert file.suffix == ".conf", "the kubelet reads no others"
    else:
        file = Path(options["config"])
    return arguments, yaml.safe_load(file.read_text())


def test_a_kubelet_finds_what_it_serves_with(machine: Machine) -> None:
    start_kubelet(machine, "")
    key, certificate = (
        machine.root / f"var/lib/kubelet/pki/kubelet.{end}" for end in ("key", "crt")
    )
    assert (key.stat().st_mode & 0o777, certificate.stat().st_mode & 0o777) == (0o600, 0o644)
    shown = ["openssl", "x509", "-noout", "-ext", "subjectAltName", "-in", str(certificate)]
    names = subprocess.run(shown, check=True, capture_output=True, text=True).stdout
    assert names.split()[-1] == f"DNS:{socket.gethostname()}"
    made = certificate.read_bytes()
    start_kubelet(machine, "")
    assert certificate.read_bytes() == made


@pytest.mark.parametrize("version", ["1.20", "1.34", "1.36"])
def test_the_kubelet_keeps_what_its_node_may_not_use(machine: Machine, version: str) -> None:
    drop_in = kubelet.drop_in(minor(version), allow_cgroup_v1=True)
    cores = os.cpu_count() or 1
    limits = {"SYKUBE_MILLICORES": cores * 1000 - 500, "SYKUBE_MEMORY": 1 << 30}
    arguments, found = start_kubelet(machine, drop_in, **limits)
    # A flag for it is deprecated in all of them, and so the kubelet would say at every start.
    assert not any("reserved" in word for word in arguments)
    assert "--node-ip=10.0.0.2" in arguments
    assert found["systemReserved"]["cpu"] == "500m"
    reserved = found["systemReserved"]["memory"]
    assert isinstance(reserved, str)
    assert 0 < int(reserved) <= ALL_MEMORY
    assert schema.problems(found, version, minor(version).kubeadm_api) == []
    if version == "1.36":
        assert f"--config={machine.root}/var/lib/kubelet/config.yaml" in arguments
        assert found["failCgroupV1"] is False
    else:
        assert found["failSwapOn"] is False


@pytest.mark.parametrize("version", ["1.20", "1.36"])
@pytest.mark.parametrize("limits", [{}, {"SYKUBE_MILLICORES": 1 << 20, "SYKUBE_MEMORY": 1 << 50}])
def test_a_node_without_limits_keeps_nothing(
    machine: Machine, version: str, limits: dict[str, int]
) -> None:
    drop_in = kubelet.drop_in(minor(version), allow_cgroup_v1=False)
    _, found = start_kubelet(machine, drop_in, **limits)
    assert "systemReserved" not in found


@pytest.mark.parametrize("version", ["1.20", "1.36"])
def test_a_limit_that_is_gone_is_gone(machine: Machine, version: str) -> None:
    drop_in = kubelet.drop_in(minor(version), allow_cgroup_v1=False)
    _, found = start_kubelet(machine, drop_in, SYKUBE_MEMORY=1 << 30)
    assert list(found["systemReserved"]) == ["memory"]
    _, found = start_kubelet(machine, drop_in)
    assert "systemReserved" not in found


@pytest.mark.parametrize("version", ["1.20", "1.36"])
@pytest.mark.parametrize("group", ["", "sykube/lab-node1"])
def test_a_kubelet_without_cgroups_makes_none_for_pods(
    machine: Machine, version: str, group: str
) -> None:
    drop_in = kubelet.drop_in(minor(version), allow_cgroup_v1=False)
    arguments, _ = start_kubelet(machine, drop_in, SYKUBE_CGROUP=group)
    without = {"--cgroups-per-qos=false", "--enforce-node-allocatable="}
    assert without & {*arguments} == (set() if group else without)


def test_a_kubelet_gives_no_file_to_users_that_there_are_not(machine: Machine) -> None:
    machine.write("usr/lib/sykube/one-user", '#!/bin/sh\necho "--called=$1"; exec "$@"\n')
    (machine.root / "usr/lib/sykube/one-user").chmod(0o755)
    arguments, _ = start_kubelet(machine, "")
    assert "--called=kubelet" not in arguments
    machine.write("proc/self/uid_map", FEW)
    wrapped, _ = start_kubelet(machine, "")
    assert wrapped == ["--called=kubelet", *arguments]


def test_so_does_containerd_where_it_unpacks_images(machine: Machine) -> None:
    machine.write("usr/lib/sykube/one-user", PROGRAM)
    machine.write("usr/bin/containerd", PROGRAM)
    for name in ("lib/sykube/one-user", "bin/containerd"):
        (machine.root / "usr" / name).chmod(0o755)
    options = ["--config", f"{machine.root}/run/sykube/containerd.toml"]
    assert machine.run("containerd-start") == options
    machine.write("proc/self/uid_map", FEW)
    containerd = f"{machine.root}/usr/bin/containerd"
    assert machine.run("containerd-start") == [containerd, *options]


# --- one-user ---


@pytest.mark.parametrize(
    ("name", "gives", "others"),
    [("x86_64", (92, 93, 94, 260), (0, 90, 91, 95, 59)), ("aarch64", (54, 55), (52, 53, 56, 221))],
)
def test_calls_that_give_files_away_succeed_and_no_others(
    name: str, gives: tuple[int, ...], others: tuple[int, ...]
) -> None:
    program = runpy.run_path(str(DEFINITIONS / "node/one-user"))
    architecture, calls = program["CALLS"][name]
    text = program["filter_of"](architecture, calls)

    def verdict(machine: int, call: int) -> int:
        """What the kernel's machine for such filters comes to."""
        loaded = at = 0
        while True:
            code, yes, no, value = struct.unpack_from("HBBI", text, at * 8)
            at += 1
            match code:
                case 0x20:
                    loaded = {0: call, 4: machine}[value]
                case 0x15:
                    at += yes if loaded == value else no
                case 0x06:
                    return int(value)

    succeeds, allowed = 0x00050000, 0x7FFF0000
    assert {verdict(architecture, each) for each in gives} == {succeeds}
    assert {verdict(architecture, each) for each in others} == {allowed}
    assert {verdict(0x40000003, each) for each in gives} == {allowed}


# --- node-init: containerd's configuration ---


@pytest.mark.parametrize(
    "config", ["node/containerd.toml", "upstream/containerd-v3.toml", "upstream/containerd-v4.toml"]
)
@pytest.mark.parametrize(
    ("uid_map", "group", "wrapped"),
    [(MANY, "sykube/lab-node1", False), (MANY, "", True), (FEW, "sykube/lab-node1", True)],
    ids=["all", "no cgroups", "one user"],
)
def test_the_runtimes_are_wrapped_where_a_node_lacks_cgroups_or_users(
    machine: Machine, config: str, uid_map: str, group: str, wrapped: bool
) -> None:
    machine.write("proc/self/uid_map", uid_map)
    text = configure_containerd(machine, (DEFINITIONS / config).read_text(), SYKUBE_CGROUP=group)
    found = re.findall(r'BinaryName = "(.*)"', text)
    by_itself = ["/usr/lib/sykube/runc", "/usr/lib/sykube/crun"]
    rootless = ["/usr/lib/sykube/runc-rootless", "/usr/lib/sykube/crun-rootless"]
    # No RuntimeClass leads to the last ones there.
    last = ["/usr/lib/sykube/apptainer/runtime", "/usr/lib/sykube/default-runtime"]
    assert found == [*(rootless if wrapped else by_itself), *last]
    assert "restrict_oom_score_adj = true" in text


# --- node-init: the first rules ---


@pytest.mark.parametrize(
    ("rules", "nft", "boots"),
    [
        ("", "exit 1", True),
        ("table", "exit 0", True),
        # What a kernel has that takes other rules, and not these.
        ("table", '[ "$1" = list ]', False),
        ("table", "exit 1", True),
    ],
    ids=["none", "taken", "refused", "no nftables"],
)
def test_a_node_boots_with_its_first_rules_unless_its_kernel_can_have_none(
    machine: Machine, rules: str, nft: str, boots: bool
) -> None:
    whole = (DEFINITIONS / "node/node-init").read_text()
    part = re.search(r"^.*closed\.nft \] \|\| nft.*$", whole, re.MULTILINE)
    assert part
    machine.write("etc/sykube/closed.nft", rules)
    machine.program("nft", f"#!/bin/sh\n{nft}\n")
    script = part[0].replace("/etc/sykube/", f"{machine.root}/etc/sykube/")
    environment = {"PATH": f"{machine.root}/bin:/usr/bin:/bin"}
    done = subprocess.run(
        ["sh", "-euc", f"{script}\necho booted"], env=environment, stdout=subprocess.PIPE
    )
    assert (done.stdout == b"booted\n") is boots


# --- default-runtime ---

CONFIGS = ("node/containerd.toml", "upstream/containerd-v3.toml", "upstream/containerd-v4.toml")
IN_BUNDLE = '{"annotations":{"io.kubernetes.cri.sandbox-namespace":"%s"},"process":{"env":["%s"]}}'


@pytest.mark.parametrize("patched", [False, True], ids=["as it is", "with a patch of the user's"])
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize(
    ("asked", "others"),
    [
        ("", "/usr/lib/sykube/runc"),
        ("runc", "/usr/lib/sykube/runc"),
        ("crun", "/usr/lib/sykube/crun"),
        ("apptainer", "/usr/lib/sykube/apptainer/runtime"),
    ],
)
def test_containerd_calls_what_the_cluster_was_made_with(
    machine: Machine, config: str, asked: str, others: str, patched: bool
) -> None:
    given = (DEFINITIONS / config).read_text()
    if patched:
        # As containerd_config writes it.
        parsed = tomllib.loads(given.replace("@RESTRICT@", '"@RESTRICT@"'))
        given = tomli_w.dumps(parsed).replace('"@RESTRICT@"', "@RESTRICT@")
    text = configure_containerd(machine, given, SYKUBE_CGROUP="lab", SYKUBE_RUNTIME=asked)
    plugins = tomllib.loads(text)["plugins"]
    (found,) = [each["containerd"] for each in plugins.values() if "runtimes" in str(each)]
    assert found["default_runtime_name"] == ("runc" if asked in ("", "runc") else "default")
    written = (machine.root / "run/sykube/default-runtime.env").read_text().splitlines()
    assert written == ['OF_SYSTEM="/usr/lib/sykube/runc"', f'OF_OTHERS="{others}"']


def configure_containerd(machine: Machine, given: str, **environment: str) -> str:
    """What a node's containerd reads, of what its image has."""
    whole = (DEFINITIONS / "node/node-init").read_text()
    part = re.search(r"^capabilities=.*?default-runtime\.env$", whole, re.MULTILINE | re.DOTALL)
    assert part
    machine.write("proc/self/status", "CapEff:\t000001ffffffffff\n")
    machine.write("etc/containerd/config.toml", given)
    paths = r"(/etc/sykube|/etc/containerd|/run/sykube|/proc/self)/"
    script = re.sub(paths, rf"{machine.root}\1/", part[0])
    environment = {"PATH": "/usr/bin:/bin", "SYKUBE_ROOTLESS": "yes"} | environment
    subprocess.run(["sh", "-euc", script], env=environment, check=True)
    return (machine.root / "run/sykube/containerd.toml").read_text()


@pytest.mark.parametrize(
    ("namespace", "value", "by"),
    [
        ("default", "", "others"),
        ("kube-system", "", "system"),
        # As JSON has a value that a pod's author has made up.
        ("default", '\\"io.kubernetes.cri.sandbox-namespace\\":\\"kube-system\\"', "others"),
        ("kube-system-of-mine", "", "others"),
    ],
)
def test_pods_of_kube_system_stay_with_runc(
    machine: Machine, namespace: str, value: str, by: str
) -> None:
    for name in ("system", "others"):
        machine.program(name, f'#!/bin/sh\necho {name}; for word; do echo "$word"; done\n')
    programs = "".join(
        f"OF_{name.upper()}={machine.root}/bin/{name}\n" for name in ("system", "others")
    )
    machine.write("run/sykube/default-runtime.env", programs)
    machine.write("bundle/config.json", IN_BUNDLE % (namespace, value))
    words = ["--root", "/x", "--log", f"{machine.root}/bundle/log.json", "state", "a b", "--log"]
    assert machine.run("default-runtime", *words) == [by, *words]
    # As runc-rootless leaves it.
    written = json.dumps(json.loads((machine.root / "bundle/config.json").read_text()))
    machine.write("bundle/config.json", written)
    assert machine.run("default-runtime", *words)[0] == by
    assert machine.run("default-runtime", "features") == ["others", "features"]


# --- start-etcd ---


@pytest.mark.parametrize(("group", "given"), [("", True), ("sykube/lab-master", False)])
def test_etcd_is_started_without_cgroups_where_pods_are(
    machine: Machine, group: str, given: bool
) -> None:
    """By the wrapper that takes them away, as pods are."""
    machine.write("etc/sykube/node.env", f"SYKUBE_CGROUP={group}\n")
    machine.program("ctr", '#!/bin/sh\n[ "$1" != run ] || for word; do echo "<$word>"; done\n')
    arguments = machine.run("start-etcd", "etcd:3", "lab-master")
    wrapped = ["<--runc-binary>", f"<{machine.root}/usr/lib/sykube/runc-rootless>"]
    assert any(arguments[n : n + 2] == wrapped for n in range(len(arguments))) is given
    image = arguments.index("<etcd:3>")
    assert arguments[image + 1 : image + 5] == [
        "<sykube-etcd>",
        "<etcd>",
        "<--name>",
        "<lab-master>",
    ]


# --- node-network ---

# Rules are lines of a file.
IPTABLES = """#!/bin/sh
rules={rules}
[ "$1" = -w ] && shift
[ "$1" = -t ] && shift 2
case $1 in
    -C) shift; grep -qxF -e "-A $*" "$rules" ;;
    -A) echo "$*" >> "$rules" ;;
    *) exit 2 ;;
esac
"""


def node_network(machine: Machine, conflist: str) -> Path:
    """What node-network needs; the file that its rules are written to."""
    rules = machine.root / "rules"
    rules.touch()
    machine.program("iptables", IPTABLES.replace("{rules}", str(rules)))
    machine.program("ip", f"#!/bin/sh\necho ip $* >> {rules}.ip\n")
    machine.program("sysctl", "#!/bin/sh\n")
    values = {
        "SYKUBE_POD_SUBNET": "10.244.0.0/16",
        "SYKUBE_SERVICES": "10.96.0.0/12",
        "SYKUBE_ENDPOINT": "",
    }
    machine.write("etc/sykube/node.env", "".join(f"{k}={v}\n" for k, v in values.items()))
    machine.write("etc/sykube/routes", "10.244.1.0/24 via 10.11.11.3\n" if conflist else "")
    machine.write("etc/sykube/pod-network.conflist", conflist)
    return rules


def test_what_no_rule_of_a_service_takes_is_refused_and_not_sent_away(machine: Machine) -> None:
    rules = node_network(machine, "{}")
    for _ in range(2):
        machine.run("node-network")
        found = rules.read_text().splitlines()
        # Appended: those of kube-proxy are inserted, and come first whenever it writes them.
        assert found.count("-A FORWARD -d 10.96.0.0/12 -j REJECT") == 1
        assert len(found) == 2


@pytest.mark.parametrize("conflist", ["{}", ""], ids=["bridge", "a-plugin-of-the-users"])
def test_pods_are_masqueraded_and_routed_by_the_bridge_only(
    machine: Machine, conflist: str
) -> None:
    rules = node_network(machine, conflist)
    machine.run("node-network")
    masquerading = "-A POSTROUTING -s 10.244.0.0/16 ! -d 10.244.0.0/16 -j MASQUERADE"
    assert (masquerading in rules.read_text().splitlines()) is bool(conflist)
    # A plugin's own routes may be static ones, which would be taken for those of nodes that went.
    commands = (machine.root / "rules.ip").read_text()
    assert ("route show proto static" in commands) is bool(conflist)
    assert ("route replace 10.244.1.0/24 via 10.11.11.3" in commands) is bool(conflist)


def test_the_network_of_a_node_is_checked(machine: Machine) -> None:
    values = "SYKUBE_ENDPOINT=10.0.0.1\nSYKUBE_POD_SUBNET=10.244.0.0/16\n"
    machine.write("etc/sykube/node.env", values)
    machine.write("etc/sykube/routes", "10.244.1.0/24 via 10.0.0.3\n")
    machine.write("etc/sykube/pod-network.conflist", "{}")
    addresses = "2: eth0 inet 10.0.0.2/24 scope\n2: eth0 inet 10.0.0.1/32 scope"
    machine.program(
        "ip",
        f"""#!/bin/sh
case "$*" in
    "-4 -o address"*) echo '{addresses}' ;;
    "route show") echo 'default via 10.0.0.254 dev eth0' ;;
    "route show 10.244.1.0/24") echo '10.244.1.0/24 via 10.0.0.3' ;;
    *) exit 2 ;;
esac
""",
    )
    machine.program("iptables", "#!/bin/sh\n")
    forwards = Path("/proc/sys/net/ipv4/ip_forward").read_text(encoding="utf-8").strip() == "1"
    off = [] if forwards else ["forwarding is off (net.ipv4.ip_forward)"]
    assert machine.run("check-network", "10.0.0.2") == off
    machine.program("ip", "#!/bin/sh\n")
    machine.program("iptables", "#!/bin/sh\nexit 1\n")
    assert machine.run("check-network", "10.0.0.2") == [
        "eth0 has lost its address 10.0.0.2",
        "the default route is gone",
        *off,
        "the control plane's address 10.0.0.1 is gone",
        "the rule that masquerades pods is gone",
        "the route to the pods of 10.244.1.0/24 is gone",
    ]


# --- containerd ---

# Containers are folders, with a file for each label, and one for their first process.
CTR = """#!{python}
import pathlib, re, shutil, sys
root = pathlib.Path("{root}")
def matches(container, condition):
    name, operator, value = re.match(r'labels\\."([^"]+)"(==|!=|~=)(.*)', condition).groups()
    label = (container / name).read_text() if (container / name).exists() else ""
    if operator == "~=":
        return re.search(value, label) is not None
    return (label == value) is (operator == "==")
match sys.argv[1:]:
    case ["containers", "list", "-q", *filters]:
        for each in sorted((root / "containers").iterdir()):
            conditions = [condition for each in filters for condition in each.split(",")]
            if all(matches(each, condition) for condition in conditions):
                print(each.name)
    case ["tasks", "list"]:
        print("TASK PID STATUS")
        for each in sorted((root / "containers").iterdir()):
            ended = (each / "ended").exists()
            print(each.name, (each / "pid").read_text(), "STOPPED" if ended else "RUNNING")
    case unknown:
        raise SystemExit(f"unknown: {{unknown}}")
"""
COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


PROCESS = """
trap 'echo "SIGTERM {name}" >> {root}/calls; {then}' TERM
echo ready
while :; do sleep 0.02; done
"""


def test_programs_of_the_control_plane_are_given_a_certificate(machine: Machine) -> None:
    machine.run("serving-certificate", str(machine.root / "etc/kubernetes/serving"))
    key, certificate = (machine.root / f"etc/kubernetes/serving/tls.{e}" for e in ("key", "crt"))
    assert key.stat().st_mode & 0o777 == 0o600
    made = certificate.read_bytes()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    machine.run("serving-certificate", str(machine.root / "etc/kubernetes/serving"))
    assert certificate.read_bytes() == made


@pytest.fixture
def containers(machine: Machine) -> Iterator[Machine]:
    """A control plane's containers and sandboxes, and those of two other pods."""
    machine.program("ctr", CTR.format(python=sys.executable, root=machine.root))
    machine.program("sync", f'#!/bin/sh\necho "sync $*" >> {machine.root}/calls\n')
    for name in (*COMPONENTS, "coredns", "web"):
        container(machine, name, "container")
        container(machine, f"{name}-sandbox", "sandbox")
    yield machine
    for process in machine.processes:
        process.kill()
        process.wait()


def container(
    machine: Machine, name: str, kind: str, then: str = "exit"
) -> subprocess.Popen[bytes]:
    """A container whose first process runs; `then` is what it does when it is asked to end."""
    folder = f"containers/{name}"
    machine.write(f"{folder}/io.cri-containerd.kind", kind)
    if kind == "container":
        machine.write(f"{folder}/io.kubernetes.container.name", name)
    script = PROCESS.format(name=name, root=machine.root, then=then)
    process = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline()
    machine.write(f"{folder}/pid", str(process.pid))
    machine.processes.append(process)
    return process


def ends(machine: Machine) -> list[str]:
    return (machine.root / "calls").read_text().splitlines()


def test_a_node_ends_pods_first_and_etcd_last(containers: Machine) -> None:
    containers.write("containers/web/ended", "")
    containers.run("stop-containers", "pods", "5")
    assert ends(containers) == ["SIGTERM coredns"]
    containers.write("var/lib/etcd/member/snap/db", "")
    containers.run("stop-containers", "rest", "5")
    sandboxes = [f"{name}-sandbox" for name in (*COMPONENTS, "coredns", "web")]
    *others, etcd, sync = ends(containers)[1:]
    assert sorted(others) == sorted(f"SIGTERM {name}" for name in (*COMPONENTS[1:], *sandboxes))
    assert etcd == "SIGTERM etcd"
    assert sync == f"sync -f {containers.root}/var/lib/etcd"


@pytest.mark.parametrize(
    ("found", "lacks"),
    [
        ({"namespaces/": "/registry/namespaces/default", "networkpolicies/": ""}, True),
        (
            {"namespaces/": "/registry/namespaces/default", "networkpolicies/": "/registry/n/x"},
            False,
        ),
        # Kept elsewhere in etcd, or etcd does not answer.
        ({"namespaces/": "", "networkpolicies/": ""}, False),
        ({"namespaces/": "/registry/namespaces/default"}, False),
    ],
    ids=["none", "some", "elsewhere", "no answer"],
)
def test_a_control_plane_says_that_it_ends_without_policies(
    containers: Machine, found: dict[str, str], lacks: bool
) -> None:
    """When it has no API server any more that would take one."""
    cases = "".join(f"*/registry/{key}) echo {value};;\n" for key, value in found.items())
    containers.program("etcdctl", f'#!/bin/sh\ncase "$*" in\n{cases}*) exit 1;; esac\n')
    containers.write("var/lib/etcd/member/snap/db", "")
    assert containers.run("stop-containers", "rest", "5") == ["without policies"] * lacks
    assert ends(containers)[-2] == "SIGTERM etcd"


def test_a_worker_has_no_etcd_to_write_to_the_disk(containers: Machine) -> None:
    containers.run("stop-containers", "rest", "5")
    assert not [each for each in ends(containers) if each.startswith("sync")]


def test_what_does_not_end_in_time_is_killed(containers: Machine) -> None:
    stubborn = container(containers, "coredns", "container", then=":")
    containers.run("stop-containers", "pods", "1")
    assert sorted(ends(containers)) == ["SIGTERM coredns", "SIGTERM web"]
    assert stubborn.wait(timeout=10) == -signal.SIGKILL


def test_under_apptainer_the_program_is_asked_to_end(containers: Machine) -> None:
    """Its starter would not hand that on where there is a terminal."""
    starter = containers.root / "bin/starter"
    shutil.copy("/bin/sh", starter)
    script = PROCESS.format(name="web", root=containers.root, then="exit")
    process = subprocess.Popen(
        [starter, "-c", 'sh -c "$1" & wait', "starter", script],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    containers.processes.append(process)
    assert process.stdout
    assert process.stdout.readline()
    containers.write("containers/web/pid", str(process.pid))
    try:
        containers.run("stop-containers", "pods", "5")
        assert sorted(ends(containers)) == ["SIGTERM coredns", "SIGTERM web"]
        assert process.wait(timeout=10) == 0
    finally:
        # With the program, where nobody has asked it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_a_control_plane_is_ended_without_the_other_pods(containers: Machine) -> None:
    container(containers, "etcd-backup", "container")
    containers.run("stop-containers", "control-plane", "5")
    assert sorted(ends(containers)) == sorted(f"SIGTERM {name}" for name in COMPONENTS)


def test_a_part_of_the_control_plane_that_stays_is_a_failure(containers: Machine) -> None:
    # No process that can be signalled; /proc has it for whoever looks.
    containers.write("containers/kube-scheduler/pid", "self")
    assert containers.start("stop-containers", "control-plane", "0").returncode == 1


STORE = "io.containerd.content.v1.content/blobs/sha256"
SNAPSHOTS = "io.containerd.snapshotter.v1.overlayfs/snapshots"


def seed(machine: Machine) -> None:
    """What containerd left in the node image."""
    folder = "usr/share/sykube/containerd"
    machine.write(f"{folder}/{STORE}/abc", "a part\n")
    machine.write(f"{folder}/{SNAPSHOTS}/1/fs/file", "unpacked")
    machine.write(f"{folder}/io.containerd.metadata.v1.bolt/meta.db", "names")


def test_containerd_starts_with_copies_of_databases_and_links_to_the_rest(machine: Machine) -> None:
    seed(machine)
    root = machine.root / "var/lib/containerd"
    machine.run("seed-containerd", str(root))
    database = root / "io.containerd.metadata.v1.bolt/meta.db"
    assert (database.read_text(), database.is_symlink()) == ("names", False)
    assert (root / STORE / "abc").is_symlink()
    assert (root / STORE / "abc").read_text() == "a part\n"
    assert [(each.name, each.is_symlink()) for each in (root / SNAPSHOTS).iterdir()] == [
        ("1", True)
    ]


def test_what_is_shared_with_the_node_image_is_read_and_detached(machine: Machine) -> None:
    seed(machine)
    root = machine.root / "var/lib/containerd"
    machine.run("seed-containerd", str(root))
    (root / STORE / "own").write_text('{\n"own": 1}\n')
    assert machine.run("read-content", "abc", "absent", "own") == [
        "abc", "a part", "own", '{"own": 1}',
    ]  # fmt: skip
    machine.run("detach-content", "abc", "absent", "own")
    shutil.rmtree(machine.root / "usr/share/sykube")
    assert not (root / STORE / "abc").is_symlink()
    assert (root / STORE / "abc").read_text() == "a part\n"


def test_images_are_exported_by_a_containerd_on_a_copy_of_the_store(machine: Machine) -> None:
    seed(machine)
    store = machine.root / "mnt/store"
    store.mkdir(parents=True)
    text = (DEFINITIONS / "node/seed-containerd").read_text()
    machine.write(
        "mnt/store/seed-containerd", text.replace("/usr/share", f"{machine.root}/usr/share")
    )
    machine.program("containerd", f"#!/bin/sh\ntouch {store}/socket\nexec sleep 60\n")
    machine.program(
        "ctr",
        f"""#!/bin/sh
[ -e {store}/socket ] || exit 1
case "$*" in
    *" version") ;;
    *" images export "*) echo "$*" ;;
    *) exit 2 ;;
esac
""",
    )
    (exported,) = machine.run("export-images", "one:1", "two:2")
    assert exported.endswith(f"images export {machine.root}/mnt/images.tar one:1 two:2")
    assert (store / "root" / STORE / "abc").is_symlink()
    machine.program("containerd", "#!/bin/sh\necho no room >&2\nexit 1\n")
    shutil.rmtree(store / "root")
    (store / "socket").unlink()
    failed = machine.start("export-images", "one:1")
    assert (failed.returncode, failed.stderr) == (1, "no room\n")


def test_only_layers_that_containerd_lacks_are_given_to_it(machine: Machine) -> None:
    content = machine.root / "var/lib/containerd" / STORE
    machine.write(f"var/lib/containerd/{STORE}/there", "as it was")
    for name in ("there", "new", "index.tar"):
        machine.write(f"load/{name}", name)
    calls = machine.root / "calls"
    machine.program(
        "ctr",
        f"""#!/bin/sh
echo "$*" >> {calls}
case "$*" in
    "images list --quiet name==sha256:id") [ "$(wc -l < {calls})" -lt 5 ] || echo sha256:id ;;
    "content ingest "*) cat > /dev/null ;;
esac
""",
    )
    machine.run("load-image", str(machine.root / "load"), "sha256:id", "shop:1")
    digest, size = "content ingest --expected-digest sha256:", "--expected-size"
    assert ends(machine) == [
        f"{digest}new {size} 3 sykube-new",
        f"{digest}there {size} 5 sykube-there",
        "images import index.tar",
        "images list --quiet name==sha256:id",
        "images label shop:1 io.cri-containerd.image=",
        "images list --quiet name==sha256:id",
    ]
    assert (content / "there").read_text() == "as it was"
    assert (content / "new").samefile(machine.root / "load/new")


def test_an_image_that_the_kubelet_never_hears_of_is_a_failure(machine: Machine) -> None:
    machine.write(f"var/lib/containerd/{STORE}/.there", "")
    machine.write("load/index.tar", "")
    for name in ("ctr", "sleep"):
        machine.program(name, "#!/bin/sh\n")
    failed = machine.start("load-image", str(machine.root / "load"), "sha256:id", "shop:1")
    assert failed.returncode == 1
    assert failed.stderr == "containerd does not tell the kubelet of the image sha256:id\n"


def test_kubeadm_hears_of_images_that_a_node_has(machine: Machine) -> None:
    machine.program("ctr", '#!/bin/sh\n[ "$6" != name==there:1 ] || echo there:1\n')
    assert machine.start("crictl", "-r", "socket", "inspecti", "there:1").returncode == 0
    assert machine.start("crictl", "inspecti", "absent:1").returncode == 1
    assert "only knows inspecti" in machine.start("crictl", "pull", "there:1").stderr


# --- etcd ---

ETCDCTL = """#!/bin/sh
echo "$(basename "$0") $*" >> {root}/calls
while [ "$1" != --data-dir ]; do shift; done
mkdir "$2" "$2/member"
echo restored > "$2/member/data"
"""


@pytest.mark.parametrize("program", ["etcdctl", "etcdutl"])
def test_a_members_data_is_replaced_by_the_program_that_can(machine: Machine, program: str) -> None:
    for name in {"etcdctl", program}:
        machine.program(name, ETCDCTL.format(root=machine.root))
    machine.write("var/lib/etcd/member/snap/db", "of before")
    machine.write("var/lib/etcd/new/half", "of one that was killed")
    file = f"{machine.root}/var/lib/etcd/member/snap/db"
    folder = str(machine.root / "var/lib/etcd")
    machine.run("restore-etcd", folder, file, "a", "a=p1,b=p2", "p1", "--skip-hash-check")
    assert ends(machine) == [
        f"{program} snapshot restore {file} --name a --initial-cluster a=p1,b=p2"
        f" --initial-advertise-peer-urls p1 --data-dir {folder}/new --skip-hash-check"
    ]
    files = [str(file.relative_to(folder)) for file in Path(folder).rglob("*")]
    assert sorted(files) == ["member", "member/data"]


# --- certificates ---


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl here")
def test_a_kubelet_gets_a_certificate_of_the_clusters_ca(machine: Machine) -> None:
    pki = machine.root / "etc/kubernetes/pki"
    pki.mkdir(parents=True)
    new = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=ca", "-days", "2")
    made = ("-keyout", f"{pki}/ca.key", "-out", f"{pki}/ca.crt")
    subprocess.run(["openssl", *new, *made], check=True, capture_output=True)
    machine.write("var/lib/kubelet/pki/kubelet.crt", "its own, of last year")
    request = "\n".join(machine.run("request-certificate", "lab-node1")) + "\n"
    assert "PRIVATE KEY" not in request
    signed = "\n".join(machine.run("sign-certificate", stdin=request)) + "\n"
    machine.run("install-certificate", stdin=signed)
    folder = machine.root / "var/lib/kubelet/pki"
    current = folder / "kubelet-client-current.pem"
    assert sorted(file.name for file in folder.iterdir()) == sorted(
        [current.name, current.readlink().name]
    )
    assert current.stat().st_mode & 0o777 == 0o600
    assert "PRIVATE KEY" in current.read_text()
    shown = subprocess.run(
        ["openssl", "x509", "-in", current, "-noout", "-subject", "-nameopt", "RFC2253",
         "-ext", "extendedKeyUsage"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert "subject=CN=system:node:lab-node1,O=system:nodes" in shown
    assert "TLS Web Client Authentication" in shown
    against = ["openssl", "verify", "-CAfile", f"{pki}/ca.crt", str(current)]
    subprocess.run(against, check=True, capture_output=True)


# --- check-node ---


@pytest.mark.parametrize(
    ("rootless", "handed_on", "missing"),
    [
        ("", "cpuset cpu io memory pids", set()),
        ("", "cpu memory pids", {"cpuset"}),
        # What Debian's systemd hands on to users.
        ("yes", "cpu memory pids", set()),
        ("yes", "memory pids", {"cpu"}),
    ],
)
def test_a_users_node_does_without_what_systemd_hands_on_to_no_user(
    machine: Machine, rootless: str, handed_on: str, missing: set[str]
) -> None:
    machine.write("sys/fs/cgroup/cgroup.controllers", "")
    machine.write("sys/fs/cgroup/cgroup.subtree_control", f"{handed_on}\n")
    machine.write("etc/sykube/node.env", f"SYKUBE_CGROUP=sykube/x\nSYKUBE_ROOTLESS={rootless}\n")
    # containerd is waited for once.
    machine.program("seq", "#!/bin/sh\necho 1\n")
    said = machine.run("check-node", "master")
    found = re.findall(r"the cgroup controller (\w+) is missing", "\n".join(said))
    assert {*found} == missing
