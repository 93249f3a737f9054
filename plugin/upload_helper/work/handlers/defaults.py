"""The registry that every application begins with."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType

from .http import run_http
from .python import run_python
from .registry import Registry
from .set import run_set
from .sql import run_sql


def default_registry(modules: Iterable[ModuleType] = ()) -> Registry:
    """Return a registry with the types ``python``, ``http``, ``set`` and ``sql``, and the modules of the host."""
    registry = Registry(modules=list(modules))
    registry.types.update({"python": run_python, "http": run_http, "set": run_set, "sql": run_sql})
    return registry
