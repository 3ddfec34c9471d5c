"""containerd's configuration where the user has patches of it: that of the node image, merged.

containerd's own `imports` will not do: before 2.0, they replace the whole table of a plugin
(mergeConfig of its config.go). Nor will a program in the node: its Python may lack tomllib.
"""

from __future__ import annotations

import functools
from pathlib import Path
from tempfile import TemporaryDirectory

from sykube import patches
from sykube.cluster.cluster import Cluster
from sykube.image.build import Builder, extract
from sykube.node.node import Node

_FILE = "containerd.toml"
_IN_NODE = "/etc/containerd/config.toml"
# node-init puts true or false in its place.
_RESTRICT = "@RESTRICT@"


def files(cluster: Cluster, node: Node) -> dict[str, str]:
    """The file for the node's /etc/sykube, by its name; none without patches.

    Raises:
        SykubeError: the node image's own configuration cannot be read.
    """
    found = cluster.state.spec.containerd_config_patches
    if not found:
        return {}
    import tomli_w

    environment = tuple(cluster.state.engine_environment.items())
    text = _of_image(cluster.image_of(node).sif, Path(cluster.state.engine), environment)
    config = patches.toml(text.replace(_RESTRICT, f'"{_RESTRICT}"'))
    for patch in found:
        config = patches.merge(config, patches.toml(patch.text))
    return {_FILE: tomli_w.dumps(config).replace(f'"{_RESTRICT}"', _RESTRICT)}


def binds(cluster: Cluster, node: Node) -> list[tuple[Path, str]]:
    """Lets the node see that file in place of its image's; node-init reads it from there."""
    patched = cluster.state.spec.containerd_config_patches
    return [(node.config / _FILE, _IN_NODE)] if patched else []


@functools.cache
def _of_image(sif: Path, engine: Path, environment: tuple[tuple[str, str], ...]) -> str:
    with TemporaryDirectory(prefix="sykube-") as folder:
        file = Path(folder) / _FILE
        extract(sif, _IN_NODE, file, Builder(engine, dict(environment)))
        return file.read_text(encoding="utf-8")
