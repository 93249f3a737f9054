"""Transfers that a command carries out itself, or leaves to the worker."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ..errors import Error, InvalidTaskError, UnknownNameError
from ..retry import Backoff
from ..transfer.digests import Digest
from ..transfer.errors import (
    AnswerError,
    CertificateError,
    ContentError,
    FileChangedError,
    InvalidTransferError,
    ProtocolError,
    SourceError,
    TargetError,
    TargetExistsError,
    TransferError,
    UploadGoneError,
)
from ..transfer.figures import printable
from ..transfer.orders import Carried, Kind, Order, carry, read_order
from ..transfer.part import note_beside
from ..transfer.progress import Lines, Meter, Progress, Sink
from ..transfer.source import Source
from .kept import Kept, kept
from .manner import FAILED, INTERRUPTED, LATER, LOCAL, NOT_THE_FILE, REFUSED, WRONG_USE, Manner

BACKOFF = Backoff(first=5, longest=300)
"""Between two tries of a command."""

# The first that fits; then it is LATER for what is temporary, and FAILED for all else.
_CODES: tuple[tuple[tuple[type[Error], ...], int], ...] = (
    ((InvalidTransferError, UnknownNameError, InvalidTaskError), WRONG_USE),
    ((SourceError, FileChangedError, TargetError), LOCAL),
    ((ContentError,), NOT_THE_FILE),
    ((CertificateError, ProtocolError, UploadGoneError), REFUSED),
)
GOES_ON, BEGINS_AGAIN = "goes on where it was", "begins again"
"""What the same command does with a file the next time."""


def code_of(error: Error) -> int:
    """Return the exit code that says what kind of error it was."""
    for kinds, code in _CODES:
        if isinstance(error, kinds):
            return code
    if isinstance(error, TransferError) and error.temporary:
        return LATER
    return REFUSED if isinstance(error, AnswerError) else FAILED


def leave(manner: Manner, kind: Kind, requests: list[dict[str, Any]]) -> None:
    """Put the transfers into the ledger and print their uids, or none of them and why one cannot be."""
    requests = [_given(request) for request in requests]
    try:
        for request in requests:
            read_order(kind, request)
            if kind == "upload":
                with Source(request["file"]):
                    pass
    except Error as error:
        click.echo(printable(f"Error: {error} {error.remedy}".strip()), err=True)
        raise SystemExit(code_of(error)) from None
    with manner.chosen().open(must_exist=False) as work:
        start = work.start_upload if kind == "upload" else work.start_download
        for request in requests:
            uid = start({**request, "priority": manner.priority}, manner.tag, manner.title)
            click.echo(json.dumps({"uid": uid}) if manner.as_json else uid)
    if not (manner.quiet or manner.as_json):
        click.echo(
            "A worker does it: `upload-helper work run`, or `work install` for one that starts by itself.", err=True
        )


class Foreground:
    """Carries out the transfers of a command, one after the other, and shows how far they are."""

    def __init__(self, manner: Manner, kind: Kind) -> None:
        self._manner = manner
        self._kind = kind
        self._told: BaseException | None = None
        self._again = BEGINS_AGAIN
        self._through: list[Kept] = []
        self._is_down = False

    def carry_all(self, requests: list[dict[str, Any]]) -> list[int]:
        """Carry out all, up to an interruption, and return their exit codes."""
        codes: list[int] = []
        for request in requests:
            codes.append(self._carry(request, is_alone=len(requests) == 1))
            if codes[-1] == INTERRUPTED:
                break
        if not any(codes):
            for file in self._through:
                file.forget()
        return codes

    def _carry(self, request: Mapping[str, Any], *, is_alone: bool) -> int:
        self._again = BEGINS_AGAIN
        name = str(request["file"] or request["url"])
        try:
            order = read_order(self._kind, _given(request), self._address)
            name = order.name
            if self._kind == "download":
                self._fetch(order)
                return 0
            with kept(order) as file:
                self._send(order, file, is_alone=is_alone)
        except KeyboardInterrupt:
            self._interrupted(name)
            return INTERRUPTED
        except Error as error:
            self._fail(name, error)
            return code_of(error)
        return 0

    def _fetch(self, order: Order) -> None:
        """Fetch a file, unless the one that is there has the digest that was given."""
        there = _there(order)
        self._done(order, there or self._persist(order), already=bool(there))

    def _send(self, order: Order, file: Kept, *, is_alone: bool) -> None:
        """Send a file, unless an earlier command that was to send more has done it."""
        sent = None if self._manner.again else file.finished(order)
        carried = sent or self._persist(order, file)
        if is_alone:
            file.forget()
        else:
            self._through.append(file)
            if not sent:
                file.finish(carried)
        self._done(order, carried, already=bool(sent))

    def _persist(self, order: Order, file: Kept | None = None) -> Carried:
        with self._meter(order) as meter:
            try:
                return self._try(order, meter, file)
            except (KeyboardInterrupt, Error) as error:
                self._again = _next_time(order, file, meter.progress)
                self._told = error
                meter.end(self._text_of(error) if isinstance(error, Error) else "interrupted")
                raise

    def _try(self, order: Order, meter: Meter, file: Kept | None) -> Carried:
        """Try until it succeeds, or so often without one more byte; but once where a file before had no link."""
        tries, failures, reached = 1 if self._is_down else self._manner.tries, 0, -1
        keeping: dict[str, Any] = {} if file is None else {"state": file.state, "save": file.save}
        while True:
            try:
                carried = carry(order, meter, sleep=time.sleep, **keeping)
            except TransferError as error:
                progress = meter.progress
                failures = 1 if progress.done > reached >= 0 else failures + 1
                if progress.done > max(reached, progress.resumed):
                    tries = self._manner.tries
                reached = max(reached, progress.done)
                if failures == tries or code_of(error) != LATER:
                    self._is_down = code_of(error) == LATER
                    raise
                meter.wait(BACKOFF.delay(failures, error.retry_after), time.sleep, str(error))
            else:
                self._is_down = False
                return carried

    def _meter(self, order: Order) -> Meter:
        sinks: list[Sink] = []
        if self._manner.as_json:
            sinks.append(_Events(sys.stdout))
        elif not self._manner.quiet:
            from ..transfer.terminal import Terminal  # noqa: PLC0415 - to start it takes longer than many a transfer

            sinks.append(Terminal())
        total = None
        if order.kind == "upload":
            with suppress(OSError):
                total = Path(order.file).stat().st_size
        return Meter(self._manner.title or order.name, *sinks, total=total)

    def _address(self, name: str) -> tuple[str, Mapping[str, str]]:
        from ..work.places import open_work  # noqa: PLC0415 - what it imports is an extra

        work = open_work(self._manner.chosen().ledger, must_exist=True)
        try:
            alias = work.alias(name)
        finally:
            work.close()
        return alias.url, alias.headers

    def _done(self, order: Order, carried: Carried, *, already: bool = False) -> None:
        if self._manner.as_json:
            self._tell("done", kind=order.kind, already=already, **asdict(carried))
            return
        if already:
            sent = order.kind == "upload"
            self._say(f"✓ {order.name} {'was sent already; --again sends it again' if sent else 'is there already'}.")
        elif carried.restarted:
            self._say(f"{order.name} was begun again: {carried.restarted}.")
        click.echo(carried.target)

    def _fail(self, name: str, error: Error) -> None:
        if self._manner.as_json:
            remedy, code = self._remedy_of(error), code_of(error)
            self._tell("error", name=name, error=str(error), remedy=remedy, code=error.code, exit=code)
        elif self._told is not error or self._manner.quiet:
            click.echo(printable(f"Error: {self._text_of(error)}"), err=True)

    def _interrupted(self, name: str) -> None:
        remedy = f"The same command {self._again}."
        if self._manner.as_json:
            self._tell("error", name=name, error="Interrupted.", remedy=remedy, code="interrupted", exit=INTERRUPTED)
        self._say(f"Interrupted. {remedy}")

    def _text_of(self, error: Error) -> str:
        return f"{error} {self._remedy_of(error)}".strip()

    def _remedy_of(self, error: Error) -> str:
        """Return what to do; nobody but who gave the command tries again."""
        if code_of(error) == LATER:
            return f"Gave up. The same command {self._again}."
        if isinstance(error, TargetExistsError):
            return "Name another file, or replace this one with --overwrite."
        return error.remedy

    def _tell(self, event: str, **members: object) -> None:
        click.echo(json.dumps({"event": event, **members}, ensure_ascii=False))

    def _say(self, text: str) -> None:
        if not (self._manner.quiet or self._manner.as_json):
            click.echo(printable(text), err=True)


class _Events(Lines):
    """Lines of JSON, but for the end of what failed: the event that follows says it, and what to do."""

    def end(self, progress: Progress, error: str | None) -> None:
        if error is None:
            super().end(progress, error)


def _given(request: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in request.items() if value not in (None, "", {})}


def _target(order: Order) -> tuple[Path, bool]:
    """Return where a download goes, and whether that is sure: in a folder the server may name it otherwise."""
    is_named = bool(order.file) and not Path(order.file).is_dir()
    return Path(order.file) if is_named else Path(order.file) / order.name, is_named


def _there(order: Order) -> Carried | None:
    """Return the file that is there, if it has the digest that was given."""
    if not order.options.get("digest"):
        return None
    path, digest = _target(order)[0], Digest.parse(order.options["digest"])
    try:
        with path.open("rb") as file:
            same = hashlib.file_digest(file, digest.hasher).digest() == digest.value
            return Carried(str(path), file.tell(), digest=digest.build()) if same else None
    except OSError:
        return None


def _next_time(order: Order, file: Kept | None, progress: Progress) -> str:
    """Say what the same command does with the file the next time."""
    if file is not None:
        return GOES_ON if file.goes_on else BEGINS_AGAIN
    target, is_named = _target(order)
    note = note_beside(target)
    if note is None and is_named:
        return BEGINS_AGAIN
    if note is not None and not (note.validator or note.digest or order.options.get("digest")):
        return BEGINS_AGAIN
    # Only a server that has sent a part is known to do so.
    return GOES_ON if progress.resumed else f"{GOES_ON}, if the server sends parts of files"
