"""The digest that a file must have: as a caller names it, or as a server promises it."""

from __future__ import annotations

import binascii
import hashlib
import re
from base64 import b64decode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from ..errors import InvalidRequestError, shown
from ..protocols.fields import read_dictionary
from .errors import InvalidTransferError

# The strongest first.
_SIZES = {"sha512": 64, "sha256": 32, "sha1": 20, "md5": 16}
_NAMES = {"sha-512": "sha512", "sha-256": "sha256", "sha": "sha1", "sha-1": "sha1", "md5": "md5"}
_HEX = re.compile(r"[0-9a-fA-F]+")


@dataclass(frozen=True)
class Digest:
    """An algorithm of hashlib, and what it gives for the whole file."""

    algorithm: str
    value: bytes

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read ``sha256:<hex or base64>``, or hex alone, told by its length; raises InvalidTransferError."""
        name, colon, value = text.strip().rpartition(":")
        raw = _decoded(value)
        algorithm = _NAMES.get(name.lower(), name.lower())
        if not colon:
            algorithm = next((known for known, size in _SIZES.items() if len(raw) == size), "")
        if not raw or _SIZES.get(algorithm) != len(raw):
            raise InvalidTransferError(f"{shown(text)} is no digest; write sha256: and 64 hexadecimal digits.")
        return cls(algorithm, raw)

    def build(self) -> str:
        """Return it as ``<algorithm>:<hex>``."""
        return f"{self.algorithm}:{self.value.hex()}"

    def hasher(self) -> hashlib._Hash:
        """Return what computes such a digest."""
        return hashlib.new(self.algorithm, usedforsecurity=False)


def promised(headers: Mapping[str, str], *, is_whole: bool) -> Digest | None:
    """Return the strongest digest of the whole file that an answer names, or None.

    ``Repr-Digest`` (RFC 9530) and ``Digest`` (RFC 3230) are of the file even in the answer to a range;
    ``Content-Digest`` and ``Content-MD5`` are of what was sent, and count where `is_whole`.
    """
    found: dict[str, bytes] = {}
    for name in ("Content-Digest", "Repr-Digest") if is_whole else ("Repr-Digest",):
        with suppress(InvalidRequestError):
            members = read_dictionary(headers.get(name, ""))
            found |= {key: value for key, value in members.items() if isinstance(value, bytes)}
    for member in headers.get("Digest", "").split(","):
        name, _, text = member.strip().partition("=")
        found.setdefault(name.lower(), _base64(text))
    if is_whole:
        found.setdefault("md5", _base64(headers.get("Content-MD5", "").strip()))
    known = {_NAMES[name]: value for name, value in found.items() if name in _NAMES}
    return next((Digest(name, known[name]) for name, size in _SIZES.items() if len(known.get(name, b"")) == size), None)


def _decoded(text: str) -> bytes:
    if _HEX.fullmatch(text) and len(text) in (2 * size for size in _SIZES.values()):
        return bytes.fromhex(text)
    return _base64(text)


def _base64(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
