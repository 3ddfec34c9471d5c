"""What the user wants: each option of a cluster, validated once, then frozen."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sykube import patches, settings, stored
from sykube.cluster.model import checks, gpus, members, pod_network, pod_options, runtime
from sykube.errors import UsageError
from sykube.host import apt, proxies
from sykube.host.paths import CLUSTER_VARIABLE
from sykube.image import mirrors, registries
from sykube.image.choice import AUTO, SOURCES, VARIABLE
from sykube.image.trust import Trust, read_fingerprint
from sykube.kubernetes import kubeadm_patches
from sykube.kubernetes.kubeadm_patches import KUBELET, JsonPatch, KubeadmPatches
from sykube.network.ports import PortMap
from sykube.node.limits import Limits, parse_cpus, parse_memory
from sykube.node.mounts import Mount
from sykube.patches import Patch
from sykube.settings import setting

_CONTROL_PLANE = checks.ROLES[0]
_POD_NETWORK = settings.TEXT._replace(parse=pod_network.absolute)
# Separated by commas, or each by itself.
_POD_OPTIONS = settings.texts(pod_options.split)._replace(
    parse=lambda given: pod_options.split(",".join(given)), many=True
)
_MERGES = settings.patches(kubeadm_patches.check_merge)
# Fields by those of sykube.image.mirrors.Mirrors.
_SITES = {
    "kubernetes": "kubernetes_mirror",
    "containerd": "containerd_mirror",
    "runc": "runc_mirror",
    "images": "image_repository",
}


def _as_bool(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"can be true or false, not {text!r}")
    return text == "true"


def _site(name: str, *, transient: bool = True) -> Any:
    site = mirrors.SETTINGS[name]
    return setting(
        "", site.help, site.option, metavar="REGISTRY" if name == "images" else "URL",
        variable=site.variable, shown=getattr(mirrors.Mirrors, name), check=checks.site(name),
        transient=transient,
    )  # fmt: skip


def _cpus(help: str, *flags: str) -> Any:  # noqa: A002
    return setting(
        "", help, *flags, type=settings.QUANTITY, metavar="N", check=checks.cpus, shown="all"
    )


def _gpus(help: str, *flags: str, **known: str) -> Any:  # noqa: A002
    return setting(
        "", help, *flags, type=settings.QUANTITY, metavar="all|N", check=gpus.problem, shown="none",
        **known,
    )  # fmt: skip


def _memory(help: str, *flags: str) -> Any:  # noqa: A002
    return setting(
        "", help, *flags, type=settings.QUANTITY, metavar="SIZE", check=checks.memory, shown="all"
    )


@dataclass(frozen=True)
class NodeSpec:
    """One node of `nodes:` in a configuration file; each field is a key of it."""

    role: str = setting(_CONTROL_PLANE, "What it is.", choices=checks.ROLES)
    labels: dict[str, str] = setting({}, "Labels of its Node.", check=checks.labels)
    taints: tuple[str, ...] = setting(
        (), "Taints of its Node, each as KEY=VALUE:EFFECT.", check=checks.taints
    )
    cpus: str = _cpus("CPUs that it may use, instead of the cluster's cpus.")
    memory: str = _memory("Memory that it may use, instead of the cluster's memory.")
    pids: int = setting(
        0, "Processes that it may have, instead of the cluster's pids.", check=checks.pids,
        shown="any number",
    )  # fmt: skip
    gpus: str = _gpus("GPUs of NVIDIA that it gets, instead of the cluster's gpus.")
    mounts: tuple[str, ...] = setting(
        (),
        "Folders of this host to mount into it, in addition to the cluster's.",
        check=checks.mounts,
    )
    ports: tuple[str, ...] = setting(
        (), "Ports of this host mapped to it, each as [ADDRESS:]HOST:NODE[/udp].",
        check=checks.node_ports,
    )  # fmt: skip
    kubeadm_config_patches: tuple[Patch, ...] = setting(
        (), "Patches of what its kubeadm reads, after the cluster's.", type=_MERGES
    )
    kubeadm_config_patches_json6902: tuple[JsonPatch, ...] = setting(
        (), "JSON patches of what its kubeadm reads, after the cluster's.",
        key="kubeadmConfigPatchesJSON6902", type=settings.objects(JsonPatch),
    )  # fmt: skip

    @property
    def limits(self) -> Limits:
        """What it may use; the texts were checked."""
        return Limits(parse_cpus(self.cpus), parse_memory(self.memory), self.pids)

    @property
    def kubeadm_patches(self) -> KubeadmPatches:
        return KubeadmPatches(self.kubeadm_config_patches, self.kubeadm_config_patches_json6902)


@dataclass(frozen=True)
class ClusterSpec:
    """A cluster as it was asked for; each field is an option (sykube.settings)."""

    name: str = setting(
        "sykube", "Name of the cluster.", "--name", metavar="CLUSTER", check=checks.name,
        variable=CLUSTER_VARIABLE, variable_first=True,
    )  # fmt: skip
    from_snapshot: str = setting(
        "", "Create it from a snapshot, with new keys and addresses.", "--from",
        metavar="SNAPSHOT", completion="snapshots",
    )  # fmt: skip
    workers: int = setting(
        1, f"Number of workers, 0 to {members.MAX_WORKERS}.", "--workers", "--nodes",
        metavar="N", check=checks.workers, later="sykube node add, delete",
    )  # fmt: skip
    control_planes: int = setting(
        1, "Number of control planes, 1, 3 or 5: any minority of them can fail.",
        "--control-planes", metavar="N", check=checks.control_planes,
    )  # fmt: skip
    nodes: tuple[NodeSpec, ...] = setting(
        (), "The nodes one by one, instead of workers and controlPlanes.",
        type=settings.objects(NodeSpec),
    )  # fmt: skip
    taint_master: bool = setting(
        False, "Do not run ordinary pods on the control planes.", "--taint-master"
    )
    dest: str = setting(
        "", "Keep the cluster's data in this folder.", "--dest", type=settings.PATH,
        metavar="DIR", check=checks.absolute, completion="folders", shown="/var/lib/sykube",
    )  # fmt: skip
    ephemeral: bool = setting(
        False, "Keep the cluster's data in memory: fast, and gone after a reboot.", "--ephemeral"
    )
    dns: tuple[str, ...] = setting(
        (), "Resolver that names are forwarded to, or none; instead of the host's.", "--dns",
        metavar="ADDRESS|none", check=checks.resolvers, shown="the host's",
    )  # fmt: skip
    dns_search: tuple[str, ...] = setting(
        (), "Search this domain for names in nodes and pods.", "--dns-search", metavar="DOMAIN",
        check=checks.domains,
    )  # fmt: skip
    addons: tuple[str, ...] = setting(
        (), "Enable this add-on (see: sykube addons list).", "--addon", metavar="NAME",
        check=checks.addons, completion="addons", later="sykube addons enable, disable",
    )  # fmt: skip
    ports: tuple[str, ...] = setting(
        (), "Map a port of this host's loopback to a port of the nodes.", "--port",
        metavar="HOST:NODE", check=checks.ports, later="sykube port add, delete",
    )  # fmt: skip
    mounts: tuple[str, ...] = setting(
        (), "Mount a folder of this host into the nodes; read-only with :ro at the end.", "--mount",
        metavar="HOST:NODE", check=checks.mounts,
    )  # fmt: skip
    registry_mirrors: tuple[str, ...] = setting(
        (), "Mirror to pull images of this registry from first.", "--registry-mirror",
        metavar="HOST=URL", check=checks.registry_mirrors,
    )  # fmt: skip
    registry_auth: str = setting(
        "", "Credentials for registries, as in ~/.docker/config.json.", "--registry-auth",
        type=settings.PATH, metavar="FILE", check=checks.absolute, completion="files",
    )  # fmt: skip
    require_signed: tuple[str, ...] = setting(
        (), "Refuse SIFs that this key of root's key ring, or another of these, has not signed.",
        "--require-signed", metavar="FINGERPRINT", check=checks.fingerprints,
    )  # fmt: skip
    network_dir: str = setting(
        "", "Folder for the engine's CNI configuration.", "--network-dir", type=settings.PATH,
        metavar="DIR", check=checks.absolute, completion="folders", shown="the cluster's own",
    )  # fmt: skip
    options: tuple[str, ...] = setting(
        (), "More options for `apptainer instance start`, as one string.", "--options",
        type=settings.texts(settings.split_words), metavar="OPTIONS",
    )  # fmt: skip
    local_image: str = setting(
        "", "Use this bundle or node image; build and download nothing.",
        "--local-image", type=settings.PATH, metavar="FILE", check=checks.absolute,
        completion="files",
    )  # fmt: skip
    fingerprint: str = setting(
        "", "Fingerprint of the key that must have signed the image.", "--fingerprint",
        metavar="FINGERPRINT", check=checks.fingerprint, variable="SYKUBE_FINGERPRINT",
        variable_first=True, transient=True,
    )  # fmt: skip
    public_key: str = setting(
        "", "PEM file with that key, instead of root's key ring.", "--public-key",
        type=settings.PATH, metavar="FILE", check=checks.absolute, completion="files",
        variable="SYKUBE_PUBLIC_KEY", variable_first=True, transient=True,
    )  # fmt: skip
    no_verify: bool = setting(
        False, "Do not verify the image's signature.", "--no-verify", transient=True
    )
    mirror: str = setting(
        "", "Debian mirror.", "--mirror", metavar="URL", check=checks.mirror,
        variable=apt.VARIABLE, shown="the host's own",
    )  # fmt: skip
    source: str = setting(
        AUTO, "Where Kubernetes comes from; auto is upstream if its release site answers.",
        "--source", choices=SOURCES, variable=VARIABLE,
    )  # fmt: skip
    kubernetes_version: str = setting(
        "", "stable, a minor version or an exact one: `sykube versions` lists them.",
        "--kubernetes-version", type=settings.VERSION, metavar="VERSION", shown="the newest",
        later="sykube update",
    )  # fmt: skip
    kubernetes_mirror: str = _site("kubernetes")
    containerd_mirror: str = _site("containerd")
    runc_mirror: str = _site("runc")
    image_repository: str = _site("images", transient=False)
    allow_cgroup_v1: bool = setting(
        False, "Run a kubelet of 1.35 or later even though this host has cgroup v1.",
        "--allow-cgroup-v1", later="sykube update",
    )  # fmt: skip
    node_subnet: str = setting(
        "", "Subnet of the nodes, a /24.", "--node-subnet", metavar="CIDR",
        check=checks.subnet(24), shown="one that is free",
    )  # fmt: skip
    pod_subnet: str = setting(
        "", "Subnet of the pods, a /16.", "--pod-subnet", metavar="CIDR",
        check=checks.subnet(16), shown="one that is free",
    )  # fmt: skip
    service_subnet: str = setting(
        "", "Subnet of Services.", "--service-subnet", metavar="CIDR",
        check=checks.service_subnet, shown="one that is free",
    )  # fmt: skip
    pod_network: str = setting(
        pod_network.BRIDGE,
        "sykube's own bridge, none (you install a CNI plugin), or a manifest to apply.",
        "--pod-network", metavar="bridge|none|FILE", type=_POD_NETWORK, check=pod_network.problem,
        completion="files",
    )  # fmt: skip
    runtime: str = setting(
        runtime.RUNC, "What pods without a RuntimeClass run in, outside of kube-system.",
        "--runtime", choices=runtime.NAMES,
    )  # fmt: skip
    allow_pod_option: tuple[str, ...] = setting(
        (),
        "Let pods ask for this option of Apptainer by an annotation: nv, rocm, writable-tmpfs, "
        "fakeroot, bind=/FOLDER or bind=/FOLDER:rw.",
        "--allow-pod-option", metavar="OPTION,...", type=_POD_OPTIONS, check=pod_options.problem,
    )  # fmt: skip
    cpus: str = _cpus("CPUs that each node may use, such as 1.5.", "--cpus")
    memory: str = _memory("Memory that each node may use, such as 2Gi.", "--memory")
    pids: int = setting(
        0, "Processes that each node may have.", "--pids", metavar="N", check=checks.pids,
        shown="any number",
    )  # fmt: skip
    gpus: str = _gpus(
        "GPUs of NVIDIA for pods: all of this host, or so many for each worker.", "--gpus",
        later="sykube node add --gpus",
    )  # fmt: skip
    feature_gates: dict[str, bool] = setting(
        {}, "Feature gates of all components of Kubernetes.", "--feature-gates",
        type=settings.pairs(_as_bool, "mapping of true and false"), metavar="NAME=true,...",
        check=checks.feature_gates,
    )  # fmt: skip
    runtime_config: dict[str, str] = setting(
        {}, "APIs to enable or disable in the API server.", "--runtime-config",
        metavar="API=true,...", check=checks.runtime_config,
    )  # fmt: skip
    kubeadm_config_patches: tuple[Patch, ...] = setting(
        (), "Merge this YAML into what kubeadm reads.", "--kubeadm-config-patch", type=_MERGES,
        metavar="FILE", completion="files",
    )  # fmt: skip
    kubeadm_config_patches_json6902: tuple[JsonPatch, ...] = setting(
        (), "JSON patches (RFC 6902) of what kubeadm reads.",
        key="kubeadmConfigPatchesJSON6902", type=settings.objects(JsonPatch),
    )  # fmt: skip
    kubelet_config_patches: tuple[Patch, ...] = setting(
        (), "Merge this YAML into the kubelets' configuration.", "--kubelet-config-patch",
        type=settings.patches(kubeadm_patches.check_kubelet), metavar="FILE",
        completion="files",
    )  # fmt: skip
    containerd_config_patches: tuple[Patch, ...] = setting(
        (), "Merge this TOML into containerd's configuration.", "--containerd-config-patch",
        type=settings.patches(registries.check_patch), metavar="FILE", completion="files",
    )  # fmt: skip
    containerd_config_patches_json6902: tuple[Patch, ...] = setting(
        (), "JSON patches (RFC 6902) of containerd's configuration, after the others.",
        key="containerdConfigPatchesJSON6902", type=settings.patches(patches.operations),
    )  # fmt: skip
    http_proxy: str = setting(
        "", "Proxy for nodes to pull images through, for http: URLs.", "--http-proxy",
        metavar="URL", check=checks.proxy("proxy for HTTP"), shown="yours, http_proxy",
    )  # fmt: skip
    https_proxy: str = setting(
        "", "Proxy for nodes to pull images through, for https: URLs.", "--https-proxy",
        metavar="URL", check=checks.proxy("proxy for HTTPS"), shown="yours, https_proxy",
    )  # fmt: skip
    no_proxy: tuple[str, ...] = setting(
        (), "Hosts, domains and ranges that nodes reach without a proxy, separated by commas.",
        "--no-proxy", type=settings.texts(proxies.split_exceptions), metavar="NAMES",
        check=checks.no_proxy, shown="yours, no_proxy",
    )  # fmt: skip
    ca_certificates: tuple[str, ...] = setting(
        (), "Also trust the CAs in this PEM file.", "--ca-certificate",
        type=settings.PATHS, metavar="FILE", check=checks.absolutes, completion="files",
    )  # fmt: skip

    @property
    def limits(self) -> Limits:
        """What each node may use that has no limits of its own."""
        return self.node("").limits

    @property
    def trust(self) -> Trust | None:
        """Who must have signed the image; None where nobody must."""
        if self.no_verify or not self.fingerprint:
            return None
        key = Path(self.public_key) if self.public_key else None
        return Trust(read_fingerprint(self.fingerprint), key)

    @property
    def signers(self) -> list[str]:
        """Fingerprints of the keys one of which must have signed a SIF; none where any will do."""
        return [read_fingerprint(text) for text in self.require_signed]

    @property
    def sites(self) -> dict[str, str]:
        """Those that are named for upstream's, as sykube.image.mirrors.chosen takes them."""
        return {name: getattr(self, field) for name, field in _SITES.items()}

    @property
    def port_maps(self) -> list[PortMap]:
        """The ports of the cluster, then those of single nodes."""
        return [PortMap.parse(text) for text in self.ports] + [
            dataclasses.replace(PortMap.parse(text), node=name)
            for name, node in self.named_nodes().items()
            for text in node.ports
        ]

    def every_mount(self) -> list[Mount]:
        """The mounts of all nodes."""
        texts = [*self.mounts, *(text for node in self.nodes for text in node.mounts)]
        return [Mount.parse(text) for text in texts]

    def node(self, name: str) -> NodeSpec:
        """What is asked for a node, that of the whole cluster included."""
        own = self.named_nodes().get(name, NodeSpec())
        return dataclasses.replace(
            own,
            cpus=own.cpus or self.cpus,
            memory=own.memory or self.memory,
            pids=own.pids or self.pids,
            mounts=(*self.mounts, *own.mounts),
            kubeadm_config_patches=(
                *self.kubeadm_config_patches,
                *map(kubeadm_patches.of_kubelet, self.kubelet_config_patches),
                *own.kubeadm_config_patches,
            ),
            kubeadm_config_patches_json6902=(
                *self.kubeadm_config_patches_json6902,
                *own.kubeadm_config_patches_json6902,
            ),
        )

    def gpus_of_nodes(self, nodes: Sequence[str] = ()) -> dict[str, str]:
        """How many GPUs each node gets: the cluster's are the workers', where there are any.

        Args:
            nodes: their names, where they are not those of a new cluster.
        """
        own = self.named_nodes()
        names = nodes or members.initial(self.control_planes, self.workers)
        workers = [name for name in names if not members.is_control_plane(name)] or names
        return {
            name: own.get(name, NodeSpec()).gpus or (self.gpus if name in workers else "")
            for name in names
        }

    def kubeadm_patches(self, name: str) -> KubeadmPatches:
        """The patches of what kubeadm reads in a node."""
        return self.node(name).kubeadm_patches

    def named_nodes(self) -> Mapping[str, NodeSpec]:
        """Those of `nodes`, by their names."""
        ordered = sorted(self.nodes, key=lambda node: checks.ROLES.index(node.role))
        planes = sum(node.role == _CONTROL_PLANE for node in ordered)
        names = members.initial(planes, len(ordered) - planes) if ordered else []
        return dict(zip(names, ordered, strict=True))

    def differences(self, wanted: ClusterSpec) -> list[str]:
        """Lines `key: is → wanted` for what differs of what a cluster is made with.

        After it, in parentheses, the commands that change it.
        """
        is_now, asked = stored.dump(self), stored.dump(wanted)
        lines = [
            f"{each.key}: {is_now[each.key]!r} → {asked[each.key]!r}"
            + (f" ({each.later})" if each.later else "")
            for each in SETTINGS.values()
            if not each.transient and is_now[each.key] != asked[each.key]
        ]
        # A proxy's URL may hold a password. What hides it is compiled only where it is needed.
        from sykube import redaction

        return [redaction.text(line) for line in lines]

    def conflicts(self) -> list[tuple[str, str]]:
        """What is wrong with options beside others; first the field, where it is one's."""
        names = [*self.named_nodes(), members.MASTER]
        nodes = [self.node(name) for name in names]
        found = [("nodes", checks.ports(tuple(map(str, self.port_maps))))]
        if self.dest:
            folders = [str(mount.host) for mount in pod_options.mounts(self.allow_pod_option)]
            found += [("allow_pod_option", pod_options.closed(each, self.dest)) for each in folders]
        found += [("nodes", checks.mounts(node.mounts)) for node in nodes]
        if any(node.cpus or node.memory for node in nodes):
            for name in names:
                where = self.kubeadm_patches(name).fields(KUBELET).get("systemReserved")
                if where is not None:
                    found.append(("", f"{where}systemReserved comes from cpus and memory"))
        return [*dict.fromkeys(each for each in found if each[1])]


SETTINGS = settings.of(ClusterSpec)


def problem_with(name: str, value: Any) -> str:
    """What is wrong with the value of a field, or nothing."""
    return SETTINGS[name].check(value)


def check_name(name: str) -> None:
    """Refuse a cluster name that is no DNS label.

    Raises:
        UsageError: it is not.
    """
    if problem := checks.name(name):
        raise UsageError(problem, resolution="Choose another name with --name.")
