"""The scripts and the style sheet, under addresses that change when they do, so that browsers need not ask again."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path

from flask import Response, send_from_directory

_FOLDER = Path(__file__).parents[1] / "static"
_IMPORT = re.compile(r'^(?:import|export)\b[^"\n]*"\./([\w-]+\.js)"', re.MULTILINE)
_YEAR = 365 * 24 * 3600  # seconds


@cache
def version() -> str:
    """Return a text that is another one whenever any of the files is."""
    digest = hashlib.sha256()
    for path in sorted(_FOLDER.iterdir()):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


@cache
def imports(module: str) -> tuple[str, ...]:
    """Return all modules that one needs: a browser that is told of them at once saves a round trip for each level."""
    found = [module]
    for name in found:
        found += dict.fromkeys(other for other in _imported(name) if other not in found)
    return tuple(found[1:])


def _imported(module: str) -> list[str]:
    return _IMPORT.findall((_FOLDER / module).read_text(encoding="utf-8"))


def send(wanted: str, filename: str) -> Response:
    """Send a file, to be kept if it is of the version that was asked for: a page may be older than the server."""
    kept = wanted == version()
    answer = send_from_directory(_FOLDER, filename, max_age=_YEAR if kept else 0)
    answer.cache_control.immutable = kept
    return answer
