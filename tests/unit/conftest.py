"""No unit test starts a process by accident, or sees this machine's own clusters."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import fakes
from tests.fakes import World


def _no_process(*args: object, **_: object) -> None:
    raise AssertionError(f"a unit test tried to start a process: {args}")


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Every test has a home and a cache of its own, and `run` refuses.

    A test of `run` itself imports the real one by name.
    """
    fakes.replace_run(monkeypatch, _no_process)
    fakes.replace_replace_process(monkeypatch, _no_process)
    fakes.keep_compiled_templates(monkeypatch)
    monkeypatch.setenv("SYKUBE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("KUBECONFIG", "SUDO_UID", "SYKUBE_FAIL_AT", "SYKUBE_TEST_MACHINE"):
        monkeypatch.delenv(name, raising=False)
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
def world(fast_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A fake host in the place of this one."""
    made = World(fast_path / "host")
    made.install(monkeypatch)
    return made
