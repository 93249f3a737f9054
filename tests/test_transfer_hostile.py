"""Transfers among servers that lie, links that were planted, and notes that outlived what they are about."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack
from pathlib import Path

import pytest

from answers import Answers
from transfers import ScriptedLine, Sending
from upload_helper.cli import kept as cli_kept
from upload_helper.retry import Backoff
from upload_helper.transfer import wire
from upload_helper.transfer.addresses import Endpoint
from upload_helper.transfer.download import DownloadRequest, Fetched, fetch
from upload_helper.transfer.errors import AnswerError, LinkError, PageError, ProtocolError, SourceError, TargetError
from upload_helper.transfer.names import safe_name
from upload_helper.transfer.orders import read_order
from upload_helper.transfer.part import Note, Part, source_of
from upload_helper.transfer.source import Source
from upload_helper.transfer.upload import Sent, UploadRequest, send
from upload_helper.transfer.web import Line, Response
from upload_helper.transfer.wire import DIRECT
from upload_helper.work import Runner, State, Work

OLD, NEW = b"a" * 1000, b"b" * 1000
BEFORE, AFTER = "Sat, 01 Jan 2022 00:00:00 GMT", "Sun, 02 Jan 2022 00:00:00 GMT"
AT_ONCE = Backoff(first=0.001, longest=30, jitter=0)


class StopError(BaseException):
    """What a caller raises to end a transfer."""


@pytest.fixture
def serve():
    """Return a function that starts a server with the given answers."""
    with ExitStack() as stack:
        yield lambda answer: stack.enter_context(Answers(answer))


def get(url: str, target: Path, sleep=lambda seconds: None, **options) -> Fetched:
    with Line(Endpoint.of(url), proxy=DIRECT, stall=5) as line:
        return fetch(DownloadRequest(file=str(target), **options), line, sleep=sleep, backoff=AT_ONCE)


def stop(seconds):
    raise StopError


# --- what a part and its note say ---


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"Last-Modified": BEFORE}, {"Last-Modified": AFTER}),
        ({"Last-Modified": BEFORE, "ETag": 'W/"1"'}, {"Last-Modified": BEFORE, "ETag": 'W/"2"'}),
        ({"Last-Modified": BEFORE, "ETag": 'W/"1"'}, {"Last-Modified": AFTER, "ETag": 'W/"1"'}),
    ],
)
def test_parts_of_two_files_are_never_joined(serve, tmp_path, first, then):
    """The file was replaced by another one of the same length, on a server that knows no If-Range."""

    def answer(asked):
        if "Range" in asked.headers:
            return 206, {**then, "Content-Range": "bytes 500-999/1000"}, NEW[500:]
        again = len(server.asked) > 1
        return 200, {**(then if again else first), "Content-Length": "1000"}, [NEW if again else OLD[:500]]

    server = serve(answer)
    found = get(server.url + "/f", tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == NEW
    assert found.restarted


def test_same_strong_etag_is_the_same_file_whatever_its_date():
    assert not Note(etag='"1"', modified=BEFORE).differs(Note(etag='"1"', modified=AFTER))
    assert Note(etag='W/"1"', modified=BEFORE).validator == BEFORE


def test_refused_range_tells_no_length(serve, tmp_path):
    """A file of unknown length that was cut is not whole because its server takes no range."""

    def answer(asked):
        asked.protocol_version, asked.close_connection = "HTTP/1.1", True
        if "Range" in asked.headers:
            return 416, {}, b""
        whole = len(server.asked) > 1
        chunk = b"3e8\r\n" + OLD + b"\r\n" + (b"1\r\na\r\n0\r\n\r\n" if whole else b"")
        return 200, {"ETag": '"1"', "Transfer-Encoding": "chunked"}, [chunk]

    server = serve(answer)
    get(server.url + "/f", tmp_path / "f")
    assert (tmp_path / "f").stat().st_size == 1001


def test_note_without_a_part_makes_no_file_empty(serve, tmp_path):
    server = serve(lambda asked: (200, {}, NEW))
    (tmp_path / "f.part.json").write_bytes(Note(source=source_of("http://other.example/"), length=0).build())
    get(server.url + "/f", tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == NEW


def test_part_of_before_a_reboot_grows_from_attempt_to_attempt(serve, tmp_path):
    def answer(asked):
        first = int(asked.headers.get("Range", "bytes=0-")[6:-1])
        headers = {"ETag": '"1"', "Content-Range": f"bytes {first}-999/1000", "Content-Length": str(1000 - first)}
        return 206, headers, [OLD[first : first + 100]]

    server = serve(answer)
    note = Note(source=source_of(server.url + "/f"), etag='"1"', length=1000, synced=200, boot="another")
    (tmp_path / "f.part.json").write_bytes(note.build())
    (tmp_path / "f.part").write_bytes(OLD[:300])
    for size in (300, 400, 500):
        with pytest.raises(StopError):
            get(server.url + "/f", tmp_path / "f", sleep=stop)
        assert (tmp_path / "f.part").stat().st_size == size


# --- what stands under the target's name ---


def test_page_does_not_replace_a_file(serve, tmp_path):
    server = serve(lambda asked: (200, {"Content-Type": "text/html"}, b"<html>sign in</html>"))
    target = tmp_path / "tiles.mbtiles"
    target.write_bytes(OLD)
    with pytest.raises(PageError):
        get(server.url + "/tiles.mbtiles", target, overwrite=True)
    assert target.read_bytes() == OLD
    with pytest.raises(PageError):
        get(server.url + "/tiles.mbtiles", tmp_path / "new.mbtiles")
    assert not (tmp_path / "new.mbtiles").exists()


@pytest.mark.parametrize(("name", "more"), [("a.htm", {}), ("a", {}), ("a.csv", {"Content-Disposition": "attachment"})])
def test_page_that_is_asked_for_is_taken(serve, tmp_path, name, more):
    server = serve(lambda asked: (200, {"Content-Type": "text/html", **more}, b"<html>new</html>"))
    (tmp_path / name).write_bytes(b"\n<!doctype html>")
    get(server.url + "/x", tmp_path / name, overwrite=True)
    assert (tmp_path / name).read_bytes() == b"<html>new</html>"


def test_only_files_are_replaced(serve, tmp_path):
    """A device would be gone for the whole machine."""
    server = serve(lambda asked: (200, {}, NEW))
    os.mkfifo(tmp_path / "null")
    with pytest.raises(TargetError):
        get(server.url + "/f", tmp_path / "null", overwrite=True)
    assert stat.S_ISFIFO((tmp_path / "null").lstat().st_mode)
    (tmp_path / "link").symlink_to("nowhere")
    get(server.url + "/f", tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").read_bytes() == NEW


def test_links_beside_the_target_lead_nowhere(serve, tmp_path):
    server = serve(lambda asked: (200, {}, NEW))
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "f.part.new").symlink_to(victim)
    get(server.url + "/f", tmp_path / "f")
    (tmp_path / "g.part").hardlink_to(victim)
    (tmp_path / "g.part.json").write_text("{}")
    with pytest.raises(TargetError):
        get(server.url + "/f", tmp_path / "g")
    assert victim.read_text() == "precious"
    assert (tmp_path / "f").read_bytes() == NEW


@pytest.mark.parametrize(
    "name", ["tool.bin.part", "tool.bin.PART", "tool.bin.part.json", "tool.bin.part.new", "a.part. ."]
)
def test_no_server_names_a_part(name):
    assert not safe_name(name).lower().endswith((".part", ".part.json", ".part.new"))
    assert len(safe_name(name)) >= len(name.rstrip(". "))


def test_end_of_a_transfer_leaves_the_next_one_alone(tmp_path, monkeypatch):
    """Behind the rename another process may begin, while this one waits for the disk."""
    target, others = tmp_path / "f", []
    with Part(target) as part:
        part.begin(Note(length=3))
        part.write(b"abc")

        def begin_another(folder):
            others.append(Part(target))
            others[0].begin(Note(length=9))
            others[0].write(b"d")

        monkeypatch.setattr("upload_helper.transfer.part.sync_directory", begin_another)
        part.finish(overwrite=True)
    assert (tmp_path / "f.part").read_bytes() == b"d"
    assert Note.parse((tmp_path / "f.part.json").read_bytes()).length == 9
    others[0].discard()
    others[0].__exit__()


# --- files that nobody took ---


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "survey.gpkg"
    path.write_bytes(OLD)
    return path


def put(url: str, file: Path, **options) -> Sent:
    with Line(Endpoint.of(url), proxy=DIRECT, stall=5) as line:
        return send(UploadRequest(url, file, **options), line, sleep=lambda seconds: None)


def test_form_goes_where_the_server_has_moved(serve, file):
    """As a GET, which browsers make of it, it would be a success without a file."""
    server = serve(
        lambda asked: (301, {"Location": "/up/"}, b"") if asked.path == "/up" else (200, {}, b"index of uploads")
    )
    put(server.url + "/up", file, protocol="multipart")
    assert [(asked.command, asked.path) for asked in server.asked] == [("POST", "/up"), ("POST", "/up/")]
    assert OLD in server.asked[1].body


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_network_that_wants_a_login_takes_no_file(serve, file, method):
    portal = serve(lambda asked: (200, {"Content-Type": "text/html"}, b"<html>sign in</html>"))
    server = serve(lambda asked: (302, {"Location": portal.url + "/login"}, b""))
    with pytest.raises(PageError) as caught:
        put(server.url + "/up", file, method=method)
    assert caught.value.temporary
    assert {asked.command for asked in portal.asked} <= {"OPTIONS"}


def test_answer_of_the_same_server_to_a_form_is_read_where_it_is(serve, file):
    server = serve(
        lambda asked: (302, {"Location": "/thanks"}, b"") if asked.command == "POST" else (200, {}, b"Thank you")
    )
    assert put(server.url + "/up", file, protocol="multipart").text == "Thank you"


@pytest.mark.parametrize("status", [304, 302, 300])
def test_what_is_no_success_took_no_file(serve, file, status):
    server = serve(lambda asked: (status, {}, b""))
    with pytest.raises(ProtocolError):
        put(server.url + "/up", file, method="PUT")


@pytest.mark.parametrize("protocol", ["tus", "rufh", "chunks"])
def test_page_is_no_answer_to_a_piece(serve, file, protocol):
    """It passes by itself, and the upload goes on: nothing of it counts as sent."""
    created = {"Location": "/up/1", "Tus-Resumable": "1.0.0", "Upload-Complete": "?0"}

    def answer(asked):
        if asked.command == "POST" and protocol != "chunks":
            return 201, created, b""
        return 200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>sign in</html>"

    with pytest.raises(PageError) as caught:
        put(serve(answer).url + "/up", file, protocol=protocol)
    assert caught.value.temporary


def test_bare_success_of_a_piece_is_asked_about(file):
    """An answer without a word of the upload may be one of the network; of the last piece, an upload that is gone is done."""
    created = (201, {"Location": "/1"})
    line = ScriptedLine(
        created, (200, {}), (204, {"Upload-Offset": "400", "Upload-Complete": "?0"}), (200, {}), (404, {})
    )
    assert Sending(line, file, protocol="rufh").run().size == 1000
    assert [(method, len(body)) for method, _, body in line.asked[1:]] == [("PATCH", 1000), ("HEAD", 0), ("PATCH", 600), ("HEAD", 0)]  # fmt: skip
    line = ScriptedLine(
        created, (200, {}), (404, {}), created, (201, {"Upload-Complete": "?0"}), (201, {"Upload-Complete": "?1"})
    )
    assert Sending(line, file, protocol="rufh", piece=500).run().restarted


# --- what servers say ---


@pytest.mark.parametrize("header", ["sid=hunter2; theme=dark", "hunter2 and more", "Bearer hunter2"])
def test_secret_that_comes_back_is_not_shown(serve, file, header):
    server = serve(lambda asked: (403, {}, b"not with " + asked.headers["X-Door"].encode()))
    with Line(Endpoint.of(server.url, {"X-Door": header}), proxy=DIRECT) as line, pytest.raises(AnswerError) as caught:
        line.ask("GET")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("charset", ["undefined", "idna", "unicode_escape", "nonsense"])
def test_text_can_be_kept_whatever_its_encoding_is_called(charset):
    answer = Response(
        200, {"Content-Type": f"text/plain; charset={charset}"}, "http://a.example", rb"\ud800 fine" + b"\xff"
    )
    assert answer.text.encode().endswith(("fine\N{REPLACEMENT CHARACTER}".encode(), "fineÿ".encode()))


def test_answer_that_is_long_costs_no_second_upload(serve, file, tmp_path):
    server = serve(lambda asked: (200, {}, b"x" * 5_000_000))
    work = Work(tmp_path / "work.db")
    uid = work.start_upload({"url": server.url + "/up", "file": str(file), "method": "PUT"})
    Runner(work).run_until_idle()
    assert work.get(uid).state is State.SUCCEEDED
    assert len(server.asked) == 1
    work.close()


# --- heads without an end ---


def early(asked):
    while True:
        asked.wfile.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")


def long_header(asked):
    asked.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        asked.wfile.write(b"a")


def trailers(asked):
    asked.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n")
    while True:
        asked.wfile.write(b"X: y\r\n")


@pytest.mark.parametrize("answer", [early, long_header, trailers])
@pytest.mark.parametrize(("limit", "value"), [("_MOST_HEAD", 1000), ("_HEAD_SECONDS", 0.05)])
def test_head_without_an_end_is_none(serve, monkeypatch, answer, limit, value):
    """Something passes all the time, so that nothing stalls."""
    monkeypatch.setattr(wire, limit, value)
    with Line(Endpoint.of(serve(answer).url), proxy=DIRECT, stall=5) as line, pytest.raises(LinkError):
        line.ask("GET")


def test_body_ends_where_a_server_leaves_the_last_line_out(serve):
    def answer(asked):
        asked.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n")
        raise ConnectionAbortedError

    with Line(Endpoint.of(serve(answer).url), proxy=DIRECT, stall=5) as line:
        assert line.ask("GET").body == b"a"


# --- what was kept, and names ---


@pytest.mark.parametrize(
    "broken",
    [{"protocol": "tus", "url": 5}, {"protocol": "tus", "url": "http://x y"}, {"protocol": "nonsense"}, {"protocol": ["tus"]}, {"protocol": "tus", "collection": "file:///etc"},
     {"protocol": "chunks", "identifier": "a", "piece": 0}, {"protocol": "chunks", "identifier": "a"}],
)  # fmt: skip
def test_broken_state_is_none(serve, file, broken):
    server = serve(lambda asked: (405 if asked.command == "OPTIONS" else 200, {}, b""))
    with Source(file) as source:
        state = {"target": server.url + "/up", "fingerprint": source.fingerprint.build(), **broken}
    with Line(Endpoint.of(server.url), proxy=DIRECT, stall=5) as line:
        send(UploadRequest(server.url + "/up", file), line, state=state)
    assert OLD in server.asked[-1].body


@pytest.mark.parametrize("kept", ["[1,2]", "5", "null", "{"])
def test_command_goes_on_without_what_it_cannot_read(serve, file, kept, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    order = read_order("upload", {"url": "http://office.example/up", "file": str(file)})
    with cli_kept.kept(order) as first:
        first.path.write_text(kept)
        first.state["url"] = "so that it stays"
    with cli_kept.kept(order) as second:
        assert second.state == {}
    assert not second.path.exists()


@pytest.mark.parametrize("sent", [5, {"nonsense": 1}, {}])
def test_command_takes_no_broken_note_for_a_file_that_is_through(file, sent, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    order = read_order("upload", {"url": "http://office.example/up", "file": str(file)})
    with Source(file) as source, cli_kept.kept(order) as first:
        first.save({"sent": sent, "fingerprint": source.fingerprint.build()})
    with cli_kept.kept(order) as second:
        assert second.finished(order) is None


def test_command_says_that_it_cannot_keep_where_it_is(tmp_path, monkeypatch):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cli_kept.json, "dump", full)
    with pytest.raises(SourceError):
        cli_kept.Kept(tmp_path / "a.json").save({"url": "u"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("protocol", ["tus", "rufh", "chunks", "multipart", "raw"])
def test_name_that_is_no_text_can_be_sent(serve, tmp_path, protocol, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.bin"))
    file.write_bytes(OLD)
    server = serve(lambda asked: (403, {}, b""))
    with pytest.raises(AnswerError):
        put(server.url + "/up", file, protocol=protocol)
    with cli_kept.kept(read_order("upload", {"url": server.url, "file": str(file)})) as note:
        assert note.state == {}


def test_name_of_an_order_is_nothing_of_its_query():
    assert read_order("download", {"url": "https://a.example/tiles.zip?sig=ab/hunter2"}).name == "tiles.zip"
