"""The demo, from its command line to the page in a real browser."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

import pytest
from playwright.sync_api import Browser, Page, Request, Response, Route, expect, sync_playwright

from demos import COMMAND, Demo, environment
from servers import wait_until

SWITCHES = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
# The machine may have other things to do.
PATIENCE = 20_000
CHUNK = 64 << 10
CHUNKS = re.compile(r"/uploads\?.*chunkNumber=")
MARKUP = "<img src=x onerror='document.title=1'>.bin"
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=SWITCHES)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Iterator[Demo]:
    with Demo(tmp_path_factory.mktemp("demo") / "log") as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Return a page of a new visitor; a script error on it fails the test."""
    errors: list[object] = []
    context = browser.new_context(viewport={"width": 1000, "height": 800})
    context.set_default_timeout(PATIENCE)
    opened = context.new_page()
    opened.on("pageerror", lambda error: errors.extend([error]))
    yield opened
    context.close()
    assert not errors


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

    def open(self, *, reloaded: bool = False) -> None:
        """Let everything through; what was held is lost when the page was reloaded since."""
        self._left = float("inf")
        for route in [] if reloaded else self._held:
            route.continue_()
        self._held.clear()

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
    path = folder / name
    path.write_bytes(random.Random(size).randbytes(size))
    return path


def pick(page: Page, path: Path) -> None:
    page.set_input_files("#file", path)


def drop(page: Page, *paths: Path) -> None:
    """Drop files or a folder from outside of the browser on the page."""
    area = page.locator("#drop").bounding_box()
    assert area
    session = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        session.send("Input.dispatchDragEvent", {"type": kind, "x": area["x"] + 20, "y": area["y"] + 20, "data": data})


def assert_arrived(page: Page, path: Path) -> None:
    """Wait for the result, and compare what it shows, and what its link gives, with the file."""
    data = path.read_bytes()
    expect(page.locator("#result-digest")).to_have_text(hashlib.sha256(data).hexdigest())
    expect(page.locator("#result-name")).to_have_text(unicodedata.normalize("NFC", path.name))
    expect(page.locator("#result-size")).to_contain_text(f"{len(data):,} bytes")
    assert download(page, lambda: page.click("#download")) == data


def download(page: Page, act) -> bytes:
    with page.expect_download() as started:
        act()
    return started.value.path().read_bytes()


@pytest.mark.parametrize(("give", "query"), [(pick, ""), (drop, "?chunkSize=6000000")])
def test_file_arrives_and_comes_back(page, demo, tmp_path, give, query):
    wire = Wire(page)
    page.goto(demo.url + query)
    path = make_file(tmp_path, (16 << 20) + 5)
    give(page, path)
    assert_arrived(page, path)
    assert sorted(wire.sent) == [0, 1, 2]
    expect(page.locator("#upload")).to_be_hidden()
    assert page.evaluate("Object.keys(localStorage)") == []


@pytest.mark.parametrize(
    ("name", "size"),
    [
        (MARKUP, 3 * CHUNK),
        ("日本 Straße & 100 %.shp", 10),
        (unicodedata.normalize("NFD", "Übergröße.tif"), 10),
        ("empty", 0),
    ],
)
def test_any_name_and_size(page, demo, tmp_path, name, size):
    page.goto(f"{demo.url}?chunkSize={CHUNK}")
    wire = Wire(page, open_for=0)
    path = make_file(tmp_path, size, name)
    pick(page, path)
    expect(page.locator("#name")).to_have_text(name)
    wire.open()
    assert_arrived(page, path)
    assert page.title() == "Upload a file"
    assert page.locator("main img").count() == 0


def test_reload_in_the_middle_sends_only_what_is_missing(page, demo, tmp_path):
    page.goto(f"{demo.url}?chunkSize={CHUNK}")
    path = make_file(tmp_path, 20 * CHUNK - 1, MARKUP)
    wire = Wire(page, open_for=8)
    pick(page, path)
    there = wire.wait_for(8)
    expect(page.locator("#amount")).to_contain_text("of 1.31 MB")
    page.reload()
    expect(page.locator("#unfinished")).to_contain_text(MARKUP)
    expect(page.locator("#unfinished")).to_contain_text("524 kB of 1.31 MB")
    wire.open(reloaded=True)
    wire.sent.clear()
    pick(page, path)
    assert_arrived(page, path)
    assert sorted(wire.sent) == sorted(set(range(20)) - there)
    expect(page.locator("#unfinished")).to_be_hidden()


def test_server_killed_in_the_middle_and_started_again(page, tmp_path):
    folder = str(tmp_path / "files")
    path = make_file(tmp_path, 12 * CHUNK)
    with Demo(tmp_path / "log", "--folder", folder) as first:
        page.goto(f"{first.url}?chunkSize={CHUNK}")
        wire = Wire(page, open_for=6)
        pick(page, path)
        there = wire.wait_for(6)
        first.kill()
        sent = len(wire.sent)
        wire.open()
        expect(page.locator("#state")).to_contain_text("There is no connection to the server.")
    with Demo(tmp_path / "log", "--folder", folder, "--port", first.port):
        assert_arrived(page, path)
    assert there.isdisjoint(wire.sent[sent:])


def test_reload_while_the_digest_is_computed_shows_the_result(page, demo, tmp_path):
    page.goto(f"{demo.url}?chunkSize={CHUNK}")
    path = make_file(tmp_path, 2 * CHUNK)
    digests: list[Route] = []
    page.route("**/digest/*", lambda route: digests.append(route) if not digests else route.continue_())
    pick(page, path)
    expect(page.locator("#state")).to_contain_text("SHA-256")
    page.reload()
    assert_arrived(page, path)


@pytest.mark.parametrize("reload", [False, True], ids=["under way", "after a reload"])
def test_cancelled_upload_is_deleted(page, demo, tmp_path, reload):
    page.goto(f"{demo.url}?chunkSize={CHUNK}")
    wire = Wire(page, open_for=2)
    pick(page, make_file(tmp_path, 9 * CHUNK))
    wire.wait_for(2)
    assert len(uploads(page, demo)) == 1
    if reload:
        page.reload()
    page.dblclick("#unfinished button" if reload else "#cancel")
    expect(page.locator("#unfinished")).to_be_hidden()
    expect(page.locator("#upload")).to_be_hidden()
    expect(page.locator("#drop")).to_be_visible()
    wait_until(lambda: uploads(page, demo) == [], what="deletion")
    assert page.evaluate("Object.keys(localStorage)") == []


def uploads(page: Page, demo: Demo) -> list[dict]:
    return page.request.get(f"{demo.url}uploads").json()["uploads"]


def test_server_error_is_shown_in_its_words_and_with_its_remedy(page, demo, tmp_path):
    page.goto(demo.url)
    huge = tmp_path / "huge.tif"
    with huge.open("wb") as file:
        file.truncate(17 << 30)
    pick(page, huge)
    expect(page.get_by_role("alert")).to_contain_text(f"totalSize {17 << 30} is over the limit of {16 << 30} bytes")
    expect(page.get_by_role("alert")).to_contain_text("ask the operator to raise the limit")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#drop")).to_be_visible()
    small = make_file(tmp_path, 10)
    pick(page, small)
    assert_arrived(page, small)
    expect(page.get_by_role("alert")).to_be_hidden()


def refusal(status: int, code: str = "", **headers: str) -> dict[str, object]:
    """Return an answer of the server; without a code, one of somebody in between who knows nothing of uploads."""
    said = json.dumps({"error": "<b>No.</b>", "code": code, "remedy": "Ask."}) if code else "<h1>Out of order</h1>"
    return {"status": status, "body": said, "headers": {name.replace("_", "-"): text for name, text in headers.items()}}


@pytest.mark.parametrize(
    ("answer", "pause"),
    [
        (refusal(408, "body_stalled"), 0.3),
        (refusal(409, "superseded"), 0.3),
        (refusal(429, "too_many_uploads", Retry_After="1"), 1),
        (refusal(503), 0.3),
    ],
)
def test_error_that_may_pass_is_tried_again(page, demo, tmp_path, answer, pause):
    times: list[float] = []

    def refuse_once(route: Route) -> None:
        times.append(time.monotonic())
        if len(times) > 1:
            route.continue_()
        else:
            route.fulfill(**answer)

    page.goto(demo.url)
    page.route(CHUNKS, refuse_once)
    path = make_file(tmp_path, 10)
    pick(page, path)
    words = "<b>No.</b> Ask." if "error" in answer["body"] else "The server answered 503."
    expect(page.locator("#state")).to_contain_text(f"{words} Trying again")
    assert_arrived(page, path)
    assert times[1] - times[0] > pause


@pytest.mark.parametrize(
    "answer", [refusal(409, "chunk_conflict"), refusal(403, "forbidden"), refusal(400, "invalid_request")]
)
def test_error_that_does_not_pass_stops_until_the_person_says_so(page, demo, tmp_path, answer):
    page.goto(f"{demo.url}?chunkSize={CHUNK}")
    page.route(CHUNKS, lambda route: route.fulfill(**answer))
    path = make_file(tmp_path, 9 * CHUNK)
    pick(page, path)
    expect(page.locator("#error")).to_have_text("<b>No.</b>")
    expect(page.locator("#remedy")).to_have_text("Ask.")
    page.unroute(CHUNKS)
    wire = Wire(page)
    page.click("#retry")
    assert_arrived(page, path)
    assert sorted(wire.sent) == list(range(9))


def test_upload_that_was_deleted_elsewhere_can_be_sent_from_the_start(page, demo, tmp_path):
    page.goto(f"{demo.url}?chunkSize={CHUNK}")
    # The first three are sent before the uid is known, and would begin the upload again.
    wire = Wire(page, open_for=4)
    path = make_file(tmp_path, 9 * CHUNK)
    pick(page, path)
    wire.wait_for(4)
    (upload,) = uploads(page, demo)
    assert page.request.delete(f"{demo.url}uploads/{upload['uploadUid']}").ok
    wire.open()
    expect(page.locator("#error")).to_contain_text("There is no")
    expect(page.locator("#remedy")).to_contain_text("Try again")
    page.click("#retry")
    assert_arrived(page, path)


def test_folder_is_refused_in_words(page, demo, tmp_path):
    page.goto(demo.url)
    (tmp_path / "folder").mkdir()
    drop(page, tmp_path / "folder")
    expect(page.get_by_role("alert")).to_contain_text("Folders can’t be uploaded")


def test_two_files_at_once_are_refused_in_words(page, demo, tmp_path):
    page.goto(demo.url)
    drop(page, make_file(tmp_path, 1, "one"), make_file(tmp_path, 1, "two"))
    expect(page.locator("#note")).to_have_text("Choose one file at a time.")
    assert uploads(page, demo) == []


def test_keyboard_is_enough(page, demo, tmp_path):
    # Without a listener from the start, playwright asks for the dialog no sooner than the key that opens it.
    page.on("filechooser", lambda _: None)
    page.goto(f"{demo.url}?chunkSize={CHUNK}")
    wire = Wire(page, open_for=2)
    path = make_file(tmp_path, 5 * CHUNK)
    page.keyboard.press("Tab")
    expect(page.locator("#file")).to_be_focused()
    choose(page, path)
    wire.wait_for(2)
    page.keyboard.press("Tab")
    expect(page.locator("#cancel")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#file")).to_be_focused()
    wire.open(reloaded=True)
    choose(page, path)
    expect(page.locator("#result")).to_be_focused()
    page.keyboard.press("Tab")
    assert download(page, lambda: page.keyboard.press("Enter")) == path.read_bytes()
    page.keyboard.press("Tab")
    expect(page.locator("#file")).to_be_focused()


def choose(page: Page, path: Path) -> None:
    with page.expect_file_chooser() as asked:
        page.keyboard.press("Enter")
    asked.value.set_files(path)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_screen_needs_no_sideways_scrolling(page, demo, tmp_path, scheme):
    page.set_viewport_size({"width": 320, "height": 640})
    page.emulate_media(color_scheme=scheme)
    page.goto(f"{demo.url}?chunkSize={CHUNK}")
    wire = Wire(page, open_for=2)
    path = make_file(tmp_path, 5 * CHUNK, "x" * 200)
    pick(page, path)
    wire.wait_for(2)
    assert_fits(page, "#upload")
    page.reload()
    assert_fits(page, "#unfinished")
    pick(page, path)
    page.click("#cancel")
    assert_fits(page, "#note")
    wire.open(reloaded=True)
    pick(page, path)
    assert_fits(page, "#result")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0] < 128")
    assert dark == (scheme == "dark")


def assert_fits(page: Page, part: str) -> None:
    expect(page.locator(part)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    wide = "[...document.querySelectorAll('main *')].filter((e) => e.getBoundingClientRect().right > 320).length"
    assert page.evaluate(wide) == 0


@pytest.mark.parametrize("serving", [True, False], ids=["serving", "starting"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_demo_ends_quietly_and_removes_its_files(tmp_path, number, serving):
    with Demo(tmp_path / "log") as demo:
        (made,) = tmp_path.glob("upload-helper-demo-*")
        assert str(made) in demo.output()
        said = demo.output()
        if serving:
            get(demo.url)
        assert demo.end(number) == 0
        assert demo.output() == said
    assert not made.exists()


def test_files_outlive_a_worker(tmp_path):
    with Demo(tmp_path / "log") as demo:
        (made,) = tmp_path.glob("upload-helper-demo-*")
        workers = wait_until(lambda: len(demo.workers()) == 2 and set(demo.workers()), what="workers")
        get(demo.url)
        for pid in workers:
            os.kill(pid, signal.SIGQUIT)
        wait_until(lambda: workers.isdisjoint(demo.workers()), what="new workers")
        assert made.is_dir()
        get(demo.url)


def get(url: str) -> None:
    with urlopen(url) as answer:
        assert answer.status == 200


def test_files_in_a_named_folder_stay(tmp_path):
    folder = tmp_path / "files"
    with Demo(tmp_path / "log", "--folder", str(folder)) as demo:
        demo.end(signal.SIGTERM)
    assert (folder / ".secret").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--port", "{taken}"], "Can't listen on 127.0.0.1 port {taken}: Address already in use. Choose another"),
        (["--port", "99999"], "Can't listen on 127.0.0.1 port 99999"),
        (["--host", "no host"], "Can't listen on no host port"),
        (["--port", "0", "--folder", "/dev/null/x"], "The folder /dev/null/x can't be used: Not a directory."),
    ],
)
def test_what_can_not_be_had_is_said_in_words(tmp_path, arguments, text):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        status, said = run([*COMMAND, "demo", *(a.format(taken=taken) for a in arguments)], tmp_path)
    assert status == 1
    assert said.startswith(f"Error: {text.format(taken=taken)}")
    assert "Traceback" not in said
    assert list(tmp_path.glob("upload-helper-demo-*")) == []


def test_missing_gunicorn_is_said_with_the_command_that_installs_it(tmp_path):
    python, option, code = COMMAND
    command = [python, option, f"import sys; sys.modules['gunicorn'] = None; {code}", "demo", "--port", "0"]
    status, said = run(command, tmp_path)
    assert status == 1
    assert said == "Error: gunicorn is not installed. Install it with: pip install 'gunicorn>=27'\n"


def run(command: list[str], folder: Path) -> tuple[int, str]:
    done = subprocess.run(
        command,
        check=False,
        env={**environment(), "TMPDIR": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.skipif(not socket.has_ipv6 or not os.path.exists("/proc/net/if_inet6"), reason="no IPv6 here")
def test_demo_listens_on_an_ipv6_address(page, tmp_path):
    with Demo(tmp_path / "log", "--host", "::1") as demo:
        assert page.goto(demo.url).ok
