"""tus 1.0 on the blueprint: what every request is answered, and what it leaves behind."""

from __future__ import annotations

import base64
import hashlib
import io
import random
import time
from collections.abc import Callable
from contextlib import closing
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Request, abort
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder

import upload_helper as uh
from chunks import fetch, send
from host import make_app
from hostile import refusal, tree, uploads_in
from strategies import header_values
from test_tus_messages import NAMES, any_values
from upload_helper.protocols.metadata import write_metadata
from upload_helper.protocols.tus import EXTENSIONS, OFFSET_TYPE
from upload_helper.upload import LARGEST_INTEGER
from upload_helper.views.tus import speaks

TUS = {"Tus-Resumable": "1.0.0"}
BYTES = {**TUS, "Content-Type": OFFSET_TYPE}
ANN, BOB = {"X-User": "ann"}, {"X-User": "bob"}
NOBODY = {"X-Role": "none"}
DATA = random.Random(3).randbytes(1000)
SHA1_OF_HELLO = "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0="
UNKNOWN = "0" * 32


def create(client: Any, length: int | None = None, body: bytes | None = None, **headers: str) -> Any:
    """Send a POST; names of headers are written with underscores."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if length is not None:
        sent["Upload-Length"] = str(length)
    return client.post("/uploads", data=body, headers={**(TUS if body is None else BYTES), **sent})


def begin(client: Any, length: int | None = None, body: bytes | None = None, **headers: str) -> str:
    """Create an upload; return its URL."""
    if length is None and not headers.get("Upload_Concat", "").startswith("final"):
        headers["Upload_Defer_Length"] = "1"
    answer = create(client, length, body, **headers)
    assert answer.status_code == 201, answer.text
    return answer.headers["Location"]


def append(client: Any, url: str, offset: int, body: bytes, **headers: str) -> Any:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.patch(url, data=body, headers={**BYTES, "Upload-Offset": str(offset), **sent})


def offset_of(client: Any, url: str, headers: Any = None) -> int:
    answer = client.head(url, headers={**TUS, **(headers or {})})
    assert answer.status_code == 200
    return int(answer.headers["Upload-Offset"])


def part(client: Any, body: bytes, **headers: str) -> str:
    """Upload a part of a file; return its URL."""
    return begin(client, len(body), body, Upload_Concat="partial", **headers)


def told(answer: Any) -> dict[str, str]:
    """Return the headers of tus in an answer."""
    return {name: value for name, value in answer.headers.items() if name.startswith(("Tus-", "Upload-"))}


def checksum(algorithm: str, body: bytes) -> str:
    return f"{algorithm} {base64.b64encode(hashlib.new(algorithm, body).digest()).decode()}"


def without_length(body: bytes | io.RawIOBase) -> dict[str, Any]:
    """Return what makes the test client send a body as a server shows one with Transfer-Encoding: chunked."""
    stream = io.BytesIO(body) if isinstance(body, bytes) else body
    overrides = {"wsgi.input": stream, "wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    return {"environ_overrides": overrides}


def cut(body: bytes, declared: int) -> dict[str, Any]:
    """Return what makes the test client send a body that ends before its declared length."""
    return {"environ_overrides": {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(declared)}}


class Interrupted(io.RawIOBase):
    """A body between whose blocks something happens, once."""

    def __init__(self, before: bytes, happens: Callable[[], object], after: bytes) -> None:
        super().__init__()
        self._parts = iter([before, happens, after])

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        part = next(self._parts, b"")
        if callable(part):
            part()
            return self.read(size)
        return part


# -- the core protocol


def test_file_goes_through_in_two_requests(client):
    url = begin(client, 1000, Upload_Metadata="filename d29yLnRpZg==,note")
    first = append(client, url, 0, DATA[:300])
    assert (first.status_code, first.data, first.headers["Upload-Offset"]) == (204, b"", "300")
    assert offset_of(client, url) == 300
    with client.get(url) as early:
        refusal(early, 409, "incomplete")
    assert append(client, url, 300, DATA[300:]).headers["Upload-Offset"] == "1000"
    answer = client.head(url, headers=TUS)
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    expected = {"Upload-Offset": "1000", "Upload-Length": "1000", "Upload-Metadata": "filename d29yLnRpZg==,note"}
    assert expected.items() <= told(answer).items()
    assert not {"Upload-Concat", "Upload-Defer-Length"} & told(answer).keys()
    with client.get(url) as answer:
        assert answer.data == DATA
        assert "wor.tif" in answer.headers["Content-Disposition"]


def test_location_is_a_path_also_below_a_prefix(client):
    answer = client.post("/uploads/", headers={**TUS, "Upload-Length": "1"}, base_url="http://x.example/apps/gis")
    assert answer.status_code == 201
    assert answer.headers["Location"].rpartition("/")[0] == "/apps/gis/uploads"


def test_upload_is_one_like_any_other(host, client):
    helper = host.extensions["upload_helper"].helper
    events = []
    signals = {uh.upload_created: "created", uh.upload_finished: "finished", uh.upload_deleted: "deleted"}
    receivers = [
        lambda sender, upload, name=name, **more: events.append((name, upload.fileName)) for name in signals.values()
    ]
    for signal, receiver in zip(signals, receivers, strict=True):
        signal.connect(receiver, host)
    url = begin(client, 1000, X_User="ann", Upload_Metadata=write_metadata({"filename": "日本.shp", "year": "2026"}))
    uid = url.rpartition("/")[2]
    status = client.get(f"{url}/status", headers=ANN).json
    assert (status["fileName"], status["totalSize"], status["offset"], status["state"]) == ("日本.shp", 1000, 0, "open")
    append(client, url, 0, DATA, X_User="ann")
    with host.app_context():
        upload = helper.get_upload(uid)
        assert Path(upload.path).read_bytes() == DATA
        assert (upload.owner, upload.metadata["year"]) == ("ann", "2026")
    assert [found["uploadUid"] for found in client.get("/uploads", headers=ANN).json["uploads"]] == [uid]
    assert client.delete(url, headers={**TUS, **ANN}).status_code == 204
    assert events == [("created", "日本.shp"), ("finished", "日本.shp"), ("deleted", "日本.shp")]


VERSIONS = [None, "", "0.2.2", "1.0.1", "1.0.0, 1.0.0"]


@pytest.mark.parametrize("version", VERSIONS)
def test_other_version_is_refused_and_nothing_done(client, folder, version):
    url = begin(client, 1000)
    append(client, url, 0, DATA[:300])
    before = tree(folder)
    tus = {} if version is None else {"Tus-Resumable": version}
    kind = {"Content-Type": OFFSET_TYPE}
    answers = [
        client.post("/uploads", headers={**tus, "Upload-Length": "5"}),
        client.post("/uploads", headers={**tus, "Upload-Defer-Length": "1"}),
        client.post("/uploads", headers={**tus, **kind, "Upload-Length": "5"}, data=b"hello"),
        client.patch(url, headers={**tus, **kind, "Upload-Offset": "300"}, data=DATA[300:]),
    ]
    if version is not None:
        answers += [client.delete(url, headers=tus), client.head(url, headers=tus), client.put(url, headers=tus)]
    for answer in answers:
        assert answer.status_code == 412
        assert answer.headers["Tus-Version"] == "1.0.0"
        assert answer.headers["Tus-Resumable"] == "1.0.0"
        assert "Upload-Offset" not in answer.headers
    assert tree(folder) == before


@pytest.mark.parametrize("path", ["/uploads", "/uploads/", f"/uploads/{UNKNOWN}"])
@pytest.mark.parametrize("headers", [{}, TUS, {"Tus-Resumable": "0.1"}])
def test_options_tell_what_is_spoken_whatever_the_version(make_host, path, headers):
    answer = make_host(max_file_size=4711).test_client().options(path, headers=headers)
    assert answer.status_code == 204
    assert (
        told(answer).items()
        >= {
            "Tus-Resumable": "1.0.0",
            "Tus-Version": "1.0.0",
            "Tus-Max-Size": "4711",
            "Tus-Extension": ",".join(EXTENSIONS),
        }.items()
    )
    assert "sha1" in answer.headers["Tus-Checksum-Algorithm"].split(",")


def test_every_answer_has_the_version(make_host):
    client = make_host(max_file_size=5000).test_client()
    url = begin(client, 1000)
    missing = f"/uploads/{UNKNOWN}"
    answers = {
        201: create(client, 10),
        400: create(client),
        403: create(client, 10, X_Role="none"),
        404: client.head(missing, headers=TUS),
        405: client.put(url, headers=TUS),
        409: append(client, url, 5, b"x"),
        413: create(client, 5001),
        415: client.patch(url, headers={**TUS, "Upload-Offset": "0"}, data=b"x"),
        460: append(client, url, 0, b"x", Upload_Checksum=SHA1_OF_HELLO),
        200: client.head(url, headers=TUS),
        204: append(client, url, 0, b"x"),
    }
    assert {status: answer.status_code for status, answer in answers.items()} == {status: status for status in answers}
    assert {answer.headers.getlist("Tus-Resumable") == ["1.0.0"] for answer in answers.values()} == {True}
    assert answers[460].status == "460 Checksum Mismatch"


@pytest.mark.parametrize("method", ["HEAD", "PATCH", "DELETE", "GET"])
@pytest.mark.parametrize("uid", [UNKNOWN, "x", "٣" * 32, "0" * 31, "0" * 5000])
def test_unknown_upload_is_not_found_and_has_no_offset(client, folder, method, uid):
    answer = client.open(f"/uploads/{uid}", method=method, headers={**BYTES, "Upload-Offset": "0"}, data=b"x")
    assert answer.status_code == 404
    assert "Upload-Offset" not in answer.headers
    assert answer.headers["Tus-Resumable"] == "1.0.0"
    assert answer.headers["Cache-Control"] == "no-store"
    assert tree(folder) is None


@pytest.mark.parametrize("method", ["HEAD", "PATCH", "DELETE", "GET"])
def test_upload_of_another_is_unknown(client, folder, method):
    url = begin(client, 1000, X_User="ann")
    before = tree(folder)
    headers = {**BYTES, **BOB, "Upload-Offset": "0"}
    foreign = client.open(url, method=method, headers=headers, data=b"x")
    unknown = client.open(f"/uploads/{UNKNOWN}", method=method, headers=headers, data=b"x")
    assert (foreign.status_code, foreign.data, dict(foreign.headers)) == (404, unknown.data, dict(unknown.headers))
    assert tree(folder) == before


@pytest.mark.parametrize("method", ["POST", "HEAD", "PATCH", "DELETE"])
def test_host_is_asked(client, folder, method):
    url = begin(client, 1000)
    before = tree(folder)
    headers = {**BYTES, **NOBODY, "Upload-Offset": "0", "Upload-Length": "1000"}
    answer = client.open("/uploads" if method == "POST" else url, method=method, headers=headers, data=b"x")
    assert answer.status_code == 403
    assert "Upload-Offset" not in answer.headers
    assert tree(folder) == before


@pytest.mark.parametrize("path", ["/uploads", "/uploads/" + UNKNOWN])
@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "POST"])
def test_method_that_has_no_place_is_refused(client, folder, path, method):
    answer = client.open(path, method=method, headers={**BYTES, "Upload-Offset": "0"})
    status = {("PATCH", True): 404, ("DELETE", True): 404, ("POST", False): 400}.get((method, path != "/uploads"), 405)
    assert answer.status_code == status
    assert answer.headers["Tus-Resumable"] == "1.0.0"
    assert ("Allow" in answer.headers) == (status == 405)
    assert tree(folder) is None


@pytest.mark.parametrize("method", ["patch", "PATCH"])
def test_method_can_come_in_a_header(client, method):
    url = begin(client, 1000)
    override = {"X-HTTP-Method-Override": method, "Upload-Offset": "0"}
    assert client.post(url, headers={**BYTES, **override}, data=DATA).status_code == 204
    answer = client.post(url, headers={**TUS, "X-HTTP-Method-Override": "HEAD"})
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (200, "1000")
    assert client.post(url, headers={**TUS, "X-HTTP-Method-Override": "DELETE"}).status_code == 204
    assert client.head(url, headers=TUS).status_code == 404
    assert client.post(url, headers={**TUS, "X-HTTP-Method-Override": "BREW"}).status_code == 405


def test_method_in_a_header_does_not_get_around_the_check_of_the_site(client):
    url = begin(client, 1000)
    headers = {**TUS, "X-HTTP-Method-Override": "DELETE", "Origin": "https://evil.example"}
    assert client.post(url, headers=headers).status_code == 403
    with client.get(url, headers=headers):
        pass
    assert client.head(url, headers=TUS).status_code == 200


@pytest.mark.parametrize("given", [299, 301, 0, 1000, 1001, LARGEST_INTEGER])
@pytest.mark.parametrize("length", [None, 1000])
def test_other_offset_is_told_the_right_one_and_changes_nothing(client, folder, given, length):
    url = begin(client, length)
    append(client, url, 0, DATA[:300])
    before = tree(folder)
    answer = append(client, url, given, DATA[300:])
    assert refusal(answer, 409, "offset_mismatch")["expected"] == 300
    assert answer.headers["Upload-Offset"] == "300"
    assert tree(folder) == before


@pytest.mark.parametrize("text", ["", "-1", "+0", "0, 0", "0,0", "0x0", "1_0", "0.0", "é", "9" * 20, "9" * 5000])
def test_offset_that_is_no_number_is_refused(client, folder, text):
    url = begin(client, 1000)
    before = tree(folder)
    answer = client.patch(url, data=DATA, headers={**BYTES, "Upload-Offset": text})
    assert "Upload-Offset" in refusal(answer, 400, "invalid_request")["error"]
    assert tree(folder) == before


def test_offset_that_is_missing_is_refused(client):
    url = begin(client, 1000)
    assert "missing" in refusal(client.patch(url, data=DATA, headers=BYTES), 400, "invalid_request")["error"]


@pytest.mark.parametrize("kind", [None, "application/octet-stream", "text/plain", OFFSET_TYPE + "x", "x"])
def test_other_content_type_is_refused(client, kind):
    url = begin(client, 1000)
    answer = client.patch(url, data=DATA, headers={**TUS, "Upload-Offset": "0"}, content_type=kind)
    refusal(answer, 415, "unsupported_type")
    assert offset_of(client, url) == 0


def test_compressed_body_is_refused(client):
    url = begin(client, 1000)
    refusal(append(client, url, 0, DATA, Content_Encoding="gzip"), 415, "unsupported_type")
    assert offset_of(client, url) == 0


@pytest.mark.parametrize("known", [True, False])
def test_body_past_the_length_is_refused(client, known):
    url = begin(client, 999)
    append(client, url, 0, DATA[:300])
    body = {"data": DATA[300:]} if known else without_length(DATA[300:])
    answer = client.patch(url, headers={**BYTES, "Upload-Offset": "300"}, **body)
    refusal(answer, 413, "too_large")
    assert offset_of(client, url) <= 999
    with client.get(url) as answer:
        assert answer.status_code == 409


def test_body_without_a_length_is_taken(client):
    url = begin(client, 1000)
    answer = client.patch(url, headers={**BYTES, "Upload-Offset": "0"}, **without_length(DATA))
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (204, "1000")
    assert fetch(client, url.rpartition("/")[2]) == DATA


def test_what_arrived_of_a_body_that_is_cut_is_kept(client):
    url = begin(client, 1000)
    answer = client.patch(url, headers={**BYTES, "Upload-Offset": "0"}, **cut(DATA[:400], 1000))
    assert "HEAD" in refusal(answer, 503, "body_cut")["remedy"]
    assert offset_of(client, url) == 400
    assert append(client, url, 400, DATA[400:]).status_code == 204
    assert fetch(client, url.rpartition("/")[2]) == DATA


@pytest.mark.parametrize("newer", ["HEAD", "PATCH"])
def test_newer_request_does_not_wait_and_its_offset_stands(client, newer):
    url = begin(client, 1000)
    seen: list[Any] = []

    def interrupt() -> None:
        seen.append(client.head(url, headers=TUS) if newer == "HEAD" else append(client, url, 300, DATA[300:600]))

    body = without_length(Interrupted(DATA[:300], interrupt, DATA[300:]))
    answer = client.patch(url, headers={**BYTES, "Upload-Offset": "0"}, **body)
    expected = 300 if newer == "HEAD" else 600
    assert int(seen[0].headers["Upload-Offset"]) == expected
    refusal(answer, 409, "superseded")
    assert offset_of(client, url) == expected
    assert append(client, url, expected, DATA[expected:]).status_code == 204
    assert fetch(client, url.rpartition("/")[2]) == DATA


def test_upload_deleted_under_a_request_is_gone(client, folder):
    url = begin(client, 1000)
    body = without_length(Interrupted(DATA[:300], lambda: client.delete(url, headers=TUS), DATA[300:]))
    refusal(client.patch(url, headers={**BYTES, "Upload-Offset": "0"}, **body), 404, "not_found")
    assert uploads_in(folder) == []


def test_empty_body_changes_nothing(client):
    url = begin(client, 1000)
    for offset in (0, 300):
        assert append(client, url, offset, b"").headers["Upload-Offset"] == str(offset)
        append(client, url, offset, DATA[offset : offset + 300])


def test_finished_upload_takes_nothing_more(client):
    url = begin(client, 1000, DATA)
    assert append(client, url, 1000, b"").status_code == 204
    refusal(append(client, url, 1000, b"x"), 413, "too_large")
    assert append(client, url, 0, DATA).headers["Upload-Offset"] == "1000"
    assert append(client, url, 0, DATA).status_code == 409
    assert fetch(client, url.rpartition("/")[2]) == DATA


def test_upload_in_chunks_is_told_only_when_it_is_finished(client):
    uid = send(client, DATA, 600, 0).json["uploadUid"]
    answer = client.head(f"/uploads/{uid}", headers=TUS)
    assert answer.status_code == 409
    assert "Upload-Offset" not in answer.headers
    refusal(append(client, f"/uploads/{uid}", 0, DATA), 409, "incomplete")
    assert send(client, DATA, 600, 1, uid=uid).status_code == 200
    assert told(client.head(f"/uploads/{uid}", headers=TUS)).items() >= {
        "Upload-Offset": "1000", "Upload-Length": "1000"
    }.items()  # fmt: skip


SPEAKING = [
    ("HEAD", UNKNOWN, "", TUS, True),
    ("POST", None, "", TUS, True),
    ("GET", None, "", {"Tus-Resumable": "x"}, True),
    # without the version, to be told so
    ("PATCH", UNKNOWN, "", {"Content-Type": OFFSET_TYPE}, True),
    ("POST", UNKNOWN, "", {"Content-Type": OFFSET_TYPE}, True),
    ("POST", None, "", {"Content-Type": OFFSET_TYPE}, True),
    ("POST", None, "", {"Upload-Length": "5"}, True),
    ("POST", None, "", {"Upload-Defer-Length": "1"}, True),
    ("POST", None, "", {"Upload-Concat": "final;/a"}, True),
    # of others
    ("PATCH", None, "patch=1", {"Content-Type": OFFSET_TYPE}, False),
    ("PATCH", None, "", {"Content-Type": OFFSET_TYPE}, False),
    ("POST", None, "", {"Upload-Length": "5", "Content-Type": "multipart/form-data; boundary=x"}, False),
    ("POST", None, "", {"Upload-Length": "5", "Upload-Complete": "?0"}, False),
    ("POST", None, "", {"Upload-Length": "5", "Upload-Draft-Interop-Version": "8"}, False),
    ("PATCH", UNKNOWN, "", {"Upload-Offset": "5", "Content-Type": "application/partial-upload"}, False),
    ("HEAD", UNKNOWN, "", {}, False),
    ("GET", UNKNOWN, "", {"Upload-Length": "5"}, False),
    ("POST", None, "", {"Content-Type": "application/octet-stream"}, False),
]


@pytest.mark.parametrize(("method", "uid", "query", "headers", "speaking"), SPEAKING)
def test_requests_of_tus_are_told_from_others(method, uid, query, headers, speaking):
    path = "/uploads" if uid is None else f"/uploads/{uid}"
    builder = EnvironBuilder(method=method, path=path, query_string=query, headers=headers)
    with builder.get_request(Request) as request:
        assert speaks(request, uid) is speaking


def test_host_that_aborts_is_answered_in_the_words_of_tus(folder):
    app = Flask("aborting")
    app.config.update(UPLOAD_HELPER_FOLDER=folder)
    helper = uh.UploadHelper(app, authorize=lambda access: abort(401))
    app.register_blueprint(helper.blueprint(), url_prefix="/uploads")
    answer = create(app.test_client(), 5)
    assert (answer.status_code, answer.headers["Tus-Resumable"]) == (401, "1.0.0")
    assert tree(folder) is None


# -- creation


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Upload_Defer_Length": "0"},
        {"Upload_Defer_Length": "1", "Upload_Length": "5"},
        {"Upload_Length": "-1"},
        {"Upload_Length": "5, 5"},
        {"Upload_Length": ""},
        {"Upload_Length": "１"},
        {"Upload_Length": "5", "Upload_Metadata": "a,a"},
        {"Upload_Length": "5", "Upload_Metadata": "a b c"},
        {"Upload_Length": "5", "Upload_Metadata": "k\u00e9y YQ=="},
        {"Upload_Length": "5", "Upload_Metadata": "x" * (17 << 10)},
        {"Upload_Length": "5", "Upload_Metadata": write_metadata({"filename": "x" * 256})},
        {"Upload_Length": "5", "Upload_Concat": "partial;x"},
        {"Upload_Length": "5", "Upload_Concat": "final;/uploads/" + UNKNOWN},
        {"Upload_Length": "5", "Upload_Checksum": "sha1 x"},
        {"Upload_Length": "5", "Upload_Checksum": "crc32 AAAAAA=="},
    ],
)
def test_creation_with_bad_headers_makes_nothing(client, folder, headers):
    sent = {name: value.encode().decode("latin-1") for name, value in headers.items()}
    refusal(create(client, **sent), 400, "invalid_request")
    assert tree(folder) is None


@pytest.mark.parametrize("length", [4712, LARGEST_INTEGER, LARGEST_INTEGER + 1, 10**30])
def test_file_over_the_limit_is_refused(make_host, folder, length):
    client = make_host(max_file_size=4711).test_client()
    refusal(create(client, length), 413, "too_large")
    assert tree(folder) is None
    assert create(client, 4711).status_code == 201


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({}, "unnamed"),
        ({"filename": "a.tif"}, "a.tif"),
        ({"name": "日本 Straße.tif", "relativePath": "null", "type": "image/tiff"}, "日本 Straße.tif"),
        ({"filename": "../../x\r\nSet-Cookie: a"}, "xSet-Cookie: a"),
        ({"filename": b"\xff\xfe"}, "\ufffd\ufffd"),
    ],
)
def test_name_comes_from_the_metadata(client, values, name):
    raw = write_metadata(values)
    url = begin(client, 0, Upload_Metadata=raw)
    assert client.get(f"{url}/status").json["fileName"] == name
    assert client.head(url, headers=TUS).headers.get("Upload-Metadata", "") == raw


def test_extension_is_checked_and_not_that_of_parts(make_host, folder):
    client = make_host(allowed_extensions=["tif"]).test_client()
    wrong, right = write_metadata({"filename": "a.exe"}), write_metadata({"filename": "a.tif"})
    for metadata in ("", wrong):
        refusal(create(client, 5, Upload_Metadata=metadata), 415, "unsupported_type")
    assert tree(folder) is None
    url = part(client, b"hello")
    refusal(create(client, Upload_Concat=f"final;{url}", Upload_Metadata=wrong), 415, "unsupported_type")
    assert create(client, Upload_Concat=f"final;{url}", Upload_Metadata=right).status_code == 201
    assert create(client, 5, Upload_Metadata=right).status_code == 201


@pytest.mark.parametrize("kind", [None, OFFSET_TYPE, "text/plain"])
def test_empty_file_is_finished_at_once(client, kind):
    answer = client.post("/uploads", headers={**TUS, "Upload-Length": "0"}, content_type=kind)
    assert answer.status_code == 201
    url = answer.headers["Location"]
    assert fetch(client, url.rpartition("/")[2]) == b""
    assert client.get(f"{url}/status").json["state"] == "finished"
    assert append(client, url, 0, b"").status_code == 204
    assert told(client.head(url, headers=TUS)).items() >= {"Upload-Offset": "0", "Upload-Length": "0"}.items()


def test_empty_body_without_a_length_may_be_of_any_type(client):
    answer = client.post(
        "/uploads", headers={**TUS, "Upload-Length": "5"}, content_type="text/plain", **without_length(b"")
    )
    assert answer.status_code == 201


# -- creation with upload


@pytest.mark.parametrize("count", [0, 300, 1000])
@pytest.mark.parametrize("known", [True, False])
def test_creation_takes_the_first_bytes(client, count, known):
    body = {"data": DATA[:count]} if known else without_length(DATA[:count])
    answer = client.post("/uploads", headers={**BYTES, "Upload-Length": "1000"}, **body)
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (201, str(count))
    url = answer.headers["Location"]
    assert offset_of(client, url) == count
    append(client, url, count, DATA[count:])
    assert fetch(client, url.rpartition("/")[2]) == DATA


def test_creation_without_a_body_tells_no_offset(client):
    assert "Upload-Offset" not in create(client, 5).headers


def test_creation_that_is_over_the_length_makes_nothing(client, folder):
    refusal(create(client, 999, DATA), 413, "too_large")
    assert tree(folder) is None
    answer = client.post("/uploads", headers={**BYTES, "Upload-Length": "999"}, **without_length(DATA))
    refusal(answer, 413, "too_large")
    assert uploads_in(folder) == []


@pytest.mark.parametrize(
    ("more", "body", "status"),
    [
        ({"Upload-Checksum": SHA1_OF_HELLO}, {"data": DATA}, 460),
        ({}, cut(DATA[:400], 1000), 503),
        ({}, without_length(DATA + b"x"), 413),
    ],
)
def test_upload_is_deleted_again_if_its_first_bytes_fail(client, folder, more, body, status):
    answer = client.post("/uploads", headers={**BYTES, "Upload-Length": "1000", **more}, **body)
    refusal(answer, status)
    assert "Location" not in answer.headers
    assert uploads_in(folder) == []


@pytest.mark.parametrize("known", [True, False])
def test_creation_with_a_body_of_another_type_is_refused(client, folder, known):
    body = {"data": b"hello"} if known else without_length(b"hello")
    answer = client.post("/uploads", headers={**TUS, "Upload-Length": "5"}, content_type="text/plain", **body)
    refusal(answer, 415, "unsupported_type")
    assert tree(folder) is None


def test_creation_with_checksum(client):
    url = begin(client, 11, b"hello world", Upload_Checksum=SHA1_OF_HELLO)
    assert fetch(client, url.rpartition("/")[2]) == b"hello world"


# -- creation with a length that is told later


def test_length_comes_with_a_later_request(client):
    url = begin(client, Upload_Metadata="filename YQ==")
    head = client.head(url, headers=TUS).headers
    assert (head["Upload-Defer-Length"], head.get("Upload-Length")) == ("1", None)
    append(client, url, 0, DATA[:300])
    assert client.head(url, headers=TUS).headers["Upload-Defer-Length"] == "1"
    append(client, url, 300, DATA[300:600], Upload_Length="1000")
    head = client.head(url, headers=TUS).headers
    assert (head.get("Upload-Defer-Length"), head["Upload-Length"]) == (None, "1000")
    append(client, url, 600, DATA[600:], Upload_Length="1000")
    assert fetch(client, url.rpartition("/")[2]) == DATA


def test_length_may_come_with_the_last_bytes_or_after_them(client):
    for first, rest in ((DATA[:300], DATA[300:]), (DATA, b"")):
        url = begin(client, None, first)
        assert append(client, url, len(first), rest, Upload_Length="1000").status_code == 204
        assert fetch(client, url.rpartition("/")[2]) == DATA


def test_empty_file_whose_length_is_told_later(client):
    url = begin(client)
    assert append(client, url, 0, b"", Upload_Length="0").status_code == 204
    assert fetch(client, url.rpartition("/")[2]) == b""


@pytest.mark.parametrize("length", [None, 1000])
@pytest.mark.parametrize(("given", "status"), [("299", 400), ("0", 400), ("x", 400), ("-1", 400), ("1, 1", 400),
                                               ("9" * 19, 413), ("5001", None)])  # fmt: skip
def test_length_that_cannot_be_is_refused(make_host, length, given, status):
    client = make_host(max_file_size=5000).test_client()
    url = begin(client, length)
    append(client, url, 0, DATA[:300])
    answer = append(client, url, 300, DATA[300:600], Upload_Length=given)
    assert answer.status_code == (status or 413)
    head = client.head(url, headers=TUS).headers
    assert (head["Upload-Offset"], head.get("Upload-Length")) == ("300", str(length) if length else None)


@pytest.mark.parametrize("deferred", [True, False])
def test_length_cannot_be_changed(client, deferred):
    url = begin(client, None if deferred else 1000)
    append(client, url, 0, DATA[:300], **({"Upload_Length": "1000"} if deferred else {}))
    for length in ("999", "1001"):
        refusal(append(client, url, 300, DATA[300:600], Upload_Length=length), 400, "length_mismatch")
    head = client.head(url, headers=TUS).headers
    assert (head["Upload-Offset"], head["Upload-Length"]) == ("300", "1000")


def test_deferred_length_is_still_limited(make_host):
    client = make_host(max_file_size=500).test_client()
    url = begin(client, None, DATA[:300])
    refusal(append(client, url, 300, DATA[300:]), 413, "too_large")
    assert append(client, url, 300, DATA[300:500], Upload_Length="500").status_code == 204


# -- expiration


@pytest.mark.parametrize("expiry", [3600, 0])
def test_expiry_is_told_if_there_is_one(make_host, expiry):
    client = make_host(expiry=expiry).test_client()
    created = create(client, 1000)
    url = created.headers["Location"]
    for answer in (created, append(client, url, 0, DATA[:300]), client.head(url, headers=TUS)):
        told_at = answer.headers.get("Upload-Expires")
        assert (told_at is not None) == bool(expiry)
        assert told_at is None or abs(parsedate_to_datetime(told_at).timestamp() - time.time() - expiry) < 60


# -- checksum


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512", "md5"])
def test_checksum_is_verified_and_what_fails_it_discarded(client, folder, algorithm):
    url = begin(client, 1000)
    append(client, url, 0, DATA[:300], Upload_Checksum=checksum(algorithm, DATA[:300]))
    before = tree(folder)
    answer = append(client, url, 300, DATA[300:], Upload_Checksum=checksum(algorithm, DATA))
    refusal(answer, 460, "checksum_mismatch")
    assert tree(folder) == before
    assert offset_of(client, url) == 300
    answer = append(client, url, 300, DATA[300:], Upload_Checksum=checksum(algorithm, DATA[300:]))
    assert answer.headers["Upload-Offset"] == "1000"
    assert fetch(client, url.rpartition("/")[2]) == DATA


@pytest.mark.parametrize(
    "text", ["", "crc32 AAAAAA==", "sha1", "sha1 AAAA", "sha1 é", f"{SHA1_OF_HELLO}, {SHA1_OF_HELLO}"]
)
def test_checksum_that_is_not_understood_is_refused(client, text):
    url = begin(client, 1000)
    refusal(append(client, url, 0, DATA, Upload_Checksum=text), 400, "invalid_request")
    assert offset_of(client, url) == 0


def test_body_with_a_checksum_that_is_cut_is_discarded(client):
    url = begin(client, 1000)
    headers = {**BYTES, "Upload-Offset": "0", "Upload-Checksum": checksum("sha1", DATA)}
    answer = client.patch(url, headers=headers, **cut(DATA[:400], 1000))
    refusal(answer, 503, "body_cut")
    assert offset_of(client, url) == 0
    assert client.patch(url, headers=headers, **without_length(DATA)).headers["Upload-Offset"] == "1000"


# -- termination


@pytest.mark.parametrize("count", [0, 300, 1000])
def test_upload_is_deleted_with_all_that_belongs_to_it(client, folder, count):
    url = begin(client, 1000, DATA[:count])
    answer = client.delete(url, headers=TUS)
    assert (answer.status_code, answer.data) == (204, b"")
    assert uploads_in(folder) == []
    for method in ("HEAD", "PATCH", "DELETE"):
        assert client.open(url, method=method, headers={**BYTES, "Upload-Offset": "0"}).status_code == 404


# -- concatenation


def absolute(url: str) -> str:
    return f"https://elsewhere.example{url}"


def relative(url: str) -> str:
    return "." + url


def behind_a_proxy(url: str) -> str:
    """Return a URL as clients know it where a proxy has put something in front of it, and does not tell."""
    return f"https://elsewhere.example/apps{url}"


@pytest.mark.parametrize("written", [str, absolute, relative, behind_a_proxy])
def test_parts_are_put_together_in_their_order(client, written):
    urls = [part(client, DATA[begin : begin + 400]) for begin in (800, 400, 0)][::-1]
    concat = "final;" + "  ".join(written(url) for url in urls)
    metadata = write_metadata({"filename": "a.tif"})
    answer = create(client, Upload_Concat=concat, Upload_Metadata=metadata)
    assert answer.status_code == 201
    url = answer.headers["Location"]
    assert fetch(client, url.rpartition("/")[2]) == DATA
    head = client.head(url, headers=TUS)
    assert told(head).items() >= {
        "Upload-Offset": "1000", "Upload-Length": "1000", "Upload-Concat": concat, "Upload-Metadata": metadata
    }.items()  # fmt: skip
    assert client.get(f"{url}/status").json["fileName"] == "a.tif"


def test_part_says_that_it_is_one(client):
    url = part(client, DATA[:300])
    head = client.head(url, headers=TUS).headers
    assert (head["Upload-Concat"], head["Upload-Offset"], head["Upload-Length"]) == ("partial", "300", "300")


def test_part_is_no_upload_of_its_own_in_the_list(client):
    url = part(client, DATA[:300], X_User="ann")
    final = begin(client, Upload_Concat=f"final;{url}", X_User="ann")
    listed = client.get("/uploads", headers={"X-User": "ann"}).json["uploads"]
    assert [upload["uploadUid"] for upload in listed] == [final.rpartition("/")[2]]


def test_part_of_deferred_length(client):
    url = begin(client, None, DATA[:300], Upload_Concat="partial")
    refusal(create(client, Upload_Concat=f"final;{url}"), 400, "invalid_request")
    append(client, url, 300, DATA[300:], Upload_Length="1000")
    final = begin(client, Upload_Concat=f"final;{url}")
    assert fetch(client, final.rpartition("/")[2]) == DATA


def test_part_can_be_used_again_and_twice(client):
    url = part(client, b"ab")
    empty = part(client, b"")
    for urls, expected in (([url], b"ab"), ([url, empty, url, url], b"ababab"), ([empty], b"")):
        final = begin(client, Upload_Concat="final;" + " ".join(urls))
        assert fetch(client, final.rpartition("/")[2]) == expected
    client.delete(final, headers=TUS)
    assert offset_of(client, url) == 2


def test_thousand_parts(make_host, folder):
    client = make_host(max_open_uploads=2).test_client()
    urls = [part(client, bytes([number % 256])) for number in range(40)]
    concat = "final;" + " ".join(absolute(url) for url in urls * 25)
    answer = create(client, Upload_Concat=concat)
    assert answer.status_code == 201, answer.text
    assert fetch(client, answer.headers["Location"].rpartition("/")[2]) == bytes(range(40)) * 25
    assert client.head(answer.headers["Location"], headers=TUS).headers["Upload-Concat"] == concat
    assert len(uploads_in(folder)) == 2 * 41


def test_parts_are_limited_by_their_sum(make_host, folder):
    client = make_host(max_file_size=500, max_owner_bytes=800).test_client()
    urls = [part(client, DATA[:300]), part(client, DATA[300:600])]
    before = uploads_in(folder)
    refusal(create(client, Upload_Concat=f"final;{urls[0]} {urls[1]}"), 413, "too_large")
    refusal(create(client, Upload_Concat=f"final;{urls[0]}"), 413, "too_large")
    assert uploads_in(folder) == before


@pytest.mark.parametrize(
    "text",
    ["final;", "final; ", "final", "final;x", "final;/uploads", "final;/uploads/", "final;/uploads/x",
     "final;http://[", "final;/other/" + UNKNOWN, "final;/uploads/" + UNKNOWN, "final;javascript:/uploads/x",
     "final;/uploads/" + UNKNOWN + "/status", "final;/uploads/" + "x" * 200_000],
)  # fmt: skip
def test_final_of_what_is_no_part_makes_nothing(client, folder, text):
    refusal(create(client, Upload_Concat=text), 400, "invalid_request")
    assert tree(folder) is None


def test_url_that_is_not_of_an_upload_is_named(client):
    assert "'/maps/7'" in refusal(create(client, Upload_Concat="final;/maps/7"), 400)["error"]


def test_final_of_unfit_uploads_makes_nothing(client, folder):
    fit = part(client, b"ab", X_User="ann")
    unfit = {
        "unfinished": begin(client, 5, b"ab", Upload_Concat="partial", X_User="ann"),
        "whole": begin(client, 2, b"ab", X_User="ann"),
        "final": begin(client, Upload_Concat=f"final;{fit}", X_User="ann"),
        "chunked": "/uploads/" + send(client, DATA, 1000, 0, headers=ANN).json["uploadUid"],
        "foreign": part(client, b"ab", X_User="bob"),
        "unknown": f"/uploads/{UNKNOWN}",
    }
    before = tree(folder)
    errors = {}
    for name, url in unfit.items():
        answer = create(client, Upload_Concat=f"final;{fit} {url}", X_User="ann")
        errors[name] = refusal(answer, 400, "invalid_request")["error"].replace(url.rpartition("/")[2], "<uid>")
        assert tree(folder) == before, name
    assert errors["foreign"] == errors["unknown"]


@pytest.mark.parametrize(
    ("offset", "more"),
    [(2, {}), (0, {}), (5, {}), (2, {"Upload_Length": "5"}), (2, {"Upload_Checksum": SHA1_OF_HELLO})],
)
def test_nothing_is_appended_to_a_final_upload(client, folder, offset, more):
    url = begin(client, Upload_Concat=f"final;{part(client, b'ab')}")
    before = tree(folder)
    for body in (b"x", b""):
        refusal(append(client, url, offset, body, **more), 403, "finished")
    assert tree(folder) == before


@pytest.mark.parametrize("known", [True, False])
def test_final_upload_has_no_bytes_of_its_own(client, folder, known):
    url = part(client, b"ab")
    before = uploads_in(folder)
    body = {"data": b"x"} if known else without_length(b"x")
    answer = client.post("/uploads", headers={**BYTES, "Upload-Concat": f"final;{url}"}, **body)
    refusal(answer, 403, "finished")
    assert uploads_in(folder) == before


def test_parts_are_not_reported(host, client):
    names = []
    receive = lambda sender, upload, **more: names.append(upload.fileName)  # noqa: E731
    uh.upload_finished.connect(receive, host)
    url = part(client, b"ab", Upload_Metadata=write_metadata({"filename": "part"}))
    begin(client, Upload_Concat=f"final;{url}", Upload_Metadata=write_metadata({"filename": "whole"}))
    assert names == ["whole"]
    with client.get(url) as answer:
        refusal(answer, 409, "incomplete")


# -- over the wire


def test_headers_that_are_there_twice_are_refused(gunicorn, folder):
    server = gunicorn(workers=1)

    def ask(method: str, path: str, *headers: tuple[str, str]) -> tuple[int, str | None]:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=20)
        connection.putrequest(method, path)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders()
        with closing(connection), connection.getresponse() as answer:
            assert answer.headers.get_all("Tus-Resumable") == ["1.0.0"]
            return answer.status, answer.headers["Location"]

    version, length, offset = (("Tus-Resumable", "1.0.0"), ("Upload-Length", "5"), ("Upload-Offset", "0"))
    kind, empty = ("Content-Type", OFFSET_TYPE), ("Content-Length", "0")
    assert ask("POST", "/uploads", version, length, length, empty)[0] == 400
    assert ask("POST", "/uploads", version, version, length, empty)[0] == 412
    deferred, concat = ("Upload-Defer-Length", "1"), ("Upload-Concat", "partial")
    assert ask("POST", "/uploads", version, deferred, deferred, empty)[0] == 400
    assert ask("POST", "/uploads", version, length, concat, concat, empty)[0] == 400
    metadata = [("Upload-Metadata", "filename YQ=="), ("Upload-Metadata", "filename Yg==")]
    assert ask("POST", "/uploads", version, length, *metadata, empty)[0] == 400
    assert tree(folder) is None
    status, url = ask("POST", "/uploads", version, length, empty)
    assert (status, url is not None) == (201, True)
    assert ask("PATCH", url, version, kind, offset, offset, empty)[0] == 400
    checksum = ("Upload-Checksum", SHA1_OF_HELLO)
    assert ask("PATCH", url, version, kind, offset, checksum, checksum, empty)[0] == 400
    assert ask("PATCH", url, version, kind, offset, empty)[0] == 204


# -- anything


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> tuple[Any, str]:
    folder = tmp_path_factory.mktemp("tus") / "uploads"
    limits = {"MAX_OPEN_UPLOADS": 50, "MAX_FILE_SIZE": 1 << 20, "SWEEP_INTERVAL": 0, "MIN_FREE_SPACE": 0}
    config = {f"UPLOAD_HELPER_{name}": value for name, value in limits.items()}
    app = make_app(TESTING=True, UPLOAD_HELPER_FOLDER=folder, UPLOAD_HELPER_DURABILITY="none", **config)
    client = app.test_client()
    return client, begin(client, 1 << 20)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["POST", "PATCH", "HEAD", "OPTIONS", "GET"]),
    headers=st.dictionaries(st.sampled_from(NAMES), any_values | header_values, max_size=5),
    body=st.binary(max_size=20),
)
def test_no_header_is_an_error_of_ours(shared, method, headers, body):
    client, url = shared
    sent = {**TUS, **{name: _sendable(value) for name, value in headers.items()}}
    with client.open("/uploads" if method == "POST" else url, method=method, headers=sent, data=body) as answer:
        # 429: fifty unfinished uploads are enough.
        assert answer.status_code in (200, 201, 204, 400, 403, 404, 405, 409, 412, 413, 415, 429, 460)
        assert answer.headers.getlist("Tus-Resumable") == ["1.0.0"]
        assert "\n" not in "".join(answer.headers.values())


def _sendable(text: str) -> str:
    """Return a text as a server shows the bytes of a header."""
    return text.replace("\r", "").replace("\n", "").encode().decode("latin-1")
