"""``upload-helper work install``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..transfer.addresses import scrubbed
from ..work.install import Worker, unit_of
from ..work.places import find_host, is_url

if TYPE_CHECKING:
    from .work import Chosen


def install_worker(chosen: Chosen, *, threads: int, name: str, starts: bool, prints: bool) -> None:
    """Write the unit and print it, with what is left to do; raises WorkError."""
    host, _ = find_host(chosen.app, chosen.modules)  # or the worker would fail, where nobody looks
    if host is not None:
        host.close()
    ledger = chosen.ledger
    if ledger and not is_url(ledger):
        ledger = str(Path(ledger).absolute())
    unit = unit_of(Worker(ledger, chosen.app, chosen.modules, threads, name))
    written = [] if prints else unit.write()
    click.echo("\n".join(f"wrote {path}" for path in written) or f"would write {unit.path}")
    click.echo("\n" + scrubbed(unit.text))
    if starts and not prints:
        unit.start()
        click.echo("It is started.")
    else:
        click.echo("To start it now:\n" + "\n".join(f"  {shlex.join(command)}" for command in unit.commands))
    click.echo(unit.advice)
