"""Container images from files into the nodes, and a registry in the cluster."""

from __future__ import annotations

import base64
import json
import re
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sykube.errors import ExitCode
from sykube.host import apt, engines
from sykube.host.host import Host
from sykube.image.zstandard import zstd
from tests import containers
from tests.containers import Image
from tests.e2e import roots
from tests.e2e.cluster import TestCluster, eventually, host_before
from tests.e2e.registry import Registry
from tests.e2e.signer import Signer
from tests.hostdiff import leaks_since

NAME = "e2e-images"
# The mirror is on the bridge, which is not there before.
NODES, GATEWAY, MIRROR_PORT = "10.11.233.0/24", "10.11.233.1", 15000
LOGIN = "somebody:correct-horse-battery"
_SECTIONS = """
%environment
    export GREETING="hello from ${WHO:-a SIF}"

%runscript
    echo "$GREETING, $*"
    exec sleep 1000
"""


@pytest.fixture(scope="module")
def root() -> bytes:
    return containers.tar(roots.files())


def speaking(root: bytes, words: str) -> Image:
    """An image that says something of its second layer, then sleeps."""
    start = ["/bin/sh", "-c", "cat /words; exec sleep 1000"]
    layers = [root, containers.tar({"words": words.encode()})]
    return Image(layers, {"Entrypoint": start, "Env": ["PATH=/bin"]})


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    # The engine may not be there before.
    engines.find_or_create(Host(), lambda: apt.find_mirror(Host()), print)
    return Signer(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, signer: Signer) -> Iterator[TestCluster]:
    """Two nodes that know a mirror on their bridge and the password for it; SIFs must be signed."""
    made = TestCluster(NAME, tmp_path_factory.mktemp("images"), own=signer.environment)
    made.delete_quietly()
    made.before = host_before(NAME)
    auth = base64.b64encode(LOGIN.encode()).decode()
    logins = made.folder / "logins.json"
    logins.write_text(json.dumps({"auths": {f"{GATEWAY}:{MIRROR_PORT}": {"auth": auth}}}))
    made.init(
        *("--workers", "1", "--dns", "192.0.2.53", "--yes", "--node-subnet", NODES),
        *("--registry-mirror", f"registry.test=http://{GATEWAY}:{MIRROR_PORT}"),
        *("--registry-auth", str(logins), "--require-signed", signer.fingerprint),
    )
    yield made
    made.delete_quietly()


def load(cluster: TestCluster, *arguments: str | Path) -> list[dict[str, Any]]:
    words = [str(each) for each in arguments]
    done = cluster.sykube("image", "load", *words, "--name", NAME, "--output", "json")
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def listed(cluster: TestCluster) -> dict[str, dict[str, Any]]:
    done = cluster.sykube("image", "list", "--name", NAME, "--output", "json")
    return {each["image"]: each for each in json.loads(done.stdout)}


def run_pod(
    cluster: TestCluster, name: str, image: str, node: str, *, ready: bool = True, **spec: Any
) -> None:
    container = {"name": "it", "image": image, "imagePullPolicy": "Never"} | spec
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {
                "nodeName": f"{NAME}-{node}",
                "terminationGracePeriodSeconds": 0,
                "containers": [container],
            },
        }
    )
    if ready:
        cluster.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")


# --- images from files ---


def packed_archive(file: Path, image: Image, name: str) -> Path:
    """A docker archive that is compressed with zstd, and each of its layers, too."""
    files = containers.docker_files(image, name)
    files = {k: zstd.compress(v) if k.endswith("layer.tar") else v for k, v in files.items()}
    file.write_bytes(zstd.compress(containers.tar(files)))
    return file


@pytest.mark.parametrize("kind", ["docker-archive", "packed-archive", "oci-archive", "oci-layout"])
def test_an_image_of_a_file_runs_in_a_pod_of_each_node(
    kind: str, pictures: TestCluster, root: bytes, tmp_path: Path
) -> None:
    image, name = speaking(root, f"I am {kind}\n"), f"words:{kind}"
    makers: dict[str, Callable[[Path, Image, str], Path]] = {
        "docker-archive": containers.docker_archive,
        "packed-archive": packed_archive,
        "oci-archive": containers.oci_archive,
        "oci-layout": containers.oci_layout,
    }
    (found,) = load(pictures, makers[kind](tmp_path / "it", image, name))
    assert found["image"] == f"docker.io/library/{name}"
    assert found["id"] == image.id
    assert found["loaded"] == ["master", "node1"]
    for node in ("master", "node1"):
        run_pod(pictures, f"{kind}-{node}", name, node)
        assert pictures.kubectl("logs", f"{kind}-{node}") == f"I am {kind}\n"
    shown = listed(pictures)[f"docker.io/library/{name}"]
    assert (shown["id"], shown["nodes"]) == (image.id, ["master", "node1"])
    assert shown["bytes"] > len(root) / 10
    (again,) = load(pictures, tmp_path / "it")
    assert (again["loaded"], again["present"]) == ([], ["master", "node1"])


def test_nodes_share_one_copy_of_a_layer(pictures: TestCluster, root: bytes) -> None:
    name = containers.digest(root).removeprefix("sha256:")
    folder = Path("/var/lib/sykube") / NAME / "nodes"
    blobs = f"*/containerd/io.containerd.content.v1.content/blobs/sha256/{name}"
    assert len({file.stat().st_ino for file in folder.glob(blobs)}) == 1
    assert len([*folder.glob(blobs)]) == 2


def test_a_sif_runs_with_its_runscript_and_its_environment_once_it_is_signed(
    pictures: TestCluster, root: bytes, signer: Signer, tmp_path: Path
) -> None:
    file = tmp_path / "greeter_1.0.sif"
    roots.build(file, root, _SECTIONS)
    refused = pictures.sykube("image", "load", str(file), "--name", NAME, check=False)
    assert refused.returncode == ExitCode.UNTRUSTED
    assert f"{file} is not signed" in refused.stderr
    signer.sign(file)
    (found,) = load(pictures, file, "--node", "node1")
    assert found["image"] == "docker.io/library/greeter:1.0"
    assert found["loaded"] == ["node1"]
    run_pod(
        pictures, "greeter", "greeter:1.0", "node1",
        args=["you", "two"], env=[{"name": "WHO", "value": "a pod"}],
    )  # fmt: skip
    # Its own scripts make the environment anew, as in Apptainer.
    assert pictures.kubectl("logs", "greeter") == "hello from a pod, you two\n"
    assert "GREETING=hello from a pod" in pictures.in_pod("greeter", "env").splitlines()
    (again,) = load(pictures, file)
    assert (again["loaded"], again["present"]) == (["master"], ["node1"])
    (other,) = load(pictures, file, "--as", "team/greeter:2")
    assert other["image"] == "docker.io/team/greeter:2"


def test_a_sif_that_nobody_verified_runs_in_no_pod(pictures: TestCluster) -> None:
    (note,) = (Path("/var/lib/sykube") / NAME / "sifs").glob("*.json")
    whole = note.read_text(encoding="utf-8")
    note.write_text(json.dumps(json.loads(whole) | {"signers": []}), encoding="utf-8")
    field = "involvedObject.name=unverified"
    try:
        run_pod(pictures, "unverified", "greeter:1.0", "node1", ready=False)
        eventually(
            "an event says that it is not signed",
            lambda: "is not signed by a key that this cluster requires" in pictures.kubectl(
                "get", "events", "--field-selector", field, "-o", "yaml"
            ),
        )  # fmt: skip
    finally:
        pictures.kubectl("delete", "pod", "unverified", "--wait=false")
        note.write_text(whole, encoding="utf-8")


def test_an_image_is_removed_once_no_pod_uses_it(
    pictures: TestCluster, root: bytes, tmp_path: Path
) -> None:
    load(pictures, containers.docker_archive(tmp_path / "it", speaking(root, "x"), "going:1"))
    run_pod(pictures, "using", "going:1", "node1")
    delete = ("image", "delete", "going:1", "--name", NAME)
    refused = pictures.sykube(*delete, check=False)
    assert refused.returncode == ExitCode.FAILED
    assert "in use by 1 pod" in refused.stderr
    assert "default/using" in refused.stderr
    pictures.sykube(*delete, "--node", "master")
    assert listed(pictures)["docker.io/library/going:1"]["nodes"] == ["node1"]
    pictures.kubectl("delete", "pod", "using")
    pictures.sykube(*delete)
    assert "docker.io/library/going:1" not in listed(pictures)


def test_bad_input_is_one_clear_error_and_changes_nothing(
    pictures: TestCluster, root: bytes, tmp_path: Path
) -> None:
    whole = containers.docker_archive(tmp_path / "whole", speaking(root, "y"), "bad:1")
    cut, words = tmp_path / "cut", tmp_path / "words"
    cut.write_bytes(whole.read_bytes()[: -len(root)])
    words.write_text("words\n" * 1000)
    before = listed(pictures)
    pause = next(name for name in before if "/pause:" in name)
    for arguments, message in (
        (("load", str(words)), "is no container image"),
        (("load", str(cut)), "is damaged or cut off"),
        (("load", str(tmp_path / "nowhere")), "there is no file"),
        (("load", str(whole), "--node", "node9"), "there is no node 'node9'"),
        (("load", str(whole), "--as", "No Name"), "is no name of a container image"),
        (("delete", "nowhere:1"), "there is no image docker.io/library/nowhere:1"),
        (("delete", pause), "is part of the node image"),
    ):
        done = pictures.sykube("image", *arguments, "--name", NAME, check=False)
        assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
        assert message in done.stderr
        assert done.stderr.count("error:") == 1
    assert listed(pictures) == before


def answers(url: str) -> bool:
    try:
        fetch(url)
    except OSError:
        return False
    return True


# --- mirrors and passwords ---


def test_nodes_pull_from_a_mirror_with_its_password_which_nobody_sees(
    pictures: TestCluster, root: bytes
) -> None:
    image = speaking(root, "from a mirror\n")
    parts = {containers.digest(each): each for each in image.blobs.values()}
    mirror = ((GATEWAY, MIRROR_PORT), parts, image.manifest)
    with Registry(*mirror, login=LOGIN) as registry:
        name = "registry.test/words:1"
        run_pod(pictures, "mirrored", name, "node1", imagePullPolicy="Always")
        assert registry.refused > 0
    assert pictures.kubectl("logs", "mirrored") == "from a mirror\n"
    password = LOGIN.partition(":")[2].encode()
    secrets = (password, base64.b64encode(LOGIN.encode()))
    data = Path("/var/lib/sykube") / NAME
    for place in ("registry-auth.toml", f"nodes/{NAME}-node1/config/registry-auth.toml"):
        assert (data / place).stat().st_mode & 0o777 == 0o600
        assert password in (data / place).read_bytes()
    inside = ("exec", "--name", NAME, "node1", "stat", "-c", "%a", "/run/sykube/containerd.toml")
    assert pictures.sykube(*inside).stdout.strip() == "600"
    logs = [*Path("/var/log/sykube").glob(f"{NAME}.log*"), *data.glob("nodes/*/log/sykube/*")]
    assert len(logs) > 3
    for file in [*logs, data / "state.json"]:
        assert not any(secret in file.read_bytes() for secret in secrets), file


# --- a registry of its own ---


def fetch(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def registry(pictures: TestCluster) -> str:
    """Its address on the host."""
    done = pictures.sykube("addons", "enable", "registry", "--name", NAME, timeout=400)
    match = re.search(r"The registry is at (127\.0\.0\.1:\d+)", done.stderr)
    assert match
    return match[1]


def test_what_is_pushed_runs_on_every_node_and_on_one_that_joins(
    pictures: TestCluster, registry: str, root: bytes, tmp_path: Path
) -> None:
    words = containers.oci_archive(tmp_path / "it", speaking(root, "pushed\n"), "pushed:1")
    load(pictures, words, "--node", "master")
    in_master = ("exec", "--name", NAME, "master", "ctr", "images")
    pictures.sykube(*in_master, "tag", "docker.io/library/pushed:1", f"{registry}/team/words:1")
    push = ("push", "--hosts-dir", "/etc/sykube/certs.d", f"{registry}/team/words:1")
    pictures.sykube(*in_master, *push)
    assert fetch(f"http://{registry}/v2/_catalog") == {"repositories": ["team/words"]}
    for name in (f"{registry}/team/words:1", "pushed:1"):
        pictures.sykube("image", "delete", name, "--name", NAME)
    pictures.sykube("node", "add", "--name", NAME)
    # The SIFs' are all that a new node is given.
    loaded = listed(pictures)
    assert loaded["docker.io/library/greeter:1.0"]["nodes"] == ["master", "node1", "node2"]
    assert "node2" not in loaded["docker.io/library/words:oci-layout"]["nodes"]
    port = registry.rpartition(":")[2]
    for node, host in (
        ("master", registry),
        ("node1", f"localhost:{port}"),
        ("node2", "registry.kube-system.svc.cluster.local:5000"),
    ):
        name = f"{host}/team/words:1"
        run_pod(pictures, f"pulled-{node}", name, node, imagePullPolicy="Always")
        assert pictures.kubectl("logs", f"pulled-{node}") == "pushed\n"


def test_a_pod_reaches_it_by_its_name(pictures: TestCluster, registry: str) -> None:
    system = next(name for name in listed(pictures) if name.startswith("sykube.local/"))
    run_pod(pictures, "client", system, "node1", command=["sleep", "1000"])
    url = "http://registry.kube-system.svc.cluster.local:5000/v2/_catalog"
    assert json.loads(pictures.fetch("client", url)) == {"repositories": ["team/words"]}


# --- the end ---


def test_the_registrys_images_and_sifs_survive_stop_and_start(
    pictures: TestCluster, registry: str
) -> None:
    pictures.sykube("stop", "--name", NAME)
    done = pictures.sykube("image", "list", "--name", NAME, check=False)
    assert done.returncode == ExitCode.STOPPED
    pictures.sykube("start", "--name", NAME)
    catalog = f"http://{registry}/v2/_catalog"
    eventually("it answers", lambda: answers(catalog))
    assert fetch(catalog) == {"repositories": ["team/words"]}
    eventually(
        "the pod of a SIF runs again",
        lambda: pictures.kubectl("logs", "greeter", check=False) == "hello from a pod, you two\n",
    )


def test_switched_off_it_is_gone_and_on_again_it_has_its_images(
    pictures: TestCluster, registry: str
) -> None:
    catalog = f"http://{registry}/v2/_catalog"
    pictures.sykube("addons", "disable", "registry", "--name", NAME)
    assert not answers(catalog)
    pictures.sykube("addons", "enable", "registry", "--name", NAME, timeout=400)
    assert fetch(catalog) == {"repositories": ["team/words"]}


def test_nothing_of_it_is_left(pictures: TestCluster) -> None:
    pictures.sykube("delete", "--name", NAME, "--yes")
    assert pictures.before is not None
    assert [str(leak) for leak in leaks_since(pictures.before, 10)] == []
