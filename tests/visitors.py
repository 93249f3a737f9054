"""What the tests of pages need: a person with a browser, files to choose, and a hand on the wire between."""

from __future__ import annotations

import math
import random
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Browser, BrowserContext, Locator, Page, Request, Response, Route

from chromium import PATIENCE
from servers import wait_until

CHUNK = 64 << 10
CHUNKS = re.compile(r"/uploads\?.*chunkNumber=")
MARKUP = "<img src=x onerror='document.title=1'>.bin"
# Answers that are errors show up there as well, and are what some tests are about.
_LOUD = re.compile(r"Content.Security.Policy|Uncaught|TypeError", re.IGNORECASE)


@contextmanager
def visit(browser: Browser, **options: object) -> Iterator[Page]:
    """Yield a page of a new visitor; a script error on it, or a breach of its security policy, fails the test."""
    errors: list[object] = []
    context = browser.new_context(**{"viewport": {"width": 1000, "height": 800}, "locale": "en-US", **options})
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.on("pageerror", lambda error: errors.extend([error]))
    page.on("console", lambda message: errors.append(message.text) if _LOUD.search(message.text) else None)
    # Nobody is asked whether the page may be left in mid-upload.
    page.on("dialog", lambda dialog: dialog.accept())
    yield page
    context.close()
    assert errors == [], errors


class Wire:
    """The chunks that a page sends: which, and which of them the server has acknowledged.

    From the number `open_for` on it holds them, as a network without a way through would.
    """

    def __init__(self, page: Page, open_for: float = float("inf")) -> None:
        self.sent: list[int] = []
        self.acknowledged: list[int] = []
        self._page = page
        self._left = open_for
        self._held: list[Route] = []
        page.on("request", self._request)
        page.on("response", self._response)
        page.route(CHUNKS, self._pass)

    def wait_for(self, count: int) -> set[int]:
        """Return the numbers of the acknowledged chunks once there are so many."""
        return wait_until(lambda: self._look(count), what=f"{count} acknowledged chunks")

    def open(self, *, reloaded: bool = False, count: float = float("inf")) -> None:
        """Let `count` more through; what was held is lost when the page was reloaded since."""
        self._left = count
        held, self._held = self._held, []
        for route in [] if reloaded else held:
            self._pass(route)

    def _look(self, count: int) -> set[int] | None:
        self._page.wait_for_timeout(5)
        return set(self.acknowledged) if len(self.acknowledged) >= count else None

    def _request(self, request: Request) -> None:
        if CHUNKS.search(request.url):
            self.sent.append(chunk_number(request))

    def _response(self, response: Response) -> None:
        if CHUNKS.search(response.url) and response.ok:
            self.acknowledged.append(chunk_number(response.request))

    def _pass(self, route: Route) -> None:
        if self._left > 0:
            self._left -= 1
            route.continue_()
        else:
            self._held.append(route)


def chunk_number(request: Request) -> int:
    return int(parse_qs(urlsplit(request.url).query)["chunkNumber"][0])


def make_file(folder: Path, size: int, name: str = "survey.tif") -> Path:
    """Write a file whose bytes depend on its size."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(random.Random(size).randbytes(size))
    return path


def make_picture(path: Path, width: int = 120, height: int = 90) -> Path:
    """Write a picture of hills as a PNG (ISO 15948)."""

    def colour(x: int, y: int) -> tuple[int, int, int]:
        hill = y > height * (0.55 + 0.2 * math.sin(9 * x / width))
        return (60, 130 - 60 * y // height, 70) if hill else (150 + 90 * y // height, 200, 240)

    rows = [bytes(channel for x in range(width) for channel in colour(x, y)) for y in range(height)]
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))),
        (b"IEND", b""),
    ]
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def picker(page: Page) -> Locator:
    """Return the input by which the widget takes files."""
    return page.locator("upload-helper .choose input")


def pick(page: Page, *paths: Path) -> None:
    """Choose files in the widget."""
    picker(page).set_input_files(list(paths))


def drop(page: Page, *paths: Path) -> None:
    """Drop files or folders from outside of the browser on the widget."""
    hold(page, *paths, kinds=("dragEnter", "dragOver", "drop"))


def hold(page: Page, *paths: Path, kinds: tuple[str, ...] = ("dragEnter", "dragOver")) -> None:
    """Hold files or folders from outside of the browser over the widget."""
    area = page.locator("upload-helper").bounding_box()
    assert area
    session = page.context.new_cdp_session(page)
    for kind in kinds:
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        session.send("Input.dispatchDragEvent", {"type": kind, "x": area["x"] + 20, "y": area["y"] + 20, "data": data})


def row(page: Page, name: str = "survey.tif") -> Locator:
    """Return the row of a file in the widget."""
    return page.locator("upload-helper .item").filter(has=page.locator(".name", has_text=name))


def button(scope: Page | Locator, text: str, name: str = "") -> Locator:
    """Return a button by what it does, and to which file."""
    return scope.get_by_role("button", name=f"{text}: {name}" if name else text, exact=True)


def download(page: Page, act: Callable[[], object]) -> bytes:
    with page.expect_download() as started:
        act()
    return started.value.path().read_bytes()


def hurry(page: Page) -> None:
    """Let the time of all animations be over, also of those that only wait to show something."""
    page.evaluate("document.getAnimations().forEach((animation) => animation.finish())")


def uploads(context: BrowserContext, url: str) -> list[dict]:
    """Return what the server says of this visitor's uploads."""
    return context.request.get(url).json()["uploads"]
