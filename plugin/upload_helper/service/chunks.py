"""Uploads that come in numbered chunks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

from ..errors import IncompleteError, InvalidRequestError, NotFoundError, TooLargeError
from ..pipes import Block
from ..protocols.chunked import ChunkRequest, StatusRequest, StatusResponse
from ..upload import (
    LARGEST_INTEGER,
    Record,
    State,
    check_chunk,
    check_count,
    check_extension,
    check_number,
    check_size,
    display_name,
    new_uid,
)
from .checksum import verified
from .upload import Upload
from .uploads import Allow, Uploads


class ChunkUploads(Uploads):
    """Chunks in any order, from several connections and to several processes."""

    def receive(self, chunk: ChunkRequest, owner: str | None, allow: Allow | None = None) -> Upload:
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
            upload = self._upload(record)
            if allow:
                allow("write", upload)
        else:
            record = self._new_record(chunk, name, owner)
            if allow:
                allow("create", self._upload(record))
            record, created = self._create(record)
            upload = self._upload(record)
            if allow and not created:
                allow("write", upload)
        try:
            if self._write(record, chunk, length) and record.state is State.OPEN:
                with suppress(IncompleteError):
                    upload = self._upload(self._finish(record.uid))
        except BaseException:
            if created and not record.identifier:
                # The client has not learned the uid, so nobody could ever go on with this upload.
                self._discard(record.uid)
            raise
        return upload

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
            missing=None if roughly or record.appended else progress.missing,
            chunkSize=progress.chunk_size,
            expires=self._store.last_write(record.uid) + expiry if expiry else None,
            offset=progress.received_bytes if record.appended else None,
            checksum=record.checksum if record.state is State.FINISHED else "",
        )

    def has_chunk(self, query: StatusRequest, number: int, owner: str | None, allow: Allow | None = None) -> bool:
        """Say whether a chunk is there; no upload has none."""
        try:
            record = self._named(query, owner)
        except NotFoundError:
            return False
        check_number(number, record.chunk_count)
        if allow:
            allow("status", self._upload(record))
        return self._store.has_chunk(record, number)

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
        check_size(self.config, chunk.totalSize)
        check_count(self.config, chunk.totalSize, chunk.chunkCount)
        check_extension(self.config, name)
        check_number(chunk.chunkNumber, chunk.chunkCount)
        return Record(
            uid=new_uid(), owner=owner or "", file_name=name, total_size=chunk.totalSize,
            chunk_count=chunk.chunkCount, created=time.time(), identifier=chunk.identifier,
            checksum=chunk.fileChecksum,
        )  # fmt: skip

    def _write(self, record: Record, chunk: ChunkRequest, length: int | None) -> bool:
        with self._store.writer(record, chunk.chunkNumber, length) as writer:
            blocks = chunk.parcels() if length is not None else self._limited(chunk)
            for block in verified(blocks, chunk.checksum, f"Chunk {chunk.chunkNumber}"):
                writer.write(block)
            return writer.commit()

    def _limited(self, chunk: ChunkRequest) -> Iterator[Block]:
        """Yield the blocks of a chunk that did not tell its length; it is cut off at the limit."""
        taken = 0
        for block in chunk.parcels():
            taken += len(block)
            if taken > self.config.max_chunk_size:
                raise TooLargeError(
                    f"The chunk is over the limit of {self.config.max_chunk_size} bytes for a chunk"
                    " (UPLOAD_HELPER_MAX_CHUNK_SIZE)."
                )
            yield block
