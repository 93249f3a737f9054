"""A host application with a page for each browser library, and the libraries' files, for the tests to serve."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

from flask import Flask, Response, request, send_from_directory

import upload_helper as uh

PAGES = Path(__file__).parent / "browser"
LIBRARIES = Path(__file__).parent / "node" / "node_modules"


def authorize(access: uh.Access) -> bool:
    """Allow everything, but to a request which says in X-Role that it is to fail."""
    if request.headers.get("X-Role") == "unlucky":
        raise uh.StorageFullError("There is no room at the moment.")
    return request.headers.get("X-Role") != "none"


def visitor() -> str | None:
    return request.cookies.get("visitor")


def add_pages(app: Flask) -> None:
    """Add the pages, each of which tells who its visitor is by a cookie, and what they load."""

    @app.get("/pages/<name>")
    def page(name: str) -> Response:
        """Send a page; each argument of the query is a text of it, to be replaced by the argument's value."""
        text = (PAGES / name).read_text(encoding="utf-8")
        for old, new in request.args.items():
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        answer = Response(text)
        if visitor() is None:
            answer.set_cookie("visitor", secrets.token_urlsafe(), httponly=True, samesite="Lax")
        return answer

    @app.get("/node_modules/<path:path>")
    def library(path: str) -> Response:
        return send_from_directory(LIBRARIES, path, max_age=3600)


def app() -> Flask:
    """Return the host for gunicorn, with the settings as JSON in HOST_CONFIG."""
    host = Flask("host")
    host.config.update(json.loads(os.environ["HOST_CONFIG"]))
    helper = uh.UploadHelper(host, authorize=authorize, identify=visitor)
    host.register_blueprint(helper.blueprint(), url_prefix="/uploads")
    add_pages(host)
    return host
