"""The one place that starts a process on the host."""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
import shlex
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired
from typing import Any

from sykube.errors import ExitCode, SykubeError
from sykube.host import signals

log = logging.getLogger("sykube.run")

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TAIL_LINES = 20
_GRACE_S = 5.0
_LOOK_S = 0.1
_PROXY_VARIABLES = (
    *("http_proxy", "https_proxy", "no_proxy"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
)
# For `env`: what only talks to the cluster, or is a part of it, uses no proxy.
WITHOUT_PROXIES: Mapping[str, None] = dict.fromkeys(_PROXY_VARIABLES)


@dataclass(frozen=True)
class Completed:
    """A process that has ended. `code` is negative after a signal."""

    argv: tuple[str, ...]
    code: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        return self.code == 0


class CommandError(SykubeError):
    """A command failed, timed out or could not be started."""

    def __init__(
        self,
        brief: str,
        argv: Sequence[str],
        output: str,
        resolution: str = "`sykube doctor` looks for the cause; -v shows every command.",
    ) -> None:
        tail = "\n".join(output.strip().splitlines()[-_TAIL_LINES:])
        details = f"$ {shlex.join(argv)}\n{tail}".rstrip()
        super().__init__(brief, details=details, resolution=resolution)
        self.output = output


def clean_environment(extra: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """An environment in which the caller's settings (APPTAINER_BIND, LANG …) change nothing.

    Args:
        extra: variables that are added, or taken out where they are None.
    """
    kept = ("TERM", *_PROXY_VARIABLES)
    env: dict[str, str | None] = {name: os.environ[name] for name in kept if name in os.environ}
    # The engine keeps its list of instances below HOME, which sudo may or may not have changed.
    env |= {"PATH": PATH, "LC_ALL": "C.UTF-8", "HOME": pwd.getpwuid(os.geteuid()).pw_dir}
    env |= dict(extra or {})
    return {name: value for name, value in env.items() if value is not None}


def run(
    argv: Sequence[str | Path],
    *,
    stdin: str | None = None,
    env: Mapping[str, str | None] | None = None,
    cwd: str | Path = "/",
    timeout: float = 60.0,
    check: bool = True,
    on_line: Callable[[str], None] | None = None,
    secret: bool = False,
    terminal: bool = False,
    wrapper: Sequence[str] = (),
    stop: threading.Event | None = None,
    grace: float = _GRACE_S,
) -> Completed:
    """Run a command to its end, with a clean environment, and log it.

    Args:
        argv: program and arguments; never a secret, since any user can read them.
        stdin: text for its standard input, which is empty otherwise.
        env: variables added to the clean environment, or taken out of it (None).
        timeout: seconds until it is killed.
        check: raise when it exits with anything but 0.
        on_line: called with each line of output as it comes.
        secret: keep the output out of the log and of errors.
        terminal: leave it the caller's terminal, so that it may ask a person for a passphrase; its
            output goes there and is not returned.
        wrapper: program and arguments that become the command; what is logged leaves them out.
        stop: ends it once that is set, where `on_line` is given; for what other threads start.
        grace: seconds from the request to end to the kill.

    Raises:
        CommandError: it was not found, timed out or, with `check`, failed.
        InterruptedError: `stop` was set.
    """
    words = tuple(str(word) for word in argv)
    log.debug("$ %s", shlex.join(words))
    settings = {"cwd": str(cwd), "env": clean_environment(env)}
    lines: list[str] = []
    if terminal:
        timed_out, code = _attached(words, settings, timeout)
        stdout = stderr = ""
    elif on_line:
        take = _line_taker(lines, on_line)
        timed_out, code = _stream(words, stdin or "", settings, timeout, take, grace, stop)
        stdout, stderr = "".join(lines), ""
    else:
        wrapped = (*wrapper, *words)
        timed_out, code, stdout, stderr = _collect(wrapped, stdin or "", settings, timeout, grace)
    output = "(its output may hold secrets)" if secret else stdout + stderr
    for line in [] if on_line else output.splitlines():
        log.debug("  %s", line)
    program = Path(words[0]).name
    if timed_out:
        raise CommandError(f"{program} did not end within {timeout:.0f} s", words, output)
    if check and code != 0:
        raise CommandError(f"{program} failed with exit code {code}", words, output)
    return Completed(words, code, stdout, stderr)


def start_detached(
    argv: Sequence[str | Path],
    *,
    output: Path,
    descriptors: Sequence[int] = (),
) -> int:
    """Start a program that goes on by itself, in a session of its own.

    Args:
        output: the file that it writes to.
        descriptors: what it inherits beside that.

    Returns:
        Its process number.

    Raises:
        CommandError: it could not be started.
    """
    words = [str(word) for word in argv]
    log.debug("$ %s &", shlex.join(words))
    try:
        with output.open("ab") as file:
            process = Popen(
                words, stdin=DEVNULL, stdout=file, stderr=file, env=clean_environment(),
                cwd="/", pass_fds=descriptors, start_new_session=True,
            )  # fmt: skip
    except OSError as error:
        raise _not_started(words, "/", error) from error
    # Not waited for: it outlives this process.
    process.returncode = 0
    return process.pid


def _collect(
    words: Sequence[str], stdin: str, settings: Mapping[str, Any], timeout: float, grace: float
) -> tuple[bool, int, str, str]:
    """Run a command whose output is wanted at its end: whether its time ran out, code, output.

    Not by sh, which takes longer to import than `status` takes.
    """
    try:
        process = Popen(words, stdin=PIPE, stdout=PIPE, stderr=PIPE, process_group=0, **settings)
    except OSError as error:
        raise _not_started(words, settings["cwd"], error) from error
    timed_out = False
    try:
        stdout, stderr = process.communicate(stdin.encode(), timeout)
    except TimeoutExpired:
        timed_out = True
        stdout, stderr = _end(process, signal.SIGKILL, grace)
    except BaseException:
        _end(process, signal.SIGTERM, grace)
        raise
    return timed_out, process.returncode, _text(stdout), _text(stderr)


def _attached(
    words: Sequence[str], settings: Mapping[str, Any], timeout: float
) -> tuple[bool, int]:
    """Run a command at the caller's terminal: whether its time ran out, and its code."""
    try:
        # In the caller's own group, or it could not read from the terminal; standard output is only
        # for results.
        process = Popen(words, stdout=2, **settings)
    except OSError as error:
        raise _not_started(words, settings["cwd"], error) from error
    try:
        return False, process.wait(timeout)
    except TimeoutExpired:
        process.kill()
        return True, process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise


def _end(process: Popen[bytes], number: int, grace: float) -> tuple[bytes, bytes]:
    """End a process and what it started; what it had written, as far as that is to be had."""
    written = b"", b""
    for each in dict.fromkeys((number, signal.SIGKILL)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, each)
        # Something of it that left the group may go on and hold its output open.
        try:
            return process.communicate(timeout=grace)
        except TimeoutExpired as error:
            written = error.output or b"", error.stderr or b""
    process.wait()
    return written


def _stream(
    words: Sequence[str],
    stdin: str,
    settings: Mapping[str, Any],
    timeout: float,
    take: Callable[[str], None],
    grace: float,
    stop: threading.Event | None,
) -> tuple[bool, int]:
    """Run a command whose output is wanted line by line: whether its time ran out, and its code."""
    import sh

    options: dict[str, Any] = {
        "_in": stdin,
        "_out": take,
        "_err": take,
        "_env": settings["env"],
        "_cwd": settings["cwd"],
        "_ok_code": range(256),
        "_tty_out": False,
        # Its own group, so that what it starts can be ended with it.
        "_new_group": True,
        "_bg": True,
        "_bg_exc": False,
        "_encoding": "utf-8",
        "_decode_errors": "replace",
    }
    try:
        process = sh.Command(words[0], search_paths=PATH.split(":"))(*words[1:], **options)
    except (sh.CommandNotFound, sh.ForkException) as error:
        raise _not_started(words, settings["cwd"], error) from error
    return _wait(process, timeout, grace, stop)


def _not_started(words: Sequence[str], cwd: str, error: Exception) -> CommandError:
    if Path(cwd).is_dir():
        cure = "Install it; `sykube doctor` names the package of what sykube needs."
        return CommandError(f"could not find the program {words[0]}", words, "", cure)
    return CommandError(f"could not start {words[0]} in {cwd}", words, str(error))


def _wait(
    process: Any, timeout: float, grace: float, stop: threading.Event | None
) -> tuple[bool, int]:
    """Wait for a process of sh and the last of its output; as _stream.

    It does not outlive this call, not even when sykube is interrupted.
    """
    import sh

    expired = threading.Event()

    def expire() -> None:
        expired.set()
        _signal(process, signal.SIGKILL)

    try:
        # sh has a timeout of its own, which only looks ten times a second.
        with _after(timeout, expire):
            while stop and process.is_alive():
                if stop.wait(_LOOK_S):
                    raise InterruptedError("stopped")
            process.wait()
    except sh.SignalException as error:
        return expired.is_set(), int(error.exit_code)
    except BaseException:
        _signal(process, signal.SIGTERM)
        with (
            # The last one: the signal came between its end and sh's note of it.
            contextlib.suppress(sh.SignalException, sh.ErrorReturnCode, ChildProcessError),
            _after(grace, lambda: _signal(process, signal.SIGKILL)),
        ):
            process.wait()
        raise
    return expired.is_set(), int(process.exit_code)


@contextlib.contextmanager
def _after(seconds: float, action: Callable[[], None]) -> Iterator[None]:
    """Do something when the body takes longer than that."""
    timer = threading.Timer(seconds, action)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _signal(process: Any, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.signal_group(number)


def _line_taker(lines: list[str], on_line: Callable[[str], None]) -> Callable[[str], None]:
    def take(line: str) -> None:
        lines.append(line)
        log.debug("  %s", line.rstrip("\n"))
        on_line(line.rstrip("\n"))

    return take


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def run_attached(
    argv: Sequence[str | Path], env: Mapping[str, str], until: float | None = None
) -> int:
    """Run a program as the caller would: with the caller's input, output, terminal and folder.

    It is handed the signals that this process gets meanwhile.

    Args:
        until: when it is asked to end (SIGTERM), in seconds since the epoch.

    Returns:
        Its exit code, as a shell has it.

    Raises:
        SykubeError: the program could not be started.
    """
    words = [str(word) for word in argv]
    found = shutil.which(words[0], path=env.get("PATH")) or words[0]
    before = signals.hold_back()
    try:
        try:
            child = os.posix_spawn(found, words, dict(env), setsigmask=before)
        except OSError as error:
            raise _not_found(words[0], error) from error
        return signals.attend(child, until)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def replace_process(argv: Sequence[str | Path], env: Mapping[str, str]) -> None:
    """Become another program: its input, output, terminal and exit code are then the caller's own.

    Raises:
        SykubeError: the program could not be started.
    """
    words = [str(word) for word in argv]
    try:
        os.execvpe(words[0], words, dict(env))
    except OSError as error:
        raise _not_found(words[0], error) from error


def _not_found(program: str, error: OSError) -> SykubeError:
    return SykubeError(
        f"could not start {program}: {error.strerror}",
        resolution="`sykube doctor` names what is missing.",
        exit_code=ExitCode.FAILED,
    )
