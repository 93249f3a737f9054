"""Room for uploads: what an owner may have, what the disk has, and what is reserved of both."""

from __future__ import annotations

import os

from ..config import Config, Durability
from ..errors import StorageFullError, TooLargeError, TooManyUploadsError
from ..locks import LockFolder
from ..upload import DATA, Record, State
from .files import UploadFolder, reserve, storage_errors
from .owners import OwnerIndex


class Room:
    """Checks and reserves room in one storage folder."""

    def __init__(self, config: Config, owners: OwnerIndex, owner_locks: LockFolder) -> None:
        self._config = config
        self._root = config.folder
        self._owners = owners
        self._owner_locks = owner_locks
        self._durable = config.durability is not Durability.NONE

    def check(self, record: Record, more: int) -> None:
        """Raise TooManyUploadsError, TooLargeError or StorageFullError unless there is room for so many `more` bytes.

        Called with the owner's lock held.
        """
        self._check_quota(record)
        self._check_space(more)

    def make(self, folder: UploadFolder, size: int) -> None:
        """Make the file of an upload, with room for so many bytes."""
        with folder.opened(DATA, os.O_RDWR | os.O_CREAT | os.O_EXCL) as data:
            reserve(data, size)

    def change(self, folder: UploadFolder, before: Record, after: Record) -> None:
        """Reserve room for another size, and replace the record. Called with the upload's lock held."""
        more = after.quota_size - before.quota_size
        with storage_errors(), self._owner_locks.hold(self._owners.lock_name(before.owner)):
            if more > 0:
                self.check(after, more)
                # What grows is counted before it is there, and what shrinks after.
                self._owners.change(before, after)
            try:
                _resize(folder, after.quota_size)
                folder.write_record(after, sync=self._durable)
            except BaseException:
                if more > 0:
                    _resize(folder, before.quota_size)
                    self._owners.change(after, before)
                raise
            if more <= 0:
                self._owners.change(before, after)

    def _check_quota(self, record: Record) -> None:
        """Raise if the owner has too much already; what a killed process entered and never made is not counted."""
        entries = [entry for entry in self._owners.entries(record.owner) if entry[0] != record.uid]
        if self._over_quota(record, entries):
            entries = [entry for entry in entries if (self._root / entry[0]).is_dir()]
        unfinished, used = _usage(entries)
        if unfinished >= self._config.max_open_uploads:
            raise TooManyUploadsError(
                f"You have {unfinished} unfinished uploads; {self._config.max_open_uploads} are allowed at once"
                " (UPLOAD_HELPER_MAX_OPEN_UPLOADS)."
            )
        if used + record.quota_size > self._config.max_owner_bytes:
            raise TooLargeError(
                f"Your uploads reserve {used} bytes; {record.quota_size} more would be over the limit"
                f" of {self._config.max_owner_bytes} bytes for one owner (UPLOAD_HELPER_MAX_OWNER_BYTES).",
                remedy="Delete an upload, or ask the operator to raise the limit.",
            )

    def _over_quota(self, record: Record, entries: list[tuple[str, int, State]]) -> bool:
        unfinished, used = _usage(entries)
        too_much = used + record.quota_size > self._config.max_owner_bytes
        return too_much or unfinished >= self._config.max_open_uploads

    def _check_space(self, size: int) -> None:
        disk = os.statvfs(self._root)
        free = disk.f_bavail * disk.f_frsize
        if free - size < self._config.min_free_space:
            raise StorageFullError(
                f"The disk has {free} bytes free; a file of {size} bytes would leave less than"
                f" the {self._config.min_free_space} that are kept free (UPLOAD_HELPER_MIN_FREE_SPACE)."
            )


def _resize(folder: UploadFolder, size: int) -> None:
    with folder.opened(DATA, os.O_RDWR) as data:
        if os.fstat(data).st_size > size:
            # Room that does not count against the quota any more.
            os.ftruncate(data, size)
        else:
            reserve(data, size)


def _usage(entries: list[tuple[str, int, State]]) -> tuple[int, int]:
    """Return how many of an owner's uploads are unfinished, and the bytes of all of them."""
    unfinished = sum(state is State.OPEN for _, _, state in entries)
    return unfinished, sum(size for _, size, _ in entries)
