"""Tasks as a table in the terminal, once or live."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..errors import LedgerError
from .listing import Listing, percent, short
from .text import printable

if TYPE_CHECKING:
    from ..work import Task

REFRESH = 2
"""Times a second."""

_COLORS = {"RUNNING": "cyan", "SUCCEEDED": "green", "FAILED": "red", "BLOCKED": "yellow", "CANCELLED": "bright_black"}
_BAR = 10
_GAP = 2

_COLUMNS: Mapping[str, Callable[[Task, Listing, float], str]] = {
    "uid": lambda task, _listing, _now: short(task.uid),
    "tag": lambda task, _listing, _now: task.tag,
    "title": lambda task, _listing, _now: task.title,
    "state": lambda task, _listing, _now: task.state.value,
    "progress": lambda task, _listing, _now: _bar(task.progress),
    "done": lambda task, _listing, _now: percent(task.progress),
    "attempt": lambda task, _listing, _now: str(task.attempt),
    "next": lambda task, _listing, now: _next(task, now),
    "note": lambda task, listing, _now: listing.note(task),
}
_LEAST = {"tag": 10, "title": 12, "next": 12, "note": 16}
"""How narrow columns may become; others are never cut."""
_SHARES = {"title": 2, "note": 4}
"""How much of what is left they get, where others get 1."""
_LAYOUTS = (
    ("uid", "tag", "title", "state", "progress", "attempt", "next", "note"),
    ("uid", "tag", "title", "state", "done", "attempt", "next", "note"),
    ("uid", "tag", "title", "state", "done", "next", "note"),
    ("uid", "tag", "title", "state", "done", "note"),
    ("uid", "title", "state", "done", "note"),
    ("uid", "state", "done", "note"),
    ("uid", "state"),
)
"""From the widest terminal to the narrowest."""


def print_table(listing: Listing, console: Console | None = None) -> None:
    """Print the tasks; where the output is no terminal, as wide as they are."""
    console = console or Console()
    rows = Rows(listing, time.time())
    if not console.is_terminal:
        console.width = max(console.width, rows.widest)
    console.print(rows)


@contextmanager
def watched(look: Callable[[], Listing], console: Console | None = None) -> Iterator[Event]:
    """Show the tasks as they are, until the block ends or Ctrl-C is pressed; gives what one may wait for."""
    view = _View(look)
    with Live(get_renderable=view.draw, refresh_per_second=REFRESH, console=console or Console()):
        try:
            yield Event()
        except KeyboardInterrupt:
            return


class _View:
    """What is shown; a ledger that can't be read for a while leaves the last table there."""

    def __init__(self, look: Callable[[], Listing]) -> None:
        self._look = look
        self._last = Listing()

    def draw(self) -> Group:
        note = Text("")
        try:
            self._last = self._look()
        except LedgerError as error:
            note = Text(printable(str(error)), style="red")
        return Group(Rows(self._last, time.time()), note)


class Rows:
    """The table, one line for each task, with those columns that a width has room for."""

    def __init__(self, listing: Listing, now: float) -> None:
        # Texts of others are shown as they are, never as markup.
        self._cells = {
            name: [Text(printable(cell(task, listing, now))) for task in listing.tasks]
            for name, cell in _COLUMNS.items()
        }
        self._widths = {
            name: max(len(name), *(cell.cell_len for cell in cells), 0) for name, cells in self._cells.items()
        }
        for task, cell in zip(listing.tasks, self._cells["state"], strict=True):
            cell.stylize(_COLORS.get(task.state.value, ""))

    @property
    def widest(self) -> int:
        """How many columns of a terminal show everything."""
        return _total([self._widths[name] for name in _LAYOUTS[0]])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it."""
        table = Table(box=None, pad_edge=False)
        widths = self._fitted(options.max_width)
        for name, width in widths.items():
            table.add_column(name, no_wrap=True, overflow="ellipsis", width=width)
        for row in zip(*(self._cells[name] for name in widths), strict=True):
            table.add_row(*row)
        yield table

    def _fitted(self, room: int) -> dict[str, int]:
        """Return the columns that there is room for, and how wide they are."""
        for names in _LAYOUTS:
            widths = {name: min(self._widths[name], _LEAST.get(name, self._widths[name])) for name in names}
            spare = room - _total(list(widths.values()))
            if spare >= 0:
                break
        for _ in range(spare):
            cut = [name for name in names if widths[name] < self._widths[name]]
            if not cut:
                break
            widths[min(cut, key=lambda name: widths[name] / _SHARES.get(name, 1))] += 1
        return widths


def _total(widths: list[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def _bar(progress: float | None) -> str:
    if progress is None:
        return ""
    full = round(_BAR * progress)
    return f"{'█' * full}{'░' * (_BAR - full)} {percent(progress)}"


def _next(task: Task, now: float) -> str:
    """Return in how long a waiting task runs, or what it waits for."""
    if task.state.value == "BLOCKED":
        return ";".join(sorted(task.conditions))
    if task.state.value != "ENQUEUED":
        return ""
    seconds = max(0, round(task.next_run - now))
    if not seconds:
        return "now"
    hours, rest = divmod(seconds, 3600)
    return f"in {hours}:{rest // 60:02}:{rest % 60:02}"
