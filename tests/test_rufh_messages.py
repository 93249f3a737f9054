"""The messages of Resumable Uploads for HTTP, without a server: what headers say, and that both directions agree."""

from __future__ import annotations

import hashlib
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

import strategies
from upload_helper import errors
from upload_helper.protocols import disposition
from upload_helper.protocols.fields import LARGEST
from upload_helper.protocols.problems import COMPLETED, INCONSISTENT_LENGTH, MISMATCHING_OFFSET, Problem
from upload_helper.protocols.rufh import PARTIAL, VERSIONS, Append, Creation, Limits, Question, Standing
from upload_helper.upload import UNKNOWN_SIZE

sizes = st.integers(0, LARGEST)
versions = st.sampled_from([*VERSIONS, None])
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
urls = st.from_regex(r"(https://[a-z.]{1,9})?/[!-~]{0,30}", fullmatch=True)


@st.composite
def checksums(draw):
    algorithm = draw(st.sampled_from(["", "sha256", "sha512"]))
    return f"{algorithm}:{hashlib.new(algorithm, draw(st.binary(max_size=3))).hexdigest()}" if algorithm else ""


@st.composite
def lengths(draw, offset: int, complete: bool | None):
    """Return Upload-Length and Content-Length that do not contradict each other."""
    content = draw(st.none() | st.integers(0, LARGEST - offset))
    if draw(st.booleans()):
        return UNKNOWN_SIZE, content
    if content is None:
        return draw(sizes), None
    end = offset + content
    return (end if complete else draw(st.integers(end, LARGEST))), content


@st.composite
def creations(draw):
    complete = draw(st.booleans())
    length, content = draw(lengths(0, complete))
    metadata = draw(st.sampled_from(["", "filename eA==", "a,b Yg=="]))
    return Creation(
        complete, length, content, draw(texts), metadata, draw(checksums()), draw(checksums()), draw(versions)
    )


@st.composite
def appends(draw):
    version = draw(versions)
    complete = draw(st.sampled_from([True, False, None] if version in (5, 6) else [True, False]))
    offset = draw(sizes)
    length, content = draw(lengths(offset, complete))
    return Append(offset, complete, length, content, draw(checksums()), version)


limits = st.builds(Limits, st.none() | sizes, sizes, *[st.none() | sizes] * 3)
standings = st.builds(
    Standing,
    st.none() | sizes,
    st.none() | st.booleans(),
    st.just(UNKNOWN_SIZE) | sizes,
    st.none() | limits,
    st.just("") | urls,
)
requests = creations() | appends() | st.builds(Question, versions)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts, lambda inner: st.lists(inner, max_size=3), max_leaves=4
)
MEMBERS = ["type", "title", "status", "detail", "code", "remedy"]
problems = st.builds(
    Problem, texts, texts, st.integers(100, 599), texts, texts, texts,
    st.dictionaries(texts.filter(lambda name: name not in MEMBERS), json_values, max_size=3),
)  # fmt: skip


@given(message=requests)
def test_a_request_comes_back(message):
    assert type(message).parse(message.build()) == message


@given(message=requests)
def test_case_of_names_does_not_matter(message):
    headers = message.build()
    assert type(message).parse({name.upper(): value for name, value in headers.items()}) == message
    assert type(message).parse({name.lower(): value for name, value in headers.items()}) == message


@given(message=standings, version=versions)
def test_an_answer_comes_back_to_a_client_of_any_version(message, version):
    assert Standing.parse(message.build(version)) == message


@given(problem=problems)
def test_a_problem_comes_back(problem):
    assert Problem.parse(problem.build()) == problem


@given(message=requests | standings)
def test_what_is_built_can_be_sent(message):
    for name, value in message.build().items():
        assert name.isascii()
        assert value.isascii()
        assert value.isprintable()


NAMES = [
    "Upload-Complete", "Upload-Incomplete", "Upload-Offset", "Upload-Length", "Upload-Limit", "Upload-Draft-Interop-Version",
    "Content-Length", "Content-Type", "Content-Disposition", "Content-Digest", "Repr-Digest", "Upload-Metadata", "Location",
]  # fmt: skip
_values = strategies.header_values | st.sampled_from([
    "?0", "?1", "8", "6", "3", PARTIAL, "sha-256=:AA==:", "sha-256=1", "sha-512", "max-size=1", "max-size=?1", "max-size=-1",
    'inline; filename="', "inline; filename*=x", "inline; filename*=utf-8''%ff",
])  # fmt: skip


@pytest.mark.parametrize("cls", [Creation, Append, Question, Standing])
@given(headers=st.dictionaries(st.sampled_from(NAMES), _values, max_size=6))
def test_any_headers_are_a_message_or_an_error(cls, headers):
    try:
        message = cls.parse(headers)
    except errors.Error as error:
        assert error.status in (400, 412, 415)
    else:
        # Content is declared by HTTP, where a length may have more digits than a structured field.
        if getattr(message, "content_length", None) is None:
            assert cls.parse(message.build()) == message or message.version not in VERSIONS


@given(members=st.dictionaries(texts | st.sampled_from(MEMBERS), json_values, max_size=8))
def test_any_object_is_a_problem(members):
    problem = Problem.parse(members)
    assert Problem.parse(problem.build()) == problem


class TestCreation:
    @pytest.mark.parametrize(
        ("headers", "complete", "total"),
        [
            ({"Upload-Complete": "?1"}, True, UNKNOWN_SIZE),
            ({"Upload-Complete": "?1", "Content-Length": "5"}, True, 5),
            ({"Upload-Complete": "?1", "Content-Length": "0"}, True, 0),
            ({"Upload-Complete": "?1", "Upload-Length": "7"}, True, 7),
            ({"Upload-Complete": "?1", "Upload-Length": "5", "Content-Length": "5"}, True, 5),
            ({"Upload-Complete": "?0", "Content-Length": "5"}, False, UNKNOWN_SIZE),
            ({"Upload-Complete": "?0", "Upload-Length": "7", "Content-Length": "5"}, False, 7),
            ({"Upload-Complete": "?0", "Upload-Length": "5", "Content-Length": "5"}, False, 5),
            ({"Upload-Complete": "?0", "Upload-Length": "-7"}, False, UNKNOWN_SIZE),
            ({"Upload-Complete": "?0", "Upload-Length": "7.0"}, False, UNKNOWN_SIZE),
            ({"Upload-Complete": "?0", "Upload-Length": "7, 8"}, False, UNKNOWN_SIZE),
        ],
    )
    def test_lengths(self, headers, complete, total):
        message = Creation.parse(headers)
        assert (message.complete, message.total_size) == (complete, total)

    @pytest.mark.parametrize(
        "headers",
        [
            {"Upload-Complete": "?1", "Upload-Length": "7", "Content-Length": "5"},
            {"Upload-Complete": "?1", "Upload-Length": "4", "Content-Length": "5"},
            {"Upload-Complete": "?0", "Upload-Length": "4", "Content-Length": "5"},
        ],
    )
    def test_lengths_that_contradict_each_other(self, headers):
        with pytest.raises(errors.LengthMismatchError):
            Creation.parse(headers)

    @pytest.mark.parametrize("value", [None, "", "1", "true", "?2", "?1, ?1"])
    def test_upload_complete_must_be_there(self, value):
        headers = {"Upload-Draft-Interop-Version": "8"} | ({} if value is None else {"Upload-Complete": value})
        with pytest.raises(errors.InvalidRequestError, match="Upload-Complete"):
            Creation.parse(headers)

    @pytest.mark.parametrize("value", ["x", "-1", "1 2", "1" * 20, "٣"])
    def test_a_content_length_that_is_none(self, value):
        with pytest.raises(errors.InvalidRequestError, match="Content-Length"):
            Creation.parse({"Upload-Complete": "?0", "Content-Length": value})

    def test_metadata_that_can_not_be_read(self):
        with pytest.raises(errors.InvalidRequestError, match="Upload-Metadata"):
            Creation.parse({"Upload-Complete": "?0", "Upload-Metadata": "filename ***"})

    def test_name_and_digests(self):
        digest = b64encode(hashlib.sha256(b"x").digest()).decode()
        message = Creation.parse({
            "Upload-Complete": "?1", "Content-Disposition": 'inline; filename="a.tif"', "Upload-Metadata": "k dg==",
            "Repr-Digest": f"sha-256=:{digest}:", "Content-Digest": f"md5=:AAAA:, sha-256=:{digest}:, sha-512=:x:"[:60 + len(digest)].rpartition(",")[0],
        })  # fmt: skip
        assert message.file_name == "a.tif"
        assert message.metadata == "k dg=="
        assert message.file_checksum == message.checksum == f"sha256:{hashlib.sha256(b'x').hexdigest()}"


class TestDigests:
    @pytest.mark.parametrize("value", ["", "md5=:AAAA:", "sha=:AA==:, unixsum=5", "crc32c=:AAAAAA==:"])
    def test_unknown_algorithms_are_ignored(self, value):
        assert Creation.parse({"Upload-Complete": "?1", "Content-Digest": value}).checksum == ""

    def test_sha_512_is_taken_where_it_is_all_there_is(self):
        digest = hashlib.sha512(b"x")
        value = f"sha-512=:{b64encode(digest.digest()).decode()}:"
        message = Append.parse(
            {"Upload-Complete": "?1", "Upload-Offset": "0", "Content-Type": PARTIAL, "Content-Digest": value}
        )
        assert message.checksum == f"sha512:{digest.hexdigest()}"

    @pytest.mark.parametrize("name", ["Content-Digest", "Repr-Digest"])
    @pytest.mark.parametrize(
        "value",
        ["sha-256=:AAAA:", "sha-256=abc", "sha-256", "sha-256=:A*:", "sha-256=", "SHA-256=:AAAA:", "sha-512=::"],
    )
    def test_one_that_can_not_be_verified_is_refused(self, name, value):
        with pytest.raises(errors.InvalidRequestError):
            Creation.parse({"Upload-Complete": "?1", name: value})

    def test_only_known_ones_are_built(self):
        with pytest.raises(errors.InvalidRequestError):
            Creation(complete=True, checksum="md5:00").build()


class TestAppend:
    HEADERS = {"Upload-Complete": "?0", "Upload-Offset": "10", "Content-Type": PARTIAL, "Content-Length": "5"}  # noqa: RUF012

    @pytest.mark.parametrize(
        ("more", "complete", "total"),
        [
            ({}, False, UNKNOWN_SIZE),
            ({"Upload-Length": "99"}, False, 99),
            ({"Upload-Complete": "?1"}, True, 15),
            ({"Upload-Complete": "?1", "Upload-Length": "15"}, True, 15),
            ({"Upload-Complete": "?1", "Content-Length": ""}, True, UNKNOWN_SIZE),
            ({"Content-Type": "Application/Partial-Upload; x=y"}, False, UNKNOWN_SIZE),
        ],
    )
    def test_what_is_read(self, more, complete, total):
        message = Append.parse(self.HEADERS | more)
        assert (message.offset, message.complete, message.total_size) == (10, complete, total)

    @pytest.mark.parametrize("length", ["14", "16", "0"])
    def test_lengths_that_contradict_each_other(self, length):
        with pytest.raises(errors.LengthMismatchError):
            Append.parse(self.HEADERS | {"Upload-Complete": "?1", "Upload-Length": length})

    @pytest.mark.parametrize("offset", ["", "-1", "x", "1.0", "1, 2", "9" * 16, "?1"])
    def test_an_offset_must_be_there(self, offset):
        with pytest.raises(errors.InvalidRequestError, match="Upload-Offset"):
            Append.parse(self.HEADERS | {"Upload-Offset": offset})

    @pytest.mark.parametrize("kind", ["", "application/octet-stream", "application/offset+octet-stream", "x" * 900])
    @pytest.mark.parametrize("version", [None, "6", "7", "8"])
    def test_content_of_another_type(self, kind, version):
        headers = self.HEADERS | {"Content-Type": kind} | ({"Upload-Draft-Interop-Version": version} if version else {})
        with pytest.raises(errors.UnsupportedTypeError):
            Append.parse(headers)

    def test_version_5_had_no_type(self):
        headers = {name: value for name, value in self.HEADERS.items() if name != "Content-Type"}
        assert Append.parse(headers | {"Upload-Draft-Interop-Version": "5"}).offset == 10

    @pytest.mark.parametrize(
        ("version", "taken"), [("5", True), ("6", True), ("7", False), ("8", False), (None, False)]
    )
    def test_only_old_clients_may_leave_open_whether_they_are_complete(self, version, taken):
        headers = (
            self.HEADERS | {"Upload-Complete": "maybe"} | ({"Upload-Draft-Interop-Version": version} if version else {})
        )
        if taken:
            assert Append.parse(headers).complete is None
        else:
            with pytest.raises(errors.InvalidRequestError, match="Upload-Complete"):
                Append.parse(headers)


class TestVersions:
    @pytest.mark.parametrize("version", ["2", "3", "4", "9", "-1", "0"])
    @pytest.mark.parametrize(
        ("cls", "headers"),
        [
            (Append, TestAppend.HEADERS),
            (Question, {}),
            (Creation, {"Upload-Complete": "?0"}),
            (Creation, {"Upload-Incomplete": "?1"}),
            (Creation, {}),
        ],
    )
    def test_others_are_refused(self, cls, headers, version):
        with pytest.raises(errors.UnsupportedVersionError, match=version) as caught:
            cls.parse({**headers, "Upload-Draft-Interop-Version": version})
        assert "5, 6, 7, 8" in caught.value.remedy

    @pytest.mark.parametrize("headers", [{"Upload-Complete": "?1"}, {"Upload-Incomplete": "?0"}])
    def test_a_whole_file_is_taken_from_any(self, headers):
        message = Creation.parse({**headers, "Upload-Draft-Interop-Version": "3", "Content-Length": "4"})
        assert (message.complete, message.total_size) == (True, 4)

    def test_upload_incomplete_means_nothing_to_a_known_version(self):
        with pytest.raises(errors.InvalidRequestError, match="Upload-Complete"):
            Creation.parse({"Upload-Incomplete": "?0", "Upload-Draft-Interop-Version": "8"})

    @pytest.mark.parametrize("version", ["eight", "8.0", "?1", "8, 8"])
    def test_what_is_no_version_is_none(self, version):
        assert Question.parse({"Upload-Draft-Interop-Version": version}).version is None


@pytest.mark.parametrize("name", ["Upload-Offset", "Upload-Complete", "Upload-Length"])
def test_a_question_has_no_answer_in_it(name):
    with pytest.raises(errors.InvalidRequestError, match=name):
        Question.parse({name: "?1"})


class TestLimits:
    def test_there_is_always_one(self):
        assert Limits().build() == "min-size=0"

    def test_all_of_them(self):
        text = "max-size=1, min-size=2, max-append-size=3, min-append-size=4, max-age=5"
        assert Limits(1, 2, 3, 4, 5).build() == Limits(1, 2, 3, 4, 5).build(None) == text
        assert Limits(1, 2, 3, 4, 5).build(6) == text.replace("max-age", "expires")

    def test_one_that_no_field_can_have(self):
        assert Limits(max_size=2**62).build() == f"max-size={LARGEST}, min-size=0"

    @pytest.mark.parametrize(
        "text",
        [
            "max-size=?1",
            "max-size",
            "max-size=1.5",
            "max-age=:AA==:",
            "min-size=-1",
            "expires=x",
            "max-size=1,",
            "max-size=(1)",
        ],
    )
    def test_a_member_of_another_type_spoils_all(self, text):
        assert Limits.parse(text) is None
        assert Standing.parse({"Upload-Limit": text, "Upload-Offset": "1"}) == Standing(offset=1)

    def test_unknown_members_are_ignored(self):
        assert Limits.parse('max-size=1, max-beauty="x, y", max-age=2;a') == Limits(max_size=1, max_age=2)


@pytest.mark.parametrize(
    "headers",
    [
        {"Upload-Offset": "-1"},
        {"Upload-Offset": "x"},
        {"Upload-Complete": "1"},
        {"Upload-Length": "1.5"},
        {"Upload-Length": "-1"},
    ],
)
def test_an_answer_ignores_what_it_can_not_be(headers):
    assert Standing.parse(headers) == Standing()


class TestProblem:
    def test_of_an_offset(self):
        problem = Problem.of(errors.OffsetMismatchError(100, 200).as_json(), 409)
        document = problem.build()
        assert document["type"] == MISMATCHING_OFFSET
        assert (document["expected-offset"], document["provided-offset"]) == (100, 200)
        assert document["status"] == 409
        assert document["code"] == "offset_mismatch"
        assert "100" in document["detail"]
        assert "HEAD" in document["remedy"]
        assert "expected" not in document

    @pytest.mark.parametrize(
        ("error", "kind"),
        [(errors.LengthMismatchError("x"), INCONSISTENT_LENGTH), (errors.FinishedError("x"), COMPLETED)],
    )
    def test_of_the_other_types(self, error, kind):
        assert Problem.of(error.as_json(), error.status).type == kind

    def test_of_any_other_error(self):
        problem = Problem.of(errors.NotFoundError(where="here").as_json(), 404)
        assert (problem.type, problem.title, problem.status) == ("about:blank", "Not Found", 404)
        assert problem.extensions == {"where": "here"}
        assert Problem.of({}, 299).title == "Error"

    def test_data_can_not_take_the_place_of_a_member(self):
        assert Problem.of({"error": "x", "status": 1, "type": "y"}, 404).build()["status"] == 404


class TestDisposition:
    @pytest.mark.parametrize(
        ("header", "name"),
        [
            ("", ""),
            ("inline", ""),
            ("inline;", ""),
            ("attachment; filename=a.tif", "a.tif"),
            ('attachment; filename="a b.tif"', "a b.tif"),
            ('INLINE;FILENAME="a.tif"', "a.tif"),
            ("inline ;\tfilename = a.tif ; x=y", "a.tif"),
            ("attachment; filename=a b.tif", "a b.tif"),
            (r'inline; filename="a\"b\\c;d.tif"; size=5', 'a"b\\c;d.tif'),
            ('inline; x="; filename=no"; filename=yes', "yes"),
            ("inline; filename=a; filename=b", "a"),
            ("inline; filename*=UTF-8''%e2%82%ac%20x.tif", "€ x.tif"),
            ("inline; filename*=utf-8'de'a.tif", "a.tif"),
            ("inline; filename*=ISO-8859-1''%e9", "é"),
            ('inline; filename="fallback"; filename*=UTF-8\'\'%c3%a9', "é"),
            ("inline; filename*=UTF-8''%c3%a9; filename=fallback", "é"),
            ("inline; filename*=UTF-8''%ff; filename=fallback", "fallback"),
            ("inline; filename*=koi8-r''%c1; filename=fallback", "fallback"),
            ("inline; filename*=nonsense; filename=fallback", "fallback"),
            ('inline; filename="größe.tif"'.encode().decode("latin-1"), "größe.tif"),
            ('inline; filename="größe.tif"', "größe.tif"),
            ('inline; filename="日本"', "日本"),
            ('inline; filename="never closed', ""),
            ('inline; filename="a"b; filename*=UTF-8\'\'x', ""),
            ("filename=a", ""),
            ("inline; =x; filename=a", ""),
        ],
    )  # fmt: skip
    def test_the_file_name(self, header, name):
        assert disposition.file_name(header) == name

    @given(name=texts | strategies.names)
    def test_it_comes_back(self, name):
        assert disposition.file_name(disposition.with_file_name(name)) == name

    @given(
        header=strategies.header_values
        | st.text(alphabet="inle;*=\"\\'%aé ", max_size=30).map("inline; filename".__add__)
    )
    def test_any_header_has_one_or_none(self, header):
        assert isinstance(disposition.file_name(header), str)

    @pytest.mark.parametrize(
        "header",
        [';a="' + "\\\\" * 30_000, ";a=b" * 20_000, "; " * 30_000, ";a=" + " " * 50_000 + '"', ";" + " " * 50_000],
        ids=lambda text: repr(text[:6]),
    )
    def test_a_long_one_takes_no_long_time(self, header):
        assert disposition.file_name(header) == ""
