"""Cross-origin resource sharing (Fetch, section 3.2): which pages of other sites may read the answers."""

from __future__ import annotations

import re

from flask import Request, Response

from ..config import Config

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""What a page may send; the methods that are safe or simple are named too, for those who read this with curl."""

REQUEST_HEADERS = (
    # of tus
    "Tus-Resumable", "Upload-Length", "Upload-Defer-Length", "Upload-Metadata", "Upload-Offset", "Upload-Concat",
    "Upload-Checksum", "X-HTTP-Method-Override", "X-Request-ID",
    # of resumable uploads for HTTP, older drafts included
    "Upload-Complete", "Upload-Incomplete", "Upload-Draft-Interop-Version", "Content-Disposition", "Content-Digest",
    "Repr-Digest", "Want-Content-Digest", "Want-Repr-Digest", "Digest", "Prefer",
    # of the browser libraries: FilePond, Dropzone, Fine Uploader and their like
    "Upload-Name", "X-Requested-With", "Cache-Control", "X-File-Name", "X-Mime-Type", "Content-Range",
    # of downloads
    "Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since",
    # of everybody
    "Accept", "Authorization", "Content-Type", "X-CSRFToken", "X-CSRF-Token", "X-XSRF-TOKEN", "X-Upload-Helper",
)  # fmt: skip
"""Request headers that some client of some protocol sends."""

RESPONSE_HEADERS = (
    "Location", "Content-Location",
    "Tus-Resumable", "Tus-Version", "Tus-Extension", "Tus-Max-Size", "Tus-Checksum-Algorithm",
    "Upload-Offset", "Upload-Length", "Upload-Defer-Length", "Upload-Metadata", "Upload-Concat", "Upload-Expires",
    "Upload-Complete", "Upload-Incomplete", "Upload-Limit", "Upload-Draft-Interop-Version", "Upload-Name",
    "Content-Digest", "Repr-Digest", "Want-Content-Digest", "Want-Repr-Digest",
    "ETag", "Accept-Ranges", "Content-Range", "Content-Length", "Content-Disposition",
    "Allow", "Accept-Patch", "Date", "Link", "Retry-After", "X-Request-ID", "X-Upload-Helper",
)  # fmt: skip
"""Response headers that a page may read, besides the few that it may always."""

# Chromium keeps a preflight for two hours at most.
_MAX_AGE = 7200
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_MOST_ASKED = 64


def preflight(request: Request, config: Config) -> Response | None:
    """Return the answer to a CORS preflight of a page that may come; None for any other request.

    To be asked before anything else: a preflight carries neither cookies nor a token.
    """
    asks = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
    if not asks or _allowed(request, config) is None:
        return None
    answer = Response(status=204)
    answer.headers["Access-Control-Allow-Methods"] = ", ".join(METHODS)
    answer.headers["Access-Control-Allow-Headers"] = ", ".join((*REQUEST_HEADERS, *_further(request)))
    answer.headers["Access-Control-Max-Age"] = str(_MAX_AGE)
    return add_headers(request, answer, config)


def add_headers(request: Request, answer: Response, config: Config) -> Response:
    """Return an answer with what lets the page that asks read it, if its origin is a listed one.

    Sets and never adds, for a header that is there twice makes browsers refuse the answer.
    """
    if not config.cors_origins:
        return answer
    # Also where no page asks, or no cache could tell the two answers apart.
    answer.vary.add("Origin")
    origin = _allowed(request, config)
    if origin is not None:
        answer.headers["Access-Control-Allow-Origin"] = origin
        answer.headers["Access-Control-Allow-Credentials"] = "true"
        answer.headers["Access-Control-Expose-Headers"] = ", ".join(RESPONSE_HEADERS)
    return answer


def _allowed(request: Request, config: Config) -> str | None:
    origin = request.headers.get("Origin")
    return origin if origin in config.cors_origins else None


def _further(request: Request) -> list[str]:
    """Return the headers that the page asks for besides those that are known: the host's own, such as a token's."""
    known = {name.lower() for name in REQUEST_HEADERS}
    asked = [name.strip() for name in request.headers.get("Access-Control-Request-Headers", "").split(",")]
    return [name for name in asked[:_MOST_ASKED] if _TOKEN.fullmatch(name) and name.lower() not in known]
