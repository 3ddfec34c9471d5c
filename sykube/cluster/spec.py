"""What the user wants: flags and a YAML file, validated once, then frozen."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sykube.cluster import pod_network
from sykube.errors import UsageError
from sykube.host import proxies
from sykube.host.resolver import NONE
from sykube.image import sites
from sykube.image.choice import AUTO, SOURCES
from sykube.image.registries import Mirror
from sykube.image.trust import Trust, read_fingerprint
from sykube.network.ports import PortMap
from sykube.node.limits import (
    LEAST_MEMORY,
    LEAST_MILLICORES,
    LEAST_PIDS,
    Limits,
    parse_cpus,
    parse_memory,
)
from sykube.node.mounts import Mount

# Each node takes a /24 of the pods' /16 and an address of the nodes' /24, some of which are for the
# bridge, the endpoint and further control planes (cluster/members.py).
MAX_WORKERS = 240
# etcd needs a majority of its members: an even number bears no more failures than one less.
CONTROL_PLANES = (1, 3, 5)
# Its longest instance name, NAME-master9, must stay a DNS label of 63 characters.
_NAME_MAX = 50
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_PRIVATE = tuple(
    IPv4Network(net) for net in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
)
# How the image was chosen to be taken in, which is over once a cluster is there.
_OF_IMAGE = frozenset(
    {"fingerprint", "public_key", "no_verify"}
    | {"kubernetes_mirror", "containerd_mirror", "runc_mirror"}
)
# Fields by those of sykube.image.sites.Sites.
_SITES = {
    "kubernetes": "kubernetes_mirror",
    "containerd": "containerd_mirror",
    "runc": "runc_mirror",
    "images": "image_repository",
}
_RESERVED_NAMES = frozenset({"host", "snapshots"})


@dataclass(frozen=True)
class ClusterSpec:
    """A cluster as it was asked for.

    Attributes:
        name: a DNS label; also the kubeconfig context.
        workers: nodes beside the control planes.
        control_planes: nodes with a control plane: 1, or 3 or 5 that stand in for each other.
        taint_master: keep ordinary pods off the master.
        dest: folder for the cluster's data instead of /var/lib/sykube.
        dns: resolvers instead of the host's own; "none" alone for the cluster's own names only.
        ephemeral: keep the cluster's data in memory.
        network_dir: folder for the engine's CNI configuration instead of the cluster's own.
        options: further options for `apptainer instance start`.
        local_image: a node image to use instead of building one.
        fingerprint: of the key that must have signed it; empty where it needs no signature.
        public_key: a file with that key; empty for root's key ring.
        no_verify: use it whoever signed it.
        source: of Kubernetes: auto, upstream or debian.
        kubernetes_version: stable, a minor version or an exact one; empty for the source's newest.
        kubernetes_mirror, containerd_mirror, runc_mirror, image_repository: for upstream's sites;
            see sykube.image.sites.
        allow_cgroup_v1: on a host with cgroup v1, take a Kubernetes whose kubelet refuses it.
        mirror: base URL of a Debian mirror instead of the host's.
        cpus: processors that each node may use at most, such as "1.5"; empty for all.
        memory: bytes that each node may use at most, such as "2Gi"; empty for all.
        pids: processes and threads that each node may have at most; 0 for any number.
        node_subnet, pod_subnet, service_subnet: ranges instead of picked ones.
        pod_network: bridge for sykube's own, none, or the path of a manifest that init applies.
        from_snapshot: name of a snapshot that it starts from instead of empty.
        ports: ports of the host that lead to nodes, each as [ADDRESS:]HOST:NODE[/udp][@NODE].
        mounts: folders of the host that nodes see, each as HOST:NODE[:ro].
        registry_mirrors: where images are looked for before their registry, each as HOST=URL.
        registry_auth: a file of Docker's with credentials for registries.
        addons: names of those that it begins with, beside those that every cluster has.
        http_proxy, https_proxy: proxies that nodes fetch images by, instead of the caller's own.
        no_proxy: names, domains and ranges that they reach without one.
        ca_certificates: PEM files of authorities that nodes trust beside Debian's.
    """

    name: str = "sykube"
    workers: int = 1
    control_planes: int = 1
    taint_master: bool = False
    dest: str = ""
    dns: tuple[str, ...] = ()
    ephemeral: bool = False
    network_dir: str = ""
    options: tuple[str, ...] = ()
    local_image: str = ""
    fingerprint: str = ""
    public_key: str = ""
    no_verify: bool = False
    source: str = AUTO
    kubernetes_version: str = ""
    kubernetes_mirror: str = ""
    containerd_mirror: str = ""
    runc_mirror: str = ""
    image_repository: str = ""
    allow_cgroup_v1: bool = False
    mirror: str = ""
    node_subnet: str = ""
    pod_subnet: str = ""
    service_subnet: str = ""
    pod_network: str = pod_network.BRIDGE
    cpus: str = ""
    memory: str = ""
    pids: int = 0
    from_snapshot: str = ""
    addons: tuple[str, ...] = ()
    registry_mirrors: tuple[str, ...] = ()
    registry_auth: str = ""
    ports: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: tuple[str, ...] = ()
    ca_certificates: tuple[str, ...] = ()

    @property
    def limits(self) -> Limits:
        """What each node may use; the texts were checked."""
        return Limits(parse_cpus(self.cpus), parse_memory(self.memory), self.pids)

    @property
    def trust(self) -> Trust | None:
        """Who must have signed the image; None where nobody must."""
        if self.no_verify or not self.fingerprint:
            return None
        key = Path(self.public_key) if self.public_key else None
        return Trust(read_fingerprint(self.fingerprint), key)

    @property
    def sites(self) -> dict[str, str]:
        """Those that are named for upstream's, as sykube.image.sites.chosen takes them."""
        return {name: getattr(self, field) for name, field in _SITES.items()}

    def to_dict(self) -> dict[str, Any]:
        """Its fields by the keys of the configuration file; lists for tuples."""
        return {
            key: list(value) if isinstance(value := getattr(self, name), tuple) else value
            for key, name in KEYS.items()
        }

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> ClusterSpec:
        """What `to_dict` gave; keys of a later version are left out."""
        values = {KEYS[key]: value for key, value in stored.items() if key in KEYS}
        fields: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**fields)

    def differences(self, wanted: ClusterSpec) -> list[str]:
        """Lines `key: is → wanted` for what differs, for the things a cluster is made with."""
        is_now, asked = self.to_dict(), wanted.to_dict()
        lines = [
            f"{key}: {is_now[key]!r} → {asked[key]!r}"
            for key, name in KEYS.items()
            if name not in _OF_IMAGE and is_now[key] != asked[key]
        ]
        # A proxy's URL may hold a password. What hides it is compiled only where it is needed.
        from sykube import redaction

        return [redaction.text(line) for line in lines]


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


# The configuration file's keys, each with the field that it is for.
KEYS = {_camel(field.name): field.name for field in dataclasses.fields(ClusterSpec)}


def _name(value: str) -> str:
    if not _DNS_LABEL.fullmatch(value) or len(value) > _NAME_MAX:
        return (
            f"the name {value!r} is not a DNS label: lower-case letters, digits and inner hyphens, "
            f"{_NAME_MAX} characters at most"
        )
    return f"the name {value!r} is kept for sykube itself" if value in _RESERVED_NAMES else ""


def _workers(value: int) -> str:
    ok = 0 <= value <= MAX_WORKERS
    return "" if ok else f"the number of workers must be from 0 to {MAX_WORKERS}, not {value}"


def _control_planes(value: int) -> str:
    ok = value in CONTROL_PLANES
    return "" if ok else f"the number of control planes must be 1, 3 or 5, not {value}"


def _cpus(value: str) -> str:
    try:
        millicores = parse_cpus(value)
    except ValueError:
        return f"the limit of processors {value!r} is not a number such as 2 or 1.5"
    if value and millicores < LEAST_MILLICORES:
        return f"the limit of processors {value} is too low: a node needs at least 0.5"
    return ""


def _memory(value: str) -> str:
    try:
        size = parse_memory(value)
    except ValueError:
        return f"the limit of memory {value!r} is not a size such as 2Gi or 1500M"
    if value and size < LEAST_MEMORY:
        return f"the limit of memory {value} is too low: a node needs at least 1Gi"
    return ""


def _pids(value: int) -> str:
    ok = value == 0 or value >= LEAST_PIDS
    return "" if ok else f"the limit of processes must be at least {LEAST_PIDS}, not {value}"


def _addons(value: tuple[str, ...]) -> str:
    # Not above: it takes longer to import than most commands take.
    from sykube.addons import catalog

    unknown = [name for name in value if name not in catalog.NAMES]
    known = ", ".join(catalog.NAMES)
    return f"there is no add-on {unknown[0]!r}; there are: {known}" if unknown else ""


def _ports(value: tuple[str, ...]) -> str:
    try:
        found = [PortMap.parse(text) for text in value]
    except ValueError as error:
        return str(error)
    for number, port in enumerate(found):
        if any(port.collides(other) for other in found[:number]):
            return f"the port {port.host_port} of {port.address} is asked for twice"
    return ""


def _registry_mirrors(value: tuple[str, ...]) -> str:
    try:
        for text in value:
            Mirror.parse(text)
    except ValueError as error:
        return str(error)
    return ""


def _mounts(value: tuple[str, ...]) -> str:
    try:
        found = [Mount.parse(text) for text in value]
    except ValueError as error:
        return str(error)
    inside = [mount.inside for mount in found]
    twice = next((path for path in inside if inside.count(path) > 1), "")
    return f"two folders are to be at {twice} in the nodes" if twice else ""


def _absolute(value: str) -> str:
    return "" if not value or value.startswith("/") else f"the path {value!r} must be absolute"


def _absolutes(value: tuple[str, ...]) -> str:
    return next(filter(None, map(_absolute, value)), "")


def _fingerprint(value: str) -> str:
    try:
        read_fingerprint(value or 40 * "0")
    except ValueError as error:
        return str(error)
    return ""


def _proxy(name: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        wrong = proxies.problem(value)
        return f"the {name} {wrong}" if wrong else ""

    return check


def _no_proxy(value: tuple[str, ...]) -> str:
    wrong = next(filter(None, map(proxies.exception_problem, value)), "")
    return f"{wrong} that can be reached without a proxy" if wrong else ""


def _resolvers(value: tuple[str, ...]) -> str:
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


def _subnet(prefix: int) -> Callable[[str], str]:
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


def _service_subnet(value: str) -> str:
    problem = _subnet(24)(value)
    # cmd/kube-apiserver/app/options/validation.go, validateClusterIPFlags: at most 20 bits.
    if not problem and value and IPv4Network(value).prefixlen < 12:
        return f"the subnet {value} is too large: kube-apiserver takes a /12 or smaller one"
    return problem


def _mirror(value: str) -> str:
    ok = not value or urlsplit(value).scheme in ("http", "https", "file")
    return "" if ok else f"the mirror {value!r} is not a URL"


def _source(value: str) -> str:
    known = ", ".join(SOURCES)
    return "" if value in SOURCES else f"there is no source {value!r}; there are: {known}"


def _site(name: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        wrong = sites.problem(name, value) if value else ""
        return f"{sites.SETTINGS[name].option.removeprefix('--')} {wrong}" if wrong else ""

    return check


_CHECKS: dict[str, Callable[[Any], str]] = {
    "name": _name,
    "addons": _addons,
    "ports": _ports,
    "registry_mirrors": _registry_mirrors,
    "registry_auth": _absolute,
    "mounts": _mounts,
    "workers": _workers,
    "dest": _absolute,
    "network_dir": _absolute,
    "local_image": _absolute,
    "fingerprint": _fingerprint,
    "public_key": _absolute,
    "ca_certificates": _absolutes,
    "http_proxy": _proxy("proxy for HTTP"),
    "https_proxy": _proxy("proxy for HTTPS"),
    "no_proxy": _no_proxy,
    "dns": _resolvers,
    "mirror": _mirror,
    "source": _source,
    **{field: _site(name) for name, field in _SITES.items()},
    "control_planes": _control_planes,
    "cpus": _cpus,
    "memory": _memory,
    "pids": _pids,
    "node_subnet": _subnet(24),
    "pod_subnet": _subnet(16),
    "service_subnet": _service_subnet,
    "pod_network": pod_network.problem,
}


def problem_with(name: str, value: Any) -> str:
    """What is wrong with the value of a field, or nothing."""
    return _CHECKS[name](value) if name in _CHECKS else ""


def check_name(name: str) -> None:
    """Refuse a cluster name that is no DNS label.

    Raises:
        UsageError: it is not.
    """
    if problem := _name(name):
        raise UsageError(problem, resolution="Choose another name with --name.")
