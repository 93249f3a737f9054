"""Killed at every instant: what was acknowledged stays, what was not is taken for nothing, and a retry works."""

from __future__ import annotations

import hashlib
import http.client
import itertools
import os
import queue
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from faults import ChunkClient, ask, complete, config, die_at, dies_at, memory_folder, missing_numbers, put, record
from servers import Gunicorn, wait_until
from upload_helper import ChecksumMismatchError, NotFoundError
from upload_helper.stores import LocalStore, local
from upload_helper.upload import Record, State

KIB = 1 << 10
DATA = random.Random(1).randbytes(900 * KIB + 7)
# Longer than what is written and acknowledged in one go; and shorter.
LONG = [DATA[i : i + 300 * KIB] for i in range(0, len(DATA), 300 * KIB)]
SHORT = [DATA[i : i + 400] for i in range(0, 1601, 400)]
IRREGULAR = [DATA[: 290 * KIB], DATA[290 * KIB : 590 * KIB], DATA[590 * KIB : 890 * KIB], DATA[890 * KIB :]]


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """Many hundred syncs: they are counted here, not waited for."""
    with memory_folder(tmp_path) as path:
        yield path


@dataclass
class Case:
    """An upload in some state, and the operation during which the process dies."""

    name: str
    parts: list[bytes]
    before: tuple[int, ...]
    """The chunks that are acknowledged before the operation."""
    operate: Callable[[LocalStore, Record, list[bytes]], object]
    members: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    mends: bool = False
    """The operation replaces acknowledged chunks, so they need not stay."""


def chunk(number: int, **how: Any) -> Callable[[LocalStore, Record, list[bytes]], object]:
    return lambda store, upload, parts: put(store, upload, number, parts[number], **how)


def finish(store: LocalStore, upload: Record, parts: list[bytes]) -> object:
    return store.finish(upload.uid)


def fail_to_finish(store: LocalStore, upload: Record, parts: list[bytes]) -> None:
    with pytest.raises(ChecksumMismatchError):
        store.finish(upload.uid)


def cut(number: int, size: int, *, known: bool) -> Callable[[LocalStore, Record, list[bytes]], object]:
    def operate(store: LocalStore, upload: Record, parts: list[bytes]) -> None:
        with store.writer(upload, number, len(parts[number]) if known else None) as writer:
            writer.write(parts[number][:size])

    return operate


WRONG = {"checksum": "md5:" + 32 * "0"}
CASES = [
    Case("first chunk", LONG, (), chunk(0)),
    Case("chunk", LONG, (0, 3), chunk(1)),
    Case("short chunk", SHORT, (0, 1), chunk(2)),
    Case("last missing chunk", SHORT, (0, 1, 2, 4), chunk(3)),
    Case("synced chunk", LONG, (0, 3), chunk(1), settings={"durability": "chunk"}),
    Case("irregular chunk", IRREGULAR, (1,), chunk(0)),
    Case("chunk of unknown length", LONG, (0,), chunk(1, known=False)),
    Case("first chunk of unknown length", LONG, (), chunk(1, known=False)),
    Case("irregular chunk of unknown length", IRREGULAR, (1,), chunk(0, known=False)),
    Case("chunk that is cut", LONG, (0,), cut(1, 280 * KIB, known=True)),
    Case("irregular chunk that is cut", IRREGULAR, (1,), cut(0, 280 * KIB, known=False)),
    Case("finishing", LONG, (0, 1, 2, 3), finish),
    Case("finishing irregular", IRREGULAR, (0, 1, 2, 3), finish),
    Case("finishing safely", IRREGULAR, (0, 1, 2, 3), finish, settings={"durability": "finish"}),
]


def begin(folder: Path, case: Case) -> tuple[LocalStore, Record]:
    store = LocalStore(config(folder, **case.settings))
    members = {"identifier": "id", **case.members}
    upload, _ = store.create(record(b"".join(case.parts), len(case.parts), **members))
    for number in case.before:
        put(store, upload, number, case.parts[number])
    return store, upload


def check_upload(folder: Path, upload: Record, parts: list[bytes], acknowledged: tuple[int, ...]) -> None:
    """Go on with an upload after the crash as a client would, and see that nothing acknowledged was lost."""
    store = LocalStore(config(folder))
    upload = store.read(upload.uid)
    if upload.state is State.OPEN:
        assert not set(acknowledged) & set(missing_numbers(store.progress(upload.uid)))
    for number in acknowledged:
        put(store, upload, number, parts[number])
    if upload.state is State.OPEN:
        assert complete(store, upload, parts) == b"".join(parts)
    finished, _ = store.finish(upload.uid)
    assert Path(store.path(finished)).read_bytes() == b"".join(parts)


def check_finished(folder: Path, upload: Record) -> None:
    """See that a finished upload keeps nothing but its file, and does not count as one on its way."""
    store = LocalStore(config(folder, max_open_uploads=1))
    store.clean()
    names = {path.name for path in (folder / upload.uid).iterdir()}
    assert names == {"upload.json", "chunks", store.read(upload.uid).data_file}
    other, _ = store.create(record(b"x", 1))
    store.delete(other.uid)


def check_empty(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """See that after a clean-up nothing is left of uploads that are gone."""
    monkeypatch.setattr(local, "_SCRATCH_SECONDS", -1)
    LocalStore(config(folder)).clean()
    left = [path for path in folder.rglob("*") if path.is_file() and ".locks" not in path.parts]
    assert [path for path in left if path.name != ".swept"] == []
    assert list((folder / ".owners").iterdir()) == []


def rounds(tmp_path: Path) -> Any:
    """Yield the number of the fatal call and a fresh folder."""
    for number in itertools.count():
        assert number < 300, "the operation never came to its end"
        yield number, tmp_path / f"{number}" / "uploads"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("die", [dies_at, partial(die_at, torn=True)], ids=["before", "within"])
def test_death_at_any_call_while_writing_and_finishing(tmp_path, monkeypatch, case, die):
    """Really killed at every call and within the long writes; right before those, it is enough to feign it."""
    for number, folder in rounds(tmp_path):
        store, upload = begin(folder, case)
        died = die(number, lambda s=store, u=upload: case.operate(s, u, case.parts))
        check_upload(folder, upload, case.parts, case.before)
        check_finished(folder, upload)
        LocalStore(config(folder)).delete(upload.uid)
        check_empty(folder, monkeypatch)
        if not died:
            return


def test_death_at_any_call_while_the_last_chunk_is_acknowledged_leaves_a_retry_that_completes(tmp_path):
    case = Case("last chunk", SHORT, (0, 1, 2, 3), chunk(4))
    for number, folder in rounds(tmp_path):
        store, upload = begin(folder, case)
        died = die_at(number, lambda s=store, u=upload: case.operate(s, u, case.parts))
        # A client that lost the answer sends the chunk again, and does not ask for the status first.
        assert put(LocalStore(config(folder)), upload, 4, SHORT[4]), f"not complete after death at call {number}"
        if not died:
            return


def test_death_at_any_call_while_a_wrong_checksum_is_found_leaves_chunks_to_send_again(tmp_path):
    case = Case("wrong checksum", SHORT, (0, 1, 2, 3, 4), fail_to_finish, members=WRONG)
    for number, folder in rounds(tmp_path):
        store, upload = begin(folder, case)
        died = die_at(number, lambda s=store, u=upload: case.operate(s, u, case.parts))
        store = LocalStore(config(folder))
        for again, content in enumerate(SHORT):
            # Without asking for the status, which would count again.
            put(store, upload, again, content)
        with pytest.raises(ChecksumMismatchError):
            store.finish(upload.uid)
        assert store.progress(upload.uid).missing == [(0, len(SHORT) - 1)]
        if not died:
            return


@pytest.mark.parametrize("asking", [True, False], ids=["status first", "at once"])
def test_death_at_any_call_while_mending_leaves_an_upload_that_can_be_mended(tmp_path, asking):
    wrong = [*SHORT[:3], SHORT[3][:100], SHORT[4]]
    for number, folder in rounds(tmp_path):
        store = LocalStore(config(folder))
        upload, _ = store.create(record(b"".join(SHORT), len(SHORT)))
        for n, content in enumerate(wrong):
            put(store, upload, n, content)
        died = die_at(number, lambda s=store, u=upload: put(s, u, 3, SHORT[3]))
        store = LocalStore(config(folder))
        if asking:
            assert set(missing_numbers(store.progress(upload.uid))) <= {3}
        put(store, upload, 3, SHORT[3])
        assert complete(store, upload, SHORT) == b"".join(SHORT)
        if not died:
            return


@pytest.mark.parametrize("identifier", ["", "id"])
@pytest.mark.parametrize("durability", ["none", "chunk"])
def test_death_at_any_call_while_creating(tmp_path, monkeypatch, identifier, durability):
    for number, folder in rounds(tmp_path):
        # One more upload, so that dying does not depend on folders that have to be made.
        LocalStore(config(folder)).create(record(b"other", 1, owner="bob"))
        wanted = record(b"".join(SHORT), len(SHORT), identifier=identifier)
        died = die_at(number, lambda f=folder, w=wanted: LocalStore(config(f, durability=durability)).create(w))
        store = LocalStore(config(folder, max_open_uploads=1 if identifier else 2))
        made = [uid for uid in store.uids() if store.read(uid).owner == "ann"]
        upload, created = store.create(record(b"".join(SHORT), len(SHORT), identifier=identifier))
        assert created is not bool(made and identifier)
        assert complete(store, upload, SHORT) == b"".join(SHORT)
        for uid in list(store.uids()):
            store.delete(uid)
        check_empty(folder, monkeypatch)
        if not died:
            return


def delete(store: LocalStore, upload: Record) -> object:
    return store.delete(upload.uid)


def sweep(store: LocalStore, upload: Record) -> object:
    store.delete_expired(upload.uid, time.time() + 60)
    store.clean()
    return None


@pytest.mark.parametrize("operate", [delete, sweep])
@pytest.mark.parametrize("sent", [2, 5], ids=["open", "finished"])
def test_death_at_any_call_while_deleting(tmp_path, monkeypatch, operate, sent):
    case = Case("deleting", SHORT, tuple(range(sent)), chunk(0))
    for number, folder in rounds(tmp_path):
        store, upload = begin(folder, case)
        if sent == len(SHORT):
            store.finish(upload.uid)
        died = die_at(number, lambda s=store, u=upload: operate(s, u))
        store = LocalStore(config(folder, max_open_uploads=1))
        # Whether it is still there or not, the client that comes back by its identifier gets one that works.
        again, _ = store.create(record(b"".join(SHORT), len(SHORT), identifier="id"))
        if again.state is State.OPEN:
            assert complete(store, again, SHORT) == b"".join(SHORT), f"death at call {number}"
        for uid in list(store.uids()):
            store.delete(uid)
        with pytest.raises(NotFoundError):
            store.read(upload.uid)
        check_empty(folder, monkeypatch)
        if not died:
            return


# Servers that are killed


class Round:
    """Four connections that send chunks until the server dies or all are sent; what was acknowledged is noted."""

    def __init__(self, port: int, values: dict[str, Any], parts: list[bytes], numbers: list[int]) -> None:
        self.acknowledged: list[int] = []
        self._stopped = False
        self._jobs: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in numbers:
            self._jobs.put(number)
        self._arguments = (port, values)
        self._parts = parts
        self._threads = [threading.Thread(target=self._work) for _ in range(4)]
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        client = ChunkClient(*self._arguments)
        try:
            while not self._stopped:
                number = self._jobs.get_nowait()
                status, answer = client.send(number, self._parts[number])
                assert status == 200, answer
                self.acknowledged.append(number)
        except (queue.Empty, OSError, http.client.HTTPException):
            pass
        finally:
            client.close()

    def stop(self) -> None:
        """Send nothing more. A request that the dead server had not taken yet is answered by the next one."""
        self._stopped = True

    def join(self) -> None:
        for thread in self._threads:
            thread.join()


def cut_up(data: bytes, size: int, chance: random.Random | None) -> list[bytes]:
    """Return the chunks of a file, of one size or, with `chance`, of any."""
    if chance is None:
        return [data[i : i + size] for i in range(0, len(data), size)]
    cuts = sorted(chance.sample(range(1, len(data)), len(data) // size))
    return [data[start:end] for start, end in itertools.pairwise([0, *cuts, len(data)])]


def kill_one_worker(server: Gunicorn, chance: random.Random) -> None:
    """Kill one process of the server while the others go on; gunicorn replaces it."""
    os.kill(chance.choice(server.pids()), signal.SIGKILL)


def kill_all(server: Gunicorn, chance: random.Random) -> None:
    """Kill every process of the server and start it anew."""
    server.kill()
    server.start()


def survive(
    server: Gunicorn, parts: list[bytes], kills: int, seed: int, kill: Callable[[Gunicorn, random.Random], None]
) -> None:
    """Upload while the server is killed again and again; go on each time with what the status asks for."""
    chance = random.Random(seed)
    data = b"".join(parts)
    values = {"fileName": "f.bin", "totalSize": len(data), "chunkCount": len(parts), "identifier": f"crash {seed}"}
    named = f"/uploads?{urlencode(values)}"
    acknowledged: set[int] = set()
    missing = list(range(len(parts)))
    while missing:
        numbers = chance.sample(missing, len(missing))
        sending = Round(server.port, values, parts, numbers)
        if kills:
            enough = chance.randint(0, len(numbers) // kills)
            wait_until(lambda s=sending, e=enough: len(s.acknowledged) >= e, what="acknowledgements")
            # Any instant will do: between two blocks, two calls, or two bytes of an answer.
            time.sleep(chance.random() * 0.01)
            kill(server, chance)
            sending.stop()
            kills -= 1
        sending.join()
        acknowledged.update(sending.acknowledged)
        status = ask(server.port, named)
        if status["http"] == 404:
            assert not acknowledged
            continue
        missing = [number for first, last in status["missing"] for number in range(first, last + 1)]
        assert not acknowledged & set(missing)
    answer = ask(server.port, "/_/surveyImport", {"uploadUid": status["uploadUid"]})
    assert (answer["http"], answer["sha256"]) == (200, hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize(
    ("regular", "kill"),
    [(True, kill_all), (False, kill_all), (True, kill_one_worker)],
    ids=["regular", "irregular", "one worker"],
)
def test_killed_server_loses_nothing_that_it_acknowledged(gunicorn, regular, kill):
    data = random.Random(20).randbytes(18 * KIB * KIB)
    parts = cut_up(data, 300 * KIB, None if regular else random.Random(21))
    survive(gunicorn(), parts, 3, int(regular), kill)


def test_server_killed_while_assembling_shows_no_half_file(gunicorn, folder):
    data = random.Random(22).randbytes(48 * KIB * KIB)
    server = gunicorn()
    parts = cut_up(data, 4 * KIB * KIB, random.Random(23))
    values = {"fileName": "f", "totalSize": len(data), "chunkCount": len(parts)}
    store = LocalStore(config(folder))
    upload, _ = store.create(record(data, len(parts), owner="", file_name="f"))
    for number in range(1, len(parts)):
        put(store, upload, number, parts[number])
    values["uploadUid"] = upload.uid
    assembled = folder / upload.uid / "assembled"
    for _ in range(2):
        assembled.unlink(missing_ok=True)
        sending = Round(server.port, values, parts, [0])
        wait_until(lambda: assembled.exists() and assembled.stat().st_size, what="assembling")
        server.kill()
        now = LocalStore(config(folder)).read(upload.uid)
        assert now.state is State.OPEN or assembled.read_bytes() == data
        server.start()
        sending.stop()
        sending.join()
    answer = ask(server.port, "/_/surveyImport", {"uploadUid": upload.uid})
    assert (answer["http"], answer["sha256"]) == (200, hashlib.sha256(data).hexdigest())


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(20))
def test_two_hundred_kills_lose_nothing_that_was_acknowledged(gunicorn, seed):
    chance = random.Random(seed)
    data = chance.randbytes(40 * KIB * KIB)
    server = gunicorn(workers=4, UPLOAD_HELPER_DURABILITY=["finish", "chunk", "none"][seed % 3])
    size = chance.choice([100, 300, 1000]) * KIB
    survive(server, cut_up(data, size, chance if seed % 4 == 3 else None), 10, seed, kill_all)
