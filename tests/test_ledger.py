"""The ledger: what is put in, who may take it, whose writes count; on both databases."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import sys
import threading
import time
from dataclasses import replace

import pytest
import sqlalchemy
from sqlalchemy import insert, text, update

from ledgers import FakeClock
from upload_helper.errors import (
    InvalidTaskError,
    LedgerBusyError,
    LedgerError,
    LedgerVersionError,
    UnknownTaskError,
)
from upload_helper.work import Condition, Existing, Ledger, State, Task
from upload_helper.work import tables as ledger_tables
from upload_helper.work.claims import MOST_RECORDED
from upload_helper.work.clock import is_gone, process_name
from upload_helper.work.engines import BUSY_SECONDS
from upload_helper.work.leases import Watch
from upload_helper.work.ledger import PutBack
from upload_helper.work.rows import to_row
from upload_helper.work.tables import ROW_VERSION, migrate, tasks
from workers import counts

# Threads don't come along, which is what is looked at here.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

NOTHING = frozenset()
HANDLER = {"action": "run", "type": "python", "method": "f"}
LEASE = 30


@pytest.fixture
def ledger(target, clock):
    opened = Ledger(target, clock=clock)
    yield opened
    opened.close()


def task(uid: str, **values) -> Task:
    defaults = {"handlers": (HANDLER,), "created": 1_800_000_000.0, "next_run": 1_800_000_000.0}
    return Task(uid=uid, **{**defaults, **values})


def change(ledger: Ledger, uid: str, **values) -> None:
    with ledger.engines.write() as connection:
        connection.execute(update(tasks).where(tasks.c.uid == uid).values(values))


def over(ledger: Ledger, watch: Watch | None = None) -> list[str]:
    watch = watch or Watch(ledger.clock, is_local=ledger.engines.is_local)
    return [lease.uid for lease in watch.over(ledger.leases())]


# --- in and out ---


def test_task_comes_out_as_it_was_put_in(ledger):
    given = task(
        "a", tag="Метка", title="t" * 1000, body="日本", conditions=frozenset(Condition), retry=True, period=900.0,
        variables={"x": [1, None, {"ж": "\0 \\u0000"}]}, post_execute=(HANDLER, HANDLER), progress=None,
    )  # fmt: skip
    assert ledger.put(given) == "a"
    assert ledger.get("a") == given


def test_task_that_is_not_there_is_unknown(ledger):
    for uid in ("b", "", "x" * 10_000, "' or 1=1 --"):
        with pytest.raises(UnknownTaskError):
            ledger.get(uid)


def test_uid_that_is_there_changes_nothing(ledger):
    ledger.put(task("a", tag="first"))
    claim = ledger.claim(NOTHING, LEASE)
    ledger.finish("a", claim.attempt, State.SUCCEEDED)
    assert ledger.put(task("a", tag="second")) == "a"
    assert (ledger.get("a").tag, ledger.get("a").state) == ("first", State.SUCCEEDED)
    assert ledger.claim(NOTHING, LEASE) is None


@pytest.mark.parametrize(
    "value", [float("nan"), object(), "\ud800", {1, 2}, "x" * (4 << 20)], ids=lambda v: type(v).__name__
)
def test_what_is_no_json_is_refused(ledger, value):
    with pytest.raises(InvalidTaskError):
        ledger.put(task("a", variables={"x": value}))
    assert ledger.find(None, None, 10) == []


def test_uid_that_many_put_in_at_once_is_there_once(target, ledger):
    others = [Ledger(target, clock=ledger.clock) for _ in range(6)]
    barrier = threading.Barrier(len(others))
    uids = []

    def put(one: Ledger) -> None:
        barrier.wait()
        uids.append(one.put(task("a")))

    threads = [threading.Thread(target=put, args=(one,)) for one in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert uids == ["a"] * 6
    assert len(ledger.find(None, None, 10)) == 1
    for one in others:
        one.close()


def test_tasks_are_found_by_tag_and_state_newest_first(ledger):
    for uid, tag in (("a", "x"), ("b", "y"), ("c", "x")):
        ledger.put(task(uid, tag=tag))
    ledger.claim(NOTHING, LEASE)
    assert [t.uid for t in ledger.find(None, None, 10)] == ["c", "b", "a"]
    assert [t.uid for t in ledger.find("x", None, 10)] == ["c", "a"]
    assert [t.uid for t in ledger.find("x", State.RUNNING, 10)] == ["a"]
    assert [t.uid for t in ledger.find(None, None, 1)] == ["c"]
    assert counts(ledger) == {"ENQUEUED": 2, "RUNNING": 1}


def test_ledger_outlives_its_process(target, ledger):
    ledger.put(task("a"))
    ledger.close()
    again = Ledger(target)
    assert again.get("a") == task("a")
    again.close()


def test_file_is_for_its_user_only(tmp_path):
    ledger = Ledger(tmp_path / "work.db")
    ledger.put_alias("a", {"x": 1})
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"work.db": 0o600, "work.db-wal": 0o600, "work.db-shm": 0o600}
    ledger.close()


# --- taking ---


def test_task_is_taken_by_one_and_counted(ledger):
    ledger.put(task("a"))
    claim = ledger.claim(NOTHING, LEASE)
    assert (claim.uid, claim.attempt, claim.task.state, claim.task.attempt) == ("a", 1, State.RUNNING, 1)
    assert ledger.claim(NOTHING, LEASE) is None


def test_tasks_are_taken_in_the_order_in_which_they_are_due(ledger, clock):
    for uid, due in (("b", 5), ("a", 1), ("c", 5), ("later", 100)):
        ledger.put(task(uid, next_run=clock.now - 50 + due))
    assert [ledger.claim(NOTHING, LEASE).uid for _ in range(3)] == ["a", "b", "c"]
    assert ledger.claim(NOTHING, LEASE) is None
    clock.pass_(50)
    assert ledger.claim(NOTHING, LEASE).uid == "later"


def test_of_many_that_want_one_task_a_single_one_gets_it(target, ledger):
    for number in range(10):
        ledger.put(task(str(number)))
    others = [Ledger(target, clock=ledger.clock) for _ in range(4)]
    got: list[str] = []

    def take(one: Ledger) -> None:
        while (claim := one.claim(NOTHING, LEASE)) is not None:
            got.append(claim.uid)

    threads = [threading.Thread(target=take, args=(one,)) for one in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [str(number) for number in range(10)]
    for one in others:
        one.close()


def test_tasks_whose_conditions_are_lost_are_not_taken(ledger):
    ledger.put(task("a", conditions=frozenset({Condition.CHARGING, Condition.IDLE})))
    ledger.put(task("b", conditions=frozenset({Condition.CONNECTED})))
    ledger.put(task("c"))
    lost = frozenset({Condition.CHARGING})
    assert ledger.wants() == set(Condition) - {Condition.BATTERY_NOT_LOW}
    assert ledger.block(lost) == 1
    assert ledger.get("a").state is State.BLOCKED
    assert [ledger.claim(lost, LEASE).uid for _ in range(2)] == ["b", "c"]
    assert ledger.claim(lost, LEASE) is None
    assert ledger.unblock(frozenset()) == 1
    assert ledger.get("a").state is State.ENQUEUED
    assert ledger.claim(NOTHING, LEASE).uid == "a"
    assert ledger.wants() == NOTHING


def test_blocked_task_is_taken_as_soon_as_its_conditions_hold(ledger):
    ledger.put(task("a", conditions=frozenset({Condition.IDLE})))
    ledger.block(frozenset(Condition))
    assert ledger.claim(NOTHING, LEASE).uid == "a"


# --- whose writes count ---


def test_every_write_of_a_late_worker_changes_nothing(ledger, clock):
    ledger.put(task("a"))
    late = ledger.claim(NOTHING, LEASE)
    clock.pass_(LEASE + 1)
    (lease,) = ledger.leases()
    assert ledger.take_back(lease)
    before = ledger.get("a")
    for attempt in ("waits", "runs", "ended"):
        assert ledger.renew("a", late.attempt, LEASE, 0.5, "late") is None
        assert not ledger.finish("a", late.attempt, State.SUCCEEDED, result="late")
        assert not ledger.put_back("a", late.attempt, (), PutBack(failed=True, error="late"))
        assert not ledger.take_back(lease)
        assert ledger.held([("a", late.attempt)]) == {}
        assert ledger.get("a") == before, attempt
        if attempt == "waits":
            new = ledger.claim(NOTHING, LEASE)
            assert new.attempt == late.attempt + 1
        elif attempt == "runs":
            assert ledger.finish("a", new.attempt, State.SUCCEEDED, result="in time")
        before = ledger.get("a")
    assert (before.state, before.result) == (State.SUCCEEDED, "in time")


def test_end_is_written_once(ledger):
    ledger.put(task("a"))
    claim = ledger.claim(NOTHING, LEASE)
    assert ledger.finish("a", claim.attempt, State.FAILED, error="no")
    assert not ledger.finish("a", claim.attempt, State.SUCCEEDED)
    assert (ledger.get("a").state, ledger.get("a").error, ledger.get("a").failures) == (State.FAILED, "no", 1)


def test_texts_are_cut_and_cleaned(ledger):
    ledger.put(task("a"))
    claim = ledger.claim(NOTHING, LEASE)
    assert ledger.renew("a", claim.attempt, LEASE, 0.25, "step\0" * 1000)
    assert (ledger.get("a").progress, len(ledger.get("a").step_name)) == (0.25, 1000)
    assert ledger.finish("a", claim.attempt, State.FAILED, result="x" * MOST_RECORDED * 2, error="\0\ud800y")
    done = ledger.get("a")
    assert (len(done.result), done.result[-1], done.error) == (MOST_RECORDED, "…", "\N{REPLACEMENT CHARACTER}?y")


# --- leases ---


def test_lease_ends_when_its_time_has_come_and_not_when_it_is_renewed(ledger, clock):
    ledger.put(task("a"))
    claim = ledger.claim(NOTHING, LEASE)
    clock.pass_(LEASE - 1)
    assert over(ledger) == []
    assert ledger.renew("a", claim.attempt, LEASE) == (clock.up + LEASE, False)
    clock.pass_(LEASE - 1)
    assert over(ledger) == []
    clock.pass_(2)
    assert over(ledger) == ["a"]


@pytest.mark.parametrize("jump", [-10 * 365 * 86400, -3600, 3600, 10 * 365 * 86400])
def test_leases_do_not_notice_that_the_clock_jumps(ledger, clock, jump):
    ledger.put(task("a"))
    claim = ledger.claim(NOTHING, LEASE)
    clock.now += jump
    assert over(ledger) == []
    assert ledger.renew("a", claim.attempt, LEASE) is not None
    clock.up += LEASE + 1
    assert over(ledger) == ["a"]


def test_lease_ends_with_its_process(ledger):
    ledger.put(task("a"))
    pid = os.fork()
    if not pid:
        ledger.claim(NOTHING, LEASE)
        os._exit(0)
    os.waitpid(pid, 0)
    assert ledger.get("a").state is State.RUNNING
    assert over(ledger) == ["a"]


def test_process_is_gone_if_another_has_its_number():
    namespace, pid, started = process_name().split()
    assert not is_gone(f"{namespace} {pid} {started}")
    assert is_gone(f"{namespace} {pid} {int(started) - 1}")
    # In another container its number may well be nobody's here.
    assert not is_gone(f"pid:[1] {pid} {int(started) - 1}")


def test_lease_of_a_process_that_cannot_be_seen_is_left(ledger):
    ledger.put(task("a"))
    ledger.claim(NOTHING, LEASE)
    for owner in ("", "nonsense", "pid:[1] 999999999 5"):
        change(ledger, "a", owner=owner)
        assert over(ledger) == [], owner


def test_after_a_reboot_a_file_of_this_machine_has_no_leases(tmp_path):
    ledger = Ledger(tmp_path / "work.db", clock=FakeClock("boot-1"))
    ledger.put(task("a"))
    ledger.claim(NOTHING, LEASE)
    ledger.close()
    # The new clock is far behind the end of the lease, which says nothing.
    again = Ledger(tmp_path / "work.db", clock=FakeClock("boot-2", monotonic=3))
    assert over(again) == ["a"]
    again.close()


def test_file_that_machines_share_keeps_the_leases_of_other_boots(tmp_path, monkeypatch):
    class Remote(sqlite3.Connection):
        """As on a network drive, where SQLite refuses to share memory."""

        def execute(self, sql, *args):
            return super().execute("select 'delete'" if "journal_mode" in sql else sql, *args)

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3.dbapi2, "connect", lambda *args, **options: connect(*args, **options, factory=Remote))
    ledger = Ledger(tmp_path / "work.db", clock=FakeClock("boot-1"))
    ledger.put(task("a"))
    ledger.claim(NOTHING, LEASE)
    ledger.clock.boot = "boot-2"
    assert over(ledger) == []
    ledger.close()


@pytest.mark.parametrize(("boot", "other"), [("boot-1", "boot-2"), ("", ""), ("boot-1", ""), ("boot-1 x", "boot-1 y")])
def test_lease_of_a_clock_that_cannot_be_compared_is_over_when_it_is_not_renewed_for_so_long(target, boot, other):
    ledger, clock = Ledger(target, clock=FakeClock(boot)), FakeClock(other, monotonic=5e6)
    ledger.put(task("a"))
    claim = ledger.claim(NOTHING, LEASE)
    watch = Watch(clock, is_local=False)
    for _ in range(3):
        assert watch.over(ledger.leases()) == []
        clock.pass_(LEASE - 1)
        ledger.clock.pass_(LEASE - 1)
        assert watch.over(ledger.leases()) == []
        ledger.renew("a", claim.attempt, LEASE)
    assert watch.over(ledger.leases()) == []
    clock.pass_(LEASE + 1)
    assert [lease.uid for lease in watch.over(ledger.leases())] == ["a"]
    ledger.close()


def test_task_whose_worker_vanished_keeps_its_place(ledger, clock):
    for uid in ("a", "b"):
        ledger.put(task(uid))
    ledger.claim(NOTHING, LEASE)
    clock.pass_(LEASE + 1)
    assert ledger.take_back(*ledger.leases())
    assert (ledger.get("a").state, ledger.get("a").losses) == (State.ENQUEUED, 1)
    assert ledger.claim(NOTHING, LEASE).uid == "a"


def test_lease_that_was_renewed_meanwhile_is_not_taken_back(ledger, clock):
    ledger.put(task("a"))
    claim = ledger.claim(NOTHING, LEASE)
    clock.pass_(LEASE + 1)
    (lease,) = ledger.leases()
    ledger.renew("a", claim.attempt, LEASE)
    assert not ledger.take_back(lease)
    assert ledger.get("a").state is State.RUNNING


def test_task_that_kills_its_workers_lets_them_have_longer_and_longer_pauses(ledger, clock):
    ledger.put(task("a"))
    pauses = []
    for _ in range(104):
        claim = ledger.claim(NOTHING, LEASE)
        assert claim is not None
        ledger.take_back(*ledger.leases())
        pauses.append(ledger.get("a").next_run - clock.now)
        clock.pass_(max(pauses[-1], 0))
    assert max(pauses[:100]) <= 0
    assert 4 < pauses[100] < pauses[101] < pauses[102] < pauses[103] < 60


# --- back to the queue ---


def test_failed_task_waits_and_comes_back(ledger, clock):
    ledger.put(task("a", conditions=frozenset({Condition.IDLE})))
    claim = ledger.claim(NOTHING, LEASE)
    assert ledger.put_back("a", claim.attempt, claim.task.conditions, PutBack(delay=60, failed=True, error="no"))
    found = ledger.get("a")
    assert (found.state, found.failures, found.error, found.next_run) == (State.ENQUEUED, 1, "no", clock.now + 60)
    assert ledger.claim(NOTHING, LEASE) is None
    clock.pass_(61)
    assert ledger.claim(frozenset({Condition.IDLE}), LEASE) is None
    assert ledger.claim(NOTHING, LEASE).attempt == 2


@pytest.mark.parametrize("jump", [-10 * 365 * 86400, -3600])
def test_waiting_task_is_not_forgotten_when_the_clock_is_turned_back(ledger, clock, jump):
    ledger.put(task("new"))
    ledger.put(task("a", next_run=clock.now - 1))
    claim = ledger.claim(NOTHING, LEASE)
    ledger.put_back("a", claim.attempt, (), PutBack(delay=600, failed=True))
    assert ledger.mend() == 0
    clock.now += jump
    assert ledger.claim(NOTHING, LEASE) is None
    assert ledger.mend() == 2
    assert {ledger.claim(NOTHING, LEASE).uid for _ in range(2)} == {"new", "a"}


def test_small_difference_between_clocks_of_machines_shortens_no_pause(ledger, clock):
    ledger.put(task("a"))
    claim = ledger.claim(NOTHING, LEASE)
    ledger.put_back("a", claim.attempt, (), PutBack(delay=600, failed=True))
    clock.now -= 50
    assert ledger.mend() == 0


# --- many ---


def test_claiming_among_ten_thousand_costs_what_it_costs_among_ten(ledger):
    fill(ledger, 10)
    few = min(cost(ledger) for _ in range(3))
    fill(ledger, 9_990)
    # On a machine that does other things as well, it takes some rounds until one is undisturbed.
    assert any(cost(ledger) <= 1.2 * few for _ in range(20))


def fill(ledger: Ledger, count: int) -> None:
    now = ledger.clock.wall()
    there = sum(counts(ledger).values())
    kinds = [NOTHING, frozenset({Condition.IDLE}), frozenset(Condition)]
    rows = [to_row(task(f"{there + n}", conditions=kinds[n % 3]), now) for n in range(count)]
    with ledger.engines.write() as connection:
        connection.execute(insert(tasks), rows)


def cost(ledger: Ledger) -> float:
    """Return the least time in seconds that a claim took: what else the machine does only adds to it."""
    least = 1.0
    for _ in range(80):
        before = time.perf_counter()
        claim = ledger.claim(NOTHING, LEASE)
        least = min(least, time.perf_counter() - before)
        ledger.put_back(claim.uid, claim.attempt, claim.task.conditions, PutBack())
    return least


# --- stopping, KEEP, REPLACE ---


def test_waiting_task_is_cancelled_and_running_one_is_asked(ledger):
    for uid in ("a", "b", "other"):
        ledger.put(task(uid, tag="t" if uid != "other" else ""))
    claim = ledger.claim(NOTHING, LEASE)
    assert ledger.stop(tag="t") == 2
    assert ledger.stop(tag="t") == 0
    assert (ledger.get("a").state, ledger.get("a").cancel) == (State.RUNNING, True)
    assert (ledger.get("b").state, ledger.get("other").state) == (State.CANCELLED, State.ENQUEUED)
    assert ledger.renew("a", claim.attempt, LEASE)[1] is True
    assert ledger.held([("a", 1)]) == {"a": True}
    # Whatever the worker makes of it, it does not wait again.
    assert ledger.put_back("a", claim.attempt, (), PutBack(delay=60, failed=True))
    assert ledger.get("a").state is State.CANCELLED


def test_cancelled_task_whose_worker_vanished_is_not_run_again(ledger, clock):
    ledger.put(task("a", tag="t"))
    ledger.claim(NOTHING, LEASE)
    ledger.stop(tag="t")
    clock.pass_(LEASE + 1)
    assert ledger.take_back(*ledger.leases())
    assert ledger.get("a").state is State.CANCELLED
    assert ledger.claim(NOTHING, LEASE) is None


def test_keep_and_replace(ledger):
    ledger.put(task("a", tag="t"))
    ledger.put(task("b", tag="t"))
    assert ledger.put(task("c", tag="t"), Existing.KEEP) == "a"
    assert len(ledger.find("t", None, 10)) == 2
    assert ledger.put(task("d", tag="t"), Existing.REPLACE) == "d"
    assert {t.uid: t.state for t in ledger.find("t", None, 10)} == {
        "a": State.CANCELLED, "b": State.CANCELLED, "d": State.ENQUEUED,
    }  # fmt: skip
    assert ledger.put(task("e", tag="other"), Existing.KEEP) == "e"


def test_of_many_that_start_with_keep_at_once_one_starts(target, ledger):
    others = [Ledger(target, clock=ledger.clock) for _ in range(6)]
    barrier = threading.Barrier(len(others))
    uids = []

    def start(one: Ledger, uid: str) -> None:
        barrier.wait()
        uids.append(one.put(task(uid, tag="t"), Existing.KEEP))

    threads = [threading.Thread(target=start, args=(one, str(n))) for n, one in enumerate(others)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(uids) == 6
    assert len(set(uids)) == 1
    for one in others:
        one.close()


# --- clearing ---


def test_ended_tasks_are_cleared_after_a_while(ledger, clock):
    for number in range(3):
        ledger.put(task(str(number)))
    for state in (State.SUCCEEDED, State.FAILED):
        claim = ledger.claim(NOTHING, LEASE)
        ledger.finish(claim.uid, claim.attempt, state)
    assert ledger.sweep(100) == 0
    clock.pass_(101)
    assert ledger.sweep(100) == 2
    assert [t.uid for t in ledger.find(None, None, 10)] == ["2"]


def test_many_records_that_are_spared_end_no_sweep(ledger, clock, tmp_path, monkeypatch):
    monkeypatch.setattr("upload_helper.work.queue._SWEEP", 2)
    note = tmp_path / "note"
    note.touch()
    for number in range(9):
        spared = {"uploadNote": [str(note), "nothing", 7][number % 3]}
        ledger.put(task(str(number), variables=spared if number < 6 else {}))
        ledger.stop(uid=str(number))
    clock.pass_(1)
    assert ledger.sweep(0) == 7
    note.unlink()
    assert ledger.sweep(0) == 2


def test_clock_that_is_set_forward_clears_nothing(ledger, clock):
    for uid in ("done", "cancelled"):
        ledger.put(task(uid))
    claim = ledger.claim(NOTHING, LEASE)
    ledger.finish(claim.uid, claim.attempt, State.SUCCEEDED)
    ledger.stop(uid="cancelled")
    clock.now += 1.7e9
    assert ledger.sweep(100) == 0
    clock.pass_(99)
    assert ledger.sweep(100) == 0
    clock.pass_(2)
    assert ledger.sweep(100) == 2


@pytest.mark.parametrize("boot", ["boot-2", ""])
def test_after_a_restart_the_time_of_day_decides(target, clock, boot):
    ledger = Ledger(target, clock=clock)
    for number in range(2):
        ledger.put(task(str(number)))
        ledger.stop(uid=str(number))
        clock.pass_(100)
    ledger.close()
    later = Ledger(target, clock=FakeClock(boot, wall=clock.now, monotonic=1))
    assert later.sweep(150) == 1
    assert later.sweep(50) == 1
    later.close()


# --- aliases ---


def test_aliases_are_kept(ledger):
    assert ledger.alias("a") is None
    ledger.put_alias("a", {"url": "x"})
    ledger.put_alias("a", {"url": "y"})
    ledger.put_alias("b", {})
    assert ledger.alias("a") == {"url": "y"}
    assert ledger.alias("b") == {}
    for name in ("", "x" * 201, "a\0"):
        with pytest.raises(InvalidTaskError):
            ledger.put_alias(name, {})


# --- versions ---


def test_row_from_the_future_is_left_alone(ledger, clock):
    ledger.put(task("a", tag="t"))
    ledger.put(task("b"))
    change(ledger, "a", version=ROW_VERSION + 1, handlers="<xml>", state="DREAMING")
    assert ledger.claim(NOTHING, LEASE).uid == "b"
    assert ledger.claim(NOTHING, LEASE) is None
    assert ledger.stop(tag="t") == 0
    clock.pass_(1e6)
    ledger.sweep(0)
    shown = ledger.get("a")
    assert (shown.uid, shown.tag, shown.state) == ("a", "t", State.BLOCKED)
    assert f"version {ROW_VERSION + 1}" in shown.error
    assert "Upgrade" in shown.error


@pytest.mark.parametrize(
    "broken",
    [
        {"handlers": "{"}, {"handlers": "[1]"}, {"handlers": "{}"}, {"handlers": "[" * 100_000}, {"variables": "[]"},
        {"conditions": "MOONLIGHT"}, {"post_execute": ""},
    ],
)  # fmt: skip
def test_broken_row_is_taken_with_its_error(ledger, broken):
    ledger.put(task("a"))
    change(ledger, "a", **broken)
    claim = ledger.claim(NOTHING, LEASE)
    assert claim.task is None
    assert next(iter(broken)) in claim.error or "MOONLIGHT" in claim.error
    assert "can't" in ledger.get("a").error or ledger.get("a").error
    assert ledger.finish("a", claim.attempt, State.FAILED, error=claim.error)


def test_ledger_from_the_future_is_left_alone(target, ledger):
    with ledger.engines.write() as connection:
        connection.execute(text("update upload_helper_schema set version = 99"))
    with pytest.raises(LedgerVersionError, match="99") as caught:
        Ledger(target)
    assert "Upgrade" in caught.value.remedy


def test_older_ledger_is_brought_up_to_date(target, ledger, monkeypatch):
    ledger.put(task("a"))
    steps = (
        lambda connection: connection.execute(text("alter table upload_helper_tasks add column note text")),
        lambda connection: connection.execute(text("update upload_helper_tasks set note = 'moved'")),
    )
    newest = len(ledger_tables.MIGRATIONS) + 1
    monkeypatch.setattr(ledger_tables, "MIGRATIONS", (*ledger_tables.MIGRATIONS, *steps))
    again = Ledger(target)
    again.close()
    again = Ledger(target)
    with again.engines.read() as connection:
        assert connection.execute(text("select note from upload_helper_tasks")).scalar() == "moved"
        assert connection.execute(text("select version from upload_helper_schema")).scalar() == newest + 2
    assert again.get("a") == task("a")
    again.close()


def test_migration_that_fails_changes_nothing(target, ledger, monkeypatch):
    def fail(connection):
        connection.execute(text("update upload_helper_tasks set tag = 'half'"))
        connection.execute(text("select * from nowhere"))

    ledger.put(task("a"))
    monkeypatch.setattr(ledger_tables, "MIGRATIONS", (*ledger_tables.MIGRATIONS, fail))
    with pytest.raises(LedgerError):
        Ledger(target)
    assert ledger.get("a").tag == ""


def test_ledger_opened_by_many_at_once_is_made_once(target):
    errors = []

    def open_() -> None:
        try:
            Ledger(target).close()
        except LedgerError as error:
            errors.append(error)

    threads = [threading.Thread(target=open_) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    ledger = Ledger(target)
    with ledger.engines.write() as connection:
        migrate(connection)
        assert connection.execute(text("select count(*) from upload_helper_schema")).scalar() == 1
    ledger.close()


# --- databases that are not as they should be ---


def test_what_is_no_ledger_is_said(tmp_path):
    (tmp_path / "text.db").write_text("no database " * 1000)
    (tmp_path / "folder.db").mkdir()
    for path in (tmp_path / "text.db", tmp_path / "folder.db", tmp_path / "nowhere" / "x.db", "", ":memory:", "a\0b"):
        with pytest.raises(LedgerError) as caught:
            Ledger(path)
        assert caught.value.remedy
    assert (tmp_path / "text.db").read_text().startswith("no database")


@pytest.mark.parametrize(
    "url", ["mysql://u:geheim@h/d", "postgresql://u:geheim@127.0.0.1:1/d?password=geheim", "postgresql://u:geheim@["]
)
def test_error_shows_no_password(url):
    with pytest.raises(LedgerError) as caught:
        Ledger(url)
    assert "geheim" not in f"{caught.value!s}{caught.value.remedy}{caught.value!r}"


def test_locked_database_is_busy_and_nothing_is_lost(tmp_path):
    path = tmp_path / "work.db"
    ledger = Ledger(path, busy=0.05)
    ledger.put(task("a"))
    other = sqlite3.connect(path)
    other.execute("begin immediate")
    with pytest.raises(LedgerBusyError, match="locked"):
        ledger.put(task("b"))
    assert ledger.get("a").uid == "a"
    other.rollback()
    other.close()
    ledger.put(task("b"))
    ledger.close()


def test_corrupt_database_is_said(tmp_path):
    path = tmp_path / "work.db"
    ledger = Ledger(path)
    for number in range(50):
        ledger.put(task(str(number), title="x" * 1000))
    ledger.close()
    data = path.read_bytes()
    path.write_bytes(data[:8192] + b"\xff" * (len(data) - 8192))
    with pytest.raises(LedgerError) as caught:
        Ledger(path).find(None, None, 100)
    assert "recover" in caught.value.remedy


def test_full_disk_is_said_and_work_goes_on_when_there_is_room(tmp_path):
    ledger = Ledger(tmp_path / "work.db", clock=FakeClock())
    ledger.put(task("a"))
    with ledger.engines.read() as connection:
        pages = connection.exec_driver_sql("pragma page_count").scalar()
    limit = lambda connection, _record, _proxy: connection.execute(f"pragma max_page_count = {pages}")  # noqa: E731
    engine = ledger.engines._engine
    sqlalchemy.event.listen(engine, "checkout", limit)
    with pytest.raises(LedgerError, match="full") as caught:
        ledger.put(task("b", title="x" * 100_000))
    assert "room" in caught.value.remedy
    sqlalchemy.event.remove(engine, "checkout", limit)
    ledger.close()
    ledger.put(task("b", title="x" * 100_000))
    assert ledger.claim(NOTHING, LEASE).uid == "a"
    ledger.close()


def test_read_only_database_is_said(tmp_path):
    ledger = Ledger(tmp_path / "work.db")
    ledger.put(task("a"))
    engine = ledger.engines._engine
    only = lambda connection, _record, _proxy: connection.execute("pragma query_only = on")  # noqa: E731
    sqlalchemy.event.listen(engine, "checkout", only)
    with pytest.raises(LedgerError, match="readonly") as caught:
        ledger.put(task("b"))
    assert "write" in caught.value.remedy
    ledger.close()


def test_error_of_the_database_shows_no_values(ledger):
    with ledger.engines.write() as connection:
        connection.execute(text("drop table upload_helper_aliases"))
    with pytest.raises(LedgerError) as caught:
        ledger.put_alias("a", {"Authorization": "geheim"})
    assert "geheim" not in str(caught.value)
    assert "geheim" not in str(caught.value.__cause__)


def test_missing_driver_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(LedgerError, match="psycopg") as caught:
        Ledger("postgresql://u:geheim@h/d")
    assert "[postgres]" in caught.value.remedy


# --- forks ---


def test_child_has_connections_of_its_own(ledger):
    ledger.put(task("a"))
    stop = threading.Event()

    def use() -> None:
        while not stop.is_set():
            ledger.get("a")

    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    children, since = [], time.monotonic()
    for number in range(10):
        pid = os.fork()
        if not pid:
            try:
                ledger.put(task(f"child-{number}"))
                code = 0 if ledger.get("a").uid == "a" else 1
            except Exception:  # noqa: BLE001
                code = 2
            os._exit(code)
        children.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    # A fork waits for transactions, but no longer than these take, however many follow each other.
    assert time.monotonic() - since < 10 * BUSY_SECONDS / 2
    stop.set()
    for thread in threads:
        thread.join()
    assert codes == [0] * 10
    assert len(ledger.find(None, None, 100)) == 11


def test_two_threads_may_fork_at_once(ledger):
    barrier, codes = threading.Barrier(2), []

    def fork() -> None:
        for number in range(10):
            barrier.wait(20)
            pid = os.fork()
            if not pid:
                os._exit(number)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            ledger.put(task(f"{threading.get_ident()}-{number}"))

    threads = [threading.Thread(target=fork, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(codes) == sorted([*range(10), *range(10)])
    assert len(ledger.find(None, None, 100)) == 20


def test_task_is_frozen_and_shows_no_handlers():
    shown = repr(replace(task("a"), handlers=({"auth": "geheim"},), variables={"x": "geheim"}))
    assert "geheim" not in shown
    with pytest.raises(AttributeError):
        task("a").state = State.FAILED


def test_json_of_handlers_is_what_was_given(ledger):
    ledger.put(task("a", handlers=({"method": "ж"},)))
    with ledger.engines.read() as connection:
        kept = connection.execute(text("select handlers from upload_helper_tasks")).scalar()
    assert json.loads(kept) == [{"method": "ж"}]
