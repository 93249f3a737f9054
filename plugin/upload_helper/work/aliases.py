"""Named endpoints with what gives access to them, and what keeps secrets out of everything that is shown."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from ..errors import InvalidHandlersError, UnknownNameError, shown

HIDDEN = "***"
MOST_LETTERS = 200
_DEEPEST = 50

_NAME = re.compile(r"[\w.-]+")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SECRET_NAME = re.compile(
    r"(?i)pass(word|wd|phrase)?$|^pwd$|secret|token|(^|[_-])auth($|[_-]|orization)|^basic$|api[_-]?key|access[_-]?key|cookie|signature|^sig$"
)
# What somebody wrote may be long: no pattern looks further than it must, so that none takes the square of its length.
# A password may have a slash in it that nobody encoded; a port in front of a path with an @ is none.
_USER_INFO = re.compile(
    r"""(?i)\b([a-z][a-z0-9+.-]{0,20}://)"""
    r"""(?:(?:[^/?#\s"'<>@]{0,1000}+@)++|[^/?#:\s"'<>@]{0,200}+:(?!\d{1,5}[/?#])[^\s"'<>@]{0,300}+@)"""
)
_CREDENTIALS = re.compile(r"(?i)\b(basic|bearer|digest|token)[ ]+[A-Za-z0-9+/=._~-]{6,}")
_QUERY = re.compile(r"""([?&;\s]|^)([^=?&;#\s"']{1,100}+)=("[^"]{0,300}"?|'[^']{0,300}'?|[^&#\s"']*)""")
# A member of JSON that is cut, or has variables in it that are no JSON.
_MEMBER = re.compile(r"""("([^"\\]{1,100}+)"\s{0,9}:\s{0,9})"(?:[^"\\]|\\.)*+(?:"|\Z)""", re.DOTALL)
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
        address, from_url = split_credentials(url)
        given = own_headers({"headers": headers, "basic": basic, "auth": auth})
        return cls(name, address.rstrip("/"), {**from_url, **given})

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


def own_headers(given: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers that the members ``headers``, ``basic`` and ``auth`` of a request ask for.

    Raises InvalidHandlersError that names the member, never its value.
    """
    headers = given.get("headers") or {}
    if not isinstance(headers, Mapping):
        raise InvalidHandlersError(
            f"headers must be an object of names and values, not {shown(type(headers).__name__)}."
        )
    found = {str(name): str(value) for name, value in headers.items()}
    if given.get("basic"):
        found["Authorization"] = basic_header(*_user_and_password(given["basic"]))
    if given.get("auth"):
        found["Authorization"] = str(given["auth"])
    for name, value in found.items():
        if not _HEADER.fullmatch(name):
            raise InvalidHandlersError(f"{shown(name)} cannot be the name of a header.")
        if not value.isprintable() or not _is_latin(value):
            raise InvalidHandlersError(f"The value of the header {name} has characters that no header can have.")
    return found


def basic_header(user: str, password: str) -> str:
    """Return the value of ``Authorization`` (RFC 7617, in UTF-8)."""
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def split_credentials(url: str) -> tuple[str, dict[str, str]]:
    """Return the URL without user and password, and the header that says them; raises InvalidHandlersError."""
    parts = check_url(url)
    if "@" not in parts.netloc:
        return url, {}
    user_info, _, host = parts.netloc.rpartition("@")
    user, _, password = user_info.partition(":")
    return parts._replace(netloc=host).geturl(), {"Authorization": basic_header(unquote(user), unquote(password))}


def check_url(url: object) -> SplitResult:
    """Return the parts of an address with http or https and a host; raises InvalidHandlersError for any other."""
    try:
        parts = urlsplit(str(url))
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good or not str(url).isprintable() or re.search(r"[\s\\]", str(url)):
        raise InvalidHandlersError(
            f"{shown(scrubbed(str(url)))} is no address: it begins with http:// or https:// and a host."
        )
    return parts


def hidden(value: Any, name: str = "", depth: int = 0) -> Any:
    """Return a copy of a JSON value with all secrets masked: for lists, logs, ``repr`` and notifications."""
    if depth > _DEEPEST:
        return HIDDEN
    if name and _SECRET_NAME.search(name) and value not in (None, "", [], {}):
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


def scrubbed(text: str) -> str:
    """Return the text without credentials in URLs, secrets in queries, and values of ``Authorization``."""
    text = _USER_INFO.sub(rf"\1{HIDDEN}@", text)
    text = _QUERY.sub(_scrub_member, text)
    text = _MEMBER.sub(lambda m: f'{m[1]}"{HIDDEN}"' if _SECRET_NAME.search(m[2]) else m[0], text)
    return _CREDENTIALS.sub(rf"\1 {HIDDEN}", text)


def without_literals(statement: str) -> str:
    """Return a statement of SQL without its texts, for any of them may be a secret; ``?`` and ``@Var`` show nothing."""
    return scrubbed(_STATEMENT.sub(lambda m: f"'{HIDDEN}'" if m["text"] else m[0], statement))


def _hidden_member(key: str, value: Any, parent: str, depth: int) -> Any:
    if parent.lower() == "headers" and key.lower() not in _OPEN_HEADERS:
        return HIDDEN
    return hidden(value, key, depth + 1)


_OPEN_HEADERS = frozenset({"accept", "accept-language", "content-type", "user-agent"})


def _scrub_member(match: re.Match[str]) -> str:
    secret = _SECRET_NAME.search(match[2]) or match[2].lower() == "key"
    return f"{match[1]}{match[2]}={HIDDEN}" if secret else match[0]


def _hidden_text(text: str, depth: int) -> Any:
    """Return a text without secrets; one that is JSON, such as a ``postExecute``, as what it stands for."""
    if text.lstrip().startswith(("{", "[")):
        with suppress(ValueError, RecursionError):
            return hidden(json.loads(text), depth=depth + 1)
    return scrubbed(text)


def _hidden_assignment(part: str) -> str:
    name, equals, value = part.partition("=")
    return f"{name}={hidden(value, name.strip())}" if equals else part


def _is_latin(text: str) -> bool:
    try:
        return bool(text.encode("latin-1")) or not text
    except UnicodeEncodeError:
        return False


def _user_and_password(basic: Any) -> tuple[str, str]:
    if isinstance(basic, Mapping):
        return str(basic.get("user", "")), str(basic.get("password", ""))
    if isinstance(basic, (list, tuple)) and len(basic) == 2:
        return str(basic[0]), str(basic[1])
    raise InvalidHandlersError('basic must be user and password: {"user": …, "password": …}, or two texts.')
