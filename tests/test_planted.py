"""Links that somebody planted in the storage folder: never followed, whatever is asked for."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from chunks import send, upload
from hostile import refusal
from upload_helper import StorageError
from upload_helper.locks import LockFolder

DATA = random.Random(12).randbytes(1000)
SIZE = 300


class Case:
    """A host with one upload, on its way or finished, and a place outside of its folder that nobody may touch."""

    def __init__(self, make_host: Any, folder: Path, outside: Path) -> None:
        self.folder = folder
        self.outside = outside
        self.app = make_host(sweep_interval=0)
        self.client = self.app.test_client()
        self.file = outside / "file"
        self.directory = outside / "directory"
        self.directory.mkdir(parents=True)
        self.file.write_bytes(DATA)
        (self.directory / "inside").write_text("untouched")
        (self.directory / "empty").mkdir()
        (self.directory / "full").mkdir()
        (self.directory / "full" / "x").write_text("untouched")
        for path in sorted(outside.rglob("*"), reverse=True):
            path.chmod(0o640 if path.is_file() else 0o750)
            os.utime(path, (1_000_000_000, 1_000_000_000))
        self.uid = ""

    def begin(self) -> None:
        self.uid = send(self.client, DATA, SIZE, 0, identifier="id").json["uploadUid"]

    def finish(self) -> None:
        self.uid = upload(self.client, DATA, SIZE)

    def plant(self, place: str, target: Path) -> None:
        """Put a link to `target` where `place` says; ``*`` stands for whatever is there."""
        pattern = place.replace("<uid>", self.uid)
        found = list(self.folder.glob(pattern)) if "*" in pattern else [self.folder / pattern]
        assert found, f"nothing is at {pattern}"
        for path in found:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(target)

    def snapshot(self) -> list[tuple[Any, ...]]:
        """Return all that can be seen of what is outside."""
        paths = sorted([self.outside, *self.outside.rglob("*")])
        return [(path, s.st_mode, s.st_size, s.st_nlink, _content(path), s.st_mtime if path != self.outside else 0)
                for path in paths for s in [path.lstat()]]  # fmt: skip


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


@pytest.fixture
def case(make_host, folder, tmp_path):
    return Case(make_host, folder, tmp_path / "outside")


def more(case: Case) -> Any:
    return send(case.client, DATA, SIZE, 1, uid=case.uid)


def irregular(case: Case) -> Any:
    return case.client.post(
        "/uploads",
        query_string={**_fields(case), "chunkNumber": 1},
        data=DATA[:7],
        headers={"Content-Type": "application/octet-stream"},
    )


def _fields(case: Case) -> dict[str, Any]:
    return {"uploadUid": case.uid, "fileName": "file.bin", "totalSize": len(DATA), "chunkCount": 4}


def again(case: Case) -> Any:
    return send(case.client, DATA, SIZE, 0, uid=case.uid)


def new(case: Case) -> Any:
    return send(case.client, DATA, SIZE, 0, identifier="other")


def same(case: Case) -> Any:
    return send(case.client, DATA, SIZE, 1, identifier="id")


def status(case: Case) -> Any:
    return case.client.get(f"/uploads/{case.uid}/status")


def download(case: Case) -> Any:
    return case.client.get(f"/uploads/{case.uid}")


def delete(case: Case) -> Any:
    return case.client.delete(f"/uploads/{case.uid}")


def rest(case: Case) -> Any:
    answers = [send(case.client, DATA, SIZE, number, uid=case.uid) for number in (1, 2, 3)]
    return next((answer for answer in answers if answer.status_code != 200), answers[-1])


# Where the link is, what it leads to, how far the upload is, and what is then asked for.
REFUSED: list[tuple[str, str, str, Callable[[Case], Any]]] = [
    ("<uid>", "directory", "begin", more),
    ("<uid>", "directory", "begin", status),
    ("<uid>", "directory", "finish", download),
    ("<uid>", "directory", "begin", delete),
    ("<uid>", "file", "begin", more),
    ("<uid>/data", "file", "begin", more),
    ("<uid>/data", "file", "begin", again),
    ("<uid>/data", "file", "begin", rest),
    ("<uid>/data", "missing", "begin", more),
    ("<uid>/data", "file", "finish", again),
    ("<uid>/data", "file", "finish", download),
    ("<uid>/chunks", "file", "begin", more),
    ("<uid>/chunks", "file", "begin", status),
    ("<uid>/chunks", "file", "begin", delete),
    ("<uid>/chunks", "missing", "begin", more),
    ("<uid>/upload.json", "file", "begin", more),
    ("<uid>/upload.json", "file", "finish", download),
    ("<uid>/upload.json.new", "file", "begin", rest),
    ("<uid>/upload.json.new", "missing", "begin", rest),
    ("<uid>/side-1", "file", "begin", irregular),
    ("<uid>/side-1", "missing", "begin", irregular),
    (".owners", "directory", "nothing", new),
    (".owners", "directory", "begin", new),
    (".owners", "directory", "begin", same),
    (".owners/*", "directory", "begin", new),
    (".owners/*/id-*", "file", "begin", same),
    (".locks", "directory", "nothing", new),
    (".locks", "directory", "begin", new),
    (".locks/uploads", "directory", "nothing", new),
    (".locks/owners", "directory", "nothing", new),
    (".locks/owners", "directory", "begin", new),
    (".locks/owners/*", "file", "begin", new),
    (".locks/owners/*", "missing", "begin", new),
    (".locks", "directory", "begin", rest),
    (".locks/uploads", "directory", "begin", rest),
    (".locks/uploads", "directory", "begin", delete),
    (".scratch", "directory", "nothing", new),
    (".scratch", "directory", "begin", new),
    (".scratch", "directory", "begin", delete),
]


@pytest.mark.parametrize(("place", "target", "state", "ask"), REFUSED)
def test_link_is_refused_and_what_it_leads_to_unchanged(case, place, target, state, ask):
    if state != "nothing":
        getattr(case, state)()
    case.plant(place, case.outside / target)
    before = case.snapshot()
    answer = ask(case)
    told = refusal(answer, 500, "storage_error")
    assert case.snapshot() == before
    assert str(case.folder) not in answer.text
    assert "UPLOAD_HELPER_FOLDER" in told["remedy"]


def test_link_in_place_of_the_assembled_file_is_refused(case):
    parts = [DATA[:10], DATA[10:500], DATA[500:600], DATA[600:]]
    case.begin()
    case.client.delete(f"/uploads/{case.uid}")
    case.uid = ""
    for number, part in enumerate(parts):
        if number == 3:
            case.plant("<uid>/assembled", case.file)
            before = case.snapshot()
        answer = case.client.post(
            "/uploads", query_string={**_fields(case), "chunkNumber": number}, data=part,
            headers={"Content-Type": "application/octet-stream"},
        )  # fmt: skip
        case.uid = case.uid or answer.json["uploadUid"]
    refusal(answer, 500, "storage_error")
    assert case.snapshot() == before


def test_link_in_place_of_a_lock_is_refused_when_the_upload_is_finished(case, tmp_path):
    case.begin()
    (tmp_path / "locks").mkdir()
    with LockFolder(tmp_path / "locks").hold(case.uid):
        name = next((tmp_path / "locks").iterdir()).name
    case.plant(f".locks/uploads/{name}", case.file)
    before = case.snapshot()
    refusal(rest(case), 500, "storage_error")
    refusal(delete(case), 500, "storage_error")
    assert case.snapshot() == before


@pytest.mark.parametrize("target", ["file", "directory", "missing"])
def test_link_in_place_of_the_time_of_the_last_sweep_is_not_touched(make_host, folder, tmp_path, target):
    case = Case(make_host, folder, tmp_path / "outside")
    client = make_host(sweep_interval=0.001).test_client()
    case.begin()
    case.plant(".swept", case.outside / target)
    before = case.snapshot()
    send(client, DATA, SIZE, 0)
    assert case.snapshot() == before


@pytest.mark.parametrize("place", [
    "<uid>", "<uid>/data", "<uid>/chunks", "<uid>/upload.json", "<uid>/x", ".scratch", ".scratch/x", ".owners", ".owners/*",
    ".locks", ".locks/uploads", ".locks/owners",
])  # fmt: skip
@pytest.mark.parametrize("target", ["file", "directory", "missing"])
def test_sweeping_and_deleting_go_around_links(case, place, target):
    case.begin()
    case.plant(place, case.outside / target)
    _age(case.folder)
    before = case.snapshot()
    with case.app.app_context(), suppress(StorageError):
        case.app.extensions["upload_helper"].helper.sweep()
    delete(case)
    assert case.snapshot() == before


def _age(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (1, 1), follow_symlinks=False)


@pytest.mark.parametrize("what", ["path", "open", "move_to"])
def test_host_does_not_get_a_link_for_its_file(case, tmp_path, what):
    case.finish()
    helper = case.app.extensions["upload_helper"].helper
    with case.app.app_context():
        found = helper.get_upload(case.uid)
    case.plant("<uid>/data", case.file)
    before = case.snapshot()
    with pytest.raises(StorageError), case.app.app_context():
        if what == "path":
            helper.get_upload(case.uid)
        elif what == "open":
            found.open().close()
        else:
            found.move_to(tmp_path / "target")
    assert case.snapshot() == before
    assert not os.path.lexists(tmp_path / "target")


def test_link_that_the_operator_made_for_the_whole_folder_is_followed(make_host, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "uploads").symlink_to(tmp_path / "disk")
    client = make_host().test_client()
    uid = upload(client, DATA, SIZE)
    assert (tmp_path / "disk" / uid / "data").read_bytes() == DATA


def test_what_is_no_folder_in_place_of_the_storage_folder_is_refused(make_host, folder):
    folder.write_text("a file")
    refusal(send(make_host().test_client(), DATA, SIZE, 0), 500, "storage_error")
    assert folder.read_text() == "a file"


def test_record_that_names_a_file_elsewhere_is_not_believed(case):
    case.finish()
    record = case.folder / case.uid / "upload.json"
    record.write_text(record.read_text().replace('"data_file": "data"', '"data_file": "../../outside/file"'))
    answer = download(case)
    assert answer.status_code in (404, 500)
    refusal(answer, answer.status_code)


def test_soft_lock_is_never_used(case, monkeypatch):
    # A lock that is nothing but a file outlives whoever held it.
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    refusal(new(case), 500, "storage_error")


def test_only_its_owner_may_look_into_the_storage_folder(case):
    case.begin()
    modes = {path.name: path.stat().st_mode & 0o777 for path in [case.folder, *case.folder.rglob("*")] if path.is_dir()}
    assert set(modes.values()) == {0o700}, modes
