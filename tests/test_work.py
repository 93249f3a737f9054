"""The face of background work: what is taken, what is refused with which words, and what comes out again."""

from __future__ import annotations

import json
import types

import pytest

from upload_helper.errors import HandlerError, InvalidTaskError, UnknownNameError, UnknownTaskError, WorkError
from upload_helper.work import Backoff, Condition, Existing, State, Task, Work, parse_conditions

HANDLER = {"action": "run", "type": "python", "method": "greet"}


@pytest.fixture
def work(target):
    opened = Work(target)

    @opened.function
    def greet(hashMap):
        hashMap.put("ResultMessage", f"hello {hashMap.get('name')}")
        return hashMap

    yield opened
    opened.close()


def test_work_is_started_run_and_looked_at(work):
    uid = work.start_work(
        [HANDLER], tag="t", title="Title", body="Body", conditions="CHARGING; connected;", variables={"name": "Anna"},
        retry=True,
    )  # fmt: skip
    found = work.get(uid)
    assert (found.tag, found.title, found.body, found.retry) == ("t", "Title", "Body", True)
    assert found.conditions == {Condition.CHARGING, Condition.CONNECTED}
    assert found.handlers == (HANDLER,)
    assert work.progress(uid) == {"jobUid": uid, "state": "ENQUEUED", "progress": None, "stepName": ""}
    assert work.wait(uid, 0.01).state is State.ENQUEUED
    work._conditions = types.SimpleNamespace(lost=lambda conditions, **_: frozenset())
    work.runner().run_until_idle()
    assert work.wait(uid).result == "hello Anna"
    assert [t.uid for t in work.list("t")] == [uid]
    assert [t.uid for t in work.list(state="succeeded")] == [uid]
    assert work.list("other") == work.list(state=State.FAILED) == []


@pytest.mark.parametrize("handlers", [[HANDLER], json.dumps([HANDLER]), (HANDLER,)])
def test_handlers_are_a_list_or_json(work, handlers):
    assert work.get(work.start_work(handlers)).handlers == (HANDLER,)


@pytest.mark.parametrize(
    "handlers",
    [
        [], "", "[]", None, "{", '{"a": 1}', "[1]", [1], 5, [HANDLER | {"action": "walk"}], [{"action": "run"}], ["run"],
        [HANDLER | {"postExecute": "{"}], [HANDLER | {"method": object()}], "[" * 100_000, [HANDLER] * 100_000,
        [HANDLER | {"method": "x" * (5 << 20)}],
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_broken_handlers_are_refused_and_nothing_is_kept(work, handlers):
    with pytest.raises((InvalidTaskError, HandlerError)) as caught:
        work.start_work(handlers)
    assert caught.value.remedy
    assert len(str(caught.value)) < 300
    assert work.list() == []


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("tag", "x" * 10_000), ("tag", "\0"), ("tag", "\ud800"), ("tag", 5), ("tag", None), ("title", "x" * 1001),
        ("body", b"x"), ("conditions", "MOONLIGHT"), ("conditions", ["CHARGING", 5]), ("conditions", 5),
        ("if_exists", "PERHAPS"), ("if_exists", "KEEP"), ("if_exists", "REPLACE"), ("variables", [1]),
        ("variables", {1: 2}), ("variables", {"x": object()}), ("post_execute", "{"), ("uid", "ä"), ("uid", "x" * 65),
    ],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_bad_option_is_refused(work, option, value):
    with pytest.raises((InvalidTaskError, HandlerError)) as caught:
        work.start_work([HANDLER], **{option: value})
    assert caught.value.remedy
    assert len(str(caught.value)) < 300
    assert work.list() == []


def test_condition_that_is_unknown_is_named(work):
    with pytest.raises(InvalidTaskError, match="'MOONLIGHT' is no condition; there are CONNECTED, CHARGING"):
        work.start_work([HANDLER], conditions="CHARGING;MOONLIGHT")


def test_longest_tag_is_taken(work):
    work.start_work([HANDLER], tag="ж" * 200)
    assert work.stop_work("ж" * 200) == 1


@pytest.mark.parametrize("period", [14.99, 0, -15, float("nan"), float("inf"), "15", None, True, 10**400])
def test_period_is_at_least_a_quarter_of_an_hour(work, period):
    with pytest.raises(InvalidTaskError):
        work.start_periodic_work([HANDLER], period)
    assert work.list() == []


def test_periodic_work_knows_no_retry(work):
    with pytest.raises(InvalidTaskError, match="not retried"):
        work.start_periodic_work([HANDLER], 15, retry=True)
    assert work.get(work.start_periodic_work([HANDLER], 15)).period == 900


def test_keep_and_replace(work):
    first = work.start_work([HANDLER], tag="t")
    assert work.start_work([HANDLER], tag="t", if_exists="keep") == first
    second = work.start_work([HANDLER], tag="t", if_exists=Existing.REPLACE)
    assert work.get(first).state is State.CANCELLED
    assert work.start_work([HANDLER], tag="t") != second
    assert len(work.list("t")) == 3


def test_uid_of_the_host_makes_a_repeated_call_harmless(work):
    assert work.start_work([HANDLER], uid="upload-1") == work.start_work([HANDLER], uid="upload-1") == "upload-1"
    work.runner().run_until_idle()
    work.start_work([HANDLER], uid="upload-1")
    assert work.runner().run_until_idle() == 0


def test_what_is_not_there_is_said(work):
    for ask in (work.get, work.progress, work.wait):
        with pytest.raises(UnknownTaskError):
            ask("nothing")
    assert work.stop_work("nothing") == 0
    assert work.stop("nothing") is False
    with pytest.raises(WorkError):
        work.list(state="DREAMING")


def test_alias_is_kept_and_shows_no_secret(work, target):
    work.add_alias("office", "https://gis.example.org/", basic=("anna", "geheim"))
    again = Work(target)
    alias = again.alias("office")
    assert alias.url == "https://gis.example.org"
    assert alias.headers["Authorization"].startswith("Basic ")
    assert "geheim" not in repr(alias)
    with pytest.raises(HandlerError):
        again.alias("nowhere")
    again.close()


def test_database_of_a_task_is_kept_with_it(work, tmp_path):
    work.connect_database(tmp_path / "goods.db")
    assert work.get(work.start_work([HANDLER])).variables == {"SQLConnectDatabase": str(tmp_path / "goods.db")}


def test_repr_shows_no_password(work):
    assert "geheim" not in repr(work)
    assert Task("a").uid == "a"


@pytest.mark.parametrize(
    ("value", "conditions"),
    [("", set()), (None, set()), (" idle ;;", {"IDLE"}), (["IDLE", Condition.CHARGING], {"IDLE", "CHARGING"})],
)
def test_conditions_are_read(value, conditions):
    assert parse_conditions(value) == conditions


# --- back-off ---


def test_back_off_grows_up_to_five_hours():
    backoff = Backoff(jitter=0)
    assert [backoff.delay(n) for n in (1, 2, 3, 4)] == [30, 60, 120, 240]
    assert backoff.delay(11) == backoff.delay(10**9) == 18_000


def test_back_off_is_shortened_at_random():
    assert Backoff(random=lambda: 1.0).delay(1) == 27
    assert Backoff(random=lambda: 0.0).delay(1) == 30


def test_back_off_obeys_the_server_up_to_its_longest():
    backoff = Backoff(jitter=0)
    assert backoff.delay(1, 1000) == 1000
    assert backoff.delay(1, 5) == 30
    assert backoff.delay(1, 10**9) == 18_000


@pytest.mark.parametrize("uid", ["", "x" * 65, "a\0b", "\ud800", "ä", "../x", None, 7])
def test_uid_that_cannot_be_is_no_task(work, uid):
    for ask in (work.get, work.progress, work.wait):
        with pytest.raises(UnknownTaskError):
            ask(uid)
    assert work.stop(uid) is False


def test_uid_is_never_cut(work):
    work.start_work([HANDLER], uid="x" * 64)
    assert work.get("x" * 64).uid == "x" * 64
    with pytest.raises(UnknownTaskError):
        work.get("x" * 65)
    with pytest.raises(InvalidTaskError):
        work.start_work([HANDLER], uid="x" * 65)


@pytest.mark.parametrize(
    "wrong",
    [{"tag": "a\0b"}, {"tag": "\ud800"}, {"tag": 7}, {"limit": -1}, {"limit": 0}, {"limit": 1 << 40}, {"limit": "1"}],
)
def test_list_of_what_cannot_be(work, wrong):
    with pytest.raises(InvalidTaskError):
        work.list(**wrong)


@pytest.mark.parametrize("name", ["", "a\0", "\ud800", "x" * 201, None])
def test_alias_that_cannot_be(work, name):
    with pytest.raises(UnknownNameError):
        work.alias(name)
