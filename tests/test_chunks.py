"""The chunk protocol through the ready-made blueprint."""

from __future__ import annotations

import base64
import io
import random

import msgpack
import pytest

from chunks import RAW, fetch, fields, send, split, upload

DATA = random.Random(1).randbytes(10_007)


def as_json(values: dict, content: bytes) -> dict:
    return {"json": {**values, "content": base64.b64encode(content).decode()}}


def as_msgpack(values: dict, content: bytes) -> dict:
    body = msgpack.packb({**values, "content": content})
    return {"data": body, "content_type": "application/msgpack", "headers": {"Accept": "application/json"}}


def as_multipart(values: dict, content: bytes) -> dict:
    return {"data": {**values, "content": (io.BytesIO(content), "blob")}}


def as_multipart_file_first(values: dict, content: bytes) -> dict:
    return {"data": {"content": (io.BytesIO(content), "blob"), **values}}


def as_raw(values: dict, content: bytes) -> dict:
    return {"query_string": values, "data": content, "headers": RAW}


ENCODINGS = [as_json, as_msgpack, as_multipart, as_multipart_file_first, as_raw]


@pytest.mark.parametrize("encode", ENCODINGS)
@pytest.mark.parametrize("size", [1000, 9_000, 20_000], ids=["11 chunks", "2 chunks", "1 chunk"])
def test_file_arrives_in_every_encoding_in_any_order(client, host, encode, size):
    parts = split(DATA, size)
    order = list(range(len(parts)))
    random.Random(2).shuffle(order)
    uid = ""
    for number in order:
        answer = client.post("/uploads", **encode(fields(DATA, size, number, uid=uid), parts[number]))
        assert answer.status_code == 200, answer.text
        uid = answer.json["uploadUid"]
    assert fetch(client, uid) == DATA
    with host.app_context():
        found = host.extensions["upload_helper"].helper.get_upload(uid)
    assert (found.fileName, found.totalSize, found.uploadUid) == ("file.bin", len(DATA), uid)


def test_empty_file_has_one_empty_chunk(client):
    uid = upload(client, b"", 1000)
    assert fetch(client, uid) == b""


@pytest.mark.parametrize("encode", ENCODINGS)
def test_chunks_of_irregular_sizes_make_the_right_file(client, encode):
    parts = [DATA[:10], DATA[10:5000], DATA[5000:5001], DATA[5001:]]
    uid = ""
    for number in (2, 0, 3, 1):
        values = fields(DATA, 3000, number, uid=uid)
        answer = client.post("/uploads", **encode(values, parts[number]))
        assert answer.status_code == 200, answer.text
        uid = answer.json["uploadUid"]
    assert fetch(client, uid) == DATA
    again = client.post("/uploads", **encode(fields(DATA, 3000, 1, uid=uid), parts[1]))
    assert again.status_code == 200, again.text
    other = client.post("/uploads", **encode(fields(DATA, 3000, 1, uid=uid), b"x" + parts[1][1:]))
    assert other.status_code == 409, other.text


def test_last_chunk_may_be_up_to_twice_the_size(client, folder):
    parts = [DATA[:3000], DATA[3000:6000], DATA[6000:]]
    uid = ""
    for number in (2, 1, 0):
        values = {**fields(DATA, 3000, number, uid=uid), "chunkCount": 3}
        uid = client.post("/uploads", **as_raw(values, parts[number])).json["uploadUid"]
        assert not list(folder.glob("*/side-*"))
    assert fetch(client, uid) == DATA


def test_status_names_what_is_missing_and_identifier_finds_it(client):
    uid = send(client, DATA, 1000, 4, identifier="my file").json["uploadUid"]
    assert send(client, DATA, 1000, 6, identifier="my file").json["uploadUid"] == uid
    found = client.get("/uploads", query_string={**fields(DATA, 1000, 0), "identifier": "my file"})
    assert found.json == client.get(f"/uploads/{uid}/status").json
    assert found.json["uploadUid"] == uid
    assert found.json["missing"] == [[0, 3], [5, 5], [7, 10]]
    assert (found.json["receivedBytes"], found.json["chunkSize"], found.json["state"]) == (2000, 1000, "open")
    assert client.get(f"/uploads/{uid}").status_code == 409
