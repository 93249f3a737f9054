"""Texts of others on a terminal."""

from __future__ import annotations

from ..transfer.figures import printable

__all__ = ["printable"]
