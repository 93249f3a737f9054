"""What runs after an upload: exactly once, whatever dies in between; and who may see how far it is."""

from __future__ import annotations

import gc
import itertools
import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import requests
from flask import Flask, request

import upload_helper as uh
from chunks import RAW, fetch, fields, send, upload
from faults import die_at, memory_folder
from servers import wait_until
from upload_helper.errors import LedgerBusyError
from upload_helper.jobs import Jobs, job_uid
from upload_helper.work import Condition, State, Work

# Threads don't come along, which is what is looked at here.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

DATA = b"0123456789" * 100
NOTE = [{"action": "run", "type": "python", "method": "note"}]


@pytest.fixture
def work(target):
    opened = Work(target)
    yield opened
    opened.close()


@pytest.fixture
def noted(work) -> list[dict]:
    """Return the variables with which the handlers ran."""
    found: list[dict] = []

    @work.function
    def note(hashMap):
        found.append(dict(hashMap.variables))

    return found


@pytest.fixture
def make(work, folder):
    """Return a function that makes the host; the test runs its tasks, unless it wants threads."""

    def make_(post_execute=NOTE, **options) -> Flask:
        app = Flask("host")
        app.config.update(UPLOAD_HELPER_FOLDER=folder, UPLOAD_HELPER_DURABILITY="none", UPLOAD_HELPER_MIN_FREE_SPACE=0)
        helper = uh.UploadHelper(
            app, authorize=lambda access: request.headers.get("X-Role") != "none",
            identify=lambda: request.headers.get("X-User"), **{"work": work, "post_execute": post_execute, "work_threads": 0, **options},
        )  # fmt: skip
        app.register_blueprint(helper.blueprint(), url_prefix="/uploads")
        return app

    return make_


def pending(folder: Path) -> list[str]:
    return sorted(os.listdir(folder / ".jobs"))


def test_finished_upload_starts_its_task(make, work, noted, folder):
    client = make().test_client()
    uid = upload(client, DATA, 300, name="Карта.tif", headers={"X-User": "anna"})
    (task,) = work.list()
    assert (task.uid, task.tag, task.title, task.state) == (job_uid(uid), "upload", "Карта.tif", State.ENQUEUED)
    assert work.runner().run_until_idle() == 1
    (variables,) = noted
    path = variables.pop("path")
    assert Path(path).read_bytes() == DATA
    expected = {"uploadUid": uid, "fileName": "Карта.tif", "totalSize": len(DATA), "owner": "anna"}
    assert {name: variables[name] for name in expected} == expected
    assert pending(folder) == []


def test_task_runs_in_a_thread_of_the_application_with_its_context(make, work):
    app = make(work_threads=1)

    @work.function
    def note(hashMap):
        taken = uh.current_helper.get_upload(hashMap.get("uploadUid")).move_to(
            Path(app.instance_path) / "x.tif", overwrite=True
        )
        hashMap.put("ResultMessage", taken.read_text())

    app.instance_path = str(Path(app.config["UPLOAD_HELPER_FOLDER"]).parent)
    uid = upload(app.test_client(), DATA, 300)
    done = work.wait(job_uid(uid), 10)
    assert (done.state, done.error, done.result) == (State.SUCCEEDED, "", DATA.decode())
    # The file has moved, and who sent it can still see what became of it.
    assert app.test_client().get(f"/uploads/{uid}/job").json["state"] == "SUCCEEDED"
    assert app.test_client().get(f"/uploads/{uid}/status").status_code == 404


def test_task_of_an_application_without_threads_runs_in_its_context_wherever_the_process_runs_it(make, work):
    def note(hashMap):
        return uh.current_helper.get_upload(hashMap.get("uploadUid")).fileName

    work.function("note")(note)
    runner = work.runner()
    client = make().test_client()
    first = upload(client, DATA, 300, name="a.tif")
    runner.run_until_idle()
    # A worker that was told what to enter enters that, and nothing else.
    second = upload(client, DATA, 300, name="b.tif")
    work.runner(around=nullcontext).run_until_idle()
    first, second = (work.get(job_uid(uid)) for uid in (first, second))
    assert (first.state, first.result) == (State.SUCCEEDED, "a.tif")
    assert (second.state, "outside of application context" in second.error) == (State.FAILED, True)


def test_tasks_of_an_application_that_is_gone_run_nevertheless(make, work, noted):
    make()
    gc.collect()
    work.start_work(NOTE)
    work.runner().run_until_idle()
    assert len(noted) == 1


@pytest.mark.parametrize("as_function", [False, True])
def test_task_is_started_as_the_host_asks(make, work, noted, as_function):
    asked = {"work": NOTE, "retry": True, "conditions": "IDLE", "title": "Survey", "body": "It came.", "tag": "survey"}
    upload(make((lambda finished: asked) if as_function else asked).test_client(), DATA, 300)
    (task,) = work.list()
    assert (task.retry, task.conditions, task.title) == (True, {Condition.IDLE}, "Survey")
    assert (task.body, task.tag, len(task.handlers)) == ("It came.", "survey", 1)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ([], "nothing to do"),
        ("[]", "nothing to do"),
        ({"work": []}, "nothing to do"),
        ({"work": NOTE, "retries": True}, "'retries'"),
        ({"work": NOTE, "conditions": "FULL_MOON"}, "FULL_MOON"),
        ([{"action": "walk"}], "type"),
    ],
)
def test_what_cannot_be_started_is_refused_when_the_helper_is_made(make, wrong, named):
    with pytest.raises(uh.Error, match=named):
        make(wrong)


def test_function_of_the_host_chooses_the_handlers(make, work, noted):
    client = make(lambda finished: NOTE if finished.fileName.endswith(".tif") else None).test_client()
    for name in ("a.tif", "b.txt"):
        upload(client, DATA, 300, name=name)
    assert work.runner().run_until_idle() == 1
    assert [variables["fileName"] for variables in noted] == ["a.tif"]


def test_client_chooses_no_handlers(make, work):
    client = make(lambda finished: None).test_client()
    upload(client, DATA, 300, postExecute='[{"action": "run", "type": "python", "method": "note"}]')
    assert work.list() == []


def test_progress_is_for_the_owner_only(make, work, noted):
    client = make().test_client()
    anna = {"X-User": "anna"}
    uid = ""
    for number in range(4):
        if uid:
            early = client.get(f"/uploads/{uid}/job", headers=anna)
            assert (early.status_code, early.json["code"]) == (404, "no_job")
            assert early.json["remedy"] == "The task starts when the upload is finished."
            assert client.get(f"/uploads/{uid}/job", headers={"X-User": "berta"}).json["code"] == "not_found"
            assert client.get(f"/uploads/{uid}/job", headers={**anna, "X-Role": "none"}).status_code == 403
        uid = send(client, DATA, 300, number, uid=uid, headers=anna).json["uploadUid"]
    answer = client.get(f"/uploads/{uid}/job", headers=anna)
    assert answer.json == {"jobUid": job_uid(uid), "state": "ENQUEUED", "progress": None, "stepName": ""}
    assert answer.headers["Cache-Control"] == "no-store"
    for headers in ({"X-User": "berta"}, {}):
        assert client.get(f"/uploads/{uid}/job", headers=headers).status_code == 404
    assert client.get(f"/uploads/{uid}/job", headers={**anna, "X-Role": "none"}).status_code == 403
    unknown = client.get(f"/uploads/{'0' * 32}/job", headers=anna)
    foreign = client.get(f"/uploads/{uid}/job", headers={"X-User": "berta"})
    assert unknown.json == foreign.json
    assert unknown.json["code"] == "not_found"
    for strange in ("x", "%2e%2e", "١" * 32, uid.upper()):
        assert client.get(f"/uploads/{strange}/job", headers=anna).status_code == 404
    work.runner().run_until_idle()
    assert client.get(f"/uploads/{uid}/job", headers=anna).json["progress"] == 1


def test_other_tasks_of_the_ledger_are_not_shown(make, work):
    uid = work.start_work(NOTE, variables={"owner": ""})
    assert make().test_client().get(f"/uploads/{uid}/job").status_code == 404


def test_without_work_there_are_no_jobs(host):
    client = host.test_client()
    answer = client.get(f"/uploads/{'0' * 32}/job")
    assert (answer.status_code, answer.json["code"], answer.json["remedy"]) == (404, "no_job", "")


def test_handlers_without_a_ledger_are_refused(make):
    with pytest.raises(ValueError, match=r"work=Work"):
        make(work=None)
    with pytest.raises(ValueError, match=r"work='work.db' is no Work.*work=Work\('work.db'\)"):
        make(work="work.db")


# --- nothing is lost, nothing runs twice ---


def test_ledger_that_is_locked_holds_up_no_upload_and_the_task_starts_later(
    make, work, noted, folder, monkeypatch, caplog
):
    client = make().test_client()
    real = work.ledger.put
    monkeypatch.setattr(work.ledger, "put", lambda *args: (_ for _ in ()).throw(LedgerBusyError("locked")))
    uid = upload(client, DATA, 300)
    assert fetch(client, uid) == DATA
    assert pending(folder) == [uid]
    assert "could not be started" in caplog.text
    monkeypatch.setattr(work.ledger, "put", real)
    make().test_client().get("/uploads/")  # any request to an application that was just started
    assert pending(folder) == []
    assert work.runner().run_until_idle() == 1
    assert len(noted) == 1


def test_function_that_raises_harms_no_upload_and_is_asked_again(make, work, noted, folder, caplog):
    asked = []

    def choose(finished):
        asked.append(finished.uploadUid)
        if len(asked) == 1:
            raise ZeroDivisionError
        return NOTE

    uid = upload(make(choose).test_client(), DATA, 300)
    assert work.list() == []
    make(choose).test_client().get("/")
    assert asked == [uid, uid]
    assert [task.uid for task in work.list()] == [job_uid(uid)]


def test_uploads_that_are_not_finished_or_gone_start_nothing(make, work, folder):
    app = make()
    client = app.test_client()
    open_ = send(client, DATA, 300, 0).json["uploadUid"]
    client.get(f"/uploads/{open_}")  # asks for it too early
    (folder / ".jobs").mkdir(exist_ok=True)
    for name in (open_, "f" * 32, "nonsense"):
        (folder / ".jobs" / name).touch()
    make().test_client().get("/")
    assert pending(folder) == [open_, "nonsense"]
    assert work.list() == []


def test_planted_link_is_not_followed(make, work, folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder.mkdir()
    (folder / ".jobs").symlink_to(elsewhere)
    answer = send(make().test_client(), b"x", 1, 0)
    assert answer.status_code == 500
    assert list(elsewhere.iterdir()) == []


def test_process_that_dies_at_any_call_loses_no_task_and_starts_none_twice(make, work, noted, tmp_path):
    client_of = lambda: make().test_client()  # noqa: E731
    for number in itertools.count():
        assert number < 100, "it never came to its end"
        client = client_of()
        uid = send(client, DATA, 500, 0).json["uploadUid"]
        died = die_at(number, lambda c=client, u=uid: send(c, DATA, 500, 1, uid=u))
        client = client_of()
        client.get("/")  # the application was started again
        state = client.get(f"/uploads/{uid}/status").json["state"]
        if state != "finished":
            assert send(client, DATA, 500, 1, uid=uid).status_code == 200
        assert work.runner().run_until_idle() == 1
        assert [task.state for task in work.list("upload")] == [State.SUCCEEDED] * (number + 1)
        client_of().get("/")
        assert work.runner().run_until_idle() == 0
        if not died:
            break
    assert number > 3
    assert len({variables["uploadUid"] for variables in noted}) == len(noted) == number + 1


def test_record_is_not_cleared_before_its_note(make, work, noted, folder, monkeypatch):
    client = make().test_client()
    upload(client, DATA, 300)
    with monkeypatch.context() as patch:
        patch.setattr(Jobs, "_forget", lambda self, uid: None)  # killed here
        noted_one = upload(client, DATA, 300)
    work.runner().run_until_idle()
    assert pending(folder) == [noted_one]
    work.ledger.sweep(-1)
    assert [task.uid for task in work.list()] == [job_uid(noted_one)]
    make().test_client().get("/")
    assert work.runner().run_until_idle() == 0
    assert (len(noted), pending(folder)) == (2, [])
    work.ledger.sweep(-1)
    assert work.list() == []


def test_threads_start_with_the_first_request_of_each_process(make, work, noted):
    app = make(work_threads=1)
    work.start_work(NOTE)
    pid = os.fork()
    if not pid:
        code = 1
        try:
            app.test_client().get("/")
            wait_until(lambda: work.list()[0].state is State.SUCCEEDED, seconds=10)
            work.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert noted == []
    work.start_work(NOTE)
    app.test_client().get("/")
    wait_until(lambda: noted)


def test_jobs_of_one_process_look_only_now_and_then(make, monkeypatch):
    looks = []
    monkeypatch.setattr(Jobs, "recover", lambda self, service: looks.append(1))
    client = make().test_client()
    for _ in range(5):
        client.get("/")
    assert looks == [1]


def served() -> Flask:
    """Return a host for gunicorn; the first attempt of its tasks waits to be stopped."""
    app = Flask("served")
    app.config.update(json.loads(os.environ["HOST_CONFIG"]))
    work = Work(os.environ["WORK_LEDGER"])

    @work.function
    def note(hashMap):
        task = hashMap.step.context.task
        if task.attempt == 1:
            hashMap.step.sleep(60)
        return f"attempt {task.attempt}"

    helper = uh.UploadHelper(app, authorize=lambda access: True, work=work, post_execute=NOTE)
    app.register_blueprint(helper.blueprint(), url_prefix="/uploads")
    return app


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=lambda how: how.name)
def test_task_outlives_the_servers_worker_that_ran_it(work, target, gunicorn, monkeypatch, how):
    monkeypatch.setenv("WORK_LEDGER", target)
    server = gunicorn(app="test_jobs:served()", workers=1)
    query = fields(DATA, len(DATA), 0)
    answer = requests.post(server.url, params=query, data=DATA, headers=RAW, timeout=30)
    job = job_uid(answer.json()["uploadUid"])
    wait_until(lambda: work.get(job).state is State.RUNNING)
    (worker,) = server.pids()
    os.kill(worker, how)

    def ended() -> bool:
        # Another worker takes its place, and begins with its first request; the one that ends may answer some more.
        requests.get(server.url, timeout=30)
        return work.get(job).state.ended

    wait_until(ended)
    done = work.get(job)
    assert (done.state, done.result, done.attempt) == (State.SUCCEEDED, "attempt 2", 2)


def test_workers_of_a_server_that_loads_the_application_before_it_forks_run_tasks(work, target, gunicorn, monkeypatch):
    monkeypatch.setenv("WORK_LEDGER", target)
    server = gunicorn(app="test_jobs:opened()", workers=2, options=["--preload"])
    with ThreadPoolExecutor(4) as pool:
        query = fields(DATA, len(DATA), 0)
        post = partial(requests.post, server.url, params=query, data=DATA, headers=RAW, timeout=30)
        answers = list(pool.map(lambda _: post(), range(12)))
    for answer in answers:
        task = work.wait(job_uid(answer.json()["uploadUid"]), 30)
        assert (task.state, task.attempt) == (State.SUCCEEDED, 1)
        assert int(task.result) in server.pids()


def opened() -> Flask:
    """Return a host for gunicorn that has used its ledger, and run a task, before it forks."""
    app = Flask("opened")
    app.config.update(json.loads(os.environ["HOST_CONFIG"]))
    work = Work(os.environ["WORK_LEDGER"])
    work.function("note")(os.getpid)
    helper = uh.UploadHelper(app, authorize=lambda access: True, work=work, post_execute=NOTE)
    app.register_blueprint(helper.blueprint(), url_prefix="/uploads")
    with work.runner(threads=1):
        assert work.wait(work.start_work(NOTE), 10).state is State.SUCCEEDED
    return app


@pytest.fixture
def tmp_path(tmp_path):
    with memory_folder(tmp_path) as path:
        yield path


def test_ledger_that_is_locked_holds_up_a_request_once_however_many_tasks_are_due(make, work, folder, monkeypatch):
    asked = []

    def busy(*_args):
        asked.append(1)
        raise LedgerBusyError("locked")

    monkeypatch.setattr(work.ledger, "put", busy)
    client = make().test_client()
    uids = [upload(client, DATA, 300) for _ in range(3)]
    asked.clear()
    make().test_client().get("/")
    assert len(asked) == 1
    assert pending(folder) == sorted(uids)
