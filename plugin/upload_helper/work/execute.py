"""One run of a task, from its claim to what the ledger says of it afterwards."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from ..errors import Error
from ..retry import Backoff
from .context import Context, Reason, Stopped, is_ctrl_c
from .ledger import Claim, Ledger, PutBack
from .task import State, Task

log = logging.getLogger("upload_helper.work")


class Result(Protocol):
    """What came of a run that was not stopped."""

    @property
    def result(self) -> str:
        """The last answer."""

    @property
    def error(self) -> str:
        """Why it failed, or ''."""

    @property
    def failed(self) -> bool:
        """Whether it failed."""

    @property
    def retry_after(self) -> float | None:
        """Seconds that a server asked to be left alone for, or None."""

    @property
    def final(self) -> bool:
        """Whether a task that is retried would fail again, and ends."""

    @property
    def moved(self) -> bool:
        """Whether it came so far that earlier failures say nothing any more."""


Kind = Callable[[Context], Result]
"""Runs tasks of one kind; raises nothing but Stopped where it can help it."""


@dataclass(frozen=True)
class Failure:
    """A run that raised what it should not have."""

    error: str
    result: str = ""
    failed: bool = True
    retry_after: float | None = None
    final: bool = False
    moved: bool = False


def run_array(context: Context) -> Result:
    """Run a task of the kind `handlers`: its array, and what is to follow at its end."""
    from .handlers.arrays import run_handlers  # noqa: PLC0415 - handlers need requests, which not every ledger does

    task, registry = context.task, context.work.registry
    outcome = run_handlers(task.handlers, context, registry)
    if task.post_execute and not (outcome.failed and task.retry):
        # A task that is tried again has not come to its end.
        after = run_handlers(task.post_execute, context, registry)
        if after.failed:
            log.warning("task %s: what follows at its end failed: %s", task.uid, after.error)
    return outcome


def execute(
    context: Context, kinds: Mapping[str, Kind], around: Callable[[], AbstractContextManager[object]] = nullcontext
) -> Result | Stopped:
    """Run the task of `context`; whatever its handlers raise becomes a result."""
    kind = kinds.get(context.task.kind)
    if kind is None:
        return Failure(f"Tasks of the kind {context.task.kind!r} can't be run by this process.")
    try:
        context.check()
        with around():
            return kind(context)
    except Stopped as stopped:
        return stopped
    except Error as error:
        return Failure(f"{error} {error.remedy}".strip(), retry_after=error.retry_after)
    except BaseException as error:
        if is_ctrl_c(error):
            raise
        log.exception("task %s: its handlers raised an exception", context.task.uid)
        return Failure(f"{type(error).__name__}: {error}")


def settle(ledger: Ledger, claim: Claim, outcome: Result | Stopped, backoff: Backoff) -> bool:
    """Write to the ledger what came of a run; return False if the task was lost meanwhile."""
    uid, attempt, task = claim.uid, claim.attempt, claim.task
    if task is None:
        return ledger.finish(uid, attempt, State.FAILED, error=claim.error)
    if isinstance(outcome, Stopped):
        return _settle_stopped(ledger, claim, task, outcome.reason)
    how = _again(task, outcome, backoff)
    if how is not None:
        return ledger.put_back(uid, attempt, task.conditions, how)
    state = State.FAILED if outcome.failed else State.SUCCEEDED
    return ledger.finish(uid, attempt, state, result=outcome.result, error=outcome.error)


def _settle_stopped(ledger: Ledger, claim: Claim, task: Task, reason: Reason) -> bool:
    if reason is Reason.CANCELLED:
        return ledger.finish(claim.uid, claim.attempt, State.CANCELLED)
    state = State.BLOCKED if reason is Reason.CONDITION else State.ENQUEUED
    return ledger.put_back(claim.uid, claim.attempt, task.conditions, PutBack(state))


def _again(task: Task, outcome: Result, backoff: Backoff) -> PutBack | None:
    """Return how the task comes back after this run, or None if it ended."""
    if task.period is not None:
        return PutBack(delay=task.period, failed=outcome.failed, result=outcome.result, error=outcome.error)
    if outcome.failed and task.retry and not outcome.final:
        failures = 1 if outcome.moved else task.failures + 1
        delay = backoff.delay(failures, outcome.retry_after)
        return PutBack(delay=delay, failed=True, failures=failures, result=outcome.result, error=outcome.error)
    return None
