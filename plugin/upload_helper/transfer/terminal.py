"""Progress in a terminal: one line that changes in place, and one that stays when the transfer has ended."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .figures import amounts_text, printable, size_text, span_text, speed_text
from .progress import Progress

QUIET_SECONDS = 3.0
"""After so long without news the line says that there is no link."""
_WIDE = 80
_SHORTEST_BAR = 8
_LONGEST_BAR = 30
_PLAIN = {"multipart": "in one piece as a form", "raw": "in one piece as a body"}
_REFRESH = 8
"""Times a second."""


class Terminal:
    """Shows progress on a console, which is no terminal perhaps: then only what stays."""

    def __init__(self, console: Console | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console or Console(stderr=True)
        self._clock = clock
        self._progress = Progress("")
        self._heard = clock()
        self._live: Live | None = None

    def begin(self, progress: Progress) -> None:
        """Start the line."""
        self.show(progress)
        if self.console.is_terminal:
            self._live = Live(
                get_renderable=self.draw, console=self.console, refresh_per_second=_REFRESH, transient=True
            )
            self._live.start()

    def show(self, progress: Progress) -> None:
        """Change the line."""
        self._progress, self._heard = progress, self._clock()

    def end(self, progress: Progress, error: str | None) -> None:
        """Leave one line that stays."""
        self.show(progress)
        if self._live is not None:
            self._live.stop()
            self._live = None
        self.console.print(summary_of(progress, error), soft_wrap=True)

    def draw(self) -> Table:
        """Return the line as it is now."""
        return line_of(self._progress, self.console.width, self._clock() - self._heard)


def line_of(progress: Progress, width: int, silent: float = 0) -> Table:
    """Return a line for a terminal that is so wide; `silent` is for how many seconds nothing was heard."""
    figures = "  ".join(part for part in _figures(progress, width, silent) if part).rstrip()
    rest = width - cell_len(figures) - 2
    name = printable(progress.name)
    name_width = max(min(cell_len(name), max(rest // 2, rest - _LONGEST_BAR), rest - _SHORTEST_BAR - 2), 1)
    bar_width = rest - name_width - 2
    table = Table.grid(padding=(0, 2, 0, 0))
    if rest < _SHORTEST_BAR + 2:
        table.add_row(Text(figures, no_wrap=True, overflow="ellipsis"))
        return table
    cells = [Text(_shortened(name, name_width))]
    if bar_width >= _SHORTEST_BAR:
        share = progress.share
        bar = ProgressBar(total=1.0, completed=share or 0, pulse=share is None, width=bar_width)
        # What has not begun has none: where there are no colours, an empty one looks full.
        table.add_row(*cells, bar if progress.done else Text(" " * bar_width), Text(figures, no_wrap=True))
    else:
        table.add_row(*cells, Text(figures, no_wrap=True, overflow="ellipsis"))
    return table


def summary_of(progress: Progress, error: str | None) -> Text:
    """Return the line that stays."""
    if error is not None:
        return Text.assemble(("✗ ", "red"), f"{printable(progress.name)}: {printable(error)}")
    took = f" in {span_text(progress.seconds)}" if progress.seconds >= 1 else ""
    sent = progress.done - progress.resumed
    speed = f", {speed_text(sent / progress.seconds)}" if progress.seconds >= 1 and sent else ""
    resumed = f", went on at {size_text(progress.resumed)}" if progress.resumed else ""
    how = f", {_PLAIN[progress.protocol]}" if progress.protocol in _PLAIN else ""
    text = f"{printable(progress.name)}: {size_text(progress.done)}{took}{speed}{resumed}{how}"
    return Text.assemble(("✓ ", "green"), text)


def _figures(progress: Progress, width: int, silent: float) -> list[str]:
    share = progress.share
    percent = "" if share is None else f"{int(100 * share):3} %"
    amounts = amounts_text(progress.done, progress.total) if width >= _WIDE or share is None else ""
    if progress.step:
        return [percent, amounts, printable(progress.detail or progress.step)]
    if silent > QUIET_SECONDS:
        return [percent, amounts, f"no link for {span_text(silent)}"]
    left = f"{span_text(progress.left):>7}{' left' if width >= _WIDE and progress.left is not None else ''}"
    # As wide as they mostly are, or the bar would jump.
    return [percent, amounts, f"{speed_text(progress.speed):>11}", left]


def _shortened(name: str, width: int) -> str:
    """Return a name with its end, which tells most, if it must be cut."""
    if cell_len(name) <= width:
        return name
    end = min(8, width // 3)
    return set_cell_size(name, width - end - 1).rstrip() + "…" + name[len(name) - end :]
