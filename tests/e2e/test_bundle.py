"""A cluster from a bundle on a machine without any network and with an empty cache."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sykube.errors import ExitCode
from sykube.host import engines
from sykube.host.host import Host
from tests.e2e.cluster import TestCluster, eventually
from tests.e2e.offline import Offline

NAME = "e2e-bundle"


@dataclass
class Air:
    """What was carried over the gap, and where to."""

    bundle: Path
    public_key: Path
    fingerprint: str
    machine: Offline
    cluster: TestCluster

    @property
    def cache(self) -> Path:
        return self.cluster.folder / "cache"

    def arguments(self, bundle: Path) -> list[str]:
        return [
            *("--local-image", str(bundle), "--public-key", str(self.public_key)),
            *("--workers", "0", "--dns", "192.0.2.53"),
        ]


@pytest.fixture(scope="module")
def air(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Air]:
    here, there = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("there")
    maker = TestCluster(NAME, here, own={"APPTAINER_KEYSDIR": str(here / "ring")})
    (here / "ring").mkdir(mode=0o700)
    # The image is there, or is built now, and with it the engine.
    maker.sykube("node-image", "build", "--yes", timeout=3000)
    found = engines.find(Host())
    assert found
    subprocess.run(
        [
            *(found.binary, "key", "newpair", "--bit-length", "2048", "--name", "Site"),
            *("--email", "site@example.org", "--comment", "", "--password", "", "--push=false"),
        ],
        env=maker.environment, check=True, timeout=120,
    )  # fmt: skip
    bundle, public = there / "sykube.sif", there / "site.asc"
    saved = maker.sykube("bundle", "save", str(bundle), "--export-key", str(public), "-o", "json")
    cache = there / "cache"
    cache.mkdir()
    # The administrator has installed an engine there.
    (cache / "apptainer").symlink_to(engines.private(Host()).root)
    machine = Offline(there)
    variables = {
        "SYKUBE_CACHE_DIR": str(cache),
        "SYKUBE_FINGERPRINT": json.loads(saved.stdout)["fingerprint"],
    }
    cluster = TestCluster(NAME, there, prefix=machine.prefix, own=variables)
    yield Air(bundle, public, variables["SYKUBE_FINGERPRINT"], machine, cluster)
    cluster.delete_quietly()
    machine.close()


def test_the_bundle_is_signed_by_the_key_that_was_told(air: Air) -> None:
    assert re.fullmatch("[0-9A-F]{40}", air.fingerprint)
    options = ("--public-key", str(air.public_key))
    assert air.cluster.sykube("node-image", "verify", str(air.bundle), *options).stdout


def test_a_tampered_bundle_is_refused_and_changes_nothing(air: Air) -> None:
    bad = air.bundle.with_name("bad.sif")
    subprocess.run(["cp", air.bundle, bad], check=True)
    try:
        with bad.open("r+b") as file:
            file.seek(bad.stat().st_size // 2)
            (byte,) = file.read(1)
            file.seek(-1, 1)
            file.write(bytes([byte ^ 1]))
        done = air.cluster.sykube("init", "--name", NAME, *air.arguments(bad), check=False)
    finally:
        bad.unlink()
    assert done.returncode == ExitCode.UNTRUSTED, done.stderr
    assert "was changed after it was signed" in done.stderr
    assert done.stderr.count("error:") == 1
    assert list((air.cache / "node-images").iterdir()) == []
    assert air.machine.output("sh", "-c", "ls /var/lib/sykube; ls /sys/class/net") == "lo\n"


def test_a_cluster_comes_up_from_the_bundle_and_nothing_else(air: Air) -> None:
    assert air.machine.output("ip", "route") == ""
    air.cluster.init(*air.arguments(air.bundle))
    (image,) = (air.cache / "node-images").iterdir()
    assert (image / "node.sif").read_bytes() == air.bundle.read_bytes()
    assert not (air.cache / "build").exists()
    (node,) = air.cluster.get("nodes")["items"]
    assert {"type": "Ready", "status": "True"}.items() <= node["status"]["conditions"][-1].items()
    air.cluster.sykube("status", "--name", NAME)


def test_pods_run_and_the_add_ons_are_there(air: Air) -> None:
    air.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "asker"},
            "spec": {
                "containers": [
                    {"name": "c", "image": air.cluster.image, "command": ["sleep", "3600"]}
                ]
            },
        }
    )
    eventually(
        "a pod runs", lambda: air.cluster.get("pod", "asker")["status"]["phase"] == "Running"
    )
    eventually("DNS answers", lambda: air.cluster.lookup("asker", "kubernetes.default"))
    air.cluster.sykube("addons", "enable", "--name", NAME, "metrics", timeout=200)


def test_deleting_leaves_the_machine_as_it_was(air: Air) -> None:
    air.cluster.sykube("delete", "--name", NAME, "--yes")
    assert air.machine.output("sh", "-c", "ls /sys/class/net; ip route") == "lo\n"
