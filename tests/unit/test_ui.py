"""What people see, and what the log file keeps."""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sykube import ui as ui_module
from sykube.errors import ExitCode, HostError, SykubeError, UsageError
from sykube.ui import Ui, duration
from tests.unit.helpers import Terminal

ERROR = SykubeError("it broke", details="$ command\nwhy it broke", resolution="Repair it.")
TIME = re.compile(r"\(\d+\.\d s\)|\(\d+ min \d\d s\)")


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def log_file(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "log/lab.log"
    for handler in logging.getLogger("sykube").handlers:
        handler.flush()


def plain(stream: io.StringIO) -> list[str]:
    """Lines without the time that steps took."""
    assert "\033" not in stream.getvalue()
    assert "\r" not in stream.getvalue()
    return [TIME.sub("(T)", line) for line in stream.getvalue().splitlines()]


# --- plain lines ---


def test_a_step_without_a_terminal_is_two_plain_lines(stream: io.StringIO) -> None:
    ui = Ui(stream=stream)
    with ui.step("Setting up the network"):
        ui.say("a word in between")
    assert set(plain(stream)) == {
        "... Setting up the network",
        "a word in between",
        "done: Setting up the network (T)",
    }
    assert plain(stream)[-1] == "done: Setting up the network (T)"
    assert set(ui.timings.seconds()) == {"Setting up the network"}


@pytest.mark.parametrize("error", [ERROR, KeyboardInterrupt(), ValueError()])
def test_a_step_that_fails_says_so_and_lets_the_error_through(
    stream: io.StringIO, error: BaseException
) -> None:
    with pytest.raises(type(error)), Ui(stream=stream).step("Setting up the network"):
        raise error
    assert plain(stream)[-1] == "failed: Setting up the network (T)"


def test_a_long_step_says_now_and_then_that_it_goes_on(
    stream: io.StringIO,
) -> None:
    ui = Ui(stream=stream, reminder=0.01)
    with ui.step("Building"):
        ui.note("  compiling kubelet\n")
        # On a slow machine one may have come before the note.
        while "so far): compiling" not in stream.getvalue():
            threading.Event().wait(0.01)
    reminders = [line for line in plain(stream) if "so far" in line]
    assert re.fullmatch(r"\.\.\. Building \(.* so far\): compiling kubelet", reminders[-1])


def test_an_error_is_said_with_its_cause_and_cure(stream: io.StringIO) -> None:
    Ui(stream=stream).error(ERROR)
    assert plain(stream) == [
        "error: it broke",
        "  $ command",
        "  why it broke",
        "what to do: Repair it.",
    ]


def test_an_error_without_more_is_one_line(stream: io.StringIO) -> None:
    Ui(stream=stream).error(SykubeError("it broke"))
    assert plain(stream) == ["error: it broke"]


def test_the_place_of_the_log_ends_an_error(stream: io.StringIO, log_file: Path) -> None:
    ui = Ui(stream=stream)
    ui.open_log(log_file)
    ui.error(ERROR)
    assert plain(stream)[-1] == f"log: {log_file}"


def test_a_traceback_is_shown_only_when_asked_for(stream: io.StringIO) -> None:
    def error() -> SykubeError:
        try:
            raise ERROR
        except SykubeError as raised:
            return raised

    Ui(stream=stream).error(error())
    assert "Traceback" not in stream.getvalue()
    Ui(stream=stream, verbose=True).error(error())
    assert "Traceback" in stream.getvalue()
    assert "test_ui.py" in stream.getvalue()


def test_quiet_leaves_errors_and_warnings(stream: io.StringIO) -> None:
    ui = Ui(stream=stream, quiet=True)
    ui.say("progress")
    with ui.step("Setting up the network"):
        pass
    assert stream.getvalue() == ""
    ui.warn("careful")
    ui.error(ERROR)
    assert plain(stream)[:2] == ["warning: careful", "error: it broke"]


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC, errno.EIO])
def test_a_stream_that_takes_no_words_is_no_reason_to_fail(number: int) -> None:
    class Closed(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(number, os.strerror(number))

    ui = Ui(stream=Closed())
    ui.say("progress")
    with ui.step("Setting up the network"):
        pass
    ui.error(ERROR)


# --- a terminal ---


def test_a_terminal_gets_a_spinner_and_colours(terminal: Terminal) -> None:
    ui = Ui(stream=terminal.stream)
    with ui.step("Setting up the network"):
        ui.note("making the bridge")
        threading.Event().wait(0.35)
    with pytest.raises(SykubeError), ui.step("Starting the nodes"):
        raise ERROR
    ui.error(ERROR)
    text = terminal.text()
    assert any(frame in text for frame in ui_module._SPINNER)
    assert "making the bridge" in text
    assert "\033[32m✓\033[0m Setting up the network" in text
    assert "\033[31m✗\033[0m Starting the nodes" in text
    assert "\033[1;31merror:\033[0m it broke" in text


def test_no_color_is_honoured(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    ui = Ui(stream=terminal.stream)
    with ui.step("Setting up the network"):
        pass
    ui.error(ERROR)
    text = terminal.text()
    assert not re.search(r"\033\[[0-9;]*m", text)
    assert "✓ Setting up the network" in text


def test_a_dumb_terminal_gets_plain_lines(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    ui = Ui(stream=terminal.stream)
    with ui.step("Setting up the network"):
        pass
    text = terminal.text()
    assert "\033" not in text
    assert "done: Setting up the network" in text


# --- the log file ---


def test_everything_goes_to_the_log_which_is_its_owners_alone(
    stream: io.StringIO, log_file: Path
) -> None:
    ui = Ui(stream=stream, quiet=True)
    ui.open_log(log_file)
    ui.say("progress")
    logging.getLogger("sykube.run").debug("$ ip link show")
    with ui.step("Setting up the network"):
        pass
    ui.error(ERROR)
    text = log_file.read_text(encoding="utf-8")
    for words in (
        "progress",
        "$ ip link show",
        "== Setting up the network",
        "it broke",
        "why it broke",
    ):
        assert words in text
    assert log_file.stat().st_mode & 0o777 == 0o600
    assert log_file.parent.stat().st_mode & 0o007 == 0


def test_the_log_stays_its_owners_alone_when_it_is_rotated(
    stream: io.StringIO, log_file: Path
) -> None:
    fill_log(stream, log_file)
    for file in log_file.parent.iterdir():
        assert file.stat().st_mode & 0o777 == 0o600, file


def fill_log(stream: io.StringIO, log_file: Path) -> None:
    before = os.umask(0o022)
    try:
        ui = Ui(stream=stream)
        ui.open_log(log_file, size=1000)
        for number in range(200):
            ui.say(f"line {number}")
    finally:
        os.umask(before)


def test_the_log_is_bounded(stream: io.StringIO, log_file: Path) -> None:
    fill_log(stream, log_file)
    assert sorted(file.name for file in log_file.parent.iterdir()) == ["lab.log", "lab.log.1"]
    assert all(file.stat().st_size <= 1000 for file in log_file.parent.iterdir())
    assert "line 199" in log_file.read_text(encoding="utf-8")


def test_a_log_is_continued(stream: io.StringIO, log_file: Path) -> None:
    log_file.parent.mkdir(parents=True)
    log_file.write_text("earlier\n", encoding="utf-8")
    ui = Ui(stream=stream)
    ui.open_log(log_file)
    ui.say("later")
    assert log_file.read_text(encoding="utf-8").startswith("earlier\n")
    assert "later" in log_file.read_text(encoding="utf-8")


def test_a_folder_that_cannot_be_written_is_no_reason_to_fail(
    stream: io.StringIO, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    ui = Ui(stream=stream)
    ui.open_log(tmp_path / "file/lab.log")
    ui.say("progress")
    ui.error(ERROR)
    assert plain(stream)[0] == "progress"
    assert not any(line.startswith("log:") for line in plain(stream))


def test_verbose_shows_the_commands_too(stream: io.StringIO, log_file: Path) -> None:
    ui = Ui(stream=stream, verbose=True)
    ui.open_log(log_file)
    logging.getLogger("sykube.run").debug("$ ip link show")
    assert "  $ ip link show" in stream.getvalue()


# --- words ---


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (4.21, "4.2 s"), (59.9, "59.9 s"), (60, "1 min 00 s"), (187, "3 min 07 s")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_errors_know_their_exit_code() -> None:
    assert SykubeError("x").exit_code is ExitCode.FAILED
    assert UsageError("x").exit_code is ExitCode.USAGE
    assert HostError("x").exit_code is ExitCode.HOST_NOT_READY
    assert [code.value for code in ExitCode] == [*range(12), 130]
    assert len({code.meaning for code in ExitCode}) == len(ExitCode)
    assert str(SykubeError("what went wrong")) == "what went wrong"


def test_the_documentation_has_every_exit_code() -> None:
    file = Path(__file__).resolve().parents[2] / "docs/exit-codes.md"
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", file.read_text(), re.MULTILINE)
    assert rows == [(str(code.value), code.meaning) for code in ExitCode]
