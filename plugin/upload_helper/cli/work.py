"""The commands ``upload-helper work …``: background work for whoever sits at the machine."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from ..errors import Error, UnknownTaskError, shown
from .text import printable

if TYPE_CHECKING:
    from ..work import Task, Work

MOST_LISTED = 10_000
_EXTRA = ("sqlalchemy", "psutil", "requests", "rich", "psycopg")


@dataclass(frozen=True)
class Chosen:
    """Which ledger, and whose functions."""

    ledger: str
    app: str
    modules: tuple[str, ...]

    @contextmanager
    def open(self, *, must_exist: bool = True) -> Iterator[Work]:
        """Open the ledger for a command; what goes wrong is said on one line."""
        with _said():
            from ..work.places import open_work  # noqa: PLC0415 - what it imports is an extra

            work = open_work(self.ledger, self.app, self.modules, must_exist=must_exist)
            try:
                yield work
            finally:
                work.close()


@contextmanager
def _said() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in (
            "sqlalchemy",
            "psutil",
            "requests",
            "rich",
            "psycopg",
        ):
            raise
        raise click.ClickException(f"{error.name} is missing: pip install 'flask-upload-helper[work]'") from None
    except Error as error:
        raise click.ClickException(printable(f"{error} {error.remedy}".strip())) from None


def _ledger_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that choose a ledger; the command gets them as its first argument."""

    @click.option("--ledger", metavar="PATH|URL", help="The ledger.  [default: $UPLOAD_HELPER_LEDGER, or this user's]")
    @click.option("--app", default="", metavar="MODULE:NAME", help="Use this Work of a Python module.")
    @click.option("--module", "modules", multiple=True, metavar="MODULE", help="Let tasks call its public functions.")
    @wraps(command)
    def wrapped(ledger: str | None, app: str, modules: tuple[str, ...], **options: Any) -> None:
        with _said():
            from ..work.places import default_ledger  # noqa: PLC0415

        command(Chosen(ledger or default_ledger(), app, modules), **options)

    return wrapped


_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")


@click.group()
def work() -> None:
    """Tasks in the background, kept in a ledger that survives everything."""


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
            from .table import watched  # noqa: PLC0415

            with watched(lambda: opened.list(limit=100)):
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
@click.option(
    "--limit", type=click.IntRange(1, MOST_LISTED), default=100, show_default=True, help="So many, the newest."
)
@click.option("--watch", is_flag=True, help="Stay, and show what changes, until Ctrl-C.")
@_json_option
def list_(chosen: Chosen, *, tag: str | None, state: str | None, limit: int, watch: bool, as_json: bool) -> None:
    """List tasks, the newest first."""
    with chosen.open() as opened:

        def tasks() -> list[Task]:
            return opened.list(tag=tag, state=state, limit=limit)

        if as_json:
            click.echo(json.dumps([_record(task) for task in tasks()], ensure_ascii=False, indent=1))
            return
        from .table import print_table, watched  # noqa: PLC0415

        if not watch:
            print_table(tasks())
            return
        with watched(tasks) as ended:
            ended.wait()


@work.command()
@_ledger_options
@click.argument("uid")
@_json_option
def show(chosen: Chosen, *, uid: str, as_json: bool) -> None:
    """Show one task; the beginning of its uid will do. Secrets are left out."""
    with chosen.open() as opened:
        record = _record(_find(opened, uid), whole=True)
    if as_json:
        click.echo(json.dumps(record, ensure_ascii=False, indent=1))
        return
    for name, value in record.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        click.echo(f"{name:13} {printable(text)}".rstrip())


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
    click.echo(json.dumps({"uid": uid}) if as_json else uid)


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
        count = opened.stop_work(tag) if uid is None else int(opened.stop(_find(opened, uid).uid))  # type: ignore[arg-type]
    click.echo(json.dumps({"stopped": count}) if as_json else f"{count} task{'' if count == 1 else 's'} stopped")


@work.command()
@_ledger_options
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True, help="Tasks at a time.")
@click.option("--name", default="upload-helper", show_default=True, help="What the unit is called.")
@click.option("--start", "starts", is_flag=True, help="Start the worker now as well.")
@click.option("--print", "prints", is_flag=True, help="Only print what would be written.")
def install(chosen: Chosen, *, threads: int, name: str, starts: bool, prints: bool) -> None:
    """Let this user's system start the worker, also after a reboot, and print what was written for that."""
    with _said():
        from .units import install_worker  # noqa: PLC0415

        install_worker(chosen, threads=threads, name=name, starts=starts, prints=prints)


def _find(opened: Work, uid: str) -> Task:
    """Return the task with the uid, or the one whose uid begins so."""
    try:
        return opened.get(uid)
    except UnknownTaskError:
        found = [task for task in opened.list(limit=MOST_LISTED) if uid and task.uid.startswith(uid)]
        if len(found) > 1:
            raise UnknownTaskError(f"{len(found)} tasks begin with {shown(uid)}.", remedy="Name more of it.") from None
        if not found:
            raise
        return found[0]


def _read(handlers: str) -> str:
    if handlers == "-":
        return sys.stdin.read()
    if not handlers.startswith("@"):
        return handlers
    try:
        with click.open_file(handlers[1:], encoding="utf-8") as file:
            return str(file.read())
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{handlers[1:]} cannot be read: {error}") from None


def _record(task: Task, *, whole: bool = False) -> dict[str, Any]:
    """Return a task as JSON, without secrets; what it does and what came of it only when it is asked for."""
    from ..work.aliases import hidden, scrubbed  # noqa: PLC0415
    from ..work.lanes import priority_of  # noqa: PLC0415

    record = {
        "uid": task.uid,
        "tag": task.tag,
        "title": task.title,
        "state": str(task.state),
        "progress": task.progress,
        "step_name": task.step_name,
        "attempt": task.attempt,
        "failures": task.failures,
        "conditions": sorted(task.conditions),
        "retry": task.retry,
        "period": task.period,
        "created": task.created,
        "next_run": task.next_run,
        "started": task.started,
        "ended": task.ended,
        "error": scrubbed(task.error),
        "kind": task.kind,
        "priority": priority_of(task.lane),
        "done": task.done,
        "total": task.total,
        "speed": task.speed,
    }
    if whole:
        for name in ("handlers", "post_execute", "variables"):
            record[name] = hidden(getattr(task, name))
        record["body"] = task.body
        record["result"] = hidden(task.result)
    return record
