"""Appends the bytes of one request to an upload, while a newer request may take it over."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from ..config import Durability
from ..errors import Error, FinishedError, LengthMismatchError, OffsetMismatchError, SupersededError, TooLargeError
from ..pipes import Block
from ..upload import DATA, UNKNOWN_SIZE, Record, State
from .base import Progress
from .files import UploadFolder, copy_some, start_writeback, storage_errors, write_at
from .table import ChunkTable, Header

_WRITEBACK_STEP = 8 << 20
# How much one call of the kernel may copy while the fence is held.
_COPY_STEP = 16 << 20


class AppendWriter:
    """The bytes of one request, from the offset up to which the upload is there.

    Whoever begins to append takes the upload over by counting its attempt up, and every block is written only while
    the header still shows that attempt, under the fence. The offset moves on with every block, so that what arrived is
    kept when the connection is cut; with `hold` it moves when the request is committed as a whole.
    """

    def __init__(
        self,
        folder: UploadFolder,
        record: Record,
        offset: int,
        *,
        hold: bool,
        complete: bool | None,
        durability: Durability,
        extend: Callable[[int], int],
    ) -> None:
        """`extend` reserves room up to an offset, for an upload of unknown length, and returns the offset reserved."""
        self._folder = folder
        self._record = record
        self._offset = offset
        self._begin = offset
        self._hold = hold
        self._complete = complete
        self._durability = durability
        self._extend = extend
        self._reserved = record.quota_size
        self._table = ChunkTable(folder, 0, finished=record.state is State.FINISHED)
        self._attempt = 0
        self._file = -1
        self._written_back = offset
        self._unsafe = False

    def __enter__(self) -> Self:
        try:
            with storage_errors(), self._table.fenced() as header:
                self._claim(header)
                self._file = self._folder.open(DATA, os.O_RDWR)
                if self._record.total_size == UNKNOWN_SIZE:
                    # The caller may have read it before another request declared the size.
                    self._record = self._folder.read_record()
                    self._reserved = self._record.quota_size
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._unsafe:
            # The connection was cut. Of a folder that several machines share, another one counts only what is safe.
            with suppress(Error), storage_errors():
                make_durable(self._folder, self._table)
        if self._file >= 0:
            os.close(self._file)
        self._table.close()
        self._folder.close()

    def write(self, block: Block) -> None:
        """Append the next bytes."""
        if not block:
            # Nothing came for a while. A client that is gone must not keep a thread of the server.
            with storage_errors(), self._table.fenced() as header:
                self._check(header)
            return
        end = self._make_room(len(block))
        with storage_errors():
            with self._table.fenced() as header:
                self._check(header)
                write_at(self._file, block, self._offset)
                self._advance(header, end)
            self._keep_safe(header)

    def copy(self, source: int, length: int) -> None:
        """Append the first `length` bytes of an open file, without taking them into memory."""
        self._make_room(length)
        done = 0
        with storage_errors():
            while done < length:
                with self._table.fenced() as header:
                    self._check(header)
                    count = copy_some(source, done, self._file, self._offset, min(length - done, _COPY_STEP))
                    self._advance(header, self._offset + count)
                done += count
                self._keep_safe(header)

    def commit(self) -> Progress:
        """Acknowledge the bytes, and the file if it is complete with them; return where the upload stands."""
        with storage_errors():
            with self._table.fenced() as header:
                self._check(header)
                if self._complete and self._record.total_size not in (UNKNOWN_SIZE, self._offset):
                    raise LengthMismatchError(f"The file has {self._record.total_size} bytes, not {self._offset}.")
                header.received_bytes = self._offset
                header.received += 1
                if self._complete or self._ends(self._offset):
                    header.mark_complete()
                self._table.write_header(header)
            due = self._durability is Durability.FINISH and header.checkpoint_due
            if due or self._durability is Durability.CHUNK:
                make_durable(self._folder, self._table)
            self._unsafe = False
        return standing(header)

    def _claim(self, header: Header) -> None:
        if header.received_bytes != self._offset:
            raise OffsetMismatchError(header.received_bytes, self._offset)
        if header.complete:
            raise FinishedError(f"The upload is complete with {header.received_bytes} bytes.")
        self._attempt = take_over(self._table, header)

    def _check(self, header: Header) -> None:
        if header.sequence != self._attempt:
            raise SupersededError("A newer request has taken over the upload.")

    def _make_room(self, count: int) -> int:
        end = self._offset + count
        if end > self._reserved and self._record.total_size == UNKNOWN_SIZE:
            with storage_errors(), self._table.fenced() as header:
                self._check(header)
            # Outside of the fence, for others of this owner may hold it up.
            self._reserved = self._extend(end)
        if end > self._reserved:
            raise TooLargeError(
                f"With these bytes the upload would have {end}, more than the {self._reserved} of the file."
            )
        return end

    def _advance(self, header: Header, end: int) -> None:
        self._offset = end
        if self._hold:
            return
        self._unsafe = self._durability is Durability.CHUNK
        header.received_bytes = end
        if self._ends(end):
            # In the same step: a client that learns of this offset takes the upload for finished.
            header.mark_complete()
        self._table.write_header(header)

    def _ends(self, offset: int) -> bool:
        return self._complete is None and offset == self._record.total_size

    def _keep_safe(self, header: Header) -> None:
        """Begin to write to the disk, and note from time to time what is there, so that a power cut costs little."""
        if self._durability is Durability.NONE:
            return
        if self._offset - self._written_back >= _WRITEBACK_STEP:
            start_writeback(self._file, self._written_back, self._offset - self._written_back)
            self._written_back = self._offset
        if header.checkpoint_due:
            make_durable(self._folder, self._table)


def take_over(table: ChunkTable, header: Header) -> int:
    """Make every older request on the upload stop at its next block; return the attempt that may append now."""
    header.sequence += 1
    table.write_header(header)
    return header.sequence


def make_durable(folder: UploadFolder, table: ChunkTable) -> None:
    """Force to the disk what was appended so far, and then the note that it is there."""
    with table.fenced() as header:
        offset = header.received_bytes
    folder.sync()
    with table.fenced() as header:
        # Unless it was all discarded meanwhile.
        if header.received_bytes >= offset:
            header.durable = max(header.durable, offset)
            header.checkpoint = time.time()
            table.write_header(header)
    table.sync()


def standing(header: Header) -> Progress:
    """Return where an upload that is appended to stands."""
    return Progress(header.received_bytes, [], None, complete=header.complete, pieces=header.received)
