"""What sykube relies on in the file systems of cgroups, version 1 and 2."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

# A new folder in a hierarchy of version 1 by its name, or in that of version 2: unified.
Make = Callable[[str], Path]
# What is in a new folder that sykube reads or writes.
NEW = [
    ("cpu", "cpu.cfs_quota_us", "-1\n"),
    ("cpuset", "cpuset.cpus", "\n"),
    ("cpuset", "cpuset.mems", "\n"),
    ("freezer", "freezer.state", "THAWED\n"),
    ("memory", "memory.limit_in_bytes", "9223372036854771712\n"),
    ("pids", "pids.max", "max\n"),
    ("unified", "cgroup.freeze", "0\n"),
    ("unified", "cgroup.subtree_control", ""),
]
CHANGES = [
    ("cpu", "cpu.cfs_quota_us", ["150000", "-1"]),
    ("cpuset", "cpuset.cpus", ["0"]),
    ("freezer", "freezer.state", ["FROZEN", "THAWED"]),
    ("memory", "memory.limit_in_bytes", ["1073741824"]),
    ("pids", "pids.max", ["100", "max"]),
    ("unified", "cgroup.freeze", ["1", "0"]),
]
REFUSED = [
    ("cpu", "cpu.cfs_quota_us", "many", errno.EINVAL),
    ("freezer", "freezer.state", "COLD", errno.EINVAL),
    ("memory", "memory.limit_in_bytes", "much", errno.EINVAL),
    ("pids", "pids.max", "some", errno.EINVAL),
    ("unified", "cgroup.freeze", "2", errno.ERANGE),
    ("unified", "cgroup.subtree_control", "+absent", errno.EINVAL),
    ("memory", "absent", "1", errno.EACCES),
    ("unified", "absent", "1", errno.EACCES),
]
HIERARCHIES = ["cpu", "cpuset", "freezer", "memory", "pids", "unified"]


class CgroupContract:
    """A subclass has the fixtures `make`, and `process`: one that can be put into a cgroup."""

    @pytest.mark.parametrize("hierarchy", HIERARCHIES)
    def test_a_folder_comes_with_its_files_and_goes_with_them(
        self, make: Make, hierarchy: str
    ) -> None:
        folder = make(hierarchy)
        assert (folder / "cgroup.procs").read_text() == ""
        assert (folder / "tasks").exists() is (hierarchy != "unified")
        assert (folder / "cgroup.controllers").exists() is (hierarchy == "unified")
        with pytest.raises(FileExistsError):
            folder.mkdir()
        folder.mkdir(exist_ok=True)
        folder.rmdir()
        assert not folder.exists()
        with pytest.raises(FileNotFoundError):
            folder.rmdir()

    @pytest.mark.parametrize(("hierarchy", "file", "value"), NEW)
    def test_what_a_new_one_holds(self, make: Make, hierarchy: str, file: str, value: str) -> None:
        assert (make(hierarchy) / file).read_text() == value

    @pytest.mark.parametrize(("hierarchy", "file", "values"), CHANGES)
    def test_what_was_written_is_read(
        self, make: Make, hierarchy: str, file: str, values: list[str]
    ) -> None:
        folder = make(hierarchy)
        for value in values:
            (folder / file).write_text(value)
            assert (folder / file).read_text() == f"{value}\n"

    def test_no_limit_of_memory_reads_as_the_largest(self, make: Make) -> None:
        file = make("memory") / "memory.limit_in_bytes"
        before = file.read_text()
        file.write_text("1073741824")
        file.write_text("-1")
        assert file.read_text() == before

    @pytest.mark.parametrize(("hierarchy", "file", "value", "number"), REFUSED)
    def test_what_is_refused(
        self, make: Make, hierarchy: str, file: str, value: str, number: int
    ) -> None:
        folder = make(hierarchy)
        before = sorted(each.name for each in folder.iterdir())
        with pytest.raises(OSError, match=r"\[Errno") as raised:
            (folder / file).write_text(value)
        assert raised.value.errno == number
        assert sorted(each.name for each in folder.iterdir()) == before

    @pytest.mark.parametrize("hierarchy", HIERARCHIES)
    def test_one_with_another_in_it_stays(self, make: Make, hierarchy: str) -> None:
        folder = make(hierarchy)
        (folder / "inner").mkdir()
        with pytest.raises(OSError, match="busy") as raised:
            folder.rmdir()
        assert raised.value.errno == errno.EBUSY
        (folder / "inner").rmdir()
        folder.rmdir()

    @pytest.mark.parametrize("hierarchy", ["freezer", "memory", "unified"])
    def test_one_with_a_process_in_it_stays(self, make: Make, hierarchy: str, process: int) -> None:
        folder = make(hierarchy)
        (folder / "cgroup.procs").write_text(str(process))
        assert (folder / "cgroup.procs").read_text() == f"{process}\n"
        with pytest.raises(OSError, match="busy") as raised:
            folder.rmdir()
        assert raised.value.errno == errno.EBUSY
