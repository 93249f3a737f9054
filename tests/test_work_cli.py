"""``upload-helper work …``: start, run, list, show, stop, install."""

from __future__ import annotations

import io
import json
import os
import plistlib
import pty
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from servers import PLUGIN
from upload_helper.cli import main
from upload_helper.cli.listing import Changes, Listing, line
from upload_helper.cli.table import Rows, print_table, watched
from upload_helper.errors import LedgerBusyError, WorkError
from upload_helper.work import Condition, State, Task, Work
from upload_helper.work.install import Worker, unit_of
from upload_helper.work.places import default_ledger

SET = '[{"action": "run", "type": "set", "method": "a=1"}]'
BAD = '[{"action": "run", "type": "set", "method": "a=@none"}]'
SECRET = "hunter2"


@pytest.fixture
def ledger(tmp_path, monkeypatch) -> Path:
    """The ledger of the environment; the current folder is empty."""
    path = tmp_path / "data" / "work.db"
    path.parent.mkdir()
    monkeypatch.setenv("UPLOAD_HELPER_LEDGER", str(path))
    monkeypatch.chdir(tmp_path)
    return path


@pytest.fixture
def run(ledger):
    """Return a function that runs a command and gives back its output; a failing one raises its error text."""

    def run(*arguments: str, stdin: str = "", code: int = 0) -> str:
        result = CliRunner().invoke(main, ["work", *arguments], input=stdin)
        assert result.exit_code == code, result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result.output

    return run


def listed(run, *arguments: str) -> list[dict]:
    return json.loads(run("list", "--json", *arguments))


# --- tasks ---


def test_task_is_started_run_listed_and_shown(run):
    uid = run("start", SET, "--tag", "survey", "--title", "Survey", "--retry").strip()
    assert [(t["uid"], t["state"], t["tag"], t["title"], t["retry"]) for t in listed(run)] == [
        (uid, "ENQUEUED", "survey", "Survey", True)
    ]
    assert run("run", "--until-idle") == "1 runs\n"
    (task,) = listed(run)
    assert (task["state"], task["attempt"], task["error"]) == ("SUCCEEDED", 1, "")
    row = run("list").splitlines()
    assert row[0].split() == ["uid", "tag", "title", "state", "progress", "attempt", "next", "note"]
    assert row[1].split()[:4] == [uid[:8], "survey", "Survey", "SUCCEEDED"]
    shown = dict(line.split(maxsplit=1) for line in run("show", uid[:6]).splitlines() if " " in line)
    assert (shown["uid"], shown["state"]) == (uid, "SUCCEEDED")
    assert json.loads(shown["handlers"]) == json.loads(SET)
    assert json.loads(run("show", uid, "--json"))["handlers"] == json.loads(SET)


def test_every_ledger_will_do(run, target, monkeypatch):
    monkeypatch.setenv("UPLOAD_HELPER_LEDGER", target)
    uid = run("start", SET, "--tag", "survey").strip()
    run("start", SET, "--tag", "other")
    run("stop", "other")
    run("run", "--until-idle")
    assert [(t["tag"], t["state"]) for t in listed(run)] == [("other", "CANCELLED"), ("survey", "SUCCEEDED")]
    assert uid in run("show", uid[:8])


@pytest.mark.parametrize("how", ["argument", "file", "stdin"])
def test_handlers_come_from_anywhere(run, tmp_path, how):
    (tmp_path / "task.json").write_text(SET)
    arguments = {"argument": SET, "file": "@task.json", "stdin": "-"}
    uid = run("start", arguments[how], stdin=SET if how == "stdin" else "").strip()
    assert listed(run)[0]["uid"] == uid


def test_output_of_start_and_stop_as_json(run):
    uid = json.loads(run("start", SET, "--tag", "a", "--json"))["uid"]
    assert listed(run)[0]["uid"] == uid
    assert json.loads(run("stop", "a", "--json")) == {"stopped": 1}


def test_stop_by_tag_and_by_uid(run):
    uids = [run("start", SET, "--tag", tag).strip() for tag in ("a", "a", "b", "c")]
    assert run("stop", "a") == "2 tasks stopped\n"
    assert run("stop", "--uid", uids[2][:8]) == "1 task stopped\n"
    assert run("stop", "nobody") == "0 tasks stopped\n"
    assert [t["state"] for t in listed(run)] == ["ENQUEUED", "CANCELLED", "CANCELLED", "CANCELLED"]
    assert "Name a tag" in run("stop", code=2)
    assert "Name a tag" in run("stop", "a", "--uid", "b", code=2)


def test_list_chooses(run):
    for tag in ("a", "a", "b"):
        run("start", SET, "--tag", tag)
    run("stop", "b")
    assert len(listed(run, "--tag", "a")) == 2
    assert [t["tag"] for t in listed(run, "--state", "cancelled")] == ["b"]
    assert len(listed(run, "--limit", "1")) == 1
    assert "WARM" in run("list", "--state", "WARM", code=2)


def test_keep_replace_conditions_and_period(run):
    first = run("start", SET, "--tag", "a", "--conditions", "IDLE;CHARGING").strip()
    assert run("start", SET, "--tag", "a", "--if-exists", "keep").strip() == first
    run("start", SET, "--tag", "a", "--if-exists", "REPLACE", "--period", "60")
    second, before = listed(run)
    assert (second["period"], second["state"], before["state"]) == (3600, "ENQUEUED", "CANCELLED")
    assert before["conditions"] == ["CHARGING", "IDLE"]


def test_database_of_sql_handlers(run, tmp_path):
    run("start", '[{"action": "run", "type": "sql", "method": "create table t(a)"}]', "--database", "goods.db")
    run("run", "--until-idle")
    assert (listed(run)[0]["error"], (tmp_path / "goods.db").exists()) == ("", True)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("start", "{"), "'{' is not the JSON of handlers"),
        (("start", "[]"), "nothing to do"),
        (("start", "@none.json"), "none.json cannot be read"),
        (("start", SET, "--tag", "x" * 10_000), "10000 characters; 200 are allowed"),
        (("start", SET, "--conditions", "WARM"), "'WARM' is no condition"),
        (("start", SET, "--period", "1"), "too short; 15 are the least"),
        (("start", SET, "--period", "60", "--retry"), "Periodic work is not retried"),
        (("show", "0" * 32), "There is no task"),
        (("show", ""), "There is no task"),
        (("list", "--ledger", "none.db"), "There is no ledger none.db"),
        (("stop", "a", "--ledger", "none.db"), "There is no ledger none.db"),
        (("run", "--until-idle", "--module", "no_such_module"), "'no_such_module' cannot be imported"),
        (("run", "--until-idle", "--app", "json"), "is no Work"),
        (("run", "--until-idle", "--app", "json:none"), "is no Work"),
        (("run", "--until-idle", "--ledger", f"postgresql+psycopg://u:{SECRET}@127.0.0.1:1/x"), "127.0.0.1"),
        (("run", "--until-idle", "--ledger", f"nosuch://u:{SECRET}@h/x"), ""),
    ],
)
def test_what_goes_wrong_is_one_line(run, arguments, text):
    if arguments[0] not in ("start", "run"):
        run("start", SET)
    output = run(*arguments, code=1)
    assert output.startswith("Error: ")
    assert text in output
    assert output.count("\n") < 3
    assert SECRET not in output


BAD_BYTES = os.fsdecode(b"a\xff")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("show", BAD_BYTES), "There is no task"),
        (("show", "x" * 65), "There is no task"),
        (("stop", "--uid", BAD_BYTES), "There is no task"),
        (("stop", BAD_BYTES), "is no tag"),
        (("list", "--tag", BAD_BYTES), "is no tag"),
        (("list", "--module", BAD_BYTES), "cannot be imported"),
        (("start", SET, "--title", BAD_BYTES), "is no title"),
        (("start", SET.replace("a=1", BAD_BYTES)), "can't be kept as JSON"),
        (("list", "--ledger", "x" * 5000), "File name too long"),
        (("list", "--ledger", f"postgresql+foo://u:{SECRET}@h/x"), "'postgresql+foo' is no database"),
        (("list", "--ledger", f"postgresql+psycopg2://u:{SECRET}@h/x"), "Give the path of a SQLite file, or a URL"),
    ],
)
def test_what_cannot_be_is_one_line_too(run, arguments, text):
    run("start", SET)
    output = run(*arguments, code=1)
    assert output.startswith("Error: ")
    assert text in output
    assert output.count("\n") < 3
    assert SECRET not in output


@pytest.mark.parametrize("path", ["/dev/null/x.db", "/proc/none/x.db", "/etc/passwd/x/y.db"])
def test_folder_that_cannot_be_made(run, monkeypatch, path):
    monkeypatch.setenv("UPLOAD_HELPER_LEDGER", path)
    assert "There is no ledger" in run("list", code=1)
    for command in (("start", SET), ("run", "--until-idle")):
        output = run(*command, code=1)
        assert f"Error: There can be no ledger '{path}'" in output
        assert "UPLOAD_HELPER_LEDGER" in output


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("cli_syntax", "def f(:\n", "SyntaxError: invalid syntax (cli_syntax.py, line 1)"),
        ("cli_zero", "x = 1\n1 / 0\n", "ZeroDivisionError: division by zero (cli_zero.py, line 2)"),
        ("cli_exit", "raise SystemExit(3)\n", "SystemExit: 3"),
        ("cli_missing", "import no_such_thing\n", "No module named 'no_such_thing'"),
    ],
)
@pytest.mark.parametrize("option", ["--module", "--app"])
def test_module_that_cannot_be_imported(run, tmp_path, name, text, said, option):
    run("start", SET)
    (tmp_path / f"{name}.py").write_text(text)
    output = run("list", option, name if option == "--module" else f"{name}:work", code=1)
    assert f"Error: The module {name!r} cannot be imported: " in output
    assert said in output


def test_function_of_a_host_that_makes_no_work(run, tmp_path):
    (tmp_path / "cli_maker.py").write_text("def make():\n    raise ValueError('no tea')\n")
    output = run("list", "--app", "cli_maker:make", code=1)
    assert "Error: 'cli_maker:make' makes no Work: ValueError: no tea (cli_maker.py, line 2)" in output
    assert "Correct the function." in output
    (tmp_path / "cli_none.py").write_text("def make():\n    return 7\n")
    assert "'cli_none:make' is no Work: it is of type int." in run("list", "--app", "cli_none:make", code=1)


HOST = """
from flask import Flask
from upload_helper.work import Work
app = Flask(__name__)
tasks = Work("host.db")
def tile(hashMap):
    return "called"
"""


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("cli_app:app", "'cli_app:app' is no Work: it is of type Flask. Did you mean cli_app:tasks?"),
        ("cli_app:tile", "'cli_app:tile' is no Work: it is of type function. Did you mean cli_app:tasks?"),
        ("cli_app", "'cli_app' is no Work: there is no 'work' in the module. Did you mean cli_app:tasks?"),
        ("cli_app:app.work", "there is no 'app.work' in the module"),
        ("json:loads", "it is of type function. Name a Work, or a function that makes one."),
        (":work", "':work' names no module. Write it as package.module:work."),
        (".cli:work", "'.cli' is no name of a module. Write it as package.module."),
        ("nix:work", "No module named 'nix'. Correct the name, or call this where the module is."),
    ],
)
@pytest.mark.parametrize("command", [["list"], ["run", "--until-idle"], ["install", "--print"]])
def test_app_that_is_no_work(run, tmp_path, app, said, command):
    (tmp_path / "cli_app.py").write_text(HOST)
    output = run(*command, "--app", app, code=1)
    assert output.startswith("Error: ")
    assert said in output


def test_work_of_a_host_has_its_ledger_already(run):
    for command in (["list"], ["run", "--until-idle"], ["install", "--print"]):
        assert "a Work has its ledger already" in run(*command, "--app", "x:work", "--ledger", "y.db", code=2)


def test_file_that_is_no_text(run, tmp_path):
    (tmp_path / "task.json").write_bytes(b"\xff\xfe")
    assert run("start", "@task.json", code=1) == "Error: task.json cannot be read: it is no text in UTF-8.\n"
    assert run("start", "@none.json", code=1) == "Error: none.json cannot be read: No such file or directory.\n"


def test_letters_that_the_output_cannot_take(run):
    run("start", SET, "--title", "Карта 🗺")
    environment = {**os.environ, "PYTHONPATH": str(PLUGIN), "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "upload_helper.cli", "work", "list"]
    done = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
    assert r"\u041a" in done.stdout


def test_a_failing_task_is_no_failing_command(run):
    run("start", BAD)
    run("run", "--until-idle")
    (task,) = listed(run)
    assert (task["state"], task["error"]) == ("FAILED", "set a: There is no variable 'none'.")
    assert "There is no variable 'none'" in run("list")


def test_uid_that_is_not_clear(run, ledger):
    work = Work(ledger)
    for uid in ("aa1", "aa2"):
        work.start_work(SET, uid=uid)
    work.close()
    assert "2 tasks begin with 'aa'" in run("show", "aa", code=1)
    assert "aa1" in run("show", "aa1")


def test_functions_of_a_module_and_a_work_of_a_host(run, tmp_path, ledger):
    (tmp_path / "cli_functions.py").write_text(
        "from pathlib import Path\ndef touch(hashMap):\n    Path('touched').write_text('x')\n"
    )
    (tmp_path / "cli_host.py").write_text(
        "from pathlib import Path\nfrom upload_helper.work import Work\n"
        "def make():\n    w = Work('host.db')\n    w.function('mine')(lambda: Path('mine').write_text('y'))\n    return w\n"
    )
    run("start", '[{"action": "run", "type": "python", "method": "touch"}]')
    run("run", "--until-idle")
    assert "function 'touch'" in listed(run)[0]["error"]
    run("start", '[{"action": "run", "type": "python", "method": "touch"}]')
    run("run", "--until-idle", "--module", "cli_functions")
    run("start", '[{"action": "run", "type": "python", "method": "mine"}]', "--app", "cli_host:make")
    run("run", "--until-idle", "--app", "cli_host:make")
    assert ((tmp_path / "touched").read_text(), (tmp_path / "mine").read_text()) == ("x", "y")


def test_no_secret_is_shown(run):
    handlers = [
        {
            "action": "run",
            "type": "http",
            "method": f"GET http://anna:{SECRET}@127.0.0.1:1/?token={SECRET}",
            "auth": f"Bearer {SECRET}",
            "postExecute": json.dumps([{"action": "run", "type": "set", "method": f"password={SECRET}"}]),
        }
    ]
    uid = run("start", json.dumps(handlers), "--database", "x.db").strip()
    run("run", "--until-idle")
    outputs = [run("list"), run("list", "--json"), run("show", uid), run("show", uid, "--json")]
    assert not [output for output in outputs if SECRET in output]
    assert "Nobody listens at this address" in outputs[0]


def test_text_of_others_does_not_play_with_the_terminal(run):
    run("start", SET, "--tag", "a\x1b[31mb\nc", "--title", "[red]x[/red]")
    assert "a?[31mb c" in run("list")
    assert "[red]x[/red]" in run("list")
    assert "\x1b" not in run("show", listed(run)[0]["uid"])


@pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
def test_ledger_of_this_user(monkeypatch, system, tmp_path):
    for name in ("UPLOAD_HELPER_LEDGER", "XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", system)
    assert Path(default_ledger()).is_relative_to(tmp_path)
    assert default_ledger().endswith("work.db")


def test_ledger_of_this_user_is_made(monkeypatch, tmp_path, run):
    monkeypatch.delenv("UPLOAD_HELPER_LEDGER")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    assert "There is no ledger" in run("list", code=1)
    run("start", SET)
    assert len(listed(run)) == 1
    assert (tmp_path / "share/upload-helper").stat().st_mode & 0o077 == 0


def test_missing_extra_is_named(monkeypatch, run):
    error = ModuleNotFoundError("No module named 'sqlalchemy'", name="sqlalchemy")

    def refuse(*_args, **_kwargs):
        raise error

    monkeypatch.setattr("upload_helper.work.places.open_work", refuse)
    assert "pip install 'flask-upload-helper[work]'" in run("list", code=1)


def test_help_needs_no_extra(tmp_path):
    program = (
        "import sys\n"
        "for name in ('sqlalchemy', 'psutil', 'requests', 'rich', 'psycopg'): sys.modules[name] = None\n"
        "from upload_helper.cli import main\n"
        "main(['work', '--help'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        env={**os.environ, "PYTHONPATH": str(PLUGIN)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, "install" in done.stdout) == (0, True), done.stderr


def test_worker_runs_as_a_process_until_sigterm(ledger, run):
    environment = {**os.environ, "PYTHONPATH": str(PLUGIN)}
    command = [sys.executable, "-m", "upload_helper.cli", "work", "run", "--poll=0.05"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            work = Work(ledger)
            uid = work.start_work(BAD)
            assert work.wait(uid, 20).state is State.FAILED
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
            assert "There is no variable 'none'" in process.stderr.read()
        finally:
            process.kill()
            work.close()


@pytest.mark.parametrize("command", [("run", "--poll=0.05"), ("list", "--watch")])
def test_live_table_in_a_terminal_until_ctrl_c(ledger, run, command):
    environment = {**os.environ, "PYTHONPATH": str(PLUGIN), "TERM": "xterm", "COLUMNS": "200"}
    command = [sys.executable, "-m", "upload_helper.cli", "work", *command]
    run("start", BAD, "--tag", "survey")
    if "list" in command:
        run("run", "--until-idle")
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        try:
            seen = b""
            while b"FAILED" not in seen:
                seen += os.read(ours, 10_000)
            assert b"survey" in seen
            assert b"WARNING" not in seen
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 0
        finally:
            process.kill()
            os.close(ours)


@pytest.mark.parametrize("arguments", [["--json"], []])
def test_watching_in_a_pipe_gives_a_line_for_each_change(ledger, run, arguments):
    uid = run("start", SET, "--title", "Survey").strip()
    command = [sys.executable, "-m", "upload_helper.cli", "work", "list", "--watch", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(PLUGIN)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            first = process.stdout.readline()
            run("stop", "--uid", uid)
            second = process.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert (process.stdout.read(), process.wait(10)) == ("", 0)
        finally:
            process.kill()
    if arguments:
        states = [(json.loads(text)["title"], json.loads(text)["state"]) for text in (first, second)]
    else:
        states = [tuple(text.split()[4:2:-1]) for text in (first, second)]
    assert states == [("Survey", "ENQUEUED"), ("Survey", "CANCELLED")]


def test_retry_lets_failed_and_cancelled_tasks_run_again(run):
    failed, cancelled, ended = (run("start", handlers).strip() for handlers in (BAD, SET, SET))
    run("stop", "--uid", cancelled)
    run("run", "--until-idle")
    assert run("retry", failed, cancelled[:8]) == "2 tasks waiting again\n"
    assert [(t["uid"], t["state"], t["error"]) for t in listed(run)[1:]] == [
        (cancelled, "ENQUEUED", ""),
        (failed, "ENQUEUED", ""),
    ]
    run("run", "--until-idle")
    assert [t["state"] for t in listed(run)] == ["SUCCEEDED", "SUCCEEDED", "FAILED"]
    assert json.loads(run("retry", failed, "--json")) == {"retried": 1}
    output = run("retry", "0" * 32, ended, failed, code=1)
    assert output.count("Error: ") == 3
    assert "There is no task" in output
    assert "0 tasks waiting again" in output


def test_worker_that_was_killed_is_told(run, ledger, tmp_path):
    (tmp_path / "cli_killer.py").write_text("import os, signal\ndef die():\n    os.kill(os.getpid(), signal.SIGKILL)\n")
    run("start", '[{"action": "run", "type": "python", "method": "die"}]')
    command = [sys.executable, "-m", "upload_helper.cli", "work", "run", "--until-idle", "--module", "cli_killer"]
    done = subprocess.run(command, check=False, env={**os.environ, "PYTHONPATH": str(PLUGIN)}, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    (task,) = listed(run)
    assert (task["state"], task["worker_gone"]) == ("RUNNING", True)
    assert "worker gone" in run("list")


def test_task_of_an_upload_goes_by_the_uid_of_the_upload(run, ledger):
    work = Work(ledger)
    uid = "0123456789abcdef" * 2
    work.start_work(SET, uid=f"upload-{uid}")
    work.close()
    row = run("list").splitlines()[1]
    assert row.split()[0] == uid[:8]
    for name in (uid, uid[:8], f"upload-{uid}", "upload-0"):
        assert f"upload-{uid}" in run("show", name)
    assert run("stop", "--uid", uid[:8]) == "1 task stopped\n"


def test_people_read_times_of_their_place(run):
    run("start", SET)
    run("run", "--until-idle")
    (task,) = listed(run)
    shown = dict(text.split(maxsplit=1) for text in run("show", task["uid"]).splitlines() if " " in text)
    for name in ("created", "started", "ended"):
        assert shown[name] == time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(task[name]))
    assert shown["progress"] == "100 %"


# --- the table ---

TASK = Task("0123456789abcdef", created=100.0)


def drawn(*tasks: Task, width: int = 200) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(Rows(Listing(tasks, gone=frozenset({"gone"})), now=1000.0))
    return console.file.getvalue().splitlines()[1:]


@pytest.mark.parametrize(
    ("values", "cells"),
    [
        ({"next_run": 900.0}, ["ENQUEUED", "0", "now"]),
        ({"next_run": 1065.0, "error": "no tea"}, ["ENQUEUED", "0", "in", "0:01:05", "no", "tea"]),
        ({"next_run": 1000.0 + 18_000, "attempt": 9}, ["ENQUEUED", "9", "in", "5:00:00"]),
        (
            {"state": State.BLOCKED, "conditions": frozenset({Condition.IDLE, Condition.CHARGING})},
            ["BLOCKED", "0", "CHARGING;IDLE"],
        ),
        (
            {"state": State.RUNNING, "progress": 0.25, "step_name": "half"},
            ["RUNNING", "██░░░░░░░░", "25", "%", "0", "half"],
        ),
        ({"state": State.SUCCEEDED, "progress": 1.0}, ["SUCCEEDED", "██████████", "100", "%", "0"]),
        ({"uid": "upload-0123456789", "state": State.FAILED, "error": "a\r\n  b"}, ["FAILED", "0", "a", "b"]),
    ],
)
def test_rows_of_the_table(values, cells):
    (row,) = drawn(Task(**{**vars(TASK), **values}))
    assert row.split() == ["01234567", *cells]


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (20, "{uid}  {state}"),
        (60, "{uid}  t{{11}}…  {state}  100 %  e{{13,}}…"),
        (80, "{uid}  g{{9}}…  t{{11,}}…  {state}  100 %  e{{20,}}…"),
        (100, "{uid}  g{{9}}…  t{{11,}}…  {state}  100 %  7        in 0:01:05  e{{15,}}…"),
        (120, "{uid}  g{{9}}…  t{{11,}}…  {state}  █{{10}} 100 %  7        in 0:01:05  e{{20,}}…"),
    ],
)
def test_narrow_terminal_shows_what_matters(width, columns):
    task = Task("0123456789", tag="g" * 99, title="t" * 99, attempt=7, progress=1.0, next_run=1065.0, error="e" * 99)
    rows = drawn(task, Task("upload-ab", state=State.SUCCEEDED), width=width)
    assert re.fullmatch(columns.format(uid="01234567", state="ENQUEUED ?"), rows[0].rstrip())
    assert (len(rows), "ab  " in rows[1], "SUCCEEDED" in rows[1]) == (2, True, True)
    assert max(map(len, rows)) <= width


def test_table_of_nothing():
    assert drawn() == []


def test_table_that_is_no_terminal_is_not_cut(capsys):
    print_table(Listing([Task("0" * 32, error="x" * 300, title="y" * 300)]))
    out = capsys.readouterr().out
    assert ("x" * 300 in out, "y" * 300 in out) == (True, True)


def test_task_whose_worker_is_gone():
    (row,) = drawn(Task("gone", state=State.RUNNING, progress=0.4, step_name="half"))
    assert "worker gone" in row


def test_changes_are_told_once_the_oldest_first():
    changes = Changes()
    old, new = TASK, Task("1" * 32)
    assert list(changes.since(Listing([new, old]))) == [old, new]
    assert list(changes.since(Listing([new, old]))) == []
    moved = Task(**{**vars(new), "state": State.RUNNING, "progress": 0.5})
    assert list(changes.since(Listing([moved, old]))) == [moved]
    assert list(changes.since(Listing([moved, old], gone=frozenset({moved.uid})))) == [moved]
    cells = line(moved, Listing(), now=0.0).split()
    assert cells[2:] == ["11111111", "RUNNING", "50", "%"]


def test_live_table_shows_what_changes_and_outlives_a_locked_ledger():
    states: list = [[TASK], LedgerBusyError("It is locked."), [Task(**{**vars(TASK), "state": State.SUCCEEDED})]]
    drawn_all = threading.Event()

    def tasks():
        state = states.pop(0) if len(states) > 1 else states[0]
        if len(states) == 1:
            drawn_all.set()
        if isinstance(state, Exception):
            raise state
        return state

    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with watched(lambda: Listing(tasks()), console):
        assert drawn_all.wait(5)
    text = console.file.getvalue()
    assert text.index("ENQUEUED") < text.index("It is locked.") < text.index("SUCCEEDED")


def test_ctrl_c_ends_the_live_table():
    with watched(lambda: Listing([TASK]), Console(file=io.StringIO(), force_terminal=True)):
        raise KeyboardInterrupt


# --- install ---

WORKER = Worker("/data/my work%.db", app="host:work", modules=["a", "b"], threads=3, folder=Path("/srv/my $folder"))


def test_systemd_unit(tmp_path):
    unit = unit_of(WORKER, "linux", tmp_path)
    written = unit.write()
    service = tmp_path / ".config/systemd/user/upload-helper.service"
    assert written == [service, tmp_path / ".config/systemd/user/default.target.wants/upload-helper.service"]
    assert written[1].resolve() == service
    assert service.stat().st_mode & 0o077 == 0
    lines = dict(line.split("=", 1) for line in service.read_text().splitlines() if "=" in line)
    assert lines["Environment"] == '"UPLOAD_HELPER_LEDGER=/data/my work%%.db"'
    assert lines["WorkingDirectory"] == "/srv/my $folder"
    assert shlex.split(lines["ExecStart"]) == WORKER.command
    assert WORKER.command[-4:] == ["--app=host:work", "--module=a", "--module=b", "--threads=3"]
    assert lines["Restart"] == "always"


def test_writing_a_unit_again_replaces_it(tmp_path):
    unit_of(WORKER, "linux", tmp_path).write()
    first, link = unit_of(Worker("/other.db"), "linux", tmp_path).write()
    assert "/other.db" in first.read_text() == link.read_text()
    assert {path.name for path in first.parent.iterdir()} == {first.name, "default.target.wants"}


@pytest.mark.parametrize("system", ["linux", "darwin", "windows"])
def test_unit_for_a_work_of_a_host_names_no_ledger(tmp_path, system):
    text = unit_of(Worker(app="host:work"), system, tmp_path).text
    assert "--app=host:work" in text
    assert not [name for name in ("UPLOAD_HELPER_LEDGER", "--ledger", "Environment=") if name in text]
    if system == "darwin":
        assert plistlib.loads(text.encode())["EnvironmentVariables"] == {}


def test_systemd_takes_the_unit(tmp_path):
    analyze = "/usr/bin/systemd-analyze"
    if not os.access(analyze, os.X_OK):
        pytest.skip("there is no systemd-analyze here")
    unit = unit_of(Worker("/data/x.db", folder=tmp_path), "linux", tmp_path)
    unit.write()
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    command = [analyze, "--user", "verify", str(unit.path)]
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_launchd_plist(tmp_path):
    (path,) = unit_of(WORKER, "darwin", tmp_path).write()
    assert path == tmp_path / "Library/LaunchAgents/upload-helper.plist"
    plist = plistlib.loads(path.read_bytes())
    assert plist["ProgramArguments"] == WORKER.command
    assert plist["EnvironmentVariables"] == {"UPLOAD_HELPER_LEDGER": WORKER.ledger}
    assert (plist["RunAtLoad"], plist["KeepAlive"], plist["WorkingDirectory"]) == (True, True, "/srv/my $folder")


def test_windows_task(tmp_path):
    unit = unit_of(Worker(r"C:\my data\a&b.db", folder=Path("C:/x")), "windows", tmp_path)
    (path,) = unit.write()
    names = {"t": "http://schemas.microsoft.com/windows/2004/02/mit/task"}
    action = ET.fromstring(path.read_bytes()).find("t:Actions/t:Exec", names)
    assert action.find("t:Command", names).text == sys.executable
    assert action.find("t:Arguments", names).text.endswith(r'work run --threads=2 "--ledger=C:\my data\a&b.db"')
    assert unit.commands == [["schtasks", "/Create", "/F", "/TN", "upload-helper", "/XML", str(path)]]


def test_windows_has_no_place_for_a_secret():
    with pytest.raises(WorkError, match="no place for a secret") as raised:
        unit_of(Worker(f"postgresql://u:{SECRET}@h/x"), "windows")
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("system", ["linux", "darwin", "windows"])
@pytest.mark.parametrize(
    "values", [{"name": "../x"}, {"name": ""}, {"ledger": "a\nExecStart=b"}, {"modules": ["a\nb"]}]
)
def test_units_that_cannot_be(system, values):
    with pytest.raises(WorkError):
        unit_of(Worker(**{"ledger": "/x.db", **values}), system)


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / ".config").write_text("a file")
    with pytest.raises(WorkError, match="cannot be written"):
        unit_of(WORKER, "linux", tmp_path).write()


def test_install_prints_what_it_wrote_and_what_is_left_to_do(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    path = tmp_path / ".config/systemd/user/field.service"
    preview = run("install", "--name", "field", "--print", "--ledger", "field.db")
    assert f"would write {path}" in preview
    assert not path.exists()
    output = run("install", "--name", "field", "--ledger", "field.db")
    assert f"wrote {path}" in output
    assert path.read_text() in output
    assert f"UPLOAD_HELPER_LEDGER={tmp_path / 'field.db'}" in output
    assert "systemctl --user restart field.service" in output
    assert "enable-linger" in output


def test_install_for_a_work_of_a_host(run, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    (tmp_path / "cli_installed.py").write_text("from upload_helper.work import Work\nwork = Work('host.db')\n")
    output = run("install", "--print", "--app", "cli_installed:work")
    assert "--app=cli_installed:work" in output
    assert "UPLOAD_HELPER_LEDGER" not in output
    output = run("install", "--print", "--name", "a b", code=1)
    assert output.startswith("Error: 'a b' cannot name a unit. Give another --name: ")


def test_install_starts_the_worker_when_asked(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    tool = tmp_path / "bin" / "systemctl"
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\necho "$@" >> ' + shlex.quote(str(tmp_path / "called")) + "\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    assert "It is started." in run("install", "--start")
    called = (tmp_path / "called").read_text().splitlines()
    assert called == ["--user daemon-reload", "--user restart upload-helper.service"]
    tool.write_text("#!/bin/sh\necho no bus >&2; exit 1\n")
    assert "systemctl --user daemon-reload failed: no bus" in run("install", "--start", code=1)


def test_install_shows_no_secret_of_the_ledger(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert SECRET not in run("install", "--ledger", f"postgresql+psycopg://u:{SECRET}@h/x")
    unit = (tmp_path / ".config/systemd/user/upload-helper.service").read_text()
    assert SECRET in unit
    assert SECRET not in next(line for line in unit.splitlines() if line.startswith("ExecStart"))
