"""What servers, clients and tables are called, and sizes."""

from __future__ import annotations

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

SPLICE, PORTABLE = "splice", "portable"
UNFORCED = "splice, unforced"
"""With nothing forced to the disk, as the others are."""
GUNICORN, UWSGI = "gunicorn", "uWSGI"
NGINX, TUS = "nginx", "@tus/server"

WIDGET, UNHASHED = "widget", "widget, no SHA-256"
UPPY, UPPY_TUNED = "Uppy with tus", "Uppy with tus, 8 MiB, 3 at a time"
RESUMABLE, RESUMABLE_TUNED = "Resumable.js", "Resumable.js, 8 MiB"

SEND, GET, CURL, RCLONE, TUSPY = "send", "get", "curl", "rclone", "tuspy, 8 MiB"
SYNCED = "curl, then sync"
"""Ours forces a fetched file to the disk before it has its name; the others do not by themselves."""

KEPT = "ours, uWSGI with http11-socket"
"""The one of ours on uWSGI that keeps connections, which is what small chunks need."""

BIG = "big"
SMALL, MEMORY, NUMBERS, FINISH, BROWSER, NARROW = "small", "memory", "numbers", "finish", "browser", "narrow"


def ours(server: str, path: str) -> str:
    """Return what our server is called, by the server it is on and the path that bodies take."""
    return f"ours, {server}, {path}"


def big(size: int) -> str:
    """Return the key of the table of an upload of `size` bytes in big chunks."""
    return f"{BIG} {size}"


def whole(size: int) -> str:
    """Return the key of the table of an upload of `size` bytes in one request."""
    return f"whole {size}"


def transfer(way: str) -> str:
    """Return the key of the table of programs that send or fetch."""
    return f"transfer {way}"


def chunk_number(number: int) -> str:
    """Return the line of one chunk of many."""
    return f"chunk {number:,}".replace(",", " ")


def size_name(size: int) -> str:
    """Return the line of a file of `size` bytes."""
    return f"{size / GIB:g} GiB" if size >= GIB else f"{size // MIB} MiB"
