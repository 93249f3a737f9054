"""The commands ``upload-helper …``, and ``flask uploads …`` for the operator of an application."""

from typing import TYPE_CHECKING, Any

from .main import main

if TYPE_CHECKING:
    from .uploads import uploads

__all__ = ["main", "uploads"]


def __getattr__(name: str) -> Any:
    # Only who has Flask asks for it, and nobody else is to wait for that.
    if name != "uploads":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .uploads import uploads  # noqa: PLC0415

    globals()[name] = uploads
    return uploads
