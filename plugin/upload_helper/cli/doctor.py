"""``flask uploads doctor``: tries what uploads need of a machine and its storage folder, and says what is missing."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..pipes import Pipe, why_not
from ..splicing import expected_way
from ..state import AppState
from ..stores.files import can_reserve
from .text import size_text

_SAMPLE = b"sample" * 1000


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. What is not good has a text that says what to do about it."""

    name: str
    text: str
    advice: str = ""
    broken: bool = False
    """Whether uploads can't work, or are not safe, as it is."""


def examine(state: AppState) -> Iterator[Finding]:
    """Yield what there is to say of an application; leaves everything as it was."""
    yield _asked("authorize", state.authorize, "pass UploadHelper(app, authorize=…); until then all is refused", True)
    yield _asked("identify", state.identify, "users are not told apart; pass identify=… unless that is meant", False)
    folder = _nearest(state.config.folder)
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=folder) as place:
            yield _examine_folder(state.config.folder, folder)
            yield from _examine_disk(state, Path(place))
    except OSError as error:
        advice = {errno.ENOSPC: "make room", errno.EDQUOT: "make room"}.get(
            error.errno or 0, "run this as the server's user, and let that user write there"
        )
        yield Finding("folder", f"{folder}: {error.strerror}", advice, broken=True)
    yield Finding("durability", str(state.config.durability))
    yield Finding("gunicorn", _installed("gunicorn"))
    yield Finding("uWSGI", _installed("uwsgi", "pyuwsgi"))
    yield Finding("bodies", expected_way(state.config.splice_from))


def _nearest(folder: Path) -> Path:
    """Return the folder, or what is above it and there: it must be made by the server's user and nobody else."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _examine_folder(folder: Path, nearest: Path) -> Finding:
    if nearest != folder:
        return Finding("folder", f"{folder} will be made by the first upload, in {nearest}")
    owner, us = folder.stat().st_uid, os.geteuid()
    if owner != us:
        # Root may write everywhere, which says nothing of the server.
        return Finding("folder", f"{folder} belongs to user {owner}", f"this ran as {us}: run it as the server's user")
    shut = [path for path in folder.glob(".*") if path.is_dir() and not os.access(path, os.W_OK | os.X_OK)]
    if shut:
        return Finding("folder", f"{shut[0]} can't be written", f"give it to user {us}", broken=True)
    return Finding("folder", f"{folder} can be written")


def _examine_disk(state: AppState, place: Path) -> Iterator[Finding]:
    free, least = shutil.disk_usage(place).free, state.config.min_free_space
    short = "" if free > least else f"new uploads are refused below {size_text(least)} (UPLOAD_HELPER_MIN_FREE_SPACE)"
    yield Finding("free", size_text(free), short, broken=bool(short))
    with (place / "sample").open("w+b") as file, (place / "sample").open("r+b") as other:
        yield _try_locks(file.fileno(), other.fileno())
        reserves = can_reserve(file.fileno(), len(_SAMPLE))
        yield Finding(
            "room", "is reserved" if reserves else "can't be reserved here",
            "" if reserves else "a disk that fills up is noticed in the middle of an upload",
        )  # fmt: skip
        yield _try_splice(file.fileno())
        begin = time.perf_counter()
        os.fsync(file.fileno())
        yield Finding("fsync", f"{1000 * (time.perf_counter() - begin):.1f} ms")


def _try_locks(first: int, second: int) -> Finding:
    """Lock a file twice: where that works, the file system has no locks, and parallel requests are not safe."""
    bad = "put UPLOAD_HELPER_FOLDER on a file system with flock(2)"
    try:
        fcntl.flock(first, fcntl.LOCK_EX)
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return Finding("locks", "work")
    except OSError as error:
        return Finding("locks", f"do not work: {error.strerror}", bad, broken=True)
    return Finding("locks", "do not keep anybody out", bad, broken=True)


def _try_splice(file: int) -> Finding:
    pipe = None if why_not() else Pipe.make()
    if pipe is None:
        return Finding("splice", why_not() or "no pipe is left for this user")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(_SAMPLE)
        try:
            pipe.fill(ours.fileno(), len(_SAMPLE)).move(file, 0)
        except BlockingIOError:
            return Finding("splice", why_not())
        finally:
            pipe.close()
    right = os.pread(file, len(_SAMPLE) + 1, 0) == _SAMPLE
    if not right:
        return Finding("splice", "stores other bytes", "set UPLOAD_HELPER_SPLICE_FROM = None", broken=True)
    return Finding("splice", why_not() or "works")


def _asked(name: str, question: object, advice: str, broken: bool) -> Finding:
    return Finding(name, "is there" if question else "is missing", "" if question else advice, broken and not question)


def _installed(*names: str) -> str:
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "not installed"
