"""Named endpoints with what gives access to them, and what keeps secrets out of everything that is shown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from ..errors import InvalidHandlersError, UnknownNameError, shown
from ..transfer.addresses import HIDDEN, OPEN_HEADERS, SECRET_NAME, Endpoint, scrubbed
from ..transfer.errors import InvalidTransferError

MOST_LETTERS = 200
_DEEPEST = 50

_NAME = re.compile(r"[\w.-]+")
# Comments and quoted names are read over, for there may be an apostrophe in them.
_STATEMENT = re.compile(
    r"""--[^\n]*|/\*.*?(?:\*/|\Z)|"[^"]*+(?:"|\Z)|`[^`]*+(?:`|\Z)|(?P<text>'[^']*+(?:'|\Z))""", re.DOTALL
)


@dataclass(frozen=True)
class Alias:
    """An endpoint: its address, and the headers that every request to it carries. ``repr`` shows no secret."""

    name: str
    url: str
    """Begins every address, without a slash at its end."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent with each request; ``Authorization`` among them."""

    @classmethod
    def of(
        cls,
        name: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        basic: tuple[str, str] | Mapping[str, str] | None = None,
        auth: str = "",
    ) -> Alias:
        """Check what an endpoint is to be; raises InvalidHandlersError that shows no secret.

        `basic` is user and password, `auth` a whole value of ``Authorization``; a user in the URL counts as well.
        """
        if not can_name_alias(name):
            raise InvalidHandlersError(f"{shown(name)} cannot name an alias: letters, digits, '_', '.' and '-' can.")
        with invalid_as_handlers():
            endpoint = Endpoint.of(url, headers, basic, auth)
        return cls(name, endpoint.url.rstrip("/"), endpoint.headers)

    def as_dict(self) -> dict[str, Any]:
        """Return what the ledger keeps, secrets included."""
        return {"url": self.url, "headers": dict(self.headers)}

    @classmethod
    def from_dict(cls, name: str, kept: Mapping[str, Any] | None) -> Alias:
        """Read what the ledger kept; raises UnknownNameError where it keeps nothing, or nothing that can be read."""
        if kept is None:
            raise UnknownNameError(f"There is no alias {shown(name)}.", remedy="Add it with add_alias or HTTPAddAlias.")
        try:
            return cls.of(name, kept["url"], kept.get("headers"))
        except (ValueError, TypeError, KeyError, AttributeError, InvalidHandlersError):
            raise UnknownNameError(f"The alias {shown(name)} cannot be read; add it again.") from None


def can_name_alias(name: object) -> bool:
    """Whether an alias can be called so."""
    return isinstance(name, str) and len(name) <= MOST_LETTERS and bool(_NAME.fullmatch(name))


@contextmanager
def invalid_as_handlers() -> Iterator[None]:
    """Raise InvalidHandlersError for an address, or for what signs requests to it, that is none."""
    try:
        yield
    except InvalidTransferError as error:
        raise InvalidHandlersError(str(error)) from None


def hidden(value: Any, name: str = "", depth: int = 0) -> Any:
    """Return a copy of a JSON value with all secrets masked: for lists, logs, ``repr`` and notifications."""
    if depth > _DEEPEST:
        return HIDDEN
    if name and SECRET_NAME.search(name) and value not in (None, "", [], {}):
        return HIDDEN
    if isinstance(value, Mapping):
        masked = {key: _hidden_member(str(key), item, name, depth) for key, item in value.items()}
        if value.get("type") == "set" and isinstance(value.get("method"), str):
            masked["method"] = ";".join(_hidden_assignment(part) for part in value["method"].split(";"))
        if value.get("type") == "sql" and isinstance(value.get("method"), str):
            masked["method"] = without_literals(value["method"])
        if value.get("type") == "http" and isinstance(value.get("method"), str):
            *start, body = (*value["method"].split(maxsplit=2), "", "", "")[:3]
            body = hidden(body, depth=depth + 1)
            texts = (*map(scrubbed, start), body if isinstance(body, str) else json.dumps(body, ensure_ascii=False))
            masked["method"] = " ".join(texts).strip()
        return masked
    if isinstance(value, (list, tuple)):
        return [hidden(item, depth=depth + 1) for item in value]
    return _hidden_text(value, depth) if isinstance(value, str) else value


def without_literals(statement: str) -> str:
    """Return a statement of SQL without its texts, for any of them may be a secret; ``?`` and ``@Var`` show nothing."""
    return scrubbed(_STATEMENT.sub(lambda m: f"'{HIDDEN}'" if m["text"] else m[0], statement))


def _hidden_member(key: str, value: Any, parent: str, depth: int) -> Any:
    if parent.lower() == "headers" and key.lower() not in OPEN_HEADERS:
        return HIDDEN
    return hidden(value, key, depth + 1)


def _hidden_text(text: str, depth: int) -> Any:
    """Return a text without secrets; one that is JSON, such as a ``postExecute``, as what it stands for."""
    if text.lstrip().startswith(("{", "[")):
        with suppress(ValueError, RecursionError):
            return hidden(json.loads(text), depth=depth + 1)
    return scrubbed(text)


def _hidden_assignment(part: str) -> str:
    name, equals, value = part.partition("=")
    return f"{name}={hidden(value, name.strip())}" if equals else part
