"""What a person waits for: a file chosen on a page in chromium, by the widget and by other libraries, to one server."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from . import names
from .devtools import Chromium, Visit
from .names import GIB, KIB, MIB, RESUMABLE, RESUMABLE_TUNED, UNHASHED, UPPY, UPPY_TUNED, WIDGET
from .narrow import NarrowLink
from .ours import Gunicorn
from .shapes import check
from .tables import Table, column, interleave

SPEED, ROUND_TRIP = 2 * MIB, 0.2

# `uploaded` promises the seconds from the choice of the file, which the page hears as an event, to the moment when it
# says that all is stored, and what it says.
_SCRIPT = """
    let began;
    addEventListener("input", () => { began = performance.now(); }, { capture: true });
    const ready = new Promise((resolve) => addEventListener("load", () => resolve()));
    const uploaded = new Promise((resolve) => {
      addEventListener("DOMContentLoaded", () => {
        const state = document.getElementById("state");
        const look = () => state.textContent && resolve([(performance.now() - began) / 1000, state.textContent]);
        new MutationObserver(look).observe(state, { childList: true });
      });
      setTimeout(resolve, 600_000, [0, "nothing"]);
    });
"""


@dataclass(frozen=True)
class Client:
    """A page that uploads: `settings` are texts of it that are replaced, `picker` says where the file is chosen."""

    name: str
    page: str
    settings: dict[str, str] = field(default_factory=dict)
    picker: str = "document.getElementById('file')"


_PICKER = "document.querySelector('upload-helper').shadowRoot.querySelector('.choose input')"
AS_THEY_COME = [
    Client(WIDGET, "widget", picker=_PICKER),
    Client(UPPY, "uppy-tus", {"chunkSize: 8 << 20,": ""}),
    Client(RESUMABLE, "resumable", {"chunkSize: 8 << 20,": ""}),
]
CLIENTS = [
    *AS_THEY_COME,
    Client(UNHASHED, "widget", {"options": "{ checksum: false }"}, picker=_PICKER),
    Client(UPPY_TUNED, "uppy-tus", {"8 << 20,": "8 << 20, parallelUploads: 3,"}),
    Client(RESUMABLE_TUNED, "resumable"),
]


@dataclass(frozen=True)
class Sample:
    """One upload: its seconds, and the processor time of browser and server."""

    seconds: float
    browser: float
    server: float


class Site(Gunicorn):
    """gunicorn with the blueprint and the pages."""

    app = "bench.site:app()"


def on_loopback(folder: Path, source: Path, size: int, rounds: int) -> Table:
    """Measure all clients, with nothing between the browser and the server."""
    found = _measure(folder, _piece(source, folder, size), CLIENTS, rounds)
    columns = [
        column("rate", "MiB/s", found, lambda s: size / MIB / s.seconds),
        column("browser's processor", "s/GiB", found, lambda s: s.browser * GIB / size),
        column("the server's", "s/GiB", found, lambda s: s.server * GIB / size),
    ]
    return Table(names.BROWSER, f"{size // MIB} MiB from a browser", columns, ours=WIDGET)


def on_narrow_link(folder: Path, source: Path, size: int, rounds: int) -> Table:
    """Measure the clients as they come, over a link that is narrow and long."""
    found = _measure(folder, _piece(source, folder, size), AS_THEY_COME, rounds, narrow=True)
    name = f"{size // MIB} MiB from a browser, at {SPEED // MIB} MiB/s and {1000 * ROUND_TRIP:.0f} ms"
    return Table(names.NARROW, name, [column("rate", "KiB/s", found, lambda s: size / KIB / s.seconds)], ours=WIDGET)


def _measure(
    folder: Path, source: Path, clients: list[Client], rounds: int, *, narrow: bool = False
) -> dict[str, list[Sample]]:
    known = {client.name: client for client in clients}
    with Site(folder) as site, Chromium(folder) as browser, NarrowLink(site.port, SPEED, ROUND_TRIP) as link:
        origin = f"http://127.0.0.1:{link.port if narrow else site.port}"
        return interleave(known, rounds, lambda name: _upload(browser, site, known[name], source, origin))


def _upload(browser: Chromium, site: Site, client: Client, source: Path, origin: str) -> Sample:
    """Upload a file as a person who is there for the first time, and delete it."""
    url = f"{origin}/pages/{client.page}.html?{urlencode(client.settings)}"
    with Visit(browser, url, _SCRIPT) as visit:
        visit.evaluate("ready")
        server, processes = site.cpu(), browser.cpu()
        visit.choose(client.picker, source)
        seconds, said = visit.evaluate("uploaded")
        used = sum(after - processes.get(pid, 0) for pid, after in browser.cpu().items())
        sample = Sample(seconds, used, site.cpu() - server)
        if not said.startswith("Stored: "):
            raise RuntimeError(f"{client.name} says: {said}")
        path = urlsplit(said.removeprefix("Stored: ")).path
        check(site, path.rpartition("/")[2], source, source.stat().st_size, digest=True)
        visit.evaluate(f"fetch('{path}', {{ method: 'DELETE', headers: {{ 'X-Upload-Helper': '1' }} }})")
    return sample


def _piece(source: Path, folder: Path, size: int) -> Path:
    """Return a file of `size` bytes with what `source` begins with."""
    piece = folder / "chosen.bin"
    piece.touch()
    with source.open("rb") as whole, piece.open("r+b") as file:
        while (position := file.tell()) < size:
            file.write(whole.read(min(MIB, size - position)))
        file.truncate()
    return piece
