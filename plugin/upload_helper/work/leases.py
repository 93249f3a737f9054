"""Whether the worker that has a task is still there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .clock import Clock, is_gone


@dataclass(frozen=True)
class Lease:
    """What the ledger says of a task that runs."""

    uid: str
    attempt: int
    owner: str
    """The process, as `clock.process_name` has it."""
    boot: str
    """The boot whose monotonic clock `lease_end` belongs to."""
    lease_end: float
    lease: float
    """Seconds for which it was given."""


class Watch:
    """Tells which leases are over, without ever asking the wall clock.

    A lease of this boot ends when its time has come, or earlier if its process is gone. A lease of another boot of this
    very machine (the ledger is a file here) ended with that boot. Of a lease whose clock can't be compared with ours
    (another machine, or a system that does not name its boots) we know only whether it is renewed: it is over when it
    has been seen unchanged, by our own clock, for as long as it was given.
    """

    def __init__(self, clock: Clock, *, is_local: bool) -> None:
        self._clock = clock
        self._is_local = is_local
        self._seen: dict[tuple[str, int, float], float] = {}

    def over(self, leases: Iterable[Lease]) -> list[Lease]:
        """Return those that are over. To be called with all that the ledger has: others are forgotten."""
        leases = list(leases)
        now = self._clock.monotonic()
        known = {key: self._seen.get(key, now) for key in map(_key, leases)}
        self._seen = known
        return [lease for lease in leases if self._is_over(lease, now)]

    def _is_over(self, lease: Lease, now: float) -> bool:
        if lease.boot and lease.boot == self._clock.boot:
            return now > lease.lease_end or is_gone(lease.owner)
        if self._is_local and lease.boot and self._clock.boot and _boot(lease.boot) != _boot(self._clock.boot):
            return True
        return now - self._seen[_key(lease)] > lease.lease


def _boot(name: str) -> str:
    # What follows is a container's own clock.
    return name.partition(" ")[0]


def _key(lease: Lease) -> tuple[str, int, float]:
    return lease.uid, lease.attempt, lease.lease_end
