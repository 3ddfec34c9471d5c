"""SIF images, made into container images.

Pods run what `apptainer run` would, in the environment that it would have.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from sykube.host import engines
from sykube.host.files import unreadable
from sykube.host.host import Host
from sykube.host.run import CommandError
from sykube.image import build, oci, sif_header
from sykube.image.build import Builder
from sykube.image.oci import LAYER, MANIFEST, ContainerImage, Staging, made_manifest
from sykube.rootless import unpacked

_TIMEOUT_S = 3600.0
RUN = ".singularity.d/actions/run"
_RUNSCRIPT = ".singularity.d/runscript"
# What the engine adds to the environment for itself.
_OF_ENGINE = frozenset(
    ["HOME", "LANG", "OLDPWD", "PROMPT_COMMAND", "PS1", "PWD", "SHLVL", "TERM", "USER", "_"]
)
_PREFIXES_OF_ENGINE = ("APPTAINER", "SINGULARITY", "SING_USER_DEFINED")
_BUILD_DATE = "org.label-schema.build-date"
_LIBRARIES = "/.singularity.d/libs"


def is_sif(file: Path) -> bool:
    """Whether a file looks like a SIF.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return file.is_file() and build.is_sif(file)
    except OSError as error:
        raise unreadable(file, error) from error


def convert(
    host: Host, file: Path, name: str, folder: Path, builder: Builder, *, shown: Path | None = None
) -> ContainerImage:
    """Make a SIF into a container image of one layer, with its parts in a folder.

    Args:
        name: of the image, in full.
        shown: what the SIF is called in errors, instead of its own path.

    Raises:
        UsageError: it is damaged, or for other machines.
    """
    header = sif_header.check(host, file)
    staging, root, layer = Staging(folder), folder / "root", folder / "layer.tar"
    try:
        unpack(host, file, root, folder, builder, shown=shown or file)
        # A user can mount no SIF.
        image = root if host.grants.rootless else file
        environment = _environment(host, image, builder)
        entrypoint, found = _entrypoint(root), _labels(root)
        _pack(host, root, layer, max(header.made, 1))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    blob = staging.adopt(layer)
    config = staging.add_json(
        {
            "architecture": oci.machine(host),
            "os": "linux",
            "config": {
                "Entrypoint": entrypoint,
                "Env": environment,
                "Labels": found,
            },
            "rootfs": {"type": "layers", "diff_ids": [blob.digest]},
        }
    )
    manifest = staging.add_json(made_manifest(config, [(blob, LAYER)]))
    return ContainerImage(name, MANIFEST, manifest, config, (blob,))


def unpack(
    host: Host, file: Path, root: Path, folder: Path, builder: Builder, *, shown: Path
) -> None:
    """Unpack a SIF into a folder that is not there yet.

    Args:
        folder: where the engine may work.
        shown: what the SIF is called in errors.

    Raises:
        UsageError: it is damaged.
    """
    if host.grants.rootless:
        unpacked.unpack(host, file, root)
        return
    variables = engines.probe(host, builder.binary).work_environment(folder)
    try:
        host.run(
            [builder.binary, "build", "--sandbox", root, file],
            env={**builder.environment, **variables},
            timeout=_TIMEOUT_S,
        )
    except CommandError as error:
        raise sif_header.damaged(shown, error.details) from error


def _entrypoint(root: Path) -> list[str]:
    """What runs in a pod: the engine's own start, which reads the environment first."""
    if (root / RUN).exists():
        return [f"/{RUN}"]
    script = 'for each in /.singularity.d/env/*.sh; do . "$each"; done; exec "$0" "$@"'
    start = f"/{_RUNSCRIPT}" if (root / _RUNSCRIPT).exists() else "/bin/sh"
    return ["/bin/sh", "-c", script, start]


def _labels(root: Path) -> dict[str, str]:
    """Its labels without the time of unpacking, which the engine has put into the file."""
    file = root / ".singularity.d/labels.json"
    # A link in the image may lead to a file of the host.
    if not file.is_file() or not file.resolve().is_relative_to(root.resolve()):
        return {}
    found = labels(file.read_text(encoding="utf-8", errors="replace"))
    if found:
        file.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return found


def labels(text: str) -> dict[str, str]:
    """The labels in the text of a SIF's file of them, without the time of its build."""
    try:
        found = {str(key): str(value) for key, value in json.loads(text).items()}
    except (ValueError, AttributeError):
        return {}
    found.pop(_BUILD_DATE, None)
    return found


def _pack(host: Host, root: Path, layer: Path, made: int) -> None:
    """Archive a root; the same SIF always makes the same archive, so that it is known again.

    Args:
        made: when the SIF was, in seconds since the epoch: what is newer comes from unpacking it.
    """
    host.run(
        [
            "tar", "--create", "--sort=name", f"--mtime=@{made}", "--clamp-mtime",
            "--numeric-owner", "--format=posix",
            "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
            "--xattrs", "--xattrs-include=security.capability",
            f"--file={layer}", f"--directory={root}", ".",
        ],
        timeout=_TIMEOUT_S,
    )  # fmt: skip


def _environment(host: Host, image: Path, builder: Builder) -> list[str]:
    """The variables that it sets, also for commands that are not its runscript.

    Only its own scripts know them, so they run: without capabilities, network or files of the host.
    """
    fences = ["--containall", "--cleanenv", "--no-privs", "--net", "--network", "none"]
    done = host.run(
        [builder.binary, "--silent", "exec", *fences, "--pwd", "/", image, "env", "-0"],
        env=builder.environment,
        check=False,
        timeout=60,
        # Images hold keys now and then.
        secret=True,
    )
    found = []
    for line in done.stdout.split("\0"):
        name, equals, value = line.partition("=")
        if not equals or name in _OF_ENGINE or name.startswith(_PREFIXES_OF_ENGINE):
            continue
        if name == "LD_LIBRARY_PATH":
            value = value.removesuffix(_LIBRARIES).removesuffix(":")
        if value:
            found.append(f"{name}={value}")
    return sorted(found)
