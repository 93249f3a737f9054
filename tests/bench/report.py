"""The table, and the same as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from .rows import DISTURBED, OURS, Row
from .targets import judge

REMARK = "Ours forces every finished file to the disk before it says so; the others never do."


@dataclass(frozen=True)
class Report:
    """All that one run has found."""

    machine: dict[str, str]
    rows: list[Row]

    def as_json(self) -> dict[str, Any]:
        return {
            "machine": self.machine,
            "rows": [row.as_json() for row in self.rows],
            "targets": [asdict(target) for target in judge(self.rows)],
        }

    def as_text(self) -> str:
        targets = [
            [target.text, f"{target.limit:g}", _number(target.figure), "holds" if target.holds else "DOES NOT HOLD"]
            for target in judge(self.rows)
        ]
        of_servers = [row for row in self.rows if row.ours == OURS]
        of_clients = [row for row in self.rows if row.ours != OURS]
        tables = [[list(item) for item in self.machine.items()]]
        tables += [_of_servers(of_servers)] if of_servers else []
        tables += [_of_clients(list(rows)) for _, rows in groupby(of_clients, lambda row: row.rounds.keys())]
        tables += [[["target", "limit", "measured", ""], *targets]] if targets else []
        remarks = [REMARK] if of_servers else []
        return "\n\n".join([*(align(rows) for rows in tables), *remarks]) + "\n"


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


def _of_servers(rows: list[Row]) -> list[list[str]]:
    """Return a table with a line for each row and a column for each server."""
    servers = list(dict.fromkeys(name for row in rows for name in row.rounds))
    others = [name for name in servers if name != OURS]
    heads = ["", "unit", *servers, *(f"to {name}" for name in others), "spread", ""]
    return [heads, *(_cells(row, servers, others) for row in rows)]


def _of_clients(rows: list[Row]) -> list[list[str]]:
    """Return a table with a line for each client; its ratio is the first column of ours divided by its own."""
    speed, *others = rows
    further = [f"{row.name.strip()}, {row.unit}" for row in others]
    table = [[speed.name, speed.unit, f"{speed.ours} to it", "from", "to", *further, ""]]
    for name in speed.rounds:
        ratios = speed.ratios(name)
        cells = [speed.median(name), speed.ratio(name), min(ratios), max(ratios), *(row.median(name) for row in others)]
        remark = "disturbed" if speed.spread_of(name) > DISTURBED else ""
        table.append([name, *map(_number, cells), remark])
    return table


def _cells(row: Row, servers: list[str], others: list[str]) -> list[str]:
    values = [_number(row.median(name)) if name in row.rounds else "" for name in servers]
    ratios = [f"{row.ratio(name):.2f}" if name in row.rounds and OURS in row.rounds else "" for name in others]
    spread = f"{100 * row.spread():.0f} %" if len(row.rounds[OURS]) > 1 else ""
    remark = ", ".join(part for part in ("disturbed" if row.disturbed() else "", row.note) if part)
    return [row.name, row.unit, *values, *ratios, spread, remark]


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
