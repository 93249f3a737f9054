"""Reading a body straight from the server's socket, into a pipe or into one buffer that is used again and again.

gunicorn's own ``wsgi.input`` is right but makes several copies of each block and holds up to three megabytes for each
connection. What this module touches is not documented, so every piece is looked for, and if anything is not as expected
there is no direct reader and the body is read through ``wsgi.input``.
"""

from __future__ import annotations

import select
import socket
import ssl
import sys
from inspect import isgenerator
from typing import TYPE_CHECKING, Any

from .pipes import Pipe, Piped

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


class DirectReader:
    """The rest of a body from gunicorn, on its plain socket."""

    def __init__(self, body: Any, connection: socket.socket, block: int) -> None:
        self._body = body
        self._left = body.reader
        self._connection = connection
        self._ahead = b""
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._block = block
        self._buffer: memoryview | None = None
        self._take_ahead()

    @property
    def ahead(self) -> int:
        """Bytes that gunicorn has read past the header."""
        return len(self._ahead)

    def read(self, size: int) -> bytes | memoryview:
        """Return up to `size` bytes of the body, valid until the next call; none at all when the client is gone."""
        if self._ahead:
            part, self._ahead = self._ahead[:size], self._ahead[size:]
            return part
        if not self._left.length:
            # To receive 0 bytes means to receive as many as there is room for.
            return b""
        if self._buffer is None:
            # Not before: most small bodies came with their header, and large ones go through a pipe.
            self._buffer = memoryview(bytearray(min(self._block, self._left.length)))
        try:
            count = self._connection.recv_into(self._buffer, min(size, self._left.length))
        except BaseException:
            self.give_up()
            raise
        self._left.length -= count
        return self._buffer[:count]

    def splice(self, pipe: Pipe, size: int) -> Piped:
        """Return up to `size` bytes of the body in `pipe`; none at all when the client is gone."""
        try:
            block = pipe.fill(self._connection.fileno(), min(size, self._left.length))
        except BlockingIOError:
            raise
        except BaseException:
            self.give_up()
            raise
        self._left.length -= len(block)
        return block

    def wait(self, seconds: float) -> bool:
        """Wait so long for bytes, or for the client's end; say whether there is something to read."""
        return bool(self._ahead or not self._left.length or self._poll.poll(1000 * seconds))

    def give_up(self) -> None:
        """Let gunicorn close the connection, for where the next request begins is not known any more."""
        self._body.failed = True

    def _take_ahead(self) -> None:
        """Take what gunicorn has read past the header, and give back what belongs to the next request."""
        found = self._left.unreader.take_buffered()
        self._ahead, rest = found[: self._left.length], found[self._left.length :]
        if rest:
            self._left.unreader.unread(rest)
        self._left.length -= len(self._ahead)


class PiecewiseReader:
    """The rest of the body of one request with ``Transfer-Encoding: chunked``, as it arrives.

    gunicorn's own reader waits until it has a whole block, and drops what it has when the connection breaks.
    """

    def __init__(self, body: Any) -> None:
        self._body = body
        self._ahead = memoryview(b"")

    def read(self, size: int) -> memoryview:
        """Return up to `size` bytes of the body, none at all at its end."""
        try:
            while not self._ahead:
                self._ahead = memoryview(next(self._body.reader.parser))
        except StopIteration:
            return self._ahead
        except BaseException as error:
            self.give_up()
            if isinstance(error, Exception) and not isinstance(error, OSError):
                # Of broken trailers gunicorn speaks otherwise than of all the rest.
                raise OSError("the trailers are broken") from error
            raise
        part, self._ahead = self._ahead[:size], self._ahead[size:]
        return part

    def give_up(self) -> None:
        """Let gunicorn close the connection, for where the next request begins is not known any more."""
        self._body.failed = True


def piecewise_reader(stream: Any) -> PiecewiseReader | None:
    """Return a reader of a body without a length if `stream` is gunicorn's, and unread."""
    theirs = type(stream).__module__ == "gunicorn.http.body"
    left = getattr(stream, "reader", None)
    known = isgenerator(getattr(left, "parser", None)) and hasattr(stream, "failed")
    buffers = [getattr(found, "buf", None) for found in (stream, left)]
    unread = all(buffer is not None and buffer.tell() == 0 for buffer in buffers)
    return PiecewiseReader(stream) if theirs and known and unread else None


def why_not_direct(environ: WSGIEnvironment) -> str:
    """Return, in words, why there was no direct reader for a body with a Content-Length."""
    if isinstance(environ.get("gunicorn.socket"), ssl.SSLSocket):
        return "the connection is encrypted"
    if "gunicorn.http.unreader" not in sys.modules:
        return "the server is neither gunicorn nor uWSGI"
    return why_not_gunicorn() or "the application has read from it, or gunicorn's worker has sockets of another kind"


def why_not_gunicorn() -> str:
    """Return, in words, why there can be no direct reader under the gunicorn that is running, or nothing."""
    unreader = getattr(sys.modules.get("gunicorn.http.unreader"), "Unreader", None)
    missing = not hasattr(unreader, "take_buffered") or not hasattr(unreader, "unread")
    return "this gunicorn does not tell what it has read ahead, as version 27 does" if missing else ""


def direct_reader(environ: WSGIEnvironment, stream: Any, length: int, block: int) -> DirectReader | None:
    """Return a reader of blocks of up to `block` bytes if `stream` is gunicorn's, on a plain socket, and unread.

    `length` is the Content-Length: where less of it is left, the host has read the rest.
    """
    connection = environ.get("gunicorn.socket")
    # A wrapper of the host may pass everything on but what is read.
    theirs = type(stream).__module__ == "gunicorn.http.body"
    left = getattr(stream, "reader", None)
    unreader = getattr(left, "unreader", None)
    # The exact type: on a TLS socket, or one that is not gunicorn's own, the bytes are not the body's.
    plain = type(connection) is socket.socket and getattr(unreader, "sock", None) is connection
    known = hasattr(unreader, "take_buffered") and hasattr(unreader, "unread") and hasattr(stream, "failed")
    unread = hasattr(stream, "buf") and stream.buf.tell() == 0
    if theirs and plain and known and unread and getattr(left, "length", None) == length and connection is not None:
        return DirectReader(stream, connection, block)
    return None
