"""Finished files on their way out."""

from __future__ import annotations

from flask import Response, send_file

from .service import Upload


def send_upload(upload: Upload) -> Response:
    """Return the answer with a finished upload's bytes, as a whole or the range that is asked for (RFC 9110, 14).

    A stranger's bytes must not act as a page of this site, so the type is the neutral one, the browser is told to
    save and not to guess, and what it shows all the same is sandboxed.
    """
    response = send_file(
        upload.path,
        mimetype="application/octet-stream",
        as_attachment=True,
        download_name=upload.fileName,
        conditional=True,
        etag=upload.uploadUid,
    )
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Content-Security-Policy"] = "sandbox"
    response.headers["Cache-Control"] = "private, no-cache"
    return response
