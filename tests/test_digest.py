"""What hashes the pieces of a file in the browser."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page

from chromium import PATIENCE, launch
from servers import Gunicorn

COUNT = 24
# Asks for many digests while the browser throws away whatever nobody refers to.
DIGESTS = """async ([count, size, patience]) => {
    const { Hasher } = await import("/uploads/static/digest.js");
    const collecting = setInterval(() => gc(), 1);
    const hasher = new Hasher();
    window.keep = hasher;
    const file = document.querySelector("input").files[0];
    const digests = [];
    const hash = async () => {
        for (let n = 0; n < count; n += 1) digests.push(await hasher.sha256(file.slice(n, n + size)));
    };
    await Promise.race([hash(), new Promise((resolve) => setTimeout(resolve, patience))]);
    clearInterval(collecting);
    return digests;
}"""


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("digest") / "uploads"
    with Gunicorn(folder, app="page_host:app()", workers=1) as server, launch("--js-flags=--expose-gc") as browser:
        opened = browser.new_page()
        opened.goto(f"{server.origin}/pages/uploader.html")
        yield opened


@pytest.mark.parametrize("size", [0, 1, 5 << 20])
def test_digests_while_memory_is_collected(page, tmp_path, size):
    data = bytes(range(251)) * (size // 250 + 1)
    path = tmp_path / "file"
    path.write_bytes(data)
    page.reload()
    page.set_input_files("#files", path)
    digests = page.evaluate(DIGESTS, [COUNT, size, PATIENCE])
    assert digests == [f"sha256:{hashlib.sha256(data[n : n + size]).hexdigest()}" for n in range(COUNT)]
