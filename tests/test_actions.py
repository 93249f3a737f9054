"""Endpoints that a host declares as a GBD WebSuite action does: the wire to the letter, and what a host may declare."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import os
import random
import socket
import subprocess
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode

import msgpack
import pytest
from flask import Flask, Response, abort, request
from flask_wtf.csrf import CSRFProtect

import upload_helper as uh
from chunks import fields, split
from servers import Gunicorn

JSON, MSGPACK = "application/json", "application/msgpack"
DATA = random.Random(3).randbytes(10_007)
SECRET = "the password is swordfish"
CHUNK_SIZE = 8_000_000
NODE = Path(__file__).parent / "node"


# --- what hosts declare ---


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.5


@dataclasses.dataclass
class Everything:
    text: str = ""
    number: int = 0
    ratio: float = 0.0
    flag: bool = False
    raw: bytes = b""
    names: list[str] = dataclasses.field(default_factory=list)
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    maybe: int | None = None
    mode: Literal["fast", "safe"] = "safe"
    place: Point | None = None
    places: list[Point] = dataclasses.field(default_factory=list)
    anything: Any = None


@dataclasses.dataclass
class Required:
    surveyUid: str  # noqa: N815
    year: int = 2000


@dataclasses.dataclass
class Finished:
    uploadUid: str  # noqa: N815


@dataclasses.dataclass
class SurveyChunk(uh.ChunkRequest):
    surveyUid: str = ""  # noqa: N815
    year: int = 0
    draft: bool = False


def declare() -> uh.Actions:
    actions = uh.Actions("survey", __name__, url_prefix="/_")

    @actions.api("echo")
    def echo(req: object, p: Everything) -> dict[str, Any]:
        return dataclasses.asdict(p)

    @actions.api("required")
    def required(req: object, p: Required) -> Required:
        return p

    @actions.api("upload")
    def upload(req: Any, p: uh.ChunkRequest) -> uh.ChunkResponse:
        return uh.current_helper.handle_chunk_request(req, p)

    @actions.api("forbiddenUpload")
    def forbidden(req: Any, p: uh.ChunkRequest) -> uh.ChunkResponse:
        abort(403, "not for you")

    @actions.api("surveyChunk")
    def survey_chunk(req: Any, p: SurveyChunk) -> dict[str, Any]:
        response = uh.current_helper.handle_chunk_request(req, p)
        return {"uploadUid": response.uploadUid, "survey": p.surveyUid, "year": p.year, "draft": p.draft}

    @actions.api("import")
    def import_survey(req: object, p: Finished) -> dict[str, Any]:
        upload = uh.current_helper.get_upload(p.uploadUid)
        with upload.open() as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"fileName": upload.fileName, "totalSize": upload.totalSize, "sha256": digest}

    @actions.api("fails")
    def fails(req: object, p: Everything) -> object:
        return FAILURES[p.text]()

    return actions


def refuse(error: Exception) -> Any:
    raise error


FAILURES = {
    "abort": lambda: abort(403, "not for you"),
    "abort with a response": lambda: abort(Response("<h1>no</h1>", 403)),
    "our error": lambda: refuse(uh.ForbiddenError("not for you")),
    "our error with a pause": lambda: refuse(uh.TooManyUploadsError("not for you")),
    "crash": lambda: refuse(RuntimeError(SECRET)),
    "no answer": lambda: None,
    "an answer that can't be sent": lambda: {"value": object()},
    "not a number": lambda: {"value": float("nan")},
    "an answer that is no object": lambda: ("not for you", 403),
    "an error as a response": lambda: Response("<h1>no</h1>", 409),
    "a status without a name": lambda: Response("<h1>no</h1>", 499),
}


def page(error: Exception) -> tuple[str, int]:
    return "<h1>A page of the host</h1>", getattr(error, "code", None) or 500


@pytest.fixture(params=[False, True], ids=["plain host", "host with error pages"])
def app(request, folder):
    return make(UPLOAD_HELPER_FOLDER=folder, pages=request.param)


@pytest.fixture
def client(app):
    return app.test_client()


def make(*, pages: bool = False, chunk_size: int = 20_000, **config: object) -> Flask:
    app = Flask("actions")
    app.config.update(UPLOAD_HELPER_DURABILITY="none", UPLOAD_HELPER_MIN_FREE_SPACE=0)
    app.config.update(UPLOAD_HELPER_MAX_CHUNK_SIZE=chunk_size, UPLOAD_HELPER_MAX_REQUEST_SIZE=30_000, **config)
    uh.UploadHelper(app)
    app.register_blueprint(declare())
    for kind in (400, 403, 404, 405, 413, 415, 500, Exception) if pages else ():
        app.register_error_handler(kind, page)

    @app.before_request
    def first() -> None:
        wish = request.headers.get("X-Before", "")
        if wish == "read":
            request.get_data()
        elif wish:
            FAILURES[wish]()

    return app


# --- a client ---


def call(client, path: str, members: object = None, *, kind: str = JSON, method: str = "POST", **headers: str):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    body = members if isinstance(members, bytes) else encode({} if members is None else members, kind)
    return client.open(path, method=method, data=body, content_type=kind, headers=headers)


def encode(members: object, kind: str) -> bytes:
    return msgpack.packb(members) if kind == MSGPACK else json.dumps(members).encode()


def decode(answer) -> Any:
    return msgpack.unpackb(answer.data) if answer.mimetype == MSGPACK else json.loads(answer.data)


def error_of(answer, status: int, kind: str = JSON) -> str:
    """Check that an answer is an error as the client wants it; return its text."""
    assert (answer.status_code, answer.mimetype) == (status, kind), answer.text
    body = decode(answer)
    info = body["error"]["info"]
    assert body == {"status": status, "error": {"code": status, "info": info}}
    assert isinstance(info, str)
    assert info
    return info


# --- the wire ---


@pytest.mark.parametrize("kind", [JSON, MSGPACK])
@pytest.mark.parametrize(
    ("path", "cmd"),
    [("/_/required", {}), ("/_", {"cmd": "required"}), ("/_/", {"cmd": "required"}), ("/_?cmd=required", {}),
     ("/_/required", {"cmd": "something else"})],
)  # fmt: skip
def test_command_is_named_by_the_path_or_in_the_body(client, path, cmd, kind):
    answer = call(client, path, {"surveyUid": "straße", "year": 1999, **cmd}, kind=kind)
    assert (answer.status_code, decode(answer)) == (200, {"surveyUid": "straße", "year": 1999})


@pytest.mark.parametrize(
    ("sent", "accept", "expected"),
    [
        (JSON, None, JSON),
        (MSGPACK, None, MSGPACK),
        (JSON, MSGPACK, MSGPACK),
        (MSGPACK, JSON, JSON),
        (MSGPACK, "application/json, text/plain, */*", JSON),
        (JSON, "application/msgpack;q=0.1, application/json", MSGPACK),
        (JSON, "APPLICATION/MSGPACK", MSGPACK),
        (MSGPACK, "*/*", MSGPACK),
        (MSGPACK, "text/html, application/json", MSGPACK),
        (JSON + "; charset=utf-8", None, JSON),
    ],
)
def test_answer_has_the_type_that_accept_begins_with_or_that_of_the_request(client, sent, accept, expected):
    headers = {"Accept": accept} if accept else {}
    good = call(client, "/_/required", {"surveyUid": "a"}, kind=sent, **headers)
    assert (good.status_code, good.mimetype, decode(good)) == (200, expected, {"surveyUid": "a", "year": 2000})
    error_of(call(client, "/_/required", {}, kind=sent, **headers), 400, expected)


def test_members_that_the_client_adds_are_ignored(client):
    members = {"surveyUid": "a", "projectUid": "p", "localeUid": "de", "deep": {"x": [1]}}
    assert decode(call(client, "/_/required", members)) == {"surveyUid": "a", "year": 2000}


def test_null_stands_for_a_member_that_was_left_out(client):
    assert decode(call(client, "/_/required", {"surveyUid": "a", "year": None})) == {"surveyUid": "a", "year": 2000}
    assert "surveyUid" in error_of(call(client, "/_/required", {"surveyUid": None}), 400)


def test_zeros_behind_a_msgpack_object_are_ignored_and_nothing_else_is(client):
    body = msgpack.packb({"surveyUid": "a"})
    assert decode(call(client, "/_/required", body + bytes(1000), kind=MSGPACK))["surveyUid"] == "a"
    error_of(call(client, "/_/required", body + b"\0x", kind=MSGPACK), 400, MSGPACK)


def test_chunk_of_the_largest_size_may_be_followed_by_as_many_zeros(client):
    # The library that GBD WebSuite's client packs with doubles its buffer, and axios sends all of the buffer.
    members = {**fields(bytes(20_000), 20_000, 0), "content": bytes(20_000)}
    assert call(client, "/_/upload", msgpack.packb(members) + bytes(20_000), kind=MSGPACK).status_code == 200


ERRORS = {
    "unknown command": (404, "/_/nope", {}, {}),
    "unknown command in the body": (404, "/_", {"cmd": "nope"}, {}),
    "command that is no text": (404, "/_", {"cmd": ["required"]}, {}),
    "no command": (404, "/_", {}, {}),
    "longer path": (404, "/_/required/more", {}, {}),
    "GET": (405, "/_/required", {}, {"method": "GET"}),
    "PUT": (405, "/_/required", {}, {"method": "PUT"}),
    "DELETE": (405, "/_", {}, {"method": "DELETE"}),
    "member missing": (400, "/_/required", {}, {}),
    "member of a wrong type": (400, "/_/required", {"surveyUid": 5}, {}),
    "body too large": (413, "/_/required", {"surveyUid": "x" * 40_000}, {}),
    "chunk too large": (413, "/_/upload", {**fields(bytes(30_000), 30_000, 0), "content": "AAAA" * 10_000}, {}),
    "body far too large": (413, "/_/upload", b"x" * 1_000_000, {}),
    "gzip": (415, "/_/required", {}, {"Content_Encoding": "gzip"}),
    "malformed": (400, "/_/required", b"\xc1{", {}),
    "cut": (400, "/_/required", b'{"surveyUid": "', {}),
    "empty body": (400, "/_/required", b"", {}),
    "no object": (400, "/_/required", [1], {}),
    "nested too deep": (400, "/_/required", b"[" * 20_000, {}),
    "abort": (403, "/_/fails", {"text": "abort"}, {}),
    "abort with a response": (403, "/_/fails", {"text": "abort with a response"}, {}),
    "error of ours": (403, "/_/fails", {"text": "our error"}, {}),
    "error of ours with a pause": (429, "/_/fails", {"text": "our error with a pause"}, {}),
    "crash": (500, "/_/fails", {"text": "crash"}, {}),
    "no answer": (404, "/_/fails", {"text": "no answer"}, {}),
    "an answer that can't be sent": (500, "/_/fails", {"text": "an answer that can't be sent"}, {}),
    "an answer that is no object": (500, "/_/fails", {"text": "an answer that is no object"}, {}),
    "an error as a response": (409, "/_/fails", {"text": "an error as a response"}, {}),
    "a status without a name": (499, "/_/fails", {"text": "a status without a name"}, {}),
    "abort before the request": (403, "/_/required", {"surveyUid": "a"}, {"X_Before": "abort"}),
    "abort with a response before the request": (403, "/_/required", {}, {"X_Before": "abort with a response"}),
    "crash before the request": (500, "/_/required", {"surveyUid": "a"}, {"X_Before": "crash"}),
    "page of another site": (403, "/_/required", {"surveyUid": "a"}, {"Origin": "https://evil.example"}),
    "foreign upload": (404, "/_/upload", {**fields(b"abc", 3, 0, uid="0" * 32), "content": "YWJj"}, {}),
}


@pytest.mark.parametrize("kind", [JSON, MSGPACK])
@pytest.mark.parametrize("case", ERRORS)
def test_every_error_has_the_shape_that_the_client_tests(client, case, kind):
    status, path, members, options = ERRORS[case]
    if case == "chunk too large" and kind == MSGPACK:
        members = {**members, "content": bytes(30_000)}
    answer = call(client, path, members, kind=kind, **options)
    info = error_of(answer, status, kind)
    assert SECRET not in info
    assert "object object" not in info
    if status == 429:
        assert answer.headers["Retry-After"] == "60"


def test_content_type_that_is_not_understood_is_answered_in_json(client):
    assert "application/msgpack" in error_of(call(client, "/_/required", b"a=1", kind="text/plain"), 415)
    assert "multipart/form-data" in error_of(call(client, "/_/upload", b"a=1", kind="text/plain"), 415)


def test_flasks_own_limit_is_answered_in_the_same_shape(folder):
    client = make(UPLOAD_HELPER_FOLDER=folder, MAX_CONTENT_LENGTH=1000).test_client()
    members = {"surveyUid": "x" * 2000}
    error_of(call(client, "/_/required", members, kind=MSGPACK, X_Before="read"), 413, MSGPACK)


def test_errors_of_the_hosts_csrf_protection_have_the_shape_too(folder):
    app = make(UPLOAD_HELPER_FOLDER=folder, SECRET_KEY="x")
    csrf = CSRFProtect(app)
    client = app.test_client()
    assert "CSRF" in error_of(call(client, "/_/required", {"surveyUid": "a"}), 400)
    csrf.exempt(app.blueprints["survey"])
    assert call(client, "/_/required", {"surveyUid": "a"}).status_code == 200


def test_number_that_json_does_not_have_is_not_sent(client):
    # A client that can't parse the answer would take it for a text without an error in it.
    answer = call(client, "/_/fails", {"text": "not a number"})
    assert error_of(answer, 500) == "Internal Server Error"


def test_crash_is_in_the_log_and_not_in_the_answer(client, caplog):
    assert error_of(call(client, "/_/fails", {"text": "crash"}), 500) == "Internal Server Error"
    assert SECRET in caplog.text


def test_error_of_the_host_keeps_its_text(client):
    assert error_of(call(client, "/_/fails", {"text": "abort"}), 403) == "not for you"
    assert error_of(call(client, "/_/fails", {"text": "our error"}), 403).startswith("not for you")


# --- members of the host's request classes ---


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("text", "日本"), ("number", 2**60), ("number", -1), ("ratio", 1.5), ("ratio", 2), ("flag", True),
        ("names", []), ("names", ["a", "b"]), ("extra", {"a": [1, None]}),
        ("counts", {"a": 1}), ("maybe", None), ("maybe", 5),
        ("mode", "fast"), ("place", None), ("place", {"x": 1.0, "y": 2.0}), ("places", [{"x": 1.0, "y": 0.5}]),
        ("anything", {"x": [1, "a", None]}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", [JSON, MSGPACK])
def test_members_arrive_as_declared(client, name, value, kind):
    answer = call(client, "/_/echo", {name: value}, kind=kind)
    assert answer.status_code == 200, answer.text
    assert decode(answer)[name] == value


def test_bytes_are_base64_in_json_and_bin_in_msgpack(client):
    assert decode(call(client, "/_/echo", {"raw": "AP8="}))["raw"] == "AP8="
    assert decode(call(client, "/_/echo", {"raw": "AP8="}, Accept=MSGPACK))["raw"] == b"\0\xff"
    assert decode(call(client, "/_/echo", {"raw": b"\0\xff"}, kind=MSGPACK, Accept=JSON))["raw"] == "AP8="


def test_nested_record_gets_its_defaults(client):
    assert decode(call(client, "/_/echo", {"place": {"x": 1.5, "z": 3}}))["place"] == {"x": 1.5, "y": 0.5}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("text", 5), ("text", ["a"]), ("text", "\ud800"), ("number", "5"), ("number", 5.0), ("number", 5.5),
        ("number", True), ("ratio", "1.5"), ("ratio", True), ("flag", 1), ("flag", "yes"), ("raw", 5),
        ("raw", "not base64!"), ("names", "abc"), ("names", [1]), ("names", {"a": 1}), ("extra", []),
        ("counts", {"a": "1"}), ("counts", [["a", 1]]), ("maybe", "5"),
        ("mode", "careless"), ("place", {}), ("place", {"x": "far"}), ("place", 5), ("places", [{"x": 1}, {"y": 1}]),
    ],
)  # fmt: skip
def test_wrong_member_is_refused_and_named(client, name, value):
    assert error_of(call(client, "/_/echo", {name: value}), 400).startswith(name)


def test_every_wrong_member_is_named(client):
    info = error_of(call(client, "/_/echo", {"number": "x", "flag": [], "text": "fine"}), 400)
    assert "number" in info
    assert "flag" in info
    assert "text" not in info


# --- chunks ---


def chunk_in(encoding: str, values: dict[str, Any], content: bytes) -> dict[str, Any]:
    """Return what to post for one chunk in one of the four encodings."""
    if encoding == "json":
        return {"json": {**values, "content": base64.b64encode(content).decode()}}
    if encoding == "msgpack":
        return {"data": msgpack.packb({**values, "content": content}), "content_type": MSGPACK}
    texts = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in values.items()}
    if encoding == "multipart":
        return {"data": {**texts, "content": (io.BytesIO(content), "blob")}}
    return {"data": content, "query_string": texts, "content_type": "application/octet-stream"}


@pytest.mark.parametrize("encoding", ["json", "msgpack", "multipart", "raw"])
def test_chunks_come_to_an_action_in_every_encoding(app, client, encoding):
    uid = ""
    for number, content in enumerate(split(DATA, 4000)):
        values = fields(DATA, 4000, number, uid=uid, name="Straße.tif")
        answer = client.post("/_/upload", **chunk_in(encoding, values, content))
        assert answer.status_code == 200, answer.text
        uid = decode(answer)["uploadUid"]
    with app.app_context():
        found = uh.current_helper.get_upload(uid)
    assert (Path(found.path).read_bytes(), found.fileName) == (DATA, "Straße.tif")


@pytest.mark.parametrize("encoding", ["json", "msgpack", "multipart", "raw"])
def test_chunk_with_further_members_of_the_host(client, encoding):
    values = {**fields(DATA, 20_000, 0), "surveyUid": "s 1", "year": 1999, "draft": True}
    answer = client.post("/_/surveyChunk", **chunk_in(encoding, values, DATA))
    assert answer.status_code == 200, answer.text
    assert decode(answer).items() >= {"survey": "s 1", "year": 1999, "draft": True}.items()
    bad = client.post("/_/surveyChunk", **chunk_in(encoding, {**values, "year": "soon"}, DATA))
    assert "year" in error_of(bad, 400, bad.mimetype)


@pytest.mark.parametrize("encoding", ["json", "msgpack", "raw", "multipart"])
def test_chunk_goes_on_where_the_command_is_named_beside_it(client, encoding):
    request = chunk_in(encoding, {**fields(DATA, 20_000, 0), "cmd": "upload"}, DATA)
    if encoding == "multipart":
        request["query_string"] = {"cmd": "upload"}
    answer = client.post("/_", **request)
    assert answer.status_code == 200, answer.text


# --- declarations ---


@dataclasses.dataclass
class Unfit:
    when: object


@dataclasses.dataclass
class UnfitInside:
    inner: Unfit


class NotDecorated(uh.ChunkRequest):
    surveyUid: str = ""  # noqa: N815


class Ordinary:
    text: str


def takes_one(p: Everything) -> None: ...
def takes_three(req: object, p: Everything, more: int) -> None: ...
def not_annotated(req, p) -> None: ...
def annotated_with_dict(req: object, p: dict) -> None: ...
def annotated_with_a_union(req: object, p: Everything | None) -> None: ...
def annotated_with_a_class(req: object, p: Ordinary) -> None: ...
def class_not_decorated(req: object, p: NotDecorated) -> None: ...
def unfit_member(req: object, p: Unfit) -> None: ...
def unfit_member_inside(req: object, p: UnfitInside) -> None: ...


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (takes_one, "takes_one must take"), (takes_three, "takes_three must take"),
        (not_annotated, "not_annotated must take"), (annotated_with_dict, "dataclass"),
        (annotated_with_a_union, "annotated_with_a_union must take"), (annotated_with_a_class, "dataclass"),
        (class_not_decorated, "NotDecorated"), (unfit_member, "when"), (unfit_member_inside, "when"),
    ],
)  # fmt: skip
def test_wrong_declaration_fails_at_once_and_says_why(function, says):
    with pytest.raises(TypeError, match=says):
        uh.Actions("a", __name__).api("command")(function)


def test_command_is_declared_once():
    with pytest.raises(ValueError, match="'echo' is declared already"):
        declare().api("echo")(unfit_member)


def test_declared_function_stays_an_ordinary_one():
    actions = uh.Actions("a", __name__)

    @actions.api("double")
    def double(req: object, p: Required) -> dict[str, int]:
        return {"year": 2 * p.year}

    assert double(None, Required("a", 5)) == {"year": 10}


def test_prefix_is_the_hosts_choice(folder):
    app = Flask("prefix")
    app.config["UPLOAD_HELPER_FOLDER"] = folder
    uh.UploadHelper(app)
    actions = uh.Actions("api", __name__, url_prefix="/api/v1")
    actions.api("required")(lambda_free)
    app.register_blueprint(actions)
    client = app.test_client()
    assert decode(call(client, "/api/v1/required", {"surveyUid": "a"}))["surveyUid"] == "a"
    error_of(call(client, "/api/v1/nope"), 404)
    assert call(client, "/_/required", {"surveyUid": "a"}).mimetype == "text/html"


def lambda_free(req: object, p: Required) -> Required:
    return p


def test_application_without_a_helper_is_told_so(caplog):
    app = Flask("without")
    app.register_blueprint(declare())
    error_of(call(app.test_client(), "/_/required", {"surveyUid": "a"}), 500)
    assert "Call UploadHelper(app)" in caplog.text


# --- the client of GBD WebSuite, with its libraries, against gunicorn ---


def served() -> Flask:
    """Return the application of this module for gunicorn."""
    return make(**json.loads(os.environ["HOST_CONFIG"]), chunk_size=CHUNK_SIZE)


@pytest.fixture(scope="module")
def gbd(tmp_path_factory):
    """Return a function that lets the client do one job with a real server."""
    folder = tmp_path_factory.mktemp("gbd")
    (folder / "file").write_bytes(random.Random(4).randbytes(9_500_000))
    (folder / "empty").write_bytes(b"")

    def run(**job: object) -> Any:
        job = {"base": f"{server.origin}/_", "projectUid": "project", "localeUid": "de", **job}
        command = ["node", str(NODE / "gbd.mjs")]
        done = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, timeout=60, check=True)
        return json.loads(done.stdout)

    run.folder = folder
    with Gunicorn(folder / "uploads", app="test_actions:served()") as server:
        server.pids()
        run.port = server.port
        yield run


def upload_job(folder: Path, name: str, chunk_size: int = 4_000_000) -> dict[str, object]:
    return {"do": "upload", "file": str(folder / name), "name": "Straße 日本.tif", "chunkSize": chunk_size,
            "command": "upload", "importWith": "import"}  # fmt: skip


def test_gbd_client_uploads_a_file_and_imports_it(gbd):
    result = gbd(**upload_job(gbd.folder, "file"))
    assert result["sent"] == 3, result
    digest = hashlib.sha256((gbd.folder / "file").read_bytes()).hexdigest()
    assert result["imported"] == {"fileName": "Straße 日本.tif", "totalSize": 9_500_000, "sha256": digest}


def test_gbd_client_sends_nothing_for_an_empty_file(gbd):
    assert gbd(**upload_job(gbd.folder, "empty")) == {"sent": 0, "uploadUid": ""}
    assert gbd(do="call", command="import", request={"uploadUid": ""})["answer"]["error"]["code"] == 404


def test_gbd_client_stops_at_a_chunk_that_is_too_large(gbd):
    result = gbd(**upload_job(gbd.folder, "file", chunk_size=9_000_000))
    assert (result["sent"], result["failed"]["status"]) == (0, 413)


@pytest.mark.parametrize("options", [{}, {"binaryRequest": True}], ids=["json", "msgpack"])
@pytest.mark.parametrize(
    ("status", "command", "request_"),
    [
        (404, "nope", {}),
        (404, "import", {"uploadUid": "0" * 32}),
        (403, "fails", {"text": "abort"}),
        (403, "fails", {"text": "our error"}),
        (400, "import", {}),
        (413, "import", {"uploadUid": "x" * 5_000_000}),
        (500, "fails", {"text": "crash"}),
    ],
)
def test_gbd_client_sees_an_error_as_one(gbd, status, command, request_, options):
    result = gbd(do="call", command=command, request=request_, options=options)
    assert result["type"] == "object"
    assert result["answer"]["status"] == status
    assert result["answer"]["error"]["code"] == status


@pytest.mark.parametrize("expect", ["", "Expect: 100-continue\r\n"])
@pytest.mark.parametrize("command", ["forbiddenUpload", "nope"])
def test_refusal_reaches_a_client_that_sends_all_of_a_big_chunk_first(gbd, command, expect):
    # A server that closes with bytes unread resets the connection, and the answer is lost (RFC 9112, section 9.6).
    # gunicorn says "100 Continue" before the application is called, so what follows is on its way in any case.
    target = f"/_/{command}?{urlencode(fields(bytes(CHUNK_SIZE), CHUNK_SIZE, 0))}"
    head = f"POST {target} HTTP/1.1\r\nHost: a\r\nContent-Type: application/octet-stream\r\n"
    with socket.create_connection(("127.0.0.1", gbd.port), timeout=30) as connection:
        connection.sendall(f"{head}{expect}Content-Length: {CHUNK_SIZE}\r\n\r\n".encode())
        if expect:
            assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(bytes(CHUNK_SIZE))
        assert connection.recv(1000).startswith(b"HTTP/1.1 40")
