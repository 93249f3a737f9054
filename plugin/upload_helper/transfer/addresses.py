"""Addresses of servers, what signs requests to them, and what keeps secrets out of everything that is shown."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from ..errors import shown
from .errors import InvalidTransferError, TransferError

HIDDEN = "***"

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
SECRET_NAME = re.compile(
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
_ALIAS = re.compile(r"#([^/?#]*)(.*)", re.DOTALL)
OPEN_HEADERS = frozenset({"accept", "accept-encoding", "accept-language", "content-type", "user-agent"})
"""Headers, in lower case, that anybody may see."""
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Endpoint:
    """A server's address, and the headers that sign each request to it. ``repr`` shows no secret."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent to this origin alone."""

    @classmethod
    def of(
        cls,
        url: str,
        headers: Mapping[str, str] | None = None,
        basic: tuple[str, str] | Mapping[str, str] | None = None,
        auth: str = "",
    ) -> Endpoint:
        """Check an address and what signs requests to it; raises InvalidTransferError that shows no secret.

        `basic` is user and password, `auth` a whole value of ``Authorization``; a user in the URL counts as well.
        """
        address, from_url = split_credentials(url)
        return cls(address, {**from_url, **own_headers({"headers": headers, "basic": basic, "auth": auth})})

    def __repr__(self) -> str:
        return f"Endpoint({scrubbed(self.url)!r})"

    def headers_for(self, url: str) -> Mapping[str, str]:
        """Return the headers that a request to `url` may carry: none of them go to another origin."""
        return self.headers if may_know(url, self.url) else {}


def own_headers(given: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers that the members ``headers``, ``basic`` and ``auth`` of a request ask for.

    Raises InvalidTransferError that names the member, never its value.
    """
    headers = given.get("headers") or {}
    if not isinstance(headers, Mapping):
        raise InvalidTransferError(
            f"headers must be an object of names and values, not {shown(type(headers).__name__)}."
        )
    found = {str(name): str(value) for name, value in headers.items()}
    if given.get("basic"):
        found["Authorization"] = basic_header(*_user_and_password(given["basic"]))
    if given.get("auth"):
        found["Authorization"] = str(given["auth"])
    for name, value in found.items():
        if not _HEADER.fullmatch(name):
            raise InvalidTransferError(f"{shown(name)} cannot be the name of a header.")
        if not value.isprintable() or not _is_latin(value):
            raise InvalidTransferError(f"The value of the header {name} has characters that no header can have.")
    return found


def basic_header(user: str, password: str) -> str:
    """Return the value of ``Authorization`` (RFC 7617, in UTF-8)."""
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def split_credentials(url: str) -> tuple[str, dict[str, str]]:
    """Return the URL without user and password, and the header that says them; raises InvalidTransferError."""
    parts = check_url(url)
    if "@" not in parts.netloc:
        return url, {}
    user_info, _, host = parts.netloc.rpartition("@")
    user, _, password = user_info.partition(":")
    return parts._replace(netloc=host).geturl(), {"Authorization": basic_header(unquote(user), unquote(password))}


def check_url(url: object) -> SplitResult:
    """Return the parts of an address with http or https and a host; raises InvalidTransferError for any other."""
    try:
        parts = urlsplit(str(url))
        good = parts.scheme in _PORTS and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good or not str(url).isprintable() or re.search(r"[\s\\]", str(url)):
        raise InvalidTransferError(
            f"{shown(scrubbed(str(url)))} is no address: it begins with http:// or https:// and a host."
        )
    return parts


def origin(url: str) -> tuple[str, str | None, int]:
    """Return scheme, host and port of an address (RFC 6454); raises InvalidTransferError."""
    parts = check_url(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme]


def may_know(url: str, signed: str) -> bool:
    """Whether what signs requests to the address `signed` may go to `url`: the same origin, or the same made safe."""
    scheme, host, port = origin(signed)
    return origin(url) == (scheme, host, port) or (
        (scheme, port) == ("http", 80) and origin(url) == ("https", host, 443)
    )


def joined(base: str, url: str) -> str:
    """Return an address that may be relative to another one; raises InvalidTransferError."""
    try:
        whole = urljoin(base, url)
    except ValueError:
        whole = url
    check_url(whole)
    return whole


def moved(url: str, location: str) -> str:
    """Return where a redirect leads, without credentials of its own; raises TransferError where it leads nowhere."""
    try:
        return split_credentials(joined(url, location))[0]
    except InvalidTransferError:
        raise TransferError("The server redirects to something that is no address on the web.") from None


def split_alias(target: str) -> tuple[str, str] | None:
    """Return the name and the rest of ``#alias/path``; None for any other address."""
    match = _ALIAS.fullmatch(target)
    return None if match is None else (match[1], match[2])


def scrubbed(text: str) -> str:
    """Return the text without credentials in URLs, secrets in queries, and values of ``Authorization``."""
    text = _USER_INFO.sub(rf"\1{HIDDEN}@", text)
    text = _QUERY.sub(_scrub_member, text)
    text = _MEMBER.sub(lambda m: f'{m[1]}"{HIDDEN}"' if SECRET_NAME.search(m[2]) else m[0], text)
    return _CREDENTIALS.sub(rf"\1 {HIDDEN}", text)


def _scrub_member(match: re.Match[str]) -> str:
    secret = SECRET_NAME.search(match[2]) or match[2].lower() == "key"
    return f"{match[1]}{match[2]}={HIDDEN}" if secret else match[0]


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
    raise InvalidTransferError('basic must be user and password: {"user": …, "password": …}, or two texts.')
