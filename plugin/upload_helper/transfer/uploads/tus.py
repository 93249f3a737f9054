"""To a server of tus 1.0, which keeps what arrived of a piece that was cut."""

from __future__ import annotations

import time
from typing import TypeVar

from ...errors import Error
from ...protocols import metadata
from ...protocols.tus import Append, Appended, Created, Creation, Question, Standing
from ...upload import UNKNOWN_SIZE
from ..errors import ProtocolError, TransferError, UploadGoneError
from ..web import Response
from .job import Job, Sent, answered, located, offset_in

T = TypeVar("T", Created, Standing, Appended)

CANCEL = Question().build()
"""Headers of the request that deletes an upload."""


def send(job: Job) -> Sent:
    """Send what the server has not got; raises TransferError, after which the next call goes on."""
    url = job.state.get("url") or ""
    offset = _ask(job, url) if url else 0
    if not url:
        url = _create(job)
    job.reached(offset)
    while offset < job.size:
        offset = _append(job, url, offset)
        job.reached(offset)
    return job.sent(url)


def _create(job: Job) -> str:
    about = metadata.write_metadata({"filename": job.name})
    answer = job.line.ask("POST", job.collection, headers=Creation(job.size, about).build())
    url = located(answer.url, _parsed(Created, answer).location)
    job.keep(url=url)
    return url


def _ask(job: Job, url: str) -> int:
    there = _parsed(Standing, job.ask("HEAD", url, Question().build()))
    if there.length not in (job.size, UNKNOWN_SIZE):
        raise UploadGoneError(f"What the server has under this address is to have {there.length} bytes.")
    return offset_in(job.size, there.offset)


def _append(job: Job, url: str, offset: int) -> int:
    length = min(job.pieces.size, job.size - offset)
    message = Append(offset, checksum=job.digest(offset, length))
    before = time.monotonic()
    try:
        answer = job.ask("PATCH", url, message.build(), job.body(offset, length))
    except TransferError as error:
        if answered(error) == 413 and job.pieces.refused():
            return offset
        raise
    job.pieces.went(time.monotonic() - before)
    return offset_in(job.size, _parsed(Appended, answer).offset, offset + 1)


def _parsed(kind: type[T], answer: Response) -> T:
    try:
        return kind.parse(dict(answer.headers))
    except Error as error:
        raise ProtocolError(f"The server does not answer as tus has it: {error}") from None
