"""Text is UTF-8, whatever the locale of who calls sykube."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.fakes.kubeconfig import admin_kubeconfig

ROOT = Path(__file__).parents[2]
NAME = "Jürgen Müller – 名前"
# Where the mode is among the arguments of what opens a file.
MODE_AT = {"open": 1, "os.fdopen": 1, "tempfile.NamedTemporaryFile": 0}


def opens_text(call: ast.Call) -> bool:
    """Whether a call opens a file as text without saying how it is encoded.

    Ruff's rule (PLW1514) knows of a Path only where it sees how it was made.
    """
    what = ast.unparse(call.func)
    given = {each.arg: each.value for each in call.keywords}
    method = what.rpartition(".")[2]
    if "encoding" in given or what.startswith(("tarfile.", "gzip.", "zipfile.")):
        return False
    if method in ("read_text", "write_text"):
        return True
    if what == "os.open" or (what not in MODE_AT and method != "open"):
        return False
    at = MODE_AT.get(what, 0)
    mode = given.get("mode", call.args[at] if len(call.args) > at else None)
    if not isinstance(mode, ast.Constant):
        # Without a mode: a file's is text; others have an open() of their own.
        return what == "open"
    return "b" not in str(mode.value)


def programs() -> list[Path]:
    return sorted(each for each in (ROOT / "sykube").rglob("*.py") if "data" not in each.parts)


def test_every_text_file_of_sykube_is_opened_as_utf_8() -> None:
    calls = [
        (f"{file.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}", node)
        for file in programs()
        for node in ast.walk(ast.parse(file.read_bytes()))
        if isinstance(node, ast.Call)
    ]
    assert len(calls) > 5000, "the walk finds the calls"
    assert [place for place, call in calls if opens_text(call)] == []


@pytest.mark.parametrize(
    "text",
    [
        "path.read_text()",
        'folder().read_text(errors="replace")',
        "path.write_text(text)",
        'open("x")',
        'os.fdopen(3, "w")',
        'path.open("a")',
        'path.open(mode="r+")',
        'tempfile.NamedTemporaryFile("w")',
    ],
)
def test_the_rule_finds_what_it_looks_for(text: str) -> None:
    call = ast.parse(text, mode="eval").body
    assert isinstance(call, ast.Call)
    assert opens_text(call)


def in_ascii(program: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run a program in a locale that knows ASCII alone."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LC_")}
    env = kept | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    code = f"import locale; assert locale.getpreferredencoding() != 'UTF-8'\n{program}"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], env=env, cwd=ROOT, capture_output=True
    )


def test_other_peoples_names_in_a_kubeconfig_stay_what_they_are(tmp_path: Path) -> None:
    file, admin = tmp_path / "config", tmp_path / "admin"
    file.write_text(
        f"kind: Config\nusers:\n- name: me\n  user: {{username: {NAME}, password: Übung}}\n",
        encoding="utf-8",
    )
    admin.write_text(admin_kubeconfig("https://10.11.11.254:6443"), encoding="utf-8")
    program = """
import sys
from pathlib import Path
from sykube.host.host import Host
from sykube.host.owner import Owner
from sykube.kubernetes import kubeconfig
owner = Owner.of_caller()
kubeconfig.merge(Host(), Path(sys.argv[1]), Path(sys.argv[2]).read_text(), "lab", owner)
"""
    done = in_ascii(program, str(file), str(admin))
    assert done.returncode == 0, done.stderr.decode(errors="replace")

    users = yaml.safe_load(file.read_bytes())["users"]
    assert users[0] == {"name": "me", "user": {"username": NAME, "password": "Übung"}}


@pytest.mark.parametrize("streamed", [False, True])
def test_what_a_program_says_is_read_as_utf_8(streamed: bool, tmp_path: Path) -> None:
    said = tmp_path / "said"
    said.write_bytes(f"{NAME}\n".encode() + b"\xff\n")
    program = f"""
import sys
from sykube.host.run import run
lines = []
words = ["cat", sys.argv[1], "-"]
done = run(words, stdin="\\u00fc\\n", on_line=lines.append if {streamed} else None)
sys.stdout.buffer.write(done.stdout.encode())
"""
    done = in_ascii(program, str(said))
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert done.stdout.decode() == f"{NAME}\n\ufffd\nü\n"
