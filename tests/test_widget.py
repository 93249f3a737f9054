"""The widget in a real browser, in front of a host with a strict security policy."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from chromium import PATIENCE
from servers import Gunicorn, wait_until
from visitors import (
    CHUNK,
    CHUNKS,
    MARKUP,
    Wire,
    button,
    drop,
    hold,
    make_file,
    make_picture,
    pick,
    picker,
    row,
    uploads,
    visit,
)

expect.set_options(timeout=PATIENCE)
HOST = "widget_host:app()"


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Gunicorn]:
    with Gunicorn(tmp_path_factory.mktemp("widget") / "uploads", app=HOST) as running:
        yield running


@pytest.fixture
def page(browser, request) -> Iterator[Page]:
    with visit(browser) as opened:
        opened.context.add_cookies(
            [{"name": "user", "value": request.node.name[:60].encode().hex(), "domain": "127.0.0.1", "path": "/"}]
        )
        yield opened


def open_widget(page: Page, server: Gunicorn, query: str = "", **options: object) -> None:
    options = {"chunk_size": CHUNK, **options}
    page.goto(f"{server.origin}/?options={quote(json.dumps(options))}{query}")
    expect(page.locator("upload-helper .root")).to_be_visible()


def cookie(page: Page, name: str, value: str) -> None:
    page.context.add_cookies([{"name": name, "value": value, "domain": "127.0.0.1", "path": "/"}])


def status(page: Page, server: Gunicorn, name: str) -> dict:
    (found,) = [upload for upload in uploads(page.context, server.url) if upload["fileName"] == name]
    return found


def assert_stored(page: Page, server: Gunicorn, *paths: Path) -> None:
    """Compare what the server has of these files with the files."""
    for path in paths:
        uid = status(page, server, path.name)["uploadUid"]
        assert page.context.request.get(f"{server.url}/{uid}").body() == path.read_bytes()


def assert_arrived(page: Page, server: Gunicorn, *paths: Path) -> None:
    for path in paths:
        expect(row(page, path.name)).to_have_attribute("data-state", "done")
    assert_stored(page, server, *paths)


def value(page: Page) -> list[str]:
    return page.evaluate("document.querySelector('upload-helper').value")


# --- files come ---


@pytest.mark.parametrize("give", [pick, drop])
def test_file_arrives(page, server, tmp_path, give):
    open_widget(page, server)
    path = make_file(tmp_path, 3 * CHUNK + 5)
    give(page, path)
    assert_arrived(page, server, path)
    expect(row(page)).to_contain_text("Arrived")
    expect(row(page)).to_contain_text("197 kB")
    assert value(page) == [status(page, server, path.name)["uploadUid"]]


def test_several_files_go_at_once(page, server, tmp_path):
    open_widget(page, server, parallel=3)
    paths = [make_file(tmp_path, CHUNK * size, f"{size}.tif") for size in (1, 2, 3)]
    wire = Wire(page, open_for=0)
    pick(page, *paths)
    wait_until(lambda: page.wait_for_timeout(5) or len(wire.sent) == 3, what="three requests")
    assert wire.sent.count(0) > 1
    expect(page.locator(".overall")).to_contain_text("0 of 3 files have arrived")
    wire.open()
    assert_arrived(page, server, *paths)
    expect(page.locator(".overall")).to_contain_text("3 files have arrived. 393 kB")


def test_picture_is_pasted_and_named_by_the_time(page, server):
    open_widget(page, server)
    paste(page, "image.png")
    expect(page.locator(".item .name")).to_have_text(re.compile(r"^image \d{4}-\d\d-\d\d \d\d\.\d\d\.\d\d\.png$"))
    expect(page.locator(".item")).to_have_attribute("data-state", "done")


def paste(page: Page, name: str, where: str = "document.body") -> None:
    page.evaluate(
        f"""(name) => {{
            const clipboardData = new DataTransfer();
            clipboardData.items.add(new File(["x"], name, {{ type: "image/png" }}));
            const event = new ClipboardEvent("paste", {{ clipboardData, bubbles: true, cancelable: true, composed: true }});
            {where}.dispatchEvent(event);
        }}""",
        name,
    )


def test_what_is_pasted_into_a_field_stays_there(page, server):
    page.goto(f"{server.origin}/form")
    paste(page, "notes.png", "document.querySelector('[name=title]')")
    paste(page, "map.png")
    expect(page.locator(".item .name")).to_have_text(["map.png"])


def test_folder_is_dropped_with_all_that_is_in_it(page, server, tmp_path):
    open_widget(page, server)
    paths = [
        make_file(tmp_path / "trip", 10 + number, f"{folder}{number}.tif")
        for number, folder in enumerate(("", "a/", "a/b/"))
    ]
    make_file(tmp_path / "trip", 5, "a/.DS_Store")
    drop(page, tmp_path / "trip")
    for path in paths:
        expect(row(page, path.name)).to_have_attribute("data-state", "done")
    names = sorted(page.locator(".item .name").all_text_contents())
    assert names == ["trip/0.tif", "trip/a/1.tif", "trip/a/b/2.tif"]


def test_folder_is_picked(page, server, tmp_path):
    open_widget(page, server, folders=True)
    make_file(tmp_path / "trip", 10, "a/1.tif")
    page.locator("upload-helper input[webkitdirectory]").set_input_files(tmp_path / "trip")
    expect(row(page, "trip/a/1.tif")).to_have_attribute("data-state", "done")


def test_file_that_is_held_over_the_widget_is_welcomed(page, server, tmp_path):
    open_widget(page, server)
    hold(page, make_file(tmp_path, 10))
    expect(page.get_by_text("Drop to upload")).to_be_visible()
    drop(page, make_file(tmp_path, 10))
    expect(page.get_by_text("Drop to upload")).to_be_hidden()


def test_file_that_misses_the_widget_does_not_replace_the_page(page, server, tmp_path):
    open_widget(page, server)
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(make_file(tmp_path, 10, "x.txt"))], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 5, "y": 790, "data": data})
    expect(page.get_by_role("heading", name="The host")).to_be_visible()


def test_same_file_is_taken_once(page, server, tmp_path):
    open_widget(page, server)
    path = make_file(tmp_path, 10, MARKUP)
    pick(page, path)
    expect(row(page, MARKUP)).to_have_attribute("data-state", "done")
    pick(page, path)
    expect(page.locator(".note")).to_have_text(f"\u2068{MARKUP}\u2069 is in the list already.")
    expect(page.locator(".item")).to_have_count(1)


def test_one_file_where_one_is_wanted(page, server, tmp_path):
    open_widget(page, server, multiple=False)
    assert not picker(page).evaluate("input => input.multiple")
    drop(page, make_file(tmp_path, 1, "a"), make_file(tmp_path, 2, "b"))
    expect(page.locator(".note")).to_have_text("Choose one file at a time.")
    (tmp_path / "folder").mkdir()
    drop(page, tmp_path / "folder")
    expect(page.locator(".note")).to_have_text("Choose one file at a time.")
    pick(page, tmp_path / "a")
    expect(row(page, "a")).to_have_attribute("data-state", "done")
    expect(page.locator(".drop")).to_be_hidden()
    drop(page, tmp_path / "b")
    expect(page.locator(".note")).to_have_text("One file only. Remove the other one first.")
    button(page, "Remove", "a").click()
    expect(page.locator(".drop")).to_be_visible()
    expect(picker(page)).to_be_focused()


# --- on the way ---


def test_pause_and_resume(page, server, tmp_path):
    open_widget(page, server)
    path = make_file(tmp_path, 9 * CHUNK)
    wire = Wire(page, open_for=4)
    pick(page, path)
    there = wire.wait_for(4)
    expect(row(page)).to_contain_text("Uploading")
    button(page, "Pause", path.name).click()
    expect(row(page)).to_contain_text("Paused")
    expect(row(page)).to_contain_text("262 kB of 590 kB")
    before = len(wire.sent)
    wire.open(reloaded=True)
    button(page, "Go on", path.name).click()
    assert_arrived(page, server, path)
    assert there.isdisjoint(wire.sent[before:])


def test_pause_and_resume_of_all(page, server, tmp_path):
    open_widget(page, server)
    paths = [make_file(tmp_path, CHUNK * size, f"{size}.tif") for size in (2, 3)]
    wire = Wire(page, open_for=1)
    pick(page, *paths)
    wire.wait_for(1)
    button(page, "Pause all").click()
    for path in paths:
        expect(row(page, path.name)).to_contain_text("Paused")
    wire.open(reloaded=True)
    button(page, "Go on with all").click()
    assert_arrived(page, server, *paths)
    expect(page.locator(".overall button")).to_be_hidden()


def test_server_stopped_and_started_again(page, gunicorn, tmp_path):
    server = gunicorn(app=HOST)
    open_widget(page, server)
    path = make_file(tmp_path, 12 * CHUNK)
    wire = Wire(page, open_for=6)
    pick(page, path)
    there = wire.wait_for(6)
    server.kill()
    sent = len(wire.sent)
    server.start()
    wire.open()
    assert_arrived(page, server, path)
    assert there.isdisjoint(wire.sent[sent:])


def test_offline_and_online(page, server, tmp_path):
    open_widget(page, server)
    path = make_file(tmp_path, 9 * CHUNK)
    wire = Wire(page, open_for=3)
    pick(page, path)
    there = wire.wait_for(3)
    page.context.set_offline(True)
    sent = len(wire.sent)
    wire.open()
    expect(row(page)).to_contain_text("No connection. It goes on by itself.")
    page.context.set_offline(False)
    assert_arrived(page, server, path)
    assert there.isdisjoint(wire.sent[sent:])


def test_reload_and_go_on(page, server, tmp_path):
    open_widget(page, server)
    path = make_file(tmp_path, 20 * CHUNK - 1, MARKUP)
    wire = Wire(page, open_for=8)
    pick(page, path)
    there = wire.wait_for(8)
    page.reload()
    left = page.locator(".unfinished")
    expect(left).to_contain_text("Choose the same file again, and the upload goes on where it stopped.")
    expect(left.locator("strong")).to_have_text(MARKUP)
    expect(left).to_contain_text("524 kB of 1.31 MB have arrived")
    wire.open(reloaded=True)
    wire.sent.clear()
    pick(page, path)
    expect(left).to_be_hidden()
    assert_arrived(page, server, path)
    assert sorted(wire.sent) == sorted(set(range(20)) - there)


def test_unfinished_upload_is_deleted(page, server, tmp_path):
    open_widget(page, server)
    wire = Wire(page, open_for=2)
    path = make_file(tmp_path, 9 * CHUNK)
    pick(page, path)
    wire.wait_for(2)
    page.reload()
    button(page, "Delete", path.name).click()
    expect(page.locator(".unfinished")).to_be_hidden()
    wait_until(lambda: uploads(page.context, server.url) == [], what="deletion")
    expect(picker(page)).to_be_focused()
    expect(page.get_by_role("status")).to_have_text(f"What had arrived of {path.name} was deleted.")


def test_removed_file_is_deleted(page, server, tmp_path):
    open_widget(page, server)
    wire = Wire(page, open_for=2)
    pick(page, make_file(tmp_path, 9 * CHUNK))
    wire.wait_for(2)
    button(page, "Remove", "survey.tif").click()
    expect(page.locator(".item")).to_have_count(0)
    wait_until(lambda: uploads(page.context, server.url) == [], what="deletion")
    assert page.evaluate("Object.keys(localStorage).filter((key) => key.includes('survey'))") == []


def test_leaving_in_mid_upload_is_asked_about(page, server, tmp_path):
    open_widget(page, server)
    asked = []
    page.on("dialog", lambda dialog: asked.append(dialog.type))
    wire = Wire(page, open_for=1)
    pick(page, make_file(tmp_path, 9 * CHUNK))
    wire.wait_for(1)
    page.mouse.click(5, 5)
    page.goto(f"{server.origin}/form")
    assert asked == ["beforeunload"]


# --- what goes wrong ---


def problem(page: Page, name: str = "survey.tif"):
    expect(row(page, name)).to_have_attribute("data-state", "failed")
    return row(page, name).locator(".error")


@pytest.mark.parametrize(
    ("options", "text", "remedy"),
    [
        (
            {"accept": ".laz, audio/*"},
            "Files of this type are not taken. Allowed: .laz, audio/*",
            "Choose a file of an allowed type.",
        ),
        ({"max_file_size": 5}, "The file is too large: at most 5 bytes are allowed.", "Choose a smaller file"),
    ],
)
def test_file_that_is_not_wanted(page, server, tmp_path, options, text, remedy):
    open_widget(page, server, **options)
    wire = Wire(page)
    drop(page, make_file(tmp_path, 10))
    expect(problem(page)).to_contain_text(text)
    expect(problem(page)).to_contain_text(remedy)
    expect(button(page, "Try again", "survey.tif")).to_be_hidden()
    assert wire.sent == []


@pytest.mark.parametrize(
    ("settings", "options", "text"),
    [
        ({"UPLOAD_HELPER_ALLOWED_EXTENSIONS": ["laz"]}, {"accept": ""}, "Files of this type are not taken."),
        (
            {"UPLOAD_HELPER_MAX_FILE_SIZE": 5},
            {"max_file_size": 100},
            "The file is too large: at most 100 bytes are allowed.",
        ),
        ({"UPLOAD_HELPER_MAX_OWNER_BYTES": 5}, {}, "The file is too large"),
    ],
)
def test_file_that_the_server_does_not_want(page, gunicorn, tmp_path, settings, options, text):
    server = gunicorn(app=HOST, workers=1, **settings)
    open_widget(page, server, **options)
    pick(page, make_file(tmp_path, 10))
    expect(problem(page)).to_contain_text(text)
    problem(page).get_by_text("Details").click()
    expect(problem(page).locator("details p")).to_contain_text(
        "UPLOAD_HELPER" if "ALLOWED" not in str(settings) else "tif"
    )


def test_disk_full_on_the_server(page, folder, tmp_path):
    with Gunicorn(folder, app=HOST, workers=1, UPLOAD_HELPER_MIN_FREE_SPACE=1 << 60) as server:
        open_widget(page, server)
        path = make_file(tmp_path, 3 * CHUNK)
        pick(page, path)
        expect(row(page)).to_contain_text(re.compile(r"Interrupted. It is tried again in \d\d\ss\."))
        expect(row(page).locator(".error")).to_contain_text("The server has no room for this file at the moment.")
        server.kill()
        server.configure(UPLOAD_HELPER_MIN_FREE_SPACE=0)
        server.start()
        button(page, "Try again", path.name).click()
        assert_arrived(page, server, path)


def test_who_was_signed_out_in_mid_upload_goes_on_after_signing_in(page, server, tmp_path):
    open_widget(page, server)
    path = make_file(tmp_path, 9 * CHUNK)
    wire = Wire(page, open_for=2)
    deleted = []
    page.on("request", lambda request: deleted.append(request) if request.method == "DELETE" else None)
    pick(page, path)
    wire.wait_for(2)
    (user,) = [c["value"] for c in page.context.cookies() if c["name"] == "user"]
    cookie(page, "user", "")
    wire.open()
    expect(problem(page)).to_contain_text("If you are signed out, sign in first.")
    cookie(page, "user", user)
    before = len(wire.acknowledged)
    button(page, "Try again", path.name).click()
    assert_arrived(page, server, path)
    assert len(wire.acknowledged) - before == 7
    assert deleted == []
    assert page.locator("upload-helper").evaluate("widget => widget.pending") == []


def test_lost_permission_in_mid_upload(page, server, tmp_path):
    open_widget(page, server)
    path = make_file(tmp_path, 9 * CHUNK)
    wire = Wire(page, open_for=4)
    pick(page, path)
    there = wire.wait_for(4)
    cookie(page, "role", "none")
    wire.open()
    expect(problem(page)).to_contain_text("You may not upload this.")
    expect(problem(page)).to_contain_text("Sign in again, or ask for permission. Then try again.")
    cookie(page, "role", "")
    sent = len(wire.sent)
    button(page, "Try again", path.name).click()
    assert_arrived(page, server, path)
    assert there.isdisjoint(wire.sent[sent:])


def refusal(status: int, code: str, remedy: str = "") -> dict[str, object]:
    return {"status": status, "json": {"error": "<b>No.</b>", "code": code, "remedy": remedy}}


@pytest.mark.parametrize(
    ("answer", "text", "remedy"),
    [
        (
            refusal(401, "unauthorized"),
            "You are not signed in any more.",
            "Sign in again in another tab, then try again here.",
        ),
        (
            refusal(409, "chunk_conflict", "x"),
            "The file has changed since the upload began.",
            "Try again to send it from the start.",
        ),
        (refusal(409, "project_closed", "Ask <i>Ann</i>."), "<b>No.</b>", "Ask <i>Ann</i>."),
        (refusal(405, "method_not_allowed"), "The file could not be uploaded.", "tell whoever runs this site"),
        ({"status": 200, "body": "<h1>Sign in</h1>"}, "The server’s answer is not understood.", "sign in again"),
        (
            refusal(404, "not_found", "x"),
            "The server does not find what had arrived of this file.",
            "Then try again: what is missing is sent.",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_error_is_told_in_plain_words(page, server, tmp_path, answer, text, remedy):
    open_widget(page, server)
    page.route(CHUNKS, lambda route: route.fulfill(**answer))
    path = make_file(tmp_path, 3 * CHUNK)
    pick(page, path)
    expect(problem(page)).to_contain_text(text)
    expect(problem(page)).to_contain_text(remedy)
    page.unroute(CHUNKS)
    button(page, "Try again", path.name).click()
    assert_arrived(page, server, path)


def test_name_is_text_wherever_it_stands(page, server, tmp_path):
    open_widget(page, server)
    pick(page, make_file(tmp_path, 10, MARKUP))
    expect(row(page, MARKUP)).to_have_attribute("data-state", "done")
    expect(page.get_by_role("status")).to_contain_text(f"{MARKUP} has arrived.")
    assert page.title() == "The host"
    assert page.locator("upload-helper img").count() == 0


# --- pictures ---


def test_pictures_are_shown_and_their_urls_given_back(page, server, tmp_path):
    page.add_init_script("""
        window.urls = new Set();
        const [create, revoke] = [URL.createObjectURL, URL.revokeObjectURL];
        URL.createObjectURL = (file) => { const url = create(file); urls.add(url); window.made = (window.made ?? 0) + 1; return url; };
        URL.revokeObjectURL = (url) => { urls.delete(url); revoke(url); };
    """)
    open_widget(page, server)
    make_picture(tmp_path / "map.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    pick(page, tmp_path / "map.png", tmp_path / "broken.png", make_file(tmp_path, 10, "notes.txt"))
    expect(row(page, "map.png").locator("img")).to_be_visible()
    expect(row(page, "broken.png").locator("img")).to_have_count(0)
    wait_until(lambda: page.evaluate("urls.size") == 0, what="URLs given back")
    assert page.evaluate("made") == 2


# --- forms ---


def test_form_gets_the_uploads(page, server, tmp_path):
    page.goto(f"{server.origin}/form")
    paths = [make_file(tmp_path, CHUNK + size, f"{size}.tif") for size in (1, 2)]
    page.get_by_role("textbox", name="Title").fill("Moor")
    pick(page, *paths)
    assert_arrived(page, server, *paths)
    page.get_by_role("button", name="Send").click()
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    expect(page.locator(".survey")).to_have_text(
        [f"{path.name} {path.stat().st_size} {digest}" for path, digest in zip(paths, digests, strict=True)]
    )


def validation(page: Page) -> str:
    return page.locator("upload-helper").evaluate("widget => widget.validationMessage")


def test_form_waits_for_what_is_required(page, server, tmp_path):
    page.goto(f"{server.origin}/form")
    page.get_by_role("textbox", name="Title").fill("Moor")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".note")).to_have_text("Please choose a file.")
    expect(picker(page)).to_be_focused()
    wire = Wire(page, open_for=1)
    path = make_file(tmp_path, 3 * CHUNK)
    pick(page, path)
    wire.wait_for(1)
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".note")).to_have_text("1 file is still on its way. Please wait until it has arrived.")
    wire.open()
    assert_arrived(page, server, path)
    assert validation(page) == ""
    expect(page.locator(".note")).to_be_hidden()


def test_form_waits_for_what_failed(page, server, tmp_path):
    page.goto(f"{server.origin}/form")
    page.route(CHUNKS, lambda route: route.fulfill(**refusal(403, "forbidden", "x")))
    pick(page, make_file(tmp_path, 10))
    problem(page)
    assert validation(page) == "1 file was not uploaded. Try again, or remove it."
    button(page, "Remove", "survey.tif").click()
    assert validation(page) == "Please choose a file."


def test_form_that_comes_back_keeps_the_uploads(page, server, tmp_path):
    page.goto(f"{server.origin}/form")
    path = make_file(tmp_path, 10, MARKUP)
    pick(page, path)
    expect(row(page, MARKUP)).to_have_attribute("data-state", "done")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#problem")).to_be_visible()
    expect(row(page, MARKUP)).to_contain_text("Arrived")
    page.get_by_role("textbox", name="Title").fill("Moor")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".survey")).to_contain_text(f"{MARKUP} 10 ")


def test_form_that_is_gone_back_to_keeps_the_uploads(page, server, tmp_path):
    page.goto(f"{server.origin}/form")
    pick(page, make_file(tmp_path, 10))
    expect(row(page)).to_have_attribute("data-state", "done")
    before = value(page)
    page.goto(f"{server.origin}/?options={{}}")
    page.go_back()
    expect(row(page)).to_contain_text("Arrived")
    assert value(page) == before


def test_form_that_is_reset_forgets_the_uploads(page, server, tmp_path):
    page.goto(f"{server.origin}/form")
    pick(page, make_file(tmp_path, 10))
    expect(row(page)).to_have_attribute("data-state", "done")
    page.get_by_role("button", name="Reset").click()
    expect(page.locator(".item")).to_have_count(0)
    wait_until(lambda: uploads(page.context, server.url) == [], what="deletion")


def test_program_follows_the_widget(page, server, tmp_path):
    open_widget(page, server, name="files")
    page.evaluate("""() => {
        window.heard = [];
        for (const type of ["upload-add", "upload-done", "upload-remove", "upload-idle", "change"]) {
            document.addEventListener(type, ({ type, detail }) => heard.push([type, detail?.fileName ?? ""]));
        }
    }""")
    path = make_file(tmp_path, 10)
    pick(page, path)
    assert_arrived(page, server, path)
    button(page, "Remove", path.name).click()
    expect(page.locator(".item")).to_have_count(0)
    names = page.evaluate("heard")
    assert names[:2] == [["upload-add", path.name], ["upload-done", path.name]]
    assert sorted(names[2:4]) == [["change", ""], ["upload-idle", ""]]
    assert names[4:] == [["upload-remove", path.name], ["change", ""]]


def test_disabled_widget_takes_nothing(page, server, tmp_path):
    open_widget(page, server, disabled=True)
    expect(picker(page)).to_be_disabled()
    drop(page, make_file(tmp_path, 10))
    page.evaluate("document.querySelector('upload-helper').add([new File(['x'], 'x')])")
    expect(page.locator(".item")).to_have_count(0)


# --- CSRF ---


@pytest.fixture(scope="module")
def guarded(tmp_path_factory) -> Iterator[Gunicorn]:
    with Gunicorn(tmp_path_factory.mktemp("guarded") / "uploads", app=HOST, workers=1, csrf=True) as running:
        yield running


def test_token_of_flask_wtf_goes_along(page, guarded, tmp_path):
    page.goto(f"{guarded.origin}/form")
    path = make_file(tmp_path, 3 * CHUNK)
    pick(page, path)
    assert_arrived(page, guarded, path)
    page.get_by_role("textbox", name="Title").fill("Moor")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".survey")).to_contain_text(path.name)


def test_token_that_has_expired_is_renewed(page, guarded, tmp_path):
    page.goto(f"{guarded.origin}/form")
    wire = Wire(page, open_for=2)
    path = make_file(tmp_path, 9 * CHUNK)
    pick(page, path)
    wire.wait_for(2)
    page.evaluate("document.querySelector('upload-helper').setAttribute('csrf-token', 'expired')")
    wire.open()
    assert_arrived(page, guarded, path)
    button(page, "Remove", path.name).click()
    wait_until(lambda: uploads(page.context, guarded.url) == [], what="deletion")


def test_forms_on_the_page_get_the_new_token(page, guarded, tmp_path):
    page.goto(f"{guarded.origin}/form")
    path = make_file(tmp_path, 10)
    page.evaluate("""() => {
        document.querySelector("upload-helper").setAttribute("csrf-token", "expired");
        document.querySelector("input[name=csrf_token]").value = "expired";
    }""")
    pick(page, path)
    assert_arrived(page, guarded, path)
    page.get_by_role("textbox", name="Title").fill("Moor")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".survey")).to_contain_text(path.name)


def test_token_that_can_not_be_had_is_told_in_words(page, guarded, tmp_path):
    page.goto(f"{guarded.origin}/form")
    page.evaluate("document.querySelector('upload-helper').setAttribute('csrf-token', 'expired')")
    page.route(guarded.url, lambda route: route.abort() if route.request.method == "OPTIONS" else route.continue_())
    pick(page, make_file(tmp_path, 10))
    expect(problem(page)).to_contain_text("This page was open for too long.")
    expect(problem(page)).to_contain_text("Reload the page and choose the same file again")


def test_custom_headers_go_along(page, server, tmp_path):
    open_widget(page, server, headers={"X-Tenant": "moor"}, csrf_header="X-Token", **{"data-x": "<"})
    page.evaluate("""() => {
        const widget = document.querySelector("upload-helper");
        widget.setAttribute("csrf-token", "t");
        widget.headers = async () => ({ Authorization: "Bearer b" });
    }""")
    with page.expect_request(CHUNKS) as sent:
        pick(page, make_file(tmp_path, 10))
    headers = sent.value.headers
    assert [headers[name] for name in ("x-tenant", "x-token", "authorization")] == ["moor", "t", "Bearer b"]
    assert page.locator("upload-helper").get_attribute("data-x") == "<"


# --- languages ---

IN_ALL = {
    "en": ("Choose files or drop them here", "Arrived", "has arrived"),
    "de": ("Dateien auswählen oder hierher ziehen", "Angekommen", "ist angekommen"),
    "de-AT": ("Dateien auswählen oder hierher ziehen", "Angekommen", "ist angekommen"),
    "ru": ("Выбрать файлы или перетащить их сюда", "Загружено", "загружен"),
    "fr": ("Choisir des fichiers or drop them here", "Arrived", "has arrived"),
    "tlh": ("Choose files or drop them here", "Arrived", "has arrived"),
}


@pytest.mark.parametrize(
    ("language", "told"), [*((language, "page") for language in IN_ALL), ("de", "macro"), ("de", "host")]
)
def test_languages(page, server, tmp_path, language, told):
    if told == "host":
        cookie(page, "language", language)
    lang = {"lang": language} if told == "macro" else {}
    open_widget(page, server, query=f"&lang={language if told == 'page' else 'en'}", **lang)
    call, arrived, said = IN_ALL[language]
    expect(page.locator(".choose")).to_have_text(call, use_inner_text=True)
    pick(page, make_file(tmp_path, 10))
    expect(row(page).locator(".state")).to_have_text(arrived)
    expect(page.get_by_role("status")).to_contain_text(said)


def test_language_is_added_by_the_host(page, server):
    open_widget(page, server, query="&lang=eo")
    page.evaluate("""async () => {
        const { addTexts } = await import("/uploads/static/upload-helper.js");
        addTexts("eo", { "choose.many": "Elektu dosierojn" });
    }""")
    expect(page.locator(".choose strong").first).to_have_text("Elektu dosierojn")


# --- everybody ---


def test_keyboard_is_enough(page, server, tmp_path):
    # Without a listener from the start, playwright asks for the dialog no sooner than the key that opens it.
    page.on("filechooser", lambda _: None)
    open_widget(page, server)
    wire = Wire(page, open_for=2)
    path = make_file(tmp_path, 5 * CHUNK)
    page.keyboard.press("Tab")
    expect(picker(page)).to_be_focused()
    with page.expect_file_chooser() as asked:
        page.keyboard.press("Enter")
    asked.value.set_files(path)
    wire.wait_for(2)
    page.keyboard.press("Tab")
    expect(button(page, "Pause", path.name)).to_be_focused()
    page.keyboard.press("Enter")
    expect(button(page, "Go on", path.name)).to_be_focused()
    wire.open(reloaded=True)
    page.keyboard.press("Space")
    expect(row(page)).to_have_attribute("data-state", "done")
    # The button is gone, and the focus is on the one beside it.
    expect(button(page, "Remove", path.name)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".item")).to_have_count(0)
    expect(picker(page)).to_be_focused()


def test_focus_is_seen(page, server, tmp_path):
    open_widget(page, server, folders=True)
    pick(page, make_file(tmp_path, 10))
    expect(row(page)).to_have_attribute("data-state", "done")
    page.evaluate("document.activeElement.blur()")
    for seen in (".drop", ".drop .button", ".item [data-action=remove]"):
        page.keyboard.press("Tab")
        style = page.locator(seen).evaluate("element => getComputedStyle(element).outline")
        assert "solid 3px" in style, seen


def test_nothing_moves_for_who_wants_no_motion(page, server, tmp_path):
    open_widget(page, server)
    Wire(page, open_for=0)
    pick(page, make_file(tmp_path, 3 * CHUNK))
    button(page, "Pause", "survey.tif").click()
    bar = row(page).locator("progress")
    bar.evaluate("bar => bar.removeAttribute('value')")
    name = "bar => getComputedStyle(bar).animationName"
    assert bar.evaluate(name) == "upload-helper-pass"
    page.emulate_media(reduced_motion="reduce")
    assert bar.evaluate(name) == "none"


def test_focus_goes_to_the_next_file_when_one_is_removed(page, server, tmp_path):
    open_widget(page, server)
    paths = [make_file(tmp_path, size, f"{size}.tif") for size in (1, 2, 3)]
    pick(page, *paths)
    assert_arrived(page, server, *paths)
    button(page, "Remove", "2.tif").click()
    expect(button(page, "Remove", "3.tif")).to_be_focused()
    page.keyboard.press("Enter")
    expect(button(page, "Remove", "1.tif")).to_be_focused()


def test_screen_reader_hears_what_matters_once(page, server, tmp_path):
    open_widget(page, server)
    page.evaluate("""() => {
        window.said = [];
        const region = document.querySelector("upload-helper").shadowRoot.querySelector("[role=status]");
        new MutationObserver(() => said.push(region.textContent)).observe(region, { childList: true, characterData: true, subtree: true });
    }""")
    wire = Wire(page, open_for=10)
    paths = [make_file(tmp_path, CHUNK * 20 + size, f"{size}.tif") for size in (1, 2)]
    pick(page, *paths)
    wire.wait_for(10)
    wait_until(lambda: page.wait_for_timeout(5) or page.evaluate("said.length"), what="words")
    wire.open()
    assert_arrived(page, server, *paths)
    expect(page.get_by_role("status")).to_have_text("2 files have arrived.")
    said = page.evaluate("said")
    assert said[0] == "2 files were added."
    assert len(said) <= 3


def test_roles_and_names(page, server, tmp_path):
    page.goto(f"{server.origin}/form")
    wire = Wire(page, open_for=1)
    pick(page, make_file(tmp_path, 4 * CHUNK))
    wire.wait_for(1)
    group = page.get_by_role("group", name="Survey files")
    expect(group.get_by_role("list", name="Files").get_by_role("listitem")).to_have_count(1)
    expect(group.get_by_role("progressbar", name="Progress of survey.tif")).to_be_visible()
    expect(group.locator(".choose input")).to_have_accessible_description("Up to 17.2 GB per file")
    assert page.locator("upload-helper").evaluate("widget => widget.labels[0].textContent") == "Survey files"
