"""What runs the tasks of a ledger: threads beside an application, a process of its own, or inline."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .work import Work


class Runner:
    """Takes tasks from the ledger and runs them."""

    def __init__(self, work: Work, *, threads: int = 2, lease: float = 30, poll: float = 1) -> None:
        self.work = work

    def start(self) -> None:
        """Run tasks in threads of this process, until `stop`."""
        raise NotImplementedError

    def stop(self, timeout: float = 10) -> None:
        """Stop the tasks that run, put them back at once, and wait for their threads so many seconds at most."""
        raise NotImplementedError

    def run_until_idle(self) -> int:
        """Run, in this thread, every task that can run now; return how many runs that were."""
        raise NotImplementedError

    def run_forever(self) -> None:
        """Run tasks until SIGTERM or SIGINT; the main thread of the worker's process calls this."""
        raise NotImplementedError
