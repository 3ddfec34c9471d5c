"""Errors of sykube and the exit codes they end in."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """Exit codes of every command, also listed in docs/exit-codes.md."""

    OK = 0
    FAILED = 1
    USAGE = 2
    STOPPED = 3
    DEGRADED = 4
    NO_SUCH_CLUSTER = 5
    HOST_NOT_READY = 6
    LOCKED = 7
    NO_SUCH_SNAPSHOT = 8
    UNTRUSTED = 9
    INTERRUPTED = 130

    @property
    def meaning(self) -> str:
        """One line for the documentation."""
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.OK: "success",
    ExitCode.FAILED: "the command failed; its error says why and what to do next",
    ExitCode.USAGE: "wrong use: an unknown option, a bad value, a configuration file with errors",
    ExitCode.STOPPED: "the cluster is stopped",
    ExitCode.DEGRADED: "the cluster runs, but something in it is not healthy",
    ExitCode.NO_SUCH_CLUSTER: "there is no cluster of that name",
    ExitCode.HOST_NOT_READY: "the host lacks something; each finding comes with its fix",
    ExitCode.LOCKED: "another sykube command works on the cluster",
    ExitCode.NO_SUCH_SNAPSHOT: "there is no snapshot of that name",
    ExitCode.UNTRUSTED: "an image is not wholly and rightly signed by the key that you trust",
    ExitCode.INTERRUPTED: "interrupted by a signal",
}


class SykubeError(Exception):
    """A failure that a person can act on.

    Args:
        brief: one line: what went wrong.
        details: why, as far as it is known: a command's own output, a list of findings.
        resolution: what to do next.
        exit_code: what the command exits with.
    """

    def __init__(
        self,
        brief: str,
        *,
        details: str = "",
        resolution: str = "",
        exit_code: ExitCode = ExitCode.FAILED,
    ) -> None:
        super().__init__(brief)
        self.brief = brief
        self.details = details
        self.resolution = resolution
        self.exit_code = exit_code


class UsageError(SykubeError):
    """The user's input is wrong; nothing was changed."""

    def __init__(self, brief: str, *, details: str = "", resolution: str = "") -> None:
        super().__init__(brief, details=details, resolution=resolution, exit_code=ExitCode.USAGE)


class HostError(SykubeError):
    """The host lacks something that sykube needs; nothing was changed."""

    def __init__(self, brief: str, *, details: str = "", resolution: str = "") -> None:
        super().__init__(
            brief, details=details, resolution=resolution, exit_code=ExitCode.HOST_NOT_READY
        )
