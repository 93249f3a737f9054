"""Errors of uploads and of work: one tree, each with a code, an HTTP status, a text and what to do about it."""

from __future__ import annotations

from math import ceil
from types import NoneType
from typing import Any, ClassVar


def shown(value: object) -> str:
    """Return a value as it is shown in an error: short, whatever somebody sent."""
    if isinstance(value, (str, bytes)):
        return repr(value[:60]) + ("…" if len(value) > 60 else "")
    if isinstance(value, int) and value.bit_length() > 200:
        return f"a number of {value.bit_length()} bits"
    return repr(value) if isinstance(value, (int, float, NoneType)) else f"of type {type(value).__name__}"


class Error(Exception):
    """An upload, or a request about one, could not be served.

    Hosts catch this class around ``get_upload`` and ``handle_chunk_request``. ``str(error)`` says what was wrong and
    with which value, ``remedy`` what to do, ``data`` holds machine-readable details. ``code`` is stable and part of
    the wire; ``status`` is the HTTP status that the error is answered with.
    """

    code: ClassVar[str] = "upload_error"
    status: ClassVar[int] = 400
    remedy: str = ""
    retry_after: int | None = None
    """Seconds after which asking again makes sense, or None where it never does by itself."""

    def __init__(self, message: str, *, remedy: str | None = None, **data: Any) -> None:
        super().__init__(message)
        self.data = data
        if remedy is not None:
            self.remedy = remedy

    def as_json(self) -> dict[str, Any]:
        """Return the body of the answer: ``error`` (text), ``code``, ``remedy`` and the members of ``data``."""
        return {"error": str(self), "code": self.code, "remedy": self.remedy, **self.data}


class InvalidRequestError(Error):
    """A field or a header is missing, malformed, or contradicts what the upload was created with."""

    code = "invalid_request"
    remedy = "Correct the request; sending it again unchanged will fail again."


class BodyCutError(Error):
    """The body ended before all of its declared bytes had arrived."""

    code = "body_cut"
    remedy = "Send the chunk again; nothing of it was acknowledged."


class BodyStalledError(Error):
    """The client was silent for longer than ``UPLOAD_HELPER_BODY_TIMEOUT``."""

    code = "body_stalled"
    status = 408
    remedy = "Send the chunk again; nothing of it was acknowledged."


class ForbiddenError(Error):
    """The host application does not allow this operation."""

    code = "forbidden"
    status = 403
    remedy = "Sign in with an account that may do this."


class NotFoundError(Error):
    """There is no such upload, or it belongs to somebody else: the two are not told apart."""

    code = "not_found"
    status = 404
    remedy = "It may have expired or been deleted; start a new one by leaving uploadUid empty."

    def __init__(self, message: str = "There is no such upload.", **data: Any) -> None:
        super().__init__(message, **data)


class NoJobError(NotFoundError):
    """No task belongs to this upload: it is not finished, the host has none for it, or the record was cleared."""

    code = "no_job"
    remedy = "The task starts when the upload is finished."

    def __init__(self, message: str = "No task belongs to this upload.", **data: Any) -> None:
        super().__init__(message, **data)


class ChunkConflictError(Error):
    """A chunk with this number is already there and has other bytes; the first one stands."""

    code = "chunk_conflict"
    status = 409
    remedy = "If the file has changed, delete this upload, or start a new one with another identifier."


class SupersededError(Error):
    """A newer request took this chunk over while this one was still sending."""

    code = "superseded"
    status = 409
    remedy = "Nothing to do if the newer request is yours; otherwise send the chunk again."


class IncompleteError(Error):
    """The upload is not ready: chunks or bytes are missing."""

    code = "incomplete"
    status = 409
    remedy = "Ask for the status and send what is missing."


class LengthRequiredError(Error):
    """The body has no declared length, and this WSGI server would hide where it ends."""

    code = "length_required"
    status = 411
    remedy = "Send a Content-Length."


class OffsetMismatchError(Error):
    """The bytes begin at another offset than the one up to which the upload is there; nothing was changed."""

    code = "offset_mismatch"
    status = 409
    remedy = "Ask for the offset with HEAD, and send what follows it."

    def __init__(self, expected: int, provided: int) -> None:
        super().__init__(
            f"The upload is there up to offset {expected}; the request begins at {provided}.",
            expected=expected,
            provided=provided,
        )
        self.expected = expected
        """Bytes of the upload that are kept."""
        self.provided = provided
        """Where the client believed that its bytes begin."""


class LengthMismatchError(InvalidRequestError):
    """What was said of the file's length contradicts itself, or the bytes that are there already."""

    code = "length_mismatch"
    remedy = "Send the same length in every request; to send another file, start a new upload."


class FinishedError(Error):
    """The upload is finished, so nothing can be appended to it."""

    code = "finished"
    status = 409
    remedy = "Nothing to do if this is your file; to send another one, start a new upload."


class MethodNotAllowedError(Error):
    """The URL does not take this method."""

    code = "method_not_allowed"
    status = 405
    remedy = "Ask with OPTIONS what is taken here."


class UnsupportedVersionError(Error):
    """The client speaks a version of a protocol that is not understood here."""

    code = "unsupported_version"
    status = 412
    remedy = "Use one of the versions that are named."


class TooLargeError(Error):
    """A file, a chunk, a request or an owner's total is larger than the configuration allows."""

    code = "too_large"
    status = 413
    remedy = "Send less, or ask the operator to raise the limit."


class UnsupportedTypeError(Error):
    """The request's Content-Type or Content-Encoding is none that is understood, or the file's extension is refused."""

    code = "unsupported_type"
    status = 415
    remedy = "Use one of the types that are named."


class ChecksumMismatchError(Error):
    """The bytes that arrived do not have the checksum that was declared; they were discarded."""

    code = "checksum_mismatch"
    status = 422
    remedy = "Send the discarded bytes again."


class TooManyUploadsError(Error):
    """The owner has as many unfinished uploads as the configuration allows."""

    code = "too_many_uploads"
    status = 429
    remedy = "Finish or cancel an unfinished upload first."
    retry_after = 60


class StorageError(Error):
    """The storage folder is not as it must be: not writable, a planted link, an unreadable record."""

    code = "storage_error"
    status = 500
    remedy = "The operator must look at the folder that UPLOAD_HELPER_FOLDER names."


class StorageFullError(Error):
    """The disk has no room. What was acknowledged stays good, and the upload goes on when there is room again."""

    code = "storage_full"
    status = 507
    remedy = "Try again later; nothing that was acknowledged is lost."
    retry_after = 60


# --- Handlers of background work ---


class HandlerError(Error):
    """A handler of a task failed; the text stands in the task's record."""

    code = "handler_error"
    status = 500
    remedy = "Look at what the handler does; the log of the worker says more."

    def __init__(self, message: str, *, retry_after: float | None = None, **data: Any) -> None:
        super().__init__(message, **data)
        if retry_after is not None:
            self.retry_after = max(0, ceil(retry_after))


class InvalidHandlersError(HandlerError):
    """A handler, or an array of them, is not as it must be; nothing of it ran."""

    code = "invalid_handlers"
    status = 400
    remedy = 'Give a list of handlers such as {"action": "run", "type": "python", "method": "name"}.'


class UnknownNameError(HandlerError):
    """A handler names a function, a type, a variable or an alias that nobody registered here."""

    code = "unknown_name"
    status = 404
    remedy = "Register it in the process that runs the work, or correct the name."


class HttpHandlerError(HandlerError):
    """A server could not be reached, or answered with a status of 400 and above."""

    code = "http_handler_error"
    status = 502
    remedy = "Look whether the server can be reached and what it says of the request."


class SqlHandlerError(HandlerError):
    """A statement failed; its transaction was rolled back."""

    code = "sql_handler_error"
    remedy = "Correct the statement or its parameters, or look at the database."


# --- Background work ---


class WorkError(Error):
    """A task could not be started, found, or done. Nothing of it is answered over HTTP unless a host does so."""

    code = "work_error"
    status = 500
    remedy = "The operator must look at the task and its log."


class InvalidTaskError(WorkError):
    """What should become a task is not one: a broken array of handlers, a condition, a tag or a period."""

    code = "invalid_task"
    status = 400
    remedy = "Correct what is named and start the task again."


class UnknownTaskError(WorkError):
    """There is no such task in the ledger, or it ended so long ago that it was cleared."""

    code = "unknown_task"
    status = 404
    remedy = "Ended tasks are cleared after a while; `list` shows those that are there."


class LedgerError(WorkError):
    """The ledger's database is not as it must be: read-only, full, corrupt, or not a ledger."""

    code = "ledger_error"
    remedy = "Look at the database and its disk; nothing that was written is lost."


class LedgerBusyError(LedgerError):
    """The ledger's database is locked by somebody else, or can't be reached just now."""

    code = "ledger_busy"
    status = 503
    remedy = "Try again; if it stays so, look for a process that holds the database."
    retry_after = 1


class LedgerVersionError(LedgerError):
    """The ledger, or a task in it, was written by a newer version of this package; it was left alone."""

    code = "ledger_version"
    remedy = "Upgrade flask-upload-helper here, or give this version a ledger of its own."
