"""Clients of tus and of Resumable Uploads for HTTP that people use, against gunicorn with several workers.

Every one of them loses its connection, its process and its server in the middle of a file, and the file is whole in
the end; and what they upload is an upload like any other.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import aiohttp
import aiotus
import pytest
import requests
from flask import Flask, request
from tusclient.client import TusClient
from tusclient.storage.filestorage import FileStorage

import host
from servers import Gunicorn, wait_until
from upload_helper import StatusRequest, StatusResponse
from upload_helper.cli import uploads
from wires import Wire

NODE = Path(__file__).parent / "node"
NAME = "Straße 日本.tif"
CHUNK = 262_144
DATA = random.Random(5).randbytes(1_000_003)
TWO_CHUNKS = 2 * CHUNK
IN_THE_THIRD = TWO_CHUNKS + 75_000
"""So many bytes of requests, headers included, end in the body of the third chunk."""

TUS = {"Tus-Resumable": "1.0.0"}
TUS_PATCH = {**TUS, "Content-Type": "application/offset+octet-stream"}
RUFH = {"Upload-Draft-Interop-Version": "8"}
RUFH_TYPE = "application/partial-upload"
IETF = {"protocol": "ietf-draft-05", "headers": {"Content-Disposition": "attachment; filename*=UTF-8''"
                                                 "Stra%C3%9Fe%20%E6%97%A5%E6%9C%AC.tif"}}  # fmt: skip


def served() -> Flask:
    """Return the host for gunicorn. It answers with absolute URLs to a client that cannot do without."""
    app = host.app()

    @app.after_request
    def locate(answer: Any) -> Any:
        answer.autocorrect_location_header = "X-Absolute" in request.headers
        return answer

    return app


class Site:
    """A running server, and one user of it."""

    def __init__(self, server: Gunicorn, folder: Path, user: str) -> None:
        self.server = server
        self.folder = folder
        self.user = user
        self.headers = {"X-User": user}
        self.session = requests.Session()
        # The server closes a connection that was idle for a while, perhaps just as the next request is sent on it.
        self.session.headers.update({**self.headers, "Connection": "close"})

    def local(self, url: str) -> str:
        """Return the URL on the server itself of an upload that was sent through a wire, or is given as a path."""
        return urljoin(self.server.url, urlsplit(url).path)

    def ask(self, method: str, url: str, **headers: str) -> requests.Response:
        return self.session.request(method, self.local(url), headers=headers, timeout=10)

    def offset(self, url: str) -> int:
        """Return how much is kept, without taking the upload over from whoever writes to it."""
        return self.ask("GET", f"{self.local(url)}/status").json()["offset"]

    def uploads(self) -> list[dict[str, Any]]:
        return self.ask("GET", self.server.url).json()["uploads"]

    def stored(self) -> list[StatusResponse]:
        """Return what the host sees of the user's uploads: parts of files, too."""
        service = host.make_app(UPLOAD_HELPER_FOLDER=str(self.folder)).extensions["upload_helper"].service
        mine = [upload for upload in service.uploads() if upload.owner == self.user]
        return [service.status(StatusRequest(upload.uploadUid), None, roughly=True) for upload in mine]

    def check(self, url: str, data: bytes = DATA, name: str = NAME) -> None:
        """See that the file is there, whole, and an upload like any other."""
        uid = url.rpartition("/")[2]
        [listed] = [upload for upload in self.uploads() if upload["uploadUid"] == uid]
        assert listed["state"] == "finished"
        assert (listed["fileName"], listed["totalSize"], listed["receivedBytes"]) == (name, len(data), len(data))
        answer = self.ask("GET", url)
        assert answer.status_code == 200
        assert hashlib.sha256(answer.content).digest() == hashlib.sha256(data).digest()
        assert name in unquote(answer.headers["Content-Disposition"])
        assert self.ask("DELETE", url).status_code == 204
        assert self.ask("GET", url).status_code == 404


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Start a server with several workers; return it and its folder."""
    folder = tmp_path_factory.mktemp("tus") / "uploads"
    with Gunicorn(folder, app="test_tus_clients:served()", UPLOAD_HELPER_DURABILITY="none") as server:
        server.pids()
        yield server, folder


@pytest.fixture
def site(running: Any) -> Any:
    site = Site(*running, user=secrets.token_hex(4))
    yield site
    site.session.close()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files to upload."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "file").write_bytes(DATA)
    (folder / "empty").write_bytes(b"")
    return folder


class Node:
    """tus-js-client, in a process of its own."""

    def __init__(self, site: Site, source: Path, url: str = "") -> None:
        self._site = site
        self._source = source
        self._url = url or site.server.url
        self.process: subprocess.Popen[str] | None = None

    def run(self, options: dict[str, Any] | None = None, *, file: str = "file", **job: Any) -> Any:
        """Do a job; return what the client got, or None where it was killed."""
        options = {
            "endpoint": self._url,
            "metadata": {"filename": NAME, "filetype": "image/tiff"},
            "retryDelays": [0, 20, 100, 500, 2000],
            **(options or {}),
        }
        options["headers"] = {**self._site.headers, **options.get("headers", {})}
        job = {"do": "upload", "as": "file", "file": str(self._source / file), "options": options, **job}
        command = ["node", str(NODE / "tus.mjs")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as self.process:
            output, _ = self.process.communicate(json.dumps(job), timeout=30)
            if self.process.returncode == -signal.SIGKILL:
                return None
            assert self.process.returncode == 0
        return json.loads(output)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill the client, and wait until it is gone."""
        assert self.process is not None
        self.process.kill()
        os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)


@pytest.fixture
def node(site: Site, source: Path) -> Node:
    return Node(site, source)


def crash(site: Site, kept: int = TWO_CHUNKS + 1) -> None:
    """Kill the server once it keeps so many bytes of the user, and start it again on the same port."""
    wait_until(lambda: sum(upload.receivedBytes for upload in site.stored()) >= kept, seconds=10, what="bytes")
    site.server.kill()
    site.server.start()


def asked(result: dict[str, Any], method: str) -> list[dict[str, Any]]:
    """Return the requests with this method that a client has made and got an answer to."""
    return [one for one in result["requests"] if one["method"] == method]


def check_offsets(result: dict[str, Any]) -> None:
    """See that an interrupted upload was gone on with where it was, or further.

    A request may still be on its way to be served while its client asks, so that it has to ask once more.
    """
    heads = [head["got"] for head in asked(result, "HEAD")]
    offsets = [int(head["upload-offset"]) for head in heads]
    assert offsets
    assert offsets == sorted(offsets)
    assert offsets[0] >= TWO_CHUNKS
    assert {head["upload-length"] for head in heads} == {str(len(DATA))}


# --- tus-js-client ---


@pytest.mark.parametrize(
    ("job", "options", "patches"),
    [
        ({}, {}, 1),
        ({}, {"chunkSize": CHUNK}, 4),
        ({"as": "buffer"}, {"chunkSize": CHUNK}, 4),
        ({}, {"parallelUploads": 3}, 3),
        ({}, {"parallelUploads": 3, "chunkSize": 100_000}, 12),
        ({"as": "stream"}, {"chunkSize": CHUNK, "uploadLengthDeferred": True}, 4),
        ({}, {"uploadDataDuringCreation": True}, 0),
        ({}, {"uploadDataDuringCreation": True, "chunkSize": CHUNK}, 3),
        ({}, {"overridePatchMethod": True, "addRequestId": True, "chunkSize": CHUNK}, 0),
        ({"chunked": True}, {"chunkSize": CHUNK}, 4),
        ({"chunked": True}, {"parallelUploads": 3}, 3),
        ({"chunked": True}, {"uploadDataDuringCreation": True}, 0),
        ({"chunked": True, "as": "stream"}, {"chunkSize": CHUNK, "uploadLengthDeferred": True}, 4),
    ],
    ids=str,
)
def test_tus_js_client_uploads(site, node, job, options, patches):
    result = node.run(options, **job)
    assert "error" not in result
    assert len(asked(result, "PATCH")) == patches
    assert all(one["got"]["tus-resumable"] == "1.0.0" for one in result["requests"])
    bodies = [one["sent"] for one in result["requests"] if "content-type" in one["sent"]]
    assert bodies
    assert all(("content-length" in sent) != job.get("chunked", False) for sent in bodies)
    site.check(result["url"])


@pytest.mark.parametrize(
    ("job", "options"),
    [
        ({}, {}),
        ({"as": "buffer"}, {"uploadDataDuringCreation": True}),
        ({"as": "buffer"}, {"parallelUploads": 2}),
    ],
    ids=str,
)
def test_tus_js_client_uploads_an_empty_file(site, node, job, options):
    result = node.run(options, file="empty", **job)
    assert "error" not in result
    site.check(result["url"], b"")


def test_tus_js_client_gets_back_its_metadata(site, node):
    said = {"filename": NAME, "filetype": "image/tiff", "note": "", "relativePath": "a/日本/b"}
    result = node.run({"metadata": said, "addRequestId": True})
    [created] = asked(result, "POST")
    assert len(created["sent"]["x-request-id"]) == 36
    answer = site.ask("HEAD", result["url"], **TUS)
    assert answer.headers["Upload-Metadata"] == created["sent"]["upload-metadata"]
    pairs = (pair.partition(" ") for pair in answer.headers["Upload-Metadata"].split(","))
    assert {key: base64.b64decode(value).decode() for key, _, value in pairs} == said
    assert answer.headers["Upload-Length"] == answer.headers["Upload-Offset"] == str(len(DATA))
    site.check(result["url"])


@pytest.mark.parametrize(
    ("options", "after"),
    [
        ({}, TWO_CHUNKS),
        ({"chunkSize": CHUNK}, IN_THE_THIRD),
        ({"parallelUploads": 3, "chunkSize": 100_000}, IN_THE_THIRD),
    ],
    ids=str,
)
def test_tus_js_client_that_was_killed_is_resumed_by_another(site, source, tmp_path, options, after):
    job = {"store": str(tmp_path / "urls")}
    with Wire(site.server.port, after) as wire:
        node = Node(site, source, wire.url)
        wire.then = node.kill
        assert node.run(options, **job) is None
        assert "open" in {upload.state for upload in site.stored()}
        result = node.run(options, **job)
    assert "error" not in result
    assert result["resumed"] == 1
    heads = asked(result, "HEAD")
    assert len(heads) >= options.get("parallelUploads", 1)
    if "chunkSize" in options:
        assert sum(int(head["got"]["upload-offset"]) for head in heads) >= CHUNK
    site.check(result["url"])


@pytest.mark.parametrize(
    ("job", "options"),
    [
        ({}, {"chunkSize": CHUNK}),
        ({"chunked": True}, {"parallelUploads": 3}),
        ({"as": "buffer"}, {"chunkSize": CHUNK, **IETF}),
    ],
    ids=["tus", "parallel", "ietf"],
)
def test_tus_js_client_goes_on_when_the_server_was_killed(site, source, job, options):
    with Wire(site.server.port, IN_THE_THIRD, lambda: crash(site)) as wire:
        result = Node(site, source, wire.url).run(options, **job)
        assert wire.broken.is_set()
    assert "error" not in result
    assert {head["status"] // 100 for head in asked(result, "HEAD")} == {2}
    if "parallelUploads" not in options:
        check_offsets(result)
    site.check(result["url"])


def test_tus_js_client_resumes_after_an_abort(site, source):
    with Wire(site.server.port, IN_THE_THIRD, stay=True) as wire:
        node = Node(site, source, wire.url)
        wire.then = lambda: node.signal(signal.SIGUSR1)
        result = node.run({"chunkSize": CHUNK})
    assert result["aborts"] == 1
    check_offsets(result)
    site.check(result["url"])


@pytest.mark.parametrize("options", [{}, {"chunkSize": CHUNK}, {"parallelUploads": 3}], ids=str)
def test_tus_js_client_does_not_wait_for_its_own_dead_connection(site, source, options):
    # The server's end of the broken connection stays open, as it does when a notebook changes its network.
    with Wire(site.server.port, IN_THE_THIRD, hold=True) as wire:
        result = Node(site, source, wire.url).run({**options, "retryDelays": [0, 0, 0]})
        assert wire.broken.is_set()
    assert "error" not in result
    assert {head["status"] for head in asked(result, "HEAD")} == {200}
    site.check(result["url"])


def test_tus_js_client_terminates_an_upload_on_its_way(site, source):
    with Wire(site.server.port, IN_THE_THIRD, stay=True) as wire:
        node = Node(site, source, wire.url)
        wire.then = lambda: node.signal(signal.SIGUSR2)
        result = node.run({"chunkSize": CHUNK})
    assert result["terminated"]
    [deleted] = asked(result, "DELETE")
    assert deleted["status"] == 204
    assert site.uploads() == []
    assert site.ask("HEAD", result["url"], **TUS).status_code in (404, 410)


def test_tus_js_client_terminates_a_finished_upload(site, node):
    url = node.run()["url"]
    assert "error" not in node.run(do="terminate", url=url)
    assert site.ask("GET", url).status_code == 404
    assert "404" in node.run(do="terminate", url=url)["error"]


def test_tus_js_client_begins_anew_when_its_upload_is_gone(site, node, tmp_path):
    job = {"store": str(tmp_path / "urls")}
    first = node.run(**job)["url"]
    assert site.ask("DELETE", first).status_code == 204
    second = node.run(**job)
    assert second["resumed"] == 1
    assert second["url"] != first
    site.check(second["url"])


# --- tus-js-client, as a client of Resumable Uploads for HTTP ---


@pytest.mark.parametrize(
    ("job", "options", "patches"),
    [
        ({}, {}, 1),
        ({}, {"chunkSize": CHUNK}, 4),
        ({}, {"uploadDataDuringCreation": True}, 0),
        ({}, {"uploadDataDuringCreation": True, "chunkSize": CHUNK}, 3),
        ({"chunked": True}, {"chunkSize": CHUNK}, 4),
    ],
    ids=str,
)
def test_ietf_client_uploads(site, node, job, options, patches):
    # From a file it never says that its last chunk is the last one, so it reads the file first.
    result = node.run({**options, **IETF}, **{"as": "buffer", **job})
    assert "error" not in result
    assert len(asked(result, "PATCH")) == patches
    assert not any("tus-resumable" in one["got"] for one in result["requests"])
    site.check(result["url"])


def test_ietf_client_uploads_an_empty_file(site, node):
    result = node.run({"uploadDataDuringCreation": True, **IETF}, file="empty", **{"as": "buffer"})
    assert "error" not in result
    site.check(result["url"], b"")


def test_ietf_client_that_was_killed_is_resumed_by_another(site, source, tmp_path):
    job = {"store": str(tmp_path / "urls"), "as": "buffer"}
    with Wire(site.server.port, IN_THE_THIRD) as wire:
        node = Node(site, source, wire.url)
        wire.then = node.kill
        assert node.run({"chunkSize": CHUNK, **IETF}, **job) is None
        result = node.run({"chunkSize": CHUNK, **IETF}, **job)
    assert result["resumed"] == 1
    check_offsets(result)
    assert all(head["got"]["upload-complete"] == "?0" for head in asked(result, "HEAD"))
    site.check(result["url"])


def test_ietf_client_resumes_after_an_abort(site, source):
    with Wire(site.server.port, IN_THE_THIRD, stay=True) as wire:
        node = Node(site, source, wire.url)
        wire.then = lambda: node.signal(signal.SIGUSR1)
        result = node.run({"chunkSize": CHUNK, **IETF}, **{"as": "buffer"})
    assert result["aborts"] == 1
    site.check(result["url"])


# --- tuspy ---


class Open(io.BytesIO):
    """A file that stays open: the client closes it when it takes its fingerprint, and goes on to read it."""

    def close(self) -> None:
        pass


def tuspy(site: Site, url: str = "", data: bytes = DATA, **options: Any) -> Any:
    """Return an uploader that sends checksums."""
    client = TusClient(url or site.server.url, headers=site.headers)
    settings = {"chunk_size": CHUNK, "metadata": {"filename": NAME}, "upload_checksum": True, "retry_delay": 0}
    return client.uploader(file_stream=Open(data), **{**settings, **options})


class TestTuspy:
    @pytest.mark.parametrize("checksum", [True, False])
    def test_uploads(self, site, checksum):
        uploader = tuspy(site, upload_checksum=checksum)
        uploader.upload()
        site.check(uploader.url)

    def test_uploads_in_one_request(self, site):
        uploader = tuspy(site, chunk_size=sys.maxsize)
        uploader.upload()
        site.check(uploader.url)

    def test_uploads_an_empty_file(self, site):
        uploader = tuspy(site, data=b"")
        uploader.upload()
        site.check(uploader.url, b"")

    def test_uploads_through_its_asynchronous_side(self, site):
        client = TusClient(site.server.url, headers=site.headers)
        uploader = client.async_uploader(file_stream=Open(DATA), chunk_size=CHUNK, metadata={"filename": NAME})
        asyncio.run(uploader.upload())
        site.check(uploader.url)

    def test_another_one_resumes(self, site, tmp_path):
        store = FileStorage(str(tmp_path / "urls"))
        first = tuspy(site, store_url=True, url_storage=store)
        first.upload(stop_at=TWO_CHUNKS + 5)
        second = tuspy(site, store_url=True, url_storage=store)
        assert (second.url, second.offset) == (first.url, TWO_CHUNKS + 5)
        second.upload()
        store.close()
        site.check(second.url)

    def test_tries_again_when_the_connection_broke(self, site):
        with Wire(site.server.port, IN_THE_THIRD) as wire:
            uploader = tuspy(site, wire.url, retries=3)
            uploader.upload()
            assert wire.broken.is_set()
        site.check(uploader.url)

    def test_tries_again_when_the_server_was_killed(self, site):
        with Wire(site.server.port, IN_THE_THIRD, lambda: crash(site, kept=TWO_CHUNKS)) as wire:
            uploader = tuspy(site, wire.url, retries=3)
            uploader.upload()
            assert wire.broken.is_set()
        site.check(uploader.url)

    def test_resumes_what_a_killed_process_began(self, site, tmp_path):
        code = (
            "import sys, test_tus_clients as t; from tusclient.storage.filestorage import FileStorage\n"
            "class Me: headers = {'X-User': sys.argv[1]}\n"
            "t.tuspy(Me, sys.argv[2], store_url=True,"
            " url_storage=FileStorage(sys.argv[3])).upload()"
        )
        with Wire(site.server.port, IN_THE_THIRD) as wire:
            arguments = [site.user, wire.url, str(tmp_path / "urls")]
            path = os.pathsep.join(sys.path)
            process = subprocess.Popen([sys.executable, "-c", code, *arguments], env={**os.environ, "PYTHONPATH": path})
            wire.then = process.kill
            assert process.wait(30) == -signal.SIGKILL
            store = FileStorage(str(tmp_path / "urls"))
            uploader = tuspy(site, wire.url, store_url=True, url_storage=store)
            # With a checksum the bytes of a request are kept all or not at all.
            assert uploader.offset == TWO_CHUNKS
            uploader.upload()
            store.close()
        site.check(uploader.url)

    def test_sees_that_bytes_with_a_wrong_checksum_are_not_kept(self, site):
        uploader = tuspy(site)
        uploader.upload_chunk()
        broken = base64.b64encode(hashlib.sha1(b"other bytes").digest()).decode()
        headers = {**TUS_PATCH, "Upload-Offset": str(CHUNK), "Upload-Checksum": f"sha1 {broken}"}
        answer = site.session.patch(uploader.url, DATA[CHUNK:], headers=headers)
        assert answer.status_code == 460
        assert uploader.get_offset() == CHUNK
        uploader.upload()
        site.check(uploader.url)


# --- aiotus ---

RETRY = aiotus.RetryConfiguration(retry_attempts=5, max_retry_period_seconds=0.05)


def aiotus_headers(site: Site) -> dict[str, str]:
    # It cannot take a path for the URL of an upload.
    return {**site.headers, "X-Absolute": "please"}


def aiotus_upload(site: Site, url: str = "", data: bytes = DATA) -> str:
    """Upload with aiotus; return the URL of the upload."""
    metadata = {"filename": NAME.encode(), "flag": None}
    location = asyncio.run(aiotus.upload(
        url or site.server.url, io.BytesIO(data), metadata, config=RETRY, headers=aiotus_headers(site), chunksize=CHUNK
    ))  # fmt: skip
    assert location is not None
    return str(location)


@pytest.mark.parametrize("data", [DATA, b""], ids=["file", "empty"])
def test_aiotus_uploads_and_reads_its_metadata(site, data):
    url = aiotus_upload(site, data=data)
    metadata = asyncio.run(aiotus.metadata(url, config=RETRY, headers=site.headers))
    assert metadata == {"filename": NAME.encode(), "flag": None}
    site.check(url, data)


def test_aiotus_tries_again_when_the_connection_broke(site):
    with Wire(site.server.port, IN_THE_THIRD) as wire:
        url = aiotus_upload(site, wire.url)
        assert wire.broken.is_set()
    site.check(url)


def test_aiotus_tries_again_when_the_server_was_killed(site):
    with Wire(site.server.port, IN_THE_THIRD, lambda: crash(site)) as wire:
        url = aiotus_upload(site, wire.url)
        assert wire.broken.is_set()
    site.check(url)


def test_aiotus_resumes_by_url(site):
    url = begun(site, "tus")
    assert append(site, url, 0, DATA[:TWO_CHUNKS]).status_code == 204

    async def resume() -> None:
        async with aiohttp.ClientSession() as session:
            assert await aiotus.core.offset(session, url, headers=site.headers) == TWO_CHUNKS
            await aiotus.core.upload_buffer(session, url, io.BytesIO(DATA), chunksize=CHUNK, headers=site.headers)

    asyncio.run(resume())
    site.check(url)


@pytest.mark.parametrize("broken", [False, True], ids=["whole", "broken"])
def test_aiotus_puts_parts_together(site, broken):
    parts = [io.BytesIO(DATA[start : start + 300_000]) for start in range(0, len(DATA), 300_000)]
    with Wire(site.server.port, IN_THE_THIRD if broken else sys.maxsize) as wire:
        location = asyncio.run(aiotus.upload_multiple(
            wire.url, parts, {"filename": NAME.encode()}, config=RETRY, headers=aiotus_headers(site), chunksize=100_000
        ))  # fmt: skip
        assert wire.broken.is_set() == broken
    assert location is not None
    concat = site.ask("HEAD", str(location), **TUS).headers["Upload-Concat"]
    assert concat.startswith("final;")
    assert len(concat.split(" ")) == 4
    site.check(str(location))


# --- connections that break or hang, byte for byte ---


def begun(site: Site, protocol: str) -> str:
    """Begin an upload of DATA; return its URL."""
    if protocol == "tus":
        name = base64.b64encode(NAME.encode()).decode()
        headers = {**TUS, "Upload-Length": str(len(DATA)), "Upload-Metadata": f"filename {name}"}
    else:
        headers = {**RUFH, "Upload-Length": str(len(DATA)), "Upload-Complete": "?0", **IETF["headers"]}
    answer = site.ask("POST", site.server.url, **headers)
    assert answer.status_code == 201
    return site.local(answer.headers["Location"])


def patch_headers(protocol: str, offset: int, end: int = len(DATA)) -> dict[str, str]:
    if protocol == "tus":
        return {**TUS_PATCH, "Upload-Offset": str(offset)}
    complete = f"?{int(end == len(DATA))}"
    return {**RUFH, "Content-Type": RUFH_TYPE, "Upload-Offset": str(offset), "Upload-Complete": complete}


def append(site: Site, url: str, offset: int, content: bytes, protocol: str = "tus") -> requests.Response:
    """Send bytes in a request that has a second to be answered."""
    headers = patch_headers(protocol, offset, offset + len(content))
    return site.session.patch(url, content, headers=headers, timeout=1)


def half_sent(
    site: Site, url: str, protocol: str, *, offset: int = 0, count: int = len(DATA) // 2, chunked: bool = False
) -> tuple[socket.socket, int]:
    """Begin to send all that follows an offset; return the connection, and how much is kept of what was sent."""
    length = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(len(DATA) - offset)}
    headers = {**patch_headers(protocol, offset), **site.headers, **length, "Host": "localhost"}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    body = DATA[offset : offset + count]
    if chunked:
        body = f"{count:x}\r\n".encode() + body + b"\r\n"
    connection = socket.create_connection(("127.0.0.1", site.server.port), timeout=10)
    connection.sendall(f"PATCH {url.removeprefix(site.server.origin)} HTTP/1.1\r\n{head}\r\n".encode() + body)
    return connection, offset + count


def wait_for_offset(site: Site, url: str, offset: int) -> None:
    wait_until(lambda: site.offset(url) == offset, seconds=10, what=f"{offset} bytes")


def send_all_that_gets_through(connection: socket.socket, content: bytes) -> bytes:
    """Send the rest of a request; return what the server says to it until it closes."""
    received = b""
    try:
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)
        while part := connection.recv(1 << 16):
            received += part
    except ConnectionError:
        pass
    return received


@pytest.fixture(params=["tus", "rufh"])
def protocol(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_what_arrived_before_a_cut_is_kept_to_the_byte(site, protocol, chunked):
    url = begun(site, protocol)
    connection, half = half_sent(site, url, protocol, chunked=chunked)
    connection.close()
    wait_for_offset(site, url, half)
    answer = site.ask("HEAD", url, **(TUS if protocol == "tus" else RUFH))
    assert answer.headers["Upload-Offset"] == str(half)
    assert answer.headers["Upload-Length"] == str(len(DATA))
    assert append(site, url, half, DATA[half:], protocol).ok
    site.check(url)


@pytest.mark.parametrize("first", ["HEAD", "PATCH"])
def test_client_that_comes_back_does_not_wait_for_its_hanging_connection(site, protocol, first):
    url = begun(site, protocol)
    connection, half = half_sent(site, url, protocol)
    with connection:
        wait_for_offset(site, url, half)
        started = time.monotonic()
        if first == "HEAD":
            answer = site.session.head(url, headers=TUS if protocol == "tus" else RUFH, timeout=1)
            assert answer.headers["Upload-Offset"] == str(half)
        else:
            answer = append(site, url, half, DATA[half : half + 1000], protocol)
            assert answer.ok
        assert time.monotonic() - started < 1
        kept = int(answer.headers["Upload-Offset"])
        # What still comes on the old connection is other data, so that a single byte of it would show.
        refused = send_all_that_gets_through(connection, bytes(len(DATA) - half))
    assert b"409" in refused[:13] or not refused
    assert site.offset(url) == kept
    assert append(site, url, kept, DATA[kept:], protocol).ok
    site.check(url)


def test_client_comes_back_again_and_again(site):
    url = begun(site, "tus")
    hanging: list[socket.socket] = []
    try:
        for turn in range(3):
            connection, kept = half_sent(site, url, "tus", offset=turn * 1000, count=1000)
            hanging.append(connection)
            wait_for_offset(site, url, kept)
            assert site.session.head(url, headers=TUS, timeout=1).headers["Upload-Offset"] == str(kept)
        assert append(site, url, 3000, DATA[3000:]).status_code == 204
        for connection in hanging:
            # Nor do they keep the threads of the server until the client has been silent for a minute.
            assert connection.recv(12) == b"HTTP/1.1 409"
    finally:
        for connection in hanging:
            connection.close()
    site.check(url)


# --- the common side of what was uploaded ---


def test_uploads_of_all_clients_are_swept(site, node, monkeypatch):
    """Finished and unfinished ones of every client expire as any other upload does."""
    node.run({"parallelUploads": 3})
    node.run({"uploadDataDuringCreation": True, **IETF}, **{"as": "buffer"})
    uploader = tuspy(site)
    uploader.upload_chunk()
    aiotus_upload(site)
    begun(site, "tus")
    begun(site, "rufh")
    listed = site.uploads()
    assert sorted(upload["state"] for upload in listed).count("finished") >= 3
    assert sum(upload["state"] == "open" for upload in listed) == 3
    app = host.make_app(UPLOAD_HELPER_FOLDER=str(site.folder), UPLOAD_HELPER_EXPIRY=1)
    app.cli.add_command(uploads)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)
    swept = app.test_cli_runner().invoke(args=["uploads", "sweep"])
    assert swept.exit_code == 0, swept.output
    assert int(swept.output.split()[0]) >= len(listed)
    assert site.uploads() == []
