"""The commands ``upload-helper …``, and ``flask uploads …`` for the operator of an application."""

from .main import main
from .uploads import uploads

__all__ = ["main", "uploads"]
