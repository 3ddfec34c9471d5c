"""The private Apptainer and the engine's configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sykube.errors import SykubeError
from sykube.host import capabilities, provision
from sykube.host.apt import Mirror
from sykube.host.host import Host
from sykube.host.provision import PrivateApptainer, cluster_configuration, configuration
from tests.fakes import Calls, FakeHost, FakePrograms, Kernel, fill
from tests.fakes.host import give_capabilities

PACKAGED = """\
# SYSTEMD CGROUPS: [BOOL]
systemd cgroups = yes
shared loop devices = no
max loop devices = 256
# cni plugin path =
# cni configuration path =
root default capabilities = full
"""
ENGINES = Path(__file__).parent / "fixtures/engines"


@pytest.fixture
def programs(tmp_path: Path) -> FakePrograms:
    return FakePrograms(Kernel(tmp_path / "kernel"), Calls(), tmp_path / "etc")


def settings(text: str) -> dict[str, str]:
    """The lines that count; each key once."""
    lines = [line.split(" = ") for line in text.splitlines() if line and line[0] != "#"]
    assert len({key for key, *_ in lines}) == len(lines)
    return {key: value for key, value in lines}


def test_settings_are_replaced_where_they_stand(host: Host) -> None:
    found = settings(configuration(host, PACKAGED, Path("/x/network")))
    assert found["shared loop devices"] == "yes"
    assert found["cni plugin path"] == str(host.root / "usr/lib/cni")
    assert found["cni configuration path"] == "/x/network"
    assert found["max loop devices"] == "256"
    assert found["systemd cgroups"] == "no"
    host.systemd.mkdir(parents=True)
    assert settings(configuration(host, PACKAGED))["systemd cgroups"] == "yes"


def test_settings_that_are_missing_are_added(host: Host) -> None:
    found = settings(configuration(host, "max loop devices = 256", Path("/x/network")))
    assert found["max loop devices"] == "256"
    assert found["cni configuration path"] == "/x/network"
    assert found["shared loop devices"] == "yes"


def test_the_engines_own_networks_stay_where_none_are_given(
    host: Host,
) -> None:
    assert "cni configuration path" not in settings(configuration(host, PACKAGED))


def test_configuring_twice_is_configuring_once(host: Host) -> None:
    once = configuration(host, PACKAGED, Path("/x/network"))
    assert configuration(host, once, Path("/x/network")) == once


@pytest.fixture
def host(programs: FakePrograms, tmp_path: Path) -> FakeHost:
    made = FakeHost(tmp_path / "host", programs.run, machine=lambda: "x86_64")
    give_capabilities(made, (1 << 41) - 1)
    return made


@pytest.mark.parametrize(("missing", "expected"), [(set(), "full"), ({"CAP_BPF"}, "file")])
def test_root_asks_for_no_capability_that_it_lacks(
    host: Host, missing: set[str], expected: str
) -> None:
    give_capabilities(
        host, sum(1 << n for n in range(41) if not missing & capabilities.names(1 << n))
    )
    assert settings(configuration(host, PACKAGED))["root default capabilities"] == expected


def test_a_clusters_configuration_starts_from_the_engines_own(
    host: Host, programs: FakePrograms, tmp_path: Path
) -> None:
    fill(tmp_path / "etc", {"apptainer.conf": PACKAGED})
    found = settings(cluster_configuration(host, "/usr/bin/apptainer", tmp_path / "network"))
    assert found["cni configuration path"] == str(tmp_path / "network")
    assert found["max loop devices"] == "256"


@pytest.mark.parametrize("engine", ["apptainer-1.4.5", "singularity-ce-4.1.1"])
def test_each_engine_names_its_configuration_file_and_its_plugins(
    host: Host, programs: FakePrograms, tmp_path: Path, engine: str
) -> None:
    name = engine.split("-")[0]
    printed = (ENGINES / engine / "buildcfg").read_text()
    for path in ("/var/cache/sykube/apptainer", "/usr/libexec", "/etc"):
        printed = printed.replace(f"={path}", f"={tmp_path}{path}")
    programs.answers[name] = lambda _: (0, printed, "")
    found = provision.build_settings(host, Path(f"/usr/bin/{name}"))
    conf = Path(found[f"{name.upper()}_CONF_FILE"])
    assert tmp_path in conf.parents
    fill(conf.parent, {conf.name: PACKAGED})
    own = Path(found["LIBEXECDIR"]) / name / "cni"
    fill(own, {"bridge": "", "static": ""})

    def chosen() -> dict[str, str]:
        return settings(cluster_configuration(host, f"/usr/bin/{name}", tmp_path / "network"))

    assert chosen()["max loop devices"] == "256"
    assert chosen()["cni configuration path"] == str(tmp_path / "network")
    assert chosen()["cni plugin path"] == str(own)
    # The distribution's are preferred, if they are whole.
    of_fedora = host.root / "usr/libexec/cni"
    fill(of_fedora, {"bridge": ""})
    assert chosen()["cni plugin path"] == str(own)
    fill(of_fedora, {"static": ""})
    assert chosen()["cni plugin path"] == str(of_fedora)


def test_an_engine_whose_configuration_cannot_be_read(
    host: Host, programs: FakePrograms, tmp_path: Path
) -> None:
    with pytest.raises(SykubeError, match="cannot read .*apptainer.conf") as raised:
        cluster_configuration(host, "/usr/bin/apptainer", tmp_path)
    assert "No such file" in raised.value.brief


# --- setting it up ---


@pytest.fixture
def archive(host: FakeHost, programs: FakePrograms, tmp_path: Path) -> FakePrograms:
    """A Debian archive whose packages unpack to a small Apptainer, for a root that lacks some."""
    give_capabilities(host, 0b0111, last=3)
    fill(host.debian_keys.parent, {host.debian_keys.name: ""})

    def apt_get(words: list[str]) -> tuple[int, str, str]:
        if "download" in words:
            work = next(w for w in words if w.startswith("-oDir::Cache=")).split("=")[1]
            fill(Path(work).parent / "debs", {"apptainer.deb": "", "libc6.deb": ""})
        return 0, "", ""

    def dpkg_deb(words: list[str]) -> tuple[int, str, str]:
        fill(Path(words[-1]) / "usr/bin", {"apptainer": "#!"})
        fill(Path(words[-1]) / "etc/apptainer", {"apptainer.conf": PACKAGED})
        return 0, "", ""

    programs.answers |= {
        "apt-get": apt_get,
        "dpkg-deb": dpkg_deb,
        "patchelf": lambda _: (0, "/lib64/ld-linux-x86-64.so.2\n", ""),
    }
    return programs


def create(host: Host, tmp_path: Path) -> PrivateApptainer:
    private = PrivateApptainer(host, tmp_path / "cache/apptainer")
    private.create(Mirror("http://m/debian"), lambda _: None)
    return private


def test_a_private_apptainer_is_made_and_configured(
    host: Host, archive: FakePrograms, tmp_path: Path
) -> None:
    assert not PrivateApptainer(host, tmp_path / "cache/apptainer").exists()
    private = create(host, tmp_path)
    assert private.exists()
    for folder in ("usr/etc/apptainer", "usr/lib/etc/apptainer"):
        conf = settings((private.root / folder / "apptainer.conf").read_text())
        assert conf["root default capabilities"] == "file"
        allowed = json.loads((private.root / folder / "capability.json").read_text())
        assert allowed == {
            "users": {"root": ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"]}
        }
    assert sorted((tmp_path / "cache").iterdir()) == [private.root]
    # Its libraries are looked for where it ends up, not where it is made.
    relinks = [argv for argv in archive.argvs if "--set-rpath" in argv]
    assert relinks
    for argv in relinks:
        assert argv[argv.index("--set-rpath") + 1].startswith(f"{private.root}/usr/lib")


def test_packages_are_checked_with_debians_keys_alone(
    host: Host, archive: FakePrograms, tmp_path: Path
) -> None:
    seen: list[str] = []
    answer = archive.answers["apt-get"]

    def look(words: list[str]) -> tuple[int, str, str]:
        sources = next(w for w in words if w.startswith("-oDir::Etc::sourcelist=")).split("=")[1]
        seen.extend(Path(sources).read_text(encoding="utf-8").splitlines())
        assert "-oDir::Etc::sourceparts=-" in words
        assert not any("llow-unauthenticated" in w or "AllowInsecure" in w for w in words)
        return answer(words)

    archive.answers["apt-get"] = look
    create(host, tmp_path)
    assert seen
    for line in seen:
        assert f"signed-by={host.debian_keys}" in line
        assert "trusted" not in line
        assert "http://m/debian" in line


@pytest.mark.parametrize("fails", ["apt-get", "dpkg-deb", "patchelf"])
def test_an_interrupted_set_up_leaves_nothing(
    host: Host, archive: FakePrograms, tmp_path: Path, fails: str
) -> None:
    archive.answers[fails] = lambda _: (100, "", "E: The repository is not signed.")
    with pytest.raises(SykubeError, match=f"{fails} failed") as raised:
        create(host, tmp_path)
    assert "is not signed" in raised.value.details
    assert list((tmp_path / "cache").iterdir()) == []


def test_one_that_does_not_start_is_not_kept(
    host: Host, archive: FakePrograms, tmp_path: Path
) -> None:
    archive.answers["apptainer"] = lambda _: (127, "", "version `GLIBC_2.38' not found")
    with pytest.raises(SykubeError, match="does not start") as raised:
        create(host, tmp_path)
    assert "GLIBC" in raised.value.details
    assert list((tmp_path / "cache").iterdir()) == []


def test_no_keys_no_download(host: Host, archive: FakePrograms, tmp_path: Path) -> None:
    host.debian_keys.unlink()
    with pytest.raises(SykubeError, match=r"archive-keyring\.gpg is missing"):
        create(host, tmp_path)
    assert not [argv for argv in archive.argvs if argv[0] == "apt-get"]
