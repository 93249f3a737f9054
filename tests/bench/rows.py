"""What was measured: rows of figures, one per round and server."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Any, TypeVar

OURS = "ours"
DISTURBED = 0.3

K = TypeVar("K")
T = TypeVar("T")


@dataclass
class Row:
    """One line of the table: for each server the figure of every round."""

    name: str
    unit: str
    rounds: dict[str, list[float]]
    note: str = ""
    key: str = field(default="", repr=False)
    """What a target calls the row."""
    ours: str = field(default=OURS, repr=False)
    """Which of the servers, or clients, the others are compared with."""

    def median(self, server: str = OURS) -> float:
        return median(self.rounds[server])

    def ratios(self, other: str) -> list[float]:
        """Return our figure divided by another one's in each round: each against its neighbour."""
        return [a / b for a, b in zip(self.rounds[self.ours], self.rounds[other], strict=True)]

    def ratio(self, other: str) -> float:
        """Return our figure divided by another one's: the median over the rounds."""
        return median(self.ratios(other))

    def growth(self, smaller: Row) -> float:
        """Return this row divided by another one of ours: the median over the rounds."""
        return median(a / b for a, b in zip(self.rounds[OURS], smaller.rounds[OURS], strict=True))

    def spread(self) -> float:
        """Return how far at most a round is from the median of its server, as a fraction."""
        return max(self.spread_of(server) for server in self.rounds)

    def spread_of(self, server: str) -> float:
        values = self.rounds[server]
        return max(abs(value / (median(values) or 1) - 1) for value in values)

    def disturbed(self) -> bool:
        return self.spread() > DISTURBED

    def as_json(self) -> dict[str, Any]:
        servers = {name: {"median": median(values), "rounds": values} for name, values in self.rounds.items()}
        ratios = {name: self.ratio(name) for name in self.rounds if name != self.ours}
        return {
            "name": self.name, "unit": self.unit, "servers": servers, "ratios": ratios,
            "spread": self.spread(), "disturbed": self.disturbed(), "note": self.note,
        }  # fmt: skip


def interleave(names: Iterable[K], rounds: int, measure: Callable[[K], T]) -> dict[K, list[T]]:
    """Measure A B C A B C …; the first round is thrown away."""
    found: dict[K, list[T]] = {name: [] for name in names}
    for number in range(rounds + 1):
        for name, values in found.items():
            value = measure(name)
            if number:
                values.append(value)
    return found
