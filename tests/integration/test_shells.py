"""Completion in real shells, at a real terminal, and manual pages read by man itself."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

_REPOSITORY = Path(__file__).resolve().parents[2]
# On a machine that does other things, too, a shell takes its time; a test never asserts how long.
_TIMEOUT_S = 60
_START = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], ["source <(sykube completion bash)"]),
    "zsh": (
        ["zsh", "-f", "-i"],
        ["autoload -U compinit", "compinit -u -D", "bindkey -e", "source <(sykube completion zsh)"],
    ),
    "fish": (["fish", "--no-config", "-i"], ["sykube completion fish | source"]),
}
_HOME, _END, _TAB = "\x01", "\x05", "\t"


class Shell:
    """An interactive shell at a terminal, on a host that has two clusters and a snapshot."""

    def __init__(self, name: str, folder: Path) -> None:
        program, set_up = _START[name]
        (folder / "home").mkdir()
        environment = {
            "HOME": str(folder / "home"),
            "PATH": f"{folder}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "TERM": "xterm",
            "LANG": "C.UTF-8",
        }
        # Nobody else sees these clusters.
        mount = f'mount --bind {folder}/data /var/lib/sykube && cd {folder}/home && exec "$@"'
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            command = ["unshare", "--mount", "sh", "-c", mount, "sh", *program]
            os.execvpe(command[0], command, environment)
        self._seen = ""
        for line in [*set_up, "echo rea''dy"]:
            self.type(f"{line}\r")
        self.wait_for("ready\r")

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._terminal, text.encode())

    def wait_for(self, pattern: str) -> str:
        """The first thing from here on that the terminal shows and that matches."""
        deadline = time.monotonic() + _TIMEOUT_S
        while not (match := re.search(pattern, self._seen)):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._terminal], [], [], left)[0]:
                raise AssertionError(f"{pattern!r} did not come; there is: {self._seen!r}")
            text = os.read(self._terminal, 65536).decode(errors="replace")
            # "What are you?" Newer fish wait for the answer of a real terminal: a VT102.
            if re.search(r"\x1b\[0?c", text):
                self.type("\x1b[?6c")
            self._seen += text
        self._seen = self._seen[match.end() :]
        return match[0]

    def completed(self, line: str) -> str:
        """What a line becomes when TAB is pressed at its end."""
        # Around it, a command that only prints its words.
        self.type(f"{line}{_TAB}{_HOME}printf '<%s>' BE''GIN {_END} EN''D\r")
        found = self.wait_for(r"<BEGIN>(<[^>]*>)*<END>")
        return " ".join(re.findall("<([^>]*)>", found)[1:-1])

    def close(self) -> None:
        os.close(self._terminal)
        os.waitpid(self._pid, 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of two clusters and a snapshot, and the command sykube."""
    for name, nodes in (("lab", ["master", "node1", "node7"]), ("sykube", ["master", "worker9"])):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "state.json").write_text(json.dumps({"nodes": nodes}))
    (tmp_path / "data/snapshots/before-upgrade").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin/sykube"
    command.write_text(
        f'#!/bin/sh\nPYTHONPATH={_REPOSITORY} exec {sys.executable} -m sykube "$@"\n'
    )
    command.chmod(0o755)
    (tmp_path / "home-of-nobody.yaml").touch()
    return tmp_path


@pytest.fixture
def data_folder() -> Iterator[None]:
    """/var/lib/sykube, for something to be mounted on."""
    path = Path("/var/lib/sykube")
    there = path.exists()
    path.mkdir(parents=True, exist_ok=True)
    yield
    if not there:
        path.rmdir()


@pytest.mark.parametrize("name", sorted(_START))
def test_a_shell_completes_commands_options_and_names(
    name: str, folder: Path, data_folder: None
) -> None:
    assert shutil.which(name), f"{name} is not installed: scripts/test-packages"
    shell = Shell(name, folder)
    try:
        for typed, expected in (
            ("sykube unp", "sykube unpause"),
            ("sykube node del", "sykube node delete"),
            ("sykube status --na", "sykube status --name"),
            ("sykube status --name la", "sykube status --name lab"),
            ("sykube shell wor", "sykube shell worker9"),
            ("sykube exec --name lab node7", "sykube exec --name lab node7"),
            ("sykube exec --name lab m", "sykube exec --name lab master"),
            ("sykube snapshot restore be", "sykube snapshot restore before-upgrade"),
            ("sykube addons enable stor", "sykube addons enable storage"),
            ("sykube init --config ../home-of", "sykube init --config ../home-of-nobody.yaml"),
            (
                "sykube kubectl apply -f ../home-of",
                "sykube kubectl apply -f ../home-of-nobody.yaml",
            ),
        ):
            assert shell.completed(typed) == expected
    finally:
        shell.close()


@pytest.mark.parametrize("name", sorted(_START))
def test_a_shell_forgets_the_cluster_by_what_env_prints(name: str, folder: Path) -> None:
    program = [name, "-c"]
    use = {"fish": "{} | source"}.get(name, 'eval "$({})"')
    sykube = f"{folder}/bin/sykube env --shell {name}"
    forget = use.format(f"{sykube} --unset")
    script = f'{forget}; echo "<$KUBECONFIG>"'
    done = subprocess.run(
        [*program, script],
        env=os.environ | {"KUBECONFIG": "/before"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "<>\n"


def test_man_renders_every_page_without_a_warning(folder: Path) -> None:
    subprocess.run([folder / "bin/sykube", "man", "--dir", folder / "man1"], check=True)
    pages = sorted((folder / "man1").iterdir())
    assert len(pages) > 30
    for page in pages:
        done = subprocess.run(
            ["man", "--warnings", "-l", page],
            env=os.environ | {"LANG": "C.UTF-8", "MANPAGER": "cat", "PAGER": "cat"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == "", page
        assert "SYNOPSIS" in done.stdout
