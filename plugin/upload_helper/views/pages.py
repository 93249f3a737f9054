"""What browsers are shown: the page of the blueprint, the answer to a plain form, and errors in words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit

from flask import Blueprint, Response, current_app, make_response, redirect, render_template, request, url_for
from flask.sansio.blueprints import BlueprintSetupState
from markupsafe import Markup

from ..errors import Error
from ..protocols import structs
from ..protocols.chunked import StatusRequest, StatusResponse
from ..service import Upload, log
from ..state import current_state
from . import assets
from .words import FALLBACK, Words, languages

_GLOBAL = "upload_helper"


class Glue:
    """What the templates know as ``upload_helper``: settings, words, and the uploads of who reads the page."""

    def __init__(self, blueprint: str) -> None:
        self._first = blueprint

    @property
    def blueprint(self) -> str:
        """The name of the blueprint that serves the request, or else of the one that was registered first."""
        name = request.blueprint
        return name if name and f"{name}.collection" in current_app.view_functions else self._first

    @property
    def base(self) -> str:
        """The template that the pages extend."""
        return current_state().config.base_template

    @property
    def max_file_size(self) -> int:
        """Bytes of the largest file."""
        return current_state().config.max_file_size

    @property
    def accept(self) -> str:
        """The extensions that may be uploaded, as ``<input accept>`` wants them; empty for all."""
        return ",".join(f".{extension}" for extension in sorted(current_state().config.allowed_extensions))

    @property
    def texts(self) -> str:
        """The host's own words as JSON; empty if it has none."""
        own = current_state().texts
        return json.dumps(own, ensure_ascii=False) if own else ""

    @property
    def language(self) -> str:
        """The language that the host says; empty where it says none."""
        state = current_state()
        return str((state.language() if state.language else None) or "").replace("_", "-")

    def files(self, uploads: Iterable[Upload]) -> list[dict[str, object]]:
        """Return what the widget has to know of uploads that have arrived before."""
        return [{"uploadUid": u.uploadUid, "fileName": u.fileName, "totalSize": u.totalSize} for u in uploads]

    def words(self, language: str = "") -> Words:
        """Return the words of a language, or those that suit who reads: by the host, then by the browser."""
        own = current_state().texts
        wanted = language or self.language or request.accept_languages.best_match(languages(own)) or FALLBACK
        return Words(wanted, own)

    def json(self, value: object) -> str:
        """Return a value as JSON for an attribute, where it is escaped like any text."""
        return json.dumps(value, ensure_ascii=False)

    @property
    def known(self) -> bool:
        """Whether who reads is somebody in particular, who has uploads of their own."""
        return bool(current_state().owner())

    def date(self, seconds: float) -> str:
        """Return the day of a time since the epoch, in the server's zone, as ISO 8601 writes it."""
        return datetime.fromtimestamp(seconds, UTC).astimezone().date().isoformat()

    def uploads(self) -> list[StatusResponse]:
        """Return the uploads of who reads, unfinished ones first; none for nobody in particular."""
        state = current_state()
        owner = state.owner()
        found = []
        if owner:
            for upload in state.service.uploads(owner):
                with suppress(Error):
                    found.append(state.service.status(StatusRequest(upload.uploadUid), owner, roughly=True))
        return sorted(found, key=lambda status: (status.state == "finished", -(status.expires or 0), status.fileName))

    def asset(self, filename: str, blueprint: str = "") -> str:
        """Return the address of a script or style sheet, which is another one for another version of it."""
        return url_for(f"{blueprint or self.blueprint}.asset", wanted=assets.version(), filename=filename)

    def imports(self, module: str) -> Sequence[str]:
        """Return the scripts that a script needs."""
        return assets.imports(module)

    @property
    def csrf_token(self) -> str:
        """The host's CSRF token; empty if it has none."""
        return csrf_token()

    def token(self) -> Markup:
        """Return a hidden field with the host's CSRF token, if the host has one as Flask-WTF makes it available."""
        value = self.csrf_token
        return Markup('<input type="hidden" name="csrf_token" value="{}">').format(value) if value else Markup()


def register(blueprint: Blueprint) -> None:
    """Give the templates of every application that the blueprint is registered on what they need."""
    blueprint.record(_set_up)


def _set_up(setup: BlueprintSetupState) -> None:
    name = f"{setup.name_prefix}.{setup.name}".lstrip(".")
    environment = setup.app.jinja_env
    if _GLOBAL not in environment.globals:
        environment.globals[_GLOBAL] = Glue(name)
        environment.autoescape = partial(_is_escaped, environment.autoescape)


def _is_escaped(by_host: bool | Callable[[str | None], bool], template: str | None) -> bool:
    # Ours show what strangers have written, also where the host escapes by itself and has switched this off.
    if template is not None and template.startswith("upload_helper/"):
        return True
    return by_host(template) if callable(by_host) else by_host


def csrf_token() -> str:
    """Return the host's CSRF token, or '' if it has none as Flask-WTF makes it available."""
    make = current_app.jinja_env.globals.get("csrf_token")
    return str(make() or "") if callable(make) else ""


def wanted() -> bool:
    """Say whether the request is that of a person who looks, and not of a program: by what it would rather get."""
    accept = request.accept_mimetypes
    return accept["text/html"] > accept["application/json"] and _GLOBAL in current_app.jinja_env.globals


def overview() -> Response:
    """Return the page with the widget, and the uploads of who reads it."""
    state = current_state()
    state.allow("list")
    return _page("page")


def arrived(uploads: Sequence[Upload]) -> Response:
    """Answer a plain form whose files have all arrived."""
    return _page("plain", uploads=uploads, error=None)


def as_page(answer: Response) -> Response:
    """Return the answer to an error as a page, if that is wanted; its status and headers stay."""
    if answer.mimetype == structs.JSON and wanted():
        members: dict[str, Any] = structs.decode(answer.get_data(), structs.JSON)
        try:
            page = _page("plain", uploads=(), error=members)
        except Exception:  # noqa: BLE001 - whatever the host's templates raise
            # The error may be that of the host's templates. Raised again here, nobody would answer it.
            log.exception("The page of an error can't be rendered.")
            return answer
        answer.set_data(page.get_data())
        answer.mimetype = "text/html"
        answer.vary.add("Accept")
    return answer


def go_back() -> Response:
    """Send the browser back to the page with the form."""
    answer = make_response(redirect(_back(), 303))
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _page(name: str, **values: Any) -> Response:
    answer = make_response(render_template(f"upload_helper/{name}.html", back=_back(), **values))
    answer.headers["Cache-Control"] = "no-store"
    # Its buttons must not be clicked unawares. A policy of the host's with frame-ancestors goes before this.
    answer.headers["X-Frame-Options"] = "SAMEORIGIN"
    answer.vary.add("Accept")
    return answer


def _back() -> str:
    """Return where the browser came from, if that is a page of this site, or else the page of the blueprint."""
    with suppress(ValueError):
        referrer = urlsplit(request.referrer or "")
        if referrer.netloc == request.host and referrer.scheme in ("http", "https"):
            # With one slash in front: with two it would be the name of a host.
            return urlunsplit(("", "", "/" + referrer.path.lstrip("/"), referrer.query, ""))
    return url_for(f"{_glue().blueprint}.collection")


def _glue() -> Glue:
    return cast("Glue", current_app.jinja_env.globals[_GLOBAL])
