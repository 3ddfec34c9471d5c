"""What a site asks of a cluster's nodes: its proxies, and authorities of its own to trust."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from sykube.cluster.model.cluster import Cluster
from sykube.cluster.model.spec import ClusterSpec
from sykube.errors import UsageError
from sykube.host.proxies import Proxies, normal, of_environment
from sykube.kubernetes import certificates
from sykube.ui import Ui


def proxies(spec: ClusterSpec, ui: Ui) -> Proxies:
    """The proxies for a new cluster: each that was asked for, else the caller's own.

    What the caller has set for other programs and nodes cannot use is warned of, and left out.
    """
    own, problems = of_environment(os.environ)
    asked = {"http_proxy": spec.http_proxy, "https_proxy": spec.https_proxy}
    for text in problems:
        if not asked[text.split()[0]]:
            ui.warn(f"{text}. Nodes go without it.")
    return Proxies(
        normal(spec.http_proxy) or own.http,
        normal(spec.https_proxy) or own.https,
        spec.no_proxy or own.exceptions,
    )


def authorities(files: Sequence[str], now: datetime | None = None) -> tuple[str, ...]:
    """The certificates of some PEM files, each by itself and nothing else that is in them.

    Raises:
        UsageError: a file cannot be read or holds no certificate, or one is not valid now.
    """
    now = now or datetime.now(UTC)
    found: list[str] = []
    for file in files:
        found += _certificates(Path(file), now)
    return tuple(dict.fromkeys(found))


def containerd_variables(cluster: Cluster) -> str:
    """Lines of shell that set containerd's proxies, with all of the cluster left out of them."""
    ranges = cluster.state.subnets
    own = [str(network) for network in (ranges.nodes, ranges.pods, ranges.services)]
    variables = cluster.state.proxies.variables(own)
    return "\n".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())


def _certificates(file: Path, now: datetime) -> list[str]:
    try:
        found = certificates.split(file.read_text(encoding="utf-8", errors="replace"))
        parsed = [certificates.parse(text) for text in found]
    except OSError as error:
        raise UsageError(
            f"cannot read the certificate {file}: {error.strerror}",
            resolution="Give a PEM file that root can read with --ca-certificate.",
        ) from error
    except ValueError as error:
        raise UsageError(
            f"{file} is no file of certificates: {error}", resolution=_make_pem(file)
        ) from error
    if not found:
        raise UsageError(f"there is no PEM certificate in {file}", resolution=_make_pem(file))
    for each in parsed:
        if not each.not_before <= now <= each.not_after:
            raise UsageError(
                f"a certificate in {file} is valid from {each.not_before:%Y-%m-%d} "
                f"to {each.not_after:%Y-%m-%d}, not now",
                resolution="Ask the site for the present one, or set the host's clock.",
            )
    return found


def _make_pem(file: Path) -> str:
    return f"Of DER, PEM is made by: openssl x509 -inform der -in {file} -out {file}.pem"
