"""The type sql: values are bound, rows go in all together or not at all, and a bad database harms nobody else."""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from runs import FakeContext
from upload_helper.errors import SqlHandlerError
from upload_helper.work import statements
from upload_helper.work.context import Reason, Stopped

INSERT = "insert into goods(art, barcode, nom) values(?,?,?)"


@pytest.fixture
def path(tmp_path) -> Path:
    path = tmp_path / "goods.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("create table goods(art text, barcode text, nom text not null)")
    return path


@pytest.fixture
def context(path) -> FakeContext:
    return FakeContext(SQLConnectDatabase=str(path))


def rows(path: Path, query: str = "select * from goods") -> list:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(query).fetchall()


def run(context: FakeContext, statement: str, parameter: object = None, **variables) -> str:
    """Run one statement and return its error."""
    context.variables.update(variables)
    if parameter is not None:
        context.variables["SQLParameter"] = parameter
    return context.run(("sql", statement)).error


# --- parameters ---


@pytest.mark.parametrize(
    ("parameter", "kept"),
    [
        (["a", 1, "x"], [("a", "1", "x")]),
        ('["a", 1, "ü"]', [("a", "1", "ü")]),
        ([["a", "1", "x"], ["b", None, "y"]], [("a", "1", "x"), ("b", None, "y")]),
        (' [["a", "1", "x"]]', [("a", "1", "x")]),
        ([], []),
        ("[]", []),
        ([["'); drop table goods; --", "?", "@x"]], [("'); drop table goods; --", "?", "@x")]),
        ([{"k": [1]}, True, 1.5], [('{"k": [1]}', "1", "1.5")]),
    ],
)
def test_rows_are_bound(context, path, parameter, kept):
    assert run(context, INSERT, parameter) == ""
    assert rows(path) == kept


@pytest.mark.parametrize(
    ("parameter", "text"),
    [
        (None, "must be an array to fill the ?, not None"),
        ("", "must be an array to fill the ?, not ''"),
        ("4607", "must be an array"),
        ("[1", "is '[1', which is not JSON"),
        ('{"art": 1}', "must be an array"),
        (["a", "b"], "has 3 ?, and SQLParameter 2 values"),
        ([["a", "b", "c"], ["a"]], "has 3 ?, and SQLParameter 1 values"),
        ([["a", "b", "c"], "d"], "mixes arrays and single values"),
        ([2**70, "b", "c"], "OverflowError"),
        (["a", "b", None], "IntegrityError: NOT NULL constraint failed"),
        (["\ud800", "b", "c"], "UnicodeEncodeError"),
    ],
)
def test_bad_parameters_change_nothing(context, path, parameter, text):
    assert text in run(context, INSERT, parameter)
    assert rows(path) == []


def test_all_rows_or_none(context, path):
    assert "NOT NULL" in run(context, INSERT, [["a", "b", "c"]] * 10 + [["a", "b", None]])
    assert rows(path) == []


def test_variables_are_bound_by_name_also_beside_question_marks(context, path):
    assert run(context, "insert into goods values(@art, ?, @nom)", ["7"], art="a'b", nom="@art ?") == ""
    assert rows(path) == [("a'b", "7", "@art ?")]


def test_names_in_texts_and_comments_are_left_alone(context, path):
    statement = "insert into goods([art], `barcode`, \"nom\") values('@x?', @a, /* @x ? */ 'it''s @x') -- @x ?"
    assert run(context, statement, a="1") == ""
    assert rows(path) == [("@x?", "1", "it's @x")]


def test_variable_that_there_is_not(context, path):
    assert "There is no variable 'missing'" in run(context, "delete from goods where art = @missing")


@pytest.mark.parametrize("place", [":art", "$art", "?1"])
def test_other_ways_to_name_a_place_are_refused(context, place):
    assert f"'{place}' is not taken" in run(context, f"select {place}", ["x"])


# --- answers ---


def test_select_writes_its_rows(context):
    run(context, INSERT, [["a", "1", "ö"], ["b", None, "y"]])
    assert run(context, "select art, barcode b, nom, rowid from goods order by art") == ""
    assert json.loads(context.variables["SQLResult"]) == [
        {"art": "a", "b": "1", "nom": "ö", "rowid": 1},
        {"art": "b", "b": None, "nom": "y", "rowid": 2},
    ]
    assert "ö" in context.variables["SQLResult"]


@pytest.mark.parametrize(
    ("statement", "result"),
    [
        ("select 1 a, 2 a, 3 a", [{"a": 1, "a:1": 2, "a:2": 3}]),
        ("select x'00ff' b", [{"b": "AP8="}]),
        ("select 1 a where 0", []),
        ("values(1)", [{"column1": 1}]),
        ("with t(a) as (select 5) select a from t", [{"a": 5}]),
        ("/* */ -- x\n select 1 a", [{"a": 1}]),
        ("insert into goods values(1, 2, 3) returning art", [{"art": "1"}]),
        ("pragma user_version", [{"user_version": 0}]),
    ],
)
def test_answers(context, statement, result):
    assert run(context, statement) == ""
    assert json.loads(context.variables["SQLResult"]) == result


def test_a_change_leaves_the_last_answer_alone(context):
    run(context, "select 1 a")
    run(context, "delete from goods")
    assert context.variables["SQLResult"] == '[{"a": 1}]'


def test_endless_answer_is_cut_off(context, monkeypatch):
    monkeypatch.setattr(statements, "MOST_RESULT", 10_000)
    endless = "with recursive t(n) as (select 1 union all select n + 1 from t) select n from t"
    assert "longer than 10000 characters" in run(context, endless)


# --- failures ---


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("insert into nowhere values(1)", "no such table: nowhere"),
        ("selekt 1", "syntax error"),
        ("delete from goods; drop table goods", "one statement at a time"),
        ("BEGIN", "BEGIN is not taken"),
        ("-- x\ncommit", "COMMIT is not taken"),
        ("select load_extension('x')", "not authorized"),
        ("select '\0'", "null"),
    ],
)
def test_statement_that_fails(context, path, statement, text):
    assert text in run(context, statement)
    assert rows(path, "select count(*) from goods") == [(0,)]


def test_empty_statement_does_nothing(context):
    assert run(context, "") == ""


@pytest.mark.parametrize("broken", ["missing folder", "a folder", "corrupt", "not a database"])
def test_database_that_is_none(context, path, broken):
    if broken == "missing folder":
        context.variables["SQLConnectDatabase"] = str(path.parent / "no" / "x.db")
    elif broken == "a folder":
        context.variables["SQLConnectDatabase"] = str(path.parent)
    elif broken == "corrupt":
        data = bytearray(path.read_bytes())
        data[100:120] = b"\xff" * 20
        path.write_bytes(data)
    else:
        path.write_bytes(b"not a database" * 1000)
    assert "sql insert into goods" in (error := run(context, INSERT, ["a", "b", "c"]))
    assert any(text in error for text in ("unable to open", "malformed", "not a database"))


@pytest.mark.parametrize(("state", "text"), [("query_only = 1", "readonly"), ("max_page_count = 2", "is full")])
def test_read_only_and_full_databases(context, path, monkeypatch, state, text):
    connect = statements._connect

    def broken(path):
        database = connect(path)
        database.execute(f"pragma {state}")
        return database

    monkeypatch.setattr(statements, "_connect", broken)
    assert text in run(context, INSERT, [["a", "b", "c"], ["a", "b", "x" * 20_000]])
    assert rows(path) == []


@pytest.fixture
def lock(path):
    """Another program that has the database."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("begin exclusive")
        yield database


def test_locked_database_is_waited_for(context, path, lock):
    def check():
        context.checks += 1
        if context.checks == 4:
            lock.execute("rollback")

    context.check = check
    assert run(context, INSERT, ["a", "b", "c"]) == ""
    assert rows(path) == [("a", "b", "c")]


@pytest.mark.parametrize("statement", ["delete from goods", "select * from goods"])
def test_locked_database_is_given_up_in_the_end(context, lock, monkeypatch, statement):
    monkeypatch.setattr(statements, "WAIT_SECONDS", 0.1)
    assert "database is locked" in run(context, statement)


def test_select_needs_no_lock_to_write(context, path):
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("begin immediate")
        assert run(context, "select * from goods") == ""


def test_waiting_for_a_lock_ends_with_the_run(context, lock):
    checks = []

    def check():
        checks.append(1)
        if len(checks) > 3:
            raise Stopped(Reason.CANCELLED)

    context.check = check
    with pytest.raises(Stopped):
        run(context, "delete from goods")


def test_long_statement_ends_with_the_run_and_changes_nothing(context, path):
    started = threading.Event()

    def check():
        if started.is_set():
            raise Stopped(Reason.CANCELLED)
        if len(checks) > 5:
            started.set()
        checks.append(1)

    checks: list[int] = []
    context.check = check
    endless = "insert into goods with recursive t(n) as (select 1 union all select n + 1 from t) select n, n, n from t"
    with pytest.raises(Stopped):
        run(context, endless)
    assert rows(path) == []


def test_progress_of_many_rows(context, path):
    step = context.step("sql", INSERT)
    context.variables["SQLParameter"] = [["a", "b", "c"]] * 3000
    context.run({**step.handler, "action": "runprogress"})
    assert [progress for progress, _ in context.reports] == [0, 0, 1 / 3, 2 / 3, 1]
    assert rows(path, "select count(*) from goods") == [(3000,)]


def test_database_of_the_work_is_the_default(path):
    context = FakeContext()
    context.work.connect_database(path)
    assert run(context, "select count(*) n from goods") == ""


def test_errors_keep_their_class(context):
    with pytest.raises(SqlHandlerError):
        statements.execute(context.variables["SQLConnectDatabase"], "x", None, {}, check=context.check)


def test_columns_without_a_name_are_called_as_they_are_written(context):
    assert run(context, "select ?, ? + 1, @n, upper(@n) as big", [1, 2], n="x") == ""
    assert json.loads(context.variables["SQLResult"]) == [{"?": 1, "? + 1": 3, "@n": "x", "big": "X"}]
