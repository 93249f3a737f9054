"""What a host gets to see of an upload."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from ..errors import IncompleteError, NotFoundError
from ..moving import give


class Keeper(Protocol):
    """Who keeps uploads, and does with them what they are asked for themselves."""

    def get_upload(self, uid: str, owner: str | None) -> Upload:
        """Return a finished upload."""
        ...

    def take(self, uid: str, take: Callable[[Path], None]) -> None:
        """Let `take` move the file of a finished upload away."""
        ...

    def delete(self, uid: str, owner: str | None) -> None:
        """Delete an upload."""
        ...


@dataclass(frozen=True)
class Upload:
    """One file on its way or arrived.

    A finished upload stands in a temporary place at ``path``, from which the host moves it: see ``move_to``.
    """

    uploadUid: str
    fileName: str
    """Display name as the client gave it, cleaned of paths and control characters."""
    totalSize: int
    """Bytes in the whole file; -1 while the client has not told."""
    path: str = ""
    """Where the finished file is; empty while it is on its way."""
    owner: str = ""
    """Who started it, as the host's ``identify`` said."""
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    """All that a client of tus said of the file, as it said it; unlike the name, nothing is taken out of it."""
    _service: Keeper | None = field(default=None, repr=False, compare=False)

    def move_to(self, target: str | os.PathLike[str], *, overwrite: bool = False, mode: int = 0o644) -> Path:
        """Move the finished file to `target`, which then is there whole or not at all, and forget the upload.

        Raises FileExistsError if `target` is there, unless `overwrite`; IsADirectoryError for a directory;
        NotFoundError if somebody else has moved it. On another disk the file is copied beside the target first.
        `mode` are the permissions of the file.
        """
        destination = Path(target)
        self._require().take(self.uploadUid, partial(give, target=destination, overwrite=overwrite, mode=mode))
        return destination

    def open(self) -> io.BufferedReader:
        """Open the finished file for reading."""
        # It may have been moved, deleted or tampered with since.
        return Path(self._require().get_upload(self.uploadUid, None).path).open("rb")

    def delete(self) -> None:
        """Delete the upload, finished or not. One that is gone already is no error."""
        if self._service is not None:
            with suppress(NotFoundError):
                self._service.delete(self.uploadUid, None)

    def _require(self) -> Keeper:
        if not self.path or self._service is None:
            raise IncompleteError(f"Upload {self.uploadUid} is not finished, so there is no file yet.")
        return self._service
