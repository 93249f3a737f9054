"""Debian's chromium, for the tests that need a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

# Every window would get two processes more for the list below the address bar, which take as long as the page.
_IDLE_FEATURES = [
    "SpareRendererForSitePerProcess", "WebUIOmniboxAimPopup", "WebUIOmniboxFullPopup", "WebUIOmniboxPopup",
]  # fmt: skip
# Chromium hears the last such switch only, and playwright's comes first: these are of its list.
_UNWANTED_FEATURES = [
    "AimEnabled", "AvoidCorsURLLoaderRestartOnRedirect", "AvoidUnnecessaryBeforeUnloadCheckSync",
    "DestroyProfileOnBrowserClose", "HttpsFirstBalancedModeAutoEnable", "HttpsUpgrades", "MediaRouter",
    "NetworkTimeServiceQuerying", "OptimizationHints", "PaintHolding", "PreconnectToSearch",
    "ThirdPartyStoragePartitioning",
]  # fmt: skip
SWITCHES = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
    f"--disable-features={','.join([*_UNWANTED_FEATURES, *_IDLE_FEATURES])}",
]  # fmt: skip
# Milliseconds; the machine may have other things to do.
PATIENCE = 20_000


def _program() -> str | None:
    """Return the lighter one of those that are there: the same engine without what people see around the page."""
    return shutil.which("chromium-headless-shell") or shutil.which("chromium")


@contextmanager
def launch(*switches: str) -> Iterator[Browser]:
    """Start chromium, with further switches perhaps, and end it with the block."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_program(), args=[*SWITCHES, *switches])
        yield browser
        browser.close()
