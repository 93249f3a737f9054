"""Workers that are killed, stopped and continued with real signals: no task is lost, none ends twice."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from faults import memory_folder
from servers import wait_until
from upload_helper.work import State, Work
from upload_helper.work import claims as ledger_claims
from upload_helper.work.clock import Clock
from workers import Journal, Worker, audit, audited, counts

# Threads don't come along, which is what is looked at here.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

LEASE = 1.0
OPTIONS = {"threads": 2, "lease": LEASE, "poll": 0.1}


@pytest.fixture
def tmp_path(tmp_path):
    """Many hundred syncs: what they cost is not looked at here."""
    with memory_folder(tmp_path) as path:
        yield path


@pytest.fixture
def journal(tmp_path) -> Journal:
    return Journal(tmp_path / "journal")


@pytest.fixture
def work(target):
    opened = Work(target)
    yield opened
    opened.close()


@pytest.fixture
def worker(target, tmp_path, journal):
    """Return a function that starts a worker; all are killed at the end."""
    started: list[Worker] = []

    def start(*, boot: str | None = None, **options: float) -> Worker:
        one = Worker(
            lambda: Work(target, clock=Clock(boot)), lambda w: prepare(w, journal, tmp_path), tmp_path / "log",
            **{**OPTIONS, **options},
        )  # fmt: skip
        started.append(one.start())
        return one

    yield start
    for one in started:
        one.kill()


def prepare(work: Work, journal: Journal, folder: Path) -> None:
    @work.handler_type("steps")
    def steps(step):
        journal.say("begin", step)
        for _ in range(int(step.method)):
            step.sleep(0.01)
        journal.say("end", step)

    @work.handler_type("hold")
    def hold(step):
        """Wait for a file and don't listen to anybody meanwhile; a second attempt does not wait."""
        journal.say("begin", step)
        while step.context.task.attempt == 1 and not (folder / "go").exists():
            time.sleep(0.005)
        journal.say("end", step)
        return f"attempt {step.context.task.attempt}"

    @work.handler_type("wait")
    def wait(step):
        journal.say("begin", step)
        try:
            step.sleep(60)
        finally:
            journal.say("stopped", step)


def handler(type_: str, method: str = "") -> list[dict]:
    return [{"action": "run", "type": type_, "method": method}]


def storm(work, worker, journal, *, workers: int, kills: int, seed: int, tasks: int) -> None:
    """Kill a worker again and again while tasks run, and look at what became of them."""
    audit(work.ledger)
    choose = random.Random(seed)
    uids: list[str] = []
    alive = [worker() for _ in range(workers)]
    killed: list[tuple[dict[str, int], float]] = []

    def busy() -> list[int]:
        if counts(work.ledger).keys() <= {"SUCCEEDED"}:
            uids.extend(work.start_work(handler("steps", "5")) for _ in range(tasks))
        return [number for number, one in enumerate(alive) if journal.unfinished(one.pid)]

    for _ in range(kills):
        victim = choose.choice(wait_until(busy, what="a worker that has a task"))
        # At any instant of the task, if it takes about as long.
        time.sleep(choose.uniform(0, 0.08))
        pid = alive[victim].pid
        alive[victim].kill()
        killed.append((journal.unfinished(pid), time.monotonic()))
        alive[victim] = worker()
    for uid in uids:
        assert work.wait(uid, 30).state is State.SUCCEEDED
    check_audit(audited(work.ledger), uids)
    check_delays(journal, killed, sole=workers == 1)


def check_audit(changes: list[tuple[str, str, str, int]], uids: list[str]) -> None:
    ends = Counter(uid for uid, _, after, _ in changes if after == "SUCCEEDED")
    assert ends == dict.fromkeys(uids, 1)
    assert {after for _, _, after, _ in changes} <= {"ENQUEUED", "RUNNING", "SUCCEEDED"}
    assert ("RUNNING", "ENQUEUED") in {(before, after) for _, before, after, _ in changes}
    claims = [(uid, attempt) for uid, _, after, attempt in changes if after == "RUNNING"]
    assert len(claims) == len(set(claims))


def check_delays(journal: Journal, killed: list[tuple[dict[str, int], float]], *, sole: bool) -> None:
    """See that what a dead worker had is begun again within lease + 1 s; by the next one, if it was the only one."""
    begins = journal.lines("begin")
    for attempts, when in killed:
        for uid, attempt in attempts.items():
            later = [at for name, number, at in begins if name == uid and number > attempt]
            # One that was killed again before it came to this task could not begin it.
            since = max(at for _, at in killed if at < min(later)) if sole else when
            assert min(later) - since < LEASE + 1


@pytest.mark.parametrize("workers", [1, 3])
def test_killed_workers_lose_nothing_and_end_nothing_twice(work, worker, journal, workers):
    storm(work, worker, journal, workers=workers, kills=6, seed=workers, tasks=8)


@pytest.mark.soak
@pytest.mark.parametrize("workers", [1, 3])
def test_workers_killed_a_hundred_times_lose_nothing(work, worker, journal, workers):
    storm(work, worker, journal, workers=workers, kills=100, seed=100 + workers, tasks=60)


def test_task_of_a_worker_that_nobody_sees_die_is_begun_again_within_its_lease(work, worker, journal, monkeypatch):
    # As if in a container of its own, where its process can't be looked up.
    monkeypatch.setattr(ledger_claims, "process_name", lambda: "")
    uid = work.start_work(handler("hold"))
    first = worker()
    journal.wait("begin")
    first.kill()
    killed = time.monotonic()
    worker()
    _, attempt, at = journal.wait("begin", 2)
    assert attempt == 2
    assert at - killed < LEASE + 1
    assert work.wait(uid, 10).result == "attempt 2"


def test_task_of_a_worker_that_is_seen_to_be_dead_is_begun_again_at_once(work, worker, journal):
    work.start_work(handler("hold"))
    first = worker(lease=600)
    journal.wait("begin")
    first.kill()
    worker(lease=600)
    assert journal.wait("begin", 2)[1] == 2


def test_worker_that_was_stopped_past_its_lease_changes_nothing(work, worker, journal, tmp_path):
    uid = work.start_work(handler("hold"), retry=True)
    late = worker()
    journal.wait("begin")
    late.signal(signal.SIGSTOP)
    worker()
    done = work.wait(uid, 10)
    assert (done.state, done.result, done.attempt) == (State.SUCCEEDED, "attempt 2", 2)
    (tmp_path / "go").touch()
    late.signal(signal.SIGCONT)
    assert journal.wait("end", 2)[1] == 1
    wait_until(lambda: "came too late" in (tmp_path / "log").read_text(), what="the late worker's write")
    assert work.get(uid) == done


def test_worker_that_was_stopped_stops_its_task_when_it_goes_on(work, worker, journal):
    uid = work.start_work(handler("wait"))
    late = worker()
    journal.wait("begin")
    late.signal(signal.SIGSTOP)
    worker()
    journal.wait("begin", 2)
    late.signal(signal.SIGCONT)
    assert journal.wait("stopped")[1] == 1
    assert (work.get(uid).state, work.get(uid).attempt) == (State.RUNNING, 2)


def test_work_goes_on_after_a_reboot(target, work, worker, journal, tmp_path):
    uid = work.start_work(handler("hold"))
    first = worker(boot="first", lease=2)
    journal.wait("begin")
    first.kill()
    worker(boot="second", lease=2)
    assert work.wait(uid, 10).result == "attempt 2"


def test_sigterm_puts_tasks_back_at_once(work, worker, journal):
    uid = work.start_work(handler("wait"))
    one = worker(lease=600)
    journal.wait("begin")
    before = time.monotonic()
    one.signal(signal.SIGTERM)
    assert one.join() == 0
    assert time.monotonic() - before < 2
    found = work.get(uid)
    assert (found.state, found.attempt, found.failures, found.losses) == (State.ENQUEUED, 1, 0, 0)
    worker()
    assert journal.wait("begin", 2)[1] == 2


def test_running_task_is_stopped_by_another_process(work, worker, journal):
    uid = work.start_work(handler("wait"), tag="t")
    worker()
    journal.wait("begin")
    assert work.stop_work("t") == 1
    assert work.wait(uid, 5).state is State.CANCELLED
    assert len(journal.lines("stopped")) == 1
