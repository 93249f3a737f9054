"""Downloads over links that break, from servers that lie, onto disks that fill: right and whole, or not there at all."""

from __future__ import annotations

import errno
import fcntl
import gzip
import hashlib
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from base64 import b64encode
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from answers import Answers, Authority, ServedFile
from chunks import upload
from faults import die_at, memory_folder, small_disk
from proxies import Nginx
from servers import PLUGIN, TESTS, wait_until
from upload_helper.retry import Backoff
from upload_helper.transfer import part as parts
from upload_helper.transfer.addresses import Endpoint
from upload_helper.transfer.digests import Digest, promised
from upload_helper.transfer.download import MOST_FAILURES, DownloadRequest, Fetched, fetch
from upload_helper.transfer.errors import (
    AnswerError,
    CertificateError,
    ContentError,
    DigestMismatchError,
    InvalidTransferError,
    LinkError,
    PageError,
    TargetBusyError,
    TargetError,
    TargetExistsError,
    TargetFullError,
    TransferError,
)
from upload_helper.transfer.names import MOST_BYTES, name_of, safe_name
from upload_helper.transfer.part import Note, Part, source_of
from upload_helper.transfer.web import Line
from upload_helper.transfer.wire import DIRECT
from wire_proxy import Fault, WireProxy

DATA = random.Random(6).randbytes(300_000)
SHA256 = "sha256:" + hashlib.sha256(DATA).hexdigest()
HALF = 150_000
AT_ONCE = Backoff(first=0.001, longest=30, jitter=0)


class StopError(BaseException):
    """What a caller raises to end a transfer."""


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def served() -> ServedFile:
    return ServedFile(DATA)


@pytest.fixture
def server(stack, served) -> Answers:
    return stack.enter_context(Answers(served))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "in" / "f.bin"


@pytest.fixture
def get(target: Path):
    """Return a function that fetches a URL to `target`; how long it would have slept is in ``get.slept``."""
    target.parent.mkdir()

    def get(
        url: str, file: Path | str = target, *, report=lambda done, total: None, endpoint=None, **options
    ) -> Fetched:
        line_options = {name: options.pop(name) for name in ("stall", "ca", "check") if name in options}
        request = DownloadRequest(url if endpoint else "", str(file), **options)
        with Line(endpoint or Endpoint.of(url), **{"proxy": DIRECT, "stall": 5, **line_options}) as line:
            return fetch(request, line, report=report, sleep=get.slept.append, backoff=AT_ONCE)

    get.slept = []
    return get


def leave_part(target: Path, data: bytes = DATA[:HALF], **members: object) -> None:
    """Leave behind what a download that was killed leaves."""
    target.with_name(target.name + ".part").write_bytes(data)
    url = members.pop("url", "")
    source = source_of(str(url)) if url else ""
    note = Note(**{"source": source, "etag": '"one"', "length": len(DATA), **members})
    target.with_name(target.name + ".part.json").write_bytes(note.build())


def left_beside(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir() if path != target)


def ranges(server: Answers) -> list[str | None]:
    return [asked.headers.get("Range") for asked in server.asked]


# --- the plain case ---


def test_file_arrives_whole_and_nothing_else_is_left(get, server, target):
    reports: list[tuple[int, int | None]] = []
    found = get(server.url + "/f", report=lambda *numbers: reports.append(numbers))
    assert target.read_bytes() == DATA
    assert (found.path, found.size, found.digest, found.resumed) == (target, len(DATA), "", 0)
    assert found.text == "f.bin: 300000 bytes; no digest was promised"
    assert left_beside(target) == []
    assert reports[0] == (0, len(DATA))
    assert reports[-1] == (len(DATA), len(DATA))
    assert reports == sorted(reports)
    assert get.slept == []
    umask = os.umask(0)
    os.umask(umask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~umask


def test_nothing_is_under_the_name_before_it_is_whole(get, server, target):
    def report(done: int, total: int | None) -> None:
        assert not target.exists()
        assert (target.parent / "f.bin.part").stat().st_size == done

    get(server.url, report=report)
    assert target.exists()


@pytest.mark.parametrize("headers", [{}, {"Content-Length": None}])
def test_empty_file_is_a_file(get, served, server, target, headers):
    served.data = b""
    served.headers.update(headers)
    assert get(server.url, digest="sha256:" + hashlib.sha256(b"").hexdigest()).size == 0
    assert target.read_bytes() == b""
    assert left_beside(target) == []


def test_length_may_be_unknown(get, served, server, target):
    served.headers["Content-Length"] = None
    reports = []
    assert get(server.url, report=lambda *numbers: reports.append(numbers)).size == len(DATA)
    assert target.read_bytes() == DATA
    assert reports[-1] == (len(DATA), None)


def test_chunked_answer_that_is_cut_goes_on(get, served, server, target):
    """Its end is known by the last chunk, its length only from the answer that continues it."""

    def chunks(data: bytes):
        for start in range(0, len(data), 50_000):
            block = data[start : start + 50_000]
            yield b"%x\r\n%b\r\n" % (len(block), block)
        yield b"0\r\n\r\n"

    def lie(asked, answer):
        status, headers, body = answer
        return status, {**headers, "Content-Length": None, "Transfer-Encoding": "chunked"}, chunks(body)

    served.lie = lie
    with WireProxy(server.server_port, lambda number: Fault(down=100_000) if number < 3 else Fault()) as proxy:
        # The standard library's server says HTTP/1.0 unless it is told.
        server.RequestHandlerClass.protocol_version = "HTTP/1.1"
        try:
            get(proxy.url)
        finally:
            server.RequestHandlerClass.protocol_version = "HTTP/1.0"
    assert target.read_bytes() == DATA
    assert proxy.breaks == 3


def test_only_get_goes_on(get, server, target):
    leave_part(target, url=server.url)
    found = get(server.url, method="POST")
    assert target.read_bytes() == DATA
    assert (server.asked[0].command, ranges(server)) == ("POST", [None])
    assert found.restarted


# --- links that break ---


def cuts(times: int, seed: int = 1, least: int = 300, most: int = 9000, **members):
    chance = random.Random(seed)
    return lambda number: (
        Fault(down=chance.randrange(least, most), resets=number % 2 == 0, **members) if number < times else Fault()
    )


def test_goes_through_fifty_cuts_without_fetching_anything_twice(get, stack, server, target):
    proxy = stack.enter_context(WireProxy(server.server_port, cuts(50)))
    found = get(proxy.url, digest=SHA256)
    assert target.read_bytes() == DATA
    assert found.digest == SHA256
    assert proxy.connections > 50
    # Beside the file only headers, and what a reset lost in the receiving system.
    assert proxy.down < len(DATA) + proxy.connections * 400 + 25 * 9000
    offsets = [int(text[6:-1]) for text in ranges(server) if text]
    assert offsets == sorted(offsets)


@pytest.mark.soak
def test_gibibyte_goes_through_fifty_cuts(get, stack, target, tmp_path):
    served = tmp_path / "www"
    served.mkdir()
    chance = random.Random(3)
    hasher = hashlib.sha256()
    with (served / "f.bin").open("wb") as file:
        for _ in range(1024):
            block = chance.randbytes(1 << 20)
            hasher.update(block)
            file.write(block)
    nginx = stack.enter_context(Nginx(tmp_path / "run", f"location / {{ root {served}; }}"))
    plan = cuts(50, least=5 << 20, most=32 << 20)
    proxy = stack.enter_context(WireProxy(nginx.port, plan))
    found = get(proxy.url + "/f.bin", digest="sha256:" + hasher.hexdigest())
    assert found.size == 1 << 30
    assert proxy.breaks == 50
    print(f"down: {proxy.down} bytes, {proxy.down / (1 << 30):.4f} of the file")


def test_cut_in_the_headers_is_taken_up_again(get, stack, server, target):
    proxy = stack.enter_context(
        WireProxy(
            server.server_port, lambda number: Fault(down=60 + number) if number in (0, 2) else Fault(down=100_000)
        )
    )
    get(proxy.url)
    assert target.read_bytes() == DATA


def test_stalled_link_is_taken_up_again(get, stack, server, target):
    proxy = stack.enter_context(
        WireProxy(server.server_port, lambda number: Fault(down=100_000, stalls=True) if number < 2 else Fault())
    )
    get(proxy.url, stall=0.2)
    assert target.read_bytes() == DATA
    assert len(get.slept) == 2


def test_slow_link_is_no_failure(get, stack, server, target):
    proxy = stack.enter_context(WireProxy(server.server_port, lambda number: Fault(rate=600_000)))
    get(proxy.url, stall=0.3)
    assert target.read_bytes() == DATA
    assert get.slept == []


def test_link_that_brings_nothing_is_given_up_and_can_be_gone_on_with(get, stack, served, server, target):
    """It is asked five times, longer and longer apart; a byte more and it counts anew."""
    proxy = stack.enter_context(WireProxy(server.server_port, lambda number: Fault(down=10_000 if number < 3 else 20)))
    with pytest.raises(LinkError) as caught:
        get(proxy.url)
    assert caught.value.temporary
    assert get.slept == pytest.approx([0.001, 0.001, 0.001, 0.002, 0.004, 0.008])
    assert proxy.connections == 3 + MOST_FAILURES - 1
    assert not target.exists()
    before = (target.parent / "f.bin.part").stat().st_size
    assert before > 20_000
    proxy.plan = lambda number: Fault()
    found = get(proxy.url)
    assert found.resumed == before
    assert target.read_bytes() == DATA


def test_server_that_cannot_be_reached_is_asked_for_a_while(get, target):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(LinkError, match="Nobody listens"):
        get(f"http://127.0.0.1:{port}")
    assert len(get.slept) == MOST_FAILURES - 1
    assert left_beside(target) == []


def test_name_server_that_is_gone_comes_back(get, server, target, monkeypatch):
    real, failures = socket.getaddrinfo, iter([1, 1, 1])

    def getaddrinfo(*args, **options):
        if next(failures, 0):
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real(*args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    get(server.url)
    assert len(get.slept) == 3


def test_wrong_certificate_is_not_tried_again(get, stack, served, tmp_path, target):
    authority = Authority(tmp_path)
    server = stack.enter_context(Answers(served, authority.sign("good")))
    with pytest.raises(CertificateError):
        get(server.url)
    assert get.slept == []
    assert server.asked == []
    get(server.url, ca=str(authority.certificate))
    assert target.read_bytes() == DATA


def test_busy_server_is_asked_again_when_it_says(get, served, server, target):
    waits = iter(["7", "0"])

    def lie(asked, answer):
        wait = next(waits, None)
        return (503, {"Retry-After": wait}, b"busy") if wait else answer

    served.lie = lie
    get(server.url)
    assert get.slept == [7, 0.002]


def test_long_wait_is_left_to_the_caller(get, served, server):
    served.lie = lambda asked, answer: (429, {"Retry-After": "120"}, b"")
    with pytest.raises(AnswerError) as caught:
        get(server.url)
    assert (caught.value.temporary, caught.value.retry_after, get.slept) == (True, 120, [])


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_refusal_is_final_and_keeps_what_is_there(get, served, server, target, status):
    leave_part(target, url=server.url)
    served.lie = lambda asked, answer: (status, {}, b"no")
    with pytest.raises(AnswerError, match=str(status)):
        get(server.url)
    assert len(server.asked) == 1
    assert (target.parent / "f.bin.part").read_bytes() == DATA[:HALF]


def test_stop_ends_it_and_what_is_there_is_gone_on_with(get, stack, server, target):
    proxy = stack.enter_context(WireProxy(server.server_port, lambda number: Fault(down=HALF, stalls=True)))
    with Line(Endpoint.of(proxy.url), proxy=DIRECT) as line:
        part = target.parent / "f.bin.part"
        thread = threading.Thread(
            target=lambda: wait_until(lambda: part.exists() and part.stat().st_size > HALF - 1000) and line.cut()
        )
        thread.start()
        with pytest.raises(LinkError, match="cut off here"):
            fetch(DownloadRequest(file=str(target)), line, sleep=get.slept.append)
        thread.join()
    assert get.slept == []
    proxy.plan = lambda number: Fault()
    assert HALF - 1000 < get(proxy.url).resumed < HALF
    assert target.read_bytes() == DATA


@pytest.mark.parametrize("where", ["check", "report"])
def test_what_the_caller_raises_ends_it_and_leaves_the_part(get, server, target, where):
    calls = []

    def stop(*args: object) -> None:
        calls.append(args)
        if len(calls) == 4:
            raise StopError

    with pytest.raises(StopError):
        get(server.url, **{where: stop})
    assert not target.exists()
    get(server.url)
    assert target.read_bytes() == DATA


# --- going on ---


def test_part_is_gone_on_with_under_its_etag(get, server, target):
    leave_part(target, url=server.url)
    reports = []
    found = get(server.url, report=lambda *numbers: reports.append(numbers))
    assert target.read_bytes() == DATA
    assert found.resumed == HALF
    assert "150000 of them were there before" in found.text
    assert reports[0] == (HALF, len(DATA))
    (asked,) = server.asked
    assert (asked.headers["Range"], asked.headers["If-Range"]) == ("bytes=150000-", '"one"')
    assert left_beside(target) == []


def test_without_etag_the_date_is_what_it_goes_by(get, served, server, target):
    served.headers["ETag"] = 'W/"weak"'
    leave_part(target, url=server.url, etag="", modified=served.headers["Last-Modified"])
    assert get(server.url).resumed == HALF
    assert server.asked[0].headers["If-Range"] == "Mon, 01 Jan 2024 00:00:00 GMT"


def test_weak_etag_is_not_kept(get, stack, served, server, target):
    served.headers["ETag"] = 'W/"weak"'
    proxy = stack.enter_context(
        WireProxy(server.server_port, lambda number: Fault(down=100_000) if number == 0 else Fault())
    )
    get(proxy.url)
    assert server.asked[1].headers["If-Range"] == "Mon, 01 Jan 2024 00:00:00 GMT"


def test_without_both_it_starts_again_unless_a_digest_tells(get, served, server, target):
    served.headers.update({"ETag": None, "Last-Modified": None})
    leave_part(target, url=server.url, etag="")
    found = get(server.url)
    assert (found.resumed, ranges(server)) == (0, [None])
    assert "no ETag" in found.restarted
    target.unlink()
    leave_part(target, url=server.url, etag="")
    assert get(server.url, digest=SHA256).resumed == HALF
    assert server.asked[1].headers["Range"] == "bytes=150000-"
    assert "If-Range" not in server.asked[1].headers


def test_part_of_another_address_is_not_gone_on_with(get, server, target):
    leave_part(target, b"x" * HALF, url=server.url + "/other")
    found = get(server.url)
    assert target.read_bytes() == DATA
    assert "another address" in found.restarted


def test_whole_part_needs_no_server(get, target):
    leave_part(target, DATA, url="http://127.0.0.1:1")
    found = get("http://127.0.0.1:1", digest=SHA256)
    assert (found.size, found.resumed) == (len(DATA), len(DATA))
    assert target.read_bytes() == DATA


def test_file_that_changed_begins_again_and_is_never_mixed(get, served, server, target):
    leave_part(target, b"o" * HALF, url=server.url, etag='"old"')
    found = get(server.url)
    assert target.read_bytes() == DATA
    assert (found.resumed, found.restarted) == (0, "the file has changed")


def test_file_that_changes_in_the_middle_begins_again(get, stack, served, server, target):
    other = DATA[::-1]

    def plan(number: int) -> Fault:
        if number == 1:
            served.data, served.headers["ETag"] = other, '"two"'
        return Fault(down=100_000) if number == 0 else Fault()

    get(stack.enter_context(WireProxy(server.server_port, plan)).url)
    assert target.read_bytes() == other


def test_machine_that_went_down_loses_what_was_not_forced_to_the_disk(get, server, target):
    """After a power cut the end of a file may be anything, whatever its length."""
    leave_part(target, DATA[:100_000] + b"\0" * 50_000, url=server.url, synced=100_000, boot="0" * 32)
    found = get(server.url)
    assert target.read_bytes() == DATA
    assert found.resumed == 100_000


def saved() -> bool:
    """Whether nothing is being forced to the disk."""
    return all(thread.name != "save" for thread in threading.enumerate())


def test_part_is_forced_to_the_disk_now_and_then(target, get, monkeypatch):
    monkeypatch.setattr(parts, "BETWEEN_SAVES", 100_000)
    forced: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (forced.append(os.fstat(file).st_size), real(file)))
    with Part(target) as part:
        part.begin(Note(length=1_000_000))
        for size in range(60_000, 480_001, 60_000):
            part.write(b"x" * 60_000)
            wait_until(saved)
            kept = Note.parse((target.parent / "f.bin.part.json").read_bytes())
            assert kept.synced in [0, *forced]
            assert size - kept.synced <= 240_000
        assert kept.synced >= 240_000


def test_disk_that_fails_behind_the_back_is_noticed(target, get, monkeypatch):
    """A disk says only once that it could not keep what it was given."""
    monkeypatch.setattr(parts, "BETWEEN_SAVES", 1000)
    real = os.fsync

    def fsync(file: int) -> None:
        if threading.current_thread().name == "save":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    with Part(target) as part:
        part.begin(Note(length=2000))
        part.write(b"x" * 2000)
        with pytest.raises(TargetError, match="Input/output error"):
            part.finish(overwrite=False)
    assert not target.exists()


# --- servers that lie ---


def lying(status=None, **headers):
    """Return a lie for answers to a range: other headers, or another status."""
    changed = {name.replace("_", "-"): value for name, value in headers.items()}

    def lie(asked, answer):
        if "Range" not in asked.headers:
            return answer
        return status or answer[0], {**answer[1], **changed}, answer[2]

    return lie


@pytest.mark.parametrize(
    "headers",
    [{"Content_Range": "bytes 160000-299999/300000"}, {"Content_Range": None}, {"Content_Range": "bytes 150000-299999/500000"},
     {"Content_Range": "items 150000-299999/300000"}, {"Content_Range": "bytes 150000-300009/300010"}, {"Content_Range": "bytes */300000"},
     {"Content_Range": "bytes 0-149999/300000"}, {"ETag": '"two"'}, {"Content_Range": "bytes 150000-149999/300000"},
     {"Content_Range": "bytes 99999999999999999999-99999999999999999999/9"},
     {"Content_Type": "multipart/byteranges; boundary=x", "Content_Range": None}],
)  # fmt: skip
def test_part_that_is_not_what_was_asked_for_is_not_used(get, served, server, target, headers):
    leave_part(target, url=server.url)
    served.lie = lying(**headers)
    found = get(server.url, digest=SHA256)
    assert target.read_bytes() == DATA
    assert (found.resumed, ranges(server)[-1]) == (0, None)
    assert found.restarted


def test_one_odd_answer_does_not_cost_what_is_there(get, served, server, target):
    leave_part(target, url=server.url)
    served.lie = lambda asked, answer: (
        answer if len(server.asked) > 1 else (206, {"Content-Range": "bytes 0-9/10"}, b"0123456789")
    )
    assert get(server.url).resumed == HALF
    assert target.read_bytes() == DATA


def test_part_may_begin_before_what_was_asked_for(get, served, server, target):
    leave_part(target, url=server.url)
    served.lie = lambda asked, answer: (
        206,
        {**served.headers, "Content-Range": "bytes 20000-299999/300000"},
        DATA[20_000:],
    )
    found = get(server.url)
    assert target.read_bytes() == DATA
    assert found.resumed == HALF
    assert len(server.asked) == 1


def test_part_may_be_shorter_than_what_was_asked_for(get, served, server, target):
    leave_part(target, url=server.url)

    def lie(asked, answer):
        first = int(asked.headers["Range"][6:-1])
        last = min(first + 39_999, 299_999)
        return 206, {**served.headers, "Content-Range": f"bytes {first}-{last}/*"}, DATA[first : last + 1]

    served.lie = lie
    get(server.url)
    assert target.read_bytes() == DATA
    assert len(server.asked) == 4
    assert get.slept == []


def test_part_that_ends_before_it_should_is_a_failure(get, stack, served, server, target):
    """With a last chunk, but without the bytes that it said: asked again and again it must come to an end."""
    leave_part(target, url=server.url)
    served.lie = lambda asked, answer: (206, {**answer[1], "Content-Length": None}, b"")
    with pytest.raises(LinkError, match="cut at 150000 of 300000"):
        get(server.url)
    assert len(server.asked) == MOST_FAILURES
    assert (target.parent / "f.bin.part").read_bytes() == DATA[:HALF]


def test_server_without_parts_is_asked_for_all(get, served, server, target):
    leave_part(target, url=server.url)
    served.lie = lambda asked, answer: (200, served.headers, DATA)
    found = get(server.url)
    assert target.read_bytes() == DATA
    assert (found.resumed, found.restarted) == (0, "the server sends no parts")


@pytest.mark.parametrize("status", [201, 204, 206, 226])
def test_other_success_is_no_file(get, served, server, target, status):
    served.lie = lambda asked, answer: (
        status,
        {**answer[1], "Content-Range": "bytes 0-299999/300000"},
        b"" if status == 204 else DATA,
    )
    with pytest.raises(ContentError, match=str(status)) as caught:
        get(server.url)
    assert not caught.value.temporary
    assert not target.exists()


def test_end_of_range_that_is_the_length_means_whole(get, served, server, target):
    leave_part(target, DATA, url=server.url, length=None)
    found = get(server.url)
    assert target.read_bytes() == DATA
    assert (found.resumed, ranges(server)) == (len(DATA), ["bytes=300000-"])


@pytest.mark.parametrize("content_range", ["bytes */100", "bytes */900000", None])
def test_range_that_the_server_does_not_have_begins_again(get, served, server, target, content_range):
    length = None if content_range else 900_000
    leave_part(target, b"o" * HALF, url=server.url, length=length, etag='"old"')
    served.lie = lambda asked, answer: (
        (416, {"Content-Range": content_range}, b"") if "Range" in asked.headers and content_range else answer
    )
    found = get(server.url)
    assert target.read_bytes() == DATA
    assert found.resumed == 0


def test_length_that_is_too_long_is_never_believed(get, served, server, target):
    """Each answer ends before the declared length; what was fetched is not the file, and nobody waits for ever."""
    served.lie = lambda asked, answer: (
        answer[0],
        {**answer[1], "Content-Length": str(len(answer[2]) + 1000)} if answer[0] != 416 else answer[1],
        answer[2],
    )
    with pytest.raises(TransferError):
        get(server.url)
    assert not target.exists()
    assert len(server.asked) <= 2 * MOST_FAILURES


def test_length_that_is_too_short_is_found_by_the_digest(get, served, server, target):
    served.lie = lambda asked, answer: (answer[0], {**answer[1], "Content-Length": "1000"}, answer[2])
    with pytest.raises(DigestMismatchError):
        get(server.url, digest=SHA256)
    assert not target.exists()
    assert left_beside(target) == []


def test_more_than_the_range_is_refused(get, served, server, target):
    """Without a Content-Length only the end of the connection tells the end."""
    leave_part(target, url=server.url)
    served.lie = lambda asked, answer: (
        (206, {**answer[1], "Content-Length": None}, answer[2] + b"more") if answer[0] == 206 else answer
    )
    get(server.url)
    assert target.read_bytes() == DATA
    assert ranges(server) == ["bytes=150000-", None]


PAGE = (200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>Please sign in to the network" + b" " * 400_000)


def test_page_instead_of_a_file_does_not_cost_what_is_there(get, served, server, target):
    """As a network with a sign-in page sends it: the next attempt, in another network, goes on."""
    leave_part(target, url=server.url)
    served.lie = lambda asked, answer: PAGE
    with pytest.raises(PageError) as caught:
        get(server.url)
    assert caught.value.temporary
    assert (target.parent / "f.bin.part").read_bytes() == DATA[:HALF]
    served.lie = lambda asked, answer: answer
    assert get(server.url).resumed == HALF
    assert target.read_bytes() == DATA


def test_page_where_a_digest_was_promised_is_no_file(get, served, server, target):
    served.lie = lambda asked, answer: PAGE
    with pytest.raises(PageError):
        get(server.url, digest=SHA256)
    assert not target.exists()
    served.lie = lambda asked, answer: (200, {"Content-Type": "text/plain"}, PAGE[2])
    with pytest.raises(DigestMismatchError):
        get(server.url, digest=SHA256)
    assert left_beside(target) == []


def test_page_that_is_asked_for_is_a_file(get, served, server, target):
    served.lie = lambda asked, answer: PAGE
    assert get(server.url, target.with_suffix("")).size == len(PAGE[2])
    page = target.with_name("index.html")
    get(server.url, page, digest="sha256:" + hashlib.sha256(PAGE[2]).hexdigest())
    assert page.read_bytes() == PAGE[2]


def test_endless_redirects_are_not_tried_again(get, served, server, target):
    served.lie = lambda asked, answer: (302, {"Location": asked.path + "x"}, b"")
    with pytest.raises(TransferError, match="redirects"):
        get(server.url)
    assert len(server.asked) == 6
    assert left_beside(target) == []


def test_redirect_to_another_host_carries_the_range_and_no_credentials(get, stack, server, target):
    other = stack.enter_context(Answers(lambda asked: (302, {"Location": server.url + "/signed?x=1"}, b"")))
    leave_part(target, url=other.url + "/f")
    get("/f", endpoint=Endpoint.of(other.url, {"X-Key": "hunter2"}, basic=("anna", "hunter2")))
    assert "hunter2" in str(other.asked[0].headers)
    (asked,) = server.asked
    assert "hunter2" not in str(asked.headers)
    assert "Authorization" not in asked.headers
    assert asked.headers["Range"] == "bytes=150000-"
    assert target.read_bytes() == DATA


def test_compression_that_was_not_asked_for_is_refused(get, served, server, target):
    served.lie = lambda asked, answer: (200, {**answer[1], "Content-Encoding": "gzip"}, gzip.compress(DATA))
    with pytest.raises(ContentError, match="compressed"):
        get(server.url)
    assert server.asked[0].headers["Accept-Encoding"] == "identity"
    assert left_beside(target) == []


def test_compressed_file_is_kept_as_it_is(get, served, server, target):
    """Apache says of a .tar.gz that its content is compressed, and means the file itself."""
    packed = gzip.compress(DATA)
    served.data = packed
    served.headers["Content-Encoding"] = "x-gzip"
    file = target.with_name("f.tar.gz")
    get(server.url, file, digest="sha256:" + hashlib.sha256(packed).hexdigest())
    assert file.read_bytes() == packed


# --- digests ---


def digest_headers(data: bytes, algorithm: str, name: str) -> dict[str, str]:
    value = b64encode(hashlib.new(algorithm, data).digest()).decode()
    label = {"sha256": "sha-256", "sha512": "sha-512", "sha1": "sha", "md5": "md5"}[algorithm]
    return {
        "Repr-Digest": {"Repr-Digest": f"{label}=:{value}:"},
        "Content-Digest": {"Content-Digest": f"unknown=:AAAA:, {label}=:{value}:"},
        "Digest": {"Digest": f"UNIXsum=1234, {label.upper()}={value}"},
        "Content-MD5": {"Content-MD5": value},
    }[name]


PROMISES = [("sha256", "Repr-Digest"), ("sha512", "Repr-Digest"), ("md5", "Repr-Digest"), ("sha256", "Digest"), ("sha1", "Digest"),
            ("sha512", "Content-Digest"), ("md5", "Content-MD5")]  # fmt: skip


@pytest.mark.parametrize(("algorithm", "name"), PROMISES)
def test_digest_that_the_server_promises_is_checked(get, served, server, target, algorithm, name):
    served.headers.update(digest_headers(DATA, algorithm, name))
    found = get(server.url)
    assert found.digest == f"{algorithm}:{hashlib.new(algorithm, DATA).hexdigest()}"
    assert found.digest in found.text
    target.unlink()
    served.headers.update(digest_headers(b"other", algorithm, name))
    with pytest.raises(DigestMismatchError, match="not the promised") as caught:
        get(server.url)
    assert not caught.value.temporary
    assert not target.exists()
    assert left_beside(target) == []


@pytest.mark.parametrize(("algorithm", "name"), PROMISES)
def test_digest_of_a_part_is_told_from_that_of_the_file(get, served, server, target, algorithm, name):
    leave_part(target, url=server.url)
    of_the_file = name in ("Repr-Digest", "Digest")
    served.headers.update(digest_headers(DATA if of_the_file else DATA[HALF:], algorithm, name))
    found = get(server.url)
    assert target.read_bytes() == DATA
    assert found.resumed == HALF
    assert bool(found.digest) is of_the_file


def test_digest_outlives_the_process(get, stack, served, server, target):
    """It stands in the answer that was cut; those that continue it need not name it again."""
    served.headers["Repr-Digest"] = f"sha-256=:{b64encode(hashlib.sha256(b'other').digest()).decode()}:"
    served.lie = lambda asked, answer: (
        answer[0],
        {**answer[1], "Repr-Digest": None} if answer[0] == 206 else answer[1],
        answer[2],
    )
    proxy = stack.enter_context(
        WireProxy(server.server_port, lambda number: Fault(down=100_000) if number == 0 else Fault())
    )
    with pytest.raises(DigestMismatchError):
        get(proxy.url)
    assert not target.exists()


def test_digest_of_the_caller_counts_more(get, served, server, target):
    served.headers.update(digest_headers(b"other", "sha256", "Repr-Digest"))
    assert get(server.url, digest=SHA256).digest == SHA256


def test_damaged_part_is_fetched_again_once(get, served, server, target):
    leave_part(target, b"damaged" + DATA[7:HALF], url=server.url)
    found = get(server.url, digest=SHA256)
    assert target.read_bytes() == DATA
    assert (found.resumed, found.restarted) == (0, "what was there was damaged")
    target.unlink()
    leave_part(target, url=server.url)
    with pytest.raises(DigestMismatchError):
        get(server.url, digest="sha256:" + "0" * 64)
    assert len(server.asked) == 4
    assert left_beside(target) == []


@pytest.mark.parametrize("resumed", [False, True])
def test_link_that_corrupts_is_found_out(get, stack, server, target, resumed):
    proxy = stack.enter_context(
        WireProxy(server.server_port, lambda number: Fault(corrupts_down=5000) if number == 0 else Fault())
    )
    if resumed:
        leave_part(target, url=proxy.url)
        get(proxy.url, digest=SHA256)
        assert target.read_bytes() == DATA
    else:
        with pytest.raises(DigestMismatchError):
            get(proxy.url, digest=SHA256)
        assert not target.exists()


@pytest.mark.parametrize(
    "text",
    [
        "sha256:" + "ab" * 32,
        "SHA-256:" + "AB" * 32,
        "ab" * 32,
        "sha256:" + b64encode(bytes.fromhex("ab" * 32)).decode(),
        " sha-256:" + "ab" * 32 + " ",
    ],
)
def test_digest_is_read_in_every_usual_form(text):
    assert Digest.parse(text) == Digest("sha256", bytes.fromhex("ab" * 32))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        "sha256:abc",
        "ab" * 31,
        "sha3:" + "ab" * 32,
        "md5:" + "ab" * 20,
        "crc32:12345678",
        "☃",
        ":" + "ab" * 16,
    ],
)
def test_what_is_no_digest_is_named(text):
    with pytest.raises(InvalidTransferError, match="no digest"):
        Digest.parse(text)


@given(st.sampled_from(["sha512", "sha256", "sha1", "md5"]), st.binary())
def test_digest_is_what_it_was_built_from(algorithm, data):
    digest = Digest(algorithm, hashlib.new(algorithm, data).digest())
    assert Digest.parse(digest.build()) == digest


@given(
    st.dictionaries(st.sampled_from(["Repr-Digest", "Digest", "Content-MD5", "Content-Digest"]), st.text(max_size=40))
)
def test_promise_that_cannot_be_read_is_none(headers):
    assert promised(headers, is_whole=True) is None or "=" in str(headers)


# --- the disk ---


def test_target_that_is_there_is_left_alone(get, server, target):
    target.write_text("mine")
    with pytest.raises(TargetExistsError, match="there already"):
        get(server.url)
    assert (target.read_text(), server.asked, left_beside(target)) == ("mine", [], [])
    get(server.url, overwrite=True)
    assert target.read_bytes() == DATA


def test_target_that_appears_meanwhile_is_left_alone(get, server, target):
    with pytest.raises(TargetExistsError):
        get(server.url, report=lambda done, total: target.write_text("mine"))
    assert target.read_text() == "mine"
    # What was fetched is not lost: as soon as it may be put there, it is.
    found = get(server.url, overwrite=True)
    assert found.resumed == len(DATA)
    assert target.read_bytes() == DATA


def test_old_file_stays_until_the_new_one_is_whole(get, stack, server, target):
    target.write_text("old")
    proxy = stack.enter_context(WireProxy(server.server_port, lambda number: Fault(down=20_000 if number == 0 else 0)))
    with pytest.raises(LinkError):
        get(proxy.url, overwrite=True)
    assert target.read_text() == "old"


def test_folder_that_is_not_there_is_named_before_anything_is_asked(get, server, target):
    for file in (target.parent / "no" / "f", f"{target.parent}/no/"):
        with pytest.raises(TargetError, match="no folder") as caught:
            get(server.url, file)
        assert not caught.value.temporary
    file = target.parent / "file"
    file.write_text("")
    with pytest.raises(TargetError):
        get(server.url, file / "f")
    assert server.asked == []


def test_folder_that_goes_away_in_the_middle_is_named(get, server, target, monkeypatch):
    gone = []

    def report(done: int, total: int | None) -> None:
        if done > HALF and not gone:
            gone.append(shutil.rmtree(target.parent))

    with pytest.raises(TargetError, match=r"folder of .* is gone") as caught:
        get(server.url, report=report)
    assert not caught.value.temporary
    assert get.slept == []


def test_part_that_goes_away_in_the_middle_is_noticed(get, server, target):
    with pytest.raises(TargetError, match="moved"):
        get(server.url, report=lambda done, total: (target.parent / "f.bin.part").unlink(missing_ok=True))
    assert not target.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_that_is_read_only_is_named(get, server, target):
    target.parent.chmod(0o500)
    with pytest.raises(TargetError, match="Permission denied"):
        get(server.url)


def test_full_disk_keeps_what_is_there_and_goes_on_with_room(get, served, server, tmp_path):
    served.data = random.Random(1).randbytes(4 << 20)
    with small_disk(tmp_path / "disk") as disk:
        file = disk.path / "f.bin"
        filled = []

        def report(done: int, total: int | None) -> None:
            if done > 1 << 20 and not filled:
                filled.append(disk.fill(64 << 10))

        with pytest.raises(TargetFullError, match="no room") as caught:
            get(server.url, file, report=report)
        assert (caught.value.temporary, caught.value.retry_after) == (True, 60)
        assert not file.exists()
        disk.free()
        found = get(server.url, file)
        assert found.resumed > 1 << 20
        assert file.read_bytes() == served.data


def test_file_that_cannot_fit_is_not_begun(get, served, server, tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        if os.statvfs(disk.path).f_blocks > 1 << 14:
            pytest.skip("no small disk may be mounted here")
        served.lie = lambda asked, answer: (200, {**answer[1], "Content-Length": str(9 << 20)}, b"x" * 1000)
        with pytest.raises(TargetFullError, match="no room for the 9437184 bytes"):
            get(server.url, disk.path / "f")
        assert [path.name for path in disk.path.iterdir()] == []


def test_limit_of_the_system_on_files_is_a_full_disk(server, target, get):
    program = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n" + RUN
    done = run(program, server.url, target)
    assert "TargetFullError" in done.stdout
    assert (target.parent / "f.bin.part").stat().st_size == 100_000
    assert get(server.url).resumed == 100_000
    assert target.read_bytes() == DATA


def test_part_of_somebody_else_is_left_alone(get, server, target):
    part = target.parent / "f.bin.part"
    part.write_text("of a browser")
    with pytest.raises(TargetExistsError, match="of no transfer"):
        get(server.url)
    assert part.read_text() == "of a browser"
    part.unlink()
    secret = target.parent / "secret"
    secret.write_text("secret")
    part.symlink_to(secret)
    with pytest.raises(TargetError):
        get(server.url)
    assert secret.read_text() == "secret"


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[]", b"null", b'{"etag": 5}', b"\xff", b"[" * 100_000, Note(length=-1).build(), b'{"length": 1e999}'],
)
def test_note_that_cannot_be_read_begins_again(get, server, target, raw):
    leave_part(target, b"x" * HALF, url=server.url)
    target.with_name("f.bin.part.json").write_bytes(raw)
    assert get(server.url).resumed == 0
    assert target.read_bytes() == DATA


@given(st.builds(Note, source=st.text(), etag=st.text(), modified=st.text(), length=st.none() | st.integers(0), digest=st.text(),
                 is_page=st.booleans(), synced=st.integers(), boot=st.text()))  # fmt: skip
def test_note_is_what_it_was_built_from(note):
    assert Note.parse(note.build()) == note


@given(
    st.binary()
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).map(lambda value: json.dumps(value).encode())
)
def test_note_is_read_whatever_it_is(raw):
    assert isinstance(Note.parse(raw), Note)


def test_long_name_has_room_beside_it(get, server, target):
    file = target.with_name("ä" * 127)
    get(server.url, file)
    assert file.read_bytes() == DATA
    assert left_beside(file) == []


def test_note_holds_no_secret(get, server, target):
    url = server.url + "/?token=hunter2"

    def report(done: int, total: int | None) -> None:
        assert "hunter2" not in (target.parent / "f.bin.part.json").read_text()

    get(url, report=report)


# --- names that somebody else gives ---


@pytest.mark.parametrize(
    ("disposition", "url", "name"),
    [("", "http://a/b/survey.gpkg?x=1", "survey.gpkg"), ("", "http://a/", "download"), ("", "http://a", "download"), ("", "http://a/b/", "download"),
     ("", "http://a/%D0%BA%D0%B0%D1%80%D1%82%D0%B0.tif", "карта.tif"), ("", "http://a/..%2f..%2fetc%2fpasswd", "passwd"), ("", "http://a/%00%0a", "download"),
     ("attachment; filename=a.tif", "http://a/x", "a.tif"), ("attachment; filename*=UTF-8''%e2%82%ac.tif", "http://a/x", "€.tif"),
     ('attachment; filename="../../.ssh/authorized_keys"', "http://a/x", "authorized_keys"), ('attachment; filename="..\\\\..\\\\b.dll"', "http://a/x", "b.dll"),
     ('attachment; filename="/etc/passwd"', "http://a/x", "passwd"), ('attachment; filename=".bashrc"', "http://a/x", "bashrc"),
     ('attachment; filename=".."', "http://a/x", "x"), ('attachment; filename="a/"', "http://a/x", "x"), ("attachment; filename=", "http://a/x", "x"),
     ('attachment; filename="C:\\\\evil.exe"', "http://a/x", "evil.exe"), ('attachment; filename="a:b|c?.tif"', "http://a/x", "a_b_c_.tif"),
     ("attachment; filename*=UTF-8''a%00b%0d.tif", "http://a/x", "ab.tif"), ("attachment; filename*=UTF-8''exe%E2%80%AEfit", "http://a/x", "exefit"),
     ('attachment; filename="con.txt"', "http://a/x", "_con.txt"), ('attachment; filename="' + "a" * 5000 + '.tif"', "http://a/x", None),
     ('attachment; filename="unnamed"', "http://a/x", "unnamed")],
)  # fmt: skip
def test_name_of_the_server_never_leads_elsewhere(disposition, url, name):
    found = name_of(disposition, url)
    assert name is None or found == name
    assert found.endswith(".tif") or name is not None
    assert len(found.encode()) <= MOST_BYTES


@given(st.text() | st.text("./\\\0 ~:*\u202e\ud800ab", max_size=600))
def test_safe_name_is_safe(raw):
    name = safe_name(raw)
    assert not re.search(r'[/\\<>:"|?*\x00-\x1f]', name)
    assert name == "" or (not name.startswith(".") and name not in (".", "..") and not name.endswith((".", " ")))
    assert len(name.encode()) <= MOST_BYTES
    assert safe_name(name) == name


def test_folder_gets_the_name_that_the_server_gives(get, served, server, target, monkeypatch):
    served.headers["Content-Disposition"] = 'attachment; filename="../named.tif"'
    found = get(server.url + "/x", target.parent)
    assert found.path == target.parent / "named.tif"
    assert found.path.read_bytes() == DATA
    assert len(server.asked) == 1
    with pytest.raises(TargetExistsError):
        get(server.url + "/x", target.parent)
    monkeypatch.chdir(target.parent)
    found.path.unlink()
    assert get(server.url + "/x", "").path == Path("named.tif")


def test_file_that_the_server_names_is_gone_on_with(get, served, server, target):
    served.headers["Content-Disposition"] = 'attachment; filename="named.tif"'
    leave_part(target.parent / "named.tif", url=server.url + "/x")
    found = get(server.url + "/x", target.parent)
    assert found.resumed == HALF
    assert ranges(server) == [None, "bytes=150000-"]
    assert found.path.read_bytes() == DATA


def test_first_answer_that_is_cut_is_gone_on_with(get, stack, server, target):
    proxy = stack.enter_context(
        WireProxy(server.server_port, lambda number: Fault(down=[20, 100_000][number]) if number < 2 else Fault())
    )
    found = get(proxy.url + "/f.bin", target.parent)
    assert found.path.read_bytes() == DATA
    assert len(get.slept) == 2


# --- kills, and others ---

RUN = """
import sys
from upload_helper.transfer.errors import (TransferError)
from upload_helper.retry import Backoff
from upload_helper.transfer.addresses import Endpoint
from upload_helper.transfer.download import DownloadRequest, fetch
from upload_helper.transfer.web import Line
url, file = sys.argv[1:3]
try:
    with Line(Endpoint.of(url), proxy="direct") as line:
        found = fetch(DownloadRequest(file=file), line, backoff=Backoff(first=0.001))
    print(found.size, found.resumed)
except TransferError as error:
    print(type(error).__name__, error)
"""


def start(program: str, *arguments: object, **options: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(PLUGIN), str(TESTS)))}
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        **options,
    )


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    with start(program, *arguments) as process:
        out, _ = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, out)


def killed_again_and_again(proxy: WireProxy, target: Path, steps: list[int]) -> None:
    """Start a fetch for each step, and kill it once its part has that size."""
    part = target.with_name(target.name + ".part")
    for step in steps:
        process = start(RUN, proxy.url, target)
        try:
            wait_until(lambda step=step: part.exists() and part.stat().st_size >= step, what=f"{step} bytes")
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        assert not target.exists()


def test_killed_process_is_gone_on_with(get, stack, served, server, target):
    served.data = random.Random(2).randbytes(3 << 20)
    proxy = stack.enter_context(WireProxy(server.server_port, lambda number: Fault(rate=3 << 20)))
    killed_again_and_again(proxy, target, [500_000, 1_500_000])
    proxy.plan = lambda number: Fault()
    found = get(proxy.url)
    assert found.resumed >= 1_500_000
    assert target.read_bytes() == served.data
    offsets = [int(text[6:-1]) for text in ranges(server)[1:]]
    assert offsets == sorted(offsets)
    assert offsets[0] >= 500_000


@pytest.mark.soak
def test_process_killed_fifty_times_fetches_nothing_twice(get, stack, served, server, target):
    served.data = random.Random(2).randbytes(64 << 20)
    proxy = stack.enter_context(WireProxy(server.server_port, lambda number: Fault(rate=16 << 20)))
    killed_again_and_again(proxy, target, [number * (1 << 20) for number in range(1, 51)])
    proxy.plan = lambda number: Fault()
    get(proxy.url)
    assert target.read_bytes() == served.data
    offsets = [int(text[6:-1]) for text in ranges(server)[1:]]
    assert offsets == sorted(offsets)


@pytest.mark.parametrize("overwrite", [False, True])
def test_process_killed_at_any_call_leaves_the_whole_file_or_none(get, server, tmp_path, overwrite):
    """Wherever it dies, whoever comes next makes the file, and leaves nothing beside it."""
    for number in range(100):
        folder = tmp_path / str(number)
        folder.mkdir()
        file = folder / "f.bin"
        if overwrite:
            file.write_text("old")
        died = die_at(number, lambda file=file: get(server.url, file, overwrite=overwrite, digest=SHA256))
        if overwrite:
            assert file.read_bytes() in (b"old", DATA)
        else:
            assert not file.exists() or file.read_bytes() == DATA
        if died:
            try:
                get(server.url, file, overwrite=overwrite)
            except TargetExistsError:
                # Everything was done but to say so.
                assert left_beside(file) == []
        assert file.read_bytes() == DATA
        assert left_beside(file) == []
        if not died:
            break
    assert not died
    assert number > 8


def test_second_transfer_of_one_target_is_told_so(get, stack, server, target):
    proxy = stack.enter_context(
        WireProxy(server.server_port, lambda number: Fault(down=HALF, stalls=True) if number == 0 else Fault())
    )
    process = start(RUN, proxy.url, target)
    try:
        wait_until(
            lambda: (target.parent / "f.bin.part").exists() and (target.parent / "f.bin.part").stat().st_size > 100_000
        )
        with pytest.raises(TargetBusyError, match="Another transfer") as caught:
            get(proxy.url)
        assert caught.value.temporary
        assert proxy.connections == 1
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert get(proxy.url).resumed > 100_000
    assert target.read_bytes() == DATA


def test_lock_is_that_of_the_part_and_not_of_what_had_its_name(target, get):
    """Who opened the part just before another gave it its name must not write into the finished file."""
    first = Part(target)
    with first, pytest.raises(TargetBusyError):
        Part(target)
    first = Part(target)
    with first:
        first.begin(Note(length=3))
        first.write(b"abc")
        first.finish(overwrite=False)
        with Part(target.with_name("g")) as second:
            assert second.size == 0
        with Part(target) as second:
            assert second.size == 0
            second.begin(Note(length=1))
            second.write(b"x")
    assert target.read_bytes() == b"abc"


@pytest.mark.parametrize("times", [1, 1000])
def test_part_that_is_finished_while_it_is_opened_is_not_written(target, get, monkeypatch, times):
    """Between opening it and locking it, it got its name: what is written now would be in the finished file."""
    real, left = fcntl.flock, [times]

    def flock(file: int, how: int) -> None:
        if left[0]:
            left[0] -= 1
            (target.parent / "f.bin.part").replace(target)
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    if times > 1:
        with pytest.raises(TargetBusyError):
            Part(target)
        return
    with Part(target) as part:
        part.begin(Note(length=5))
        part.write(b"other")
    assert target.read_bytes() == b""


def test_many_at_once_on_one_target_make_one_file(get, server, target):
    outcomes: list[object] = []

    def act() -> None:
        try:
            outcomes.append(get(server.url, overwrite=True))
        except TargetBusyError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=act) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 6
    assert any(isinstance(outcome, Fetched) for outcome in outcomes)
    assert target.read_bytes() == DATA
    assert left_beside(target) == []


@pytest.mark.parametrize("size", [32 << 20, pytest.param(1 << 30, marks=pytest.mark.soak)])
def test_memory_does_not_grow_with_the_file(stack, tmp_path, get, target, size):
    (tmp_path / "www").mkdir()
    for name, length in (("small", 1 << 20), ("large", size)):
        with (tmp_path / "www" / name).open("wb") as file:
            file.truncate(length)
    nginx = stack.enter_context(Nginx(tmp_path / "run", f"location / {{ root {tmp_path}/www; }}"))
    program = RUN + "\nprint([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])"
    memory = {
        name: int(run(program, f"{nginx.url}/{name}", tmp_path / name).stdout.split()[-1])
        for name in ("small", "large")
    }
    assert (tmp_path / "large").stat().st_size == size
    # Blocks of 1 MiB, in kB; a small file comes in smaller ones.
    assert abs(memory["large"] - memory["small"]) < 6 << 10, memory


# --- real servers ---


def test_nginx_serves_what_was_cut(get, stack, target, tmp_path):
    served = tmp_path / "www"
    served.mkdir()
    (served / "f.bin").write_bytes(DATA)
    nginx = stack.enter_context(Nginx(tmp_path / "run", f"location / {{ root {served}; }}"))
    proxy = stack.enter_context(WireProxy(nginx.port, cuts(10, least=1000, most=40_000)))
    get(proxy.url + "/f.bin", digest=SHA256)
    assert target.read_bytes() == DATA
    target.unlink()
    leave_part(target, b"o" * HALF, url=proxy.url + "/f.bin", etag='"old"')
    assert get(proxy.url + "/f.bin").restarted == "the file has changed"
    assert target.read_bytes() == DATA
    target.unlink()
    with pytest.raises(AnswerError, match="404"):
        get(proxy.url + "/g.bin")


def test_own_server_serves_what_was_cut(get, stack, client, gunicorn, target):
    uid = upload(client, DATA, 100_000, name="../survey.gpkg")
    server = gunicorn(workers=1)
    proxy = stack.enter_context(WireProxy(server.port, cuts(10, least=1000, most=40_000)))
    found = get(f"{proxy.url}/uploads/{uid}", target.parent, digest=SHA256)
    assert found.path == target.parent / "survey.gpkg"
    assert found.path.read_bytes() == DATA
    assert found.restarted == ""


# --- what a caller gives ---


@pytest.mark.parametrize("members", [{"method": "get it"}, {"method": ""}, {"digest": "abc"}, {"file": "a\0b"}])
def test_request_that_is_none_is_refused(members):
    with pytest.raises(InvalidTransferError):
        DownloadRequest(**members)


def test_request_shows_no_secret():
    assert "hunter2" not in repr(DownloadRequest("http://anna:hunter2@a/", "f"))


@pytest.mark.soak
def test_download_is_about_as_fast_as_curl(stack, tmp_path, get):
    """The best of five each, so that whatever else the machine does counts little; curl forces nothing to the disk."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not here")
    folder = stack.enter_context(memory_folder(tmp_path))
    file, out = folder / "f.bin", folder / "out.bin"
    with file.open("wb") as opened:
        for _ in range(1024):
            opened.write(os.urandom(1 << 20))
    nginx = stack.enter_context(Nginx(tmp_path / "run", f"location / {{ root {folder}; sendfile on; }}"))
    url = nginx.url + "/f.bin"
    speeds: dict[str, list[float]] = {"curl": [], "ours": []}
    for _ in range(5):
        for name, act in (
            ("curl", lambda: subprocess.run(["curl", "-so", out, url], check=True)),
            ("ours", lambda: get(url, out)),
        ):
            started = time.monotonic()
            act()
            speeds[name].append(1024 / (time.monotonic() - started))
            out.unlink()
    print({name: [round(value) for value in values] for name, values in speeds.items()})
    assert max(speeds["ours"]) >= 0.8 * max(speeds["curl"])
