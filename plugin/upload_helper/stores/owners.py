"""Who has which uploads: the index by owner and by the identifier that a client chose.

Each owner has a directory. In it an empty file ``<uid>.<bytes>.<state>`` stands for each upload, so that counting
against a quota reads one directory, and a file ``id-<hash>`` with a uid in it for each identifier.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ..moving import sync_directory
from ..upload import UNKNOWN_SIZE, Record, State, is_uid
from .files import read_small, refuse_links, write_at

_SCRATCH = "-new"


def _digest(*parts: object) -> str:
    # The length of each part goes in, so that no two lists of parts read the same.
    text = "".join(f"{len(str(part))}:{part}" for part in parts)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class OwnerIndex:
    """The index below one folder. What adds and removes is called with the owner's lock held."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, record: Record, *, sync: bool) -> None:
        """Enter a new upload; with `sync` the entry is on the disk when this returns."""
        directory = self._directory(record.owner)
        directory.mkdir(mode=0o700, exist_ok=True)
        (directory / self._marker(record)).touch(mode=0o600)
        if record.identifier:
            self._write(self._identifier(record), record.uid, sync=sync)
        if sync:
            sync_directory(directory)
            sync_directory(self._folder)

    def find(self, record: Record) -> str:
        """Return the uid of the owner's upload with the same identifier, name, size and chunk count, or ''."""
        uid = read_small(self._identifier(record))
        return uid if is_uid(uid) else ""

    def change(self, before: Record, after: Record) -> None:
        """Note another size or state of an upload."""
        directory = self._directory(before.owner)
        with suppress(FileNotFoundError):
            (directory / self._marker(before)).rename(directory / self._marker(after))
            return
        # A process that was killed between the index and the record leaves them apart.
        for name, uid, _, _ in self._markers(directory):
            if uid == before.uid:
                (directory / name).rename(directory / self._marker(after))

    def remove(self, record: Record) -> None:
        """Strike an upload out."""
        directory = self._directory(record.owner)
        for state in State:
            (directory / self._marker(replace(record, state=state))).unlink(missing_ok=True)
        if record.identifier and self.find(record) == record.uid:
            self._identifier(record).unlink(missing_ok=True)

    def entries(self, owner: str) -> list[tuple[str, int, State]]:
        """Return uid, size in bytes and state of each of the owner's uploads."""
        return [(uid, size, state) for _, uid, size, state in self._markers(self._directory(owner))]

    def directories(self) -> Iterator[tuple[str, Path]]:
        """Yield the name of the lock and the directory of every owner."""
        refuse_links(self._folder)
        with suppress(FileNotFoundError), os.scandir(self._folder) as found:
            for item in found:
                if item.is_dir(follow_symlinks=False):
                    yield item.name, Path(item.path)

    def prune(self, directory: Path, exists: dict[str, bool]) -> None:
        """Remove the entries of uploads that do not exist, as far as `exists` knows; then an empty directory."""
        for name, uid, _, _ in self._markers(directory):
            if exists.get(uid) is False:
                (directory / name).unlink(missing_ok=True)
        for path in directory.glob("id-*"):
            if path.name.endswith(_SCRATCH) or exists.get(read_small(path)) is False:
                path.unlink(missing_ok=True)
        with suppress(OSError):
            directory.rmdir()

    def uids(self, directory: Path) -> dict[str, State]:
        """Return every uid that an owner's directory mentions, with the state that stands there."""
        named = {read_small(path): State.FINISHED for path in directory.glob("id-*")}
        return named | {uid: state for _, uid, _, state in self._markers(directory)}

    @staticmethod
    def lock_name(owner: str) -> str:
        """Return the name of the lock that guards the owner's directory."""
        return _digest(owner)

    def _directory(self, owner: str) -> Path:
        directory = self._folder / _digest(owner)
        refuse_links(self._folder, directory)
        return directory

    def _identifier(self, record: Record) -> Path:
        # Name, size and count belong to the key: clients make identifiers from a name with letters dropped.
        # One that is appended to may learn its size late, so there it doesn't.
        size = UNKNOWN_SIZE if record.appended else record.total_size
        key = _digest(record.identifier, record.file_name, size, record.chunk_count)
        return self._directory(record.owner) / f"id-{key}"

    @staticmethod
    def _marker(record: Record) -> str:
        return f"{record.uid}.{record.quota_size}.{record.state}"

    @staticmethod
    def _markers(directory: Path) -> list[tuple[str, str, int, State]]:
        try:
            names = [path.name for path in directory.iterdir()]
        except FileNotFoundError:
            return []
        parts = ((name, *name.split(".")) for name in names if name.count(".") == 2)
        return [
            (name, uid, int(size), State(state))
            for name, uid, size, state in parts
            if is_uid(uid) and size.isdecimal() and state in set(State)
        ]

    @staticmethod
    def _write(path: Path, text: str, *, sync: bool) -> None:
        scratch = path.with_name(path.name + _SCRATCH)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(scratch, flags, 0o600)
        try:
            write_at(descriptor, text.encode(), 0)
            if sync:
                os.fsync(descriptor)
            scratch.rename(path)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
