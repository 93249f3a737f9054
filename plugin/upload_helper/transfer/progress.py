"""How far a transfer is, and who is told: a function, lines of JSON, and what shows it in modules of their own."""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import IO, Any, Protocol

from .figures import span_text

SPEED_SECONDS = 5.0
"""The speed is that of the last so many seconds."""
WAITING = "waiting"
"""The step between a failure and the next attempt."""
EVERY = 0.1
"""Seconds between two reports to the sinks, at least."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far a transfer is. Amounts are bytes, speeds bytes per second, times seconds."""

    name: str
    """What people know it by: its title, or the name of its file."""
    done: int = 0
    total: int | None = None
    """None where that is not known."""
    resumed: int = 0
    """What had been done already when it began."""
    speed: float | None = None
    """None before there is anything to say."""
    left: float | None = None
    """Time that is left at this speed; None where that is not known."""
    step: str = ""
    """What is done now; '' for the transfer itself."""
    detail: str = ""
    """What more is to be said of the step: in how long it goes on, and why it waits."""
    seconds: float = 0
    """Since it began."""
    protocol: str = ""
    """That by which a file is sent; '' before that is known, and of downloads."""

    @property
    def share(self) -> float | None:
        """The share that is done, 0 to 1; None where that is not known."""
        if self.total is None:
            return None
        return min(self.done / self.total, 1.0) if self.total else 1.0


class Sink(Protocol):
    """What shows progress. All calls come from one thread; what a sink raises is logged, and ends no transfer."""

    def begin(self, progress: Progress, /) -> None:
        """Show that a transfer begins."""

    def show(self, progress: Progress, /) -> None:
        """Show how far it is; called ten times a second at most."""

    def end(self, progress: Progress, error: str | None, /) -> None:
        """Show that it ended, and why if it failed."""


class Meter:
    """Makes Progress of what a transfer reports, and hands it on to sinks. A context manager, around one transfer."""

    def __init__(
        self,
        name: str,
        *sinks: Sink,
        total: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        every: float = EVERY,
    ) -> None:
        self.progress = Progress(name, total=total)
        self._sinks = sinks
        self._clock = clock
        self._every = every
        self._begun = clock()
        self._shown = -float("inf")
        self._samples: deque[tuple[float, int]] = deque()
        self._is_begun = False
        self._is_over = False

    def __enter__(self) -> Meter:
        self._tell(lambda sink: sink.begin(self.progress))
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.end(None if error is None else str(error) or type(error).__name__)

    def report(self, done: int, total: int | None = None) -> None:
        """Take what a transfer says of itself; the first time, that is what was there before it began."""
        now = self._clock()
        before = self.progress
        if not self._is_begun or done < before.done:
            # Begun, or begun again.
            self._is_begun = True
            self._samples.clear()
            before = replace(before, resumed=done)
        is_last = total is not None and done >= total
        self._measure(now, done)
        self.progress = replace(before, done=done, total=total)
        if now - self._shown >= self._every or (is_last and before.done < done):
            self._show(now)

    def speaks(self, protocol: str) -> None:
        """Say by what protocol the file is sent."""
        self.progress = replace(self.progress, protocol=protocol)

    def step(self, text: str, detail: str = "") -> None:
        """Say what is done now, such as checking the file; '' for the transfer itself."""
        if (text, detail) != (self.progress.step, self.progress.detail):
            self.progress = replace(self.progress, step=text, detail=detail)
            self._show(self._clock())

    def wait(self, seconds: float, sleep: Callable[[float], object], why: str = "") -> None:
        """Wait through `sleep` and say each second in how long it goes on; what was before counts for no speed."""
        try:
            while True:
                self._samples.clear()
                self.step(WAITING, f"Again in {span_text(seconds)}{': ' * bool(why)}{why}")
                sleep(min(seconds, 1.0))
                seconds -= 1.0
                if seconds <= 0:
                    return
        finally:
            self.step("")

    def end(self, error: str | None = None) -> None:
        """Say that it ended, and why if it failed; only the first end counts."""
        if not self._is_over:
            self._is_over = True
            self.progress = replace(self._now(self._clock()), left=None)
            self._tell(lambda sink: sink.end(self.progress, error))

    def _measure(self, now: float, done: int) -> None:
        samples = self._samples
        if not samples or now - samples[-1][0] >= EVERY:
            samples.append((now, done))
        while len(samples) > 2 and now - samples[1][0] > SPEED_SECONDS:
            samples.popleft()

    def _now(self, now: float) -> Progress:
        progress, speed, left = self.progress, None, None
        if self._samples and now - self._samples[0][0] >= EVERY:
            since, then = self._samples[0]
            speed = (progress.done - then) / (now - since)
            if speed and progress.total is not None:
                left = max(progress.total - progress.done, 0) / speed
        return replace(progress, speed=speed, left=left, seconds=now - self._begun)

    def _show(self, now: float) -> None:
        self._shown = now
        self.progress = self._now(now)
        self._tell(lambda sink: sink.show(self.progress))

    def _tell(self, what: Callable[[Sink], None]) -> None:
        for sink in self._sinks:
            try:
                what(sink)
            except Exception:  # noqa: BLE001 - whatever it is, the transfer goes on
                _log.warning("%s could not show the progress", type(sink).__name__, exc_info=True)


class Calls:
    """Calls a function with each Progress, and with the error at the end: None if there was none."""

    def __init__(self, function: Callable[[Progress], object], ended: Callable[[str | None], object] | None = None):
        self._function, self._ended = function, ended

    def begin(self, progress: Progress) -> None:
        """Call the function."""
        self._function(progress)

    show = begin

    def end(self, progress: Progress, error: str | None) -> None:
        """Call the function, and the one for the end."""
        self._function(progress)
        if self._ended is not None:
            self._ended(error)


class Lines:
    """Writes lines of JSON: ``event`` (begin, progress, end), the members of Progress, and ``error`` at the end."""

    def __init__(self, file: IO[str], *, every: float = 1.0) -> None:
        self._file, self._every = file, every
        self._written = 0.0

    def begin(self, progress: Progress) -> None:
        """Write a line."""
        self._written = progress.seconds
        self._write("begin", progress)

    def show(self, progress: Progress) -> None:
        """Write a line, if the last one is long enough ago."""
        if progress.seconds - self._written >= self._every:
            self._written = progress.seconds
            self._write("progress", progress)

    def end(self, progress: Progress, error: str | None) -> None:
        """Write the last line."""
        self._write("end", progress, error=error)

    def _write(self, event: str, progress: Progress, **more: Any) -> None:
        self._file.write(json.dumps({"event": event, **asdict(progress), **more}, ensure_ascii=False) + "\n")
        self._file.flush()
