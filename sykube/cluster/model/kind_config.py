"""kind's configuration file, as one of sykube's own.

What is translated keeps its nodes of YAML, or gets their lines, so that the reader of sykube's file
finds every error where the user wrote it.

Source: kubernetes-sigs/kind, pkg/apis/config/v1alpha4/types.go, default.go and yaml.go
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path
from typing import Any

import yaml

from sykube import settings
from sykube.cluster.model import checks
from sykube.host.host import Host
from sykube.kubernetes.api import API_PORT
from sykube.settings import Document

_FIXED = {"apiVersion": "kind.x-k8s.io/v1alpha4", "kind": "Cluster"}
_PATCHES = ("kubeadmConfigPatches", "kubeadmConfigPatchesJSON6902")
_SAME = (
    *("name", "featureGates", "runtimeConfig", *_PATCHES),
    *("containerdConfigPatches", "containerdConfigPatchesJSON6902"),
)
_SAME_OF_NODES = ("role", "labels", "gpus", *_PATCHES)
_SAME_OF_NETWORKING = ("podSubnet", "serviceSubnet", "dnsSearch")
_CLUSTER = (*_FIXED, "nodes", "networking", *_SAME)
_NODE = ("image", "extraMounts", "extraPortMappings", *_SAME_OF_NODES)
_NETWORKING = (
    *("ipFamily", "apiServerPort", "apiServerAddress", "disableDefaultCNI", "kubeProxyMode"),
    *_SAME_OF_NETWORKING,
)
_MOUNT = ("containerPath", "hostPath", "readOnly", "selinuxRelabel", "propagation")
_PROPAGATIONS = ("", "None", "HostToContainer")
_PORT = ("containerPort", "hostPort", "listenAddress", "protocol")
# kind's images are one for each release of Kubernetes; registries of a site mirror them.
_IMAGE = re.compile(r"(?:\S+/)?kindest/node:v?(\d+\.\d+(?:\.\d+[-.\w]*)?)(?:@sha256:[0-9a-f]+)?")
# Where kind's users put credentials for registries: site/content/docs/user/private-registries.md
_REGISTRY_AUTH = "/var/lib/kubelet/config.json"

# By sykube's keys: the node that the line is of, and the value.
_Target = dict[str, tuple[yaml.Node, yaml.Node]]


def recognizes(root: yaml.MappingNode) -> bool:
    """Whether a file is one of kind's, of whatever version."""
    return any(
        key.value == "apiVersion" and str(value.value).startswith("kind.")
        for key, value in root.value
    )


def translate(host: Host, root: yaml.MappingNode, document: Document) -> yaml.MappingNode:
    """kind's document with sykube's keys; `document` gets what cannot be, and what is ignored."""
    cluster = _Mapping.of(root, _CLUSTER, document)
    for key, value in _FIXED.items():
        if cluster.text(key) != value:
            cluster.wrong(key, f"{key} must be {value!r}, not {cluster.text(key)!r}")
    target = cluster.same(_SAME)
    _translate_nodes(cluster, target)
    if networking := cluster.mapping("networking", _NETWORKING):
        _translate_networking(host, networking, target)
    return _mapping(target, root)


@dataclass(frozen=True)
class _Mapping:
    """A mapping of kind's file; what is null in it is not there, as for kind.

    Attributes:
        fields: the nodes of key and value.
    """

    node: yaml.Node
    fields: Mapping[str, tuple[yaml.Node, yaml.Node]]
    document: Document

    @classmethod
    def of(cls, node: yaml.Node, known: Sequence[str], document: Document) -> _Mapping:
        if not isinstance(node, yaml.MappingNode):
            document.wrong(node, "a mapping is needed here")
            return cls(node, {}, document)
        found = settings.fields(node, known, document)
        given = {key: pair for key, pair in found.items() if not pair[1].tag.endswith(":null")}
        return cls(node, given, document)

    def __contains__(self, key: str) -> bool:
        return key in self.fields

    def at(self, key: str) -> yaml.Node:
        """What has the line of a key; that of the mapping where the key is not there."""
        return self.fields[key][0] if key in self.fields else self.node

    def wrong(self, key: str, text: str) -> None:
        self.document.wrong(self.at(key), text)

    def ignored(self, key: str, text: str) -> None:
        self.document.ignored(self.at(key), text)

    def same(self, keys: Sequence[str]) -> _Target:
        return {key: self.fields[key] for key in keys if key in self.fields}

    def text(self, key: str) -> str:
        # Numbers are texts as they were written: 1.30 is not 1.3.
        known = self._is(key, ("str", "int", "float", "bool"), "a text")
        return str(self.fields[key][1].value) if known else ""

    def number(self, key: str) -> int:
        return int(self._value(key)) if self._is(key, ("int",), "a whole number") else 0

    def is_true(self, key: str) -> bool:
        return bool(self._is(key, ("bool",), "true or false") and self._value(key))

    def items(self, key: str) -> list[yaml.Node]:
        if key not in self.fields:
            return []
        node = self.fields[key][1]
        if isinstance(node, yaml.SequenceNode):
            return list(node.value)
        self.wrong(key, f"{key} must be a list")
        return []

    def mapping(self, key: str, known: Sequence[str]) -> _Mapping | None:
        if key not in self.fields:
            return None
        return _Mapping.of(self.fields[key][1], known, self.document)

    def _is(self, key: str, types: tuple[str, ...], words: str) -> bool:
        if key not in self.fields:
            return False
        fits = self.fields[key][1].tag.rpartition(":")[2] in types
        if not fits:
            self.wrong(key, f"{key} must be {words}")
        return fits

    def _value(self, key: str) -> Any:
        return yaml.SafeLoader("").construct_object(self.fields[key][1])


def _translate_nodes(cluster: _Mapping, target: _Target) -> None:
    at = cluster.at("nodes")
    nodes = [_Mapping.of(item, _NODE, cluster.document) for item in cluster.items("nodes")]
    if not nodes:
        target["workers"] = (at, _scalar("0", at, "int"))
        return
    for node in nodes:
        made = node.same(_SAME_OF_NODES)
        _translate_image(node, target)
        for item in node.items("extraMounts"):
            _translate_mount(_Mapping.of(item, _MOUNT, node.document), node, made, target)
        for item in node.items("extraPortMappings"):
            _translate_port(_Mapping.of(item, _PORT, node.document), node, made)
        _append(target, "nodes", _mapping(made, node.node), at)
    # As kind does it; with control planes alone nothing would ever run.
    if any(node.text("role") == "worker" for node in nodes):
        target["taintMaster"] = (at, _scalar("true", at, "bool"))


def _translate_image(node: _Mapping, target: _Target) -> None:
    if not (image := node.text("image")):
        return
    match = _IMAGE.fullmatch(image)
    if match is None:
        node.wrong(
            "image",
            f"nodes are not Docker images: {image!r} cannot be used; kindest/node:vX.Y.Z would "
            "select a version of Kubernetes",
        )
        return
    before = target.setdefault(
        "kubernetesVersion", (node.at("image"), _scalar(match[1], node.at("image")))
    )
    if before[1].value != match[1]:
        node.wrong(
            "image",
            f"{image!r} has another version of Kubernetes than line "
            f"{settings.line_of(before[0])}: all nodes of a cluster start with the same",
        )
    node.ignored("image", f"no Docker image is used, only its version of Kubernetes, {match[1]}")


def _translate_mount(mount: _Mapping, node: _Mapping, made: _Target, target: _Target) -> None:
    paths = [mount.text(key) for key in ("hostPath", "containerPath")]
    if not all(paths):
        mount.wrong("", "a mount needs hostPath and containerPath")
        return
    # From the folder of the command, as kind takes it.
    host, inside = str(Path(paths[0]).absolute()), paths[1]
    if mount.is_true("selinuxRelabel"):
        mount.ignored("selinuxRelabel", "selinuxRelabel: no label of this host is changed")
    if (propagation := mount.text("propagation")) not in _PROPAGATIONS:
        mount.wrong(
            "propagation",
            f"propagation cannot be {propagation!r}, only {' or '.join(_PROPAGATIONS[1:])}: this "
            "host does not see what nodes mount",
        )
    if inside == _REGISTRY_AUTH:
        at = mount.at("hostPath")
        before = target.setdefault("registryAuth", (at, _scalar(host, at)))
        if before[1].value != host:
            mount.wrong("hostPath", "all nodes get the same credentials for registries")
        return
    text = f"{host}:{inside}{':ro' if mount.is_true('readOnly') else ''}"
    if problem := checks.mounts((text,)):
        mount.wrong("containerPath", problem)
    else:
        _append(made, "mounts", _scalar(text, mount.node), node.at("extraMounts"))


def _translate_port(port: _Mapping, node: _Mapping, made: _Target) -> None:
    host, inside = port.number("hostPort"), port.number("containerPort")
    if host in (0, -1):
        port.wrong("hostPort", "a hostPort is needed: none is picked at random")
        return
    address = port.text("listenAddress") or "0.0.0.0"
    protocol = (port.text("protocol") or "TCP").lower()
    text = f"{address}:{host}:{inside}/{protocol}"
    if not _is_address(address):
        port.wrong("listenAddress", f"the listenAddress {address!r} is no IPv4 address")
    elif problem := checks.ports((text,)):
        port.wrong("containerPort", problem)
    else:
        _append(made, "ports", _scalar(text, port.node), node.at("extraPortMappings"))


def _translate_networking(host: Host, networking: _Mapping, target: _Target) -> None:
    target |= networking.same(_SAME_OF_NETWORKING)
    if (family := networking.text("ipFamily")) not in ("", "ipv4"):
        networking.wrong("ipFamily", f"ipFamily cannot be {family!r}: clusters are of IPv4 only")
    if networking.is_true("disableDefaultCNI"):
        at = networking.at("disableDefaultCNI")
        target["podNetwork"] = (at, _scalar("none", at))
    _translate_proxy_mode(host, networking, target)
    _translate_api_server(networking, target)


def _translate_proxy_mode(host: Host, networking: _Mapping, target: _Target) -> None:
    mode = networking.text("kubeProxyMode")
    at = networking.at("kubeProxyMode")
    if mode in ("", "iptables"):
        return
    # It is there where the module ip_vs is.
    if mode == "ipvs" and (host.proc / "net/ip_vs").exists():
        patch = "kind: KubeProxyConfiguration\nmode: ipvs\n"
        _append(target, "kubeadmConfigPatches", _scalar(patch, at), at)
        networking.ignored("kubeProxyMode", "kubeProxyMode ipvs has not been tested with sykube")
        return
    why = ": the kernel's module ip_vs is not loaded (modprobe ip_vs)" if mode == "ipvs" else ""
    networking.wrong("kubeProxyMode", f"kubeProxyMode cannot be {mode!r}, only iptables{why}")


def _translate_api_server(networking: _Mapping, target: _Target) -> None:
    address = networking.text("apiServerAddress") or "127.0.0.1"
    port = networking.number("apiServerPort")
    at = networking.at("apiServerPort" if "apiServerPort" in networking else "apiServerAddress")
    if not _is_address(address):
        networking.wrong("apiServerAddress", f"the apiServerAddress {address!r} is no IPv4 address")
        return
    if address == "127.0.0.1":
        # This host reaches the API server without any port of its own.
        if port in (0, -1):
            return
    else:
        patch = [{"op": "add", "path": "/apiServer/certSANs/-", "value": address}]
        made: _Target = {
            "kind": (at, _scalar("ClusterConfiguration", at)),
            "patch": (at, _scalar(json.dumps(patch), at)),
        }
        _append(target, "kubeadmConfigPatchesJSON6902", _mapping(made, at), at)
    text = f"{address}:{port if port > 0 else API_PORT}:{API_PORT}"
    if problem := checks.ports((text,)):
        networking.wrong("apiServerPort", problem)
    else:
        _append(target, "ports", _scalar(text, at), at)


def _is_address(text: str) -> bool:
    try:
        IPv4Address(text)
    except AddressValueError:
        return False
    return True


def _scalar(text: str, at: yaml.Node, kind: str = "str") -> yaml.ScalarNode:
    return yaml.ScalarNode(f"tag:yaml.org,2002:{kind}", text, at.start_mark, at.end_mark)


def _mapping(target: _Target, at: yaml.Node) -> yaml.MappingNode:
    pairs = [(_scalar(key, line), value) for key, (line, value) in target.items()]
    return yaml.MappingNode("tag:yaml.org,2002:map", pairs, at.start_mark, at.end_mark)


def _append(target: _Target, key: str, item: yaml.Node, at: yaml.Node) -> None:
    empty = yaml.SequenceNode("tag:yaml.org,2002:seq", [], at.start_mark, at.end_mark)
    items = target.setdefault(key, (at, empty))[1]
    # One that is none is an error, which its reader reports.
    if isinstance(items, yaml.SequenceNode):
        items.value.append(item)
