"""The type ``set``: variables and commands, ``a=1;beep;b=@var``."""

from __future__ import annotations

from ..simpleui import HashMap, is_command, run_command, skip_command
from ..variables import resolve
from .step import Step


def run_set(step: Step) -> None:
    """Set the variables and run the commands in their order; those that nobody registered are skipped and logged.

    Values are put in when a part's turn comes, so a ``;`` in a value separates nothing.
    """
    hash_map = HashMap(step.variables, step)
    for part in step.method.split(";"):
        step.check()
        name, equals, text = (piece.strip() for piece in part.partition("="))
        value = resolve(text, step.variables)
        if is_command(name, step.context.work.registry):
            run_command(name, value, hash_map, step.context.work)
        elif equals and name:
            step.variables[name.removeprefix("@")] = value
        elif name:
            skip_command(name, step)
