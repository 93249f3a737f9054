"""Puts the bytes of one chunk where they belong, while others may be trying the same."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import Self

from ..config import Durability
from ..errors import ChunkConflictError, InvalidRequestError, NotFoundError, SupersededError
from ..pipes import Block, Piped, in_memory
from ..upload import DATA, Record, State, infer_chunk_size, slot
from .files import UploadFolder, copy_range, start_writeback, storage_errors, write_at
from .table import Chunk, ChunkTable, Entry, Header

_MOVE_BLOCK = 1 << 20
# A chunk of up to this size is claimed, written and acknowledged in one go if it is in memory as a whole.
_AT_ONCE = 256 << 10
# Chunks below this size are left to the kernel's own writeback: asking for each would write its pages many times.
_WRITEBACK_FROM = 256 << 10


def side_name(number: int) -> str:
    """Return the name of the file for a chunk of irregular length."""
    return f"side-{number}"


class ChunkWriter:
    """One chunk from one request.

    The chunk is claimed with the first block by counting its attempt number up. Every later block is written only
    while the table still shows that attempt, under the fence: so a newer request takes over at once, and from then on
    the older one can't change anything, however long its next block takes to come.
    """

    def __init__(
        self, folder: UploadFolder, record: Record, number: int, length: int | None, durability: Durability
    ) -> None:
        self._folder = folder
        self._record = record
        self._number = number
        self._length = length
        self._durability = durability
        self._table = ChunkTable(folder, record.chunk_count, finished=record.state is State.FINISHED)
        self._attempt = 0
        self._claimed = False
        self._written = 0
        self._held = b""
        self._file = -1
        self._offset = 0
        self._room = 0
        self._side = False
        self._there: Entry | None = None

    def __enter__(self) -> Self:
        if self._length is None or self._length > _AT_ONCE:
            # Claimed before its first block comes, so that of two requests the one that began later is the newer one.
            try:
                with storage_errors():
                    self._put(b"")
            except BaseException:
                self.__exit__()
                raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        try:
            self._discard()
        finally:
            if self._file >= 0:
                os.close(self._file)
            self._table.close()
            self._folder.close()

    def write(self, block: Block) -> None:
        """Take the next bytes."""
        if not block:
            if self._attempt:
                # Nothing came for a while. A client that is gone must not keep a thread of the server.
                with storage_errors(), self._table.fenced() as header:
                    self._claim_or_check(header)
            return
        if self._held:
            raise InvalidRequestError(f"Chunk {self._number} is longer than the {self._length} bytes declared.")
        if not self._written and len(block) == self._length and not isinstance(block, Piped):
            # The whole chunk is in memory: commit claims, writes and acknowledges it under one fence.
            self._held = bytes(block)
            return
        with storage_errors():
            self._put(block)

    def commit(self) -> bool:
        """Acknowledge the chunk; return True if it was the last one that was missing."""
        arrived = self._written + len(self._held)
        if self._length not in (arrived, None):
            raise InvalidRequestError(f"Chunk {self._number} has {arrived} bytes, not the {self._length} declared.")
        with storage_errors():
            if self._length is None:
                self._settle()
            if self._durability is Durability.CHUNK:
                held, self._held = self._held, b""
                self._put(held)
                self._sync_bytes()
            with self._table.fenced() as header:
                self._put_fenced(header, self._held)
                self._held = b""
                complete, checkpoint = self._acknowledge(header)
            self._make_durable(checkpoint)
        return complete

    def _put(self, block: Block) -> None:
        with self._table.fenced() as header:
            room = self._put_fenced(header, block)
        if not room:
            self._move_aside()
            self._put(block)

    def _put_fenced(self, header: Header, block: Block) -> bool:
        """Write a block; return False if it is longer than the place that the chunk seemed to have."""
        self._claim_or_check(header)
        if self._there is not None:
            self._compare(block)
        elif self._written + len(block) > self._room:
            return False
        else:
            write_at(self._file, block, self._offset + self._written)
        self._written += len(block)
        return True

    def _claim_or_check(self, header: Header) -> None:
        if not self._attempt and self._there is None:
            self._claim(header)
        elif self._there is not None:
            if self._table.entry(self._number).sequence != self._there.sequence:
                raise SupersededError(f"Chunk {self._number} was replaced while it was being compared.")
        elif (entry := self._table.entry(self._number)).attempt != self._attempt or entry.state != Chunk.CLAIMED:
            raise SupersededError(f"A newer request has taken over chunk {self._number}.")

    def _claim(self, header: Header) -> None:
        entry = self._table.entry(self._number)
        if entry.state == Chunk.RECEIVED:
            if not self._mends(header, entry):
                self._there = entry
                self._file, self._offset = self._locate(header, entry)
                return
            header.received -= 1
            header.received_bytes -= entry.length
            self._table.write_header(header)
        elif self._record.state is State.FINISHED:
            raise ChunkConflictError(f"The upload is finished, and chunk {self._number} can't be compared any more.")
        self._choose_place(header)
        self._attempt = entry.attempt + 1
        if not self._held or self._side or entry.state != Chunk.MISSING:
            # What is done before the fence is given up needs no claim, unless it ends another's or takes room aside.
            self._table.write_entry(self._number, Entry(Chunk.CLAIMED, self._side, self._attempt))
            self._claimed = True
        if entry.attempt:
            self._forget_aside()

    def _forget_aside(self) -> None:
        """Give back the room of what an earlier attempt has put aside, which nobody has counted."""
        if self._side:
            os.ftruncate(self._file, 0)
        else:
            with suppress(FileNotFoundError):
                os.unlink(side_name(self._number), dir_fd=self._folder.descriptor)

    def _mends(self, header: Header, entry: Entry) -> bool:
        """Say whether this chunk may replace one that is there: only when all are, and their bytes don't add up."""
        if self._record.state is not State.OPEN or self._length == entry.length:
            return False
        self._table.recount(header)
        return header.received == self._record.chunk_count and header.received_bytes != self._record.total_size

    def _choose_place(self, header: Header) -> None:
        """Decide between the final place and a file aside; the first chunk of a sensible length fixes the size."""
        if not header.chunk_size and self._length is not None:
            size = infer_chunk_size(self._record, self._number, self._length)
            if size:
                header.chunk_size = size
                self._table.write_header(header)
        if header.chunk_size or not self._record.total_size:
            offset, room = slot(self._record, header.chunk_size, self._number)
            if room >= 0 and self._length in (room, None):
                self._file = self._folder.open(DATA, os.O_RDWR)
                self._side, self._offset, self._room = False, offset, room
                return
        self._file = self._folder.open(side_name(self._number), os.O_RDWR | os.O_CREAT)
        self._side, self._offset = True, 0
        self._room = self._record.total_size if self._length is None else self._length

    def _locate(self, header: Header, entry: Entry) -> tuple[int, int]:
        """Return an open file and the offset at which a chunk that is there begins."""
        try:
            if self._record.data_file != DATA:
                before = self._table.entries()[: self._number]
                return self._folder.open(self._record.data_file, os.O_RDONLY), sum(item.length for item in before)
            if entry.side:
                return self._folder.open(side_name(self._number), os.O_RDONLY), 0
            return self._folder.open(DATA, os.O_RDONLY), self._number * header.chunk_size
        except FileNotFoundError:
            raise SupersededError("The upload was finished while this chunk was being compared.") from None

    def _compare(self, block: Block) -> None:
        assert self._there is not None  # noqa: S101
        rest = self._there.length - self._written
        there = os.pread(self._file, len(block), self._offset + self._written)
        if len(block) <= rest and len(there) < len(block):
            raise SupersededError(f"Chunk {self._number} was moved while it was being compared.")
        if len(block) > rest or there != in_memory(block):
            raise ChunkConflictError(f"Chunk {self._number} is there already, with other bytes.")

    def _acknowledge(self, header: Header) -> tuple[bool, int]:
        """Count the chunk; return whether nothing is missing, and the sequence number to make durable, or 0.

        Called under the fence under which its last bytes were put, so the claim still holds.
        """
        if self._there is None:
            entry = Entry(Chunk.CLAIMED, self._side, self._attempt, self._written)
            if self._too_many(header):
                raise InvalidRequestError(
                    f"With chunk {self._number} of {self._written} bytes the upload would have"
                    f" {header.received_bytes + self._written}, more than its totalSize {self._record.total_size}."
                )
            checkpoint = self._due(header)
            self._table.receive(header, self._number, entry)
            self._claimed = False
        elif self._written != self._there.length:
            raise ChunkConflictError(f"Chunk {self._number} is there already, with more bytes.")
        else:
            checkpoint = 0
        complete = header.received >= self._record.chunk_count and header.received_bytes >= self._record.total_size
        return complete, checkpoint

    def _too_many(self, header: Header) -> bool:
        """Say whether the upload would have more bytes than its file; the counts are believed only when they agree."""
        if header.received_bytes + self._written > self._record.total_size:
            self._table.recount(header)
        return header.received_bytes + self._written > self._record.total_size

    def _due(self, header: Header) -> int:
        """Note in the header what the chunk about to be counted changes about durability."""
        if self._durability is Durability.CHUNK and header.durable == header.sequence:
            header.durable += 1
        elif self._durability is Durability.CHUNK:
            # What came before was not forced to the disk, under another setting; now it is, once.
            return header.sequence + 1
        elif self._durability is Durability.FINISH and header.checkpoint_due:
            header.checkpoint = time.time()
            return header.sequence + 1
        return 0

    def _make_durable(self, checkpoint: int) -> None:
        if self._durability is Durability.CHUNK:
            self._table.sync()
        elif self._durability is Durability.FINISH and not self._side and self._written >= _WRITEBACK_FROM:
            start_writeback(self._file, self._offset, self._written)
        if checkpoint:
            self._folder.sync()
            with self._table.fenced() as header:
                header.durable = max(header.durable, checkpoint)
                self._table.write_header(header)

    def _sync_bytes(self) -> None:
        if self._there is None:
            os.fdatasync(self._file)
            if self._side:
                os.fsync(self._folder.descriptor)

    def _settle(self) -> None:
        """Bring a chunk whose length only its end told to the place that the length gives it."""
        self._put(b"")
        if self._there is not None:
            return
        with self._table.fenced() as header:
            self._claim_or_check(header)
            size = header.chunk_size or infer_chunk_size(self._record, self._number, self._written)
            if size and not header.chunk_size:
                header.chunk_size = size
                self._table.write_header(header)
        regular = bool(size) and slot(self._record, size or 0, self._number)[1] == self._written
        if self._side and regular:
            self._move(DATA, slot(self._record, size or 0, self._number)[0])
        elif not self._side and not regular:
            self._move_aside()

    def _move_aside(self) -> None:
        if self._side or self._length is not None:
            raise InvalidRequestError(f"Chunk {self._number} is longer than the {self._room} bytes that it may have.")
        self._move(side_name(self._number), 0)
        self._room = self._record.total_size

    def _move(self, name: str, offset: int) -> None:
        """Copy what was written to another place, block by block so that the fence is never held for long."""
        with self._table.fenced() as header:
            # Within the fence: one that was overtaken must not make files in an upload that is finished meanwhile.
            self._claim_or_check(header)
            source, target = self._file, self._folder.open(name, os.O_RDWR | os.O_CREAT)
        moved = False
        try:
            for done in range(0, self._written, _MOVE_BLOCK):
                with self._table.fenced() as header:
                    self._claim_or_check(header)
                    size = min(_MOVE_BLOCK, self._written - done)
                    copy_range(source, self._offset + done, target, offset + done, size)
            with self._table.fenced() as header:
                self._claim_or_check(header)
                if self._side:
                    os.ftruncate(source, 0)
            moved = True
        finally:
            # What is left of a failed move is aside in either direction, where discarding it gives its room back.
            keep_target = moved or name != DATA
            self._file = target if keep_target else source
            os.close(source if keep_target else target)
            self._side = name != DATA if moved else True
        self._offset = offset

    def _discard(self) -> None:
        """Give up the claim if it still is ours, and the room of a file aside."""
        if not self._claimed:
            return
        # An upload that is gone has nothing to give up, and a claim that stays on a sick disk keeps nobody out.
        with suppress(NotFoundError, OSError), self._table.fenced():
            entry = self._table.entry(self._number)
            if entry.attempt == self._attempt and entry.state == Chunk.CLAIMED:
                self._table.write_entry(self._number, Entry(attempt=self._attempt))
                if self._side:
                    os.ftruncate(self._file, 0)
