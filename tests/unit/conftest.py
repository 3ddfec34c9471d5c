"""No unit test starts a process by accident, or sees this machine's own clusters."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import pytest

from sykube.cli import context, main
from sykube.cluster.model.spec import ClusterSpec
from sykube.cluster.model.state import State
from sykube.image import mirrors
from sykube.node.engine import InstanceOptions
from tests.fakes import FakeHost, World
from tests.fakes.instance import FakeInstance
from tests.fakes.nodes import make_subnets
from tests.unit.helpers import Result, Sykube, Terminal


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collecting makes a million objects that stay: to look for garbage among them is a fifth."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Every test has a home and a cache of its own."""
    monkeypatch.setenv("SYKUBE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("KUBECONFIG", "SUDO_UID"):
        monkeypatch.delenv(name, raising=False)
    for name in ("FAIL_AT", "TEST_MACHINE", "ENGINE", "MIRROR", "SOURCE"):
        monkeypatch.delenv(f"SYKUBE_{name}", raising=False)
    for setting in mirrors.SETTINGS.values():
        monkeypatch.delenv(setting.variable, raising=False)
    logger = logging.getLogger("sykube")
    handlers, level = list(logger.handlers), logger.level
    yield
    for handler in set(logger.handlers) - set(handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(level)


@pytest.fixture
def fast_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: a fake init writes a hundred small files."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="sykube-test-", dir=memory) as folder:
        yield Path(folder)


@pytest.fixture
def host(request: pytest.FixtureRequest, tmp_path: Path) -> FakeHost:
    """A machine on a folder: the world's, where the test has one."""
    if "world" in request.fixturenames:
        world: World = request.getfixturevalue("world")
        return world.host
    return FakeHost(tmp_path / "host")


@pytest.fixture
def world(fast_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A fake host in the place of this one."""
    made = World(fast_path / "host")
    made.install(monkeypatch)
    return made


@pytest.fixture
def sykube(
    host: FakeHost, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Sykube]:
    """Runs `sykube` with arguments in this process."""
    before = signal.getsignal(signal.SIGTERM)

    def call(
        *arguments: str,
        user: int | None = None,
        stdin: TextIO | None = None,
        **changes: Any,
    ) -> Result:
        context._ui.clear()
        capsys.readouterr()
        with monkeypatch.context() as at_call, pytest.raises(SystemExit) as ended:
            # As Python hands them to a program: the log begins with its command line.
            at_call.setattr(sys, "argv", ["sykube", *arguments])
            at_call.setattr(sys, "stdin", stdin or sys.stdin)
            if user is not None:
                changes["user"] = lambda: user
            main.main(replace(host, **changes))
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Result(int(ended.value.code or 0), out, err)

    yield call
    context._ui.clear()
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def recorded(world: World, sykube: Sykube) -> World:
    """The same two clusters as they look from outside, without the time that init takes."""
    for number, name in enumerate(("sykube", "lab")):
        folder = world.host.data / name
        folder.mkdir(parents=True)
        (folder / "kubeconfig").write_text("the kubeconfig\n")
        ranges = make_subnets(f"10.11.{11 + number}.0/24")
        image = str(world.root / "cache/node-images/x")
        spec = ClusterSpec(name=name)
        state = State(spec, ranges, "apptainer", {}, "x", image, {}, "", ())
        state.save(folder / "state.json")
        nowhere = Path("/nonexistent")
        options = InstanceOptions(nowhere, nowhere, (), "", "", "", "")
        for node in ("master", "node1"):
            world.instances[f"{name}-{node}"] = FakeInstance(0, options)
        world.kernel.add_link(f"sk-{name}")
    return world


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()
