"""The host whose pages a browser uploads from: those of the documentation, and one with the widget."""

from __future__ import annotations

from pathlib import Path

from flask import Flask, request

import browser_pages

WIDGET = Path(__file__).parent / "pages" / "widget.html"


def app() -> Flask:
    """Return the host for gunicorn: ``gunicorn 'bench.site:app()'`` with the settings as JSON in HOST_CONFIG."""
    host = browser_pages.app()

    @host.get("/pages/widget.html")
    def widget() -> str:
        """Send the page of the widget, with the Uploader's options as they are in the query."""
        text = WIDGET.read_text(encoding="utf-8")
        return text.replace("options = {}", f"options = {request.args.get('options', '{}')}")

    @host.get("/favicon.ico")
    def icon() -> tuple[str, int]:
        return "", 204

    return host
