"""What each system tells of its battery, its network and its user. Each answers None where it can't be known."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .task import Condition

LOW_PERCENT = 15
"""A battery at this level or below is low, unless it is plugged in."""
IDLE_SECONDS = 300
"""A device that nobody has touched for so long is idle."""

_ROOT = Path("/")
_RTF_UP, _RTF_REJECT = 0x1, 0x200


@dataclass(frozen=True)
class Power:
    """What feeds a machine; None is not known."""

    percent: float | None
    plugged: bool | None

    @property
    def not_low(self) -> bool | None:
        """Whether there is enough for work."""
        if self.plugged:
            return True
        return None if self.percent is None else self.percent > LOW_PERCENT


NO_BATTERY = Power(None, plugged=True)


def default_providers() -> dict[Condition, Callable[[], bool | None]]:
    """Return the providers of this system."""
    linux = sys.platform.startswith("linux")
    power = linux_power if linux else psutil_power
    return {
        Condition.CONNECTED: linux_connected if linux else psutil_connected,
        Condition.CHARGING: lambda: power().plugged,
        Condition.BATTERY_NOT_LOW: lambda: power().not_low,
        Condition.IDLE: Rarely({"darwin": mac_idle, "win32": windows_idle}.get(sys.platform, linux_idle)),
    }


class Rarely:
    """A provider that is asked every half minute only, because its answer takes a process of its own."""

    def __init__(
        self,
        provider: Callable[[], bool | None],
        seconds: float = 30,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._provider, self._seconds, self._clock = provider, seconds, clock
        self._answer: tuple[float, bool | None] | None = None

    def __call__(self) -> bool | None:
        """Return the last answer, or a new one."""
        now = self._clock()
        if self._answer is None or now - self._answer[0] >= self._seconds:
            self._answer = now, self._provider()
        return self._answer[1]


# --- power ---


def linux_power(root: Path = _ROOT) -> Power:
    """Read ``/sys/class/power_supply`` below `root` (sysfs-class-power of the kernel's documentation)."""
    supplies = [_properties(folder) for folder in _folders(root / "sys/class/power_supply")]
    # A mouse's battery feeds no machine.
    supplies = [s for s in supplies if s.get("scope", "").lower() != "device" and s.get("present", "1") != "0"]
    batteries = [s for s in supplies if s.get("type") in ("Battery", "UPS")]
    if not batteries:
        return NO_BATTERY
    return Power(_level(batteries), _plugged(batteries, supplies))


def psutil_power() -> Power:
    """Ask psutil; a system that it knows nothing of has no battery."""
    import psutil  # noqa: PLC0415 - an extra, and slow to load

    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    return NO_BATTERY if battery is None else Power(battery.percent, battery.power_plugged)


def _plugged(batteries: Iterable[Mapping[str, str]], supplies: Iterable[Mapping[str, str]]) -> bool | None:
    online = [s["online"] != "0" for s in supplies if s.get("type") not in ("Battery", "UPS") and "online" in s]
    if any(online):
        return True
    states = [s.get("status", "Unknown").lower() for s in batteries]
    if "discharging" in states:
        return False
    # "Not charging" is what a battery says that is kept below full on purpose.
    if any(state in ("charging", "full", "not charging") for state in states):
        return True
    return False if online else None


def _level(batteries: Iterable[Mapping[str, str]]) -> float | None:
    """Return how full all batteries are together, in percent."""
    listed = list(batteries)
    for unit in ("energy", "charge"):
        now = [_number(s.get(f"{unit}_now")) for s in listed]
        full = [_number(s.get(f"{unit}_full")) for s in listed]
        if None not in now and None not in full and sum(f or 0 for f in full) > 0:
            return 100 * sum(n or 0 for n in now) / sum(f or 0 for f in full)
    levels = [level for s in listed if (level := _number(s.get("capacity"))) is not None]
    return sum(levels) / len(levels) if levels else None


def _properties(folder: Path) -> dict[str, str]:
    names = ("type", "scope", "present", "online", "status", "capacity", "energy_now", "energy_full", "charge_now")
    return {name: text for name in (*names, "charge_full") if (text := _text(folder / name)) is not None}


# --- network ---


def linux_connected(root: Path = _ROOT) -> bool | None:
    """Whether an interface that is up has a default route, read below ``/proc/net`` and ``/sys/class/net``."""
    if _text(root / "proc/net/route") is None and _text(root / "proc/net/ipv6_route") is None:
        return None
    # Tunnels and modems do not tell their state: "unknown".
    return any(
        (_text(root / "sys/class/net" / name / "operstate") or "unknown") in ("up", "unknown")
        for name in _default_routes(root)
    )


def psutil_connected() -> bool | None:
    """Whether an interface is up that has an address of more than this machine and this wire."""
    import psutil  # noqa: PLC0415 - an extra, and slow to load

    up = {name for name, state in psutil.net_if_stats().items() if state.isup}
    local = re.compile(r"127\.|169\.254\.|::1$|fe80:|0\.0\.0\.0$")
    return any(
        address.family.name in ("AF_INET", "AF_INET6") and not local.match(address.address.lower())
        for name, addresses in psutil.net_if_addrs().items()
        if name in up
        for address in addresses
    )


def _default_routes(root: Path) -> Iterator[str]:
    """Yield the interfaces that lead out (the tables of ``proc_net``: route and ipv6_route)."""
    for line in (_text(root / "proc/net/route") or "").splitlines()[1:]:
        cells = line.split()
        if len(cells) >= 8 and cells[1] == cells[7] == "00000000" and _usable(cells[3]):
            yield cells[0]
    for line in (_text(root / "proc/net/ipv6_route") or "").splitlines():
        cells = line.split()
        if len(cells) == 10 and cells[0] == "0" * 32 and cells[1] == "00" and cells[9] != "lo" and _usable(cells[8]):
            yield cells[9]


def _usable(flags: str) -> bool:
    with suppress(ValueError):
        value = int(flags, 16)
        return bool(value & _RTF_UP) and not value & _RTF_REJECT
    return False


# --- use ---


def linux_idle(run: Callable[[list[str]], str] | None = None) -> bool | None:
    """Ask logind whether all sessions are idle (`IdleHint` of its manager); a machine without logind can't say."""
    answer = (run or _output)(["loginctl", "show-session", "--property=IdleHint"])
    hint = re.search(r"^IdleHint=(yes|no)$", answer, re.MULTILINE)
    return None if hint is None else hint[1] == "yes"


def mac_idle(run: Callable[[list[str]], str] | None = None) -> bool | None:
    """Read since when no key and no mouse was touched, in nanoseconds."""
    answer = (run or _output)(["ioreg", "-c", "IOHIDSystem", "-d", "4"])
    idle = re.search(r'"HIDIdleTime"\s*=\s*(\d+)', answer)
    return None if idle is None else int(idle[1]) >= IDLE_SECONDS * 10**9


def windows_idle() -> bool | None:
    """Ask when the last input was (GetLastInputInfo)."""

    class LastInput(ctypes.Structure):
        _fields_ = (("size", ctypes.c_uint), ("tick", ctypes.c_uint))

    libraries: Any = getattr(ctypes, "windll", None)
    if libraries is None:
        return None
    info = LastInput(ctypes.sizeof(LastInput), 0)
    if not libraries.user32.GetLastInputInfo(ctypes.byref(info)):
        return None
    ticks = (libraries.kernel32.GetTickCount() - info.tick) & 0xFFFFFFFF  # wraps after 49 days
    return bool(ticks >= IDLE_SECONDS * 1000)


def _output(command: list[str]) -> str:
    """Return what a command prints; nothing if there is no such command, or if it fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True, stdin=subprocess.DEVNULL)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def _folders(path: Path) -> list[Path]:
    try:
        return sorted(path.iterdir())
    except OSError:
        return []


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
