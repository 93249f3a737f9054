"""The fastest safe way from this request's body to whoever stores it.

Nothing here trusts a body to be as long as it was declared: a WSGI server may end ``wsgi.input`` early and without an
error when the client vanishes (PEP 3333 leaves it open), so whoever reads to the end learns whether it was one.
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData

from .direct import direct_reader
from .errors import (
    BodyCutError,
    BodyStalledError,
    InvalidRequestError,
    LengthRequiredError,
    TooLargeError,
    UnsupportedTypeError,
    shown,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

# Larger blocks gain nothing measurable.
BLOCK = 256 << 10
_SPOOL_IN_MEMORY = 1 << 20
# A form around one chunk has a dozen short fields.
_MOST_PARTS = 100
# What the decoder may gather while it looks for the end of a header or a boundary.
_MOST_BUFFERED = 4 * BLOCK
_LONGEST_FIELD = 16 << 10


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
    taken: int = 0
    """Bytes read so far; iterating again goes on from there."""

    def __iter__(self) -> Iterator[bytes]:
        """Yield the bytes; raises BodyCutError or BodyStalledError if they end too early."""
        return map(bytes, self.blocks())

    def blocks(self) -> Iterator[bytes | memoryview]:
        """Yield the bytes in blocks, each of which is valid only until the next is asked for."""
        with_timeout = self.connection is not None and self.timeout > 0
        if self.connection is not None and with_timeout:
            self.connection.settimeout(self.timeout)
        try:
            yield from self._blocks()
        except TimeoutError as error:
            raise BodyStalledError(f"No byte of the body came for {self.timeout:g} seconds.") from error
        except (OSError, ClientDisconnected) as error:
            # gunicorn's own errors about a broken body are OSErrors as well.
            raise BodyCutError("The connection broke in the middle of the body.") from error
        finally:
            if self.connection is not None and with_timeout:
                # Closed by now, if what iterated was given up and is cleared away later.
                with suppress(OSError):
                    self.connection.settimeout(None)

    def _blocks(self) -> Iterator[bytes | memoryview]:
        read = self.stream.read
        while self.length is None or self.taken < self.length:
            block = read(BLOCK if self.length is None else min(BLOCK, self.length - self.taken))
            if not block:
                break
            self.taken += len(block)
            if self.taken > self.limit:
                raise TooLargeError(f"The body has more than the {self.limit} bytes that are allowed.")
            yield block
        if self.length is not None and self.taken < self.length:
            raise BodyCutError(f"The body ended after {self.taken} of {self.length} bytes.")


def open_body(environ: WSGIEnvironment, stream: IO[bytes], *, limit: int, timeout: float) -> Body:
    """Return the body of the request in `environ`, to be read from `stream`.

    Raises UnsupportedTypeError for a Content-Encoding, TooLargeError if the declared length is over `limit`.
    """
    coding = environ.get("HTTP_CONTENT_ENCODING", "")
    if coding.strip().lower() not in ("", "identity"):
        raise UnsupportedTypeError(f"Content-Encoding {shown(coding)} is not understood; send the bytes as they are.")
    declared = environ.get("CONTENT_LENGTH", "")
    if declared:
        if not (declared.isascii() and declared.isdecimal()):
            raise InvalidRequestError(f"Content-Length {shown(declared)} is not a number of bytes.")
        # Python refuses to read a number of thousands of digits, and any that is too large is as good as another.
        length: int | None = int(declared.lstrip("0")[:20] or "0")
    else:
        # Without a length the server must say that it ends the stream itself; otherwise reading could hang for ever,
        # and a chunked body, which uWSGI shows as an empty one, would be acknowledged as such.
        length = None if environ.get("wsgi.input_terminated") else 0
        if length == 0 and "HTTP_TRANSFER_ENCODING" in environ:
            raise LengthRequiredError("The body has no Content-Length, which this server needs.")
    if length is not None and length > limit:
        raise TooLargeError(f"The body has {length} bytes; {limit} are allowed.")
    reader = direct_reader(environ, stream, length, BLOCK) if length else None
    return Body(reader or stream, length, limit, environ.get("gunicorn.socket"), timeout)


class Form:
    """A multipart form with one file part, read as it arrives (RFC 7578).

    After ``fields`` was read, ``file`` yields the bytes of the file part straight from the connection; where fields
    come behind the file, it was put on the disk meanwhile. Parts beside the file part and short fields are refused.
    """

    def __init__(self, body: Body, boundary: bytes, required: frozenset[str]) -> None:
        """Read up to the file part, and past it while one of the `required` fields is missing."""
        self.fields: dict[str, str] = {}
        self._blocks = iter(body)
        self._decoder = MultipartDecoder(boundary, max_form_memory_size=_MOST_BUFFERED, max_parts=_MOST_PARTS)
        self._spool: IO[bytes] | None = None
        self._has_file = False
        self._events = self._read_events()
        try:
            self._find_file(required)
        except BaseException:
            self.close()
            raise

    @property
    def has_file(self) -> bool:
        """Say whether the form has a file part."""
        return self._has_file

    def file(self) -> Iterator[bytes]:
        """Yield the bytes of the file part, then read the form to its end, so that a cut one is found out."""
        if self._spool is not None:
            with self._spool:
                while block := self._spool.read(BLOCK):
                    yield block
            return
        yield from self._part()
        for _ in self._events:
            pass

    def close(self) -> None:
        """Remove what was put on the disk."""
        if self._spool is not None:
            self._spool.close()

    def _find_file(self, required: frozenset[str]) -> None:
        for event in self._events:
            if isinstance(event, File):
                self._has_file = True
                if required <= self.fields.keys():
                    return
                self._keep()

    def _keep(self) -> None:
        self._spool = tempfile.SpooledTemporaryFile(_SPOOL_IN_MEMORY)  # noqa: SIM115 - see close()
        for block in self._part():
            self._spool.write(block)
        self._spool.seek(0)

    def _part(self) -> Iterator[bytes]:
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
                if self._has_file:
                    raise InvalidRequestError(f"The form has a second file part, {shown(event.name)}; send one chunk.")
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
        if self.fields.setdefault(name, text) != text:
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
