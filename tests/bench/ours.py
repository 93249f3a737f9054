"""Our server, on each server that it runs on, with the body going through the kernel only and without that."""

from __future__ import annotations

import functools
import os
from pathlib import Path

from tests import servers

from . import client, names
from .peers import Peer, parent

_TUS = functools.partial(client.tus, target="/uploads")


class Ours(Peer):
    """The host application of the tests, with owners, authorisation, quota and locks."""

    wire = staticmethod(client.chunk_protocol)
    whole = staticmethod(_TUS)
    others = (("tus", _TUS),)
    app = "host:app()"
    portable = False
    forced = True
    _server: servers.Gunicorn | servers.Uwsgi

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.uploads = self.folder / "uploads"

    @property
    def config(self) -> dict[str, object]:
        """Return the settings that are not the usual ones."""
        portable = {"UPLOAD_HELPER_SPLICE_FROM": None} if self.portable else {}
        return portable if self.forced else {**portable, "UPLOAD_HELPER_DURABILITY": "none"}

    def __exit__(self, *exc_info: object) -> None:
        self._server.__exit__(*exc_info)

    def pids(self) -> list[int]:
        workers = self._server.pids()
        return [parent(workers[0]), *workers]

    def files(self, reference: str) -> list[Path]:
        return [self.uploads / reference / "data"]

    def delete(self, reference: str) -> None:
        with open(os.devnull, "rb") as nothing, client.Connection(self.port, nothing) as connection:
            target = f"/uploads/{reference}"
            connection.exchange(client.Request(client.head("DELETE", target, 0, f"X-User: {client.OWNER}")))


class Gunicorn(Ours):
    """Ours under gunicorn, as the documentation recommends."""

    name = names.ours(names.GUNICORN, names.SPLICE)
    how = "gunicorn, class gthread, 2 workers of 4 threads"

    def __enter__(self) -> Peer:
        self._server = servers.Gunicorn(self.uploads, workers=2, threads=4, app=self.app, **self.config)
        self._server.start()
        self.port = self._server.port
        return self


class PortableGunicorn(Gunicorn):
    """The same, with bodies read by Python."""

    name = names.ours(names.GUNICORN, names.PORTABLE)
    how = "the same, UPLOAD_HELPER_SPLICE_FROM = None"
    portable = True


class UnforcedGunicorn(Gunicorn):
    """The same with nothing forced to the disk, for a comparison of like with like."""

    name = names.ours(names.GUNICORN, names.UNFORCED)
    how = "the same with splice, UPLOAD_HELPER_DURABILITY = none"
    forced = False


class Uwsgi(Ours):
    """Ours under uWSGI, as the documentation recommends."""

    name = names.ours(names.UWSGI, names.SPLICE)
    how = "uWSGI, http-socket, 2 processes of 4 threads; it closes the connection after each request"
    kind = "http-socket"

    def __enter__(self) -> Peer:
        options = (
            "--processes", "2", "--threads", "4", "--socket-timeout", "60", "--buffer-size", "16384",
            "--disable-logging",
        )  # fmt: skip
        self._server = servers.Uwsgi(self.uploads, *options, kind=self.kind, app=self.app, **self.config)
        self._server.__enter__()
        self.port = self._server.port
        return self


class PortableUwsgi(Uwsgi):
    """The same, with bodies read by Python."""

    name = names.ours(names.UWSGI, names.PORTABLE)
    how = "the same, UPLOAD_HELPER_SPLICE_FROM = None"
    portable = True


class KeptUwsgi(Uwsgi):
    """The same, with connections that are kept."""

    name = names.KEPT
    how = "the same, http11-socket; it keeps connections, and a thread for each of them"
    kind = "http11-socket"
