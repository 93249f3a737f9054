"""Hostile requests in every protocol on the one URL: mixed up, cut, from strangers, from other sites, over a real wire."""

from __future__ import annotations

import base64
import io
import json
import random
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import requests

from chunks import RAW, fields, send, upload
from host import make_app
from hostile import BOUNDARY, FILE, FORM, Wire, as_json, as_raw, refusal
from servers import Gunicorn, wait_until
from upload_helper.cli import uploads
from upload_helper.protocols.rufh import PARTIAL
from upload_helper.protocols.tus import OFFSET_TYPE

MIB = 1 << 20
DATA = b"0123456789"
SENT = DATA[:5]
ANN, BOB, NOBODY = {"X-User": "ann"}, {"X-User": "bob"}, {"X-Role": "none"}
TUS = {"Tus-Resumable": "1.0.0"}
RUFH = {"Upload-Draft-Interop-Version": "8"}
WRONG_SHA1 = "sha1 " + "A" * 27 + "="
MAPS = "https://maps.example.org"


# -- one request in each protocol


@dataclass(frozen=True)
class Way:
    """How a client of one protocol begins an upload and goes on with it."""

    name: str
    headers: dict[str, str]
    kind: str
    begins: dict[str, str]

    def begin(self, client: Any, size: int = 10, who: Any = ANN) -> str:
        """Begin an upload of so many bytes; return its URL."""
        form = {"data": {"filepond": "{}"}, "content_type": "multipart/form-data"} if self.name == "filepond" else {}
        headers = {**self.headers, **self.begins, "Upload-Length": str(size), **who}
        answer = client.post("/uploads", headers=headers, **form)
        assert answer.status_code == 201, answer.text
        return answer.headers.get("Location", f"/uploads/{answer.text}")

    def append(self, url: str, offset: object, body: bytes, **more: str) -> dict[str, Any]:
        """Return what a Flask test client opens; names of headers are written with underscores."""
        headers = {**self.headers, "Content-Type": self.kind, "Upload-Offset": str(offset), **ANN}
        if self.name == "filepond":
            headers |= {"Upload-Length": "10", "Upload-Name": "a"}
            url = f"/uploads?patch={url.rpartition('/')[2]}"
        if self.name == "rufh":
            headers["Upload-Complete"] = "?0"
        headers |= {name.replace("_", "-"): value for name, value in more.items()}
        return {"method": "PATCH", "path": url, "headers": headers, "data": body}

    def words(self, answer: Any, status: int, code: str = "") -> dict[str, Any]:
        """Check that an answer is an error as this protocol words it; return its members."""
        if self.name != "rufh":
            assert answer.headers.get("Tus-Resumable") == ("1.0.0" if self.name == "tus" else None)
            return refusal(answer, status, code)
        assert (answer.status_code, answer.mimetype) == (status, "application/problem+json"), answer.text
        members = json.loads(answer.data)
        assert (members["status"], members["title"] != "") == (status, True)
        assert members["code"] == code or not code
        return members


WAYS = {
    "tus": Way("tus", TUS, OFFSET_TYPE, {}),
    "rufh": Way("rufh", RUFH, PARTIAL, {"Upload-Complete": "?0"}),
    "filepond": Way("filepond", {}, OFFSET_TYPE, {}),
}
way_names = pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))


def part(client: Any, size: int, body: bytes, who: Any = ANN, **more: str) -> str:
    """Begin an upload of tus with its first bytes; return its URL."""
    length = {"Upload-Length": str(size)} if size >= 0 else {"Upload-Defer-Length": "1"}
    sent = {name.replace("_", "-"): value for name, value in more.items()}
    headers = {**TUS, "Content-Type": OFFSET_TYPE, **length, **sent, **who}
    answer = client.post("/uploads", data=body, headers=headers)
    assert answer.status_code == 201, answer.text
    return answer.headers["Location"]


def final(client: Any, *urls: str, who: Any = ANN) -> Any:
    return client.post("/uploads", headers={**TUS, "Upload-Concat": "final;" + " ".join(urls), **who})


def begun(way: str):
    def begin(client: Any, who: Any = ANN) -> str:
        url = WAYS[way].begin(client, who=who)
        request = WAYS[way].append(url, 0, SENT)
        assert client.open(**{**request, "headers": {**request["headers"], **who}}).status_code == 204
        return url

    return begin


def chunked(client: Any, who: Any = ANN) -> str:
    return "/uploads/" + send(client, DATA, 5, 0, headers=who).json["uploadUid"]


def chunked_whole(client: Any, who: Any = ANN) -> str:
    return "/uploads/" + upload(client, DATA, 5, headers=who)


ON_THEIR_WAY = {
    **{name: begun(name) for name in WAYS},
    "open part": lambda client, who=ANN: part(client, 10, SENT, who, Upload_Concat="partial"),
    "open length": lambda client, who=ANN: part(client, -1, SENT, who),
}
WHOLE = {
    "finished": lambda client, who=ANN: part(client, 10, DATA, who),
    "finished chunks": chunked_whole,
    "finished part": lambda client, who=ANN: part(client, 10, DATA, who, Upload_Concat="partial"),
    "final": lambda client, who=ANN: final(
        client, part(client, 10, DATA, who, Upload_Concat="partial"), who=who
    ).headers["Location"],
}
KNOWN_LENGTH = [kind for kind in ON_THEIR_WAY if kind != "open length"]
KINDS = {**ON_THEIR_WAY, "chunks": chunked, **WHOLE}


@dataclass(frozen=True)
class World:
    """An application with uploads of every kind, ann's and bob's, to which only such is done as is refused."""

    client: Any
    folder: Path
    ann: dict[str, str]
    bob: dict[str, str]

    def contents(self) -> dict[str, str]:
        return contents(self.folder)


def contents(folder: Path) -> dict[str, str]:
    """Return every path below a folder but the locks, with its mode, its length and how it begins."""
    found = (path for path in sorted(folder.rglob("*")) if ".locks" not in path.parts)
    return {str(path.relative_to(folder)): _described(path) for path in found}


def _described(path: Path) -> str:
    state = path.lstat()
    if not path.is_file():
        return f"{state.st_mode:o}"
    with path.open("rb") as file:
        return f"{state.st_mode:o} {state.st_size} {file.read(4096).hex()}"


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    folder = tmp_path_factory.mktemp("world") / "uploads"
    settings = {"FOLDER": folder, "DURABILITY": "none", "MIN_FREE_SPACE": 0, "CORS_ORIGINS": [MAPS]}
    client = make_app(
        TESTING=True, **{f"UPLOAD_HELPER_{name}": value for name, value in settings.items()}
    ).test_client()
    ann, bob = ({name: make(client, who) for name, make in KINDS.items()} for who in (ANN, BOB))
    return World(client, folder, ann, bob)


@pytest.fixture
def unchanged(world: World):
    """Yield the world, and check that nothing in it has changed."""
    before = world.contents()
    yield world
    assert world.contents() == before


# -- offsets and lengths that contradict


@way_names
@pytest.mark.parametrize("kind", ON_THEIR_WAY)
def test_append_at_another_offset_is_told_the_right_one(unchanged, way, kind):
    # For FilePond a chunk that is there already is one whose answer was lost.
    for offset in (6, 9, 2**40) if way.name == "filepond" else (0, 4, 6, 9, 2**40):
        answer = unchanged.client.open(**way.append(unchanged.ann[kind], offset, b"x"))
        way.words(answer, 409)
        assert answer.headers["Upload-Offset"] == "5"
        assert answer.headers.get("Upload-Complete") == ("?0" if way.name == "rufh" else None)


BAD_OFFSETS = [
    "",
    "-1",
    "+5",
    "5 5",
    "5,5",
    "5, 5",
    "0x5",
    "5.0",
    "1e3",
    "٥",
    "5\x0b",
    "\xa05",
    "NaN",
    "?1",
    '"5"',
    "9" * 20,
    "9" * 5000,
]


@way_names
@pytest.mark.parametrize("offset", BAD_OFFSETS, ids=lambda text: ascii(text[:6]))
def test_offset_that_is_none_is_refused(unchanged, way, offset):
    request = way.append(unchanged.ann[way.name], offset.encode().decode("latin-1"), b"x")
    way.words(unchanged.client.open(**request), 400, "invalid_request")


@pytest.mark.parametrize(
    ("way", "name", "status"),
    [
        ("tus", "Upload-Offset", 400), ("tus", "Content-Type", 415), ("rufh", "Upload-Offset", 400), ("rufh", "Content-Type", 415),
        ("rufh", "Upload-Complete", 400), ("filepond", "Upload-Offset", 400), ("filepond", "Upload-Length", 400),
    ],
)  # fmt: skip
def test_header_that_is_missing_is_refused(unchanged, way, name, status):
    request = WAYS[way].append(unchanged.ann[way], 5, b"x")
    del request["headers"][name]
    WAYS[way].words(unchanged.client.open(**request), status)


@way_names
@pytest.mark.parametrize("kind", KNOWN_LENGTH)
@pytest.mark.parametrize("length", ["11", "9", "5"])
def test_another_length_than_before_is_refused(unchanged, way, kind, length):
    answer = unchanged.client.open(**way.append(unchanged.ann[kind], 5, b"", Upload_Length=length))
    way.words(answer, 400, "length_mismatch")
    assert answer.headers.get("Upload-Offset") == ("5" if way.name == "rufh" else None)


@way_names
@pytest.mark.parametrize("kind", ON_THEIR_WAY)
def test_length_beyond_any_limit_is_refused(unchanged, way, kind):
    for length in (2**40, 999_999_999_999_999):
        answer = unchanged.client.open(**way.append(unchanged.ann[kind], 5, b"x", Upload_Length=str(length)))
        way.words(answer, 413, "too_large")


@pytest.mark.parametrize("kind", [*ON_THEIR_WAY, *WHOLE])
@pytest.mark.parametrize("length", ["11", "3", "999"])
def test_lost_answer_of_filepond_is_not_believed_for_another_length(unchanged, kind, length):
    answer = unchanged.client.open(**WAYS["filepond"].append(unchanged.ann[kind], 0, b"x", Upload_Length=length))
    assert answer.status_code in (400, 409), answer.headers
    assert answer.headers.get("Upload-Length") is None


@pytest.mark.parametrize("way", [WAYS["tus"], WAYS["filepond"]], ids=["tus", "filepond"])
@pytest.mark.parametrize("kind", KNOWN_LENGTH)
def test_more_bytes_than_the_file_has_are_refused(unchanged, way, kind):
    way.words(unchanged.client.open(**way.append(unchanged.ann[kind], 5, b"x" * 6)), 413, "too_large")


@way_names
@pytest.mark.parametrize("kind", WHOLE)
def test_nothing_is_appended_to_what_is_whole(unchanged, way, kind):
    for offset, body in ((0, b"x" * 11), (5, b"x" * 6), (10, b"x"), (11, b""), (11, b"x")):
        answer = unchanged.client.open(**way.append(unchanged.ann[kind], offset, body))
        if kind == "final":
            way.words(answer, 403 if way.name == "tus" else 409, "finished")
        else:
            assert answer.status_code in (409, 413), answer.text
            way.words(answer, answer.status_code)
    with unchanged.client.get(unchanged.ann[kind], headers=ANN) as answer:
        assert answer.status_code == 409 if kind == "finished part" else answer.data == DATA


# -- a protocol for another's upload


@way_names
@pytest.mark.parametrize("other", WAYS.values(), ids=list(WAYS))
def test_upload_that_one_protocol_began_another_completes(client, way, other):
    url = way.begin(client)
    assert client.open(**way.append(url, 0, DATA[:3])).status_code == 204
    assert client.open(**other.append(url, 3, DATA[3:7])).status_code == 204
    ends = {"Upload_Complete": "?1"} if way.name == "rufh" else {}
    assert client.open(**way.append(url, 7, DATA[7:], **ends)).status_code in (201, 204)
    with client.get(url, headers=ANN) as answer:
        assert answer.data == DATA
    assert client.get(f"{url}/status", headers=ANN).json["state"] == "finished"


@way_names
@pytest.mark.parametrize("offset", [0, 5, 10])
def test_upload_in_chunks_is_not_appended_to(unchanged, way, offset):
    answer = unchanged.client.open(**way.append(unchanged.ann["chunks"], offset, b"x"))
    way.words(answer, 409, "incomplete")
    assert "Upload-Offset" not in answer.headers


@pytest.mark.parametrize("headers", [TUS, RUFH, {}], ids=["tus", "rufh", "none"])
def test_upload_in_chunks_has_no_position(unchanged, headers):
    answer = unchanged.client.head(unchanged.ann["chunks"], headers={**headers, **ANN})
    assert (answer.status_code, "Upload-Offset" in answer.headers) == (409, False)


@pytest.mark.parametrize("kind", [*ON_THEIR_WAY, *WHOLE])
@pytest.mark.parametrize("encode", [as_raw, as_json])
def test_chunk_is_not_written_into_what_is_appended_to(unchanged, kind, encode):
    uid = unchanged.ann[kind].rpartition("/")[2]
    told = unchanged.client.get(f"/uploads/{uid}/status", headers=ANN).json
    for count in (0, 1, 2):
        values = {
            "uploadUid": uid,
            "fileName": told["fileName"],
            "totalSize": 10,
            "chunkCount": count,
            "chunkNumber": 0,
        }
        chunk = encode(values, b"x" * 5)
        answer = unchanged.client.post("/uploads", **{**chunk, "headers": {**chunk.get("headers", {}), **ANN}})
        # One of chunks that is whole has the chunk already, and other bytes.
        refusal(answer, 409 if (kind, count) == ("finished chunks", 2) else 400)


def test_part_is_no_file_for_any_protocol(world):
    for kind in ("open part", "finished part"):
        url = world.ann[kind]
        uid = url.rpartition("/")[2]
        asked = [
            ("GET", url, TUS),
            ("GET", url, {}),
            ("GET", f"/uploads?load={uid}", {}),
            ("GET", f"/uploads?restore={uid}", {}),
        ]
        for method, path, headers in asked:
            refusal(world.client.open(path, method=method, headers={**headers, **ANN}), 409, "incomplete")
        answer = world.client.head(url, headers=ANN)
        assert "Content-Disposition" not in answer.headers
        assert "ETag" not in answer.headers
        told = world.client.get(url, headers={**RUFH, **ANN})
        assert told.status_code in (204, 409)
        assert DATA not in told.data
    parts = {world.ann[kind].rpartition("/")[2] for kind in ("open part", "finished part")}
    listed = {one["uploadUid"] for one in world.client.get("/uploads", headers=ANN).json["uploads"]}
    assert not parts & listed
    assert world.ann["final"].rpartition("/")[2] in listed


@pytest.mark.parametrize("kind", KINDS)
def test_upload_is_shown_as_what_it_is(unchanged, kind):
    uid = unchanged.ann[kind].rpartition("/")[2]
    told = unchanged.client.get(f"/uploads/{uid}/status", headers=ANN).json
    whole, size = kind in WHOLE, -1 if kind == "open length" else 10
    state, received = ("finished", 10) if whole else ("open", 5)
    assert (told["state"], told["receivedBytes"], told["totalSize"]) == (state, received, size)
    in_chunks = kind in ("chunks", "finished chunks")
    assert told["offset"] == (None if in_chunks else received)
    assert told["missing"] == (None if not in_chunks else [] if whole else [[1, 1]])
    listed = {one["uploadUid"]: one for one in unchanged.client.get("/uploads", headers=ANN).json["uploads"]}
    assert ("part" in kind) is (uid not in listed)
    # A list counts roughly, and does not name what is missing.
    assert uid not in listed or {**listed[uid], "missing": told["missing"]} == told
    app = unchanged.client.application
    app.cli.add_command(uploads)
    runner = app.test_cli_runner()
    (line,) = (line for line in runner.invoke(args=["uploads", "list"]).output.splitlines() if line.startswith(uid))
    assert line.split()[1:3] == [state, "?" if size < 0 else str(10 * received)]
    shown = runner.invoke(args=["uploads", "show", uid])
    assert (shown.exit_code, "received   " + str(received) in shown.output) == (0, True)


# -- several protocols in one request

CHUNK = fields(DATA, 10, 0)
DROPZONE = {
    "dzuuid": "u", "dzchunkindex": 0, "dztotalfilesize": 10, "dzchunksize": 10, "dztotalchunkcount": 1, "dzchunkbyteoffset": 0,
}  # fmt: skip
RESUMABLE = {
    "resumableChunkNumber": 1, "resumableTotalChunks": 1, "resumableIdentifier": "i", "resumableTotalSize": 10,
    "resumableFilename": "r", "resumableChunkSize": 10, "resumableCurrentChunkSize": 10, "resumableRelativePath": "r",
}  # fmt: skip
FORM_OF_FILE = {"file": "whole"}

# method, query, form or None for a raw body, headers, status, and who words the answer
MIXED = [
    ("POST", CHUNK, None, {**TUS, "Upload-Length": "10"}, 415, "tus"),
    ("POST", {}, CHUNK, {**TUS, "Upload-Length": "10"}, 415, "tus"),
    ("POST", {}, CHUNK, TUS, 400, "tus"),
    ("POST", {}, DROPZONE, {**TUS, "Upload-Length": "10"}, 415, "tus"),
    ("POST", DROPZONE, None, {"Tus-Resumable": "0.2.2"}, 412, "tus"),
    ("POST", CHUNK, None, {"Upload-Length": "10"}, 412, "tus"),
    ("POST", CHUNK, None, {"Upload-Concat": "partial"}, 412, "tus"),
    ("POST", CHUNK, None, {**TUS, **RUFH, "Upload-Complete": "?1", "Upload-Length": "10"}, 415, "tus"),
    ("POST", {"patch": "0" * 32}, None, {**TUS, "Upload-Length": "10"}, 415, "tus"),
    ("PATCH", {"patch": "0" * 32}, None, {**TUS, "Upload-Offset": "0", "Upload-Length": "10"}, 405, "tus"),
    ("DELETE", {}, None, {**TUS, "Content-Type": "text/plain"}, 405, "tus"),
    ("HEAD", {"patch": "0" * 32}, None, TUS, 405, "tus"),
    ("POST", {}, CHUNK, {**RUFH, "Upload-Complete": "?0"}, 415, "rufh"),
    ("POST", {}, FORM_OF_FILE, {**RUFH, "Upload-Complete": "?0"}, 415, "rufh"),
    ("PATCH", {"patch": "0" * 32}, None, {**RUFH, "Upload-Complete": "?0", "Upload-Offset": "0"}, 405, "rufh"),
    ("DELETE", {}, None, {**RUFH, "Content-Type": "text/plain"}, 405, "rufh"),
    ("POST", {}, CHUNK, {"Upload-Length": "10"}, 400, "filepond"),
    ("POST", {}, DROPZONE, {"Upload-Length": "10"}, 400, "filepond"),
    ("POST", {"load": "0" * 32}, CHUNK, {}, 405, "filepond"),
    ("POST", {"patch": "0" * 32}, FORM_OF_FILE, {}, 405, "filepond"),
    ("GET", {"load": "0" * 32, "restore": "0" * 32}, None, {}, 400, "filepond"),
    ("GET", {"patch": "0" * 32, "load": "0" * 32}, None, {}, 405, "filepond"),
    ("PUT", {"patch": "0" * 32}, None, {"Upload-Offset": "0", "Upload-Length": "10"}, 405, "filepond"),
    ("POST", {**CHUNK, "fileName": "other"}, CHUNK, {}, 400, "filepond"),
    ("POST", {**DROPZONE, "dzuuid": "v"}, DROPZONE, {}, 400, "filepond"),
    ("POST", {"dzuuid": "v"}, DROPZONE, {}, 400, "filepond"),
    ("POST", {**RESUMABLE, "resumableTotalSize": 11}, RESUMABLE, {}, 400, "filepond"),
    ("POST", {"chunkNumber": "1"}, {**CHUNK, **DROPZONE}, {}, 400, "filepond"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "query", "form", "headers", "status", "way"), MIXED)
def test_request_of_several_protocols_is_refused_by_one(unchanged, method, query, form, headers, status, way):
    body = {"data": DATA} if form is None else {"data": {**form, "file": (io.BytesIO(DATA), "f.bin")}}
    if method in ("GET", "HEAD", "DELETE"):
        body = {}
    elif form is None:
        headers = {"Content-Type": "application/octet-stream", **headers}
    answer = unchanged.client.open("/uploads", method=method, query_string=query, headers={**ANN, **headers}, **body)
    if method == "HEAD":
        assert (answer.status_code, "Tus-Resumable" in answer.headers) == (status, way == "tus")
    else:
        WAYS[way].words(answer, status)


def test_chunk_of_a_library_that_another_has_upgraded_stays_one(client):
    headers = {"Upload-Complete": "?1", **RUFH, "Content-Type": "application/octet-stream", **ANN}
    for query in (RESUMABLE, DROPZONE):
        answer = client.post("/uploads", query_string=query, data=DATA, headers=headers)
        assert (answer.status_code, answer.json.get("success")) == (200, True)


OVERRIDES = [
    "GET",
    "PUT",
    "TRACE",
    "CONNECT",
    "",
    "*",
    "PATCH, DELETE",
    "PATCH PATCH",
    "DELETE\x0b",
    "delete\xa0",
    "x" * 5000,
]


@pytest.mark.parametrize("value", OVERRIDES, ids=lambda text: ascii(text[:8]))
@pytest.mark.parametrize("kind", ["tus", "finished", "chunks"])
def test_method_in_a_header_that_is_none_is_refused(unchanged, kind, value):
    headers = {**TUS, **ANN, "X-HTTP-Method-Override": value, "Upload-Offset": "5", "Content-Type": OFFSET_TYPE}
    answer = unchanged.client.post(unchanged.ann[kind], headers=headers)
    WAYS["tus"].words(answer, 405, "method_not_allowed")


@pytest.mark.parametrize("method", ["PATCH", "PUT", "DELETE", "GET"])
@pytest.mark.parametrize("headers", [RUFH, {}, {"Upload-Length": "10"}], ids=["rufh", "none", "filepond"])
def test_method_in_a_header_counts_in_tus_and_in_a_post_alone(unchanged, method, headers):
    override = {**headers, **ANN, "X-HTTP-Method-Override": "DELETE", "Upload-Offset": "5"}
    refused = unchanged.client.post(unchanged.ann["tus"], headers=override)
    assert refused.status_code == 405
    for name in ("chunks", "tus"):
        if method == "DELETE":
            override["X-HTTP-Method-Override"] = "GET"
            override |= NOBODY
        answer = unchanged.client.open(unchanged.ann[name], method=method, headers=override)
        assert answer.status_code in (400, 403, 405, 409, 415), answer.text


# -- strangers, and who has lost a role


def appends(url: str) -> list[tuple[Way, dict[str, Any]]]:
    """Return requests that append to an upload of 10 bytes of which 5 are there, right and wrong ones."""
    found = []
    for way in WAYS.values():
        for offset, body, more in (
            (5, b"56789", {}), (5, b"x" * 20, {}), (4, b"x", {}), (0, b"x", {}), (10, b"", {}), (10, b"x", {}), (2**40, b"x", {}),
            (5, b"x", {"Upload_Length": "11"}),
            (5, b"x", {"Upload_Checksum": WRONG_SHA1, "Content_Digest": "sha-256=:" + "A" * 43 + "=:"}),
        ):  # fmt: skip
            found.append((way, way.append(url, offset, body, **more)))
    return found


def questions(url: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Return method, URL and more of every other request about an upload."""
    uid = url.rpartition("/")[2]
    chunk = {"query_string": fields(DATA, 5, 1, uid=uid), "data": b"56789", "headers": RAW}
    return [
        *[(method, url, {"headers": headers}) for method in ("GET", "HEAD", "DELETE") for headers in (TUS, RUFH, {})],
        *[("POST", url, {"headers": {**TUS, "X-HTTP-Method-Override": method}}) for method in ("HEAD", "DELETE")],
        ("HEAD", f"/uploads?patch={uid}", {}), ("GET", f"/uploads?load={uid}", {}), ("GET", f"/uploads?restore={uid}", {}),
        ("DELETE", "/uploads", {"data": uid, "content_type": "text/plain"}), ("GET", f"{url}/status", {}),
        ("POST", "/uploads", chunk),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_who_has_lost_the_role_changes_nothing_and_learns_nothing(unchanged, kind):
    for way, request in appends(unchanged.ann[kind]):
        answer = unchanged.client.open(**{**request, "headers": {**request["headers"], **NOBODY}})
        way.words(answer, 403, "forbidden")
        assert "Upload-Offset" not in answer.headers
    for method, url, more in questions(unchanged.ann[kind]):
        headers = {**more.get("headers", {}), **ANN, **NOBODY}
        answer = unchanged.client.open(url, method=method, **{**more, "headers": headers})
        # Of a chunk the fields are looked at before.
        assert answer.status_code == 403 or (answer.status_code == 400 and "query_string" in more)


def seen(world: World, url: str, who: Any) -> list[tuple[int, bytes, dict[str, str]]]:
    """Return what somebody is answered about an upload, without its uid."""
    uid = url.rpartition("/")[2]
    wanted = [(request["method"], request["path"], request) for _, request in appends(url)]
    wanted = [(method, path, {"headers": r["headers"], "data": r["data"]}) for method, path, r in wanted]
    wanted += questions(url)
    concat = {**TUS, "Upload-Concat": f"final;{world.ann['finished part']} {url}"}
    wanted.append(("POST", "/uploads", {"headers": concat}))
    answers = []
    for method, path, more in wanted:
        answer = world.client.open(path, method=method, **{**more, "headers": {**more.get("headers", {}), **who}})
        headers = {name: value for name, value in answer.headers.items() if name != "Date"}
        answers.append((answer.status_code, answer.get_data().replace(uid.encode(), b"uid"), headers))
    return answers


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("who", [ANN, {"X-User": ""}, {"X-User": "BOB"}], ids=str)
def test_upload_of_another_is_answered_as_one_that_is_not_there(unchanged, kind, who):
    foreign = seen(unchanged, unchanged.bob[kind], who)
    assert foreign == seen(unchanged, "/uploads/" + "0" * 32, who)
    assert {status for status, _, _ in foreign} <= {400, 404}


UIDS = {
    "upper case": str.upper, "Arabic digits": lambda uid: uid.translate({48 + i: 0x660 + i for i in range(10)}),
    "full-width digits": lambda uid: uid.translate({48 + i: 0xFF10 + i for i in range(10)}), "a space before": " {}".format,
    "a space behind": "{}%20".format, "a line behind": "{}%0a".format, "NUL behind": "{}%00".format, "short": lambda uid: uid[:-1],
    "long": "{}0".format, "dots": "./{}".format, "up": "../uploads/{}".format, "encoded up": "%2e%2e%2fuploads%2f{}".format,
    "encoded slash": "{}%2f".format, "slash": "{}/".format, "two slashes": "/{}".format, "back slash": "{}%5c".format,
    "semicolon": "{};x=y".format, "file in it": "{}/data".format, "record in it": "{}/upload.json".format,
    "hidden": lambda uid: ".owners", "scratch": lambda uid: ".scratch/" + uid, "hyphens": lambda uid: uid[:8] + "-" + uid[8:],
}  # fmt: skip


@pytest.mark.parametrize("trick", UIDS)
def test_uid_that_is_not_written_as_it_must_be_is_not_found(unchanged, trick):
    uid = unchanged.ann["finished"].rpartition("/")[2]
    odd = UIDS[trick](uid)
    for method, url, more in questions(f"/uploads/{odd}")[:-6]:
        answer = unchanged.client.open(url, method=method, **{**more, "headers": {**more["headers"], **ANN}})
        # Of two slashes the framework makes one, by sending the client elsewhere.
        assert answer.status_code == (308 if trick == "two slashes" else 404), (method, answer.text)
    for way in WAYS.values():
        request = way.append(f"/uploads/{odd}", 10, b"x")
        if way.name == "filepond":
            request["path"] = f"/uploads?patch={odd}"
        assert unchanged.client.open(**request).status_code in (308, 404)
    for asked in ("load", "restore", "patch"):
        answer = unchanged.client.open(
            f"/uploads?{asked}={odd}", method="HEAD" if asked == "patch" else "GET", headers=ANN
        )
        assert answer.status_code == 404
    if trick != "a space before":
        # In a body white space around it means nothing.
        refusal(unchanged.client.delete("/uploads", data=odd, content_type="text/plain", headers=ANN), 404)
    concat = {**TUS, **ANN, "Upload-Concat": f"final;/uploads/{odd}".encode().decode("latin-1")}
    WAYS["tus"].words(unchanged.client.post("/uploads", headers=concat), 400, "invalid_request")


# -- parts put together


@pytest.mark.parametrize(
    "written",
    [
        "{0} {1}", "{1} {0}", "{0} {2}", "{0} {3}", "{0} {4}", "{0} {5}", "{0} {6}", "{0} {7}", "{0},{0}", "{0};{0}", "{0} {0}x",
        "{0} {0}/status", "{0} /uploads", "{0} /", "{0} http://[/", "{0} //", "{0} ..", "{0} \x01", "{0}\x0b{0}", "{0} {0}\xe9",
        "{0}%20{0}", "{0} <{0}>", "{0} \"{0}\"", "{0} javascript:{0}", "{0} /other{8}", "{0} {0}?patch={9}#x {1}",
    ],
)  # fmt: skip
def test_final_with_one_url_that_is_not_ones_own_finished_part_makes_nothing(unchanged, written):
    ann, bob = unchanged.ann, unchanged.bob
    uid = ann["finished part"].rpartition("/")[2]
    urls = (
        ann["finished part"], bob["finished part"], ann["open part"], ann["final"], ann["finished"], ann["chunks"], ann["tus"],
        "/uploads/" + "0" * 32, f"/{uid}", uid,
    )  # fmt: skip
    headers = {**TUS, **ANN, "Upload-Concat": "final;" + written.format(*urls)}
    answer = unchanged.client.post("/uploads", headers=headers)
    WAYS["tus"].words(answer, 400, "invalid_request")
    assert "Location" not in answer.headers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Upload-Length": "20"}, 400), ({"Upload-Length": "21"}, 400), ({"Upload-Defer-Length": "1"}, 400), ({"Upload-Length": ""}, 400),
        ({"Upload-Metadata": "a"}, 201), ({"Upload-Metadata": "a,a"}, 400), ({"Upload-Checksum": WRONG_SHA1}, 201),
    ],
)  # fmt: skip
def test_final_tells_no_length(make_host, headers, status):
    client = make_host().test_client()
    url = part(client, 10, DATA, Upload_Concat="partial")
    answer = client.post("/uploads", headers={**TUS, **ANN, "Upload-Concat": f"final;{url} {url}", **headers})
    assert answer.status_code == status, answer.text
    if status == 201:
        with client.get(answer.headers["Location"], headers=ANN) as file:
            assert file.data == 2 * DATA


def test_thousand_times_one_part_is_measured_before_it_is_copied(make_host, folder):
    client = make_host(max_file_size=9999).test_client()
    url = part(client, 10, DATA, Upload_Concat="partial")
    before = contents(folder)
    WAYS["tus"].words(final(client, *[url] * 1000), 413, "too_large")
    WAYS["tus"].words(final(client, *[url] * 5000), 400, "invalid_request")
    assert contents(folder) == before
    assert final(client, *[url] * 999).status_code == 201


# -- pages of other sites

ACROSS = [
    {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site", "Origin": "https://sub.localhost"},
    {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "https://maps.example.org.evil.example"},
]  # fmt: skip


@pytest.mark.parametrize("headers", ACROSS, ids=str)
def test_page_of_another_site_changes_nothing_in_any_protocol(unchanged, headers):
    url = unchanged.ann["tus"]
    uid = url.rpartition("/")[2]
    for way, request in appends(url):
        answer = unchanged.client.open(**{**request, "headers": {**request["headers"], **headers}})
        way.words(answer, 403, "forbidden")
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "image/png"):
        for path in (
            "/uploads",
            "/uploads?name=x",
            f"/uploads?{urlencode(CHUNK)}",
            f"/uploads?{urlencode(DROPZONE)}",
            url,
        ):
            for more in (
                {},
                {**TUS, "X-HTTP-Method-Override": "DELETE"},
                {**TUS, "Upload-Length": "5"},
                {"X-HTTP-Method-Override": "DELETE"},
            ):
                sent = {**ANN, **headers, **more, "Content-Type": kind}
                assert unchanged.client.post(path, data=DATA, headers=sent).status_code == 403
    for path, body in ((url, b""), ("/uploads", uid.encode())):
        answer = unchanged.client.delete(path, data=body, content_type="text/plain", headers={**ANN, **headers})
        refusal(answer, 403, "forbidden")
    whole = {"filepond": ["{}", (io.BytesIO(DATA), "f.bin")]}
    refusal(unchanged.client.post("/uploads", data=whole, headers={**ANN, **headers}), 403, "forbidden")


ORIGINS = [
    MAPS,
    MAPS.upper(),
    MAPS + "/",
    MAPS + ":443",
    "http://maps.example.org",
    "https://evil.example",
    "null",
    "*",
    MAPS + ", " + MAPS,
]


@pytest.mark.parametrize("origin", ORIGINS)
def test_every_answer_of_every_protocol_is_readable_to_a_listed_origin_alone(world, origin):
    client = world.client
    answers = [client.open(**{**request, "headers": {**request["headers"], "Origin": origin, "Sec-Fetch-Site": "same-origin"}})
               for kind in ("finished", "chunks", "final") for _, request in appends(world.ann[kind])]  # fmt: skip
    for method, url, more in questions("/uploads/" + "0" * 32) + questions(world.bob["tus"]):
        answers.append(
            client.open(url, method=method, **{**more, "headers": {**more.get("headers", {}), **ANN, "Origin": origin}})
        )
    for path in ("/uploads", world.ann["tus"]):
        for headers in (
            {},
            TUS,
            RUFH,
            {"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "x-evil\x01, a b"},
        ):
            answers.append(client.options(path, headers={**headers, "Origin": origin}))
    always = {"content-type", "content-length", "cache-control", "vary", "last-modified", "expires", "content-language"}
    for answer in answers:
        about = [(name, value) for name, value in answer.headers if name.startswith("Access-Control-")]
        assert len(dict(about)) == len(about)
        assert "Origin" in answer.vary
        assert bool(about) is (origin == MAPS), answer.text
        if about:
            assert dict(about)["Access-Control-Allow-Origin"] == MAPS
            assert dict(about)["Access-Control-Allow-Credentials"] == "true"
            exposed = {name.strip().lower() for name in dict(about)["Access-Control-Expose-Headers"].split(",")}
            ours = {name.lower() for name, _ in answer.headers if not name.startswith("Access-Control-")}
            assert ours - {"x-content-type-options", "content-security-policy"} <= exposed | always
        answer.close()


# -- what is sent back

NAMES = [
    "a\r\nX-Evil: 1", "a\nX-Evil: 1", "a\rX-Evil: 1", "a\x00b", "a\u2028X-Evil: 1", 'a"; filename=evil', "a\\", "../../x", "日本.tif", "a\x85b",
    "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"), "%0d%0aX-Evil:%201", "a;b=c", "\u202eexe.tif",
]  # fmt: skip


# FilePond sends the name as it is, and a header has but one line.
NAMED = [
    (way, name) for way in WAYS.values() for name in NAMES if way.name != "filepond" or not {"\r", "\n"} & set(name)
]


@pytest.mark.parametrize(("way", "name"), NAMED, ids=lambda value: ascii(getattr(value, "name", value)))
def test_name_makes_no_header_and_no_path(client, folder, way, name):
    encoded = b64(name)
    if way.name == "filepond":
        url = way.begin(client, 5)
        request = way.append(url, 0, SENT, Upload_Length="5", Upload_Name=name.encode().decode("latin-1"))
        assert client.open(**request).status_code == 204
    else:
        headers = {"Upload-Metadata": f"filename {encoded},odd {encoded}", **ANN}
        if way.name == "rufh":
            headers |= {**RUFH, "Upload-Complete": "?1"}
        else:
            headers |= {**TUS, "Upload-Length": "5", "Content-Type": OFFSET_TYPE}
        answer = client.post("/uploads", headers=headers, data=SENT)
        assert answer.status_code == 201, answer.text
        url = answer.headers["Location"]
    asked = [client.get(url, headers=ANN), client.head(url, headers=ANN), client.head(url, headers={**TUS, **ANN})]
    asked += [client.get(f"{url}/status", headers=ANN), client.get("/uploads", headers=ANN)]
    for answer in asked:
        answer.get_data()
        assert answer.status_code == 200
        assert "X-Evil" not in answer.headers
        for value in answer.headers.values():
            assert value.isprintable()
            assert value.isascii()
        answer.close()
    assert asked[0].headers["Content-Disposition"].startswith("attachment; filename")
    if way.name == "tus":
        assert asked[2].headers["Upload-Metadata"] == f"filename {encoded},odd {encoded}"
    uid = url.rpartition("/")[2]
    assert {path.name for path in (folder / uid).iterdir()} == {"upload.json", "data", "chunks"}


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


# -- nobody in particular


def test_stranger_finds_nothing_by_an_identifier_that_can_be_guessed(client, folder):
    simple = {
        "chunkNumber": 1, "totalChunks": 2, "identifier": "s", "totalSize": 10, "filename": "s", "chunkSize": 5, "currentChunkSize": 5,
        "relativePath": "s",
    }  # fmt: skip
    flow = {name.replace("resumable", "flow"): value for name, value in RESUMABLE.items()}
    for query in (
        RESUMABLE,
        flow,
        simple,
        {"name": "p", "chunk": 0, "chunks": 2},
        {"name": "p", "chunk": 1, "chunks": 2, "identifier": "x" * 32},
    ):
        size = 10 if "TotalChunks" in "".join(query) else 5
        raw = client.post("/uploads", query_string=query, data=DATA[:size], headers=RAW)
        form = client.post("/uploads", data={**query, "file": (io.BytesIO(DATA[:size]), "f")})
        asked = client.get("/uploads", query_string=query)
        for answer in (raw, form) if "chunk" in query else (raw, form, asked):
            assert answer.json["code"] == "forbidden", answer.text
            assert "identify" in answer.json["remedy"]
    assert not folder.exists()
    # What the owner sends under it, a stranger neither finds nor spoils.
    mine = client.post("/uploads", query_string=RESUMABLE, data=DATA, headers={**RAW, **ANN}).json["uploadUid"]
    assert (
        client.post("/uploads", query_string=RESUMABLE, data=b"x" * 10, headers={**RAW, **BOB}).json["uploadUid"]
        != mine
    )
    with client.get(f"/uploads/{mine}", headers=ANN) as answer:
        assert answer.data == DATA


# -- over a real wire


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wire") / "uploads"
    limits = {
        "UPLOAD_HELPER_BODY_TIMEOUT": 1,
        "UPLOAD_HELPER_MAX_CHUNK_SIZE": 64 * MIB,
        "UPLOAD_HELPER_DURABILITY": "none",
    }
    with Gunicorn(folder, workers=1, threads=8, **limits) as running:
        running.folder = folder
        running.pids()
        yield running


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    """A server that waits for silent clients as long as it does by default."""
    with Gunicorn(tmp_path_factory.mktemp("patient") / "uploads", workers=1, threads=8) as running:
        running.pids()
        yield running


def started(server: Gunicorn, size: int = 10, body: bytes = SENT, **more: str) -> str:
    headers = {**TUS, "Upload-Length": str(size), "Content-Type": OFFSET_TYPE, **more}
    answer = requests.post(server.url, data=body, headers=headers)
    assert answer.status_code == 201, answer.text
    return answer.headers["Location"]


def head(method: str, path: str, headers: dict[str, str], *lines: str) -> bytes:
    named = [f"{name}: {value}" for name, value in headers.items() if name != "X-User"]
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *named, *lines, "", ""]).encode("latin-1")


def in_chunks(body: bytes, size: int = 50_000) -> bytes:
    blocks = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(block), block) for block in blocks) + b"0\r\n\r\n"


def kept(server: Gunicorn, url: str) -> int:
    return requests.get(f"{server.origin}{url}/status").json()["receivedBytes"]


LONG = b"DELETE " + b"x" * 100_000
REFUSED = {
    "offset": (4, LONG, {}, (409, 409, 409)),
    "no offset": ("x", LONG, {}, (400, 400, 400)),
    "too long": (5, LONG, {}, (413, 400, 413)),
    "length": (5, LONG, {"Upload_Length": "11"}, (400, 400, 400)),
    "coding": (5, LONG, {"Content_Encoding": "gzip"}, (415, 415, 415)),
    "role": (5, b"56789", {"X_Role": "none"}, (403, 403, 403)),
    "version": (5, LONG, {"Tus_Resumable": "2", "Upload_Draft_Interop_Version": "99"}, (412, 412, 412)),
    "type": (5, LONG, {"Content_Type": "text/plain"}, (415, 415, 413)),
    "checksum": (
        5,
        b"5678",
        {"Upload_Checksum": WRONG_SHA1, "Content_Digest": "sha-256=:" + "A" * 43 + "=:"},
        (460, 422, 204),
    ),
    "site": (5, LONG, {"Sec_Fetch_Site": "cross-site"}, (403, 403, 403)),
}


@pytest.mark.parametrize("framed", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("why", REFUSED)
def test_refused_append_is_not_taken_for_the_next_request(server, why, framed):
    offset, body, more, statuses = REFUSED[why]
    for way, status in zip(WAYS.values(), statuses, strict=True):
        if why == "version" and way.name == "filepond":
            continue
        url = started(server)
        sent = {name: value for name, value in more.items() if name != "Tus_Resumable" or way.name == "tus"}
        request = way.append(url, offset, body, **sent)
        request["headers"].pop("X-User")
        framing = "Transfer-Encoding: chunked" if framed else f"Content-Length: {len(body)}"
        with Wire(server.port) as wire:
            wire.send(head("PATCH", request["path"], request["headers"], framing), in_chunks(body) if framed else body)
            wire.send(head("GET", f"{url}/status", {}))
            got, headers, said = wire.answer()
            # Only the end of a body without a length tells that its bytes were too many.
            assert got == status or (framed and got in (400, 413)), (way.name, said)
            assert headers.get("tus-resumable") == ("1.0.0" if way.name == "tus" else None)
            with suppress(ConnectionResetError):
                following, _, said = wire.answer()
                # Hanging up is right as well, taking the rest of the body for a request is not.
                assert following in (0, 200, 404), said
        if (way.name, why) != ("rufh", "too long") and status != 204:
            assert kept(server, url) == 5


TRAILERS = [
    "no trailer\r\n\r\n",
    "X: \x00\r\n\r\n",
    " folded: x\r\n\r\n",
    "A" * 9000 + ": b\r\n\r\n",
    "Content-Length: 5\r\n\r\n",
]


@pytest.mark.parametrize("trailer", TRAILERS, ids=lambda text: ascii(text[:8]))
def test_broken_trailer_is_a_broken_body(server, trailer):
    for way in WAYS.values():
        url = started(server)
        request = way.append(url, 5, b"")
        request["headers"].pop("X-User")
        with Wire(server.port) as wire:
            wire.send(
                head("PATCH", request["path"], request["headers"], "Transfer-Encoding: chunked"),
                "2\r\nab\r\n0\r\n",
                trailer,
            )
            status, _, said = wire.answer()
            # Trailers that are none of ours may be there.
            assert status in (204, 400, 503), said
        assert kept(server, url) in (5, 7)


FRAMINGS = [
    ["Content-Length: 5", "Transfer-Encoding: chunked"], ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
    ["Transfer-Encoding: gzip, chunked"], ["Transfer-Encoding: identity"], ["Transfer-Encoding: xchunked"], ["Content-Length: 5", "Content-Length: 0"],
    ["Content-Length: -5"], ["Content-Length: +5"], ["Content-Length: 5, 5"], ["Content-Length: 0x5"], ["Content-Length: 5 5"], ["Content-Length: \xb2"],
    ["Transfer-Encoding : chunked"], [" Content-Length: 5"], ["Content_Length: 5"],
]  # fmt: skip


@pytest.mark.parametrize("lines", FRAMINGS, ids=str)
def test_framing_that_two_servers_could_read_differently_changes_nothing(server, lines):
    url = started(server)
    request = WAYS["tus"].append(url, 5, b"")
    request["headers"].pop("X-User")
    with Wire(server.port) as wire:
        wire.send(head("PATCH", url, request["headers"], *lines), b"5\r\nabcde\r\n0\r\n\r\n")
        # Without a length that counts it is an empty body, and what follows no request.
        assert wire.answer()[0] in (400, 411, 415, 501, 204)
    assert kept(server, url) == 5


@pytest.mark.parametrize(
    "body", [b"3\r\nabc\r\nzz\r\nde\r\n0\r\n\r\n", b"3\r\nabc\r\n-2\r\nde\r\n", b"3\r\nabc\r\n2\r\ndeX\r\n0\r\n\r\n"]
)
def test_what_came_before_a_broken_chunk_is_kept_where_the_protocol_says_so(server, body):
    for way in WAYS.values():
        url = started(server)
        request = way.append(url, 5, b"")
        request["headers"].pop("X-User")
        with Wire(server.port) as wire:
            wire.send(head("PATCH", request["path"], request["headers"], "Transfer-Encoding: chunked"), body)
            status, _, said = wire.answer()
            assert status in (400, 503), said
            with suppress(ConnectionResetError):
                wire.send(head("GET", f"{url}/status", {}))
                assert wire.answer()[0] == 0
        assert kept(server, url) == 5 if way.name == "filepond" else kept(server, url) >= 8


def test_method_in_a_header_never_promises_a_body_that_does_not_come(server):
    url = started(server, 10, DATA)
    for method in ("GET", "HEAD", "OPTIONS", "PUT", "TRACE", ""):
        with Wire(server.port) as wire:
            wire.send(head("POST", url, {**TUS, "X-HTTP-Method-Override": method}, "Content-Length: 0"))
            wire.send(head("GET", f"{url}/status", {}))
            first, headers, _ = wire.answer()
            status, _, said = wire.answer()
            assert (status, json.loads(said)["state"]) == (200, "finished"), (method, first, headers)


def test_expectation_is_answered_and_a_refusal_comes_all_the_same(server):
    url = started(server)
    for offset, expected in ((4, 409), (5, 204)):
        request = WAYS["tus"].append(url, offset, b"")
        request["headers"].pop("X-User")
        with Wire(server.port) as wire:
            wire.send(head("PATCH", url, request["headers"], "Content-Length: 5", "Expect: 100-continue"))
            status = wire.answer()[0]
            if status == 100:
                wire.send(b"56789")
                status = wire.answer()[0]
            assert status == expected
    assert kept(server, url) == 10


@pytest.mark.parametrize("framed", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("hanging", ["tus", "rufh", "filepond", "checksum"])
def test_whoever_reconnects_does_not_wait_for_a_client_that_hangs(server, hanging, framed):
    way = WAYS["tus" if hanging == "checksum" else hanging]
    for other in WAYS.values():
        url = started(server, body=b"")
        request = way.append(url, 0, b"", **({"Upload_Checksum": WRONG_SHA1} if hanging == "checksum" else {}))
        request["headers"].pop("X-User")
        held = hanging in ("filepond", "checksum")
        with Wire(server.port) as wire:
            framing = "Transfer-Encoding: chunked" if framed else "Content-Length: 8"
            wire.send(
                head("PATCH", request["path"], request["headers"], framing), b"4\r\nabcd\r\n" if framed else b"abcd"
            )
            at = 0 if held else 4
            file = server.folder / url.rpartition("/")[2] / "data"
            wait_until(lambda file=file: file.read_bytes()[:4] == b"abcd", what="the beginning of the body")
            begun_at = time.monotonic()
            where = requests.head(f"{server.origin}{url}", headers=TUS)
            assert where.headers["Upload-Offset"] == str(at)
            rest = other.append(
                url, at, b"ABCDEFGHIJ"[at:], **({"Upload_Complete": "?1"} if other.name == "rufh" else {})
            )
            rest["headers"].pop("X-User")
            answer = requests.patch(server.origin + rest["path"], data=rest["data"], headers=rest["headers"])
            assert answer.status_code in (201, 204), answer.text
            assert time.monotonic() - begun_at < 0.7
            wire.send(b"4\r\nefgh\r\n0\r\n\r\n" if framed else b"efgh")
            assert wire.answer()[0] in (0, 409)
        assert requests.get(server.origin + url).content == (b"ABCDEFGHIJ" if held else b"abcdEFGHIJ")


def test_connection_that_is_given_up_keeps_nobody_else_waiting(server):
    url = started(server, 1000, b"")
    request = WAYS["tus"].append(url, 0, b"")
    request["headers"].pop("X-User")
    with Wire(server.port) as silent, Wire(server.port) as broken:
        silent.send(head("PATCH", url, request["headers"], "Content-Length: 500"), b"abcd")
        wait_until(lambda: kept(server, url) == 4, what="the beginning of the body")
        assert requests.head(server.origin + url, headers=TUS).headers["Upload-Offset"] == "4"
        other = WAYS["tus"].append(started(server), 5, b"")["headers"]
        other.pop("X-User")
        broken.send(head("PATCH", started(server), other, "Transfer-Encoding: chunked"), b"zz\r\n")
        for wire in (broken, silent):
            assert wire.answer()[0] in (409, 503)
            for _ in range(5):
                begun_at = time.monotonic()
                assert requests.head(server.origin + url, headers=TUS).status_code == 200
                assert time.monotonic() - begun_at < 1


@pytest.mark.parametrize("framing", ["Content-Length: 500", "Transfer-Encoding: chunked"])
def test_whoever_is_refused_does_not_keep_a_thread_by_silence(patient, framing):
    url = started(patient)
    begun_at = time.monotonic()
    with ExitStack() as stack:
        wires = [stack.enter_context(Wire(patient.port, seconds=6)) for _ in WAYS]
        for wire, way in zip(wires, WAYS.values(), strict=True):
            request = way.append(url, 5, b"", X_Role="none")
            request["headers"].pop("X-User")
            wire.send(head("PATCH", request["path"], request["headers"], framing), b"4\r\nabcd\r\n")
        assert [wire.answer()[0] for wire in wires] == [403, 403, 403]
    assert time.monotonic() - begun_at < 6


def test_first_chunks_at_once_from_many_connections_make_one_upload(server):
    # Of Dropzone, whose identifier needs no owner.
    data = random.Random(5).randbytes(16_000)
    query = {**DROPZONE, "dztotalfilesize": 16_000, "dzchunksize": 1000, "dztotalchunkcount": 16, "dzuuid": "at once"}

    def put(number: int) -> tuple[int, str]:
        values = {**query, "dzchunkindex": number, "dzchunkbyteoffset": number * 1000}
        body = {"file": ("same.bin", data[number * 1000 :][:1000])}
        answer = requests.post(server.url, data=values, files=body)
        return answer.status_code, answer.json().get("uploadUid", answer.text)

    with ThreadPoolExecutor(16) as pool:
        answers = set(pool.map(put, range(16)))
    assert len(answers) == 1
    status, uid = answers.pop()
    assert status == 200
    assert requests.get(f"{server.url}/{uid}").content == data


# -- memory


def peak(pid: int) -> int:
    """Return the most memory in bytes that a process has had since `reset_peak`."""
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])


def reset_peak(pid: int) -> int:
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return peak(pid)


SIZE = 32 * MIB
ONE = {**DROPZONE, "dztotalfilesize": SIZE, "dzchunksize": SIZE}
BIG = {
    "tus": ("PATCH", "{url}", {**TUS, "Content-Type": OFFSET_TYPE, "Upload-Offset": "0"}, 204),
    "tus with a checksum": (
        "PATCH",
        "{url}",
        {**TUS, "Content-Type": OFFSET_TYPE, "Upload-Offset": "0", "Upload-Checksum": WRONG_SHA1},
        460,
    ),
    "tus creation": ("POST", "/uploads", {**TUS, "Content-Type": OFFSET_TYPE, "Upload-Length": str(SIZE)}, 201),
    "rufh": ("PATCH", "{url}", {**RUFH, "Content-Type": PARTIAL, "Upload-Offset": "0", "Upload-Complete": "?1"}, 201),
    "rufh creation": ("POST", "/uploads", {**RUFH, "Upload-Complete": "?1"}, 201),
    "filepond": (
        "PATCH",
        "/uploads?patch={uid}",
        {"Upload-Offset": "0", "Upload-Length": str(SIZE), "Upload-Name": "a"},
        204,
    ),
    "library": ("POST", f"/uploads?{urlencode(ONE)}", {"Content-Type": "image/png"}, 200),
    "whole": ("POST", "/uploads?name=a", {"Content-Type": "image/png"}, 200),
    "form": ("POST", "/uploads", {"Content-Type": FORM}, 200),
    "too long for a file": ("PATCH", "{small}", {**TUS, "Content-Type": OFFSET_TYPE, "Upload-Offset": "5"}, 413),
    "wrong offset": ("PATCH", "{url}", {**TUS, "Content-Type": OFFSET_TYPE, "Upload-Offset": "7"}, 409),
    "lost answer": (
        "PATCH",
        "/uploads?patch={whole}",
        {"Upload-Offset": "0", "Upload-Length": "10", "Upload-Name": "a"},
        409,
    ),
    "revert": ("DELETE", "/uploads", {"Content-Type": "text/plain"}, 413),
    "fields": ("POST", "/uploads", {"Content-Type": "application/x-www-form-urlencoded"}, 413),
    "metadata": ("POST", "/uploads", {"Content-Type": FORM, "Upload-Length": "5"}, 400),
}


@pytest.mark.parametrize("framed", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("what", BIG)
def test_body_is_never_gathered_in_memory(server, what, framed):
    method, path, headers, expected = BIG[what]
    url, small, whole = started(server, SIZE, b""), started(server), started(server, 10, DATA)
    path = path.format(url=url, uid=url[-32:], small=small, whole=whole[-32:])
    before, after = (FILE, b"\r\n--" + BOUNDARY + b"--\r\n") if headers.get("Content-Type") == FORM else (b"", b"")
    pid = server.pids()[0]
    floor = reset_peak(pid)
    with Wire(server.port) as wire:
        wire.send(
            head(
                method,
                path,
                headers,
                "Transfer-Encoding: chunked" if framed else f"Content-Length: {len(before) + SIZE + len(after)}",
            )
        )
        with suppress(ConnectionError):
            for block in (before, *[bytes(MIB)] * (SIZE // MIB), after):
                if block:
                    wire.send(b"%x\r\n%b\r\n" % (len(block), block) if framed else block)
            if framed:
                wire.send(b"0\r\n\r\n")
        with suppress(ConnectionResetError):
            status, _, said = wire.answer()
            # One that is declared too long need not be looked at.
            assert status == expected or (what == "metadata" and status == 413), said
    assert peak(pid) - floor < 12 * MIB
    for one in requests.get(server.url, headers=ANN).json().get("uploads", []):
        requests.delete(f"{server.url}/{one['uploadUid']}", headers=ANN)


def test_server_is_as_well_as_before(server):
    assert len(server.pids()) == 1
    url = started(server, 10, DATA)
    assert requests.get(server.origin + url).content == DATA
    assert "Traceback" not in server.log.read_text()
