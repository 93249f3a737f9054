"""Resumable Uploads for HTTP: draft-ietf-httpbis-resumable-upload, interop version 8, and what older clients send.

Each message is made of headers with ``parse``, in which case does not matter, and turned into headers with ``build``,
so that a server and a client can use it. ``parse`` raises nothing but errors of this package.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from ..errors import InvalidRequestError, LengthMismatchError, UnsupportedTypeError, UnsupportedVersionError, shown
from ..upload import UNKNOWN_SIZE
from . import disposition, fields, metadata

VERSION = 8
"""The interop version that is spoken here."""
VERSIONS = (5, 6, 7, VERSION)
"""The interop versions that are understood. A client of the final RFC sends none."""
VERSION_HEADER = "Upload-Draft-Interop-Version"
# The first version with a media type for what is appended, and the last that calls max-age expires.
_WITH_TYPE, _WITH_EXPIRES = 6, 6
# Up to this one a request need not say whether it completes the upload (draft 05, section 6).
_WITHOUT_COMPLETE = 6

PARTIAL = "application/partial-upload"

# RFC 9530, section 5: the algorithms that are not insecure, the cheaper one first.
_DIGESTS = {"sha-256": "sha256", "sha-512": "sha512"}

Headers = Mapping[str, str]
T = TypeVar("T")


def client_version(headers: Headers) -> int | None:
    """Return the interop version that the client sends, understood here or not; None where it sends none."""
    return _ignored_unless_valid(_lower(headers), VERSION_HEADER.lower(), fields.read_integer)


@dataclass(frozen=True)
class Creation:
    """Begins an upload: a POST with Upload-Complete (section 4.2)."""

    complete: bool
    """Whether the content of this request is the whole file."""
    length: int = UNKNOWN_SIZE
    """Upload-Length, bytes of the file."""
    content_length: int | None = None
    """Bytes of the content of this request; None where only its end tells."""
    file_name: str = ""
    metadata: str = ""
    """Upload-Metadata, as tus has it and tus-js-client sends it here, too."""
    file_checksum: str = ""
    """Repr-Digest: of the whole file, ``<algorithm>:<hex>``."""
    checksum: str = ""
    """Content-Digest: of the content of this request."""
    version: int | None = VERSION
    """The client's interop version; None where it sends none."""

    @property
    def whole(self) -> bool:
        """Whether nothing more will come."""
        # tus-js-client, which speaks the old versions, takes an empty file for uploaded when it is begun.
        empty = self.length == 0 and self.version is not None and self.version <= _WITHOUT_COMPLETE
        return self.complete or empty

    @property
    def name(self) -> str:
        """The file's name, wherever the client has put it."""
        return self.file_name or metadata.file_name(self.metadata)

    @property
    def total_size(self) -> int:
        """Bytes of the file, or UNKNOWN_SIZE."""
        return self.length if self.content_length is None or not self.complete else self.content_length

    @classmethod
    def parse(cls, headers: Headers) -> Self:
        """Read the headers; raises LengthMismatchError if its lengths contradict each other.

        A client of another version whose request has the whole file is served as if it knew nothing of resuming, as it
        would be by a server that does not.
        """
        headers = _lower(headers)
        version = client_version(headers)
        complete = _ignored_unless_valid(headers, "upload-complete", fields.read_boolean)
        if not (version is None or version in VERSIONS):
            # Version 3 and older said it the other way round.
            incomplete = _ignored_unless_valid(headers, "upload-incomplete", fields.read_boolean)
            if complete is not True and incomplete is not False:
                raise _unsupported(version)
            complete = True
        if complete is None:
            raise InvalidRequestError(
                f"Upload-Complete {shown(headers.get('upload-complete'))} says neither that the content is the whole"
                " file (?1) nor that more will come (?0)."
            )
        length, content_length = _size(headers, "upload-length"), _content_length(headers)
        _check_lengths(length, content_length, offset=0, complete=complete)
        metadata.read_metadata(headers.get("upload-metadata", ""))
        return cls(
            complete, length, content_length,
            file_name=disposition.file_name(headers.get("content-disposition", "")),
            metadata=headers.get("upload-metadata", ""),
            file_checksum=_digest(headers, "repr-digest"),
            checksum=_digest(headers, "content-digest"),
            version=version,
        )  # fmt: skip

    def build(self) -> dict[str, str]:
        """Return the headers."""
        headers = _lengths(self.version, self.complete, self.length, self.content_length, self.checksum)
        if self.file_name:
            headers["Content-Disposition"] = disposition.with_file_name(self.file_name)
        if self.metadata:
            headers["Upload-Metadata"] = self.metadata
        if self.file_checksum:
            headers["Repr-Digest"] = _write_digest(self.file_checksum)
        return headers


@dataclass(frozen=True)
class Append:
    """Appends to an upload: a PATCH of application/partial-upload (section 4.4)."""

    offset: int
    """Where the content begins in the file."""
    complete: bool | None
    """Whether the file ends with the content; None: as soon as it has its length (only old clients leave it open)."""
    length: int = UNKNOWN_SIZE
    content_length: int | None = None
    checksum: str = ""
    version: int | None = VERSION

    @property
    def total_size(self) -> int:
        """Bytes of the file, or UNKNOWN_SIZE."""
        if self.content_length is None or not self.complete:
            return self.length
        return self.offset + self.content_length

    @classmethod
    def parse(cls, headers: Headers) -> Self:
        """Read the headers; raises UnsupportedTypeError for content of another type, LengthMismatchError."""
        headers = _lower(headers)
        version = _checked_version(headers)
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != PARTIAL and (version is None or version >= _WITH_TYPE):
            raise UnsupportedTypeError(f"Content-Type {shown(kind)} is not {PARTIAL}, which can be appended.")
        offset = _size(headers, "upload-offset")
        if offset == UNKNOWN_SIZE:
            raise InvalidRequestError(
                f"Upload-Offset {shown(headers.get('upload-offset'))} does not say where the content begins."
            )
        complete = _ignored_unless_valid(headers, "upload-complete", fields.read_boolean)
        if complete is None and (version is None or version > _WITHOUT_COMPLETE):
            raise InvalidRequestError(
                f"Upload-Complete {shown(headers.get('upload-complete'))} says neither that the file ends with the"
                " content (?1) nor that more will come (?0)."
            )
        length, content_length = _size(headers, "upload-length"), _content_length(headers)
        if complete:
            _check_lengths(length, content_length, offset=offset, complete=True)
        return cls(offset, complete, length, content_length, _digest(headers, "content-digest"), version)

    def build(self) -> dict[str, str]:
        """Return the headers."""
        headers = _lengths(self.version, self.complete, self.length, self.content_length, self.checksum)
        headers["Upload-Offset"] = fields.write_item(self.offset)
        if self.version is None or self.version >= _WITH_TYPE:
            headers["Content-Type"] = PARTIAL
        return headers


@dataclass(frozen=True)
class Question:
    """Asks where an upload stands, or cancels it: a HEAD, GET or DELETE (sections 4.3 and 4.5)."""

    version: int | None = VERSION

    @classmethod
    def parse(cls, headers: Headers) -> Self:
        """Read the headers; raises InvalidRequestError for those that only a request with content may have."""
        headers = _lower(headers)
        version = _checked_version(headers)
        for name in ("Upload-Offset", "Upload-Complete", "Upload-Length"):
            if name.lower() in headers:
                raise InvalidRequestError(f"{name} has no place in a request without content, which asks for it.")
        return cls(version)

    def build(self) -> dict[str, str]:
        """Return the headers."""
        return _version_header(self.version)


@dataclass(frozen=True)
class Limits:
    """What a server takes (section 4.1.4), in bytes and seconds; None is no limit."""

    max_size: int | None = None
    min_size: int = 0
    max_append_size: int | None = None
    min_append_size: int | None = None
    max_age: int | None = None
    """How long the upload will be there."""

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read the field; None for one that is to be ignored."""
        try:
            members = fields.read_dictionary(text)
        except InvalidRequestError:
            return None
        if "expires" in members:
            members.setdefault("max-age", members["expires"])
        values: dict[str, Any] = {}
        for name in _LIMITS.keys() & members.keys():
            value = members[name]
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                return None
            values[_LIMITS[name]] = value
        return cls(**values)

    def build(self, version: int | None = VERSION) -> str:
        """Return the field, as a client of this version understands it."""
        members = {name: getattr(self, attribute) for name, attribute in _LIMITS.items()}
        if version is not None and version <= _WITH_EXPIRES:
            members["expires"] = members.pop("max-age")
        return fields.write_dictionary(
            {name: min(value, fields.LARGEST) for name, value in members.items() if value is not None}
        )


_LIMITS = {
    "max-size": "max_size",
    "min-size": "min_size",
    "max-append-size": "max_append_size",
    "min-append-size": "min_append_size",
    "max-age": "max_age",
}


@dataclass(frozen=True)
class Standing:
    """Where an upload stands, as any answer says it, errors included; None is what is not said."""

    offset: int | None = None
    """Bytes that are kept."""
    complete: bool | None = None
    """Whether the answer is about the whole file, and nothing more will be taken."""
    length: int = UNKNOWN_SIZE
    limits: Limits | None = None
    location: str = ""
    """URL of the upload."""

    @classmethod
    def parse(cls, headers: Headers) -> Self:
        """Read the headers; a field with another value than it may have is ignored (section 4.1)."""
        headers = _lower(headers)
        offset = _size(headers, "upload-offset")
        return cls(
            None if offset == UNKNOWN_SIZE else offset,
            _ignored_unless_valid(headers, "upload-complete", fields.read_boolean),
            _size(headers, "upload-length"),
            Limits.parse(headers["upload-limit"]) if "upload-limit" in headers else None,
            headers.get("location", ""),
        )

    def build(self, version: int | None = VERSION) -> dict[str, str]:
        """Return the headers, as a client of this version understands them."""
        headers = {}
        if self.offset is not None:
            headers["Upload-Offset"] = fields.write_item(self.offset)
        if self.complete is not None:
            headers["Upload-Complete"] = fields.write_item(self.complete)
        if self.length != UNKNOWN_SIZE:
            headers["Upload-Length"] = fields.write_item(self.length)
        if self.limits is not None:
            headers["Upload-Limit"] = self.limits.build(version)
        if self.location:
            headers["Location"] = self.location
        return headers


def _lower(headers: Headers) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _ignored_unless_valid(headers: Headers, name: str, read: Callable[[str], T]) -> T | None:
    # Section 4.1: a field with any other value is ignored as a whole.
    with suppress(InvalidRequestError):
        return read(headers[name]) if name in headers else None
    return None


def _size(headers: Headers, name: str) -> int:
    value = _ignored_unless_valid(headers, name, fields.read_integer)
    return UNKNOWN_SIZE if value is None or value < 0 else value


def _checked_version(headers: Headers) -> int | None:
    version = client_version(headers)
    if version is not None and version not in VERSIONS:
        raise _unsupported(version)
    return version


def _unsupported(version: int) -> UnsupportedVersionError:
    known = ", ".join(map(str, VERSIONS))
    return UnsupportedVersionError(
        f"{VERSION_HEADER} {version} is not understood here; {known} are.",
        remedy=f"Speak one of the versions {known}, or send the whole file in one request with Upload-Complete: ?1.",
    )


def _version_header(version: int | None) -> dict[str, str]:
    return {} if version is None else {VERSION_HEADER: str(version)}


def _content_length(headers: Headers) -> int | None:
    text = headers.get("content-length", "")
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,19}", text):
        raise InvalidRequestError(f"Content-Length {shown(text)} is not a number of bytes.")
    return int(text)


def _check_lengths(length: int, content_length: int | None, *, offset: int, complete: bool) -> None:
    if length == UNKNOWN_SIZE or content_length is None:
        return
    end = offset + content_length
    if end > length or (complete and end < length):
        raise LengthMismatchError(f"Upload-Length is {length}, but the content would end at {end}.")


def _lengths(
    version: int | None, complete: bool | None, length: int, content_length: int | None, checksum: str
) -> dict[str, str]:
    headers = _version_header(version)
    if complete is not None:
        headers["Upload-Complete"] = fields.write_item(complete)
    if length != UNKNOWN_SIZE:
        headers["Upload-Length"] = fields.write_item(length)
    if content_length is not None:
        headers["Content-Length"] = str(content_length)
    if checksum:
        headers["Content-Digest"] = _write_digest(checksum)
    return headers


def _digest(headers: Headers, name: str) -> str:
    """Return the digest as ``<algorithm>:<hex>``; '' where there is none by a known algorithm (RFC 9530, section 2).

    A field that can't be read is an error, for its client wants the bytes to be verified.
    """
    members = fields.read_dictionary(headers.get(name, ""))
    for key, algorithm in _DIGESTS.items():
        if key in members:
            value = members[key]
            if not isinstance(value, bytes) or len(value) != hashlib.new(algorithm).digest_size:
                raise InvalidRequestError(f"{name.title()} {shown(headers[name])} has no {key} of its size.")
            return f"{algorithm}:{value.hex()}"
    return ""


def _write_digest(checksum: str) -> str:
    algorithm, _, digest = checksum.partition(":")
    key = next((key for key, known in _DIGESTS.items() if known == algorithm), None)
    if key is None:
        raise InvalidRequestError(f"{shown(checksum)} is by none of the algorithms {', '.join(_DIGESTS)}.")
    return fields.write_dictionary({key: bytes.fromhex(digest)})
