"""What a command that sends files keeps for the next one: how to go on with a file, and which ones are through."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..folders import state_folder
from ..transfer.errors import SourceError, TransferError
from ..transfer.orders import Carried, Order
from ..transfer.source import Source


class Kept:
    """What is kept of one file that is sent to one address, in a file of this user's."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state: dict[str, Any] = {}
        """What an earlier command has saved."""
        with suppress(OSError, ValueError):
            found = json.loads(path.read_text(encoding="utf-8"))
            self.state.update(found if isinstance(found, dict) else {})

    @property
    def goes_on(self) -> bool:
        """Whether the server may have a part of the file that need not be sent again."""
        return bool(self.state.get("url") or self.state.get("identifier"))

    def save(self, state: Mapping[str, Any]) -> None:
        """Keep this in place of what was kept."""
        kept = dict(state)
        self.state.clear()
        self.state.update(kept)
        # Addresses of uploads may be as good as a password: for this user only.
        name = ""
        try:
            descriptor, name = tempfile.mkstemp(dir=self.path.parent, prefix=self.path.stem)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(self.state, file)
            Path(name).replace(self.path)
        except OSError as error:
            with suppress(OSError):
                Path(name).unlink()
            raise SourceError(
                f"{self.path.parent} cannot be written: {error.strerror}.", remedy="Make room, or set XDG_STATE_HOME."
            ) from None

    def finish(self, carried: Carried) -> None:
        """Note that the file is through, as it was when it was sent."""
        self.save({"fingerprint": self.state.get("fingerprint"), "sent": asdict(carried)})

    def finished(self, order: Order) -> Carried | None:
        """Return what became of the file if it is through and has not changed since; raises SourceError."""
        sent = self.state.get("sent")
        if not isinstance(sent, dict) or order.options.get("name"):
            return None
        with Source(order.file) as source, suppress(TypeError):  # of members that somebody else wrote
            return Carried(**sent) if self.state.get("fingerprint") == source.fingerprint.build() else None
        return None

    def forget(self) -> None:
        """Leave nothing behind."""
        self.path.unlink(missing_ok=True)


@contextmanager
def kept(order: Order) -> Iterator[Kept]:
    """Give what is kept of a file to send; raises TransferError where another process is sending it there."""
    key = "\0".join((order.kind, str(Path(order.file).absolute()), order.endpoint.url))
    path = state_folder() / "transfers" / f"{hashlib.sha256(os.fsencode(key)).hexdigest()[:32]}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = FileLock(f"{path}.lock", timeout=0, mode=0o600)
        lock.acquire()
    except Timeout:
        raise TransferError(
            f"Another process is sending {order.name} there.", remedy="Wait for it, or end it."
        ) from None
    except OSError as error:
        raise SourceError(f"{path.parent} cannot be written: {error.strerror}.", remedy="Set XDG_STATE_HOME.") from None
    try:
        file = Kept(path)
        try:
            yield file
        finally:
            if not (file.goes_on or "sent" in file.state):
                file.forget()
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
