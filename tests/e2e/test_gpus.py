"""The device plugin of nodes with GPUs, with stand-ins of the host's GPUs and of the driver (docs/gpus.md)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cluster import TestCluster, eventually

NODE = "node1"
RUNTIMES = ("runc", "crun", "apptainer")
RESOURCE = "nvidia.com/gpu"
LIBRARIES = "/.singularity.d/libs"
NAMES = [f"GPU-{number}" for number in range(4)]
# As of the driver, of the node's own: any library can be loaded by another name.
STAND_INS = (
    f"mkdir -p {LIBRARIES} && cp /lib/*/libz.so.1 {LIBRARIES}/libcuda.so.1"
    f" && cp {LIBRARIES}/libcuda.so.1 {LIBRARIES}/libGL.so.1"
    " && printf '#!/bin/sh\\nls /dev/fuse\\n' > /usr/bin/nvidia-smi && chmod 755 /usr/bin/nvidia-smi"
)
PROGRAM = "/run/sykube/programs/gpu-plugin.conf"
# As node-init does it where sykube wrote a list.
START = f"cp /usr/share/sykube/gpu-plugin.conf {PROGRAM} && supervisorctl update"
STOP = (
    f"rm -f {PROGRAM} && supervisorctl update"
    f" && rm -f /usr/bin/nvidia-smi {LIBRARIES}/libcuda.so.1 {LIBRARIES}/libGL.so.1"
)
LOADED = (
    "import ctypes, ctypes.util, os\n"
    "print(ctypes.CDLL('libcuda.so.1').zlibVersion is not None)\n"
    "print(os.environ.get('LD_LIBRARY_PATH'), any('libGL.so' in line for line in open('/proc/self/mounts')))\n"
    "os.close(os.open('/dev/fuse', os.O_RDWR))\n"
)


def inside(cluster: TestCluster, script: str) -> str:
    return cluster.sykube("exec", "--name", cluster.name, NODE, "sh", "-c", script).stdout


def pod(cluster: TestCluster, name: str, runtime: str, count: int = 1) -> dict[str, Any]:
    container = {
        "name": "it",
        "image": cluster.image,
        "command": ["sleep", "100000"],
        "resources": {"limits": {RESOURCE: str(count)}},
        "securityContext": {"readOnlyRootFilesystem": True},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"of": "gpus"}},
        "spec": {
            "runtimeClassName": runtime,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "containers": [container],
        },
    }


def ready(cluster: TestCluster, name: str) -> None:
    cluster.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=120s", timeout=180)


def allocatable(cluster: TestCluster) -> str:
    node = cluster.get("node", f"{cluster.name}-{NODE}")
    return str(node["status"]["allocatable"].get(RESOURCE, "none"))


@pytest.fixture(scope="module")
def gpus(cluster: TestCluster) -> Iterator[None]:
    """A node that has four, as sykube would have written it, and a pod with one under each runtime."""
    instance = f"{cluster.name}-{NODE}"
    file = Path("/var/lib/sykube", cluster.name, "nodes", instance, "config/gpus")
    file.write_text(
        "".join(f"0000:0{number}:00.0 /dev/fuse {name}\n" for number, name in enumerate(NAMES)),
        encoding="utf-8",
    )
    inside(cluster, f"{STAND_INS} && {START}")
    try:
        eventually("the node has GPUs", lambda: allocatable(cluster) == "4")
        cluster.apply(*(pod(cluster, f"gpus-{each}", each) for each in RUNTIMES))
        yield
    finally:
        cluster.kubectl("delete", "pod", "-l", "of=gpus", "--wait=true", timeout=180)
        inside(cluster, STOP)
        file.write_text("", encoding="utf-8")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_pod_has_device_driver_and_program_whatever_runs_it(
    runtime: str, cluster: TestCluster, gpus: None
) -> None:
    name = f"gpus-{runtime}"
    ready(cluster, name)
    # Found without a variable, and nothing of what all makers of drivers share.
    assert cluster.in_pod(name, "python3", "-c", LOADED).split() == ["True", "None", "False"]
    assert cluster.in_pod(name, "nvidia-smi").strip() == "/dev/fuse"


def test_no_two_pods_have_the_same(cluster: TestCluster, gpus: None) -> None:
    for runtime in RUNTIMES:
        ready(cluster, f"gpus-{runtime}")
    found = [
        cluster.in_pod(f"gpus-{each}", "printenv", "NVIDIA_VISIBLE_DEVICES").strip()
        for each in RUNTIMES
    ]
    assert len({*found}) == 3
    assert {*found} <= {*NAMES}


def test_more_than_are_left_wait_with_an_event(cluster: TestCluster, gpus: None) -> None:
    cluster.apply(pod(cluster, "gpus-many", "runc", 2))

    def told() -> bool:
        found = cluster.get("events", "--field-selector", "involvedObject.name=gpus-many")["items"]
        return any(f"Insufficient {RESOURCE}" in each["message"] for each in found)

    eventually("an event says that there are too few", told)
    cluster.kubectl("delete", "pod", "gpus-many", "--wait=true", timeout=180)


def test_after_a_restart_of_the_kubelet_they_are_handed_out_as_before(
    cluster: TestCluster, gpus: None
) -> None:
    for runtime in RUNTIMES:
        ready(cluster, f"gpus-{runtime}")
    log = "grep -c 'the kubelet knows of 4 GPUs' /var/log/sykube/gpu-plugin.log"
    before = int(inside(cluster, log))
    inside(cluster, "supervisorctl restart kubelet")
    eventually("the plugin registered again", lambda: int(inside(cluster, log)) > before)
    eventually("the node has GPUs", lambda: allocatable(cluster) == "4")
    cluster.apply(pod(cluster, "gpus-after", "runc"))
    ready(cluster, "gpus-after")
    found = cluster.in_pod("gpus-after", "printenv", "NVIDIA_VISIBLE_DEVICES").strip()
    others = [
        cluster.in_pod(f"gpus-{each}", "printenv", "NVIDIA_VISIBLE_DEVICES").strip()
        for each in RUNTIMES
    ]
    assert {found, *others} == {*NAMES}


def test_a_host_without_gpus_is_told_before_anything_is_made(cluster: TestCluster) -> None:
    if Path("/proc/driver/nvidia/gpus").exists():
        pytest.skip("this host has GPUs")
    said = cluster.sykube("node", "add", "--name", cluster.name, "--gpus", "all", check=False)
    assert said.returncode == 6
    assert "this host has no GPU of NVIDIA that can be used" in said.stderr
    assert len(cluster.get("nodes")["items"]) == 2
