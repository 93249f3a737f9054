"""The one way to talk to a server: requests that can be stopped, and errors that say whether to come back."""

from __future__ import annotations

import http.client
import re
import ssl
import time
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, NoReturn, Protocol

import requests
import urllib3
from requests.structures import CaseInsensitiveDict

from ..errors import shown
from ..version import __version__
from .addresses import Endpoint, joined, may_know, moved, origin
from .errors import (
    CertificateError,
    ContentError,
    InvalidTransferError,
    LinkError,
    PageError,
    StalledError,
    TransferError,
)
from .pace import Pace
from .refusals import LOOKED_AT, refusal
from .wire import Door, open_session

BLOCK = 1 << 17
"""Most bytes of an answer that are held at once. Memory of a larger block is given back to the system and asked for
again each time, which costs more than the calls that it saves: with 1 MiB, a GiB takes three times as long."""
MOST_ANSWER = 16 << 20
"""Largest answer that is read whole, in bytes."""
MOST_ANSWER_SECONDS = 600.0
"""How long an answer that is read whole may take."""
MOST_REDIRECTS = 5
MOST_WAIT = 5 * 3600
"""Longest Retry-After that is obeyed, in seconds."""
CONNECT_SECONDS = 30.0

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SECRET_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization"})
_CHARSET = re.compile(r"""charset\s*=\s*["']?([\w.:-]+)""", re.IGNORECASE)
_COUNT = re.compile(r"[0-9]{1,18}", re.ASCII)
_ENDED = re.compile(r"EOF|CLOSED|RESET|ZERO_RETURN", re.IGNORECASE)


class Body(Protocol):
    """What is sent from a file: has a length, and is read in blocks.

    It raises TransferError rather than OSError, which would be taken for one of the connection. Without a method
    ``rewind`` it is never sent a second time, as a redirect may ask.
    """

    def __len__(self) -> int: ...

    def read(self, count: int = -1, /) -> bytes:
        """Return at most so many bytes, none at the end."""


@dataclass
class Response:
    """What a server said. With ``stream`` the body is still on the line: use as a context manager."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    """Names in any case."""
    url: str = field(repr=False)
    """Where the answer came from, behind redirects."""
    body: bytes = field(default=b"", repr=False)
    """All of it, decoded; empty with ``stream``."""
    raw: Any = field(default=None, repr=False)

    @property
    def text(self) -> str:
        """The body as text, in UTF-8 unless the server names another encoding."""
        match = _CHARSET.search(self.headers.get("Content-Type", ""))
        try:
            text = self.body.decode(match[1] if match else "utf-8", "replace")
        except (LookupError, UnicodeError):
            text = self.body.decode("utf-8", "replace")
        # Some encodings know half characters, which nothing can keep.
        return text.encode("utf-8", "replace").decode("utf-8")

    @property
    def length(self) -> int | None:
        """The Content-Length, or None where there is none that is a number."""
        text = self.headers.get("Content-Length", "")
        return int(text) if _COUNT.fullmatch(text) else None

    @property
    def retry_after(self) -> float | None:
        """The seconds of a Retry-After, RFC 9110, section 10.2.3; None where there is none, or none that is one."""
        return seconds_of(self.headers.get("Retry-After", ""))

    def close(self) -> None:
        """Leave the rest of the body; the connection ends with it."""
        if self.raw is not None:
            self.raw.close()

    def __enter__(self) -> Response:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


@dataclass(frozen=True)
class _Asked:
    method: str
    url: str
    headers: dict[str, str]
    body: bytes | Body | None


class Line:
    """The connection to one endpoint. One thread talks; any other may `cut`.

    `stall` is the seconds that may pass without a byte; `ca` a file or folder of certificates that are trusted
    instead of the usual ones; `proxy` an address, ``""`` for what the environment says, or ``"direct"``; `check` is
    called often and ends everything by raising; `pace` limits what `blocks` and `turn` let through; `tell` gets which
    share, 0 to 1, of an answer of known length is there that is read whole.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        stall: float = 60,
        ca: str = "",
        proxy: str = "",
        check: Callable[[], object] = lambda: None,
        pace: Pace | None = None,
        tell: Callable[[float], object] = lambda _share: None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.endpoint = endpoint
        self.check = check
        self.pace = pace or Pace()
        self._tell = tell
        self._sleep = sleep
        self._stall = stall
        self._door = Door(check, min(stall, CONNECT_SECONDS))
        self._session = open_session(self._door, ca, proxy)
        self._verify: bool | str | None = ca or None

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connections."""
        self._session.close()

    def cut(self) -> None:
        """End whatever goes on, at once and for good; to be called by any thread."""
        self._door.shut()

    @property
    def is_cut(self) -> bool:
        """Whether somebody cut the line; then nothing passes any more."""
        return self._door.is_shut

    def turn(self, count: int) -> None:
        """Check, and wait until so many bytes may pass; for each block of a body that is sent."""
        self.check()
        self.pace.take(count, self._sleep)

    def ask(
        self,
        method: str,
        url: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Body | None = None,
        stream: bool = False,
        allow: Container[int] = (),
    ) -> Response:
        """Send a request and return the answer; `url` is relative to the endpoint.

        Statuses of 400 and above raise AnswerError, but for those in `allow`. Raises LinkError where there is no
        answer, CertificateError, and TransferError for redirects that lead nowhere. `headers` are those of the
        protocol; what signs requests belongs into the endpoint, whose headers go to no other origin.
        """
        asked = _Asked(method.upper(), joined(self.endpoint.url, url), dict(headers or {}), body)
        for _ in range(MOST_REDIRECTS + 1):
            self.check()
            response = self._ask(asked)
            location = response.headers.get("Location", "")
            if response.status not in _REDIRECTS or not location or response.status in allow:
                return self._finished(response, asked, stream=stream, allow=allow)
            response.close()
            asked = _redirected(asked, response.status, moved(asked.url, location))
        raise TransferError(f"The server redirects more than {MOST_REDIRECTS} times.")

    def blocks(self, response: Response, *, as_is: bool = False) -> Iterator[bytes]:
        """Yield what comes of a body, as soon as it is there, in blocks of at most BLOCK bytes.

        Raises LinkError if it ends before its declared length, TransferError if it is compressed, though nobody asked
        for that: neither length nor digest nor the offsets of a continued transfer would be those of the file. With
        `as_is`, that is what the file is.
        """
        encoding = response.headers.get("Content-Encoding", "").strip().lower()
        if encoding not in ("", "identity") and not as_is:
            raise ContentError(
                f"The server sends the file compressed ({shown(encoding)}), which was not asked for.",
                remedy="Ask the operator of the server to send it as it is, as Accept-Encoding: identity asks.",
            )
        while block := self._read(response, self.pace.block(BLOCK)):
            yield block
            self.turn(len(block))

    def _ask(self, asked: _Asked) -> Response:
        given = CaseInsensitiveDict({"Accept": "*/*", "User-Agent": f"upload-helper/{__version__}"})
        given.update(self.endpoint.headers_for(asked.url))
        given.update(asked.headers)
        given["Accept-Encoding"] = "identity"
        try:
            answer = self._session.request(
                asked.method,
                asked.url,
                headers=dict(given),
                data=asked.body,
                auth=_unsigned,
                allow_redirects=False,
                stream=True,
                timeout=self._stall,  # also of what is sent; how long connecting may take is the door's to say
                verify=self._verify,
            )
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, http.client.HTTPException,
                UnicodeError) as error:  # fmt: skip
            self._fail(error)
        return Response(answer.status_code, answer.headers, asked.url, raw=answer)

    def _finished(self, response: Response, asked: _Asked, *, stream: bool, allow: Container[int]) -> Response:
        is_good = response.status < 400 or response.status in allow
        if is_good and stream:
            return response
        with response:
            response.body = self._whole(response, asked)
        response.raw = None
        if not is_good:
            raise refusal(response, {**self.endpoint.headers, **asked.headers})
        return response

    def _whole(self, response: Response, asked: _Asked) -> bytes:
        if asked.method == "HEAD":
            # Its length is that of what GET would give; to read nothing gives the connection back.
            response.raw.raw.drain_conn()
            return b""
        blocks: list[bytes] = []
        length, total = 0, response.length or 0
        if total > MOST_ANSWER:
            raise TransferError(f"The answer has {total} bytes; {MOST_ANSWER} are taken.")
        deadline = time.monotonic() + MOST_ANSWER_SECONDS
        while block := self._read(response, LOOKED_AT * 8, decoded=True):
            blocks.append(block)
            length += len(block)
            if length > MOST_ANSWER or time.monotonic() > deadline:
                raise TransferError(
                    f"The answer is longer than {MOST_ANSWER} bytes or {MOST_ANSWER_SECONDS:.0f} seconds."
                )
            if total:
                self._tell(min(1, length / total))
        return b"".join(blocks)

    def _read(self, response: Response, most: int, *, decoded: bool = False) -> bytes:
        self.check()
        try:
            block: bytes = response.raw.raw.read1(most, decode_content=decoded)
        except (urllib3.exceptions.HTTPError, OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            self._fail(error)
        if self._door.is_shut:
            self._fail(ConnectionAbortedError())
        return block

    def _fail(self, error: BaseException) -> NoReturn:
        """Raise what stands for an error of the libraries; their own texts may name addresses with secrets in them."""
        self.check()
        if self._door.is_shut:
            raise LinkError("The transfer was cut off here.") from None
        if isinstance(error, requests.exceptions.InvalidSchema):
            raise InvalidTransferError("This proxy needs more: pip install requests[socks].") from None
        chain = list(_chain(error))
        if any(isinstance(e, ssl.SSLCertVerificationError) for e in chain):
            text = next(e.verify_message for e in chain if isinstance(e, ssl.SSLCertVerificationError))
            raise CertificateError(f"The certificate of the server is not trusted: {text}.") from None
        tls = [e for e in chain if isinstance(e, ssl.SSLError)]
        if tls and isinstance(error, requests.exceptions.SSLError) and not _ENDED.search(str(tls[0])):
            raise CertificateError(f"No safe connection: {tls[0].reason or 'TLS failed'}.") from None
        if any(isinstance(e, (TimeoutError, urllib3.exceptions.ReadTimeoutError)) for e in chain):
            raise StalledError(f"Not a byte passed for {self._stall:g} s.") from None
        raise LinkError(f"{_reason(chain)}.") from None


def seconds_of(text: str, now: datetime | None = None) -> float | None:
    """Return the seconds of a Retry-After, RFC 9110, section 10.2.3, at most MOST_WAIT; None where it is none."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(MOST_WAIT, int(text[:9]))
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, IndexError, TypeError, OverflowError):
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(MOST_WAIT, max(0.0, (moment - (now or datetime.now(UTC))).total_seconds()))


def _unsigned(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
    """Sign nothing: without this, a .netrc of the user would."""
    return prepared


def _redirected(asked: _Asked, status: int, url: str) -> _Asked:
    """Return what is to be sent next, RFC 9110, section 15.4."""
    headers, body, method = asked.headers, asked.body, asked.method
    is_file = body is not None and not isinstance(body, bytes)
    if is_file and status in (302, 303) and not may_know(url, asked.url):
        raise PageError("The server sends whoever brings a file to another one, and does not say that it took it.")
    # What has moved, to TLS for example, took no file yet.
    is_moved = is_file and (status == 301 or origin(url) != origin(asked.url))
    if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST" and not is_moved):
        headers = {k: v for k, v in headers.items() if not k.lower().startswith("content-")}
        method, body = "GET", None
    elif is_file:
        rewind = getattr(body, "rewind", None)
        if rewind is None:
            raise TransferError("The server redirects what can't be sent twice.", remedy="Name the address it is at.")
        rewind()
    if not may_know(url, asked.url):
        headers = {k: v for k, v in headers.items() if k.lower() not in _SECRET_HEADERS}
    return _Asked(method, url, headers, body)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that it stands for, wherever the libraries have put them."""
    seen: list[BaseException] = []
    queue: list[Any] = [error]
    while queue and len(seen) < 20:
        current = queue.pop(0)
        if isinstance(current, BaseException) and current not in seen:
            seen.append(current)
            queue += [getattr(current, "reason", None), current.__cause__, current.__context__, *current.args]
    yield from seen


def _reason(chain: list[BaseException]) -> str:
    kinds: dict[type[BaseException], str] = {
        urllib3.exceptions.NameResolutionError: "The name of the server is not known here",
        requests.exceptions.ProxyError: "The proxy does not let it through",
        ConnectionRefusedError: "Nobody listens at this address",
        urllib3.exceptions.NewConnectionError: "No connection",
        ConnectionError: "The connection broke",
        http.client.IncompleteRead: "The answer was cut",
    }
    found = (text for kind, text in kinds.items() if any(isinstance(error, kind) for error in chain))
    return next(found, "The connection broke, or the server speaks no HTTP")
