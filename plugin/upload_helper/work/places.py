"""Where a user's ledger is, unless said otherwise, and how a host's own Work is found."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterable
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..errors import Error, InvalidTaskError, LedgerError, shown
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

    work, imported = find_host(app, modules)
    if work is not None:
        for module in imported:
            work.registry.add_module(module)
        return work
    if not is_url(ledger):
        _look(Path(ledger), must_exist=must_exist, creates=ledger == default_ledger())
    return Work(ledger, modules=imported)


def find_host(app: str, modules: Iterable[str]) -> tuple[Work | None, list[ModuleType]]:
    """Return the Work that `app` names, if it does, and the modules; raises InvalidTaskError for what can't be."""
    if (app or modules) and "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    imported = [_imported(name) for name in modules]
    return _found(app) if app else None, imported


def _look(ledger: Path, *, must_exist: bool, creates: bool) -> None:
    """Raise an error where there is no ledger, or can be none; create the folder of this user's own."""
    try:
        if must_exist and not ledger.exists():
            raise InvalidTaskError(f"There is no ledger {ledger}.", remedy="Name it with --ledger, or start a task.")
        if creates:
            ledger.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise LedgerError(
            f"There can be no ledger {shown(str(ledger))}: {error.strerror}.",
            remedy=f"Name another with --ledger or {VARIABLE}.",
        ) from error


def _imported(name: str) -> ModuleType:
    if not all(name.split(".")):
        raise InvalidTaskError(f"{shown(name)} is no name of a module.", remedy="Write it as package.module.")
    try:
        return import_module(name)
    except (Exception, SystemExit) as error:
        is_missing = isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}.")
        remedy = "Correct the name, or call this where the module is." if is_missing else "Correct the module."
        raise InvalidTaskError(
            f"The module {shown(name)} cannot be imported: {_told(error)}.", remedy=remedy
        ) from error


def _found(app: str) -> Work:
    from .work import Work  # noqa: PLC0415 - as above

    name, _, attribute = app.partition(":")
    attribute = attribute or "work"
    if not name:
        raise InvalidTaskError(f"{shown(app)} names no module.", remedy=f"Write it as package.module:{attribute}.")
    module = _imported(name)
    try:
        found = attrgetter(attribute)(module)
        if not isinstance(found, Work) and _makes(found):
            found = found()
    except AttributeError:
        raise _no_work(app, module, f"there is no {shown(attribute)} in the module") from None
    except Error:
        raise
    except (Exception, SystemExit) as error:
        raise InvalidTaskError(
            f"{shown(app)} makes no Work: {_told(error)}.", remedy="Correct the function."
        ) from error
    if not isinstance(found, Work):
        raise _no_work(app, module, f"it is of type {type(found).__name__}")
    return found


def _makes(found: Any) -> bool:
    """Whether it can be called as it is; applications and functions of handlers want something."""
    try:
        inspect.signature(found).bind()
    except (TypeError, ValueError):
        return False
    return True


def _no_work(app: str, module: ModuleType, why: str) -> InvalidTaskError:
    from .work import Work  # noqa: PLC0415 - as above

    names = [f"{module.__name__}:{name}" for name, value in vars(module).items() if isinstance(value, Work)]
    remedy = f"Did you mean {' or '.join(names)}?" if names else "Name a Work, or a function that makes one."
    return InvalidTaskError(f"{shown(app)} is no Work: {why}.", remedy=remedy)


def _told(error: BaseException) -> str:
    """Return what the code of a host raised, and in which line of which file."""
    if isinstance(error, ImportError):
        return str(error)
    line = extract_tb(error.__traceback__)[-1]
    # That of a broken file is in its text.
    place = "" if isinstance(error, SyntaxError) else f" ({Path(line.filename).name}, line {line.lineno})"
    return f"{type(error).__name__}: {error}{place}"
