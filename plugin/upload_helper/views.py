"""The ready-made blueprint: one URL that takes uploads, and one for each upload."""

from __future__ import annotations

from contextlib import suppress

from flask import Blueprint, Response, request
from werkzeug.exceptions import HTTPException, default_exceptions

from .downloads import send_upload
from .errors import Error, ForbiddenError, InvalidRequestError
from .intake import check_same_site, drain, query, read_chunk, respond
from .protocols import structs
from .protocols.chunked import ChunkRequest, ChunkResponse, StatusRequest
from .service import log
from .state import current_state

_CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})


def make_blueprint(name: str) -> Blueprint:
    """Return the blueprint; the host gives it a prefix and registers it."""
    blueprint = Blueprint(name, __name__, url_prefix="/uploads", static_folder="static", template_folder="templates")
    blueprint.before_request(_guard)
    blueprint.register_error_handler(Error, answer_error)
    # Under their codes: the host's own pages for a code go before a handler for all of them.
    for kind in (*default_exceptions.values(), HTTPException):
        blueprint.register_error_handler(kind, _answer_http_error)
    for rule in ("", "/"):
        blueprint.add_url_rule(rule, view_func=send_chunk, methods=["POST"])
        blueprint.add_url_rule(rule, view_func=list_uploads)
    blueprint.add_url_rule("/<uid>", view_func=download)
    blueprint.add_url_rule("/<uid>", view_func=delete, methods=["DELETE"])
    blueprint.add_url_rule("/<uid>/status", view_func=status)
    return blueprint


def send_chunk() -> Response:
    """Take one chunk: POST on the collection."""
    state = current_state()
    chunk = read_chunk(request, state.config, ChunkRequest)
    upload = state.service.receive(chunk, state.owner(), state.allow)
    return respond(request, ChunkResponse(upload.uploadUid))


def list_uploads() -> Response:
    """List the owner's uploads, or find one by the identifier that the client gave it: GET on the collection."""
    state = current_state()
    if "identifier" in request.args:
        return _status(structs.load(StatusRequest, structs.from_text(StatusRequest, query(request))))
    state.allow("list")
    owner = state.owner()
    if owner == "":
        # Strangers to each other share this owner; each knows the uids of their own uploads, and no others.
        raise ForbiddenError(
            "Uploads are listed only for somebody in particular.",
            remedy="Developer: pass UploadHelper(app, identify=f), where f() returns who the current user is.",
        )
    statuses = []
    for upload in state.service.uploads(owner):
        # One that is deleted or broken meanwhile does not keep the others from being listed.
        with suppress(Error):
            statuses.append(state.service.status(StatusRequest(upload.uploadUid), owner, roughly=True))
    return _fresh({"uploads": statuses})


def status(uid: str) -> Response:
    """Say how far an upload is: GET on its status."""
    return _status(StatusRequest(uid))


def download(uid: str) -> Response:
    """Send the finished file: GET on the upload."""
    state = current_state()
    owner = state.owner()
    state.allow("read", state.service.peek(uid, owner))
    return send_upload(state.service.get_upload(uid, owner), request.environ)


def delete(uid: str) -> Response:
    """Cancel or delete an upload: DELETE on it."""
    state = current_state()
    owner = state.owner()
    state.allow("delete", state.service.peek(uid, owner))
    state.service.delete(uid, owner)
    return Response(status=204)


def _status(wanted: StatusRequest) -> Response:
    state = current_state()
    owner = state.owner()
    upload = state.service.find(wanted, owner)
    state.allow("status", upload)
    return _fresh(state.service.status(StatusRequest(upload.uploadUid), owner))


def _fresh(value: object) -> Response:
    answer = respond(request, value)
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _guard() -> None:
    current_state().require_authorize()
    if request.method in _CHANGING:
        check_same_site(request, current_state().config)


def answer_error(error: Error) -> Response:
    """Answer with the error's status, and its code, text and remedy as JSON or msgpack."""
    if error.status >= 500:
        # The client is told to ask the operator, who learns the rest here.
        log.error("%s: %s", error.code, error, exc_info=error)
    drain(request, error)
    answer = respond(request, error.as_json(), error.status)
    if error.retry_after is not None:
        answer.headers["Retry-After"] = str(error.retry_after)
    return answer


def _answer_http_error(error: HTTPException) -> Response:
    """Give an error of the framework, or one that the host aborted with, the shape of ours."""
    drain(request, error)
    answer = respond(
        request,
        {"error": error.description or error.name, "code": error.name.lower().replace(" ", "_"), "remedy": ""},
        error.code or InvalidRequestError.status,
    )
    for name, value in error.get_headers(request.environ):
        if name.lower() not in ("content-type", "content-length"):
            answer.headers[name] = value
    return answer
