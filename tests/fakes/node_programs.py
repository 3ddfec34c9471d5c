"""Programs of nodes, kubeadm above all."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sykube import documents, resources
from sykube.image import sif_store
from tests.fakes.answers import Answer
from tests.fakes.apiserver import (
    CONFIG_MAPS,
    CONTROL_PLANE_LABEL,
    COREFILE,
    KUBEADM_CONFIG,
    NODES,
    Kubernetes,
    member_id,
)
from tests.fakes.files import fill
from tests.fakes.instance import KUBELET_CONF, PKI, SHARED_KEYS, FakeInstance
from tests.fakes.kubeconfig import admin_kubeconfig

if TYPE_CHECKING:
    from tests.fakes.world import World


_SCRIPTS = resources.folder("definitions") / "scripts"
CA = f"{PKI}/ca.crt"
_STDIN = "/dev/stdin"
# What lets the kubelet of a worker start.
KUBELET_START = ("kubeadm", "init", "phase", "kubelet-start")
KUBELET_CERTIFICATE = "/var/lib/kubelet/pki/kubelet-client-current.pem"


_COREFILE = """.:53 {
    errors
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30
}
"""


# What Node.write runs.
_WRITE = re.compile(
    r"umask 077 && cat > (\S+)\.new && chmod (\d{4}) \1\.new && mv \1\.new (?P<path>\1)"
)
_UPGRADE = 'PATH=$PATH:/etc/sykube/update exec /etc/sykube/update/kubeadm upgrade "$@"'


def words_of(argv: list[str]) -> list[str]:
    """A command without the text of the script that it runs: `sh`, its name, its arguments.

    Raises:
        AssertionError: the script is none that sykube has.
    """
    match argv:
        case ["sh", "-c", text, name, *arguments]:
            file = _SCRIPTS / name
            known = file.read_text(encoding="utf-8") if file.is_file() else _UPGRADE
            assert text == known, f"the fake node does not know the script {name!r}: {text}"
            return ["sh", name, *arguments]
    return argv


@dataclass
class NodePrograms:
    """What runs in the nodes of a world.

    Attributes:
        first: asked before all else: a node's name, the command as `words_of` shows it, and its
            standard input; None leaves the answer to the node.
    """

    world: World
    first: Callable[[str, list[str], str | None], Answer | None] = lambda *_: None

    def run(self, name: str, instance: FakeInstance, argv: list[str], stdin: str | None) -> Answer:
        """Run a command in an instance."""
        if _STDIN not in argv:
            return self._run(name, instance, argv, stdin)
        with instance.reading:
            instance.files[_STDIN] = stdin or ""
            try:
                return self._run(name, instance, argv, stdin)
            finally:
                instance.files.pop(_STDIN)

    def _run(self, name: str, instance: FakeInstance, argv: list[str], stdin: str | None) -> Answer:
        words = words_of(argv)
        answer = self.first(name, words, stdin)
        if answer is not None:
            return answer
        match words:
            case ["sh", "-c", script] if written := _WRITE.fullmatch(script):
                instance.files[written["path"]] = stdin or ""
            case ["sh", "check-node" | "check-network", _]:
                pass
            case ["test", "-e", *paths]:
                there = any(
                    f"{file}/".startswith(f"{path}/") for file in instance.files for path in paths
                )
                return int(not there), "", ""
            case ["cat", "/sys/class/net/eth0/iflink"]:
                there = instance.link in self.world.kernel.links
                return 0, f"{instance.index}\n" if there else "", ""
            case ["cat", path]:
                if path not in instance.files:
                    return 1, "", f"cat: {path}: No such file or directory"
                return 0, instance.files[path], ""
            case ["rm", "-rf", *paths]:
                for path in paths:
                    instance.files.pop(path, None)
            case ["kubeadm", "init", "--config", path, "--skip-token-print", *options]:
                _check_options(options, "--skip-phases", "--experimental-patches")
                skipped = options[options.index("--skip-phases") + 1].split(",")
                self._keep_configuration(name, instance, argv, path)
                return self._kubeadm_init(name, instance, path, skipped)
            case ["kubeadm", "init", "phase", "addon", "coredns", "--config", path]:
                self._keep_configuration(name, instance, argv, path)
                deployments = "/apis/apps/v1/namespaces/kube-system/deployments"
                objects = self.world.etcd_of(name).objects
                containers = [{"name": "coredns", "image": "registry.example/coredns:v1"}]
                objects[f"{deployments}/coredns"] = {
                    "spec": {"template": {"spec": {"containers": containers}}}
                }
                objects[COREFILE] = {"data": {"Corefile": _COREFILE}}
            case ["kubeadm", "init", "phase", "upload-config", "kubeadm", "--config", path]:
                self._keep_configuration(name, instance, argv, path)
                cluster = _documents(instance, path)["ClusterConfiguration"]
                self._keep(name, "kubeadm-config", "ClusterConfiguration", cluster)
            case ["kubeadm", "init", "phase", "kubeconfig", user, "--config", path]:
                self._keep_configuration(name, instance, argv, path)
                return self._write_kubeconfig(instance, user, path)
            case ["kubeadm", "init", "phase", "kubelet-start", "--config", path]:
                self._keep_configuration(name, instance, argv, path)
                return self._kubelet_start(name, instance, path)
            case ["sh", "export-keys"]:
                return 0, json.dumps({key: instance.files[key] for key in SHARED_KEYS}), ""
            case ["sh", "import-keys"]:
                instance.files |= json.loads(stdin or "")
            case ["sh", "serving-certificate", folder]:
                instance.files[f"{folder}/tls.crt"] = "signs itself"
            case ["sh", "request-certificate", node]:
                return 0, f"request of {node}", ""
            case ["sh", "sign-certificate"]:
                return 0, f"{instance.files[CA]} signed the {stdin}", ""
            case ["sh", "install-certificate"]:
                instance.files[KUBELET_CERTIFICATE] = stdin or ""
            case ["sh", "install-kubeconfig"]:
                (cluster,) = documents.load(stdin or "")["clusters"]
                authority = cluster["cluster"]["certificate-authority-data"]
                instance.files[CA] = base64.b64decode(authority).decode()
                instance.files[KUBELET_CONF] = stdin or ""
            case ["/usr/lib/sykube/node-network"]:
                instance.lay_network()
            case ["sh", "stop-containers", "pods" | "rest", _]:
                pass
            case ["nft", "list", "tables"]:
                return (0, "", "") if instance.has_nftables else (1, "", "Protocol not supported")
            case ["nft", "-f", "-"]:
                assert instance.has_nftables
                instance.nft.append(stdin or "")
            case ["mkdir", "-p", *_]:
                pass
            case ["etcdctl", *options, "member", "list"] if "--endpoints" in options:
                return 0, self.world.etcd_of(name).listed(), ""
            case ["etcdctl", *options, "member", "remove", member] if "--endpoints" in options:
                members = self.world.etcd_of(name).members
                members.pop(next(each for each in members if member_id(each) == member))
            case ["etcdctl", *options, "member", "add", new, peers] if "--endpoints" in options:
                address = peers.removeprefix("--peer-urls=https://").removesuffix(":2380")
                members = self.world.etcd_of(name).members
                if address in members.values():
                    return 1, "", "etcdserver: Peer URLs already exists"
                members[new] = address
            case ["ctr", "images", "list"]:
                rows = [f"{name} type {digest} 1 B -" for name, digest in instance.images.items()]
                return 0, "\n".join(["REF TYPE DIGEST SIZE", *rows]), ""
            case ["ctr", "images", "rm", "--sync", *names]:
                instance.images = {k: v for k, v in instance.images.items() if k not in names}
            case ["/usr/lib/sykube/apptainer/runtime", "sif", digest]:
                sif = instance.on_host(f"{sif_store.PLACE}/{digest}.sif")
                if self.world.sif_told is None or sif is None or not sif.exists():
                    return 1, "", "it cannot be mounted"
                return 0, json.dumps(self.world.sif_told), ""
            case ["sh", "load-image", folder, id_, image]:
                instance.import_image(folder, id_, image)
            case ["sh", "detach-content", *parts]:
                for part in parts:
                    text = instance.part(part).read_bytes()
                    (instance.content / part).unlink()
                    (instance.content / part).write_bytes(text)
            case ["sh", "read-content", *parts]:
                found = [part for part in parts if instance.part(part).exists()]
                texts = {part: instance.part(part).read_text() for part in found}
                return 0, "".join(f"{part}\n{text}\n" for part, text in texts.items()), ""
            case ["sh", "kubeadm-upgrade", *arguments]:
                return self._kubeadm_upgrade(name, instance, arguments)
            case ["etcdctl", *options, "snapshot", "save", path] if "--endpoints" in options:
                file = instance.on_host(path)
                assert file is not None
                file.write_text(json.dumps(self.world.etcd_of(name).objects))
            case ["supervisorctl", "restart", "kubelet"]:
                pass
            case _:
                raise AssertionError(f"the fake node does not know: {argv}")
        return 0, "", ""

    def half(self, name: str, argv: list[str]) -> None:
        """What kubeadm leaves in a node when it fails in the middle."""
        instance = self.world.instances.get(name)
        if instance and "kubeadm-upgrade" in argv and instance.has_control_plane:
            fill(instance.manifests, {"kube-controller-manager.yaml": "an image that is nowhere"})
        if tuple(argv[:4]) == KUBELET_START:
            return
        if instance and argv[:2] == ["kubeadm", "init"]:
            instance.files[f"{PKI}/ca.crt"] = "half"

    def _keep_configuration(
        self, name: str, instance: FakeInstance, argv: list[str], path: str
    ) -> None:
        text = instance.files.get(path, "")
        self.world.configurations.append((name, argv, documents.load_all(text)))

    def _kubeadm_init(
        self, name: str, instance: FakeInstance, path: str, skipped: list[str]
    ) -> Answer:
        if path not in instance.files:
            return 1, "", f"unable to read config from {path!r}"
        given = _documents(instance, path)
        cluster = given["ClusterConfiguration"]
        if not {"upload-config", "upload-config/kubelet"} & {*skipped}:
            minor = ".".join(cluster["kubernetesVersion"].removeprefix("v").split(".")[:2])
            kubelets = "kubelet-config" if int(minor[2:]) > 23 else f"kubelet-config-{minor}"
            self._keep(name, kubelets, "kubelet", given["KubeletConfiguration"])
        if not {"upload-config", "upload-config/kubeadm"} & {*skipped}:
            self._keep(name, "kubeadm-config", "ClusterConfiguration", cluster)
        for user, key in (("controller-manager", "controllerManager"), ("scheduler", "scheduler")):
            file = f"/etc/kubernetes/{user}.conf"
            if f"control-plane/{user}" in skipped:
                continue
            if file not in instance.files:
                # The mount of the pod that this starts would make an empty one.
                assert not {"kubeconfig", f"kubeconfig/{user}"} & {*skipped}, f"there is no {file}"
            for volume in cluster[key].get("extraVolumes", ()):
                assert f"{volume['hostPath']}/tls.crt" in instance.files
        if "certs" in skipped:
            node = self.world.etcd_of(name).objects[f"{NODES}/{name}"]
            node["metadata"].setdefault("labels", {})[CONTROL_PLANE_LABEL] = ""
            return 0, "", ""
        shared = all(instance.files.get(key) == f"{key} of the cluster" for key in SHARED_KEYS)
        if any((f"{PKI}/" in file and not shared) or ".conf" in file for file in instance.files):
            return 1, "", "there are remains of an earlier control plane"
        server = f"https://{cluster['controlPlaneEndpoint']}"
        for user in ("admin", "super-admin", "controller-manager", "scheduler"):
            if f"kubeconfig/{user}" not in skipped:
                instance.files[f"/etc/kubernetes/{user}.conf"] = admin_kubeconfig(server)
        instance.files[KUBELET_CONF] = "kubelet"
        instance.files |= {key: f"{key} of the cluster" for key in SHARED_KEYS}
        address = given["InitConfiguration"]["localAPIEndpoint"]["advertiseAddress"]
        members = _first_members(cluster) or {name: address}
        if shared:
            kubernetes = self.world.etcd_of(name)
            assert kubernetes.members == members, "they would be two clusters"
        else:
            kubernetes = Kubernetes(lives=self.world.lives, plugin=self.world.plugin)
            kubernetes.members = members
            self.world.kubernetes[cluster["clusterName"]] = kubernetes
        assert members[name] == address
        kubernetes.bare |= {name} if not instance.config("pod-network.conflist") else set()
        kubernetes.kubelet_joined(name, instance.version)
        self._write_control_plane(instance, instance.version)
        self._start_kubelet()
        return 0, "", ""

    def _keep(self, name: str, config_map: str, key: str, config: dict[str, Any]) -> None:
        """Keep a configuration in the cluster of a node."""
        found = {"metadata": {"name": config_map}, "data": {key: documents.dump(config)}}
        self.world.etcd_of(name).objects[f"{CONFIG_MAPS}/{config_map}"] = found

    def _write_kubeconfig(self, instance: FakeInstance, user: str, path: str) -> Answer:
        if CA not in instance.files:
            return 1, "", "couldn't create a kubeconfig; the CA files couldn't be loaded"
        endpoint = _documents(instance, path)["ClusterConfiguration"]["controlPlaneEndpoint"]
        instance.files[f"/etc/kubernetes/{user}.conf"] = admin_kubeconfig(f"https://{endpoint}")
        return 0, "", ""

    def _kubelet_start(self, name: str, instance: FakeInstance, path: str) -> Answer:
        """kubeadm lets the kubelet of a worker start, which has all that it is known by."""
        if path not in instance.files:
            return 1, "", f"unable to read config from {path!r}: no such file or directory"
        if CA in instance.files and "certificatesDir" not in str(instance.files[path]):
            return 1, "", "invalid or incomplete external CA"
        config = documents.load(instance.files[KUBELET_CONF])
        user, cluster = config["users"][0]["user"], config["clusters"][0]["cluster"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        assert authority == instance.files[CA] == f"{CA} of the cluster"
        certificate = instance.files[user["client-certificate"]]
        assert certificate == f"{CA} of the cluster signed the request of {name}"
        kubernetes = self.world.etcd_of(name)
        kubernetes.bare |= {name} if not instance.config("pod-network.conflist") else set()
        kubernetes.kubelet_joined(name, instance.version)
        self._start_kubelet()
        return 0, "", ""

    def _write_control_plane(self, instance: FakeInstance, version: str) -> None:
        """What kubeadm writes: static pods, each just the image that it needs, and more."""
        names = [each for each in instance.images if "kube-apiserver:" in each]
        name = next((each for each in names if each.endswith(f":{version}")), names[0])
        fill(instance.manifests, {"kube-apiserver.yaml": name})
        for path in ("kubelet/config.yaml", "kubelet/kubeadm-flags.env", "etcd/member/data"):
            file = instance.on_host(f"/var/lib/{path}")
            assert file is not None
            fill(file.parent, {file.name: version})

    def _kubeadm_upgrade(self, name: str, instance: FakeInstance, arguments: list[str]) -> Answer:
        tools = instance.on_host("/etc/sykube/update/kubeadm")
        assert tools is not None
        if not tools.exists() or not tools.with_name("crictl").exists():
            return 127, "", "kubeadm: not found"
        version = tools.read_text()
        kubernetes = self.world.etcd_of(name)
        config = documents.load(kubernetes.objects[KUBEADM_CONFIG]["data"]["ClusterConfiguration"])
        if self.world.upgrade_problems:
            return 1, "", self.world.upgrade_problems.pop(0)
        known = ("--patches", "--experimental-patches", "--ignore-preflight-errors")
        match arguments:
            case ["apply", wanted, "--yes", *options]:
                _check_options(options, *known)
                assert wanted == version
                assert instance.has_control_plane
                config["kubernetesVersion"] = version
                data = {"ClusterConfiguration": documents.dump(config)}
                kubernetes.objects[KUBEADM_CONFIG]["data"] = data
            case ["node", *options]:
                _check_options(options, *known)
                assert config["kubernetesVersion"] == version, "apply comes first"
            case unknown:
                raise AssertionError(f"the fake kubeadm upgrade does not know: {unknown}")
        if instance.has_control_plane:
            if f"{config['imageRepository']}/kube-apiserver:{version}" not in instance.images:
                return 1, "", "[ERROR ImagePull]: failed to pull image"
            self._write_control_plane(instance, version)
        return 0, "", ""

    def _start_kubelet(self) -> None:
        if self.world.host.grants.rootless:
            # definitions/node/rootless has files in the place of these.
            return
        for key, value in (("vm/overcommit_memory", "1"), ("kernel/panic", "10")):
            (self.world.proc_sys / key).write_text(value)


def _documents(instance: FakeInstance, path: str) -> dict[str, dict[str, Any]]:
    """What kubeadm is told in a file, by its kinds."""
    return {each["kind"]: each for each in documents.load_all(instance.files[path])}


def _first_members(cluster: dict[str, Any]) -> dict[str, str]:
    """The members that etcd is told to begin with: their addresses by their names."""
    given = cluster["etcd"]["local"].get("extraArgs") or {}
    arguments = (
        given if isinstance(given, dict) else {each["name"]: each["value"] for each in given}
    )
    found = re.findall(r"([^=,]+)=https://([\d.]+):2380", arguments.get("initial-cluster", ""))
    return dict(found)


def _check_options(options: list[str], *known: str) -> None:
    """Refuse options with a value that a program does not have.

    Raises:
        AssertionError: there is such a one.
    """
    assert len(options) % 2 == 0, f"an option has no value: {options}"
    unknown = {*options[::2]} - {*known}
    assert not unknown, f"the fake kubeadm does not know: {unknown}"
