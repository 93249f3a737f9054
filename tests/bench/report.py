"""The tables as text, and the same as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

from .tables import Ratio, Table
from .targets import PATHS, SERVERS, Target, judge

REMARK = """\
Ratios are the median over the rounds, each against its neighbour, with the smallest and the largest.
"disturbed": a round is more than 30 % off its median, or others took more than 25 % of the processors' time.
The processor's time is that of all processes of a server. Memory is theirs after an upload; what they share counts once.
Ours forces every finished file to the disk before it says so, within its last answer; the others never do,
and "unforced" does not either."""


@dataclass(frozen=True)
class Report:
    """All that one run has found; `servers` says how each one is run."""

    machine: dict[str, str]
    servers: dict[str, str]
    tables: list[Table]

    def as_json(self) -> dict[str, Any]:
        return {
            "machine": self.machine,
            "servers": self.servers,
            "tables": [table.as_json() for table in self.tables],
            "targets": [target.as_json() for target in judge(self.tables)],
        }

    def as_text(self) -> str:
        targets = judge(self.tables)
        paragraphs = [align([list(item) for item in about.items()]) for about in (self.machine, self.servers)]
        paragraphs += [f"{table.name}\n{align(_cells(table))}" for table in self.tables]
        paragraphs.append(REMARK)
        paragraphs += [align(lines) for lines in (_of_servers(targets), _of_the_rest(targets)) if len(lines) > 1]
        if targets:
            missed = sum(not target.holds for target in targets)
            paragraphs.append(f"{len(targets) - missed} of {len(targets)} targets hold, {missed} do not.")
        return "\n\n".join(paragraphs) + "\n"


def align(rows: list[list[str]]) -> str:
    """Return rows of cells as lines of text, words to the left and figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    last = len(widths) - 1
    lines = []
    for row in rows:
        cells = [
            cell.ljust(widths[place]) if place in (0, last) else cell.rjust(widths[place])
            for place, cell in enumerate(row)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _cells(table: Table) -> list[list[str]]:
    """Return two lines of heads and a line for each server, or whatever is compared."""
    first, *others = table.columns
    ratios = list(next(iter(map(table.ratios, table.lines))))
    cells = [
        ["", first.name, *ratios, *(column.name for column in others), ""],
        ["", first.unit, *("" for _ in ratios), *(column.unit for column in others), ""],
    ]
    for line in table.lines:
        figures = [_number(column.median(line)) if line in column.rounds else "" for column in table.columns]
        remarks = ["disturbed" if table.disturbed(line) else "", table.notes.get(line, "")]
        compared = [_ratio(ratio) for ratio in table.ratios(line).values()]
        cells.append([line, figures[0], *compared, *figures[1:], ", ".join(filter(None, remarks))])
    return cells


def _of_servers(targets: list[Target]) -> list[list[str]]:
    """Return a line for each target of ours, with the limit of each path before its servers."""
    cells = [["targets of the servers", *(head for path in PATHS for head in (path, *SERVERS)), ""]]
    for text, group in groupby((target for target in targets if target.path), lambda target: target.text):
        known = {(target.path, target.server): target for target in group}
        line = [text]
        for path in PATHS:
            found = [known.get((path, server)) for server in SERVERS]
            limits = {f"{target.sign} {target.limit:g}" for target in found if target}
            line += ["".join(limits), *(_verdict(target) if target else "" for target in found)]
        cells.append([*line, ""])
    return cells


def _verdict(target: Target) -> str:
    return _number(target.figure) + ("       " if target.holds else " MISSED")


def _of_the_rest(targets: list[Target]) -> list[list[str]]:
    cells = [["further targets", "limit", "measured", ""]]
    for target in targets:
        if not target.path:
            verdict = "" if target.holds else "MISSED"
            cells.append([target.text, f"{target.sign} {target.limit:g}", _number(target.figure), verdict])
    return cells


def _ratio(ratio: Ratio) -> str:
    return f"{ratio.median:.2f} ({ratio.low:.2f}–{ratio.high:.2f})"


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
