"""How far an update of a cluster has come, as its record keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sykube.image.choice import Choice
from sykube.image.node_image import NodeImage


@dataclass(frozen=True)
class Origin:
    """A node image as a cluster's record names it.

    Attributes:
        versions: of the programs in it.
        choice: which Kubernetes it is of, and why; None where that was not recorded.
    """

    fingerprint: str
    folder: str
    versions: dict[str, str]
    choice: Choice | None

    @property
    def image(self) -> NodeImage:
        return NodeImage(self.fingerprint, Path(self.folder))

    @property
    def kubernetes(self) -> str:
        """Its version, with the v."""
        return self.versions["kubernetes"]


@dataclass
class Progress:
    """An update that is under way.

    Attributes:
        before: what the nodes were started from.
        after: what they are to be started from.
        begun: whether anything of a control plane was changed.
        upgraded: names of the nodes that kubeadm has brought up to date.
        renewed: names of those that start from `after`.
        finished: names of those that are back on it, and well.
        committed: whether all control planes are: from then on there is no way back.
        undoing: whether they are being put back to what they were.
        allow_cgroup_v1: whether it was asked for with the update; the cluster keeps it then.
    """

    before: Origin
    after: Origin
    begun: bool = False
    upgraded: list[str] = field(default_factory=list)
    renewed: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    committed: bool = False
    undoing: bool = False
    allow_cgroup_v1: bool = False

    def of_node(self, name: str) -> Origin:
        """What a node starts from now."""
        return self.after if name in self.renewed else self.before
