"""How browser libraries describe a chunk: the same few facts under other names.

Sources: Resumable.js 1.1, Flow.js 2.14, simple-uploader.js 0.6, Dropzone 6, Fine Uploader 5.16, plupload 2.3.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from ..errors import BodyCutError, BodyStalledError, Error, InvalidRequestError, SupersededError, shown
from ..upload import LARGEST_INTEGER, UNKNOWN_SIZE

_DIGITS = re.compile(r"[0-9]{1,19}", re.ASCII)

PASSING = 503
"""The status for an error that passes; no library takes it for the end."""

Outcome = Literal["done", "retry", "stop"]
"""What a library makes of an answer; one that never sends anything again by itself retries when the user says so."""


@dataclass(frozen=True)
class NamedChunk:
    """One chunk as a library describes it. Sizes are in bytes."""

    number: int
    """From 0, whatever the library begins with."""
    count: int
    total_size: int
    """Of the file; UNKNOWN_SIZE from plupload, which does not tell."""
    identifier: str
    """Chosen by the library, the same in all chunks of a file."""
    file_name: str = ""
    """Empty from Dropzone, which names the file in the file part only."""
    relative_path: str = ""
    """Where the file is in the folder that was dropped; empty where the library does not tell."""
    chunk_size: int = 0
    """Of every chunk but the last; 0 where it was not told."""

    @property
    def length(self) -> int | None:
        """Bytes that this chunk must have, or None where that can't be known.

        The last chunk has what remains behind the others, which may be up to two chunks.
        """
        if self.total_size == UNKNOWN_SIZE or self.total_size > 0 == self.chunk_size:
            return None
        return self.total_size - self.number * self.chunk_size if self.number == self.count - 1 else self.chunk_size


@dataclass(frozen=True)
class Dialect:
    """The names that a library gives to the fields, '' for those that it has not, and what it makes of an answer."""

    name: str
    number: str
    count: str
    identifier: str
    total_size: str = ""
    file_name: str = ""
    relative_path: str = ""
    chunk_size: str = ""
    length: str = ""
    """Bytes of this chunk."""
    offset: str = ""
    """Where this chunk begins in the file."""
    file_part: str = "file"
    first: int = 0
    """The number of the first chunk."""
    marks: frozenset[str] = frozenset()
    """Fields by which a chunk of this library is known; the required ones unless others are named."""
    by_name: bool = False
    """Whether the name stands for an identifier that is not there."""
    guessable: bool = False
    """Whether the identifier is made of what a stranger could know, such as the name and the size."""
    permanent: frozenset[int] = frozenset()
    """Statuses that end an upload; where there are any, a chunk with another error is sent again, often at once."""
    refusal: int = 400
    """One of them, for errors whose own status is not."""

    @cached_property
    def fields(self) -> frozenset[str]:
        """All fields that mean something here."""
        known = {self.number, self.count, self.identifier, self.total_size, self.file_name, self.relative_path}
        return frozenset((known | {self.chunk_size, self.length, self.offset}) - {""})

    @cached_property
    def required(self) -> frozenset[str]:
        """The fields without which a chunk is not understood; what only says again what others do is not needed."""
        optional = {self.relative_path, self.identifier if self.by_name else ""}
        return self.fields - optional - ({self.length, self.offset} if self.chunk_size else set())

    def key(self, chunk: NamedChunk) -> str:
        """Return the identifier under which the upload is kept; those of two libraries never meet.

        A guessable one may also stand for a file that is cut in other places, which is another upload then.
        """
        cut = f"{chunk.chunk_size or chunk.count}:" if self.guessable else ""
        return f"{self.name}:{cut}{chunk.identifier}"

    def parse(self, fields: Mapping[str, str]) -> NamedChunk:
        """Return the chunk that the fields of a query or a form describe; raises InvalidRequestError."""
        for name in sorted(self.required - fields.keys()):
            raise InvalidRequestError(f"The field {name} of {self.name} is missing.")
        # A form may well have a field without a name, and '' stands here for those that a library has not.
        fields = {name: fields[name] for name in self.fields & fields.keys()}
        number = _number(fields, self.number) - self.first
        count = _number(fields, self.count)
        if not 0 <= number < count:
            raise InvalidRequestError(
                f"{self.number} {fields[self.number]} is not between {self.first} and {count - 1 + self.first}."
            )
        file_name = fields.get(self.file_name, "")
        chunk = NamedChunk(
            number=number,
            count=count,
            total_size=_number(fields, self.total_size) if self.total_size else UNKNOWN_SIZE,
            identifier=fields.get(self.identifier, "") or (file_name if self.by_name else ""),
            file_name=file_name,
            relative_path=fields.get(self.relative_path, ""),
            chunk_size=self._chunk_size(number, fields),
        )
        self._check(chunk, fields)
        return chunk

    def build(self, chunk: NamedChunk) -> dict[str, str]:
        """Return the fields that describe a chunk, as far as the library has them."""
        values: dict[str, Any] = {
            self.number: chunk.number + self.first,
            self.count: chunk.count,
            self.total_size: chunk.total_size,
            self.identifier: chunk.identifier,
            self.file_name: chunk.file_name,
            self.relative_path: chunk.relative_path,
        }
        if chunk.length is not None:
            values[self.chunk_size] = chunk.chunk_size
            values[self.length] = chunk.length
            values[self.offset] = chunk.number * chunk.chunk_size
        return {name: str(value) for name, value in values.items() if name}

    def refused(self, status: int, *, passing: bool) -> int:
        """Return the status for an error that has `status`, so that the library goes on or stops as it should.

        `passing` says whether the same request may succeed later.
        """
        if not self.permanent:
            return status
        if passing:
            return status if status >= 429 and status not in self.permanent else PASSING
        return status if status in self.permanent else self.refusal

    def outcome(self, status: int, members: Mapping[str, Any]) -> Outcome:
        """Return what the library makes of an answer: its status, and the members of its JSON."""
        if 200 <= status < 300 and members.get("success") is True:
            return "done"
        stops = status in self.permanent or members.get("preventRetry") is True
        return "stop" if stops else "retry"

    def _chunk_size(self, number: int, fields: Mapping[str, str]) -> int:
        """Return the bytes of every chunk but the last, as far as the fields tell, or else 0."""
        if self.chunk_size:
            return _number(fields, self.chunk_size)
        if not self.length:
            return 0
        return _number(fields, self.offset) // number if number else _number(fields, self.length)

    def _check(self, chunk: NamedChunk, fields: Mapping[str, str]) -> None:
        """Raise InvalidRequestError where a text is empty, or numbers contradict each other."""
        if not chunk.identifier:
            raise InvalidRequestError(f"{self.identifier} is empty; it must tell this file from others.")
        if chunk.length is None:
            if chunk.total_size > 0:
                raise InvalidRequestError(f"A file of {chunk.total_size} bytes does not come in chunks of 0 bytes.")
            return
        remainder = chunk.total_size - (chunk.count - 1) * chunk.chunk_size
        if remainder < 0 or (chunk.total_size and remainder >= 2 * chunk.chunk_size):
            raise InvalidRequestError(
                f"{chunk.count} chunks of {chunk.chunk_size} bytes do not make a file of {chunk.total_size} bytes."
            )
        for name, due in ((self.length, chunk.length), (self.offset, chunk.number * chunk.chunk_size)):
            if name in fields and _number(fields, name) != due:
                raise InvalidRequestError(f"{name} {fields[name]} contradicts the other fields, by which it is {due}.")


@dataclass(frozen=True)
class AllSent:
    """Fine Uploader's request when it has sent all chunks of a file, if it is configured to make one."""

    identifier: str
    file_name: str
    total_size: int
    """In bytes."""
    count: int

    @classmethod
    def parse(cls, fields: Mapping[str, str]) -> AllSent:
        """Read the fields of the form; raises InvalidRequestError."""
        names = (FINE_UPLOADER.identifier, FINE_UPLOADER.file_name, FINE_UPLOADER.total_size, FINE_UPLOADER.count)
        for name in names:
            if not fields.get(name):
                raise InvalidRequestError(f"The field {name} of {FINE_UPLOADER.name} is missing.")
        identifier, file_name, size, count = names
        return cls(fields[identifier], fields[file_name], _number(fields, size), _number(fields, count))

    def build(self) -> dict[str, str]:
        """Return the fields of the form."""
        return {
            FINE_UPLOADER.identifier: self.identifier,
            FINE_UPLOADER.file_name: self.file_name,
            FINE_UPLOADER.total_size: str(self.total_size),
            FINE_UPLOADER.count: str(self.count),
        }

    @property
    def key(self) -> str:
        """The identifier under which the upload is kept."""
        return f"{FINE_UPLOADER.name}:{self.identifier}"


@dataclass(frozen=True)
class WholeFile:
    """A file that comes in one request."""

    file_name: str
    total_size: int = UNKNOWN_SIZE
    """In bytes, if it was declared."""

    @classmethod
    def parse(cls, fields: Mapping[str, str], part_name: str = "", length: int | None = None) -> WholeFile:
        """Read the fields beside a file part, or beside a body of `length` bytes; raises InvalidRequestError.

        A form may well have a field that is called name and means a person, so plupload's name counts only where
        it must be plupload's.
        """
        size = UNKNOWN_SIZE if length is None else length
        if FINE_UPLOADER.file_name in fields:
            declared = FINE_UPLOADER.total_size in fields
            return cls(fields[FINE_UPLOADER.file_name], _number(fields, FINE_UPLOADER.total_size) if declared else size)
        named = part_name in _UNNAMED or PLUPLOAD.count in fields
        return cls(fields.get(PLUPLOAD.file_name, part_name) if named else part_name, size)


@dataclass(frozen=True)
class StoredFile:
    """One file of an answer: where it is, and, of a file that came whole, what it is."""

    upload_uid: str
    url: str
    file_name: str = ""
    total_size: int = UNKNOWN_SIZE
    """In bytes."""


RESUMABLE = Dialect(
    "resumable", "resumableChunkNumber", "resumableTotalChunks", "resumableIdentifier", "resumableTotalSize",
    "resumableFilename", "resumableRelativePath", "resumableChunkSize", "resumableCurrentChunkSize",
    first=1, guessable=True, permanent=frozenset({400, 404, 415, 500, 501}),
)  # fmt: skip
FLOW = Dialect(
    "flow", "flowChunkNumber", "flowTotalChunks", "flowIdentifier", "flowTotalSize", "flowFilename",
    "flowRelativePath", "flowChunkSize", "flowCurrentChunkSize",
    first=1, guessable=True, permanent=frozenset({404, 413, 415, 500, 501}), refusal=415,
)  # fmt: skip
SIMPLE_UPLOADER = Dialect(
    "simple-uploader", "chunkNumber", "totalChunks", "identifier", "totalSize", "filename", "relativePath",
    "chunkSize", "currentChunkSize",
    # The others are also those of the chunk protocol.
    marks=frozenset({"totalChunks", "currentChunkSize"}),
    first=1, guessable=True, permanent=frozenset({404, 415, 500, 501}), refusal=415,
)  # fmt: skip
DROPZONE = Dialect(
    "dropzone", "dzchunkindex", "dztotalchunkcount", "dzuuid", "dztotalfilesize", chunk_size="dzchunksize",
    offset="dzchunkbyteoffset",
)  # fmt: skip
FINE_UPLOADER = Dialect(
    "fine-uploader", "qqpartindex", "qqtotalparts", "qquuid", "qqtotalfilesize", "qqfilename", length="qqchunksize",
    offset="qqpartbyteoffset", file_part="qqfile",
    # The others come with a whole file, too.
    marks=frozenset({"qqpartindex", "qqtotalparts", "qqpartbyteoffset", "qqchunksize"}),
)  # fmt: skip
PLUPLOAD = Dialect(
    "plupload", "chunk", "chunks", "identifier", file_name="name",
    marks=frozenset({"chunk", "chunks"}), by_name=True, guessable=True,
)  # fmt: skip

DIALECTS = (RESUMABLE, FLOW, SIMPLE_UPLOADER, DROPZONE, FINE_UPLOADER, PLUPLOAD)
ASKING = (RESUMABLE, FLOW, SIMPLE_UPLOADER)
"""Those that ask with a GET whether a chunk is there already, its fields in the query."""
RESUMING = "qqresume"
"""With this Fine Uploader goes on with an upload, and sends only what it has not sent before."""
FIELDS = frozenset({RESUMING}).union(*(dialect.fields for dialect in DIALECTS))
"""All fields that mean something in one of them."""

# Of the chunk protocol, which has no other name for them.
_OWN = frozenset({"chunkNumber", "chunkCount"})
# What FormData calls a part that was not named (XMLHttpRequest, "create an entry").
_UNNAMED = ("", "blob")


def dialect_of(names: Collection[str]) -> Dialect | None:
    """Return the library that sends a chunk with fields of these names, or None."""
    return next((dialect for dialect in DIALECTS if not (dialect.marks or dialect.required).isdisjoint(names)), None)


def is_chunk(fields: Mapping[str, str]) -> bool:
    """Say whether the fields go with a chunk, of a library or of the chunk protocol."""
    dialect = dialect_of(fields.keys())
    return not _OWN.isdisjoint(fields) or (dialect is not None and not is_whole(dialect, fields))


def is_whole(dialect: Dialect, fields: Mapping[str, str]) -> bool:
    """Say whether the fields are those that plupload sends with a file of one chunk, or of none if it is empty."""
    return dialect is PLUPLOAD and fields.get(dialect.count) in ("0", "1") and fields.get(dialect.number) == "0"


def passes(error: Error) -> bool:
    """Say whether a request that ended with this error may succeed when it is sent again."""
    return error.retry_after is not None or isinstance(error, (BodyCutError, BodyStalledError, SupersededError))


def build_answer(stored: Sequence[StoredFile]) -> dict[str, Any]:
    """Return the members of the JSON for files that are stored, or one file of which a chunk is."""
    members: dict[str, Any] = {"success": True, "uploadUid": stored[0].upload_uid, "url": stored[0].url}
    if stored[0].total_size != UNKNOWN_SIZE:
        members["uploads"] = [
            {"uploadUid": file.upload_uid, "fileName": file.file_name, "totalSize": file.total_size, "url": file.url}
            for file in stored
        ]
    return members


def parse_answer(members: Mapping[str, Any]) -> list[StoredFile]:
    """Return what ``build_answer`` was given; raises InvalidRequestError for an answer of another kind."""
    try:
        if "uploads" not in members:
            return [StoredFile(_text(members, "uploadUid"), _text(members, "url"))]
        return [
            StoredFile(_text(file, "uploadUid"), _text(file, "url"), _text(file, "fileName"), int(file["totalSize"]))
            for file in members["uploads"]
        ]
    except (KeyError, TypeError, ValueError):
        raise InvalidRequestError(f"The answer does not tell an upload: {shown(str(members))}.") from None


def build_refusal(dialect: Dialect, members: Mapping[str, Any], *, passing: bool) -> dict[str, Any]:
    """Return the members of the JSON for an error, where `members` are those of ``Error.as_json``.

    An upload that is not as the library believes must begin anew. Source: Fine Uploader, "Server-side".
    """
    if dialect is not FINE_UPLOADER:
        return {**members, "success": False}
    anew = members.get("code") == "incomplete"
    return {**members, "success": False, "reset": anew, "preventRetry": not (passing or anew)}


def _number(fields: Mapping[str, str], name: str) -> int:
    text = fields[name]
    if not _DIGITS.fullmatch(text) or int(text) > LARGEST_INTEGER:
        raise InvalidRequestError(f"{name} {shown(text)} is not a number between 0 and {LARGEST_INTEGER}.")
    return int(text)


def _text(members: Mapping[str, Any], name: str) -> str:
    if not isinstance(members[name], str):
        raise TypeError("text is expected")
    return str(members[name])
