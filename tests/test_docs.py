"""What the README and docs/ print is true: snippets run, requests get the answers shown, tables match the code."""

from __future__ import annotations

import ast
import asyncio
import base64
import contextlib
import dataclasses
import hashlib
import io
import json
import random
import re
import shutil
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgpack
import pytest
import requests
from flask import Flask, session

import upload_helper as uh
from chunks import fetch, upload
from servers import PLUGIN, Gunicorn, wait_until
from test_browser_libraries import LIBRARIES, RESUMING
from upload_helper.config import PREFIX, Config
from upload_helper.protocols.dialects import DIALECTS, NamedChunk
from upload_helper.work.places import VARIABLE
from wires import Wire

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DATA = random.Random(6).randbytes(100_003)


@dataclasses.dataclass(frozen=True)
class Snippet:
    page: str
    heading: str
    language: str
    about: str
    text: str
    line: int

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def snippets(language: str = "", page: str = "", heading: str = "", about: str = "") -> list[Snippet]:
    """Return the fenced blocks of all pages, in order; those of a language, a page, or below a heading."""
    found = [snippet for path in PAGES for snippet in read(path)]
    wanted = {"language": language, "page": page, "heading": heading, "about": about}
    return [s for s in found if all(getattr(s, name) == value for name, value in wanted.items() if value)]


def read(path: Path) -> Iterator[Snippet]:
    text = path.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        before = text[: match.start()]
        heading = re.findall(r"^#+ (.*)$", FENCE.sub("", before), re.MULTILINE)[-1]
        yield Snippet(path.name, heading, match[1], match[2].strip(), match[3], before.count("\n") + 1)


def run(snippet: Snippet) -> types.ModuleType:
    """Execute a Python block as the module that a reader would make of it."""
    module = types.ModuleType("snippet")
    exec(compile(snippet.text, str(snippet), "exec", dont_inherit=True), module.__dict__)
    return module


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """Work in an empty folder; an application whose module has no file gets its instance folder there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def serve(heading: str, page: str = "README.md", number: int = 0) -> Flask:
    module = run(snippets("python", page, heading)[number])
    module.app.secret_key = "x"
    return module.app


# --- Python ---


# These run where their test has made what they need.
_WITH_A_SERVER = {"How a file is sent", "How a file is fetched"}


@pytest.mark.parametrize("snippet", [s for s in snippets("python") if s.heading not in _WITH_A_SERVER], ids=str)
def test_python_block_runs(here, snippet):
    module = run(snippet)
    if "app" in vars(module):
        assert "upload_helper" in module.app.extensions


def test_mounting_takes_five_lines(here):
    (_, second) = snippets("python", "README.md", "Mount it")
    assert len([line for line in second.text.splitlines() if line]) == 5
    client = serve("Mount it", number=1).test_client()
    uid = upload(client, DATA, 30_000)
    assert fetch(client, uid) == DATA
    assert client.delete(f"/uploads/{uid}").status_code == 204


def test_access_is_as_the_readme_says(here):
    app = serve("Mount it")
    people = {name: app.test_client() for name in ("anna", "berta", "admin", "")}

    @app.get("/login/<name>")
    def login(name: str) -> str:
        session["user"] = name
        return ""

    for name in ("anna", "berta", "admin"):
        people[name].get(f"/login/{name}")
    uid = upload(people["anna"], DATA, 30_000)
    assert fetch(people["anna"], uid) == DATA
    assert people["anna"].delete(f"/uploads/{uid}").status_code == 403
    assert people["berta"].get(f"/uploads/{uid}").status_code == 404
    assert people[""].get("/uploads").status_code == 403
    own = upload(people["admin"], DATA, 30_000)
    assert people["admin"].delete(f"/uploads/{own}").status_code == 204


def test_upload_is_got_as_the_readme_says(here):
    client = serve("Get the upload").test_client()
    query = {"fileName": "map.tif", "totalSize": 6, "chunkCount": 2}
    uid = ""
    for number, content in enumerate((b"abc", b"def")):
        uid = client.post(
            "/uploads",
            query_string={**query, "chunkNumber": number, "uploadUid": uid},
            data=content,
            content_type="application/octet-stream",
        ).json["uploadUid"]
        if number == 0:
            answer = client.post(f"/import/{uid}").json
            assert (answer["ready"], "1 of 2 chunks" in answer["why"]) == (False, True)
    answer = client.post(f"/import/{uid}").json
    assert (answer["ready"], answer["name"], answer["bytes"]) == (True, "map.tif", 6)
    assert Path(answer["path"]).read_bytes() == b"abcdef"
    unknown = client.post(f"/import/{uid}")
    assert (unknown.status_code, sorted(unknown.json)) == (404, ["code", "error", "remedy"])


def test_action_of_the_readme(here):
    client = serve("Endpoints of your own").test_client()
    chunk = {"fileName": "a.tif", "totalSize": 3, "chunkCount": 1, "chunkNumber": 0, "content": "YWJj"}
    refused = client.post("/_/surveyUpload", json=chunk)
    assert (refused.status_code, refused.json["error"]["info"]) == (403, "Only surveyors may upload.")
    uid = client.post("/_/surveyUpload", json=chunk, headers={"X-Surveyor": "1"}).json["uploadUid"]
    answer = client.post("/_/surveyImport", json={"uploadUid": uid, "year": 2026})
    assert answer.json == {"name": "a.tif", "bytes": 3, "year": 2026}


def test_actions_page(here):
    client = serve("Actions", "actions.md").test_client()
    good = {"surveyUid": "s", "kind": "dtm", "corners": [{"x": 1, "y": 2.5}], "note": None, "localeUid": "de"}
    assert client.post("/_/surveySave", json=good).json == {"saved": "s", "corners": 1}
    wrong = client.post("/_/surveySave", json={**good, "year": "soon"}).json["error"]["info"]
    (shown,) = re.findall(r"`(year 'soon'.*?)`", (ROOT / "docs/actions.md").read_text())
    assert wrong.startswith(shown)
    query = {"fileName": "a", "totalSize": 3, "chunkCount": 1, "chunkNumber": 0, "surveyUid": "s"}
    raw = client.post("/_/surveyUpload", query_string=query, data=b"abc", content_type="application/octet-stream")
    status = client.post("/_/surveyStatus", json={"uploadUid": raw.json["uploadUid"]})
    assert status.json["state"] == "finished"


def test_error_shape_of_the_actions_page(here):
    (shown,) = snippets("json", "actions.md")
    client = serve("Endpoints of your own").test_client()
    chunk = {"fileName": "a.tif", "totalSize": 3, "chunkCount": 1, "chunkNumber": 0, "content": "YWJj"}
    assert client.post("/_/surveyUpload", json=chunk).json == json.loads(shown.text)


# --- the table of settings ---


def settings_shown() -> dict[str, tuple[str, str]]:
    """Return type and default of each key in the table."""
    text = (ROOT / "docs/configuration.md").read_text()
    rows = re.findall(rf"^\| `{PREFIX}(\w+)` \| ([^|]*) \| `([^`]*)`[^|]*\| [^|]{{10,}} \|$", text, re.MULTILINE)
    assert len(rows) == len({row[0] for row in rows}) == text.count(f"\n| `{PREFIX}")
    return {name.lower(): (kind, default) for name, kind, default in rows}


def test_every_setting_is_in_the_table_once():
    assert sorted(settings_shown()) == sorted(field.name for field in dataclasses.fields(Config))


@pytest.mark.parametrize("field", dataclasses.fields(Config), ids=lambda field: field.name)
def test_default_in_the_table_is_that_of_the_code(field):
    kind, default = settings_shown()[field.name]
    value = ast.literal_eval(default)
    if field.name == "folder":
        assert Path(Flask("x").instance_path, value) == default_folder()
        return
    read = Config.from_mapping({PREFIX + field.name.upper(): value}, folder=Path("x"))
    assert getattr(read, field.name) == getattr(Config(Path("x")), field.name)
    kinds = {timedelta: "duration", frozenset: "list of str", int: "int", str: "str"}
    actual = getattr(read, field.name)
    assert kind.split(",")[0] == next(name for type_, name in kinds.items() if isinstance(actual, type_))
    assert ("bytes" in kind) == (
        isinstance(actual, int) and field.name.split("_")[-1] in ("size", "bytes", "space", "from")
    )


def default_folder() -> Path:
    app = Flask("x")
    uh.UploadHelper(app)
    return app.extensions["upload_helper"].config.folder


def test_no_other_page_names_a_setting_that_does_not_exist():
    known = {PREFIX + field.name.upper() for field in dataclasses.fields(Config)} | {VARIABLE}
    for page in PAGES:
        assert set(re.findall(rf"{PREFIX}\w+", page.read_text())) <= known | {PREFIX}, page


# --- the chunk protocol ---


def http_blocks() -> list[Snippet]:
    return snippets("http", "chunk-protocol.md")


def test_requests_on_the_page_get_the_answers_on_the_page(here):
    client = serve("Mount it", number=1).test_client()
    blocks = http_blocks()
    assert len(blocks) >= 16
    uids: dict[str, str] = {}
    for request, shown in zip(blocks[::2], blocks[1::2], strict=True):
        answer = post(client, replace(request.text, uids))
        compare(answer, shown.text, uids)


def replace(text: str, uids: dict[str, str]) -> str:
    """Put the uids of this run in the place of those that are printed, also in hexadecimal digits."""
    for printed, real in uids.items():
        text = text.replace(printed, real)
        pattern = r"\s".join(f"{byte:02x}" for byte in printed.encode())
        text = re.sub(pattern, real.encode().hex(" "), text)
    return text


def parts(text: str) -> tuple[str, dict[str, str], str]:
    head, _, body = text.partition("\n\n")
    first, *lines = head.rstrip("\n").split("\n")
    return first, dict(line.split(": ", 1) for line in lines), body


def post(client, text: str):
    first, headers, body = parts(text)
    method, target, version = first.split(" ")
    assert version == "HTTP/1.1"
    kind = headers.get("Content-Type", "")
    content = bytes.fromhex(body) if kind == "application/msgpack" else body.removesuffix("\n").encode()
    if kind.startswith("multipart/"):
        content = content.replace(b"\n", b"\r\n")
    if "Content-Length" in headers:
        assert int(headers.pop("Content-Length")) == len(content)
    with client.open(target, method=method, headers=headers, data=content) as answer:
        answer.get_data()
        return answer


def compare(answer, text: str, uids: dict[str, str]) -> None:
    first, headers, body = parts(text)
    assert f"HTTP/1.1 {answer.status}" == first
    for name, value in headers.items():
        assert answer.headers[name] == value
    if answer.mimetype == "application/octet-stream":
        assert answer.data.decode() == body.removesuffix("\n")
    elif body:
        packed = answer.mimetype == "application/msgpack"
        shown = msgpack.unpackb(bytes.fromhex(body)) if packed else json.loads(body)
        real = msgpack.unpackb(answer.data) if packed else answer.json
        if "uploadUid" in shown:
            uids.setdefault(shown["uploadUid"], real["uploadUid"])
            shown["uploadUid"] = uids[shown["uploadUid"]]
        if "expires" in shown:
            shown["expires"] = real["expires"] if isinstance(real["expires"], float) else "a number"
        assert shown == real


def test_every_error_is_in_the_table():
    text = "".join((ROOT / "docs" / page).read_text() for page in ("chunk-protocol.md", "work.md", "transfers.md"))
    shown = re.findall(r"^\| `(\w+)` \| (\d{3}) \|", text, re.MULTILINE)
    errors = [value for value in vars(uh).values() if isinstance(value, type) and issubclass(value, uh.Error)]
    assert sorted(shown) == sorted((error.code, str(error.status)) for error in errors if error is not uh.Error)


def test_every_field_is_in_the_table():
    text = (ROOT / "docs/chunk-protocol.md").read_text()
    section = text.partition("## The fields of a chunk")[2].partition("\n## ")[0]
    shown = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert sorted(shown) == sorted(field.name for field in dataclasses.fields(uh.ChunkRequest))


# --- the two clients ---


class Client:
    """One of the clients that the page prints, called as a function."""

    def __init__(self, language: str, folder: Path) -> None:
        (snippet,) = (s for s in snippets(language, "chunk-protocol.md") if s.heading.startswith("A client in"))
        self.lines = len([line for line in snippet.text.splitlines() if line.strip()])
        self._language, self._folder = language, folder
        (folder / ("client.py" if language == "python" else "client.mjs")).write_text(snippet.text)

    def __call__(self, url: str, path: Path, chunk_size: int, identifier: str) -> subprocess.CompletedProcess[str]:
        if self._language == "python":
            code = "import sys, client; print(client.upload(*sys.argv[1:3], int(sys.argv[3]), sys.argv[4]))"
            command = [sys.executable, "-c", code]
        else:
            code = (
                'import { readFileSync } from "node:fs"; import { basename } from "node:path";'
                'import { upload } from "./client.mjs"; const [url, path, size, id] = process.argv.slice(1);'
                "console.log(await upload(url, new File([readFileSync(path)], basename(path)), Number(size), id));"
            )
            command = ["node", "--input-type=module", "-e", code]
        arguments = [url, str(path), str(chunk_size), identifier]
        return subprocess.run(
            [*command, *arguments], cwd=self._folder, capture_output=True, text=True, timeout=60, check=False
        )


@pytest.fixture(params=["python", "js"])
def printed_client(request, tmp_path) -> Client:
    return Client(request.param, tmp_path)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    with Gunicorn(folder / "uploads", UPLOAD_HELPER_MAX_FILE_SIZE=1_000_000) as running:
        running.pids()
        yield running


class Breaking:
    """Passes connections on to a server, except that the first one is closed when something comes."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._open = [socket.create_server(("127.0.0.1", 0))]
        self._threads: list[threading.Thread] = []
        self.port = self._open[0].getsockname()[1]
        self.cut = False

    def __enter__(self) -> Breaking:
        self._start(self._accept, self._open[0])
        return self

    def __exit__(self, *exc_info: object) -> None:
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for connection in self._open:
            connection.close()

    def _start(self, function: Callable[..., None], *arguments: socket.socket) -> None:
        self._threads.append(threading.Thread(target=function, args=arguments))
        self._threads[-1].start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = listener.accept()[0]
                self._open.append(client)
                if not self.cut and client.recv(1):
                    self.cut = True
                    client.shutdown(socket.SHUT_RDWR)
                    continue
                server = socket.create_connection(("127.0.0.1", self._target))
                self._open.append(server)
                self._start(self._pass_on, client, server)
                self._start(self._pass_on, server, client)

    @staticmethod
    def _pass_on(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


def test_printed_client_is_short(printed_client):
    assert printed_client.lines <= 35


@pytest.mark.parametrize("size", [0, 1, 30_000, 100_003])
def test_printed_client_uploads(printed_client, server, tmp_path, size):
    path = tmp_path / "Straße 日本.bin"
    path.write_bytes(DATA[:size])
    done = printed_client(server.url, path, 30_000, f"{tmp_path} {size}")
    assert done.returncode == 0, done.stderr
    uid = done.stdout.strip()
    assert requests.get(f"{server.url}/{uid}", timeout=30).content == DATA[:size]
    assert requests.get(f"{server.url}/{uid}/status", timeout=30).json()["fileName"] == path.name
    assert printed_client(server.url, path, 30_000, f"{tmp_path} {size}").stdout.strip() == uid


def test_printed_client_goes_on_where_it_was(printed_client, server, tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(DATA)
    query = {"fileName": path.name, "totalSize": len(DATA), "chunkCount": 4, "chunkNumber": 2, "identifier": str(path)}
    headers = {"Content-Type": "application/octet-stream"}
    chunk = DATA[60_000:90_000]
    begun = requests.post(server.url, params=query, data=chunk, headers=headers, timeout=30).json()["uploadUid"]
    done = printed_client(server.url, path, 30_000, str(path))
    assert (done.stdout.strip(), done.stderr) == (begun, "")
    assert requests.get(f"{server.url}/{begun}", timeout=30).content == DATA


def test_printed_client_gives_up_at_once_where_trying_again_is_no_use(printed_client, server, tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(bytes(1_000_001))
    done = printed_client(server.url, path, 500_000, str(path))
    assert done.returncode != 0
    assert "over the limit of 1000000 bytes for a file" in done.stderr


def test_printed_client_tries_again_where_the_connection_breaks(printed_client, server, tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(DATA)
    with Breaking(server.port) as broken:
        done = printed_client(f"http://127.0.0.1:{broken.port}/uploads", path, 60_000, str(path))
    assert broken.cut
    assert requests.get(f"{server.url}/{done.stdout.strip()}", timeout=30).content == DATA


# --- deployment ---


def config_file(name: str) -> str:
    (snippet,) = snippets(page="deployment.md", about=f"file={name}")
    return snippet.text


@pytest.fixture
def deployed(here):
    """Run gunicorn with the printed settings and the printed application; return its port."""
    (snippet,) = (s for s in snippets("python", "deployment.md") if "ProxyFix" in s.text)
    (here / "myapp.py").write_text(snippet.text)
    (here / "gunicorn.conf.py").write_text(config_file("gunicorn.conf.py"))
    with serving(here) as port:
        yield port


@contextlib.contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[int]:
    """Run gunicorn with the application in `myapp.py`; give its port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    listener.set_inheritable(True)
    command = [sys.executable, "-m", "gunicorn", "--no-control-socket", "-b", f"fd://{listener.fileno()}", *arguments]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "myapp:app"], cwd=folder, env={"PYTHONPATH": str(PLUGIN)}, stderr=log,
            pass_fds=[listener.fileno()],
        )  # fmt: skip
    try:
        yield listener.getsockname()[1]
    finally:
        process.terminate()
        process.wait()
        listener.close()


def upload_by_requests(url: str, **headers: str) -> list[int]:
    """Send a file in chunks of 30 000 bytes; return the status of each answer, of the last one that of its bytes."""
    uid, statuses = "", []
    for number, offset in enumerate(range(0, len(DATA), 30_000)):
        query = {"fileName": "a.bin", "totalSize": len(DATA), "chunkCount": 4, "chunkNumber": number, "uploadUid": uid}
        answer = requests.post(
            url, params=query, data=DATA[offset : offset + 30_000], timeout=30,
            headers={"Content-Type": "application/octet-stream", **headers},
        )  # fmt: skip
        statuses.append(answer.status_code)
        uid = answer.json().get("uploadUid", "")
    got = requests.get(f"{url}/{uid}", timeout=30).content
    return [*statuses, hashlib.sha256(got).digest() == hashlib.sha256(DATA).digest()]


def test_gunicorn_with_the_printed_settings(deployed, here):
    assert upload_by_requests(f"http://127.0.0.1:{deployed}/uploads") == [200, 200, 200, 200, True]
    assert "Using worker: gthread" in (here / "log").read_text()


NGINX = """
daemon off; pid {here}/nginx.pid; error_log {here}/nginx.log info; worker_processes 1;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {here}/body; proxy_temp_path {here}/proxy; uwsgi_temp_path {here}/uwsgi;
    fastcgi_temp_path {here}/fastcgi; scgi_temp_path {here}/scgi;
    server {{ listen 127.0.0.1:{port}; {location} }}
}}
"""


def listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.soak  # for nginx, which nothing else of these tests needs
def test_nginx_with_the_printed_location(deployed, here):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    location = config_file("gunicorn").replace("127.0.0.1:8000", f"127.0.0.1:{deployed}")
    location = location.replace("$host;", "$host:$server_port;")
    (here / "nginx.conf").write_text(NGINX.format(here=here, port=port, location=location))
    here.chmod(0o755)
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    process = subprocess.Popen([nginx, "-c", here / "nginx.conf"], stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/uploads"
    try:
        wait_until(lambda: listens(port), what="nginx")
        own, other = f"http://127.0.0.1:{port}", "https://evil.example"
        assert upload_by_requests(url, Origin=own) == [200, 200, 200, 200, True]
        assert upload_by_requests(url, Origin=other)[:4] == [403] * 4
    finally:
        process.terminate()
        process.wait()
    assert "a client request body is buffered" not in (here / "nginx.log").read_text()


# --- clients ---

BROWSER = ROOT / "tests/browser"
NODE = ROOT / "tests/node"
SITE = "https://maps.example.org"
PRINTED_TOKEN = "a long random token"
FILE = "survey.tif"


def table(page: str, title: str) -> dict[str, dict[str, str]]:
    """Return the table whose first column has this title: its rows by their first cell, as cells by their titles."""
    text = (ROOT / "docs" / page).read_text()
    found = re.search(rf"^\| *{title} *\|.*\n\|[-|]+\n(?:\|.*\n)+", text, re.MULTILINE)
    assert found, title
    titles, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in found[0].splitlines())
    return {row[0]: dict(zip(titles, row, strict=True)) for row in rows}


def marked(page: str) -> str:
    """Return the part of a page of the browser tests that the documentation prints."""
    (part,) = re.findall(r"<!-- snippet -->\n(.*?)<!-- end of snippet -->", (BROWSER / page).read_text(), re.DOTALL)
    return part


def heading_of(page: str) -> str:
    """Return the heading of the section of the clients that prints a page of the browser tests."""
    (snippet,) = (s for s in snippets("html", "clients.md") if s.text == marked(page))
    return snippet.heading


def test_pages_for_browsers_are_those_of_the_browser_tests():
    printed = [snippet.text for snippet in snippets("html", "clients.md")]
    assert sorted(printed) == sorted(marked(page.name) for page in BROWSER.glob("*.html"))


def test_every_client_has_a_section_with_an_example():
    headings = [snippet.heading for snippet in snippets(page="clients.md")]
    names = [name for name in table("clients.md", "client") if "(" not in name]
    assert [name.lower() for name in names] == [h.lower() for h in dict.fromkeys(headings) if h != "Who is who"]


def test_versions_are_those_that_are_tried():
    text = (ROOT / "docs/clients.md").read_text()
    tried = json.loads((NODE / "package.json").read_text())["dependencies"]
    for page in BROWSER.glob("*.html"):
        if library := re.search(r"/node_modules/((?:@\w+/)?[^/]+)/", marked(page.name)):
            section = text.partition(f"\n## {heading_of(page.name)}\n\n")[2]
            assert section.startswith(f"{tried[library[1]]}, "), page


def test_who_goes_on_after_a_reload_does_so_in_the_browser_tests():
    rows = table("clients.md", "client")
    said = {name for name, row in rows.items() if row["goes on after a reload"] == "yes"}
    libraries = {heading_of(f"{library.page}.html"): library in RESUMING for library in LIBRARIES}
    assert {name: name in said for name in libraries} == libraries
    others = {"[the widget](page.md)", "tuspy", "[chunk protocol](chunk-protocol.md#a-client-in-javascript)"}
    assert said - {*libraries} == others


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_who_needs_identify_is_refused_without_it(here, dialect):
    """With a status that is printed, in the order of the names."""
    client = serve("Mount it", number=1).test_client()
    chunk = NamedChunk(0, 2, 6, "6-a", "a.tif", "a.tif", 3)
    answer = client.post("/uploads", query_string=dialect.build(chunk), data={"file": (io.BytesIO(b"abc"), "a.tif")})
    names = {name.lower().replace(".js", "").replace(" ", "-"): name for name in table("clients.md", "client")}
    row = table("clients.md", "client")[names[dialect.name]]
    assert row["works without `identify`"] == ("yes" if answer.status_code == 200 else "no")
    if answer.status_code != 200:
        assert answer.json["code"] == "forbidden"
        guessable = [dialect for dialect in DIALECTS if dialect.guessable]
        (printed,) = re.findall(r"statuses (\d+), (\d+), (\d+) and (\d+);", (ROOT / "docs/clients.md").read_text())
        assert int(printed[guessable.index(dialect)]) == answer.status_code


def test_visitors_and_programs_are_told_apart(here):
    app = serve("Who is who", "clients.md")
    visitors = [app.test_client() for _ in range(3)]
    program = {"Authorization": f"Bearer {PRINTED_TOKEN}"}
    for visitor in visitors[:2]:
        assert visitor.get("/").status_code == 200
    uid = upload(visitors[0], DATA, 30_000)
    assert fetch(visitors[0], uid) == DATA
    assert visitors[1].get(f"/uploads/{uid}").status_code == 404
    assert visitors[2].post("/uploads", headers={**TUS, "Upload-Length": "3"}).status_code == 403
    assert visitors[2].get(f"/uploads/{uid}", headers=program).status_code == 404
    assert visitors[2].get("/uploads", headers=program).json == {"uploads": []}
    assert visitors[0].get("/uploads", headers={"Authorization": "Bearer another"}).status_code == 403


@pytest.fixture(scope="module")
def printed_site(tmp_path_factory) -> Iterator[int]:
    """Run gunicorn with the application that the page of the clients prints; return its port."""
    folder = tmp_path_factory.mktemp("site")
    (snippet,) = snippets("python", "clients.md", "Who is who")
    (folder / "myapp.py").write_text(snippet.text)
    with serving(folder, "--workers", "2", "--threads", "4") as port:
        yield port


class Cut(Wire):
    """A wire of which nothing is left when it breaks, as when the server dies."""

    def _break(self, client: socket.socket) -> None:
        super()._break(client)
        # With bytes in it that were not read, so the other end is reset.
        client.close()


class Program:
    """What a program sends to the printed site, through a wire that breaks in the middle of DATA."""

    def __init__(self, port: int, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{port}/uploads"
        self.headers = {"Authorization": f"Bearer {PRINTED_TOKEN}"}
        self.wire = Cut(port, 70_000)
        (folder / FILE).write_bytes(DATA)

    def uploads(self) -> list[dict]:
        return requests.get(self.url, headers=self.headers, timeout=30).json()["uploads"]

    def check(self, url: str) -> None:
        """See that the wire broke, and that what was begun then is the one upload, and whole."""
        assert self.wire.broken.is_set()
        (there,) = self.uploads()
        assert (there["uploadUid"], there["fileName"]) == (url.strip().rpartition("/")[2], FILE)
        assert requests.get(f"{self.url}/{there['uploadUid']}", headers=self.headers, timeout=30).content == DATA


@pytest.fixture
def program(printed_site, here) -> Iterator[Program]:
    made = Program(printed_site, here)
    with made.wire:
        yield made
    for there in made.uploads():
        requests.delete(f"{made.url}/{there['uploadUid']}", headers=made.headers, timeout=30)


def changed(snippet: Snippet, **changes: str) -> Snippet:
    """Return a snippet that has other numbers, so that a test takes no time."""
    text = snippet.text
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return dataclasses.replace(snippet, text=text)


def tuspy(url: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Send the file with the printed function, in a process of its own."""
    (snippet,) = snippets("python", "clients.md", "tuspy")
    shorter = changed(snippet, **{"8 << 20": "30_000", "retry_delay=2": "retry_delay=0"}, **changes)
    Path("client.py").write_text(shorter.text)
    code = "import sys, client; print(client.upload(*sys.argv[1:]))"
    command = [sys.executable, "-c", code, url, FILE, PRINTED_TOKEN]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_printed_tuspy_tries_again(program):
    program.check(tuspy(program.wire.url).stdout)
    assert not Path(FILE + ".upload").exists()


def test_printed_tuspy_goes_on_when_it_is_started_again(program):
    assert "TusUploadFailed" in tuspy(program.wire.url, **{"retries=5": "retries=0"}).stderr
    # With a checksum, chunks are kept as a whole.
    assert program.uploads()[0]["offset"] == 60_000
    program.check(tuspy(program.wire.url).stdout)


def test_printed_tuspy_says_when_its_upload_is_gone(program):
    tuspy(program.wire.url, **{"retries=5": "retries=0"})
    (begun,) = program.uploads()
    requests.delete(f"{program.url}/{begun['uploadUid']}", headers=program.headers, timeout=30)
    gone = tuspy(program.wire.url).stderr.splitlines()[-1]
    assert "TusCommunicationError" in gone
    assert "404" in gone
    Path(FILE + ".upload").unlink()
    program.check(tuspy(program.wire.url).stdout)


def test_printed_aiotus_tries_again(program):
    (snippet,) = snippets("python", "clients.md", "aiotus")
    module = run(changed(snippet, **{"(1, 2, 4, 8, 16)": "(0, 0, 0)"}))
    program.check(asyncio.run(module.upload(program.wire.url, FILE, PRINTED_TOKEN)))


@pytest.mark.parametrize("heading", ["curl with tus", "curl with Resumable Uploads"])
def test_printed_curl_goes_on(program, heading):
    snippet = changed(
        snippets("sh", "clients.md", heading)[0], **{SITE: program.wire.origin, "sleep $pause": "sleep 0"}
    )
    done = subprocess.run(["sh", "-euc", snippet.text], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(program.wire.url)
    program.check(done.stdout)


def test_printed_curl_has_the_file_compared_with_its_checksum(program):
    snippet = changed(
        snippets("sh", "clients.md", "curl with Resumable Uploads")[0],
        **{SITE: program.url.removesuffix("/uploads"), "sleep $pause": "sleep 0", 'binary "$file"': "binary other"},
    )
    Path("other").write_bytes(b"")
    done = subprocess.run(["sh", "-c", snippet.text], capture_output=True, text=True, timeout=60, check=False)
    assert "422" in done.stderr
    assert program.uploads() == []


def test_printed_curl_in_one_line(program):
    snippet = changed(snippets("sh", "clients.md")[2], **{SITE: program.url.removesuffix("/uploads")})
    done = subprocess.run(["sh", "-euc", snippet.text], capture_output=True, text=True, timeout=60, check=True)
    (there,) = program.uploads()
    assert there["fileName"] == FILE
    assert json.loads(done.stdout)["uploadUid"] == there["uploadUid"]
    assert requests.get(f"{program.url}/{there['uploadUid']}", headers=program.headers, timeout=30).content == DATA


def node(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a module beside the libraries from npm; end it at once where it should go on for long."""
    if not Path("node_modules").exists():
        Path("node_modules").symlink_to(NODE / "node_modules")
    Path("program.mjs").write_text(code)
    command = ["node", "program.mjs", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_printed_program_for_node_tries_again(program):
    (snippet,) = snippets("js", "clients.md")
    done = node(snippet.text, program.wire.url, FILE, PRINTED_TOKEN)
    assert (done.returncode, done.stderr) == (0, "")
    program.check(done.stdout)


def test_printed_program_for_node_goes_on_when_it_is_started_again(program):
    (snippet,) = snippets("js", "clients.md")
    given_up = changed(snippet, **{"  endpoint,\n": "  endpoint, retryDelays: [],\n"})
    assert node(given_up.text, program.wire.url, FILE, PRINTED_TOKEN).returncode == 1
    assert 0 < program.uploads()[0]["offset"] < len(DATA)
    done = node(snippet.text, program.wire.url, FILE, PRINTED_TOKEN)
    assert (done.returncode, done.stderr) == (0, "")
    program.check(done.stdout)


def test_five_lines_of_the_readme(program):
    (snippet,) = snippets("js", "README.md")
    assert len(snippet.text.splitlines()) == 5
    options = f'{{ headers: {json.dumps(program.headers)}, endpoint: "{program.wire.url}"'
    text = changed(snippet, **{'{ endpoint: "/uploads"': options}).text
    file = 'import { readFileSync } from "node:fs";\n'
    file += f'const file = Object.assign(readFileSync("{FILE}"), {{ name: "{FILE}" }});\n'
    done = node(file + text)
    assert (done.returncode, done.stderr) == (0, "")
    program.check(program.uploads()[0]["uploadUid"])


# --- protocols ---

TUS = {"Tus-Resumable": "1.0.0"}
TUS_PATCH = {**TUS, "Content-Type": "application/offset+octet-stream"}
PARTIAL_UPLOAD = {"Content-Type": "application/partial-upload"}


class Speaker:
    """A client of one of the protocols that append, on the application of five lines."""

    def __init__(self, protocol: str) -> None:
        self.tus = protocol == "tus"
        self.version = "Tus-Resumable" if self.tus else "Upload-Draft-Interop-Version"
        self.client = serve("Mount it", number=1).test_client()

    def begin(self, length: int = 6, **headers: str):
        own = TUS if self.tus else {"Upload-Complete": "?0"}
        return self.client.post("/uploads", headers={**own, "Upload-Length": str(length), **headers})

    def append(self, url: str, offset: int, content: bytes, *, last: bool = False, **headers: str):
        own = TUS_PATCH if self.tus else {**PARTIAL_UPLOAD, "Upload-Complete": f"?{last:d}"}
        return self.client.patch(url, headers={**own, "Upload-Offset": str(offset), **headers}, data=content)

    def cut(self, url: str, content: bytes, length: int, **headers: str):
        """Send less than was announced."""
        own = TUS_PATCH if self.tus else {**PARTIAL_UPLOAD, "Upload-Complete": "?1"}
        environ = {"wsgi.input": io.BytesIO(content), "CONTENT_LENGTH": str(length)}
        return self.client.patch(url, headers={**own, "Upload-Offset": "0", **headers}, environ_overrides=environ)

    def wrong_digest(self) -> dict[str, str]:
        digest = base64.b64encode(bytes(32)).decode()
        return {"Upload-Checksum": f"sha256 {digest}"} if self.tus else {"Content-Digest": f"sha-256=:{digest}:"}

    def begun(self) -> str:
        """Begin an upload of six bytes; return its URL."""
        return self.begin().headers["Location"]

    def completed(self) -> str:
        """Upload six bytes; return their URL."""
        url = self.begun()
        assert self.append(url, 0, b"abcdef", last=True).status_code < 300
        return url


ROWS: dict[str, Callable[[Speaker], Any]] = {
    "created": lambda s: s.begin(),
    "appended": lambda s: s.append(s.begun(), 0, b"abc"),
    "complete": lambda s: s.append(s.begun(), 0, b"abcdef", last=True),
    "wrong offset": lambda s: s.append(s.begun(), 3, b"def", last=True),
    "append to what is complete": lambda s: s.append(s.completed(), 6, b"g", last=True),
    "body broke": lambda s: s.cut(s.begun(), b"abc", 6),
    "wrong checksum": lambda s: s.append(s.begun(), 0, b"abc", **s.wrong_digest()),
    "more bytes than the file has": lambda s: s.append(s.begun(), 0, b"abcdefg"),
    "another version": lambda s: s.begin(**{s.version: "9"}),
}


@pytest.mark.parametrize("protocol", ["tus", "Resumable Uploads"])
@pytest.mark.parametrize("row", ROWS)
def test_answers_are_those_of_the_table(here, protocol, row):
    cell = table("protocols.md", "")[row][protocol]
    answer = ROWS[row](Speaker(protocol))
    assert cell.startswith(str(answer.status_code)), answer.data
    for name, value in re.findall(r"`([A-Z][\w-]+)(?:: ([^`]+))?`", cell):
        assert answer.headers[name] == (value or answer.headers[name])


def test_rows_of_the_table_are_tried():
    rows = table("protocols.md", "")
    assert {*rows} - {*ROWS} == {"versions", "name of the file", "when it expires"}


def test_upload_that_is_given_up_is_gone_and_others_stay(here):
    for protocol, there in (("tus", True), ("Resumable Uploads", False)):
        speaker = Speaker(protocol)
        url = speaker.begun()
        speaker.append(url, 0, b"abcdefg")
        assert (speaker.client.get(f"{url}/status").status_code == 200) is there


def test_names_and_expiry_are_where_the_table_says(here):
    tus, other = Speaker("tus"), Speaker("Resumable Uploads")
    for key in ("filename", "name"):
        metadata = f"{key} {base64.b64encode(FILE.encode()).decode()}"
        for speaker in (tus, other):
            begun = speaker.begin(**{"Upload-Metadata": metadata})
            assert speaker.client.get(f"{begun.headers['Location']}/status").json["fileName"] == FILE
    begun = other.begin(**{"Content-Disposition": f'attachment; filename="{FILE}"'})
    assert other.client.get(f"{begun.headers['Location']}/status").json["fileName"] == FILE
    assert "max-age=" in begun.headers["Upload-Limit"]
    assert "Upload-Expires" in tus.begin().headers


def test_all_of_it_or_nothing_where_there_is_a_checksum(here):
    for protocol in ("tus", "Resumable Uploads"):
        speaker = Speaker(protocol)
        for headers, kept in (({}, 3), (speaker.wrong_digest(), 0)):
            url = speaker.begun()
            speaker.cut(url, b"abc", 6, **headers)
            assert speaker.client.get(f"{url}/status").json["offset"] == kept


def test_head_without_any_protocol(here):
    speaker = Speaker("tus")
    url = speaker.begun()
    speaker.append(url, 0, b"abc")
    answer = speaker.client.head(url)
    assert [answer.headers[f"Upload-{name}"] for name in ("Offset", "Complete", "Length")] == ["3", "?0", "6"]
    query = {"fileName": "a", "totalSize": 6, "chunkCount": 2, "chunkNumber": 0}
    begun = speaker.client.post("/uploads", query_string=query, data=b"abc", content_type="application/octet-stream")
    assert speaker.client.head(f"/uploads/{begun.json['uploadUid']}").status_code == 409


def test_options_tell_both(here):
    answer = Speaker("tus").client.options("/uploads")
    assert answer.headers["Tus-Max-Size"] in answer.headers["Upload-Limit"]
    text = (ROOT / "docs/protocols.md").read_text()
    algorithms = answer.headers["Tus-Checksum-Algorithm"].split(",")
    assert f"`Upload-Checksum`: {', '.join(f'`{name}`' for name in algorithms)} |" in text


def test_parts_of_a_file(here):
    app = serve("Mount it", number=1)
    speaker = Speaker("tus")
    speaker.client = app.test_client()
    told: list[str] = []
    uh.upload_finished.connect(told_of := lambda app, upload: told.append(upload.uploadUid), app)
    urls = [speaker.begin(3, **{"Upload-Concat": "partial"}).headers["Location"] for _ in range(2)]
    final = {**TUS, "Upload-Concat": f"final;{urls[0]} http://localhost{urls[1]}"}
    speaker.append(urls[0], 0, b"abc")
    assert speaker.client.post("/uploads", headers=final).status_code == 400
    speaker.append(urls[1], 0, b"def")
    assert speaker.client.get(urls[0]).status_code == 409
    whole = speaker.client.post("/uploads", headers=final).headers["Location"]
    helper = app.extensions["upload_helper"].helper
    uid = whole.rpartition("/")[2]
    assert fetch(speaker.client, uid) == b"abcdef"
    with app.test_request_context():
        assert [upload.uploadUid for upload in helper.uploads()] == told == [uid]
    assert len(helper.uploads()) == 3
    for url in urls:
        with pytest.raises(uh.IncompleteError):
            helper.get_upload(url.rpartition("/")[2])
        assert speaker.client.delete(url).status_code == 204
    assert helper.get_upload(uid).totalSize == 6
    del told_of


def test_file_in_parts_needs_twice_its_size(here):
    app = Flask("x")
    app.config["UPLOAD_HELPER_MAX_OWNER_BYTES"] = 11
    app.register_blueprint(uh.UploadHelper(app, authorize=lambda access: True).blueprint())
    speaker = Speaker("tus")
    speaker.client = app.test_client()
    url = speaker.begin(6, **{"Upload-Concat": "partial"}).headers["Location"]
    speaker.append(url, 0, b"abcdef")
    answer = speaker.client.post("/uploads", headers={**TUS, "Upload-Concat": f"final;{url}"})
    assert (answer.status_code, answer.json["code"]) == (413, "too_large")


def test_problem_documents(here):
    speaker = Speaker("Resumable Uploads")
    text = (ROOT / "docs/protocols.md").read_text()
    wrong = speaker.append(speaker.begun(), 3, b"def", last=True)
    assert wrong.mimetype == "application/problem+json"
    assert (wrong.json["expected-offset"], wrong.json["provided-offset"]) == (0, 3)
    answers = (wrong, ROWS["append to what is complete"](speaker), ROWS["more bytes than the file has"](speaker))
    for answer in answers:
        assert f"`{answer.json['type'].rpartition('#')[2]}`" in text
        assert answer.headers["Cache-Control"] == "no-store"
        assert {"type", "title", "status", "detail", "code", "remedy"} <= answer.json.keys()


# --- the Python interface ---


def test_every_operation_is_asked_as_the_page_says(here):
    asked: list[tuple[str, str, int]] = []

    def authorize(access: uh.Access) -> bool:
        if access.upload is not None:
            asked.append((access.operation, access.upload.fileName, access.upload.totalSize))
        return True

    app = Flask("x")
    helper = uh.UploadHelper(app, authorize=authorize, identify=lambda: "anna")
    app.register_blueprint(helper.blueprint())
    client = app.test_client()
    metadata = ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in {
        "filename": FILE, "year": "2026"}.items())  # fmt: skip
    begun = client.post("/uploads", headers={**TUS, "Upload-Defer-Length": "1", "Upload-Metadata": metadata})
    url = begun.headers["Location"]
    client.patch(url, headers={**TUS_PATCH, "Upload-Offset": "0"}, data=b"abc")
    status = helper.get_status(url.rpartition("/")[2])
    assert (status.totalSize, status.offset, status.chunkCount, status.missing) == (-1, 3, 0, None)
    client.patch(url, headers={**TUS_PATCH, "Upload-Offset": "3", "Upload-Length": "6"}, data=b"def")
    client.head(url, headers=TUS)
    assert fetch(client, url.rpartition("/")[2]) == b"abcdef"
    got = helper.get_upload(url.rpartition("/")[2])
    assert (got.totalSize, got.owner, got.metadata["year"]) == (6, "anna", "2026")
    client.delete(url, headers=TUS)
    deferred = [("create", FILE, -1), ("write", FILE, -1)]
    assert asked == [*deferred, *((operation, FILE, 6) for operation in ("write", "status", "read", "delete"))]
    asked.clear()
    client.post("/uploads", headers={**TUS_PATCH, "Upload-Length": "3"}, data=b"abc")
    assert asked == [("create", "unnamed", 3)]


def test_list_is_refused_to_nobody_in_particular(here):
    answer = serve("Mount it", number=1).test_client().get("/uploads")
    assert (answer.status_code, answer.json["code"]) == (403, "forbidden")


def test_attributes_of_an_upload_are_in_the_table():
    text = (ROOT / "docs/api.md").read_text().partition("| attribute |")[2].partition("\n\n")[0]
    public = [field.name for field in dataclasses.fields(uh.Upload) if not field.name.startswith("_")]
    assert sorted(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == sorted(public)


def test_errors_are_called_like_their_codes():
    for name, value in vars(uh).items():
        if isinstance(value, type) and issubclass(value, uh.Error) and value is not uh.Error:
            assert name == value.code.title().replace("_", "").removesuffix("Error") + "Error"


# --- links ---


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        assert path.is_file(), target
        headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
        assert not anchor or anchor in {heading.lower().replace(" ", "-") for heading in headings}
