"""Proxies and authorities of a site: checked before anything changes, kept, given to nodes alone."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from sykube import redaction, stored
from sykube.cluster.commands import power, removal, scaling
from sykube.cluster.model.spec import ClusterSpec
from sykube.cluster.model.spec_reader import make_spec
from sykube.cluster.model.state import State
from sykube.cluster.operations import site_network
from sykube.errors import ExitCode, UsageError
from sykube.host import proxies
from sykube.host.host import Host
from sykube.host.paths import ClusterPaths
from sykube.host.proxies import Proxies
from sykube.host.run import WITHOUT_PROXIES, clean_environment
from tests.fakes import World
from tests.unit.helpers import Sykube, differences, fake_spec, made, unchanged
from tests.unit.test_certs import NOW, REAL, pem

REPOSITORY = Path(__file__).resolve().parents[2]
PASSWORD = "s3cret%40Planted"
PROXY = f"http://me:{PASSWORD}@proxy.example:3128"
VARIABLES = ("http_proxy", "https_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may need one."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def variables(node: Path) -> dict[str, str]:
    """What the containerd of a node is told, as the node's shell reads it."""
    file = node / "config/containerd.env"
    assert file.stat().st_mode & 0o777 == 0o600
    return dict(line.split("=", 1) for line in shlex.split(file.read_text()))


# --- what is a proxy ---


@pytest.mark.parametrize(
    "url",
    [
        "http://proxy.example:3128",
        "https://proxy.example",
        "http://192.0.2.7:8080/",
        "proxy.example:3128",
        "me:pw@proxy.example:3128",
        "socks5://proxy.example:1080",
        "http://[2001:db8::1]:3128",
        PROXY,
        "",
    ],
)
def test_proxies_that_are_taken(url: str) -> None:
    assert proxies.problem(url) == ""


@pytest.mark.parametrize(
    "url",
    [
        "ftp://proxy.example",
        "http://",
        "http://:3128",
        "http://proxy.example:port",
        "http://proxy.example:0",
        "http://proxy.example:99999",
        "http://proxy.example/path",
        "http://proxy.example?x=1",
        "http://me:Plan ted@proxy.example",
        "http://me:Plan/ted@proxy.example",
        "http://me:Plan'ted@proxy.example",
        "http://me:Plan\nted@proxy.example",
        "http://exa mple",
        "http://127.0.0.1:3128",
        "http://me:Planted@localhost:3128",
        "http://[::1]:3128",
    ],
)
def test_proxies_that_are_refused_are_not_said_again(url: str) -> None:
    problem = proxies.problem(url)
    assert problem
    assert "ted" not in problem.replace("started", "")


def test_all_of_the_cluster_is_reached_without_a_proxy() -> None:
    given = Proxies(PROXY, "", (".site.example", "localhost"))
    found = given.variables(["10.11.11.0/24", "10.244.0.0/16"])
    assert found["http_proxy"] == found["HTTP_PROXY"] == PROXY
    assert "https_proxy" not in found
    assert found["no_proxy"] == found["NO_PROXY"]
    assert found["no_proxy"].split(",") == [
        *(".site.example", "localhost", "127.0.0.0/8", ".svc", ".cluster.local"),
        *("10.11.11.0/24", "10.244.0.0/16"),
    ]
    assert Proxies("", "", ("x",)).variables(["10.11.11.0/24"]) == {}


def test_the_callers_own_proxies() -> None:
    found, problems = proxies.of_environment(
        {
            "HTTP_PROXY": "other.example:1",
            "http_proxy": "proxy.example:3128",
            "HTTPS_PROXY": PROXY,
            "no_proxy": " .a.example, 192.0.2.0/24 ,,bad one",
        }
    )
    assert found == Proxies("http://proxy.example:3128", PROXY, (".a.example", "192.0.2.0/24"))
    assert problems == []
    found, (problem,) = proxies.of_environment({"https_proxy": f"http://me:{PASSWORD}@localhost:1"})
    assert not found
    assert problem.startswith("https_proxy is on the host's loopback (localhost)")
    assert PASSWORD not in problem


def test_what_talks_to_the_cluster_alone_goes_by_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, PROXY)
        monkeypatch.setenv(name.upper(), PROXY)
    assert clean_environment()["http_proxy"] == PROXY, "apt needs it"
    assert not [name for name in clean_environment(WITHOUT_PROXIES) if "proxy" in name.lower()]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {}),
        ({"no_proxy": "a"}, {"no_proxy": "a"}),
        ({"https_proxy": PROXY}, {"no_proxy": "192.0.2.1", "NO_PROXY": "192.0.2.1"}),
        (
            {"HTTPS_PROXY": PROXY, "NO_PROXY": "a,b"},
            {"no_proxy": "a,b,192.0.2.1", "NO_PROXY": "a,b,192.0.2.1"},
        ),
        (
            {"http_proxy": PROXY, "NO_PROXY": "a", "no_proxy": "b"},
            {"no_proxy": "b,192.0.2.1", "NO_PROXY": "a,192.0.2.1"},
        ),
    ],
)
def test_an_exception_is_added_where_there_is_a_proxy(
    before: dict[str, str], after: dict[str, str]
) -> None:
    assert proxies.with_exception(before, "192.0.2.1") == before | after


def test_kubectl_asks_no_proxy_for_the_api_server(
    recorded: World, sykube: Sykube, monkeypatch: pytest.MonkeyPatch
) -> None:
    became: list[dict[str, str]] = []
    recorded.programs.become = lambda _, env: became.append(dict(env))
    monkeypatch.setenv("https_proxy", PROXY)
    assert sykube("kubectl", "get", "nodes").code == 0
    assert became[0]["https_proxy"] == PROXY
    assert became[0]["NO_PROXY"] == "10.11.11.254"


# --- from what is asked to the nodes ---


def test_proxies_of_a_configuration_file(host: Host, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(
        f"httpProxy: {PROXY}\nhttpsProxy: proxy.example:1\nnoProxy: a.example, .b.example\n"
        "caCertificates: [/etc/site.pem]\n"
    )
    spec = make_spec(host, file, {})
    assert (spec.http_proxy, spec.https_proxy) == (PROXY, "proxy.example:1")
    assert spec.no_proxy == ("a.example", ".b.example")
    assert spec.ca_certificates == ("/etc/site.pem",)
    assert stored.load(ClusterSpec, stored.dump(spec)) == spec
    file.write_text("noProxy: [a.example]\n")
    assert make_spec(host, file, {}).no_proxy == ("a.example",)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--http-proxy", f"ftp://me:{PASSWORD}@x"], "the proxy for HTTP is no URL of a proxy"),
        (["--https-proxy", f"me:{PASSWORD}@127.0.0.1:1"], "is on the host's loopback"),
        (["--no-proxy", "a,b c"], "'b c' is no name, domain or range that can be reached"),
        (["--ca-certificate", "/absent.pem"], "cannot read the certificate /absent.pem"),
    ],
)
def test_wrong_ones_are_exit_code_2_and_change_nothing(
    world: World, sykube: Sykube, arguments: list[str], words: str
) -> None:
    with unchanged(world):
        result = sykube("init", "--dns", "192.0.2.1", *arguments)
    assert result.code == ExitCode.USAGE, result.err
    assert words in result.err
    assert "what to do: " in result.err
    assert PASSWORD not in result.err


def test_a_broken_configuration_file_is_shown_without_its_password(
    host: Host, tmp_path: Path
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"httpProxy: {PROXY}: [\n")
    with pytest.raises(UsageError) as raised:
        make_spec(host, file, {})
    assert PASSWORD not in raised.value.brief + raised.value.details


def test_the_containerd_of_every_node_knows_the_proxies(
    world: World, sykube: Sykube, tmp_path: Path
) -> None:
    bundle = tmp_path / "site.pem"
    bundle.write_text(f"the site's\n{REAL}")
    result = sykube(
        "init", "--name", "lab", "--dns", "192.0.2.1", "--ca-certificate", str(bundle), "-v",
        "--http-proxy", PROXY, "--https-proxy", f"me:{PASSWORD}@proxy.example:1",
        "--no-proxy", ".site.example",
    )  # fmt: skip
    assert result.code == 0, result.err
    scaling.add(world.host, "lab", 1, world.ui())
    nodes = sorted((world.host.data / "lab/nodes").iterdir())
    assert [node.name for node in nodes] == ["lab-master", "lab-node1", "lab-node2"]
    for node in nodes:
        found = variables(node)
        assert found["http_proxy"] == PROXY
        assert found["HTTPS_PROXY"] == f"http://me:{PASSWORD}@proxy.example:1"
        without = found["no_proxy"].split(",")
        assert {".site.example", "10.11.11.0/24", ".svc", ".cluster.local"} < set(without)
        state = State.load(ClusterPaths(world.host, "lab").state)
        assert state is not None
        assert {str(state.subnets.pods), str(state.subnets.services)} < set(without)
        assert (node / "config/ca-certificates.pem").read_text() == REAL
    # Nothing but the record and that file has the password, and root alone reads both.
    for file in world.root.rglob("*"):
        if file.is_file() and PASSWORD in file.read_text(errors="replace"):
            assert file.name in ("state.json", "containerd.env"), file
            assert file.stat().st_mode & 0o777 == 0o600
    assert PASSWORD not in result.out + result.err
    assert not [call for call in world.calls.all if PASSWORD in str(call.words)]


def test_they_are_the_same_after_stop_and_start(world: World) -> None:
    made(world, http_proxy=PROXY)
    node = ClusterPaths(world.host, "fake").node("fake-master")
    before = variables(node)
    power.stop(world.host, "fake", power.StopOptions(), world.ui())
    (node / "config/containerd.env").unlink()
    power.start(world.host, "fake", world.ui())
    assert variables(node) == before


def test_without_proxies_nodes_have_none(world: World) -> None:
    cluster = made(world)
    assert variables(ClusterPaths(world.host, "fake").node(cluster.master.instance)) == {}
    assert cluster.master.pull("/etc/sykube/ca-certificates.pem").read_text() == ""


def test_the_callers_own_are_taken_and_init_again_does_not_ask_for_them(
    world: World, sykube: Sykube, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", PROXY)
    assert sykube("init", "--dns", "192.0.2.1").code == 0
    monkeypatch.delenv("https_proxy")
    assert sykube("init", "--dns", "192.0.2.1").code == 0
    assert variables(world.host.data / "sykube/nodes/sykube-master")["https_proxy"] == PROXY


def test_of_the_callers_own_what_nodes_cannot_use_is_left_out_with_a_warning(
    world: World, sykube: Sykube, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://me:{PASSWORD}@127.0.0.1:3128")
    result = sykube("init", "--dns", "192.0.2.1")
    assert result.code == 0
    assert "warning: http_proxy is on the host's loopback" in result.err
    assert PASSWORD not in result.err
    assert variables(world.host.data / "sykube/nodes/sykube-master") == {}
    # What was asked for makes it of no account.
    result = sykube("init", "--name", "lab", "--dns", "192.0.2.1", "--http-proxy", "p.example:1")
    assert "warning" not in result.err
    assert variables(world.host.data / "lab/nodes/lab-master")["http_proxy"] == "http://p.example:1"


def test_another_password_is_a_difference_that_is_not_shown(world: World, sykube: Sykube) -> None:
    made(world, http_proxy=PROXY)
    result = sykube("init", "--name", "fake", "--dns", "127.0.0.53", "--dns", "192.0.2.53",
                    "--http-proxy", "http://me:other-Planted@proxy.example:3128")  # fmt: skip
    assert result.code == ExitCode.FAILED
    assert "httpProxy" in result.err
    assert "Planted" not in result.err


def test_delete_leaves_nothing_of_them(world: World) -> None:
    before = world.snapshot()
    made(world, http_proxy=PROXY)
    removal.delete(world.host, "fake", world.ui())
    assert differences(before, world.snapshot()) == []


# --- authorities ---


def test_certificates_alone_are_taken_each_once(tmp_path: Path) -> None:
    other = pem(NOW + timedelta(days=5))
    key = "-----BEGIN PRIVATE KEY-----\nPlanted\n-----END PRIVATE KEY-----\n"
    (tmp_path / "a").write_text(f"# comment\n{REAL}{key}{other}")
    (tmp_path / "b").write_text(REAL)
    found = site_network.authorities([str(tmp_path / "a"), str(tmp_path / "b")], NOW)
    assert found == (REAL, other)
    assert site_network.authorities([]) == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "there is no PEM certificate"),
        ("-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----\n", "no PEM certificate"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "damaged"),
        ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", "no file of certificates"),
        ("\x30\x82\x01\x02", "there is no PEM certificate"),
        (REAL + pem(NOW - timedelta(days=1)), "to 2026-05-31, not now"),
        (pem(NOW + timedelta(days=9), NOW + timedelta(days=1)), "valid from 2026-06-02"),
    ],
)
def test_authorities_that_are_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "site.pem"
    file.write_text(text)
    with pytest.raises(UsageError) as raised:
        site_network.authorities([str(file)], NOW)
    assert words in raised.value.brief
    assert str(file) in raised.value.brief
    assert raised.value.resolution


def test_relative_certificates_are_those_of_the_callers_folder(
    world: World, sykube: Sykube, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ca.pem").write_text(REAL)
    assert sykube("init", "--dns", "192.0.2.1", "--ca-certificate", "ca.pem").code == 0
    state = State.load(ClusterPaths(world.host, "sykube").state)
    assert state is not None
    assert state.spec.ca_certificates == (str(tmp_path / "ca.pem"),)
    assert state.authorities == (REAL,)
    # The record has them, whatever becomes of the file.
    (tmp_path / "ca.pem").unlink()
    power.stop(world.host, "sykube", power.StopOptions(), world.ui())
    power.start(world.host, "sykube", world.ui())


def test_a_dry_run_checks_authorities(world: World, sykube: Sykube, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    result = sykube("init", "--dry-run", "--ca-certificate", str(tmp_path / "ca.pem"))
    assert result.code == ExitCode.USAGE


# --- in the node ---


def run_script(script: str, folder: Path, *programs: str) -> str:
    """Run a part of a node's script in which /etc, /usr/local and /usr/bin are in a folder."""
    for path in ("/etc/sykube", "/usr/local/share", "/usr/bin/containerd"):
        script = script.replace(path, f"{folder}{path}")
    (folder / "bin").mkdir(exist_ok=True)
    for program in programs:
        (folder / "bin" / program).write_text(f'#!/bin/sh\necho "{program} $*" >> {folder}/calls\n')
        (folder / "bin" / program).chmod(0o755)
    environment = {"PATH": f"{folder}/bin:/usr/bin:/bin"}
    done = subprocess.run(
        ["sh", "-euc", script], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_containerd_alone_gets_the_variables(tmp_path: Path) -> None:
    script = (REPOSITORY / "definitions/node/containerd-start").read_text()
    config, program = tmp_path / "etc/sykube", tmp_path / "usr/bin/containerd"
    config.mkdir(parents=True)
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\nenv | grep -i _proxy; echo "$@"\n')
    program.chmod(0o755)
    given = Proxies("http://me:a$b&c;d@p.example:1").variables([])
    text = "".join(f"{name}={shlex.quote(value)}\n" for name, value in given.items())
    (config / "containerd.env").write_text(text)
    out = run_script(script, tmp_path)
    assert "http_proxy=http://me:a$b&c;d@p.example:1\n" in out
    assert out.endswith("--config /run/sykube/containerd.toml\n")
    (config / "containerd.env").write_text("")
    assert "_proxy" not in run_script(script, tmp_path)
    programs = REPOSITORY / "supervisor/programs"
    users = [f.name for f in programs.iterdir() if "containerd-start" in f.read_text()]
    assert users == ["containerd.conf"]


def test_a_node_trusts_what_it_is_told_to_and_nothing_of_before(tmp_path: Path) -> None:
    whole = (REPOSITORY / "definitions/node/node-init").read_text()
    match = re.search(r"^trusted=.*?^fi$", whole, re.MULTILINE | re.DOTALL)
    assert match
    bundle = tmp_path / "etc/sykube/ca-certificates.pem"
    bundle.parent.mkdir(parents=True)
    trusted = tmp_path / "usr/local/share/ca-certificates/sykube"
    other = pem(NOW + timedelta(days=5))

    def start(text: str) -> int:
        """How often the store was made anew so far."""
        bundle.write_text(text)
        run_script(match[0], tmp_path, "update-ca-certificates")
        calls = tmp_path / "calls"
        return len(calls.read_text().splitlines()) if calls.exists() else 0

    assert start("") == 0
    assert not trusted.exists()
    assert start(f"{REAL}\n{other}") == 1
    assert [file.read_text().strip() for file in sorted(trusted.glob("*.crt"))] == [
        REAL.strip(), other.strip(),
    ]  # fmt: skip
    assert start(f"{REAL}\n{other}") == 1, "nothing to do"
    assert start(other) == 2
    assert [file.name for file in trusted.glob("*.crt")] == ["1.crt"]
    # Cut off in the middle: the next start makes it whole.
    (trusted / "complete").unlink()
    assert start(other) == 3
    assert start("") == 4
    assert list(trusted.glob("*.crt")) == []
    assert start("") == 4
    assert (tmp_path / "calls").read_text().splitlines()[0] == "update-ca-certificates --fresh"


# --- what others see ---


@pytest.mark.parametrize(
    "text",
    [
        f"sykube init --http-proxy {PROXY}",
        f"sykube init --https-proxy me:{PASSWORD}@proxy.example:1",
        f"sykube init --https-proxy=me:{PASSWORD}@proxy.example:1",
        f"httpsProxy: me:{PASSWORD}@proxy.example:1",
        f"https_proxy=me:{PASSWORD}@proxy.example:1",
        f"HTTP_PROXY='{PROXY}'",
        json.dumps({"httpProxy": PROXY, "https": f"me:{PASSWORD}@proxy.example:1"})
        .replace('"https"', '"httpsProxy"'),
    ],
)  # fmt: skip
def test_reports_and_logs_have_no_password(text: str) -> None:
    left = redaction.text(text)
    assert PASSWORD not in left
    assert "proxy.example" in left
    assert redaction.text("--http-proxy http://proxy.example:1") == (
        "--http-proxy http://proxy.example:1"
    )


def test_what_differs_is_shown_without_the_password() -> None:
    assert fake_spec(http_proxy=PROXY).differences(fake_spec()) == [
        "httpProxy: 'http://REDACTED@proxy.example:3128' → ''"
    ]
