"""Connections that somebody else can end: nothing that is waited for, name lookup included, holds up a stop."""

from __future__ import annotations

import http.client
import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import WeakSet

import requests
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from ..errors import shown
from .errors import InvalidTransferError

DIRECT = "direct"
"""As a proxy: none, whatever the environment says."""

_LOOK_SECONDS = 0.1
# The time limit of a socket holds for all that is sent at once; on a thin link that must not be much.
_SEND = 1 << 16
_READ = 1 << 20
_BEFORE = range(100, 200)
_MOST_HEAD = 1 << 20
_HEAD_SECONDS = 600.0
"""How long the head of an answer may take, informational answers and trailers included."""
_SWITCHING = 101
_PROXY = re.compile(r"(?:https?|socks[45][ah]?)://[^/?#\s]")


class Door:
    """The connections of one line: which there are, and that they can be shut, for good, by another thread."""

    def __init__(self, check: Callable[[], object], longest: float) -> None:
        self._check = check
        self._longest = longest
        self._sockets: WeakSet[Any] = WeakSet()
        self.lock = threading.Lock()
        self.is_shut = False

    def shut(self) -> None:
        """Let every connection end at once, and none be made any more."""
        with self.lock:
            self.is_shut = True
            sockets = list(self._sockets)
        for one in sockets:
            _end(one)

    def connect(self, connection: _Watched, connect: Callable[[], None]) -> None:
        """Connect in a thread of its own, so that a name server or a server that is silent can be left alone."""
        outcome: list[BaseException] = []
        done = threading.Event()

        def target() -> None:
            try:
                connect()
            except BaseException as error:  # noqa: BLE001 - raised again below
                outcome.append(error)
            connection.finish()
            done.set()
            if connection.is_left:
                connection.close()

        threading.Thread(target=target, name="connect", daemon=True).start()
        try:
            self._wait(done)
            if outcome:
                raise outcome[0]
            self._enter(connection)
        except BaseException:
            connection.leave()
            if done.is_set():
                connection.close()
            raise

    def _wait(self, done: threading.Event) -> None:
        deadline = time.monotonic() + self._longest
        while not done.wait(_LOOK_SECONDS):
            self._check()
            if self.is_shut:
                raise ConnectionAbortedError("the line was cut")
            if time.monotonic() > deadline:
                raise TimeoutError("nobody answers")

    def _enter(self, connection: _Watched) -> None:
        with self.lock:
            if self.is_shut:
                raise ConnectionAbortedError("the line was cut")
            # TLS inside of TLS, as to a proxy that is asked by https, wraps the socket once more.
            self._sockets.add(getattr(connection.sock, "socket", connection.sock))


class _Adapter(requests.adapters.HTTPAdapter):
    """Makes its connections through a door."""

    def __init__(self, door: Door) -> None:
        self._pools = {"http": _pool(HTTPConnectionPool, HTTPConnection, door),
                       "https": _pool(HTTPSConnectionPool, HTTPSConnection, door)}  # fmt: skip
        super().__init__(pool_connections=4, pool_maxsize=4)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options, blocksize=_READ)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options, blocksize=_READ)
        # Those of SOCKS have classes of their own.
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = self._pools
        return manager


class _Session(requests.Session):
    """Leaves redirects alone: looked at there, they would be read to their end, whatever they are."""

    def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002
        return None


def open_session(door: Door, ca: str, proxy: str) -> requests.Session:
    """Return a session whose connections are made through a door; raises InvalidTransferError."""
    if ca and not Path(ca).exists():
        raise InvalidTransferError(f"There are no certificates at {shown(ca)}.")
    session = _Session()
    session.headers.clear()
    if proxy == DIRECT:
        session.trust_env = False
    elif proxy:
        if not _PROXY.match(proxy):
            # It may hold a password, so it is not shown.
            raise InvalidTransferError("The proxy is no address: it begins with http://, https:// or socks5h://.")
        session.proxies = {"http": proxy, "https": proxy}
        session.trust_env = False
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(door))
    return session


def _pool(pool: type[Any], connection: type[Any], door: Door) -> type[Any]:
    watched = type(connection.__name__, (_Watched, connection), {"door": door})
    return type(pool.__name__, (pool,), {"ConnectionCls": watched})


class _Head:
    """Reads the head of an answer line by line; one that is cut is no head, as the standard library would have it.

    Nor is one that never ends: each byte of it is one more that passed, so that nothing stalls.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self._rest = _MOST_HEAD
        self._deadline = time.monotonic() + _HEAD_SECONDS

    def readline(self, limit: int) -> bytes:
        line = b""
        while not line.endswith(b"\n") and len(line) < limit:
            there = self._file.peek(1)
            if not there:
                raise http.client.IncompleteRead(line)
            line += self._file.readline(min(len(there), limit - len(line)))
            if time.monotonic() > self._deadline:
                raise http.client.HTTPException("a head that takes too long")
        self._rest -= len(line)
        if self._rest < 0:
            raise http.client.HTTPException("a head that is too long")
        return line

    def close(self) -> None:
        self._file.close()


class _Answer(http.client.HTTPResponse):
    """Passes over every informational answer (RFC 9110, section 15.2), as the standard library does with 100 alone."""

    def begin(self) -> None:
        file = self.fp
        self.fp = _Head(file)  # type: ignore[assignment]
        try:
            super().begin()
        finally:
            # Of an answer that is none it was closed and is gone.
            if self.fp is not None:
                self.fp = file

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            status = super()._read_status()  # type: ignore[misc]
            if status[1] not in _BEFORE or status[1] == _SWITCHING:
                return status  # type: ignore[no-any-return]
            http.client.parse_headers(self.fp)

    def _read_and_discard_trailer(self) -> None:
        head = _Head(self.fp)
        # Some servers leave them out, and the empty line as well.
        with suppress(http.client.IncompleteRead):
            while head.readline(_MOST_HEAD).strip():
                pass


def _end(one: socket.socket) -> None:
    # Not by the method of a TLS socket, which would let another thread take what is encrypted for plain.
    with suppress(OSError):
        socket.socket.shutdown(one, socket.SHUT_RDWR)


class _Watched:
    door: Door
    response_class = _Answer
    sock: Any
    close: Callable[[], None]
    begun: socket.socket | None = None
    is_left = False

    def connect(self) -> None:
        self.door.connect(self, super().connect)  # type: ignore[misc]

    def _new_conn(self) -> socket.socket:
        connected: socket.socket = super()._new_conn()  # type: ignore[misc]
        # TLS makes another object of it, which nobody gets to see before both sides have agreed.
        self.begun = connected.dup()
        if self.is_left:
            self.leave()
        return connected

    def leave(self) -> None:
        """Let a connection that is being made come to nothing."""
        self.is_left = True
        with self.door.lock:
            if self.begun is not None:
                _end(self.begun)

    def finish(self) -> None:
        """Forget what was needed to leave it."""
        with self.door.lock:
            if self.begun is not None:
                self.begun.close()
                self.begun = None

    def send(self, data: Any) -> None:
        if not isinstance(data, (bytes, bytearray, memoryview)) or len(data) <= _SEND:
            super().send(data)  # type: ignore[misc]
            return
        view = memoryview(data)
        for start in range(0, len(view), _SEND):
            super().send(view[start : start + _SEND])  # type: ignore[misc]
