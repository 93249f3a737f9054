"""What the tests of files that are sent share: a line to an application in this process, which breaks as it is told."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from requests.structures import CaseInsensitiveDict

from upload_helper.transfer.errors import AnswerError, LinkError
from upload_helper.transfer.pace import Pace
from upload_helper.transfer.upload import Sent, UploadRequest, send
from upload_helper.transfer.web import Response

ORIGIN = "http://office.example"
URL = f"{ORIGIN}/uploads"
Fault = Callable[[str, str, bytes], "tuple[str, int] | None"]


def fine(method: str, url: str, body: bytes) -> None:
    """Let a request pass."""


class HostLine:
    """A line to a Flask application.

    `fault` is asked about each request (method, URL, body): None lets it pass, ("cut", n) breaks it behind n bytes of
    its body, ("lost", 0) takes the answer away, ("corrupt", n) turns a byte of the body over, ("refuse", status)
    answers it in place of the server.
    """

    is_cut = False
    pace = Pace()

    def __init__(self, client: Any, fault: Fault = fine) -> None:
        self.client = client
        self.fault = fault
        self.asked: list[tuple[str, str, int]] = []
        """Method, path and bytes of the body of each request."""
        self.blocks: list[int] = []
        """Sizes of what was announced."""

    @property
    def sent(self) -> int:
        """Bytes of bodies that went."""
        return sum(length for _, _, length in self.asked)

    def methods(self) -> str:
        return " ".join(method for method, _, _ in self.asked)

    def turn(self, count: int) -> None:
        self.blocks.append(count)

    def ask(self, method: str, url: str = "", *, headers: Any = None, body: Any = None) -> Response:
        content = b"" if body is None else b"".join(body)
        assert body is None or len(content) == len(body) > 0
        kind, number = self.fault(method, url, content) or ("", 0)
        declared = len(content)
        if kind == "cut":
            content = content[:number]
        elif kind == "corrupt":
            content = content[:number] + bytes([content[number] ^ 1]) + content[number + 1 :]
        elif kind == "refuse":
            raise AnswerError(f"{number}", answered=number, headers={})
        self.asked.append((method, urlsplit(url).path, len(content)))
        parts = urlsplit(url)
        answer = self.client.open(
            parts.path, method=method, query_string=parts.query, base_url=ORIGIN, input_stream=io.BytesIO(content),
            headers={**(headers or {}), "X-User": "ann"}, environ_overrides={"CONTENT_LENGTH": str(declared)},
        )  # fmt: skip
        with answer:
            if kind in ("cut", "lost"):
                raise LinkError("The connection broke.")
            found = CaseInsensitiveDict(answer.headers)
            if answer.status_code >= 400:
                raise AnswerError(answer.text, answered=answer.status_code, headers=found)
            return Response(answer.status_code, found, url, answer.data)


class ScriptedLine:
    """A line to a server that answers as it is told: a status, headers and a body for each request in turn.

    An answer to a request that was redirected says in Content-Location where it comes from.
    """

    is_cut = False
    pace = Pace()

    def __init__(self, *answers: Any) -> None:
        self._answers: Iterator[Any] = iter(answers)
        self.asked: list[tuple[str, str, bytes]] = []
        self.headers: list[dict[str, str]] = []

    def turn(self, count: int) -> None:
        pass

    def ask(self, method: str, url: str = "", *, headers: Any = None, body: Any = None) -> Response:
        self.asked.append((method, url, b"" if body is None else b"".join(body)))
        self.headers.append(dict(headers or {}))
        status, found, *rest = next(self._answers)
        if status >= 400:
            raise AnswerError(f"{status}", answered=status, headers=found, retry_after=found.get("Retry-After"))
        return Response(status, CaseInsensitiveDict(found), found.get("Content-Location", url), *rest)


class Sending:
    """A file that is sent; in another process if `again` is called."""

    def __init__(self, line: Any, file: Path, url: str = URL, **options: Any) -> None:
        self.line = line
        self.request = UploadRequest(url, file, **options)
        self.state: dict[str, Any] = {}
        self.saved = 0
        self.reports: list[tuple[int, int]] = []
        self.slept: list[float] = []

    def again(self, **options: Any) -> Sent:
        return send(
            UploadRequest(**{**vars(self.request), **options}), self.line, state=json.loads(json.dumps(self.state)),
            save=self._save, report=lambda done, total: self.reports.append((done, total)), sleep=self.slept.append,
        )  # fmt: skip

    run = again

    def _save(self, state: dict[str, Any]) -> None:
        self.saved += 1
        self.state = state
