"""Hands the cluster's kubeconfig to the user."""

from __future__ import annotations

import contextlib
from pathlib import Path

from sykube.cluster.cluster import Cluster
from sykube.errors import SykubeError
from sykube.kubernetes import kubeconfig
from sykube.kubernetes.kubeconfig import Owner


class Handout:
    name = "kubeconfig"
    title = "Adding the context to your kubeconfig"

    def is_done(self, cluster: Cluster) -> bool:
        return bool(cluster.state.kubeconfig) and Path(cluster.state.kubeconfig).exists()

    def apply(self, cluster: Cluster) -> None:
        host, owner = cluster.host, Owner.of_caller()
        path = kubeconfig.check(host, owner, cluster.name)
        current = kubeconfig.default_file(owner)
        cluster.state.kubeconfig = str(path)
        cluster.save()
        config = cluster.paths.kubeconfig.read_text(encoding="utf-8")
        previous = kubeconfig.merge(host, path, config, cluster.name, owner, switch=path == current)
        if path != current:
            previous = kubeconfig.switch(host, current, cluster.name, owner)
        cluster.state.previous_context = previous or cluster.state.previous_context
        cluster.save()

    def undo(self, cluster: Cluster) -> None:
        host, owner = cluster.host, Owner.of_caller()
        name, previous = cluster.name, cluster.state.previous_context
        path = Path(cluster.state.kubeconfig or kubeconfig.user_kubeconfig(owner, name))
        kubeconfig.remove(host, path, name, previous, owner)
        # The user's other files, if there are any, are not in the way of removing the cluster.
        with contextlib.suppress(SykubeError):
            current = kubeconfig.default_file(owner)
            if current.exists() and not kubeconfig.has_context(owner, name):
                kubeconfig.switch(host, current, previous, owner, only_from=name)
