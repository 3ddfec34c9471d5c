"""The Vagrantfile's machine and `make cluster` are made by one script."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from sykube.errors import ExitCode

REPOSITORY = Path(__file__).resolve().parents[2]
PROVISION = REPOSITORY / "scripts/provision"
VAGRANTFILE = (REPOSITORY / "Vagrantfile").read_text()


def test_the_machine_and_make_cluster_run_the_same_script() -> None:
    assert os.access(PROVISION, os.X_OK)
    assert re.search(r'^ *config\.vm\.provision "cluster".*"/opt/sykube/scripts/provision"$',
                     VAGRANTFILE, re.MULTILINE)  # fmt: skip
    assert 'synced_folder ".", "/opt/sykube", type: "rsync"' in VAGRANTFILE
    rule = re.search(
        r"^cluster:.*\n((?:\t.*\n)+)", (REPOSITORY / "Makefile").read_text(), re.MULTILINE
    )
    assert rule
    assert rule[1] == "\tVENV=$(VENV) scripts/provision\n"


def test_the_tests_run_in_ci_and_when_asked_for() -> None:
    tests = VAGRANTFILE[VAGRANTFILE.index('provision "tests"') :]
    assert "make test" in tests
    assert 'run: ENV["CI"] ? "once" : "never"' in tests


@pytest.mark.parametrize("missing", [(), ("git", "make")], ids=["whole", "bare"])
def test_what_the_script_does(tmp_path: Path, missing: tuple[str, ...]) -> None:
    """With programs that only note how they were called."""
    checkout, programs = tmp_path / "checkout", tmp_path / "bin"
    (checkout / "scripts").mkdir(parents=True)
    programs.mkdir()
    (checkout / "pyproject.toml").touch()
    # A certificate store of this machine would be in the way of the test, or lack.
    script = PROVISION.read_text().replace("/etc/ssl/certs/ca-certificates.crt", str(tmp_path))
    script = script.replace("/usr/local/bin/sykube", str(tmp_path / "sykube"))
    (checkout / "scripts/provision").write_text(script)
    install = (PROVISION.parent / "install-packages").read_text()
    note = f'#!/bin/sh\necho "$(basename "$0") $*" >> {tmp_path}/calls\n'
    make_venv = note + f"mkdir -p $1/bin; cp {programs}/sykube $1/bin/sykube\n"
    for path, text in {
        **{programs / name: note for name in ("apt-get", "git", "make", "python3", "sykube")},
        checkout / "scripts/make-venv": make_venv,
        checkout / "scripts/install-packages": install.replace("$(id -u)", "0"),
    }.items():
        path.write_text(text)
        path.chmod(0o755)
    for name in missing:
        (programs / name).unlink()
    for name in ("sh", "basename", "dirname", "mkdir", "cp", "touch", "ln", "realpath", "env"):
        (programs / name).symlink_to(f"/usr/bin/{name}")

    def run(init: int = ExitCode.OK, code: int = ExitCode.OK) -> list[str]:
        (tmp_path / "calls").write_text("")
        if (sykube := checkout / "venv/bin/sykube").exists():
            sykube.write_text(f'{note}[ "$1" != init ] || exit {init}\n')
        environment = {"PATH": str(programs), "VENV": "venv"}
        words = ["/bin/sh", str(checkout / "scripts/provision")]
        assert subprocess.run(words, env=environment, cwd="/", check=False).returncode == code
        return (tmp_path / "calls").read_text().splitlines()

    installing = [
        "apt-get -q update",
        f"apt-get -q install -y --no-install-recommends {' '.join(missing)}",
    ]
    cluster = ["sykube init --yes", "sykube kubectl get nodes"]
    assert run() == [*(installing if missing else []), "make-venv venv .", *cluster]
    assert (tmp_path / "sykube").resolve() == checkout / "venv/bin/sykube"
    # The second time, what is there is not made again.
    assert run() == [*(installing if missing else []), *cluster]
    # After a reboot it is there, but does not run.
    start = [cluster[0], "sykube start", cluster[1]]
    assert run(init=ExitCode.STOPPED) == [*(installing if missing else []), *start]
    ended = run(init=ExitCode.HOST_NOT_READY, code=ExitCode.HOST_NOT_READY)
    assert ended == [*(installing if missing else []), cluster[0]]


def test_it_names_no_mirror_and_no_registry() -> None:
    for text in (VAGRANTFILE, PROVISION.read_text()):
        assert "://" not in text
