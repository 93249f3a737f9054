"""Texts of others, and times, on a terminal."""

from __future__ import annotations

import time

from ..transfer.figures import printable

__all__ = ["local_time", "printable", "size_text"]

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size_text(count: float) -> str:
    """Return a number of bytes as people read it."""
    unit = 0
    while count >= 1024 and unit < len(_UNITS) - 1:
        count /= 1024
        unit += 1
    return f"{count:.1f} {_UNITS[unit]}" if unit else f"{count:.0f} B"


def local_time(seconds: float) -> str:
    """Return seconds since the epoch as people here read them."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
