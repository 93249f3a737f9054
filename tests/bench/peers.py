"""The servers that are measured, each on a port that the system chose and in a folder of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from tests import servers

from . import client

NODE = Path(__file__).parent / "node"

_NGINX = """\
{modules}
{user}
worker_processes 2;
daemon off;
pid {run}/nginx.pid;
error_log {run}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_max_body_size 0;
    client_body_temp_path {run}/body;
    proxy_temp_path {run}/unused;
    fastcgi_temp_path {run}/unused;
    uwsgi_temp_path {run}/unused;
    scgi_temp_path {run}/unused;
    keepalive_requests 1000000000;
    server {{
        listen 127.0.0.1:{port};
        root {files};
        {methods}
    }}
}}
"""


class Peer:
    """A server: started by ``with``, killed at its end. `wire` is how it is spoken to."""

    name: str
    wire: Callable[[int, int], client.Wire]
    port: int

    def __init__(self, folder: Path) -> None:
        self.folder = folder / type(self).__name__.lower()
        self.folder.mkdir(parents=True)

    def __enter__(self) -> Peer:
        raise NotImplementedError

    def __exit__(self, *exc_info: object) -> None:
        raise NotImplementedError

    def pids(self) -> list[int]:
        """Return the processes that do the work."""
        raise NotImplementedError

    def files(self, reference: str) -> list[Path]:
        """Return the files in which an upload is, in order."""
        raise NotImplementedError

    def delete(self, reference: str) -> None:
        for path in self.files(reference):
            path.unlink()

    def cpu(self) -> float:
        """Return the seconds of processor time, user and system, that the server has used so far."""
        return sum(cpu_seconds(pid) for pid in self.pids())

    def memory(self) -> int:
        """Return the memory in bytes that the server's processes have to themselves."""
        return sum(servers.private_memory(pid) for pid in self.pids())


class Ours(Peer):
    """The host application of the tests under gunicorn, with owners, authorisation, quota and locks."""

    name = "ours"
    app = "host:app()"
    wire = staticmethod(client.chunk_protocol)

    def __enter__(self) -> Peer:
        self.uploads = self.folder / "uploads"
        self._server = servers.Gunicorn(self.uploads, workers=2, threads=4, app=self.app)
        self._server.start()
        self.port = self._server.port
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.__exit__(*exc_info)

    def pids(self) -> list[int]:
        return self._server.pids()

    def files(self, reference: str) -> list[Path]:
        return [self.uploads / reference / "data"]

    def delete(self, reference: str) -> None:
        with open(os.devnull, "rb") as nothing, client.Connection(self.port, nothing) as connection:
            target = f"/uploads/{reference}"
            connection.exchange(client.Request(client.head("DELETE", target, 0, f"X-User: {client.OWNER}")))


class Nginx(Peer):
    """nginx, putting each chunk into a file of its own."""

    name = "nginx"
    wire = staticmethod(client.webdav)
    modules = ""
    methods = "dav_methods PUT;"

    def __enter__(self) -> Peer:
        self._files = self.folder / "files"
        self._files.mkdir(exist_ok=True)
        self.port = free_port()
        # A master that runs as root would hand its workers to nobody, who may not write here.
        user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
        conf = self.folder / "nginx.conf"
        about = {"modules": self.modules, "methods": self.methods, "user": user, "run": self.folder}
        conf.write_text(_NGINX.format(**about, files=self._files, port=self.port))
        self._process = subprocess.Popen(
            [nginx_program(), "-p", str(self.folder), "-c", str(conf), "-e", str(self.folder / "error.log")]
        )
        servers.wait_until(lambda: accepts(self.port), what="nginx")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.terminate()
        self._process.wait()

    def pids(self) -> list[int]:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def files(self, reference: str) -> list[Path]:
        return sorted(self._files.glob(f"{reference}.*"), key=lambda path: int(path.suffix[1:]))


class Tus(Peer):
    """The tus reference server with its file store: one process of node, as it comes."""

    name = "@tus/server"
    wire = staticmethod(client.tus)

    def __enter__(self) -> Peer:
        command = ["node", str(NODE / "server.js"), str(self.folder)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        output: IO[str] = self._process.stdout
        self.port = int(output.readline())
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._process.stdout.close()

    def pids(self) -> list[int]:
        return [self._process.pid]

    def files(self, reference: str) -> list[Path]:
        return [self.folder / reference]

    def delete(self, reference: str) -> None:
        super().delete(reference)
        (self.folder / f"{reference}.json").unlink()


def install_node_packages() -> None:
    if not (NODE / "node_modules").is_dir():
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund"], cwd=NODE, check=True)


def nginx_program() -> str:
    return shutil.which("nginx") or "/usr/sbin/nginx"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and of the children that it has waited for."""
    # The process's own clock counts nanoseconds, where /proc counts ticks of 10 ms; the number is the kernel's
    # encoding of "all threads of pid" (clock_getcpuclockid(3)), which Python does not offer.
    own = time.clock_gettime((~pid << 3) | 2)
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    reaped = int(fields[13]) + int(fields[14])
    return own + reaped / os.sysconf("SC_CLK_TCK")
