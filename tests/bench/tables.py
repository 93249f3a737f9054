"""What was measured: tables with a line for each server, or whatever else is compared, and figures of every round."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Any, NamedTuple, TypeVar

DISTURBED = 0.3
OTHERS = "others"
"""The column with what others took of the processors' time, in percent."""
MOST_OF_OTHERS = 25

K = TypeVar("K")
S = TypeVar("S")


class Ratio(NamedTuple):
    """The ratios of all rounds: their median, the smallest and the largest."""

    median: float
    low: float
    high: float


@dataclass
class Column:
    """One kind of figure: for each line that has it the figure of every round."""

    name: str
    unit: str
    rounds: dict[str, list[float]]

    def median(self, line: str) -> float:
        return median(self.rounds[line])

    def ratio(self, line: str, other: str) -> Ratio:
        """Return a line divided by another one, round by round: each against its neighbour."""
        ratios = [a / b for a, b in zip(self.rounds[line], self.rounds[other], strict=True)]
        return Ratio(median(ratios), min(ratios), max(ratios))

    def spread(self, line: str) -> float:
        """Return how far at most a round is from the median of its line, as a fraction."""
        middle = self.median(line) or 1
        return max(abs(value / middle - 1) for value in self.rounds[line])


@dataclass
class Table:
    """What one shape has found."""

    key: str
    name: str
    columns: list[Column]
    """The first one is what lines are compared by."""
    to: tuple[str, ...] = ()
    """The lines that each line is divided by."""
    ours: str = ""
    """The line that is divided by each line."""
    notes: dict[str, str] = field(default_factory=dict)

    def column(self, name: str = "") -> Column:
        """Return the column of that name, without one the first; raises KeyError."""
        return {column.name: column for column in self.columns}[name or self.columns[0].name]

    @property
    def lines(self) -> list[str]:
        return list(self.columns[0].rounds)

    def ratios(self, line: str) -> dict[str, Ratio]:
        """Return the ratios that the table shows for a line."""
        first = self.columns[0]
        found = {f"{self.ours} to it": first.ratio(self.ours, line)} if self.ours in first.rounds else {}
        return found | {f"to {other}": first.ratio(line, other) for other in self.to if other in first.rounds}

    def disturbed(self, line: str) -> bool:
        """Say whether a round is far off, or others were at work."""
        others = [column.median(line) for column in self.columns if column.name == OTHERS]
        return self.columns[0].spread(line) > DISTURBED or any(share > MOST_OF_OTHERS for share in others)

    def as_json(self) -> dict[str, Any]:
        return {"key": self.key, "name": self.name, "lines": {line: self._line(line) for line in self.lines}}

    def _line(self, line: str) -> dict[str, Any]:
        first, *_ = self.columns
        figures = {
            column.name: {"unit": column.unit, "median": column.median(line), "rounds": column.rounds[line]}
            for column in self.columns
            if line in column.rounds
        }
        ratios = {name: ratio._asdict() for name, ratio in self.ratios(line).items()}
        about = {"spread": first.spread(line), "disturbed": self.disturbed(line), "note": self.notes.get(line, "")}
        return {"figures": figures, "ratios": ratios, **about}


def column(name: str, unit: str, samples: dict[K, list[S]], figure: Callable[[S], float]) -> Column:
    """Return one kind of figure of all samples."""
    return Column(name, unit, {str(line): [figure(sample) for sample in found] for line, found in samples.items()})


def interleave(names: Iterable[K], rounds: int, measure: Callable[[K], S]) -> dict[K, list[S]]:
    """Measure A B C A B C …; the first round is thrown away."""
    found: dict[K, list[S]] = {name: [] for name in names}
    for number in range(rounds + 1):
        for name, values in found.items():
            value = measure(name)
            if number:
                values.append(value)
    return found
