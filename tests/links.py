"""A bad link between a client and a server, for the tests."""

from __future__ import annotations

import selectors
import socket
import struct
import threading
from contextlib import suppress

_RESET = struct.pack("ii", 1, 0)  # closing does not wait, and says that the connection is broken


class BreakingLink:
    """Passes on connections to a port of this machine, and breaks each `after` so many bytes to the server."""

    def __init__(self, port: int, *, after: int) -> None:
        self._target = port
        self._after = after
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
            self._pass_on(client, server)
            for end in (client, server):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        left = self._after
        with selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_READ, server)
            selector.register(server, selectors.EVENT_READ, client)
            while left > 0:
                for key, _ in selector.select():
                    data = key.fileobj.recv(1 << 16)
                    if not data:
                        return
                    key.data.sendall(data)
                    left -= len(data) * (key.fileobj is client)
