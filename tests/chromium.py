"""Debian's chromium, for the tests that need a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

SWITCHES = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
# Milliseconds; the machine may have other things to do.
PATIENCE = 20_000


@contextmanager
def launch(*switches: str) -> Iterator[Browser]:
    """Start chromium, with further switches perhaps, and end it with the block."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=[*SWITCHES, *switches])
        yield browser
        browser.close()
