"""The worker's side of the ledger: take a task, keep it, give it back.

Every write carries the attempt's number, which each claim counts up, and changes nothing once that is not the task's
number any more, or the task does not run: a worker that was paused past its lease finds that it came too late.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    CursorResult,
    bindparam,
    case,
    select,
    update,
)

from ..errors import InvalidTaskError, UnknownTaskError, WorkError, shown
from ..retry import Backoff
from .clock import process_name
from .lanes import Places, conditions_of, heads, queue_in, queues, take_place
from .leases import Lease
from .names import ENDED
from .queue import Queue, end_of
from .rows import dump, read_row
from .tables import ROW_VERSION, tasks
from .task import Condition, State, Task, mask_of

MOST_RECORDED = 1 << 16
"""Longest result or error in characters that a task's record keeps; the rest is cut off."""

_PATIENCE = 100
"""How often in a row a worker may vanish in a task before the next one waits: the task may be what kills them."""

c = tasks.c


@dataclass(frozen=True)
class Claim:
    """A task that was taken, or what was wrong with it."""

    uid: str
    attempt: int
    lease_end: float
    """When the lease ends, by the monotonic clock of this boot."""
    task: Task | None
    error: str = ""
    """Why the record can't be run, where `task` is None."""


@dataclass(frozen=True)
class PutBack:
    """How a task returns to the queue."""

    state: State = State.ENQUEUED
    delay: float = 0
    """Seconds from now on; without any, the task keeps its place."""
    failed: bool | None = None
    """Whether the attempt failed; None if it came to no end, and does not count."""
    failures: int | None = None
    """How often it has failed in a row by now; None for once more than before."""
    result: str = ""
    error: str = ""


class Claims(Queue):
    """What workers do with the tables. Every method is one transaction, and raises LedgerError."""

    def claim(
        self, lost: frozenset[Condition], lease: float, transfers: int = 1, *, others: bool = True
    ) -> Claim | None:
        """Take the task that is due for the longest time, of those that need no condition that is lost.

        Of transfers those with the highest priority go first, and only so many run on this machine at a time; without
        `others` none but them are taken.
        """
        places = Places(transfers, self.clock.boot, others)
        while True:
            with self.engines.read() as connection:
                found = heads(connection, mask_of(lost), self.clock.wall(), ROW_VERSION, places)
            if not found:
                return None
            claim = self._take(found[0], lease, places)
            if claim is not None:
                return claim

    def _take(self, found: Any, lease: float, places: Places) -> Claim | None:
        uid, attempt = found.uid, found.attempt
        end = self.clock.monotonic() + lease
        values = {
            "uid_": uid,
            "attempt_": attempt,
            "now": self.clock.wall(),
            "owner_": process_name(),
            "boot_": self.clock.boot,
            "end_": end,
            "lease_": lease,
        }
        with self.engines.write() as connection:
            take = _TAKE
            if found.lane:
                take = _TAKE.where(take_place(connection, places))
                values |= places.values()
            row = connection.execute(take, values).mappings().first()
        if row is None:
            return None
        try:
            return Claim(uid, attempt + 1, end, read_row(row))
        except WorkError as error:
            return Claim(uid, attempt + 1, end, None, str(error))

    def save(self, uid: str, attempt: int, saved: Mapping[str, Any], **amounts: Any) -> bool:
        """Keep what a transfer needs to go on where it is; return False, and change nothing, if it was lost."""
        text = dump(saved, "state of a transfer")
        with self.engines.write() as connection:
            return connection.execute(_held(uid, attempt).values(saved=text, **amounts)).rowcount == 1

    def renew(
        self, uid: str, attempt: int, lease: float, progress: float | None = None, step_name: str = "", **amounts: Any
    ) -> tuple[float, bool] | None:
        """Keep a task; return until when (monotonic clock) and whether it shall stop, or None if it was lost."""
        end = self.clock.monotonic() + lease
        values = {"lease_end": end, "lease": lease, "progress": progress, "step_name": clean(step_name, 1000)}
        with self.engines.write() as connection:
            row = connection.execute(_held(uid, attempt).values(**values, **amounts).returning(c.cancel)).first()
        return None if row is None else (end, bool(row.cancel))

    def held(self, attempts: Iterable[tuple[str, int]]) -> dict[str, bool]:
        """Return which of the tasks, given by uid and attempt, are still held, and whether they shall stop."""
        wanted = dict(attempts)
        query = select(c.uid, c.attempt, c.cancel).where(c.uid.in_(wanted), c.state == State.RUNNING)
        with self.engines.read() as connection:
            rows = connection.execute(query).all()
        return {row.uid: bool(row.cancel) for row in rows if row.attempt == wanted[row.uid]}

    def finish(
        self, uid: str, attempt: int, state: State, *, result: str = "", error: str = "", step_name: str = ""
    ) -> bool:
        """End a task, in a step if it failed there; return False, and change nothing, if it was lost."""
        values = {**end_of(state, self.clock), "result": clean(result), "error": clean(error)}
        values["step_name"] = clean(step_name, 1000)
        if state is State.SUCCEEDED:
            values |= {"progress": 1.0, "failures": 0, "losses": 0}
        elif state is State.FAILED:
            values |= {"failures": c.failures + 1, "losses": 0}
        with self.engines.write() as connection:
            return connection.execute(_held(uid, attempt).values(values)).rowcount == 1

    def put_back(self, uid: str, attempt: int, conditions: Iterable[Condition], how: PutBack) -> bool:
        """Let a task wait again, or end it if it was cancelled; return False, and change nothing, if it was lost."""
        now = self.clock.wall()
        # One that keeps its place was due already, unless the clock was turned back meanwhile.
        due: Any = now + how.delay if how.delay else case((c.next_run > now, now), else_=c.next_run)
        values = {**_wait(how.state, mask_of(conditions), now), "next_run": due, "progress": None, "step_name": ""}
        if how.failed is not None:
            failures = (how.failures or c.failures + 1) if how.failed else 0
            values |= {"failures": failures, "losses": 0, "result": clean(how.result), "error": clean(how.error)}
        elif how.error:
            values |= {"losses": c.losses + 1, "error": clean(how.error)}
        with self.engines.write() as connection:
            return self._give_up(connection, _held(uid, attempt), values, how.error)

    def _give_up(self, connection: Connection, held: Any, values: dict[str, Any], error: str) -> bool:
        back = connection.execute(held.where(c.cancel.is_(False)).values(values))
        if back.rowcount:
            return True
        cancelled = {**end_of(State.CANCELLED, self.clock), "error": clean(error)}
        done: CursorResult[Any] = connection.execute(held.where(c.cancel.is_(True)).values(cancelled))
        return done.rowcount == 1

    def again(self, uid: str) -> None:
        """Let a task that failed or was cancelled run once more, as if it had never failed.

        Raises UnknownTaskError, InvalidTaskError for one in any other state, LedgerVersionError.
        """
        now = self.clock.wall()
        with self.engines.write() as connection:
            row = connection.execute(select(tasks).where(c.uid == uid)).mappings().first()
            if row is None:
                raise UnknownTaskError(f"There is no task {shown(uid)}.")
            task = read_row(row)
            # A transfer goes on from where it was, but has come to no end.
            saved = dump({name: value for name, value in task.saved.items() if name != ENDED}, "state of a transfer")
            begun = {"failures": 0, "losses": 0, "cancel": False, "progress": None, "step_name": "", "ended": None}
            values = {**_wait(State.ENQUEUED, mask_of(task.conditions), now), **begun, "next_run": now, "error": ""}
            values |= {"result": "", "saved": saved}
            ended = (c.uid == uid, c.state.in_((State.FAILED, State.CANCELLED)))
            if not connection.execute(update(tasks).where(*ended).values(**values)).rowcount:
                raise InvalidTaskError(
                    f"Task {shown(uid)} is {task.state}.", remedy="Only what FAILED or was CANCELLED is run again."
                )

    def leases(self) -> list[Lease]:
        """Return what is known of all tasks that run, of whichever worker."""
        with self.engines.read() as connection:
            return [Lease(*row) for row in connection.execute(_LEASES)]

    def take_back(self, lease: Lease) -> bool:
        """Let a task wait again whose worker is gone, unless that one has renewed its lease meanwhile."""
        now = self.clock.wall()
        row = c.uid == lease.uid
        with self.engines.write() as connection:
            found = connection.execute(select(c.conditions, c.losses).where(row)).first()
            if found is None:
                return False
            losses = found.losses + 1
            delay = Backoff(first=5).delay(losses - _PATIENCE) if losses > _PATIENCE else 0
            due: Any = now + delay if delay else case((c.next_run > now, now), else_=c.next_run)
            values = {**_wait(State.ENQUEUED, _known_mask(found.conditions), now), "next_run": due, "losses": losses}
            held = _held(lease.uid, lease.attempt).where(c.lease_end == lease.lease_end)
            return self._give_up(connection, held, values, "Its worker vanished, and it was cancelled.")

    def wants(self) -> frozenset[Condition]:
        """Return the conditions that tasks wait for, so that nobody is asked about others."""
        with self.engines.read() as connection:
            there = queues(connection)
        return frozenset(condition for condition in Condition for number in there if number & mask_of([condition]))

    def block(self, lost: frozenset[Condition]) -> int:
        """Show tasks as BLOCKED that wait for a lost condition; claims look at the conditions themselves."""
        return self._show(State.ENQUEUED, State.BLOCKED, lambda mask: bool(mask & mask_of(lost))) if lost else 0

    def unblock(self, lost: frozenset[Condition]) -> int:
        """Show tasks as ENQUEUED whose conditions hold again."""
        return self._show(State.BLOCKED, State.ENQUEUED, lambda mask: not mask & mask_of(lost))

    def _show(self, before: State, after: State, chosen: Callable[[int], bool]) -> int:
        with self.engines.read() as connection:
            numbers = [number for number in queues(connection) if chosen(conditions_of(number))]
            those = (c.state == before, c.waiting.in_(numbers), c.version <= ROW_VERSION)
            if not numbers or connection.execute(select(c.id).where(*those).limit(1)).first() is None:
                return 0
        with self.engines.write() as connection:
            return connection.execute(update(tasks).where(*those).values(state=after)).rowcount


def clean(text: str, longest: int = MOST_RECORDED) -> str:
    """Return text as both databases take it: no NUL, no half characters, and not longer than that."""
    cut = text if len(text) <= longest else text[: longest - 1] + "…"
    return cut.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")


_TAKE = (
    update(tasks)
    .where(c.uid == bindparam("uid_"), c.attempt == bindparam("attempt_"), c.waiting.is_not(None))
    .values(
        state=State.RUNNING,
        waiting=None,
        since=None,
        attempt=c.attempt + 1,
        started=bindparam("now"),
        ended=None,
        owner=bindparam("owner_"),
        boot=bindparam("boot_"),
        lease_end=bindparam("end_"),
        lease=bindparam("lease_"),
        progress=None,
        step_name="",
    )
    .returning(tasks)
)
_LEASES = select(c.uid, c.attempt, c.owner, c.boot, c.lease_end, c.lease).where(
    c.state == State.RUNNING, c.version <= ROW_VERSION
)
_NOBODY: dict[str, Any] = {"owner": "", "boot": "", "lease_end": None, "lease": None, "speed": None}


def _held(uid: str, attempt: int) -> Any:
    ours: tuple[ColumnElement[bool], ...] = (c.uid == uid, c.attempt == attempt, c.state == State.RUNNING)
    return update(tasks).where(*ours)


def _wait(state: State, mask: int, now: float) -> dict[str, Any]:
    return {**_NOBODY, "state": state, "waiting": queue_in(c.lane, mask), "since": now}


def _known_mask(conditions: str) -> int:
    return mask_of(Condition(name) for name in conditions.split(";") if name in Condition.__members__)
