"""Debian 13's qemu, which the guest needs on every host."""

from __future__ import annotations

from pathlib import Path

from tests.vm import cache

_PACKAGES = ("qemu-system-x86",)


def command() -> list[str | Path]:
    """How qemu is called.

    With Debian 12's, 7.2, the guest's kernel panicked now and then, at an instruction that another
    of its processors had just changed.

    Raises:
        VmError: the package could not be had.
    """
    root = cache.folder("qemu", [cache.SUITE, _PACKAGES], "Fetching qemu", _make) / "root"
    loader = root / "usr/lib64/ld-linux-x86-64.so.2"
    firmware = (root / "usr/share/qemu", root / "usr/share/seabios")
    return [
        *(loader, "--library-path", root / "usr/lib/x86_64-linux-gnu"),
        root / "usr/bin/qemu-system-x86_64",
        *(word for folder in firmware for word in ("-L", folder)),
    ]


def _make(work: Path) -> None:
    without = '--aptopt=APT::Install-Recommends "false"'
    cache.debian(work / "root", "extract", _PACKAGES, without)
