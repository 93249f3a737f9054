"""What of the benchmark could be wrong without anybody seeing it: ratios, limits, and connections that are closed."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench import client, names
from bench.report import Report
from bench.tables import OTHERS, Column, Table, interleave
from bench.targets import judge

SPLICED, PORTABLE = names.ours("gunicorn", "splice"), names.ours("gunicorn", "portable")
KEPT = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CLOSED = KEPT.replace(b"\r\nContent", b"\r\nConnection: close\r\nContent")


def table(**lines: list[float]) -> Table:
    rounds = {SPLICED: [10.0, 30.0, 22.0], "nginx": [10.0, 20.0, 20.0], **lines}
    return Table(names.big(64), "64 MiB", [Column("rate", "MiB/s", rounds)], to=("nginx",))


class TestTables:
    def test_each_round_is_compared_with_its_neighbour(self):
        assert table().columns[0].ratio(SPLICED, "nginx") == (1.1, 1.0, 1.5)

    def test_servers_take_turns_and_the_first_round_does_not_count(self):
        said: list[str] = []

        def measure(name: str) -> int:
            said.append(name)
            return len(said)

        assert interleave("ab", 2, measure) == {"a": [3, 5], "b": [4, 6]}
        assert "".join(said) == "ababab"

    @pytest.mark.parametrize(
        ("rounds", "others", "disturbed"),
        [([10, 10, 12.9], 24, False), ([10, 10, 6.9], 24, True), ([10, 10, 10], 26, True)],
    )
    def test_a_round_far_off_is_disturbed_and_one_beside_others(self, rounds, others, disturbed):
        made = Table("", "", [Column("rate", "", {"a": rounds}), Column(OTHERS, "%", {"a": [others]})])
        assert made.disturbed("a") is disturbed


class TestTargets:
    def test_each_path_has_its_limit(self):
        targets = judge([table(**{PORTABLE: [6.0, 11.0, 12.0]})])
        found = {target.path: (target.limit, target.figure, target.holds) for target in targets}
        assert found == {"splice": (1, 1.1, True), "portable": (0.6, 0.6, True)}

    def test_a_limit_may_be_the_most(self):
        rounds = {SPLICED: [0.8, 1.0, 0.95], PORTABLE: [1.9, 1.9, 1.9], "nginx": [1.0, 1.0, 1.0]}
        made = table()
        made.columns.append(Column("processor", "s/GiB", rounds))
        found = {target.path: target.holds for target in judge([made]) if "processor" in target.text}
        assert found == {"splice": False, "portable": True}

    def test_growth_is_of_the_late_to_the_early(self):
        columns = [Column(how, "µs", {"chunk 100": [10.0], "chunk 9": [12.0]}) for how in ("HTTP", "in process")]
        assert {target.figure for target in judge([Table(names.NUMBERS, "", columns)])} == {1.2}
        assert not any(target.holds for target in judge([Table(names.NUMBERS, "", columns)]))

    def test_what_was_not_measured_has_no_target(self):
        assert judge([]) == []


class TestReport:
    def test_what_is_missed_or_odd_is_said(self):
        made = table(**{PORTABLE: [5.0, 5.0, 5.0]})
        made.notes[SPLICED] = "NOT SPLICED"
        report = Report({}, {}, [made])
        text = report.as_text()
        assert re.search(rf"{SPLICED} +22 +1\.10 \(1\.00–1\.50\) +disturbed, NOT SPLICED", text)
        assert re.search(r"64 MiB, to nginx +≥ 0\.6 +0\.25 MISSED +≥ 1 +1\.1", text)
        assert text.endswith("1 of 2 targets hold, 1 do not.\n")

    def test_json_has_every_round(self):
        (found,) = Report({}, {}, [table()]).as_json()["tables"]
        line = found["lines"][SPLICED]
        assert line["figures"]["rate"]["rounds"] == [10, 30, 22]
        assert line["ratios"]["to nginx"] == {"median": 1.1, "low": 1, "high": 1.5}


class Server:
    """Answers requests with what it is told to; `got` has the target of each. A connection ends after some answers."""

    def __init__(self, answer: bytes, per_connection: int) -> None:
        self._answer = answer
        self._per_connection = per_connection
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.got: list[bytes] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._serve)
        thread.start()
        yield
        self._listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as file:
                for _ in range(self._per_connection):
                    if not (line := file.readline()):
                        break
                    fields = dict(field.split(b": ") for field in iter(lambda: file.readline().strip(), b""))
                    assert file.read(int(fields[b"Content-Length"])) == b"x" * 10
                    self.got.append(line.split()[1])
                    connection.sendall(self._answer)


class TestClient:
    @pytest.mark.parametrize(
        ("answer", "per_connection", "connections"),
        [(KEPT, 100, 1), (CLOSED, 1, 6), (KEPT, 1, 6), (KEPT, 2, 3)],
        ids=["kept", "announced", "silently", "silently after two"],
    )
    def test_a_closed_connection_is_replaced_and_counted(self, tmp_path: Path, answer, per_connection, connections):
        source = tmp_path / "source"
        source.write_bytes(b"x" * 60)
        server = Server(answer, per_connection)

        def wire(size: int, chunk: int) -> client.Wire:
            for number, offset, length in client.chunks(size, chunk):
                reply = yield client.Request(client.head("PUT", f"/{number}", length), offset, length)
                assert reply.body == b"ok"
            return "done"

        with server.running():
            sent = client.send(server.port, wire, str(source), 60, 10)
        assert (sent.reference, sent.connections) == ("done", connections)
        assert server.got == [f"/{number}".encode() for number in range(6)]

    def test_an_error_is_not_measured(self, tmp_path: Path):
        (tmp_path / "source").write_bytes(b"x" * 10)
        server = Server(KEPT.replace(b"200", b"409"), 1)
        with server.running(), pytest.raises(RuntimeError, match="409"):
            client.send(server.port, client.webdav, str(tmp_path / "source"), 10, 10)
