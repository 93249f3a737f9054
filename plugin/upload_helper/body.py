"""The fastest safe way from this request's body to whoever stores it.

Nothing here trusts a body to be as long as it was declared: a WSGI server may end ``wsgi.input`` early and without an
error when the client vanishes (PEP 3333 leaves it open), so whoever reads to the end learns whether it was one.
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Container, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import IO, TYPE_CHECKING, Any, TypeVar

from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData

from .direct import DirectReader, PiecewiseReader, direct_reader, piecewise_reader
from .errors import (
    BodyCutError,
    BodyStalledError,
    InvalidRequestError,
    LengthRequiredError,
    TooLargeError,
    UnsupportedTypeError,
    shown,
)
from .pipes import Block, Pipe, Piped, why_not
from .splicing import SocketReader, find_splicer

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


# Larger blocks gain nothing measurable.
BLOCK = 256 << 10
_PULSE_SECONDS = 1
_SPOOL_IN_MEMORY = 1 << 20
# A form around one chunk has a dozen short fields.
_MOST_PARTS = 100
# What the decoder may gather while it looks for the end of a header or a boundary.
_MOST_BUFFERED = 4 * BLOCK
_LONGEST_FIELD = 16 << 10


B = TypeVar("B", bound=Block)


@dataclass
class Body:
    """The body of one request, read once, in blocks.

    ``length`` is the declared number of bytes, or None where the transfer coding leaves it open. `limit` is the
    largest length that is taken, `timeout` the seconds of silence that end it (0: for ever).
    """

    stream: Any
    length: int | None
    limit: int
    connection: socket.socket | None = None
    timeout: float = 0
    splicer: SocketReader | None = None
    """What can bring the bytes into a pipe."""
    taken: int = 0
    """Bytes read so far; iterating again goes on from there."""
    was_spliced: bool = False
    """Whether the server has not seen all that was taken from its connection."""

    def __iter__(self) -> Iterator[bytes]:
        """Yield the bytes; raises BodyCutError or BodyStalledError if they end too early."""
        return map(bytes, self.blocks())

    def blocks(self) -> Iterator[bytes | memoryview]:
        """Yield the bytes in blocks, each of which is valid only until the next is asked for.

        A block without bytes says that the client has been silent for a second, where the server lets us notice.
        """
        return self._watched(self._blocks())

    def blocks_for(self, checksum: str) -> Iterator[Block]:
        """Yield the bytes in blocks for a store, which come in a pipe where they can, and no `checksum` needs them."""
        if checksum or self.splicer is None:
            return self.blocks()
        return self._watched(self._spliced(self.splicer))

    def _watched(self, blocks: Iterator[B]) -> Iterator[B]:
        """Pass blocks on; make ours of the errors of a connection."""
        with_timeout = self.connection is not None and self.timeout > 0
        if self.connection is not None and with_timeout:
            self.connection.settimeout(self.timeout)
        try:
            yield from blocks
        except TimeoutError as error:
            self.give_up()
            raise BodyStalledError(f"No byte of the body came for {self.timeout:g} seconds.") from error
        except (OSError, ClientDisconnected) as error:
            # gunicorn's own errors about a broken body are OSErrors as well.
            self.give_up()
            raise BodyCutError("The connection broke in the middle of the body.") from error
        finally:
            if self.connection is not None and with_timeout:
                # Closed by now, if what iterated was given up and is cleared away later.
                with suppress(OSError):
                    self.connection.settimeout(None)

    def give_up(self) -> None:
        """Read no further, and have the connection closed behind the answer."""
        if isinstance(self.stream, (DirectReader, PiecewiseReader)):
            self.stream.give_up()
            # gunicorn would wait two seconds for the client's end, and serve nobody else meanwhile. Not so under TLS,
            # where a shutdown takes the encryption off.
            if type(self.connection) is socket.socket:
                with suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RD)

    def _blocks(self) -> Iterator[bytes | memoryview]:
        read = self.stream.read
        while self.length is None or self.taken < self.length:
            if isinstance(self.stream, DirectReader):
                yield from self._pulses(self.stream)
            block = read(BLOCK if self.length is None else min(BLOCK, self.length - self.taken))
            if not block:
                break
            self.taken += len(block)
            if self.taken > self.limit:
                raise TooLargeError(f"The body has more than the {self.limit} bytes that are allowed.")
            yield block
        if self.length is not None and self.taken < self.length:
            raise BodyCutError(f"The body ended after {self.taken} of {self.length} bytes.")

    def _spliced(self, reader: SocketReader) -> Iterator[Block]:
        """Yield blocks in a pipe, behind those that the server has read already."""
        pipe = Pipe.make()
        if pipe is None:
            yield from self._blocks()
            return
        try:
            while self.length is not None and self.taken < self.length and not why_not():
                yield from self._pulses(reader)
                block = _next_block(reader, pipe, self.length - self.taken)
                if block is None:
                    continue
                if not block:
                    raise BodyCutError(f"The body ended after {self.taken} of {self.length} bytes.")
                self.taken += len(block)
                self.was_spliced = self.was_spliced or isinstance(block, Piped)
                yield block
        finally:
            pipe.close()
        if self.taken < (self.length or 0):
            # Found out on the way that it does not go here.
            yield from self._blocks()

    def _pulses(self, reader: SocketReader) -> Iterator[bytes]:
        """Yield nothing once a second while the client is silent, so that whoever stores the body can give up."""
        silent = 0
        while not reader.wait(_PULSE_SECONDS):
            silent += _PULSE_SECONDS
            if self.timeout and silent >= self.timeout:
                raise TimeoutError
            yield b""


def _next_block(reader: SocketReader, pipe: Pipe, rest: int) -> Block | None:
    """Return up to `rest` bytes, none at all when the client is gone; None if there is nothing yet after all."""
    if reader.ahead:
        return reader.read(min(reader.ahead, rest))
    try:
        block = reader.splice(pipe, rest)
        if block:
            return block
    except BlockingIOError:
        if why_not() or not reader.wait(0):
            return None
    # At a byte that was sent as urgent, splice stops as if there were nothing more, but reading goes on behind it.
    return reader.read(1)


def open_body(
    environ: WSGIEnvironment, stream: Any, *, limit: int, timeout: float, splice_from: int | None = None
) -> Body:
    """Return the body of the request in `environ`, to be read from `stream`.

    One of `splice_from` bytes or more can go to a file inside the kernel, where the server lets it; None: none can.

    Raises UnsupportedTypeError for a coding of the bytes, TooLargeError if the declared length is over `limit`.
    """
    # A server may take "gzip, chunked" and hand on what is compressed still (RFC 9112, section 6.1).
    for name, known in (("Content-Encoding", ("", "identity")), ("Transfer-Encoding", ("", "identity", "chunked"))):
        coding = environ.get(f"HTTP_{name.upper().replace('-', '_')}", "")
        if coding and any(part.strip(" \t").lower() not in known for part in coding.split(",")):
            raise UnsupportedTypeError(f"{name} {shown(coding)} is not understood; send the bytes as they are.")
    length = _length(environ)
    if length is not None and length > limit:
        raise TooLargeError(f"The body has {length} bytes; {limit} are allowed.")
    if length is None:
        stream = piecewise_reader(stream) or stream
    elif length:
        stream = direct_reader(environ, stream, length, BLOCK) or stream
    body = Body(stream, length, limit, environ.get("gunicorn.socket"), timeout)
    if length and splice_from is not None and length >= splice_from:
        body.splicer = find_splicer(environ, stream, length)
    return body


def _length(environ: WSGIEnvironment) -> int | None:
    """Return the declared length of a body, or None where the server will say when it ends."""
    declared = environ.get("CONTENT_LENGTH", "")
    if declared:
        if "HTTP_TRANSFER_ENCODING" in environ and not environ.get("wsgi.input_terminated"):
            # The coding goes before the length (RFC 9112, section 6.3), and a server that has not undone it would hand
            # us its framing as part of the file.
            raise InvalidRequestError("The body has both a Content-Length and a Transfer-Encoding; send one of them.")
        if not (declared.isascii() and declared.isdecimal()):
            raise InvalidRequestError(f"Content-Length {shown(declared)} is not a number of bytes.")
        # Python refuses to read a number of thousands of digits, and any that is too large is as good as another.
        return int(declared.lstrip("0")[:20] or "0")
    # Without a length the server must say that it ends the stream itself; otherwise reading could hang for ever,
    # and a chunked body, which uWSGI shows as an empty one, would be acknowledged as such.
    if environ.get("wsgi.input_terminated"):
        return None
    if "HTTP_TRANSFER_ENCODING" in environ:
        raise LengthRequiredError("The body has no Content-Length, which this server needs.")
    return 0


@dataclass
class FilePart:
    """One file in a form."""

    name: str
    """Of the form's field."""
    file_name: str
    blocks: Iterator[bytes]
    """Its bytes, to be read once."""
    is_empty: bool = False
    """Whether it stands for a file input that nobody has put a file in: no bytes, and no name."""


class Form:
    """A multipart form, read as it arrives (RFC 7578): short text fields, and files straight from the connection."""

    def __init__(self, body: Body, boundary: bytes, single: Container[str]) -> None:
        """The fields in `single` must not be there twice with different values; of others the first value stands."""
        self.fields: dict[str, str] = {}
        """Those that were read so far."""
        self._single = single
        self._body = body
        self._blocks = iter(body)
        self._decoder = MultipartDecoder(boundary, max_form_memory_size=_MOST_BUFFERED, max_parts=_MOST_PARTS)
        self._spools: list[IO[bytes]] = []
        self._part: FilePart | None = None
        self._next: File | None = None
        self._events = self._read_events()

    @property
    def size(self) -> int:
        """Bytes of the whole form, or 0 where only its end will tell."""
        return self._body.length or 0

    def next_file(self) -> FilePart | None:
        """Return the next file, after what is left of the one before was passed over; None at the form's end.

        ``fields`` then has at least those that stand before it. Raises InvalidRequestError for a broken form.
        """
        if self._part is not None:
            for _ in self._part.blocks:
                pass
        event, self._next = self._next, None
        if event is None:
            event = next((event for event in self._events if isinstance(event, File)), None)
        self._part = None if event is None else self._opened(event)
        return self._part

    def put_aside(self, part: FilePart, most: int) -> None:
        """Read the fields behind a file, whose bytes go to the disk meanwhile.

        The rest of a file of more than `most` bytes stays on the connection, and the fields behind it unread.
        """
        spool: IO[bytes] = tempfile.SpooledTemporaryFile(_SPOOL_IN_MEMORY)  # noqa: SIM115 - see close()
        self._spools.append(spool)
        rest, size = part.blocks, 0
        for block in rest:
            spool.write(block)
            size += len(block)
            if size > most:
                break
        spool.seek(0)
        part.blocks = chain(iter(lambda: spool.read(BLOCK), b""), rest)
        if size <= most:
            self._next = next((event for event in self._events if isinstance(event, File)), None)

    def restrict(self, limit: int) -> None:
        """Take no more than `limit` bytes in all; raises TooLargeError if more are announced."""
        self._body.limit = limit
        if self.size > limit:
            raise TooLargeError(f"The form has {self.size} bytes; {limit} are allowed.")

    def close(self) -> None:
        """Remove what was put on the disk."""
        for spool in self._spools:
            spool.close()

    def _opened(self, event: File) -> FilePart:
        blocks = self._part_blocks()
        # A file input of a page without a file is sent as a part without a name and bytes (HTML, 4.10.21.4).
        first = b"" if event.filename else next(blocks, b"")
        return FilePart(
            event.name or "", event.filename or "", chain([first], blocks) if first else blocks,
            is_empty=not event.filename and not first,
        )  # fmt: skip

    def _part_blocks(self) -> Iterator[bytes]:
        for event in self._events:
            if isinstance(event, Data):
                if event.data:
                    yield bytes(event.data)
                if not event.more_data:
                    return

    def _read_events(self) -> Iterator[Event]:
        """Yield File, and the Data of files; collect the fields."""
        name, value = "", b""
        in_field = False
        for event in self._raw_events():
            if isinstance(event, Field):
                name, value, in_field = event.name, b"", True
            elif isinstance(event, File):
                in_field = False
                yield event
            elif isinstance(event, Data) and in_field:
                value += event.data
                if len(value) > _LONGEST_FIELD:
                    raise TooLargeError(f"The form field {shown(name)} has more than {_LONGEST_FIELD} bytes.")
                if not event.more_data:
                    self._add(name, value)
            else:
                yield event

    def _add(self, name: str, value: bytes) -> None:
        try:
            text = value.decode()
        except UnicodeDecodeError:
            raise InvalidRequestError(f"The form field {shown(name)} is not UTF-8.") from None
        if self.fields.setdefault(name, text) != text and name in self._single:
            raise InvalidRequestError(f"The form field {shown(name)} is there twice, with different values.")

    def _raw_events(self) -> Iterator[Event]:
        try:
            while not isinstance(event := self._decoder.next_event(), Epilogue):
                if isinstance(event, NeedData):
                    self._decoder.receive_data(next(self._blocks, None))
                else:
                    yield event
            for _ in self._blocks:
                pass
        except RequestEntityTooLarge:
            raise TooLargeError(f"The form has more than {_MOST_PARTS} parts, or a part without an end.") from None
        except ValueError as error:
            raise InvalidRequestError(f"The form could not be read: {str(error).rstrip('.')}.") from None
