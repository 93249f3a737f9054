"""The protocol of FilePond 4: a file comes in chunks that are appended, or whole in one form.

Headers are given with names in lower case and with the bytes as WSGI shows them, one letter for each (PEP 3333).
Source: FilePond, "Server", and its client's own code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

from ..errors import InvalidRequestError, shown
from ..upload import LARGEST_INTEGER, LONGEST_NAME, UNKNOWN_SIZE, is_uid

CHUNK_TYPE = "application/offset+octet-stream"
LONGEST_ID = 100
"""Bytes that the body of a request to revert may have; a transfer id is shorter."""

_DIGITS = re.compile(r"[0-9]{1,19}", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

Kind = Literal["load", "restore", "fetch"]
KINDS: tuple[Kind, ...] = ("load", "restore", "fetch")
"""What the query of a GET may ask for."""


@dataclass(frozen=True)
class Create:
    """POST: a file is going to come in chunks. The answer is its transfer id as plain text."""

    length: int
    """Bytes in the whole file."""

    @classmethod
    def parse(cls, headers: Mapping[str, str]) -> Self:
        """Read the headers; raises InvalidRequestError."""
        return cls(_number(headers, "upload-length"))

    def build(self) -> dict[str, str]:
        """Return the headers."""
        return {"upload-length": str(self.length)}


@dataclass(frozen=True)
class Patch:
    """PATCH with ``?patch=<transfer id>``: one chunk. After an exact multiple of its size an empty one follows."""

    transfer_id: str
    offset: int
    length: int
    """Bytes in the whole file."""
    file_name: str

    @classmethod
    def parse(cls, headers: Mapping[str, str], query: Mapping[str, str]) -> Self:
        """Read headers and query; raises InvalidRequestError."""
        return cls(
            query.get("patch", ""),
            _number(headers, "upload-offset"),
            _number(headers, "upload-length"),
            _utf8(headers.get("upload-name", "").strip(" \t")),
        )

    def build(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return headers and query; raises InvalidRequestError for a name that no header can carry."""
        try:
            name = self.file_name.encode().decode("latin-1")
        except UnicodeEncodeError:
            name = "\0"
        if _CONTROL.search(name) or name != name.strip():
            raise InvalidRequestError(f"The name {shown(self.file_name)} can't stand in a header.")
        return {
            "content-type": CHUNK_TYPE,
            "upload-offset": str(self.offset),
            "upload-length": str(self.length),
            "upload-name": name,
        }, {"patch": self.transfer_id}


@dataclass(frozen=True)
class Standing:
    """The answer to HEAD with ``?patch=<transfer id>``, and to a PATCH."""

    offset: int
    """Bytes that are kept: a chunk that begins below it counts as sent, so it must be where a chunk ends."""
    length: int = UNKNOWN_SIZE

    @classmethod
    def parse(cls, headers: Mapping[str, str]) -> Self:
        """Read the headers; raises InvalidRequestError."""
        known = "upload-length" in headers
        return cls(_number(headers, "upload-offset"), _number(headers, "upload-length") if known else UNKNOWN_SIZE)

    def build(self) -> dict[str, str]:
        """Return the headers."""
        headers = {"upload-offset": str(self.offset), "cache-control": "no-store"}
        return headers if self.length == UNKNOWN_SIZE else {**headers, "upload-length": str(self.length)}


@dataclass(frozen=True)
class Ask:
    """GET with ``?load=``, ``?restore=`` (a transfer id) or ``?fetch=`` (a URL): the file is the answer."""

    kind: Kind
    source: str

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> Self:
        """Read the query; raises InvalidRequestError."""
        kinds: list[Kind] = [kind for kind in KINDS if kind in query]
        if len(kinds) != 1:
            raise InvalidRequestError(f"The query asks for {len(kinds)} things; ask for one of {', '.join(KINDS)}.")
        return cls(kinds[0], query[kinds[0]])

    def build(self) -> dict[str, str]:
        """Return the query."""
        return {self.kind: self.source}


def parse_id(body: bytes) -> str:
    """Return the transfer id that is the body of an answer to a POST, or of a DELETE; '' if it is none."""
    text = body.decode("ascii", "replace").strip()
    return text if is_uid(text) else ""


def build_id(transfer_id: str) -> bytes:
    """Return the body that is a transfer id."""
    return transfer_id.encode("ascii")


def is_form(part_name: str, fields: Mapping[str, str]) -> bool:
    """Say whether a form with a file is FilePond's: it sends the metadata as JSON under the name of the file part."""
    try:
        return isinstance(json.loads(fields.get(part_name, "")), dict)
    except (ValueError, RecursionError):
        return False


def _number(headers: Mapping[str, str], name: str) -> int:
    text = headers.get(name, "").strip(" \t")
    if not _DIGITS.fullmatch(text) or int(text) > LARGEST_INTEGER:
        raise InvalidRequestError(
            f"The header {name.title()} {shown(text)} is not a number between 0 and {LARGEST_INTEGER}."
        )
    return int(text)


def _utf8(name: str) -> str:
    if len(name) > 4 * LONGEST_NAME:
        raise InvalidRequestError(f"Upload-Name has {len(name)} bytes; {LONGEST_NAME} are allowed.")
    try:
        return name.encode("latin-1").decode()
    except UnicodeError:
        raise InvalidRequestError(f"Upload-Name {shown(name)} is not UTF-8.") from None
