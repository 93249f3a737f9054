"""The file in which a download grows, beside its target, and the note on what it is a part of."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from ..boot import boot_id
from ..moving import rename_new, sync_directory
from .digests import Digest
from .errors import DigestMismatchError, TargetBusyError, TargetError, TargetExistsError, TargetFullError
from .saver import Saver

BETWEEN_SAVES = 64 << 20
"""After so many bytes the part is forced to the disk, and the note says so."""

_BLOCK = 1 << 20
_LONGEST_NAME = 255
_MOST_OPENED = 20
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_BOOT = boot_id()


@dataclass(frozen=True)
class Note:
    """What is known of the file that a part is of."""

    source: str = ""
    """Stands for the address; not the address itself, which may hold secrets."""
    etag: str = ""
    """As the server says it; only a strong one, without ``W/``, can be asked for."""
    modified: str = ""
    """The Last-Modified."""
    length: int | None = None
    """Bytes of the whole file, or None where the server does not tell."""
    digest: str = ""
    """As ``<algorithm>:<hex>``, if one was promised."""
    is_page: bool = False
    """Whether the server said that the file is HTML."""
    synced: int = 0
    """Bytes of the part that are on the disk for sure, should the machine go down."""
    boot: str = _BOOT

    @classmethod
    def parse(cls, raw: bytes) -> Note:
        """Read what ``build`` returned; an empty note for anything else."""
        try:
            members = json.loads(raw)
            types = {name: type(value) for name, value in asdict(cls(length=0)).items()}
            if any(type(members[name]) is not kind for name, kind in types.items() if name != "length"):
                return cls()
            if members["length"] is not None and (type(members["length"]) is not int or members["length"] < 0):
                return cls()
            return cls(**{name: members[name] for name in types})
        except (ValueError, TypeError, KeyError, RecursionError):
            return cls()

    def build(self) -> bytes:
        """Return the note as it is kept."""
        return json.dumps(asdict(self)).encode()

    @property
    def validator(self) -> str:
        """What an If-Range names: the strong ETag, or the date if there is none."""
        return self.etag if self.etag.startswith('"') else self.modified

    def differs(self, other: Note) -> bool:
        """Whether two answers are of different files; what only one of them says tells nothing."""
        if self.etag and other.etag and (self.etag != other.etag or self.validator == self.etag):
            return self.etag != other.etag
        return bool(self.modified and other.modified) and self.modified != other.modified


class Part:
    """An open part, locked: only one transfer of a machine has it. Raises TargetError and its kinds."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = _beside(target, ".part")
        self._note_path = _beside(target, ".part.json")
        with _words_for(target):
            self._file = _open_locked(self.path)
            try:
                status = os.fstat(self._file)
                if status.st_nlink > 1 and not _is_at(self._file, target):
                    raise TargetError(f"{str(self.path)!r} is another file as well.", remedy="Move it away.")
                self.size = status.st_size
                self._saver = Saver(self._file)
                self.note = self._read_note()
            except BaseException:
                os.close(self._file)
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with suppress(OSError):
            self._saver.wait()
        if self.size == 0:
            # Nothing to go on with: nothing is left behind.
            with suppress(OSError):
                self.discard()
                self._remove()
        os.close(self._file)

    @property
    def is_whole(self) -> bool:
        """Whether every byte is there."""
        return self.size == self.note.length

    def begin(self, note: Note) -> None:
        """Start from nothing with another file; raises TargetFullError where there is no room for it."""
        with _words_for(self.target):
            self._truncate(0)
            self.keep(replace(note, synced=0, boot=_BOOT))
            if note.length is not None and shutil.disk_usage(self.path.parent).free < note.length:
                raise TargetFullError(f"There is no room for the {note.length} bytes of {str(self.target)!r}.")

    def keep(self, note: Note) -> None:
        """Write the note, so that it is there whatever happens to the machine."""
        self.note = note
        scratch = _beside(self.target, ".part.new")
        with _words_for(self.target):
            # Of a process that was killed, or a link that somebody else put there.
            scratch.unlink(missing_ok=True)
            with scratch.open("xb") as file:
                file.write(note.build())
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(self._note_path)

    def write(self, block: bytes) -> None:
        """Append a block."""
        view = memoryview(block)
        with _words_for(self.target):
            while view:
                count = os.pwrite(self._file, view, self.size)
                self.size += count
                view = view[count:]
            if self.size - self._saver.begun >= BETWEEN_SAVES and not self._saver.is_busy:
                self._note_saved()
                self._saver.begin(self.size)

    def _note_saved(self) -> None:
        synced = min(self._saver.wait(), self.size)
        if synced > self.note.synced:
            self.keep(replace(self.note, synced=synced))

    def discard(self) -> None:
        """Forget everything."""
        with _words_for(self.target):
            self._truncate(0)
            self._note_path.unlink(missing_ok=True)
            self.note = Note()

    def verify(self, digest: Digest, check: Callable[[], object]) -> None:
        """Raise DigestMismatchError unless the file has the digest."""
        hasher = digest.hasher()
        offset = 0
        while offset < self.size:
            check()
            with _words_for(self.target):
                block = os.pread(self._file, _BLOCK, offset)
            if not block:
                break
            hasher.update(block)
            offset += len(block)
        if hasher.digest() != digest.value:
            raise DigestMismatchError(
                f"The file has {digest.algorithm}:{hasher.hexdigest()}, not the promised {digest.build()}."
            )

    def finish(self, *, overwrite: bool) -> None:
        """Give the file its name, on the disk for sure; raises TargetExistsError."""
        with _words_for(self.target):
            self._saver.wait()
            os.fsync(self._file)
            if self.target.parent.is_dir() and not _is_at(self._file, self.path):
                raise TargetError(f"Somebody else moved {str(self.path)!r} away.")
            if overwrite:
                self.path.replace(self.target)
            else:
                rename_new(self.path, self.target)
            sync_directory(self.target.parent)
            if _is_at(self._file, self.path) or not os.path.lexists(self.path):
                # Or else another transfer to the same target has begun meanwhile.
                self._note_path.unlink(missing_ok=True)
            if _is_at(self._file, self.path):
                # Last: as long as it is there, it says that the target is ours.
                self.path.unlink()

    def is_finished(self) -> bool:
        """Whether the file has its name already, and only the process that gave it could not say so any more."""
        if not _is_at(self._file, self.target):
            return False
        self._remove()
        return True

    def _remove(self) -> None:
        with _words_for(self.target):
            if _is_at(self._file, self.path):
                self.path.unlink()
            self._note_path.unlink(missing_ok=True)

    def _truncate(self, size: int) -> None:
        self._saver.forget()
        os.ftruncate(self._file, size)
        self.size = size

    def _read_note(self) -> Note:
        try:
            note = Note.parse(self._note_path.read_bytes()[:_BLOCK])
        except FileNotFoundError:
            if self.size and not _is_at(self._file, self.target):
                raise TargetExistsError(
                    f"{str(self.path)!r} is there, and is of no transfer.", remedy="Move it away."
                ) from None
            return Note()
        if note.boot == _BOOT:
            return note
        if self.size > note.synced:
            # What was not forced to the disk before the machine went down may be anything.
            self._truncate(note.synced)
        # What comes from now on must not be cut off as well when the part is opened the next time.
        self.keep(replace(note, boot=_BOOT))
        return self.note


def source_of(url: str) -> str:
    """Return what stands for an address in a note."""
    return hashlib.sha256(url.encode(errors="replace")).hexdigest()[:32]


def note_beside(target: Path) -> Note | None:
    """Return what is known of a part that an earlier transfer left beside its target; None if there is none."""
    with suppress(OSError):
        return Note.parse(_beside(target, ".part.json").read_bytes())
    return None


def check_target(target: Path, *, overwrite: bool) -> None:
    """Raise TargetError unless a file may be made there."""
    with _words_for(target):
        if target.is_dir():
            raise TargetError(f"{str(target)!r} is a folder.")
        if os.path.lexists(target) and stat.S_IFMT(target.lstat().st_mode) not in (stat.S_IFREG, stat.S_IFLNK):
            # A device would be gone for the whole machine.
            raise TargetError(f"{str(target)!r} is no regular file.")
        if not target.parent.is_dir():
            raise TargetError(f"There is no folder {str(target.parent)!r}.", remedy="Make it first.")
        if not overwrite and os.path.lexists(target) and not _is_pending(target):
            raise TargetExistsError(f"{str(target)!r} is there already.")


def _is_pending(target: Path) -> bool:
    with suppress(OSError):
        return target.samefile(_beside(target, ".part"))
    return False


def _beside(target: Path, ending: str) -> Path:
    if len(os.fsencode(target.name)) + len(".part.json") > _LONGEST_NAME:
        return target.with_name(f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:32]}{ending}")
    return target.with_name(target.name + ending)


def _open_locked(path: Path) -> int:
    """Open a part and lock it; raises TargetBusyError where somebody else has it."""
    for _ in range(_MOST_OPENED):
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who had it may have given it its name, or removed it, in between.
            if _is_at(file, path):
                return file
        except BlockingIOError:
            os.close(file)
            break
        except BaseException:
            os.close(file)
            raise
        os.close(file)
    raise TargetBusyError(f"Another transfer writes {str(path)!r}.")


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.lstat())
    except FileNotFoundError:
        return False


@contextmanager
def _words_for(target: Path) -> Iterator[None]:
    """Say of an error of the system what it means for a download."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise TargetFullError(f"There is no room for {str(target)!r}: {error.strerror}.") from None
        if isinstance(error, FileExistsError):
            raise TargetExistsError(f"{str(target)!r} is there already.") from None
        if isinstance(error, FileNotFoundError):
            raise TargetError(f"The folder of {str(target)!r} is gone.") from None
        raise TargetError(f"{str(target)!r} cannot be written: {error.strerror}.") from None
