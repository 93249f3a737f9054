"""Amounts, speeds and times as people read them, and texts of others as a terminal can show them."""

from __future__ import annotations

import re

_BREAK = re.compile(r"[^\S ]+")
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def printable(text: str) -> str:
    """Return a text on one line, without what would play with the terminal."""
    return "".join(c if c.isprintable() else "?" for c in _BREAK.sub(" ", text))


def size_text(count: float) -> str:
    """Return a number of bytes such as ``1.5 MiB``."""
    return f"{_in_unit(count, _unit_of(count))} {_UNITS[_unit_of(count)]}"


def amounts_text(done: float, total: float | None) -> str:
    """Return how much is done, of how much if that is known, such as ``3.1/10.0 MiB``."""
    if total is None:
        return size_text(done)
    unit = _unit_of(total)
    return f"{_in_unit(done, unit)}/{_in_unit(total, unit)} {_UNITS[unit]}"


def speed_text(speed: float | None) -> str:
    """Return bytes per second such as ``1.5 MiB/s``; '' where that is not known."""
    return "" if speed is None else f"{size_text(speed)}/s"


def span_text(seconds: float | None) -> str:
    """Return a time such as ``0:03:10``; '' where that is not known, or longer than anybody waits."""
    if seconds is None or not 0 <= seconds < 100 * 86400:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _unit_of(count: float) -> int:
    unit = 0
    while count >= 1024 and unit < len(_UNITS) - 1:
        count /= 1024
        unit += 1
    return unit


def _in_unit(count: float, unit: int) -> str:
    return f"{count / 1024**unit:.1f}" if unit else f"{count:.0f}"
