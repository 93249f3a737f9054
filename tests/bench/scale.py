"""What must not grow: the cost of a chunk with the number of chunks, the time of finishing with the size."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from upload_helper.config import Config
from upload_helper.protocols.chunked import ChunkRequest
from upload_helper.service import UploadService
from upload_helper.stores import LocalStore
from upload_helper.stores.files import UploadFolder
from upload_helper.stores.table import ChunkTable, Entry
from upload_helper.upload import Record, new_uid

from . import client, names
from .names import GIB, KIB, MIB
from .ours import Gunicorn
from .shapes import CHUNK
from .tables import Column, Table, column, interleave

EARLY = 100
ROUNDS = 5
PER_ROUND = 100
FINISH_ROUNDS = 15
FINISH_SIZES = (10 * MIB, 100 * MIB, GIB, 10 * GIB)


def chunk_numbers(folder: Path, source: Path, late: int) -> Table:
    """Measure what one chunk of 1 KiB costs in an upload with few chunks and in one with `late`.

    Two uploads of the same shape take turns, so that whatever disturbs the machine disturbs both.
    """
    with Gunicorn(folder) as server:
        service = _service(server.uploads)
        uids = {number: _filled(service, number, late) for number in (EARLY, late)}
        with source.open("rb") as file, client.Connection(server.port, file) as connection:
            http = _costs(uids, 0, lambda uid, number: connection.exchange(_request(uid, number, late)))
        inside = _costs(uids, ROUNDS * PER_ROUND, lambda uid, number: _receive(service, uid, number, late))
        for uid in uids.values():
            service.delete(uid, None)
    columns = [Column("HTTP", "µs", http), Column("in process", "µs", inside)]
    return Table(names.NUMBERS, "one chunk of 1 KiB, by its number", columns, to=(names.chunk_number(EARLY),))


def finishing(folder: Path) -> Table:
    """Measure the ``get_upload`` that finishes an upload, and a later one, by the size of the file."""
    service = _service(folder / "finish")
    room = shutil.disk_usage(folder).free
    sizes = {names.size_name(size): size for size in FINISH_SIZES if size < room}
    found = interleave(sizes, FINISH_ROUNDS, lambda name: _finish(service, sizes[name]))
    shutil.rmtree(folder / "finish")
    columns = [
        column("finish", "ms", found, lambda pair: 1000 * pair[0]),
        column("get_upload again", "ms", found, lambda pair: 1000 * pair[1]),
    ]
    name = "finishing a file, by its size; room is reserved, not written"
    return Table(names.FINISH, name, columns, to=(names.size_name(FINISH_SIZES[0]),))


def _service(folder: Path) -> UploadService:
    config = Config(folder=folder, min_free_space=0)
    return UploadService(config, LocalStore(config), lambda event, upload: None)


def _count(late: int) -> int:
    return late + 2 * ROUNDS * PER_ROUND + 1


def _filled(service: UploadService, filled: int, late: int) -> str:
    uid = ""
    for number in range(filled):
        uid = _receive(service, uid, number, late)
    return uid


def _receive(service: UploadService, uid: str, number: int, late: int) -> str:
    count = _count(late)
    chunk = ChunkRequest("a.bin", count * KIB, count, number, bytes(KIB), uploadUid=uid)
    return service.receive(chunk, client.OWNER).uploadUid


def _request(uid: str, number: int, late: int) -> client.Request:
    return client.Request(client.chunk_head(uid, _count(late) * KIB, KIB, number, KIB), number * KIB, KIB)


def _costs(uids: dict[int, str], first: int, call: Callable[[str, int], object]) -> dict[str, list[float]]:
    """Return for each upload the median microseconds of one chunk, round by round."""
    found: dict[str, list[float]] = {names.chunk_number(start): [] for start in uids}
    for number in range(ROUNDS):
        costs: dict[int, list[float]] = {start: [] for start in uids}
        for i in range(first + number * PER_ROUND, first + (number + 1) * PER_ROUND):
            for start, uid in uids.items():
                before = time.perf_counter()
                call(uid, start + i)
                costs[start].append(1e6 * (time.perf_counter() - before))
        for start, values in costs.items():
            found[names.chunk_number(start)].append(median(values))
    return found


def _finish(service: UploadService, size: int) -> tuple[float, float]:
    """Return the seconds of the ``get_upload`` that finishes, and of one after it."""
    uid = _received(service, size)
    before = time.perf_counter()
    service.get_upload(uid, client.OWNER)
    between = time.perf_counter()
    for _ in range(100):
        service.get_upload(uid, client.OWNER)
    after = time.perf_counter()
    service.delete(uid, None)
    return between - before, (after - between) / 100


def _received(service: UploadService, size: int) -> str:
    """Make an upload of which every chunk counts as received, though nobody has written it."""
    chunks = client.chunks(size, CHUNK)
    store = LocalStore(service.config)
    record, _ = store.create(Record(new_uid(), client.OWNER, "a.bin", size, len(chunks), time.time()))
    with (
        UploadFolder(service.config.folder / record.uid) as folder,
        ChunkTable(folder, len(chunks)) as table,
        table.fenced() as header,
    ):
        header.chunk_size = CHUNK
        for number, _, length in chunks:
            table.receive(header, number, Entry(length=length))
        table.write_header(header)
    return record.uid
