"""Programs that send and fetch a file: ours, curl, rclone and tuspy, each to and from the same servers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests import servers

from . import client, names
from .names import CURL, GET, GIB, MIB, RCLONE, SEND, SYNCED, TUSPY
from .ours import Gunicorn
from .peers import Nginx, Peer, Tus
from .tables import Table, column, interleave

_TUSPY = """\
import sys
from tusclient.client import TusClient
client = TusClient(sys.argv[2], headers={"X-User": "bench"})
client.uploader(sys.argv[1], chunk_size=8 << 20, metadata={"filename": "a.bin"}).upload()
"""
_SIGNED = ["-H", f"X-User: {client.OWNER}"]


class Dav(Nginx):
    """nginx as rclone wants it, which asks by PROPFIND what is there."""

    modules = "load_module /usr/lib/nginx/modules/ngx_http_dav_ext_module.so;"
    methods = "dav_methods PUT; dav_ext_methods PROPFIND;"

    def files(self, reference: str) -> list[Path]:
        return [self._files / reference]


@dataclass(frozen=True)
class Sample:
    """One transfer: its seconds, and the processor time of the program and of the server."""

    seconds: float
    cpu: float
    server: float


@dataclass(frozen=True)
class Way:
    """What the programs are measured at; the first of them is ours."""

    name: str
    peer: Peer
    commands: dict[str, list[str]]
    clear: Callable[[], int]
    """Removes what came of a transfer; returns its bytes."""


def measure(folder: Path, source: Path, rounds: int) -> list[Table]:
    """Measure all programs with every server, up and down."""
    tables: list[Table] = []
    for kind, ways in ((Gunicorn, _with_ours), (Tus, _with_tus), (Dav, _with_nginx)):
        with kind(folder) as peer:
            for way in ways(peer, source, folder / "fetched"):
                tables.append(_table(way, folder, source.stat().st_size, rounds))
    return tables


def _with_ours(peer: Peer, source: Path, target: Path) -> Iterator[Way]:
    url = f"http://127.0.0.1:{peer.port}/uploads"
    file = str(source)

    def clear() -> int:
        uploads = [path for path in peer.uploads.iterdir() if not path.name.startswith(".")]
        size = sum((path / "data").stat().st_size for path in uploads)
        for path in uploads:
            peer.delete(path.name)
        return size

    commands = {
        SEND: _ours("send", *_SIGNED, file, url),
        f"{SEND}, RUFH": _ours("send", *_SIGNED, "--protocol", "rufh", file, url),
        f"{SEND}, chunks": _ours("send", *_SIGNED, "--protocol", "chunks", file, url),
        f"{SEND}, chunks of 8 MiB": _ours("send", *_SIGNED, "--protocol", "chunks", "--piece", "8m", file, url),
        CURL: _curl(*_SIGNED, "-T", file, f"{url}?name=a.bin"),
        TUSPY: [sys.executable, "-c", _TUSPY, file, url],
    }
    yield Way("to ours", peer, commands, clear)
    sent = client.send(peer.port, peer.wire, file, source.stat().st_size, 8 * MIB)
    yield _down("from ours", peer, f"{url}/{sent.reference}", target)


def _with_tus(peer: Peer, source: Path, target: Path) -> Iterator[Way]:
    url = f"http://127.0.0.1:{peer.port}/files"

    def clear() -> int:
        (about,) = peer.folder.glob("*.json")
        size = about.with_suffix("").stat().st_size
        peer.delete(about.stem)
        return size

    commands = {SEND: _ours("send", str(source), url), TUSPY: [sys.executable, "-c", _TUSPY, str(source), url]}
    yield Way(f"to {peer.name}", peer, commands, clear)


def _with_nginx(peer: Peer, source: Path, target: Path) -> Iterator[Way]:
    url = f"http://127.0.0.1:{peer.port}"
    (put,) = peer.files("put.bin")
    commands = {
        SEND: _ours("send", "-X", "put", str(source), f"{url}/put.bin"),
        CURL: _curl("-T", str(source), f"{url}/put.bin"),
        RCLONE: _rclone("--webdav-url", url, "copyto", str(source), ":webdav:put.bin"),
    }
    yield Way("to nginx, PUT", peer, commands, lambda: _removed(put))
    (served,) = peer.files("served.bin")
    os.link(source, served)
    yield _down("from nginx", peer, f"{url}/served.bin", target)


def _down(name: str, peer: Peer, url: str, target: Path) -> Way:
    commands = {
        GET: _ours("get", *_SIGNED, url, str(target)),
        CURL: _curl(*_SIGNED, "-o", str(target), url),
        SYNCED: ["sh", "-c", 'file=$1; shift; "$@" && sync "$file"', "sh", str(target),
                 *_curl(*_SIGNED, "-o", str(target), url)],
        RCLONE: _rclone("--header", _SIGNED[1], "copyurl", url, str(target)),
    }  # fmt: skip
    return Way(name, peer, commands, lambda: _removed(target))


def _table(way: Way, folder: Path, size: int, rounds: int) -> Table:
    def one(name: str) -> Sample:
        before, start = way.peer.cpu(), time.perf_counter()
        cpu = _run(way.commands[name], folder)
        sample = Sample(time.perf_counter() - start, cpu, way.peer.cpu() - before)
        if (arrived := way.clear()) != size:
            raise RuntimeError(f"{name} {way.name}: {arrived} bytes of {size} arrived.")
        return sample

    found = interleave(way.commands, rounds, one)
    columns = [
        column("rate", "MiB/s", found, lambda s: size / MIB / s.seconds),
        column("its processor", "s/GiB", found, lambda s: s.cpu * GIB / size),
        column("the server's", "s/GiB", found, lambda s: s.server * GIB / size),
    ]
    return Table(names.transfer(way.name), f"{size // MIB} MiB {way.name}", columns, ours=next(iter(found)))


def _run(command: list[str], folder: Path) -> float:
    """Run a program to its end; return the seconds of processor time that it took."""
    mine = {"XDG_STATE_HOME": str(folder / "state"), "XDG_DATA_HOME": str(folder / "state"), "HOME": str(folder)}
    environment = {**os.environ, **mine, "PYTHONPATH": str(servers.PLUGIN)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}.")
    return used.ru_utime + used.ru_stime


def _removed(path: Path) -> int:
    size = path.stat().st_size
    path.unlink()
    return size


def _ours(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "upload_helper.cli", arguments[0], "--quiet", *arguments[1:]]


def _curl(*arguments: str) -> list[str]:
    return ["curl", "--silent", "--show-error", "--fail", *arguments]


def _rclone(*arguments: str) -> list[str]:
    return ["rclone", "--config", os.devnull, *arguments]
