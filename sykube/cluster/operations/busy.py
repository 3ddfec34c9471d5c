"""What kubeadm is run again for: a control plane on a busy machine was only too slow."""

from __future__ import annotations

from collections.abc import Callable

from sykube.host.run import CommandError

# kubeadm gives a request 10 s, a Job of an upgrade 15 to 60 (phases/upgrade/health.go), and what is
# written of a node 2 minutes (constants.go, PatchNodeTimeout).
_PASSING = (
    "[ERROR CreateJob]",
    "Client.Timeout",
    "TLS handshake timeout",
    "connection refused",
    "connection reset by peer",
    "context deadline exceeded",
    "etcdserver: ",
    "i/o timeout",
    "timed out waiting for the condition",
    "unexpected EOF",
)
_ATTEMPTS = 3


def until_done(
    run: Callable[[], object], wait: Callable[[], object], *, final: str | None = None
) -> None:
    """Run what kubeadm does, three times at most.

    Args:
        wait: returns once the control plane answers again.
        final: where kubeadm says this, it is not run again.

    Raises:
        CommandError: it failed for another reason, or every time.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            run()
            return
        except CommandError as error:
            passing = any(text in error.output for text in _PASSING)
            if attempt == _ATTEMPTS or not passing or (final and final in error.output):
                raise
        wait()
