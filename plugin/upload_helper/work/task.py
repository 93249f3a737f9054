"""One task of the ledger: what it is made of, which values are taken, and which state follows which."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ..errors import InvalidTaskError, shown

MOST_TAG = 200
"""Longest tag, in characters."""
MOST_UID = 64
"""Longest uid, in characters."""
MOST_TITLE = 1000
"""Longest title or body, in characters."""
MOST_JSON = 4 << 20
"""Longest array of handlers, or set of variables, in characters of JSON."""
SHORTEST_PERIOD = 15 * 60
"""Shortest period in seconds, as on the platform that the semantics come from."""

LONGEST_PERIOD = 10 * 366 * 86400
"""Longest period in seconds; there are numbers that no clock can count."""


class State(StrEnum):
    """Where a task stands."""

    ENQUEUED = "ENQUEUED"
    """It waits for its time and for a free worker."""
    RUNNING = "RUNNING"
    """A worker has it."""
    BLOCKED = "BLOCKED"
    """It waits for its conditions."""
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def ended(self) -> bool:
        """Whether no other state can follow."""
        return self in ENDED


ENDED = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})


class Condition(StrEnum):
    """What must hold for a task to run."""

    CONNECTED = "CONNECTED"
    CHARGING = "CHARGING"
    BATTERY_NOT_LOW = "BATTERY_NOT_LOW"
    IDLE = "IDLE"


class Existing(StrEnum):
    """What happens to tasks that carry the tag of a new one and have not ended."""

    APPEND = "APPEND"
    """Nothing; the new one is one more."""
    KEEP = "KEEP"
    """They stay, and the new one is not started."""
    REPLACE = "REPLACE"
    """They are cancelled."""


@dataclass(frozen=True)
class Task:
    """A task as it stands in the ledger. Times are seconds since the epoch."""

    uid: str
    handlers: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    """May hold secrets that somebody wrote into a handler, as may variables; show them with `aliases.hidden`."""
    tag: str = ""
    title: str = ""
    body: str = ""
    kind: str = "handlers"
    """What runs it: `handlers` is the array above; other kinds are registered by their modules."""
    conditions: frozenset[Condition] = frozenset()
    retry: bool = False
    """Whether it goes back to the queue when it fails, until it succeeds or is stopped."""
    period: float | None = None
    """Seconds between two runs, None for a task that runs once."""
    variables: dict[str, Any] = field(default_factory=dict, repr=False)
    """What its handlers find in their variables when they begin."""
    post_execute: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    """Handlers that run at its end, whether it succeeded or not."""
    state: State = State.ENQUEUED
    attempt: int = 0
    """How often a worker took it; the number is the fence that keeps late workers out."""
    failures: int = 0
    """How often it failed since it last succeeded."""
    losses: int = 0
    """How often in a row its worker vanished in the middle of it, or did not know what it needs."""
    cancel: bool = False
    """Whether somebody asked to stop it while it runs."""
    created: float = 0
    next_run: float = 0
    """When it may run; in the past if it can run now."""
    started: float | None = None
    ended: float | None = None
    progress: float | None = None
    """Share that is done, 0 to 1; None where that is not known."""
    step_name: str = ""
    result: str = ""
    """Answer of the last handler."""
    error: str = ""
    """Why it failed the last time, or ''."""
    lane: int = 0
    """Above 0 for transfers, of which only so many run at a time; those in the lowest go first."""
    saved: dict[str, Any] = field(default_factory=dict, repr=False)
    """What a transfer needs to go on where it was; may name addresses that are as good as a password."""
    done: int | None = None
    """Bytes of a transfer that are done."""
    total: int | None = None
    """Bytes that it has, None where that is not known."""
    speed: float | None = None
    """Bytes per second while it runs."""


_BITS = {condition: 1 << bit for bit, condition in enumerate(Condition)}


def parse_conditions(value: str | Iterable[str] | None) -> frozenset[Condition]:
    """Read ``CHARGING;CONNECTED``, or a list of such names; raises InvalidTaskError for one that is not known."""
    if value is None:
        value = ""
    try:
        names = value.split(";") if isinstance(value, str) else [str(name) for name in value]
    except TypeError:
        raise InvalidTaskError(f"{shown(value)} are no conditions; give names with ';' between them.") from None
    names = [name.strip().upper() for name in names if name.strip()]
    for name in names:
        if name not in Condition.__members__:
            raise InvalidTaskError(f"{shown(name)} is no condition; there are {', '.join(Condition)}.")
    return frozenset(Condition(name) for name in names)


def format_conditions(conditions: Iterable[Condition]) -> str:
    """Return conditions as they are written in a task, in one order."""
    return ";".join(sorted(conditions))


def mask_of(conditions: Iterable[Condition]) -> int:
    """Return conditions as a number, one bit each: what the ledger looks for when it searches a task that can run."""
    return sum(_BITS[condition] for condition in frozenset(conditions))
