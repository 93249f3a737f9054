"""The demo: a page on which a person uploads a file, the application behind it, and gunicorn in front of that."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import click
from flask import Flask, Response, jsonify, make_response, render_template, request, session
from flask.typing import ResponseReturnValue

from .extension import UploadHelper
from .service import Upload
from .state import Access

# The page runs nothing but its own scripts, so a name or a text that slipped through as HTML could do nothing.
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self';"
    " base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_LANGUAGES = {"en": "English", "de": "Deutsch", "ru": "Русский"}
_TEXTS = {
    "en": {
        "demo.title": "Send large files without worry",
        "demo.intro": "Drop what you have, of many gigabytes if need be. Close the lid, lose the connection, reload the"
        " page: the upload goes on where it stopped.",
        "demo.languages": "Languages",
        "demo.computing": "is being computed …",
        "demo.failed": "is not to be had at the moment",
        "demo.point.resume": "Nothing is sent twice",
        "demo.point.resume.text": "After an interruption only what is missing is sent.",
        "demo.point.parallel": "As fast as the line",
        "demo.point.parallel.text": "Several parts of several files are on their way at once.",
        "demo.point.check": "Every byte is checked",
        "demo.point.check.text": "What arrives is what you have sent. Compare the SHA‑256.",
    },
    "de": {
        "demo.title": "Große Dateien sorglos senden",
        "demo.intro": "Ziehen Sie herein, was Sie haben, auch viele Gigabyte. Deckel zu, Verbindung weg, Seite neu"
        " geladen: Es geht dort weiter, wo es aufgehört hat.",
        "demo.languages": "Sprachen",
        "demo.computing": "wird berechnet …",
        "demo.failed": "ist zurzeit nicht zu bekommen",
        "demo.point.resume": "Nichts wird doppelt gesendet",
        "demo.point.resume.text": "Nach einer Unterbrechung wird nur gesendet, was fehlt.",
        "demo.point.parallel": "So schnell wie die Leitung",
        "demo.point.parallel.text": "Mehrere Teile mehrerer Dateien sind zugleich unterwegs.",
        "demo.point.check": "Jedes Byte wird geprüft",
        "demo.point.check.text": "Was ankommt, ist, was Sie gesendet haben. Vergleichen Sie die SHA‑256.",
    },
    "ru": {
        "demo.title": "Большие файлы без забот",
        "demo.intro": "Перетащите сюда всё, что нужно, хоть десятки гигабайт. Закрыли крышку, пропала связь,"
        " перезагрузили страницу: загрузка продолжится с того же места.",
        "demo.languages": "Языки",
        "demo.computing": "вычисляется …",
        "demo.failed": "сейчас недоступна",
        "demo.point.resume": "Ничего не отправляется дважды",
        "demo.point.resume.text": "После перерыва отправляется только то, чего не хватает.",
        "demo.point.parallel": "Со скоростью линии",
        "demo.point.parallel.text": "Несколько частей нескольких файлов идут одновременно.",
        "demo.point.check": "Проверяется каждый байт",
        "demo.point.check.text": "Приходит именно то, что вы отправили. Сравните SHA‑256.",
    },
}
# Digests that a process remembers; those of files that are there do not change.
_MOST_DIGESTS = 1000

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def create_app(folder: str | os.PathLike[str]) -> Flask:
    """Return the application: anybody may upload to `folder`, and sees what the same browser has uploaded."""
    root = Path(folder).absolute()
    app = Flask("upload_helper", static_folder=None)
    app.config.from_mapping(
        SECRET_KEY=_secret(root),
        # Cookies don't tell ports apart: under the usual name, another application on this machine would replace it.
        SESSION_COOKIE_NAME="upload_helper_demo",
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_REFRESH_EACH_REQUEST=False,
        UPLOAD_HELPER_FOLDER=root,
    )
    helper = UploadHelper(app, authorize=_anybody, identify=_browser, language=_language, texts=_TEXTS)
    app.register_blueprint(helper.blueprint(), url_prefix="/uploads")
    app.add_url_rule("/", view_func=_page)
    app.add_url_rule("/digest/<uid>", "digest", _make_digest(helper))
    app.after_request(_protect)
    return app


def _page() -> Response:
    _browser()
    chosen = request.args.get("lang")
    if chosen in _LANGUAGES:
        session["language"] = chosen
    chunk_size = request.args.get("chunkSize", type=int)
    page = render_template("upload_helper/demo.html", languages=_LANGUAGES, chunk_size=chunk_size)
    response = make_response(page)
    # A copy from a cache would come without the cookie.
    response.headers["Cache-Control"] = "no-store"
    return response


def _make_digest(helper: UploadHelper) -> Callable[[str], ResponseReturnValue]:
    digest_of = lru_cache(_MOST_DIGESTS)(_digest)

    def digest(uid: str) -> ResponseReturnValue:
        upload = helper.get_upload(uid)
        return jsonify(fileName=upload.fileName, totalSize=upload.totalSize, sha256=digest_of(upload))

    return digest


def _digest(upload: Upload) -> str:
    with upload.open() as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _protect(response: Response) -> Response:
    if response.mimetype == "text/html":
        response.headers.setdefault("Content-Security-Policy", _PAGE_POLICY)
    return response


def _language() -> str | None:
    """Return the language that the person has chosen, or None for that of the browser."""
    return str(session["language"]) if "language" in session else None


def serve(host: str, port: int, workers: int, threads: int, folder: str | None) -> None:
    """Serve the demo under gunicorn until a signal ends it; without a folder, files go where they are removed then.

    Raises click.ClickException where the folder or the address can't be had, or gunicorn is not installed.
    """
    for number in _ENDING:
        # Until gunicorn is up and handles them itself: an ordinary way out, on which what was made is removed.
        signal.signal(number, lambda *_: sys.exit())
    with _folder(folder) as root, _listen(host, port) as listener:
        try:
            app = create_app(root)
        except OSError as error:
            raise click.ClickException(f"The folder {root} can't be used: {error.strerror}.") from None
        server = _gunicorn(app, listener, {"workers": workers, "threads": threads})
        _announce(host, listener, root, temporary=not folder)
        # gunicorn closes the descriptor by its number, so nobody else may think it is theirs.
        listener.detach()
        server.run()


def _anybody(_: Access) -> bool:
    return True


def _browser() -> str:
    """Tell browsers apart by a random number in a cookie that outlives the browser window."""
    if "browser" not in session:
        session["browser"] = secrets.token_hex(16)
        session.permanent = True
    return str(session["browser"])


def _secret(folder: Path) -> str:
    """Return the key that signs the cookies; it stays with the files, so that after a restart they are found again."""
    path = folder / ".secret"
    with suppress(FileNotFoundError):
        if secret := path.read_text():
            return secret
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex())
    return path.read_text()


@contextmanager
def _folder(given: str | None) -> Iterator[Path]:
    """Yield the folder for the files; one that nobody has named is made, and removed at the end."""
    if given:
        yield Path(given)
        return
    # On many systems /tmp is memory, which is no place for gigabytes.
    roomy = "/var/tmp" if "TMPDIR" not in os.environ and os.access("/var/tmp", os.W_OK) else None  # noqa: S108
    made = Path(tempfile.mkdtemp(prefix="upload-helper-demo-", dir=roomy))
    process = os.getpid()
    try:
        yield made
    finally:
        # gunicorn's workers are forks of this process, and leave through here as well.
        if os.getpid() == process:
            shutil.rmtree(made, ignore_errors=True)


@contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    """Yield a listening socket; connections that come before the server is up wait in its queue."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=256)
    except (OSError, OverflowError) as error:
        # Python adds the address to the system's words.
        reason = (getattr(error, "strerror", None) or str(error)).partition(" (")[0]
        text = f"Can't listen on {host} port {port}: {reason}. Choose another with --port, or --port 0 for any."
        raise click.ClickException(text) from None
    with listener:
        yield listener


def _gunicorn(app: Flask, listener: socket.socket, settings: Mapping[str, Any]) -> Any:
    """Return gunicorn for `app`, to be started with ``run()`` in this process."""
    try:
        # An extra, which only this command needs.
        from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped] # noqa: PLC0415
    except ImportError:
        text = "gunicorn is not installed. Install it with: pip install 'gunicorn>=27'"
        raise click.ClickException(text) from None

    def end_with_the_terminal(arbiter: Any) -> None:
        # gunicorn would reload, and go on without anybody who could stop it.
        signal.signal(signal.SIGHUP, lambda *_: arbiter.signal(signal.SIGTERM, None))

    def end_while_booting(arbiter: Any, worker: Any) -> None:  # noqa: ARG001 - the names are gunicorn's
        # A worker begins with the handlers of its parent, which would swallow a signal that is meant for it.
        for number in _ENDING:
            signal.signal(number, signal.SIG_DFL)

    class Server(BaseApplication):  # type: ignore[misc]
        """gunicorn that neither reads its own configuration files nor opens its control socket."""

        def load_config(self) -> None:
            values = {
                "bind": f"fd://{listener.fileno()}",
                "worker_class": "gthread",
                "control_socket_disable": True,
                "graceful_timeout": 5,
                "loglevel": "error",
                "when_ready": end_with_the_terminal,
                "post_fork": end_while_booting,
                **settings,
            }
            for name, value in values.items():
                self.cfg.set(name, value)

        def load(self) -> Flask:
            return app

    return Server()


def _announce(host: str, listener: socket.socket, folder: Path, *, temporary: bool) -> None:
    port = listener.getsockname()[1]
    address = ip_address(listener.getsockname()[0])
    name = "localhost" if address.is_unspecified else f"[{host}]" if ":" in host else host
    click.echo(f"Open http://{name}:{port}/ in a browser; Ctrl-C ends the demo.")
    click.echo(f"Files go to {folder}{' and are removed at the end' if temporary else ''}.")
    if not address.is_loopback:
        click.echo("Everybody who reaches this machine can upload: use it in networks that you trust.")
