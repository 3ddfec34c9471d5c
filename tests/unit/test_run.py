"""The one place that starts processes, with real ones."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sykube.errors import SykubeError
from sykube.host import run as host_run
from sykube.host.run import (
    CommandError,
    clean_environment,
    replace_process,
    run,
    run_attached,
)

# Output at the end is collected in another way than line by line.
either_way = pytest.mark.parametrize(
    "options", [{}, {"on_line": lambda _: None}], ids=["collected", "streamed"]
)
REPOSITORY = Path(__file__).resolve().parents[2]


def alive(pid: int) -> bool:
    """Whether a process runs; one that has only not been reaped does not."""
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
            != "Z"
        )
    except (FileNotFoundError, ProcessLookupError):
        return False


def ends(pid: int) -> bool:
    """Whether a process ends, now or in a moment."""
    for _ in range(200):
        if not alive(pid):
            return True
        time.sleep(0.02)
    return False


def read_pid(file: Path) -> int:
    """The process id that a shell writes into a file first of all."""
    for _ in range(1000):
        if file.exists() and file.read_text(encoding="utf-8").endswith("\n"):
            return int(file.read_text(encoding="utf-8"))
        time.sleep(0.01)
    raise AssertionError(f"nothing was written to {file}")


# --- how it ends ---


def test_one_that_is_to_stop_ends_with_all_that_it_started(tmp_path: Path) -> None:
    stop, lines = threading.Event(), list[str]()

    def told(line: str) -> None:
        lines.append(line)
        stop.set()

    command = ["sh", "-c", f"sleep 1000 & echo $! > {tmp_path}/pid; echo there; wait"]
    with pytest.raises(InterruptedError):
        run(command, on_line=told, stop=stop, timeout=600)
    assert lines == ["there"]
    assert ends(read_pid(tmp_path / "pid"))


def test_an_interruption_is_one_even_when_the_program_ends_at_that_moment() -> None:
    ends = [KeyboardInterrupt(), ChildProcessError()]

    class Ended:
        def wait(self) -> None:
            raise ends.pop(0)

        def signal_group(self, _: int) -> None:
            raise ProcessLookupError

    with pytest.raises(KeyboardInterrupt):
        host_run._wait(Ended(), 60, 1, None)


def test_one_that_is_not_stopped_ends_as_any_other() -> None:
    stop = threading.Event()
    done = run(["sh", "-c", "echo a; exit 3"], on_line=print, stop=stop, check=False)
    assert (done.code, done.stdout) == (3, "a\n")
    with pytest.raises(CommandError, match="did not end within"):
        run(["sleep", "1000"], on_line=print, stop=stop, timeout=0.2)


def test_output_and_exit_code() -> None:
    done = run(["sh", "-c", "echo out; echo err >&2; exit 3"], check=False)
    assert (done.code, done.stdout, done.stderr) == (3, "out\n", "err\n")
    assert not done.ok
    assert done.argv == ("sh", "-c", "echo out; echo err >&2; exit 3")
    assert run(["true"]).ok


@pytest.mark.parametrize("code", [1, 2, 126, 127, 255])
def test_any_exit_code_but_0_is_an_error_that_shows_the_command(code: int) -> None:
    with pytest.raises(CommandError) as raised:
        run(["sh", "-c", f"echo why; echo because >&2; exit {code}"])
    error = raised.value
    assert error.brief == f"sh failed with exit code {code}"
    assert error.details == f"$ sh -c 'echo why; echo because >&2; exit {code}'\nwhy\nbecause"
    assert run(["sh", "-c", f"exit {code}"], check=False).code == code


@either_way
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_signal_is_a_negative_code(number: signal.Signals, options: Any) -> None:
    command = ["sh", "-c", f"kill -{number.value} $$"]
    assert run(command, check=False, **options).code == -number
    with pytest.raises(CommandError, match=f"exit code -{number.value}"):
        run(command, **options)


def test_an_error_shows_the_end_of_a_long_output() -> None:
    with pytest.raises(CommandError) as raised:
        run(["sh", "-c", "seq 1000; exit 1"])
    assert raised.value.details.splitlines()[1:] == [str(n) for n in range(981, 1001)]
    assert raised.value.output.splitlines()[0] == "1"


@either_way
@pytest.mark.parametrize("program", ["no-such-program", "/no/such/program", "/etc/passwd"])
def test_a_program_that_is_missing(program: str, options: Any) -> None:
    with pytest.raises(CommandError, match=f"could not find the program {program}"):
        run([program, "--version"], check=False, **options)


@either_way
def test_a_folder_that_is_missing(options: Any) -> None:
    with pytest.raises(CommandError, match="could not start true in /no/such/folder"):
        run(["true"], cwd="/no/such/folder", **options)


# --- time and interruption ---


@either_way
def test_a_process_and_its_children_are_killed_when_their_time_is_over(
    tmp_path: Path, options: Any
) -> None:
    parent, child = tmp_path / "parent", tmp_path / "child"
    script = f"""
        trap '' TERM INT HUP
        sh -c 'echo $$ > {child}; exec sleep 30' > /dev/null 2>&1 &
        echo $$ > {parent}
        echo begun
        while :; do sleep 0.05; done
    """
    with pytest.raises(CommandError, match="sh did not end within") as raised:
        run(["sh", "-c", script], timeout=1, check=False, **options)
    assert "begun" in raised.value.details
    for file in (parent, child):
        assert_ends(read_pid(file))


def test_a_child_that_keeps_the_output_open_does_not_keep_sykube(
    tmp_path: Path,
) -> None:
    child = tmp_path / "child"
    script = f"setsid sh -c 'echo $$ > {child}; exec sleep 30' & echo begun; sleep 30"
    with pytest.raises(CommandError, match="sh did not end within") as raised:
        run(["sh", "-c", script], timeout=1, grace=0.1)
    assert "begun" in raised.value.details
    pid = read_pid(child)
    assert alive(pid)
    os.kill(pid, signal.SIGKILL)


def assert_ends(pid: int) -> None:
    """A process ends; one that does not is not left behind by this test."""
    try:
        assert ends(pid)
    finally:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


def interrupted_run(file: Path, script: str, **options: Any) -> int:
    """Interrupt `run` as Ctrl-C does; the process id of the shell that it ran."""
    main_thread = threading.get_ident()

    def interrupt() -> None:
        read_pid(file)
        while not waits(main_thread):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run(["sh", "-c", script.format(file=file)], **options)
    thread.join()
    return read_pid(file)


def waits(thread: int) -> bool:
    """Whether a thread waits for the end of a process."""
    frame = sys._current_frames().get(thread)
    while frame:
        place = (frame.f_globals["__name__"], frame.f_code.co_name)
        if place in (("sh", "wait"), ("subprocess", "communicate")):
            return True
        frame = frame.f_back
    return False


@either_way
def test_a_process_ends_when_sykube_is_interrupted(tmp_path: Path, options: Any) -> None:
    script = "echo $$ > {file}; exec sleep 30"
    assert_ends(interrupted_run(tmp_path / "pid", script, **options))


@either_way
def test_a_process_that_ignores_the_request_does_not_outlive_an_interruption(
    tmp_path: Path, options: Any
) -> None:
    script = "trap '' TERM; echo $$ > {file}; while :; do sleep 0.05; done"
    assert_ends(interrupted_run(tmp_path / "pid", script, **options, grace=0.1))


# --- input and output ---


def test_input() -> None:
    assert run(["cat"]).stdout == ""
    assert run(["cat"], stdin="").stdout == ""
    assert run(["cat"], stdin="zwei\nZeilen äöü").stdout == "zwei\nZeilen äöü"
    text = "x" * 300_000
    assert run(["cat"], stdin=text).stdout == text
    # A process need not read it.
    assert run(["true"], stdin=text).ok


def test_big_output_is_whole() -> None:
    script = "head -c 200000 /dev/zero | tr '\\0' a; head -c 200000 /dev/zero | tr '\\0' b >&2"
    for turn in range(30):
        done = run(["sh", "-c", script])
        assert done.stdout == "a" * 200_000, turn
        assert done.stderr == "b" * 200_000, turn


def test_the_last_words_of_short_processes_are_not_lost() -> None:
    for turn in range(30):
        done = run(["sh", "-c", "echo one; echo two >&2; printf three"])
        assert (done.stdout, done.stderr) == ("one\nthree", "two\n"), turn


def test_output_that_is_no_text() -> None:
    done = run(["printf", r"a\377b\n"])
    assert done.stdout == "a\N{REPLACEMENT CHARACTER}b\n"


def test_lines_as_they_come() -> None:
    lines: list[str] = []
    done = run(["sh", "-c", "echo one; echo two; printf three"], on_line=lines.append)
    assert lines == ["one", "two", "three"]
    assert done.stdout == "one\ntwo\nthree"
    lines.clear()
    with pytest.raises(CommandError) as raised:
        run(["sh", "-c", "echo why >&2; exit 1"], on_line=lines.append)
    assert lines == ["why"]
    assert "why" in raised.value.details


def test_words_are_no_shell() -> None:
    words = ["a b", "$HOME", "*", "; echo no", "--x=y", "'", '"', ""]
    done = run(["printf", r"%s\n", *words])
    assert done.stdout.split("\n")[:-1] == words
    assert run(["echo", Path("/a path")]).stdout == "/a path\n"


def test_many_at_once_keep_their_output_apart() -> None:
    def one(number: int) -> bool:
        done = run(["sh", "-c", f"echo {number}; seq 2000; echo {number} >&2"])
        return done.stdout.startswith(f"{number}\n1\n") and done.stderr == f"{number}\n"

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(16)))


# --- what others see of it ---


def test_the_log_holds_commands_and_output(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "sykube.run")
    run(["sh", "-c", "echo shown; echo also >&2"])
    messages = [record.getMessage() for record in caplog.records if record.name == "sykube.run"]
    assert messages[0] == "$ sh -c 'echo shown; echo also >&2'"
    assert [line.strip() for line in messages[1:]] == ["shown", "also"]


@pytest.mark.parametrize("ending", ["exit 0", "exit 1", "exec sleep 30"])
def test_secret_output_is_neither_in_the_log_nor_in_an_error(
    caplog: pytest.LogCaptureFixture, ending: str
) -> None:
    caplog.set_level(logging.DEBUG, "sykube")
    command = ["sh", "-c", f"cat; cat /proc/version >&2; {ending}"]
    hidden = Path("/proc/version").read_text(encoding="utf-8").strip()
    shown = ""
    try:
        done = run(command, stdin="hush-hush", secret=True, timeout=0.5)
        assert done.stdout == "hush-hush"
    except CommandError as error:
        shown = f"{error.brief} {error.details} {error.output}"
        assert "may hold secrets" in shown
    for text in (caplog.text, shown):
        assert "hush-hush" not in text
        assert hidden not in text


def test_the_input_is_not_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "sykube")
    run(["sh", "-c", "cat > /dev/null"], stdin="hush-hush")
    assert "hush-hush" not in caplog.text


def test_the_callers_settings_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("APPTAINER_BIND", "SINGULARITY_BIND", "LANG", "LD_PRELOAD", "KUBECONFIG", "PATH"):
        monkeypatch.setenv(name, "/of/the/caller")
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("HOME", "/home/of-the-caller")
    lines = run(["env"], env={"EXTRA": "yes"}).stdout.splitlines()
    found = dict(line.split("=", 1) for line in lines)
    assert found.pop("https_proxy") == "http://proxy.example:3128"
    assert found["EXTRA"] == "yes"
    assert found["LC_ALL"] == "C.UTF-8"
    assert "/usr/sbin" in found["PATH"].split(":")
    assert found["HOME"] != "/home/of-the-caller"
    assert "/of/the/caller" not in found.values()
    kept = {"TERM", "http_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "PWD"}
    assert set(found) - kept <= {"EXTRA", "LC_ALL", "PATH", "HOME"} | {"_", "SHLVL", "OLDPWD"}


def test_a_program_is_looked_for_where_the_system_has_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "true").write_text("#!/bin/sh\nexit 9\n")
    (tmp_path / "true").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(["true"]).ok


def test_it_runs_in_the_root_folder_unless_told(tmp_path: Path) -> None:
    assert run(["pwd"]).stdout == "/\n"
    assert run(["pwd"], cwd=tmp_path).stdout == f"{tmp_path}\n"


# --- becoming another program ---


def test_sykube_becomes_another_program() -> None:
    script = (
        "from sykube.host.run import replace_process\n"
        "replace_process(['sh', '-c', 'cat; echo $WORD; exit 7'], {'WORD': 'hello'})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        input="typed\n",
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, "typed\nhello\n", "")


def test_a_program_that_cannot_be_become(tmp_path: Path) -> None:
    with pytest.raises(SykubeError, match="could not start .*No such file"):
        replace_process([tmp_path / "absent"], clean_environment())


# --- in the caller's place ---

ATTACHED = (
    "import os, sys\n"
    "from sykube.host.run import run_attached\n"
    "print('ended with', run_attached(sys.argv[1:], {**os.environ, 'WORD': 'hello'}))\n"
)


def test_a_program_has_the_callers_input_output_and_folder(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ATTACHED, "sh", "-c", "cat; pwd; echo $WORD >&2; exit 7"],
        input="typed\n", capture_output=True, text=True, cwd=tmp_path, check=True, timeout=30,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert done.stdout == f"typed\n{tmp_path}\nended with 7\n"
    assert done.stderr == "hello\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_go_to_the_program_which_decides(number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    script = f"trap 'echo {name}; exit 5' {name}; echo ready; while :; do sleep 0.05; done"
    with subprocess.Popen(
        [sys.executable, "-c", ATTACHED, "sh", "-c", script],
        stdout=subprocess.PIPE, text=True, cwd=REPOSITORY,
    ) as caller:  # fmt: skip
        assert caller.stdout
        assert caller.stdout.readline() == "ready\n"
        caller.send_signal(number)
        assert caller.communicate(timeout=30)[0] == f"{name}\nended with 5\n"
    assert caller.returncode == 0


def test_a_program_that_a_signal_ends_has_the_code_that_a_shell_gives_it() -> None:
    assert run_attached(["sh", "-c", "kill -KILL $$"], dict(os.environ)) == 128 + signal.SIGKILL


def test_a_program_is_asked_to_end_at_a_time() -> None:
    script = "trap 'exit 5' TERM; while :; do sleep 0.05; done"
    assert run_attached(["sh", "-c", script], dict(os.environ), time.time() + 0.3) == 5
    assert run_attached(["true"], dict(os.environ), time.time() + 3600) == 0


IN_BACKGROUND = (
    "import os, sys\n"
    "from pathlib import Path\n"
    "from sykube.host import background\n"
    "held = open('held', 'w')\n"
    "def action():\n"
    "    there = Path(f'/proc/self/fd/{held.fileno()}').exists()\n"
    "    print(os.getpid() == os.getsid(0), there, flush=True)\n"
    "    raise ValueError('and failed')\n"
    "background.run(action, Path(sys.argv[1]))\n"
    "print('goes on')\n"
)


def test_what_goes_on_in_the_background_has_nothing_of_the_commands(tmp_path: Path) -> None:
    output = tmp_path / "output"
    done = subprocess.run(
        [sys.executable, "-c", IN_BACKGROUND, output], capture_output=True, text=True,
        cwd=tmp_path, check=True, timeout=30, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert done.stdout == "goes on\n"
    deadline = time.monotonic() + 30
    while not (output.exists() and "and failed" in output.read_text(encoding="utf-8")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert output.read_text(encoding="utf-8").startswith("True False\n")


def test_signals_are_as_before_once_a_program_has_ended() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert run_attached(["true"], dict(os.environ)) == 0
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    shown = subprocess.run(
        [sys.executable, "-c", ATTACHED, "grep", "SigBlk", "/proc/self/status"],
        capture_output=True, text=True, cwd=REPOSITORY, check=True, timeout=30,
    )  # fmt: skip
    assert shown.stdout == "SigBlk:\t0000000000000000\nended with 0\n"


def test_a_program_in_the_callers_place_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SykubeError, match="could not start .*No such file"):
        run_attached([tmp_path / "absent"], dict(os.environ))


# --- at the terminal ---


def _in_python(call: str) -> list[str]:
    return [sys.executable, "-c", f"from sykube.host.run import run\n{call}"]


def test_a_command_at_the_terminal_reads_and_writes_there() -> None:
    ask = "run(['sh', '-c', 'read answer; echo got $answer; exit 3'], check=False, terminal=True)"
    done = subprocess.run(
        _in_python(f"done = {ask}\nprint(done.code, repr(done.stdout + done.stderr))"),
        input="yes\n", capture_output=True, text=True, timeout=30, check=True, cwd=REPOSITORY,
    )  # fmt: skip
    # Standard output is for results alone.
    assert done.stdout == "3 ''\n"
    assert done.stderr == "got yes\n"


def test_a_command_at_the_terminal_that_fails_takes_too_long_or_is_not_there() -> None:
    with pytest.raises(CommandError, match="exit code 1"):
        run(["false"], terminal=True)
    with pytest.raises(CommandError, match="did not end within 0 s"):
        run(["sleep", "60"], terminal=True, timeout=0.2)
    with pytest.raises(CommandError, match="could not find the program /nowhere"):
        run(["/nowhere"], terminal=True)


def test_a_command_at_the_terminal_ends_with_sykube(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    # Late enough that sykube knows of the process that it has started.
    script = f"sleep 1; echo $$ >{note}; exec sleep 60"
    waiting = subprocess.Popen(
        _in_python(f"run(['sh', '-c', '{script}'], terminal=True)"),
        stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=REPOSITORY,
    )  # fmt: skip
    pid = read_pid(note)
    waiting.send_signal(signal.SIGINT)
    waiting.wait(30)
    assert ends(pid)
