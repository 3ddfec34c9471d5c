"""Options are declared once: the command line, manual pages and docs have them all from there."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from sykube.cli import main, man
from sykube.cli.options import described
from sykube.cluster.model.spec import SETTINGS, ClusterSpec
from sykube.cluster.model.state import State
from sykube.errors import ExitCode
from sykube.host.paths import ClusterPaths
from sykube.patches import Patch
from tests import options_table
from tests.fakes import World
from tests.unit.helpers import Sykube


def init_options() -> dict[str, click.Option]:
    command = main.cli.get_command(click.Context(main.cli), "init")
    assert command is not None
    return {each.name or "": each for each in command.params if isinstance(each, click.Option)}


def test_the_tables_of_the_docs_are_up_to_date() -> None:
    found = options_table.FILE.read_text(encoding="utf-8")
    assert found == options_table.page(), "make them: python -m tests.options_table"
    for declared in SETTINGS.values():
        assert f"\n| `{declared.key}` |" in found


def test_init_has_each_option_as_it_is_declared() -> None:
    options = init_options()
    for name, declared in SETTINGS.items():
        if declared.flags:
            assert tuple(options[name].opts) == declared.flags
            assert options[name].help == described(declared)
        else:
            assert name not in options


def test_keys_and_flags_are_each_of_one_option() -> None:
    keys = [declared.key for declared in SETTINGS.values()]
    flags = [flag for declared in SETTINGS.values() for flag in declared.flags]
    assert len({*keys}) == len(keys)
    assert len({*flags}) == len(flags)


def test_every_default_is_one_that_its_check_takes() -> None:
    spec = ClusterSpec()
    for name, declared in SETTINGS.items():
        assert declared.check(getattr(spec, name)) == "", name


def test_the_manual_names_each_variable() -> None:
    pages = dict(man.pages(click.Context(main.cli, info_name="sykube")))
    for declared in SETTINGS.values():
        assert declared.variable in pages["sykube"]


def test_gates_and_patches_of_the_command_line(
    world: World, sykube: Sykube, tmp_path: Path
) -> None:
    (tmp_path / "kubelet.yaml").write_text("maxPods: 7\n")
    (tmp_path / "kubeadm.yaml").write_text("kind: InitConfiguration\n")
    (tmp_path / "containerd.toml").write_text("oom_score = 1\n")
    (tmp_path / "cluster.yaml").write_text("featureGates: {C: true}\nkubeletConfigPatches: []\n")
    arguments = [
        *("--config", str(tmp_path / "cluster.yaml"), "--name", "fake"),
        *("--feature-gates", "A=true,B=false", "--feature-gates", "D=true"),
        *("--runtime-config", "api/alpha=true"),
        *("--kubelet-config-patch", str(tmp_path / "kubelet.yaml")),
        *("--kubelet-config-patch", str(tmp_path / "kubelet.yaml")),
        *("--kubeadm-config-patch", str(tmp_path / "kubeadm.yaml")),
        *("--containerd-config-patch", str(tmp_path / "containerd.toml")),
    ]
    assert sykube("init", *arguments).code == 0
    state = State.load(ClusterPaths(world.host, "fake").state)
    assert state is not None
    assert state.spec.feature_gates == {"A": True, "B": False, "D": True}
    assert state.spec.runtime_config == {"api/alpha": "true"}
    assert state.spec.kubelet_config_patches == 2 * (Patch("maxPods: 7\n"),)
    assert state.spec.kubeadm_config_patches == (Patch("kind: InitConfiguration\n"),)
    assert state.spec.containerd_config_patches == (Patch("oom_score = 1\n"),)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--feature-gates", "A"], "--feature-gates: must be NAME=VALUE, separated by commas"),
        (["--feature-gates", "A=1"], "--feature-gates: can be true or false, not '1'"),
        (["--runtime-config", "api/all=on"], "the API api/all can be true or false, not 'on'"),
        (["--kubelet-config-patch", "/nowhere"], "--kubelet-config-patch: cannot read /nowhere"),
        (["--options", "--bind '/a"], '--options: "--bind \'/a" cannot be split into words'),
    ],
)
def test_options_that_cannot_be_are_wrong_use(
    world: World, sykube: Sykube, arguments: list[str], words: str
) -> None:
    found = sykube("init", *arguments)
    assert found.code == ExitCode.USAGE
    assert words in found.err
    assert world.calls.all == []
