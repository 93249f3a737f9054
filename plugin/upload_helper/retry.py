"""How long to wait before something that failed is tried again."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Waiting times that grow with every failure, so that a server that is down is left in peace."""

    first: float = 30
    """Seconds after the first failure."""
    factor: float = 2
    """By how much every further one is longer."""
    longest: float = 5 * 3600
    """Seconds that are never exceeded, whatever a server asks for."""
    jitter: float = 0.1
    """Share by which a delay is shortened at random, so that many devices don't come back in the same second."""
    random: Callable[[], float] = random.random
    """Gives numbers from 0 to 1; tests replace it."""

    def delay(self, failures: int, retry_after: float | None = None) -> float:
        """Return the seconds to wait after so many failures in a row; never less than `retry_after`, if it is given."""
        # Past this many doublings the longest delay is reached anyway, and a float would overflow.
        grown = self.first * self.factor ** min(max(failures, 1) - 1, 60)
        delay = min(grown, self.longest) * (1 - self.jitter * self.random())
        return min(max(delay, retry_after or 0), self.longest)
