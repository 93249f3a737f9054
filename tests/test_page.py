"""What browsers get from the server: pages, answers to plain forms, lists, and errors in words."""

from __future__ import annotations

import io
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Blueprint, Flask, abort, render_template_string, request
from flask_wtf.csrf import CSRFProtect
from playwright.sync_api import Page, Route, expect

import upload_helper as uh
from chromium import PATIENCE
from chunks import send, upload
from servers import PLUGIN, Gunicorn, wait_until
from upload_helper.views.words import Words, table
from visitors import CHUNKS, MARKUP, Wire, button, chunk_number, download, make_file, pick, uploads, visit

expect.set_options(timeout=PATIENCE)
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "X-User": "ann"}
FORBIDDEN = {**BROWSER, "X-Role": "none"}
NOBODY = {"Accept": BROWSER["Accept"]}
DATA = bytes(range(100))
MISSING = "0" * 32


def form_of(*names: str, field: str = "file", **fields: str) -> dict[str, Any]:
    files = [(io.BytesIO(f"content of {name}".encode()), name) for name in names]
    return {"data": {**fields, field: files}, "content_type": "multipart/form-data"}


def text(answer: Any) -> str:
    """Return the words of a page, as a person reads them."""
    assert answer.mimetype == "text/html"
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", answer.text.partition("<body")[2]))


# --- the page ---


def test_page_has_the_widget_and_the_uploads_of_who_reads_it(client):
    upload(client, DATA, 30, name="mine.tif", headers=BROWSER)
    send(client, DATA, 40, 0, name="half.tif", headers=BROWSER)
    upload(client, DATA, 30, name="hers.tif", headers={"X-User": "berta"})
    page = client.get("/uploads", headers=BROWSER)
    assert '<upload-helper endpoint="/uploads"' in page.text
    assert "half.tif 40 bytes of 100 bytes have arrived. To go on, choose the same file again in the browser" in text(
        page
    )
    assert "mine.tif Complete, 100 bytes Kept until 20" in text(page)
    assert text(page).index("half.tif") < text(page).index("mine.tif")
    assert "hers.tif" not in page.text
    assert (page.headers["Cache-Control"], page.headers["Vary"]) == ("no-store", "Accept")


def test_page_of_nobody_in_particular_has_no_list(client):
    page = client.get("/uploads", headers=NOBODY)
    assert page.status_code == 200
    assert "<upload-helper " in page.text
    assert "<upload-helper-list" not in page.text


@pytest.mark.parametrize(
    "accept", [None, "*/*", "application/json", "application/json, text/html;q=0.9", "application/msgpack", ""]
)
def test_programs_get_no_page(client, accept):
    headers = {"X-User": "ann", **({} if accept is None else {"Accept": accept})}
    assert client.get("/uploads", headers=headers).mimetype in ("application/json", "application/msgpack")
    assert client.get(f"/uploads/{MISSING}", headers=headers).mimetype in ("application/json", "application/msgpack")
    answer = client.post("/uploads", headers=headers, **form_of("a.tif"))
    assert answer.mimetype in ("application/json", "application/msgpack")


def test_question_for_an_upload_is_never_answered_by_a_page(client):
    send(client, DATA, 40, 0, headers=BROWSER, identifier="i")
    query = {"identifier": "i", "fileName": "file.bin", "totalSize": 100, "chunkCount": 3}
    assert client.get("/uploads", query_string=query, headers=BROWSER).json["receivedBytes"] == 40


@pytest.mark.parametrize(
    "headers", [{"Tus-Resumable": "1.0.0"}, {"Upload-Draft-Interop-Version": "8"}, {"Upload-Complete": "?1"}]
)
def test_other_protocols_never_get_a_page(client, headers):
    answer = client.patch(f"/uploads/{MISSING}", headers={**BROWSER, **headers, "Upload-Offset": "0"})
    assert answer.status_code >= 400
    assert answer.mimetype != "text/html"


def make_app(folder: Path, tmp_path: Path, templates: dict[str, str], **settings: object) -> Flask:
    for name, content in templates.items():
        path = tmp_path / "templates" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    app = Flask("other", root_path=str(tmp_path))
    app.config.update(
        SECRET_KEY="x", TESTING=True, UPLOAD_HELPER_FOLDER=folder, UPLOAD_HELPER_MIN_FREE_SPACE=0, **settings
    )
    return app


BASE = "<body>the host's{% block content %}{% endblock %}</body>"


def test_page_extends_the_base_of_the_host(folder, tmp_path):
    app = make_app(folder, tmp_path, {"base.html": BASE}, UPLOAD_HELPER_BASE_TEMPLATE="base.html")
    helper = uh.UploadHelper(app, authorize=lambda access: True)
    app.register_blueprint(helper.blueprint())
    page = app.test_client().get("/uploads", headers=BROWSER)
    assert page.text.startswith("<body>the host's")
    assert "<upload-helper " in page.text
    assert "the host's" in app.test_client().get(f"/uploads/{MISSING}", headers=BROWSER).text


@pytest.mark.parametrize("name", ["page", "plain", "base"])
def test_host_overrides_a_template(folder, tmp_path, name):
    app = make_app(folder, tmp_path, {f"upload_helper/{name}.html": "my own"})
    helper = uh.UploadHelper(app, authorize=lambda access: True)
    app.register_blueprint(helper.blueprint())
    path = f"/uploads/{MISSING}" if name == "plain" else "/uploads"
    assert app.test_client().get(path, headers=BROWSER).text == "my own"


def test_several_blueprints_each_have_their_page(folder, tmp_path):
    app = make_app(folder, tmp_path, {})
    helper = uh.UploadHelper(app, authorize=lambda access: True)
    outer = Blueprint("outer", __name__)
    outer.register_blueprint(helper.blueprint("inner"), url_prefix="/inner")
    app.register_blueprint(outer, url_prefix="/outer")
    app.register_blueprint(helper.blueprint("second"), url_prefix="/second")

    @app.get("/host")
    def page() -> str:
        template = "{% from 'upload_helper/widget.html' import upload_widget %}{{ upload_widget(blueprint=request.args.get('b', '')) }}"
        return render_template_string(template)

    client = app.test_client()
    for path, endpoint in (
        ("/outer/inner", "/outer/inner"), ("/second", "/second"), ("/host", "/outer/inner"), ("/host?b=second", "/second"),
    ):  # fmt: skip
        assert f'<upload-helper endpoint="{endpoint}"' in client.get(path, headers=BROWSER).text


@pytest.mark.parametrize("path", ["/uploads", "/own"])
def test_names_are_text_also_where_the_host_does_not_escape(folder, tmp_path, path):
    app = make_app(folder, tmp_path, {})
    app.jinja_options = {"autoescape": False}
    helper = uh.UploadHelper(app, authorize=lambda access: True, identify=lambda: "ann")
    app.register_blueprint(helper.blueprint())
    app.register_blueprint(helper.blueprint("second"), url_prefix="/second")
    source = "{% from 'upload_helper/uploads.html' import upload_list %}{{ upload_list() }}{{ '<b>' }}"
    app.add_url_rule("/own", view_func=lambda: render_template_string(source))
    client = app.test_client()
    client.post("/uploads", headers=BROWSER, **form_of("<img src=x>.tif"))
    page = client.get(path, headers=BROWSER).text
    assert "&lt;img src=x&gt;" in page
    assert "<img" not in page
    # What is the host's stays as the host has it.
    assert ("<b>" in page) == (path == "/own")


def test_page_is_shown_in_no_frame_of_another_site(client):
    assert client.get("/uploads", headers=BROWSER).headers["X-Frame-Options"] == "SAMEORIGIN"
    assert client.post("/uploads", headers=BROWSER, **form_of("a")).headers["X-Frame-Options"] == "SAMEORIGIN"


def test_error_is_told_without_a_page_where_the_templates_of_the_host_fail(folder, tmp_path):
    app = make_app(folder, tmp_path, {"base.html": "{{ 1 // 0 }}"}, UPLOAD_HELPER_BASE_TEMPLATE="base.html")
    app.config.update(PROPAGATE_EXCEPTIONS=False)
    helper = uh.UploadHelper(app, authorize=lambda access: True)
    app.register_blueprint(helper.blueprint())
    client = app.test_client()
    answer = client.get(f"/uploads/{MISSING}", headers=BROWSER)
    assert (answer.status_code, answer.json["code"]) == (404, "not_found")
    answer = client.get("/uploads", headers=BROWSER)
    assert (answer.status_code, answer.json["code"]) == (500, "internal_server_error")


def test_error_of_the_host_may_have_a_text_that_is_not_yet_translated(folder, tmp_path):
    class Lazy:
        def __str__(self) -> str:
            return "Nicht hier"

    app = make_app(folder, tmp_path, {})
    helper = uh.UploadHelper(app, authorize=lambda access: abort(403, Lazy()))
    app.register_blueprint(helper.blueprint())
    answer = app.test_client().get(f"/uploads/{MISSING}/status")
    assert answer.status_code == 404
    answer = app.test_client().get("/uploads")
    assert (answer.status_code, answer.json["error"]) == (403, "Nicht hier")


# --- plain forms ---


def test_plain_form_is_answered_by_a_page(client):
    answer = client.post("/uploads", headers=BROWSER, **form_of(MARKUP, "two.tif"))
    assert answer.status_code == 200
    assert MARKUP not in answer.text
    assert "two.tif 18 bytes" in text(answer)
    assert re.findall(r'data-uid="(\w+)"', answer.text) == [
        status["uploadUid"] for name in (MARKUP, "two.tif")
        for status in client.get("/uploads", headers={"X-User": "ann"}).json["uploads"] if status["fileName"] == name
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("headers", "names", "status", "words"),
    [
        (BROWSER, ["a.exe"], 415, "Files of this type are not taken. Choose a file of an allowed type."),
        (FORBIDDEN, ["a.tif"], 403, "You may not upload this. Sign in again, or ask for permission."),
        (BROWSER, [], 400, "The form has no file. Send the file as a part with a file name."),
    ],
)
def test_plain_form_that_is_refused_is_told_in_words(make_host, headers, names, status, words):
    client = make_host(allowed_extensions=["tif"]).test_client()
    answer = client.post("/uploads", headers=headers, **form_of(*names, other="x"))
    assert answer.status_code == status
    assert words in text(answer)
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("referrer", "back"),
    [
        ("http://localhost/survey?year=2026#top", "/survey?year=2026"),
        ("http://localhost//evil.example/", "/evil.example/"),
        ("https://evil.example/survey", "/uploads"),
        ("http://localhost:81/", "/uploads"),
        ("javascript://localhost/%0aalert(1)", "/uploads"),
        ("http://[", "/uploads"),
        ("", "/uploads"),
    ],
)
def test_way_back_is_on_this_site(client, referrer, back):
    answer = client.get(f"/uploads/{MISSING}", headers={**BROWSER, "Referer": referrer})
    assert re.findall(r'<a [^>]*href="([^"]*)"', answer.text) == [back]


# --- the list ---


def test_upload_is_deleted_by_a_plain_form(client):
    uid = upload(client, DATA, 30, headers=BROWSER)
    answer = client.post(f"/uploads/{uid}/delete", headers={**BROWSER, "Referer": "http://localhost/list"})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/list")
    assert client.get("/uploads", headers={"X-User": "ann"}).json == {"uploads": []}


def test_upload_is_deleted_by_a_program_that_can_only_post(client):
    uid = upload(client, DATA, 30, headers={"X-User": "ann"})
    assert client.post(f"/uploads/{uid}/delete", headers={"X-User": "ann"}).status_code == 204


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({**BROWSER, "Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, 403),
        ({**BROWSER, "Origin": "https://evil.example"}, 403),
        (FORBIDDEN, 403),
        ({**BROWSER, "X-User": "berta"}, 404),
    ],
)
def test_upload_is_not_deleted_by_whom_it_is_not(client, headers, status):
    uid = upload(client, DATA, 30, headers=BROWSER)
    assert client.post(f"/uploads/{uid}/delete", headers=headers).status_code == status
    with client.get(f"/uploads/{uid}", headers=BROWSER) as kept:
        assert kept.data == DATA


def test_upload_is_not_deleted_by_a_link(client):
    uid = upload(client, DATA, 30, headers=BROWSER)
    assert client.get(f"/uploads/{uid}/delete", headers=BROWSER).status_code == 405


# --- what a form of the host gets ---


@pytest.fixture
def claiming(folder, tmp_path):
    """Return a client of a host whose form takes uploads."""
    app = make_app(folder, tmp_path, {}, UPLOAD_HELPER_MAX_FILE_SIZE=1000)
    helper = uh.UploadHelper(app, authorize=lambda access: False, identify=lambda: request.headers.get("X-User"))

    @app.post("/form")
    def form() -> object:
        if "peek" in request.args:
            request.files["survey"].read(2)
        return [[u.uploadUid, u.fileName, u.totalSize, Path(u.path).read_text()] for u in helper.claim("survey")]

    @app.post("/chunk")
    def chunk() -> object:
        return vars(helper.handle_chunk_request(request))

    return app.test_client()


ANN = {"X-User": "ann"}


def test_uploads_and_files_are_claimed(claiming):
    uids = [upload(claiming, name.encode(), 3, name=name, url="/chunk", headers=ANN) for name in ("one", "two")]
    answer = claiming.post("/form", headers=ANN, data={
        "survey": [*uids, uids[0], "", (io.BytesIO(b"three"), "../three"), (io.BytesIO(b""), "")], "other": "x",
    })  # fmt: skip
    assert [row[1:] for row in answer.json] == [["one", 3, "one"], ["two", 3, "two"], ["three", 5, "three"]]
    assert [row[0] for row in answer.json[:2]] == uids


def test_file_that_the_host_has_looked_into_is_claimed_whole(claiming):
    answer = claiming.post("/form?peek=1", headers=ANN, data={"survey": (io.BytesIO(b"three"), "three")})
    assert [row[1:] for row in answer.json] == [["three", 5, "three"]]


def test_form_without_uploads_claims_none(claiming):
    assert claiming.post("/form", headers=ANN, data={"survey": ""}).json == []
    assert claiming.post("/form", headers=ANN).json == []


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (MISSING, 404), ("../etc/passwd", 404), ("hers", 404), ("half", 409),
        ((io.BytesIO(b"x" * 1001), "large"), 413),
    ],
)  # fmt: skip
def test_what_can_not_be_claimed(claiming, value, status):
    if value == "hers":
        value = upload(claiming, DATA, 30, url="/chunk", headers={"X-User": "berta"})
    if value == "half":
        value = send(claiming, DATA, 30, 0, url="/chunk", headers=ANN).json["uploadUid"]
    answer = claiming.post("/form", headers=ANN, data={"survey": value})
    assert (answer.status_code, sorted(answer.json)) == (status, ["code", "error", "remedy"])


def test_error_in_a_view_of_the_host_is_a_page_to_a_browser(folder, tmp_path):
    app = make_app(folder, tmp_path, {})
    helper = uh.UploadHelper(app, authorize=lambda access: True)
    app.add_url_rule("/own", view_func=lambda: helper.get_upload(MISSING))
    client = app.test_client()
    # Without the blueprint there are no templates.
    assert client.get("/own", headers=BROWSER).json["code"] == "not_found"
    other = make_app(folder, tmp_path, {})
    second = uh.UploadHelper(other, authorize=lambda access: True)
    other.register_blueprint(second.blueprint())
    other.add_url_rule("/own", view_func=lambda: second.get_upload(MISSING))
    answer = other.test_client().get("/own", headers=BROWSER)
    assert answer.status_code == 404
    assert "This file is not here. It was deleted, or kept for too long, or it is not yours." in text(answer)
    assert other.test_client().get("/own").json["code"] == "not_found"


# --- the macro ---


def render(app: Flask, call: str, **values: object) -> str:
    with app.test_request_context(headers={"X-User": "ann", **values.pop("headers", {})}):
        return render_template_string(
            "{% from 'upload_helper/widget.html' import upload_widget %}{{ " + call + " }}", **values
        )


def attributes(html: str) -> dict[str, str]:
    (tag,) = re.findall(r"<upload-helper( [^>]*)?>", html)
    return dict(re.findall(r' ([\w-]+)="([^"]*)"', tag))


def test_macro_takes_what_is_allowed_from_the_settings(make_host):
    host = make_host(max_file_size=5000, allowed_extensions=["tif", "LAZ"])
    found = attributes(render(host, "upload_widget()"))
    assert found == {"endpoint": "/uploads", "multiple": "", "max-file-size": "5000", "accept": ".laz,.tif"}
    assert 'accept=".laz,.tif"' in render(host, "upload_widget(name='x')").partition("<input")[2]


def test_macro_writes_every_option(host):
    call = (
        "upload_widget(name='x', multiple=false, required=true, disabled=true, folders=true, accept='.tif',"
        " max_file_size=7, label='L', lang='de', headers={'A': '\"'}, csrf_header='X-C', parallel=2, chunk_size=9,"
        " nonce='n', id='i', **{'data-a': '<b>'})"
    )
    assert attributes(render(host, call)) == {
        "endpoint": "/uploads", "name": "x", "required": "", "disabled": "", "folders": "", "accept": ".tif",
        "max-file-size": "7", "label": "L", "lang": "de", "headers": "{&#34;A&#34;: &#34;\\&#34;&#34;}",
        "csrf-header": "X-C", "parallel": "2", "chunk-size": "9", "nonce": "n", "id": "i", "data-a": "&lt;b&gt;",
    }  # fmt: skip


def test_macro_writes_what_has_arrived_before(host, client):
    uid = upload(client, DATA, 30, name=MARKUP, headers=BROWSER)
    with host.test_request_context(headers={"X-User": "ann"}):
        kept = [uh.current_helper.get_upload(uid)]
        html = render_template_string(
            "{% from 'upload_helper/widget.html' import upload_widget %}{{ upload_widget(uploads=kept) }}", kept=kept
        )
    assert "<img" not in html
    assert f"&#34;{uid}&#34;" in attributes(html)["value"]


@pytest.fixture
def guarded(folder, tmp_path) -> Flask:
    """Return a host with Flask-WTF's check."""
    app = make_app(folder, tmp_path, {})
    helper = uh.UploadHelper(app, authorize=lambda access: True)
    app.register_blueprint(helper.blueprint())
    CSRFProtect(app)
    return app


def test_macro_has_the_token_of_the_host(host, guarded):
    assert "csrf" not in render(host, "upload_widget()")
    html = render(guarded, "upload_widget()")
    token = attributes(html)["csrf-token"]
    assert f'<input type="hidden" name="csrf_token" value="{token}">' in html


@pytest.mark.parametrize("token", ["text", lambda: None, lambda: ""])
def test_what_is_no_token_is_left_out(host, token):
    host.jinja_env.globals["csrf_token"] = token
    page = host.test_client().get("/uploads", headers=BROWSER)
    assert page.status_code == 200
    assert "csrf" not in page.text
    assert "X-CSRFToken" not in host.test_client().options("/uploads").headers


def test_plain_form_needs_the_token_of_the_host(guarded):
    client = guarded.test_client()
    page = client.get("/uploads", headers=BROWSER).text
    token = re.findall(r'name="csrf_token" value="([^"]+)"', page)[0]
    refused = client.post("/uploads", headers=BROWSER, **form_of("a.tif"))
    assert (refused.status_code, "The CSRF token is missing." in text(refused)) == (400, True)
    taken = client.post("/uploads", headers=BROWSER, **form_of("a.tif", csrf_token=token))
    assert "a.tif 16 bytes" in text(taken)


@pytest.mark.parametrize(
    ("headers", "given"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"X-Upload-Helper": "1"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Origin": "https://evil.example"}, False),
    ],
)
def test_new_token_is_given_to_pages_of_this_site(host, guarded, headers, given):
    assert "X-CSRFToken" not in host.test_client().options("/uploads", headers=headers).headers
    client = guarded.test_client()
    answer = client.options("/uploads", headers=headers)
    assert answer.status_code == 204
    assert ("X-CSRFToken" in answer.headers) == given
    if given:
        assert answer.headers["Cache-Control"] == "no-store"
        token = {"X-CSRFToken": answer.headers["X-CSRFToken"]}
        assert send(client, DATA, 100, 0, headers=token).status_code == 200


# --- words ---


@pytest.mark.parametrize("language", ["de", "ru"])
def test_every_language_has_every_text(language):
    english, other = table()["en"], table()[language]
    assert list(other) == list(english)
    for key, text in english.items():
        assert values(other[key]) <= values(text), key
        assert isinstance(other[key], dict) == isinstance(text, dict) or key == "unit.byte"
        if isinstance(other[key], dict):
            needed = {"few", "many", "other"} if language == "ru" else {"other"}
            assert needed <= other[key].keys(), key


def values(text: str | dict[str, str]) -> set[str]:
    return set(re.findall(r"\{\w+\}", json.dumps(text)))


def test_every_text_of_the_scripts_and_templates_is_in_the_table():
    for page, code in speakers():
        used = re.findall(r"""(?:\.text|\.say|#note|say)\((?:"\w+", )?["']([a-z.]+[a-z])["']""", code)
        assert set(used) <= set(table()["en"]), page


def test_every_text_of_the_table_is_in_a_script_or_template():
    said = {text for _, code in speakers() for text in re.findall(r"""["']([a-z._]+)["']""", code)}
    # These are put together.
    said |= {"say.offline", "say.retrying"}
    others = {
        key for key in table()["en"] if not key.startswith(("choose.", "drop.", "state.", "error.", "remedy.", "unit."))
    }
    assert others - said == set()


def speakers() -> list[tuple[Path, str]]:
    """Return what takes its words from the table, with its code."""
    folder = PLUGIN / "upload_helper"
    found = [folder / "views/words.py", *folder.glob("static/*.js"), *folder.glob("templates/upload_helper/*.html")]
    return [(page, page.read_text()) for page in found if page.stem not in ("texts", "demo")]


def test_browser_and_server_read_one_table():
    assert in_node('import texts from "./texts.js"; console.log(JSON.stringify(texts))') == table()


def in_node(code: str) -> Any:
    """Return what a program beside the scripts prints as JSON."""
    command = ["node", "--input-type=module", "-e", code]
    folder = PLUGIN / "upload_helper" / "static"
    return json.loads(subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize(
    ("count", "english", "german", "russian"),
    [
        (0, "0 bytes", "0 Bytes", "0 Б"),
        (1, "1 byte", "1 Byte", "1 Б"),
        (999, "999 bytes", "999 Bytes", "999 Б"),
        (1000, "1 kB", "1 kB", "1 кБ"),
        (1049, "1.05 kB", "1,05 kB", "1,05 кБ"),
        (99_960, "100 kB", "100 kB", "100 кБ"),
        (123_456, "123 kB", "123 kB", "123 кБ"),
        (999_499, "999 kB", "999 kB", "999 кБ"),
        (999_999, "1 MB", "1 MB", "1 МБ"),
        (16 << 30, "17.2 GB", "17,2 GB", "17,2 ГБ"),
        (5_123 * 10**12, "5120 TB", "5120 TB", "5120 ТБ"),
    ],
)
def test_sizes_in_words(count, english, german, russian):
    assert [Words(language, {}).bytes(count) for language in ("en", "de", "ru")] == [english, german, russian]


def test_browser_and_server_tell_sizes_in_the_same_words():
    edges = [
        edge * 10**power for edge in (999, 9_994, 9_995, 9_999, 1_005, 1_015, 10_045, 12_345) for power in range(12)
    ]
    counts = sorted({count + near for count in [1, *edges, *range(990, 1010), 5 << 50] for near in (-1, 0, 1)})
    languages = ["en", "de", "ru"]
    told = in_node(
        f"""import {{ Words }} from "./words.js";
        const tell = (language) => {counts}.map((count) => new Words(language).bytes(count));
        console.log(JSON.stringify({languages}.map(tell)));"""
    )
    for language, texts in zip(languages, told, strict=True):
        words = Words(language, {})
        assert dict(zip(counts, texts, strict=True)) == {count: words.bytes(count) for count in counts}


@pytest.mark.parametrize(
    ("language", "spoken"),
    [
        ("de", "de"),
        ("de-AT", "de"),
        ("DE_at", "de"),
        ("ru", "ru"),
        ("fr", "fr"),
        ("fr-CA", "fr-ca"),
        ("tlh", "en"),
        ("", "en"),
        ("x" * 99, "en"),
    ],
)
def test_nearest_language_is_spoken(language, spoken):
    words = Words(language, {"fr": {"pause": "Pause !"}, "fr-CA": {"resume": "Continuer"}})
    assert words.language == spoken
    if spoken == "fr-ca":
        assert [words.text("pause"), words.text("resume"), words.text("retry")] == ["Pause !", "Continuer", "Try again"]


def test_values_are_no_templates():
    words = Words("en", {})
    assert words.text("label", action="{name}", name="{action.__class__}") == "{name}: {action.__class__}"
    assert words.text("no.such.text") == "no.such.text"


@pytest.mark.parametrize(
    ("accepted", "title"),
    [
        ("de-CH,de;q=0.9,en;q=0.8", "Dateien hochladen"),
        ("ru", "Загрузка файлов"),
        ("fi", "Upload files"),
        ("*", "Upload files"),
        (";;q=x", "Upload files"),
    ],
)
def test_page_speaks_the_language_of_the_browser(client, accepted, title):
    page = client.get("/uploads", headers={**BROWSER, "Accept-Language": accepted}).text
    assert f"<h1>{title}</h1>" in page


def test_language_and_words_of_the_host_go_first(folder, tmp_path):
    app = make_app(folder, tmp_path, {})
    texts = {"en": {"title": "Hand it in"}, "eo": {"title": "Alŝuti </script>"}}
    helper = uh.UploadHelper(app, authorize=lambda access: True, language=lambda: request.args.get("l"), texts=texts)
    app.register_blueprint(helper.blueprint())
    client = app.test_client()
    page = client.get("/uploads?l=eo", headers={**BROWSER, "Accept-Language": "de"}).text
    assert "<h1>Alŝuti &lt;/script&gt;</h1>" in page
    assert attributes(page)["lang"] == "eo"
    assert (
        json.loads(attributes(page)["texts"].replace("&#34;", '"').replace("&lt;", "<").replace("&gt;", ">")) == texts
    )
    assert "<h1>Dateien hochladen</h1>" in client.get("/uploads", headers={**BROWSER, "Accept-Language": "de"}).text
    assert "<h1>Hand it in</h1>" in client.get("/uploads", headers=BROWSER).text


def test_error_is_told_in_the_language_of_the_browser(client):
    answer = client.get(f"/uploads/{MISSING}", headers={**BROWSER, "Accept-Language": "de"})
    assert "Diese Datei ist nicht hier. Sie wurde gelöscht" in text(answer)


# --- in a browser ---


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Gunicorn]:
    with Gunicorn(
        tmp_path_factory.mktemp("page") / "uploads", app="widget_host:app()", workers=1, csrf=True
    ) as running:
        yield running


@pytest.fixture
def page(browser, request) -> Iterator[Page]:
    plain = request.node.get_closest_marker("plain") is not None
    with visit(browser, java_script_enabled=not plain) as opened:
        name = request.node.name.encode().hex()
        opened.context.add_cookies([{"name": "user", "value": name, "domain": "127.0.0.1", "path": "/"}])
        yield opened


@pytest.mark.plain
def test_without_javascript_a_file_is_uploaded_listed_fetched_and_deleted(page, server, tmp_path):
    path = make_file(tmp_path, 100, MARKUP)
    page.goto(server.url)
    page.get_by_label("Upload files").set_input_files(path)
    page.get_by_role("button", name="Upload", exact=True).click()
    expect(page.get_by_role("heading", name="It has arrived")).to_be_visible()
    expect(page.get_by_text(MARKUP)).to_be_visible()
    page.get_by_role("link", name="Back").click()
    got = download(page, lambda: page.get_by_role("link", name=f"Download: {MARKUP}").click())
    assert got == path.read_bytes()
    button(page, "Delete", MARKUP).click()
    expect(page.get_by_text("There is nothing here yet.")).to_be_visible()


@pytest.mark.plain
def test_without_javascript_the_host_gets_the_file_in_its_own_form(page, server, tmp_path):
    page.goto(f"{server.origin}/form")
    page.get_by_role("textbox", name="Title").fill("Moor")
    page.locator("input[type=file]").set_input_files(make_file(tmp_path, 100, "moor.tif"))
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".survey")).to_contain_text("moor.tif 100 ")


@pytest.mark.plain
def test_without_javascript_a_form_that_comes_back_keeps_its_files(page, server, tmp_path):
    page.goto(f"{server.origin}/form")
    page.locator("input[type=file]").set_input_files(make_file(tmp_path, 100, "moor.tif"))
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#problem")).to_have_text("Say a title.")
    expect(page.locator("upload-helper")).to_contain_text("moor.tif")
    page.get_by_role("textbox", name="Title").fill("Moor")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".survey")).to_contain_text("moor.tif 100 ")


def test_list_follows_what_happens_on_the_page(page, server, tmp_path):
    page.goto(server.url)
    names = page.locator("upload-helper-list .name")
    expect(page.get_by_text("There is nothing here yet.")).to_be_visible()
    pick(page, make_file(tmp_path, 10, "b.tif"))
    expect(names).to_have_text(["b.tif"])
    wire = Wire(page, open_for=1)
    pick(page, make_file(tmp_path, 9_000_000, "a.tif"))
    wire.wait_for(1)
    page.evaluate("document.querySelector('upload-helper-list').refresh()")
    expect(names).to_have_text(["a.tif", "b.tif"])
    # How far that one is says the widget.
    expect(names.first).to_be_hidden()
    wire.open()
    expect(names.first).to_be_visible()
    assert len(uploads(page.context, server.url)) == 2


def test_list_leaves_to_the_widget_what_has_no_answer_yet(page, server, tmp_path):
    page.goto(server.url)

    def keep_the_answer(route: Route) -> None:
        if chunk_number(route.request) == 0:
            route.fetch()

    page.route(CHUNKS, keep_the_answer)
    pick(page, make_file(tmp_path, 10_000_000, "a.tif"))
    names = page.locator("upload-helper-list .name")

    def refresh() -> bool:
        page.evaluate("document.querySelector('upload-helper-list').refresh()")
        return names.count() > 0

    wait_until(refresh, what="the upload in the list")
    expect(names).to_have_text(["a.tif"])
    expect(names).to_be_hidden()
    page.unroute_all(behavior="ignoreErrors")


def test_list_is_asked_for_once_at_a_time(page, server):
    page.goto(server.url)
    page.evaluate("customElements.whenDefined('upload-helper-list')")
    most = page.evaluate("""async () => {
        let now = 0, most = 0, count = 0;
        const real = window.fetch;
        window.fetch = async (...args) => {
            most = Math.max(most, ++now);
            count++;
            await new Promise((go) => setTimeout(go, 900));
            try { return await real(...args); } finally { now--; }
        };
        for (let i = 0; i < 20; i++) {
            document.dispatchEvent(new CustomEvent("upload-done"));
            await new Promise((go) => setTimeout(go, 100));
        }
        await new Promise((go) => setTimeout(go, 1500));
        return [most, count > 1];
    }""")
    assert most == [1, True]


def test_upload_is_deleted_in_the_list(page, server, tmp_path):
    page.goto(server.url)
    pick(page, make_file(tmp_path, 10, "b.tif"))
    expect(page.locator("upload-helper-list .name")).to_have_text(["b.tif"])
    # From the widget it has gone to the list.
    expect(page.locator("upload-helper .item")).to_have_count(0)
    page.evaluate("window.same = true")
    button(page, "Delete", "b.tif").click()
    expect(page.get_by_text("There is nothing here yet.")).to_be_visible()
    assert page.evaluate("same")
    expect(page.get_by_role("heading", name="Your uploads")).to_be_focused()


def test_focus_stays_where_it_is_when_the_list_changes(page, server, tmp_path):
    page.goto(server.url)
    pick(page, make_file(tmp_path, 10, "b.tif"))
    expect(page.locator("upload-helper-list .name")).to_have_text(["b.tif"])
    button(page, "Delete", "b.tif").focus()
    pick(page, make_file(tmp_path, 11, "a.tif"))
    expect(page.locator("upload-helper-list .name")).to_have_text(["a.tif", "b.tif"])
    expect(button(page, "Delete", "b.tif")).to_be_focused()


def test_deletion_that_is_refused_is_told_in_words(page, server, tmp_path):
    page.goto(server.url)
    pick(page, make_file(tmp_path, 10, "b.tif"))
    expect(page.locator("upload-helper-list .name")).to_have_text(["b.tif"])
    page.context.add_cookies([{"name": "role", "value": "none", "domain": "127.0.0.1", "path": "/"}])
    button(page, "Delete", "b.tif").click()
    expect(page.get_by_role("alert")).to_contain_text("Sign in again, or ask for permission.")
