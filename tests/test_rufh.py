"""Resumable Uploads for HTTP, as its clients see the server."""

from __future__ import annotations

import hashlib
import io
import json
from base64 import b64encode

import pytest
from flask import request
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

import strategies
import upload_helper as uh
from upload_helper.protocols.problems import COMPLETED, INCONSISTENT_LENGTH, MISMATCHING_OFFSET
from upload_helper.protocols.rufh import PARTIAL, Append, Creation, Limits, Question, Standing
from upload_helper.views import rufh

PROBLEM = "application/problem+json"


class Peer:
    """A client that speaks one interop version."""

    def __init__(self, client, version=8, **headers):
        self.client = client
        self.headers = headers | ({} if version is None else {"Upload-Draft-Interop-Version": str(version)})

    def send(self, method, url, data=b"", *, chunked=False, **headers) -> TestResponse:
        """Send a request; `chunked` leaves its length open. Names of headers have underscores."""
        given = self.headers | {name.replace("_", "-"): value for name, value in headers.items()}
        if method not in ("POST", "PATCH"):
            return self.client.open(url, method=method, headers=given)
        length = given.pop("Content-Length", "" if chunked else str(len(data)))
        over = {"CONTENT_LENGTH": length}
        if chunked:
            over |= {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
        stream = io.BytesIO(data)
        return self.client.open(url, method=method, input_stream=stream, headers=given, environ_overrides=over)

    def create(self, data=b"", complete="?0", **headers):
        return self.send("POST", "/uploads", data, Upload_Complete=complete, **headers)

    def append(self, url, offset, data=b"", complete="?0", **headers):
        headers = {"Content_Type": PARTIAL, "Upload_Offset": str(offset), "Upload_Complete": complete} | headers
        return self.send("PATCH", url, data, **{name: value for name, value in headers.items() if value is not None})

    def look(self, url):
        return self.send("HEAD", url)


@pytest.fixture
def peer(client):
    return Peer(client)


def digest(data, algorithm="sha-256"):
    return f"{algorithm}=:{b64encode(hashlib.new(algorithm.replace('-', ''), data).digest()).decode()}:"


def standing(answer):
    return Standing.parse(dict(answer.headers))


def where(answer):
    there = standing(answer)
    return there.offset, there.complete, there.length


def uids(folder):
    return [path.name for path in folder.iterdir() if not path.name.startswith(".")] if folder.exists() else []


def problem(answer, status, code):
    """Return the members of a problem document, after a look at what all of them have."""
    assert answer.status_code == status, answer.text
    assert answer.mimetype == PROBLEM
    members = json.loads(answer.data)
    assert members["status"] == status
    assert members["code"] == code
    assert members["title"]
    assert members["detail"]
    assert "error" not in members
    return members


def contents(client, url):
    with client.get(url) as answer:
        assert answer.status_code == 200, answer.text
        return answer.data


class TestCreation:
    def test_an_empty_one_says_where_it_is(self, peer):
        answer = peer.create(Upload_Length="10")
        assert answer.status_code == 201
        there = standing(answer)
        assert there.location.startswith("/uploads/")
        assert (there.offset, there.complete) == (0, False)
        assert there.limits.max_size == 16 << 30
        assert there.limits.min_size == 0
        assert there.limits.max_append_size is None
        assert 0 < there.limits.max_age <= 7 * 24 * 3600
        assert answer.json == {"uploadUid": there.location.rpartition("/")[2], "url": there.location}
        assert where(peer.look(there.location)) == (0, False, 10)

    def test_the_whole_file_in_one_request(self, peer, client):
        answer = peer.create(b"hello", "?1", Content_Disposition='inline; filename="a b.txt"')
        assert answer.status_code == 201
        assert where(answer) == (5, True, -1)
        assert contents(client, answer.location) == b"hello"
        assert client.get(f"{answer.location}/status").json["fileName"] == "a b.txt"

    @pytest.mark.parametrize("length", [{}, {"Upload_Length": "5"}])
    def test_without_a_content_length(self, peer, client, length):
        answer = peer.create(b"hello", "?1", chunked=True, **length)
        assert (answer.status_code, where(answer)) == (201, (5, True, -1))
        assert contents(client, answer.location) == b"hello"
        assert where(peer.look(answer.location)) == (5, True, 5)

    def test_the_beginning_of_a_file(self, peer):
        answer = peer.create(b"hel", Upload_Length="5")
        assert (answer.status_code, where(answer)) == (201, (3, False, -1))
        assert where(peer.look(answer.location)) == (3, False, 5)

    def test_all_bytes_are_there_but_nobody_said_that_it_is_complete(self, peer, client):
        answer = peer.create(b"hello", Upload_Length="5")
        assert where(answer) == (5, False, -1)
        assert client.get(answer.location).status_code == 409
        done = peer.append(answer.location, 5, b"", "?1")
        assert (done.status_code, where(done)) == (201, (5, True, -1))
        assert contents(client, answer.location) == b"hello"

    @pytest.mark.parametrize("length", [{}, {"Upload_Length": "0"}])
    def test_an_empty_file(self, peer, client, length):
        answer = peer.create(b"", "?1", **length)
        assert (answer.status_code, where(answer)) == (201, (0, True, -1))
        assert contents(client, answer.location) == b""

    def test_no_length_is_told_before_it_is_known(self, peer):
        url = peer.create(b"he").location
        assert where(peer.look(url)) == (2, False, -1)
        peer.append(url, 2, b"l", Upload_Length="5")
        assert where(peer.look(url)) == (3, False, 5)
        peer.append(url, 3, b"lo", "?1")
        assert where(peer.look(url)) == (5, True, 5)

    @pytest.mark.parametrize("complete", ["?1", "?0"])
    def test_lengths_that_contradict_each_other(self, peer, folder, complete):
        answer = peer.create(b"hello", complete, Upload_Length="4")
        assert problem(answer, 400, "length_mismatch")["type"] == INCONSISTENT_LENGTH
        assert standing(answer).complete is False
        assert uids(folder) == []

    @pytest.mark.parametrize("length", ["4", "6"])
    def test_a_body_of_open_length_that_is_not_as_long_as_was_said(self, peer, folder, length):
        answer = peer.create(b"hello", "?1", chunked=True, Upload_Length=length)
        assert answer.status_code in (400, 413)
        assert answer.mimetype == PROBLEM
        assert uids(folder) == []

    @pytest.mark.parametrize("complete", ["?1", "?0"])
    def test_a_cut_body_leaves_nothing_for_nobody_could_find_it(self, peer, folder, complete):
        answer = peer.create(b"hel", complete, Content_Length="5")
        problem(answer, 400, "body_cut")
        assert uids(folder) == []

    @pytest.mark.parametrize("name", ["größe €.tif", 'a"b\\c;d.tif', "日本.tif"])
    def test_the_name_as_a_client_builds_it(self, client, name):
        message = Creation(complete=False, file_name=name)
        answer = client.post("/uploads", headers=message.build())
        assert client.get(f"{answer.location}/status").json["fileName"] == uh.upload.display_name(name)

    def test_the_name_as_tus_js_client_sends_it(self, peer, client):
        metadata = f"filename {b64encode('größe.tif'.encode()).decode()},kind eA=="
        url = peer.create(Upload_Metadata=metadata).location
        assert client.get(f"{url}/status").json["fileName"] == "größe.tif"

    def test_metadata_that_can_not_be_read(self, peer):
        problem(peer.create(Upload_Metadata="filename ***"), 400, "invalid_request")

    def test_upload_complete_is_needed(self, peer):
        members = problem(peer.send("POST", "/uploads"), 400, "invalid_request")
        assert "Upload-Complete" in members["detail"]

    def test_extensions_are_checked(self, make_host, folder):
        peer = Peer(make_host(allowed_extensions=["tif"]).test_client())
        problem(peer.create(Content_Disposition="inline; filename=a.exe"), 415, "unsupported_type")
        assert peer.create(Content_Disposition="inline; filename=a.tif").status_code == 201
        assert len(uids(folder)) == 1

    @pytest.mark.parametrize(
        "headers",
        [
            {"Upload_Length": "11"},
            {"data": b"x" * 11},
            {"data": b"x" * 11, "complete": "?1"},
            {"data": b"x" * 11, "chunked": True},
        ],
    )
    def test_one_that_is_too_large(self, make_host, folder, headers):
        peer = Peer(make_host(max_file_size=10).test_client())
        answer = peer.create(**headers)
        problem(answer, 413, "too_large")
        assert Limits.parse(answer.headers["Upload-Limit"]).max_size == 10
        assert uids(folder) == []

    def test_a_coding_is_refused(self, peer, folder):
        problem(peer.create(b"x", Content_Encoding="gzip"), 415, "unsupported_type")
        assert uids(folder) == []

    def test_nobody_may(self, client, folder):
        problem(Peer(client, **{"X-Role": "none"}).create(), 403, "forbidden")
        assert uids(folder) == []

    @pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
    def test_other_methods(self, client, method):
        answer = client.open("/uploads", method=method, headers={"Upload-Complete": "?1"})
        problem(answer, 405, "method_not_allowed")
        assert "POST" in answer.headers["Allow"]


class TestLooking:
    def test_what_is_said(self, peer):
        answer = peer.look(peer.create(b"hello", Upload_Length="9").location)
        assert answer.status_code == 204
        assert where(answer) == (5, False, 9)
        assert answer.headers["Cache-Control"] == "no-store"
        assert standing(answer).limits.max_size == 16 << 30
        assert answer.data == b""

    def test_a_client_of_the_final_standard_sends_nothing_by_which_to_know_it(self, peer, client):
        url = peer.create(b"hello", Upload_Length="9").location
        answer = client.head(url)
        assert answer.status_code == 204
        assert where(answer) == (5, False, 9)
        assert answer.headers["Cache-Control"] == "no-store"

    def test_a_finished_one(self, peer):
        answer = peer.look(peer.create(b"hello", "?1").location)
        assert (answer.status_code, where(answer)) == (204, (5, True, 5))

    def test_get_says_the_same(self, peer):
        url = peer.create(b"hel").location
        answer = peer.send("GET", url)
        assert (answer.status_code, where(answer), answer.data) == (204, (3, False, -1), b"")
        peer.append(url, 3, b"lo", "?1")
        with peer.send("GET", url) as answer:
            assert (answer.status_code, where(answer), answer.data) == (200, (5, True, 5), b"hello")

    @pytest.mark.parametrize(
        ("name", "value"), [("Upload-Offset", "0"), ("Upload-Complete", "?0"), ("Upload-Length", "5")]
    )
    def test_a_question_has_no_answer_in_it(self, peer, name, value):
        url = peer.create().location
        assert peer.send("HEAD", url, **{name: value}).status_code == 400

    def test_one_that_is_not_there(self, peer):
        answer = peer.look("/uploads/" + "0" * 32)
        assert answer.status_code == 404
        assert "Upload-Offset" not in answer.headers

    def test_one_of_somebody_else(self, client):
        url = Peer(client, **{"X-User": "a"}).create(b"x").location
        assert Peer(client, **{"X-User": "b"}).look(url).status_code == 404
        assert Peer(client, **{"X-User": "a"}).look(url).status_code == 204

    def test_nobody_may(self, peer):
        url = peer.create().location
        assert peer.send("HEAD", url, **{"X-Role": "none"}).status_code == 403

    def test_a_wrong_file_is_found_out_after_a_crash(self, host, peer, monkeypatch):
        url = peer.create(Repr_Digest=digest(b"hello")).location

        def die(uid, **_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(host.extensions["upload_helper"].service, "_finish", die)
            peer.append(url, 0, b"other", "?1")
        assert peer.look(url).status_code == 422
        assert peer.look(url).status_code == 404

    def test_one_that_comes_in_chunks(self, client, peer):
        query = "fileName=a&totalSize=4&chunkCount=2&chunkNumber=0"
        uid = client.post(f"/uploads?{query}", data=b"ab", content_type="application/octet-stream").json["uploadUid"]
        assert peer.look(f"/uploads/{uid}").status_code == 409
        problem(peer.append(f"/uploads/{uid}", 2, b"cd", "?1"), 409, "incomplete")


class TestAppending:
    def test_part_by_part(self, peer, client):
        url = peer.create(b"ab", Upload_Length="7").location
        answer = peer.append(url, 2, b"cd")
        assert (answer.status_code, where(answer)) == (204, (4, False, -1))
        assert standing(answer).limits is not None
        answer = peer.append(url, 4, b"ef", chunked=True)
        assert (answer.status_code, where(answer)) == (204, (6, False, -1))
        answer = peer.append(url, 6, b"g", "?1")
        assert (answer.status_code, where(answer)) == (201, (7, True, -1))
        assert answer.location == url
        assert answer.json["url"] == url
        assert contents(client, url) == b"abcdefg"

    @pytest.mark.parametrize("complete", ["?0", "?1"])
    @pytest.mark.parametrize("offset", [0, 4, 6, 10**15 - 1])
    def test_at_another_offset(self, peer, offset, complete):
        url = peer.create(b"hello", Upload_Length="9").location
        answer = peer.append(url, offset, b"x", complete)
        members = problem(answer, 409, "offset_mismatch")
        assert members["type"] == MISMATCHING_OFFSET
        assert (members["expected-offset"], members["provided-offset"]) == (5, offset)
        assert members["remedy"]
        assert where(answer) == (5, False, -1)
        assert where(peer.look(url)) == (5, False, 9)

    @pytest.mark.parametrize(("offset", "data"), [(5, b"x"), (4, b"o"), (0, b""), (9, b"")])
    def test_to_a_complete_one(self, peer, client, offset, data):
        url = peer.create(b"hello", "?1").location
        for complete in ("?0", "?1"):
            answer = peer.append(url, offset, data, complete)
            assert answer.status_code == 409
            assert answer.json["type"] in (COMPLETED, MISMATCHING_OFFSET)
            assert where(answer) == (5, False, -1)
        assert contents(client, url) == b"hello"

    def test_the_problem_of_a_complete_one(self, peer):
        url = peer.create(b"hello", "?1").location
        assert problem(peer.append(url, 5, b""), 409, "finished")["type"] == COMPLETED

    def test_a_lost_answer_is_given_again(self, peer, client):
        url = peer.create(b"hello").location
        first, second = (peer.append(url, 5, b"", "?1") for _ in range(2))
        assert (
            (second.status_code, second.json)
            == (first.status_code, first.json)
            == (201, {"uploadUid": url.rpartition("/")[2], "url": url})
        )
        assert where(first) == where(second) == (5, True, -1)
        problem(peer.append(url, 5, b"x", "?1", chunked=True), 409, "finished")
        problem(peer.append(url, 5, b"", "?1", **{"X-Role": "none"}), 403, "forbidden")

    def test_no_answer_was_lost_at_another_offset(self, peer):
        url = peer.create(b"hello", "?1").location
        problem(peer.append(url, 0, b"", "?1", chunked=True), 409, "finished")

    def test_a_file_that_was_put_together_from_parts(self, peer, client):
        headers = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}
        part = client.post(
            "/uploads", data=b"hello", headers=headers | {"Upload-Concat": "partial", "Upload-Length": "5"}
        )
        url = client.post("/uploads", headers=headers | {"Upload-Concat": f"final;{part.location}"}).location
        assert where(peer.look(url)) == (5, True, 5)
        problem(peer.append(url, 5, b"x"), 409, "finished")
        problem(peer.append(url, 5, b"", "?1", **{"X-Role": "none"}), 403, "forbidden")
        assert peer.append(url, 5, b"", "?1").status_code == 201

    def test_what_arrived_of_a_cut_body_is_kept(self, peer, client):
        url = peer.create(Upload_Length="5").location
        answer = peer.append(url, 0, b"hel", "?1", Content_Length="5")
        problem(answer, 400, "body_cut")
        assert where(answer) == (3, False, -1)
        assert where(peer.look(url)) == (3, False, 5)
        assert peer.append(url, 3, b"lo", "?1").status_code == 201
        assert contents(client, url) == b"hello"

    @pytest.mark.parametrize("length", ["4", "6"])
    def test_another_length_than_before(self, peer, length):
        url = peer.create(b"he", Upload_Length="5").location
        answer = peer.append(url, 2, b"l", Upload_Length=length)
        assert problem(answer, 400, "length_mismatch")["type"] == INCONSISTENT_LENGTH
        assert where(answer) == (2, False, -1)
        assert where(peer.look(url)) == (2, False, 5)

    @pytest.mark.parametrize("chunked", [False, True])
    def test_the_last_part_is_too_short(self, peer, chunked):
        url = peer.create(b"he", Upload_Length="5").location
        answer = peer.append(url, 2, b"l", "?1", chunked=chunked)
        assert problem(answer, 400, "length_mismatch")["type"] == INCONSISTENT_LENGTH
        assert standing(answer).offset == (3 if chunked else 2)
        assert standing(peer.look(url)).complete is False

    @pytest.mark.parametrize("data", [b"llo!", b"x" * 600_000])
    def test_more_than_the_file_has_makes_the_upload_invalid(self, peer, folder, data):
        # Section 4.4.2: once the offset exceeds the length.
        for chunked in (True, False):
            url = peer.create(b"he", Upload_Length="5").location
            answer = peer.append(url, 2, data, chunked=chunked)
            assert problem(answer, 400, "length_mismatch")["type"] == INCONSISTENT_LENGTH
            assert where(answer) == (None, True, -1)
            assert peer.look(url).status_code == 404
        assert uids(folder) == []

    def test_more_than_the_file_has_at_a_wrong_offset_is_a_wrong_offset(self, peer):
        url = peer.create(b"he", Upload_Length="5").location
        for chunked in (True, False):
            problem(peer.append(url, 3, b"x" * 99, chunked=chunked), 409, "offset_mismatch")
        assert where(peer.look(url)) == (2, False, 5)

    def test_more_than_any_file_may_have(self, make_host):
        peer = Peer(make_host(max_file_size=10).test_client())
        url = peer.create(b"12345").location
        answer = peer.append(url, 5, b"x" * 6, chunked=True)
        problem(answer, 413, "too_large")
        assert Limits.parse(answer.headers["Upload-Limit"]).max_size == 10
        assert peer.append(url, standing(peer.look(url)).offset, b"", "?1").status_code == 201

    @pytest.mark.parametrize("kind", ["application/octet-stream", "application/offset+octet-stream", None])
    def test_content_of_another_type(self, peer, kind):
        url = peer.create().location
        answer = peer.append(url, 0, b"x", Content_Type=kind)
        problem(answer, 415, "unsupported_type")
        assert answer.headers["Accept-Patch"] == PARTIAL

    @pytest.mark.parametrize(
        "headers",
        [
            {"Upload_Offset": None},
            {"Upload_Offset": "-1"},
            {"Upload_Complete": None},
            {"Upload_Complete": "yes"},
            {"Content_Digest": "sha-256=:AA==:"},
        ],
    )
    def test_headers_that_are_not_as_they_must_be(self, peer, headers):
        url = peer.create().location
        problem(peer.append(url, 0, b"x", **headers), 400, "invalid_request")
        assert where(peer.look(url)) == (0, False, -1)

    def test_nobody_may(self, peer):
        url = peer.create().location
        answer = peer.append(url, 0, b"x", **{"X-Role": "none"})
        problem(answer, 403, "forbidden")
        assert "Upload-Offset" not in answer.headers
        assert where(peer.look(url)) == (0, False, -1)

    def test_to_one_that_is_not_there(self, peer):
        answer = peer.append("/uploads/" + "0" * 32, 0, b"x")
        problem(answer, 404, "not_found")
        assert "Upload-Offset" not in answer.headers

    def test_to_one_of_somebody_else(self, client):
        url = Peer(client, **{"X-User": "a"}).create().location
        problem(Peer(client, **{"X-User": "b"}).append(url, 0, b"x"), 404, "not_found")

    def test_without_a_version_the_type_is_enough_to_know_it(self, client):
        peer = Peer(client, version=None)
        url = peer.create().location
        problem(peer.append(url, 0, b"x", Upload_Complete=None), 400, "invalid_request")
        assert peer.append(url, 0, b"x", "?1").status_code == 201

    @pytest.mark.parametrize("method", ["POST", "PUT"])
    def test_other_methods(self, peer, method):
        answer = peer.client.open(peer.create().location, method=method, headers={"Upload-Complete": "?1"})
        problem(answer, 405, "method_not_allowed")
        assert "PATCH" in answer.headers["Allow"]

    @given(parts=strategies.files(), first=st.booleans(), tell=st.booleans())
    @settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    def test_any_file_in_any_parts(self, host, parts, first, tell):
        client = host.test_client()
        whole = b"".join(parts)
        begun, rest = (parts[0], parts[1:]) if first else (b"", parts)
        length = len(whole) if tell else -1
        url = client.post("/uploads", data=begun, headers=Creation(complete=False, length=length).build()).location
        offset = len(begun)
        for number, part in enumerate(rest, 1):
            message = Append(offset, number == len(rest), length)
            answer = client.patch(url, data=part, headers=message.build())
            offset += len(part)
            assert standing(answer).offset == offset
        if not rest:
            client.patch(url, headers=Append(offset, complete=True).build())
        assert contents(client, url) == whole


class TestDigests:
    @pytest.mark.parametrize("algorithm", ["sha-256", "sha-512"])
    def test_of_the_content(self, peer, client, algorithm):
        url = peer.create(b"he", Content_Digest=digest(b"he", algorithm)).location
        answer = peer.append(url, 2, b"xyz", "?1", Content_Digest=digest(b"llo", algorithm))
        problem(answer, 422, "checksum_mismatch")
        assert where(answer) == (2, False, -1)
        assert peer.append(url, 2, b"llo", "?1", Content_Digest=digest(b"llo", algorithm)).status_code == 201
        assert contents(client, url) == b"hello"

    @pytest.mark.parametrize("complete", ["?0", "?1"])
    @pytest.mark.parametrize("data", [b"hello", b""])
    def test_of_the_content_of_a_creation(self, peer, folder, complete, data):
        problem(peer.create(data, complete, Content_Digest=digest(b"other")), 422, "checksum_mismatch")
        assert uids(folder) == []
        assert peer.create(data, complete, Content_Digest=digest(data)).status_code == 201

    def test_of_the_file(self, peer, client):
        url = peer.create(b"he", Repr_Digest=digest(b"hello")).location
        assert peer.append(url, 2, b"llo", "?1").status_code == 201
        assert client.get(f"{url}/status").json["checksum"] == f"sha256:{hashlib.sha256(b'hello').hexdigest()}"

    @pytest.mark.parametrize("headers", [{}, {"Content_Digest": digest(b"lol")}])
    def test_of_another_file(self, peer, folder, headers):
        url = peer.create(b"he", Repr_Digest=digest(b"hello")).location
        answer = peer.append(url, 2, b"lol", "?1", **headers)
        problem(answer, 422, "checksum_mismatch")
        # All of it would have to be sent again, and no offset may decrease: so this upload is over.
        assert where(answer) == (None, True, -1)
        assert peer.look(url).status_code == 404
        assert uids(folder) == []

    def test_of_another_file_in_one_request(self, peer, folder):
        problem(peer.create(b"hello", "?1", Repr_Digest=digest(b"other")), 422, "checksum_mismatch")
        assert uids(folder) == []

    def test_file_that_came_in_one_request_is_not_read_again(self, peer, client, monkeypatch):
        read = []
        monkeypatch.setattr(
            "upload_helper.stores.finishing.hashlib.file_digest", lambda *_: read.append(1) or hashlib.md5()
        )
        url = peer.create(b"hello", "?1", Repr_Digest=digest(b"hello")).location
        assert client.get(f"{url}/status").json["checksum"] == f"sha256:{hashlib.sha256(b'hello').hexdigest()}"
        assert read == []
        # One that came in two has not passed by anybody as a whole.
        url = peer.create(b"he", Repr_Digest=digest(b"hello")).location
        problem(peer.append(url, 2, b"llo", "?1"), 422, "checksum_mismatch")
        problem(peer.create(b"hello", "?1", Repr_Digest=digest(b"other")), 422, "checksum_mismatch")
        assert read == [1, 1]

    def test_unknown_ones_are_ignored(self, peer):
        assert peer.create(b"x", "?1", Content_Digest="md5=:AAAA:", Repr_Digest="unixsum=5").status_code == 201


class TestCancelling:
    @pytest.mark.parametrize("complete", ["?0", "?1"])
    def test_it_is_gone(self, peer, folder, complete):
        url = peer.create(b"hello", complete).location
        assert peer.send("DELETE", url).status_code == 204
        assert peer.look(url).status_code == 404
        assert uids(folder) == []
        problem(peer.send("DELETE", url), 404, "not_found")

    def test_of_somebody_else(self, client):
        url = Peer(client, **{"X-User": "a"}).create().location
        problem(Peer(client, **{"X-User": "b"}).send("DELETE", url), 404, "not_found")


class TestLimits:
    @pytest.mark.parametrize("path", ["/uploads", "/uploads/" + "0" * 32])
    def test_options_names_them(self, make_host, path):
        client = make_host(max_file_size=1000, expiry=60).test_client()
        answer = client.options(path)
        assert answer.status_code in (200, 204)
        limits = Limits.parse(answer.headers["Upload-Limit"])
        assert (limits.max_size, limits.min_size) == (1000, 0)
        assert 58 <= limits.max_age <= 60

    def test_without_expiry(self, make_host):
        client = make_host(expiry=0).test_client()
        assert Limits.parse(client.options("/uploads").headers["Upload-Limit"]).max_age is None
        assert standing(Peer(client).create()).limits.max_age is None

    def test_for_old_clients(self, client):
        old, new = (Peer(client, version).create().headers["Upload-Limit"] for version in (6, 7))
        assert "expires=" in old
        assert "max-age=" not in old
        assert "max-age=" in new


class TestVersions:
    @pytest.mark.parametrize("version", [5, 6, 7, 8, None])
    def test_these_are_spoken(self, client, version):
        peer = Peer(client, version)
        url = peer.create(Upload_Length="5").location
        assert where(peer.look(url)) == (0, False, 5)
        assert standing(peer.append(url, 0, b"he")).offset == 2
        done = peer.append(url, 2, b"llo", "?1")
        assert where(done)[0] == 5
        assert where(done)[1] is True
        assert contents(client, url) == b"hello"

    def test_as_tus_js_client_speaks_version_5(self, client):
        peer = Peer(client, 5)
        url = peer.create(Upload_Length="5").location
        answer = peer.append(url, 0, b"he", Content_Type=None)
        assert standing(answer).offset == 2
        assert standing(peer.append(url, 2, b"llo", "?1", Content_Type=None)).offset == 5
        assert contents(client, url) == b"hello"

    def test_as_tus_js_client_ends_a_stream_of_unknown_length(self, client):
        # With an empty request that says nothing but the length.
        peer = Peer(client, 6)
        url = peer.create(Upload_Defer_Length="1").location
        assert standing(peer.append(url, 0, b"hello")).offset == 5
        answer = peer.append(url, 5, b"", Upload_Complete=None, Upload_Length="5")
        assert where(answer) == (5, True, -1)
        assert contents(client, url) == b"hello"

    @pytest.mark.parametrize(("version", "complete"), [(5, True), (6, True), (7, False), (8, False), (None, False)])
    def test_as_tus_js_client_sends_an_empty_file(self, client, version, complete):
        peer = Peer(client, version)
        answer = peer.create(Upload_Length="0")
        assert where(answer) == (0, complete, -1)
        # What the draft demands comes to the same.
        assert where(peer.append(answer.location, 0, b"", "?1")) == (0, True, -1)
        assert contents(client, answer.location) == b""

    @pytest.mark.parametrize("version", [3, 4, 9])
    def test_others_are_not(self, client, version, folder):
        url = Peer(client).create().location
        peer = Peer(client, version)
        for answer in (peer.create(b"x"), peer.append(url, 0, b"x"), peer.send("DELETE", url)):
            members = problem(answer, 412, "unsupported_version")
            assert "8" in members["remedy"]
            assert answer.headers["Upload-Draft-Interop-Version"] == "8"
        assert peer.look(url).status_code == 412
        assert where(Peer(client).look(url)) == (0, False, -1)
        assert len(uids(folder)) == 1

    @pytest.mark.parametrize("headers", [{"Upload_Complete": "?1"}, {"Upload_Incomplete": "?0"}])
    def test_a_whole_file_is_taken_from_any(self, client, headers):
        answer = Peer(client, 3).send("POST", "/uploads", b"hello", **headers)
        assert answer.status_code == 201
        assert contents(client, answer.location) == b"hello"


class TestNeighbours:
    """Where other protocols begin."""

    def test_a_form_that_a_library_has_upgraded(self, client):
        form = {"file": (io.BytesIO(b"hello"), "a.txt")}
        answer = client.post("/uploads", data=form, headers=Creation(complete=True).build())
        assert answer.status_code == 200
        assert contents(client, answer.json["url"]) == b"hello"

    def test_a_chunk_that_a_library_has_upgraded(self, client):
        query = "fileName=a&totalSize=5&chunkCount=1&chunkNumber=0"
        answer = client.post(
            f"/uploads?{query}",
            data=b"hello",
            content_type="application/octet-stream",
            headers=Creation(complete=True).build(),
        )
        assert answer.status_code == 200
        assert contents(client, f"/uploads/{answer.json['uploadUid']}") == b"hello"

    def test_a_part_of_a_form_is_no_part_of_a_file(self, peer, folder):
        problem(peer.create(b"--x\r\n", Content_Type="multipart/form-data; boundary=x"), 415, "unsupported_type")
        assert uids(folder) == []

    @pytest.mark.parametrize(
        ("method", "headers", "uid", "spoken"),
        [
            ("POST", {"Upload-Complete": "?0"}, None, True),
            ("POST", {"Upload-Draft-Interop-Version": "8"}, None, True),
            ("POST", {"Upload-Length": "5"}, None, False),
            ("POST", {"Upload-Complete": "?0", "Tus-Resumable": "1.0.0"}, None, False),
            ("GET", {"Upload-Draft-Interop-Version": "8"}, None, False),
            ("PATCH", {"Content-Type": f"{PARTIAL}; x=y"}, "0" * 32, True),
            ("PATCH", {"Content-Type": "application/offset+octet-stream"}, "0" * 32, False),
            ("POST", {"Content-Type": PARTIAL}, "0" * 32, False),
            ("HEAD", {}, "0" * 32, False),
            ("HEAD", {"Upload-Draft-Interop-Version": "6"}, "0" * 32, True),
        ],
    )
    def test_whom_is_spoken_to(self, host, method, headers, uid, spoken):
        with host.test_request_context(method=method, headers=headers):
            assert rufh.speaks(request, uid) is spoken

    def test_tus_goes_first(self, client):
        headers = {"Tus-Resumable": "1.0.0", "Upload-Length": "5", "Upload-Complete": "?0"}
        answer = client.post("/uploads", headers=headers)
        assert answer.status_code == 201
        assert answer.headers["Tus-Resumable"] == "1.0.0"
        assert "Upload-Complete" not in answer.headers

    def test_the_list_is_no_upload(self, client):
        answer = client.get("/uploads", headers={"Upload-Draft-Interop-Version": "8", "X-User": "a"})
        assert (answer.status_code, answer.json) == (200, {"uploads": []})

    def test_errors_of_others_are_no_problem_documents(self, client):
        assert client.post("/uploads", data=b"x").mimetype != PROBLEM

    def test_a_problem_whatever_the_client_accepts(self, peer):
        headers = {"Accept": "application/msgpack"}
        problem(peer.append("/uploads/" + "0" * 32, 0, b"x", **headers), 404, "not_found")

    def test_a_page_of_another_site(self, peer):
        problem(peer.create(Origin="https://elsewhere.example", **{"Sec-Fetch-Site": "cross-site"}), 403, "forbidden")


def test_the_host_sees_it_finished(host):
    seen = []
    with uh.upload_finished.connected_to(
        lambda sender, upload, **more: seen.append((upload.fileName, upload.totalSize)), host
    ):
        peer = Peer(host.test_client())
        url = peer.create(b"he", Content_Disposition="inline; filename=a.txt").location
        assert seen == []
        peer.append(url, 2, b"llo", "?1")
        peer.append(url, 5, b"", "?1")
        peer.look(url)
    assert seen == [("a.txt", 5)]


_HEADERS = [
    "Upload-Complete", "Upload-Offset", "Upload-Length", "Upload-Draft-Interop-Version", "Upload-Incomplete", "Content-Type",
    "Content-Disposition", "Content-Digest", "Repr-Digest", "Upload-Metadata", "Accept",
]  # fmt: skip
_VALUES = strategies.header_values | st.sampled_from(
    ["?0", "?1", "0", "5", "8", "6", "3", PARTIAL, digest(b"hello"), digest(b"")]
)


@given(
    method=st.sampled_from(["POST", "PATCH", "HEAD", "GET", "DELETE", "PUT", "OPTIONS"]),
    on_upload=st.booleans(),
    headers=st.dictionaries(st.sampled_from(_HEADERS), _VALUES, max_size=6),
    data=st.sampled_from([b"", b"hello"]),
)
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_request_is_an_error_of_the_server(host, method, on_upload, headers, data):
    client = host.test_client()
    url = client.post("/uploads", headers=Creation(complete=False, length=5).build()).location
    with client.open(url if on_upload else "/uploads", method=method, headers=headers, data=data) as answer:
        assert answer.status_code < 500, answer.text
    after = client.head(url, headers=Question().build())
    if after.status_code == 204:
        assert 0 <= standing(after).offset <= 5
        with client.get(url) as answer:
            assert standing(after).complete == (answer.status_code == 200)
