"""The records of Kubernetes' DNS specification, from Services and Endpoints."""

from __future__ import annotations

import ipaddress
from typing import Any

import dns.name
import dns.rdatatype
import pytest

from sykube.incluster.dns import records, reverse
from sykube.incluster.dns.records import Key, Zone

CIDRS = ("10.96.0.0/12", "10.244.0.0/16", "fd00:10:96::/112", "fd00:10:244::/64")
Json = dict[str, Any]


def service(name: str, namespace: str = "default", **spec: Any) -> Json:
    return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}


def endpoints(name: str, *subsets: Json, namespace: str = "default") -> Json:
    return {"metadata": {"name": name, "namespace": namespace}, "subsets": list(subsets)}


def subset(addresses: list[Any], ports: list[Json] | None = None, **more: Any) -> Json:
    addresses = [{"ip": each} if isinstance(each, str) else each for each in addresses]
    return {"addresses": addresses, "ports": ports, **more}


def port(number: int, name: str | None = None, protocol: str | None = None) -> Json:
    return (
        {"port": number}
        | ({"name": name} if name else {})
        | ({"protocol": protocol} if protocol else {})
    )


def updated(zone: Zone, *objects: Json) -> Zone:
    services = [records.parse_service(each) for each in objects if "spec" in each]
    known = [records.parse_endpoints(each) for each in objects if "subsets" in each]
    return zone.updated({each.key: each for each in services}, {each.key: each for each in known})


def zone_of(*objects: Json) -> Zone:
    return updated(Zone.empty("cluster.local", CIDRS), *objects)


def ask(zone: Zone, name: str, rdtype: str = "A") -> set[str] | str:
    """The records as text, or "NODATA", "NXDOMAIN", or "REFUSED" for a name of another zone."""
    found = zone.find(dns.name.from_text(name))
    if found is None:
        return "REFUSED"
    if found.rrsets is None:
        return "NXDOMAIN"
    rrset = found.rrsets.get(dns.rdatatype.from_text(rdtype))
    if rrset is None:
        return "NODATA"
    assert rrset.ttl == 5
    return {rdata.to_text() for rdata in rrset}


HTTP = [port(80, "http"), port(53, "dns", "UDP"), port(9, None)]
WEB = service("web", clusterIP="10.96.0.7", ports=HTTP)
HEADLESS = service("db", clusterIP="None", ports=[port(5432, "sql")])
DB = endpoints(
    "db", subset([{"ip": "10.244.1.1", "hostname": "db-0"}, "10.244.1.2"], [port(6000, "sql")])
)


def test_schema_version() -> None:
    assert ask(zone_of(), "dns-version.cluster.local", "TXT") == {'"1.1.0"'}


def test_cluster_ip() -> None:
    zone = zone_of(WEB)
    assert ask(zone, "web.default.svc.cluster.local") == {"10.96.0.7"}
    assert ask(zone, "web.default.svc.cluster.local", "AAAA") == "NODATA"
    assert ask(zone, "_http._tcp.web.default.svc.cluster.local", "SRV") == {
        "0 100 80 web.default.svc.cluster.local."
    }
    assert ask(zone, "_dns._udp.web.default.svc.cluster.local", "SRV") == {
        "0 100 53 web.default.svc.cluster.local."
    }
    assert ask(zone, "7.0.96.10.in-addr.arpa", "PTR") == {"web.default.svc.cluster.local."}


def test_names_compare_without_case() -> None:
    assert ask(zone_of(WEB), "WEB.Default.SVC.cluster.LOCAL") == {"10.96.0.7"}
    assert ask(zone_of(WEB), "_HTTP._Tcp.web.default.svc.cluster.local", "SRV") != "NXDOMAIN"
    assert ask(zone_of(WEB), "7.0.96.10.IN-ADDR.ARPA", "PTR") == {"web.default.svc.cluster.local."}


def test_unnamed_port_has_no_srv() -> None:
    zone = zone_of(service("one", clusterIP="10.96.0.8", ports=[port(80)]))
    assert ask(zone, "_tcp.one.default.svc.cluster.local", "SRV") == "NXDOMAIN"
    zone = zone_of(
        service("one", clusterIP="None"), endpoints("one", subset(["10.244.0.9"], [port(80)]))
    )
    assert ask(zone, "_tcp.one.default.svc.cluster.local", "SRV") == "NXDOMAIN"
    assert ask(zone, "one.default.svc.cluster.local") == {"10.244.0.9"}


def test_headless() -> None:
    zone = zone_of(HEADLESS, DB)
    assert ask(zone, "db.default.svc.cluster.local") == {"10.244.1.1", "10.244.1.2"}
    assert ask(zone, "db-0.db.default.svc.cluster.local") == {"10.244.1.1"}
    assert ask(zone, "10-244-1-2.db.default.svc.cluster.local") == {"10.244.1.2"}
    assert ask(zone, "10-244-1-1.db.default.svc.cluster.local") == "NXDOMAIN"
    # The port of an endpoint is its own, not the Service's.
    assert ask(zone, "_sql._tcp.db.default.svc.cluster.local", "SRV") == {
        "0 100 6000 db-0.db.default.svc.cluster.local.",
        "0 100 6000 10-244-1-2.db.default.svc.cluster.local.",
    }
    assert ask(zone, "1.1.244.10.in-addr.arpa", "PTR") == {"db-0.db.default.svc.cluster.local."}
    assert ask(zone, "2.1.244.10.in-addr.arpa", "PTR") == {
        "10-244-1-2.db.default.svc.cluster.local."
    }


def test_one_hostname_with_two_addresses() -> None:
    addresses = [{"ip": "10.244.0.1", "hostname": "a"}, {"ip": "10.244.0.2", "hostname": "a"}]
    zone = zone_of(HEADLESS, endpoints("db", subset(addresses, [port(1, "sql")])))
    assert ask(zone, "a.db.default.svc.cluster.local") == {"10.244.0.1", "10.244.0.2"}
    assert ask(zone, "_sql._tcp.db.default.svc.cluster.local", "SRV") == {
        "0 100 1 a.db.default.svc.cluster.local."
    }


def test_subsets_keep_their_ports() -> None:
    zone = zone_of(
        HEADLESS,
        endpoints(
            "db",
            subset(["10.244.0.1"], [port(1, "sql")]),
            subset(["10.244.0.2"], [port(2, "sql"), port(3, "more")]),
        ),
    )
    name = "10-244-0-{}.db.default.svc.cluster.local."
    assert ask(zone, "_sql._tcp.db.default.svc.cluster.local", "SRV") == {
        f"0 100 1 {name.format(1)}",
        f"0 100 2 {name.format(2)}",
    }
    assert ask(zone, "_more._tcp.db.default.svc.cluster.local", "SRV") == {
        f"0 100 3 {name.format(2)}"
    }


def test_unready_endpoints_are_left_out() -> None:
    unready = subset([], notReadyAddresses=[{"ip": "10.244.0.3"}])
    zone = zone_of(HEADLESS, endpoints("db", unready))
    # "the answer should be NXDOMAIN" (2.4.1)
    assert ask(zone, "db.default.svc.cluster.local") == "NXDOMAIN"
    assert ask(zone, "3.0.244.10.in-addr.arpa", "PTR") == "NXDOMAIN"


def test_endpoints_of_a_cluster_ip_service_have_no_records() -> None:
    zone = zone_of(WEB, endpoints("web", subset(["10.244.0.4"], [port(80, "http")])))
    assert ask(zone, "web.default.svc.cluster.local") == {"10.96.0.7"}
    assert ask(zone, "4.0.244.10.in-addr.arpa", "PTR") == "NXDOMAIN"


@pytest.mark.parametrize("name", ["www.example.org", "www.example.org."])
def test_external_name(name: str) -> None:
    zone = zone_of(service("ext", type="ExternalName", externalName=name, ports=HTTP))
    assert ask(zone, "ext.default.svc.cluster.local", "CNAME") == {"www.example.org."}
    assert ask(zone, "_http._tcp.ext.default.svc.cluster.local", "SRV") == "NXDOMAIN"


def test_dual_stack() -> None:
    both = ["10.96.0.7", "fd00:10:96::7"]
    zone = zone_of(service("web", clusterIP=both[0], clusterIPs=both, ports=HTTP))
    assert ask(zone, "web.default.svc.cluster.local") == {"10.96.0.7"}
    assert ask(zone, "web.default.svc.cluster.local", "AAAA") == {"fd00:10:96::7"}
    pointer = ipaddress.ip_address("fd00:10:96::7").reverse_pointer
    assert ask(zone, pointer, "PTR") == {"web.default.svc.cluster.local."}
    assert ask(zone, pointer.split(".", 2)[2], "PTR") == "NODATA"


def test_ipv6_endpoint() -> None:
    zone = zone_of(HEADLESS, endpoints("db", subset(["fd00:10:244::a"])))
    assert ask(zone, "db.default.svc.cluster.local", "AAAA") == {"fd00:10:244::a"}
    label = "fd00-10-244--a"
    assert ask(zone, f"{label}.db.default.svc.cluster.local", "AAAA") == {"fd00:10:244::a"}
    pointer = ipaddress.ip_address("fd00:10:244::a").reverse_pointer
    assert ask(zone, pointer, "PTR") == {f"{label}.db.default.svc.cluster.local."}


@pytest.mark.parametrize(
    ("label", "rdtype", "answer"),
    [
        ("10-244-0-1", "A", {"10.244.0.1"}),
        ("255-255-255-255", "A", {"255.255.255.255"}),
        ("10-244-0-1", "AAAA", "NODATA"),
        ("fd00--1", "AAAA", {"fd00::1"}),
        ("10-244-0-256", "A", "NXDOMAIN"),
        ("10-244-0", "A", "NXDOMAIN"),
        ("010-1-1-1", "A", "NXDOMAIN"),
        ("fe80--1%eth0", "AAAA", "NXDOMAIN"),
        ("pod", "A", "NXDOMAIN"),
        ("x.10-244-0-1", "A", "NXDOMAIN"),
    ],
)
def test_pod_names(label: str, rdtype: str, answer: set[str] | str) -> None:
    assert ask(zone_of(), f"{label}.any.pod.cluster.local", rdtype) == answer


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("cluster.local", "NODATA"),
        ("svc.cluster.local", "NODATA"),
        ("pod.cluster.local", "NODATA"),
        ("default.svc.cluster.local", "NODATA"),
        ("any.pod.cluster.local", "NODATA"),
        ("_tcp.web.default.svc.cluster.local", "NODATA"),
        ("_http._tcp.web.default.svc.cluster.local", "NODATA"),
        ("dns-version.cluster.local", "NODATA"),
        ("96.10.in-addr.arpa", "NODATA"),
        ("0.96.10.in-addr.arpa", "NODATA"),
        ("other.cluster.local", "NXDOMAIN"),
        ("other.svc.cluster.local", "NXDOMAIN"),
        ("web.other.svc.cluster.local", "NXDOMAIN"),
        ("other.default.svc.cluster.local", "NXDOMAIN"),
        ("x.web.default.svc.cluster.local", "NXDOMAIN"),
        ("_sctp.web.default.svc.cluster.local", "NXDOMAIN"),
        ("_x._tcp.web.default.svc.cluster.local", "NXDOMAIN"),
        ("x._http._tcp.web.default.svc.cluster.local", "NXDOMAIN"),
        ("1.96.10.in-addr.arpa", "NXDOMAIN"),
        ("8.0.96.10.in-addr.arpa", "NXDOMAIN"),
        ("x.7.0.96.10.in-addr.arpa", "NXDOMAIN"),
        ("x.96.10.in-addr.arpa", "NXDOMAIN"),
        ("112.10.in-addr.arpa", "REFUSED"),
        ("10.in-addr.arpa", "REFUSED"),
        ("local", "REFUSED"),
        ("notcluster.local", "REFUSED"),
        (".", "REFUSED"),
    ],
)
def test_what_exists_and_what_does_not(name: str, answer: str) -> None:
    assert ask(zone_of(WEB), name) == answer


@pytest.mark.parametrize("apex", ["cluster.local", "244.10.in-addr.arpa"])
def test_apex(apex: str) -> None:
    zone = zone_of()
    server = "kube-dns.kube-system.svc.cluster.local."
    assert ask(zone, apex, "NS") == {server}
    soa = f"{server} hostmaster.cluster.local. {zone.serial} 7200 1800 86400 5"
    assert ask(zone, apex, "SOA") == {soa}


def test_an_address_may_be_an_apex() -> None:
    zone = updated(Zone.empty("cluster.local", ["10.96.0.0/30"]), WEB)
    assert ask(zone, "7.0.96.10.in-addr.arpa", "PTR") == "REFUSED"
    zone = updated(Zone.empty("cluster.local", ["10.96.0.4/30"]), WEB)
    assert ask(zone, "7.0.96.10.in-addr.arpa", "PTR") == {"web.default.svc.cluster.local."}
    assert ask(zone, "7.0.96.10.in-addr.arpa", "SOA") != "NODATA"


def test_order_of_arrival_does_not_matter() -> None:
    zone = updated(updated(zone_of(), DB), HEADLESS)
    assert ask(zone, "db.default.svc.cluster.local") == {"10.244.1.1", "10.244.1.2"}


def test_a_changed_service_leaves_nothing_behind() -> None:
    zone = updated(zone_of(WEB), service("web", clusterIP="10.96.0.9", ports=[port(80, "new")]))
    assert ask(zone, "web.default.svc.cluster.local") == {"10.96.0.9"}
    assert ask(zone, "7.0.96.10.in-addr.arpa", "PTR") == "NXDOMAIN"
    assert ask(zone, "_http._tcp.web.default.svc.cluster.local", "SRV") == "NXDOMAIN"
    zone = updated(zone, service("web", type="ExternalName", externalName="example.org"))
    assert ask(zone, "web.default.svc.cluster.local") == "NODATA"
    assert ask(zone, "9.0.96.10.in-addr.arpa", "PTR") == "NXDOMAIN"


def test_removal() -> None:
    key = Key("default", "db")
    zone = zone_of(HEADLESS, DB).updated(endpoints={key: None})
    assert ask(zone, "db.default.svc.cluster.local") == "NXDOMAIN"
    assert ask(zone, "default.svc.cluster.local") == "NODATA"
    zone = zone.updated(services={key: None})
    assert ask(zone, "default.svc.cluster.local") == "NXDOMAIN"
    empty = Zone.empty("cluster.local", CIDRS, serial=zone.serial)
    assert zone == empty


def test_a_shared_address_points_to_all_its_names() -> None:
    other = service("other", clusterIP="None")
    zone = zone_of(HEADLESS, DB, other, endpoints("other", subset(["10.244.1.1"])))
    names = {
        "db-0.db.default.svc.cluster.local.",
        "10-244-1-1.other.default.svc.cluster.local.",
    }
    assert ask(zone, "1.1.244.10.in-addr.arpa", "PTR") == names
    zone = zone.updated(services={Key("default", "db"): None})
    assert ask(zone, "1.1.244.10.in-addr.arpa", "PTR") == {
        "10-244-1-1.other.default.svc.cluster.local."
    }


def test_an_update_leaves_the_old_zone_and_other_services_alone() -> None:
    before = zone_of(WEB, HEADLESS, DB)
    after = updated(before, service("web", clusterIP="10.96.0.9"))
    assert ask(before, "web.default.svc.cluster.local") == {"10.96.0.7"}
    untouched = Key("default", "db")
    assert after.records[untouched] is before.records[untouched]
    assert after.serial == before.serial + 1


def test_only_the_changed_service_is_worked_out() -> None:
    zone = zone_of(WEB, HEADLESS, DB)
    after = updated(zone, WEB, HEADLESS, endpoints("db", subset(["10.244.1.9"])))
    kept = [key.name for key, found in after.records.items() if found is zone.records.get(key)]
    assert kept == ["web"]
    assert {key.name for key in after.records} == {"web", "db"}


def test_what_changes_nothing_is_the_same_zone() -> None:
    zone = zone_of(WEB, DB)
    lease = {**DB, "metadata": {**DB["metadata"], "annotations": {"renewTime": "now"}}}
    assert updated(zone, WEB, lease) is zone


def test_the_serial_wraps() -> None:
    zone = updated(Zone.empty("cluster.local", serial=0xFFFFFFFF), WEB)
    assert zone.serial == 1


def test_what_dns_cannot_express_harms_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    bad = service("bad", type="ExternalName", externalName="a..b")
    long = {"ip": "10.244.0.1", "hostname": "x" * 64}
    zone = zone_of(WEB, bad, HEADLESS, endpoints("db", subset([long])))
    assert ask(zone, "bad.default.svc.cluster.local") == "NXDOMAIN"
    assert ask(zone, "db.default.svc.cluster.local") == "NXDOMAIN"
    assert ask(zone, "web.default.svc.cluster.local") == {"10.96.0.7"}
    assert "default/bad" in caplog.text
    assert "default/db" in caplog.text


@pytest.mark.parametrize(
    "obj",
    [
        service("x"),
        service("x", clusterIP="", ports=None),
        service("x", clusterIP="not an address"),
        {"metadata": {"name": "x", "namespace": "default"}, "spec": None},
    ],
)
def test_a_service_without_address_has_no_records(obj: Json) -> None:
    assert ask(zone_of(obj), "x.default.svc.cluster.local") == "NXDOMAIN"


@pytest.mark.parametrize(
    ("cidr", "zones"),
    [
        ("10.96.0.0/12", [f"{octet}.10.in-addr.arpa" for octet in range(96, 112)]),
        ("10.244.0.0/16", ["244.10.in-addr.arpa"]),
        ("10.0.0.0/8", ["10.in-addr.arpa"]),
        ("192.168.8.0/23", ["8.168.192.in-addr.arpa", "9.168.192.in-addr.arpa"]),
        ("192.168.1.254/31", ["254.1.168.192.in-addr.arpa", "255.1.168.192.in-addr.arpa"]),
        ("fd00::/8", ["d.f.ip6.arpa"]),
        ("fd00::/9", [f"{nibble}.d.f.ip6.arpa" for nibble in range(8)]),
    ],
)
def test_reverse_zones(cidr: str, zones: list[str]) -> None:
    assert list(reverse.reverse_zones(cidr)) == zones


@pytest.mark.parametrize("cidr", ["10.96.0.1/12", "10.96.0.0/33", "x", ""])
def test_a_bad_range_is_an_error(cidr: str) -> None:
    with pytest.raises(ValueError):
        reverse.reverse_zones(cidr)
