"""The name of a file that is fetched, where the caller gives none: never one that leads out of the folder."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from ..errors import InvalidRequestError
from ..protocols.disposition import file_name
from ..upload import FALLBACK_NAME, display_name

MOST_BYTES = 200
"""Of a name, in UTF-8: room is left for what is kept beside the file."""
FALLBACK = "download"

# Not to be had on the drives that people carry about.
_NOT_EVERYWHERE = re.compile(r'[<>:"|?*\x00-\x1f]')
# Under such a name another transfer would take it for its own part.
_OF_A_PART = re.compile(r"\.(part(?:\.json|\.new)?)\Z", re.IGNORECASE)
_LONGEST_EXTENSION = 20


def name_of(disposition: str, url: str) -> str:
    """Return the name in a Content-Disposition, or else the last part of the path of the URL, made safe."""
    from_url = unquote(urlsplit(url).path.rpartition("/")[2], errors="replace")
    return safe_name(file_name(disposition)) or safe_name(from_url) or FALLBACK


def safe_name(raw: str) -> str:
    """Return a file name for what somebody else calls `raw`, or '' where nothing of it is left.

    Without folders in either notation, hidden by no dot, of characters that every file system takes, short, and not
    what a part or its note is called.
    """
    last = _shortened(re.split(r"[/\\]", raw.encode(errors="replace").decode())[-1])
    try:
        clean = display_name(last)
    except InvalidRequestError:
        return ""
    if clean == FALLBACK_NAME != last:
        return ""
    name = _shortened(_NOT_EVERYWHERE.sub("_", clean).lstrip(". ")).rstrip(". ")
    return _OF_A_PART.sub(r"_\1", name)


def _shortened(name: str) -> str:
    """Return a name of at most MOST_BYTES bytes, with the extension that it had."""
    stem, dot, extension = name.rpartition(".")
    if not stem or len(extension) > _LONGEST_EXTENSION:
        stem, dot, extension = name, "", ""
    room = MOST_BYTES - len((dot + extension).encode())
    return stem.encode()[:room].decode(errors="ignore") + dot + extension
