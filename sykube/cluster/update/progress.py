"""How far an update of a cluster has come, as its record keeps it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

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

    @classmethod
    def of(cls, stored: dict[str, Any]) -> Origin:
        """What `asdict` gave.

        Raises:
            KeyError: something of it is missing.
        """
        choice = stored["choice"]
        return cls(
            stored["fingerprint"],
            stored["folder"],
            stored["versions"],
            Choice.of(choice) if choice else None,
        )


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

    def to_dict(self) -> dict[str, Any]:
        """As it is stored."""
        return asdict(self)

    @classmethod
    def of(cls, stored: dict[str, Any]) -> Progress:
        """What `to_dict` gave.

        Raises:
            KeyError: something of it is missing.
        """
        return cls(
            Origin.of(stored["before"]),
            Origin.of(stored["after"]),
            bool(stored["begun"]),
            list(stored["upgraded"]),
            list(stored["renewed"]),
            list(stored["finished"]),
            bool(stored["committed"]),
            bool(stored["undoing"]),
            # Records of before it could be asked for lack it.
            bool(stored.get("allow_cgroup_v1")),
        )
