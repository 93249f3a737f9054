"""Arrays of handlers: run one after the other, with what they hand on to each other, and what becomes of failures."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock, Thread, current_thread
from traceback import format_exception
from typing import TYPE_CHECKING, Any

from ...errors import Error, HandlerError, InvalidHandlersError, shown
from ...transfer.addresses import scrubbed
from ..aliases import without_literals
from ..context import Outcome, Stopped, end_if_forked, is_ctrl_c
from ..names import BREAK, BREAK_IF_ERROR, ERROR_MESSAGE, RESULT_ERROR, RESULT_MESSAGE
from ..simpleui import HashMap
from ..variables import as_text, check_answer, is_on
from .registry import Registry
from .step import Step

if TYPE_CHECKING:
    from ..context import Context

ACTIONS = ("run", "runasync", "runprogress")
MOST_HANDLERS = 1000
DEEPEST = 8
"""How deeply ``postExecute`` arrays may stand in each other."""
MOST_BRANCHES = 16
"""How many handlers of one array ``runasync`` lets run at once; one more waits until another has ended."""
MOST_NAME = 80
MOST_TEXT = 2000
_LOOK_SECONDS = 0.1

_log = logging.getLogger(__name__)

Handlers = tuple[dict[str, Any], ...]


def parse_handlers(value: object, depth: int = 0) -> Handlers:
    """Return the handlers in a list, or in a JSON string of one; nothing is none of them.

    Raises InvalidHandlersError when it is not one, or when arrays stand too deeply in each other. Whether types and
    names are known is only found out when they run, for that may be in another process.
    """
    found = _loaded(value)
    if found and depth > DEEPEST:
        raise InvalidHandlersError(f"postExecute stands in postExecute more than {DEEPEST} times.")
    if len(found) > MOST_HANDLERS:
        raise InvalidHandlersError(f"There are {len(found)} handlers in one array; {MOST_HANDLERS} are allowed.")
    for number, handler in enumerate(found):
        _check_shape(number, handler)
        parse_handlers(handler.get("postExecute"), depth + 1)
    return tuple(dict(handler) for handler in found)


def run_handlers(handlers: Iterable[Mapping[str, Any]], context: Context, registry: Registry) -> Outcome:
    """Run the array; raises nothing but Stopped."""
    array = _Array(context, registry)
    array.run_all(handlers, context.variables)
    array.join()
    return array.outcome()


@dataclass
class _Array:
    """The run of an array and of all that hangs on it."""

    context: Context
    registry: Registry
    failures: list[HandlerError] = field(default_factory=list)
    branches: list[_Branch] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)
    pid: int = field(default_factory=os.getpid)

    def outcome(self) -> Outcome:
        result = as_text(self.context.variables.get(RESULT_MESSAGE, ""))
        waits = [error.retry_after for error in self.failures if error.retry_after is not None]
        error = str(self.failures[0]) if self.failures else ""
        error += f" (and {len(self.failures) - 1} more)" if len(self.failures) > 1 else ""
        return Outcome(result, error, bool(self.failures), max(waits, default=None))

    def run_all(self, handlers: Iterable[Mapping[str, Any]], variables: dict[str, Any], depth: int = 0) -> None:
        """Run the handlers of an array, each with its ``postExecute``, until one breaks it."""
        variables.pop(BREAK, None)
        for handler in handlers:
            if isinstance(handler, Mapping) and handler.get("action") == "runasync":
                self._start(handler, dict(variables), depth)
            elif self.run_one(handler, variables, depth):
                return

    def run_one(self, handler: Mapping[str, Any], variables: dict[str, Any], depth: int) -> bool:
        """Run a handler and its ``postExecute``; return whether its array ends here."""
        error = self._run_type(handler, variables)
        end_if_forked(self.pid)
        if error:
            with self.lock:
                self.failures.append(error)
            variables[RESULT_MESSAGE] = ""
        text = str(error or "")
        variables.update({RESULT_ERROR: text, ERROR_MESSAGE: text})
        ends = is_on(BREAK, variables) or (bool(error) and is_on(BREAK_IF_ERROR, variables))
        try:
            post = parse_handlers(handler.get("postExecute"), depth + 1)
        except (InvalidHandlersError, AttributeError):
            return ends  # was reported by _run_type
        self.run_all(post, variables, depth + 1)
        return ends

    def join(self) -> None:
        """Wait for what ``runasync`` started; a run that must end does not, and its branches stop by themselves."""
        while alive := self._alive():
            alive[0].join(_LOOK_SECONDS)
            self.context.check()

    def _alive(self) -> list[_Branch]:
        # Branches start branches, so several threads come here.
        with self.lock:
            self.branches = [branch for branch in self.branches if branch.is_alive()]
            return self.branches

    def _start(self, handler: Mapping[str, Any], variables: dict[str, Any], depth: int) -> None:
        while len(alive := self._alive()) >= MOST_BRANCHES:
            if isinstance(current_thread(), _Branch):
                # Branches that wait for each other's places would wait for ever.
                self.run_one(handler, variables, depth)
                return
            alive[0].join(_LOOK_SECONDS)
            self.context.check()
        branch = _Branch(self, handler, variables, depth)
        with self.lock:
            branch.start()
            self.branches.append(branch)

    def _run_type(self, handler: Mapping[str, Any], variables: dict[str, Any]) -> HandlerError | None:
        """Run one handler without its ``postExecute``; return what went wrong, whatever it was."""
        name = name_of(handler)
        try:
            parse_handlers([handler])
            step = Step(handler, self.context, variables, handler["action"] == "runprogress")
            step.report(0, name)
            result = self.registry.find_type(handler["type"])(step)
            if not isinstance(result, HashMap):
                check_answer(result)
            step.report(1, name)
        except Error as error:
            _log.warning("task %s: %s", self.context.task.uid, named := _named(error, name))
            return named
        except Stopped:
            raise
        except BaseException as error:
            if is_ctrl_c(error):
                raise
            trace = scrubbed("".join(format_exception(error)))
            _log.error("task %s: %s failed\n%s", self.context.task.uid, name, trace)
            return HandlerError(f"{name}: {type(error).__name__}: {_text_of(error)}")
        if result is not None and not isinstance(result, HashMap):
            variables[RESULT_MESSAGE] = result
        return None


class _Branch(Thread):
    """A handler that ``runasync`` started, with its ``postExecute``; its variables are a copy."""

    def __init__(self, array: _Array, handler: Mapping[str, Any], variables: dict[str, Any], depth: int) -> None:
        super().__init__(daemon=True, name=name_of(handler))
        self._array, self._handler, self._variables, self._depth = array, handler, variables, depth

    def run(self) -> None:
        # Stopped is raised again by whoever waits for this thread: the run's check() keeps raising it.
        with suppress(Stopped):
            self._array.run_one(self._handler, self._variables, self._depth)


def name_of(handler: object) -> str:
    """Return what a handler is called in logs, errors and lists: its type and what it does, without secrets."""
    if not isinstance(handler, Mapping):
        return "handler"
    method = str(handler.get("method", ""))
    if handler.get("type") == "set":  # values may be anything
        method = ";".join(part.partition("=")[0].strip() for part in method.split(";"))
    elif handler.get("type") == "http":  # and so may be a body
        method = " ".join(method[:MOST_TEXT].split()[:2])
    elif handler.get("type") == "sql":
        method = without_literals(method[:MOST_TEXT])
    text = scrubbed(" ".join(f"{handler.get('type', '')} {method[:MOST_TEXT]}".split()))
    return text[:MOST_NAME] + ("…" if len(text) > MOST_NAME else "")


def _text_of(error: BaseException) -> str:
    # Cut once more before: what is longer than that need not be looked through.
    return scrubbed(str(error)[: 5 * MOST_TEXT])[:MOST_TEXT]


def _loaded(value: object) -> list[Any]:
    if isinstance(value, (str, bytes)):
        try:
            value = json.loads(value) if value.strip() else None
        except (ValueError, RecursionError):
            raise InvalidHandlersError(f"{shown(scrubbed(str(value)))} is not the JSON of handlers.") from None
    if value is None:
        return []
    if isinstance(value, Mapping):
        return [value]
    if not isinstance(value, (list, tuple)):
        raise InvalidHandlersError(f"A list of handlers is expected, not {shown(value)}.")
    return list(value)


def _check_shape(number: int, handler: object) -> None:
    if not isinstance(handler, Mapping):
        raise InvalidHandlersError(f"Handler {number + 1} is {shown(handler)}, not an object.")
    for member in ("action", "type", "method"):
        if not isinstance(handler.get(member), str):
            raise InvalidHandlersError(
                f"Handler {number + 1} has no text as {member!r}, but {shown(handler.get(member))}."
            )
    if handler["action"] not in ACTIONS:
        action = shown(handler["action"])
        raise InvalidHandlersError(f"{action} is no action of a handler; there are {', '.join(ACTIONS)}.")


def _named(error: Error, name: str) -> HandlerError:
    """Return the error with the handler's name in front of its text."""
    kind = type(error) if isinstance(error, HandlerError) else HandlerError
    text = f"{name}: {_text_of(error)}"
    return kind(text, retry_after=error.retry_after)
