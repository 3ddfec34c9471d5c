"""A whole measurement of `sykube bench` on a machine that is quiet, of which only the lab is a fake."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import pytest

from sykube.bench.machine import Machine
from sykube.cluster.commands.bench import laboratory
from sykube.image.debian_image import DebianImage

QUIET = Machine("Quick 1", 2, "6.12.1", 0.0, 0.0, "", None, 0)


class Lab(Protocol):
    """What is measured in; `folder` is the root of its host."""

    folder: Path

    @property
    def cluster(self) -> Any: ...


def prepare(
    monkeypatch: pytest.MonkeyPatch,
    module: ModuleType,
    lab: Lab,
    image: DebianImage,
    runtimes: tuple[str, ...],
) -> None:
    """Give the `measure` of a module a machine with 8 GiB and two cores."""
    monkeypatch.setattr(laboratory, "quiet", lambda *_, **__: nullcontext((lab.cluster, QUIET)))
    monkeypatch.setattr(module, "usable_cores", lambda: [0, 1])
    monkeypatch.setattr("sykube.cluster.operations.runtimes.offered", lambda _: runtimes)
    monkeypatch.setattr("sykube.cluster.operations.debian_image.obtain", lambda *_, **__: image)
    (lab.folder / "proc").mkdir()
    (lab.folder / "proc/meminfo").write_text("MemAvailable:    8388608 kB\n")


def measure(module: ModuleType, lab: Lab, wanted: Any) -> Any:
    """The result of three runs."""
    cluster = lab.cluster
    return module.measure(
        cluster.host, "sykube", cluster.ui, lambda _: True,
        wanted=wanted, runs=3, margin=0.02, anyway=False,
    )  # fmt: skip
