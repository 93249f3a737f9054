"""Structured fields of HTTP, RFC 9651: of them booleans, integers, and dictionaries of these and of bytes.

Values of all types are understood where they may stand, and parameters are read over, so that what is correct but of no
use here does not make a field incorrect.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64encode
from collections.abc import Mapping

from ..errors import InvalidRequestError, shown

LARGEST = 999_999_999_999_999
"""The largest integer that a field can have, section 3.3.1."""

Value = bool | int | bytes | str
"""A member of a dictionary; those of other types are their text."""

# The grammar of section 4.2. Groups are atomic: no text makes them try again.
_KEY = r"[a-z*][a-z0-9_\-.*]*+"
_BARE = r"""(?>
    -?[0-9]{1,12}\.[0-9]{1,3}(?![0-9.])                        # decimal
  | -?[0-9]{1,15}(?![0-9.])                                    # integer
  | "(?>[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"                # string
  | [A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*+                   # token
  | :[A-Za-z0-9+/=]*+:                                         # bytes
  | \?[01]                                                     # boolean
  | @-?[0-9]{1,15}(?![0-9.])                                   # date
  | %"(?>[\x20\x21\x23\x24\x26-\x7e]|%[0-9a-f]{2})*"           # display string
)"""
_PARAMETERS = rf"(?>;[ ]*{_KEY}(?:={_BARE})?)*+"
_INNER_LIST = rf"\([ ]*+(?>{_BARE}{_PARAMETERS}(?:[ ]++|(?=\))))*+\)"
_ITEM = re.compile(rf"[ ]*+(?P<value>{_BARE}){_PARAMETERS}[ ]*+", re.VERBOSE)
_MEMBER = re.compile(
    rf"(?P<key>{_KEY})(?:=(?P<value>{_BARE}|{_INNER_LIST}))?{_PARAMETERS}[ \t]*+(?P<more>,[ \t]*+)?", re.VERBOSE
)
_INTEGER = re.compile(r"-?[0-9]+")


def read_boolean(text: str) -> bool:
    """Return the boolean in a field; raises InvalidRequestError for anything else."""
    value = _read_item(text)
    if not isinstance(value, bool):
        raise InvalidRequestError(f"{shown(text)} is not a boolean as in RFC 9651; write ?1 or ?0.")
    return value


def read_integer(text: str) -> int:
    """Return the integer in a field; raises InvalidRequestError for anything else."""
    value = _read_item(text)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidRequestError(f"{shown(text)} is not an integer as in RFC 9651, of at most 15 digits.")
    return value


def read_dictionary(text: str) -> dict[str, Value]:
    """Return the members of a dictionary, the last of those with one key; raises InvalidRequestError for none."""
    members: dict[str, Value] = {}
    rest = text.strip(" ")
    position, more = 0, False
    while position < len(rest) or more:
        match = _MEMBER.match(rest, position)
        if match is None or (match["more"] is None and match.end() < len(rest)):
            raise InvalidRequestError(f"{shown(rest[position:])} does not belong into a dictionary as in RFC 9651.")
        position, more = match.end(), match["more"] is not None
        # A key alone is true.
        members[match["key"]] = True if match["value"] is None else _value(match["value"])
    return members


def write_item(value: bool | int | bytes) -> str:
    """Return a value as a field has it; raises InvalidRequestError for an integer of more than 15 digits."""
    if isinstance(value, bool):
        return "?1" if value else "?0"
    if isinstance(value, bytes):
        return f":{b64encode(value).decode()}:"
    if abs(value) > LARGEST:
        raise InvalidRequestError(f"{shown(value)} has more than the 15 digits that RFC 9651 allows.")
    return str(value)


def write_dictionary(members: Mapping[str, bool | int | bytes]) -> str:
    """Return a dictionary as a field has it; keys must be as RFC 9651 has them."""
    return ", ".join(key if value is True else f"{key}={write_item(value)}" for key, value in members.items())


def _read_item(text: str) -> Value:
    match = _ITEM.fullmatch(text)
    if match is None:
        raise InvalidRequestError(f"{shown(text)} is not an item as in RFC 9651.")
    return _value(match["value"])


def _value(text: str) -> Value:
    if text.startswith("?"):
        return text == "?1"
    if _INTEGER.fullmatch(text):
        return int(text)
    if text.startswith(":"):
        return _bytes(text.strip(":"))
    return text


def _bytes(text: str) -> bytes:
    try:
        # Padding may be left out, section 4.2.7.
        return binascii.a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)
    except binascii.Error:
        raise InvalidRequestError(f":{text[:60]}: is not base64.") from None
