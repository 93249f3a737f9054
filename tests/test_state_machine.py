"""All operations mixed, by several owners, over crashes and power cuts, against a simple model of what must be true."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from faults import memory_folder, other_boot
from host import make_app
from hostile import as_form, as_json, as_msgpack, as_raw, decoded
from strategies import files
from upload_helper import BodyCutError, ChunkRequest, Error, StatusRequest, Upload
from upload_helper.config import Config
from upload_helper.protocols.chunked import to_text
from upload_helper.service import UploadService
from upload_helper.stores import LocalStore, Writer

OWNERS = ["", "ann", "bob"]
MOST_OPEN = 2
MOST_BYTES = 30
EXPIRY = 1000
WAYS: dict[str, Any] = {"json": as_json, "msgpack": as_msgpack, "form": as_form, "raw": as_raw}


@dataclass(eq=False)
class Model:
    """What must be true of one upload."""

    uid: str
    owner: str
    parts: list[bytes]
    identifier: str
    checksum: str
    acknowledged: dict[int, bytes] = field(default_factory=dict)
    claims: dict[int, object] = field(default_factory=dict)
    """Who claims a chunk, by its number."""
    changes: dict[int, int] = field(default_factory=dict)
    """How often the acknowledged chunk of a number has come or gone."""
    finished: bool = False

    @property
    def total(self) -> int:
        return sum(map(len, self.parts))

    @property
    def received(self) -> int:
        return sum(map(len, self.acknowledged.values()))

    @property
    def content(self) -> bytes:
        return b"".join(content for _, content in sorted(self.acknowledged.items()))

    @property
    def all_there(self) -> bool:
        return len(self.acknowledged) == len(self.parts)

    @property
    def complete(self) -> bool:
        return self.all_there and self.received == self.total

    @property
    def missing(self) -> list[int]:
        return [] if self.finished else [n for n in range(len(self.parts)) if n not in self.acknowledged]

    def forget(self, number: int) -> None:
        if self.acknowledged.pop(number, None) is not None:
            self.changes[number] = self.changes.get(number, 0) + 1

    def forget_all(self) -> None:
        for number in range(len(self.parts)):
            self.forget(number)

    def is_compared(self, number: int, length: int | None) -> bool:
        """Say whether a chunk is compared with the one that is there, rather than written."""
        if number not in self.acknowledged:
            return False
        may_mend = self.all_there and not self.complete and not self.finished
        return not (may_mend and length != len(self.acknowledged[number]))

    def claim(self, number: int, who: object) -> None:
        self.forget(number)
        self.claims[number] = who

    def acknowledge(self, number: int, content: bytes) -> str:
        """Take a chunk that was claimed; return the error that is due instead, or ''."""
        self.claims.pop(number, None)
        if self.received + len(content) > self.total:
            return "invalid_request"
        self.acknowledged[number] = content
        self.changes[number] = self.changes.get(number, 0) + 1
        return ""

    def finish(self) -> str:
        """Finish if nothing is missing; return the error that is due instead, or ''."""
        if self.finished or not self.complete:
            return ""
        if self.checksum and self.checksum != sha256(self.content):
            self.forget_all()
            return "checksum_mismatch"
        self.finished = True
        return ""


@dataclass(eq=False)
class Stalled:
    """A request that has sent some of its chunk and then nothing more."""

    model: Model
    writer: Writer
    number: int
    content: bytes
    sent: int
    compared: bool
    change: int

    def due(self) -> str:
        """Return the error that is due when it goes on, or ''."""
        if self.compared:
            return "superseded" if self.model.changes.get(self.number, 0) != self.change else ""
        return "" if self.model.claims.get(self.number) is self else "superseded"


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def cut_body(content: bytes, at: int) -> Iterator[bytes]:
    yield content[:at]
    raise BodyCutError("The body ended.")


# Some that differ in little, so that identifiers meet, and any others.
FILES = [
    [b"aaa", b"bbb", b"ccc", b"d"], [b"aaa", b"bbb", b"cccd"], [b"aaaa", b"bb", b"cccc"], [b"a", b"bbbbbbb", b"cc"],
    [b"aaaaabbbbb"], [b""], [b"", b"aa"], [b"aaaaa", b"bbbbb", b"ccccc", b"ddddd"],
]  # fmt: skip
cut_files = st.sampled_from(FILES) | st.sampled_from(FILES) | files(most=30)
picks = st.integers(0, 1000)
changes = st.sampled_from(["right", "right", "right", "other", "short", "long", "empty"])
faults = st.sampled_from(["none", "none", "none", "wrong checksum", "cut", "cut, length unknown"])
ways = st.sampled_from(["service", *WAYS])


def changed(part: bytes, change: str) -> bytes:
    """Return the content of a chunk, right or wrong."""
    return {
        "right": part, "other": bytes(byte ^ 1 for byte in part), "short": part[:-1], "long": part + b"z", "empty": b"",
    }[change]  # fmt: skip


class Uploads(RuleBasedStateMachine):
    """A host, a service of its own beside it on the same folder, and some people who upload."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        fallback = self.stack.enter_context(tempfile.TemporaryDirectory(prefix="uploads-"))
        self.temporary = self.stack.enter_context(memory_folder(Path(fallback)))
        self.folder = self.temporary / "uploads"
        self.alive: list[Model] = []
        self.gone: list[Model] = []
        self.stalled: list[Stalled] = []
        self.dead: list[Writer] = []
        self.boots: list[Any] = []
        self.moved = 0
        self.uid = ""

    @initialize(durability=st.sampled_from(["finish", "chunk", "none"]))
    def boot(self, durability: str) -> None:
        self.durability = durability
        self.start()

    def start(self) -> None:
        limits: dict[str, Any] = {
            "max_open_uploads": MOST_OPEN, "max_owner_bytes": MOST_BYTES, "min_free_space": 0, "expiry": EXPIRY,
            "sweep_interval": 0, "durability": self.durability,
        }  # fmt: skip
        mapping = {f"UPLOAD_HELPER_{name.upper()}": value for name, value in limits.items()}
        config = Config.from_mapping(mapping, folder=self.folder)
        self.store = LocalStore(config)
        self.service = UploadService(config, self.store, lambda event, upload: None)
        self.client = make_app(TESTING=True, UPLOAD_HELPER_FOLDER=self.folder, **mapping).test_client()

    def teardown(self) -> None:
        for writer in [*self.dead, *(request.writer for request in self.stalled)]:
            writer.__exit__()
        for boot in reversed(self.boots):
            boot.__exit__(None, None, None)
        self.stack.close()

    # -- sending chunks

    def send(self, way: str, message: ChunkRequest, owner: str) -> str:
        """Send a chunk one way or another; set ``uid`` to that of the upload, or return the code of the error."""
        self.uid = ""
        if way in WAYS:
            request = WAYS[way](to_text(message), message.content)
            if way in ("json", "msgpack"):
                request = WAYS[way]({**vars(message)}, message.content)
            headers = {**request.get("headers", {}), "X-User": owner} if owner else request.get("headers", {})
            answer = self.client.post("/uploads", **{**request, "headers": headers})
            self.uid = decoded(answer).get("uploadUid", "")
            return "" if answer.status_code == 200 else str(decoded(answer)["code"])
        return self.receive(message, owner)

    def receive(self, message: ChunkRequest, owner: str) -> str:
        try:
            self.uid = self.service.receive(message, owner).uploadUid
        except Error as error:
            return error.code
        return ""

    def message(self, model: Model, number: int, content: bytes, checksum: str = "") -> ChunkRequest:
        return ChunkRequest(
            "file",
            model.total,
            len(model.parts),
            number,
            content,
            model.uid,
            model.identifier,
            checksum,
            model.checksum,
        )

    def send_and_check(self, model: Model, number: int, content: bytes, way: str, fault: str = "none") -> None:
        """Send a chunk of an upload that is alive, and compare what comes of it with what the model says."""
        if fault.startswith("cut"):
            self.send_cut(model, number, content, fault == "cut")
            return
        wrong = fault == "wrong checksum"
        message = self.message(model, number, content, sha256(b"something else") if wrong else "")
        outcome = self.send(way, message, model.owner)
        assert outcome == self.expect(model, number, content, way, wrong_checksum=wrong)
        assert outcome or self.uid == model.uid

    def send_cut(self, model: Model, number: int, content: bytes, known: bool) -> None:
        if not 2 <= len(content) <= model.total:
            return
        half = len(content) // 2
        length = len(content) if known else None
        members = {name: value for name, value in vars(self.message(model, number, b"")).items() if name != "content"}
        outcome = self.receive(ChunkRequest.streamed(members, cut_body(content, half), length), model.owner)
        if model.is_compared(number, length):
            same = model.acknowledged[number].startswith(content[:half])
            assert outcome == ("body_cut" if same else "chunk_conflict")
        else:
            model.claim(number, None)
            assert outcome == "body_cut"

    def expect(self, model: Model, number: int, content: bytes, way: str, *, wrong_checksum: bool = False) -> str:
        """Return the error that is due for a chunk, or ''; and note in the model what becomes of it."""
        known = way != "form"
        if known and len(content) > model.total:
            return "invalid_request"
        if known and wrong_checksum:
            return "checksum_mismatch"
        there = model.acknowledged.get(number)
        if model.is_compared(number, len(content) if known else None):
            assert there is not None
            if wrong_checksum:
                return "checksum_mismatch" if there.startswith(content) else "chunk_conflict"
            return model.finish() if there == content else "chunk_conflict"
        model.claim(number, None)
        if wrong_checksum:
            return "checksum_mismatch" if len(content) <= model.total else "invalid_request"
        return model.acknowledge(number, content) or model.finish()

    @rule(
        owner=st.sampled_from(OWNERS), parts=cut_files, identifier=st.sampled_from(["", "x"]), number=picks,
        change=changes, way=ways, checksum=st.sampled_from(["none", "right", "wrong"]),
    )  # fmt: skip
    def create(
        self, owner: str, parts: list[bytes], identifier: str, number: int, change: str, way: str, checksum: str
    ) -> None:
        number %= len(parts)
        declared = {"none": "", "right": sha256(b"".join(parts)), "wrong": sha256(b"wrong")}[checksum]
        model = Model("", owner, parts, identifier, declared)
        content = changed(parts[number], change)
        outcome = self.send(way, self.message(model, number, content), owner)
        existing = self.find(model)
        mine = [other for other in self.alive if other.owner == owner]
        if way != "form" and len(content) > model.total:
            assert outcome == "invalid_request"
        elif existing is None and sum(not other.finished for other in mine) >= MOST_OPEN:
            assert outcome == "too_many_uploads"
        elif existing is None and sum(other.total for other in mine) + model.total > MOST_BYTES:
            assert outcome == "too_large"
        else:
            assert outcome == self.expect(existing or model, number, content, way)
            if existing is not None:
                assert outcome or self.uid == existing.uid
            elif not outcome or identifier:
                model.uid = self.uid or self.service.status(self.named(model), owner).uploadUid
                self.alive.append(model)

    def find(self, model: Model) -> Model | None:
        key = (model.owner, model.identifier, model.total, len(model.parts))
        found = [other for other in self.alive if (other.owner, other.identifier, other.total, len(other.parts)) == key]
        return found[0] if found and model.identifier else None

    @staticmethod
    def named(model: Model) -> StatusRequest:
        return StatusRequest("", model.identifier, "file", model.total, len(model.parts))

    @precondition(lambda self: self.alive)
    @rule(pick=picks, number=picks, change=changes, way=ways, fault=faults)
    def chunk(self, pick: int, number: int, change: str, way: str, fault: str) -> None:
        model, number = self.pick(pick, number)
        self.send_and_check(model, number, changed(model.parts[number], change), way, fault)

    @precondition(lambda self: any(model.acknowledged for model in self.alive))
    @rule(pick=picks, number=picks, change=changes, way=ways, fault=faults)
    def chunk_again(self, pick: int, number: int, change: str, way: str, fault: str) -> None:
        models = [model for model in self.alive if model.acknowledged]
        model = models[pick % len(models)]
        number = sorted(model.acknowledged)[number % len(model.acknowledged)]
        self.send_and_check(model, number, changed(model.acknowledged[number], change), way, fault)

    @precondition(lambda self: any(model.missing for model in self.alive))
    @rule(pick=picks, way=ways, spoilt=picks, change=changes)
    def all_that_is_missing(self, pick: int, way: str, spoilt: int, change: str) -> None:
        models = [model for model in self.alive if model.missing]
        model = models[pick % len(models)]
        spoilt = model.missing[spoilt % len(model.missing)]
        for number in model.missing:
            content = changed(model.parts[number], change if number == spoilt else "right")
            self.send_and_check(model, number, content, way)

    @precondition(lambda self: any(model.all_there and not model.complete for model in self.alive))
    @rule(pick=picks, number=picks, way=ways, fault=faults)
    def chunk_that_mends(self, pick: int, number: int, way: str, fault: str) -> None:
        models = [model for model in self.alive if model.all_there and not model.complete]
        model = models[pick % len(models)]
        wrong = [number for number, part in enumerate(model.parts) if len(part) != len(model.acknowledged[number])]
        number = wrong[number % len(wrong)]
        self.send_and_check(model, number, model.parts[number], way, fault)

    # -- requests that stall

    @precondition(lambda self: self.alive)
    @rule(pick=picks, number=picks, change=changes, known=st.booleans())
    def stall(self, pick: int, number: int, change: str, known: bool) -> None:
        model, number = self.pick(pick, number)
        content = changed(model.parts[number], change)
        if not 2 <= len(content) <= model.total:
            return
        at = len(content) // 2
        length = len(content) if known else None
        compared = model.is_compared(number, length)
        writer = self.store.writer(self.store.read(model.uid), number, length)
        writer.__enter__()
        try:
            writer.write(content[:at])
        except Error as error:
            writer.__exit__()
            assert (error.code, compared) == ("chunk_conflict", True)
            assert not model.acknowledged[number].startswith(content[:at])
            return
        request = Stalled(model, writer, number, content, at, compared, model.changes.get(number, 0))
        if compared:
            assert model.acknowledged[number].startswith(content[:at])
        else:
            model.claim(number, request)
        self.stalled.append(request)

    @precondition(lambda self: any(request.model in self.alive for request in self.stalled))
    @rule(pick=picks, change=changes, way=ways, fault=faults)
    def newcomer(self, pick: int, change: str, way: str, fault: str) -> None:
        """The client of a stalled request connects anew and sends the same chunk."""
        requests = [request for request in self.stalled if request.model in self.alive]
        request = requests[pick % len(requests)]
        content = changed(request.model.parts[request.number], change)
        self.send_and_check(request.model, request.number, content, way, fault)

    @precondition(lambda self: self.stalled)
    @rule(pick=picks)
    def stalled_request_goes_on(self, pick: int) -> None:
        request = self.stalled.pop(pick % len(self.stalled))
        model, number, content = request.model, request.number, request.content
        if model in self.gone:
            due = "not_found"
        elif due := request.due():
            pass
        elif request.compared:
            due = "" if model.acknowledged[number] == content else "chunk_conflict"
        else:
            due = model.acknowledge(number, content)
        try:
            with request.writer as writer:
                writer.write(content[request.sent :])
                writer.commit()
        except Error as error:
            assert error.code == due
        else:
            assert due == ""

    @precondition(lambda self: self.stalled)
    @rule(pick=picks)
    def stalled_request_is_given_up(self, pick: int) -> None:
        request = self.stalled.pop(pick % len(self.stalled))
        if request.model.claims.get(request.number) is request:
            del request.model.claims[request.number]
        request.writer.__exit__()

    # -- everything else

    @precondition(lambda self: self.alive)
    @rule(pick=picks, by_http=st.booleans())
    def take(self, pick: int, by_http: bool) -> None:
        model, _ = self.pick(pick, 0)
        due = "" if model.complete else "incomplete"
        due = model.finish() or due
        if by_http:
            with self.client.get(f"/uploads/{model.uid}", headers=self.headers(model)) as answer:
                assert due == (answer.json["code"] if answer.status_code != 200 else "")
                assert due or answer.data == model.content
            return
        try:
            found = self.service.get_upload(model.uid, model.owner)
        except Error as error:
            assert error.code == due
        else:
            assert due == ""
            self.is_right(model, found)

    @staticmethod
    def headers(model: Model) -> dict[str, str]:
        return {"X-User": model.owner} if model.owner else {}

    @staticmethod
    def is_right(model: Model, found: Upload) -> None:
        assert Path(found.path).read_bytes() == model.content
        assert (found.uploadUid, found.fileName, found.totalSize, found.owner) == (
            model.uid,
            "file",
            model.total,
            model.owner,
        )

    @precondition(lambda self: self.alive)
    @rule(pick=picks, how=st.sampled_from(["cancel", "cancel by HTTP", "move away", "sweep"]))
    def end(self, pick: int, how: str) -> None:
        # Rather one that somebody is writing to: its writers must find out.
        models = [request.model for request in self.stalled if request.model in self.alive] or self.alive
        model = models[pick % len(models)]
        if how == "cancel by HTTP":
            assert self.client.delete(f"/uploads/{model.uid}", headers=self.headers(model)).status_code == 204
        elif how == "cancel":
            self.service.delete(model.uid, model.owner)
        elif how == "sweep":
            for path in [self.folder / model.uid, *(self.folder / model.uid).iterdir()]:
                then = path.stat().st_mtime - EXPIRY - 1
                os.utime(path, (then, then))
            assert self.service.sweep() == 1
        elif model.finished:
            self.moved += 1
            target = self.service.get_upload(model.uid, None).move_to(self.temporary / f"moved-{self.moved}")
            assert target.read_bytes() == model.content
        else:
            return
        self.alive.remove(model)
        self.gone.append(model)

    @precondition(lambda self: self.alive or self.gone)
    @rule(pick=picks, number=picks, way=ways, owner=st.sampled_from(OWNERS))
    def nobody_finds_what_is_foreign_or_gone(self, pick: int, number: int, way: str, owner: str) -> None:
        models = self.alive + self.gone
        model = models[pick % len(models)]
        if model in self.alive and owner == model.owner:
            return
        number %= len(model.parts)
        assert self.send(way, self.message(model, number, model.parts[number]), owner) == "not_found"
        for ask in (self.service.get_upload, self.service.peek, self.service.delete):
            with pytest.raises(Error) as refused:
                ask(model.uid, owner)
            assert refused.value.code == "not_found"

    @precondition(lambda self: self.alive)
    @rule(power_cut=st.booleans())
    def restart(self, power_cut: bool) -> None:
        """Everything in memory is lost; after a power cut, what was not forced to the disk is asked for again."""
        self.dead += [request.writer for request in self.stalled]
        self.stalled.clear()
        if power_cut:
            boot = other_boot()
            boot.__enter__()
            self.boots.append(boot)
            for model in self.alive:
                if self.durability != "chunk" and not model.finished:
                    model.forget_all()
        self.start()

    # -- what must be true at any time

    @invariant()
    def folder_holds_what_is_alive(self) -> None:
        found = {path.name for path in self.folder.glob("*") if not path.name.startswith(".")}
        assert found == {model.uid for model in self.alive}

    @invariant()
    def status_tells_what_was_acknowledged(self) -> None:
        for model in self.alive:
            status = self.service.status(StatusRequest(model.uid), model.owner)
            missing = [number for first, last in status.missing for number in range(first, last + 1)]
            assert missing == model.missing
            assert (status.state == "finished") == model.finished
            assert status.receivedBytes == model.received

    @invariant()
    def everybody_has_their_uploads(self) -> None:
        if not self.alive:
            return
        for owner in OWNERS:
            uids = {upload.uploadUid for upload in self.service.uploads(owner)}
            assert uids == {model.uid for model in self.alive if model.owner == owner}

    def pick(self, pick: int, number: int) -> tuple[Model, int]:
        model = self.alive[pick % len(self.alive)]
        return model, number % len(model.parts)


checks = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
TestUploads = Uploads.TestCase
TestUploads.settings = settings(
    max_examples=60, stateful_step_count=50, deadline=None, derandomize=True, suppress_health_check=checks,
)  # fmt: skip


@pytest.mark.soak
class TestUploadsForLong(Uploads.TestCase):
    settings = settings(max_examples=2000, stateful_step_count=100, deadline=None, suppress_health_check=checks)
