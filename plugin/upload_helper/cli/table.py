"""Tasks as a table in the terminal, once or live."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..errors import LedgerError
from ..transfer.figures import amounts_text, size_text, span_text, speed_text
from .text import printable

if TYPE_CHECKING:
    from ..work import Task

_COLORS = {"RUNNING": "cyan", "SUCCEEDED": "green", "FAILED": "red", "BLOCKED": "yellow", "CANCELLED": "bright_black"}
_BAR = 10
_WIDE = 100
"""Columns of a terminal that has room for all."""
_SHARES = {"tag": 8, "title": 4, "task": 5}
"""What part of the terminal the names of others may take."""
_REFRESH = 2
"""Times a second."""


def print_table(tasks: Sequence[Task], console: Console | None = None) -> None:
    """Print the tasks; where the output is no terminal, as wide as they are."""
    console = console or Console()
    if not console.is_terminal:
        console.width = 500
    console.print(table_of(tasks, width=console.width))


@contextmanager
def watched(tasks: Callable[[], Sequence[Task]], console: Console | None = None) -> Iterator[Event]:
    """Show the tasks as they are, until the block ends or Ctrl-C is pressed; gives what one may wait for."""
    console = console or Console()
    view = _View(tasks, console)
    with Live(get_renderable=view.draw, refresh_per_second=_REFRESH, console=console):
        try:
            yield Event()
        except KeyboardInterrupt:
            return


class _View:
    """What is shown; a ledger that can't be read for a while leaves the last table there."""

    def __init__(self, tasks: Callable[[], Sequence[Task]], console: Console) -> None:
        self._tasks = tasks
        self._console = console
        self._last: Sequence[Task] = ()

    def draw(self) -> Group:
        note = Text("")
        try:
            self._last = self._tasks()
        except LedgerError as error:
            note = Text(printable(str(error)), style="red")
        return Group(table_of(self._last, width=self._console.width), note)


def table_of(tasks: Sequence[Task], now: float | None = None, width: int = _WIDE) -> Table:
    """Return the table, for so many columns; texts of others are shown as they are, never as markup."""
    now = time.time() if now is None else now
    table = Table(box=None, pad_edge=False)
    names = ("uid", "tag", "title", "state", "progress", "attempt", "next")
    for name in names if width >= _WIDE else ("uid", "task", "state", "done"):
        table.add_column(name, no_wrap=True, max_width=max(width // _SHARES[name], 14) if name in _SHARES else None)
    table.add_column("note", overflow="fold")
    for task in tasks:
        state = Text(task.state.value, style=_COLORS.get(task.state.value, ""))
        table.add_row(*(_cells if width >= _WIDE else _few_cells)(task, state, now))
    return table


def _cells(task: Task, state: Text, now: float) -> list[Text]:
    cells = (task.uid[:8], task.tag, task.title)
    rest = (_bar(task.progress), str(task.attempt), _next(task, now), printable(_note(task)))
    return [*(Text(printable(cell)) for cell in cells), state, *map(Text, rest)]


def _few_cells(task: Task, state: Text, now: float) -> list[Text]:
    """Return what matters most, where there is no room for all."""
    note = ", ".join(part for part in (_next(task, now), _note(task)) if part)
    share = "" if task.progress is None else f"{100 * task.progress:.0f} %"
    return [Text(task.uid[:8]), Text(printable(task.title or task.tag)), state, Text(share), Text(printable(note))]


def _note(task: Task) -> str:
    """Return what a task does, how far a transfer is, and what was wrong."""
    is_running = task.state.value == "RUNNING"
    parts = [task.step_name if is_running else task.error]
    if task.done is not None and not (task.state.ended and task.error):
        amounts = amounts_text(task.done, task.total) if task.done != task.total else size_text(task.done)
        parts.insert(0, amounts)
    if is_running and task.speed is not None and task.done is not None:
        left = span_text((task.total - task.done) / task.speed) if task.total is not None and task.speed else ""
        parts[1:1] = [speed_text(task.speed), f"{left} left" if left else ""]
    return ", ".join(part for part in parts if part)


def _bar(progress: float | None) -> str:
    if progress is None:
        return ""
    full = round(_BAR * progress)
    return f"{'█' * full}{'░' * (_BAR - full)} {100 * progress:.0f} %"


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
