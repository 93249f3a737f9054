"""The one place where rules, locks and store meet: create, write, status, finish, cancel, sweep."""

from __future__ import annotations

import hashlib
import io
import logging
import math
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from .config import Config
from .errors import ChecksumMismatchError, Error, IncompleteError, InvalidRequestError, NotFoundError, TooLargeError
from .moving import give
from .protocols.chunked import ChunkRequest, StatusRequest, StatusResponse
from .stores import Store
from .upload import LARGEST_INTEGER, Record, State, check_chunk, check_new, check_number, display_name, new_uid

log = logging.getLogger("upload_helper")

# How long a request that creates an upload may be held up by sweeping on the way.
_SWEEP_SECONDS = 0.5

Operation = Literal["create", "write", "read", "status", "delete", "list"]
"""What a client wants to do: write is a further chunk, read is the finished file, status how far it is."""

Event = Literal["created", "finished", "deleted"]


@dataclass(frozen=True)
class Upload:
    """One file on its way or arrived.

    A finished upload stands in a temporary place at ``path``, from which the host moves it: see ``move_to``.
    """

    uploadUid: str
    fileName: str
    """Display name as the client gave it, cleaned of paths and control characters."""
    totalSize: int
    """Bytes in the whole file."""
    path: str = ""
    """Where the finished file is; empty while it is on its way."""
    owner: str = ""
    """Who started it, as the host's ``identify`` said."""
    _service: UploadService | None = field(default=None, repr=False, compare=False)

    def move_to(self, target: str | os.PathLike[str], *, overwrite: bool = False, mode: int = 0o644) -> Path:
        """Move the finished file to `target`, which then is there whole or not at all, and forget the upload.

        Raises FileExistsError if `target` is there, unless `overwrite`; IsADirectoryError for a directory;
        NotFoundError if somebody else has moved it. On another disk the file is copied beside the target first.
        `mode` are the permissions of the file.
        """
        destination = Path(target)
        self._require().take(self.uploadUid, partial(give, target=destination, overwrite=overwrite, mode=mode))
        return destination

    def open(self) -> io.BufferedReader:
        """Open the finished file for reading."""
        # It may have been moved, deleted or tampered with since.
        return Path(self._require().get_upload(self.uploadUid, None).path).open("rb")

    def delete(self) -> None:
        """Delete the upload, finished or not. One that is gone already is no error."""
        if self._service is not None:
            with suppress(NotFoundError):
                self._service.delete(self.uploadUid, None)

    def _require(self) -> UploadService:
        if not self.path or self._service is None:
            raise IncompleteError(f"Upload {self.uploadUid} is not finished, so there is no file yet.")
        return self._service


class UploadService:
    """The operations on uploads, the same for every protocol.

    `owner` is who asks, as the host says; where it is None the host's own code asks, and may see every upload.
    `notify` is told what happened to which upload.
    """

    def __init__(self, config: Config, store: Store, notify: Callable[[Event, Upload], None]) -> None:
        self.config = config
        self._store = store
        self._notify = notify

    def receive(
        self, chunk: ChunkRequest, owner: str | None, allow: Callable[[Operation, Upload], None] | None = None
    ) -> Upload:
        """Store one chunk and return its upload, finished if nothing is missing any more.

        `allow` is asked before anything is written and raises if the operation is not allowed. The chunk is
        acknowledged, which is to survive a crash, when this returns.
        """
        chunk.check()
        name = display_name(chunk.fileName)
        length = self._check_length(chunk)
        created = False
        if chunk.uploadUid:
            record = self._owned(chunk.uploadUid, owner)
            check_chunk(record, name, chunk.totalSize, chunk.chunkCount, chunk.chunkNumber)
            if allow:
                allow("write", self._upload(record))
        else:
            record = self._new_record(chunk, name, owner)
            if allow:
                allow("create", self._upload(record))
            record, created = self._create(record)
            if allow and not created:
                allow("write", self._upload(record))
        try:
            if self._write(record, chunk, length) and record.state is State.OPEN:
                with suppress(IncompleteError):
                    record = self._finish(record.uid)
        except BaseException:
            if created and not record.identifier:
                # The client has not learned the uid, so nobody could ever go on with this upload.
                with suppress(Error):
                    self.delete(record.uid, None)
            raise
        return self._upload(record)

    def get_upload(self, uid: str, owner: str | None) -> Upload:
        """Return a finished upload; raises IncompleteError while something is missing."""
        record = self._owned(uid, owner)
        if record.state is not State.FINISHED:
            record = self._finish(uid)
        self._store.check(record)
        return self._upload(record)

    def peek(self, uid: str, owner: str | None) -> Upload:
        """Return an upload whether it is finished or not."""
        return self._upload(self._owned(uid, owner))

    def find(self, query: StatusRequest, owner: str | None) -> Upload:
        """Return the upload that a status request is about; raises NotFoundError if there is none."""
        return self._upload(self._named(query, owner))

    def status(self, query: StatusRequest, owner: str | None, *, roughly: bool = False) -> StatusResponse:
        """Say how far an upload is, `roughly` without the missing chunks; raises NotFoundError if there is none."""
        record = self._named(query, owner)
        progress = self._store.progress(record.uid, roughly=roughly)
        expiry = self.config.expiry.total_seconds()
        return StatusResponse(
            uploadUid=record.uid,
            fileName=record.file_name,
            totalSize=record.total_size,
            chunkCount=record.chunk_count,
            state=record.state,
            receivedBytes=progress.received_bytes,
            missing=None if roughly else progress.missing,
            chunkSize=progress.chunk_size,
            expires=self._store.last_write(record.uid) + expiry if expiry else None,
        )

    def delete(self, uid: str, owner: str | None) -> None:
        """Cancel an upload that is on its way, or delete a finished one."""
        self._owned(uid, owner)
        self._report_deleted(uid, self._store.delete(uid))

    def take(self, uid: str, take: Callable[[Path], None]) -> None:
        """Let `take` move a finished file away and forget the upload; nobody is told, for nothing was lost."""
        self._store.take(uid, take)

    def uploads(self, owner: str | None = None) -> Iterator[Upload]:
        """Yield the uploads of one owner, or of all."""
        for uid in self._store.uids(owner):
            with suppress(Error):
                yield self.peek(uid, owner)

    def sweep(self, *, seconds: float = math.inf) -> int:
        """Delete what nobody has written to for the configured time; return how many uploads that were.

        Looks at no further upload after so many seconds.
        """
        until = time.monotonic() + seconds
        swept = 0
        expiry = self.config.expiry.total_seconds()
        if expiry:
            uids = list(self._store.uids())
            # In another order each time, so that short sweeps come to all of them in the end.
            random.shuffle(uids)
            for uid in uids:
                swept += self._sweep_one(uid, time.time() - expiry)
                if time.monotonic() > until:
                    break
        self._store.clean()
        return swept

    def _sweep_one(self, uid: str, before: float) -> bool:
        try:
            record = self._store.delete_expired(uid, before)
        except NotFoundError:
            return False
        except Error:
            # One that is broken must not keep the others from being swept.
            log.exception("upload %s could not be swept", uid)
            return False
        if record is not None:
            self._report_deleted(uid, record)
        return record is not None

    def _sweep_by_the_way(self) -> None:
        interval = self.config.sweep_interval.total_seconds()
        try:
            if interval and self._store.claim_sweep(interval):
                self.sweep(seconds=_SWEEP_SECONDS)
        except Exception:
            # Whoever starts an upload has nothing to do with what is wrong with old ones.
            log.exception("sweeping failed")

    def _named(self, query: StatusRequest, owner: str | None) -> Record:
        if query.uploadUid:
            return self._owned(query.uploadUid, owner)
        if not query.identifier:
            raise InvalidRequestError("A status request needs uploadUid, or identifier with name, size and count.")
        for name, value, low in (("totalSize", query.totalSize, 0), ("chunkCount", query.chunkCount, 1)):
            if not low <= value <= LARGEST_INTEGER:
                raise InvalidRequestError(f"{name} {value} is not between {low} and {LARGEST_INTEGER}.")
        sample = Record("", owner or "", display_name(query.fileName), query.totalSize, query.chunkCount, 0,
                        query.identifier)  # fmt: skip
        record = self._store.find(sample)
        if record is None:
            raise NotFoundError
        return record

    def _owned(self, uid: str, owner: str | None) -> Record:
        record = self._store.read(uid)
        if owner is not None and record.owner != owner:
            # Word for word what is said of a uid that does not exist.
            raise NotFoundError
        return record

    def _check_length(self, chunk: ChunkRequest) -> int | None:
        length = chunk.length
        if length is not None:
            if length > self.config.max_chunk_size:
                limit = self.config.max_chunk_size
                raise TooLargeError(
                    f"The chunk has {length} bytes; {limit} are allowed (UPLOAD_HELPER_MAX_CHUNK_SIZE)."
                )
            if length > chunk.totalSize:
                raise InvalidRequestError(f"The chunk has {length} bytes, more than totalSize {chunk.totalSize}.")
        return length

    def _new_record(self, chunk: ChunkRequest, name: str, owner: str | None) -> Record:
        check_new(self.config, name, chunk.totalSize, chunk.chunkCount)
        check_number(chunk.chunkNumber, chunk.chunkCount)
        return Record(
            uid=new_uid(), owner=owner or "", file_name=name, total_size=chunk.totalSize,
            chunk_count=chunk.chunkCount, created=time.time(), identifier=chunk.identifier,
            checksum=chunk.fileChecksum,
        )  # fmt: skip

    def _create(self, record: Record) -> tuple[Record, bool]:
        existing = self._store.find(record)
        if existing is not None:
            return existing, False
        record, created = self._store.create(record)
        if created:
            self._notify("created", self._upload(record))
            self._sweep_by_the_way()
        return record, created

    def _write(self, record: Record, chunk: ChunkRequest, length: int | None) -> bool:
        algorithm, _, declared = chunk.checksum.partition(":")
        digest = hashlib.new(algorithm, usedforsecurity=False) if algorithm else None
        with self._store.writer(record, chunk.chunkNumber, length) as writer:
            for block in self._limited(chunk, length):
                if digest:
                    digest.update(block)
                writer.write(block)
            if digest and digest.hexdigest() != declared:
                raise ChecksumMismatchError(
                    f"Chunk {chunk.chunkNumber} has {algorithm}:{digest.hexdigest()}, not the declared"
                    f" {chunk.checksum}; it was discarded."
                )
            return writer.commit()

    def _limited(self, chunk: ChunkRequest, length: int | None) -> Iterator[bytes | memoryview]:
        """Yield the blocks of a chunk; one that did not tell its length is cut off at the limit."""
        taken = 0
        for block in chunk.blocks():
            taken += len(block)
            if length is None and taken > self.config.max_chunk_size:
                raise TooLargeError(
                    f"The chunk is over the limit of {self.config.max_chunk_size} bytes for a chunk"
                    " (UPLOAD_HELPER_MAX_CHUNK_SIZE)."
                )
            yield block

    def _finish(self, uid: str) -> Record:
        record, by_us = self._store.finish(uid)
        if by_us:
            log.info("upload %s finished: %d bytes", uid, record.total_size)
            self._notify("finished", self._upload(record))
        return record

    def _report_deleted(self, uid: str, record: Record | None) -> None:
        log.info("upload %s deleted", uid)
        if record is not None:
            self._notify("deleted", self._upload(record))

    def _upload(self, record: Record) -> Upload:
        finished = record.state is State.FINISHED
        path = self._store.path(record) if finished else ""
        return Upload(record.uid, record.file_name, record.total_size, path, record.owner, self)
