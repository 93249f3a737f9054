"""chromium, without anything that looks at its requests: what Playwright wants to know of each costs time."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests import chromium

_SWITCHES = [
    "--headless", "--remote-debugging-pipe", "--no-startup-window", "--hide-scrollbars", "--mute-audio",
    "--disable-background-timer-throttling", "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows", "--disable-breakpad",
]  # fmt: skip


class Chromium:
    """A browser, started by ``with`` and ended with the block; it is spoken to in the DevTools protocol by two pipes."""

    def __init__(self, folder: Path) -> None:
        self._profile = folder / "chromium"

    def __enter__(self) -> Chromium:
        read, self._write = os.pipe()
        self._read, write = os.pipe()
        # The protocol wants them at 3 and 4.
        shell = f'exec "$@" 3<&{read} 4>&{write}'
        program = str(shutil.which("chromium"))
        profile = f"--user-data-dir={self._profile}"
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", shell, "sh", program, *chromium.SWITCHES, *_SWITCHES, profile],
            pass_fds=[read, write], stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(read)
        os.close(write)
        self._answers = os.fdopen(self._read, "rb")
        self._rest = b""
        self._numbers = itertools.count(1)
        return self

    def __exit__(self, *exc_info: object) -> None:
        with suppress(OSError):
            self.ask("Browser.close")
        os.close(self._write)
        self._answers.close()
        self._process.wait()
        shutil.rmtree(self._profile, ignore_errors=True)

    def ask(self, method: str, session: str = "", **params: Any) -> dict[str, Any]:
        """Send a command and return its result; raises RuntimeError if it fails."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params, **({"sessionId": session} if session else {})}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._message()).get("id") != number:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._read, 1 << 16)
            if not part:
                raise RuntimeError("chromium has ended.")
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def cpu(self) -> dict[int, float]:
        """Return the processor time in seconds of each of the browser's processes."""
        found = {}
        left = [self._process.pid]
        while left:
            pid = left.pop()
            # They come and go.
            with suppress(OSError):
                found[pid] = time.clock_gettime((~pid << 3) | 2)
                tasks = Path(f"/proc/{pid}/task").iterdir()
                left += [int(child) for task in tasks for child in (task / "children").read_text().split()]
        return found


class Visit:
    """A page of somebody who is there for the first time."""

    def __init__(self, browser: Chromium, url: str, script: str) -> None:
        """Open a page; `script` runs before its own."""
        self._browser = browser
        self._context = browser.ask("Target.createBrowserContext")["browserContextId"]
        target = browser.ask("Target.createTarget", url="about:blank", browserContextId=self._context)["targetId"]
        self._session = browser.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._ask("Page.enable")
        self._ask("Page.addScriptToEvaluateOnNewDocument", source=script)
        self._ask("Page.navigate", url=url)

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._browser.ask("Target.disposeBrowserContext", browserContextId=self._context)

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression, or what it promises; raises RuntimeError for what it throws."""
        found = self._ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def choose(self, expression: str, path: Path) -> None:
        """Choose a file in the input that an expression returns."""
        found = self._ask("Runtime.evaluate", expression=expression)["result"]
        self._ask("DOM.setFileInputFiles", objectId=found["objectId"], files=[str(path)])

    def _ask(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.ask(method, self._session, **params)
