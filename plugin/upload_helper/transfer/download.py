"""Fetching a file: it grows beside its target, goes on where it stopped, and appears whole or not at all."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn, TypeVar

from ..errors import shown
from ..retry import Backoff
from .addresses import joined
from .digests import Digest, promised
from .errors import (
    ContentError,
    DigestMismatchError,
    InvalidTransferError,
    LinkError,
    PageError,
    TargetError,
    TransferError,
)
from .names import name_of
from .part import Note, Part, check_target, source_of
from .web import Line, Response

MOST_FAILURES = 5
"""In a row, without one byte more than there ever was."""
BACKOFF = Backoff(first=1, longest=30)

Report = Callable[[int, int | None], object]
"""Takes the bytes that are there, first those of before, and how many the file has, or None while nobody knows."""

_METHOD = re.compile(r"[A-Z][A-Z-]{0,30}")
_RANGE = re.compile(r"bytes[ \t]+([0-9]{1,18})-([0-9]{1,18})/(?:([0-9]{1,18})|\*)", re.IGNORECASE)
_UNSATISFIED = re.compile(r"bytes[ \t]+\*/([0-9]{1,18})", re.IGNORECASE)
_WHOLE = (200, 203)
_DAMAGED = "what was there was damaged"
_PAGES = ("text/html", "application/xhtml+xml")
_LOOKED_AT = 512
_PAGE_NAMES = (".html", ".htm", ".xhtml")
# Some servers say of such a file that it is compressed, and mean the file itself.
_COMPRESSED = (".gz", ".tgz", ".z", ".bz2", ".xz", ".br", ".zst", ".svgz")

T = TypeVar("T")


@dataclass(frozen=True)
class DownloadRequest:
    """What to fetch, and where to put it; raises InvalidTransferError. ``repr`` shows no secret."""

    url: str = field(default="", repr=False)
    """Relative to the endpoint of the line; empty for the endpoint itself."""
    file: str = ""
    """The target. For a folder, or nothing, which is the current one, the server or the URL names the file in it."""
    method: str = "GET"
    """Only what is fetched by GET goes on where it stopped."""
    digest: str = ""
    """What the file must have, such as ``sha256:<hex>``; without one, what the server promises is checked."""
    overwrite: bool = False
    """Whether a file that is there is replaced, once the new one is whole."""

    def __post_init__(self) -> None:
        if not _METHOD.fullmatch(self.method):
            raise InvalidTransferError(f"{shown(self.method)} is no method.")
        if "\0" in self.file:
            raise InvalidTransferError(f"{shown(self.file)} cannot be the name of a file.")
        if self.digest:
            Digest.parse(self.digest)

    @property
    def is_folder(self) -> bool:
        """Whether the file in it is still to be named."""
        return not self.file or self.file.endswith("/") or Path(self.file).is_dir()


@dataclass(frozen=True)
class Fetched:
    """What became of a download."""

    path: Path
    size: int
    """Bytes of the file."""
    digest: str = ""
    """As ``<algorithm>:<hex>``, if one was promised: the file has it."""
    resumed: int = 0
    """Bytes that were there before."""
    restarted: str = ""
    """Why what was there could not be used, or ''."""

    @property
    def text(self) -> str:
        """What happened, in a sentence."""
        parts = [f"{self.path.name}: {self.size} bytes"]
        parts += [f"{self.resumed} of them were there before"] * bool(self.resumed)
        parts += [f"began again: {self.restarted}"] * bool(self.restarted)
        return "; ".join([*parts, f"has {self.digest}" if self.digest else "no digest was promised"])


def fetch(
    request: DownloadRequest,
    line: Line,
    *,
    report: Report = lambda done, total: None,  # noqa: ARG005
    sleep: Callable[[float], object] = time.sleep,
    backoff: Backoff = BACKOFF,
) -> Fetched:
    """Fetch a file; what an earlier attempt left beside the target is gone on with.

    A link that breaks is taken up again, after `backoff`. Raises TransferError: TargetError and its kinds for what is
    wrong here, ContentError and its kinds for what the server sends; one that is ``temporary`` can be gone on with.
    """
    if not request.is_folder:
        check_target(Path(request.file), overwrite=request.overwrite)
    elif request.file and not Path(request.file).is_dir():
        raise TargetError(f"There is no folder {request.file!r}.", remedy="Make it first.")
    return _Fetch(request, line, report, sleep, backoff).run()


class _OddError(ContentError):
    """An answer that is not to be used; asked again, the server may do better."""


class _Fetch:
    def __init__(
        self,
        request: DownloadRequest,
        line: Line,
        report: Report,
        sleep: Callable[[float], object],
        backoff: Backoff,
    ) -> None:
        self._request = request
        self._line = line
        self._report = report
        self._sleep = sleep
        self._backoff = backoff
        self._url = joined(line.endpoint.url, request.url)
        self._part: Part | None = None
        self._first: Response | None = None
        self._answers = 0
        self._resumed = 0
        self._most = 0
        self._failures = 0
        self._odd = 0
        self._restarted = ""

    def run(self) -> Fetched:
        with ExitStack() as stack:
            if self._request.is_folder:
                self._first = stack.enter_context(self._persist(lambda: self._ask({})))
            target = self._target()
            check_target(target, overwrite=self._request.overwrite)
            part = self._part = stack.enter_context(Part(target))
            if part.is_finished():
                return Fetched(target, part.size)
            self._prepare(part)
            self._complete(part)
            part.finish(overwrite=self._request.overwrite)
            return Fetched(target, part.size, part.note.digest, self._resumed, self._restarted)

    def _target(self) -> Path:
        if self._first is None:
            return Path(self._request.file)
        return Path(self._request.file) / name_of(self._first.headers.get("Content-Disposition", ""), self._url)

    def _prepare(self, part: Part) -> None:
        """Keep what is there, if it can be gone on with."""
        if not part.size:
            # A note without a part says nothing, least of all that a file without bytes is whole.
            part.note = Note()
        elif part.note.source != source_of(self._url):
            self._begin_again(part, "what was there is of another address")
        elif not (part.note.validator or self._digest(part.note)):
            # Nothing would tell if the file on the server became another one.
            self._begin_again(part, "the server gives no ETag and no date")
        elif self._request.method != "GET":
            self._begin_again(part, "only what is fetched by GET goes on")
        self._resumed = self._most = part.size
        if part.size:
            self._report(part.size, part.note.length)

    def _complete(self, part: Part) -> None:
        while True:
            while not part.is_whole:
                if self._persist(lambda: self._go_on(part)):
                    break
            digest = self._digest(part.note)
            if digest is None:
                return
            try:
                part.verify(digest, self._line.check)
            except DigestMismatchError:
                part.discard()
                if self._restarted == _DAMAGED or not (self._resumed or self._answers > 1):
                    raise
                # Its pieces may not belong together.
                self._begin_again(part, _DAMAGED)
                self._most = 0
            else:
                part.note = replace(part.note, digest=digest.build())
                return

    def _digest(self, note: Note) -> Digest | None:
        text = self._request.digest or note.digest
        return Digest.parse(text) if text else None

    def _begin_again(self, part: Part, why: str) -> None:
        part.discard()
        self._restarted = why
        self._resumed = 0

    def _persist(self, attempt: Callable[[], T]) -> T:
        """Try again after each failure that may pass, as long as there is something new now and then."""
        while True:
            try:
                return attempt()
            except TransferError as error:
                is_odd = isinstance(error, _OddError)
                if isinstance(error, TargetError) or self._line.is_cut or not (error.temporary or is_odd):
                    raise
                size = self._part.size if self._part else 0
                self._failures = 1 if size > self._most else self._failures + 1
                self._most = max(self._most, size)
                if self._failures >= MOST_FAILURES or (error.retry_after or 0) > self._backoff.longest:
                    raise
                self._sleep(self._backoff.delay(self._failures, error.retry_after))

    def _go_on(self, part: Part) -> bool:
        """Ask for what is missing and take it; return whether that was all."""
        answer, self._first = self._first, None
        if answer is not None:
            with answer:
                if part.size == 0:
                    return self._take(part, answer, 0)
        offset = part.size
        headers = {}
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if part.note.validator:
                headers["If-Range"] = part.note.validator
        with self._ask(headers) as answer:
            return self._take(part, answer, offset)

    def _ask(self, headers: Mapping[str, str]) -> Response:
        return self._line.ask(self._request.method, self._url, headers=headers, stream=True, allow=(416,))

    def _take(self, part: Part, answer: Response, offset: int) -> bool:
        skipped, end = 0, None
        if answer.status == 416:
            self._judge_416(part, answer, offset)
            return True
        if answer.status == 206 and offset:
            skipped, end = self._judge_206(part, answer, offset)
        elif answer.status in _WHOLE:
            self._judge_200(part, answer, offset)
            end = part.note.length
        else:
            raise ContentError(f"The server answers {answer.status} to a request for {'a part' if offset else 'all'}.")
        self._odd = 0
        self._answers += 1
        self._copy(part, answer, skipped, end)
        return part.is_whole or (end is None and answer.status in _WHOLE)

    def _copy(self, part: Part, answer: Response, skipped: int, end: int | None) -> None:
        """Append a body without its first bytes; it must reach up to `end`."""
        for block in self._line.blocks(answer, as_is=part.target.suffix.lower() in _COMPRESSED):
            rest = block[skipped:]
            skipped -= len(block) - len(rest)
            if end is not None and part.size + len(rest) > end:
                self._refuse(part, "The server sends more than it said.", at_once=True)
            part.write(rest)
            self._report(part.size, part.note.length)
        if end is not None and part.size < end:
            raise LinkError(f"The answer was cut at {part.size} of {end} bytes.")

    def _judge_200(self, part: Part, answer: Response, offset: int) -> None:
        """Begin from nothing, unless it is plain that this is not the file."""
        note = self._note_of(answer)
        is_due = part.note.is_page or part.target.suffix.lower() in _PAGE_NAMES
        is_other = part.target.suffix and "Content-Disposition" not in answer.headers
        if note.is_page and not is_due and (offset or self._request.digest or is_other or _is_no_page(part.target)):
            raise PageError("The server sends a page instead of the file.")
        if offset:
            changed = part.note.validator != note.validator
            self._begin_again(part, "the file has changed" if changed else "the server sends no parts")
        part.begin(note)
        self._report(0, note.length)

    def _judge_206(self, part: Part, answer: Response, offset: int) -> tuple[int, int]:
        """Return how many bytes of the answer are there already, and where it ends."""
        match = _RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
        note = self._note_of(answer)
        if match is None:
            self._refuse(part, "The server sends a part and does not say which.")
        first, end, total = int(match[1]), int(match[2]) + 1, int(match[3]) if match[3] else None
        if not first <= offset < end or (answer.length not in (None, end - first)):
            self._refuse(
                part, f"The server sends the bytes from {first} to {end}; it was asked for those from {offset}."
            )
        if part.note.differs(note):
            self._refuse(part, "The file has changed, and the server continues it all the same.", at_once=True)
        if total is not None and part.note.length not in (None, total):
            self._refuse(part, f"The file has {total} bytes now, and had {part.note.length}.", at_once=True)
        known = replace(part.note, length=total if part.note.length is None else part.note.length,
                        digest=part.note.digest or note.digest)  # fmt: skip
        if known != part.note:
            part.keep(known)
        return offset - first, end

    def _judge_416(self, part: Part, answer: Response, offset: int) -> None:
        """See that nothing is missing."""
        match = _UNSATISFIED.fullmatch(answer.headers.get("Content-Range", "").strip())
        total = int(match[1]) if match else None
        is_known = total is not None and part.note.length in (None, total)
        if not is_known or not offset or total != offset or part.note.differs(self._note_of(answer)):
            self._refuse(part, f"The server has no bytes from {offset} on.")

    def _refuse(self, part: Part, why: str, *, at_once: bool = False) -> NoReturn:
        """Raise; what is there is thrown away at once, or where the server says such a thing for the second time."""
        self._odd += 1
        if at_once or self._odd > 1:
            self._begin_again(part, why.rstrip("."))
        raise _OddError(why)

    def _note_of(self, answer: Response) -> Note:
        headers = answer.headers
        etag = headers.get("ETag", "").strip()
        digest = promised(headers, is_whole=answer.status in _WHOLE)
        return Note(
            source=source_of(self._url),
            etag=etag if re.fullmatch(r'(?:W/)?"[^"]*"', etag) else "",
            modified=headers.get("Last-Modified", "").strip(),
            length=answer.length,
            digest=digest.build() if digest else "",
            is_page=headers.get("Content-Type", "").partition(";")[0].strip().lower() in _PAGES,
        )


def _is_no_page(target: Path) -> bool:
    """Whether there is a file already that is no page itself."""
    try:
        with target.open("rb") as file:
            return not file.read(_LOOKED_AT).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")
    except OSError:
        return False
