"""Modules that come with an extra of the package, and what to do where one is missing."""

from __future__ import annotations

_WORK = frozenset({"sqlalchemy", "psutil", "requests", "rich"})


def explained(error: ModuleNotFoundError) -> ModuleNotFoundError:
    """Return an error that says what to install for background work; the same one where that would not help."""
    if error.name is None or error.name.partition(".")[0] not in _WORK:
        return error
    return ModuleNotFoundError(f"{error.name} is missing: pip install 'flask-upload-helper[work]'", name=error.name)
