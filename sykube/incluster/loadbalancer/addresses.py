"""Which Service has which address."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from ..api import Json
from ..events import timestamp

CONDITION = "sykube.local/LoadBalancer"
"""Type of the condition of a Service that says whether it has an address of ours, or why not."""

_ANNOTATION = "service.beta.kubernetes.io/load-balancer-source-ranges"


@dataclass(frozen=True)
class Pool:
    """A range of addresses, with its first and last one."""

    first: IPv4Address
    last: IPv4Address

    @classmethod
    def parse(cls, text: str) -> Pool:
        """Read FIRST-LAST.

        Raises:
            ValueError: it is none.
        """
        first, _, last = text.partition("-")
        made = cls(IPv4Address(first), IPv4Address(last))
        if made.last < made.first:
            raise ValueError(f"no range: {text!r}")
        return made

    def __contains__(self, address: object) -> bool:
        try:
            return self.first <= IPv4Address(str(address)) <= self.last
        except ValueError:
            return False

    def __iter__(self) -> Iterator[str]:
        """The last first: nodes get their addresses from below."""
        for number in range(int(self.last), int(self.first) - 1, -1):
            yield str(IPv4Address(number))


@dataclass(frozen=True)
class Decision:
    """What a Service is to have.

    Attributes:
        address: empty where it has none.
        problem: why it has none although it is a load balancer of ours.
    """

    service: Json
    address: str = ""
    problem: str = ""


def decide(services: Sequence[Json], taken: set[str], pool: Pool) -> list[Decision]:
    """What each Service that is ours is to have; those of other controllers are left out.

    Args:
        taken: addresses that nodes have.
    """
    ours = sorted((each for each in services if _is_ours(each, pool)), key=_age)
    free = dict.fromkeys(address for address in pool if address not in taken)
    found: dict[str, Decision] = {}
    # Who has one keeps it, before others get any.
    for service in ours:
        address = next(iter(addresses_of(service)), "")
        wanted = service["spec"].get("loadBalancerIP") or address
        if not is_balanced(service):
            found[_uid(service)] = Decision(service)
        elif problem := _refusal(service):
            found[_uid(service)] = Decision(service, problem=problem)
        elif address in free and wanted == address:
            del free[address]
            found[_uid(service)] = Decision(service, address)
    for service in ours:
        if _uid(service) in found:
            continue
        wanted = service["spec"].get("loadBalancerIP") or next(iter(free), "")
        if wanted in free:
            del free[wanted]
            decision = Decision(service, wanted)
        elif wanted:
            reason = "is in use" if wanted in pool else f"is not one of {pool.first} to {pool.last}"
            decision = Decision(service, problem=f"spec.loadBalancerIP {wanted} {reason}")
        else:
            problem = f"all addresses from {pool.first} to {pool.last} are in use"
            decision = Decision(service, problem=problem)
        found[_uid(service)] = decision
    return [found[_uid(service)] for service in ours]


def status_of(decision: Decision) -> Json | None:
    """The part of a Service's status that says so; None where it does already."""
    status = decision.service.get("status", {})
    conditions = status.get("conditions") or []
    others = [each for each in conditions if each["type"] != CONDITION]
    now = next((each for each in conditions if each["type"] == CONDITION), None)
    wanted = _condition(decision)
    same = wanted is None if now is None else wanted is not None and wanted.items() <= now.items()
    ingress = [{"ip": decision.address}] if decision.address else []
    if same and addresses_of(decision.service) == [each["ip"] for each in ingress]:
        return None
    if wanted is not None:
        others.append({**wanted, "lastTransitionTime": timestamp()})
    return {"loadBalancer": {"ingress": ingress}, "conditions": others}


def is_balanced(service: Json) -> bool:
    """Whether it is a load balancer that names no controller of its own."""
    spec = service["spec"]
    return spec["type"] == "LoadBalancer" and not spec.get("loadBalancerClass")


def addresses_of(service: Json) -> list[str]:
    """The addresses that its status has; of a host name, nothing."""
    ingress = service.get("status", {}).get("loadBalancer", {}).get("ingress") or []
    return [each.get("ip", "") for each in ingress]


def _condition(decision: Decision) -> dict[str, str] | None:
    if not decision.address and not decision.problem:
        return None
    status, reason = ("False", "NoAddress") if decision.problem else ("True", "HasAddress")
    return {"type": CONDITION, "status": status, "reason": reason, "message": decision.problem}


def _is_ours(service: Json, pool: Pool) -> bool:
    """Whether no other controller has a hand in it."""
    if service["spec"]["type"] == "LoadBalancer" and not is_balanced(service):
        return False
    # The condition is there, too, where the cluster had another range, as one of a snapshot had.
    conditions = service.get("status", {}).get("conditions") or []
    marked = any(each["type"] == CONDITION for each in conditions)
    # Before there was a range, it was the cluster address.
    known = service["spec"].get("clusterIP", "")
    return marked or all(each in pool or each == known for each in addresses_of(service))


def _refusal(service: Json) -> str:
    asked = (service["metadata"].get("annotations") or {}).get(_ANNOTATION, "").strip()
    if asked and not service["spec"].get("loadBalancerSourceRanges"):
        # kube-proxy does not know it, and everybody would be let in.
        return f"the annotation {_ANNOTATION} has no effect: use spec.loadBalancerSourceRanges"
    return ""


def _age(service: Json) -> tuple[str, str]:
    return str(service["metadata"].get("creationTimestamp", "")), _uid(service)


def _uid(service: Json) -> str:
    return str(service["metadata"]["uid"])
