"""What pods get of Apptainer's options, and of devices (docs/pod-options.md)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.device_plugin import Plugin
from tests.e2e.cluster import TestCluster, eventually

PREFIX = "apptainer.sykube.local/"
NODE = "node1"
RUNTIMES = ("runc", "crun", "apptainer")
# As a plugin of the vendor's, with another device of the node's: Linux' devices.txt has its number.
FUSE = "a:e5"
GPUS = Plugin(
    "nvidia.com/gpu",
    [f"gpu-{number}" for number in range(4)],
    {"/dev/nvidia0": "/dev/fuse"},
    {"/usr/local/driver/versions": "/usr/share/sykube/versions"},
    "NVIDIA_VISIBLE_DEVICES",
)
SECRET = "of the host, and of no pod\n"
# Pods that are refused: annotation, its value, class, and what their event says.
REFUSED = {
    "rocm": ("rocm", "true", "apptainer", "--rocm, which this cluster does not allow its pods"),
    "runc": ("nv", "true", "runc", "--nv, and this pod runs in runc"),
    "crun": ("bind", "/x", "crun", "--bind, and this pod runs in crun"),
    "word": ("nv", "please", "apptainer", "can be true or false"),
    "name": ("nvidia", "true", "apptainer", "is not known; there are: bind, fakeroot, nv, rocm"),
    "host": ("bind", "/:/host", "apptainer", "--bind /, which this cluster does not allow"),
    "etc": ("bind", "/etc", "apptainer", "--bind /etc, which this cluster does not allow"),
    "above": ("bind", "{site}/../secret:/x", "apptainer", "has .. in it"),
    "beside": ("bind", "{site}-other", "apptainer", "which this cluster does not allow"),
    "second": ("bind", "{site},/etc", "apptainer", "--bind /etc, which this cluster does not allow"),
    "lines": ("bind", "{site}\n:/x", "apptainer", "has a control character"),
    "link": ("bind", "{site}/link:/x", "apptainer", "no such file or directory"),
    "write": ("bind", "{site}:/x:rw", "apptainer", "--bind {site}:/x:rw, which this cluster"),
    "write-link": ("bind", "{site}/scratch/back:/x:rw", "apptainer", "bind={site}:rw would"),
    "proc": ("bind", "{site}:/proc/x", "apptainer", "nothing can be bound at /proc/x"),
    "root": ("fakeroot", "true", "apptainer", "set runAsUser"),
    "driver": ("nv", "true", "apptainer", "this node has no driver library of NVIDIA"),
}  # fmt: skip


def pod(
    cluster: TestCluster, name: str, script: str, runtime: str = "apptainer", **spec: Any
) -> dict[str, Any]:
    annotations = {PREFIX + key: value for key, value in spec.pop("annotations", {}).items()}
    container = {"name": "it", "image": cluster.image, "command": ["sh", "-c", script]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"of": "options"}, "annotations": annotations},
        "spec": {
            "nodeName": f"{cluster.name}-{NODE}",
            "runtimeClassName": runtime,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "containers": [container | spec.pop("container", {})],
            **spec,
        },
    }


def events(cluster: TestCluster, name: str) -> str:
    found = cluster.get("events", "--field-selector", f"involvedObject.name={name}")["items"]
    return "\n".join(each["message"] for each in found)


def ready(cluster: TestCluster, name: str) -> None:
    cluster.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=120s", timeout=180)


@pytest.fixture(scope="module")
def site(cluster: TestCluster) -> Path:
    """What pods may read; its folder scratch they may write in."""
    folder = cluster.site
    (folder.parent / "secret").write_text(SECRET, encoding="utf-8")
    Path(f"{folder}-other").mkdir(exist_ok=True)
    (folder / "lib").mkdir(exist_ok=True)
    (folder / "lib/libmpi.so").write_text("of the site\n", encoding="utf-8")
    for link, target in {
        "link": "../secret", "current": "lib", "scratch/back": f"{folder}/lib",
    }.items():  # fmt: skip
        (folder / link).unlink(missing_ok=True)
        (folder / link).symlink_to(target)
    return folder


@pytest.fixture(scope="module")
def pods(cluster: TestCluster, site: Path) -> Iterator[None]:
    """All of them at once."""
    stays = "exec sleep 100000"
    user = {"runAsUser": 1000, "runAsGroup": 2000, "fsGroup": 3000}
    volumes = [{"name": "ed", "emptyDir": {}}]
    mounted = {"volumeMounts": [{"name": "ed", "mountPath": "/ed"}]}
    binds = f"{site}/current/libmpi.so:/usr/lib/site/libmpi.so,{site}:/site,{site}/scratch:/s"
    made = [
        pod(cluster, "option-bind", stays, annotations={"bind": binds}),
        pod(cluster, "option-memory", stays, annotations={"writable-tmpfs": "true"}),
        pod(
            cluster, "option-fakeroot", stays, securityContext=user,
            annotations={"fakeroot": "true", "nv": "false"}, volumes=volumes, container=mounted,
        ),
    ]  # fmt: skip
    for name, (option, value, runtime, _) in REFUSED.items():
        asked = {option: value.format(site=site)}
        made.append(pod(cluster, f"refused-{name}", stays, runtime, annotations=asked))
    cluster.apply(*made)
    yield
    cluster.kubectl("delete", "pod", "-l", "of=options", "--wait=true", timeout=180)


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_pod_may_not_have_is_an_event_that_names_annotation_and_option(
    name: str, cluster: TestCluster, pods: None, site: Path
) -> None:
    wanted = REFUSED[name][3].format(site=site)
    eventually(
        f"an event of refused-{name} says: {wanted}",
        lambda: wanted in events(cluster, f"refused-{name}"),
    )
    said = events(cluster, f"refused-{name}")
    assert f"the annotation {PREFIX}{REFUSED[name][0]}" in said
    status = cluster.get("pod", f"refused-{name}")["status"]
    assert status["phase"] in ("Pending", "Failed")
    assert "running" not in status["containerStatuses"][0]["state"]


def test_what_the_site_has_is_bound_and_can_be_read(
    cluster: TestCluster, pods: None, site: Path
) -> None:
    ready(cluster, "option-bind")
    read = cluster.in_pod("option-bind", "cat", "/usr/lib/site/libmpi.so", "/site/lib/libmpi.so")
    assert read == 2 * "of the site\n"
    for file in ("/site/new", "/site/lib/libmpi.so", "/usr/lib/site/libmpi.so"):
        cluster.in_pod("option-bind", "sh", "-c", f"! echo x 2> /dev/null >> {file}")
    assert (site / "lib/libmpi.so").read_text(encoding="utf-8") == "of the site\n"
    # As the host has them, links lead nowhere from there.
    assert SECRET not in cluster.in_pod("option-bind", "sh", "-c", "cat /site/link; true")


def test_where_it_may_write_a_pod_writes_into_the_hosts_folder(
    cluster: TestCluster, pods: None, site: Path
) -> None:
    ready(cluster, "option-bind")
    cluster.in_pod("option-bind", "sh", "-c", "echo result > /s/result")
    assert (site / "scratch/result").read_text(encoding="utf-8") == "result\n"
    # What is mounted below a folder is no part of it.
    assert cluster.in_pod("option-bind", "ls", "-A", "/site/scratch").split() == ["back", "result"]


def test_with_writable_tmpfs_nothing_is_written_to_the_disk(
    cluster: TestCluster, pods: None
) -> None:
    ready(cluster, "option-memory")
    program = (
        "import errno\n"
        "open('/small', 'wb').write(bytes(32 << 20))\n"
        "try: open('/large', 'wb').write(bytes(48 << 20))\n"
        "except OSError as error: print(errno.errorcode[error.errno])\n"
        "print(any(' / ' in line and 'upperdir=/run/sykube/tmpfs-' in line "
        "for line in open('/proc/self/mounts')))\n"
    )
    said = cluster.in_pod("option-memory", "python3", "-c", program)
    assert said.split() == ["ENOSPC", "True"]


def test_with_fakeroot_a_user_is_root_over_what_is_its_own(
    cluster: TestCluster, pods: None
) -> None:
    ready(cluster, "option-fakeroot")
    for process in ("self", "1"):
        said = cluster.in_pod("option-fakeroot", "cat", f"/proc/{process}/uid_map")
        assert said.split() == ["0", "1000", "1"], process
    program = "id -u; id -g; echo x > /ed/mine && stat -c %u:%g /ed/mine; stat -c %u /etc/passwd"
    said = cluster.in_pod("option-fakeroot", "sh", "-c", program)
    assert said.split() == ["0", "0", "0:65534", "65534"]
    refused = "! echo x 2> /dev/null >> /etc/passwd && ! mount -t tmpfs x /mnt 2> /dev/null"
    cluster.in_pod("option-fakeroot", "sh", "-c", refused)
    program = "grep -E 'CapBnd|CapEff' /proc/1/status /proc/self/status"
    found = {line.split()[-1] for line in cluster.in_pod(
        "option-fakeroot", "sh", "-c", program).splitlines()}  # fmt: skip
    assert found == {"00000000a80425fb"}


# --- devices ---


@pytest.fixture(scope="module")
def gpus(cluster: TestCluster, pods: None) -> Iterator[None]:
    """A node with GPUs that a plugin hands out, with a library as `--options --nv` leaves it."""
    instance = f"{cluster.name}-{NODE}"
    folder = Path("/var/lib/sykube", cluster.name, "nodes", instance, "kubelet/device-plugins")
    libraries = "/.singularity.d/libs"
    inside = ("exec", "--name", cluster.name, NODE, "sh", "-c")
    make = f"mkdir -p {libraries} && echo driver > {libraries}/libcuda.so.1"
    stays, asked = "exec sleep 100000", {"limits": {GPUS.resource: "1"}}
    made = [
        pod(cluster, f"gpu-{each}", stays, each, container={"resources": asked})
        for each in RUNTIMES
    ]
    made.append(
        pod(
            cluster, "gpu-nv", stays, annotations={"nv": "true"}, container={"resources": asked}
        )
    )  # fmt: skip
    many = {"resources": {"limits": {GPUS.resource: "9"}}}
    made.append(pod(cluster, "gpu-many", stays, container=many, nodeName=""))
    with GPUS.running(folder):
        eventually(
            "the node has GPUs",
            lambda: (
                cluster.get("node", instance)["status"]["allocatable"].get(GPUS.resource) == "4"
            ),
        )
        try:
            cluster.sykube(*inside, make)
            cluster.apply(*made)
            yield
        finally:
            cluster.sykube(*inside, f"rm -f {libraries}/libcuda.so.1")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_a_device_plugin_hands_out_is_there(
    runtime: str, cluster: TestCluster, gpus: None
) -> None:
    name = f"gpu-{runtime}"
    ready(cluster, name)
    assert cluster.in_pod(name, "stat", "-c", "%t:%T", "/dev/nvidia0").strip() == FUSE
    cluster.in_pod(name, "sh", "-c", "exec 3<> /dev/nvidia0")
    assert cluster.in_pod(name, "printenv", "NVIDIA_VISIBLE_DEVICES").strip() in GPUS.devices
    assert "kubernetes=" in cluster.in_pod(name, "cat", "/usr/local/driver/versions")
    cluster.in_pod(name, "sh", "-c", "! echo x 2> /dev/null > /usr/local/driver/versions")


def test_a_pod_that_asks_for_none_cannot_open_it(cluster: TestCluster, gpus: None) -> None:
    ready(cluster, "option-memory")
    program = (
        "import os, stat\n"
        "os.mknod('/own', stat.S_IFCHR | 0o666, os.makedev(10, 229))\n"
        "try: os.open('/own', os.O_RDWR)\n"
        "except PermissionError: print('refused', os.path.exists('/dev/nvidia0'))\n"
    )
    said = cluster.in_pod("option-memory", "python3", "-c", program)
    assert said.split() == ["refused", "False"]


def test_with_nv_the_nodes_driver_is_there_beside_the_device_of_the_plugin(
    cluster: TestCluster, gpus: None
) -> None:
    ready(cluster, "gpu-nv")
    said = cluster.in_pod(
        "gpu-nv", "sh", "-c",
        "cat $LD_LIBRARY_PATH/libcuda.so.1; ls -d /dev/nvidia*; ! echo 2> /dev/null >> $LD_LIBRARY_PATH/libcuda.so.1",
    )  # fmt: skip
    assert said.split() == ["driver", "/dev/nvidia0"]


def test_of_more_than_there_is_an_event_says_so(cluster: TestCluster, gpus: None) -> None:
    eventually(
        "an event says that there are too few",
        lambda: f"Insufficient {GPUS.resource}" in events(cluster, "gpu-many"),
    )


def test_the_command_shows_what_pods_may_ask_for(cluster: TestCluster, site: Path) -> None:
    said = cluster.sykube("runtimes", "--name", cluster.name).stdout
    assert f"pods may ask for nv, writable-tmpfs, fakeroot, bind={site}," in said


def test_nothing_of_options_is_left(cluster: TestCluster, gpus: None) -> None:
    cluster.kubectl("delete", "pod", "-l", "of=options", "--wait=true", timeout=180)
    look = (
        "ls -d /run/sykube/tmpfs-* 2> /dev/null; grep -cE 'tmpfs-|sykube/binds' /proc/mounts; true"
    )
    eventually(
        "nothing is left",
        lambda: (
            cluster.sykube("exec", "--name", cluster.name, NODE, "sh", "-c", look).stdout == "0\n"
        ),
    )
