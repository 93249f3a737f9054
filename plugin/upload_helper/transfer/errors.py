"""Errors of files that are sent and fetched; whether one may pass by itself, ``temporary`` says."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from ..errors import Error


class TransferError(Error):
    """A file could not be sent or fetched. Nothing of it is answered over HTTP unless a host does so."""

    code = "transfer_error"
    status = 502
    remedy = "Look whether the server can be reached and what it says of the request."
    temporary: bool = False
    """Whether the same transfer may succeed later without anybody doing anything."""


class InvalidTransferError(TransferError):
    """What should become a transfer is not one: an address, a method or a protocol that there is not."""

    code = "invalid_transfer"
    status = 400
    remedy = "Correct what is named and start the transfer again."


class SourceError(TransferError):
    """The file to send is not there, may not be read, or is no file."""

    code = "source_error"
    status = 400
    remedy = "Look at the file and start the transfer again."


class FileChangedError(TransferError):
    """The file was changed while it was sent; nothing of it was finished on the server."""

    code = "file_changed"
    status = 409
    remedy = "Nothing to do: the next attempt begins again with the file as it is then."
    temporary = True


class UploadGoneError(TransferError):
    """The server does not know the upload any more that was under way."""

    code = "upload_gone"
    status = 404
    remedy = "Send the file again; it begins anew."


class ProtocolError(TransferError):
    """The server answers otherwise than the protocol has it."""

    code = "protocol_error"
    remedy = "Set another protocol, or ask the operator of the server what it speaks."


# --- The line to a server ---


class LinkError(TransferError):
    """The server cannot be reached, or the connection to it broke."""

    code = "link_error"
    remedy = "Nothing to do: the transfer goes on when the network is there again."
    temporary = True


class StalledError(LinkError):
    """Not one byte passed for as long as that is allowed."""

    code = "stalled"


class CertificateError(TransferError):
    """The server cannot prove that it is the one that was asked for, or speaks no TLS that is understood."""

    code = "certificate_error"
    remedy = "Look at the address and the clock of this machine, or name the CA that signed the certificate."


class AnswerError(TransferError):
    """The server answered with a status of 400 and above."""

    code = "answer_error"

    def __init__(
        self,
        message: str,
        *,
        remedy: str | None = None,
        answered: int,
        headers: Mapping[str, str] | None = None,
        text: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy, answered=answered)
        self.answered = answered
        """The status."""
        self.headers = headers or {}
        """Of the answer; names in any case."""
        self.text = text
        """The beginning of what the server said, without secrets."""
        self.temporary = (answered >= 500 and answered not in _FOR_GOOD) or answered in _FOR_NOW
        if retry_after is not None:
            self.retry_after = max(0, ceil(retry_after))


# Not implemented, version not supported, and a network that wants somebody to sign in; then timeout, conflict, locked,
# too early, too many requests.
_FOR_GOOD = frozenset({501, 505, 511})
_FOR_NOW = frozenset({408, 409, 423, 425, 429})


# --- Files that are fetched ---


class TargetError(TransferError):
    """What is fetched cannot be put where it should go."""

    code = "target_error"
    status = 400
    remedy = "Look at the folder and start the transfer again; what is there already is not fetched twice."


class TargetExistsError(TargetError):
    """There is a file under this name already."""

    code = "target_exists"
    status = 409
    remedy = "Name another file, or say that it may be overwritten."


class TargetBusyError(TargetError):
    """Another transfer writes the same file."""

    code = "target_busy"
    status = 423
    remedy = "Nothing to do: the other transfer makes the file."
    temporary = True
    retry_after = 60


class TargetFullError(TargetError):
    """The disk has no room."""

    code = "target_full"
    status = 507
    remedy = "Make room; the transfer goes on where it stopped."
    temporary = True
    retry_after = 60


class ContentError(TransferError):
    """What the server sends is not the file, or not the part of it that was asked for."""

    code = "content_error"
    remedy = "Look at what the server sends for this address, or ask its operator."


class PageError(ContentError):
    """A page came instead of the file, such as that by which a network wants somebody to sign in."""

    code = "page"
    remedy = "Open the address in a browser: the network or the server may want somebody to sign in."
    temporary = True


class DigestMismatchError(ContentError):
    """The file has not the digest that was promised; it was discarded."""

    code = "digest_mismatch"
    remedy = "Look whether the digest is that of this file; if so, fetch it again."
