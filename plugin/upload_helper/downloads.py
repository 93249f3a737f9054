"""Finished files on their way out: whole, in part or not at all, from here or by the web server in front."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote

from flask import Request, Response, current_app
from werkzeug.exceptions import HTTPException, PreconditionFailed, RequestedRangeNotSatisfiable
from werkzeug.http import dump_options_header, http_date, parse_date
from werkzeug.wsgi import wrap_file

from .errors import NotFoundError, StorageError
from .service import Upload
from .state import current_state

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_BLOCK = 256 << 10
# Nobody but the client keeps it, and the client asks each time whether it still may have it.
_CACHING = "private, no-cache"
# One range, RFC 9110, section 14.1.2. The list that it stands in may have empty elements; no size has so many digits.
_RANGE = re.compile(
    r"bytes=[ \t,]*(?:(?P<first>[0-9]{1,99})-(?P<last>[0-9]{0,99})|-(?P<suffix>[0-9]{1,99}))[ \t,]*", re.IGNORECASE
)
_TAG = re.compile(r'(W/)?"([^"]*)"')
# What may stand in a filename that every browser reads alike, RFC 6266, appendix D.
_NOT_PLAIN = re.compile(r"[^ !#-$&-\[\]-~]")


def send_upload(upload: Upload, environ: WSGIEnvironment) -> Response:
    """Return the answer to GET or HEAD for a finished upload: its bytes, or the range of them that is asked for.

    A stranger's bytes must not act as a page of this site, so the type is the neutral one, the browser is told to
    save and not to guess, and what it shows all the same is sandboxed.

    Raises HTTPException where a condition does not hold (412) or the file ends before the range (416);
    NotFoundError if the file was moved away in this moment, StorageError if it can't be read.
    """
    answer = Response(mimetype="application/octet-stream")
    answer.headers["Content-Disposition"] = _attachment(upload.fileName)
    answer.headers["X-Content-Type-Options"] = "nosniff"
    answer.headers["Content-Security-Policy"] = "sandbox"
    answer.headers["Cache-Control"] = _CACHING
    try:
        return _fill(answer, upload, Request(environ))
    except FileNotFoundError:
        raise NotFoundError from None
    except OSError as error:
        raise StorageError(f"The file of upload {upload.uploadUid} can't be read: {error.strerror}.") from None


def _fill(answer: Response, upload: Upload, request: Request) -> Response:
    config = current_state().config
    if config.accel_redirect and request.method == "GET":
        # nginx has a tag of its own for the file, so conditions and ranges are its to judge.
        below = os.path.relpath(upload.path, config.folder)
        answer.headers["X-Accel-Redirect"] = config.accel_redirect + quote(os.fsencode(below))
        return answer
    version = _Version("" if config.accel_redirect else upload.uploadUid, int(os.lstat(upload.path).st_mtime))
    answer.headers.update(version.headers())
    if version.is_known(request):
        answer.status_code = 304
    elif request.method != "GET":
        # Ranges are for GET alone (RFC 9110, section 14.2).
        answer.headers.update({"Accept-Ranges": "bytes", "Content-Length": str(upload.totalSize)})
    elif current_app.config["USE_X_SENDFILE"]:
        # Bytes as they are: lighttpd would take escapes out of it, Apache would not.
        answer.headers["X-Sendfile"] = os.fsencode(upload.path).decode("latin-1")
    else:
        part = _part(request, upload.totalSize) if version.may_be_continued(request) else None
        _attach(answer, upload, part, request.environ)
    return answer


def _attach(answer: Response, upload: Upload, part: range | None, environ: WSGIEnvironment) -> None:
    """Give an answer the bytes of the file, or of a part of it, without reading them yet."""
    body: Iterable[bytes]
    file = os.fdopen(os.open(upload.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0)
    if part is None:
        # The server may send it with sendfile(2).
        body = wrap_file(environ, file, _BLOCK)
    else:
        # Not with sendfile, for uWSGI would begin with the first byte of the file and not stop.
        body = _Part(file, part)
        answer.status_code = 206
        answer.headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{upload.totalSize}"
    answer.headers["Accept-Ranges"] = "bytes"
    answer.headers["Content-Length"] = str(upload.totalSize if part is None else len(part))
    answer.direct_passthrough = True
    answer.response = body


class _Part:
    """Some of the bytes of a file, as a server iterates over them; closes the file."""

    def __init__(self, file: BinaryIO, part: range) -> None:
        self._file = file
        self._part = part

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(self._part.start)
        left = len(self._part)
        while left and (block := self._file.read(min(left, _BLOCK))):
            left -= len(block)
            yield block

    def close(self) -> None:
        self._file.close()


# --- conditions and ranges ---


@dataclass(frozen=True)
class _Version:
    """By what a client tells whether its copy is still the file: RFC 9110, section 8.8."""

    tag: str
    """Without the quotes; '' where another server makes the tags."""
    modified: int
    """Seconds since the epoch."""

    def headers(self) -> dict[str, str]:
        return {"Last-Modified": http_date(self.modified), **({"ETag": f'"{self.tag}"'} if self.tag else {})}

    def is_known(self, request: Request) -> bool:
        """Say whether the client has the file already (304); raises HTTPException (412). RFC 9110, section 13.2.2."""
        headers = request.headers
        if not self.tag:
            return False
        until = _seconds(headers.get("If-Unmodified-Since"))
        if "If-Match" in headers:
            holds = self._is_among(headers["If-Match"], weak=False)
        else:
            holds = until is None or self.modified <= until
        if not holds:
            raise _PreconditionFailedError
        since = _seconds(headers.get("If-Modified-Since"))
        if "If-None-Match" in headers:
            return self._is_among(headers["If-None-Match"], weak=True)
        return since is not None and self.modified <= since

    def may_be_continued(self, request: Request) -> bool:
        """Say whether a range is one of the file that the client knows: If-Range, RFC 9110, section 13.1.5."""
        value = request.headers.get("If-Range")
        if value is None:
            return True
        # Neither a weak tag nor any other date than the very one will do: parts of two files would become one.
        return value.strip() == f'"{self.tag}"' or _seconds(value) == self.modified

    def _is_among(self, value: str, *, weak: bool) -> bool:
        tags = _TAG.findall(value)
        return value.strip() == "*" or ("", self.tag) in tags or (weak and ("W/", self.tag) in tags)


def _seconds(value: str | None) -> int | None:
    """Return a date in a header in seconds since the epoch; None for none, and for one that is nonsense."""
    with suppress(OverflowError, ValueError):
        date = parse_date(value)
        return None if date is None else int(date.timestamp())
    return None


def _part(request: Request, size: int) -> range | None:
    """Return the range of bytes that is asked for, None for all of them.

    Several ranges, other units and nonsense get all of the file, as RFC 9110, section 14.2 allows: one that is asked
    for a thousand ranges would else send a thousand times as much. So does an empty file, which has no range.
    """
    asked = _RANGE.fullmatch(request.headers.get("Range", ""))
    if asked is None or not size:
        return None
    if asked["suffix"]:
        part = range(max(size - int(asked["suffix"]), 0), size)
    else:
        first, last = int(asked["first"]), int(asked["last"] or size)
        if last < first < size:
            return None
        part = range(first, min(last + 1, size))
    if not part:
        raise _RangeNotSatisfiableError(size)
    return part


class _PrivateError(HTTPException):
    """An answer about a file that no cache may keep either."""

    def get_headers(
        self, environ: WSGIEnvironment | None = None, scope: dict[str, Any] | None = None
    ) -> list[tuple[str, str]]:
        """Return what goes with the answer."""
        return [*super().get_headers(environ, scope), ("Accept-Ranges", "bytes"), ("Cache-Control", _CACHING)]


class _RangeNotSatisfiableError(_PrivateError, RequestedRangeNotSatisfiable):
    """No byte of the file is in the range."""


class _PreconditionFailedError(_PrivateError, PreconditionFailed):
    """The file is not, or not any more, the one that the client means."""

    description = "The file is not the one that If-Match or If-Unmodified-Since describes."


# --- names ---


def _attachment(name: str) -> str:
    """Return the Content-Disposition that has a browser save a file under its name (RFC 6266)."""
    letters = (c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    plain = _NOT_PLAIN.sub("_", "".join(letters))
    if plain == name:
        return dump_options_header("attachment", {"filename": name})
    exact = quote(name, safe="!#$&+-.^_`|~")
    return dump_options_header("attachment", {"filename": plain, "filename*": f"UTF-8''{exact}"})
