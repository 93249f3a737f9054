"""``flask uploads …`` for the operator of an application, and ``upload-helper``."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from flask import Flask

from chunks import send, upload
from hostile import uploads_in
from servers import PLUGIN, TESTS
from upload_helper import UploadHelper, __version__
from upload_helper.cli import main, uploads

DATA = random.Random(18).randbytes(3000)
UNKNOWN = "0" * 32


@pytest.fixture
def run(host):
    """Return a function that runs ``flask uploads …`` and gives back exit code and output."""

    def run(*arguments: str):
        return host.test_cli_runner().invoke(host.cli, ["uploads", *arguments])

    return run


@pytest.fixture(autouse=True)
def commands(host):
    # As Flask does with the entry point of an installed package.
    host.cli.add_command(uploads)


def test_list_of_nothing_is_empty(run, folder):
    result = run("list")
    assert (result.exit_code, result.output) == (0, "")
    assert not folder.exists()


@pytest.mark.parametrize(
    ("told", "listed", "shown"),
    [
        ({"Upload-Length": "3000"}, ["33", "%", "2.9", "KiB"], ("3000 bytes", "2000 bytes")),
        ({"Upload-Defer-Length": "1"}, ["?", "%", "unknown"], ("unknown", "unknown")),
    ],
)
def test_upload_that_is_appended_to(run, client, told, listed, shown):
    tus = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}
    uid = client.post("/uploads", headers={**tus, **told}, data=DATA[:1000]).headers["Location"].rpartition("/")[2]
    assert run("list").output.split() == [uid, "open", *listed, "-", "unnamed"]
    rows = dict(line.split(maxsplit=1) for line in run("show", uid).output.splitlines())
    assert (rows["size"], rows["missing"], rows["received"]) == (*shown, "1000 bytes")


def test_list_has_a_line_for_each_upload(run, client):
    half = send(client, DATA, 1500, 0, headers={"X-User": "ann"}, name="Straße.tif").json["uploadUid"]
    whole = upload(client, DATA, 1500, headers={"X-User": "bob"}, name="b.tif")
    empty = upload(client, b"", 1500, name="empty")
    result = run("list")
    lines = {line.split()[0]: line.split() for line in result.output.splitlines()}
    assert result.exit_code == 0
    assert lines == {
        half: [half, "open", "50", "%", "2.9", "KiB", "ann", "Straße.tif"],
        whole: [whole, "finished", "100", "%", "2.9", "KiB", "bob", "b.tif"],
        empty: [empty, "finished", "100", "%", "0", "B", "-", "empty"],
    }


def test_list_of_many_sizes(run, client):
    for size in (1, 1023, 1024, 1 << 20, 5 << 30):
        values = {"fileName": str(size), "totalSize": size, "chunkCount": 1, "chunkNumber": 0}
        client.post("/uploads", query_string=values, data=b"x", headers={"Content-Type": "application/octet-stream"})
    shown = {line.split()[-1]: line.split()[4:6] for line in run("list").output.splitlines()}
    assert shown == {
        "1": ["1", "B"], "1023": ["1023", "B"], "1024": ["1.0", "KiB"], str(1 << 20): ["1.0", "MiB"], str(5 << 30): ["5.0", "GiB"],
    }  # fmt: skip


def test_names_of_owners_can_not_play_with_the_terminal(run, client):
    send(client, DATA, 1500, 0, headers={"X-User": "ann\x1b[31m\u202e"}, name="a\x1b]0;b.tif")
    for output in (run("list").output, run("show", run("list").output.split()[0]).output):
        assert "\x1b" not in output
        assert "\u202e" not in output
    assert len(run("list").output.splitlines()) == 1


def test_list_goes_around_an_upload_that_can_not_be_read(run, client, folder):
    broken, good = (send(client, DATA, 1500, 0).json["uploadUid"] for _ in range(2))
    (folder / broken / "chunks").unlink()
    (folder / broken / "chunks").symlink_to("/etc/hostname")
    result = run("list")
    assert result.exception is None
    assert good in result.output


def test_show_tells_all_about_one_upload(run, client, folder):
    uid = send(client, DATA, 700, 2, headers={"X-User": "ann"}, name="a.tif").json["uploadUid"]
    result = run("show", uid)
    rows = dict(line.split(maxsplit=1) for line in result.output.splitlines())
    assert result.exit_code == 0
    expires = rows.pop("expires")
    assert len(expires) == len("2026-01-01 00:00:00")
    assert rows == {
        "uid": uid, "name": "a.tif", "state": "open", "size": "3000 bytes", "received": "700 bytes",
        "missing": "4 of 5 chunks", "owner": "ann", "path": "-",
    }  # fmt: skip
    whole = upload(client, DATA, 700)
    assert str(folder / whole / "data") in run("show", whole).output


def test_delete_deletes_several_and_tells_of_those_that_are_not_there(run, client, folder):
    uids = [send(client, DATA, 700, 0).json["uploadUid"], upload(client, DATA, 700)]
    result = run("delete", uids[0], UNKNOWN, uids[1])
    assert result.exit_code == 1
    assert result.stdout.split() == ["deleted", uids[0], "deleted", uids[1]]
    assert UNKNOWN in result.stderr
    assert uploads_in(folder) == []
    assert run("delete", uids[0]).exit_code == 1


@pytest.mark.parametrize("uid", [UNKNOWN, "x", "../..", ".owners", ""])
@pytest.mark.parametrize("command", ["show", "delete"])
def test_upload_that_is_not_there_is_an_error(run, folder, command, uid):
    result = run(command, uid)
    assert result.exit_code == 1
    assert result.output.startswith("Error: There is no")
    assert isinstance(result.exception, SystemExit)
    assert not folder.exists()


@pytest.mark.parametrize(
    "arguments", [[], ["delete"], ["show"], ["nonsense"], ["list", "x"], ["show", UNKNOWN, UNKNOWN]]
)
def test_wrong_usage_is_told(run, arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.output


def test_sweep_says_how_many(run, client, folder):
    uid = send(client, DATA, 700, 0).json["uploadUid"]
    assert run("sweep").output == "0 uploads deleted\n"
    for path in [folder / uid, *(folder / uid).iterdir()]:
        os.utime(path, (1, 1))
    result = run("sweep")
    assert (result.exit_code, result.output) == (0, "1 upload deleted\n")
    assert uploads_in(folder) == []


@pytest.mark.parametrize("command", ["list", "sweep", "show", "delete"])
def test_application_without_a_helper_is_told_what_it_lacks(command):
    from upload_helper.cli import uploads

    app = Flask("bare")
    app.cli.add_command(uploads)
    result = app.test_cli_runner().invoke(
        app.cli, ["uploads", command, *([UNKNOWN] if command in ("show", "delete") else [])]
    )
    assert result.exit_code == 1
    assert "UploadHelper(app)" in result.output
    assert isinstance(result.exception, SystemExit), "a traceback is no message"


def flask(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join((str(PLUGIN), str(TESTS))),
        "HOST_CONFIG": f'{{"UPLOAD_HELPER_FOLDER": "{folder}", "UPLOAD_HELPER_MIN_FREE_SPACE": 0}}',
    }  # fmt: skip
    # The entry point is there in an installation only, so the command is added as it would be.
    program = "import host, upload_helper.cli; app = host.app(); app.cli.add_command(upload_helper.cli.uploads)"
    (folder.parent / "served.py").write_text(program)
    command = [sys.executable, "-m", "flask", "--app", str(folder.parent / "served.py"), "uploads", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_commands_work_in_a_process_of_their_own(client, folder):
    uid = upload(client, DATA, 700, headers={"X-User": "ann"}, name="日本.tif")
    listed = flask(folder, "list")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert listed.stdout.split() == [uid, "finished", "100", "%", "2.9", "KiB", "ann", "日本.tif"]
    assert flask(folder, "delete", uid, UNKNOWN).returncode == 1
    assert uploads_in(folder) == []


def test_command_of_the_package_tells_its_version_and_help():
    from click.testing import CliRunner

    assert __version__ in CliRunner().invoke(main, ["--version"]).output
    assert "demo" in CliRunner().invoke(main, ["--help"]).output


def findings(output: str) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in output.splitlines())


def test_doctor_finds_a_machine_well_and_leaves_nothing(run, folder):
    found = findings(run("doctor").output)
    assert found["folder"] == f"{folder} will be made by the first upload, in {folder.parent}"
    assert not folder.exists()
    folder.mkdir()
    result = run("doctor")
    assert result.exit_code == 0, result.output
    found = findings(result.output)
    assert found["authorize"] == "is there"
    assert found["folder"] == f"{folder} can be written"
    assert (found["locks"], found["room"], found["splice"]) == ("work", "is reserved", "works")
    assert found["gunicorn"].startswith("27.")
    assert found["bodies"] == "spliced from the socket into the file from 1048576 bytes on, under gunicorn 27 or uWSGI"
    assert os.listdir(folder) == []


def test_doctor_names_what_is_broken(folder):
    app = Flask("open")
    app.config.update(UPLOAD_HELPER_FOLDER=folder, UPLOAD_HELPER_MIN_FREE_SPACE=1 << 60, UPLOAD_HELPER_SPLICE_FROM=None)
    UploadHelper(app)
    app.cli.add_command(uploads)
    result = app.test_cli_runner().invoke(app.cli, ["uploads", "doctor"])
    assert result.exit_code == 1
    found = findings(result.output)
    assert found["authorize"].startswith("BROKEN  is missing; pass UploadHelper(app, authorize=…)")
    assert found["identify"].startswith("is missing; users are not told apart")
    assert "BROKEN" in found["free"]
    assert "UPLOAD_HELPER_MIN_FREE_SPACE" in found["free"]
    assert found["bodies"] == "through memory: UPLOAD_HELPER_SPLICE_FROM is None"


def test_doctor_says_when_the_folder_can_not_be_used(make_host, tmp_path):
    (tmp_path / "file").touch()
    app = make_host(folder=tmp_path / "file" / "uploads")
    app.cli.add_command(uploads)
    result = app.test_cli_runner().invoke(app.cli, ["uploads", "doctor"])
    assert result.exit_code == 1
    assert findings(result.output)["folder"].startswith(f"BROKEN  {tmp_path}/file: Not a directory; run this")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
def test_doctor_tells_whose_folder_it_is(run, folder):
    folder.mkdir()
    os.chown(folder, 12345, -1)
    said = findings(run("doctor").output)["folder"]
    assert said == f"{folder} belongs to user 12345; this ran as 0: run it as the server's user"


def test_doctor_looks_into_the_folders_of_the_store(run, folder, monkeypatch):
    (folder / ".locks").mkdir(parents=True)
    monkeypatch.setattr(os, "access", lambda path, mode: os.path.basename(path) != ".locks")
    result = run("doctor")
    assert result.exit_code == 1
    said = f"BROKEN  {folder}/.locks can't be written; give it to user {os.geteuid()}"
    assert findings(result.output)["folder"] == said


def test_doctor_of_a_full_disk_says_to_make_room(run, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("upload_helper.cli.doctor.can_reserve", full)
    result = run("doctor")
    assert result.exit_code == 1
    assert result.output.splitlines()[-5].endswith("No space left on device; make room")


@pytest.mark.parametrize(
    ("locked", "said"),
    [
        (lambda *_: None, "BROKEN  do not keep anybody out; put UPLOAD_HELPER_FOLDER on a file system with flock(2)"),
        (lambda *_: os.listdir("/nowhere"), "BROKEN  do not work: No such file or directory; put UPLOAD_HELPER_FOLDER"),
    ],
)
def test_doctor_tries_the_locks(run, monkeypatch, locked, said):
    # A file system without them, which no test machine has.
    monkeypatch.setattr("upload_helper.cli.doctor.fcntl.flock", locked)
    result = run("doctor")
    assert result.exit_code == 1
    assert findings(result.output)["locks"].startswith(said)


def test_start_is_logged_with_the_way_that_bodies_go(make_host, caplog):
    caplog.set_level("INFO", "upload_helper")
    make_host(splice_from=5)
    make_host(splice_from=None)
    assert caplog.messages == [
        "Bodies go spliced from the socket into the file from 5 bytes on, under gunicorn 27 or uWSGI.",
        "Bodies go through memory: UPLOAD_HELPER_SPLICE_FROM is None.",
    ]
