"""Cgroup file systems in a folder."""

from __future__ import annotations

import errno
import os
import re
from typing import Any

from tests.fakes.files import REAL_PATH, fill, write

# Files of a new cgroup and what they hold, by v2 controller and by v1 hierarchy.
V2_FILES = {
    "cpu": {"cpu.max": "max 100000\n", "cpu.stat": "usage_usec 2500000\nuser_usec 2000000\n"},
    "memory": {
        "memory.max": "max\n",
        "memory.current": "3000000\n",
        "memory.stat": "anon 1000\ninactive_file 1000000\n",
    },
    "pids": {"pids.max": "max\n"},
}


V1_FILES = {
    "cpu,cpuacct": {"cpu.cfs_quota_us": "-1\n", "cpuacct.usage": "2500000000\n"},
    "cpuset": {"cpuset.cpus": "\n", "cpuset.mems": "\n"},
    "freezer": {"freezer.state": "THAWED\n"},
    "memory": {
        "memory.limit_in_bytes": "9223372036854771712\n",
        "memory.usage_in_bytes": "3000000\n",
        "memory.stat": "inactive_file 1\ntotal_inactive_file 1000000\n",
    },
    "pids": {"pids.max": "max\n"},
}


_ONE_VALUE = {
    "cgroup.freeze",
    *(name for files in (*V1_FILES.values(), *V2_FILES.values()) for name in files),
}


# What the kernel takes; whatever is not here takes anything.
_VALUES = {
    "cpu.cfs_quota_us": r"-1|\d+",
    "cpu.max": r"(max|\d+)( \d+)?",
    "freezer.state": "FROZEN|THAWED",
    "memory.limit_in_bytes": r"-1|\d+",
    "memory.max": r"max|\d+",
    "pids.max": r"max|\d+",
    "cgroup.freeze": "[01]",
}
# Of version 2, whether a cgroup has them or not.
_CONTROLLERS = {"cpu", "cpuset", "io", "memory", "pids"}


class CgroupPath(REAL_PATH):  # type: ignore[misc, valid-type]
    """A path in a fake cgroup file system: folders come with their files and go with them."""

    def mkdir(self, *args: Any, **kwargs: Any) -> None:
        if self.is_dir():
            super().mkdir(*args, **kwargs)
            return
        super().mkdir(*args, **kwargs)
        files = {"cgroup.procs": ""}
        if os.path.exists(f"{self.parent}/cgroup.controllers"):
            handed_on = (self.parent / "cgroup.subtree_control").read_text()
            files |= {"cgroup.controllers": handed_on, "cgroup.subtree_control": ""}
            files["cgroup.freeze"] = "0\n"
            for controller in handed_on.split():
                files |= V2_FILES.get(controller, {})
        else:
            files["tasks"] = ""
            # The hierarchy is known by its name; its own root has none of these files.
            for hierarchy in self.parts:
                files |= V1_FILES.get(hierarchy, {})
        for name, text in files.items():
            write(f"{self}/{name}", text)

    def write_text(self, data: str, *_: Any, **__: Any) -> int:
        if not self.exists():
            # The kernel lets nobody make a file there.
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        if not re.fullmatch(_VALUES.get(self.name, ".*"), data.strip(), re.DOTALL):
            number = errno.ERANGE if self.name == "cgroup.freeze" else errno.EINVAL
            raise OSError(number, os.strerror(number), str(self))
        if self.name == "cgroup.subtree_control":
            offered = (self.parent / "cgroup.controllers").read_text().split()
            unknown = {word[1:] for word in data.split()} - _CONTROLLERS
            if unknown:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(self))
            if any(word[1:] not in offered for word in data.split()):
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(self))
            on = set(self.read_text().split())
            for word in data.split():
                (on.add if word[0] == "+" else on.discard)(word[1:])
            data = " ".join(sorted(on)) + "\n"
        elif self.name == "memory.limit_in_bytes" and data == "-1":
            data = V1_FILES["memory"][self.name]
        elif self.name == "cgroup.procs":
            # All that are in it from now on: what writes to the fake one knows them.
            data = data.strip() and data.strip() + "\n"
        elif self.name in _ONE_VALUE:
            data = data.strip() + "\n"
        return write(self, data, flags=0)

    def rmdir(self) -> None:
        with os.scandir(self) as found:
            entries = list(found)
        procs = REAL_PATH(self, "cgroup.procs")
        if any(entry.is_dir() for entry in entries) or (
            procs.exists() and procs.read_text().strip()
        ):
            raise OSError(errno.EBUSY, "Device or resource busy", str(self))
        for entry in entries:
            os.unlink(entry)
        super().rmdir()


def mount_cgroups(root: CgroupPath, version: int) -> None:
    """Make the root of the hierarchies as systemd and the kernel do."""
    REAL_PATH(root).mkdir(parents=True)
    if version == 2:
        fill(root, {"cgroup.controllers": "cpu cpuset memory pids\n"})
        # As systemd leaves it.
        fill(root, {"cgroup.subtree_control": "cpu cpuset memory pids\n"})
        fill(root, {"cgroup.procs": "1\n"})
        return
    for name in (*V1_FILES, "systemd"):
        fill(root / name, {"tasks": "1\n", "cgroup.procs": "1\n"})
    fill(root / "cpuset", {"cpuset.cpus": "0-1\n", "cpuset.mems": "0\n"})
    # cgroup2 beside v1: no controllers, no tasks
    fill(root / "unified", {"cgroup.procs": "1\n"})
    for name in ("cpu", "cpuacct"):
        (root / name).symlink_to("cpu,cpuacct")
