"""A wire between a client and a server that breaks in the middle of an upload."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self

_BLOCK = 1 << 14


class Relay:
    """A listener on a port of loopback, whose threads and connections end with the ``with`` block."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        self._run(self._accept)
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            ends = [self._listener, *self._ends]
        for end in ends:
            shut(end)
        for thread in self._threads:
            thread.join(10)
        for end in (*ends, *self._ends):
            end.close()

    def _run(self, function: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        """Take connections until the listener is shut."""
        raise NotImplementedError


class Wire(Relay):
    """Passes connections on to a server on this machine, until clients have sent `after` bytes in all.

    Then the connection that sent the last of them breaks, once: `then` is called, and both ends are closed. With `stay`
    the client's end stays open until the client closes it, but nothing gets through any more; with `hold` the server's
    does until the wire is closed. Connections that are made later are passed on whole.
    """

    def __init__(
        self,
        port: int,
        after: int,
        then: Callable[[], object] = lambda: None,
        *,
        stay: bool = False,
        hold: bool = False,
    ):
        self.then = then
        self._target = port
        self._left = after
        self._stay = stay
        self._hold = hold
        super().__init__()
        self.broken = threading.Event()
        """Set when the wire has broken, and `then` has returned."""
        self.origin = f"http://127.0.0.1:{self.port}"
        self.url = f"{self.origin}/uploads"

    def _accept(self) -> None:
        # Shutting the listener down ends this with OSError.
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                with self._lock:
                    self._ends += (client, server)
                self._run(self._up, client, server)
                self._run(self._down, server, client)

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        held = False
        with suppress(OSError):
            while block := client.recv(_BLOCK):
                passed, breaks = self._take(len(block))
                server.sendall(block[:passed])
                if breaks:
                    held = self._hold
                    self._break(client)
                    break
        if not held:
            shut(server)

    def _take(self, count: int) -> tuple[int, bool]:
        """Return how many of so many bytes get through, and whether the connection breaks behind them."""
        with self._lock:
            if self._left <= 0:
                return count, False
            passed = min(count, self._left)
            self._left -= passed
            return passed, not self._left

    def _break(self, client: socket.socket) -> None:
        try:
            self.then()
            self.broken.set()
            with suppress(OSError):
                while self._stay and client.recv(_BLOCK):
                    pass
        finally:
            shut(client)

    def _down(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while block := server.recv(_BLOCK):
                client.sendall(block)
        shut(client)


def shut(end: socket.socket) -> None:
    """End a connection, so that a thread that waits for it goes on."""
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
