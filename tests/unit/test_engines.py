"""Which engine is used, and where Apptainer and SingularityCE differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from sykube.errors import SykubeError, UsageError
from sykube.host import engines
from sykube.host.apt import Mirror
from sykube.host.host import Host
from sykube.host.run import CommandError, Completed
from tests.fakes import FakeHost, fill, give_capabilities

FIXTURES = Path(__file__).parent / "fixtures/engines"
FEW, MANY = 0b0111, 0b1111
OWN = "apptainer version 1.4.5"


class Engines:
    """Programs by their names, with what each says of its version."""

    def __init__(self, root: Path) -> None:
        self.said: dict[str, str] = {}
        self.private = root / "apptainer/usr/bin/apptainer"

    def which(self, name: str) -> str | None:
        return f"/opt/bin/{name}" if name in self.said else None

    def run(self, argv: Sequence[object], **_: object) -> Completed:
        words = tuple(map(str, argv))
        assert words[1:] == ("--version",)
        if words[0] == str(self.private):
            return Completed(words, 0, OWN, "")
        name = words[0].rpartition("/")[2]
        if name not in self.said:
            raise CommandError(f"could not find the program {words[0]}", words, "")
        return Completed(words, 0, self.said[name], "")

    def set_up_private(self) -> None:
        fill(self.private.parent, {"apptainer": ""})


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Engines:
    made = Engines(tmp_path)
    monkeypatch.setenv("SYKUBE_CACHE_DIR", str(tmp_path))
    return made


@pytest.fixture
def host(installed: Engines, tmp_path: Path) -> FakeHost:
    made = FakeHost(tmp_path, installed.run, which=installed.which)
    give_capabilities(made, MANY, last=3)
    return made


APPTAINER = "apptainer version 1.3.6-1.fc42"
SINGULARITY = (FIXTURES / "singularity-ce-4.1.1/version").read_text()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"apptainer": APPTAINER}, "apptainer 1.3.6"),
        ({"singularity": SINGULARITY}, "singularity 4.1.1"),
        ({"singularity": "singularity-ce version 4.0.0-rc.2-jammy"}, "singularity 4.0.0"),
        ({"apptainer": APPTAINER, "singularity": SINGULARITY}, "apptainer 1.3.6"),
        # A link that Apptainer's packages make.
        ({"singularity": APPTAINER}, "apptainer 1.3.6"),
        ({"apptainer": "apptainer version 1.1.9", "singularity": SINGULARITY}, "singularity 4.1.1"),
        ({"apptainer": "apptainer version 1.1.9"}, "apptainer 1.4.5 (private)"),
        ({"singularity": "singularity version 3.8.7"}, "apptainer 1.4.5 (private)"),
        ({"singularity": "singularity-ce version 3.11.5"}, "apptainer 1.4.5 (private)"),
        ({"singularity": "a game"}, "apptainer 1.4.5 (private)"),
        ({"singularity": ""}, "apptainer 1.4.5 (private)"),
        ({}, "apptainer 1.4.5 (private)"),
    ],
)
def test_the_hosts_own_engine_where_it_will_do(
    host: Host, installed: Engines, said: dict[str, str], expected: str
) -> None:
    installed.said = said
    installed.set_up_private()
    found = engines.find(host)
    assert found is not None
    assert found.version == expected
    private = expected.endswith("(private)")
    assert (found.binary == installed.private) is private
    assert found.environment == {}
    if private:
        # The reason is what is wrong with the host's own.
        assert found.why == (
            "; ".join(c.problem for c in engines.candidates(host)) or "the host has none"
        )
        assert ("4.0" in found.why) == ("3.11" in str(said))
    else:
        assert found.why.startswith("the first on ")


def test_no_engine_at_all(host: Host, installed: Engines) -> None:
    assert engines.find(host) is None


@pytest.mark.parametrize(
    ("said", "variable"),
    [(APPTAINER, "APPTAINER_DROP_CAPS"), (SINGULARITY, "SINGULARITY_DROP_CAPS")],
)
def test_root_asks_for_no_capability_that_it_lacks(
    host: Host, installed: Engines, said: str, variable: str
) -> None:
    give_capabilities(host, FEW, last=3)
    installed.said = {"singularity": said}
    assert engines.find(host) is None
    found = engines.find_for_files(host)
    assert found.binary == Path("/opt/bin/singularity")
    assert found.environment == {variable: "CAP_FOWNER"}
    installed.set_up_private()
    own = engines.find(host)
    assert own is not None
    assert own.binary == installed.private
    assert own.environment == {"APPTAINER_DROP_CAPS": "CAP_FOWNER"}
    assert own.why == (
        "/opt/bin/singularity asks for capabilities that this root lacks (CAP_FOWNER)"
    )


# --- the user's choice ---


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("apptainer", "apptainer 1.3.6"),
        ("singularity", "singularity 4.1.1"),
        ("private", "apptainer 1.4.5 (private)"),
        ("/opt/bin/singularity", "singularity 4.1.1"),
    ],
)
def test_the_one_that_was_asked_for(
    host: Host, installed: Engines, monkeypatch: pytest.MonkeyPatch, wanted: str, expected: str
) -> None:
    monkeypatch.setenv("SYKUBE_ENGINE", wanted)
    installed.said = {"apptainer": APPTAINER, "singularity": SINGULARITY}
    installed.set_up_private()
    found = engines.find(host)
    assert found is not None
    assert (found.version, found.why) == (expected, "SYKUBE_ENGINE asks for it")


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ("apptainer", "nodes need 1.2 or later"),
        ("singularity", "there is no program singularity"),
        ("/opt/bin/absent", "could not find the program /opt/bin/absent"),
        ("podman", "there is no program podman"),
    ],
)
def test_one_that_will_not_do_is_not_replaced_by_another(
    host: Host, installed: Engines, monkeypatch: pytest.MonkeyPatch, wanted: str, reason: str
) -> None:
    monkeypatch.setenv("SYKUBE_ENGINE", wanted)
    installed.said = {"apptainer": "apptainer version 1.1.9"}
    installed.set_up_private()
    with pytest.raises(UsageError, match=f"SYKUBE_ENGINE={wanted}") as raised:
        engines.find(host)
    assert reason in raised.value.details
    assert "SYKUBE_ENGINE" in raised.value.resolution


def test_a_private_one_is_made_where_it_was_asked_for(
    host: Host, installed: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYKUBE_ENGINE", "private")
    installed.said = {"apptainer": APPTAINER}
    assert engines.find(host) is None

    def create(*_: object) -> None:
        installed.set_up_private()

    monkeypatch.setattr(type(engines.private(host)), "create", create)
    found = engines.find_or_create(host, lambda: Mirror("file:/d"), lambda _: None)
    assert found.binary == installed.private


def test_none_is_made_where_the_hosts_own_will_do(
    host: Host, installed: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed.said = {"apptainer": APPTAINER}

    def create(*_: object) -> None:
        raise SykubeError("made one")

    monkeypatch.setattr(type(engines.private(host)), "create", create)
    found = engines.find_or_create(host, lambda: Mirror("file:/d"), lambda _: None)
    assert found.binary != installed.private


# --- what building differs in ---


@pytest.mark.parametrize(
    ("said", "options", "prefix"),
    [
        ("apptainer version 1.4.0", ("--mksquashfs-args", "-comp zstd"), "APPTAINER"),
        ("apptainer version 1.3.6", (), "APPTAINER"),
        (SINGULARITY, (), "SINGULARITY"),
    ],
)
def test_calls_of_build(
    host: Host, installed: Engines, tmp_path: Path, said: str, options: tuple[str, ...], prefix: str
) -> None:
    installed.said = {"engine": said}
    looked = engines.probe(host, Path("/opt/bin/engine"))
    assert looked.mksquashfs_options("-comp zstd") == options
    assert looked.work_environment(tmp_path) == {
        "TMPDIR": str(tmp_path),
        f"{prefix}_TMPDIR": str(tmp_path),
        f"{prefix}_CACHEDIR": str(tmp_path),
    }
