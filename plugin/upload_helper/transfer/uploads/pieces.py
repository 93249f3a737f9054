"""How many bytes go in one request."""

from __future__ import annotations

KIB, MIB = 1 << 10, 1 << 20

FIRST = MIB
"""Bytes of the first piece; what many a proxy lets through at most unless it was configured."""
SMALLEST = 64 * KIB
LARGEST = 64 * MIB

_QUICK_SECONDS, _LONG_SECONDS = 4.0, 16.0


class Pieces:
    """The size of the next piece: larger on a good link, smaller on a bad one and where a server refuses it.

    A server between us and the one that keeps the bytes may pass on whole pieces only, and then loses one that was cut.
    """

    def __init__(self, fixed: int = 0) -> None:
        self._fixed = bool(fixed)
        self._most = fixed or LARGEST
        self.size = fixed or FIRST
        """In bytes."""

    def limit(self, smallest: int | None, largest: int | None) -> None:
        """Obey what a server says of the sizes that it takes."""
        if largest is not None:
            self._most = max(1, min(self._most, largest))
        self.size = min(self._most, max(self.size, smallest or 0))

    def went(self, seconds: float) -> None:
        """Note how long a piece took."""
        if not self._fixed and seconds < _QUICK_SECONDS:
            self.size = min(self._most, 2 * self.size)
        elif seconds > _LONG_SECONDS:
            self.broke()

    def broke(self) -> None:
        """Note that a piece was cut."""
        if not self._fixed:
            self.size = max(min(SMALLEST, self.size), self.size // 2)

    def refused(self) -> bool:
        """Note that a piece was too large for the server; return False where it can't be much smaller."""
        if self.size <= SMALLEST:
            return False
        self.size = self._most = max(SMALLEST, self.size // 2)
        return True
