"""FilePond's own protocol: a file comes in chunks that are appended; and what it asks of a file that is there."""

from __future__ import annotations

from collections.abc import Iterable

from flask import Request, Response, request

from ..downloads import send_upload
from ..errors import (
    ForbiddenError,
    InvalidRequestError,
    MethodNotAllowedError,
    OffsetMismatchError,
)
from ..intake import open_form, open_raw, query
from ..protocols.chunked import MULTIPART
from ..protocols.filepond import KINDS, LONGEST_ID, Ask, Create, Patch, Standing, build_id, parse_id
from ..service import NewUpload, Piece
from ..state import current_state

_PATCH = "patch"
_LONGEST_METADATA = 256 << 10


def speaks(request: Request, uid: str | None) -> bool:
    """Say whether the query or the headers are FilePond's; its form with a whole file is told by its fields."""
    if uid is not None:
        return False
    if not request.args.keys().isdisjoint((_PATCH, *KINDS)):
        return True
    if request.method == "DELETE":
        return request.mimetype in ("text/plain", "")
    return request.method == "POST" and "Upload-Length" in request.headers


def handle(method: str, uid: str | None) -> Response:
    """Answer a request on the collection."""
    if uid is None and method == "POST" and "Upload-Length" in request.headers:
        return _create()
    if uid is None and method == "DELETE":
        return _revert()
    if uid is None and _PATCH in request.args and method in ("PATCH", "HEAD"):
        return _append() if method == "PATCH" else _position()
    if uid is None and _PATCH not in request.args and method in ("GET", "HEAD"):
        return _load()
    raise MethodNotAllowedError(f"{method} is not among the methods that FilePond uses here.")


def amend_error(error: Exception, answer: Response) -> Response:
    """Say with an offset that is wrong which one is right."""
    if isinstance(error, OffsetMismatchError):
        answer.headers["Upload-Offset"] = str(error.expected)
    return answer


def _create() -> Response:
    state = current_state()
    wanted = Create.parse(_headers())
    if request.mimetype == MULTIPART and open_form(request, state.config, _LONGEST_METADATA).next_file() is not None:
        raise InvalidRequestError("The form has a file, and the header Upload-Length says that it will come in chunks.")
    # The name comes with the first chunk.
    position = state.service.begin(NewUpload(None, wanted.length), state.owner(), state.allow)
    return Response(build_id(position.upload.uploadUid), 201, mimetype="text/plain")


def _append() -> Response:
    state = current_state()
    patch = Patch.parse(_headers(), query(request))
    body = open_raw(request, state.config, state.config.max_file_size)
    # Kept as a whole or not at all: a chunk of which a part was kept, FilePond would take for sent.
    piece = Piece(
        patch.offset, body.blocks_for(""), body.length, total_size=patch.length, whole=True, file_name=patch.file_name
    )
    try:
        offset = state.service.append(patch.transfer_id, piece, state.owner(), state.allow).offset
    except OffsetMismatchError as error:
        size = state.service.peek(patch.transfer_id, state.owner()).totalSize
        if patch.length != size or patch.offset + _size(body.blocks()) > error.expected:
            raise
        # The chunk is there, and its answer was lost.
        offset = error.expected
    return Response(status=204, headers=Standing(offset, patch.length).build())


def _position() -> Response:
    state = current_state()
    transfer_id = query(request)[_PATCH]
    owner = state.owner()
    upload = state.service.peek(transfer_id, owner)
    state.allow("status", upload)
    position = state.service.position(transfer_id, owner)
    return Response(headers=Standing(position.offset, upload.totalSize).build())


def _revert() -> Response:
    state = current_state()
    owner = state.owner()
    transfer_id = parse_id(b"".join(open_raw(request, state.config, LONGEST_ID)))
    state.allow("delete", state.service.peek(transfer_id, owner))
    state.service.delete(transfer_id, owner)
    return Response(status=204)


def _load() -> Response:
    state = current_state()
    asked = Ask.parse(query(request))
    if asked.kind == "fetch":
        raise ForbiddenError(
            "This server fetches no files from elsewhere.", remedy="Fetch it in the page, and send it."
        )
    owner = state.owner()
    state.allow("read", state.service.peek(asked.source, owner))
    return send_upload(state.service.get_upload(asked.source, owner), request.environ)


def _headers() -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}


def _size(blocks: Iterable[bytes | memoryview]) -> int:
    return sum(len(block) for block in blocks)
