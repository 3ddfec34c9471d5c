"""The resolved Kubernetes version, as a cluster's record keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime

AUTO, UPSTREAM, DEBIAN = "auto", "upstream", "debian"
SOURCES = (AUTO, UPSTREAM, DEBIAN)
# Stands for auto where no source is asked for.
VARIABLE = "SYKUBE_SOURCE"


@dataclass(frozen=True)
class Choice:
    """The resolved Kubernetes version.

    Attributes:
        source: upstream or debian.
        kubernetes: the exact version, without the v.
        reason: why, in one line, for the user.
    """

    source: str
    kubernetes: str
    reason: str

    @property
    def introduction(self) -> str:
        """What it is, why, and whether it is past its end of life."""
        # Not above: each cluster's record has one, which few commands introduce.
        from sykube.image import versions

        minor = versions.minor(self.kubernetes)
        origin = f"Kubernetes {self.kubernetes} from {self.source.capitalize()} ({self.reason})"
        if date.fromisoformat(minor.end_of_life) > datetime.now(UTC).date():
            return f"{origin}."
        return (
            f"{origin}: past its end of life ({minor.end_of_life}); for trying and learning, not "
            "for the public."
        )
