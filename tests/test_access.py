"""Who may do what: the host's two questions, other people's uploads, and requests that pages of other sites send."""

from __future__ import annotations

import gc
import random
from typing import Any

import flask_wtf.csrf
import pytest
from flask import Flask, request

import upload_helper as uh
from chunks import RAW, fetch, fields, send, split, upload
from hostile import ENCODINGS, Endless, as_form, as_raw, decoded, refusal, tree

DATA = random.Random(13).randbytes(1000)
PARTS = split(DATA, 300)
ANN, BOB = {"X-User": "ann"}, {"X-User": "bob"}


@pytest.fixture
def make_app(folder):
    """Return a function that makes a host with the given answers to the two questions."""

    def make(authorize: Any = None, identify: Any = None, **config: Any) -> Flask:
        app = Flask("host")
        app.config.update(TESTING=True, UPLOAD_HELPER_FOLDER=folder, UPLOAD_HELPER_DURABILITY="none")
        app.config.update(UPLOAD_HELPER_MIN_FREE_SPACE=0, **config)
        helper = uh.UploadHelper(app, authorize=authorize, identify=identify)
        app.register_blueprint(helper.blueprint(), url_prefix="/uploads")
        return app

    return make


def who() -> str | None:
    return request.headers.get("X-User")


def everything(uid: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Return a request for each endpoint of the blueprint."""
    raw = as_raw(fields(DATA, 300, 1, uid=uid), PARTS[1])
    return [
        ("POST", "/uploads", as_raw(fields(DATA, 300, 0), PARTS[0])),
        ("POST", "/uploads", raw),
        ("GET", "/uploads", {}),
        ("GET", "/uploads?identifier=x&fileName=file.bin&totalSize=1000&chunkCount=4", {}),
        ("GET", f"/uploads/{uid}", {}),
        ("GET", f"/uploads/{uid}/status", {}),
        ("DELETE", f"/uploads/{uid}", {}),
    ]


# -- authorize


@pytest.mark.parametrize("uid", ["", "0" * 32, "nonsense", "theirs"])
@pytest.mark.parametrize("number", range(7))
def test_without_authorize_everything_is_refused_and_the_developer_told_why(make_app, folder, uid, number):
    if uid == "theirs":
        uid = send(make_app(lambda access: True, who).test_client(), DATA, 300, 0, identifier="x").json["uploadUid"]
    before = tree(folder)
    method, url, more = everything(uid or "f" * 32)[number]
    answer = make_app().test_client().open(url, method=method, **more)
    told = refusal(answer, 403, "forbidden")
    assert "authorize=" in told["remedy"]
    assert tree(folder) == before


@pytest.mark.parametrize("kind", [None, "text/plain", "application/json", "multipart/form-data", RAW["Content-Type"]])
def test_without_authorize_a_bad_request_is_refused_as_well(make_app, folder, kind):
    answer = make_app().test_client().post("/uploads", data=b"nonsense", content_type=kind)
    assert "authorize=" in refusal(answer, 403, "forbidden")["remedy"]
    assert tree(folder) is None


def test_without_authorize_the_hosts_own_endpoints_work(make_app):
    app = make_app()

    @app.post("/mine")
    def mine() -> dict[str, str]:
        return {"uploadUid": uh.current_helper.handle_chunk_request(request).uploadUid}

    assert app.test_client().post("/mine", **as_raw(fields(DATA, 300, 0), PARTS[0])).status_code == 200


@pytest.mark.parametrize("encode", ENCODINGS)
def test_authorize_is_asked_what_is_to_be_done_and_to_which_upload(make_app, encode):
    asked: list[uh.Access] = []

    def authorize(access: uh.Access) -> bool:
        asked.append(access)
        return True

    client = make_app(authorize, who).test_client()
    uid = ""
    for number in range(4):
        request_ = encode(fields(DATA, 300, number, uid=uid, identifier="x"), PARTS[number])
        request_["headers"] = {**request_.get("headers", {}), **ANN}
        uid = decoded(client.post("/uploads", **request_))["uploadUid"]
    client.get("/uploads", headers=ANN)
    client.get(f"/uploads/{uid}/status", headers=ANN)
    client.get("/uploads?identifier=x&fileName=file.bin&totalSize=1000&chunkCount=4", headers=ANN)
    with client.get(f"/uploads/{uid}", headers=ANN):
        pass
    client.delete(f"/uploads/{uid}", headers=ANN)
    operations = ["create", "write", "write", "write", "list", "status", "status", "read", "delete"]
    assert [access.operation for access in asked] == operations
    about = [access.upload for access in asked if access.operation != "list"]
    assert [access.upload for access in asked if access.operation == "list"] == [None]
    for found in about:
        assert found is not None
        assert (found.fileName, found.totalSize, found.owner) == ("file.bin", 1000, "ann")
    assert {found.uploadUid for found in about[1:] if found} == {uid}
    assert all(found.path == "" for found in about[:4] if found)
    assert all(found.path for found in about[4:] if found)


@pytest.mark.parametrize("refused", ["create", "write", "list", "status", "read", "delete"])
def test_what_authorize_refuses_is_forbidden_and_changes_nothing(make_app, folder, refused):
    allowed = make_app(lambda access: True, who).test_client()
    uid = upload(allowed, DATA, 300, headers=ANN, identifier="x")
    half = send(allowed, DATA, 300, 0, headers=ANN, name="half").json["uploadUid"]
    before = tree(folder)
    client = make_app(lambda access: access.operation != refused, who).test_client()
    requests = {
        "create": [lambda: send(client, DATA, 300, 0, headers=ANN)],
        "write": [lambda: send(client, DATA, 300, 1, headers=ANN, uid=half, name="half")],
        "list": [lambda: client.get("/uploads", headers=ANN)],
        "status": [
            lambda: client.get(f"/uploads/{uid}/status", headers=ANN),
            lambda: client.get("/uploads", query_string={**fields(DATA, 300, 0), "identifier": "x"}, headers=ANN),
        ],
        "read": [
            lambda: client.get(f"/uploads/{uid}", headers=ANN),
            lambda: client.get(f"/uploads/{half}", headers=ANN),
        ],
        "delete": [lambda: client.delete(f"/uploads/{uid}", headers=ANN)],
    }
    for ask in requests[refused]:
        assert refused in refusal(ask(), 403, "forbidden")["error"]
    assert tree(folder) == before


@pytest.mark.parametrize("encode", ENCODINGS)
def test_role_lost_in_mid_upload_ends_it_with_the_next_chunk(make_app, encode):
    roles = {"surveyor"}
    client = make_app(lambda access: "surveyor" in roles).test_client()
    uid = send(client, DATA, 300, 0).json["uploadUid"]
    roles.clear()
    refusal(client.post("/uploads", **encode(fields(DATA, 300, 1, uid=uid), PARTS[1])), 403, "forbidden")
    roles.add("surveyor")
    assert client.get(f"/uploads/{uid}/status").json["missing"] == [[1, 3]]
    for number in (1, 2, 3):
        assert send(client, DATA, 300, number, uid=uid).status_code == 200
    assert fetch(client, uid) == DATA


@pytest.mark.parametrize("answer", [None, False, 0, ""])
def test_only_yes_is_yes(make_app, answer):
    refusal(send(make_app(lambda access: answer).test_client(), DATA, 300, 0), 403, "forbidden")


def test_error_in_authorize_is_no_permission(make_app, folder):
    def authorize(access: uh.Access) -> bool:
        raise RuntimeError("the database is away")

    app = make_app(authorize)
    app.config.update(PROPAGATE_EXCEPTIONS=False)
    answer = send(app.test_client(), DATA, 300, 0)
    assert answer.status_code == 500
    assert "database" not in answer.text
    assert tree(folder) is None


def test_host_may_abort_with_a_status_of_its_own(make_app, folder):
    def authorize(access: uh.Access) -> bool:
        from flask import abort

        abort(401, "Sign in first.")

    answer = send(make_app(authorize).test_client(), DATA, 300, 0)
    assert (answer.status_code, answer.json["error"], answer.json["code"]) == (401, "Sign in first.", "unauthorized")
    assert tree(folder) is None


# -- owners


def requests_about(uid: str, encode: Any) -> list[tuple[str, str, dict[str, Any]]]:
    chunk = encode(fields(DATA, 300, 1, uid=uid), PARTS[1])
    return [("POST", "/uploads", chunk), *[(method, url, {}) for method, url, _ in everything(uid)[4:]]]


def ask_all(
    client: Any, uid: str, encode: Any, headers: dict[str, str]
) -> list[tuple[int, bytes, list[tuple[str, str]]]]:
    answers = []
    for method, url, more in requests_about(uid, encode):
        answer = client.open(url, method=method, **{**more, "headers": {**more.get("headers", {}), **headers}})
        answers.append((answer.status_code, answer.data, sorted(answer.headers)))
    return answers


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("headers", [BOB, {}], ids=["another user", "nobody in particular"])
@pytest.mark.parametrize("encode", ENCODINGS)
def test_foreign_upload_is_answered_byte_for_byte_as_one_that_is_not_there(client, encode, headers, finished):
    send_all = upload if finished else lambda *args, **more: send(*args, 0, **more).json["uploadUid"]
    uid = send_all(client, DATA, 300, headers=ANN)
    foreign = ask_all(client, uid, encode, headers)
    assert client.get(f"/uploads/{uid}/status", headers=ANN).status_code == 200
    assert client.delete(f"/uploads/{uid}", headers=ANN).status_code == 204
    assert ask_all(client, uid, encode, headers) == foreign
    assert {status for status, _, _ in foreign} == {404}


def test_foreign_uid_is_not_told_by_what_authorize_is_asked(make_app):
    asked: list[str] = []

    def authorize(access: uh.Access) -> bool:
        asked.append(access.operation)
        return who() == "ann"

    client = make_app(authorize, who).test_client()
    uid = upload(client, DATA, 300, headers=ANN)
    asked.clear()
    for number in (1, 4, 5, 6):
        method, url, more = everything(uid)[number]
        refusal(client.open(url, method=method, **{**more, "headers": {**more.get("headers", {}), **BOB}}), 404)
    assert asked == []


def test_uid_has_128_random_bits(client):
    uids = [send(client, DATA, 300, 0).json["uploadUid"] for _ in range(20)]
    assert all(len(uid) == 32 and not set(uid) - set("0123456789abcdef") for uid in uids)
    assert len({uid[i : i + 4] for uid in uids for i in range(0, 32, 4)}) > 150


OWNERS = [
    "", " ", "a", "A", "a ", "ann", "a/nn", "../ann", "..", ".", "ann\x00", "1:a", "11:a", "None", "0", "é", "e\u0301", "日本",
    "a" * 300, "a" * 301, "ann\nbob", "%61nn", "id-x", "*", "\udce4", "x" * 100_000, "\x1b[31m",
]  # fmt: skip


def test_owners_of_whatever_name_are_told_apart(make_app, folder):
    current = {"who": ""}
    client = make_app(lambda access: True, lambda: current["who"]).test_client()
    uids = {}
    for owner in OWNERS:
        current["who"] = owner
        uids[owner] = send(client, DATA, 300, 0, identifier="same").json["uploadUid"]
    assert len(set(uids.values())) == len(OWNERS)
    for owner in OWNERS:
        current["who"] = owner
        for other, uid in uids.items():
            assert client.get(f"/uploads/{uid}/status").status_code == (200 if other == owner else 404)
        if owner:
            assert [found["uploadUid"] for found in client.get("/uploads").json["uploads"]] == [uids[owner]]
    assert all(path.name.isascii() and len(path.name) < 100 for path in folder.rglob("*"))


@pytest.mark.parametrize(("first", "second"), [(1, "1"), (None, ""), (12345678901234567890, "12345678901234567890")])
def test_owner_may_be_anything_that_has_a_text(make_app, first, second):
    current: dict[str, Any] = {"who": first}
    client = make_app(lambda access: True, lambda: current["who"]).test_client()
    uid = send(client, DATA, 300, 0).json["uploadUid"]
    current["who"] = second
    assert client.get(f"/uploads/{uid}/status").status_code == 200


def test_identifier_finds_nothing_of_another_owner(client):
    uid = send(client, DATA, 300, 0, identifier="same", headers=ANN).json["uploadUid"]
    assert send(client, DATA, 300, 0, identifier="same", headers=BOB).json["uploadUid"] != uid
    query = {**fields(DATA, 300, 0), "identifier": "same"}
    assert client.get("/uploads", query_string=query, headers=ANN).json["uploadUid"] == uid
    refusal(client.get("/uploads", query_string=query), 404, "not_found")


def test_owner_is_bound_when_the_upload_is_created(client):
    uid = send(client, DATA, 300, 0, headers=ANN).json["uploadUid"]
    refusal(send(client, DATA, 300, 1, uid=uid, headers=BOB), 404)
    refusal(send(client, DATA, 300, 1, uid=uid), 404)
    assert send(client, DATA, 300, 1, uid=uid, headers=ANN).status_code == 200


# -- pages of other sites

SAME_SITE = [
    {}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {"Origin": "http://localhost"},
    {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"},
    {"Origin": "https://evil.example", "X-Upload-Helper": "1"}, {"Sec-Fetch-Site": "cross-site", "X-Upload-Helper": ""},
    {"Origin": "https://maps.example.org", "Sec-Fetch-Site": "cross-site"}, {"Origin": "https://maps.example.org"},
]  # fmt: skip

OTHER_SITES = [
    {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "Same-Origin, cross-site"},
    {"Sec-Fetch-Site": "anything"}, {"Origin": "https://evil.example"}, {"Origin": "null"},
    {"Origin": "http://localhost.evil.example"}, {"Origin": "http://localhost:8080"}, {"Origin": "http://evil@localhost"},
    {"Origin": "http://sub.localhost"}, {"Origin": "http://["}, {"Origin": "http://[::1"}, {"Origin": "//"}, {"Origin": "x"},
    {"Origin": "https://maps.example.org.evil.example"}, {"Origin": "http://maps.example.org"},
    {"Origin": "https://maps.example.org:8443"}, {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"}, {"Origin": "http://localhost http://evil.example"},
    {"Origin": "https://evil.example", "Host": "localhost"}, {"Origin": "https://evil.example", "X-Forwarded-Host": "evil.example"},
]  # fmt: skip


@pytest.fixture
def sites(make_host):
    return make_host(trusted_origins=["https://maps.example.org"]).test_client()


@pytest.mark.parametrize("headers", SAME_SITE, ids=str)
def test_request_of_this_site_or_of_a_program_is_taken(sites, headers):
    for encode in ENCODINGS:
        chunk = encode(fields(DATA, 300, 0), PARTS[0])
        answer = sites.post("/uploads", **{**chunk, "headers": {**chunk.get("headers", {}), **headers}})
        assert answer.status_code == 200, answer.text
        assert sites.delete(f"/uploads/{decoded(answer)['uploadUid']}", headers=headers).status_code == 204


@pytest.mark.parametrize("headers", OTHER_SITES, ids=str)
def test_request_of_a_page_of_another_site_is_refused(sites, folder, headers):
    uid = upload(sites, DATA, 300)
    before = tree(folder)
    for encode in ENCODINGS:
        chunk = encode(fields(DATA, 300, 0), PARTS[0])
        answer = sites.post("/uploads", **{**chunk, "headers": {**chunk.get("headers", {}), **headers}})
        assert "X-Upload-Helper" in refusal(answer, 403, "forbidden")["remedy"]
    refusal(sites.delete(f"/uploads/{uid}", headers=headers), 403, "forbidden")
    assert tree(folder) == before
    assert sites.get(f"/uploads/{uid}/status", headers=headers).status_code == 200


def test_no_answer_lets_pages_of_other_sites_read_it(sites):
    uid = send(sites, DATA, 300, 0).json["uploadUid"]
    for answer in (
        sites.get(f"/uploads/{uid}/status", headers={"Origin": "https://evil.example"}),
        sites.options("/uploads"),
    ):
        assert not [name for name in answer.headers.keys() if name.startswith("Access-Control")]


# -- the host's CSRF token


@pytest.fixture
def guarded(make_app):
    """Return a client of a host with Flask-WTF's check before every request, and a token for it."""
    app = make_app(lambda access: True, SECRET_KEY="secret", UPLOAD_HELPER_MAX_CHUNK_SIZE=1 << 20)
    flask_wtf.csrf.CSRFProtect(app)

    @app.get("/token")
    def token() -> str:
        return flask_wtf.csrf.generate_csrf()

    client = app.test_client()
    return client, client.get("/token").text


@pytest.mark.parametrize("encode", ENCODINGS)
@pytest.mark.parametrize("header", ["X-CSRFToken", "X-CSRF-Token"])
def test_token_of_the_host_may_come_in_a_header(guarded, encode, header):
    client, token = guarded
    uid = ""
    for number, part in enumerate(PARTS):
        chunk = encode(fields(DATA, 300, number, uid=uid), part)
        answer = client.post("/uploads", **{**chunk, "headers": {**chunk.get("headers", {}), header: token}})
        assert answer.status_code == 200, answer.text
        uid = decoded(answer)["uploadUid"]
    assert fetch(client, uid) == DATA


def test_token_of_the_host_may_come_as_a_field_of_the_form(guarded):
    client, token = guarded
    uid = ""
    for number, part in enumerate(PARTS):
        answer = client.post("/uploads", **as_form({**fields(DATA, 300, number, uid=uid), "csrf_token": token}, part))
        assert answer.status_code == 200, answer.text
        uid = answer.json["uploadUid"]
    assert fetch(client, uid) == DATA
    refusal(client.post("/uploads", **as_form({**fields(DATA, 300, 0, uid=uid), "csrf_token": token}, b"x" * 300)), 409)


@pytest.mark.parametrize("encode", ENCODINGS)
def test_without_the_token_the_host_refuses(guarded, folder, encode):
    client, _ = guarded
    answer = client.post("/uploads", **encode(fields(DATA, 300, 0), PARTS[0]))
    assert (answer.status_code, decoded(answer)["code"]) == (400, "bad_request")
    assert "CSRF" in decoded(answer)["error"]
    assert tree(folder) is None


def test_chunk_over_the_limit_is_refused_also_where_the_host_has_parsed_the_form(guarded, folder):
    client, token = guarded
    data = bytes(4 << 20)
    values = {**fields(data, len(data), 0), "csrf_token": token}
    refusal(client.post("/uploads", **as_form(values, data)), 413, "too_large")
    exact = {**fields(data, 1 << 20, 0), "csrf_token": token}
    assert client.post("/uploads", **as_form(exact, data[: 1 << 20])).status_code == 200


def test_raw_chunk_is_still_streamed_where_the_host_has_looked_for_a_form(guarded):
    client, token = guarded
    body = Endless()
    overrides = {"wsgi.input": body, "wsgi.input_terminated": True, "CONTENT_LENGTH": ""}
    values = fields(bytes(8 << 20), 1 << 20, 0)
    answer = client.post(
        "/uploads", query_string=values, headers={**RAW, "X-CSRFToken": token}, environ_overrides=overrides
    )
    refusal(answer, 413, "too_large")
    assert body.taken < 6 << 20


def test_form_that_the_host_has_parsed_needs_its_file_too(guarded):
    client, token = guarded
    refusal(
        client.post("/uploads", data={**fields(DATA, 300, 0), "csrf_token": token}, content_type="multipart/form-data"),
        400,
    )
    disagreeing = as_form({**fields(DATA, 300, 0), "csrf_token": token}, PARTS[0])
    refusal(client.post("/uploads", **disagreeing, query_string={"chunkNumber": 3}), 400)


async def asynchronous(access: uh.Access) -> bool:
    return False


@pytest.mark.filterwarnings("ignore:coroutine 'asynchronous' was never awaited:RuntimeWarning")
@pytest.mark.parametrize(
    "answer", [asynchronous, lambda access: ({}, 403), lambda access: dict.get, lambda access: "no"]
)
def test_what_is_neither_yes_nor_no_lets_nobody_pass(make_app, answer):
    with pytest.raises(TypeError, match="return True or False"):
        make_app(answer, lambda: "ann").test_client().get("/uploads")
    gc.collect()


@pytest.mark.parametrize("who", [True, False])
def test_user_who_is_only_true_or_false_is_nobody(make_app, who):
    with pytest.raises(TypeError, match="return an id"):
        make_app(lambda access: True, lambda: who).test_client().get("/uploads")
