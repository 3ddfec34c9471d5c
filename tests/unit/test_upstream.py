"""Upstream's releases from a server laid out like their sites, and the choice of the source."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from sykube import stored
from sykube.errors import SykubeError, UsageError
from sykube.host.download import Access, Downloader, DownloadError, RetryPolicy
from sykube.host.host import Host
from sykube.image import downloads, source, upstream, versions
from sykube.image.choice import Choice
from sykube.image.mirrors import Mirrors, chosen
from sykube.image.upstream import Release, Version
from tests import releases
from tests.e2e.site import make_authority
from tests.fakes import FakeHost
from tests.releases import CONTAINERD, RUNC, STALL_S, STORE, Fault, Server
from tests.unit.helpers import without_a_site

RELEASE = Release("1.36.2", "2.3.4", "1.4.3")
PROGRAMS = {name: os.urandom(200_000) for name in ("kubeadm", "kubelet", "kubectl")}
ARCHIVE, RUNC_PROGRAM = os.urandom(150_000), os.urandom(100_000)
SUPPORTED = ("1.35", "1.36", "1.37")
DEBIAN = versions.DEBIAN.kubernetes_version


@pytest.fixture(autouse=True)
def a_machine_of_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    without_a_site(monkeypatch)


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path / "host", machine=lambda: "x86_64")


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(
        releases.stable(["1.37.1", "1.36.2", "1.35.6"])
        | releases.kubernetes("1.36.2", PROGRAMS)
        | releases.kubernetes("1.36.2", {"kubeadm": b"of arm64"}, "arm64")
        | releases.containerd("2.3.4", ARCHIVE)
        | releases.runc("1.4.3", {"amd64": RUNC_PROGRAM, "arm64": b"of arm64"})
    )
    yield made
    made.close()


@pytest.fixture
def mirrors(server: Server) -> Mirrors:
    return Mirrors(server.url, f"{server.url}{CONTAINERD}", f"{server.url}{RUNC}")


@pytest.fixture
def downloader() -> Downloader:
    return Downloader(policy=RetryPolicy(connect_s=30, stall_s=30, tries=2), pause=lambda _: None)


@dataclass(frozen=True)
class SharingHost(FakeHost):
    """A machine with another's cache beside its own."""

    shared: Path = Path("/nonexistent")

    @property
    def caches(self) -> tuple[Path, ...]:
        return (self.cache, self.shared)


class Shown:
    """The user interface as far as a download knows it."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.notes: list[str] = []

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        self.steps.append(title)
        yield

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def shown() -> Shown:
    return Shown()


def fetched(
    host: Host, mirrors: Mirrors, downloader: Downloader, shown: Shown
) -> upstream.Downloads:
    return upstream.fetch(host, RELEASE, mirrors, downloader, shown.step, shown.note)


def in_cache(host: Host) -> list[str]:
    return sorted(str(file.relative_to(downloads.folder(host))) for file in downloads.folder(host).rglob("*")
                  if file.is_file() and file.name != ".lock")  # fmt: skip


# --- the sites ---


def test_urls_are_the_documented_ones() -> None:
    known = Mirrors("https://k.example", "https://c.example", "https://r.example")
    assert known.stable() == "https://k.example/release/stable.txt"
    assert known.stable("1.36") == "https://k.example/release/stable-1.36.txt"
    assert known.kubernetes_program("1.36.2", "arm64", "kubectl") == (
        "https://k.example/release/v1.36.2/bin/linux/arm64/kubectl"
    )
    assert known.containerd_archive("2.3.4", "amd64") == (
        "https://c.example/v2.3.4/containerd-2.3.4-linux-amd64.tar.gz"
    )
    assert known.runc_program("1.4.3", "amd64") == "https://r.example/v1.4.3/runc.amd64"
    assert known.runc_checksums("1.4.3") == "https://r.example/v1.4.3/runc.sha256sum"


def test_upstreams_own_sites_are_encrypted() -> None:
    for url in (Mirrors.kubernetes, Mirrors.containerd, Mirrors.runc):
        assert url.startswith("https://")
    assert not Mirrors().kubernetes_is_mirrored


def test_what_is_asked_for_wins_over_the_environment() -> None:
    environment = {
        "SYKUBE_KUBERNETES_MIRROR": "https://one.example/k8s/",
        "SYKUBE_RUNC_MIRROR": "https://two.example:8443/runc",
        "SYKUBE_IMAGE_REPOSITORY": "registry.example:5000/kubernetes",
    }
    asked = {"kubernetes": "http://three.example", "containerd": "", "images": "r.example"}
    found = chosen(asked, environment)
    assert found == Mirrors(
        "http://three.example", Mirrors.containerd, "https://two.example:8443/runc", "r.example"
    )
    assert found.kubernetes_is_mirrored
    assert chosen({}, environment).kubernetes == "https://one.example/k8s"
    assert chosen({}, {}) == Mirrors()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("mirror.example", "is no http or https URL"),
        ("ftp://mirror.example", "is no http or https URL"),
        ("https://", "is no http or https URL"),
        ("https://mirror.example:0", "is no http or https URL"),
        ("https://mirror.example:99999", "is no http or https URL"),
        ("https://mirror example", "is no http or https URL"),
        ("https://mirror.example\n", "is no http or https URL"),
        ("https://me:Planted@mirror.example", "has a password in its URL"),
        ("https://mirror.example?key=Planted", "is a URL with a query or fragment"),
    ],
)
def test_mirrors_that_are_refused_are_not_said_again(value: str, words: str) -> None:
    with pytest.raises(UsageError, match=f"^--kubernetes-mirror {words}") as raised:
        chosen({"kubernetes": value}, {})
    assert "Planted" not in str(vars(raised.value))
    with pytest.raises(UsageError, match=f"^SYKUBE_RUNC_MIRROR {words}"):
        chosen({}, {"SYKUBE_RUNC_MIRROR": value})


@pytest.mark.parametrize("value", ["https://r.example", "r.example/UPPER", "me@r.example", "a b"])
def test_image_repositories_that_are_refused(value: str) -> None:
    with pytest.raises(UsageError, match="^--image-repository is no registry with a path"):
        chosen({"images": value}, {})


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(UsageError) as raised:
        chosen({"kubernetes": "x", "images": "a b"}, {"SYKUBE_RUNC_MIRROR": "y"})
    for word in ("--kubernetes-mirror", "--image-repository", "SYKUBE_RUNC_MIRROR"):
        assert word in raised.value.brief


# --- versions ---


@pytest.mark.parametrize(
    ("asked", "version"),
    [
        ("stable", "1.37.1"),
        ("1.36", "1.36.2"),
        ("v1.36", "1.36.2"),
        ("1.36.2", "1.36.2"),
        ("v1.36.2", "1.36.2"),
    ],
)
def test_what_a_version_means(
    host: Host, mirrors: Mirrors, downloader: Downloader, asked: str, version: str
) -> None:
    assert upstream.resolve(host, asked, SUPPORTED, mirrors, downloader) == Version(version)


def test_stable_is_what_this_sykube_knows(
    host: Host, server: Server, mirrors: Mirrors, downloader: Downloader
) -> None:
    server.files["/release/stable.txt"] = b"v1.99.1"
    found = upstream.resolve(host, "stable", ("1.36", "1.9", "1.35"), mirrors, downloader)
    assert found.kubernetes == "1.36.2"
    assert found.remark == "Kubernetes 1.99.1 is newer than what this sykube knows"


def test_stable_is_what_this_host_runs(
    host: Host, mirrors: Mirrors, downloader: Downloader
) -> None:
    found = upstream.resolve(host, "stable", ("1.36", "1.35"), mirrors, downloader)
    why = "this host has cgroup v1, and the newest, 1.37.1, needs cgroup v2, or --allow-cgroup-v1"
    assert found == Version("1.36.2", why)


def test_a_mirror_that_is_older_than_this_sykube(
    host: Host, mirrors: Mirrors, downloader: Downloader
) -> None:
    with pytest.raises(SykubeError, match="older than all that sykube knows") as raised:
        upstream.resolve(host, "stable", ("1.38",), mirrors, downloader)
    assert "--kubernetes-mirror" in raised.value.resolution


@pytest.mark.parametrize(
    "asked", ["newest", "", "1", "1.36.", "1.036", "1.36.2-rc.1", "2.0", "../1.36.2", "1.36.2\n"]
)
def test_what_is_no_version(host: Host, server: Server, downloader: Downloader, asked: str) -> None:
    with pytest.raises(UsageError, match="is no version of Kubernetes"):
        upstream.resolve(host, asked, SUPPORTED, Mirrors(server.url), downloader)
    assert server.asked == []


@pytest.mark.parametrize("asked", ["1.20", "1.20.2", "v1.38", "1.3"])
def test_a_minor_that_is_not_supported(
    host: Host, server: Server, downloader: Downloader, asked: str
) -> None:
    with pytest.raises(UsageError, match="makes no clusters of upstream's Kubernetes") as raised:
        upstream.resolve(host, asked, SUPPORTED, Mirrors(server.url), downloader)
    assert "1.37, 1.36, 1.35" in raised.value.details
    assert server.asked == []


def test_versions_that_were_never_released(
    host: Host, mirrors: Mirrors, downloader: Downloader
) -> None:
    with pytest.raises(SykubeError, match=r"there is no Kubernetes 1\.36\.99") as raised:
        upstream.resolve(host, "1.36.99", SUPPORTED, mirrors, downloader)
    assert raised.value.details == "The newest of 1.36 is 1.36.2."
    with pytest.raises(SykubeError, match=r"there is no release of Kubernetes 1\.38"):
        upstream.resolve(host, "1.38", (*SUPPORTED, "1.38"), mirrors, downloader)


def test_a_page_in_the_place_of_a_version(
    host: Host, server: Server, mirrors: Mirrors, downloader: Downloader
) -> None:
    server.files["/release/stable.txt"] = b"<html>Log in to this network</html>"
    with pytest.raises(DownloadError) as raised:
        upstream.resolve(host, "stable", SUPPORTED, mirrors, downloader)
    assert raised.value.details == "what comes is no version"
    assert "proxy" in raised.value.resolution


def test_the_newest_of_each_minor(server: Server, mirrors: Mirrors, downloader: Downloader) -> None:
    found = upstream.newest(("1.34", *SUPPORTED), mirrors, downloader)
    assert found == {"1.35": "1.35.6", "1.36": "1.36.2", "1.37": "1.37.1"}
    server.fail("/release/stable-1.36.txt", *[Fault(503)] * 2)
    with pytest.raises(DownloadError):
        upstream.newest(SUPPORTED, mirrors, downloader)


def test_what_goes_with_a_version() -> None:
    newest = versions.MINORS[-1]
    assert upstream.minors()[0] == newest.version
    assert upstream.minors()[-1] == "1.20"
    version = f"{newest.version}.1"
    assert Release.of(version) == Release(version, newest.containerd, newest.runc)
    with pytest.raises(UsageError):
        Release.of("1.99.1")


# --- the download cache ---


def test_downloads_say_how_long_they_will_take() -> None:
    clock = iter([100.0, 101.0, 110.0, 110.0, 300.0])
    notes: list[str] = []
    progress = upstream._Progress(notes.append, lambda: next(clock))
    # It goes on from where it was cut off: 10 MB came in 10 s.
    progress.tell("kubelet", 30_000_000, 60_000_000)
    progress.tell("kubelet", 35_000_000, 60_000_000)
    progress.tell("kubectl", 0, 40_000_000)
    progress.tell("kubectl", 5_000_000, 40_000_000)
    progress.tell("kubelet", 60_000_000, 60_000_000)
    progress.tell("kubectl", 40_000_000, 40_000_000)
    # Of a size that is not said.
    progress.tell("runc", 9_000_000, 0)
    assert notes == [
        "30 of 60 MB",
        "35 of 60 MB, 5 s to go",
        "35 of 100 MB, 2 min to go",
        "40 of 100 MB, 60 s to go",
        "65 of 100 MB, 3 min to go",
        "100 of 100 MB",
        "109 of 109 MB",
    ]


def test_a_release_is_fetched_once(
    host: Host, server: Server, mirrors: Mirrors, downloader: Downloader, shown: Shown
) -> None:
    found = fetched(host, mirrors, downloader, shown)
    for name, content in (PROGRAMS | {"containerd": ARCHIVE, "runc": RUNC_PROGRAM}).items():
        assert found[name].path.read_bytes() == content
        assert found[name].path.is_relative_to(downloads.folder(host))
    assert {len(each.checksum) for each in found.values()} == {64}
    assert shown.steps == ["Downloading Kubernetes 1.36.2"]
    assert any(note.endswith(" MB") for note in shown.notes)
    server.requests.clear()
    shown.steps.clear()
    assert fetched(host, mirrors, downloader, shown) == found
    assert upstream.resolve(host, "1.36.2", SUPPORTED, mirrors, downloader).kubernetes == "1.36.2"
    assert (server.asked, shown.steps) == ([], [])
    assert sorted((each.project, each.version) for each in downloads.listed(host)) == [
        ("containerd", "2.3.4"),
        *[("kubernetes", "1.36.2")] * 3,
        ("runc", "1.4.3"),
    ]


def test_what_is_in_the_cache_of_another_is_not_downloaded_and_not_touched(
    host: FakeHost, server: Server, mirrors: Mirrors, downloader: Downloader, shown: Shown,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    """Of root's, where an ordinary user may only read it."""
    of_root, listed = fetched(host, mirrors, downloader, shown), downloads.listed(host)
    user = SharingHost(host.root, machine=host.machine, shared=host.cache)
    monkeypatch.setenv("SYKUBE_CACHE_DIR", str(tmp_path / "home"))
    assert upstream.cached(user, RELEASE, mirrors) == of_root
    assert downloads.listed(user) == listed
    assert downloads.prune(user) == []
    server.requests.clear()
    assert fetched(user, mirrors, downloader, shown) == of_root
    assert server.asked == []
    # One that is not whole is downloaded into the user's own.
    of_root["kubelet"].path.write_bytes(b"another")
    found = fetched(user, mirrors, downloader, shown)
    assert found["kubelet"].path.is_relative_to(user.cache)
    assert found["kubelet"].path.read_bytes() == PROGRAMS["kubelet"]
    assert found["kubeadm"] == of_root["kubeadm"]
    assert of_root["kubelet"].path.read_bytes() == b"another"


@pytest.mark.parametrize("spoil", ["changed", "cut", "gone", "unmarked"])
def test_a_cached_file_is_compared_before_it_is_used(
    host: Host, server: Server, mirrors: Mirrors, downloader: Downloader, shown: Shown, spoil: str
) -> None:
    kubelet = fetched(host, mirrors, downloader, shown)["kubelet"].path
    if spoil == "changed":
        kubelet.write_bytes(PROGRAMS["kubelet"][:-1] + bytes([PROGRAMS["kubelet"][-1] ^ 1]))
    elif spoil == "cut":
        kubelet.write_bytes(PROGRAMS["kubelet"][:-1])
    elif spoil == "gone":
        kubelet.unlink()
    else:
        kubelet.with_name("kubelet.checksum").write_text("")
    server.requests.clear()
    assert (
        fetched(host, mirrors, downloader, shown)["kubelet"].path.read_bytes()
        == PROGRAMS["kubelet"]
    )
    assert {path.rpartition("/")[2].partition("?")[0] for path in server.asked} == {
        "kubelet", "kubelet.sha256",
    }  # fmt: skip


def test_a_wrong_checksum_leaves_the_file_out_of_the_cache(
    host: Host, server: Server, mirrors: Mirrors, downloader: Downloader, shown: Shown
) -> None:
    path = f"{STORE}/release/v1.36.2/bin/linux/amd64/kubeadm.sha256"
    server.files[path] = b"0" * 64
    with pytest.raises(DownloadError, match="/bin/linux/amd64/kubeadm$") as raised:
        fetched(host, mirrors, downloader, shown)
    assert "0" * 64 in raised.value.details
    assert "--kubernetes-mirror" in raised.value.resolution
    assert not [name for name in in_cache(host) if "kubeadm" in name]


@pytest.mark.parametrize(
    ("path", "text", "words", "option"),
    [
        (
            f"{CONTAINERD}/v2.3.4/containerd-2.3.4-linux-amd64.tar.gz.sha256sum",
            "1" * 64 + "  containerd-2.3.4-linux-arm64.tar.gz\n",
            "it has no checksums of containerd-2.3.4-linux-amd64.tar.gz",
            "--containerd-mirror",
        ),
        (f"{RUNC}/v1.4.3/runc.sha256sum", "<html>", "no checksums of runc.amd64", "--runc-mirror"),
        (
            f"{STORE}/release/v1.36.2/bin/linux/amd64/kubectl.sha256",
            "<Error/>",
            "neither a SHA-256 nor a SHA-512",
            "--kubernetes-mirror",
        ),
    ],
)
def test_checksums_that_are_none_are_fatal(
    host: Host,
    server: Server,
    mirrors: Mirrors,
    downloader: Downloader,
    shown: Shown,
    path: str,
    text: str,
    words: str,
    option: str,
) -> None:
    server.files[path] = text.encode()
    with pytest.raises(DownloadError) as raised:
        fetched(host, mirrors, downloader, shown)
    assert words in raised.value.details
    assert option in raised.value.resolution


def test_a_mirror_with_sha512_alone(
    host: Host, server: Server, mirrors: Mirrors, downloader: Downloader, shown: Shown
) -> None:
    for path in [path for path in server.files if path.endswith(".sha256")]:
        del server.files[path]
    found = fetched(host, mirrors, downloader, shown)
    assert len(found["kubeadm"].checksum) == 128
    assert found["kubeadm"].path.read_bytes() == PROGRAMS["kubeadm"]


def test_no_checksum_no_file(
    host: Host, server: Server, mirrors: Mirrors, downloader: Downloader, shown: Shown
) -> None:
    for path in [path for path in server.files if ".sha" in path]:
        del server.files[path]
    with pytest.raises(DownloadError) as raised:
        fetched(host, mirrors, downloader, shown)
    assert raised.value.absent
    assert in_cache(host) == []


def test_what_failed_does_not_undo_what_came(
    host: Host, server: Server, mirrors: Mirrors, downloader: Downloader, shown: Shown
) -> None:
    kubelet = f"{STORE}/release/v1.36.2/bin/linux/amd64/kubelet"
    server.fail(f"{kubelet}?signed=Planted", *[Fault(503)] * 2)
    with pytest.raises(DownloadError, match="kubelet"):
        fetched(host, mirrors, downloader, shown)
    deadline = time.monotonic() + 30
    while {thread.name for thread in threading.enumerate()} & {*PROGRAMS, "containerd", "runc"}:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    before = {each.file.name for each in downloads.listed(host)}
    server.requests.clear()
    fetched(host, mirrors, downloader, shown)
    assert not [path for path in server.asked if path.rpartition("/")[2] in before]


def test_a_mirror_with_all_that_a_site_asks_for(
    host: Host, server: Server, shown: Shown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An authority of its own, a password, and a network that fails in every way."""
    authority = make_authority(tmp_path / "tls", "localhost").read_text()
    netrc = tmp_path / "netrc"
    netrc.touch(mode=0o600)
    netrc.write_text("machine localhost login me password secret\n")
    mirror = Server(server.files, certificate=tmp_path / "tls", login="me:secret")
    folder = "/release/v1.36.2/bin/linux/amd64"
    mirror.fail(f"{folder}/kubeadm.sha256", Fault(429, {"Retry-After": "1"}))
    mirror.faults[f"{STORE}{folder}/kubeadm?signed=Planted"] += [Fault(500), Fault(cut=70_000)]
    mirror.faults[f"{STORE}{folder}/kubelet?signed=Planted"] += [Fault(stall=90_000)]
    mirror.fail(f"{RUNC}/v1.4.3/runc.amd64", Fault(cut=10), Fault(ranges=False))
    sites = Mirrors(mirror.url, f"{mirror.url}{CONTAINERD}", f"{mirror.url}{RUNC}")
    policy = RetryPolicy(stall_s=2)
    downloader = Downloader(Access(authorities=(authority,)), policy, pause=lambda _: None)
    try:
        with pytest.raises(DownloadError, match=r"cannot download https://localhost"):
            fetched(host, sites, downloader, shown)
        assert downloads.listed(host) == []
        monkeypatch.setenv("NETRC", str(netrc))
        found = fetched(host, sites, downloader, shown)
    finally:
        mirror.close()
    for name, content in (PROGRAMS | {"containerd": ARCHIVE, "runc": RUNC_PROGRAM}).items():
        assert found[name].path.read_bytes() == content
    resumed = [each.headers["Range"] for each in mirror.requests if "Range" in each.headers]
    assert set(resumed) == {"bytes=70000-", "bytes=90000-", "bytes=10-"}


def test_another_machine(
    host: Host,
    mirrors: Mirrors,
    downloader: Downloader,
    shown: Shown,
) -> None:
    host = replace(host, machine=lambda: "aarch64")
    wanted = upstream._wanted(host, RELEASE, mirrors, upstream.architecture(host))
    assert wanted["runc"].url.endswith("/runc.arm64")
    assert wanted["kubeadm"].url.endswith("/bin/linux/arm64/kubeadm")
    assert wanted["containerd"].target.name == "containerd-2.3.4-linux-arm64.tar.gz"
    host = replace(host, machine=lambda: "riscv64")
    with pytest.raises(SykubeError, match="no releases of containerd for riscv64"):
        fetched(host, mirrors, downloader, shown)


def test_downloads_are_removed(
    host: Host, mirrors: Mirrors, downloader: Downloader, shown: Shown
) -> None:
    assert downloads.prune(host) == []
    assert not downloads.folder(host).exists()
    fetched(host, mirrors, downloader, shown)
    assert {path.name for path in downloads.prune(host)} == {"kubernetes", "containerd", "runc"}
    assert (in_cache(host), downloads.listed(host)) == ([], [])


# --- the source ---


class OwnMirrors(Mirrors):
    """Mirrors of which none was named by the user."""

    kubernetes_is_mirrored = False


@pytest.fixture
def upstreams_own(server: Server) -> Mirrors:
    """Upstream's own site, which is the server's for this test."""
    return OwnMirrors(server.url)


def test_upstream_where_it_answers(
    host: Host, upstreams_own: Mirrors, downloader: Downloader
) -> None:
    found = source.choose(host, "auto", "", upstreams_own, downloader)
    assert found == Choice("upstream", "1.37.1", f"a release of {upstreams_own.kubernetes}")
    assert stored.load(Choice, stored.dump(found)) == found


def test_a_newer_upstream_is_said(
    host: Host, server: Server, upstreams_own: Mirrors, downloader: Downloader
) -> None:
    server.files["/release/stable.txt"] = b"v1.99.1"
    found = source.choose(host, "auto", "", upstreams_own, downloader)
    assert found.kubernetes == "1.37.1"
    assert "1.99.1 is newer than what this sykube knows" in found.reason


@pytest.mark.parametrize("fault", [Fault(503), Fault(403), Fault(404), Fault(429)])
def test_debian_where_upstream_refuses(
    host: Host, server: Server, upstreams_own: Mirrors, downloader: Downloader, fault: Fault
) -> None:
    server.fail("/release/stable.txt", fault)
    found = source.choose(host, "auto", "", upstreams_own, downloader)
    assert (found.source, found.kubernetes) == ("debian", DEBIAN)
    assert found.reason.startswith(f"{server.url} does not answer (localhost:")
    assert f"answers {fault.status}" in found.reason
    assert "\n" not in found.reason
    assert len(server.asked) == 1, "one try"


def test_debian_where_there_is_no_network(
    host: Host,
    server: Server,
    upstreams_own: Mirrors,
    downloader: Downloader,
) -> None:
    server.fail("/release/stable.txt", Fault(stall=3))
    began = time.monotonic()
    found = source.choose(replace(host, patience=0.1), "auto", "", upstreams_own, downloader)
    assert time.monotonic() - began < STALL_S / 2
    assert found.source == "debian"
    server.close()
    found = source.choose(host, "auto", "", upstreams_own, downloader)
    assert "Connection refused" in found.reason


def test_debian_behind_a_page_to_log_in(
    host: Host, server: Server, upstreams_own: Mirrors, downloader: Downloader
) -> None:
    server.files["/release/stable.txt"] = b"<html>"
    assert source.choose(host, "auto", "", upstreams_own, downloader).source == "debian"


def test_debian_on_a_machine_that_upstream_does_not_know(
    host: Host,
    server: Server,
    upstreams_own: Mirrors,
    downloader: Downloader,
) -> None:
    host = replace(host, machine=lambda: "riscv64")
    assert source.choose(host, "auto", "", upstreams_own, downloader).source == "debian"
    assert server.asked == []


@pytest.mark.parametrize("asked", ["auto", "debian"])
@pytest.mark.parametrize("version", ["1.20.2", "v1.20.2", "1.20"])
def test_debians_version(
    host: Host,
    server: Server,
    upstreams_own: Mirrors,
    downloader: Downloader,
    asked: str,
    version: str,
) -> None:
    found = source.choose(host, asked, version, upstreams_own, downloader)
    assert (found.source, found.kubernetes, server.asked) == ("debian", DEBIAN, [])


def test_a_source_that_is_asked_for(
    host: Host, server: Server, upstreams_own: Mirrors, downloader: Downloader
) -> None:
    assert source.choose(host, "debian", "", upstreams_own, downloader).source == "debian"
    assert server.asked == []
    with pytest.raises(UsageError, match=r"Debian has no Kubernetes 1\.36"):
        source.choose(host, "debian", "1.36", upstreams_own, downloader)
    with pytest.raises(UsageError, match=r"makes no clusters of upstream's Kubernetes 1\.21"):
        source.choose(host, "upstream", "1.21", upstreams_own, downloader)
    assert source.choose(host, "upstream", "1.36", upstreams_own, downloader).kubernetes == "1.36.2"


def test_upstreams_1_20_where_it_is_asked_for(
    host: Host, server: Server, upstreams_own: Mirrors, downloader: Downloader
) -> None:
    server.files |= releases.stable(["1.20.15"]) | releases.kubernetes(DEBIAN, {"kubeadm": b"1"})
    found = source.choose(host, "upstream", "1.20", upstreams_own, downloader)
    assert (found.source, found.kubernetes) == ("upstream", "1.20.15")
    found = source.choose(host, "upstream", DEBIAN, upstreams_own, downloader)
    assert (found.source, found.kubernetes) == ("upstream", DEBIAN)
    # Not Debian's, so nothing else can be meant.
    server.files |= releases.kubernetes("1.20.15", {"kubeadm": b"1"})
    assert source.choose(host, "auto", "1.20.15", upstreams_own, downloader).source == "upstream"


@pytest.mark.parametrize(("asked", "version"), [("upstream", ""), ("auto", "1.36")])
def test_nothing_stands_in_for_what_is_asked_for(
    host: Host,
    server: Server,
    upstreams_own: Mirrors,
    downloader: Downloader,
    asked: str,
    version: str,
) -> None:
    for path in ("/release/stable.txt", "/release/stable-1.36.txt"):
        server.fail(path, *[Fault(503)] * 2)
    with pytest.raises(DownloadError):
        source.choose(host, asked, version, upstreams_own, downloader)
    assert len(server.asked) == 2, "and it is asked for patiently"


def test_nothing_stands_in_for_a_mirror(
    host: Host, server: Server, mirrors: Mirrors, downloader: Downloader
) -> None:
    server.fail("/release/stable.txt", *[Fault(503)] * 3)
    with pytest.raises(DownloadError):
        source.choose(host, "auto", "", mirrors, downloader)
    assert source.choose(host, "auto", "", mirrors, downloader).source == "upstream"


def test_what_was_chosen_is_obtained(
    host: Host, server: Server, mirrors: Mirrors, downloader: Downloader, shown: Shown
) -> None:
    goes_with = Release.of("1.36.2")
    server.files |= releases.containerd(goes_with.containerd, ARCHIVE)
    server.files |= releases.runc(goes_with.runc, {"amd64": RUNC_PROGRAM})
    mine = dataclasses.replace(mirrors, images="registry.example/kubernetes")
    choice = source.choose(host, "auto", "1.36", mine, downloader)
    found = source.obtain(host, choice, mine, downloader, shown.step, shown.note)
    assert isinstance(found, versions.Upstream)
    assert (found.kubernetes_version, found.containerd_version, found.runc_version) == (
        "1.36.2", goes_with.containerd, goes_with.runc,
    )  # fmt: skip
    assert found.image_repository == "registry.example/kubernetes"
    assert set(found.files) == set(versions.PUBLISHED)
    assert found.files["kubelet"].path.read_bytes() == PROGRAMS["kubelet"]
    server.requests.clear()
    debian = Choice("debian", DEBIAN, "asked for")
    assert source.obtain(host, debian, mine, downloader, shown.step, shown.note) is versions.DEBIAN
    assert server.asked == []
