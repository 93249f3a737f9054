"""What browser libraries send, as they send it: chunks under their own names, questions, and whole files."""

from __future__ import annotations

import io
import json
import random
import threading
from dataclasses import replace

import pytest
from flask import request
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from urllib3 import encode_multipart_formdata

import strategies
import upload_helper as uh
from chunks import fetch, send
from upload_helper.protocols.dialects import (
    ASKING,
    DIALECTS,
    DROPZONE,
    FIELDS,
    FINE_UPLOADER,
    FLOW,
    PLUPLOAD,
    RESUMABLE,
    SIMPLE_UPLOADER,
    AllSent,
    Dialect,
    NamedChunk,
    parse_answer,
)
from upload_helper.upload import UNKNOWN_SIZE

ANNA = {"X-User": "anna"}
BERT = {"X-User": "bert"}
CHUNK = 1000
NAME = "日本 Straße.tif"
# Those whose chunks come in any order.
FREE = [dialect for dialect in DIALECTS if dialect is not PLUPLOAD]
# Those that make the last chunk up to twice as long.
LENGTHENING = [RESUMABLE, FLOW, SIMPLE_UPLOADER]
JSON = "application/json"
OCTETS = "application/octet-stream"

named = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
free = pytest.mark.parametrize("dialect", FREE, ids=lambda dialect: dialect.name)
asking = pytest.mark.parametrize("dialect", ASKING, ids=lambda dialect: dialect.name)


def make_data(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def cut(dialect: Dialect, data: bytes, name: str = NAME, *, size: int = CHUNK) -> list[tuple[NamedChunk, bytes]]:
    """Cut a file as the library does."""
    count = max(len(data) // size if dialect in LENGTHENING else -(-len(data) // size), 1)
    chunk = NamedChunk(
        0, count, len(data) if dialect.total_size else UNKNOWN_SIZE, "0f-" + name, name if dialect.file_name else "",
        chunk_size=size if dialect.total_size else 0,
    )  # fmt: skip
    ends = [*((number + 1) * size for number in range(count - 1)), len(data)]
    return [(replace(chunk, number=n), data[n * size : end]) for n, end in enumerate(ends)]


def form(dialect: Dialect, chunk: NamedChunk, content: bytes, name: str = NAME, **changes: str) -> dict:
    """Return the arguments for a Flask test client with a chunk as a form."""
    part = (io.BytesIO(content), "blob" if dialect is FINE_UPLOADER else name)
    return {"data": {**dialect.build(chunk), **changes, dialect.file_part: part}}


def file_first(dialect: Dialect, chunk: NamedChunk, content: bytes) -> dict:
    """Return the arguments for a Flask test client with a chunk as a form whose fields come behind the file."""
    parts = [(dialect.file_part, (NAME, content)), *dialect.build(chunk).items()]
    body, kind = encode_multipart_formdata(parts)
    return {"data": body, "content_type": kind}


def octets(dialect: Dialect, chunk: NamedChunk, content: bytes, kind: str | None = OCTETS, **changes: str) -> dict:
    """Return the arguments for a Flask test client with a chunk as the body."""
    return {"query_string": {**dialect.build(chunk), **changes}, "data": content, "content_type": kind}


def cut_body(body: bytes, keep: int) -> dict:
    """Return the arguments for a Flask test client with a body that ends too early."""
    overrides = {"wsgi.input": io.BytesIO(body[:keep]), "CONTENT_LENGTH": str(len(body))}
    return {"environ_overrides": overrides}


def post(client, arguments: dict, headers: dict = ANNA):
    return client.post("/uploads", headers=headers, **arguments)


def post_all(client, dialect: Dialect, data: bytes, **options) -> str:
    """Send a file's chunks in order; return the uid."""
    uids = set()
    for chunk, content in cut(dialect, data, **options):
        answer = post(client, form(dialect, chunk, content))
        assert answer.status_code == 200, answer.text
        assert dialect.outcome(answer.status_code, answer.json) == "done"
        uids.add(parse_answer(answer.json)[0].upload_uid)
    return uids.pop() if len(uids) == 1 else str(uids)


def stored(client, uid: str, headers: dict = ANNA) -> bytes:
    with client.get(f"/uploads/{uid}", headers=headers) as answer:
        assert answer.status_code == 200, answer.text
        return answer.data


def missing(client, uid: str) -> list:
    return client.get(f"/uploads/{uid}/status", headers=ANNA).json["missing"]


# --- chunks ---


@named
@pytest.mark.parametrize("size", [1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK, 3 * CHUNK + 1, 4 * CHUNK - 1])
def test_file_comes_in_the_chunks_of_a_library(client, dialect, size):
    data = make_data(size)
    uid = post_all(client, dialect, data)
    assert stored(client, uid) == data
    assert client.get(f"/uploads/{uid}/status", headers=ANNA).json["fileName"] == NAME


@pytest.mark.parametrize("dialect", ASKING, ids=lambda dialect: dialect.name)
def test_empty_file_is_one_empty_chunk(client, dialect):
    assert stored(client, post_all(client, dialect, b"")) == b""


@free
def test_chunks_come_in_any_order_and_twice(client, dialect):
    data = make_data(4500)
    order = [*cut(dialect, data)] * 2
    random.Random(1).shuffle(order)
    answers = [post(client, form(dialect, chunk, content)) for chunk, content in order]
    assert {answer.status_code for answer in answers} == {200}
    assert stored(client, answers[0].json["uploadUid"]) == data


@free
def test_first_chunks_in_parallel_make_one_upload(host, dialect):
    data = make_data(8 * CHUNK)
    answers = []

    def run(arguments: dict) -> None:
        answers.append(post(host.test_client(), arguments).json["uploadUid"])

    threads = [threading.Thread(target=run, args=[form(dialect, *pair)]) for pair in cut(dialect, data)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(answers)) == 1
    assert stored(host.test_client(), answers[0]) == data


@pytest.mark.parametrize("kind", [OCTETS, JSON, "image/tiff", "application/msgpack", None])
@named
def test_chunk_is_the_body_and_its_fields_are_the_query(client, dialect, kind):
    data = make_data(3500)
    for chunk, content in cut(dialect, data):
        answer = post(client, octets(dialect, chunk, content, kind))
        assert answer.status_code == 200, answer.text
    assert stored(client, answer.json["uploadUid"]) == data or (dialect is DROPZONE)


@named
def test_fields_are_in_the_query_and_in_the_form(client, dialect):
    data = make_data(3500)
    for chunk, content in cut(dialect, data):
        arguments = {**form(dialect, chunk, content), "query_string": dialect.build(chunk)}
        answer = post(client, arguments)
        assert answer.status_code == 200, answer.text
    assert stored(client, answer.json["uploadUid"]) == data


@named
def test_fields_are_in_the_query_alone_and_the_file_in_a_form(client, dialect):
    data = make_data(3500)
    for chunk, content in cut(dialect, data):
        part = {"data": {dialect.file_part: (io.BytesIO(content), NAME)}, "query_string": dialect.build(chunk)}
        answer = post(client, part)
        assert answer.status_code == 200, answer.text
    assert stored(client, answer.json["uploadUid"]) == data


@named
def test_fields_come_behind_the_file(client, dialect):
    data = make_data(3500)
    for chunk, content in cut(dialect, data):
        answer = post(client, file_first(dialect, chunk, content))
        assert answer.status_code == 200, answer.text
    assert stored(client, answer.json["uploadUid"]) == data


@named
def test_form_that_the_host_has_parsed_is_taken(host, dialect):
    @host.before_request
    def check_token() -> None:
        assert request.method == "GET" or request.form["token"] == "secret"

    data = make_data(3500)
    client = host.test_client()
    for chunk, content in cut(dialect, data):
        answer = post(client, form(dialect, chunk, content, token="secret"))
        assert answer.status_code == 200, answer.text
    assert stored(client, answer.json["uploadUid"]) == data


@named
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_library_may_be_set_to_put(client, dialect, method):
    (chunk, content), *_ = cut(dialect, make_data(3500))
    answer = client.open("/uploads", method=method, headers=ANNA, **form(dialect, chunk, content))
    assert answer.status_code == 200


@named
def test_name_of_the_field_with_the_file_does_not_matter(client, dialect):
    (chunk, content), *_ = cut(dialect, make_data(500))
    answer = post(client, {"data": {**dialect.build(chunk), "other": (io.BytesIO(content), NAME)}})
    assert stored(client, answer.json["uploadUid"]) == content


def test_answer_names_the_upload_and_its_url(client):
    (chunk, content), *_ = cut(FLOW, make_data(3500))
    answer = post(client, form(FLOW, chunk, content))
    uid = answer.json["uploadUid"]
    assert answer.json == {"success": True, "uploadUid": uid, "url": f"/uploads/{uid}"}


@pytest.mark.parametrize("dialect", LENGTHENING, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("first", [0, 1, 2])
def test_longer_last_chunk_is_written_in_place_whichever_comes_first(client, folder, dialect, first):
    data = make_data(3999)
    chunks = cut(dialect, data)
    assert [len(content) for _, content in chunks] == [1000, 1000, 1999]
    for chunk, content in (chunks[first], *chunks[:first], *chunks[first + 1 :]):
        uid = post(client, form(dialect, chunk, content)).json["uploadUid"]
        assert not list((folder / uid).glob("side-*"))
    assert stored(client, uid) == data


@named
def test_one_owner_does_not_find_the_upload_of_another(client, dialect):
    data, other = make_data(3500), make_data(3499) + b"x"
    uids = {}
    for headers, content in ((ANNA, data), (BERT, other)):
        for pair in cut(dialect, content):
            answer = post(client, form(dialect, *pair), headers)
            assert answer.status_code == 200, answer.text
        uids[headers["X-User"]] = answer.json["uploadUid"]
    assert stored(client, uids["anna"]) == data
    assert stored(client, uids["bert"], BERT) == other


@pytest.mark.parametrize("dialect", [d for d in DIALECTS if d.guessable], ids=lambda dialect: dialect.name)
def test_identifier_that_can_be_guessed_needs_an_owner(client, folder, dialect):
    (chunk, content), *_ = cut(dialect, make_data(3500))
    answer = post(client, form(dialect, chunk, content), {})
    assert answer.json["code"] == "forbidden"
    assert "identify=" in answer.json["remedy"]
    assert not folder.exists()


@pytest.mark.parametrize("dialect", [DROPZONE, FINE_UPLOADER], ids=lambda dialect: dialect.name)
def test_random_identifier_needs_no_owner(client, dialect):
    data = make_data(3500)
    for pair in cut(dialect, data):
        answer = post(client, form(dialect, *pair), {})
    assert fetch(client, answer.json["uploadUid"]) == data


@asking
@pytest.mark.parametrize("size", [1001, 999])
def test_file_of_another_size_under_the_same_identifier_is_another(client, dialect, size):
    one, other = make_data(3500), make_data(3500 + size)
    first = post(client, form(dialect, *cut(dialect, one)[0])).json["uploadUid"]
    uid = post_all(client, dialect, other)
    assert uid != first
    assert stored(client, uid) == other


@asking
def test_file_that_is_cut_otherwise_is_another(client, dialect):
    data = make_data(3990)
    first = post(client, form(dialect, *cut(dialect, data)[0])).json["uploadUid"]
    # Three chunks again, and two of them end elsewhere.
    assert len(cut(dialect, data, size=1100)) == 3
    uid = post_all(client, dialect, data, size=1100)
    assert uid != first
    assert stored(client, uid) == data


# --- the question of the Resumable family ---


@asking
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_question_for_a_chunk(client, folder, dialect, method):
    chunks = cut(dialect, make_data(3500))

    def ask(number: int, headers: dict = ANNA):
        query = dialect.build(chunks[number][0])
        return client.open("/uploads", method=method, query_string=query, headers=headers)

    assert [ask(number).status_code for number in range(3)] == [204, 204, 204]
    assert not folder.exists()
    uid = post(client, form(dialect, *chunks[1])).json["uploadUid"]
    assert [ask(number).status_code for number in range(3)] == [204, 200, 204]
    assert [ask(number, BERT).status_code for number in range(3)] == [204, 204, 204]
    if method == "GET":
        assert ask(1).json == {"success": True, "uploadUid": uid, "url": f"/uploads/{uid}"}
    assert ask(1).headers["Cache-Control"] == "no-store"
    for number in (0, 2):
        post(client, form(dialect, *chunks[number]))
    assert [ask(number).status_code for number in range(3)] == [200, 200, 200]


@asking
@pytest.mark.parametrize("changes", [{"number": "0"}, {"number": "4"}, {"number": "x"}, {"total_size": "-1"}])
def test_senseless_question_ends_the_upload(client, dialect, changes):
    chunk, _ = cut(dialect, make_data(3500))[0]
    query = dialect.build(chunk) | {getattr(dialect, name): value for name, value in changes.items()}
    answer = client.get("/uploads", query_string=query, headers=ANNA)
    assert answer.json["code"] == "invalid_request"
    assert dialect.outcome(answer.status_code, answer.json) == "stop"


@asking
def test_question_needs_leave_and_an_owner(client, dialect):
    query = dialect.build(cut(dialect, make_data(3500))[0][0])
    assert client.get("/uploads", query_string=query).json["code"] == "forbidden"
    post(client, form(dialect, *cut(dialect, make_data(3500))[0]))
    refused = client.get("/uploads", query_string=query, headers={**ANNA, "X-Role": "none"})
    assert refused.json["code"] == "forbidden"
    assert dialect.outcome(refused.status_code, refused.json) == "stop"


@pytest.mark.parametrize("dialect", [DROPZONE, FINE_UPLOADER, PLUPLOAD], ids=lambda dialect: dialect.name)
def test_others_do_not_ask(client, dialect):
    query = {name: value for name, value in changed(dialect, {}).items() if name != "identifier"}
    answer = client.get("/uploads", query_string=query, headers=ANNA)
    # What is there is the list of uploads.
    assert answer.json == {"uploads": []}


# --- hostile input ---


def changed(dialect: Dialect, changes: dict[str, str | None]) -> dict[str, str]:
    """Return the fields of the second of three chunks, changed, by the names that a dialect gives them."""
    fields = dialect.build(cut(dialect, make_data(2500 if dialect not in LENGTHENING else 3500))[1][0])
    for name, value in changes.items():
        field = getattr(dialect, name)
        if field and value is None:
            fields.pop(field, None)
        elif field:
            fields[field] = value
    return fields


HOSTILE = [
    {"number": None}, {"count": None}, {"number": "-1"}, {"number": "9"}, {"number": "٢"}, {"number": "1.0"},
    {"count": "0"}, {"count": "-3"}, {"count": str(10**9)}, {"count": "9" * 30}, {"number": "9" * 30},
    {"count": "3 "}, {"count": "NaN"},
]  # fmt: skip
HOSTILE_SIZED = [
    {"identifier": None}, {"identifier": ""}, {"identifier": "x" * 5000}, {"total_size": None}, {"total_size": "-1"},
    {"total_size": str(10**30)}, {"total_size": "1e4"}, {"total_size": "0"},
]  # fmt: skip


@pytest.mark.parametrize("send_as", ["form", "octets", "both"])
@pytest.mark.parametrize("changes", [*HOSTILE, *HOSTILE_SIZED], ids=str)
@named
def test_hostile_field_is_refused_and_nothing_is_written(client, folder, dialect, changes, send_as):
    if changes in HOSTILE_SIZED and not dialect.total_size:
        changes = {"file_name": None} if None in changes.values() else {"count": "x"}
    fields = changed(dialect, changes)
    data = {dialect.file_part: (io.BytesIO(bytes(1000)), NAME)} if send_as != "octets" else bytes(1000)
    arguments = {"data": {**fields, **data} if send_as == "form" else data}
    if send_as != "form":
        arguments["query_string"] = fields
    answer = post(client, arguments)
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json["success"] is False
    assert answer.json["error"]
    assert not folder.exists()
    if dialect.permanent:
        assert dialect.outcome(answer.status_code, answer.json) == "stop"


@named
@pytest.mark.parametrize("where", ["query", "form", "between"])
def test_field_that_is_there_twice_is_refused(client, folder, dialect, where):
    chunk, content = cut(dialect, make_data(3500))[0]
    fields = dialect.build(chunk)
    for name in dialect.required:
        arguments = {"data": {dialect.file_part: (io.BytesIO(content), NAME)}}
        if where == "query":
            arguments["query_string"] = [*fields.items(), (name, "7")]
        elif where == "form":
            arguments["data"] |= {**fields, name: [fields[name], "7"]}
        else:
            arguments["data"] |= fields
            arguments["query_string"] = {name: "7"}
        answer = post(client, arguments)
        assert answer.json["code"] == "invalid_request", name
        assert name in answer.json["error"]
    assert not folder.exists()


@named
def test_field_that_is_there_twice_with_one_value_is_taken(client, dialect):
    chunk, content = cut(dialect, make_data(3500))[0]
    fields = dialect.build(chunk)
    query = [*fields.items(), *fields.items()]
    part = {dialect.file_part: (io.BytesIO(content), NAME)}
    assert post(client, {"data": part, "query_string": query}).status_code == 200


@free
@pytest.mark.parametrize("difference", [-1, 1, 500_000])
@pytest.mark.parametrize("number", [0, 1])
def test_chunk_of_another_length_than_declared_is_not_kept(client, dialect, number, difference):
    chunks = cut(dialect, make_data(3500))
    uid = post(client, form(dialect, *chunks[2])).json["uploadUid"]
    before = missing(client, uid)
    chunk, content = chunks[number]
    wrong = content[:difference] if difference < 0 else content + bytes(difference)
    for arguments in (form(dialect, chunk, wrong), octets(dialect, chunk, wrong)):
        if dialect is DROPZONE and "query_string" in arguments:
            continue
        answer = post(client, arguments)
        assert answer.json["code"] == "invalid_request"
        assert missing(client, uid) == before
    assert post(client, form(dialect, *chunks[number])).status_code == 200


@pytest.mark.parametrize("dialect", [d for d in FREE if d is not DROPZONE], ids=lambda dialect: dialect.name)
def test_body_of_another_length_than_declared_leaves_nothing(client, folder, dialect):
    chunk, content = cut(dialect, make_data(3500))[0]
    assert post(client, octets(dialect, chunk, content + b"x")).json["code"] == "invalid_request"
    assert not folder.exists()


@named
def test_chunk_over_the_limit_is_refused(make_host, folder, dialect):
    client = make_host(max_chunk_size=999).test_client()
    for arguments in (form, octets):
        chunk, content = cut(dialect, make_data(3500))[0]
        answer = post(client, arguments(dialect, chunk, content))
        assert answer.json["code"] == "too_large"
        assert dialect.outcome(answer.status_code, answer.json) == ("stop" if dialect.permanent else "retry") or (
            dialect is FINE_UPLOADER
        )


@named
def test_file_over_the_limit_is_refused_before_anything_is_written(make_host, folder, dialect):
    client = make_host(max_file_size=3000, max_chunks=3).test_client()
    chunk, content = cut(dialect, make_data(3500))[0]
    answer = post(client, form(dialect, chunk, content))
    assert answer.json["code"] == ("too_large" if dialect.total_size else "invalid_request")
    assert not folder.exists()


@named
def test_extension_that_is_not_allowed_is_refused(make_host, folder, dialect):
    client = make_host(allowed_extensions=["shp"]).test_client()
    answer = post(client, form(dialect, *cut(dialect, make_data(3500))[0]))
    assert answer.json["code"] == "unsupported_type"
    assert not folder.exists()


@named
def test_second_file_in_the_form_of_a_chunk_is_refused(client, dialect):
    chunk, content = cut(dialect, make_data(3500))[0]
    part = (io.BytesIO(content), NAME)
    other = (io.BytesIO(b"x"), "other")
    answer = post(client, {"data": {**dialect.build(chunk), dialect.file_part: part, "second": other}})
    assert answer.json["code"] == "invalid_request"
    assert "second" in answer.json["error"]


@named
@pytest.mark.parametrize("first", [True, False])
def test_file_input_without_a_file_beside_a_chunk_is_passed_over(client, dialect, first):
    chunk, content = cut(dialect, make_data(3500))[0]
    parts = [("empty", (io.BytesIO(b""), "")), (dialect.file_part, (io.BytesIO(content), NAME))]
    names = dict(parts if first else parts[::-1])
    assert post(client, {"data": {**dialect.build(chunk), **names}}).status_code == 200


@named
def test_form_of_a_chunk_without_a_file_is_refused(client, folder, dialect):
    fields = dialect.build(cut(dialect, make_data(3500))[0][0])
    answer = post(client, {"data": fields, "content_type": "multipart/form-data"})
    assert answer.json["code"] == "invalid_request"
    assert not folder.exists()


@named
def test_foreign_role_is_refused_for_good(client, folder, dialect):
    chunk, content = cut(dialect, make_data(3500))[0]
    answer = post(client, form(dialect, chunk, content), {**ANNA, "X-Role": "none"})
    assert answer.json["code"] == "forbidden"
    if dialect.permanent or dialect is FINE_UPLOADER:
        assert dialect.outcome(answer.status_code, answer.json) == "stop"
    assert not folder.exists()


@named
def test_error_of_the_host_is_worded_for_the_library(host, dialect):
    def refuse(access: object) -> bool:
        from flask import abort

        abort(401)

    host.extensions["upload_helper"] = replace(host.extensions["upload_helper"], authorize=refuse)
    answer = post(host.test_client(), form(dialect, *cut(dialect, make_data(3500))[0]))
    assert answer.json["success"] is False
    if dialect.permanent or dialect is FINE_UPLOADER:
        assert dialect.outcome(answer.status_code, answer.json) == "stop"


@named
def test_full_owner_may_go_on_later(make_host, dialect):
    client = make_host(max_open_uploads=1).test_client()
    send(client, bytes(10), 5, 0, headers=ANNA)
    answer = post(client, form(dialect, *cut(dialect, make_data(3500))[0]))
    assert answer.json["code"] == "too_many_uploads"
    assert dialect.outcome(answer.status_code, answer.json) == "retry"
    assert answer.status_code == 429


@free
def test_other_bytes_under_the_same_identifier_are_a_conflict(client, dialect):
    chunk, content = cut(dialect, make_data(3500))[0]
    uid = post(client, form(dialect, chunk, content)).json["uploadUid"]
    answer = post(client, form(dialect, chunk, content[::-1]))
    assert answer.json["code"] == "chunk_conflict"
    if dialect.permanent or dialect is FINE_UPLOADER:
        assert dialect.outcome(answer.status_code, answer.json) == "stop"
    for pair in cut(dialect, make_data(3500)):
        post(client, form(dialect, *pair))
    assert stored(client, uid) == make_data(3500)


values = st.sampled_from(["1", "2", "3", "1000", "2000", "3000", NAME]) | strategies.field_texts
fields_of_libraries = st.sampled_from(DIALECTS).flatmap(
    lambda dialect: st.dictionaries(st.sampled_from(sorted(dialect.fields)), values, min_size=3)
) | st.dictionaries(st.sampled_from(sorted(FIELDS)), values)


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fields_of_libraries,
    fields_of_libraries,
    st.sampled_from(["GET", "HEAD", "POST", "PUT"]),
    st.booleans(),
    st.booleans(),
)
def test_any_fields_are_answered(client, query, sent, method, as_form, at_all):
    body, kind = encode_multipart_formdata([*sent.items(), *([("file", (NAME, bytes(1000)))] if at_all else [])])
    arguments = {"data": body, "content_type": kind} if as_form else {"data": bytes(1000), "content_type": OCTETS}
    with client.open("/uploads", method=method, query_string=query, headers=ANNA, **arguments) as answer:
        assert answer.status_code in (200, 204, 400, 403, 404, 405, 409, 411, 413, 415, 429), answer.text


# --- Fine Uploader ---


def done(client, data: bytes, **changes: str):
    chunk, _ = cut(FINE_UPLOADER, data)[0]
    sent = AllSent(chunk.identifier, chunk.file_name, chunk.total_size, chunk.count).build() | changes
    return client.post("/uploads", data=sent, headers=ANNA, content_type="application/x-www-form-urlencoded")


def test_fine_uploader_asks_whether_all_is_there(client):
    data = make_data(3500)
    uid = post_all(client, FINE_UPLOADER, data)
    answer = done(client, data)
    assert (answer.status_code, answer.json["success"], answer.json["uploadUid"]) == (200, True, uid)


def test_fine_uploader_begins_anew_where_something_is_missing(client):
    data = make_data(3500)
    post(client, form(FINE_UPLOADER, *cut(FINE_UPLOADER, data)[0]))
    answer = done(client, data)
    assert (answer.status_code, answer.json["success"], answer.json["reset"]) == (409, False, True)


@pytest.mark.parametrize("changes", [{"qqtotalparts": "x"}, {"qqtotalfilesize": "-1"}, {"qqfilename": ""}])
def test_senseless_question_of_fine_uploader_is_refused(client, changes):
    answer = done(client, make_data(3500), **changes)
    assert (answer.status_code, answer.json["preventRetry"]) == (400, True)


def test_fine_uploader_asks_for_what_is_not_there(client):
    assert done(client, make_data(3500)).json["code"] == "not_found"


def test_other_forms_without_files_are_refused(client):
    for body in (b"a=b", b"\xff\xfe", b"", b"a&" * 500):
        answer = client.post("/uploads", data=body, content_type="application/x-www-form-urlencoded", headers=ANNA)
        assert (answer.status_code, answer.json["code"]) == (415, "unsupported_type")


def test_fine_uploader_begins_anew_what_it_can_not_resume(client, folder):
    data = make_data(3500)
    chunks = cut(FINE_UPLOADER, data)
    answer = post(client, form(FINE_UPLOADER, *chunks[2], qqresume="true"))
    assert (answer.status_code, answer.json["reset"], answer.json["preventRetry"]) == (409, True, False)
    assert not folder.exists()
    post(client, form(FINE_UPLOADER, *chunks[0]))
    for pair in chunks[1:]:
        answer = post(client, form(FINE_UPLOADER, *pair, qqresume="true"))
    assert stored(client, answer.json["uploadUid"]) == data


# --- plupload, which has no identifiers and no offsets ---


def begin(client, data: bytes, count: int, **changes: str) -> dict:
    """Send the first `count` chunks; return the last answer."""
    for chunk, content in cut(PLUPLOAD, data)[:count]:
        answer = post(client, form(PLUPLOAD, chunk, content, **changes))
        assert answer.status_code == 200, answer.text
    return answer.json


def test_repeated_chunk_changes_nothing(client):
    data = make_data(3500)
    for chunk, content in cut(PLUPLOAD, data):
        answers = [post(client, form(PLUPLOAD, chunk, content)).json["uploadUid"] for _ in range(2)]
        assert len(set(answers)) == (2 if chunk.number == 0 else 1)
    assert stored(client, answers[0]) == data


@pytest.mark.parametrize("number", [2, 3])
def test_chunk_out_of_order_is_refused(client, number):
    data = make_data(4500)
    uid = begin(client, data, 1)["uploadUid"]
    answer = post(client, form(PLUPLOAD, *cut(PLUPLOAD, data)[number]))
    assert (answer.status_code, answer.json["code"]) == (409, "incomplete")
    for chunk, content in cut(PLUPLOAD, data)[1:]:
        assert post(client, form(PLUPLOAD, chunk, content)).json["uploadUid"] == uid
    assert stored(client, uid) == data


def test_chunk_that_follows_nothing_is_refused(client, folder):
    answer = post(client, form(PLUPLOAD, *cut(PLUPLOAD, make_data(3500))[1]))
    assert (answer.status_code, answer.json["code"]) == (404, "not_found")
    assert not folder.exists()


def test_first_chunk_begins_anew(client):
    old, new = make_data(3500), make_data(3501)
    gone = begin(client, old, 2)["uploadUid"]
    uid = begin(client, new, 4)["uploadUid"]
    assert stored(client, uid) == new
    assert client.get(f"/uploads/{gone}/status", headers=ANNA).status_code == 404


def test_finished_file_stays_when_another_of_its_name_begins(client):
    old, new = make_data(3500), make_data(3501)
    first, second = begin(client, old, 4)["uploadUid"], begin(client, new, 4)["uploadUid"]
    assert (stored(client, first), stored(client, second)) == (old, new)


def test_two_files_of_one_name_do_not_meet_with_an_identifier(client):
    one, other = make_data(3500), make_data(3501)
    for ours, theirs in zip(cut(PLUPLOAD, one), cut(PLUPLOAD, other), strict=True):
        first = post(client, form(PLUPLOAD, *ours, identifier="o_1"))
        second = post(client, form(PLUPLOAD, *theirs, identifier="o_2"))
    assert stored(client, first.json["uploadUid"]) == one
    assert stored(client, second.json["uploadUid"]) == other


def test_cut_chunk_leaves_what_was_there(host):
    data = make_data(3500)
    client = host.test_client()
    uid = begin(client, data, 1)["uploadUid"]
    chunk, content = cut(PLUPLOAD, data)[1]
    answer = client.post(
        "/uploads", query_string=PLUPLOAD.build(chunk), headers=ANNA, content_type=OCTETS, **cut_body(content, -1)
    )
    assert answer.json["code"] == "body_cut"
    for pair in cut(PLUPLOAD, data)[1:]:
        assert post(client, form(PLUPLOAD, *pair)).status_code == 200
    assert stored(client, uid) == data


# --- whole files ---


def whole(*parts: tuple[str, bytes, str], **fields: str | list[str]) -> dict:
    """Return the arguments for a Flask test client with files as a form."""
    listed = [
        (name, value) for name, values in fields.items() for value in ([values] if isinstance(values, str) else values)
    ]
    files = [(name, (file_name, content, OCTETS)) for name, content, file_name in parts]
    body, kind = encode_multipart_formdata([*listed, *files])
    return {"data": body, "content_type": kind}


WHOLE = [
    # Uppy, which names what it knows of the file.
    {"name": NAME, "type": "image/tiff", "relativePath": "null"},
    # Dropzone and a page's own form.
    {}, {"csrf_token": "x"}, {"name": "Frida"},
    # Fine Uploader.
    {"qquuid": "0f-1", "qqfilename": NAME, "qqtotalfilesize": "SIZE"},
    # plupload with one chunk, or none of an empty file.
    {"name": NAME, "chunk": "0", "chunks": "1"}, {"name": NAME, "chunk": "0", "chunks": "0"}, {"name": NAME},
]  # fmt: skip


@pytest.mark.parametrize("size", [0, 1, 3 << 20])
@pytest.mark.parametrize("fields", WHOLE, ids=str)
@pytest.mark.parametrize("user", [ANNA, {}])
def test_whole_file_comes_in_a_form(client, fields, size, user):
    data = make_data(size)
    sent = {name: str(size) if value == "SIZE" else value for name, value in fields.items()}
    answer = post(client, whole(("file", data, NAME), **sent), user)
    assert answer.status_code == 200, answer.text
    uid = answer.json["uploadUid"]
    assert stored(client, uid, user) == data
    url = f"/uploads/{uid}"
    assert answer.json["url"] == url
    assert answer.json["uploads"] == [{"uploadUid": uid, "fileName": NAME, "totalSize": size, "url": url}]
    assert answer.json.get("newUuid") == (uid if "qquuid" in fields else None)


@pytest.mark.parametrize("names", [("file", "file"), ("files[]", "files[]"), ("a", "b")])
def test_several_files_come_in_one_form(client, names):
    contents = [make_data(1000), make_data(2 << 20)]
    parts = [(name, data, f"{len(data)}.tif") for name, data in zip(names, contents, strict=True)]
    answer = post(client, whole(*parts, note="x"))
    assert answer.status_code == 200, answer.text
    assert [file["fileName"] for file in answer.json["uploads"]] == ["1000.tif", f"{2 << 20}.tif"]
    assert [stored(client, file["uploadUid"]) for file in answer.json["uploads"]] == contents
    assert answer.json["uploadUid"] == answer.json["uploads"][0]["uploadUid"]


def test_file_inputs_without_a_file_are_passed_over(client):
    answer = post(client, whole(("a", b"", ""), ("b", b"x", "b.tif"), ("c", b"", "")))
    assert [file["fileName"] for file in answer.json["uploads"]] == ["b.tif"]


def test_file_without_a_name_is_taken(client):
    answer = post(client, whole(("a", b"x", "")))
    assert [file["fileName"] for file in answer.json["uploads"]] == ["unnamed"]


@pytest.mark.parametrize("parts", [[], [("a", b"", "")], [("a", b"", ""), ("b", b"", "")]])
def test_form_without_a_file_is_refused(client, folder, parts):
    answer = post(client, whole(*parts, name="x"))
    assert (answer.status_code, answer.json["code"]) == (400, "invalid_request")
    assert not folder.exists()


def test_form_whose_fields_differ_may_have_them_twice(client):
    assert post(client, whole(("file", b"x", "a.tif"), layers=["roads", "rivers"])).status_code == 200


@pytest.mark.parametrize("kind", [OCTETS, "image/tiff", None])
@pytest.mark.parametrize("fields", [{"name": NAME}, {"qquuid": "0f-1", "qqfilename": NAME, "qqfile": NAME}])
def test_whole_file_is_the_body(client, fields, kind):
    data = make_data(3000)
    answer = client.post("/uploads", query_string=fields, data=data, content_type=kind, headers=ANNA)
    assert stored(client, answer.json["uploadUid"]) == data
    assert answer.json["uploads"][0]["fileName"] == NAME


@pytest.mark.parametrize("declared", ["2999", "3001", "-1", "x", str(10**30)])
def test_file_of_another_size_than_declared_is_not_kept(client, folder, declared):
    fields = {"qquuid": "0f-1", "qqfilename": NAME, "qqtotalfilesize": declared}
    answer = post(client, whole(("qqfile", make_data(3000), NAME), **fields))
    assert 400 <= answer.status_code < 500
    assert answer.json["preventRetry"] is True
    assert client.get("/uploads", headers=ANNA).json["uploads"] == []


def test_all_files_of_a_form_are_kept_or_none(make_host):
    client = make_host(allowed_extensions=["tif"]).test_client()
    events = []
    uh.upload_finished.connect(lambda app, upload: events.append(upload), client.application, weak=False)
    answer = post(client, whole(("a", b"x", "a.tif"), ("b", b"x", "b.exe")))
    assert answer.json["code"] == "unsupported_type"
    assert client.get("/uploads", headers=ANNA).json["uploads"] == []
    assert events == []


@pytest.mark.parametrize("keep", [1000, -2000, -10])
def test_files_are_not_kept_of_a_form_that_is_cut(client, keep):
    arguments = whole(("a", make_data(5000), "a.tif"), ("b", make_data(5000), "b.tif"))
    answer = client.post(
        "/uploads", headers=ANNA, content_type=arguments["content_type"], **cut_body(arguments["data"], keep)
    )
    assert answer.json["code"] == "body_cut"
    assert client.get("/uploads", headers=ANNA).json["uploads"] == []


@pytest.mark.parametrize(("size", "status"), [(5000, 200), (5001, 413)])
@pytest.mark.parametrize(
    "fields", [{}, {"qquuid": "1", "qqfilename": NAME}, {"name": NAME, "chunk": "0", "chunks": "1"}]
)
def test_largest_whole_file(make_host, fields, size, status):
    client = make_host(max_file_size=5000, max_chunk_size=1000).test_client()
    answer = post(client, whole(("file", make_data(size), NAME), **fields))
    assert answer.status_code == status, answer.text
    assert len(client.get("/uploads", headers=ANNA).json["uploads"]) == (status == 200)


def test_form_that_is_too_large_for_a_chunk_goes_straight_to_the_store(make_host, monkeypatch):
    def refuse(*arguments: object) -> None:
        raise AssertionError("put on the disk beside the store")

    monkeypatch.setattr("upload_helper.body.tempfile.SpooledTemporaryFile", refuse)
    client = make_host(max_chunk_size=1000).test_client()
    data = make_data(300_000)
    answer = post(client, whole(("file", data, NAME)))
    assert stored(client, answer.json["uploadUid"]) == data


@named
def test_large_chunk_before_its_fields_is_not_taken_for_a_file(make_host, dialect):
    client = make_host(max_chunk_size=999).test_client()
    chunk, content = cut(dialect, make_data(3500))[0]
    answer = post(client, file_first(dialect, chunk, content))
    assert answer.json["code"] == "too_large"
    assert client.get("/uploads", headers=ANNA).json["uploads"] == []


def test_chunk_protocol_goes_on_beside_the_libraries(client):
    data = make_data(1500)
    fields = {"fileName": NAME, "totalSize": "1500", "chunkCount": "2"}
    uid = ""
    for number in range(2):
        part = (io.BytesIO(data[number * 1000 :][:1000]), "blob")
        sent = {**fields, "chunkNumber": str(number), "uploadUid": uid, "content": part}
        answer = post(client, {"data": sent})
        assert answer.json.keys() == {"uploadUid"}
        uid = answer.json["uploadUid"]
    assert stored(client, uid) == data


def test_answer_is_json_for_a_page_that_accepts_anything(client):
    answer = post(client, whole(("file", b"x", "a.tif")), {**ANNA, "Accept": "text/html,*/*"})
    assert answer.mimetype == JSON
    assert json.loads(answer.data)["success"] is True
