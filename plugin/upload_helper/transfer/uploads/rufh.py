"""To a server of Resumable Uploads for HTTP, which keeps what arrived of a piece that was cut."""

from __future__ import annotations

import time

from ...protocols.rufh import Append, Creation, Limits, Question, Standing
from ...upload import UNKNOWN_SIZE
from ..errors import ProtocolError, TransferError, UploadGoneError
from ..web import Response
from .job import Job, Sent, answered, located, offset_in

CANCEL = Question().build()
"""Headers of the request that deletes an upload."""


def send(job: Job) -> Sent:
    """Send what the server has not got; raises TransferError, after which the next call goes on."""
    url = job.state.get("url") or ""
    offset, complete = _ask(job, url) if url else (0, False)
    if not url:
        url = _create(job)
    job.reached(offset)
    text = ""
    while not complete:
        offset, complete, text = _append(job, url, offset)
        job.reached(offset)
    return job.sent(url, text)


def _create(job: Job) -> str:
    file_checksum = job.digest(0, job.size)
    message = Creation(False, job.size, 0, job.name, file_checksum=file_checksum)
    answer = job.line.ask("POST", job.collection, headers=message.build())
    standing = _standing(answer)
    url = located(answer.url, standing.location)
    _obey(job, standing.limits)
    job.keep(url=url)
    return url


def _ask(job: Job, url: str) -> tuple[int, bool]:
    there = _standing(job.ask("HEAD", url, Question().build()))
    _obey(job, there.limits)
    if there.length not in (job.size, UNKNOWN_SIZE):
        raise UploadGoneError(f"What the server has under this address is to have {there.length} bytes.")
    offset = offset_in(job.size, there.offset)
    if there.complete and offset != job.size:
        raise UploadGoneError(f"The server has finished the upload with {offset} of its {job.size} bytes.")
    return offset, bool(there.complete)


def _append(job: Job, url: str, offset: int) -> tuple[int, bool, str]:
    """Send a piece; return where the upload stands then, whether it is complete, and what the server said."""
    length = min(job.pieces.size, job.size - offset)
    last = offset + length == job.size
    message = Append(offset, last, content_length=length, checksum=job.digest(offset, length))
    before = time.monotonic()
    try:
        answer = job.ask("PATCH", url, message.build(), job.body(offset, length))
    except TransferError as error:
        if answered(error) == 413 and job.pieces.refused():
            return offset, False, ""
        raise
    job.pieces.went(time.monotonic() - before)
    told = _standing(answer)
    if told.complete is None and told.offset is None:
        return (*_confirmed(job, url, last), answer.text)
    if last:
        if told.complete is False:
            raise ProtocolError("The server does not take the upload for complete, although it has all of it.")
        return job.size, True, answer.text
    # Success says that all of it was appended (section 4.4.2), wherever the answer does not say so by itself.
    return offset_in(job.size, offset + length if told.offset is None else told.offset, offset + 1), False, ""


def _confirmed(job: Job, url: str, last: bool) -> tuple[int, bool]:
    """Ask how far the upload is: an answer that says nothing of it may be one of the network, to anything."""
    try:
        return _ask(job, url)
    except UploadGoneError:
        if last:
            # It was finished and is no upload any more.
            return job.size, True
        raise


def _standing(answer: Response) -> Standing:
    return Standing.parse(dict(answer.headers))


def _obey(job: Job, limits: Limits | None) -> None:
    if limits is not None:
        job.pieces.limit(limits.min_append_size, limits.max_append_size)
