"""The truth about tasks: one table, in a SQLite file or in PostgreSQL."""

from __future__ import annotations

from pathlib import Path

from .claims import Claim, Claims, PutBack
from .clock import Clock
from .engines import BUSY_SECONDS, Engines


class Ledger(Claims):
    """The ledger at a path or URL; opening it creates or migrates its tables. Raises LedgerError."""

    def __init__(self, target: str | Path, *, clock: Clock | None = None, busy: float = BUSY_SECONDS) -> None:
        super().__init__(Engines(target, busy=busy), clock or Clock())

    def __repr__(self) -> str:
        return f"Ledger({self.engines.name!r})"

    def close(self) -> None:
        """Close the connections; the next use opens new ones."""
        self.engines.close()


__all__ = ["Claim", "Ledger", "PutBack"]
