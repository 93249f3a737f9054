"""The demo: a page on which a person uploads a file, and the application behind it."""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
import tempfile
from pathlib import Path

from flask import Flask, jsonify, render_template, session
from flask.typing import ResponseReturnValue

from .extension import UploadHelper
from .state import Access


def create_app() -> Flask:
    """Return the application: anybody may upload, and sees what the same browser has uploaded."""
    app = Flask("upload_helper")
    folder = os.environ.get("UPLOAD_HELPER_DEMO_FOLDER") or tempfile.mkdtemp(prefix="upload-helper-demo-")
    app.config.from_mapping(
        SECRET_KEY=os.environ.get("UPLOAD_HELPER_DEMO_SECRET") or secrets.token_hex(),
        UPLOAD_HELPER_FOLDER=folder,
    )

    def browser() -> str:
        """Tell browsers apart by a random number in the session."""
        return str(session.setdefault("browser", secrets.token_hex(16)))

    def anybody(_: Access) -> bool:
        return True

    helper = UploadHelper(app, authorize=anybody, identify=browser)
    app.register_blueprint(helper.blueprint(), url_prefix="/uploads")

    @app.get("/")
    def page() -> str:
        browser()
        return render_template("upload_helper/demo.html")

    @app.get("/digest/<uid>")
    def digest(uid: str) -> ResponseReturnValue:
        upload = helper.get_upload(uid)
        with upload.open() as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return jsonify(fileName=upload.fileName, totalSize=upload.totalSize, sha256=sha256)

    return app


def serve(host: str, port: int, workers: int, threads: int, folder: str | None) -> None:
    """Become gunicorn with the demo; returns only if gunicorn is not installed."""
    os.environ["UPLOAD_HELPER_DEMO_FOLDER"] = str(Path(folder or tempfile.mkdtemp(prefix="upload-helper-demo-")))
    os.environ["UPLOAD_HELPER_DEMO_SECRET"] = secrets.token_hex()
    arguments = ["--bind", f"{host}:{port}", "--workers", str(workers), "--threads", str(threads), "--worker-class"]
    command = [sys.executable, "-m", "gunicorn", *arguments, "gthread", "upload_helper.demo:create_app()"]
    os.execv(sys.executable, command)  # noqa: S606
