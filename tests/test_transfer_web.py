"""The line to a server: what is sent to whom, which errors are temporary, and that nothing holds up a stop."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from answers import Answers, Authority
from servers import wait_until
from upload_helper.transfer import web
from upload_helper.transfer.addresses import Endpoint, may_know, scrubbed
from upload_helper.transfer.errors import (
    AnswerError,
    CertificateError,
    ContentError,
    InvalidTransferError,
    LinkError,
    StalledError,
    TransferError,
)
from upload_helper.transfer.pace import Pace
from upload_helper.transfer.web import Line, seconds_of
from upload_helper.transfer.wire import DIRECT
from wire_proxy import Fault, WireProxy

SECRET = "hunter2"
HELLO = (200, {}, b"hello")


class StopError(BaseException):
    """What a caller raises to end a transfer."""


@pytest.fixture
def serve():
    """Return a function that starts a server with the given answers."""
    with ExitStack() as stack:
        yield lambda answer, certificate=None: stack.enter_context(Answers(answer, certificate))


@pytest.fixture
def open_line():
    """Return a function that opens a line to an address."""
    with ExitStack() as stack:

        def make(url: str, **options: object) -> Line:
            endpoint = options.pop("endpoint", None) or Endpoint.of(url)
            return stack.enter_context(Line(endpoint, **{"proxy": DIRECT, **options}))

        yield make


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@contextmanager
def silent_port():
    """Yield the port of a server that takes connections and says nothing, and the connections."""
    taken: list[socket.socket] = []

    def accept() -> None:
        with suppress(OSError):
            while True:
                taken.append(listener.accept()[0])

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1], taken
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    for connection in taken:
        connection.close()


class Body:
    """A body that is no bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.data)

    def read(self, count: int = -1) -> bytes:
        self.asked.append(count)
        block = self.data[self.position : self.position + count]
        self.position += len(block)
        return block


class RewindableBody(Body):
    def rewind(self) -> None:
        self.position = 0


# --- what is sent ---


def test_request_carries_what_the_endpoint_and_the_protocol_say(serve, open_line):
    server = serve(lambda asked: HELLO)
    endpoint = Endpoint.of(server.url + "/uploads", {"X-Key": SECRET}, basic=("anna", "pass:wörd"))
    line = open_line("", endpoint=endpoint)
    answer = line.ask("put", "uploads/7?a=b", headers={"Upload-Offset": "5", "accept-encoding": "gzip"}, body=b"12345")
    (asked,) = server.asked
    assert (asked.command, asked.path, asked.body) == ("PUT", "/uploads/7?a=b", b"12345")
    assert asked.headers["X-Key"] == SECRET
    assert asked.headers["Authorization"] == "Basic YW5uYTpwYXNzOnfDtnJk"
    assert asked.headers["Upload-Offset"] == "5"
    assert asked.headers.get_all("Accept-Encoding") == ["identity"]
    assert asked.headers["User-Agent"].startswith("upload-helper/")
    assert (answer.status, answer.text, answer.length, answer.url) == (200, "hello", 5, server.url + "/uploads/7?a=b")


def test_netrc_of_the_user_signs_nothing(serve, open_line, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login anna password {SECRET}\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    server = serve(lambda asked: HELLO)
    open_line(server.url, proxy="").ask("GET")
    assert "Authorization" not in server.asked[0].headers


def test_body_is_read_in_blocks_and_arrives_whole(serve, open_line):
    data = bytes(range(256)) * 10_000
    server = serve(lambda asked: HELLO)
    body = Body(data)
    open_line(server.url).ask("POST", body=body)
    assert server.asked[0].body == data
    assert server.asked[0].headers["Content-Length"] == str(len(data))
    assert max(body.asked) == 1 << 20
    empty = Body(b"")
    open_line(server.url).ask("PATCH", body=empty)
    assert (server.asked[1].body, server.asked[1].headers["Content-Length"]) == (b"", "0")


def test_error_of_a_body_comes_through_as_it_is(serve, open_line):
    class Broken(Body):
        def read(self, count: int = -1) -> bytes:
            raise ContentError("the file is another one")

    with pytest.raises(ContentError, match="another one"):
        open_line(serve(lambda asked: HELLO).url).ask("POST", body=Broken(b"123"))


@pytest.mark.parametrize(
    ("method", "said"),
    [("GET", b"200 OK\r\nContent-Length: 1\r\n\r\na"), ("PATCH", b"204 No Content\r\nUpload-Offset: 1\r\n\r\n"),
     ("HEAD", b"200 OK\r\nContent-Length: 500\r\n\r\n"), ("POST", b"201 Created\r\nContent-Length: 0\r\n\r\n"),
     ("PATCH", b"409 Conflict\r\nContent-Length: 2\r\n\r\nno"), ("POST", b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n")],
)  # fmt: skip
def test_connection_is_kept_between_requests(open_line, method, said):
    """Each new one would cost a round trip, and two more for TLS."""
    with silent_port() as (port, taken):
        line = open_line(f"http://127.0.0.1:{port}")
        answers: list[int] = []
        thread = threading.Thread(
            target=lambda: answers.extend(line.ask(method, allow=(409,)).status for _ in range(3))
        )
        thread.start()
        (connection,) = wait_until(lambda: list(taken))
        for _ in range(3):
            assert connection.recv(1 << 16)
            connection.sendall(b"HTTP/1.1 " + said)
        thread.join(10)
        assert answers == [int(said[:3])] * 3
        assert len(taken) == 1


def test_answers_that_only_inform_are_passed_over(open_line):
    with silent_port() as (port, taken):
        line = open_line(f"http://127.0.0.1:{port}")
        found: list[web.Response] = []
        thread = threading.Thread(target=lambda: found.append(line.ask("POST", body=b"x")))
        thread.start()
        (connection,) = wait_until(lambda: list(taken))
        connection.sendall(
            b"HTTP/1.1 104 Upload Resumption Supported\r\nLocation: /x\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n"
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 2\r\nLocation: /y\r\n\r\nok"
        )
        thread.join(10)
        assert (found[0].status, found[0].headers["location"], found[0].text) == (201, "/y", "ok")


# --- redirects ---


def answer_at(path, answer, *, otherwise=HELLO):
    return lambda asked: answer if asked.path == path else otherwise


@pytest.mark.parametrize(
    ("status", "method", "becomes"),
    [(301, "POST", "POST"), (302, "POST", "GET"), (303, "POST", "GET"), (303, "PUT", "GET"), (303, "HEAD", "HEAD"), (302, "HEAD", "HEAD"),
     (301, "PUT", "PUT"), (302, "PATCH", "PATCH"), (307, "POST", "POST"), (308, "PATCH", "PATCH"), (307, "GET", "GET")],
)  # fmt: skip
def test_redirect_is_followed_as_its_status_says(serve, open_line, status, method, becomes):
    server = serve(answer_at("/a", (status, {"Location": "b?c=d"}, b"moved")))
    body = None if method in ("GET", "HEAD") else RewindableBody(b"x" * 100_000)
    answer = open_line(server.url + "/a").ask(method, headers={"Content-Type": "a/b", "Upload-Offset": "0"}, body=body)
    first, second = server.asked
    assert (second.command, second.path) == (becomes, "/b?c=d")
    assert second.headers["Upload-Offset"] == "0"
    assert second.body == (first.body if becomes == method else b"")
    assert ("Content-Type" in second.headers) == (becomes == method)
    assert answer.url == server.url + "/b?c=d"


def test_body_that_cannot_be_sent_again_is_not_sent_in_part(serve, open_line):
    server = serve(answer_at("/a", (307, {"Location": "/b"}, b"")))
    with pytest.raises(TransferError, match="can't be sent twice"):
        open_line(server.url + "/a").ask("POST", body=Body(b"x" * 100))
    assert len(server.asked) == 1


def test_other_origin_gets_nothing_that_signs_requests(serve, open_line):
    other = serve(lambda asked: HELLO)
    server = serve(lambda asked: (307, {"Location": other.url + "/there"}, b""))
    endpoint = Endpoint.of(
        server.url.replace("//", f"//anna:{SECRET}@"), {"X-Api-Key": SECRET, "Cookie": f"a={SECRET}"}
    )
    line = open_line("", endpoint=endpoint)
    line.ask("POST", headers={"Upload-Offset": "0", "Authorization": f"Bearer {SECRET}"}, body=b"data")
    assert SECRET in str(server.asked[0].headers)
    assert (other.asked[0].body, other.asked[0].headers["Upload-Offset"]) == (b"data", "0")
    line.ask("GET", other.url + "/named")
    for asked in other.asked:
        assert SECRET not in str(asked.headers)
        assert "Authorization" not in asked.headers
        assert "X-Api-Key" not in asked.headers


def test_credentials_in_a_redirect_are_not_used(serve, open_line):
    server = serve(
        lambda asked: (
            (302, {"Location": f"http://eve:{SECRET}@{asked.headers['Host']}/b"}, b"") if asked.path == "/" else HELLO
        )
    )
    open_line(server.url).ask("GET")
    assert "Authorization" not in server.asked[1].headers


@pytest.mark.parametrize(
    ("url", "signed", "allowed"),
    [("http://a/x", "http://a/", True), ("http://a:80/x", "http://a/", True), ("https://a/", "http://a/", True),
     ("https://a:443/", "http://a:80/", True), ("http://a/", "https://a/", False), ("https://a:8443/", "http://a/", False),
     ("https://a/", "http://a:8080/", False), ("http://a.b/", "http://a/", False), ("http://A/", "http://a/", True),
     ("https://b/", "http://a/", False), ("http://a:81/", "http://a/", False)],
)  # fmt: skip
def test_secrets_go_to_one_origin_and_to_the_same_made_safe(url, signed, allowed):
    assert may_know(url, signed) is allowed
    assert ("Authorization" in Endpoint.of(signed, auth="Basic eA==").headers_for(url)) is allowed


def test_endless_redirects_end(serve, open_line):
    server = serve(lambda asked: (302, {"Location": asked.path + "x"}, b""))
    with pytest.raises(TransferError, match="more than 5 times") as caught:
        open_line(server.url).ask("GET")
    assert not caught.value.temporary
    assert len(server.asked) == 6


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://a/b", "http://", "javascript:1", "http://[", "//", "http://a b/"]
)
def test_redirect_to_no_address_of_the_web_is_refused(serve, open_line, location):
    server = serve(lambda asked: (302, {"Location": location}, b""))
    with pytest.raises(TransferError, match="redirects") as caught:
        open_line(server.url).ask("GET")
    assert not caught.value.temporary
    assert len(server.asked) in (1, 6)


def test_long_body_of_a_redirect_is_not_read(serve, open_line):
    sent = []

    def endless():
        while True:
            sent.append(1)
            yield b"x" * (1 << 20)

    server = serve(answer_at("/", (302, {"Location": "/b", "Content-Length": str(1 << 40)}, endless())))
    assert open_line(server.url).ask("GET").text == "hello"
    assert len(sent) < 50


# --- what a server refuses ---


@pytest.mark.parametrize("status", [408, 409, 423, 425, 429, 500, 502, 503, 504, 507, 520])
def test_what_may_pass_is_temporary(serve, open_line, status):
    server = serve(lambda asked: (status, {}, b"busy"))
    with pytest.raises(AnswerError, match=f"{status}.*: busy") as caught:
        open_line(server.url).ask("GET")
    assert caught.value.temporary
    assert (caught.value.answered, caught.value.text) == (status, "busy")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 411, 412, 413, 415, 416, 422, 460, 501, 505, 511])
def test_what_stays_is_not_temporary(serve, open_line, status):
    server = serve(lambda asked: (status, {"Upload-Offset": "7"}, b""))
    with pytest.raises(AnswerError) as caught:
        open_line(server.url).ask("GET")
    assert not caught.value.temporary
    assert caught.value.headers["upload-offset"] == "7"


def test_status_that_is_expected_is_no_error(serve, open_line):
    server = serve(lambda asked: (409, {"Upload-Offset": "5"}, b"x"))
    answer = open_line(server.url).ask("PATCH", body=b"1", allow=(409,))
    assert (answer.status, answer.headers["upload-offset"], answer.text) == (409, "5", "x")


def test_error_says_what_the_server_says_without_what_is_secret(serve, open_line):
    server = serve(
        lambda asked: (
            403,
            {},
            f"no {asked.headers['X-Key']} \x00\x1b[31m {asked.headers['Authorization']} ".encode() + b"y" * 9999,
        )
    )
    endpoint = Endpoint.of(f"{server.url}?token={SECRET}", {"X-Key": SECRET}, auth=f"Bearer {SECRET}{SECRET}")
    with pytest.raises(AnswerError) as caught:
        open_line("", endpoint=endpoint).ask("GET")
    text = str(caught.value)
    assert text.startswith("403 Forbidden: no ***")
    assert SECRET not in text
    assert text.isprintable()
    assert len(text) < 250
    assert SECRET not in repr(endpoint) + repr(caught.value.as_json()) + caught.value.text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7), (" 120 ", 120), ("0", 0), ("99999999999999", 18000), ("soon", None), ("", None), ("-5", None), ("1.5", None),
     ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("Fri, 31 Dec 9999 23:59:59 GMT", 18000), ("٣", None), ("Mon, 99 Foo 2024", None)],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date(text, seconds):
    assert seconds_of(text) == seconds


def test_retry_after_as_a_date_counts_from_now(serve, open_line):
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    server = serve(lambda asked: (503, {"Retry-After": date}, b""))
    with pytest.raises(AnswerError) as caught:
        open_line(server.url).ask("GET")
    assert 95 <= caught.value.retry_after <= 100
    assert seconds_of("Sat, 01 Jan 2000 00:00:30 GMT", datetime(2000, 1, 1, tzinfo=UTC)) == 30


def test_early_refusal_is_read_although_the_body_is_not_taken(open_line):
    """Servers answer 413 and close; the connection breaks under what is still sent."""
    with silent_port() as (port, taken):
        line = open_line(f"http://127.0.0.1:{port}")
        errors: list[BaseException] = []

        def send() -> None:
            try:
                line.ask("POST", body=Body(b"x" * (32 << 20)))
            except TransferError as error:
                errors.append(error)

        thread = threading.Thread(target=send)
        thread.start()
        (connection,) = wait_until(lambda: list(taken))
        connection.recv(1 << 16)
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
        connection.shutdown(socket.SHUT_WR)
        drained = connection.recv(1 << 20)
        assert drained
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        connection.shutdown(socket.SHUT_RD)
        connection.settimeout(0.01)
        with suppress(OSError):
            while connection.recv(1 << 20):
                pass
        connection.close()
        thread.join(10)
        assert not thread.is_alive()
        assert isinstance(errors[0], (AnswerError, LinkError))
        if isinstance(errors[0], AnswerError):
            assert errors[0].answered == 413


# --- answers that are not as they should be ---


def test_answer_is_text_in_the_encoding_that_it_names(serve, open_line):
    bodies = {"/l": ("text/plain; charset=latin-1", "ä".encode("latin-1")), "/u": ("text/plain", "ä".encode()),
              "/x": ("text/plain; charset=nonsense", "ä".encode())}  # fmt: skip
    server = serve(lambda asked: (200, {"Content-Type": bodies[asked.path][0]}, bodies[asked.path][1]))
    line = open_line(server.url)
    assert [line.ask("GET", path).text for path in bodies] == ["ä"] * 3


def test_short_answer_may_be_compressed_a_file_may_not(serve, open_line):
    server = serve(lambda asked: (200, {"Content-Encoding": "gzip"}, gzip.compress(b"hello" * 100)))
    line = open_line(server.url)
    assert line.ask("GET").text == "hello" * 100
    with line.ask("GET", stream=True) as answer, pytest.raises(ContentError, match=r"compressed.*gzip") as caught:
        next(line.blocks(answer))
    assert not caught.value.temporary
    with line.ask("GET", stream=True) as answer:
        assert gzip.decompress(b"".join(line.blocks(answer, as_is=True))) == b"hello" * 100


def test_answer_that_never_ends_is_not_kept(serve, open_line, monkeypatch):
    monkeypatch.setattr(web, "MOST_ANSWER", 100_000)

    def endless():
        while True:
            yield b"x" * 10_000

    with pytest.raises(TransferError, match="longer than 100000"):
        open_line(serve(lambda asked: (200, {"Content-Length": None}, endless())).url).ask("GET")
    bomb = gzip.compress(b"\0" * 20_000_000)
    with pytest.raises(TransferError, match="longer than 100000"):
        open_line(serve(lambda asked: (200, {"Content-Encoding": "gzip"}, bomb)).url).ask("GET")


def test_answer_that_drips_is_left(serve, open_line, monkeypatch):
    monkeypatch.setattr(web, "MOST_ANSWER_SECONDS", -1)
    with pytest.raises(TransferError, match="longer"):
        open_line(serve(lambda asked: HELLO).url).ask("GET")


@pytest.mark.parametrize(
    "said",
    [b"", b"\r\n", b"hello there, this is no HTTP\r\n\r\n", b"HTTP/1.1 abc OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
     b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
     b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n", b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000, b"\x15\x03\x01\x00\x02\x02"],
)  # fmt: skip
def test_what_is_no_answer_breaks_the_link_and_may_pass(open_line, said):
    with silent_port() as (port, taken):
        line = open_line(f"http://127.0.0.1:{port}")

        def answer() -> None:
            (connection,) = wait_until(lambda: list(taken))
            connection.recv(1 << 16)
            connection.sendall(said)
            connection.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(LinkError) as caught:
            line.ask("GET")
        thread.join()
        assert caught.value.temporary


# --- the link ---


def test_nobody_listens_or_no_such_name_is_temporary(open_line):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(LinkError, match="Nobody listens") as caught:
        open_line(f"http://127.0.0.1:{port}").ask("GET")
    assert caught.value.temporary


def test_name_server_that_is_gone_is_temporary(open_line, monkeypatch):
    def getaddrinfo(*args: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(LinkError, match="name of the server") as caught:
        open_line(f"http://field.example/?token={SECRET}").ask("GET")
    assert caught.value.temporary
    assert "example" not in str(caught.value)


def test_name_server_that_is_silent_holds_up_nothing(open_line, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: release.wait(10) and [])
    stopping = iter([None, None, StopError()])

    def check() -> None:
        error = next(stopping)
        if error:
            raise error

    with pytest.raises(StopError):
        open_line("http://field.example/", check=check).ask("GET")
    with pytest.raises(StalledError, match=r"for 0\.2 s"):
        open_line("http://field.example/", stall=0.2).ask("GET")
    line = open_line("http://field.example/")
    timer = threading.Timer(0.05, line.cut)
    timer.start()
    with pytest.raises(LinkError, match="cut off here"):
        line.ask("GET")
    release.set()


def test_server_that_says_nothing_stalls(open_line):
    with silent_port() as (port, _):
        line = open_line(f"http://127.0.0.1:{port}", stall=0.1)
        with pytest.raises(StalledError, match=r"0\.1 s") as caught:
            line.ask("GET")
        assert caught.value.temporary
        with pytest.raises(StalledError):
            line.ask("POST", body=Body(b"x" * (32 << 20)))


def test_slow_link_is_no_stall(serve, open_line):
    """Every byte counts: neither a block nor the body has to be through within the time of a stall."""
    data = b"x" * 300_000
    server = serve(
        lambda asked: (200, {}, data) if asked.command == "GET" else (200, {}, str(len(asked.body)).encode())
    )
    with WireProxy(server.server_port, lambda number: Fault(rate=500_000)) as proxy:
        line = open_line(proxy.url, stall=0.25)
        with line.ask("GET", stream=True) as answer:
            assert b"".join(line.blocks(answer)) == data


@pytest.mark.parametrize("resets", [False, True])
def test_answer_that_is_cut_is_a_broken_link(serve, open_line, resets):
    server = serve(lambda asked: (200, {}, b"x" * 1_000_000))
    with WireProxy(server.server_port, lambda number: Fault(down=500_000, resets=resets)) as proxy:
        line = open_line(proxy.url)
        found = 0
        with line.ask("GET", stream=True) as answer, pytest.raises(LinkError) as caught:
            for block in line.blocks(answer):
                found += len(block)
        assert caught.value.temporary
        # Whatever got through is not lost with the rest.
        assert resets or found > 499_000


def test_answer_that_is_cut_in_its_headers_is_a_broken_link(serve, open_line):
    server = serve(lambda asked: (200, {"X-Long": "y" * 1000}, b"x"))
    with WireProxy(server.server_port, lambda number: Fault(down=500)) as proxy, pytest.raises(LinkError):
        open_line(proxy.url).ask("GET")


def test_answer_that_stalls_is_left(serve, open_line):
    server = serve(lambda asked: (200, {}, b"x" * 1_000_000))
    with WireProxy(server.server_port, lambda number: Fault(down=500_000, stalls=True)) as proxy:
        line = open_line(proxy.url, stall=0.1)
        with line.ask("GET", stream=True) as answer, pytest.raises(StalledError):
            list(line.blocks(answer))


def cut_in_the_middle(line, wait_for, act):
    """Cut the line in another thread once `wait_for` is true; return how long `act` went on after that."""
    cut_at: list[float] = []

    def cut() -> None:
        wait_until(wait_for)
        cut_at.append(time.monotonic())
        line.cut()

    thread = threading.Thread(target=cut)
    thread.start()
    with pytest.raises(LinkError, match="cut off here"):
        act()
    thread.join()
    return time.monotonic() - cut_at[0]


@pytest.mark.parametrize("is_safe", [False, True])
def test_cut_ends_what_waits_at_once_and_for_good(open_line, serve, authority, is_safe):
    held = threading.Event()

    def drip():
        yield b"x" * 500
        held.wait(10)

    certificate = authority.sign("held") if is_safe else None
    server = serve(lambda asked: (200, {"Content-Length": "1000"}, drip()), certificate)
    line = open_line(server.url, ca=str(authority.certificate))
    found: list[bytes] = []

    def act() -> None:
        with line.ask("GET", stream=True) as answer:
            for block in line.blocks(answer):
                found.append(block)  # noqa: PERF402

    assert cut_in_the_middle(line, lambda: found, act) < 0.5
    held.set()
    assert line.is_cut
    with pytest.raises(LinkError, match="cut off here"):
        line.ask("GET")
    assert len(server.asked) == 1


def test_cut_ends_a_wait_for_an_answer_and_a_body_under_way(open_line):
    with silent_port() as (port, taken):
        line = open_line(f"http://127.0.0.1:{port}")
        assert cut_in_the_middle(line, lambda: taken, lambda: line.ask("GET")) < 0.5
        line = open_line(f"http://127.0.0.1:{port}")
        body = Body(b"x" * (64 << 20))
        assert (
            cut_in_the_middle(
                line, lambda: len(taken) == 2 and body.position > 1 << 20, lambda: line.ask("POST", body=body)
            )
            < 0.5
        )


@pytest.mark.parametrize("how", ["cut", "check", "stall"])
def test_connection_that_is_left_before_tls_stands_is_closed(open_line, how):
    def check() -> None:
        if how == "check" and taken:
            raise StopError

    with silent_port() as (port, taken):
        line = open_line(f"https://127.0.0.1:{port}", check=check, stall=0.15 if how == "stall" else 60)
        if how == "cut":
            assert cut_in_the_middle(line, lambda: taken, lambda: line.ask("GET")) < 0.5
        else:
            with pytest.raises((StopError, StalledError)):
                line.ask("GET")
        taken[0].settimeout(5)
        while taken[0].recv(1 << 16):
            pass


def test_check_says_why_it_ends(serve, open_line):
    """Whoever cuts the line also has `check` raise what the caller is to see."""
    stopped = threading.Event()

    def check() -> None:
        if stopped.is_set():
            raise StopError

    with silent_port() as (port, taken):
        line = open_line(f"http://127.0.0.1:{port}", check=check)

        def stop() -> None:
            wait_until(lambda: taken)
            stopped.set()
            line.cut()

        thread = threading.Thread(target=stop)
        thread.start()
        with pytest.raises(StopError):
            line.ask("GET")
        thread.join()


def test_check_is_called_for_each_block(serve, open_line):
    data = b"x" * 3_000_000
    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) > 5:
            raise StopError

    server = serve(lambda asked: (200, {}, data))
    line = open_line(server.url, check=check)
    with pytest.raises(StopError), line.ask("GET", stream=True) as answer:
        for block in line.blocks(answer):
            assert len(block) <= 1 << 20


def test_pace_holds_what_comes(serve, open_line):
    slept: list[float] = []
    server = serve(lambda asked: (200, {}, b"x" * 100_000))
    line = open_line(server.url, pace=Pace(10_000, clock=lambda: 0.0), sleep=slept.append)
    with line.ask("GET", stream=True) as answer:
        blocks = list(line.blocks(answer))
    assert max(map(len, blocks)) <= 2500
    assert max(slept) == pytest.approx(10.0)
    line.turn(10_000)
    assert slept[-1] == pytest.approx(11.0)


def test_connection_that_is_made_after_all_is_closed(open_line, monkeypatch):
    """A name server that answers too late finds nobody, and what was connected then is not left open."""
    real = socket.getaddrinfo
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: release.wait(10) and real(*args, **options))
    with silent_port() as (port, taken):
        with pytest.raises(StalledError):
            open_line(f"http://127.0.0.1:{port}", stall=0.15).ask("GET")
        release.set()
        (connection,) = wait_until(lambda: list(taken))
        connection.settimeout(5)
        assert connection.recv(100) == b""


# --- TLS ---


def test_private_ca_is_trusted_where_it_is_named(serve, open_line, authority, tmp_path):
    server = serve(lambda asked: HELLO, authority.sign("good"))
    assert open_line(server.url, ca=str(authority.certificate)).ask("GET").text == "hello"
    with pytest.raises(CertificateError, match="not trusted") as caught:
        open_line(server.url).ask("GET")
    assert not caught.value.temporary
    assert not server.asked[1:]


@pytest.mark.parametrize(("name", "options", "says"), [
    ("other", {"alternative": "DNS:other.example"}, "not trusted.*127.0.0.1"), ("old", {"days": -1}, "expired")])  # fmt: skip
def test_wrong_certificate_is_refused_and_nothing_is_sent(serve, open_line, authority, name, options, says):
    server = serve(lambda asked: HELLO, authority.sign(name, **options))
    with pytest.raises(CertificateError, match=says) as caught:
        open_line(server.url, ca=str(authority.certificate)).ask("PUT", body=b"secret")
    assert not caught.value.temporary
    assert not server.asked


def test_server_without_tls_cannot_pass_for_one_with(serve, open_line):
    server = serve(lambda asked: HELLO)
    with pytest.raises(CertificateError, match="No safe connection"):
        open_line(server.url.replace("http:", "https:")).ask("GET")


def test_ca_that_is_not_there_is_named_at_once(tmp_path, open_line, serve):
    with pytest.raises(InvalidTransferError, match="no certificates at"):
        open_line("https://a/", ca=str(tmp_path / "no.pem"))
    (tmp_path / "bad.pem").write_text("no certificate")
    with pytest.raises(TransferError) as caught:
        open_line(serve(lambda asked: HELLO).url.replace("http:", "https:"), ca=str(tmp_path / "bad.pem")).ask("GET")
    assert not caught.value.temporary


@pytest.mark.parametrize(
    "fault", [Fault(down=2000), Fault(down=2000, resets=True), Fault(corrupts_down=5000), Fault(up=100)]
)
def test_broken_tls_connection_may_pass(serve, open_line, authority, fault):
    """Unlike a wrong certificate, what a bad link does to TLS is over with the next connection."""
    server = serve(lambda asked: (200, {}, b"x" * 50_000), authority.sign("broken"))
    with WireProxy(server.server_port, lambda number: fault) as proxy:
        line = open_line(proxy.url.replace("http:", "https:"), ca=str(authority.certificate))
        with pytest.raises(LinkError) as caught, line.ask("GET", stream=True) as answer:
            list(line.blocks(answer))
        assert caught.value.temporary


# --- proxies ---


class Tunnel:
    """A proxy that only knows CONNECT."""

    def __init__(self, answer: bytes = b"HTTP/1.1 200 OK\r\n\r\n") -> None:
        self.asked: list[bytes] = []
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._wires: list[WireProxy] = []

    def __enter__(self) -> Tunnel:
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client:
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(1 << 16)
            self.asked.append(head)
            client.sendall(self._answer)
            if not self._answer.startswith(b"HTTP/1.1 200"):
                return
            port = int(head.split()[1].rpartition(b":")[2])
            with socket.create_connection(("127.0.0.1", port)) as server:
                back = threading.Thread(target=self._copy, args=[server, client], daemon=True)
                back.start()
                self._copy(client, server)
                back.join()

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while block := source.recv(1 << 16):
                target.sendall(block)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)


def test_request_goes_through_the_proxy_that_is_named(serve, open_line):
    proxy = serve(lambda asked: HELLO)
    line = open_line("http://field.example/x", proxy=proxy.url.replace("//", f"//anna:{SECRET}@"))
    assert line.ask("GET").text == "hello"
    (asked,) = proxy.asked
    assert asked.path == "http://field.example/x"
    assert asked.headers["Proxy-Authorization"].startswith("Basic ")


def test_proxy_of_the_environment_is_used_unless_it_is_switched_off(serve, open_line, monkeypatch):
    proxy, server = serve(lambda asked: HELLO), serve(lambda asked: (200, {}, b"direct"))
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert open_line(server.url, proxy="").ask("GET").text == "hello"
    assert open_line(server.url, proxy="direct").ask("GET").text == "direct"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert open_line(server.url, proxy="").ask("GET").text == "direct"


def test_tls_goes_through_a_tunnel_and_can_be_cut(serve, open_line, authority):
    held = threading.Event()

    def drip():
        yield b"x"
        held.wait(10)

    server = serve(
        lambda asked: HELLO if asked.path == "/" else (200, {"Content-Length": "2"}, drip()), authority.sign("tunnel")
    )
    with Tunnel() as tunnel:
        line = open_line(server.url, proxy=tunnel.url, ca=str(authority.certificate))
        assert line.ask("GET").text == "hello"
        assert tunnel.asked[0].startswith(b"CONNECT 127.0.0.1:")
        found: list[bytes] = []

        def act() -> None:
            with line.ask("GET", "/held", stream=True) as answer:
                found.extend(line.blocks(answer))

        assert cut_in_the_middle(line, lambda: len(server.asked) == 2, act) < 0.5
        held.set()


def test_proxy_that_refuses_or_is_gone_says_so_without_its_password(open_line, serve):
    with Tunnel(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n") as tunnel:
        line = open_line("https://field.example/", proxy=tunnel.url.replace("//", f"//anna:{SECRET}@"))
        with pytest.raises(LinkError, match="proxy") as caught:
            line.ask("GET")
        assert SECRET not in str(caught.value)
    with pytest.raises(LinkError, match="proxy"):
        open_line("https://field.example/", proxy=tunnel.url).ask("GET")
    with pytest.raises(LinkError, match=r"proxy|listens"):
        open_line("http://field.example/", proxy=tunnel.url).ask("GET")
    with pytest.raises(InvalidTransferError, match="proxy is no address") as caught:
        open_line("http://field.example/", proxy=f"anna:{SECRET}")
    assert SECRET not in str(caught.value)


# --- what a caller gives ---


@pytest.mark.parametrize(
    "options",
    [{"url": "ftp://a/"}, {"url": "a/b"}, {"url": ""}, {"url": "http://a b/"}, {"url": "http://a:99999/"}, {"headers": {"A b": "c"}},
     {"headers": {"A": "b\r\nC: d"}}, {"headers": {"A": "☃"}}, {"headers": ["A"]}, {"basic": "anna"}],
)  # fmt: skip
def test_endpoint_that_is_none_is_refused(options):
    with pytest.raises(InvalidTransferError):
        Endpoint.of(**{"url": "http://a/", **options})


def test_address_that_is_none_is_refused_before_anything_is_sent(serve, open_line):
    server = serve(lambda asked: HELLO)
    for url in ("ftp://a/", "http://a b/", "http://[/"):
        with pytest.raises(InvalidTransferError):
            open_line(server.url).ask("GET", url)
    assert not server.asked


def test_scrubbed_text_has_no_secrets():
    text = scrubbed(f"GET http://anna:{SECRET}@a/b?token={SECRET}&x=1 Authorization: Bearer {SECRET}")
    assert SECRET not in text
    assert "x=1" in text


# --- the proxy of the tests itself ---


def echo_port(stack: ExitStack) -> int:
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

    def serve(client: socket.socket) -> None:
        with suppress(OSError), client:
            while block := client.recv(1 << 16):
                client.sendall(block)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=[listener.accept()[0]], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    stack.callback(listener.shutdown, socket.SHUT_RDWR)
    return listener.getsockname()[1]


def test_test_proxy_reorders_corrupts_and_counts():
    with ExitStack() as stack:
        proxy = stack.enter_context(
            WireProxy(echo_port(stack), lambda number: Fault(corrupts_down=1 if number == 1 else None), reorder=3)
        )
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", proxy.port), timeout=5)) for _ in range(3)
        ]
        for number, client in enumerate(clients):
            client.sendall(b"abc")
            wait_until(lambda number=number: len(proxy._held) == (number + 1) % 3 and proxy.up == 3 * (number + 1))
        assert [client.recv(10) for client in clients] == [b"abc", b"arc", b"abc"]
        assert proxy.answered == [2, 1, 0]
        assert (proxy.up, proxy.down, proxy.connections, proxy.breaks) == (9, 9, 3, 0)


@pytest.mark.parametrize(
    ("status", "body", "text", "remedy"),
    [
        (401, b"no", "401 Unauthorized: no.", "Correct the user and the password, or what else signs in."),
        (404, b"<html><title>Not &amp; found</title><p>x", "404 Not Found: Not & found.", "Correct the address."),
        (404, b"<h1>Gone</h1>\n<script>alert(1)</script>for good!", "404 Not Found: Gone for good!", "Correct the address."),
        (405, b'{"error": "No such thing.", "remedy": "Use POST."}', "405 Method Not Allowed: No such thing.", "Use POST."),
        (400, b'{"title": "Bad", "detail": "Too bad"}', "400 Bad Request: Too bad.", AnswerError.remedy),
        (500, b'{"x": 1}', '500 Internal Server Error: {"x": 1}.', AnswerError.remedy),
        (500, b"", "500 Internal Server Error.", AnswerError.remedy),
        (418, b"{", "418 I'm a Teapot: {.", AnswerError.remedy),
        (599, b"a" * 300, f"599: {'a' * 199}…", AnswerError.remedy),
    ],
)  # fmt: skip
def test_refusal_says_what_was_wrong_and_what_to_do(status, body, text, remedy):
    server = Answers(lambda asked: (status, {}, body))
    with server, Line(Endpoint.of(server.url)) as line, pytest.raises(AnswerError) as caught:
        line.ask("GET")
    assert (str(caught.value), caught.value.remedy) == (text, remedy)
