"""Uploads that are appended to at an offset: tus, Resumable Uploads for HTTP, FilePond, and files sent in one go."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import (
    Error,
    FinishedError,
    IncompleteError,
    InvalidRequestError,
    LengthMismatchError,
    NotFoundError,
    OffsetMismatchError,
    TooLargeError,
    shown,
)
from ..pipes import Block
from ..stores import Appender, Progress
from ..upload import FALLBACK_NAME, UNKNOWN_SIZE, Record, State, check_extension, check_size, display_name, new_uid
from .checksum import Witness, verified
from .upload import Upload
from .uploads import Allow, Uploads


@dataclass(frozen=True)
class NewUpload:
    """What a client wants to begin. Sizes are in bytes."""

    file_name: str | None
    """As the client gave it; None where it comes with the first bytes."""
    total_size: int = UNKNOWN_SIZE
    metadata: str = ""
    """What else the client said of the file, as tus writes it in Upload-Metadata."""
    concat: str = ""
    """``partial``, or ``final;`` and URLs, as tus writes it in Upload-Concat."""
    checksum: str = ""
    """Of the whole file, ``<algorithm>:<hex>``; verified before it is finished."""
    identifier: str = ""
    """Chosen by the client; with it an upload is found again whose uid was lost."""


@dataclass(frozen=True)
class Piece:
    """Bytes to append. Sizes are in bytes."""

    offset: int
    """Where the client believes that they begin."""
    blocks: Iterable[Block]
    """The bytes; each block is valid until the next is asked for."""
    length: int | None
    """How many bytes the blocks have in all, or None while only their end will tell."""
    total_size: int = UNKNOWN_SIZE
    """Size of the file as this request declares it; UNKNOWN_SIZE where it does not."""
    complete: bool | None = None
    """Whether the file is complete with these bytes; None: as soon as it has its size."""
    checksum: str = ""
    """Of these bytes, ``<algorithm>:<hex>``; then they are kept all or not at all."""
    whole: bool = False
    """Whether they are kept all or not at all also without a checksum."""
    file_name: str = ""
    """For an upload that was begun without a name."""


@dataclass(frozen=True)
class Position:
    """Where an upload that is appended to stands."""

    upload: Upload
    offset: int
    """Bytes that are kept."""
    complete: bool
    """Whether the file is finished."""
    metadata: str = ""
    concat: str = ""
    expires: float | None = None
    """When it is deleted unless something is written to it, in seconds since the epoch."""
    pieces: int = 0
    """How many requests were kept whole."""


class AppendUploads(Uploads):
    """One request after the other; a newer one takes the upload over from one that hangs."""

    def begin(self, new: NewUpload, owner: str | None, allow: Allow | None = None, *, anew: bool = False) -> Position:
        """Create an upload without any bytes.

        Where `new` has an identifier and the owner an upload by it, that one is returned; with `anew` it is deleted if
        it is not finished, and its identifier stands for the new one.
        """
        record = self._new_append(new, owner)
        if allow:
            allow("create", self._upload(record))
        if anew:
            existing = self._store.find(record)
            if existing is not None and existing.state is State.OPEN:
                self._discard(existing.uid)
        record, created = self._create(record, anew=anew)
        if not created:
            return self.position(record.uid, owner)
        return self._position(record, Progress(0, [], None))

    def resume(self, new: NewUpload, owner: str | None) -> Position:
        """Return where the upload stands that has this identifier; raises NotFoundError if there is none."""
        existing = self._store.find(self._new_append(new, owner)) if new.identifier else None
        if existing is None:
            raise NotFoundError
        return self.position(existing.uid, owner)

    def position(self, uid: str, owner: str | None) -> Position:
        """Return where an upload stands; no request that began earlier can change that any more.

        Raises IncompleteError for an upload that comes in chunks and is not finished.
        """
        record = self._owned(uid, owner)
        if record.appended:
            return self._settled(record, self._store.take_over(uid))
        self._require_finished(record)
        return self._position(record, Progress(record.total_size, [], None, complete=True))

    def append(self, uid: str, piece: Piece, owner: str | None, allow: Allow | None = None) -> Position:
        """Append bytes; what arrived is kept, also when the rest does not come and an error is raised.

        Raises OffsetMismatchError, FinishedError, LengthMismatchError, TooLargeError (the file's size, or a limit),
        ChecksumMismatchError, SupersededError when a newer request took over, and what reading the blocks raises.
        """
        record = self._owned(uid, owner)
        declared = self._declared(record, piece)
        if allow:
            # Before anything is said or done about the upload.
            allow("write", self._upload(declared))
        self._check_piece(record, piece)
        if not record.partial:
            check_extension(self.config, declared.file_name)
        if record.state is State.FINISHED:
            return self._append_to_finished(record, piece)
        if declared is not record:
            declared = self._store.declare(declared, piece.offset, complete=piece.complete)
        try:
            progress, seen = self._write_piece(declared, piece)
        except FinishedError:
            # Its last byte came right now, or the process died before it was said to be finished.
            return self._append_to_finished(self._finish(uid), piece)
        return self._settled(declared, progress, verified=seen)

    def concatenate(
        self, new: NewUpload, uids: Sequence[str], owner: str | None, allow: Allow | None = None
    ) -> Position:
        """Create an upload from finished parts, which stay.

        Raises InvalidRequestError for one that is none, or not finished.
        """
        known = {uid: self._part(uid, owner) for uid in dict.fromkeys(uids)}
        parts = [known[uid] for uid in uids]
        record = self._new_append(replace(new, total_size=sum(part.total_size for part in parts)), owner)
        if allow:
            allow("create", self._upload(record))
        record, _ = self._create(record)
        try:
            with self._store.appender(record, 0, hold=False, complete=None) as appender:
                for part in parts:
                    self._copy(part, appender)
                progress = appender.commit()
            return self._settled(record, progress)
        except BaseException:
            self._discard(record.uid)
            raise

    def _new_append(self, new: NewUpload, owner: str | None) -> Record:
        name = display_name(new.file_name or "")
        if new.total_size != UNKNOWN_SIZE:
            check_size(self.config, new.total_size)
        record = Record(
            uid=new_uid(), owner=owner or "", file_name=name, total_size=new.total_size, chunk_count=0,
            created=time.time(), identifier=new.identifier, checksum=new.checksum, metadata=new.metadata,
            concat=new.concat,
        )  # fmt: skip
        if new.file_name is not None and not record.partial:
            # Parts need no name.
            check_extension(self.config, name)
        return record

    def _declared(self, record: Record, piece: Piece) -> Record:
        """Return the record with what this request adds to it."""
        added: dict[str, Any] = {}
        if record.total_size == UNKNOWN_SIZE != piece.total_size:
            added["total_size"] = piece.total_size
        if record.file_name == FALLBACK_NAME and piece.file_name:
            added["file_name"] = display_name(piece.file_name)
        return replace(record, **added) if added else record

    def _check_piece(self, record: Record, piece: Piece) -> None:
        if not record.appended:
            self._require_finished(record)
        if record.concat and not record.partial:
            raise FinishedError("The file was put together from parts; nothing can be appended to it.")
        try:
            self._check_sizes(record, piece)
        except Error:
            # A wrong offset goes first: who is mistaken about that can mend it, and then the rest may be right.
            there = self._store.progress(record.uid, roughly=True).received_bytes
            if there != piece.offset:
                raise OffsetMismatchError(there, piece.offset) from None
            raise

    def _check_sizes(self, record: Record, piece: Piece) -> None:
        if piece.total_size != UNKNOWN_SIZE:
            check_size(self.config, piece.total_size)
        if record.total_size != UNKNOWN_SIZE and piece.total_size not in (UNKNOWN_SIZE, record.total_size):
            raise LengthMismatchError(
                f"The length {piece.total_size} is not the {record.total_size} that the upload was given before."
            )
        size = piece.total_size if record.total_size == UNKNOWN_SIZE else record.total_size
        end = piece.offset + (piece.length or 0)
        if size != UNKNOWN_SIZE and end > size:
            raise TooLargeError(f"With these bytes the upload would have {end}, more than the {size} of the file.")
        if piece.complete and piece.length is not None and size not in (UNKNOWN_SIZE, end):
            raise LengthMismatchError(f"With these bytes the upload would have {end}, not the {size} of the file.")

    @staticmethod
    def _require_finished(record: Record) -> None:
        if record.state is not State.FINISHED:
            raise IncompleteError(
                f"Upload {record.uid} comes in {record.chunk_count} chunks, so it has no offset, and is incomplete."
            )

    def _append_to_finished(self, record: Record, piece: Piece) -> Position:
        if piece.complete is not None:
            raise FinishedError(f"The upload is complete with {record.total_size} bytes.")
        if piece.offset != record.total_size:
            raise OffsetMismatchError(record.total_size, piece.offset)
        if any(len(block) for block in piece.blocks):
            raise TooLargeError(f"The file has its {record.total_size} bytes already.")
        return self._position(record, Progress(record.total_size, [], None, complete=True))

    def _write_piece(self, record: Record, piece: Piece) -> tuple[Progress, bool]:
        """Append bytes; return where the upload stands, and whether they are all of a file and have its checksum."""
        hold = piece.whole or bool(piece.checksum)
        blocks = verified(piece.blocks, piece.checksum, "The body")
        whole = piece.complete or piece.length == record.total_size
        witness = Witness(record.checksum) if record.checksum and piece.offset == 0 and whole else None
        with self._store.appender(record, piece.offset, hold=hold, complete=piece.complete) as appender:
            for block in blocks if witness is None else witness.watch(blocks):
                appender.write(block)
            return appender.commit(), witness is not None and witness.agrees()

    def _settled(self, record: Record, progress: Progress, *, verified: bool = False) -> Position:
        """Finish what is complete, and return where it stands; `verified`: the checksum of it all was found right."""
        if progress.complete and record.state is State.OPEN:
            record = self._finish(record.uid, verified=verified)
        return self._position(record, progress)

    def _position(self, record: Record, progress: Progress) -> Position:
        expiry = self.config.expiry.total_seconds()
        # What asks for the position of a finished upload writes nothing to it; and the host may have taken it by now.
        finished = record.state is State.FINISHED
        written = record.finished if finished else time.time()
        return Position(
            upload=self._upload(record),
            offset=progress.received_bytes,
            complete=finished,
            metadata=record.metadata,
            concat=record.concat,
            expires=written + expiry if expiry else None,
            pieces=progress.pieces,
        )

    def _part(self, uid: str, owner: str | None) -> Record:
        try:
            record = self._owned(uid, owner)
        except NotFoundError:
            raise InvalidRequestError(f"There is no part {shown(uid)}.") from None
        if not record.partial:
            raise InvalidRequestError(f"Upload {uid} was not begun as a part of a file.")
        if record.state is not State.FINISHED:
            raise InvalidRequestError(f"The part {uid} is not finished.")
        self._store.check(record)
        return record

    def _copy(self, part: Record, appender: Appender) -> None:
        with self._store.opened(part) as descriptor:
            appender.copy(descriptor, part.total_size)
