"""To a server that knows nothing of going on: the whole file in one request, as a form's part or as the body."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from urllib.parse import quote, urlsplit

from ..errors import ProtocolError
from ..source import Slice
from ..web import Response
from .job import Job, Sent, located

_TYPE = "application/octet-stream"
# As browsers write names in forms (HTML, section 4.10.21.8): what would end the name is percent-encoded.
_IN_QUOTES = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})


def send_form(job: Job) -> Sent:
    """Send the file as the part of a form; raises TransferError, after which the next call begins again."""
    boundary = secrets.token_hex(16)
    body = _Form(job.body(0, job.size), job.request.part, job.name, boundary)
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "Accept": "*/*"}
    return _sent(job, job.line.ask(job.request.method or "POST", job.request.url, headers=headers, body=body))


def send_raw(job: Job) -> Sent:
    """Send the file as the body; raises TransferError, after which the next call begins again."""
    url = job.request.url
    if urlsplit(url).path.endswith("/"):
        parts = urlsplit(url)
        url = parts._replace(path=parts.path + quote(job.name, safe="", errors="replace")).geturl()
    headers = {"Content-Type": _TYPE, "Accept": "*/*"}
    return _sent(job, job.line.ask(job.request.method or "PUT", url, headers=headers, body=job.body(0, job.size)))


def _sent(job: Job, answer: Response) -> Sent:
    if not 200 <= answer.status < 300:
        raise ProtocolError(f"The server answers {answer.status}, which does not say that it took the file.")
    job.reached(job.size)
    location = answer.headers.get("Location", "")
    if location:
        return job.sent(located(answer.url, location), answer.text)
    return Sent(answer.url, "", job.size, answer.text)


class _Form:
    """A file between the two ends of a form, with the length that a body needs."""

    def __init__(self, file: Slice | None, part: str, name: str, boundary: str) -> None:
        names = f'name="{part.translate(_IN_QUOTES)}"; filename="{name.translate(_IN_QUOTES)}"'
        head = f"--{boundary}\r\nContent-Disposition: form-data; {names}\r\nContent-Type: {_TYPE}\r\n\r\n"
        self._head = head.encode(errors="replace")
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self._file = file
        self.rewind()

    def __len__(self) -> int:
        return len(self._head) + (0 if self._file is None else len(self._file)) + len(self._tail)

    def __iter__(self) -> Iterator[bytes]:
        return self._blocks

    def rewind(self) -> None:
        """Begin again, for a request that is sent a second time."""
        if self._file is not None:
            self._file.rewind()
        self._blocks = self._parts()

    def read(self, size: int = -1) -> bytes:  # noqa: ARG002 - shorter blocks are as good
        """Return the next bytes, b"" at the end."""
        return next(self._blocks, b"")

    def _parts(self) -> Iterator[bytes]:
        yield self._head
        if self._file is not None:
            yield from self._file
        yield self._tail
