"""Texts of others, and times, on a terminal."""

from __future__ import annotations

import re
import time

_BREAK = re.compile(r"[^\S ]+")


def printable(text: str) -> str:
    """Return a text on one line, without what would play with the terminal."""
    return "".join(c if c.isprintable() else "?" for c in _BREAK.sub(" ", text))


def local_time(seconds: float) -> str:
    """Return seconds since the epoch as people here read them."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
