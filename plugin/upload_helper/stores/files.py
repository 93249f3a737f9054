"""The file operations that the standard library leaves open: links refused, room reserved, errors named."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Self

from ..errors import Error, NotFoundError, StorageError, StorageFullError
from ..moving import sync_directory
from ..pipes import Block, Piped
from ..upload import Record

RECORD = "upload.json"
TABLE = "chunks"

_RECORD_BLOCK = 1 << 14
# How many records a process keeps that it has parsed; they can't be stale, as they are found by all that was read.
_RECORDS = 128
_COPY_STEP = 1 << 20
_NO_COPY = (errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.EPERM)
_SYNC_FILE_RANGE_WRITE = 2
# Python has neither call. fallocate(2) and not posix_fallocate: where a file system can't reserve, the C library's
# stand-in writes to every block of the file instead, which takes minutes for a big one.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_fallocate = getattr(_libc, "fallocate64", None) or getattr(_libc, "fallocate", None)
_sync_file_range = getattr(_libc, "sync_file_range", None)


class storage_errors:  # noqa: N801 - a context manager, as those of contextlib
    """Turns the system's errors about the storage folder into ours."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError):
            # The path stays in the log, by way of the cause; a client has no business with it.
            raise _ours(error) from error


def _ours(error: OSError) -> Error:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageFullError(f"The disk has no room: {error.strerror}.")
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return StorageError("A link or a strange file stands in the storage folder where none may be.")
    return StorageError(f"The storage folder could not be used: {error.strerror}.")


class UploadFolder:
    """The open directory of one upload. Files are opened relative to it, and links are followed nowhere.

    As a context manager, it turns the system's errors into ours, as ``storage_errors`` does.
    """

    def __init__(self, path: str | Path) -> None:
        """Open the directory; raises NotFoundError if there is none, or StorageError."""
        self._path = path
        try:
            self.descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFoundError from None
        except OSError as error:
            raise _ours(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.close()
        if isinstance(error, OSError):
            raise _ours(error) from error

    @property
    def path(self) -> Path:
        """Where the directory is."""
        return Path(self._path)

    def close(self) -> None:
        """Close the directory; files opened through it stay open."""
        os.close(self.descriptor)

    def open(self, name: str, flags: int) -> int:
        """Open a file of the upload and return its descriptor."""
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self.descriptor)

    @contextmanager
    def opened(self, name: str, flags: int) -> Iterator[int]:
        """Open a file of the upload for the length of a ``with`` block."""
        descriptor = self.open(name, flags)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def names(self) -> list[str]:
        """Return the names of the files in the directory."""
        return os.listdir(self.descriptor)  # noqa: PTH208 - a path would follow links

    def read_record(self) -> Record:
        """Read the record. One that can't be read, after a power cut say, counts as no upload."""
        try:
            descriptor = self.open(RECORD, os.O_RDONLY)
            try:
                raw = part = os.read(descriptor, _RECORD_BLOCK)
                while len(part) == _RECORD_BLOCK:
                    part = os.read(descriptor, _RECORD_BLOCK)
                    raw += part
            finally:
                os.close(descriptor)
            return _parsed(raw)
        except (FileNotFoundError, ValueError, TypeError, AttributeError) as error:
            raise NotFoundError from error

    def read_record_or_none(self) -> Record | None:
        """Read the record, or return None where it can't be read."""
        with suppress(NotFoundError):
            return self.read_record()
        return None

    def write_record(self, record: Record, *, sync: bool) -> None:
        """Replace the record in one step: whoever reads sees the old one or the new one."""
        scratch = f"{RECORD}.new"
        with self.opened(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as descriptor:
            write_at(descriptor, json.dumps(record.as_json()).encode(), 0)
            if sync:
                os.fsync(descriptor)
        os.rename(scratch, RECORD, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)
        if sync:
            os.fsync(self.descriptor)

    def sync(self) -> None:
        """Force the directory, the files in it and its own name to the disk."""
        for name in self.names():
            # Files come and go while an upload is written to and finished.
            with suppress(FileNotFoundError), self.opened(name, os.O_RDONLY) as descriptor:
                os.fsync(descriptor)
        os.fsync(self.descriptor)
        sync_directory(self.path.parent)

    def last_write(self) -> float:
        """Return the time of the last write to any file of the upload, in seconds since the epoch."""
        latest = os.fstat(self.descriptor).st_mtime
        for name in self.names():
            with suppress(FileNotFoundError):
                latest = max(latest, os.stat(name, dir_fd=self.descriptor, follow_symlinks=False).st_mtime)
        return latest


@lru_cache(_RECORDS)
def _parsed(raw: bytes) -> Record:
    """Return the record that stands in these bytes, for many requests on one upload read the same."""
    return Record.from_json(json.loads(raw))


def refuse_links(*folders: Path) -> None:
    """Raise StorageError if one of the store's own folders is a link that somebody planted."""
    for folder in folders:
        if folder.is_symlink():
            raise StorageError(f"{folder.name} in the storage folder is a link, which it must not be.")


def write_at(descriptor: int, data: Block, offset: int) -> None:
    """Write all of `data` at `offset`; the system may take it in several bites."""
    if isinstance(data, Piped):
        data.move(descriptor, offset)
        return
    done = os.pwrite(descriptor, data, offset)
    if done == len(data):
        return
    rest = memoryview(data)[done:]
    while rest:
        offset += done
        done = os.pwrite(descriptor, rest, offset)
        rest = rest[done:]


def reserve(descriptor: int, size: int) -> None:
    """Give the file its size and, where the file system can, the room for it."""
    if not size or not can_reserve(descriptor, size):
        os.ftruncate(descriptor, size)


def can_reserve(descriptor: int, size: int) -> bool:
    """Give the file its size and the room for it, or return False where the file system can't; raises OSError."""
    if _fallocate is None:
        return False
    if _fallocate(descriptor, 0, ctypes.c_int64(0), ctypes.c_int64(size)) == 0:
        return True
    code = ctypes.get_errno()
    if code not in (errno.EOPNOTSUPP, errno.ENOSYS):
        raise OSError(code, os.strerror(code))
    return False


def start_writeback(descriptor: int, offset: int, length: int) -> None:
    """Ask the kernel to begin writing a range to the disk, without waiting.

    Whoever then forces the file to the disk at its end finds nearly nothing left to do, whatever the size.
    """
    if _sync_file_range is not None:
        _sync_file_range(descriptor, ctypes.c_int64(offset), ctypes.c_int64(length), _SYNC_FILE_RANGE_WRITE)


def copy_range(source: int, source_offset: int, target: int, target_offset: int, length: int) -> None:
    """Copy bytes between files; a source that ends early raises EOFError."""
    while length:
        count = copy_some(source, source_offset, target, target_offset, min(length, _COPY_STEP))
        source_offset += count
        target_offset += count
        length -= count


def copy_some(source: int, source_offset: int, target: int, target_offset: int, most: int) -> int:
    """Copy up to `most` bytes between files and return how many; a source that has none left raises EOFError."""
    count = 0
    try:
        # Within the kernel, and on some file systems by reference.
        count = os.copy_file_range(source, target, most, source_offset, target_offset)
    except (AttributeError, OSError) as error:
        if getattr(error, "errno", errno.ENOSYS) not in _NO_COPY:
            raise
        block = os.pread(source, min(most, 1 << 20), source_offset)
        write_at(target, block, target_offset)
        count = len(block)
    if not count:
        raise EOFError(f"the source ends at {source_offset}")
    return count


def read_small(path: Path) -> str:
    """Return the text of a small file, or '' if it is not there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        return os.read(descriptor, 256).decode("ascii", errors="replace")
    finally:
        os.close(descriptor)
