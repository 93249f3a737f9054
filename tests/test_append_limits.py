"""Uploads that are appended to: no limit is got around, a full disk costs nothing, and parts stay parts."""

from __future__ import annotations

import hashlib
import json
import os
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from appended import Service, age, check_index, check_nothing_left, cut_piece, markers, piece
from faults import FeignedDisk, SmallDisk, memory_folder, small_disk
from upload_helper import (
    BodyCutError,
    ChecksumMismatchError,
    Error,
    IncompleteError,
    InvalidRequestError,
    NotFoundError,
    StorageError,
    StorageFullError,
    TooLargeError,
    TooManyUploadsError,
    UnsupportedTypeError,
    Upload,
)
from upload_helper.errors import FinishedError, LengthMismatchError, OffsetMismatchError
from upload_helper.service import NewUpload
from upload_helper.stores import local
from upload_helper.upload import UNKNOWN_SIZE

KIB = 1 << 10
DATA = random.Random(51).randbytes(300 * KIB)


def take(service: Service, uid: str, data: bytes, block: int = 10 * KIB, **members: Any) -> str:
    """Append block by block until an error; return its code or ''."""
    offset = service.store.progress(uid).received_bytes
    try:
        service.put(uid, offset, data[offset:], block=block, known=False, **members)
    except Error as error:
        return error.code
    return ""


# The size of one file


@pytest.mark.parametrize("block", [1000, 1 << 18])
def test_file_of_unknown_size_ends_at_the_largest_size(folder, block):
    service = Service(folder, max_file_size=50_000)
    uid = service.new()
    assert take(service, uid, DATA, block) == "too_large"
    offset = service.position(uid, "ann").offset
    assert offset == (50_000 if block == 1000 else 0)
    assert markers(folder)[uid][0] <= 50_000
    # It can still be a file of that size.
    assert service.put(uid, offset, DATA[offset:50_000], complete=True).complete
    assert service.read(uid) == DATA[:50_000]
    check_index(folder)


def test_no_larger_size_can_be_declared(folder):
    service = Service(folder, max_file_size=50_000)
    with pytest.raises(TooLargeError):
        service.new(50_001)
    uid = service.new()
    with pytest.raises(TooLargeError):
        service.put(uid, 0, b"", total_size=50_001)
    with pytest.raises(TooLargeError):
        service.put(uid, 0, DATA[:50_001])
    for size in (-2, 2**63):
        with pytest.raises(InvalidRequestError if size < 0 else Error):
            service.put(uid, 0, b"", total_size=size)
    assert service.store.read(uid).total_size == UNKNOWN_SIZE
    assert service.position(uid, "ann").offset == 0
    assert service.put(uid, 0, DATA[:50_000], total_size=50_000).complete


@pytest.mark.parametrize("known", [True, False])
def test_body_with_more_bytes_than_the_file_is_refused(folder, known):
    service = Service(folder)
    uid = service.new(1000)
    with pytest.raises(TooLargeError):
        service.put(uid, 0, DATA[:1001], known=known, block=600)
    offset = service.position(uid, "ann").offset
    assert offset == (0 if known else 600)
    with pytest.raises(LengthMismatchError):
        service.put(uid, offset, DATA[offset:999], complete=True, known=known)
    offset = service.position(uid, "ann").offset
    assert service.put(uid, offset, DATA[offset:1000]).complete
    with pytest.raises(TooLargeError):
        service.put(uid, 1000, b"x")
    assert service.put(uid, 1000, b"").complete
    with pytest.raises(OffsetMismatchError):
        service.put(uid, 0, DATA[:1000])
    assert service.read(uid) == DATA[:1000]


# What one owner may have


def test_file_of_unknown_size_ends_where_the_quota_ends(folder):
    service = Service(folder, max_owner_bytes=150 * KIB)
    service.make(DATA[: 45 * KIB])
    uid = service.new()
    assert take(service, uid, DATA) == "too_large"
    # To the last block that fits, though room is reserved in larger steps.
    assert service.position(uid, "ann").offset == 100 * KIB
    assert markers(folder)[uid] == (100 * KIB, "open")
    with pytest.raises(TooLargeError):
        service.new(6 * KIB)
    assert service.begin(NewUpload("f", 140 * KIB), "bob").offset == 0
    assert service.put(uid, 100 * KIB, b"", complete=True).complete
    assert service.read(uid) == DATA[: 100 * KIB]
    assert sum(size for size, _ in markers(folder).values()) == (145 + 140) * KIB


def test_what_was_reserved_and_not_needed_is_given_back_at_the_end(folder):
    service = Service(folder, max_owner_bytes=17 << 20)
    for number in range(20):
        uid = service.new()
        service.put(uid, 0, DATA[:100])
        assert markers(folder)[uid] == (16 << 20, "open")
        if number % 2:
            service.put(uid, 100, b"", complete=True)
        else:
            service.put(uid, 100, b"", total_size=100)
        assert markers(folder)[uid] == (100, "finished")
    check_index(folder)
    assert sum(path.stat().st_blocks * 512 for path in folder.rglob("data")) <= 20 * 4096


def test_declaring_a_small_size_frees_the_disk_as_well(folder):
    service = Service(folder, max_owner_bytes=17 << 20)
    for _ in range(20):
        uid = service.new()
        service.put(uid, 0, DATA[:100])
        service.put(uid, 100, b"", total_size=200)
        assert markers(folder)[uid] == (200, "open")
    check_index(folder)
    assert sum(path.stat().st_blocks * 512 for path in folder.rglob("data")) <= 20 * 4096


@pytest.mark.parametrize("sent", [0, 100])
def test_size_that_is_declared_late_counts_as_if_it_had_been_declared_at_once(folder, sent):
    service = Service(folder, max_owner_bytes=20 << 20)
    first = service.new(4 << 20)
    uid = service.new()
    service.put(uid, 0, DATA[:sent])
    before = (markers(folder), service.store.read(uid), (folder / uid / "data").stat().st_size)
    with pytest.raises(TooLargeError):
        service.put(uid, sent, DATA[sent:200], total_size=(16 << 20) + 1)
    assert (markers(folder), service.store.read(uid), (folder / uid / "data").stat().st_size) == before
    assert service.position(uid, "ann").offset == sent
    service.put(uid, sent, DATA[sent:200], total_size=16 << 20)
    with pytest.raises(TooLargeError):
        service.new(1)
    service.delete(first, "ann")
    check_index(folder)


@pytest.mark.parametrize("limits", [{"min_free_space": 1 << 60}, {"max_owner_bytes": 10}, {"max_open_uploads": 1}])
def test_late_size_that_needs_no_more_room_is_taken_whatever_the_limits_are_now(folder, limits):
    service = Service(folder)
    uid, _ = service.new(), service.new()
    service.put(uid, 0, DATA[:100])
    narrow = Service(folder, **limits)
    assert narrow.put(uid, 100, DATA[100:200], total_size=200).complete
    assert narrow.read(uid) == DATA[:200]
    check_index(folder)


def test_many_of_one_owner_who_grow_at_once_stay_within_the_quota(folder, monkeypatch):
    monkeypatch.setattr(local, "_RESERVE_STEP", 16 * KIB)
    limit = 500 * KIB
    service = Service(folder, max_owner_bytes=limit)
    uids = [service.new() for _ in range(4)]
    barrier = threading.Barrier(4)
    most = []

    def grow(uid: str) -> None:
        mine = Service(folder, max_owner_bytes=limit)
        barrier.wait()
        answer = take(mine, uid, DATA)
        most.append((answer, sum(path.stat().st_size for path in folder.rglob("data"))))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(grow, uids))
    assert {answer for answer, _ in most} <= {"too_large", ""}
    assert max(used for _, used in most) <= limit
    # What is left is less than what any of them wanted.
    assert sum(size for size, _ in markers(folder).values()) > limit - 20 * KIB
    check_index(folder)
    for uid in uids:
        offset = service.position(uid, "ann").offset
        assert service.put(uid, offset, b"", complete=True).complete
        assert service.read(uid) == DATA[:offset]


@pytest.mark.parametrize(
    ("limits", "size", "most"),
    [({"max_open_uploads": 3}, UNKNOWN_SIZE, 3), ({"max_open_uploads": 3}, 10, 3), ({"max_owner_bytes": 59}, 10, 5)],
)
def test_many_who_begin_at_once_stay_within_the_limits(folder, limits, size, most):
    barrier = threading.Barrier(8)

    def begin(number: int) -> bool:
        service = Service(folder, **limits)
        barrier.wait()
        with suppress(TooManyUploadsError, TooLargeError):
            service.new(size, concat="partial" if number % 2 else "")
            return True
        return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(begin, range(8))) == most
    assert len(markers(folder)) == most


def test_finished_parts_and_files_are_not_on_their_way(folder):
    service = Service(folder, max_open_uploads=1)
    parts = [service.make(DATA[:100], concat="partial") for _ in range(3)]
    open_one = service.new()
    with pytest.raises(TooManyUploadsError):
        service.concatenate(NewUpload("f", concat="final;"), parts, "ann")
    service.delete(open_one, "ann")
    assert service.concatenate(NewUpload("f", concat="final;"), parts, "ann").complete


def test_extension_and_name_that_come_late_are_checked(folder):
    service = Service(folder, allowed_extensions=frozenset({"tif"}))
    with pytest.raises(UnsupportedTypeError):
        service.new(file_name="a.php")
    uid = service.new(file_name=None)
    for name in ("a.php", ""):
        with pytest.raises(UnsupportedTypeError):
            service.put(uid, 0, b"x", file_name=name)
    assert service.put(uid, 0, b"x", file_name="a.tif", complete=True).upload.fileName == "a.tif"
    # It can't be renamed.
    other = service.new(file_name="b.tif")
    assert service.put(other, 0, b"x", file_name="a.php", complete=True).upload.fileName == "b.tif"


# The disk


@pytest.fixture(params=["real", "feigned"])
def disk(request, tmp_path: Path) -> Iterator[SmallDisk]:
    path = tmp_path / "disk"
    with small_disk(path) if request.param == "real" else FeignedDisk(path).ready() as disk:
        # The folders of the store, and those of the owner.
        service = Service(path / "uploads")
        service.delete(service.make(b"x"), "ann")
        service.new()
        yield disk


@pytest.mark.parametrize("step", [4 * KIB, 64 * KIB, 1 << 20])
def test_disk_that_fills_up_stops_a_file_of_unknown_size_until_there_is_room(disk, monkeypatch, step):
    monkeypatch.setattr(local, "_RESERVE_STEP", step)
    service = Service(disk.path / "uploads")
    uid = service.new()
    service.put(uid, 0, DATA[: 20 * KIB])
    if step == 1 << 20:
        # All the room that is needed was reserved.
        disk.fill()
        service.put(uid, 20 * KIB, DATA[20 * KIB :], complete=True)
        assert service.read(uid) == DATA
        return
    disk.fill(leave=40 * KIB)
    for _ in range(2):
        assert take(service, uid, DATA) == "storage_full"
        offset = service.position(uid, "ann").offset
        assert 20 * KIB <= offset < len(DATA)
        assert (disk.path / "uploads" / uid / "data").read_bytes()[:offset] == DATA[:offset]
        check_index(disk.path / "uploads")
    disk.free()
    assert take(service, uid, DATA, complete=True) == ""
    assert service.read(uid) == DATA


def test_little_room_is_used_to_its_end(disk):
    service = Service(disk.path / "uploads")
    uid = service.new()
    # Less than is reserved at a time.
    disk.fill(leave=200 * KIB)
    assert take(service, uid, DATA) == "storage_full"
    assert service.position(uid, "ann").offset >= 160 * KIB


def test_file_of_a_known_size_needs_no_more_room(disk):
    service = Service(disk.path / "uploads")
    uid = service.new(len(DATA))
    disk.fill()
    with suppress(BodyCutError):
        service.append(uid, cut_piece(0, DATA[:1000], None), "ann")
    assert service.position(uid, "ann").offset == 1000
    service.put(uid, 1000, DATA[1000:-1])
    # The last record is the only thing that is new.
    disk.free()
    assert service.put(uid, len(DATA) - 1, DATA[-1:]).complete
    assert service.read(uid) == DATA


@pytest.mark.parametrize("durability", ["none", "finish", "chunk"])
def test_finishing_without_room_for_the_record_is_done_again_later(disk, durability):
    service = Service(disk.path / "uploads", durability=durability)
    uid = service.new(len(DATA))
    service.put(uid, 0, DATA[:-1])
    disk.fill()
    with pytest.raises(StorageFullError):
        service.put(uid, len(DATA) - 1, DATA[-1:])
    with pytest.raises(StorageFullError):
        service.get_upload(uid, "ann")
    disk.free()
    assert service.position(uid, "ann").complete
    assert service.read(uid) == DATA


@pytest.mark.parametrize("size", [200 * KIB, 7 << 20])
@pytest.mark.parametrize("pages", range(4))
def test_late_size_without_room_for_it_changes_nothing(disk, size, pages):
    service = Service(disk.path / "uploads")
    uid = service.new()
    disk.fill(leave=pages * 4096)
    room, before = disk.room(), service.store.read(uid)
    with pytest.raises(StorageFullError):
        service.put(uid, 0, DATA[:1], total_size=size)
    assert (disk.room(), service.store.read(uid)) == (room, before)
    check_index(disk.path / "uploads")
    assert service.position(uid, "ann").offset == 0
    disk.free()
    service.put(uid, 0, DATA[:1], total_size=size)
    check_index(disk.path / "uploads")


def test_smaller_size_needs_no_room(disk, monkeypatch):
    monkeypatch.setattr(local, "_RESERVE_STEP", 1 << 20)
    service = Service(disk.path / "uploads")
    uid = service.new()
    service.put(uid, 0, DATA[:1])
    disk.fill()
    assert not service.put(uid, 1, b"", total_size=100 * KIB).complete
    check_index(disk.path / "uploads")
    assert service.put(uid, 1, DATA[1 : 100 * KIB]).complete
    assert service.read(uid) == DATA[: 100 * KIB]


def test_no_more_is_reserved_than_leaves_what_must_stay_free(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        service = Service(disk.path / "uploads", min_free_space=7 << 20)
        uid = service.new()
        assert take(service, uid, DATA + DATA + DATA) in ("", "storage_full")
        assert disk.room() >= 7 << 20
        with pytest.raises(StorageFullError):
            service.new(2 << 20)
        offset = service.position(uid, "ann").offset
        with pytest.raises(StorageFullError):
            service.put(uid, offset, b"", total_size=3 << 20)
        assert disk.room() >= 7 << 20
        check_index(disk.path / "uploads")


def test_parts_that_can_not_be_put_together_for_want_of_room_leave_nothing(disk, monkeypatch):
    folder = disk.path / "uploads"
    service = Service(folder)
    parts = [service.make(DATA[start : start + 100 * KIB], concat="partial") for start in (0, 100 * KIB, 200 * KIB)]
    new = NewUpload("f", concat="final;urls")
    names = sorted(folder.rglob("*"))
    for leave in (0, 20 * KIB, 250 * KIB, 304 * KIB):
        disk.fill(leave=leave)
        room = disk.room()
        with pytest.raises(StorageFullError):
            service.concatenate(new, parts, "ann")
        assert disk.room() == room
        disk.free()
        left = [path for path in sorted(folder.rglob("*")) if path not in names and path.suffix != ".lock"]
        assert left == []
    position = service.concatenate(new, parts, "ann")
    assert service.read(position.upload.uploadUid) == DATA


# Parts


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    with memory_folder(tmp_path) as path:
        yield path / "uploads"


def test_thousand_parts_are_put_together(memory):
    service = Service(memory, max_open_uploads=1)
    made = [service.make(b"%05d" % number, concat="partial") for number in range(125)]
    parts = random.Random(52).sample(8 * made, 1000)
    content = b"".join(b"%05d" % made.index(uid) for uid in parts)
    new = NewUpload("f", concat="final;" + " ".join(parts), checksum=f"md5:{hashlib.md5(content).hexdigest()}")
    position = service.concatenate(new, parts, "ann")
    assert (position.offset, position.complete) == (5000, True)
    assert service.read(position.upload.uploadUid) == content
    assert service.events == [("created", position.upload.uploadUid), ("finished", position.upload.uploadUid)]


def test_same_part_may_come_again_and_parts_may_be_empty(folder):
    service = Service(folder)
    one, empty, two = (service.make(data, concat="partial") for data in (b"one", b"", b"two"))
    for order, content in (([one, two, one, empty, one], b"onetwooneone"), ([empty, empty], b""), ([], b"")):
        position = service.concatenate(NewUpload("f", concat="final;"), order, "ann")
        assert (position.offset, position.complete) == (len(content), True)
        assert service.read(position.upload.uploadUid) == content
    check_index(folder)


def test_parts_are_never_shown_as_files(folder):
    service = Service(folder)
    part = service.new(10, concat="partial", file_name=None)
    other = service.new(concat="partial")
    for uid in (part, other):
        service.put(uid, 0, DATA[:5], complete=None if uid == part else False)
        with pytest.raises(IncompleteError):
            service.get_upload(uid, "ann")
        service.put(uid, 5, DATA[5:10], complete=None if uid == part else True)
        assert service.position(uid, "ann").complete
        for who in ("ann", None):
            with pytest.raises(IncompleteError):
                service.get_upload(uid, who)
    service.delete(part, "ann")
    age(folder, other)
    assert service.sweep() == 1
    assert service.events == []


REFUSED = {
    "unknown": lambda service: ("ann", "0" * 32),
    "no uid": lambda service: ("ann", "../x"),
    "no part": lambda service: ("ann", service.make(b"x")),
    "not finished": lambda service: ("ann", service.new(5, concat="partial")),
    "put together": lambda service: (
        "ann", service.concatenate(NewUpload("f", concat="final;"), [], "ann").upload.uploadUid,
    ),
    "another's": lambda service: ("bob", service.make(b"x", concat="partial")),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_only_ones_own_finished_parts_can_be_put_together(folder, case):
    service = Service(folder)
    owner, uid = REFUSED[case](service)
    part = service.begin(NewUpload("f", 1, concat="partial"), owner).upload.uploadUid
    service.append(part, piece(0, b"y"), owner)
    before = markers(folder)
    with pytest.raises(InvalidRequestError):
        service.concatenate(NewUpload("f", concat="final;"), [part, uid, part], owner)
    assert markers(folder) == before


def test_nothing_can_be_appended_to_what_was_put_together(folder):
    service = Service(folder)
    part = service.make(b"abc", concat="partial")
    uid = service.concatenate(NewUpload("f", concat="final;x"), [part], "ann").upload.uploadUid
    for offset, data in ((0, b"abc"), (3, b"d"), (3, b"")):
        with pytest.raises(FinishedError):
            service.put(uid, offset, data)
    assert service.read(uid) == b"abc"
    # Nor is it any part's business what becomes of it.
    service.delete(part, "ann")
    assert service.read(uid) == b"abc"


def test_limits_hold_for_what_is_put_together(folder):
    service = Service(folder, max_file_size=25, max_owner_bytes=45)
    part = service.make(DATA[:10], concat="partial")
    with pytest.raises(TooLargeError):
        service.concatenate(NewUpload("f", concat="final;"), 3 * [part], "ann")
    service.make(DATA[:20])
    with pytest.raises(TooLargeError):
        service.concatenate(NewUpload("f", concat="final;"), 2 * [part], "ann")
    assert service.concatenate(NewUpload("f", concat="final;"), [part], "ann").complete
    check_index(folder)


def test_wrong_checksum_of_what_is_put_together_leaves_nothing(folder):
    service = Service(folder)
    part = service.make(DATA[:10], concat="partial")
    before = markers(folder)
    with pytest.raises(ChecksumMismatchError):
        service.concatenate(NewUpload("f", concat="final;", checksum="md5:" + 32 * "0"), 2 * [part], "ann")
    assert markers(folder) == before
    assert list(service.store.uids()) == [part]


@pytest.mark.parametrize("trouble", ["deleted", "cut off", "gone"])
def test_part_that_gets_lost_meanwhile_leaves_nothing(folder, monkeypatch, trouble):
    service = Service(folder)
    parts = [service.make(DATA[start : start + 1000], concat="partial") for start in (0, 1000, 2000)]
    copy = service._copy

    def delete_and_copy(part: Any, appender: Any) -> None:
        if part.uid == parts[1]:
            service.delete(part.uid, "ann")
        copy(part, appender)

    if trouble == "deleted":
        monkeypatch.setattr(service, "_copy", delete_and_copy)
    elif trouble == "gone":
        (folder / parts[1] / "data").unlink()
    else:
        (folder / parts[1] / "data").write_bytes(DATA[:999])
    with pytest.raises(NotFoundError if trouble == "deleted" else StorageError):
        service.concatenate(NewUpload("f", concat="final;"), parts, "ann")
    assert set(service.store.uids()) == set(parts) - ({parts[1]} if trouble == "deleted" else set())
    for uid in list(service.store.uids()):
        service.delete(uid, None)
    check_nothing_left(folder, monkeypatch, clean=False)


def test_file_that_is_deleted_while_it_is_put_together_is_not_found(folder, monkeypatch):
    service = Service(folder)
    parts = [service.make(DATA[start : start + 1000], concat="partial") for start in (0, 1000)]
    copy = service._copy

    def delete_and_copy(part: Any, appender: Any) -> None:
        if part.uid == parts[1]:
            final = set(service.store.uids()) - set(parts)
            assert service.peek(*final, "ann").path == ""
            with pytest.raises(IncompleteError):
                service.get_upload(*final, "ann")
            service.delete(*final, "ann")
        copy(part, appender)

    monkeypatch.setattr(service, "_copy", delete_and_copy)
    with pytest.raises(NotFoundError):
        service.concatenate(NewUpload("f", concat="final;"), parts, "ann")
    assert set(service.store.uids()) == set(parts)
    check_index(folder)


# Finishing, as the protocols have it


def test_empty_files(folder):
    service = Service(folder)
    for size, complete in ((0, None), (0, True), (UNKNOWN_SIZE, True)):
        uid = service.new(size)
        assert service.put(uid, 0, b"", complete=complete).complete
        assert service.read(uid) == b""
    uid = service.new()
    assert service.put(uid, 0, b"", total_size=0).complete
    assert service.read(uid) == b""
    check_index(folder)


def test_file_with_all_of_its_bytes_is_not_finished_until_the_client_says_so(folder):
    service = Service(folder)
    for size in (10, UNKNOWN_SIZE):
        uid = service.new(size)
        service.put(uid, 0, DATA[:10], complete=False, total_size=10)
        for _ in range(2):
            assert not service.position(uid, "ann").complete
            with pytest.raises(IncompleteError):
                service.get_upload(uid, "ann")
        assert service.events[-1][0] == "created"
        assert service.put(uid, 10, b"", complete=True).complete
        assert service.read(uid) == DATA[:10]


@pytest.mark.parametrize("way", ["position", "get_upload", "append nothing", "append again"])
def test_file_whose_last_byte_was_kept_is_finished_by_whatever_comes_next(folder, way):
    service = Service(folder)
    for size, sent in ((100, 100), (UNKNOWN_SIZE, 100)):
        uid = service.new(size)
        with suppress(BodyCutError):
            # Cut right behind the last byte, or before the first where a size was declared.
            content = DATA[:sent] if size == 100 else b""
            if size == UNKNOWN_SIZE:
                service.put(uid, 0, DATA[:sent])
            service.append(uid, cut_piece(sent - len(content), content, None, total_size=100), "ann")
        assert service.store.progress(uid).received_bytes == 100
        after = Service(folder)
        if way == "append again":
            with pytest.raises(OffsetMismatchError):
                after.put(uid, 0, DATA[:100])
            assert after.position(uid, "ann").complete
        elif way == "append nothing":
            assert after.put(uid, 100, b"").complete
        elif way == "position":
            assert after.position(uid, "ann").complete
        assert after.read(uid) == DATA[:100]
        assert [event for event, about in service.events + after.events if about == uid] == ["created", "finished"]


def test_one_of_many_who_ask_at_once_reports_the_end(folder):
    service = Service(folder)
    for _ in range(5):
        uid = service.new(100)
        with service.store.appender(service.store.read(uid), 0, hold=False, complete=None) as appender:
            appender.write(DATA[:100])
        barrier = threading.Barrier(6)
        others = [Service(folder) for _ in range(6)]

        def ask(number: int, uid: str = uid, others: list[Service] = others, barrier: Any = barrier) -> bool:
            barrier.wait()
            if number % 2:
                return others[number].position(uid, "ann").complete
            return bool(others[number].get_upload(uid, "ann").path)

        with ThreadPoolExecutor(6) as pool:
            assert all(pool.map(ask, range(6)))
        assert [event for other in others for event in other.events] == [("finished", uid)]


@pytest.mark.parametrize("way", ["append", "append nothing", "position", "concatenate"])
@pytest.mark.parametrize("act", ["move_to", "delete"])
def test_host_may_take_the_file_when_it_is_told_of_its_end(folder, tmp_path, way, act):
    service = Service(folder)

    def take_it(event: str, upload: Upload) -> None:
        if event == "finished":
            upload.move_to(tmp_path / "moved") if act == "move_to" else upload.delete()

    service._notify = take_it
    if way == "concatenate":
        position = service.concatenate(
            NewUpload("f", concat="final;"), [service.make(DATA[:100], concat="partial")], "ann"
        )
    else:
        uid = service.new(100)
        with suppress(BodyCutError):
            if way != "append":
                service.append(uid, cut_piece(0, DATA[:100], None), "ann")
        if way == "position":
            position = service.position(uid, "ann")
        else:
            position = service.put(uid, 0 if way == "append" else 100, DATA[:100] if way == "append" else b"")
    assert (position.offset, position.complete) == (100, True)
    assert position.expires == pytest.approx(time.time() + service.config.expiry.total_seconds(), abs=60)
    assert act == "delete" or (tmp_path / "moved").read_bytes() == DATA[:100]


@pytest.mark.parametrize("size", [100, UNKNOWN_SIZE])
def test_file_with_the_wrong_checksum_is_sent_again_from_the_start(folder, size):
    service = Service(folder)
    uid = service.new(size, checksum=f"sha256:{hashlib.sha256(DATA[:100]).hexdigest()}")
    for _ in range(2):
        with pytest.raises(ChecksumMismatchError):
            service.put(uid, 0, DATA[1:101], complete=True)
        position = service.position(uid, "ann")
        assert (position.offset, position.complete) == (0, False)
        with pytest.raises(IncompleteError):
            service.get_upload(uid, "ann")
        with pytest.raises(OffsetMismatchError):
            service.put(uid, 100, b"", complete=True)
    service.put(uid, 0, DATA[:40], complete=False)
    assert service.put(uid, 40, DATA[40:100], complete=True).complete
    assert service.read(uid) == DATA[:100]
    assert [event for event, _ in service.events] == ["created", "finished"]


@pytest.mark.parametrize("complete", [None, True])
def test_empty_file_with_a_wrong_checksum_is_never_finished(folder, complete):
    service = Service(folder)
    uid = service.new(0, checksum="md5:" + 32 * "0")
    for _ in range(3):
        with pytest.raises(ChecksumMismatchError):
            service.put(uid, 0, b"", complete=complete)
        assert not service.position(uid, "ann").complete
        with pytest.raises(IncompleteError):
            service.get_upload(uid, "ann")


def test_size_that_contradicts_the_file_is_refused(folder):
    service = Service(folder)
    uid = service.new()
    service.put(uid, 0, DATA[:10], complete=False)
    for size in (9, 5):
        with pytest.raises((LengthMismatchError, TooLargeError)):
            service.put(uid, 10, b"", total_size=size)
    with service.store.appender(service.store.read(uid), 10, hold=False, complete=True) as appender:
        # The process is killed before it is said to be finished.
        appender.commit()
    for size in (9, 20):
        with pytest.raises((LengthMismatchError, TooLargeError)):
            service.put(uid, 10, b"", total_size=size, complete=False)
    assert service.read(uid) == DATA[:10]


# Identifiers, expiry


def test_identifier_finds_the_upload_of_its_owner_alone(folder):
    service = Service(folder)
    new = NewUpload("f", identifier="id")
    with pytest.raises(NotFoundError):
        service.resume(new, "ann")
    uid = service.begin(new, "ann").upload.uploadUid
    service.put(uid, 0, DATA[:10])
    assert service.begin(new, "ann").upload.uploadUid == uid
    position = service.resume(new, "ann")
    assert (position.upload.uploadUid, position.offset) == (uid, 10)
    with pytest.raises(NotFoundError):
        service.resume(new, "bob")
    with pytest.raises(NotFoundError):
        service.resume(NewUpload("f"), "ann")
    assert service.begin(new, "bob").offset == 0
    assert service.put(uid, 10, b"", complete=True).complete
    again = service.begin(new, "ann")
    assert (again.upload.uploadUid, again.complete) == (uid, True)
    service.delete(uid, "ann")
    assert service.begin(new, "ann").offset == 0
    assert [event for event, _ in service.events] == ["created", "created", "finished", "deleted", "created"]


def test_beginning_anew_leaves_the_finished_and_replaces_the_unfinished(folder):
    service = Service(folder, max_open_uploads=1)
    new = NewUpload(None, identifier="id")
    done = service.begin(new, "ann", anew=True).upload.uploadUid
    service.put(done, 0, DATA[:10], complete=True)
    first = service.begin(new, "ann", anew=True).upload.uploadUid
    with service.store.appender(service.store.read(first), 0, hold=False, complete=None) as hanging:
        hanging.write(b"x")
        # With the one upload that may be on its way.
        second = service.begin(new, "ann", anew=True).upload.uploadUid
        with pytest.raises(NotFoundError):
            hanging.write(b"y")
    assert service.resume(new, "ann").upload.uploadUid == second
    assert set(service.store.uids()) == {done, second}
    assert service.read(done) == DATA[:10]
    service.delete(done, "ann")
    assert service.resume(new, "ann").upload.uploadUid == second
    check_index(folder)


@pytest.mark.parametrize("anew", [True, False])
def test_many_who_begin_one_identifier_at_once_end_with_one_that_is_found(folder, anew):
    new = NewUpload("f", identifier="id")
    barrier = threading.Barrier(6)

    def begin(_: int) -> str:
        service = Service(folder)
        barrier.wait()
        while True:
            with suppress(NotFoundError):
                return service.begin(new, "ann", anew=anew).upload.uploadUid

    with ThreadPoolExecutor(6) as pool:
        answers = set(pool.map(begin, range(6)))
    service = Service(folder)
    found = service.resume(new, "ann").upload.uploadUid
    assert found in answers
    assert (len(answers) == 1) is not anew
    service.put(found, 0, DATA[:10], complete=True)
    assert service.read(found) == DATA[:10]
    check_index(folder)


def test_position_tells_when_the_upload_will_be_swept(folder):
    service = Service(folder, expiry=timedelta(seconds=1000))
    for sent in (5, 10):
        uid = service.new(10)
        service.put(uid, 0, DATA[:sent])
        age(folder, uid, 600)
        path = folder / uid / "upload.json"
        members = json.loads(path.read_text())
        if sent == 10:
            path.write_text(json.dumps({**members, "finished": members["finished"] - 600}))
            os.utime(path, (path.stat().st_mtime - 600,) * 2)
        for _ in range(2):
            # Asking for the position of one that is on its way puts the expiry off; of one that is finished, it doesn't.
            expires = service.position(uid, "ann").expires
            assert expires == pytest.approx(service.store.last_write(uid) + 1000, abs=30)
        age(folder, uid, 990)
        assert service.sweep() == 0
        age(folder, uid, 1010)
        assert service.sweep() == 1
    assert Service(folder, expiry=timedelta(0)).position(service.new(10), "ann").expires is None


def test_upload_that_is_written_to_is_not_swept(folder):
    service = Service(folder, expiry=timedelta(seconds=1000))
    uid = service.new()
    with service.store.appender(service.store.read(uid), 0, hold=True, complete=True) as appender:
        for start in range(0, 100, 10):
            age(folder, uid, 999_999)
            appender.write(DATA[start : start + 10])
            assert service.sweep() == 0
        appender.commit()
    assert service.read(uid) == DATA[:100]
    assert service.events[0] == ("created", uid)
