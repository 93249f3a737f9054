"""What a handler type gets: one handler, and the run that it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...errors import InvalidHandlersError, shown

if TYPE_CHECKING:
    from ..context import Context


@dataclass(frozen=True)
class Step:
    """One handler that is being run."""

    handler: Mapping[str, Any] = field(repr=False)
    """The handler as it was given, with the members that its type has beside ``method``."""
    context: Context = field(repr=False)
    variables: dict[str, Any] = field(repr=False)
    """Those of the run; those of a ``runasync`` handler are a copy."""
    shows_progress: bool = False
    """Whether the handler's action is ``runprogress``."""

    @property
    def method(self) -> str:
        """What to do, in the words of the type: a function's name, a request, assignments, a statement."""
        return str(self.handler.get("method", ""))

    def check(self) -> None:
        """Raise Stopped when the run must end; whatever takes long calls it often."""
        self.context.check()

    def sleep(self, seconds: float) -> None:
        """Wait, and stop waiting when the run must end."""
        self.context.sleep(seconds)

    def report(self, progress: float | None = None, step_name: str = "") -> None:
        """Tell how far the handler is, 0 to 1; only ``runprogress`` shows it. Raises Stopped when the run must end."""
        self.context.check()
        if progress is not None and not isinstance(progress, (int, float)):
            raise InvalidHandlersError(
                f"{shown(progress)} is no progress: report(0.5, 'halfway') takes 0 to 1, and a text."
            )
        if self.shows_progress:
            self.context.report(progress, step_name)
