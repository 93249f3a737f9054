"""The class that sends files, in a real browser against a real server."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Page, Route

from chromium import PATIENCE
from links import BreakingLink
from proxies import Nginx
from servers import Gunicorn, wait_until
from visitors import CHUNK, MARKUP, Wire, chunk_number, drop, make_file

APP = "page_host:app()"
TWO_UPLOADERS = """async () => {
    const file = new File([new Uint8Array(300_000)], 'same.tif', { lastModified: 1 });
    make({ chunkSize: 65536 });
    uploader.add([file]);
    window.first = uploader;
    while (!first.items[0].identifier) await Promise.resolve();
    make({ chunkSize: 65536 });
    uploader.add([file]);
}"""
BOTH_UIDS = "Promise.all([first, uploader].map(u => u.items[0].done.then(result => result.uploadUid)))"


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Gunicorn]:
    folder = tmp_path_factory.mktemp("server") / "uploads"
    settings = {"UPLOAD_HELPER_DURABILITY": "none", "UPLOAD_HELPER_ALLOWED_EXTENSIONS": ["tif", "shp", "bin"]}
    with Gunicorn(folder, app=APP, UPLOAD_HELPER_MAX_FILE_SIZE=16 << 20, **settings) as running:
        yield running


@pytest.fixture
def context(browser: Browser, server: Gunicorn) -> Iterator[BrowserContext]:
    """Return the browser of a new visitor; a script error on one of its pages fails the test."""
    errors: list[object] = []
    opened = browser.new_context()
    opened.set_default_timeout(PATIENCE)
    opened.on("weberror", lambda error: errors.append(error.error))
    # Ports share their cookies.
    opened.add_cookies([{"name": "user", "value": os.urandom(8).hex(), "url": server.origin}])
    yield opened
    opened.close()
    assert not errors


@pytest.fixture
def page(context: BrowserContext, server: Gunicorn) -> Page:
    """Return a page with the class in it."""
    opened = context.new_page()
    # Nobody is asked whether the page may be left in mid-upload.
    opened.on("dialog", lambda dialog: dialog.accept())
    visit(opened, server)
    return opened


def visit(page: Page, server: Gunicorn, **options: object) -> None:
    """Open the page, and make an Uploader on it."""
    page.goto(f"{server.origin}/pages/uploader.html")
    page.wait_for_function("window.ready")
    make(page, **options)


def make(page: Page, **options: object) -> None:
    page.evaluate("options => make(options)", {"chunkSize": CHUNK, "parallel": 3, **options})


def pick(page: Page, *paths: Path) -> None:
    page.set_input_files("#files", paths)


def wait(page: Page, state: str, *, index: int = 0) -> dict:
    """Wait until a file is in a state; return the file."""
    page.wait_for_function("([state, index]) => uploader.items[index]?.state === state", arg=[state, index])
    return item(page, index)


def item(page: Page, index: int = 0) -> dict:
    return page.evaluate(
        """index => {
            const { name, path, size, state, bytes, speed, secondsLeft, uploadUid, error, identifier } = uploader.items[index];
            const { code, status, message, remedy, retryAfter, permanent } = error ?? {};
            const shown = error && { code, status, message, remedy, retryAfter, permanent };
            return { name, path, size, state, bytes, speed, secondsLeft, uploadUid, identifier, error: shown };
        }""",
        index,
    )


def heard(page: Page, kind: str = "state") -> list[str]:
    """Return the states that a file went through, or the names of the files of another kind of event."""
    events = page.evaluate("heard")
    return [event["state" if kind == "state" else "name"] for event in events if event["type"] == kind]


def uploads(page: Page, server: Gunicorn) -> list[dict]:
    return page.request.get(f"{server.url}").json()["uploads"]


def stored(page: Page, server: Gunicorn, index: int = 0) -> bytes:
    """Return the file as the server has it, once it is done."""
    page.wait_for_function("index => ['done', 'failed'].includes(uploader.items[index]?.state)", arg=index)
    assert item(page, index)["error"] is None
    result = page.evaluate("index => uploader.items[index].done", index)
    assert result["url"] == f"/uploads/{result['uploadUid']}"
    return page.request.get(server.origin + result["url"]).body()


def storage(page: Page) -> list[str]:
    return page.evaluate("Object.keys(localStorage).filter((key) => !key.endsWith(':speed'))")


def refusal(status: int, code: str = "", **headers: str) -> dict:
    """Return an answer of the server; without a code, one of somebody in between who knows nothing of uploads."""
    said = json.dumps({"error": "No.", "code": code, "remedy": "Ask."}) if code else "<h1>Out of order</h1>"
    return {"status": status, "body": said, "headers": {name.replace("_", "-"): text for name, text in headers.items()}}


class Line(Wire):
    """A wire that a test can also close again, and answer on in the server's place."""

    act: Callable[[Route], object] | None = None
    """Takes what would go through."""

    def close(self, after: int = 0) -> None:
        """Hold what comes after so many more."""
        self._left = after

    def wait_held(self, count: int = 1) -> None:
        """Wait until so many chunks are held."""
        self.until(lambda: len(self._held) >= count)

    def until(self, condition: Callable[[], object]) -> None:
        """Wait for a condition, while the page goes on."""
        wait_until(lambda: self._page.wait_for_timeout(5) or condition(), what="what the page does")

    def take_held(self) -> list[Route]:
        """Return what is held, to do something else with it."""
        held, self._held = self._held, []
        return held

    def answer(self, count: int, **answer: object) -> list[int]:
        """Answer the next chunks in the server's place, so many; return the list of their numbers, which grows."""
        numbers: list[int] = []

        def act(route: Route) -> None:
            if len(numbers) < count:
                numbers.append(chunk_number(route.request))
                route.fulfill(**answer)
            else:
                route.continue_()

        self.act = act
        return numbers

    def _pass(self, route: Route) -> None:
        if self.act is None or self._left <= 0:
            super()._pass(route)
        else:
            self._left -= 1
            self.act(route)


# --- what arrives ---


@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1, 12 * CHUNK - 1])
def test_file_arrives(page, server, tmp_path, size):
    wire = Line(page)
    path = make_file(tmp_path, size)
    pick(page, path)
    assert stored(page, server) == path.read_bytes()
    assert sorted(wire.sent) == list(range(max(1, -(-size // CHUNK))))
    assert item(page)["bytes"] == size
    assert heard(page) == ["uploading", *(["finishing"] if size else []), "done"]
    assert page.evaluate("uploader.progress") == {"bytes": size, "total": size, "speed": 0, "secondsLeft": None}
    assert storage(page) == []


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (MARKUP, None),
        ("日本 Straße & 100 % + ?#.shp", None),
        (unicodedata.normalize("NFD", "Übergröße.tif"), "Übergröße.tif"),
        ("Я" * 120 + ".tif", None),
    ],
)
def test_any_name(page, server, tmp_path, name, shown):
    pick(page, make_file(tmp_path, CHUNK + 1, name))
    assert stored(page, server) == (tmp_path / name).read_bytes()
    (upload,) = uploads(page, server)
    assert upload["fileName"] == page.evaluate("uploader.items[0].done")["fileName"] == (shown or name)


def test_name_that_is_too_long_for_the_server_is_cut_before_its_extension(page, server):
    page.evaluate("uploader.add([new File(['x'], 'Я'.repeat(200) + '.tif')])")
    assert stored(page, server) == b"x"
    assert uploads(page, server)[0]["fileName"] == "Я" * 125 + ".tif"


def test_files_share_the_places_in_their_order(page, server, tmp_path):
    wire = Line(page, open_for=0)
    paths = [make_file(tmp_path, size, f"{size}.bin") for size in (2 * CHUNK, 10, 11, 12)]
    pick(page, *paths)
    wire.wait_held(3)
    # Each begins as soon as there is a place; then the earliest one comes first.
    assert page.evaluate("uploader.items.map(i => i.state)") == ["uploading", "uploading", "uploading", "waiting"]
    assert wire.sent == [0, 0, 0]
    wire.open(count=2)
    wire.wait_for(2)
    wire.wait_held(3)
    assert sorted(wire.sent) == [0, 0, 0, 0, 1]
    wire.open()
    for index, path in enumerate(paths):
        assert stored(page, server, index) == path.read_bytes()
    assert heard(page, "done")[-1] in {p.name for p in paths}
    page.wait_for_function("heard.at(-1).type === 'idle'")
    assert page.evaluate("heard.filter(e => e.type === 'idle').length") == 1


@pytest.mark.parametrize("how", ["picked", "dropped"])
def test_folder_arrives_with_its_paths(page, server, tmp_path, how):
    root = tmp_path / "photos"
    for name in ("a.tif", "2024/b.tif", "2024/may/c.tif"):
        make_file(root, 10, name)
    for number in range(120):
        make_file(root / "many", 0, f"{number}.bin")
    page.evaluate("uploader.options.autoStart = false")
    if how == "picked":
        page.set_input_files("#folder", root)
    else:
        drop(page, root, make_file(tmp_path, 5, "single.tif"))
    page.wait_for_function("count => uploader.items.length === count", arg=123 + (how == "dropped"))
    found = {(i["path"], i["name"]) for i in page.evaluate("uploader.items.map(({path, name}) => ({path, name}))")}
    wanted = {("photos", "a.tif"), ("photos/2024", "b.tif"), ("photos/2024/may", "c.tif")}
    wanted |= {("photos/many", f"{number}.bin") for number in range(120)}
    assert found == wanted | ({("", "single.tif")} if how == "dropped" else set())


def test_files_alike_in_name_size_and_time_are_two_uploads(page, server):
    page.evaluate("uploader.add(['one', 'two'].map(text => new File([text], 'same.tif', { lastModified: 1 })))")
    assert [stored(page, server, index) for index in (0, 1)] == [b"one", b"two"]


# --- stopping, and going on ---


def test_pause_stops_and_resume_sends_what_is_missing(page, server, tmp_path):
    wire = Line(page, open_for=4)
    path = make_file(tmp_path, 12 * CHUNK)
    pick(page, path)
    there = wire.wait_for(4)
    wire.wait_held(3)
    page.evaluate("uploader.pause()")
    assert wait(page, "paused")["bytes"] == 4 * CHUNK
    assert page.evaluate("[uploader.progress.speed, uploader.busy]") == [0, False]
    (upload,) = uploads(page, server)
    assert upload["receivedBytes"] == 4 * CHUNK
    wire.sent.clear()
    wire.open(reloaded=True)
    page.evaluate("uploader.resume()")
    assert stored(page, server) == path.read_bytes()
    assert sorted(wire.sent) == sorted(set(range(12)) - there)
    assert heard(page) == ["uploading", "paused", "waiting", "checking", "uploading", "finishing", "done"]


def test_pause_and_resume_at_once_loses_nothing(page, server, tmp_path):
    path = make_file(tmp_path, 12 * CHUNK)
    pick(page, path)
    for _ in range(5):
        page.evaluate("uploader.items[0].pause(); uploader.items[0].resume(); uploader.items[0].resume()")
    assert stored(page, server) == path.read_bytes()
    assert heard(page, "done") == [path.name]


def test_files_wait_for_the_start(page, server, tmp_path):
    page.evaluate("uploader.options.autoStart = false")
    wire = Line(page)
    path = make_file(tmp_path, 10)
    pick(page, path)
    assert wait(page, "waiting")["bytes"] == 0
    page.evaluate("fetch('/uploads')")
    assert wire.sent == []
    page.evaluate("uploader.start()")
    assert stored(page, server) == path.read_bytes()


def test_reload_in_the_middle_sends_only_what_is_missing(page, server, tmp_path):
    wire = Line(page, open_for=5)
    path = make_file(tmp_path, 12 * CHUNK, MARKUP)
    pick(page, path)
    there = wire.wait_for(5)
    wire.wait_held(3)
    visit(page, server)
    (left,) = page.evaluate("uploader.unfinished()")
    assert (left["name"], left["size"], left["received"], left["path"]) == (MARKUP, 12 * CHUNK, 5 * CHUNK, "")
    wire.sent.clear()
    wire.open(reloaded=True)
    # Another size for new uploads does not change what was begun.
    page.evaluate("uploader.options.chunkSize = 1000")
    pick(page, path)
    assert stored(page, server) == path.read_bytes()
    assert sorted(wire.sent) == sorted(set(range(12)) - there)
    assert page.evaluate("uploader.unfinished()") == []
    assert len(uploads(page, server)) == 1


def test_crashed_tab_goes_on_in_another(page, context, server, tmp_path):
    wire = Line(page, open_for=5)
    path = make_file(tmp_path, 12 * CHUNK)
    pick(page, path)
    there = wire.wait_for(5)
    with page.expect_event("crash"), suppress(Error):
        page.goto("chrome://crash")
    page = context.new_page()
    visit(page, server)
    wire = Line(page)
    pick(page, path)
    assert stored(page, server) == path.read_bytes()
    assert sorted(wire.sent) == sorted(set(range(12)) - there)


def test_upload_whose_last_answer_was_lost_is_done_after_a_reload(page, server, tmp_path):
    wire = Line(page)
    path = make_file(tmp_path, 3 * CHUNK)
    page.route("**/uploads?identifier=*", lambda route: None)  # asked at the end
    pick(page, path)
    wire.wait_for(3)
    page.goto("about:blank")  # or it would ask once more, and be answered
    page.unroute("**/uploads?identifier=*")
    visit(page, server)
    assert page.evaluate("uploader.unfinished()")[0]["received"] == 3 * CHUNK
    wire.sent.clear()
    pick(page, path)
    assert stored(page, server) == path.read_bytes()
    assert wire.sent == []


def test_unfinished_upload_is_discarded(page, server, tmp_path):
    wire = Line(page, open_for=2)
    pick(page, make_file(tmp_path, 9 * CHUNK))
    wire.wait_for(2)
    visit(page, server)
    (left,) = page.evaluate("uploader.unfinished()")
    page.evaluate("identifier => uploader.discard(identifier)", left["identifier"])
    assert uploads(page, server) == []
    assert storage(page) == []
    assert page.evaluate("uploader.unfinished()") == []


def test_what_is_gone_on_the_server_begins_anew_after_a_reload(page, server, tmp_path):
    wire = Line(page, open_for=2)
    path = make_file(tmp_path, 9 * CHUNK)
    pick(page, path)
    wire.wait_for(2)
    visit(page, server)
    (left,) = page.evaluate("uploader.unfinished()")
    assert page.request.delete(f"{server.url}/{left['uploadUid']}").ok
    assert page.evaluate("uploader.unfinished()") == []
    wire.sent.clear()
    wire.open(reloaded=True)
    pick(page, path)
    assert stored(page, server) == path.read_bytes()
    assert sorted(wire.sent) == list(range(9))


def test_file_that_was_changed_since_is_another_upload(page, server, tmp_path):
    wire = Line(page, open_for=2)
    path = make_file(tmp_path, 9 * CHUNK)
    pick(page, path)
    wire.wait_for(2)
    visit(page, server)
    path.write_bytes(bytes(9 * CHUNK))
    os.utime(path, (1, 1))
    wire.sent.clear()
    wire.open(reloaded=True)
    pick(page, path)
    assert stored(page, server) == path.read_bytes()
    assert sorted(wire.sent) == list(range(9))


def test_page_without_storage_uploads(context, server, tmp_path):
    page = context.new_page()
    page.add_init_script("Object.defineProperty(window, 'localStorage', { get() { throw new Error('no'); } })")
    visit(page, server)
    path = make_file(tmp_path, 3 * CHUNK)
    pick(page, path)
    assert stored(page, server) == path.read_bytes()
    assert page.evaluate("uploader.unfinished()") == []


def test_storage_that_is_full_does_not_matter(page, server, tmp_path):
    page.evaluate("void (Storage.prototype.setItem = () => { throw new DOMException('full'); })")
    path = make_file(tmp_path, 3 * CHUNK)
    pick(page, path)
    assert stored(page, server) == path.read_bytes()


@pytest.mark.parametrize("moment", ["under way", "paused", "done"])
def test_cancelled_upload_is_deleted(page, server, tmp_path, moment):
    wire = Line(page, open_for=9 if moment == "done" else 4)
    pick(page, make_file(tmp_path, 9 * CHUNK))
    wire.wait_for(4)
    if moment == "paused":
        page.evaluate("uploader.pause()")
    if moment == "done":
        wait(page, "done")
    assert len(uploads(page, server)) == 1
    page.evaluate("window.first = uploader.items[0]; first.cancel()")
    assert uploads(page, server) == []
    assert storage(page) == []
    assert page.evaluate("[first.state, uploader.items.length, heard.at(-2).type, heard.at(-1).type]") == [
        "cancelled", 0, *(["remove", "idle"] if moment != "done" else ["state", "remove"]),
    ]  # fmt: skip
    outcome = page.evaluate("first.done.then(() => 'done', error => error.code)")
    assert outcome == ("done" if moment == "done" else "cancelled")


def test_cancelling_before_the_first_answer_deletes_what_comes_of_it(page, server, tmp_path):
    wire = Line(page, open_for=0)
    pick(page, make_file(tmp_path, 3 * CHUNK))
    wire.wait_held(3)
    page.clock.install()
    page.evaluate("window.cancelled = uploader.cancel()")
    page.clock.fast_forward(3000)
    page.evaluate("cancelled")
    assert storage(page) == []


def test_cancelling_without_a_connection_is_made_good_later(page, context, server, tmp_path):
    wire = Line(page, open_for=4)
    path = make_file(tmp_path, 9 * CHUNK)
    pick(page, path)
    wire.wait_for(4)
    context.set_offline(True)
    page.evaluate("uploader.cancel()")
    context.set_offline(False)
    assert len(uploads(page, server)) == 1
    visit(page, server)
    assert page.evaluate("uploader.unfinished()") == []
    assert uploads(page, server) == []
    assert storage(page) == []


def test_cancelling_what_is_done_without_a_connection_is_made_good_later(page, context, server, tmp_path):
    pick(page, make_file(tmp_path, 3 * CHUNK))
    wait(page, "done")
    context.set_offline(True)
    page.evaluate("uploader.cancel()")
    context.set_offline(False)
    assert len(uploads(page, server)) == 1
    visit(page, server)
    assert page.evaluate("uploader.unfinished()") == []
    assert uploads(page, server) == []
    assert storage(page) == []


def test_chunk_that_lands_after_all_was_cancelled_leaves_nothing(page, server, tmp_path):
    wire = Line(page, open_for=1)
    path = make_file(tmp_path, 3 * CHUNK)
    pick(page, path)
    wire.wait_for(1)
    wire.wait_held(2)
    late = wire.take_held()[0].request
    content = path.read_bytes()[chunk_number(late) * CHUNK :][:CHUNK]
    headers = {"Content-Type": "application/octet-stream", "X-Upload-Helper": "1"}
    landed = []

    def land(route: Route) -> None:
        """Delete, and let arrive what was sent before the first answer, so without the uid of what is deleted."""
        answer = route.fetch()
        if not landed:
            assert page.request.post(late.url, data=content, headers=headers).ok
            landed.extend(uploads(page, server))
        route.fulfill(response=answer)

    page.route("**/uploads/*", land)
    page.clock.install()
    page.evaluate("void uploader.cancel().then(() => { window.cancelled = true; })")
    wire.until(lambda: page.clock.run_for(1000) or page.evaluate("window.cancelled"))
    assert len(landed) == 1
    assert uploads(page, server) == []
    assert storage(page) == []


def test_many_are_deleted_a_few_at_a_time(page, server):
    page.evaluate("uploader.add(Array.from({ length: 6 }, (_, n) => new File(['x'], `${n}.tif`)))")
    page.wait_for_function("uploader.items.every(item => item.state === 'done')")
    held: list[Route] = []
    page.route("**/uploads/*", lambda route: held.append(route))  # noqa: PLW0108 - a builtin is not taken
    page.evaluate("void uploader.cancel().then(() => { window.cancelled = true; })")
    for _ in range(3):
        wait_until(
            lambda: page.evaluate("fetch('/pages/uploader.html').then(() => true)") and len(held) >= 2, what="requests"
        )
        assert len(held) == 2
        batch, held[:] = held[:], []
        for route in batch:
            route.continue_()
    page.wait_for_function("window.cancelled")
    assert uploads(page, server) == []


def test_cancelling_before_the_start_leaves_alone_what_another_tab_is_at(page, context, server, tmp_path):
    wire = Line(page, open_for=2)
    path = make_file(tmp_path, 6 * CHUNK)
    pick(page, path)
    wire.wait_for(2)
    other = context.new_page()
    visit(other, server, autoStart=False)
    pick(other, path)
    other.evaluate("uploader.cancel()")
    wire.open()
    assert stored(page, server) == path.read_bytes()


def test_page_asks_before_it_is_left_in_mid_upload(page, server, tmp_path):
    def asks() -> bool:
        return page.evaluate("!dispatchEvent(new Event('beforeunload', { cancelable: true }))")

    assert not asks()
    wire = Line(page, open_for=0)
    pick(page, make_file(tmp_path, CHUNK))
    wire.wait_held()
    assert asks()
    # What browsers of early 2023 look at.
    assert page.evaluate(
        """() => {
            const event = document.createEvent("BeforeUnloadEvent");
            event.initEvent("beforeunload", false, true);
            dispatchEvent(event);
            return event.returnValue;
        }"""
    )
    page.evaluate("uploader.pause()")
    assert asks()
    wire.open(reloaded=True)
    page.evaluate("uploader.resume()")
    wait(page, "done")
    wire.until(lambda: not asks())


# --- what goes wrong, and passes ---


def test_server_killed_in_mid_upload_and_started_again(context, tmp_path):
    path = make_file(tmp_path, 12 * CHUNK)
    with Gunicorn(tmp_path / "uploads", app=APP, UPLOAD_HELPER_DURABILITY="none") as server:
        page = context.new_page()
        visit(page, server)
        wire = Line(page, open_for=6)
        pick(page, path)
        there = wire.wait_for(6)
        wire.wait_held(3)
        server.kill()
        sent = len(wire.sent)
        for route in wire.take_held():
            route.abort("connectionreset")
        error = wait(page, "retrying")["error"]
        assert (error["code"], error["permanent"]) == ("no_connection", False)
        wire.open()
        server.start()
        assert stored(page, server) == path.read_bytes()
    assert sorted(wire.sent[sent:]) == sorted(set(range(12)) - there)


def test_offline_and_online(page, context, server, tmp_path):
    wire = Line(page, open_for=4)
    path = make_file(tmp_path, 12 * CHUNK)
    pick(page, path)
    there = wire.wait_for(4)
    wire.wait_held(3)
    sent = len(wire.sent)
    context.set_offline(True)
    wire.open()
    assert wait(page, "offline")["bytes"] == 4 * CHUNK
    context.set_offline(False)
    assert stored(page, server) == path.read_bytes()
    assert there.isdisjoint(wire.sent[sent:])
    assert heard(page)[-4:] == ["offline", "uploading", "finishing", "done"]


@pytest.mark.parametrize(
    "answer",
    [
        refusal(400, "body_cut"),
        refusal(408, "body_stalled"),
        refusal(409, "superseded"),
        refusal(422, "checksum_mismatch"),
        refusal(429),
        refusal(500, "storage_error"),
        refusal(502),
        refusal(503, "service_unavailable"),
    ],
    ids=lambda answer: str(answer["status"]),
)
def test_error_that_passes_is_tried_again(page, server, tmp_path, answer):
    wire = Line(page)
    refused = wire.answer(1, **answer)
    path = make_file(tmp_path, 4 * CHUNK)
    pick(page, path)
    assert stored(page, server) == path.read_bytes()
    assert sorted(wire.sent) == sorted([*range(4), *refused])
    assert heard(page)[:3] == ["uploading", "retrying", "uploading"]
    assert item(page)["bytes"] == 4 * CHUNK


def test_full_disk_is_waited_for_as_long_as_the_server_says(page, server, tmp_path):
    page.clock.install()
    wire = Line(page)
    wire.answer(100, **refusal(507, "storage_full", Retry_After="60"))
    path = make_file(tmp_path, CHUNK)
    pick(page, path)
    error = wait(page, "retrying")["error"]
    assert (error["code"], error["message"], error["remedy"], error["status"]) == ("storage_full", "No.", "Ask.", 507)
    assert 60 <= error["retryAfter"] <= 63
    wire.act = None
    page.clock.run_for(59_900)
    assert wire.sent == [0]
    page.clock.run_for(3_200)
    assert stored(page, server) == path.read_bytes()
    assert wire.sent == [0, 0]


def test_older_request_that_succeeds_does_not_end_the_wait(page, server, tmp_path):
    page.clock.install()
    wire = Line(page, open_for=0)
    path = make_file(tmp_path, 4 * CHUNK)
    pick(page, path)
    wire.wait_held(3)
    refused, *others = wire.take_held()
    wire.open()
    refused.fulfill(**refusal(503, Retry_After="60"))
    wire.until(lambda: page.evaluate("heard.length") and not page.evaluate("uploader.items[0].error"))
    for route in others:
        route.continue_()
    wait(page, "retrying")
    page.clock.run_for(55_000)
    assert len(wire.sent) == 3
    page.clock.run_for(10_000)
    assert stored(page, server) == path.read_bytes()


def test_connection_that_comes_back_does_not_end_the_wait_that_the_server_wants(page, server, tmp_path):
    wire = Line(page)
    wire.answer(1, **refusal(503, Retry_After="3000"))
    pick(page, make_file(tmp_path, CHUNK))
    wait(page, "retrying")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.evaluate("dispatchEvent(new Event('online'))")
    page.evaluate("fetch('/pages/uploader.html').then(() => fetch('/pages/uploader.html')).then(() => true)")
    assert len(asked) == 2


def test_clock_that_is_set_back_lengthens_no_wait(page, server, tmp_path):
    wire = Line(page)
    wire.answer(1, **refusal(503))
    path = make_file(tmp_path, CHUNK)
    page.evaluate(
        """uploader.addEventListener('state', ({ detail }) => {
            if (detail.item.state === 'retrying') Date.now = () => performance.timeOrigin + performance.now() - 3_600_000;
        })"""
    )
    pick(page, path)
    assert stored(page, server) == path.read_bytes()


def test_server_that_never_finishes_is_asked_ever_more_seldom(page, tmp_path):
    page.clock.install()
    wire = Line(page)

    def unfinished(route: Route) -> None:
        route.fulfill(json={**route.fetch().json(), "state": "open"})

    page.route("**/uploads?identifier=*", unfinished)
    pick(page, make_file(tmp_path, 3 * CHUNK))
    page.evaluate("window.waits = []")
    page.evaluate(
        """uploader.addEventListener('state', ({ detail: { item } }) => {
            if (item.state === 'retrying') waits.push([item.error.code, item.error.retryAfter]);
        })"""
    )
    wire.until(lambda: page.clock.run_for(1000) or page.evaluate("waits.length") >= 5)
    waits = page.evaluate("waits")[:5]
    assert {code for code, _ in waits} == {"incomplete"}
    for number, (_, seconds) in enumerate(waits):
        assert 0.25 * 2**number <= seconds <= 0.5 * 2**number, waits
    assert sorted(wire.sent)[:3] == [0, 1, 2]
    assert set(wire.sent[3:]) == {2}


def test_waiting_ends_when_the_person_says_so(page, server, tmp_path):
    wire = Line(page)
    wire.answer(1, **refusal(503, Retry_After="3000"))
    path = make_file(tmp_path, CHUNK)
    pick(page, path)
    assert wait(page, "retrying")["error"]["retryAfter"] > 2999
    page.evaluate("uploader.items[0].retry()")
    assert stored(page, server) == path.read_bytes()


def test_date_to_try_again_at_is_understood(page, server, tmp_path):
    wire = Line(page)
    wire.answer(1, **refusal(503, Retry_After="Wed, 21 Oct 2099 07:28:00 GMT"))
    pick(page, make_file(tmp_path, CHUNK))
    assert 3600 <= wait(page, "retrying")["error"]["retryAfter"] < 4000


def test_pauses_grow_and_all_files_keep_them(page, server, tmp_path):
    page.clock.install(time=0)
    page.clock.pause_at(1000)
    wire = Line(page)
    wire.answer(10_000, **refusal(503))
    page.route("**/uploads?identifier=*", lambda route: route.fulfill(**refusal(503)))
    page.evaluate("""() => {
        [window.seen, window.underWay] = [new Set(), 0];
        const { send } = XMLHttpRequest.prototype;
        XMLHttpRequest.prototype.send = function (...given) {
            underWay++;
            this.addEventListener("loadend", () => underWay--);
            send.apply(this, given);
        };
    }""")
    pick(page, *(make_file(tmp_path, CHUNK, f"{number}.bin") for number in range(20)))
    pauses: list[float] = []
    # Of errors that were not there before, once nothing is under way: requests fail one by one, and count together.
    fresh = """() => {
        const busy = ["checking", "uploading", "finishing"];
        if (underWay || uploader.items.some(item => busy.includes(item.state))) return 0;
        const errors = uploader.items.map(item => item.error).filter(error => error?.retryAfter && !seen.has(error));
        for (const error of errors) seen.add(error);
        return Math.max(0, ...errors.map(error => error.retryAfter));
    }"""
    for _ in range(9):
        wire.until(lambda: (pause := page.evaluate(fresh)) and not pauses.append(pause))
        page.clock.run_for(1000 * pauses[-1] + 1)
    assert wire.sent != []
    assert len(wire.sent) <= 40
    # One that had its place already, and was hashed still, counts as another failure.
    for number, pause in enumerate(pauses[:6]):
        assert 0.25 * 2**number <= pause <= 2**number, pauses
    assert all(15 <= pause <= 30 for pause in pauses[7:]), pauses


def test_tries_are_counted_where_somebody_wants_that(page, server, tmp_path):
    make(page, retries=2)
    page.clock.install()
    wire = Line(page)
    wire.answer(100, **refusal(500, "storage_error"))
    pick(page, make_file(tmp_path, CHUNK))
    wire.until(lambda: page.clock.run_for(1000) or item(page)["state"] == "failed")
    assert wire.sent == [0, 0, 0]
    assert item(page)["error"]["code"] == "storage_error"


def test_chunk_that_was_changed_on_the_way_is_sent_again(page, server, tmp_path):
    wire = Line(page)
    spoilt = []

    def spoil(route: Route) -> None:
        if spoilt:
            route.continue_()
        else:
            spoilt.append(route)
            route.continue_(post_data=bytes(CHUNK))

    wire.act = spoil
    path = make_file(tmp_path, 4 * CHUNK)
    pick(page, path)
    assert stored(page, server) == path.read_bytes()
    assert len(wire.sent) == 5
    assert "retrying" in heard(page)


def test_bytes_that_are_always_changed_on_the_way_are_given_up(page, server, tmp_path):
    page.clock.install()
    wire = Line(page)
    wire.act = lambda route: route.continue_(post_data=bytes(CHUNK))
    pick(page, make_file(tmp_path, CHUNK))
    wire.until(lambda: page.clock.run_for(1000) or item(page)["state"] == "failed")
    assert item(page)["error"]["code"] == "checksum_mismatch"


def test_stalled_chunk_is_sent_again_after_a_sleep(page, server, tmp_path):
    page.clock.install()
    wire = Line(page, open_for=2)
    path = make_file(tmp_path, 4 * CHUNK)
    pick(page, path)
    there = wire.wait_for(2)
    wire.wait_held(2)
    # A lid that is closed for ten minutes.
    page.clock.fast_forward("10:00")
    assert wait(page, "retrying")["error"]["code"] == "stalled"
    wire.open(reloaded=True)
    wire.sent.clear()
    page.clock.run_for(1000)
    assert stored(page, server) == path.read_bytes()
    assert sorted(wire.sent) == sorted(set(range(4)) - there)


def test_chunk_that_waits_long_but_moves_is_left_alone(page, server, tmp_path):
    page.clock.install()
    wire = Line(page, open_for=0)
    path = make_file(tmp_path, CHUNK)
    pick(page, path)
    wire.wait_held()
    page.clock.run_for(25_000)
    wire.open()
    assert stored(page, server) == path.read_bytes()
    assert wire.sent == [0]


def test_two_tabs_with_one_file_do_not_get_in_each_others_way(page, context, server, tmp_path):
    wire = Line(page, open_for=2)
    path = make_file(tmp_path, 12 * CHUNK)
    pick(page, path)
    wire.wait_for(2)
    other = context.new_page()
    visit(other, server)
    assert other.evaluate("uploader.unfinished()") == []
    pick(other, path)
    assert stored(other, server) == path.read_bytes()
    page.evaluate("uploader.pause()")
    assert other.evaluate("uploader.unfinished()") == []
    wire.open(reloaded=True)
    page.evaluate("uploader.resume()")
    assert stored(page, server) == path.read_bytes()
    assert len(uploads(page, server)) == 2


def test_two_uploaders_with_one_file_make_two_uploads(page, server, tmp_path):
    page.evaluate(TWO_UPLOADERS)
    assert len(set(page.evaluate(BOTH_UIDS))) == 2


def test_page_without_locks_and_digests_uploads(context, server, tmp_path):
    page = context.new_page()
    # As on plain HTTP.
    for owner, name in [
        ("Crypto", "subtle"),
        ("Crypto", "randomUUID"),
        ("Navigator", "locks"),
        ("Navigator", "wakeLock"),
    ]:
        page.add_init_script(f"Object.defineProperty({owner}.prototype, '{name}', {{ value: undefined }})")
    visit(page, server, wakeLock=True)
    addresses = []
    page.on("request", lambda request: addresses.append(request.url))
    path = make_file(tmp_path, 3 * CHUNK)
    pick(page, path)
    assert stored(page, server) == path.read_bytes()
    assert page.evaluate("uploader.unfinished()") == []
    assert not any("checksum" in address for address in addresses)
    page.evaluate(TWO_UPLOADERS)
    assert len(set(page.evaluate(BOTH_UIDS))) == 2


def test_page_that_is_refused_locks_uploads(context, server, tmp_path):
    page = context.new_page()
    # As in a frame without an origin of its own.
    page.add_init_script(
        """for (const name of ['request', 'query']) {
            LockManager.prototype[name] = () => Promise.reject(new DOMException('no', 'SecurityError'));
        }"""
    )
    visit(page, server)
    path = make_file(tmp_path, 3 * CHUNK)
    pick(page, path)
    assert stored(page, server) == path.read_bytes()
    assert page.evaluate("uploader.unfinished()") == []


def test_functions_of_younger_browsers_are_not_needed(context, server, tmp_path):
    page = context.new_page()
    page.add_init_script(
        "delete Promise.withResolvers; delete AbortSignal.any; delete Array.fromAsync; delete Promise.try;"
    )
    visit(page, server)
    path = make_file(tmp_path, 3 * CHUNK)
    pick(page, path)
    assert stored(page, server) == path.read_bytes()


@pytest.mark.parametrize(
    ("endpoint", "address"),
    [
        ("../uploads", "/uploads/{}"),
        ("../uploads/", "/uploads/{}"),
        ("/uploads?tenant=a+b", "/uploads/{}?tenant=a+b"),
        ("{origin}/uploads#here", "/uploads/{}"),
    ],
)
def test_endpoint_as_hosts_write_it(page, server, tmp_path, endpoint, address):
    make(page, endpoint=endpoint.format(origin=server.origin))
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.evaluate("history.pushState(null, '', '/somewhere/else/entirely')")
    path = make_file(tmp_path, 3 * CHUNK)
    pick(page, path)
    wait(page, "done")
    result = page.evaluate("uploader.items[0].done")
    assert result["url"] == address.format(result["uploadUid"])
    assert page.request.get(server.origin + result["url"]).body() == path.read_bytes()
    page.evaluate("uploader.cancel()")
    assert uploads(page, server) == []
    assert asked != []
    assert all(("tenant=a+b" in url) == ("tenant" in endpoint) for url in asked), asked


def test_file_that_is_there_but_was_not_finished_is_finished_by_its_last_chunk(page, server, tmp_path):
    wire = Line(page)
    asked = []

    def unfinished(route: Route) -> None:
        answer = route.fetch().json()
        asked.append(answer["state"])
        # What a server says that died before it had finished the file.
        route.fulfill(json={**answer, "state": "open" if len(asked) == 1 else answer["state"]})

    page.route("**/uploads?identifier=*", unfinished)
    path = make_file(tmp_path, 3 * CHUNK)
    pick(page, path)
    assert stored(page, server) == path.read_bytes()
    assert sorted(wire.sent) == [0, 1, 2, 2]


def test_many_files_go_one_after_the_other(page, server):
    page.evaluate(
        "uploader.add(Array.from({ length: 2000 }, (_, n) => new File(n < 60 ? ['x'] : [], `${n}.${n < 60 ? 'tif' : 'no'}`)))"
    )
    page.wait_for_function("uploader.items.slice(0, 60).every(item => item.state === 'done')")
    page.evaluate("uploader.pause()")
    # What has not had its turn is nowhere yet.
    assert len(storage(page)) <= 10
    begun = dict.fromkeys(e["name"] for e in page.evaluate("heard") if e["state"] == "uploading")
    assert [int(name.partition(".")[0]) for name in begun][:60] == list(range(60))
    assert sorted(heard(page, "done")) == sorted(f"{n}.tif" for n in range(60))
    assert under_way_at_once(page) <= 6


def under_way_at_once(page: Page) -> int:
    """Return how many files at most had begun and not ended, of those that the page heard of."""
    under_way, most = set(), 0
    for event in page.evaluate("heard"):
        if event["type"] == "state":
            is_under_way = event["state"] in ("checking", "uploading", "finishing")
            (under_way.add if is_under_way else under_way.discard)(event["name"])
            most = max(most, len(under_way))
    return most


def test_files_that_come_one_by_one_cost_the_same_each(page):
    calls = page.evaluate(
        """() => {
            uploader.options.autoStart = false;
            const real = JSON.stringify;
            let calls = 0;
            JSON.stringify = (...what) => { calls += 1; return real(...what); };
            for (let n = 0; n < 500; n += 1) uploader.add([new File([], `${n}.tif`)]);
            JSON.stringify = real;
            return calls;
        }"""
    )
    assert calls <= 1000


def test_file_that_failed_goes_on_when_it_is_picked_again(page, server, tmp_path):
    wire = Line(page, open_for=4)
    path = make_file(tmp_path, 9 * CHUNK)
    pick(page, path)
    there = wire.wait_for(4)
    wire.wait_held(3)
    wire.answer(1, **refusal(403, "forbidden"))
    wire.open()
    wait(page, "failed")
    wire.act = None
    wire.sent.clear()
    pick(page, path)
    assert stored(page, server, 1) == path.read_bytes()
    # What was aborted when the other failed may have arrived.
    assert set(wire.sent).isdisjoint(there)
    assert len(wire.sent) == len(set(wire.sent))


# --- what goes wrong, and needs a person ---


@pytest.mark.parametrize(
    ("name", "size", "options", "status", "code"),
    [
        ("large.tif", (16 << 20) + 1, {"chunkSize": 1 << 20}, 413, "too_large"),
        ("picture.exe", 10, {}, 415, "unsupported_type"),
        ("survey.tif", 10, {"headers": {"X-Role": "none"}}, 403, "forbidden"),
    ],
)
def test_refusal_of_the_server_ends_it(page, server, tmp_path, name, size, options, status, code):
    make(page, **options)
    wire = Line(page)
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(size)
    pick(page, path)
    error = wait(page, "failed")["error"]
    assert (error["status"], error["code"], error["permanent"]) == (status, code, True)
    assert error["message"]
    assert error["remedy"]
    page.wait_for_function("heard.at(-1).type === 'idle'")
    assert heard(page, "error") == [name]
    assert page.evaluate("uploader.items[0].done.catch(error => error.code)") == code
    assert len(wire.sent) <= 3
    # A file of which the server has nothing is not worth to be remembered.
    assert size > CHUNK or storage(page) == []


@pytest.mark.parametrize(
    ("options", "name", "kind", "size", "code"),
    [
        ({"maxFileSize": 10}, "a.tif", "", 10, None),
        ({"maxFileSize": 10}, "a.tif", "", 11, "too_large"),
        ({"accept": ".TIF, image/*,application/pdf"}, "a.Tif", "", 1, None),
        ({"accept": ".TIF, image/*,application/pdf"}, "a.bin", "image/png", 1, None),
        ({"accept": ".TIF, image/*,application/pdf"}, "a.bin", "application/pdf", 1, None),
        ({"accept": ".TIF, image/*,application/pdf"}, "a.bin", "application/zip", 1, "unsupported_type"),
        ({"accept": ".TIF, image/*,application/pdf"}, "a.bin", "", 1, "unsupported_type"),
        ({"accept": "*/*"}, "a.bin", "", 1, None),
    ],
)
def test_what_the_page_does_not_take_is_not_sent(page, options, name, kind, size, code):
    make(page, **options)
    wire = Line(page)
    page.evaluate(
        "([name, type, size]) => uploader.add([new File([new Uint8Array(size)], name, { type })])", [name, kind, size]
    )
    found = wait(page, "failed" if code else "done")
    assert (found["error"] or {}).get("code") == code
    page.wait_for_function("heard.at(-1).type === 'idle'")
    page.evaluate("uploader.items[0].retry()")
    assert item(page)["state"] == found["state"]
    assert len(wire.sent) == (0 if code else 1)


def test_file_that_is_refused_may_be_taken_away_at_once(page):
    make(page, accept=".png")
    page.evaluate("uploader.addEventListener('add', ({ detail }) => detail.item.cancel())")
    state = page.evaluate("uploader.add([new File([], 'a.tif')])[0].state")
    assert state == "cancelled"


def test_file_of_a_folder_that_can_not_be_read_is_told(page):
    page.evaluate(
        """async () => {
            const file = { name: 'locked.tif', isFile: true, file: (_, reject) => reject(new DOMException('no')) };
            const good = { name: 'good.tif', isFile: true, file: (resolve) => resolve(new File([], 'good.tif')) };
            const entries = [[file, good], []];
            const folder = { name: 'photos', createReader: () => ({ readEntries: (take) => take(entries.shift()) }) };
            const locked = { name: 'private', createReader: () => ({ readEntries: (_, reject) => reject() }) };
            const items = [folder, locked].map((entry) => ({ kind: 'file', webkitGetAsEntry: () => entry }));
            uploader.add(await exported.filesOf({ items }));
        }"""
    )
    assert wait(page, "failed")["error"]["code"] == "file_changed"
    assert (item(page)["path"], item(page)["name"]) == ("photos", "locked.tif")
    assert wait(page, "done", index=1)["name"] == "good.tif"
    assert wait(page, "failed", index=2)["name"] == "private"


def test_permission_that_is_lost_in_mid_upload_and_given_back(page, server, tmp_path):
    make(page)
    page.evaluate("window.role = 'all'; uploader.options.headers = () => ({ 'X-Role': role })")
    wire = Line(page, open_for=4)
    path = make_file(tmp_path, 12 * CHUNK)
    pick(page, path)
    there = wire.wait_for(4)
    wire.wait_held(3)
    page.evaluate("window.role = 'none'")
    wire.open()
    assert wait(page, "failed")["error"]["code"] == "forbidden"
    there = set(wire.acknowledged)
    page.evaluate("window.role = 'all'")
    wire.sent.clear()
    page.evaluate("uploader.items[0].retry()")
    assert stored(page, server) == path.read_bytes()
    assert sorted(wire.sent) == sorted(set(range(12)) - there)


@pytest.mark.parametrize("checksum", [True, False])
def test_file_that_is_changed_in_mid_upload_is_told(page, server, tmp_path, checksum):
    make(page, checksum=checksum)
    wire = Line(page, open_for=2)
    path = make_file(tmp_path, 9 * CHUNK)
    pick(page, path)
    wire.wait_for(2)
    wire.wait_held(3)
    path.write_bytes(bytes(9 * CHUNK))
    os.utime(path, (1, 1))
    wire.open()
    error = wait(page, "failed")["error"]
    assert (error["code"], error["permanent"]) == ("file_changed", True)
    assert "changed" in error["remedy"]


def test_folder_that_is_given_as_a_file_is_told(page):
    # What a browser without entries makes of a dropped folder.
    page.evaluate(
        """() => {
            const folder = new File(['x'], 'folder.tif');
            folder.slice = () => ({ size: 1, arrayBuffer: () => Promise.reject(new DOMException('', 'NotReadableError')) });
            uploader.add([folder]);
        }"""
    )
    assert wait(page, "failed")["error"]["code"] == "file_changed"


def test_upload_that_is_gone_after_a_lost_connection_may_be_so_to_who_has_signed_out(page, server, tmp_path):
    wire = Line(page, open_for=1)
    path = make_file(tmp_path, 3 * CHUNK)
    pick(page, path)
    wire.wait_for(1)
    wire.wait_held()
    (upload,) = uploads(page, server)
    assert page.request.delete(f"{server.url}/{upload['uploadUid']}").ok
    for route in wire.take_held():
        route.abort()
    error = wait(page, "failed")["error"]
    assert (error["code"], error["status"]) == ("not_found", 404)
    assert "If you are signed out" in error["remedy"]
    wire.open()
    page.evaluate("uploader.items[0].retry()")
    assert stored(page, server) == path.read_bytes()


def test_upload_that_is_deleted_meanwhile_can_be_sent_from_the_start(page, server, tmp_path):
    wire = Line(page, open_for=4)
    path = make_file(tmp_path, 9 * CHUNK)
    pick(page, path)
    wire.wait_for(4)
    wire.wait_held(3)
    (upload,) = uploads(page, server)
    assert page.request.delete(f"{server.url}/{upload['uploadUid']}").ok
    wire.open()
    error = wait(page, "failed")["error"]
    assert (error["code"], error["status"]) == ("not_found", 404)
    wire.sent.clear()
    page.evaluate("uploader.items[0].retry()")
    assert stored(page, server) == path.read_bytes()
    assert sorted(wire.sent) == list(range(9))


def test_chunk_that_is_there_with_other_bytes_begins_another_upload(page, server, tmp_path):
    wire = Line(page)
    wire.answer(1, **refusal(409, "chunk_conflict"))
    path = make_file(tmp_path, 4 * CHUNK)
    pick(page, path)
    assert wait(page, "failed")["error"]["code"] == "chunk_conflict"
    before = {upload["uploadUid"] for upload in uploads(page, server)}
    page.evaluate("uploader.items[0].retry()")
    assert stored(page, server) == path.read_bytes()
    assert item(page)["uploadUid"] not in before


def test_page_to_sign_in_is_not_taken_for_an_acknowledgement(page, tmp_path):
    wire = Line(page)
    wire.answer(100, status=200, body="<h1>Sign in</h1>", content_type="text/html")
    pick(page, make_file(tmp_path, CHUNK))
    error = wait(page, "failed")["error"]
    assert (error["code"], error["remedy"]) == ("unexpected_answer", "Perhaps you have to sign in again.")


def test_server_in_between_that_takes_small_bodies_only_gets_small_chunks(page, server, tmp_path):
    # The limit is that of an nginx that nobody has configured.
    location = f"location / {{ proxy_pass {server.origin}; client_max_body_size 1m; proxy_request_buffering off; }}"
    path = make_file(tmp_path, 9 << 20)
    with Nginx(tmp_path / "nginx", location) as nginx:
        page.goto(f"{nginx.url}/pages/uploader.html")
        page.wait_for_function("window.ready")
        make(page, chunkSize=None)
        wire = Line(page)
        pick(page, path)
        assert stored(page, server) == path.read_bytes()
        wire.until(lambda: storage(page) == [])
    assert max(wire.sent) == 17
    assert len(uploads(page, server)) == 1


def test_server_that_takes_smaller_chunks_only_after_its_restart_gets_them(context, tmp_path):
    path = make_file(tmp_path, 17 << 20)
    with Gunicorn(tmp_path / "uploads", app=APP, UPLOAD_HELPER_DURABILITY="none") as server:
        page = context.new_page()
        visit(page, server, chunkSize=None)
        wire = Line(page, open_for=1)
        pick(page, path)
        wire.wait_for(1)
        server.kill()
        server.configure(UPLOAD_HELPER_MAX_CHUNK_SIZE=1 << 20)
        server.start()
        wire.open()
        assert stored(page, server) == path.read_bytes()
        assert max(wire.sent) == 33
        wire.until(lambda: len(uploads(page, server)) == 1)


def test_file_that_is_too_large_for_smaller_chunks_is_given_up(page):
    make(page, chunkSize=None, checksum=False)
    wire = Line(page)
    wire.answer(10_000, **refusal(413))
    page.evaluate(
        """() => {
            const file = new File(['x'], 'huge.tif');
            Object.defineProperty(file, 'size', { value: 2 ** 41 });
            file.slice = () => new Blob(['x']);
            uploader.add([file]);
        }"""
    )
    assert wait(page, "failed")["error"]["status"] == 413


def test_single_chunk_whose_upload_is_there_without_it_is_not_taken_for_sent(page, server, tmp_path):
    wire = Line(page)
    path = make_file(tmp_path, 100)

    def refuse(route: Route) -> None:
        if len(wire.sent) == 1:
            # The server makes the upload, and discards the bytes.
            assert route.fetch(post_data=b"x" * 100).status == 422
        if len(wire.sent) <= 2:
            route.fulfill(**refusal(503))
        else:
            route.continue_()

    wire.act = refuse
    pick(page, path)
    assert stored(page, server) == path.read_bytes()
    assert wire.sent == [0, 0, 0]


def test_server_in_between_that_takes_nothing_is_given_up(page, tmp_path):
    make(page, chunkSize=None)
    wire = Line(page)
    wire.answer(100, **refusal(413))
    pick(page, make_file(tmp_path, 1 << 20))
    assert wait(page, "failed")["error"]["code"] == "refused"


def test_link_that_breaks_within_every_chunk_gets_smaller_ones(page, server, tmp_path):
    path = make_file(tmp_path, 9 << 20)
    with BreakingLink(server.port, after=3 << 20) as link:
        page.goto(f"http://127.0.0.1:{link.port}/pages/uploader.html")
        page.wait_for_function("window.ready")
        make(page, chunkSize=None)
        wire = Line(page)
        pick(page, path)
        assert stored(page, server) == path.read_bytes()
        wire.until(lambda: storage(page) == [])
    assert max(wire.sent) == 4
    assert len(uploads(page, server)) == 1


# --- who may ---


def test_token_goes_into_every_request_and_is_renewed_once_it_is_refused(page, server, tmp_path):
    seen = []

    def check(route: Route) -> None:
        token = route.request.headers["x-csrftoken"]
        seen.append((route.request.method, token))
        # As Flask-WTF answers, through the blueprint.
        refused = refusal(400, "bad_request")
        route.continue_() if token == "new" else route.fulfill(**refused)

    page.route("**/uploads?*", check)
    page.evaluate(
        """() => {
            window.asked = [];
            make({ chunkSize: 65536, csrfToken: async (refusal) => { asked.push(refusal?.status); return refusal ? 'new' : asked.length > 4 ? 'new' : 'old'; } });
        }"""
    )
    path = make_file(tmp_path, 4 * CHUNK)
    pick(page, path)
    assert stored(page, server) == path.read_bytes()
    assert {token for _, token in seen} == {"old", "new"}
    assert {method for method, _ in seen} == {"GET", "POST"}
    assert 400 in page.evaluate("asked")


@pytest.mark.parametrize("way", ["throws", "rejects"])
def test_headers_that_can_not_be_had_are_asked_for_again(page, server, tmp_path, way):
    failure = (
        "throw new TypeError('Failed to fetch')" if way == "throws" else "return Promise.reject(new Error('offline'))"
    )
    page.evaluate(
        f"""() => {{
            let calls = 0;
            uploader.options.headers = () => {{ if ((calls += 1) <= 2) {failure}; return new Headers({{ 'X-Own': '1' }}); }};
        }}"""
    )
    sent = []
    page.on("request", lambda request: sent.append(request.headers.get("x-own")))
    path = make_file(tmp_path, CHUNK)
    pick(page, path)
    error = wait(page, "retrying")["error"]
    assert (error["code"], error["permanent"]) == ("no_headers", False)
    assert stored(page, server) == path.read_bytes()
    assert set(sent) == {"1"}


def test_headers_that_never_come_block_nothing_after_a_pause(page, server, tmp_path):
    make(page, parallel=1)
    page.evaluate(
        "window.calls = 0; uploader.options.headers = () => (calls += 1) > 1 ? {} : new Promise(() => {}); void 0"
    )
    path = make_file(tmp_path, CHUNK)
    pick(page, path)
    page.wait_for_function("calls === 1")
    page.evaluate("uploader.pause(); uploader.resume()")
    assert stored(page, server) == path.read_bytes()


def test_token_that_stays_refused_ends_it(page, tmp_path):
    make(page, csrfToken="old", headers={"X-Own": "1"})
    wire = Line(page)
    names = []
    page.on("request", lambda request: names.append(request.headers.get("x-own")))
    wire.answer(100, **refusal(400, "bad_request"))
    pick(page, make_file(tmp_path, 10))
    assert wait(page, "failed")["error"]["message"] == "No."
    assert wire.sent == [0]
    assert names == ["1"]


# --- how fast ---


def test_progress_counts_no_byte_twice(page, server, tmp_path):
    make(page, chunkSize=1 << 20)
    wire = Line(page)
    wire.answer(3, **refusal(503))
    path = make_file(tmp_path, 8 << 20)
    pick(page, path)
    assert stored(page, server) == path.read_bytes()
    events = [event["bytes"] for event in page.evaluate("heard") if event["type"] in ("progress", "state")]
    assert max(events) == path.stat().st_size


def test_speed_and_time_left_are_told(page, server, tmp_path):
    make(page, chunkSize=1 << 18)
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    limits = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 2 << 20}
    session.send("Network.emulateNetworkConditions", limits)
    path = make_file(tmp_path, 2 << 20)
    pick(page, path)
    page.wait_for_function("uploader.items[0].bytes > 2 ** 19")
    found, all_of_it = item(page), page.evaluate("uploader.progress")
    for speed, left in [(found["speed"], found["secondsLeft"]), (all_of_it["speed"], all_of_it["secondsLeft"])]:
        assert 1 << 19 < speed < 1 << 23
        assert left < 10
    assert stored(page, server) == path.read_bytes()
    assert item(page)["speed"] == 0


def test_slow_link_gets_smaller_chunks(page, server, tmp_path):
    make(page, chunkSize=None)
    page.clock.install()
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    limits = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 300_000}
    session.send("Network.emulateNetworkConditions", limits)
    wire = Line(page)
    page.evaluate("uploader.options.checksum = false")
    path = make_file(tmp_path, 9 << 20)
    pick(page, path)
    page.wait_for_function("uploader.items[0].bytes > 100000")
    page.clock.run_for(6_000)
    session.send("Network.emulateNetworkConditions", {**limits, "uploadThroughput": -1})
    assert stored(page, server) == path.read_bytes()
    assert max(wire.sent) >= 30
    wire.until(lambda: len(uploads(page, server)) == 1)


@pytest.mark.parametrize(
    ("speed", "size"),
    [
        (None, 8 << 20),
        (1_000, 256 << 10),
        (1 << 20, 1 << 20),
        (10 << 20, 8 << 20),
        (1 << 30, 16 << 20),
    ],
)
def test_chunks_fit_the_measured_link(page, speed, size):
    found = page.evaluate(
        "async (speed) => new (await import('/uploads/static/pace.js')).Pace({ speed }).chunkSizeFor(1e9)", speed
    )
    assert found == size


def test_number_of_chunks_stays_within_what_servers_take(page):
    size = page.evaluate("import('/uploads/static/pace.js').then(m => new m.Pace({ speed: 1 }).chunkSizeFor(2 ** 42))")
    assert -(-(1 << 42) // size) == 100_000


@pytest.mark.parametrize(
    ("link", "alone", "most"),
    [(10, 2, 5), (10, 3.3, 4), (2, 2, 2.5), (100, 1, 5)],
    ids=["wide", "middling", "narrow", "far away"],
)
def test_number_of_chunks_at_a_time_follows_the_link(page, link, alone, most):
    """A link that takes `link` MiB/s, of which one connection gets `alone`."""
    used, parallel = page.evaluate(
        """async ([link, alone]) => {
            const pace = new (await import('/uploads/static/pace.js')).Pace();
            const seen = [];
            for (let now = 1; now < 300_000; now += 200) {
                const speed = Math.min(link, alone * pace.parallel);
                pace.arrived(speed * 209_715.2, now);
                seen.push([speed, pace.parallel]);
            }
            return [0, 1].map(which => seen.reduce((sum, row) => sum + row[which], 0) / seen.length);
        }""",
        [link, alone],
    )
    assert used > 0.95 * min(link, 5 * alone)
    assert parallel < most


def test_measured_speed_is_remembered_for_the_next_page(page, server, tmp_path):
    make(page, chunkSize=256 << 10)
    page.clock.install()
    wire = Line(page, open_for=1)
    path = make_file(tmp_path, 3 << 18)
    pick(page, path)
    wire.wait_for(1)
    page.clock.run_for(4000)
    wire.open()
    assert stored(page, server) == path.read_bytes()
    visit(page, server, chunkSize=None, parallel=None)
    wire.close()
    pick(page, make_file(tmp_path, 3 << 20, "next.tif"))
    wire.wait_held(3)
    # As slow as that was, chunks are as small as can be.
    assert "chunkCount=12" in wire.take_held()[0].request.url


# --- staying awake ---


def test_screen_is_kept_on_while_something_is_under_way(context, server, tmp_path):
    page = context.new_page()
    page.add_init_script(
        """window.locks = [];
        navigator.wakeLock.request = async (kind) => {
            const lock = { kind, released: false, release() { lock.released = true; } };
            locks.push(lock);
            return lock;
        };"""
    )
    visit(page, server, wakeLock=True)
    held = "navigator.locks.query().then(({ held }) => held.filter(({ name }) => name.startsWith('upload-helper ')).length)"
    wire = Line(page, open_for=0)
    pick(page, make_file(tmp_path, CHUNK))
    wire.wait_held()
    page.wait_for_function("locks.length === 1 && locks[0].kind === 'screen'")
    wire.until(lambda: page.evaluate(held) == 1)
    # The browser takes it away when the page is hidden, and is asked again afterwards.
    page.evaluate(
        "locks[0].released = true; for (const _ of 'ab') document.dispatchEvent(new Event('visibilitychange'))"
    )
    page.wait_for_function("locks.length === 2")
    wire.open()
    wait(page, "done")
    page.wait_for_function("locks[1].released")
    wire.until(lambda: page.evaluate(held) == 0)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    assert page.evaluate("locks.length") == 2


# --- memory ---


def proportional_memory(pid: int) -> int:
    rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(row.split()[1]) for row in rows if row.startswith("Pss:"))


@pytest.mark.parametrize("size", [160 << 20, pytest.param(4 << 30, marks=pytest.mark.soak)], ids=["160 MiB", "4 GiB"])
def test_memory_of_the_browser_stays_flat(browser, context, tmp_path, size):
    path = tmp_path / "sparse.tif"
    with path.open("wb") as file:
        file.truncate(size)
    control = browser.new_browser_cdp_session()

    def memory() -> int:
        """Return the memory in bytes of all processes of the browser; what several share counts once."""
        processes = control.send("SystemInfo.getProcessInfo")["processInfo"]
        return sum(proportional_memory(process["id"]) for process in processes)

    with Gunicorn(tmp_path / "uploads", app=APP) as server:
        page = context.new_page()
        context.set_default_timeout(600_000)
        visit(page, server, chunkSize=None, parallel=None)
        before = memory()
        pick(page, path)
        samples = []
        wait_until(
            lambda: samples.append(memory()) or page.evaluate("uploader.items[0].state") == "done",
            seconds=600, what="the upload",
        )  # fmt: skip
        assert page.evaluate("uploader.items[0].done")["totalSize"] == size
    assert max(samples) - before < 128 << 20, [(sample - before) >> 20 for sample in samples]
