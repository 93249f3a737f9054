"""The kinds of work `upload` and `download`: files sent and fetched, however often a link or a process dies."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import Error, HandlerError, InvalidTaskError, shown
from ..transfer.addresses import scrubbed
from ..transfer.errors import TransferError
from .claims import clean
from .context import Context, Outcome
from .lanes import lane_of
from .names import ENDED, ERROR_MESSAGE, RESULT_ERROR, RESULT_MESSAGE, TASK_ERROR, TASK_STATE, TRANSFER_RESTARTED
from .task import State

if TYPE_CHECKING:
    from ..transfer.orders import Kind

_log = logging.getLogger("upload_helper.work")


def parse_request(kind: Kind, request: object) -> tuple[dict[str, Any], Any, int]:
    """Return what the ledger keeps of a request, its ``postExecute``, and the lane of its priority.

    A file is kept with its whole path, for the worker may run elsewhere. Raises InvalidTaskError, InvalidTransferError.
    """
    from ..transfer.orders import read_order  # noqa: PLC0415 - needs an extra that not every ledger does

    if not isinstance(request, Mapping):
        raise InvalidTaskError(f"The request of an {kind} is an object, not {shown(request)}.")
    kept = {str(name): value for name, value in request.items() if value is not None}
    after, lane = kept.pop("postExecute", None), lane_of(kept.pop("priority", 0))
    order = read_order(kind, kept)
    ends = "/" if order.file.endswith("/") else ""
    kept["file"] = str(Path(order.file).absolute()) + ends
    if kind == "download":
        # Where the server names the file, it must not choose one of those that are there.
        kept.setdefault("overwrite", not (order.file == "" or ends or Path(order.file).is_dir()))
    return kept, after, lane


def run_transfer(context: Context) -> Outcome:
    """Carry out the task, from where it was, and at its end what is to follow; raises Stopped."""
    task = context.task
    ended = task.saved.get(ENDED)
    outcome = Outcome(**ended) if ended else _carry(context)
    if outcome.failed and task.retry and not outcome.final:
        return outcome
    if task.post_execute:
        # A worker that dies in what follows must not begin the transfer again.
        if not ended:
            context.save(**{ENDED: vars(outcome)})
        _follow(context, outcome)
    return outcome


def _carry(context: Context) -> Outcome:
    from ..transfer.orders import carry, read_order  # noqa: PLC0415
    from ..transfer.progress import Calls, Meter, Progress  # noqa: PLC0415

    task, work = context.task, context.work
    last = [Progress("")]

    def tell(progress: Progress) -> None:
        last[0] = progress
        if progress.done or progress.total is not None:
            context.report_bytes(progress.done, progress.total, progress.speed, progress.step)

    try:
        order = read_order(
            _kind(task.kind), task.handlers[0] if task.handlers else {}, lambda name: _address(context, name)
        )
        with Meter(task.title or order.name, Calls(tell), *(make() for make in work.sinks)) as meter:
            carried = carry(
                order,
                meter,
                check=context.check,
                sleep=context.sleep,
                pace=work.pace,
                state=task.saved.get("upload"),
                save=lambda state: context.save(upload=state),
                hold=context.on_stop,
            )
    except Error as error:
        # A line that was cut because the run must end looks as if it were broken.
        context.check()
        return _failure(task.uid, error, moved=last[0].done > last[0].resumed)
    if carried.restarted:
        _log.warning("task %s: %s; the transfer began again", task.uid, carried.restarted)
        context.variables[TRANSFER_RESTARTED] = carried.restarted
    # Kept before the end is: it must fit, or the file would go once more.
    outcome = Outcome(clean(carried.text or carried.target))
    context.save(**{ENDED: vars(outcome)})
    return outcome


def _failure(uid: str, error: Error, *, moved: bool) -> Outcome:
    text = scrubbed(f"{error} {error.remedy}".strip())
    _log.warning("task %s: %s", uid, text)
    final = not error.temporary if isinstance(error, TransferError) else isinstance(error, HandlerError)
    return Outcome(error=text, failed=True, retry_after=error.retry_after, final=final, moved=moved)


def _follow(context: Context, outcome: Outcome) -> None:
    """Run what is to follow at the end; whether it fails changes nothing for the transfer."""
    from .handlers.arrays import run_handlers  # noqa: PLC0415

    state = State.FAILED if outcome.failed else State.SUCCEEDED
    context.variables |= {TASK_STATE: state.value, TASK_ERROR: outcome.error}
    context.variables |= {RESULT_MESSAGE: outcome.result, RESULT_ERROR: outcome.error, ERROR_MESSAGE: outcome.error}
    after = run_handlers(context.task.post_execute, context, context.work.registry)
    if after.failed:
        _log.warning("task %s: what follows at its end failed: %s", context.task.uid, after.error)


def _address(context: Context, name: str) -> tuple[str, Mapping[str, str]]:
    alias = context.work.alias(name)
    return alias.url, alias.headers


def _kind(name: str) -> Kind:
    return "upload" if name == "upload" else "download"
