"""tus 1.0: what its headers say (tus.io/protocols/resumable-upload, version 1.0.0).

Each message is made of headers with ``parse``, in which case does not matter, and turned into headers with ``build``,
so that a server and a client can use it. ``parse`` raises nothing but errors of this package. Sizes and offsets are in
bytes, times in whole seconds since the epoch, checksums ``<algorithm>:<hex>``.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import formatdate, parsedate_to_datetime
from typing import Self

from ..errors import (
    InvalidRequestError,
    LengthMismatchError,
    TooLargeError,
    UnsupportedTypeError,
    UnsupportedVersionError,
    shown,
)
from ..upload import LARGEST_INTEGER, UNKNOWN_SIZE
from .chunked import CHECKSUM_ALGORITHMS
from .metadata import from_base64, read_metadata

VERSION = "1.0.0"
OFFSET_TYPE = "application/offset+octet-stream"
"""Content-Type of bytes to append."""
EXTENSIONS = (
    "creation", "creation-with-upload", "creation-defer-length", "expiration", "checksum", "termination",
    "concatenation",
)  # fmt: skip
"""What is offered here beyond the core protocol."""
PARTIAL = "partial"
"""Upload-Concat of a part of a file."""
LONGEST_CONCAT = 128 << 10
"""Characters of Upload-Concat: more than a thousand URLs."""

_FINAL = "final;"
_DIGITS = re.compile(r"[0-9]+")
# What a header can hold that is sent back as it came, and a token in a list.
_PRINTABLE = re.compile(r"[\x20-\x7e]*")
_TOKEN = re.compile(r"[\x21-\x2b\x2d-\x7e]+")

Headers = Mapping[str, str]


@dataclass(frozen=True)
class Creation:
    """Begins an upload: a POST on the collection (Creation, Creation With Upload, Concatenation)."""

    length: int = UNKNOWN_SIZE
    """Of the file; UNKNOWN_SIZE where a later request tells, and for one that is put together from parts."""
    metadata: str = ""
    """Upload-Metadata, which ``metadata.read_metadata`` reads and ``write_metadata`` makes."""
    concat: str = ""
    """Upload-Concat: empty, PARTIAL, or what ``write_concat`` makes."""
    with_upload: bool = False
    """Whether the body is the beginning of the file."""
    checksum: str = ""
    """Of the body."""

    @property
    def parts(self) -> tuple[str, ...]:
        """URLs of the parts that the file is to be put together from, if it is."""
        return tuple(self.concat.removeprefix(_FINAL).split()) if self.concat.startswith(_FINAL) else ()

    @classmethod
    def parse(cls, headers: Headers) -> Self:
        """Read the headers; raises UnsupportedVersionError, InvalidRequestError, and TooLargeError for the length."""
        headers = _checked(headers)
        metadata = headers.get("upload-metadata", "")
        read_metadata(metadata)
        concat = _concat(headers)
        length = _length(headers)
        _check_length_is_told(headers, length, final=concat.startswith(_FINAL))
        kind = _content_type(headers)
        return cls(length, metadata, concat, kind == OFFSET_TYPE, _checksum(headers))

    def build(self) -> dict[str, str]:
        """Return the headers."""
        headers = {"Tus-Resumable": VERSION}
        if not self.parts:
            headers |= _told_length(self.length)
        headers |= _if_any({"Upload-Metadata": self.metadata, "Upload-Concat": self.concat})
        if self.with_upload:
            headers["Content-Type"] = OFFSET_TYPE
        return headers | _told_checksum(self.checksum)


@dataclass(frozen=True)
class Created:
    """Answers a Creation with 201."""

    location: str
    """URL of the upload, absolute or relative."""
    offset: int | None = None
    """Bytes that are kept, where the request had some."""
    expires: int | None = None
    """When the upload is deleted unless something is written to it."""

    @classmethod
    def parse(cls, headers: Headers) -> Self:
        """Read the headers."""
        headers = _checked(headers)
        location = headers.get("location", "")
        if not location or not _PRINTABLE.fullmatch(location):
            raise InvalidRequestError(f"Location {shown(location)} is no URL of an upload.")
        offset = _offset(headers) if "upload-offset" in headers else None
        return cls(location, offset, _expires(headers))

    def build(self) -> dict[str, str]:
        """Return the headers."""
        headers = {"Tus-Resumable": VERSION, "Location": self.location}
        if self.offset is not None:
            headers["Upload-Offset"] = str(self.offset)
        return headers | _told_expires(self.expires)


@dataclass(frozen=True)
class Append:
    """Appends the body: a PATCH on an upload."""

    offset: int
    """Where the body begins in the file."""
    length: int = UNKNOWN_SIZE
    """Of the file, told now where it was not before."""
    checksum: str = ""
    """Of the body."""

    @classmethod
    def parse(cls, headers: Headers) -> Self:
        """Read the headers; raises UnsupportedTypeError for a body of another type, LengthMismatchError."""
        headers = _checked(headers)
        kind = _content_type(headers)
        if kind != OFFSET_TYPE:
            raise UnsupportedTypeError(
                f"Content-Type {shown(kind)} is not {OFFSET_TYPE}, the only one that is appended."
            )
        offset, length = _offset(headers), _length(headers)
        if UNKNOWN_SIZE != length < offset:
            raise LengthMismatchError(f"Upload-Length {length} is less than Upload-Offset {offset}.")
        return cls(offset, length, _checksum(headers))

    def build(self) -> dict[str, str]:
        """Return the headers."""
        headers = {"Tus-Resumable": VERSION, "Content-Type": OFFSET_TYPE, "Upload-Offset": str(self.offset)}
        if self.length != UNKNOWN_SIZE:
            headers["Upload-Length"] = str(self.length)
        return headers | _told_checksum(self.checksum)


@dataclass(frozen=True)
class Appended:
    """Answers an Append with 204."""

    offset: int
    """Bytes that are kept."""
    expires: int | None = None

    @classmethod
    def parse(cls, headers: Headers) -> Self:
        """Read the headers."""
        headers = _checked(headers)
        return cls(_offset(headers), _expires(headers))

    def build(self) -> dict[str, str]:
        """Return the headers."""
        return {"Tus-Resumable": VERSION, "Upload-Offset": str(self.offset)} | _told_expires(self.expires)


@dataclass(frozen=True)
class Question:
    """Asks where an upload stands, a HEAD, or has it deleted, a DELETE."""

    @classmethod
    def parse(cls, headers: Headers) -> Self:
        """Read the headers; raises UnsupportedVersionError."""
        _checked(headers)
        return cls()

    def build(self) -> dict[str, str]:
        """Return the headers."""
        return {"Tus-Resumable": VERSION}


@dataclass(frozen=True)
class Standing:
    """Answers a HEAD: where an upload stands, and what its Creation said."""

    offset: int
    """Bytes that are kept."""
    length: int = UNKNOWN_SIZE
    """Of the file; UNKNOWN_SIZE while the client has not told."""
    metadata: str = ""
    concat: str = ""
    expires: int | None = None

    @classmethod
    def parse(cls, headers: Headers) -> Self:
        """Read the headers."""
        headers = _checked(headers)
        metadata = headers.get("upload-metadata", "")
        read_metadata(metadata)
        return cls(_offset(headers), _length(headers), metadata, _concat(headers), _expires(headers))

    def build(self) -> dict[str, str]:
        """Return the headers."""
        headers = {"Tus-Resumable": VERSION, "Cache-Control": "no-store", "Upload-Offset": str(self.offset)}
        headers |= _told_length(self.length)
        headers |= _if_any({"Upload-Metadata": self.metadata, "Upload-Concat": self.concat})
        return headers | _told_expires(self.expires)


@dataclass(frozen=True)
class Abilities:
    """Answers OPTIONS: what a server speaks, and its limits."""

    versions: tuple[str, ...] = (VERSION,)
    """The preferred one first."""
    extensions: tuple[str, ...] = EXTENSIONS
    max_size: int | None = None
    """Of a file; None where no limit is told."""
    algorithms: tuple[str, ...] = CHECKSUM_ALGORITHMS
    """For checksums."""

    @classmethod
    def parse(cls, headers: Headers) -> Self:
        """Read the headers; an answer to OPTIONS need not say the version it is in."""
        headers = _lower(headers)
        versions = _listed(headers, "Tus-Version")
        if not versions:
            raise InvalidRequestError("Tus-Version is missing or empty, so the server does not speak tus.")
        size = _number(headers, "Tus-Max-Size") if "tus-max-size" in headers else None
        return cls(versions, _listed(headers, "Tus-Extension"), size, _listed(headers, "Tus-Checksum-Algorithm"))

    def build(self) -> dict[str, str]:
        """Return the headers."""
        headers = {"Tus-Resumable": VERSION, "Tus-Version": ",".join(self.versions)}
        if self.max_size is not None:
            headers["Tus-Max-Size"] = str(self.max_size)
        lists = {"Tus-Extension": ",".join(self.extensions), "Tus-Checksum-Algorithm": ",".join(self.algorithms)}
        return headers | _if_any(lists)


def write_concat(urls: tuple[str, ...]) -> str:
    """Return the Upload-Concat header of a file that is put together from the parts at these URLs."""
    return _FINAL + " ".join(urls)


def _lower(headers: Headers) -> dict[str, str]:
    return {name.lower(): value.strip(" \t") for name, value in headers.items()}


def _checked(headers: Headers) -> dict[str, str]:
    """Return the headers in lower case; raises UnsupportedVersionError unless they are of this version."""
    lower = _lower(headers)
    version = lower.get("tus-resumable")
    if version != VERSION:
        told = "missing" if version is None else f"{shown(version)}, which is not understood here"
        raise UnsupportedVersionError(f"Tus-Resumable is {told}.", remedy=f"Send Tus-Resumable: {VERSION}.")
    return lower


def _content_type(headers: Headers) -> str:
    return headers.get("content-type", "").partition(";")[0].strip(" \t").lower()


def _number(headers: Headers, name: str) -> int:
    """Return a number of bytes, which may be more than a file can have.

    A header that is there twice reads "1, 1" (RFC 9110, section 5.3), and is none.
    """
    text = headers.get(name.lower())
    if text is None:
        raise InvalidRequestError(f"{name} is missing.")
    if not _DIGITS.fullmatch(text):
        raise InvalidRequestError(f"{name} {shown(text)} is not a number of bytes.")
    # Python refuses to read a number of thousands of digits, and any that is too large is as good as another.
    return int(text.lstrip("0")[:20] or "0")


def _offset(headers: Headers) -> int:
    offset = _number(headers, "Upload-Offset")
    if offset > LARGEST_INTEGER:
        raise InvalidRequestError(f"Upload-Offset is over {LARGEST_INTEGER}, the most bytes that a file can have.")
    return offset


def _length(headers: Headers) -> int:
    """Return the length of the file, UNKNOWN_SIZE where it is not told; raises TooLargeError."""
    if "upload-length" not in headers:
        return UNKNOWN_SIZE
    length = _number(headers, "Upload-Length")
    if length > LARGEST_INTEGER:
        raise TooLargeError(f"Upload-Length is over {LARGEST_INTEGER}, the most bytes that a file can have.")
    return length


def _check_length_is_told(headers: Headers, length: int, *, final: bool) -> None:
    """Raise InvalidRequestError unless a Creation tells the length, or that it will come later, but not both."""
    deferred = headers.get("upload-defer-length")
    if deferred not in (None, "1"):
        raise InvalidRequestError(f"Upload-Defer-Length {shown(deferred)} is not 1, the only value that it can have.")
    told = length != UNKNOWN_SIZE
    if final and (told or deferred):
        raise InvalidRequestError("Upload-Length has no place where parts are put together: it is the sum of theirs.")
    if not final and told and deferred:
        raise InvalidRequestError(f"Upload-Length {length} and Upload-Defer-Length contradict each other.")
    if not final and not told and not deferred:
        raise InvalidRequestError(
            "Upload-Length is missing; send it, or Upload-Defer-Length: 1 where it is not known yet."
        )


def _concat(headers: Headers) -> str:
    """Return Upload-Concat as it came, or '' where it did not."""
    text = headers.get("upload-concat", "")
    if len(text) > LONGEST_CONCAT:
        raise InvalidRequestError(f"Upload-Concat has {len(text)} characters; {LONGEST_CONCAT} are allowed.")
    urls = text.startswith(_FINAL) and _PRINTABLE.fullmatch(text) and text.removeprefix(_FINAL).strip()
    if "upload-concat" in headers and text != PARTIAL and not urls:
        raise InvalidRequestError(
            f"Upload-Concat {shown(text)} is neither {PARTIAL} nor {_FINAL} and the URLs of the parts."
        )
    return text


def _checksum(headers: Headers) -> str:
    """Return Upload-Checksum as ``<algorithm>:<hex>``, '' where there is none."""
    text = headers.get("upload-checksum")
    if text is None:
        return ""
    algorithm, _, encoded = text.partition(" ")
    if algorithm not in CHECKSUM_ALGORITHMS:
        known = ", ".join(CHECKSUM_ALGORITHMS)
        raise InvalidRequestError(f"Upload-Checksum {shown(text)}: the algorithm is none of {known}.")
    digest = from_base64("Upload-Checksum has", encoded.strip(" "))
    if len(digest) != hashlib.new(algorithm, usedforsecurity=False).digest_size:
        raise InvalidRequestError(f"Upload-Checksum {shown(text)} has {len(digest)} bytes, which no {algorithm} has.")
    return f"{algorithm}:{digest.hex()}"


def _expires(headers: Headers) -> int | None:
    """Return Upload-Expires (RFC 9110, section 5.6.7), None where it is not there."""
    text = headers.get("upload-expires")
    if text is None:
        return None
    try:
        moment = parsedate_to_datetime(text)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        raise InvalidRequestError(f"Upload-Expires {shown(text)} is no date.") from None


def _listed(headers: Headers, name: str) -> tuple[str, ...]:
    """Return the members of a list, '' among them where it is not there."""
    items = tuple(item for item in (part.strip(" \t") for part in headers.get(name.lower(), "").split(",")) if item)
    for item in items:
        if not _TOKEN.fullmatch(item):
            raise InvalidRequestError(f"{name} has {shown(item)} in it, which is no name.")
    return items


def _if_any(headers: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if value}


def _told_length(length: int) -> dict[str, str]:
    return {"Upload-Defer-Length": "1"} if length == UNKNOWN_SIZE else {"Upload-Length": str(length)}


def _told_checksum(checksum: str) -> dict[str, str]:
    algorithm, _, digest = checksum.partition(":")
    encoded = base64.b64encode(bytes.fromhex(digest)).decode()
    return {"Upload-Checksum": f"{algorithm} {encoded}"} if checksum else {}


def _told_expires(expires: int | None) -> dict[str, str]:
    return {} if expires is None else {"Upload-Expires": formatdate(expires, usegmt=True)}
