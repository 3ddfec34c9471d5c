"""Configures the private Apptainer of another machine for this one, as sykube that makes one."""

from __future__ import annotations

import shutil

from sykube.host import engines, provision
from sykube.host.host import Host


def main() -> None:
    host = Host()
    tree = engines.private(host).root
    for name in ("usr/etc", "usr/lib/etc", "usr/var", "usr/lib/var"):
        shutil.rmtree(tree / name)
    provision.configure(host, tree)


if __name__ == "__main__":
    main()
