"""Which conditions hold on this machine now."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from threading import Condition as Monitor
from threading import Thread

from .providers import default_providers
from .task import Condition

Provider = Callable[[], bool | None]
"""Says whether a condition holds; None where that can't be known."""

FRESH_SECONDS = 1.0
"""How long an answer of a provider is used again."""
PATIENCE_SECONDS = 6.0
"""How long a provider may take before its condition counts as not known; commands of the system get five."""

_log = logging.getLogger(__name__)


class Conditions:
    """Asks the providers, each at most once a second, in a thread of its own.

    What can't be known counts as holding: a machine without a battery is charging, one that does not tell whether it is
    connected or idle finds out by trying, and no task waits for ever for what its machine can't say. A provider that
    does not answer within `patience` seconds does not know either, until it does.
    """

    def __init__(
        self,
        providers: Mapping[Condition | str, Provider] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        fresh: float = FRESH_SECONDS,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        """Ask `providers` (a name and a function each); conditions that are not among them are asked of the system."""
        given = {Condition(name): provider for name, provider in (providers or {}).items()}
        self._providers: dict[Condition, Provider] = {**default_providers(), **given}
        self._clock, self._fresh, self._patience = clock, fresh, patience
        self._begin()

    def holds(self, condition: Condition) -> bool:
        """Whether one condition holds."""
        return not self.lost([condition])

    def lost(self, conditions: Iterable[Condition], *, wait: bool = True) -> frozenset[Condition]:
        """Return those of the conditions that do not hold; without `wait`, as far as the last answers tell."""
        if self._pid != os.getpid():  # the threads of a parent are not here, and its locks may never be freed
            self._begin()
        wanted = [self._questions[condition] for condition in conditions]
        for question in wanted:
            question.ask()
        return frozenset(question.name for question in wanted if not question.answer(wait=wait))

    def _begin(self) -> None:
        how = self._clock, self._fresh, self._patience
        self._questions = {name: _Question(name, provider, *how) for name, provider in self._providers.items()}
        self._pid = os.getpid()


class _Question:
    """Whether one condition holds: what was answered last, and whether somebody is being asked."""

    def __init__(
        self, name: Condition, provider: Provider, clock: Callable[[], float], fresh: float, patience: float
    ) -> None:
        self.name = name
        self._provider, self._clock, self._fresh, self._patience = provider, clock, fresh, patience
        self._changed = Monitor()
        self._answer = True
        self._answered: float | None = None
        self._asked: float | None = None
        """Since when a call is under way (monotonic clock)."""
        self._is_slow = False
        """Whether the last call took too long; then nobody waits for the next one."""
        self._complaint = ""

    def ask(self) -> None:
        """Let the provider be asked, unless it is, or has answered just now."""
        with self._changed:
            if self._asked is None and not self._is_fresh():
                Thread(target=self._call, name=f"upload_helper {self.name}", daemon=True).start()
                self._asked = time.monotonic()

    def answer(self, *, wait: bool) -> bool:
        """Return the answer, if need be the last one; True if nobody knows."""
        with self._changed:
            if self._asked is not None and wait and not self._is_slow:
                left = self._asked + self._patience - time.monotonic()
                self._changed.wait_for(lambda: self._asked is None, timeout=max(left, 0))
            if self._is_overdue():
                self._is_slow = True
                self._complain("no answer yet")
                return True
            return self._answer

    def _is_fresh(self) -> bool:
        return self._answered is not None and 0 <= self._clock() - self._answered < self._fresh

    def _is_overdue(self) -> bool:
        return self._asked is not None and time.monotonic() >= self._asked + self._patience

    def _call(self) -> None:
        answer, complaint = True, ""
        try:
            found = self._provider()
            answer = found is None or bool(found)
        except BaseException as error:  # noqa: BLE001 - whatever a provider runs into, the worker goes on
            complaint = f"{type(error).__name__}: {error}"
        with self._changed:
            self._complain(complaint)
            self._is_slow = self._is_overdue()
            self._answer, self._answered, self._asked = answer, self._clock(), None
            self._changed.notify_all()

    def _complain(self, complaint: str) -> None:
        if complaint and not self._complaint:
            _log.warning("Nobody knows whether %s holds (%s).", self.name, complaint)
        self._complaint = complaint
