"""Reading a body straight from gunicorn's socket."""

from __future__ import annotations

import io
import json
import os
import random
import socket
from typing import Any
from urllib.parse import urlencode

import pytest
from flask import Flask, request

from chunks import fields, split
from host import make_app
from upload_helper.direct import direct_reader

DATA = random.Random(21).randbytes(3_000_001)
SIZE = 1_000_000


def served() -> Flask:
    """Return the host with a view that says how its body would be read."""
    app = make_app(**json.loads(os.environ["HOST_CONFIG"]))

    @app.post("/reader")
    def reader() -> str:
        if "read" in request.args:
            request.environ["wsgi.input"].readline()
        return type(
            direct_reader(request.environ, request.environ["wsgi.input"], request.content_length, 1000)
        ).__name__

    return app


@pytest.fixture
def server(gunicorn):
    return gunicorn(app="test_direct:served()", workers=1)


def post(target: str, body: bytes) -> bytes:
    head = f"POST {target} HTTP/1.1\r\nHost: a\r\nContent-Type: application/octet-stream\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def chunk(number: int, uid: str = "") -> bytes:
    values = {**fields(DATA, SIZE, number, uid=uid), "identifier": "pipelined"}
    return post(f"/uploads?{urlencode(values)}", split(DATA, SIZE)[number])


def answers(connection: socket.socket, count: int) -> list[tuple[bytes, bytes]]:
    """Read so many answers from one connection; return status line and body of each."""
    found = []
    with connection.makefile("rb") as stream:
        for _ in range(count):
            status = stream.readline()
            length = 0
            while (line := stream.readline()) not in (b"\r\n", b""):
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            found.append((status, stream.read(length)))
    return found


@pytest.mark.parametrize(
    ("target", "body", "expected"),
    [
        ("/reader", b"abc", b"DirectReader"),
        ("/reader?read=1", b"abc\n" + bytes(500), b"NoneType"),
    ],
    ids=["fresh", "partly read by the host"],
)
def test_body_is_read_directly_where_nobody_has_read_it(server, target, body, expected):
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(post(target, body))
        assert answers(connection, 1)[0][1] == expected


def test_requests_that_come_in_one_go_are_kept_apart(server):
    # What the server has read past a header holds the end of one body and the beginning of the next request.
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        requests = b"".join(chunk(number) for number in range(4)) + post("/reader", b"x")
        connection.sendall(requests)
        found = answers(connection, 5)
        uid = json.loads(found[0][1])["uploadUid"]
        assert [json.loads(body)["uploadUid"] for _, body in found[:4]] == [uid] * 4
        assert found[4][1] == b"DirectReader"
        connection.sendall(f"GET /uploads/{uid} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert answers(connection, 1)[0][1] == DATA


def test_small_pieces_make_the_whole(server):
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        message = chunk(3)
        for start in range(0, len(message), 7):
            connection.sendall(message[start : start + 7])
        assert b"200" in answers(connection, 1)[0][0]


class Reader:
    """What gunicorn's reader of a body looks like."""

    def __init__(self, connection: Any, length: object = 10) -> None:
        self.unreader = self
        self.sock = connection
        self.length = length

    def take_buffered(self) -> bytes:
        return b""

    def unread(self, data: bytes) -> None: ...


class Input:
    """What gunicorn's ``wsgi.input`` looks like."""

    def __init__(self, reader: object) -> None:
        self.reader = reader
        self.buf = io.BytesIO()
        self.failed = False


Input.__module__ = "gunicorn.http.body"


class Passing(Input):
    """A wrapper of the host around it, which passes on what it does not know and may change what is read."""


class Wrapped(socket.socket):
    """A socket whose bytes are not those of the body, as under TLS."""


def test_what_is_not_as_expected_is_left_to_the_server():
    ours, theirs = socket.socketpair()
    wrapped = Wrapped()
    with ours, theirs, wrapped:
        environ: dict[str, Any] = {"gunicorn.socket": ours}
        assert direct_reader(environ, Input(Reader(ours)), 10, 100) is not None
        assert direct_reader({}, Input(Reader(ours)), 10, 100) is None
        assert direct_reader(environ, io.BytesIO(), 10, 100) is None
        assert direct_reader(environ, Passing(Reader(ours)), 10, 100) is None
        assert direct_reader(environ, Input(Reader(theirs)), 10, 100) is None
        assert direct_reader({"gunicorn.socket": wrapped}, Input(Reader(wrapped)), 10, 100) is None
        assert direct_reader(environ, Input(Reader(ours, None)), 10, 100) is None
        assert direct_reader(environ, Input(object()), 10, 100) is None


def test_broken_connection_is_not_used_again():
    ours, theirs = socket.socketpair()
    with ours:
        stream = Input(Reader(ours))
        reader = direct_reader({"gunicorn.socket": ours}, stream, 10, 100)
        theirs.sendall(b"abc")
        assert bytes(reader.read(10)) == b"abc"
        ours.settimeout(0.01)
        with pytest.raises(TimeoutError):
            reader.read(10)
        assert stream.failed
        theirs.close()
        assert bytes(reader.read(10)) == b""
