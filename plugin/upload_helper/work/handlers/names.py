"""What can be said of handlers before any of them runs: names that nobody knows here, members that are misspelt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from ...errors import InvalidHandlersError, UnknownNameError, shown
from ...transfer.addresses import scrubbed
from ..spelling import warn_of_misspelt
from .arrays import parse_handlers
from .registry import Registry

_MEMBERS = ("action", "type", "method", "postExecute")
_OF_HTTP = ("headers", "basic", "auth")


def every(handlers: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Return the handlers and all that stand in their ``postExecute``, as far as they can be read."""
    for handler in handlers:
        yield handler
        with suppress(InvalidHandlersError):
            yield from every(parse_handlers(handler.get("postExecute")))


def warn_of_members(handlers: Iterable[Mapping[str, Any]]) -> None:
    """Log which members of handlers are probably misspelt; a type of the host may have any of its own."""
    for handler in every(handlers):
        known = (*_MEMBERS, *_OF_HTTP) if handler.get("type") == "http" else _MEMBERS
        warn_of_misspelt(handler, known, "A handler")


def unknown_in(handlers: Iterable[Mapping[str, Any]], registry: Registry) -> str:
    """Return the first type or Python function that nobody registered, as it is told; '' if there is none."""
    for handler in every(handlers):
        kind, method = handler.get("type"), handler.get("method")
        try:
            registry.find_type(str(kind))
        except UnknownNameError:
            return f"the type {shown(scrubbed(str(kind)))}"
        try:
            if kind == "python":
                registry.find_function(str(method).strip())
        except UnknownNameError:
            return f"the function {shown(scrubbed(str(method)))}"
    return ""
