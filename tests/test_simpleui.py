"""Handlers of SimpleUI run unchanged: their hashMap, their commands, and the samples of its documentation."""

from __future__ import annotations

import base64
import json
import logging
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from runs import FakeContext, FakeWork
from test_http_handler import Server, make_server, server  # noqa: F401
from upload_helper.errors import Error, InvalidHandlersError, SqlHandlerError
from upload_helper.work import Backoff, Condition, State, Work, simpleui
from upload_helper.work.conditions import Conditions
from upload_helper.work.context import Reason, Stopped
from upload_helper.work.simpleui import HashMap, Utilities, run_commands

# As in the documentation.
NATIVE_REQUEST = """
def run_request_task_native(hashMap,_files=None,_data=None):
    hashMap.put("BreakHandlersIfError","")

    workercode=[{"action":"run","type":"http","method":"GET #long1c/get_goods"},
                {"action":"run","type":"set","method":"SQLParameter=@ResultMessage"},
                {"action":"run","type":"sql","method":"insert into goods(art,barcode,nom) values(?,?,?)"},
                {"action":"run","type":"set","method":"speak=Данные загружены"}]

    hashMap.put("StartWork",json.dumps({"work": workercode, "tag": "my_single_task", "retry": True, "conditions":"BATTERY_NOT_LOW;CHARGING;CONNECTED"}, ensure_ascii=False))

    return hashMap
"""

PERIODIC = """
def run_periodic_worker(hashMap,_files=None,_data=None):
    if hashMap.get("listener") == "btn_run_periodic":
        workercode=[{"action":"run","type":"set","method":"beep"}]
        hashMap.put("StartPeriodicWork",json.dumps({"work":workercode,"period":15,"tag":"periodic1","conditions":"CONNECTED"},ensure_ascii=False))
    if hashMap.get("listener") == "btn_stop_periodic":
         hashMap.put("StopWork","periodic1")
    return hashMap
"""

UPLOAD = """
def upload_input(hashMap,_files=None,_data=None):
    if hashMap.get('listener')=='photo':
        filename =hashMap.get("photo_path")
        postExecute=[{"action":"run","type":"python","method":"request_upload_callback"}]
        username=""
        password=""
        userpass = username + ':' + password
        encoded_u = base64.b64encode(userpass.encode()).decode()
        r = {"url":"http://192.168.1.41:3000/upload", "auth":"Basic %s" % encoded_u,"method":"POST", "headers":{"Accept":"*/*"},"file":filename,"postExecute":postExecute}
        hashMap.put("StartUploadWorkRequest",json.dumps({"request":r,"tag":"my_task_upload"},ensure_ascii=False))
    if hashMap.get('listener')=='btn_stop':
        hashMap.put("StopWork","my_task_upload")

    return hashMap
"""

DOWNLOAD = """
def download_input(hashMap,_files=None,_data=None):
    if hashMap.get('listener')=='btn_run':
        filename =suClass.get_temp_file("mp4")
        postExecute=[{"action":"run","type":"python","method":"request_download_callback"}]
        r = {"url":"#long1c/download","method":"GET","file":filename,"postExecute":postExecute}
        hashMap.put("StartDownloadWorkRequest",json.dumps({"request":r,"tag":"my_task_download","title":"Загрузка","body":"видео.mp4"},ensure_ascii=False))
    return hashMap
"""


def sample(text: str):
    """Return the function of a sample, in a module that has what the platform's modules have."""
    names = {"json": json, "base64": base64}
    names.update({name: getattr(simpleui, name) for name in vars(simpleui) if name[0].isupper() or name == "suClass"})
    before = set(names)
    exec(text, names)
    (name,) = set(names) - before - {"__builtins__"}
    return names[name]


@pytest.fixture
def lost() -> set[Condition]:
    """Conditions that do not hold."""
    return set()


@pytest.fixture
def work(target, lost):
    def provider(condition):
        return lambda: condition not in lost

    conditions = Conditions({c: provider(c) for c in Condition}, fresh=0)
    work = Work(target, conditions=conditions, backoff=Backoff(first=0.001, jitter=0))
    yield work
    work.close()


@pytest.fixture
def goods(tmp_path) -> Path:
    return tmp_path / "goods.db"


def put(work, **commands) -> HashMap:
    hash_map = HashMap()
    for name, value in commands.items():
        hash_map.put(name, value)
    run_commands(hash_map, work)
    return hash_map


def set_up(work, goods, url):
    """Do what a configuration of the platform does when it starts."""
    columns = "id integer primary key autoincrement,art text, barcode text, nom text"
    basic = {"user": "", "password": ""}
    put(
        work,
        SQLConnectDatabase=str(goods),
        SQLExec=json.dumps({"query": f"create table IF NOT EXISTS goods ({columns})", "params": ""}),
        HTTPAddAlias=json.dumps({"alias": "long1c", "url": url, "headers": {"Accept": "*/*"}, "basic": basic}),
    )


def kept(goods) -> list:
    with closing(sqlite3.connect(goods)) as database:
        return database.execute("select art, barcode, nom from goods").fetchall()


# --- the samples ---


def test_native_request_task(work, goods, server, lost):  # noqa: F811
    set_up(work, goods, server.url)
    rows = [["a1", "4607", "Товар"], ["a2", None, "x'); drop table goods; --"]]
    server.answer = lambda _: (200, {}, json.dumps(rows).encode())
    lost.add(Condition.CHARGING)
    hash_map = HashMap()
    run_commands(sample(NATIVE_REQUEST)(hash_map), work)
    assert not hash_map.variables
    (task,) = work.list(tag="my_single_task")
    assert (task.retry, task.conditions) == (True, {"BATTERY_NOT_LOW", "CHARGING", "CONNECTED"})
    work.runner().run_until_idle()
    assert (work.get(task.uid).state, server.asked) == (State.BLOCKED, [])
    lost.clear()
    work.runner().run_until_idle()
    assert work.get(task.uid).state is State.SUCCEEDED
    assert kept(goods) == [tuple(row) for row in rows]
    assert server.asked[0].path == "/get_goods"


def test_native_request_task_stops_at_the_error_and_is_tried_again(work, goods, server):  # noqa: F811
    set_up(work, goods, server.url)
    answers = [(503, {}, b'[["wrong", "1", "2"]]'), (200, {}, b'[["right", "1", "2"]]')]
    server.answer = lambda _: answers.pop(0)
    run_commands(sample(NATIVE_REQUEST)(HashMap()), work)
    (task,) = work.list()
    while work.get(task.uid).state is State.ENQUEUED:
        work.runner().run_until_idle()
    ended = work.get(task.uid)
    assert (ended.state, ended.attempt) == (State.SUCCEEDED, 2)
    assert kept(goods) == [("right", "1", "2")]


def test_native_request_task_survives_a_reboot(work, goods, server, target):  # noqa: F811
    set_up(work, goods, server.url)
    server.answer = lambda _: (200, {}, b'[["a", "b", "c"]]')
    run_commands(sample(NATIVE_REQUEST)(HashMap()), work)
    work.close()
    other = Work(target, conditions=Conditions({c: lambda: True for c in Condition}))
    try:
        other.runner().run_until_idle()
        assert other.list()[0].error == ""
    finally:
        other.close()
    assert kept(goods) == [("a", "b", "c")]


def test_periodic_worker(work):
    beeps = []
    work.command("beep")(lambda: beeps.append(1))
    function = sample(PERIODIC)
    run_commands(function(HashMap({"listener": "btn_run_periodic"})), work)
    (task,) = work.list()
    assert (task.tag, task.period, task.conditions) == ("periodic1", 900, {"CONNECTED"})
    assert work.runner().run_until_idle() == 1
    assert beeps == [1]
    assert work.get(task.uid).state is State.ENQUEUED
    run_commands(function(HashMap({"listener": "btn_stop_periodic"})), work)
    assert work.get(task.uid).state is State.CANCELLED


# --- the samples of files that are sent and fetched ---


@pytest.fixture
def told(work) -> list[dict]:
    """What the functions were told that the samples name for the end."""
    seen: list[dict] = []
    for name in ("request_upload_callback", "request_download_callback"):
        work.registry.function(name)(lambda hash_map: seen.append(dict(hash_map.variables)))
    return seen


def answering(*statuses: int, body: bytes = b"", **headers: str):
    """Answer with these statuses in turn, the last one again and again; the server speaks no protocol of uploads."""
    left = list(statuses)

    def answer(asked):
        if asked.command == "OPTIONS":
            return 405, {}, b""
        return (left.pop(0) if len(left) > 1 else left[0]), headers, body

    return answer


def upload(work, server, photo: Path) -> None:  # noqa: F811
    """Run the sample, with the address of a server that there is."""
    function = sample(UPLOAD.replace("http://192.168.1.41:3000", server.url))
    run_commands(function(HashMap({"listener": "photo", "photo_path": str(photo)})), work)


def test_upload_sample(work, server, told, tmp_path):  # noqa: F811
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"jpeg" * 1000)
    server.answer = answering(200, body=b'{"id": 7}')
    upload(work, server, photo)
    (task,) = work.list()
    assert (task.kind, task.tag, task.retry) == ("upload", "my_task_upload", True)
    assert work.runner().run_until_idle() == 1
    done = work.get(task.uid)
    assert (done.state, done.result, done.done, done.total) == (State.SUCCEEDED, '{"id": 7}', 4000, 4000)
    (sent,) = [asked for asked in server.asked if asked.command == "POST"]
    assert (sent.path, sent.headers["Accept"], sent.headers["Authorization"]) == ("/upload", "*/*", "Basic Og==")
    assert b"jpeg" * 1000 in sent.body
    (variables,) = told
    assert (variables["ResultMessage"], variables["ResultError"]) == ('{"id": 7}', "")


def test_upload_sample_that_is_refused_tells_the_callback_why(work, server, told, tmp_path):  # noqa: F811
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"jpeg")
    server.answer = answering(413, body=b"at most 3 bytes")
    upload(work, server, photo)
    work.runner().run_until_idle()
    (task,) = work.list()
    assert (task.state, task.attempt) == (State.FAILED, 1)
    (variables,) = told
    assert variables["ResultError"] == variables["ErrorMessage"] == task.error
    assert "413" in task.error
    assert "at most 3 bytes" in task.error
    assert variables["ResultMessage"] == ""


def test_upload_sample_of_a_photo_that_is_gone_tells_the_callback(work, server, told, tmp_path):  # noqa: F811
    upload(work, server, tmp_path / "none.jpg")
    work.runner().run_until_idle()
    assert "There is no file" in told[0]["ResultError"]


def test_upload_sample_stops_by_its_tag(work, server, told, tmp_path):  # noqa: F811
    upload(work, server, tmp_path / "none.jpg")
    run_commands(sample(UPLOAD)(HashMap({"listener": "btn_stop"})), work)
    assert [task.state for task in work.list()] == [State.CANCELLED]
    assert work.runner().run_until_idle() == 0
    assert told == []


def test_download_sample(work, goods, server, told):  # noqa: F811
    set_up(work, goods, server.url)
    video = b"mp4" * 1000
    server.answer = answering(503, 200, body=video)
    run_commands(sample(DOWNLOAD)(HashMap({"listener": "btn_run"})), work)
    (task,) = work.list()
    assert (task.kind, task.tag, task.title, task.body) == ("download", "my_task_download", "Загрузка", "видео.mp4")
    file = Path(task.handlers[0]["file"])
    assert file.read_bytes() == b""
    work.runner().run_until_idle()
    done = work.get(task.uid)
    assert (done.state, done.result, done.error) == (State.SUCCEEDED, str(file), "")
    assert file.suffix == ".mp4"
    assert file.read_bytes() == video
    assert [asked.path for asked in server.asked] == ["/download", "/download"]
    (variables,) = told
    assert (variables["ResultMessage"], variables["ResultError"]) == (str(file), "")
    assert variables["SQLConnectDatabase"] == str(goods)
    file.unlink()


def test_download_sample_without_its_alias_tells_the_callback(work, told):
    run_commands(sample(DOWNLOAD)(HashMap({"listener": "btn_run"})), work)
    work.runner().run_until_idle()
    (task,) = work.list()
    assert task.state is State.FAILED
    assert "There is no alias 'long1c'" in told[0]["ResultError"]
    Path(task.handlers[0]["file"]).unlink()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({}, "StartUploadWorkRequest needs an object"), ({"request": "{"}, "not JSON"), ({"request": {}}, "has no url"),
        ({"request": {"url": "http://x/"}}, "names no file"), ({"request": {"url": "ftp://x/", "file": "a"}}, "no address"),
        ({"request": {"url": "#", "file": "a"}}, "names no alias"),
        ({"request": {"url": "http://x/", "file": "a", "speed": 1}}, "'speed' is no member"),
        ({"request": {"url": "http://x/", "file": 5}}, "file of an upload cannot be 5"),
        ({"request": {"url": "http://x/", "file": "a", "priority": 99}}, "99 is no priority"),
        ({"request": {"url": "http://x/", "file": "a", "limit": "fast"}}, "'fast' is no limit"),
        ({"request": {"url": "http://x/", "file": "a", "stall": 0}}, "stall 0 is no time"),
        ({"request": {"url": "http://x/", "file": "a", "method": "STEAL"}}, "'STEAL' is none of"),
        ({"request": {"url": "http://x/", "file": "a", "protocol": "ftp"}}, "'ftp' is none of"),
        ({"request": {"url": "http://x/", "file": "a", "postExecute": "{"}}, "not the JSON of handlers"),
        ({"request": {"url": "http://x/", "file": "a", "headers": {"a b": "c"}}}, "cannot be the name of a header"),
    ],
)  # fmt: skip
def test_upload_that_cannot_be_is_refused_at_once(work, value, said):
    with pytest.raises(Error, match=said):
        put(work, StartUploadWorkRequest=value)
    assert work.list() == []


def test_bare_names_of_commands_are_there():
    for name in ("StartWork", "StartPeriodicWork", "StopWork", "StartUploadWorkRequest", "StartDownloadWorkRequest"):
        assert getattr(simpleui, name) == name
    hash_map = sample("def f(hashMap):\n    hashMap.put(StartWork, {'work': []})\n    return hashMap")(HashMap())
    assert hash_map.get("StartWork") == {"work": []}


# --- hashMap ---


def test_hash_map_has_the_methods_of_the_platform():
    hash_map = HashMap({"a": "1"})
    hash_map.put("b", "2")
    hash_map.put("flag")
    assert (hash_map.get("a"), hash_map.get("none"), hash_map.get("none", "x")) == ("1", None, "x")
    assert (hash_map.containsKey("b"), hash_map.containsKey("none")) == (True, False)
    assert (hash_map.remove("b"), hash_map.remove("b"), hash_map.get("flag")) == ("2", None, "")
    assert (list(hash_map), len(hash_map), hash_map.size(), hash_map.keySet()) == (["a", "flag"], 2, 2, {"a", "flag"})
    assert not hash_map.isEmpty()
    assert HashMap().isEmpty()
    hash_map["c"] = "3"
    del hash_map["flag"]
    assert ("c" in hash_map, hash_map["c"], dict(hash_map.variables)) == (True, "3", {"a": "1", "c": "3"})


def test_hash_map_may_change_while_it_is_walked_through():
    hash_map = HashMap({"a": "1", "b": "2"})
    for name in hash_map:
        hash_map.remove(name)
    assert hash_map.isEmpty()


def test_hash_map_shows_no_values():
    assert repr(HashMap({"password": "hunter2"})) == "HashMap(['password'])"


@pytest.mark.parametrize(
    "use",
    [
        lambda h: h.put("a", 1),
        lambda h: h.get("a"),
        lambda h: h.containsKey("a"),
        lambda h: h.remove("a"),
        lambda h: h.report(0.5),
        lambda h: h.check(),
    ],
)
def test_using_the_hash_map_ends_a_run_that_must_end(use):
    context = FakeContext()
    hash_map = HashMap(context.variables, context.step("python", "f"))
    use(hash_map)
    context.reason = Reason.CANCELLED
    with pytest.raises(Stopped):
        use(hash_map)


def test_temporary_files(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = Path(Utilities.get_temp_file("mp4"))
    odd = Path(Utilities.get_temp_file("../../x"))
    assert (path.suffix, path.stat().st_size, path.stat().st_mode & 0o077) == (".mp4", 0, 0)
    assert path.parent == odd.parent == Path(Utilities.get_temp_dir()) == tmp_path


# --- commands ---

SOME = [{"action": "run", "type": "set", "method": "a=1"}]


@pytest.mark.parametrize("as_json", [True, False])
def test_start_work(as_json):
    work = FakeWork()
    asked = {
        "work": json.dumps(SOME) if as_json else SOME,
        "tag": "t",
        "retry": "true",
        "conditions": "IDLE",
        "title": "T",
    }
    hash_map = put(work, other="x", StartWork=json.dumps(asked) if as_json else asked)
    (started,) = work.started
    assert started == {
        "work": tuple(SOME),
        "tag": "t",
        "retry": True,
        "conditions": "IDLE",
        "title": "T",
        "body": "",
        "variables": {},
    }
    assert hash_map.variables == {"other": "x"}


@pytest.mark.parametrize("command", ["StartWork", "StartPeriodicWork"])
def test_task_inherits_whether_errors_end_it_also_when_that_is_said_later(command):
    work = FakeWork()
    hash_map = put(work, **{command: {"work": SOME}}, BreakHandlersIfError="", BreakHandlers="")
    assert work.started[0]["variables"] == {"BreakHandlersIfError": ""}
    assert not hash_map.variables


@pytest.mark.parametrize(("period", "minutes"), [(15, 15), ("60", 60), (1, 15), ("", 15), (None, 15)])
def test_period_is_no_shorter_than_on_the_platform(period, minutes):
    work = FakeWork()
    put(work, StartPeriodicWork={"work": SOME, "period": period})
    assert work.started[0]["period"] == minutes


def test_commands_run_in_the_order_in_which_they_were_put(work):
    put(work, StartWork={"work": SOME, "tag": "a"}, StopWork="a")
    put(work, StopWork="a", HTTPAddAlias={"alias": "x", "url": "http://a"})
    assert [task.state for task in work.list()] == [State.CANCELLED]
    assert work.alias("x").url == "http://a"


@pytest.mark.parametrize(
    ("commands", "error"),
    [
        ({"StartWork": "{"}, InvalidHandlersError),
        ({"StartWork": "7"}, InvalidHandlersError),
        ({"StartWork": ""}, InvalidHandlersError),
        ({"StartWork": {}}, Error),
        ({"StartWork": {"work": "{"}}, InvalidHandlersError),
        ({"StartWork": {"work": SOME, "conditions": "WARM"}}, Error),
        ({"StartWork": {"work": SOME, "tag": "x" * 10_000}}, Error),
        ({"StartPeriodicWork": {"work": SOME, "period": "soon"}}, InvalidHandlersError),
        ({"StartPeriodicWork": {"work": SOME, "period": "nan"}}, Error),
        ({"StartPeriodicWork": {"work": SOME, "period": 60, "retry": True}}, InvalidHandlersError),
        ({"HTTPAddAlias": {}}, InvalidHandlersError),
        ({"HTTPAddAlias": {"alias": "a", "url": "ftp://x"}}, InvalidHandlersError),
        ({"HTTPAddAlias": {"alias": "a", "url": "http://x", "basic": "x"}}, InvalidHandlersError),
        ({"SQLExec": {"query": "select 1"}}, InvalidHandlersError),
        ({"SQLConnectDatabase": "/no/such/folder/x.db", "SQLExec": {"query": "select 1"}}, SqlHandlerError),
        ({"StopWork": "x" * 10_000}, Error),
    ],
    ids=str,
)
def test_commands_that_cannot_be_run(work, commands, error):
    with pytest.raises(error) as raised:
        put(work, **commands)
    assert len(str(raised.value)) < 300
    assert work.list() == []


def test_command_that_fails_in_a_task_is_in_its_record_and_the_others_are_gone(work):
    work.function("bad")(lambda hashMap: (hashMap.put("StartWork", "{"), hashMap.put("StopWork", "t")))
    uid = work.start_work([{"action": "run", "type": "python", "method": "bad"}], tag="t")
    work.runner().run_until_idle()
    task = work.get(uid)
    assert (task.state, task.error) == (State.FAILED, "python bad: What StartWork was given is not JSON.")


@pytest.mark.parametrize(
    ("params", "row"),
    [("a,b", ("a", "b")), (["a,", "b"], ("a,", "b")), ('["a", 7]', ("a", "7")), ([["a", "b"]], ("a", "b"))],
)
def test_sql_exec_takes_what_the_platform_takes(work, goods, params, row):
    put(work, SQLConnectDatabase=str(goods), SQLExec={"query": "create table t(a text, b text)", "params": ""})
    put(work, SQLExec=json.dumps({"query": "insert into t values(?,?)", "params": params}))
    with closing(sqlite3.connect(goods)) as database:
        assert database.execute("select * from t").fetchall() == [row]


def test_empty_name_of_a_database_is_the_default_one(work, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put(work, SQLConnectDatabase="")
    assert work.database == str(tmp_path / "SimpleWMS")


def test_database_of_a_task_is_its_own(work, goods, tmp_path):
    work.connect_database(goods)
    work.function("connect")(lambda hashMap: hashMap.put("SQLConnectDatabase", str(tmp_path / "other.db")))
    create = {"action": "run", "type": "sql", "method": "create table t(a)"}
    work.start_work([{"action": "run", "type": "python", "method": "connect"}, create])
    work.runner().run_until_idle()
    assert work.list()[0].error == ""
    assert (goods.exists(), (tmp_path / "other.db").exists(), work.database) == (False, True, str(goods))


def test_function_of_a_task_starts_and_stops_others(work):
    @work.function
    def manage(hashMap, _files=None, _data=None):
        hashMap.put("StopWork", "old")
        hashMap.put("StartWork", {"work": SOME, "tag": "new"})

    work.start_work(SOME, tag="old", conditions="IDLE")
    work.start_work([{"action": "run", "type": "python", "method": "manage"}], tag="manager")
    work.runner().run_until_idle()
    states = {task.tag: task.state for task in work.list()}
    assert states["manager"] is states["new"] is State.SUCCEEDED


def test_commands_of_the_host_and_of_the_screen(work, caplog):
    caplog.set_level(logging.INFO)
    said = []
    work.command("speak")(lambda value, hashMap: said.append((value, hashMap.get("a"))))
    hash_map = put(work, a="1", speak="hello", toast="hidden text", ShowScreen="Main")
    assert said == [("hello", "1")]
    assert hash_map.variables == {"a": "1"}
    assert "'toast'" in caplog.text
    assert "hidden text" not in caplog.text


def test_callback_of_the_documentation(work):
    """It takes the length of ResultError, which must be there."""
    said = []
    work.command("speak")(said.append)

    @work.function
    def request_upload_callback(hashMap, _files=None, _data=None):
        if len(hashMap.get("ResultError")) > 0:
            hashMap.put("speak", "Ошибка " + hashMap.get("ResultError"))
        else:
            hashMap.put("speak", "Файл отправлен на сервер")
        return hashMap

    post = [{"action": "run", "type": "python", "method": "request_upload_callback"}]
    work.start_work([{"action": "run", "type": "set", "method": "a=1", "postExecute": json.dumps(post)}])
    work.runner().run_until_idle()
    work.start_work([{"action": "run", "type": "set", "method": "a=@none", "postExecute": post}])
    work.runner().run_until_idle()
    assert said == ["Файл отправлен на сервер", "Ошибка set a: There is no variable 'none'."]


@pytest.mark.parametrize(
    ("command", "value", "meant"),
    [
        ("StartWork", {"work": SOME, "tagg": "a"}, "tag"),
        ("StartPeriodicWork", {"work": SOME, "Period": 15}, "period"),
        ("HTTPAddAlias", {"alias": "a", "url": "http://h", "header": {}}, "headers"),
        ("SQLExec", {"query": "select 1", "param": ""}, "params"),
    ],
)
def test_member_of_a_command_that_is_misspelt_is_told(work, goods, caplog, command, value, meant):
    work.connect_database(goods)
    put(work, **{command: value})
    assert f"{command} has a member {list(value)[-1]!r}, which means nothing; {meant!r} is known" in caplog.text


def test_commands_in_a_plain_dictionary_run(work):
    run_commands({"StartWork": {"work": SOME, "tag": "a"}}, work)
    assert len(work.list("a")) == 1


def test_commands_of_a_handler_that_returned_nothing(work):
    with pytest.raises(InvalidHandlersError, match="takes the hashMap of a handler, not None"):
        run_commands(None, work)
