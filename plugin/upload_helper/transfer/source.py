"""The file to send, and how it is noticed that it is not the same file any more."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from .errors import FileChangedError, SourceError

LARGEST_BLOCK = 1 << 17
"""Bytes that are read at once on a fast link."""
_SMALLEST_BLOCK = 16 << 10
_FIRST_BLOCK = 64 << 10
# A block that goes faster than this is followed by a larger one, a slower one by a smaller one.
_FAST_SECONDS, _SLOW_SECONDS = 0.05, 0.5
# The clock of file systems ticks; what is written twice within a tick has the same time.
_TICK_SECONDS = 0.02
# Letters of a path that are shown: of a longer one the end, where the file's name is.
_LONGEST_PATH = 300


@dataclass(frozen=True)
class Fingerprint:
    """By what a file is known again."""

    size: int
    """In bytes."""
    mtime_ns: int
    inode: int

    @classmethod
    def parse(cls, kept: Any) -> Self | None:
        """Read what ``build`` returned; None for anything else."""
        good = isinstance(kept, list) and len(kept) == 3 and all(type(value) is int for value in kept)
        return cls(*kept) if good else None

    def build(self) -> list[int]:
        """Return it as JSON has it."""
        return [self.size, self.mtime_ns, self.inode]


class Source:
    """An open file. Raises SourceError for one that can't be sent, and FileChangedError once it is another one."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with _words_for(self.path):
            # Looked at first: opening a pipe would wait for somebody who writes into it.
            _check_kind(self.path, self.path.stat())
            self._file = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self.fingerprint = _settled(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.close(self._file)

    @property
    def name(self) -> str:
        """The file's name without its folder."""
        return self.path.name

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.fingerprint.size

    def check(self) -> None:
        """Raise FileChangedError if what is on the disk under this name is not what was opened."""
        with _words_for(self.path):
            now = _fingerprint(self.path.stat())
        if now != self.fingerprint:
            raise FileChangedError(f"The file {_named(self.path)} {_difference(self.fingerprint, now)}.")

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the file; raises FileChangedError if it ends before."""
        with _words_for(self.path):
            block = (
                os.pread(self._file, length, offset) if hasattr(os, "pread") else self._seek_and_read(offset, length)
            )
        if not block and length:
            self.check()
            raise FileChangedError(f"The file {_named(self.path)} ends at {offset} of its {self.size} bytes.")
        return block

    def slice(
        self,
        offset: int,
        length: int,
        turn: Callable[[int], None] = lambda _count: None,
        most: Callable[[int], int] = lambda size: size,
    ) -> Slice:
        """Return a part of the file to be sent as a body.

        `turn` is called with the size of each block before it goes; `most` lowers the size that the next one may have.
        """
        return Slice(self, offset, length, turn, most)

    def _seek_and_read(self, offset: int, length: int) -> bytes:
        os.lseek(self._file, offset, os.SEEK_SET)
        return os.read(self._file, length)


class Slice:
    """A part of a file, with the length that a body needs, read in blocks that fit the speed of the link.

    Its last block is handed out only after the file was looked at: a body of a file that has changed never ends well.
    """

    def __init__(
        self, source: Source, offset: int, length: int, turn: Callable[[int], None], most: Callable[[int], int]
    ) -> None:
        self._source = source
        self._offset = offset
        self._length = length
        self._turn = turn
        self._most = most
        self._done = 0
        self._block = _FIRST_BLOCK
        self._asked = 0.0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.read, b"")

    def rewind(self) -> None:
        """Begin again, for a request that is sent a second time."""
        self._done = 0

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, at most `size` of them, b"" at the end."""
        self._fit_block()
        count = min(self._length - self._done, self._most(self._block), size if size >= 0 else self._block)
        if count <= 0:
            return b""
        block = self._source.read(self._offset + self._done, count)
        self._done += len(block)
        self._turn(len(block))
        if self._done == self._length:
            self._source.check()
        self._asked = time.monotonic()
        return block

    def _fit_block(self) -> None:
        if self._asked:
            seconds = time.monotonic() - self._asked
            if seconds < _FAST_SECONDS:
                self._block = min(LARGEST_BLOCK, 2 * self._block)
            elif seconds > _SLOW_SECONDS:
                self._block = max(_SMALLEST_BLOCK, self._block // 2)


def _settled(file: int) -> Fingerprint:
    """Return the fingerprint, at a time when a later write can't leave it as it is."""
    status = os.fstat(file)
    if abs(time.time() - status.st_mtime) < _TICK_SECONDS:
        time.sleep(_TICK_SECONDS)
        status = os.fstat(file)
    return _fingerprint(status)


def _fingerprint(status: os.stat_result) -> Fingerprint:
    return Fingerprint(status.st_size, status.st_mtime_ns, status.st_ino)


def _check_kind(path: Path, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise SourceError(f"{_named(path)} is a folder.", remedy="Send the files in it, or pack it into one file.")
    if not stat.S_ISREG(status.st_mode):
        raise SourceError(f"{_named(path)} is no regular file, so nobody knows its size.")


def _difference(then: Fingerprint, now: Fingerprint) -> str:
    if now.size != then.size:
        return f"has {'grown' if now.size > then.size else 'shrunk'} from {then.size} to {now.size} bytes"
    return "was replaced by another one" if now.inode != then.inode else "was written to"


@contextmanager
def _words_for(path: Path) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise SourceError(f"There is no file {_named(path)}.") from None
    except PermissionError:
        raise SourceError(f"The file {_named(path)} may not be read.") from None
    except (OSError, ValueError) as error:
        raise SourceError(f"The file {_named(path)} cannot be read: {_reason(error)}.") from None


def _named(path: Path) -> str:
    text = str(path)
    return repr(text if len(text) <= _LONGEST_PATH else f"…{text[-_LONGEST_PATH:]}")


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
