"""The cluster's context in the kubeconfig of the user."""

from __future__ import annotations

import contextlib
import os
import pwd
from pathlib import Path

from sykube.cluster.model.cluster import Cluster
from sykube.errors import SykubeError
from sykube.host.owner import Owner
from sykube.kubernetes import kubeconfig


def is_added(cluster: Cluster) -> bool:
    return bool(cluster.state.kubeconfig) and Path(cluster.state.kubeconfig).exists()


def add(cluster: Cluster) -> None:
    """Add the cluster's context, and make it the current one.

    Raises:
        SykubeError: a file of the user's cannot be used.
    """
    host, owner = cluster.host, Owner.of_caller()
    path = kubeconfig.require_writable(host, owner, cluster.name)
    current = kubeconfig.default_file(owner)
    cluster.state.kubeconfig = str(path)
    cluster.save()
    config = cluster.paths.kubeconfig.read_text(encoding="utf-8")
    previous = kubeconfig.merge(host, path, config, cluster.name, owner, switch=path == current)
    if path != current:
        previous = kubeconfig.switch(host, current, cluster.name, owner)
    cluster.state.previous_context = previous or cluster.state.previous_context
    cluster.save()


def rewrite(cluster: Cluster) -> None:
    """Renew the users' copies of the credentials; which context is the current one stays."""
    kubeconfig.renew_copies(cluster.host, cluster.paths.kubeconfig)
    if not is_added(cluster):
        return
    path = Path(cluster.state.kubeconfig)
    found = path.stat()
    # Whoever runs this command, the file stays its owner's.
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    owner = Owner(found.st_uid, found.st_gid, home)
    config = cluster.paths.kubeconfig.read_text(encoding="utf-8")
    kubeconfig.merge(cluster.host, path, config, cluster.name, owner, switch=False)


def remove(cluster: Cluster) -> None:
    """Remove the cluster's context, and give back the one that was current before."""
    host, owner = cluster.host, Owner.of_caller()
    name, previous = cluster.name, cluster.state.previous_context
    path = Path(cluster.state.kubeconfig or kubeconfig.user_kubeconfig(owner, name))
    kubeconfig.remove(host, path, name, previous, owner)
    # The user's other files, if there are any, are not in the way of removing the cluster.
    with contextlib.suppress(SykubeError):
        current = kubeconfig.default_file(owner)
        if current.exists() and not kubeconfig.has_context(owner, name):
            kubeconfig.switch(host, current, previous, owner, only_from=name)
