"""Archives of whole systems, by the host's own tar."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sykube.host import tar
from sykube.host.host import Host

pytestmark = pytest.mark.integration


def test_a_file_that_two_nodes_share_can_be_unpacked_for_one_alone(tmp_path: Path) -> None:
    root, target, folder = (tmp_path / name for name in ("root", "target", "folder"))
    for place in (root / "one", root / "two", target, folder):
        place.mkdir(parents=True)
    (root / "one/part").write_text("layer")
    os.link(root / "one/part", root / "two/part")
    file = tar.pack(Host(), root, ["one", "two"], folder)
    tar.unpack(Host(), file, target, only=["two"])
    assert (target / "two/part").read_text() == "layer"
    assert not (target / "one").exists()
