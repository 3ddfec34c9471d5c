"""Unbound's configuration, and how it is started."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from sykube import resources
from sykube.incluster.dns import unbound
from sykube.incluster.dns.__main__ import parse_arguments
from sykube.incluster.dns.unbound import Configuration, upstreams

CIDRS = ("10.96.0.0/12", "10.244.0.0/16")


def clauses(text: str) -> list[tuple[str, dict[str, list[str]]]]:
    """The clauses of an unbound.conf with all values of each option."""
    found: list[tuple[str, dict[str, list[str]]]] = []
    for line in text.splitlines():
        line = line.split("#")[0].rstrip()
        if line and not line.startswith(" "):
            found.append((line.removesuffix(":"), {}))
        elif line:
            option, _, value = line.strip().partition(": ")
            found[-1][1].setdefault(option, []).append(value)
    return found


def clause(text: str, name: str) -> dict[str, list[str]]:
    (options,) = [options for each, options in clauses(text) if each == name]
    return options


def test_resolvers() -> None:
    text = (
        "# by hand\n"
        "search example.org\n"
        "domain example.org\n"
        "nameserver 192.0.2.1\n"
        "nameserver\t2001:db8::1 # the other\n"
        "  nameserver 169.254.169.254\n"
        "nameserver 192.0.2.1\n"
        "options ndots:5\n"
        "nameserver\n"
    )
    assert upstreams(text) == ["192.0.2.1", "2001:db8::1", "169.254.169.254"]


@pytest.mark.parametrize(
    "address", ["127.0.0.53", "127.0.0.1", "::1", "0.0.0.0", "fe80::1%eth0", "fe80::1", "router"]
)
def test_resolvers_that_a_pod_cannot_reach(address: str, caplog: pytest.LogCaptureFixture) -> None:
    assert upstreams(f"nameserver {address}\nnameserver 192.0.2.1\n") == ["192.0.2.1"]
    assert address in caplog.text


def test_every_zone_of_the_cluster_is_asked_of_records() -> None:
    text = Configuration("cluster.local", CIDRS, ["192.0.2.1"]).render()
    stubs = [options for name, options in clauses(text) if name == "stub-zone"]
    zones = ['"cluster.local."']
    zones += [f'"{octet}.10.in-addr.arpa."' for octet in range(96, 112)]
    zones += ['"244.10.in-addr.arpa."']
    assert [options.pop("name") for options in stubs] == [[zone] for zone in zones]
    assert all(options == {"stub-addr": ["127.0.0.1@5353"]} for options in stubs)
    # Unbound must not answer for any of them by itself.
    local = clause(text, "server")["local-zone"]
    assert {f"{zone} transparent" for zone in zones} <= set(local)


def test_everything_else_is_forwarded() -> None:
    text = Configuration("cluster.local", CIDRS, ["192.0.2.1", "2001:db8::1"]).render()
    assert clause(text, "forward-zone") == {
        "name": ['"."'],
        "forward-addr": ["192.0.2.1", "2001:db8::1"],
    }


def test_without_resolvers_nobody_looks_for_the_internet() -> None:
    text = Configuration("cluster.local", CIDRS, [], records="127.0.0.1@99").render()
    assert clause(text, "forward-zone")["forward-addr"] == ["127.0.0.1@99"]


def test_server_options() -> None:
    configuration = Configuration(
        "cluster.local.", port=1053, interfaces=["0.0.0.0", "::0"], verbosity=2
    )
    server = clause(configuration.render(), "server")
    assert server["port"] == ["1053"]
    assert server["interface"] == ["0.0.0.0", "::0"]
    assert server["verbosity"] == ["2"]
    expected = {
        "username": '""',
        "chroot": '""',
        "pidfile": '""',
        "logfile": '""',
        "use-syslog": "no",
        "num-threads": "1",
        "do-tcp": "yes",
        "do-not-query-localhost": "no",
        "unblock-lan-zones": "yes",
        "module-config": '"iterator"',
        "qname-minimisation": "no",
        "minimal-responses": "no",
        "rrset-roundrobin": "yes",
        "edns-buffer-size": "1232",
        "msg-cache-size": "8m",
        "rrset-cache-size": "8m",
        "cache-min-ttl": "0",
        "serve-expired": "no",
        "infra-host-ttl": "1",
    }
    assert {name: server[name] for name in expected} == {
        name: [value] for name, value in expected.items()
    }


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command lines that would have replaced this process."""
    commands: list[list[str]] = []
    # Or the test would become unbound.
    monkeypatch.setattr(os, "execvp", lambda _, command: commands.append(command))
    return commands


def test_start(started: list[list[str]], tmp_path: Path) -> None:
    resolv_conf, config = tmp_path / "resolv.conf", tmp_path / "unbound.conf"
    resolv_conf.write_text("nameserver 192.0.2.1\n")
    unbound.main(
        [
            *("--zone=k8s.test", "--reverse-cidr=10.96.0.0/12", "--reverse-cidr=10.244.0.0/16"),
            *(f"--resolv-conf={resolv_conf}", "--records=127.0.0.1@99", "--port=1053"),
            f"--config={config}",
        ]
    )
    assert started == [["unbound", "-d", "-c", str(config)]]
    expected = Configuration("k8s.test", CIDRS, ["192.0.2.1"], records="127.0.0.1@99", port=1053)
    assert config.read_text() == expected.render()


def test_named_upstreams_come_instead_of_the_file(started: list[list[str]], tmp_path: Path) -> None:
    config = tmp_path / "unbound.conf"
    upstream = "--upstream=127.0.0.1@5399"
    unbound.main([upstream, "--resolv-conf=/nonexistent", f"--config={config}"])
    assert started
    assert clause(config.read_text(), "forward-zone")["forward-addr"] == ["127.0.0.1@5399"]


def test_no_resolver_is_a_warning(
    started: list[list[str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "resolv.conf").write_text("search example.org\n")
    unbound.main([f"--resolv-conf={tmp_path}/resolv.conf", f"--config={tmp_path}/unbound.conf"])
    assert started
    assert "only cluster names resolve" in caplog.text


@pytest.mark.parametrize(
    "arguments",
    [
        ["--resolv-conf=/dev/null/absent"],
        ["--resolv-conf=/dev/null", "--config=/dev/null/absent/unbound.conf"],
        ["--resolv-conf=/dev/null", "--config=/dev/null", "--program=/dev/null/absent"],
    ],
)
def test_what_cannot_start_says_why_in_a_line(
    arguments: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(SystemExit) as error:
        unbound.main(arguments)
    assert error.value.code == 1
    last = caplog.records[-1]
    assert last.levelname == "ERROR"
    assert last.exc_info is None
    assert "absent" in last.getMessage()


def test_a_wrong_range_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        unbound.main(["--reverse-cidr=10.96.0.1/12"])
    assert error.value.code == 2
    assert "10.96.0.1/12" in capsys.readouterr().err


@pytest.fixture
def manifest() -> dict[str, dict[str, Any]]:
    """The rendered objects by their kind."""
    text = resources.render(
        "manifests",
        "dns.yaml.j2",
        image="example.org/dns:1",
        cluster_dns_ip="10.96.0.10",
        cluster_domain="cluster.local",
        reverse_cidrs=CIDRS,
        api_server="https://10.11.11.2:6443",
        replicas=2,
    )
    return {each["kind"]: each for each in yaml.safe_load_all(text)}


def test_manifest_starts_all_programs(
    manifest: dict[str, dict[str, Any]], started: list[list[str]], tmp_path: Path
) -> None:
    front, first, second = manifest["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert front["command"] == ["python3", "-m", "incluster.dns.front"]
    assert front["args"] == ["--listen=0.0.0.0:53", "--unbound=127.0.0.1:1053"]
    assert first["command"] == ["python3", "-m", "incluster.dns.unbound"]
    config = tmp_path / "unbound.conf"
    unbound.main([*first["args"], "--upstream=192.0.2.1", f"--config={config}"])
    assert started
    expected = Configuration("cluster.local", CIDRS, ["192.0.2.1"], port=1053)
    assert config.read_text() == expected.render()

    assert second["command"] == ["python3", "-m", "incluster.dns"]
    options = parse_arguments(second["args"])
    assert (options.zone, tuple(options.reverse_cidr)) == ("cluster.local", CIDRS)
    assert options.api_server == "https://10.11.11.2:6443"
    assert options.listen == ("127.0.0.1", 5353)
    health = [port["containerPort"] for port in second["ports"] if port["name"] == "health"]
    assert health == [options.health.port]


def test_manifest_leads_to_unbound_over_tcp_and_to_its_front_over_udp(
    manifest: dict[str, dict[str, Any]],
) -> None:
    service, deployment = manifest["Service"]["spec"], manifest["Deployment"]["spec"]
    assert service["clusterIP"] == "10.96.0.10"
    assert service["selector"] == deployment["selector"]["matchLabels"]
    inside = {
        port["name"]: (container["name"], port["containerPort"], port["protocol"])
        for container in deployment["template"]["spec"]["containers"]
        for port in container["ports"]
    }
    leads_to = {inside[port["targetPort"]] for port in service["ports"]}
    assert leads_to == {("front", 53, "UDP"), ("unbound", 1053, "TCP")}
    assert {(port["port"], port["protocol"]) for port in service["ports"]} == {
        (53, "UDP"),
        (53, "TCP"),
    }


def test_manifest_asks_for_little(manifest: dict[str, dict[str, Any]]) -> None:
    assert manifest["ClusterRole"]["rules"] == [
        {"apiGroups": [""], "resources": ["services", "endpoints"], "verbs": ["list", "watch"]}
    ]
    spec = manifest["Deployment"]["spec"]["template"]["spec"]
    assert spec["serviceAccountName"] == manifest["ServiceAccount"]["metadata"]["name"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    little = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True}
    front, *others = [container["securityContext"] for container in spec["containers"]]
    assert others == [little | {"capabilities": {"drop": ["ALL"]}}] * 2
    assert front == little | {
        "runAsNonRoot": False,
        "runAsUser": 0,
        "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
    }
