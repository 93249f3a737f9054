"""The commands ``flask uploads …``, for the operator of an application."""

from __future__ import annotations

import click
from flask.cli import AppGroup

from ..errors import Error, NotFoundError
from ..protocols.chunked import StatusRequest, StatusResponse
from ..service import UploadService
from ..state import AppState, current_state
from ..upload import UNKNOWN_SIZE
from .doctor import examine
from .text import local_time, printable, size_text

uploads = AppGroup("uploads", help="Look after the uploads of this application.")


@uploads.command("list")
def list_() -> None:
    """List all uploads: uid, state, share received, size, owner and name."""
    service = _service()
    for upload in service.uploads():
        try:
            status = service.status(StatusRequest(upload.uploadUid), None, roughly=True)
        except NotFoundError:
            continue  # deleted since the line before
        except Error as error:
            click.echo(f"{upload.uploadUid}  Error: {error}", err=True)
            continue
        columns = (
            f"{upload.uploadUid}  {status.state:8}  {_share(status):>3} %  {_size(status.totalSize):>10}",
            printable(upload.owner) or "-",
            printable(upload.fileName),
        )
        click.echo("  ".join(columns))


@uploads.command()
@click.argument("uid")
def show(uid: str) -> None:
    """Show one upload."""
    service = _service()
    try:
        upload = service.peek(uid, None)
        status = service.status(StatusRequest(uid), None)
    except Error as error:
        raise click.ClickException(str(error)) from None
    for name, value in _rows(status).items():
        click.echo(f"{name:10} {value}")
    click.echo(f"{'owner':10} {printable(upload.owner) or '-'}\n{'path':10} {upload.path or '-'}")


@uploads.command()
@click.argument("uids", metavar="UID...", nargs=-1, required=True)
def delete(uids: tuple[str, ...]) -> None:
    """Delete uploads, finished or not."""
    failed = False
    for uid in uids:
        try:
            _service().delete(uid, None)
            click.echo(f"deleted {uid}")
        except Error as error:
            failed = True
            click.echo(f"Error: {error} ({uid})", err=True)
    if failed:
        raise SystemExit(1)


@uploads.command()
def sweep() -> None:
    """Delete the uploads that nobody has written to for UPLOAD_HELPER_EXPIRY; for cron or a timer."""
    count = _service().sweep()
    click.echo(f"{count} upload{'' if count == 1 else 's'} deleted")


@uploads.command()
def doctor() -> None:
    """Try what uploads need: folder, locks, room, and the way that bodies go; exit with 1 if something is broken."""
    broken = False
    for finding in examine(_state()):
        mark = "BROKEN  " if finding.broken else ""
        advice = f"; {finding.advice}" if finding.advice else ""
        click.echo(f"{finding.name:10} {mark}{finding.text}{advice}")
        broken = broken or finding.broken
    if broken:
        raise SystemExit(1)


def _service() -> UploadService:
    return _state().service


def _state() -> AppState:
    try:
        return current_state()
    except RuntimeError as error:
        raise click.ClickException(str(error)) from None


def _rows(status: StatusResponse) -> dict[str, object]:
    expires = local_time(status.expires) if status.expires else "never"
    return {
        "uid": status.uploadUid,
        "name": printable(status.fileName),
        "state": status.state,
        "size": "unknown" if status.totalSize == UNKNOWN_SIZE else f"{status.totalSize} bytes",
        "received": f"{status.receivedBytes} bytes",
        "missing": _missing(status),
        "expires": expires,
    }


def _missing(status: StatusResponse) -> str:
    if status.missing is not None:
        count = sum(last - first + 1 for first, last in status.missing)
        return f"{count} of {status.chunkCount} chunks"
    known = status.totalSize != UNKNOWN_SIZE
    return f"{status.totalSize - status.receivedBytes} bytes" if known else "unknown"


def _size(count: int) -> str:
    return "unknown" if count == UNKNOWN_SIZE else size_text(count)


def _share(status: StatusResponse) -> str:
    if status.totalSize == UNKNOWN_SIZE:
        return "?"
    return str(100 * status.receivedBytes // status.totalSize if status.totalSize else 100)
