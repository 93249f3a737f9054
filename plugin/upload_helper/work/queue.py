"""The application's side of the ledger: put tasks in, look at them, stop them."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    not_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from ..errors import InvalidTaskError, UnknownTaskError, shown
from .clock import TURNED_BACK, Clock
from .engines import Engines
from .names import NOTE
from .rows import dump, show_row, to_row
from .tables import ROW_VERSION, aliases, is_current, migrate, tasks
from .task import ENDED, Existing, State, Task

_SWEEP = 500
"""How many ended tasks are deleted in one transaction, so that nobody waits for the lock for long."""

c = tasks.c


class Queue:
    """What applications do with the tables. Every method is one transaction, and raises LedgerError."""

    def __init__(self, engines: Engines, clock: Clock) -> None:
        self.engines = engines
        self.clock = clock
        try:
            self._open()
        finally:
            # Whoever opens a ledger may use it much later, in another process, or never.
            engines.close()

    def _open(self) -> None:
        with self.engines.read() as connection:
            current = is_current(connection)
        if not current:
            with self.engines.write() as connection:
                migrate(connection)

    def put(self, task: Task, if_exists: Existing = Existing.APPEND) -> str:
        """Put a task in and return its uid, or that of the one that is kept; a uid that is there changes nothing."""
        row = to_row(task, self.clock.wall())
        with self.engines.write() as connection:
            if if_exists is not Existing.APPEND:
                self._lock_tag(connection, task.tag)
                if connection.execute(select(c.id).where(c.uid == task.uid)).first() is not None:
                    return task.uid  # or REPLACE would cancel the very task that it started before
                alive = [c.tag == task.tag, c.state.not_in(ENDED)]
                if if_exists is Existing.KEEP:
                    kept = connection.execute(select(c.uid).where(*alive).order_by(c.id).limit(1)).scalar()
                    if kept is not None:
                        return str(kept)
                self._stop(connection, *alive)
            new = postgresql.insert(tasks) if _is_postgres(connection) else sqlite.insert(tasks)
            connection.execute(new.values(row).on_conflict_do_nothing(index_elements=[c.uid]))
        return task.uid

    def get(self, uid: str) -> Task:
        """Return a task; raises UnknownTaskError."""
        with self.engines.read() as connection:
            row = connection.execute(_BY_UID, {"uid_": uid}).mappings().first()
        if row is None:
            raise UnknownTaskError(f"There is no task {shown(uid)}.")
        return show_row(row)

    def find(self, tag: str | None, state: State | None, limit: int) -> list[Task]:
        """Return tasks, the newest first."""
        query = select(tasks).order_by(c.id.desc()).limit(limit)
        if tag is not None:
            query = query.where(c.tag == tag)
        if state is not None:
            query = query.where(c.state == state)
        with self.engines.read() as connection:
            return [show_row(row) for row in connection.execute(query).mappings()]

    def stop(self, *, tag: str | None = None, uid: str | None = None) -> int:
        """Cancel what waits, ask what runs to stop; return how many tasks that are."""
        which = c.tag == tag if uid is None else c.uid == uid
        with self.engines.write() as connection:
            return self._stop(connection, which, c.state.not_in(ENDED))

    def _stop(self, connection: Connection, *which: ColumnElement[bool]) -> int:
        ours = (*which, c.version <= ROW_VERSION)
        waiting = connection.execute(
            update(tasks)
            .where(*ours, c.waiting.is_not(None))
            .values(**end_of(State.CANCELLED, self.clock), cancel=True)
        )
        running = connection.execute(
            update(tasks).where(*ours, c.state == State.RUNNING, c.cancel.is_(False)).values(cancel=True)
        )
        return waiting.rowcount + running.rowcount

    def sweep(self, keep: float) -> int:
        """Delete tasks that ended more than `keep` seconds ago; return how many.

        Of those that ended since this boot, the clock that nobody sets must say so too: one that is set forward, as a
        board's without a battery is after each boot, would make all of them old.
        """
        young = and_(c.boot == self.clock.boot, c.boot != "", c.lease_end > self.clock.monotonic() - keep)
        old = (
            select(c.id, _NOTED)
            .where(c.state.in_(ENDED), c.waiting.is_(None), c.ended < self.clock.wall() - keep)
            .where(c.version <= ROW_VERSION, not_(young))
            .limit(_SWEEP)
        )
        deleted, spared = 0, set[int]()
        while True:
            with self.engines.read() as connection:
                found = connection.execute(old.where(c.id.not_in(spared))).all()
            spared.update(row.id for row in found if _is_noted(row.noted))
            ids = [row.id for row in found if row.id not in spared]
            if ids:
                with self.engines.write() as connection:
                    deleted += connection.execute(delete(tasks).where(c.id.in_(ids))).rowcount
            if len(found) < _SWEEP:
                return deleted

    def mend(self) -> int:
        """Let tasks run that wait for a time which a clock set before it was turned back; return how many."""
        now = self.clock.wall()
        turned = (c.since > now + TURNED_BACK, c.version <= ROW_VERSION)
        with self.engines.read() as connection:
            if connection.execute(select(c.id).where(*turned).limit(1)).scalar() is None:
                return 0
        with self.engines.write() as connection:
            return connection.execute(update(tasks).where(*turned).values(next_run=now, since=now)).rowcount

    def _lock_tag(self, connection: Connection, tag: str) -> None:
        # SQLite has one writer anyway. Elsewhere two could find the tag free, and both take it.
        if _is_postgres(connection):
            connection.execute(select(func.pg_advisory_xact_lock(5551202, func.hashtext(tag))))

    # --- aliases ---

    def put_alias(self, name: str, data: dict[str, Any]) -> None:
        """Keep what belongs to an alias, in place of what was kept before; it may hold secrets."""
        if not name or len(name) > 200 or "\0" in name:
            raise InvalidTaskError(f"{shown(name)} is no name of an alias; up to 200 characters are.")
        text = dump(data, "alias")
        with self.engines.write() as connection:
            # Two who set it at once must not both insert it.
            if not connection.execute(update(aliases).where(aliases.c.name == name).values(data=text)).rowcount:
                self._lock_tag(connection, name)
                connection.execute(delete(aliases).where(aliases.c.name == name))
                connection.execute(insert(aliases).values(name=name, data=text))

    def alias(self, name: str) -> dict[str, Any] | None:
        """Return what was kept for an alias, or None."""
        with self.engines.read() as connection:
            text = connection.execute(select(aliases.c.data).where(aliases.c.name == name)).scalar()
        return None if text is None else _alias(text)


def end_of(state: State, clock: Clock) -> dict[str, Any]:
    """Return the columns of a task that ends now."""
    nobody = {"owner": "", "lease": None, "waiting": None, "since": None, "step_name": "", "speed": None}
    return {**nobody, "state": state, "ended": clock.wall(), "boot": clock.boot, "lease_end": clock.monotonic()}


def _is_noted(variables: str) -> bool:
    with suppress(ValueError, TypeError, RecursionError, KeyError):
        return os.path.lexists(json.loads(variables)[NOTE])
    return False


_NOTED = case((c.variables.contains(f'"{NOTE}":'), c.variables), else_="").label("noted")
_BY_UID = select(tasks).where(c.uid == bindparam("uid_"))


def _is_postgres(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"


def _alias(text: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(text)
    return data
