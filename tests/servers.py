"""Real servers for the tests, on ports that the system chooses."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

TESTS = Path(__file__).parent
PLUGIN = TESTS.parent / "plugin"
# SPLICE=on sends every body through a pipe where the server has that way, SPLICE=off none; otherwise as configured.
SPLICE = {"on": {"UPLOAD_HELPER_SPLICE_FROM": 1}, "off": {"UPLOAD_HELPER_SPLICE_FROM": None}}.get(
    os.environ.get("SPLICE", ""), {}
)


def wait_until(condition, *, seconds: float = 30, what: str = "condition"):
    """Return the first true value of `condition()`; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.005)
    raise AssertionError(f"{what}: not within {seconds} s")


class Gunicorn:
    """gunicorn with the host application. Its listening socket is ours, so the port outlives a killed server."""

    def __init__(
        self, folder: Path, *, workers: int = 2, threads: int = 4, app: str = "host:app()",
        options: Sequence[str] = (), **config: object,
    ):  # fmt: skip
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._socket.set_inheritable(True)
        self.port: int = self._socket.getsockname()[1]
        self.origin = f"http://127.0.0.1:{self.port}"
        self.url = f"{self.origin}/uploads"
        self.log = folder.parent / f"gunicorn-{self.port}.log"
        settings = {"UPLOAD_HELPER_FOLDER": str(folder), "UPLOAD_HELPER_MIN_FREE_SPACE": 0, **SPLICE, **config}
        path = os.pathsep.join((str(PLUGIN), str(TESTS)))
        self._environment = {**os.environ, "HOST_CONFIG": json.dumps(settings), "PYTHONPATH": path}
        self._command = [
            sys.executable, "-m", "gunicorn", "--no-control-socket", "--worker-class", "gthread",
            "--workers", str(workers), "--threads", str(threads), "--bind", f"fd://{self._socket.fileno()}",
            "--graceful-timeout", "2", *options, app,
        ]  # fmt: skip
        self._workers = workers
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Gunicorn:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()
        self._socket.close()

    def start(self) -> None:
        """Start the server; requests that come before it is up wait in the socket's queue."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=log, pass_fds=[self._socket.fileno()],
                start_new_session=True,
            )  # fmt: skip

    def configure(self, **config: object) -> None:
        """Change settings; they hold from the next start on."""
        settings = {**json.loads(self._environment["HOST_CONFIG"]), **config}
        self._environment["HOST_CONFIG"] = json.dumps(settings)

    def kill(self) -> None:
        """Kill every process of the server with SIGKILL, and wait until they are gone."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def pids(self) -> list[int]:
        """Return the process ids of the workers, once all are up."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return wait_until(
            lambda: pids if len(pids := [int(p) for p in children.read_text().split()]) == self._workers else None,
            what="workers",
        )

    def memory(self) -> int:
        """Return the memory in bytes that the workers have to themselves (private pages)."""
        return sum(private_memory(pid) for pid in self.pids())


class Uwsgi:
    """uWSGI with the host application, on a port that it chooses itself."""

    def __init__(
        self, folder: Path, *options: str, kind: str = "http11-socket", app: str = "host:app()", **config: object
    ) -> None:
        settings = {"UPLOAD_HELPER_FOLDER": str(folder), "UPLOAD_HELPER_MIN_FREE_SPACE": 0, **SPLICE, **config}
        path = os.pathsep.join((str(PLUGIN), str(TESTS)))
        self._environment = {**os.environ, "HOST_CONFIG": json.dumps(settings), "PYTHONPATH": path}
        self.log = folder.parent / f"uwsgi-{secrets.token_hex(4)}.log"
        module, _, call = app.partition(":")
        self._command = [
            str(Path(sys.executable).parent / "uwsgi"), f"--{kind}", "127.0.0.1:0", "--master", "--need-app",
            "--module", f"{module}:{call}", "--die-on-term", *options,
        ]  # fmt: skip
        if not any(option in options for option in ("--processes", "--async")):
            self._command += ["--processes", "1", "--threads", "4"]

    def __enter__(self) -> Uwsgi:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        self.port = int(wait_until(self._find_port, what=f"uWSGI, see {self.log}")[1])
        self.url = f"http://127.0.0.1:{self.port}/uploads"
        wait_until(lambda: b"WSGI app 0" in self.log.read_bytes(), what="the application")
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def pids(self) -> list[int]:
        """Return the process ids of the workers."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def _find_port(self) -> re.Match[bytes] | None:
        return re.search(rb"127\.0\.0\.1:(\d+) \(port auto-assigned\)", self.log.read_bytes())


def private_memory(pid: int) -> int:
    """Return the private memory of one process in bytes."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    rows = (line.split() for line in text.splitlines())
    return 1024 * sum(int(row[1]) for row in rows if row[0] in ("Private_Clean:", "Private_Dirty:"))
