"""What callers may give for a task."""

from __future__ import annotations

from typing import TypeVar

from ..errors import InvalidTaskError, shown
from .task import LONGEST_PERIOD, MOST_UID, SHORTEST_PERIOD, Existing, State

_E = TypeVar("_E", State, Existing)


def checked_text(value: object, what: str, longest: int) -> str:
    """Return a text; raises InvalidTaskError for one that a ledger can't keep, or of more than `longest` characters."""
    if not isinstance(value, str) or "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise InvalidTaskError(f"{shown(value)} is no {what}; text is expected.")
    if len(value) > longest:
        raise InvalidTaskError(f"The {what} {shown(value)} has {len(value)} characters; {longest} are allowed.")
    return value


def can_be_uid(uid: object) -> bool:
    """Whether a task can have such a uid."""
    return isinstance(uid, str) and uid.isascii() and uid.replace("-", "").isalnum() and len(uid) <= MOST_UID


def checked_uid(uid: str) -> str:
    """Return a uid of the host's own; raises InvalidTaskError."""
    if not can_be_uid(uid):
        raise InvalidTaskError(f"{shown(uid)} is no uid: up to {MOST_UID} letters, digits and '-' are.")
    return uid


def checked_period(period: object) -> float:
    """Return the seconds of a period in minutes; raises InvalidTaskError."""
    if isinstance(period, bool) or not isinstance(period, (int, float)) or not 0 < period <= LONGEST_PERIOD / 60:
        raise InvalidTaskError(f"{shown(period)} is no period; a number of minutes, up to ten years, is expected.")
    if period * 60 < SHORTEST_PERIOD:
        raise InvalidTaskError(f"A period of {period} minutes is too short; {SHORTEST_PERIOD // 60} are the least.")
    return period * 60.0


def checked_choice(kind: type[_E], value: object, what: str) -> _E:
    """Return the member of an enumeration, by its name in any case; raises InvalidTaskError."""
    try:
        return kind(str(value).upper())
    except ValueError:
        raise InvalidTaskError(f"{shown(value)} is no {what}; there are {', '.join(kind)}.") from None
