"""Downloads from a real server on loopback that fails in all the ways that servers do."""

from __future__ import annotations

import base64
import gzip
import hashlib
import logging
import os
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from requests.exceptions import InvalidSchema

from sykube.errors import SykubeError, UsageError
from sykube.host import download
from sykube.host.checksum import Checksum
from sykube.host.download import Access, Downloader, DownloadError, RetryPolicy
from sykube.host.proxies import Proxies
from sykube.host.threads import run_concurrently
from tests.e2e.site import make_authority
from tests.releases import STALL_S, STORE, Fault, Server

# Not a multiple of any block.
CONTENT = os.urandom(300_007)
SUM = Checksum("sha256", hashlib.sha256(CONTENT).hexdigest())
# Not what a busy machine takes for an answer.
QUICK = RetryPolicy(connect_s=30, stall_s=30, tries=4)
PASSWORD = "s3cretPlanted"


@pytest.fixture(autouse=True)
def no_settings_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "netrc"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server({"/file": CONTENT, "/text": b"v1.36.2\n"})
    yield made
    made.close()


class Waits(list[float]):
    """The pauses between tries, without the time."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
def downloader(waits: Waits) -> Downloader:
    return Downloader(policy=QUICK, pause=waits)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "downloads" / "file"


def left(target: Path) -> list[str]:
    """What is in the target's folder."""
    return sorted(file.name for file in target.parent.glob("*"))


# --- what comes whole ---


def test_a_file_is_at_its_place_whole_and_readable_by_all(
    server: Server, downloader: Downloader, target: Path
) -> None:
    told: list[tuple[int, int]] = []
    downloader.file(f"{server.url}/file", target, SUM, lambda *numbers: told.append(numbers))
    assert target.read_bytes() == CONTENT
    assert target.stat().st_mode & 0o777 == 0o644
    assert left(target) == ["file"]
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert server.requests[0].headers["Accept-Encoding"] == "identity"


def test_sha512_and_a_server_that_leads_elsewhere(
    server: Server, downloader: Downloader, target: Path
) -> None:
    server.files[f"{STORE}/far"] = CONTENT
    checksum = Checksum.parse(hashlib.sha512(CONTENT).hexdigest().upper())
    assert checksum.algorithm == "sha512"
    downloader.file(f"{server.url}/far", target, checksum)
    assert target.read_bytes() == CONTENT


def test_an_archive_stays_packed_also_where_a_server_calls_that_an_encoding(
    server: Server, downloader: Downloader, target: Path
) -> None:
    packed = gzip.compress(b"an archive" * 1000)
    server.files["/a.tar.gz"] = packed
    server.fail("/a.tar.gz", Fault(headers={"Content-Encoding": "gzip"}))
    checksum = Checksum.parse(hashlib.sha256(packed).hexdigest())
    downloader.file(f"{server.url}/a.tar.gz", target, checksum)
    assert target.read_bytes() == packed


def test_what_was_there_is_replaced_only_by_what_is_right(
    server: Server, downloader: Downloader, target: Path
) -> None:
    target.parent.mkdir()
    target.write_text("before", encoding="utf-8")
    server.fail("/file", Fault(damaged=True))
    with pytest.raises(DownloadError):
        downloader.file(f"{server.url}/file", target, SUM)
    assert target.read_text(encoding="utf-8") == "before"
    downloader.file(f"{server.url}/file", target, SUM)
    assert target.read_bytes() == CONTENT


def test_a_text(server: Server, downloader: Downloader) -> None:
    assert downloader.text(f"{server.url}/text") == "v1.36.2"
    server.files["/long"] = b"x" * 3_000_000
    with pytest.raises(DownloadError, match="cannot download") as raised:
        downloader.text(f"{server.url}/long")
    assert "no short text" in raised.value.details


# --- what is wrong for good ---


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_wrong_checksum_is_fatal_and_leaves_nothing(
    server: Server, downloader: Downloader, waits: Waits, target: Path, algorithm: str
) -> None:
    wrong = Checksum(algorithm, hashlib.new(algorithm, b"another").hexdigest())
    with pytest.raises(DownloadError) as raised:
        downloader.file(f"{server.url}/file", target, wrong, otherwise="Another site: --mirror")
    assert left(target) == []
    assert waits == []
    error = raised.value
    assert error.brief == f"cannot download {server.url}/file"
    assert wrong.value in error.details
    assert hashlib.new(algorithm, CONTENT).hexdigest() in error.details
    assert "--mirror" in error.resolution


@pytest.mark.parametrize(
    ("status", "why", "what_to_do"),
    [
        (404, "answers 404", "Another site: --mirror"),
        (403, "answers 403", "netrc"),
        (401, "answers 401", "machine HOST login USER password PASSWORD"),
        (407, "answers 407", "https_proxy, as http://USER:PASSWORD@"),
        (400, "answers 400", "https_proxy"),
    ],
)
def test_a_refusal_is_not_tried_again(
    server: Server,
    downloader: Downloader,
    waits: Waits,
    target: Path,
    status: int,
    why: str,
    what_to_do: str,
) -> None:
    server.fail("/file", Fault(status))
    with pytest.raises(DownloadError) as raised:
        downloader.file(f"{server.url}/file", target, SUM, otherwise="Another site: --mirror")
    assert (len(server.asked), waits) == (1, [])
    assert raised.value.status == status
    assert raised.value.absent is (status == 404)
    assert f"localhost:{server.port} {why}" in raised.value.details
    assert what_to_do in raised.value.resolution
    assert left(target) == []


def test_a_full_disk_is_one_error_and_leaves_nothing(
    server: Server, downloader: Downloader
) -> None:
    # Every write to it fails with ENOSPC: full(4)
    full = Path("/dev/full")
    assert full.is_char_device()

    def to_full_disk(done: int, _size: int) -> None:
        full.write_bytes(b"x")

    folder = Path(os.environ["SYKUBE_CACHE_DIR"])
    with pytest.raises(SykubeError, match="No space left on device") as raised:
        downloader.file(f"{server.url}/file", folder / "file", SUM, to_full_disk)
    assert "SYKUBE_CACHE_DIR" in raised.value.resolution
    assert list(folder.iterdir()) == []


def test_a_server_that_leads_in_a_circle(
    server: Server, downloader: Downloader, waits: Waits
) -> None:
    server.fail("/text", *[Fault(302, {"Location": "/text"})] * 40)
    with pytest.raises(DownloadError) as raised:
        downloader.text(f"{server.url}/text")
    assert raised.value.details == f"localhost:{server.port} leads in a circle"
    assert waits == []


# --- what passes ---


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_passing_failure_is_tried_again_later_each_time(
    server: Server, downloader: Downloader, waits: Waits, target: Path, status: int
) -> None:
    server.fail("/file", *[Fault(status)] * 3)
    downloader.file(f"{server.url}/file", target, SUM)
    assert target.read_bytes() == CONTENT
    for number, wait in enumerate(waits):
        assert 0.5 * 2**number <= wait <= 2**number
    assert len(waits) == 3


def test_tries_come_to_an_end(
    server: Server, downloader: Downloader, waits: Waits, target: Path
) -> None:
    server.fail("/file", *[Fault(503)] * 4)
    with pytest.raises(DownloadError) as raised:
        downloader.file(f"{server.url}/file", target, SUM)
    assert (len(server.asked), len(waits)) == (4, 3)
    assert raised.value.status == 503
    assert "answers 503 Service Unavailable (4 tries)" in raised.value.details
    assert "run the command again" in raised.value.resolution


def test_a_server_says_when_to_come_back(
    server: Server, downloader: Downloader, waits: Waits
) -> None:
    at = formatdate(time.time() + 30, usegmt=True)
    server.fail(
        "/text",
        Fault(429, {"Retry-After": "7"}),
        Fault(503, {"Retry-After": at}),
        Fault(503, {"Retry-After": "soon"}),
    )
    assert downloader.text(f"{server.url}/text") == "v1.36.2"
    assert waits[0] == 7
    assert 25 <= waits[1] <= 30
    assert 2 <= waits[2] <= 4, "what cannot be read does not count"


def test_who_is_to_wait_for_long_gives_up(
    server: Server, downloader: Downloader, waits: Waits
) -> None:
    server.fail("/text", Fault(429, {"Retry-After": "3600"}))
    with pytest.raises(DownloadError, match="cannot download") as raised:
        downloader.text(f"{server.url}/text")
    assert waits == []
    assert "asks to wait 3600 s" in raised.value.details


def test_no_server_at_all(downloader: Downloader, waits: Waits) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/text"
        with pytest.raises(DownloadError) as raised:
            downloader.text(url)
    assert "Connection refused (4 tries)" in raised.value.details
    assert raised.value.status == 0
    assert len(waits) == 3


def test_a_name_that_is_unknown(downloader: Downloader, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    # No name is asked for outside.
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(DownloadError) as raised:
        downloader.text("http://releases.example/text")
    assert raised.value.details == "the name releases.example cannot be resolved (4 tries)"


# --- what is cut off ---


def test_a_file_that_is_cut_off_goes_on_where_it_ended(
    server: Server, downloader: Downloader, waits: Waits, target: Path
) -> None:
    server.fail("/file", Fault(cut=100_000), Fault(cut=50_000))
    told: list[int] = []
    downloader.file(f"{server.url}/file", target, SUM, lambda done, _: told.append(done))
    assert target.read_bytes() == CONTENT
    assert left(target) == ["file"]
    assert [each.headers.get("Range") for each in server.requests] == [
        None, "bytes=100000-", "bytes=150000-",
    ]  # fmt: skip
    assert told == sorted(told), "what is there stays"
    assert len(waits) == 2


def test_a_file_goes_on_in_a_later_run(server: Server, waits: Waits, target: Path) -> None:
    server.fail("/file", Fault(cut=200_000))
    once = Downloader(policy=RetryPolicy(tries=1), pause=waits)
    with pytest.raises(DownloadError, match="cannot download") as raised:
        once.file(f"{server.url}/file", target, SUM)
    assert "cut the connection" in raised.value.details
    assert not target.exists()
    assert left(target) == [".file.part"]
    once.file(f"{server.url}/file", target, SUM)
    assert server.requests[-1].headers["Range"] == "bytes=200000-"
    assert target.read_bytes() == CONTENT


def test_a_file_that_changed_meanwhile_begins_anew(
    server: Server, downloader: Downloader, target: Path
) -> None:
    server.files["/file"] = os.urandom(250_000)
    server.fail("/file", Fault(cut=100_000))
    with pytest.raises(DownloadError):
        Downloader(policy=RetryPolicy(tries=1)).file(f"{server.url}/file", target, SUM)
    server.files["/file"] = CONTENT
    downloader.file(f"{server.url}/file", target, SUM)
    ranges = [each.headers.get("Range") for each in server.requests]
    assert ranges == [None, "bytes=100000-", None]
    assert target.read_bytes() == CONTENT


def test_pieces_that_are_never_right_are_fatal(
    server: Server, downloader: Downloader, target: Path
) -> None:
    server.files["/file"] = os.urandom(250_000)
    server.fail("/file", Fault(cut=100_000), Fault(), Fault(cut=100_000))
    with pytest.raises(DownloadError) as raised:
        downloader.file(f"{server.url}/file", target, SUM)
    assert "it is damaged or was changed on the way" in raised.value.details
    assert len(server.asked) == 4
    assert left(target) == []


def test_a_server_without_ranges_begins_anew(
    server: Server, downloader: Downloader, target: Path
) -> None:
    server.fail("/file", Fault(cut=100_000), Fault(ranges=False))
    downloader.file(f"{server.url}/file", target, SUM)
    assert server.requests[-1].headers["Range"] == "bytes=100000-"
    assert target.read_bytes() == CONTENT


def test_a_file_that_is_whole_but_not_yet_at_its_place(
    server: Server, downloader: Downloader, target: Path
) -> None:
    target.parent.mkdir()
    target.with_name(".file.part").write_bytes(CONTENT)
    downloader.file(f"{server.url}/file", target, SUM)
    assert target.read_bytes() == CONTENT
    assert [each.headers["Range"] for each in server.requests] == [f"bytes={len(CONTENT)}-"]


def test_a_part_that_is_longer_than_the_file_is_dropped(
    server: Server, downloader: Downloader, target: Path
) -> None:
    target.parent.mkdir()
    target.with_name(".file.part").write_bytes(CONTENT + b"more")
    downloader.file(f"{server.url}/file", target, SUM)
    assert target.read_bytes() == CONTENT
    assert "Range" not in server.requests[-1].headers


def test_a_part_of_another_place_is_not_taken(
    server: Server, downloader: Downloader, target: Path
) -> None:
    server.fail(
        "/file", Fault(cut=100_000), Fault(206, {"Content-Range": f"bytes 5-9/{len(CONTENT)}"})
    )
    downloader.file(f"{server.url}/file", target, SUM)
    assert target.read_bytes() == CONTENT


def test_a_server_that_stops_in_the_middle(server: Server, waits: Waits, target: Path) -> None:
    server.fail("/file", Fault(stall=100_000))
    downloader = Downloader(policy=RetryPolicy(stall_s=1), pause=waits)
    downloader.file(f"{server.url}/file", target, SUM)
    assert target.read_bytes() == CONTENT
    assert server.requests[1].headers["Range"] == "bytes=100000-"


def test_a_server_that_always_stops(server: Server, waits: Waits, target: Path) -> None:
    server.fail("/file", Fault(stall=10), Fault(stall=0))
    # The server is in this process, and has to have sent the head by then.
    downloader = Downloader(policy=RetryPolicy(stall_s=1.5, tries=2), pause=waits)
    with pytest.raises(DownloadError) as raised:
        downloader.file(f"{server.url}/file", target, SUM)
    assert "sent nothing more for 1.5 s (2 tries)" in raised.value.details


def test_a_connection_that_is_cut_often_but_brings_much(waits: Waits, target: Path) -> None:
    content = os.urandom(9_000_000)
    server = Server({"/file": content})
    server.fail("/file", *[Fault(cut=1_200_000)] * 7)
    downloader = Downloader(policy=QUICK, pause=waits)
    try:
        downloader.file(
            f"{server.url}/file", target, Checksum.parse(hashlib.sha256(content).hexdigest())
        )
        assert len(waits) == 7, "more than tries in a row"
        # Without ranges nothing is gained: it must come to an end.
        server.fail("/file", *[Fault(cut=1_200_000, ranges=False)] * 20)
        target.unlink()
        with pytest.raises(DownloadError):
            downloader.file(f"{server.url}/file", target, SUM)
    finally:
        server.close()


def test_an_answer_that_comes_too_late_for_who_is_in_a_hurry(
    server: Server, downloader: Downloader, waits: Waits
) -> None:
    server.fail("/text", Fault(stall=3), Fault(503))
    began = time.monotonic()
    with pytest.raises(DownloadError):
        downloader.with_timeout(0.3).text(f"{server.url}/text")
    assert time.monotonic() - began < STALL_S / 2
    with pytest.raises(DownloadError):
        downloader.with_timeout(30).text(f"{server.url}/text")
    assert waits == []


def test_a_resolver_that_hangs(downloader: Downloader, monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = threading.Event()
    # No name is asked for outside.
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: resolved.wait(60))
    began = time.monotonic()
    try:
        with pytest.raises(DownloadError) as raised:
            downloader.with_timeout(0.2).text("http://releases.example/text")
        assert time.monotonic() - began < 30
    finally:
        resolved.set()
    assert raised.value.details == "no answer within 0.2 s"


# --- several at once ---


def test_the_first_error_ends_the_others(server: Server, tmp_path: Path) -> None:
    server.fail("/file", Fault(503, {"Retry-After": "60"}))
    patient = Downloader()
    began = time.monotonic()
    with pytest.raises(DownloadError) as raised:
        patient.together(
            {
                "waiting": lambda shared: shared.file(f"{server.url}/file", tmp_path / "x", SUM),
                "absent": lambda shared: shared.text(f"{server.url}/absent"),
            }
        )
    assert raised.value.absent
    while any(thread.name == "waiting" for thread in threading.enumerate()):
        assert time.monotonic() - began < 30
        time.sleep(0.02)
    assert patient.text(f"{server.url}/text") == "v1.36.2", "itself it goes on"


def test_results_by_name_and_an_end_of_the_wait() -> None:
    assert run_concurrently({"a": lambda: 1, "b": lambda: 2}) == {"a": 1, "b": 2}
    end = threading.Event()
    try:
        with pytest.raises(TimeoutError):
            run_concurrently({"a": lambda: True, "b": lambda: end.wait(60)}, timeout=0.1)
        with pytest.raises(ZeroDivisionError):
            run_concurrently({"a": lambda: bool(1 // 0), "b": lambda: end.wait(60)})
    finally:
        end.set()


# --- users and passwords ---


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """A server that wants a password, which a netrc file has."""
    made = Server({"/file": CONTENT, "/text": b"v1.36.2"}, login=f"me:{PASSWORD}")
    file = tmp_path / "netrc"
    file.touch(mode=0o600)
    file.write_text(f"machine localhost login me password {PASSWORD}\n")
    monkeypatch.setenv("NETRC", str(file))
    yield made
    made.close()


def test_a_password_of_netrc(
    locked: Server, downloader: Downloader, target: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    locked.fail("/file", Fault(503))
    downloader.file(f"{locked.url}/file", target, SUM)
    assert target.read_bytes() == CONTENT
    assert caplog.records
    encoded = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    assert PASSWORD not in caplog.text
    assert encoded not in caplog.text


def test_netrc_of_the_home_folder(
    locked: Server, downloader: Downloader, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Path(os.environ["HOME"])
    home.mkdir()
    Path(os.environ["NETRC"]).rename(home / ".netrc")
    monkeypatch.delenv("NETRC")
    assert downloader.text(f"{locked.url}/text") == "v1.36.2"


def test_no_password_and_a_wrong_one(
    locked: Server, downloader: Downloader, waits: Waits, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Path(os.environ["NETRC"])
    file.write_text("machine localhost login me password wrongPlanted\n", encoding="utf-8")
    for _ in range(2):
        with pytest.raises(DownloadError) as raised:
            downloader.text(f"{locked.url}/text")
        assert "answers 401" in raised.value.details
        assert "netrc" in raised.value.resolution
        assert "Planted" not in str(vars(raised.value))
        monkeypatch.delenv("NETRC", raising=False)
    assert waits == []


def test_a_netrc_file_that_others_can_read_is_refused(
    locked: Server, downloader: Downloader
) -> None:
    file = Path(os.environ["NETRC"])
    file.chmod(0o640)
    with pytest.raises(UsageError, match="others can read it") as raised:
        downloader.text(f"{locked.url}/text")
    assert raised.value.resolution == f"chmod 600 {file}"
    assert locked.asked == []
    file.write_text("machine elsewhere.example login me password x\n", encoding="utf-8")
    with pytest.raises(DownloadError):
        downloader.text(f"{locked.url}/text")


def test_a_damaged_netrc_file_is_not_shown(locked: Server, downloader: Downloader) -> None:
    Path(os.environ["NETRC"]).write_text(
        f"machine localhost\nlogin me {PASSWORD}\n", encoding="utf-8"
    )
    with pytest.raises(UsageError, match="of .* cannot be read") as raised:
        downloader.text(f"{locked.url}/text")
    assert PASSWORD not in str(vars(raised.value))


def test_a_password_goes_to_its_own_host_alone(downloader: Downloader, locked: Server) -> None:
    other = Server({"/text": b"v1.36.2"})
    locked.fail("/text", Fault(302, {"Location": f"http://127.0.0.1:{other.port}/text"}))
    try:
        assert downloader.text(f"{locked.url}/text") == "v1.36.2"
    finally:
        other.close()
    assert "Authorization" in locked.requests[0].headers
    assert "Authorization" not in other.requests[0].headers


def test_what_signs_a_place_is_not_shown(
    server: Server, downloader: Downloader, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="sykube")
    server.files[f"{STORE}/far"] = CONTENT
    server.fail(f"{STORE}/far?signed=Planted", *[Fault(503)] * 4)
    with pytest.raises(DownloadError) as raised:
        downloader.text(f"{server.url}/far")
    assert "answers 503" in raised.value.details
    assert "Planted" not in str(vars(raised.value)) + caplog.text
    server.files["/gone"] = b""
    server.fail("/gone", *[Fault(302, {"Location": "http://localhost:1/x?signed=Planted"})] * 4)
    with pytest.raises(DownloadError) as raised:
        downloader.text(f"{server.url}/gone")
    assert "no connection to localhost:1: Connection refused" in raised.value.details
    assert "Planted" not in "".join(traceback.format_exception(raised.value)) + caplog.text
    assert download.shown("https://me:pw@x.example:1/a?signed=y#z") == "https://x.example:1/a"


# --- proxies ---


def test_the_proxy_of_the_environment(
    server: Server, downloader: Downloader, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["http://releases.example/text"] = b"by the proxy"
    proxy = f"http://me:{PASSWORD}@localhost:{server.port}"
    monkeypatch.setenv("http_proxy", proxy)
    assert downloader.text("http://releases.example/text") == "by the proxy"
    encoded = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    assert server.requests[0].headers["Proxy-Authorization"] == f"Basic {encoded}"
    monkeypatch.setenv("no_proxy", "localhost")
    assert downloader.text(f"{server.url}/text") == "v1.36.2"
    assert server.asked[-1] == "/text"


def test_the_proxy_that_was_asked_for(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files["http://releases.example/text"] = b"by the proxy"
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    given = Proxies(f"http://localhost:{server.port}", "", ("localhost",))
    downloader = Downloader(Access(proxies=given), QUICK)
    assert downloader.text("http://releases.example/text") == "by the proxy"
    assert downloader.text(f"{server.url}/text") == "v1.36.2"
    assert server.asked == ["http://releases.example/text", "/text"]


@pytest.mark.parametrize(
    ("status", "details", "resolution"),
    [
        (407, "the proxy wants a user and password", "https_proxy, as http://USER"),
        (502, "the proxy answers 502 when asked for releases.example (4 tries)", "https_proxy"),
    ],
)
def test_a_proxy_that_refuses(
    downloader: Downloader,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    details: str,
    resolution: str,
) -> None:
    class Refusing(Server):
        def _handler(self) -> type[BaseHTTPRequestHandler]:
            refuse = {"do_CONNECT": lambda request: request.send_error(status)}
            return type("Handler", (super()._handler(),), refuse)

    proxy = Refusing({})
    monkeypatch.setenv("https_proxy", f"http://me:{PASSWORD}@localhost:{proxy.port}")
    try:
        with pytest.raises(DownloadError) as raised:
            downloader.text("https://releases.example/text")
    finally:
        proxy.close()
    assert raised.value.details == details
    assert resolution in raised.value.resolution
    assert PASSWORD not in str(vars(raised.value))


def test_a_proxy_that_is_not_there(downloader: Downloader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", f"http://me:{PASSWORD}@127.0.0.1:1")
    with pytest.raises(DownloadError) as raised:
        downloader.text("https://releases.example/text")
    assert "the proxy to releases.example does not take the connection: Connection refused" in (
        raised.value.details
    )
    assert PASSWORD not in str(vars(raised.value))


def test_a_proxy_of_another_kind(
    downloader: Downloader, waits: Waits, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_pysocks(*_: object, **__: object) -> None:
        raise InvalidSchema("Missing dependencies for SOCKS support.")

    # As where requests has no PySocks.
    monkeypatch.setattr("requests.adapters.SOCKSProxyManager", without_pysocks)
    monkeypatch.setenv("https_proxy", f"socks5://me:{PASSWORD}@localhost:1")
    with pytest.raises(DownloadError) as raised:
        downloader.text("https://releases.example/text")
    assert "not SOCKS" in raised.value.details
    assert waits == []


# --- authorities ---


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls") / "site"
    make_authority(folder, "localhost")
    return folder


@pytest.fixture
def encrypted(certificates: Path) -> Iterator[Server]:
    made = Server({"/text": b"v1.36.2", "/file": CONTENT}, certificate=certificates)
    yield made
    made.close()


def test_an_unknown_authority_is_fatal(
    encrypted: Server, downloader: Downloader, waits: Waits
) -> None:
    with pytest.raises(DownloadError) as raised:
        downloader.text(f"{encrypted.url}/text", "Another site: --mirror")
    assert raised.value.details.startswith(
        f"the certificate of localhost:{encrypted.port} is not trusted: unable to get local issuer"
    )
    assert "--ca-certificate FILE" in raised.value.resolution
    assert "--mirror" in raised.value.resolution
    assert waits == []
    assert encrypted.asked == []


def test_an_authority_of_the_site(
    encrypted: Server, certificates: Path, waits: Waits, target: Path
) -> None:
    access = Access(authorities=((certificates / "ca.pem").read_text(),))
    downloader = Downloader(access, QUICK, waits)
    encrypted.fail("/file", Fault(cut=1000))
    assert downloader.text(f"{encrypted.url}/text") == "v1.36.2"
    downloader.file(f"{encrypted.url}/file", target, SUM)
    assert target.read_bytes() == CONTENT


def test_a_site_that_leads_to_one_without_encryption(
    encrypted: Server, server: Server, certificates: Path, waits: Waits
) -> None:
    access = Access(authorities=((certificates / "ca.pem").read_text(),))
    encrypted.fail("/text", Fault(302, {"Location": f"{server.url}/text"}))
    with pytest.raises(DownloadError) as raised:
        Downloader(access, QUICK, waits).text(f"{encrypted.url}/text")
    assert raised.value.details.endswith(f"leads to localhost:{server.port} without encryption")


def test_a_certificate_for_another_name(
    encrypted: Server, certificates: Path, waits: Waits
) -> None:
    access = Access(authorities=((certificates / "ca.pem").read_text(),))
    with pytest.raises(DownloadError) as raised:
        Downloader(access, QUICK, waits).text(f"https://127.0.0.1:{encrypted.port}/text")
    assert "is not trusted: IP address mismatch" in raised.value.details


def test_authorities_that_are_none() -> None:
    broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    with pytest.raises(UsageError, match="--ca-certificate"):
        Downloader(Access(authorities=(broken,)))


# --- checksums ---


@pytest.mark.parametrize("text", ["", "abc", "g" * 64, "<html>", "a" * 65])
def test_what_is_no_checksum(text: str) -> None:
    with pytest.raises(ValueError, match="neither a SHA-256 nor a SHA-512"):
        Checksum.parse(text)


def test_a_list_of_checksums() -> None:
    one, two = "1" * 64, "2" * 64
    text = f"{one}  runc.amd64\n{two} *runc.arm64\n{two}  runc.amd64.asc\n"
    assert Checksum.listed(text, "runc.amd64").value == one
    assert Checksum.listed(text.replace("\n", "\r\n"), "runc.arm64").value == two
    with pytest.raises(ValueError, match=r"no checksums of runc\.s390x"):
        Checksum.listed(text, "runc.s390x")
    with pytest.raises(ValueError, match=r"2 checksums of runc\.amd64"):
        Checksum.listed(f"{text}{two}  runc.amd64\n", "runc.amd64")


def test_a_file_fits_its_checksum(tmp_path: Path) -> None:
    file = tmp_path / "f"
    assert not SUM.matches(file)
    file.write_bytes(CONTENT)
    assert SUM.matches(file)
    file.write_bytes(CONTENT[:-1])
    assert not SUM.matches(file)
