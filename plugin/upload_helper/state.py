"""What one application has: its settings, its service, and the host's two questions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from flask import Request, current_app, has_request_context, request

from .config import Config
from .errors import ForbiddenError
from .service import Operation, Upload, UploadService

KEY = "upload_helper"


@dataclass(frozen=True)
class Access:
    """What a client is about to do, for the host's ``authorize`` to judge."""

    operation: Operation
    """``create``, ``write`` (a further chunk), ``status``, ``read`` (the finished file), ``delete`` or ``list``."""
    upload: Upload | None
    """Which upload it is about; None for ``list``. At ``create`` it is what the client wants to begin."""


Authorize = Callable[[Access], bool]
Identify = Callable[[], object]
Language = Callable[[], object]


class JobProgress(Protocol):
    """Knows the tasks of uploads."""

    def progress(self, uid: str) -> tuple[dict[str, Any], Upload]:
        """Return how far the task of an upload is, and the upload as it was; raises NotFoundError if there is none."""
        ...


@dataclass(frozen=True)
class AppState:
    """Kept in ``app.extensions["upload_helper"]``."""

    helper: Any
    config: Config
    service: UploadService
    authorize: Authorize | None
    identify: Identify | None
    language: Language | None = None
    texts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The host's own words for pages and widget, by language and key."""
    jobs: JobProgress | None = None
    """Where handlers run after uploads, if the host wants that."""

    def owner(self) -> str | None:
        """Return who asks: '' for nobody in particular, None when the host's own code asks outside of a request."""
        if not has_request_context():
            return None
        who = self.identify() if self.identify else None
        if who is None:
            return ""
        # Not True either, which is whoever has signed in.
        if isinstance(who, (str, int)) and not isinstance(who, bool):
            return str(who)
        # The text of any other object may be another one tomorrow, and nobody would find their uploads again.
        raise TypeError(f"identify returned {who!r}; return an id as str or int, or None for nobody in particular.")

    def require_authorize(self) -> Authorize:
        """Return the host's ``authorize``; raises ForbiddenError that tells the developer where there is none."""
        if self.authorize is None:
            raise ForbiddenError(
                "This application has not said who may upload.",
                remedy="Developer: pass UploadHelper(app, authorize=f), where f(access) returns True for what the"
                " current user may do; authorize=lambda access: True lets everybody do everything.",
            )
        return self.authorize

    def allow(self, operation: Operation, upload: Upload | None = None) -> None:
        """Raise ForbiddenError unless the host says yes."""
        allowed = self.require_authorize()(Access(operation, upload))
        if allowed and not isinstance(allowed, bool):
            # A coroutine, a redirect or a method that nobody called would pass for yes.
            raise TypeError(f"authorize returned {allowed!r}; return True or False.")
        if not allowed:
            raise ForbiddenError(f"You may not do this: {operation}.")


def current_request() -> Request:
    """Return the request itself: to look at it through Flask's stand-in takes ten times as long."""
    return request._get_current_object()  # type: ignore[attr-defined, no-any-return]


def current_state() -> AppState:
    """Return the state of the current application; raises RuntimeError if it has none."""
    try:
        # The application itself, as with the request.
        state: AppState = current_app._get_current_object().extensions[KEY]  # type: ignore[attr-defined]
        return state
    except KeyError:
        raise RuntimeError("This application has no UploadHelper. Call UploadHelper(app) or init_app(app).") from None
