"""What goes wrong in a command, on one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from ..errors import Error
from ..extras import explained
from .text import printable


@contextmanager
def said(extra: str = "") -> Iterator[None]:
    """Say what is wrong and what to do, also where a module of an extra is missing, see `explained`."""
    try:
        yield
    except ModuleNotFoundError as error:
        told = explained(error, extra)
        if told is error:
            raise
        raise click.ClickException(str(told)) from None
    except Error as error:
        raise click.ClickException(printable(f"{error} {error.remedy}".strip())) from None
