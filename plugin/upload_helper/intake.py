"""Between Flask's requests and responses and the messages in them, whatever the encoding."""

from __future__ import annotations

import io
import time
from collections.abc import Container, Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Any, TypeVar

from flask import Request, Response, after_this_request, current_app, has_request_context
from werkzeug.datastructures import FileStorage

from .body import BLOCK, Body, FilePart, Form, open_body
from .config import Config
from .direct_uwsgi import is_kept
from .errors import (
    BodyCutError,
    BodyStalledError,
    Error,
    ForbiddenError,
    InvalidRequestError,
    TooLargeError,
    UnsupportedTypeError,
    shown,
)
from .protocols import dialects, structs
from .protocols.chunked import ENCODINGS, MOST_ITEMS, MULTIPART, RAW, REQUIRED_FIELDS, TEXT_FIELDS, ChunkRequest
from .state import KEY

C = TypeVar("C", bound=ChunkRequest)

# Room in a body for what stands around the chunk: the names and values of the fields, and multipart's own headers.
_AROUND = 256 << 10
# How long a client that was refused may go on sending.
_DRAIN_SECONDS = 5
_DRAIN_SILENCE = 1
# Where the body is kept once it is opened, for whoever has to read the rest of it.
_BODY = "upload_helper.body"

KNOWN_FIELDS = TEXT_FIELDS | dialects.FIELDS
"""What means something to us in a query or a form, and so must be there once only."""


def read_chunk(request: Request, config: Config, cls: type[C]) -> C:
    """Return the chunk that a request carries, as a `cls`; raw bodies and forms are left on the wire."""
    kind = request.mimetype
    if kind in structs.STRUCT_TYPES:
        return structs.load(cls, read_struct(request, config, largest_struct(config), MOST_ITEMS))
    if kind == MULTIPART:
        return _read_form(request, config, cls)
    if kind == RAW:
        body = open_raw(request, config, config.max_chunk_size)
        fields = query(request)
        return cls.streamed(structs.from_text(cls, fields), body.blocks_for(fields.get("checksum", "")), body.length)
    raise UnsupportedTypeError(f"Content-Type {shown(kind)} is none of {', '.join(ENCODINGS)}.")


def largest_struct(config: Config) -> int:
    """Return the largest JSON or msgpack body in bytes that can hold a chunk.

    Base64 makes four bytes of three; the client of GBD WebSuite sends up to as many zeros behind its msgpack.
    """
    return config.max_chunk_size * 2 + _AROUND


def largest_chunk_form(config: Config) -> int:
    """Return the largest form in bytes that can hold a chunk."""
    return config.max_chunk_size + _AROUND


def largest_file_form(config: Config) -> int:
    """Return the largest form in bytes that can hold files; the store limits each of them, and them all."""
    return max(config.max_file_size, config.max_owner_bytes) + _AROUND


def read_struct(request: Request, config: Config, limit: int, most: int = structs.MOST_ITEMS) -> dict[str, Any]:
    """Return the members of a JSON or msgpack body of at most `limit` bytes and `most` items."""
    if request.mimetype not in structs.STRUCT_TYPES:
        known = ", ".join(structs.STRUCT_TYPES)
        raise UnsupportedTypeError(f"Content-Type {shown(request.mimetype)} is none of {known}.")
    return structs.decode(b"".join(open_raw(request, config, limit)), request.mimetype, most)


def query(request: Request) -> dict[str, str]:
    """Return the fields in the query."""
    return _single(request.args)


def known_fields(values: Mapping[str, Any]) -> dict[str, str]:
    """Return those fields of a query or a form, a multi-dictionary, that mean something to us.

    Raises InvalidRequestError for one of them that has two values.
    """
    return _single(values, KNOWN_FIELDS)


def respond(request: Request, value: Any, status: int = 200, *, otherwise: str = structs.JSON) -> Response:
    """Return `value`, a dataclass or mapping, as msgpack or JSON: as Accept begins, or else as `otherwise` says."""
    accept = request.environ.get("HTTP_ACCEPT", "").lower()
    wanted = next((kind for kind in structs.STRUCT_TYPES if accept.startswith(kind)), otherwise)
    kind = wanted if wanted in structs.STRUCT_TYPES else structs.JSON
    return Response(structs.encode(value, kind), status, mimetype=kind)


def drain(request: Request, error: Exception | None) -> None:
    """Read what is left of the body, if it is not unduly long, before an error is answered.

    Many clients look for the answer only after they have sent everything, and a connection that is closed with unread
    bytes is reset, which takes the answer with it (RFC 9112, section 9.6).
    """
    body: Body | None = request.environ.get(_BODY)
    if isinstance(error, (BodyCutError, BodyStalledError)):
        # Nothing more will come, and waiting for it once was enough.
        return
    if body is not None and body.taken and isinstance(error, (InvalidRequestError, TooLargeError)):
        # What was refused is the body, and more of it will not be any better.
        return
    state = current_app.extensions.get(KEY)
    if state is not None:
        with suppress(Error):
            rest = body or open_raw(request, state.config, 2 * largest_struct(state.config))
            # Who is refused must not keep a thread by silence for as long as somebody who is welcome.
            rest.timeout = min(rest.timeout or _DRAIN_SILENCE, _DRAIN_SILENCE)
            until = time.monotonic() + _DRAIN_SECONDS
            for block in rest.blocks():
                # An empty block is a second of silence: there is no more, or nobody.
                if not block or time.monotonic() > until:
                    rest.give_up()
                    break


def check_same_site(request: Request, config: Config) -> None:
    """Raise ForbiddenError for a request that a page of another site made a browser send.

    Browsers tell where a request comes from (Fetch Metadata, W3C; RFC 6454 for Origin) and no page can forge it.
    Programs send neither header. A custom header is proof as well: a page can't set one across sites unless the
    server agreed beforehand.
    """
    site, origin = request.environ.get("HTTP_SEC_FETCH_SITE"), request.environ.get("HTTP_ORIGIN")
    if not site and not origin:
        return
    if site in ("same-origin", "none") or "X-Upload-Helper" in request.headers:
        return
    if origin in config.trusted_origins | config.cors_origins:
        return
    if site or (origin and origin.partition("://")[2] != request.host):
        raise ForbiddenError(
            f"The request comes from a page of another site, {shown(origin)}.",
            remedy="Send it from a page of this site or with a header X-Upload-Helper: 1; the operator can name further"
            " origins in UPLOAD_HELPER_TRUSTED_ORIGINS, and must use ProxyFix behind a proxy that changes the host.",
        )


def open_raw(request: Request, config: Config, limit: int) -> Body:
    """Return the body of a request, of at most `limit` bytes, unread and left on the wire where that is possible.

    Raises UnsupportedTypeError for a Content-Encoding, TooLargeError if the declared length is over `limit`.
    """
    stream: Any = request.environ["wsgi.input"]
    if hasattr(request, "_cached_data"):
        # The host has read the body, and the request has kept it.
        stream = io.BytesIO(request.get_data())
    elif "stream" in request.__dict__:
        # The host has at least looked at the stream, which knows how much of it is left.
        stream = request.stream
    body = open_body(
        request.environ, stream, limit=limit, timeout=config.body_timeout.total_seconds(),
        splice_from=config.splice_from,
    )  # fmt: skip
    request.environ[_BODY] = body
    if body.splicer is not None and is_kept(request.environ) and has_request_context():
        after_this_request(partial(_announcing_end, body))
    return body


def open_form(request: Request, config: Config, limit: int) -> AnyForm:
    """Return the multipart form in a request, whose body may have `limit` bytes."""
    if "form" in request.__dict__:
        return ParsedForm(request)
    boundary = request.mimetype_params.get("boundary", "")
    if not boundary:
        raise InvalidRequestError("Content-Type multipart/form-data has no boundary.")
    form = Form(open_raw(request, config, limit), boundary.encode(), KNOWN_FIELDS)
    if has_request_context():
        after_this_request(partial(_closing, form))
    return form


def form_fields(request: Request, form: AnyForm) -> dict[str, str]:
    """Return the fields of the query and those of a form that were read so far; raises where they contradict."""
    fields = {name: request.args[name] for name in request.args if name not in KNOWN_FIELDS}
    return {**fields, **_merged(known_fields(request.args), form.fields)}


def first_file(form: AnyForm) -> FilePart | None:
    """Return the first file in a form, or one that is empty and has no name if there is no other."""
    part = form.next_file()
    while part is not None and part.is_empty:
        following = form.next_file()
        if following is None:
            return part
        part = following
    return part


def only_file(form: AnyForm, part: FilePart) -> Iterator[bytes]:
    """Yield the bytes of a file, then read the form to its end, so that a cut one is found out."""
    yield from part.blocks
    while (following := form.next_file()) is not None:
        if not following.is_empty:
            raise InvalidRequestError(f"The form has a second file part, {shown(following.name)}; send one chunk.")


def blocks_of(file: FileStorage) -> Iterator[bytes]:
    """Yield the bytes of a file in a form that the host has parsed, and may have looked into."""
    file.stream.seek(0)
    yield from iter(partial(file.stream.read, BLOCK), b"")


def chunk_in(cls: type[C], fields: Mapping[str, str], form: AnyForm, part: FilePart | None) -> C:
    """Return the chunk of the chunk protocol in a form."""
    if part is None:
        raise InvalidRequestError("The form has no file part; send the chunk's bytes as one, named content.")
    return cls.streamed(structs.from_text(cls, fields), only_file(form, part), None)


class ParsedForm:
    """A form that the host has parsed before us, for a CSRF check say, and whose files are on the disk."""

    size = 0

    def __init__(self, request: Request) -> None:
        self.fields = {name: request.form[name] for name in request.form} | known_fields(request.form)
        self._files = iter(request.files.items(multi=True))

    def next_file(self) -> FilePart | None:
        """Return the next file, or None."""
        name, file = next(self._files, ("", None))
        if file is None:
            return None
        blocks = blocks_of(file)
        first = next(blocks, b"")
        return FilePart(name, file.filename or "", chain([first], blocks), is_empty=not first and not file.filename)

    def put_aside(self, part: FilePart, most: int) -> None:
        """Do nothing: all fields are known, and the files are on the disk."""

    def restrict(self, limit: int) -> None:
        """Do nothing: the host has taken the form as it is."""


AnyForm = Form | ParsedForm


def _read_form(request: Request, config: Config, cls: type[C]) -> C:
    form = open_form(request, config, largest_chunk_form(config))
    part = first_file(form)
    fields = form_fields(request, form)
    if part is not None and not fields.keys() >= REQUIRED_FIELDS:
        form.put_aside(part, config.max_chunk_size)
        fields = form_fields(request, form)
    return chunk_in(cls, fields, form, part)


def _closing(form: Form, response: Response) -> Response:
    form.close()
    return response


def _announcing_end(body: Body, response: Response) -> Response:
    if body.was_spliced:
        response.headers["Connection"] = "close"
    return response


def _merged(query: dict[str, str], form: dict[str, str]) -> dict[str, str]:
    for name in query.keys() & form.keys():
        if query[name] != form[name]:
            raise InvalidRequestError(f"The field {shown(name)} differs between query and form.")
    return {**query, **form}


def _single(values: Mapping[str, Any], names: Container[str] | None = None) -> dict[str, str]:
    """Return a multi-dictionary, or those `names` of it, as a plain one.

    Raises InvalidRequestError for a field with two values.
    """
    single: dict[str, str] = {}
    for name, found in values.lists():  # type: ignore[attr-defined]
        if names is None or name in names:
            single[name] = found[0]
            if len(found) > 1 and len(set(found)) > 1:
                raise InvalidRequestError(f"The field {shown(name)} is there twice, with different values.")
    return single
