"""The limits that the figures are held against."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from . import names
from .names import CURL, GIB, GUNICORN, MIB, NGINX, PORTABLE, SPLICE, SYNCED, TUS, UNFORCED, UWSGI
from .tables import Table

Tables = dict[str, Table]
Figure = Callable[[Tables], float]

AT_LEAST, AT_MOST = "≥", "≤"
SERVERS, PATHS = (GUNICORN, UWSGI), (PORTABLE, SPLICE, UNFORCED)


@dataclass(frozen=True)
class Target:
    """A limit for one figure; `server` and `path` say of which of ours, where that is the question."""

    text: str
    sign: str
    limit: float
    figure: float
    server: str = ""
    path: str = ""

    @property
    def holds(self) -> bool:
        return self.figure >= self.limit if self.sign == AT_LEAST else self.figure <= self.limit

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "holds": self.holds}


def judge(tables: list[Table]) -> list[Target]:
    """Return the targets that the tables have something to say about."""
    keyed = {table.key: table for table in tables}
    return [*_of_servers(keyed), *_of_the_rest(keyed)]


def _of_servers(tables: Tables) -> Iterator[Target]:
    for text, sign, limits, figure in _server_limits(tables):
        for path in PATHS:
            for server in SERVERS:
                with suppress(KeyError):
                    value = figure(tables, names.ours(server, path))
                    yield Target(text, sign, limits.get(path, limits[SPLICE]), value, server, path)


def _server_limits(
    tables: Tables,
) -> Iterator[tuple[str, str, dict[str, float], Callable[[Tables, str], float]]]:
    for key in [key for key in tables if key.startswith(names.BIG)]:
        name = tables[key].name
        yield f"{name}, to nginx", AT_LEAST, {PORTABLE: 0.6, SPLICE: 1}, _to(key, NGINX)
        yield f"{name}, to @tus/server", AT_LEAST, {PORTABLE: 2, SPLICE: 3.5}, _to(key, TUS)
        yield f"{name}, processor to nginx", AT_MOST, {PORTABLE: 2, SPLICE: 0.9}, _to(key, NGINX, "processor")
    yield "chunks of 4 KiB, to @tus/server", AT_LEAST, {PORTABLE: 3, SPLICE: 3}, _to(names.SMALL, TUS)
    yield (
        "MiB over idle, four uploads at once", AT_MOST, {PORTABLE: 20, SPLICE: 10},
        lambda tables, line: tables[names.MEMORY].column().median(line),
    )  # fmt: skip


def _of_the_rest(tables: Tables) -> Iterator[Target]:
    kept = (
        "chunks of 4 KiB, on uWSGI with http11-socket, to @tus/server",
        AT_LEAST,
        3,
        _ratio(names.SMALL, names.KEPT, TUS),
    )
    for text, sign, limit, figure in (kept, *_of_scale(tables), *_of_browsers(), *_of_transfers()):
        with suppress(KeyError):
            yield Target(text, sign, limit, figure(tables))


def _of_scale(tables: Tables) -> Iterator[tuple[str, str, float, Figure]]:
    if names.NUMBERS in tables:
        early, late = tables[names.NUMBERS].lines
        for how in ("HTTP", "in process"):
            yield f"{late} to {early}, {how}", AT_MOST, 1.1, _ratio(names.NUMBERS, late, early, how)
    small, big = names.size_name(10 * MIB), names.size_name(10 * GIB)
    yield f"finish {big} to finish {small}", AT_MOST, 2, _ratio(names.FINISH, big, small)
    again = "get_upload again"
    yield f"{again}, {big}, in ms", AT_MOST, 1, lambda tables: tables[names.FINISH].column(again).median(big)


def _of_browsers() -> Iterator[tuple[str, str, float, Figure]]:
    as_they_come = {names.UPPY: 1.0, names.RESUMABLE: 1.0}
    for what, key, limits in (
        ("from a browser", names.BROWSER, {**as_they_come, names.UPPY_TUNED: 0.9, names.RESUMABLE_TUNED: 0.9}),
        ("over a narrow link", names.NARROW, as_they_come),
    ):
        for other, limit in limits.items():
            yield f"{what}, widget to {other}", AT_LEAST, limit, _ratio(key, names.WIDGET, other)


def _of_transfers() -> Iterator[tuple[str, str, float, Figure]]:
    for way, other in (
        ("to ours", CURL), ("to nginx, PUT", CURL), ("from ours", CURL), ("from ours", SYNCED),
        ("from nginx", CURL), ("from nginx", SYNCED),
    ):  # fmt: skip
        line = names.SEND if way.startswith("to ") else names.GET
        yield f"a file {way}, to {other}", AT_LEAST, 0.8, _ratio(names.transfer(way), line, other)


def _to(key: str, other: str, column: str = "") -> Callable[[Tables, str], float]:
    return lambda tables, line: tables[key].column(column).ratio(line, other).median


def _ratio(key: str, line: str, other: str, column: str = "") -> Figure:
    return lambda tables: tables[key].column(column).ratio(line, other).median
