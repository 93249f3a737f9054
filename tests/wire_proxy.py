"""A bad link on loopback, for the tests of transfers: cuts, stalls, slows down, reorders, corrupts, and counts."""

from __future__ import annotations

import itertools
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from wires import Relay, shut

_BLOCK = 1 << 16
_RESET = struct.pack("ii", 1, 0)  # closing does not wait, and says that the connection is broken
_LONGEST_HOLD = 5.0


@dataclass(frozen=True)
class Fault:
    """What befalls one connection. Bytes are counted from its beginning, headers included."""

    up: int | None = None
    """Bytes from the client that get through before the connection breaks."""
    down: int | None = None
    """The same for those from the server."""
    stalls: bool = False
    """Whether nothing gets through any more and both ends stay open, where it would break otherwise."""
    resets: bool = False
    """Whether it breaks with a reset, not with an end."""
    corrupts_up: int | None = None
    """Position of a byte from the client of which one bit turns."""
    corrupts_down: int | None = None
    rate: float = 0
    """Bytes in a second in each direction; 0 is as fast as it goes."""


class WireProxy(Relay):
    """Passes connections on to a port of this machine; `plan` says what befalls each, by its number from 0.

    With `reorder`, the answers to so many requests under way are held until all are there, and then let go in reverse.
    """

    def __init__(self, port: int, plan: Callable[[int], Fault] = lambda number: Fault(), *, reorder: int = 1) -> None:
        self.plan = plan
        self.up = self.down = 0
        """Bytes that got through from clients, and from the server."""
        self.connections = 0
        self.answered: list[int] = []
        """The numbers of the connections whose answers were held, in the order in which they were let go."""
        self.breaks = 0
        self.broken = threading.Event()
        """Set whenever a connection breaks, or begins to stall."""
        self._target = port
        self._reorder = reorder
        self._held: list[threading.Event] = []
        self._leaving: list[threading.Event] = []
        super().__init__()
        self.url = f"http://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        # Shutting the listener down ends this with OSError.
        with suppress(OSError):
            for number in itertools.count():
                client, _ = self._listener.accept()
                self.connections += 1
                try:
                    server = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    client.close()
                    continue
                with self._lock:
                    self._ends += (client, server)
                connection = _Connection(self, number, client, server, self.plan(number))
                self._run(connection.pass_up)
                self._run(connection.pass_down)

    def count(self, *, up: int = 0, down: int = 0) -> None:
        with self._lock:
            self.up += up
            self.down += down

    def broke(self) -> None:
        with self._lock:
            self.breaks += 1
        self.broken.set()

    def hold(self, number: int) -> None:
        """Wait until the answers of as many connections are there as are to change places, or it takes too long."""
        mine = threading.Event()
        with self._lock:
            self._held.append(mine)
            if len(self._held) == self._reorder:
                self._leaving, self._held = self._held, []
                self._leaving.pop().set()
        if not mine.wait(_LONGEST_HOLD):
            with self._lock, suppress(ValueError):
                self._held.remove(mine)
        self.answered.append(number)

    def let_next_go(self) -> None:
        """Let the answer go that comes behind the one that just went."""
        if self._leaving:
            self._leaving.pop().set()


class _Connection:
    def __init__(
        self, proxy: WireProxy, number: int, client: socket.socket, server: socket.socket, fault: Fault
    ) -> None:
        self._proxy = proxy
        self._number = number
        self._client = client
        self._server = server
        self._fault = fault
        self._is_stalled = threading.Event()
        self._is_asking = False

    def pass_up(self) -> None:
        def note(block: bytes) -> None:
            self._is_asking = True
            self._proxy.count(up=len(block))

        self._pass(self._client, self._server, self._fault.up, self._fault.corrupts_up, note)

    def pass_down(self) -> None:
        def note(block: bytes) -> None:
            if self._is_asking and self._proxy._reorder > 1:
                self._is_asking = False
                self._proxy.hold(self._number)
            self._proxy.count(down=len(block))

        self._pass(self._server, self._client, self._fault.down, self._fault.corrupts_down, note)

    def _pass(
        self,
        source: socket.socket,
        target: socket.socket,
        most: int | None,
        corrupt: int | None,
        note: Callable[[bytes], None],
    ) -> None:
        passed = 0
        rate = self._fault.rate
        with suppress(OSError):
            while block := source.recv(min(_BLOCK, int(rate / 20) or 1) if rate else _BLOCK):
                if self._is_stalled.is_set():
                    continue
                through = block if most is None else block[: max(0, most - passed)]
                through = _corrupted(through, corrupt, passed)
                if through:
                    note(through)
                    target.sendall(through)
                    passed += len(through)
                    if source is self._server:
                        self._proxy.let_next_go()
                if rate:
                    time.sleep(len(through) / rate)
                if most is not None and passed >= most and self._break():
                    return
        if not self._is_stalled.is_set():
            shut(target)

    def _break(self) -> bool:
        """Break the connection; return whether that ends it."""
        if self._fault.stalls:
            self._is_stalled.set()
            self._proxy.broke()
            return False
        for end in (self._client, self._server):
            if self._fault.resets:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            shut(end)
        if self._fault.resets:
            self._client.close()
        self._proxy.broke()
        return True


def _corrupted(block: bytes, position: int | None, passed: int) -> bytes:
    if position is None or not passed <= position < passed + len(block):
        return block
    changed = bytearray(block)
    changed[position - passed] ^= 0x10
    return bytes(changed)
