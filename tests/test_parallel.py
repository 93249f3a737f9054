"""Many connections and several server processes at the same upload."""

from __future__ import annotations

import hashlib
import itertools
import queue
import random
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from faults import ChunkClient, ask, chunk_request, config, put, record, reset
from servers import Gunicorn, wait_until
from upload_helper.config import MIB, Durability
from upload_helper.protocols.chunked import ChunkRequest
from upload_helper.service import UploadService
from upload_helper.stores import LocalStore

KIB = 1 << 10


@pytest.fixture(scope="module")
def finished_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "finished"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, finished_log: Path) -> Iterator[Gunicorn]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINISHED_LOG", str(finished_log))
        folder = tmp_path_factory.mktemp("parallel") / "uploads"
        with Gunicorn(folder, workers=4, threads=4, app="faults:counting_app()") as server:
            server.folder = folder
            yield server


@dataclass
class File:
    """A file of random bytes that needs the memory of one chunk only."""

    size: int
    chunk: int
    seed: int

    def __post_init__(self) -> None:
        self._block = random.Random(self.seed).randbytes(self.chunk)

    @property
    def count(self) -> int:
        return -(-self.size // self.chunk)

    def part(self, number: int) -> bytes:
        length = min(self.chunk, self.size - number * self.chunk)
        return (number.to_bytes(8, "big") + self._block[8:])[:length]

    def digest(self) -> str:
        digest = hashlib.sha256()
        for number in range(self.count):
            digest.update(self.part(number))
        return digest.hexdigest()


def send_wildly(server: Gunicorn, file: File, identifier: str, watch: Callable[[], None]) -> str:
    """Send in random order over 8 connections, a third of the chunks twice at once and one in six cut off before."""
    chance = random.Random(file.seed)
    values = {"fileName": "f.bin", "totalSize": file.size, "chunkCount": file.count, "identifier": identifier}
    jobs: queue.SimpleQueue[tuple[int, float]] = queue.SimpleQueue()
    for number in chance.sample(range(file.count), file.count):
        for _ in range(2 if chance.random() < 1 / 3 else 1):
            jobs.put((number, chance.random()))

    def work(_: int) -> None:
        client = ChunkClient(server.port, values)
        try:
            while True:
                number, luck = jobs.get_nowait()
                content = file.part(number)
                if luck < 1 / 6:
                    client.cut(number, content, int(6 * luck * len(content)), hard=luck < 1 / 12)
                client.insist(number, content)
        except queue.Empty:
            client.close()

    with ThreadPoolExecutor(8) as pool:
        working = [pool.submit(work, n) for n in range(8)]
        while not all(future.done() for future in working):
            watch()
        for future in working:
            future.result()
    status = ask(server.port, f"/uploads?{urlencode(values)}")
    assert (status["state"], status["missing"]) == ("finished", [])
    return status["uploadUid"]


def check_digest(server: Gunicorn, uid: str, digest: str) -> None:
    answer = ask(server.port, "/_/surveyImport", {"uploadUid": uid})
    assert answer["sha256"] == digest


def test_random_order_repeated_and_cut_chunks_make_the_right_file(server):
    file = File(48 * MIB - 12_345, 1 * MIB, seed=1)
    uid = send_wildly(server, file, "fast", lambda: time.sleep(0.01))
    check_digest(server, uid, file.digest())
    assert not list((server.folder / uid).glob("side-*"))


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(3))
def test_two_gib_need_little_memory(server, seed):
    warm = File(512 * MIB, 8 * MIB, seed=100 + seed)
    uid = send_wildly(server, warm, f"warm-{seed}", lambda: time.sleep(0.05))
    check_digest(server, uid, warm.digest())
    LocalStore(config(server.folder)).delete(uid)
    idle = server.memory()
    peak = idle

    def watch() -> None:
        nonlocal peak
        peak = max(peak, server.memory())
        time.sleep(0.05)

    file = File(2048 * MIB + 777, 8 * MIB, seed=seed)
    started = time.monotonic()
    uid = send_wildly(server, file, f"soak-{seed}", watch)
    took = time.monotonic() - started
    check_digest(server, uid, file.digest())
    LocalStore(config(server.folder)).delete(uid)
    print(f"\n2 GiB in {took:.1f} s; idle {idle / MIB:.1f} MiB, peak {(peak - idle) / MIB:+.1f} MiB")
    assert peak - idle <= 20 * MIB


def open_stalled(server: Gunicorn, values: dict[str, Any], content: bytes, encoding: str) -> tuple[socket.socket, int]:
    """Send a request up to the middle of its content; return the connection and how many bytes are still due."""
    head, tail = chunk_request(values, content, encoding, server.port)
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    connection.sendall(head + tail[: len(content) // 2])
    return connection, len(tail) - len(content) // 2


def send_and_read(connection: socket.socket, rest: bytes) -> bytes:
    """Send the rest of a request; return what the server says to it, or nothing where it closed the connection."""
    received = b""
    try:
        connection.sendall(rest)
        while b'"code"' not in received and (part := connection.recv(1 << 16)):
            received += part
    except ConnectionError:
        pass
    return received


def uid_of(folder: Path, name: str) -> str:
    """Return the uid of the upload whose file has this name, or nothing while there is none."""
    records = (path for path in folder.glob("*/upload.json") if f'"{name}"' in path.read_text())
    return next((path.parent.name for path in records), "")


def is_on_disk(folder: Path, name: str, needle: bytes) -> bool:
    """Say whether the bytes stand somewhere in an upload's files."""
    uid = uid_of(folder, name)
    files = [path for path in (folder / uid).iterdir() if path.name == "data" or "side" in path.name] if uid else []
    return any(needle in path.read_bytes() for path in files)


REGULAR = (0, 2 * MIB, 4 * MIB, 5 * MIB)
IRREGULAR = (0, 2 * MIB, 3 * MIB + 500 * KIB, 5 * MIB)
LONGER = (0, 1 * MIB, 4 * MIB, 5 * MIB)
SHORT = (0, 200 * KIB, 400 * KIB, 500 * KIB)


@pytest.mark.parametrize("number", [0, 1], ids=["first chunk", "later chunk"])
@pytest.mark.parametrize("encoding", ["raw", "multipart"])
@pytest.mark.parametrize("cuts", [REGULAR, IRREGULAR, LONGER, SHORT], ids=["regular", "irregular", "longer", "short"])
def test_stalled_chunk_is_taken_over_at_once_and_can_do_nothing_afterwards(server, cuts, encoding, number):
    data = random.Random(f"{cuts} {encoding} {number}").randbytes(cuts[-1])
    parts = [data[start:end] for start, end in itertools.pairwise(cuts)]
    name = f"{encoding}-{number}-{cuts[1]}-{cuts[2]}"
    values = {"fileName": name, "totalSize": len(data), "chunkCount": 3, "identifier": name}
    client = ChunkClient(server.port, values)
    if number:
        client.send(0, parts[0])
    content = parts[number]
    older, due = open_stalled(server, {**values, "chunkNumber": number}, content, encoding)
    with older:
        if cuts != SHORT:
            wait_until(lambda: is_on_disk(server.folder, name, content[1000:5000]), what="half of the chunk")
        started = time.monotonic()
        status = ChunkClient(server.port, values).send_once(number, content, encoding)
        while cuts == SHORT and status == 409:
            # A short chunk is claimed when its bytes are read, which may be now.
            status = ChunkClient(server.port, values).send_once(number, content, encoding)
        assert status == 200
        assert time.monotonic() - started < 1
        answer = send_and_read(older, b"x" * due)
        assert answer.startswith((b"HTTP/1.1 409", b"HTTP/1.1 400")) or not answer
    for rest in range(3):
        client.insist(rest, parts[rest])
    client.close()
    check_digest(server, uid_of(server.folder, name), hashlib.sha256(data).hexdigest())


def at_once(count: int, act: Callable[[int], Any]) -> list[Any]:
    barrier = threading.Barrier(count)

    def wait_and_act(number: int) -> Any:
        barrier.wait()
        return act(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(wait_and_act, range(count)))


@pytest.mark.parametrize("count", [2, 8])
@pytest.mark.parametrize("same", [True, False], ids=["same chunk", "each its own"])
def test_first_chunks_at_once_under_one_identifier_make_one_upload(server, count, same):
    data = random.Random(count).randbytes(8 * 10 * KIB)
    values = {"fileName": f"first-{count}-{same}", "totalSize": len(data), "chunkCount": 8, "identifier": "first"}
    before = set(server.folder.iterdir()) if server.folder.exists() else set()

    def begin(n: int) -> str:
        client = ChunkClient(server.port, values)
        number = 0 if same else n
        client.insist(number, data[number * 10 * KIB :][: 10 * KIB])
        client.close()
        return ask(server.port, f"/uploads?{urlencode(values)}")["uploadUid"]

    uids = at_once(count, begin)
    assert len(set(uids)) == 1
    made = {path for path in set(server.folder.iterdir()) - before if not path.name.startswith(".")}
    assert made == {server.folder / uids[0]}
    status = ask(server.port, f"/uploads/{uids[0]}/status")
    assert status["receivedBytes"] == (1 if same else count) * 10 * KIB


@pytest.mark.parametrize("cuts", [(0, 4 * MIB, 8 * MIB), (0, 1 * MIB, 5 * MIB, 8 * MIB)], ids=["regular", "irregular"])
@pytest.mark.parametrize("count", [2, 8])
def test_finalisers_at_once_make_one_file_and_all_succeed(server, finished_log, cuts, count):
    data = random.Random(count).randbytes(cuts[-1])
    digest = hashlib.sha256(data).hexdigest()
    store = LocalStore(config(server.folder))
    # Through the store, which leaves an upload whole but not finished.
    upload, _ = store.create(record(data, len(cuts) - 1, owner="", checksum=f"sha256:{digest}"))
    for number, (start, end) in enumerate(itertools.pairwise(cuts)):
        put(store, upload, number, data[start:end])
    answers = at_once(count, lambda _: ask(server.port, "/_/surveyImport", {"uploadUid": upload.uid}))
    assert [(answer["http"], answer.get("sha256")) for answer in answers] == count * [(200, digest)]
    assert finished_log.read_text().split().count(upload.uid) == 1
    assert len(list((server.folder / upload.uid).iterdir())) == 3


def test_cut_chunk_is_not_there(server):
    data = random.Random(13).randbytes(4 * MIB)
    values = {"fileName": "cut", "totalSize": len(data), "chunkCount": 2, "identifier": "cut"}
    client = ChunkClient(server.port, values)
    uid = client.send(0, data[: 2 * MIB])[1]["uploadUid"]
    for hard in (True, False):
        for encoding in ("raw", "multipart"):
            content = data[2 * MIB :]
            connection, _ = open_stalled(server, {**values, "chunkNumber": 1}, content, encoding)
            wait_until(lambda c=content: is_on_disk(server.folder, "cut", c[:5000]), what="half of the chunk")
            reset(connection) if hard else connection.close()
            assert ask(server.port, f"/uploads/{uid}/status")["missing"] == [[1, 1]]
    client.insist(1, data[2 * MIB :])
    client.close()
    check_digest(server, uid, hashlib.sha256(data).hexdigest())


# Very many chunks


def service(folder: Path) -> UploadService:
    return UploadService(config(folder, durability=Durability.FINISH), LocalStore(config(folder)), lambda *_: None)


def send_small(service: UploadService, data: bytes, numbers: range, uid: str, identifier: str = "") -> str:
    for number in numbers:
        content = data[number * KIB : (number + 1) * KIB]
        chunk = ChunkRequest("many.bin", len(data), -(-len(data) // KIB), number, content, uid, identifier)
        uid = service.receive(chunk, "").uploadUid
    return uid


def test_five_thousand_chunks_make_the_right_file(folder):
    data = random.Random(14).randbytes(5000 * KIB - 1)
    many = service(folder)
    uid = send_small(many, data, range(5000), "")
    assert Path(many.get_upload(uid, "").path).read_bytes() == data


@pytest.mark.soak
def test_chunk_number_hundred_thousand_costs_what_number_hundred_does(server):
    data = random.Random(15).randbytes(100_000 * KIB)
    many = service(server.folder)
    late = send_small(many, data, range(98_000), "", "late")
    early = send_small(many, data, range(1), "", "early")
    costs: dict[str, list[int]] = {early: [], late: []}
    # By turns, so that whatever else the machine does hits both; processor time, for the disk has moods of its own.
    for step in range(1000):
        for uid, number in ((early, 1 + step), (late, 98_000 + step)):
            before = time.thread_time_ns()
            send_small(many, data, range(number, number + 1), uid)
            costs[uid].append(time.thread_time_ns() - before)
    ratio = statistics.median(costs[late]) / statistics.median(costs[early])
    print(f"\nchunk 98 000 to chunk 1: {ratio:.3f} ({statistics.median(costs[early]) / 1000:.0f} µs)")
    values = {"fileName": "many.bin", "totalSize": len(data), "chunkCount": 100_000, "uploadUid": late}
    client = ChunkClient(server.port, values)
    for number in range(99_000, 100_000):
        assert client.send(number, data[number * KIB : (number + 1) * KIB])[0] == 200
    client.close()
    check_digest(server, late, hashlib.sha256(data).hexdigest())
    assert ratio <= 1.1
