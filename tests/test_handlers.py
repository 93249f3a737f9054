"""Arrays of handlers, the types python and set, and @Var."""

from __future__ import annotations

import json
import logging
import os
import threading
import types
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest

from runs import FakeContext, handler
from upload_helper.errors import InvalidHandlersError, UnknownNameError
from upload_helper.work import State, Work
from upload_helper.work.context import Reason, Stopped
from upload_helper.work.handlers import arrays
from upload_helper.work.handlers.arrays import DEEPEST, MOST_BRANCHES, MOST_HANDLERS, name_of, parse_handlers
from upload_helper.work.handlers.registry import Registry, call
from upload_helper.work.variables import resolve, resolve_json


@pytest.fixture
def context() -> FakeContext:
    return FakeContext()


@pytest.fixture
def trace(context) -> list:
    """Register ok, bad, and say=…; return the list that they write into."""
    said: list = []
    registry = context.work.registry

    @registry.function
    def ok(hashMap):
        said.append("ok")

    @registry.function
    def bad(hashMap):
        said.append("bad")
        raise ValueError("no tea")

    @registry.command("say")
    def say(value):
        said.append(value)

    return said


# --- the array ---


def test_handlers_run_in_their_order(context, trace):
    outcome = context.run(("set", "say=1"), ("python", "ok"), ("set", "say=2"))
    assert (trace, outcome.failed, outcome.error) == (["1", "ok", "2"], False, "")


def test_array_goes_on_after_a_failure_and_the_run_has_failed(context, trace):
    outcome = context.run(("python", "bad"), ("set", "say=@ErrorMessage"), ("python", "ok"))
    assert trace == ["bad", "python bad: ValueError: no tea", "ok"]
    assert (outcome.failed, outcome.error) == (True, "python bad: ValueError: no tea")


def test_error_says_how_many_more_there_were(context, trace):
    outcome = context.run(("python", "bad"), ("python", "nobody"), ("python", "bad"))
    assert outcome.error == "python bad: ValueError: no tea (and 2 more)"


def test_array_ends_at_a_failure_when_asked(context, trace):
    outcome = context.run(("set", "BreakHandlersIfError"), ("python", "ok"), ("python", "bad"), ("python", "ok"))
    assert (trace, outcome.failed) == (["ok", "bad"], True)


def test_array_ends_now_when_asked(context, trace):
    outcome = context.run(("python", "ok"), ("set", "BreakHandlers"), ("python", "bad"))
    assert (trace, outcome.failed) == (["ok"], False)


def test_function_ends_the_array(context, trace):
    context.work.registry.function("enough")(lambda hashMap: hashMap.put("BreakHandlers", ""))
    context.run(("python", "enough"), ("python", "bad"))
    assert trace == []


def test_break_in_post_execute_ends_that_array_only(context, trace):
    post = [handler("set", "BreakHandlers"), handler("python", "bad")]
    context.run(handler("set", "say=1", postExecute=post), ("python", "ok"))
    assert trace == ["1", "ok"]


def test_break_of_a_handler_lets_its_own_post_execute_run(context, trace):
    post = [handler("set", "say=1"), handler("set", "say=2")]
    context.run(handler("set", "BreakHandlers", postExecute=post), ("python", "bad"))
    assert trace == ["1", "2"]


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("method", ["ok", "bad"])
def test_post_execute_runs_success_or_not(context, trace, method, as_json):
    post = [handler("set", "say=after @ResultError")]
    context.run(handler("python", method, postExecute=json.dumps(post) if as_json else post))
    assert trace == [method, "after " + ("" if method == "ok" else "python bad: ValueError: no tea")]


def test_post_execute_in_post_execute(context, trace):
    inner = [handler("set", "say=2", postExecute=json.dumps([handler("set", "say=3")]))]
    context.run(handler("set", "say=1", postExecute=inner))
    assert trace == ["1", "2", "3"]


def test_failure_in_post_execute_is_the_failure_of_the_run(context, trace):
    outcome = context.run(handler("python", "ok", postExecute=[handler("python", "bad")]))
    assert (outcome.failed, trace) == (True, ["ok", "bad"])


def test_results_of_a_success_and_of_a_failure(context, trace):
    context.work.registry.function("answer")(lambda: "42")
    assert context.run(("python", "answer")).result == "42"
    assert context.variables == {"ResultMessage": "42", "ResultError": "", "ErrorMessage": ""}
    context.run(("python", "bad"))
    text = "python bad: ValueError: no tea"
    assert context.variables == {"ResultMessage": "", "ResultError": text, "ErrorMessage": text}


def test_result_survives_handlers_that_answer_nothing(context, trace):
    context.work.registry.function("answer")(lambda: [1, "ö"])
    outcome = context.run(("python", "answer"), ("set", "a=1"), ("python", "ok"))
    assert outcome.result == '[1, "ö"]'


# --- runasync ---


def test_runasync_starts_and_goes_on_and_the_run_waits_for_it(context, trace):
    begun, go_on = threading.Event(), threading.Event()

    @context.work.registry.function
    def slow(hashMap):
        begun.set()
        assert go_on.wait(5)
        trace.append("slow")

    @context.work.registry.function
    def next_one(hashMap):
        assert begun.wait(5)
        trace.append("next")
        go_on.set()

    context.run(handler("python", "slow", "runasync", postExecute=[handler("set", "say=post")]), ("python", "next_one"))
    assert trace == ["next", "slow", "post"]


def test_failure_of_runasync_is_the_failure_of_the_run(context, trace):
    outcome = context.run(handler("python", "bad", "runasync"), ("python", "ok"))
    assert (outcome.failed, outcome.error) == (True, "python bad: ValueError: no tea")
    assert context.variables["ResultError"] == ""  # it has its own variables


def test_runasync_works_on_a_copy_of_the_variables(context, trace):
    context.run(("set", "a=1"), handler("set", "a=2;say=@a", "runasync"))
    assert (context.variables["a"], trace) == ("1", ["2"])


def test_no_more_than_so_many_run_at_once(context, monkeypatch):
    monkeypatch.setattr(arrays, "_LOOK_SECONDS", 0.01)
    running, most, looks, lock, go_on = [0], [0], [0], threading.Lock(), threading.Event()

    def check():
        # The array waits for one of them to end; were there no limit, it would start the others meanwhile.
        looks[0] += running[0] == MOST_BRANCHES
        if looks[0] > 20:
            go_on.set()

    @context.work.registry.function
    def count(hashMap):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        assert go_on.wait(5)
        with lock:
            running[0] -= 1

    context.check = check
    outcome = context.run(*[handler("python", "count", "runasync")] * (MOST_BRANCHES + 4))
    assert (outcome.error, most[0], running[0]) == ("", MOST_BRANCHES, 0)


def test_stop_does_not_wait_for_what_runasync_started(context):
    go_on = threading.Event()

    @context.work.registry.function
    def forever(hashMap):
        context.reason = Reason.CANCELLED
        go_on.wait(5)

    with pytest.raises(Stopped):
        context.run(handler("python", "forever", "runasync"))
    go_on.set()


# --- progress and stopping ---


def test_runprogress_shows_progress_and_run_does_not(context):
    @context.work.registry.function
    def half(hashMap):
        hashMap.report(0.5, "halfway")

    context.run(("python", "half"))
    assert context.reports == []
    context.run(handler("python", "half", "runprogress"))
    assert context.reports == [(0, "python half"), (0.5, "halfway"), (1, "python half")]


def test_a_cancelled_run_ends_between_handlers_and_within_functions(context, trace):
    @context.work.registry.function
    def stubborn(hashMap):
        context.reason = Reason.CANCELLED
        try:
            hashMap.get("a")
        except Exception:  # noqa: BLE001
            trace.append("swallowed")
        trace.append("went on")

    with pytest.raises(Stopped):
        context.run(("python", "ok"), ("python", "stubborn"), ("python", "ok"))
    assert trace == ["ok"]


def test_no_post_execute_runs_for_a_stopped_handler(context, trace):
    @context.work.registry.function
    def cancelled(hashMap):
        context.reason = Reason.CONDITION

    with pytest.raises(Stopped):
        context.run(handler("python", "cancelled", postExecute=[handler("python", "ok")]))
    assert trace == []


# --- bad input ---

BAD = [
    ({"action": "jump", "type": "python", "method": "ok"}, "'jump' is no action of a handler"),
    ({"action": "run", "type": "java", "method": "ok"}, "'java' is no type of handler here; there are http, python"),
    ({"action": "run", "type": "python", "method": "os.system"}, "Nobody registered a function 'os.system'"),
    ({"action": "run", "type": "python"}, "no text as 'method', but None"),
    ({"action": "run", "type": 7, "method": "ok"}, "no text as 'type', but 7"),
    ({"action": ["run"], "type": "python", "method": "ok"}, "no text as 'action', but of type list"),
    ("run", "Handler 1 is 'run', not an object"),
    (None, "Handler 1 is None, not an object"),
    (handler("python", "ok", postExecute="[{"), "'[{' is not the JSON of handlers"),
    (handler("python", "ok", postExecute=[7]), "Handler 1 is 7, not an object"),
    (handler("python", "ok", postExecute=7), "A list of handlers is expected, not 7"),
    (handler("python", "ok", postExecute="[" * 100_000), "is not the JSON of handlers"),
    (handler("set", "a=@nothing"), "There is no variable 'nothing'"),
    (handler("sql", "select 1"), "No database is connected"),
    (handler("http", "GET #nobody/x"), "There is no alias 'nobody'"),
    (handler("http", "STEAL http://x/"), "A request is written METHOD #alias/path [body]"),
    (handler("python", "ok" * 5000), "Nobody registered a function 'okok"),
]


@pytest.mark.parametrize(("wrong", "text"), BAD, ids=[text[:40] for _, text in BAD])
def test_bad_handler_is_an_error_in_the_record_and_harms_no_other(context, trace, wrong, text):
    outcome = context.run(wrong, ("python", "ok"))
    assert outcome.failed
    assert text in outcome.error
    assert len(outcome.error) < 400
    assert trace == ["ok"]


@pytest.mark.parametrize(
    "value",
    [7, "7", "{", "x", b"[", [[]], ["x"], [{}], True, handler("python", "ok", postExecute="x")],
    ids=repr,
)
def test_what_is_no_array_is_refused(value):
    with pytest.raises(InvalidHandlersError):
        parse_handlers(value)


@pytest.mark.parametrize("value", [None, "", " ", [], "[]", ()], ids=repr)
def test_nothing_is_no_handlers(value):
    assert parse_handlers(value) == ()


def test_an_array_as_list_and_as_json_is_the_same():
    whole = [handler("set", "a=1", postExecute="[]")]
    assert parse_handlers(whole) == parse_handlers(json.dumps(whole)) == parse_handlers(whole[0]) == tuple(whole)


def nested(depth: int) -> dict:
    return handler("set", "x=1", **({"postExecute": [nested(depth - 1)]} if depth else {}))


def test_depth_and_number_of_handlers_are_limited(context):
    assert len(parse_handlers([nested(DEEPEST)])) == 1
    with pytest.raises(InvalidHandlersError, match="more than 8 times"):
        parse_handlers([nested(DEEPEST + 1)])
    with pytest.raises(InvalidHandlersError, match="1001 handlers"):
        parse_handlers([nested(0)] * (MOST_HANDLERS + 1))


def test_depth_is_limited_where_handlers_make_handlers(context, trace):
    loop = handler("set", "say=x")
    for _ in range(12):
        loop = handler("set", "say=x", postExecute=json.dumps([loop]))
    assert context.run(loop).failed
    assert trace == []


@pytest.mark.parametrize("error", [SystemExit(3), RecursionError("deep"), MemoryError(), Exception()], ids=repr)
def test_whatever_a_function_raises_is_in_the_record(context, trace, error):
    @context.work.registry.function
    def ends(hashMap):
        raise error

    outcome = context.run(("python", "ends"), ("python", "ok"))
    assert outcome.error.startswith(f"python ends: {type(error).__name__}")
    assert trace == ["ok"]


def test_long_errors_are_cut(context):
    @context.work.registry.function
    def long(hashMap):
        raise ValueError("x" * 10**6)

    assert len(context.run(("python", "long")).error) < 2100


def test_secrets_of_a_failing_handler_are_in_no_error_and_no_log(context, caplog):
    caplog.set_level(logging.DEBUG)
    context.run(("set", "token=hunter2;x=@nothing"), ("http", "GET https://anna:hunter2@127.0.0.1:1/?key=hunter2"))
    assert "hunter2" not in caplog.text
    assert "hunter2" not in context.variables["ResultError"]
    assert "token" in caplog.text


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (handler("python", "f"), "python f"),
        (handler("set", "password=x;beep;a=@b"), "set password;beep;a"),
        (handler("http", "GET https://a:b@h/p?token=x&y=1"), "http GET https://***@h/p?token=***&y=1"),
        (handler("sql", "insert\n  into t values(1)"), "sql insert into t values(1)"),
        (handler("python", "x" * 200), "python " + "x" * 73 + "…"),
        (7, "handler"),
    ],
)
def test_name_of_a_handler_shows_no_secret(given, name):
    assert name_of(given) == name


# --- python ---


def test_function_gets_what_the_platform_gives(context):
    seen = []

    @context.work.registry.function
    def whole(hashMap, _files=None, _data=None):
        seen.append((hashMap.get("a"), _files, _data))
        hashMap.put("b", hashMap.get("a") + "!")
        return hashMap

    context.variables["a"] = "1"
    outcome = context.run(("python", "whole"))
    assert (seen, context.variables["b"], outcome.result) == ([("1", None, None)], "1!", "")


@pytest.mark.parametrize("function", [lambda: 0, lambda a: a, lambda a, b: a, lambda *a: a[0], lambda a, *, k=1: a])
def test_functions_may_take_less(function):
    assert call(function, (0, 1, 2)) == 0


def test_names_are_found_in_the_modules_of_the_host_and_nowhere_else(context, trace):
    module = types.ModuleType("host_module")
    exec(
        "from os import system\nfrom json import loads\nimport os\ndef mine(h):\n    h.put('x', 1)\ndef _own(h): pass\nclass C: pass",
        vars(module),
    )
    context.work.registry.add_module(module)
    assert not context.run(("python", "mine")).failed
    for name in (
        "system",
        "loads",
        "os",
        "_own",
        "C",
        "__builtins__",
        "host_module.mine",
        "os.system",
        "mine()",
        "json.loads",
    ):
        assert "Nobody registered a function" in context.run(("python", name)).error


def test_nothing_is_imported_because_a_handler_says_so(context, tmp_path, monkeypatch):
    (tmp_path / "trap.py").write_text("import os; os.environ['TRAPPED'] = '1'\ndef f(h): pass")
    monkeypatch.syspath_prepend(tmp_path)
    context.run(("python", "trap"), ("python", "trap.f"), ("python", "__import__('trap')"))
    assert "TRAPPED" not in os.environ


def test_registering_takes_one_line_each():
    registry = Registry()
    registry.function(test_registering_takes_one_line_each)
    registry.function("other")(print)
    registry.command("beep")(print)
    registry.handler_type("mail")(print)
    assert set(registry.functions) == {"test_registering_takes_one_line_each", "other"}
    assert registry.find_type("mail") is registry.commands["beep"] is print
    for name in ("", "a b", "a;b", "x" * 101, 7):
        with pytest.raises(InvalidHandlersError):
            registry.command(name)


def test_handler_type_of_the_host(context):
    @context.work.registry.handler_type("mail")
    def mail(step):
        return f"to {step.method} about {step.handler['subject']}"

    assert context.run(handler("mail", "anna", subject="tea")).result == "to anna about tea"


# --- set ---


def test_set_takes_variables_and_commands(context, trace):
    context.run(("set", " a = 1 ;say;b=@a;; c=x=y; d=;say=@b@@c ;e=a @b c"))
    assert {k: context.variables[k] for k in "abcde"} == {"a": "1", "b": "1", "c": "x=y", "d": "", "e": "a 1 c"}
    assert trace == ["", "1@c"]


def test_value_with_semicolons_separates_nothing(context, trace):
    context.variables["evil"] = "1;say=owned;x=2"
    context.run(("set", "a=@evil"))
    assert (context.variables["a"], trace) == ("1;say=owned;x=2", [])


def test_value_keeps_its_type(context):
    context.variables["rows"] = [[1, 2]]
    context.run(("set", "SQLParameter=@rows"))
    assert context.variables["SQLParameter"] == [[1, 2]]


@pytest.mark.parametrize("method", ["speak=Secret text", "beep", "toast=Secret text", "unheard"])
def test_commands_that_nobody_registered_are_skipped_and_logged(context, caplog, method):
    caplog.set_level(logging.INFO)
    outcome = context.run(("set", method))
    assert not outcome.failed
    assert f"the command '{method.partition('=')[0]}'" in caplog.text
    assert "Secret" not in caplog.text
    assert set(context.variables) == {"ResultError", "ErrorMessage"}


def test_command_gets_value_and_variables(context):
    seen = []
    context.work.registry.command("speak")(lambda value, hashMap: seen.append((value, hashMap.get("a"))))
    context.run(("set", "a=1;speak=Данные загружены"))
    assert seen == [("Данные загружены", "1")]


# --- @Var ---

VARIABLES = {"a": "1", "name": 'O"Neill', "list": [1, "x"], "n": 7, "none": None, "größe": "5"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("@list", [1, "x"]),
        ("@n", 7),
        ("@none", None),
        ("x@none.", "x@none."),
        ("is @none.", "is ."),
        ("@a@a", "1@a"),
        ("@a @n", "1 7"),
        ("@list!", '[1, "x"]!'),
        ("@größe m", "5 m"),
        ("anna@example.org", "anna@example.org"),
        ("@@a", "@a"),
        ("@@@a", "@@a"),
        ("@", "@"),
        ("@1", "@1"),
    ],
)
def test_names_are_replaced(text, value):
    assert resolve(text, VARIABLES) == value


def test_unknown_name_is_an_error_that_says_how_to_write_an_at():
    with pytest.raises(UnknownNameError, match="no variable 'b'") as raised:
        resolve("tell @b", VARIABLES)
    assert "@@" in raised.value.remedy


@pytest.mark.parametrize(
    ("text", "body"),
    [
        ('{"n": "@name", "l": "@list", "t": "is @n"}', '{"n": "O\\"Neill", "l": [1, "x"], "t": "is 7"}'),
        ('["@none"]', "[null]"),
        ('{"a":  1}', '{"a":  1}'),
        ("@list", '[1, "x"]'),
        ("@name", 'O"Neill'),
        ("n=@n&x=@a", "n=7&x=1"),
        ('"@name"', '"O"Neill"'),
        ("", ""),
    ],
)
def test_bodies_are_json_where_they_were(text, body):
    assert resolve_json(text, VARIABLES) == body


# --- in the ledger ---


def test_bad_tasks_have_their_error_and_harm_no_other(tmp_path):
    work = Work(tmp_path / "work.db")
    done = []
    work.function("good")(lambda: done.append(1))
    work.connect_database(tmp_path / "no" / "such" / "folder.db")
    expected = {}
    for wrong, text in BAD:
        try:
            expected[work.start_work([wrong])] = text.replace("No database is connected", "unable to open database")
        except InvalidHandlersError as error:
            assert text in str(error)
        work.start_work([handler("python", "good")])
    work.runner().run_until_idle()
    tasks = {task.uid: task for task in work.list()}
    assert len(done) == len(BAD)
    assert {tasks[uid].state for uid in expected} == {State.FAILED}
    assert not [uid for uid, text in expected.items() if text not in tasks[uid].error]
    assert len(expected) > 5
    work.close()


# --- what is told of mistakes ---


@pytest.mark.parametrize("value", ["false", "False", " no ", "0"])
def test_flag_that_says_no_is_off(context, trace, value):
    context.run(("set", f"BreakHandlersIfError={value};BreakHandlers={value}"), ("python", "bad"), ("python", "ok"))
    assert trace == ["bad", "ok"]


@pytest.mark.parametrize(
    ("member", "meant"), [("postexecute", "postExecute"), ("metod", "method"), ("header", "headers")]
)
def test_member_that_is_misspelt_is_told(tmp_path, caplog, member, meant):
    with closing(Work(tmp_path / "work.db")) as work:
        work.start_work([{**handler("set", "a=1"), "postExecute": [handler("http", "GET x", **{member: "y"})]}])
    assert f"has a member '{member}', which means nothing; '{meant}' is known" in caplog.text


def test_member_of_a_type_of_ones_own_is_told_by_nobody(tmp_path, caplog):
    with closing(Work(tmp_path / "work.db")) as work:
        work.start_work([handler("shout", "x", headers={}, author="anna", volume=11)])
    assert caplog.text == ""


def one(hashMap): ...
def another(hashMap): ...


def test_name_that_is_taken_is_refused_unless_it_is_the_same_function():
    registry = Registry()
    reloaded = types.FunctionType(one.__code__, {"__name__": __name__}, "one")
    for register in (registry.function, registry.command, registry.handler_type):
        register("n")(one)
        register("n")(reloaded)
        with pytest.raises(InvalidHandlersError, match=r"'n' is registered already: \w+\.one; \w+\.another would"):
            register("n")(another)
    assert registry.functions["n"] is reloaded
    registry.handler_type("http")(one)
    assert registry.types["http"] is one


class Point: ...


@pytest.mark.parametrize("answer", [Point(), [1, {"a": Point()}], {(1, 2): 3}, iter([])])
def test_answer_that_is_an_object_is_refused(context, answer):
    context.work.registry.function("f")(lambda: answer)
    outcome = context.run(("python", "f"))
    assert outcome.error.startswith("python f: its answer can't be kept: ")
    assert (outcome.failed, outcome.result) == (True, "")


@pytest.mark.parametrize(
    ("answer", "kept"), [(Path("a"), '"a"'), ([date(2026, 1, 2)], '["2026-01-02"]'), (True, "true"), (("a",), '["a"]')]
)
def test_answer_that_can_be_written_is_kept(context, answer, kept):
    context.work.registry.function("f")(lambda: answer)
    assert context.run(("python", "f")).result == kept


@pytest.mark.parametrize("action", ["run", "runprogress"])
def test_progress_that_is_no_number_is_refused(context, action):
    context.work.registry.function("f")(lambda hashMap: hashMap.report("half"))
    outcome = context.run(handler("python", "f", action))
    assert "'half' is no progress: report(0.5, 'halfway')" in outcome.error


# --- what the log says ---


def test_failing_function_is_logged_once_with_its_task(context, trace, caplog):
    context.run(("python", "bad"), ("python", "nobody"))
    raised, unknown = caplog.records
    assert raised.getMessage().startswith("task t1: python bad failed\nTraceback")
    assert raised.getMessage().count("no tea") == 2  # in the line that raised it, and at the end
    assert unknown.getMessage().startswith("task t1: python nobody: Nobody registered")


def test_command_that_nobody_registered_is_a_warning_unless_it_needs_a_screen(context, caplog):
    caplog.set_level(logging.INFO)
    context.run(("set", "StartWrok;toast=hello"))
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "task t1: nobody registered the command 'StartWrok'; it is skipped"),
        ("INFO", "task t1: nobody registered the command 'toast'; it is skipped"),
    ]
