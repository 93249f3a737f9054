"""Ledgers for the tests: SQLite files, and a PostgreSQL of the tests' own on a socket in a temporary folder."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy

from upload_helper.work.clock import Clock

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


class Postgres:
    """A server that forgets everything: it listens on a socket only, and never syncs."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="uh-pg-", dir="/tmp"))
        self._url = "postgresql+psycopg://tests@/postgres"
        self._engine: sqlalchemy.Engine | None = None
        # The server refuses to run as root.
        self._user = {"user": "postgres", "group": "postgres", "extra_groups": ()} if os.geteuid() == 0 else {}
        if self._user:
            shutil.chown(self.folder, "postgres", "postgres")
        self._data = self.folder / "data"
        self._run("initdb", "--pgdata", self._data, "--username", "tests", "--auth", "trust", "--no-sync")
        options = f"-c listen_addresses= -c unix_socket_directories={self.folder} -c fsync=off -c max_connections=60"
        self._run(
            "pg_ctl", "start", "--pgdata", self._data, "--wait", "--options", options, "--log", self.folder / "log"
        )

    def url(self) -> str:
        """Return the URL of an empty ledger: a schema of its own, which is made faster than a database."""
        name = f"ledger_{secrets.token_hex(6)}"
        if self._engine is None:
            self._engine = sqlalchemy.create_engine(
                f"{self._url}?host={self.folder}", isolation_level="AUTOCOMMIT", pool_pre_ping=True
            )
        with self._engine.connect() as connection:
            connection.exec_driver_sql(f"create schema {name}")
        return f"{self._url}?host={self.folder}&options=-csearch_path%3D{name}"

    def stop(self) -> None:
        if self._engine is not None:
            self._engine.dispose()
        self._run("pg_ctl", "stop", "--pgdata", self._data, "--mode", "immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(part) for part in (PROGRAMS[-1] / program, *arguments)]
        log = self.folder / "setup.log"
        with log.open("ab") as out:
            subprocess.run(command, check=True, stdout=out, stderr=out, cwd="/", timeout=60, **self._user)


@contextmanager
def postgres() -> Iterator[Postgres]:
    if not PROGRAMS:
        pytest.fail("PostgreSQL is not there; tests/setup-system postgresql installs it.")
    server = Postgres()
    try:
        yield server
    finally:
        server.stop()


class FakeClock(Clock):
    """Clocks that tests turn."""

    def __init__(self, boot: str = "boot-1", *, wall: float = 1_800_000_000.0, monotonic: float = 1000.0) -> None:
        super().__init__(boot)
        self.now, self.up = wall, monotonic

    def wall(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.up

    def pass_(self, seconds: float) -> None:
        """Let time pass, as it does for everybody."""
        self.now += seconds
        self.up += seconds
