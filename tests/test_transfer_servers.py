"""Files that are sent to real servers, over links that break: ours under gunicorn, the reference of tus, and nginx."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from links import BreakingLink
from proxies import Nginx
from servers import Gunicorn, private_memory
from upload_helper.transfer.addresses import Endpoint
from upload_helper.transfer.errors import AnswerError, LinkError
from upload_helper.transfer.upload import Sent, UploadRequest, send
from upload_helper.transfer.web import Line
from wire_proxy import Fault, WireProxy

NODE = Path(__file__).parent / "node"
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
GOING_ON = ("tus", "rufh", "chunks")
LOST = 256 * KIB
"""Bytes of a connection that is reset which may be on their way between two sockets."""
ANN = {"X-User": "ann"}


class Tus:
    """The reference server of tus, from npm, with its file store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        command = ["node", NODE / "tus-server.mjs", folder]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.port = int(self._process.stdout.readline())

    def __enter__(self) -> Tus:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


def await_answer(server: Gunicorn) -> None:
    """Wait until a server is up, so that its first answer takes no longer than any other."""
    with Line(Endpoint.of(server.url, ANN)) as line:
        line.ask("OPTIONS")


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Iterator[Gunicorn]:
    """Our server, for all tests that do nothing to it."""
    folder = tmp_path_factory.mktemp("ours") / "uploads"
    with Gunicorn(folder, workers=2, UPLOAD_HELPER_DURABILITY="none") as server:
        await_answer(server)
        yield server


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Iterator[Tus]:
    with Tus(tmp_path_factory.mktemp("reference") / "files") as server:
        yield server


def write(path: Path, size: int) -> str:
    """Write a file that is the same nowhere twice, of a time that is past; return its digest."""
    source, digest = random.Random(size), hashlib.sha256()
    with path.open("wb") as file:
        for start in range(0, size, MIB):
            block = source.randbytes(min(MIB, size - start))
            digest.update(block)
            file.write(block)
    os.utime(path, (1e9, 1e9))
    return digest.hexdigest()


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cuts(count: int, size: int) -> list[int]:
    """Return the places of breaks in what is sent of a file of this size."""
    chance = random.Random(count)
    return [(number * size + chance.randrange(2000, size)) // count for number in range(count)]


def hasty(seconds: float) -> None:
    """Wait as a client does, only shorter: a server has to read what it was sent before somebody asks about it."""
    time.sleep(seconds / 50)


def send_to(url: str, file: Path, **options: object) -> Sent:
    with Line(Endpoint.of(url, ANN), stall=20) as line:
        return send(UploadRequest(url, file, **options), line, sleep=hasty)


def through_cuts(port: int, path: str, file: Path, count: int, **options: object) -> tuple[Sent, BreakingLink]:
    with BreakingLink(port, at=cuts(count, file.stat().st_size)) as link:
        return send_to(f"http://127.0.0.1:{link.port}{path}", file, **options), link


def stored(server: Gunicorn, sent: Sent, tmp_path: Path) -> Path:
    """Return a file with what the server has under the address of an upload."""
    target = tmp_path / "fetched"
    with (
        Line(Endpoint.of(server.origin, ANN)) as line,
        line.ask("GET", urlsplit(sent.url).path, stream=True) as answer,
        target.open("wb") as file,
    ):
        file.writelines(line.blocks(answer))
    return target


class TestOurs:
    @pytest.mark.parametrize("protocol", ["", *GOING_ON])
    def test_a_file_arrives_through_breaks(self, shared, tmp_path, protocol):
        digest = write(tmp_path / "a.bin", 16 * MIB)
        sent, link = through_cuts(shared.port, "/uploads", tmp_path / "a.bin", 8, protocol=protocol, piece=MIB)
        assert digest_of(stored(shared, sent, tmp_path)) == digest
        assert link.breaks == 8
        # Of a chunk that was cut nothing is kept, of a piece what the server had read of it.
        assert link.passed <= 1.02 * 16 * MIB + 8 * (MIB if protocol == "chunks" else LOST)

    @pytest.mark.parametrize("protocol", GOING_ON)
    @pytest.mark.parametrize(
        "fault",
        [
            Fault(up=700_000, stalls=True),
            Fault(up=700_000, resets=True),
            Fault(down=40),
            Fault(down=500),
            Fault(corrupts_up=300_000),
        ],
        ids=["stalls", "resets", "answer cut at once", "answer cut", "corrupts"],
    )
    def test_a_file_arrives_over_a_link_that_does_worse(self, shared, tmp_path, protocol, fault):
        digest = write(tmp_path / "a.bin", 2 * MIB)
        with WireProxy(shared.port, lambda number: fault if number in (0, 2, 3) else Fault()) as proxy:
            url = f"http://127.0.0.1:{proxy.port}/uploads"
            request = UploadRequest(
                url, tmp_path / "a.bin", protocol=protocol, piece=512 * KIB, checksums=bool(fault.corrupts_up)
            )
            with Line(Endpoint.of(url, ANN), stall=0.3) as line:
                sent = send(request, line, sleep=hasty)
        assert digest_of(stored(shared, sent, tmp_path)) == digest

    def test_memory_stays_flat_whatever_the_size(self, shared, tmp_path):
        grown = []
        for name, size in (("warm.bin", 8 * MIB), ("large.bin", 96 * MIB)):
            (tmp_path / name).touch()
            os.truncate(tmp_path / name, size)
            before = private_memory(os.getpid())
            peak = 0

            def report(done, total):
                nonlocal peak
                peak = max(peak, private_memory(os.getpid())) if done % (8 * MIB) < MIB else peak

            with Line(Endpoint.of(shared.url, ANN)) as line:
                send(UploadRequest(shared.url, tmp_path / name), line, report=report)
            grown.append(peak - before)
        assert grown[1] <= 12 * MIB

    @pytest.mark.soak
    @pytest.mark.parametrize(
        ("protocol", "piece"),
        [("tus", MIB), ("rufh", MIB), ("chunks", 0), ("tus", 0), ("rufh", 0)],
        ids=["tus-1M", "rufh-1M", "chunks", "tus", "rufh"],
    )
    def test_a_gibibyte_arrives_through_fifty_breaks(self, shared, tmp_path, protocol, piece, capsys):
        digest = write(tmp_path / "a.bin", GIB)
        sent, link = through_cuts(shared.port, "/uploads", tmp_path / "a.bin", 50, protocol=protocol, piece=piece)
        assert digest_of(stored(shared, sent, tmp_path)) == digest
        with capsys.disabled():
            print(f"\n{protocol} {piece}: {link.breaks} breaks, {link.passed / GIB:.4f} of the file on the wire")
        assert link.breaks == 50
        assert link.passed <= 1.02 * GIB

    @pytest.mark.parametrize("protocol", GOING_ON)
    def test_another_process_goes_on_after_a_server_that_was_killed(self, gunicorn, tmp_path, protocol):
        digest = write(tmp_path / "a.bin", 4 * MIB)
        server = gunicorn(workers=1)
        await_answer(server)
        state: dict[str, object] = {}
        size = 0

        def note(kept):
            state.clear()
            state.update(json.loads(json.dumps(kept)))

        def report(done, total):
            nonlocal size
            if done > 2 * MIB and not size:
                size = done
                server.kill()

        request = UploadRequest(server.url, tmp_path / "a.bin", protocol=protocol, piece=512 * KIB)
        with Line(Endpoint.of(server.url, ANN), stall=0.4) as line, pytest.raises(LinkError):
            send(request, line, state=state, save=note, report=report, sleep=lambda seconds: None)
        server.start()
        begun = []
        with Line(Endpoint.of(server.url, ANN)) as line:
            sent = send(request, line, state=state, save=note, report=lambda done, total: begun.append(done))
        assert begun[0] >= MIB
        assert sent.restarted == ""
        assert digest_of(stored(server, sent, tmp_path)) == digest

    def test_a_form_and_a_body_arrive(self, shared, tmp_path):
        digest = write(tmp_path / "a.bin", 3 * MIB + 5)
        for query, protocol in (("", "multipart"), ("?name=a.bin", "raw")):
            text = send_to(shared.url + query, tmp_path / "a.bin", protocol=protocol).text
            sent = Sent(f"{shared.origin}{json.loads(text)['url']}", "", 0)
            assert digest_of(stored(shared, sent, tmp_path)) == digest

    @pytest.mark.parametrize("protocol", [*GOING_ON, "multipart"])
    def test_a_stranger_is_refused_at_once(self, shared, tmp_path, protocol):
        write(tmp_path / "a.bin", 2 * MIB)
        endpoint = Endpoint.of(shared.url, {**ANN, "X-Role": "none"})
        with Line(endpoint) as line, pytest.raises(AnswerError) as caught:
            send(UploadRequest(shared.url, tmp_path / "a.bin", protocol=protocol), line)
        assert caught.value.answered == 403


class TestReference:
    def test_a_file_arrives_through_breaks(self, reference, tmp_path):
        digest = write(tmp_path / "a.bin", 16 * MIB)
        sent, link = through_cuts(reference.port, "/files", tmp_path / "a.bin", 8, piece=MIB)
        assert digest_of(reference.folder / sent.uid) == digest
        assert link.breaks == 8
        assert link.passed <= 1.02 * 16 * MIB + 8 * LOST

    @pytest.mark.soak
    def test_a_gibibyte_arrives_through_fifty_breaks(self, reference, tmp_path, capsys):
        digest = write(tmp_path / "a.bin", GIB)
        sent, link = through_cuts(reference.port, "/files", tmp_path / "a.bin", 50, piece=MIB)
        assert digest_of(reference.folder / sent.uid) == digest
        with capsys.disabled():
            print(f"\n@tus/server: {link.breaks} breaks, {link.passed / GIB:.4f} of the file on the wire")
        assert link.breaks == 50
        assert link.passed <= 1.02 * GIB

    @pytest.mark.parametrize("size", [0, 1, MIB, MIB + 1])
    def test_a_file_arrives_with_its_name(self, reference, tmp_path, size):
        digest = write(tmp_path / "Straße.tif", size)
        sent = send_to(f"http://127.0.0.1:{reference.port}/files", tmp_path / "Straße.tif")
        assert digest_of(reference.folder / sent.uid) == digest
        about = json.loads((reference.folder / f"{sent.uid}.json").read_text())
        assert about["metadata"]["filename"] == "Straße.tif"


class TestWebDav:
    @pytest.fixture
    def nginx(self, tmp_path):
        (tmp_path / "files").mkdir()
        locations = f"location / {{ root {tmp_path}/files; dav_methods PUT; client_max_body_size 0; }}"
        with Nginx(tmp_path / "nginx", locations) as server:
            yield server

    @pytest.mark.parametrize("size", [0, 1, 8 * MIB + 3])
    def test_a_file_is_put(self, nginx, tmp_path, size):
        digest = write(tmp_path / "Straße.tif", size)
        sent = send_to(f"{nginx.url}/", tmp_path / "Straße.tif", method="PUT")
        assert digest_of(tmp_path / "files" / "Straße.tif") == digest
        assert sent.size == size

    def test_a_put_that_was_cut_begins_again(self, nginx, tmp_path):
        digest = write(tmp_path / "a.tif", 4 * MIB)
        _, link = through_cuts(nginx.port, "/", tmp_path / "a.tif", 3, method="PUT")
        assert digest_of(tmp_path / "files" / "a.tif") == digest
        assert link.breaks == 3

    def test_a_server_that_takes_less_says_so_while_it_is_sent(self, tmp_path):
        write(tmp_path / "a.bin", 32 * MIB)
        locations = f"location / {{ root {tmp_path}; dav_methods PUT; client_max_body_size 1m; }}"
        with Nginx(tmp_path / "nginx", locations) as nginx, pytest.raises(AnswerError) as caught:
            send_to(f"{nginx.url}/b.bin", tmp_path / "a.bin", method="PUT")
        assert caught.value.answered == 413
