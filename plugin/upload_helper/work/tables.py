"""The tables of the ledger, and how older ones become these."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.schema import CreateColumn

from ..errors import LedgerVersionError
from .task import MOST_TAG, MOST_UID

ROW_VERSION = 2
"""Rows with a higher one were written by a newer version; they are left alone."""

metadata = MetaData()

schema = Table("upload_helper_schema", metadata, Column("version", Integer, nullable=False))

tasks = Table(
    "upload_helper_tasks",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("uid", String(MOST_UID), nullable=False, unique=True),
    Column("version", Integer, nullable=False),
    Column("tag", String(MOST_TAG), nullable=False, index=True),
    Column("kind", String(50), nullable=False),
    Column("title", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("handlers", Text, nullable=False),
    Column("variables", Text, nullable=False),
    Column("post_execute", Text, nullable=False),
    Column("conditions", Text, nullable=False),
    Column("retry", Boolean, nullable=False),
    Column("period", Double),
    Column("state", String(20), nullable=False),
    # The number of the queue in which the task waits, see `lanes`; NULL while it does not wait.
    Column("waiting", Integer),
    # Waits from `since` to `next_run`, wall time; a clock before `since` was turned back.
    Column("next_run", Double, nullable=False),
    Column("since", Double),
    Column("attempt", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("losses", Integer, nullable=False),
    Column("cancel", Boolean, nullable=False),
    # Who has it: the process; the boot whose monotonic clock says when the lease ends; how long it was given for.
    # Of one that has ended, `boot` and `lease_end` say when, by a clock that is never set.
    Column("owner", Text, nullable=False),
    Column("boot", Text, nullable=False),
    Column("lease_end", Double),
    Column("lease", Double),
    Column("progress", Double),
    Column("step_name", Text, nullable=False),
    Column("result", Text, nullable=False),
    Column("error", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("started", Double),
    Column("ended", Double),
    # What a worker of version 1 does not know has a default, for one may go on while the tables change under it.
    # 0, or that of a transfer, see `lanes`.
    Column("lane", Integer, nullable=False, server_default="0"),
    # What a transfer needs to go on where it was.
    Column("saved", Text, nullable=False, server_default="{}"),
    Column("done", BigInteger),
    Column("total", BigInteger),
    Column("speed", Double),
    # What is looked for: the next that can run; those in a state; those that wait for a clock that was turned back.
    Index("upload_helper_tasks_waiting", "waiting", "next_run", "id"),
    Index("upload_helper_tasks_state", "state", "waiting", "ended"),
    Index("upload_helper_tasks_since", "since"),
    # Numbers are never used again, so that the order of two tasks is that in which they came.
    sqlite_autoincrement=True,
)

aliases = Table(
    "upload_helper_aliases",
    metadata,
    Column("name", String(200), primary_key=True),
    Column("data", Text, nullable=False),
)


def _add_transfers(connection: Connection) -> None:
    for name in ("lane", "saved", "done", "total", "speed"):
        column = CreateColumn(tasks.c[name]).compile(dialect=connection.dialect)
        connection.execute(text(f"alter table {tasks.name} add column {column}"))


MIGRATIONS: tuple[Callable[[Connection], None], ...] = (_add_transfers,)
"""The first makes version 2 of version 1, and so on."""


def migrate(connection: Connection) -> None:
    """Create the tables, or bring those of an older version up to date, within the transaction of `connection`.

    Raises LedgerVersionError for tables of a newer version, and changes nothing then.
    """
    if connection.dialect.name == "postgresql":
        # Two processes that start at once would both create the tables. The number is any that nobody else uses.
        connection.execute(text("select pg_advisory_xact_lock(5551201)"))
    found = _known_version(connection)
    if found is None:
        metadata.create_all(connection)
        connection.execute(insert(schema).values(version=_newest()))
        return
    for step in MIGRATIONS[found - 1 :]:
        step(connection)
    if found < _newest():
        connection.execute(update(schema).values(version=_newest()))


def is_current(connection: Connection) -> bool:
    """Return whether there is nothing to migrate, without a lock; raises LedgerVersionError as `migrate` does."""
    return _known_version(connection) == _newest()


def _newest() -> int:
    return len(MIGRATIONS) + 1


def _known_version(connection: Connection) -> int | None:
    """Return the version of the tables, None where there are none; raises LedgerVersionError."""
    found = _version(connection)
    if found is not None and found > _newest():
        raise LedgerVersionError(f"The ledger has version {found}; this package knows those up to {_newest()}.")
    return found


def _version(connection: Connection) -> int | None:
    if not inspect(connection).has_table(schema.name):
        return None
    version: int | None = connection.execute(select(schema.c.version)).scalar()
    return version
