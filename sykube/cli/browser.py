"""Opens a page in the desktop user's browser."""

from __future__ import annotations

import html
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sykube import resources
from sykube.errors import SykubeError
from sykube.host.host import Host
from sykube.host.owner import Owner

_OPENER = "xdg-open"
_PATIENCE_S = 5
# What a desktop's programs need to find it.
_DESKTOP = (
    *("DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY"),
    *("XDG_RUNTIME_DIR", "XDG_CURRENT_DESKTOP", "DBUS_SESSION_BUS_ADDRESS"),
)


@contextmanager
def page_leading_to(host: Host, link: str, owner: Owner) -> Iterator[Path]:
    """A file for its owner alone that leads to a link which nobody else may see."""
    folder = Path(tempfile.mkdtemp(prefix="sykube-dashboard-"))
    try:
        page = folder / "open.html"
        page.touch(mode=0o600)
        target = html.escape(link)
        page.write_text(
            f'<!doctype html><meta http-equiv="refresh" content="0; url={target}">',
            encoding="utf-8",
        )
        for path in (page, folder):
            host.chown(path, owner.uid, owner.gid)
        yield page
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def show(host: Host, page: str | Path, owner: Owner, environ: Mapping[str, str]) -> bool:
    """Open a page in the owner's browser; whether there was one to ask.

    Args:
        page: a file, or a URL that everybody may see: any user can read a command line.
        environ: variables of the caller.
    """
    if host.network.arrival:
        # A browser from here would be in the network of the user's clusters.
        return False
    desktop = {name: environ[name] for name in _DESKTOP if name in environ}
    if not {"DISPLAY", "WAYLAND_DISPLAY"} & desktop.keys() or not host.which(_OPENER):
        return False
    words = [_OPENER, str(page)]
    # Browsers refuse to be root's, and should.
    if owner.uid != host.user():
        words = ["setpriv", f"--reuid={owner.uid}", f"--regid={owner.gid}", "--init-groups", *words]
    try:
        command = resources.script("launch", str(_PATIENCE_S), *words)
        host.run(command, env={**desktop, "HOME": str(owner.home)})
    except SykubeError:
        return False
    return True
