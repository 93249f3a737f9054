"""What is measured on every server: big chunks, small chunks, memory."""

from __future__ import annotations

import hashlib
import multiprocessing
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from . import client
from .peers import Peer
from .rows import OURS, Row, interleave

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
CHUNK = 8 * MIB
STREAMS = 4
_SAMPLE_SECONDS = 0.02


@dataclass(frozen=True)
class Bench:
    """The servers, running, and the file that is sent."""

    peers: dict[str, Peer]
    source: Path
    rounds: int


@dataclass(frozen=True)
class Sample:
    """One upload: its seconds, those of its last request, and the server's processor time."""

    seconds: float
    last: float
    cpu: float


def big_chunks(bench: Bench, size: int) -> list[Row]:
    """Measure one upload in chunks of 8 MiB."""
    found = _measure(bench, size, CHUNK)
    name = f"{size // MIB} MiB in 8 MiB chunks"
    last = [1000 * sample.last for sample in found[OURS]]
    return [
        Row(name, "MiB/s", {k: [size / MIB / s.seconds for s in v] for k, v in found.items()}, key=f"rate {size}"),
        Row(
            f"  processor of {name}", "s/GiB", {k: [s.cpu * GIB / size for s in v] for k, v in found.items()},
            key=f"cpu {size}",
        ),
        Row("  its last chunk, with the file forced to the disk", "ms", {OURS: last}),
    ]  # fmt: skip


def small_chunks(bench: Bench, count: int) -> list[Row]:
    """Measure one upload in chunks of 4 KiB."""
    found = _measure(bench, count * 4 * KIB, 4 * KIB)
    rates = {name: [count / sample.seconds for sample in samples] for name, samples in found.items()}
    cpu = {name: [1e6 * sample.cpu / count for sample in samples] for name, samples in found.items()}
    return [
        Row(f"{count} chunks of 4 KiB", "1/s", rates, key="small"),
        Row("  processor of one chunk", "µs", cpu),
    ]


def memory(peers: Iterable[Peer], source: Path, size: int) -> list[Row]:
    """Measure the peak of private memory over idle while several uploads are under way."""
    over: dict[str, list[float]] = {}
    idle: dict[str, list[float]] = {}
    for peer in peers:
        with peer:
            _send(peer, source, MIB, 256 * KIB)
            before = peer.memory()
            idle[peer.name] = [before / MIB]
            over[peer.name] = [(_peak(peer, source, size) - before) / MIB]
    name = f"{STREAMS} uploads of {size / GIB:g} GiB at once"
    return [Row(f"memory over idle, {name}", "MiB", over, key="memory"), Row("  idle", "MiB", idle)]


def _measure(bench: Bench, size: int, chunk: int) -> dict[str, list[Sample]]:
    checked: set[str] = set()

    def one(name: str) -> Sample:
        peer = bench.peers[name]
        # A virtual machine's host takes free pages away, and the first touch of one that it has to bring back costs
        # several times a later one. So every server first uses, and gives back, the pages that it will need.
        _send(peer, bench.source, size, chunk)
        cpu = peer.cpu()
        sent = client.send(peer.port, peer.wire, str(bench.source), size, chunk)
        sample = Sample(sent.seconds, sent.last, peer.cpu() - cpu)
        check(peer, sent.reference, bench.source, size, digest=name not in checked)
        checked.add(name)
        peer.delete(sent.reference)
        return sample

    return interleave(bench.peers, bench.rounds, one)


def _send(peer: Peer, source: Path, size: int, chunk: int) -> None:
    sent = client.send(peer.port, peer.wire, str(source), size, chunk)
    peer.delete(sent.reference)


def _peak(peer: Peer, source: Path, size: int) -> int:
    """Return the most private memory in bytes that was seen while several processes uploaded."""
    peak = 0
    job = (peer.port, peer.wire, str(source), size, CHUNK)
    with multiprocessing.get_context("fork").Pool(STREAMS) as pool:
        sending = pool.starmap_async(client.send, [job] * STREAMS, chunksize=1)
        while not sending.ready():
            peak = max(peak, peer.memory())
            time.sleep(_SAMPLE_SECONDS)
        for sent in sending.get():
            check(peer, sent.reference, source, size, digest=False)
            peer.delete(sent.reference)
    return peak


def check(peer: Peer, reference: str, source: Path, size: int, *, digest: bool) -> None:
    """Raise RuntimeError unless the server has stored what it was sent."""
    files = peer.files(reference)
    stored = sum(path.stat().st_size for path in files)
    if stored != size:
        raise RuntimeError(f"{peer.name} has stored {stored} bytes of {size}.")
    if digest and _digest(files, size) != _digest([source] * -(-size // source.stat().st_size), size):
        raise RuntimeError(f"{peer.name} has stored other bytes than it was sent.")


def _digest(files: list[Path], size: int) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while size and (block := file.read(min(MIB, size))):
                digest.update(block)
                size -= len(block)
    return digest.hexdigest()
