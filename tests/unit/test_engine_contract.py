"""The fake engine does as Apptainer does."""

from __future__ import annotations

import pytest

from sykube.node import cgroups
from sykube.node.engine import Engine, InstanceOptions
from tests.contracts.engine import EngineContract
from tests.fakes import World, fill
from tests.fakes.engine import FakeEngine


class TestFake(EngineContract):
    @pytest.fixture
    def engine(self, world: World) -> Engine:
        config, networks = world.root / "engine/apptainer.conf", world.root / "engine/network"
        fill(networks, {"50-ours.conflist": "{}"})
        fill(config.parent, {config.name: f"cni configuration path = {networks}\n"})
        world.kernel.add_link("ours")
        return FakeEngine(world, config)

    @pytest.fixture
    def options(self, world: World) -> InstanceOptions:
        (image,) = (world.root / "cache/node-images").glob("*/node.sif")
        node = world.root / "node"
        fill(node / "config", {"routes": "", "hosts": ""})
        for name in ("containerd", "log", "overlay"):
            (node / name).mkdir()
        cgroups.create(world.host, "fake-master")
        binds = (
            (node / "config", "/etc/sykube"),
            (node / "containerd", "/var/lib/containerd"),
            (node / "log", "/var/log"),
        )
        return InstanceOptions(
            image, node / "overlay", binds, "ours", "10.11.11.2/24", "10.11.11.1", "fake-master"
        )
