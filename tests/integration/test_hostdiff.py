"""A leak of each kind is planted on this host, and the before/after check finds exactly that."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.hostdiff import (
    Difference,
    HostSnapshot,
    LeftOut,
    cgroup_mounts,
    is_sized_anew,
    leaks_since,
    parse_iptables,
    parse_nft,
    sections_differ,
)

pytestmark = pytest.mark.integration

# Kernel modules are not planted: one that is loaded stays loaded, for whoever else may use it.
# Names carry the process id, and addresses are of documentation ranges (RFC 5737, RFC 3849).
TAG = f"hd{os.getpid()}"
MARK = "203.0.113.9/32"
MARK_V6 = "2001:db8:5:7::9/128"

# Others may work on this host too, and what they do between two snapshots is no leak of ours.
# What is really wrong with the check comes back each time.
ATTEMPTS = 8

Finding = tuple[str, str, str]  # kind, sign, what
Plant = Callable[["Ground"], set[Finding]]


@dataclass(frozen=True)
class Ground:
    """Where leaks are planted; leaving `undo` removes them, last one first."""

    data: Path
    elsewhere: Path
    undo: ExitStack

    def run(self, command: str, undo: str = "") -> None:
        if undo:
            self.undo.callback(subprocess.run, undo.split(), check=False, capture_output=True)
        subprocess.run(command.split(), check=True, capture_output=True)

    def start(self, *command: str) -> int:
        child = subprocess.Popen(command)
        self.undo.callback(child.wait)
        self.undo.callback(child.kill)
        wait_until(lambda: command_line(child.pid).endswith("sleep 600"))
        return child.pid


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end, "waited 10 seconds"
        time.sleep(0.01)


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").replace("\0", " ").strip()


def process_added(pid: int) -> Finding:
    start = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    return ("process", "+", f"{pid} started {start}")


def needs(*tools: str) -> None:
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")


# ── Leaks ────────────────────────────────────────────────────────────────────────────────────────


def bridge_and_veth(ground: Ground) -> set[Finding]:
    bridge, inner, outer = f"{TAG}b", f"{TAG}i", f"{TAG}o"
    ground.run(f"ip link add {bridge} type bridge", undo=f"ip link delete {bridge}")
    ground.run(f"ip link add {outer} type veth peer name {inner}", undo=f"ip link delete {outer}")
    ground.run(f"ip link set {outer} master {bridge}")
    # Its addresses, routes and sysctls come with the bridge, which is one finding.
    ground.run(f"ip address add 203.0.113.1/28 dev {bridge}")
    ground.run(f"ip link set {bridge} up")
    ground.run(f"ip route add 198.51.100.0/28 via 203.0.113.2 dev {bridge}")
    return {("link", "+", bridge), ("link", "+", inner), ("link", "+", outer)}


def changed_link(ground: Ground) -> set[Finding]:
    alias = Path("/sys/class/net/lo/ifalias")
    ground.undo.callback(alias.write_text, alias.read_text(encoding="utf-8") or "\n")
    alias.write_text("planted\n", encoding="utf-8")
    return {("link", "~", "lo")}


def address(ground: Ground) -> set[Finding]:
    for added in ("203.0.113.7/32", "2001:db8:5:7::7/128"):
        ground.run(f"ip address add {added} dev lo", undo=f"ip address delete {added} dev lo")
    return {
        ("address", "+", "203.0.113.7/32 dev lo"),
        ("address", "+", "2001:db8:5:7::7/128 dev lo"),
    }


def route(ground: Ground) -> set[Finding]:
    for where in ("203.0.113.32/28", "203.0.113.48/28 table 4711"):
        ground.run(f"ip route add {where} dev lo", undo=f"ip route delete {where}")
    where = "2001:db8:5:8::/64"
    ground.run(f"ip -6 route add {where} dev lo", undo=f"ip -6 route delete {where}")
    return {
        ("route", "+", "IPv4 unicast 203.0.113.32/28 dev lo table main"),
        ("route", "+", "IPv4 unicast 203.0.113.48/28 dev lo table 4711"),
        ("route", "+", "IPv6 unicast 2001:db8:5:8::/64 dev lo table main"),
    }


def policy_rule(ground: Ground) -> set[Finding]:
    for family, source in (("-4", "203.0.113.64/28"), ("-6", "2001:db8:5:9::/64")):
        said = f"from {source} lookup 4711 priority 4711"
        ground.run(f"ip {family} rule add {said}", undo=f"ip {family} rule delete {said}")
    return {
        ("policy-rule", "+", "IPv4 priority 4711 src 203.0.113.64 srclen 28 table 4711"),
        ("policy-rule", "+", "IPv6 priority 4711 src 2001:db8:5:9:: srclen 64 table 4711"),
    }


def iptables(variant: str, mark: str) -> Plant:
    def plant(ground: Ground) -> set[Finding]:
        needs(variant, f"{variant}-save")
        found = set()
        for table, builtin in (("filter", "INPUT"), ("nat", "POSTROUTING")):
            tool = f"{variant} -w -t {table}"
            try:
                ground.run(f"{tool} -N {TAG}", undo=f"{tool} -X {TAG}")
            except subprocess.CalledProcessError as error:
                pytest.skip(f"{variant} does not work on this kernel: {error.stderr!r}")
            found.add((variant, "+", f"{table} {TAG}"))
            for chain in (TAG, builtin):
                rule = f"{chain} -s {mark} -j RETURN"
                ground.run(f"{tool} -A {rule}", undo=f"{tool} -D {rule}")
                found.add((variant, "+", f"{table} {chain}: -A {rule}"))
        return found

    return plant


def empty_chain(ground: Ground) -> set[Finding]:
    needs("iptables")
    ground.run(f"iptables -w -t raw -N {TAG}", undo=f"iptables -w -t raw -X {TAG}")
    version = subprocess.run(["iptables", "-V"], check=True, capture_output=True, text=True)
    variant = "nft" if "nf_tables" in version.stdout else "legacy"
    return {(f"iptables-{variant}", "+", f"raw {TAG}")}


def nft_table(ground: Ground) -> set[Finding]:
    needs("nft")
    table = f"inet {TAG}"
    ground.run(f"nft add table {table}", undo=f"nft delete table {table}")
    ground.run(f"nft add chain {table} empty")
    hook = "{ type filter hook input priority 100; policy accept; }"
    ground.run(f"nft add chain {table} hooked {hook}")
    ground.run(f"nft add rule {table} hooked ip saddr {MARK} counter return")
    ground.run(f"nft add set {table} peers {{ type ipv4_addr; flags timeout; }}")
    ground.run(f"nft add element {table} peers {{ 203.0.113.5 timeout 1h }}")
    return {
        ("nft", "+", table),
        ("nft", "+", f"{table} chain empty"),
        ("nft", "+", f"{table} chain hooked"),
        ("nft", "+", f"{table} chain hooked: ip saddr 203.0.113.9 counter return"),
        ("nft", "+", f"{table} set peers"),
    }


def ipset(ground: Ground) -> set[Finding]:
    needs("ipset")
    try:
        ground.run(f"ipset create {TAG} hash:ip", undo=f"ipset destroy {TAG}")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"ipset does not work on this kernel: {error.stderr!r}")
    ground.run(f"ipset add {TAG} 203.0.113.4")
    return {("ipset", "+", TAG)}


def mount(ground: Ground) -> set[Finding]:
    point = ground.elsewhere / "mount point"
    point.mkdir()
    ground.undo.callback(point.rmdir)
    subprocess.run(["mount", "-t", "tmpfs", TAG, str(point)], check=True)
    ground.undo.callback(subprocess.run, ["umount", str(point)], check=True)
    return {("mount", "+", str(point))}


def two_mounts_on_one_point(ground: Ground) -> set[Finding]:
    found = mount(ground)
    [(_, _, point)] = found
    subprocess.run(["mount", "-t", "tmpfs", TAG, point], check=True)
    ground.undo.callback(subprocess.run, ["umount", point], check=True)
    return {*found, ("mount", "+", f"{point} (on top, 2)")}


def named_network_namespace(ground: Ground) -> set[Finding]:
    ground.run(f"ip netns add {TAG}", undo=f"ip netns delete {TAG}")
    return {("netns", "+", TAG)}


def nameless_network_namespace(ground: Ground) -> set[Finding]:
    needs("unshare")
    pid = ground.start("unshare", "--net", "sleep", "600")
    wait_until(lambda: command_line(pid) == "sleep 600")
    inode = str(Path(f"/proc/{pid}/ns/net").readlink())
    return {("netns", "+", inode), process_added(pid)}


def process(ground: Ground) -> set[Finding]:
    return {process_added(ground.start("sleep", "600"))}


def orphan(ground: Ground) -> set[Finding]:
    """A process of no parent, as a daemon is."""
    shell = "sleep 600 >/dev/null 2>&1 & echo $!"
    said = subprocess.run(["setsid", "sh", "-c", shell], check=True, capture_output=True)
    pid = int(said.stdout)
    found = process_added(pid)
    ground.undo.callback(wait_until, lambda: has_ended(pid))
    ground.undo.callback(os.kill, pid, 9)
    wait_until(lambda: command_line(pid) == "sleep 600")
    return {found}


def has_ended(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return True
    return status.rpartition(")")[2].split()[0] in "ZX"


def cgroup(version: str) -> Plant:
    def plant(ground: Ground) -> set[Finding]:
        for mount in cgroup_mounts():
            if mount.type == version and "ro" not in mount.options.split(","):
                folder = Path(mount.point, TAG)
                folder.mkdir()
                ground.undo.callback(folder.rmdir)
                return {("cgroup", "+", str(folder))}
        pytest.skip(f"no {version} is mounted that can be written to")

    return plant


def sysctl(ground: Ground) -> set[Finding]:
    """How long a TCP connection may wait for its end: one second more for a moment is harmless."""
    knob = Path("/proc/sys/net/ipv4/tcp_fin_timeout")
    was = knob.read_text(encoding="utf-8")
    ground.undo.callback(knob.write_text, was)
    knob.write_text(f"{int(was) + 1}\n", encoding="utf-8")
    return {("sysctl", "~", "net.ipv4.tcp_fin_timeout")}


def sysctl_of_a_link(ground: Ground) -> set[Finding]:
    knob = Path("/proc/sys/net/ipv4/conf/lo/arp_announce")
    was = knob.read_text(encoding="utf-8")
    ground.undo.callback(knob.write_text, was)
    knob.write_text("1\n" if was.strip() != "1" else "2\n", encoding="utf-8")
    return {("sysctl", "~", "net.ipv4.conf.lo.arp_announce")}


def loop_device(ground: Ground) -> set[Finding]:
    needs("losetup")
    if not Path("/dev/loop-control").exists():
        pytest.skip("no loop devices here")
    backing = ground.elsewhere / "backing"
    backing.write_bytes(bytes(1024 * 1024))
    ground.undo.callback(backing.unlink)
    said = subprocess.run(
        ["losetup", "--find", "--show", str(backing)], check=True, capture_output=True, text=True
    )
    device = said.stdout.strip()
    ground.undo.callback(subprocess.run, ["losetup", "--detach", device], check=True)
    return {("loop", "+", Path(device).name)}


def files(ground: Ground) -> set[Finding]:
    folder, file, link = (ground.data / name for name in ("folder", "folder/file", "link"))
    ground.undo.callback(shutil.rmtree, folder, ignore_errors=True)
    folder.mkdir()
    file.write_text("left behind")
    link.symlink_to("/nowhere")
    ground.undo.callback(link.unlink)
    return {("file", "+", str(path)) for path in (folder, file, link)}


def changed_files(ground: Ground) -> set[Finding]:
    """Other content of the same size, another mode, one that is gone."""
    content, mode, gone = (ground.data / name for name in ("content", "mode", "gone"))
    ground.undo.callback(content.write_text, content.read_text())
    content.write_text("after ")
    ground.undo.callback(mode.chmod, 0o644)
    mode.chmod(0o600)
    ground.undo.callback(gone.write_text, gone.read_text())
    gone.unlink()
    return {
        ("file", "~", str(content)),
        ("file", "~", str(mode)),
        ("file", "-", str(gone)),
    }


LEAKS: dict[str, Plant] = {
    "bridge and veth": bridge_and_veth,
    "changed link": changed_link,
    "address": address,
    "route": route,
    "policy rule": policy_rule,
    "iptables-nft": iptables("iptables-nft", MARK),
    "iptables-legacy": iptables("iptables-legacy", MARK),
    "ip6tables-nft": iptables("ip6tables-nft", MARK_V6),
    "ip6tables-legacy": iptables("ip6tables-legacy", MARK_V6),
    "empty iptables chain": empty_chain,
    "nft table": nft_table,
    "ipset": ipset,
    "mount": mount,
    "two mounts on one point": two_mounts_on_one_point,
    "named network namespace": named_network_namespace,
    "nameless network namespace": nameless_network_namespace,
    "process": process,
    "orphan": orphan,
    "cgroup v1": cgroup("cgroup"),
    "cgroup v2": cgroup("cgroup2"),
    "sysctl": sysctl,
    "sysctl of a link": sysctl_of_a_link,
    "loop device": loop_device,
    "files": files,
    "changed files": changed_files,
}


# ── Finding them ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("content", "mode", "gone"):
        (folder / name).write_text("before")
        (folder / name).chmod(0o644)
    return folder


def findings(differences: Iterable[Difference]) -> set[Finding]:
    # What iproute2 says of a route or rule after its protocol differs between its versions.
    return {(each.kind, each.sign, each.what.partition(" protocol ")[0]) for each in differences}


def settled(before: HostSnapshot, planted: set[Finding]) -> set[Finding]:
    """Look again while there is more than was planted: commands of others come and go."""
    end = time.monotonic() + 2
    found = findings(before.diff(HostSnapshot.take(before.data_folders)))
    while found > planted and time.monotonic() < end:
        found &= findings(before.diff(HostSnapshot.take(before.data_folders)))
    return found


def find_planted(data: Path, plants: Sequence[Plant]) -> None:
    for _ in range(ATTEMPTS):
        with ExitStack() as undo:
            ground = Ground(data, data.parent, undo)
            before = HostSnapshot.take([data])
            planted = set[Finding]().union(*(plant(ground) for plant in plants))
            found = settled(before, planted)
        left = findings(leaks_since(before))
        # Not to be tried again: the next attempt would start from what this one left.
        assert left & planted == set()
        if found == planted and not left:
            return
    assert found == planted
    assert left == set()


@pytest.mark.parametrize("name", LEAKS)
def test_a_planted_leak_is_found_and_nothing_else(name: str, data: Path) -> None:
    find_planted(data, [LEAKS[name]])


def test_leaks_do_not_hide_each_other(data: Path) -> None:
    def planted_where_possible(plant: Plant) -> Plant:
        def possible(ground: Ground) -> set[Finding]:
            try:
                return plant(ground)
            except pytest.skip.Exception:
                return set()

        return possible

    # This one makes its folder anew, which "mount" has made.
    plants = [plant for plant in LEAKS.values() if plant is not two_mounts_on_one_point]
    find_planted(data, [planted_where_possible(plant) for plant in plants])


def test_nothing_planted_is_nothing_found(data: Path) -> None:
    for _ in range(ATTEMPTS):
        before = HostSnapshot.take([data])
        if not (left := leaks_since(before)):
            return
    assert [str(each) for each in left] == []


def test_every_kind_can_be_listed_here(data: Path) -> None:
    assert HostSnapshot.take([data]).unread == ()


def test_a_snapshot_survives_being_saved(data: Path, tmp_path: Path) -> None:
    snapshot = HostSnapshot.take([data])
    snapshot.save(tmp_path / "before.json")
    assert HostSnapshot.load(tmp_path / "before.json") == snapshot


def test_the_command_line(data: Path, tmp_path: Path) -> None:
    def hostdiff(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tests.hostdiff", *arguments]
        root = Path(__file__).parents[2]
        return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)

    def compared(*arguments: str) -> str:
        done = hostdiff("compare", before, *arguments)
        assert done.returncode == (1 if done.stdout else 0), done.stderr
        return done.stdout

    before = str(tmp_path / "before.json")
    for _ in range(ATTEMPTS):
        assert hostdiff("save", before, "--data", str(data)).returncode == 0
        clean = compared()
        (data / "leak").symlink_to("there")
        leak = compared("--patience", "0")
        allowed = compared("--allow", "file", ".*/leak", "planted by this test")
        (data / "leak").unlink()
        if not clean and not allowed and leak.count("\n") == 1:
            break
    assert clean == allowed == ""
    assert leak == f"{'file':<16} + {data}/leak: symlink, mode 0777, owner 0:0, to there\n"
    assert r"fs\.file-nr: counts open files" in hostdiff("reasons").stdout


# ── Reading rules ────────────────────────────────────────────────────────────────────────────────

LISTED = """\
# Generated by iptables-save v1.8.9 (nf_tables) on Sun Nov 22 11:24:48 2026
*filter
:INPUT ACCEPT [7:420]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [5:300]
COMMIT
"""


def iptables_differ(before: str, after: str) -> list[tuple[str, str]]:
    both = parse_iptables(before), parse_iptables(after)
    return [(each.sign, each.what) for each in sections_differ("iptables-nft", *both)]


def test_a_table_that_was_merely_listed_is_no_leak() -> None:
    assert iptables_differ("", LISTED) == iptables_differ(LISTED, "") == []


def test_a_changed_policy_is_one() -> None:
    dropping = LISTED.replace("FORWARD ACCEPT", "FORWARD DROP")
    assert iptables_differ("", dropping) == [("~", "filter FORWARD")]


def test_the_order_and_number_of_rules_count() -> None:
    def rules(*ports: int) -> str:
        lines = "".join(f"-A INPUT -p tcp --dport {port} -j DROP\n" for port in ports)
        return LISTED.replace("COMMIT", f"{lines}COMMIT")

    def rule(sign: str, port: int) -> tuple[str, str]:
        return sign, f"filter INPUT: -A INPUT -p tcp --dport {port} -j DROP"

    assert iptables_differ(rules(1, 2), rules(1, 2, 2)) == [rule("+", 2)]
    assert sorted(iptables_differ(rules(1, 2), rules(2, 1))) in (
        [rule("+", 1), rule("-", 1)],
        [rule("+", 2), rule("-", 2)],
    )


NFT_LISTED = """\
table ip nat {
	chain POSTROUTING {
		type nat hook postrouting priority srcnat; policy accept;
	}
}
table ip filter {
	chain INPUT {
		type filter hook input priority filter; policy accept;
	}

	chain CNI-ADMIN {
	}
}
table inet shop {
	set seen {
		type ipv4_addr
		flags dynamic,timeout
		elements = { 203.0.113.5 timeout 1h expires 59m59s932ms,
			203.0.113.6 timeout 1h expires 9m }
	}

	set given {
		type ipv4_addr
		elements = { 203.0.113.8, 203.0.113.7 }
	}
}
"""


def test_nft_leaves_to_iptables_what_iptables_lists() -> None:
    sets = {
        "inet shop": "table",
        "inet shop set given": "set, type ipv4_addr, 203.0.113.7, 203.0.113.8",
        "inet shop set seen": "set, type ipv4_addr, flags dynamic,timeout",
    }
    assert parse_nft(NFT_LISTED, {"ip nat", "ip filter"}) == sets
    alone = {"ip filter": "table", "ip filter chain CNI-ADMIN": "chain"}
    assert parse_nft(NFT_LISTED) == {**sets, **alone}


def test_an_exception_is_for_its_kind_and_whole_name_alone() -> None:
    left_out = LeftOut("sysctl", r"fs\.file-nr", "counts open files", "~")
    assert left_out.covers(Difference("sysctl", "~", "fs.file-nr"))
    assert not left_out.covers(Difference("sysctl", "+", "fs.file-nr"))
    assert not left_out.covers(Difference("sysctl", "~", "fs.file-nr2"))
    assert not left_out.covers(Difference("file", "~", "fs.file-nr"))


@pytest.mark.parametrize(
    ("after", "is_the_same"),
    [
        ("devtmpfs, rw,size=3025076k,nr_inodes=756269,mode=755", True),
        ("devtmpfs, rw,mode=755", True),
        ("devtmpfs, rw,size=3025076k,nr_inodes=756269,mode=777", False),
    ],
)
def test_after_a_boot_memory_may_have_another_size(after: str, is_the_same: bool) -> None:
    before = "devtmpfs, rw,size=3025080k,nr_inodes=756270,mode=755"
    assert is_sized_anew(Difference("mount", "~", "/dev", before, after)) is is_the_same
