"""Our server, on each server that it runs on, with the body going through the kernel only and without that."""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from tests import servers

from . import client, names
from .peers import Peer, parent

# The setting of the path that goes through the kernel only does not exist yet.
_SPLICE = False
_TUS = functools.partial(client.tus, target="/uploads")


class Ours(Peer):
    """The host application of the tests, with owners, authorisation, quota and locks."""

    wire = staticmethod(client.chunk_protocol)
    whole = _TUS
    others = (("tus", _TUS),)
    app = "host:app()"
    portable = False

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.uploads = self.folder / "uploads"

    @property
    def config(self) -> dict[str, object]:
        """Return the settings that are not the usual ones."""
        return {"UPLOAD_HELPER_SPLICE_FROM": None} if self.portable and _SPLICE else {}

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
    options: tuple[str, ...] = ()

    def __enter__(self) -> Peer:
        self._server = servers.Gunicorn(
            self.uploads, workers=2, threads=4, app=self.app, options=self.options, **self.config
        )
        self._server.start()
        self.port = self._server.port
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.__exit__(*exc_info)

    def pids(self) -> list[int]:
        workers = self._server.pids()
        return [parent(workers[0]), *workers]


class PortableGunicorn(Gunicorn):
    """The same, with bodies read by Python."""

    name = names.ours(names.GUNICORN, names.PORTABLE)
    how = "the same, UPLOAD_HELPER_SPLICE_FROM = None"
    portable = True


class Uwsgi(Ours):
    """Ours under uWSGI, as the documentation recommends."""

    name = names.ours(names.UWSGI, names.SPLICE)
    how = "uWSGI, http-socket, 2 processes of 4 threads; it closes the connection after each request"
    kind = "http-socket"

    def __enter__(self) -> Peer:
        settings = {"UPLOAD_HELPER_FOLDER": str(self.uploads), "UPLOAD_HELPER_MIN_FREE_SPACE": 0, **self.config}
        path = os.pathsep.join((str(servers.PLUGIN), str(servers.TESTS)))
        environment = {**os.environ, "HOST_CONFIG": json.dumps(settings), "PYTHONPATH": path}
        with socket.create_server(("127.0.0.1", 0), backlog=256) as listener, self.log.open("ab") as log:
            self.port = listener.getsockname()[1]
            command = [
                str(Path(sys.executable).with_name("uwsgi")), f"--{self.kind}", f"fd://{listener.fileno()}",
                "--module", self.app, "--need-app", "--master", "--processes", "2", "--threads", "4",
                "--socket-timeout", "60", "--buffer-size", "16384", "--die-on-term", "--disable-logging",
            ]  # fmt: skip
            self._process = subprocess.Popen(
                command, env=environment, pass_fds=[listener.fileno()], stdout=log, stderr=log, text=True
            )
        return self

    @property
    def log(self) -> Path:
        return self.folder / "uwsgi.log"


class PortableUwsgi(Uwsgi):
    """The same, with bodies read by Python."""

    name = names.ours(names.UWSGI, names.PORTABLE)
    how = "the same, UPLOAD_HELPER_SPLICE_FROM = None"
    portable = True
