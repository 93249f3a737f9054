"""The commands ``upload-helper work …``: background work for whoever sits at the machine."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from ..errors import LedgerError, WorkError
from .said import said
from .text import printable

if TYPE_CHECKING:
    from ..work import Work
    from .listing import Look


@dataclass(frozen=True)
class Chosen:
    """Which ledger, and whose functions."""

    ledger: str
    """'' where `app` has one."""
    app: str
    modules: tuple[str, ...]

    @contextmanager
    def open(self, *, must_exist: bool = True) -> Iterator[Work]:
        """Open the ledger for a command; what goes wrong is said on one line."""
        with said("work"):
            from ..work.places import open_work  # noqa: PLC0415 - what it imports is an extra

            work = open_work(self.ledger, self.app, self.modules, must_exist=must_exist)
            try:
                yield work
            finally:
                work.close()


def _ledger_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that choose a ledger; the command gets them as its first argument."""

    @click.option("--ledger", metavar="PATH|URL", help="The ledger.  [default: $UPLOAD_HELPER_LEDGER, or this user's]")
    @click.option("--app", default="", metavar="MODULE:NAME", help="Use this Work of a Python module.")
    @click.option("--module", "modules", multiple=True, metavar="MODULE", help="Let tasks call its public functions.")
    @wraps(command)
    def wrapped(ledger: str | None, app: str, modules: tuple[str, ...], **options: Any) -> None:
        if ledger and app:
            raise click.UsageError("Give --app or --ledger: a Work has its ledger already.")
        with said("work"):
            from ..work.places import default_ledger  # noqa: PLC0415

        command(Chosen("" if app else ledger or default_ledger(), app, modules), **options)

    return wrapped


_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")


@click.group()
def work() -> None:
    """Tasks in the background, kept in a ledger that survives everything."""
    for stream in (sys.stdout, sys.stderr):
        # Titles and errors may have letters that a terminal or a pipe does not take.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


@work.command()
@_ledger_options
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True, help="Tasks at a time.")
@click.option(
    "--lease",
    type=click.FloatRange(min=1),
    default=30,
    show_default=True,
    help="Seconds of silence after which another worker takes a task.",
)
@click.option(
    "--poll",
    type=click.FloatRange(min=0.05),
    default=1,
    show_default=True,
    help="Seconds between two looks at the ledger.",
)
@click.option("--transfers", type=click.IntRange(1, 2), default=1, show_default=True, help="Files at a time.")
@click.option("--limit", default="0", metavar="RATE", help="Of all transfers: 200k, or by hour 08-18:200k,18-08:0.")
@click.option("--notify", is_flag=True, help="Show transfers on the desktop, too.")
@click.option("--until-idle", is_flag=True, help="End when no task can run now.")
@click.option("--quiet", is_flag=True, help="Show no table, also in a terminal.")
def run(
    chosen: Chosen, *, threads: int, lease: float, poll: float, until_idle: bool, quiet: bool, **transfers: Any
) -> None:
    """Run tasks until SIGTERM or Ctrl-C; in a terminal with a table of them."""
    live = sys.stdout.isatty() and not quiet and not until_idle
    logging.basicConfig(
        level=logging.CRITICAL if live else logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    with chosen.open(must_exist=False) as opened:
        _set_up(opened, **transfers)
        runner = opened.runner(threads=threads, lease=lease, poll=poll)
        if until_idle:
            click.echo(f"{runner.run_until_idle()} runs")
        elif live:
            from .listing import Look  # noqa: PLC0415
            from .table import watched  # noqa: PLC0415

            with watched(Look(opened)):
                runner.run_forever()
        else:
            runner.run_forever()


def _set_up(opened: Work, *, transfers: int, limit: str, notify: bool) -> None:
    from ..transfer.desktop import Desktop  # noqa: PLC0415
    from ..transfer.pace import Pace  # noqa: PLC0415

    opened.transfers = max(opened.transfers, transfers)
    if limit != "0":
        opened.pace = Pace(limit)
    if notify:
        opened.sinks = (*opened.sinks, Desktop)


@work.command("list")
@_ledger_options
@click.option("--tag", help="Those with this tag.")
@click.option(
    "--state",
    type=click.Choice(["ENQUEUED", "RUNNING", "BLOCKED", "SUCCEEDED", "FAILED", "CANCELLED"], case_sensitive=False),
    help="Those in this state.",
)
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="So many, the newest.")
@click.option("--watch", is_flag=True, help="Stay until Ctrl-C, and show what changes; in a file or pipe, a line each.")
@_json_option
def list_(chosen: Chosen, *, watch: bool, as_json: bool, **which: Any) -> None:
    """List tasks, the newest first."""
    with chosen.open() as opened:
        from .listing import Look, record  # noqa: PLC0415
        from .table import print_table, watched  # noqa: PLC0415

        look = Look(opened)
        if watch and (as_json or not sys.stdout.isatty()):
            _follow(look, which, as_json=as_json)
        elif watch:
            with watched(lambda: look(**which)) as ended:
                ended.wait()
        elif as_json:
            listing = look(**which)
            _print_json([record(task, listing) for task in listing.tasks], indent=1)
        else:
            print_table(look(**which))


def _follow(look: Look, which: dict[str, Any], *, as_json: bool) -> None:
    """Print a line for each task that is new or has changed, until Ctrl-C."""
    from .listing import Changes, line, record  # noqa: PLC0415

    changes, complaint = Changes(), ""
    with suppress(KeyboardInterrupt):
        while True:
            try:
                listing, complaint = look(**which), ""
            except LedgerError as error:
                if complaint != str(error):
                    complaint = str(error)
                    click.echo(f"Error: {printable(complaint)}", err=True)
            else:
                for task in changes.since(listing):
                    if as_json:
                        _print_json(record(task, listing))
                    else:
                        click.echo(line(task, listing, time.time()))
            time.sleep(1)


@work.command()
@_ledger_options
@click.argument("uid")
@_json_option
def show(chosen: Chosen, *, uid: str, as_json: bool) -> None:
    """Show one task, by its uid, that of its upload, or the beginning of either. Secrets are left out."""
    with chosen.open() as opened:
        from .listing import Look, lines, record  # noqa: PLC0415

        listing = Look(opened).one(uid)
        values = record(listing.tasks[0], listing, whole=True)
    if as_json:
        _print_json(values, indent=1)
    else:
        click.echo("\n".join(lines(values)))


@work.command()
@_ledger_options
@click.argument("handlers", metavar="HANDLERS|@FILE|-")
@click.option("--tag", default="", help="A label, by which it can be stopped.")
@click.option("--retry", is_flag=True, help="Try again when it fails, until it succeeds or is stopped.")
@click.option("--conditions", default="", metavar="A;B", help="CONNECTED, CHARGING, BATTERY_NOT_LOW, IDLE.")
@click.option("--period", type=float, help="Run again every so many minutes, at least 15.")
@click.option(
    "--if-exists",
    type=click.Choice(["APPEND", "KEEP", "REPLACE"], case_sensitive=False),
    default="APPEND",
    show_default=True,
    help="What becomes of tasks with the same tag.",
)
@click.option("--title", default="", help="What people read.")
@click.option("--database", default="", metavar="PATH", help="The SQLite database of sql handlers.")
@_json_option
def start(chosen: Chosen, *, handlers: str, database: str, period: float | None, as_json: bool, **options: Any) -> None:
    """Start a task with an array of handlers, as JSON, and print its uid."""
    text = _read(handlers)
    with chosen.open(must_exist=False) as opened:
        if database:
            opened.connect_database(database)
        if period is None:
            uid = opened.start_work(text, **options)
        else:
            uid = opened.start_periodic_work(text, period, **options)
    _tell(uid, {"uid": uid}, as_json=as_json)


@work.command()
@_ledger_options
@click.argument("tag", required=False)
@click.option("--uid", help="Stop this task instead.")
@_json_option
def stop(chosen: Chosen, *, tag: str | None, uid: str | None, as_json: bool) -> None:
    """Cancel the tasks that carry a tag, waiting or running."""
    if (tag is None) == (uid is None):
        raise click.UsageError("Name a tag, or a task with --uid.")
    with chosen.open() as opened:
        from .listing import find  # noqa: PLC0415

        count = opened.stop_work(tag or "") if uid is None else int(opened.stop(find(opened, uid).uid))
    _tell(f"{count} task{'' if count == 1 else 's'} stopped", {"stopped": count}, as_json=as_json)


@work.command()
@_ledger_options
@click.argument("uids", metavar="UID...", nargs=-1, required=True)
@_json_option
def retry(chosen: Chosen, *, uids: tuple[str, ...], as_json: bool) -> None:
    """Run tasks once more that failed or were cancelled, from their first handlers."""
    failed = []
    with chosen.open() as opened:
        from .listing import find  # noqa: PLC0415

        for uid in uids:
            try:
                opened.retry(find(opened, uid).uid)
            except WorkError as error:
                failed.append(error)
                click.echo(f"Error: {printable(f'{error} {error.remedy}')}", err=True)
    count = len(uids) - len(failed)
    _tell(f"{count} task{'' if count == 1 else 's'} waiting again", {"retried": count}, as_json=as_json)
    if failed:
        raise SystemExit(1)


@work.command()
@_ledger_options
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True, help="Tasks at a time.")
@click.option("--name", default="upload-helper", show_default=True, help="What the unit is called.")
@click.option("--start", "starts", is_flag=True, help="Start the worker now as well.")
@click.option("--print", "prints", is_flag=True, help="Only print what would be written.")
def install(chosen: Chosen, *, threads: int, name: str, starts: bool, prints: bool) -> None:
    """Let this user's system start the worker, also after a reboot, and print what was written for that."""
    with said("work"):
        from .units import install_worker  # noqa: PLC0415

        install_worker(chosen, threads=threads, name=name, starts=starts, prints=prints)


def _tell(text: str, values: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        _print_json(values)
    else:
        click.echo(text)


def _print_json(value: Any, indent: int | None = None) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=indent))


def _read(handlers: str) -> str:
    if handlers == "-":
        return sys.stdin.read()
    if not handlers.startswith("@"):
        return handlers
    try:
        with click.open_file(handlers[1:], encoding="utf-8") as file:
            return str(file.read())
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise click.ClickException(printable(f"{handlers[1:]} cannot be read: {why}.")) from None
