"""Bad input and an unfit host: one clear error, a distinct exit code, nothing changed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.cluster import host_before
from tests.hostdiff import leaks_since

pytestmark = pytest.mark.integration

NAME = "badinput"


@dataclass(frozen=True)
class Case:
    """Arguments of init, the exit code, and words of the error."""

    arguments: tuple[str, ...]
    code: int
    words: tuple[str, ...]


CASES = {
    "unknown option": Case(("--frobnicate",), 2, ("No such option", "--frobnicate")),
    "too few workers": Case(("--workers", "-1"), 2, ("from 0 to 240", "-1")),
    "too many workers": Case(("--workers", "1000"), 2, ("from 0 to 240", "1000")),
    "workers that are no number": Case(("--workers", "two"), 2, ("'two' is not a valid integer",)),
    "a name that is no DNS label": Case(("--name", "Not_One"), 2, ("Not_One", "DNS label")),
    "a resolver that is no address": Case(("--dns", "example"), 2, ("example", "IP address")),
    "a mirror that is no URL": Case(("--mirror", "here"), 2, ("'here'", "URL")),
    "an image that is no SIF": Case(("--local-image", "/etc/passwd"), 2, ("no SIF image",)),
    "an image that is not there": Case(("--local-image", "/nowhere"), 2, ("No such file",)),
    "a configuration that is not there": Case(("--config", "/nowhere"), 2, ("No such file",)),
    "a subnet that is not private": Case(("--node-subnet", "127.0.0.0/8"), 2, ("private",)),
}


def sykube(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sykube", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def init(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    name = () if "--name" in arguments else ("--name", NAME)
    return sykube("init", *name, *arguments, **environment)


@pytest.fixture
def unchanged() -> Iterator[None]:
    """The host is after the test as it was before."""
    before = host_before(NAME)
    yield
    leaks = leaks_since(before)
    assert not leaks, "\n".join(str(leak) for leak in leaks)


def check(done: subprocess.CompletedProcess[str], code: int, *words: str, errors: int = 1) -> None:
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.lower().count("error:") == errors
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("unchanged")
def test_bad_options(name: str) -> None:
    case = CASES[name]
    check(init(*case.arguments), case.code, *case.words)


@pytest.mark.usefixtures("unchanged")
def test_every_error_of_a_configuration_file_at_once(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("kind: Cluster\nwrokers: 3\nname: Not_One\nworkers: many\ndns: 10.0.0.53\n")
    done = init("--config", str(file))
    check(
        done,
        2,
        f"{file}:2: unknown key 'wrokers'; did you mean 'workers'?",
        f"{file}:4: workers must be a whole number",
        f"{file}:5: dns must be a list of texts",
    )


@pytest.fixture
def host_route() -> Iterator[str]:
    """A network that this host has a route to."""
    subprocess.run(["ip", "link", "add", "sykroute", "type", "bridge"], check=True)
    try:
        subprocess.run(["ip", "address", "add", "10.99.7.1/24", "dev", "sykroute"], check=True)
        subprocess.run(["ip", "link", "set", "sykroute", "up"], check=True)
        yield "10.99.7.0/24"
    finally:
        subprocess.run(["ip", "link", "delete", "sykroute"], check=True)


@pytest.mark.usefixtures("unchanged")
def test_a_subnet_of_the_host(host_route: str) -> None:
    check(init("--node-subnet", host_route), 6, "overlaps 10.99.7.0/24", "--node-subnet")
    check(init("--pod-subnet", "10.99.0.0/16"), 6, "overlaps 10.99.7.0/24", "--pod-subnet")


@pytest.mark.usefixtures("unchanged")
def test_a_foreign_processor() -> None:
    check(init(SYKUBE_TEST_MACHINE="riscv64"), 6, "riscv64", "x86-64 or arm64")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB, full."""
    disk, folder = tmp_path / "disk", tmp_path / "mounted"
    folder.mkdir()
    with disk.open("wb") as file:
        file.truncate(16_000_000)
    subprocess.run(["mkfs.ext4", "-q", disk], check=True)
    subprocess.run(["mount", "-o", "loop", disk, folder], check=True)
    try:
        with (folder / "filler").open("wb") as file:
            while True:
                file.write(b"x" * 65536)
    except OSError:
        pass
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_for_the_nodes(small_disk: Path) -> None:
    before = host_before(NAME, small_disk)
    check(init("--dest", str(small_disk)), 6, "MB free", "--dest")
    assert not leaks_since(before)


def test_a_full_disk_for_the_images(small_disk: Path) -> None:
    before = host_before(NAME, small_disk)
    check(init(SYKUBE_CACHE_DIR=str(small_disk)), 6, "MB free", "SYKUBE_CACHE_DIR")
    assert not leaks_since(before)


@pytest.mark.parametrize("command", ["delete", "status", "config"])
@pytest.mark.usefixtures("unchanged")
def test_a_cluster_that_is_not_there(command: str) -> None:
    check(sykube(command, "--name", "absent"), 5, "there is no cluster 'absent'")
