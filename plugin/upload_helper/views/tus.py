"""tus 1.0 on the blueprint: which requests speak it, and what they are answered."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from urllib.parse import urljoin

from flask import Request, Response, request

from ..body import Body
from ..errors import (
    BodyCutError,
    BodyStalledError,
    ChecksumMismatchError,
    Error,
    FinishedError,
    InvalidRequestError,
    MethodNotAllowedError,
    OffsetMismatchError,
    TooLargeError,
    UnsupportedTypeError,
    UnsupportedVersionError,
    shown,
)
from ..intake import open_raw
from ..protocols import tus
from ..protocols.chunked import MULTIPART
from ..protocols.metadata import file_name
from ..service import NewUpload, Piece, Position
from ..state import AppState, current_request, current_state
from ..upload import UNKNOWN_SIZE
from . import files
from .urls import uid_of, upload_url

# What only requests of other protocols have.
_FOREIGN = ("Upload-Complete", "Upload-Incomplete", "Upload-Draft-Interop-Version")
_OF_CREATION = ("Upload-Length", "Upload-Defer-Length", "Upload-Concat")

# Statuses that tus gives to errors; clients send the rest of a body that broke off only after one from 500 on.
_STATUSES: dict[type[Exception], str] = {
    ChecksumMismatchError: "460 Checksum Mismatch",
    FinishedError: "403 Forbidden",
    BodyCutError: "503 Service Unavailable",
    BodyStalledError: "503 Service Unavailable",
}


def speaks(request: Request, uid: str | None) -> bool:
    """Say whether a request is of tus, be it without the version that it must have."""
    headers = request.headers
    if "Tus-Resumable" in headers:
        return True
    if any(name in headers for name in _FOREIGN) or "patch" in request.args:
        return False
    if request.mimetype == tus.OFFSET_TYPE:
        return request.method == "POST" or (request.method == "PATCH" and uid is not None)
    creates = uid is None and request.method == "POST" and request.mimetype != MULTIPART
    return creates and any(name in headers for name in _OF_CREATION)


def handle(method: str, uid: str | None) -> Response:
    """Answer a request of tus."""
    if method == "OPTIONS":
        return _answer(204, tus.Abilities(max_size=current_state().config.max_file_size))
    # Whatever is asked, it is not done for a client of another version.
    version = request.headers.get("Tus-Resumable")
    tus.Question.parse({} if version is None else {"Tus-Resumable": version})
    if uid is None:
        answer = _ON_COLLECTION.get(method)
        if answer is not None:
            return answer()
    elif method in _ON_UPLOAD:
        return _ON_UPLOAD[method](uid)
    allowed = _ON_COLLECTION if uid is None else _ON_UPLOAD
    raise MethodNotAllowedError(f"{shown(method)} is not among the methods that tus has here: {', '.join(allowed)}.")


def amend_error(error: Exception, answer: Response) -> Response:
    """Give the answer to an error the status and the headers of tus."""
    answer.status = _STATUSES.get(type(error), answer.status)
    if isinstance(error, OffsetMismatchError):
        answer.headers["Upload-Offset"] = str(error.expected)
    if isinstance(error, UnsupportedVersionError):
        answer.headers["Tus-Version"] = tus.VERSION
    return answer


def amend(answer: Response) -> Response:
    """Give any answer what all of them must have."""
    answer.headers["Tus-Resumable"] = tus.VERSION
    return answer


def _create() -> Response:
    state = current_state()
    creation = tus.Creation.parse(dict(request.headers))
    body = open_raw(request, state.config, state.config.max_file_size)
    _check_body(creation, body)
    if creation.concat not in ("", tus.PARTIAL):
        position = _put_together(state, creation)
    else:
        position = _begin(state, creation, body)
    offset = position.offset if creation.with_upload else None
    created = tus.Created(upload_url(position.upload.uploadUid), offset, _expires(position))
    return _answer(201, created)


def _check_body(creation: tus.Creation, body: Body) -> None:
    """Raise before anything is made where it is known already that the body can't be taken."""
    if creation.parts and not _is_empty(body):
        raise FinishedError("A file that is put together from parts can't have bytes of its own.")
    if not creation.with_upload and not _is_empty(body):
        raise UnsupportedTypeError(
            f"Content-Type {shown(request.mimetype)} is not {tus.OFFSET_TYPE}, so the body can't be taken."
        )
    if creation.length != UNKNOWN_SIZE and (body.length or 0) > creation.length:
        raise TooLargeError(f"The body has {body.length} bytes, more than the {creation.length} of the file.")


def _is_empty(body: Body) -> bool:
    """Say whether there is no body, reading from one that has not told its length."""
    return not any(len(block) for block in body.blocks()) if body.length is None else body.length == 0


def _begin(state: AppState, creation: tus.Creation, body: Body) -> Position:
    owner = state.owner()
    position = state.service.begin(_new(creation), owner, state.allow)
    if not creation.with_upload and creation.length:
        return position
    uid = position.upload.uploadUid
    blocks = body.blocks_for(creation.checksum) if creation.with_upload else ()
    try:
        # Allowed already; and an empty file is finished by this.
        return _append_piece(state, uid, Piece(0, blocks, body.length, checksum=creation.checksum), owner)
    except BaseException:
        # The client will never learn its URL.
        with suppress(Error):
            state.service.delete(uid, None)
        raise


def _new(creation: tus.Creation) -> NewUpload:
    return NewUpload(file_name(creation.metadata), creation.length, creation.metadata, creation.concat)


def _put_together(state: AppState, creation: tus.Creation) -> Position:
    return state.service.concatenate(_new(creation), _uids(creation.parts), state.owner(), state.allow)


def _uids(urls: Iterable[str]) -> list[str]:
    uids = []
    for url in urls:
        uid = ""
        # What is no URL at all.
        with suppress(ValueError):
            uid = uid_of(urljoin(request.base_url, url))
        if not uid:
            raise InvalidRequestError(f"{shown(url)} in Upload-Concat is not the URL of an upload here.")
        uids.append(uid)
    return uids


def _append(uid: str) -> Response:
    state, asked = current_state(), current_request()
    append = tus.Append.parse(dict(asked.headers))
    body = open_raw(asked, state.config, state.config.max_file_size)
    piece = Piece(append.offset, body.blocks_for(append.checksum), body.length, append.length, checksum=append.checksum)
    position = _append_piece(state, uid, piece, state.owner(), asking=True)
    return _answer(204, tus.Appended(position.offset, _expires(position)))


def _append_piece(state: AppState, uid: str, piece: Piece, owner: str | None, *, asking: bool = False) -> Position:
    try:
        return state.service.append(uid, piece, owner, state.allow if asking else None)
    except (BodyCutError, BodyStalledError) as error:
        # Their own remedy is for chunks, of which a part is nothing.
        error.remedy = OffsetMismatchError.remedy
        raise


def _stand(uid: str) -> Response:
    state = current_state()
    owner = state.owner()
    state.allow("status", state.service.peek(uid, owner))
    position = state.service.position(uid, owner)
    standing = tus.Standing(
        position.offset, position.upload.totalSize, position.metadata, position.concat, _expires(position)
    )
    return _answer(200, standing)


def _expires(position: Position) -> int | None:
    return None if position.expires is None else int(position.expires)


def _answer(status: int, message: tus.Abilities | tus.Created | tus.Appended | tus.Standing) -> Response:
    answer = Response(status=status, headers=message.build())
    # There is no content of which it would be the type.
    del answer.headers["Content-Type"]
    return answer


_ON_COLLECTION: dict[str, Callable[[], Response]] = {"GET": files.list_uploads, "POST": _create}
_ON_UPLOAD: dict[str, Callable[[str], Response]] = {
    "GET": files.download,
    "HEAD": _stand,
    "PATCH": _append,
    "DELETE": files.delete,
}
