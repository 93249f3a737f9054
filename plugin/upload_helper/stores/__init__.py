"""Where bytes live: the contract that every store keeps, and the stores."""

from .base import Progress, Store, Writer
from .local import LocalStore

__all__ = ["LocalStore", "Progress", "Store", "Writer"]
