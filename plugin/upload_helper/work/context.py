"""What a handler sees of the run that it is part of."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .task import Task
    from .work import Work


class Reason(StrEnum):
    """Why a run was stopped before its end."""

    CANCELLED = "cancelled"
    CONDITION = "a condition was lost"
    LEASE = "the lease was lost"
    SHUTDOWN = "the worker ends"


class Stopped(BaseException):
    """The run must end here. No ``Exception``, so that a handler's ``except Exception`` does not swallow it."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class Context:
    """One run of a task, for the handlers in it; may be used by several threads."""

    task: Task
    variables: dict[str, Any]
    """ResultMessage, SQLParameter … by name; they begin as those of the task."""
    work: Work

    def __init__(self, task: Task, work: Work) -> None:
        self.task = task
        self.work = work
        self.variables = dict(task.variables)

    def check(self) -> None:
        """Raise Stopped if the task was cancelled, a condition or the lease was lost, or the runner ends; cheap."""

    def report(self, progress: float | None = None, step_name: str = "") -> None:
        """Say which share (0 to 1) is done, and what is done now; written to the ledger once a second at most."""

    def sleep(self, seconds: float) -> None:
        """Wait, and raise Stopped as soon as `check` would."""
