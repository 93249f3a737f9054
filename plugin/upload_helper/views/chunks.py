"""The chunk protocol, and what is the same for all: listing, downloading, deleting."""

from __future__ import annotations

from flask import Response, request

from ..downloads import send_upload
from ..errors import MethodNotAllowedError
from ..intake import read_chunk, respond
from ..protocols.chunked import ChunkRequest, ChunkResponse
from ..protocols.tus import PARTIAL
from ..state import current_request, current_state
from . import files, pages, rufh

# Whatever the protocol: PUT a file by its name, PATCH and DELETE for FilePond, POST on an upload for tus.
ON_COLLECTION = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
ON_UPLOAD = ("GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS")


def handle(method: str, uid: str | None) -> Response:
    """Answer a request that speaks no other protocol."""
    if uid is None and method == "POST":
        return send_chunk()
    if uid is None and method in ("GET", "HEAD"):
        return files.list_uploads() if "identifier" in request.args or not pages.wanted() else pages.overview()
    if uid is not None and method == "GET":
        return files.download(uid)
    if uid is not None and method == "HEAD":
        return look(uid)
    if uid is not None and method == "DELETE":
        return files.delete(uid)
    raise MethodNotAllowedError(
        f"{method} is not taken here, or only with the headers of a protocol that has it.",
        remedy="To send a file as the body, PUT it to the collection with its name in the query, ?name=survey.tif.",
    )


def send_chunk() -> Response:
    """Take one chunk."""
    state, asked = current_state(), current_request()
    chunk = read_chunk(asked, state.config, ChunkRequest)
    upload = state.service.receive(chunk, state.owner(), state.allow)
    return respond(asked, ChunkResponse(upload.uploadUid))


def look(uid: str) -> Response:
    """Say what the file is, or how far it is: HEAD on the upload."""
    state = current_state()
    owner = state.owner()
    upload = state.service.peek(uid, owner)
    state.allow("status", upload)
    position = state.service.position(uid, owner)
    # A part of a file is nothing to be downloaded.
    whole = position.complete and position.concat != PARTIAL
    answer = send_upload(position.upload, request.environ) if whole else Response(status=204)
    answer.headers.update(rufh.position_headers(position))
    return answer
