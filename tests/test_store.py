"""What every store promises: one suite, run for each store in a list of factories."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from faults import complete, config, missing_numbers, put, record
from upload_helper import (
    ChecksumMismatchError,
    ChunkConflictError,
    IncompleteError,
    InvalidRequestError,
    NotFoundError,
    StorageFullError,
    SupersededError,
    TooLargeError,
    TooManyUploadsError,
)
from upload_helper.stores import LocalStore
from upload_helper.stores.files import UploadFolder
from upload_helper.stores.writer import ChunkWriter
from upload_helper.upload import State, new_uid

DATA = random.Random(3).randbytes(4_321)
PARTS = [DATA[i : i + 1000] for i in range(0, len(DATA), 1000)]
UNEVEN = [DATA[:10], DATA[10:2010], DATA[2010:2011], DATA[2011:4000], DATA[4000:]]
# Long enough to be claimed when its writer is opened.
BIG = random.Random(4).randbytes(600 << 10)


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
    return store.create(record(DATA, len(PARTS)))[0]


def everything(folder: Path) -> set[Path]:
    return set(folder.rglob("*")) if folder.exists() else set()


def finish_with(store, upload, parts, **how):
    for number, part in enumerate(parts):
        put(store, upload, number, part, **how)
    return store.finish(upload.uid)[0]


# Creating and finding


def test_what_is_created_can_be_read(make_store, store):
    wanted = record(DATA, 5, owner="bob", identifier="id", file_name="日本 \n.shp", checksum="md5:" + 32 * "0")
    assert store.create(wanted) == (wanted, True)
    assert make_store().read(wanted.uid) == wanted
    assert make_store().last_write(wanted.uid) == pytest.approx(time.time(), abs=60)
    progress = store.progress(wanted.uid)
    assert (progress.received_bytes, progress.missing, progress.chunk_size) == (0, [(0, 4)], None)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({}, True),
        ({"owner": "bob"}, False),
        ({"identifier": "other"}, False),
        ({"identifier": ""}, False),
        ({"file_name": "g.bin"}, False),
        ({"total_size": 4_322}, False),
        ({"chunk_count": 4}, False),
        ({"checksum": "md5:" + 32 * "0"}, True),
        ({"created": 2.0}, True),
    ],
)
def test_identifier_finds_an_upload_of_the_same_owner_name_size_and_count(make_store, other, same):
    first, _ = make_store().create(record(DATA, 5, identifier="id"))
    second = record(DATA, 5, **{"identifier": "id", **other})
    assert make_store().find(second) == (first if same else None)
    assert make_store().create(second) == ((first, False) if same else (second, True))


def test_identifier_of_a_deleted_upload_is_free_again(store):
    first, _ = store.create(record(DATA, 5, identifier="id"))
    store.delete(first.uid)
    assert store.find(first) is None
    second = record(DATA, 5, identifier="id")
    assert store.create(second) == (second, True)
    store.clean()
    assert store.find(first) == second


def test_eight_who_create_at_once_get_one_upload(make_store):
    barrier = threading.Barrier(8)

    def create(_: int) -> tuple[str, bool]:
        store = make_store(max_open_uploads=1)
        barrier.wait()
        made, created = store.create(record(DATA, 5, identifier="id"))
        return made.uid, created

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(create, range(8)))
    assert len({uid for uid, _ in answers}) == 1
    assert sum(created for _, created in answers) == 1
    assert list(make_store().uids()) == [answers[0][0]]


LIMITS = [
    ({"max_open_uploads": 1}, TooManyUploadsError),
    ({"max_owner_bytes": 2 * len(DATA) - 1}, TooLargeError),
    ({"min_free_space": 1 << 60}, StorageFullError),
]


@pytest.mark.parametrize(("settings", "error"), LIMITS)
def test_over_a_limit_nothing_is_made(make_store, folder, settings, error):
    first, _ = make_store().create(record(DATA, 5))
    before = everything(folder)
    with pytest.raises(error):
        make_store(**settings).create(record(DATA, 5, identifier="id"))
    assert everything(folder) == before
    assert list(make_store().uids("ann")) == [first.uid]


@pytest.mark.parametrize(("settings", "error"), LIMITS[:2])
def test_limits_count_each_owner_and_what_is_deleted_no_more(make_store, settings, error):
    store = make_store(**settings)
    first, _ = store.create(record(DATA, 5))
    store.create(record(DATA, 5, owner="bob"))
    with pytest.raises(error):
        store.create(record(DATA, 5))
    store.delete(first.uid)
    store.create(record(DATA, 5))


def test_finished_upload_counts_its_bytes_but_is_not_on_its_way(make_store):
    store = make_store(max_open_uploads=1, max_owner_bytes=2 * len(DATA))
    finish_with(store, store.create(record(DATA, 5))[0], PARTS)
    second, _ = store.create(record(DATA, 5))
    finish_with(store, second, PARTS)
    with pytest.raises(TooLargeError):
        store.create(record(b"x", 1))


def test_uids_are_those_of_all_or_of_one_owner(make_store):
    store = make_store()
    made = {store.create(record(DATA, 5, owner=owner))[0].uid: owner for owner in ("ann", "ann", "bob", "")}
    assert set(make_store().uids()) == set(made)
    for who in ("ann", "bob", "", "eve"):
        assert set(make_store().uids(who)) == {uid for uid, owner in made.items() if owner == who}


UNKNOWN = [new_uid(), "", ".", "..", "x", "٣" * 32, "A" * 32, "../" + 29 * "a", ".owners", 31 * "0" + "\n", 33 * "0"]
ASKING = {
    "read": lambda store, uid: store.read(uid),
    "progress": lambda store, uid: store.progress(uid),
    "finish": lambda store, uid: store.finish(uid),
    "delete": lambda store, uid: store.delete(uid),
    "last_write": lambda store, uid: store.last_write(uid),
    "delete_expired": lambda store, uid: store.delete_expired(uid, time.time()),
}


@pytest.mark.parametrize("fresh", [True, False], ids=["fresh folder", "used folder"])
@pytest.mark.parametrize("name", ASKING)
def test_unknown_uid_is_not_found_and_makes_nothing(make_store, folder, name, fresh):
    store = make_store()
    if not fresh:
        store.create(record(DATA, 5))
    before = everything(folder)
    for uid in UNKNOWN:
        with pytest.raises(NotFoundError):
            ASKING[name](store, uid)
    assert everything(folder) == before


def test_writer_for_an_unknown_upload_is_not_found_and_makes_nothing(make_store, folder):
    with pytest.raises(NotFoundError):
        make_store().writer(record(DATA, 5), 0, 1000)
    assert everything(folder) == set()


# Writing


@pytest.mark.parametrize("known", [True, False], ids=["length", "no length"])
@pytest.mark.parametrize("parts", [PARTS, UNEVEN, [DATA], [b"", DATA]], ids=["even", "uneven", "one", "empty and all"])
@pytest.mark.parametrize("block", [1, 1 << 18], ids=["byte by byte", "at once"])
def test_chunks_in_any_order_make_the_file(make_store, folder, parts, known, block):
    block = 97 if block == 1 else block
    for turn, order in enumerate(itertools.permutations(range(len(parts)))):
        if turn % 17:
            continue
        store = make_store()
        upload, _ = store.create(record(DATA, len(parts)))
        done = [put(store, upload, n, parts[n], known=known, block=block) for n in order]
        assert done == [False] * (len(parts) - 1) + [True]
        finished, by_us = make_store().finish(upload.uid)
        assert by_us
        # Even chunks are in their place from the start, also those whose length only their end told.
        assert Path(store.path(finished)).name == "data" or parts[0] in (UNEVEN[0], b"")
        assert Path(store.path(finished)).read_bytes() == DATA


def test_empty_file_has_one_empty_chunk(store):
    upload, _ = store.create(record(b"", 1))
    with pytest.raises(IncompleteError):
        store.finish(upload.uid)
    assert put(store, upload, 0, b"")
    assert Path(store.path(store.finish(upload.uid)[0])).read_bytes() == b""


@pytest.mark.parametrize("known", [True, False])
def test_progress_tells_what_is_missing(make_store, upload, known):
    for number in (1, 3):
        put(make_store(), upload, number, PARTS[number], known=known)
    progress = make_store().progress(upload.uid)
    assert (progress.received_bytes, progress.chunk_size) == (2000, 1000)
    assert progress.missing == [(0, 0), (2, 2), (4, 4)]


def test_only_commit_acknowledges(make_store, upload):
    store = make_store()
    with store.writer(upload, 1, 1000) as writer:
        writer.write(PARTS[1][:500])
    with store.writer(upload, 2, 1000) as writer:
        writer.write(PARTS[2])
    with store.writer(upload, 3, None) as writer:
        writer.write(PARTS[3])
        assert store.progress(upload.uid).received_bytes == 0
    assert store.progress(upload.uid).missing == [(0, 4)]
    assert complete(store, upload, PARTS) == DATA


def put_declared(store, upload, length, content, block):
    with store.writer(upload, 0, length) as writer:
        for start in range(0, len(content), block):
            writer.write(content[start : start + block])
        writer.commit()


def test_chunk_that_goes_on_after_its_declared_length_is_refused(store, upload):
    with store.writer(upload, 0, 1000) as writer:
        writer.write(DATA[:1000])
        with pytest.raises(InvalidRequestError):
            writer.write(b"x")
    assert store.progress(upload.uid).missing == [(0, 4)]


@pytest.mark.parametrize("sent", [0, 999, 1001])
def test_chunk_of_another_length_than_declared_is_refused(store, upload, sent):
    for block in (1, 500, 2000):
        with pytest.raises(InvalidRequestError):
            put_declared(store, upload, 1000, DATA[:sent], block)
    assert store.progress(upload.uid).missing == [(0, 4)]


@pytest.mark.parametrize("known", [True, False])
def test_more_bytes_than_the_file_has_are_refused(make_store, known):
    store = make_store()
    upload, _ = store.create(record(DATA, 2))
    put(store, upload, 0, DATA[:4000], known=known)
    with pytest.raises(InvalidRequestError):
        put(store, upload, 1, DATA[:400], known=known)
    with pytest.raises(InvalidRequestError):
        put(store, upload, 1, DATA + DATA, known=known)
    put(store, upload, 1, DATA[4000:], known=known)
    assert Path(store.path(store.finish(upload.uid)[0])).read_bytes() == DATA


@pytest.mark.parametrize("parts", [PARTS, UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("finished", [False, True], ids=["on its way", "finished"])
@pytest.mark.parametrize("block", [7, 1 << 18])
def test_chunk_that_is_there_is_compared(make_store, parts, known, finished, block):
    store = make_store()
    upload, _ = store.create(record(DATA, len(parts)))
    for number, part in enumerate(parts if finished else parts[:-1]):
        put(store, upload, number, part)
    if finished:
        store.finish(upload.uid)
        upload = store.read(upload.uid)
    for number in range(4):
        right = parts[number]
        assert put(store, upload, number, right, known=known, block=block) is finished
        for wrong in (right[:-1] + bytes([right[-1] ^ 1]), bytes([right[0] ^ 1]) + right[1:], right[:-1], right + b"x"):
            with pytest.raises(ChunkConflictError):
                put(store, upload, number, wrong, known=known, block=block)
    assert complete(store, upload, parts) == DATA


# A writer that has not got all of its bytes may find that out first.
OUT = (SupersededError, InvalidRequestError)


def open_writer(store, upload, number, length, block):
    writer = store.writer(upload, number, length)
    writer.__enter__()
    if block:
        writer.write(block)
    return writer


@pytest.mark.parametrize("known", [True, False], ids=["length", "no length"])
@pytest.mark.parametrize("regular", [True, False], ids=["regular", "irregular"])
@pytest.mark.parametrize("begun", [0, 1000], ids=["nothing written", "begun"])
def test_newer_writer_takes_over_and_the_older_can_do_nothing(make_store, known, regular, begun):
    parts = [BIG[:300_000], BIG[300_000:]] if regular else [BIG[:310_000], BIG[310_000:590_000], BIG[590_000:]]
    older, newer = make_store(), make_store()
    upload, _ = older.create(record(BIG, len(parts)))
    put(older, upload, 0, parts[0])
    length = len(parts[1]) if known else None
    first = open_writer(older, upload, 1, length, parts[1][:begun])
    second = open_writer(newer, upload, 1, length, parts[1][:5000])
    with pytest.raises(SupersededError):
        first.write(b"wrong")
    with pytest.raises(OUT):
        first.commit()
    second.write(parts[1][5000:])
    second.commit()
    with pytest.raises(SupersededError):
        first.write(b"wrong" * 50_000)
    first.__exit__()
    second.__exit__()
    assert complete(newer, upload, parts) == BIG


def test_older_writer_can_do_nothing_after_the_newer_gave_up(make_store):
    store = make_store()
    upload, _ = store.create(record(BIG, 2))
    first = open_writer(store, upload, 0, 300_000, b"wrong")
    open_writer(store, upload, 0, 300_000, b"x").__exit__()
    with pytest.raises(SupersededError):
        # Nothing comes from a client that is gone, and so its thread is free again.
        first.write(b"")
    with pytest.raises(SupersededError):
        first.write(b"wrong")
    with pytest.raises(OUT):
        first.commit()
    first.__exit__()
    assert complete(store, upload, [BIG[:300_000], BIG[300_000:]]) == BIG


def test_older_writer_that_gives_up_does_not_take_the_newer_one_with_it(make_store):
    store = make_store()
    upload, _ = store.create(record(BIG, 3))
    put(store, upload, 0, BIG[:200_000])
    first = open_writer(store, upload, 1, 300_000, BIG[:1000])
    second = open_writer(store, upload, 1, 300_000, BIG[200_000:400_000])
    first.__exit__()
    second.write(BIG[400_000:500_000])
    second.commit()
    second.__exit__()
    assert complete(store, upload, [BIG[:200_000], BIG[200_000:500_000], BIG[500_000:]]) == BIG


@pytest.fixture
def full_disk(monkeypatch):
    """Call with the bytes that find no room from then on; only their first half is written."""
    real = os.pwrite

    def fill(content: bytes) -> None:
        def write(descriptor: int, block: bytes, offset: int) -> int:
            if bytes(block) == content:
                real(descriptor, block[: len(block) // 2], offset)
                raise OSError(errno.ENOSPC, "full")
            return real(descriptor, block, offset)

        monkeypatch.setattr(os, "pwrite", write)

    return fill


def test_chunk_in_one_block_ends_an_older_writer_also_where_it_finds_no_room(make_store, full_disk):
    store = make_store()
    upload, _ = store.create(record(DATA, len(PARTS)))
    older = open_writer(store, upload, 0, len(PARTS[0]), PARTS[0][:-1])
    full_disk(b"x" * len(PARTS[0]))
    with pytest.raises(StorageFullError):
        put(store, upload, 0, b"x" * len(PARTS[0]))
    with pytest.raises(SupersededError):
        older.write(PARTS[0][-1:])
    older.__exit__()
    assert complete(store, upload, PARTS) == DATA


def test_chunk_in_one_block_that_finds_no_room_leaves_a_newer_writer_alone(make_store, full_disk):
    store = make_store()
    upload, _ = store.create(record(DATA, len(PARTS)))
    older = open_writer(store, upload, 0, len(PARTS[0]), b"x" * len(PARTS[0]))
    full_disk(b"x" * len(PARTS[0]))
    with pytest.raises(StorageFullError):
        older.commit()
    newer = open_writer(store, upload, 0, len(PARTS[0]), PARTS[0][:-1])
    older.__exit__()
    newer.write(PARTS[0][-1:])
    newer.commit()
    newer.__exit__()
    assert complete(store, upload, PARTS) == DATA


def test_chunk_in_one_block_gives_back_the_room_that_it_took_aside(make_store, folder, full_disk):
    store = make_store()
    upload, _ = store.create(record(DATA, len(PARTS)))
    put(store, upload, 0, PARTS[0])
    full_disk(b"x" * 500)
    with pytest.raises(StorageFullError):
        put(store, upload, 1, b"x" * 500)
    assert (folder / upload.uid / "side-1").stat().st_size == 0
    assert complete(store, upload, PARTS) == DATA


def test_wrong_bytes_of_one_chunk_never_reach_its_neighbours(make_store):
    store = make_store()
    upload, _ = store.create(record(DATA, len(PARTS)))
    for number in (0, 2, 4):
        put(store, upload, number, PARTS[number])
    for content in (b"x" * 2001, b"x" * 3000):
        for known in (True, False):
            with pytest.raises(InvalidRequestError):
                put(store, upload, 1, content, known=known, block=100)
    assert complete(store, upload, PARTS) == DATA


@pytest.mark.parametrize("step", ["claim", "write", "commit"])
def test_who_takes_over_waits_for_the_step_that_is_being_done(make_store, monkeypatch, step):
    """Whoever checked that a chunk is still its own has to be done with it before anybody else can have it."""
    store = make_store()
    upload, _ = store.create(record(BIG, 2))
    parts = [BIG[:300_000], BIG[300_000:]]
    real, reached, go_on = os.pwrite, threading.Event(), threading.Event()

    def slow(descriptor: int, block: bytes, offset: int) -> int:
        name = os.readlink(f"/proc/self/fd/{descriptor}").rpartition("/")[2]
        if threading.current_thread() is older and armed.is_set() and name == ("data" if step == "write" else "chunks"):
            armed.clear()
            reached.set()
            go_on.wait()
        return real(descriptor, block, offset)

    def send_wrong() -> None:
        if step == "claim":
            armed.set()
        with suppress(SupersededError), store.writer(upload, 0, 300_000) as writer:
            if step == "write":
                armed.set()
            writer.write(bytes(300_000 if step == "commit" else 1000))
            if step == "commit":
                armed.set()
                writer.commit()

    armed = threading.Event()
    older = threading.Thread(target=send_wrong)
    monkeypatch.setattr(os, "pwrite", slow)
    older.start()
    reached.wait()
    with ThreadPoolExecutor(1) as pool:
        newer = pool.submit(put, make_store(), upload, 0, parts[0])
        with pytest.raises(TimeoutError):
            newer.result(timeout=0.2)
        go_on.set()
        older.join()
        if step == "commit":
            with pytest.raises(ChunkConflictError):
                newer.result()
            parts[0] = bytes(300_000)
        else:
            newer.result()
    assert complete(store, upload, parts) == b"".join(parts)


@pytest.mark.parametrize("second", [300_000, 310_000], ids=["to its place", "aside"])
def test_chunk_that_is_taken_over_while_it_is_moved_stops_moving(make_store, monkeypatch, second):
    parts = [BIG[:second], BIG[second:600_000], BIG[600_000:]]
    store = make_store()
    upload, _ = store.create(record(BIG, 3))
    regular = len(parts[0]) == len(parts[1])
    if not regular:
        put(store, upload, 1, parts[1])
    older = open_writer(store, upload, 0, None, bytes(290_000))
    move = ChunkWriter._move
    moved = []

    def move_too_late(self: ChunkWriter, *args: Any) -> None:
        moved.append(args)
        put(make_store(), upload, 0, parts[0])
        move(self, *args)

    if regular:
        older.write(bytes(10_000))
        put(store, upload, 1, parts[1])
    monkeypatch.setattr(ChunkWriter, "_move", move_too_late)
    with pytest.raises(SupersededError):
        older.write(bytes(20_000)) if not regular else older.commit()
    older.__exit__()
    assert moved
    assert complete(store, upload, parts) == BIG


# Mending


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("wrong", [1, 4], ids=["inner chunk", "last chunk"])
def test_too_few_bytes_are_mended_by_a_chunk_of_another_length(make_store, known, wrong):
    store = make_store()
    upload, _ = store.create(record(DATA, len(PARTS)))
    parts = list(PARTS)
    parts[wrong] = parts[wrong][:100]
    done = [put(store, upload, number, part, known=known) for number, part in enumerate(parts)]
    assert done == 5 * [False]
    with pytest.raises(IncompleteError, match=str(len(DATA))):
        store.finish(upload.uid)
    assert store.progress(upload.uid).missing == []
    # What was right stays, what is only repeated mends nothing.
    put(store, upload, 0, PARTS[0])
    put(store, upload, wrong, parts[wrong])
    with pytest.raises(ChunkConflictError):
        put(store, upload, 0, b"x" * 1000)
    assert put(store, upload, wrong, PARTS[wrong], known=known)
    assert Path(store.path(store.finish(upload.uid)[0])).read_bytes() == DATA


def test_nothing_is_replaced_while_chunks_are_missing(store, upload):
    for number in (0, 1, 2):
        put(store, upload, number, PARTS[number])
    with pytest.raises(ChunkConflictError):
        put(store, upload, 1, PARTS[1][:500])
    assert complete(store, upload, PARTS) == DATA


def test_comparing_stops_when_the_chunk_is_replaced(make_store):
    store = make_store()
    upload, _ = store.create(record(DATA, 2))
    put(store, upload, 0, DATA[:2000])
    put(store, upload, 1, DATA[2000:3000])
    comparing = open_writer(store, upload, 1, 1000, DATA[2000:2500])
    put(store, upload, 1, DATA[2000:])
    with pytest.raises(SupersededError):
        comparing.write(DATA[2500:3000])
    comparing.__exit__()
    assert Path(store.path(store.finish(upload.uid)[0])).read_bytes() == DATA


# Finishing


@pytest.mark.parametrize("parts", [PARTS, UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize("durability", ["none", "finish", "chunk"])
def test_finishing_tells_one_caller_that_it_was_the_one(make_store, parts, durability):
    store = make_store(durability=durability)
    upload, _ = store.create(record(DATA, len(parts), checksum="sha256:" + hashlib.sha256(DATA).hexdigest()))
    for number, part in enumerate(parts):
        put(store, upload, number, part)
    barrier = threading.Barrier(8)

    def finish(_: int) -> tuple[str, bool]:
        other = make_store(durability=durability)
        barrier.wait()
        finished, by_us = other.finish(upload.uid)
        return other.path(finished), by_us

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(finish, range(8)))
    assert sum(by_us for _, by_us in answers) == 1
    assert {Path(path).read_bytes() for path, _ in answers} == {DATA}
    finished = store.read(upload.uid)
    assert finished.state is State.FINISHED
    assert finished.finished == pytest.approx(time.time(), abs=60)


@pytest.mark.parametrize("present", [(), (0,), (0, 1, 2, 3), (1, 2, 3, 4)])
def test_unfinished_upload_names_what_is_missing(store, upload, present):
    for number in present:
        put(store, upload, number, PARTS[number])
    with pytest.raises(IncompleteError, match=f"{5 - len(present)} of 5"):
        store.finish(upload.uid)
    assert store.read(upload.uid).state is State.OPEN


@pytest.mark.parametrize("parts", [PARTS, UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize("algorithm", ["md5", "sha256", "sha512"])
def test_wrong_checksum_of_the_file_makes_all_of_it_missing(make_store, parts, algorithm):
    store = make_store()
    upload, _ = store.create(record(DATA, 5, checksum=f"{algorithm}:{hashlib.new(algorithm, DATA).hexdigest()}"))
    wrong = [parts[0], bytes(len(parts[1])), *parts[2:]]
    with pytest.raises(ChecksumMismatchError):
        finish_with(store, upload, wrong)
    assert store.read(upload.uid).state is State.OPEN
    assert missing_numbers(store.progress(upload.uid)) == [0, 1, 2, 3, 4]
    assert store.progress(upload.uid).received_bytes == 0
    assert complete(make_store(), upload, parts) == DATA


def test_nothing_but_the_file_is_kept_of_irregular_chunks(store, folder, upload):
    finished = finish_with(store, upload, UNEVEN)
    kept = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert Path(store.path(finished)).stat().st_size == len(DATA)
    assert kept < len(DATA) + 2000


def test_nothing_but_the_file_is_kept_of_an_earlier_attempt_to_finish(store, folder):
    upload, _ = store.create(record(DATA, 5, checksum=f"md5:{hashlib.md5(DATA).hexdigest()}"))
    with pytest.raises(ChecksumMismatchError):
        finish_with(store, upload, [UNEVEN[0], bytes(2000), *UNEVEN[2:]])
    finished = finish_with(store, upload, PARTS)
    assert Path(store.path(finished)).read_bytes() == DATA
    kept = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert kept < len(DATA) + 2000


# Deleting and sweeping


@pytest.mark.parametrize("sent", [0, 2, 5])
def test_deleted_upload_is_gone_and_leaves_nothing(make_store, folder, sent):
    store = make_store()
    upload, _ = store.create(record(DATA, 5, identifier="id"))
    for number in range(sent):
        put(store, upload, number, PARTS[number])
    if sent == 5:
        store.finish(upload.uid)
    deleted = make_store().delete(upload.uid)
    assert (deleted.uid, deleted.owner) == (upload.uid, "ann")
    assert list(store.uids()) == list(store.uids("ann")) == []
    for ask in ASKING.values():
        with pytest.raises(NotFoundError):
            ask(store, upload.uid)
    store.clean()
    assert not [path for path in everything(folder) if upload.uid in path.name or path.name.startswith("id-")]


@pytest.mark.parametrize("length", [300_000, None])
@pytest.mark.parametrize("begun", [0, 1000])
@pytest.mark.parametrize("there", [False, True], ids=["writing", "comparing"])
@pytest.mark.parametrize("finish", [lambda w: w.write(BIG[1000:2000]), lambda w: w.commit()], ids=["write", "commit"])
def test_open_writer_of_a_deleted_upload_finds_nothing(make_store, length, begun, there, finish):
    store = make_store()
    upload, _ = store.create(record(BIG, 2))
    if there:
        put(store, upload, 0, BIG[:300_000])
    with store.writer(upload, 0, length) as writer:
        writer.write(BIG[:begun])
        if length and finish.__code__.co_names == ("commit",):
            writer.write(BIG[begun:300_000])
        store.delete(upload.uid)
        with pytest.raises(NotFoundError):
            finish(writer)
    with pytest.raises(NotFoundError):
        store.read(upload.uid)


def open_files() -> set[str]:
    return {link for link in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{link}")}


def test_writer_that_cannot_begin_leaves_no_file_open(make_store):
    store = make_store()
    before = len(open_files())
    for _ in range(3):
        upload, _ = store.create(record(BIG, 2))
        writer = store.writer(upload, 0, 300_000)
        store.delete(upload.uid)
        with pytest.raises(NotFoundError), writer:
            pass
    assert len(open_files()) == before


@pytest.mark.parametrize("sent", [0, 2, 5])
def test_only_an_upload_that_nobody_has_written_to_expires(store, upload, sent):
    for number in range(sent):
        put(store, upload, number, PARTS[number])
    if sent == 5:
        store.finish(upload.uid)
    last = store.last_write(upload.uid)
    assert store.delete_expired(upload.uid, last - 1) is None
    assert store.read(upload.uid).uid == upload.uid
    assert store.delete_expired(upload.uid, last + 1).uid == upload.uid
    with pytest.raises(NotFoundError):
        store.read(upload.uid)


def test_writing_and_finishing_put_the_expiry_off(store, folder, upload):
    def age() -> float:
        for path in [folder / upload.uid, *(folder / upload.uid).iterdir()]:
            os.utime(path, (1000, 1000))
        return store.last_write(upload.uid)

    assert age() == 1000
    put(store, upload, 0, PARTS[0])
    assert store.last_write(upload.uid) == pytest.approx(time.time(), abs=60)
    for number in range(1, 5):
        put(store, upload, number, PARTS[number])
    age()
    with store.writer(upload, 0, 1000):
        pass
    store.progress(upload.uid)
    assert store.last_write(upload.uid) == 1000
    store.finish(upload.uid)
    assert store.last_write(upload.uid) == pytest.approx(time.time(), abs=60)


def test_silent_writer_of_an_expired_upload_learns_at_its_next_block(store):
    upload, _ = store.create(record(BIG, 2))
    with store.writer(upload, 0, 300_000) as writer:
        writer.write(BIG[:1000])
        assert store.delete_expired(upload.uid, time.time() + 60) is not None
        with pytest.raises(NotFoundError):
            writer.write(BIG[1000:2000])


@pytest.mark.parametrize("length", [300_000, None])
def test_block_between_the_look_and_the_mark_saves_the_upload(make_store, monkeypatch, folder, length):
    store = make_store()
    upload, _ = store.create(record(BIG, 2))
    writer = open_writer(store, upload, 0, length, BIG[:1000])
    for path in [folder / upload.uid, *(folder / upload.uid).iterdir()]:
        os.utime(path, (1000, 1000))
    look = UploadFolder.last_write
    looks = []

    def look_and_write(self: UploadFolder) -> float:
        seen = look(self)
        if not looks:
            writer.write(BIG[1000:2000])
        looks.append(seen)
        return seen

    monkeypatch.setattr(UploadFolder, "last_write", look_and_write)
    assert store.delete_expired(upload.uid, 2000) is None
    assert looks[0] == 1000
    assert len(looks) == 2
    writer.write(BIG[2000:300_000])
    writer.commit()
    writer.__exit__()
    monkeypatch.undo()
    assert complete(store, upload, [BIG[:300_000], BIG[300_000:]]) == BIG


def test_upload_that_is_being_finished_does_not_expire(make_store, monkeypatch):
    store = make_store()
    upload, _ = store.create(record(DATA, 5))
    for number, part in enumerate(UNEVEN):
        put(store, upload, number, part)
    answers = []
    write = UploadFolder.write_record

    def sweep_and_write(self: UploadFolder, *args: Any, **kwargs: Any) -> None:
        # FileLock refuses a second hold in one thread, and a sweeper is somebody else anyway.
        with ThreadPoolExecutor(1) as pool:
            answers.append(pool.submit(make_store().delete_expired, upload.uid, time.time() + 60).result())
        write(self, *args, **kwargs)

    monkeypatch.setattr(UploadFolder, "write_record", sweep_and_write)
    finished, _ = store.finish(upload.uid)
    assert answers == [None]
    assert Path(store.path(finished)).read_bytes() == DATA


def test_one_of_many_sweepers_gets_the_claim(make_store):
    barrier = threading.Barrier(8)

    def claim(_: int) -> bool:
        store = make_store()
        barrier.wait()
        return store.claim_sweep(60)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(claim, range(8))) == 1
    assert not make_store().claim_sweep(60)
    assert make_store().claim_sweep(0)


def test_cleaning_leaves_what_is_in_use(make_store):
    store = make_store()
    upload, _ = store.create(record(DATA, 5, identifier="id"))
    finish_with(store, store.create(record(DATA, 5))[0], PARTS)
    put(store, upload, 0, PARTS[0])
    with store.writer(upload, 1, None) as writer:
        writer.write(PARTS[1])
        make_store().clean()
        writer.commit()
    assert len(list(store.uids("ann"))) == 2
    assert make_store().find(upload).uid == upload.uid
    assert complete(make_store(), upload, PARTS) == DATA


def test_claim_of_a_dead_writer_keeps_nobody_out(make_store):
    upload, _ = make_store().create(record(BIG, 2))
    dead = open_writer(make_store(), upload, 0, 300_000, b"wrong")
    assert make_store().progress(upload.uid).missing == [(0, 1)]
    assert complete(make_store(), upload, [BIG[:300_000], BIG[300_000:]]) == BIG
    dead.__exit__()
    finished = make_store().read(upload.uid)
    assert Path(make_store().path(finished)).read_bytes() == BIG


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("regular", [True, False], ids=["regular", "irregular"])
def test_many_writers_of_the_same_chunks_make_one_right_file(make_store, seed, regular):
    """Threads of several stores send, cut, repeat and spoil all chunks at random until all are there."""
    cuts = [0, 9000, 18_000, 27_000, 36_000] if regular else [0, 500, 20_000, 20_100, 36_000]
    data = random.Random(seed).randbytes(cuts[-1])
    parts = [data[start:end] for start, end in itertools.pairwise(cuts)]
    upload, _ = make_store().create(record(data, len(parts)))

    def act(number: int) -> None:
        chance = random.Random(f"{seed} {number}")
        store = make_store()
        for _ in range(150):
            part = chance.randrange(len(parts))
            length = chance.choice([len(parts[part]), None])
            end = chance.choice([0, len(parts[part]) // 2, len(parts[part])])
            try:
                with store.writer(upload, part, length) as writer:
                    for start in range(0, end, 700):
                        writer.write(parts[part][start : min(start + 700, end)])
                    if end < len(parts[part]):
                        writer.write(b"wrong" * (end > 0))
                    elif chance.random() < 0.5:
                        writer.commit()
            except (SupersededError, ChunkConflictError, InvalidRequestError):
                pass

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(act, range(6)))
    assert complete(make_store(), upload, parts) == data
