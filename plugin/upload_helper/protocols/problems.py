"""Problem documents, RFC 9457: errors as Resumable Uploads for HTTP words them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Self

PROBLEM = "application/problem+json"

_TYPES = "https://iana.org/assignments/http-problem-types#"
MISMATCHING_OFFSET = _TYPES + "mismatching-upload-offset"
INCONSISTENT_LENGTH = _TYPES + "inconsistent-upload-length"
COMPLETED = _TYPES + "completed-upload"
"""Of older drafts of the protocol, whose clients know it."""
BLANK = "about:blank"

_TITLES = {
    "offset_mismatch": (MISMATCHING_OFFSET, "The upload stands at another offset"),
    "length_mismatch": (INCONSISTENT_LENGTH, "The lengths contradict each other"),
    "finished": (COMPLETED, "The upload is complete"),
}
_PHRASES = {status.value: status.phrase for status in HTTPStatus}


@dataclass(frozen=True)
class Problem:
    """Why a request was refused, with our code and remedy."""

    type: str = BLANK
    title: str = ""
    status: int = 0
    detail: str = ""
    code: str = ""
    remedy: str = ""
    extensions: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Other members, ``expected-offset`` and ``provided-offset`` among them."""

    @classmethod
    def of(cls, members: Mapping[str, Any], status: int) -> Self:
        """Return the problem that an error's JSON (``error``, ``code``, ``remedy`` and more) tells of."""
        more = dict(members)
        detail, code, remedy = (str(more.pop(name, "")) for name in ("error", "code", "remedy"))
        kind, title = _TITLES.get(code, (BLANK, _PHRASES.get(status, "Error")))
        if kind == MISMATCHING_OFFSET:
            more = {f"{name}-offset": more[name] for name in ("expected", "provided") if name in more}
        return cls(kind, title, status, detail, code, remedy, more)

    @classmethod
    def parse(cls, members: Mapping[str, Any]) -> Self:
        """Read a document; a member of another type than it must have is ignored (RFC 9457, section 3.1)."""
        more = dict(members)
        known = {name: more.pop(name, None) for name in ("type", "title", "status", "detail", "code", "remedy")}
        status = known.pop("status")
        values: dict[str, Any] = {name: value for name, value in known.items() if isinstance(value, str)}
        if isinstance(status, int) and not isinstance(status, bool):
            values["status"] = status
        return cls(**values, extensions=more)

    def build(self) -> dict[str, Any]:
        """Return the members of the document."""
        known = {name: getattr(self, name) for name in ("type", "title", "status", "detail", "code", "remedy")}
        return {**self.extensions, **known}
