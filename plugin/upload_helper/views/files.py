"""What is there: the list of uploads, the status of one, the finished file, and deleting."""

from __future__ import annotations

from contextlib import suppress

from flask import Response, request

from ..downloads import send_upload
from ..errors import Error, ForbiddenError, NoJobError, NotFoundError
from ..intake import query, respond
from ..protocols import structs
from ..protocols.chunked import StatusRequest
from ..state import current_state
from . import pages


def list_uploads() -> Response:
    """List the owner's uploads, or find one by the identifier that the client gave it: GET on the collection."""
    state = current_state()
    if "identifier" in request.args:
        return _status(structs.load(StatusRequest, structs.from_text(StatusRequest, query(request))))
    state.allow("list")
    owner = state.owner()
    if owner == "":
        # Strangers to each other share this owner; each knows the uids of their own uploads, and no others.
        raise ForbiddenError(
            "Uploads are listed only for somebody in particular.",
            remedy="Developer: pass UploadHelper(app, identify=f), where f() returns who the current user is.",
        )
    statuses = []
    for upload in state.service.uploads(owner):
        # One that is deleted or broken meanwhile does not keep the others from being listed.
        with suppress(Error):
            statuses.append(state.service.status(StatusRequest(upload.uploadUid), owner, roughly=True))
    return _fresh({"uploads": statuses})


def status(uid: str) -> Response:
    """Say how far an upload is: GET on its status."""
    return _status(StatusRequest(uid))


def job(uid: str) -> Response:
    """Say how far what runs after an upload is: ``{jobUid, state, progress, stepName}``, progress from 0 to 1."""
    state = current_state()
    if state.jobs is None:
        raise NoJobError("Nothing runs after uploads here.", remedy="")
    owner = state.owner()
    try:
        progress, upload = state.jobs.progress(uid)
    except NotFoundError:
        state.allow("status", state.service.peek(uid, owner))
        raise NoJobError from None
    # The upload itself may be gone: handlers move files away.
    if owner not in (None, upload.owner):
        raise NotFoundError
    state.allow("status", upload)
    return _fresh(progress)


def download(uid: str) -> Response:
    """Send the finished file: GET on the upload."""
    state = current_state()
    owner = state.owner()
    state.allow("read", state.service.peek(uid, owner))
    return send_upload(state.service.get_upload(uid, owner), request.environ)


def delete(uid: str) -> Response:
    """Cancel or delete an upload: DELETE on it."""
    state = current_state()
    owner = state.owner()
    state.allow("delete", state.service.peek(uid, owner))
    state.service.delete(uid, owner)
    return Response(status=204)


def delete_by_form(uid: str) -> Response:
    """Delete an upload for a browser without JavaScript, whose forms can do nothing but POST."""
    answer = delete(uid)
    return pages.go_back() if pages.wanted() else answer


def _status(wanted: StatusRequest) -> Response:
    state = current_state()
    owner = state.owner()
    upload = state.service.find(wanted, owner)
    state.allow("status", upload)
    return _fresh(state.service.status(StatusRequest(upload.uploadUid), owner))


def _fresh(value: object) -> Response:
    answer = respond(request, value)
    answer.headers["Cache-Control"] = "no-store"
    return answer
