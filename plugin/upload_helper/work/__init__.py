"""Background work: tasks in a ledger that survive the process and the machine."""

from ..extras import explained

try:
    from ..retry import Backoff
    from .conditions import Conditions
    from .context import Context, Reason, Stopped
    from .ledger import Ledger
    from .runner import Runner
    from .simpleui import HashMap, run_commands
    from .task import Condition, Existing, State, Task, parse_conditions
    from .work import Work
except ModuleNotFoundError as error:
    raise explained(error, "work") from None

__all__ = [
    "Backoff",
    "Condition",
    "Conditions",
    "Context",
    "Existing",
    "HashMap",
    "Ledger",
    "Reason",
    "Runner",
    "State",
    "Stopped",
    "Task",
    "Work",
    "parse_conditions",
    "run_commands",
]
