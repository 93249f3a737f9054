"""One run of a task, from its claim to what the ledger says of it afterwards."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

from ..errors import Error
from ..retry import Backoff
from .context import Context, Outcome, Reason, Stopped, is_ctrl_c
from .handlers.arrays import run_handlers
from .handlers.names import unknown_in
from .ledger import Claim, Ledger, PutBack
from .names import TASK_ERROR, TASK_STATE
from .task import State, Task

log = logging.getLogger("upload_helper.work")

_ELSEWHERE = Backoff(first=2, longest=300)
"""How long a task is left to others that this process can't run; the worker that can may look at any time."""

Kind = Callable[[Context], Outcome]
"""Runs tasks of one kind; raises nothing but Stopped where it can help it."""


def run_array(context: Context) -> Outcome:
    """Run a task of the kind `handlers`: its array, and what is to follow at its end."""
    task, registry = context.task, context.work.registry
    outcome = run_handlers(task.handlers, context, registry)
    if task.post_execute and not (outcome.failed and task.retry):
        # A task that is tried again has not come to its end.
        follow(context, outcome)
    return outcome


def follow(context: Context, outcome: Outcome) -> None:
    """Run what is to follow at the end of a task; whether it fails changes nothing for the task."""
    task = context.task
    state = State.FAILED if outcome.failed else State.SUCCEEDED
    context.variables |= {TASK_STATE: state.value, TASK_ERROR: outcome.error}
    after = run_handlers(task.post_execute, context, context.work.registry)
    if after.failed:
        log.warning("task %s: what follows at its end failed: %s", task.uid, after.error)


def execute(
    context: Context, kinds: Mapping[str, Kind], around: Callable[[], AbstractContextManager[object]] = nullcontext
) -> Outcome | Stopped:
    """Run the task of `context`; whatever its handlers raise becomes a result."""
    kind = kinds.get(context.task.kind)
    if kind is None:
        return Outcome(error=f"Tasks of the kind {context.task.kind!r} can't be run by this process.", failed=True)
    try:
        context.check()
        _check_names(context)
        with around():
            return kind(context)
    except Stopped as stopped:
        return stopped
    except Error as error:
        text = f"{error} {error.remedy}".strip()
        log.warning("task %s: %s", context.task.uid, text)
        return Outcome(error=text, failed=True, retry_after=error.retry_after)
    except BaseException as error:
        if is_ctrl_c(error):
            raise
        log.exception("task %s: its handlers raised an exception", context.task.uid)
        return Outcome(error=f"{type(error).__name__}: {error}", failed=True)


def _check_names(context: Context) -> None:
    """Raise Stopped if the task is for others: the host has registered nothing here, and the task needs something."""
    task, registry = context.task, context.work.registry
    handlers = task.handlers if task.kind == "handlers" else ()
    if registry.is_bare and (unknown := unknown_in((*handlers, *task.post_execute), registry)):
        raise Stopped(Reason.UNKNOWN, unknown)


def settle(ledger: Ledger, claim: Claim, outcome: Outcome | Stopped, backoff: Backoff, step_name: str = "") -> bool:
    """Write to the ledger what came of a run, in which step it was; return False if the task was lost meanwhile."""
    uid, attempt, task = claim.uid, claim.attempt, claim.task
    if task is None:
        log.error("task %s: %s", uid, claim.error)
        return ledger.finish(uid, attempt, State.FAILED, error=claim.error)
    if isinstance(outcome, Stopped):
        return _settle_stopped(ledger, claim, task, outcome)
    how = _again(task, outcome, backoff)
    if how is not None:
        kept = ledger.put_back(uid, attempt, task.conditions, how)
    elif outcome.failed:
        kept = ledger.finish(
            uid, attempt, State.FAILED, result=outcome.result, error=outcome.error, step_name=step_name
        )
    else:
        kept = ledger.finish(uid, attempt, State.SUCCEEDED, result=outcome.result)
    if kept and outcome.failed:
        then = "the task has failed" if how is None else f"it runs again in {how.delay:.0f} s"
        log.warning("task %s: attempt %d failed; %s", uid, attempt, then)
    return kept


def _settle_stopped(ledger: Ledger, claim: Claim, task: Task, stopped: Stopped) -> bool:
    if stopped.reason is Reason.CANCELLED:
        return ledger.finish(claim.uid, claim.attempt, State.CANCELLED)
    how = PutBack(State.BLOCKED if stopped.reason is Reason.CONDITION else State.ENQUEUED)
    if stopped.reason is Reason.UNKNOWN:
        error = f"It waits for a worker that knows {stopped.waits_for}: one of its host, or with --app or --module."
        log.warning("task %s: %s", claim.uid, error)
        how = PutBack(delay=_ELSEWHERE.delay(task.losses + 1), error=error)
    return ledger.put_back(claim.uid, claim.attempt, task.conditions, how)


def _again(task: Task, outcome: Outcome, backoff: Backoff) -> PutBack | None:
    """Return how the task comes back after this run, or None if it ended."""
    if task.period is not None:
        return PutBack(delay=task.period, failed=outcome.failed, result=outcome.result, error=outcome.error)
    if outcome.failed and task.retry and not outcome.final:
        failures = 1 if outcome.moved else task.failures + 1
        delay = backoff.delay(failures, outcome.retry_after)
        return PutBack(delay=delay, failed=True, failures=failures, result=outcome.result, error=outcome.error)
    return None
