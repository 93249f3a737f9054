"""Uploads in a folder of this machine, or in one that several machines share.

Each upload is a directory named by its uid::

    upload.json   the record, replaced in one step
    data          the file; each chunk is written at its final offset, so there is nothing to assemble
    chunks        the chunk table
    side-N        chunk N, only if its length is irregular; put in place when the upload is finished

Beside them stand ``.owners`` (the index), ``.locks``, ``.scratch`` (half-made and half-deleted uploads) and ``.swept``.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..config import Config, Durability
from ..errors import (
    LengthMismatchError,
    NotFoundError,
    OffsetMismatchError,
    StorageFullError,
    TooLargeError,
)
from ..locks import LockFolder
from ..moving import sync_directory
from ..upload import FALLBACK_NAME, UNKNOWN_SIZE, Record, State, check_size, is_uid
from .appending import AppendWriter, make_durable, standing, take_over
from .base import Progress
from .files import RECORD, TABLE, UploadFolder, refuse_links, storage_errors
from .finishing import check_file, make_whole
from .owners import OwnerIndex
from .room import Room
from .table import Chunk, ChunkTable, Header
from .writer import ChunkWriter

_SCRATCH_SECONDS = 3600
# How much room an upload of unknown size takes at a time.
_RESERVE_STEP = 16 << 20


class LocalStore:
    """The store on a local or shared folder. See ``stores.base.Store`` for what each method promises."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._root = config.folder
        self._scratch = self._root / ".scratch"
        self._owners = OwnerIndex(self._root / ".owners")
        self._locks = LockFolder(self._root / ".locks" / "uploads")
        self._owner_locks = LockFolder(self._root / ".locks" / "owners")
        self._room = Room(config, self._owners, self._owner_locks)
        self._durable = config.durability is not Durability.NONE

    def create(self, record: Record, *, anew: bool = False) -> tuple[Record, bool]:
        """Reserve room for an upload."""
        with storage_errors():
            self._make_folders()
            with self._owner_locks.hold(self._owners.lock_name(record.owner)):
                existing = None if anew else self.find(record)
                if existing is not None:
                    return existing, False
                self._room.check(record, record.quota_size)
                try:
                    self._owners.add(record, sync=self._config.durability is Durability.CHUNK)
                    self._build(record)
                except BaseException:
                    self._owners.remove(record)
                    shutil.rmtree(self._scratch / record.uid, ignore_errors=True)
                    raise
        return record, True

    def find(self, record: Record) -> Record | None:
        """Return the upload with the same owner, identifier, name, size and chunk count."""
        with storage_errors():
            uid = self._owners.find(record) if record.identifier else ""
        with suppress(NotFoundError), self._folder(uid) as folder:
            # A power cut can have taken the table, and then nobody can go on with the upload.
            if TABLE in folder.names():
                return folder.read_record()
        return None

    def read(self, uid: str) -> Record:
        """Return the record of an upload."""
        with self._folder(uid) as folder:
            return folder.read_record()

    def writer(self, record: Record, number: int, length: int | None) -> ChunkWriter:
        """Return a writer for one chunk."""
        with storage_errors():
            folder = UploadFolder(f"{self._root}/{record.uid}")
            try:
                return ChunkWriter(folder, record, number, length, self._config.durability)
            except BaseException:
                folder.close()
                raise

    def appender(self, record: Record, offset: int, *, hold: bool, complete: bool | None) -> AppendWriter:
        """Return what appends to an upload."""
        with storage_errors():
            folder = UploadFolder(f"{self._root}/{record.uid}")
            try:
                return AppendWriter(
                    folder, record, offset, hold=hold, complete=complete, durability=self._config.durability,
                    extend=partial(self._extend, record.uid),
                )  # fmt: skip
            except BaseException:
                folder.close()
                raise

    def take_over(self, uid: str) -> Progress:
        """Return where an upload that is appended to stands, and let no older request change that any more."""
        with self._folder(uid) as folder:
            finished = folder.read_record().state is State.FINISHED
            with ChunkTable(folder, 0, finished=finished) as table:
                with table.fenced() as header:
                    if not finished:
                        take_over(table, header)
                if self._config.durability is Durability.CHUNK and header.durable < header.received_bytes:
                    make_durable(folder, table)
        return standing(header)

    def declare(self, record: Record, offset: int, *, complete: bool | None = False) -> Record:
        """Fix the size and the name of an upload that began without."""
        size = record.total_size
        with self._folder(record.uid) as folder, self._locks.hold(record.uid):
            before = folder.read_record()
            if UNKNOWN_SIZE not in (size, before.total_size) and size != before.total_size:
                raise LengthMismatchError(f"The file has {before.total_size} bytes, not {size}.")
            declared = _merged(before, record)
            with ChunkTable(folder, 0) as table, table.fenced() as header:
                if header.received_bytes != offset:
                    raise OffsetMismatchError(header.received_bytes, offset)
                if offset > size != UNKNOWN_SIZE or (header.complete and size not in (UNKNOWN_SIZE, offset)):
                    raise LengthMismatchError(f"The file has {offset} bytes already, so its length is not {size}.")
                if complete is None and offset == size:
                    # In the same step: a client that learns of this length takes the upload for finished.
                    header.mark_complete()
                # Who appends without knowing the size could go beyond it. Whoever comes next finds it in the record.
                take_over(table, header)
                self._room.change(folder, before, declared)
        return declared

    def has_chunk(self, record: Record, number: int) -> bool:
        """Say whether a chunk is there."""
        if record.state is State.FINISHED:
            return True
        with (
            self._folder(record.uid) as folder,
            ChunkTable(folder, record.chunk_count) as table,
            table.fenced(),
        ):
            return table.entry(number).state == Chunk.RECEIVED

    def progress(self, uid: str, *, roughly: bool = False) -> Progress:
        """Count what is there."""
        with self._folder(uid) as folder:
            record = folder.read_record()
            finished = record.state is State.FINISHED
            with ChunkTable(folder, record.chunk_count, finished=finished) as table, table.fenced() as header:
                if record.appended:
                    return standing(header)
                if finished:
                    return Progress(record.total_size, [], header.chunk_size or None)
                if roughly:
                    return Progress(min(header.received_bytes, record.total_size), [], header.chunk_size or None)
                table.recount(header)
                return Progress(header.received_bytes, table.missing(), header.chunk_size or None)

    def finish(self, uid: str, *, verified: bool = False) -> tuple[Record, bool]:
        """Make the file whole, verified and safe."""
        record = self.read(uid)
        if record.state is State.FINISHED:
            return record, False
        with self._folder(uid) as folder, self._locks.hold(uid):
            record = folder.read_record()
            if record.state is State.FINISHED:
                return record, False
            with ChunkTable(folder, record.chunk_count) as table:
                finished = make_whole(folder, record, table, durable=self._durable, verified=verified)
            self._tidy(folder, record, finished)
        return finished, True

    def path(self, record: Record) -> str:
        """Return where the bytes of a finished upload are."""
        return str(self._root / record.uid / record.data_file)

    def check(self, record: Record) -> None:
        """Raise StorageError unless the file of a finished upload is there, whole, and no link."""
        with self._folder(record.uid) as folder:
            check_file(folder, record)

    @contextmanager
    def opened(self, record: Record) -> Iterator[int]:
        """Open the file of a finished upload for reading."""
        with self._folder(record.uid) as folder, folder.opened(record.data_file, os.O_RDONLY) as descriptor:
            yield descriptor

    def delete(self, uid: str) -> Record | None:
        """Remove an upload with all that belongs to it."""
        with self._folder(uid) as folder, self._locks.hold(uid):
            record = folder.read_record_or_none()
            self._retire(folder)
        self._forget(uid, record)
        return record

    def take(self, uid: str, take: Callable[[Path], None]) -> None:
        """Let `take` move or copy the file of a finished upload away, then remove the upload."""
        self.read(uid)
        with self._locks.hold(uid):
            record = self.read(uid)
            self.check(record)
            take(Path(self.path(record)))
            with self._folder(uid) as folder:
                self._retire(folder)
        self._forget(uid, record)

    def uids(self, owner: str | None = None) -> Iterator[str]:
        """Yield uids."""
        if owner is not None:
            yield from (uid for uid, _, _ in self._owners.entries(owner))
            return
        with suppress(FileNotFoundError), os.scandir(self._root) as found:
            for item in found:
                if is_uid(item.name) and item.is_dir(follow_symlinks=False):
                    yield item.name

    def last_write(self, uid: str) -> float:
        """Return the time of the last write."""
        with self._folder(uid) as folder:
            return folder.last_write()

    def delete_expired(self, uid: str, before: float) -> Record | None:
        """Delete an upload that nobody has written to since `before`, unless somebody is at work on it."""
        with self._folder(uid) as folder:
            # A look costs little, a lock costs much, and most uploads are not old.
            if folder.last_write() >= before:
                return None
        with self._folder(uid) as folder, self._locks.hold(uid, wait=False) as held:
            if not held:
                return None
            record = folder.read_record_or_none()
            if not self._retire(folder, unwritten_since=before):
                return None
        self._forget(uid, record)
        return record

    def claim_sweep(self, interval: float) -> bool:
        """Say True to one caller when the last sweep is more than `interval` seconds ago."""
        stamp = self._root / ".swept"
        with suppress(FileNotFoundError):
            if time.time() - stamp.lstat().st_mtime < interval:
                return False
        with storage_errors():
            self._make_folders()
            with self._locks.hold("sweep", wait=False) as held:
                if not held or (os.path.lexists(stamp) and time.time() - stamp.lstat().st_mtime < interval):
                    return False
                with (
                    UploadFolder(self._root.resolve()) as root,
                    root.opened(stamp.name, os.O_WRONLY | os.O_CREAT) as descriptor,
                ):
                    os.utime(descriptor)
        return True

    def clean(self) -> None:
        """Remove what killed processes left behind."""
        with storage_errors():
            refuse_links(self._scratch)
            with suppress(FileNotFoundError):
                for path in self._scratch.iterdir():
                    if time.time() - path.lstat().st_mtime > _SCRATCH_SECONDS:
                        shutil.rmtree(path, ignore_errors=True)
            for lock, directory in self._owners.directories():
                with self._owner_locks.hold(lock, wait=False) as held:
                    if held:
                        states = self._owners.uids(directory)
                        self._owners.prune(directory, {uid: self._exists(uid) for uid in states})
                        for uid in (uid for uid, state in states.items() if state is State.OPEN):
                            self._tidy_finished(uid)

    def _folder(self, uid: str) -> UploadFolder:
        if not is_uid(uid):
            raise NotFoundError
        return UploadFolder(f"{self._root}/{uid}")

    def _extend(self, uid: str, needed: int) -> int:
        """Reserve room for an upload of unknown size up to the offset `needed` at least; return up to where it goes."""
        with self._folder(uid) as folder, self._locks.hold(uid):
            with ChunkTable(folder, 0) as table, table.fenced():
                # One that was deleted while we waited for the lock must not be entered in the index again.
                record = folder.read_record()
            if record.total_size == UNKNOWN_SIZE and record.reserved < needed:
                check_size(self._config, needed)
                ahead = min(-(-needed // _RESERVE_STEP) * _RESERVE_STEP, self._config.max_file_size)
                before, record = record, replace(record, reserved=ahead)
                try:
                    self._room.change(folder, before, record)
                except (TooLargeError, StorageFullError):
                    # Not for a round number's sake.
                    record = replace(before, reserved=needed)
                    self._room.change(folder, before, record)
            return record.quota_size

    def _exists(self, uid: str) -> bool:
        return is_uid(uid) and (self._root / uid).is_dir()

    def _make_folders(self) -> None:
        """Make the folders of the store; each time, for an operator may empty it under a running server."""
        locks = self._root / ".locks"
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self._scratch, self._root / ".owners", locks, locks / "uploads", locks / "owners"):
            refuse_links(folder)
            folder.mkdir(mode=0o700, exist_ok=True)

    def _build(self, record: Record) -> None:
        """Make the upload's directory aside and move it in place, so that nobody sees half of it."""
        scratch = self._scratch / record.uid
        scratch.mkdir(mode=0o700)
        every_chunk = self._config.durability is Durability.CHUNK
        with UploadFolder(scratch) as folder:
            self._room.make(folder, record.quota_size)
            with ChunkTable(folder, record.chunk_count, create=True) as table:
                # One that is appended to keeps also what was never acknowledged.
                table.write_header(Header.new(every_chunk=every_chunk and not record.appended))
            folder.write_record(record, sync=every_chunk)
            if every_chunk:
                folder.sync()
        scratch.rename(self._root / record.uid)
        if every_chunk:
            sync_directory(self._root)

    def _tidy(self, folder: UploadFolder, before: Record, finished: Record) -> None:
        """Remove what a finished upload does not need any more, and count it as finished."""
        for name in set(folder.names()) - {RECORD, TABLE, finished.data_file}:
            os.unlink(name, dir_fd=folder.descriptor)
        # Last, for it is what stands there as open that is tidied up after a crash.
        self._owners.change(before, finished)

    def _tidy_finished(self, uid: str) -> None:
        """Tidy up after a process that was killed right after it had finished an upload."""
        with suppress(NotFoundError), self._folder(uid) as folder, self._locks.hold(uid, wait=False) as held:
            record = folder.read_record()
            if held and record.state is State.FINISHED:
                self._tidy(folder, replace(record, state=State.OPEN), record)

    def _retire(self, folder: UploadFolder, unwritten_since: float = math.inf) -> bool:
        """Take the upload out of sight and stop its writers; return False if it was written to since the given time."""
        try:
            table = ChunkTable(folder, 0)
        except NotFoundError:
            # Lost in a power cut, and so nobody writes.
            self._hide(folder)
            return True
        # Blocks are written under the fence, so none can come between this look and the mark.
        with table, table.held():
            if folder.last_write() >= unwritten_since:
                return False
            # Out of sight first: dying in between, it leaves nothing that newcomers could find.
            self._hide(folder)
            table.mark_deleted()
        return True

    def _hide(self, folder: UploadFolder) -> None:
        self._make_folders()
        try:
            folder.path.rename(self._scratch / folder.path.name)
        except FileNotFoundError:
            raise NotFoundError from None

    def _forget(self, uid: str, record: Record | None) -> None:
        if record is not None:
            with self._owner_locks.hold(self._owners.lock_name(record.owner)):
                self._owners.remove(record)
        shutil.rmtree(self._scratch / uid, ignore_errors=True)


def _merged(before: Record, after: Record) -> Record:
    """Return the record with what it lacked; of two who declare at once each may know another member."""
    size = after.total_size if before.total_size == UNKNOWN_SIZE else before.total_size
    name = after.file_name if before.file_name == FALLBACK_NAME else before.file_name
    return replace(before, total_size=size, file_name=name)
