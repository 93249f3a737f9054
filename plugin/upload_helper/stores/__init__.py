"""Where bytes live: the contract that every store keeps, and the stores."""

from .base import Appender, Progress, Store, Writer
from .local import LocalStore

__all__ = ["Appender", "LocalStore", "Progress", "Store", "Writer"]
