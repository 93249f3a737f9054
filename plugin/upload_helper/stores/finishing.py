"""Finishing an upload: a check and a new record, and putting irregular chunks together where there are any."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import replace

from ..errors import ChecksumMismatchError, Error, IncompleteError, StorageError
from ..moving import sync_directory
from ..upload import ASSEMBLED, DATA, UNKNOWN_SIZE, Record, State
from .files import TABLE, UploadFolder, copy_range
from .table import ChunkTable, Entry, Header
from .writer import side_name


def make_whole(
    folder: UploadFolder, record: Record, table: ChunkTable, *, durable: bool, verified: bool = False
) -> Record:
    """Make the file whole, verified and, if `durable`, safe from a power cut; return the finished record.

    With `verified` the checksum of the whole file was found right on its way.

    Raises IncompleteError while something is missing, and ChecksumMismatchError when the file is not what was declared;
    then all of it is missing again. Called with the upload's lock held.
    """
    if record.appended:
        return _make_appended_whole(folder, record, table, durable=durable, verified=verified)
    with table.fenced() as header:
        regular = table.recount(header)
        missing = table.missing()
    if missing or header.received_bytes != record.total_size:
        raise _incomplete(record, header, missing)
    lost = [] if regular else _assemble(folder, header, table.entries())
    if lost:
        with table.fenced() as header:
            for number in lost:
                table.write_entry(number, Entry(attempt=table.entry(number).attempt))
            table.recount(header)
            raise _incomplete(record, header, table.missing())
    data_file = DATA if regular else ASSEMBLED
    if durable and regular:
        folder.sync()
    elif durable:
        # Not the files aside, of which there may be many: what was in them is in the one file now.
        for name in (data_file, TABLE):
            with folder.opened(name, os.O_RDONLY) as descriptor:
                os.fsync(descriptor)
        os.fsync(folder.descriptor)
        sync_directory(folder.path.parent)
    try:
        _verify(folder, record, data_file)
    except Error:
        with table.fenced() as header:
            table.forget(header)
        raise
    return _seal(folder, replace(record, data_file=data_file), durable=durable)


def _make_appended_whole(
    folder: UploadFolder, record: Record, table: ChunkTable, *, durable: bool, verified: bool
) -> Record:
    with table.fenced() as header:
        size = record.total_size
        if size == UNKNOWN_SIZE and header.complete:
            size = header.received_bytes
        if not header.complete or header.received_bytes != size:
            of = "" if size == UNKNOWN_SIZE else f" of {size}"
            raise IncompleteError(f"Upload {record.uid} is incomplete: {header.received_bytes}{of} bytes are there.")
        record = replace(record, total_size=size)
    with folder.opened(DATA, os.O_RDWR) as data:
        if os.fstat(data).st_size > size:
            # More was reserved while its size was not known.
            os.ftruncate(data, size)
    if durable:
        folder.sync()
    try:
        _verify(folder, replace(record, checksum="") if verified else record, DATA)
    except Error:
        with table.fenced() as header:
            header.rewind(0)
            table.write_header(header)
        raise
    return _seal(folder, record, durable=durable)


def _seal(folder: UploadFolder, record: Record, *, durable: bool) -> Record:
    finished = replace(record, state=State.FINISHED, finished=time.time())
    folder.write_record(finished, sync=durable)
    return finished


def _incomplete(record: Record, header: Header, missing: list[tuple[int, int]]) -> IncompleteError:
    if missing:
        count = sum(last - first + 1 for first, last in missing)
        text = f"{count} of {record.chunk_count} chunks are missing, the first of them number {missing[0][0]}"
    else:
        text = f"all chunks are there, but with {header.received_bytes} of {record.total_size} bytes"
    return IncompleteError(f"Upload {record.uid} is incomplete: {text}.")


def _assemble(folder: UploadFolder, header: Header, entries: list[Entry]) -> list[int]:
    """Put chunks of irregular lengths one behind the other in a file of its own; return those that are lost.

    The first file is left as it is until the record names the new one, so that a crash in between costs nothing.
    """
    lost = []
    offset = 0
    with folder.opened(ASSEMBLED, os.O_RDWR | os.O_CREAT | os.O_TRUNC) as target:
        try:
            for number, entry in enumerate(entries):
                name, start = (side_name(number), 0) if entry.side else (DATA, number * header.chunk_size)
                try:
                    with folder.opened(name, os.O_RDONLY) as source:
                        copy_range(source, start, target, offset, entry.length)
                except (FileNotFoundError, EOFError):
                    lost.append(number)
                offset += entry.length
        except BaseException:
            # Half of it is of no use, and the room it takes may be what was missing.
            os.ftruncate(target, 0)
            raise
    return lost


def check_file(folder: UploadFolder, record: Record) -> None:
    """Raise StorageError unless the file has the size that it must have, and is no link."""
    with folder.opened(record.data_file, os.O_RDONLY) as descriptor:
        size = os.fstat(descriptor).st_size
    if size != record.total_size:
        raise StorageError(f"Upload {record.uid} has {size} bytes on the disk instead of {record.total_size}.")


def _verify(folder: UploadFolder, record: Record, data_file: str) -> None:
    """Raise unless the file has the size, and the checksum if one was declared, that it must have."""
    check_file(folder, replace(record, data_file=data_file))
    if not record.checksum:
        return
    algorithm, _, declared = record.checksum.partition(":")
    with os.fdopen(folder.open(data_file, os.O_RDONLY), "rb") as file:
        actual = hashlib.file_digest(file, algorithm).hexdigest()
    if actual != declared:
        raise ChecksumMismatchError(
            f"The file has {algorithm}:{actual}, not the declared {record.checksum}; all of its chunks were discarded."
        )
