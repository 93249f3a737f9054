"""Tasks as rows of the ledger, and back."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from sqlalchemy import RowMapping

from ..errors import InvalidTaskError, LedgerVersionError, WorkError, shown
from .lanes import queue_in
from .tables import ROW_VERSION
from .task import MOST_JSON, State, Task, format_conditions, mask_of, parse_conditions

_JSON = ("handlers", "post_execute", "variables", "saved")
_PLAIN = {f.name for f in fields(Task)} - {*_JSON, "conditions", "state"}


def dump(value: Any, what: str) -> str:
    """Return JSON; raises InvalidTaskError for what can't be written as such, or is too long."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        # PostgreSQL takes no NUL, and neither takes half a character.
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidTaskError(f"The {what} can't be kept as JSON: {error}.") from None
    if len(text) > MOST_JSON:
        raise InvalidTaskError(f"The {what} are {len(text)} characters of JSON; {MOST_JSON} are allowed.")
    return text


def to_row(task: Task, now: float) -> dict[str, Any]:
    """Return the columns of a task that is new and waits."""
    return {
        **{name: getattr(task, name) for name in _PLAIN},
        **{name: dump(getattr(task, name), name) for name in _JSON},
        "version": ROW_VERSION,
        "conditions": format_conditions(task.conditions),
        "state": task.state,
        "waiting": queue_in(task.lane, mask_of(task.conditions)),
        "since": now,
        "owner": "",
        "boot": "",
    }


def read_row(row: RowMapping) -> Task:
    """Return the task of a row; raises LedgerVersionError if it is from the future, InvalidTaskError if broken."""
    if row["version"] > ROW_VERSION:
        raise LedgerVersionError(f"Task {row['uid']} has version {row['version']}; {ROW_VERSION} is known here.")
    try:
        state = State(row["state"])
    except ValueError:
        raise InvalidTaskError(f"Task {row['uid']} is in a state that there is not: {shown(row['state'])}.") from None
    values = {name: row[name] for name in _PLAIN}
    return Task(
        **values,
        state=state,
        conditions=parse_conditions(row["conditions"]),
        handlers=_handlers(row, "handlers"),
        post_execute=_handlers(row, "post_execute"),
        variables=_object(row, "variables"),
        saved=_object(row, "saved"),
    )


def show_row(row: RowMapping) -> Task:
    """Return the task of a row as far as it can be read; its `error` says why, if that is not all."""
    try:
        return read_row(row)
    except WorkError as error:
        state = State(row["state"]) if row["state"] in State.__members__ else State.BLOCKED
        names = ("uid", "tag", "title", "body", "kind", "attempt", "created", "next_run", "started", "ended")
        return Task(**{name: row[name] for name in names}, state=state, error=f"{error} {error.remedy}")


def _load(row: RowMapping, name: str) -> Any:
    try:
        return json.loads(row[name])
    except (ValueError, RecursionError):
        raise InvalidTaskError(f"Task {row['uid']} has broken JSON in its {name}.") from None


def _handlers(row: RowMapping, name: str) -> tuple[dict[str, Any], ...]:
    value = _load(row, name)
    if not isinstance(value, list) or not all(isinstance(handler, dict) for handler in value):
        raise InvalidTaskError(f"Task {row['uid']} has {name} that are no array of handlers.")
    return tuple(value)


def _object(row: RowMapping, name: str) -> dict[str, Any]:
    value = _load(row, name)
    if not isinstance(value, dict):
        raise InvalidTaskError(f"Task {row['uid']} has {name} that are no object.")
    return value
