"""The Apptainer of this machine, as root, with a home of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sykube.host import apt, engines
from sykube.host.host import Host
from sykube.node.engine import CommandLineEngine, Engine, InstanceOptions
from tests.contracts.engine import EngineContract
from tests.integration.images import make_root

pytestmark = pytest.mark.integration
_PROGRAMS = (
    "/bin/sh",
    "/bin/cat",
    "/bin/chmod",
    "/bin/mv",
    "/bin/rm",
    "/bin/sleep",
    "/usr/bin/test",
)


@pytest.fixture(scope="module")
def found() -> engines.FoundEngine:
    return engines.find_or_create(Host(), lambda: apt.find_mirror(Host()), print)


@pytest.fixture(scope="module")
def image(found: engines.FoundEngine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is run as an image is: nothing has to be packed."""
    folder = tmp_path_factory.mktemp("image")
    root = make_root(folder / "root", _PROGRAMS)
    command: list[str | Path] = [found.binary, "build", "--sandbox", folder / "image", root]
    Host().run(command, env=found.environment, timeout=120)
    return folder / "image"


class TestReal(EngineContract):
    @pytest.fixture
    def engine(self, found: engines.FoundEngine, tmp_path: Path) -> Iterator[Engine]:
        (tmp_path / "home").mkdir()
        # Its records are there: this host's own instances are not seen.
        environment = {**found.environment, "HOME": str(tmp_path / "home")}
        made = CommandLineEngine(Host(), found.binary, None, environment)
        yield made
        for name in made.instances():
            made.kill(name)

    @pytest.fixture
    def options(self, tmp_path: Path, image: Path) -> InstanceOptions:
        for name in ("overlay", "bound"):
            (tmp_path / name).mkdir()
        binds = ((tmp_path / "bound", "/mnt"),)
        # No link of the host is made.
        return InstanceOptions(
            image, tmp_path / "overlay", binds, "none", "10.11.11.2/24", "10.11.11.1", "ours"
        )
