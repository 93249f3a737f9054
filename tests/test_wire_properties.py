"""Whatever comes over the wire, the answer is one of ours; and what one side builds the other reads."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import msgpack
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from chunks import RAW
from host import make_app
from hostile import FORM, decoded, file_part, form, text_part, tree
from strategies import (
    FIELDS,
    field_sets,
    field_texts,
    files,
    header_sets,
    header_values,
    members,
    messages,
    plain_values,
    texts,
)
from upload_helper import ChunkRequest, ChunkResponse, Error, StatusResponse
from upload_helper.config import Config
from upload_helper.intake import read_chunk
from upload_helper.protocols import structs
from upload_helper.protocols.chunked import RAW as RAW_TYPE
from upload_helper.protocols.chunked import to_text

JSON, MSGPACK = structs.JSON, structs.MSGPACK
RESPONSES = {200, 204, 206, 304, 308, 400, 403, 404, 405, 408, 409, 411, 412, 413, 415, 416, 422, 429, 507}

few = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Return a client and an upload of it; an exception in the application fails the test."""
    folder = tmp_path_factory.mktemp("wire") / "uploads"
    limits = {"MAX_OPEN_UPLOADS": 50, "MAX_FILE_SIZE": 1 << 20, "MAX_CHUNK_SIZE": 1 << 16, "SWEEP_INTERVAL": 0}
    config = {f"UPLOAD_HELPER_{name}": value for name, value in limits.items()}
    app = make_app(TESTING=True, UPLOAD_HELPER_FOLDER=folder, UPLOAD_HELPER_DURABILITY="none",
                   UPLOAD_HELPER_MIN_FREE_SPACE=0, **config)  # fmt: skip
    client = app.test_client()
    query = {"fileName": "x", "totalSize": 4, "chunkCount": 1, "chunkNumber": 0}
    uid = client.post("/uploads", query_string=query, data=b"1234", headers=RAW).json["uploadUid"]
    return client, uid, folder


def check(answer: Any) -> None:
    with answer:
        assert answer.status_code in RESPONSES, answer.text
        if answer.mimetype == "text/html":
            # What matches no address, or no method of it, is answered by the application and not by us.
            assert answer.status_code in (308, 404, 405)
        elif answer.status_code == 412:
            # The framework's answer to a condition that a download does not meet.
            assert "If-Match" in answer.request.headers
        elif answer.status_code >= 400:
            found = decoded(answer) if answer.data else {"error": "", "code": "", "remedy": ""}
            assert {"error", "code", "remedy"} <= found.keys()
            assert len(answer.data) < 4096
        assert "\n" not in "".join(answer.headers.values())


# -- no input is an error of ours


@few
@given(query=field_sets, headers=header_sets, body=st.binary(max_size=60))
def test_no_query_nor_header_is_an_error_of_ours(shared, query, headers, body):
    client, uid, _ = shared
    for method, path in (
        ("POST", "/uploads"),
        ("GET", "/uploads"),
        ("GET", f"/uploads/{uid}"),
        ("GET", f"/uploads/{uid}/status"),
    ):
        check(client.open(path, method=method, query_string=urlencode(query), data=body, headers=headers))


@few
@given(kind=st.sampled_from([JSON, MSGPACK]), values=members, headers=header_sets)
def test_no_object_is_an_error_of_ours(shared, kind, values, headers):
    client, _, _ = shared
    body = json.dumps(values) if kind == JSON else msgpack.packb(values)
    headers = {name: value for name, value in headers.items() if name != "Content-Type"}
    check(client.post("/uploads", data=body, content_type=kind, headers=headers))


@few
@given(kind=st.sampled_from([JSON, MSGPACK, FORM, RAW_TYPE]), body=st.binary(max_size=200))
def test_no_body_is_an_error_of_ours(shared, kind, body):
    client, _, _ = shared
    check(client.post("/uploads", data=body, content_type=kind))


@few
@given(
    parts=st.lists(st.tuples(st.sampled_from(FIELDS) | texts, field_texts), max_size=9),
    query=field_sets, cut=st.integers(0, 400), file=st.binary(max_size=60),
)  # fmt: skip
def test_no_form_is_an_error_of_ours(shared, parts, query, cut, file):
    client, _, _ = shared
    pieces = [text_part(name.replace('"', "%22").replace("\n", ""), value) for name, value in parts]
    body = form(*pieces[: len(pieces) // 2], file_part(file), *pieces[len(pieces) // 2 :])
    for sent in (body, body[: max(0, len(body) - cut)]):
        check(client.post("/uploads", query_string=urlencode(query), data=sent, content_type=FORM))


@few
@given(
    uid=field_texts,
    rest=st.sampled_from(["", "/status", "/", "/x"]),
    method=st.sampled_from(["GET", "HEAD", "DELETE", "PUT", "POST"]),
)
def test_no_uid_is_an_error_of_ours(shared, uid, rest, method):
    client, _, folder = shared
    before = tree(folder)
    check(client.open(f"/uploads/{quote(uid, safe='')}{rest}", method=method, headers={"Content-Type": "text/plain"}))
    assert tree(folder) == before


@few
@given(
    headers=st.dictionaries(
        st.sampled_from(["Range", "If-Range", "If-None-Match", "If-Modified-Since", "Accept"]), header_values
    )
)
@example({"Range": "bytes=1-2,0-0", "If-Range": '"x'})
def test_no_condition_on_a_download_is_an_error_of_ours(shared, headers):
    client, uid, _ = shared
    with client.get(f"/uploads/{uid}", headers=headers) as answer:
        assert answer.status_code in (200, 206, 304, 412, 416)
        if answer.status_code < 300:
            assert answer.data in b"1234"


# -- what one side builds the other reads


def to_struct(kind: str, message: ChunkRequest) -> bytes:
    return structs.encode(message, kind)


@given(messages)
def test_message_survives_json_and_msgpack(message):
    for kind in (JSON, MSGPACK):
        assert structs.load(ChunkRequest, structs.decode(to_struct(kind, message), kind)) == message


@given(messages)
@example(ChunkRequest("", 0, 1, 0, b""))
def test_message_survives_a_query_and_a_form(message):
    sent = dict(parse_qsl(urlencode(to_text(message)), keep_blank_values=True))
    assert ChunkRequest.streamed(structs.from_text(ChunkRequest, sent), [message.content], None) == message


def request_of(kind: str, message: ChunkRequest) -> Request:
    """Return the request that carries a message in one of the four encodings."""
    values = to_text(message)
    if kind in structs.STRUCT_TYPES:
        builder = EnvironBuilder(method="POST", data=to_struct(kind, message), content_type=kind)
    elif kind == RAW_TYPE:
        builder = EnvironBuilder(method="POST", query_string=urlencode(values), data=message.content, content_type=kind)
    else:
        parts = [text_part(name, value) for name, value in values.items()]
        builder = EnvironBuilder(method="POST", data=form(*parts, file_part(message.content)), content_type=FORM)
    return builder.get_request(Request)


@given(messages, st.sampled_from([JSON, MSGPACK, FORM, RAW_TYPE]))
@example(ChunkRequest("", 0, 1, 0, b""), FORM)
@example(ChunkRequest("", 0, 1, 0, b""), RAW_TYPE)
def test_message_survives_a_request_in_every_encoding(tmp_path_factory, message, kind):
    config = Config(folder=tmp_path_factory.getbasetemp())
    with request_of(kind, message) as request:
        assert read_chunk(request, config, ChunkRequest) == message


@given(st.builds(ChunkResponse, texts) | st.builds(
    StatusResponse, texts, texts, st.integers(0, 2**63), st.integers(1, 2**63), st.sampled_from(["open", "finished"]),
    st.integers(0, 2**63), st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99))), st.none() | st.integers(1, 99),
    st.none() | st.floats(0, 1e12),
))  # fmt: skip
def test_answer_is_the_same_in_json_and_msgpack(answer):
    in_json, in_msgpack = (structs.decode(structs.encode(answer, kind), kind) for kind in (JSON, MSGPACK))
    assert in_json == in_msgpack
    assert in_json["uploadUid"] == answer.uploadUid


@given(plain_values, st.sampled_from(FIELDS))
def test_value_of_a_wrong_type_is_refused_by_name_or_is_of_the_right_one(value, name):
    good = {"fileName": "x", "totalSize": 1, "chunkCount": 1, "chunkNumber": 0, "content": b""}
    try:
        message = structs.load(ChunkRequest, {**good, name: value})
    except Error as error:
        assert name in str(error)
        return
    kinds = {"totalSize": int, "chunkCount": int, "chunkNumber": int, "content": bytes}
    if name != "cmd":
        assert type(getattr(message, name)) is kinds.get(name, str)


@given(texts, st.binary(max_size=200), st.integers(-5, 200))
def test_json_and_msgpack_that_break_off_are_refused(name, content, cut):
    message = ChunkRequest(name, len(content), 1, 0, content)
    for kind in (JSON, MSGPACK):
        body = to_struct(kind, message)
        broken = body[: min(max(cut, 0), len(body) - 1)]
        with pytest.raises(Error):
            structs.decode(broken, kind)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=files(),
    order=st.randoms(use_true_random=False),
    kinds=st.lists(st.sampled_from([JSON, MSGPACK, FORM, RAW_TYPE]), min_size=1),
)
def test_file_cut_into_any_chunks_arrives_whole(shared, parts, order, kinds):
    client, _, _ = shared
    numbers = list(range(len(parts)))
    order.shuffle(numbers)
    uid = ""
    for turn, number in enumerate(numbers):
        message = ChunkRequest("x", sum(map(len, parts)), len(parts), number, parts[number], uid)
        with request_of(kinds[turn % len(kinds)], message) as request:
            answer = client.post("/uploads", query_string=request.query_string.decode(), data=request.get_data(),
                                 content_type=request.content_type, headers={"Accept": JSON})  # fmt: skip
        assert answer.status_code == 200, answer.text
        uid = answer.json["uploadUid"]
    with client.get(f"/uploads/{uid}") as answer:
        assert answer.data == b"".join(parts)
    assert client.delete(f"/uploads/{uid}").status_code == 204
