"""A systemd unit that starts a cluster when the host boots and stops it when it shuts down.

A user's is one of the user's own systemd, which starts at boot where the user lingers.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sykube import resources
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.operations.opening import opened
from sykube.errors import HostError
from sykube.host import belonging
from sykube.host.files import write_atomically
from sykube.host.host import Host
from sykube.ui import Ui

# Where a user's things are, which the user's systemd may not have been told.
_PLACES = (
    *("XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"),
    *("SYKUBE_SHARED_CACHE_DIR", "KUBECONFIG", "PYTHONPATH"),
)


def unit_of(host: Host, name: str) -> Path:
    """The unit's file."""
    return host.units / f"sykube-{name}.service"


def enable(host: Host, name: str, ui: Ui) -> bool:
    """Write the unit and enable it; from now on the host's shutdown stops the cluster in order.

    Returns:
        Whether systemd runs here: where it does not, the unit has its effect when it does.

    Raises:
        HostError: this host has no systemctl, or the user no systemd.
        SykubeError: there is no such cluster, or it was never finished.
    """
    if host.grants.rootless:
        _require_manager(host, name)
    with opened(host, name, ui, stopped=True, paused=True, updating=True) as cluster:
        _write(cluster)
    if not host.manager.is_dir():
        return False
    host.systemctl("daemon-reload")
    # A unit that is not active is not stopped at shutdown; the cluster itself runs already. It
    # calls `sykube start`, which holds the cluster itself.
    host.systemctl("start", "--no-block", unit_of(host, name).name)
    return True


def _require_manager(host: Host, name: str) -> None:
    """Refuse where there is no systemd of the user's to have units.

    Raises:
        HostError: says what to do instead.
    """
    if host.grants.job:
        raise HostError(
            "a cluster of a batch job ends with the job",
            resolution="Make one outside of jobs: sykube init",
        )
    if not host.manager.is_dir():
        raise HostError(
            "no systemd of yours runs, which is required for autostart",
            resolution=f"Let your crontab run at @reboot: sykube start --name {name}\n"
            "  Where the host itself has systemd, one of yours runs after a login by ssh or at a "
            "console.",
        )


def _write(cluster: Cluster) -> None:
    if cluster.host.which("systemctl") is None:
        raise HostError(
            "could not find systemctl, which is required for autostart",
            resolution=f"Let your own init system run: sykube start{cluster.name_option}",
        )
    text = resources.render(
        "definitions",
        "host/autostart.service.j2",
        name=cluster.name,
        data=str(cluster.paths.root.resolve()),
        cache=str(cluster.host.cache),
        python=sys.executable,
        variables=_variables(cluster.host),
        only_on=belonging.mark(cluster.host) if cluster.host.grants.rootless else "",
    )
    cluster.host.units.mkdir(parents=True, exist_ok=True)
    write_atomically(unit_of(cluster.host, cluster.name), text)
    unit = unit_of(cluster.host, cluster.name).name
    try:
        cluster.host.systemctl("--quiet", "enable", unit)
    except BaseException:
        unit_of(cluster.host, cluster.name).unlink()
        raise


def _variables(host: Host) -> dict[str, str]:
    """What this sykube needs to find itself and its things again."""
    named = _PLACES if host.grants.rootless else _PLACES[-1:]
    found = {name: value for name in named if (value := os.environ.get(name))}
    return {"SYKUBE_CACHE_DIR": str(host.cache), **found}


def disable(host: Host, name: str, ui: Ui) -> bool:
    """Remove the unit and leave the cluster as it is; False where there was none.

    Raises:
        SykubeError: there is no such cluster.
    """
    with opened(host, name, ui, unfinished=True, stopped=True, paused=True, updating=True):
        return remove(host, name)


def remove(host: Host, name: str) -> bool:
    """Remove the unit of a cluster that is held; False where there was none."""
    unit = unit_of(host, name)
    if not unit.exists():
        return False
    try:
        if host.manager.is_dir():
            _deactivate(host, unit)
        host.systemctl("--quiet", "disable", unit.name)
    finally:
        # Without its file a unit does nothing, whatever systemctl made of it.
        unit.unlink()
    if host.manager.is_dir():
        host.systemctl("daemon-reload")
        host.systemctl("reset-failed", unit.name, check=False)
    return True


def _deactivate(host: Host, unit: Path) -> None:
    """Let systemd forget that the unit is active, whose cgroup stays until then.

    Stopped as it is, it would stop the cluster.
    """
    lines = unit.read_text(encoding="utf-8").splitlines(keepends=True)
    write_atomically(unit, "".join(line for line in lines if not line.startswith("ExecStop=")))
    host.systemctl("daemon-reload")
    host.systemctl("stop", unit.name)
