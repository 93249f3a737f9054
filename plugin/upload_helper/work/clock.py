"""Which clock says what, and which machine's it is.

The wall clock jumps: a board without a battery boots in 1970, a laptop's owner corrects the date. So leases never look
at it. They end at a time of the monotonic clock, which all processes of one boot share (it is system-wide), beside the
id of that boot. Whoever looks from another boot can't compare the two clocks; see `leases.Watch` for what it does.

Times that people read, and those that tell when a retry is due, are wall time, because they must outlive the boot. A
due time is kept with the time at which it was set: who finds the clock before that knows that it was turned back.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

from ..boot import boot_id as machine_boot_id

TURNED_BACK = 60
"""Seconds by which a clock may be behind that of another machine before it counts as turned back."""


class Clock:
    """The clocks of this machine; tests put others in their place."""

    def __init__(self, boot: str | None = None) -> None:
        self.boot = boot_id() if boot is None else boot
        """Names the boot that `monotonic` belongs to; '' where the system does not tell."""

    def wall(self) -> float:
        """Return seconds since the epoch, as far as this machine knows."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that only go forward, the same for all processes of this boot."""
        return time.monotonic()


@cache
def boot_id() -> str:
    """Return a name for this boot and its monotonic clock, or '' where there is none to be had."""
    boot = machine_boot_id()
    # A container may have a monotonic clock of its own (time_namespaces(7)).
    return f"{boot} {_namespace('time')}".strip() if boot else ""


def process_name() -> str:
    """Return a name for this process that no other ever has, or '' where the system does not tell; see `is_gone`."""
    started = _started(os.getpid())
    return f"{_namespace('pid')} {os.getpid()} {started}" if started else ""


def is_gone(process: str) -> bool:
    """Return True only if the process, of this very boot, is certainly no more; False says nothing."""
    try:
        namespace, pid, started = process.split()
        # Numbers of another container mean other processes here.
        if namespace != _namespace("pid"):
            return False
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (ValueError, OSError):
        return False
    now = _started(int(pid))
    return now not in ("", started)


def _started(pid: int) -> str:
    """Return when a process began, in ticks since the boot (proc_pid_stat(5), field 22), or ''."""
    with suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        # A zombie has ended, and only waits for its parent to notice.
        return "ended" if fields[0] in "ZX" else fields[19]
    return ""


@cache
def _namespace(kind: str) -> str:
    with suppress(OSError):
        return str(Path(f"/proc/self/ns/{kind}").readlink())
    return ""
