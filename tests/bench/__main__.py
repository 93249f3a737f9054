"""Run the benchmark. It exits with 0 whatever the figures are: they depend on the machine and on who else uses it."""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import tempfile
from pathlib import Path

from . import browser, machine, scale, shapes, transfers
from .peers import Nginx, Ours, Peer, Tus, install_node_packages
from .report import Report
from .rows import Row
from .shapes import GIB, MIB, Bench

BUILD = Path(__file__).parents[2] / "build"
SERVERS: list[type[Peer]] = [Ours, Nginx, Tus]


def main() -> None:
    options = _options()
    install_node_packages()
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="run-", dir=options.folder) as name:
        folder = Path(name)
        rows = _measure(folder, options)
        report = Report(machine.describe(folder), rows)
    text = report.as_text()
    print(text)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report.as_json(), indent=1, ensure_ascii=False) + "\n")
    print(f"as JSON: {options.json}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description="Measure this server against others.")
    parser.add_argument("--quick", action="store_true", help="smaller files and fewer rounds")
    parser.add_argument("--only", choices=PARTS, action="append", help="measure this part only; may be repeated")
    parser.add_argument("--rounds", type=int, help="how often each server takes its turn (7, quick: 3)")
    parser.add_argument("--folder", type=Path, default=BUILD / "bench", help="where files go, on the disk to measure")
    parser.add_argument("--json", type=Path, default=BUILD / "bench.json", help="where the figures go")
    options = parser.parse_args()
    options.folder = options.folder.absolute()
    options.rounds = options.rounds or (3 if options.quick else 7)
    return options


def _measure(folder: Path, options: argparse.Namespace) -> list[Row]:
    source = folder / "source"
    _write_source(source, (64 if options.quick else 512) * MIB)
    rows: list[Row] = []
    for part in options.only or PARTS:
        rows += PARTS[part](folder, source, options)
        _clear(folder, source)
    return rows


def _chunks(folder: Path, source: Path, options: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(server(folder)) for server in SERVERS]
        bench = Bench({peer.name: peer for peer in peers}, source, options.rounds)
        for size in [64 * MIB] if options.quick else [64 * MIB, 512 * MIB]:
            _say(f"{size // MIB} MiB in 8 MiB chunks")
            rows += shapes.big_chunks(bench, size)
        _say("chunks of 4 KiB")
        rows += shapes.small_chunks(bench, 1000)
    return rows


def _scale(folder: Path, source: Path, options: argparse.Namespace) -> list[Row]:
    _say("chunk numbers")
    rows = scale.chunk_numbers(folder, source, 20_000 if options.quick else 100_000)
    _say("finishing")
    return rows + scale.finishing(folder)


def _memory(folder: Path, source: Path, options: argparse.Namespace) -> list[Row]:
    _say("memory")
    return shapes.memory([server(folder) for server in SERVERS], source, GIB // 2 if options.quick else GIB)


def _browser(folder: Path, source: Path, options: argparse.Namespace) -> list[Row]:
    _say("a browser")
    return browser.on_loopback(folder, source, (64 if options.quick else 512) * MIB, options.rounds)


def _narrow(folder: Path, source: Path, options: argparse.Namespace) -> list[Row]:
    _say("a browser on a narrow link")
    return browser.on_narrow_link(folder, source, (8 if options.quick else 32) * MIB, min(3, options.rounds))


def _transfers(folder: Path, source: Path, options: argparse.Namespace) -> list[Row]:
    _say("programs that send and fetch")
    file = folder / "transferred"
    _write_source(file, 128 * MIB if options.quick else GIB)
    return transfers.measure(folder, file, options.rounds)


PARTS = {
    "chunks": _chunks, "scale": _scale, "memory": _memory, "browser": _browser, "narrow": _narrow,
    "transfers": _transfers,
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
