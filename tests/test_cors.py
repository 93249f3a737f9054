"""Pages of other sites: which may read the answers, and that a browser agrees."""

from __future__ import annotations

import http.server
import json
import random
import threading
from typing import Any

import pytest
from flask import Flask, Request, Response, abort, after_this_request

import upload_helper as uh
from chromium import PATIENCE, launch
from chunks import RAW, fields, send, upload
from hostile import refusal
from upload_helper.views import cors

DATA = random.Random(8).randbytes(1000)
MAPS = "https://maps.example.org"
OTHERS = [
    "https://evil.example", "http://maps.example.org", "https://maps.example.org:8443", "https://maps.example.org.evil.example",
    "https://evil.maps.example.org", "https://maps.example.org/", "https://maps.example.org https://evil.example", "null", "*", "",
    "HTTPS://MAPS.EXAMPLE.ORG",
]  # fmt: skip
PREFLIGHT = {"Origin": MAPS, "Access-Control-Request-Method": "PATCH"}


@pytest.fixture
def site(make_host):
    return make_host(cors_origins=[MAPS, "http://localhost:3000"])


@pytest.fixture
def client(site):
    return site.test_client()


def about_origins(answer: Any) -> dict[str, str]:
    """Return the CORS headers of an answer; fail if one is there twice."""
    found = [(name, value) for name, value in answer.headers if name.startswith("Access-Control-")]
    assert len(found) == len(dict(found)), found
    return dict(found)


def listed(value: str) -> set[str]:
    return {name.strip().lower() for name in value.split(",")}


# --- preflights ---

# Method and headers, as browsers ask on behalf of a client of each protocol.
ASKED = [
    ("GET", "range,if-range"), ("HEAD", "tus-resumable"), ("DELETE", "x-requested-with"), ("PUT", "content-type"),
    ("POST", "content-type,x-upload-helper"), ("POST", "authorization,content-type,x-csrftoken"), ("POST", "x-csrf-token"),
    ("POST", "cache-control,x-requested-with"), ("POST", "x-file-name,x-mime-type"), ("POST", "content-range"),
    ("POST", "tus-resumable,upload-length,upload-metadata,upload-concat,content-type,x-request-id"),
    ("POST", "tus-resumable,upload-defer-length,x-http-method-override"),
    ("PATCH", "tus-resumable,upload-offset,upload-checksum,content-type,x-request-id"),
    ("POST", "upload-complete,upload-draft-interop-version,upload-length,content-disposition,repr-digest,content-digest"),
    ("POST", "upload-incomplete,upload-draft-interop-version,want-repr-digest,want-content-digest"),
    ("PATCH", "upload-complete,upload-offset,content-type"), ("PATCH", "upload-offset,upload-length,upload-name"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "headers"), ASKED, ids=str)
@pytest.mark.parametrize("path", ["/uploads", "/uploads/", f"/uploads/{'0' * 32}", f"/uploads/{'0' * 32}/status"])
def test_preflight_allows_what_clients_send(client, path, method, headers):
    asked = {"Origin": MAPS, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    answer = client.options(path, headers=asked)
    assert (answer.status_code, answer.data) == (204, b"")
    found = about_origins(answer)
    assert found["Access-Control-Allow-Origin"] == MAPS
    assert found["Access-Control-Allow-Credentials"] == "true"
    assert method.lower() in listed(found["Access-Control-Allow-Methods"])
    assert listed(headers) <= {name.lower() for name in cors.REQUEST_HEADERS}
    assert listed(headers) <= listed(found["Access-Control-Allow-Headers"])
    assert 60 <= int(found["Access-Control-Max-Age"]) <= 86400
    assert "Origin" in answer.vary


def test_preflight_allows_the_hosts_own_headers_and_repeats_no_nonsense(client):
    odd = ["x-tenant", "a b", "a;b", "x" * 65, "\xe4", "", "RANGE", *(f"x-{number}" for number in range(100))]
    answer = client.options("/uploads", headers={**PREFLIGHT, "Access-Control-Request-Headers": ", ".join(odd)})
    allowed = answer.headers["Access-Control-Allow-Headers"].split(", ")
    assert len(allowed) == len({name.lower() for name in allowed}) < len(cors.REQUEST_HEADERS) + 65
    assert set(allowed) - set(cors.REQUEST_HEADERS) == {"x-tenant", *(f"x-{number}" for number in range(57))}


def test_preflight_passes_where_everything_else_is_refused(refusing_app):
    client = refusing_app.test_client()
    assert client.options("/uploads", headers=PREFLIGHT).status_code == 204
    refused = client.post(
        "/uploads", query_string=fields(DATA, 300, 0), data=DATA[:300], headers={**RAW, "Origin": MAPS}
    )
    refusal(refused, 403, "forbidden")
    assert about_origins(refused)["Access-Control-Allow-Origin"] == MAPS


@pytest.fixture
def refusing_app(folder):
    """Return a host that knows no user from a preflight, and whose helper was not told who may do what."""

    def who() -> str:
        abort(401)

    app = Flask("host")
    app.config.update(UPLOAD_HELPER_FOLDER=folder, UPLOAD_HELPER_CORS_ORIGINS=[MAPS])
    app.register_blueprint(uh.UploadHelper(app, identify=who).blueprint(), url_prefix="/uploads")
    return app


@pytest.mark.parametrize("origin", OTHERS, ids=str)
def test_preflight_of_an_origin_that_is_not_listed_allows_nothing(client, origin):
    answer = client.options("/uploads", headers={**PREFLIGHT, "Origin": origin})
    assert about_origins(answer) == {}
    assert "Origin" in answer.vary


def test_options_without_a_method_to_ask_for_is_no_preflight(client):
    answer = client.options("/uploads", headers={"Origin": MAPS})
    assert "Access-Control-Allow-Methods" not in answer.headers
    assert answer.headers["Access-Control-Allow-Origin"] == MAPS
    assert "POST" in answer.headers["Allow"]


# --- answers ---


def answers(client: Any, origin: str | None) -> dict[str, Any]:
    """Return an answer of each kind, good and bad, to a page of an origin."""
    headers = {} if origin is None else {"Origin": origin}
    uid = upload(client, DATA, 300)
    open_uid = send(client, DATA, 300, 0).json["uploadUid"]
    kept = {
        "chunk": send(client, DATA, 1000, 0, headers=headers),
        "no chunk": client.post("/uploads", data=b"x", headers={**RAW, **headers}),
        "wrong type": client.post("/uploads", data=b"x", headers={"Content-Type": "x/y", **headers}),
        "too large": send(client, DATA, 1000, 0, headers=headers, chunkCount=10**9),
        "list": client.get("/uploads", headers={"X-User": "ann", **headers}),
        "status": client.get(f"/uploads/{uid}/status", headers=headers),
        "file": client.get(f"/uploads/{uid}", headers=headers),
        "part": client.get(f"/uploads/{uid}", headers={"Range": "bytes=0-5", **headers}),
        "no part": client.get(f"/uploads/{uid}", headers={"Range": "bytes=5000-", **headers}),
        "unchanged": client.get(f"/uploads/{uid}", headers={"If-None-Match": f'"{uid}"', **headers}),
        "changed": client.get(f"/uploads/{uid}", headers={"If-Match": '"other"', **headers}),
        "head": client.head(f"/uploads/{uid}", headers=headers),
        "incomplete": client.get(f"/uploads/{open_uid}", headers=headers),
        "unknown": client.get("/uploads/x", headers=headers),
        "not allowed": client.get(f"/uploads/{uid}", headers={"X-Role": "none", **headers}),
        "no method": client.put(f"/uploads/{uid}", headers=headers),
        "deleted": client.delete(f"/uploads/{uid}", headers=headers),
    }
    for answer in kept.values():
        answer.get_data()
        answer.close()
    return kept


STATUSES = {
    "chunk": 200, "no chunk": 400, "wrong type": 415, "too large": 400, "list": 200, "status": 200, "file": 200, "part": 206,
    "no part": 416, "unchanged": 304, "changed": 412, "head": 200, "incomplete": 409, "unknown": 404, "not allowed": 403,
    "no method": 405, "deleted": 204,
}  # fmt: skip


def test_every_answer_lets_pages_of_a_listed_origin_read_it_and_all_of_its_headers(client):
    found = answers(client, MAPS)
    assert {name: answer.status_code for name, answer in found.items()} == STATUSES
    always = {"content-type", "content-length", "cache-control", "vary", "last-modified", "expires", "content-language"}
    for name, answer in found.items():
        about = about_origins(answer)
        assert about.pop("Access-Control-Allow-Origin") == MAPS, name
        assert about.pop("Access-Control-Allow-Credentials") == "true", name
        exposed = listed(about.pop("Access-Control-Expose-Headers"))
        assert "*" not in exposed
        # Those of security are for the browser.
        ours = {header.lower() for header, _ in answer.headers} - {"x-content-type-options", "content-security-policy"}
        assert {header for header in ours if not header.startswith("access-control-")} <= exposed | always, name
        assert about == {}
        assert "Origin" in answer.vary


EXPOSED = [
    "Location", "Upload-Offset", "Upload-Length", "Upload-Defer-Length", "Upload-Metadata", "Upload-Concat", "Upload-Expires",
    "Upload-Complete", "Upload-Limit", "Upload-Draft-Interop-Version", "Tus-Resumable", "Tus-Version", "Tus-Extension",
    "Tus-Max-Size", "Tus-Checksum-Algorithm", "ETag", "Content-Range", "Accept-Ranges", "Content-Disposition", "Retry-After",
    "Repr-Digest", "Content-Digest", "Allow",
]  # fmt: skip


def test_pages_may_read_every_header_of_every_protocol(client):
    exposed = client.get("/uploads/x", headers={"Origin": MAPS}).headers["Access-Control-Expose-Headers"]
    assert listed(", ".join(EXPOSED)) <= listed(exposed)


@pytest.mark.parametrize("origin", [*OTHERS, None], ids=str)
def test_answers_say_nothing_to_an_origin_that_is_not_listed_but_that_they_depend_on_it(client, origin):
    for path in ("/uploads/x", "/uploads", f"/uploads/{'0' * 32}/status"):
        answer = client.get(path, headers={} if origin is None else {"Origin": origin})
        assert about_origins(answer) == {}
        assert "Origin" in answer.vary


def test_without_the_setting_there_is_not_a_trace_of_it(make_host):
    client = make_host(trusted_origins=[MAPS]).test_client()
    for answer in (*answers(client, MAPS).values(), client.options("/uploads", headers=PREFLIGHT)):
        assert about_origins(answer) == {}
        assert "Origin" not in answer.vary


def test_listed_origin_is_trusted_as_well(client):
    across = {"Origin": MAPS, "Sec-Fetch-Site": "cross-site"}
    assert send(client, DATA, 300, 0, headers=across).status_code == 200
    refusal(send(client, DATA, 300, 0, headers={**across, "Origin": "https://evil.example"}), 403, "forbidden")


def test_what_the_answer_varied_on_before_stays(site):
    @site.before_request
    def mark() -> None:
        after_this_request(lambda answer: answer.vary.add("Cookie") or answer)

    answer = site.test_client().get("/uploads/x", headers={"Origin": MAPS})
    assert {"cookie", "origin"} <= {name.lower() for name in answer.vary}


def test_failure_of_the_host_can_be_read_too(site):
    site.testing = False
    site.config["PROPAGATE_EXCEPTIONS"] = False
    state = site.extensions["upload_helper"]
    object.__setattr__(state, "identify", lambda: 1 / 0)
    answer = site.test_client().get("/uploads", headers={"Origin": MAPS})
    assert answer.status_code == 500
    assert about_origins(answer)["Access-Control-Allow-Origin"] == MAPS


def test_headers_that_a_view_or_an_extension_has_set_are_not_doubled(site):
    answer = Response(
        headers={"Access-Control-Allow-Origin": MAPS, "Access-Control-Allow-Credentials": "true", "Vary": "Origin"}
    )
    asked = Request({"REQUEST_METHOD": "GET", "HTTP_ORIGIN": MAPS})
    config = site.extensions["upload_helper"].config
    twice = cors.add_headers(asked, cors.add_headers(asked, answer, config), config)
    assert len(about_origins(twice)) == 3
    assert twice.headers.getlist("Vary") == ["Origin"]


# --- a browser ---

PAGE = b"<!doctype html><title>A page of another site</title>"
# Creates an upload of two chunks, asks how far it is, and gets a part of it: a simple request and others.
SCRIPT = """
async ([url, query]) => {
    const found = {};
    const ask = async (path, options) => {
        const answer = await fetch(url + path, {credentials: "include", ...options});
        return [answer.status, answer.headers, await answer.text()];
    };
    try {
        const headers = {"Content-Type": "application/octet-stream", "X-User": "ann"};
        let uid = "";
        for (const chunkNumber of [0, 1]) {
            const fields = new URLSearchParams({...query, chunkNumber, uploadUid: uid});
            const [status, , text] = await ask("?" + fields, {method: "POST", headers, body: "abc"});
            found.chunk = status;
            uid = JSON.parse(text).uploadUid;
        }
        const [status, head, text] = await ask("/" + uid, {headers: {"X-User": "ann", Range: "bytes=1-4"}});
        found.part = [status, text, head.get("Content-Range"), head.get("ETag"), head.get("Content-Disposition")];
        found.error = (await ask("/x", {method: "DELETE", headers: {"X-User": "ann"}}))[0];
        found.uid = uid;
    } catch (error) {
        found.failed = error.name;
    }
    return found;
}
"""


class Pages(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def another_site():
    """Return the port of a site that serves an empty page."""
    with http.server.HTTPServer(("127.0.0.1", 0), Pages) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_browser_uploads_from_a_page_of_a_listed_origin_and_of_no_other(gunicorn, another_site):
    listed_one, other = f"http://localhost:{another_site}", f"http://127.0.0.1:{another_site}"
    server = gunicorn(workers=1, UPLOAD_HELPER_CORS_ORIGINS=[listed_one])
    query = {"fileName": "a.bin", "totalSize": 6, "chunkCount": 2}
    with launch() as browser:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(listed_one)
        found = page.evaluate(SCRIPT, [server.url, query])
        page.goto(other)
        refused = page.evaluate(SCRIPT, [server.url, query])
    uid = found.pop("uid", "")
    assert found == {
        "chunk": 200,
        "part": [206, "bcab", "bytes 1-4/6", f'"{uid}"', "attachment; filename=a.bin"],
        "error": 404,
    }, json.dumps(found)
    assert refused == {"failed": "TypeError"}
