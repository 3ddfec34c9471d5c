"""Scripts of a node, run here with its folders in one of the test's."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from sykube.image.versions import minor
from sykube.kubernetes import kubelet
from tests.unit import schema

SCRIPTS = Path(__file__).resolve().parents[2] / "definitions/node"
PROGRAM = '#!/bin/sh\nfor word; do echo "$word"; done\n'


class Machine:
    """Folders of a node; the programs that its scripts call only say how."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "bin").mkdir()

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def program(self, name: str, text: str = PROGRAM) -> None:
        self.write(f"bin/{name}", text)
        (self.root / "bin" / name).chmod(0o755)

    def run(self, name: str) -> list[str]:
        """The lines that a script writes."""
        script = (SCRIPTS / name).read_text()
        for path in ("/etc/sykube", "/run/sykube", "/var/lib/kubelet"):
            script = script.replace(path, f"{self.root}{path}")
        done = subprocess.run(
            ["sh", "-c", script],
            env={"PATH": f"{self.root}/bin:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    found = Machine(tmp_path)
    found.write("run/sykube/.there", "")
    return found


# --- kubelet-start ---

CONFIG = (
    "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nfailSwapOn: false\n"
)
ALL_MEMORY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def start_kubelet(machine: Machine, drop_in: str, **limits: int) -> tuple[list[str], Any]:
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
