"""The contract of a store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from ..pipes import Block
from ..upload import Record


@dataclass(frozen=True)
class Progress:
    """How much of an upload is there."""

    received_bytes: int
    missing: list[tuple[int, int]]
    """Numbers of the chunks that are not there, as ranges (first, last), both included, in order."""
    chunk_size: int | None
    """Bytes of a regular chunk, or None while no chunk has told."""
    complete: bool = False
    """Of an upload that is appended to: whether its last byte is there."""
    pieces: int = 0
    """Of an upload that is appended to: how many requests were kept whole; after a power cut it may be too low."""


class Writer(Protocol):
    """Takes the bytes of one chunk, in order, from one request.

    Used in a ``with`` block: leaving it without ``commit`` discards the bytes. Every method raises SupersededError
    once a newer writer has taken over the same chunk, and NotFoundError once the upload is deleted. A chunk that is
    already there is compared instead of written, and ChunkConflictError is raised at the first byte that differs.
    """

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc_info: object) -> None: ...

    def write(self, block: Block) -> None:
        """Take the next bytes, which may change after this returns; none, to find out whether to go on.

        Raises StorageFullError when the disk is full.
        """
        ...

    def commit(self) -> bool:
        """Acknowledge the chunk: from here on it survives a crash. Return True if nothing is missing any more."""
        ...


class Appender(Protocol):
    """Takes the bytes of one request that is appended to an upload, in order.

    Used in a ``with`` block. What was written is kept also without ``commit``, unless it is held. Every method raises
    SupersededError once a newer request has taken over the upload, and NotFoundError once it is deleted.
    """

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc_info: object) -> None: ...

    def write(self, block: Block) -> None:
        """Append the next bytes, which may change after this returns; none, to find out whether to go on.

        Raises TooLargeError for more than the file's size or the owner's quota, StorageFullError when the disk is full.
        """
        ...

    def copy(self, source: int, length: int) -> None:
        """Append the first `length` bytes of an open file of the same store."""
        ...

    def commit(self) -> Progress:
        """Acknowledge the bytes, and the file if it is complete with them; return where the upload stands."""
        ...


class Store(Protocol):
    """Keeps uploads. Safe to use from many threads, processes and, in a shared folder, machines at once.

    A method that takes a uid raises NotFoundError if there is no such upload, before anything is written.
    """

    def create(self, record: Record, *, anew: bool = False) -> tuple[Record, bool]:
        """Reserve room for an upload; return its record and True.

        With `anew`, its identifier stands for this upload from now on, whatever it stood for before. Otherwise:

        Where the owner has an upload with this identifier, name, size and chunk count, return that and False: two
        requests that create it at once get one upload. Raises TooManyUploadsError, TooLargeError (the owner's bytes)
        or StorageFullError, and then nothing was made.
        """
        ...

    def find(self, record: Record) -> Record | None:
        """Return the upload that ``create`` would return instead of making one."""
        ...

    def read(self, uid: str) -> Record:
        """Return the record of an upload."""
        ...

    def writer(self, record: Record, number: int, length: int | None) -> Writer:
        """Return a writer for one chunk of `length` bytes, or of a length that only its end will tell."""
        ...

    def appender(self, record: Record, offset: int, *, hold: bool, complete: bool | None) -> Appender:
        """Return what appends to an upload from `offset` on, and takes it over from any older request.

        With `hold` the bytes count when they are committed, all or none. `complete` says whether the file is complete
        then; None: as soon as it has its size. Entering raises OffsetMismatchError, or FinishedError.
        """
        ...

    def take_over(self, uid: str) -> Progress:
        """Return where an upload that is appended to stands, and let no older request change that any more."""
        ...

    def declare(self, record: Record, offset: int, *, complete: bool | None = False) -> Record:
        """Fix the size and the name, as in `record`, of an upload that began without; return its record.

        `offset` is where the client believes that it stands. No older request can append any more. With `complete`
        None the file is complete if it has that size already.

        Raises OffsetMismatchError, LengthMismatchError if it has another size or more bytes already, and what
        ``create`` raises about quota and room.
        """
        ...

    def has_chunk(self, record: Record, number: int) -> bool:
        """Say whether a chunk is there."""
        ...

    def progress(self, uid: str, *, roughly: bool = False) -> Progress:
        """Count what is there; `roughly` takes no time, may count too much after a crash, and names nothing missing."""
        ...

    def finish(self, uid: str, *, verified: bool = False) -> tuple[Record, bool]:
        """Make the file whole, verified and safe; return its record, and True for the one caller that did it.

        `verified` says that the caller has seen all of its bytes pass by, with the checksum that was declared.
        Raises IncompleteError while something is missing, and ChecksumMismatchError when the whole file is not what
        was declared; then all of it is missing again.
        """
        ...

    def path(self, record: Record) -> str:
        """Return where the bytes of a finished upload are on this machine."""
        ...

    def check(self, record: Record) -> None:
        """Raise StorageError unless the file of a finished upload is there, whole, and no link."""
        ...

    def opened(self, record: Record) -> AbstractContextManager[int]:
        """Open the file of a finished upload for reading, for the length of a ``with`` block."""
        ...

    def delete(self, uid: str) -> Record | None:
        """Remove an upload with all that belongs to it; return its record if it could still be read."""
        ...

    def take(self, uid: str, take: Callable[[Path], None]) -> None:
        """Let `take` move or copy the file of a finished upload away, then remove the upload.

        Of several at once one gets the file; for the others there is no upload any more. If `take` raises, nothing has
        happened.
        """
        ...

    def uids(self, owner: str | None = None) -> Iterator[str]:
        """Yield the uids of all uploads, or of one owner's, in no particular order."""
        ...

    def last_write(self, uid: str) -> float:
        """Return when something was last written to an upload, in seconds since the epoch."""
        ...

    def delete_expired(self, uid: str, before: float) -> Record | None:
        """Delete an upload that nobody has written to since `before`, unless somebody is at work on it."""
        ...

    def claim_sweep(self, interval: float) -> bool:
        """Say True to one caller when the last sweep is more than `interval` seconds ago."""
        ...

    def clean(self) -> None:
        """Remove what killed processes left behind: half-made and half-deleted uploads, stale index entries."""
        ...
