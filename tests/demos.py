"""The demo as its user starts it, for the tests of the page and of the built package."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from servers import PLUGIN, wait_until

COMMAND = (sys.executable, "-c", "from upload_helper.cli import main; main()")


def environment() -> dict[str, str]:
    """Return the variables under which the package is found in the source tree."""
    return {**os.environ, "PYTHONPATH": str(PLUGIN)}


class Demo:
    """``upload-helper demo`` in a process group of its own, on a port that the system chooses unless one is given.

    Its temporary folder, if it makes one, stands beside the log.
    """

    def __init__(
        self, log: Path, *arguments: str, command: Sequence[str] = COMMAND, env: Mapping[str, str] | None = None
    ) -> None:
        self.log = log
        variables = {**(env or environment()), "TMPDIR": str(log.parent)}
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, "demo", "--workers", "2", "--port", "0", *arguments],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=variables, cwd=log.parent,
                start_new_session=True,
            )  # fmt: skip
        wait_until(lambda: "Files go to" in self.output() or self.process.poll() is not None, what="the demo")
        found = re.search(r"http://\S+", self.output())
        assert found, self.output()
        self.url = found[0]
        self.port = self.url.rstrip("/").rpartition(":")[2]

    def __enter__(self) -> Demo:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()

    def output(self) -> str:
        """Return what the command has printed so far."""
        return self.log.read_text()

    def workers(self) -> list[int]:
        """Return the process ids of gunicorn's workers."""
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def end(self, number: signal.Signals) -> int:
        """Send a signal as a terminal would, to every process of the group; return the exit status."""
        os.killpg(self.process.pid, number)
        return self.process.wait(30)

    def kill(self) -> None:
        """Kill every process of the demo with SIGKILL, and wait until the command is gone."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
