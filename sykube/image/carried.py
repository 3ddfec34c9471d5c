"""What a node image brings: its container images, for nodes that were started from another one."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from sykube.host.host import Host
from sykube.image import inside, layout
from sykube.image.build import Builder
from sykube.image.container import ContainerImage
from sykube.image.node_image import NodeImage

_TIMEOUT_S = 600.0
_ARCHIVE = "images.tar"
# The image holds them unpacked, in a store of containerd (definitions/node.def.j2): containerd
# itself, on copies of its databases and links to the rest, says what belongs to which.
_EXPORT = r"""
set -eu
seed=/usr/share/sykube/containerd root=/mnt/store/root
mkdir -p $root
(cd $seed && find . -type d ! -path '*/snapshots/*' -exec mkdir -p "$root/{}" \;)
(cd $seed && find . -name '*.db' -exec cp {} "$root/{}" \;)
for blob in $seed/io.containerd.content.v1.content/blobs/sha256/*; do
    ln -s "$blob" $root/io.containerd.content.v1.content/blobs/sha256/
done
cat > /mnt/store/config.toml <<'EOF'
version = 2
root = "/mnt/store/root"
state = "/mnt/store/state"
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"
]
[grpc]
  address = "/mnt/store/socket"
EOF
containerd --config /mnt/store/config.toml > /mnt/store/log 2>&1 &
pid=$!
trap 'kill $pid 2> /dev/null || true; wait' EXIT
ctr="ctr --connect-timeout 1s --address /mnt/store/socket --namespace k8s.io"
for _ in $(seq 100); do
    ! $ctr version > /dev/null 2>&1 || break
    kill -0 $pid || { cat /mnt/store/log >&2; exit 1; }
    sleep 0.1
done
$ctr images export /mnt/images.tar "$@"
"""
_TOOLS = r"""
set -eu
cp /usr/bin/kubeadm /mnt/
cp -r /usr/share/sykube/kubeadm-patches /mnt/
"""


def container_images(
    host: Host, image: NodeImage, names: Sequence[str], folder: Path, builder: Builder
) -> list[ContainerImage]:
    """Some of the container images of a node image, with their parts in a folder.

    Raises:
        SykubeError: it does not have them.
    """
    if not names:
        return []
    store = folder / "store"
    try:
        store.mkdir()
        command = ["sh", "-c", _EXPORT, "export-images", *names]
        inside.run_in(host, image.sif, command, folder, builder, timeout=_TIMEOUT_S)
    finally:
        shutil.rmtree(store, ignore_errors=True)
    try:
        return layout.read(host, folder / _ARCHIVE, folder)
    finally:
        (folder / _ARCHIVE).unlink()


def tools(host: Host, image: NodeImage, folder: Path, builder: Builder) -> None:
    """Put a node image's kubeadm and its folder kubeadm-patches into a folder.

    Raises:
        CommandError: the image cannot be read.
    """
    command = ["sh", "-c", _TOOLS, "copy-tools"]
    inside.run_in(host, image.sif, command, folder, builder, timeout=_TIMEOUT_S)
