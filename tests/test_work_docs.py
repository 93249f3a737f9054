"""What docs/work.md prints is true: snippets run, tables match the code."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields

import pytest
from click.testing import CliRunner

from chunks import upload
from test_docs import ROOT, here, run, snippets  # noqa: F401
from upload_helper.cli import main
from upload_helper.work import Condition, State, Task
from upload_helper.work.handlers.arrays import ACTIONS
from upload_helper.work.handlers.step import Step
from upload_helper.work.simpleui import _COMMANDS

TEXT = (ROOT / "docs" / "work.md").read_text()


def named(column: str) -> list[str]:
    """Return what the first column of the table with this head says; several in a cell are several."""
    rows = TEXT.partition(f"\n| {column} |")[2].split("\n\n")[0].splitlines()[2:]
    return [name for line in rows for name in re.findall(r"`([^`]+)`", line.split("|")[1])]


def test_first_snippet_does_what_the_page_says(here):  # noqa: F811
    module = run(snippets("python", "work.md", "Background work")[0])
    assert (module.task.state, module.task.error) == (State.SUCCEEDED, "")
    assert module.rows == [("Apples",), ("Bread",)]


def test_types_functions_and_commands_of_ones_own(here, capsys):  # noqa: F811
    run(snippets("python", "work.md", "Handlers")[0])
    assert capsys.readouterr().out == "\a DONE, 7 m\n"


def test_condition_that_does_not_hold(here):  # noqa: F811
    module = run(snippets("python", "work.md", "Conditions")[0])
    assert module.state is State.BLOCKED


def test_handler_of_the_platform(here):  # noqa: F811
    module = run(snippets("python", "work.md", "SimpleUI")[0])
    (task,) = module.tasks
    assert (task.retry, task.conditions) == (True, {Condition.CHARGING})


def test_commands_of_a_shell(here, monkeypatch):  # noqa: F811
    monkeypatch.setenv("UPLOAD_HELPER_LEDGER", "field.db")
    (snippet,) = snippets("sh", "work.md")

    for line in snippet.text.splitlines():
        program, *arguments = shlex.split(line)
        result = CliRunner().invoke(main, arguments)
        assert (program, result.exit_code) == ("upload-helper", 0), result.output
    assert '"state": "SUCCEEDED"' in result.output


def test_tables_match_the_code():
    (actions,) = re.findall(r"^\| `action` \| (.*) \|$", TEXT, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", actions)) == set(ACTIONS)
    assert named("condition") == list(Condition)
    shown = set(named("command | value"))
    assert shown == set(_COMMANDS)


def test_every_command_of_the_shell_is_in_the_table():
    work = main.commands["work"]
    assert sorted(named("command | what it does")) == sorted(f"upload-helper work {name}" for name in work.commands)


@pytest.mark.parametrize("name", sorted(main.commands["work"].commands))
def test_help_says_the_same(name):
    (line,) = re.findall(rf"^\| `upload-helper work {name}` \| (.*?) \|$", TEXT, re.MULTILINE)
    help_text = main.commands["work"].commands[name].get_short_help_str(200)
    assert line.partition(",")[0].partition(";")[0].partition(" with")[0].rstrip(".") in help_text


def test_tasks_are_started_and_stopped_as_the_page_says(here):  # noqa: F811
    module = run(snippets("python", "work.md", "Start, stop, look")[0])
    assert module.first == module.same
    assert module.stopped == 1
    assert (module.task.state, module.task.result) == (State.SUCCEEDED, "42 points")


def test_attributes_of_a_task_and_members_of_a_step_are_in_the_tables():
    known = {field.name for field in fields(Task)} - {"kind", "cancel"}
    assert sorted(named("attribute of a task")) == sorted(known)
    members = {name.partition("(")[0] for name in named("member of `step`")}
    assert members == {name for name in {*dir(Step), *Step.__annotations__} if not name.startswith("_")}


def test_states_are_in_the_table():
    assert sorted(named("state")) == sorted(State)


def test_handlers_run_after_an_upload(here):  # noqa: F811
    module = run(snippets("python", "work.md", "After an upload")[0])
    client = module.app.test_client()
    uid = upload(client, b"0123456789", 4, name="map.tif")
    done = module.work.wait(f"upload-{uid}", 10)
    assert (done.state, done.result) == (State.SUCCEEDED, "map.tif: 10 bytes")
    assert (here / f"published-{uid}.bin").read_bytes() == b"0123456789"
    assert client.get(f"/uploads/{uid}/job").json["state"] == "SUCCEEDED"
    assert set(done.variables) == set(
        re.findall(r"`(\w+)`", TEXT.partition("Their variables are ")[2].partition(".")[0])
    )
    module.work.close()
