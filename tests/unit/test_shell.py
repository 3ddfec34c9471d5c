"""What sykube does for a shell: completion, variables, manual pages, colours on terminals alone."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pwd
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete

from sykube.cli import main, man
from sykube.cli.commands import COMMANDS
from sykube.cluster.commands import removal
from sykube.cluster.operations import user_kubeconfig
from sykube.errors import ExitCode
from sykube.host.host import Host
from sykube.host.owner import Owner
from sykube.host.paths import CLUSTER_VARIABLE
from sykube.kubernetes import kubeconfig
from tests.fakes import Call, World
from tests.unit.helpers import Sykube, Terminal, fake_spec, init


def offered(host: Host, *words: str) -> list[str]:
    """What is offered for the last of some words after `sykube`."""
    complete = BashComplete(main.cli, {"obj": host}, "sykube", "_SYKUBE_COMPLETE")
    found = complete.get_completions(list(words[:-1]), words[-1])
    return [each.value if each.type == "plain" else f"({each.type})" for each in found]


# --- completion ---


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["sto"], ["stop"]),
        (["node", ""], ["add", "delete", "list"]),
        (["node", "a"], ["add"]),
        (["status", "--name", ""], ["lab", "sykube"]),
        (["status", "--name", "l"], ["lab"]),
        (["kubectl", "--name", "s"], ["sykube"]),
        (["exec", ""], ["master", "node1"]),
        (["shell", "n"], ["node1"]),
        (["logs", "m"], ["master"]),
        (["node", "delete", ""], ["node1"]),
        (["addons", "enable", "sto"], ["storage"]),
        (["init", "--addon", "sto"], ["storage"]),
        (["snapshot", "restore", ""], ["before", "other"]),
        (["snapshot", "delete", "b"], ["before"]),
        (["init", "--from", "o"], ["other"]),
        (["status", "-o", "j"], ["json"]),
        (["logs", "--service", "kube"], ["kubelet"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["env", "--shell", "f"], ["fish"]),
        (["man", "--dir", "/u"], ["(dir)"]),
        (["init", "--config", "c"], ["(file)"]),
        (["init", "--dest", "d"], ["(dir)"]),
        (["init", "--local-image", "d"], ["(file)"]),
        (["exec", "master", "ls", "/e"], ["(file)"]),
        (["stop", "--dr"], ["--drain", "--drain-timeout"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_words_are_completed_from_what_is_there(
    recorded: World,
    words: list[str],
    expected: list[str],
) -> None:
    for name in ("before", "other", ".new-sykube"):
        (recorded.host.snapshots / name).mkdir(parents=True)
    assert offered(recorded.host, *words) == expected
    assert recorded.calls.all == [], "nothing is started and no API server asked"


def test_after_a_word_that_is_no_command_all_commands_are_offered(host: Host) -> None:
    assert "init" in offered(host, "nosuch", "")


def test_nodes_are_those_of_the_cluster_that_was_named(recorded: World) -> None:
    state = recorded.host.data / "lab/state.json"
    stored = json.loads(state.read_text())
    state.write_text(json.dumps(stored | {"nodes": ["master", "node1", "node7"]}))
    assert offered(recorded.host, "exec", "--name", "lab", "node7") == ["node7"]
    assert offered(recorded.host, "exec", "node7") == []


def test_ports_are_those_that_lead_somewhere(recorded: World) -> None:
    state = recorded.host.data / "sykube/state.json"
    stored = json.loads(state.read_text())
    state.write_text(json.dumps(stored | {"ports": ["8080:80", "127.0.0.2:8443:443"]}))
    assert offered(recorded.host, "port", "delete", "") == ["8080", "8443"]
    assert offered(recorded.host, "port", "delete", "84") == ["8443"]


def test_what_follows_kubectl_is_kubectls_own(recorded: World) -> None:
    for words in (["kubectl", "get", "po"], ["kubectl", "apply", "-f", "x"], ["kubectl", "st"]):
        assert offered(recorded.host, *words) == ["(file)"]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"nodes": 1}'])
def test_whoever_presses_tab_is_told_no_errors(recorded: World, damage: str) -> None:
    (recorded.host.data / "sykube/state.json").write_text(damage)
    assert offered(recorded.host, "exec", "m") == []
    assert offered(recorded.host, "exec", "--name", "../..", "m") == []
    assert offered(recorded.host, "snapshot", "delete", "") == []


def test_without_any_cluster_there_is_nothing_to_offer(world: World) -> None:
    assert offered(world.host, "status", "--name", "") == []
    assert offered(world.host, "snapshot", "restore", "") == []


def test_commands_are_completed_without_reading_them() -> None:
    """Each TAB is a process: what it does not need, it does not import."""
    program = (
        "import sys\n"
        "from sykube.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(*sorted(sys.modules))\n"
    )
    environment = os.environ | {
        "_SYKUBE_COMPLETE": "bash_complete", "COMP_WORDS": "sykube sto", "COMP_CWORD": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment, cwd=Path(__file__).resolve().parents[2], capture_output=True, text=True, check=True,
    )  # fmt: skip
    completed, modules = done.stdout.splitlines()
    assert completed == "plain,stop"
    assert done.stderr == ""
    assert {"yaml", "jinja2", "requests", "ssl", "sykube.cluster"}.isdisjoint(modules.split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_is_printed(sykube: Sykube, shell: str) -> None:
    result = sykube("completion", shell)
    assert (result.code, result.err) == (0, "")
    assert f"_SYKUBE_COMPLETE={shell}_complete" in result.out


def test_an_unknown_shell_is_wrong_use(sykube: Sykube) -> None:
    assert sykube("completion", "csh").code == ExitCode.USAGE


# --- env ---


@pytest.mark.parametrize(
    ("shell", "set_it", "forget"),
    [
        ("bash", "export KUBECONFIG={}", "unset KUBECONFIG"),
        ("zsh", "export KUBECONFIG={}", "unset KUBECONFIG"),
        ("fish", "set -gx KUBECONFIG {}", "set -e KUBECONFIG"),
    ],
)
def test_env_leads_kubectl_to_the_cluster(
    recorded: World,
    sykube: Sykube,
    shell: str,
    set_it: str,
    forget: str,
) -> None:
    result = sykube("env", "--name", "lab", "--shell", shell)
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0] == set_it.format(recorded.host.data / "lab/kubeconfig")
    assert lines[1].startswith("# ")
    assert "sykube env --name lab" in lines[1]
    assert sykube("env", "--shell", shell, "--unset").out == f"{forget}\n"


@pytest.mark.parametrize(
    ("variable", "first"),
    [("/usr/bin/fish", "set -e"), ("/bin/zsh", "unset"), ("/bin/csh", "unset"), ("", "unset")],
)
def test_the_shell_is_the_one_in_use(
    sykube: Sykube,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    first: str,
) -> None:
    monkeypatch.setenv("SHELL", variable)
    assert sykube("env", "--unset").out.startswith(first)


@pytest.fixture
def by_sudo(recorded: World, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """Root was called by user 1234, whose shell is fish; what was given to whom."""
    home = str(recorded.root / "home")
    entry = types.SimpleNamespace(pw_uid=1234, pw_gid=99, pw_dir=home, pw_shell="/usr/bin/fish")
    monkeypatch.setenv("SUDO_UID", "1234")
    # A user that this machine does not have.
    monkeypatch.setattr(pwd, "getpwuid", lambda _: entry)
    return recorded.given


def test_by_sudo_the_caller_gets_a_copy_that_nobody_else_reads(
    host: Host,
    by_sudo: list[tuple[str, int, int]],
    sykube: Sykube,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # pytest's own folders are closed to other users.
    monkeypatch.setattr(kubeconfig, "_may_enter", lambda *_: True)
    copy = host.data / "lab/kubeconfig-1234"
    result = sykube("env", "--name", "lab")
    assert result.out.splitlines()[0] == f"set -gx KUBECONFIG {copy}"
    assert "sudo sykube env --name lab | source" in result.out
    assert copy.read_text() == "the kubeconfig\n"
    assert copy.stat().st_mode & 0o777 == 0o600
    assert by_sudo == [(str(copy), 1234, 99)]


def test_who_cannot_reach_the_folder_is_told_so(
    host: Host,
    by_sudo: list[tuple[str, int, int]],
    sykube: Sykube,
) -> None:
    (host.data / "lab").chmod(0o700)
    result = sykube("env", "--name", "lab")
    assert result.code == ExitCode.FAILED
    assert "closed to you" in result.err
    assert "sudo sykube config > FILE" in result.err
    assert result.out == ""
    assert by_sudo == []


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "ok"),
    [
        (0o711, 1, 1, True),
        (0o710, 1, 1, False),
        (0o710, 1, 0, True),
        (0o701, 1, 0, False),
        (0o100, 0, 1, True),
        (0o011, 0, 1, False),
    ],
)
def test_who_may_enter_a_folder(tmp_path: Path, mode: int, uid: int, gid: int, ok: bool) -> None:
    tmp_path.chmod(mode)
    found = tmp_path.stat()
    owner = Owner(found.st_uid + uid, found.st_gid + gid, tmp_path)
    assert kubeconfig._may_enter(tmp_path, owner) is ok
    tmp_path.chmod(0o700)


def test_with_a_copy_env_needs_no_root(
    recorded: World,
    sykube: Sykube,
) -> None:
    recorded.user = 1234
    result = sykube("env", "--name", "lab")
    assert result.out == ""
    copy = recorded.host.data / "lab/kubeconfig-1234"
    copy.write_text("the copy\n")
    assert sykube("env", "--name", "lab", "--shell", "bash").out.startswith(
        f"export KUBECONFIG={copy}\n"
    )


def test_copies_follow_when_credentials_are_renewed(world: World) -> None:
    cluster = init(world, fake_spec())
    assert cluster is not None
    copy = kubeconfig.copy_for(cluster.paths.kubeconfig, os.getuid())
    copy.write_text("of last year\n")
    user_kubeconfig.rewrite(cluster)
    assert copy.read_text() == cluster.paths.kubeconfig.read_text()
    assert copy.stat().st_mode & 0o777 == 0o600
    removal.delete(world.host, "fake", world.ui())
    assert not copy.exists()


def test_env_of_a_cluster_without_a_control_plane(
    recorded: World,
    sykube: Sykube,
) -> None:
    (recorded.host.data / "lab/kubeconfig").unlink()
    assert sykube("env", "--name", "lab").code == ExitCode.DEGRADED
    assert sykube("env", "--name", "absent").code == ExitCode.NO_SUCH_CLUSTER


# --- manual pages ---


def test_each_command_has_a_manual_page(sykube: Sykube, tmp_path: Path) -> None:
    result = sykube("man", "--dir", str(tmp_path / "man1"))
    assert (result.code, result.out) == (0, "")
    pages = {file.name for file in (tmp_path / "man1").iterdir()}
    assert {f"sykube-{name}.1" for name in COMMANDS} < pages
    assert {"sykube.1", "sykube-node-add.1", "sykube-snapshot-save.1"} < pages
    for file in (tmp_path / "man1").iterdir():
        text = file.read_text()
        assert text.isascii(), file
        for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS"):
            assert f"\n.SH {section}\n" in text, file


def test_a_page_has_every_option_and_exit_code() -> None:
    ctx = click.Context(main.cli, info_name="sykube")
    pages = dict(man.pages(ctx))
    command = main.cli.get_command(ctx, "init")
    assert command is not None
    for option in command.params:
        for name in option.opts:
            escaped = name.replace("-", r"\-")
            assert f"\\fB{escaped}\\fR" in pages["sykube-init"], name
    for code in ExitCode:
        assert f"\\fB{code.value}\\fR" in pages["sykube-init"]
    assert r"\fB\-h\fR" not in pages["sykube-kubectl"]
    assert "\nsykube\\-node\\-add \\- Add workers to a running" in pages["sykube-node-add"]
    assert "SYKUBE_CACHE_DIR" in pages["sykube"]
    assert CLUSTER_VARIABLE in pages["sykube"]


def test_what_a_page_says_is_no_request_of_roff() -> None:
    assert man._line(".so /etc/passwd") == r"\&.so /etc/passwd"
    assert man._line("'quoted'") == r"\&'quoted'"
    assert man._plain(r"a\b -- c… →") == r"a\eb \-\- c... \[u2192]"
    assert man._option("-o, --output [a|b]") == r"\fB\-o\fR, \fB\-\-output\fR [a|b]"
    lines = man._paragraphs("one\ntwo\n\n\b\nkept\n  as it is\n\nthree")
    assert lines == ["one", "two", ".PP", ".nf", "kept", "  as it is", ".fi", ".PP", "three"]


def test_pages_that_cannot_be_written_are_wrong_use(
    sykube: Sykube,
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    result = sykube("man", "--dir", str(tmp_path / "file"))
    assert result.code == ExitCode.USAGE
    assert "--dir" in result.err


# --- colours and spinners ---

QUIET = [["doctor"], ["list"], ["status"], ["version"], ["env", "--unset"], ["node", "list"]]
TALKING = [["stop"], ["start"], ["pause"], ["restart"]]
FAILING = [["status", "--name", "absent"], ["node", "delete", "node7"], ["unpause"]]
SGR = re.compile(r"\033\[[0-9;]*m")


@pytest.fixture
def small(world: World, sykube: Sykube) -> World:
    init(world, fake_spec("sykube"))
    return world


@pytest.mark.parametrize("arguments", [*QUIET, *TALKING, *FAILING], ids=" ".join)
def test_without_a_terminal_there_is_no_escape_sequence(
    small: World,
    sykube: Sykube,
    arguments: list[str],
) -> None:
    result = sykube(*arguments)
    assert "\033" not in result.out + result.err
    assert "\r" not in result.out + result.err


@pytest.mark.parametrize("arguments", [*QUIET, *TALKING, *FAILING], ids=" ".join)
@pytest.mark.parametrize("no_color", ["", "1"])
def test_on_a_terminal_only_what_is_said_is_coloured(
    small: World,
    sykube: Sykube,
    monkeypatch: pytest.MonkeyPatch,
    terminal: Terminal,
    arguments: list[str],
    no_color: str,
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    with contextlib.redirect_stderr(terminal.stream):
        result = sykube(*arguments)
    assert "\033" not in result.out, "results are for other programs"
    text = terminal.text()
    assert not (no_color and SGR.search(text))
    if arguments in FAILING and not no_color:
        assert "\033[1;31merror:\033[0m" in text


def leaves(ctx: click.Context) -> Iterator[click.Context]:
    """Every command that has none below it."""
    children = man._children(ctx)
    for child in children:
        yield from leaves(child)
    if not children:
        yield ctx


def test_every_command_can_be_quiet_and_verbose() -> None:
    """But for those that pass on all that follows them."""
    root = click.Context(main.cli, info_name="sykube")
    silent = {
        ctx.command_path
        for ctx in leaves(root)
        if not {"verbose", "quiet"} <= {str(each.name) for each in ctx.command.params}
    }
    assert silent == {"sykube kubectl", "sykube exec", "sykube completion"}


@pytest.mark.parametrize("arguments", TALKING, ids=" ".join)
def test_quiet_leaves_results_alone(
    small: World,
    sykube: Sykube,
    arguments: list[str],
) -> None:
    assert sykube(*arguments, "--quiet").err == ""


@pytest.mark.parametrize("arguments", [["list"], ["status"], ["node", "list"], ["stop"]])
def test_verbose_shows_what_is_run_also_by_commands_without_a_log(
    small: World,
    sykube: Sykube,
    arguments: list[str],
) -> None:
    def noted(_: Call) -> bool:
        logging.getLogger("sykube.run").debug("$ looked for clusters")
        return False

    small.calls.fail(noted)
    assert "$ looked for clusters" not in sykube(*arguments).err
    assert "  $ looked for clusters" in sykube(*arguments, "-v").err


def test_errors_are_whole_on_a_terminal_that_is_dumb(
    sykube: Sykube,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    result = sykube("status")
    assert result.err.startswith("error: there is no cluster")
