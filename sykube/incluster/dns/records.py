"""From Services and Endpoints to DNS records, as Kubernetes' DNS specification 1.1.0 has it.

https://github.com/kubernetes/dns/blob/master/docs/specification.md

Everything here is immutable: `Zone.updated` returns a new zone, and recomputes only the records of
the Services whose objects are given.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import dns.exception
import dns.name
import dns.rdata
import dns.rdataset
from dns.name import Name
from dns.rdataclass import RdataClass
from dns.rdataset import ImmutableRdataset, Rdataset
from dns.rdatatype import RdataType

from .reverse import reverse_zones

log = logging.getLogger(__name__)

SCHEMA_VERSION = "1.1.0"
"""What `dns-version.ZONE` says, the same as CoreDNS' (plugin/kubernetes: DNSSchemaVersion)."""

TTL = 5
"""Seconds for every record: the default of CoreDNS' kubernetes plugin (its README, `ttl`)."""

NEGATIVE_TTL = 5
"""Seconds for "no such name": CoreDNS puts its TTL into the SOA's minimum (backend_lookup.go)."""

NAME_SERVER = ("kube-dns", "kube-system", "svc")
"""The name server of all zones is the Service that clients ask, relative to the zone."""

Labels = tuple[str, ...]
Json = Mapping[str, Any]
RRsets = Mapping[RdataType, Rdataset]
Pointers = Mapping[Labels, tuple[dns.rdata.Rdata, ...]]

_NOTHING: RRsets = MappingProxyType({})
_T = TypeVar("_T")


class Key(NamedTuple):
    """Names a Service, and the Endpoints that go with it."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Port:
    """A port with a name; ports without one have no records."""

    name: str
    protocol: str
    number: int


@dataclass(frozen=True, slots=True)
class Service:
    """What DNS needs to know of a Service."""

    key: Key
    addresses: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()
    headless: bool = False
    external_name: str = ""


@dataclass(frozen=True, slots=True)
class Address:
    """A ready endpoint: its IP address and its label below the Service's name."""

    ip: str
    label: str


@dataclass(frozen=True, slots=True)
class Subset:
    """Endpoints that share their ports."""

    addresses: tuple[Address, ...]
    ports: tuple[Port, ...]


@dataclass(frozen=True, slots=True)
class Endpoints:
    """What DNS needs to know of an Endpoints object."""

    key: Key
    subsets: tuple[Subset, ...] = ()


def key_of(obj: Json) -> Key:
    """The key of a Service or Endpoints object."""
    metadata = obj["metadata"]
    return Key(str(metadata["namespace"]).lower(), str(metadata["name"]).lower())


def parse_service(obj: Json) -> Service:
    """Take what matters from a core/v1 Service."""
    key = key_of(obj)
    spec = obj.get("spec") or {}
    if spec.get("type") == "ExternalName":
        return Service(key, external_name=str(spec.get("externalName") or ""))
    # clusterIPs (dual stack) came with 1.20; clusterIP is its first member.
    addresses = spec.get("clusterIPs") or [spec.get("clusterIP") or ""]
    return Service(
        key,
        addresses=tuple(_valid_addresses(addresses)),
        ports=tuple(_named_ports(spec)),
        headless="None" in addresses,
    )


def parse_endpoints(obj: Json) -> Endpoints:
    """Take what matters from core/v1 Endpoints.

    `notReadyAddresses` are left out. A Service with `publishNotReadyAddresses` needs no care: its
    Endpoints carry all pods in `addresses`.
    """
    subsets = tuple(
        Subset(tuple(_ready_addresses(subset)), tuple(_named_ports(subset)))
        for subset in obj.get("subsets") or ()
    )
    return Endpoints(key_of(obj), tuple(subset for subset in subsets if subset.addresses))


def _named_ports(holder: Json) -> Iterator[Port]:
    for port in holder.get("ports") or ():
        if name := port.get("name"):
            protocol = port.get("protocol") or "TCP"
            yield Port(str(name).lower(), str(protocol).lower(), int(port["port"]))


def _valid_addresses(candidates: Iterable[Any]) -> Iterator[str]:
    for candidate in candidates:
        try:
            ip = ipaddress.ip_address(str(candidate))
        except ValueError:
            continue
        if getattr(ip, "scope_id", None) is None:  # fe80::1%eth0 means nothing elsewhere
            yield str(ip)


def _ready_addresses(subset: Json) -> Iterator[Address]:
    for address in subset.get("addresses") or ():
        for ip in _valid_addresses([address.get("ip")]):
            hostname = str(address.get("hostname") or "").lower()
            # The specification leaves this label open; it is the one CoreDNS gives.
            yield Address(ip, hostname or ip.replace(".", "-").replace(":", "-"))


@dataclass(frozen=True, slots=True)
class ServiceRecords:
    """All that one Service puts into the zones.

    Args:
        names: labels below the Service's own name to what is there. A name without records that
            has names below it is present and empty.
        pointers: labels of a reverse name to its PTR records.
    """

    names: Mapping[Labels, RRsets] = field(default_factory=dict)
    pointers: Pointers = field(default_factory=dict)


class _Collector:
    """Gathers the records of the Service that has the name `owner`."""

    def __init__(self, owner: Name) -> None:
        self.owner = owner
        self._names: dict[Labels, dict[RdataType, Rdataset]] = {}
        self._pointers: dict[Labels, dict[dns.rdata.Rdata, None]] = {}

    def add(self, labels: Labels, rdata: dns.rdata.Rdata) -> None:
        for start in range(1, len(labels)):
            self._names.setdefault(labels[start:], {})
        rrsets = self._names.setdefault(labels, {})
        if rdata.rdtype not in rrsets:
            rrsets[rdata.rdtype] = Rdataset(RdataClass.IN, rdata.rdtype, ttl=TTL)
        rrsets[rdata.rdtype].add(rdata)

    def add_port(self, port: Port, target: Name) -> None:
        rdata = _rdata(RdataType.SRV, f"0 100 {port.number} {target}")
        self.add((f"_{port.name}", f"_{port.protocol}"), rdata)

    def add_pointer(self, ip: str, target: Name) -> None:
        self._pointers.setdefault(_reverse_labels(ip), {})[_rdata(RdataType.PTR, target)] = None

    def result(self) -> ServiceRecords:
        return ServiceRecords(
            {
                labels: {rdtype: ImmutableRdataset(rrset) for rdtype, rrset in rrsets.items()}
                for labels, rrsets in self._names.items()
            },
            {labels: tuple(rdatas) for labels, rdatas in self._pointers.items()},
        )


def service_records(service: Service, endpoints: Endpoints | None, origin: Name) -> ServiceRecords:
    """All records of one Service.

    A headless Service without ready endpoints has none, so that its name does not exist: the
    specification asks for NXDOMAIN there (2.4.1). DNSException if DNS cannot express the names.
    """
    collector = _Collector(_below(origin, service.key.name, service.key.namespace, "svc"))
    if service.external_name:
        target = dns.name.from_text(service.external_name)
        collector.add((), _rdata(RdataType.CNAME, target))
    elif service.headless:
        _add_headless(collector, endpoints)
    else:
        _add_cluster_ips(collector, service)
    return collector.result()


def _add_cluster_ips(collector: _Collector, service: Service) -> None:
    for ip in service.addresses:
        collector.add((), _address_rdata(ip))
        collector.add_pointer(ip, collector.owner)
    if service.addresses:
        for port in service.ports:
            collector.add_port(port, collector.owner)


def _add_headless(collector: _Collector, endpoints: Endpoints | None) -> None:
    for subset in endpoints.subsets if endpoints else ():
        for address in subset.addresses:
            target = _below(collector.owner, address.label)
            rdata = _address_rdata(address.ip)
            collector.add((), rdata)
            collector.add((address.label,), rdata)
            collector.add_pointer(address.ip, target)
            for port in subset.ports:
                collector.add_port(port, target)


def _below(parent: Name, *labels: str) -> Name:
    return Name([label.encode() for label in labels]).concatenate(parent)


def _rdata(rdtype: RdataType, text: object) -> dns.rdata.Rdata:
    return dns.rdata.from_text(RdataClass.IN, rdtype, str(text))


def _address_rdata(ip: str) -> dns.rdata.Rdata:
    return _rdata(RdataType.AAAA if ":" in ip else RdataType.A, ip)


def _rrset(*rdatas: dns.rdata.Rdata) -> Rdataset:
    return dns.rdataset.from_rdata_list(TTL, rdatas)


def _reverse_labels(ip: str) -> Labels:
    return (*ipaddress.ip_address(ip).reverse_pointer.split("."), "")


class Found(NamedTuple):
    """What a zone knows of a name: `rrsets` is None if the name does not exist."""

    apex: Name
    rrsets: RRsets | None


@dataclass(frozen=True)
class Zone:
    """The cluster's zone and its reverse zones at one moment.

    Args:
        origin: the cluster domain, such as cluster.local.
        serial: of the SOA records; one more with each change.
        apexes: labels to name, of the origin and the reverse zones.
        services: what is known of each Service.
        endpoints: what is known of each Endpoints object, with or without its Service.
        records: what each Service puts into the zones.
        namespaces: how many Services each namespace has.
        pointers: labels of a reverse name to the PTR records of all Services.
    """

    origin: Name
    serial: int = 1
    apexes: Mapping[Labels, Name] = field(default_factory=dict)
    services: Mapping[Key, Service] = field(default_factory=dict)
    endpoints: Mapping[Key, Endpoints] = field(default_factory=dict)
    records: Mapping[Key, ServiceRecords] = field(default_factory=dict)
    namespaces: Mapping[str, int] = field(default_factory=dict)
    pointers: Pointers = field(default_factory=dict)

    @classmethod
    def empty(cls, domain: str, reverse_cidrs: Iterable[str] = (), serial: int = 1) -> Zone:
        domains = [domain, *(zone for cidr in reverse_cidrs for zone in reverse_zones(cidr))]
        names = [dns.name.from_text(domain) for domain in domains]
        return cls(names[0], serial, {lower_labels(name): name for name in names})

    def updated(
        self,
        services: Mapping[Key, Service | None] = MappingProxyType({}),
        endpoints: Mapping[Key, Endpoints | None] = MappingProxyType({}),
    ) -> Zone:
        """The zone after these objects changed; None stands for one that is gone.

        Only the records of these Services are recomputed. If nothing changed, it is the same zone.
        """
        changed = {key for key, value in services.items() if self.services.get(key) != value}
        changed |= {key for key, value in endpoints.items() if self.endpoints.get(key) != value}
        if not changed:
            return self
        after = replace(
            self,
            serial=self.serial % 0xFFFFFFFF + 1,
            services=_merged(self.services, services),
            endpoints=_merged(self.endpoints, endpoints),
        )
        return after._with_records_of(changed)

    def _with_records_of(self, changed: Iterable[Key]) -> Zone:
        records = dict(self.records)
        namespaces = dict(self.namespaces)
        pointers = dict(self.pointers)
        for key in changed:
            if (before := records.pop(key, None)) is not None:
                namespaces[key.namespace] -= 1
                _remove_pointers(pointers, before.pointers)
            if (service := self.services.get(key)) is not None:
                now = self._records_of(service)
                records[key] = now
                namespaces[key.namespace] = namespaces.get(key.namespace, 0) + 1
                for labels, rdatas in now.pointers.items():
                    pointers[labels] = pointers.get(labels, ()) + rdatas
            if not namespaces.get(key.namespace):
                namespaces.pop(key.namespace, None)
        return replace(self, records=records, namespaces=namespaces, pointers=pointers)

    def _records_of(self, service: Service) -> ServiceRecords:
        try:
            return service_records(service, self.endpoints.get(service.key), self.origin)
        except dns.exception.DNSException as error:
            log.warning("no records for service=%s/%s error=%r", *service.key, error)
            return ServiceRecords()

    def find(self, name: Name) -> Found | None:
        """Look a name up; None if it is in none of the zones."""
        labels = lower_labels(name)
        for start in range(len(labels)):
            if (apex := self.apexes.get(labels[start:])) is not None:
                forward = apex == self.origin
                rrsets = self._forward(labels[:start]) if forward else self._reverse(labels)
                return Found(apex, {**(rrsets or {}), **self._apex_rrsets} if not start else rrsets)
        return None

    @cached_property
    def soa(self) -> Rdataset:
        """The SOA record, which all zones share; its timers are CoreDNS' (backend_lookup.go)."""
        server = _below(self.origin, *NAME_SERVER)
        mailbox = _below(self.origin, "hostmaster")
        timers = f"7200 1800 86400 {NEGATIVE_TTL}"
        return _rrset(_rdata(RdataType.SOA, f"{server} {mailbox} {self.serial} {timers}"))

    @cached_property
    def _apex_rrsets(self) -> RRsets:
        server = _rdata(RdataType.NS, _below(self.origin, *NAME_SERVER))
        return {RdataType.SOA: self.soa, RdataType.NS: _rrset(server)}

    def _forward(self, labels: Labels) -> RRsets | None:
        match labels:
            case () | ("svc",) | ("pod",) | (_, "pod"):
                # Namespaces are not watched, and of pods the specification says "any values".
                return _NOTHING
            case ("dns-version",):
                return {RdataType.TXT: _rrset(_rdata(RdataType.TXT, SCHEMA_VERSION))}
            case (namespace, "svc"):
                return _NOTHING if namespace in self.namespaces else None
            case (*rest, service, namespace, "svc"):
                records = self.records.get(Key(namespace, service))
                return records.names.get(tuple(rest)) if records else None
            case (address, _, "pod"):
                return _pod_address(address)
            case _:
                return None

    def _reverse(self, labels: Labels) -> RRsets | None:
        if pointers := self.pointers.get(labels):
            return {RdataType.PTR: _rrset(*pointers)}
        # Addresses have 4 or 32 labels, "in-addr" or "ip6", "arpa" and the root: what is shorter
        # exists if an address is below it.
        if len(labels) < (35 if "ip6" in labels[-3:] else 7):
            count = len(labels)
            if any(pointer[-count:] == labels for pointer in self.pointers):
                return _NOTHING
        return None


def lower_labels(name: Name) -> Labels:
    """A name as lower-case labels, the root's empty one included."""
    return tuple(label.decode("latin-1").lower() for label in name.labels)


def _pod_address(label: str) -> RRsets | None:
    """`1-2-3-4` as an address, of IPv6 too: `fd00--1`."""
    candidate = label.replace("-", "." if label.count("-") == 3 and "--" not in label else ":")
    for ip in _valid_addresses([candidate]):
        rdata = _address_rdata(ip)
        return {rdata.rdtype: _rrset(rdata)}
    return None


def _remove_pointers(pointers: dict[Labels, tuple[dns.rdata.Rdata, ...]], gone: Pointers) -> None:
    for labels, rdatas in gone.items():
        left = tuple(rdata for rdata in pointers.get(labels, ()) if rdata not in rdatas)
        if left:
            pointers[labels] = left
        else:
            pointers.pop(labels, None)


def _merged(before: Mapping[Key, _T], changes: Mapping[Key, _T | None]) -> Mapping[Key, _T]:
    after = dict(before)
    for key, value in changes.items():
        if value is None:
            after.pop(key, None)
        else:
            after[key] = value
    return after
