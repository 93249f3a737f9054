"""The chunk table: one small record for each chunk number, so that a chunk costs the same whatever came before it."""

from __future__ import annotations

import os
import re
import struct
import sys
import time
import uuid
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from ..boot import boot_id
from ..errors import NotFoundError
from ..locks import fence
from .files import TABLE, UploadFolder, write_at

_MAGIC = b"UHct"
_VERSION = 1
_HEADER = struct.Struct("<4sHHQQQQQ16sd")
_HEADER_START = struct.Struct("<4sHH")
_ENTRY = struct.Struct("<BBHIQQ8x")
_HEADER_SIZE = 128
# Where the length stands in an entry, counted in numbers of eight bytes. Only received chunks have one.
_LENGTH = 1
# How much of the upload time a power cut may cost, and how rarely the disk has to wait for it.
CHECKPOINT_SECONDS = 30

_DELETED = 1
_EVERY_CHUNK = 2
_COMPLETE = 4


class Chunk(IntEnum):
    """State of one chunk number."""

    MISSING = 0
    CLAIMED = 1
    RECEIVED = 2


_NOT_RECEIVED = re.compile(b"[^\x02]+")


def _boot_id() -> bytes:
    """Return what is different after each start of the machine; zeros where the system does not tell."""
    try:
        return uuid.UUID(boot_id()).bytes
    except ValueError:
        return bytes(16)


BOOT_ID = _boot_id()


def _numbers(raw: bytes) -> array[int]:
    """Return the table as the numbers of eight bytes that it is made of."""
    numbers = array("Q", raw)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


@dataclass(slots=True)
class Header:
    """What is known of all chunks together. After a crash the counts can be too high; ``recount`` mends them.

    ``sequence`` numbers the acknowledged chunks; those up to ``durable`` were on the disk when it was written.

    Of an upload that is appended to, ``received_bytes`` is the offset, ``durable`` the offset that was on the disk,
    ``received`` the number of requests that were kept whole, and ``sequence`` the attempt that may append.
    """

    @classmethod
    def new(cls, *, every_chunk: bool) -> Header:
        """Return the header of a new upload; `every_chunk`: each is on the disk before its entry is written."""
        return cls(flags=_EVERY_CHUNK if every_chunk else 0, checkpoint=time.time())

    flags: int = 0
    chunk_size: int = 0
    received: int = 0
    received_bytes: int = 0
    sequence: int = 0
    durable: int = 0
    boot: bytes = BOOT_ID
    checkpoint: float = 0.0

    @property
    def checkpoint_due(self) -> bool:
        """Whether what is there should be forced to the disk again, so that a power cut costs little."""
        return abs(time.time() - self.checkpoint) > CHECKPOINT_SECONDS

    @property
    def complete(self) -> bool:
        """Whether an upload that is appended to has all of its bytes, as the client says."""
        return bool(self.flags & _COMPLETE)

    def mark_complete(self) -> None:
        """Note that the last byte of an upload that is appended to is there."""
        self.flags |= _COMPLETE

    def rewind(self, offset: int) -> None:
        """Forget what was appended behind `offset`."""
        self.received_bytes, self.received = offset, 0
        self.flags &= ~_COMPLETE
        self.durable = min(self.durable, offset)

    def pack(self) -> bytes:
        """Return the header as it stands in the file."""
        return _HEADER.pack(
            _MAGIC, _VERSION, self.flags, self.chunk_size, self.received, self.received_bytes,
            self.sequence, self.durable, self.boot, self.checkpoint,
        )  # fmt: skip


@dataclass(slots=True)
class Entry:
    """One chunk number: its state, the attempt that holds or held the claim, and its length once it is received.

    `side` says that its bytes are in a file of their own because its length is not the regular one.
    """

    state: int = Chunk.MISSING
    side: bool = False
    attempt: int = 0
    length: int = 0
    sequence: int = 0


class _Fenced:
    """Holds a fence and gives the header that is read under it. A generator would take twice as long."""

    def __init__(self, held: fence, read: Callable[[], Header]) -> None:
        self._held = held
        self._read = read

    def __enter__(self) -> Header:
        self._held.__enter__()
        try:
            return self._read()
        except BaseException:
            self._held.__exit__()
            raise

    def __exit__(self, *exc_info: object) -> None:
        self._held.__exit__()


class ChunkTable:
    """The open table of one upload. All but ``open`` and ``close`` is called within ``fenced``."""

    def __init__(self, folder: UploadFolder, chunk_count: int, *, create: bool = False, finished: bool = False) -> None:
        try:
            self._descriptor = folder.open(TABLE, os.O_RDWR | (os.O_CREAT if create else 0))
        except FileNotFoundError:
            raise NotFoundError from None
        self._count = chunk_count
        self._finished = finished

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, which gives the fence up as well."""
        os.close(self._descriptor)

    def sync(self) -> None:
        """Force the table to the disk."""
        os.fdatasync(self._descriptor)

    def held(self) -> fence:
        """Hold the upload's fence without a look at the header, which after a power cut writes to it."""
        return fence(self._descriptor)

    def fenced(self) -> _Fenced:
        """Hold the upload's fence and get the header; raises NotFoundError if the upload was deleted meanwhile."""
        return _Fenced(self.held(), self._read_header)

    def write_header(self, header: Header) -> None:
        """Write the header back."""
        write_at(self._descriptor, header.pack(), 0)

    def mark_deleted(self) -> None:
        """Make every open writer stop at its next block. Called within ``held``."""
        write_at(self._descriptor, _HEADER_START.pack(_MAGIC, _VERSION, _DELETED), 0)

    def entry(self, number: int) -> Entry:
        """Return what is known of one chunk."""
        raw = os.pread(self._descriptor, _ENTRY.size, self._offset(number))
        if len(raw) < _ENTRY.size:
            return Entry()
        state, side, _, attempt, length, sequence = _ENTRY.unpack(raw)
        return Entry(state, bool(side), attempt, length, sequence)

    def write_entry(self, number: int, entry: Entry) -> None:
        """Write what is known of one chunk."""
        raw = _ENTRY.pack(entry.state, entry.side, 0, entry.attempt, entry.length, entry.sequence)
        write_at(self._descriptor, raw, self._offset(number))

    def receive(self, header: Header, number: int, entry: Entry) -> None:
        """Count a chunk as received.

        The header goes first, so that a crash in between leaves counts that are too high: whoever sees that nothing
        is missing counts again, while counts that are too low would let a complete upload pass unseen.
        """
        header.sequence += 1
        header.received += 1
        header.received_bytes += entry.length
        header.boot = BOOT_ID
        if header.durable < header.sequence:
            header.flags &= ~_EVERY_CHUNK
        entry.state, entry.sequence = Chunk.RECEIVED, header.sequence
        self.write_header(header)
        self.write_entry(number, entry)

    def recount(self, header: Header) -> bool:
        """Count again, correct the header, and return whether every chunk has the regular length.

        Works on columns of the raw table: a million chunks take a few hundredths of a second, entry by entry a second.
        """
        raw = self._raw_entries()
        counts = raw[:: _ENTRY.size].count(Chunk.RECEIVED), sum(_numbers(raw)[_LENGTH :: _ENTRY.size // 8])
        if counts != (header.received, header.received_bytes):
            header.received, header.received_bytes = counts
            self.write_header(header)
        return 1 not in raw[1 :: _ENTRY.size]

    def entries(self) -> list[Entry]:
        """Return all entries, in the order of their numbers."""
        fields = _ENTRY.iter_unpack(self._raw_entries())
        return [Entry(state, bool(side), attempt, length, seq) for state, side, _, attempt, length, seq in fields]

    def missing(self) -> list[tuple[int, int]]:
        """Return the numbers of the chunks that are not there as ranges, both ends included."""
        states = self._raw_entries()[:: _ENTRY.size]
        return [(hole.start(), hole.end() - 1) for hole in _NOT_RECEIVED.finditer(states)]

    def forget(self, header: Header, *, after: int = 0) -> None:
        """Take every chunk that was received after sequence number `after` for missing."""
        for number, entry in enumerate(self.entries()):
            if entry.state == Chunk.RECEIVED and entry.sequence > after:
                self.write_entry(number, Entry(attempt=entry.attempt))
        self.recount(header)
        self.write_header(header)

    def _read_header(self) -> Header:
        raw = os.pread(self._descriptor, _HEADER.size, 0)
        good = len(raw) == _HEADER.size and raw.startswith(_MAGIC)
        header = Header(*_HEADER.unpack(raw)[2:]) if good else Header.new(every_chunk=False)
        if header.flags & _DELETED:
            raise NotFoundError
        if self._finished:
            # The whole table was on the disk before the record said finished.
            return header
        if not good or (header.boot != BOOT_ID and not header.flags & _EVERY_CHUNK):
            # A power cut may have lost any page that was not forced to the disk: of the data, of the table, and of
            # the header, which may be older than the entries beside it.
            header.boot = BOOT_ID
            if not good:
                os.ftruncate(self._descriptor, 0)
            if self._count:
                self.forget(header, after=header.durable)
            else:
                if header.received_bytes > header.durable:
                    header.rewind(header.durable)
                self.write_header(header)
        return header

    def _raw_entries(self) -> bytes:
        size = self._count * _ENTRY.size
        parts = []
        offset = _HEADER_SIZE
        while size and (part := os.pread(self._descriptor, size, offset)):
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return b"".join(parts) + bytes(size)

    @staticmethod
    def _offset(number: int) -> int:
        return _HEADER_SIZE + number * _ENTRY.size
