"""Every state of the pages: no fault that axe-core knows, and nothing that sticks out of a narrow screen.

With UPLOAD_HELPER_PICTURES=<folder> each state is photographed there as well, to be looked at.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from chromium import PATIENCE
from servers import TESTS, Gunicorn
from visitors import CHUNK, CHUNKS, MARKUP, Wire, button, drop, hold, hurry, make_file, make_picture, pick, row, visit

expect.set_options(timeout=PATIENCE)
AXE = TESTS / "node" / "node_modules" / "axe-core" / "axe.min.js"
PICTURES = os.environ.get("UPLOAD_HELPER_PICTURES", "")
LONG = "a-name-that-goes-on-and-on-without-a-place-to-break-it-" * 3 + ".tif"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Gunicorn]:
    with Gunicorn(tmp_path_factory.mktemp("looks") / "uploads", app="widget_host:app()") as running:
        yield running


@pytest.fixture
def page(browser, request) -> Iterator[Page]:
    # What axe-core does would breach the host's policy; other tests keep it.
    with visit(browser, viewport={"width": 1280, "height": 800}, bypass_csp=True) as opened:
        name = request.node.name.encode().hex()
        opened.context.add_cookies([{"name": "user", "value": name, "domain": "127.0.0.1", "path": "/"}])
        yield opened


def visit_widget(page: Page, server: Gunicorn, language: str = "en", **options: object) -> None:
    options = {"chunk_size": CHUNK, "multiple": True, **options}
    page.goto(f"{server.origin}/?lang={language}&options={quote(json.dumps(options))}")


def empty(page: Page, server: Gunicorn, folder: Path) -> None:
    visit_widget(page, server, folders=True, accept=".tif,.laz,.png")


def held_over(page: Page, server: Gunicorn, folder: Path) -> None:
    visit_widget(page, server)
    hold(page, make_file(folder, 10))


def disabled(page: Page, server: Gunicorn, folder: Path) -> None:
    visit_widget(page, server, disabled=True, folders=True)


def under_way(page: Page, server: Gunicorn, folder: Path) -> None:
    visit_widget(page, server, parallel=1)
    wire = Wire(page, open_for=6)
    pick(page, make_picture(folder / "map.png", 320, 240))
    expect(row(page, "map.png")).to_have_attribute("data-state", "done")
    pick(page, make_file(folder, 90 * CHUNK, LONG))
    wire.wait_for(6)
    pick(page, make_file(folder, 30 * CHUNK, MARKUP), make_file(folder, 7_000_000, "Übersicht Straße.laz"))
    row(page, MARKUP).locator("[data-action=pause]").click()
    expect(row(page, MARKUP)).to_have_attribute("data-state", "paused")


def interrupted(page: Page, server: Gunicorn, folder: Path) -> None:
    visit_widget(page, server)
    answer = {
        "status": 507,
        "headers": {"Retry-After": "60"},
        "json": {"error": "Full.", "code": "storage_full", "remedy": ""},
    }
    page.route(CHUNKS, lambda route: route.fulfill(**answer))
    pick(page, make_file(folder, 2 * CHUNK, "a.tif"))
    expect(row(page, "a.tif")).to_have_attribute("data-state", "retrying")


def offline(page: Page, server: Gunicorn, folder: Path) -> None:
    visit_widget(page, server)
    wire = Wire(page, open_for=2)
    pick(page, make_file(folder, 9 * CHUNK, "a.tif"))
    wire.wait_for(2)
    page.context.set_offline(True)
    wire.open()
    expect(row(page, "a.tif")).to_have_attribute("data-state", "offline")


def failed(page: Page, server: Gunicorn, folder: Path) -> None:
    visit_widget(page, server, max_file_size=20 * CHUNK, accept=".tif,.laz")
    page.route(
        CHUNKS, lambda route: route.fulfill(status=403, json={"error": "No.", "code": "forbidden", "remedy": "x"})
    )
    paths = [
        make_file(folder, 2 * CHUNK, LONG), make_file(folder, 21 * CHUNK, "large.tif"), make_file(folder, 9, "x.exe"),
    ]  # fmt: skip
    drop(page, *paths)
    for path in paths:
        expect(row(page, path.name)).to_have_attribute("data-state", "failed")
    row(page, LONG).locator("summary").click()


def left_unfinished(page: Page, server: Gunicorn, folder: Path) -> None:
    visit_widget(page, server)
    wire = Wire(page, open_for=3)
    pick(page, make_file(folder, 5 * CHUNK, LONG), make_file(folder, 8 * CHUNK, "b.tif"))
    wire.wait_for(3)
    page.reload()
    expect(page.locator(".unfinished")).to_be_visible()


def names_of_all_kinds(page: Page, server: Gunicorn, folder: Path) -> None:
    visit_widget(page, server, parallel=1)
    Wire(page, open_for=0)
    names = ["تقرير المسح ٢٠٢٤.tif", "photo\u202egpj.exe", MARKUP, "two\nlines.txt", "👩🏽‍🚀 🗺️.laz", "x"]
    paths = [make_file(folder, 3 * CHUNK, name) for name in names]
    pick(page, *paths)
    make_picture(folder / "wide.png", 400, 20)
    make_picture(folder / "high.png", 20, 400)
    pick(page, folder / "wide.png", folder / "high.png", paths[1])
    expect(page.locator(".thumbnail.picture")).to_have_count(2)
    expect(page.locator(".note")).to_be_visible()


def arrived(page: Page, server: Gunicorn, folder: Path) -> None:
    visit_widget(page, server)
    paths = [make_picture(folder / "map.png"), make_file(folder, 5 * CHUNK, LONG), make_file(folder, 0, "empty.txt")]
    pick(page, *paths)
    for path in paths:
        expect(row(page, path.name)).to_have_attribute("data-state", "done")


def in_a_form(page: Page, server: Gunicorn, folder: Path) -> None:
    page.goto(f"{server.origin}/form")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".note")).to_be_visible()


def without_script(page: Page, server: Gunicorn, folder: Path) -> None:
    page.route("**/*.js", lambda route: route.abort())
    page.goto(server.url)
    hurry(page)
    expect(button(page, "Upload")).to_be_visible()


def plain_answer(page: Page, server: Gunicorn, folder: Path) -> None:
    without_script(page, server, folder)
    paths = [make_file(folder, 30, "a.tif"), make_file(folder, 40_000, LONG)]
    page.locator("input[type=file]").set_input_files(paths)
    button(page, "Upload").click()
    expect(page.get_by_role("heading", name="It has arrived")).to_be_visible()


def own_page_at_first(page: Page, server: Gunicorn, folder: Path) -> None:
    page.goto(server.url)
    expect(page.locator(".drop")).to_be_visible()


def own_page(page: Page, server: Gunicorn, folder: Path) -> None:
    page.goto(server.url)
    pick(page, make_file(folder, 12_345, LONG))
    expect(page.locator("upload-helper-list [data-state=finished]")).to_be_visible()
    wire = Wire(page, open_for=1)
    pick(page, make_file(folder, 9_000_000, "half.tif"))
    wire.wait_for(1)
    # As another browser of the same person sees it.
    page.evaluate("localStorage.clear()")
    page.reload()
    expect(page.locator("upload-helper-list progress")).to_be_visible()


def own_page_in(page: Page, server: Gunicorn, folder: Path, language: str) -> None:
    page.context.add_cookies([{"name": "language", "value": language, "domain": "127.0.0.1", "path": "/"}])
    own_page(page, server, folder)


def own_page_in_german(page: Page, server: Gunicorn, folder: Path) -> None:
    own_page_in(page, server, folder, "de")


def own_page_in_russian(page: Page, server: Gunicorn, folder: Path) -> None:
    own_page_in(page, server, folder, "ru")


def error_page(page: Page, server: Gunicorn, folder: Path) -> None:
    page.goto(f"{server.url}/{'0' * 32}")
    page.locator("summary").click()


STATES: list[Callable[[Page, Gunicorn, Path], None]] = [
    empty, held_over, disabled, under_way, interrupted, offline, failed, left_unfinished, names_of_all_kinds, arrived,
    in_a_form, without_script, plain_answer, own_page_at_first, own_page, own_page_in_german, own_page_in_russian,
    error_page,
]  # fmt: skip


@pytest.mark.parametrize("reach", STATES, ids=lambda state: state.__name__)
def test_state(page, server, tmp_path, reach):
    reach(page, server, tmp_path)
    page.evaluate(AXE.read_text())
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for width in (1280, 320):
            page.set_viewport_size({"width": width, "height": 800})
            photograph(page, f"{reach.__name__}-{scheme}-{width}")
            assert sticking_out(page, width) == []
            assert faults(page) == []
    assert_fits_otherwise(page, reach.__name__)


def assert_fits_otherwise(page: Page, name: str) -> None:
    """Look at longer words, at colours that are the person's own, and at text of twice the size (WCAG 2.2, 1.4.4)."""
    for language in ("de", "ru") if page.locator("upload-helper").count() else ():
        page.locator("upload-helper").evaluate("(widget, language) => { widget.lang = language; }", language)
        photograph(page, f"{name}-{language}-320")
        assert sticking_out(page, 320) == []
    page.emulate_media(color_scheme="light", forced_colors="active")
    photograph(page, f"{name}-forced-320")
    page.emulate_media(forced_colors="none")
    page.set_viewport_size({"width": 640, "height": 800})
    page.evaluate("document.documentElement.style.fontSize = '200%'; document.body.style.fontSize = '1rem'")
    photograph(page, f"{name}-twice-640")
    assert sticking_out(page, 640) == []


def photograph(page: Page, name: str) -> None:
    if PICTURES:
        page.screenshot(path=f"{PICTURES}/{name}.png", full_page=True)


def faults(page: Page) -> list[str]:
    """Return what axe-core finds wrong."""
    # All results together are megabytes, on their way for longer than the search takes.
    run = "tags => axe.run(document, { runOnly: tags, resultTypes: ['violations'] }).then((found) => found.violations)"
    found = page.evaluate(run, RULES)
    return [f"{v['id']}: {v['help']} {[node['html'][:200] for node in v['nodes']]}" for v in found]


def sticking_out(page: Page, width: int) -> list[str]:
    """Return what is wider than the screen, in the widget's shadow as well."""
    return page.evaluate(
        """width => {
            const inside = (root) => [...root.querySelectorAll("main, main *, .root, .root *")].flatMap((e) => (
                [e, ...(e.shadowRoot ? inside(e.shadowRoot) : [])]
            ));
            const wide = inside(document).filter((e) => e.getBoundingClientRect().right > width + 0.5);
            const names = wide.map((e) => `${e.localName}.${e.getAttribute("class")}`);
            return document.documentElement.scrollWidth > width ? ["the page", ...names] : names;
        }""",
        width,
    )
