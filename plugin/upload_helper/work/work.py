"""The face of background work: start tasks, stop them, look at them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from .task import Condition, Existing, State, Task

if TYPE_CHECKING:
    from .aliases import Alias
    from .conditions import Conditions
    from .handlers.registry import Registry
    from .runner import Runner

_F = TypeVar("_F", bound=Callable[..., Any])


class Work:
    """Tasks in a ledger: a file, or a PostgreSQL database by URL."""

    registry: Registry
    database: str = ""

    def __init__(
        self,
        ledger: str | Path,
        *,
        conditions: Conditions | None = None,
        modules: Iterable[ModuleType] = (),
        keep: float = 7 * 86400,
    ) -> None:
        raise NotImplementedError

    def start_work(
        self,
        handlers: Any,
        tag: str = "",
        *,
        retry: bool = False,
        conditions: str | Iterable[str] = "",
        if_exists: str | Existing = Existing.APPEND,
        title: str = "",
        body: str = "",
        variables: Mapping[str, Any] | None = None,
        post_execute: Any = None,
        uid: str = "",
    ) -> str:
        """Put a task into the ledger and return its uid."""
        raise NotImplementedError

    def start_periodic_work(
        self,
        handlers: Any,
        period: float,
        tag: str = "",
        *,
        conditions: str | Iterable[str] = "",
        retry: bool = False,
        if_exists: str | Existing = Existing.APPEND,
        title: str = "",
        body: str = "",
        variables: Mapping[str, Any] | None = None,
        post_execute: Any = None,
    ) -> str:
        """Put a task into the ledger that runs every `period` minutes (at least 15), and return its uid."""
        raise NotImplementedError

    def stop_work(self, tag: str) -> int:
        """Cancel what carries the tag, waiting or running; return how many tasks that are."""
        raise NotImplementedError

    def stop(self, uid: str) -> bool:
        """Cancel one task; return whether there was anything to cancel."""
        raise NotImplementedError

    def list(self, tag: str | None = None, state: State | str | None = None, limit: int = 1000) -> list[Task]:
        """Return tasks, the newest first."""
        raise NotImplementedError

    def get(self, uid: str) -> Task:
        """Return one task; raises UnknownTaskError."""
        raise NotImplementedError

    def progress(self, uid: str) -> dict[str, Any]:
        """Return how far a task is: ``{jobUid, state, progress, stepName}``, progress from 0 to 1 or None."""
        raise NotImplementedError

    def wait(self, uid: str, timeout: float | None = None) -> Task:
        """Return the task once it has ended, or as it is after `timeout` seconds."""
        raise NotImplementedError

    def add_alias(
        self,
        name: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        basic: tuple[str, str] | None = None,
        auth: str = "",
    ) -> None:
        """Keep an endpoint and what it takes to sign in under a name."""
        raise NotImplementedError

    def alias(self, name: str) -> Alias:
        """Return the endpoint called `name`; raises UnknownNameError."""
        raise NotImplementedError

    def connect_database(self, path: str | Path) -> None:
        """Let ``sql`` handlers of tasks that are started from now on work on this SQLite database."""
        raise NotImplementedError

    def runner(self, *, threads: int = 2, lease: float = 30, poll: float = 1) -> Runner:
        """Return a new runner for this ledger."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop the runners and close the connections."""

    def lost(self, conditions: frozenset[Condition]) -> frozenset[Condition]:
        """Return those of the conditions that don't hold on this machine."""
        raise NotImplementedError

    def handler_type(self, name: str) -> Callable[[_F], _F]:
        """Register the decorated function for handlers of type `name`."""
        return self.registry.handler_type(name)

    def command(self, name: str) -> Callable[[_F], _F]:
        """Register the decorated function as command `name`."""
        return self.registry.command(name)

    def function(self, name: str | _F) -> Any:
        """Register the decorated function for ``python`` handlers, under `name` or its own: ``@work.function``."""
        return self.registry.function(name)
