"""A host with pages that use the widget, under a strict security policy; its settings come from the environment."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from flask import Flask, Response, render_template, request, send_from_directory
from flask_wtf.csrf import CSRFProtect

import upload_helper as uh

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def make_app(*, csrf: bool = False, csrf_seconds: int = 3600, templates: str = "host_pages", **config: object) -> Flask:
    """Return the host. The cookie `user` says who asks, `role` = none may nothing; `templates` is a folder here."""
    app = Flask("widget_host", static_folder=None, template_folder=str(Path(__file__).parent / templates))
    app.config.update(config, SECRET_KEY="x", WTF_CSRF_TIME_LIMIT=csrf_seconds)
    helper = uh.UploadHelper(
        app,
        authorize=lambda access: request.cookies.get("role") != "none",
        identify=lambda: request.cookies.get("user"),
        language=lambda: request.cookies.get("language"),
        texts={"fr": {"choose.many": "Choisir des fichiers"}, "en": {"drop.one": "or let it fall"}},
    )
    app.register_blueprint(helper.blueprint(), url_prefix="/uploads")
    if csrf:
        CSRFProtect(app)

    @app.get("/")
    def widget() -> str:
        return render_template("widget.html", options=json.loads(request.args.get("options", "{}")))

    @app.get("/host.css")
    def styles() -> Response:
        return send_from_directory(str(app.template_folder), "host.css")

    @app.route("/form", methods=["GET", "POST"])
    def form() -> str:
        title = request.form.get("title", "")
        surveys = helper.claim("survey") if request.method == "POST" else []
        if title or request.method == "GET":
            return render_template("form.html", title=title, surveys=[described(s) for s in surveys])
        return render_template("form.html", title="", surveys=[], kept=surveys, problem="Say a title.")

    @app.after_request
    def protect(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = POLICY
        return response

    return app


def described(upload: uh.Upload) -> str:
    with upload.open() as file:
        return f"{upload.fileName} {upload.totalSize} {hashlib.file_digest(file, 'sha256').hexdigest()}"


def app() -> Flask:
    """Return the host for gunicorn: ``gunicorn 'widget_host:app()'`` with the settings as JSON in HOST_CONFIG."""
    return make_app(**json.loads(os.environ["HOST_CONFIG"]))
