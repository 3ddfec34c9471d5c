"""Capabilities by their names and numbers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sykube.host import capabilities
from sykube.host.capabilities import REQUIRED, names
from sykube.host.host import Host


def test_names_of_a_mask() -> None:
    assert names(0) == frozenset()
    assert names(1) == {"CAP_CHOWN"}
    # include/uapi/linux/capability.h
    for number, name in ((12, "NET_ADMIN"), (21, "SYS_ADMIN"), (24, "SYS_RESOURCE"), (39, "BPF")):
        assert names(1 << number) == {f"CAP_{name}"}
    assert names((1 << 41) - 1) == {f"CAP_{name}" for name in capabilities._NAMES}
    assert len(set(capabilities._NAMES)) == 41


def test_capabilities_of_a_later_kernel_have_no_name_here() -> None:
    assert names(1 << 63) == frozenset()


def test_names_are_the_kernels_own_where_it_has_its_header() -> None:
    header = Path("/usr/include/linux/capability.h")
    if not header.exists():
        pytest.skip("no header of the kernel here")
    found = re.findall(
        r"^#define CAP_(\w+)\s+(\d+)$", header.read_text(encoding="utf-8"), re.MULTILINE
    )
    numbers = {name: int(number) for name, number in found if name != "LAST_CAP"}
    for number, name in enumerate(capabilities._NAMES):
        assert numbers.get(name, number) == number, name


def test_what_nodes_need_exists_and_leaves_out_what_ci_runners_lack() -> None:
    assert {f"CAP_{name}" for name in capabilities._NAMES} > REQUIRED
    assert "CAP_SYS_ADMIN" in REQUIRED
    assert "CAP_SYS_RESOURCE" not in REQUIRED


def test_masks_of_this_process() -> None:
    assert capabilities.effective(Host()) & ~capabilities.known(Host()) == 0
    assert capabilities.known(Host()) >= (1 << 37) - 1
