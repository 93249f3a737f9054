"""Expiry since the last write, and sweeping: by hand, by the way, around writers, and whatever is wrong with old uploads."""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import upload_helper as uh
from chunks import fetch, fields, send, split, upload
from hostile import uploads_in
from upload_helper.protocols.chunked import ChunkRequest

DATA = random.Random(17).randbytes(1000)
PARTS = split(DATA, 300)
DAY = 86400
ANN = {"X-User": "ann"}


@pytest.fixture
def app(make_host):
    return make_host(expiry=7 * DAY, sweep_interval=0)


@pytest.fixture
def client(app):
    return app.test_client()


def helper_of(app: Any) -> uh.UploadHelper:
    return app.extensions["upload_helper"].helper


def sweep(app: Any) -> int:
    with app.app_context():
        return helper_of(app).sweep()


def age(path: Path, days: float) -> None:
    """Make everything below a path as if nobody had touched it for so many days."""
    then = time.time() - days * DAY
    with suppress(FileNotFoundError):
        for found in [*path.rglob("*"), path]:
            os.utime(found, (then, then), follow_symlinks=False)


def uids(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_abandoned_uploads_are_swept_finished_or_not_and_no_others(app, client, folder):
    old = [send(client, DATA, 300, 0).json["uploadUid"], upload(client, DATA, 300)]
    for uid in old:
        age(folder / uid, 8)
    young = [send(client, DATA, 300, 0).json["uploadUid"], upload(client, DATA, 300)]
    for uid in young:
        age(folder / uid, 6)
    assert sweep(app) == 2
    assert uids(folder) == set(young)
    assert sweep(app) == 0
    assert fetch(client, young[1]) == DATA


def test_nothing_is_swept_where_nothing_ever_was(app, folder):
    assert sweep(app) == 0
    assert not folder.exists()


def test_without_expiry_nothing_is_swept(make_host, folder):
    app = make_host(expiry=0, sweep_interval=0)
    uid = send(app.test_client(), DATA, 300, 0).json["uploadUid"]
    age(folder / uid, 10_000)
    assert sweep(app) == 0
    assert app.test_client().get(f"/uploads/{uid}/status").json["expires"] is None


def test_every_chunk_puts_the_expiry_off(app, client, folder):
    uid = send(client, DATA, 300, 0).json["uploadUid"]
    for number in (1, 2, 3):
        age(folder / uid, 8)
        assert send(client, DATA, 300, number, uid=uid).status_code == 200
        assert sweep(app) == 0
    assert uids(folder) == {uid}


@pytest.mark.parametrize("what", ["status", "list", "download"])
def test_looking_does_not_put_the_expiry_off(app, client, folder, what):
    uid = upload(client, DATA, 300, headers=ANN)
    age(folder / uid, 8)
    url = {"status": f"/uploads/{uid}/status", "list": "/uploads", "download": f"/uploads/{uid}"}[what]
    with client.get(url, headers=ANN) as answer:
        assert answer.status_code == 200
    assert sweep(app) == 1


def test_status_tells_when_the_upload_expires(client, folder):
    uid = send(client, DATA, 300, 0).json["uploadUid"]
    assert client.get(f"/uploads/{uid}/status").json["expires"] == pytest.approx(time.time() + 7 * DAY, abs=60)
    age(folder / uid, 3)
    assert client.get(f"/uploads/{uid}/status").json["expires"] == pytest.approx(time.time() + 4 * DAY, abs=60)


def test_expired_upload_that_nobody_has_swept_yet_can_go_on(app, client, folder):
    uid = send(client, DATA, 300, 0).json["uploadUid"]
    age(folder / uid, 100)
    for number in (1, 2, 3):
        assert send(client, DATA, 300, number, uid=uid).status_code == 200
    assert sweep(app) == 0
    assert fetch(client, uid) == DATA


def test_sweeping_frees_the_identifier_and_the_index(app, client, folder):
    uid = send(client, DATA, 300, 0, identifier="x").json["uploadUid"]
    age(folder / uid, 8)
    sweep(app)
    assert uploads_in(folder) == []
    assert not list((folder / ".owners").iterdir())
    assert send(client, DATA, 300, 0, identifier="x").json["uploadUid"] != uid


def test_swept_uploads_are_reported(app, client, folder):
    told = []

    def note(sender: Any, upload: uh.Upload) -> None:
        told.append((sender, upload.uploadUid))

    uid = send(client, DATA, 300, 0).json["uploadUid"]
    age(folder / uid, 8)
    with uh.upload_deleted.connected_to(note, sender=app):
        sweep(app)
    assert told == [(app, uid)]


# -- writers


class Paused:
    """The body of a chunk that stops in the middle until it is told to go on."""

    def __init__(self, content: bytes) -> None:
        self.waiting = threading.Event()
        self.resume = threading.Event()
        self._content = content

    def __iter__(self):
        half = len(self._content) // 2
        yield self._content[:half]
        self.waiting.set()
        assert self.resume.wait(30)
        yield self._content[half:]


def write_slowly(app: Any, uid: str, number: int) -> tuple[Paused, threading.Thread, list[object]]:
    """Send a chunk in a thread that stops in the middle; return what makes it go on, the thread, and what came of it."""
    body = Paused(PARTS[number])
    values = fields(DATA, 300, number, uid=uid)
    chunk = ChunkRequest.streamed(values, body, len(PARTS[number]))
    came: list[object] = []

    def run() -> None:
        try:
            with app.app_context():
                came.append(helper_of(app).handle_chunk_request(None, chunk).uploadUid)  # type: ignore[arg-type]
        except uh.Error as error:
            came.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert body.waiting.wait(30)
    return body, thread, came


def test_upload_that_somebody_writes_to_is_not_swept(app, client, folder):
    uid = send(client, DATA, 300, 0).json["uploadUid"]
    age(folder / uid, 8)
    body, thread, came = write_slowly(app, uid, 1)
    assert sweep(app) == 0
    body.resume.set()
    thread.join()
    assert came == [uid]
    assert client.get(f"/uploads/{uid}/status").json["missing"] == [[2, 3]]


def test_writer_whose_client_has_been_silent_past_the_expiry_finds_its_upload_gone_and_revives_nothing(
    app, client, folder
):
    uid = send(client, DATA, 300, 0).json["uploadUid"]
    body, thread, came = write_slowly(app, uid, 1)
    age(folder / uid, 8)
    assert sweep(app) == 1
    body.resume.set()
    thread.join()
    assert [type(result) for result in came] == [uh.NotFoundError]
    assert uploads_in(folder) == []


def test_what_was_acknowledged_a_moment_ago_is_never_swept(app, client, folder):
    data = bytes(2000)
    stop = threading.Event()
    swept = []

    def keep_sweeping() -> None:
        while not stop.is_set():
            swept.append(sweep(app))

    thread = threading.Thread(target=keep_sweeping)
    thread.start()
    codes = []
    try:
        uid = ""
        for number in range(200):
            if uid:
                age(folder / uid, 8)
            answer = send(client, data, 10, number, uid=uid)
            codes.append(answer.status_code)
            uid = answer.json["uploadUid"] if answer.status_code == 200 else ""
            assert not uid or client.get(f"/uploads/{uid}/status").status_code == 200
    finally:
        stop.set()
        thread.join()
    assert set(codes) <= {200, 404}
    assert 200 in codes


def test_two_sweeps_at_once_count_each_upload_once(make_host, folder):
    apps = [make_host(expiry=DAY, sweep_interval=0) for _ in range(2)]
    for _ in range(20):
        age(folder / send(apps[0].test_client(), DATA, 300, 0).json["uploadUid"], 2)
    counts = []
    threads = [threading.Thread(target=lambda app=app: counts.append(sweep(app))) for app in apps * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 20
    assert uids(folder) == set()


# -- by the way


def test_creating_an_upload_sweeps_now_and_then(make_host, folder):
    app = make_host(expiry=DAY, sweep_interval=100)
    client = app.test_client()
    first = send(client, DATA, 300, 0).json["uploadUid"]
    age(folder / first, 2)
    second = send(client, DATA, 300, 0).json["uploadUid"]
    assert uids(folder) == {first, second}, "it swept again before its time"
    age(folder / ".swept", 1)
    third = send(client, DATA, 300, 0).json["uploadUid"]
    assert uids(folder) == {second, third}


def test_only_creating_sweeps(make_host, folder):
    app = make_host(expiry=DAY, sweep_interval=100)
    client = app.test_client()
    old, new = (send(client, DATA, 300, 0).json["uploadUid"] for _ in range(2))
    age(folder / old, 2)
    age(folder / ".swept", 1)
    send(client, DATA, 300, 1, uid=new)
    client.get(f"/uploads/{new}/status")
    assert uids(folder) == {old, new}


def test_without_an_interval_creating_does_not_sweep(app, client, folder):
    old = send(client, DATA, 300, 0).json["uploadUid"]
    age(folder / old, 100)
    send(client, DATA, 300, 0)
    assert old in uids(folder)


def broken_listener(sender: Any, upload: uh.Upload) -> None:
    raise RuntimeError("a mistake in the host")


BREAKAGES = {
    "listener": lambda folder, old: None,
    "planted link": lambda folder, old: replace_by_link(folder / old / "chunks"),
    "file in place of the table": lambda folder, old: replace_by_folder(folder / old / "chunks"),
    "record in a mess": lambda folder, old: (folder / old / "upload.json").write_text("{"),
    "record of another kind": lambda folder, old: (folder / old / "upload.json").write_text('{"uid": 5}'),
    "record that is a list": lambda folder, old: (folder / old / "upload.json").write_text("[]"),
    "no record": lambda folder, old: (folder / old / "upload.json").unlink(),
    "no table": lambda folder, old: (folder / old / "chunks").unlink(),
    "no data": lambda folder, old: (folder / old / "data").unlink(),
    "nothing": lambda folder, old: [path.unlink() for path in (folder / old).iterdir()],
    "stamp is a folder": lambda folder, old: replace_by_folder(folder / ".swept"),
    "owner is a file": lambda folder, old: (folder / ".owners" / ("a" * 32)).write_text("x"),
    "strange names": lambda folder, old: [(folder / name).mkdir() for name in ("x", "f" * 31, "F" * 32)],
    "scratch is gone": lambda folder, old: shutil.rmtree(folder / ".scratch"),
}


def replace_by_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("what", BREAKAGES)
def test_whatever_is_wrong_with_an_old_upload_a_new_one_begins_and_other_old_ones_are_swept(make_host, folder, what):
    app = make_host(expiry=DAY, sweep_interval=100)
    client = app.test_client()
    old = [send(client, DATA, 300, 0, identifier=str(i)).json["uploadUid"] for i in range(5)]
    BREAKAGES[what](folder, old[2])
    for uid in old:
        age(folder / uid, 2)
    age(folder / ".swept", 1)
    listeners = [uh.upload_deleted.connect(broken_listener, sender=app)] if what == "listener" else []
    try:
        answer = send(client, DATA, 300, 0, identifier="new")
    finally:
        for listener in listeners:
            uh.upload_deleted.disconnect(listener)
    assert answer.status_code == 200, answer.text
    assert send(client, DATA, 300, 0, identifier="new").json["uploadUid"] == answer.json["uploadUid"]
    if what not in ("listener", "stamp is a folder"):
        assert not uids(folder) & {old[0], old[1], old[3], old[4]}


@pytest.mark.parametrize("what", ["record in a mess", "no record", "no table", "no data", "nothing"])
def test_upload_that_lost_something_is_swept_like_any_other(app, client, folder, what):
    uid = send(client, DATA, 300, 0, identifier="x").json["uploadUid"]
    BREAKAGES[what](folder, uid)
    sweep(app)
    assert uid in uids(folder), "swept before its time"
    age(folder / uid, 8)
    sweep(app)
    age(folder / ".scratch", 1)
    sweep(app)
    assert uploads_in(folder) == []


# -- leftovers


def test_leftovers_of_killed_processes_are_removed_after_an_hour(app, client, folder):
    send(client, DATA, 300, 0)
    for name, days in (("half", 1 / 12), ("fresh", 0)):
        (folder / ".scratch" / name).mkdir()
        (folder / ".scratch" / name / "data").write_bytes(DATA)
        age(folder / ".scratch" / name, days)
    sweep(app)
    assert [path.name for path in (folder / ".scratch").iterdir()] == ["fresh"]


def test_entries_of_uploads_that_are_not_there_are_removed(app, client, folder):
    kept = send(client, DATA, 300, 0, identifier="kept").json["uploadUid"]
    gone = send(client, DATA, 300, 0, identifier="gone", headers=ANN).json["uploadUid"]
    shutil.rmtree(folder / gone)
    assert len(list(folder.glob(".owners/*/*"))) == 4
    sweep(app)
    assert len(list(folder.glob(".owners/*/*"))) == 2
    assert len(list(folder.glob(".owners/*"))) == 1
    assert send(client, DATA, 300, 0, identifier="kept").json["uploadUid"] == kept


def test_folder_that_the_operator_emptied_is_filled_again(client, folder):
    send(client, DATA, 300, 0)
    shutil.rmtree(folder)
    assert fetch(client, upload(client, DATA, 300)) == DATA
