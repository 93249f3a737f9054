"""Aliases: what they hold, and that it is shown nowhere."""

from __future__ import annotations

import json
import logging
import time
from contextlib import suppress

import pytest

from runs import FakeContext, handler
from upload_helper.errors import HandlerError, InvalidHandlersError, UnknownNameError
from upload_helper.transfer.addresses import HIDDEN, own_headers, scrubbed
from upload_helper.work import Backoff, Work
from upload_helper.work.aliases import Alias, hidden
from upload_helper.work.handlers.arrays import name_of
from upload_helper.work.handlers.http import read_request
from upload_helper.work.statements import _prepared
from upload_helper.work.variables import resolve_json

SECRET = "hunter2-ü"
BASIC = "Basic YW5uYTpodW50ZXIyLcO8"


@pytest.mark.parametrize(
    ("given", "url", "headers"),
    [
        ({"url": "https://a.example/"}, "https://a.example", {}),
        ({"url": "http://a:8080/x/"}, "http://a:8080/x", {}),
        ({"url": "https://a", "headers": {"X-Key": SECRET}}, "https://a", {"X-Key": SECRET}),
        ({"url": "https://a", "basic": ("anna", SECRET)}, "https://a", {"Authorization": BASIC}),
        ({"url": "https://a", "basic": {"user": "anna", "password": SECRET}}, "https://a", {"Authorization": BASIC}),
        ({"url": "https://anna:hunter2-%C3%BC@a"}, "https://a", {"Authorization": BASIC}),
        ({"url": "https://a", "auth": "Bearer x"}, "https://a", {"Authorization": "Bearer x"}),
        ({"url": "https://a:b@c", "auth": "Bearer x"}, "https://c", {"Authorization": "Bearer x"}),
    ],
)
def test_alias_holds_address_and_headers(given, url, headers):
    alias = Alias.of("office", **given)
    assert (alias.url, alias.headers) == (url, headers)
    assert Alias.from_dict("office", json.loads(json.dumps(alias.as_dict()))) == alias


@pytest.mark.parametrize(
    "given",
    [
        {"name": ""},
        {"name": "a b"},
        {"name": "a/b"},
        {"name": "#a"},
        {"name": "x" * 201},
        {"name": None},
        {"url": ""},
        {"url": "a.example"},
        {"url": "file:///etc/passwd"},
        {"url": "ftp://a"},
        {"url": f"https://{SECRET}@"},
        {"url": f"gopher://anna:{SECRET}@a"},
        {"url": "https://a:99999"},
        {"url": "https://a\r\nX: y"},
        {"url": "https://[::1"},
        {"url": None},
        {"headers": {"X Y": SECRET}},
        {"headers": {"X": f"{SECRET}\r\nY: z"}},
        {"headers": {"X": f"{SECRET} ключ"}},
        {"headers": [SECRET]},
        {"headers": SECRET},
        {"auth": f"Basic {SECRET}\n"},
        {"basic": SECRET},
        {"basic": [SECRET]},
    ],
    ids=repr,
)
def test_bad_alias_is_refused_and_no_secret_is_in_the_error(given):
    with pytest.raises(InvalidHandlersError) as raised:
        Alias.of(**{"name": "office", "url": "https://a", **given})
    assert SECRET not in f"{raised.value}{raised.value.as_json()}"


@pytest.mark.parametrize("kept", [None, {}, {"url": 7}, {"url": "x"}, {"url": "https://a", "headers": 7}], ids=repr)
def test_what_the_ledger_does_not_keep_or_cannot_be_read(kept):
    with pytest.raises(UnknownNameError, match="'office'"):
        Alias.from_dict("office", kept)


def test_records_of_newer_versions_can_be_read():
    assert Alias.from_dict("a", {"url": "https://a", "color": 1}).headers == {}


def test_repr_shows_no_secret():
    alias = Alias.of("office", f"https://anna:{SECRET}@a.example", {"X-Key": SECRET}, auth=f"Bearer {SECRET}")
    assert repr(alias) == "Alias(name='office', url='https://a.example')"
    step = FakeContext(password=SECRET).step("http", "GET https://a", auth=SECRET)
    assert SECRET not in repr(step)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"auth": SECRET, "basic": {"user": "a", "password": SECRET}}, {"auth": HIDDEN, "basic": HIDDEN}),
        ({"headers": {"Accept": "*/*", "X-Any": SECRET}}, {"headers": {"Accept": "*/*", "X-Any": HIDDEN}}),
        ({"method": f"GET https://anna:{SECRET}@a/b?c=d"}, {"method": f"GET https://{HIDDEN}@a/b?c=d"}),
        ({"method": f"GET #a/b?x=1&token={SECRET}&y=2"}, {"method": f"GET #a/b?x=1&token={HIDDEN}&y=2"}),
        ([{"postExecute": [{"auth": SECRET}]}], [{"postExecute": [{"auth": HIDDEN}]}]),
        ({"postExecute": json.dumps([{"auth": SECRET}])}, {"postExecute": [{"auth": HIDDEN}]}),
        (
            {"password": SECRET, "apiKey": SECRET, "x_token": SECRET},
            dict.fromkeys(("password", "apiKey", "x_token"), HIDDEN),
        ),
        ({"Authorization": SECRET, "set-cookie": SECRET}, {"Authorization": HIDDEN, "set-cookie": HIDDEN}),
        ({"type": "set", "method": f"password={SECRET};a=1"}, {"type": "set", "method": f"password={HIDDEN};a=1"}),
        (
            {"type": "sql", "method": f"update t set p='{SECRET}', \"a'b\" = ? -- don't\nwhere q='it''s {SECRET}'"},
            {"type": "sql", "method": "update t set p='***', \"a'b\" = ? -- don't\nwhere q='***''***'"},
        ),
        ({"type": "sql", "method": f"select '{SECRET}"}, {"type": "sql", "method": "select '***'"}),
        (
            {"type": "http", "method": f'POST #a/b {{"password": "{SECRET}", "n": @n}}'},
            {"type": "http", "method": 'POST #a/b {"password": "***", "n": @n}'},
        ),
        ({"password": "", "tag": "survey", "n": 7}, {"password": "", "tag": "survey", "n": 7}),
        ("Authorization: Basic aHVudGVyMg==", f"Authorization: Basic {HIDDEN}"),
        ({"monkey": "x", "author": "y", "keys": [1]}, {"monkey": "x", "author": "y", "keys": [1]}),
        (None, None),
    ],
    ids=str,
)
def test_hidden_masks_every_secret(value, shown):
    assert hidden(value) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"see https://a:{SECRET}@h/x and http://b@h", f"see https://{HIDDEN}@h/x and http://{HIDDEN}@h"),
        ("https://h/@anna", "https://h/@anna"),
        ("https://h:8080/@anna", "https://h:8080/@anna"),
        (f"https://a:{SECRET}/{SECRET}@h/x", f"https://{HIDDEN}@h/x"),
        (f"https://a@b:{SECRET}@{SECRET}@h/x", f"https://{HIDDEN}@h/x"),
        ("mail anna@example.org", "mail anna@example.org"),
        (f"user=anna password='{SECRET} x' host=h", f"user=anna password={HIDDEN} host=h"),
        (f'a "token" : "x\\"{SECRET}', f'a "token" : "{HIDDEN}"'),
        ('{"a": "token", "b": "c"', '{"a": "token", "b": "c"'),
        ("Bearer abcdef.ghi", f"Bearer {HIDDEN}"),
        ("a basic right", "a basic right"),
        (f"postgresql+psycopg://u:{SECRET}@/x", f"postgresql+psycopg://{HIDDEN}@/x"),
        (
            f"?sig={SECRET}&X-Amz-Signature={SECRET}&key={SECRET}#x",
            f"?sig={HIDDEN}&X-Amz-Signature={HIDDEN}&key={HIDDEN}#x",
        ),
    ],
)
def test_scrubbed_masks_secrets_in_text(text, shown):
    assert scrubbed(text) == shown


@pytest.mark.parametrize(
    "part",
    [
        "a.",
        "a://",
        "a://x:",
        "?",
        "?a",
        "basic ",
        "@",
        "a@",
        "&token",
        "'",
        "[",
        "--",
        "/*",
        "a ",
        "://a:b",
        '"a":"',
        'a="',
    ],
)
def test_long_texts_are_looked_through_in_time(part):
    """With the square of the length, this would take minutes."""
    length = 200_000
    text = part * (length // len(part))
    begun = time.thread_time()
    scrubbed(text)
    hidden(text)
    name_of(handler("http", text))
    with pytest.raises(HandlerError):
        read_request(FakeContext().step("http", f"GET{' ' * length}{text}"))
    with suppress(HandlerError):
        resolve_json(text, {})
    with suppress(HandlerError):
        _prepared(text)
    assert time.thread_time() - begun < 5


def test_deep_values_are_hidden():
    deep: dict = {"password": SECRET}
    for _ in range(5000):
        deep = {"x": [deep]}
    assert SECRET not in json.dumps(hidden(deep))


def test_headers_of_a_request_of_its_own():
    assert own_headers({"headers": {"Accept": "*/*"}, "basic": {"user": "anna", "password": SECRET}}) == {
        "Accept": "*/*",
        "Authorization": BASIC,
    }
    assert own_headers({}) == {}


def test_alias_of_a_hash_map_is_in_no_log(caplog):
    caplog.set_level(logging.DEBUG)
    context = FakeContext()
    alias = {
        "alias": "office",
        "url": "http://127.0.0.1:1",
        "headers": {"X-Key": SECRET},
        "basic": {"user": "a", "password": SECRET},
    }
    context.work.registry.function("init")(lambda hashMap: hashMap.put("HTTPAddAlias", json.dumps(alias)))
    outcome = context.run(("python", "init"), ("http", "GET #office/x"), ("http", "GET #other/x"))
    assert outcome.error == "http GET #office/x: Nobody listens at this address. (and 1 more)"
    assert SECRET not in caplog.text
    assert SECRET not in repr(context.variables)
    assert isinstance(outcome.error, str)


def test_broken_alias_of_a_hash_map_is_an_error_without_its_secret():
    context = FakeContext()
    bad = {"alias": "of fice", "url": "http://a", "basic": {"user": "a", "password": SECRET}}
    context.work.registry.function("init")(lambda hashMap: hashMap.put("HTTPAddAlias", bad))
    error = context.run(handler("python", "init")).error
    assert "cannot name an alias" in error
    assert SECRET not in error
    assert issubclass(InvalidHandlersError, HandlerError)


def test_secrets_are_in_nothing_that_is_shown(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    work = Work(tmp_path / "work.db", backoff=Backoff(first=0.001, jitter=0))
    work.add_alias("office", f"http://anna:{SECRET}@127.0.0.1:1/x", {"X-Key": SECRET}, auth=f"Bearer {SECRET}")
    own = {"auth": f"Basic {SECRET}", "headers": {"X-Key": SECRET}}
    post = json.dumps([handler("set", f"password={SECRET};x=@nothing")])
    handlers = [
        handler("http", "GET #office/x", postExecute=post),
        handler("http", f"GET http://anna:{SECRET}@127.0.0.1:1/", **own),
        handler("python", f"https://anna:{SECRET}@a"),
        handler("nothing", f"GET http://anna:{SECRET}@a"),
        "no handler",
    ]
    for one in handlers:
        try:
            work.start_work([one], tag="t", variables={"password": SECRET})
        except InvalidHandlersError as error:
            assert SECRET not in str(error)
    work.runner().run_until_idle()
    tasks = work.list()
    shown = [repr(tasks), repr(work), repr(work.alias("office")), repr(work.runner()), caplog.text]
    shown += [text for task in tasks for text in (task.error, task.result, str(work.progress(task.uid)))]
    shown.append(json.dumps([hidden({"h": t.handlers, "v": t.variables, "p": t.post_execute}) for t in tasks]))
    assert len(tasks) == 4
    assert all(task.error for task in tasks)
    assert not [text for text in shown if SECRET in text or json.dumps(SECRET)[1:-1] in text]
    assert not (tmp_path / "work.db").stat().st_mode & 0o077
    work.close()
