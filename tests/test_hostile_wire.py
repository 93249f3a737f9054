"""What no HTTP client would send, to a real server: bodies that lie about their length, break off, or stop coming."""

from __future__ import annotations

import json
import random
import re
import select
import socket
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import requests

from chunks import RAW, fields, split
from hostile import ENCODINGS, FORM, PART, Wire, as_form, as_json, as_msgpack, as_raw, form, text_part, uploads_in
from servers import Gunicorn, wait_until

MIB = 1 << 20
DATA = random.Random(14).randbytes(3 * MIB)
PARTS = split(DATA, MIB)
RAW_TYPE = RAW["Content-Type"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wire") / "uploads"
    limits = {"UPLOAD_HELPER_MAX_CHUNK_SIZE": MIB, "UPLOAD_HELPER_BODY_TIMEOUT": 0.5}
    with Gunicorn(folder, workers=1, threads=4, **limits) as running:
        running.folder = folder
        running.pids()
        yield running


@pytest.fixture
def folder(server) -> Path:
    return server.folder


@pytest.fixture
def wire(server):
    with Wire(server.port) as connection:
        yield connection


def begin(server: Gunicorn) -> str:
    """Create an upload with its first chunk; return its uid."""
    answer = requests.post(f"{server.url}?{urlencode(fields(DATA, MIB, 0))}", data=PARTS[0], headers=RAW)
    assert answer.status_code == 200, answer.text
    return answer.json()["uploadUid"]


def missing(server: Gunicorn, uid: str) -> list[list[int]]:
    return requests.get(f"{server.url}/{uid}/status").json()["missing"]


def refused(answer: tuple[int, dict[str, str], bytes], status: int, code: str) -> None:
    got, headers, body = answer
    assert got == status, body
    assert headers["content-type"] == "application/json"
    assert json.loads(body)["code"] == code
    assert json.loads(body)["remedy"]


def encoded(encode: Any, uid: str, number: int) -> tuple[str, str, bytes]:
    """Return query, content type and body of a chunk."""
    request = encode(fields(DATA, MIB, number, uid=uid), PARTS[number])
    kind = request.get("content_type", RAW_TYPE)
    body = request["data"]
    return request.get("query_string", ""), kind, body.encode() if isinstance(body, str) else body


def head(query: str, kind: str, *headers: str) -> str:
    return "\r\n".join(
        [f"POST /uploads?{query} HTTP/1.1", "Host: localhost", f"Content-Type: {kind}", *headers, "", ""]
    )


def chunked(body: bytes, size: int = 100_000) -> bytes:
    blocks = (body[i : i + size] for i in range(0, len(body), size))
    return b"".join(f"{len(block):x}\r\n".encode() + block + b"\r\n" for block in blocks) + b"0\r\n\r\n"


# -- lengths


def spam(wire: Wire, most: int = 64 * MIB) -> int:
    """Send until the server hangs up; return how many bytes it let us."""
    sent = 0
    block = b"x" * 65536
    try:
        while sent < most:
            wire.socket.sendall(block)
            sent += len(block)
    except OSError:
        return sent
    raise AssertionError(f"the server has taken {sent} bytes")


def test_bytes_behind_the_declared_one_are_no_part_of_the_chunk(wire, server, folder):
    wire.post(fields(b"a", 1, 0), "Content-Length: 1", body=b"a")
    status, _, body = wire.answer()
    assert status == 200
    uid = json.loads(body)["uploadUid"]
    assert spam(wire) < 32 * MIB
    with requests.get(f"{server.url}/{uid}") as answer:
        assert answer.content == b"a"


@pytest.mark.parametrize("length", [10 << 30, 2**63, 10**30])
@pytest.mark.parametrize("kind", [RAW_TYPE, "application/json", "application/msgpack", FORM])
def test_declared_over_the_limit_is_refused_before_a_byte_is_sent(wire, folder, kind, length):
    before = uploads_in(folder)
    wire.post(fields(bytes(MIB), MIB, 0), f"Content-Length: {length}", "Accept: application/json", kind=kind)
    refused(wire.answer(), 413, "too_large")
    assert uploads_in(folder) == before


@pytest.mark.parametrize("kind", [RAW_TYPE, "application/json", "application/msgpack", FORM])
def test_chunked_body_without_an_end_is_refused_at_the_limit(wire, folder, kind):
    before = uploads_in(folder)
    wire.post(fields(DATA, MIB, 0), "Transfer-Encoding: chunked", "Accept: application/json", kind=kind)
    block = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    # What is sent after the answer may reset the connection, and the answer with it.
    for _ in range(60):
        if select.select([wire.socket], [], [], 0)[0]:
            break
        with suppress(OSError):
            wire.send(block)
    status, _, body = wire.answer()
    assert (status, json.loads(body)["code"]) in ((413, "too_large"), (400, "invalid_request"))
    assert uploads_in(folder) == before


def test_file_declared_as_one_byte_is_refused_however_much_comes(wire, folder):
    before = uploads_in(folder)
    wire.post(fields(b"x", 1, 0), "Content-Length: 500000", body=b"x" * 2)
    refused(wire.answer(), 400, "invalid_request")
    assert uploads_in(folder) == before


@pytest.mark.parametrize("encode", ENCODINGS)
def test_chunked_body_is_taken_in_every_encoding(wire, server, encode):
    uid = begin(server)
    query, kind, body = encoded(encode, uid, 1)
    wire.send(head(query, kind, "Transfer-Encoding: chunked", "Accept: application/json"), chunked(body))
    status, _, answer = wire.answer()
    assert (status, json.loads(answer)) == (200, {"uploadUid": uid})
    assert missing(server, uid) == [[2, 2]]


@pytest.mark.parametrize("cut", ["in a block", "in a size", "between blocks", "at once"])
@pytest.mark.parametrize("encode", ENCODINGS)
def test_chunked_body_that_breaks_off_is_not_acknowledged(wire, server, encode, cut):
    uid = begin(server)
    query, kind, body = encoded(encode, uid, 1)
    sent = {
        "in a block": chunked(body)[:-9], "in a size": chunked(body)[:-5] + b"1", "between blocks": chunked(body)[:-5],
        "at once": b"",
    }[cut]  # fmt: skip
    wire.send(head(query, kind, "Transfer-Encoding: chunked", "Accept: application/json"), sent)
    wire.end()
    status, _, _ = wire.answer()
    assert status in (0, 400)
    assert missing(server, uid) == [[1, 2]]


@pytest.mark.parametrize("keep", [0, 1, 1000, 300_000, -1])
@pytest.mark.parametrize("encode", ENCODINGS)
def test_body_that_breaks_off_is_not_acknowledged(wire, server, encode, keep):
    uid = begin(server)
    query, kind, body = encoded(encode, uid, 1)
    wire.send(head(query, kind, f"Content-Length: {len(body)}", "Accept: application/json"), body[:keep])
    wire.end()
    refused(wire.answer(), 400, "body_cut")
    assert missing(server, uid) == [[1, 2]]


def test_first_chunk_that_breaks_off_leaves_no_upload(wire, folder):
    before = uploads_in(folder)
    wire.post(fields(DATA, MIB, 0), f"Content-Length: {MIB}", body=PARTS[0][:-1])
    wire.end()
    refused(wire.answer(), 400, "body_cut")
    assert uploads_in(folder) == before


def test_connection_that_is_reset_in_mid_chunk_leaves_the_upload_as_it_was(server):
    uid = begin(server)
    with Wire(server.port) as wire:
        wire.post(fields(DATA, MIB, 1, uid=uid), f"Content-Length: {MIB}", body=PARTS[1][:500_000])
        # With a linger of 0 s, closing resets the connection.
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    url = f"{server.url}?{urlencode(fields(DATA, MIB, 1, uid=uid))}"
    # A busy server may begin with the older request only after this one, which is told so and comes again.
    wait_until(lambda: requests.post(url, data=PARTS[1], headers=RAW).ok, what="the chunk")
    assert missing(server, uid) == [[2, 2]]


MALFORMED = [
    ["Content-Length: -1"], ["Content-Length: +5"], ["Content-Length: 5 5"], ["Content-Length: 0x5"], ["Content-Length: 5.0"],
    ["Content-Length: 5", "Content-Length: 6"], ["Content-Length: 5, 6"], ["Content-Length: " + "9" * 5000],
    ["Content-Length: 5", "Transfer-Encoding: chunked"], ["Transfer-Encoding: gzip"], ["Transfer-Encoding: chunked, gzip"],
    ["Transfer-Encoding: xchunked"], ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"], ["X: a\x00b", "Content-Length: 5"],
    ["Content-Length : 5"], ["Content-Length: \u0665"],
]  # fmt: skip


@pytest.mark.parametrize("headers", MALFORMED, ids=lambda headers: headers[-1][:40].encode("unicode_escape").decode())
def test_malformed_framing_is_refused(wire, folder, headers):
    before = uploads_in(folder)
    wire.post(fields(b"12345", 5, 0), *headers, body=b"12345")
    status, _, body = wire.answer()
    assert status in (400, 413, 501, 505), body
    assert uploads_in(folder) == before


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "identity, gzip"])
def test_coded_body_is_refused_before_it_is_sent(wire, folder, coding):
    before = uploads_in(folder)
    wire.post(fields(DATA, MIB, 0), f"Content-Encoding: {coding}", f"Content-Length: {MIB}")
    refused(wire.answer(), 415, "unsupported_type")
    assert uploads_in(folder) == before


def test_no_length_at_all_is_an_empty_body(wire, folder):
    before = uploads_in(folder)
    wire.post(fields(b"x", 1, 0), "Connection: close", kind="application/json")
    refused(wire.answer(), 400, "invalid_request")
    assert uploads_in(folder) == before


# -- silence


@pytest.mark.parametrize("encode", ENCODINGS)
def test_body_that_stops_coming_is_given_up_and_nobody_waits_for_it(wire, server, encode):
    uid = begin(server)
    query, kind, body = encoded(encode, uid, 1)
    wire.send(head(query, kind, f"Content-Length: {len(body)}", "Accept: application/json"), body[:600_000])
    started = time.monotonic()
    for number in (1, 2):
        url = f"{server.url}?{urlencode(fields(DATA, MIB, number, uid=uid))}"
        # The silent request may be seen after this one, and so count as the newer of the two.
        wait_until(lambda u=url, n=number: requests.post(u, data=PARTS[n], headers=RAW).status_code == 200)
    with requests.get(f"{server.url}/{uid}") as answer:
        assert answer.content == DATA
    took = time.monotonic() - started
    # Whether it was given up or taken over first is a matter of chance.
    _, _, said = wire.answer()
    assert json.loads(said)["code"] in ("body_stalled", "superseded")
    assert took < time.monotonic() - started, "somebody has waited for the silent client"


def test_silent_clients_do_not_hold_more_than_their_threads(server):
    uid = begin(server)
    wires = [Wire(server.port) for _ in range(3)]
    try:
        for wire in wires:
            wire.post(fields(DATA, MIB, 1, uid=uid), f"Content-Length: {MIB}", body=PARTS[1][:100_000])
        assert missing(server, uid) == [[1, 2]]
        codes = {json.loads(wire.answer()[2])["code"] for wire in wires}
    finally:
        for wire in wires:
            wire.__exit__()
    assert codes <= {"body_stalled", "superseded"}
    assert missing(server, uid) == [[1, 2]]


def test_connection_goes_on_after_an_answer_and_its_silence_counts_no_more(wire, server):
    uid = begin(server)
    wire.post(fields(DATA, MIB, 1, uid=uid), f"Content-Length: {MIB}", body=PARTS[1])
    assert wire.answer()[0] == 200
    time.sleep(0.6)  # nothing tells that a time limit has not struck but the time
    wire.post(fields(DATA, MIB, 2, uid=uid), f"Content-Length: {MIB}", body=PARTS[2])
    assert wire.answer()[0] == 200


# -- one connection, several requests


def test_requests_in_a_pipeline_are_answered_one_after_the_other(wire, server):
    uid = begin(server)
    requests_ = []
    for number in (1, 2, 1):
        query, kind, body = encoded(as_raw, uid, number)
        requests_ += [head(query, kind, f"Content-Length: {len(body)}"), body]
    wire.send(*requests_, f"GET /uploads/{uid} HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert [wire.answer()[0] for _ in range(3)] == [200, 200, 200]
    status, headers, body = wire.answer()
    assert (status, body == DATA) == (200, True)
    assert headers["content-disposition"] == "attachment; filename=file.bin"


def test_refused_body_is_not_taken_for_the_next_request(wire, server, folder):
    uid = begin(server)
    inner = f"DELETE /uploads/{uid} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    wire.post(fields(DATA, MIB, 9), f"Content-Length: {len(inner)}", body=inner.encode())
    assert wire.answer()[0] == 400
    wire.post(fields(DATA, MIB, 0), f"Content-Length: {len(inner)}", "Content-Encoding: gzip", body=inner.encode())
    assert wire.answer()[0] == 415
    assert missing(server, uid) == [[1, 2]]


REFUSED_BODIES = {
    "other bytes": (409, {}, bytes(MIB), []),
    "wrong checksum": (422, {"chunkNumber": 1, "checksum": "md5:" + "0" * 32}, PARTS[1], []),
    "too long for the file": (400, {"uploadUid": "", "totalSize": 3}, PARTS[0], []),
    "too long for a chunk": (413, {}, bytes(2 * MIB), []),
    "no such upload": (404, {"uploadUid": "0" * 32}, PARTS[0], []),
    "coded": (415, {}, PARTS[0], ["Content-Encoding: gzip"]),
    "no JSON": (400, {}, PARTS[0], ["Content-Type: application/json"]),
    "no form": (400, {}, PARTS[0], [f"Content-Type: {FORM}"]),
}


@pytest.mark.parametrize("why", REFUSED_BODIES)
def test_request_behind_a_refused_body_is_read_from_its_beginning(server, wire, why):
    code, changes, body, headers = REFUSED_BODIES[why]
    uid = begin(server)
    query = urlencode({**fields(DATA, MIB, 0, uid=uid), **changes})
    kind = [] if any(line.startswith("Content-Type") for line in headers) else [f"Content-Type: {RAW_TYPE}"]
    lines = [
        f"POST /uploads?{query} HTTP/1.1",
        "Host: localhost",
        *kind,
        *headers,
        f"Content-Length: {len(body)}",
        "",
        "",
    ]
    wire.send("\r\n".join(lines), body, f"GET /uploads/{uid}/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
    status, _, said = wire.answer()
    assert status == code, said
    with suppress(ConnectionResetError):
        status, _, said = wire.answer()
        # Hanging up is right as well, taking the rest of the body for a request is not.
        assert status == 0 or json.loads(said)["missing"] == [[1, 2]]


@pytest.mark.parametrize(
    "name", ["a%0d%0aX-Evil:%201", "a%0aX-Evil:%201", "a%E2%80%A8X-Evil:%201", "%22;%20filename=x"]
)
def test_name_of_a_file_makes_no_header(server, wire, name):
    wire.send(head(f"fileName={name}&totalSize=1&chunkCount=1&chunkNumber=0", RAW_TYPE, "Content-Length: 1"), "x")
    uid = json.loads(wire.answer()[2])["uploadUid"]
    wire.send(f"GET /uploads/{uid} HTTP/1.1\r\nHost: localhost\r\n\r\n")
    status, headers, _ = wire.answer()
    assert (status, headers.get("x-evil")) == (200, None)
    assert headers["content-disposition"].startswith("attachment; filename")


@pytest.mark.parametrize(
    "path", ["/uploads/../uploads", "/uploads/%2e%2e", "http://localhost/uploads/x", "/uploads/%", "/uploads/%zz"]
)
def test_odd_target_of_a_request_is_answered_without_an_error_of_ours(wire, path):
    wire.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert wire.answer()[0] in (400, 403, 404)


# -- memory


def peak(pid: int) -> int:
    """Return the most memory in bytes that a process has had since `reset_peak`."""
    text = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", text)[1])


def reset_peak(pid: int) -> int:
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return peak(pid)


BOMBS = {
    "nested JSON": ("application/json", b'{"x":' + b"[" * 600_000 + b"]" * 600_000 + b"}"),
    "JSON of empty objects": ("application/json", b'{"x":[' + b"{}," * 400_000 + b"{}]}"),
    "nested msgpack": ("application/msgpack", b"\x81\xa1x" + b"\x91" * 1_000_000 + b"\x90"),
    "msgpack that promises arrays": ("application/msgpack", b"\x81\xa1x" + b"\xdd\x00\x01\x86\x9f" * 200_000),
    "msgpack of empty maps": ("application/msgpack", b"\x81\xa1x\xdd\x00\x01\x86\x9f" + b"\x80" * 99_999),
    "10 000 parts": (FORM, form(*[text_part(f"x{i}", "") for i in range(10_000)])),
    "headers of a part": (FORM, PART + b"X: y\r\n" * 200_000),
    "text of 1 MB for a name": ("application/json", json.dumps({"fileName": "\u0345\u0315\u0300" * 100_000}).encode()),
}


@pytest.mark.parametrize("what", BOMBS)
def test_small_body_takes_no_large_memory_nor_long(server, folder, what):
    kind, body = BOMBS[what]
    before, floor = uploads_in(folder), reset_peak(server.pids()[0])
    answer = requests.post(server.url, data=body, headers={"Content-Type": kind}, timeout=5)
    assert answer.status_code in (400, 413), answer.text
    assert peak(server.pids()[0]) - floor < 24 * MIB
    assert uploads_in(folder) == before


def test_many_chunks_at_once_take_no_more_memory_than_their_blocks(server):
    uid = begin(server)
    floor = reset_peak(server.pids()[0])
    wires = [Wire(server.port) for _ in range(4)]
    for number, wire in enumerate(wires):
        wire.post(fields(DATA, MIB, number % 3, uid=uid), f"Content-Length: {MIB}", body=PARTS[number % 3])
    for wire in wires:
        assert wire.answer()[0] in (200, 409)
        wire.__exit__()
    assert peak(server.pids()[0]) - floor < 16 * MIB
    wait_until(lambda: missing(server, uid) == [], what="all chunks")


def test_server_is_as_well_as_before(server):
    for encode in (as_json, as_msgpack, as_form, as_raw):
        uid = begin(server)
        for number in (1, 2):
            query, kind, body = encoded(encode, uid, number)
            headers = {"Content-Type": kind, "Accept": "application/json"}
            assert requests.post(f"{server.url}?{query}", data=body, headers=headers).json() == {"uploadUid": uid}
        with requests.get(f"{server.url}/{uid}") as answer:
            assert answer.content == DATA
    assert len(server.pids()) == 1
    assert "Traceback" not in server.log.read_text()
