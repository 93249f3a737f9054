"""Files that are sent, by each protocol, to an application in this process over a line that breaks as it is told."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from transfers import ORIGIN, URL, HostLine, ScriptedLine, Sending
from upload_helper.errors import InvalidRequestError
from upload_helper.protocols import structs
from upload_helper.protocols.chunked import ChunkOffer, StatusRequest, StatusResponse, to_text
from upload_helper.protocols.fields import LARGEST as LARGEST_INTEGER
from upload_helper.transfer.discovery import spoken
from upload_helper.transfer.errors import (
    AnswerError,
    FileChangedError,
    InvalidTransferError,
    LinkError,
    ProtocolError,
    SourceError,
    UploadGoneError,
)
from upload_helper.transfer.pace import Pace
from upload_helper.transfer.upload import MOST_FAILURES, UploadRequest
from upload_helper.transfer.uploads.job import located
from upload_helper.transfer.uploads.pieces import FIRST, LARGEST, SMALLEST, Pieces

PIECE = 10_000
DATA = random.Random(8).randbytes(95_000)
GOING_ON = ("tus", "rufh", "chunks")
NAME = 'Straße "日本".tif'


@pytest.fixture(params=GOING_ON)
def protocol(request) -> str:
    return request.param


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / NAME
    path.write_bytes(DATA)
    os.utime(path, (1e9, 1e9))
    return path


@pytest.fixture
def line(client) -> HostLine:
    return HostLine(client)


@pytest.fixture
def sending(line, file, protocol) -> Sending:
    return Sending(line, file, protocol=protocol, piece=PIECE)


def finished(line) -> dict[str, bytes]:
    """Return what is finished on the server, by uid."""
    line.fault = lambda *_: None
    uploads = line.client.get("/uploads", headers={"X-User": "ann"}).json["uploads"]
    done = [upload["uploadUid"] for upload in uploads if upload["state"] == "finished"]
    files = {}
    for uid in done:
        with line.client.get(f"/uploads/{uid}", headers={"X-User": "ann"}) as answer:
            files[uid] = answer.data
    return files


def count(line) -> int:
    """Return how many uploads the server has, finished or not."""
    return len(line.client.get("/uploads", headers={"X-User": "ann"}).json["uploads"])


def change(file: Path, data: bytes) -> None:
    moment = file.stat().st_mtime + 1
    file.write_bytes(data)
    os.utime(file, (moment, moment))


class Nth:
    """A fault of the n-th request with this method, or of each."""

    def __init__(self, method: str, number: int, *fault: object, then=lambda: None) -> None:
        self.method, self.number, self.fault, self.then = method, number, fault, then
        self.seen = 0

    def __call__(self, method: str, url: str, body: bytes):
        if method != self.method or (method == "POST" and self.method == "POST" and not body and "?" not in url):
            return None
        self.seen += 1
        if self.number in (0, self.seen):
            self.then()
            return self.fault
        return None


def carrying(protocol: str) -> str:
    """Return the method of the requests that carry bytes."""
    return "POST" if protocol == "chunks" else "PATCH"


class TestWhole:
    @pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE, len(DATA)])
    def test_a_file_arrives_with_its_name(self, line, file, protocol, size):
        file.write_bytes(DATA[:size])
        sent = Sending(line, file, protocol=protocol, piece=PIECE).run()
        assert finished(line) == {sent.uid: DATA[:size]}
        status = line.client.get(f"/uploads/{sent.uid}/status", headers={"X-User": "ann"}).json
        assert (status["fileName"], sent.size, sent.restarted) == (NAME, size, "")
        assert sent.url == f"{URL}/{sent.uid}"

    @pytest.mark.parametrize(("protocol", "query"), [("multipart", ""), ("raw", "?name=file.bin")], ids=["form", "raw"])
    @pytest.mark.parametrize("size", [0, 1, len(DATA)])
    def test_a_file_arrives_in_one_plain_request(self, line, file, protocol, query, size):
        file.write_bytes(DATA[:size])
        sent = Sending(line, file, URL + query, protocol=protocol).run()
        assert list(finished(line).values()) == [DATA[:size]]
        assert '"uploadUid"' in sent.text
        assert len(line.asked) == 1

    def test_a_name_of_another_choice(self, line, file, protocol):
        sent = Sending(line, file, protocol=protocol, name="other.tif").run()
        assert line.client.get(f"/uploads/{sent.uid}/status", headers={"X-User": "ann"}).json["fileName"] == "other.tif"

    def test_progress_grows_up_to_all_of_it(self, sending):
        sending.run()
        done = [done for done, _ in sending.reports]
        assert done == sorted(done)
        assert (done[0], done[-1]) == (0, len(DATA))
        assert {total for _, total in sending.reports} == {len(DATA)}

    def test_each_byte_goes_once(self, sending):
        sending.run()
        assert sending.line.sent == len(DATA)

    def test_a_body_is_no_larger_at_once_than_a_limit_allows(self, line, file, protocol):
        line.pace = Pace("20k")
        Sending(line, file, protocol=protocol, piece=50_000).run()
        assert line.sent == len(DATA)
        assert max(line.blocks) <= 5 << 10

    def test_the_server_is_asked_what_it_speaks_once(self, line, file):
        sending = Sending(line, file)
        sending.run()
        assert line.methods().startswith("OPTIONS POST PATCH")
        assert sending.state["protocol"] == "tus"
        sending.again()
        assert line.methods().count("OPTIONS") == 1

    def test_the_chunk_protocol_obeys_the_limit_that_the_server_tells(self, file):
        offer = {"X-Upload-Helper": "chunks, max-chunk-size=40000, max-chunks=9"}
        line = ScriptedLine((204, offer), (404, {}), *[(200, {}, b'{"uploadUid":"a"}')] * 3, (403, {}))
        with pytest.raises(AnswerError):
            Sending(line, file).run()
        assert [len(body) for _, _, body in line.asked] == [0, 0, 40_000, 40_000, 15_000, 0]

    def test_a_redirect_is_followed_once_and_not_with_every_piece(self, file):
        there = {"Tus-Version": "1.0.0", "Tus-Extension": "creation", "Content-Location": f"{ORIGIN}/new/"}
        line = ScriptedLine((204, there), CREATED, (204, {**TUS, "Upload-Offset": str(len(DATA))}))
        Sending(line, file).run()
        assert [url for _, url, _ in line.asked] == [URL, f"{ORIGIN}/new/", f"{ORIGIN}/files/1"]


class TestBreaks:
    def test_every_piece_is_cut_and_only_its_rest_goes_again(self, sending, protocol):
        cut = set()

        def fault(method, url, body):
            if body and body[:100] not in cut and len(body) > PIECE // 2:
                cut.add(body[:100])
                return "cut", len(body) // 2
            return None

        sending.line.fault = fault
        sending.run()
        assert list(finished(sending.line).values()) == [DATA]
        assert len(cut) >= 9
        again = sending.line.sent - len(DATA)
        # What the server keeps of a cut request does not go again; a chunk does.
        assert again == 0 if protocol != "chunks" else again <= len(cut) * PIECE // 2

    @pytest.mark.parametrize("number", [1, 4, 10])
    def test_an_answer_is_lost_and_nothing_goes_twice(self, sending, protocol, number):
        sending.line.fault = Nth(carrying(protocol), number, "lost", 0)
        sending.run()
        assert list(finished(sending.line).values()) == [DATA]
        assert (sending.line.sent, count(sending.line), len(sending.slept)) == (len(DATA), 1, 1)

    @pytest.mark.parametrize("protocol", ["tus", "rufh"])
    def test_the_answer_to_the_creation_is_lost(self, line, file, protocol):
        faults = iter([("lost", 0)])
        line.fault = lambda method, url, body: next(faults, None) if method == "POST" else None
        Sending(line, file, protocol=protocol).run()
        assert list(finished(line).values()) == [DATA]

    def test_another_process_goes_on_where_this_one_died(self, sending, protocol):
        sending.line.fault = Nth(carrying(protocol), 5, "lost", 0, then=lambda: None)
        line, before = sending.line, sending.line.ask

        class KilledError(Exception):
            pass

        def ask(method, url="", **options):
            if line.sent >= 5 * PIECE:
                raise KilledError
            return before(method, url, **options)

        line.ask = ask
        with pytest.raises(KilledError):
            sending.run()
        line.ask = before
        sent = sending.again()
        assert finished(line) == {sent.uid: DATA}
        assert (line.sent, sent.restarted, count(line)) == (len(DATA), "", 1)

    def test_another_process_finds_the_upload_whose_first_answer_nobody_got(self, line, file):
        sending = Sending(line, file, protocol="chunks", piece=PIECE)
        line.fault = Nth("POST", 1, "lost", 0, then=lambda: setattr(line, "is_cut", True))
        with pytest.raises(LinkError):
            sending.run()
        line.is_cut = False
        assert finished(line) == {}
        sent = sending.again()
        assert (finished(line), line.sent, count(line)) == ({sent.uid: DATA}, len(DATA), 1)

    def test_another_process_begins_where_this_one_died_before_it_knew_the_protocol(self, line, file):
        line.fault = lambda method, url, body: ("refuse", 403) if method == "POST" else None
        sending = Sending(line, file)
        with pytest.raises(AnswerError):
            sending.run()
        del sending.state["protocol"]
        line.fault = lambda *_: None
        assert sending.again().restarted == ""
        assert list(finished(line).values()) == [DATA]

    def test_a_link_that_never_holds_is_given_up(self, sending, protocol):
        sending.line.fault = Nth(carrying(protocol), 0, "cut", 0)
        with pytest.raises(LinkError):
            sending.run()
        assert len(sending.slept) == MOST_FAILURES - 1
        assert sending.slept == sorted(sending.slept)
        assert 0.9 <= sending.slept[0] <= 1

    def test_one_more_byte_each_time_is_enough_to_go_on(self, line, file):
        line.fault = lambda method, url, body: ("cut", 1000) if len(body) > 1000 else None
        sending = Sending(line, file, protocol="tus", piece=PIECE)
        sending.run()
        assert list(finished(line).values()) == [DATA]
        assert len(sending.slept) > 80
        assert max(sending.slept) <= 1

    @pytest.mark.parametrize("status", [409, 423, 429, 500, 502, 503, 504, 507])
    def test_what_passes_is_waited_for(self, sending, protocol, status):
        sending.line.fault = Nth(carrying(protocol), 3, "refuse", status)
        sending.run()
        assert list(finished(sending.line).values()) == [DATA]

    @pytest.mark.parametrize("status", [400, 401, 403, 415, 501])
    def test_what_does_not_pass_is_raised(self, sending, protocol, status):
        sending.line.fault = Nth(carrying(protocol), 3, "refuse", status)
        with pytest.raises(AnswerError) as caught:
            sending.run()
        assert (caught.value.answered, sending.slept) == (status, [])
        assert sending.again().size == len(DATA)
        assert sending.line.sent == len(DATA)

    def test_a_plain_request_begins_again(self, line, file):
        line.fault = Nth("POST", 1, "cut", 50_000)
        sending = Sending(line, file, protocol="multipart")
        sending.run()
        assert list(finished(line).values()) == [DATA]
        assert len(sending.slept) == 1

    def test_a_line_that_was_cut_here_is_not_tried_again(self, sending, protocol):
        sending.line.fault = Nth(carrying(protocol), 3, "cut", 0, then=lambda: setattr(sending.line, "is_cut", True))
        with pytest.raises(LinkError):
            sending.run()
        assert sending.slept == []


class TestGone:
    def test_an_upload_that_the_server_deleted_begins_anew_and_says_so(self, sending, protocol):
        def delete():
            sending.line.client.delete(f"/uploads/{sending.state['url'].rpartition('/')[2]}", headers={"X-User": "ann"})

        sending.line.fault = Nth(carrying(protocol), 4, "cut", 0, then=delete)
        sent = sending.run()
        assert sent.restarted == "the server did not know the upload any more"
        assert finished(sending.line) == {sent.uid: DATA}

    @pytest.mark.parametrize("status", [404, 410])
    def test_a_server_that_forgets_at_once_is_given_up(self, line, file, protocol, status):
        # Whatever was begun: not there.
        line.fault = lambda method, url, body: ("refuse", status) if method in ("HEAD", "PATCH") else None
        if protocol == "chunks":
            seen = []
            line.fault = lambda m, u, b: (
                ("refuse", status) if m == "POST" and (seen.append(u) or len(seen) > 1) else None
            )
        with pytest.raises((UploadGoneError, AnswerError)):
            Sending(line, file, protocol=protocol, piece=PIECE).run()
        assert len(line.asked) < 50

    def test_a_collection_that_is_not_there_is_no_upload_that_is_gone(self, line, file, protocol):
        with pytest.raises(AnswerError) as caught:
            Sending(line, file, f"{ORIGIN}/elsewhere", protocol=protocol).run()
        assert caught.value.answered in (404, 405)


class TestChanges:
    def test_a_file_that_changed_since_begins_anew_and_says_so(self, sending, protocol, file):
        sending.line.fault = Nth(carrying(protocol), 5, "refuse", 403)
        with pytest.raises(AnswerError):
            sending.run()
        change(file, DATA[::-1])
        sending.line.fault = lambda *_: None
        sent = sending.again()
        assert sent.restarted == "the file has changed"
        assert finished(sending.line) == {sent.uid: DATA[::-1]}
        assert count(sending.line) == 1

    @pytest.mark.parametrize("data", [DATA + b"x", DATA[:-1], DATA[::-1]], ids=["grown", "shrunk", "other"])
    def test_a_file_that_changes_meanwhile_is_never_finished(self, sending, protocol, file, data):
        for number in (1, 5, 10):
            sending.line.fault = Nth(carrying(protocol), number, "refuse", 503, then=lambda: change(file, data))
            with pytest.raises(FileChangedError):
                sending.run()
            assert sending.state == {}
            assert finished(sending.line) == {}
            assert count(sending.line) == 0
            change(file, DATA)

    def test_a_file_that_changes_while_its_last_bytes_are_read_is_never_finished(self, line, file, protocol):
        sending = Sending(line, file, protocol=protocol, piece=PIECE)
        line.turn = lambda size: change(file, DATA[::-1]) if line.sent >= 9 * PIECE - 1 else None
        small = file.stat().st_size - 9 * PIECE
        assert small > 0
        with pytest.raises(FileChangedError):
            Sending(line, file, protocol=protocol, piece=9 * PIECE).run() if protocol == "chunks" else sending.run()
        assert finished(line) == {}

    @pytest.mark.parametrize("protocol", ["multipart", "raw"])
    def test_a_file_that_changes_is_not_sent_in_a_plain_request_either(self, line, file, protocol):
        file.write_bytes(DATA * 3)
        line.turn = lambda size: change(file, DATA)
        with pytest.raises(FileChangedError):
            Sending(line, file, URL + "?name=x", protocol=protocol).run()
        assert line.asked == []

    def test_a_file_that_vanishes_is_an_error(self, sending, protocol, file):
        sending.line.fault = Nth(carrying(protocol), 3, "cut", 0, then=file.unlink)
        with pytest.raises(SourceError, match="There is no file"):
            sending.run()
        assert finished(sending.line) == {}

    def test_another_target_or_protocol_has_nothing_to_do_with_what_was_kept(self, line, file):
        sending = Sending(line, file, protocol="tus", piece=PIECE)
        line.fault = Nth("PATCH", 3, "refuse", 403)
        with pytest.raises(AnswerError):
            sending.run()
        line.fault = lambda *_: None
        assert sending.again(protocol="rufh").restarted == ""
        assert sending.again(url=f"{ORIGIN}/uploads/", protocol="chunks").restarted == ""
        assert list(finished(line).values()) == [DATA, DATA]


class TestChecksums:
    def test_a_byte_that_was_corrupted_is_sent_again(self, line, file, protocol):
        line.fault = Nth(carrying(protocol), 4, "corrupt", 77)
        Sending(line, file, protocol=protocol, piece=PIECE, checksums=True).run()
        assert list(finished(line).values()) == [DATA]
        assert line.sent == len(DATA) + PIECE

    def test_without_them_nobody_would_notice(self, line, file, protocol):
        line.fault = Nth(carrying(protocol), 4, "corrupt", 77)
        Sending(line, file, protocol=protocol, piece=PIECE).run()
        assert list(finished(line).values()) != [DATA]


class TestSizes:
    @pytest.mark.parametrize("protocol", ["tus", "rufh"])
    def test_a_piece_that_a_proxy_refuses_is_made_smaller(self, line, file, protocol):
        file.write_bytes(DATA * 20)
        line.fault = lambda method, url, body: ("refuse", 413) if len(body) > 200_000 else None
        sending = Sending(line, file, protocol=protocol)
        sending.run()
        assert list(finished(line).values()) == [DATA * 20]
        assert sending.slept == []

    def test_a_chunk_that_a_proxy_refuses_is_made_smaller(self, line, file):
        file.write_bytes(DATA * 20)
        line.fault = lambda method, url, body: ("refuse", 413) if len(body) > 300_000 else None
        Sending(line, file, protocol="chunks", piece=1 << 20).run()
        assert list(finished(line).values()) == [DATA * 20]

    def test_a_file_that_is_too_large_is_refused_for_good(self, make_host, file, protocol):
        line = HostLine(make_host(max_file_size=1000).test_client())
        with pytest.raises(AnswerError) as caught:
            Sending(line, file, protocol=protocol).run()
        assert caught.value.answered == 413
        assert line.sent <= len(DATA)

    def test_pieces_grow_while_they_go_quickly_and_shrink_when_they_do_not(self):
        pieces = Pieces()
        sizes = []
        for seconds in (0.1,) * 8 + (20,) * 12:
            sizes.append(pieces.size)
            pieces.went(seconds)
        assert sizes[:8] == [FIRST << min(n, 6) for n in range(8)]
        assert (max(sizes), pieces.size) == (LARGEST, SMALLEST)

    def test_pieces_of_a_size_that_was_set_stay_as_they_are(self):
        pieces = Pieces(5000)
        pieces.went(0.1)
        pieces.broke()
        assert (pieces.size, pieces.refused()) == (5000, False)

    def test_pieces_obey_the_limits_of_a_server(self):
        pieces = Pieces()
        pieces.limit(None, 100_000)
        pieces.went(0.1)
        assert pieces.size == 100_000
        pieces = Pieces()
        pieces.limit(5 << 20, None)
        assert pieces.size == 5 << 20


TUS = {"Tus-Resumable": "1.0.0"}
MISSING = (
    b'{"uploadUid":"a","fileName":"","totalSize":1,"chunkCount":1,"state":"open","receivedBytes":0,"missing":[[5,500]]}'
)
CREATED = (201, {**TUS, "Location": "/files/1"})


class TestLiars:
    """Servers that answer otherwise than the protocol has it."""

    @pytest.mark.parametrize(
        ("protocol", "answers"),
        [
            ("tus", [(201, TUS)]),
            ("tus", [(201, {"Location": "/files/1"})]),
            ("tus", [(200, {})]),
            ("tus", [CREATED, (204, TUS)]),
            ("tus", [CREATED, (204, {**TUS, "Upload-Offset": "95001"})]),
            ("tus", [CREATED, (204, {**TUS, "Upload-Offset": "0"})]),
            ("tus", [CREATED, (204, {**TUS, "Upload-Offset": "-5"})]),
            ("tus", [CREATED, (204, {**TUS, "Upload-Offset": "20000"}), (204, {**TUS, "Upload-Offset": "20000"})]),
            ("rufh", [(201, {})]),
            ("rufh", [(201, {"Location": "javascript:1"})]),
            ("rufh", [(201, {"Location": "/1"}), (204, {"Upload-Offset": "0"})]),
            ("rufh", [(201, {"Location": "/1"}), (204, {"Upload-Offset": "99999999"})]),
            ("rufh", [(201, {"Location": "/1"}), *[(204, {})] * 9, (204, {"Upload-Complete": "?0"})]),
            ("chunks", [(200, {}, b"<html>")]),
            ("chunks", [(404, {}), (200, {}, b"{}")]),
            ("chunks", [(404, {}), (200, {}, b'{"uploadUid": 5}')]),
            ("chunks", [(200, {}, MISSING), *[(200, {}, b'{"uploadUid":"a"}')] * 9]),
        ],
    )  # fmt: skip
    def test_a_lie_ends_it(self, file, protocol, answers):
        line = ScriptedLine(*answers)
        with pytest.raises((ProtocolError, InvalidTransferError)):
            Sending(line, file, protocol=protocol, piece=PIECE).run()
        assert len(line.asked) <= len(answers)

    def test_a_server_that_never_finishes_is_given_up(self, file):
        status = b'{"uploadUid":"a","fileName":"","totalSize":1,"chunkCount":1,"state":"open","receivedBytes":0,"missing":[]}'
        line = ScriptedLine(*[(200, {}, status)] * 100)
        with pytest.raises(ProtocolError, match="does not take the upload for finished"):
            Sending(line, file, protocol="chunks", piece=PIECE).run()

    def test_what_stands_under_the_address_is_another_upload(self, file):
        standing = {**TUS, "Upload-Offset": "5", "Upload-Length": "7"}
        sending = Sending(ScriptedLine(CREATED, (403, {}), (200, standing), CREATED, (403, {})), file, protocol="tus")
        for _ in range(2):
            with pytest.raises(AnswerError):
                sending.again()
        assert [method for method, _, _ in sending.line.asked] == ["POST", "PATCH", "HEAD", "POST", "PATCH"]

    def test_pieces_are_what_the_server_takes(self, file):
        created = (201, {"Location": "/1", "Upload-Limit": "max-append-size=40000"})
        line = ScriptedLine(created, *2 * [(204, {"Upload-Complete": "?0"})], (201, {"Upload-Complete": "?1"}))
        Sending(line, file, protocol="rufh").run()
        assert [len(body) for _, _, body in line.asked] == [0, 40_000, 40_000, 15_000]

    def test_an_upload_that_is_complete_gets_nothing_more(self, file):
        complete = {"Upload-Offset": str(len(DATA)), "Upload-Complete": "?1"}
        line = ScriptedLine((201, {"Location": "/1"}), (503, {}), (204, complete))
        assert Sending(line, file, protocol="rufh").run().size == len(DATA)
        assert [method for method, _, _ in line.asked] == ["POST", "PATCH", "HEAD"]

    def test_an_upload_that_was_completed_too_early_begins_anew(self, file):
        early = {"Upload-Offset": "5", "Upload-Complete": "?1"}
        again = [(201, {"Location": "/2"}), (201, {"Upload-Complete": "?1"})]
        line = ScriptedLine((201, {"Location": "/1"}), (503, {}), (204, early), *again)
        assert Sending(line, file, protocol="rufh").run().url == f"{ORIGIN}/2"
        assert [method for method, _, _ in line.asked] == ["POST", "PATCH", "HEAD", "POST", "PATCH"]

    def test_a_server_that_wants_to_be_left_alone_for_long_is(self, file):
        sending = Sending(ScriptedLine((503, {"Retry-After": 3600})), file, protocol="tus")
        with pytest.raises(AnswerError) as caught:
            sending.run()
        assert (caught.value.retry_after, sending.slept) == (3600, [])

    def test_a_server_that_wants_to_be_left_alone_for_a_while_is(self, file):
        answers = [(503, {"Retry-After": 7}), CREATED, (204, {**TUS, "Upload-Offset": str(len(DATA))})]
        sending = Sending(ScriptedLine(*answers), file, protocol="tus")
        sending.run()
        assert sending.slept == [7]


class TestLocations:
    @pytest.mark.parametrize(
        ("base", "location", "url"),
        [
            ("https://a.example/uploads", "/uploads/1", "https://a.example/uploads/1"),
            ("https://a.example/uploads", "http://a.example/uploads/1", "https://a.example/uploads/1"),
            ("https://a.example:8443/up", "http://a.example/up/1", "https://a.example:8443/up/1"),
            ("https://a.example/up/", "1#x", "https://a.example/up/1"),
            ("http://a.example/up", "https://a.example/up/1", "https://a.example/up/1"),
            ("https://a.example/up", "http://b.example/1", "http://b.example/1"),
        ],
    )
    def test_nobody_is_led_out_of_tls_by_a_server_behind_a_proxy(self, base, location, url):
        assert located(base, location) == url

    @pytest.mark.parametrize("location", ["", "javascript:alert(1)", "http://[", "file:///etc/passwd", "http://"])
    def test_what_is_no_address_is_none(self, location):
        with pytest.raises((ProtocolError, InvalidTransferError)):
            located("https://a.example/up", location)


class TestPlain:
    def test_a_form_has_the_name_as_browsers_write_it(self, tmp_path, file):
        line = ScriptedLine((200, {}, b"thanks"))
        sent = Sending(line, file, "http://office.example/upload", protocol="multipart", part='the "doc"').run()
        method, url, body = line.asked[0]
        boundary = line.headers[0]["Content-Type"].partition("boundary=")[2]
        head = 'Content-Disposition: form-data; name="the %22doc%22"; filename="Straße %22日本%22.tif"\r\n'
        assert body.startswith(f"--{boundary}\r\n{head}".encode())
        assert body.endswith(f"\r\n--{boundary}--\r\n".encode())
        assert (method, url, sent.text, sent.uid) == ("POST", "http://office.example/upload", "thanks", "")

    def test_a_body_is_put_under_the_name_in_a_folder(self, file):
        line = ScriptedLine((201, {}))
        Sending(line, file, "http://office.example/dav/", method="PUT").run()
        assert line.asked == [("PUT", "http://office.example/dav/Stra%C3%9Fe%20%22%E6%97%A5%E6%9C%AC%22.tif", DATA)]

    def test_a_body_is_put_where_it_is_to_be(self, file):
        line = ScriptedLine((201, {}))
        sent = Sending(line, file, "http://office.example/dav/x.tif?v=1", method="PUT").run()
        assert line.asked[0][:2] == ("PUT", "http://office.example/dav/x.tif?v=1")
        assert sent.url == "http://office.example/dav/x.tif?v=1"

    @pytest.mark.parametrize(
        "answer", [(200, {}), (204, {"Allow": "POST"}), (404, {}), (405, {}), (501, {}), (500, {})]
    )
    def test_a_server_that_speaks_nothing_gets_a_form(self, file, answer):
        line = ScriptedLine(answer, (200, {}))
        sending = Sending(line, file, "http://office.example/upload", method="POST")
        sending.run()
        assert [method for method, _, _ in line.asked] == ["OPTIONS", "POST"]
        # Another time it may say more.
        assert "protocol" not in sending.state

    def test_a_server_that_can_not_be_reached_has_not_said_that_it_speaks_nothing(self, file):
        line = ScriptedLine(*[(502, {})] * 9)
        with pytest.raises(AnswerError):
            Sending(line, file).run()
        assert {method for method, _, _ in line.asked} == {"OPTIONS"}

    def test_nothing_is_sent_to_a_server_that_lets_nobody_in(self, file):
        line = ScriptedLine((401, {}))
        with pytest.raises(AnswerError, match="401"):
            Sending(line, file).run()
        assert [method for method, _, _ in line.asked] == ["OPTIONS"]


OURS = "chunks, max-chunk-size=100, max-chunks=5"


@pytest.mark.parametrize(
    ("headers", "protocols"),
    [
        ({}, ()),
        ({"tus-version": "1.0.0,0.2.2", "tus-extension": "creation,expiration"}, ("tus",)),
        ({"Tus-Version": "1.0.0"}, ()),
        ({"Tus-Version": "2.0.0", "Tus-Extension": "creation"}, ()),
        ({"Tus-Version": "1.0.0", "Tus-Extension": "creation-with-upload"}, ()),
        ({"Upload-Limit": "max-size=5"}, ("rufh",)),
        ({"Upload-Limit": "max-size=a;;"}, ()),
        ({"Accept-Patch": "text/plain, application/partial-upload"}, ("rufh",)),
        ({"X-Upload-Helper": OURS}, ("chunks",)),
        ({"X-Upload-Helper": "chunks"}, ()),
        ({"X-Upload-Helper": "max-chunk-size=100, max-chunks=5"}, ()),
        ({"X-Upload-Helper": "chunks, max-chunk-size=0, max-chunks=5"}, ()),
        ({"X-Upload-Helper": "chunks, max-chunk-size=?1, max-chunks=5"}, ()),
        ({"Upload-Limit": "max-age=1", "X-Upload-Helper": OURS, "Tus-Version": "1.0.0", "Tus-Extension": "creation"},
         ("tus", "rufh", "chunks")),
    ],
)  # fmt: skip
def test_what_a_server_says_that_it_speaks(headers, protocols):
    assert spoken(headers) == protocols


@pytest.mark.parametrize("offer", [ChunkOffer(1, 1), ChunkOffer(64 << 20, 10**6)])
def test_the_offer_of_the_chunk_protocol_reads_as_it_was_written(offer):
    assert ChunkOffer.parse(offer.build()) == offer


def test_the_offer_stays_within_what_a_header_can_hold():
    assert ChunkOffer.parse(ChunkOffer(10**18, 10**18).build()) == ChunkOffer(LARGEST_INTEGER, LARGEST_INTEGER)


@pytest.mark.parametrize("missing", [None, [], [(0, 5), (7, 7)]])
def test_a_status_reads_as_it_was_written(missing):
    status = StatusResponse("uid", NAME, 10, 8, "open", 5, missing, 2, 1.5, None, "sha256:ab")
    assert structs.load(StatusResponse, structs.decode(structs.encode(status, structs.JSON), structs.JSON)) == status


def test_a_status_query_has_what_finds_the_upload(client):
    query = StatusRequest("", "mine", NAME, 100, 4)
    assert to_text(query) == {"identifier": "mine", "fileName": NAME, "totalSize": "100", "chunkCount": "4"}
    assert structs.load(StatusRequest, structs.from_text(StatusRequest, to_text(query))) == query


@pytest.mark.parametrize("missing", [[[1]], [[1, 2, 3]], [["1", 2]], [5], "1-2"])
def test_ranges_that_are_none_are_refused(missing):
    members = {"uploadUid": "a", "fileName": "", "totalSize": 1, "chunkCount": 1, "state": "open", "receivedBytes": 0}
    with pytest.raises(InvalidRequestError, match="missing"):
        structs.load(StatusResponse, {**members, "missing": missing})


def test_the_blueprint_says_what_it_speaks(client):
    assert spoken(client.options("/uploads").headers) == ("tus", "rufh", "chunks")


@pytest.mark.parametrize(
    "options",
    [
        {"url": "ftp://a/b"}, {"url": ""}, {"url": "a b"}, {"method": "DELETE"}, {"method": "post"},
        {"protocol": "ftp"}, {"piece": -1}, {"piece": "5"}, {"piece": True}, {"name": "a\nb"}, {"part": "a\r\nb"},
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused(options):
    with pytest.raises(InvalidTransferError):
        UploadRequest(**{"url": URL, "file": "a.bin", **options})


def test_what_is_shown_of_a_request_has_no_secret():
    assert "secret" not in repr(UploadRequest("https://anna:secret@a.example/up?token=secret", "a.bin"))
