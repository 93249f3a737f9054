"""What a server speaks: asked once, and kept where a file can go on."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import Error
from ..protocols.chunked import ChunkOffer
from ..protocols.rufh import PARTIAL, Limits
from ..protocols.tus import VERSION, Abilities
from .errors import TransferError
from .uploads.job import PLAIN, Job, UploadRequest, answered

# A gateway that can't reach its server says nothing of what that one speaks; these do, in their way.
_SAYS_NOTHING = frozenset({500, 501})
_SIGN_IN = 401


def discover(job: Job) -> str:
    """Return the protocol to send a file by; raises TransferError where the server can't be reached.

    What keeps the bytes of a request that was cut is preferred: tus, then Resumable Uploads for HTTP. A server that
    speaks neither of them nor the chunk protocol gets one plain request: a body by PUT, a form by any other method.
    """
    protocol = chosen(job.request) or job.state.get("protocol") or _ask(job)
    if protocol != job.state.get("protocol") and protocol not in PLAIN:
        # A plain request leaves nothing to go on with, and another time the server may say more.
        job.keep(protocol=protocol)
    return protocol


def chosen(request: UploadRequest) -> str:
    """Return the protocol that a request sets, by its name or by its method; '' where the server is to be asked."""
    return request.protocol or ("raw" if request.method in ("PUT", "PATCH") else "")


def spoken(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Return the protocols that an answer to OPTIONS offers, the best one first."""
    lower = {name.lower(): value for name, value in headers.items()}
    found = []
    if _speaks_tus(headers):
        found.append("tus")
    limits = Limits.parse(lower["upload-limit"]) if "upload-limit" in lower else None
    if limits is not None or PARTIAL in lower.get("accept-patch", "").lower():
        found.append("rufh")
    if ChunkOffer.parse(headers) is not None:
        found.append("chunks")
    return tuple(found)


def _ask(job: Job) -> str:
    try:
        answer = job.line.ask("OPTIONS", job.request.url)
    except TransferError as error:
        status = answered(error)
        # Who is not let in need not send the file to be told so again.
        if (400 <= status < 500 and status != _SIGN_IN and not error.temporary) or status in _SAYS_NOTHING:
            return "multipart"
        raise
    found = spoken(answer.headers)
    offer = ChunkOffer.parse(answer.headers)
    if found:
        # Where it redirects to, so that no piece of a file goes twice.
        job.keep(collection=answer.url, **({} if offer is None else {"most": offer.max_chunk_size}))
    return found[0] if found else "multipart"


def _speaks_tus(headers: Mapping[str, str]) -> bool:
    try:
        abilities = Abilities.parse(dict(headers))
    except Error:
        return False
    return VERSION in abilities.versions and "creation" in abilities.extensions
