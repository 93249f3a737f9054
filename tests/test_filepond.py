"""FilePond's protocol as its client speaks it: chunks, positions, whole files, and what it asks of them."""

from __future__ import annotations

import io
import json
import random

import pytest
from urllib3 import encode_multipart_formdata

from chunks import send
from hostile import uploads_in
from upload_helper.protocols.filepond import Ask, Create, Patch, Standing, parse_id

ANNA = {"X-User": "anna"}
BERT = {"X-User": "bert"}
CHUNK = 1000
NAME = "日本 Straße.tif"


def make_data(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def metadata(text: str | None = "{}") -> dict:
    """Return the arguments for a Flask test client with the form that has no file."""
    body, kind = encode_multipart_formdata([("filepond", text)] if text is not None else [])
    return {"data": body, "content_type": kind}


def create(client, size: int, headers: dict = ANNA, **arguments) -> str:
    """Begin an upload; return its transfer id."""
    arguments = arguments or metadata()
    answer = client.post("/uploads", headers={**headers, **Create(size).build()}, **arguments)
    assert answer.status_code == 201, answer.text
    assert answer.mimetype == "text/plain"
    return parse_id(answer.data)


def patch(client, uid: str, data: bytes, offset: int, size: int = CHUNK, headers: dict = ANNA, **changes: str):
    """Send a chunk; `changes` replace headers, written with underscores."""
    sent, query = Patch(uid, offset, len(data), NAME).build()
    sent |= {name.replace("_", "-"): value for name, value in changes.items()}
    return client.patch("/uploads", query_string=query, headers={**headers, **sent}, data=data[offset:][:size])


def send_all(client, uid: str, data: bytes, size: int = CHUNK) -> None:
    """Send a file's chunks; an exact multiple of their size ends with an empty one."""
    for offset in range(0, len(data) + 1, size):
        answer = patch(client, uid, data, offset, size)
        assert answer.status_code == 204, answer.text
        assert Standing.parse(lower(answer.headers)).offset == min(offset + size, len(data))


def lower(headers) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def where(client, uid: str, headers: dict = ANNA):
    return client.head("/uploads", query_string={"patch": uid}, headers=headers)


def offset(client, uid: str) -> int:
    answer = where(client, uid)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
    return Standing.parse(lower(answer.headers)).offset


def load(client, uid: str, kind: str = "load", headers: dict = ANNA):
    return client.get("/uploads", query_string=Ask(kind, uid).build(), headers=headers)


def stored(client, uid: str) -> bytes:
    with load(client, uid) as answer:
        assert answer.status_code == 200, answer.text
        return answer.data


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 1])
def test_file_comes_in_chunks(client, size):
    data = make_data(size)
    uid = create(client, size)
    send_all(client, uid, data)
    assert stored(client, uid) == data
    answer = client.get(f"/uploads/{uid}/status", headers=ANNA).json
    assert (answer["fileName"], answer["totalSize"], answer["state"]) == (NAME, size, "finished")


@pytest.mark.parametrize("text", ["{}", '{"crop": 1}', "", None, "x"])
def test_upload_begins_whatever_the_metadata_is(client, text):
    assert offset(client, create(client, 5, **metadata(text))) == 0


def test_upload_that_begins_with_a_file_is_refused(client, folder):
    body, kind = encode_multipart_formdata([("filepond", "{}"), ("filepond", ("a.tif", b"x"))])
    answer = client.post("/uploads", headers={**ANNA, "Upload-Length": "1"}, data=body, content_type=kind)
    assert answer.json["code"] == "invalid_request"
    assert not folder.exists()


def test_position_is_where_a_whole_chunk_ended(client):
    data = make_data(3500)
    uid = create(client, len(data))
    assert offset(client, uid) == 0
    patch(client, uid, data, 0)
    assert offset(client, uid) == 1000
    assert Standing.parse(lower(where(client, uid).headers)).length == 3500


@pytest.mark.parametrize("keep", [0, 1, 999])
def test_cut_chunk_is_not_kept_in_part(client, keep):
    # FilePond takes a chunk for sent that begins below the offset.
    data = make_data(3500)
    uid = create(client, len(data))
    patch(client, uid, data, 0)
    headers, query = Patch(uid, 1000, 3500, NAME).build()
    answer = client.patch(
        "/uploads", query_string=query, headers={**ANNA, **headers},
        environ_overrides={"wsgi.input": io.BytesIO(data[1000:][:keep]), "CONTENT_LENGTH": "1000"},
    )  # fmt: skip
    assert answer.json["code"] == "body_cut"
    assert offset(client, uid) == 1000
    for start in (1000, 2000, 3000):
        assert patch(client, uid, data, start).status_code == 204
    assert stored(client, uid) == data


def test_repeated_chunk_changes_nothing(client):
    data = make_data(3500)
    uid = create(client, len(data))
    for start in (0, 0, 1000, 1000, 0, 2000, 3000, 3000, 2000):
        answer = patch(client, uid, data, start)
        assert answer.status_code == 204, answer.text
    assert stored(client, uid) == data


@pytest.mark.parametrize("start", [1, 500, 1001, 2000, 3499])
def test_chunk_with_a_gap_or_beyond_what_is_there_is_refused(client, start):
    data = make_data(3500)
    uid = create(client, len(data))
    patch(client, uid, data, 0)
    answer = patch(client, uid, data, start)
    assert (answer.status_code, answer.json["code"]) == (409, "offset_mismatch")
    assert answer.headers["Upload-Offset"] == "1000"
    assert offset(client, uid) == 1000


def test_name_is_what_the_first_chunk_says(client):
    data = make_data(1500)
    uid = create(client, len(data))
    patch(client, uid, data, 0)
    other = Patch(uid, 1000, 1500, "other.exe").build()[0]["upload-name"]
    patch(client, uid, data, 1000, upload_name=other)
    with load(client, uid, "restore") as answer:
        assert answer.headers["Content-Disposition"].startswith("attachment")
        assert "Stra%C3%9Fe" in answer.headers["Content-Disposition"]


@pytest.mark.parametrize("name", ["../../x.tif", "C:\\w\\x.tif", "%2e%2e%2fx.tif"])
def test_name_is_cleaned(client, name):
    uid = create(client, 5)
    patch(client, uid, b"12345", 0, upload_name=name)
    assert "/" not in client.get(f"/uploads/{uid}/status", headers=ANNA).json["fileName"]


def test_extension_is_looked_at_when_the_name_comes(make_host):
    client = make_host(allowed_extensions=["shp"]).test_client()
    uid = create(client, 5)
    answer = patch(client, uid, b"12345", 0)
    assert answer.json["code"] == "unsupported_type"
    assert patch(client, uid, b"12345", 0, upload_name="").json["code"] == "unsupported_type"
    assert offset(client, uid) == 0
    assert patch(client, uid, b"12345", 0, upload_name="a.shp").status_code == 204


BAD = ["", "-1", "+1", "1.5", "1e3", "0x1", "1,2", "٣".encode().decode("latin-1"), "9" * 20, "9" * 5000, str(2**63)]


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("name", ["upload_offset", "upload_length"])
def test_hostile_header_is_refused_and_nothing_is_written(client, name, value):
    uid = create(client, 2500)
    answer = patch(client, uid, make_data(2500), 0, **{name: value})
    assert (answer.status_code, answer.json["code"]) == (400, "invalid_request")
    assert offset(client, uid) == 0


@pytest.mark.parametrize("name", ["Upload-Offset", "Upload-Length"])
@pytest.mark.parametrize("more", [None, "7"])
def test_missing_or_doubled_header_is_refused(client, name, more):
    uid = create(client, 2500)
    sent, query = Patch(uid, 0, 2500, NAME).build()
    headers = [(key, value) for key, value in sent.items() if more or key != name.lower()]
    headers += [("X-User", "anna"), *([(name, more)] if more else [])]
    answer = client.patch("/uploads", query_string=query, headers=headers, data=bytes(1000))
    assert answer.json["code"] == "invalid_request"
    assert offset(client, uid) == 0


@pytest.mark.parametrize("value", [*BAD, str(10**18)])
def test_hostile_length_begins_nothing(client, folder, value):
    answer = client.post("/uploads", headers={**ANNA, "Upload-Length": value}, **metadata())
    assert answer.status_code in (400, 413)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("length", "offset_", "content", "code"),
    [
        (2499, 0, 1000, "length_mismatch"), (2501, 0, 1000, "length_mismatch"), (2500, 0, 2501, "too_large"),
        (2500, 2**62, 1, "offset_mismatch"), (10**18, 0, 1, "too_large"),
    ],
)  # fmt: skip
def test_contradicting_lengths_are_refused(client, length, offset_, content, code):
    uid = create(client, 2500)
    headers, query = Patch(uid, offset_, length, NAME).build()
    answer = client.patch("/uploads", query_string=query, headers={**ANNA, **headers}, data=bytes(content))
    assert answer.json["code"] == code
    assert offset(client, uid) == 0


@pytest.mark.parametrize("name", ["\xff\xfe", "é", "a" * 300, "a" * 5000])
def test_name_that_is_none_is_refused(client, name):
    uid = create(client, 2500)
    answer = patch(client, uid, make_data(2500), 0, upload_name=name)
    assert answer.json["code"] == "invalid_request"
    assert offset(client, uid) == 0


IDS = ["", "x", "0" * 32, "0" * 31, "٠" * 32, "../" * 10, "a" * 5000]


@pytest.mark.parametrize("uid", IDS)
def test_unknown_transfer_id_is_not_found(client, folder, uid):
    for answer in (
        patch(client, uid, b"12345", 0), where(client, uid), load(client, uid), load(client, uid, "restore"),
        client.delete("/uploads", data=uid[:50].encode(), headers=ANNA),
    ):  # fmt: skip
        assert answer.status_code == 404, answer.text
    assert not folder.exists()


def test_upload_of_another_owner_is_not_found(client):
    data = make_data(2500)
    uid = create(client, len(data))
    patch(client, uid, data, 0)
    for answer in (
        patch(client, uid, data, 1000, headers=BERT), where(client, uid, BERT), load(client, uid, headers=BERT),
        client.delete("/uploads", data=uid, headers=BERT),
    ):  # fmt: skip
        assert answer.status_code == 404
    assert offset(client, uid) == 1000


def test_nothing_is_done_without_leave(client, folder):
    data = make_data(2500)
    none = {**ANNA, "X-Role": "none"}
    assert client.post("/uploads", headers={**none, "Upload-Length": "5"}, **metadata()).status_code == 403
    assert not folder.exists()
    uid = create(client, len(data))
    for answer in (
        patch(client, uid, data, 0, headers=none), where(client, uid, none), load(client, uid, headers=none),
        client.delete("/uploads", data=uid, headers=none),
    ):  # fmt: skip
        assert answer.status_code == 403
    assert offset(client, uid) == 0


def test_upload_of_the_chunk_protocol_has_no_position(client):
    uid = send(client, make_data(2500), CHUNK, 0, headers=ANNA).json["uploadUid"]
    assert where(client, uid).status_code == 409
    assert patch(client, uid, make_data(2500), 1000).status_code == 409


@pytest.mark.parametrize("kind", ["text/plain;charset=UTF-8", None])
def test_file_is_reverted(client, kind):
    uid = create(client, 5)
    patch(client, uid, b"12345", 0)
    assert client.delete("/uploads", data=uid, content_type=kind, headers=ANNA).status_code == 204
    assert where(client, uid).status_code == 404
    assert client.delete("/uploads", data=uid, headers=ANNA).status_code == 404


def test_long_body_of_a_revert_is_refused(client):
    answer = client.delete("/uploads", data=b"0" * 101, headers=ANNA)
    assert answer.json["code"] == "too_large"


@pytest.mark.parametrize("kind", ["load", "restore"])
def test_file_is_loaded(client, kind):
    data = make_data(2500)
    uid = create(client, len(data))
    assert load(client, uid, kind).status_code == 409
    send_all(client, uid, data)
    with load(client, uid, kind) as answer:
        assert answer.data == data
        assert answer.headers["Content-Length"] == "2500"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    head = client.head("/uploads", query_string={kind: uid}, headers=ANNA)
    assert (head.status_code, head.headers["Content-Length"], head.data) == (200, "2500", b"")


@pytest.mark.parametrize("query", [{"fetch": "http://127.0.0.1/x"}, {"fetch": "file:///etc/passwd"}])
def test_nothing_is_fetched_from_elsewhere(client, query):
    answer = client.get("/uploads", query_string=query, headers=ANNA)
    assert (answer.status_code, answer.json["code"]) == (403, "forbidden")


@pytest.mark.parametrize(
    ("method", "query"),
    [("POST", "load=x"), ("PATCH", "load=x"), ("GET", "patch=x"), ("PUT", "patch=x"), ("DELETE", "load=x")],
)
def test_other_methods_are_not_allowed(client, folder, method, query):
    answer = client.open("/uploads", method=method, query_string=query, headers=ANNA, data=b"x", content_type="a/b")
    assert answer.status_code in (404, 405)
    assert not folder.exists()


# --- whole files ---


def post_form(client, *parts, name: str = "filepond", text: str = "{}"):
    files = [(name, (file_name, content, "image/tiff")) for file_name, content in parts]
    body, kind = encode_multipart_formdata([(name, text), *files])
    return client.post("/uploads", data=body, content_type=kind, headers=ANNA)


@pytest.mark.parametrize("name", ["filepond", "survey"])
@pytest.mark.parametrize("size", [0, 1, 2 << 20])
def test_small_file_comes_in_a_form_and_the_answer_is_its_id(client, name, size):
    data = make_data(size)
    answer = post_form(client, (NAME, data), name=name, text=json.dumps({"crop": 1}))
    assert (answer.status_code, answer.mimetype) == (200, "text/plain")
    uid = parse_id(answer.data)
    assert uid.encode() == answer.data
    assert stored(client, uid) == data
    assert client.delete("/uploads", data=answer.data, headers=ANNA).status_code == 204


def test_versions_of_one_image_are_all_kept(client):
    answer = post_form(client, ("small_a.tif", b"s"), ("large_a.tif", b"large"))
    listed = client.get("/uploads", headers=ANNA).json["uploads"]
    assert sorted(file["fileName"] for file in listed) == ["large_a.tif", "small_a.tif"]
    assert stored(client, parse_id(answer.data)) == b"s"


def test_form_whose_metadata_are_none_is_a_plain_one(client):
    assert post_form(client, (NAME, b"x"), text="").json["success"] is True


def test_upload_in_chunks_can_be_listed_and_deleted_like_any_other(client, folder):
    uid = create(client, 5)
    assert client.get("/uploads", headers=ANNA).json["uploads"][0]["uploadUid"] == uid
    assert client.delete(f"/uploads/{uid}", headers=ANNA).status_code == 204
    assert uploads_in(folder) == []
