"""The broker's, the producer's and the consumer's program, with a broker that is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sykube.bench import messages
from sykube.bench.messages import BrokenError, Job
from tests.fakes.nats import FakeNats
from tests.fakes.valkey import FakeValkey

Start = Callable[..., FakeNats | FakeValkey]
FAKES: dict[str, type[FakeNats | FakeValkey]] = {"nats": FakeNats, "valkey": FakeValkey}


@pytest.fixture(params=FAKES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def start(kind: str) -> Iterator[Start]:
    started: list[FakeNats | FakeValkey] = []

    def make(**options: Any) -> FakeNats | FakeValkey:
        started.append(FAKES[kind](**options))
        return started[-1]

    yield make
    for each in started:
        each.close()


def job(broker: FakeNats | FakeValkey, **options: Any) -> Job:
    kind = "nats" if isinstance(broker, FakeNats) else "valkey"
    return Job(
        "127.0.0.1", broker.port, sorted(os.sched_getaffinity(0)), kind,
        **{"name": "run-1", "count": 20, "size": 64, "rate": 1000.0, **options},
    )  # fmt: skip


def both(asked: Job) -> tuple[dict[str, Any], dict[str, float]]:
    """What the consumer and the producer say."""
    with ThreadPoolExecutor() as pool:
        consumer = pool.submit(messages.consume, asked)
        producer = pool.submit(messages.produce, asked)
        return consumer.result(), producer.result()


def test_each_message_has_its_delay(start: Start) -> None:
    broker = start()
    consumed, produced = both(job(broker))
    assert len(consumed["delays"]) == 20
    assert all(delay > 0 for delay in consumed["delays"])
    # Twenty, of which the first is made at once.
    assert produced["seconds"] >= 0.019
    # Nothing is left of it.
    assert broker.asked[-1] in ("STREAM.DELETE.run-1", "DEL")


def test_the_programs_are_what_the_command_lines_run(start: Start) -> None:
    asked = job(start())
    with ThreadPoolExecutor() as pool:
        done = [
            pool.submit(
                subprocess.run,
                [sys.executable, *messages.command(role, asked)[1:]],
                capture_output=True, text=True, check=True, timeout=60,
            )
            for role in (messages.CONSUMER, messages.PRODUCER)
        ]  # fmt: skip
    consumed, produced = (json.loads(each.result().stdout) for each in done)
    assert len(consumed["delays"]) == 20
    assert produced["seconds"] > 0


def test_what_waits_for_a_slow_message_waits_from_when_it_was_due(
    start: Start, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection: Any = messages._CONNECTIONS[kind]
    send, sent = connection.send, []

    def slow(self: Any, name: str, message: bytes) -> None:
        sent.append(message)
        if len(sent) == 1:
            # As where the broker takes nothing.
            time.sleep(0.2)
        send(self, name, message)

    monkeypatch.setattr(connection, "send", slow)
    consumed, _ = both(job(start()))
    # It was due a millisecond after the first.
    assert consumed["delays"][1] > 150_000_000
    made = [messages._HEAD.unpack_from(message)[1] for message in sent]
    assert made[2] - made[1] == 1_000_000


def test_a_broker_that_dies_in_the_middle_is_said_by_both(start: Start) -> None:
    asked = job(start(dies_after=7))
    with ThreadPoolExecutor() as pool:
        consumer = pool.submit(messages.consume, asked)
        producer = pool.submit(messages.produce, asked)
        assert isinstance(consumer.exception(), (BrokenError, OSError))
        assert isinstance(producer.exception(), (BrokenError, OSError))


def test_the_program_says_why_it_failed(start: Start) -> None:
    broker = start(dies_after=7)
    asked = job(broker)
    with ThreadPoolExecutor() as pool:
        producer = pool.submit(messages.produce, asked)
        done = subprocess.run(
            [sys.executable, *messages.command(messages.CONSUMER, asked)[1:]],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert producer.exception()
    assert done.returncode == 1
    assert done.stderr == "consumer: the broker has ended the connection\n"


def test_a_message_that_is_lost_is_no_result(start: Start) -> None:
    asked = job(start(drops=3))
    with ThreadPoolExecutor() as pool:
        pool.submit(messages.produce, asked)
        with pytest.raises(BrokenError, match="message 4 of 64 bytes came in the place of 3"):
            messages.consume(asked)


def test_a_message_that_is_refused_is_no_result(start: Start) -> None:
    broker = start(refuses=True)
    asked = job(broker)
    with ThreadPoolExecutor() as pool:
        consumer = pool.submit(messages.consume, asked)
        with pytest.raises(BrokenError, match="insufficient storage|OOM command"):
            messages.produce(asked)
        # Which would wait for a minute.
        broker.end()
        assert consumer.exception()


def test_where_nobody_answers_it_gives_up(monkeypatch: pytest.MonkeyPatch, start: Start) -> None:
    broker = start()
    monkeypatch.setattr(messages, "_PATIENCE_S", 0.1)
    asked = job(broker)
    with pytest.raises(BrokenError, match="no consumer came"):
        messages.produce(asked)
    broker.close()
    with pytest.raises(BrokenError, match="no broker at 127.0.0.1"):
        messages.consume(asked)


def test_many_that_come_at_once_are_each_taken(start: Start) -> None:
    consumed, _ = both(job(start(), count=500, rate=1e6, size=3000))
    assert len(consumed["delays"]) == 500


@pytest.mark.parametrize(
    ("data", "known"),
    [
        (b"+OK\r\n", b"OK"),
        (b":7\r\n", b"7"),
        (b"$-1\r\n", None),
        (b"$0\r\n\r\n", b""),
        (b"$4\r\na\r\nb\r\n", b"a\r\nb"),
        (b"*-1\r\n", None),
        (b"*2\r\n*1\r\n:1\r\n$1\r\nx\r\n", [[b"1"], b"x"]),
    ],
)
def test_what_valkey_answers_is_taken_when_all_of_it_has_come(data: bytes, known: object) -> None:
    for length in range(len(data)):
        with pytest.raises(messages._LackingError):
            messages._parsed(bytearray(data[:length]), 0)
    assert messages._parsed(bytearray(data + b"+more\r\n"), 0) == (known, len(data))


def test_valkey_writes_each_command_to_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    become: list[list[str]] = []
    monkeypatch.setattr(messages, "_FOLDER", tmp_path)
    monkeypatch.setattr(os, "execv", lambda _, words: become.append(words))
    for fsync in (False, True):
        messages.serve(Job("127.0.0.1", 4222, [0], "valkey", fsync))
    for words, policy in zip(become, ("everysec", "always"), strict=True):
        assert words[0] == "/usr/bin/valkey-server"
        options = dict(zip(words[1::2], words[2::2], strict=True))
        assert options["--appendonly"] == "yes"
        assert options["--appendfsync"] == policy
        assert Path(options["--dir"]).is_dir()


@pytest.mark.parametrize("fsync", [False, True])
def test_nats_keeps_messages_in_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fsync: bool
) -> None:
    become: list[list[str]] = []
    monkeypatch.setattr(messages, "_FOLDER", tmp_path)
    monkeypatch.setattr(os, "execv", lambda _, words: become.append(words))
    messages.serve(Job("127.0.0.1", 4222, [0], "nats", fsync))
    [[program, option, file]] = become
    assert (program, option) == ("/usr/sbin/nats-server", "--config")
    settings = json.loads(Path(file).read_text(encoding="utf-8"))
    assert settings["listen"] == "127.0.0.1:4222"
    assert settings["jetstream"]["store_dir"] == str(tmp_path / "nats")
    assert settings["jetstream"].get("sync_interval") == ("always" if fsync else None)
