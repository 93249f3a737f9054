"""What runs the tasks of a ledger: threads beside an application, a process of its own, or inline."""

from __future__ import annotations

import atexit
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from ..errors import LedgerError
from .context import Context, Outcome, Reason, Stopped, end_if_forked
from .execute import execute, log, settle
from .keeper import Complaint, Keeper, Running
from .leases import Watch
from .ledger import Claim
from .task import Condition

if TYPE_CHECKING:
    from .work import Work

_HOUSEKEEPING = 60
"""Seconds between two looks for ended tasks that are to be cleared, and for a clock that was turned back."""
_ALL = frozenset(Condition)
_starting = threading.Lock()


def _after_fork() -> None:
    global _starting  # noqa: PLW0603
    _starting = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class _Thread(threading.Thread):
    carries = False
    """Whether its task is a transfer."""


class Runner:
    """Takes tasks from the ledger and runs them: `threads` at a time, and transfers beside them.

    A task is ours for `lease` seconds at a time; if this process dies, another worker takes it then, or sooner. Every
    `poll` seconds the ledger is asked for tasks that other processes put in; those of this process begin at once.
    `around` makes what is entered around every task; without it, `Work.around` does.
    """

    def __init__(
        self,
        work: Work,
        *,
        threads: int = 2,
        lease: float = 30,
        poll: float = 1,
        around: Callable[[], AbstractContextManager[Any]] | None = None,
    ) -> None:
        if threads < 1 or lease <= 0 or poll <= 0:
            raise ValueError(f"threads={threads}, lease={lease}, poll={poll}: all must be above zero.")
        self.work = work
        self._around = around
        self.threads, self.lease, self.poll = threads, lease, poll
        self._prepare()

    def _prepare(self) -> None:
        ledger = self.work.ledger
        self._keeper = Keeper(self.work, lease=self.lease, poll=self.poll)
        self._watch = Watch(ledger.clock, is_local=ledger.engines.is_local)
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._workers: set[_Thread] = set()
        self._pid = 0
        self._kept_house = -float("inf")
        self._lost: frozenset[Condition] | None = None
        self._complaint = Complaint()

    def start(self) -> Runner:
        """Run tasks in threads of this process, until `stop`. After a fork the child has to call it again."""
        with _starting:
            if self._pid == os.getpid():
                return self
            # The threads of a parent are not here, and its locks may never be freed.
            self._prepare()
            self._keeper.start()
            thread = threading.Thread(target=self._loop, name="upload_helper runner", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                self._keeper.end()
                raise
            self._thread, self._pid = thread, os.getpid()
        atexit.register(_stop_at_exit, weakref.ref(self))
        return self

    def stop(self, timeout: float = 10) -> None:
        """Stop the tasks that run, put them back at once, and wait for their threads so many seconds at most."""
        if self._pid != os.getpid():
            return
        until = time.monotonic() + timeout
        self._ending.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout)
        self._stop_all(until)
        self._keeper.end()
        self._pid = 0

    def __enter__(self) -> Runner:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def wake(self) -> None:
        """Look at the ledger at once: somebody in this process has changed it."""
        if self._pid == os.getpid():
            self._wake.set()
            self._keeper.look()

    def run_until_idle(self) -> int:
        """Run, in this thread, every task that can run now; return how many runs that were."""
        if self._pid == os.getpid():
            raise RuntimeError("This runner runs in threads already; use another one.")
        runs = 0
        self._prepare()
        self._keeper.start()
        try:
            while (claim := self.work.ledger.claim(self._tend(), self.lease, self.work.transfers)) is not None:
                self._run(claim, self._begin(claim))
                runs += 1
        finally:
            self._keeper.end()
        return runs

    def run_forever(self) -> None:
        """Run tasks until SIGTERM or SIGINT; the main thread of the worker's process calls this."""
        ended = threading.Event()
        with _signals(ended), self:
            ended.wait()

    # --- taking tasks ---

    def _loop(self) -> None:
        while not self._ending.is_set():
            self._wake.clear()
            try:
                self._fill()
                self._complaint.forget()
            except LedgerError as error:
                self._complaint.say(error)
            except Exception:  # noqa: BLE001
                # Whatever it is: no other task may suffer from it.
                log.exception("looking for tasks failed")
            self._wake.wait(self.poll)

    def _fill(self) -> None:
        lost = self._tend()
        while not self._ending.is_set():
            # Transfers take hours, and nobody who waits for a free thread should wait for them.
            has_room = sum(not thread.carries for thread in tuple(self._workers)) < self.threads
            claim = self.work.ledger.claim(lost, self.lease, self.work.transfers, others=has_room)
            if claim is None:
                return
            running = self._begin(claim)
            thread = _Thread(
                target=self._work_on, args=(claim, running), name=f"upload_helper {claim.uid}", daemon=True
            )
            thread.carries = claim.task is not None and claim.task.lane > 0
            self._workers.add(thread)
            try:
                thread.start()
            except RuntimeError:
                # The system has no room for threads just now: the task must neither keep its lease nor a place here.
                self._workers.discard(thread)
                self._settle(claim, Stopped(Reason.SHUTDOWN))
                if running is not None:
                    self._keeper.remove(running)
                raise

    def _tend(self) -> frozenset[Condition]:
        """Look after what nobody runs, and return the conditions that don't hold."""
        ledger = self.work.ledger
        self._keep_house()
        # Those that run here are not lost, only late: the ledger could not be written to, and will be told.
        ours = {(one.claim.uid, one.claim.attempt) for one in self._keeper.running()}
        for lease in self._watch.over(ledger.leases()):
            if (lease.uid, lease.attempt) not in ours and ledger.take_back(lease):
                log.warning("task %s: its worker vanished in attempt %d", lease.uid, lease.attempt)
        return self._look_at_conditions()

    def _look_at_conditions(self) -> frozenset[Condition]:
        """Show which tasks are blocked; return the conditions whose tasks can't be taken."""
        ledger = self.work.ledger
        wanted = ledger.wants()
        lost = self.work.lost(wanted) if wanted else frozenset()
        if self._lost is None or self._lost - lost:
            ledger.unblock(lost)
        ledger.block(lost)
        self._lost = lost
        # Nobody was asked about the others; a task that comes with one just now is looked at next time.
        return lost | (_ALL - wanted)

    def _keep_house(self) -> None:
        now = time.monotonic()
        if now - self._kept_house > _HOUSEKEEPING:
            self._kept_house = now
            self.work.ledger.sweep(self.work.keep)
            self.work.ledger.mend()

    # --- running one ---

    def _begin(self, claim: Claim) -> Running | None:
        if claim.task is None:
            return None
        context = Context(claim.task, self.work, self.work.ledger.clock, claim.lease_end)
        running = Running(claim, context, claim.lease_end - self.lease)
        self._keeper.add(running)
        return running

    def _work_on(self, claim: Claim, running: Running | None) -> None:
        try:
            self._run(claim, running)
        except Exception:  # noqa: BLE001
            log.exception("task %s: its result could not be written", claim.uid)
        finally:
            self._workers.discard(threading.current_thread())
            self._wake.set()

    def _run(self, claim: Claim, running: Running | None) -> None:
        outcome: Outcome | Stopped = Outcome(error=claim.error, failed=True)
        pid = os.getpid()
        try:
            if running is not None:
                outcome = execute(running.context, self.work.kinds, self._around or self.work.around)
        except BaseException:  # Ctrl-C while it runs inline
            outcome = Stopped(Reason.SHUTDOWN)
            raise
        finally:
            end_if_forked(pid)
            try:
                self._settle(claim, outcome, "" if running is None else running.context.step_name)
            finally:
                # Or its lease would be kept for ever.
                if running is not None:
                    self._keeper.remove(running)

    def _settle(self, claim: Claim, outcome: Outcome | Stopped, step_name: str = "") -> None:
        """Write what came of a run, however long the database can't be written to: it has been done, after all."""
        pause, told = 0.05, False
        while True:
            try:
                kept = settle(self.work.ledger, claim, outcome, self.work.backoff, step_name)
            except LedgerError as error:
                if self._ending.wait(pause):
                    raise
                if not told:
                    log.error("task %s: its result can't be written yet: %s %s", claim.uid, error, error.remedy)
                pause, told = min(2 * pause, 5), True
                continue
            if not kept:
                log.warning("task %s: attempt %d came too late; it changed nothing", claim.uid, claim.attempt)
            return

    def _stop_all(self, until: float) -> None:
        for one in self._keeper.running():
            one.context.stop(Reason.SHUTDOWN)
        for thread in list(self._workers):
            thread.join(max(until - time.monotonic(), 0))
        for one in self._keeper.running():
            # It does not listen. Its task goes back anyway, and what it writes later is ignored.
            with suppress(LedgerError):
                settle(self.work.ledger, one.claim, Stopped(Reason.SHUTDOWN), self.work.backoff)


def _stop_at_exit(reference: weakref.ref[Runner]) -> None:
    runner = reference()
    if runner is not None:
        runner.stop(timeout=2)


@contextmanager
def _signals(ended: threading.Event) -> Iterator[None]:
    def end(_number: int, _frame: Any) -> None:
        ended.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
