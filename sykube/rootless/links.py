"""The network of an instance, made as the CNI plugins bridge and static make it for root."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sykube.host.host import Host


def namespace(instance: str) -> Path:
    """The file of its network namespace."""
    return Path("/run/netns") / instance


def connect(host: Host, instance: str, bridge: str, address: str, gateway: str) -> None:
    """Make its network namespace, with eth0 on a bridge; one that is left is replaced.

    Args:
        address: with its prefix length.
    """
    remove(host, instance)
    link = _link(instance)
    host.run(["ip", "netns", "add", instance])
    host.run(["ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", instance])
    host.run(["ip", "link", "set", "dev", link, "master", bridge, "up"])
    # A node reaches itself by the endpoint's address.
    host.run(["ip", "link", "set", "dev", link, "type", "bridge_slave", "hairpin", "on"])
    host.run(["ip", "-n", instance, "link", "set", "dev", "lo", "up"])
    host.run(["ip", "-n", instance, "address", "add", address, "dev", "eth0"])
    host.run(["ip", "-n", instance, "link", "set", "dev", "eth0", "up"])
    host.run(["ip", "-n", instance, "route", "add", "default", "via", gateway])


def remove(host: Host, instance: str) -> None:
    """Remove its network namespace and its link; what is gone already is no error."""
    if (host.class_net / _link(instance)).exists():
        host.run(["ip", "link", "delete", "dev", _link(instance)])
    if (host.root / "run/netns" / instance).exists():
        host.run(["ip", "netns", "delete", instance])


def _link(instance: str) -> str:
    """The name of its link on this side: the kernel takes 15 characters."""
    return f"skv{hashlib.sha256(instance.encode()).hexdigest()[:10]}"
