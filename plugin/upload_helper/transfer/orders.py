"""What is to be sent or fetched, as somebody wrote it down; and the one way to carry it out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from ..errors import shown
from .addresses import Endpoint, check_url, own_headers, split_alias, split_credentials
from .errors import InvalidTransferError
from .pace import Pace, read_limit
from .progress import Meter

Kind = Literal["upload", "download"]

STALL = 60.0
"""Seconds without a byte after which a connection counts as lost, unless said otherwise."""

_TEXTS = ("url", "method", "file", "auth", "proxy", "ca")
_OWN: dict[Kind, dict[str, tuple[type, ...]]] = {
    "upload": {"protocol": (str,), "name": (str,), "part": (str,), "piece": (int,), "checksums": (bool,)},
    "download": {"digest": (str,), "overwrite": (bool,)},
}
_COMMON: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(_TEXTS, (str,)),
    "headers": (Mapping,),
    "basic": (Mapping, list, tuple),
    "limit": (str, int, float),
    "stall": (int, float),
}

Find = Callable[[str], tuple[str, Mapping[str, str]]]
"""Returns the address and the headers of an alias."""


@dataclass(frozen=True)
class Order:
    """One file that is to be sent or fetched; ``repr`` shows no secret."""

    kind: Kind
    endpoint: Endpoint
    file: str
    method: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What only one kind knows: protocol, name, part, piece, checksums; digest, overwrite."""
    limit: float | str = ""
    """As `Pace` takes it; '' for none of its own."""
    stall: float = STALL
    ca: str = ""
    proxy: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        """What people know the file by."""
        path = Path(self.file).name if self.kind == "upload" or not Path(self.file).is_dir() else ""
        # The query may hold secrets, and slashes.
        return path or urlsplit(self.endpoint.url).path.rpartition("/")[2] or "download"


@dataclass(frozen=True)
class Carried:
    """What became of it."""

    target: str = field(repr=False)
    """The URL of an upload, the path of a download."""
    size: int
    """In bytes."""
    text: str = ""
    """What the server answered to an upload."""
    uid: str = ""
    """Of an upload, as its server knows it."""
    digest: str = ""
    """Of a download, as ``<algorithm>:<hex>``, where one was checked."""
    restarted: str = ""
    """Why it was begun again, if it was."""


def read_order(kind: Kind, given: object, find: Find | None = None) -> Order:
    """Return the order in a request such as ``{"url": "#office/uploads", "file": "survey.gpkg"}``.

    `find` looks up aliases; without it nobody needs to know them yet. Raises InvalidTransferError, and whatever `find`
    raises.
    """
    if not isinstance(given, Mapping):
        raise InvalidTransferError(f"The request of a transfer is an object, not {shown(given)}.")
    known = {**_COMMON, **_OWN[kind]}
    for name, value in given.items():
        if name not in known:
            raise InvalidTransferError(f"{shown(name)} is no member of an {kind}; there are {', '.join(known)}.")
        if value is not None and (not isinstance(value, known[name]) or (type(value) is bool) != (bool in known[name])):
            raise InvalidTransferError(f"{name} of an {kind} cannot be {shown(value)}.")
    values = {name: value for name, value in given.items() if value is not None}
    if not values.get("url"):
        raise InvalidTransferError(f"The request of an {kind} has no url.")
    if kind == "upload" and not values.get("file"):
        raise InvalidTransferError("The request of an upload names no file.")
    order = Order(
        kind,
        _endpoint(values, find),
        values.get("file", ""),
        str(values.get("method", "")).upper(),
        {name: values[name] for name in _OWN[kind] if name in values},
        _limit(values.get("limit", "")),
        _stall(values.get("stall", STALL)),
        values.get("ca", ""),
        values.get("proxy", ""),
    )
    _request(order)
    return order


def carry(
    order: Order,
    meter: Meter,
    *,
    check: Callable[[], object] = lambda: None,
    sleep: Callable[[float], None],
    pace: Pace | None = None,
    state: dict[str, Any] | None = None,
    save: Callable[[dict[str, Any]], None] = lambda _state: None,
    hold: Callable[[Callable[[], None]], object] = lambda _cut: None,
) -> Carried:
    """Send or fetch the file; raises TransferError, and what `check` raises.

    `state` is what `save` was given last. `hold` gets what cuts the line at once, to be called by any thread. A limit
    of the order's own takes the place of `pace`.
    """
    from .web import Line  # noqa: PLC0415 - needs requests, which not everybody has who writes orders

    own = Pace(order.limit) if order.limit != "" else pace
    with Line(
        order.endpoint, stall=order.stall, ca=order.ca, proxy=order.proxy, check=check, pace=own, sleep=sleep
    ) as line:
        hold(line.cut)

        def wait(seconds: float) -> None:
            meter.wait(seconds, sleep)

        if order.kind == "upload":
            from .upload import send  # noqa: PLC0415

            sent = send(
                _request(order), line, state=state, save=save, report=meter.report, sleep=wait, speaks=meter.speaks
            )
            return Carried(sent.url, sent.size, sent.text, sent.uid, restarted=sent.restarted)
        from .download import fetch  # noqa: PLC0415

        got = fetch(_request(order), line, report=meter.report, sleep=wait)
        return Carried(str(got.path), got.size, digest=got.digest, restarted=got.restarted)


def _request(order: Order) -> Any:
    """Return the request of the kind; raises InvalidTransferError."""
    if order.kind == "upload":
        from .upload import UploadRequest  # noqa: PLC0415

        return UploadRequest(order.endpoint.url, order.file, order.method, **order.options)
    from .download import DownloadRequest  # noqa: PLC0415

    return DownloadRequest(file=order.file, method=order.method or "GET", **order.options)


def _endpoint(values: Mapping[str, Any], find: Find | None) -> Endpoint:
    url: str = values["url"]
    signed: Mapping[str, str] = {}
    alias = split_alias(url)
    if alias is not None:
        name, rest = alias
        if not name:
            raise InvalidTransferError(f"{shown(url)} names no alias; write #alias/path.")
        start, signed = find(name) if find is not None else ("http://alias.invalid", {})
        url = start + rest
        check_url(url)
    address, from_url = split_credentials(url)
    return Endpoint(address, {**signed, **from_url, **own_headers(values)})


def _limit(limit: str | float) -> str | float:
    if limit != "":
        read_limit(limit)
    return limit


def _stall(seconds: float) -> float:
    if not 0 < seconds <= 86400:
        raise InvalidTransferError(f"stall {shown(seconds)} is no time; seconds, up to a day, are.")
    return float(seconds)
