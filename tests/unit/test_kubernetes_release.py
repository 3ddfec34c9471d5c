"""Which Kubernetes the commands choose, what they ask of whom for it, and what is recorded."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sykube.cluster.commands import lifecycle
from sykube.cluster.commands.lifecycle import InitOptions
from sykube.cluster.model.spec import ClusterSpec
from sykube.cluster.model.spec_reader import make_spec
from sykube.cluster.model.state import State
from sykube.cluster.operations import preparation
from sykube.cluster.operations.kubernetes_release import ANY_MIRROR, KubernetesRelease, choose
from sykube.errors import ExitCode, HostError, SykubeError, UsageError
from sykube.host.grants import Grants
from sykube.host.host import Host
from sykube.host.paths import ClusterPaths
from sykube.host.proxies import Proxies
from sykube.image import build, downloads, upstream, versions
from sykube.image.choice import Choice
from sykube.image.mirrors import Mirrors
from sykube.image.upstream import Release
from tests import releases
from tests.fakes import World
from tests.fakes.image import write_sif
from tests.releases import CONTAINERD, RUNC, Fault, Server
from tests.unit import test_snapshots
from tests.unit.helpers import Sykube, fake_spec, init, unchanged, without_a_site

DEBIAN = versions.DEBIAN.kubernetes_version
# The newest that runs on a host with cgroup v1, as the fake one is.
VERSION = "1.34.7"
RELEASE = Release.of(VERSION)
NEWEST = [f"{minor}.1" for minor in upstream.minors() if not minor.startswith("1.34")]
DNS = ("--dns", "192.0.2.53")


@pytest.fixture(autouse=True)
def quiet(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.machine = "x86_64"
    without_a_site(monkeypatch)


@pytest.fixture
def server() -> Iterator[Server]:
    programs = {name: name.encode() for name in ("kubeadm", "kubelet", "kubectl")}
    made = Server(
        releases.stable([*NEWEST, VERSION])
        | releases.kubernetes(VERSION, programs)
        | releases.containerd(RELEASE.containerd, b"containerd")
        | releases.runc(RELEASE.runc, {"amd64": b"runc"})
    )
    yield made
    made.close()


@pytest.fixture
def mirrors(server: Server) -> dict[str, str]:
    """The sites by the fields of ClusterSpec."""
    return {
        "kubernetes_mirror": server.url,
        "containerd_mirror": f"{server.url}{CONTAINERD}",
        "runc_mirror": f"{server.url}{RUNC}",
        "image_repository": "registry.example/kubernetes",
    }


@pytest.fixture
def real_fingerprints(
    monkeypatch: pytest.MonkeyPatch, world: World
) -> list[versions.DebianRelease]:
    """Builds of the fake world are of what they are asked for; what was built."""
    made: list[versions.DebianRelease] = []

    def building(_: Host, what: versions.DebianRelease, *__: object, **___: object) -> object:
        made.append(what)
        return build.list_images(world.host)[0]

    # The world has one image, whatever is asked for: its own `layers` stands in for all.
    monkeypatch.setattr(build, "build", building)
    monkeypatch.setattr(
        build,
        "cached",
        lambda _host, what, _mirror: (
            build.list_images(world.host)[0] if what is versions.DEBIAN else None
        ),
    )
    return made


def recorded(host: Host, name: str = "fake") -> Choice | None:
    state = State.load(ClusterPaths(host, name).state)
    assert state is not None
    return state.choice


# --- auto ---


def test_debian_where_the_release_site_does_not_answer(world: World) -> None:
    ui = world.ui()
    assert init(world, fake_spec(), ui)
    first = ui.said[0]
    assert first.startswith(
        f"Kubernetes {DEBIAN} from Debian ({Mirrors.kubernetes} does not answer"
    )
    assert "Network is unreachable" in first
    assert "past its end of life" in first
    found = recorded(world.host)
    assert found is not None
    assert (found.source, found.kubernetes) == ("debian", DEBIAN)


@pytest.fixture
def built(world: World, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Sources and versions of node images that root has built; the machine is a user's now."""
    found: list[tuple[str, str]] = []

    def image(source: str, version: str) -> SimpleNamespace:
        return SimpleNamespace(source=source, versions=lambda: {"kubernetes": f"v{version}"})

    def cached(release: KubernetesRelease) -> object:
        asked = (release.choice.source, release.choice.kubernetes)
        return asked in found or None

    monkeypatch.setattr(build, "list_images", lambda _: [image(*each) for each in found])
    monkeypatch.setattr(KubernetesRelease, "cached_image", cached)
    world.host = replace(world.host, grants=Grants(rootless=True, user="ada", uid=1000))
    return found


def test_a_user_gets_the_newest_that_root_has_built_and_nobody_is_asked(
    world: World, built: list[tuple[str, str]]
) -> None:
    built += [("debian", DEBIAN), ("upstream", "1.34.7"), ("upstream", "1.34.10")]
    built += [("upstream", "1.36.2")]
    fitting = ("1.34", "1.20")
    found = choose(world.host, ClusterSpec(), world.ui(), fitting=fitting).choice
    assert (found.source, found.kubernetes) == ("upstream", "1.34.10")
    found = choose(world.host, ClusterSpec(), world.ui()).choice
    assert found.kubernetes == "1.36.2"
    # Of what is asked for it is the same.
    asked = choose(world.host, ClusterSpec(source="debian"), world.ui()).choice
    assert asked.kubernetes == DEBIAN
    for version in ("1.34", "v1.34"):
        asked = choose(world.host, ClusterSpec(kubernetes_version=version), world.ui()).choice
        assert asked.kubernetes == "1.34.10"
    spec = ClusterSpec(source="upstream", kubernetes_version="1.34.7")
    assert choose(world.host, spec, world.ui()).choice.kubernetes == "1.34.7"


def test_one_that_root_has_not_built_is_refused_with_what_is_there(
    world: World, built: list[tuple[str, str]], server: Server, mirrors: dict[str, Any]
) -> None:
    built += [("debian", DEBIAN)]
    spec = ClusterSpec(kubernetes_version="1.34", **mirrors)
    release = choose(world.host, spec, world.ui())
    world.host = replace(world.host, grants=Grants(rootless=True, users=False))
    with pytest.raises(HostError, match="more user IDs than one") as caught:
        preparation.require_builder(world.host, release)
    assert caught.value.resolution.splitlines() == [
        "Ask the administrator for: sykube node-image build --source upstream "
        f"--kubernetes-version {VERSION}",
        "  Or for user IDs of your own: the line is in `sykube doctor`",
        "  Or give one that another machine built: --local-image FILE",
        f"  Or take what root has built already: --source debian --kubernetes-version {DEBIAN}",
    ]
    for grants in (Grants(), Grants(rootless=True)):
        world.host = replace(world.host, grants=grants)
        preparation.require_builder(world.host, release)


def test_upstream_where_it_answers(
    world: World,
    server: Server,
    mirrors: dict[str, Any],
    real_fingerprints: list[object],
) -> None:
    world.web = {Mirrors.kubernetes: server.url}
    mirrors.pop("kubernetes_mirror")
    ui = world.ui()
    # What is built is the world's image of Debian's.
    world_image = next((world.root / "cache/node-images").glob("*/versions"))
    world_image.write_text(f"kubernetes=v{VERSION}\ncontainerd={RELEASE.containerd}\n")
    assert init(world, fake_spec(**mirrors), ui)
    found = recorded(world.host)
    assert found is not None
    assert (found.source, found.kubernetes) == ("upstream", VERSION), ui.said
    # cgroup v1 keeps it from what is newer.
    assert f"cgroup v1, and the newest, {NEWEST[0]}, needs cgroup v2" in ui.said[0]
    assert "--allow-cgroup-v1" in ui.said[0]
    (built,) = real_fingerprints
    assert isinstance(built, versions.Upstream)
    assert built.image_repository == "registry.example/kubernetes"
    assert {each.path.read_bytes() for each in built.files.values()} == {
        name.encode() for name in versions.PUBLISHED
    }


def test_a_host_that_may_run_anything_takes_the_newest(
    world: World, mirrors: dict[str, Any]
) -> None:
    found = choose(world.host, ClusterSpec(**mirrors), world.ui())
    assert found.choice.kubernetes == NEWEST[0]


# --- what is not asked for ---


@pytest.fixture
def silent(world: World) -> Iterator[None]:
    """Nobody may be asked which Kubernetes there is."""
    yield
    assert world.asked == []


def test_a_cluster_that_is_there_asks_nobody(world: World, sykube: Sykube) -> None:
    world.programs.answers["tar"] = test_snapshots.fake_tar
    assert sykube("init", "--name", "fake", *DNS).code == 0
    before = recorded(world.host)
    world.asked.clear()
    assert sykube("init", "--name", "fake", *DNS).code == 0
    assert sykube("node", "add", "--name", "fake").code == 0
    assert sykube("stop", "--name", "fake").code == 0
    assert sykube("snapshot", "save", "kept", "--name", "fake").code == 0
    assert sykube("start", "--name", "fake").code == 0
    again = sykube("init", "--name", "fake", *DNS, "--kubernetes-version", "1.36")
    assert world.asked == []
    assert recorded(world.host) == before
    assert again.code == ExitCode.FAILED
    assert "kubernetesVersion: '' → '1.36'" in again.err


def test_an_init_that_failed_goes_on_with_what_was_chosen(
    world: World,
) -> None:
    world.calls.fail(lambda call: "kubeadm" in str(call) and "init" in call.words)
    with pytest.raises(SykubeError):
        init(world, fake_spec(), retain=True)
    before = recorded(world.host)
    world.asked.clear()
    assert init(world, fake_spec())
    assert world.asked == []
    assert recorded(world.host) == before


def test_an_image_of_the_users_asks_nobody(world: World, silent: None) -> None:
    (image,) = build.list_images(world.host)
    image.sif.parent.joinpath("parts.json").write_text('{"a": "b"}')
    assert init(world, fake_spec(local_image=str(image.sif)))
    found = recorded(world.host)
    assert found == Choice("debian", DEBIAN, f"that of {image.sif}")


@pytest.mark.parametrize("asked", [{"kubernetes_version": "1.36"}, {"source": "debian"}])
def test_an_image_of_the_users_has_its_own_kubernetes(
    world: World, silent: None, asked: dict[str, Any], tmp_path: Path
) -> None:
    write_sif(tmp_path / "k.sif")
    spec = fake_spec(local_image=str(tmp_path / "k.sif"), no_verify=True, **asked)
    with unchanged(world), pytest.raises(UsageError, match="has its own Kubernetes"):
        init(world, spec)


def test_a_snapshot_brings_its_kubernetes(world: World, sykube: Sykube) -> None:
    world.programs.answers["tar"] = test_snapshots.fake_tar
    assert sykube("init", "--name", "fake", *DNS).code == 0
    before = recorded(world.host)
    sykube("stop", "--name", "fake")
    assert sykube("snapshot", "save", "kept", "--name", "fake").code == 0
    sykube("delete", "--name", "fake", "--yes")
    world.asked.clear()
    for wrong in (["--kubernetes-version", "1.36"], ["--source", "upstream"]):
        refused = sykube("init", "--name", "new", "--from", "kept", *DNS, *wrong)
        assert refused.code == ExitCode.USAGE
        assert "Kubernetes" in refused.err
    report = json.loads(sykube("init", "--from", "kept", "--dry-run", "-o", "json").out)
    assert report["kubernetes"]["kubernetes"] == DEBIAN
    assert sykube("snapshot", "restore", "kept").code == 0
    assert world.asked == []
    assert recorded(world.host) == before


# --- what is asked for ---


def test_nothing_stands_in_for_a_version(world: World) -> None:
    with unchanged(world), pytest.raises(SykubeError, match="cannot download"):
        choose_at_once(world, fake_spec(kubernetes_version="1.34"))
    with unchanged(world), pytest.raises(UsageError, match="Debian has no Kubernetes"):
        init(world, fake_spec(source="debian", kubernetes_version="1.36"))


def choose_at_once(world: World, spec: ClusterSpec) -> None:
    """init without pauses between tries."""
    with pytest.MonkeyPatch.context() as patch:
        # The pauses between tries are real, and of a random length.
        patch.setattr(random, "uniform", lambda *_: 0.0)
        lifecycle.init(world.host, spec, InitOptions(), world.ui())


def test_a_damaged_download_changes_nothing(
    world: World, server: Server, mirrors: dict[str, Any], real_fingerprints: list[object]
) -> None:
    stored = f"{releases.STORE}/release/v{VERSION}/bin/linux/amd64/kubelet?signed=Planted"
    server.faults[stored].append(Fault(damaged=True))
    spec = fake_spec(kubernetes_version=VERSION, **mirrors)
    with unchanged(world), pytest.raises(SykubeError, match="cannot download"):
        init(world, spec)
    assert real_fingerprints == []
    assert not [each for each in downloads.listed(world.host) if each.file.name == "kubelet"]


def test_cgroup_v1_is_refused_before_anything_is_downloaded(
    world: World, server: Server, mirrors: dict[str, Any]
) -> None:
    with unchanged(world), pytest.raises(SykubeError, match="has cgroup v1"):
        init(world, fake_spec(kubernetes_version="1.36", **mirrors))
    assert server.asked == ["/release/stable-1.36.txt"]


def test_an_image_of_another_kubernetes_is_not_out_of_date(world: World) -> None:
    (image,) = build.list_images(world.host)
    parts = build.layers(world.host, versions.DEBIAN, ANY_MIRROR)[-1].parts()
    (image.folder / "parts.json").write_text(json.dumps(parts | {"supervisor/x": "before"}))
    assert build.what_changed(world.host, versions.DEBIAN, ANY_MIRROR) == ["supervisor/x"]
    (image.folder / "versions").write_text("kubernetes=v1.36.2\n")
    assert build.what_changed(world.host, versions.DEBIAN, ANY_MIRROR) == []


def test_the_first_line_is_the_choice(world: World, sykube: Sykube) -> None:
    done = sykube("init", "--name", "fake", *DNS)
    assert done.code == 0
    assert done.err.startswith(f"Kubernetes {DEBIAN} from Debian (")


# --- the commands ---


def test_a_flag_wins_over_the_file_and_the_file_over_the_environment(
    host: Host, tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("KUBERNETES_MIRROR", "CONTAINERD_MIRROR", "RUNC_MIRROR"):
        monkeypatch.setenv(f"SYKUBE_{variable}", "https://environment.example")
    file = tmp_path / "cluster.yaml"
    file.write_text(
        "kubernetesVersion: 1.20\nkubernetesMirror: https://file.example\n"
        "containerdMirror: https://file.example/\n"
    )
    spec = make_spec(host, file, {"kubernetes_mirror": "https://flag.example"})
    found = choose(world.host, spec, world.ui())
    assert (found.mirrors.kubernetes, found.mirrors.containerd, found.mirrors.runc) == (
        "https://flag.example", "https://file.example", "https://environment.example",
    )  # fmt: skip
    # Not the number 1.2.
    assert spec.kubernetes_version == "1.20"
    assert found.choice.source == "debian"


def test_the_source_of_the_environment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYKUBE_SOURCE", "debian")
    assert choose(world.host, ClusterSpec(), world.ui()).choice.reason == "asked for"
    ui = world.ui()
    with pytest.raises(SykubeError, match="makes no clusters of upstream's"):
        choose(world.host, ClusterSpec(source="upstream", kubernetes_version="1.21"), ui)
    assert ui.steps == [], "it asked the release site"
    monkeypatch.setenv("SYKUBE_SOURCE", "fedora")
    with pytest.raises(UsageError, match="SYKUBE_SOURCE is 'fedora'"):
        choose(world.host, ClusterSpec(), world.ui())


def test_what_is_wrong_in_a_file_is_said_by_line(host: Host, tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("source: upstraem\nkubernetesMirror: ftp://x\nimageRepository: https://x\n")
    with pytest.raises(UsageError) as raised:
        make_spec(host, file, {})
    lines = raised.value.details.splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"{file}:{number}" for number in (1, 2, 3)]
    assert "there are: auto, upstream, debian" in lines[0]


def test_the_proxies_and_authorities_of_a_site(
    world: World, server: Server, mirrors: dict[str, Any], tmp_path: Path
) -> None:
    spec = ClusterSpec(
        registry_auth="/a/auth.json",
        ca_certificates=("/a/ca.pem",),
        source="upstream",
        kubernetes_version=VERSION,
        **mirrors,
    )
    proxies = Proxies("http://proxy.example", "http://me:geheim@proxy.example", ("localhost",))
    found = choose(world.host, spec, world.ui(), proxies=proxies)
    assert found.environment["https_proxy"] == "http://me:geheim@proxy.example"
    made = found.obtain(world.ui())
    assert isinstance(made, versions.Upstream)
    assert made.auth_file == Path("/a/auth.json")
    assert made.authorities == (Path("/a/ca.pem"),)


@pytest.mark.parametrize(
    "command", [["node-image", "build"], ["bundle", "save", "--unsigned", "FILE"]]
)
def test_commands_that_make_an_image(
    world: World,
    sykube: Sykube,
    server: Server,
    mirrors: dict[str, Any],
    real_fingerprints: list[object],
    tmp_path: Path,
    command: list[str],
) -> None:
    words = [str(tmp_path / "k.sif") if word == "FILE" else word for word in command]
    flags = [
        text for name, value in mirrors.items() for text in (f"--{name.replace('_', '-')}", value)
    ]
    done = sykube(*words, "--kubernetes-version", "1.34", *flags)
    assert done.code == 0, done.err
    assert f"Kubernetes {VERSION} from Upstream (a release of {server.url})" in done.err
    (built,) = real_fingerprints
    assert isinstance(built, versions.Upstream)
    assert built.kubernetes_version == VERSION
    bad = sykube(*words, "--source", "debian", "--kubernetes-version", "1.34")
    assert bad.code == ExitCode.USAGE
    assert "Debian has no Kubernetes 1.34" in bad.err


def test_a_dry_run_says_which_and_why(world: World, sykube: Sykube) -> None:
    with unchanged(world):
        report = json.loads(sykube("init", "--dry-run", "-o", "json", *DNS).out)
        shown = sykube("init", "--dry-run", "--source", "debian", *DNS).out
    assert report["kubernetes"]["source"] == "debian"
    assert "does not answer" in report["kubernetes"]["reason"]
    assert f"Kubernetes: {DEBIAN} from Debian (asked for)" in shown
