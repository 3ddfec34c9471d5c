"""What is wrong with the value of an option, or nothing: one function for each kind of value."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Network, ip_address
from typing import Any
from urllib.parse import urlsplit

from sykube.cluster.model.members import CONTROL_PLANES, MAX_WORKERS
from sykube.host import proxies
from sykube.host.resolver import NONE
from sykube.image import mirrors
from sykube.image.registries import Mirror
from sykube.image.trust import read_fingerprint
from sykube.kubernetes import labels as node_labels
from sykube.network.ports import PortMap
from sykube.node.limits import (
    LEAST_MEMORY,
    LEAST_MILLICORES,
    LEAST_PIDS,
    parse_cpus,
    parse_memory,
)
from sykube.node.mounts import Mount

# Its longest instance name, NAME-master9, must stay a DNS label of 63 characters.
_NAME_MAX = 50
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_PRIVATE = tuple(
    IPv4Network(net) for net in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
)
_DOMAIN_LABEL = re.compile(r"(?i)[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9])?")
_RESERVED_NAMES = frozenset({"host", "snapshots"})
ROLES = ("control-plane", "worker")
# pkg: k8s.io/component-base/featuregate, and --runtime-config of kube-apiserver.
_FEATURE = r"[A-Za-z][A-Za-z0-9]*"
_API = r"[a-z0-9][a-z0-9./-]*"


def name(value: str) -> str:
    if not _DNS_LABEL.fullmatch(value) or len(value) > _NAME_MAX:
        return (
            f"the name {value!r} is not a DNS label: lower-case letters, digits and inner hyphens, "
            f"{_NAME_MAX} characters at most"
        )
    return f"the name {value!r} is kept for sykube itself" if value in _RESERVED_NAMES else ""


def workers(value: int) -> str:
    ok = 0 <= value <= MAX_WORKERS
    return "" if ok else f"the number of workers must be from 0 to {MAX_WORKERS}, not {value}"


def control_planes(value: int) -> str:
    ok = value in CONTROL_PLANES
    return "" if ok else f"the number of control planes must be 1, 3 or 5, not {value}"


def cpus(value: str) -> str:
    try:
        millicores = parse_cpus(value)
    except ValueError:
        return f"the limit of processors {value!r} is not a number such as 2 or 1.5"
    if value and millicores < LEAST_MILLICORES:
        return f"the limit of processors {value} is too low: a node needs at least 0.5"
    return ""


def memory(value: str) -> str:
    try:
        size = parse_memory(value)
    except ValueError:
        return f"the limit of memory {value!r} is not a size such as 2Gi or 1500M"
    if value and size < LEAST_MEMORY:
        return f"the limit of memory {value} is too low: a node needs at least 1Gi"
    return ""


def pids(value: int) -> str:
    ok = value == 0 or value >= LEAST_PIDS
    return "" if ok else f"the limit of processes must be at least {LEAST_PIDS}, not {value}"


def addons(value: tuple[str, ...]) -> str:
    # Not above: it takes longer to import than most commands take.
    from sykube.addons import catalog

    unknown = [name for name in value if name not in catalog.NAMES]
    known = ", ".join(catalog.NAMES)
    return f"there is no add-on {unknown[0]!r}; there are: {known}" if unknown else ""


def ports(value: tuple[str, ...]) -> str:
    try:
        found = [PortMap.parse(text) for text in value]
    except ValueError as error:
        return str(error)
    for number, port in enumerate(found):
        if any(port.collides(other) for other in found[:number]):
            return f"the port {port.host_port} of {port.address} is asked for twice"
    return ""


def mounts(value: tuple[str, ...]) -> str:
    try:
        found = [Mount.parse(text) for text in value]
    except ValueError as error:
        return str(error)
    inside = [mount.inside for mount in found]
    twice = next((path for path in inside if inside.count(path) > 1), "")
    return f"two folders are to be at {twice} in the nodes" if twice else ""


def absolute(value: str) -> str:
    return "" if not value or value.startswith("/") else f"the path {value!r} must be absolute"


def _each(check: Callable[[str], str]) -> Callable[[tuple[str, ...]], str]:
    """A check of all items of a list."""
    return lambda value: next(filter(None, map(check, value)), "")


def _parsed(parse: Callable[[str], Any]) -> Callable[[str], str]:
    """A check by what reads the value, of which ValueError says what is wrong."""

    def check(value: str) -> str:
        try:
            parse(value)
        except ValueError as error:
            return str(error)
        return ""

    return check


def proxy(name: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        wrong = proxies.problem(value)
        return f"the {name} {wrong}" if wrong else ""

    return check


def no_proxy(value: tuple[str, ...]) -> str:
    wrong = next(filter(None, map(proxies.exception_problem, value)), "")
    return f"{wrong} that can be reached without a proxy" if wrong else ""


def resolvers(value: tuple[str, ...]) -> str:
    if value == (NONE,):
        return ""
    for address in value:
        try:
            ip_address(address)
        except ValueError:
            if address == NONE:
                return "--dns none goes with no address"
            return f"the resolver {address!r} is neither an IP address nor {NONE!r}"
    return ""


def domains(value: tuple[str, ...]) -> str:
    for text in value:
        labels = text.removesuffix(".").split(".")
        if len(text) > 253 or not all(map(_DOMAIN_LABEL.fullmatch, labels)):
            return f"the search domain {text!r} is not a domain name"
    return ""


def subnet(prefix: int) -> Callable[[str], str]:
    def check(value: str) -> str:
        if not value:
            return ""
        try:
            network = IPv4Network(value)
        except ValueError as error:
            return f"the subnet {value!r} is not an IPv4 network ({error})"
        if not any(network.subnet_of(private) for private in _PRIVATE):
            return f"the subnet {value} is not a private one (RFC 1918, RFC 6598)"
        ok = network.prefixlen <= prefix
        return "" if ok else f"the subnet {value} is too small: /{prefix} or larger is needed"

    return check


def service_subnet(value: str) -> str:
    problem = subnet(24)(value)
    # cmd/kube-apiserver/app/options/validation.go, validateClusterIPFlags: at most 20 bits.
    if not problem and value and IPv4Network(value).prefixlen < 12:
        return f"the subnet {value} is too large: kube-apiserver takes a /12 or smaller one"
    return problem


def mirror(value: str) -> str:
    ok = not value or urlsplit(value).scheme in ("http", "https", "file")
    return "" if ok else f"the mirror {value!r} is not a URL"


def site(name: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        wrong = mirrors.problem(name, value) if value else ""
        return f"{mirrors.SETTINGS[name].option.removeprefix('--')} {wrong}" if wrong else ""

    return check


def labels(value: dict[str, str]) -> str:
    return next(filter(None, (node_labels.problem(*pair) for pair in value.items())), "")


def node_ports(value: tuple[str, ...]) -> str:
    at = next((text for text in value if "@" in text), "")
    return f"the port {at!r} names a node, and is one of a node already" if at else ports(value)


def feature_gates(value: dict[str, bool]) -> str:
    wrong = next((name for name in value if not re.fullmatch(_FEATURE, name)), None)
    return "" if wrong is None else f"{wrong!r} is not a feature gate, such as SidecarContainers"


def runtime_config(value: dict[str, str]) -> str:
    for name, asked in value.items():
        if not re.fullmatch(_API, name):
            return f"{name!r} is not an API, such as api/alpha or batch/v1"
        if asked not in ("true", "false"):
            return f"the API {name} can be true or false, not {asked!r}"
    return ""


absolutes = _each(absolute)
fingerprint = _parsed(lambda text: text and read_fingerprint(text))
fingerprints = _each(_parsed(read_fingerprint))
registry_mirrors = _each(_parsed(Mirror.parse))
taints = _each(_parsed(node_labels.parse_taint))
