"""What the user asks for: every error at once, by line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sykube import stored
from sykube.cluster.model.members import MAX_WORKERS
from sykube.cluster.model.spec import SETTINGS, ClusterSpec, check_name
from sykube.cluster.model.spec_reader import make_spec
from sykube.errors import UsageError
from sykube.host.host import Host
from sykube.node.limits import Limits
from tests.unit.helpers import errors

FULL = ClusterSpec(
    name="lab",
    workers=3,
    taint_master=True,
    dest="/data",
    dns=("192.0.2.1", "2001:db8::1"),
    ephemeral=True,
    network_dir="/etc/cni/net.d",
    options=("--nv", "--bind", "/data:/data"),
    local_image="/images/node.sif",
    mirror="https://deb.example/debian",
    node_subnet="10.1.2.0/24",
    pod_subnet="10.3.0.0/16",
    pod_network="/etc/cni.yaml",
    service_subnet="10.4.0.0/16",
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cluster.yaml"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"cpus": "two"}, "the limit of processors 'two' is not a number such as 2 or 1.5"),
        ({"cpus": "0.4"}, "the limit of processors 0.4 is too low: a node needs at least 0.5"),
        ({"cpus": "0"}, "too low"),
        ({"memory": "lots"}, "the limit of memory 'lots' is not a size such as 2Gi or 1500M"),
        ({"memory": "900M"}, "the limit of memory 900M is too low: a node needs at least 1Gi"),
        ({"memory": "0"}, "too low"),
        ({"pids": 499}, "the limit of processes must be at least 500, not 499"),
        ({"pids": -1}, "at least 500, not -1"),
        ({"control_planes": 2}, "the number of control planes must be 1, 3 or 5, not 2"),
        ({"control_planes": 0}, "must be 1, 3 or 5"),
    ],
)
def test_limits_that_no_node_can_live_with_are_refused(
    host: Host, flags: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError) as raised:
        make_spec(host, None, flags)
    assert words in raised.value.brief


def test_limits_are_told_to_nodes_as_numbers(
    host: Host,
) -> None:
    limits = make_spec(host, None, {"cpus": "1.5", "memory": "2Gi", "pids": 900}).limits
    assert (limits.millicores, limits.memory, limits.pids) == (1500, 2 * 1024**3, 900)
    assert make_spec(host, None, {"cpus": "0.5", "memory": "1Gi", "pids": 500}).limits.pids == 500
    assert ClusterSpec().limits == Limits()


def test_limits_in_a_file_may_be_numbers_as_in_kubernetes(host: Host, file: Path) -> None:
    file.write_text(
        "cpus: 1.5\nmemory: 2147483648\npids: 900\ncontrolPlanes: 3\n", encoding="utf-8"
    )
    spec = make_spec(host, file, {})
    assert (spec.cpus, spec.memory, spec.control_planes) == ("1.5", "2147483648", 3)
    assert spec.limits == Limits(1500, 2 * 1024**3, 900)


def test_a_limit_in_a_file_that_is_neither_number_nor_text_is_an_error(
    host: Host, file: Path
) -> None:
    found = errors(host, file, "cpus: true\nmemory: [1Gi]\npids: 900.5\n")
    assert found == [
        "1: cpus must be a number or a text",
        "2: memory must be a number or a text",
        "3: pids must be a whole number",
    ]


def test_keys_that_must_have_signed_are_whole_fingerprints(host: Host, file: Path) -> None:
    file.write_text(f"requireSigned: ['{'ab ' * 20}', {'C' * 64}]\n", encoding="utf-8")
    assert make_spec(host, file, {}).signers == ["AB" * 20, "C" * 64]
    found = errors(host, file, "name: x\nrequireSigned: ['0A0C2C1FCC']\n")
    assert found == [
        "2: '0A0C2C1FCC' is no whole fingerprint of a key: 40 hexadecimal digits (PGP) or 64 (PEM)"
    ]


@pytest.mark.parametrize("value", ["bridge", "none", "/cni.yaml"])
def test_pod_networks(host: Host, file: Path, value: str) -> None:
    file.write_text(f"podNetwork: {value}\n", encoding="utf-8")
    assert make_spec(host, file, {}).pod_network == value


@pytest.mark.parametrize("value", ["calico", "cni.yaml", "''"])
def test_a_pod_network_that_is_no_kind_and_no_path(host: Host, file: Path, value: str) -> None:
    (found,) = errors(host, file, f"podNetwork: {value}\n")
    assert "is neither bridge, none nor an absolute path of a manifest" in found


def test_nothing_asked_for_gives_the_defaults(
    host: Host,
) -> None:
    assert make_spec(host, None, {}) == ClusterSpec()
    assert ClusterSpec().name == "sykube"
    assert ClusterSpec().workers == 1


def test_a_file_with_every_key(host: Host, file: Path) -> None:
    file.write_text(
        """\
apiVersion: sykube/v1alpha1
kind: Cluster
name: lab
workers: 3
taintMaster: true
dest: /data
dns: [192.0.2.1, "2001:db8::1"]
ephemeral: true
networkDir: /etc/cni/net.d
options: --nv --bind /data:/data
localImage: /images/node.sif
mirror: https://deb.example/debian
nodeSubnet: 10.1.2.0/24
podSubnet: 10.3.0.0/16
podNetwork: /etc/cni.yaml
serviceSubnet: 10.4.0.0/16
""",
        encoding="utf-8",
    )
    assert make_spec(host, file, {}) == FULL


def test_options_may_also_be_a_list(host: Host, file: Path) -> None:
    file.write_text("options: [--bind, '/a b:/a b']\n", encoding="utf-8")
    assert make_spec(host, file, {}).options == ("--bind", "/a b:/a b")


def test_every_error_is_shown_at_once_by_its_line(host: Host, file: Path) -> None:
    text = """\
apiVersion: sykube/v2
kind: Cluster
nmae: lab
workers: three
taintMaster: 1
dns: 192.0.2.1
dest: data
workers: 2
mirror: deb.example
podSubnet: 10.3.0.0/24
nodeSubnet: 10.1.2.3/24
serviceSubnet: 8.8.8.0/24
completelyUnknown: true
name: Lab_1
"""
    found = errors(host, file, text)
    assert [line.split(":")[0] for line in found] == ["1", *map(str, range(3, 15))]
    for line, words in zip(
        found,
        [
            ["apiVersion", "'sykube/v1alpha1'", "'sykube/v2'"],
            ["unknown key 'nmae'", "did you mean 'name'?"],
            ["workers must be a whole number"],
            ["taintMaster must be true or false"],
            ["dns must be a list of texts"],
            ["'data' must be absolute"],
            ["'workers' stands here for the second time"],
            ["'deb.example' is not a URL"],
            ["10.3.0.0/24 is too small"],
            ["10.1.2.3/24", "host bits set"],
            ["8.8.8.0/24 is not a private one"],
            ["unknown key 'completelyUnknown'"],
            ["'Lab_1' is not a DNS label"],
        ],
        strict=True,
    ):
        assert all(word in line for word in words), line
    assert "did you mean" not in found[-2]


def test_one_error_is_the_brief_itself(host: Host, file: Path) -> None:
    assert errors(host, file, "workers: -1\n") == [f"1: {worker_error(-1)}"]


def worker_error(number: int) -> str:
    return f"the number of workers must be from 0 to {MAX_WORKERS}, not {number}"


@pytest.mark.parametrize("number", [-1, MAX_WORKERS + 1, 1000])
def test_a_number_of_workers_that_cannot_be(host: Host, number: int) -> None:
    with pytest.raises(UsageError) as raised:
        make_spec(host, None, {"workers": number})
    assert raised.value.brief == worker_error(number)


@pytest.mark.parametrize("number", [0, MAX_WORKERS])
def test_a_number_of_workers_that_can_be(host: Host, number: int) -> None:
    assert make_spec(host, None, {"workers": number}).workers == number


def test_flags_win_over_the_file_and_cure_its_errors(host: Host, file: Path) -> None:
    file.write_text("name: lab\nworkers: 500\ndns: [192.0.2.1]\n", encoding="utf-8")
    spec = make_spec(host, file, {"workers": 2, "name": None, "dns": ("192.0.2.9",)})
    assert (spec.name, spec.workers, spec.dns) == ("lab", 2, ("192.0.2.9",))


def test_the_error_of_a_flag_has_no_line_of_the_file(host: Host, file: Path) -> None:
    file.write_text("name: lab\nworkers: 2\n", encoding="utf-8")
    with pytest.raises(UsageError) as raised:
        make_spec(host, file, {"workers": -1})
    assert raised.value.brief == worker_error(-1)


def test_errors_of_flags_and_of_the_file_come_together(host: Host, file: Path) -> None:
    found = errors(host, file, "wrokers: 2\n", name="-x")
    assert len(found) == 2
    assert any("did you mean 'workers'?" in line for line in found)
    assert any("'-x' is not a DNS label" in line for line in found)


@pytest.mark.parametrize("name", ["a", "a-b", "0", "lab1", "x" * 50])
def test_names_that_are_dns_labels(host: Host, name: str) -> None:
    check_name(name)
    assert make_spec(host, None, {"name": name}).name == name


@pytest.mark.parametrize(
    "name",
    ["", "-a", "a-", "A", "a.b", "a_b", "a b", "a/b", "../a", "ä", "a\n", "x" * 51, "host"],
)
def test_names_that_are_none(host: Host, name: str) -> None:
    with pytest.raises(UsageError):
        check_name(name)
    with pytest.raises(UsageError):
        make_spec(host, None, {"name": name})


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words\n"])
def test_a_file_without_a_mapping(host: Host, file: Path, text: str) -> None:
    assert "must hold a mapping" in errors(host, file, text)[0]


@pytest.mark.parametrize("text", ["a: [1\n", "a: b: c\n", "\tname: x\n"])
def test_a_file_that_is_no_yaml(host: Host, file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match="is no valid YAML"):
        make_spec(host, file, {})


@pytest.mark.parametrize(
    "text",
    [
        "name: !!python/object:os.system x\n",
        "name: !mine x\n",
        "workers: 2024-13-45\n",
        "options: --bind '/a\n",
    ],
    ids=["python tag", "own tag", "no date", "open quote"],
)
def test_values_that_cannot_be_read_are_usage_errors_too(host: Host, file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError):
        make_spec(host, file, {})


def test_a_file_that_cannot_be_read(host: Host, file: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        make_spec(host, file, {})
    with pytest.raises(UsageError, match="Is a directory"):
        make_spec(host, tmp_path, {})
    file.write_bytes(b"name: \xff\xfe\n")
    with pytest.raises(UsageError, match="is no valid YAML"):
        make_spec(host, file, {})


@pytest.mark.parametrize(
    "key", ["name: null", "name: 5", "dest: [a]", "dns: [5]", "ephemeral: no!"]
)
def test_values_of_the_wrong_type(host: Host, file: Path, key: str) -> None:
    assert "must be" in errors(host, file, f"{key}\n")[0]


@pytest.mark.parametrize("address", ["localhost", "192.0.2.300", ""])
def test_a_resolver_that_is_no_address(host: Host, address: str) -> None:
    with pytest.raises(UsageError, match="is neither an IP address nor 'none'"):
        make_spec(host, None, {"dns": ("192.0.2.1", address)})


def test_no_resolver_at_all_is_a_choice_that_stands_alone(
    host: Host,
) -> None:
    assert make_spec(host, None, {"dns": ("none",)}).dns == ("none",)
    with pytest.raises(UsageError, match="--dns none goes with no address"):
        make_spec(host, None, {"dns": ("192.0.2.1", "none")})


@pytest.mark.parametrize("spec", [ClusterSpec(), FULL], ids=["defaults", "full"])
def test_a_spec_survives_being_stored(spec: ClusterSpec) -> None:
    assert stored.load(ClusterSpec, json.loads(json.dumps(stored.dump(spec)))) == spec


def test_keys_of_a_later_version_are_left_out() -> None:
    assert stored.load(ClusterSpec, {"name": "lab", "fromTheFuture": 1}) == ClusterSpec(name="lab")


def test_differences_name_what_is_and_what_is_asked_for() -> None:
    assert FULL.differences(FULL) == []
    asked = stored.load(ClusterSpec, stored.dump(FULL) | {"workers": 4, "dns": []})
    assert FULL.differences(asked) == [
        "workers: 3 → 4 (sykube node add, delete)",
        "dns: ['192.0.2.1', '2001:db8::1'] → []",
    ]


def test_a_spec_is_frozen() -> None:
    with pytest.raises(AttributeError):
        FULL.workers = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (("nv,rocm",), ("nv", "rocm")),
        (("nv", "bind=/opt/site, bind=/scratch:rw"), ("nv", "bind=/opt/site", "bind=/scratch:rw")),
        (("writable-tmpfs", "fakeroot"), ("writable-tmpfs", "fakeroot")),
    ],
)
def test_options_that_pods_may_have_are_separated_by_commas_or_given_one_by_one(
    host: Host, file: Path, given: tuple[str, ...], found: tuple[str, ...]
) -> None:
    parsed = SETTINGS["allow_pod_option"].type.parse(given)
    assert parsed == found
    assert make_spec(host, None, {"allow_pod_option": parsed}).allow_pod_option == found
    for value in (", ".join(found), found):
        file.write_text(f"allowPodOption: {json.dumps(value)}\n", encoding="utf-8")
        assert make_spec(host, file, {}).allow_pod_option == found


@pytest.mark.parametrize(
    ("option", "wrong"),
    [
        ("nvidia", "pods can have no option 'nvidia'"),
        ("nv=all", "pods can have no option 'nv=all'"),
        ("bind", "needs a folder that pods may bind, such as bind=/opt/site"),
        ("bind=", "is no absolute path"),
        ("bind=opt", "is no absolute path"),
        ("bind=/opt/../etc", "or not the shortest"),
        ("bind=/opt/", "or not the shortest"),
        ("bind=//opt", "or not the shortest"),
        ("bind=/opt:ro", "has a character that it cannot have"),
        ("bind=/opt:rw:rw", "has a character that it cannot have"),
        ("bind=/opt\nnv", "has a character that it cannot have"),
        ("bind=/a b", "has a character that it cannot have"),
        ("bind=/", "is not for pods"),
        ("bind=/etc", "is not for pods: /etc/kubernetes is the host's own"),
        ("bind=/var/lib", "is not for pods: /var/lib/sykube is the host's own"),
        ("bind=/proc/1/root:rw", "is not for pods: /proc is the host's own"),
        ("bind=/data", "is not for pods: /data/clusters is the host's own"),
    ],
)
def test_options_that_no_pod_can_have(host: Host, option: str, wrong: str) -> None:
    with pytest.raises(UsageError) as raised:
        make_spec(host, None, {"allow_pod_option": (option,), "dest": "/data/clusters"})
    assert wrong in raised.value.brief


def test_a_folder_is_named_once(host: Host, file: Path) -> None:
    found = errors(host, file, "allowPodOption: ['bind=/opt/site', nv, 'bind=/opt/site:rw']\n")
    assert found == ["1: the folder /opt/site that pods may bind is named twice"]
