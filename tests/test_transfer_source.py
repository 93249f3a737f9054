"""The file to send: what it is read like, and that it is never sent as another one than it is."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from upload_helper.transfer import source as module
from upload_helper.transfer.errors import FileChangedError, SourceError
from upload_helper.transfer.source import Fingerprint, Source

DATA = random.Random(3).randbytes(3_000_000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "survey.gpkg"
    file.write_bytes(DATA)
    return file


def all_of(body) -> bytes:
    return b"".join(body)


def test_a_slice_has_the_bytes_and_the_length_of_its_part(path):
    with Source(path) as source:
        for offset, length in ((0, len(DATA)), (0, 0), (7, 1), (1_000_000, 2_000_000), (len(DATA), 0)):
            body = source.slice(offset, length)
            assert (len(body), all_of(body)) == (length, DATA[offset : offset + length])


def test_a_slice_can_be_read_a_second_time(path):
    with Source(path) as source:
        body = source.slice(5, 1_000_000)
        body.read()
        body.rewind()
        assert all_of(body) == DATA[5:1_000_005]


def test_a_slice_never_hands_out_more_than_it_is_asked_for(path):
    with Source(path) as source:
        body = source.slice(0, len(DATA))
        assert [len(body.read(size)) for size in (1, 0, 100, 16_384)] == [1, 0, 100, 16_384]


def test_every_block_is_announced_before_it_goes(path):
    seen = []
    with Source(path) as source:
        body = source.slice(0, 500_000, seen.append)
        assert [len(block) for block in body] == seen
        assert sum(seen) == 500_000


def test_blocks_are_no_larger_than_a_limit_of_the_moment(path):
    limits = iter([10, 1000, 100])
    with Source(path) as source:
        body = source.slice(0, 500_000, most=lambda size: next(limits))
        assert [len(body.read()) for _ in range(3)] == [10, 1000, 100]


def test_what_the_announcement_raises_ends_the_reading(path):
    def turn(count: int) -> None:
        raise KeyboardInterrupt

    with Source(path) as source, pytest.raises(KeyboardInterrupt):
        source.slice(0, 10, turn).read()


@pytest.fixture
def timed(monkeypatch):
    """Return a list with the present time in seconds."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_blocks_grow_on_a_fast_link_and_shrink_on_a_slow_one(path, timed):
    with Source(path) as source:
        body = source.slice(0, len(DATA))
        sizes = [len(body.read()) for _ in range(4)]
        for _ in range(8):
            timed[0] += 1
            sizes.append(len(body.read()))
    assert [size >> 10 for size in sizes] == [64, 128, 128, 128, 64, 32, 16, 16, 16, 16, 16, 16]


def test_the_size_of_a_block_stays_below_the_largest(path, timed):
    with Source(path) as source:
        assert max(map(len, source.slice(0, len(DATA)))) <= 1 << 20


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: path.write_bytes(DATA + b"x"), "has grown from 3000000 to 3000001 bytes"),
        (lambda path: os.truncate(path, 2_999_999), "has shrunk from 3000000 to 2999999 bytes"),
        (lambda path: path.write_bytes(DATA[::-1]), "was written to"),
        (lambda path: (path.rename(path.with_name("old")), path.write_bytes(DATA)), "was replaced by another one"),
    ],
    ids=["grown", "shrunk", "written to", "replaced"],
)
def test_the_last_block_of_a_file_that_has_changed_is_not_handed_out(path, change, words):
    with Source(path) as source:
        body = source.slice(0, len(DATA))
        body.read()
        change(path)
        with pytest.raises(FileChangedError, match=words) as caught:
            all_of(body)
        assert caught.value.temporary


def test_a_file_that_shrinks_below_what_is_read_is_no_short_body(path):
    with Source(path) as source:
        os.truncate(path, 1000)
        with pytest.raises(FileChangedError, match="shrunk"):
            source.slice(2000, 10).read()


def test_a_file_that_vanishes_is_an_error(path):
    with Source(path) as source:
        path.unlink()
        with pytest.raises(SourceError, match="There is no file"):
            all_of(source.slice(0, len(DATA)))


def test_a_file_that_was_written_to_just_now_is_looked_at_in_the_next_tick(path, monkeypatch):
    # Many file systems' clocks tick; within a tick a second write leaves the time as it is.
    path.write_bytes(DATA)
    waited, written = [], path.stat().st_mtime
    monkeypatch.setattr(module.time, "time", lambda: written + 0.01)
    monkeypatch.setattr(module.time, "sleep", lambda seconds: waited.append(seconds) or path.write_bytes(b"later"))
    with Source(path) as source:
        source.check()
        assert (source.size, waited) == (5, [0.02])


def test_a_file_that_was_written_before_is_opened_at_once(path, monkeypatch):
    os.utime(path, (time.time() - 60,) * 2)
    monkeypatch.setattr(module.time, "sleep", lambda seconds: pytest.fail("it waits"))
    Source(path).__exit__()


def test_what_is_no_file_is_refused(tmp_path, path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name, words in (
        ("", "is a folder"),
        ("pipe", "no regular file"),
        ("absent", "There is no file"),
        ("survey.gpkg/below", "There is no file"),
        ("loop", "cannot be read"),
        ("x" * 5000, "cannot be read"),
        ("nul\0", "cannot be read"),
    ):
        with pytest.raises(SourceError, match=words) as caught:
            Source(tmp_path / name)
        assert not caught.value.temporary


def test_an_error_names_the_file_however_deep_it_lies(tmp_path):
    with pytest.raises(SourceError, match=r"survey\.gpkg"):
        Source(tmp_path / ("folder/" * 100) / "survey.gpkg")


def test_a_file_that_may_not_be_read_is_refused(path, monkeypatch):
    def refuse(*arguments):
        raise PermissionError(13, "Permission denied")

    # Somebody who is root may read everything.
    monkeypatch.setattr(module.os, "open", refuse)
    with pytest.raises(SourceError, match="may not be read"):
        Source(path)


def test_an_error_of_the_disk_is_none_of_the_network(path, monkeypatch):
    def fail(*arguments):
        raise OSError(5, "Input/output error")

    with Source(path) as source:
        monkeypatch.setattr(module.os, "pread", fail)
        with pytest.raises(SourceError, match="Input/output error"):
            source.slice(0, 10).read()


def test_a_fingerprint_is_kept_as_json_and_nothing_else_is_one(path):
    with Source(path) as source:
        assert Fingerprint.parse(source.fingerprint.build()) == source.fingerprint
    for kept in (None, [], [1, 2], [1, 2, "3"], [1, 2, True], {"size": 1}, "abc"):
        assert Fingerprint.parse(kept) is None
