"""The queues in which tasks wait: one for every combination of conditions in every lane.

Tasks in lane 0 run as soon as a thread is free. The other lanes are those of transfers, one for each priority, of which
a machine runs only so many at a time: parallel streams on a thin link finish nothing. A task that waits has the number
of its queue in the column `waiting`: its conditions as bits, and above them the lane.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, bindparam, func, literal, select, union_all

from ..errors import InvalidTaskError, shown
from .tables import tasks
from .task import Condition, State

HIGHEST = 10
"""Priorities go from -10 to 10; the highest goes first."""
WIDTH = 1 << len(Condition)
"""How many queues a lane has."""
MOST_TRANSFERS = 2

_PLAIN = HIGHEST + 1
"""The lane of priority 0, among which tasks in no lane stand when it is about who goes first."""

c = tasks.c


@dataclass(frozen=True)
class Places:
    """How many transfers may run on a machine."""

    transfers: int
    boot: str
    """Names the machine, see `Clock`."""
    others: bool = True
    """Whether tasks may run that are no transfers."""

    def values(self) -> dict[str, Any]:
        """Return the parameters of `take_place`."""
        return {"places_": self.transfers, "here_": self.boot}


def lane_of(priority: object) -> int:
    """Return the lane of transfers with a priority; raises InvalidTaskError for what is none."""
    if isinstance(priority, bool) or not isinstance(priority, int) or abs(priority) > HIGHEST:
        raise InvalidTaskError(f"{shown(priority)} is no priority; a whole number from -{HIGHEST} to {HIGHEST} is.")
    return _PLAIN - priority


def priority_of(lane: int) -> int | None:
    """Return the priority of a lane; None for tasks that are no transfers."""
    return _PLAIN - lane if lane else None


def check_transfers(count: object) -> int:
    """Return how many transfers run at a time; raises InvalidTaskError for what is neither one nor two."""
    if isinstance(count, bool) or count not in range(1, MOST_TRANSFERS + 1):
        raise InvalidTaskError(f"{shown(count)} transfers at a time are not possible; 1 or {MOST_TRANSFERS} are.")
    return int(count)  # type: ignore[call-overload,no-any-return]


def queue_in(lane: Any, mask: int) -> Any:
    """Return the number of a queue; `lane` is a number or a column."""
    return lane * WIDTH + mask


def conditions_of(queue: int) -> int:
    """Return the conditions of those who wait in a queue, as bits."""
    return queue % WIDTH


def queues(connection: Connection) -> list[int]:
    """Return the queues that somebody waits in: one step for each, however many wait."""
    return [row.number for row in connection.execute(_QUEUES)]


def heads(connection: Connection, lost: int, now: float, version: int, places: Places) -> list[Any]:
    """Return the first in each queue that can run, the first of all in front; `lost` are conditions as bits."""
    least = 0 if places.others else WIDTH
    there = tuple(number for number in queues(connection) if number >= least and not conditions_of(number) & lost)
    if there and there[-1] >= WIDTH and not connection.execute(_FREE, places.values()).scalar():
        there = tuple(number for number in there if number < WIDTH)
    rows = connection.execute(_heads(there), {"now": now, "version": version}) if there else ()
    return sorted(rows, key=lambda row: (row.lane or _PLAIN, row.next_run, row.id))


def take_place(connection: Connection, places: Places) -> ColumnElement[bool]:
    """Return the condition that a transfer may run here; it holds until the transaction ends. See `Places.values`."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(5551203, func.hashtext(places.boot))))
    return _has_place


@lru_cache(maxsize=100)
def _heads(numbers: tuple[int, ...]) -> Select[Any]:
    # Numbers of queues that stand in the statement, or PostgreSQL would rather sort than take the first of an index.
    each = [
        select(
            select(c.id, c.uid, c.attempt, c.next_run, c.lane)
            .where(c.waiting == literal(number, literal_execute=True))
            .where(c.next_run <= bindparam("now"), c.version <= bindparam("version"))
            .order_by(c.next_run, c.id)
            .limit(1)
            .subquery()
        )
        for number in numbers
    ]
    return union_all(*each)  # type: ignore[return-value]


_running = tasks.alias("running")
_r = _running.c
_running_here = (
    select(func.count()).where(_r.state == State.RUNNING, _r.lane > 0, _r.boot == bindparam("here_")).scalar_subquery()
)
_has_place: ColumnElement[bool] = bindparam("places_") > _running_here
_FREE = select(_has_place)
_number = select(func.min(c.waiting).label("number")).where(c.waiting >= 0).cte("queues", recursive=True)
_next = select(func.min(c.waiting)).where(c.waiting > _number.c.number).scalar_subquery()
_numbers = _number.union_all(select(_next).where(_number.c.number.is_not(None)))
_QUEUES = select(_numbers.c.number).where(_numbers.c.number.is_not(None))
