"""Processes that run work, to be killed, stopped and continued."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import text

from servers import wait_until
from upload_helper.work import Ledger, Work
from upload_helper.work.handlers.step import Step


class Journal:
    """What handlers of all processes say, one line each: a word, uid and attempt of the task, when, and which process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def say(self, word: str, step: Step) -> None:
        task = step.context.task
        line = f"{word} {task.uid} {task.attempt} {time.monotonic()} {os.getpid()}\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, line.encode())
        os.close(descriptor)

    def lines(self, word: str) -> list[tuple[str, int, float]]:
        """Return uid, attempt and time of all lines with this word."""
        rows = (line.split() for line in self.path.read_text().splitlines()) if self.path.exists() else ()
        return [(row[1], int(row[2]), float(row[3])) for row in rows if row[0] == word]

    def unfinished(self, pid: int) -> dict[str, int]:
        """Return the tasks whose last attempt was begun by a process, and has not ended, with its number."""
        rows = [line.split() for line in self.path.read_text().splitlines()] if self.path.exists() else []
        ended = {(row[1], row[2]) for row in rows if row[0] == "end"}
        last = {row[1]: (row[2], int(row[4])) for row in rows if row[0] == "begin"}
        return {uid: int(attempt) for uid, (attempt, by) in last.items() if by == pid and (uid, attempt) not in ended}

    def wait(self, word: str, count: int = 1) -> tuple[str, int, float]:
        """Return the line with this word that is the last of so many."""
        return wait_until(lambda: self.lines(word)[count - 1 : count], what=f"{count} × {word}")[0]


class Worker:
    """A process with a runner; `prepare` registers what its handlers need."""

    def __init__(self, make: Callable[[], Work], prepare: Callable[[Work], None], log: Path, **options: float) -> None:
        self._make, self._prepare, self._log, self._options = make, prepare, log, options
        self.pid = 0

    def start(self) -> Worker:
        self.pid = os.fork()
        if not self.pid:
            code = 1
            try:
                self._live()
                code = 0
            finally:
                os._exit(code)
        return self

    def _live(self) -> None:
        logging.basicConfig(filename=self._log, level="INFO", force=True)
        work = self._make()
        self._prepare(work)
        work.runner(**self._options).run_forever()

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it with SIGKILL and wait until it is gone."""
        if self.pid:
            self.signal(signal.SIGKILL)
            self.join()

    def join(self) -> int:
        """Wait for its end and return its exit code, below zero for a signal."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.pid = 0
        return code


def audit(ledger: Ledger) -> None:
    """Let the database itself note every change of a task's state."""
    postgres = ledger.engines.url.get_backend_name() == "postgresql"
    with ledger.engines.write() as connection:
        connection.execute(text("create table audit (uid text, before text, after text, attempt integer)"))
        note = "insert into audit values (new.uid, old.state, new.state, new.attempt);"
        if postgres:
            connection.execute(
                text(f"create function note() returns trigger language plpgsql as $$ begin {note} return new; end $$")
            )
            note = ""
        connection.execute(
            text(
                "create trigger note after update of state on upload_helper_tasks for each row"
                + (" execute function note()" if postgres else f" begin {note} end")
            )
        )


def audited(ledger: Ledger) -> list[tuple[str, str, str, int]]:
    with ledger.engines.read() as connection:
        return [tuple(row) for row in connection.execute(text("select uid, before, after, attempt from audit"))]


def counts(ledger: Ledger) -> dict[str, int]:
    """Return how many tasks are in which state."""
    with ledger.engines.read() as connection:
        rows = connection.execute(text("select state, count(*) from upload_helper_tasks group by state"))
        return {row[0]: row[1] for row in rows}
