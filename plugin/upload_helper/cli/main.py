"""The commands ``upload-helper …``."""

from __future__ import annotations

import click

from ..version import __version__
from .transfers import get, send
from .work import work


@click.group()
@click.version_option(__version__, package_name="flask-upload-helper")
def main() -> None:
    """Big files into Flask applications, and work in the background."""


main.add_command(work)
main.add_command(send)
main.add_command(get)


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, help="Port to listen on; 0 lets the system choose.")
@click.option("--workers", type=click.IntRange(min=1), default=4, show_default=True, help="Processes.")
@click.option("--threads", type=click.IntRange(min=1), default=4, show_default=True, help="Threads of each process.")
@click.option("--folder", type=click.Path(file_okay=False), help="Where files go.  [default: a temporary folder]")
def demo(host: str, port: int, workers: int, threads: int, folder: str | None) -> None:
    """Serve a page on which a person uploads files, under gunicorn."""
    # Only this command needs the module below, and what it imports is an extra.
    from importlib import import_module  # noqa: PLC0415

    import_module("upload_helper.demo").serve(host, port, workers, threads, folder)
