"""One client for all servers: raw HTTP/1.1 over one connection, bodies by sendfile, so that it is not the brake."""

from __future__ import annotations

import os
import re
import secrets
import select
import socket
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import IO, NamedTuple

OWNER = "bench"
_CLOSE_SECONDS = 0.01
"""How long a server that closes without a word is waited for."""


class Request(NamedTuple):
    head: bytes
    offset: int = 0
    length: int = 0


class Answer(NamedTuple):
    head: bytes
    body: bytes

    @property
    def status(self) -> int:
        return int(self.head[9:12])

    @property
    def last(self) -> bool:
        """Say whether the server has announced that it closes the connection."""
        return self.head.startswith(b"HTTP/1.0") or b"\r\nconnection: close" in self.head.lower()


Wire = Generator[Request, Answer, str]
"""Yields the requests of one upload, is sent their answers, and returns how the server calls the upload."""


@dataclass(frozen=True)
class Sent:
    """An upload that was sent: how the server calls it, and what it took."""

    reference: str
    seconds: float
    last: float
    """Seconds of the last request."""
    cpu: float
    """Seconds of processor time of the client."""
    connections: int


def chunks(size: int, chunk: int, first: int = 0) -> list[tuple[int, int, int]]:
    """Return number, offset and length of each chunk."""
    count = -(-size // chunk)
    return [(n, n * chunk, min(chunk, size - n * chunk)) for n in range(first, count)]


def head(method: str, target: str, length: int, *fields: str) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: bench", f"Content-Length: {length}", *fields]
    return "\r\n".join([*lines, "", ""]).encode()


def chunk_head(uid: str, size: int, chunk: int, number: int, length: int) -> bytes:
    """Return the head of a raw chunk in the chunk protocol."""
    query = f"uploadUid={uid}&fileName=a.bin&totalSize={size}&chunkCount={-(-size // chunk)}&chunkNumber={number}"
    return head("POST", f"/uploads?{query}", length, "Content-Type: application/octet-stream", f"X-User: {OWNER}")


def chunk_protocol(size: int, chunk: int) -> Wire:
    uid = ""
    for number, offset, length in chunks(size, chunk):
        answer = yield Request(chunk_head(uid, size, chunk, number, length), offset, length)
        uid = uid or re.search(rb'"uploadUid":"(\w+)"', answer.body)[1].decode()
    return uid


def webdav(size: int, chunk: int) -> Wire:
    """Put each chunk as a file of its own: a server that only takes bytes and does nothing with them."""
    name = secrets.token_hex(8)
    for number, offset, length in chunks(size, chunk):
        yield Request(head("PUT", f"/{name}.{number}", length), offset, length)
    return name


def tus(size: int, chunk: int, target: str = "/files") -> Wire:
    fields = ("Tus-Resumable: 1.0.0", f"X-User: {OWNER}")
    metadata = "Upload-Metadata: filename YS5iaW4=,filetype YXBwbGljYXRpb24vb2N0ZXQtc3RyZWFt"
    answer = yield Request(head("POST", target, 0, *fields, f"Upload-Length: {size}", metadata))
    location = re.search(rb"\r\nlocation: *(?:http://[^/]+)?(/[^\r]+)", answer.head, re.IGNORECASE)[1].decode()
    kind = "Content-Type: application/offset+octet-stream"
    for _, offset, length in chunks(size, chunk):
        yield Request(head("PATCH", location, length, *fields, kind, f"Upload-Offset: {offset}"), offset, length)
    return location.rpartition("/")[2]


class Connection:
    """One connection, which is kept alive if the server does; else there is a new one for the next request.

    `source` is the file that bodies are taken from, over and over. `count` is the number of connections so far.
    """

    def __init__(self, port: int, source: IO[bytes]) -> None:
        self._port = port
        self._source = source.fileno()
        self._size = os.fstat(self._source).st_size
        self._silent = False  # whether the server closes each connection without a word
        self.count = 0
        self._connect()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._socket.close()

    def exchange(self, request: Request) -> Answer:
        """Send a request and return its answer; raises RuntimeError unless it is a success."""
        if self._over:
            self._connect()
        try:
            answer = self._try(request)
        except ConnectionError:
            if self._fresh:
                raise
            # It was closed while the request was on its way.
            self._silent = True
            self._connect()
            answer = self._try(request)
        self._fresh = False
        self._silent = self._silent and self._ends()
        self._over = answer.last or self._silent
        if not 200 <= answer.status < 300:
            raise RuntimeError(f"The server answered {answer.head.decode()}{answer.body.decode()}")
        return answer

    def _connect(self) -> None:
        if self.count:
            self._socket.close()
        self._socket = socket.create_connection(("127.0.0.1", self._port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._fresh, self._over = True, False
        self.count += 1

    def _ends(self) -> bool:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(1000 * _CLOSE_SECONDS))

    def _try(self, request: Request) -> Answer:
        self._socket.sendall(request.head, socket.MSG_MORE if request.length else 0)
        offset, rest = request.offset, request.length
        while rest:
            sent = os.sendfile(self._socket.fileno(), self._source, offset % self._size, rest)
            offset, rest = offset + sent, rest - sent
        raw = self._socket.recv(65536)
        if not raw:
            raise ConnectionResetError("The server closed the connection.")
        return self._answer(raw)

    def _answer(self, raw: bytes) -> Answer:
        while b"\r\n\r\n" not in raw:
            raw += self._more()
        top, _, body = raw.partition(b"\r\n\r\n")
        if found := re.search(rb"\r\ncontent-length: *(\d+)", top, re.IGNORECASE):
            while len(body) < int(found[1]):
                body += self._more()
        elif b"chunked" in top:
            while not body.endswith(b"0\r\n\r\n"):
                body += self._more()
        return Answer(top, body)

    def _more(self) -> bytes:
        part = self._socket.recv(65536)
        if not part:
            raise RuntimeError("The server closed the connection in the middle of an answer.")
        return part


def send(port: int, wire: Callable[[int, int], Wire], source: str, size: int, chunk: int) -> Sent:
    """Send one upload of `size` bytes in chunks of `chunk` bytes."""
    steps = wire(size, chunk)
    with open(source, "rb") as file, Connection(port, file) as connection:
        cpu, start = time.process_time(), time.perf_counter()
        request = next(steps)
        while True:
            before = time.perf_counter()
            answer = connection.exchange(request)
            after = time.perf_counter()
            try:
                request = steps.send(answer)
            except StopIteration as end:
                return Sent(end.value, after - start, after - before, time.process_time() - cpu, connection.count)
