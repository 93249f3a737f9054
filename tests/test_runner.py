"""The runner: conditions, retries, periods, cancelling, and whatever goes wrong around it; on both databases."""

from __future__ import annotations

import json
import logging
import os
import socket
import sqlite3
import subprocess
import threading
import time
from contextlib import ExitStack, closing

import pytest
from sqlalchemy import text, update

from faults import SmallDisk
from servers import wait_until
from upload_helper.errors import (
    InvalidTaskError,
    LedgerBusyError,
    LedgerError,
    LedgerVersionError,
    UnknownTaskError,
)
from upload_helper.work import Backoff, Condition, Context, Reason, State, Stopped, Work
from upload_helper.work.tables import ROW_VERSION, tasks

# Threads don't come along, which is what is looked at here.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

POLL = 0.05


class Switches:
    """Conditions that tests switch."""

    def __init__(self) -> None:
        self.off: set[Condition] = set()

    def lost(self, conditions, *, wait=True):
        return frozenset(conditions & self.off)


@pytest.fixture
def switches() -> Switches:
    return Switches()


@pytest.fixture
def make(target, switches):
    """Return a function that opens the same ledger again."""
    opened = []

    def make_(**options) -> Work:
        opened.append(Work(target, conditions=switches, **options))
        register(opened[-1])
        return opened[-1]

    yield make_
    for one in opened:
        one.close()


@pytest.fixture
def work(make) -> Work:
    return make(backoff=Backoff(jitter=0))


def register(work: Work) -> None:
    work.events = {name: threading.Event() for name in ("begun", "go", "stopped")}

    @work.handler_type("count")
    def count(step):
        return f"attempt {step.context.task.attempt}"

    @work.handler_type("fail")
    def fail(step):
        raise OSError(step.method)

    @work.handler_type("exit")
    def exit_(step):
        raise SystemExit(step.method)

    @work.handler_type("hold")
    def hold(step):
        work.events["begun"].set()
        try:
            while not work.events["go"].is_set():
                step.sleep(0.01)
        except Stopped as stopped:
            work.events["stopped"].reason = stopped.reason
            work.events["stopped"].set()
            raise


def handler(type_: str, method: str = "") -> list[dict]:
    return [{"action": "run", "type": type_, "method": method}]


def begun(work: Work) -> None:
    assert work.events["begun"].wait(5)
    work.events["begun"].clear()


def stopped(work: Work) -> Reason:
    assert work.events["stopped"].wait(5)
    work.events["stopped"].clear()
    return work.events["stopped"].reason


def change(work: Work, uid: str, **values) -> None:
    with work.ledger.engines.write() as connection:
        connection.execute(update(tasks).where(tasks.c.uid == uid).values(values))


# --- inline ---


def test_inline_runner_runs_what_is_there_and_returns(work):
    uids = [work.start_work(handler("count")) for _ in range(3)]
    assert work.runner().run_until_idle() == 3
    assert [work.get(uid).state for uid in uids] == [State.SUCCEEDED] * 3
    assert work.get(uids[0]).result == "attempt 1"
    assert work.get(uids[0]).progress == 1
    assert work.runner().run_until_idle() == 0


def test_failed_task_ends_as_failed_with_its_error(work):
    uid = work.start_work(handler("fail", "no bread"))
    work.runner().run_until_idle()
    found = work.get(uid)
    assert (found.state, found.failures, found.attempt) == (State.FAILED, 1, 1)
    assert "no bread" in found.error


@pytest.mark.parametrize(
    ("handlers", "error"),
    [
        (handler("dance"), "dance"),
        (handler("python", "os.system"), "os.system"),
        (handler("http", "GET #nowhere/x"), "nowhere"),
        (handler("sql", "select"), "database"),
        (handler("exit", "bye"), "bye"),
    ],
    ids=lambda value: value[0]["type"] if isinstance(value, list) else "",
)
def test_bad_task_harms_no_other(work, handlers, error):
    bad, good = work.start_work(handlers), work.start_work(handler("count"))
    assert work.runner().run_until_idle() == 2
    assert work.get(bad).state is State.FAILED
    assert error in work.get(bad).error
    assert work.get(good).state is State.SUCCEEDED


@pytest.mark.parametrize(
    ("handlers", "what"),
    [
        (handler("dance"), "the type 'dance'"),
        (handler("python", " count "), "the function ' count '"),
        ([{**handler("set", "a=1")[0], "postExecute": json.dumps(handler("dance"))}], "the type 'dance'"),
    ],
)
def test_worker_in_which_the_host_registered_nothing_leaves_a_task_to_others(target, handlers, what, caplog):
    with closing(Work(target)) as bare:
        uids = [bare.start_work(handlers), bare.start_work(handler("set", "a=1"), post_execute=handlers)]
        fine = bare.start_work(handler("set", "a=1"))
        assert bare.runner().run_until_idle() == 3
        for found in map(bare.get, uids):
            assert (found.state, found.failures) == (State.ENQUEUED, 0)
            assert f"waits for a worker that knows {what}" in found.error
            assert f"task {found.uid}: It waits" in caplog.text
        assert bare.get(fine).state is State.SUCCEEDED


def test_task_is_left_to_others_for_longer_and_longer_until_somebody_knows_it(target, clock):
    with closing(Work(target, clock=clock)) as bare:
        uid = bare.start_work(handler("python", "count"))
        delays = []
        for _ in range(10):
            clock.now = bare.get(uid).next_run
            assert bare.runner().run_until_idle() == 1
            delays.append(bare.get(uid).next_run - clock.now)
        assert 1 < delays[0] < delays[1] < delays[2] < 10
        assert 250 < delays[-1] <= 300
        bare.function("count")(lambda: "one")
        clock.now = bare.get(uid).next_run
        bare.runner().run_until_idle()
        found = bare.get(uid)
        assert (found.state, found.result, found.error, found.losses) == (State.SUCCEEDED, "one", "", 0)


def test_task_that_a_worker_does_not_know_can_be_stopped(target, clock):
    with closing(Work(target, clock=clock)) as bare:
        uid = bare.start_work(handler("python", "count"))
        bare.runner().run_until_idle()
        assert bare.stop(uid)
        assert bare.get(uid).state is State.CANCELLED


def test_ctrl_c_while_a_task_runs_inline_puts_it_back(work):
    @work.handler_type("interrupt")
    def interrupt(step):
        raise KeyboardInterrupt

    uid = work.start_work(handler("interrupt"))
    with pytest.raises(KeyboardInterrupt):
        work.runner().run_until_idle()
    assert (work.get(uid).state, work.get(uid).failures) == (State.ENQUEUED, 0)


@pytest.mark.parametrize(
    "broken", [{"handlers": "{"}, {"conditions": "MOONLIGHT"}, {"kind": "dance"}, {"variables": "1"}]
)
def test_broken_row_fails_with_an_error_and_the_others_go_on(work, broken):
    bad, good = work.start_work(handler("count")), work.start_work(handler("count"))
    change(work, bad, **broken)
    assert work.runner().run_until_idle() == 2
    with work.ledger.engines.read() as connection:
        row = connection.execute(text("select state, error from upload_helper_tasks where uid = :u"), {"u": bad}).one()
    assert row.state == "FAILED"
    assert (broken.get("kind") or broken.get("conditions") or next(iter(broken))) in row.error
    assert work.get(good).state is State.SUCCEEDED


def test_row_from_the_future_is_left_to_those_who_know_it(work):
    future, good = work.start_work(handler("count")), work.start_work(handler("count"))
    change(work, future, version=ROW_VERSION + 1)
    assert work.runner().run_until_idle() == 1
    assert work.get(good).state is State.SUCCEEDED
    assert "version" in work.get(future).error
    with work.ledger.engines.read() as connection:
        assert (
            connection.execute(text("select count(*) from upload_helper_tasks where state = 'ENQUEUED'")).scalar() == 1
        )


# --- retry and periods ---


def test_retry_waits_longer_and_longer_until_it_succeeds(make, clock):
    work = make(clock=clock, backoff=Backoff(jitter=0))
    left = [3]

    @work.handler_type("flaky")
    def flaky(step):
        left[0] -= 1
        if left[0] >= 0:
            raise OSError("not yet")

    uid = work.start_work(handler("flaky"), retry=True)
    pauses = []
    for _ in range(3):
        assert work.runner().run_until_idle() == 1
        found = work.get(uid)
        assert (found.state, "not yet" in found.error) == (State.ENQUEUED, True)
        pauses.append(found.next_run - clock.now)
        assert work.runner().run_until_idle() == 0
        clock.pass_(pauses[-1])
    assert pauses == [30, 60, 120]
    assert work.runner().run_until_idle() == 1
    done = work.get(uid)
    assert (done.state, done.attempt, done.failures, done.error) == (State.SUCCEEDED, 4, 0, "")


def test_retry_obeys_the_server(make, clock):
    from upload_helper.errors import HandlerError

    work = make(clock=clock, backoff=Backoff(jitter=0))

    @work.handler_type("busy")
    def busy(step):
        raise HandlerError("busy", retry_after=1000)

    uid = work.start_work(handler("busy"), retry=True)
    work.runner().run_until_idle()
    assert work.get(uid).next_run - clock.now == 1000


def test_periodic_work_runs_again_and_again_whether_it_fails_or_not(make, clock):
    work = make(clock=clock)
    results = iter([None, OSError("no"), None])

    @work.handler_type("sometimes")
    def sometimes(step):
        if error := next(results):
            raise error
        return "fine"

    uid = work.start_periodic_work(handler("sometimes"), 15, tag="t")
    seen = []
    for _ in range(3):
        assert work.runner().run_until_idle() == 1
        found = work.get(uid)
        seen.append((found.state.value, found.failures, found.result, bool(found.error), found.next_run - clock.now))
        assert work.runner().run_until_idle() == 0
        clock.pass_(15 * 60)
    assert seen == [
        ("ENQUEUED", 0, "fine", False, 900),
        ("ENQUEUED", 1, "", True, 900),
        ("ENQUEUED", 0, "fine", False, 900),
    ]
    assert work.stop_work("t") == 1
    assert work.runner().run_until_idle() == 0
    assert work.get(uid).state is State.CANCELLED


def test_clock_that_was_turned_back_holds_up_no_retry(make, clock):
    work = make(clock=clock, backoff=Backoff(jitter=0))
    uid = work.start_work(handler("fail"), retry=True)
    work.runner().run_until_idle()
    clock.now -= 10 * 365 * 86400
    assert work.runner().run_until_idle() == 1
    assert work.get(uid).failures == 2


def test_what_follows_runs_at_the_end_and_not_before_a_retry(make, clock):
    work = make(clock=clock)
    ran = []

    @work.handler_type("after")
    def after(step):
        ran.append(tuple(step.variables[name] for name in ("ResultError", "TaskState", "TaskError")))
        raise OSError("what follows fails")

    retried = work.start_work(handler("fail"), retry=True, post_execute=handler("after"))
    work.runner().run_until_idle()
    assert ran == []
    work.stop(retried)
    failed = work.start_work(handler("fail", "broken"), post_execute=handler("after"))
    fine = work.start_work(handler("count"), post_execute=handler("after"))
    work.runner().run_until_idle()
    (first, state, error), second = ran
    assert "broken" in first
    assert (state, error) == ("FAILED", work.get(failed).error)
    assert second == ("", "SUCCEEDED", "")
    assert (work.get(failed).state, work.get(fine).state) == (State.FAILED, State.SUCCEEDED)


# --- what is told of a task that failed ---


def test_last_step_of_a_task_that_failed_stays_visible(work):
    @work.handler_type("survey")
    def survey(step):
        step.report(0.5, "reading the header")
        if step.method == "fail":
            raise OSError

    for method, state, step in (("fail", State.FAILED, "reading the header"), ("", State.SUCCEEDED, "")):
        uid = work.start_work([{"action": "runprogress", "type": "survey", "method": method}])
        work.runner().run_until_idle()
        assert (work.get(uid).state, work.progress(uid)["stepName"]) == (state, step)


def test_log_says_that_a_task_failed_or_when_it_runs_again(work, caplog):
    started = {"the task has failed": work.start_work(handler("fail"))}
    started["it runs again in 30 s"] = work.start_work(handler("fail"), retry=True)
    started["it runs again in 900 s"] = work.start_periodic_work(handler("fail"), 15)
    work.runner().run_until_idle()
    for then, uid in started.items():
        assert f"task {uid}: attempt 1 failed; {then}" in caplog.text
    assert caplog.text.count("failed; ") == 3


# --- once more ---


@pytest.mark.parametrize("conditions", ["", "IDLE;CHARGING"])
def test_failed_task_runs_again_from_its_beginning(work, conditions):
    uid = work.start_work([*handler("set", "a=1"), *handler("python", "later")], conditions=conditions)
    work.runner().run_until_idle()
    assert work.get(uid).state is State.FAILED
    work.retry(uid)
    waits = work.get(uid)
    assert (waits.state, waits.failures, waits.error, waits.ended) == (State.ENQUEUED, 0, "", None)
    assert (waits.progress, waits.step_name, waits.result) == (None, "", "")
    work.function("later")(lambda: "done")
    assert work.runner().run_until_idle() == 1
    assert (work.get(uid).state, work.get(uid).result) == (State.SUCCEEDED, "done")


def test_task_that_runs_again_waits_for_its_conditions(work, switches):
    uid = work.start_work(handler("fail"), conditions="IDLE")
    work.runner().run_until_idle()
    switches.off = {Condition.IDLE}
    work.retry(uid)
    assert work.runner().run_until_idle() == 0
    assert work.get(uid).state is State.BLOCKED


def test_task_that_was_stopped_runs_again_at_once(work):
    uid = work.start_work(handler("hold"))
    with work.runner():
        begun(work)
        work.stop(uid)
        assert work.wait(uid, 10).state is State.CANCELLED
        work.events["go"].set()
        work.retry(uid)
        assert work.wait(uid, 10).state is State.SUCCEEDED


def test_what_has_not_failed_is_not_run_again(work):
    fine = work.start_work(handler("count"))
    with pytest.raises(InvalidTaskError, match="is ENQUEUED"):
        work.retry(fine)
    work.runner().run_until_idle()
    with pytest.raises(InvalidTaskError, match="is SUCCEEDED"):
        work.retry(fine)
    assert work.get(fine).attempt == 1
    for uid in ("0" * 32, "ä"):
        with pytest.raises(UnknownTaskError):
            work.retry(uid)
    uid = work.start_work(handler("fail"))
    work.runner().run_until_idle()
    change(work, uid, version=ROW_VERSION + 1)
    with pytest.raises(LedgerVersionError):
        work.retry(uid)


# --- conditions ---


def test_task_waits_for_its_conditions(work, switches):
    switches.off = {Condition.CHARGING}
    uid = work.start_work(handler("count"), conditions="CONNECTED;CHARGING")
    other = work.start_work(handler("count"), conditions="CONNECTED")
    with work.runner(poll=POLL):
        assert work.wait(other, 5).state is State.SUCCEEDED
        wait_until(lambda: work.get(uid).state is State.BLOCKED)
        switches.off = set()
        assert work.wait(uid, 5).state is State.SUCCEEDED


def test_condition_lost_in_mid_run_stops_the_task_and_puts_it_back(work, switches):
    uid = work.start_work(handler("hold"), conditions="CHARGING;IDLE")
    with work.runner(poll=POLL):
        begun(work)
        switches.off = {Condition.IDLE}
        assert stopped(work) is Reason.CONDITION
        wait_until(lambda: work.get(uid).state is State.BLOCKED)
        assert work.get(uid).failures == 0
        switches.off = {Condition.CONNECTED}
        wait_until(lambda: work.get(uid).state is State.RUNNING)
        assert work.get(uid).attempt >= 2
        work.events["go"].set()
        assert work.wait(uid, 5).state is State.SUCCEEDED


def test_task_shows_that_it_waits_no_longer_for_its_conditions(work, switches):
    switches.off = {Condition.IDLE}
    holding, uid = work.start_work(handler("hold")), work.start_work(handler("count"), conditions="IDLE")
    with work.runner(poll=POLL, threads=1):
        begun(work)
        wait_until(lambda: work.get(uid).state is State.BLOCKED)
        switches.off = set()
        wait_until(lambda: work.get(uid).state is State.ENQUEUED)
        work.events["go"].set()
        assert work.wait(uid, 5).state is State.SUCCEEDED
    assert work.get(holding).state is State.SUCCEEDED


def test_nobody_is_asked_about_conditions_that_no_task_waits_for(work, switches):
    asked = []
    switches.lost = lambda conditions, **_: asked.append(conditions) or frozenset()
    plain, conditional = work.start_work(handler("count")), work.start_work(handler("count"), conditions="IDLE")
    work.runner().run_until_idle()
    assert work.get(plain).state is work.get(conditional).state is State.SUCCEEDED
    assert set().union(*asked) == {Condition.IDLE}


def test_task_that_comes_while_conditions_are_looked_at_waits_for_its_own(work, switches, monkeypatch):
    switches.off = {Condition.IDLE}
    wants, late = work.ledger.wants, []

    def look():
        wanted = wants()
        if not late:
            late.append(work.start_work(handler("count"), conditions="IDLE"))
        return wanted

    monkeypatch.setattr(work.ledger, "wants", look)
    runner = work.runner()
    for state in (State.ENQUEUED, State.BLOCKED):
        assert runner.run_until_idle() == 0
        assert (work.get(late[0]).state, work.get(late[0]).attempt) == (state, 0)


def test_provider_that_raises_does_not_stop_the_runner(work, switches, caplog):
    conditional = work.start_work(handler("count"), conditions="IDLE")
    lost, switches.lost = switches.lost, lambda conditions, **_: 1 / 0
    with work.runner(poll=POLL):
        wait_until(lambda: "ZeroDivisionError" in caplog.text)
        switches.lost = lost
        assert work.wait(conditional, 5).state is State.SUCCEEDED


# --- cancelling ---


def test_running_task_is_stopped_at_once(make, work):
    uid = work.start_work(handler("hold"), tag="t")
    with work.runner(poll=30, lease=300):
        begun(work)
        assert work.stop_work("t") == 1
        assert stopped(work) is Reason.CANCELLED
        assert work.wait(uid, 5).state is State.CANCELLED


def test_running_task_is_stopped_by_another_process(make, work):
    uid = work.start_work(handler("hold"))
    with work.runner(poll=POLL):
        begun(work)
        assert make().stop(uid)
        assert work.wait(uid, 5).state is State.CANCELLED
    assert not work.stop(uid)


def test_task_that_succeeds_though_it_was_cancelled_has_succeeded(work):
    @work.handler_type("deaf")
    def deaf(step):
        work.stop(step.context.task.uid)

    uid = work.start_work(handler("deaf"))
    work.runner().run_until_idle()
    assert work.get(uid).state is State.SUCCEEDED


def test_handler_that_catches_everything_is_stopped_nevertheless(work):
    @work.handler_type("stubborn")
    def stubborn(step):
        work.events["begun"].set()
        while True:
            try:
                step.sleep(0.01)
            except Exception:  # noqa: BLE001
                continue

    uid = work.start_work(handler("stubborn"))
    with work.runner(poll=POLL):
        begun(work)
        work.stop(uid)
        assert work.wait(uid, 5).state is State.CANCELLED


# --- progress ---


def test_progress_reaches_the_ledger_once_a_second_at_most(work, monkeypatch):
    writes = []
    renew = work.ledger.renew
    monkeypatch.setattr(work.ledger, "renew", lambda *args: (writes.append(time.monotonic()), renew(*args))[1])

    @work.handler_type("busy")
    def busy(step):
        for number in range(1, 100_000):
            step.context.report(number / 100_000, f"line {number}")
            if work.events["go"].is_set():
                return
            step.sleep(0.0001)

    uid = work.start_work(handler("busy"))
    before = time.monotonic()
    with work.runner(poll=POLL):
        told = wait_until(lambda: p if (p := work.progress(uid))["progress"] else None)
        work.events["go"].set()
        work.wait(uid, 5)
    assert time.monotonic() - before > 0.9
    assert len(writes) <= (time.monotonic() - before)
    assert told["jobUid"] == uid
    assert told["state"] == "RUNNING"
    assert told["stepName"].startswith("line ")
    assert work.progress(uid) == {"jobUid": uid, "state": "SUCCEEDED", "progress": 1.0, "stepName": ""}


@pytest.mark.parametrize(("given", "kept"), [(0.5, 0.5), (-1, 0), (7, 1), (float("nan"), None), (None, None)])
def test_progress_is_a_share(work, clock, given, kept):
    context = Context(work.get(work.start_work(handler("count"))), work, clock, clock.up + 1)
    context.report(given, "x")
    assert (context.progress, context.step_name) == (kept, "x")


def test_context_says_when_the_lease_is_over(work, clock):
    context = Context(work.get(work.start_work(handler("count"))), work, clock, clock.up + 10)
    context.check()
    clock.pass_(11)
    with pytest.raises(Stopped) as caught:
        context.check()
    assert caught.value.reason is Reason.LEASE


# --- threads ---


def test_task_of_this_process_begins_at_once_and_of_another_within_poll(make, work):
    with work.runner(poll=30):
        work.wait(work.start_work(handler("count")), 5)  # it is up
        before = time.monotonic()
        assert work.wait(work.start_work(handler("count")), 5).state is State.SUCCEEDED
        assert time.monotonic() - before < 1
    with work.runner(poll=0.2):
        work.wait(work.start_work(handler("count")), 5)
        uid = make().start_work(handler("count"))
        assert work.wait(uid, 2).state is State.SUCCEEDED


def test_no_more_tasks_run_at_a_time_than_there_are_threads(work):
    lock, most, three = threading.Lock(), [0, 0], threading.Barrier(3)

    @work.handler_type("gauge")
    def gauge(step):
        with lock:
            most[0] += 1
            most[1] = max(most)
        three.wait(5)
        with lock:
            most[0] -= 1

    uids = [work.start_work(handler("gauge")) for _ in range(12)]
    with work.runner(threads=3, poll=POLL):
        assert {work.wait(uid, 10).state for uid in uids} == {State.SUCCEEDED}
    assert most[1] == 3


def test_stopping_puts_back_what_runs_also_what_does_not_listen(work):
    @work.handler_type("deaf")
    def deaf(step):
        work.events["begun"].set()
        work.events["go"].wait(10)
        return "late"

    uid = work.start_work(handler("deaf"))
    runner = work.runner(poll=POLL).start()
    begun(work)
    runner.stop(timeout=0.05)
    assert (work.get(uid).state, work.get(uid).attempt) == (State.ENQUEUED, 1)
    work.events["go"].set()
    wait_until(lambda: not any(t.name.startswith(f"upload_helper {uid}") for t in threading.enumerate()))
    assert (work.get(uid).state, work.get(uid).result) == (State.ENQUEUED, "")


def test_runner_starts_again_after_it_was_stopped(work):
    runner = work.runner(poll=POLL)
    for _ in range(2):
        with runner:
            assert work.wait(work.start_work(handler("count")), 5).state is State.SUCCEEDED
    runner.stop()


def test_runner_of_a_parent_is_started_anew_in_a_child(work):
    runner = work.runner(poll=POLL).start()
    work.wait(work.start_work(handler("count")), 5)
    pid = os.fork()
    if not pid:
        code = 1
        try:
            runner.stop()  # is nothing of the child's
            runner.start()
            uid = work.start_work(handler("count"))
            code = 0 if work.wait(uid, 5).state is State.SUCCEEDED else 3
            runner.stop()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert work.wait(work.start_work(handler("count")), 5).state is State.SUCCEEDED
    runner.stop()


def test_runner_with_threads_runs_nothing_inline(work):
    with work.runner(poll=POLL) as runner, pytest.raises(RuntimeError, match="already"):
        runner.run_until_idle()


def test_task_whose_result_cannot_be_written_at_all_is_not_kept_for_ever(work, monkeypatch, caplog):
    real = work.ledger.finish
    monkeypatch.setattr(work.ledger, "finish", lambda *args, **kwargs: 1 / 0)
    uid = work.start_work(handler("count"))
    with work.runner(poll=POLL, lease=0.3):
        wait_until(lambda: "could not be written" in caplog.text)
        monkeypatch.setattr(work.ledger, "finish", real)
        assert work.wait(uid, 5).attempt >= 2


@pytest.mark.parametrize("options", [{"threads": 0}, {"lease": 0}, {"poll": -1}])
def test_senseless_runner_is_refused(work, options):
    with pytest.raises(ValueError, match="above zero"):
        work.runner(**options)


# --- a ledger that can't be used for a while ---


def test_result_is_written_when_the_database_can_be_written_to_again(work, monkeypatch, caplog):
    real, failures = work.ledger.finish, [3]

    def finish(*args, **kwargs):
        if failures[0]:
            failures[0] -= 1
            raise LedgerBusyError("locked, for a test")
        return real(*args, **kwargs)

    monkeypatch.setattr(work.ledger, "finish", finish)
    uid = work.start_work(handler("count"))
    with work.runner(poll=POLL):
        assert work.wait(uid, 10).state is State.SUCCEEDED
    assert work.get(uid).attempt == 1
    assert caplog.text.count("locked, for a test") == 1


def test_runner_survives_a_ledger_that_is_gone_for_a_while(work, monkeypatch, caplog):
    with work.runner(poll=POLL):
        work.wait(work.start_work(handler("count")), 5)
        real = work.ledger.leases
        monkeypatch.setattr(work.ledger, "leases", lambda: (_ for _ in ()).throw(LedgerBusyError("gone, for a test")))
        uid = work.start_work(handler("count"))
        wait_until(lambda: "gone, for a test" in caplog.text)
        monkeypatch.setattr(work.ledger, "leases", real)
        assert work.wait(uid, 5).state is State.SUCCEEDED
    assert caplog.text.count("gone, for a test") == 1


def test_runner_survives_a_restart_of_the_server(database_server, caplog):
    work = Work(database_server.url())
    register(work)
    with work.runner(poll=POLL):
        work.wait(work.start_work(handler("count")), 5)
        with work.ledger.engines.read() as connection:
            # All of this server's connections but this one, as a restart ends them.
            end = "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and query <> ''"
            connection.execute(text(end))
        assert work.wait(work.start_work(handler("count")), 10).state is State.SUCCEEDED
    work.close()


def test_task_stops_when_its_lease_cannot_be_renewed(work, monkeypatch, caplog):
    asked = []

    def locked(*_args):
        asked.append(1)
        raise LedgerBusyError("locked, for a test")

    monkeypatch.setattr(work.ledger, "renew", locked)
    monkeypatch.setattr(work.ledger, "held", locked)
    work.start_work(handler("hold"))
    with work.runner(poll=POLL, lease=0.3):
        begun(work)
        assert stopped(work) is Reason.LEASE
    assert len(asked) > 1
    assert caplog.text.count("locked, for a test") == 1


def test_request_ends_when_the_lease_of_its_task_cannot_be_renewed(work, monkeypatch):
    """It waits for a server that is silent, so it does not look itself."""

    def locked(*_args):
        raise LedgerBusyError("locked, for a test")

    monkeypatch.setattr(work.ledger, "renew", locked)
    monkeypatch.setattr(work.ledger, "held", locked)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        work.start_work([{"action": "run", "type": "http", "method": f"GET {url}"}])
        with work.runner(poll=POLL, lease=0.3):
            server.settimeout(5)
            connection, _ = server.accept()
            with connection:
                connection.settimeout(3)
                while connection.recv(1 << 16):
                    pass


def test_database_that_is_locked_for_a_while_loses_nothing(tmp_path):
    work = Work(tmp_path / "work.db")
    register(work)
    uid = work.start_work(handler("hold"))
    with work.runner(poll=POLL):
        begun(work)
        other = sqlite3.connect(tmp_path / "work.db")
        other.execute("begin immediate")
        work.events["go"].set()
        time.sleep(0.2)
        assert work.get(uid).state is State.RUNNING
        other.rollback()
        other.close()
        assert work.wait(uid, 10).state is State.SUCCEEDED
    work.close()


def test_task_that_could_not_be_written_for_longer_than_its_lease_is_done_once(work, monkeypatch):
    free, looks = threading.Event(), []
    leases = work.ledger.leases

    def when_free(function):
        def call(*args, **kwargs):
            if not free.is_set():
                raise LedgerBusyError("locked, for a test")
            return function(*args, **kwargs)

        return call

    def look():
        looks.append(found := leases())
        return found

    for name in ("finish", "renew", "held"):
        monkeypatch.setattr(work.ledger, name, when_free(getattr(work.ledger, name)))
    monkeypatch.setattr(work.ledger, "leases", look)
    uid = work.start_work(handler("count"))
    with work.runner(poll=POLL, lease=0.2):
        wait_until(lambda: looks and looks[-1])
        wait_until(lambda: time.monotonic() > looks[-1][0].lease_end if looks[-1] else True)
        looks.clear()
        wait_until(lambda: len(looks) > 2)
        free.set()
        task = work.wait(uid, 10)
    assert (task.state, task.attempt) == (State.SUCCEEDED, 1)


@pytest.fixture
def disk(tmp_path):
    with ExitStack() as stack:
        try:
            small = stack.enter_context(SmallDisk(tmp_path / "disk").ready())
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("this user may not mount a file system")
        yield small


def test_disk_that_is_full_is_said_and_loses_nothing(disk, caplog):
    work = Work(disk.path / "work.db")
    go = threading.Event()
    work.function("big")(lambda: go.wait(10) and "x" * 60_000)
    big = [{"action": "run", "type": "python", "method": "big"}]
    uids = [work.start_work(big) for _ in range(3)]
    with work.runner(threads=2, poll=POLL):
        wait_until(lambda: len(work.list(state="RUNNING")) == 2)
        disk.fill()
        go.set()
        wait_until(lambda: caplog.text.count("its result can't be written yet") == 2)
        with pytest.raises(LedgerError, match="full") as raised:
            work.start_work(big, variables={"x": "x" * 100_000})
        assert raised.value.remedy in caplog.text
        assert {task.state for task in work.list()} == {State.RUNNING, State.ENQUEUED}
        disk.free()
        tasks = [work.wait(uid, 10) for uid in uids]
    assert {(t.state, t.attempt, len(t.result), t.error) for t in tasks} == {(State.SUCCEEDED, 1, 60_000, "")}
    work.close()


# --- quiet ---


def test_idle_runner_costs_next_to_nothing(work):
    with work.runner():
        work.wait(work.start_work(handler("count")), 5)
        before, since = time.process_time(), time.monotonic()
        time.sleep(2.2)  # two looks at the ledger
        share = (time.process_time() - before) / (time.monotonic() - since)
    assert share < 0.005


def test_log_is_quiet_when_nothing_is_wrong(work, caplog):
    caplog.set_level(logging.INFO)
    with work.runner(poll=POLL):
        work.wait(work.start_work(handler("count")), 5)
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []
