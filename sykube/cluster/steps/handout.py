"""Hands the cluster's kubeconfig to the user."""

from __future__ import annotations

from pathlib import Path

from sykube.cluster.cluster import Cluster
from sykube.kubernetes import kubeconfig
from sykube.kubernetes.kubeconfig import Owner


class Handout:
    name = "kubeconfig"
    title = "Adding the context to your kubeconfig"

    def is_done(self, cluster: Cluster) -> bool:
        return bool(cluster.state.kubeconfig) and Path(cluster.state.kubeconfig).exists()

    def apply(self, cluster: Cluster) -> None:
        owner = Owner.of_caller()
        path = kubeconfig.user_kubeconfig(owner)
        cluster.state.kubeconfig = str(path)
        cluster.save()
        config = cluster.paths.kubeconfig.read_text(encoding="utf-8")
        previous = kubeconfig.merge(path, config, cluster.name, owner)
        cluster.state.previous_context = previous or cluster.state.previous_context
        cluster.save()

    def undo(self, cluster: Cluster) -> None:
        owner = Owner.of_caller()
        path = Path(cluster.state.kubeconfig or kubeconfig.user_kubeconfig(owner))
        kubeconfig.remove(path, cluster.name, cluster.state.previous_context, owner)
