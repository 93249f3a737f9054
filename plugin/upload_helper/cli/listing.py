"""Tasks as commands see them: with what is known of their workers, as JSON, and as lines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UnknownTaskError, shown
from ..jobs import job_uid
from ..transfer.addresses import scrubbed
from ..transfer.figures import amounts_text, size_text, span_text, speed_text
from ..work import State, Task, Work
from ..work.aliases import hidden
from ..work.lanes import priority_of
from ..work.leases import Watch
from .text import local_time, printable

MOST_LISTED = 10_000
SHORT = 8
"""Characters of a uid that lists show."""

_UPLOAD = job_uid("")
_TIMES = ("created", "next_run", "started", "ended")


@dataclass(frozen=True)
class Listing:
    """Tasks at one time."""

    tasks: Sequence[Task] = ()
    gone: frozenset[str] = frozenset()
    """The uids of those that run as far as the ledger knows, but whose worker is no more."""

    def note(self, task: Task) -> str:
        """Return what there is to say of a task: its step, that its worker is gone, or why it failed."""
        if task.uid in self.gone:
            return "worker gone; the next worker begins it again"
        said = task.step_name if task.state is State.RUNNING else scrubbed(task.error)
        return ", ".join(part for part in (*_figures(task), said) if part)


class Look:
    """Looks at a ledger, again and again."""

    def __init__(self, work: Work) -> None:
        self._work = work
        # A lease of another machine is over when it is seen unchanged for long enough, so all looks share this.
        self._watch = Watch(work.ledger.clock, is_local=work.ledger.engines.is_local)

    def __call__(self, tag: str | None = None, state: str | None = None, limit: int = 100) -> Listing:
        """Return the newest tasks of a kind; raises LedgerError."""
        return self._listing(self._work.list(tag=tag, state=state, limit=limit))

    def one(self, uid: str) -> Listing:
        """Return one task, by its uid, that of its upload, or the beginning of either; raises UnknownTaskError."""
        return self._listing([find(self._work, uid)])

    def _listing(self, tasks: Sequence[Task]) -> Listing:
        gone = {lease.uid for lease in self._watch.over(self._work.ledger.leases())}
        return Listing(tasks, frozenset(task.uid for task in tasks if task.uid in gone and task.state is State.RUNNING))


class Changes:
    """Tells which tasks have changed since the last listing."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}

    def since(self, listing: Listing) -> Iterator[Task]:
        """Give those that are new or not as they were, the oldest first."""
        before, self._last = self._last, {}
        for task in reversed(listing.tasks):
            self._last[task.uid] = text = json.dumps(record(task, listing))
            if before.get(task.uid) != text:
                yield task


def _figures(task: Task) -> Iterator[str]:
    """Give how far a transfer is, how fast it is, and how long it will take."""
    if task.done is None or (task.state.ended and task.error):
        return
    yield amounts_text(task.done, task.total) if task.done != task.total else size_text(task.done)
    if task.state is State.RUNNING and task.speed is not None:
        yield speed_text(task.speed)
        left = span_text((task.total - task.done) / task.speed) if task.total is not None and task.speed else ""
        yield f"{left} left" if left else ""


def find(work: Work, uid: str) -> Task:
    """Return the task with the uid or of the upload with it, or the one whose uid begins so."""
    for name in (uid, _UPLOAD + uid):
        try:
            return work.get(name)
        except UnknownTaskError:
            continue
    names = (uid, _UPLOAD + uid)
    found = [task for task in work.list(limit=MOST_LISTED) if uid and task.uid.startswith(names)]
    if len(found) > 1:
        raise UnknownTaskError(f"{len(found)} tasks begin with {shown(uid)}.", remedy="Name more of it.")
    if not found:
        raise UnknownTaskError(f"There is no task {shown(uid)}.")
    return found[0]


def short(uid: str) -> str:
    """Return as much of a uid as tells tasks apart."""
    return uid.removeprefix(_UPLOAD)[:SHORT]


def record(task: Task, listing: Listing, *, whole: bool = False) -> dict[str, Any]:
    """Return a task as JSON, without secrets; what it does and what came of it only when it is asked for."""
    values = {
        "uid": task.uid,
        "tag": task.tag,
        "title": task.title,
        "state": str(task.state),
        "worker_gone": task.uid in listing.gone,
        "progress": task.progress,
        "step_name": task.step_name,
        "attempt": task.attempt,
        "failures": task.failures,
        "conditions": sorted(task.conditions),
        "retry": task.retry,
        "period": task.period,
        "created": task.created,
        "next_run": task.next_run,
        "started": task.started,
        "ended": task.ended,
        "error": scrubbed(task.error),
        "kind": task.kind,
        "priority": priority_of(task.lane),
        "done": task.done,
        "total": task.total,
        "speed": task.speed,
    }
    if whole:
        for name in ("handlers", "post_execute", "variables"):
            values[name] = hidden(getattr(task, name))
        values["body"] = task.body
        values["result"] = hidden(task.result)
    return values


def lines(values: dict[str, Any]) -> Iterator[str]:
    """Give a record as people read it: a line for each member, with times of this place."""
    for name, value in values.items():
        if value is None:
            text = ""
        elif name in _TIMES:
            text = local_time(value)
        elif name == "progress":
            text = percent(value)
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        yield f"{name:13} {printable(text)}".rstrip()


def line(task: Task, listing: Listing, now: float) -> str:
    """Return one line for a log of what changes."""
    cells = (local_time(now), f"{short(task.uid):{SHORT}}", f"{task.state:9}", f"{percent(task.progress):>5}")
    texts = (task.tag, task.title, listing.note(task))
    return "  ".join((*cells, *(printable(text) for text in texts if text))).rstrip()


def percent(progress: float | None) -> str:
    """Return a share from 0 to 1 as people read it."""
    return "" if progress is None else f"{100 * progress:.0f} %"
