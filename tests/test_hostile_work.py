"""Background work under odd exceptions, failing threads, slow servers and databases that are locked."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest
import sqlalchemy

from servers import PLUGIN
from upload_helper.errors import LedgerBusyError, LedgerError
from upload_helper.work import Condition, Conditions, State, Work
from upload_helper.work.aliases import hidden
from upload_helper.work.engines import Engines
from upload_helper.work.handlers import http

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]


def python(name, action="run", **more):
    return {"action": action, "type": "python", "method": name, **more}


@pytest.fixture
def work(tmp_path):
    opened = Work(tmp_path / "work.db")
    opened.function("nothing")(lambda _hash_map: None)
    yield opened
    opened.close()


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit, KeyboardInterrupt])
@pytest.mark.parametrize("action", ["run", "runasync"])
def test_whatever_a_handler_raises_is_a_failure_and_is_not_run_again_at_once(work, error, action):
    runs = []

    @work.function
    def bad(hashMap):
        runs.append(1)
        raise error

    uid, other = work.start_work([python("bad", action)]), work.start_work([python("nothing")])
    with work.runner(threads=1):
        assert work.wait(other, 10).state is State.SUCCEEDED
        task = work.wait(uid, 10)
    assert (task.state, len(runs)) == (State.FAILED, 1)
    assert error.__name__ in task.error


def test_thread_that_cannot_be_started_costs_neither_task_nor_place(work, monkeypatch):
    start, fails = threading.Thread.start, [1]

    def refuse(self):
        if len(self.name) > 30 and fails:
            fails.pop()
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    uid = work.start_work([python("nothing")])
    with work.runner(threads=1, poll=0.05):
        assert work.wait(uid, 10).state is State.SUCCEEDED
    assert not fails


def test_runner_whose_thread_cannot_be_started_may_be_started_later(work, monkeypatch):
    start = threading.Thread.start

    def refuse(self):
        if self.name == "upload_helper runner":
            raise RuntimeError("can't start new thread")
        start(self)

    runner, uid = work.runner(), work.start_work([python("nothing")])
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            runner.start()
    with runner:
        assert work.wait(uid, 10).state is State.SUCCEEDED


@pytest.mark.parametrize("if_exists", ["APPEND", "KEEP", "REPLACE"])
def test_repeated_call_with_a_uid_harms_nothing(target, if_exists):
    work = Work(target)
    for _ in range(2):
        assert work.start_work([python("f")], "t", uid="mine", if_exists=if_exists) == "mine"
    assert work.get("mine").state is State.ENQUEUED
    work.close()


@pytest.mark.parametrize("if_exists", ["KEEP", "REPLACE"])
def test_processes_that_start_the_same_tag_at_once_leave_one_task_of_it(target, if_exists):
    """Each looks after each of its calls, for at no time may there be none, or two."""
    Work(target).close()
    (ready, go), tags, children = os.pipe(), [str(number) for number in range(10)], []
    for _ in range(4):
        if pid := os.fork():
            children.append(pid)
            continue
        wrong = 100
        try:
            own = Work(target)
            os.close(go)
            os.read(ready, 1)  # ends when the parent closes the other side
            wrong = 0
            for tag in tags:
                own.start_work([python("f")], tag, if_exists=if_exists)
                wrong += sum(not task.state.ended for task in own.list(tag)) != 1
        finally:
            os._exit(wrong)
    os.close(go)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * 4
    os.close(ready)
    work = Work(target)
    assert sorted(task.tag for task in work.list() if not task.state.ended) == tags
    assert len(work.list()) == (10 if if_exists == "KEEP" else 40)
    work.close()


def test_branches_that_start_branches_all_run(work):
    ran = []
    work.function("leaf")(lambda _hash_map: ran.append(1))
    work.function("slow")(lambda _hash_map: time.sleep(0.1))
    uid = work.start_work([python("slow", "runasync", postExecute=[python("leaf", "runasync")])] * 40)
    with work.runner():
        assert work.wait(uid, 20).state is State.SUCCEEDED
    assert len(ran) == 40


@pytest.mark.parametrize(
    "handler",
    [
        {"type": "http", "method": 'POST http://127.0.0.1:1/ {"user": "anna", "password": "hunter2"}'},
        {"type": "http", "method": "POST http://127.0.0.1:1/ password=hunter2"},
        {"type": "python", "method": "dsn"},
        {"type": "python", "method": "address"},
    ],
)
def test_secret_is_neither_in_record_nor_log_nor_list(work, caplog, handler):
    caplog.set_level(logging.DEBUG)

    @work.function
    def dsn(hashMap):
        raise RuntimeError("host=db user=anna password=hunter2")

    @work.function
    def address(hashMap):
        raise RuntimeError("https://anna:hunter2@host/")

    uid = work.start_work([{"action": "runprogress", **handler}])
    work.runner().run_until_idle()
    task = work.get(uid)
    assert task.error
    assert "hunter2" not in task.error + caplog.text + json.dumps(hidden(task.handlers))


def test_literals_of_a_statement_are_in_no_error(work, tmp_path, caplog):
    work.connect_database(tmp_path / "x.db")
    uid = work.start_work([{"action": "run", "type": "sql", "method": "insert into t values('hunter2')"}])
    work.runner().run_until_idle()
    assert "hunter2" not in work.get(uid).error + caplog.text


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: "])
def test_server_that_trickles_holds_up_no_worker(work, monkeypatch, head):
    monkeypatch.setattr(http, "MOST_SECONDS", 1.0)
    server, done = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def trickle():
        connection, _ = server.accept()
        with connection, suppress(OSError):
            connection.recv(9999)
            connection.sendall(head)
            while not done.wait(0.1):
                connection.sendall(b"x")

    thread = threading.Thread(target=trickle)
    thread.start()
    address = f"GET http://127.0.0.1:{server.getsockname()[1]}/"
    uid = work.start_work([{"action": "run", "type": "http", "method": address}])
    with work.runner():
        task = work.wait(uid, 5)
    done.set()
    thread.join()
    server.close()
    assert (task.state, "longer than" in task.error) == (State.FAILED, True)


def test_locked_table_of_a_server_is_busy(database_server):
    url = database_server.url()
    work = Work(url)
    work.ledger.engines._busy = 0.5
    other = sqlalchemy.create_engine(url)
    with other.connect() as connection:
        connection.exec_driver_sql("lock table upload_helper_tasks in access exclusive mode")
        with pytest.raises(LedgerBusyError):
            work.start_work([python("f")])
        with pytest.raises(LedgerBusyError):
            work.list()
    other.dispose()
    work.close()


def test_child_that_is_forked_while_a_provider_is_asked_asks_by_itself():
    asked, go = threading.Event(), threading.Event()

    def slow():
        asked.set()
        return go.wait(10)

    conditions = Conditions({"IDLE": slow}, fresh=0)
    thread = threading.Thread(target=conditions.holds, args=(Condition.IDLE,))
    thread.start()
    asked.wait()
    pid = os.fork()
    if not pid:
        go.set()
        threading.Timer(5, os._exit, (1,)).start()
        os._exit(0 if conditions.holds(Condition.IDLE) else 2)
    go.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


FORKS = """
import os, sys
from upload_helper.work import Reason, Stopped, Work

inline, ledger, journal = sys.argv[1:]
work = Work(ledger)

@work.function
def forks(hashMap):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if hashMap.get("how") == "raises":
        raise ValueError
    if hashMap.get("how") == "exits":
        sys.exit(3)
    if hashMap.get("how") == "stops":
        raise Stopped(Reason.CANCELLED)
    return "child"

@work.function
def follows(hashMap):
    with open(journal, "a") as file:
        file.write(hashMap.get("how") + " ")

handlers = [{"action": "run", "type": "python", "method": name} for name in ("forks", "follows")]
uids = [work.start_work(handlers, variables={"how": how}) for how in ("returns", "raises", "exits", "stops")]
if inline:
    work.runner().run_until_idle()
else:
    with work.runner(threads=1):
        work.wait(uids[-1], 20)
for task in map(work.get, uids):
    print(task.state, task.result, task.error)
print(open(journal).read())
"""


@pytest.mark.parametrize("inline", ["inline", ""])
def test_child_that_a_handler_forked_does_not_go_on_with_the_run(tmp_path, inline):
    command = [sys.executable, "-W", "ignore", "-c", FORKS, inline, str(tmp_path / "x.db"), str(tmp_path / "journal")]
    done = subprocess.run(
        command, check=False, env={**os.environ, "PYTHONPATH": str(PLUGIN)}, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "SUCCEEDED 0 \n" * 4 + "returns raises exits stops \n", done.stderr


def test_many_threads_that_start_a_runner_start_one(work):
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        runner = work.runner()
        threads = [threading.Thread(target=runner.start) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert [t.name for t in threading.enumerate()].count("upload_helper runner") == 1
    runner.stop()


def test_url_that_no_driver_is_for_is_said_and_leaks_nothing():
    with pytest.raises(LedgerError, match="is no database that a ledger can be in") as raised:
        Engines("postgresql+nonsense://anna:hunter2@host/x")
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    "use",
    [
        "from upload_helper.cli import main; main(['work', 'list'])",
        "from upload_helper.cli import main; main(['work', 'install', '--print'])",
        "from upload_helper.work import Work",
        "import upload_helper.work.ledger",
    ],
)
def test_without_the_extra_it_is_said_what_to_install(use):
    program = (
        "import sys\n"
        "for name in ('sqlalchemy', 'psutil', 'requests', 'rich', 'psycopg'): sys.modules[name] = None\n"
        f"{use}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, env={**os.environ, "PYTHONPATH": str(PLUGIN)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "sqlalchemy is missing: pip install 'flask-upload-helper[work]'" in done.stderr
