"""Bad chunks and bad bodies, in every encoding: what they are answered with, and that nothing is written for them."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import struct
import tracemalloc
from typing import Any

import msgpack
import pytest

from chunks import RAW, fetch, fields, send, split, upload
from host import make_app
from hostile import (
    BOUNDARY,
    ENCODINGS,
    FIELD,
    FILE,
    FORM,
    PART,
    STRUCTS,
    TEXTS,
    Endless,
    as_form,
    as_json,
    as_msgpack,
    as_raw,
    decoded,
    file_part,
    form,
    refusal,
    text_part,
    tree,
    uploads_in,
)

DATA = random.Random(11).randbytes(1000)
PARTS = split(DATA, 300)
GOOD = fields(DATA, 300, 1)
DIGEST = hashlib.sha256(PARTS[1]).hexdigest()

# Field and value; the rest of the chunk is good.
BAD_EVERYWHERE = [
    ("chunkNumber", -1), ("chunkNumber", 4), ("chunkNumber", 2**63), ("chunkNumber", 2**63 - 1), ("chunkNumber", 2**64 - 1),
    ("chunkNumber", "1.0"), ("chunkNumber", ""), ("chunkNumber", "one"),
    ("chunkCount", 0), ("chunkCount", -1), ("chunkCount", 10**9), ("chunkCount", 2**63), ("chunkCount", "NaN"),
    ("totalSize", -1), ("totalSize", 2**63), ("totalSize", "NaN"), ("totalSize", "Infinity"), ("totalSize", "1e3"),
    ("totalSize", 3),
    ("fileName", "x" * 256),
    ("identifier", "x" * 1001), ("checksum", "sha256"), ("checksum", "sha256:"), ("checksum", "sha256:" + "0" * 63),
    ("checksum", "sha256:" + "g" * 64), ("checksum", "sha256:" + "٠" * 64), ("checksum", "md4:" + "0" * 32),
    ("checksum", ":" + "0" * 64), ("checksum", "shake_128:00"), ("fileChecksum", "crc32:00000000"),
    ("checksum", "x" * 10_000), ("fileChecksum", "x" * 10_000), ("identifier", "x" * 10_000),
]  # fmt: skip

BAD_IN_STRUCTS = [
    *((name, value) for name in ("chunkNumber", "chunkCount", "totalSize")
      for value in (True, False, 1.0, 1000.0, "1", "1000", None, [], [1], {}, float("inf"), float("nan"))),
    ("fileName", None), ("content", None),
    *((name, value) for name in ("fileName", "uploadUid", "identifier", "checksum")
      for value in (5, 1.5, True, [], {}, ["x"], {"x": "y"})),
    *(("content", value) for value in (5_000_000_000, -1, 0, 1.5, True, [], {}, [1, 2], "no base64!", "QQ", "Q===", "Q Q=")),
    ("fileChecksum", "x" * 5_000_000), ("identifier", "x" * 1_000_000), ("fileName", "x/" * 1_000_000 + "y" * 256),
    ("checksum", "x" * 5_000_000), ("uploadUid", [[[]] * 1000]),
]  # fmt: skip

BAD_IN_TEXTS = [
    (name, value)
    for name in ("chunkNumber", "chunkCount", "totalSize")
    for value in ("+1", " 1", "1 ", "1\n", "0x1", "1_0", "1,0", "١", "１", "1e0", "true", "null", "\x001", "9" * 20)
]  # fmt: skip


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Return a host for all tests that must leave nothing, and the folder that must not be there afterwards."""
    folder = tmp_path_factory.mktemp("hostile") / "uploads"
    settings = {"UPLOAD_HELPER_FOLDER": folder, "UPLOAD_HELPER_DURABILITY": "none", "UPLOAD_HELPER_MIN_FREE_SPACE": 0}
    return make_app(TESTING=True, **settings).test_client(), folder


@pytest.fixture
def untouched(shared):
    client, folder = shared
    yield client
    try:
        assert tree(folder) is None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def short(value: object) -> str:
    return ascii(value)[:30]


def struct_with(name: str, value: object, encode: Any) -> dict[str, Any]:
    content = value if name == "content" else PARTS[1]
    return encode({**GOOD, name: value} if name != "content" else GOOD, content)


@pytest.mark.parametrize(("name", "value"), BAD_EVERYWHERE, ids=short)
@pytest.mark.parametrize("encode", ENCODINGS)
def test_chunk_with_a_bad_field_is_refused_and_nothing_written(untouched, encode, name, value):
    refusal(untouched.post("/uploads", **encode({**GOOD, name: value}, PARTS[1])), 400, "invalid_request")


@pytest.mark.parametrize(("name", "value"), BAD_IN_STRUCTS, ids=short)
@pytest.mark.parametrize("encode", STRUCTS)
def test_chunk_with_a_member_of_the_wrong_type_is_refused(untouched, encode, name, value):
    refusal(untouched.post("/uploads", **struct_with(name, value, encode)), 400, "invalid_request")


@pytest.mark.parametrize(("name", "value"), BAD_IN_TEXTS, ids=short)
@pytest.mark.parametrize("encode", TEXTS)
def test_number_that_is_not_one_in_plain_digits_is_refused(untouched, encode, name, value):
    refusal(untouched.post("/uploads", **encode({**GOOD, name: value}, PARTS[1])), 400, "invalid_request")


@pytest.mark.parametrize("name", ["fileName", "totalSize", "chunkCount", "chunkNumber"])
@pytest.mark.parametrize("encode", ENCODINGS)
def test_missing_field_is_named(untouched, encode, name):
    values = {key: value for key, value in GOOD.items() if key != name}
    assert name in refusal(untouched.post("/uploads", **encode(values, PARTS[1])), 400)["error"]


@pytest.mark.parametrize("size", ["1" + "0" * 30, "9" * 4000, "9" * 5000, "1" + "0" * 30 + ".0", "1e400"])
@pytest.mark.parametrize("name", ["totalSize", "chunkCount", "chunkNumber"])
def test_huge_number_in_json_is_refused(untouched, name, size):
    body = json.dumps({**GOOD, "content": ""}).replace(f'"{name}": {GOOD[name]}', f'"{name}": {size}')
    assert size in body
    refusal(untouched.post("/uploads", data=body, content_type="application/json"), 400)


@pytest.mark.parametrize("size", ["1" + "0" * 30, "9" * 4000, "9" * 5000])
@pytest.mark.parametrize("encode", TEXTS)
def test_huge_number_in_text_is_refused(untouched, encode, size):
    refusal(untouched.post("/uploads", **encode({**GOOD, "totalSize": size}, PARTS[1])), 400)


@pytest.mark.parametrize("encode", ENCODINGS)
def test_size_over_the_limit_for_a_file_is_too_large(untouched, encode):
    refusal(untouched.post("/uploads", **encode({**GOOD, "totalSize": 2**62}, PARTS[1])), 413, "too_large")


@pytest.mark.parametrize("encode", ENCODINGS)
def test_count_that_is_allowed_costs_nothing_before_its_chunks_come(client, encode):
    values = {**GOOD, "totalSize": 2**33, "chunkCount": 1_000_000, "chunkNumber": 999_999}
    tracemalloc.start()
    try:
        answer = client.post("/uploads", **encode(values, PARTS[1]))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert answer.status_code == 200
    assert peak < 4 << 20
    assert client.delete(f"/uploads/{decoded(answer)['uploadUid']}").status_code == 204


@pytest.mark.parametrize("encode", ENCODINGS)
@pytest.mark.parametrize(("size", "status"), [(1000, 200), (1001, 413)])
def test_largest_chunk_is_the_same_in_every_encoding(make_host, folder, encode, size, status):
    client = make_host(max_chunk_size=1000).test_client()
    data = bytes(5000)
    answer = client.post("/uploads", **encode(fields(data, 1000, 0), data[:size]))
    assert answer.status_code == status, answer.text
    if status == 413:
        refusal(answer, 413, "too_large")
        assert uploads_in(folder) == []


@pytest.mark.parametrize("encode", ENCODINGS)
def test_chunk_longer_than_the_file_is_refused(client, folder, encode):
    refusal(client.post("/uploads", **encode(fields(DATA, 1000, 0), DATA + b"x")), 400, "invalid_request")
    assert uploads_in(folder) == []


@pytest.mark.parametrize(
    "change", [{"fileName": "other.bin"}, {"totalSize": 999}, {"chunkCount": 5}, {"totalSize": 10_000}]
)
@pytest.mark.parametrize("encode", ENCODINGS)
def test_later_chunk_that_contradicts_the_first_is_refused(client, folder, encode, change):
    uid = send(client, DATA, 300, 0).json["uploadUid"]
    before = tree(folder)
    values = {**GOOD, "uploadUid": uid, **change}
    refusal(client.post("/uploads", **encode(values, PARTS[1])), 400, "invalid_request")
    assert tree(folder) == before


@pytest.mark.parametrize("sent", [b"x" + PARTS[1][1:], PARTS[1][:-1], PARTS[1] + b"x", b"", PARTS[1][:-1] + b"x"])
@pytest.mark.parametrize("encode", ENCODINGS)
def test_same_number_with_other_bytes_conflicts_and_the_first_stands(client, encode, sent):
    uid = send(client, DATA, 300, 1).json["uploadUid"]
    values = {**GOOD, "uploadUid": uid}
    refusal(client.post("/uploads", **encode(values, sent)), 409, "chunk_conflict")
    assert client.post("/uploads", **encode(values, PARTS[1])).status_code == 200
    for number in (0, 2, 3):
        send(client, DATA, 300, number, uid=uid)
    refusal(client.post("/uploads", **encode(values, sent)), 409, "chunk_conflict")
    assert client.post("/uploads", **encode(values, PARTS[1])).status_code == 200
    assert fetch(client, uid) == DATA


@pytest.mark.parametrize("encode", ENCODINGS)
def test_wrong_checksum_discards_the_chunk(client, encode):
    uid = send(client, DATA, 300, 0).json["uploadUid"]
    values = {**GOOD, "uploadUid": uid, "checksum": f"SHA256:{DIGEST.upper()}"}
    refusal(client.post("/uploads", **encode(values, b"x" * 300)), 422, "checksum_mismatch")
    assert client.get(f"/uploads/{uid}/status").json["missing"] == [[1, 3]]
    assert client.post("/uploads", **encode(values, PARTS[1])).status_code == 200
    assert client.get(f"/uploads/{uid}/status").json["missing"] == [[2, 3]]


@pytest.mark.parametrize("encode", ENCODINGS)
def test_wrong_checksum_of_the_first_chunk_leaves_no_upload(client, folder, encode):
    values = {**GOOD, "checksum": f"md5:{'0' * 32}"}
    refusal(client.post("/uploads", **encode(values, PARTS[1])), 422, "checksum_mismatch")
    assert uploads_in(folder) == []


@pytest.mark.parametrize("encode", ENCODINGS)
def test_all_chunks_with_too_few_bytes_are_incomplete_until_the_missing_bytes_come(client, encode):
    uid = ""
    for number, content in enumerate([PARTS[0], PARTS[1][:-7], *PARTS[2:]]):
        answer = client.post("/uploads", **encode(fields(DATA, 300, number, uid=uid), content))
        uid = decoded(answer)["uploadUid"]
    refused = refusal(client.get(f"/uploads/{uid}"), 409, "incomplete")
    assert "993 of 1000 bytes" in refused["error"]
    assert client.post("/uploads", **encode({**GOOD, "uploadUid": uid}, PARTS[1])).status_code == 200
    assert fetch(client, uid) == DATA


@pytest.mark.parametrize("encode", ENCODINGS)
def test_wrong_checksum_of_the_file_makes_all_of_it_missing(client, encode):
    uid = ""
    values = {"fileChecksum": f"sha256:{'0' * 64}"}
    for number in range(3):
        answer = client.post("/uploads", **encode({**fields(DATA, 300, number, uid=uid), **values}, PARTS[number]))
        uid = decoded(answer)["uploadUid"]
    last = client.post("/uploads", **encode({**fields(DATA, 300, 3, uid=uid), **values}, PARTS[3]))
    refusal(last, 422, "checksum_mismatch")
    assert client.get(f"/uploads/{uid}/status").json["missing"] == [[0, 3]]


# -- what stands around the chunk


@pytest.mark.parametrize("kind", [
    None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/mixed; boundary=b", "application/octet-streams",
    "application/json5", "application/x-msgpack", "*/*", "application/json, application/msgpack", "x" * 6000, ";", "/",
])  # fmt: skip
def test_unknown_content_type_is_refused(untouched, kind):
    answer = untouched.post("/uploads", query_string=GOOD, data=PARTS[1], content_type=kind)
    refusal(answer, 415, "unsupported_type")


@pytest.mark.parametrize("coding", ["gzip", "GZIP", " br", "deflate", "gzip, identity", "identity, gzip", "x" * 6000])
@pytest.mark.parametrize("encode", ENCODINGS)
def test_coded_body_is_refused(untouched, encode, coding):
    request = encode(GOOD, PARTS[1])
    request["headers"] = {**request.get("headers", {}), "Content-Encoding": coding}
    refusal(untouched.post("/uploads", **request), 415, "unsupported_type")


@pytest.mark.parametrize("coding", ["identity", "Identity", ""])
def test_body_that_is_not_coded_may_say_so(client, coding):
    assert send(client, DATA, 300, 0, headers={"Content-Encoding": coding}).status_code == 200


@pytest.mark.parametrize("length", ["-1", "+5", "1.0", "5 5", "abc", "٣", "0x5", "1_0", "9" * 5000], ids=short)
@pytest.mark.parametrize("encode", ENCODINGS)
def test_content_length_that_is_no_number_is_refused(untouched, encode, length):
    answer = untouched.post("/uploads", **encode(GOOD, PARTS[1]), environ_overrides={"CONTENT_LENGTH": length})
    assert answer.status_code in (400, 413), answer.text
    refusal(answer, answer.status_code)


@pytest.mark.parametrize("length", [299, 301, 1000])
@pytest.mark.parametrize("encode", ENCODINGS)
def test_body_of_another_length_than_declared_is_not_acknowledged(client, encode, length):
    uid = send(client, DATA, 300, 0).json["uploadUid"]
    request = encode({**GOOD, "uploadUid": uid, "checksum": f"sha256:{DIGEST}"}, PARTS[1])
    answer = client.post("/uploads", **request, environ_overrides={"CONTENT_LENGTH": str(length)})
    assert answer.status_code in (400, 422), answer.text
    refusal(answer, answer.status_code)
    assert client.get(f"/uploads/{uid}/status").json["missing"] == [[1, 3]]


@pytest.mark.parametrize("encode", ENCODINGS)
def test_chunked_body_that_the_server_does_not_pass_on_is_not_taken_for_an_empty_one(untouched, encode):
    request = encode(GOOD, PARTS[1])
    answer = untouched.post(
        "/uploads", **request, environ_overrides={"CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked"}
    )
    refusal(answer, 411, "length_required")


def endless(client: Any, body: Endless, kind: str, *, length: int | None = None, values: Any = GOOD) -> Any:
    """Post a body without an end, as a server shows it that ends chunked bodies itself, or with a length declared."""
    declared = "" if length is None else str(length)
    overrides = {"wsgi.input": body, "wsgi.input_terminated": True, "CONTENT_TYPE": kind, "CONTENT_LENGTH": declared}
    return client.post("/uploads", query_string=values, environ_overrides=overrides)


@pytest.mark.parametrize(
    ("kind", "start", "filling"),
    [
        ("application/octet-stream", b"", b"x"),
        ("application/json", b'{"fileName": "', b"x"),
        ("application/json", b"", b" "),
        ("application/json", b"", b"["),
        ("application/msgpack", b"\xc6\xff\xff\xff\xff", b"x"),
        (FORM, FILE, b"x"),
        (FORM, FILE, b"\r\n--c"),
        (FORM, FILE, b"\r"),
    ],
    ids=short,
)
def test_body_without_an_end_is_read_no_further_than_a_chunk_may_go(make_host, folder, kind, start, filling):
    client = make_host(max_chunk_size=1 << 20).test_client()
    body = Endless(start, filling)
    values = fields(bytes(8 << 20), 1 << 20, 0)
    answer = endless(client, body, kind, values=values)
    refusal(answer, 413, "too_large")
    # A little more than a chunk, and what is read away so that the client comes to see the answer.
    assert body.taken <= 6 << 20
    assert uploads_in(folder) == []


@pytest.mark.parametrize("kind", ["application/octet-stream", "application/json", "application/msgpack", FORM])
def test_body_declared_over_the_limit_is_refused_unread(make_host, folder, kind):
    client = make_host(max_chunk_size=1 << 20).test_client()
    body = Endless()
    refusal(endless(client, body, kind, length=10 << 30), 413, "too_large")
    assert body.taken == 0
    assert tree(folder) is None


def test_nothing_of_a_body_that_goes_on_behind_the_size_of_the_file_is_kept(make_host, folder):
    client = make_host(max_chunk_size=1 << 20).test_client()
    body = Endless()
    refusal(endless(client, body, "application/octet-stream", values=fields(b"x", 1, 0)), 400)
    assert body.taken <= 6 << 20
    assert uploads_in(folder) == []


@pytest.mark.parametrize(
    ("start", "filling"),
    [
        (FIELD + b'fileName"\r\n\r\n', b"x"),
        (PART + b"X-Header: ", b"x"),
        (PART, b"X-Header: x\r\n"),
        (b"--" + BOUNDARY, b"x"),
        (b"", b"x"),
        (b"", b"\r\n"),
        (b"", b"-"),
        (FIELD + b'x"\r\n\r\n', FIELD + b'x"\r\n\r\n'),
        (b"", FIELD + b'x"\r\n\r\n\r\n'),
        (form(file_part(b"")), b"x"),
    ],
    ids=["field", "one header", "headers", "line of the boundary", "no boundary", "line ends", "dashes", "long field",
         "fields", "what comes behind"],
)  # fmt: skip
def test_form_that_is_mostly_not_a_chunk_is_not_gathered_in_memory(make_host, folder, start, filling):
    client = make_host(max_chunk_size=8 << 20).test_client()
    body = Endless(start, filling)
    tracemalloc.start()
    try:
        answer = endless(client, body, FORM)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert answer.status_code in (400, 413), answer.text
    refusal(answer, answer.status_code)
    assert peak < 3 << 20
    assert uploads_in(folder) == []


GOOD_FIELDS = b"".join(text_part(name, value) for name, value in GOOD.items())
GOOD_FILE = file_part(PARTS[1])


def send_form(client: Any, body: bytes, kind: str = FORM, query: Any = None) -> Any:
    return client.post("/uploads", data=body, content_type=kind, query_string=query)


def test_form_by_hand_is_taken(client):
    assert send_form(client, form(GOOD_FIELDS, GOOD_FILE)).status_code == 200
    assert send_form(client, form(GOOD_FILE, GOOD_FIELDS)).status_code == 200
    assert send_form(client, form(GOOD_FILE), query=GOOD).status_code == 200
    assert send_form(client, form(GOOD_FIELDS, GOOD_FILE), query=GOOD).status_code == 200


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (413, form(*[text_part(f"x{i}", "") for i in range(10_000)], GOOD_FIELDS, GOOD_FILE)),
        (413, form(GOOD_FIELDS, GOOD_FILE, *[text_part("x", "") for _ in range(10_000)])),
        (413, form(text_part("x", "y" * 10_000_000), GOOD_FIELDS, GOOD_FILE)),
        (413, form(GOOD_FIELDS, text_part("x", "y" * 10_000_000), GOOD_FILE)),
        (400, form(GOOD_FIELDS)),
        (400, form(GOOD_FIELDS, text_part("content", "abc"))),
        (400, form(GOOD_FIELDS, GOOD_FILE, GOOD_FILE)),
        (400, form(GOOD_FIELDS, GOOD_FILE, file_part(b"").replace(b"content", b"other"))),
        (400, form(GOOD_FIELDS, text_part("chunkNumber", 2), GOOD_FILE)),
        (400, form(text_part("chunkNumber", 2), GOOD_FILE, GOOD_FIELDS)),
        (400, form(GOOD_FIELDS, FIELD + b'identifier"\r\n\r\n\xff\xfe\r\n', GOOD_FILE)),
        (400, form(GOOD_FIELDS, GOOD_FILE, close=b"")),
        (400, form(GOOD_FIELDS, GOOD_FILE[:-20], close=b"")),
        (400, form(GOOD_FIELDS, FILE, close=b"")),
        (400, b""), (400, form()), (400, PART[:9]), (400, b"\x00" * 100), (400, PARTS[1]),
    ],
    ids=["10 000 fields in front", "10 000 fields behind", "field of 10 MB first", "field of 10 MB", "no file",
         "content as a field", "two files", "two files of two names", "field twice", "field twice, behind", "not UTF-8",
         "not closed", "cut in the file", "cut before the file", "empty", "nothing in it",
         "half a boundary", "zeros", "no form at all"],
)  # fmt: skip
def test_bad_form_is_refused(client, folder, status, body):
    refusal(send_form(client, body), status)
    assert uploads_in(folder) == []


@pytest.mark.parametrize("kind", [
    "multipart/form-data", "multipart/form-data; boundary=", 'multipart/form-data; boundary=""',
    "multipart/form-data; boundary=other", "multipart/form-data; boundary*=utf-8''%E2%82%AC",
    "multipart/form-data; boundary=" + "x" * 4000, "multipart/form-data; boundary=\xe4",
])  # fmt: skip
def test_form_with_a_bad_boundary_is_refused(untouched, kind):
    refusal(send_form(untouched, form(GOOD_FIELDS, GOOD_FILE), kind), 400)


@pytest.mark.parametrize(
    ("name", "value"), [("chunkNumber", "2"), ("fileName", "other"), ("uploadUid", "0" * 32), ("totalSize", "1001")]
)
def test_fields_that_disagree_in_query_and_form_are_refused(untouched, name, value):
    refusal(untouched.post("/uploads", **as_form(GOOD, PARTS[1]), query_string={name: value}), 400)


@pytest.mark.parametrize("name", ["chunkNumber", "fileName", "uploadUid", "nobody", "x" * 6000], ids=short)
def test_field_twice_in_the_query_is_refused_unless_the_values_agree(client, folder, name):
    query = as_raw(GOOD, b"")["query_string"]
    refusal(client.post(f"/uploads?{query}&{name}=1&{name}=2", data=PARTS[1], headers=RAW), 400)
    assert tree(folder) is None
    query += f"&chunkNumber={GOOD['chunkNumber']}"
    assert client.post(f"/uploads?{query}", data=PARTS[1], headers=RAW).status_code == 200


# -- objects that are small on the wire and large in memory

DEPTHS = [50, 100, 500, 900, 950, 980, 1000, 1010, 1024, 5000, 100_000, 1_000_000]


def nested(kind: str, depth: int, name: bytes = b"fileName") -> bytes:
    if kind == "application/json":
        return b'{"' + name + b'":' + b"[" * depth + b"]" * depth + b"}"
    return b"\x81" + bytes([0xA0 + len(name)]) + name + b"\x91" * depth + b"\x90"


def nested_maps(kind: str, depth: int) -> bytes:
    if kind == "application/json":
        return b'{"x":' * depth + b"1" + b"}" * depth
    return b"\x81\xa1x" * depth + b"\x01"


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("make", [nested, nested_maps])
@pytest.mark.parametrize("kind", ["application/json", "application/msgpack"])
def test_deeply_nested_object_is_refused(untouched, kind, make, depth):
    refusal(untouched.post("/uploads", data=make(kind, depth), content_type=kind), 400, "invalid_request")


HUGE = {
    "an array of a million": ("application/json", b'{"x":[' + b"1," * 1_000_000 + b"1]}"),
    "a million objects": ("application/json", b'{"x":[' + b"{}," * 1_000_000 + b"{}]}"),
    "a million members": ("application/json", b"{" + b",".join(b'"%d":1' % i for i in range(300_000)) + b"}"),
    "in UTF-16": ("application/json", ('{"x":[' + "1," * 300_000 + "1]}").encode("utf-16")),
    "array of a million": ("application/msgpack", b"\x81\xa1x" + msgpack.packb([1] * 1_000_000)),
    "a million arrays": ("application/msgpack", b"\x81\xa1x" + msgpack.packb([[]] * 1_000_000)),
    "a million keys": ("application/msgpack", msgpack.packb({str(i): i for i in range(300_000)})),
    "lists of lists": ("application/msgpack", b"\x81\xa1x" + msgpack.packb([[1] * 1000] * 1000)),
    "arrays that begin and never end": ("application/msgpack", b"\x81\xa1x" + b"\xdd\x00\x01\x86\x9f" * 900),
    "arrays begun at their end": (
        "application/msgpack", b"\x81\xa1x" + (b"\xdc\x75\x30" + b"\xcd\x03\x03" * 29_999) * 60,
    ),
    "a length of 4 GiB": ("application/msgpack", b"\x81\xa1x\xdd\xff\xff\xff\xff"),
    "text of 4 GiB": ("application/msgpack", b"\x81\xa1x\xdb\xff\xff\xff\xff"),
    "bytes of 4 GiB": ("application/msgpack", b"\x81\xa7content\xc6\xff\xff\xff\xff"),
}  # fmt: skip


@pytest.mark.parametrize("what", HUGE)
def test_object_of_very_many_items_is_refused_in_little_memory(untouched, what):
    kind, body = HUGE[what]
    tracemalloc.start()
    try:
        answer = untouched.post("/uploads", data=body, content_type=kind)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    refusal(answer, 400, "invalid_request")
    # The client and the server are one process here; the body is in memory four times or so.
    assert peak < 6 * len(body) + (16 << 20)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b""), ("application/json", b"null"), ("application/json", b"[]"), ("application/json", b'"x"'),
        ("application/json", b"{"), ("application/json", b"{}x"), ("application/json", b'{"x":NaN}'),
        ("application/json", b'{"x":Infinity}'), ("application/json", b'{"x":-Infinity}'), ("application/json", b"\xff\xfe"),
        ("application/json", b'{"fileName":"\\ud800"}'), ("application/json", b"{'a': 1}"), ("application/json", b"\x00"),
        ("application/msgpack", b""), ("application/msgpack", b"\xc0"), ("application/msgpack", b"\x90"),
        ("application/msgpack", b"\xc1"), ("application/msgpack", b"\x81"), ("application/msgpack", b"\x81\xa1x\x01\xc0x"),
        ("application/msgpack", b"\x81\x01\x01"), ("application/msgpack", b"\x81\xa8fileName\xa2\xff\xfe"),
        ("application/msgpack", b"\x81\xa1x\xc7\xff\x05"), ("application/msgpack", b"\x81\xa1x\xd7\xff" + b"\xff" * 8),
        ("application/msgpack", b"\x81\xc0\x01"), ("application/msgpack", b"\x81\x90\x01"),
    ],
    ids=short,
)  # fmt: skip
def test_body_that_is_no_object_is_refused_and_says_why(untouched, kind, body):
    told = refusal(untouched.post("/uploads", data=body, content_type=kind), 400, "invalid_request")["error"]
    assert told.endswith(".")
    assert ": ." not in told
    assert ".." not in told


def test_names_of_members_may_be_bytes_in_msgpack_and_are_then_ignored(untouched):
    body = msgpack.packb({key.encode(): value for key, value in GOOD.items()} | {b"content": PARTS[1]})
    refusal(untouched.post("/uploads", data=body, content_type="application/msgpack"), 400)


def test_number_beyond_64_bits_in_msgpack_is_refused(untouched):
    body = as_msgpack({**GOOD, "totalSize": 0}, PARTS[1])["data"]
    body = body.replace(b"totalSize\x00", b"totalSize\xcb" + struct.pack(">d", 1e30))
    refusal(untouched.post("/uploads", data=body, content_type="application/msgpack"), 400)


# -- uids and addresses

ODD_UIDS = [
    "0" * 32, "f" * 32, "F" * 32, "x", "0" * 31, "0" * 33, "٠" * 32, "０" * 32, "0" * 32 + "\n", " " + "0" * 31, "..", ".",
    ".owners", ".locks", ".scratch", ".swept", "../x", "..\\x", "\x00", "0" * 32 + "\x00", "%2e%2e", "a" * 100_000, "'", "*",
]  # fmt: skip


@pytest.mark.parametrize("uid", ODD_UIDS, ids=short)
@pytest.mark.parametrize("encode", STRUCTS)
def test_chunk_for_an_upload_that_is_not_there_is_not_found(untouched, encode, uid):
    refusal(untouched.post("/uploads", **encode({**GOOD, "uploadUid": uid}, PARTS[1])), 404, "not_found")


@pytest.mark.parametrize("uid", ODD_UIDS, ids=short)
@pytest.mark.parametrize("encode", TEXTS)
def test_chunk_for_an_upload_that_is_not_there_is_not_found_in_text_either(untouched, encode, uid):
    answer = untouched.post("/uploads", **encode({**GOOD, "uploadUid": uid}, PARTS[1]))
    if len(uid) > 16 << 10 and encode is not as_raw:
        refusal(answer, 413)
    else:
        refusal(answer, 404, "not_found")


UID_REQUESTS = [("GET", ""), ("HEAD", ""), ("DELETE", ""), ("GET", "/status"), ("HEAD", "/status")]


@pytest.mark.parametrize(("method", "rest"), UID_REQUESTS)
@pytest.mark.parametrize("uid", [
    "0" * 32, "F" * 32, "x", "%D9%A0" * 32, ".owners", ".locks", ".swept", "%2e%2e", "%252e%252e", "%00", "0" * 32 + "%00",
    "0" * 32 + "%0a", "%ff", "a" * 8000, "%20", "*", "..;", "~root", "upload.json",
], ids=short)  # fmt: skip
def test_odd_uid_in_the_path_is_not_found(client, folder, method, rest, uid):
    upload(client, DATA, 300)
    before = tree(folder)
    answer = client.open(f"/uploads/{uid}{rest}", method=method)
    assert answer.status_code == 404
    if method != "HEAD":
        refusal(answer, 404, "not_found")
    assert tree(folder) == before


@pytest.mark.parametrize("path", [
    "/uploads/..%2f..%2fetc%2fpasswd", "/uploads/{uid}/", "/uploads/{uid}/data",
    "/uploads/{uid}/upload.json", "/uploads/{uid}%2fdata", "/uploads/{uid}/../.owners", "/uploads/{uid}/status/",
    "/uploads/.locks/uploads/000.lock", "/uploads/{uid}%2f..%2f{uid}", "/uploads/./{uid}x", "/UPLOADS/{uid}",
])  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
def test_address_beside_the_known_ones_is_not_found(client, folder, method, path):
    uid = upload(client, DATA, 300)
    before = tree(folder)
    answer = client.open(path.format(uid=uid), method=method, data=b"x")
    assert answer.status_code in (404, 405)
    assert tree(folder) == before


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/uploads"), ("PATCH", "/uploads"), ("DELETE", "/uploads"), ("TRACE", "/uploads"), ("PROPFIND", "/uploads"),
        ("POST", "/uploads/{uid}"), ("PUT", "/uploads/{uid}"), ("PATCH", "/uploads/{uid}"), ("MOVE", "/uploads/{uid}"),
        ("POST", "/uploads/{uid}/status"), ("DELETE", "/uploads/{uid}/status"), ("get", "/uploads/{uid}"),
    ],
)  # fmt: skip
def test_wrong_method_is_not_allowed_and_changes_nothing(client, folder, method, path):
    uid = upload(client, DATA, 300)
    before = tree(folder)
    answer = client.open(path.format(uid=uid), method=method, query_string=GOOD, data=PARTS[1], headers=RAW)
    assert answer.status_code == 405 or (method == "get" and answer.status_code == 200)
    assert "Allow" in answer.headers or method == "get"
    answer.close()
    assert tree(folder) == before


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
def test_method_is_not_taken_from_a_header_or_field(client, header):
    uid = upload(client, DATA, 300)
    with client.get(f"/uploads/{uid}?_method=DELETE", headers={header: "DELETE"}) as answer:
        assert answer.status_code == 200
    assert fetch(client, uid) == DATA


@pytest.mark.parametrize("path", ["/uploads", "/uploads/{uid}", "/uploads/{uid}/status"])
def test_head_has_the_headers_of_get_and_no_body(client, path):
    uid = upload(client, DATA, 300, headers={"X-User": "ann"})
    url = path.format(uid=uid)
    with client.get(url, headers={"X-User": "ann"}) as got, client.head(url, headers={"X-User": "ann"}) as head:
        assert (head.status_code, head.data) == (200, b"")
        assert head.headers["Content-Type"] == got.headers["Content-Type"]
        assert head.headers.get("ETag") == got.headers.get("ETag")


@pytest.mark.parametrize(
    "query",
    ["identifier=", "identifier=a&identifier=b", "identifier=a&chunkCount=x",
     "identifier=a&fileName=" + "x" * 256, "identifier=a&totalSize=" + "9" * 30],
)  # fmt: skip
def test_bad_question_for_an_upload_is_refused(untouched, query):
    refusal(untouched.get(f"/uploads?{query}"), 400, "invalid_request")


@pytest.mark.parametrize(
    "identifier", ["\x00", "../../x", "a" * 1000, "\x00" * 1000, "𝄞" * 1000, "%2e", "é", "e\u0301", " ", "\r\n"]
)
@pytest.mark.parametrize("encode", ENCODINGS)
def test_odd_identifier_finds_its_upload_and_no_other(client, folder, encode, identifier):
    values = {**GOOD, "identifier": identifier}
    first = decoded(client.post("/uploads", **encode(values, PARTS[1])))["uploadUid"]
    assert decoded(client.post("/uploads", **encode(values, PARTS[1])))["uploadUid"] == first
    other = {**values, "identifier": identifier + "." if len(identifier) < 1000 else identifier[:-1]}
    assert decoded(client.post("/uploads", **encode(other, PARTS[1])))["uploadUid"] != first
    assert all(len(path.name) <= 80 and path.name.isascii() for path in folder.rglob("*"))


def test_identifier_of_another_size_count_or_name_is_another_upload(client):
    first = send(client, DATA, 300, 0, identifier="same").json["uploadUid"]
    assert send(client, DATA + b"x", 300, 0, identifier="same").json["uploadUid"] != first
    assert send(client, DATA, 200, 0, identifier="same").json["uploadUid"] != first
    assert send(client, DATA, 300, 0, identifier="same", name="other").json["uploadUid"] != first
    assert send(client, DATA, 300, 0, identifier="same").json["uploadUid"] == first


def test_what_the_host_read_before_us_is_still_understood(make_host):
    app = make_host()

    @app.before_request
    def look() -> None:
        from flask import request

        request.get_data()

    client = app.test_client()
    for encode in (as_json, as_msgpack, as_raw):
        assert client.post("/uploads", **encode(GOOD, PARTS[1])).status_code == 200


def test_body_that_the_host_threw_away_is_not_taken_for_an_empty_chunk(make_host, folder):
    app = make_host()

    @app.before_request
    def waste() -> None:
        from flask import request

        request.stream.read()

    refusal(app.test_client().post("/uploads", **as_raw(GOOD, PARTS[1])), 400)
    assert uploads_in(folder) == []


@pytest.mark.parametrize(
    ("status", "change"),
    [(200, {}), (400, {"chunkNumber": "x"}), (404, {"uploadUid": "0" * 32}), (415, {"fileName": "x.exe"}), (400, {"chunkCount": 0})],
)  # fmt: skip
def test_file_in_front_of_its_fields_is_closed_whatever_comes_of_it(make_host, status, change):
    # It is on the disk meanwhile; the warnings filter tells of a file that is left open.
    client = make_host(allowed_extensions=["bin"]).test_client()
    data = bytes(2 << 20)
    values = {**fields(data, len(data), 0), **change}
    body = form(file_part(data), *[text_part(name, value) for name, value in values.items()])
    assert send_form(client, body).status_code == status
