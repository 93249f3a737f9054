"""What runs after an upload: once it is finished, handlers that the host named become a task, exactly once."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import Config, Durability
from .errors import IncompleteError, InvalidTaskError, LedgerError, NotFoundError, StorageError, UnknownTaskError, shown
from .service import Upload, UploadService, log
from .upload import is_uid

if TYPE_CHECKING:
    from .work import Work

PostExecute = Callable[[Upload], Any]
"""Returns what is to be started for an upload that is finished, or nothing."""

_FOLDER = ".jobs"
_LOOK_SECONDS = 30
"""How often requests look for uploads whose process died between finishing them and starting their task."""


class Jobs:
    """Turns finished uploads into tasks.

    Finishing an upload and starting its task are writes to two places, and a process can die between them. So before
    an upload is finished, its uid is noted in the folder of the uploads, and taken out when the task is in the ledger.
    What is found noted later is started then: the task's uid follows from the upload's, so twice does no harm.
    """

    def __init__(self, work: Work, post_execute: PostExecute | Any, config: Config, threads: int) -> None:
        self.work = work
        self.wanted = post_execute is not None
        """Whether the host has handlers for uploads, and not only tasks of its own to run."""
        self._post_execute = post_execute if callable(post_execute) else _fixed(post_execute)
        self._folder = config.folder / _FOLDER
        self._syncs = config.durability is not Durability.NONE
        self._runner = work.runner(threads=threads) if threads else None
        self._looked = -float("inf")
        self._pid = 0
        self._lock = threading.Lock()

    def note(self, uid: str) -> None:
        """Remember that a task is due when the upload is finished; raises OSError if that can't be."""
        with self._opened(create=True) as folder:
            with suppress(FileExistsError):
                os.close(os.open(uid, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=folder))
            if self._syncs:
                os.fsync(folder)

    def start(self, upload: Upload) -> None:
        """Put the task of a finished upload into the ledger, if the host has handlers for it."""
        from .work.simpleui import read_work  # noqa: PLC0415 - only hosts that have handlers have the extra

        asked = read_work(self._post_execute(upload))
        if asked["handlers"]:
            variables = {
                "uploadUid": upload.uploadUid,
                "fileName": upload.fileName,
                "totalSize": upload.totalSize,
                "path": upload.path,
                "owner": upload.owner,
                # If we die before it is taken out, we must still find the record when we find the note.
                "uploadNote": str((self._folder / upload.uploadUid).absolute()),
            }
            own = {"tag": asked["tag"] or "upload", "title": asked["title"] or upload.fileName}
            self.work.start_work(**{**asked, **own}, variables=variables, uid=job_uid(upload.uploadUid))
        self._forget(upload.uploadUid)

    def tend(self, service: UploadService) -> None:
        """Start what a process that died left behind, and the threads that run tasks; called by every request."""
        now = time.monotonic()
        if self._pid == os.getpid() and now - self._looked < _LOOK_SECONDS:
            return
        with self._lock:
            if self._pid == os.getpid() and now - self._looked < _LOOK_SECONDS:
                return
            self._pid, self._looked = os.getpid(), now
        try:
            if self._runner is not None:
                self._runner.start()
            self.recover(service)
        except Exception:  # noqa: BLE001 - whoever made the request has nothing to do with it
            log.exception("looking for uploads without their task failed")

    def recover(self, service: UploadService) -> int:
        """Start the tasks of finished uploads that have none; return how many uploads were looked at."""
        uids = self._noted()
        for uid in uids:
            try:
                self.start(service.get_upload(uid, None))
            except IncompleteError:
                continue  # it is still on its way
            except NotFoundError:
                self._forget(uid)
            except LedgerError:
                # The next one would wait for it just as long, and somebody's request waits for us.
                log.exception("the tasks of %d uploads can't be started yet", len(uids))
                break
            except Exception:  # noqa: BLE001
                # The handlers of one are the host's code, and must not keep the others from theirs.
                log.exception("the task of upload %s could not be started", uid)
        return len(uids)

    def progress(self, uid: str) -> tuple[dict[str, Any], Upload]:
        """Return how far the task of an upload is, and the upload as it was; raises NotFoundError if there is none."""
        try:
            task = self.work.get(job_uid(uid)) if is_uid(uid) else None
        except UnknownTaskError:
            task = None
        if task is None:
            raise NotFoundError
        known = task.variables
        upload = Upload(uid, known.get("fileName", ""), known.get("totalSize", 0), owner=known.get("owner", ""))
        return self.work.progress(task.uid), upload

    def stop(self) -> None:
        """Stop the threads of this process."""
        if self._runner is not None:
            self._runner.stop()

    def _noted(self) -> list[str]:
        try:
            with self._opened() as folder:
                return [name for name in os.listdir(folder) if is_uid(name)]  # noqa: PTH208 - of a descriptor
        except FileNotFoundError:
            return []

    def _forget(self, uid: str) -> None:
        with suppress(FileNotFoundError), self._opened() as folder:
            os.unlink(uid, dir_fd=folder)

    @contextmanager
    def _opened(self, *, create: bool = False) -> Iterator[int]:
        if create:
            _make(self._folder)
        try:
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except NotADirectoryError:
            raise StorageError(f"{shown(str(self._folder))} is no folder.") from None
        try:
            yield folder
        finally:
            os.close(folder)


def job_uid(uid: str) -> str:
    """Return the uid of an upload's task."""
    return f"upload-{uid}"


def _fixed(post_execute: Any) -> PostExecute:
    from .work.handlers.arrays import parse_handlers  # noqa: PLC0415 - as above
    from .work.simpleui import read_work  # noqa: PLC0415
    from .work.task import parse_conditions  # noqa: PLC0415

    asked = read_work(post_execute)
    parse_conditions(asked["conditions"])
    if not parse_handlers(asked["handlers"]):
        raise InvalidTaskError(
            "There is nothing to do: post_execute has no handlers.", remedy="Name some, or leave it out."
        )
    return lambda _upload: post_execute


def _make(folder: Path) -> None:
    if folder.is_dir() and not stat.S_ISLNK(folder.lstat().st_mode):
        return
    with suppress(FileExistsError):
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(mode=0o700)
