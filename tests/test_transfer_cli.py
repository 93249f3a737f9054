"""``upload-helper send`` and ``get``: what they do, print and return; interrupted, and left to the worker."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pty
import random
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.cells import cell_len
from rich.console import Console

from answers import Answers, ServedFile
from servers import PLUGIN, wait_until
from upload_helper.cli import main
from upload_helper.cli.listing import Listing
from upload_helper.cli.table import Rows
from upload_helper.work import State, Task, Work
from wire_proxy import Fault, WireProxy

MIB = 1 << 20
SECRET = "hunter2"
DATA = random.Random(5).randbytes(200_000)
NOBODY = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """An empty folder to be in, and another for what is kept."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("UPLOAD_HELPER_LEDGER", str(tmp_path / "work.db"))
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def run():
    """Return a function that runs a command and gives back standard output and standard error."""

    def run(*arguments: str, code: int = 0, stdin: str = "") -> tuple[str, str]:
        result = CliRunner().invoke(main, arguments, input=stdin)
        assert result.exit_code == code, (result.exit_code, result.output, result.exception)
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result.stdout, result.stderr

    return run


@pytest.fixture
def no_waiting(monkeypatch):
    """Whoever tries again does so at once."""
    monkeypatch.setattr("upload_helper.retry.Backoff.delay", lambda *_: 0.0)


@pytest.fixture
def served():
    with Answers(ServedFile(DATA, ETag='"1"')) as server:
        yield server


def states(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "state").rglob("*") if path.is_file()]


# --- send ---


def test_file_is_sent_and_its_url_printed(run, here, tmp_path, gunicorn):
    (here / "survey.gpkg").write_bytes(DATA)
    server = gunicorn()
    out, err = run("send", "survey.gpkg", server.url)
    assert re.fullmatch(rf"{server.url}/[0-9a-f]+\n", out)
    assert re.fullmatch(r"✓ survey.gpkg: 195.3 KiB(?: in .*)?\n", err)
    assert states(tmp_path) == []
    run("get", out.strip(), "back.gpkg")
    assert (here / "back.gpkg").read_bytes() == DATA


def test_several_files_are_sent_and_the_first_failure_is_the_exit_code(run, here, gunicorn):
    for name in ("a", "c"):
        (here / name).write_bytes(DATA)
    server = gunicorn()
    out, err = run("send", "a", "b", "c", server.url, code=5)
    assert len(out.splitlines()) == 2
    assert [line[0] for line in err.splitlines()] == ["✓", "✗", "✓"]
    assert "There is no file" in err


@pytest.mark.parametrize("protocol", ["tus", "rufh", "chunks", "multipart"])
def test_protocol_can_be_set(run, here, gunicorn, protocol):
    (here / "a").write_bytes(DATA)
    server = gunicorn()
    out, _ = run("send", "a", server.url, "--protocol", protocol, "--piece", "64k", "-q", "--json")
    assert json.loads(out.splitlines()[-1])["size"] == len(DATA)


@pytest.mark.parametrize("wrong", ["tus", "rufh", "chunks"])
@pytest.mark.parametrize("created", [201, 405])
def test_wrong_protocol_does_not_stick(run, here, wrong, created):
    (here / "a").write_bytes(b"data")

    def plain(asked):
        if b"form-data" in asked.body:
            return 200, {}, b"stored"
        return (created if asked.command == "POST" else 405), {"Location": "/files/1"}, b""

    with Answers(plain) as server:
        run("send", "a", server.url, "--protocol", wrong, code=4)
        run("send", "a", server.url)
        assert b"form-data" in server.asked[-1].body


@pytest.mark.parametrize("options", [("-X", "put"), ("--protocol", "raw")])
def test_what_is_set_wins_over_what_was_begun(run, here, options):
    (here / "a").write_bytes(b"data")
    tus = {"Tus-Resumable": "1.0.0", "Tus-Version": "1.0.0", "Tus-Extension": "creation", "Location": "/files/1"}
    answers = {"OPTIONS": 204, "POST": 201, "PATCH": 403, "PUT": 200}
    with Answers(lambda asked: (answers[asked.command], tus, b"")) as server:
        run("send", "a", server.url, code=4)
        run("send", "a", server.url, *options)
        assert (server.asked[-1].command, server.asked[-1].body) == ("PUT", b"data")


def test_headers_user_and_name_go_along(run, here):
    (here / "a").write_bytes(b"data")
    with Answers(lambda asked: (405 if asked.command == "OPTIONS" else 200, {}, b"stored")) as server:
        options = ("-H", f"X-Key: {SECRET}", "-u", f"anna:{SECRET}", "--name", "b.bin", "--part", "upload")
        out, err = run("send", "a", server.url, *options)
        posted = server.asked[-1]
    assert (posted.command, posted.headers["X-Key"]) == ("POST", SECRET)
    assert posted.headers["Authorization"].startswith("Basic ")
    assert b'name="upload"; filename="b.bin"' in posted.body
    assert SECRET not in out + err


def test_password_is_asked_for(run, served):
    run("get", served.url, "a", "-u", "anna", stdin="pä:ss\n")
    assert served.asked[-1].headers["Authorization"] == "Basic YW5uYTpww6Q6c3M="


# --- get ---


def test_file_is_fetched_and_its_path_printed(run, here, served):
    digest = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
    out, err = run("get", f"{served.url}/tiles.mbtiles", "--digest", digest)
    assert out == "tiles.mbtiles\n"
    assert re.fullmatch(r"✓ tiles.mbtiles: 195.3 KiB(?: in .*)?\n", err)
    assert (here / "tiles.mbtiles").read_bytes() == DATA


def test_folder_and_output(run, here, served):
    (here / "sub").mkdir()
    assert run("get", f"{served.url}/a.bin", "sub")[0] == "sub/a.bin\n"
    assert run("get", f"{served.url}/a.bin", "-o", "b.bin")[0] == "b.bin\n"


def test_file_that_is_there_is_left_unless_it_may_be_overwritten(run, here, served):
    (here / "a.bin").write_bytes(b"mine")
    _, err = run("get", f"{served.url}/a.bin", "a.bin", code=5)
    assert "is there already" in err
    assert "--overwrite" in err
    assert (here / "a.bin").read_bytes() == b"mine"
    run("get", f"{served.url}/a.bin", "a.bin", "--overwrite")
    assert (here / "a.bin").read_bytes() == DATA


@pytest.mark.parametrize("target", ["sub/a.bin", "sub"])
def test_file_that_is_there_with_its_digest_is_not_fetched(run, here, served, target):
    (here / "sub").mkdir()
    (here / "sub" / "a.bin").write_bytes(DATA)
    digest = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
    assert run("get", f"{served.url}/a.bin", target, "--digest", digest) == (
        "sub/a.bin\n", "✓ a.bin is there already.\n"
    )  # fmt: skip
    done = json.loads(run("get", f"{served.url}/a.bin", target, "--digest", digest, "--json")[0])
    assert (done["event"], done["already"], done["size"], done["digest"]) == ("done", True, len(DATA), digest)
    assert served.asked == []
    (here / "sub" / "a.bin").write_bytes(b"mine")
    run("get", f"{served.url}/a.bin", target, "--digest", digest, code=5)


def test_alias_is_found_in_the_ledger(run, here, served, tmp_path):
    work = Work(tmp_path / "work.db")
    work.add_alias("office", served.url, headers={"X-Key": "k"})
    work.close()
    run("get", "#office/a.bin")
    assert (served.asked[-1].path, served.asked[-1].headers["X-Key"]) == ("/a.bin", "k")
    _, err = run("get", "#home/a.bin", code=2)
    assert "There is no alias 'home'" in err


# --- what goes wrong ---


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("send",), "Missing argument 'FILE...'"), (("send", "a"), "Missing argument 'URL'"),
        (("send", NOBODY), "Missing argument 'FILE...'"), (("send", "#office"), "Missing argument 'FILE...'"), (("get",), "Missing argument 'URL'"),
        (("send", "a", "ftp://x"), "'ftp://x' is no address"), (("get", "x y"), "is no address"),
        (("get", NOBODY, "a", "-o", "b"), "give one of them"), (("get", NOBODY, "--digest", "md9:00"), "md9"),
        (("get", NOBODY, "--limit", "fast"), "'fast' is no limit"), (("get", NOBODY, "--stall", "0"), "stall 0"),
        (("get", NOBODY, "-H", f"{SECRET}"), "has no value"), (("get", NOBODY, "-H", "a b: c"), "name of a header"),
        (("get", NOBODY, "--ca", "none.pem"), "none.pem"), (("get", NOBODY, "--tries", "-1"), "-1 is not in the range"),
        (("get", NOBODY, "--priority", "11"), "not in the range"), (("get", "#"), "names no alias"),
        (("send", "a", NOBODY, "--piece", "big"), "'big' is no size"),
        (("send", "a", NOBODY, "--protocol", "ftp"), "'ftp' is not one of"),
        (("send", "a", "b", NOBODY, "--name", "c"), "for one file"),
        (("send", "a", f"http://anna:{SECRET}@/"), "is no address"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_said(run, here, arguments, said):
    (here / "a").write_bytes(b"data")
    out, err = run(*arguments, code=2)
    assert said in err
    assert out == ""
    assert "Traceback" not in err
    assert SECRET not in err.replace(f"{SECRET!r} has no value", "")


@pytest.mark.parametrize(
    ("status", "code"), [(401, 4), (403, 4), (404, 4), (410, 4), (413, 4), (429, 3), (500, 3), (503, 3), (501, 4)]
)
def test_exit_code_of_an_answer(run, status, code, no_waiting):
    with Answers(lambda asked: (status, {}, b"no")) as server:
        out, err = run("get", f"{server.url}/a.bin", "a.bin", "--tries", "1", code=code)
    assert str(status) in err
    assert out == ""
    assert ("Gave up. The same command begins again." in err) == (code == 3)


def test_exit_code_of_a_wrong_file(run, served, here):
    _, err = run("get", f"{served.url}/a.bin", "a.bin", "--digest", "sha256:" + "0" * 64, code=6)
    assert "digest" in err
    assert list(here.iterdir()) == []


def test_exit_code_of_files_and_folders_here(run, here, served):
    (here / "a").mkdir()
    run("send", "a", served.url, code=5)
    run("send", "none", served.url, code=5)
    run("get", served.url, "none/a.bin", code=5)


def test_exit_code_where_nobody_listens(run, no_waiting):
    _, err = run("get", f"{NOBODY}/a", "a", "--tries", "2", code=3)
    assert err.count("✗") == 1


def test_command_tries_again(run, no_waiting):
    count = iter(range(1000))
    honest = ServedFile(DATA, ETag='"1"')
    with Answers(lambda asked: (503, {}, b"") if next(count) < 12 else honest(asked)) as server:
        run("get", f"{server.url}/a", "a", "--tries", "2", code=3)
        run("get", f"{server.url}/a", "a", "--tries", "2")


class Tus:
    """A server of tus whose answers to PATCH are those in `statuses` first, and 204 then."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = iter(statuses)

    def __call__(self, asked):
        headers = {"Tus-Resumable": "1.0.0", "Tus-Version": "1.0.0", "Tus-Extension": "creation"}
        if asked.command == "PATCH":
            return next(self.statuses, 204), {**headers, "Upload-Offset": str(len(asked.body))}, b""
        offset = {"Location": "/files/1", "Upload-Offset": "0", "Upload-Length": "4"}
        return {"OPTIONS": 204, "POST": 201, "HEAD": 200}[asked.command], {**headers, **offset}, b""


def test_command_that_tries_again_goes_on_with_the_same_upload(run, here, tmp_path, no_waiting):
    (here / "a").write_bytes(b"data")
    with Answers(Tus(*[503] * 7)) as server:
        assert run("send", "a", server.url, "--tries", "2")[0] == f"{server.url}/files/1\n"
        assert [asked.command for asked in server.asked].count("POST") == 1
    assert states(tmp_path) == []


# --- quiet and JSON ---


def test_quiet_prints_where_it_is_and_errors(run, here, served, plain):
    assert run("get", f"{served.url}/a", "-q") == ("a\n", "")
    assert run("send", "a", plain.url, "-q") == (f"{plain.url}/files/1\n", "")
    out, err = run("get", f"{served.url}/a", "a", "-q", code=5)
    assert out == ""
    assert err.startswith("Error: ")


def test_json_lines(run, served):
    out, err = run("get", f"{served.url}/a", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["event"] for line in lines] == ["begin", "end", "done"]
    assert (lines[1]["done"], lines[1]["total"], lines[1]["error"]) == (len(DATA), len(DATA), None)
    assert (lines[2]["target"], lines[2]["size"]) == ("a", len(DATA))
    assert err == ""
    out, err = run("get", f"{served.url}/a", "a", "--json", code=5)
    assert [json.loads(line)["event"] for line in out.splitlines()] == ["begin", "error"]
    last = json.loads(out.splitlines()[-1])
    assert (last["name"], last["code"], last["exit"]) == ("a", "target_exists", 5)
    assert "--overwrite" in last["remedy"]
    assert (last["remedy"] in last["error"], err) == (False, "")


def test_json_of_an_upload_has_its_size_at_once_and_how_it_went(run, here, plain):
    (here / "a").write_bytes(DATA)
    lines = [json.loads(line) for line in run("send", "a", plain.url, "--json")[0].splitlines()]
    assert [(line["event"], line.get("total"), line.get("protocol")) for line in lines] == [
        ("begin", len(DATA), ""), ("end", len(DATA), "multipart"), ("done", None, None),
    ]  # fmt: skip
    assert "in one piece as a form" in run("send", "a", plain.url)[1]


# --- a link that stays away ---


@pytest.fixture
def slept(monkeypatch):
    """The seconds that a command would have waited, in sum for each file."""
    waits: list[float] = []
    monkeypatch.setattr("upload_helper.transfer.progress.Meter.wait", lambda meter, seconds, *_: waits.append(seconds))
    return waits


def test_command_tries_for_more_than_an_hour(run, slept):
    _, err = run("get", f"{NOBODY}/a", "a", code=3)
    assert 3600 < sum(slept) < 5400
    assert "Gave up. The same command begins again." in err


def test_next_files_wait_no_longer_until_one_gets_through(run, here, slept, plain):
    for name in "abcd":
        (here / name).touch()
    answer, answers = plain.answer, []

    def busy_for_the_first(asked):
        answers.append(asked.command)
        is_first = b'filename="a"' in asked.body or b'filename="b"' in asked.body
        is_last = b'filename="d"' in asked.body
        return (503, {}, b"") if is_first or is_last else answer(asked)

    plain.answer = busy_for_the_first
    run("send", "a", "b", "c", "d", plain.url, "--tries", "3", "--protocol", "multipart", code=3)
    assert answers.count("POST") == 15 + 5 + 1 + 15


# --- an end before the end ---


def test_what_is_said_of_the_next_time_is_true(run, here, monkeypatch, slept):
    (here / "a").write_bytes(b"data")
    stop = [KeyboardInterrupt()]
    monkeypatch.setattr("upload_helper.transfer.progress.Meter.wait", lambda *_: (_ for _ in ()).throw(stop[0]))
    for answer, arguments, said in (
        (Tus(503, 503), ("send", "a"), "goes on where it was."),
        (lambda asked: (405 if asked.command == "OPTIONS" else 503, {}, b""), ("send", "a"), "begins again."),
    ):
        with Answers(answer) as server:
            assert run(*arguments, server.url, code=130)[1].endswith(f"Interrupted. The same command {said}\n")
            last = run(*arguments, server.url, "--json", code=130)
            assert (json.loads(last[0].splitlines()[-1])["remedy"], last[1]) == (f"The same command {said}", "")


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"ETag": '"1"'}, "goes on where it was, if the server sends parts of files."),
        ({"ETag": None, "Last-Modified": None}, "begins again."),
    ],
)
def test_what_is_said_of_the_next_download_is_true(run, monkeypatch, headers, said):
    served = ServedFile(DATA, **headers)
    served.lie = lambda asked, answer: (answer[0], {**answer[1], "Content-Length": str(len(DATA))}, answer[2][:150_000])

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("upload_helper.transfer.progress.Meter.wait", stop)
    with Answers(served) as server:
        assert run("get", f"{server.url}/a", "b", code=130)[1].endswith(f"Interrupted. The same command {said}\n")
        if served.headers["ETag"]:
            served.lie = lambda asked, answer: (answer[0], {**answer[1], "Content-Length": "50000"}, answer[2][:10_000])
            _, err = run("get", f"{server.url}/a", "b", code=130)
            assert err.endswith("Interrupted. The same command goes on where it was.\n")


# --- the worker ---


def test_background_leaves_it_to_the_worker(run, here, tmp_path, served):
    (here / "a").write_bytes(DATA)
    out, err = run("get", f"{served.url}/x", "b", "--background", "--tag", "t", "--title", "Tiles", "--priority", "3")
    assert "work run" in err
    (task,) = json.loads(run("work", "list", "--json")[0])
    assert (task["uid"], task["kind"], task["tag"], task["title"]) == (out.strip(), "download", "t", "Tiles")
    assert (task["priority"], task["done"], task["total"]) == (3, None, None)
    assert run("work", "run", "--until-idle", "--transfers", "2", "--limit", "10m") == ("1 runs\n", "")
    (task,) = json.loads(run("work", "list", "--json")[0])
    assert (task["state"], task["done"], task["total"]) == ("SUCCEEDED", len(DATA), len(DATA))
    assert (here / "b").read_bytes() == DATA
    assert "195.3 KiB" in run("work", "list")[0]
    shown = run("work", "show", out.strip())[0]
    assert f"{served.url}/x" in shown


def test_background_does_not_overwrite_either(run, here, served):
    (here / "b").write_bytes(b"mine")
    run("get", f"{served.url}/x", "b", "--background")
    run("work", "run", "--until-idle")
    (task,) = json.loads(run("work", "list", "--json")[0])
    assert (task["state"], (here / "b").read_bytes()) == ("FAILED", b"mine")


def test_background_says_at_once_what_cannot_be(run, here, tmp_path):
    (here / "a").write_bytes(DATA)
    assert "no file" in run("send", "a", "none", NOBODY, "--background", code=5)[1]
    assert "no address" in run("send", "none", "ftp://x", "--background", code=2)[1]
    assert not (tmp_path / "work.db").exists()


def test_secrets_of_a_task_are_not_shown(run, here):
    (here / "a").write_bytes(b"data")
    options = ("-u", f"anna:{SECRET}", "-H", f"X-Key: {SECRET}", "--background", "--json")
    uid = json.loads(run("send", "a", f"http://u:{SECRET}@127.0.0.1:9/?token={SECRET}", *options)[0])["uid"]
    assert SECRET not in run("work", "show", uid)[0]
    assert SECRET not in run("work", "show", uid, "--json")[0]
    assert SECRET not in run("work", "list", "--json")[0]


def test_list_shows_a_transfer_that_runs(run, tmp_path, monkeypatch):
    work = Work(tmp_path / "work.db")
    work.start_download({"url": NOBODY, "file": "a"}, title="Tiles")
    claim = work.ledger.claim(frozenset(), 30)
    work.ledger.renew(claim.uid, claim.attempt, 30, 0.25, "", done=MIB, total=4 * MIB, speed=MIB / 2)
    out, _ = run("work", "list")
    assert "RUNNING" in out
    assert "25 %" in out
    assert "1.0/4.0 MiB, 512.0 KiB/s, 0:00:06 left" in out
    (task,) = json.loads(run("work", "list", "--json")[0])
    assert (task["done"], task["total"], task["speed"], task["progress"]) == (MIB, 4 * MIB, MIB / 2, 0.25)
    work.stop(claim.uid)
    work.close()


# --- interrupted ---


def command(*arguments: str, **more) -> subprocess.Popen:
    """Start a command as a shell does."""
    environment = {**os.environ, "PYTHONPATH": str(PLUGIN)}
    return subprocess.Popen(
        [sys.executable, "-m", "upload_helper.cli", *arguments], env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, **more,
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_upload_that_is_interrupted_goes_on_with_the_same_command(here, tmp_path, gunicorn, number):
    (here / "a").write_bytes(DATA * 10)
    server = gunicorn()
    with WireProxy(server.port, lambda n: Fault(rate=MIB) if n == 0 else Fault()) as link:
        arguments = ("send", "a", f"{link.url}/uploads", "--piece", "64k")
        first = command(*arguments)
        wait_until(lambda: link.up > 500_000, what="half of it")
        first.send_signal(number)
        _, err = first.communicate(timeout=10)
        if number == signal.SIGINT:
            assert first.returncode == 130
            assert err == "✗ a: interrupted\nInterrupted. The same command goes on where it was.\n"
        (state,) = [path for path in states(tmp_path) if path.suffix == ".json"]
        assert state.stat().st_mode & 0o777 == 0o600
        sent = link.up
        second = command(*arguments)
        out, err = second.communicate(timeout=10)
        assert (second.returncode, "went on at" in err) == (0, True), err
        assert link.up - sent < len(DATA) * 10 - 300_000
    assert out.startswith((link.url, server.origin))
    assert states(tmp_path) == []


@pytest.fixture
def plain():
    """A server of forms that refuses the file "b" as long as its attribute `refuses` says so."""
    stored: list[str] = []

    def store(asked):
        if asked.command != "POST":
            return 405, {}, b""
        name = re.search(rb'filename="(.*?)"', asked.body)[1].decode()
        if name == "b" and server.refuses:
            return 403, {}, b""
        stored.append(name)
        return 201, {"Location": f"/files/{len(stored)}"}, b""

    with Answers(store) as server:
        server.refuses, server.stored = True, stored
        yield server


def test_files_that_are_through_are_not_sent_again_until_all_are(run, here, tmp_path, plain):
    for name in "abc":
        (here / name).write_bytes(DATA)
    files = ("send", "a", "b", "c", plain.url)
    run(*files, code=4)
    (here / "c").write_bytes(b"changed")
    out, err = run(*files, code=4)
    assert plain.stored == ["a", "c", "c"]
    assert out == f"{plain.url}/files/1\n{plain.url}/files/3\n"
    assert "a was sent already" in err
    assert "c was sent already" not in err
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in states(tmp_path))
    plain.refuses = False
    out, _ = run(*files, "--json")
    ends = [json.loads(line) for line in out.splitlines() if '"done", ' in line]
    assert [(end["target"][-8:], end["already"]) for end in ends] == [
        ("/files/1", True), ("/files/4", False), ("/files/3", True),
    ]  # fmt: skip
    assert states(tmp_path) == []
    run(*files)
    assert plain.stored[4:] == ["a", "b", "c"]


def test_file_that_was_sent_already_is_sent_again_if_that_is_said(run, here, tmp_path, plain):
    for name in "ab":
        (here / name).write_bytes(DATA)
    run("send", "a", "b", plain.url, code=4)
    run("send", "a", "b", plain.url, "--again", code=4)
    run("send", "a", plain.url, "--name", "other")
    assert plain.stored == ["a", "a", "other"]
    run("send", "a", plain.url)
    assert (plain.stored, states(tmp_path)) == (["a", "a", "other", "a"], [])


def test_download_that_is_interrupted_goes_on_with_the_same_command(here):
    data = DATA * 10
    with Answers(ServedFile(data, ETag='"1"')) as server:
        slow = [Fault(rate=2 * MIB)]
        with WireProxy(server.server_port, lambda n: slow.pop() if slow else Fault()) as link:
            arguments = ("get", f"{link.url}/a.bin")
            first = command(*arguments)
            wait_until(lambda: link.down > 1_500_000, what="half of it")
            first.send_signal(signal.SIGINT)
            _, err = first.communicate(timeout=10)
            assert (first.returncode, "goes on where it was" in err) == (130, True)
            second = command(*arguments)
            _, err = second.communicate(timeout=10)
            assert (second.returncode, "went on at" in err) == (0, True), err
    assert (here / "a.bin").read_bytes() == data
    assert [path.name for path in here.iterdir()] == ["a.bin"]


def test_two_commands_do_not_send_one_file_at_once(here, gunicorn):
    (here / "a").write_bytes(DATA)
    server = gunicorn()
    with WireProxy(server.port, lambda _: Fault(up=10_000, stalls=True)) as link:
        arguments = ("send", "a", f"{link.url}/uploads")
        first = command(*arguments)
        assert link.broken.wait(10)
        second = command(*arguments)
        _, err = second.communicate(timeout=10)
        assert (second.returncode, "Another process is sending a there" in err) == (1, True)
        first.kill()
        first.communicate()


def test_terminal_shows_a_line_that_changes(here, gunicorn):
    (here / "a").write_bytes(DATA * 5)
    server = gunicorn()
    ours, theirs = pty.openpty()
    with WireProxy(server.port, lambda n: Fault(rate=MIB)) as link:
        shell = subprocess.Popen(
            [sys.executable, "-m", "upload_helper.cli", "send", "a", f"{link.url}/uploads", "--piece", "64k"], stdout=theirs,
            stderr=theirs, env={**os.environ, "PYTHONPATH": str(PLUGIN), "COLUMNS": "60", "TERM": "xterm"},
        )  # fmt: skip
        os.close(theirs)
        seen = b""
        while True:
            select.select([ours], [], [], 10)
            try:
                block = os.read(ours, 65536)
            except OSError:
                break
            seen += block
        assert shell.wait(10) == 0
    os.close(ours)
    text = seen.decode()
    assert "KiB/s" in text
    assert "━" in text
    assert re.search(r"[1-9][0-9] %", text)
    assert "✓" in text


# --- without the extras ---


@pytest.mark.parametrize("arguments", [("send", "a"), ("get",)])
def test_no_database_is_needed(here, served, arguments):
    (here / "a").write_bytes(DATA)
    blocked = (
        "import sys\nfor name in ('sqlalchemy', 'psutil', 'psycopg', 'jeepney'): sys.modules[name] = None\n"
        "from upload_helper.cli import main\nmain()"
    )
    url = f"{served.url}/b" if arguments == ("get",) else served.url
    done = subprocess.run(
        [sys.executable, "-c", blocked, *arguments, url], env={**os.environ, "PYTHONPATH": str(PLUGIN)},
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_extra_that_is_missing_is_named(here):
    blocked = "import sys\nsys.modules['requests'] = None\nfrom upload_helper.cli import main\nmain()"
    done = subprocess.run(
        [sys.executable, "-c", blocked, "get", NOBODY], env={**os.environ, "PYTHONPATH": str(PLUGIN)},
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert (done.returncode, "pip install 'flask-upload-helper[transfer]'" in done.stderr) == (1, True), done.stderr


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160])
def test_list_fits_the_terminal(width):
    tasks = [
        Task("0123456789abcdef", title="съёмка поля " * 5, tag="survey", lane=11, done=MIB, total=4 * MIB, **values)
        for values in ({"state": State.RUNNING, "progress": 0.25, "speed": MIB / 2}, {"next_run": 1018.0})
    ]
    console = Console(width=width, file=io.StringIO())
    console.print(Rows(Listing(tasks), 1000.0))
    text = console.file.getvalue()
    assert all(cell_len(line.rstrip()) <= width for line in text.splitlines())
    words = " ".join(text.split())
    for word in ("RUNNING", "ENQUEUED", "25 %", "01234567", "1.0/4.0 MiB"):
        assert word in words
    assert "0:00:06 left" in words or width < 160
