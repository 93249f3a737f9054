"""The URLs of uploads, as clients are told them."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import request, url_for

from ..upload import is_uid


def upload_url(uid: str) -> str:
    """Return the URL of an upload: a path, for a proxy may have changed scheme and host."""
    return url_for(f"{request.blueprint}.upload", uid=uid)


def uid_of(url: str) -> str:
    """Return the uid in a URL that ``upload_url`` has made, absolute or relative; '' for any other."""
    try:
        path = urlsplit(url.strip()).path.rstrip("/")
    except ValueError:
        return ""
    uid = path.rpartition("/")[2]
    # A proxy may have put something in front of the path without telling.
    return uid if is_uid(uid) and path.endswith(upload_url(uid)) else ""
