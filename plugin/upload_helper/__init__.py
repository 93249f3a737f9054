"""Resumable, parallel, crash-proof uploads of big files for Flask applications."""

from .actions import Actions
from .errors import (
    BodyCutError,
    BodyStalledError,
    ChecksumMismatchError,
    ChunkConflictError,
    Error,
    FinishedError,
    ForbiddenError,
    IncompleteError,
    InvalidRequestError,
    LengthMismatchError,
    LengthRequiredError,
    MethodNotAllowedError,
    NotFoundError,
    OffsetMismatchError,
    StorageError,
    StorageFullError,
    SupersededError,
    TooLargeError,
    TooManyUploadsError,
    UnsupportedTypeError,
    UnsupportedVersionError,
)
from .extension import UploadHelper, current_helper
from .protocols.chunked import ChunkRequest, ChunkResponse, StatusRequest, StatusResponse
from .service import Upload
from .signals import upload_created, upload_deleted, upload_finished
from .state import Access
from .version import __version__

__all__ = [
    "Access",
    "Actions",
    "BodyCutError",
    "BodyStalledError",
    "ChecksumMismatchError",
    "ChunkConflictError",
    "ChunkRequest",
    "ChunkResponse",
    "Error",
    "FinishedError",
    "ForbiddenError",
    "IncompleteError",
    "InvalidRequestError",
    "LengthMismatchError",
    "LengthRequiredError",
    "MethodNotAllowedError",
    "NotFoundError",
    "OffsetMismatchError",
    "StatusRequest",
    "StatusResponse",
    "StorageError",
    "StorageFullError",
    "SupersededError",
    "TooLargeError",
    "TooManyUploadsError",
    "UnsupportedTypeError",
    "UnsupportedVersionError",
    "Upload",
    "UploadHelper",
    "__version__",
    "current_helper",
    "upload_created",
    "upload_deleted",
    "upload_finished",
]
