"""Connections to the ledger's database: SQLite by path, PostgreSQL by URL; never shared with another process."""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, make_url

from ..errors import LedgerBusyError, LedgerError, shown

BUSY_SECONDS = 5.0
"""How long a statement waits for a database that somebody else has locked."""

_DRIVER = "postgresql+psycopg"
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_REMEDIES = {
    sqlite3.SQLITE_READONLY: "Let the user that runs this write to the file and to its folder.",
    sqlite3.SQLITE_CANTOPEN: "Create the folder, and let the user that runs this write to it.",
    sqlite3.SQLITE_FULL: "Make room on the disk; work goes on by itself then.",
    sqlite3.SQLITE_IOERR: "Look at the disk; work goes on by itself when it can be read and written again.",
    sqlite3.SQLITE_CORRUPT: "Move the file away together with those ending in -wal and -shm, and start with a new one;"
    " `sqlite3 FILE .recover` saves what can be saved.",
    sqlite3.SQLITE_NOTADB: "Give the path of a SQLite database, or of a file that does not exist yet.",
}


class Engines:
    """Gives connections within transactions, in every process its own.

    A connection must not be used after a fork: PostgreSQL's would talk into the parent's session, and SQLite's take
    the parent's locks for their own (sqlite.org/howtocorrupt.html, 2.6). So before a fork, running transactions are
    awaited and all connections closed; parent and child open new ones when they need them.
    """

    def __init__(self, target: str | Path, *, busy: float = BUSY_SECONDS) -> None:
        self.url = _url(target)
        self._is_file = self.url.get_backend_name() == "sqlite"
        self.is_local = self._is_file
        """Whether all who use this database run on one machine: SQLite's WAL is memory that they share."""
        self._busy = busy
        self._gate = threading.Condition()
        self._inside = 0
        self._forking = False
        self._engine: Engine | None = None
        _all.add(self)

    def __repr__(self) -> str:
        return f"Engines({self.name!r})"

    @property
    def name(self) -> str:
        """The database as it may be shown: without a password."""
        return str(self.url.database) if self._is_file else self.url.set(query={}).render_as_string(hide_password=True)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection that only reads; raises LedgerError."""
        with self._enter() as engine, _errors(self.name), engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Give a connection whose changes are kept if the block ends without an exception; raises LedgerError."""
        # The lock to write is taken at once: a transaction that reads first can't always get it later.
        with (
            self._enter() as engine,
            _errors(self.name),
            engine.connect().execution_options(upload_helper_writes=True) as connection,
            connection.begin(),
        ):
            yield connection

    def close(self) -> None:
        """Close all connections that nobody uses; the next use opens new ones."""
        with self._gate:
            engine, self._engine = self._engine, None
        if engine is not None:
            engine.dispose()

    @contextmanager
    def _enter(self) -> Iterator[Engine]:
        with self._gate:
            self._gate.wait_for(lambda: not self._forking)
            if self._engine is None:
                self._engine = self._make()
            engine = self._engine
            self._inside += 1
        try:
            yield engine
        finally:
            with self._gate:
                self._inside -= 1
                self._gate.notify_all()

    def _make(self) -> Engine:
        if not self._is_file:
            try:
                engine = create_engine(self.url, hide_parameters=True, pool_pre_ping=True)
            except ModuleNotFoundError as error:
                raise LedgerError(
                    f"The ledger {self.name} needs the module {error.name}.",
                    remedy="Install it: pip install 'flask-upload-helper[postgres]'.",
                ) from error
            event.listen(engine, "connect", self._limit)
            return engine
        engine = create_engine(self.url, hide_parameters=True, connect_args={"timeout": self._busy})
        event.listen(engine, "connect", self._prepare)
        event.listen(engine, "begin", _begin_sqlite)
        return engine

    def _prepare(self, connection: Any, _record: Any) -> None:
        # Transactions are begun below, not by the module.
        connection.isolation_level = None
        if connection.execute("pragma journal_mode=wal").fetchone()[0] != "wal":
            # This file system has no memory to share, so other machines may use the file as well.
            self.is_local = False
        # What was acknowledged survives a power cut as well, for one sync more.
        connection.execute("pragma synchronous=full")

    def _limit(self, connection: Any, _record: Any) -> None:
        # Or a table that somebody has locked would hold up whoever comes here, for ever.
        connection.execute(f"set lock_timeout = {round(1000 * self._busy)}")
        connection.commit()

    def before_fork(self) -> None:
        """Wait for the transactions of other threads, and close every connection."""
        with self._gate:
            self._forking = True
            # Who takes longer than this waits for a database that is locked.
            if self._gate.wait_for(lambda: self._inside == 0, timeout=self._busy) and self._engine is not None:
                self._engine.dispose()
                self._engine = None
        # So that the child gets a gate that nobody holds.
        self._gate.acquire()

    def after_fork_in_parent(self) -> None:
        """Let the other threads go on."""
        self._forking = False
        self._gate.notify_all()
        self._gate.release()

    def after_fork_in_child(self) -> None:
        """Begin anew: the other threads are not here, and what is theirs must not be closed, for it is the parent's."""
        if self._engine is not None:
            _abandoned.append(self._engine)
        self._gate = threading.Condition()
        self._inside = 0
        self._engine = None
        self._forking = False


_all: weakref.WeakSet[Engines] = weakref.WeakSet()
_abandoned: list[Engine] = []


class _Forks:
    """One fork at a time: what is closed before it must be the same that is opened again after it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed: list[Engines] = []

    def before(self) -> None:
        self._lock.acquire()
        self._closed = list(_all)
        for engines in self._closed:
            engines.before_fork()

    def after_in_parent(self) -> None:
        for engines in self._closed:
            engines.after_fork_in_parent()
        self._closed = []
        self._lock.release()

    def after_in_child(self) -> None:
        for engines in self._closed:
            engines.after_fork_in_child()
        self._closed = []
        self._lock = threading.Lock()


_forks = _Forks()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_forks.before, after_in_parent=_forks.after_in_parent, after_in_child=_forks.after_in_child
    )


def _url(target: str | Path) -> URL:
    text = os.fspath(target)
    if "://" not in text:
        return _file(text)
    try:
        url = make_url(text)
    except (exc.ArgumentError, ValueError):
        # The text may hold a password, so it is not shown.
        raise LedgerError("The ledger's URL can't be read.", remedy="Use postgresql://user@host/database.") from None
    if url.get_backend_name() == "sqlite":
        return _file(url.database or "")
    if url.drivername not in ("postgresql", "postgres", _DRIVER):
        raise LedgerError(
            f"{shown(url.drivername)} is no database that a ledger can be in.",
            remedy="Give the path of a SQLite file, or a URL that begins with postgresql://.",
        )
    return url.set(drivername=_DRIVER)


def _file(path: str) -> URL:
    if not path or path == ":memory:" or "\0" in path:
        raise LedgerError(
            f"{shown(path)} is no file that tasks would survive in.", remedy="Give the path of a file, such as work.db."
        )
    absolute = Path(path).absolute()
    with suppress(OSError):
        # Aliases hold passwords. SQLite gives its other files the same mode; what is wrong here it says itself.
        os.close(os.open(absolute, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600))
    return URL.create("sqlite", database=str(absolute))


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("upload_helper_writes")
    connection.exec_driver_sql("begin immediate" if writes else "begin")


@contextmanager
def _errors(name: str) -> Iterator[None]:
    try:
        yield
    except exc.SQLAlchemyError as error:
        raise _translated(error, name) from error


def _translated(error: exc.SQLAlchemyError, name: str) -> LedgerError:
    """Return our error for one of the database, without the statement and its values: there may be secrets in them."""
    cause = getattr(error, "orig", None)
    what = str(cause or error).strip().split("\n")[0]
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
        if code in _BUSY:
            return LedgerBusyError(f"The ledger {name} is locked: {what}.")
        return LedgerError(f"The ledger {name} can't be used: {what}.", remedy=_REMEDIES.get(code))
    if isinstance(error, (exc.OperationalError, exc.TimeoutError, exc.InterfaceError)):
        return LedgerBusyError(f"The ledger {name} can't be reached: {what}.")
    return LedgerError(f"The ledger {name} can't be used: {what}.")
