"""The browser libraries as they come from npm, in a real browser, each on the page that the documentation prints."""

from __future__ import annotations

import random
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import pytest
from playwright.sync_api import APIResponse, Browser, BrowserContext, Page, Request, Response, Route

from chromium import PATIENCE
from servers import Gunicorn, wait_until

CHUNK = 20 << 10
SIZE = 70 << 10
NAME = "日本 Straße.tif"
# What holds the number of a chunk, and the number of the first one.
NUMBERS = {
    "resumableChunkNumber": 1, "flowChunkNumber": 1, "chunkNumber": 1, "dzchunkindex": 0, "qqpartindex": 0, "chunk": 0,
}  # fmt: skip
APP = "browser_pages:app()"
UPLOADS = re.compile(r"/uploads([/?]|$)")


@dataclass(frozen=True)
class Library:
    """A library: its page, what the tests change on it, and how many requests take a file of SIZE bytes."""

    page: str
    chunks: int
    settings: dict[str, str] = field(default_factory=dict)
    picker: str = "#file"
    # True on the page once the library has noted that two chunks have arrived.
    noted: str = "true"

    def __str__(self) -> str:
        return self.page


def small_chunks(page: str, chunks: int, settings: dict[str, str] | None = None, **options: str) -> Library:
    return Library(page, chunks, {"8 << 20,": f"{CHUNK},", **(settings or {})}, **options)


SOON = {"chunkRetryInterval: 2000": "chunkRetryInterval: 20"}
RESUMABLE = small_chunks("resumable", 3, SOON)
FLOW = small_chunks("flow", 3, SOON)
SIMPLE = small_chunks("simple-uploader", 3, SOON)
DROPZONE = small_chunks("dropzone", 4, picker="input[type=file]")
FILEPOND = small_chunks(
    "filepond",
    4,
    {
        "chunkUploads: true": "chunkUploads: true, allowMinimumUploadDuration: false",
        "8 << 20,": f"{CHUNK}, chunkRetryDelays: [20, 20],",
    },
    picker="input[type=file]",
)
FINE = Library(
    "fine-uploader", 4, {"8 << 20": str(CHUNK), "enableAuto: true": "enableAuto: true, autoAttemptDelay: 0.02"},
    noted=f"Object.values(localStorage).some(text => JSON.parse(text).loaded >= {2 * CHUNK})",
)  # fmt: skip
PLUPLOAD = small_chunks("plupload", 4, {"max_retries: 3": "max_retries: 1"}, picker="input[type=file]")
UPPY_TUS = small_chunks("uppy-tus", 4, {"removeFinger": "retryDelays: [20, 20], removeFinger"})
UPPY_XHR = Library("uppy-xhr", 1)
TUS = Library("tus", 4, {"removeFinger": f"chunkSize: {CHUNK}, retryDelays: [20, 20], removeFinger"})
LIBRARIES = [RESUMABLE, FLOW, SIMPLE, DROPZONE, FILEPOND, FINE, PLUPLOAD, UPPY_TUS, UPPY_XHR, TUS]
RESUMING = [RESUMABLE, FLOW, SIMPLE, FINE, UPPY_TUS, TUS]


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Gunicorn]:
    with Gunicorn(tmp_path_factory.mktemp("server") / "uploads", workers=3, app=APP) as running:
        yield running


@pytest.fixture(scope="module")
def context(browser: Browser) -> Iterator[BrowserContext]:
    """Return what the tests share of the browser, so that it loads the libraries once."""
    with browser.new_context() as opened:
        opened.set_default_timeout(PATIENCE)
        # Where nobody looks, FilePond does not wait for the end of its animations.
        opened.add_init_script("Object.defineProperty(document, 'hidden', { get: () => true });")
        yield opened


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """Return a page of a new visitor; a script error on it fails the test."""
    errors: list[object] = []
    context.clear_cookies()
    opened = context.new_page()
    opened.on("pageerror", lambda error: errors.extend([error]))
    yield opened
    opened.evaluate("localStorage.clear()")
    opened.close()
    assert not errors


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return make_file(tmp_path, SIZE)


def make_file(folder: Path, size: int, name: str = NAME) -> Path:
    path = folder / name
    path.write_bytes(random.Random(size).randbytes(size))
    return path


class Wire:
    """The requests of a page: what it sends, and what the server has acknowledged.

    From the number `open_for` of those that carry bytes of a file it holds them, as a network without a way through
    would, and the chunk `hold` in any case; `unlucky` of them get the answer of a server that has no room just then.
    """

    def __init__(self, page: Page, *, open_for: float = float("inf"), hold: int = -1, unlucky: int = 0) -> None:
        self.sent: list[int] = []
        self.offsets: list[int] = []
        self.acknowledged: list[int] = []
        self.requests = 0
        self.unlucky = unlucky
        self.page = page
        self._left = open_for
        self._hold = hold
        self.held: list[Route] = []
        self._answered: list[Request] = []
        page.route(UPLOADS, self._pass)
        page.on("response", self._response)
        page.on("requestfinished", self._finished)

    def wait_for(self, count: int) -> set[int]:
        """Return the numbers of the acknowledged chunks once there are so many, and another is held."""
        wait_until(lambda: self._look(count), what=f"{count} acknowledged chunks")
        return set(self.acknowledged)

    def lose(self) -> None:
        """Let everything through from now on; what was held has been lost with its connection."""
        self._left = float("inf")
        self._hold = -1
        held, self.held = self.held, []
        for route in held:
            route.abort("connectionreset")

    def forget(self) -> None:
        """Let everything through from now on; what was held went with its page."""
        self._left = float("inf")
        self._hold = -1
        self.held.clear()
        self.sent.clear()

    def _look(self, count: int) -> bool:
        self.page.wait_for_timeout(10)
        return len(self.acknowledged) >= count and bool(self.held)

    def _pass(self, route: Route) -> None:
        number = chunk_number(route.request)
        self.requests += 1
        if route.request.method == "PATCH":
            self.offsets.append(int(route.request.headers["upload-offset"]))
        if number is None:
            route.continue_()
            return
        if self._left <= 0 or number == self._hold:
            self.held.append(route)
            return
        self._left -= 1
        self.sent.append(number)
        self.unlucky -= 1
        route.continue_(headers={**route.request.headers, "X-Role": "unlucky"} if self.unlucky >= 0 else None)

    def _response(self, response: Response) -> None:
        if UPLOADS.search(response.url) and response.ok:
            self._answered.append(response.request)

    def _finished(self, request: Request) -> None:
        if request in self._answered and (number := chunk_number(request)) is not None:
            self.acknowledged.append(number)


def chunk_number(request: Request) -> int | None:
    """Return the number of the chunk that a request carries, from 0; None if it carries none."""
    if request.method == "PATCH":
        return int(request.headers["upload-offset"]) // CHUNK
    if request.method != "POST" or request.resource_type == "document":
        return None
    body = (request.post_data_buffer or b"")[:4000].decode("latin-1")
    fields = dict(parse_qsl(urlsplit(request.url).query)) | dict(re.findall(r'name="(\w+)"\r\n\r\n([^\r]*)\r', body))
    for name, first in NUMBERS.items():
        if name in fields:
            return int(fields[name]) - first
    return 0 if "; filename=" in body else None


def open_page(page: Page, server: Gunicorn, library: Library, settings: dict[str, str] | None = None) -> None:
    page.goto(f"{server.origin}/pages/{library.page}.html?{urlencode({**library.settings, **(settings or {})})}")


def pick(page: Page, library: Library, path: Path) -> None:
    page.evaluate("show('')")
    page.set_input_files(library.picker, path)


def stored(page: Page) -> str:
    """Return the URL of the upload once the page says that it is stored."""
    return outcome(page, "Stored: ")


def outcome(page: Page, wanted: str) -> str:
    page.wait_for_function("document.getElementById('state').textContent")
    said = page.text_content("#state") or ""
    assert said.startswith(wanted), said
    return said.removeprefix(wanted)


def assert_arrived(page: Page, url: str, path: Path) -> None:
    """Compare what the server has with the file: name and bytes."""
    answer = page.request.get(absolute(page, url))
    assert answer.ok, answer.text()
    assert answer.body() == path.read_bytes()
    assert f"filename*=UTF-8''{quote(path.name)}" in answer.headers["content-disposition"]


def absolute(page: Page, url: str) -> str:
    return str(page.evaluate("url => new URL(url, location).href", url))


@pytest.mark.parametrize("library", LIBRARIES, ids=str)
def test_files_arrive_one_after_the_other(page, server, tmp_path, library):
    wire = Wire(page)
    open_page(page, server, library)
    for size in (SIZE, 3 * CHUNK, 0):
        path = make_file(tmp_path, size)
        pick(page, library, path)
        assert_arrived(page, stored(page), path)
        assert size < SIZE or sorted(wire.sent) == list(range(library.chunks))


@pytest.mark.parametrize("library", RESUMING, ids=str)
def test_reload_in_the_middle_sends_only_what_is_missing(page, server, file, library):
    wire = Wire(page, open_for=2)
    open_page(page, server, library)
    pick(page, library, file)
    there = wire.wait_for(2)
    page.wait_for_function(library.noted)
    page.reload()
    wire.forget()
    pick(page, library, file)
    assert_arrived(page, stored(page), file)
    assert sorted(wire.sent) == sorted(set(range(library.chunks)) - there)


def test_server_killed_in_the_middle_and_started_again(context, server, file):
    context.clear_cookies()
    wires: dict[str, Wire] = {}
    acknowledged: dict[str, set[int]] = {}
    for library in LIBRARIES:
        page = context.new_page()
        there = min(2, library.chunks - 1)
        wires[library.page] = Wire(page, open_for=there)
        open_page(page, server, library)
        pick(page, library, file)
        acknowledged[library.page] = wires[library.page].wait_for(there)
    server.kill()
    for wire in wires.values():
        wire.sent.clear()
        wire.lose()
    server.start()
    for name, wire in wires.items():
        assert_arrived(wire.page, stored(wire.page), file)
        assert acknowledged[name].isdisjoint(wire.sent), name
        wire.page.close()


@pytest.mark.parametrize("library", LIBRARIES, ids=str)
def test_chunk_that_is_refused_or_whose_answer_is_lost_is_sent_again(page, server, file, library):
    wire = Wire(page, hold=library.chunks - 1 or -1, unlucky=1)
    open_page(page, server, library)
    pick(page, library, file)
    if library.chunks > 1:
        wire.wait_for(library.chunks - 1)
        assert replay(page, wire.held[-1].request).ok
        wire.lose()
    assert_arrived(page, stored(page), file)
    assert len(wire.sent) > len(set(wire.sent))


def replay(page: Page, request: Request) -> APIResponse:
    """Send what the page is about to send."""
    headers = {name: value.encode().decode("latin-1") for name, value in request.headers.items()}
    return page.request.fetch(request.url, method=request.method, headers=headers, data=request.post_data_buffer)


@pytest.mark.parametrize(
    ("library", "most"),
    [
        # Each of the chunks that are on their way at once is asked for, and sent.
        (RESUMABLE, 6), (FLOW, 6), (SIMPLE, 6),
        # These do not let a server tell them not to try again.
        (DROPZONE, 12), (PLUPLOAD, 2),
        (FILEPOND, 1), (FINE, 3), (UPPY_TUS, 1), (UPPY_XHR, 1), (TUS, 1),
    ],
    ids=str,
)  # fmt: skip
def test_forbidden_upload_is_given_up(page, server, file, library, most):
    wire = Wire(page)
    open_page(page, server, library)
    page.set_extra_http_headers({"X-Role": "none"})
    pick(page, library, file)
    assert "You may not do this: create." in outcome(page, "Failed: ")
    assert 1 <= wire.requests <= most


@pytest.mark.parametrize(
    ("library", "settings"),
    [
        (RESUMABLE, {"minFileSize: 0": 'method: "octet"'}),
        (RESUMABLE, {"minFileSize: 0": "forceChunkSize: true"}),
        (RESUMABLE, {"minFileSize: 0": "testChunks: false"}),
        (FLOW, {'target: "/uploads"': 'target: "/uploads", method: "octet"'}),
        (SIMPLE, {'target: "/uploads"': 'target: "/uploads", method: "octet"'}),
        (DROPZONE, {"parallelChunkUploads: 3": "paramName: 'tiff'"}),
        (DROPZONE, {"chunking: true": "chunking: false"}),
        (FILEPOND, {"chunkUploads: true": "chunkUploads: false, allowMinimumUploadDuration: false"}),
        (FILEPOND, {"server: {": 'name: "survey", server: {'}),
        (FINE, {"request: {": "request: { forceMultipart: false, paramsInBody: false,"}),
        (FINE, {"enabled: true,": "enabled: false,"}),
        (PLUPLOAD, {'url: "/uploads"': 'url: "/uploads", multipart: false'}),
        (PLUPLOAD, {'url: "/uploads"': 'url: "/uploads", multipart_params: { identifier: "a1" }'}),
        (PLUPLOAD, {"8 << 20,": "0,"}),
        (UPPY_XHR, {'endpoint: "/uploads"': 'endpoint: "/uploads", bundle: true'}),
        (TUS, {"metadata:": "parallelUploads: 2, metadata:"}),
        (TUS, {"metadata:": "uploadDataDuringCreation: true, metadata:"}),
        (TUS, {"metadata:": "uploadLengthDeferred: true, metadata:"}),
        (TUS, {"metadata:": "overridePatchMethod: true, metadata:"}),
        (TUS, {"metadata:": 'protocol: "ietf-draft-05", metadata:'}),
    ],
    ids=str,
)
def test_file_arrives_whatever_is_set(page, server, file, library, settings):
    open_page(page, server, library, settings)
    pick(page, library, file)
    assert_arrived(page, stored(page), file)


@pytest.mark.parametrize(
    ("library", "settings"),
    [
        (DROPZONE, {"chunking: true": "chunking: true, forceChunking: true"}),
        (FILEPOND, {"chunkUploads: true": "chunkUploads: true, chunkForce: true, allowMinimumUploadDuration: false"}),
        (RESUMABLE, {'target: "/uploads"': 'target: "/uploads", method: "octet"'}),
    ],
    ids=str,
)
def test_empty_file_arrives_as_a_chunk(page, server, tmp_path, library, settings):
    path = make_file(tmp_path, 0)
    open_page(page, server, library, settings)
    pick(page, library, path)
    assert_arrived(page, stored(page), path)


@pytest.mark.parametrize("library", [RESUMABLE, FLOW, SIMPLE], ids=str)
def test_file_that_is_there_is_not_sent_again_but_to_somebody_else(page, browser, server, file, library):
    open_page(page, server, library)
    pick(page, library, file)
    url = stored(page)
    page.reload()
    wire = Wire(page)
    pick(page, library, file)
    assert stored(page) == url
    assert wire.sent == []
    with browser.new_context() as context:
        other = context.new_page()
        wire = Wire(other)
        open_page(other, server, library)
        pick(other, library, file)
        mine = stored(other)
        assert_arrived(other, mine, file)
        assert len(wire.sent) == library.chunks
        assert mine != url
        assert other.request.get(absolute(other, url)).status == 404
    assert page.request.delete(absolute(page, url)).ok
    page.reload()
    pick(page, library, file)
    assert_arrived(page, stored(page), file)


@pytest.mark.parametrize(
    ("library", "settings"),
    [
        # When it is told to begin anew while chunks are sent at once, Fine Uploader stumbles over an error of its own.
        (FINE, {"concurrent: { enabled: true }": "concurrent: { enabled: false }"}),
        (UPPY_TUS, {}),
        (TUS, {}),
    ],
    ids=str,
)
def test_upload_that_is_gone_begins_anew(page, server, file, library, settings):
    wire = Wire(page, open_for=2)
    open_page(page, server, library, settings)
    pick(page, library, file)
    wire.wait_for(2)
    page.wait_for_function(library.noted)
    for upload in page.request.get(server.url).json()["uploads"]:
        assert page.request.delete(f"{server.url}/{upload['uploadUid']}").ok
    page.reload()
    wire.forget()
    pick(page, library, file)
    assert_arrived(page, stored(page), file)


@pytest.mark.parametrize("library", [UPPY_TUS, TUS], ids=str)
def test_body_that_is_cut_goes_on_where_it_ended(page, server, file, library):
    wire = Wire(page, open_for=2)
    open_page(page, server, library)
    pick(page, library, file)
    wire.wait_for(2)
    there = 2 * CHUNK + send_half(page, server, wire.held[0].request)
    asked = {"Tus-Resumable": "1.0.0"}
    url = wire.held[0].request.url
    wait_until(lambda: page.request.head(url, headers=asked).headers["upload-offset"] == str(there), what="bytes")
    wire.lose()
    assert_arrived(page, stored(page), file)
    assert wire.offsets[2:] == [2 * CHUNK, there]


@pytest.mark.parametrize("tries", ["20, 20", ""], ids=["by itself", "told to"])
def test_filepond_sends_a_chunk_that_was_cut_again(page, server, file, tries):
    wire = Wire(page, open_for=2)
    open_page(page, server, FILEPOND, {"8 << 20,": f"{CHUNK}, chunkRetryDelays: [{tries}],"})
    pick(page, FILEPOND, file)
    wire.wait_for(2)
    send_half(page, server, wire.held[0].request)
    wire.lose()
    if not tries:
        outcome(page, "Failed: ")
        page.evaluate("() => { show(''); pond.processFile(); }")
    assert_arrived(page, stored(page), file)
    assert wire.sent == [0, 1, 2, 3]


def send_half(page: Page, server: Gunicorn, request: Request) -> int:
    """Send the first half of what the page is about to send, and end the connection; return the bytes of it."""
    body = request.post_data_buffer or b""
    headers = {**request.headers, "host": f"127.0.0.1:{server.port}", "content-length": len(body)}
    headers["cookie"] = "; ".join(f"{cookie['name']}={cookie['value']}" for cookie in page.context.cookies())
    lines = [f"{request.method} {request.url.removeprefix(server.origin)} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body[: len(body) // 2])
        connection.shutdown(socket.SHUT_WR)
        # The server has read it all when it ends the connection, too.
        connection.recv(1 << 16)
    return len(body) // 2


def test_file_that_filepond_takes_back_is_deleted(page, server, file):
    open_page(page, server, FILEPOND)
    pick(page, FILEPOND, file)
    url = absolute(page, stored(page))
    page.evaluate("() => { pond.removeFile({ revert: true }); }")
    wait_until(lambda: page.request.get(url).status == 404, what="deletion")


@pytest.mark.parametrize("sizes", [(SIZE,), (SIZE, 0)])
def test_plain_form(page, server, tmp_path, sizes):
    page.goto(f"{server.origin}/pages/form.html?{urlencode({'name=': 'multiple name='})}")
    paths = [make_file(tmp_path, size, f"{size} {NAME}") for size in sizes]
    page.set_input_files("input[type=file]", paths)
    page.click("button")
    page.wait_for_url(server.url)
    links = [link.get_attribute("href") or "" for link in page.get_by_role("link", name="Download").all()]
    for link, path in zip(links, paths, strict=True):
        assert_arrived(page, link, path)


def test_two_files_of_one_name_one_after_the_other(page, server, tmp_path):
    """plupload tells files apart by their names alone."""
    open_page(page, server, PLUPLOAD)
    for size in (SIZE, SIZE - 1):
        path = make_file(tmp_path, size)
        page.evaluate("show('')")
        page.set_input_files(PLUPLOAD.picker, path)
        assert_arrived(page, stored(page), path)
