"""The chunk protocol: one request carries one chunk, in any of four encodings.

The names of the fields are those of GBD WebSuite's upload helper, so the records are camelCase: they are the wire.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from ..errors import InvalidRequestError, shown
from ..pipes import Block, in_memory
from ..upload import LARGEST_INTEGER, LONGEST_IDENTIFIER
from .fields import LARGEST, read_dictionary, write_dictionary

RAW = "application/octet-stream"
MULTIPART = "multipart/form-data"
JSON = "application/json"
MSGPACK = "application/msgpack"
STRUCT_TYPES = (JSON, MSGPACK)
ENCODINGS = (*STRUCT_TYPES, MULTIPART, RAW)

CHECKSUM_ALGORITHMS = ("sha256", "sha512", "sha1", "md5")


@dataclass(repr=False)
class ChunkRequest:
    """One chunk on its way to the server.

    ``content`` are the chunk's bytes. Where the encoding allows, they are still on the wire: reading ``content`` then
    takes them all into memory, while ``handle_chunk_request`` passes them on in blocks.
    """

    fileName: str
    """Display name; it never takes part in a path."""
    totalSize: int
    """Bytes in the whole file."""
    chunkCount: int
    """Number of chunks; a file of 0 bytes has one, which is empty."""
    chunkNumber: int
    """This chunk's serial number, from 0."""
    content: bytes
    """This chunk's bytes."""
    uploadUid: str = ""
    """Empty for a new upload, afterwards what the server answered."""
    identifier: str = ""
    """Chosen by the client; with it an upload is found again whose uid was lost."""
    checksum: str = ""
    """Of this chunk, ``<algorithm>:<hex>``."""
    fileChecksum: str = ""
    """Of the whole file, ``<algorithm>:<hex>``."""

    def __repr__(self) -> str:
        return f"<ChunkRequest {self.uploadUid or 'new'} {self.fileName!r} {self.chunkNumber}/{self.chunkCount}>"

    def __getattr__(self, name: str) -> Any:
        # Only asked for what is not there: content, as long as it is still on the wire.
        if name == "content" and "_blocks" in self.__dict__:
            self.content = b"".join(map(bytes, self.blocks()))
            return self.content
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @classmethod
    def streamed(cls, members: Mapping[str, Any], blocks: Iterable[Block], length: int | None) -> Self:
        """Return a request whose content comes in `blocks`, `length` bytes in all or not known yet."""
        from . import structs  # noqa: PLC0415 - clients send no chunks this way, and begin sooner without

        request = structs.load(cls, {**members, "content": b""})
        del request.__dict__["content"]
        request.__dict__.update(_blocks=iter(blocks), _length=length)
        return request

    @property
    def length(self) -> int | None:
        """The number of bytes in ``content``, or None while only its end will tell."""
        if "content" in self.__dict__:
            return len(self.content)
        length: int | None = self.__dict__["_length"]
        return length

    def blocks(self) -> Iterator[bytes | memoryview]:
        """Yield the content in blocks; what is still on the wire can be read once.

        A block is valid only until the next is asked for.
        """
        return map(in_memory, self.parcels())

    def parcels(self) -> Iterator[Block]:
        """Yield the content as ``blocks`` does, or in a pipe if that is how it comes."""
        if "content" in self.__dict__:
            return iter((self.content,))
        blocks: Iterator[Block] = self.__dict__["_blocks"]
        return blocks

    def check(self) -> None:
        """Raise InvalidRequestError for values that no upload can have."""
        for name in ("totalSize", "chunkCount", "chunkNumber"):
            value = getattr(self, name)
            if not 0 <= value <= LARGEST_INTEGER:
                raise InvalidRequestError(f"{name} {shown(value)} is not between 0 and {LARGEST_INTEGER}.")
        if len(self.identifier) > LONGEST_IDENTIFIER:
            raise InvalidRequestError(f"identifier has more than {LONGEST_IDENTIFIER} characters.")
        self.checksum = normal_checksum("checksum", self.checksum)
        self.fileChecksum = normal_checksum("fileChecksum", self.fileChecksum)


@dataclass(frozen=True)
class ChunkResponse:
    """The answer to a chunk."""

    uploadUid: str
    """Goes into the following chunks of the same upload."""


@dataclass(frozen=True)
class StatusRequest:
    """Asks how far an upload is: by ``uploadUid``, or by ``identifier`` with the three fields that go with it."""

    uploadUid: str = ""
    identifier: str = ""
    fileName: str = ""
    totalSize: int = 0
    chunkCount: int = 1


@dataclass(frozen=True)
class StatusResponse:
    """How far an upload is. Sizes are in bytes, times in seconds since the epoch."""

    uploadUid: str
    fileName: str
    totalSize: int
    """-1 while the client has not told."""
    chunkCount: int
    """0 for an upload that is appended to."""
    state: str
    """``open`` or ``finished``."""
    receivedBytes: int
    missing: list[tuple[int, int]] | None = None
    """Chunks to send, as ranges of numbers (first, last), both included; None where they were not counted."""
    chunkSize: int | None = None
    """Bytes of a chunk, all but the last; None while none has arrived."""
    expires: float | None = None
    """When it is deleted unless something is written to it."""
    offset: int | None = None
    """Bytes that are kept of an upload that is appended to; None for one that comes in chunks."""
    checksum: str = ""
    """Of the finished file, ``<algorithm>:<hex>``, where the client has declared one; it was verified."""


@dataclass(frozen=True)
class ChunkOffer:
    """Answers OPTIONS: that the chunk protocol is spoken here, and its limits."""

    max_chunk_size: int
    """Bytes."""
    max_chunks: int
    """Of one upload."""

    @classmethod
    def parse(cls, headers: Mapping[str, str]) -> Self | None:
        """Read the header; None where nobody speaks the protocol, or not in a way that is known here."""
        texts = [text for name, text in headers.items() if name.lower() == OFFER_HEADER.lower()]
        try:
            members = read_dictionary(",".join(texts))
        except InvalidRequestError:
            return None
        size, count = members.get("max-chunk-size"), members.get("max-chunks")
        if members.get("chunks") is not True or type(size) is not int or type(count) is not int:
            return None
        return cls(size, count) if min(size, count) > 0 else None

    def build(self) -> dict[str, str]:
        """Return the header."""
        limits = {"max-chunk-size": min(self.max_chunk_size, LARGEST), "max-chunks": min(self.max_chunks, LARGEST)}
        return {OFFER_HEADER: write_dictionary({"chunks": True, **limits})}


OFFER_HEADER = "X-Upload-Helper"
"""In an answer to OPTIONS, a dictionary as in RFC 9651: ``chunks, max-chunk-size=67108864, max-chunks=1000000``."""
MOST_ITEMS = 1000
"""What a chunk in JSON or msgpack may hold in all; it has a dozen members."""

TEXT_FIELDS = frozenset(f.name for f in fields(ChunkRequest) if f.name != "content")
REQUIRED_FIELDS = frozenset({"fileName", "totalSize", "chunkCount", "chunkNumber"})


def to_text(request: ChunkRequest | StatusRequest) -> dict[str, str]:
    """Return the fields of a request, without its content, for a query or a form; empty ones may be left out."""
    values = {f.name: getattr(request, f.name) for f in fields(request) if f.name != "content"}
    return {name: str(value) for name, value in values.items() if value != "" or name in REQUIRED_FIELDS}


def normal_checksum(name: str, value: str) -> str:
    """Return a checksum in lower case; raises InvalidRequestError unless it is empty or ``<algorithm>:<hex>``."""
    if not value:
        return ""
    algorithm, _, digest = value.lower().partition(":")
    if algorithm not in CHECKSUM_ALGORITHMS:
        known = ", ".join(CHECKSUM_ALGORITHMS)
        raise InvalidRequestError(f"{name} {shown(value)}: the algorithm is none of {known}; write it as sha256:<hex>.")
    if not re.fullmatch(r"[0-9a-f]+", digest) or len(digest) != 2 * hashlib.new(algorithm).digest_size:
        raise InvalidRequestError(f"{name} {shown(value)} is not an {algorithm} in hexadecimal digits.")
    return f"{algorithm}:{digest}"
