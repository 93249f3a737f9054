"""All that can happen to uploads that are appended to, mixed, against a model that keeps the bytes in memory."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from appended import Service, age, check_index
from faults import memory_folder, other_boot
from upload_helper import BodyCutError, Error
from upload_helper.service import NewUpload, Piece
from upload_helper.stores import local
from upload_helper.upload import UNKNOWN_SIZE

LONGEST = 60
RESERVED = 16
EXPIRY = 1000


class Refused(Exception):  # noqa: N818 - it stands for all kinds of errors
    """What the model says that must be raised."""


@dataclass(eq=False)
class Model:
    """What must be true of one upload."""

    uid: str
    size: int
    checksum: str
    partial: bool = False
    kept: bytes = b""
    durable: int = 0
    """How much of it a power cut leaves."""
    complete: bool = False
    finished: bool = False
    holder: object = None
    """The request that may append."""

    def finish(self) -> None:
        """Finish it if it is complete; a wrong checksum takes all of it back."""
        if self.finished or not self.complete:
            return
        if self.checksum and self.checksum != md5(self.kept):
            self.kept, self.complete, self.durable, self.holder = b"", False, 0, None
            raise Refused("checksum_mismatch")
        self.finished, self.size = True, len(self.kept)

    def check(self, piece: Sent) -> None:
        """Refuse what contradicts itself."""
        size = piece.size if self.size == UNKNOWN_SIZE else self.size
        code = ""
        if UNKNOWN_SIZE not in (piece.size, self.size) and piece.size != self.size:
            code = "length_mismatch"
        elif size != UNKNOWN_SIZE and piece.end > size:
            code = "too_large"
        elif piece.complete and piece.length is not None and size not in (UNKNOWN_SIZE, piece.end):
            code = "length_mismatch"
        if code:
            raise Refused(code if piece.offset == len(self.kept) else "offset_mismatch")

    def declare(self, piece: Sent) -> None:
        if piece.offset != len(self.kept):
            raise Refused("offset_mismatch")
        if self.complete and piece.size != piece.offset:
            raise Refused("length_mismatch")
        self.size, self.holder = piece.size, None
        self.complete = self.complete or (piece.complete is None and piece.size == piece.offset)

    def claim(self, offset: int, who: object) -> None:
        if offset != len(self.kept):
            raise Refused("offset_mismatch")
        if self.complete:
            raise Refused("finished")
        self.holder = who

    def add(self, block: bytes, complete: bool | None) -> None:
        """Keep a block that is not held."""
        self.kept += block
        self.complete = self.complete or (complete is None and len(self.kept) == self.size)

    def commit(self, end: int, complete: bool | None) -> None:
        if complete and self.size not in (UNKNOWN_SIZE, end):
            raise Refused("length_mismatch")
        self.complete = bool(self.complete or complete or (complete is None and end == self.size))


@dataclass
class Sent:
    """A request as the model sees it."""

    offset: int
    blocks: list[bytes]
    length: int | None
    size: int
    complete: bool | None
    cut: bool
    checksum: str

    @property
    def end(self) -> int:
        return self.offset + (self.length or 0)

    @property
    def content(self) -> bytes:
        return b"".join(self.blocks)

    def piece(self) -> Piece:
        return Piece(self.offset, self._blocks(), self.length, self.size, self.complete, self.checksum)

    def _blocks(self) -> Iterator[bytes]:
        yield from self.blocks
        if self.cut:
            raise BodyCutError("The body ended.")

    def to(self, model: Model) -> None:
        """Do to the model what this request does, or raise what is due."""
        model.check(self)
        if model.finished:
            self.to_finished(model)
            return
        if model.size == UNKNOWN_SIZE != self.size:
            model.declare(self)
        try:
            model.claim(self.offset, self)
        except Refused as refused:
            if refused.args != ("finished",):
                raise
            model.finish()
            self.to_finished(model)
            return
        try:
            self.write(model)
        finally:
            # Also what is cut is forced to the disk, where anything is.
            model.durable = len(model.kept)
        model.finish()

    def write(self, model: Model) -> None:
        end = self.offset
        for block in self.blocks:
            end += len(block)
            if model.size != UNKNOWN_SIZE and end > model.size:
                raise Refused("too_large")
            if not self.checksum:
                model.add(block, self.complete)
        if self.cut:
            raise Refused("body_cut")
        if self.checksum not in ("", md5(self.content)):
            raise Refused("checksum_mismatch")
        model.commit(end, self.complete)
        model.kept = model.kept[: self.offset] + self.content

    def to_finished(self, model: Model) -> None:
        if self.complete is not None:
            raise Refused("finished")
        if self.offset != model.size:
            raise Refused("offset_mismatch")
        if self.content:
            raise Refused("too_large")
        if self.cut:
            raise Refused("body_cut")


@dataclass(eq=False)
class Hanging:
    """A request that has not ended yet."""

    model: Model
    appender: Any
    hold: bool
    complete: bool | None
    size: int
    offset: int
    held: bytes = b""


def md5(content: bytes) -> str:
    return f"md5:{hashlib.md5(content).hexdigest()}"


picks = st.integers(0, 1000)
lengths = st.integers(0, 30)
completes = st.sampled_from([None, None, False, True])
_numbers = itertools.count()


def fresh_bytes(length: int) -> bytes:
    """Return bytes that no other request has, so that no others can pass for them."""
    return (b"%07d." % next(_numbers) * (length // 8 + 1))[:length]


class Appends(RuleBasedStateMachine):
    """Two processes on one folder, and clients that hang, lie, come again and go away."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        temporary = Path(tempfile.mkdtemp(prefix="uploads-"))
        self.stack.callback(shutil.rmtree, temporary)
        self.folder = self.stack.enter_context(memory_folder(temporary)) / "uploads"
        self.alive: list[Model] = []
        self.gone: list[Model] = []
        self.hanging: list[Hanging] = []
        self.services: list[Service] = []
        self.ended: list[tuple[str, str]] = []

    @initialize(durability=st.sampled_from(["none", "finish", "chunk"]))
    def boot(self, durability: str) -> None:
        self.durability = durability
        self.step, local._RESERVE_STEP = local._RESERVE_STEP, RESERVED
        self.start()

    def start(self) -> None:
        self.ended += [event for service in self.services for event in service.events]
        expiry = {"expiry": Service(self.folder).config.expiry.resolution * EXPIRY * 1_000_000}
        self.services = [Service(self.folder, durability=self.durability, **expiry) for _ in range(2)]

    def teardown(self) -> None:
        if self.services:
            local._RESERVE_STEP = self.step
        for request in self.hanging:
            request.appender.__exit__()
        self.stack.close()

    def service(self, pick: int) -> Service:
        return self.services[pick % 2]

    def pick(self, pick: int) -> Model:
        # Rather the ones that are on their way.
        models = [model for model in self.alive if not model.finished] if pick % 5 else self.alive
        models = models or self.alive
        return models[pick % len(models)]

    def outcome(self, call: Any) -> str:
        try:
            call()
        except Error as error:
            return error.code
        return ""

    def due(self, call: Any) -> str:
        """Let the model do something; return the code of the error that is due, or ''."""
        try:
            call()
        except Refused as refused:
            return str(refused.args[0])
        return ""

    # -- whole requests

    @rule(
        pick=picks, size=st.just(UNKNOWN_SIZE) | st.integers(0, LONGEST), partial=st.sampled_from([False, False, True]),
        checksum=st.sampled_from(["", "", "", "wrong"]),
    )  # fmt: skip
    def begin(self, pick: int, size: int, partial: bool, checksum: str) -> None:
        declared = md5(b"something else") if checksum else ""
        new = NewUpload("f.bin", size, concat="partial" if partial else "", checksum=declared)
        position = self.service(pick).begin(new, "ann")
        assert (position.offset, position.complete, position.upload.totalSize) == (0, False, size)
        self.alive.append(Model(position.upload.uploadUid, size, declared, partial))

    @precondition(lambda self: self.alive)
    @rule(
        pick=picks, shift=st.sampled_from([0, 0, 0, 0, 0, 0, -1, 1, 5]), length=lengths, rest=st.booleans(),
        known=st.booleans(), block=st.integers(1, 31), size=st.sampled_from(["", "", "", "right", "more", "wrong"]),
        complete=completes, cut=st.sampled_from([False, False, False, True]),
        checksum=st.sampled_from(["", "", "", "right", "wrong"]),
    )  # fmt: skip
    def append(
        self, pick: int, shift: int, length: int, rest: bool, known: bool, block: int, size: str,
        complete: bool | None, cut: bool, checksum: str,
    ) -> None:  # fmt: skip
        model = self.pick(pick)
        offset = len(model.kept) + shift
        if rest and model.size != UNKNOWN_SIZE:
            length = max(0, model.size - offset)
        content = fresh_bytes(length)
        blocks = [content[start : start + block] for start in range(0, length, block)]
        end = offset + length
        declared = {"": UNKNOWN_SIZE, "right": end, "more": end + 7, "wrong": max(0, end - 1)}[size]
        if size == "right" and model.size != UNKNOWN_SIZE:
            declared = model.size
        digest = {"": "", "right": md5(content), "wrong": md5(b"something else")}[checksum]
        sent = Sent(offset, blocks, length if known else None, declared, complete, cut, digest)
        outcome = self.outcome(lambda: self.service(pick).append(model.uid, sent.piece(), "ann"))
        assert outcome == self.due(lambda: sent.to(model))

    @precondition(lambda self: self.alive)
    @rule(pick=picks)
    def send_the_rest(self, pick: int) -> None:
        model = self.pick(pick)
        content = fresh_bytes(10 if model.size == UNKNOWN_SIZE else model.size - len(model.kept))
        sent = Sent(len(model.kept), [content], len(content), UNKNOWN_SIZE, True, False, "")
        outcome = self.outcome(lambda: self.service(pick).append(model.uid, sent.piece(), "ann"))
        assert outcome == self.due(lambda: sent.to(model))

    @precondition(lambda self: self.alive)
    @rule(pick=picks)
    def position(self, pick: int) -> None:
        model = self.pick(pick)
        offset = len(model.kept)
        outcome = self.outcome(lambda: self.check_position(pick, model, offset))
        if not model.finished:
            model.holder, model.durable = None, len(model.kept)
        assert outcome == self.due(model.finish)

    def check_position(self, pick: int, model: Model, offset: int) -> None:
        position = self.service(pick).position(model.uid, "ann")
        assert (position.offset, position.complete) == (offset, model.complete)
        assert position.upload.totalSize == (offset if model.complete else model.size)

    @precondition(lambda self: self.alive)
    @rule(pick=picks)
    def get(self, pick: int) -> None:
        model = self.pick(pick)
        found = []
        outcome = self.outcome(lambda: found.append(self.service(pick).get_upload(model.uid, "ann")))
        if model.partial:
            assert outcome == "incomplete"
            return
        assert outcome == (self.due(model.finish) or ("" if model.finished else "incomplete"))
        if found:
            assert Path(found[0].path).read_bytes() == model.kept

    @precondition(lambda self: any(model.partial and model.finished for model in self.alive))
    @rule(pick=picks, picked=st.lists(picks, max_size=4))
    def concatenate(self, pick: int, picked: list[int]) -> None:
        parts = [model for model in self.alive if model.partial and model.finished]
        chosen = [parts[number % len(parts)] for number in picked]
        new = NewUpload("f.bin", concat="final;urls")
        position = self.service(pick).concatenate(new, [model.uid for model in chosen], "ann")
        content = b"".join(model.kept for model in chosen)
        assert (position.offset, position.complete) == (len(content), True)
        final = Model(position.upload.uploadUid, len(content), "", kept=content, complete=True, finished=True)
        assert self.outcome(lambda: self.service(pick).append(final.uid, Piece(0, [], 0), "ann")) == "finished"
        # To what was put together nothing is appended, so the other rules leave it alone.
        assert Path(self.service(pick).get_upload(final.uid, "ann").path).read_bytes() == content
        self.service(pick).delete(final.uid, "ann")

    # -- requests that hang

    @precondition(lambda self: self.alive and len(self.hanging) < 4)
    @rule(pick=picks, shift=st.sampled_from([0, 0, 0, 1]), hold=st.booleans(), complete=completes)
    def open(self, pick: int, shift: int, hold: bool, complete: bool | None) -> None:
        model = self.pick(pick)
        if model.finished:
            return
        store = self.service(pick).store
        offset = len(model.kept) + shift
        appender = store.appender(store.read(model.uid), offset, hold=hold, complete=complete)
        request = Hanging(model, appender, hold, complete, model.size, offset)
        outcome = self.outcome(appender.__enter__)
        assert outcome == self.due(lambda: model.claim(offset, request))
        if not outcome:
            self.hanging.append(request)

    @precondition(lambda self: self.hanging)
    @rule(pick=picks, length=lengths)
    def write(self, pick: int, length: int) -> None:
        request = self.hanging[pick % len(self.hanging)]
        model, block = request.model, fresh_bytes(length)
        outcome = self.outcome(lambda: request.appender.write(block))
        too_much = request.size != UNKNOWN_SIZE and request.offset + length > request.size
        if model in self.gone or model.holder is not request:
            # It may see first that it has too much.
            missed = "not_found" if model in self.gone else "superseded"
            assert outcome == missed or (too_much and outcome == "too_large")
        elif too_much:
            assert outcome == "too_large"
        else:
            assert outcome == ""
            request.offset += length
            if request.hold:
                request.held += block
            elif block:
                model.add(block, request.complete)

    @precondition(lambda self: self.hanging)
    @rule(pick=picks, finish=st.booleans())
    def commit(self, pick: int, finish: bool) -> None:
        request = self.hanging.pop(pick % len(self.hanging))
        model = request.model
        outcome = self.outcome(request.appender.commit)
        request.appender.__exit__()
        if model in self.gone:
            assert outcome == "not_found"
            return
        if model.holder is not request:
            assert outcome == "superseded"
            return
        assert outcome == self.due(lambda: model.commit(request.offset, request.complete))
        if not outcome:
            model.kept += request.held
            model.durable = len(model.kept)
        elif not request.hold:
            model.durable = len(model.kept)
        if finish and not outcome and model.complete:
            self.position(self.alive.index(model) * 5)

    @precondition(lambda self: self.hanging)
    @rule(pick=picks)
    def give_up(self, pick: int) -> None:
        request = self.hanging.pop(pick % len(self.hanging))
        request.appender.__exit__()
        if not request.hold and request.model.holder is request:
            request.model.durable = len(request.model.kept)

    # -- the end, and the end of the world

    @precondition(lambda self: self.alive)
    @rule(pick=picks, sweep=st.booleans())
    def delete(self, pick: int, sweep: bool) -> None:
        model = self.alive[pick % len(self.alive)]
        if sweep:
            age(self.folder, model.uid, EXPIRY + 100)
            assert self.service(pick).sweep() == 1
        else:
            self.service(pick).delete(model.uid, "ann")
        self.alive.remove(model)
        self.gone.append(model)

    @precondition(lambda self: self.alive or self.gone)
    @rule(pick=picks)
    def nobody_finds_what_is_foreign_or_gone(self, pick: int) -> None:
        models = self.alive + self.gone
        model = models[pick % len(models)]
        who = "ann" if model in self.gone else "bob"
        service = self.service(pick)
        for ask in (
            lambda: service.position(model.uid, who),
            lambda: service.append(model.uid, Piece(len(model.kept), [b"x"], 1, complete=True), who),
            lambda: service.get_upload(model.uid, who),
            lambda: service.delete(model.uid, who),
        ):
            assert self.outcome(ask) == "not_found"

    @precondition(lambda self: self.alive)
    @rule(power_cut=st.booleans(), seed=picks)
    def restart(self, power_cut: bool, seed: int) -> None:
        """All processes are killed; after a power cut, what was not forced to the disk may be anything."""
        for request in self.hanging:
            # As death would, without forcing anything to the disk.
            request.appender._unsafe = False
            request.appender.__exit__()
        self.hanging.clear()
        if power_cut:
            self.stack.enter_context(other_boot())
            for model in self.alive:
                if not model.finished:
                    self.lose(model, seed)
        self.start()

    def lose(self, model: Model, seed: int) -> None:
        durable = model.durable if self.durability == "chunk" else 0
        if len(model.kept) > durable:
            model.kept, model.complete = model.kept[:durable], False
        model.durable, model.holder = durable, None
        with (self.folder / model.uid / "data").open("r+b") as file:
            file.seek(durable)
            there = os.fstat(file.fileno()).st_size
            file.write(random.Random(seed).randbytes(max(0, there - durable)))

    # -- what must be true at any time

    @invariant()
    def folder_holds_what_is_alive(self) -> None:
        found = {path.name for path in self.folder.glob("*") if not path.name.startswith(".")}
        assert found == {model.uid for model in self.alive}

    @invariant()
    def offset_is_of_what_was_sent(self) -> None:
        for model in self.alive:
            progress = self.services[0].store.progress(model.uid)
            assert (progress.received_bytes, progress.complete) == (len(model.kept), model.complete)
            assert (self.folder / model.uid / "data").read_bytes()[: len(model.kept)] == model.kept
            record = self.services[0].store.read(model.uid)
            assert (record.total_size, record.state == "finished") == (model.size, model.finished)

    @invariant()
    def quota_counts_what_is_there(self) -> None:
        if self.alive:
            check_index(self.folder)

    @invariant()
    def end_is_reported_once(self) -> None:
        events = self.ended + [event for service in self.services for event in service.events]
        for model in self.alive:
            told = sorted(event for event, uid in events if uid == model.uid)
            assert told == ([] if model.partial else ["created", "finished"] if model.finished else ["created"])


checks = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
TestAppends = Appends.TestCase
TestAppends.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, derandomize=True, suppress_health_check=checks,
)  # fmt: skip


@pytest.mark.soak
class TestAppendsForLong(Appends.TestCase):
    settings = settings(max_examples=2000, stateful_step_count=100, deadline=None, suppress_health_check=checks)
