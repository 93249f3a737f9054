"""Finished files on their way out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

from flask import Response
from werkzeug.utils import send_file

from .service import Upload

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_SUFFIX = re.compile(r"bytes=-([0-9]{1,19})", re.ASCII)


def send_upload(upload: Upload, environ: WSGIEnvironment) -> Response:
    """Return the answer with a finished upload's bytes, as a whole or the range that is asked for (RFC 9110, 14).

    A stranger's bytes must not act as a page of this site, so the type is the neutral one, the browser is told to
    save and not to guess, and what it shows all the same is sandboxed.
    """
    response = send_file(
        upload.path,
        _usable(environ, upload.totalSize),
        mimetype="application/octet-stream",
        as_attachment=True,
        download_name=upload.fileName,
        conditional=True,
        etag=upload.uploadUid,
        response_class=Response,
    )
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Content-Security-Policy"] = "sandbox"
    response.headers["Cache-Control"] = "private, no-cache"
    return cast("Response", response)


def _usable(environ: WSGIEnvironment, size: int) -> WSGIEnvironment:
    """Return the request with the ranges in its header that werkzeug reads otherwise than RFC 9110 says.

    A unit that is not known is ignored (14.2), and a suffix longer than the file is the whole file (14.1.2).
    """
    asked = environ.get("HTTP_RANGE", "")
    suffix = _SUFFIX.fullmatch(asked)
    if asked and not asked.startswith("bytes"):
        return {name: value for name, value in environ.items() if name != "HTTP_RANGE"}
    if suffix and size and int(suffix[1]) > size:
        return {**environ, "HTTP_RANGE": f"bytes=-{size}"}
    return environ
