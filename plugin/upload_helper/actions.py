"""Endpoints that a host declares as an action of GBD WebSuite does, speaking that system's wire.

A client posts an object to ``<prefix>/<command>``, or to ``<prefix>`` with ``cmd`` in the body, as JSON or msgpack.
Success is 200 and the bare object; every error is its HTTP status and
``{"status": 403, "error": {"code": 403, "info": "…"}}``, for the client tests nothing but ``error``.
"""

from __future__ import annotations

import dataclasses
import inspect
import logging
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, current_app, g, got_request_exception, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound, default_exceptions
from werkzeug.http import HTTP_STATUS_CODES

from .config import Config
from .errors import Error, shown
from .intake import check_same_site, drain, largest_struct, read_chunk, read_struct, respond
from .protocols import structs
from .protocols.chunked import ChunkRequest
from .state import current_state

log = logging.getLogger("upload_helper")

Handler = Callable[..., Any]
_SHAPED = "_upload_helper_shaped"
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


@dataclass(frozen=True)
class _Command:
    function: Handler
    request_class: type


class Actions(Blueprint):
    """A blueprint of commands.

    A host writes::

        actions = Actions("survey", __name__, url_prefix="/_")

        @actions.api("surveyUpload")
        def upload(req, p: ChunkRequest) -> ChunkResponse:
            require_role("surveyor")
            return current_helper.handle_chunk_request(req, p)

    A command is called with Flask's request and with its parameters, an instance of the dataclass that the second
    argument is annotated with; it returns a dataclass or a dict.
    """

    def __init__(self, name: str, import_name: str, *, url_prefix: str = "/_", **options: Any) -> None:
        super().__init__(name, import_name, url_prefix=url_prefix, **options)
        self._commands: dict[str, _Command] = {}
        # One rule for every path and method, so that an unknown command is answered in the client's language too.
        for rule in ("", "/", "/<path:command>"):
            self.add_url_rule(rule, "dispatch", self._dispatch, methods=_METHODS)
        # Under their codes as well: the host's own pages for a code go before a handler for all of them.
        for kind in (*default_exceptions.values(), Exception):
            self.register_error_handler(kind, _answer_any_error)
        self.after_request(_shape)

    def api(self, command: str) -> Callable[[Handler], Handler]:
        """Declare the decorated function as a command.

        Raises TypeError unless its second argument is annotated with a dataclass, ValueError for a taken name.
        """

        def declare(function: Handler) -> Handler:
            if command in self._commands:
                raise ValueError(f"The command {command!r} is declared already.")
            request_class = _request_class(function)
            structs.schema(request_class)
            self._commands[command] = _Command(function, request_class)
            return function

        return declare

    def _dispatch(self, command: str = "") -> Response:
        if request.method != "POST":
            raise MethodNotAllowed(["POST"])
        config = current_state().config
        check_same_site(request, config)
        command = command or request.args.get("cmd", "")
        if command:
            declared = self._command(command)
            parameters = self._parameters(declared, config)
        else:
            # What the command is stands in the body, so for all that is known it is a chunk.
            members = read_struct(request, config, largest_struct(config))
            declared = self._command(members.get("cmd"))
            parameters = structs.load(declared.request_class, members)
        result = declared.function(request, parameters)
        if result is None:
            raise NotFound("The command gave no answer.")
        if isinstance(result, Response):
            return result
        if not (dataclasses.is_dataclass(result) or isinstance(result, Mapping)):
            raise TypeError(f"A command returns a dataclass or a dict, not {type(result).__name__}.")
        return respond(request, result, otherwise=request.mimetype)

    def _command(self, name: object) -> _Command:
        declared = self._commands.get(name) if isinstance(name, str) else None
        if declared is None:
            raise NotFound(f"There is no command {shown(name)}." if name else "The request names no command.")
        return declared

    @staticmethod
    def _parameters(declared: _Command, config: Config) -> Any:
        if issubclass(declared.request_class, ChunkRequest):
            return read_chunk(request, config, declared.request_class)
        return structs.load(declared.request_class, read_struct(request, config, config.max_request_size))


def _request_class(function: Handler) -> type:
    names = list(inspect.signature(function).parameters)
    hint = typing.get_type_hints(function).get(names[1]) if len(names) == 2 else None
    if not isinstance(hint, type):
        raise TypeError(f"{function.__name__} must take (req, p: RequestClass), with a dataclass as RequestClass.")
    return hint


def _answer_any_error(error: Exception) -> Response:
    """Answer every error, unexpected ones included, so that the client sees it as one."""
    code, info = 500, "Internal Server Error"
    if isinstance(error, Error):
        code, info = error.status, f"{error} {error.remedy}".strip()
    elif isinstance(error, HTTPException):
        code = error.response.status_code if error.response is not None else error.code or 500
        info = error.description or error.name
    else:
        log.error("The command failed.", exc_info=error)
        # As Flask does for an error that nobody handles, for those who watch for it.
        got_request_exception.send(current_app._get_current_object(), exception=error)  # type: ignore[attr-defined]
    answer = _error(code, info, error)
    if isinstance(error, Error) and error.retry_after is not None:
        answer.headers["Retry-After"] = str(error.retry_after)
    elif isinstance(error, HTTPException) and error.response is None:
        # WWW-Authenticate, Allow and the like.
        kept = (item for item in error.get_headers(request.environ) if item[0].lower() != "content-type")
        answer.headers.extend(kept)
    return answer


def _shape(answer: Response) -> Response:
    """Give the last errors their shape: those that a host answers with a response of its own."""
    if answer.status_code < 400 or g.get(_SHAPED):
        return answer
    return _error(answer.status_code, HTTP_STATUS_CODES.get(answer.status_code, "Error"))


def _error(code: int, info: str, error: Exception | None = None) -> Response:
    drain(request, error)
    g.setdefault(_SHAPED, True)
    body = {"status": code, "error": {"code": code, "info": info}}
    return respond(request, body, code, otherwise=request.mimetype)
