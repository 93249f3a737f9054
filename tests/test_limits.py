"""Limits: of a file, a chunk, an owner and the disk; what counts, since when, and until when."""

from __future__ import annotations

import os
import random
import threading
import time
from typing import Any

import pytest

import upload_helper as uh
from chunks import RAW, fields, send, split, upload
from hostile import ENCODINGS, decoded, refusal, tree, uploads_in

DATA = random.Random(16).randbytes(1000)
PARTS = split(DATA, 300)
ANN, BOB = {"X-User": "ann"}, {"X-User": "bob"}


def helper_of(app: Any) -> uh.UploadHelper:
    return app.extensions["upload_helper"].helper


def begin(client: Any, headers: Any = ANN, data: bytes = DATA, **more: Any) -> Any:
    return send(client, data, 300, 0, headers=headers, **more)


# -- one file


@pytest.mark.parametrize(("limit", "status"), [(1000, 200), (999, 413), (0, 413)])
@pytest.mark.parametrize("encode", ENCODINGS)
def test_largest_file(make_host, folder, encode, limit, status):
    client = make_host(max_file_size=limit).test_client()
    answer = client.post("/uploads", **encode(fields(DATA, 300, 0), PARTS[0]))
    assert answer.status_code == status
    if status == 413:
        assert str(limit) in refusal(answer, 413, "too_large")["error"]
        assert tree(folder) is None


@pytest.mark.parametrize(("limit", "status"), [(4, 200), (3, 400)])
@pytest.mark.parametrize("encode", ENCODINGS)
def test_most_chunks(make_host, folder, encode, limit, status):
    client = make_host(max_chunks=limit).test_client()
    answer = client.post("/uploads", **encode(fields(DATA, 300, 0), PARTS[0]))
    assert answer.status_code == status
    if status == 400:
        assert str(limit) in refusal(answer, 400, "invalid_request")["error"]
        assert tree(folder) is None


def test_limits_hold_for_new_uploads_and_let_those_that_began_finish(make_host):
    uid = begin(make_host().test_client()).json["uploadUid"]
    strict = make_host(max_file_size=10, max_chunks=1, max_open_uploads=0, max_owner_bytes=0, allowed_extensions=["tif"],
                       min_free_space=2**62).test_client()  # fmt: skip
    for number in (1, 2, 3):
        assert send(strict, DATA, 300, number, uid=uid, headers=ANN).status_code == 200
    assert strict.get(f"/uploads/{uid}/status", headers=ANN).json["state"] == "finished"


def test_later_chunk_over_the_limit_is_refused_and_the_upload_goes_on(make_host):
    uid = begin(make_host().test_client()).json["uploadUid"]
    strict = make_host(max_chunk_size=200).test_client()
    refusal(send(strict, DATA, 300, 1, uid=uid, headers=ANN), 413, "too_large")
    assert strict.get(f"/uploads/{uid}/status", headers=ANN).json["missing"] == [[1, 3]]


# -- one owner


@pytest.mark.parametrize("encode", ENCODINGS)
def test_owner_with_too_many_open_uploads_has_to_wait(make_host, folder, encode):
    client = make_host(max_open_uploads=2).test_client()
    first = begin(client).json["uploadUid"]
    begin(client)
    before = uploads_in(folder)
    chunk = encode(fields(DATA, 300, 0), PARTS[0])
    answer = client.post("/uploads", **{**chunk, "headers": {**chunk.get("headers", {}), **ANN}})
    refusal(answer, 429, "too_many_uploads")
    assert int(answer.headers["Retry-After"]) > 0
    assert uploads_in(folder) == before
    assert begin(client, BOB).status_code == 200
    assert client.delete(f"/uploads/{first}", headers=ANN).status_code == 204
    assert begin(client).status_code == 200


def test_finished_upload_is_no_open_one(make_host):
    client = make_host(max_open_uploads=1).test_client()
    upload(client, DATA, 300, headers=ANN)
    upload(client, DATA, 300, headers=ANN)
    begin(client)
    refusal(begin(client), 429, "too_many_uploads")


def test_upload_with_all_its_chunks_is_open_while_their_sum_is_wrong(make_host):
    client = make_host(max_open_uploads=1).test_client()
    uid = ""
    for number, part in enumerate([PARTS[0], PARTS[1][:-1], *PARTS[2:]]):
        chunk = ENCODINGS[-1](fields(DATA, 300, number, uid=uid), part)
        uid = decoded(client.post("/uploads", **chunk))["uploadUid"]
    refusal(begin(client, {}), 429, "too_many_uploads")


@pytest.mark.parametrize("limit", [2000, 2999])
def test_bytes_of_an_owner_are_counted_when_an_upload_is_created(make_host, folder, limit):
    client = make_host(max_owner_bytes=limit).test_client()
    uids = [begin(client).json["uploadUid"] for _ in range(2)]
    before = uploads_in(folder)
    told = refusal(begin(client), 413, "too_large")["error"]
    assert "2000" in told
    assert str(limit) in told
    assert uploads_in(folder) == before
    assert begin(client, BOB).status_code == 200
    for number in (1, 2, 3):
        assert send(client, DATA, 300, number, uid=uids[0], headers=ANN).status_code == 200
    refusal(begin(client), 413, "too_large")


def test_file_as_large_as_what_is_left_is_taken(make_host):
    client = make_host(max_owner_bytes=1500).test_client()
    begin(client)
    assert begin(client, data=DATA[:500]).status_code == 200
    assert begin(client, data=b"").status_code == 200
    refusal(begin(client, data=b"x"), 413, "too_large")


def test_file_larger_than_an_owner_may_have_at_all_leaves_nothing(make_host, folder):
    refusal(begin(make_host(max_owner_bytes=999).test_client()), 413, "too_large")
    assert uploads_in(folder) == []


def ways_to_free(app: Any, client: Any, uid: str, tmp_path: Any) -> dict[str, Any]:
    def as_host(do: Any) -> None:
        with app.app_context():
            do(helper_of(app).get_upload(uid))

    return {
        "DELETE": lambda: client.delete(f"/uploads/{uid}", headers=ANN),
        "delete": lambda: as_host(lambda found: found.delete()),
        "move_to": lambda: as_host(lambda found: found.move_to(tmp_path / "moved")),
        "helper": lambda: helper_of(app).delete(uid),
        "sweep": lambda: (_age(app, uid), helper_of(app).sweep()),
    }


def _age(app: Any, uid: str) -> None:
    folder = app.extensions["upload_helper"].config.folder
    for path in [folder / uid, *(folder / uid).iterdir()]:
        os.utime(path, (1, 1))


@pytest.mark.parametrize("way", ["DELETE", "delete", "move_to", "helper", "sweep"])
def test_bytes_of_a_finished_upload_count_until_it_is_gone(make_host, folder, tmp_path, way):
    app = make_host(max_owner_bytes=1000)
    client = app.test_client()
    uid = upload(client, DATA, 300, headers=ANN)
    refusal(begin(client), 413, "too_large")
    ways_to_free(app, client, uid, tmp_path)[way]()
    assert uploads_in(folder) == []
    assert begin(client).status_code == 200


@pytest.mark.parametrize("way", ["DELETE", "helper", "sweep"])
def test_bytes_of_an_open_upload_count_until_it_is_gone(make_host, tmp_path, way):
    app = make_host(max_owner_bytes=1000)
    client = app.test_client()
    uid = begin(client, identifier="x").json["uploadUid"]
    refusal(begin(client, identifier="y"), 413, "too_large")
    ways_to_free(app, client, uid, tmp_path)[way]()
    assert begin(client, identifier="x").json["uploadUid"] != uid


def test_refused_first_chunk_does_not_use_up_the_quota(make_host):
    client = make_host(max_owner_bytes=1000, max_open_uploads=1).test_client()
    for _ in range(3):
        refusal(begin(client, checksum="md5:" + "0" * 32), 422)
    assert begin(client).status_code == 200


def test_upload_found_by_its_identifier_is_counted_once(make_host):
    client = make_host(max_owner_bytes=1000, max_open_uploads=1).test_client()
    uid = begin(client, identifier="x").json["uploadUid"]
    assert begin(client, identifier="x").json["uploadUid"] == uid
    refusal(begin(client, identifier="y"), 429)


def test_what_a_killed_process_entered_and_never_made_is_not_counted(make_host, folder):
    client = make_host(max_owner_bytes=1000, max_open_uploads=1).test_client()
    uid = begin(client).json["uploadUid"]
    client.delete(f"/uploads/{uid}", headers=ANN)
    (owner,) = (folder / ".owners").iterdir()
    (owner / f"{'a' * 32}.1000.open").touch()
    assert begin(client).status_code == 200


@pytest.mark.parametrize("settings", [{"max_open_uploads": 5}, {"max_owner_bytes": 5999}])
def test_creating_at_once_does_not_exceed_the_quota(make_host, folder, settings):
    apps = [make_host(**settings) for _ in range(2)]
    codes: list[int] = []
    ready = threading.Barrier(12)

    def create(app: Any) -> None:
        client = app.test_client()
        ready.wait()
        for _ in range(2):
            codes.append(begin(client).status_code)

    threads = [threading.Thread(target=create, args=(apps[i % 2],)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes.count(200) == 5
    assert len(codes) == 24
    assert set(codes) == {200, 429 if "max_open_uploads" in settings else 413}
    assert len([name for name in uploads_in(folder) if len(name) == 32]) == 5


def test_creating_at_once_under_one_identifier_makes_one_upload(make_host, folder):
    apps = [make_host(max_open_uploads=1) for _ in range(2)]
    uids: list[str] = []
    ready = threading.Barrier(8)

    def create(number: int) -> None:
        client = apps[number % 2].test_client()
        ready.wait()
        uids.append(send(client, DATA, 300, number % 4, headers=ANN, identifier="x").json["uploadUid"])

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(uids)) == 1
    assert len(uids) == 8


def test_list_costs_no_more_for_uploads_of_very_many_chunks(make_host):
    client = make_host().test_client()
    values = {"fileName": "x", "totalSize": 1_000_000, "chunkCount": 1_000_000, "chunkNumber": 999_999}
    for _ in range(20):
        client.post("/uploads", query_string=values, data=b"x", headers={**RAW, **ANN})
    started = time.process_time()
    listed = client.get("/uploads", headers=ANN).json["uploads"]
    assert time.process_time() - started < 0.3
    assert [found["receivedBytes"] for found in listed] == [1] * 20


# -- the disk


def free_bytes(folder: Any) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


@pytest.mark.parametrize("encode", ENCODINGS)
def test_space_that_is_kept_free_is_not_reserved(make_host, folder, tmp_path, encode):
    settings = {"max_file_size": 2**62, "max_owner_bytes": 2**62, "min_free_space": free_bytes(tmp_path) + (1 << 40)}
    client = make_host(**settings).test_client()
    answer = client.post("/uploads", **encode(fields(DATA, 300, 0), PARTS[0]))
    refusal(answer, 507, "storage_full")
    assert int(answer.headers["Retry-After"]) > 0
    assert uploads_in(folder) == []


def test_file_larger_than_the_disk_is_refused_at_its_first_chunk(make_host, folder, tmp_path):
    client = make_host(max_file_size=2**62, max_owner_bytes=2**62).test_client()
    values = {**fields(DATA, 300, 0), "totalSize": free_bytes(tmp_path) + (1 << 40)}
    refusal(client.post("/uploads", **ENCODINGS[-1](values, PARTS[0])), 507, "storage_full")
    assert uploads_in(folder) == []


def test_space_of_an_upload_is_reserved_when_it_is_created(make_host, folder):
    client = make_host().test_client()
    data = bytes(8 << 20)
    uid = send(client, data, 1 << 20, 5, headers=ANN).json["uploadUid"]
    reserved = (folder / uid / "data").stat()
    assert reserved.st_size == len(data)
    assert reserved.st_blocks * 512 >= len(data)


# -- signals


@pytest.fixture
def events(make_host, request):
    """Return a host, and the list of what its signals say."""
    told: list[tuple[str, Any, uh.Upload]] = []
    app = make_host(max_open_uploads=3)
    for name in ("created", "finished", "deleted"):
        signal = getattr(uh, f"upload_{name}")

        def note(sender: Any, upload: uh.Upload, name: str = name) -> None:
            told.append((name, sender, upload))

        signal.connect(note, weak=False)
        request.addfinalizer(lambda signal=signal, note=note: signal.disconnect(note))
    return app, told


def test_signals_tell_what_happened_to_which_upload_with_the_application_as_sender(events):
    app, told = events
    client = app.test_client()
    uid = upload(client, DATA, 300, headers=ANN)
    client.delete(f"/uploads/{uid}", headers=ANN)
    assert [name for name, _, _ in told] == ["created", "finished", "deleted"]
    assert all(sender is app for _, sender, _ in told)
    assert all((found.uploadUid, found.fileName, found.totalSize, found.owner) == (uid, "file.bin", 1000, "ann")
               for _, _, found in told)  # fmt: skip
    assert [bool(found.path) for _, _, found in told] == [False, True, True]


def test_signals_come_once(events):
    app, told = events
    client = app.test_client()
    uid = begin(client, identifier="x").json["uploadUid"]
    begin(client, identifier="x")
    for number in (1, 2, 3, 3, 0):
        send(client, DATA, 300, number, uid=uid, headers=ANN)
    client.get(f"/uploads/{uid}", headers=ANN).close()
    client.delete(f"/uploads/{uid}", headers=ANN)
    client.delete(f"/uploads/{uid}", headers=ANN)
    assert [name for name, _, _ in told] == ["created", "finished", "deleted"]


def test_upload_whose_file_was_moved_is_not_reported_as_deleted(events, tmp_path):
    app, told = events
    uid = upload(app.test_client(), DATA, 300, headers=ANN)
    with app.app_context():
        helper_of(app).get_upload(uid).move_to(tmp_path / "target")
    assert [name for name, _, _ in told] == ["created", "finished"]


def test_refused_requests_are_not_reported(events):
    app, told = events
    client = app.test_client()
    begin(client, {**ANN, "X-Role": "none"})
    begin(client, name="x" * 300)
    client.delete(f"/uploads/{'0' * 32}", headers=ANN)
    assert told == []


def test_listener_of_the_host_may_move_the_file_at_once(make_host, tmp_path, folder):
    app = make_host()
    moved = []

    def take(sender: Any, upload: uh.Upload) -> None:
        moved.append(upload.move_to(tmp_path / f"moved-{upload.uploadUid}"))

    with uh.upload_finished.connected_to(take, sender=app):
        uid = upload(app.test_client(), DATA, 300, headers=ANN)
    assert [path.read_bytes() for path in moved] == [DATA]
    refusal(app.test_client().get(f"/uploads/{uid}", headers=ANN), 404)
    assert uploads_in(folder) == []


def test_signals_of_two_applications_are_told_apart(make_host, tmp_path):
    apps = [make_host(folder=tmp_path / str(i)) for i in range(2)]
    told = []

    def note(sender: Any, upload: uh.Upload) -> None:
        told.append((sender, upload.uploadUid))

    with uh.upload_created.connected_to(note, sender=apps[0]):
        first = begin(apps[0].test_client()).json["uploadUid"]
        begin(apps[1].test_client())
    assert told == [(apps[0], first)]
