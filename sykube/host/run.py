"""The one place that starts a process on the host."""

from __future__ import annotations

import logging
import os
import pwd
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sh

from sykube.errors import ExitCode, SykubeError

log = logging.getLogger("sykube.run")

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TAIL_LINES = 20
_KEPT_VARIABLES = (
    "TERM",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
)


@dataclass(frozen=True)
class Completed:
    """A process that has ended. `code` is negative after a signal."""

    argv: tuple[str, ...]
    code: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        """Whether the process exited with 0."""
        return self.code == 0


class CommandError(SykubeError):
    """A command failed, timed out or could not be started."""

    def __init__(self, brief: str, argv: Sequence[str], output: str) -> None:
        tail = "\n".join(output.strip().splitlines()[-_TAIL_LINES:])
        super().__init__(brief, details=f"$ {shlex.join(argv)}\n{tail}".rstrip())
        self.output = output


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment in which the caller's settings (APPTAINER_BIND, LANG …) change nothing."""
    env = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    # The engine keeps its list of instances below HOME, which sudo may or may not have changed.
    env |= {"PATH": PATH, "LC_ALL": "C.UTF-8", "HOME": pwd.getpwuid(os.geteuid()).pw_dir}
    return env | dict(extra or {})


def run(
    argv: Sequence[str | Path],
    *,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | Path = "/",
    timeout: float = 60.0,
    check: bool = True,
    on_line: Callable[[str], None] | None = None,
    secret: bool = False,
) -> Completed:
    """Run a command to its end, with a clean environment, and log it.

    Args:
        argv: program and arguments; never a secret, since any user can read them.
        stdin: text for its standard input, which is empty otherwise.
        env: variables added to the clean environment.
        timeout: seconds until it is killed.
        check: raise when it exits with anything but 0.
        on_line: called with each line of output as it comes.
        secret: keep the output out of the log and of errors.

    Raises:
        CommandError: it was not found, timed out or, with `check`, failed.
    """
    words = tuple(str(word) for word in argv)
    log.debug("$ %s", shlex.join(words))
    out: list[str] = []
    err: list[str] = []

    def collect(lines: list[str]) -> Callable[[str], None]:
        def take(line: str) -> None:
            lines.append(line)
            if not secret:
                log.debug("  %s", line.rstrip("\n"))
            if on_line:
                on_line(line.rstrip("\n"))

        return take

    def output() -> str:
        return "(its output may hold secrets)" if secret else "".join(out + err)

    options: dict[str, Any] = {
        "_in": stdin if stdin is not None else "",
        "_out": collect(out),
        "_err": collect(err),
        "_env": clean_environment(env),
        "_cwd": str(cwd),
        "_timeout": timeout,
        "_ok_code": range(256),
        "_tty_out": False,
        "_return_cmd": True,
        "_decode_errors": "replace",
    }
    try:
        command = sh.Command(words[0], search_paths=PATH.split(":"))
    except sh.CommandNotFound as error:
        raise CommandError(f"could not find the program {words[0]}", words, "") from error
    try:
        code = command(*words[1:], **options).exit_code
    except sh.TimeoutException as error:
        raise CommandError(
            f"{Path(words[0]).name} did not end within {timeout:.0f} s", words, output()
        ) from error
    except sh.SignalException as error:
        code = error.exit_code
    done = Completed(words, code, "".join(out), "".join(err))
    if check and not done.ok:
        raise CommandError(
            f"{Path(words[0]).name} failed with exit code {code}", words, output()
        )
    return done


def replace_process(argv: Sequence[str | Path], env: Mapping[str, str]) -> None:
    """Become another program: its input, output, terminal and exit code are then the caller's own.

    Raises:
        SykubeError: the program could not be started.
    """
    words = [str(word) for word in argv]
    try:
        os.execvpe(words[0], words, dict(env))
    except OSError as error:
        raise SykubeError(
            f"could not start {words[0]}: {error.strerror}", exit_code=ExitCode.FAILED
        ) from error
