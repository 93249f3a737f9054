"""What every store promises of uploads that are appended to: one suite, run for each store in a list of factories."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appended import Service, age, check_index, check_nothing_left, markers, new_record, piece, put
from faults import config
from upload_helper import (
    ChecksumMismatchError,
    IncompleteError,
    NotFoundError,
    StorageError,
    SupersededError,
    TooLargeError,
)
from upload_helper.errors import FinishedError, LengthMismatchError, OffsetMismatchError
from upload_helper.stores import LocalStore, appending, local
from upload_helper.stores.files import UploadFolder
from upload_helper.upload import UNKNOWN_SIZE, State

DATA = random.Random(21).randbytes(20_011)
SIZE = len(DATA)
WRONG = bytes(byte ^ 1 for byte in DATA)


def local_store(folder: Path, **settings: Any) -> LocalStore:
    return LocalStore(config(folder, **settings))


@pytest.fixture(params=[pytest.param(local_store, id="local")])
def make_store(request, folder):
    """Return a function that opens the same store anew, as another process would, with the settings given."""
    return lambda **settings: request.param(folder, **settings)


@pytest.fixture
def store(make_store):
    return make_store()


@pytest.fixture
def upload(store):
    return store.create(new_record(SIZE))[0]


@pytest.fixture
def endless(store):
    """Return an upload of unknown size."""
    return store.create(new_record())[0]


def content(store, uid: str) -> bytes:
    finished, _ = store.finish(uid)
    return Path(store.path(finished)).read_bytes()


def standing(store, uid: str) -> tuple[int, bool]:
    progress = store.progress(uid)
    return progress.received_bytes, progress.complete


# Appending


@pytest.mark.parametrize("durability", ["none", "finish", "chunk"])
@pytest.mark.parametrize("block", [13, 1 << 18], ids=["small blocks", "at once"])
@pytest.mark.parametrize("hold", [True, False], ids=["held", "not held"])
@pytest.mark.parametrize("size", [SIZE, UNKNOWN_SIZE], ids=["size", "no size"])
def test_pieces_one_after_the_other_make_the_file(make_store, folder, durability, block, hold, size):
    store = make_store(durability=durability)
    upload, _ = store.create(new_record(size))
    cuts = [0, 1, 5000, 5000, 19_999, SIZE]
    for start, end in itertools.pairwise(cuts):
        last = True if end == SIZE and size == UNKNOWN_SIZE else None
        progress = put(
            make_store(durability=durability), upload, start, DATA[start:end], hold=hold, complete=last, block=block
        )
        assert (progress.received_bytes, progress.complete) == (end, end == SIZE)
    assert progress.pieces == 5
    finished, by_us = store.finish(upload.uid)
    assert (finished.total_size, finished.state, by_us) == (SIZE, State.FINISHED, True)
    assert content(store, upload.uid) == DATA
    check_index(folder)


def test_what_was_written_is_kept_without_a_commit(make_store, upload):
    with make_store().appender(upload, 0, hold=False, complete=None) as appender:
        for start in range(0, 5000, 1000):
            appender.write(DATA[start : start + 1000])
            assert standing(make_store(), upload.uid) == (start + 1000, False)
    assert standing(make_store(), upload.uid) == (5000, False)
    assert put(make_store(), upload, 5000, DATA[5000:]).complete
    assert content(make_store(), upload.uid) == DATA


def test_what_is_held_counts_when_it_is_committed_and_else_never(make_store, upload):
    with make_store().appender(upload, 0, hold=True, complete=None) as appender:
        appender.write(WRONG)
        assert standing(make_store(), upload.uid) == (0, False)
    assert standing(make_store(), upload.uid) == (0, False)
    with make_store().appender(upload, 0, hold=True, complete=None) as appender:
        appender.write(DATA)
        assert standing(make_store(), upload.uid) == (0, False)
        assert appender.commit().complete
    assert content(make_store(), upload.uid) == DATA


def test_block_may_change_after_it_was_written(store, upload):
    with store.appender(upload, 0, hold=False, complete=None) as appender:
        block = bytearray(5003)
        for start in range(0, SIZE, 5003):
            count = len(DATA[start : start + 5003])
            block[:count] = DATA[start : start + 5003]
            appender.write(memoryview(block)[:count])
            block[:] = bytes(5003)
    assert content(store, upload.uid) == DATA


@pytest.mark.parametrize(
    ("size", "sent", "complete", "ends"),
    [
        (SIZE, SIZE, None, True),
        (SIZE, SIZE - 1, None, False),
        (SIZE, SIZE, False, False),
        (SIZE, SIZE, True, True),
        (UNKNOWN_SIZE, SIZE, None, False),
        (UNKNOWN_SIZE, SIZE, False, False),
        (UNKNOWN_SIZE, SIZE, True, True),
        (UNKNOWN_SIZE, 0, True, True),
        (UNKNOWN_SIZE, 0, None, False),
        (0, 0, None, True),
        (0, 0, False, False),
        (0, 0, True, True),
    ],
)
@pytest.mark.parametrize("hold", [True, False], ids=["held", "not held"])
def test_file_is_complete_when_the_protocol_says_so(make_store, size, sent, complete, ends, hold):
    upload, _ = make_store().create(new_record(size))
    assert put(make_store(), upload, 0, DATA[:sent], hold=hold, complete=complete).complete is ends
    assert standing(make_store(), upload.uid) == (sent, ends)
    if not ends:
        with pytest.raises(IncompleteError):
            make_store().finish(upload.uid)
        assert put(make_store(), upload, sent, DATA[sent : max(size, 0)], complete=True).complete
    assert content(make_store(), upload.uid) == DATA[: max(size, sent)]


@pytest.mark.parametrize("offset", [-1, 4999, 5001, SIZE, 2**63])
def test_another_offset_is_refused_and_changes_nothing(make_store, upload, offset):
    with make_store().appender(upload, 0, hold=False, complete=None) as running:
        running.write(DATA[:5000])
        with pytest.raises(OffsetMismatchError) as caught:
            put(make_store(), upload, offset, WRONG[:10])
        assert (caught.value.expected, caught.value.provided) == (5000, offset)
        # Nor is the one taken over that is right.
        running.write(DATA[5000:])
        assert running.commit().complete
    assert content(make_store(), upload.uid) == DATA


def test_more_than_the_file_has_is_refused_and_what_fits_stays(make_store, upload):
    with make_store().appender(upload, 0, hold=False, complete=None) as appender:
        appender.write(DATA[:20_000])
        with pytest.raises(TooLargeError):
            appender.write(DATA[20_000:] + b"x")
    assert standing(make_store(), upload.uid) == (20_000, False)
    put(make_store(), upload, 20_000, DATA[20_000:])
    assert content(make_store(), upload.uid) == DATA


@pytest.mark.parametrize("hold", [True, False])
def test_complete_file_of_another_size_is_refused(make_store, upload, hold):
    with pytest.raises(LengthMismatchError):
        put(make_store(), upload, 0, DATA[:500], complete=True, hold=hold)
    assert standing(make_store(), upload.uid) == (0 if hold else 500, False)


@pytest.mark.parametrize("finished", [True, False])
def test_complete_upload_takes_nothing_more(make_store, upload, finished):
    put(make_store(), upload, 0, DATA)
    if finished:
        make_store().finish(upload.uid)
    for again in (upload, make_store().read(upload.uid)):
        with pytest.raises(FinishedError):
            put(make_store(), again, SIZE, b"")
        with pytest.raises(OffsetMismatchError):
            put(make_store(), again, 0, WRONG)
    assert content(make_store(), upload.uid) == DATA


def test_appender_of_an_unknown_upload_is_not_found_and_makes_nothing(make_store, folder):
    with pytest.raises(NotFoundError):
        make_store().appender(new_record(5), 0, hold=False, complete=None)
    for ask in (lambda s: s.take_over(new_record().uid), lambda s: s.declare(new_record(5), 0)):
        with pytest.raises(NotFoundError):
            ask(make_store())
    assert not folder.exists()


# Taking over


def begin_hanging(store, upload, *, hold: bool, complete: bool | None = None):
    hanging = store.appender(upload, 0, hold=hold, complete=complete)
    hanging.__enter__()
    hanging.write(DATA[:3000])
    return hanging


def take_over(store, upload, offset):
    assert store.take_over(upload.uid).received_bytes == offset


def declare(store, upload, offset):
    store.declare(replace(upload, total_size=SIZE), offset)


def newer_appender(store, upload, offset):
    with store.appender(upload, offset, hold=False, complete=None):
        pass


def newer_bytes(store, upload, offset):
    put(store, upload, offset, DATA[offset : offset + 100])


TAKING_OVER = [take_over, declare, newer_appender, newer_bytes]


def snapshot(folder: Path, uid: str) -> Any:
    files = {path.name: path.read_bytes() for path in (folder / uid).iterdir() if path.name != "data"}
    return files, (folder / uid / "data").stat().st_size, markers(folder)


@pytest.mark.parametrize("take", TAKING_OVER)
@pytest.mark.parametrize("size", [SIZE, UNKNOWN_SIZE], ids=["size", "no size"])
@pytest.mark.parametrize("hold", [True, False], ids=["held", "not held"])
@pytest.mark.parametrize("act", ["write", "write much", "commit", "copy"])
def test_hanging_request_can_change_nothing_any_more(make_store, folder, monkeypatch, take, size, hold, act):
    # So that much would have to reserve more.
    monkeypatch.setattr(local, "_RESERVE_STEP", 4096)
    store = make_store()
    upload, _ = store.create(new_record(size))
    hanging = begin_hanging(make_store(), upload, hold=hold)
    take(make_store(), upload, 0 if hold else 3000)
    before = snapshot(folder, upload.uid)
    with pytest.raises(SupersededError):
        if act == "commit":
            hanging.commit()
        elif act == "copy":
            with (folder / upload.uid / "chunks").open("rb") as source:
                hanging.copy(source.fileno(), 10)
        else:
            hanging.write(WRONG[: 5 if act == "write" else 10_000])
    hanging.__exit__()
    assert snapshot(folder, upload.uid) == before
    offset = store.progress(upload.uid).received_bytes
    put(store, store.read(upload.uid), offset, DATA[offset:], complete=True)
    assert content(store, upload.uid) == DATA
    check_index(folder)


def test_bytes_that_an_older_request_held_do_not_shine_through(make_store, upload):
    hanging = make_store().appender(upload, 0, hold=True, complete=None)
    with hanging:
        hanging.write(WRONG)
        put(make_store(), upload, 0, DATA[:100])
        with pytest.raises(SupersededError):
            hanging.commit()
    put(make_store(), upload, 100, DATA[100:])
    assert content(make_store(), upload.uid) == DATA


def test_taking_over_a_finished_upload_writes_nothing(make_store, folder, upload):
    put(make_store(), upload, 0, DATA)
    make_store().finish(upload.uid)
    age(folder, upload.uid)
    before = snapshot(folder, upload.uid)
    assert make_store().take_over(upload.uid).complete
    assert snapshot(folder, upload.uid) == before
    assert make_store().last_write(upload.uid) < time.time() - 1000


def test_many_who_go_on_at_once_make_the_right_file(make_store, folder, monkeypatch):
    monkeypatch.setattr(local, "_RESERVE_STEP", 1024)
    upload, _ = make_store().create(new_record())
    barrier = threading.Barrier(4)

    def act(number: int) -> None:
        chance = random.Random(number)
        store = make_store()
        barrier.wait()
        while True:
            with suppress(SupersededError, OffsetMismatchError):
                offset = store.progress(upload.uid).received_bytes
                if chance.random() < 0.3:
                    offset = store.take_over(upload.uid).received_bytes
                if offset == SIZE:
                    return
                hold = chance.random() < 0.3
                wrong = hold and chance.random() < 0.5
                with store.appender(upload, offset, hold=hold, complete=False) as appender:
                    for _ in range(chance.randrange(1, 6)):
                        block = chance.randrange(1, 300)
                        appender.write((WRONG if wrong else DATA)[offset : offset + block])
                        offset = min(offset + block, SIZE)
                    if not wrong:
                        appender.commit()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(act, range(4)))
    assert put(make_store(), upload, SIZE, b"", complete=True).complete
    assert content(make_store(), upload.uid) == DATA
    check_index(folder)


# Declaring


def test_declared_size_and_name_are_kept(make_store, folder):
    endless, _ = make_store().create(new_record(file_name="unnamed"))
    put(make_store(), endless, 0, DATA[:100])
    declared = make_store().declare(replace(endless, total_size=SIZE, file_name="a.tif"), 100)
    assert (declared.total_size, declared.file_name) == (SIZE, "a.tif")
    assert make_store().read(endless.uid) == declared
    assert make_store().declare(declared, 100) == declared
    check_index(folder)
    assert put(make_store(), declared, 100, DATA[100:]).complete
    assert content(make_store(), endless.uid) == DATA


@pytest.mark.parametrize(
    ("size", "offset", "error"),
    [
        (SIZE, 99, OffsetMismatchError),
        (SIZE, 101, OffsetMismatchError),
        (99, 100, LengthMismatchError),
        (0, 100, LengthMismatchError),
    ],
)
def test_wrong_declaration_changes_nothing(make_store, folder, endless, size, offset, error):
    with make_store().appender(endless, 0, hold=False, complete=None) as running:
        running.write(DATA[:100])
        before = snapshot(folder, endless.uid)
        with pytest.raises(error):
            make_store().declare(replace(endless, total_size=size), offset)
        assert snapshot(folder, endless.uid) == before
        running.write(DATA[100:200])
    assert standing(make_store(), endless.uid) == (200, False)


def test_another_size_than_declared_is_refused(make_store, endless):
    make_store().declare(replace(endless, total_size=SIZE), 0)
    for size in (SIZE - 1, SIZE + 1, 0):
        with pytest.raises(LengthMismatchError):
            make_store().declare(replace(endless, total_size=size), 0)
    assert make_store().read(endless.uid).total_size == SIZE


def test_of_two_who_declare_at_once_one_wins(make_store, folder):
    for turn in range(10):
        upload, _ = make_store().create(new_record())
        barrier = threading.Barrier(4)

        def act(number: int, upload: Any = upload, barrier: threading.Barrier = barrier) -> int | None:
            store = make_store()
            barrier.wait()
            try:
                return store.declare(replace(upload, total_size=100 + number % 2), 0).total_size
            except LengthMismatchError:
                return None

        with ThreadPoolExecutor(4) as pool:
            answers = [size for size in pool.map(act, range(4)) if size is not None]
        assert len(answers) == 2, turn
        assert set(answers) == {make_store().read(upload.uid).total_size}
    check_index(folder)


def test_two_who_declare_other_things_at_once_both_win(make_store):
    # Both have read the record before either declares. The name that stands for none is "unnamed".
    upload, _ = make_store().create(new_record(file_name="unnamed"))
    other, _ = make_store().create(new_record(file_name="unnamed"))
    named, sized = {"file_name": "a.tif"}, {"total_size": SIZE}
    for one, members in ((upload, (named, sized)), (other, (sized, named))):
        for added in members:
            make_store().declare(replace(one, **added), 0)
        declared = make_store().read(one.uid)
        assert (declared.file_name, declared.total_size) == ("a.tif", SIZE)


def test_complete_upload_has_its_size(make_store, endless):
    put(make_store(), endless, 0, DATA[:100], complete=True)
    for size in (99, 101, SIZE):
        with pytest.raises(LengthMismatchError):
            make_store().declare(replace(endless, total_size=size), 100)
    assert content(make_store(), endless.uid) == DATA[:100]


@pytest.mark.parametrize("sent", [SIZE - 5000, SIZE - 5000 + 1, 12_000])
def test_appender_that_knew_no_size_keeps_to_the_declared_one(make_store, endless, sent):
    put(make_store(), endless, 0, DATA[:5000])
    stale = make_store().read(endless.uid)
    make_store().declare(replace(stale, total_size=SIZE), 5000)
    long = DATA[5000:] + b"beyond the end"
    with suppress(TooLargeError):
        put(make_store(), stale, 5000, long[:sent], block=100)
    offset, done = standing(make_store(), endless.uid)
    assert offset <= SIZE
    assert done is (offset == SIZE)
    if not done:
        put(make_store(), make_store().read(endless.uid), offset, DATA[offset:])
    assert content(make_store(), endless.uid) == DATA


def test_declared_size_frees_the_room_that_was_reserved_before(make_store, folder, endless):
    put(make_store(), endless, 0, DATA[:1])
    assert make_store().read(endless.uid).reserved > SIZE
    make_store().declare(replace(endless, total_size=SIZE), 1)
    check_index(folder)


# Copying


@pytest.fixture(params=["kernel", "by hand"])
def copying(request, monkeypatch):
    monkeypatch.setattr(appending, "_COPY_STEP", 700)
    if request.param == "by hand":

        def refuse(*args: Any) -> int:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

        monkeypatch.setattr(os, "copy_file_range", refuse)


@pytest.mark.usefixtures("copying")
def test_files_are_copied_one_behind_the_other(make_store, tmp_path):
    upload, _ = make_store().create(new_record(SIZE))
    for number, end in enumerate((0, 1, 700, 5000)):
        (tmp_path / str(number)).write_bytes(DATA[:end])
    parts = [5000, 0, 700, 1, 5000, 5000, SIZE - 15_701 - 0]
    (tmp_path / "rest").write_bytes(DATA[: parts[-1]])
    with make_store().appender(upload, 0, hold=False, complete=None) as appender:
        for length in parts:
            source = next(path for path in tmp_path.iterdir() if path.is_file() and path.stat().st_size == length)
            with source.open("rb") as file:
                appender.copy(file.fileno(), length)
        assert appender.commit().complete
    assert content(make_store(), upload.uid) == b"".join(DATA[:length] for length in parts)


@pytest.mark.usefixtures("copying")
@pytest.mark.parametrize("end", ["taken over", "deleted"])
def test_copying_stops_when_the_upload_is_taken_over_or_deleted(make_store, tmp_path, monkeypatch, end):
    upload, _ = make_store().create(new_record(SIZE))
    (tmp_path / "source").write_bytes(DATA)
    copy, steps = appending.copy_some, []

    def copy_and_count(*args: Any) -> int:
        steps.append(args)
        return copy(*args)

    def keep_safe(self: Any, header: Any) -> None:
        if len(steps) == 3:
            make_store().take_over(upload.uid) if end == "taken over" else make_store().delete(upload.uid)

    monkeypatch.setattr(appending, "copy_some", copy_and_count)
    monkeypatch.setattr(appending.AppendWriter, "_keep_safe", keep_safe)
    with (
        (tmp_path / "source").open("rb") as file,
        make_store().appender(upload, 0, hold=False, complete=None) as appender,
        pytest.raises(SupersededError if end == "taken over" else NotFoundError),
    ):
        appender.copy(file.fileno(), SIZE)
    assert len(steps) == 3


# Finishing


def test_upload_of_unknown_size_keeps_no_room_that_it_does_not_need(make_store, folder, endless):
    put(make_store(), endless, 0, DATA, complete=True)
    assert (folder / endless.uid / "data").stat().st_size > SIZE
    finished, _ = make_store().finish(endless.uid)
    assert (finished.total_size, (folder / endless.uid / "data").stat().st_size) == (SIZE, SIZE)
    assert (folder / endless.uid / "data").stat().st_blocks * 512 <= SIZE + 8192
    make_store().check(finished)
    check_index(folder)


@pytest.mark.parametrize("size", [SIZE, UNKNOWN_SIZE, 0])
def test_wrong_checksum_means_all_over_again(make_store, folder, size):
    right = DATA[: SIZE if size else 0]
    checksum = f"sha256:{hashlib.sha256(right).hexdigest()}"
    upload, _ = make_store().create(new_record(max(size, -1) if size else UNKNOWN_SIZE, checksum=checksum))
    for wrong in (WRONG, WRONG[:100], b"x") if upload.total_size == UNKNOWN_SIZE else (WRONG, WRONG):
        put(make_store(), upload, 0, wrong, complete=True)
        with pytest.raises(ChecksumMismatchError):
            make_store().finish(upload.uid)
        assert standing(make_store(), upload.uid) == (0, False)
        check_index(folder)
    put(make_store(), upload, 0, right, complete=True)
    assert content(make_store(), upload.uid) == right
    check_index(folder)


def test_empty_file_with_a_wrong_checksum_is_never_finished(make_store):
    upload, _ = make_store().create(new_record(0, checksum="md5:" + 32 * "0"))
    for _ in range(2):
        put(make_store(), upload, 0, b"")
        with pytest.raises(ChecksumMismatchError):
            make_store().finish(upload.uid)
        assert standing(make_store(), upload.uid) == (0, False)
        with pytest.raises(IncompleteError):
            make_store().finish(upload.uid)


def test_one_of_eight_finishes(make_store, endless):
    put(make_store(), endless, 0, DATA, complete=True)
    barrier = threading.Barrier(8)

    def finish(_: int) -> bool:
        store = make_store()
        barrier.wait()
        return store.finish(endless.uid)[1]

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(finish, range(8))) == 1
    assert content(make_store(), endless.uid) == DATA


def test_appender_that_wrote_the_last_byte_may_commit_after_somebody_else_has_finished(make_store, upload):
    with make_store().appender(upload, 0, hold=False, complete=None) as appender:
        appender.write(DATA)
        make_store().finish(upload.uid)
        assert appender.commit().complete
    assert make_store().read(upload.uid).state is State.FINISHED
    assert content(make_store(), upload.uid) == DATA


# Deleting and sweeping


@pytest.mark.parametrize("act", ["write", "extend", "commit", "take over", "declare"])
@pytest.mark.parametrize("how", ["delete", "sweep"])
def test_writer_of_a_deleted_upload_finds_out_and_revives_nothing(make_store, folder, monkeypatch, act, how):
    store = make_store()
    upload, _ = store.create(new_record())
    hanging = begin_hanging(make_store(), upload, hold=False)
    if how == "delete":
        store.delete(upload.uid)
    else:
        age(folder, upload.uid)
        assert store.delete_expired(upload.uid, time.time() - 60) is not None
    with pytest.raises(NotFoundError):
        {
            "write": lambda: hanging.write(DATA[3000:3010]),
            "extend": lambda: hanging.write(bytes(17 << 20)),
            "commit": hanging.commit,
            "take over": lambda: make_store().take_over(upload.uid),
            "declare": lambda: make_store().declare(replace(upload, total_size=SIZE), 3000),
        }[act]()
    hanging.__exit__()
    check_nothing_left(folder, monkeypatch, clean=False)


def test_appender_of_an_upload_that_is_deleted_before_it_begins_finds_out(make_store, upload):
    appender = make_store().appender(upload, 0, hold=False, complete=None)
    make_store().delete(upload.uid)
    with pytest.raises(NotFoundError):
        appender.__enter__()


@pytest.mark.parametrize("act", ["extend", "declare"])
def test_upload_that_is_deleted_while_another_waits_for_its_lock_is_not_counted_again(
    make_store, folder, monkeypatch, act
):
    store, other = make_store(), make_store()
    upload, _ = store.create(new_record())
    hold, forget, late = store._locks.hold, other._forget, []
    monkeypatch.setattr(other, "_forget", lambda *args: late.append(args))

    def delete_before(name: str, **how: Any) -> Any:
        if not late:
            other.delete(upload.uid)
        return hold(name, **how)

    with store.appender(upload, 0, hold=False, complete=None) as hanging:
        monkeypatch.setattr(store._locks, "hold", delete_before)
        with pytest.raises(NotFoundError):
            hanging.write(DATA) if act == "extend" else store.declare(replace(upload, total_size=SIZE), 0)
    # What a deletion does after it has let go of the lock.
    for args in late:
        forget(*args)
    assert markers(folder) == {}
    check_nothing_left(folder, monkeypatch, clean=False)


def test_block_between_the_look_and_the_mark_saves_the_upload(make_store, folder, monkeypatch, upload):
    appender = begin_hanging(make_store(), upload, hold=False)
    age(folder, upload.uid)
    look, looks = UploadFolder.last_write, []

    def look_and_write(self: UploadFolder) -> float:
        seen = look(self)
        if not looks:
            appender.write(DATA[3000:4000])
        looks.append(seen)
        return seen

    monkeypatch.setattr(UploadFolder, "last_write", look_and_write)
    assert make_store().delete_expired(upload.uid, time.time() - 1000) is None
    assert len(looks) == 2
    monkeypatch.undo()
    appender.write(DATA[4000:])
    assert appender.commit().complete
    appender.__exit__()
    assert content(make_store(), upload.uid) == DATA


@pytest.mark.parametrize("act", ["block", "held block", "take over", "empty piece", "declare", "finish"])
def test_whatever_a_client_does_puts_the_expiry_off(make_store, folder, endless, act):
    store = make_store()
    put(store, endless, 0, DATA, complete=act == "finish")
    upload = store.read(endless.uid)
    age(folder, upload.uid)
    if act == "finish":
        store.finish(upload.uid)
    elif act == "take over":
        store.take_over(upload.uid)
    elif act == "declare":
        store.declare(replace(upload, total_size=SIZE + 5), SIZE)
    else:
        with store.appender(upload, SIZE, hold=act == "held block", complete=None) as appender:
            appender.write(b"" if act == "empty piece" else b"x")
    assert store.last_write(upload.uid) == pytest.approx(time.time(), abs=60)


# Old records, identifiers


def test_record_of_an_older_version_can_still_be_read(make_store, folder):
    service = Service(folder)
    store = make_store()
    old, _ = store.create(replace(new_record(10, identifier="id"), chunk_count=2))
    path = folder / old.uid / "upload.json"
    members = json.loads(path.read_text())
    for name in ("metadata", "concat", "reserved"):
        del members[name]
    path.write_text(json.dumps(members))
    assert store.read(old.uid) == old == store.find(old)
    with pytest.raises(IncompleteError):
        service.position(old.uid, "ann")
    with pytest.raises(IncompleteError):
        service.append(old.uid, piece(0, b"12345"), "ann")
    for number, part in enumerate((b"12345", b"67890")):
        with store.writer(old, number, 5) as writer:
            writer.write(part)
            writer.commit()
    assert content(store, old.uid) == b"1234567890"
    position = service.position(old.uid, "ann")
    assert (position.offset, position.complete, position.metadata, position.concat) == (10, True, "", "")


@pytest.mark.parametrize("anew", [True, False])
def test_identifier_finds_an_upload_whatever_its_size(make_store, anew):
    first, _ = make_store().create(new_record(identifier="id"))
    make_store().declare(replace(first, total_size=SIZE), 0)
    wanted = new_record(7, identifier="id")
    assert make_store().find(wanted) == make_store().read(first.uid)
    made, created = make_store().create(wanted, anew=anew)
    assert (made.uid, created) == ((wanted.uid, True) if anew else (first.uid, False))
    assert make_store().find(new_record(identifier="id")).uid == made.uid
    # The one that was replaced does not take the identifier with it.
    make_store().delete(first.uid)
    assert (make_store().find(wanted) is None) is not anew


def test_chunked_and_appended_uploads_of_one_identifier_are_two(make_store):
    chunked = replace(new_record(10, identifier="id"), chunk_count=1)
    appended = new_record(10, identifier="id")
    assert make_store().create(chunked) == (chunked, True)
    assert make_store().create(appended) == (appended, True)
    assert make_store().find(chunked) == chunked


def test_planted_link_is_followed_nowhere(make_store, folder, tmp_path, upload):
    (tmp_path / "victim").write_bytes(b"precious")
    (folder / upload.uid / "data").unlink()
    (folder / upload.uid / "data").symlink_to(tmp_path / "victim")
    with pytest.raises(StorageError):
        put(make_store(), upload, 0, DATA)
    assert (tmp_path / "victim").read_bytes() == b"precious"
