"""What the tests of uploads that are appended to share: short ways to make one, to append to it, and to look at it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from faults import config, record
from upload_helper import BodyCutError
from upload_helper.service import NewUpload, Piece, UploadService
from upload_helper.stores import LocalStore, local
from upload_helper.upload import UNKNOWN_SIZE, Record


def new_record(size: int = UNKNOWN_SIZE, **members: Any) -> Record:
    """Return the record of a new upload that is appended to."""
    return record(b"", 0, **{"total_size": size, **members})


def put(
    store: Any, upload: Record, offset: int, content: bytes, *, hold: bool = False, complete: bool | None = None,
    block: int = 1 << 18,
) -> Any:  # fmt: skip
    """Append bytes through an appender in blocks; return what commit returned."""
    with store.appender(upload, offset, hold=hold, complete=complete) as appender:
        for start in range(0, len(content), block):
            appender.write(content[start : start + block])
        return appender.commit()


class Service(UploadService):
    """A service on a store of its own, as another process would have it; notes the events that hosts are told."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.events: list[tuple[str, str]] = []
        self.folder = folder
        chosen = config(folder, **settings)
        self.store = LocalStore(chosen)
        super().__init__(chosen, self.store, lambda event, upload: self.events.append((event, upload.uploadUid)))

    def new(self, size: int = UNKNOWN_SIZE, **members: Any) -> str:
        """Begin an upload of ann's; return its uid."""
        return self.begin(NewUpload(members.pop("file_name", "f.bin"), size, **members), "ann").upload.uploadUid

    def put(self, uid: str, offset: int, content: bytes, **members: Any) -> Any:
        """Append a piece."""
        return self.append(uid, piece(offset, content, **members), "ann")

    def make(self, content: bytes, **members: Any) -> str:
        """Upload a whole file; return its uid."""
        uid = self.new(len(content), **members)
        assert self.put(uid, 0, content).complete
        return uid

    def read(self, uid: str) -> bytes:
        """Return the bytes of a finished upload."""
        return Path(self.get_upload(uid, "ann").path).read_bytes()


def piece(offset: int, content: bytes, *, known: bool = True, block: int = 1 << 18, **members: Any) -> Piece:
    """Return a piece of these bytes, in blocks."""
    blocks = [content[start : start + block] for start in range(0, len(content), block)]
    return Piece(offset, blocks, len(content) if known else None, **members)


def cut_piece(offset: int, content: bytes, length: int | None, **members: Any) -> Piece:
    """Return a piece of which the connection is cut after these bytes."""

    def blocks() -> Iterator[bytes]:
        if content:
            yield content
        raise BodyCutError("The body ended.")

    return Piece(offset, blocks(), length, **members)


def markers(folder: Path) -> dict[str, tuple[int, str]]:
    """Return size and state of every upload as the index of owners counts them."""
    names = [path.name.split(".") for path in folder.glob(".owners/*/*") if not path.name.startswith("id-")]
    assert len({uid for uid, _, _ in names}) == len(names), f"one upload is counted twice: {names}"
    return {uid: (int(size), state) for uid, size, state in names}


def check_index(folder: Path) -> None:
    """See that the index counts what the records say, and that no file takes more room than is counted."""
    store = LocalStore(config(folder))
    records = [store.read(uid) for uid in store.uids()]
    assert markers(folder) == {upload.uid: (upload.quota_size, str(upload.state)) for upload in records}
    for upload in records:
        assert (folder / upload.uid / "data").stat().st_size <= upload.quota_size


def check_nothing_left(folder: Path, monkeypatch: Any, *, clean: bool = True) -> None:
    """See that nothing is left of uploads that are gone, where `clean` is set after a clean-up."""
    if clean:
        monkeypatch.setattr(local, "_SCRATCH_SECONDS", -1)
        LocalStore(config(folder)).clean()
    left = [path for path in folder.rglob("*") if path.is_file() and ".locks" not in path.parts]
    assert [path for path in left if path.name != ".swept"] == []


def age(folder: Path, uid: str, seconds: float = 1e6) -> None:
    """Let the last write to an upload be some time ago."""
    for path in [folder / uid, *(folder / uid).iterdir()]:
        os.utime(path, (time.time() - seconds,) * 2)
