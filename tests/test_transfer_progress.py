"""Progress of transfers: what is measured, and what sinks show of it: functions, JSON, a terminal, a desktop."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import threading

import pytest
from rich.console import Console

from ledgers import FakeClock
from upload_helper.transfer.desktop import Desktop
from upload_helper.transfer.figures import amounts_text, printable, size_text, span_text, speed_text
from upload_helper.transfer.progress import Calls, Lines, Meter, Progress
from upload_helper.transfer.terminal import Terminal, line_of, summary_of

MIB = 1 << 20


@pytest.fixture
def clock():
    return FakeClock()


class Record:
    """A sink that keeps what it is told."""

    def __init__(self):
        self.said: list[tuple] = []

    def begin(self, progress):
        self.said.append(("begin", progress))

    def show(self, progress):
        self.said.append(("show", progress))

    def end(self, progress, error):
        self.said.append(("end", progress, error))

    @property
    def last(self) -> Progress:
        return self.said[-1][1]

    @property
    def words(self) -> list[str]:
        return [one[0] for one in self.said]


# --- the meter ---


def test_speed_and_time_left_are_of_the_last_seconds_and_not_of_what_was_there_before(clock):
    record = Record()
    with Meter("a.bin", record, clock=clock.monotonic) as meter:
        meter.report(50 * MIB, 100 * MIB)
        assert (record.last.done, record.last.resumed, record.last.speed) == (50 * MIB, 50 * MIB, None)
        for second in range(1, 21):
            clock.pass_(1)
            meter.report(50 * MIB + second * MIB, 100 * MIB)
        assert record.last.speed == pytest.approx(MIB)
        assert record.last.left == pytest.approx(30)
        for second in range(1, 11):
            clock.pass_(1)
            meter.report(70 * MIB + second * 2 * MIB, 100 * MIB)
        assert record.last.speed == pytest.approx(2 * MIB, rel=0.01)
        assert record.last.resumed == 50 * MIB
        assert record.last.seconds == 30


def test_sinks_are_told_ten_times_a_second_at_most_and_always_of_the_last_byte(clock):
    record = Record()
    with Meter("a.bin", record, clock=clock.monotonic) as meter:
        for count in range(1000):
            meter.report(count, 1000)
            clock.pass_(0.001)
        meter.report(1000, 1000)
        meter.report(1000, 1000)
    assert record.words[0] == "begin"
    assert 9 <= record.words.count("show") <= 12
    assert record.said[-2][1].done == 1000
    assert record.words[-1] == "end"


def test_transfer_that_begins_again_is_measured_anew(clock):
    record = Record()
    with Meter("a.bin", record, clock=clock.monotonic) as meter:
        meter.report(0, 100)
        clock.pass_(1)
        meter.report(80, 100)
        clock.pass_(1)
        meter.report(10, 90)
        assert (record.last.done, record.last.total, record.last.resumed, record.last.speed) == (10, 90, 10, None)
        clock.pass_(1)
        meter.report(20, 90)
        assert (record.last.speed, record.last.left) == (10, 7)


def test_total_that_is_not_known_leaves_no_share_and_no_time(clock):
    record = Record()
    with Meter("a.bin", record, clock=clock.monotonic) as meter:
        meter.report(0, None)
        clock.pass_(1)
        meter.report(10, None)
    assert (record.last.share, record.last.left, record.last.speed) == (None, None, 10)


def test_empty_file_is_done_at_once():
    assert (Progress("a", 0, 0).share, Progress("a", 5, 10).share, Progress("a", 20, 10).share) == (1.0, 0.5, 1.0)


def test_speed_of_a_link_that_stands_still_goes_down_to_nothing(clock):
    record = Record()
    with Meter("a.bin", record, clock=clock.monotonic) as meter:
        for count in range(10):
            meter.report(count * 100, 10_000)
            clock.pass_(1)
        for _ in range(10):
            meter.report(900, 10_000)
            clock.pass_(1)
        assert (record.last.speed, record.last.left) == (0, None)


def test_step_and_error_are_told(clock):
    record = Record()
    with pytest.raises(ValueError, match="gone"), Meter("a.bin", record, clock=clock.monotonic) as meter:
        meter.report(5, 10)
        meter.step("checking")
        meter.step("checking")
        raise ValueError("gone")
    assert record.words == ["begin", "show", "show", "end"]
    assert record.said[2][1].step == "checking"
    assert record.said[-1][2] == "gone"
    meter.end("twice")
    assert len(record.said) == 4


def test_sink_that_fails_ends_nothing_and_others_are_told(clock, caplog):
    class Broken(Record):
        def show(self, progress):
            raise OSError("no terminal")

    record = Record()
    with caplog.at_level(logging.WARNING), Meter("a.bin", Broken(), record, clock=clock.monotonic) as meter:
        meter.report(5, 10)
    assert record.words == ["begin", "show", "end"]
    assert "Broken could not show the progress" in caplog.text


def test_sink_can_end_the_transfer_by_what_is_no_exception(clock):
    class Stop(BaseException):
        pass

    def stop(progress):
        if progress.done:
            raise Stop

    with pytest.raises(Stop), Meter("a.bin", Calls(stop), clock=clock.monotonic) as meter:
        meter.report(5, 10)


def test_waiting_is_told_each_second_and_counts_for_no_speed(clock):
    record = Record()
    with Meter("a.bin", record, total=100, clock=clock.monotonic) as meter:
        assert record.last.total == 100
        meter.report(20, 100)
        clock.pass_(1)
        meter.report(30, 100)
        assert record.last.speed == 10
        record.said.clear()
        meter.wait(2.6, clock.pass_, "The link broke.")
        assert [(one.step, one.detail[:16], one.speed, one.left) for _, one in record.said] == [
            *[("waiting", f"Again in 0:00:0{left}", None, None) for left in (3, 2, 1)], ("", "", None, None),
        ]  # fmt: skip
        assert record.said[0][1].detail.endswith(": The link broke.")
        meter.report(30, 100)
        clock.pass_(1)
        meter.report(40, 100)
        assert (record.last.speed, record.last.left, record.last.resumed) == (10, 6, 20)


# --- functions and JSON ---


def test_function_is_called_with_progress_and_with_the_end(clock):
    seen, ends = [], []
    with Meter("a.bin", Calls(seen.append, ends.append), clock=clock.monotonic) as meter:
        meter.report(5, 10)
    assert [progress.done for progress in seen] == [0, 5, 5]
    assert ends == [None]


def test_lines_of_json_are_complete_and_one_a_second(clock):
    file = io.StringIO()
    with Meter("ж\n.bin", Lines(file), clock=clock.monotonic) as meter:
        for count in range(31):
            meter.report(count, 30)
            clock.pass_(0.1)
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["begin", "progress", "progress", "end"] or len(lines) == 5
    assert lines[-1]["done"] == 30
    assert lines[-1]["error"] is None
    assert set(lines[1]) == {
        "event",
        "name",
        "done",
        "total",
        "resumed",
        "speed",
        "left",
        "step",
        "detail",
        "seconds",
        "protocol",
    }
    assert lines[0]["name"] == "ж\n.bin"


# --- figures ---


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1.5 * MIB, "1.5 MiB"),
        (3 << 40, "3.0 TiB"),
        (9 << 50, "9216.0 TiB"),
    ],
)
def test_sizes(count, text):
    assert size_text(count) == text


def test_amounts_have_one_unit():
    assert amounts_text(512, 3 * MIB) == "0.0/3.0 MiB"
    assert amounts_text(512, 1000) == "512/1000 B"
    assert amounts_text(2 * MIB, None) == "2.0 MiB"


def test_speeds_and_times():
    assert (speed_text(None), speed_text(1024), speed_text(0)) == ("", "1.0 KiB/s", "0 B/s")
    assert [span_text(s) for s in (None, 0, 59.6, 3661, 90_000, 1e9, float("inf"), -1)] == [
        "", "0:00:00", "0:01:00", "1:01:01", "25:00:00", "", "", "",
    ]  # fmt: skip


def test_what_plays_with_terminals_is_replaced():
    assert printable("a\x1b[2Jb\r\n\u202ec ü") == "a?[2Jb ?c ü"


# --- the terminal ---


def drawn(width: int, progress: Progress, silent: float = 0) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None, legacy_windows=False)
    console.print(line_of(progress, width, silent))
    text = console.file.getvalue()
    assert text.count("\n") == 1, text
    line = text.rstrip("\n")
    assert len(line.rstrip()) <= width
    return line.rstrip()


RUNNING = Progress("survey of the northern field 2024.gpkg", 45 * MIB, 100 * MIB, speed=1.5 * MIB, left=37)


def test_line_of_120_columns_has_everything():
    line = drawn(120, RUNNING)
    assert line.startswith("survey of the northern field 2024.gpkg  ━")
    assert line.endswith("  45 %  45.0/100.0 MiB    1.5 MiB/s  0:00:37 left")
    assert line.count("━") >= 12  # 45 %; the rest of the bar needs colours


def test_line_of_60_columns_shortens_the_name_and_keeps_its_end():
    line = drawn(60, RUNNING)
    assert line.startswith("survey")
    assert "….gpkg  ━" in line
    assert line.endswith(" 45 %    1.5 MiB/s  0:00:37")
    assert line.count("━") >= 3


@pytest.mark.parametrize("width", [20, 30, 40, 50, 60, 79, 80, 100, 200])
@pytest.mark.parametrize("name", ["a", "съёмка поля.gpkg", "測量" * 40, "x" * 300, "\x1b[31mred"])
@pytest.mark.parametrize("total", [100 * MIB, None, 0])
def test_line_fits_any_terminal(width, name, total):
    line = drawn(width, Progress(name, 45 * MIB, total, speed=1.5 * MIB, left=37 if total else None))
    assert "\x1b[31m" not in line


def test_line_says_that_it_waits_and_what_it_does():
    assert drawn(80, RUNNING, silent=65).endswith("no link for 0:01:05")
    checking = Progress("a.bin", 5, 5, step="checking the digest")
    assert drawn(80, checking, silent=65).endswith("100 %  5/5 B  checking the digest")


def test_what_has_not_begun_shows_no_bar():
    for total in (None, 0, 100):
        assert "━" not in drawn(80, Progress("a.bin", 0, total))
    waiting = Progress("a.bin", MIB, 3 * MIB, step="waiting", detail="Again in 0:00:05: The server cannot be reached.")
    assert "Again in 0:00:05" in drawn(60, waiting)


def test_terminal_leaves_one_line(clock):
    console = Console(width=80, file=io.StringIO(), force_terminal=True, color_system=None, legacy_windows=False)
    with Meter("a.bin", Terminal(console, clock=clock.monotonic), clock=clock.monotonic) as meter:
        meter.report(MIB, 3 * MIB)
        clock.pass_(2)
        meter.report(3 * MIB, 3 * MIB)
    shown = console.file.getvalue()
    assert shown.rstrip("\n").endswith("✓ a.bin: 3.0 MiB in 0:00:02, 1.0 MiB/s, went on at 1.0 MiB")
    assert "0:00" in shown


def test_what_is_no_terminal_gets_only_the_line_that_stays(clock):
    console = Console(file=io.StringIO(), width=20)
    with pytest.raises(ValueError, match="gone"), Meter("a.bin", Terminal(console), clock=clock.monotonic) as meter:
        meter.report(5, 10)
        raise ValueError("The server is gone and nobody knows where.")
    assert console.file.getvalue() == "✗ a.bin: The server is gone and nobody knows where.\n"


def test_summary_of_what_took_no_time_has_no_speed():
    assert summary_of(Progress("a", 5, 5), None).plain == "✓ a: 5 B"
    assert summary_of(Progress("a", 5, 5, protocol="tus"), None).plain == "✓ a: 5 B"
    assert summary_of(Progress("a", 5, 5, protocol="multipart"), None).plain.endswith(", in one piece as a form")


# --- the desktop ---

BUS = """
import sys
from jeepney import MessageType, new_method_return
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import open_dbus_connection
bus = open_dbus_connection(bus="SESSION")
bus.send_and_get_reply(message_bus.RequestName("org.freedesktop.Notifications"))
print("ready", flush=True)
count = 0
while True:
    message = bus.receive()
    if message.header.message_type is not MessageType.method_call:
        continue
    app, uid, icon, summary, body, actions, hints, stays = message.body
    count += not uid
    print(repr((uid, summary, body, hints.get("value", ("i", None))[1], stays)), flush=True)
    bus.send(new_method_return(message, "u", (uid or count,)))
"""


@pytest.fixture
def desktop(monkeypatch):
    """Return what a desktop of the tests' own was told; it has a bus of its own."""
    bus = subprocess.Popen(
        ["dbus-daemon", "--session", "--nofork", "--print-address"], stdout=subprocess.PIPE, text=True
    )
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", bus.stdout.readline().strip())
    server = subprocess.Popen([sys.executable, "-c", BUS], stdout=subprocess.PIPE, text=True)
    assert server.stdout.readline() == "ready\n"
    told: list[tuple] = []
    reader = threading.Thread(target=lambda: told.extend(map(eval, server.stdout)), daemon=True)
    reader.start()

    def ended() -> list[tuple]:
        server.terminate()
        reader.join()
        return told

    yield ended
    for process in (server, bus):
        process.terminate()
        process.wait()
        process.stdout.close()


def test_notification_changes_in_place_and_shows_no_markup(desktop, clock):
    for name in ("Survey <b>", "Second"):
        with Meter(name, Desktop(), clock=clock.monotonic) as meter:
            for count in range(31):
                meter.report(count * MIB, 30 * MIB)
                clock.pass_(0.1)
    told = desktop()
    assert [one[0] for one in told if one[1] == "Survey <b>"] == [0, 1, 1, 1, 1]
    assert {one[0] for one in told if one[1] == "Second"} == {0, 2}
    assert told[1][2:] == ("10.0/30.0 MiB, 10.0 MiB/s, 0:00:02 left", 33, 0)
    assert told[4][2:] == ("Done.", None, -1)


def test_notification_says_what_failed(desktop, clock):
    with pytest.raises(ValueError, match="R&D"), Meter("Survey", Desktop(), clock=clock.monotonic):
        raise ValueError("<R&D>")
    assert desktop()[-1][2] == "Failed: &lt;R&amp;D&gt;"


def test_without_a_desktop_nothing_is_shown(monkeypatch, clock, tmp_path, caplog):
    for address in ("", f"unix:path={tmp_path}/none"):
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", address)
        with Meter("Survey", Desktop(), clock=clock.monotonic) as meter:
            meter.report(5, 10)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_without_the_extra_nothing_is_shown(monkeypatch, clock, caplog):
    monkeypatch.setitem(sys.modules, "jeepney.io.blocking", None)
    with Meter("Survey", Desktop(), clock=clock.monotonic) as meter:
        meter.report(5, 10)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_desktop_without_notifications_is_no_fault(monkeypatch, clock, caplog):
    bus = subprocess.Popen(
        ["dbus-daemon", "--session", "--nofork", "--print-address"], stdout=subprocess.PIPE, text=True
    )
    try:
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", bus.stdout.readline().strip())
        # Nobody has the name: the bus says so.
        with Meter("Survey", Desktop(), clock=clock.monotonic) as meter:
            meter.report(5, 10)
    finally:
        bus.terminate()
        bus.wait()
        bus.stdout.close()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
