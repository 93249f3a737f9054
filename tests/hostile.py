"""What the tests of bad input share: every way to put a chunk on the wire, and a look at what came of it."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgpack

from chunks import RAW

LARGEST_ANSWER = 4096

BOUNDARY = b"a boundary that is in no file"
FORM = f'multipart/form-data; boundary="{BOUNDARY.decode()}"'
PART = b"--" + BOUNDARY + b"\r\n"
FIELD = PART + b'Content-Disposition: form-data; name="'
FILE = FIELD + b'content"; filename="blob"\r\n\r\n'


def text_part(name: str, value: object) -> bytes:
    return FIELD + f'{name}"\r\n\r\n{value}\r\n'.encode()


def file_part(content: bytes) -> bytes:
    return FILE + content + b"\r\n"


def form(*parts: bytes, close: bytes = b"--" + BOUNDARY + b"--\r\n") -> bytes:
    """Return the body of a form, closed by its boundary unless told otherwise."""
    return b"".join(parts) + close


def _text_parts(values: dict[str, Any]) -> list[bytes]:
    return [text_part(name, value) for name, value in values.items()]


def as_json(values: dict[str, Any], content: Any) -> dict[str, Any]:
    if isinstance(content, bytes):
        content = base64.b64encode(content).decode()
    return {"data": json.dumps({**values, "content": content}), "content_type": "application/json"}


def as_msgpack(values: dict[str, Any], content: Any) -> dict[str, Any]:
    body = msgpack.packb({**values, "content": content})
    return {"data": body, "content_type": "application/msgpack"}


def as_form(values: dict[str, Any], content: bytes) -> dict[str, Any]:
    return {"data": form(*_text_parts(values), file_part(content)), "content_type": FORM}


def as_form_file_first(values: dict[str, Any], content: bytes) -> dict[str, Any]:
    return {"data": form(file_part(content), *_text_parts(values)), "content_type": FORM}


def as_raw(values: dict[str, Any], content: bytes) -> dict[str, Any]:
    return {"query_string": urlencode(values), "data": content, "headers": RAW}


STRUCTS = [as_json, as_msgpack]
TEXTS = [as_form, as_form_file_first, as_raw]
ENCODINGS = [*STRUCTS, *TEXTS]


def decoded(answer: Any) -> Any:
    """Return what is in an answer, JSON or msgpack."""
    if answer.mimetype == "application/msgpack":
        return msgpack.unpackb(answer.data)
    return json.loads(answer.data)


def refusal(answer: Any, status: int, code: str = "") -> dict[str, Any]:
    """Check that an answer is an error of the right shape; return its members."""
    assert answer.status_code == status, answer.text
    assert answer.mimetype in ("application/json", "application/msgpack")
    assert len(answer.data) < LARGEST_ANSWER, "what was sent is sent back at length"
    members = decoded(answer)
    assert {"error", "code", "remedy"} <= members.keys()
    assert all(isinstance(members[name], str) for name in ("error", "code", "remedy"))
    assert members["error"]
    assert members["code"]
    # What the framework refuses comes without one.
    assert members["remedy"] or status == 416
    if code:
        assert members["code"] == code
    return members


def tree(folder: Path) -> list[str] | None:
    """Return every path below a folder, with what it is and how long; None if there is no folder."""
    if not os.path.lexists(folder):
        return None
    return sorted(_describe(path, folder) for path in [folder, *folder.rglob("*")])


def uploads_in(folder: Path) -> list[str]:
    """Return the uploads on the disk and in the index, finished or not, also those half-made."""
    kept = [path.name for path in folder.glob("*") if not path.name.startswith(".")]
    return sorted(kept + [path.name for path in [*folder.glob(".scratch/*"), *folder.glob(".owners/*/*")]])


def _describe(path: Path, folder: Path) -> str:
    found = path.lstat()
    length = found.st_size if stat.S_ISREG(found.st_mode) else 0
    return f"{path.relative_to(folder)} {stat.filemode(found.st_mode)} {length}"


class Endless(io.RawIOBase):
    """A body without an end, which counts how much of it was read."""

    def __init__(self, start: bytes = b"", filling: bytes = b"x", *, most: int = 256 << 20) -> None:
        super().__init__()
        self.taken = 0
        self._start = start
        self._filling = filling
        self._most = most

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        assert 0 <= size <= 1 << 24, f"read({size}) of a body without an end"
        assert self.taken < self._most, "the body is read on and on"
        block = self._start[:size]
        self._start = self._start[size:]
        block += (self._filling * (1 + (size - len(block)) // len(self._filling)))[: size - len(block)]
        self.taken += len(block)
        return block


class Wire:
    """A connection to a real server, for what no HTTP client would send."""

    def __init__(self, port: int, *, seconds: float = 20) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=seconds)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()
        self.socket.close()

    def send(self, *parts: bytes | str) -> None:
        self.socket.sendall(b"".join(part.encode() if isinstance(part, str) else part for part in parts))

    def post(self, values: dict[str, Any], *headers: str, body: bytes = b"", kind: str = RAW["Content-Type"]) -> None:
        """Send a request with the fields in the query and exactly these headers and this body."""
        lines = [f"POST /uploads?{urlencode(values)} HTTP/1.1", "Host: localhost", f"Content-Type: {kind}", *headers]
        self.send("\r\n".join(lines), "\r\n\r\n", body)

    def end(self) -> None:
        """Say that nothing more comes, and go on listening."""
        self.socket.shutdown(socket.SHUT_WR)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of the next answer; status 0 if the server hung up instead."""
        first = self._file.readline()
        if not first:
            return 0, {}, b""
        status = int(first.split()[1])
        headers = dict(self._headers())
        if headers.get("transfer-encoding") == "chunked":
            return status, headers, b"".join(self._chunked())
        return status, headers, self._file.read(int(headers.get("content-length", "0")))

    def _headers(self) -> Iterator[tuple[str, str]]:
        while line := self._file.readline().decode("latin-1").strip():
            name, _, value = line.partition(":")
            yield name.lower(), value.strip()

    def _chunked(self) -> Iterator[bytes]:
        while size := int(self._file.readline(), 16):
            yield self._file.read(size)
            self._file.readline()
