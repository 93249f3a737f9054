"""The file name in Content-Disposition, RFC 6266."""

from __future__ import annotations

import re
from contextlib import suppress
from urllib.parse import quote, unquote_to_bytes

# One parameter: a name, and a value that is quoted or, more than the RFC allows, anything up to the next semicolon.
# Nothing that matched is tried again in another way, so that no text takes long.
_PARAMETER = re.compile(
    r"""[ \t]*+;[ \t]*+(?P<name>[!#$%&'*+\-.^_`|~0-9A-Za-z]++)[ \t]*+=[ \t]*+
        (?:"(?P<quoted>(?>[^"\\]|\\.)*+)"[ \t]*+|(?P<plain>[^;"]*+))(?=;|$)""",
    re.VERBOSE,
)
_QUOTED_PAIR = re.compile(r"\\(.)")
# RFC 8187: charset'language'percent-encoded.
_EXTENDED = re.compile(r"(?P<charset>utf-8|iso-8859-1)'[A-Za-z0-9-]*'(?P<value>[^'\s]*)", re.IGNORECASE)
_CHARSETS = {"utf-8": "utf-8", "iso-8859-1": "latin-1"}
_ASCII = re.compile(r"[ !#-\[\]-~]*")


def file_name(disposition: str) -> str:
    """Return the file name in the header: filename* before filename (section 4.3), '' where there is none.

    It is for display, so of a header that is not as it should be only that part is lost.
    """
    position = disposition.find(";")
    names: dict[str, str] = {}
    while position >= 0 and (match := _PARAMETER.match(disposition, position)):
        quoted = match["quoted"]
        value = match["plain"].strip() if quoted is None else _QUOTED_PAIR.sub(r"\1", quoted)
        names.setdefault(match["name"].lower(), value)
        position = match.end()
    return _extended(names.get("filename*", "")) or _plain(names.get("filename", ""))


def with_file_name(name: str) -> str:
    """Return the header that carries a file name, as the draft recommends it for uploads: inline."""
    if not name:
        return "inline"
    if _ASCII.fullmatch(name) and name.strip() == name:
        return f'inline; filename="{name}"'
    return f"inline; filename*=UTF-8''{quote(name, safe='', errors='replace')}"


def _extended(value: str) -> str:
    match = _EXTENDED.fullmatch(value)
    if match is None:
        return ""
    with suppress(UnicodeError):
        return unquote_to_bytes(match["value"]).decode(_CHARSETS[match["charset"].lower()])
    return ""


def _plain(value: str) -> str:
    # Headers come as Latin-1, but many clients send UTF-8; what is not UTF-8 by chance is what it was meant to be.
    with suppress(UnicodeError):
        return value.encode("latin-1").decode()
    return value
