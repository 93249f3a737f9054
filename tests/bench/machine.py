"""What the figures were measured on."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

from .peers import NODE, nginx_program

_PACKAGES = ("gunicorn", "pyuwsgi", "flask", "werkzeug", "tuspyserver", "uvicorn", "resumable-upload")
CLIENTS = NODE.parents[1] / "node"


def describe(folder: Path) -> dict[str, str]:
    """Return what figures depend on: the machine, the disk of `folder`, and the versions."""
    return {
        "processor": f"{os.cpu_count()} × {_processor()}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / (1 << 30):.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "load before": f"{os.getloadavg()[0]:.1f}",
        "filesystem": _filesystem(folder),
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
        "nginx": _first(r"nginx/(\S+)", [nginx_program(), "-v"]),
        "node": _first(r"v(\S+)", ["node", "--version"]),
        "@tus/server": _package(NODE, "@tus/server"),
        "chromium": _first(r"([\d.]+)", ["chromium", "--version"]),
        **{name: _package(CLIENTS, name) for name in ("uppy", "resumablejs")},
    }


def busy() -> float:
    """Return the seconds for which the processors, all added up, have worked so far, for others as well (proc(5))."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    user, nice, system, _idle, _waiting, interrupts, late_interrupts, stolen = ticks[:8]
    return (user + nice + system + interrupts + late_interrupts + stolen) / os.sysconf("SC_CLK_TCK")


def _package(folder: Path, name: str) -> str:
    return json.loads((folder / "node_modules" / name / "package.json").read_text())["version"]


def _first(pattern: str, command: list[str]) -> str:
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return re.search(pattern, found.stdout + found.stderr)[1]


def _processor() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def _filesystem(folder: Path) -> str:
    """Return the type of the file system that is mounted nearest above `folder`."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    above = [(len(place), kind) for _, place, kind, *_ in mounts if folder.is_relative_to(place)]
    return max(above)[1]
