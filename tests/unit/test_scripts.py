"""Scripts that run before there is a Python for sykube: which one they find, what they install."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
FIXTURES = Path(__file__).parent / "fixtures/os-release"


class Machine:
    """A machine of few programs, most of which only note how they were called."""

    def __init__(self, root: Path, name: str, manager: str) -> None:
        self.root = root
        self.bin = root / "bin"
        self.bin.mkdir()
        (root / "scripts").mkdir()
        for script in ("make-venv", "install-packages"):
            text = (SCRIPTS / script).read_text().replace("/etc/os-release", str(FIXTURES / name))
            self._write(root / "scripts" / script, text)
        for program in ("sh", "basename", "dirname", "cat", "chmod", "cp", "mkdir"):
            (self.bin / program).symlink_to(shutil.which(program) or f"/usr/bin/{program}")
        self.uid("0")
        note = f'#!/bin/sh\necho "{manager} $*" >> {root}/calls\n'
        # What it installs is there afterwards.
        bring = f'for each in "$@"; do [ ! -e {root}/$each ] || cp {root}/$each {self.bin}/; done\n'
        if manager:
            self._write(self.bin / manager, note + bring)

    def uid(self, number: str) -> None:
        self._write(self.bin / "id", f"#!/bin/sh\necho {number}\n")

    def python(
        self, version: str, name: str = "python3", *, venv: bool = True, there: bool = True
    ) -> None:
        """A Python; not `there` before it is installed."""
        new = int(version.split(".")[1]) >= 11
        text = f"""#!/bin/sh
case "$1 $2" in
    "-c import sys"*) exit {0 if new else 1} ;;
    "-c import ensurepip"*) [ -e {self.bin}/{name}-venv ] || exit {0 if venv else 1} ;;
    "-m venv") mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; echo "venv by {name}" >> {self.root}/calls ;;
    --version*) echo "Python {version}" ;;
    "-m pip") echo "pip install of $7" >> {self.root}/calls ;;
    "-m compileall") echo "compiled $(cd "$4" && pwd)" >> {self.root}/calls ;;
esac
"""
        self._write((self.bin if there else self.root) / name, text)

    def package(self, name: str) -> None:
        self._write(self.root / name, "#!/bin/sh\n")

    def make_venv(self, **environment: str) -> subprocess.CompletedProcess[str]:
        (self.root / "calls").write_text("")
        return subprocess.run(
            ["/bin/sh", self.root / "scripts/make-venv", self.root / "venv", "."],
            env={"PATH": str(self.bin), **environment},
            capture_output=True,
            text=True,
            cwd=self.root,
        )

    @property
    def calls(self) -> list[str]:
        return (self.root / "calls").read_text().splitlines()

    @staticmethod
    def _write(path: Path, text: str) -> None:
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)


INSTALL = "apt-get -q install -y --no-install-recommends"
MADE = "pip install of ."


def test_a_python_that_is_new_enough(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "debian-12", "apt-get")
    machine.python("3.11.2")
    done = machine.make_venv()
    assert done.returncode == 0, done.stderr
    assert machine.calls == ["venv by python3", MADE]


def test_a_checkout_is_compiled_once(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "debian-12", "apt-get")
    machine.python("3.11.2")
    (tmp_path / "sykube").mkdir()
    assert machine.make_venv().returncode == 0
    assert machine.calls == ["venv by python3", MADE, f"compiled {tmp_path}/sykube"]


def test_debian_keeps_venv_in_a_package_of_its_own(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "debian-13", "apt-get")
    machine.python("3.13.5", venv=False)
    machine.package("python3-venv")
    assert machine.make_venv().returncode == 0
    assert machine.calls == [
        "apt-get -q update", f"{INSTALL} python3-venv", "venv by python3", MADE,
    ]  # fmt: skip


def test_a_later_python_beside_an_old_one_is_found(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "rocky-9", "dnf")
    machine.python("3.9.21")
    machine.python("3.12.11", "python3.12")
    assert machine.make_venv().returncode == 0
    assert machine.calls == ["venv by python3.12", MADE]


@pytest.mark.parametrize(
    ("name", "manager", "old", "installed"),
    [
        ("ubuntu-22.04", "apt-get", "3.10.12", ["apt-get -q update", f"{INSTALL} python3.11 python3.11-venv"]),
        ("rocky-9", "dnf", "3.9.21", ["dnf -q -y --setopt=install_weak_deps=False install python3.11"]),
        ("rhel-9", "dnf", "3.9.21", ["dnf -q -y --setopt=install_weak_deps=False install python3.11"]),
    ],
)  # fmt: skip
def test_a_later_python_is_installed_where_the_distribution_has_one(
    tmp_path: Path, name: str, manager: str, old: str, installed: list[str]
) -> None:
    machine = Machine(tmp_path, name, manager)
    machine.python(old)
    machine.python("3.11.0", "python3.11", there=False)
    done = machine.make_venv()
    assert done.returncode == 0, done.stderr
    assert machine.calls == [*installed, "venv by python3.11", MADE]


@pytest.mark.parametrize(
    ("name", "environment"),
    [("debian-12", {}), ("arch", {}), ("ubuntu-22.04", {"PYTHON": "python3"})],
)
def test_where_none_is_known_it_is_said_what_to_do(
    tmp_path: Path, name: str, environment: dict[str, str]
) -> None:
    machine = Machine(tmp_path, name, "apt-get")
    machine.python("3.9.2")
    done = machine.make_venv(**environment)
    assert done.returncode == 6
    assert "Python 3.11 or later; python3 is Python 3.9.2" in done.stderr
    assert "PYTHON=/" in done.stderr
    assert machine.calls == []


@pytest.mark.parametrize(
    ("uid", "manager", "said"), [("1000", "apt-get", "As root: "), ("0", "", "neither")]
)
def test_what_cannot_be_installed_is_named(
    tmp_path: Path, uid: str, manager: str, said: str
) -> None:
    machine = Machine(tmp_path, "debian-13", manager)
    machine.uid(uid)
    machine.python("3.13.5", venv=False)
    done = machine.make_venv()
    assert done.returncode == 6
    assert said in done.stderr
    assert "python3-venv" in done.stderr
    assert machine.calls == []


def test_they_can_be_run() -> None:
    assert all(os.access(script, os.X_OK) for script in SCRIPTS.iterdir())


def test_each_program_in_python_is_type_checked() -> None:
    """Also one whose name does not end in .py, which mypy does not find by itself."""
    root = SCRIPTS.parent
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["mypy"]
    checked = [root / each for each in settings["files"]]
    folders = [each for each in root.iterdir() if each.is_dir() and not each.name.startswith(".")]
    unchecked = [
        str(file.relative_to(root))
        for folder in folders
        for file in folder.rglob("*")
        if file.is_file() and file not in checked
        if file.suffix != ".py" or not any(each in file.parents for each in checked)
        if file.suffix == ".py" or re.match(rb"#!.*python", file.read_bytes())
    ]
    assert settings["strict"]
    assert unchecked == []


def test_each_script_of_nodes_is_called_by_its_name() -> None:
    """One that nothing calls is dead, and a name that is no file would fail in a cluster."""
    root = SCRIPTS.parent
    called = {
        name
        for file in (root / "sykube").rglob("*.py")
        for name in re.findall(
            r'resources\.script\(\s*"([^"]+)"|"scripts/([^"]+)"', file.read_text(encoding="utf-8")
        )
        for name in name
        if name
    }
    there = {file.name for file in (root / "definitions/scripts").iterdir()}
    assert called == there


@pytest.mark.parametrize("text", ["#!/bin/sh\necho $1\n", "#!/bin/bash\nif\n"])
def test_shell_with_a_mistake_in_it_is_refused(tmp_path: Path, text: str) -> None:
    """In any folder, whatever the file is called."""
    shellcheck = Path(sys.executable).with_name("shellcheck")
    if not shellcheck.exists():
        pytest.skip("there is no shellcheck for this processor on PyPI")
    checker = tmp_path / "scripts/check-shell"
    checker.parent.mkdir()
    shutil.copy(SCRIPTS / "check-shell", checker)
    for folder in (".ci", "definitions/scripts", "tests/vm"):
        (tmp_path / folder).mkdir(parents=True)
    run = [checker, shellcheck]
    assert subprocess.run(run, capture_output=True, check=False).returncode == 0
    (tmp_path / "tests/vm/driver").write_text(text, encoding="utf-8")
    found = subprocess.run(run, capture_output=True, text=True, check=False)
    assert found.returncode != 0
    assert "tests/vm/driver" in found.stdout


def test_where_there_is_no_shellcheck_it_is_said(tmp_path: Path) -> None:
    done = subprocess.run(
        [SCRIPTS / "check-shell", tmp_path / "shellcheck"],
        env={"PATH": "/nowhere"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert "shell is not checked" in done.stderr
