"""Transfers that a command carries out itself, or leaves to the worker."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import click

from ..errors import Error, InvalidTaskError, UnknownNameError
from ..retry import Backoff
from ..transfer.errors import (
    AnswerError,
    CertificateError,
    ContentError,
    FileChangedError,
    InvalidTransferError,
    ProtocolError,
    SourceError,
    TargetError,
    TransferError,
    UploadGoneError,
)
from ..transfer.figures import printable, span_text
from ..transfer.orders import Carried, Kind, Order, carry, read_order
from ..transfer.progress import Lines, Meter, Sink
from ..transfer.source import Source
from .kept import Kept, kept
from .transfers import FAILED, INTERRUPTED, LATER, LOCAL, NOT_THE_FILE, REFUSED, WRONG_USE, Manner

BACKOFF = Backoff(first=5, longest=300)
"""Between two tries of a command."""

# The first that fits; then it is LATER for what is temporary, and FAILED for all else.
_CODES: tuple[tuple[tuple[type[Error], ...], int], ...] = (
    ((InvalidTransferError, UnknownNameError, InvalidTaskError), WRONG_USE),
    ((SourceError, FileChangedError, TargetError), LOCAL),
    ((ContentError,), NOT_THE_FILE),
    ((CertificateError, ProtocolError, UploadGoneError), REFUSED),
)
_GOES_ON = ("tus", "rufh", "chunks")


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
        click.echo(printable(f"Error: {_text_of(error)}"), err=True)
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
        self._told: Error | None = None
        self._through: list[Kept] = []

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
        state: dict[str, Any] = {}
        try:
            order = read_order(self._kind, _given(request), self._address)
            if self._kind == "download":
                self._done(order, self._persist(order))
                return 0
            with kept(order) as file:
                state = file.state
                self._send(order, file, is_alone=is_alone)
        except KeyboardInterrupt:
            self._say(_interrupted(self._kind, state))
            return INTERRUPTED
        except Error as error:
            self._fail(error)
            return code_of(error)
        return 0

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
        failures, reached = 0, -1
        keeping: dict[str, Any] = {} if file is None else {"state": file.state, "save": file.save}
        with self._meter(order) as meter:
            while True:
                try:
                    return carry(order, meter, sleep=time.sleep, **keeping)
                except TransferError as error:
                    failures = 1 if meter.progress.done > reached >= 0 else failures + 1
                    reached = max(reached, meter.progress.done)
                    if failures == self._manner.tries or code_of(error) != LATER:
                        meter.end(_text_of(error))
                        self._told = error
                        raise
                    delay = BACKOFF.delay(failures, error.retry_after)
                    meter.step(f"{error} Again in {span_text(delay)}.")
                    time.sleep(delay)
                    meter.step("")
                except KeyboardInterrupt:
                    meter.end("interrupted")
                    raise

    def _meter(self, order: Order) -> Meter:
        sinks: list[Sink] = []
        if self._manner.as_json:
            sinks.append(Lines(sys.stdout))
        elif not self._manner.quiet:
            from ..transfer.terminal import Terminal  # noqa: PLC0415 - to start it takes longer than many a transfer

            sinks.append(Terminal())
        return Meter(self._manner.title or order.name, *sinks)

    def _address(self, name: str) -> tuple[str, Mapping[str, str]]:
        from ..work.places import open_work  # noqa: PLC0415 - what it imports is an extra

        work = open_work(self._manner.chosen().ledger, must_exist=True)
        try:
            alias = work.alias(name)
        finally:
            work.close()
        return alias.url, alias.headers

    def _done(self, order: Order, carried: Carried, *, already: bool = False) -> None:
        if already:
            self._say(f"✓ {order.name} was sent already; --again sends it again.")
        elif carried.restarted:
            self._say(f"{order.name} was begun again: {carried.restarted}.")
        if self._manner.as_json:
            event = {"event": "done", "kind": order.kind, "already": already, **asdict(carried)}
            click.echo(json.dumps(event, ensure_ascii=False))
        elif not self._manner.quiet:
            click.echo(carried.target)

    def _fail(self, error: Error) -> None:
        if self._manner.as_json:
            text = {"event": "error", "error": str(error), "code": error.code, "exit": code_of(error)}
            click.echo(json.dumps(text, ensure_ascii=False))
        if self._told is not error or self._manner.quiet or self._manner.as_json:
            click.echo(printable(f"Error: {_text_of(error)}"), err=True)

    def _say(self, text: str) -> None:
        if not self._manner.quiet:
            click.echo(printable(text), err=True)


def _given(request: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in request.items() if value not in (None, "", {})}


def _text_of(error: Error) -> str:
    """Return what was wrong and what to do; nobody but who gave the command tries again."""
    again = code_of(error) == LATER
    return f"{error} {'The same command tries again.' if again else error.remedy}".strip()


def _interrupted(kind: Kind, state: Mapping[str, Any]) -> str:
    goes_on = kind == "download" or state.get("protocol", "tus") in _GOES_ON
    return f"Interrupted. The same command {'goes on where it was' if goes_on else 'begins again'}."
