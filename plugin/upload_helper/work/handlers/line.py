"""A session of requests whose connections another thread can cut."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Any

import requests
from urllib3.connection import HTTPConnection, HTTPSConnection


class Line:
    """The sockets of one request, so that another thread can cut it, whatever it waits for just then."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._is_cut = False

    def add(self, connected: socket.socket) -> socket.socket:
        """Remember a socket; raises OSError if the line was cut before. TLS makes another object of it later."""
        with self._lock:
            if self._is_cut:
                connected.close()
                raise ConnectionAbortedError
            self._sockets.append(connected.dup())
        return connected

    def cut(self) -> None:
        """Close what there is, and take nothing more."""
        with self._lock:
            self._is_cut = True
            for one in self._sockets:
                with one, suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            self._sockets.clear()


class _Adapter(requests.adapters.HTTPAdapter):
    """Tells a line of every connection, also of those to a proxy."""

    def __init__(self, line: Line) -> None:
        self._kinds = {kind: _tied(kind, line) for kind in (HTTPConnection, HTTPSConnection)}
        super().__init__()

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        pool.ConnectionCls = self._kinds.get(pool.ConnectionCls, pool.ConnectionCls)
        return pool


def _tied(kind: Any, line: Line) -> Any:
    class Tied(kind):  # type: ignore[misc]
        def _new_conn(self) -> socket.socket:
            return line.add(super()._new_conn())

    return Tied


class Session(requests.Session):
    """Sends over a line; leaves redirects alone, for looked at there they would be read to their end."""

    def __init__(self, line: Line) -> None:
        super().__init__()
        adapter = _Adapter(line)
        self.mount("http://", adapter)
        self.mount("https://", adapter)

    def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002
        """Say that there is none."""
        return
