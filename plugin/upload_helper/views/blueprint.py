"""The rules of the blueprint, and who answers a request: told by its headers, then by the names of its fields."""

from __future__ import annotations

from types import ModuleType

from flask import Blueprint, Request, Response, request
from werkzeug.exceptions import HTTPException, default_exceptions

from ..errors import Error, ForbiddenError, InvalidRequestError, MethodNotAllowedError, shown
from ..intake import check_same_site, drain, respond
from ..protocols.chunked import MULTIPART, RAW, REQUIRED_FIELDS, ChunkOffer
from ..service import log
from ..state import current_request, current_state
from . import assets, chunks, cors, dialects, filepond, files, pages, rufh, tus

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_OVERRIDES = ("POST", "HEAD", "PATCH", "DELETE", "OPTIONS")
_CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_FORMS = (MULTIPART, "application/x-www-form-urlencoded")
# Where the protocol of a request is kept once it is found out.
_SPEAKER = "upload_helper.speaker"
# The first that speaks for a request answers it.
_PROTOCOLS = (tus, rufh, filepond, dialects)


def make_blueprint(name: str) -> Blueprint:
    """Return the blueprint; the host gives it a prefix and registers it."""
    blueprint = Blueprint(
        name, "upload_helper", url_prefix="/uploads", static_folder="static", template_folder="templates"
    )
    blueprint.before_request(_guard)
    blueprint.after_request(_amend)
    blueprint.register_error_handler(Error, _answer_own_error)
    # Under their codes: the host's own pages for a code go before a handler for all of them.
    for kind in (*default_exceptions.values(), HTTPException):
        blueprint.register_error_handler(kind, _answer_http_error)
    for rule, endpoint in (("", "collection"), ("/", "collection"), ("/<uid>", "upload")):
        blueprint.add_url_rule(rule, endpoint, dispatch, methods=_METHODS, provide_automatic_options=False)
    blueprint.add_url_rule("/<uid>/status", view_func=files.status)
    blueprint.add_url_rule("/<uid>/job", view_func=files.job)
    blueprint.add_url_rule("/<uid>/delete", view_func=files.delete_by_form, methods=["POST"])
    blueprint.add_url_rule("/static/<wanted>/<filename>", "asset", assets.send)
    pages.register(blueprint)
    return blueprint


def dispatch(uid: str | None = None) -> Response:
    """Answer a request on the collection, or on an upload."""
    asked = current_request()
    speaker = _speaker(asked)
    method = _meant_method() if speaker is tus and asked.method == "POST" else asked.method
    if method == "OPTIONS":
        return _options(uid)
    answer: Response = speaker.handle(method, uid)
    return answer


def _meant_method() -> str:
    """Return the method that a client behind a proxy, which lets nothing else through, has put into a header."""
    method = request.headers.get("X-HTTP-Method-Override", "POST").upper()
    if method not in _OVERRIDES:
        # Not GET: the server would leave the file's bytes away, or not, by the method of the request itself.
        raise MethodNotAllowedError(
            f"X-HTTP-Method-Override {shown(method)} is none of the methods that it can stand for:"
            f" {', '.join(_OVERRIDES)}."
        )
    return method


def answer_error(error: Error) -> Response:
    """Answer with the error's status, and its code, text and remedy, as a page to a browser; for views of the host."""
    return pages.as_page(_answer_plainly(error))


def _answer_plainly(error: Error) -> Response:
    """Answer with the error's status, and its code, text and remedy as JSON or msgpack."""
    if error.status >= 500:
        # The client is told to ask the operator, who learns the rest here.
        log.error("%s: %s", error.code, error, exc_info=error)
    drain(request, error)
    answer = respond(request, error.as_json(), error.status)
    answer.headers["Cache-Control"] = "no-store"
    if error.retry_after is not None:
        answer.headers["Retry-After"] = str(error.retry_after)
    return answer


def _answer_own_error(error: Error) -> Response:
    answer = _answer_plainly(error)
    if isinstance(error, MethodNotAllowedError):
        uid = (request.view_args or {}).get("uid")
        answer.headers["Allow"] = ", ".join(chunks.ON_UPLOAD if uid else chunks.ON_COLLECTION)
    return _spoken(error, answer)


def _answer_http_error(error: HTTPException) -> Response:
    """Give an error of the framework, or one that the host aborted with, the shape of ours."""
    drain(request, error)
    answer = respond(
        request,
        {"error": str(error.description or error.name), "code": error.name.lower().replace(" ", "_"), "remedy": ""},
        error.code or InvalidRequestError.status,
    )
    for name, value in error.get_headers(request.environ):
        if name.lower() not in ("content-type", "content-length"):
            answer.headers[name] = value
    # A 404 or 405 that does not say so may be kept (RFC 9110, section 15.1), and tomorrow it may not be one.
    answer.headers.setdefault("Cache-Control", "no-store")
    return _spoken(error, answer)


def _guard() -> Response | None:
    state, asked = current_state(), current_request()
    preflight = cors.preflight(asked, state.config)
    if preflight is not None:
        # It carries no cookies, so nobody can be asked for; what it announces will be.
        return preflight
    state.require_authorize()
    if asked.method in _CHANGING:
        check_same_site(asked, state.config)
    return None


def _speaker(request: Request) -> ModuleType:
    """Return the module of the protocol that the request speaks."""
    speaker: ModuleType | None = request.environ.get(_SPEAKER)
    if speaker is None:
        request.environ[_SPEAKER] = speaker = chunks if _is_plain_chunk(request) else _ask_around(request)
    return speaker


def _is_plain_chunk(request: Request) -> bool:
    """Say whether this is the one kind of request of which there may be thousands, without asking around."""
    plain = request.method == "POST" and request.mimetype == RAW and request.args.keys() >= REQUIRED_FIELDS
    # What other protocols begin with, looked for in all names at once; whatever has it in the middle is asked around.
    names = " ".join(request.environ) if plain else ""
    return plain and not ("HTTP_TUS_" in names or "HTTP_UPLOAD_" in names)


def _ask_around(request: Request) -> ModuleType:
    uid = (request.view_args or {}).get("uid")
    form = uid is None and request.method in ("POST", "PUT") and request.mimetype in _FORMS
    return next((p for p in _PROTOCOLS if p.speaks(request, uid)), dialects if form else chunks)


def _spoken(error: Exception, answer: Response) -> Response:
    """Return an error as the client's protocol words it."""
    speaker = _speaker(current_request())
    amend = getattr(speaker, "amend_error", None)
    answer = answer if amend is None else amend(error, answer)
    return pages.as_page(answer) if speaker in (chunks, dialects) else answer


def _amend(answer: Response) -> Response:
    asked = current_request()
    amend = getattr(_speaker(asked), "amend", None)
    if amend is not None:
        answer = amend(answer)
    return cors.add_headers(asked, answer, current_state().config)


def _options(uid: str | None) -> Response:
    """Say what is spoken here, and its limits; nobody can tell yet which protocol the client has in mind."""
    answer = Response(status=204)
    for protocol in (tus, rufh):
        answer.headers.update(protocol.handle("OPTIONS", uid).headers)
    answer.headers["Allow"] = ", ".join(chunks.ON_COLLECTION if uid is None else chunks.ON_UPLOAD)
    config = current_state().config
    answer.headers.update(ChunkOffer(config.max_chunk_size, config.max_chunks).build())
    return _with_token(answer)


def _with_token(answer: Response) -> Response:
    """Give a page of this site a new CSRF token of the host: its own may end before a large file is there."""
    try:
        check_same_site(request, current_state().config)
    except ForbiddenError:
        return answer
    token = pages.csrf_token()
    if token:
        answer.headers["X-CSRFToken"] = token
        answer.headers["Cache-Control"] = "no-store"
    return answer
