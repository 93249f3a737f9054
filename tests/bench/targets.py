"""The limits that the figures are held against."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from .browser import RESUMABLE, RESUMABLE_TUNED, UPPY, UPPY_TUNED
from .rows import Row
from .scale import EARLY
from .shapes import GIB, MIB
from .transfers import CURL, SYNCED

NGINX, TUS = "nginx", "@tus/server"

Rows = dict[str, Row]


@dataclass(frozen=True)
class Target:
    """A limit for one figure."""

    text: str
    limit: float
    figure: float
    holds: bool


def judge(rows: list[Row]) -> list[Target]:
    """Return the targets that the rows have something to say about."""
    keyed = {row.key: row for row in rows if row.key}
    found = []
    for text, sign, limit, figure in (*_of_big_chunks(keyed), *_of_the_rest(keyed), *_of_browsers(), *_of_transfers()):
        with suppress(KeyError):
            value = figure(keyed)
            found.append(Target(f"{text} {sign}", limit, value, value >= limit if sign == "≥" else value <= limit))
    return found


def _of_big_chunks(rows: Rows) -> list[tuple[str, str, float, Callable[[Rows], float]]]:
    sizes = [key.split()[1] for key in rows if key.startswith("rate ")]
    return [
        target
        for size in sizes
        for name in [f"{int(size) // MIB} MiB in 8 MiB chunks"]
        for target in (
            (f"{name}, to nginx", "≥", 0.6, _ratio(f"rate {size}", NGINX)),
            (f"{name}, to @tus/server", "≥", 2, _ratio(f"rate {size}", TUS)),
            (f"{name}, processor to nginx", "≤", 2, _ratio(f"cpu {size}", NGINX)),
        )
    ]


def _of_the_rest(rows: Rows) -> list[tuple[str, str, float, Callable[[Rows], float]]]:
    numbers = {int(key.split()[-1]) for key in rows if key.startswith("HTTP ")}
    late = max(numbers, default=0)
    return [
        ("4 KiB chunks, to @tus/server", "≥", 3, _ratio("small", TUS)),
        *(
            (f"chunk {late} to chunk {EARLY}, {how}", "≤", 1.1, _growth(f"{how} {EARLY}", f"{how} {late}"))
            for how in ("HTTP", "in process")
        ),
        ("finish 10 GiB to finish 10 MiB", "≤", 2, _growth(f"finish {10 * MIB}", f"finish {10 * GIB}")),
        ("memory over idle in MiB, four uploads at once", "≤", 20, lambda rows: rows["memory"].median()),
        ("get_upload of a finished upload in ms", "≤", 1, lambda rows: rows[f"get {10 * GIB}"].median()),
    ]


def _of_browsers() -> list[tuple[str, str, float, Callable[[Rows], float]]]:
    return [
        (f"{what}, widget to {other}", "≥", limit, _ratio(key, other))
        for what, key, limits in (
            ("from a browser", "browser", {UPPY: 1, RESUMABLE: 1, UPPY_TUNED: 0.9, RESUMABLE_TUNED: 0.9}),
            ("over a narrow link", "browser, narrow", {UPPY: 1, RESUMABLE: 1}),
        )
        for other, limit in limits.items()
    ]


def _of_transfers() -> list[tuple[str, str, float, Callable[[Rows], float]]]:
    return [
        (f"a file {way}, to {other}", "≥", 0.8, _ratio(f"transfer {way}", other))
        for way, other in (
            ("to ours", CURL), ("to nginx, PUT", CURL), ("from ours", CURL), ("from ours", SYNCED),
            ("from nginx", CURL), ("from nginx", SYNCED),
        )
    ]  # fmt: skip


def _ratio(key: str, other: str) -> Callable[[Rows], float]:
    return lambda rows: rows[key].ratio(other)


def _growth(small: str, big: str) -> Callable[[Rows], float]:
    return lambda rows: rows[big].growth(rows[small])
