"""containerd's configuration where the user has patches of it: that of the node image, merged.

containerd's own `imports` will not do: before 2.0, they replace the whole table of a plugin
(mergeConfig of its config.go). Nor will a program in the node: its Python may lack tomllib. From
2.0 on they are merged, and migrated from their version: patches of an older one are left to that.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sykube import patches
from sykube.cluster.model.cluster import Cluster
from sykube.errors import UsageError
from sykube.host.host import Host
from sykube.image.build import Builder, extract
from sykube.image.node_image import NodeImage
from sykube.node.node import Node
from sykube.patches import Patch, PatchError

_FILE = "containerd.toml"
_SERVERS = "containerd.servers.toml"
_IN_NODE = "/etc/containerd/config.toml"
# node-init puts true or false in its place.
_RESTRICT = "@RESTRICT@"
# Of version 2, and those that have its tables from 3 on.
_OLD_PLUGIN = "io.containerd.grpc.v1.cri"
_NEW_PLUGINS = "io.containerd.cri.v1."
_NEW_RUNTIME = f"{_NEW_PLUGINS}runtime"
# What version 4 has in plugins; at the top of its file they say nothing (serviceMigrate of
# containerd's cmd/containerd/server/config/config.go).
_BEFORE_4 = ("grpc", "ttrpc", "metrics")


def files(cluster: Cluster, node: Node) -> dict[str, str]:
    """Files for the node's /etc/sykube, by their names; none without patches.

    Raises:
        SykubeError: the node image's own configuration cannot be read.
    """
    builder = Builder(Path(cluster.state.engine), cluster.state.engine_environment)
    spec = cluster.state.spec
    merges, operations = spec.containerd_config_patches, spec.containerd_config_patches_json6902
    return patched(cluster.host, cluster.image_of(node), merges, builder, operations)


def patched(
    host: Host,
    image: NodeImage,
    merges: Sequence[Patch],
    builder: Builder,
    operations: Sequence[Patch] = (),
) -> dict[str, str]:
    """The configuration of a node image with patches, and further files that it imports.

    Args:
        merges: patches in TOML; with neither these nor operations, there are no files.

    Raises:
        UsageError: a patch is of a later version of the configuration, or cannot be applied.
        SykubeError: the image's own configuration cannot be read.
    """
    if not merges and not operations:
        return {}
    import tomli_w

    config = _parsed(host, image, builder)
    own: int = config["version"]
    imported: dict[str, str] = {}
    for patch in merges:
        table = patches.toml(patch.text)
        version = _version(table, own)
        if version > own:
            raise UsageError(
                f"{patch.place or 'a patch'}: this is of version {version} of containerd's "
                f"configuration, and the node image has version {own}",
                resolution="Write the patch for that version, or take another Kubernetes.",
            )
        if version == own:
            config = patches.merge(config, table)
        else:
            name = f"containerd.{len(imported)}.toml"
            imported[name] = tomli_w.dumps({"version": version} | table)
            _import(config, name)
    for patch in operations:
        try:
            config = patches.operate(config, patches.operations(patch.text))
            tomli_w.dumps(config)
        # TOML has mappings with values that are not null, no more.
        except (PatchError, TypeError, AttributeError) as error:
            why = error if isinstance(error, PatchError) else "TOML cannot hold its result"
            raise UsageError(
                f"{patch.place or 'a patch'}: {why}",
                resolution="Correct it and run the command again.",
            ) from error
    if own >= 4 and (old := _take_out(config)):
        imported[_SERVERS] = tomli_w.dumps({"version": 3} | old)
        _import(config, _SERVERS)
    written = tomli_w.dumps(config)
    return {_FILE: written.replace(f'"{_RESTRICT}"', _RESTRICT), **imported}


def runtimes(
    host: Host,
    image: NodeImage,
    builder: Builder,
    merges: Sequence[Patch] = (),
    operations: Sequence[Patch] = (),
) -> dict[str, dict[str, Any]]:
    """containerd's runtimes, by name, in the configuration of a node image with patches.

    Patches of an older version of the configuration are left out: containerd itself merges them.

    Raises:
        UsageError: a patch cannot be applied.
        SykubeError: the image's own configuration cannot be read.
    """
    files = patched(host, image, merges, builder, operations)
    config = _read(files[_FILE]) if files else _parsed(host, image, builder)
    plugins = config["plugins"]
    plugin = plugins[_OLD_PLUGIN if _OLD_PLUGIN in plugins else _NEW_RUNTIME]
    return {**plugin["containerd"]["runtimes"]}


def binds(cluster: Cluster, node: Node) -> list[tuple[Path, str]]:
    """Lets the node see the patched file in place of its image's; node-init reads it from there."""
    spec = cluster.state.spec
    has_patches = spec.containerd_config_patches or spec.containerd_config_patches_json6902
    return [(node.pull(f"/etc/sykube/{_FILE}"), _IN_NODE)] if has_patches else []


def _version(table: dict[str, Any], of_image: int) -> int:
    """The version that a patch is of: it says so, or its plugins do, or it fits every one."""
    plugins = [*table.get("plugins", {})]
    if _OLD_PLUGIN in plugins:
        of_image = min(2, of_image)
    elif any(name.startswith(_NEW_PLUGINS) for name in plugins):
        of_image = max(3, of_image)
    return int(table.get("version", of_image))


def _import(config: dict[str, Any], name: str) -> None:
    present = config.get("imports", [])
    if not isinstance(present, list):
        raise UsageError(
            "imports of containerd's configuration must be a list",
            resolution="Correct the patch of it and run the command again.",
        )
    config["imports"] = [*present, f"/etc/sykube/{name}"]


def _take_out(config: dict[str, Any]) -> dict[str, Any]:
    """Remove the tables that version 4 no longer reads; containerd migrates them by itself."""
    old = {key: config.pop(key) for key in _BEFORE_4 if key in config}
    if isinstance(debug := config.get("debug"), dict) and "address" in debug:
        old["debug"] = config.pop("debug")
    return old


def _parsed(host: Host, image: NodeImage, builder: Builder) -> dict[str, Any]:
    return _read(_of_image(host, image.sif, builder.binary, tuple(builder.environment.items())))


def _read(text: str) -> dict[str, Any]:
    return patches.toml(text.replace(_RESTRICT, f'"{_RESTRICT}"'))


@functools.cache
def _of_image(host: Host, sif: Path, engine: Path, environment: tuple[tuple[str, str], ...]) -> str:
    with TemporaryDirectory(prefix="sykube-") as folder:
        file = Path(folder) / _FILE
        extract(host, sif, _IN_NODE, file, Builder(engine, dict(environment)))
        return file.read_text(encoding="utf-8")
