"""Whatever somebody writes into a handler, a command or a statement: an error that says so, and nothing else."""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from runs import FakeContext, FakeWork, handler
from upload_helper.errors import Error, HandlerError
from upload_helper.transfer.addresses import HIDDEN, scrubbed
from upload_helper.work.aliases import Alias, hidden
from upload_helper.work.handlers.arrays import ACTIONS, MOST_TEXT, name_of, parse_handlers, run_handlers
from upload_helper.work.handlers.http import read_request
from upload_helper.work.simpleui import _COMMANDS, HashMap, run_commands
from upload_helper.work.statements import execute
from upload_helper.work.variables import resolve, resolve_json

TEXT = st.text(max_size=20) | st.sampled_from(
    ["", "@a", "@@", "a=@a;b;=;", "#x/y", "GET #x/y @a", "?", "[", "[[]]", "{}"]
)
SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
JSON = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8
)
VARIABLES = st.dictionaries(
    st.sampled_from(["a", "b", "SQLParameter", "ResultMessage", "BreakHandlers"]), JSON, max_size=4
)
HANDLER = st.fixed_dictionaries(
    {
        "action": st.sampled_from(ACTIONS) | JSON,
        "type": st.sampled_from(["python", "set", "sql", "nothing"]) | JSON,
        "method": TEXT | JSON,
    },
    optional={"postExecute": JSON | st.builds(json.dumps, JSON), "headers": JSON, "basic": JSON, "auth": JSON},
)
QUICK = settings(max_examples=150, deadline=None)


@QUICK
@given(st.lists(HANDLER | JSON, max_size=3), VARIABLES)
def test_no_handler_raises(handlers, variables):
    context = FakeContext(**variables)
    outcome = run_handlers(handlers, context, context.work.registry)
    assert outcome.failed == bool(outcome.error)
    assert len(outcome.error) < MOST_TEXT + 200
    assert isinstance(outcome.result, str)


@QUICK
@given(JSON | st.lists(HANDLER, max_size=3) | st.builds(json.dumps, JSON))
def test_arrays_are_read_or_refused(value):
    with suppress(HandlerError):
        handlers = parse_handlers(value)
        assert parse_handlers(handlers) == handlers
        assert all(name_of(one) for one in handlers)


@QUICK
@given(TEXT, VARIABLES, st.fixed_dictionaries({}, optional={"headers": JSON, "basic": JSON, "auth": JSON}))
def test_requests_are_read_or_refused(method, variables, members):
    context = FakeContext(**variables)
    context.work.add_alias("x", "http://127.0.0.1:1")
    with suppress(HandlerError):
        request = read_request(context.step("http", method, **members))
        assert request.endpoint.url.startswith("http://127.0.0.1:1/")


@QUICK
@given(st.dictionaries(st.sampled_from([*_COMMANDS, "a", "speak"]), JSON | st.builds(json.dumps, JSON), max_size=3))
def test_commands_are_run_or_refused(values):
    with tempfile.TemporaryDirectory() as folder:
        work = FakeWork()
        hash_map = HashMap(dict(values))
        if "SQLConnectDatabase" in values:
            hash_map.put("SQLConnectDatabase", str(Path(folder) / "x.db"))
        with suppress(Error):
            run_commands(hash_map, work)
        assert not set(hash_map) & set(_COMMANDS)


@QUICK
@given(st.sampled_from(["select ?", "select ?, @a", "select '?', @a -- ?", "@a", "?"]) | TEXT, JSON, VARIABLES)
def test_statements_are_run_or_refused(statement, parameters, variables):
    with suppress(HandlerError):
        answer = execute(":memory:", statement, parameters, variables, check=lambda: None)
        assert answer is None or isinstance(json.loads(answer), list)


@QUICK
@given(TEXT, VARIABLES)
def test_names_are_replaced_or_refused(text, variables):
    for replace in (resolve, resolve_json):
        with suppress(HandlerError):
            replace(text, variables)


SECRET = "hunter2hunter2"


@QUICK
@given(
    JSON,
    st.sampled_from(
        [
            {"password": SECRET},
            {"headers": {"X": SECRET}},
            {"basic": ["a", SECRET]},
            f"http://a:{SECRET}@b/",
            f"?token={SECRET}",
            json.dumps({"auth": SECRET}),
            handler("set", f"a=1;secret={SECRET}"),
        ]
    ),
    st.lists(st.sampled_from(["list", "object", "json"]), max_size=4),
)
def test_secrets_are_hidden_however_deep(other, secret, wraps):
    value = secret
    for wrap in wraps:
        value = {"list": [other, value], "object": {"x": value}, "json": value}[wrap]
        if wrap == "json":
            value = json.dumps([value])
    shown = json.dumps(hidden(value))
    assert SECRET not in shown
    assert HIDDEN in shown


@QUICK
@given(TEXT)
def test_scrubbing_twice_is_scrubbing_once(text):
    assert scrubbed(scrubbed(text)) == scrubbed(text)


@QUICK
@given(JSON, JSON, JSON, JSON)
def test_aliases_are_kept_or_refused(name, headers, basic, auth):
    with suppress(HandlerError):
        alias = Alias.of(name, "https://a", headers, basic, auth)
        assert Alias.from_dict(alias.name, json.loads(json.dumps(alias.as_dict()))) == alias
