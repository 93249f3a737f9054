"""Looks after the tasks that run: keeps their leases, tells the ledger their progress, and stops them in time."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from ..errors import LedgerError
from .context import Context, Reason, Stopped
from .execute import log

if TYPE_CHECKING:
    from .ledger import Claim
    from .work import Work

_LOOK = 0.5
"""Seconds between two looks whether somebody wants a task stopped."""
_REPORT = 1.0
"""Seconds between two writes of a task's progress."""


class Complaint:
    """Says what is wrong with the ledger: once, for it may be gone for a night, and be looked at every second."""

    def __init__(self) -> None:
        self._said = ""

    def say(self, error: LedgerError) -> None:
        """Log the error, unless it was the last one too."""
        if str(error) != self._said:
            self._said = str(error)
            log.error("%s %s", error, error.remedy)

    def forget(self) -> None:
        """Say it again when it comes back: the ledger can be used now."""
        self._said = ""


class Running:
    """A task that runs here."""

    def __init__(self, claim: Claim, context: Context, now: float) -> None:
        self.claim = claim
        self.context = context
        self.written = now
        """When the ledger was last told of it (monotonic clock)."""


class Keeper:
    """One thread for all tasks of a runner; it sleeps while there are none."""

    def __init__(self, work: Work, *, lease: float, poll: float) -> None:
        self._work = work
        self._ledger = work.ledger
        self._lease = lease
        self._pause = min(poll, lease / 4, _LOOK)
        self._changed = threading.Condition()
        self._running: dict[str, Running] = {}
        self._hurry = False
        self._ending = False
        self._thread: threading.Thread | None = None
        self._complaint = Complaint()

    def start(self) -> None:
        """Start the thread."""
        self._ending = False
        self._thread = threading.Thread(target=self._loop, name="upload_helper keeper", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Let the thread end, and wait for it."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def add(self, running: Running) -> None:
        """Look after one more task."""
        with self._changed:
            self._running[running.claim.uid] = running
            self._changed.notify_all()

    def remove(self, running: Running) -> None:
        """Look after a task no more."""
        with self._changed:
            if self._running.get(running.claim.uid) is running:
                del self._running[running.claim.uid]
            self._changed.notify_all()

    def running(self) -> list[Running]:
        """Return what runs now."""
        with self._changed:
            return list(self._running.values())

    def look(self) -> None:
        """Look at once whether a task was cancelled."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()

    def _loop(self) -> None:
        while True:
            with self._changed:
                if self._running and not self._hurry:
                    self._changed.wait_for(lambda: self._ending or self._hurry, timeout=self._pause)
                else:
                    self._changed.wait_for(lambda: self._ending or self._running)
                if self._ending:
                    return
                self._hurry = False
            try:
                self.tick()
                self._complaint.forget()
            except LedgerError as error:
                self._complaint.say(error)
                self._end_lost()
            except Exception:  # noqa: BLE001
                # Whatever it is: without this thread, every lease would be lost.
                log.exception("looking after the running tasks failed")

    def _end_lost(self) -> None:
        """End runs whose lease could not be renewed and has run out, also those that wait for a server."""
        for one in self.running():
            with suppress(Stopped):
                one.context.check()

    def tick(self) -> None:
        """Look once after everything that runs."""
        running = self.running()
        rest = [one for one in running if not self._renew(one)]
        if rest:
            held = self._ledger.held((one.claim.uid, one.claim.attempt) for one in rest)
            for one in rest:
                self._judge(one, held.get(one.claim.uid))
        self._check_conditions(running)

    def _renew(self, one: Running) -> bool:
        """Write to the ledger if it is time to; return whether it was."""
        now = self._ledger.clock.monotonic()
        silent = now - one.written
        if silent < self._lease / 3 and (one.context.is_reported or silent < _REPORT):
            return False
        context, claim = one.context, one.claim
        context.is_reported = True
        kept = self._ledger.renew(
            claim.uid, claim.attempt, self._lease, context.progress, context.step_name, **context.amounts
        )
        if kept is not None:
            context.lease_end = kept[0]
            one.written = now
        self._judge(one, None if kept is None else kept[1])
        return True

    def _judge(self, one: Running, cancel: bool | None) -> None:
        if cancel is None:
            one.context.stop(Reason.LEASE)
        elif cancel:
            one.context.stop(Reason.CANCELLED)

    def _check_conditions(self, running: list[Running]) -> None:
        wanted = frozenset().union(*(one.context.task.conditions for one in running))
        if not wanted:
            return
        # Leases must be renewed, so this thread waits for nobody.
        lost = self._work.lost(wanted, wait=False)
        for one in running:
            if lost & one.context.task.conditions:
                one.context.stop(Reason.CONDITION)
