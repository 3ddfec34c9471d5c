"""Files of images that run a few programs of this machine."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path


def make_root(folder: Path, programs: Sequence[str]) -> Path:
    """A root folder with these programs, and the libraries that they need."""
    files = [Path(program) for program in programs]
    for program in programs:
        listed = subprocess.run(
            ["ldd", program], capture_output=True, text=True, check=True, timeout=60
        ).stdout
        files += map(Path, re.findall(r"(/\S+) \(0x", listed))
    for file in files:
        target = folder / file.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
        target.chmod(0o755)
    for name in ("dev", "proc", "sys", "mnt", "etc", "tmp"):
        (folder / name).mkdir(exist_ok=True)
    return folder
