"""Resumable, parallel, crash-proof uploads of big files for Flask applications."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import (
    BodyCutError,
    BodyStalledError,
    ChecksumMismatchError,
    ChunkConflictError,
    Error,
    FinishedError,
    ForbiddenError,
    HandlerError,
    HttpHandlerError,
    IncompleteError,
    InvalidHandlersError,
    InvalidRequestError,
    InvalidTaskError,
    LedgerBusyError,
    LedgerError,
    LedgerVersionError,
    LengthMismatchError,
    LengthRequiredError,
    MethodNotAllowedError,
    NoJobError,
    NotFoundError,
    OffsetMismatchError,
    SqlHandlerError,
    StorageError,
    StorageFullError,
    SupersededError,
    TooLargeError,
    TooManyUploadsError,
    UnknownNameError,
    UnknownTaskError,
    UnsupportedTypeError,
    UnsupportedVersionError,
    WorkError,
)
from .transfer.errors import (
    AnswerError,
    CertificateError,
    ContentError,
    DigestMismatchError,
    FileChangedError,
    InvalidTransferError,
    LinkError,
    PageError,
    ProtocolError,
    SourceError,
    StalledError,
    TargetBusyError,
    TargetError,
    TargetExistsError,
    TargetFullError,
    TransferError,
    UploadGoneError,
)
from .version import __version__

if TYPE_CHECKING:
    from .actions import Actions
    from .extension import UploadHelper, current_helper
    from .protocols.chunked import ChunkRequest, ChunkResponse, StatusRequest, StatusResponse
    from .service import Upload
    from .signals import upload_created, upload_deleted, upload_finished
    from .state import Access

__all__ = [
    "Access",
    "Actions",
    "AnswerError",
    "BodyCutError",
    "BodyStalledError",
    "CertificateError",
    "ChecksumMismatchError",
    "ChunkConflictError",
    "ChunkRequest",
    "ChunkResponse",
    "ContentError",
    "DigestMismatchError",
    "Error",
    "FileChangedError",
    "FinishedError",
    "ForbiddenError",
    "HandlerError",
    "HttpHandlerError",
    "IncompleteError",
    "InvalidHandlersError",
    "InvalidRequestError",
    "InvalidTaskError",
    "InvalidTransferError",
    "LedgerBusyError",
    "LedgerError",
    "LedgerVersionError",
    "LengthMismatchError",
    "LengthRequiredError",
    "LinkError",
    "MethodNotAllowedError",
    "NoJobError",
    "NotFoundError",
    "OffsetMismatchError",
    "PageError",
    "ProtocolError",
    "SourceError",
    "SqlHandlerError",
    "StalledError",
    "StatusRequest",
    "StatusResponse",
    "StorageError",
    "StorageFullError",
    "SupersededError",
    "TargetBusyError",
    "TargetError",
    "TargetExistsError",
    "TargetFullError",
    "TooLargeError",
    "TooManyUploadsError",
    "TransferError",
    "UnknownNameError",
    "UnknownTaskError",
    "UnsupportedTypeError",
    "UnsupportedVersionError",
    "Upload",
    "UploadGoneError",
    "UploadHelper",
    "WorkError",
    "__version__",
    "current_helper",
    "upload_created",
    "upload_deleted",
    "upload_finished",
]

# What takes Flask is imported when somebody asks for it: clients do without, and begin in half the time.
_HOMES = {
    "Access": "state",
    "Actions": "actions",
    "ChunkRequest": "protocols.chunked",
    "ChunkResponse": "protocols.chunked",
    "StatusRequest": "protocols.chunked",
    "StatusResponse": "protocols.chunked",
    "Upload": "service",
    "UploadHelper": "extension",
    "current_helper": "extension",
    "upload_created": "signals",
    "upload_deleted": "signals",
    "upload_finished": "signals",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
