"""What docs/page.md prints is true: its tables match the code, its snippets run in a browser."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator

import pytest
from flask import send_from_directory, session
from jinja2 import DictLoader
from playwright.sync_api import Page, expect
from werkzeug.serving import make_server

from chromium import PATIENCE
from chunks import upload
from servers import PLUGIN, wait_until
from test_docs import run, snippets
from visitors import make_file, pick, row, visit

expect.set_options(timeout=PATIENCE)
STATIC = PLUGIN / "upload_helper" / "static"
TEXT = (PLUGIN.parent / "docs" / "page.md").read_text()


def named(heading: str, column: str) -> list[str]:
    """Return what the first column of a table says; several in a cell are several."""
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = section.partition(f"| {column} |")[2].split("\n\n")[0].splitlines()[2:]
    return [name for line in rows for name in re.findall(r"`([^`]+)`", line.split("|")[1])]


def test_options_of_the_macro_are_in_the_table():
    source = (PLUGIN / "upload_helper/templates/upload_helper/widget.html").read_text()
    (arguments,) = re.findall(r"macro upload_widget\(([^%]*)\) -%", source)
    assert named("The macro", "option") == re.findall(r"(\w+)=", arguments)


def test_attributes_of_the_element_are_in_the_table():
    source = "".join((STATIC / name).read_text() for name in ("upload-helper.js", "settings.js"))
    read = set(re.findall(r'(?:get|has)Attribute\("([\w-]+)"\)|parsed\(\w+, "([\w-]+)"', source))
    (observed,) = re.findall(r"observedAttributes = \[([^\]]+)\]", source)
    names = {a or b for a, b in read} | set(re.findall(r'"([\w-]+)"', observed)) | {"disabled", "nonce"}
    shown = named("The element", "attribute")
    assert {name for name in shown if "/" not in name and "<" not in name and "[" not in name} == names


def test_members_of_the_element_are_in_the_table():
    source = (STATIC / "upload-helper.js").read_text()
    body = source.partition("export class UploadHelperElement")[2].partition("// ---- For the browser ----")[0]
    members = set(re.findall(r"^  (?:get )?([a-z]\w+)\([^)]*\) \{", body, re.MULTILINE))
    fields = set(re.findall(r"^  ([a-z]\w+) = ", body, re.MULTILINE))
    shown = {name.partition("(")[0] for name in named("The element", "member")}
    assert shown == (members | fields) - {"endpoint", "name", "type"}


def test_events_of_the_element_are_in_the_table():
    source = (STATIC / "upload-helper.js").read_text()
    sent = {f"upload-{name}" for name in re.findall(r'#emit\("(\w+)"', source)}
    assert set(named("The element", "event")) == sent | {"change"}


def test_options_of_the_class_are_in_the_table():
    (defaults,) = re.findall(r"static defaults = \{(.*?)\};", (STATIC / "uploader.js").read_text(), re.DOTALL)
    assert named("The class", "option") == re.findall(r"(\w+):", defaults)


def test_custom_properties_and_parts_are_those_of_the_style_sheet():
    used = re.findall(r"var\((--upload-helper-[\w-]+)", (STATIC / "upload-helper.css").read_text())
    assert sorted(named("Looks", "property")) == sorted(set(used))
    scripts = "".join((STATIC / name).read_text() for name in ("frame.js", "row.js"))
    (listed,) = re.findall(r"there are the parts (.*?): `", TEXT, re.DOTALL)
    assert set(re.findall(r"`(\w+)`", listed)) == set(re.findall(r'part: "(\w+)"', scripts))


def test_templates_are_in_the_table():
    folder = PLUGIN / "upload_helper" / "templates" / "upload_helper"
    assert set(named("Templates", "template")) == {f"upload_helper/{p.name}" for p in folder.iterdir()} - {
        "upload_helper/demo.html"
    }


def test_printed_form_of_flask_wtf(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (snippet,) = snippets("python", "page.md", "With Flask-WTF")
    (form,) = snippets("jinja", "page.md", about="file=wtf.html")
    app = run(snippet).app
    app.secret_key = "x"
    app.jinja_loader = DictLoader({"wtf.html": form.text})
    client = app.test_client()
    (token,) = re.findall(r'name="csrf_token"[^>]* value="([^"]+)"', client.get("/survey").text)
    uid = upload(client, b"12345", 5, headers={"X-CSRFToken": token})
    fields = {"csrf_token": token, "survey": uid}
    assert f"&#34;{uid}&#34;" in client.post("/survey", data=fields).text
    assert client.post("/survey", data={**fields, "title": "Moor"}).text == "Thank you for file.bin."
    assert client.post("/survey", data={"survey": uid, "title": "Moor"}).status_code == 400
    gone = client.post("/survey", data={**fields, "title": "Moor", "survey": "0" * 32}).text
    assert "</upload-helper> There is no such upload." in gone


def test_shape_of_what_is_unfinished():
    (shape,) = re.findall(r"@returns \{Promise<\{(.*?)\}\[\]>\}", (STATIC / "uploader.js").read_text(), re.DOTALL)
    members = re.findall(r"(\w+):", shape)
    assert "identifier" in members
    assert f"`[{{{', '.join(members)}}}]`" in TEXT


# --- in a browser ---


@pytest.fixture
def page(browser) -> Iterator[Page]:
    with visit(browser) as opened:
        yield opened


@pytest.fixture
def host(tmp_path, monkeypatch) -> Iterator[str]:
    """Serve the printed application with the printed pages; yield its origin."""
    monkeypatch.chdir(tmp_path)
    (snippet,) = snippets("python", "page.md", "In a form")
    app = run(snippet).app
    app.secret_key = "x"
    app.config["TEMPLATES_AUTO_RELOAD"] = True
    app.instance_path = str(tmp_path)
    app.template_folder = str(tmp_path / "pages")
    (tmp_path / "pages").mkdir()
    (form,) = snippets("jinja", "page.md", about="file=survey.html")
    (tmp_path / "pages" / "survey.html").write_text(form.text)

    @app.get("/login")
    def login() -> str:
        session["user"] = "ann"
        return ""

    app.add_url_rule("/pages/<name>", view_func=lambda name: send_from_directory(tmp_path / "pages", name))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_printed_form_gets_the_file(page, host, tmp_path):
    page.goto(f"{host}/login")
    page.goto(f"{host}/survey")
    path = make_file(tmp_path, 100, "a.tif")
    pick(page, path)
    expect(row(page, "a.tif")).to_have_attribute("data-state", "done")
    page.get_by_role("button", name="Send").click()
    # Without a title it comes back, and with what has arrived.
    expect(row(page, "a.tif")).to_have_attribute("data-state", "done")
    page.get_by_role("textbox", name="Title").fill("Moor")
    page.get_by_role("button", name="Send").click()
    moved = wait_until(lambda: list((tmp_path / "surveys").glob("*")), what="the moved file")
    assert [file.read_bytes() for file in moved] == [path.read_bytes()]


def test_printed_element_and_scripts(page, host, tmp_path):
    (element,) = snippets("html", "page.md")
    listener, sender = snippets("js", "page.md")
    (tmp_path / "pages" / "element.html").write_text(f"<!doctype html>{element.text}<script>{listener.text}</script>")
    (tmp_path / "pages" / "sender.js").write_text(sender.text)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(f"{host}/login")
    page.goto(f"{host}/pages/element.html")
    pick(page, make_file(tmp_path, 100, "a.tif"))
    expect(row(page, "a.tif")).to_have_attribute("data-state", "done")
    (uid,) = page.locator("upload-helper").evaluate("widget => widget.value")
    assert f"a.tif is /uploads/{uid}" in said
    sent = page.evaluate("""async () => {
        const { send } = await import("/pages/sender.js");
        return send([new File(["x"], "b.exe"), new File(["12345"], "b.tif")]);
    }""")
    assert [(file["fileName"], file["totalSize"]) for file in sent] == [("b.tif", 5)]
    assert "Files of this kind are not taken; these are: .tif. Choose another file." in said
    assert page.context.request.get(host + sent[0]["url"]).body() == b"12345"


def test_printed_style(page, host, tmp_path):
    (css,) = snippets("css", "page.md")
    (element,) = snippets("html", "page.md")
    (tmp_path / "pages" / "style.html").write_text(f"<!doctype html><style>{css.text}</style>{element.text}")
    page.goto(f"{host}/pages/style.html")
    expect(page.locator(".drop")).to_have_css("border-radius", "0px")
    expect(page.locator("upload-helper")).to_have_css("margin-bottom", "24px")
    expect(page.locator(".choose strong").first).to_have_css("color", "rgb(122, 31, 162)")
