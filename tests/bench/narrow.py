"""A link to a server on this machine that is narrow and long."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress

_BLOCK = 16 << 10
# What may be on its way in one connection: little, so that a sender sees how far it is.
_WINDOW = 512 << 10
_SLACK = 0.05  # seconds by which a sender may be late without loss, for timers are


class NarrowLink:
    """Passes on connections to a port; what goes to the server shares `speed` bytes per second.

    An answer is there `round_trip` seconds after the question at the earliest, and the first of a connection after two.
    """

    def __init__(self, target: int, speed: float, round_trip: float) -> None:
        self._target = target
        self._speed = speed
        self._delay = round_trip / 2
        self._free = 0.0  # when the link has sent all that was given to it
        self._loop = asyncio.new_event_loop()
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _WINDOW // 2)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> NarrowLink:
        self._socket.listen(64)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._socket.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(asyncio.start_server(self._serve, sock=self._socket, limit=_BLOCK))
        self._loop.run_forever()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2 * self._delay)
        server, to_server = await asyncio.open_connection("127.0.0.1", self._target)
        await asyncio.gather(self._pass(reader, to_server, narrow=True), self._pass(server, writer, narrow=False))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, narrow: bool) -> None:
        line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_WINDOW // _BLOCK)
        end = asyncio.create_task(self._arrive(line, writer))
        with suppress(ConnectionError):
            while data := await reader.read(_BLOCK):
                if narrow:
                    await self._squeeze(len(data))
                await line.put((self._loop.time() + self._delay, data))
        await line.put((self._loop.time() + self._delay, b""))
        await end

    async def _squeeze(self, count: int) -> None:
        """Wait until the link, which all connections share, has taken so many bytes."""
        self._free = max(self._free, self._loop.time() - _SLACK) + count / self._speed
        await asyncio.sleep(self._free - self._loop.time())

    async def _arrive(self, line: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        """Write what is on the line when it is due; nothing stands for the end."""
        with suppress(ConnectionError):
            while True:
                due, data = await line.get()
                await asyncio.sleep(due - self._loop.time())
                if not data:
                    break
                writer.write(data)
                await writer.drain()
        writer.close()
        while data:
            _, data = await line.get()
