"""The type ``http``: one request, ``METHOD #alias/path [body]`` or with a whole address."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from requests.structures import CaseInsensitiveDict

from ...errors import HttpHandlerError, InvalidHandlersError
from ...transfer.addresses import OPEN_HEADERS, Endpoint, check_url, own_headers, split_alias, split_credentials
from ...transfer.errors import AnswerError, TransferError
from ...transfer.web import Line
from ..aliases import invalid_as_handlers
from ..variables import resolve_json, resolve_url
from .step import Step

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
STALL = 60.0
"""Seconds that may pass without a byte."""
MOST_SECONDS = 600.0
"""How long a whole request may take, redirects included."""


@dataclass(frozen=True)
class Request:
    """What is to be sent; ``repr`` shows no secret."""

    method: str
    endpoint: Endpoint
    """The whole address, and the headers that another origin must not see."""
    headers: Mapping[str, str] = field(repr=False)
    """All others."""
    body: bytes = field(default=b"", repr=False)


def run_http(step: Step) -> str:
    """Send the request and return the body of the answer; the members ``headers``, ``basic``, ``auth`` sign it.

    Raises HttpHandlerError for a status of 400 and above, with the server's ``Retry-After``, and where there is no
    answer. Credentials never follow a redirect to another host.
    """
    request = read_request(step)
    with Line(request.endpoint, stall=STALL, check=step.check, tell=step.report) as line, _until_late(step, line):
        try:
            return line.ask(request.method, headers=request.headers, body=request.body or None).text
        except AnswerError as error:
            raise HttpHandlerError(str(error), retry_after=error.retry_after, answered=error.answered) from None
        except TransferError as error:
            late = f"The answer took longer than {MOST_SECONDS:.0f} s." if line.is_cut else ""
            raise HttpHandlerError(late or str(error)) from None


@contextmanager
def _until_late(step: Step, line: Line) -> Iterator[None]:
    """Cut the line when the run must end, and when a server takes too long that is never silent."""
    timer = threading.Timer(MOST_SECONDS, line.cut)
    timer.name, timer.daemon = "http", True
    forget = step.context.on_stop(line.cut)
    try:
        timer.start()
        yield
    finally:
        timer.cancel()
        forget()


def read_request(step: Step) -> Request:
    """Return the request that a handler asks for; raises InvalidHandlersError, or UnknownNameError for an alias."""
    method, target, template = (*step.method.split(maxsplit=2), "", "", "")[:3]
    method = method.upper()
    if method not in METHODS or not target:
        raise InvalidHandlersError("A request is written METHOD #alias/path [body], or with a whole address.")
    target = resolve_url(target, step.variables)
    with invalid_as_handlers():
        url, signed = _address(step, target)
        own = own_headers(step.handler)
    body = resolve_json(template.strip(), step.variables).encode()
    headers: CaseInsensitiveDict[str] = CaseInsensitiveDict()
    if body:
        is_json = body.lstrip()[:1] in (b"{", b"[")
        headers["Content-Type"] = "application/json; charset=utf-8" if is_json else "text/plain; charset=utf-8"
    headers.update(signed)
    headers.update(own)
    open_headers = {name: value for name, value in headers.items() if name.lower() in OPEN_HEADERS}
    secret = {name: value for name, value in headers.items() if name not in open_headers}
    return Request(method, Endpoint(url, secret), open_headers, body)


def _address(step: Step, target: str) -> tuple[str, Mapping[str, str]]:
    named = split_alias(target)
    if named is None:
        return split_credentials(target)
    name, rest = named
    alias = step.context.work.alias(name)
    check_url(alias.url + rest)
    return alias.url + rest, alias.headers
