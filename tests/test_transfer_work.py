"""Transfers as tasks: killed, stopped, paused, beside others; what is kept of them, and what follows at their end."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from pathlib import Path

import pytest
import requests

from answers import Answers, ServedFile
from faults import memory_folder
from servers import wait_until
from upload_helper.errors import Error
from upload_helper.retry import Backoff
from upload_helper.transfer.progress import Calls
from upload_helper.work import Condition, State, Work
from upload_helper.work.conditions import Conditions
from upload_helper.work.context import Context, Outcome
from upload_helper.work.execute import settle
from upload_helper.work.names import ENDED
from wire_proxy import Fault, WireProxy
from workers import Journal, Worker

# Threads don't come along, which is what is looked at here.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

MIB = 1 << 20
QUICK = Backoff(first=0.05, longest=0.2)


@pytest.fixture
def tmp_path(tmp_path):
    """Many syncs: what they cost is not looked at here."""
    with memory_folder(tmp_path) as path:
        yield path


@pytest.fixture
def ledger(tmp_path) -> Path:
    return tmp_path / "work.db"


@pytest.fixture
def work(ledger):
    opened = Work(ledger, backoff=QUICK)
    yield opened
    opened.close()


@pytest.fixture
def worker(ledger, tmp_path):
    """Return a function that starts a worker; all are killed at the end."""
    started: list[Worker] = []

    def start(prepare=lambda work: None) -> Worker:
        one = Worker(lambda: Work(ledger, backoff=QUICK), prepare, tmp_path / "log", poll=0.05)
        started.append(one.start())
        return one

    yield start
    for one in started:
        one.kill()


def made(path: Path, size: int) -> bytes:
    data = random.Random(size).randbytes(size)
    path.write_bytes(data)
    return data


def python(name: str) -> list[dict]:
    return [{"action": "run", "type": "python", "method": name}]


# --- workers that are killed ---


def kill_often(work: Work, worker, uid: str, passed, kills: int, pause: tuple[float, float], seed: int) -> None:
    """Kill the worker at any instant, once it has moved something since the last time."""
    choose = random.Random(seed)
    for number in range(1, kills + 1):
        one = worker()
        wait_until(lambda: work.get(uid).attempt == number, what="an attempt")  # noqa: B023
        # What a dead process has sent may still be on its way.
        before = passed()
        wait_until(lambda: passed() > before, what="a byte")  # noqa: B023
        time.sleep(choose.uniform(*pause))
        assert work.get(uid).state is State.RUNNING, "the transfer was too short to be killed so often"
        one.kill()
    worker()


def send_through_kills(work, worker, gunicorn, folder, tmp_path, *, size, kills, piece, rate, pause, seed=1) -> None:
    server = gunicorn(expiry=3600)
    file = tmp_path / "survey.gpkg"
    data = made(file, size)
    with WireProxy(server.port, lambda _: Fault(rate=rate)) as link:
        uid = work.start_upload({"url": f"{link.url}/uploads", "file": str(file), "piece": piece})
        kill_often(work, worker, uid, lambda: link.up, kills, pause, seed)
        done = work.wait(uid, 120)
        sent = link.up
    assert (done.state, done.error, done.done, done.total) == (State.SUCCEEDED, "", size, size)
    assert done.attempt == kills + 1
    assert requests.get(done.result.replace(link.url, server.origin), timeout=10).content == data
    # A process that died between the creation and its note leaves an upload in which there is not one byte.
    states = [requests.get(f"{server.url}/{path.name}/status", timeout=10).json() for path in folder.glob("[0-9a-f]*")]
    others = [state for state in states if state["uploadUid"] not in done.result]
    assert [state["receivedBytes"] for state in others] == [0] * len(others)
    assert len(others) == len(states) - 1
    # What was acknowledged went once; of what was under way, no more than a piece went again. 1 KiB for each request.
    headers = 1024 * (size // piece + 4 * kills + 10)
    print(f"{kills} kills, {size} bytes, {sent} sent: {sent / size:.4f}")
    assert size <= sent <= size + kills * piece + headers


def test_upload_goes_on_where_it_was_when_its_worker_is_killed(work, worker, gunicorn, folder, tmp_path):
    send_through_kills(
        work, worker, gunicorn, folder, tmp_path, size=2 * MIB, kills=3, piece=128 << 10, rate=3 * MIB, pause=(0, 0.1)
    )  # fmt: skip


@pytest.mark.soak
@pytest.mark.parametrize("seed", [1, 2])
def test_upload_goes_on_through_fifty_kills(work, worker, gunicorn, folder, tmp_path, seed):
    send_through_kills(
        work, worker, gunicorn, folder, tmp_path,
        size=64 * MIB, kills=50, piece=MIB, rate=6 * MIB, pause=(0, 0.25), seed=seed,
    )  # fmt: skip


def fetch_through_kills(work, worker, tmp_path, *, size, kills, rate, pause) -> None:
    data = random.Random(size).randbytes(size)
    with (
        Answers(ServedFile(data, ETag='"1"')) as server,
        WireProxy(server.server_port, lambda _: Fault(rate=rate)) as link,
    ):
        target = tmp_path / "tiles.mbtiles"
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        uid = work.start_download({"url": f"{link.url}/tiles.mbtiles", "file": str(target), "digest": digest})
        kill_often(work, worker, uid, lambda: link.down, kills, pause, 1)
        done = work.wait(uid, 120)
        came = link.down
        starts = [int(a.headers.get("Range", "bytes=0-")[6:-1]) for a in server.asked]
    assert (done.state, done.error, done.result) == (State.SUCCEEDED, "", str(target))
    assert target.read_bytes() == data
    assert list(tmp_path.glob("*.part*")) == []
    assert starts == sorted(starts)
    assert starts[-1] > 0
    # What a killed process had taken and not written is at most a block, beside what the system holds for it.
    print(f"{kills} kills, {size} bytes, {came} fetched: {came / size:.4f}")
    assert came <= size + kills * 2 * MIB


def test_download_goes_on_where_it_was_when_its_worker_is_killed(work, worker, tmp_path):
    fetch_through_kills(work, worker, tmp_path, size=4 * MIB, kills=3, rate=4 * MIB, pause=(0.1, 0.2))


@pytest.mark.soak
def test_download_goes_on_through_fifty_kills(work, worker, tmp_path):
    fetch_through_kills(work, worker, tmp_path, size=128 * MIB, kills=50, rate=12 * MIB, pause=(0, 0.3))


@pytest.mark.parametrize(("status", "state"), [(200, State.SUCCEEDED), (404, State.FAILED)])
def test_worker_that_is_killed_in_what_follows_does_nothing_again(work, worker, tmp_path, status, state):
    journal, held = Journal(tmp_path / "journal"), tmp_path / "go"

    def prepare(opened: Work) -> None:
        @opened.handler_type("hold")
        def hold(step):
            journal.say("begin", step)
            while step.context.task.attempt == 1 and not held.exists():
                time.sleep(0.005)
            journal.say(step.variables["ResultMessage"] or "none", step)

    with Answers(lambda asked: (status, {"ETag": '"1"'}, b"data")) as server:
        after = [{"action": "run", "type": "hold", "method": ""}]
        request = {"url": f"{server.url}/a.bin", "file": str(tmp_path / "a.bin"), "postExecute": after}
        uid = work.start_download(request)
        first = worker(prepare)
        journal.wait("begin")
        first.kill()
        worker(prepare)
        journal.wait(str(tmp_path / "a.bin") if state is State.SUCCEEDED else "none")
        assert work.wait(uid, 10).state is state
        assert len(server.asked) == 1


# --- stopping and pausing ---


@pytest.fixture
def stalled():
    """Return the URL of a file of which nothing more comes after some bytes, and what tells when that is so."""
    served = Answers(ServedFile(bytes(MIB), ETag='"1"'))
    with served as server, WireProxy(server.server_port, lambda _: Fault(down=100_000, stalls=True)) as link:
        yield f"{link.url}/a.bin", link.broken


@pytest.mark.parametrize("is_other", [True, False], ids=["by another process", "by this process"])
def test_transfer_that_stalls_is_stopped_by_its_tag_within_a_second(work, ledger, stalled, tmp_path, is_other):
    url, broken = stalled
    uid = work.start_download({"url": url, "file": str(tmp_path / "a.bin")}, tag="tiles")
    with work.runner():
        assert broken.wait(10)
        who = Work(ledger) if is_other else work
        before = time.monotonic()
        assert who.stop_work("tiles") == 1
        done = work.wait(uid, 5)
        took = time.monotonic() - before
        assert (done.state, took < 1) == (State.CANCELLED, True), took
        if is_other:
            who.close()
    assert not (tmp_path / "a.bin").exists()


def test_upload_that_stalls_is_stopped_by_its_tag_within_a_second(work, tmp_path, gunicorn):
    file = tmp_path / "a.bin"
    made(file, 8 * MIB)
    server = gunicorn()
    with WireProxy(server.port, lambda _: Fault(up=500_000, stalls=True)) as link:
        uid = work.start_upload({"url": f"{link.url}/uploads", "file": str(file)}, tag="survey")
        with work.runner():
            assert link.broken.wait(10)
            before = time.monotonic()
            work.stop_work("survey")
            assert work.wait(uid, 5).state is State.CANCELLED
            assert time.monotonic() - before < 1


def test_worker_that_ends_puts_its_transfer_back_at_once(work, stalled, tmp_path):
    url, broken = stalled
    uid = work.start_download({"url": url, "file": str(tmp_path / "a.bin")})
    runner = work.runner().start()
    assert broken.wait(10)
    before = time.monotonic()
    runner.stop()
    assert time.monotonic() - before < 1
    assert (work.get(uid).state, work.get(uid).failures) == (State.ENQUEUED, 0)


def test_lost_condition_pauses_a_transfer_and_it_goes_on_when_it_holds_again(ledger, tmp_path):
    lost: set[Condition] = set()
    conditions = Conditions({c: lambda c=c: c not in lost for c in Condition}, fresh=0)
    work = Work(ledger, conditions=conditions, backoff=QUICK)
    data = random.Random(1).randbytes(3 * MIB)
    with Answers(ServedFile(data, ETag='"1"')) as server:
        plans = [Fault(down=2 * MIB, stalls=True)]
        with WireProxy(server.server_port, lambda number: plans[number] if number < len(plans) else Fault()) as link:
            target = tmp_path / "a.bin"
            uid = work.start_download({"url": f"{link.url}/a", "file": str(target)}, conditions="CHARGING")
            with work.runner(poll=0.05):
                assert link.broken.wait(10)
                wait_until(lambda: (tmp_path / "a.bin.part").stat().st_size >= MIB, what="a block")
                lost.add(Condition.CHARGING)
                wait_until(lambda: work.get(uid).state is State.BLOCKED, what="BLOCKED")
                lost.clear()
                assert work.wait(uid, 10).state is State.SUCCEEDED
        assert "Range" in server.asked[-1].headers
    assert target.read_bytes() == data
    work.close()


# --- beside others ---


def test_transfer_holds_up_no_other_task_and_one_runs_at_a_time(work, stalled, tmp_path):
    url, broken = stalled
    first = work.start_download({"url": url, "file": str(tmp_path / "a.bin")})
    second = work.start_download({"url": url, "file": str(tmp_path / "b.bin")})
    with work.runner(threads=1, poll=0.05):
        assert broken.wait(10)
        other = work.start_work([{"action": "run", "type": "set", "method": "a=1"}])
        assert work.wait(other, 5).state is State.SUCCEEDED
        assert (work.get(first).state, work.get(second).state) == (State.RUNNING, State.ENQUEUED)
        work.stop(first)
        wait_until(lambda: work.get(second).state is State.RUNNING, what="the second")


def test_transfer_takes_no_thread_and_gives_none(work, stalled, tmp_path):
    url, broken = stalled
    go = threading.Event()
    work.handler_type("hold")(lambda step: go.wait(10))
    work.start_download({"url": url, "file": str(tmp_path / "a.bin")})
    held = [work.start_work([{"action": "run", "type": "hold", "method": ""}]) for _ in range(2)]
    with work.runner(threads=1, poll=0.02):
        assert broken.wait(10)
        wait_until(lambda: work.get(held[0]).state is State.RUNNING, what="the first")
        later = work.start_download({"url": url, "file": str(tmp_path / "b.bin")})
        work.transfers = 2
        # By the time that this one has begun, the other would have, too.
        wait_until(lambda: work.get(later).state is State.RUNNING, what="the second transfer")
        assert work.get(held[1]).state is State.ENQUEUED
        go.set()
        assert [work.wait(uid, 10).state for uid in held] == [State.SUCCEEDED] * 2


def test_two_run_at_a_time_where_that_is_said(ledger, stalled, tmp_path):
    work = Work(ledger, transfers=2)
    uids = [work.start_download({"url": stalled[0], "file": str(tmp_path / name)}) for name in "abc"]
    with work.runner(threads=1, poll=0.05):
        wait_until(lambda: [work.get(uid).state for uid in uids[:2]] == [State.RUNNING] * 2, what="two")
        assert work.get(uids[2]).state is State.ENQUEUED
    work.close()


@pytest.mark.parametrize("bad", [{"transfers": 0}, {"transfers": 3}, {"limit": "fast"}, {"limit": "8-9"}])
def test_work_that_cannot_be_is_refused(ledger, bad):
    with pytest.raises(Error):
        Work(ledger, **bad)


def test_limit_holds_for_all_transfers_of_a_process(ledger, tmp_path):
    work = Work(ledger, transfers=2, limit=MIB)
    with Answers(ServedFile(bytes(MIB), ETag='"1"')) as server:
        uids = [work.start_download({"url": f"{server.url}/{name}", "file": str(tmp_path / name)}) for name in "ab"]
        before = time.monotonic()
        with work.runner(poll=0.05):
            assert [work.wait(uid, 10).state for uid in uids] == [State.SUCCEEDED] * 2
        assert 1.5 < time.monotonic() - before < 4
    work.close()


# --- what is seen of them ---


def test_progress_is_in_the_ledger_while_it_runs(work, tmp_path):
    with Answers(ServedFile(bytes(4 * MIB), ETag='"1"')) as server:
        request = {"url": f"{server.url}/a.bin", "file": str(tmp_path / "a.bin"), "limit": 2 * MIB}
        uid = work.start_download(request, title="Tiles")
        with work.runner(poll=0.05):
            seen = wait_until(lambda: (t := work.get(uid)).speed and t, what="a speed")
            assert (seen.state, seen.total) == (State.RUNNING, 4 * MIB)
            assert 0 < seen.done < seen.total
            assert seen.progress == pytest.approx(seen.done / seen.total)
            assert 0.5 * MIB < seen.speed < 4 * MIB
            done = work.wait(uid, 10)
    assert (done.done, done.total, done.speed, done.progress) == (4 * MIB, 4 * MIB, None, 1.0)


def test_sinks_of_the_host_are_told(ledger, tmp_path):
    seen, ends = [], []
    work = Work(ledger, sinks=[lambda: Calls(seen.append, ends.append)])
    with Answers(ServedFile(b"x" * 1000, ETag='"1"')) as server:
        work.start_download({"url": f"{server.url}/a.bin", "file": str(tmp_path / "a.bin")}, title="Tiles")
        work.start_download({"url": f"{server.url}/a.bin", "file": str(tmp_path / "a.bin"), "overwrite": False})
        assert work.runner().run_until_idle() == 2
    assert {progress.name for progress in seen} == {"Tiles", "a.bin"}
    assert seen[0].done == 0
    assert ends[0] is None
    assert "there already" in ends[1]
    work.close()


def test_nothing_that_is_kept_is_shown(work, tmp_path):
    request = {
        "url": "http://anna:hunter2@127.0.0.1:9/x?token=hunter2", "file": "a", "basic": ["anna", "hunter2"],
        "headers": {"X-Key": "hunter2"}, "auth": "Bearer hunter2hunter2",
    }  # fmt: skip
    uid = work.start_upload(request, retry=False)
    assert "hunter2" not in repr(work.get(uid))
    work.runner().run_until_idle()
    assert "hunter2" not in work.get(uid).error


# --- ends ---


def test_what_may_pass_is_tried_again_and_what_may_not_ends(work, tmp_path):
    answers = iter([503, 200])

    def answer(asked):
        status = next(answers)
        return (status, {}, b"busy") if status == 503 else ServedFile(b"data", ETag='"1"')(asked)

    with Answers(answer) as server:
        uid = work.start_download({"url": f"{server.url}/a", "file": str(tmp_path / "a")})
        work.runner().run_until_idle()
        assert (work.get(uid).state, work.get(uid).attempt) == (State.SUCCEEDED, 1)
    with Answers(lambda asked: (404, {}, b"none")) as server:
        uid = work.start_download({"url": f"{server.url}/a", "file": str(tmp_path / "b")})
        work.runner().run_until_idle()
        assert (work.get(uid).state, work.get(uid).attempt) == (State.FAILED, 1)
        assert "404" in work.get(uid).error


def test_transfer_without_retry_ends_with_its_first_failure_and_tells_what_follows(work, tmp_path):
    told = []
    work.function("after")(lambda hash_map: told.append(dict(hash_map.variables)))
    with Answers(lambda asked: (503, {"Retry-After": "86400"}, b"busy")) as server:
        request = {"url": f"{server.url}/a", "file": str(tmp_path / "a"), "postExecute": python("after")}
        uid = work.start_download(request, retry=False)
        work.runner().run_until_idle()
        assert work.get(uid).state is State.FAILED
        assert told[0]["ResultError"] == work.get(uid).error
        uid = work.start_download(request)
        work.runner().run_until_idle()
    again = work.get(uid)
    assert (again.state, again.failures, len(told)) == (State.ENQUEUED, 1, 1)
    assert again.next_run - time.time() > QUICK.longest / 2


def test_transfer_that_failed_is_run_again_from_where_it_was(work, tmp_path):
    told = []
    work.function("after")(lambda hash_map: told.append((hash_map.get("TaskState"), hash_map.get("TaskError"))))
    down = True
    with Answers(lambda asked: (404, {}, b"gone") if down else (200, {}, b"data")) as server:
        request = {"url": f"{server.url}/a", "file": str(tmp_path / "a"), "postExecute": python("after")}
        uid = work.start_download(request)
        work.runner().run_until_idle()
        error = work.get(uid).error
        down = False
        work.retry(uid)
        work.runner().run_until_idle()
    assert (work.get(uid).state, (tmp_path / "a").read_bytes()) == (State.SUCCEEDED, b"data")
    assert told == [("FAILED", error), ("SUCCEEDED", "")]


def test_what_is_kept_of_an_upload_outlives_its_failure(work, tmp_path):
    uid = work.start_upload({"url": "http://127.0.0.1:9/uploads", "file": str(tmp_path / "a.bin")})
    claim = work.ledger.claim(frozenset(), 30)
    context = Context(claim.task, work, work.ledger.clock, claim.lease_end)
    context.save(upload={"url": "kept"})
    context.save(**{ENDED: {"failed": True}})
    work.ledger.finish(uid, claim.attempt, State.FAILED)
    work.retry(uid)
    assert work.get(uid).saved == {"upload": {"url": "kept"}}


def test_link_that_moved_something_begins_its_pauses_anew(ledger, clock):
    work = Work(ledger, clock=clock, backoff=Backoff(first=30, jitter=0))
    uid = work.start_download({"url": "http://127.0.0.1:9/a", "file": "a"})
    delays = []
    for moved in (False, False, False, True, False):
        claim = work.ledger.claim(frozenset(), 30)
        settle(work.ledger, claim, Outcome(error="cut", failed=True, moved=moved), work.backoff)
        delays.append(work.get(uid).next_run - clock.wall())
        clock.pass_(delays[-1])
    assert delays == [30, 60, 120, 30, 60]
    claim = work.ledger.claim(frozenset(), 30)
    settle(work.ledger, claim, Outcome(error="no", failed=True, final=True), work.backoff)
    assert work.get(uid).state is State.FAILED
    work.close()


def test_file_that_changed_is_sent_anew_and_what_follows_is_told(work, tmp_path, gunicorn, folder, caplog):
    told = []
    work.function("after")(lambda hash_map: told.append(dict(hash_map.variables)))
    file = tmp_path / "a.bin"
    made(file, 2 * MIB)
    server = gunicorn(workers=1)
    plans = [Fault(), Fault(up=MIB, stalls=True)]
    with WireProxy(server.port, lambda number: Fault(up=MIB, stalls=True) if number == 0 else Fault()) as link:
        uid = work.start_upload({"url": f"{link.url}/uploads", "file": str(file), "postExecute": python("after")})
        runner = work.runner().start()
        assert link.broken.wait(10)
        runner.stop()
        assert work.get(uid).saved["upload"]["fingerprint"]
        data = made(file, 2 * MIB + 1)
        work.runner().run_until_idle()
    assert plans
    assert (work.get(uid).state, work.get(uid).total) == (State.SUCCEEDED, 2 * MIB + 1)
    assert told[0]["TransferRestarted"] == "the file has changed"
    assert "the file has changed" in caplog.text
    assert data in [path.read_bytes() for path in folder.glob("*/*") if path.is_file()]


def test_post_execute_may_be_json_and_sees_variables(work, tmp_path):
    told = []
    work.function("after")(lambda hash_map: told.append(dict(hash_map.variables)))
    text = '[{"action": "run", "type": "python", "method": "after"}]'
    with Answers(ServedFile(b"data", ETag='"1"')) as server:
        request = {"url": f"{server.url}/a", "file": str(tmp_path / "a"), "postExecute": text}
        work.start_download(request, variables={"survey": "north"})
        work.runner().run_until_idle()
    assert (told[0]["survey"], told[0]["ResultMessage"], told[0]["ResultError"]) == ("north", str(tmp_path / "a"), "")


def test_alias_gives_address_and_what_signs(work, tmp_path):
    with Answers(ServedFile(b"data", ETag='"1"')) as server:
        work.add_alias("office", f"{server.url}/base/", headers={"X-Key": "k"}, basic=("anna", "p"))
        work.start_download({"url": "#office/a", "file": str(tmp_path / "a"), "headers": {"X-More": "m"}})
        work.runner().run_until_idle()
        (asked,) = server.asked
    assert asked.path == "/base/a"
    assert [asked.headers[name] for name in ("X-Key", "X-More", "Authorization")] == ["k", "m", "Basic YW5uYTpw"]


def test_file_is_found_by_a_worker_that_runs_elsewhere(work, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    uid = work.start_upload({"url": "http://127.0.0.1:9/", "file": "a.bin"})
    assert work.get(uid).handlers[0]["file"] == str(tmp_path / "a.bin")
    kept = work.get(work.start_download({"url": "http://127.0.0.1:9/"})).handlers[0]
    assert (kept["file"], kept["overwrite"]) == (str(tmp_path), False)
    kept = work.get(work.start_download({"url": "http://127.0.0.1:9/", "file": "b"})).handlers[0]
    assert (kept["file"], kept["overwrite"]) == (str(tmp_path / "b"), True)


def test_uid_and_keep_are_as_for_other_tasks(work):
    request = {"url": "http://127.0.0.1:9/", "file": "a"}
    assert work.start_upload(request, uid="mine") == work.start_upload(request, uid="mine") == "mine"
    first = work.start_upload(request, tag="t")
    assert work.start_upload(request, tag="t", if_exists="KEEP") == first
    work.start_upload(request, tag="t", if_exists="REPLACE")
    assert work.get(first).state is State.CANCELLED


def test_broken_record_of_a_transfer_ends_with_an_error(work, ledger):
    from sqlalchemy import text

    uid = work.start_upload({"url": "http://127.0.0.1:9/", "file": "a"})
    with work.ledger.engines.write() as connection:
        connection.execute(text("update upload_helper_tasks set handlers = '[]'"))
    work.runner().run_until_idle()
    assert (work.get(uid).state, "has no url" in work.get(uid).error) == (State.FAILED, True)


def test_threads_end_with_the_runner(work, stalled, tmp_path):
    url, broken = stalled
    before = threading.active_count()
    work.start_download({"url": url, "file": str(tmp_path / "a.bin")})
    with work.runner(poll=0.05):
        assert broken.wait(10)
    wait_until(lambda: threading.active_count() <= before, what="the threads' end")
