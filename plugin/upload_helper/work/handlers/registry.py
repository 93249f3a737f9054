"""What a handler may name: its type, a Python function, a command. Only what the host registered is ever called."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import FunctionType, ModuleType
from typing import Any, TypeVar

from ...errors import InvalidHandlersError, UnknownNameError, shown
from .step import Step

Function = Callable[..., Any]
"""A Python function of a handler: ``f(hashMap, _files=None, _data=None)``; it may take fewer of these."""
HandlerType = Callable[[Step], Any]
"""Runs one handler; what it returns becomes ``ResultMessage``, unless it is None."""

BUILT_IN = frozenset({"python", "http", "set", "sql"})
"""The types that every process knows."""

_F = TypeVar("_F", bound=Callable[..., Any])
_NAME = re.compile(r"[\w.-]{1,100}")


@dataclass
class Registry:
    """The types, functions and commands of one application; each is registered in one line, also as a decorator.

    A name that is taken raises InvalidHandlersError, unless it is by the same function, which was loaded again.
    """

    types: dict[str, HandlerType] = field(default_factory=dict)
    commands: dict[str, Function] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)
    modules: list[ModuleType] = field(default_factory=list)

    def handler_type(self, name: str) -> Callable[[_F], _F]:
        """Register the decorated function for handlers of type `name`; one of the package's own is replaced."""
        return _register(self.types, name)

    def command(self, name: str) -> Callable[[_F], _F]:
        """Register the decorated function as command `name`: called with the value and the variables, or with less."""
        return _register(self.commands, name)

    def function(self, name: str | _F) -> Any:
        """Register the decorated function under `name`, or under its own: ``@registry.function``."""
        if not isinstance(name, str):
            return _register(self.functions, name.__name__)(name)
        return _register(self.functions, name)

    def add_module(self, module: ModuleType) -> None:
        """Let handlers name every public function that is defined in `module`; what it imports stays out of reach."""
        self.modules.append(module)

    @property
    def is_bare(self) -> bool:
        """Whether the host has registered nothing of its own here, as in a worker that does not know whose it is."""
        return not (self.functions or self.commands or self.modules or self.types.keys() - BUILT_IN)

    def find_type(self, name: str) -> HandlerType:
        """Return what runs handlers of type `name`; raises UnknownNameError."""
        if name not in self.types:
            raise UnknownNameError(f"{shown(name)} is no type of handler here; there are {_listed(self.types)}.")
        return self.types[name]

    def find_function(self, name: str) -> Function:
        """Return the function that a ``python`` handler names; raises UnknownNameError, and never imports anything."""
        if name in self.functions:
            return self.functions[name]
        for module in self.modules:
            found = vars(module).get(name)
            if isinstance(found, FunctionType) and found.__module__ == module.__name__ and not name.startswith("_"):
                return found
        raise UnknownNameError(f"Nobody registered a function {shown(name)} in this process.")


def call(function: Function, arguments: Iterable[Any]) -> Any:
    """Call `function` with as many of the `arguments` as it takes."""
    given = list(arguments)
    return function(*given[: _takes(function, len(given))])


def _takes(function: Function, most: int) -> int:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some that are written in C do not tell
        return most
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return most
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def _register(table: dict[str, Any], name: str) -> Callable[[_F], _F]:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidHandlersError(f"{shown(name)} cannot be registered: letters, digits, '_', '.', '-' make a name.")

    def add(function: _F) -> _F:
        there = table.get(name)
        if there is not None and _place(there) != _place(function) and name not in BUILT_IN:
            raise InvalidHandlersError(
                f"{shown(name)} is registered already: {_place(there)}; {_place(function)} would take its place.",
                remedy="Give one of them another name.",
            )
        table[name] = function
        return function

    return add


def _place(function: Any) -> str:
    """Return where a function is written; one that is registered again after a reload is at the same place."""
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', repr(function))}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
