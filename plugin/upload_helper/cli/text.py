"""Texts of others, and times, on a terminal."""

from __future__ import annotations

import time

from ..transfer.figures import printable

__all__ = ["local_time", "printable"]


def local_time(seconds: float) -> str:
    """Return seconds since the epoch as people here read them."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
