"""What every way to send a file works with: the request, the file, the line to the server, and what is kept of it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from ...errors import shown
from ..addresses import check_url
from ..errors import InvalidTransferError, PageError, ProtocolError, TransferError, UploadGoneError
from ..source import Fingerprint, Slice, Source
from ..web import Line, Response
from .pieces import Pieces

PLAIN = ("multipart", "raw")
PROTOCOLS = ("tus", "rufh", "chunks", *PLAIN)
"""How a file can be sent; all but plain requests go on after a break."""
METHODS = ("", "POST", "PUT", "PATCH")
DIGEST = "sha256"

_GONE = (404, 410)
_BLOCK = 1 << 20
_NAME = re.compile(r"[^\x00-\x1f\x7f]*")

State = dict[str, Any]


@dataclass(frozen=True)
class UploadRequest:
    """A file, and where it is to go; raises InvalidTransferError for what there is not."""

    url: str = field(repr=False)
    """Of the collection of uploads, of the form's target, or (PUT) of the file; one that ends with / gets its name."""
    file: str | Path
    method: str = ""
    """Of a plain request: POST, PUT or PATCH; empty is what the protocol takes."""
    protocol: str = ""
    """One of PROTOCOLS; empty asks the server."""
    piece: int = 0
    """Bytes in one request; 0 fits them to the link."""
    name: str = ""
    """What the file is called on the server; empty is its own name."""
    part: str = "file"
    """The name of the file's part in a multipart form."""
    checksums: bool = False
    """Whether each piece goes with its SHA-256, for a link that corrupts bytes; a cut piece then counts for nothing."""

    def __post_init__(self) -> None:
        check_url(self.url)
        for name, value, known in (("method", self.method, METHODS), ("protocol", self.protocol, ("", *PROTOCOLS))):
            if value not in known:
                raise InvalidTransferError(f"{name} {shown(value)} is none of {', '.join(filter(None, known))}.")
        if type(self.piece) is not int or self.piece < 0:
            raise InvalidTransferError(f"piece {shown(self.piece)} is no number of bytes.")
        if not _NAME.fullmatch(self.name) or not _NAME.fullmatch(self.part):
            raise InvalidTransferError(f"{shown(self.name)} and {shown(self.part)} have to be names on one line.")


@dataclass(frozen=True)
class Sent:
    """A file that the server has."""

    url: str = field(repr=False)
    """Where the server keeps it, or what was asked for where it does not say."""
    uid: str
    """The last part of its URL, what our blueprint calls ``uploadUid``; empty where the server named no URL."""
    size: int
    """In bytes."""
    text: str = ""
    """What the server answered at the end."""
    restarted: str = ""
    """Why it was sent again from its beginning, if it was."""


@dataclass
class Job:
    """One file on its way."""

    request: UploadRequest
    line: Line
    source: Source
    state: State
    """What goes on in another process: JSON values under names."""
    save: Callable[[State], None]
    report: Callable[[int, int], None]
    pieces: Pieces
    acknowledged: int = 0
    """The most bytes that the server was known to have."""

    @property
    def name(self) -> str:
        """What the file is called on the server."""
        return (self.request.name or self.source.name).encode(errors="replace").decode()

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.source.size

    @property
    def collection(self) -> str:
        """The URL where uploads begin."""
        return self.state.get("collection") or self.request.url

    def keep(self, **members: Any) -> None:
        """Note what is needed to go on, before it is needed."""
        self.state.update(members)
        self.save(dict(self.state))

    def forget(self) -> None:
        """Begin anew, with the file as it is now."""
        self.state.clear()
        self.acknowledged = 0
        self.keep(target=self.request.url, fingerprint=self.source.fingerprint.build())

    def is_of_this_file(self) -> bool:
        """Say whether what was kept is about the file as it is now."""
        return Fingerprint.parse(self.state.get("fingerprint")) == self.source.fingerprint

    def reached(self, offset: int) -> None:
        """Note how much the server has."""
        self.acknowledged = max(self.acknowledged, offset)
        self.report(offset, self.size)

    def body(self, offset: int, length: int, done: int | None = None) -> Slice | None:
        """Return a part of the file, None for no bytes; progress counts from `done`, or else from where it begins."""
        if not length:
            return None
        position = offset if done is None else done

        def turn(count: int) -> None:
            nonlocal position
            # What is about to go is not sent yet.
            self.report(position, self.size)
            self.line.turn(count)
            position += count

        return self.source.slice(offset, length, turn, self.line.pace.block)

    def digest(self, offset: int, length: int) -> str:
        """Return the checksum of a part of the file as ``<algorithm>:<hex>``; '' where none is wanted."""
        if not self.request.checksums:
            return ""
        digest, end = hashlib.new(DIGEST), offset + length
        while offset < end:
            block = self.source.read(offset, min(_BLOCK, end - offset))
            digest.update(block)
            offset += len(block)
        return f"{DIGEST}:{digest.hexdigest()}"

    def ask(self, method: str, url: str, headers: Mapping[str, str], body: Slice | None = None) -> Response:
        """Ask about the upload itself; raises UploadGoneError where the server does not know it any more.

        Raises PageError where a network answers that wants somebody to sign in.
        """
        try:
            answer = self.line.ask(method, url, headers=headers, body=body)
        except TransferError as error:
            if "url" in self.state and answered(error) in _GONE:
                raise UploadGoneError("The server does not know the upload any more that was under way.") from None
            raise
        is_page = answer.headers.get("Content-Type", "").strip().lower().startswith("text/html")
        if is_page and not any(name.lower().startswith("upload-") for name in answer.headers):
            raise PageError("A page came instead of what the server says of the upload.")
        return answer

    def drop(self, headers: Mapping[str, str]) -> None:
        """Let the server delete what it has of an upload that nobody will finish, if it can be reached."""
        url = self.state.get("url")
        if isinstance(url, str):
            with suppress(TransferError):
                self.line.ask("DELETE", url, headers=headers)

    def sent(self, url: str, text: str = "") -> Sent:
        """Return what became of the file, which is at this URL of its own."""
        return Sent(url, urlsplit(url).path.rstrip("/").rpartition("/")[2], self.size, text)


def answered(error: TransferError) -> int:
    """Return the status that a server has refused with, 0 where there was no answer."""
    return int(getattr(error, "answered", 0) or 0)


def located(base: str, location: str) -> str:
    """Return the URL of what was created; raises ProtocolError where the answer names none.

    A server behind a proxy that takes TLS off may believe that it is spoken to in the clear; nobody follows it there.
    """
    if not location:
        raise ProtocolError("The answer to the creation has no Location.")
    try:
        parts, asked = urlsplit(urljoin(base, location)), urlsplit(base)
        downgraded = asked.scheme == "https" and parts.scheme == "http" and parts.hostname == asked.hostname
    except ValueError:
        raise ProtocolError(f"Location {shown(location)} is no URL.") from None
    if downgraded:
        parts = parts._replace(scheme=asked.scheme, netloc=asked.netloc)
    url = parts._replace(fragment="").geturl()
    check_url(url)
    return url


def offset_in(size: int, offset: int | None, least: int = 0) -> int:
    """Return an offset that a server has told; raises ProtocolError for one that can't be."""
    if offset is None or not least <= offset <= size:
        raise ProtocolError(f"The server says that it has {offset} bytes of {size}, of which it had {least}.")
    return offset
