"""The bandwidth limit: what may pass, how long it waits, and what counts as a limit at all."""

from __future__ import annotations

import threading
from datetime import datetime

import pytest

from upload_helper.transfer.errors import InvalidTransferError
from upload_helper.transfer.pace import Pace, read_limit


class Hand:
    """A clock that moves only when somebody sleeps by it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.mark.parametrize(
    ("text", "rate"),
    [(0, 0), ("", 0), ("0", 0), (50000, 50000), (1.5, 1.5), ("200k", 200 << 10), ("1.5M", 1.5 * (1 << 20)),
     ("2G", 2 << 30), ("200kB/s", 200 << 10), (" 3 MiB/s ", 3 << 20), ("10b", 10)],
)  # fmt: skip
def test_number_limits_every_hour(text, rate):
    assert read_limit(text) == (rate,) * 24


def test_table_limits_the_hours_that_it_names():
    rates = read_limit("08-18:200k, 18-20:1m, 22-2:10k")
    assert rates[7:9] == (0, 200 << 10)
    assert rates[17:21] == (200 << 10, 1 << 20, 1 << 20, 0)
    assert [hour for hour in range(24) if rates[hour] == 10 << 10] == [0, 1, 22, 23]
    assert read_limit("0-24:5") == (5,) * 24
    assert read_limit("06-06:5") == (5,) * 24


@pytest.mark.parametrize(
    "text",
    [
        "fast",
        "-1",
        "1e9",
        "08-18",
        "08-18:",
        "24-25:1k",
        "8-25:1",
        "8-18:1k;9-10:2k",
        "8-18:x",
        "1:2:3",
        "nan",
        "9" * 16,
        "١k",
        None,
        [1],
    ],
)
def test_what_is_no_limit_is_named(text):
    with pytest.raises(InvalidTransferError, match="write"):
        read_limit(text)


def test_bytes_pass_at_the_limit_whatever_they_come_in(hand):
    pace = Pace(1000, clock=hand)
    start = hand.now
    for size in (1, 10, 500, 3, 2000, 86) * 5:
        pace.take(size, hand.sleep)
    assert hand.now - start == pytest.approx(13.0)


def test_a_pause_earns_a_quarter_of_a_second_at_most(hand):
    pace = Pace(1000, clock=hand)
    hand.now += 3600
    pace.take(250, hand.sleep)
    assert not hand.slept
    pace.take(100, hand.sleep)
    assert hand.slept == [pytest.approx(0.1)]


def test_no_limit_never_waits_and_takes_blocks_whole(hand):
    pace = Pace(0, clock=hand)
    pace.take(1 << 40, hand.sleep)
    assert not hand.slept
    assert pace.block(1 << 20) == 1 << 20


def test_blocks_are_as_small_as_the_limit_asks(hand):
    assert Pace(40_000).block(1 << 20) == 10_000
    assert Pace(1).block(1 << 20) == 1024
    assert Pace(1).block(100) == 100
    assert Pace("1g").block(1 << 20) == 1 << 20


def test_limit_changes_with_the_hour(hand):
    hour = 17
    pace = Pace("08-18:100", clock=hand, now=lambda: datetime(2024, 5, 1, hour))  # noqa: DTZ001
    pace.take(100, hand.sleep)
    assert hand.slept == [1.0]
    assert pace.rate == 100
    hour = 18
    assert pace.rate == 0
    pace.take(1000, hand.sleep)
    assert len(hand.slept) == 1


def test_threads_share_one_limit():
    """Time does not pass here, so the longest wait is that of all bytes together."""
    pace = Pace(1000, clock=lambda: 5.0)
    waits: list[float] = []
    threads = [threading.Thread(target=lambda: [pace.take(10, waits.append) for _ in range(100)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(waits) == pytest.approx(4.0)
    assert len({round(wait, 6) for wait in waits}) == 400


def test_who_is_stopped_while_it_waits_is_stopped():
    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Pace(10).take(100, stop)
