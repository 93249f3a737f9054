"""Which way bodies go: from the socket to the file inside the kernel, or through memory, and why."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, Protocol

from . import direct_uwsgi, pipes
from .direct import DirectReader, why_not_direct, why_not_gunicorn
from .pipes import Pipe, Piped

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

log = logging.getLogger("upload_helper")

_said: set[str] = set()


class SocketReader(Protocol):
    """The rest of the body of one request with a Content-Length."""

    @property
    def ahead(self) -> int:
        """How many bytes at least the server has read past the header, or may have: they are not on the socket."""
        ...

    def read(self, size: int) -> bytes | memoryview:
        """Return up to `size` bytes of the body, valid until the next call; none at all when the client is gone."""
        ...

    def splice(self, pipe: Pipe, size: int) -> Piped:
        """Return up to `size` bytes of the body in `pipe`; none at all when the client is gone.

        Called when nothing is ahead. Raises BlockingIOError when nothing has come.
        """
        ...

    def wait(self, seconds: float) -> bool:
        """Wait so long for bytes, or for the client's end; say whether there is something to read."""
        ...

    def give_up(self) -> None:
        """Have the connection closed, for where the next request begins is not known any more."""
        ...


def find_splicer(environ: WSGIEnvironment, stream: Any, length: int) -> SocketReader | None:
    """Return what can bring a body into a pipe, or None; say in the log which it is, and why, the first time."""
    found: SocketReader | str
    if isinstance(stream, DirectReader):
        found = stream
    elif "uwsgi.version" in environ:
        found = direct_uwsgi.uwsgi_reader(environ, stream, length)
    else:
        found = why_not_direct(environ)
    found = pipes.why_not() or found
    if isinstance(found, str):
        _say_once(f"Bodies go through memory: {found}.")
        return None
    _say_once("Bodies are spliced from the socket into the file.")
    return found


def expected_way(splice_from: int | None) -> str:
    """Say in words which way bodies will go in this process, as far as that can be told before one has come."""
    why_not = pipes.why_not() or _why_not_server()
    if splice_from is None:
        why_not = "UPLOAD_HELPER_SPLICE_FROM is None"
    if why_not:
        return f"through memory: {why_not}"
    return f"spliced from the socket into the file from {splice_from} bytes on, under gunicorn 27 or uWSGI"


def _why_not_server() -> str:
    """Return why not in the server that this process belongs to, or nothing where it belongs to none."""
    if "uwsgi" in sys.modules:
        return direct_uwsgi.why_not_uwsgi()
    return why_not_gunicorn() if "gunicorn.http.unreader" in sys.modules else ""


def _say_once(text: str) -> None:
    if text not in _said:
        _said.add(text)
        log.info(text)
