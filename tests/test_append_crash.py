"""Uploads that are appended to, killed at every instant and cut off from power: never a byte that was not sent."""

from __future__ import annotations

import copy
import hashlib
import itertools
import os
import random
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import faults
from appended import Service, age, check_index, check_nothing_left, cut_piece, piece
from faults import Disk, die_at, dies_at, memory_folder, other_boot
from servers import wait_until
from upload_helper import BodyCutError, ChecksumMismatchError, Error, NotFoundError
from upload_helper.errors import LengthMismatchError, OffsetMismatchError, SupersededError
from upload_helper.service import NewUpload
from upload_helper.stores import local, table
from upload_helper.upload import UNKNOWN_SIZE, State

DATA = random.Random(31).randbytes(40_011)
SIZE = len(DATA)
WRONG = bytes(byte ^ 1 for byte in DATA)
MD5 = f"md5:{hashlib.md5(DATA).hexdigest()}"
SENT = 17_000
BLOCK = 9000


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """Many hundred syncs: they are counted here, not waited for."""
    with memory_folder(tmp_path) as path:
        yield path


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reserve in small steps, and count copying among what can be interrupted."""
    monkeypatch.setattr(local, "_RESERVE_STEP", 1 << 14)
    monkeypatch.setattr(faults, "CHANGING", (*faults.CHANGING, "copy_file_range"))


def rounds(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """Yield the number of the fatal call and a fresh folder."""
    for number in itertools.count():
        assert number < 300, "the operation never came to its end"
        yield number, tmp_path / f"{number}" / "uploads"


# Killed


@dataclass
class Case:
    """An upload of which a part was acknowledged, and the operation during which the process dies."""

    name: str
    operate: Callable[[Service, str], object]
    size: int = SIZE
    before: int = SENT
    at_end: bool | None = None
    """What the protocol says with the last bytes, and with the others False, unless it is None."""
    settings: dict[str, Any] = field(default_factory=dict)
    members: dict[str, Any] = field(default_factory=dict)
    really: bool = False
    """Kill a real process, also within a write."""

    @property
    def on_the_way(self) -> bool | None:
        return None if self.at_end is None else False


def add(end: int, start: int = SENT, **members: Any) -> Callable[[Service, str], object]:
    return lambda service, uid: service.put(uid, start, DATA[start:end], block=BLOCK, **members)


def cut(end: int, **members: Any) -> Callable[[Service, str], object]:
    def operate(service: Service, uid: str) -> None:
        with pytest.raises(BodyCutError):
            service.append(uid, cut_piece(SENT, DATA[SENT:end], SIZE - SENT, **members), "ann")

    return operate


def look(service: Service, uid: str) -> object:
    return service.position(uid, "ann")


def get(service: Service, uid: str) -> object:
    with suppress(Error):
        return service.get_upload(uid, "ann")
    return None


def md5(start: int, end: int) -> str:
    return f"md5:{hashlib.md5(DATA[start:end]).hexdigest()}"


CHUNK = {"durability": "chunk"}
CASES = [
    Case("first bytes", add(SENT, 0), before=0, really=True),
    Case("first bytes of no size", add(SENT, 0), before=0, size=UNKNOWN_SIZE),
    Case("more bytes", add(30_000)),
    Case("more bytes, synced", add(30_000), settings=CHUNK),
    Case("more bytes of no size", add(30_000), size=UNKNOWN_SIZE, really=True),
    Case("last bytes", add(SIZE)),
    Case("last bytes, synced", add(SIZE), settings=CHUNK),
    Case("last bytes, safe", add(SIZE), settings={"durability": "finish"}),
    Case("last bytes, verified", add(SIZE), members={"checksum": MD5}),
    Case("last bytes of no size", add(SIZE, complete=True), size=UNKNOWN_SIZE, at_end=True),
    Case("last bytes that are complete later", add(SIZE, complete=False), at_end=True),
    Case("nothing, but complete", add(SIZE, SIZE, complete=True), before=SIZE, at_end=True),
    Case("nothing, but complete, of no size", add(SIZE, SIZE, complete=True), UNKNOWN_SIZE, SIZE, at_end=True),
    Case("held bytes", add(30_000, checksum=md5(SENT, 30_000))),
    Case("held last bytes", add(SIZE, checksum=md5(SENT, SIZE)), really=True),
    Case("held bytes of no size", add(30_000, checksum=md5(SENT, 30_000)), size=UNKNOWN_SIZE),
    Case("bytes that are cut", cut(30_000)),
    Case("bytes that are cut, synced", cut(30_000), settings=CHUNK),
    Case("position", look),
    Case("position, synced", look, settings=CHUNK),
    Case("size with bytes", add(30_000, total_size=SIZE), size=UNKNOWN_SIZE),
    Case("size with bytes, synced", add(30_000, total_size=SIZE), size=UNKNOWN_SIZE, settings=CHUNK),
    Case("size with the last bytes", add(SIZE, total_size=SIZE), size=UNKNOWN_SIZE),
    Case("size with bytes that are cut", cut(30_000, total_size=SIZE), size=UNKNOWN_SIZE),
    Case("size that is there already", add(SIZE, SIZE, total_size=SIZE), UNKNOWN_SIZE, SIZE),
    Case("size that is there already, synced", add(SIZE, SIZE, total_size=SIZE), UNKNOWN_SIZE, SIZE, settings=CHUNK),
    Case("size that is not all", add(SIZE, SIZE, total_size=SIZE, complete=False), UNKNOWN_SIZE, SIZE, True),
    Case("finished file", get),
]


def begin(folder: Path, case: Case) -> tuple[Service, str]:
    service = Service(folder, **case.settings)
    uid = service.new(case.size, **case.members)
    service.put(uid, 0, DATA[: case.before], block=BLOCK, complete=case.on_the_way)
    return service, uid


def offset_of(service: Service, uid: str) -> int:
    return int(service.store.progress(uid).received_bytes)


def check_bytes(service: Service, uid: str, least: int) -> int:
    """See that the offset that anybody may be told is of bytes that were sent; return it."""
    offset = offset_of(service, uid)
    assert least <= offset <= SIZE
    assert (service.folder / uid / "data").read_bytes()[:offset] == DATA[:offset]
    return offset


def go_on(service: Service, uid: str, case: Case) -> None:
    """Go on with an upload as its client would."""
    upload = service.store.read(uid)
    offset = offset_of(service, uid)
    position = service.position(uid, "ann")
    assert position.offset == offset
    if case.at_end is None and offset == upload.total_size:
        # A client takes this for the end.
        assert position.complete
    if not position.complete:
        size = SIZE if upload.total_size == UNKNOWN_SIZE else upload.total_size
        assert size == SIZE
        position = service.put(uid, offset, DATA[offset:], total_size=SIZE, complete=case.at_end)
    assert (position.offset, position.complete) == (SIZE, True)
    assert service.read(uid) == DATA


def deaths(case: Case) -> list[tuple[Case, str]]:
    return [(case, how) for how in (["simulated", "before", "within"] if case.really else ["simulated"])]


@pytest.mark.parametrize(
    ("case", "how"), [pair for case in CASES for pair in deaths(case)], ids=lambda value: getattr(value, "name", value)
)
def test_death_at_any_call_of_a_request(tmp_path, monkeypatch, case, how):
    for number, folder in rounds(tmp_path):
        service, uid = begin(folder, case)
        operate = partial(case.operate, service, uid)
        died = dies_at(number, operate) if how == "simulated" else die_at(number, operate, torn=how == "within")
        after = Service(folder)
        check_bytes(after, uid, case.before)
        if number % 2 and case.at_end is None and offset_of(after, uid) == after.store.read(uid).total_size:
            # Nor does the host's code ask for the position before.
            assert after.read(uid) == DATA
        go_on(after, uid, case)
        assert [event for event, _ in after.events] in ([], ["finished"])
        after.sweep()
        check_index(folder)
        after.delete(uid, "ann")
        check_nothing_left(folder, monkeypatch)
        if not died:
            return


@pytest.mark.parametrize("identifier", ["", "id"])
@pytest.mark.parametrize("size", [SIZE, UNKNOWN_SIZE, 0])
@pytest.mark.parametrize("durability", ["none", "chunk"])
def test_death_at_any_call_while_beginning(tmp_path, monkeypatch, identifier, size, durability):
    data = DATA[: SIZE if size else 0]
    new = NewUpload("f.bin", size, identifier=identifier)
    for number, folder in rounds(tmp_path):
        # So that dying does not depend on folders that have to be made.
        Service(folder).begin(new, "bob")
        died = dies_at(number, lambda f=folder: Service(f, durability=durability).begin(new, "ann"))
        after = Service(folder)
        made = list(after.store.uids("ann"))
        uid = after.begin(new, "ann").upload.uploadUid
        assert uid in made or not (identifier and [uid for uid in made if (folder / uid).exists()])
        assert after.put(uid, 0, data, total_size=len(data)).complete
        assert after.read(uid) == data
        for uid in list(after.store.uids()):
            after.delete(uid, None)
        check_nothing_left(folder, monkeypatch)
        if not died:
            return


def test_death_at_any_call_while_beginning_anew(tmp_path, monkeypatch):
    new = NewUpload(None, identifier="id")
    for number, folder in rounds(tmp_path):
        service = Service(folder)
        first = service.begin(new, "ann").upload.uploadUid
        service.put(first, 0, DATA[:SENT])
        died = dies_at(number, lambda s=service: s.begin(new, "ann", anew=True))
        after = Service(folder)
        with suppress(NotFoundError):
            # The old one as it was, or the new one without a byte.
            position = after.resume(new, "ann")
            assert position.offset == (SENT if position.upload.uploadUid == first else 0)
        uid = after.begin(new, "ann", anew=True).upload.uploadUid
        assert after.resume(new, "ann").upload.uploadUid == uid != first
        after.put(uid, 0, DATA, complete=True)
        assert after.read(uid) == DATA
        for uid in list(after.store.uids()):
            after.delete(uid, None)
        check_nothing_left(folder, monkeypatch)
        if not died:
            return


@pytest.mark.parametrize("size", [SIZE, UNKNOWN_SIZE])
def test_death_at_any_call_while_a_wrong_checksum_is_found(tmp_path, size):
    for number, folder in rounds(tmp_path):
        service = Service(folder)
        uid = service.new(size, checksum=MD5)
        service.put(uid, 0, DATA[:SENT], complete=False)

        def end_wrongly(service: Service = service, uid: str = uid) -> None:
            with pytest.raises(ChecksumMismatchError):
                service.put(uid, SENT, WRONG[SENT:], complete=True)

        died = dies_at(number, end_wrongly)
        after = Service(folder)
        with suppress(ChecksumMismatchError):
            after.position(uid, "ann")
        offset = after.position(uid, "ann").offset
        if offset > SENT:
            # The wrong bytes are there, and it is not known yet.
            with pytest.raises(ChecksumMismatchError):
                after.put(uid, offset, WRONG[offset:], complete=True)
            offset = after.position(uid, "ann").offset
            assert offset == 0
        after.put(uid, offset, DATA[offset:], complete=True)
        assert after.read(uid) == DATA
        check_index(folder)
        if not died:
            return


def end_by_sweep(service: Service, uid: str) -> None:
    age(service.folder, uid)
    service.sweep()


@pytest.mark.parametrize(
    "end", [lambda service, uid: service.delete(uid, "ann"), end_by_sweep], ids=["delete", "sweep"]
)
@pytest.mark.parametrize("sent", [SENT, SIZE], ids=["open", "finished"])
@pytest.mark.parametrize("size", [SIZE, UNKNOWN_SIZE], ids=["size", "no size"])
def test_death_at_any_call_while_deleting_in_the_middle_of_an_append(tmp_path, monkeypatch, end, sent, size):
    for number, folder in rounds(tmp_path):
        service = Service(folder, expiry=faults.config(folder).expiry)
        uid = service.new(size, identifier="id")
        with suppress(Error), service.store.appender(service.store.read(uid), 0, hold=False, complete=True) as hanging:
            hanging.write(DATA[:sent])
            if sent == SIZE:
                hanging.commit()
                service.position(uid, "ann")
            died = dies_at(number, lambda s=service, u=uid: end(s, u))
            # It can go on where the upload is still there.
            hanging.write(DATA[sent:])
            hanging.commit()
        after = Service(folder)
        with suppress(NotFoundError):
            assert after.read(uid) == DATA
            after.delete(uid, "ann")
        assert list(after.store.uids()) == []
        check_nothing_left(folder, monkeypatch)
        if not died:
            return


def test_death_at_any_call_while_parts_are_put_together(tmp_path, monkeypatch):
    parts = [DATA[:SENT], b"", DATA[SENT:30_000]]
    new = NewUpload("f.bin", concat="final;urls")
    for number, folder in rounds(tmp_path):
        service = Service(folder)
        uids = [service.make(part, concat="partial") for part in parts]
        died = dies_at(number, lambda s=service, u=uids: s.concatenate(new, u, "ann"))
        after = Service(folder)
        left = set(after.store.uids()) - set(uids)
        assert len(left) <= 1
        for uid in left:
            offset = offset_of(after, uid)
            assert (folder / uid / "data").read_bytes()[:offset] == DATA[:offset]
            with suppress(Error):
                assert after.read(uid) == DATA[:30_000]
        position = after.concatenate(new, uids, "ann")
        assert position.complete
        assert after.read(position.upload.uploadUid) == DATA[:30_000]
        assert [after.store.read(uid).state for uid in uids] == 3 * [State.FINISHED]
        for uid in list(after.store.uids()):
            after.delete(uid, None)
        check_nothing_left(folder, monkeypatch)
        if not died:
            return


# Processes that are killed while others go on


def fork(work: Callable[[], object]) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            # The parent sees what came of it in the folder.
            os._exit(0)
    return pid


def send_as_can_be(folder: Path, uid: str, seed: int, data: bytes) -> None:
    """Append with many others at once: from the position, from where it seems to stand, held or cut."""
    chance = random.Random(seed)
    service = Service(folder)
    while True:
        with suppress(SupersededError, OffsetMismatchError, BodyCutError, ChecksumMismatchError):
            offset = service.position(uid, "ann").offset if chance.random() < 0.5 else offset_of(service, uid)
            if offset == len(data):
                return
            content = data[offset : offset + chance.randrange(1, 30_000)]
            kind = chance.random()
            if kind < 0.2:
                service.append(uid, cut_piece(offset, content, None, complete=False), "ann")
            elif kind < 0.4:
                wrong = bytes(byte ^ 1 for byte in content)
                service.put(uid, offset, wrong, complete=False, checksum=f"md5:{hashlib.md5(content).hexdigest()}")
            elif kind < 0.6:
                held = f"md5:{hashlib.md5(content).hexdigest()}"
                service.put(uid, offset, content, complete=False, checksum=held, block=1000)
            else:
                service.put(uid, offset, content, complete=False, block=1000)


def test_processes_that_are_killed_leave_bytes_that_were_sent(tmp_path):
    data = random.Random(41).randbytes(1 << 20)
    folder = tmp_path / "uploads"
    service = Service(folder)
    uid = service.new()
    chance = random.Random(42)
    seeds = itertools.count()

    def start() -> int:
        seed = next(seeds)
        return fork(lambda: send_as_can_be(folder, uid, seed, data))

    running = [start(), start()]
    seen = 0
    try:
        while seen < len(data):
            enough = min(seen + chance.randrange(1, 100_000), len(data))
            wait_until(lambda e=enough: offset_of(service, uid) >= e, what="bytes")
            victim = running.pop(chance.randrange(2))
            os.kill(victim, signal.SIGKILL)
            os.waitpid(victim, 0)
            before, seen = seen, offset_of(service, uid)
            assert seen >= before
            assert (folder / uid / "data").read_bytes()[:seen] == data[:seen]
            running.append(start())
    finally:
        for pid in running:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert service.put(uid, len(data), b"", complete=True).complete
    assert service.read(uid) == data
    check_index(folder)


def test_of_two_processes_that_declare_lengths_one_wins(tmp_path):
    service = Service(tmp_path / "uploads")
    for _ in range(5):
        uid = service.new()
        reader, writer = os.pipe()

        def declare(size: int, uid: str = uid, reader: int = reader) -> None:
            other = Service(service.folder)

            def wait(*args: Any) -> None:
                # Both have read the record of an upload without a size by now.
                os.read(reader, 1)

            try:
                other.append(uid, piece(0, b"", total_size=size), "ann", wait)
                answer = b"won"
            except (LengthMismatchError, SupersededError) as error:
                answer = type(error).__name__.encode()
            (service.folder.parent / f"{uid}-{size}").write_bytes(answer)

        children = [fork(lambda n=size: declare(n)) for size in (100, 200)]
        os.write(writer, b"12")
        for child in children:
            os.waitpid(child, 0)
        os.close(reader)
        os.close(writer)
        answers = {size: (service.folder.parent / f"{uid}-{size}").read_text() for size in (100, 200)}
        assert sorted(answers.values()) == ["LengthMismatchError", "won"]
        assert answers[service.store.read(uid).total_size] == "won"


# Power cuts


@dataclass
class Told:
    """What a client, or the host, was told before the power went."""

    uid: str = ""
    offset: int = 0
    safe: bool = False
    """Whether the upload itself must still be there."""
    finished: bool = False


def check_after_cut(folder: Path, told: Told, *, told_is_safe: bool) -> None:
    after = Service(folder)
    try:
        upload = after.store.read(told.uid)
    except NotFoundError:
        assert not told.safe, "the upload is lost"
        return
    if upload.state is State.OPEN:
        assert not told.finished
        offset = after.store.progress(told.uid).received_bytes
        assert offset >= (told.offset if told_is_safe else 0)
        assert (folder / told.uid / "data").read_bytes()[:offset] == DATA[:offset]
        position = after.position(told.uid, "ann")
        if not position.complete:
            size = SIZE if upload.total_size == UNKNOWN_SIZE else upload.total_size
            assert (size, position.offset) == (SIZE, offset)
            after.put(told.uid, offset, DATA[offset:], complete=True)
    assert after.read(told.uid) == DATA


def whole_way(service: Service, told: Told, *, durable: bool) -> None:
    """Upload in all the ways there are; after each step note what was told."""

    def note(position: Any) -> None:
        told.offset = position.offset
        told.safe = told.safe or durable

    told.uid = service.new()
    told.safe = service.config.durability == "chunk"
    note(service.put(told.uid, 0, DATA[:5000], block=2000))
    with suppress(BodyCutError):
        service.append(told.uid, cut_piece(5000, DATA[5000:9000], None), "ann")
    note(service.position(told.uid, "ann"))
    assert told.offset == 9000
    hanging = service.store.appender(service.store.read(told.uid), 9000, hold=False, complete=None)
    hanging.__enter__()
    hanging.write(DATA[9000:12_000])
    note(service.position(told.uid, "ann"))
    assert told.offset == 12_000
    with pytest.raises(SupersededError):
        hanging.write(WRONG[12_000:])
    with suppress(ChecksumMismatchError):
        service.put(told.uid, 12_000, WRONG[12_000:20_000], checksum=md5(12_000, 20_000))
    note(service.put(told.uid, 12_000, DATA[12_000:20_000], checksum=md5(12_000, 20_000)))
    note(service.put(told.uid, 20_000, DATA[20_000:30_000], total_size=SIZE, complete=False))
    note(service.put(told.uid, 30_000, DATA[30_000:], block=4096))
    told.finished = told.safe = True
    hanging.__exit__()
    # So that there is an instant at which all of it was told.
    service.new()


class Cuts:
    """What power cuts could leave at each instant of a ``with`` block, and what was told until then."""

    def __init__(self, tmp_path: Path, told: Told) -> None:
        self.told = told
        self._after = tmp_path / "after"
        self._disk = Disk(tmp_path / "before")
        self._instants: list[tuple[Disk, Told]] = []

    @contextmanager
    def watched(self) -> Iterator[None]:
        with self._disk.watched():
            self._disk.after_each_call = self._note
            yield

    def _note(self) -> None:
        instant = copy.copy(self._disk)
        instant._names = list(self._disk._names)
        instant._contents = {number: list(versions) for number, versions in self._disk._contents.items()}
        self._instants.append((instant, copy.copy(self.told)))

    def check(self, check: Callable[[Path, Told], object], count: int) -> None:
        """Check `count` outcomes of each instant, on a machine that has been started anew."""
        assert len(self._instants) > 20
        for number, (instant, told) in enumerate(self._instants):
            for seed in range(count):
                folder = self._after / f"{number}-{seed}"
                instant.cut(folder, random.Random(folder.name))
                with other_boot():
                    check(folder, told)
                shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("durability", "checkpoints"),
    [("finish", True), ("finish", False), ("chunk", False)],
    ids=["often", "seldom", "chunk"],
)
def test_power_cut_at_any_call_leaves_bytes_that_were_sent(tmp_path, monkeypatch, durability, checkpoints):
    monkeypatch.setattr(table, "CHECKPOINT_SECONDS", -1 if checkpoints else 1000)
    cuts = Cuts(tmp_path, Told())
    service = Service(tmp_path / "before", durability=durability)
    with cuts.watched():
        whole_way(service, cuts.told, durable=checkpoints or durability == "chunk")
    cuts.check(lambda folder, told: check_after_cut(folder, told, told_is_safe=durability == "chunk"), 3)
    assert service.read(cuts.told.uid) == DATA


def check_mixed(folder: Path, told: Told) -> None:
    """Wrong bytes and right ones may be mixed now; that is found out, and then all of them are sent again."""
    after = Service(folder)
    with suppress(NotFoundError):
        with suppress(ChecksumMismatchError):
            after.position(told.uid, "ann")
        for _ in range(2):
            with suppress(ChecksumMismatchError):
                offset = after.position(told.uid, "ann").offset
                if offset < SIZE:
                    after.put(told.uid, offset, DATA[offset:])
        assert after.read(told.uid) == DATA


@pytest.mark.parametrize("durability", ["finish", "chunk"])
def test_power_cut_while_a_wrong_file_is_sent_again(tmp_path, durability):
    cuts = Cuts(tmp_path, Told())
    service = Service(tmp_path / "before", durability=durability)
    with cuts.watched():
        uid = cuts.told.uid = service.new(SIZE, checksum=MD5)
        service.put(uid, 0, WRONG[:20_000])
        with suppress(ChecksumMismatchError):
            service.put(uid, 20_000, DATA[20_000:])
        service.put(uid, 0, DATA[:20_000])
        service.put(uid, 20_000, DATA[20_000:])
    cuts.check(check_mixed, 2)
    assert service.read(uid) == DATA


@pytest.mark.parametrize("durability", ["finish", "chunk"])
def test_power_cut_while_parts_are_put_together_leaves_no_half_file(tmp_path, durability):
    cuts = Cuts(tmp_path, Told())
    service = Service(tmp_path / "before", durability=durability)

    def check(folder: Path, told: Told) -> None:
        after = Service(folder)
        for uid in after.store.uids():
            # Some may have lost their record, and so they are none.
            with suppress(NotFoundError):
                record = after.store.read(uid)
                if record.partial:
                    continue
                if record.state is State.FINISHED:
                    assert after.read(uid) == DATA[:30_000]
                offset = offset_of(after, uid)
                assert (folder / uid / "data").read_bytes()[:offset] == DATA[:offset]
        if told.finished:
            assert after.read(told.uid) == DATA[:30_000]

    with cuts.watched():
        parts = [service.make(DATA[start : start + 10_000], concat="partial") for start in (0, 10_000, 20_000)]
        cuts.told.uid = service.concatenate(NewUpload("f", concat="final;x"), parts, "ann").upload.uploadUid
        cuts.told.finished = True
        service.new()
    cuts.check(check, 2)


@pytest.mark.parametrize("durability", ["none", "finish"])
def test_after_a_restart_of_the_machine_the_offset_is_what_was_at_the_last_checkpoint(
    tmp_path, monkeypatch, durability
):
    service = Service(tmp_path / "uploads", durability=durability)
    uid = service.new(SIZE)
    service.put(uid, 0, DATA[:1000])
    monkeypatch.setattr(table, "CHECKPOINT_SECONDS", -1)
    service.put(uid, 1000, DATA[1000:3000])
    monkeypatch.setattr(table, "CHECKPOINT_SECONDS", 1000)
    service.put(uid, 3000, DATA[3000:])
    other = service.new(SIZE)
    service.put(other, 0, DATA[:-1])
    least = 3000 if durability == "finish" else 0
    assert service.position(uid, "ann").complete
    with other_boot():
        after = Service(tmp_path / "uploads", durability=durability)
        assert after.position(other, "ann").offset == 0
        # One that was finished stays so.
        assert after.position(uid, "ann").complete
        third = after.new(SIZE)
        monkeypatch.setattr(table, "CHECKPOINT_SECONDS", -1)
        after.put(third, 0, DATA[:3000])
        monkeypatch.setattr(table, "CHECKPOINT_SECONDS", 1000)
        after.put(third, 3000, DATA[3000:-1])
        assert after.position(third, "ann").offset == SIZE - 1
    with other_boot():
        after = Service(tmp_path / "uploads", durability=durability)
        assert after.position(third, "ann").offset == least
        assert after.put(third, least, DATA[least:]).complete
        assert after.read(third) == DATA


@pytest.mark.parametrize("durability", ["finish", "chunk"])
def test_checkpoint_of_a_wrong_file_says_nothing_of_the_right_one(tmp_path, monkeypatch, durability):
    service = Service(tmp_path / "uploads", durability=durability)
    uid = service.new(SIZE, checksum=MD5)
    monkeypatch.setattr(table, "CHECKPOINT_SECONDS", -1)
    with pytest.raises(ChecksumMismatchError):
        service.put(uid, 0, WRONG)
    monkeypatch.setattr(table, "CHECKPOINT_SECONDS", 1000)
    hanging = service.store.appender(service.store.read(uid), 0, hold=False, complete=None)
    hanging.__enter__()
    hanging.write(DATA[:SENT])
    with other_boot():
        assert Service(tmp_path / "uploads").position(uid, "ann").offset == 0
    hanging.__exit__()


def test_held_bytes_are_a_checkpoint_when_one_is_due(tmp_path, monkeypatch):
    service = Service(tmp_path / "uploads", durability="finish")
    uid = service.new(SIZE)
    monkeypatch.setattr(table, "CHECKPOINT_SECONDS", -1)
    service.put(uid, 0, DATA[:SENT], checksum=md5(0, SENT), block=BLOCK)
    with other_boot():
        assert Service(tmp_path / "uploads").position(uid, "ann").offset == SENT


# One folder, several machines


@pytest.mark.parametrize("size", [SIZE, UNKNOWN_SIZE], ids=["size", "no size"])
def test_machines_that_share_the_folder_take_turns_and_lose_nothing(tmp_path, size):
    folder = tmp_path / "uploads"
    boots = [other_boot(), other_boot()]
    turn = itertools.cycle(boots)
    here = Service(folder, durability="chunk")
    uid = here.new(size)
    offset = 0
    for end in range(4000, SIZE, 4000):
        with next(turn), suppress(BodyCutError):
            Service(folder, durability="chunk").append(uid, cut_piece(offset, DATA[offset:end], None), "ann")
        boots[:] = [other_boot(), other_boot()]
        turn = itertools.cycle(boots)
        with next(turn):
            # Whatever came before a connection broke is there on the other machine.
            offset = Service(folder, durability="chunk").position(uid, "ann").offset
            assert offset == end
    assert here.position(uid, "ann").offset == offset
    assert here.put(uid, offset, DATA[offset:], complete=True).complete
    assert here.read(uid) == DATA


@pytest.mark.parametrize("hold", [True, False])
def test_status_on_another_machine_does_not_disturb_one_who_appends(tmp_path, hold):
    folder = tmp_path / "uploads"
    here = Service(folder, durability="chunk")
    uid = here.new(SIZE)
    with here.store.appender(here.store.read(uid), 0, hold=hold, complete=None) as appender:
        for start in range(0, SIZE, 5000):
            appender.write(DATA[start : start + 5000])
            with other_boot():
                offset = Service(folder, durability="chunk").store.progress(uid).received_bytes
                assert (folder / uid / "data").read_bytes()[:offset] == DATA[:offset]
        assert appender.commit().complete
    assert here.read(uid) == DATA
