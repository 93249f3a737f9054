"""Handlers that were written for SimpleUI: their ``hashMap``, and the commands that they put into it."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidHandlersError, shown
from .handlers.registry import Registry, call
from .names import BREAK, BREAK_IF_ERROR, DATABASE
from .spelling import warn_of_misspelt
from .statements import execute
from .task import SHORTEST_PERIOD

if TYPE_CHECKING:
    from .handlers.step import Step
    from .work import Work

StartWork = "StartWork"
StartPeriodicWork = "StartPeriodicWork"
StopWork = "StopWork"
StartUploadWorkRequest = "StartUploadWorkRequest"
StartDownloadWorkRequest = "StartDownloadWorkRequest"
HTTPAddAlias = "HTTPAddAlias"
SQLConnectDatabase = DATABASE
SQLExec = "SQLExec"
SQLExecMany = "SQLExecMany"
BreakHandlersIfError = BREAK_IF_ERROR
BreakHandlers = BREAK

DEFAULT_DATABASE = "SimpleWMS"
"""The database that an empty ``SQLConnectDatabase`` means, as on the platform."""

SCREEN_COMMANDS = frozenset(
    {
        "speak", "beep", "toast", "vibrate", "basic_notification", "ShowScreen", "ShowDialog", "ShowProcess",
        "RefreshScreen", "FinishProcess", "BackScreen", "StopSyncDialog", "RunEvent", "noRefresh", "playsound",
    }
)  # fmt: skip
"""What needs a screen or a voice: skipped unless the host registers it."""

_WORK = ("work", "tag", "retry", "conditions", "title", "body")

_log = logging.getLogger(__name__)


class HashMap:
    """The variables of a run, with the methods that handlers of the platform call. A run that must end ends here."""

    def __init__(self, variables: dict[str, Any] | None = None, step: Step | None = None) -> None:
        self.variables = {} if variables is None else variables
        self.step = step

    def put(self, name: str, value: Any = "") -> None:
        """Set a variable, or ask for a command."""
        self.check()
        self.variables[str(name)] = value

    def get(self, name: str, default: Any = None) -> Any:
        """Return a variable, or `default`."""
        self.check()
        return self.variables.get(name, default)

    def containsKey(self, name: str) -> bool:
        """Whether there is such a variable."""
        self.check()
        return name in self.variables

    def remove(self, name: str) -> Any:
        """Take a variable away and return what it was; None where there is none."""
        self.check()
        return self.variables.pop(name, None)

    def keySet(self) -> set[str]:
        """Return the names of all variables."""
        return set(self.variables)

    def size(self) -> int:
        """Return how many variables there are."""
        return len(self.variables)

    def isEmpty(self) -> bool:
        """Whether there are none."""
        return not self.variables

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self.variables))

    def __len__(self) -> int:
        return len(self.variables)

    def __contains__(self, name: object) -> bool:
        return name in self.variables

    __getitem__ = get
    __setitem__ = put

    def __delitem__(self, name: str) -> None:
        self.remove(name)

    def __repr__(self) -> str:
        return f"HashMap({sorted(self.variables)})"  # values may be secrets

    def check(self) -> None:
        """Raise Stopped when the run must end; nothing outside of a run."""
        if self.step is not None:
            self.step.check()

    def report(self, progress: float | None = None, step_name: str = "") -> None:
        """Tell how far the handler is, 0 to 1; shown for ``runprogress``."""
        if self.step is not None:
            self.step.report(progress, step_name)


class Utilities:
    """What handlers take from the platform under the name ``suClass``."""

    @staticmethod
    def get_temp_file(extension: str = "tmp") -> str:
        """Return the path of a new empty file that only this user can read."""
        suffix = "." + "".join(letter for letter in extension if letter.isalnum())
        with tempfile.NamedTemporaryFile(suffix=suffix, delete=False) as file:
            return file.name

    @staticmethod
    def get_temp_dir() -> str:
        """Return the folder of temporary files."""
        return tempfile.gettempdir()


suClass = Utilities


def run_commands(hash_map: HashMap | dict[str, Any], work: Work) -> None:
    """Take the commands out of `hash_map` and run them, in the order in which they were put there.

    Raises HandlerError or WorkError for the first that cannot be run; the others are dropped.
    """
    if isinstance(hash_map, dict):
        hash_map = HashMap(hash_map)
    if not isinstance(hash_map, HashMap):
        raise InvalidHandlersError(
            f"run_commands takes the hashMap of a handler, not {shown(hash_map)}.",
            remedy="Let the handler return its hashMap.",
        )
    found = [name for name in hash_map.variables if is_command(name, work.registry)]
    flags = {name: hash_map.variables[name] for name in (BREAK, BREAK_IF_ERROR) if name in hash_map}
    commands = [(name, hash_map.variables.pop(name)) for name in found]
    hash_map.variables.update(flags)
    try:
        for name, value in commands:
            hash_map.check()
            run_command(name, value, hash_map, work)
    finally:
        if hash_map.step is None:  # outside of a run they say how the tasks run that are started with them
            hash_map.variables.pop(BREAK, None)
            hash_map.variables.pop(BREAK_IF_ERROR, None)


def is_command(name: str, registry: Registry) -> bool:
    """Whether a name asks for something, and is no mere variable."""
    return name in _COMMANDS or name in registry.commands or name in SCREEN_COMMANDS


def read_work(asked: Any) -> dict[str, Any]:
    """Return what `Work.start_work` takes for handlers, or for an object as ``StartWork`` has it.

    Raises InvalidHandlersError for members that there are not.
    """
    if not isinstance(asked, Mapping) or "work" not in asked:
        asked = {"work": asked}
    if strange := asked.keys() - set(_WORK):
        raise InvalidHandlersError(
            f"{', '.join(map(shown, strange))} can't stand beside 'work'.", remedy=f"There are {', '.join(_WORK)}."
        )
    return _settings(asked)


def run_command(name: str, value: Any, hash_map: HashMap, work: Work) -> None:
    """Run one command: of the host, of the platform; skipped and logged where it needs a screen."""
    if name in work.registry.commands:
        call(work.registry.commands[name], (value, hash_map))
    elif name in _COMMANDS:
        _COMMANDS[name](name, value, hash_map, work)
    else:
        skip_command(name, hash_map.step)


def skip_command(name: str, step: Step | None) -> None:
    """Log that nobody registered a command; what it was to say or to show may be a secret."""
    level = logging.INFO if name in SCREEN_COMMANDS else logging.WARNING
    task = "" if step is None else f"task {step.context.task.uid}: "
    _log.log(level, "%snobody registered the command %s; it is skipped", task, shown(name))


def _start_work(name: str, value: Any, hash_map: HashMap, work: Work) -> None:
    work.start_work(**_settings(_asked(name, value, _WORK)), variables=_handed_on(hash_map))


def _settings(asked: Mapping[str, Any]) -> dict[str, Any]:
    texts = {name: str(asked.get(name) or "") for name in ("tag", "title", "body")}
    conditions = asked.get("conditions") or ""
    return {"handlers": asked.get("work"), "retry": _flag(asked.get("retry")), "conditions": conditions, **texts}


def _start_periodic_work(name: str, value: Any, hash_map: HashMap, work: Work) -> None:
    asked = _asked(name, value, (*_WORK, "period"))
    if _flag(asked.get("retry")):
        raise InvalidHandlersError("Periodic work knows no retry: it runs again when its time comes.")
    try:
        # The platform takes a shorter period for the shortest.
        period = max(float(asked.get("period") or 0), SHORTEST_PERIOD / 60)
    except (TypeError, ValueError):
        raise InvalidHandlersError(f"{shown(asked['period'])} is no period in minutes.") from None
    work.start_periodic_work(
        asked.get("work"),
        period,
        str(asked.get("tag") or ""),
        conditions=asked.get("conditions") or "",
        variables=_handed_on(hash_map),
    )


def _stop_work(_name: str, value: Any, _hash_map: HashMap, work: Work) -> None:
    work.stop_work(str(value))


def _add_alias(name: str, value: Any, _hash_map: HashMap, work: Work) -> None:
    asked = _asked(name, value, ("alias", "url", "headers", "basic", "auth"))
    basic = asked.get("basic")
    work.add_alias(
        asked.get("alias", ""),
        str(asked.get("url") or ""),
        headers=asked.get("headers"),
        basic=None if basic == {"user": "", "password": ""} else basic,
        auth=str(asked.get("auth") or ""),
    )


def _connect_database(_name: str, value: Any, hash_map: HashMap, work: Work) -> None:
    path = str(Path(str(value) or DEFAULT_DATABASE).absolute())
    if hash_map.step is None:
        work.connect_database(path)
    else:
        hash_map.variables[DATABASE] = path


def _execute(name: str, value: Any, hash_map: HashMap, work: Work) -> None:
    asked = _asked(name, value, ("query", "params"))
    path = str(hash_map.variables.get(DATABASE) or work.database)
    if not path:
        raise InvalidHandlersError(f"{name} needs a database.", remedy="Put SQLConnectDatabase before it.")
    parameters = asked.get("params")
    if isinstance(parameters, str) and not parameters.lstrip().startswith("["):
        parameters = parameters.split(",")  # as the platform writes them
    execute(path, str(asked.get("query") or ""), parameters, hash_map.variables, check=hash_map.check)


def _flag_stays(name: str, value: Any, hash_map: HashMap, _work: Work) -> None:
    hash_map.variables[name] = value


def _start_transfer(name: str, value: Any, hash_map: HashMap, work: Work) -> None:
    asked = _object(name, value)
    start = work.start_upload if name == StartUploadWorkRequest else work.start_download
    start(
        _object(name, asked.get("request")),
        str(asked.get("tag") or ""),
        str(asked.get("title") or ""),
        str(asked.get("body") or ""),
        conditions=asked.get("conditions") or "",
        variables=_handed_on(hash_map),
    )


_COMMANDS: dict[str, Callable[[str, Any, HashMap, Work], None]] = {
    StartWork: _start_work,
    StartPeriodicWork: _start_periodic_work,
    StopWork: _stop_work,
    HTTPAddAlias: _add_alias,
    SQLConnectDatabase: _connect_database,
    SQLExec: _execute,
    SQLExecMany: _execute,
    BreakHandlersIfError: _flag_stays,
    BreakHandlers: _flag_stays,
    StartUploadWorkRequest: _start_transfer,
    StartDownloadWorkRequest: _start_transfer,
}


def _asked(name: str, value: Any, known: tuple[str, ...]) -> Mapping[str, Any]:
    asked = _object(name, value)
    warn_of_misspelt(asked, known, name)
    return asked


def _object(name: str, value: Any) -> Mapping[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise InvalidHandlersError(f"What {name} was given is not JSON.") from None
    if not isinstance(value, Mapping):
        raise InvalidHandlersError(f"{name} needs an object with its settings, not {shown(value)}.")
    return value


def _flag(value: Any) -> bool:
    return str(value).strip().lower() in ("true", "1", "yes")


def _handed_on(hash_map: HashMap) -> dict[str, Any]:
    """Return the variables that a task inherits from who starts it: where it works, and whether errors end it."""
    names = (DATABASE, BREAK_IF_ERROR)
    return {name: hash_map.variables[name] for name in names if name in hash_map.variables}
