"""Run the benchmark. It exits with 0 whatever the figures are: they depend on the machine and on who else uses it."""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from . import browser, machine, scale, shapes, transfers
from .names import GIB, MIB
from .ours import Gunicorn, KeptUwsgi, PortableGunicorn, PortableUwsgi, UnforcedGunicorn, Uwsgi
from .peers import Nginx, Peer, ResumableUpload, Tus, TusPyServer, install_node_packages
from .report import Report
from .shapes import Bench
from .tables import Table

BUILD = Path(__file__).parents[2] / "build"
SERVERS: list[type[Peer]] = [
    Gunicorn, PortableGunicorn, UnforcedGunicorn, Uwsgi, PortableUwsgi, KeptUwsgi, Nginx, Tus, TusPyServer, ResumableUpload,
]  # fmt: skip
OF_SMALL_CHUNKS: list[type[Peer]] = [KeptUwsgi]
"""Those that differ from the others with small chunks only."""


def main() -> None:
    options = _options()
    # So that what was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    install_node_packages()
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="run-", dir=options.folder) as name:
        folder = Path(name)
        about = machine.describe(folder)
        report = Report(about, {server.name: server.how for server in options.servers}, _measure(folder, options))
    print("\n" + report.as_text())
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report.as_json(), indent=1, ensure_ascii=False) + "\n")
    print(f"as JSON: {options.json}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description="Measure this server against others.")
    parser.add_argument("--quick", action="store_true", help="smaller files and fewer rounds")
    parser.add_argument("--only", choices=PARTS, action="append", help="measure this part only; may be repeated")
    parser.add_argument("--server", action="append", help="take servers only whose names contain this; may be repeated")
    parser.add_argument("--rounds", type=int, help="how often each server takes its turn (5, quick: 3)")
    parser.add_argument("--folder", type=Path, default=BUILD / "bench", help="where files go, on the disk to measure")
    parser.add_argument("--json", type=Path, default=BUILD / "bench.json", help="where the figures go")
    options = parser.parse_args()
    options.folder = options.folder.absolute()
    options.rounds = options.rounds or (3 if options.quick else 5)
    wanted = options.server or [""]
    options.servers = [server for server in SERVERS if any(part in server.name for part in wanted)]
    return options


def _measure(folder: Path, options: argparse.Namespace) -> list[Table]:
    source = folder / "source"
    _write_source(source, (64 if options.quick else 512) * MIB)
    tables: list[Table] = []
    for part in options.only or PARTS:
        _say(part)
        start = time.monotonic()
        tables += PARTS[part](folder, source, options)
        _clear(folder, source)
        print(f"{part} took {time.monotonic() - start:.0f} s", flush=True)
    return tables


@contextlib.contextmanager
def _bench(folder: Path, source: Path, options: argparse.Namespace, *, small: bool = False) -> Iterator[Bench]:
    servers = [server for server in options.servers if small or server not in OF_SMALL_CHUNKS]
    with contextlib.ExitStack() as stack:
        yield Bench([stack.enter_context(server(folder)) for server in servers], source, options.rounds)


def _chunks(folder: Path, source: Path, options: argparse.Namespace) -> list[Table]:
    sizes = [64 * MIB] if options.quick else [64 * MIB, 512 * MIB]
    with _bench(folder, source, options) as bench:
        return [shapes.big_chunks(bench, size, all_wires=size == sizes[-1]) for size in sizes]


def _whole(folder: Path, source: Path, options: argparse.Namespace) -> list[Table]:
    with _bench(folder, source, options) as bench:
        return [shapes.one_request(bench, source.stat().st_size)]


def _small(folder: Path, source: Path, options: argparse.Namespace) -> list[Table]:
    with _bench(folder, source, options, small=True) as bench:
        return [shapes.small_chunks(bench, 300 if options.quick else 1000)]


def _scale(folder: Path, source: Path, options: argparse.Namespace) -> list[Table]:
    return [scale.chunk_numbers(folder, source, 20_000 if options.quick else 100_000), scale.finishing(folder)]


def _memory(folder: Path, source: Path, options: argparse.Namespace) -> list[Table]:
    servers = [server(folder) for server in options.servers if server not in OF_SMALL_CHUNKS]
    return [shapes.memory(servers, source, GIB // 4 if options.quick else GIB)]


def _browser(folder: Path, source: Path, options: argparse.Namespace) -> list[Table]:
    return [browser.on_loopback(folder, source, (64 if options.quick else 512) * MIB, options.rounds)]


def _narrow(folder: Path, source: Path, options: argparse.Namespace) -> list[Table]:
    size, rounds = (4 * MIB, 1) if options.quick else (16 * MIB, 2)
    return [browser.on_narrow_link(folder, source, size, rounds)]


def _transfers(folder: Path, source: Path, options: argparse.Namespace) -> list[Table]:
    file = folder / "transferred"
    _write_source(file, (128 if options.quick else 512) * MIB)
    return transfers.measure(folder, file, options.rounds)


PARTS = {
    "chunks": _chunks, "whole": _whole, "small": _small, "scale": _scale, "memory": _memory, "browser": _browser,
    "narrow": _narrow, "transfers": _transfers,
}  # fmt: skip


def _write_source(path: Path, size: int) -> None:
    """Write a file that is the same nowhere twice, so that a misplaced chunk shows in the digest."""
    generator = random.Random(1)
    with path.open("wb") as file:
        for _ in range(size // MIB):
            file.write(generator.randbytes(MIB))


def _clear(folder: Path, source: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path != source:
            path.unlink()


def _say(what: str) -> None:
    print(f"{what} …", flush=True)


if __name__ == "__main__":
    main()
