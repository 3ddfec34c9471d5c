"""Scrubs the identity of the original cluster out of the etcd of its clone.

A program of its own, which imports nothing of the rest: sykube runs its text in a node, with
`python3 - NODES`, while etcd serves on the node's loopback and nothing else runs. NODES is JSON:
names of nodes before → now.

Names, addresses and secrets are deleted; Kubernetes recreates all of it. What a user created is
kept, except pods: a pod is bound to a node, and its token was signed with the old key.

It prints the keys of NetworkPolicies, which must not come into force later than pods start.
"""

from __future__ import annotations

import base64
import json
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

_URL = "http://127.0.0.1:2379/v3/"
_START_TIMEOUT_S = 60.0

# Keys; with a / or - at the end, all that start so.
_GONE = (
    # Nodes, and what is of a node.
    "minions/",
    "csinodes/",
    "volumeattachments/",
    "leases/kube-node-lease/",
    "certificatesigningrequests/",
    "pods/",
    "events/",
    # Who leads: a new leader would wait until the old one's time is over.
    "leases/kube-system/kube-controller-manager",
    "leases/kube-system/kube-scheduler",
    # API servers by themselves, from 1.26 on: apiserver-HASH.
    "leases/kube-system/apiserver-",
    # Addresses of the old API server.
    "masterleases/",
    "services/endpoints/default/kubernetes",
    "endpointslices/default/kubernetes",
    # The API server would add the new CAs to the old ones, which stayed trusted.
    "configmaps/kube-system/extension-apiserver-authentication",
    # What kubeadm init, sykube's DNS step and its add-ons create.
    "secrets/kube-system/bootstrap-token-",
    "secrets/kube-system/kubeadm-certs",
    "configmaps/kube-public/cluster-info",
    "configmaps/kube-system/kubeadm-config",
    "configmaps/kube-system/kube-proxy",
    # With its version at the end up to 1.23, without from 1.24 on.
    "configmaps/kube-system/kubelet-config-",
    "configmaps/kube-system/kubelet-config",
    "daemonsets/kube-system/kube-proxy",
    "controllerrevisions/kube-system/kube-proxy-",
    "daemonsets/kube-system/network-policy",
    "controllerrevisions/kube-system/network-policy-",
    "deployments/kube-system/storage",
    "replicasets/kube-system/storage-",
    # With the addresses of before, its pods would begin only to be replaced.
    "deployments/kube-system/loadbalancer",
    "replicasets/kube-system/loadbalancer-",
    "deployments/kube-system/cluster-dns",
    "replicasets/kube-system/cluster-dns-",
    "deployments/kube-system/coredns",
    "replicasets/kube-system/coredns-",
)
_REGISTRY = "/registry/"
_MARK = "sykube/forgotten"
_TOKEN = b"kubernetes.io/service-account-token"
# The API server's storage format: this, then a runtime.Unknown, whose second field is the object.
# Source: apimachinery, pkg/runtime/serializer/protobuf
_MAGIC = b"k8s\0"
_OBJECT = 2
# Fields of k8s.io/api/core/v1/generated.proto.
_SECRET_DATA, _SECRET_TYPE = 2, 3
_ACCOUNT_SECRETS, _REFERENCE_NAME = 2, 3
# discovery/v1beta1: EndpointSlice.endpoints, Endpoint.targetRef
_SLICE_ENDPOINTS, _ENDPOINT_TARGET = 2, 4
_SUBSETS, _SUBSET_ADDRESSES, _ADDRESS_TARGET = 2, (1, 2), 2
# spec.nodeAffinity.required.nodeSelectorTerms.matchExpressions.values
_VOLUME_NODES = (2, 9, 1, 1, 1, 3)

Objects = dict[str, bytes]
Call = Callable[[str, dict[str, Any]], Any]


def main(nodes: dict[str, str], call: Call) -> None:
    """Forget what is of the cluster before.

    Args:
        nodes: see `edits`.
        call: asks etcd: a path of its JSON gateway, the request; the answer.
    """
    wait_for_etcd(call, time.sleep)
    for name in sorted(_keys(call, "networkpolicies/")):
        print(name)
    configmaps = _keys(call, "configmaps/")
    puts, gone = edits(
        secrets=_values(call, "secrets/"),
        accounts=_values(call, "serviceaccounts/"),
        endpoints=_values(call, "services/endpoints/"),
        slices=_values(call, "endpointslices/"),
        volumes=_values(call, "persistentvolumes/"),
        nodes=nodes,
    )
    gone |= {key for key in configmaps if key.endswith("/kube-root-ca.crt")}
    operations = [_delete(_REGISTRY + key) for key in _GONE]
    operations += [_delete(key) for key in sorted(gone)]
    operations += [{"requestPut": {"key": _text(k), "value": _text(v)}} for k, v in puts.items()]
    call("kv/txn", {"success": operations})
    # Nothing of it is left in the history or in free pages of the file either. Compacting keeps
    # the names of what the very last revision deleted, so there is a later one.
    call("kv/put", {"key": _text(_MARK), "value": _text("")})
    done = call("kv/deleterange", {"key": _text(_MARK)})
    call("kv/compaction", {"revision": done["header"]["revision"], "physical": True})
    call("maintenance/defragment", {})


def edits(
    *,
    secrets: Objects,
    accounts: Objects,
    endpoints: Objects,
    slices: Objects,
    volumes: Objects,
    nodes: dict[str, str],
) -> tuple[Objects, set[str]]:
    """What to write and what to delete, so that no old token, pod or node is spoken of any more."""
    puts, gone = _tokens(secrets, accounts)
    edited = {
        key: edit_object(value, (_SUBSETS,), _without_pods) for key, value in endpoints.items()
    }
    edited |= {
        key: edit_object(value, (_SLICE_ENDPOINTS,), lambda each: _unless(each, _ENDPOINT_TARGET))
        for key, value in slices.items()
    }
    edited |= {
        key: edit_object(
            value, _VOLUME_NODES, lambda name: nodes.get(name.decode(), name.decode()).encode()
        )
        for key, value in volumes.items()
    }
    before = endpoints | slices | volumes
    return puts | {key: value for key, value in edited.items() if value != before[key]}, gone


def _without_pods(subset: bytes) -> bytes | None:
    """A subset of Endpoints without the addresses of pods; nothing where there are no others."""
    for number in _SUBSET_ADDRESSES:
        subset = edit(subset, (number,), lambda each: _unless(each, _ADDRESS_TARGET))
    left = [each for number in _SUBSET_ADDRESSES for each in _payloads(subset, number)]
    return subset if left else None


def _unless(message: bytes, number: int) -> bytes | None:
    """A message, unless it has a field of that number."""
    return None if list(_payloads(message, number)) else message


def _tokens(secrets: Objects, accounts: Objects) -> tuple[Objects, set[str]]:
    """What to write and what to delete of service accounts and their tokens.

    Those that Kubernetes made are deleted, and made again. Those that a user asked for by a
    Secret become empty, and are filled again.
    """
    tokens = {key for key, value in secrets.items() if _first(value, _SECRET_TYPE) == _TOKEN}
    gone: set[str] = set()
    puts: Objects = {}

    for key, value in accounts.items():
        namespace = key.split("/")[3]

        def kept(reference: bytes, namespace: str = namespace) -> bytes | None:
            name = next(_payloads(reference, _REFERENCE_NAME), b"").decode()
            secret = f"{_REGISTRY}secrets/{namespace}/{name}"
            if secret not in tokens:
                return reference
            gone.add(secret)
            return None

        edited = edit_object(value, (_ACCOUNT_SECRETS,), kept)
        if edited != value:
            puts[key] = edited
    for key in tokens - gone:
        puts[key] = edit_object(secrets[key], (_SECRET_DATA,), lambda _: None)
    return puts, gone


def edit_object(
    stored: bytes, path: tuple[int, ...], change: Callable[[bytes], bytes | None]
) -> bytes:
    """Change each field at a path of an object as etcd holds it; None removes the field."""
    if not stored.startswith(_MAGIC):
        raise ValueError(f"an object is not stored as protobuf: {stored[:20]!r}")
    return _MAGIC + edit(stored[len(_MAGIC) :], (_OBJECT, *path), change)


def edit(message: bytes, path: tuple[int, ...], change: Callable[[bytes], bytes | None]) -> bytes:
    """Change each field at a path of a protobuf message; all others stay byte for byte."""
    out = b""
    for number, payload, whole in _fields(message):
        if number != path[0] or payload is None:
            out += whole
            continue
        new = change(payload) if len(path) == 1 else edit(payload, path[1:], change)
        if new is not None:
            out += _varint(number << 3 | 2) + _varint(len(new)) + new
    return out


def _first(stored: bytes, number: int) -> bytes:
    """The first field of that number of an object as etcd holds it; empty if it has none."""
    object_ = next(_payloads(stored[len(_MAGIC) :], _OBJECT), b"")
    return next(_payloads(object_, number), b"")


def _payloads(message: bytes, number: int) -> Iterator[bytes]:
    for found, payload, _ in _fields(message):
        if found == number and payload is not None:
            yield payload


def _fields(message: bytes) -> Iterator[tuple[int, bytes | None, bytes]]:
    """Each field: its number, its payload where it has a length, all its bytes.

    Source: https://protobuf.dev/programming-guides/encoding/
    """
    place = 0
    while place < len(message):
        start = place
        tag, place = _read_varint(message, place)
        payload = None
        wire_type = tag & 7
        if wire_type == 0:
            _, place = _read_varint(message, place)
        elif wire_type == 2:
            length, place = _read_varint(message, place)
            payload = message[place : place + length]
            place += length
        elif wire_type in (1, 5):
            place += 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"no protobuf: wire type {wire_type}")
        if place > len(message):
            raise ValueError("no protobuf: it ends in the middle of a field")
        yield tag >> 3, payload, message[start:place]


def _read_varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _delete(key: str) -> dict[str, Any]:
    request = {"key": _text(key)}
    if key[-1] in "/-":
        request["range_end"] = _text(_end(key))
    return {"requestDeleteRange": request}


def _end(prefix: str) -> str:
    """The first key after all that start with a prefix."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def _keys(call: Call, prefix: str) -> list[str]:
    return list(_range(call, prefix, keys_only=True))


def _values(call: Call, prefix: str) -> Objects:
    return _range(call, prefix, keys_only=False)


def _range(call: Call, prefix: str, *, keys_only: bool) -> Objects:
    start = _REGISTRY + prefix
    request = {"key": _text(start), "range_end": _text(_end(start)), "keys_only": keys_only}
    found = call("kv/range", request).get("kvs", [])
    return {
        base64.b64decode(each["key"]).decode(): base64.b64decode(each.get("value", ""))
        for each in found
    }


def _text(data: str | bytes) -> str:
    raw = data.encode() if isinstance(data, str) else data
    return base64.b64encode(raw).decode()


def wait_for_etcd(call: Call, sleep: Callable[[float], None]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        try:
            call("kv/range", {"key": _text("ready")})
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            sleep(0.1)


def _call(path: str, request: dict[str, Any]) -> Any:
    """One request to etcd's JSON gateway."""
    data = json.dumps(request).encode()
    with urllib.request.urlopen(_URL + path, data=data, timeout=60) as answer:
        return json.load(answer)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), _call)
