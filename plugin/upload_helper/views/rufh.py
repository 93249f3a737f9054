"""Resumable Uploads for HTTP, as its server."""

from __future__ import annotations

import time
from contextlib import suppress

from flask import Request, Response, g, request

from ..body import Body
from ..config import Config
from ..errors import (
    BodyCutError,
    BodyStalledError,
    ChecksumMismatchError,
    Error,
    FinishedError,
    LengthMismatchError,
    MethodNotAllowedError,
    OffsetMismatchError,
    StorageFullError,
    TooLargeError,
    UnsupportedTypeError,
    UnsupportedVersionError,
)
from ..intake import open_raw, respond
from ..protocols import structs
from ..protocols.chunked import MULTIPART, StatusRequest
from ..protocols.dialects import is_chunk
from ..protocols.problems import PROBLEM, Problem
from ..protocols.rufh import (
    PARTIAL,
    VERSION,
    VERSION_HEADER,
    Append,
    Creation,
    Limits,
    Question,
    Standing,
    client_version,
)
from ..service import NewUpload, Piece, Position
from ..state import current_state
from ..upload import UNKNOWN_SIZE
from . import dialects, files
from .urls import upload_url

_FORMS = (MULTIPART, "application/x-www-form-urlencoded")
# After these the upload goes on from where it stands, which may be another offset than before.
_GOES_ON = (
    BodyCutError, BodyStalledError, ChecksumMismatchError, FinishedError, LengthMismatchError, StorageFullError,
    TooLargeError,
)  # fmt: skip
# What an error's answer says of the upload, kept from where it happened.
_STANDING = "_upload_helper_rufh_standing"


def speaks(request: Request, uid: str | None) -> bool:
    """Say whether the client speaks this protocol."""
    if "Tus-Resumable" in request.headers:
        return False
    marked = "Upload-Complete" in request.headers or VERSION_HEADER in request.headers
    if uid is not None:
        return marked or (request.method == "PATCH" and request.mimetype == PARTIAL)
    return marked and request.method not in ("GET", "HEAD") and not _is_upgraded(request)


def handle(method: str, uid: str | None) -> Response:
    """Answer a request on the collection, or on an upload."""
    if method == "OPTIONS":
        return _offer()
    if uid is None and method == "POST":
        return _create()
    if uid is not None and method == "PATCH":
        return _append(uid)
    if uid is not None and method in ("HEAD", "GET"):
        return _look(uid)
    if uid is not None and method == "DELETE":
        Question.parse(dict(request.headers))
        return files.delete(uid)
    raise MethodNotAllowedError(f"{method} is taken neither to begin an upload nor to go on with one.")


def position_headers(position: Position, version: int | None = None) -> dict[str, str]:
    """Return the headers that say where an upload stands (section 4.3.2), to a client of this interop version."""
    standing = Standing(position.offset, position.complete, position.upload.totalSize, _limits(position.expires))
    return {**standing.build(version), "Cache-Control": "no-store"}


def amend_error(error: Exception, answer: Response) -> Response:
    """Make a problem document of the answer to an error, and say where the upload stands."""
    problem = Problem.of(structs.decode(answer.get_data(), answer.mimetype or structs.JSON), answer.status_code)
    answer.set_data(structs.encode(problem.build(), structs.JSON))
    answer.mimetype = PROBLEM
    if request.method in ("POST", "PATCH"):
        standing = g.get(_STANDING, Standing(complete=False))
        if isinstance(error, OffsetMismatchError):
            standing = Standing(error.expected, complete=False)
        answer.headers.update(standing.build())
    if isinstance(error, TooLargeError):
        answer.headers["Upload-Limit"] = _limits(None).build(client_version(dict(request.headers)))
    if isinstance(error, UnsupportedVersionError):
        answer.headers[VERSION_HEADER] = str(VERSION)
    if isinstance(error, UnsupportedTypeError) and request.method == "PATCH":
        answer.headers["Accept-Patch"] = PARTIAL
    return answer


def _is_upgraded(request: Request) -> bool:
    """Say whether this is a request of another protocol, to which an HTTP library has added Upload-Complete: ?1.

    What is in the whole request is what it was before (section 11.1.1), so that the other protocol answers it.
    """
    ordinary = request.mimetype in _FORMS or is_chunk(request.args) or dialects.speaks(request, None)
    return ordinary and request.method == "POST" and "?0" not in request.headers.get("Upload-Complete", "")


def _offer() -> Response:
    answer = Response(status=204)
    age = current_state().config.expiry.total_seconds()
    answer.headers["Upload-Limit"] = _limits(time.time() + age if age else None).build()
    answer.headers["Accept-Patch"] = PARTIAL
    return answer


def _create() -> Response:
    state = current_state()
    message = Creation.parse(dict(request.headers))
    if request.mimetype in _FORMS:
        raise UnsupportedTypeError(
            f"A part of a form of {request.mimetype} is no part of a file; send the file's bytes."
        )
    body = open_raw(request, state.config, state.config.max_file_size)
    new = NewUpload(message.name, message.total_size, metadata=message.metadata, checksum=message.file_checksum)
    position = state.service.begin(new, state.owner(), state.allow)
    if message.whole or message.checksum or body.length != 0:
        blocks = body.blocks_for(message.checksum or message.file_checksum)
        piece = Piece(0, blocks, body.length, complete=message.whole, checksum=message.checksum)
        try:
            position = state.service.append(position.upload.uploadUid, piece, None)
        except BaseException:
            # No interim response has told the client of the upload, so nobody could ever go on with it.
            _discard(position.upload.uploadUid)
            raise
    return _created(position, message.version)


def _append(uid: str) -> Response:
    state = current_state()
    message = Append.parse(dict(request.headers))
    body = open_raw(request, state.config, state.config.max_file_size)
    blocks = body.blocks_for(message.checksum)
    piece = Piece(message.offset, blocks, body.length, message.total_size, message.complete, message.checksum)
    try:
        position = state.service.append(uid, piece, state.owner(), state.allow)
    except _GOES_ON as error:
        if isinstance(error, FinishedError) and _is_lost_answer(message, body, uid):
            return _created(state.service.position(uid, state.owner()), message.version)
        judged = _judged(error, uid, message, body)
        if judged is error:
            raise
        raise judged from error
    if position.complete:
        # As the request that began the upload would have been answered if it had had the whole file (section 4.4.2).
        return _created(position, message.version)
    answer = Response(status=204)
    answer.headers.update(_standing(position).build(message.version))
    return answer


def _look(uid: str) -> Response:
    state = current_state()
    message = Question.parse(dict(request.headers))
    state.allow("status", state.service.peek(uid, state.owner()))
    try:
        position = state.service.position(uid, state.owner())
    except ChecksumMismatchError:
        # Found out only now, because the process died that had taken the last bytes.
        _discard(uid)
        raise
    answer = files.download(uid) if position.complete and request.method == "GET" else Response(status=204)
    answer.headers.update(position_headers(position, message.version))
    return answer


def _created(position: Position, version: int | None) -> Response:
    url = upload_url(position.upload.uploadUid)
    answer = respond(request, {"uploadUid": position.upload.uploadUid, "url": url}, 201)
    answer.headers.update(_standing(position, url).build(version))
    return answer


def _standing(position: Position, url: str = "") -> Standing:
    # With the offset in each, for the drafts up to 05 and clients that still rely on it.
    return Standing(position.offset, position.complete, limits=_limits(position.expires), location=url)


def _limits(expires: float | None) -> Limits:
    config: Config = current_state().config
    age = None if expires is None else max(0, int(expires - time.time()))
    return Limits(max_size=config.max_file_size, max_age=age)


def _is_lost_answer(message: Append, body: Body, uid: str) -> bool:
    """Say whether the client completes once more what it has completed, for the answer was lost (section 4.4.2)."""
    state = current_state()
    upload = state.service.peek(uid, state.owner())
    state.allow("write", upload)
    return bool(message.complete) and message.offset == upload.totalSize and not any(map(len, body.blocks()))


def _judged(error: Error, uid: str, message: Append, body: Body) -> Error:
    """Return the error to answer with, after an upload was given up that can't become what it was meant to be."""
    state = current_state()
    upload = state.service.peek(uid, state.owner())
    there = state.service.status(StatusRequest(uid), state.owner(), roughly=True).offset
    end = message.offset + max(body.taken, body.length or 0)
    gone = False
    if upload.path:
        # What is complete stays, whatever else may be wrong with the request.
        error = FinishedError(f"The upload is complete with {upload.totalSize} bytes.")
    elif isinstance(error, TooLargeError) and UNKNOWN_SIZE != upload.totalSize < end:
        # Section 4.4.2: an upload is invalid when there is more of it than its length.
        gone = True
        error = LengthMismatchError(f"The content goes beyond the {upload.totalSize} of the file; it was given up.")
    elif isinstance(error, ChecksumMismatchError):
        # Where the digest of the file is wrong, all of it is missing again; but no offset may decrease (section 4.1.1).
        gone = not message.checksum or (there or 0) < message.offset
    if gone:
        _discard(uid)
    setattr(g, _STANDING, Standing(None if gone else there, complete=gone))
    return error


def _discard(uid: str) -> None:
    with suppress(Error):
        current_state().service.delete(uid, None)
