"""Files that come whole: in a plain form, from a library that had no need to cut them, or as a bare body."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

from flask import Response, request

from ..body import FilePart
from ..errors import Error, InvalidRequestError, TooLargeError
from ..intake import AnyForm, open_raw, respond
from ..pipes import Block
from ..protocols import filepond
from ..protocols.dialects import FINE_UPLOADER, StoredFile, WholeFile, build_answer, is_chunk
from ..service import Allow, NewUpload, Piece, Position, Upload
from ..state import current_state
from . import pages
from .urls import upload_url

_Incoming = tuple[WholeFile, Iterable[Block]]


def take_body(fields: dict[str, str]) -> Response:
    """Take a file that is the body; the query names it."""
    config = current_state().config
    body = open_raw(request, config, config.max_file_size)
    return _answer(
        fields, _store([(WholeFile.parse(fields, length=body.length), body.blocks_for(""))], current_state().allow)
    )


def take_files(form: AnyForm, part: FilePart | None, fields: dict[str, str]) -> Response:
    """Take every file in a form from `part` on, or none of them."""
    uploads = _store(_incoming(form, part, fields), current_state().allow)
    if not uploads or part is None:
        raise InvalidRequestError("The form has no file.", remedy="Send the file as a part with a file name.")
    if filepond.is_form(part.name, fields):
        return Response(filepond.build_id(uploads[0].uploadUid), mimetype="text/plain")
    return pages.arrived(uploads) if pages.wanted() else _answer(fields, uploads)


def take_from_form(files: Iterable[tuple[str, Iterable[bytes]]]) -> list[Upload]:
    """Take files, given by name and blocks, from a form of the host, who has checked who sends it."""
    return _store(((WholeFile(name), blocks) for name, blocks in files), None)


def _incoming(form: AnyForm, part: FilePart | None, fields: dict[str, str]) -> Iterator[_Incoming]:
    while part is not None:
        if not part.is_empty:
            yield WholeFile.parse(fields, part_name=part.file_name), part.blocks
        part = form.next_file()
    if is_chunk(form.fields):
        # Its fields come behind it, and of a chunk that is not too large they were read before.
        limit = current_state().config.max_chunk_size
        raise TooLargeError(f"The chunk is over the limit of {limit} bytes (UPLOAD_HELPER_MAX_CHUNK_SIZE).")


def _store(files: Iterable[_Incoming], allow: Allow | None) -> list[Upload]:
    """Store files; none is finished before the end of the request was seen, and none is left if one fails."""
    service = current_state().service
    owner = current_state().owner()
    begun: list[Position] = []
    try:
        for file, blocks in files:
            begun.append(service.begin(NewUpload(file.file_name, file.total_size), owner, allow))
            piece = Piece(0, blocks, None, complete=False)
            begun[-1] = service.append(begun[-1].upload.uploadUid, piece, owner)
        return [
            service.append(there.upload.uploadUid, Piece(there.offset, (), 0, complete=True), owner).upload
            for there in begun
        ]
    except BaseException:
        for there in begun:
            with suppress(Error):
                service.delete(there.upload.uploadUid, owner)
        raise


def _answer(fields: dict[str, str], uploads: list[Upload]) -> Response:
    stored = [StoredFile(u.uploadUid, upload_url(u.uploadUid), u.fileName, u.totalSize) for u in uploads]
    members = build_answer(stored)
    if FINE_UPLOADER.identifier in fields:
        # By this the library asks to delete the file.
        members["newUuid"] = stored[0].upload_uid
    return respond(request, members)
