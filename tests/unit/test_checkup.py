"""Each known problem of a cluster is named, with its cure; a cluster that is well has none."""

from __future__ import annotations

import json
import shutil
import types
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sykube.cli import doctor as command
from sykube.cluster.commands import checkup, lifecycle
from sykube.cluster.commands.checkup import files
from sykube.cluster.commands.lifecycle import InitOptions
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.model.spec import ClusterSpec
from sykube.errors import ExitCode, SykubeError
from sykube.host import inotify
from sykube.host.finding import Finding, Level
from sykube.host.host import Host
from sykube.host.paths import ClusterPaths
from sykube.host.run import CommandError
from sykube.network import firewall
from sykube.node import cgroups, process
from tests import fakes
from tests.fakes import World
from tests.fakes.apiserver import NODES
from tests.network_policies import policy
from tests.unit.test_certs import fill, pem


@pytest.fixture
def cluster(world: World) -> Cluster:
    """One that is well, with the links that the kernel makes for instances."""
    made = lifecycle.init(
        world.host, ClusterSpec(name="fake", dns=("127.0.0.53",)), InitOptions(), world.ui()
    )
    assert made is not None
    # By name: they started at once, in any order.
    for number, (_, instance) in enumerate(sorted(world.instances.items()), 9000):
        eth0 = world.path(f"/proc/{instance.pid}/root/sys/class/net/eth0")
        fakes.fill(eth0, {"iflink": f"{number}\n"})
        link = world.kernel.class_net / f"veth{number}"
        fakes.fill(link, {"ifindex": f"{number}\n", "operstate": "up\n"})
        (link / "master").symlink_to(world.kernel.class_net / "sk-fake")
    fill(made, datetime.now(UTC) + timedelta(days=300))
    return made


def found(cluster: Cluster, later: timedelta = timedelta()) -> dict[str, Finding]:
    """What is not well, by what it is about."""
    findings = checkup.run_checks(cluster, datetime.now(UTC) + later).findings
    return {each.what: each for each in findings if each.level is not Level.OK}


def test_a_cluster_that_is_well(cluster: Cluster) -> None:
    assert found(cluster) == {}
    assert checkup.run_checks(cluster).exit_code is ExitCode.OK
    said = {each.what for each in checkup.run_checks(cluster).findings}
    assert said >= {"nodes", "bridge", "iptables", "API server", "cluster DNS", "resolver", "disk"}
    assert said >= {"certificates"}


def test_an_engine_that_was_removed(cluster: Cluster, world: World) -> None:
    def gone(_: list[str]) -> fakes.Answer:
        raise CommandError("could not find the program apptainer", ["apptainer"], "")

    assert "engine" not in found(cluster)
    world.programs.answers["apptainer"] = gone
    bad = found(cluster)["engine"]
    assert "could not find" in bad.detail
    assert "/usr/bin/apptainer" in bad.cure


def test_every_failure_and_warning_has_a_cure(cluster: Cluster, world: World) -> None:
    world.end("fake-node1")
    world.services["kubelet"] = "STOPPED"
    world.programs.answers["iptables"] = lambda _: (1, "", "")
    world.kubernetes.clear()
    bad = found(cluster, timedelta(days=400))
    assert len(bad) >= 4
    assert all(each.cure for each in bad.values())


# --- nodes and what runs in them ---


def test_a_stopped_cluster(cluster: Cluster, world: World) -> None:
    for name in list(world.instances):
        world.end(name)
    looked = checkup.run_checks(cluster)
    assert looked.exit_code is ExitCode.STOPPED
    assert found(cluster)["nodes"].cure == "sykube start --name fake"


def test_a_node_that_does_not_run(cluster: Cluster, world: World) -> None:
    world.end("fake-node1")
    bad = found(cluster)["node node1"]
    assert (bad.level, bad.detail) == (Level.FAILURE, "its instance does not run")
    assert checkup.run_checks(cluster).exit_code is ExitCode.DEGRADED


def test_a_node_that_the_engine_has_lost_track_of(cluster: Cluster, world: World) -> None:
    pid = world.instances.pop("fake-node1").pid
    process = world.path(f"/proc/{pid}")
    (process / "ns").mkdir()
    (process / "ns/pid").symlink_to("pid:[4026532428]")
    (process / "status").write_text(f"Name:\tappinit\nNSpid:\t{pid}\t1\n")
    assert found(cluster)["node node1"].cure == f"kill -9 {pid} && sykube start --name fake"
    world.end("fake-master")
    assert checkup.run_checks(cluster).exit_code is ExitCode.DEGRADED


def test_a_node_that_has_something_of_what_started_it(
    cluster: Cluster, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = world.instances["fake-node1"].pid
    for hierarchy in world.cgroup_hierarchies():
        (hierarchy / "sykube/fake-node1/cgroup.procs").write_text("4710\n4711\n4712\n4713\n")
    # An orphan with the number of one that ended, a program of the node, what the engine's own
    # process started, which all others come from, and one that has ended meanwhile.
    for pid, parent, since in ((4710, first, 300), (4711, 4712, 200), (4712, first, 100)):
        rest = " ".join(["0"] * 17)
        stat = f"{pid} (a ) b) S {parent} {rest} {since} 0\n"
        fakes.fill(world.path(f"/proc/{pid}"), {"stat": stat})
    looked: list[int] = []

    def inherited(_: object, pid: int) -> list[str]:
        looked.append(pid)
        return ["umask 027", "nice 5"]

    # It asks the kernel (prlimit) about processes that only the fake host has.
    monkeypatch.setattr(process, "inherited", inherited)
    bad = found(cluster)["node node1"]
    assert looked == [4712]
    assert (bad.level, bad.cure) == (Level.WARNING, "sykube restart --name fake")
    assert bad.detail == "it has of what started it: umask 027; nice 5"


def test_a_paused_node(cluster: Cluster) -> None:
    cgroups.freeze(cluster.host, "fake-node1", frozen=True)
    assert found(cluster)["node node1"].cure == "sykube unpause --name fake"


@pytest.mark.parametrize(
    ("state", "cure"),
    [
        ("STOPPED", "sykube exec --name fake node1 supervisorctl start kubelet"),
        ("BACKOFF", "sykube logs --name fake node1 --service kubelet --tail 50 says why"),
    ],
)
def test_a_program_that_does_not_run(cluster: Cluster, world: World, state: str, cure: str) -> None:
    world.services["kubelet"] = state
    bad = found(cluster)["node node1"]
    assert bad.detail == f"kubelet is {state}"
    assert bad.cure == cure


def test_a_supervisord_that_does_not_answer(cluster: Cluster, world: World) -> None:
    world.network.supervisor_fails = ConnectionRefusedError("refused")
    assert "supervisord does not answer" in found(cluster)["node master"].detail


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ({"type": "Ready", "status": "False", "message": "no CNI"}, "NotReady: no CNI"),
        ({"type": "Ready", "status": "Unknown", "reason": "Gone"}, "NotReady: Gone"),
        ({"type": "DiskPressure", "status": "True", "message": "full"}, "DiskPressure: full"),
        ({"type": "MemoryPressure", "status": "True"}, "MemoryPressure: "),
    ],
)
def test_conditions_of_nodes(
    cluster: Cluster, world: World, condition: dict[str, str], words: str
) -> None:
    world.kubernetes["fake"].nodes["fake-node1"]["status"] = {"conditions": [condition]}
    assert found(cluster)["node node1"].detail == words


def test_a_cordoned_and_an_unregistered_node(cluster: Cluster, world: World) -> None:
    world.kubernetes["fake"].nodes["fake-node1"]["spec"]["unschedulable"] = True
    bad = found(cluster)["node node1"]
    assert bad.level is Level.WARNING
    assert bad.cure == "sykube kubectl --name fake uncordon fake-node1"
    del world.kubernetes["fake"].objects[f"{NODES}/fake-node1"]
    assert found(cluster)["node node1"].detail == "it is not registered"


def test_network_policies(cluster: Cluster, world: World) -> None:
    assert "network policies" not in found(cluster)
    path = "/apis/networking.k8s.io/v1/networkpolicies/bad"
    bad_block = {"from": [{"ipBlock": {"cidr": ""}}], "ports": [{"port": "web"}]}
    world.kubernetes["fake"].objects[path] = policy("x", "bad", {}, ingress=[bad_block])
    partly = found(cluster)["network policies"]
    assert partly.level is Level.WARNING
    assert "x/bad: ingress[0].from[0].ipBlock.cidr '' is no range of addresses" in partly.detail
    world.kubernetes["fake"].broken.add("network-policy")
    broken = found(cluster)["network policies"]
    assert broken.level is Level.FAILURE
    assert broken.cure.startswith("sykube kubectl --name fake -n kube-system logs ds/network-pol")
    cluster.state.addons.remove("network-policy")
    off = found(cluster)["network policies"]
    assert off.level is Level.WARNING
    assert off.detail.startswith("1 NetworkPolicy is accepted and not enforced")
    assert off.cure == "sykube addons enable --name fake network-policy"
    del cluster.state.versions["nftables"]
    assert found(cluster)["network policies"].cure.startswith("Create the cluster again")


def test_a_webhook_that_lets_nothing_through(cluster: Cluster, world: World) -> None:
    kubernetes = world.kubernetes["fake"]
    path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/inject"
    hook = {"metadata": {"name": "inject"}, "webhooks": [{"name": "pods.inject.example"}]}
    kubernetes.objects[path] = hook
    assert "webhook" not in found(cluster)
    kubernetes.webhook = "pods.inject.example"
    bad = found(cluster)["webhook"]
    assert bad.level is Level.FAILURE
    assert "pods.inject.example of the mutatingwebhookconfiguration inject refuses" in bad.detail
    command = "sykube kubectl --name fake delete mutatingwebhookconfiguration inject"
    assert bad.cure.startswith(command)


def test_pods_and_the_api_server(cluster: Cluster, world: World) -> None:
    world.kubernetes["fake"].broken = {"etcd"}
    assert "etcd" in found(cluster)["pods of kube-system"].detail
    world.kubernetes.clear()
    bad = found(cluster)["API server"]
    assert "does not answer" in bad.detail
    assert "sykube restart --name fake" in bad.cure


def test_an_api_server_whose_certificates_ended(cluster: Cluster, world: World) -> None:
    world.kubernetes.clear()
    bad = found(cluster, timedelta(days=301))
    assert bad["API server"].cure == "sykube certs renew --name fake"


def test_dns_and_resolvers(cluster: Cluster, world: World) -> None:
    world.network.dns_fails = TimeoutError("timed out")
    bad = found(cluster)
    assert "rollout restart deployment/cluster-dns" in bad["cluster DNS"].cure
    assert bad["resolver"].level is Level.WARNING
    assert "127.0.0.53 of the host does not answer" in bad["resolver"].detail
    cluster.bridge.remove_rules()
    assert found(cluster)["cluster DNS"].cure == "Cure what is above first, then look again"


# --- network ---


def test_flushed_rules(cluster: Cluster, world: World) -> None:
    chains = world.kernel.tables["filter"]
    chains["SYKUBE-fake-FWD"].clear()
    bad = found(cluster)["iptables"]
    assert bad.detail.startswith("6 rules of the cluster are gone, such as: iptables -t filter -A")
    assert bad.cure == "sykube start --name fake"
    for table in world.kernel.tables.values():
        for rules in table.values():
            rules.clear()
    assert "rules of the cluster are gone" in found(cluster)["iptables"].detail


def test_the_bridge_and_forwarding(cluster: Cluster, world: World) -> None:
    world.kernel.links["sk-fake"] = []
    assert "has lost its address 10." in found(cluster)["bridge"].detail
    (world.proc_sys / "net/ipv4/ip_forward").write_text("0")
    assert found(cluster)["forwarding"].cure == "sysctl -w net.ipv4.ip_forward=1"
    shutil.rmtree(world.kernel.class_net / "sk-fake")
    assert found(cluster)["bridge"].detail == "sk-fake is gone"


def test_links(cluster: Cluster, world: World) -> None:
    link = world.kernel.class_net / "veth9001"
    (link / "operstate").write_text("down\n")
    assert found(cluster)["node node1"].detail == "its link veth9001 is down"
    (link / "master").unlink()
    assert found(cluster)["node node1"].detail == "its link veth9001 is on no bridge"
    (link / "master").symlink_to(world.kernel.class_net / "docker0")
    (world.kernel.class_net / "docker0").mkdir()
    assert found(cluster)["node node1"].detail == "its link veth9001 is on docker0"
    shutil.rmtree(link)
    assert found(cluster)["node node1"].detail == "its link is gone"


def test_what_a_node_lacks_of_its_network(cluster: Cluster, world: World) -> None:
    def check(name: str, *_: object) -> fakes.Answer:
        return 0, "the default route is gone\n" if name == "fake-node1" else "", ""

    world.node_programs.first = check
    assert found(cluster)["node node1"].cure == "sykube restart --name fake"


@pytest.mark.parametrize(
    ("rules", "dropping"),
    [
        ("-A FORWARD -j OURS\n-A FORWARD -j DROP", []),
        ("-A FORWARD -j DROP\n-A FORWARD -j OURS", ["-A FORWARD -j DROP"]),
        (
            "-A FORWARD -i sk-x -j REJECT --reject-with icmp-port-unreachable\n-A FORWARD -j OURS",
            ["-A FORWARD -i sk-x -j REJECT --reject-with icmp-port-unreachable"],
        ),
        ('-A FORWARD -m comment --comment "all of it" -j DROP',
         ["-A FORWARD -m comment --comment 'all of it' -j DROP"]),
        ("-A FORWARD -i docker0 -j DROP\n-A FORWARD -j OURS", []),
        ("-A FORWARD -m conntrack --ctstate INVALID -j DROP\n-A FORWARD -j OURS", []),
        ("-A FORWARD -j DOCKER-USER\n-A FORWARD -j OURS\n-A DOCKER-USER -j RETURN", []),
        (
            "-A FORWARD -j SITE\n-A FORWARD -j OURS\n-A SITE -s 10.0.0.0/8 -j ACCEPT\n-A SITE -j DROP",
            ["-A SITE -j DROP"],
        ),
        ("-A FORWARD -j SITE\n-A FORWARD -j OURS\n-A SITE -j ACCEPT\n-A SITE -j DROP", []),
        ("-A FORWARD -j SITE\n-A SITE -j SITE", []),
    ],
)  # fmt: skip
def test_rules_that_drop_before_ours(world: World, rules: str, dropping: list[str]) -> None:
    world.programs.answers["iptables"] = lambda _: (0, f"-P FORWARD DROP\n-N OURS\n{rules}\n", "")
    assert firewall.dropping_rules(world.host, "OURS", "sk-x") == dropping


def test_a_rule_that_drops_is_a_finding(cluster: Cluster, world: World) -> None:
    world.kernel.tables["filter"]["FORWARD"].insert(0, ("-j", "DROP"))
    bad = found(cluster)["firewall"]
    assert "drops what nodes send: iptables -A FORWARD -j DROP" in bad.detail
    assert bad.cure.endswith("iptables -D FORWARD -j DROP")


def test_chains_of_nftables(cluster: Cluster, world: World) -> None:
    def chain(table: str, name: str, hook: str, policy: str) -> dict[str, object]:
        fields = {"family": "inet", "table": table, "name": name, "hook": hook, "policy": policy}
        return {"chain": fields}

    chains = [
        {"metainfo": {"version": "1"}},
        chain("site", "forward", "forward", "drop"),
        chain("site", "input", "input", "drop"),
        chain("open", "forward", "forward", "accept"),
        chain("knows", "forward", "forward", "drop"),
        {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward",
                   "policy": "drop"}},
        {"chain": {"family": "inet", "table": "site", "name": "plain"}},
    ]  # fmt: skip

    def nft(words: list[str]) -> fakes.Answer:
        if words[:2] == ["list", "chain"]:
            return 0, 'iifname "sk-fake" accept' if "knows" in words else "", ""
        return 0, json.dumps({"nftables": chains}), ""

    world.programs.answers["nft"] = nft
    assert firewall.nftables_chains(cluster.host, "sk-fake") == ["inet site forward"]
    bad = found(cluster)["firewall"]
    assert bad.level is Level.WARNING
    assert bad.cure.startswith("nft insert rule inet site forward iifname sk-fake accept && ")


@pytest.mark.parametrize(
    ("answer", "zone"),
    [
        ((252, "", "FirewallD is not running"), ""),
        ((0, "trusted\n", ""), ""),
        ((0, "public\n", ""), "public"),
        ((2, "", "no zone"), "the default one"),
    ],
)
def test_firewalld(cluster: Cluster, world: World, answer: fakes.Answer, zone: str) -> None:
    world.programs.answers["firewall-cmd"] = lambda _: answer
    assert firewall.firewalld_zone(cluster.host, "sk-fake") == zone
    assert ("firewall" in found(cluster)) is bool(zone)


# --- files, certificates, limits of the host ---


@pytest.mark.parametrize(
    ("free", "total", "level"),
    [
        (0.16, 1000, None),
        (0.14, 1000, Level.WARNING),
        (0.09, 1000, Level.FAILURE),
        (0.45, 2, Level.FAILURE),
    ],
)
def test_space(
    cluster: Cluster, world: World, free: float, total: int, level: Level | None
) -> None:
    world.total, world.free = total * 1_000_000_000, free
    bad = found(cluster).get("disk")
    assert (bad.level if bad else None) is level


def test_inodes_and_big_overlays(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    full: Any = types.SimpleNamespace(f_files=1000, f_favail=10)
    few = replace(cluster, host=replace(cluster.host, statvfs=lambda _: full))
    assert "10 of 1000 inodes" in found(few)["disk"].detail
    # Nobody writes two gigabytes for a test.
    monkeypatch.setattr(files, "_BIG_OVERLAY_BYTES", 1)
    assert "outside of the folders" in found(cluster)["node master"].detail


def test_certificates(cluster: Cluster) -> None:
    assert found(cluster, timedelta(days=260)) == {}
    bad = found(cluster, timedelta(days=280))["certificates"]
    assert bad.level is Level.WARNING
    assert bad.cure == "sykube certs renew --name fake"
    assert found(cluster, timedelta(days=301))["certificates"].level is Level.FAILURE
    cluster.master.pull("/var/lib/kubelet/pki/kubelet.crt").write_text("broken")
    assert "cannot be read" in found(cluster)["certificates"].detail


def test_an_authority_near_its_end(cluster: Cluster) -> None:
    ca = cluster.master.pull("/etc/kubernetes/pki/ca.crt")
    ca.write_text(pem(datetime.now(UTC) + timedelta(days=3)))
    assert "sykube delete --name fake" in found(cluster)["certificates"].cure


def test_a_clock_that_went_back(cluster: Cluster) -> None:
    bad = found(cluster, timedelta(days=-400))["clock"]
    assert bad.level is Level.FAILURE
    assert "timedatectl" in bad.cure


def test_an_init_that_did_not_end(cluster: Cluster) -> None:
    cluster.state.steps["kubeconfig"] = "started"
    assert found(cluster)["record"].cure == "sykube init --name fake"


def test_inotify_that_is_used_up(cluster: Cluster, world: World, tmp_path: Path) -> None:
    for pid, name, count in ((10, "kubelet", 3), (11, "containerd", 1), (12, "gone", 0)):
        process = world.host.proc / str(pid)
        (process / "fd").mkdir(parents=True)
        (process / "fdinfo").mkdir()
        if count:
            (process / "comm").write_text(f"{name}\n")
        for number in range(count):
            (process / "fd" / str(number)).symlink_to("anon_inode:inotify")
            (process / "fdinfo" / str(number)).write_text("inotify wd:1\ninotify wd:2\n")
        (process / "fd" / "9").symlink_to("/dev/null")
    (world.host.proc / "self").mkdir(exist_ok=True)
    instances, watches = inotify.usage(cluster.host)
    assert (instances.used, watches.used) == (4, 8)
    assert instances.most == (("kubelet", 3), ("containerd", 1))
    for limit, level in ((100, None), (4, Level.FAILURE)):
        world.kernel.define("fs/inotify/max_user_instances", str(limit))
        bad = found(cluster).get("inotify")
        assert (bad.level if bad else None) is level
    assert bad is not None
    assert bad.cure == "sysctl -w fs.inotify.max_user_instances=8"


def test_a_check_that_cannot_look_keeps_no_other_from_it(cluster: Cluster, world: World) -> None:
    def broken(_: list[str]) -> fakes.Answer:
        raise SykubeError("no ip here")

    world.programs.answers["ip"] = broken
    bad = found(cluster)
    assert bad["bridge"].detail == "cannot be looked at: no ip here"
    assert "cluster DNS" not in bad


# --- the command ---


def run(host: Host, *arguments: str) -> Result:
    return CliRunner().invoke(
        command.doctor, ["--name", "fake", *arguments], standalone_mode=False, obj=host
    )


def code(result: Result) -> int:
    return int(result.return_value or 0)


def test_doctor_shows_host_and_cluster(cluster: Cluster, world: World) -> None:
    world.end("fake-node1")
    shown = run(cluster.host).output
    assert "host\n" in shown
    assert "cluster fake\n" in shown
    assert "  failure  node node1: its instance does not run\n" in shown
    assert "           → sykube start --name fake\n" in shown
    listed = json.loads(run(cluster.host, "-o", "json").output)
    assert listed["cluster"]["name"] == "fake"
    bad = [each for each in listed["cluster"]["findings"] if each["level"] == "failure"]
    assert [each["what"] for each in bad] == ["node node1"]


def test_doctor_without_a_cluster_looks_at_the_host_alone(world: World) -> None:
    assert json.loads(run(world.host, "-o", "json").output)["cluster"] is None


def test_exit_codes(cluster: Cluster, world: World) -> None:
    assert code(run(cluster.host)) == ExitCode.OK
    ClusterPaths(cluster.host, "fake").state.write_text("broken")
    broken = run(cluster.host)
    assert code(broken) == ExitCode.DEGRADED
    assert "record: the state of the cluster is damaged" in broken.output
    world.present.remove("ip")
    assert code(run(cluster.host)) == ExitCode.HOST_NOT_READY
