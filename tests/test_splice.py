"""Bodies that go from the socket to the file inside the kernel, under every server that lets them."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import resource
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

import pytest
from flask import Flask, Response, request

from answers import Authority
from chunks import fields, split
from host import make_app
from hostile import Wire
from servers import Gunicorn, Uwsgi, wait_until

MIB = 1 << 20
SIZE = MIB + 12_345
DATA = random.Random(31).randbytes(2 * SIZE + 777)
PARTS = split(DATA, SIZE)
TUS = {"Tus-Resumable": "1.0.0"}
OFFSET = {**TUS, "Content-Type": "application/offset+octet-stream"}
SERVERS = ["gthread", "sync", "http11-socket", "http-socket"]


def served() -> Flask:
    """Return the host; its answers tell whether the body came through a pipe, and its log how bodies come."""
    logging.basicConfig(level=logging.INFO)
    app = make_app(**json.loads(os.environ["HOST_CONFIG"]))

    @app.after_request
    def tell(response: Response) -> Response:
        body = request.environ.get("upload_helper.body")
        response.headers["X-Spliced"] = str(body is not None and body.was_spliced)
        if "late" in request.args:
            response.headers["X-Left"] = str(len(request.environ["wsgi.input"].read()))
        return response

    @app.before_request
    def look() -> None:
        if "looked" in request.args:
            request.environ["wsgi.input"].read(10)

    return app


def start(kind: str, folder: Any, *options: str, **config: Any) -> Gunicorn | Uwsgi:
    settings = {"UPLOAD_HELPER_SPLICE_FROM": 1, "UPLOAD_HELPER_BODY_TIMEOUT": 1, **config}
    app = "test_splice:served()"
    if "socket" in kind:
        return Uwsgi(folder, *options, kind=kind, app=app, **settings)
    options = (*options, "--worker-class", kind)
    return Gunicorn(folder, workers=1, threads=4, app=app, options=options, **settings)


@pytest.fixture(scope="module", params=SERVERS)
def server(request, tmp_path_factory) -> Iterator[Gunicorn | Uwsgi]:
    folder = tmp_path_factory.mktemp(request.param) / "uploads"
    with start(request.param, folder) as running:
        running.folder = folder
        running.kind = request.param
        yield running


@pytest.fixture
def wire(server):
    with Wire(server.port) as connection:
        yield connection


def head(method: str, path: str, headers: dict[str, str], length: int | None) -> str:
    lines = [f"{method} {path} HTTP/1.1", "Host: a", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, *([] if length is None else [f"Content-Length: {length}"]), "", ""])


def chunk_head(number: int, uid: str = "", length: int | None = None, headers: Any = None, **more: Any) -> str:
    query = urlencode({**fields(DATA, SIZE, number, uid=uid), **more})
    headers = {"Content-Type": "application/octet-stream", **(headers or {})}
    return head("POST", f"/uploads?{query}", headers, len(PARTS[number]) if length is None else length)


def ask(server: Any, *parts: bytes | str) -> tuple[int, dict[str, str], bytes]:
    """Send one request over a connection of its own."""
    with Wire(server.port) as wire:
        wire.send(*parts)
        return wire.answer()


def begin(server: Any, number: int = 0) -> str:
    """Send a chunk, and see that it was spliced; return the uid."""
    status, headers, body = ask(server, chunk_head(number), PARTS[number])
    assert (status, headers["x-spliced"]) == (200, "True"), body
    return json.loads(body)["uploadUid"]


def finish(server: Any, uid: str, *numbers: int) -> None:
    """Send chunks, then see that the file is what it must be."""
    for number in numbers:
        # What was cut before may be begun only now, and then it is the newer request until its end is seen.
        for _ in range(50):
            status, _, body = ask(server, chunk_head(number, uid), PARTS[number])
            if status != 409:
                break
        assert status == 200, body
    assert ask(server, head("GET", f"/uploads/{uid}", {}, None))[2] == DATA


def missing(server: Any, uid: str) -> list[list[int]]:
    return json.loads(ask(server, head("GET", f"/uploads/{uid}/status", {}, None))[2])["missing"]


def begin_tus(server: Any, size: int = len(DATA)) -> str:
    status, headers, _ = ask(server, head("POST", "/uploads", {**TUS, "Upload-Length": str(size)}, 0))
    assert status == 201
    return headers["location"]


def offset(server: Any, url: str) -> int:
    return int(ask(server, head("HEAD", url, TUS, None))[1]["upload-offset"])


# -- what goes through a pipe


@pytest.mark.parametrize("early", [0, 1, 1000, 4096, 20_000, SIZE])
def test_bytes_that_the_server_has_read_ahead_come_first(server, early):
    uid = begin(server)
    with Wire(server.port) as wire:
        # In one segment with the header, which the server reads into its buffer.
        wire.send(chunk_head(1, uid), PARTS[1][:early])
        wait_until(lambda: missing(server, uid), what="another answer")
        wire.send(PARTS[1][early:])
        status, headers, _ = wire.answer()
    assert (status, headers["x-spliced"]) == (200, "True")
    finish(server, uid, 2)


def test_body_that_comes_in_small_pieces_is_whole(server, wire):
    wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    data = DATA[:5000]
    values = {**fields(data, 5000, 0), "identifier": "pieces"}
    wire.send(head("POST", f"/uploads?{urlencode(values)}", {"Content-Type": "application/octet-stream"}, len(data)))
    for i in range(0, len(data), 13):
        wire.send(data[i : i + 13])
    status, headers, body = wire.answer()
    assert (status, headers["x-spliced"]) == (200, "True")
    assert ask(server, head("GET", f"/uploads/{json.loads(body)['uploadUid']}", {}, None))[2] == data


def test_urgent_byte_in_the_middle_is_stepped_over(server, wire):
    uid = begin(server)
    wire.send(chunk_head(1, uid), PARTS[1][:100_000])
    wait_until(lambda: (server.folder / uid / "data").read_bytes()[SIZE : SIZE + 100_000] == PARTS[1][:100_000])
    # It is not of the stream (tcp(7)), and splice goes no further than to it.
    wire.socket.send(b"!", socket.MSG_OOB)
    wire.send(PARTS[1][100_000:])
    status, headers, body = wire.answer()
    assert (status, headers["x-spliced"]) == (200, "True"), body
    finish(server, uid, 2)


def test_body_that_the_server_has_read_as_a_whole_does_not_end_the_connection(server, wire):
    for identifier in ("first", "second"):
        values = {**fields(DATA[:50], 50, 0), "identifier": identifier}
        wire.send(head("POST", f"/uploads?{urlencode(values)}", {"Content-Type": "application/octet-stream"}, 50))
        wire.send(DATA[:50])
        status, headers, body = wire.answer()
        if server.kind == "http11-socket":
            assert headers.get("connection") is None
        assert status == 200, body
        assert (server.folder / json.loads(body)["uploadUid"] / "data").read_bytes() == DATA[:50]
        if server.kind in ("sync", "http-socket"):
            break


def appends(url: str) -> dict[str, tuple[str, str, dict[str, str]]]:
    kind = {"Content-Type": "application/octet-stream"}
    partial = {"Content-Type": "application/partial-upload", "Upload-Draft-Interop-Version": "8"}
    return {
        "tus": ("PATCH", url, {**OFFSET, "Upload-Offset": "0"}),
        "tus, with its creation": ("POST", "/uploads", {**OFFSET, "Upload-Length": str(len(DATA))}),
        "resumable upload": ("PATCH", url, {**partial, "Upload-Offset": "0", "Upload-Complete": "?1"}),
        "resumable upload, created": ("POST", "/uploads", {**kind, "Upload-Complete": "?1", **partial}),
        "file in the body": ("PUT", "/uploads?name=whole.bin", kind),
    }


@pytest.mark.parametrize("way", appends(""))
def test_appended_bytes_go_the_same_way(server, way):
    method, path, headers = appends(begin_tus(server))[way]
    status, answered, body = ask(server, head(method, path, headers, len(DATA)), DATA)
    assert status in (200, 201, 204), body
    assert answered["x-spliced"] == "True"
    found = answered.get("location") or (f"/uploads/{json.loads(body)['uploadUid']}" if method == "PUT" else path)
    assert ask(server, head("GET", found.removeprefix("http://a"), {}, None))[2] == DATA


def test_chunk_that_is_there_is_compared(server):
    uid = begin(server)
    assert ask(server, chunk_head(0, uid), PARTS[0])[0] == 200
    other = bytearray(PARTS[0])
    other[-1] ^= 1
    status, _, body = ask(server, chunk_head(0, uid), bytes(other))
    assert (status, json.loads(body)["code"]) == (409, "chunk_conflict")
    finish(server, uid, 1, 2)


def test_checksum_takes_the_bytes_into_memory(server):
    uid = begin(server)
    good = "sha256:" + hashlib.sha256(PARTS[1]).hexdigest()
    status, _, body = ask(server, chunk_head(1, uid, checksum=good[:-1] + ("0" if good[-1] != "0" else "1")), PARTS[1])
    assert (status, json.loads(body)["code"]) == (422, "checksum_mismatch")
    status, headers, _ = ask(server, chunk_head(1, uid, checksum=good), PARTS[1])
    assert (status, headers["x-spliced"]) == (200, "False")
    finish(server, uid, 2)


# -- clients that are slow, silent or gone


def test_silent_client_is_given_up_and_what_came_is_kept(server):
    url = begin_tus(server)
    with Wire(server.port) as silent:
        silent.send(head("PATCH", url, {**OFFSET, "Upload-Offset": "0"}, len(DATA)), DATA[: SIZE + 5])
        # Nobody else waits for it, on a server that does more than one thing at a time.
        if server.kind != "sync":
            uid = begin(server)
            finish(server, uid, 1, 2)
        assert silent.answer()[0] == 503
        assert silent.answer()[0] == 0
    assert offset(server, url) == SIZE + 5
    assert ask(server, head("PATCH", url, {**OFFSET, "Upload-Offset": str(SIZE + 5)}, len(DATA) - SIZE - 5),
               DATA[SIZE + 5 :])[0] == 204  # fmt: skip
    assert ask(server, head("GET", url, {}, None))[2] == DATA


@pytest.mark.parametrize("how", ["ends", "resets"])
@pytest.mark.parametrize("sent", [1, 5000, SIZE - 1])
def test_chunk_that_is_cut_in_the_middle_is_not_acknowledged(server, sent, how):
    uid = begin(server)
    with Wire(server.port) as wire:
        wire.send(chunk_head(1, uid), PARTS[1][:sent])
        if how == "ends":
            wire.end()
            assert wire.answer()[0] in (0, 400)
        else:
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert missing(server, uid) == [[1, 2]]
    finish(server, uid, 1, 2)


def test_newer_request_takes_over_from_one_that_hangs(server):
    if server.kind == "sync":
        pytest.skip("it does one thing at a time")
    url = begin_tus(server)
    with Wire(server.port) as hanging:
        hanging.send(head("PATCH", url, {**OFFSET, "Upload-Offset": "0"}, len(DATA)), DATA[:SIZE])
        file = server.folder / url.rpartition("/")[2] / "data"
        wait_until(lambda: file.read_bytes()[:SIZE] == DATA[:SIZE], what="the beginning")
        assert offset(server, url) == SIZE
        rest = DATA[SIZE:]
        assert ask(server, head("PATCH", url, {**OFFSET, "Upload-Offset": str(SIZE)}, len(rest)), rest)[0] == 204
        hanging.send(bytes(2 * SIZE))
        assert hanging.answer()[0] in (0, 409)
    assert ask(server, head("GET", url, {}, None))[2] == DATA


# -- several requests on one connection


def test_requests_in_a_pipeline_are_kept_apart(server, wire):
    uid = begin(server)
    wire.send(chunk_head(1, uid), PARTS[1], chunk_head(2, uid), PARTS[2], head("GET", f"/uploads/{uid}", {}, None))
    status, headers, _ = wire.answer()
    assert (status, headers["x-spliced"]) == (200, "True")
    if server.kind == "gthread":
        assert wire.answer()[0] == 200
        assert wire.answer()[2] == DATA
        return
    # It closes the connection behind this answer, or another one, and may reset it for what it has not read.
    with suppress(ConnectionResetError):
        while (status := wire.answer()[0]) != 0:
            assert status == 200
    finish(server, uid, 2)


def test_connection_goes_on_after_success_and_after_an_error(server, wire):
    uid = begin(server)
    refused = bytes(len(PARTS[0]))
    for number, content, expected in [(1, PARTS[1], 200), (0, refused, 409), (2, PARTS[2], 200), (0, PARTS[0], 200)]:
        wire.send(chunk_head(number, uid), content)
        status, headers, body = wire.answer()
        assert status == expected, body
        if status == 409 or server.kind != "gthread":
            break
    if server.kind == "http11-socket":
        # uWSGI closes it, and the client must hear of that before it sends more.
        assert headers["connection"] == "close"
    with Wire(server.port) as other:
        for number, content in ((1, PARTS[1]), (2, PARTS[2])):
            other.send(chunk_head(number, uid), content)
            status, headers, _ = other.answer()
            if status == 0 or server.kind != "gthread":
                break
    finish(server, uid, 1, 2)


# -- bodies that must not go through a pipe


def test_chunked_coding_is_read_as_before(server, wire):
    coded = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in split(PARTS[0], 100_000)) + b"0\r\n\r\n"
    query = urlencode({**fields(DATA, SIZE, 0), "identifier": "coded"})
    kind = {"Content-Type": "application/octet-stream", "Transfer-Encoding": "chunked"}
    wire.send(head("POST", f"/uploads?{query}", kind, None))
    if "socket" in server.kind:
        # uWSGI would show an empty body.
        assert wire.answer()[0] == 411
    else:
        wire.send(coded)
        status, headers, body = wire.answer()
        assert (status, headers["x-spliced"]) == (200, "False")
        finish(server, json.loads(body)["uploadUid"], 1, 2)


def test_length_beside_a_coding_is_refused_or_passed_over(server, wire):
    # RFC 9112, section 6.3: whoever trusts the length would store the coding's framing as a part of the file.
    content = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in split(PARTS[0], 100_000)) + b"0\r\n\r\n"
    wire.send(chunk_head(0, headers={"Transfer-Encoding": "chunked"}, length=len(content)), content)
    with suppress(ConnectionResetError):
        status, headers, body = wire.answer()
        assert status in (0, 400) or headers["x-spliced"] == "False"
        if status == 200:
            finish(server, json.loads(body)["uploadUid"], 1, 2)


def test_client_that_expects_100_continue_is_told_to(server, wire):
    wire.send(chunk_head(0, headers={"Expect": "100-continue"}))
    # uWSGI does not tell, and clients send the body after a while (RFC 9110, section 10.1.1).
    if "socket" not in server.kind:
        assert wire.answer()[0] == 100
    wire.send(PARTS[0])
    status, headers, body = wire.answer()
    assert (status, headers["x-spliced"]) == (200, "True")
    finish(server, json.loads(body)["uploadUid"], 1, 2)


def test_body_that_the_host_has_looked_into_is_not_taken_from_the_socket(server):
    query = urlencode({**fields(DATA, SIZE, 0), "looked": 1})
    with Wire(server.port) as wire:
        wire.send(head("POST", f"/uploads?{query}", {"Content-Type": "application/octet-stream"}, SIZE), PARTS[0])
        wire.end()
        status, headers, _ = wire.answer()
        assert status in (0, 400)
        assert headers.get("x-spliced", "False") == "False"


def test_host_that_reads_behind_us_gets_nothing_of_the_next_request(server, wire):
    uid = begin(server)
    wire.send(chunk_head(1, uid, late=1), PARTS[1], bytes(SIZE))
    status, headers, _ = wire.answer()
    assert (status, headers["x-spliced"], headers["x-left"]) == (200, "True", "0")
    finish(server, uid, 2)


def test_encrypted_connection_is_read_as_before(tmp_path):
    pem = Authority(tmp_path).sign("server")
    options = ("--certfile", str(pem), "--keyfile", str(pem))
    with start("gthread", tmp_path / "uploads", *options) as server, Wire(server.port) as plain:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with context.wrap_socket(plain.socket) as encrypted:
            encrypted.sendall(chunk_head(0).encode() + PARTS[0])
            answer = encrypted.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200")
            assert b"X-Spliced: False" in answer
            uid = json.loads(answer.rpartition(b"\r\n\r\n")[2] or encrypted.recv(65536))["uploadUid"]
        assert (tmp_path / "uploads" / uid / "data").read_bytes()[:SIZE] == PARTS[0]
        assert "Bodies go through memory: the connection is encrypted." in server.log.read_text()


@pytest.mark.parametrize("kind", ["gthread", "http11-socket"])
def test_small_bodies_and_all_if_the_setting_says_so_are_read_as_before(tmp_path, kind):
    for least, expected in ((SIZE, "True"), (SIZE + 1, "False"), (None, "False")):
        with start(kind, tmp_path / "uploads", UPLOAD_HELPER_SPLICE_FROM=least) as server:
            status, headers, _ = ask(server, chunk_head(0), PARTS[0])
            assert (status, headers["x-spliced"]) == (200, expected)


def test_uwsgi_that_reads_bodies_itself_is_left_to_it(tmp_path):
    with start("http11-socket", tmp_path / "uploads", "--post-buffering", "8192") as server:
        status, headers, _ = ask(server, chunk_head(0), PARTS[0])
        assert (status, headers["x-spliced"]) == (200, "False")
        assert "Bodies go through memory: uWSGI was started with post-buffering." in server.log.read_text()


# -- disks that are full


@pytest.mark.parametrize("kind", SERVERS)
def test_full_disk_leaves_nothing_of_one_upload_to_the_next(tmp_path, kind):
    with start(kind, tmp_path / "uploads") as server:
        (pid,) = wait_until(server.pids, what="the worker")
        uid = begin(server)
        limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        # As a full disk would: the first half of the chunk is written, and what is in the pipe then is not.
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (SIZE + SIZE // 2, limits[1]))
        status, _, body = ask(server, chunk_head(1, uid), PARTS[1])
        assert (status, json.loads(body)["code"]) == (507, "storage_full")
        assert missing(server, uid) == [[1, 2]]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
        other = begin(server)
        finish(server, other, 2, 1)
        finish(server, uid, 1, 2)


def test_log_says_which_way_bodies_go(tmp_path):
    for kind in ("gthread", "http11-socket"):
        with start(kind, tmp_path / "uploads") as server:
            begin(server)
            assert "Bodies are spliced from the socket into the file." in server.log.read_text()
