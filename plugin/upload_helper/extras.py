"""Modules that come with an extra of the package, and what to do where one is missing."""

from __future__ import annotations

_EXTRAS = {"sqlalchemy": "work", "psutil": "work", "requests": "transfer", "rich": "transfer", "psycopg": "postgres"}


def explained(error: ModuleNotFoundError, extra: str = "") -> ModuleNotFoundError:
    """Return an error that says what to install; the same one where that would not help.

    `extra` is what to install for all that one is after, if the extra of the module alone would not do.
    """
    module = (error.name or "").partition(".")[0]
    if module not in _EXTRAS:
        return error
    extra = extra or _EXTRAS[module]
    return ModuleNotFoundError(f"{error.name} is missing: pip install 'flask-upload-helper[{extra}]'", name=error.name)
