"""``@Var``: the value of a variable, put where its name stands."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from ..errors import HandlerError, UnknownNameError, shown

# Not within a word: the @ of an e-mail address names no variable. Two of them stand for one.
_REFERENCE = re.compile(r"@@|(?<![\w@.+-])@([^\W\d]\w*)")


def resolve(text: str, variables: Mapping[str, Any]) -> Any:
    """Return the value of the variable that `text` names, of whatever type, or the text with all names replaced.

    Raises UnknownNameError for a name that is no variable; ``@@`` stands for a plain ``@``.
    """
    match = _REFERENCE.fullmatch(text)
    if match and match[1]:
        return value_of(match[1], variables)
    return _REFERENCE.sub(lambda m: as_text(value_of(m[1], variables)) if m[1] else "@", text)


def resolve_json(text: str, variables: Mapping[str, Any]) -> str:
    """Return a body with its names replaced: in the strings of JSON as JSON, in any other text as text."""
    try:
        template = json.loads(text)
    except (ValueError, RecursionError):
        return as_text(resolve(text, variables))
    if not isinstance(template, (dict, list)):
        return as_text(resolve(text, variables))
    replaced = _in_tree(template, variables)
    return text if replaced == template else json.dumps(replaced, ensure_ascii=False)


def value_of(name: str, variables: Mapping[str, Any]) -> Any:
    """Return a variable; raises UnknownNameError where there is none."""
    if name not in variables:
        raise UnknownNameError(
            f"There is no variable {shown(name)}.", remedy="Set it before, or write @@ where an @ is meant."
        )
    return variables[name]


def resolve_url(text: str, variables: Mapping[str, Any]) -> str:
    """Return an address with all names replaced, percent-encoded, so that a value is never more than one part of it."""
    return _REFERENCE.sub(lambda m: quote(as_text(value_of(m[1], variables)), safe="") if m[1] else "@", text)


def is_on(name: str, variables: Mapping[str, Any]) -> bool:
    """Whether a flag is there, such as ``BreakHandlersIfError``, and does not say that it is none."""
    return str(variables.get(name, False)).strip().lower() not in ("false", "0", "no")


def check_answer(value: Any) -> None:
    """Raise HandlerError for what can't be written down, such as an object of some class."""
    if value is None or isinstance(value, str):
        return
    try:
        json.dumps(value, default=_written)
    except (TypeError, ValueError, RecursionError) as error:
        raise HandlerError(f"its answer can't be kept: {error}") from None


def as_text(value: Any) -> str:
    """Return a value as text: a string as it is, nothing for None, all else as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _written(value: Any) -> str:
    text, kind = str(value), vars(object)["__str__"]
    if type(value).__str__ is kind and text.startswith("<"):
        raise TypeError(f"it is {shown(value)}; text, numbers, lists and dictionaries are taken")
    return text


def _in_tree(value: Any, variables: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        return {key: _in_tree(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [_in_tree(item, variables) for item in value]
    return resolve(value, variables) if isinstance(value, str) else value
