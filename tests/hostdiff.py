"""What a host looks like, before and after: proof that `delete` leaves nothing behind.

    python3 -m tests.hostdiff save FILE [--data FOLDER ...]
    python3 -m tests.hostdiff compare FILE [--patience SECONDS] [--allow KIND PATTERN REASON ...]
    python3 -m tests.hostdiff reasons

`compare` prints one line for each difference (kind, + or - or ~, what) and ends with 1 when there
are any. Root is needed to see everything. In a test:

    before = HostSnapshot.take([data_folder])
    ...
    assert not leaks_since(before)

Whatever is left out has its reason beside it: ALLOWED is a list of single things, *_FIELDS are
fields of a thing, NOT_READ is what no reader looks at, and carried_by() leaves out what merely
comes and goes with a thing that is reported itself. `reasons` prints the lists.
"""

from __future__ import annotations

import argparse
import hashlib
import ipaddress
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Literal

Sign = Literal["+", "-", "~"]
Section = dict[str, str]  # what it is -> what it looks like

# /var/lib/cni is where CNI's host-local keeps its leases, whatever cluster asked for them.
DEFAULT_DATA_FOLDERS = ("/var/lib/sykube", "/var/lib/cni")
HASHED_BELOW_BYTES = 1024 * 1024
SHOWN_WIDTH = 200  # a new bridge has a hundred settings
UNREAD = "could not be read"


@dataclass(frozen=True)
class LeftOut:
    """A difference that does not count, and why."""

    kind: str
    pattern: str  # matches the whole of Difference.what
    reason: str
    signs: str = "+-~"

    def covers(self, difference: Difference) -> bool:
        return (
            difference.kind == self.kind
            and difference.sign in self.signs
            and re.fullmatch(self.pattern, difference.what) is not None
        )


ALLOWED = (
    # Sysctls that count, or that the kernel itself writes. Found by reading all of /proc/sys forty
    # times in a minute, with and without load, and in the kernel's Documentation/admin-guide.
    LeftOut(
        "cgroup",
        r"/sys/fs/cgroup/[^/]+/process_api/.*",
        "the job control of the machines that this project's CI runs on: a cgroup for each command",
    ),
    LeftOut("sysctl", r"fs\.dentry-state", "counts cached directory entries"),
    LeftOut("sysctl", r"fs\.file-nr", "counts open files"),
    LeftOut("sysctl", r"fs\.inode-(nr|state)", "counts cached inodes"),
    LeftOut("sysctl", r"fs\.aio-nr", "counts asynchronous I/O requests set up"),
    LeftOut(
        "sysctl",
        r"fs\.quota\.(allocated_dquots|cache_hits|drops|free_dquots|lookups|reads|syncs|writes)",
        "counts the work of disk quotas",
    ),
    LeftOut("sysctl", r"kernel\.ns_last_pid", "the process id given last"),
    LeftOut("sysctl", r"kernel\.pty\.nr", "counts open terminals"),
    LeftOut("sysctl", r"kernel\.random\.uuid", "new at each reading"),
    LeftOut("sysctl", r"kernel\.random\.entropy_avail", "the kernel's estimate of its randomness"),
    LeftOut("sysctl", r"kernel\.hung_task_detect_count", "counts tasks that waited for long"),
    LeftOut(
        "sysctl",
        r"kernel\.perf_event_max_sample_rate",
        "the kernel lowers it when the machine is too slow for it",
    ),
    LeftOut(
        "sysctl",
        r"kernel\.sched_domain\.cpu\d+\.domain\d+\.max_newidle_lb_cost",
        "a time the scheduler measures",
    ),
    LeftOut("sysctl", r"net\.netfilter\.nf_conntrack_count", "counts connections"),
    LeftOut(
        "sysctl",
        r"net\.ipv4\.tcp_fastopen_key",
        "the kernel makes it up when a program first listens with TCP Fast Open",
        "~",
    ),
    # Modules are not unloaded (see NOT_READ), and these sysctls appear with theirs.
    LeftOut("sysctl", r"net\.bridge\..+", "appears with the module br_netfilter", "+"),
    LeftOut(
        "sysctl",
        r"net\.(netfilter\.nf_(conntrack|flowtable|log)\w*(\.\w+)?|nf_conntrack_max)",
        "appears with the module nf_conntrack or nf_log",
        "+",
    ),
    LeftOut("sysctl", r"net\.ipv4\.vs\..+", "appears with the module ip_vs", "+"),
    LeftOut("sysctl", r"fs\.fuse\..+", "appears with the module fuse", "+"),
    # Processes and what hangs on them.
    LeftOut("process", r".*", "a process that has ended since is nothing left behind", "-~"),
    LeftOut(
        "netns",
        r"net:\[\d+\]",
        "a nameless network namespace ends with its last process, which is nothing left behind",
        "-~",
    ),
    # Mount points that are not any one program's.
    LeftOut(
        "mount",
        r"/run/netns",
        "`ip netns add` makes it a mount point once, for everybody, and keeps it",
        "+",
    ),
    LeftOut(
        "mount",
        r"/proc/sys/fs/binfmt_misc",
        "systemd mounts it when anybody looks there, `sysctl -a` for one",
        "+",
    ),
    LeftOut("mount", r"/run/user/\d+", "systemd-logind mounts it while the user is logged in"),
    LeftOut(
        "mount",
        r"/run/credentials/[^/]+\.service",
        "systemd mounts it while that service runs",
    ),
)

# Fields left out: field -> reason.
TIMER = "a timer that runs"
NUMBER = "a number the kernel gives out, another one when the same thing is made again"
SPANNING_TREE = "state of the spanning tree protocol, which changes by itself"
LINK_FIELDS = {
    "addr_info": "addresses are a kind of their own",
    "ifindex": NUMBER,
    "link_index": NUMBER,
    "link_netnsid": NUMBER,
    "hello_timer": TIMER,
    "tcn_timer": TIMER,
    "topology_change_timer": TIMER,
    "gc_timer": TIMER,
    "hold_timer": TIMER,
    "message_age_timer": TIMER,
    "forward_delay_timer": TIMER,
    "topology_change": SPANNING_TREE,
    "topology_change_ack": SPANNING_TREE,
    "topology_change_detected": SPANNING_TREE,
    "config_pending": SPANNING_TREE,
    "state": SPANNING_TREE,
}
ADDRESS_FIELDS = {
    "valid_life_time": TIMER,
    "preferred_life_time": TIMER,
    "tentative": "true for the first second, while IPv6 looks for a duplicate",
}
ROUTE_FIELDS = {
    "expires": TIMER,
    "linkdown": "follows the state of the link, which is reported",
    "dead": "follows the state of the link, which is reported",
}

NOT_READ = (
    ("module", "a loaded kernel module serves everybody, and the kernel loads them on demand"),
    ("link", "counters: traffic passes"),
    ("address", "temporary IPv6 addresses: the kernel makes a new one now and then"),
    ("address", "on a link that came or went: the link is reported"),
    ("route", "over a link that came or went: the link is reported"),
    ("route", "that the kernel made from an address that came or went: the address is reported"),
    ("neighbour", "static entries in the tables of neighbours and bridges end with their link"),
    ("sysctl", "of a link that came or went (conf, neigh): the link is reported, once"),
    ("sysctl", "write-only or unreadable ones: there is no value to compare"),
    ("sysctl", "fs.binfmt_misc: a file system of its own, which systemd mounts on the first look"),
    ("iptables", "comments and counters of the listing: a date, and traffic"),
    ("iptables", "empty built-in chains with policy ACCEPT: listing a table can create them"),
    ("nft", "counters, quotas used, time left: traffic and timers"),
    ("nft", "elements of dynamic sets: rules add them as traffic passes"),
    ("nft", "chains that iptables-nft-save lists: reported there, in words one can repeat"),
    ("nft", "empty base chains and tables of iptables with policy accept: as for iptables"),
    ("ipset", "counters, time left, hash size: traffic, timers, growth"),
    ("mount", "mount ids, parents, device and peer group numbers: given out anew each time"),
    ("mount", "mounts of another mount namespace: that ends with its process, which is reported"),
    ("mount", "/run/netns/NAME: reported as the network namespace NAME"),
    ("netns", "of single threads, or held by an open file alone: the process is reported"),
    ("process", "kernel threads: the kernel starts and ends them, what they serve is reported"),
    ("process", "of the session that compares: the snapshot, its ancestors, who reads its output"),
    ("process", "ended ones that wait for process 1 to reap them: only process 1 can"),
    ("cgroup", "of the session that compares, and those above it: made by whoever started it"),
    ("cgroup", "in a hierarchy whose mount came or went: the mount is reported"),
    ("cgroup", "limits and counters: they end with their cgroup (v2's subtree_control is read)"),
    ("loop", "free devices: the kernel keeps /dev/loopN for the next one"),
    (
        "loop",
        "that clear themselves: the mount or process that holds one is reported, and no "
        "namespace parts those of other clusters from ours",
    ),
    ("file", "times, and sizes of folders: reading and adding change them for good"),
    ("file", "below another file system's mount point: the mount is reported"),
    ("IPC", "SysV and POSIX: sykube uses none on the host"),
)


REBOOTED = (
    LeftOut("sysctl", r"kernel\.random\.boot_id", "another one at each boot", "~"),
    LeftOut(
        "sysctl", r"net\.ipv4\.(tcp|udp)_mem", "worked out of the memory that each boot finds", "~"
    ),
    LeftOut("mount", r"/proc/sys/fs/binfmt_misc", "the pipe of systemd's automount", "~"),
)


# ── Differences ──────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Difference:
    kind: str
    sign: Sign
    what: str
    before: str = ""
    after: str = ""

    def __str__(self) -> str:
        detail = textwrap.shorten(self.after or self.before, SHOWN_WIDTH, placeholder=" …")
        if self.sign == "~":
            old, new = self.before.split(", "), self.after.split(", ")
            gone = ", ".join(part for part in old if part not in new)
            come = ", ".join(part for part in new if part not in old)
            detail = f"{gone or '(nothing)'} -> {come or '(nothing)'}"
        return f"{self.kind:<16} {self.sign} {self.what}" + (f": {detail}" if detail else "")


def sections_differ(kind: str, before: Section, after: Section) -> Iterator[Difference]:
    if before == after:
        return
    for what in sorted(before.keys() | after.keys()):
        old, new = before.get(what), after.get(what)
        if kind in RULE_KINDS:
            yield from chains_differ(kind, what, old, new)
        elif old is None:
            yield Difference(kind, "+", what, after=new or "")
        elif new is None:
            yield Difference(kind, "-", what, before=old)
        elif old != new:
            yield Difference(kind, "~", what, old, new)


def chains_differ(kind: str, what: str, old: str | None, new: str | None) -> Iterator[Difference]:
    """A chain's first line is its policy or hook, each further one a rule; their order counts."""
    old_head, *old_rules = (old or "").split("\n")
    new_head, *new_rules = (new or "").split("\n")
    if old is None:
        yield Difference(kind, "+", what, after=new_head)
    elif new is None:
        yield Difference(kind, "-", what, before=old_head)
    elif old_head != new_head:
        yield Difference(kind, "~", what, old_head, new_head)
    if old_rules == new_rules:
        return
    matcher = SequenceMatcher(None, old_rules, new_rules, autojunk=False)
    for change, old_from, old_to, new_from, new_to in matcher.get_opcodes():
        if change == "equal":
            continue
        for rule in old_rules[old_from:old_to]:
            yield Difference(kind, "-", f"{what}: {rule}")
        for rule in new_rules[new_from:new_to]:
            yield Difference(kind, "+", f"{what}: {rule}")


def carried_by(difference: Difference, carriers: Iterable[Difference]) -> Difference | None:
    """The link, address or mount that came or went, and this difference merely with it.

    A new bridge brings its addresses, routes and a hundred sysctls; removing it removes them. One
    line says so better than a hundred.
    """
    for carrier in carriers:
        if carrier.kind == "link" and hangs_on_link(difference, carrier.what):
            return carrier
        if carrier.kind == "address" and made_from_address(difference, carrier.what):
            return carrier
        below = f"{difference.what}/".startswith(f"{carrier.what}/")
        if carrier.kind == "mount" and difference.kind == "cgroup" and below:
            return carrier
    return None


def hangs_on_link(difference: Difference, link: str) -> bool:
    if difference.kind in ("address", "route"):
        return set(re.findall(r"\bdev (\S+)", difference.what)) == {link}
    if difference.kind == "sysctl":
        part = re.escape(link.replace(".", "/"))
        return re.match(rf"net\.\w+\.(conf|neigh)\.{part}\.", difference.what) is not None
    return False


def made_from_address(difference: Difference, address: str) -> bool:
    """Is it a route that the kernel adds and removes with that address (`1.2.3.4/24 dev lo`)?"""
    if difference.kind != "route" or " protocol kernel" not in difference.what:
        return False
    local, _, device = address.partition(" dev ")
    interface = ipaddress.ip_interface(local)
    if f" dev {device} " not in f"{difference.what} ":
        return False
    destination = difference.what.split()[2]
    makes = (interface.ip, interface.network, interface.network.network_address)
    return f" prefsrc {interface.ip} " in f"{difference.what} " or destination in map(str, makes)


# ── Snapshots ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class HostSnapshot:
    """Everything of the host that sykube may touch, as it is now."""

    data_folders: tuple[str, ...]
    sections: Mapping[str, Section]  # kind -> what is there
    # Processes and cgroups of whoever takes the snapshot, which are not the host's.
    session: frozenset[tuple[str, str]]

    @classmethod
    def take(cls, data_folders: Iterable[str | os.PathLike[str]]) -> HostSnapshot:
        folders = tuple(str(Path(folder).resolve()) for folder in data_folders)
        sections = {kind: reader() for kind, reader in READERS.items()}
        sections["file"] = read_files(folders)
        session = {("process", name) for name in session_processes()}
        session |= {("cgroup", path) for path in session_cgroups()}
        return cls(folders, sections, frozenset(session))

    @classmethod
    def load(cls, file: str | os.PathLike[str]) -> HostSnapshot:
        data = json.loads(Path(file).read_text(encoding="utf-8"))
        session = frozenset((kind, what) for kind, what in data["session"])
        return cls(tuple(data["data_folders"]), data["sections"], session)

    def save(self, file: str | os.PathLike[str]) -> None:
        data = {
            "data_folders": self.data_folders,
            "session": sorted(self.session),
            "sections": self.sections,
        }
        Path(file).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")

    @property
    def unread(self) -> tuple[str, ...]:
        """What a tool is there for but failed to list: a leak of that kind would stay unseen."""
        return tuple(
            f"{kind}: {section[UNREAD]}"
            for kind, section in self.sections.items()
            if UNREAD in section
        )

    def diff(self, after: HostSnapshot, allow: Iterable[LeftOut] = ()) -> tuple[Difference, ...]:
        """What is different in `after`, least things that are allowed or merely follow."""
        found = [
            difference
            for kind, section in self.sections.items()
            for difference in sections_differ(kind, section, after.sections[kind])
        ]
        session = self.session | after.session
        allowed = (*ALLOWED, *allow)
        counts = [
            difference
            for difference in found
            if (difference.kind, difference.what) not in session
            and not any(left_out.covers(difference) for left_out in allowed)
        ]
        kinds = ("link", "address", "mount")
        carriers = [each for each in found if each.kind in kinds and each.sign != "~"]
        return tuple(each for each in counts if carried_by(each, carriers) is None)


def leaks_since(
    before: HostSnapshot, patience: float = 3.0, allow: Iterable[LeftOut] = ()
) -> tuple[Difference, ...]:
    """What differs from `before` and stays so.

    Short-lived commands of others, udev's workers and namespaces that the kernel is just taking
    down go by themselves: as long as something differs, look again, for at most `patience` seconds.
    What was there at each look counts.
    """
    allow = tuple(allow)
    differences = before.diff(HostSnapshot.take(before.data_folders), allow)
    end = time.monotonic() + patience
    while differences and time.monotonic() < end:
        time.sleep(0.2)
        seen = {(each.kind, each.sign, each.what) for each in differences}
        now = before.diff(HostSnapshot.take(before.data_folders), allow)
        differences = tuple(each for each in now if (each.kind, each.sign, each.what) in seen)
    return differences


# ── Readers ──────────────────────────────────────────────────────────────────────────────────────


class UnreadableError(Exception):
    """A tool is installed but could not list what it is for."""


def listing(*command: str) -> str:
    """What a tool prints; nothing where it is not installed."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"
    tool = shutil.which(command[0], path=path)
    if tool is None:
        return ""
    done = subprocess.run(
        [tool, *command[1:]],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env={"PATH": path, "LC_ALL": "C"},
        check=False,
    )
    if done.returncode != 0:
        raise UnreadableError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def ip_json(*arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(listing("ip", "-j", "-d", *arguments) or "[]")
    return found


def words(fields: Mapping[str, Any], left_out: Iterable[str]) -> Iterator[str]:
    """Each field and its value in words, nested ones too, without the ones left out."""
    for name, value in fields.items():
        if name in left_out or value in ("", None):
            continue
        if isinstance(value, dict):
            yield from words(value, left_out)
        elif isinstance(value, list):
            plain = [each for each in value if isinstance(each, str) and each not in left_out]
            if plain:
                yield f"{name} {' '.join(plain)}"
            for each in value:
                if isinstance(each, dict):
                    yield from words(each, left_out)
        else:
            yield name if value is True else f"{name} {value}"


def read_links() -> Section:
    return {
        link["ifname"]: ", ".join((link_kind(link), *words(link, {*LINK_FIELDS, "ifname"})))
        for link in ip_json("address")
    }


def link_kind(link: Mapping[str, Any]) -> str:
    return str(link.get("linkinfo", {}).get("info_kind", link["link_type"]))


def read_addresses() -> Section:
    addresses = {}
    for link in ip_json("address"):
        for address in link.get("addr_info", ()):
            if not address.get("temporary"):
                name = f"{address.pop('local')}/{address.pop('prefixlen')} dev {link['ifname']}"
                addresses[name] = ", ".join(words(address, ADDRESS_FIELDS))
    return addresses


def read_routes() -> Section:
    routes = {}
    for family in ("4", "6"):
        for route in ip_json(f"-{family}", "route", "show", "table", "all"):
            head = f"IPv{family} {route.pop('type', 'unicast')} {route.pop('dst')}"
            routes[" ".join((head, *words(route, ROUTE_FIELDS)))] = ""
    return routes


def read_policy_rules() -> Section:
    return {
        " ".join((f"IPv{family}", *words(rule, ()))): ""
        for family in ("4", "6")
        for rule in ip_json(f"-{family}", "rule", "show")
    }


IPTABLES_CHAINS = {
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "raw": ("PREROUTING", "OUTPUT"),
    "security": ("INPUT", "FORWARD", "OUTPUT"),
}


def read_iptables(tool: str) -> Section:
    return parse_iptables(listing(tool))


def parse_iptables(text: str) -> Section:
    # Built-in chains are there from the start, so that an absent one equals an empty one.
    chains = {
        f"{table} {chain}": ["policy ACCEPT"]
        for table, names in IPTABLES_CHAINS.items()
        for chain in names
    }
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(":"):
            chain, policy = line[1:].split()[:2]
            chains[f"{table} {chain}"] = ["chain" if policy == "-" else f"policy {policy}"]
        elif line.startswith(("-A ", "[")):
            rule = re.sub(r"^\[\d+:\d+\] ", "", line)
            chains[f"{table} {rule.split()[1]}"].append(rule)
    return {chain: "\n".join(lines) for chain, lines in chains.items()}


def read_nft() -> Section:
    covered = set()
    for family, tool in (("ip", "iptables-nft-save"), ("ip6", "ip6tables-nft-save")):
        saved = listing(tool)
        covered |= {f"{family} {table}" for table in re.findall(r"^\*(\S+)", saved, re.MULTILINE)}
        # It says so in a comment when a table holds what iptables cannot express.
        foreign = re.findall(r"^# Table `(\S+)' is incompatible", saved, re.MULTILINE)
        covered -= {f"{family} {table}" for table in foreign}
    return parse_nft(listing("nft", "--stateless", "list", "ruleset"), covered)


def parse_nft(text: str, covered: Iterable[str] = ()) -> Section:
    """Tables, chains, sets and so on; `covered` tables have their chains in iptables-nft-save."""
    found: dict[str, list[str]] = {}
    table = name = ""
    for line in text.splitlines():
        content = re.sub(r" expires \w+", "", line.strip())
        if line.startswith("table "):
            table = name = content.removeprefix("table ").removesuffix(" {")
            found[name] = ["table"]
        elif re.match(r"\t[^\t}].* \{$", line):
            name = f"{table} {content.removesuffix(' {')}"
            found[name] = [] if " chain " in name else [name.split()[2]]
        elif line == "\t}":
            name = table
        elif content not in ("", "}") and not content.startswith("#"):
            found[name].append(content)
    for name, lines in list(found.items()):
        if is_of_iptables(name, lines, covered):
            del found[name]
        elif " set " in name or " map " in name:
            found[name] = set_lines(lines)
        elif " chain " in name and not (lines and lines[0].startswith("type ")):
            found[name] = ["chain", *lines]
    for name, lines in list(found.items()):
        family, _, rest = name.partition(" ")
        alone = not any(other.startswith(f"{name} ") for other in found)
        if family in ("ip", "ip6") and rest in IPTABLES_CHAINS and lines == ["table"] and alone:
            del found[name]
    return {
        name: ("\n" if " chain " in name else ", ").join(lines) for name, lines in found.items()
    }


def is_of_iptables(name: str, lines: Sequence[str], covered: Iterable[str]) -> bool:
    """Is that a chain iptables-nft-save lists, or an empty one that listing a table creates?"""
    family, table, *rest = name.split()
    if family not in ("ip", "ip6") or not rest or rest[0] != "chain":
        return False
    if f"{family} {table}" in covered:
        return True
    builtin = rest[1] in IPTABLES_CHAINS.get(table, ())
    return builtin and len(lines) == 1 and lines[0].endswith("policy accept;")


def set_lines(lines: Sequence[str]) -> list[str]:
    """A set without the order of its elements, and without those that traffic adds."""
    # nft prints the elements last, on as many lines as they need.
    text = "\n".join(lines)
    settings, _, elements = text.partition("elements = {")
    if re.search(r"^flags .*\bdynamic\b", settings, re.MULTILINE):
        elements = ""
    each = (element.strip() for element in elements.removesuffix("}").split(","))
    return [*settings.splitlines(), *sorted(element for element in each if element)]


def read_ipsets() -> Section:
    sets: dict[str, list[str]] = {}
    for line in listing("ipset", "save").splitlines():
        verb, name, *rest = line.split()
        if verb == "create":
            said = re.sub(r" (hashsize|initval) \w+", "", f" {' '.join(rest)}")
            sets[name] = [said.strip()]
        else:
            said = re.sub(r" (timeout|packets|bytes) \d+", "", f" {' '.join(rest)}")
            sets[name].append(said.strip())
    return {name: ", ".join([head, *sorted(rest)]) for name, (head, *rest) in sets.items()}


@dataclass(frozen=True)
class Mount:
    device: str
    root: str
    point: str
    options: str
    propagation: str
    type: str
    source: str
    super_options: str


def mounts() -> list[Mount]:
    """This mount namespace's mounts, in the order they lie on each other."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        mount, _, system = line.partition(" - ")
        _id, _parent, device, root, point, options, *peers = map(unescaped, mount.split(" "))
        type_, source, super_options = map(unescaped, system.split(" ", 2))
        propagation = "+".join(peer.partition(":")[0] for peer in peers) or "private"
        found.append(Mount(device, root, point, options, propagation, type_, source, super_options))
    return found


def unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def read_mounts() -> Section:
    found: Section = {}
    for mount in mounts():
        if mount.type == "nsfs" and Path(mount.point).parent == NETNS_FOLDER:
            continue
        name, times = mount.point, 2
        while name in found:
            name, times = f"{mount.point} (on top, {times})", times + 1
        said = (mount.type, mount.source, mount.options, mount.propagation, mount.super_options)
        root = () if mount.root == "/" else (f"root {mount.root}",)
        found[name] = ", ".join((*said, *root))
    return found


NETNS_FOLDER = Path("/run/netns")


def read_network_namespaces() -> Section:
    """Named ones, and nameless ones that some process is in."""
    found: Section = {}
    named = set()
    for path in NETNS_FOLDER.iterdir() if NETNS_FOLDER.is_dir() else ():
        inode = f"net:[{path.stat().st_ino}]"
        named.add(inode)
        found[path.name] = inode
    for process in processes():
        try:
            inode = str(Path(f"/proc/{process.pid}/ns/net").readlink())
        except OSError:  # it has just ended
            continue
        if inode not in named:
            found.setdefault(inode, f"process {process.pid}, {process.command}")
    return found


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    start: int  # in clock ticks since boot; with it, a pid used again is another process
    command: str

    @property
    def name(self) -> str:
        return f"{self.pid} started {self.start}"


KERNEL_THREAD = 0x00200000  # PF_KTHREAD in the kernel's include/linux/sched.h


def look_at(pid: int) -> Process | None:
    """None for a kernel thread, for one that is gone, and for one that awaits process 1."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return None
    name = status[status.index("(") : status.rindex(")") + 1]
    state, parent, *fields = status[status.rindex(")") + 2 :].split()
    ended = state in "ZX"
    if int(fields[4]) & KERNEL_THREAD or (ended and parent == "1"):
        return None
    command = arguments.replace("\0", " ").strip() or name
    if ended:
        command = f"{name} has ended, process {parent} does not reap it"
    return Process(pid, int(parent), int(fields[17]), command)


def processes() -> Iterator[Process]:
    for path in Path("/proc").iterdir():
        found = look_at(int(path.name)) if path.name.isdigit() else None
        if found is not None:
            yield found


def read_processes() -> Section:
    return {found.name: found.command for found in processes()}


def session_processes() -> Iterator[str]:
    """This process, the ones it descends from, and whoever reads what it prints (`| tee log`)."""
    pid = os.getpid()
    while found := look_at(pid):
        yield found.name
        pid = found.parent
    outputs = {Path(f"/proc/self/fd/{number}").readlink() for number in (1, 2) if is_pipe(number)}
    if not outputs:
        return
    for found in processes():
        try:
            if Path(f"/proc/{found.pid}/fd/0").readlink() in outputs:
                yield found.name
        except OSError:
            continue


def is_pipe(number: int) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(number).st_mode)
    except OSError:
        return False


def cgroup_mounts() -> list[Mount]:
    """One mount for each hierarchy: the same one may be mounted in several places."""
    found: dict[str, Mount] = {}
    for mount in mounts():
        if mount.type in ("cgroup", "cgroup2"):
            known = found.setdefault(mount.device, mount)
            if len(mount.root) < len(known.root):
                found[mount.device] = mount
    return list(found.values())


def read_cgroups() -> Section:
    found: Section = {}
    for mount in cgroup_mounts():
        for folder, _folders, files in os.walk(mount.point):
            found[folder] = ""
            if "cgroup.subtree_control" in files:
                found[folder] = read_text(f"{folder}/cgroup.subtree_control") or ""
    return found


def session_cgroups() -> Iterator[str]:
    """The cgroups this process is in, and those above them."""
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        _number, controllers, path = line.split(":", 2)
        for mount in cgroup_mounts():
            here = set(controllers.split(",")) <= set(mount.super_options.split(","))
            if (mount.type == "cgroup2") if not controllers else here:
                below = path.removeprefix(mount.root.rstrip("/")).strip("/").split("/")
                for depth in range(1, len(below) + 1):
                    yield "/".join((mount.point, *below[:depth]))


def read_text(path: str) -> str | None:
    """None for what cannot be read, or has just gone."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def read_sysctls() -> Section:
    found: Section = {}
    device = Path("/proc/sys").lstat().st_dev
    for folder, folders, files in os.walk("/proc/sys"):
        # Another file system below is not sysctls, and listing an automount would mount it.
        folders[:] = [name for name in folders if on_device(f"{folder}/{name}", device)]
        for file in files:
            text = read_text(f"{folder}/{file}")
            if text is not None:
                parts = f"{folder}/{file}".removeprefix("/proc/sys/").split("/")
                # As sysctl(8) writes it: net.ipv4.conf.eth0/100.forwarding is of link eth0.100.
                name = ".".join(part.replace(".", "/") for part in parts)
                found[name] = re.sub(r"\s+", " ", text)
    return found


def on_device(path: str, device: int) -> bool:
    try:
        return Path(path).lstat().st_dev == device
    except OSError:
        return False


def read_loop_devices() -> Section:
    found: Section = {}
    for folder in Path("/sys/block").glob("loop*/loop"):
        backing = read_text(f"{folder}/backing_file")
        if backing is not None and read_text(f"{folder}/autoclear") != "1":
            said = (f"{name} {read_text(f'{folder}/{name}')}" for name in LOOP_SETTINGS)
            found[folder.parent.name] = ", ".join((backing, *said))
    return found


LOOP_SETTINGS = ("offset", "sizelimit", "autoclear", "partscan")


def read_files(folders: Iterable[str]) -> Section:
    found: Section = {}
    for top in folders:
        try:
            device = Path(top).lstat().st_dev
        except OSError:
            continue
        found[top] = file_looks(top) or ""
        for folder, subfolders, files in os.walk(top):
            for name in (*subfolders, *files):
                path = f"{folder}/{name}"
                looks = file_looks(path)
                if looks is not None:
                    found[path] = looks
            subfolders[:] = [name for name in subfolders if on_device(f"{folder}/{name}", device)]
    return found


def file_looks(path: str) -> str | None:
    """None for a file that has just gone."""
    try:
        status = Path(path).lstat()
        said = [
            f"mode {stat.S_IMODE(status.st_mode):04o}",
            f"owner {status.st_uid}:{status.st_gid}",
        ]
        if stat.S_ISDIR(status.st_mode):
            return ", ".join(("folder", *said))
        if stat.S_ISLNK(status.st_mode):
            return ", ".join(("symlink", *said, f"to {Path(path).readlink()}"))
        if not stat.S_ISREG(status.st_mode):
            kind = stat.filemode(status.st_mode)[0]
            return ", ".join((f"special file {kind}", *said, f"device {status.st_rdev}"))
        said.append(f"size {status.st_size}")
        if status.st_size < HASHED_BELOW_BYTES:
            said.append(f"sha256 {hashlib.sha256(Path(path).read_bytes()).hexdigest()}")
        return ", ".join(("file", *said))
    except OSError:
        return None


def readable(reader: Callable[[], Section]) -> Callable[[], Section]:
    """A kind that cannot be listed here says so, in HostSnapshot.unread, and stops no other."""

    def read() -> Section:
        try:
            return reader()
        except UnreadableError as error:
            return {UNREAD: str(error)}

    return read


IPTABLES_KINDS = ("iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy")
RULE_KINDS = (*IPTABLES_KINDS, "nft")


def iptables_reader(kind: str) -> Callable[[], Section]:
    return readable(lambda: read_iptables(f"{kind}-save"))


READERS: Mapping[str, Callable[[], Section]] = {
    "link": readable(read_links),
    "address": readable(read_addresses),
    "route": readable(read_routes),
    "policy-rule": readable(read_policy_rules),
    **{kind: iptables_reader(kind) for kind in IPTABLES_KINDS},
    "nft": readable(read_nft),
    "ipset": readable(read_ipsets),
    "mount": read_mounts,
    "netns": read_network_namespaces,
    "process": read_processes,
    "cgroup": read_cgroups,
    "sysctl": read_sysctls,
    "loop": read_loop_devices,
}


# ── Command line ─────────────────────────────────────────────────────────────────────────────────


def reasons() -> Iterator[str]:
    for kind, reason in NOT_READ:
        yield f"{kind:<10} {reason}"
    for kind, fields in (
        ("link", LINK_FIELDS),
        ("address", ADDRESS_FIELDS),
        ("route", ROUTE_FIELDS),
    ):
        for field, reason in fields.items():
            yield f"{kind:<10} field {field}: {reason}"
    for left_out in ALLOWED:
        yield f"{left_out.kind:<10} {left_out.signs} {left_out.pattern}: {left_out.reason}"


def is_sized_anew(difference: Difference) -> bool:
    """Whether it is a file system in memory that is as large as each boot finds memory."""
    before, after = (
        re.sub(r"\b(size|nr_inodes)=\w+,?", "", said)
        for said in (difference.before, difference.after)
    )
    return difference.kind == "mount" and difference.sign == "~" and before == after


def runs_again(difference: Difference, before: HostSnapshot) -> bool:
    """Whether it is a process with the command line of one of before: numbers change at boot."""
    commands = before.sections["process"].values()
    return difference.kind == "process" and difference.sign == "+" and difference.after in commands


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m tests.hostdiff")
    commands = parser.add_subparsers(dest="command", required=True)
    save = commands.add_parser("save", help="write down what the host looks like")
    save.add_argument("file")
    save.add_argument("--data", action="append", metavar="FOLDER", help="a data folder")
    compare = commands.add_parser("compare", help="print what is different now")
    compare.add_argument("file")
    compare.add_argument("--patience", type=float, default=3.0, metavar="SECONDS")
    compare.add_argument(
        "--allow", action="append", nargs=3, default=[], metavar=("KIND", "PATTERN", "REASON")
    )
    compare.add_argument(
        "--rebooted", action="store_true", help="the host has been booted again since"
    )
    commands.add_parser("reasons", help="print what is left out, and why")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments().parse_args(argv)
    if options.command == "reasons":
        print("\n".join(reasons()))
        return 0
    if options.command == "save":
        snapshot = HostSnapshot.take(options.data or DEFAULT_DATA_FOLDERS)
        snapshot.save(options.file)
        differences: tuple[Difference, ...] = ()
    else:
        snapshot = HostSnapshot.load(options.file)
        allow = [LeftOut(kind, pattern, reason) for kind, pattern, reason in options.allow]
        allow += REBOOTED if options.rebooted else ()
        differences = leaks_since(snapshot, options.patience, allow)
        if options.rebooted:
            differences = tuple(
                each
                for each in differences
                if not runs_again(each, snapshot) and not is_sized_anew(each)
            )
    for difference in differences:
        print(difference)
    for unread in snapshot.unread:
        print(f"not compared, {unread}", file=sys.stderr)
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
