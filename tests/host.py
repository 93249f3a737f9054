"""A host application as a user would write it, for the tests to serve; its settings come from the environment."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os

from flask import Flask, jsonify, request

import upload_helper as uh


@dataclasses.dataclass
class ImportRequest:
    uploadUid: str  # noqa: N815
    projectUid: str = ""  # noqa: N815


@dataclasses.dataclass
class ImportResponse:
    fileName: str  # noqa: N815
    totalSize: int  # noqa: N815
    sha256: str


def owner() -> str | None:
    return request.headers.get("X-User")


def make_app(**config: object) -> Flask:
    """Return the host: blueprint at /uploads, actions at /_, a plain view at /plain. X-User is who asks."""
    app = Flask("host")
    app.config.update(config)
    helper = uh.UploadHelper(app, authorize=lambda access: request.headers.get("X-Role") != "none", identify=owner)
    app.register_blueprint(helper.blueprint(), url_prefix="/uploads")
    app.register_blueprint(make_actions())

    @app.post("/plain")
    def plain() -> object:
        return jsonify(helper.handle_chunk_request(request))

    return app


@functools.cache
def make_actions() -> uh.Actions:
    """Return the actions of all hosts: they know nothing of the application, and their classes are made only once."""
    actions = uh.Actions("survey", __name__, url_prefix="/_")

    @actions.api("surveyUpload")
    def upload(req: object, p: uh.ChunkRequest) -> uh.ChunkResponse:
        return uh.current_helper.handle_chunk_request(req, p)

    @actions.api("surveyStatus")
    def status(req: object, p: uh.StatusRequest) -> uh.StatusResponse:
        return uh.current_helper.handle_status_request(req, p)

    @actions.api("surveyImport")
    def import_survey(req: object, p: ImportRequest) -> ImportResponse:
        upload = uh.current_helper.get_upload(p.uploadUid)
        with upload.open() as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return ImportResponse(upload.fileName, upload.totalSize, digest)

    @actions.api("surveyBroken")
    def broken(req: object, p: ImportRequest) -> ImportResponse:
        raise RuntimeError("a mistake in the host")

    return actions


def app() -> Flask:
    """Return the host for gunicorn: ``gunicorn 'host:app()'`` with the settings as JSON in HOST_CONFIG."""
    return make_app(**json.loads(os.environ["HOST_CONFIG"]))
