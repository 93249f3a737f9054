"""Transfers that a command carries out itself, or leaves to the worker."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from filelock import FileLock, Timeout

from ..errors import Error, InvalidTaskError, UnknownNameError
from ..folders import state_folder
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
    """Carries out transfers, one after the other, and shows how far they are."""

    def __init__(self, manner: Manner) -> None:
        self._manner = manner
        self._told: Error | None = None

    def carry(self, kind: Kind, request: Mapping[str, Any]) -> int:
        """Carry out one and return its exit code."""
        state: dict[str, Any] = {}
        try:
            order = read_order(kind, _given(request), self._address)
            with _kept(order, state) as save:
                carried = self._persist(order, state, save)
        except KeyboardInterrupt:
            self._say(_interrupted(kind, state))
            return INTERRUPTED
        except Error as error:
            self._fail(error)
            return code_of(error)
        self._done(order, carried)
        return 0

    def _persist(self, order: Order, state: dict[str, Any], save: Any) -> Carried:
        failures, reached = 0, -1
        with self._meter(order) as meter:
            while True:
                try:
                    return carry(order, meter, sleep=time.sleep, state=state, save=save)
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

    def _done(self, order: Order, carried: Carried) -> None:
        if carried.restarted:
            self._say(f"{order.name} was begun again: {carried.restarted}.")
        if self._manner.as_json:
            click.echo(json.dumps({"event": "done", "kind": order.kind, **asdict(carried)}, ensure_ascii=False))
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


@contextmanager
def _kept(order: Order, state: dict[str, Any]) -> Iterator[Any]:
    """Read what an earlier command kept of this transfer into `state`, and give what keeps it for the next one."""
    if order.kind == "download":
        yield lambda _state: None  # it stands beside the target
        return
    key = "\0".join((order.kind, str(Path(order.file).absolute()), order.endpoint.url))
    path = state_folder() / "transfers" / f"{hashlib.sha256(os.fsencode(key)).hexdigest()[:32]}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = FileLock(f"{path}.lock", timeout=0, mode=0o600)
        lock.acquire()
    except Timeout:
        raise TransferError(
            f"Another process is sending {order.name} there.", remedy="Wait for it, or end it."
        ) from None
    except OSError as error:
        raise SourceError(f"{path.parent} cannot be written: {error.strerror}.", remedy="Set XDG_STATE_HOME.") from None
    try:
        with suppress(OSError, ValueError):
            found = json.loads(path.read_text(encoding="utf-8"))
            state.update(found if isinstance(found, dict) else {})
        yield lambda new: _write(path, state, new)
        path.unlink(missing_ok=True)
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _write(path: Path, state: dict[str, Any], new: Mapping[str, Any]) -> None:
    kept = dict(new)
    state.clear()
    state.update(kept)
    # Addresses of uploads may be as good as a password: for this user only.
    name = ""
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(kept, file)
        Path(name).replace(path)
    except OSError as error:
        with suppress(OSError):
            Path(name).unlink()
        raise SourceError(
            f"{path.parent} cannot be written: {error.strerror}.", remedy="Make room, or set XDG_STATE_HOME."
        ) from None
