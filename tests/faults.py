"""Faults for the tests: children that die at a chosen system call, a disk that loses power, a disk that is full."""

from __future__ import annotations

import errno
import http.client
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from flask import Flask

from host import app as plain_app
from upload_helper import upload_finished
from upload_helper.config import Config, Durability
from upload_helper.stores import room, table
from upload_helper.upload import Record, new_uid

# Every call by which the store, pathlib, shutil and filelock change a folder. `os.open` counts only when it creates.
CHANGING = (
    "open", "pwrite", "write", "rename", "replace", "link", "unlink", "remove", "mkdir", "rmdir", "ftruncate",
    "fsync", "fdatasync", "utime", "copy_file_range",
)  # fmt: skip
_SURVIVED, _FAILED = 0, 70


def config(folder: Path, **settings: Any) -> Config:
    """Return settings for a store of its own, without the margins that real disks need."""
    chosen = {"min_free_space": 0, "durability": "none", **settings}
    return Config(**{**chosen, "folder": folder, "durability": Durability(chosen["durability"])})


def record(data: bytes, count: int, **members: Any) -> Record:
    """Return the record of a new upload."""
    return Record(**{
        "uid": new_uid(), "owner": "ann", "file_name": "f.bin", "total_size": len(data), "chunk_count": count,
        "created": 1.0, **members,
    })  # fmt: skip


def put(store: Any, upload: Record, number: int, content: bytes, *, known: bool = True, block: int = 1 << 18) -> bool:
    """Send one chunk through a writer in blocks; return what commit returned."""
    with store.writer(upload, number, len(content) if known else None) as writer:
        for start in range(0, len(content), block):
            writer.write(content[start : start + block])
        return writer.commit()


def missing_numbers(progress: Any) -> list[int]:
    """Return the numbers of all missing chunks."""
    return [number for first, last in progress.missing for number in range(first, last + 1)]


def complete(store: Any, upload: Record, parts: list[bytes], **how: Any) -> bytes:
    """Send what is missing, finish, and return the bytes of the file."""
    for number in missing_numbers(store.progress(upload.uid)):
        put(store, upload, number, parts[number], **how)
    finished, _ = store.finish(upload.uid)
    return Path(store.path(finished)).read_bytes()


@contextmanager
def memory_folder(fallback: Path) -> Iterator[Path]:
    """Yield a folder in memory, where syncing costs nothing; `fallback` where the system has none."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK | os.X_OK):
        yield fallback
        return
    with tempfile.TemporaryDirectory(dir=memory) as path:
        yield Path(path)


class _Doom:
    """Counts changing calls, and kills the process at one of them."""

    def __init__(self, at: int, *, torn: bool) -> None:
        self._left = at
        self._torn = torn

    def install(self) -> None:
        for name in CHANGING:
            setattr(os, name, self._wrap(name, getattr(os, name)))

    def _wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if name == "open" and not (args[1] & os.O_CREAT):
                return call(*args, **kwargs)
            if self._left == 0:
                # The kernel may be interrupted between the pages of one write, never within one.
                if self._torn and name == "pwrite" and len(args[1]) > 8192:
                    call(args[0], bytes(args[1])[: len(args[1]) // 8192 * 4096], *args[2:])
                os.kill(os.getpid(), signal.SIGKILL)
            self._left -= 1
            return call(*args, **kwargs)

        return wrapped


def die_at(number: int, operation: Callable[[], object], *, torn: bool = False) -> bool:
    """Do an operation in a child that is killed right before its changing call `number`; say whether it was.

    With `torn`, the call is a write and half of it is done.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        status = _FAILED
        try:
            _Doom(number, torn=torn).install()
            operation()
            status = _SURVIVED
        except BaseException:  # noqa: BLE001 - the child must not return into pytest
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == _SURVIVED, "the operation failed in the child; see its traceback"
    return False


class _Death(BaseException):
    """What a call raises that is never made because the process is dead by then."""


def dies_at(number: int, operation: Callable[[], object]) -> bool:
    """Do an operation that stops right before its changing call `number`, and say whether it did.

    No call is made from there on, so that whatever cleans up has no more effect than in a process that is killed. A
    real one, as in ``die_at``, takes a hundred times as long.
    """
    left = number
    real = {
        (module, name): getattr(module, name)
        for module, name in [*((os, name) for name in CHANGING), (room, "reserve")]
    }

    def wrap(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            if name == "open" and not args[1] & os.O_CREAT:
                return call(*args, **kwargs)
            if left <= 0:
                left = -1
                raise _Death
            left -= 1
            return call(*args, **kwargs)

        return wrapped

    try:
        for (module, name), call in real.items():
            setattr(module, name, wrap(name, call))
        with suppress(_Death):
            operation()
    finally:
        for (module, name), call in real.items():
            setattr(module, name, call)
    return left < 0


def counting_app() -> Flask:
    """Return the host for gunicorn; each `upload_finished` adds a line to the file that FINISHED_LOG names."""
    app = plain_app()

    def note(sender: Flask, upload: Any) -> None:
        with open(os.environ["FINISHED_LOG"], "a") as log:
            log.write(f"{upload.uploadUid}\n")

    upload_finished.connect(note, app, weak=False)
    return app


@contextmanager
def other_boot() -> Iterator[None]:
    """Within the block the machine has been started anew."""
    before = table.BOOT_ID
    fresh = random.randbytes(16)
    table.BOOT_ID = fresh
    try:
        yield
    finally:
        table.BOOT_ID = before


class Disk:
    """Remembers what a power cut could leave of a folder while it is watched.

    Of a file each page can be as it was at its last sync or at any write since. Names are journalled: they are as they
    were at some instant since the last time that any directory was synced. Neither syncs the other.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._contents: dict[int, list[bytes]] = {}
        self._names: list[dict[str, int]] = []
        # Kept open, so that the system gives no number to a second file.
        self._files: dict[int, int] = {}
        self.calls: list[tuple[str, str]] = []
        self.after_each_call: Callable[[], object] | None = None

    @contextmanager
    def watched(self) -> Iterator[Disk]:
        """Within the block every changing call is followed, and noted in ``calls`` with the name of its file."""
        real = {name: getattr(os, name) for name in CHANGING}
        reserve = room.reserve
        self._real_open = real["open"]

        def follow(name: str) -> Callable[..., Any]:
            def wrapped(*args: Any, **kwargs: Any) -> Any:
                on_descriptor = name in ("pwrite", "write", "ftruncate", "fsync", "fdatasync", "copy_file_range")
                target = args[1] if name == "copy_file_range" else args[0]
                file = os.readlink(f"/proc/self/fd/{target}") if on_descriptor else str(target)
                result = real[name](*args, **kwargs)
                if not (name == "open" and not args[1] & os.O_CREAT) and not (name == "pwrite" and not result):
                    self.calls.append((name, Path(file).name))
                    self._note(name, target if on_descriptor else result)
                    if self.after_each_call is not None:
                        after, self.after_each_call = self.after_each_call, None
                        after()
                        self.after_each_call = after
                return result

            return wrapped

        def reserve_and_note(descriptor: int, size: int) -> None:
            reserve(descriptor, size)
            self._note("pwrite", descriptor)

        for name in CHANGING:
            setattr(os, name, follow(name))
        room.reserve = reserve_and_note
        try:
            yield self
        finally:
            for name, call in real.items():
                setattr(os, name, call)
            room.reserve = reserve
            for descriptor in self._files.values():
                os.close(descriptor)

    def _note(self, name: str, descriptor: int | None) -> None:
        if name in ("fsync", "fdatasync"):
            assert descriptor is not None
            number = os.fstat(descriptor).st_ino
            if number in self._contents:
                del self._contents[number][:-1]
            else:
                del self._names[:-1]
        elif name in ("pwrite", "write", "ftruncate", "copy_file_range"):
            assert descriptor is not None
            self._note_content(os.fstat(descriptor).st_ino)
        else:
            self._note_names()

    def _note_names(self) -> None:
        names = {}
        for folder, entry in self._entries(""):
            number = entry.inode()
            names[folder + entry.name] = 0 if entry.is_dir() else number
            if entry.is_file() and number not in self._files:
                self._files[number] = self._real_open(entry.path, os.O_RDONLY)
                self._contents[number] = [b""]
        self._names.append(names)
        for number in self._files:
            self._note_content(number)

    def _entries(self, folder: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Yield all that is in a folder and below it, each with the name of its own folder, in order of their names.

        It is asked for after each call; pathlib takes several times as long.
        """
        with suppress(FileNotFoundError), os.scandir(self._root / folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                yield folder, entry
                if entry.is_dir(follow_symlinks=False):
                    yield from self._entries(f"{folder}{entry.name}/")

    def _note_content(self, number: int) -> None:
        descriptor = self._files.get(number)
        if descriptor is None:
            return
        content = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        if content != self._contents[number][-1]:
            self._contents[number].append(content)

    def cut(self, target: Path, chance: random.Random, *, page: int = 4096) -> None:
        """Write what is left after a power cut to a new folder."""
        target.mkdir(parents=True)
        for path, number in chance.choice(self._names or [{}]).items():
            if number == 0:
                (target / path).mkdir()
            else:
                (target / path).write_bytes(self._left(self._contents[number], chance, page))

    @staticmethod
    def _left(versions: list[bytes], chance: random.Random, page: int) -> bytes:
        # The oldest and the newest are the most telling.
        versions = [*versions[:2], chance.choice(versions), *versions[-2:]]
        size = len(chance.choice(versions))
        return b"".join(
            chance.choice(versions)[start : start + page].ljust(min(page, size - start), b"\0")[: size - start]
            for start in range(0, size, page)
        )


class SmallDisk:
    """A file system of eight MiB that a test can fill."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    @contextmanager
    def ready(self) -> Iterator[SmallDisk]:
        """Have the file system for the length of the block."""
        self.path.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", self.path], check=True, capture_output=True)
        try:
            yield self
        finally:
            subprocess.run(["umount", "--lazy", self.path], check=True)

    def room(self) -> int:
        """Return the bytes that are free."""
        disk = os.statvfs(self.path)
        return disk.f_bavail * disk.f_frsize

    def fill(self, leave: int = 0) -> None:
        """Take all room but `leave` bytes."""
        with self._filler.open("ab") as file:
            os.posix_fallocate(file.fileno(), file.tell(), self.room() - leave)

    def free(self) -> None:
        """Give it back."""
        self._filler.unlink()


class FeignedDisk(SmallDisk):
    """A folder in which files can't grow any more: for whoever may not mount a file system."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._limit: int | None = None

    @contextmanager
    def ready(self) -> Iterator[SmallDisk]:
        self.path.mkdir()
        real = {name: getattr(os, name) for name in ("pwrite", "write", "copy_file_range")}
        reserve = room.reserve

        def copy(source: int, target: int, count: int, source_at: int, target_at: int) -> int:
            self._grow(target, target_at + count)
            return real["copy_file_range"](source, target, count, source_at, target_at)

        os.copy_file_range = copy
        os.pwrite = lambda file, data, at: self._grow(file, at + len(data)) or real["pwrite"](file, data, at)
        os.write = lambda file, data: self._grow(file, len(data)) or real["write"](file, data)
        room.reserve = lambda file, size: self._grow(file, size) or reserve(file, size)
        try:
            yield self
        finally:
            os.pwrite, os.write, room.reserve = real["pwrite"], real["write"], reserve
            os.copy_file_range = real["copy_file_range"]

    def room(self) -> int:
        used = sum(_pages(path.stat().st_size) for path in self.path.rglob("*") if path.is_file())
        return (8 << 20 if self._limit is None else self._limit) - used

    def fill(self, leave: int = 0) -> None:
        self._limit = 8 << 20
        self._limit -= self.room() - leave

    def free(self) -> None:
        self._limit = None

    def _grow(self, descriptor: int, size: int) -> None:
        if not os.readlink(f"/proc/self/fd/{descriptor}").startswith(str(self.path)):
            return
        more = _pages(size) - _pages(os.fstat(descriptor).st_size)
        if self._limit is not None and more > 0 and more > self.room():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _pages(size: int) -> int:
    return -(-size // 4096) * 4096


@contextmanager
def small_disk(path: Path) -> Iterator[SmallDisk]:
    """Yield a small disk: a real one, or a feigned one where the system does not let us."""
    with ExitStack() as stack:
        try:
            disk = stack.enter_context(SmallDisk(path).ready())
        except (OSError, subprocess.CalledProcessError):
            shutil.rmtree(path, ignore_errors=True)
            disk = stack.enter_context(FeignedDisk(path).ready())
        yield disk


def chunk_request(values: dict[str, Any], content: bytes, encoding: str, port: int) -> tuple[bytes, bytes]:
    """Return a request with one chunk as it goes over the wire: what is before the content, and the rest."""
    if encoding == "raw":
        path, kind, before, after = f"/uploads?{urlencode(values)}", "application/octet-stream", b"", b""
    else:
        edge = b"--edge\r\nContent-Disposition: form-data; name="
        parts = [edge + f'"{name}"\r\n\r\n{value}\r\n'.encode() for name, value in values.items()]
        before = b"".join(parts) + edge + b'"content"; filename="blob"\r\n\r\n'
        path, kind, after = "/uploads", "multipart/form-data; boundary=edge", b"\r\n--edge--\r\n"
    length = len(before) + len(content) + len(after)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    return head.encode() + before, content + after


def reset(connection: socket.socket) -> None:
    """End a connection as a network that breaks does: with RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class ChunkClient:
    """One connection of a client that sends chunks raw, and connects anew after an error."""

    def __init__(self, port: int, values: dict[str, Any]) -> None:
        self._port = port
        self._values = values
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def close(self) -> None:
        self._connection.close()

    def send(self, number: int, content: bytes) -> tuple[int, dict[str, Any]]:
        """Send a chunk; return the status and the answer. Raises OSError or HTTPException where there is none."""
        path = f"/uploads?{urlencode({**self._values, 'chunkNumber': number})}"
        try:
            self._connection.request("POST", path, content, {"Content-Type": "application/octet-stream"})
            answer = self._connection.getresponse()
            return answer.status, json.loads(answer.read())
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise

    def send_once(self, number: int, content: bytes, encoding: str) -> int:
        """Send a chunk in an encoding, on a connection of its own; return the status."""
        head, tail = chunk_request({**self._values, "chunkNumber": number}, content, encoding, self._port)
        with socket.create_connection(("127.0.0.1", self._port), timeout=60) as connection:
            connection.sendall(head + tail)
            return int(connection.recv(1 << 16).split()[1])

    def insist(self, number: int, content: bytes) -> None:
        """Send a chunk until it is there, as a client does whose own requests may get in each other's way."""
        for _ in range(50):
            try:
                status, answer = self.send(number, content)
            except (OSError, http.client.HTTPException):
                # An answer to a request whose body is not read any more may be lost.
                continue
            if status == 200:
                return
            assert (status, answer["code"]) == (409, "superseded"), answer
        raise AssertionError(f"chunk {number} was never taken")

    def cut(self, number: int, content: bytes, size: int, *, hard: bool) -> None:
        """Send a part of a chunk on a connection of its own, and break it."""
        head, _ = chunk_request({**self._values, "chunkNumber": number}, content, "raw", self._port)
        connection = socket.create_connection(("127.0.0.1", self._port), timeout=60)
        connection.sendall(head + content[:size])
        reset(connection) if hard else connection.close()


def ask(port: int, path: str, values: dict[str, Any] | None = None) -> dict[str, Any]:
    """GET, or POST with values, a JSON resource; return the answer with its status added as ``http``."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        body = None if values is None else json.dumps(values)
        connection.request("POST" if body else "GET", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return {**json.loads(answer.read()), "http": answer.status}
    finally:
        connection.close()
