"""nginx in front of an application, for the tests, on a port that the system chooses."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
from pathlib import Path

from servers import wait_until

_CONFIGURATION = """\
{user}
daemon off;
worker_processes 1;
pid {run}/nginx.pid;
error_log {run}/nginx.log info;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {run}/body;
    proxy_temp_path {run}/proxy;
    fastcgi_temp_path {run}/fastcgi;
    uwsgi_temp_path {run}/uwsgi;
    scgi_temp_path {run}/scgi;
    server {{
        listen 127.0.0.1:{port};
{locations}
    }}
}}
"""


class Nginx:
    """nginx with the given locations, started by ``with`` and ended with the block; its files are in `folder`."""

    def __init__(self, folder: Path, locations: str) -> None:
        folder.mkdir()
        self.log = folder / "nginx.log"
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        # A master that runs as root would hand its workers to somebody who may not read here.
        user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
        self._file = folder / "nginx.conf"
        self._file.write_text(_CONFIGURATION.format(user=user, run=folder, port=self.port, locations=locations))

    def __enter__(self) -> Nginx:
        program = shutil.which("nginx") or "/usr/sbin/nginx"
        self._process = subprocess.Popen([program, "-c", self._file, "-e", self.log])
        wait_until(self._listens, what="nginx")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.terminate()
        self._process.wait()

    def _listens(self) -> bool:
        assert self._process.poll() is None, self.log.read_text()
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", self.port)) == 0


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]
