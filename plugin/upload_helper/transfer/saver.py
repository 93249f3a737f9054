"""Forcing a file to the disk while it grows."""

from __future__ import annotations

import os
import threading
from contextlib import suppress


class Saver:
    """Forces a file to the disk behind the back of who writes it, so that nothing is left to wait for at the end."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._thread: threading.Thread | None = None
        self._error: OSError | None = None
        self._done = 0
        self.begun = 0
        """Up to where it was forced, or is."""

    @property
    def is_busy(self) -> bool:
        """Whether something is being forced to the disk."""
        return self._thread is not None and self._thread.is_alive()

    def begin(self, size: int) -> None:
        """Begin to force what is there."""
        self.begun = size
        self._thread = threading.Thread(target=self._save, args=[size], name="save", daemon=True)
        self._thread.start()

    def wait(self) -> int:
        """Return up to where all is on the disk; raises the error of the disk, which tells it once only."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            raise self._error
        return self._done

    def forget(self) -> None:
        """Begin from nothing."""
        with suppress(OSError):
            self.wait()
        self._done = self.begun = 0

    def _save(self, size: int) -> None:
        try:
            os.fsync(self._file)
            self._done = size
        except OSError as error:
            self._error = error
