"""The election of the controller manager and of the scheduler that work, among control planes."""

from __future__ import annotations

from sykube.kubernetes.api import Api

MANAGER, SCHEDULER = "kube-controller-manager", "kube-scheduler"
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
# The default looks again after 2 to 4 s.
_RETRY = {"leader-elect-retry-period": "1s"}
# By default, who cannot renew its lease within 10 s ends itself: on a disk or a machine that is as
# slow, it ends again and again, and is started ever later, though nobody waits for the lease.
_SINGLE = {"leader-elect-lease-duration": "90s", "leader-elect-renew-deadline": "80s"}


def arguments(program: str, *, is_single: bool) -> dict[str, str]:
    """Options of a program.

    The only scheduler needs no election: it waits for the API server anyway. A lease each second is
    1 % of a core in an idle cluster, and one that crashed would wait 90 s for its own. sykube adds
    no control plane to a cluster that has one.

    There is an election of controller managers with one control plane, too, since it is what waits
    for the API server: without it, that of 1.20 ends itself when there is none within 10 s
    (WaitForAPIServer in CreateControllerContext), and the kubelet lets it wait for ever longer.

    Args:
        program: MANAGER or SCHEDULER.
        is_single: there is one control plane only.
    """
    if is_single and program == SCHEDULER:
        return {"leader-elect": "false"}
    return _RETRY | (_SINGLE if is_single else {})


def delete_leases(api: Api) -> None:
    """Forget who was elected, where there is one control plane only.

    One that works takes its lease again; one that starts need not wait until the lease of its
    former self is over.

    Raises:
        ApiError: the API server refuses, or does not answer.
    """
    for name in (MANAGER, SCHEDULER):
        api.delete(f"{_LEASES}/{name}")
