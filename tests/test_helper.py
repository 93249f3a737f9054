"""What a host does with the helper: registering it, its own views, server code, the finished upload, signals."""

from __future__ import annotations

import gc
import io
import os
import random
import stat
import subprocess
import sys
import tempfile
import threading
import tracemalloc
import weakref
from pathlib import Path

import pytest
from flask import Blueprint, Flask, abort, jsonify, request
from flask_wtf.csrf import CSRFProtect, generate_csrf
from werkzeug.middleware.proxy_fix import ProxyFix

import upload_helper as uh
from chunks import RAW, fetch, fields, send, split, upload
from host import make_actions
from servers import PLUGIN
from test_chunks import ENCODINGS, as_raw
from upload_helper.stores import LocalStore

DATA = random.Random(5).randbytes(10_007)
SIZE = 3000


def anybody(_: uh.Access) -> bool:
    return True


def who() -> str | None:
    return request.headers.get("X-User")


@pytest.fixture
def make_app(tmp_path):
    """Return a function that makes an application with uploads in a folder of its own."""

    def make(helper: uh.UploadHelper | None = None, name: str = "app", **settings: object) -> Flask:
        app = Flask(name)
        defaults = {"folder": tmp_path / name / "uploads", "durability": "none", "min_free_space": 0}
        app.config.update({f"UPLOAD_HELPER_{k.upper()}": v for k, v in {**defaults, **settings}.items()})
        if helper is not None:
            helper.init_app(app)
            app.register_blueprint(helper.blueprint())
        return app

    return make


@pytest.fixture
def helper() -> uh.UploadHelper:
    return uh.UploadHelper(authorize=anybody, identify=who)


@pytest.fixture
def app(make_app, helper) -> Flask:
    return make_app(helper)


@pytest.fixture
def client(app):
    return app.test_client()


@pytest.fixture
def uid(client) -> str:
    """Return the uid of a finished upload."""
    return upload(client, DATA, SIZE)


# --- registering ---


def test_helper_is_registered_at_once_or_later(make_app):
    now, later = make_app(name="now"), make_app(name="later")
    helper = uh.UploadHelper(now)
    assert helper.init_app(later) is None
    for app in (now, later):
        with app.app_context():
            assert uh.current_helper.uploads() == []


@pytest.mark.parametrize("again", ["the same helper", "another helper"])
def test_second_registration_is_refused_with_the_remedy(app, helper, again):
    other = helper if again == "the same helper" else uh.UploadHelper()
    with pytest.raises(RuntimeError, match=r"has an UploadHelper already.*current_helper.*blueprint\(name\)"):
        other.init_app(app)
    with app.app_context():
        assert uh.current_helper == helper


def test_one_helper_serves_applications_with_different_settings(make_app, helper):
    small, large = make_app(helper, "small", max_file_size=5000), make_app(helper, "large")
    refused = send(small.test_client(), DATA, SIZE, 0)
    assert (refused.status_code, refused.json["code"]) == (413, "too_large")
    uid = upload(large.test_client(), DATA, SIZE)
    with large.app_context():
        assert Path(helper.get_upload(uid).path).is_relative_to(large.config["UPLOAD_HELPER_FOLDER"])
    with small.app_context(), pytest.raises(uh.NotFoundError):
        helper.get_upload(uid)


def test_folder_is_below_the_instance_path_unless_configured(tmp_path):
    app = Flask("default", instance_path=str(tmp_path / "instance"))
    app.config["UPLOAD_HELPER_MIN_FREE_SPACE"] = 0
    app.register_blueprint(uh.UploadHelper(app, authorize=anybody).blueprint())
    uid = upload(app.test_client(), DATA, SIZE)
    assert (tmp_path / "instance" / "uploads" / uid).is_dir()


def test_nobody_else_may_look_into_the_folder(app, uid):
    folder = app.config["UPLOAD_HELPER_FOLDER"]
    directories = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    assert {stat.S_IMODE(path.stat().st_mode) for path in directories} == {0o700}


def test_registering_makes_no_folder(app):
    assert not app.config["UPLOAD_HELPER_FOLDER"].parent.exists()


def test_current_helper_is_that_of_the_current_application(make_app):
    first, second = uh.UploadHelper(), uh.UploadHelper()
    one, two = make_app(first, "one"), make_app(second, "two")
    with one.app_context():
        assert uh.current_helper == first
        with two.app_context():
            assert uh.current_helper == second


def test_current_helper_needs_an_application_that_has_one(make_app):
    with pytest.raises(RuntimeError, match="application context"):
        uh.current_helper.uploads()
    with make_app().app_context(), pytest.raises(RuntimeError, match=r"UploadHelper\(app\)"):
        uh.current_helper.uploads()


def test_helper_does_not_keep_applications_alive(make_app, helper):
    app = make_app(helper)
    assert upload(app.test_client(), DATA, SIZE)
    seen = weakref.ref(app)
    del app
    gc.collect()
    assert seen() is None


# --- views of the host ---


@pytest.fixture
def plain(app, helper):
    """Return a client of an application with two views that know nothing of actions or the blueprint."""

    @app.post("/plain/chunks")
    def chunks():
        if request.headers.get("X-Role") == "guest":
            abort(403)
        return jsonify(helper.handle_chunk_request(request))

    @app.get("/plain/<uid>")
    def show(uid: str):
        try:
            found = helper.get_upload(uid)
        except uh.IncompleteError as error:
            return {"ready": False, "because": str(error)}
        return {"ready": True, "name": found.fileName, "size": found.totalSize, "path": found.path}

    return app.test_client()


@pytest.mark.parametrize("encode", ENCODINGS)
def test_plain_view_takes_chunks_in_every_encoding(plain, encode):
    uid = ""
    for number, content in enumerate(split(DATA, SIZE)):
        if uid:
            assert plain.get(f"/plain/{uid}").json["ready"] is False
        answer = plain.post("/plain/chunks", **encode(fields(DATA, SIZE, number, uid=uid), content))
        assert answer.status_code == 200, answer.text
        uid = answer.json["uploadUid"]
    found = plain.get(f"/plain/{uid}").json
    assert (found["ready"], found["name"], found["size"]) == (True, "file.bin", len(DATA))
    assert Path(found["path"]).read_bytes() == DATA


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"chunkNumber": 99}, 400, "invalid_request"),
        ({"chunkNumber": "x"}, 400, "invalid_request"),
        ({"totalSize": 10**15}, 413, "too_large"),
        ({"uploadUid": "0" * 32}, 404, "not_found"),
    ],
)
def test_errors_in_a_plain_view_are_answered_in_json(plain, change, status, code):
    answer = plain.post("/plain/chunks", **as_raw({**fields(DATA, SIZE, 0), **change}, DATA[:SIZE]))
    assert (answer.status_code, answer.mimetype) == (status, "application/json")
    assert answer.json["code"] == code
    assert answer.json["error"]
    assert answer.json["remedy"]


@pytest.mark.parametrize("before", [True, False])
def test_error_handler_of_the_host_is_preferred_to_ours(make_app, helper, before):
    app = make_app()
    if not before:
        helper.init_app(app)
    app.register_error_handler(uh.Error, lambda error: (f"host: {error.code}", error.status))
    if before:
        helper.init_app(app)
    app.add_url_rule("/<uid>", view_func=lambda uid: uh.current_helper.get_upload(uid).path)
    answer = app.test_client().get("/" + "0" * 32)
    assert (answer.status_code, answer.text) == (404, "host: not_found")


def test_plain_view_is_the_hosts_to_guard(plain):
    assert send(plain, DATA, SIZE, 0, url="/plain/chunks", headers={"X-Role": "guest"}).status_code == 403


# --- server code, outside of any request ---


def test_app_context_is_enough(app, helper, uid):
    with app.app_context():
        assert Path(uh.current_helper.get_upload(uid).path).read_bytes() == DATA
        assert [found.uploadUid for found in helper.uploads()] == [uid]
        assert helper.get_status(uid).state == "finished"


def test_helper_of_one_application_needs_no_context(helper, uid):
    assert Path(helper.get_upload(uid).path).read_bytes() == DATA


def test_helper_of_two_applications_asks_which_is_meant(make_app, helper):
    one, _two = make_app(helper, "one"), make_app(helper, "two")
    uid = upload(one.test_client(), DATA, SIZE)
    with pytest.raises(RuntimeError, match=r"within app.app_context\(\)"):
        helper.get_upload(uid)
    with one.app_context():
        assert helper.get_upload(uid).uploadUid == uid


def test_helper_of_no_application_says_so():
    with pytest.raises(RuntimeError, match="init_app"):
        uh.UploadHelper().get_upload("0" * 32)


def test_helper_stays_with_its_application_in_the_context_of_another(make_app, helper, uid):
    with make_app(name="without a helper").app_context():
        assert helper.get_upload(uid).uploadUid == uid
    with make_app(uh.UploadHelper(), name="with another helper").app_context():
        assert helper.get_upload(uid).uploadUid == uid


TASK = """
import sys
from flask import Flask
import upload_helper as uh

folder, uid, target = sys.argv[1:]
app = Flask("worker")
app.config["UPLOAD_HELPER_FOLDER"] = folder
helper = uh.UploadHelper(app)
upload = helper.get_upload(uid)
print(upload.fileName, upload.totalSize, upload.owner)
upload.move_to(target)
"""


def test_process_of_a_task_queue_needs_nothing_but_the_folder(app, client, helper, tmp_path):
    uid = upload(client, DATA, SIZE, name="Straße.tif", headers={"X-User": "anna"})
    target = tmp_path / "arrived.tif"
    command = [sys.executable, "-c", TASK, app.config["UPLOAD_HELPER_FOLDER"], uid, target]
    environment = {**os.environ, "PYTHONPATH": str(PLUGIN), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", check=True)
    assert done.stdout.strip() == f"Straße.tif {len(DATA)} anna"
    assert target.read_bytes() == DATA
    with pytest.raises(uh.NotFoundError):
        helper.get_upload(uid)


def test_owner_counts_in_a_request_and_not_outside(app, client, helper):
    uid = upload(client, DATA, SIZE, headers={"X-User": "anna"})
    open_uid = send(client, DATA, SIZE, 0, headers={"X-User": "anna"}).json["uploadUid"]
    for user in ("berta", ""):
        with app.test_request_context(headers={"X-User": user} if user else {}):
            assert helper.uploads() == []
            for call in (helper.get_upload, helper.get_status, helper.delete):
                for foreign in (uid, open_uid):
                    with pytest.raises(uh.NotFoundError):
                        call(foreign)
    with app.test_request_context(headers={"X-User": "anna"}):
        assert helper.get_upload(uid).owner == "anna"
        assert {found.uploadUid for found in helper.uploads()} == {uid, open_uid}
    assert helper.get_upload(uid).owner == "anna"
    assert helper.get_status(open_uid).missing == [(1, 3)]


def chunk(number: int, uid: str = "", data: bytes = DATA) -> uh.ChunkRequest:
    return uh.ChunkRequest(content=split(data, SIZE)[number], **fields(data, SIZE, number, uid=uid))


def test_chunks_are_made_and_handled_in_server_code(app, helper):
    uid = ""
    for number in range(len(split(DATA, SIZE))):
        uid = helper.handle_chunk_request(None, chunk(number, uid)).uploadUid
    assert Path(helper.get_upload(uid).path).read_bytes() == DATA


def test_errors_of_server_code_are_raised(app, helper):
    uid = helper.handle_chunk_request(None, chunk(0)).uploadUid
    with pytest.raises(uh.IncompleteError, match="3 of 4 chunks are missing"):
        helper.get_upload(uid)
    with pytest.raises(uh.ChunkConflictError):
        helper.handle_chunk_request(None, chunk(0, uid, bytes(len(DATA))))
    with pytest.raises(uh.InvalidRequestError, match="chunkNumber"):
        helper.handle_chunk_request(None, uh.ChunkRequest(content=b"", **{**fields(DATA, SIZE, 0), "chunkNumber": 4}))


def test_status_and_delete_from_server_code(helper, client):
    uid = send(client, DATA, SIZE, 1).json["uploadUid"]
    status = helper.get_status(uid)
    assert (status.state, status.receivedBytes, status.missing) == ("open", SIZE, [(0, 0), (2, 3)])
    helper.delete(uid)
    with pytest.raises(uh.NotFoundError):
        helper.get_status(uid)


# --- the content of a chunk in the host's hands ---


@pytest.mark.parametrize("encode", ENCODINGS)
def test_content_is_bytes_for_whoever_asks_and_is_handled_afterwards(app, helper, client, encode):
    seen = []
    actions = uh.Actions("looking", __name__, url_prefix="/looking")

    @actions.api("upload")
    def look(req: object, p: uh.ChunkRequest) -> uh.ChunkResponse:
        seen.append((p.content, p.length))
        return helper.handle_chunk_request(request, p)

    app.register_blueprint(actions)
    answer = client.post("/looking/upload", **encode(fields(DATA, len(DATA), 0), DATA))
    assert answer.status_code == 200, answer.text
    assert seen == [(DATA, len(DATA))]
    assert Path(helper.get_upload(answer.json["uploadUid"]).path).read_bytes() == DATA


# --- the finished upload ---


@pytest.fixture(params=["same disk", "other disk"])
def target(request, tmp_path, app):
    """Yield a place for the finished file."""
    if request.param == "same disk":
        yield tmp_path / "target.tif"
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        assert os.stat(folder).st_dev != os.stat(tmp_path).st_dev
        yield Path(folder) / "target.tif"


def alone(path: Path) -> bool:
    """Say whether no scratch file was left beside a file."""
    return not [name for name in os.listdir(path.parent) if path.name in name and name != path.name]


def test_move_to_takes_the_file_and_forgets_the_upload(app, client, helper, uid, target):
    found = helper.get_upload(uid)
    assert found.move_to(str(target)) == target
    assert target.read_bytes() == DATA
    assert not target.is_symlink()
    assert target.stat().st_nlink == 1
    assert alone(target)
    assert not (app.config["UPLOAD_HELPER_FOLDER"] / uid).exists()
    assert helper.uploads() == []
    with pytest.raises(uh.NotFoundError):
        helper.get_upload(uid)
    assert client.get(f"/uploads/{uid}").status_code == 404


@pytest.mark.parametrize(("given", "expected"), [({}, 0o644), ({"mode": 0o640}, 0o640)])
def test_moved_file_has_the_permissions_that_were_asked_for(helper, uid, target, given, expected):
    before = os.umask(0o077)
    try:
        helper.get_upload(uid).move_to(target, **given)
    finally:
        os.umask(before)
    assert stat.S_IMODE(target.stat().st_mode) == expected


def test_existing_target_is_refused_and_nothing_is_lost(helper, uid, target):
    target.write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        helper.get_upload(uid).move_to(target)
    assert (target.read_bytes(), alone(target)) == (b"precious", True)
    assert Path(helper.get_upload(uid).path).read_bytes() == DATA


def test_existing_target_is_replaced_on_demand(helper, uid, target):
    target.write_bytes(b"old")
    with target.open("rb") as reader:
        helper.get_upload(uid).move_to(target, overwrite=True)
        assert reader.read() == b"old"
    assert (target.read_bytes(), alone(target)) == (DATA, True)


@pytest.mark.parametrize("overwrite", [False, True])
def test_directory_is_no_target(helper, uid, target, overwrite):
    target.mkdir()
    with pytest.raises(IsADirectoryError, match="name the file to make in it"):
        helper.get_upload(uid).move_to(target, overwrite=overwrite)
    assert list(target.iterdir()) == []
    assert Path(helper.get_upload(uid).path).read_bytes() == DATA


def test_missing_directory_is_an_error_that_loses_nothing(helper, uid, target):
    with pytest.raises(FileNotFoundError):
        helper.get_upload(uid).move_to(target.parent / "missing" / "target.tif")
    assert Path(helper.get_upload(uid).path).read_bytes() == DATA


@pytest.mark.parametrize("overwrite", [False, True])
def test_link_at_the_target_is_not_followed(helper, uid, target, overwrite):
    victim = target.with_name("victim")
    victim.write_bytes(b"precious")
    target.symlink_to(victim)
    if overwrite:
        helper.get_upload(uid).move_to(target, overwrite=True)
        assert (target.is_symlink(), target.read_bytes()) == (False, DATA)
    else:
        with pytest.raises(FileExistsError):
            helper.get_upload(uid).move_to(target)
    assert victim.read_bytes() == b"precious"


def test_of_two_that_move_to_one_target_one_wins(helper, uid, target):
    outcomes = []

    def move() -> None:
        try:
            outcomes.append(found.move_to(target))
        except (FileExistsError, FileNotFoundError, uh.NotFoundError) as error:
            outcomes.append(type(error))

    found = helper.get_upload(uid)
    threads = [threading.Thread(target=move) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count(target) == 1
    assert target.read_bytes() == DATA


def test_file_of_irregular_chunks_is_moved_too(helper, client, target):
    parts = [DATA[:10], DATA[10:5000], DATA[5000:5001], DATA[5001:]]
    uid = ""
    for number in (2, 0, 3, 1):
        uid = client.post("/uploads", **as_raw(fields(DATA, SIZE, number, uid=uid), parts[number])).json["uploadUid"]
    helper.get_upload(uid).move_to(target)
    assert target.read_bytes() == DATA


def test_unfinished_upload_has_no_file(helper, client, tmp_path):
    send(client, DATA, SIZE, 0)
    (found,) = helper.uploads()
    assert found.path == ""
    for use in (found.open, lambda: found.move_to(tmp_path / "x")):
        with pytest.raises(uh.IncompleteError):
            use()
    assert not (tmp_path / "x").exists()


def test_open_reads_the_file(helper, uid):
    with helper.get_upload(uid).open() as file:
        assert (file.read(10), file.seek(-7, io.SEEK_END), file.read()) == (DATA[:10], len(DATA) - 7, DATA[-7:])


@pytest.mark.parametrize("chunks", [1, 4])
def test_delete_removes_an_upload_finished_or_not(app, helper, client, chunks):
    uid = ""
    for number in range(chunks):
        uid = send(client, DATA, SIZE, number, uid=uid).json["uploadUid"]
    (found,) = helper.uploads()
    found.delete()
    found.delete()
    assert not (app.config["UPLOAD_HELPER_FOLDER"] / uid).exists()
    assert helper.uploads() == []


# --- signals ---


@pytest.fixture
def heard():
    """Return the list of the signals that were sent: name, sender and upload."""
    events = []

    def listen(name: str):
        def receive(sender: Flask, upload: uh.Upload) -> None:
            events.append((name, sender, upload))

        return receive

    receivers = [(getattr(uh, f"upload_{name}"), listen(name)) for name in ("created", "finished", "deleted")]
    for signal, receiver in receivers:
        signal.connect(receiver)
    yield events
    for signal, receiver in receivers:
        signal.disconnect(receiver)


def test_signals_tell_of_every_upload_once(heard, app, client, helper):
    uid = upload(client, DATA, SIZE)
    helper.get_upload(uid)
    send(client, DATA, SIZE, 3, uid=uid)
    client.delete(f"/uploads/{uid}")
    helper.get_upload(upload(client, b"abc", SIZE)).delete()
    assert [name for name, _, _ in heard] == 2 * ["created", "finished", "deleted"]
    assert {sender for _, sender, _ in heard} == {app}
    assert [found.uploadUid for _, _, found in heard[:3]] == 3 * [uid]
    created, finished = heard[0][2], heard[1][2]
    assert (created.path, created.fileName, created.totalSize) == ("", "file.bin", len(DATA))
    assert finished.path.endswith(f"{uid}/data")


def test_upload_that_several_finish_at_once_is_reported_once(heard, app, client, helper, monkeypatch):
    def killed(self: LocalStore, uid: str, **_: object) -> None:
        raise uh.IncompleteError("as if the server had been killed before it could finish")

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "finish", killed)
        uid = upload(client, DATA, SIZE)
    together = threading.Barrier(8)

    def ask() -> None:
        together.wait()
        helper.get_upload(uid)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [name for name, _, _ in heard] == ["created", "finished"]


def test_upload_that_is_moved_is_not_reported_as_deleted(heard, helper, uid, tmp_path):
    helper.get_upload(uid).move_to(tmp_path / "target")
    assert [name for name, _, _ in heard] == ["created", "finished"]


def test_cancelled_and_swept_uploads_are_reported(heard, make_app, helper):
    app = make_app(helper, expiry=3600)
    client = app.test_client()
    cancelled = send(client, DATA, SIZE, 0).json["uploadUid"]
    client.delete(f"/uploads/{cancelled}")
    swept = send(client, DATA, SIZE, 0).json["uploadUid"]
    directory = app.config["UPLOAD_HELPER_FOLDER"] / swept
    for path in (directory, *directory.iterdir()):
        os.utime(path, (0, 0))
    assert helper.sweep() == 1
    assert [(name, found.uploadUid) for name, _, found in heard if name == "deleted"] == [
        ("deleted", cancelled), ("deleted", swept),
    ]  # fmt: skip


def test_receiver_may_take_the_file(client, helper, tmp_path):
    target = tmp_path / "taken"

    def take(sender: Flask, upload: uh.Upload) -> None:
        upload.move_to(target)

    with uh.upload_finished.connected_to(take):
        assert upload(client, DATA, SIZE)
    assert target.read_bytes() == DATA
    assert helper.uploads() == []


# --- where the blueprint stands, and what stands before it ---


def test_two_blueprints_of_one_helper_share_the_uploads(app, helper, client):
    app.register_blueprint(helper.blueprint("maps"), url_prefix="/maps/files")
    uid = send(client, DATA, SIZE, 0).json["uploadUid"]
    for number in (1, 2, 3):
        assert send(client, DATA, SIZE, number, uid=uid, url="/maps/files").status_code == 200
    assert fetch(client, uid) == DATA
    assert client.get(f"/maps/files/{uid}/status").json["state"] == "finished"


def test_blueprint_and_actions_under_a_nested_prefix(make_app, helper):
    app = make_app()
    helper.init_app(app)
    parent = Blueprint("api", __name__, url_prefix="/api/v1")
    parent.register_blueprint(helper.blueprint(), url_prefix="/files")
    parent.register_blueprint(make_actions())
    app.register_blueprint(parent)
    client = app.test_client()
    uid = ""
    for number in range(4):
        uid = send(client, DATA, SIZE, number, uid=uid, url="/api/v1/files").json["uploadUid"]
    assert client.get(f"/api/v1/files/{uid}/status").json["state"] == "finished"
    assert client.post("/api/v1/_/surveyImport", json={"uploadUid": uid}).json["totalSize"] == len(DATA)
    assert client.post("/api/v1/_/nope", json={}).json["error"]["code"] == 404
    assert client.get(f"/api/v1/files/{'0' * 32}").json["code"] == "not_found"


READERS = {
    "nothing": lambda: None,
    "get_data": lambda: request.get_data(cache=True),
    "get_data, forms parsed": lambda: request.get_data(parse_form_data=True),
    "form": lambda: request.form,
    "files": lambda: request.files,
    "values": lambda: request.values,
    "get_json": lambda: request.get_json(silent=True),
    "stream": lambda: request.stream,
}


def read_first(app: Flask, reader: str) -> None:
    @app.before_request
    def read() -> None:
        READERS[reader]()


@pytest.mark.parametrize("encode", ENCODINGS)
@pytest.mark.parametrize("reader", READERS)
def test_host_may_look_at_the_body_first(app, client, reader, encode):
    read_first(app, reader)
    uid = ""
    for number, content in enumerate(split(DATA, SIZE)):
        answer = client.post("/uploads", **encode(fields(DATA, SIZE, number, uid=uid), content))
        assert answer.status_code == 200, answer.text
        uid = answer.json["uploadUid"]
    assert fetch(client, uid) == DATA


def test_body_that_the_host_has_used_up_is_never_taken_for_an_empty_chunk(app, client, helper):
    @app.before_request
    def use_up() -> None:
        request.stream.read()

    answer = client.post("/uploads", **as_raw(fields(DATA, SIZE, 0), DATA[:SIZE]))
    assert (answer.status_code, answer.json["code"]) == (400, "body_cut")
    assert helper.uploads() == []


def big_request(kind: str, size: int) -> tuple[bytes, dict[str, object]]:
    """Return the body of a request with one chunk, and how to post it."""
    values = fields(bytes(size), size, 0)
    if kind == "raw":
        return bytes(size), {"query_string": values, "content_type": RAW["Content-Type"]}
    part = b'--b\r\nContent-Disposition: form-data; name="content"; filename="blob"\r\n\r\n'
    return part + bytes(size) + b"\r\n--b--\r\n", {
        "query_string": values,
        "content_type": "multipart/form-data; boundary=b",
    }


class Silent(io.BytesIO):
    """A body whose client falls silent."""

    reads = 0

    def read(self, size: int | None = -1) -> bytes:
        self.reads += 1
        raise TimeoutError


@pytest.mark.parametrize("url", ["/uploads", "/_/surveyUpload"])
def test_nobody_waits_a_second_time_for_a_client_that_fell_silent(app, client, url):
    app.register_blueprint(make_actions())
    body = Silent()
    how = as_raw(fields(DATA, len(DATA), 0), b"")
    length = {"CONTENT_LENGTH": str(len(DATA))}
    answer = client.post(url, **{**how, "data": None}, input_stream=body, environ_overrides=length)
    assert (answer.status_code, body.reads) == (408, 1), answer.text


@pytest.mark.parametrize("reader", ["nothing", "form", "get_data"])
def test_cut_body_is_refused_whoever_has_looked_at_it(app, client, helper, reader):
    read_first(app, reader)
    how = as_raw(fields(DATA, len(DATA), 0), DATA[:-1])
    answer = client.post("/uploads", **how, environ_overrides={"CONTENT_LENGTH": str(len(DATA))})
    assert answer.status_code == 400, answer.text
    assert helper.uploads() == []


@pytest.mark.parametrize("reader", ["nothing", "form"])
@pytest.mark.parametrize("kind", ["raw", "multipart"])
def test_chunk_is_not_held_in_memory(app, client, tmp_path, reader, kind):
    # A CSRF check reads request.form before every request, whatever its type.
    read_first(app, reader)
    content, how = big_request(kind, 16 << 20)
    (tmp_path / "body").write_bytes(content)
    with (tmp_path / "body").open("rb") as file:
        tracemalloc.start()
        try:
            answer = client.post("/uploads", **how, input_stream=file, content_length=len(content))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert answer.status_code == 200, answer.text
    assert peak < 8 << 20


@pytest.mark.parametrize("encode", ENCODINGS)
def test_csrf_token_of_flask_wtf_is_checked_before_a_chunk_is_taken(app, client, helper, encode):
    app.secret_key = "x"
    CSRFProtect(app)
    app.add_url_rule("/token", view_func=generate_csrf)
    token = {"X-CSRFToken": client.get("/token").text}
    one = encode(fields(DATA, len(DATA), 0), DATA)
    refused = client.post("/uploads", **one)
    assert (refused.status_code, refused.json["error"]) == (400, "The CSRF token is missing.")
    assert helper.uploads() == []
    one = encode(fields(DATA, len(DATA), 0), DATA)
    taken = client.post("/uploads", **{**one, "headers": {**one.get("headers", {}), **token}})
    assert taken.status_code == 200, taken.text
    assert fetch(client, taken.json["uploadUid"]) == DATA


@pytest.mark.parametrize(
    ("proxies", "origin", "status"),
    [
        (0, "https://maps.example.org", 403),
        (1, "https://maps.example.org", 200),
        (1, "https://evil.example", 403),
        (1, "http://internal:8000", 403),
    ],
)
def test_behind_a_proxy_the_sites_own_pages_are_known_by_proxyfix(app, proxies, origin, status):
    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=proxies, x_proto=proxies, x_host=proxies)
    forwarded = {"X-Forwarded-Host": "maps.example.org", "X-Forwarded-Proto": "https", "Host": "internal:8000"}
    answer = send(app.test_client(), DATA, SIZE, 0, headers={**RAW, **forwarded, "Origin": origin})
    assert answer.status_code == status
    if status == 403:
        assert "ProxyFix" in answer.json["remedy"]


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_blueprint_answers_in_json_where_the_host_has_pages_for_errors(make_app, status):
    app = make_app(uh.UploadHelper(authorize=lambda access: abort(status, "not now")))
    app.register_error_handler(status, lambda error: ("<h1>A page</h1>", status))
    answer = send(app.test_client(), DATA, SIZE, 0)
    assert (answer.status_code, answer.mimetype) == (status, "application/json")
    assert answer.json["error"] == "not now"
