"""The program apptainer of a fake host, but for instances (tests.fakes.engine)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests import containers
from tests.fakes.answers import Answer
from tests.fakes.files import fill
from tests.fakes.image import CONTAINERD_CONFIG, IMAGE_FILES, kubernetes_of, write_sif
from tests.fakes.signatures import KEY_LIST, PUBLIC_KEY, TRUSTED, signed_by


class Apptainer:
    """Builds, reads and signs images."""

    def __init__(self, etc: Path) -> None:
        self.etc = etc
        # Told of a control plane whose etcd a snapshot was put back into.
        self.restored: Callable[[str, dict[str, Any]], None] = lambda _name, _objects: None

    def __call__(self, words: list[str]) -> Answer:
        """What is not asked of a node: its version, its settings, building and copying out."""
        match words:
            case ["--version"]:
                return 0, "apptainer version 1.4.5\n", ""
            case ["buildcfg"]:
                return 0, f"PREFIX=/usr\nAPPTAINER_CONF_FILE={self.etc}/apptainer.conf\n", ""
            case ["build", "--sandbox", root, definition]:
                assert Path(definition).is_file()
                for made in ("opt/kubernetes/bin", "opt/runtime", "opt/container-images"):
                    (Path(root) / made).mkdir(parents=True)
                if (name := Path(definition).stem).startswith("slurm"):
                    (Path(root) / f"opt/container-images/{name}.tar").touch()
                return 0, "INFO:    Build complete\n", ""
            case ["build", *_, sif, definition]:
                assert Path(definition).is_file()
                write_sif(Path(sif), Path(definition).read_text(encoding="utf-8"))
                return 0, "INFO:    Build complete\n", ""
            case ["--silent", "exec", *options, "cp", path, target]:
                bind = options[options.index("--bind") + 1]
                folder, inside = bind.split(":")
                text = IMAGE_FILES.get(path, "")
                if path == "/etc/containerd/config.toml":
                    pause = f"pause:{kubernetes_of(Path(options[-1]).parent)}"
                    text = CONTAINERD_CONFIG.replace("@PAUSE@", pause)
                assert text, f"the fake image has no {path}"
                (Path(folder) / Path(target).relative_to(inside)).write_text(text)
                return 0, "", ""
            case ["--silent", "exec", "--cleanenv", *options]:
                bound = Path(options[options.index("--bind") + 1].partition(":")[0])
                sif, program, *arguments = options[options.index("--pwd") + 2 :]
                if program == "sh":
                    program, *arguments = arguments[2:]
                self.in_image(program, arguments, Path(sif).parent, bound)
                return 0, "", ""
            case ["verify", "--local", "--json", sif]:
                return self._verify(Path(sif))
            case ["key", "list", *_]:
                return 0, KEY_LIST, ""
            case ["key", "import", file]:
                assert Path(file).read_text(encoding="utf-8") == PUBLIC_KEY
                return 0, "", ""
            case ["key", "export", "--armor", file]:
                Path(file).write_text(PUBLIC_KEY, encoding="utf-8")
                return 0, "", ""
            case ["sign", "--keyidx", "1", sif]:
                with Path(sif).open("ab") as stream:
                    stream.write(b"signed")
                return 0, "", ""
            case ["sif", "add", *_, sif, file]:
                with Path(sif).open("ab") as stream:
                    stream.write(Path(file).read_bytes())
                return 0, "", ""
            case ["sif", "list", _]:
                return 0, "3    |1       |NONE    |36864-356352  |FS (Squashfs/*System/amd64)\n", ""
        raise AssertionError(f"the fake apptainer does not know: {words}")

    def in_image(self, program: str, arguments: list[str], image: Path, folder: Path) -> None:
        """A program of a node image, which sees a folder of the host as /mnt."""
        match program, arguments:
            case "export-images", names:
                assert {*names} <= {*(image / "container-images").read_text().split()}
                made = {name: containers.Image([containers.tar({name: b""})], {}) for name in names}
                containers.oci_archive_of(folder / "images.tar", made)
            case "cp", ["-r", "/usr/bin/kubeadm", "/usr/share/sykube/kubeadm-patches", "/mnt/"]:
                fill(folder, {"kubeadm": kubernetes_of(image)})
                fill(folder / "kubeadm-patches", {"etcd+strategic.yaml": "spec: {}"})
            case "restore-etcd", [inside, "/mnt/etcd.db", name, members, peer]:
                assert peer in members
                assert inside == f"/mnt/{name}/etcd"
                assert not (folder / name / "etcd").exists()
                fill(folder / name / "etcd/member", {"data": "restored"})
                self.restored(name, json.loads((folder / "etcd.db").read_text()))
            case unknown:
                raise AssertionError(f"the fake image does not know: {unknown}")

    def _verify(self, sif: Path) -> Answer:
        """As Apptainer 1.4.5 answered for an image that is signed by TRUSTED, and for others."""
        if b"signed" in sif.read_bytes():
            return (
                0,
                json.dumps(signed_by(TRUSTED)),
                "INFO:    Verifying image with PGP key material\n",
            )
        words = "integrity: signature not found for object group 1"
        nothing = json.dumps({"Signatures": 0, "SignerKeys": None})
        return 255, nothing, f"FATAL:   Failed to verify container: {words}\n"
