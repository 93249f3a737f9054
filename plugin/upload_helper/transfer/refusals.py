"""What a server says when it refuses, as an error that people can act on."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Protocol

from .addresses import HIDDEN, OPEN_HEADERS, scrubbed
from .errors import AnswerError

LOOKED_AT = 10_000
"""Characters of an answer that are looked at."""

_EXCERPT = 200
_SECRET = 4
"""Characters of a value from which on it may be a secret, and is no word by chance."""
_TITLE = re.compile(r"<title[^>]{0,200}>(.{0,500}?)</title", re.IGNORECASE | re.DOTALL)
_MARKUP = re.compile(r"<(script|style)\b.*?(?:</\1[^>]*>|\Z)|<[^>]*(?:>|\Z)", re.IGNORECASE | re.DOTALL)
_REMEDIES = {
    401: "Correct the user and the password, or what else signs in.",
    403: "Ask the operator of the server for permission.",
    404: "Correct the address.",
    405: "Correct the address, or send in another way.",
    410: "Ask the operator of the server where it is now.",
    413: "Ask the operator of the server what is the most that it takes.",
    507: "Tell the operator of the server that it is full.",
}


class Answer(Protocol):
    """What is looked at."""

    status: int
    headers: Mapping[str, str]

    @property
    def text(self) -> str:
        """The body."""

    @property
    def retry_after(self) -> float | None:
        """The seconds of a Retry-After."""


def refusal(answer: Answer, sent: Mapping[str, str]) -> AnswerError:
    """Return the error for a status of 400 and above; `sent` are the headers of the request, with secrets in them."""
    status = answer.status
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else ""
    said, remedy = (_readable(text, sent) for text in _said(answer.text[:LOOKED_AT]))
    message = f"{status} {phrase}".strip() + (f": {said}" if said else "")
    return AnswerError(
        message if message.endswith((".", "!", "?", "…")) else f"{message}.",
        remedy=remedy or _REMEDIES.get(status),
        answered=status,
        headers=answer.headers,
        text=said,
        retry_after=answer.retry_after,
    )


def _said(text: str) -> tuple[str, str]:
    """Return what was wrong and what to do, of JSON as we or RFC 9457 have it, of a page, or of anything else."""
    if text.lstrip().startswith("{"):
        try:
            members = json.loads(text)
        except (ValueError, RecursionError):
            return text, ""
        return _member(members, "error", "detail", "title", "message") or text, _member(members, "remedy")
    if text.lstrip().startswith("<"):
        title = _TITLE.search(text)
        return html.unescape(_MARKUP.sub(" ", title[1] if title else text)), ""
    return text, ""


def _member(members: Mapping[str, Any], *names: str) -> str:
    return next((value for name in names if isinstance(value := members.get(name), str) and value.strip()), "")


def _readable(text: str, sent: Mapping[str, str]) -> str:
    """Return an excerpt without secrets, on one line."""
    for name, value in sent.items():
        if name.lower() not in OPEN_HEADERS:
            # A server may send back what it was sent.
            words = {word for word in re.split(r"[\s;,]+", value) if len(word) >= _SECRET}
            for word in sorted(words, key=len, reverse=True):
                text = text.replace(word, HIDDEN)
    line = " ".join("".join(c if c.isprintable() else " " for c in scrubbed(text)).split())
    return line if len(line) <= _EXCERPT else f"{line[: _EXCERPT - 1]}…"
