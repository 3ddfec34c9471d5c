"""The Debian mirror that the host's own apt names."""

from __future__ import annotations

from pathlib import Path

import pytest

from sykube.errors import ExitCode, SykubeError, UsageError
from sykube.host.apt import Mirror, find_mirror
from sykube.host.host import Host
from tests.fakes import fill

DEB822 = """\
# Modernized by hand
Types: deb deb-src
URIs: http://mirror.example/debian/
Suites: trixie trixie-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://security.example/debian-security/
Suites: trixie-security
Components: main
"""


@pytest.fixture
def apt(host: Host) -> Path:
    (host.etc / "apt/sources.list.d").mkdir(parents=True)
    return host.etc / "apt"


def one_line(host: Host, apt: Path, text: str) -> Mirror:
    fill(apt, {"sources.list": text})
    return find_mirror(host)


def deb822(host: Host, apt: Path, text: str) -> Mirror:
    fill(apt / "sources.list.d", {"debian.sources": text})
    return find_mirror(host)


def test_one_line_sources(host: Host, apt: Path) -> None:
    found = one_line(
        host,
        apt,
        """\
# deb http://commented.example/debian bookworm main
deb http://deb.example/debian/ bookworm main contrib # the main one
deb http://deb.example/debian bookworm-updates main
deb http://security.example/debian-security bookworm-security main
""",
    )
    assert found == Mirror("http://deb.example/debian", "http://security.example/debian-security")


@pytest.mark.parametrize(
    "line",
    [
        "deb [arch=amd64 signed-by=/k.gpg] http://deb.example/debian bookworm main",
        "deb\t[ trusted=yes ]\thttp://deb.example/debian\tstable\tmain",
        "  deb http://deb.example/debian sid main",
        "deb file:/srv/debian unstable main",
    ],
)
def test_forms_of_a_line(host: Host, apt: Path, line: str) -> None:
    assert one_line(host, apt, f"{line}\n").main in (
        "http://deb.example/debian",
        "file:/srv/debian",
    )


def test_sources_of_source_packages_alone_are_no_mirror(host: Host, apt: Path) -> None:
    with pytest.raises(UsageError):
        one_line(host, apt, "deb-src http://deb.example/debian bookworm main\n")
    with pytest.raises(UsageError):
        deb822(host, apt, DEB822.replace("Types: deb deb-src", "Types: deb-src"))


def test_deb822_sources(host: Host, apt: Path) -> None:
    expected = Mirror("http://mirror.example/debian", "http://security.example/debian-security")
    assert deb822(host, apt, DEB822) == expected


def test_a_disabled_stanza_is_left_out(host: Host, apt: Path) -> None:
    disabled = DEB822.split("\n\n")[0].replace("mirror.example", "disabled.example")
    assert (
        deb822(host, apt, f"Enabled: no\n{disabled}\n\n{DEB822}").main
        == "http://mirror.example/debian"
    )
    with pytest.raises(UsageError):
        deb822(host, apt, f"{disabled}\nEnabled: no\n")
    assert deb822(host, apt, f"{disabled}\nEnabled: yes\n").main == "http://disabled.example/debian"


@pytest.mark.parametrize("value", ["false", "0", "off", "No"])
def test_other_words_for_disabled(host: Host, apt: Path, value: str) -> None:
    with pytest.raises(UsageError):
        deb822(host, apt, f"Enabled: {value}\n{DEB822.split(chr(10) * 2)[0]}\n")


def test_fields_over_several_lines_and_comments_among_them(host: Host, apt: Path) -> None:
    text = """\
types: deb
uris:
 http://first.example/debian
# http://commented.example/debian
 http://second.example/debian
suites: bookworm
 bookworm-updates
"""
    assert deb822(host, apt, text).main == "http://first.example/debian"


def test_ubuntu_is_no_debian(host: Host, apt: Path) -> None:
    fill(
        apt / "sources.list.d",
        {"ubuntu.sources": DEB822.replace("debian", "ubuntu").replace("trixie", "noble")},
    )
    with pytest.raises(UsageError, match="names no Debian mirror") as raised:
        one_line(host, apt, "deb http://archive.ubuntu.com/ubuntu jammy main universe\n")
    assert raised.value.exit_code is ExitCode.USAGE
    assert "--mirror" in raised.value.resolution
    assert "SYKUBE_MIRROR" in raised.value.resolution
    assert str(apt) in raised.value.details


def test_a_host_without_apt(host: Host) -> None:
    with pytest.raises(UsageError, match="names no Debian mirror"):
        find_mirror(host)


@pytest.mark.parametrize(
    "line",
    [
        "deb [arch=amd64] https://download.docker.com/linux/debian bookworm stable",
        "deb https://apt.postgresql.org/pub/repos/apt bookworm-pgdg main",
        "deb https://apt.example/tools stable non-free",
    ],
    ids=["docker", "postgresql", "other"],
)
def test_another_vendors_repository_for_debian_is_not_debians(
    host: Host, apt: Path, line: str
) -> None:
    """Debian's own is in debian.sources since Debian 13, which is read after every *.list."""
    fill(apt / "sources.list.d", {"vendor.list": f"{line}\n"})
    assert deb822(host, apt, DEB822).main == "http://mirror.example/debian"


@pytest.mark.parametrize("url", ["http://m.example/debian/", "https://m.example", "file:///srv/d"])
def test_the_mirror_that_was_asked_for_wins(host: Host, apt: Path, url: str) -> None:
    fill(apt, {"sources.list": "deb http://deb.example/debian bookworm main\n"})
    assert find_mirror(host, url) == Mirror(url.rstrip("/"))


def test_the_mirror_of_the_environment(
    host: Host, apt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYKUBE_MIRROR", "http://m.example/debian/")
    assert find_mirror(host) == Mirror("http://m.example/debian")
    assert find_mirror(host, "file:///srv/d") == Mirror("file:///srv/d")
    monkeypatch.setenv("SYKUBE_MIRROR", "m.example")
    with pytest.raises(UsageError, match="SYKUBE_MIRROR 'm.example' is not a URL"):
        find_mirror(host)


@pytest.mark.parametrize("url", ["m.example", "/srv/debian", "ftp://m.example/debian"])
def test_a_mirror_that_is_no_url(host: Host, apt: Path, url: str) -> None:
    with pytest.raises(UsageError, match="is not a URL"):
        find_mirror(host, url)


def test_lines_for_the_images() -> None:
    mirror = Mirror("http://m/debian", "http://m/security")
    assert mirror.sources("trixie") == (
        "deb http://m/debian trixie main",
        "deb http://m/security trixie-security main",
    )
    assert mirror.sources("bookworm", source_packages=True)[1] == (
        "deb-src http://m/debian bookworm main"
    )
    assert mirror.sources("sid") == ("deb http://m/debian sid main",)
    assert Mirror("http://m/debian").sources("trixie") == ("deb http://m/debian trixie main",)


# --- what it has ---

RELEASE = """\
Suite: stable
SHA256:
 {main} 50060337 main/binary-amd64/Packages
 {digest} 8790396 main/binary-amd64/Packages.xz
 {digest} 100 main/source/Sources.xz
 {other} 8790396 contrib/binary-amd64/Packages.xz
"""


def of(**digests: str) -> dict[str, str]:
    """A site with Debian and its security updates."""
    made = {"main": "1" * 64, "digest": "2" * 64, "other": "3" * 64} | digests
    text = RELEASE.format(**made)
    return {
        "http://m/debian/dists/trixie/InRelease": text,
        "http://m/security/dists/trixie-security/InRelease": text.replace("1", "4"),
    }


DEBIAN = Mirror("http://m/debian", "http://m/security")


def state(site: dict[str, str], mirror: Mirror = DEBIAN) -> str:
    def text(url: str) -> str:
        if url not in site:
            raise SykubeError(f"cannot download {url}")
        return site[url]

    return mirror.state("trixie", text)


def test_a_mirror_is_known_by_the_packages_that_it_has() -> None:
    known = state(of())
    assert known
    assert known.isalnum()
    assert state(of(other="9" * 64)) == known
    assert state(of(digest="9" * 64)) != known
    newer = of() | {"http://m/security/dists/trixie-security/InRelease": RELEASE.format(
        main="5" * 64, digest="6" * 64, other="")}  # fmt: skip
    assert state(newer) not in ("", known)
    # Roots name the mirror that they are of.
    moved = {url.replace("//m/", "//n/"): text for url, text in of().items()}
    assert state(moved, Mirror("http://n/debian", "http://n/security")) not in ("", known)


def test_a_mirror_that_does_not_say_what_it_has_is_known_by_nothing(tmp_path: Path) -> None:
    assert state({}) == ""
    assert state(dict.fromkeys(of(), "<html>")) == ""
    assert state(dict(list(of().items())[:1])) == ""
    # One in a folder says it, too.
    assert state({}, Mirror(f"file:{tmp_path}")) == ""
    fill(tmp_path / "dists/trixie", {"InRelease": next(iter(of().values()))})
    assert state({}, Mirror(f"file:{tmp_path}")) != ""
