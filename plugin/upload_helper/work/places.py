"""Where a user's ledger is, unless said otherwise, and how a host's own Work is found."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InvalidTaskError, shown
from ..folders import data_folder

if TYPE_CHECKING:
    from .work import Work

VARIABLE = "UPLOAD_HELPER_LEDGER"
"""Environment variable that names the ledger, by path or URL."""


def default_ledger() -> str:
    """Return what the variable names, or the path of a file in this user's folder for data."""
    return os.environ.get(VARIABLE) or str(data_folder() / "work.db")


def is_url(ledger: str) -> bool:
    """Whether a ledger is named by URL and not by path."""
    return "://" in ledger


def open_work(ledger: str, app: str = "", modules: Iterable[str] = (), *, must_exist: bool = False) -> Work:
    """Return the Work of a host (`app` is ``module:name`` of one, or of a function that makes one), or a new one.

    `modules` are names of modules whose public functions handlers may name; modules are also looked for in the current
    folder, as ``flask --app`` does. Raises LedgerError, and InvalidTaskError for what can't be found.
    """
    from .work import Work  # noqa: PLC0415 - only here, so that the commands' help needs no extra

    if (app or modules) and "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    imported = [_imported(name) for name in modules]
    if app:
        work = _found(app, Work)
        for module in imported:
            work.registry.add_module(module)
        return work
    if not is_url(ledger):
        if must_exist and not Path(ledger).exists():
            raise InvalidTaskError(f"There is no ledger {ledger}.", remedy="Name it with --ledger, or start a task.")
        if ledger == default_ledger():
            Path(ledger).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Work(ledger, modules=imported)


def _imported(name: str):  # type: ignore[no-untyped-def]
    try:
        return import_module(name)
    except ImportError as error:
        raise InvalidTaskError(f"The module {shown(name)} cannot be imported: {error}.") from error


def _found(app: str, kind: type[Work]) -> Work:
    name, _, attribute = app.partition(":")
    found = _imported(name)
    for part in (attribute or "work").split("."):
        found = getattr(found, part, None)
    if callable(found) and not isinstance(found, kind):
        found = found()
    if not isinstance(found, kind):
        raise InvalidTaskError(f"{shown(app)} is no Work.", remedy="Write it as package.module:name.")
    return found
