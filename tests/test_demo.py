"""The demo, from its command line to the page in a real browser."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from chromium import PATIENCE
from demos import COMMAND, Demo, environment
from servers import wait_until
from test_looks import AXE, faults, sticking_out
from visitors import CHUNK, CHUNKS, MARKUP, Wire, button, download, drop, make_file, pick, picker, row, uploads, visit

expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Iterator[Demo]:
    with Demo(tmp_path_factory.mktemp("demo") / "log") as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with visit(browser) as opened:
        yield opened


def entry(page: Page, name: str) -> Locator:
    """Return what the list of the person's uploads says of a file."""
    return page.locator("upload-helper-list li").filter(has=page.locator(".name").get_by_text(name, exact=True))


def assert_arrived(page: Page, path: Path) -> None:
    """Wait for the result, and compare what the page shows, and what its link gives, with the file."""
    data = path.read_bytes()
    name = unicodedata.normalize("NFC", path.name)
    expect(entry(page, name).locator(".digest code")).to_have_text(hashlib.sha256(data).hexdigest())
    link = page.get_by_role("link", name=f"Download: {name}", exact=True)
    assert download(page, link.click) == data


@pytest.mark.parametrize(("give", "query"), [(pick, ""), (drop, "?chunkSize=6000000")])
def test_file_arrives_and_comes_back(page, demo, tmp_path, give, query):
    wire = Wire(page)
    page.goto(demo.url + query)
    path = make_file(tmp_path, (12 << 20) + 5)
    give(page, path)
    assert_arrived(page, path)
    assert sorted(wire.sent) == list(range(len(wire.sent)))
    # From the widget it has gone to the list.
    expect(page.locator("upload-helper .item")).to_have_count(0)
    assert page.evaluate("Object.keys(localStorage).filter((key) => key.includes('survey'))") == []


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
    expect(page.locator("upload-helper .item .name")).to_have_text(name)
    wire.open()
    assert_arrived(page, path)
    assert page.title() == "Send large files without worry"
    assert page.locator("main img").count() == 0


def test_reload_in_the_middle_sends_only_what_is_missing(page, demo, tmp_path):
    page.goto(f"{demo.url}?chunkSize={CHUNK}")
    path = make_file(tmp_path, 20 * CHUNK - 1, MARKUP)
    wire = Wire(page, open_for=8)
    pick(page, path)
    there = wire.wait_for(8)
    page.reload()
    expect(page.locator(".unfinished")).to_contain_text(MARKUP)
    expect(page.locator(".unfinished")).to_contain_text("524 kB of 1.31 MB")
    # The widget says it, and so the list need not.
    expect(entry(page, MARKUP)).to_be_hidden()
    wire.open(reloaded=True)
    wire.sent.clear()
    pick(page, path)
    assert_arrived(page, path)
    assert sorted(wire.sent) == sorted(set(range(20)) - there)
    expect(page.locator(".unfinished")).to_be_hidden()


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
        expect(row(page)).to_contain_text("Interrupted. It is tried again.")
    with Demo(tmp_path / "log", "--folder", folder, "--port", first.port):
        assert_arrived(page, path)
    assert there.isdisjoint(wire.sent[sent:])


def test_reload_while_the_digest_is_computed_shows_the_result(page, demo, tmp_path):
    page.goto(f"{demo.url}?chunkSize={CHUNK}")
    path = make_file(tmp_path, 2 * CHUNK)
    digests: list[Route] = []
    page.route("**/digest/*", lambda route: digests.append(route) if not digests else route.continue_())
    pick(page, path)
    expect(page.locator(".digest")).to_contain_text("is being computed")
    page.reload()
    assert_arrived(page, path)


def test_upload_is_deleted(page, demo, tmp_path):
    page.goto(demo.url)
    path = make_file(tmp_path, 10)
    pick(page, path)
    assert_arrived(page, path)
    button(page, "Delete", path.name).click()
    expect(page.get_by_text("There is nothing here yet.")).to_be_visible()
    assert uploads(page.context, f"{demo.url}uploads") == []


def test_error_is_told_in_words_and_with_its_remedy(page, demo, tmp_path):
    page.goto(demo.url)
    huge = tmp_path / "huge.tif"
    with huge.open("wb") as file:
        file.truncate(17 << 30)
    pick(page, huge)
    expect(row(page, huge.name)).to_contain_text("The file is too large: at most 17.2 GB are allowed.")
    expect(row(page, huge.name)).to_contain_text("ask whoever runs this site to allow more")
    button(page, "Remove", huge.name).click()
    small = make_file(tmp_path, 10)
    pick(page, small)
    assert_arrived(page, small)


def refusal(status: int, code: str = "", **headers: str) -> dict[str, object]:
    """Return an answer of the server; without a code, one of somebody in between who knows nothing of uploads."""
    said = json.dumps({"error": "<b>No.</b>", "code": code, "remedy": "Ask."}) if code else "<h1>Out of order</h1>"
    return {"status": status, "body": said, "headers": {name.replace("_", "-"): text for name, text in headers.items()}}


@pytest.mark.parametrize(
    ("answer", "pause"),
    [(refusal(409, "superseded"), 0.2), (refusal(429, "too_many_uploads", Retry_After="1"), 1), (refusal(503), 0.2)],
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
    assert_arrived(page, path)
    assert times[1] - times[0] > pause


def test_upload_that_was_deleted_elsewhere_can_be_sent_from_the_start(page, demo, tmp_path):
    page.goto(f"{demo.url}?chunkSize={CHUNK}")
    # The first ones are sent before the uid is known, and would begin the upload again.
    wire = Wire(page, open_for=7)
    path = make_file(tmp_path, 20 * CHUNK)
    pick(page, path)
    wire.wait_for(7)
    (upload,) = uploads(page.context, f"{demo.url}uploads")
    assert page.request.delete(f"{demo.url}uploads/{upload['uploadUid']}").ok
    wire.open()
    expect(row(page)).to_contain_text("The server does not find what had arrived of this file.")
    button(page, "Try again", path.name).click()
    assert_arrived(page, path)


def test_keyboard_is_enough(page, demo, tmp_path):
    # Without a listener from the start, playwright asks for the dialog no sooner than the key that opens it.
    page.on("filechooser", lambda _: None)
    page.goto(demo.url)
    path = make_file(tmp_path, 10)
    for _ in range(4):
        page.keyboard.press("Tab")
    expect(picker(page)).to_be_focused()
    with page.expect_file_chooser() as asked:
        page.keyboard.press("Enter")
    asked.value.set_files(path)
    expect(entry(page, path.name)).to_be_visible()
    expect(picker(page)).to_be_focused()
    for _ in range(2):
        page.keyboard.press("Tab")
    expect(page.get_by_role("link", name=f"Download: {path.name}")).to_be_focused()
    assert download(page, lambda: page.keyboard.press("Enter")) == path.read_bytes()


@pytest.mark.parametrize(
    ("language", "title"), [("en", "Send large files"), ("de", "Große Dateien"), ("ru", "Большие файлы")]
)
def test_page_speaks_three_languages(page, demo, language, title):
    page.goto(demo.url)
    page.locator(f"a[lang={language}]").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(title)
    page.goto(demo.url)
    expect(page.get_by_role("heading", level=1)).to_contain_text(title)
    assert page.locator("html").get_attribute("lang") == language


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_screen_and_assistive_technology(browser, demo, tmp_path, scheme):
    with visit(browser, viewport={"width": 320, "height": 640}, color_scheme=scheme, bypass_csp=True) as page:
        page.goto(f"{demo.url}?chunkSize={CHUNK}")
        done = make_file(tmp_path, 10, "y" * 200)
        pick(page, done)
        assert_arrived(page, done)
        wire = Wire(page, open_for=2)
        pick(page, make_file(tmp_path, 5 * CHUNK, "x" * 200))
        wire.wait_for(2)
        page.evaluate(AXE.read_text())
        for width in (320, 1280):
            page.set_viewport_size({"width": width, "height": 640})
            assert sticking_out(page, width) == []
            assert faults(page) == []
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0] < 128")
        assert dark == (scheme == "dark")


def test_page_works_without_javascript(browser, demo, tmp_path):
    with visit(browser, java_script_enabled=False) as page:
        page.goto(demo.url)
        path = make_file(tmp_path, 100)
        page.locator("input[type=file]").set_input_files(path)
        page.get_by_role("button", name="Upload", exact=True).click()
        page.get_by_role("link", name="Back").click()
        assert download(page, page.get_by_role("link", name=f"Download: {path.name}").click) == path.read_bytes()


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
