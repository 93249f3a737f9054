"""A host with the blueprint and the pages in tests/pages, for tests in a browser; its settings come from the environment."""

from __future__ import annotations

import json
import os
from pathlib import Path

from flask import Flask, Response, request, send_from_directory

import upload_helper as uh

PAGES = Path(__file__).parent / "pages"


def make_app(**config: object) -> Flask:
    """Return the host: pages at /pages, blueprint at /uploads. The cookie `user` is who asks, X-Role: none may not."""
    app = Flask("page_host", static_folder=None)
    app.config.update(config)
    helper = uh.UploadHelper(
        app,
        authorize=lambda access: request.headers.get("X-Role") != "none",
        identify=lambda: request.cookies.get("user", ""),
    )
    app.register_blueprint(helper.blueprint(), url_prefix="/uploads")

    @app.get("/pages/<name>")
    def page(name: str) -> Response:
        return send_from_directory(PAGES, name)

    return app


def app() -> Flask:
    """Return the host for gunicorn: ``gunicorn 'page_host:app()'`` with the settings as JSON in HOST_CONFIG."""
    return make_app(**json.loads(os.environ["HOST_CONFIG"]))
