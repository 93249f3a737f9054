"""The settings: read once from a mapping with one prefix, checked, and frozen."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

PREFIX = "UPLOAD_HELPER_"

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


class Durability(StrEnum):
    """When bytes are forced to the disk. A killed process loses nothing under any of them; a power cut does."""

    NONE = "none"
    """Never by us: for tests and scratch folders."""
    FINISH = "finish"
    """Before a file is reported finished, and every half minute in between; the rest is asked for again."""
    CHUNK = "chunk"
    """Before every acknowledgement. A folder that several machines share needs this."""


@dataclass(frozen=True)
class Config:
    """The settings of one application, named as in ``app.config`` without the prefix ``UPLOAD_HELPER_``."""

    folder: Path
    """Where uploads live. Set by the extension to ``instance_path/uploads`` unless configured."""
    max_file_size: int = 16 * GIB
    """Largest file in bytes."""
    max_chunk_size: int = 64 * MIB
    """Largest chunk in bytes."""
    max_chunks: int = 1_000_000
    """Largest number of chunks in one upload."""
    max_request_size: int = 4 * MIB
    """Largest body in bytes of an action's request that is not a chunk."""
    allowed_extensions: frozenset[str] = frozenset()
    """Extensions that may be uploaded, lower case, without the dot; empty allows all."""
    max_open_uploads: int = 1000
    """Largest number of unfinished uploads of one owner."""
    max_owner_bytes: int = 64 * GIB
    """Largest sum in bytes of the sizes of one owner's uploads, finished ones included until they are moved."""
    min_free_space: int = 1 * GIB
    """Bytes of the disk that no new upload may reserve."""
    expiry: timedelta = timedelta(days=7)
    """How long an upload is kept after the last write to it; zero keeps it until it is deleted."""
    sweep_interval: timedelta = timedelta(minutes=10)
    """How often creating an upload sweeps the folder on the way; zero leaves it to ``flask uploads sweep``."""
    durability: Durability = Durability.FINISH
    """When bytes are forced to the disk: ``none``, ``finish`` or ``chunk``."""
    body_timeout: timedelta = timedelta(seconds=60)
    """How long a client may be silent in the middle of a body, where the server lets us say so; zero is for ever."""
    splice_from: int | None = 1 * MIB
    """Length in bytes from which on a body goes from the socket to the file inside the kernel, where the server lets
    us; None: never."""
    trusted_origins: frozenset[str] = field(default_factory=frozenset)
    """Origins, as ``https://maps.example.org``, whose pages may send requests from another site."""
    cors_origins: frozenset[str] = field(default_factory=frozenset)
    """Origins whose pages may send requests and read the blueprint's answers (CORS); they are trusted as well."""
    base_template: str = "upload_helper/base.html"
    """Template that the pages of the blueprint extend; it needs a block ``content``, and may have one ``title``."""
    accel_redirect: str = ""
    """Internal location of nginx, as ``/protected-uploads/``, that serves the folder; empty sends files from here."""

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], *, folder: Path) -> Config:
        """Read the keys that begin with the prefix; `folder` is used where none is configured.

        Raises ValueError that names the key, the value and what is expected, also for a key that does not exist.
        """
        known = {PREFIX + f.name.upper(): f.name for f in fields(cls)}
        given: dict[str, Any] = {"folder": folder}
        for key, value in mapping.items():
            if not key.startswith(PREFIX):
                continue
            if key not in known:
                raise ValueError(f"{key} is not a setting. Known settings: {', '.join(sorted(known))}.")
            name = known[key]
            try:
                given[name] = _READERS[name](value)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{key} = {value!r}: {error}") from None
        return cls(**given)


def _path(value: Any) -> Path:
    if not isinstance(value, (str, Path)) or not str(value) or "\0" in str(value):
        raise ValueError("the path of a folder is expected")
    return Path(value).absolute()


def _integer(low: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise ValueError(f"an integer of at least {low} is expected")
        return value

    return read


def _integer_or_none(low: int) -> Callable[[Any], int | None]:
    read = _integer(low)
    return lambda value: None if value is None else read(value)


def _duration(value: Any) -> timedelta:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        with suppress(ValueError, OverflowError):
            value = timedelta(seconds=value)
    if not isinstance(value, timedelta) or value < timedelta(0):
        raise ValueError("a timedelta or a number of seconds is expected, not below zero")
    return value


def _matching(pattern: str, expected: str) -> Callable[[Any], frozenset[str]]:
    def read(value: Any) -> frozenset[str]:
        listed = isinstance(value, Collection) and not isinstance(value, (str, bytes))
        if not listed or not all(isinstance(item, str) for item in value):
            raise ValueError("a list of strings is expected")
        for item in value:
            if not re.fullmatch(pattern, item):
                raise ValueError(f"{item!r} is not an {expected}")
        return frozenset(value)

    return read


def _extensions(value: Any) -> frozenset[str]:
    read = _matching(r"\.?[^./\\\s]+", "extension, such as tif or .tif")
    return frozenset(item.lower().lstrip(".") for item in read(value))


def _origins(value: Any) -> frozenset[str]:
    read = _matching(r"https?://[^/?#@*\s]+", "origin, such as https://maps.example.org")
    # As browsers write it (RFC 6454, section 6.2): in lower case, and without the port that the scheme implies.
    return frozenset(re.sub(r"^(http:.*):80$|^(https:.*):443$", r"\1\2", item.lower()) for item in read(value))


def _location(value: Any) -> str:
    if not isinstance(value, str) or (value and not re.fullmatch(r"/([A-Za-z0-9_~-][A-Za-z0-9_.~-]*/)+", value)):
        raise ValueError("a path with a slash at both ends is expected, such as /protected-uploads/")
    return value


def _template(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("the name of a template is expected, such as base.html")
    return value


def _durability(value: Any) -> Durability:
    try:
        return Durability(value)
    except ValueError:
        raise ValueError("none, finish or chunk is expected") from None


_READERS: dict[str, Callable[[Any], Any]] = {
    "folder": _path,
    "max_file_size": _integer(0),
    "max_chunk_size": _integer(1),
    "max_chunks": _integer(1),
    "max_request_size": _integer(1),
    "allowed_extensions": _extensions,
    "max_open_uploads": _integer(0),
    "max_owner_bytes": _integer(0),
    "min_free_space": _integer(0),
    "expiry": _duration,
    "sweep_interval": _duration,
    "durability": _durability,
    "body_timeout": _duration,
    "splice_from": _integer_or_none(1),
    "trusted_origins": _origins,
    "cors_origins": _origins,
    "base_template": _template,
    "accel_redirect": _location,
}
