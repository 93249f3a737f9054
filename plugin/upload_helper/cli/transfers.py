"""The commands ``upload-helper send`` and ``upload-helper get``: what they take, and how they are asked."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from ..errors import Error
from .manner import INTERRUPTED, Manner
from .said import said

if TYPE_CHECKING:
    from ..transfer.orders import Kind


def transfer_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that both commands have; the command gets a Manner and the members of a request."""

    @click.option("--header", "-H", "headers", multiple=True, metavar="'NAME: VALUE'", help="Sent with each request.")
    @click.option("--user", "-u", metavar="USER[:PASSWORD]", help="Sign in; asks for a password that is left out.")
    @click.option("--limit", metavar="RATE", help="Bytes a second such as 200k, or by hour: 08-18:200k,18-08:0.")
    @click.option(
        "--ca", metavar="FILE", type=click.Path(exists=True), help="Certificates to trust in place of the usual."
    )
    @click.option("--proxy", metavar="URL", help="The proxy, or 'direct' for none.  [default: what the system says]")
    @click.option("--stall", type=float, metavar="SECONDS", help="Silence that counts as a lost link.  [default: 60]")
    @click.option(
        "--tries",
        type=click.IntRange(0),
        default=20,
        show_default=True,
        help="So often in a row without one byte; 20 take over an hour. 0: for ever.",
    )
    @click.option("--background", is_flag=True, help="Leave it to the worker, see `upload-helper work`.")
    @click.option("--tag", default="", help="With --background: a label, by which it can be stopped.")
    @click.option("--title", default="", help="What people read.")
    @click.option(
        "--priority",
        type=click.IntRange(-10, 10),
        default=0,
        show_default=True,
        help="With --background: the highest goes first.",
    )
    @click.option(
        "--ledger",
        metavar="PATH|URL",
        help="Where aliases and tasks are.  [default: $UPLOAD_HELPER_LEDGER, or this user's]",
    )
    @click.option("--quiet", "-q", is_flag=True, help="Show no progress: print the URL or the path, and errors.")
    @click.option("--json", "as_json", is_flag=True, help="Print lines of JSON, for scripts.")
    @wraps(command)
    def wrapped(ledger: str | None, headers: tuple[str, ...], user: str | None, **options: Any) -> None:
        names = ("background", "quiet", "as_json", "tries", "tag", "title", "priority", "again")
        manner = Manner(ledger or "", **{name: options.pop(name) for name in names if name in options})
        request = {name: options.pop(name) for name in ("limit", "ca", "proxy", "stall")}
        request |= {"headers": _headers(headers), "basic": _user(user)}
        command(manner, request, **options)

    return wrapped


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1)
@click.argument("url", metavar="URL", required=False)
@click.option(
    "--protocol", type=click.Choice(["tus", "rufh", "chunks", "multipart", "raw"]), help="[default: ask the server]"
)
@click.option(
    "--method", "-X", type=click.Choice(["POST", "PUT", "PATCH"], case_sensitive=False), help="Of a plain request."
)
@click.option("--piece", metavar="SIZE", help="Bytes in one request, such as 1m.  [default: as the link has it]")
@click.option("--name", help="What the file is called on the server.")
@click.option("--part", metavar="NAME", help="Of the file in a multipart form.  [default: file]")
@click.option("--checksums", is_flag=True, help="Send each piece with its SHA-256.")
@click.option("--again", is_flag=True, help="Send also those of several files that are through already.")
@transfer_options
def send(
    manner: Manner,
    request: dict[str, Any],
    *,
    files: tuple[str, ...],
    url: str | None,
    piece: str | None,
    **options: Any,
) -> None:
    """Send files to a server, and print their URLs there.

    URL may be #alias/path. Pressing Ctrl-C or losing power does no harm: the same command goes on where it was, or with
    this file again if the server takes files in one piece only. With PUT, a URL that ends in / gets each file under its
    name.
    """
    if url is None or not files:
        is_url = url is not None and ("://" in url or url.startswith("#"))
        raise click.UsageError(f"Missing argument {'URL' if url is not None and not is_url else 'FILE...'!r}.")
    if len(files) > 1 and options["name"]:
        raise click.UsageError("--name is for one file, and there are several.")
    request |= {"url": url, "piece": _size(piece), **options}
    _carry_all(manner, "upload", [{**request, "file": file} for file in files])


@click.command()
@click.argument("url")
@click.argument("file", required=False)
@click.option("--output", "-o", metavar="FILE", help="The same as FILE.")
@click.option("--digest", metavar="ALGORITHM:HEX", help="What the file must have, such as sha256:9f86…")
@click.option("--overwrite", is_flag=True, help="Replace a file that is there, once the new one is whole.")
@click.option("--method", "-X", help="Of the request.  [default: GET]")
@transfer_options
def get(
    manner: Manner, request: dict[str, Any], *, url: str, file: str | None, output: str | None, **options: Any
) -> None:
    """Fetch a file from a server, and print its path.

    URL may be #alias/path. FILE may be a folder; without it the server or the URL names the file. Pressing Ctrl-C or
    losing power does no harm: the same command goes on where it was, if the server sends parts of files.
    """
    if file is not None and output is not None:
        raise click.UsageError("FILE and --output say the same; give one of them.")
    request |= {"url": url, "file": file if file is not None else output, **options}
    _carry_all(manner, "download", [request])


def _carry_all(manner: Manner, kind: Kind, requests: list[dict[str, Any]]) -> None:
    """Do it for each file; the exit code is that of the first that failed."""
    with said():
        from .carrying import Foreground, leave  # noqa: PLC0415 - needs an extra

        if manner.background:
            leave(manner, kind, requests)
            return
        codes = Foreground(manner, kind).carry_all(requests)
    raise SystemExit(INTERRUPTED if INTERRUPTED in codes else next(filter(None, codes), 0))


def _headers(given: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for header in given:
        name, colon, value = header.partition(":")
        if not colon or not name.strip():
            # Its value may be a secret.
            raise click.BadParameter(f"{name.strip()!r} has no value; write 'Name: value'.", param_hint="--header")
        found[name.strip()] = value.strip()
    return found


def _user(given: str | None) -> list[str] | None:
    if given is None:
        return None
    user, colon, password = given.partition(":")
    return [user, password if colon else click.prompt(f"Password of {user}", hide_input=True, err=True)]


def _size(given: str | None) -> int | None:
    """Return the bytes in a size such as ``1m``, written as a limit is."""
    if given is None:
        return None
    from ..transfer.pace import read_limit  # noqa: PLC0415

    try:
        return int(read_limit(given)[0])
    except Error:
        raise click.BadParameter(
            f"{given!r} is no size; write bytes, or such as 500k or 8m.", param_hint="--piece"
        ) from None
