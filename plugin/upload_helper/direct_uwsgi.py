"""Splicing a body straight from uWSGI's socket.

uWSGI offers the connection and says how much of the body was read from it, but not what kind of connection it is, nor
that we have read from it ourselves. So the options that it was started with decide, and a connection is not used again
after a body was taken from it: uWSGI closes it, as it does with whatever has not been read.
"""

from __future__ import annotations

import io
import select
import sys
from typing import TYPE_CHECKING, Any

from .pipes import Pipe, Piped

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_KEEPING = "http11-socket"
_NOT_AS_SENT = (
    "https-socket", "suwsgi-socket", "ssl-socket", "fastcgi-socket", "fastcgi-nph-socket", "raw-socket",
    "shared-socket", "undeferred-shared-socket", "protocol", "socket-protocol", "zeromq", "zmq", "zeromq-socket",
    "zmq-socket",
)  # fmt: skip
_ELSEWHERE = ("post-buffering", "async", "gevent", "ugreen", "greenlet", "asyncio", "tornado", "stackless", "loop")


class UwsgiReader:
    """The rest of a body from uWSGI; `stream` goes on behind whatever was spliced."""

    def __init__(self, environ: WSGIEnvironment, stream: Any, ahead: int) -> None:
        self._environ = environ
        self._stream = stream
        self._descriptor: int = stream.fileno()
        self.ahead = ahead
        """How many bytes uWSGI may have read past the header, at most; no more than the body has."""
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)

    def read(self, size: int) -> bytes:
        """Return `size` bytes of the body, none at all when the client is gone."""
        block: bytes = self._stream.read(size)
        self.ahead = max(0, self.ahead - len(block))
        return block

    def splice(self, pipe: Pipe, size: int) -> Piped:
        """Return up to `size` bytes of the body in `pipe`; none at all when the client is gone."""
        # uWSGI would read as many bytes once more for the host, and take them from the next request.
        self._environ["wsgi.input"] = io.BytesIO()
        return pipe.fill(self._descriptor, size)

    def wait(self, seconds: float) -> bool:
        """Wait so long for bytes, or for the client's end; say whether there is something to read."""
        return bool(self.ahead or self._poll.poll(1000 * seconds))

    def give_up(self) -> None:
        """Do nothing: a connection with unread bytes is closed."""


def uwsgi_reader(environ: WSGIEnvironment, stream: Any, length: int) -> UwsgiReader | str:
    """Return a reader if `stream` is uWSGI's, unread, and what is on its connection is the body as it was sent.

    Otherwise return why not, in words. `length` is the Content-Length.
    """
    why_not = why_not_uwsgi()
    if why_not:
        return why_not
    # A wrapper of the host may pass everything on but what is read.
    if type(stream).__module__ != "uwsgi" or stream.tell():
        return "the application has read from the body"
    return UwsgiReader(environ, stream, min(sys.modules["uwsgi"].buffer_size, length))


def why_not_uwsgi() -> str:
    """Return, in words, why no body can be spliced under the uWSGI that is running, or nothing."""
    server: Any = sys.modules["uwsgi"]
    if not all(hasattr(server, name) for name in ("opt", "buffer_size")):
        return "this uWSGI does not tell its options"
    return next((f"uWSGI was started with {name}" for name in (*_NOT_AS_SENT, *_ELSEWHERE) if name in server.opt), "")


def is_kept(environ: WSGIEnvironment) -> bool:
    """Say whether a client of uWSGI expects its connection to be kept."""
    server: Any = sys.modules.get("uwsgi")
    return "uwsgi.version" in environ and server is not None and _KEEPING in server.opt
