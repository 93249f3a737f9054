"""What the README and docs/ print is true: snippets run, requests get the answers shown, tables match the code."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import hashlib
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

import msgpack
import pytest
import requests
from flask import Flask, session

import upload_helper as uh
from chunks import fetch, upload
from servers import PLUGIN, Gunicorn, wait_until
from upload_helper.config import PREFIX, Config

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


@pytest.mark.parametrize("snippet", snippets("python"), ids=str)
def test_python_block_runs(here, snippet):
    module = run(snippet)
    if "app" in vars(module):
        assert "upload_helper" in module.app.extensions


def test_mounting_takes_five_lines(here):
    (first, _) = snippets("python", "README.md", "Mount it")
    assert len([line for line in first.text.splitlines() if line]) == 5
    client = serve("Mount it").test_client()
    uid = upload(client, DATA, 30_000)
    assert fetch(client, uid) == DATA
    assert client.delete(f"/uploads/{uid}").status_code == 204


def test_access_is_as_the_readme_says(here):
    app = serve("Mount it", number=1)
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
    assert ("bytes" in kind) == (isinstance(actual, int) and field.name.split("_")[-1] in ("size", "bytes", "space"))


def default_folder() -> Path:
    app = Flask("x")
    uh.UploadHelper(app)
    return app.extensions["upload_helper"].config.folder


def test_no_other_page_names_a_setting_that_does_not_exist():
    known = {PREFIX + field.name.upper() for field in dataclasses.fields(Config)}
    for page in PAGES:
        assert set(re.findall(rf"{PREFIX}\w+", page.read_text())) <= known | {PREFIX}, page


# --- the chunk protocol ---


def http_blocks() -> list[Snippet]:
    return snippets("http", "chunk-protocol.md")


def test_requests_on_the_page_get_the_answers_on_the_page(here):
    client = serve("Mount it").test_client()
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
    text = (ROOT / "docs/chunk-protocol.md").read_text()
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
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    listener.set_inheritable(True)
    command = [sys.executable, "-m", "gunicorn", "--no-control-socket", "-b", f"fd://{listener.fileno()}", "myapp:app"]
    with (here / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=here, env={"PYTHONPATH": str(PLUGIN)}, stderr=log, pass_fds=[listener.fileno()]
        )
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


# --- links ---


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        assert path.is_file(), target
        headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
        assert not anchor or anchor in {heading.lower().replace(" ", "-") for heading in headings}
