"""The record of an upload and the pure rules about it: names, sizes, and where each chunk belongs."""

from __future__ import annotations

import re
import secrets
import unicodedata
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

from .config import Config
from .errors import InvalidRequestError, TooLargeError, UnsupportedTypeError, shown

DATA = "data"
"""The name of the file with the bytes inside of the upload's folder."""
ASSEMBLED = "assembled"
"""Its name after chunks of irregular lengths had to be put together."""

LARGEST_INTEGER = 2**63 - 1
UNKNOWN_SIZE = -1
"""Size of a file whose length the client has not told yet."""
LONGEST_NAME = 255
LONGEST_IDENTIFIER = 1000
FALLBACK_NAME = "unnamed"

_UID = re.compile(r"[0-9a-f]{32}")
# Marks that reorder text on screen: a name with one can show "exe.tif" and be "fit.exe". Unicode TR 36, section 2.
_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
# Names that Windows gives to devices whatever their extension.
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$) *(?:\.|$)", re.IGNORECASE)


class State(StrEnum):
    """How far an upload is."""

    OPEN = "open"
    FINISHED = "finished"


@dataclass(frozen=True)
class Record:
    """What is known of one upload, as it is stored. Sizes are in bytes, times in seconds since the epoch.

    An upload that is appended to (tus, RUFH, FilePond) has no chunks, so its ``chunk_count`` is 0.
    """

    uid: str
    owner: str
    file_name: str
    total_size: int
    chunk_count: int
    created: float
    identifier: str = ""
    """Chosen by the client; finds the upload again after a reload, among those of its owner."""
    checksum: str = ""
    """Of the whole file as the client declared it, ``sha256:<hex>``; verified before the upload is finished."""
    state: State = State.OPEN
    finished: float = 0.0
    data_file: str = DATA
    """Where the bytes are: ``data`` or ``assembled``."""
    reserved: int = 0
    """Bytes that count against the owner's quota while ``total_size`` is UNKNOWN_SIZE."""
    metadata: str = ""
    """What the client said of the file, as tus writes it in Upload-Metadata."""
    concat: str = ""
    """``partial`` for a part of a file, ``final;`` and URLs for one put together, as tus writes it in Upload-Concat."""

    @property
    def appended(self) -> bool:
        """Whether the upload is appended to at an offset, rather than sent in numbered chunks."""
        return self.chunk_count == 0

    @property
    def partial(self) -> bool:
        """Whether this is a part of a file, of use only to be put together with others."""
        return self.concat == "partial"

    @property
    def quota_size(self) -> int:
        """Bytes that count against the owner's quota."""
        return self.reserved if self.total_size == UNKNOWN_SIZE else self.total_size

    def as_json(self) -> dict[str, Any]:
        """Return the record as it is stored."""
        return asdict(self)

    @classmethod
    def from_json(cls, members: dict[str, Any]) -> Record:
        """Read a stored record: members of a newer version are ignored, missing ones get their defaults."""
        known = {f.name for f in fields(cls)}
        kept = {name: value for name, value in members.items() if name in known}
        if kept.get("data_file", DATA) not in (DATA, ASSEMBLED):
            raise ValueError(f"{kept['data_file']!r} is not the name of a data file")
        return cls(**{**kept, "state": State(kept.get("state", State.OPEN))})


def new_uid() -> str:
    """Return a fresh uid: 128 random bits as 32 hexadecimal digits."""
    return secrets.token_hex(16)


def is_uid(text: str) -> bool:
    """Say whether `text` could be a uid at all; whatever could not never becomes part of a path."""
    return _UID.fullmatch(text) is not None


def display_name(raw: str) -> str:
    """Return the name to show for a file that a client calls `raw`; no path is ever made from it.

    Keeps the last part of a path in either notation and letters of every language, composed (NFC). Takes out control
    characters and marks that reorder text. Raises InvalidRequestError for a name of more than 255 bytes in UTF-8.
    """
    name = raw.replace("\\", "/").rpartition("/")[2]
    # Composing takes quadratic time in a run of marks, so what is far too long is refused before.
    if len(name) > 4 * LONGEST_NAME:
        raise InvalidRequestError(f"fileName has {len(name)} characters; {LONGEST_NAME} bytes in UTF-8 are allowed.")
    if not (name.isascii() and name.isprintable()):
        name = "".join(c for c in _BIDI.sub("", name) if unicodedata.category(c) not in ("Cc", "Zl", "Zp"))
        name = unicodedata.normalize("NFC", name)
    name = name.strip(" ").rstrip(". ")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidRequestError(f"fileName {shown(raw)} has half a surrogate pair in it.") from None
    if size > LONGEST_NAME:
        raise InvalidRequestError(f"fileName has {size} bytes in UTF-8, more than {LONGEST_NAME}.")
    if not name:
        return FALLBACK_NAME
    return "_" + name if _DEVICE.match(name) else name


def extension(name: str) -> str:
    """Return what follows the last dot of a display name, in lower case: ``jpg`` of ``a.php.JPG``."""
    return name.rpartition(".")[2].lower() if "." in name else ""


def check_size(config: Config, total_size: int) -> None:
    """Raise unless a file may have this size."""
    if not 0 <= total_size <= LARGEST_INTEGER:
        raise InvalidRequestError(f"totalSize {total_size} is not between 0 and {LARGEST_INTEGER}.")
    if total_size > config.max_file_size:
        raise TooLargeError(
            f"totalSize {total_size} is over the limit of {config.max_file_size} bytes for a file"
            " (UPLOAD_HELPER_MAX_FILE_SIZE)."
        )


def check_count(config: Config, total_size: int, chunk_count: int) -> None:
    """Raise InvalidRequestError unless a file of this size may come in so many chunks."""
    if not 1 <= chunk_count <= config.max_chunks:
        raise InvalidRequestError(
            f"chunkCount {chunk_count} is not between 1 and {config.max_chunks} (UPLOAD_HELPER_MAX_CHUNKS)."
        )
    if chunk_count > max(1, total_size):
        raise InvalidRequestError(f"chunkCount {chunk_count} is more than the {total_size} bytes of totalSize.")


def check_extension(config: Config, file_name: str) -> None:
    """Raise UnsupportedTypeError unless a file of this (display) name may be uploaded."""
    if config.allowed_extensions and extension(file_name) not in config.allowed_extensions:
        allowed = ", ".join(sorted(config.allowed_extensions))
        raise UnsupportedTypeError(
            f"{shown(file_name)}: only files of these extensions are taken: {allowed}"
            " (UPLOAD_HELPER_ALLOWED_EXTENSIONS)."
        )


def check_chunk(record: Record, file_name: str, total_size: int, chunk_count: int, number: int) -> None:
    """Raise InvalidRequestError unless the fields of a chunk agree with the upload that it names."""
    for field, sent, kept in (
        ("fileName", file_name, record.file_name),
        ("totalSize", total_size, record.total_size),
        ("chunkCount", chunk_count, record.chunk_count),
    ):
        if sent != kept:
            raise InvalidRequestError(f"{field} {shown(sent)} is not the {shown(kept)} that the upload began with.")
    check_number(number, record.chunk_count)


def check_number(number: int, chunk_count: int) -> None:
    """Raise InvalidRequestError unless `number` is one of a file with so many chunks."""
    if not 0 <= number < chunk_count:
        raise InvalidRequestError(f"chunkNumber {number} is not between 0 and {chunk_count - 1}.")


def infer_chunk_size(record: Record, number: int, length: int) -> int | None:
    """Return the chunk size under which chunk `number` has `length` bytes, or None where no sensible one exists.

    The protocol does not say the chunk size; the first chunk that arrives tells. All chunks but the last have it. The
    last has what remains: up to a whole chunk, or up to two from libraries that lengthen it rather than send a stub.
    """
    last = record.chunk_count - 1
    if last == 0:
        return length if length == record.total_size else None
    if number < last:
        size = length
    else:
        size, odd = divmod(record.total_size - length, last)
        if odd:
            return None
    remainder = record.total_size - last * size
    return size if size > 0 and 0 <= remainder <= 2 * size else None


def slot(record: Record, chunk_size: int, number: int) -> tuple[int, int]:
    """Return offset and length in bytes of chunk `number` in a file whose chunks are regular."""
    offset = number * chunk_size
    last = number == record.chunk_count - 1
    return offset, record.total_size - offset if last else chunk_size
