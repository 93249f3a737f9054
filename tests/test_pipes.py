"""Blocks that wait in a pipe of the kernel."""

from __future__ import annotations

import errno
import os
import resource
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from upload_helper import pipes, splicing
from upload_helper.body import Body, open_body
from upload_helper.errors import BodyCutError, BodyStalledError
from upload_helper.pipes import Pipe, in_memory


@pytest.fixture(autouse=True)
def nothing_refused(monkeypatch):
    monkeypatch.setattr(pipes, "_refused", [])
    monkeypatch.setattr(splicing, "_said", set())


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe.make()
    yield made
    made.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def test_block_goes_to_its_place_in_the_file(pair, pipe, file):
    pair[1].sendall(b"abcdef")
    block = pipe.fill(pair[0].fileno(), 4)
    assert len(block) == 4
    block.move(file, 3)
    assert len(block) == 4
    pipe.fill(pair[0].fileno(), 4).move(file, 7)
    assert os.pread(file, 100, 0) == b"\0\0\0abcdef"


def test_block_can_be_taken_into_memory(pair, pipe):
    pair[1].sendall(b"abcdef")
    assert in_memory(pipe.fill(pair[0].fileno(), 4)) == b"abcd"
    assert in_memory(b"xy") == b"xy"


def test_block_that_was_passed_over_is_not_in_the_next(pair, pipe, file):
    pair[1].sendall(b"abcdef")
    pipe.fill(pair[0].fileno(), 4)
    pipe.fill(pair[0].fileno(), 4).move(file, 0)
    assert os.pread(file, 100, 0) == b"ef"


def test_nothing_there_and_the_end_are_told_apart(pair, pipe):
    pair[0].setblocking(False)
    with pytest.raises(BlockingIOError):
        pipe.fill(pair[0].fileno(), 4)
    pair[1].close()
    assert len(pipe.fill(pair[0].fileno(), 4)) == 0


def test_file_that_can_not_be_spliced_to_is_written_and_the_next_body_read_as_before(pair, pipe, tmp_path):
    # A file that is appended to takes no splice (splice(2), EINVAL), as some file systems do not.
    descriptor = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    pair[1].sendall(b"abcdef")
    assert pipes.why_not() == ""
    pipe.fill(pair[0].fileno(), 6).move(descriptor, 0)
    os.close(descriptor)
    assert (tmp_path / "file").read_bytes() == b"abcdef"
    assert pipes.why_not() == "the file system of the folder has no splice"


def test_full_disk_is_an_error(pair, pipe, file):
    pair[1].sendall(bytes(2000))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            pipe.fill(pair[0].fileno(), 2000).move(file, 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.fstat(file).st_size == 1000


def test_pipes_are_closed(pair):
    before = len(os.listdir("/proc/self/fd"))
    pair[1].sendall(b"abcdef")
    whole = Body(None, 6, 6, splicer=Socket(pair[0]))
    assert [in_memory(block) for block in whole.blocks_for("")] == [b"abcdef"]
    assert len(os.listdir("/proc/self/fd")) == before
    assert whole.was_spliced


def test_block_of_a_closed_pipe_does_not_read_from_who_has_its_number_now(pair):
    pair[1].sendall(b"abcdef")
    pipe = Pipe.make()
    block = pipe.fill(pair[0].fileno(), 6)
    pipe.close()
    others = os.pipe()
    os.write(others[1], b"secret")
    try:
        with pytest.raises(OSError, match="Bad file descriptor"):
            bytes(block)
    finally:
        os.close(others[0])
        os.close(others[1])


def test_without_a_pipe_bytes_go_through_memory(pair, monkeypatch):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    pair[1].sendall(b"abcdef")
    stream = pair[0].makefile("rb")
    whole = Body(stream, 6, 6, splicer=Socket(pair[0]))
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, limits[1]))
    try:
        assert list(whole.blocks_for("")) == [b"abcdef"]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        stream.close()
    assert not whole.was_spliced


def test_pipe_that_is_too_small_is_none(monkeypatch):
    # What a user gets who has many pipes already (pipe(7), pipe-user-pages-soft).
    monkeypatch.setattr(pipes, "PIPE_SIZE", 4096)
    assert Pipe.make() is None


def test_checksum_or_no_splicer_leaves_bytes_in_memory(pair):
    for checksum, splicer in (("md5:00", Socket(pair[0])), ("", None)):
        pair[1].sendall(b"abcdef")
        with pair[0].makefile("rb") as stream:
            assert list(Body(stream, 6, 6, splicer=splicer).blocks_for(checksum)) == [b"abcdef"]


def test_body_that_ends_too_early_is_cut(pair):
    pair[1].sendall(b"abc")
    pair[1].close()
    blocks = Body(None, 6, 6, splicer=Socket(pair[0])).blocks_for("")
    assert in_memory(next(blocks)) == b"abc"
    with pytest.raises(BodyCutError, match="ended after 3 of 6 bytes"):
        next(blocks)


def test_silence_is_noticed_and_ends_the_body(pair):
    reader = Socket(pair[0])
    reader.ready = iter([False, True, False, False])
    pair[0].setblocking(False)
    pair[1].sendall(b"abc")
    blocks = Body(None, 6, 6, timeout=2, splicer=reader).blocks_for("")
    assert [next(blocks) for _ in range(1)] == [b""]
    assert in_memory(next(blocks)) == b"abc"
    assert next(blocks) == b""
    with pytest.raises(BodyStalledError):
        next(blocks)


def test_socket_that_was_said_to_be_ready_and_is_not_is_waited_for(pair):
    reader = Socket(pair[0])
    reader.ready = iter([True, False, False, True])
    pair[0].setblocking(False)
    blocks = Body(None, 3, 3, splicer=reader).blocks_for("")
    assert next(blocks) == b""
    pair[1].sendall(b"abc")
    assert in_memory(next(blocks)) == b"abc"


def test_machine_without_splice_says_so(monkeypatch, caplog):
    monkeypatch.setattr(pipes, "_splice", None)
    assert pipes.why_not() == "this system, or the Python on it, has no splice"
    caplog.set_level("INFO", "upload_helper")
    assert open_body({"CONTENT_LENGTH": "5"}, None, limit=9, timeout=1, splice_from=1).splicer is None
    assert caplog.messages == ["Bodies go through memory: this system, or the Python on it, has no splice."]


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM, errno.EINVAL])
def test_system_that_splices_no_sockets_is_believed_the_first_time(pair, monkeypatch, code):
    def refuse(*arguments: Any, **more: Any) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(pipes, "_splice", refuse)
    pair[1].sendall(b"abcdef")
    with pair[0].makefile("rb") as stream:
        body = Body(stream, 6, 6, splicer=Socket(pair[0]))
        assert list(body.blocks_for("")) == [b"abcdef"]
    assert pipes.why_not() == f"the system splices no sockets ({os.strerror(code)})"


def test_urgent_byte_does_not_keep_anybody_busy():
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()) as theirs,
    ):
        ours, _ = listening.accept()
        with ours:
            ours.setblocking(False)
            theirs.sendall(b"ab")
            theirs.send(b"!", socket.MSG_OOB)
            theirs.sendall(b"cd")
            theirs.shutdown(socket.SHUT_WR)
            blocks = Body(None, 4, 4, splicer=Polled(ours)).blocks_for("")
            assert b"".join(in_memory(block) for block in blocks) == b"abcd"


class Socket:
    """A reader of a socket; `ready` says whether there is something to read, each time that somebody waits."""

    ahead = 0
    ready: Any = iter([])

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def read(self, size: int) -> bytes:
        return self._connection.recv(size)

    def splice(self, pipe: Pipe, size: int) -> Any:
        return pipe.fill(self._connection.fileno(), size)

    def wait(self, seconds: float) -> bool:
        return next(self.ready, True)

    def give_up(self) -> None: ...


def test_disk_that_takes_nothing_is_an_error(pair, pipe, file, monkeypatch):
    # What no test machine has: a file system that neither writes nor says why. The fence must not be held for ever.
    pair[1].sendall(b"abcdef")
    block = pipe.fill(pair[0].fileno(), 6)
    monkeypatch.setattr(pipes, "_splice", lambda *_, **__: 0)
    with pytest.raises(OSError, match="Input/output error"):
        block.move(file, 0)


class Polled(Socket):
    """A reader that finds out itself whether there is something to read."""

    def wait(self, seconds: float) -> bool:
        return bool(select.select([self._connection], [], [], seconds)[0])
