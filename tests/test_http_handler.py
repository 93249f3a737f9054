"""The type http: what is sent, what is taken, and what never follows a redirect."""

from __future__ import annotations

import gzip
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from runs import FakeContext
from servers import wait_until
from upload_helper.transfer import web
from upload_helper.transfer.web import MOST_WAIT
from upload_helper.work.context import Reason, Stopped
from upload_helper.work.handlers import http

SECRET = "hunter2"
THREADS = {"http", "connect"}
ALIAS = {"url": "", "headers": {"X-Key": SECRET, "Authorization": f"Basic {SECRET}", "Accept": "text/plain"}}


class Server(ThreadingHTTPServer):
    """Answers what `answer` says; keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Asked)
        self.asked: list[Asked] = []
        self.answer: Callable[[Asked], tuple[int, dict[str, str], bytes]] = lambda _: (200, {}, b"[1]")
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """Clients that go away in the middle are what some tests are about."""


class Asked(BaseHTTPRequestHandler):
    server: Server

    def handle_one_request(self):
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append(self)
        status, headers, body = self.server.answer(self)
        self.send_response_only(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def make_server():
    servers: list[Server] = []

    def make() -> Server:
        server = Server()
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return server

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def server(make_server) -> Server:
    return make_server()


@pytest.fixture
def context(server) -> FakeContext:
    context = FakeContext()
    context.work.aliases = {"office": {**ALIAS, "url": f"{server.url}/api"}}
    return context


def run(context: FakeContext, method: str, **members):
    return context.run({"action": "run", "type": "http", "method": method, **members})


# --- what is sent ---


@pytest.mark.parametrize(
    ("method", "line"),
    [
        ("GET #office/goods", "GET /api/goods HTTP/1.1"),
        ("GET #office", "GET /api HTTP/1.1"),
        ("get #office/goods?x=1&y=ö", "GET /api/goods?x=1&y=%C3%B6 HTTP/1.1"),
        ("DELETE #office/goods/7", "DELETE /api/goods/7 HTTP/1.1"),
        ("  POST   #office/goods  ", "POST /api/goods HTTP/1.1"),
        ("GET #office?x=1", "GET /api?x=1 HTTP/1.1"),
    ],
)
def test_request_to_an_alias(context, server, method, line):
    assert run(context, method).result == "[1]"
    assert server.asked[0].requestline == line
    assert server.asked[0].headers["X-Key"] == SECRET


@pytest.mark.parametrize(
    ("value", "sent"), [("a1", "a1"), ("a/b?c&d=ö#", "a%2Fb%3Fc%26d%3D%C3%B6%23"), (7, "7"), ("a b@c", "a%20b%40c")]
)
def test_variables_in_an_address_are_encoded(context, server, value, sent):
    context.variables["art"] = value
    assert run(context, "GET #office/goods/@art?q=@art&at=@@art").result == "[1]"
    assert server.asked[0].path.endswith(f"/goods/{sent}?q={sent}&at=@art")


def test_variable_that_there_is_not_in_an_address(context, server):
    assert "There is no variable 'art'" in run(context, "GET #office/goods/@art").error
    assert server.asked == []


def test_request_to_an_address(context, server):
    run(context, f"GET http://anna:pass%20word@127.0.0.1:{server.server_port}/x")
    (asked,) = server.asked
    assert (asked.path, asked.headers["Authorization"]) == ("/x", "Basic YW5uYTpwYXNzIHdvcmQ=")
    assert asked.headers["Accept-Encoding"] == "identity"


def test_request_signs_itself(context, server):
    run(context, "GET #office/x", auth="Basic own", headers={"accept": "image/png", "X-More": "1"})
    run(context, "GET #office/x", basic={"user": "anna", "password": "x"})
    first, second = server.asked
    assert (first.headers["Authorization"], first.headers["X-More"]) == ("Basic own", "1")
    assert first.headers.get_all("Accept") == ["image/png"]
    assert second.headers["Authorization"] == "Basic YW5uYTp4"


@pytest.mark.parametrize(
    ("template", "body", "kind"),
    [
        ('{"code": "@code", "n": "@n"}', b'{"code": "a\\"b", "n": 7}', "application/json; charset=utf-8"),
        ("@rows", b'[[1, "\xc3\xb6"]]', "application/json; charset=utf-8"),
        ("code is @code", b'code is a"b', "text/plain; charset=utf-8"),
        ("line 1\nline 2", b"line 1\nline 2", "text/plain; charset=utf-8"),
    ],
)
def test_bodies(context, server, template, body, kind):
    context.variables.update(code='a"b', n=7, rows=[[1, "ö"]])
    assert not run(context, f"POST #office/x {template}").failed
    assert (server.asked[0].body, server.asked[0].headers["Content-Type"]) == (body, kind)


def test_no_netrc_signs_requests(context, server, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login anna password x\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    run(context, f"GET {server.url}/x")
    assert "Authorization" not in server.asked[0].headers


@pytest.mark.parametrize(
    ("method", "text"),
    [
        ("GET", "A request is written"),
        ("", "A request is written"),
        ("#office/x", "A request is written"),
        ("GET #office@evil.example/x", "no alias 'office@evil.example'"),
        ("GET #/x", "no alias ''"),
        ("GET file:///etc/passwd", "no address"),
        ("GET ftp://127.0.0.1/", "no address"),
        ("GET /api", "no address"),
        ("GET http://", "no address"),
        ("GET http://127.0.0.1:x/", "no address"),
        ("GET #office@evil/", "no alias"),
        ("POST #office/x @missing", "no variable 'missing'"),
    ],
)
def test_requests_that_are_none(context, server, method, text):
    assert text in run(context, method).error
    assert server.asked == []


def test_alias_cannot_be_turned_to_another_host(context, server):
    context.work.aliases["bare"] = {"url": server.url}
    for rest in ("@127.0.0.2/x", ".evil.example/x", ":1/x"):
        assert run(context, f"GET #bare{rest}").failed
    assert server.asked == []


# --- what is taken ---


@pytest.mark.parametrize(
    ("headers", "body", "text"),
    [
        ({}, "ö".encode(), "ö"),
        ({"Content-Type": "text/plain"}, "ö".encode(), "ö"),
        ({"Content-Type": "text/plain; charset=windows-1251"}, "да".encode("cp1251"), "да"),
        ({"Content-Type": 'text/plain; charset="none"'}, b"x", "x"),
        ({}, b"\xff", "�"),
        ({}, b"", ""),
    ],
)
def test_answers_are_text(context, server, headers, body, text):
    server.answer = lambda _: (200, headers, body)
    outcome = run(context, "GET #office/x")
    assert (outcome.result, context.variables["ResultMessage"], outcome.failed) == (text, text, False)


@pytest.mark.parametrize("status", [200, 201, 204, 304])
def test_status_below_400_is_success(context, server, status):
    server.answer = lambda _: (status, {}, b"")
    assert not run(context, "GET #office/x").failed


@pytest.mark.parametrize(
    ("status", "headers", "retry_after"),
    [
        (400, {}, None),
        (401, {}, None),
        (503, {"Retry-After": "120"}, 120),
        (429, {"Retry-After": "99999999999"}, MOST_WAIT),
        (500, {"Retry-After": "soon"}, None),
        (500, {"Retry-After": "-5"}, None),
        (503, {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}, 0),
        (599, {}, None),
    ],
)
def test_status_from_400_is_a_failure(context, server, status, headers, retry_after):
    server.answer = lambda _: (status, headers, b"no\x1b[31m tea\n")
    outcome = run(context, "GET #office/x")
    assert outcome.failed
    assert f"{status}" in outcome.error
    assert outcome.error.endswith(": no [31m tea.")
    assert outcome.retry_after == retry_after
    assert context.variables["ResultMessage"] == ""


def test_retry_after_as_a_date(context, server):
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    server.answer = lambda _: (503, {"Retry-After": moment}, b"")
    assert 98 <= run(context, "GET #office/x").retry_after <= 100


def test_error_shows_no_secret_that_a_server_sends_back(context, server):
    server.answer = lambda asked: (400, {}, json.dumps(dict(asked.headers)).encode())
    error = run(context, "GET #office/x").error
    assert "X-Key" in error
    assert SECRET not in error


@pytest.mark.parametrize(
    ("length", "text"), [("200000", "has 200000 bytes; 100000 are taken"), ("x", "is longer than 100000 bytes")]
)
def test_answer_that_is_too_long(context, server, monkeypatch, length, text):
    monkeypatch.setattr(web, "MOST_ANSWER", 100_000)
    server.answer = lambda _: (200, {"Content-Length": length}, b"x" * 200_000)
    assert text in run(context, "GET #office/x").error


def test_head_of_something_big(context, server):
    server.answer = lambda _: (200, {"Content-Length": str(10**12)}, b"")
    assert run(context, "HEAD #office/x").error == ""


def test_small_answer_that_inflates(context, server, monkeypatch):
    monkeypatch.setattr(web, "MOST_ANSWER", 100_000)
    body = gzip.compress(b"x" * 10_000_000)
    server.answer = lambda _: (200, {"Content-Encoding": "gzip"}, body)
    assert len(body) < 100_000
    assert "longer than 100000 bytes" in run(context, "GET #office/x").error


@pytest.mark.parametrize(("length", "result"), [("1000", ""), ("3", "[1]"), ("x", "[1]"), ("-1", "[1]")])
def test_answer_that_is_cut_or_lies_about_its_length(context, server, length, result):
    server.answer = lambda _: (200, {"Content-Length": length}, b"[1]")
    outcome = run(context, "GET #office/x")
    assert (outcome.result, outcome.failed) == (result, not result)


def test_endless_redirect_is_not_read(context, server, monkeypatch):
    monkeypatch.setattr(http, "STALL", 1.0)
    server.answer = lambda asked: (
        (200, {}, b"there") if asked.path == "/end" else (302, {"Location": "/end", "Content-Length": "1000"}, b"x")
    )
    assert run(context, "GET #office/x").result == "there"


def test_progress_of_an_answer(context, server):
    server.answer = lambda _: (200, {}, b"x" * 200_000)
    context.run({"action": "runprogress", "type": "http", "method": "GET #office/x"})
    progress = [p for p, _ in context.reports]
    assert progress == sorted(progress)
    assert progress[0] == 0
    assert progress[-1] == 1
    assert len(set(progress)) > 3


def test_nobody_answers(context):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        outcome = run(context, f"GET http://anna:{SECRET}@127.0.0.1:{taken.getsockname()[1]}/?token={SECRET}")
    assert outcome.error.endswith("Nobody listens at this address.")
    assert SECRET not in outcome.error


def test_silent_server(context, server, monkeypatch):
    monkeypatch.setattr(http, "STALL", 0.1)
    go_on = threading.Event()
    server.answer = lambda _: (go_on.wait(5), (200, {}, b""))[1]
    assert "Not a byte passed for 0.1 s" in run(context, "GET #office/x").error
    go_on.set()


def test_a_run_that_must_end_waits_for_no_server(context, server):
    go_on = threading.Event()

    def answer(_):
        context.stop(Reason.CONDITION)
        go_on.wait(5)
        return 200, {}, b""

    server.answer = answer
    begun = time.monotonic()
    with pytest.raises(Stopped):
        run(context, "GET #office/x")
    assert time.monotonic() - begun < 2
    go_on.set()
    wait_until(lambda: not [t for t in threading.enumerate() if t.name in THREADS])


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"])
@pytest.mark.parametrize("cancelled", [True, False])
def test_connection_is_closed_as_soon_as_nobody_waits_for_it(context, monkeypatch, scheme, sent, cancelled):
    """Whether the server is silent or sends a byte now and then: in the head, in the body, or instead of TLS."""
    ended = threading.Event()

    def trickle():
        connection, _ = listener.accept()
        with connection:
            connection.recv(9999)
            connection.sendall(sent)
            if cancelled:
                context.stop(Reason.CANCELLED)
            connection.settimeout(0.05)
            until = time.monotonic() + 5
            while not ended.is_set() and time.monotonic() < until:
                try:
                    if sent:
                        connection.sendall(b"x")
                    if not connection.recv(99):
                        ended.set()
                except TimeoutError:
                    pass
                except OSError:
                    ended.set()

    if not cancelled:
        monkeypatch.setattr(http, "MOST_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=trickle)
        thread.start()
        with suppress(Stopped):
            run(context, f"GET {scheme}://127.0.0.1:{listener.getsockname()[1]}/")
        assert ended.wait(1)
        thread.join()
    wait_until(lambda: not [t for t in threading.enumerate() if t.name in THREADS], seconds=1)


def test_no_socket_is_left_open(context, server):
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(3):
        assert run(context, "GET #office/goods").result == "[1]"
    wait_until(lambda: len(set(os.listdir("/proc/self/fd")) - before) < 2)


# --- redirects ---


def redirect(to: str, status: int = 302):
    return lambda asked: (status, {"Location": to}, b"") if not asked.path.startswith("/end") else (200, {}, b"there")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_on_the_same_host_keeps_credentials(context, server, status):
    server.answer = redirect("/end", status)
    assert run(context, "GET #office/x").result == "there"
    assert server.asked[1].headers["X-Key"] == SECRET
    assert server.asked[1].headers["Authorization"] == f"Basic {SECRET}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_to_another_host_gets_no_credentials(context, server, make_server, status):
    other = make_server()
    server.answer = redirect(f"http://anna:x@127.0.0.1:{other.server_port}/end", status)
    assert run(context, "POST #office/x body", auth="Basic own").result == "[1]"
    (asked,) = other.asked
    assert not {"x-key", "authorization"} & {name.lower() for name in asked.headers}
    assert SECRET not in str(asked.headers)


@pytest.mark.parametrize(
    ("status", "method", "body"),
    [(301, "GET", b""), (302, "GET", b""), (303, "GET", b""), (307, "POST", b"[7]"), (308, "POST", b"[7]")],
)
def test_method_and_body_after_a_redirect(context, server, status, method, body):
    server.answer = redirect("/end", status)
    run(context, "POST #office/x [7]")
    assert (server.asked[1].command, server.asked[1].body) == (method, body)
    assert ("Content-Type" in server.asked[1].headers) == bool(body)


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/", "http://:80/x", "gopher://x", "http://[::1"])
def test_redirect_to_something_else(context, server, to):
    server.answer = redirect(to)
    assert "no address on the web" in run(context, "GET #office/x").error


def test_redirects_in_a_circle(context, server):
    server.answer = redirect("/x")
    assert "redirects more than 5 times" in run(context, "GET #office/x").error
    assert len(server.asked) == 6
