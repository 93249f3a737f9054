"""Which conditions hold: battery, network and user, each read from what its system tells."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import namedtuple
from pathlib import Path

import psutil
import pytest

from servers import wait_until
from upload_helper.work import Condition, State, Work, providers
from upload_helper.work.conditions import Conditions
from upload_helper.work.providers import (
    NO_BATTERY,
    Power,
    Rarely,
    linux_connected,
    linux_idle,
    linux_power,
    mac_idle,
    psutil_connected,
    psutil_power,
    windows_idle,
)

ALL = frozenset(Condition)


# --- what providers say and what it counts as ---


def never(_=None) -> bool:
    return False


@pytest.mark.parametrize(("answer", "holds"), [(True, True), (False, False), (None, True)])
@pytest.mark.parametrize("condition", list(Condition))
def test_what_cannot_be_known_holds(condition, answer, holds):
    others = dict.fromkeys(ALL, never)
    conditions = Conditions({**others, condition: lambda: answer})
    assert conditions.lost({condition}) == (frozenset() if holds else {condition})
    assert conditions.lost(ALL) == ALL - ({condition} if holds else set())


def test_names_will_do_for_conditions():
    assert Conditions({"CHARGING": never}).lost({Condition.CHARGING}) == {"CHARGING"}
    with pytest.raises(ValueError, match="WARM"):
        Conditions({"WARM": never})


def test_provider_is_asked_once_a_second():
    now, asked = [100.0], []
    conditions = Conditions({"IDLE": lambda: not asked.append(now[0])}, clock=lambda: now[0])
    for moment in (100.0, 100.5, 100.99, 101.0, 101.5, 102.0):
        now[0] = moment
        assert conditions.holds(Condition.IDLE)
    assert asked == [100.0, 101.0, 102.0]


def test_clock_that_jumps_back_asks_again():
    now, asked = [100.0], []
    conditions = Conditions({"IDLE": lambda: bool(asked.append(now[0]))}, clock=lambda: now[0])
    for moment in (100.0, 1.0, 1.5):
        now[0] = moment
        conditions.holds(Condition.IDLE)
    assert asked == [100.0, 1.0]


def test_provider_that_fails_is_logged_once_and_counts_as_not_known(caplog):
    states = [OSError("gone"), OSError("gone"), False, OSError("gone")]

    def provider():
        state = states.pop(0)
        if isinstance(state, Exception):
            raise state
        return state

    conditions = Conditions({"CONNECTED": provider}, fresh=0)
    assert [conditions.holds(Condition.CONNECTED) for _ in range(4)] == [True, True, False, True]
    assert [r.getMessage() for r in caplog.records] == ["Nobody knows whether CONNECTED holds (OSError: gone)."] * 2
    assert caplog.records[0].levelno == logging.WARNING


def test_slow_provider_holds_up_no_other():
    go_on = threading.Event()
    conditions = Conditions({"IDLE": lambda: go_on.wait(5), "CHARGING": lambda: False})
    slow = threading.Thread(target=conditions.lost, args=[{Condition.IDLE}])
    slow.start()
    assert conditions.lost({Condition.CHARGING}) == {Condition.CHARGING}
    assert slow.is_alive()
    go_on.set()
    slow.join()


def test_provider_that_hangs_is_not_known_and_asked_again_when_it_has_answered(caplog):
    go_on, answers, asked = threading.Event(), [False, False], []

    def provider():
        asked.append(1)
        assert go_on.wait(10)
        return answers.pop()

    conditions = Conditions({"IDLE": provider}, patience=0.05, fresh=0)
    for _ in range(3):
        assert conditions.holds(Condition.IDLE)
    assert len(asked) == 1
    assert [r.getMessage() for r in caplog.records] == ["Nobody knows whether IDLE holds (no answer yet)."]
    go_on.set()
    wait_until(lambda: not conditions.holds(Condition.IDLE))
    assert len(asked) >= 2


def test_who_must_not_wait_gets_the_last_answer():
    answers = iter((True, False))
    go_on = threading.Event()
    conditions = Conditions({"IDLE": lambda: go_on.wait(5) and next(answers, False)}, fresh=0)
    assert conditions.lost({Condition.IDLE}, wait=False) == frozenset()
    go_on.set()
    assert conditions.holds(Condition.IDLE)
    assert conditions.lost({Condition.IDLE}, wait=False) == frozenset()
    wait_until(lambda: conditions.lost({Condition.IDLE}, wait=False))


def test_provider_that_is_always_slow_holds_up_nobody_more_than_once():
    turns = [threading.Event() for _ in range(3)]
    due = iter(turns)
    conditions = Conditions({"IDLE": lambda: not next(due).wait(10)}, patience=0.2, fresh=0)
    assert conditions.holds(Condition.IDLE)
    turns[0].set()
    wait_until(lambda: conditions.lost({Condition.IDLE}, wait=False))
    begun = time.monotonic()
    conditions.holds(Condition.IDLE)
    assert time.monotonic() - begun < 0.15
    for turn in turns:
        turn.set()


def test_hanging_provider_holds_up_neither_other_tasks_nor_leases(tmp_path):
    go_on = threading.Event()
    work = Work(tmp_path / "work.db", conditions=Conditions({"IDLE": lambda: go_on.wait(20)}, patience=0.3))
    work.function("long")(lambda hashMap: hashMap.step.sleep(1.5))
    uids = [work.start_work([{"action": "run", "type": "python", "method": "long"}]) for _ in range(2)]
    with work.runner(threads=2, lease=1, poll=0.05):
        wait_until(lambda: [work.get(uid).state for uid in uids] == [State.RUNNING] * 2)
        waits = work.start_work([{"action": "run", "type": "set", "method": "a=1"}], conditions="IDLE")
        for uid in uids:
            task = work.wait(uid, 10)
            assert (task.state, task.attempt) == (State.SUCCEEDED, 1)
        # Nobody knows whether it may run, so it may.
        assert work.wait(waits, 10).state is State.SUCCEEDED
    go_on.set()
    work.close()


def test_nothing_is_asked_that_is_not_wanted():
    assert Conditions(dict.fromkeys(ALL, lambda: 1 / 0)).lost(()) == frozenset()


def test_this_machine_answers():
    assert Conditions().lost(ALL) <= ALL


# --- power ---

AC = {"type": "Mains", "online": "1"}
NO_AC = {"type": "Mains", "online": "0"}
USB = {"type": "USB", "online": "1"}


def battery(status: str = "Discharging", capacity: str = "50", **more: str) -> dict[str, str]:
    return {"type": "Battery", "present": "1", "status": status, "capacity": capacity, **more}


def write(root: Path, *supplies: dict[str, str]) -> Path:
    """Make a tree as the kernel does."""
    for number, supply in enumerate(supplies):
        folder = root / "sys/class/power_supply" / f"S{number}"
        folder.mkdir(parents=True)
        for name, text in supply.items():
            (folder / name).write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("supplies", "charging", "not_low"),
    [
        ([], True, True),
        ([AC], True, True),
        ([NO_AC], True, True),  # no battery, and yet it runs
        ([AC, battery("Charging", "3")], True, True),
        ([AC, battery("Not charging", "3")], True, True),
        ([AC, battery("Unknown", "3")], True, True),
        ([NO_AC, battery("Discharging", "16")], False, True),
        ([NO_AC, battery("Discharging", "15")], False, False),
        ([NO_AC, battery("Unknown", "15")], False, False),
        ([NO_AC, USB, battery("Charging", "10")], True, True),
        ([battery("Full", "100")], True, True),
        ([battery("Discharging", "90")], False, True),
        ([battery("Unknown", "90")], None, True),
        ([battery("Unknown", "10")], None, False),
        ([{"type": "Battery"}], None, None),
        ([NO_AC, battery("Discharging", "x")], False, None),
        ([battery("Discharging", "5", scope="Device")], True, True),  # that of a mouse
        ([NO_AC, battery("Discharging", "5", present="0")], True, True),
        ([NO_AC, battery("Discharging", "5"), battery("Unknown", "45")], False, True),  # 25 % together
        (
            [
                battery("Discharging", "2", energy_now="1", energy_full="50"),
                battery("Unknown", "100", energy_now="5", energy_full="5"),
            ],
            False,
            False,  # 6 of 55
        ),
        ([battery("Discharging", "80", charge_now="1000", charge_full="10000")], False, False),
        ([battery("Discharging", "80", charge_now="0", charge_full="0")], False, True),
        ([{"type": "UPS", "status": "Discharging", "capacity": "99"}], False, True),
    ],
)
def test_linux_power(tmp_path, supplies, charging, not_low):
    power = linux_power(write(tmp_path, *supplies))
    assert (power.plugged, power.not_low) == (charging, not_low)


def test_battery_is_watched_in_the_tree(tmp_path):
    root = write(tmp_path, NO_AC, battery("Discharging", "14"))
    conditions = Conditions(
        {"CHARGING": lambda: linux_power(root).plugged, "BATTERY_NOT_LOW": lambda: linux_power(root).not_low}, fresh=0
    )
    wanted = {Condition.CHARGING, Condition.BATTERY_NOT_LOW}
    assert conditions.lost(wanted) == wanted
    (root / "sys/class/power_supply/S1/capacity").write_text("40\n")
    assert conditions.lost(wanted) == {Condition.CHARGING}
    (root / "sys/class/power_supply/S0/online").write_text("1\n")
    assert conditions.lost(wanted) == frozenset()


Battery = namedtuple("Battery", "percent secsleft power_plugged")


@pytest.mark.parametrize(
    ("found", "power"),
    [
        (None, NO_BATTERY),
        (Battery(80, 3600, False), Power(80, False)),
        (Battery(3, -2, True), Power(3, True)),
        (Battery(3, -1, None), Power(3, None)),
    ],
)
def test_psutil_power(monkeypatch, found, power):
    monkeypatch.setattr(psutil, "sensors_battery", lambda: found, raising=False)
    assert psutil_power() == power


def test_psutil_without_sensors(monkeypatch):
    monkeypatch.delattr(psutil, "sensors_battery", raising=False)
    assert psutil_power() == NO_BATTERY


# --- network ---

ROUTES = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"


def route(name: str, destination: str = "00000000", flags: str = "0003", mask: str = "00000000") -> str:
    return f"{name}\t{destination}\t0100A8C0\t{flags}\t0\t0\t100\t{mask}\t0\t0\t0\n"


def route6(name: str, destination: str = "0" * 32, flags: str = "00450003", length: str = "00") -> str:
    zeros = "0" * 32
    return f"{destination} {length} {zeros} 00 fe800000000000000000000000000001 00000064 00000001 00000000 {flags} {name}\n"


def net(root: Path, v4: str | None, v6: str | None, **states: str) -> Path:
    (root / "proc/net").mkdir(parents=True)
    for name, text in (("route", v4), ("ipv6_route", v6)):
        if text is not None:
            (root / "proc/net" / name).write_text(text)
    for name, state in states.items():
        (root / "sys/class/net" / name).mkdir(parents=True)
        (root / "sys/class/net" / name / "operstate").write_text(state + "\n")
    return root


@pytest.mark.parametrize(
    ("v4", "v6", "states", "connected"),
    [
        (None, None, {}, None),
        (ROUTES, "", {"lo": "unknown"}, False),
        (ROUTES + route("eth0"), "", {"eth0": "up"}, True),
        (ROUTES + route("eth0"), "", {"eth0": "down"}, False),
        (ROUTES + route("eth0"), "", {"eth0": "dormant"}, False),
        (ROUTES + route("ppp0"), "", {"ppp0": "unknown"}, True),
        (ROUTES + route("tun0"), "", {}, True),
        (ROUTES + route("eth0") + route("wlan0"), "", {"eth0": "down", "wlan0": "up"}, True),
        (ROUTES + route("eth0", "0000A8C0", mask="00FFFFFF"), "", {"eth0": "up"}, False),
        (ROUTES + route("eth0", flags="0002"), "", {"eth0": "up"}, False),
        (ROUTES + route("eth0", flags="0203"), "", {"eth0": "up"}, False),
        (ROUTES, route6("eth0"), {"eth0": "up"}, True),
        (None, route6("eth0"), {"eth0": "up"}, True),
        (ROUTES, route6("lo", flags="00200200"), {"lo": "unknown"}, False),
        (ROUTES, route6("lo"), {"lo": "unknown"}, False),
        (ROUTES, route6("eth0", flags="00200200"), {"eth0": "up"}, False),
        (ROUTES, route6("eth0", length="40"), {"eth0": "up"}, False),
        ("nonsense\nmore nonsense\n" + route("eth0", flags="zz"), "x\n", {"eth0": "up"}, False),
    ],
)
def test_linux_connected(tmp_path, v4, v6, states, connected):
    assert linux_connected(net(tmp_path, v4, v6, **states)) is connected


Stats = namedtuple("Stats", "isup")
Address = namedtuple("Address", "family address")
Family = namedtuple("Family", "name")


@pytest.mark.parametrize(
    ("addresses", "up", "connected"),
    [
        ([("AF_INET", "192.168.1.7")], True, True),
        ([("AF_INET", "192.168.1.7")], False, False),
        ([("AF_INET", "127.0.0.1"), ("AF_INET6", "::1")], True, False),
        ([("AF_INET", "169.254.3.4"), ("AF_INET6", "fe80::1%en0"), ("AF_LINK", "00:11")], True, False),
        ([("AF_INET6", "2001:db8::1")], True, True),
        ([], True, False),
    ],
)
def test_psutil_connected(monkeypatch, addresses, up, connected):
    listed = [Address(Family(family), address) for family, address in addresses]
    monkeypatch.setattr(psutil, "net_if_stats", lambda: {"en0": Stats(up)})
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: {"en0": listed})
    assert psutil_connected() is connected


# --- use ---


@pytest.mark.parametrize(
    ("answer", "idle"), [("IdleHint=yes\n", True), ("IdleHint=no\n", False), ("", None), ("x\nIdleHint=yes", True)]
)
def test_linux_idle(answer, idle):
    assert linux_idle(lambda command: answer) is idle


@pytest.mark.parametrize(
    ("answer", "idle"),
    [('    | | "HIDIdleTime" = 300000000000\n', True), ('"HIDIdleTime" = 299999999999', False), ("", None)],
)
def test_mac_idle(answer, idle):
    assert mac_idle(lambda command: answer) is idle


@pytest.mark.skipif(sys.platform == "win32", reason="there it is known")
def test_windows_idle_is_not_known_elsewhere():
    assert windows_idle() is None


def test_command_that_is_not_there_or_fails_says_nothing():
    assert providers._output(["/no/such/command"]) == ""
    assert providers._output([sys.executable, "-c", "raise SystemExit(1)"]) == ""
    assert providers._output([sys.executable, "-c", "print(7)"]) == "7\n"


def test_what_takes_a_process_is_asked_every_half_minute():
    now, asked = [0.0], []
    idle = Rarely(lambda: not asked.append(now[0]), clock=lambda: now[0])
    for moment in range(0, 100, 10):
        now[0] = float(moment)
        assert idle()
    assert asked == [0, 30, 60, 90]


# --- tasks ---


def test_task_waits_for_the_battery_and_stops_when_it_gets_low(tmp_path):
    root = write(tmp_path, NO_AC, battery("Discharging", "14"))
    capacity = root / "sys/class/power_supply/S1/capacity"
    conditions = Conditions({"BATTERY_NOT_LOW": lambda: linux_power(root).not_low}, fresh=0)
    work = Work(tmp_path / "work.db", conditions=conditions)
    runs = []

    @work.function
    def survey(hashMap):
        runs.append(capacity.read_text())
        if len(runs) == 1:
            capacity.write_text("15\n")
            hashMap.step.sleep(20)

    uid = work.start_work([{"action": "run", "type": "python", "method": "survey"}], conditions="BATTERY_NOT_LOW")
    runner = work.runner(poll=0.02)
    runner.run_until_idle()
    assert (work.get(uid).state, runs) == (State.BLOCKED, [])
    capacity.write_text("40\n")
    runner.run_until_idle()
    assert (work.get(uid).state, runs) == (State.BLOCKED, ["40\n"])
    capacity.write_text("41\n")
    runner.run_until_idle()
    assert (work.get(uid).state, runs) == (State.SUCCEEDED, ["40\n", "41\n"])
    assert work.get(uid).failures == 0
    work.close()
