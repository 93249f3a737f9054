"""A bad link between a client and a server, for the tests."""

from __future__ import annotations

import selectors
import socket
import struct
import sys
import threading
from collections import deque
from collections.abc import Iterable
from contextlib import suppress

_RESET = struct.pack("ii", 1, 0)  # closing does not wait, and says that the connection is broken


class BreakingLink:
    """Passes on connections to a port of this machine, and breaks each `after` so many bytes to the server.

    With `at`, those break that bring the sum of all bytes to these places.
    """

    def __init__(self, port: int, *, after: int = sys.maxsize, at: Iterable[int] = ()) -> None:
        self.passed = 0
        """Bytes that came from clients."""
        self.breaks = 0
        self._target = port
        self._after = after
        self._at = deque(at)
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._socket.getsockname()[1]

    def __enter__(self) -> BreakingLink:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        # Only this wakes a thread that waits in accept().
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self._target)) as server:
            # What it has taken and not yet got rid of is lost when it breaks: little, as on a real link.
            server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 17)
            self._pass_on(client, server)
            for end in (client, server):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        here = 0
        with selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_READ, server)
            selector.register(server, selectors.EVENT_READ, client)
            while left := self._left(here):
                for key, _ in selector.select():
                    up = key.fileobj is client
                    data = key.fileobj.recv(min(1 << 16, left) if up else 1 << 16)
                    if not data:
                        return
                    key.data.sendall(data)
                    if up:
                        here += len(data)
                        self.passed += len(data)
        self.breaks += 1
        if self._at:
            self._at.popleft()

    def _left(self, here: int) -> int:
        """Return how many bytes a connection may still pass on that has passed on so many."""
        return max(0, min(self._after - here, self._at[0] - self.passed if self._at else sys.maxsize))
