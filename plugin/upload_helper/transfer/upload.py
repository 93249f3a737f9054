"""Sends a file: by whatever the server speaks, through breaks, and from where it was when another process sent it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from time import sleep as _sleep

from ..retry import Backoff
from .addresses import check_url
from .discovery import chosen, discover
from .errors import FileChangedError, InvalidTransferError, ProtocolError, TransferError, UploadGoneError
from .source import Source
from .uploads import plain, rufh, tus
from .uploads.job import PROTOCOLS, Job, Sent, State, UploadRequest, answered
from .uploads.pieces import Pieces
from .web import Line

__all__ = ["PROTOCOLS", "Sent", "State", "UploadRequest", "send"]

MOST_FAILURES = 5
"""In a row, without one more byte that the server acknowledges."""
LONGEST_WAIT = 60
"""Seconds that are waited at a server's request; whoever called may wait longer."""

_SENDERS: dict[str, Callable[[Job], Sent]] = {
    "tus": tus.send,
    "rufh": rufh.send,
    "chunks": lambda job: _send_chunks(job),  # noqa: PLW0108 - defined below
    "multipart": plain.send_form,
    "raw": plain.send_raw,
}
_CANCELS: dict[str, Mapping[str, str]] = {"tus": tus.CANCEL, "rufh": rufh.CANCEL, "chunks": {}}
"""Headers of the request that deletes an upload."""
# Bytes that were corrupted on their way, as tus and our blueprint say it.
_CORRUPTED = frozenset({460, 422})


def send(
    request: UploadRequest,
    line: Line,
    *,
    state: State | None = None,
    save: Callable[[State], None] = lambda _state: None,
    report: Callable[[int, int], None] = lambda _done, _total: None,
    sleep: Callable[[float], None] = _sleep,
    speaks: Callable[[str], None] = lambda _protocol: None,
) -> Sent:
    """Send a file and return what became of it.

    `state` is what `save` was given last, in this process or in another one; what the server has by then is not sent
    again, unless the file has changed. `report` gets the bytes that are done, and all; `speaks` the protocol.
    Raises TransferError, whose ``temporary`` says whether it may be tried again with the same state.
    """
    with Source(request.file) as source:
        job = Job(request, line, source, _sound(state or {}), save, report, Pieces(request.piece))
        restarted, lost = _prepare(job), 0
        while True:
            try:
                sent = _persist(job, sleep, speaks)
            except UploadGoneError:
                lost = 1 if job.acknowledged else lost + 1
                if lost >= MOST_FAILURES:
                    raise
                restarted = "the server did not know the upload any more"
                job.forget()
            except FileChangedError:
                _drop(job)
                job.state.clear()
                job.save({})
                raise
            except TransferError as error:
                if _is_doubtful(job, error):
                    job.keep(doubtful=True)
                raise
            else:
                return replace(sent, restarted=restarted)


def _sound(state: State) -> State:
    """Return what was kept, or nothing where somebody else wrote it."""
    texts = ("target", "protocol", "url", "collection", "identifier", "uid")
    good = all(isinstance(state.get(name, ""), str) for name in texts) and state.get("protocol") in (None, *PROTOCOLS)
    good = good and all(type(n) is int and n > 0 for n in (state.get("piece", 1), state.get("most") or 1))
    try:
        for name in ("url", "collection"):
            check_url(state.get(name) or "http://none.invalid")
    except InvalidTransferError:
        good = False
    return dict(state) if good and ("piece" in state or "identifier" not in state) else {}


def _prepare(job: Job) -> str:
    """Forget what was kept about something else; return why, where it was about this file as it was before."""
    state, wanted = job.state, chosen(job.request)
    is_begun = bool(state.get("url") or state.get("identifier"))
    is_doubtful = state.pop("doubtful", False) and not wanted
    same = state.get("target") == job.request.url and wanted in ("", state.get("protocol"))
    changed = bool(state.get("url")) and not job.is_of_this_file()
    if changed and same:
        _drop(job)
    if not (is_begun and same and job.is_of_this_file()) or is_doubtful:
        job.forget()
    return "the file has changed" if changed and same else ""


def _is_doubtful(job: Job, error: TransferError) -> bool:
    """Say whether the server seems not to speak a protocol that it never offered: one that was set.

    What was begun stays for a request that sets it again: a network that wants somebody to sign in answers as oddly.
    """
    if "collection" in job.state:
        return False
    return isinstance(error, ProtocolError) or not (error.temporary or job.acknowledged)


def _persist(job: Job, sleep: Callable[[float], None], speaks: Callable[[str], None]) -> Sent:
    """Send, and go on after each failure that may pass."""
    failures, reached = 0, job.acknowledged
    backoff = Backoff(first=1, longest=30)
    while True:
        try:
            job.source.check()
            protocol = discover(job)
            speaks(protocol)
            return _SENDERS[protocol](job)
        except TransferError as error:
            if job.line.is_cut or not _passes(job, error):
                raise
            failures = 1 if job.acknowledged > reached else failures + 1
            reached = job.acknowledged
            if failures >= MOST_FAILURES or (error.retry_after or 0) > LONGEST_WAIT:
                raise
            job.pieces.broke()
            sleep(backoff.delay(failures, error.retry_after))


def _send_chunks(job: Job) -> Sent:
    # Its answers are parsed by what takes as long to import as all the rest together.
    from .uploads import chunks  # noqa: PLC0415

    return chunks.send(job)


def _passes(job: Job, error: TransferError) -> bool:
    if isinstance(error, (UploadGoneError, FileChangedError)):
        return False
    return error.temporary or (job.request.checksums and answered(error) in _CORRUPTED)


def _drop(job: Job) -> None:
    cancel = _CANCELS.get(job.state.get("protocol", ""))
    if cancel is not None:
        job.drop(cancel)
