"""What kubeadm's preflight would check in a node.

Debian has no crictl, without which kubeadm 1.20 stops in its preflight phase,
so that phase is skipped and these take its place. Source: kubeadm's
app/preflight/checks.go (InitNodeChecks, addCommonChecks) of Kubernetes 1.20.
"""

from __future__ import annotations

from sykube.errors import SykubeError
from sykube.node.node import Node

_SCRIPT = r"""
missing() { echo "the cgroup controller $1 is missing"; }
for program in conntrack ip iptables mount nsenter ebtables ethtool socat tc touch \
    kubelet kubeadm runc; do
    command -v $program > /dev/null || echo "the program $program is missing"
done
for file in net/ipv4/ip_forward net/bridge/bridge-nf-call-iptables; do
    [ "$(cat /proc/sys/$file 2>/dev/null)" = 1 ] || echo "/proc/sys/$file is not 1"
done
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    for controller in cpu cpuset memory pids; do
        grep -qw $controller /sys/fs/cgroup/cgroup.subtree_control || missing $controller
    done
else
    for controller in cpu cpuacct cpuset memory pids devices freezer; do
        [ -e /sys/fs/cgroup/$controller/tasks ] || missing $controller
    done
fi
[ "$(hostname)" = "$1" ] || echo "the host name is $(hostname), not $1"
[ -s /etc/sykube/pod-network.conflist ] || [ -w /opt/cni/bin ] ||
    echo "its node image lacks /opt/cni/bin: it is of an earlier sykube, for the bridge only"
[ -w /var/lib/kubelet ] || echo "/var/lib/kubelet cannot be written"
for _ in $(seq 450); do
    [ -S /run/containerd/containerd.sock ] && exit
    sleep 0.1
done
echo "containerd does not answer: $(tail -n 3 /var/log/sykube/containerd.log)"
"""


def run_checks(node: Node) -> None:
    """Check a node before kubeadm runs in it.

    Raises:
        SykubeError: with each thing that is missing.
    """
    found = node.run(["sh", "-c", _SCRIPT, "sh", node.instance]).stdout.strip()
    if found:
        raise SykubeError(
            f"the node {node.name} is not fit for Kubernetes",
            details=found,
            resolution="`sykube doctor` says what this host lacks.",
        )
