"""A power cut and a full disk: nothing wrong is taken for right, and what was promised is kept."""

from __future__ import annotations

import io
import itertools
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from chunks import RAW, fetch, send, split
from faults import (
    Disk,
    FeignedDisk,
    SmallDisk,
    complete,
    config,
    memory_folder,
    missing_numbers,
    other_boot,
    put,
    record,
    small_disk,
)
from upload_helper import Error, NotFoundError
from upload_helper.stores import LocalStore, table
from upload_helper.upload import Record, State

KIB = 1 << 10
DATA = random.Random(5).randbytes(36 * KIB + 5)
# So many chunks that the table has several pages, which reach the disk in any order.
EVEN = [DATA[i : i + 251] for i in range(0, len(DATA), 251)]
UNEVEN = [DATA[:9000], DATA[9000:9001], DATA[9001:30_000], DATA[30_000:]]
# Longer than what is acknowledged in one go.
LONG_DATA = random.Random(6).randbytes(700 * KIB)
LONG = [LONG_DATA[: 300 * KIB], LONG_DATA[300 * KIB : 600 * KIB], LONG_DATA[600 * KIB :]]

# The last entry is the only one on the second page of the table.
TINY = [DATA[i : i + 8] for i in range(0, 125 * 8, 8)]
PARTS = {"even": EVEN, "uneven": UNEVEN, "long": LONG}
CUTS = 8


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """Many hundred syncs: they are counted here, not waited for."""
    with memory_folder(tmp_path) as path:
        yield path


@pytest.fixture
def checkpoints(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Return a function that makes every acknowledgement a checkpoint, or none."""
    return lambda on: monkeypatch.setattr(table, "CHECKPOINT_SECONDS", -1 if on else 1000)


def left(disk: Disk, tmp_path: Path) -> list[Path]:
    """Return what several power cuts at this instant could leave."""
    folders = [tmp_path / "after" / f"{len(disk.calls)}-{seed}" for seed in range(CUTS)]
    for folder in folders:
        disk.cut(folder, random.Random(folder.name))
    return folders


def after_cuts(disk: Disk, tmp_path: Path) -> Iterator[Path]:
    """Yield what several power cuts at this instant could leave, on a machine that has been started anew."""
    for folder in left(disk, tmp_path):
        with other_boot():
            yield folder


def begin(folder: Path, parts: list[bytes], durability: str) -> tuple[LocalStore, Record]:
    store = LocalStore(config(folder, durability=durability))
    return store, store.create(record(b"".join(parts), len(parts), identifier="id"))[0]


def send_some(store: LocalStore, upload: Record, parts: list[bytes], numbers: list[int], *, known: bool = True) -> None:
    for number in numbers:
        put(store, upload, number, parts[number], known=known)


def check_bytes(folder: Path, upload: Record, parts: list[bytes]) -> None:
    """See that an upload, if there still is one, ends with the right bytes."""
    store = LocalStore(config(folder))
    try:
        upload = store.read(upload.uid)
    except NotFoundError:
        again, _ = store.create(record(b"".join(parts), len(parts), identifier="id"))
        assert complete(store, again, parts) == b"".join(parts)
        return
    if upload.state is State.OPEN:
        assert complete(store, upload, parts) == b"".join(parts)
    assert Path(store.path(store.read(upload.uid))).read_bytes() == b"".join(parts)


@pytest.mark.parametrize("known", [True, False], ids=["length", "no length"])
@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_power_cut_never_makes_wrong_bytes(tmp_path, checkpoints, parts, known):
    chance = random.Random(7)
    order = chance.sample(range(len(parts)), len(parts))
    steps = [order[: len(order) // 3], order[len(order) // 3 : -1], order[-1:]]
    with Disk(tmp_path / "before").watched() as disk:
        store, upload = begin(tmp_path / "before", parts, "finish")
        for numbers in steps:
            # The first of a step is a checkpoint.
            for number in numbers:
                checkpoints(number == numbers[0])
                send_some(store, upload, parts, [number], known=known)
            for folder in after_cuts(disk, tmp_path):
                check_bytes(folder, upload, parts)


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_power_cut_keeps_what_came_before_the_last_checkpoint(tmp_path, checkpoints, parts):
    half = len(parts) // 2
    with Disk(tmp_path / "before").watched() as disk:
        store, upload = begin(tmp_path / "before", parts, "finish")
        checkpoints(False)
        send_some(store, upload, parts, list(range(half - 1)))
        checkpoints(True)
        send_some(store, upload, parts, [half - 1])
        # The header is what says so, and it goes to the disk a little later by itself.
        with (tmp_path / "before" / upload.uid / "chunks").open("r+b") as table:
            os.fsync(table.fileno())
        checkpoints(False)
        send_some(store, upload, parts, list(range(half, len(parts))))
        for folder in after_cuts(disk, tmp_path):
            left = LocalStore(config(folder)).progress(upload.uid)
            assert not set(range(half)) & set(missing_numbers(left))
            check_bytes(folder, upload, parts)


def test_restart_asks_again_for_what_was_not_known_to_be_on_the_disk(folder, checkpoints):
    store, upload = begin(folder, EVEN, "finish")
    for number in range(10):
        checkpoints(number == 3)
        send_some(store, upload, EVEN, [number])
    assert store.progress(upload.uid).missing == [(10, len(EVEN) - 1)]
    with other_boot():
        assert store.progress(upload.uid).missing == [(4, len(EVEN) - 1)]
        assert store.progress(upload.uid).received_bytes == 4 * 251
        send_some(store, upload, EVEN, [4])
    with other_boot():
        assert store.progress(upload.uid).missing == [(4, len(EVEN) - 1)]
        assert complete(store, upload, EVEN) == DATA


@pytest.mark.parametrize("known", [True, False], ids=["length", "no length"])
@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_with_chunk_durability_nothing_acknowledged_is_asked_for_again(tmp_path, parts, known):
    order = random.Random(8).sample(range(len(parts)), len(parts))
    with Disk(tmp_path / "before").watched() as disk:
        store, upload = begin(tmp_path / "before", parts, "chunk")
        done: set[int] = set()
        for numbers in (order[:1], order[1:-1], order[-1:]):
            send_some(store, upload, parts, numbers, known=known)
            done |= set(numbers)
            for folder in after_cuts(disk, tmp_path):
                after = LocalStore(config(folder, durability="chunk"))
                assert not done & set(missing_numbers(after.progress(upload.uid)))
                check_bytes(folder, upload, parts)


@pytest.mark.parametrize("durability", ["finish", "chunk"])
@pytest.mark.parametrize("parts", [TINY, UNEVEN], ids=["even", "uneven"])
def test_client_that_sends_again_without_asking_completes_the_upload(tmp_path, parts, durability):
    last = len(parts) - 1
    with Disk(tmp_path / "before").watched() as disk:
        store, upload = begin(tmp_path / "before", parts, durability)
        send_some(store, upload, parts, list(range(last)))
        cuts = []
        disk.after_each_call = lambda: cuts.extend(left(disk, tmp_path)[:5])
        put(store, upload, last, parts[last])
        disk.after_each_call = None
        for folder in cuts:
            with other_boot():
                after = LocalStore(config(folder, durability="finish"))
                found, _ = after.create(record(b"".join(parts), len(parts), identifier="id"))
                done = [put(after, found, number, part) for number, part in enumerate(parts)]
                assert done[-1], "nobody would finish the upload"
                check_bytes(folder, found, parts)


def test_durability_that_is_raised_in_mid_upload_holds_from_then_on(tmp_path):
    with Disk(tmp_path / "before").watched() as disk:
        store, upload = begin(tmp_path / "before", UNEVEN, "finish")
        send_some(store, upload, UNEVEN, [0, 1])
        send_some(LocalStore(config(tmp_path / "before", durability="chunk")), upload, UNEVEN, [2])
        for folder in after_cuts(disk, tmp_path):
            check_bytes(folder, upload, UNEVEN)


def test_with_chunk_durability_the_identifier_still_finds_the_upload(tmp_path):
    with Disk(tmp_path / "before").watched() as disk:
        store, upload = begin(tmp_path / "before", EVEN, "chunk")
        send_some(store, upload, EVEN, [0])
        for folder in after_cuts(disk, tmp_path):
            assert LocalStore(config(folder)).find(upload) == upload


@pytest.mark.parametrize("durability", ["finish", "chunk"])
@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_file_that_was_reported_finished_is_on_the_disk(tmp_path, parts, durability):
    with Disk(tmp_path / "before").watched() as disk:
        store, upload = begin(tmp_path / "before", parts, durability)
        send_some(store, upload, parts, list(range(len(parts))))
        store.finish(upload.uid)
        for folder in after_cuts(disk, tmp_path):
            after = LocalStore(config(folder))
            finished, by_us = after.finish(upload.uid)
            assert (finished.state, by_us) == (State.FINISHED, False)
            assert Path(after.path(finished)).read_bytes() == b"".join(parts)
            # At the latest after the next sweep the owner has it in the list again, and it counts.
            after.clean()
            assert list(after.uids("ann")) == [upload.uid]


@pytest.mark.parametrize("durability", ["none", "finish", "chunk"])
@pytest.mark.parametrize("known", [True, False], ids=["length", "no length"])
@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_late_chunk_after_a_restart_does_not_touch_the_finished_file(folder, parts, known, durability):
    store, upload = begin(folder, parts, durability)
    send_some(store, upload, parts, list(range(len(parts))))
    finished, _ = store.finish(upload.uid)
    with other_boot():
        after = LocalStore(config(folder, durability=durability))
        for number in (0, 2, len(parts) - 1):
            with after.writer(finished, number, len(parts[number])) as cut, suppress(Error):
                cut.write(b"x" * (len(parts[number]) - 1))
            with pytest.raises(Error) as caught:
                put(after, finished, number, b"x" * len(parts[number]), known=known)
            assert caught.value.status == 409
            put(after, finished, number, parts[number], known=known)
    assert Path(store.path(finished)).read_bytes() == b"".join(parts)


# The order of the calls


def calls_of(tmp_path: Path, durability: str, parts: list[bytes], operate: Callable[[LocalStore, Record], Any]) -> list:
    store, upload = begin(tmp_path / "u", parts, durability)
    send_some(store, upload, parts, list(range(len(parts) - 1)))
    with Disk(tmp_path / "u").watched() as disk:
        disk._note_names()
        operate(store, upload)
        return disk.calls


def test_chunk_durability_syncs_bytes_then_table_then_acknowledges(tmp_path):
    for name, parts, file in (("even", EVEN, "data"), ("long", LONG, "data"), ("uneven", UNEVEN, "side-3")):
        last = len(parts) - 1
        calls = calls_of(tmp_path / name, "chunk", parts, lambda s, u, p=parts, n=last: put(s, u, n, p[n]))
        written = max(i for i, call in enumerate(calls) if call == ("pwrite", file))
        synced = calls.index(("fdatasync", file))
        entered = max(i for i, call in enumerate(calls) if call == ("pwrite", "chunks"))
        assert written < synced < entered, calls
        assert calls[-1] == ("fdatasync", "chunks"), calls
        # The claim comes before; what says that the chunk is there, after its bytes.
        assert [call for call in calls[synced:] if call[0] == "pwrite"] == 2 * [("pwrite", "chunks")]


@pytest.mark.parametrize("name", PARTS)
def test_finish_syncs_the_file_before_the_record_says_finished(tmp_path, name):
    parts = PARTS[name]

    def operate(store: LocalStore, upload: Record) -> None:
        put(store, upload, len(parts) - 1, parts[-1])
        store.finish(upload.uid)

    calls = calls_of(tmp_path, "finish", parts, operate)
    file = "assembled" if name == "uneven" else "data"
    written = max(i for i, call in enumerate(calls) if call in (("pwrite", file), ("copy_file_range", file)))
    renamed = calls.index(("rename", "upload.json.new"))
    assert ("fsync", file) in calls[written:renamed]
    assert ("fsync", "upload.json.new") in calls[written:renamed]
    assert "fsync" in {call for call, _ in calls[renamed:]}


@pytest.mark.parametrize("name", PARTS)
def test_without_durability_nothing_is_synced(tmp_path, name):
    parts = PARTS[name]
    calls = calls_of(tmp_path, "none", parts, lambda s, u: (put(s, u, len(parts) - 1, parts[-1]), s.finish(u.uid)))
    assert not {call for call, _ in calls} & {"fsync", "fdatasync"}


# Files that a power cut has spoilt

SPOIL = {
    "empty": lambda raw: b"",
    "zeros": lambda raw: bytes(len(raw)),
    "garbage": lambda raw: random.Random(9).randbytes(len(raw)),
    "half": lambda raw: raw[: len(raw) // 2],
    "header alone": lambda raw: raw[:128],
    "half a header": lambda raw: raw[:50],
    "no first page": lambda raw: bytes(128) + raw[128:],
    "one byte": lambda raw: raw[:1],
    "gone": None,
}
RECORDS = {
    **{name: SPOIL[name] for name in ("empty", "zeros", "garbage", "half", "one byte", "gone")},
    "list": lambda raw: b"[]",
    "object": lambda raw: b"{}",
    "number": lambda raw: b"5",
    "unknown state": lambda raw: raw.replace(b'"open"', b'"lost"').replace(b'"finished"', b'"lost"'),
}
HTTP_PARTS = 6


def spoil(folder: Path, name: str, how: Callable[[bytes], bytes] | None) -> None:
    path = folder / name
    if how is None:
        path.unlink()
    else:
        path.write_bytes(how(path.read_bytes()))


def begin_over_http(client: Any, sent: int) -> str:
    client.environ_base["HTTP_X_USER"] = "ann"
    uid = ""
    for number in range(sent):
        uid = send(client, DATA, 7000, number, uid=uid, identifier="id").json["uploadUid"]
    return uid


def touch_everything(client: Any, uid: str, *, finished: bool) -> None:
    """Ask for all that can be asked about an upload; whatever is answered, it is no error of the server."""
    wrong = bytes(len(DATA))
    named = {"identifier": "id", "fileName": "file.bin", "totalSize": len(DATA), "chunkCount": HTTP_PARTS}
    for ask in (
        lambda: client.get(f"/uploads/{uid}/status"),
        lambda: client.get("/uploads"),
        lambda: client.get("/uploads", query_string=named),
        lambda: client.get(f"/uploads/{uid}"),
        lambda: client.post("/_/surveyImport", json={"uploadUid": uid}),
        # To a finished upload wrong bytes can do nothing; to another they may be as good as any, so they are cut off.
        lambda: send(client, wrong, 7000, 0, uid=uid, **{} if finished else {"checksum": "md5:" + 32 * "0"}),
    ):
        with ask() as answer:
            assert answer.status_code in (200, 404, 409, 422), (answer.request.path, answer.text)


def upload_or_go_on(client: Any, uid: str) -> str:
    """Send what a client would send: what the status asks for, or all of it where there is no upload any more."""
    status = client.get(f"/uploads/{uid}/status")
    if status.status_code == 404:
        return begin_over_http(client, HTTP_PARTS)
    for first, last in status.json["missing"]:
        for number in range(first, last + 1):
            answer = send(client, DATA, 7000, number, uid=uid)
            assert answer.status_code == 200, answer.text
    return uid


SPOILT = [pytest.param(("chunks", how), id=f"chunks {name}") for name, how in SPOIL.items()]
SPOILT += [pytest.param(("upload.json", how), id=f"record {name}") for name, how in RECORDS.items()]


@pytest.mark.parametrize("sent", [3, HTTP_PARTS], ids=["open", "finished"])
@pytest.mark.parametrize("spoilt", SPOILT)
def test_spoilt_file_means_asking_again_never_wrong_bytes(client, folder, spoilt, sent):
    assert len(split(DATA, 7000)) == HTTP_PARTS
    uid = begin_over_http(client, sent)
    spoil(folder / uid, *spoilt)
    with other_boot():
        touch_everything(client, uid, finished=sent == HTTP_PARTS)
        uid = upload_or_go_on(client, uid)
        assert fetch(client, uid) == DATA


@pytest.mark.parametrize("sent", [3, HTTP_PARTS], ids=["open", "finished"])
@pytest.mark.parametrize("spoilt", SPOILT)
def test_spoilt_upload_is_swept_when_it_is_old(client, host, folder, spoilt, sent):
    uid = begin_over_http(client, sent)
    spoil(folder / uid, *spoilt)
    for path in [folder / uid, *(folder / uid).iterdir()]:
        os.utime(path, (1000, 1000))
    with other_boot(), host.app_context():
        host.extensions["upload_helper"].helper.sweep()
    assert not (folder / uid).exists()


@pytest.mark.parametrize("durability", ["none", "finish", "chunk"])
def test_old_upload_is_swept_after_a_restart(folder, durability):
    store, upload = begin(folder, EVEN, durability)
    send_some(store, upload, EVEN, [0, 1])
    for path in [folder / upload.uid, *(folder / upload.uid).iterdir()]:
        os.utime(path, (1000, 1000))
    with other_boot():
        assert store.delete_expired(upload.uid, time.time() - 60) is not None


def test_one_sick_upload_does_not_keep_the_others_from_being_swept(client, host, folder):
    uids = [begin_over_http(client, 1)]
    uids += [send(client, DATA, 7000, 0).json["uploadUid"] for _ in range(5)]
    (folder / uids[2] / "chunks").unlink()
    (folder / uids[2] / "chunks").symlink_to(folder / uids[0] / "chunks")
    for path in [*folder.glob("????????*"), *folder.glob("????????*/*")]:
        os.utime(path, (1000, 1000), follow_symlinks=False)
    with host.app_context(), suppress(Error):
        host.extensions["upload_helper"].helper.sweep()
    assert not [uid for uid in uids if (folder / uid).exists() and uid != uids[2]]


def test_lost_side_file_is_asked_for_again(folder):
    store, upload = begin(folder, UNEVEN, "finish")
    send_some(store, upload, UNEVEN, [0, 1, 2, 3])
    (folder / upload.uid / "side-1").unlink()
    with pytest.raises(Error) as caught:
        store.finish(upload.uid)
    assert caught.value.status == 409
    assert complete(store, upload, UNEVEN) == DATA


# A full disk


@pytest.fixture(params=["real", "feigned"])
def disk(request, tmp_path: Path) -> Iterator[SmallDisk]:
    path = tmp_path / "disk"
    with small_disk(path) if request.param == "real" else FeignedDisk(path).ready() as disk:
        yield disk


@pytest.fixture
def full_client(make_host, disk: SmallDisk):
    """Return a client of a host whose uploads are on the small disk; the host has got all its folders."""
    client = make_host(folder=disk.path / "uploads").test_client()
    client.delete(f"/uploads/{send(client, b'12', 1, 0).json['uploadUid']}")
    return client


def left_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith((".lock", ".swept"))]


def test_creating_on_a_full_disk_leaves_nothing(full_client, disk):
    folder = disk.path / "uploads"
    # With a page more each time, creation comes a step further before it fails.
    for pages in range(12):
        room = disk.room()
        disk.fill(leave=pages * 4096)
        answer = send(full_client, bytes(5000), 2500, 0, identifier="id", name=f"{pages}.bin")
        if answer.status_code == 200:
            assert pages > 3
            return
        assert answer.status_code == 507, answer.text
        assert answer.json["code"] == "storage_full"
        assert left_in(folder) == [], f"{pages} pages free"
        disk.free()
        assert disk.room() == room
    raise AssertionError("it never worked")


def multipart(client: Any, data: bytes, content: bytes, **values: Any) -> Any:
    return client.post("/uploads", data={**values, "content": (io.BytesIO(content), "blob")})


def raw(client: Any, data: bytes, content: bytes, **values: Any) -> Any:
    return client.post("/uploads", query_string=values, data=content, headers=RAW)


@pytest.mark.parametrize("post", [raw, multipart])
@pytest.mark.parametrize("leave", [0, 100 * KIB])
def test_chunk_that_has_no_room_is_not_acknowledged_and_goes_on_later(full_client, disk, post, leave):
    data = random.Random(10).randbytes(1000 * KIB)
    parts = [data[: 300 * KIB], data[300 * KIB : 650 * KIB], data[650 * KIB :]]
    values = {"fileName": "f", "totalSize": len(data), "chunkCount": 3}
    uid = post(full_client, data, parts[0], **values, chunkNumber=0).json["uploadUid"]
    disk.fill(leave=leave)
    room = disk.room()
    for _ in range(3):
        answer = post(full_client, data, parts[1], **values, chunkNumber=1, uploadUid=uid)
        assert (answer.status_code, answer.json["code"]) == (507, "storage_full")
        assert int(answer.headers["Retry-After"]) > 0
        assert disk.room() == room
    status = full_client.get(f"/uploads/{uid}/status").json
    assert (status["missing"], status["receivedBytes"]) == ([[1, 2]], 300 * KIB)
    disk.free()
    for number in (0, 1, 2):
        assert post(full_client, data, parts[number], **values, chunkNumber=number, uploadUid=uid).status_code == 200
    assert fetch(full_client, uid) == data


def test_chunk_whose_place_in_the_table_has_no_room_is_not_acknowledged(full_client, disk):
    data = random.Random(11).randbytes(1000 * KIB)
    uid = send(full_client, data, KIB, 0).json["uploadUid"]
    disk.fill()
    # Room for the bytes was reserved, but the table grows.
    assert send(full_client, data, KIB, 1, uid=uid).status_code == 200
    assert send(full_client, data, KIB, 900, uid=uid).status_code == 507
    assert full_client.get(f"/uploads/{uid}/status").json["missing"] == [[2, 999]]
    disk.free()
    for number in range(1000):
        assert send(full_client, data, KIB, number, uid=uid).status_code == 200
    assert fetch(full_client, uid) == data


@pytest.mark.parametrize("cuts", [(0, 400, 800, 1000), (0, 390, 800, 1000)], ids=["regular", "irregular"])
def test_finishing_without_room_takes_none_and_works_later(full_client, disk, cuts):
    data = random.Random(12).randbytes(1000 * KIB)
    parts = [data[start * KIB : end * KIB] for start, end in itertools.pairwise(cuts)]
    values = {"fileName": "f", "totalSize": len(data), "chunkCount": 3, "uploadUid": ""}
    for number in (0, 1):
        answer = raw(full_client, data, parts[number], **values, chunkNumber=number)
        values["uploadUid"] = answer.json["uploadUid"]
    disk.fill(leave=0 if cuts[1] == 400 else 500 * KIB)
    for _ in range(2):
        assert raw(full_client, data, parts[2], **values, chunkNumber=2).status_code == 507
    if cuts[1] != 400:
        # The last chunk, or what was put together of the file, has been given back.
        assert disk.room() >= 290 * KIB
    disk.free()
    assert raw(full_client, data, parts[2], **values, chunkNumber=2).status_code == 200
    assert fetch(full_client, values["uploadUid"]) == data
