"""Pages in the browser of whoever called: for `dashboard` and for `service --open`."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sykube import resources
from sykube.cli import browser
from sykube.errors import ExitCode
from sykube.host.host import Host
from sykube.host.owner import Owner
from tests.fakes import World
from tests.fakes.node_programs import words_of
from tests.unit.helpers import Sykube, made

URL = "http://10.96.0.7:80"


def test_the_link_is_opened_by_a_file_that_its_owner_alone_reads() -> None:
    owner = Owner.of_caller()
    with browser.page_leading_to(Host(), "http://127.0.0.1:1/enter?token=a&b", owner) as page:
        assert "url=http://127.0.0.1:1/enter?token=a&amp;b" in page.read_text()
        assert stat.S_IMODE(page.stat().st_mode) == 0o600
        assert stat.S_IMODE(page.parent.stat().st_mode) == 0o700
    assert not page.parent.exists()


@pytest.mark.parametrize("other", [False, True])
def test_the_browser_is_the_callers(world: World, other: bool) -> None:
    world.present.add("xdg-open")
    world.programs.answers["sh"] = lambda words: (0 if words_of(["sh", *words]) else 1, "", "")
    me = Owner.of_caller()
    owner = Owner(me.uid + 1, me.gid, me.home) if other else me
    page = Path("/tmp/open.html")
    assert not browser.show(world.host, page, owner, {})
    assert browser.show(world.host, page, owner, {"DISPLAY": ":0", "SECRET": "x"})
    (words,) = world.programs.argvs
    assert words[-2:] == ["xdg-open", "/tmp/open.html"]
    assert ("setpriv" in words) is other
    assert (f"--reuid={owner.uid}" in words) is other
    world.programs.answers["sh"] = lambda _: (3, "", "no")
    assert not browser.show(world.host, page, owner, {"WAYLAND_DISPLAY": "w"})


def test_none_is_opened_in_the_network_of_a_users_clusters(world: World) -> None:
    world.present.add("xdg-open")
    world.network.arrival = "10.0.2.100"
    assert not browser.show(world.host, URL, Owner.of_caller(), {"DISPLAY": ":0"})
    assert world.programs.argvs == []


@contextlib.contextmanager
def launched(folder: Path, *words: str) -> Iterator[int]:
    """What is launched with a patience of a second, and the code that says how it went."""
    note = f"echo $$ > {folder}/pid; exec {' '.join(words)}"
    command = resources.script("launch", "1", "sh", "-c", note)
    done = subprocess.run(command, check=False, timeout=10)
    try:
        yield done.returncode
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int((folder / "pid").read_text()), signal.SIGKILL)


def test_a_browser_that_goes_on_is_left_alone(tmp_path: Path) -> None:
    with launched(tmp_path, "sleep", "30") as code:
        assert code == 0
        assert Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


@pytest.mark.parametrize(("program", "expected"), [("true", 0), ("false", 1)])
def test_one_that_ends_at_once_says_how_it_went(
    tmp_path: Path, program: str, expected: int
) -> None:
    with launched(tmp_path, program) as code:
        assert code == expected


@pytest.fixture
def reached(world: World) -> list[str]:
    """A cluster with a Service whose second port is for browsers; the pages that were opened."""
    made(world)
    ports = [
        {"name": "db", "port": 5432, "protocol": "TCP"},
        {"name": "http", "port": 80, "protocol": "TCP"},
    ]
    world.kubernetes["fake"].objects |= {
        "/api/v1/namespaces/default/services/shop": {
            "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.7", "ports": ports}
        },
        "/api/v1/namespaces/default/endpoints/shop": {
            "subsets": [{"addresses": [{"ip": "10.244.1.9"}]}]
        },
    }
    world.present.add("xdg-open")
    opened: list[str] = []

    def open_page(words: list[str]) -> tuple[int, str, str]:
        opened.append(words[-1])
        return 0, "", ""

    world.programs.answers["sh"] = open_page
    return opened


def test_the_first_address_for_browsers_is_opened(
    reached: list[str], sykube: Sykube, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    result = sykube("service", "shop", "--open", "--name", "fake")
    assert (result.code, result.out.split()) == (0, ["10.96.0.7:5432", URL]), result.err
    assert reached == [URL]


def test_without_a_desktop_it_says_what_to_open_elsewhere(
    reached: list[str], sykube: Sykube, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    result = sykube("service", "shop", "--open", "--name", "fake")
    assert result.code == ExitCode.FAILED
    assert f"Open it elsewhere: {URL}" in result.err
    assert reached == []
