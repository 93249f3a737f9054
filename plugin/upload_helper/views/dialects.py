"""What browser libraries send: chunks under their own names for the fields, and whole files in plain forms."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from urllib.parse import parse_qsl

from flask import Request, Response, g, request
from werkzeug.datastructures import MultiDict

from ..body import FilePart
from ..errors import (
    Error,
    ForbiddenError,
    IncompleteError,
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
    TooLargeError,
    UnsupportedTypeError,
)
from ..intake import (
    chunk_in,
    first_file,
    form_fields,
    known_fields,
    largest_chunk_form,
    largest_file_form,
    only_file,
    open_form,
    open_raw,
    respond,
)
from ..pipes import Block
from ..protocols import filepond, structs
from ..protocols.chunked import MULTIPART, REQUIRED_FIELDS, ChunkRequest, ChunkResponse, StatusRequest
from ..protocols.dialects import (
    ASKING,
    FINE_UPLOADER,
    PLUPLOAD,
    RESUMING,
    AllSent,
    Dialect,
    NamedChunk,
    StoredFile,
    build_answer,
    build_refusal,
    dialect_of,
    is_chunk,
    is_whole,
    passes,
)
from ..service import NewUpload, Piece, Upload
from ..state import current_state
from ..upload import check_count
from .urls import upload_url
from .whole import take_body, take_files

_FORM = "application/x-www-form-urlencoded"
_LONGEST_FORM = 64 << 10
_MOST_FIELDS = 100
# By their statuses (RFC 9110), whoever raised them.
_PASSING = frozenset({408, 425, 429, 502, 503, 504, 507})


def speaks(request: Request, uid: str | None) -> bool:
    """Say whether the query has the fields of a library, or the name of a file whose bytes are the body."""
    names = request.args.keys()
    if uid is not None or names >= REQUIRED_FIELDS:
        return False
    if request.method in ("GET", "HEAD"):
        return dialect_of(names) in ASKING
    if request.method not in ("POST", "PUT"):
        return False
    bare = request.mimetype not in (MULTIPART, _FORM, *structs.STRUCT_TYPES)
    return dialect_of(names) is not None or (bare and not names.isdisjoint(("name", FINE_UPLOADER.file_name)))


def handle(method: str, uid: str | None) -> Response:
    """Answer a request on the collection."""
    if uid is not None or method not in ("GET", "HEAD", "POST", "PUT"):
        raise MethodNotAllowedError(f"{method} is not among the methods that are taken here.")
    if method in ("GET", "HEAD"):
        return _is_there()
    if request.mimetype == MULTIPART:
        return _take_form()
    # A raw chunk may have any type, for some libraries send it with the file's own.
    return _all_sent() if request.mimetype == _FORM and dialect_of(request.args) is None else _take_raw()


def amend_error(error: Exception, answer: Response) -> Response:
    """Give an error the status by which the library goes on or stops, and the members that it reads."""
    dialect: Dialect | None = g.get("upload_helper_dialect") or dialect_of(request.args)
    if dialect is not None:
        passing = answer.status_code in _PASSING or (isinstance(error, Error) and passes(error))
        if answer.mimetype in structs.STRUCT_TYPES:
            members = structs.decode(answer.get_data(), answer.mimetype)
            answer.set_data(structs.encode(build_refusal(dialect, members, passing=passing), answer.mimetype))
        answer.status_code = dialect.refused(answer.status_code, passing=passing)
    return answer


def _is_there() -> Response:
    """Say whether a chunk is there: 200, or 204, for a 404 would end the upload in some libraries."""
    dialect, chunk = _named_chunk(known_fields(request.args))
    state = current_state()
    owner = _owner(dialect)
    query = _query(dialect.key(chunk), chunk.file_name, chunk.total_size, chunk.count)
    answer = Response(status=204)
    if state.service.has_chunk(query, chunk.number, owner, state.allow):
        upload = state.service.find(query, owner)
        answer = respond(request, build_answer([_stored(upload)]))
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _take_raw() -> Response:
    """Take a body that is a chunk or a file, described by the query."""
    state = current_state()
    fields = known_fields(request.args)
    dialect = _spoken(fields)
    if dialect is None or is_whole(dialect, fields):
        return take_body(fields)
    dialect, chunk = _named_chunk(fields)
    body = open_raw(request, state.config, state.config.max_chunk_size)
    if chunk.length is not None and body.length not in (None, chunk.length):
        raise InvalidRequestError(f"The chunk has {body.length} bytes instead of the {chunk.length} by its fields.")
    return _take_chunk(dialect, chunk, chunk.file_name, body.blocks_for(""), resuming=RESUMING in fields)


def _take_form() -> Response:
    """Take a form; its fields say whether its file is a chunk, and of which library."""
    state = current_state()
    config = state.config
    limit = largest_chunk_form(config) if is_chunk(request.args) else largest_file_form(config)
    form = open_form(request, config, limit)
    part = first_file(form)
    fields = form_fields(request, form)
    if part is not None and not _suffices(fields, part) and form.size <= largest_chunk_form(config):
        form.put_aside(part, config.max_chunk_size)
        fields = form_fields(request, form)
    if not is_chunk(fields):
        _spoken(fields)
        return take_files(form, part, fields)
    form.restrict(largest_chunk_form(config))
    if _spoken(fields) is None or part is None:
        chunk = chunk_in(ChunkRequest, fields, form, part)
        return respond(request, ChunkResponse(state.service.receive(chunk, state.owner(), state.allow).uploadUid))
    dialect, named = _named_chunk(fields)
    name = named.file_name or part.file_name
    return _take_chunk(dialect, named, name, only_file(form, part), resuming=RESUMING in fields)


def _suffices(fields: dict[str, str], part: FilePart) -> bool:
    """Say whether the fields before a file tell what to do with it."""
    dialect = _spoken(fields)
    if dialect is not None:
        return fields.keys() >= dialect.required
    return fields.keys() >= REQUIRED_FIELDS or FINE_UPLOADER.identifier in fields or filepond.is_form(part.name, fields)


def _spoken(fields: dict[str, str]) -> Dialect | None:
    """Return the library that sends a chunk with these fields; None for the chunk protocol and for whole files."""
    dialect = None if fields.keys() >= REQUIRED_FIELDS else dialect_of(fields)
    # Errors are worded for it from here on.
    g.upload_helper_dialect = dialect or (FINE_UPLOADER if FINE_UPLOADER.identifier in fields else None)
    return dialect


def _named_chunk(fields: dict[str, str]) -> tuple[Dialect, NamedChunk]:
    dialect = _spoken(fields)
    if dialect is None:
        raise InvalidRequestError("The fields are not those of a chunk.")
    return dialect, dialect.parse(fields)


def _owner(dialect: Dialect) -> str | None:
    owner = current_state().owner()
    if owner == "" and dialect.guessable:
        # Strangers to each other share this owner.
        raise ForbiddenError(
            f"The identifiers of {dialect.name} can be guessed, so anybody could find or spoil this upload.",
            remedy="Developer: pass UploadHelper(app, identify=f), where f() returns who the current user is, such as"
            " a random id that is kept in the session.",
        )
    return owner


def _take_chunk(dialect: Dialect, chunk: NamedChunk, name: str, blocks: Iterable[Block], *, resuming: bool) -> Response:
    state = current_state()
    owner = _owner(dialect)
    if dialect is PLUPLOAD:
        upload = _append(dialect, chunk, owner, blocks)
    else:
        if resuming:
            _require_begun(dialect, chunk, name, owner)
        members = {
            "fileName": name, "totalSize": chunk.total_size, "chunkCount": chunk.count, "chunkNumber": chunk.number,
            "identifier": dialect.key(chunk),
        }  # fmt: skip
        upload = state.service.receive(ChunkRequest.streamed(members, blocks, chunk.length), owner, state.allow)
    return respond(request, build_answer([_stored(upload)]))


def _require_begun(dialect: Dialect, chunk: NamedChunk, name: str, owner: str | None) -> None:
    """Raise IncompleteError if chunks that the library will not send again are not there any more."""
    try:
        current_state().service.find(_query(dialect.key(chunk), name, chunk.total_size, chunk.count), owner)
    except NotFoundError:
        raise IncompleteError(
            "The upload that is to go on is not there any more.", remedy="Send the file again from its beginning."
        ) from None


def _append(dialect: Dialect, chunk: NamedChunk, owner: str | None, blocks: Iterable[Block]) -> Upload:
    """Append a chunk of plupload, which tells no size and sends one after the other."""
    state = current_state()
    check_count(state.config, state.config.max_file_size, chunk.count)
    new = NewUpload(chunk.file_name, identifier=dialect.key(chunk))
    if chunk.number == 0:
        # The name is all there is to tell a file by, and this may be another one.
        position = state.service.begin(new, owner, state.allow, anew=True)
    else:
        position = state.service.resume(new, owner)
    blocks = _at_most(blocks, state.config.max_chunk_size)
    if chunk.number and position.pieces == chunk.number + 1:
        # The answer was lost; the library is trusted to send the same bytes again.
        state.allow("write", position.upload)
        deque(blocks, maxlen=0)
        return position.upload
    if position.pieces != chunk.number:
        raise IncompleteError(
            f"Chunk {chunk.number} does not follow the {position.pieces} that are there.",
            remedy="Send one chunk after the other, or the file again from its beginning.",
        )
    piece = Piece(position.offset, blocks, None, complete=chunk.number == chunk.count - 1, whole=True)
    try:
        return state.service.append(position.upload.uploadUid, piece, owner, state.allow).upload
    except BaseException:
        if chunk.number == 0:
            position.upload.delete()
        raise


def _all_sent() -> Response:
    """Answer Fine Uploader's question whether the file is whole."""
    state = current_state()
    fields = _form_fields()
    g.upload_helper_dialect = FINE_UPLOADER
    sent = AllSent.parse(fields)
    owner = state.owner()
    upload = state.service.find(_query(sent.key, sent.file_name, sent.total_size, sent.count), owner)
    state.allow("status", upload)
    return respond(request, build_answer([_stored(state.service.get_upload(upload.uploadUid, owner))]))


def _form_fields() -> dict[str, str]:
    """Return the fields of a form without files."""
    form = request.form if "form" in request.__dict__ else MultiDict[str, str]()
    if not form:
        body = b"".join(open_raw(request, current_state().config, _LONGEST_FORM))
        with suppress(ValueError):
            form = MultiDict(parse_qsl(body.decode("ascii"), errors="strict", max_num_fields=_MOST_FIELDS))
    if FINE_UPLOADER.identifier not in form:
        raise UnsupportedTypeError(f"A form of the type {_FORM} has no files; use {MULTIPART}.")
    return known_fields(form)


def _query(identifier: str, file_name: str, total_size: int, count: int) -> StatusRequest:
    return StatusRequest(identifier=identifier, fileName=file_name, totalSize=total_size, chunkCount=count)


def _stored(upload: Upload) -> StoredFile:
    return StoredFile(upload.uploadUid, upload_url(upload.uploadUid))


def _at_most(blocks: Iterable[Block], length: int) -> Iterator[Block]:
    """Pass a chunk on; raises TooLargeError at the first byte over the limit."""
    taken = 0
    for block in blocks:
        taken += len(block)
        if taken > length:
            raise TooLargeError(f"The chunk is over the limit of {length} bytes (UPLOAD_HELPER_MAX_CHUNK_SIZE).")
        yield block
