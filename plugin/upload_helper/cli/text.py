"""Texts of others on a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return a text without what would play with the terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)
