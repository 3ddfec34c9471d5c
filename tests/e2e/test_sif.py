"""Pods of a SIF, which no node unpacks, under each runtime (docs/images.md, docs/runtimes.md)."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sykube.errors import ExitCode
from tests import containers, sifs
from tests.containers import Image
from tests.e2e import roots
from tests.e2e.cluster import TestCluster, eventually

RUNTIMES = ("runc", "crun", "apptainer")
NODES = ("master", "node1")
# So much that nobody would miss it on a node's disk.
BALLAST = 30_000_000
IMAGE = "docker.io/library/sif:e2e"
DERIVED = "docker.io/library/derived:e2e"
SECTIONS = """
%environment
    export GREETING="hello from ${WHO:-a SIF}"

%labels
    Maker me

%runscript
    echo "$GREETING, $*"
    exec sleep 100000
"""


@pytest.fixture(scope="module")
def sif(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("sif") / "it.sif"
    ballast = random.Random(1).randbytes(BALLAST)
    users = b"root:x:0:0::/:/bin/sh\nada:x:1234:4321::/:/bin/sh\n"
    root = roots.files() | {"ballast": ballast, "etc/passwd": users}
    roots.build(file, containers.tar(root), SECTIONS)
    return file


@pytest.fixture(scope="module")
def store(cluster: TestCluster) -> Path:
    return Path("/var/lib/sykube") / cluster.name / "sifs"


def load(cluster: TestCluster, file: Path, name: str, check: bool = True) -> Any:
    words = ("image", "load", str(file), "--name", cluster.name, "--as", name)
    return cluster.sykube(*words, "--output", "json", check=check)


def blocks(cluster: TestCluster) -> int:
    """Bytes that the nodes' containerd have on the disk."""
    folders = [f"/var/lib/sykube/{cluster.name}/nodes/{cluster.name}-{n}/containerd" for n in NODES]
    done = subprocess.run(
        ["du", "-s", "-x", "-B1", "-c", *folders], capture_output=True, text=True, check=True
    )
    return int(done.stdout.splitlines()[-1].split()[0])


def loops(file: str) -> int:
    """Loop devices of a file."""
    found = Path("/sys/block").glob("loop*/loop/backing_file")
    return sum(each.read_text(encoding="utf-8").strip().endswith(file) for each in found)


def pod(cluster: TestCluster, name: str, runtime: str, node: str, **container: Any) -> Any:
    container = {"name": "it", "image": IMAGE, "imagePullPolicy": "Never"} | container
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"of": "sif"}},
        "spec": {
            "nodeName": f"{cluster.name}-{node}",
            "runtimeClassName": runtime,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
        },
    }


def remove_pods(cluster: TestCluster) -> None:
    cluster.kubectl("delete", "pod", "-l", "of=sif", "--wait=true", timeout=180)


def said(cluster: TestCluster, name: str) -> str:
    """What events tell of a pod."""
    field = f"involvedObject.name={name}"
    found = cluster.get("events", "--field-selector", field)["items"]
    return "\n".join(each["message"] for each in found)


@pytest.fixture(scope="module")
def loaded(cluster: TestCluster, sif: Path, store: Path) -> Iterator[dict[str, Any]]:
    """The image, with pods of it; and bytes that it took in the nodes."""
    before = blocks(cluster)
    (found,) = json.loads(load(cluster, sif, IMAGE).stdout)
    own = {"args": ["you", "two"], "env": [{"name": "WHO", "value": "a pod"}]}
    pods = [pod(cluster, f"sif-{each}", each, "node1", **own) for each in RUNTIMES]
    pods.append(pod(cluster, "sif-master", "runc", "master", **own))
    for each in RUNTIMES:
        command = ["sh", "-c", "echo $GREETING; cat /proc/self/status"]
        user = {"runAsUser": 1234}
        pods.append(
            pod(cluster, f"sif-as-{each}", each, "node1", command=command, securityContext=user)
        )
    cluster.apply(*pods)
    waited = [f"pod/sif-{each}" for each in (*RUNTIMES, "master")]
    cluster.kubectl("wait", "--for=condition=Ready", *waited, "--timeout=120s", timeout=180)
    yield {**found, "grown": blocks(cluster) - before}
    remove_pods(cluster)
    cluster.sykube("image", "delete", IMAGE, "--name", cluster.name, check=False)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_its_runscript_and_environment_are_those_of_apptainer_run(
    runtime: str, cluster: TestCluster, loaded: dict[str, Any]
) -> None:
    assert loaded["loaded"] == [*NODES]
    name = f"sif-{runtime}"
    assert cluster.kubectl("logs", name) == "hello from a pod, you two\n"
    assert "GREETING=hello from a pod" in cluster.in_pod(name, "env").splitlines()
    written = cluster.in_pod(name, "sh", "-c", "echo new > /bin/cat.new && cat /bin/cat.new")
    assert written == "new\n"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_command_of_the_pods_own_has_its_environment_and_its_users_group(
    runtime: str, cluster: TestCluster, loaded: dict[str, Any]
) -> None:
    name = f"sif-as-{runtime}"
    eventually(f"{name} ends", lambda: cluster.get("pod", name)["status"]["phase"] == "Succeeded")
    log = cluster.kubectl("logs", name)
    assert log.startswith("hello from a SIF\n")
    assert "Gid:\t4321\t4321\t4321\t4321" in log.splitlines()


def test_it_is_on_the_disk_once_and_mounted_once(
    cluster: TestCluster, loaded: dict[str, Any], sif: Path, store: Path
) -> None:
    digest = hashlib.sha256(sif.read_bytes()).hexdigest()
    assert sorted(each.name for each in store.iterdir()) == [f"{digest}.json", f"{digest}.sif"]
    assert loaded["bytes"] > sif.stat().st_size > BALLAST
    assert loaded["grown"] < BALLAST / 10
    # Seven containers in two nodes.
    assert loops(f"{digest}.sif") == 1


def test_its_labels_are_the_images(cluster: TestCluster, loaded: dict[str, Any]) -> None:
    inside = ("exec", "--name", cluster.name, "node1", "ctr", "content", "get", loaded["id"])
    config = json.loads(cluster.sykube(*inside).stdout)["config"]
    assert config["Labels"]["Maker"] == "me"


def test_an_image_made_of_a_sifs_has_its_files_and_its_environment(
    cluster: TestCluster, loaded: dict[str, Any], store: Path, tmp_path: Path
) -> None:
    content = f"nodes/{cluster.name}-node1/containerd/io.containerd.content.v1.content/blobs/sha256"

    def blob(digest: str) -> bytes:
        return (store.parent / content / digest.removeprefix("sha256:")).read_bytes()

    (layer,) = json.loads(blob(loaded["digest"]))["layers"]
    layers = [blob(layer["digest"]), containers.tar({"etc/more": b"more\n"})]
    image = Image(layers, {"Entrypoint": ["/.singularity.d/actions/run"]})
    load(cluster, containers.docker_archive(tmp_path / "derived", image, DERIVED), DERIVED)
    command = ["sh", "-c", "cat /etc/more; echo $GREETING"]
    names = {each: f"derived-{each}" for each in RUNTIMES}
    made = {"image": DERIVED, "command": command}
    cluster.apply(*(pod(cluster, names[each], each, "node1", **made) for each in RUNTIMES))
    for name in names.values():
        eventually(
            f"{name} has both",
            lambda name=name: (
                cluster.kubectl("logs", name, check=False)  # type: ignore[misc]
                == "more\nhello from a SIF\n"
            ),
        )
    cluster.kubectl("delete", "pod", *names.values())
    cluster.sykube("image", "delete", DERIVED, "--name", cluster.name)
    assert len([*store.glob("*.sif")]) == 1


def test_a_sif_in_use_is_kept(cluster: TestCluster, loaded: dict[str, Any], store: Path) -> None:
    done = cluster.sykube("image", "delete", IMAGE, "--name", cluster.name, check=False)
    assert done.returncode == ExitCode.FAILED
    assert "in use by" in done.stderr
    assert len([*store.glob("*.sif")]) == 1


def test_bad_sifs_are_one_clear_error_each(
    cluster: TestCluster, loaded: dict[str, Any], sif: Path, store: Path, tmp_path: Path
) -> None:
    content = sif.read_bytes()
    bad = tmp_path / "bad.sif"
    # In the header, at 45, stands what machines it is for.
    for changed, message in (
        (content[:-5000], "is damaged or cut off"),
        (content[:45] + b"04\0" + content[48:], "is for arm64"),
        *((sifs.said_to_be(content, each), "is encrypted") for each in sifs.ENCRYPTED),
    ):
        bad.write_bytes(changed)
        done = load(cluster, bad, "bad:1", check=False)
        assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
        assert message in done.stderr
        assert done.stderr.count("error:") == 1
    assert len([*store.glob("*.sif")]) == 1


def test_an_image_that_brings_the_mark_of_a_sif_reaches_no_file(
    cluster: TestCluster, loaded: dict[str, Any], tmp_path: Path
) -> None:
    marks = {
        "marked-path": (b"../../../etc/passwd", "names no SIF"),
        "marked-digest": (b"0" * 64, "this cluster has it no longer"),
    }
    for name, (mark, _) in marks.items():
        image = Image([containers.tar({".sykube-sif": mark})], {"Entrypoint": ["/bin/sh"]})
        load(cluster, containers.docker_archive(tmp_path / name, image, f"{name}:1"), f"{name}:1")
    names = [(name, runtime) for name in marks for runtime in RUNTIMES]
    cluster.apply(*(pod(cluster, f"{n}-{r}", r, "node1", image=f"{n}:1") for n, r in names))
    for name, runtime in names:
        message = marks[name][1]
        eventually(
            f"an event of {name} under {runtime} says: {message}",
            lambda pod=f"{name}-{runtime}", message=message: message in said(cluster, pod),  # type: ignore[misc]
        )
    cluster.kubectl("delete", "pod", *(f"{name}-{runtime}" for name, runtime in names))
    for name in marks:
        cluster.sykube("image", "delete", f"{name}:1", "--name", cluster.name)


def test_a_sif_that_was_cut_on_the_host_fails_the_pod(
    cluster: TestCluster, loaded: dict[str, Any], store: Path
) -> None:
    """Last: nothing else runs of it any more."""
    remove_pods(cluster)
    (file,) = store.glob("*.sif")
    eventually("its loop device is free", lambda: loops(file.name) == 0)
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size - 5000)
    cluster.apply(*(pod(cluster, f"cut-{each}", each, "node1") for each in RUNTIMES))
    for each in RUNTIMES:
        eventually(
            f"an event of cut-{each} says it",
            lambda each=each: "it is cut off: it has" in said(cluster, f"cut-{each}"),  # type: ignore[misc]
        )
    remove_pods(cluster)
    cluster.sykube("image", "delete", IMAGE, "--name", cluster.name)
    assert [*store.iterdir()] == []
