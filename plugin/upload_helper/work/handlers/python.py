"""The type ``python``: a function that the host registered, or of a module that it named."""

from __future__ import annotations

from typing import Any

from ..simpleui import HashMap, run_commands
from .registry import call
from .step import Step


def run_python(step: Step) -> Any:
    """Call the function that the method names with the run's variables as its ``hashMap``; then run what it put there.

    Nothing is imported or evaluated for a name that nobody registered: raises UnknownNameError.
    """
    work = step.context.work
    hash_map = HashMap(step.variables, step)
    result = call(work.registry.find_function(step.method.strip()), (hash_map, None, None))
    run_commands(hash_map, work)
    return result
