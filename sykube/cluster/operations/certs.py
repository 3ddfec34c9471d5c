"""A cluster's certificates: when they end, and making them anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sykube.cluster.model.cluster import Cluster
from sykube.errors import SykubeError
from sykube.kubernetes import certificates
from sykube.kubernetes.certificates import Certificate
from sykube.node.node import Node

# What kubeadm makes for a year is worth a word a month before its end.
SOON = timedelta(days=30)
# super-admin.conf: from 1.29 on, on the first control plane.
_KUBECONFIGS = ("admin.conf", "super-admin.conf", "controller-manager.conf", "scheduler.conf")
_KUBELET = "kubelet-client-current.pem"
# The one that people and sykube itself use.
HOST = "host"


@dataclass(frozen=True)
class Found:
    """A certificate of a cluster.

    Attributes:
        node: the node that has it, or "host".
        name: its file, relative to /etc/kubernetes where it is there.
        authority: it signs others, and cannot be made anew without making the cluster anew.
        problem: why it cannot be read; `certificate` is None then.
    """

    node: str
    name: str
    certificate: Certificate | None
    authority: bool = False
    problem: str = ""


def find(cluster: Cluster) -> list[Found]:
    """Every certificate of a cluster, read from the host: of one that is stopped, too."""
    found = [_read(node.name, name, path) for node in cluster.nodes for name, path in _files(node)]
    if cluster.paths.kubeconfig.exists():
        found.append(_read(HOST, "kubeconfig", cluster.paths.kubeconfig))
    return found


def ending(found: list[Found], now: datetime) -> list[Found]:
    """Those that end within a month or are past their end, the first to end first."""
    dated = [(one.certificate.not_after, one) for one in found if one.certificate]
    dated.sort(key=lambda pair: pair[0])
    return [one for end, one in dated if end - now < SOON]


def warning(cluster: Cluster, now: datetime | None = None) -> str:
    """One line when certificates end within a month or are past their end; otherwise nothing.

    It reads some twenty small files, and takes a few milliseconds.
    """
    now = now or datetime.now(UTC)
    near = [one for one in ending(find(cluster), now) if not one.authority]
    if not near:
        return ""
    return f"{describe(near, now)}: sykube certs renew{cluster.name_option}"


def require_valid(cluster: Cluster) -> None:
    """Refuse certificates past their end, with which no API server answers.

    Raises:
        SykubeError: names the first.
    """
    now = datetime.now(UTC)
    ended = [
        one
        for one in ending(find(cluster), now)
        if not one.authority and one.certificate and one.certificate.not_after < now
    ]
    if ended:
        raise SykubeError(
            describe(ended, now),
            resolution=f"sykube certs renew{cluster.name_option} (it starts the cluster, too)",
        )


def describe(near: list[Found], now: datetime) -> str:
    """Says of certificates how many end and when the first does."""
    first = near[0]
    assert first.certificate is not None
    days = first.certificate.left(now) // timedelta(days=1)
    # Below 0, the day has begun already.
    when = (
        f"ended {-days} days ago"
        if days < -1
        else "has ended"
        if days < 0
        else f"ends in {days} days"
    )
    others = f" and {len(near) - 1} more" if len(near) > 1 else ""
    return f"the certificate {first.name} of {first.node} {when}{others}"


def _files(node: Node) -> Iterator[tuple[str, Path]]:
    kubernetes = node.pull("/etc/kubernetes")
    paths = [*sorted((kubernetes / "pki").rglob("*.crt")), *(kubernetes / n for n in _KUBECONFIGS)]
    if not node.is_control_plane:
        # Of a worker, only the kubelet's: the CA is a copy.
        paths = []
    for path in paths:
        if path.exists():
            yield str(path.relative_to(kubernetes)), path
    pki = node.pull("/var/lib/kubelet/pki")
    if (pki / _KUBELET).is_symlink():
        # It leads to a path as the node sees it.
        yield "kubelet-client", pki / (pki / _KUBELET).readlink().name
    if (pki / "kubelet.crt").exists():
        yield "kubelet-server", pki / "kubelet.crt"


def _read(node: str, name: str, path: Path) -> Found:
    authority = Path(name).name in ("ca.crt", "front-proxy-ca.crt")
    try:
        return Found(node, name, certificates.parse(path.read_text(encoding="utf-8")), authority)
    except (OSError, ValueError) as error:
        return Found(node, name, None, authority, str(error))
