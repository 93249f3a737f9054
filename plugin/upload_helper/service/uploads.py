"""What can be done with any upload, whatever the protocol: look, finish, delete, hand over, sweep."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

from ..config import Config
from ..errors import Error, IncompleteError, InvalidRequestError, NotFoundError
from ..protocols.metadata import read_texts
from ..stores import Store
from ..upload import Record, State
from .upload import Upload

log = logging.getLogger("upload_helper")

# How long a request that creates an upload may be held up by sweeping on the way.
_SWEEP_SECONDS = 0.5

Operation = Literal["create", "write", "read", "status", "delete", "list"]
"""What a client wants to do: write is a further chunk, read is the finished file, status how far it is."""

Allow = Callable[[Operation, Upload], None]
"""Is asked before anything is changed, and raises ForbiddenError if the operation is not allowed."""

Event = Literal["created", "finished", "deleted"]


class Uploads:
    """The operations that do not depend on how the bytes come.

    `owner` is who asks, as the host says; where it is None the host's own code asks, and may see every upload.
    `notify` is told what happened to which upload, and `prepare` is called with its uid before one is finished.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        notify: Callable[[Event, Upload], None],
        prepare: Callable[[str], None] | None = None,
    ) -> None:
        self.config = config
        self._store = store
        self._notify = notify
        self._prepare = prepare

    def get_upload(self, uid: str, owner: str | None) -> Upload:
        """Return a finished upload; raises IncompleteError while something is missing."""
        record = self._owned(uid, owner)
        if record.partial:
            raise IncompleteError(f"Upload {uid} is a part of a file, and was not put together with the others.")
        if record.state is not State.FINISHED:
            record = self._finish(uid)
        self._store.check(record)
        return self._upload(record)

    def peek(self, uid: str, owner: str | None) -> Upload:
        """Return an upload whether it is finished or not."""
        return self._upload(self._owned(uid, owner))

    def delete(self, uid: str, owner: str | None) -> None:
        """Cancel an upload that is on its way, or delete a finished one."""
        self._owned(uid, owner)
        self._report_deleted(uid, self._store.delete(uid))

    def take(self, uid: str, take: Callable[[Path], None]) -> None:
        """Let `take` move a finished file away and forget the upload; nobody is told, for nothing was lost."""
        self._store.take(uid, take)

    def uploads(self, owner: str | None = None) -> Iterator[Upload]:
        """Yield the uploads of one owner, without the parts that others are put together from; or all of everybody."""
        for uid in self._store.uids(owner):
            with suppress(Error):
                record = self._owned(uid, owner)
                if owner is None or not record.partial:
                    yield self._upload(record)

    def sweep(self, *, seconds: float = math.inf) -> int:
        """Delete what nobody has written to for the configured time; return how many uploads that were.

        Looks at no further upload after so many seconds.
        """
        until = time.monotonic() + seconds
        swept = 0
        expiry = self.config.expiry.total_seconds()
        if expiry:
            uids = list(self._store.uids())
            # In another order each time, so that short sweeps come to all of them in the end.
            random.shuffle(uids)
            for uid in uids:
                swept += self._sweep_one(uid, time.time() - expiry)
                if time.monotonic() > until:
                    break
        self._store.clean()
        return swept

    def _sweep_one(self, uid: str, before: float) -> bool:
        try:
            record = self._store.delete_expired(uid, before)
        except NotFoundError:
            return False
        except Error:
            # One that is broken must not keep the others from being swept.
            log.exception("upload %s could not be swept", uid)
            return False
        if record is not None:
            self._report_deleted(uid, record)
        return record is not None

    def _sweep_by_the_way(self) -> None:
        interval = self.config.sweep_interval.total_seconds()
        try:
            if interval and self._store.claim_sweep(interval):
                self.sweep(seconds=_SWEEP_SECONDS)
        except Exception:
            # Whoever starts an upload has nothing to do with what is wrong with old ones.
            log.exception("sweeping failed")

    def _owned(self, uid: str, owner: str | None) -> Record:
        record = self._store.read(uid)
        if owner is not None and record.owner != owner:
            # Word for word what is said of a uid that does not exist.
            raise NotFoundError
        return record

    def _create(self, record: Record, *, anew: bool = False) -> tuple[Record, bool]:
        existing = None if anew else self._store.find(record)
        if existing is not None:
            return existing, False
        record, created = self._store.create(record, anew=anew)
        if created:
            self._report("created", record)
            self._sweep_by_the_way()
        return record, created

    def _finish(self, uid: str, *, verified: bool = False) -> Record:
        if self._prepare is not None:
            self._prepare(uid)
        record, by_us = self._store.finish(uid, verified=verified)
        if by_us:
            log.info("upload %s finished: %d bytes", uid, record.total_size)
            self._report("finished", record)
        return record

    def _report_deleted(self, uid: str, record: Record | None) -> None:
        log.info("upload %s deleted", uid)
        if record is not None:
            self._report("deleted", record)

    def _report(self, event: Event, record: Record) -> None:
        # Parts of a file are the protocol's own business; what is put together of them is reported.
        if not record.partial:
            self._notify(event, self._upload(record))

    def _discard(self, uid: str) -> None:
        """Delete an upload that its client has not learned of."""
        with suppress(Error):
            self.delete(uid, None)

    def _upload(self, record: Record) -> Upload:
        finished = record.state is State.FINISHED
        path = self._store.path(record) if finished else ""
        metadata: Mapping[str, str] = {}
        if record.metadata:
            # What came with another protocol was given on as it was.
            with suppress(InvalidRequestError):
                metadata = read_texts(record.metadata)
        return Upload(record.uid, record.file_name, record.total_size, path, record.owner, metadata, self)
