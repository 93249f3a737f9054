"""The servers that ours is measured against, each on a port that the system chose and in a folder of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests import servers

from . import client, names

NODE = Path(__file__).parent / "node"

Wire = Callable[[int, int], client.Wire]

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
    """A server: started by ``with``, in a session of its own, which the kernel schedules by, and ended with the block."""

    name: str
    how: str
    """How it is run, for the report."""
    wire: Wire
    """How it is spoken to."""
    whole: Wire
    """How it takes a file in one request."""
    others: tuple[tuple[str, Wire], ...] = ()
    """Names of further ways to speak to it, and these."""
    port: int
    _process: subprocess.Popen[str]

    def __init__(self, folder: Path) -> None:
        self.folder = folder / type(self).__name__.lower()
        self.folder.mkdir(parents=True)

    def __enter__(self) -> Peer:
        raise NotImplementedError

    def __exit__(self, *exc_info: object) -> None:
        self._process.terminate()
        self._process.wait()

    def pids(self) -> list[int]:
        """Return the processes of the server, the one that only watches the others included."""
        return tree(self._process.pid)

    def files(self, reference: str) -> list[Path]:
        """Return the files in which an upload is, in order."""
        raise NotImplementedError

    def delete(self, reference: str) -> None:
        for path in self.files(reference):
            path.unlink()

    def cpu(self) -> float:
        """Return the seconds of processor time, user and system, that the server has used so far."""
        return sum(cpu_seconds(pid) for pid in self.pids())

    def private(self) -> int:
        """Return the memory in bytes that the server's processes have to themselves."""
        return sum(servers.private_memory(pid) for pid in self.pids())

    def written(self) -> int:
        """Return the bytes that the server has written from its memory so far; what is spliced does not count."""
        texts = [Path(f"/proc/{pid}/io").read_text() for pid in self.pids()]
        return sum(int(text.partition("wchar: ")[2].split()[0]) for text in texts)

    def resident(self) -> int:
        """Return the memory in bytes of the server's processes; what several of them share counts once (PSS)."""
        texts = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in self.pids()]
        return sum(1024 * int(text.partition("\nPss:")[2].split()[0]) for text in texts)


class Nginx(Peer):
    """nginx, putting each chunk into a file of its own."""

    name = names.NGINX
    how = "worker_processes 2, WebDAV PUT of each chunk to a file of its own, no access log"
    wire = staticmethod(client.webdav)
    whole = staticmethod(client.webdav)
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
            [nginx_program(), "-p", str(self.folder), "-c", str(conf), "-e", str(self.folder / "error.log")],
            start_new_session=True,
        )
        servers.wait_until(lambda: accepts(self.port), what="nginx")
        return self

    def files(self, reference: str) -> list[Path]:
        return sorted(self._files.glob(f"{reference}.*"), key=lambda path: int(path.suffix[1:]))


class TusServer(Peer):
    """A tus server with a folder of files, each with another file or a record beside it."""

    wire = staticmethod(client.tus)
    whole = staticmethod(client.tus)
    suffixes: tuple[str, ...] = ()
    """The endings of the files that lie beside an upload."""

    def files(self, reference: str) -> list[Path]:
        return [self.folder / reference]

    def delete(self, reference: str) -> None:
        for suffix in ("", *self.suffixes):
            (self.folder / f"{reference}{suffix}").unlink()


class Tus(TusServer):
    """The tus reference server with its file store."""

    name = names.TUS
    how = "node, one process, its file store, as in its README"
    suffixes = (".json",)

    def __enter__(self) -> Peer:
        command = ["node", str(NODE / "server.js"), str(self.folder)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        self.port = int(self._process.stdout.readline())
        return self

    def __exit__(self, *exc_info: object) -> None:
        super().__exit__()
        self._process.stdout.close()


class TusPyServer(TusServer):
    """tuspyserver in an application of FastAPI, under uvicorn."""

    name = "tuspyserver"
    how = "FastAPI as in its README, uvicorn[standard] (uvloop, httptools), one process, no access log"
    suffixes = (".info",)

    def __enter__(self) -> Peer:
        self.port = free_port()
        self._process = start(
            self.folder.with_suffix(".log"),
            ["uvicorn", "bench.fastapi_site:app", "--port", f"{self.port}", "--no-access-log", "--log-level=warning"],
            BENCH_FOLDER=str(self.folder),
        )
        servers.wait_until(lambda: accepts(self.port), what=self.name)
        return self


class ResumableUpload(TusServer):
    """The server that the package resumable-upload brings."""

    name = "resumable-upload"
    how = "resumable-upload serve (http.server, a thread for each connection, SQLite)"

    def __enter__(self) -> Peer:
        self.port = free_port()
        log = self.folder.with_suffix(".log")
        about = ["--upload-dir", str(self.folder), "--db-path", str(self.folder.with_suffix(".db"))]
        where = ["--host", "127.0.0.1", "--port", str(self.port)]
        self._process = start(log, ["resumable_upload", "serve", *where, *about, "--log-level", "WARNING"])
        servers.wait_until(lambda: accepts(self.port), what=self.name)
        return self


def start(log: Path, command: Sequence[str], **environment: str) -> subprocess.Popen[str]:
    """Start a server that is a module of Python; what it says goes to a file."""
    path = os.pathsep.join((str(servers.PLUGIN), str(servers.TESTS)))
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", *command],
            env={**os.environ, "PYTHONPATH": path, **environment}, stdout=file, stderr=file, text=True,
            start_new_session=True,
        )  # fmt: skip


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


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def tree(pid: int) -> list[int]:
    """Return a process and all that descend from it; servers fork in their main thread."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(below for child in children for below in tree(int(child)))]


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and of the children that it has waited for."""
    # The process's own clock counts nanoseconds, where /proc counts ticks of 10 ms; the number is the kernel's
    # encoding of "all threads of pid" (clock_getcpuclockid(3)), which Python does not offer.
    own = time.clock_gettime((~pid << 3) | 2)
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    reaped = int(fields[13]) + int(fields[14])
    return own + reaped / os.sysconf("SC_CLK_TCK")
