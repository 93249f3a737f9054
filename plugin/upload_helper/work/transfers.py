"""The kinds of work `upload` and `download`: files sent and fetched, however often a link or a process dies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import Error, HandlerError, InvalidTaskError, shown
from ..transfer.addresses import scrubbed
from ..transfer.errors import TransferError
from ..transfer.orders import Kind, carry, read_order
from ..transfer.progress import Calls, Meter, Progress
from .claims import clean
from .context import Context, Outcome
from .execute import follow, log
from .lanes import lane_of
from .names import ENDED, ERROR_MESSAGE, RESULT_ERROR, RESULT_MESSAGE, TRANSFER_RESTARTED


def parse_request(kind: Kind, request: object) -> tuple[dict[str, Any], Any, int]:
    """Return what the ledger keeps of a request, its ``postExecute``, and the lane of its priority.

    A file is kept with its whole path, for the worker may run elsewhere. Raises InvalidTaskError, InvalidTransferError.
    """
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
        said = {RESULT_MESSAGE: outcome.result, RESULT_ERROR: outcome.error, ERROR_MESSAGE: outcome.error}
        context.variables |= said
        follow(context, outcome)
    return outcome


def _carry(context: Context) -> Outcome:
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
        log.warning("task %s: %s; the transfer began again", task.uid, carried.restarted)
        context.variables[TRANSFER_RESTARTED] = carried.restarted
    # Kept before the end is: it must fit, or the file would go once more.
    outcome = Outcome(clean(carried.text or carried.target))
    context.save(**{ENDED: vars(outcome)})
    return outcome


def _failure(uid: str, error: Error, *, moved: bool) -> Outcome:
    text = scrubbed(f"{error} {error.remedy}".strip())
    log.warning("task %s: %s", uid, text)
    final = not error.temporary if isinstance(error, TransferError) else isinstance(error, HandlerError)
    return Outcome(error=text, failed=True, retry_after=error.retry_after, final=final, moved=moved)


def _address(context: Context, name: str) -> tuple[str, Mapping[str, str]]:
    alias = context.work.alias(name)
    return alias.url, alias.headers


def _kind(name: str) -> Kind:
    return "upload" if name == "upload" else "download"
