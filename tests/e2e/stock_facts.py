"""What there is of Kubernetes in a cluster, written so that two clusters can be compared.

What is a cluster's own by its nature is replaced: names, addresses, times, hashes, keys. What
others than kubeadm make of something all the time is only said to be there.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from sykube import documents
from sykube.cluster.model.cluster import Cluster
from sykube.kubernetes.api import Api

_DESCRIBE = Path(__file__).parent / "describe-files"
_FOLDERS = ("/etc/kubernetes", "/var/lib/kubelet", "/var/lib/etcd")
# What happens, not what there is.
_NOT_READ = ("Event", "ComponentStatus")
_ONLY_THERE = ("Endpoints", "EndpointSlice", "ReplicaSet", "ControllerRevision", "Lease")
_OF_ONE_OBJECT = (
    *("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "selfLink"),
    *("name", "namespace", "generateName"),
)
_HASHES = ("pod-template-hash", "controller-revision-hash")
# Of labels and annotations.
_OF_ONE_TIME = (*_HASHES, "deployment.kubernetes.io/revision")
_OF_ONE_MACHINE = ("bootID", "machineID", "systemUUID")
# What lists of mappings are sorted by.
_KEYS = ("name", "mountPath", "type")
_VARYING = tuple(
    (re.compile(pattern, re.DOTALL), replacement)
    for pattern, replacement in (
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "(time)"),
        (r"\b\d{4}-\d\d-\d\d(-\d\d){3}\b", "(time)"),
        (r"\b\d{4}-\d\d-\d\d\b", "(time)"),
        (r"(?<=@)\d{10}\b", "(time)"),
        (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "(uid)"),
        (r"\b[0-9a-f]{32}\b", "(hash)"),
        (r"\b(node-csr-)[\w-]{43}", r"\1(hash)"),
        (r"\b(apiserver-)[a-z2-7]{26}\b", r"\1(hash)"),
        (r"(-token-|api-access-)[a-z0-9]{5}\b", r"\1(any)"),
        (r"(bootstrap-token-|jws-kubeconfig-|system:bootstrap:)[a-z0-9]{6}\b", r"\1(any)"),
        (r"-----BEGIN CERTIFICATE-----.*-----END CERTIFICATE-----\n?", "(certificates)"),
    )
)


def read(cluster: Cluster) -> dict[str, Any]:
    """All that `facts` needs, as JSON has it; without any key or token."""
    describe = ["sh", "-c", _DESCRIBE.read_text(encoding="utf-8"), "describe-files", *_FOLDERS]
    nodes = {"master": cluster.master, "worker": cluster.workers[0]}
    with cluster.api() as api:
        return {
            "names": _names(cluster),
            "objects": read_objects(api),
            "files": {name: node.run(describe).stdout for name, node in nodes.items()},
        }


def facts(read: dict[str, Any]) -> dict[str, Any]:
    """The objects by kind and name, and the files of a master and a worker by path."""
    replace = _replacer(read["names"])
    objects, files = _each_text(read["objects"], replace), _each_text(read["files"], replace)
    return {"objects": _objects(objects), **{name: _files(text) for name, text in files.items()}}


def _names(cluster: Cluster) -> dict[str, str]:
    subnets = cluster.state.subnets
    names = {
        cluster.name: "<cluster>",
        cluster.endpoint_address: "<endpoint>",
        **{str(each): "<pods-of-node>" for each in subnets.pods.subnets(new_prefix=24)},
        str(subnets.pods): "<pods>",
        str(subnets.services): "<services>",
        str(subnets.services[1]): "<first-service>",
        subnets.dns: "<dns>",
    }
    for node in cluster.nodes:
        role = node.name.replace("node1", "worker")
        names |= {node.instance: f"<{role}>", node.address: f"<{role}-address>"}
    return names


def read_objects(api: Api) -> list[dict[str, Any]]:
    """Each object once, whatever versions of its API there are; of Secrets only the names."""
    prefixes = ["/api/v1"]
    for group in api.get("/apis")["groups"]:
        versions = [group["preferredVersion"], *group["versions"]]
        prefixes += [f"/apis/{each['groupVersion']}" for each in versions]
    seen, found = set(), []
    for prefix in prefixes:
        group = prefix.rpartition("/")[0]
        for kind in api.get(prefix)["resources"]:
            if "list" not in kind["verbs"] or (group, kind["name"]) in seen:
                continue
            seen.add((group, kind["name"]))
            if kind["kind"] not in _NOT_READ:
                items = api.get(f"{prefix}/{kind['name']}")["items"]
                found += [each | {"kind": kind["kind"]} for each in items]
    for each in found:
        if each["kind"] == "Secret":
            each["data"] = dict.fromkeys(each.get("data") or {}, "(data)")
    return found


def _replacer(names: dict[str, str]) -> Callable[[str], str]:
    longest_first = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    own = re.compile(rf"(?<![A-Za-z0-9.])({longest_first})(?![A-Za-z0-9])(?!\.\d)")

    def replace(text: str) -> str:
        text = own.sub(lambda found: names[found[0]], text)
        for pattern, replacement in _VARYING:
            text = pattern.sub(replacement, text)
        return text

    return replace


def _each_text(value: Any, replace: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {replace(key): _each_text(each, replace) for key, each in value.items()}
    if isinstance(value, list):
        return [_each_text(each, replace) for each in value]
    return replace(value) if isinstance(value, str) else value


def _objects(items: list[dict[str, Any]]) -> dict[str, Any]:
    return _by_name((_key(item), _content(item)) for item in items)


def _by_name(found: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """What there is by its name, with a number where several have one.

    Those that are alike, such as pods of a Deployment, count as one.
    """
    texts: dict[str, set[str]] = {}
    for name, value in found:
        texts.setdefault(name, set()).add(json.dumps(value, sort_keys=True))
    return {
        f"{name} {number}" if number > 1 else name: json.loads(text)
        for name, alike in texts.items()
        for number, text in enumerate(sorted(alike), start=1)
    }


def _owner(item: dict[str, Any]) -> str:
    return "".join(each["kind"] for each in item["metadata"].get("ownerReferences", []))


def _key(item: dict[str, Any]) -> str:
    metadata = item["metadata"]
    generated = metadata.get("generateName")
    name = f"{generated}(any)" if generated else metadata["name"]
    for label in _HASHES:
        if text := metadata.get("labels", {}).get(label):
            name = name.replace(text, "(hash)")
    if namespace := metadata.get("namespace"):
        name = f"{namespace}/{name}"
    if item["kind"] == "Pod" and _owner(item) == "DaemonSet":
        name = f"{name} on {item['spec']['nodeName']}"
    return f"{item['kind']} {name}"


def _content(item: dict[str, Any]) -> Any:
    if item["kind"] in _ONLY_THERE or _owner(item) == "ReplicaSet":
        return {}
    parts = {k: v for k, v in item.items() if k not in ("kind", "apiVersion", "status")}
    metadata = {k: v for k, v in item["metadata"].items() if k not in _OF_ONE_OBJECT}
    for kind in {"labels", "annotations"} & {*metadata}:
        metadata[kind] = {k: "(any)" if k in _OF_ONE_TIME else v for k, v in metadata[kind].items()}
    parts["metadata"] = metadata
    if item["kind"] == "ConfigMap":
        parts["data"] = {k: _parsed(v) for k, v in (item.get("data") or {}).items()}
    if item["kind"] == "Node":
        parts["status"] = _node_status(item["status"])
    return _structured(parts)


def _node_status(status: dict[str, Any]) -> dict[str, Any]:
    info = {k: v for k, v in status["nodeInfo"].items() if k not in _OF_ONE_MACHINE}
    conditions = {each["type"]: each["status"] for each in status.get("conditions", [])}
    kept = ("addresses", "allocatable", "capacity", "daemonEndpoints")
    return {key: status.get(key) for key in kept} | {"nodeInfo": info, "conditions": conditions}


def _parsed(text: str) -> Any:
    """What a text holds as YAML, where that is more than a text."""
    try:
        value = documents.load(text)
    except yaml.YAMLError:
        return text
    return value if isinstance(value, dict | list) else text


def _structured(value: Any) -> Any:
    """Lists become mappings where their elements have names; what is encoded is left out."""
    if isinstance(value, dict):
        return {
            key: "(data)" if _is_encoded(key) else _structured(each) for key, each in value.items()
        }
    if not isinstance(value, list) or not value:
        return value
    if all(isinstance(each, str) for each in value):
        if not any(each.startswith("--") for each in value):
            return value
        return _arguments(value)
    for key in _KEYS:
        names = [each.get(key) for each in value if isinstance(each, dict)]
        if len({*names} - {None}) == len(value):
            return {each[key]: _structured(each) for each in value}
    return [_structured(each) for each in value]


def _arguments(words: list[str]) -> dict[str, str]:
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def _is_encoded(key: str) -> bool:
    return key in ("caBundle", "request") or key.startswith("jws-") or key.endswith("-data")


def _files(described: str) -> dict[str, Any]:
    """What describe-files prints, by path."""
    found = []
    for block in re.split(r"^==>\t", described, flags=re.MULTILINE)[1:]:
        head, _, text = block.partition("\n")
        kind, mode, owner, path, target = head.split("\t")
        about = {"type": kind, "mode": mode, "owner": owner, "target": target}
        found.append((path, about | {"content": _file_content(path, text)}))
    return _by_name(found)


def _file_content(path: str, text: str) -> Any:
    if "#" in path or path.endswith((".crt", ".key", ".pem", ".pub")):
        return _keys(text)
    if path.endswith(".env"):
        values = (word.partition("=") for word in shlex.split(text))
        return {name: _arguments(shlex.split(value)) for name, _, value in values}
    return _structured(_parsed(text))


def _keys(text: str) -> dict[str, Any]:
    """The kinds of keys, and what the first certificate says of itself, as openssl prints it."""
    found: dict[str, Any] = {
        "parts": re.findall("^-----BEGIN (.*)-----", text, re.MULTILINE),
        "keys": re.findall(r"^ *((?:\w+ )?(?:Private|Public)-Key: .*)", text, re.MULTILINE),
    }
    dates = [
        datetime.strptime(each, "%b %d %H:%M:%S %Y GMT")
        for each in re.findall(r"Not (?:Before|After) *: (.*)", text)
    ]
    if dates:
        found["days"] = round((dates[1] - dates[0]).total_seconds() / 86400)
    for name in ("Issuer", "Subject", "Signature Algorithm", "Public Key Algorithm", "ASN1 OID"):
        if said := re.search(f"^ *{name}: (.*)", text, re.MULTILINE):
            found[name] = said[1]
    extension = r"^ {12}(X509v3 [^:\n]+): *(\w*) *\n +(.*)"
    for name, critical, value in re.findall(extension, text, re.MULTILINE):
        values = ["(hash)"] if name.endswith("Key Identifier") else sorted(value.split(", "))
        found[name] = [critical, *values] if critical else values
    return found
