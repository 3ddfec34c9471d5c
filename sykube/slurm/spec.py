"""What a Slurm cluster in Kubernetes is: its options, and what is wrong with them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from sykube.errors import UsageError
from sykube.image import reference
from sykube.node.limits import parse_memory

ONE, MANY = "one", "many"
# Of --auth: Slurm's own, munge's, and none at all.
SLURM, MUNGE, NONE = "slurm", "munge", "none"
# Of --confine: what jobs are held to their memory by.
BY_POD, BY_CGROUP = "pod", "cgroup"
# MaxNodeCount of manifests/slurm.yaml.j2.
MOST_NODES = 64
# What slurmd and a job take at least; 64 MiB of it are slurmd's (definitions/slurm/slurm-role).
_LEAST_MEMORY = 128 * 1024**2
FIRST_UID = 1001
# Of nodes that come by themselves; a pod takes some seconds to come and to go.
IDLE_S = 120
# Others belong to the system, or are no numbers for users (uid_t; 65534 is nobody).
_LEAST_UID, _MOST_UID, _NOBODY = 1000, 2**31 - 1, 65534
# Debian's package slurmctld makes the user slurm with this number (debian/slurm-wlm-basic-plugins).
_SLURM_UID = 64030
# A number that nobody has: munged needs no name (munged.c, of 0.5.16).
_MUNGE_UID = 64032
# slurmrestd's, which is no other daemon's (src/slurmrestd/slurmrestd.c, _check_user).
_REST_UID = 64033
# https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-label-names
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
# Of useradd(8), without the underscore, which containers cannot have in their names.
_USER = re.compile(r"[a-z]([-a-z0-9]{0,30}[a-z0-9])?")
# Of the image: base-passwd's, and those of Debian's packages of Slurm.
_TAKEN = frozenset((
    *("root", "daemon", "bin", "sys", "sync", "games", "man", "lp", "mail", "news", "uucp"),
    *("proxy", "www-data", "backup", "list", "irc", "nobody", "slurm", "munge", "munged", "sackd"),
))  # fmt: skip
# Of --nodes; a sign is let in so that it can be named in the error.
_NODES = re.compile(r"(-?[0-9]+)(?:-(-?[0-9]+))?")
_OTHERS = frozenset(["default", "kube-system", "kube-public", "kube-node-lease"])


@dataclass(frozen=True)
class User:
    """Somebody who may submit jobs."""

    name: str
    uid: int


@dataclass(frozen=True)
class SlurmSpec:
    """A Slurm cluster, as it is recorded in its namespace.

    Attributes:
        nodes: how many it begins with, and has at least where it scales by itself.
        most: how many it has at most; 0 where it does not scale by itself.
        idle: seconds after which it ends nodes that have no job, where it scales by itself.
        cpus, memory: of each node, a quantity of Kubernetes for the latter.
        users: `one`, to whom all of it belongs, or `many`.
        names: of the users.
        uids: of the users; empty where they are by their places.
        domain: of the cluster's own names.
        state_class, home_class: StorageClasses of slurmctld's and slurmdbd's volumes, and of /home;
            empty for the default one.
        control_planes: whether nodes may be on control planes that ordinary pods are kept from.
        auth: how Slurm knows who asks: `slurm`, `munge`, or `none`, where it believes everybody.
        sidecars: whether that Kubernetes has sidecar containers.
        accounting: whether slurmdbd keeps what jobs took, in a volume of its own.
        rest: whether slurmrestd serves Slurm's REST API to whoever has a token.
        runtime: RuntimeClass of its pods; empty for what pods without one run in.
        confine: what holds jobs to their memory: `pod`, of which each job has one of its own, or
            `cgroup`, one below the pod's for each, so that several share a pod.
        login_image: of users' containers in the login pod, where it is another one: with compilers.
    """

    namespace: str
    image: str
    nodes: int = 2
    cpus: int = 1
    memory: str = "1Gi"
    users: str = ONE
    names: tuple[str, ...] = ("user",)
    domain: str = "cluster.local"
    state_class: str = ""
    home_class: str = "shared"
    control_planes: bool = False
    auth: str = SLURM
    sidecars: bool = False
    uids: tuple[int, ...] = ()
    most: int = 0
    idle: int = IDLE_S
    accounting: bool = False
    rest: bool = False
    runtime: str = ""
    confine: str = BY_POD
    login_image: str = ""

    @property
    def accounts(self) -> tuple[User, ...]:
        by_place = range(FIRST_UID, FIRST_UID + len(self.names))
        return tuple(map(User, self.names, self.uids or by_place))

    def with_users(self, users: Sequence[User]) -> SlurmSpec:
        """The same of these users."""
        changed = replace(self, names=tuple(user.name for user in users), uids=())
        if changed.accounts == tuple(users):
            return changed
        return replace(changed, uids=tuple(user.uid for user in users))

    @property
    def is_automatic(self) -> bool:
        """Whether Slurm itself says how many nodes there are."""
        return self.most > 0

    @property
    def largest(self) -> int:
        """How many nodes there can be at once, by its options."""
        return self.most or self.nodes

    @property
    def slurm_memory(self) -> int:
        """A node's memory for Slurm (MiB), as definitions/slurm/slurm-role has it."""
        return (self.memory_bytes >> 20) - 64

    @property
    def job_memory(self) -> int:
        """For each CPU of a job that asks for no memory (MiB), where jobs share nodes."""
        return self.slurm_memory // self.cpus

    @property
    def slurm_user(self) -> User:
        """Whose slurmctld is."""
        return self.accounts[0] if self.users == ONE else User("slurm", _SLURM_UID)

    @property
    def munge_uid(self) -> int:
        """Whose munged is, and so nobody's else: jobs cannot read its key."""
        return _MUNGE_UID

    @property
    def rest_uid(self) -> int:
        """Whose slurmrestd is, and so nobody else's."""
        return _REST_UID

    @property
    def memory_bytes(self) -> int:
        return parse_memory(self.memory)

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> SlurmSpec:
        """Read what `to_json` wrote, also by another version of sykube.

        Raises:
            ValueError: it is none.
        """
        found: Mapping[str, Any] = json.loads(text)
        known = {each.name for each in fields(cls)}
        values = {key: value for key, value in found.items() if key in known}
        for each in ("names", "uids"):
            values[each] = tuple(values.get(each, ()))
        return cls(**values)

    def check(self) -> SlurmSpec:
        """The same, once all of it can be.

        Raises:
            UsageError: with all that is wrong.
        """
        if problems := [*self._problems()]:
            raise UsageError(
                "\n".join(problems), resolution="Correct it and run the command again."
            )
        return self

    def _problems(self) -> list[str]:
        found = [namespace_problem(self.namespace), *self._nodes_problems()]
        if self.cpus < 1:
            found.append(f"--cpus {self.cpus}: a node has 1 at least")
        try:
            too_small = self.memory_bytes < _LEAST_MEMORY
            found.append(f"--memory {self.memory}: a node has 128Mi at least" if too_small else "")
        except ValueError:
            found.append(f"--memory {self.memory!r} is no quantity such as 512Mi or 4Gi")
        if self.users == ONE and len(self.names) != 1:
            found.append(
                f"--users one is for one user, and there are {len(self.names)}: --users many"
            )
        if self.confine == BY_CGROUP and self.users == ONE:
            found.append("--confine cgroup: only root makes cgroups, so it is for --users many")
        if self.auth == NONE and self.users == MANY:
            found.append("--auth none: each user could be every other, so it is for --users one")
        if self.auth == NONE and self.rest:
            found.append("--auth none: no token is needed for anything, so --rest is not for it")
        found += [f"--user {name!r}: {why}" for name in self.names if (why := _wrong_user(name))]
        if len({*self.names}) < len(self.names):
            found.append("--user: a name stands there twice")
        if len({*self.uids}) < len(self.uids):
            found.append("--users-file: two users have the same number")
        found += [
            f"--users-file: {user.name} has the number {user.uid}, which no user can have here"
            for user in self.accounts
            if not _LEAST_UID <= user.uid <= _MOST_UID
            or user.uid in (_SLURM_UID, _MUNGE_UID, _REST_UID, _NOBODY)
        ]
        found.append(_wrong_image("--image", self.image))
        if self.login_image:
            found.append(_wrong_image("--login-image", self.login_image))
        for option, value in (("state", self.state_class), ("home", self.home_class)):
            if value and not _is_name(value):
                found.append(f"--{option}-class {value!r} is no name of a StorageClass")
        if self.runtime and not _is_name(self.runtime):
            found.append(f"--runtime {self.runtime!r} is no name of a RuntimeClass")
        if not _is_name(self.domain):
            found.append(f"--domain {self.domain!r} is no domain")
        return [each for each in found if each]

    def _nodes_problems(self) -> Iterator[str]:
        yield nodes_problem(self.nodes, least=0 if self.is_automatic else 1)
        if self.is_automatic:
            yield nodes_problem(self.most, least=1)
            if self.most < self.nodes:
                yield f"{self.nodes}-{self.most} nodes: the least is more than the most"
        if self.idle < 1:
            yield f"--idle {self.idle}: 1 second at least"


def parse_nodes(text: str) -> tuple[int, int]:
    """A number of nodes, or the least and the most of them: 2, 0-4.

    Returns:
        The number or the least, and the most, which is 0 for a number.

    Raises:
        UsageError: it is neither.
    """
    match = _NODES.fullmatch(text)
    if not match:
        raise UsageError(
            f"{text!r} is no number of nodes",
            resolution="Take a number such as 2, or the least and the most: 0-4",
        )
    least, most = match.groups()
    if most is not None and int(most) < 1:
        raise UsageError(
            f"{text} nodes: there are 1 to {MOST_NODES} at most",
            resolution="Take the least and the most, such as 0-4",
        )
    return int(least), int(most or 0)


def namespace_problem(namespace: str) -> str:
    """What is wrong with the name of a namespace for a Slurm cluster, or nothing."""
    if not _LABEL.fullmatch(namespace):
        return f"--namespace {namespace!r} is no name of a namespace"
    if namespace in _OTHERS:
        return f"--namespace {namespace}: a Slurm cluster has a namespace of its own"
    return ""


def nodes_problem(count: int, *, least: int) -> str:
    """What is wrong with a number of nodes, or nothing."""
    fits = least <= count <= MOST_NODES
    return "" if fits else f"{count} nodes: there are {least} to {MOST_NODES}"


def _wrong_user(name: str) -> str:
    if not _USER.fullmatch(name):
        return "letters a to z, digits and hyphens, a letter first"
    return "a user of the image has that name" if name in _TAKEN else ""


def _wrong_image(option: str, name: str) -> str:
    try:
        reference.full(name)
    except UsageError as error:
        return f"{option}: {error.brief}"
    return ""


def _is_name(text: str) -> bool:
    return all(_LABEL.fullmatch(part) for part in text.split("."))
