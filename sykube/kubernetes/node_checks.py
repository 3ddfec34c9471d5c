"""What kubeadm's preflight would check in a node.

Debian has no crictl, without which kubeadm 1.20 stops in its preflight phase,
so that phase is skipped and these take its place. Source: kubeadm's
app/preflight/checks.go (InitNodeChecks, addCommonChecks) of Kubernetes 1.20.
"""

from __future__ import annotations

from sykube import resources
from sykube.errors import SykubeError
from sykube.node.node import Node


def run_checks(node: Node) -> None:
    """Check a node before kubeadm runs in it.

    Raises:
        SykubeError: with each thing that is missing.
    """
    found = node.run(resources.script("check-node", node.instance)).stdout.strip()
    if found:
        raise SykubeError(
            f"the node {node.name} is not fit for Kubernetes",
            details=found,
            resolution="`sykube doctor` says what this host lacks.",
        )
