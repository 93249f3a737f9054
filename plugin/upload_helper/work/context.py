"""What a handler sees of the run that it is part of."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .clock import Clock
    from .task import Task
    from .work import Work


class Reason(StrEnum):
    """Why a run was stopped before its end."""

    CANCELLED = "it was cancelled"
    CONDITION = "a condition was lost"
    LEASE = "the lease was lost"
    SHUTDOWN = "the worker ends"
    UNKNOWN = "this process does not know what it needs"


class Stopped(BaseException):
    """The run must end here. No ``Exception``, so that a handler's ``except Exception`` does not swallow it."""

    def __init__(self, reason: Reason, waits_for: str = "") -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.waits_for = waits_for
        """What a process must know that can run it, where the reason is UNKNOWN."""


@dataclass(frozen=True)
class Outcome:
    """What came of a run that was not stopped."""

    result: str = ""
    """The last answer of a handler."""
    error: str = ""
    """Why the first handler failed that did; empty if none did."""
    failed: bool = False
    """Whether any handler failed."""
    retry_after: float | None = None
    """Seconds that a server asked to be left alone for; None if it did not say."""
    final: bool = False
    """Whether it would fail again, so that there is nothing to retry."""
    moved: bool = False
    """Whether it came so far that earlier failures say nothing any more."""


def is_ctrl_c(error: BaseException) -> bool:
    """Whether somebody pressed Ctrl-C; Python raises that in the main thread only."""
    return isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()


def end_if_forked(pid: int) -> None:
    """End this process at once if it is not the one with that number: a handler has forked it, and it came back.

    The handlers that follow, and what is written to the ledger, are its parent's.
    """
    if os.getpid() != pid:
        os._exit(0)


class Context:
    """One run of a task, for the handlers in it; may be used by several threads."""

    def __init__(self, task: Task, work: Work, clock: Clock, lease_end: float) -> None:
        self.task = task
        self.work = work
        self.saved: dict[str, Any] = dict(task.saved)
        """What `save` keeps; it begins as what the attempts before have kept."""
        self.variables: dict[str, Any] = dict(task.variables)
        """ResultMessage, SQLParameter … by name; they begin as those of the task."""
        self.lease_end = lease_end
        """Until when the task is ours, by the monotonic clock; the runner moves it on."""
        self.progress: float | None = None
        self.step_name = ""
        self.amounts: dict[str, float | None] = {}
        """Bytes that are done, that there are in total, and per second, of a transfer."""
        self.is_reported = True
        """Whether the ledger knows the progress."""
        self._clock = clock
        self._reason: Reason | None = None
        self._stop = threading.Event()
        self._on_stop: list[Callable[[], object]] = []

    def check(self) -> None:
        """Raise Stopped if the task was cancelled, a condition or the lease was lost, or the runner ends; cheap."""
        if self._reason is None and self._clock.monotonic() > self.lease_end:
            self.stop(Reason.LEASE)
        if self._reason is not None:
            raise Stopped(self._reason)

    def report(self, progress: float | None = None, step_name: str = "") -> None:
        """Say which share (0 to 1) is done, and what is done now; written to the ledger once a second at most."""
        if progress is not None and not math.isnan(progress):
            self.progress = min(max(float(progress), 0.0), 1.0)
        self.step_name = str(step_name) or self.step_name
        self.is_reported = False

    def report_bytes(self, done: int, total: int | None, speed: float | None, step_name: str = "") -> None:
        """Say how many bytes of a transfer are done; otherwise as `report`."""
        self.amounts = {"done": done, "total": total, "speed": speed}
        self.report(done / total if total else None, step_name)

    def save(self, **members: Any) -> None:
        """Keep in the ledger what the next attempt needs to go on; raises Stopped if the task is not ours any more."""
        self.check()
        self.saved |= members
        if not self.work.ledger.save(self.task.uid, self.task.attempt, self.saved, **self.amounts):
            self.stop(Reason.LEASE)
            self.check()

    def on_stop(self, action: Callable[[], object]) -> Callable[[], None]:
        """Call `action`, which must not wait for anything, as soon as the run must end: it ends what is blocked.

        Returns what to call when there is nothing to end any more.
        """
        self._on_stop.append(action)
        if self._reason is not None:
            action()
        return lambda: self._on_stop.remove(action)

    def sleep(self, seconds: float) -> None:
        """Wait, and raise Stopped as soon as `check` would."""
        until = self._clock.monotonic() + seconds
        self.check()
        while (left := until - self._clock.monotonic()) > 0:
            self._stop.wait(min(left, max(self.lease_end - self._clock.monotonic(), 0) + 0.01))
            self.check()

    def stop(self, reason: Reason) -> None:
        """Make `check` raise Stopped from now on; the first reason stands."""
        if self._reason is None:
            self._reason = reason
        self._stop.set()
        for action in tuple(self._on_stop):
            action()
