"""Resumable, parallel, crash-proof uploads of big files for Flask applications."""

from .actions import Actions
from .errors import (
    BodyCutError,
    BodyStalledError,
    ChecksumMismatchError,
    ChunkConflictError,
    Error,
    ForbiddenError,
    IncompleteError,
    InvalidRequestError,
    LengthRequiredError,
    NotFoundError,
    StorageError,
    StorageFullError,
    SupersededError,
    TooLargeError,
    TooManyUploadsError,
    UnsupportedTypeError,
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
    "ForbiddenError",
    "IncompleteError",
    "InvalidRequestError",
    "LengthRequiredError",
    "NotFoundError",
    "StatusRequest",
    "StatusResponse",
    "StorageError",
    "StorageFullError",
    "SupersededError",
    "TooLargeError",
    "TooManyUploadsError",
    "UnsupportedTypeError",
    "Upload",
    "UploadHelper",
    "__version__",
    "current_helper",
    "upload_created",
    "upload_deleted",
    "upload_finished",
]
