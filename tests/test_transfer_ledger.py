"""What the ledger keeps of transfers: places, priorities, what they need to go on; and ledgers that knew none of it."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
from sqlalchemy import text, update

from ledgers import FakeClock
from upload_helper.errors import InvalidTaskError
from upload_helper.work import Condition, Context, Ledger, Reason, State, Stopped, Task, Work
from upload_helper.work.lanes import Places, check_transfers, heads, lane_of
from upload_helper.work.ledger import PutBack
from upload_helper.work.tables import ROW_VERSION, tasks

NOTHING = frozenset()
LEASE = 30
OLD = Path(__file__).parent / "old" / "ledger-1.sql"
NEW_COLUMNS = ("lane", "saved", "done", "total", "speed")


@pytest.fixture
def ledger(target, clock):
    opened = Ledger(target, clock=clock)
    yield opened
    opened.close()


def task(uid: str, priority: int | None = None, **values) -> Task:
    lane = 0 if priority is None else lane_of(priority)
    defaults = {"handlers": ({},), "created": 1_800_000_000.0, "next_run": 1_800_000_000.0, "lane": lane}
    return Task(uid=uid, **{**defaults, **values})


def claimed(ledger: Ledger, transfers: int = 1, lost: frozenset[Condition] = NOTHING) -> list[str]:
    """Return the uids of all tasks that can be had now, in their order."""
    uids = []
    while (claim := ledger.claim(lost, LEASE, transfers)) is not None:
        uids.append(claim.uid)
    return uids


# --- how many at a time, and which first ---


@pytest.mark.parametrize(("transfers", "expected"), [(1, ["a", "x", "y"]), (2, ["a", "b", "x", "y"])])
def test_so_many_transfers_run_and_others_beside_them(ledger, transfers, expected):
    for uid in "abc":
        ledger.put(task(uid, 0))
    for uid in "xy":
        ledger.put(task(uid, next_run=1_800_000_000.0))
    assert claimed(ledger, transfers) == expected
    ledger.finish("a", 1, State.SUCCEEDED)
    assert claimed(ledger, transfers) == (["b"] if transfers == 1 else ["c"])


def test_transfer_with_the_highest_priority_goes_first_and_waits_for_its_time_as_others_do(ledger, clock):
    ledger.put(task("low", -10))
    ledger.put(task("normal", 0))
    ledger.put(task("plain"))
    ledger.put(task("high", 10))
    ledger.put(task("later", 10, next_run=clock.now + 5))
    assert claimed(ledger, 9) == ["high", "normal", "plain", "low"]
    clock.pass_(5)
    assert claimed(ledger, 9) == ["later"]


def test_transfer_whose_condition_is_lost_lets_one_with_a_lower_priority_go_first(ledger):
    ledger.put(task("high", 5, conditions=frozenset({Condition.CHARGING})))
    ledger.put(task("low", -5))
    lost = frozenset({Condition.CHARGING})
    assert ledger.wants() == lost
    ledger.block(lost)
    assert (ledger.get("high").state, ledger.get("low").state) == (State.BLOCKED, State.ENQUEUED)
    assert claimed(ledger, lost=lost) == ["low"]
    ledger.unblock(NOTHING)
    assert ledger.get("high").state is State.ENQUEUED
    ledger.put_back("low", 1, (), PutBack())
    assert claimed(ledger) == ["high"]


def test_transfer_that_waits_again_keeps_its_lane(ledger, clock):
    ledger.put(task("a", 3, conditions=frozenset({Condition.IDLE})))
    ledger.put(task("b", 2))
    assert claimed(ledger) == ["a"]
    assert ledger.put_back("a", 1, {Condition.IDLE}, PutBack())
    assert claimed(ledger) == ["a"]
    clock.pass_(LEASE + 1)
    (lease,) = ledger.leases()
    assert ledger.take_back(lease)
    assert claimed(ledger, lost=frozenset({Condition.IDLE})) == ["b"]


def test_places_are_those_of_a_machine(target, ledger):
    ledger.put(task("a", 0))
    ledger.put(task("b", 0))
    assert claimed(ledger) == ["a"]
    other = Ledger(target, clock=FakeClock("boot-2"))
    assert claimed(other) == ["b"]
    other.close()


def test_of_many_that_want_the_only_place_one_gets_it(target, ledger):
    for number in range(12):
        ledger.put(task(f"{number}", 0))
    found: list[str] = []
    ready = threading.Barrier(4)

    def take() -> None:
        mine = Ledger(target, clock=FakeClock())
        ready.wait()
        for _ in range(5):
            claim = mine.claim(NOTHING, LEASE)
            if claim is not None:
                found.append(claim.uid)
        mine.close()

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1


def test_place_that_was_taken_meanwhile_is_not_taken_again(ledger):
    ledger.put(task("a", 0))
    ledger.put(task("b", 0))
    places = Places(1, ledger.clock.boot)
    with ledger.engines.read() as connection:
        (found,) = heads(connection, 0, ledger.clock.wall(), ROW_VERSION, places)
    assert found.uid == "a"
    with ledger.engines.write() as connection:
        connection.execute(update(tasks).where(tasks.c.uid == "a").values(next_run=tasks.c.next_run + 1))
    assert claimed(ledger) == ["b"]
    assert ledger._take(found, LEASE, places) is None
    ledger.finish("b", 1, State.SUCCEEDED)
    assert ledger._take(found, LEASE, places).uid == "a"


@pytest.mark.parametrize("priority", [11, -11, 1.5, "1", None, True])
def test_what_is_no_priority_is_refused(priority):
    with pytest.raises(InvalidTaskError, match="from -10 to 10"):
        lane_of(priority)


@pytest.mark.parametrize("count", [0, 3, -1, True, "1", 1.5, None])
def test_transfers_at_a_time_are_one_or_two(count):
    with pytest.raises(InvalidTaskError, match="1 or 2 are"):
        check_transfers(count)
    assert (check_transfers(1), check_transfers(2)) == (1, 2)


# --- what a transfer needs to go on ---


def test_state_is_kept_until_the_next_attempt_and_a_late_worker_changes_nothing(ledger, clock):
    ledger.put(task("a", 0))
    late = ledger.claim(NOTHING, LEASE)
    assert late.task.saved == {}
    assert ledger.save("a", late.attempt, {"url": "https://x/1", "offset": 5}, done=5, total=10, speed=2.0)
    clock.pass_(LEASE + 1)
    assert ledger.take_back(ledger.leases()[0])
    new = ledger.claim(NOTHING, LEASE)
    assert new.task.saved == {"url": "https://x/1", "offset": 5}
    assert (new.task.done, new.task.total, new.task.speed) == (5, 10, None)
    assert not ledger.save("a", late.attempt, {"offset": 1}, done=1)
    assert ledger.renew("a", late.attempt, LEASE, 0.1, "", done=1) is None
    assert (ledger.get("a").saved["offset"], ledger.get("a").done) == (5, 5)
    assert ledger.finish("a", new.attempt, State.SUCCEEDED)
    assert not ledger.save("a", new.attempt, {"offset": 1})


def test_state_that_is_no_json_or_too_long_is_refused(ledger):
    ledger.put(task("a", 0))
    claim = ledger.claim(NOTHING, LEASE)
    for state in ({"a": object()}, {"a": "x" * (5 << 20)}):
        with pytest.raises(InvalidTaskError, match="state of a transfer"):
            ledger.save("a", claim.attempt, state)


def test_task_shows_nothing_of_what_is_saved():
    assert "secret" not in repr(task("a", saved={"url": "https://x/secret"}))


def test_context_saves_and_stops_when_the_task_was_lost(tmp_path, clock):
    work = Work(tmp_path / "work.db", clock=clock)
    work.ledger.put(task("a", 0))
    claim = work.ledger.claim(NOTHING, LEASE)
    context = Context(claim.task, work, clock, claim.lease_end)
    context.report_bytes(5, 10, 2.0)
    context.save(offset=5)
    assert (work.get("a").saved, work.get("a").done, context.progress) == ({"offset": 5}, 5, 0.5)
    work.ledger.finish("a", claim.attempt, State.FAILED)
    with pytest.raises(Stopped) as stopped:
        context.save(offset=6)
    assert stopped.value.reason is Reason.LEASE
    assert work.get("a").saved == {"offset": 5}
    work.close()


def test_what_is_blocked_is_ended_as_soon_as_the_run_must_end(clock):
    calls = []
    context = Context(task("a"), None, clock, clock.up + 10)
    context.on_stop(lambda: calls.append("before"))
    assert calls == []
    context.stop(Reason.CANCELLED)
    assert calls == ["before"]
    context.on_stop(lambda: calls.append("after"))
    assert calls == ["before", "after"]


def test_what_has_ended_by_itself_is_not_ended_again(clock):
    calls = []
    context = Context(task("a"), None, clock, clock.up + 10)
    forget = context.on_stop(lambda: calls.append("gone"))
    context.on_stop(lambda: calls.append("there"))
    forget()
    context.stop(Reason.CANCELLED)
    assert calls == ["there"]


# --- ledgers of version 1 ---


def old_ledger(target: str, clock: FakeClock) -> None:
    """Make a ledger as version 1 made it: in SQLite from what that wrote, in PostgreSQL without the new columns."""
    if "://" not in target:
        with sqlite3.connect(target) as connection:
            connection.executescript(OLD.read_text(encoding="utf-8"))
        connection.close()
        return
    ledger = Ledger(target, clock=clock)
    for uid in ("running", "waiting", "ended", "periodic"):
        period = 900 if uid == "periodic" else None
        ledger.put(Task(uid, tag=uid, period=period, created=1.75e9, next_run=1.75e9, retry=uid == "running"))
    charging = frozenset({Condition.CHARGING, Condition.IDLE})
    ledger.put(Task("charging", conditions=charging, created=1.75e9, next_run=1.75e9))
    ledger.put_alias("office", {"url": "https://gis.example.org"})
    ledger.stop(uid="ended")
    with ledger.engines.write() as connection:
        running = {"state": State.RUNNING, "waiting": None, "since": None, "boot": "another-boot", "attempt": 1}
        values = {**running, "lease_end": 1030.0, "lease": 30.0}
        connection.execute(update(tasks).where(tasks.c.uid == "running").values(values))
        for name in NEW_COLUMNS:
            connection.execute(text(f"alter table upload_helper_tasks drop column {name}"))
        connection.execute(text("update upload_helper_tasks set version = 1"))
        connection.execute(text("update upload_helper_schema set version = 1"))
    ledger.close()


def test_ledger_of_version_1_goes_on(target, clock):
    old_ledger(target, clock)
    ledger = Ledger(target, clock=clock)
    assert {t.uid: t.state for t in ledger.find(None, None, 10)} == {
        "running": State.RUNNING, "waiting": State.ENQUEUED, "charging": State.ENQUEUED, "ended": State.CANCELLED,
        "periodic": State.ENQUEUED,
    }  # fmt: skip
    assert ledger.alias("office")["url"] == "https://gis.example.org"
    ledger.put(task("upload", 0))
    idle = frozenset({Condition.IDLE})
    assert claimed(ledger, lost=idle) == ["waiting", "periodic", "upload"]
    (lease,) = [one for one in ledger.leases() if one.uid == "running"]
    assert ledger.take_back(lease)
    assert claimed(ledger, lost=idle) == ["running"]
    assert claimed(ledger) == ["charging"]
    assert ledger.get("running").attempt == 2
    clock.pass_(1)
    assert ledger.sweep(0) == 1
    ledger.close()


def test_ledger_of_version_1_gets_the_columns_that_a_new_one_has(tmp_path, clock):
    old, new = str(tmp_path / "old.db"), str(tmp_path / "new.db")
    old_ledger(old, clock)
    columns = []
    for path in (old, new):
        Ledger(path).close()
        with sqlite3.connect(path) as connection:
            columns.append([row[1:] for row in connection.execute("pragma table_info(upload_helper_tasks)")])
        connection.close()
    assert columns[0] == columns[1]


def test_worker_of_version_1_that_goes_on_leaves_transfers_alone_and_its_tasks_are_found(target, ledger):
    ledger.put(task("upload", 0))
    row = {"kind": "handlers", "title": "", "body": "", "handlers": "[]", "variables": "{}", "post_execute": "[]"}
    row |= {"uid": "old", "version": 1, "tag": "", "conditions": "", "retry": False, "state": "ENQUEUED", "waiting": 0}
    row |= {"next_run": 1.0, "since": 1.0, "attempt": 0, "failures": 0, "losses": 0, "cancel": False, "owner": ""}
    row |= {"boot": "", "step_name": "", "result": "", "error": "", "created": 1.0}
    with ledger.engines.write() as connection:
        names = ", ".join(row)
        connection.execute(text(f"insert into upload_helper_tasks ({names}) values (:{', :'.join(row)})"), row)
        seen = connection.execute(text("select uid from upload_helper_tasks where version <= 1")).scalars().all()
    assert seen == ["old"]
    assert claimed(ledger) == ["old", "upload"]
