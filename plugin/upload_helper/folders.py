"""Where this user's programs keep what is theirs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

APP = "upload-helper"


def data_folder() -> Path:
    """Return the folder for what is to stay."""
    return _of_system("XDG_DATA_HOME", Path(".local") / "share") / APP


def state_folder() -> Path:
    """Return the folder for what programs were doing when they ended."""
    return _of_system("XDG_STATE_HOME", Path(".local") / "state") / APP


def _of_system(variable: str, fallback: Path) -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support"
    return Path(os.environ.get(variable) or Path.home() / fallback)
