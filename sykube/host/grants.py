"""What a machine lets sykube do: everything as root, and to an ordinary user what it grants.

An ordinary user's sykube runs as root of namespaces of its own (sykube.rootless), in which the
code for root runs. What that root may not do is asked of `Host.grants`, and of nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sykube.errors import HostError

if TYPE_CHECKING:
    # Whoever has one has imported it; root has none.
    from sykube.host.delegation import Delegation
    from sykube.host.job import Job
    from sykube.host.logout import Logout


@dataclass(frozen=True)
class Grants:
    """What root may do here; the host's own may do all of it.

    Attributes:
        rootless: root is a user of the host, in namespaces of the user's own.
        cgroups: each node can have cgroups: limits, `pause`, and what `status` counts by them.
        users: there are more user IDs than one, so that containers keep theirs.
        user: the name of the host's user that root here is.
        uid: its number on the host.
        job: the batch job that a user's commands run in, where they do.
        delegation: what the user's systemd has of cgroup v2, where the host has that.
        logout: what becomes of the user's clusters at a logout, where it was asked for.
    """

    rootless: bool = False
    cgroups: bool = True
    users: bool = True
    user: str = "root"
    uid: int = 0
    job: Job | None = None
    delegation: Delegation | None = None
    logout: Logout | None = None

    def require_host_root(self, what: str, instead: str) -> None:
        """Refuse what only the host's root can do.

        Args:
            what: it is, as the beginning of a sentence.
            instead: what to do.

        Raises:
            HostError: root here is a user of the host.
        """
        if self.rootless:
            raise HostError(f"{what} needs the host's root", resolution=instead)

    def require_cgroups(self, what: str) -> None:
        """Refuse what needs cgroups where there are none.

        Raises:
            HostError: there are none; says what to ask the administrator for.
        """
        if not self.cgroups:
            raise HostError(
                f"{what} needs cgroups, and this machine grants you none",
                resolution="`sykube doctor` shows the line to ask the administrator for.",
            )
