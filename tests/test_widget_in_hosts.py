"""The widget among other things: other widgets, dialogs, styles and scripts of hosts, and what goes wrong on pages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from chromium import PATIENCE
from servers import Gunicorn, wait_until
from test_widget import assert_arrived, button, cookie, open_widget, paste, uploads, value
from visitors import CHUNK, Wire, hurry, make_file, pick, picker, row, visit

expect.set_options(timeout=PATIENCE)
HOST = "widget_host:app()"
SECOND = """() => {
    const second = document.createElement("upload-helper");
    second.id = "second";
    second.setAttribute("chunk-size", "65536");
    second.setAttribute("multiple", "");
    document.querySelector("main").append(second);
}"""
DIALOG = """
    const dialog = document.body.appendChild(document.createElement("dialog"));
    dialog.append(document.querySelector("#second"));
    dialog.showModal()
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Gunicorn]:
    with Gunicorn(tmp_path_factory.mktemp("hosts") / "uploads", app=HOST) as running:
        yield running


@pytest.fixture
def page(browser, request) -> Iterator[Page]:
    with visit(browser) as opened:
        cookie(opened, "user", request.node.name[-60:].encode().hex())
        yield opened


def second(page: Page):
    page.evaluate(SECOND)
    widget = page.locator("#second")
    expect(widget.locator(".drop")).to_be_visible()
    return widget


# --- several widgets ---


def test_two_widgets_keep_their_files_apart(page, server, tmp_path):
    open_widget(page, server, id="first")
    other = second(page)
    first_path, other_path = make_file(tmp_path, 10, "1.tif"), make_file(tmp_path, 20, "2.tif")
    page.locator("#first .choose input").set_input_files(first_path)
    other.locator(".choose input").set_input_files(other_path)
    assert_arrived(page, server, first_path, other_path)
    expect(page.locator("#first .item .name")).to_have_text(["1.tif"])
    expect(page.locator("#second .item .name")).to_have_text(["2.tif"])


def test_what_one_widget_goes_on_with_is_not_offered_by_the_other(page, server, tmp_path):
    open_widget(page, server, id="first")
    path = make_file(tmp_path, 9 * CHUNK)
    wire = Wire(page, open_for=2)
    pick(page, path)
    wire.wait_for(2)
    page.reload()
    wire.open(reloaded=True, count=0)
    other = second(page)
    expect(page.locator("#first .unfinished")).to_be_visible()
    expect(other.locator(".unfinished")).to_be_visible()
    page.locator("#first .choose input").set_input_files(path)
    # Else its button would delete what is under way.
    expect(other.locator(".unfinished")).to_be_hidden()
    wire.open()
    assert_arrived(page, server, path)
    expect(other.locator(".unfinished")).to_be_hidden()


def test_what_another_tab_has_finished_is_not_offered(page, server, tmp_path):
    open_widget(page, server)
    path = make_file(tmp_path, 9 * CHUNK)
    wire = Wire(page, open_for=2)
    pick(page, path)
    wire.wait_for(2)
    page.reload()
    expect(page.locator(".unfinished")).to_be_visible()
    tab = page.context.new_page()
    tab.goto(page.url)
    pick(tab, path)
    expect(row(tab)).to_have_attribute("data-state", "done")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator(".unfinished")).to_be_hidden()


# --- around it ---


def test_widget_that_is_moved_goes_on(page, server, tmp_path):
    open_widget(page, server)
    path = make_file(tmp_path, 9 * CHUNK)
    wire = Wire(page, open_for=2)
    pick(page, path)
    wire.wait_for(2)
    page.evaluate("document.body.prepend(document.querySelector('upload-helper'))")
    wire.open()
    assert_arrived(page, server, path)
    paste(page, "map.png")
    expect(page.locator(".item .name")).to_have_text([path.name, "map.png"])


def test_widget_that_is_taken_away_pauses(page, server, tmp_path):
    open_widget(page, server)
    path = make_file(tmp_path, 9 * CHUNK)
    wire = Wire(page, open_for=2)
    pick(page, path)
    wire.wait_for(2)
    page.evaluate("window.widget = document.querySelector('upload-helper'); widget.remove()")
    wait_until(lambda: page.evaluate("widget.items[0].state") == "paused", what="the pause")
    page.evaluate("document.querySelector('main').append(widget)")
    wire.open(reloaded=True)
    button(page, "Go on", path.name).click()
    assert_arrived(page, server, path)


@pytest.mark.parametrize(
    "hide",
    [
        "widget.parentNode.hidden = true",
        "widget.inert = true",
        DIALOG,
    ],
    ids=["hidden", "inert", "behind a dialog"],
)
def test_what_is_pasted_goes_to_a_widget_that_can_be_reached(page, server, hide):
    open_widget(page, server, id="first")
    second(page)
    page.evaluate(f"""() => {{
        const widget = document.querySelector("#first");
        const around = document.createElement("div");
        widget.replaceWith(around);
        around.append(widget);
        // What has come last is asked last.
        document.querySelector("main").append(document.querySelector("#second"));
        {hide};
    }}""")
    paste(page, "map.png")
    expect(page.locator("#second .item .name")).to_have_text(["map.png"])
    assert page.locator("#first .item").count() == 0


def test_widget_in_a_dialog(page, server, tmp_path):
    open_widget(page, server)
    page.evaluate("""() => {
        const dialog = document.createElement("dialog");
        dialog.append(document.querySelector("upload-helper"));
        document.body.append(dialog);
    }""")
    path = make_file(tmp_path, 10)
    pick(page, path)
    page.evaluate("document.querySelector('dialog').showModal()")
    assert_arrived(page, server, path)
    expect(row(page)).to_be_visible()
    button(page, "Remove", path.name).click()
    expect(picker(page)).to_be_focused()


def test_fieldset_that_is_disabled_closes_the_widget(page, server, tmp_path):
    page.goto(f"{server.origin}/form")
    page.evaluate("""() => {
        const fieldset = document.createElement("fieldset");
        const widget = document.querySelector("upload-helper");
        widget.replaceWith(fieldset);
        fieldset.append(widget);
        fieldset.disabled = true;
    }""")
    expect(picker(page)).to_be_disabled()
    paste(page, "map.png")
    page.evaluate("document.querySelector('fieldset').disabled = false")
    expect(picker(page)).to_be_enabled()
    pick(page, make_file(tmp_path, 10))
    expect(page.locator(".item .name")).to_have_text(["survey.tif"])


def test_form_that_is_not_checked_gets_only_what_has_arrived(page, server, tmp_path):
    page.goto(f"{server.origin}/form")
    arrived, late = make_file(tmp_path, 10, "arrived.tif"), make_file(tmp_path, 9 * CHUNK, "late.tif")
    pick(page, arrived)
    expect(row(page, arrived.name)).to_have_attribute("data-state", "done")
    wire = Wire(page, open_for=1)
    pick(page, late)
    wire.wait_for(1)
    sent = page.evaluate("new FormData(document.querySelector('form')).getAll('survey')")
    assert sent == value(page)
    assert len(sent) == 1


def test_page_that_comes_out_of_the_cache_goes_on(page, server, tmp_path):
    open_widget(page, server)
    path = make_file(tmp_path, 10)
    pick(page, path)
    assert_arrived(page, server, path)
    page.evaluate("""() => {
        dispatchEvent(new PageTransitionEvent("pagehide", { persisted: true }));
        dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true }));
    }""")
    other = make_file(tmp_path, 20, "2.tif")
    pick(page, other)
    assert_arrived(page, server, path, other)


# --- what is clicked and said ---


def test_click_on_a_file_does_not_scroll_to_the_first_button(page, server, tmp_path):
    open_widget(page, server)
    paths = [make_file(tmp_path, 10 + number, f"{number:02}.tif") for number in range(20)]
    pick(page, *paths)
    assert_arrived(page, server, *paths)
    last = row(page, "19.tif").locator(".name")
    last.scroll_into_view_if_needed()
    before = page.evaluate("scrollY")
    last.click()
    assert page.evaluate("scrollY") == before > 0


def test_names_that_turn_text_around_are_shown_in_their_order(page, server, tmp_path):
    open_widget(page, server)
    path = make_file(tmp_path, 10, "photo\u202egpj.exe")
    pick(page, path)
    expect(page.locator(".item .name")).to_have_text("photogpj.exe")
    expect(page.locator(".item")).to_have_attribute("data-state", "done")
    pick(page, path)
    expect(page.locator(".note")).to_have_text("\u2068photogpj.exe\u2069 is in the list already.")


def test_many_files_are_told_of_together(page, server, tmp_path):
    page.clock.install()
    open_widget(page, server, parallel=1)
    page.evaluate("""() => {
        window.said = [];
        const region = document.querySelector("upload-helper").shadowRoot.querySelector("[role=status]");
        new MutationObserver(() => said.push(region.textContent)).observe(region, { childList: true });
    }""")
    wire = Wire(page, open_for=5)
    pick(page, *(make_file(tmp_path, 10 + number, f"{number}.tif") for number in range(10)))
    wire.wait_for(5)
    wait_until(lambda: page.wait_for_timeout(5) or page.evaluate("said.length"), what="words")
    for count in (8, 9):
        wire.open(count=count - len(wire.acknowledged))
        wire.wait_for(count)
        page.clock.fast_forward(1000)
    wire.open()
    expect(page.locator(".overall")).to_contain_text("10 files have arrived.")
    page.clock.fast_forward(1000)
    told = [int(count) for count in re.findall(r"(\d+) files? ha(?:s|ve) arrived", " ".join(page.evaluate("said")))]
    assert sum(told) == 10
    assert len(told) <= 2


# --- mistakes of hosts ---


@pytest.mark.parametrize(
    ("attribute", "text"),
    [
        ("texts", "{no json"), ("texts", "[1]"), ("texts", "null"), ("value", "{}"), ("value", "[1, {}, null]"),
        ("headers", '"x"'), ("headers", "{'X': 1}"), ("max-file-size", "1 GB"), ("parallel", "many"),
        ("parallel", "-1"), ("chunk-size", "NaN"),
    ],
)  # fmt: skip
def test_attribute_with_a_mistake_in_it_is_as_none(page, server, tmp_path, attribute, text):
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    open_widget(page, server)
    page.evaluate(
        """([attribute, text]) => {
            const widget = document.createElement("upload-helper");
            widget.setAttribute(attribute, text);
            document.querySelector("upload-helper").replaceWith(widget);
        }""",
        [attribute, text],
    )
    path = make_file(tmp_path, 10)
    pick(page, path)
    assert_arrived(page, server, path)
    assert "NaN" not in page.locator(".hint").text_content()
    assert any(attribute in line for line in said) or attribute in ("max-file-size", "parallel", "chunk-size", "value")


# Who waits, sees it; the other times nobody has to.
@pytest.mark.parametrize(("missing", "waits"), [("upload-helper.js", True), ("row.js", False), ("texts.js", False)])
def test_form_for_browsers_without_script_appears_where_it_does_not_come(page, server, tmp_path, missing, waits):
    page.route(f"**/{missing}", lambda route: route.abort())
    page.goto(f"{server.origin}/?options={json.dumps({})}")
    if not waits:
        hurry(page)
    expect(page.get_by_text("Without JavaScript")).to_be_visible()
    page.locator("input[type=file]").set_input_files(make_file(tmp_path, 10))
    button(page, "Upload").click()
    expect(page.get_by_role("heading", name="It has arrived")).to_be_visible()
    assert [upload["fileName"] for upload in uploads(page.context, server.url)] == ["survey.tif"]


def test_form_for_browsers_that_lack_what_the_widget_needs(browser, server, tmp_path):
    with browser.new_context() as context:
        page = context.new_page()
        page.add_init_script("delete HTMLElement.prototype.attachInternals")
        page.goto(f"{server.origin}/")
        hurry(page)
        page.locator("input[type=file]").set_input_files(make_file(tmp_path, 10))
        button(page, "Upload").click()
        expect(page.get_by_role("heading", name="It has arrived")).to_be_visible()


def test_widget_whose_style_sheet_does_not_come_works(page, server, tmp_path):
    page.route("**/upload-helper.css", lambda route: route.abort())
    open_widget(page, server)
    path = make_file(tmp_path, 10)
    pick(page, path)
    assert_arrived(page, server, path)
    assert page.locator("upload-helper svg").first.bounding_box()["width"] < 100


# --- many files ---


def test_page_stays_responsive_with_five_hundred_files(page, server):
    open_widget(page, server)
    longest = page.evaluate("""async () => {
        let longest = 0;
        new PerformanceObserver((list) => {
            longest = Math.max(longest, ...list.getEntries().map(({ duration }) => duration));
        }).observe({ type: "longtask" });
        const widget = document.querySelector("upload-helper");
        widget.add(Array.from({ length: 500 }, (_, number) => new File(["x"], `${number}.tif`)));
        await new Promise((resolve) => {
            widget.addEventListener("upload-done", () => widget.value.length > 20 && resolve());
        });
        return longest;
    }""")
    # Milliseconds. On an idle machine it is a tenth of that.
    assert longest < 1500
