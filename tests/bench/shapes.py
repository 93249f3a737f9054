"""What is measured on every server: big chunks, one request, small chunks, memory."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from . import client, machine, names
from .names import GIB, KIB, MIB
from .peers import Peer, Wire
from .tables import OTHERS, Column, Table, column, interleave

CHUNK = 8 * MIB
STREAMS = 4
_WARM_REQUESTS = 100
_SAMPLE_SECONDS = 0.02


@dataclass(frozen=True)
class Lane:
    """A server, and how it is spoken to."""

    peer: Peer
    wire: Wire


@dataclass(frozen=True)
class Bench:
    """The servers, running, and the file that is sent."""

    peers: list[Peer]
    source: Path
    rounds: int

    def lanes(self, *, all_wires: bool = False) -> dict[str, Lane]:
        """Return each server with its usual wire, or with every one that it knows."""
        lanes: dict[str, Lane] = {}
        for peer in self.peers:
            lanes[peer.name] = Lane(peer, peer.wire)
            if all_wires:
                lanes.update({f"{peer.name}, {name}": Lane(peer, wire) for name, wire in peer.others})
        return lanes


@dataclass(frozen=True)
class Sample:
    """One upload, the processor time of the server, what it wrote from its memory, and its memory afterwards."""

    sent: client.Sent
    cpu: float
    written: int
    resident: int
    busy: float
    """Seconds for which the processors worked meanwhile, for whomever."""

    @property
    def others(self) -> float:
        """Return what others took of the processors' time, as a fraction."""
        return (self.busy - self.cpu - self.sent.cpu) / self.sent.seconds / os.cpu_count()


def big_chunks(bench: Bench, size: int, *, all_wires: bool) -> Table:
    """Measure one upload in chunks of 8 MiB."""
    found = _measure(bench, bench.lanes(all_wires=all_wires), size, CHUNK)
    return _table(names.big(size), f"{size // MIB} MiB in chunks of 8 MiB", found, size)


def one_request(bench: Bench, size: int) -> Table:
    """Measure one upload in one request: PATCH of tus, and PUT."""
    found = _measure(bench, {peer.name: Lane(peer, peer.whole) for peer in bench.peers}, size, size)
    return _table(names.whole(size), f"{size // MIB} MiB in one request (PATCH of tus; PUT)", found, size)


def small_chunks(bench: Bench, count: int) -> Table:
    """Measure one upload in chunks of 4 KiB."""
    found = _measure(bench, bench.lanes(), count * 4 * KIB, 4 * KIB)
    columns = [
        column("rate", "chunks/s", found, lambda s: count / s.sent.seconds),
        column("processor", "µs", found, lambda s: 1e6 * s.cpu / count),
        column("client's", "µs", found, lambda s: 1e6 * s.sent.cpu / count),
        column("connections", "", found, lambda s: s.sent.connections),
        column(OTHERS, "%", found, lambda s: 100 * s.others),
    ]
    return Table(names.SMALL, f"{count} chunks of 4 KiB", columns, to=(names.NGINX, names.TUS))


def memory(peers: Iterable[Peer], source: Path, size: int) -> Table:
    """Measure the peak of private memory over idle while several uploads are under way."""
    over: dict[str, list[float]] = {}
    idle: dict[str, list[float]] = {}
    rate: dict[str, list[float]] = {}
    for peer in peers:
        with peer:
            _send(Lane(peer, peer.wire), source, MIB, 256 * KIB)
            before, start = peer.private(), time.perf_counter()
            over[peer.name] = [(_peak(peer, source, size) - before) / MIB]
            rate[peer.name] = [STREAMS * size / MIB / (time.perf_counter() - start)]
            idle[peer.name] = [before / MIB]
    name = f"{STREAMS} uploads of {size / GIB:g} GiB at once in chunks of 8 MiB: memory over idle"
    columns = [Column("over idle", "MiB", over), Column("idle", "MiB", idle), Column("all of them", "MiB/s", rate)]
    return Table(names.MEMORY, name, columns)


def _table(key: str, name: str, found: dict[str, list[Sample]], size: int) -> Table:
    columns = [
        column("rate", "MiB/s", found, lambda s: size / MIB / s.sent.seconds),
        column("processor", "s/GiB", found, lambda s: s.cpu * GIB / size),
        column("client's", "s/GiB", found, lambda s: s.sent.cpu * GIB / size),
        column("last answer", "ms", found, lambda s: 1000 * s.sent.last),
        column("memory", "MiB", found, lambda s: s.resident / MIB),
        column("connections", "", found, lambda s: s.sent.connections),
        column(OTHERS, "%", found, lambda s: 100 * s.others),
    ]
    spliced = {line for line, samples in found.items() if max(s.written for s in samples) < size / 10}
    notes = {line: "NOT SPLICED" for line in found if names.SPLICE in line and line not in spliced}
    return Table(key, name, columns, to=(names.NGINX, names.TUS), notes=notes)


def _measure(bench: Bench, lanes: dict[str, Lane], size: int, chunk: int) -> dict[str, list[Sample]]:
    checked: set[str] = set()

    def one(name: str) -> Sample:
        lane = lanes[name]
        # What the one before has left for the system to write must not be waited for by this one.
        os.sync()
        # A virtual machine's host takes free pages away, and the first touch of one that it has to bring back costs
        # several times a later one. So every server first uses, and gives back, the pages that it will need.
        _send(lane, bench.source, min(size, _WARM_REQUESTS * chunk), chunk)
        cpu, written, busy = lane.peer.cpu(), lane.peer.written(), machine.busy()
        sent = client.send(lane.peer.port, lane.wire, str(bench.source), size, chunk)
        busy = machine.busy() - busy
        sample = Sample(sent, lane.peer.cpu() - cpu, lane.peer.written() - written, lane.peer.resident(), busy)
        check(lane.peer, sent.reference, bench.source, size, digest=name not in checked)
        checked.add(name)
        lane.peer.delete(sent.reference)
        return sample

    return interleave(lanes, bench.rounds, one)


def _send(lane: Lane, source: Path, size: int, chunk: int) -> None:
    sent = client.send(lane.peer.port, lane.wire, str(source), size, chunk)
    lane.peer.delete(sent.reference)


def _peak(peer: Peer, source: Path, size: int) -> int:
    """Return the most private memory in bytes that was seen while several processes uploaded."""
    peak = 0
    job = (peer.port, peer.wire, str(source), size, CHUNK)
    # The pool ends its processes by a signal, which is not theirs to catch.
    unhandled = (signal.SIGTERM, signal.SIG_DFL)
    with multiprocessing.get_context("fork").Pool(STREAMS, signal.signal, unhandled) as pool:
        sending = pool.starmap_async(client.send, [job] * STREAMS, chunksize=1)
        while not sending.ready():
            peak = max(peak, peer.private())
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
