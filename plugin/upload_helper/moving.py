"""Moving a file to where it is there whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from pathlib import Path

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}


def give(source: Path, target: Path, *, overwrite: bool, mode: int) -> None:
    """Make `target` the file `source`, with the permissions `mode`; the source may stay as a second name of it.

    On another disk the file is copied beside the target first. Raises FileExistsError if the target is there, unless
    `overwrite`; IsADirectoryError for a directory.
    """
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "The target is a directory; name the file to make in it", str(target))
    if not target.parent.is_dir():
        raise FileNotFoundError(
            errno.ENOENT, "The directory of the target is not there; make it first", str(target.parent)
        )
    if not overwrite and os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "The target is there already; overwrite=True replaces it", str(target))
    scratch = target.with_name(f".{target.name[:50]}.{secrets.token_hex(8)}")
    try:
        _link_or_copy(source, scratch)
        scratch.chmod(mode)
        if overwrite:
            scratch.replace(target)
        else:
            rename_new(scratch, target)
    finally:
        scratch.unlink(missing_ok=True)
    sync_directory(target.parent)


def sync_directory(path: Path) -> None:
    """Force the names in a directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EXDEV and error.errno not in _NO_LINKS:
            raise
        with source.open("rb") as read, target.open("xb") as write:
            shutil.copyfileobj(read, write, 1 << 20)
            write.flush()
            os.fsync(write.fileno())


def rename_new(source: Path, target: Path) -> None:
    """Give a file its name unless somebody else has it; a link does that in one step where there are links."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        source.rename(target)
