"""Which conditions hold on this machine now."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from threading import Lock

from .providers import default_providers
from .task import Condition

Provider = Callable[[], bool | None]
"""Says whether a condition holds; None where that can't be known."""

FRESH_SECONDS = 1.0
"""How long an answer of a provider is used again."""

_log = logging.getLogger(__name__)


class Conditions:
    """Asks the providers, each at most once a second.

    What can't be known counts as holding: a machine without a battery is charging, one that does not tell whether it is
    connected or idle finds out by trying, and no task waits for ever for what its machine can't say.
    """

    def __init__(
        self,
        providers: Mapping[Condition | str, Provider] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        fresh: float = FRESH_SECONDS,
    ) -> None:
        """Ask `providers` (a name and a function each); conditions that are not among them are asked of the system."""
        given = {Condition(name): provider for name, provider in (providers or {}).items()}
        self._providers: dict[Condition, Provider] = {**default_providers(), **given}
        self._answers: dict[Condition, tuple[float, bool]] = {}
        self._failing: set[Condition] = set()
        self._clock, self._fresh = clock, fresh
        # One each: logind may take its time, and nobody who asks for the network waits for that.
        self._pid, self._locks = os.getpid(), _new_locks()

    def holds(self, condition: Condition) -> bool:
        """Whether one condition holds."""
        if self._pid != os.getpid():  # a lock that a thread of the parent held is never freed here
            self._pid, self._locks = os.getpid(), _new_locks()
        with self._locks[condition]:
            now = self._clock()
            asked, answer = self._answers.get(condition, (None, True))
            if asked is None or not 0 <= now - asked < self._fresh:
                answer = self._ask(condition)
                self._answers[condition] = now, answer
            return answer

    def lost(self, conditions: Iterable[Condition]) -> frozenset[Condition]:
        """Return those of the conditions that do not hold."""
        return frozenset(condition for condition in conditions if not self.holds(condition))

    def _ask(self, condition: Condition) -> bool:
        try:
            answer = self._providers[condition]()
        except Exception as error:  # noqa: BLE001 - whatever a provider runs into, the worker goes on
            if condition not in self._failing:
                _log.warning("Nobody knows whether %s holds (%s: %s).", condition, type(error).__name__, error)
            self._failing.add(condition)
            return True
        self._failing.discard(condition)
        return answer is None or bool(answer)


def _new_locks() -> dict[Condition, Lock]:
    return {condition: Lock() for condition in Condition}
