"""The queues in which tasks wait: one for every combination of conditions in every lane.

Tasks in lane 0 run as soon as a thread is free. The other lanes are those of transfers, one for each priority, of which
a machine runs only so many at a time: parallel streams on a thin link finish nothing. A task that waits has the number
of its queue in the column `waiting`: its conditions as bits, and above them the lane.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, func, select, text

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


def lane_of(priority: object) -> int:
    """Return the lane of transfers with a priority; raises InvalidTaskError for what is none."""
    if isinstance(priority, bool) or not isinstance(priority, int) or abs(priority) > HIGHEST:
        raise InvalidTaskError(f"{shown(priority)} is no priority; a whole number from -{HIGHEST} to {HIGHEST} is.")
    return _PLAIN - priority


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


def heads(connection: Connection, lost: int, now: float, **values: Any) -> list[Any]:
    """Return the first in each queue that can run, the first of all in front; `lost` are conditions as bits."""
    rows = connection.execute(_HEADS, {"lost": lost, "now": now, "width": WIDTH, **values})
    return sorted(rows, key=lambda row: (row.waiting // WIDTH or _PLAIN, row.next_run, row.id))


def has_place(connection: Connection, boot: str) -> ColumnElement[bool]:
    """Return the condition that one more transfer may run here; it holds until the transaction ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(5551203, func.hashtext(boot))))
    running = tasks.alias("running")
    count = select(func.count()).where(running.c.state == State.RUNNING, running.c.lane > 0, running.c.boot == boot)
    return (c.lane == 0) | (count.scalar_subquery() < bindparam("transfers"))


_STEPS = """
with recursive queues(number) as (
    select min(waiting) from upload_helper_tasks where waiting >= 0
    union all
    select (select min(waiting) from upload_helper_tasks where waiting > queues.number)
    from queues where queues.number is not null
)
"""
_QUEUES = text(f"{_STEPS} select number from queues where number is not null")
_HEADS = text(
    f"""{_STEPS}
    select head.id, head.uid, head.attempt, head.next_run, head.lane, head.waiting
    from queues join upload_helper_tasks as head on head.id = (
        select id from upload_helper_tasks
        where waiting = queues.number and next_run <= :now and version <= :version
        order by next_run, id limit 1
    )
    where queues.number % :width & :lost = 0 and (queues.number < :width or :transfers > (
        select count(*) from upload_helper_tasks where state = 'RUNNING' and lane > 0 and boot = :boot
    ))"""
)
