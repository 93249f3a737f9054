"""What the headers of tus mean, without a server: read, written, and refused."""

from __future__ import annotations

import base64
import hashlib
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from strategies import header_values, texts
from upload_helper import Error
from upload_helper.errors import (
    InvalidRequestError,
    LengthMismatchError,
    TooLargeError,
    UnsupportedTypeError,
    UnsupportedVersionError,
)
from upload_helper.protocols.chunked import CHECKSUM_ALGORITHMS
from upload_helper.protocols.metadata import LONGEST, file_name, read_metadata, read_texts, write_metadata
from upload_helper.protocols.tus import (
    LONGEST_CONCAT,
    OFFSET_TYPE,
    Abilities,
    Append,
    Appended,
    Created,
    Creation,
    Question,
    Standing,
    write_concat,
)
from upload_helper.upload import LARGEST_INTEGER, UNKNOWN_SIZE

TUS = {"Tus-Resumable": "1.0.0"}
PATCH = {**TUS, "Content-Type": OFFSET_TYPE, "Upload-Offset": "3"}
SHA1 = "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0="
SHA1_HEX = "sha1:2aae6c35c94fcfb415dbe95f408b9ce91ee846ed"
MESSAGES = [Creation, Created, Append, Appended, Question, Standing, Abilities]


def b64(data: bytes | str) -> str:
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


# -- tables of cases

CREATIONS = [
    ({"Upload-Length": "100"}, Creation(100)),
    ({"Upload-Length": "0"}, Creation(0)),
    ({"Upload-Length": "007"}, Creation(7)),
    ({"Upload-Length": str(LARGEST_INTEGER)}, Creation(LARGEST_INTEGER)),
    ({"upload-length": " 5\t"}, Creation(5)),
    ({"Upload-Defer-Length": "1"}, Creation()),
    ({"Upload-Length": "1", "Upload-Metadata": ""}, Creation(1)),
    ({"Upload-Length": "1", "Upload-Metadata": "filename d29y,is_confidential"},
     Creation(1, "filename d29y,is_confidential")),
    ({"Upload-Length": "1", "Upload-Concat": "partial"}, Creation(1, concat="partial")),
    ({"Upload-Defer-Length": "1", "Upload-Concat": "partial"}, Creation(concat="partial")),
    ({"Upload-Concat": "final;/files/a /files/b"}, Creation(concat="final;/files/a /files/b")),
    ({"Upload-Concat": "final;  /a   http://b/c "}, Creation(concat="final;  /a   http://b/c")),
    ({"Upload-Length": "1", "Content-Type": OFFSET_TYPE}, Creation(1, with_upload=True)),
    ({"Upload-Length": "1", "Content-Type": "Application/Offset+Octet-Stream; x=1"}, Creation(1, with_upload=True)),
    ({"Upload-Length": "1", "Content-Type": "text/plain"}, Creation(1)),
    ({"Upload-Length": "1", "Content-Type": OFFSET_TYPE, "Upload-Checksum": SHA1},
     Creation(1, with_upload=True, checksum=SHA1_HEX)),
]  # fmt: skip


@pytest.mark.parametrize(("headers", "message"), CREATIONS)
def test_creation_is_read(headers, message):
    assert Creation.parse({**TUS, **headers}) == message


@pytest.mark.parametrize(
    ("headers", "error", "named"),
    [
        ({}, InvalidRequestError, "Upload-Length"),
        ({"Upload-Length": "1", "Upload-Defer-Length": "1"}, InvalidRequestError, "contradict"),
        ({"Upload-Defer-Length": "0"}, InvalidRequestError, "'0'"),
        ({"Upload-Defer-Length": "1, 1"}, InvalidRequestError, "'1, 1'"),
        ({"Upload-Defer-Length": ""}, InvalidRequestError, "Upload-Defer-Length"),
        ({"Upload-Length": "5", "Upload-Defer-Length": "2"}, InvalidRequestError, "'2'"),
        ({"Upload-Length": str(LARGEST_INTEGER + 1)}, TooLargeError, "Upload-Length"),
        ({"Upload-Length": "9" * 5000}, TooLargeError, "Upload-Length"),
        ({"Upload-Length": "1", "Upload-Concat": "final;/a"}, InvalidRequestError, "sum"),
        ({"Upload-Defer-Length": "1", "Upload-Concat": "final;/a"}, InvalidRequestError, "sum"),
        ({"Upload-Concat": "final;"}, InvalidRequestError, "Upload-Concat"),
        ({"Upload-Concat": "final;   "}, InvalidRequestError, "Upload-Concat"),
        ({"Upload-Concat": "final /a"}, InvalidRequestError, "Upload-Concat"),
        ({"Upload-Concat": "final;/a\r\nSet-Cookie: x"}, InvalidRequestError, "Upload-Concat"),
        ({"Upload-Concat": "final;/é"}, InvalidRequestError, "Upload-Concat"),
        ({"Upload-Concat": "final;" + "/a " * LONGEST_CONCAT}, InvalidRequestError, str(LONGEST_CONCAT)),
        ({"Upload-Length": "1", "Upload-Concat": "partial, partial"}, InvalidRequestError, "Upload-Concat"),
        ({"Upload-Length": "1", "Upload-Concat": "Partial"}, InvalidRequestError, "Upload-Concat"),
        ({"Upload-Length": "1", "Upload-Concat": ""}, InvalidRequestError, "Upload-Concat"),
        ({"Upload-Length": "1", "Upload-Checksum": "sha1"}, InvalidRequestError, "Upload-Checksum"),
        ({"Upload-Length": "1", "Upload-Metadata": "a,a"}, InvalidRequestError, "twice"),
    ],
)
def test_creation_is_refused(headers, error, named):
    with pytest.raises(error, match=named):
        Creation.parse({**TUS, **headers})


NUMBERS = ["", " ", "-1", "+1", "1.0", "1e3", "0x1", "1_0", "1 0", "0, 0", "0,0", "１", "٣", "²", "NaN", "5\n", "\x005"]


@pytest.mark.parametrize("text", NUMBERS)
def test_number_is_of_ascii_digits_only(text):
    with pytest.raises(InvalidRequestError, match="Upload-Length"):
        Creation.parse({**TUS, "Upload-Length": text})
    with pytest.raises(InvalidRequestError, match="Upload-Offset"):
        Append.parse({**PATCH, "Upload-Offset": text})
    with pytest.raises(InvalidRequestError, match="Upload-Offset"):
        Standing.parse({**TUS, "Upload-Offset": text})


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, Append(3)),
        ({"Upload-Offset": "0"}, Append(0)),
        ({"Upload-Offset": str(LARGEST_INTEGER)}, Append(LARGEST_INTEGER)),
        ({"Upload-Length": "3"}, Append(3, 3)),
        ({"Upload-Checksum": SHA1}, Append(3, checksum=SHA1_HEX)),
        ({"Upload-Checksum": SHA1.replace(" ", "  ")}, Append(3, checksum=SHA1_HEX)),
        ({"Content-Type": OFFSET_TYPE + ";charset=utf-8"}, Append(3)),
    ],
)
def test_append_is_read(headers, message):
    assert Append.parse({**PATCH, **headers}) == message


@pytest.mark.parametrize(
    ("headers", "error", "named"),
    [
        ({"Content-Type": ""}, UnsupportedTypeError, OFFSET_TYPE.replace("+", r"\+")),
        ({"Content-Type": "application/octet-stream"}, UnsupportedTypeError, "application/octet-stream"),
        ({"Content-Type": f"{OFFSET_TYPE}, {OFFSET_TYPE}"}, UnsupportedTypeError, "Content-Type"),
        ({"Upload-Offset": str(LARGEST_INTEGER + 1)}, InvalidRequestError, "Upload-Offset"),
        ({"Upload-Offset": "9" * 5000}, InvalidRequestError, "Upload-Offset"),
        ({"Upload-Length": "2"}, LengthMismatchError, "less than"),
        ({"Upload-Length": "x"}, InvalidRequestError, "Upload-Length"),
        ({"Upload-Length": "9" * 19}, TooLargeError, "Upload-Length"),
    ],
)
def test_append_is_refused(headers, error, named):
    with pytest.raises(error, match=named):
        Append.parse({**PATCH, **headers})


@pytest.mark.parametrize("algorithm", CHECKSUM_ALGORITHMS)
def test_checksum_of_every_algorithm_is_read(algorithm):
    digest = hashlib.new(algorithm, b"x")
    message = Append.parse({**PATCH, "Upload-Checksum": f"{algorithm} {b64(digest.digest())}"})
    assert message.checksum == f"{algorithm}:{digest.hexdigest()}"


@pytest.mark.parametrize(
    "text",
    ["", "sha1", "sha1 ", "sha1 x", "sha1 " + b64(b"short"), "sha1 " + b64(b"x" * 32), SHA1.upper(), "crc32 AAAAAA==",
     "sha224 " + b64(b"x" * 28),
     "md4 " + b64(b"x" * 16), "shake_128 " + b64(b"x" * 16), SHA1[:-1], SHA1 + "=", SHA1.replace("+", "-"),
     f"{SHA1}, {SHA1}", "sha1,x", "Kq5sNclPz7QV2+lfQIuc6R7oRu0=", "sha1 " + "é" * 28],
)  # fmt: skip
def test_checksum_is_refused(text):
    with pytest.raises(InvalidRequestError, match="Upload-Checksum"):
        Append.parse({**PATCH, "Upload-Checksum": text})


@pytest.mark.parametrize("version", [None, "", "0.2.2", "1.0.1", "1.0", "1.0.0, 1.0.0", "1.0.0,0.2.2", "１.0.0"])
@pytest.mark.parametrize("message", [m for m in MESSAGES if m is not Abilities])
def test_other_version_is_refused_before_anything_else(message, version):
    headers = {"Upload-Offset": "x", "Upload-Length": "x"} | ({} if version is None else {"Tus-Resumable": version})
    with pytest.raises(UnsupportedVersionError, match="Tus-Resumable"):
        message.parse(headers)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("  ", {}),
        ("a", {"a": b""}),
        ("a ", {"a": b""}),
        ("a YQ==", {"a": b"a"}),
        ("a YQ==,b", {"a": b"a", "b": b""}),
        ("a YQ== , b  YWI= ,\tc YWJj", {"a": b"a", "b": b"ab", "c": b"abc"}),
        ("a /+8=", {"a": b"\xff\xef"}),
        ("A YQ==,a Yg==", {"A": b"a", "a": b"b"}),
    ],
)
def test_metadata_is_read(text, values):
    assert read_metadata(text) == values


@pytest.mark.parametrize(
    "text",
    [",", "a,", ",a", "a,,b", "a,a", "a YQ==,a Yg==", "é YQ==", "a\x00 YQ==", "a\tYQ==", "a YQ", "a YQ=", "a YQ===",
     "a Y", "a =", "a YQ==YQ==", "a Y Q=", "a YQ==\n", "a _-8=", "a é", "a\r\nX: y", "x" * (LONGEST + 1)],
)  # fmt: skip
def test_metadata_is_refused(text):
    with pytest.raises(InvalidRequestError, match="Upload-Metadata"):
        read_metadata(text)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({}, ""),
        ({"filename": "a.tif"}, "a.tif"),
        ({"name": "a.tif"}, "a.tif"),
        ({"name": "b.tif", "filename": "a.tif", "relativePath": "x/a.tif", "type": "image/tiff"}, "a.tif"),
        ({"filename": "", "name": "b.tif"}, "b.tif"),
        ({"filename": "日本 Straße.shp"}, "日本 Straße.shp"),
        ({"filename": b"\xff\xfea"}, "\ufffd\ufffda"),
        ({"Filename": "a.tif"}, ""),
    ],
)
def test_file_name_is_found(values, name):
    assert file_name(write_metadata(values)) == name


def test_values_of_metadata_are_texts():
    assert read_texts("a w6k=,b /w==,c") == {"a": "é", "b": "\ufffd", "c": ""}


@pytest.fixture
def in_tokyo(monkeypatch):
    """Let the machine be where it is not the time of Greenwich."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"Upload-Offset": "3", "Upload-Length": "5"}, Standing(3, 5)),
        ({"Upload-Offset": "3", "Upload-Defer-Length": "1"}, Standing(3)),
        ({"Upload-Offset": "3"}, Standing(3)),
        ({"Upload-Offset": "3", "Upload-Expires": "Wed, 25 Jun 2014 16:00:00 GMT"}, Standing(3, expires=1403712000)),
        (
            {"Upload-Offset": "3", "Upload-Expires": "Wednesday, 25-Jun-14 16:00:00 GMT"},
            Standing(3, expires=1403712000),
        ),
        ({"Upload-Offset": "3", "Upload-Expires": "Wed Jun 25 16:00:00 2014"}, Standing(3, expires=1403712000)),
    ],
)
def test_standing_is_read(headers, message, in_tokyo):
    assert Standing.parse({**TUS, **headers}) == message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tomorrow",
        "0",
        "-1",
        "Wed, 21 Oct 99999 07:28:00 GMT",
        "Wed, 31 Jun 2014 16:00:00 GMT",
        "١",
        "Wed, 25 Jun 2014 16:00:00 +" + "9" * 20,
    ],
)
def test_date_is_refused(text):
    with pytest.raises(InvalidRequestError, match="Upload-Expires"):
        Appended.parse({**TUS, "Upload-Offset": "3", "Upload-Expires": text})


def test_standing_of_unknown_length_says_so_and_is_not_to_be_kept():
    assert Standing(3).build() == {
        **TUS, "Cache-Control": "no-store", "Upload-Offset": "3", "Upload-Defer-Length": "1"
    }  # fmt: skip


def test_abilities_are_read():
    headers = {
        "Tus-Version": "1.0.0,0.2.2, 0.2.1",
        "Tus-Max-Size": "1073741824",
        "Tus-Extension": "creation,expiration",
    }
    expected = Abilities(("1.0.0", "0.2.2", "0.2.1"), ("creation", "expiration"), 1 << 30, ())
    assert Abilities.parse(headers) == expected


@pytest.mark.parametrize(
    "headers",
    [{}, {"Tus-Version": ""}, {"Tus-Version": "1 0"}, {"Tus-Version": "1.0.0", "Tus-Max-Size": "-1"},
     {"Tus-Version": "1.0.0", "Tus-Extension": "é"}],
)  # fmt: skip
def test_abilities_are_refused(headers):
    with pytest.raises(InvalidRequestError, match="Tus-"):
        Abilities.parse(headers)


@pytest.mark.parametrize("location", [None, "", "/a\r\nb", "/é"])
def test_location_is_refused(location):
    with pytest.raises(InvalidRequestError, match="Location"):
        Created.parse(TUS if location is None else {**TUS, "Location": location})


def test_parts_are_the_urls_in_their_order():
    assert Creation(concat="final;  /b   http://x/a /b").parts == ("/b", "http://x/a", "/b")
    assert Creation(concat=write_concat(("/a", "/b"))).parts == ("/a", "/b")
    assert Creation(concat="partial").parts == Creation().parts == ()


# -- properties

sizes = st.integers(0, LARGEST_INTEGER)
lengths = sizes | st.just(UNKNOWN_SIZE)
times = st.none() | st.integers(0, 253402300799)
keys = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=","), min_size=1, max_size=12)
values = st.dictionaries(keys, st.binary(max_size=20) | texts, max_size=5)
metadata = values.map(write_metadata)
urls = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)
tokens = st.lists(keys, max_size=4).map(tuple)


@st.composite
def checksums(draw: st.DrawFn) -> str:
    algorithm = draw(st.sampled_from(["", *CHECKSUM_ALGORITHMS]))
    return f"{algorithm}:{hashlib.new(algorithm, draw(st.binary(max_size=4))).hexdigest()}" if algorithm else ""


finals = st.builds(
    Creation, metadata=metadata, concat=st.lists(urls, min_size=1, max_size=4).map(tuple).map(write_concat)
)
creations = finals | st.builds(
    Creation, lengths, metadata, st.sampled_from(["", "partial"]), with_upload=st.booleans(), checksum=checksums()
)
appends = st.tuples(lengths, sizes, checksums()).map(
    lambda drawn: Append(min(drawn[1], drawn[0]) if drawn[0] >= 0 else drawn[1], drawn[0], drawn[2])
)
messages = st.one_of(
    creations,
    st.builds(Created, urls, st.none() | sizes, times),
    appends,
    st.builds(Appended, sizes, times),
    st.builds(Question),
    st.builds(Standing, sizes, lengths, metadata, creations.map(lambda message: message.concat), times),
    st.builds(Abilities, st.lists(keys, min_size=1, max_size=3).map(tuple), tokens, st.none() | sizes, tokens),
)


@given(messages)
@example(Creation(concat="final;/a"))
@example(Creation(0, with_upload=True))
@example(Abilities())
def test_what_is_built_is_read(message):
    built = message.build()
    assert type(message).parse(built) == message
    assert type(message).parse({name.lower(): value for name, value in built.items()}) == message
    assert all(value.isascii() and value.isprintable() for value in built.values())


@given(values)
def test_metadata_that_is_written_is_read(values):
    expected = {key: value.encode() if isinstance(value, str) else value for key, value in values.items()}
    assert read_metadata(write_metadata(values)) == expected


NAMES = [
    "Tus-Resumable", "Tus-Version", "Tus-Extension", "Tus-Max-Size", "Tus-Checksum-Algorithm", "Upload-Offset",
    "Upload-Length", "Upload-Defer-Length", "Upload-Metadata", "Upload-Concat", "Upload-Checksum", "Upload-Expires",
    "Content-Type", "Location", "X-HTTP-Method-Override",
]  # fmt: skip
_dates = st.tuples(
    st.sampled_from(["Wed, ", ""]), st.integers(-1, 99), st.sampled_from(["Jun", "Feb", "x"]), st.integers(-1, 10**6),
    st.integers(-1, 99), st.sampled_from(["GMT", "+9999", "-2400", "+99999999999999999999", "x"]),
).map(lambda d: f"{d[0]}{d[1]} {d[2]} {d[3]} {d[4]}:00:00 {d[5]}")  # fmt: skip
_words = st.sampled_from(["1", "3", "final;", "final;/a", "partial", OFFSET_TYPE, SHA1, "sha1 ", "a YQ==", "a,a", "/u"])
any_values = _words | header_values | texts | _dates


@given(
    st.sampled_from(MESSAGES), st.dictionaries(st.sampled_from(NAMES), any_values, max_size=6), st.booleans()
)  # fmt: skip
def test_any_headers_are_a_message_or_one_of_our_errors(kind, headers, versioned):
    try:
        message = kind.parse({**headers, **(TUS if versioned else {})})
    except Error as error:
        assert str(error)
        assert error.remedy
        return
    assert kind.parse(message.build()) == message


@given(texts | header_values)
def test_any_text_is_metadata_or_one_of_our_errors(text):
    try:
        values = read_metadata(text)
    except InvalidRequestError:
        return
    assert read_metadata(write_metadata(values)) == values
