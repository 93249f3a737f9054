"""The helper that a host makes: configuration, state per application, wiring."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Flask, Request, current_app, has_app_context, request
from werkzeug.local import LocalProxy

from . import signals
from .config import Config
from .errors import Error, shown
from .intake import blocks_of, read_chunk
from .jobs import Jobs
from .protocols.chunked import ChunkRequest, ChunkResponse, StatusRequest, StatusResponse
from .service import Event, Upload, UploadService, log
from .splicing import expected_way
from .state import KEY, AppState, Authorize, Identify, Language, current_state
from .stores import LocalStore
from .views import answer_error, make_blueprint, take_from_form

if TYPE_CHECKING:
    from .work import Work


_WORK_NEEDED = "pass UploadHelper(app, work=Work('work.db'), …), with Work from upload_helper.work."


class UploadHelper:
    """Uploads for Flask applications; one helper serves any number of them.

    `identify` returns who the current user is, or None for nobody in particular; an upload belongs to who began it,
    and does not exist for anybody else. `authorize` is asked before every operation of the ready-made blueprint; see
    ``Access``. Without it the blueprint refuses everything. Endpoints of the host's own are the host's to guard.

    `language` returns the language of pages and widget, such as ``de``, or None for that of the browser; `texts` are
    further words for them, by language and key, beside or instead of those in ``static/texts.js``.

    `post_execute` are handlers that become a task of `work` once an upload is finished, exactly one each; or an object
    with such as ``work`` and what else ``StartWork`` takes; or a function that returns one of these for an upload, or
    None. All tasks of `work` run in `work_threads` threads of every process that serves requests; with 0, another
    process runs them, such as ``upload-helper work run --app``. Wherever this process runs them, it is within the
    context of the application, or of that which was made last.

    The settings are read from ``app.config`` once, here; keys begin with ``UPLOAD_HELPER_``.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        authorize: Authorize | None = None,
        identify: Identify | None = None,
        language: Language | None = None,
        texts: Mapping[str, Mapping[str, Any]] | None = None,
        work: Work | None = None,
        post_execute: Any = None,
        work_threads: int = 2,
    ) -> None:
        if post_execute is not None and work is None:
            raise ValueError(f"post_execute needs a ledger: {_WORK_NEEDED}")
        if work is not None and not hasattr(work, "start_work"):
            raise ValueError(f"work={shown(work)} is no Work: {_WORK_NEEDED}")
        self._authorize = authorize
        self._identify = identify
        self._language = language
        self._texts = texts or {}
        self._work = work
        self._post_execute = post_execute
        self._work_threads = work_threads
        self._states: weakref.WeakKeyDictionary[Flask, AppState] = weakref.WeakKeyDictionary()
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Register the helper on an application.

        Raises RuntimeError if it has one already, ValueError for a setting that is wrong or does not exist.
        """
        if KEY in app.extensions:
            raise RuntimeError(
                "This application has an UploadHelper already; use that one (upload_helper.current_helper), or make"
                " several blueprints of it with blueprint(name)."
            )
        config = Config.from_mapping(app.config, folder=Path(app.instance_path) / "uploads")

        log.info("Bodies go %s.", expected_way(config.splice_from))
        application = weakref.ref(app)
        jobs = self._make_jobs(app, config)

        def notify(event: Event, upload: Upload) -> None:
            if event == "finished" and jobs is not None and jobs.wanted:
                _start_job(jobs, upload)
            signal = getattr(signals, f"upload_{event}")
            for receiver in signal.receivers_for(application()):
                try:
                    receiver(application(), upload=upload)
                except Exception:  # noqa: BLE001 - a receiver is the host's code
                    # What has happened has happened; no mistake of a receiver may undo or hide it.
                    log.exception("A receiver of upload_%s failed.", event)

        service = UploadService(config, LocalStore(config), notify, jobs.note if jobs and jobs.wanted else None)
        state = AppState(self, config, service, self._authorize, self._identify, self._language, self._texts, jobs)
        if jobs is not None:
            app.before_request(partial(jobs.tend, service))
        app.extensions[KEY] = self._states[app] = state
        # So that a plain view of the host answers our errors as the blueprint does, unless the host has its own way.
        if Error not in app.error_handler_spec[None][None]:
            app.register_error_handler(Error, answer_error)

    def _make_jobs(self, app: Flask, config: Config) -> Jobs | None:
        if self._work is None:
            return None
        application = weakref.ref(app)

        def around() -> AbstractContextManager[Any]:
            found = application()
            return nullcontext() if found is None else found.app_context()

        # Whoever runs its tasks in this process, such as a worker that was given the application's Work.
        self._work.around = around
        return Jobs(self._work, self._post_execute, config, self._work_threads)

    def blueprint(self, name: str = "uploads") -> Blueprint:
        """Return a blueprint with the ready-made endpoints, to be registered with a ``url_prefix``."""
        return make_blueprint(name)

    def handle_chunk_request(self, req: Request, p: ChunkRequest | None = None) -> ChunkResponse:
        """Store one chunk for the current user and return the upload's uid.

        `p` is what an action got; a plain view leaves it out, and it is read from the request. Check permissions
        before: this method does not ask ``authorize``. Raises Error, which a view need not catch.
        """
        state = self._state()
        chunk = read_chunk(req, state.config, ChunkRequest) if p is None else p
        return ChunkResponse(state.service.receive(chunk, state.owner()).uploadUid)

    def handle_status_request(self, req: Request, p: StatusRequest) -> StatusResponse:  # noqa: ARG002
        """Say how far one of the current user's uploads is; raises NotFoundError if there is none."""
        state = self._state()
        return state.service.status(p, state.owner())

    def get_upload(self, uid: str) -> Upload:
        """Return a finished upload of the current user; outside of a request, of any.

        Raises Error while the upload is not ready (IncompleteError) and if there is none (NotFoundError).
        """
        state = self._state()
        return state.service.get_upload(uid, state.owner())

    def claim(self, field: str) -> list[Upload]:
        """Return the finished uploads that the form in the current request names in `field`, as the widget does.

        Files that came in the field themselves, from a browser without JavaScript, are stored and are among them; the
        form must then be ``multipart/form-data``. Raises Error, which a view need not catch: NotFoundError for an
        upload that is gone or somebody else's, IncompleteError for one that is not finished, TooLargeError and others
        for a file. Check permissions before: this method does not ask ``authorize``.
        """
        uploads = [self.get_upload(uid) for uid in dict.fromkeys(request.form.getlist(field)) if uid]
        files = [file for file in request.files.getlist(field) if file.filename]
        return uploads + take_from_form((file.filename or "", blocks_of(file)) for file in files)

    def get_status(self, uid: str) -> StatusResponse:
        """Say how far an upload of the current user is; outside of a request, of any."""
        state = self._state()
        return state.service.status(StatusRequest(uid), state.owner())

    def delete(self, uid: str) -> None:
        """Cancel or delete an upload of the current user; outside of a request, of any."""
        state = self._state()
        state.service.delete(uid, state.owner())

    def uploads(self) -> list[Upload]:
        """Return the uploads of the current user, finished or not; outside of a request, all."""
        state = self._state()
        return list(state.service.uploads(state.owner()))

    def sweep(self) -> int:
        """Delete the uploads that are past their expiry and return their number."""
        return self._state().service.sweep()

    def _state(self) -> AppState:
        state = current_app.extensions.get(KEY) if has_app_context() else None
        if isinstance(state, AppState) and state.helper is self:
            return state
        if len(self._states) == 1:
            return next(iter(self._states.values()))
        raise RuntimeError(
            "It is not clear which application is meant. Call within app.app_context(), of an application that"
            " init_app was called with."
        )


def _start_job(jobs: Jobs, upload: Upload) -> None:
    try:
        jobs.start(upload)
    except Exception:  # noqa: BLE001 - the upload is finished, whatever becomes of its task
        log.exception("The task of upload %s could not be started yet.", upload.uploadUid)


def _current_helper() -> Any:
    return current_state().helper


current_helper: UploadHelper = LocalProxy(_current_helper)  # type: ignore[assignment]
"""The helper of the current application."""
