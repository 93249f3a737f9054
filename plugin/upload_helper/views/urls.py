"""The URLs of uploads, as clients are told them."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from flask import request, url_for

from ..upload import is_uid

# What a proxy may have put in front of the path without telling.
_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*")


def upload_url(uid: str) -> str:
    """Return the URL of an upload: a path, for a proxy may have changed scheme and host."""
    return url_for(f"{request.blueprint}.upload", uid=uid)


def uid_of(url: str) -> str:
    """Return the uid in a URL that ``upload_url`` has made, absolute or relative; '' for any other."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    uid = parts.path.rpartition("/")[2]
    if not is_uid(uid) or parts.scheme not in ("", "http", "https"):
        return ""
    own = upload_url(uid)
    found = parts.path.endswith(own) and _PREFIX.fullmatch(parts.path.removesuffix(own))
    return uid if found else ""
