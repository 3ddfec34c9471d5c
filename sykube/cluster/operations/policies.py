"""Whether the cluster's NetworkPolicies are enforced."""

from __future__ import annotations

from dataclasses import dataclass

from sykube.addons import network_policy
from sykube.addons.network_policy import NETWORK_POLICY
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.operations.addons import addon_context, lacking_package
from sykube.kubernetes.api import Api


@dataclass(frozen=True)
class Enforcement:
    """What is to be said of NetworkPolicies.

    Attributes:
        said: how many there are, and what they are worth; empty where the user's CNI plugin has
            them to itself, and where there are none that could be worth nothing.
        problem: what keeps the add-on from its work.
        parts: what of policies is not enforced, each with its policy's name.
    """

    said: str = ""
    problem: str = ""
    unenforced: bool = False
    parts: tuple[str, ...] = ()
    fix: str = ""


def enforcement(cluster: Cluster, api: Api) -> Enforcement:
    """Look at it now."""
    if not cluster.pod_network.built_in:
        return Enforcement()
    found = network_policy.policies(api)
    name, option = NETWORK_POLICY.name, cluster.name_option
    if name not in cluster.state.addons:
        which = "1 NetworkPolicy is" if len(found) == 1 else f"{len(found)} NetworkPolicies are"
        said = f"{which} accepted and not enforced: the add-on {name} is disabled" if found else ""
        fix = f"sykube addons enable{option} {name}"
        if lacking_package(cluster, NETWORK_POLICY):
            fix = "Create the cluster again: its node image is of an earlier sykube, without nft"
        return Enforcement(said, unenforced=bool(found), fix=fix)
    if problem := NETWORK_POLICY.problem(addon_context(cluster, api)):
        return Enforcement(
            f"not enforced on every node: {problem}",
            problem,
            fix=f"sykube kubectl{option} -n kube-system logs ds/{name} says why",
        )
    parts = tuple(network_policy.unenforced_parts(api, found))
    said = f"enforced, {len(found) or 'none'} so far"
    if parts:
        said = f"{len(found)} enforced, but let nothing through here: {'; '.join(parts)}"
    return Enforcement(said, parts=parts, fix="Correct these policies: sykube kubectl edit")
