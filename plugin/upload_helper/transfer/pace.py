"""How fast bytes may pass: one limit for all transfers of a process."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from datetime import datetime

from ..errors import shown
from .errors import InvalidTransferError

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_RATE = re.compile(r"(?P<number>[0-9]{1,15}(?:\.[0-9]{1,3})?)(?P<unit>[kmg]?)(?:i?b)?(?:/s)?", re.IGNORECASE)
_HOURS = re.compile(r"(?P<first>[0-9]{1,2})-(?P<last>[0-9]{1,2}):(?P<rate>[^:]+)")
# How much may pass at once after a pause, in seconds of the limit.
_BURST_SECONDS = 0.25
_LEAST_BLOCK = 1 << 10


class Pace:
    """Lets bytes pass at a limited speed; may be shared by any number of threads."""

    def __init__(
        self,
        limit: float | str = 0,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        """Take a limit in bytes/s, or a table by hour of the local day: ``08-18:200k,18-08:0``; 0 is none.

        Hours that a table does not name are unlimited. Raises InvalidTransferError.
        """
        self._rates = read_limit(limit)
        self._clock = clock
        self._now = now
        self._free = clock()
        self._lock = threading.Lock()

    @property
    def rate(self) -> float:
        """The limit of this moment in bytes/s; 0 is none."""
        return self._rates[self._now().hour] if len(set(self._rates)) > 1 else self._rates[0]

    def block(self, most: int) -> int:
        """Return how many bytes to move at once, so that none waits long for the others: at most `most`."""
        rate = self.rate
        return most if not rate else max(min(_LEAST_BLOCK, most), min(most, int(rate * _BURST_SECONDS)))

    def take(self, count: int, sleep: Callable[[float], object] = time.sleep) -> None:
        """Wait through `sleep` until so many bytes may have passed."""
        rate = self.rate
        if not rate:
            return
        with self._lock:
            now = self._clock()
            self._free = max(self._free, now - _BURST_SECONDS) + count / rate
            wait = self._free - now
        if wait > 0:
            sleep(wait)


def read_limit(limit: float | str) -> tuple[float, ...]:
    """Return the limit of each of the 24 hours in bytes/s, 0 for none; raises InvalidTransferError."""
    text = str(limit).replace(" ", "")
    if ":" not in text:
        return (_rate(text or "0"),) * 24
    rates = [0.0] * 24
    for part in text.split(","):
        match = _HOURS.fullmatch(part)
        if match is None or not 0 <= int(match["first"]) < 24 or not 0 <= int(match["last"]) <= 24:
            raise InvalidTransferError(f"{shown(part)} is no part of a table of limits; write 08-18:200k.")
        first, last = int(match["first"]), int(match["last"])
        for hour in range(first, last if last > first else last + 24):
            rates[hour % 24] = _rate(match["rate"])
    return tuple(rates)


def _rate(text: str) -> float:
    match = _RATE.fullmatch(text)
    if match is None:
        raise InvalidTransferError(f"{shown(text)} is no limit; write bytes in a second, such as 50000, 200k or 1.5m.")
    return float(match["number"]) * _UNITS[match["unit"].lower()]
