"""Errors of sykube and the exit codes they end in."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """Exit codes of every command, and what they mean; also in docs/exit-codes.md."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> ExitCode:
        member = int.__new__(cls, code)
        member._value_, member.meaning = code, meaning
        return member

    OK = 0, "success"
    FAILED = 1, "the command failed; its error says why and what to do next"
    USAGE = 2, "wrong use: an unknown option, a bad value, a configuration file with errors"
    STOPPED = 3, "the cluster is stopped"
    DEGRADED = 4, "the cluster runs, but something in it is not healthy"
    NO_SUCH_CLUSTER = 5, "there is no cluster of that name"
    HOST_NOT_READY = 6, "the host lacks something; each finding comes with its fix"
    LOCKED = 7, "another sykube command works on the cluster"
    NO_SUCH_SNAPSHOT = 8, "there is no snapshot of that name"
    UNTRUSTED = 9, "an image is not wholly and rightly signed by the key that you trust"
    ELSEWHERE = 10, "the cluster belongs to another host that shares your folders"
    NO_ROOM = 11, "pods have no room in the cluster, and wait for it"
    INTERRUPTED = 130, "interrupted by a signal"


class SykubeError(Exception):
    """A failure that a person can act on.

    Args:
        brief: one line: what went wrong.
        details: why, as far as it is known: a command's own output, a list of findings.
        resolution: what to do next.
        exit_code: what the command exits with, if not the code of the class.
    """

    default_code = ExitCode.FAILED

    def __init__(
        self, brief: str, *, details: str = "", resolution: str = "",
        exit_code: ExitCode | None = None,
    ) -> None:  # fmt: skip
        super().__init__(brief)
        self.brief, self.details, self.resolution = brief, details, resolution
        self.exit_code = self.default_code if exit_code is None else exit_code


class UsageError(SykubeError):
    """The user's input is wrong; nothing was changed."""

    default_code = ExitCode.USAGE


class HostError(SykubeError):
    """The host lacks something that sykube needs; nothing was changed."""

    default_code = ExitCode.HOST_NOT_READY
