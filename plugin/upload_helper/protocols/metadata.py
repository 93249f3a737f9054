"""Upload-Metadata: what a client says of a file beside its size (tus.io/protocols/resumable-upload, section Creation).

Resumable Uploads for HTTP has no such header, but clients that speak both send it there as well.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping

from ..errors import InvalidRequestError, shown

LONGEST = 16 << 10
"""Characters of an Upload-Metadata header."""

_KEY = re.compile(r"[\x21-\x2b\x2d-\x7e]+")
# Python's decoder leaves padding at the wrong place and surplus letters to chance.
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_NAMES = ("filename", "name")


def read_metadata(text: str) -> dict[str, bytes]:
    """Return the values in an Upload-Metadata header by their keys; raises InvalidRequestError."""
    if len(text) > LONGEST:
        raise InvalidRequestError(f"Upload-Metadata has {len(text)} characters; {LONGEST} are allowed.")
    values: dict[str, bytes] = {}
    for pair in text.split(",") if text.strip(" \t") else ():
        key, _, value = pair.strip(" \t").partition(" ")
        if not _KEY.fullmatch(key):
            raise InvalidRequestError(
                f"Upload-Metadata has the key {shown(key)}; it must be of ASCII letters, without a space or comma."
            )
        if key in values:
            raise InvalidRequestError(f"Upload-Metadata has the key {shown(key)} twice.")
        values[key] = from_base64(f"Upload-Metadata has for {shown(key)}", value.strip(" "))
    return values


def write_metadata(values: Mapping[str, bytes | str]) -> str:
    """Return the Upload-Metadata header with these values; text goes as UTF-8."""
    pairs = []
    for key, value in values.items():
        encoded = base64.b64encode(value.encode() if isinstance(value, str) else value).decode()
        pairs.append(f"{key} {encoded}" if encoded else key)
    return ",".join(pairs)


def read_texts(text: str) -> dict[str, str]:
    """Return the values in an Upload-Metadata header as text; what is not UTF-8 in them is replaced by U+FFFD."""
    return {key: value.decode(errors="replace") for key, value in read_metadata(text).items()}


def file_name(text: str) -> str:
    """Return the file's name as an Upload-Metadata header gives it, '' where it does not.

    The protocol names no key for it; most clients write ``filename``, and Uppy writes ``name`` as well.
    """
    texts = read_texts(text)
    return next((texts[key] for key in _NAMES if texts.get(key)), "")


def from_base64(what: str, text: str) -> bytes:
    """Return the bytes that `text` encodes; raises InvalidRequestError that begins with `what`."""
    if not _BASE64.fullmatch(text):
        raise InvalidRequestError(f"{what} {shown(text)}, which is not base64.")
    return base64.b64decode(text)
