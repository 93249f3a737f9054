"""The face of background work: start tasks, stop them, look at them."""

from __future__ import annotations

import math
import secrets
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import InvalidTaskError, UnknownTaskError, shown
from ..retry import Backoff
from ..transfer.pace import Pace
from .aliases import Alias, can_name_alias
from .arguments import can_be_uid, checked_choice, checked_period, checked_text, checked_uid
from .clock import Clock
from .execute import Kind, run_array
from .handlers.arrays import Handlers, parse_handlers
from .handlers.defaults import default_registry
from .handlers.names import warn_of_members
from .lanes import check_transfers
from .ledger import Ledger
from .names import DATABASE
from .runner import Runner
from .task import (
    MOST_TAG,
    MOST_TITLE,
    Condition,
    Existing,
    State,
    Task,
    parse_conditions,
)
from .transfers import parse_request, run_transfer

if TYPE_CHECKING:
    from ..transfer.orders import Kind as TransferKind
    from ..transfer.progress import Sink
    from .conditions import Conditions

KEEP_SECONDS = 7 * 86400.0
"""How long ended tasks stay in the ledger, unless said otherwise."""

Tasks = list[Task]
_F = TypeVar("_F", bound=Callable[..., Any])


class Work:
    """Tasks in a ledger: a SQLite file by its path, or a PostgreSQL database by URL.

    `conditions` says whether conditions hold on this machine; `modules` are those whose public functions ``python``
    handlers may name, beside what is registered with the decorators below; `backoff` is how long failed tasks wait, and
    `keep` for how many seconds ended ones are kept. One or two `transfers` run at a time on a machine, in this process
    no faster than `limit` (bytes/s, or a table by hour, see `Pace`); `sinks` make what shows the progress of each.
    Every method that touches the ledger raises LedgerError.
    """

    def __init__(
        self,
        ledger: str | Path,
        *,
        conditions: Conditions | None = None,
        modules: Iterable[ModuleType] = (),
        backoff: Backoff | None = None,
        keep: float = KEEP_SECONDS,
        transfers: int = 1,
        limit: float | str = 0,
        sinks: Iterable[Callable[[], Sink]] = (),
        clock: Clock | None = None,
    ) -> None:
        self.ledger = Ledger(ledger, clock=clock)
        self.registry = default_registry(modules)
        """The types, functions and commands that handlers may name."""
        self.kinds: dict[str, Kind] = {"handlers": run_array, "upload": run_transfer, "download": run_transfer}
        """What runs tasks, by their kind."""
        self.around: Callable[[], AbstractContextManager[Any]] = nullcontext
        """Makes what is entered around every task that runs in this process, such as an application's context."""
        self.backoff = backoff or Backoff()
        self.keep = keep
        self.transfers = check_transfers(transfers)
        """How many transfers run at a time on this machine."""
        self.pace = Pace(limit)
        """What limits the speed of all transfers of this process; may be replaced before they begin."""
        self.sinks = tuple(sinks)
        self.database = ""
        """Path of the SQLite database that ``sql`` handlers work on; see `connect_database`."""
        self._conditions = conditions
        self._runners: weakref.WeakSet[Runner] = weakref.WeakSet()

    def __repr__(self) -> str:
        return f"Work({self.ledger.engines.name!r})"

    # --- tasks ---

    def start_work(
        self,
        handlers: Any,
        tag: str = "",
        *,
        retry: bool = False,
        conditions: str | Iterable[str] = "",
        if_exists: str | Existing = Existing.APPEND,
        title: str = "",
        body: str = "",
        variables: Mapping[str, Any] | None = None,
        post_execute: Any = None,
        uid: str = "",
    ) -> str:
        """Put a task into the ledger and return its uid; it is safe there once this returns.

        `handlers` and `post_execute` are arrays of handlers, or the JSON of such. `conditions` is such as
        ``CHARGING;CONNECTED``. `if_exists` says what becomes of tasks with the same tag that have not ended: APPEND
        leaves them, KEEP returns the uid of the first in place of a new one, REPLACE cancels them. A `uid` of the
        host's own makes the call harmless when it is repeated. Raises InvalidTaskError, InvalidHandlersError.
        """
        task = self._task(handlers, post_execute, conditions, variables, tag=tag, title=title, body=body)
        task = replace(task, retry=bool(retry), uid=checked_uid(uid) if uid else task.uid)
        return self._start(task, if_exists)

    def start_periodic_work(
        self,
        handlers: Any,
        period: float,
        tag: str = "",
        *,
        conditions: str | Iterable[str] = "",
        retry: bool = False,
        if_exists: str | Existing = Existing.APPEND,
        title: str = "",
        body: str = "",
        variables: Mapping[str, Any] | None = None,
        post_execute: Any = None,
    ) -> str:
        """Put a task into the ledger that runs now and every `period` minutes (at least 15); return its uid.

        It runs until it is stopped, also when it fails; so there is no retry. Otherwise as `start_work`.
        """
        if retry:
            raise InvalidTaskError("Periodic work is not retried: it runs again when its time has come.")
        task = self._task(handlers, post_execute, conditions, variables, tag=tag, title=title, body=body)
        return self._start(replace(task, period=checked_period(period)), if_exists)

    def start_upload(
        self,
        request: Mapping[str, Any],
        tag: str = "",
        title: str = "",
        body: str = "",
        *,
        retry: bool = True,
        conditions: str | Iterable[str] = "",
        if_exists: str | Existing = Existing.APPEND,
        variables: Mapping[str, Any] | None = None,
        uid: str = "",
    ) -> str:
        """Put a file into the ledger that is to be sent, and return the task's uid.

        `request` has ``url`` (or ``#alias/path``), ``file``, and perhaps ``method``, ``auth``, ``basic``, ``headers``,
        ``postExecute``, ``protocol``, ``priority`` and more, see docs/transfers.md. What the server has by then is not
        sent again, whatever ends in between. Raises InvalidTransferError; otherwise as `start_work`.
        """
        task = self._transfer("upload", request, conditions, variables, tag=tag, title=title, body=body)
        return self._start(replace(task, retry=bool(retry), uid=checked_uid(uid) if uid else task.uid), if_exists)

    def start_download(
        self,
        request: Mapping[str, Any],
        tag: str = "",
        title: str = "",
        body: str = "",
        *,
        retry: bool = True,
        conditions: str | Iterable[str] = "",
        if_exists: str | Existing = Existing.APPEND,
        variables: Mapping[str, Any] | None = None,
        uid: str = "",
    ) -> str:
        """Put a file into the ledger that is to be fetched, and return the task's uid.

        `request` has ``url``, and perhaps ``file``, ``digest``, ``overwrite`` and others as those of `start_upload`. A
        file that is named and there is replaced, once the new one is whole, unless ``overwrite`` is False.
        """
        task = self._transfer("download", request, conditions, variables, tag=tag, title=title, body=body)
        return self._start(replace(task, retry=bool(retry), uid=checked_uid(uid) if uid else task.uid), if_exists)

    def stop_work(self, tag: str) -> int:
        """Cancel what carries the tag, waiting or running; return how many tasks that are."""
        return self._woken(self.ledger.stop(tag=checked_text(tag, "tag", MOST_TAG)))

    def stop(self, uid: str) -> bool:
        """Cancel one task; return whether there was anything to cancel."""
        return can_be_uid(uid) and self._woken(self.ledger.stop(uid=uid)) > 0

    def retry(self, uid: str) -> None:
        """Run a task once more that failed or was cancelled, from its first handler, as if it had never failed.

        Raises UnknownTaskError; InvalidTaskError if it waits, runs or succeeded.
        """
        self.ledger.again(self.get(uid).uid)
        self._woken(1)

    def list(self, tag: str | None = None, state: State | str | None = None, limit: int = 1000) -> Tasks:
        """Return so many tasks at most, the newest first."""
        if not isinstance(limit, int) or not 0 < limit < 1 << 31:
            raise InvalidTaskError(f"{shown(limit)} is no number of tasks; one above zero is expected.")
        tag = None if tag is None else checked_text(tag, "tag", MOST_TAG)
        state = None if state is None else checked_choice(State, state, "state")
        return self.ledger.find(tag, state, limit)

    def get(self, uid: str) -> Task:
        """Return one task; raises UnknownTaskError."""
        if not can_be_uid(uid):
            raise UnknownTaskError(f"There is no task {shown(uid)}.")
        return self.ledger.get(uid)

    def progress(self, uid: str) -> dict[str, Any]:
        """Return how far a task is: ``{jobUid, state, progress, stepName}``, progress from 0 to 1 or None."""
        task = self.get(uid)
        return {"jobUid": task.uid, "state": task.state.value, "progress": task.progress, "stepName": task.step_name}

    def wait(self, uid: str, timeout: float | None = None) -> Task:
        """Return the task once it has ended, or as it is after `timeout` seconds."""
        until = math.inf if timeout is None else time.monotonic() + timeout
        pause = 0.005
        while True:
            task = self.get(uid)
            left = until - time.monotonic()
            if task.state.ended or left <= 0:
                return task
            time.sleep(min(pause, left))
            pause = min(1.5 * pause, 0.25)

    # --- what handlers use ---

    def add_alias(
        self,
        name: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        basic: tuple[str, str] | Mapping[str, str] | None = None,
        auth: str = "",
    ) -> None:
        """Keep an endpoint and what it takes to sign in under a name, for ``http`` handlers: ``GET #name/path``.

        `basic` is user and password, `auth` a whole ``Authorization`` header. Raises InvalidHandlersError.
        """
        self.ledger.put_alias(name, Alias.of(name, url, headers, basic, auth).as_dict())

    def alias(self, name: str) -> Alias:
        """Return the endpoint called `name`; raises UnknownNameError."""
        return Alias.from_dict(name, self.ledger.alias(name) if can_name_alias(name) else None)

    def connect_database(self, path: str | Path) -> None:
        """Let ``sql`` handlers of tasks that are started from now on work on this SQLite database."""
        self.database = str(Path(path).absolute())

    def handler_type(self, name: str) -> Callable[[_F], _F]:
        """Register the decorated function for handlers of type `name`."""
        return self.registry.handler_type(name)

    def command(self, name: str) -> Callable[[_F], _F]:
        """Register the decorated function as command `name`."""
        return self.registry.command(name)

    def function(self, name: str | _F) -> Any:
        """Register the decorated function for ``python`` handlers, under `name` or its own: ``@work.function``."""
        return self.registry.function(name)

    # --- running ---

    def runner(
        self,
        *,
        threads: int = 2,
        lease: float = 30,
        poll: float = 1,
        around: Callable[[], AbstractContextManager[Any]] | None = None,
    ) -> Runner:
        """Return a new runner for this ledger; see Runner."""
        runner = Runner(self, threads=threads, lease=lease, poll=poll, around=around)
        self._runners.add(runner)
        return runner

    def close(self) -> None:
        """Stop the runners of this process and close the connections."""
        for runner in list(self._runners):
            runner.stop()
        self.ledger.close()

    def lost(self, conditions: frozenset[Condition], *, wait: bool = True) -> frozenset[Condition]:
        """Return those of the conditions that don't hold on this machine; without `wait`, as far as that is known."""
        if self._conditions is None:
            # Only where tasks run that have some, so that others need no psutil.
            from .conditions import Conditions  # noqa: PLC0415

            self._conditions = Conditions()
        return self._conditions.lost(conditions, wait=wait)

    def _start(self, task: Task, if_exists: str | Existing) -> str:
        existing = checked_choice(Existing, if_exists, "value of if_exists")
        if existing is not Existing.APPEND and not task.tag:
            raise InvalidTaskError(f"{existing} needs a tag: it is about the tasks that carry the same.")
        uid = self.ledger.put(task, existing)
        self._woken(1)
        return uid

    def _woken(self, count: int) -> int:
        """Let the runners of this process look at once, if anything has changed."""
        if count:
            for runner in list(self._runners):
                runner.wake()
        return count

    def _task(
        self,
        handlers: Any,
        post_execute: Any,
        conditions: str | Iterable[str],
        variables: Mapping[str, Any] | None,
        **texts: str,
    ) -> Task:
        array, after = parse_handlers(handlers), parse_handlers(post_execute)
        warn_of_members((*array, *after))
        if not array and not after:
            raise InvalidTaskError("There is nothing to do: the array of handlers is empty.")
        return self._new(array, after, conditions, variables, texts)

    def _transfer(
        self,
        kind: TransferKind,
        request: object,
        conditions: str | Iterable[str],
        variables: Mapping[str, Any] | None,
        **texts: str,
    ) -> Task:
        kept, after, lane = parse_request(kind, request)
        task = self._new((kept,), parse_handlers(after), conditions, variables, texts)
        return replace(task, kind=kind, lane=lane)

    def _new(
        self,
        array: Handlers,
        after: Handlers,
        conditions: str | Iterable[str],
        variables: Mapping[str, Any] | None,
        texts: Mapping[str, str],
    ) -> Task:
        now = self.ledger.clock.wall()
        return Task(
            uid=secrets.token_hex(16),
            handlers=array,
            post_execute=after,
            tag=checked_text(texts["tag"], "tag", MOST_TAG),
            title=checked_text(texts["title"], "title", MOST_TITLE),
            body=checked_text(texts["body"], "body", MOST_TITLE),
            conditions=parse_conditions(conditions),
            variables=self._variables(variables),
            created=now,
            next_run=now,
        )

    def _variables(self, given: Mapping[str, Any] | None) -> dict[str, Any]:
        if given is not None and not (isinstance(given, Mapping) and all(isinstance(name, str) for name in given)):
            raise InvalidTaskError(f"{shown(given)} are no variables; give a dictionary of names and values.")
        # The task must find the database also after this process has ended.
        return {**({DATABASE: self.database} if self.database else {}), **(given or {})}
