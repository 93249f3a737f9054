"""Progress as a notification of the desktop, which changes in place; where there is no desktop, as nothing."""

from __future__ import annotations

import logging
from html import escape
from typing import Any

from .figures import amounts_text, printable, span_text, speed_text
from .progress import Progress

EVERY = 1.0
"""Seconds between two changes of a notification."""
_PATIENCE = 1.0
"""Seconds that the desktop may take for its answer."""
_NAME = "org.freedesktop.Notifications"
_KEEP, _DEFAULT = 0, -1
"""How long it stays: until it is closed, or as the desktop has it."""
_LOW, _NORMAL = 0, 1

_log = logging.getLogger(__name__)


class Desktop:
    """Notifications after the Desktop Notifications Specification 1.3, by D-Bus: of Linux and its relatives.

    Needs the extra ``desktop``. Without it, and without a desktop that listens, nothing is shown and nobody told.
    """

    def __init__(self, app: str = "upload-helper") -> None:
        self._app = app
        self._bus: Any = None
        self._uid = 0
        self._shown = 0.0

    def begin(self, progress: Progress) -> None:
        """Show the notification."""
        self._open()
        self._shown = progress.seconds
        self._notify(progress, _body_of(progress), _KEEP)

    def show(self, progress: Progress) -> None:
        """Change it, if the last change is long enough ago."""
        if progress.seconds - self._shown >= EVERY:
            self._shown = progress.seconds
            self._notify(progress, _body_of(progress), _KEEP)

    def end(self, progress: Progress, error: str | None) -> None:
        """Say what came of it, and leave it for a while."""
        self._notify(progress, "Done." if error is None else f"Failed: {error}", _DEFAULT)
        self._close()

    def _open(self) -> None:
        try:
            from jeepney.io.blocking import open_dbus_connection  # noqa: PLC0415 - an extra

            self._bus = open_dbus_connection(bus="SESSION")
        except Exception as error:  # noqa: BLE001 - no bus, none that lets us in, no library: no notifications
            _log.debug("No notifications: %s", error)
            self._bus = None

    def _close(self) -> None:
        bus, self._bus, self._uid = self._bus, None, 0
        if bus is not None:
            bus.close()

    def _notify(self, progress: Progress, body: str, stays: int) -> None:
        if self._bus is None:
            return
        from jeepney import DBusAddress, new_method_call  # noqa: PLC0415

        address = DBusAddress(f"/{_NAME.replace('.', '/')}", bus_name=_NAME, interface=_NAME)
        hints = {"urgency": ("y", _LOW if stays == _KEEP else _NORMAL)}
        if progress.share is not None and stays == _KEEP:
            hints["value"] = ("i", int(100 * progress.share))
        content = (self._app, self._uid, "", printable(progress.name), escape(printable(body), quote=False))
        message = new_method_call(address, "Notify", "susssasa{sv}i", (*content, [], hints, stays))
        try:
            reply = self._bus.send_and_get_reply(message, timeout=_PATIENCE)
            self._uid = int(reply.body[0])
        except Exception as error:  # noqa: BLE001 - nobody who listens, or none who answers: no transfer waits for it
            _log.debug("No more notifications: %s", error)
            self._close()


def _body_of(progress: Progress) -> str:
    left = span_text(progress.left)
    parts = [amounts_text(progress.done, progress.total) if progress.done or progress.total else ""]
    parts += (
        [progress.detail or progress.step]
        if progress.step
        else [speed_text(progress.speed), f"{left} left" if left else ""]
    )
    return ", ".join(part for part in parts if part)
