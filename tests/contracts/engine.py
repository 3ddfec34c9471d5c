"""What sykube relies on in an engine that runs nodes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sykube.host.run import CommandError
from sykube.node.engine import Engine, InstanceOptions
from sykube.node.node import Node
from tests.fakes.nodes import make_node


class EngineContract:
    """A subclass has the fixtures `engine` and `options`; what it started it ends."""

    @pytest.fixture
    def node(self, engine: Engine) -> Node:
        """One that does not run yet."""
        return make_node(engine)

    @pytest.fixture
    def running(self, node: Node, engine: Engine, options: InstanceOptions) -> Node:
        engine.start(node.instance, options)
        return node

    def test_one_that_does_not_run(self, engine: Engine, node: Node) -> None:
        name = node.instance
        assert name not in engine.instances()
        engine.kill(name)
        assert engine.leftovers(name) == []
        assert engine.output(name) == ""
        assert engine.exec(name, ["cat", "/etc/x"], check=False).code == 255
        with pytest.raises(CommandError):
            engine.exec(name, ["cat", "/etc/x"])

    def test_one_that_runs_is_listed(
        self, engine: Engine, running: Node, options: InstanceOptions
    ) -> None:
        found = engine.instances()[running.instance]
        assert (found.name, found.image) == (running.instance, str(options.image))
        assert found.pid > 1

    def test_files_are_written_read_and_removed(self, running: Node) -> None:
        for text in ("one\n", "two lines\nof $HOME, 'quoted'\nand ü", ""):
            running.write("/etc/ours", text, mode="0600")
            assert running.read("/etc/ours") == text
        assert running.run(["test", "-e", "/etc/ours"], check=False).code == 0
        running.discard("/etc/ours")
        running.discard("/etc/ours")
        assert running.run(["test", "-e", "/etc/ours"], check=False).code == 1

    def test_a_command_that_fails(self, running: Node) -> None:
        done = running.run(["cat", "/etc/absent"], check=False)
        assert (done.code, done.ok, done.stdout) == (1, False, "")
        assert "No such file or directory" in done.stderr
        with pytest.raises(CommandError) as raised:
            running.run(["cat", "/etc/absent"])
        assert "No such file or directory" in raised.value.output

    def test_one_name_is_one_instance(
        self, engine: Engine, running: Node, options: InstanceOptions
    ) -> None:
        before = engine.instances()[running.instance]
        with pytest.raises(CommandError):
            engine.start(running.instance, options)
        assert engine.instances()[running.instance] == before

    def test_one_that_was_killed_leaves_its_output(self, engine: Engine, running: Node) -> None:
        name = running.instance
        left = engine.leftovers(name)
        assert {file.name for file in left} == {f"{name}.out", f"{name}.err"}
        engine.kill(name)
        assert name not in engine.instances()
        assert engine.exec(name, ["cat", "/etc/x"], check=False).code == 255
        assert engine.leftovers(name) == left
        engine.kill(name)

    def test_what_it_wrote_is_there_when_it_runs_again(
        self, engine: Engine, running: Node, options: InstanceOptions
    ) -> None:
        running.write("/etc/ours", "kept\n")
        engine.kill(running.instance)
        engine.start(running.instance, options)
        assert running.read("/etc/ours") == "kept\n"

    @pytest.mark.parametrize("missing", ["bind", "network"])
    def test_what_it_cannot_be_started_with(
        self, engine: Engine, node: Node, options: InstanceOptions, missing: str
    ) -> None:
        if missing == "bind":
            options = replace(options, binds=(*options.binds, (Path("/absent"), "/tmp")))
        else:
            options = replace(options, network="absent")
        with pytest.raises(CommandError):
            engine.start(node.instance, options)
        assert node.instance not in engine.instances()
