"""The pod network of a cluster: what gives pods their addresses and leads packets between nodes.

There is a class for each kind of --pod-network. Whatever the kind, sykube gives each node a subnet
for its pods (`spec.podCIDR`) out of the cluster's, as kube-controller-manager's allocator would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sykube import resources
from sykube.errors import SykubeError, UsageError
from sykube.host.files import write_atomically

if TYPE_CHECKING:
    from sykube.node.node import Node

BRIDGE, NONE = "bridge", "none"
NO_PLUGIN = "no CNI plugin is installed (--pod-network none): nodes are NotReady, pods Pending"
INSTALL = "Install one with `sykube kubectl apply`: docs/pod-network.md"


class PodNetwork:
    """A kind of pod network; unless it says otherwise, a CNI plugin that looks after itself.

    Attributes:
        fetch_s: seconds that nodes may take to fetch its images.
        built_in: whether it is sykube's own, with add-ons that are a part of it.
    """

    fetch_s: ClassVar[float] = 0.0
    built_in: ClassVar[bool] = False

    def node_files(self, node: Node, nodes: Sequence[Node]) -> dict[str, str]:
        """What a node finds about it in /etc/sykube: its CNI configuration, and its routes."""
        return {"routes": "", "pod-network.conflist": ""}

    def is_awaited(self, found: Mapping[str, Any], nodes: Sequence[Node]) -> bool:
        """Whether these nodes wait for a CNI plugin that only the user can install.

        Args:
            found: as readiness.registered gives it.
            nodes: all of the cluster.
        """
        return False


class BridgePlugin(PodNetwork):
    """sykube's own: a bridge in each node, and routes between them."""

    built_in: ClassVar[bool] = True

    def node_files(self, node: Node, nodes: Sequence[Node]) -> dict[str, str]:
        others = [other for other in nodes if other.instance != node.instance]
        return {
            "routes": "\n".join(f"{other.pod_subnet} via {other.address}" for other in others),
            "pod-network.conflist": resources.render(
                "cni", "pod-network.conflist.j2", pod_subnet=node.pod_subnet
            ),
        }


class NoPlugin(PodNetwork):
    """None: the user installs a CNI plugin when the cluster is up."""

    def is_awaited(self, found: Mapping[str, Any], nodes: Sequence[Node]) -> bool:
        # Not above, as in `Manifest.read`.
        from sykube.kubernetes import readiness

        # One that has a network got it from the plugin, which the others will get, too.
        names = [node.instance for node in nodes]
        return all(name in found and readiness.lacks_network(found[name]) for name in names)


@dataclass(frozen=True)
class Manifest(PodNetwork):
    """A manifest of the user's, which init applies."""

    fetch_s: ClassVar[float] = 600.0
    file: Path

    def read(self) -> str:
        """Its text.

        Raises:
            UsageError: the file cannot be read, or holds no Kubernetes objects.
        """
        # Not above: every command knows the kinds, and these take a while to import.
        import yaml

        from sykube import documents, redaction

        try:
            text = self.file.read_text(encoding="utf-8")
            found = [each for each in documents.load_all(text) if each is not None]
        except OSError as error:
            raise self._refused(f"cannot be read: {error.strerror}") from error
        except (yaml.YAMLError, ValueError) as error:
            # It may quote a Secret.
            raise self._refused("is not valid YAML", details=redaction.text(str(error))) from error
        if not found or not all(_is_object(each) for each in found):
            raise self._refused("is not a manifest: each document needs an apiVersion and a kind")
        return text

    def keep(self, kept: Path) -> None:
        """Keep its text for init, which may be resumed when the file is gone.

        Raises:
            UsageError: as `read`.
        """
        if self.file.exists() or not kept.exists():
            # It may hold Secrets.
            write_atomically(kept, self.read(), mode=0o600)

    def _refused(self, why: str, *, details: str = "") -> UsageError:
        return UsageError(
            f"the manifest of the pod network, {self.file}, {why}",
            details=details,
            resolution="Give another file with --pod-network, or correct this one.",
        )


def from_setting(value: str) -> PodNetwork:
    """The kind that --pod-network names: bridge, none, or the path of a manifest."""
    kinds: dict[str, PodNetwork] = {BRIDGE: BridgePlugin(), NONE: NoPlugin()}
    return kinds.get(value) or Manifest(Path(value))


def absolute(value: str) -> str:
    """What was given to --pod-network, a file by its absolute path."""
    return value if value in ("", BRIDGE, NONE) else str(Path(value).absolute())


def problem(value: str) -> str:
    """What is wrong with a value of podNetwork, or nothing."""
    if value in (BRIDGE, NONE) or value.startswith("/"):
        return ""
    return f"the pod network {value!r} is neither bridge, none nor an absolute path of a manifest"


def node_spec(node: Node) -> dict[str, Any]:
    """What Kubernetes knows of the node's pod subnet, as a part of a Node object."""
    return {"podCIDR": node.pod_subnet, "podCIDRs": [node.pod_subnet]}


def check_pod_subnets(found: Mapping[str, Any], nodes: Sequence[Node]) -> None:
    """The pod subnet that Kubernetes shows for a node is the one that its CNI hands out.

    Args:
        found: as readiness.registered gives it.

    Raises:
        SykubeError: it is not, so that routes and policies would be wrong.
    """
    for node in nodes:
        shown = found[node.instance]["spec"].get("podCIDR", "")
        if shown != node.pod_subnet:
            raise SykubeError(
                f"the node {node.instance} has the pod subnet {shown}, not {node.pod_subnet}",
                resolution="Delete the cluster and make it again; please report this.",
            )


def _is_object(document: Any) -> bool:
    return isinstance(document, dict) and {"apiVersion", "kind"} <= {*document}
