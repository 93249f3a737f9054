"""Between Flask's requests and responses and the messages in them, whatever the encoding."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

from flask import Request, Response, after_this_request

from .body import Body, Form, open_body
from .config import Config
from .errors import ForbiddenError, InvalidRequestError, UnsupportedTypeError
from .protocols import structs
from .protocols.chunked import ENCODINGS, MULTIPART, RAW, REQUIRED_FIELDS, ChunkRequest, from_text

C = TypeVar("C", bound=ChunkRequest)

# Room in a body for what stands around the chunk: the names and values of the fields, and multipart's own headers.
_AROUND = 256 << 10
_BLOCK = 256 << 10


def read_chunk(request: Request, config: Config, cls: type[C]) -> C:
    """Return the chunk that a request carries, as a `cls`; raw bodies and forms are left on the wire."""
    if request.mimetype in structs.STRUCT_TYPES:
        return structs.load(cls, read_struct(request, config, largest_struct(config)))
    if request.mimetype == MULTIPART:
        return _read_form(request, config, cls)
    if request.mimetype == RAW:
        body = _open(request, config, config.max_chunk_size)
        return cls.streamed(query(request), body, body.length)
    raise UnsupportedTypeError(f"Content-Type {request.mimetype!r} is none of {', '.join(ENCODINGS)}.")


def largest_struct(config: Config) -> int:
    """Return the largest JSON or msgpack body in bytes that can hold a chunk; base64 makes four bytes of three."""
    return config.max_chunk_size * 4 // 3 + _AROUND


def read_struct(request: Request, config: Config, limit: int) -> dict[str, Any]:
    """Return the members of a JSON or msgpack body of at most `limit` bytes."""
    if request.mimetype not in structs.STRUCT_TYPES:
        raise UnsupportedTypeError(f"Content-Type {request.mimetype!r} is none of {', '.join(structs.STRUCT_TYPES)}.")
    return structs.decode(b"".join(_open(request, config, limit)), request.mimetype)


def query(request: Request) -> dict[str, Any]:
    """Return the fields in the query, numbers as numbers."""
    return from_text(_single(request.args))


def respond(request: Request, value: Any, status: int = 200) -> Response:
    """Return `value`, a dataclass or mapping, as the request wants it: msgpack or JSON by Accept, then by its type."""
    accept = request.headers.get("Accept", "").lower()
    wanted = next((kind for kind in structs.STRUCT_TYPES if accept.startswith(kind)), request.mimetype)
    kind = wanted if wanted in structs.STRUCT_TYPES else structs.JSON
    return Response(structs.encode(value, kind), status, mimetype=kind)


def check_same_site(request: Request, config: Config) -> None:
    """Raise ForbiddenError for a request that a page of another site made a browser send.

    Browsers tell where a request comes from (Fetch Metadata, W3C; RFC 6454 for Origin) and no page can forge it.
    Programs send neither header. A custom header is proof as well: a page can't set one across sites unless the
    server agreed beforehand.
    """
    if request.headers.get("Sec-Fetch-Site") in ("same-origin", "none") or "X-Upload-Helper" in request.headers:
        return
    origin = request.headers.get("Origin")
    if origin in config.trusted_origins:
        return
    if request.headers.get("Sec-Fetch-Site") or (origin and urlsplit(origin).netloc != request.host):
        raise ForbiddenError(
            f"The request comes from a page of another site, {origin or 'unknown'}.",
            remedy="Send it from a page of this site or with a header X-Upload-Helper: 1; the operator can name further"
            " origins in UPLOAD_HELPER_TRUSTED_ORIGINS, and must use ProxyFix behind a proxy that changes the host.",
        )


def _open(request: Request, config: Config, limit: int) -> Body:
    stream: Any = request.environ["wsgi.input"]
    if "stream" in request.__dict__ or hasattr(request, "_cached_data"):
        # The host has looked at the body already; what it read is kept by the request, if it was kept.
        stream = io.BytesIO(request.get_data())
    return open_body(request.environ, stream, limit=limit, timeout=config.body_timeout.total_seconds())


def _read_form(request: Request, config: Config, cls: type[C]) -> C:
    fields = _single(request.args)
    if "form" in request.__dict__:
        # A CSRF check of the host has parsed the form before us, and the file is on the disk.
        file = next(iter(request.files.values()), None)
        if file is None:
            raise InvalidRequestError("The form has no file part; send the chunk's bytes as one, named content.")
        stream = file.stream
        blocks: Iterator[bytes] = iter(lambda: stream.read(_BLOCK), b"")
        return cls.streamed(from_text({**fields, **_single(request.form)}), blocks, None)
    boundary = request.mimetype_params.get("boundary", "")
    if not boundary:
        raise InvalidRequestError("Content-Type multipart/form-data has no boundary.")
    body = _open(request, config, config.max_chunk_size + _AROUND)
    form = Form(body, boundary.encode("latin-1"), REQUIRED_FIELDS - fields.keys())

    @after_this_request
    def close(response: Response) -> Response:
        form.close()
        return response

    if not form.has_file:
        raise InvalidRequestError("The form has no file part; send the chunk's bytes as one, named content.")
    return cls.streamed(from_text({**fields, **form.fields}), form.file(), None)


def _single(values: Mapping[str, Any]) -> dict[str, str]:
    """Return a multi-dictionary as a plain one; raises InvalidRequestError for a field with two values."""
    single: dict[str, str] = {}
    for name in values:
        found = set(values.getlist(name))  # type: ignore[attr-defined]
        if len(found) > 1:
            raise InvalidRequestError(f"The field {name!r} is there twice, with different values.")
        single[name] = found.pop()
    return single
