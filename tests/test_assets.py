"""Scripts and style sheet: where they are, which are announced, and how long a browser keeps them."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from chromium import PATIENCE, launch
from servers import PLUGIN, Gunicorn
from upload_helper.views import assets
from visitors import visit

expect.set_options(timeout=PATIENCE)
STATIC = PLUGIN / "upload_helper" / "static"
BROWSER = {"Accept": "text/html", "X-User": "ann"}
WIDGET = "upload-helper.js"
# Seen by the page: what it has asked for, and whether bytes have come over the wire for it.
FETCHED = """() => performance.getEntriesByType("resource").filter(({ name }) => name.includes("/static/"))
    .map(({ name, transferSize }) => [name.replace(/.*\\//, ""), transferSize])"""


def links(page: str, kind: str) -> list[str]:
    return re.findall(rf'{kind}="([^"]*/static/[^"]*)"', page)


def test_whatever_a_page_needs_is_of_this_version_and_kept(client):
    page = client.get("/uploads", headers=BROWSER).text
    found = links(page, "href") + links(page, "src")
    assert len(found) > 20
    for address in found:
        assert address.startswith(f"/uploads/static/{assets.version()}/")
        answer = client.get(address, buffered=True)
        assert answer.status_code == 200
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"


def test_modules_are_announced_before_they_are_asked_for(client):
    page = client.get("/uploads", headers=BROWSER).text
    announced = re.findall(r'<link rel="modulepreload" href="[^"]*/([^"/]*)">', page)
    imported = set(re.findall(r'from "\./([^"]*)"|^import "\./([^"]*)"', sources(announced), re.MULTILINE))
    assert {a or b for a, b in imported} == set(announced)
    assert len(announced) == len(set(announced))


def sources(names: list[str]) -> str:
    return "\n".join((STATIC / name).read_text() for name in [WIDGET, *names])


def test_version_changes_with_every_file(tmp_path, monkeypatch):
    for name in ("a.js", "b.css"):
        (tmp_path / name).write_text("one")
    monkeypatch.setattr(assets, "_FOLDER", tmp_path)
    seen = set()
    for name in ("", "a.js", "b.css"):
        if name:
            (tmp_path / name).write_text("two")
        seen.add(assets.version.__wrapped__())
    assert len(seen) == 3


@pytest.mark.parametrize("path", ["0123456789abcdef/upload-helper.js", "upload-helper.js"])
def test_page_of_another_version_gets_the_file_but_does_not_keep_it(client, path):
    answer = client.get(f"/uploads/static/{path}", buffered=True)
    assert answer.data == (STATIC / WIDGET).read_bytes()
    assert answer.cache_control.no_cache
    assert answer.headers["ETag"]


def test_page_of_another_version_keeps_nothing_though_the_host_keeps_its_own_files(make_host):
    host = make_host()
    host.config["SEND_FILE_MAX_AGE_DEFAULT"] = 31536000
    answer = host.test_client().get("/uploads/static/0123456789abcdef/upload-helper.js", buffered=True)
    assert answer.headers["Cache-Control"] == "no-cache, max-age=0"


@pytest.mark.parametrize("name", ["nothing.js", "..", "%2e%2e", "..%2f__init__.py", "%2fetc%2fpasswd", "a%00.js"])
def test_what_is_not_there_is_not_found(client, name):
    answer = client.get(f"/uploads/static/{assets.version()}/{name}", buffered=True)
    assert answer.status_code in (404, 308)


def test_second_visit_fetches_nothing_again(folder, tmp_path):
    with (
        Gunicorn(folder, app="page_host:app()", workers=1) as server,
        launch() as browser,
        visit(browser) as page,
    ):
        fetched = []
        for _ in range(2):
            page.goto(server.url)
            expect(page.locator("upload-helper .choose")).to_be_visible()
            fetched.append(dict(page.evaluate(FETCHED)))
        first, second = fetched
        assert {WIDGET, "upload-helper.css", "texts.js"} <= first.keys() == second.keys()
        assert all(first.values())
        assert not any(second.values())
