"""One SQL statement on a SQLite database, with bound parameters, in a transaction of its own."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any, TypeVar

from ..errors import SqlHandlerError, shown
from .variables import value_of

_T = TypeVar("_T")

WAIT_SECONDS = 30
"""How long another program may hold the database before the statement fails."""
MOST_RESULT = 16 << 20
"""Largest answer of a SELECT, in characters of JSON."""

_SLICE_MS = 200
_STEPS_PER_CHECK = 20_000
_BATCH = 1000

# What is not looked into: texts, quoted names, comments. Then the places for values.
_TOKEN = re.compile(
    r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\[\]]*\]|--[^\n]*|/\*.*?(?:\*/|\Z)"""
    r"|(?P<numbered>\?\d+)|(?P<place>\?)|@(?P<name>[^\W\d]\w*)|(?P<other>[:$][^\W\d]\w*)",
    re.DOTALL,
)

# A column without a name of its own is called as it is written, with our names for its places.
_PLACE = re.compile(r":(?:p_\d+|v_(?P<name>\w+))")


def execute(
    path: str,
    statement: str,
    parameters: Any,
    variables: Mapping[str, Any],
    *,
    check: Callable[[], None],
    report: Callable[[float], None] | None = None,
) -> str | None:
    """Run the statement for each row of `parameters`, all of them or none; return the rows of a SELECT as JSON.

    `check` is called often and stops the statement by raising. Raises SqlHandlerError, and UnknownNameError for an
    ``@Var`` that there is not.
    """
    text, places, names = _prepared(statement)
    named = {f"v_{name}": _bindable(value_of(name, variables)) for name in names}
    rows = _rows(parameters, places)
    try:
        with closing(_connect(path)) as database:
            return _run(database, text, [{**named, **row} for row in rows], check, report)
    except (sqlite3.Error, sqlite3.Warning, OverflowError, ValueError) as error:
        raise SqlHandlerError(f"{type(error).__name__}: {error}") from None


def _connect(path: str) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=0, isolation_level=None)
    database.execute(f"PRAGMA busy_timeout = {_SLICE_MS}")
    return database


def _run(
    database: sqlite3.Connection,
    text: str,
    rows: Sequence[Mapping[str, Any]],
    check: Callable[[], None],
    report: Callable[[float], None] | None,
) -> str | None:
    raised: list[BaseException] = []
    database.set_progress_handler(_interrupter(check, raised), _STEPS_PER_CHECK)
    try:
        _begin(database, text, check)
        result = None
        for number, row in enumerate(rows):
            result = _retried(partial(_answer, database, text, row), check)
            if number % _BATCH == 0:
                check()
                if report is not None and len(rows) > 1:
                    report(number / len(rows))
        _retried(lambda: database.execute("COMMIT") if database.in_transaction else None, check)
    except sqlite3.OperationalError:
        if raised:
            raise raised[0] from None
        raise
    return result


def _interrupter(check: Callable[[], None], raised: list[BaseException]) -> Callable[[], int]:
    """Return what SQLite calls now and then: an exception of `check` interrupts it, and is kept."""

    def interrupt() -> int:
        try:
            check()
        except BaseException as stopped:  # noqa: BLE001 - SQLite would swallow it; it is raised again
            raised.append(stopped)
        return len(raised)

    return interrupt


def _begin(database: sqlite3.Connection, text: str, check: Callable[[], None]) -> None:
    """Begin a transaction, except for what must stand outside of one."""
    first = re.match(r"(?:\s|--[^\n]*(?:\n|\Z)|/\*.*?\*/)*([A-Za-z]*)", text, re.DOTALL)
    word = first[1].upper() if first else ""
    if word in ("VACUUM", "PRAGMA", "ATTACH", "DETACH"):
        return
    if word in ("BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE"):
        raise SqlHandlerError(f"{word} is not taken: each statement is a transaction of its own.")
    start = "BEGIN" if word in ("SELECT", "VALUES", "EXPLAIN") else "BEGIN IMMEDIATE"
    _retried(lambda: database.execute(start), check)


def _retried(action: Callable[[], _T], check: Callable[[], None]) -> _T:
    """Do something that another program's lock may forbid for a while."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            busy = (error.sqlite_errorcode & 0xFF) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            if not busy or time.monotonic() > deadline:
                raise
            check()


def _answer(database: sqlite3.Connection, text: str, row: Mapping[str, Any]) -> str | None:
    cursor = database.execute(text, row)
    if cursor.description is None:
        return None
    names = _distinct([_PLACE.sub(_as_written, column[0]) for column in cursor.description])
    parts: list[str] = []
    length = 0
    for found in cursor:
        values = {name: _readable(value) for name, value in zip(names, found, strict=True)}
        parts.append(json.dumps(values, ensure_ascii=False))
        length += len(parts[-1]) + 2
        if length > MOST_RESULT:
            raise SqlHandlerError(f"The answer is longer than {MOST_RESULT} characters.", remedy="Ask for fewer rows.")
    return f"[{', '.join(parts)}]"


def _as_written(place: re.Match[str]) -> str:
    return f"@{place['name']}" if place["name"] else "?"


def _distinct(names: Sequence[str]) -> list[str]:
    """Return the names with a number behind those that occur again, so that no column is lost."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name}:{seen[name] - 1}")
    return result


def _readable(value: Any) -> Any:
    return b64encode(value).decode() if isinstance(value, bytes) else value


def _prepared(statement: str) -> tuple[str, int, list[str]]:
    """Return the statement with a name for each place, how many ``?`` it has, and the variables that it names."""
    places = 0
    names: list[str] = []

    def place(match: re.Match[str]) -> str:
        nonlocal places
        if match["numbered"] or match["other"]:
            raise SqlHandlerError(f"{shown(match[0])} is not taken in a statement; write ? or @Var.")
        if match["place"]:
            places += 1
            return f":p_{places}"
        if match["name"]:
            names.append(match["name"])
            return f":v_{match['name']}"
        return match[0]

    return _TOKEN.sub(place, statement), places, names


def _rows(parameters: Any, places: int) -> list[dict[str, Any]]:
    if not places:
        return [{}]
    return [dict(_row(row, places)) for row in _listed(parameters)]


def _listed(parameters: Any) -> list[Any]:
    """Return the rows in an array, in an array of arrays, in the JSON of one, or in a text with commas."""
    if isinstance(parameters, str):
        try:
            parameters = json.loads(parameters) if parameters.lstrip().startswith(("[", "{")) else parameters
        except (ValueError, RecursionError):
            raise SqlHandlerError(f"SQLParameter is {shown(parameters)}, which is not JSON.") from None
    if not isinstance(parameters, (list, tuple)):
        raise SqlHandlerError(f"SQLParameter must be an array to fill the ?, not {shown(parameters)}.")
    nested = [isinstance(row, (list, tuple)) for row in parameters]
    if any(nested) and not all(nested):
        raise SqlHandlerError("SQLParameter mixes arrays and single values.")
    return list(parameters) if all(nested) else [parameters]


def _row(row: Sequence[Any], places: int) -> Iterator[tuple[str, Any]]:
    if len(row) != places:
        raise SqlHandlerError(f"The statement has {places} ?, and SQLParameter {len(row)} values for them.")
    for number, value in enumerate(row, 1):
        yield f"p_{number}", _bindable(value)


def _bindable(value: Any) -> Any:
    if isinstance(value, (dict, list, tuple)):
        return json.dumps(value, ensure_ascii=False)
    return value if isinstance(value, (str, bytes, int, float, type(None))) else str(value)
