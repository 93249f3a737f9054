"""The type ``http``: one request, ``METHOD #alias/path [body]`` or with a whole address."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

import requests
from requests.structures import CaseInsensitiveDict

from ...errors import HttpHandlerError, InvalidHandlersError
from ...transfer.addresses import HIDDEN, check_url, moved, origin, own_headers, scrubbed, split_credentials
from ...transfer.errors import TransferError
from ...transfer.web import seconds_of
from ..aliases import invalid_as_handlers
from ..variables import resolve_json, resolve_url
from .line import Line, Session
from .step import Step

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
MOST_ANSWER = 16 << 20
"""Largest answer that is taken, in bytes."""
MOST_REDIRECTS = 5
TIMEOUT = (10.0, 60.0)
"""Seconds to connect, and between two bytes."""
MOST_SECONDS = 600.0
"""How long a whole request may take."""

_BLOCK = 1 << 16
_LOOK_SECONDS = 0.1
_EXCERPT = 200
_LOOKED_AT = 10_000
_CHARSET = re.compile(r"""charset\s*=\s*["']?([\w.:-]+)""", re.IGNORECASE)


@dataclass(frozen=True)
class Request:
    """What is to be sent; ``repr`` shows no secret."""

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class Answer:
    """What a server said."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """The body as text, in UTF-8 unless the server names another encoding."""
        match = _CHARSET.search(self.headers.get("Content-Type", ""))
        try:
            return self.body.decode(match[1] if match else "utf-8", "replace")
        except LookupError:
            return self.body.decode("utf-8", "replace")


def run_http(step: Step) -> str:
    """Send the request and return the body of the answer; the members ``headers``, ``basic``, ``auth`` sign it.

    Raises HttpHandlerError for a status of 400 and above, with the server's ``Retry-After``, and where there is no
    answer. Credentials never follow a redirect to another host.
    """
    request = read_request(step)
    answer = _interruptible(step, lambda line: _send(request, step, line))
    if answer.status >= 400:
        wait = seconds_of(answer.headers.get("Retry-After", ""))
        raise HttpHandlerError(_failure(answer, request), retry_after=wait, answered=answer.status)
    return answer.text


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
    headers = CaseInsensitiveDict({"Accept": "*/*", "Accept-Encoding": "identity"})
    if body:
        is_json = body.lstrip()[:1] in (b"{", b"[")
        headers["Content-Type"] = "application/json; charset=utf-8" if is_json else "text/plain; charset=utf-8"
    headers.update(signed)
    headers.update(own)
    return Request(method, url, headers, body)


def _address(step: Step, target: str) -> tuple[str, Mapping[str, str]]:
    if not target.startswith("#"):
        return split_credentials(target)
    name, rest = re.fullmatch(r"#([^/?#]*)(.*)", target, re.DOTALL).groups()  # type: ignore[union-attr]
    alias = step.context.work.alias(name)
    check_url(alias.url + rest)
    return alias.url + rest, alias.headers


def _interruptible(step: Step, ask: Callable[[Line], Answer]) -> Answer:
    """Ask in a thread, so that a run that must end does not wait for a server that is silent."""
    line = Line()
    outcome: list[Answer | BaseException] = []

    def target() -> None:
        try:
            outcome.append(ask(line))
        except BaseException as error:  # noqa: BLE001 - raised again below
            outcome.append(error)

    thread = threading.Thread(target=target, name="http", daemon=True)
    thread.start()
    deadline = time.monotonic() + MOST_SECONDS
    try:
        while thread.is_alive():
            thread.join(_LOOK_SECONDS)
            step.check()
            if thread.is_alive() and time.monotonic() > deadline:
                # A server that sends a byte now and then is never silent, and never comes to an end.
                raise HttpHandlerError(f"the answer took longer than {MOST_SECONDS:.0f} s")
    finally:
        line.cut()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def _send(request: Request, step: Step, line: Line) -> Answer:
    try:
        with Session(line) as session:
            for _ in range(MOST_REDIRECTS + 1):
                with _ask(session, request) as response:
                    if not response.is_redirect:
                        return Answer(response.status_code, response.headers, _read(response, step))
                    request = _redirected(request, response)
    except (requests.RequestException, OSError, UnicodeError) as error:
        # What such an error says of itself may name the whole address, with what is secret in it.
        raise HttpHandlerError(f"no answer ({_kind(error)})") from None
    raise HttpHandlerError(f"more than {MOST_REDIRECTS} redirects")


def _ask(session: requests.Session, request: Request) -> requests.Response:
    return session.request(
        request.method,
        request.url,
        headers=dict(request.headers),
        data=request.body or None,
        auth=lambda prepared: prepared,  # or else a .netrc of the user would sign requests
        allow_redirects=False,
        stream=True,
        timeout=TIMEOUT,
    )


def _read(response: requests.Response, step: Step) -> bytes:
    if response.request.method == "HEAD":
        return b""  # its length is that of what GET would give
    total = int(response.headers.get("Content-Length") or 0) if _is_count(response) else 0
    if total > MOST_ANSWER:
        raise HttpHandlerError(f"the answer has {total} bytes; {MOST_ANSWER} are taken")
    blocks: list[bytes] = []
    length = 0
    for block in response.iter_content(_BLOCK):
        blocks.append(block)
        length += len(block)
        if length > MOST_ANSWER:
            raise HttpHandlerError(f"the answer is longer than {MOST_ANSWER} bytes")
        if total and step.shows_progress:
            step.context.report(min(1, length / total))
    return b"".join(blocks)


def _is_count(response: requests.Response) -> bool:
    text = response.headers.get("Content-Length", "")
    return text.isascii() and text.isdigit() and len(text) < 20


def _redirected(request: Request, response: requests.Response) -> Request:
    """Return what is to be sent next (RFC 9110, section 15.4); another origin gets no credentials."""
    try:
        url = moved(request.url, response.headers["Location"])
    except TransferError:
        raise HttpHandlerError("the server redirects to something that is no address on the web") from None
    status = response.status_code
    becomes_get = status == 303 or (status in (301, 302) and request.method == "POST")
    request, old = replace(request, url=url), request.url
    if becomes_get and request.method != "HEAD":
        kept = {k: v for k, v in request.headers.items() if k.lower() != "content-type"}
        request = replace(request, method="GET", body=b"", headers=kept)
    if origin(url) != origin(old):
        open_headers = ("accept", "accept-encoding", "content-type")
        request = replace(request, headers={k: v for k, v in request.headers.items() if k.lower() in open_headers})
    return request


def _failure(answer: Answer, request: Request) -> str:
    phrase = HTTPStatus(answer.status).phrase if answer.status in HTTPStatus._value2member_map_ else ""
    text = answer.text[:_LOOKED_AT]
    for name, value in request.headers.items():
        if name.lower() not in ("accept", "accept-encoding", "content-type") and len(value) > 3:
            # A server may send back what it was sent.
            text = text.replace(value.partition(" ")[2] or value, HIDDEN)
    excerpt = " ".join("".join(c if c.isprintable() else " " for c in scrubbed(text)).split())[:_EXCERPT]
    return f"{answer.status} {phrase}".strip() + (f": {excerpt}" if excerpt else "")


def _kind(error: BaseException) -> str:
    names: dict[type[Any], str] = {
        requests.exceptions.SSLError: "its certificate is not trusted",
        requests.exceptions.ProxyError: "the proxy does not let it through",
        requests.exceptions.ConnectTimeout: "nobody answers at this address",
        requests.exceptions.ReadTimeout: f"silent for {TIMEOUT[1]:.0f} s",
        requests.exceptions.ChunkedEncodingError: "the answer was cut",
        requests.exceptions.ConnectionError: "no connection",
    }
    return next((text for kind, text in names.items() if isinstance(error, kind)), type(error).__name__)
