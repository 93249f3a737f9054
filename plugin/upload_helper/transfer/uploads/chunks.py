"""To our own blueprint by the chunk protocol, in which a chunk counts as a whole or not at all."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from typing import TypeVar
from urllib.parse import urlencode, urlsplit

from ...errors import Error
from ...protocols import structs
from ...protocols.chunked import RAW, ChunkRequest, ChunkResponse, StatusRequest, StatusResponse, to_text
from ..errors import ProtocolError, TransferError
from ..web import Response
from .job import Job, Sent, answered
from .pieces import KIB, MIB

MOST_CHUNKS = 2048
"""Of a file, if their size is not set: then a break costs a 4000th of the file."""
SMALLEST, LARGEST = 256 * KIB, 8 * MIB

T = TypeVar("T")
_ROUNDS = 10
_JSON = {"Accept": structs.JSON}


def send(job: Job) -> Sent:
    """Send the chunks that the server has not got; raises TransferError, after which the next call goes on."""
    if "identifier" not in job.state:
        # Known before the first chunk goes: where its answer is lost, the upload is found by it.
        job.keep(identifier=secrets.token_hex(16), piece=_piece(job))
    for _ in range(_ROUNDS):
        status = _status(job)
        if status is not None and status.state == "finished":
            return job.sent(job.state["url"])
        try:
            _send_missing(job, status)
        except TransferError as error:
            if answered(error) != 413 or "uid" in job.state or job.state["piece"] <= SMALLEST:
                raise
            # Not even the first one was taken; somebody between us and the server may have a limit of their own.
            job.keep(identifier=secrets.token_hex(16), piece=max(SMALLEST, job.state["piece"] // 2))
    raise ProtocolError("The server has all chunks, and does not take the upload for finished.")


def _piece(job: Job) -> int:
    """Return the bytes of a chunk, which stay the same for an upload."""
    wanted = job.request.piece or min(LARGEST, max(SMALLEST, -(-job.size // MOST_CHUNKS)))
    return min(wanted, int(job.state.get("most") or wanted))


def _count(job: Job) -> int:
    return max(1, -(-job.size // int(job.state["piece"])))


def _status(job: Job) -> StatusResponse | None:
    """Ask how far the upload is; None for one of which nothing has arrived yet."""
    query = StatusRequest("", job.state["identifier"], job.name, job.size, _count(job))
    try:
        answer = job.ask("GET", _with_query(job.collection, to_text(query)), _JSON)
    except TransferError as error:
        if "uid" not in job.state and answered(error) == 404:
            return None
        raise
    status = _parsed(StatusResponse, answer)
    if "uid" not in job.state:
        _found(job, status.uploadUid)
    return status


def _send_missing(job: Job, status: StatusResponse | None) -> None:
    """Send what is missing, one chunk after the other."""
    done = status.receivedBytes if status is not None else 0
    job.reached(done)
    for number in _missing(job, status):
        done += _send_chunk(job, number, done)
        job.reached(done)


def _missing(job: Job, status: StatusResponse | None) -> Iterator[int]:
    ranges = [(0, _count(job) - 1)] if status is None or status.missing is None else status.missing
    for first, last in ranges:
        yield from range(first, last + 1)


def _send_chunk(job: Job, number: int, done: int) -> int:
    """Send a chunk; return how many bytes it has."""
    piece = int(job.state["piece"])
    offset = number * piece
    length = min(piece, job.size - offset)
    if length < 0:
        raise ProtocolError(f"The server asks for chunk {number}, which there is not.")
    chunk = ChunkRequest(
        job.name, job.size, _count(job), number, b"", job.state.get("uid", ""), job.state["identifier"],
        job.digest(offset, length),
    )  # fmt: skip
    url = _with_query(job.collection, to_text(chunk))
    answer = job.ask("POST", url, {**_JSON, "Content-Type": RAW}, job.body(offset, length, done))
    if "uid" not in job.state:
        _found(job, _parsed(ChunkResponse, answer).uploadUid)
    return length


def _found(job: Job, uid: str) -> None:
    parts = urlsplit(job.collection)
    url = parts._replace(path=f"{parts.path.rstrip('/')}/{uid}", query="", fragment="").geturl()
    job.keep(uid=uid, url=url)


def _with_query(url: str, fields: Mapping[str, str]) -> str:
    parts = urlsplit(url)
    return parts._replace(query="&".join(filter(None, (parts.query, urlencode(fields)))), fragment="").geturl()


def _parsed(kind: type[T], answer: Response) -> T:
    try:
        return structs.load(kind, structs.decode(answer.body, structs.JSON))
    except Error as error:
        raise ProtocolError(f"The server does not answer as the chunk protocol has it: {error}") from None
