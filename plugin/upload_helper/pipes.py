"""Bytes that go from a socket to a file inside the kernel, by way of a pipe (splice(2)), never through our memory."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

# As much as a user may ask for on a system that was left as it is (/proc/sys/fs/pipe-max-size).
PIPE_SIZE = 1 << 20
# What a user gets who has many pipes already; through so small a one the bytes would crawl.
_SMALLEST = 64 << 10

_splice: Callable[..., int] | None = getattr(os, "splice", None)
_F_SETPIPE_SZ: int = getattr(fcntl, "F_SETPIPE_SZ", 0)
_NONBLOCK = getattr(os, "SPLICE_F_NONBLOCK", 2)
# A sandbox that knows no splice, or lets nobody call it.
_NO_SPLICE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)
_refused: list[str] = []


class Piped:
    """A block of a body that waits in a pipe. It can be taken out once: moved to a file, or read with ``bytes``."""

    def __init__(self, descriptor: int, count: int) -> None:
        self._descriptor = descriptor
        self._count = self._left = count

    def __len__(self) -> int:
        return self._count

    def __bytes__(self) -> bytes:
        parts = []
        while self._left:
            part = os.read(self._descriptor, self._left)
            parts.append(part)
            self._left -= len(part)
        return b"".join(parts)

    def forget(self) -> None:
        """Be of no use any more: by then the descriptor's number may stand for somebody else's connection."""
        self._descriptor = -1

    def move(self, file: int, offset: int) -> None:
        """Write all of it to an open file at `offset`.

        Raises OSError when the disk is full or sick; then a part is written, and the rest is lost with the pipe.
        """
        assert _splice is not None  # noqa: S101
        try:
            while self._left:
                done = _splice(self._descriptor, file, self._left, offset_dst=offset)
                if not done:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                self._left -= done
                offset += done
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # A file system that has no splice. What is in the pipe is there still.
            _refused.append("the file system of the folder has no splice")
            block = memoryview(bytes(self))
            while block:
                done = os.pwrite(file, block, offset)
                block = block[done:]
                offset += done


class Pipe:
    """A pipe for the body of one request, and never for a second: what an error leaves in it must not go elsewhere."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write = read, write
        self._block = Piped(read, 0)

    @classmethod
    def make(cls) -> Self | None:
        """Return a new pipe, or None where the system has none left that is of use."""
        try:
            pipe = cls(*os.pipe2(os.O_CLOEXEC))
        except OSError:
            # Too many files are open.
            return None
        with suppress(OSError):
            fcntl.fcntl(pipe._write, _F_SETPIPE_SZ, PIPE_SIZE)
        if fcntl.fcntl(pipe._write, fcntl.F_GETPIPE_SZ) < _SMALLEST:
            pipe.close()
            return None
        return pipe

    def fill(self, source: int, most: int) -> Piped:
        """Take up to `most` bytes that have come on a socket; none at all when the other side has ended.

        Stops as well at a byte that was sent as urgent, which only reading steps over (tcp(7)). Raises BlockingIOError
        when nothing is there, or where the system splices no sockets, which ``why_not`` says from then on; and OSError
        when the connection is broken.
        """
        assert _splice is not None  # noqa: S101
        # Whoever has passed the block before over must not find it at the head of this one.
        bytes(self._block)
        try:
            count = _splice(source, self._write, most, flags=_NONBLOCK)
        except OSError as error:
            if error.errno not in _NO_SPLICE:
                raise
            _refused.append(f"the system splices no sockets ({error.strerror})")
            raise BlockingIOError(*error.args) from error
        self._block = Piped(self._read, count)
        return self._block

    def close(self) -> None:
        """Throw the pipe away with what is in it."""
        self._block.forget()
        os.close(self._read)
        os.close(self._write)


def why_not() -> str:
    """Return why bytes can't go this way on this machine, or an empty text."""
    if _splice is None or not _F_SETPIPE_SZ:
        return "this system, or the Python on it, has no splice"
    return _refused[0] if _refused else ""


Block = bytes | memoryview | Piped
"""Some bytes of a body, valid until the next block is asked for."""


def in_memory(block: Any) -> bytes | memoryview:
    """Return the bytes of a block, taken out of the pipe if they are in one."""
    return bytes(block) if isinstance(block, Piped) else block
