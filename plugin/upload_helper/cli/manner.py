"""How ``upload-helper send`` and ``upload-helper get`` do their work, and what they end with."""

from __future__ import annotations

from dataclasses import dataclass

from .work import Chosen

FAILED, WRONG_USE, LATER, REFUSED, LOCAL, NOT_THE_FILE, INTERRUPTED = 1, 2, 3, 4, 5, 6, 130
"""Exit codes, see docs/transfers.md."""


@dataclass(frozen=True)
class Manner:
    """How a command does its work, whatever the files are."""

    ledger: str
    background: bool
    quiet: bool
    as_json: bool
    tries: int
    tag: str
    title: str
    priority: int
    again: bool = False

    def chosen(self) -> Chosen:
        """Return the ledger; only who needs it has what it needs."""
        from ..work.places import default_ledger  # noqa: PLC0415

        return Chosen(self.ledger or default_ledger(), "", ())
