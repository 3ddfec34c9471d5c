"""`sykube slurm up`: a Slurm cluster in a namespace."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from sykube.cluster.commands.slurm import confinement, image, isolation, removal, room
from sykube.cluster.commands.slurm.place import Place, at, held
from sykube.cluster.commands.slurm.room import Unscheduled
from sykube.cluster.model.cluster import DOMAIN
from sykube.errors import UsageError
from sykube.host.host import Host
from sykube.host.run import CommandError
from sykube.kubernetes.api import wait_until
from sykube.node.limits import parse_cpus, parse_memory
from sykube.slurm import manifests
from sykube.slurm.controller import ACCOUNTING_POD, CONTAINER, LOGIN, NODE_CONTAINER, POD
from sykube.slurm.spec import BY_CGROUP, MANY, NONE, SlurmSpec, User
from sykube.ui import Ui

_TIMEOUT_S = 300.0
# A kubelet brings a ConfigMap that has changed into its pods within a minute or so (syncFrequency).
_ADDED_S = 2.0
_RUNTIMES = "/apis/node.k8s.io/v1/runtimeclasses"


def up(
    host: Host, name: str, wanted: SlurmSpec, agrees: Callable[[str], bool], ui: Ui
) -> SlurmSpec | None:
    """Set up a Slurm cluster and wait until all of its nodes take jobs.

    One that is there already, by an interrupted `up` or by `render`, is completed; one of many
    users gets those that are named after its own, and each gets accounting, the REST API and
    compilers, while jobs run.

    Args:
        wanted: its options; domain and places of nodes are the cluster's.
        agrees: puts a question to the user, where the image is to be built.

    Returns:
        What it is; None where it was there, whole.

    Raises:
        UsageError: the cluster cannot have it; nothing was changed.
        NoRoomError: some of its nodes have no place in the cluster; the others take jobs.
        SykubeError: the cluster does not run, or the Slurm cluster does not come up: what is new
            of it is removed again.
    """
    wanted = dataclasses.replace(wanted, domain=DOMAIN, control_planes=True).check()
    with at(host, name, wanted.namespace, ui) as place:
        wanted = dataclasses.replace(wanted, sidecars=place.cluster.minor.has_sidecars)
        there = place.spec()
        if there:
            _require_same(place, there, wanted)
        spec = _extended(there, wanted) if there else wanted
        _require_fitting(place, spec)
        if there == spec and not (whole_problem(place, spec) or _unaware(place, spec)):
            return None
        image.give(place.cluster, spec, agrees)
        with held(place):
            if spec.confine == BY_CGROUP and there is None:
                confinement.require(place, spec)
            if there and there.accounting != spec.accounting:
                _add_slurmdbd(place, spec)
            set_up(place, spec, new=there is None)
            if there and there.login_image != spec.login_image:
                with place.cluster.ui.step("Waiting for the login pod with compilers"):
                    _wait(place, lambda: _old_login(place, spec) or whole_problem(place, spec))
            if there and there.names != spec.names:
                _wait_for_users(place, spec)
            if there and spec.accounting:
                _wait_for_accounting(place, spec)
        return spec


def whole_problem(place: Place, spec: SlurmSpec) -> str:
    """What keeps a Slurm cluster from taking jobs on some of its nodes, or nothing."""
    if spec.is_automatic:
        return problem(place, [*range(1, spec.most + 1)], spec.nodes)
    return problem(place, place.numbers())


def problem(place: Place, numbers: list[int], least: int | None = None) -> str:
    """What keeps a Slurm cluster from taking jobs on some nodes, or nothing.

    Args:
        least: of a Slurm cluster that scales by itself: so many of them must have pods. Those of
            the others come and go.
    """
    wanted, ready, waiting = manifests.pod_names(numbers), set[str](), list[str]()
    coming = dict[str, str]()
    for pod in place.pods():
        name = pod["metadata"]["name"]
        component = pod["metadata"]["labels"].get("app.kubernetes.io/component", "")
        if not (why := _not_ready(pod)):
            ready.add(component)
        elif component == "node" and least is not None:
            coming[name] = why
        elif component != "node" or name in wanted:
            waiting.append(f"{name}: {why}")
    if old := _outdated(place):
        waiting.append(old)
    if waiting:
        return "; ".join(waiting)
    wanted_pods = {"controller", "login"}
    if place.get("statefulsets", "slurmdbd"):
        wanted_pods.add("accounting")
    if place.get("deployments", "slurmrestd"):
        wanted_pods.add("rest")
    if missing := wanted_pods - ready:
        return f"no pod of {', '.join(sorted(missing))}"
    try:
        nodes = place.controller.nodes()
    except CommandError as error:
        return f"slurmctld does not answer: {error.brief}"
    lacking = [
        f"{each}: {nodes[each].state if each in nodes else 'not registered'}"
        + (f" ({coming[each]})" if each in coming else "")
        for each in wanted
        if each not in nodes or not nodes[each].is_ready
    ]
    if lacking:
        return f"nodes of Slurm: {', '.join(lacking)}"
    there = [each for each in wanted if not nodes[each].is_away]
    if least is not None and len(there) < least:
        return f"{len(there)} of {least} nodes are there"
    return ""


def add_nodes(place: Place, spec: SlurmSpec, numbers: list[int]) -> None:
    """Create nodes; the caller waits for them."""
    for number in numbers:
        for each in manifests.node_objects(spec, number):
            place.api.apply(each)


def wait_for(place: Place, numbers: list[int], least: int | None = None) -> None:
    """Wait until nodes take jobs.

    Args:
        least: as of `problem`.

    Raises:
        NoRoomError: for a minute there was no place for some pods, and all else is there.
        SykubeError: they do not in the time of wait_until; says what is missing.
    """
    patience = room.Patience(place)

    def missing() -> str:
        found = problem(place, numbers, least)
        if found and (waiting := patience.lost()):
            _require_room_for_others(place, numbers, least, waiting)
        return found

    wait_until(place.cluster.host, f"the Slurm cluster {place.namespace}", missing, _TIMEOUT_S)


def _require_room_for_others(
    place: Place, numbers: list[int], least: int | None, waiting: list[Unscheduled]
) -> None:
    """Give up pods that wait for a place, unless something else is missing, too.

    Raises:
        NoRoomError: nothing is.
    """
    gone = {each.pod: manifests.node_number(each.pod) for each in waiting}
    if not all(gone.values()):
        raise room.of_others(place, waiting)
    left = [each for each in numbers if each not in gone.values()]
    if problem(place, left, None if least is None else 0):
        return
    if least is None:
        count = len(place.numbers())
        raise room.of_nodes(place, waiting, count, str(count - len(gone)))
    limits = f"{max(0, least - len(gone))}-{len(numbers)}"
    raise room.of_nodes(place, waiting, len(numbers), limits)


def require_room(place: Place, spec: SlurmSpec, count: int) -> None:
    """Refuse nodes that no machine could hold, or not so many of them.

    Raises:
        UsageError: there is no room; says how much there is.
    """
    found = place.api.get("/api/v1/nodes")["items"]
    cpus = max(_amounts(found, "cpu", parse_cpus), default=0) // 1000
    if spec.cpus > cpus:
        raise UsageError(
            f"a node of {spec.cpus} CPUs is larger than any of this cluster, which have {cpus}",
            resolution=f"--cpus {cpus} at most",
        )
    memory = _amounts(found, "memory", parse_memory)
    most = sum(each // spec.memory_bytes for each in memory)
    if count > most:
        largest = max(memory, default=0) >> 20
        raise UsageError(
            f"there is no room for {count} nodes of {spec.memory}, only for {most}",
            details=f"the largest node of the cluster has {largest}Mi for pods",
            resolution="Take fewer nodes, or --memory with less.",
        )


def _amounts(found: list[dict[str, Any]], what: str, parse: Callable[[str], int]) -> list[int]:
    """What each node of Kubernetes has for pods."""
    return [parse(each["status"]["allocatable"][what]) for each in found]


def _require_same(place: Place, there: SlurmSpec, wanted: SlurmSpec) -> None:
    """Refuse to change what would end jobs, or is changed by another command."""
    # Numbers may be by places, so further users come after those that are there.
    users = wanted.accounts[: len(there.accounts)] if there.users == MANY else wanted.accounts
    after = _fixed(wanted, users)
    for field, before in _fixed(there, there.accounts).items():
        if before != after[field]:
            raise UsageError(
                f"the Slurm cluster {place.namespace} is there already, and has other options",
                details=f"{field}: {before}, and not {after[field]}",
                resolution=f"Remove it first: sykube slurm down{place.options}\n"
                "  Or make another one beside it: --namespace NAME",
            )
    for field, option, why in (
        ("accounting", "accounting", "an image that may have no slurmdbd"),
        ("rest", "rest", "an image that may have no slurmrestd"),
        ("login_image", "compilers", "another image, whose Slurm may not be that of the compilers"),
    ):
        added = getattr(wanted, field) and not getattr(there, field)
        if added and there.image != wanted.image:
            raise UsageError(
                f"the Slurm cluster {place.namespace} is of {why}",
                details=f"{there.image}, and not {wanted.image}",
                resolution=f"Create it again with --{option}: sykube slurm down{place.options}",
            )
    count = len(place.numbers())
    if wanted.nodes != count and not there.is_automatic:
        raise UsageError(
            f"the Slurm cluster {place.namespace} is there already, with {count} nodes",
            resolution=f"sykube slurm scale{place.options} {wanted.nodes}",
        )


def _extended(there: SlurmSpec, wanted: SlurmSpec) -> SlurmSpec:
    """One that is there, with what is added to it."""
    return dataclasses.replace(
        there.with_users(wanted.accounts),
        accounting=there.accounting or wanted.accounting,
        rest=there.rest or wanted.rest,
        login_image=there.login_image or wanted.login_image,
    )


def _fixed(spec: SlurmSpec, users: Sequence[User]) -> dict[str, str]:
    """What stays as it is while a Slurm cluster is there, for people."""
    classes = ("home_class", "state_class", "runtime")
    options = ("cpus", "memory", "users", "auth", "confine", *classes)
    accounts = ", ".join(f"{user.name} ({user.uid})" for user in users)
    scales = f"by itself, {spec.nodes} to {spec.most} nodes, idle for {spec.idle} s"
    return {name: str(getattr(spec, name) or "the default") for name in options} | {
        "accounts": accounts,
        "scales": scales if spec.is_automatic else "by sykube slurm scale",
    }


def _require_fitting(place: Place, spec: SlurmSpec) -> None:
    """Refuse what the cluster cannot have."""
    if spec.confine == BY_CGROUP:
        confinement.require_version(place.cluster.host)
    require_room(place, spec, spec.largest)
    classes = place.api.get("/apis/storage.k8s.io/v1/storageclasses")["items"]
    known = {each["metadata"]["name"] for each in classes}
    for wanted in {spec.home_class, spec.state_class} - {""}:
        if wanted not in known:
            raise UsageError(
                f"the cluster has no StorageClass {wanted}",
                resolution=f"sykube addons enable storage{place.cluster.name_option}",
            )
    if spec.runtime and place.find(f"{_RUNTIMES}/{spec.runtime}") is None:
        raise UsageError(
            f"the cluster has no RuntimeClass {spec.runtime}",
            resolution=f"It has those of: sykube runtimes{place.cluster.name_option}",
        )


def set_up(place: Place, spec: SlurmSpec, *, new: bool) -> None:
    """Create what a Slurm cluster lacks of its options, and wait until it takes jobs.

    Args:
        new: remove what is there of it where that fails.
    """
    ui = place.cluster.ui
    namespace = place.find(f"/api/v1/namespaces/{spec.namespace}")
    kept = any(place.get("persistentvolumeclaims", each) for each in removal.KEPT)
    key = place.get("secrets", "slurm-key")
    owned = namespace is None or removal.is_owned(namespace)
    # `down` may have left it without nodes.
    numbers = new_numbers = place.numbers() or [*range(1, spec.nodes + 1)]
    if spec.is_automatic:
        numbers = [*range(1, spec.most + 1)]
        # Those that are there would lose their pods.
        new_numbers = [each for each in numbers if each not in place.replicas()]
    try:
        with ui.step(f"Creating the Slurm cluster {spec.namespace}"):
            found = next(iter(key["data"].values())) if key else manifests.new_key()
            for each in manifests.objects(spec, found, owned=owned):
                if each["kind"] != "Namespace" or owned:
                    place.api.apply(each)
            if spec.rest:
                _create_rest(place, spec)
        if spec.auth == NONE:
            with ui.step("Trying to reach slurmctld from outside"):
                wait_for(place, [])
                isolation.require(place, spec)
        with ui.step("Waiting for slurmctld and the nodes"):
            add_nodes(place, spec, new_numbers)
            wait_for(place, numbers, spec.nodes if spec.is_automatic else None)
    except BaseException as error:
        # Where only some nodes wait for room, the others take jobs.
        if new and not (isinstance(error, room.NoRoomError) and error.takes_jobs):
            with ui.step("Removing what is there of it"):
                removal.remove(place, volumes=not kept)
        raise


def _create_rest(place: Place, spec: SlurmSpec) -> None:
    found = place.get("secrets", "slurm-jwt")
    key = next(iter(found["data"].values())) if found else manifests.new_key()
    for each in manifests.rest_objects(spec, key):
        place.api.apply(each)


def _wait_for_users(place: Place, spec: SlurmSpec) -> None:
    with place.cluster.ui.step("Waiting until every pod knows the users"):
        # Pods come and go meanwhile, where it scales by itself.
        _wait(place, lambda: _ignorant(place, spec, place.numbers()) or whole_problem(place, spec))


def _wait(place: Place, missing: Callable[[], str]) -> None:
    what = f"the Slurm cluster {place.namespace}"
    wait_until(place.cluster.host, what, missing, _TIMEOUT_S, interval=_ADDED_S)


def _add_slurmdbd(place: Place, spec: SlurmSpec) -> None:
    """Start it before slurmctld, which would wait for it, is told of it."""
    kept = place.get("persistentvolumeclaims", "accounting") is not None
    ui = place.cluster.ui
    try:
        with ui.step("Waiting for slurmdbd"):
            for each in manifests.accounting_objects(spec):
                place.api.apply(each)
            _wait(place, lambda: _pod_problem(place, ACCOUNTING_POD))
    except BaseException:
        with ui.step("Removing what is there of it"):
            removal.remove_accounting(place, volumes=not kept)
        raise


def _wait_for_accounting(place: Place, spec: SlurmSpec) -> None:
    with place.cluster.ui.step("Waiting until sacct works for users"):
        _wait(place, lambda: whole_problem(place, spec))
        if _unaware(place, spec):
            place.controller.reconfigure()
            _wait(place, lambda: _unaware(place, spec))


def _unaware(place: Place, spec: SlurmSpec) -> str:
    """Whether the login pod has the configuration of before there was accounting; or nothing."""
    if not spec.accounting or place.controller.has_accounting(LOGIN, spec.names[0]):
        return ""
    return "sacct does not work in the login pod"


def _ignorant(place: Place, spec: SlurmSpec, numbers: list[int]) -> str:
    """The pods that do not know all users, or nothing."""
    if old := _old_login(place, spec):
        return old
    pods = {POD: CONTAINER, **dict.fromkeys(manifests.pod_names(numbers), NODE_CONTAINER)}
    known = place.controller.knows
    unaware = [pod for pod, each in pods.items() if not known(pod, each, spec.names)]
    return f"not yet known in {', '.join(unaware)}" if unaware else ""


def _old_login(place: Place, spec: SlurmSpec) -> str:
    """The login pod that is not as its options say, or nothing."""
    wanted = {(name, spec.login_image or spec.image) for name in spec.names}
    for pod in place.pods():
        there = {(each["name"], each["image"]) for each in pod["spec"]["containers"]}
        component = pod["metadata"]["labels"].get("app.kubernetes.io/component")
        if component == "login" and not wanted <= there:
            return f"{pod['metadata']['name']} is of before"
    return ""


def _outdated(place: Place) -> str:
    """Whether slurmctld runs with options of before, which its StatefulSet is to change."""
    found = place.get("statefulsets", CONTAINER)
    if not found:
        return ""
    status = found.get("status", {})
    # What Kubernetes has not seen yet is not in the revisions.
    seen = status.get("observedGeneration", 0) >= found["metadata"].get("generation", 0)
    is_new = status.get("currentRevision") == status.get("updateRevision")
    return "" if seen and is_new else f"{POD}: it is of before"


def _pod_problem(place: Place, name: str) -> str:
    pod = place.get("pods", name)
    why = _not_ready(pod) if pod else "there is no such pod"
    return f"{name}: {why}" if why else ""


def _not_ready(pod: dict[str, Any]) -> str:
    """What keeps a pod from being Ready, or nothing."""
    if pod["metadata"].get("deletionTimestamp"):
        return "it is being deleted"
    status = pod.get("status", {})
    conditions = {each["type"]: each for each in status.get("conditions") or []}
    if conditions.get("Ready", {}).get("status") == "True":
        return ""
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return str(scheduled.get("message", "not scheduled"))
    for container in status.get("containerStatuses") or []:
        waiting = container.get("state", {}).get("waiting")
        if waiting:
            return f"{waiting.get('reason', 'waiting')} {waiting.get('message', '')}".strip()
    return "it is not Ready yet"
