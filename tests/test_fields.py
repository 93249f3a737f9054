"""Structured fields, RFC 9651: what is read, what is refused, and that both directions agree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import strategies
from upload_helper.errors import Error, InvalidRequestError
from upload_helper.protocols import fields

READERS = [fields.read_boolean, fields.read_integer, fields.read_dictionary]

integers = st.integers(-fields.LARGEST, fields.LARGEST)
keys = st.from_regex(r"[a-z*][a-z0-9_\-.*]{0,8}", fullmatch=True)
dictionaries = st.dictionaries(keys, st.booleans() | integers | st.binary(max_size=20), max_size=6)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("?1", True),
        ("?0", False),
        ("  ?1  ", True),
        ('?1;a=1;b="x\\";\\\\";c;d=:AA==:;e=?0;f=t/x:y;g=1.5;h=@12;i=%"%c3%a9"', True),
    ],
)
def test_a_boolean_is_read(text, value):
    assert fields.read_boolean(text) is value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "0",
        "true",
        "?2",
        "?",
        "?1?",
        "?1 ?1",
        "?1,?0",
        "? 1",
        "\t?1",
        "?1;",
        "?1;A=1",
        "?1;a=",
        "?1 ;a",
        "?١",
        "é",
        '"?1"',
    ],
)
def test_what_is_no_boolean_is_refused(text):
    with pytest.raises(InvalidRequestError):
        fields.read_boolean(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("-0", 0),
        ("007", 7),
        ("-12", -12),
        (" 5 ", 5),
        ("5;x", 5),
        ("9" * 15, 10**15 - 1),
        ("-" + "9" * 15, 1 - 10**15),
    ],
)
def test_an_integer_is_read(text, value):
    assert fields.read_integer(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "9" * 16,
        "1.0",
        "1.",
        "1e3",
        "+1",
        "--1",
        "-",
        "- 1",
        "1_0",
        "0x1",
        "1,2",
        "1 2",
        "?1",
        "１",
        "٣",
        "a",
        ":AA==:",
        "@1",
        "9" * 5000,
    ],
)
def test_what_is_no_integer_is_refused(text):
    with pytest.raises(InvalidRequestError):
        fields.read_integer(text)


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("", {}),
        ("  ", {}),
        ("max-size=10", {"max-size": 10}),
        (" a=1 , b=-2\t,\tc ", {"a": 1, "b": -2, "c": True}),
        ("a;x=1, b=?0;y", {"a": True, "b": False}),
        ("a=1, b=2, a=3", {"a": 3, "b": 2}),
        ("*k_-.*9=1", {"*k_-.*9": 1}),
        ("sha-256=:AAE=:, md5=:AAE:", {"sha-256": b"\0\1", "md5": b"\0\1"}),
        ("e=::", {"e": b""}),
        ("u=t, v=1.5, w=\"x, y=1\", x=@5, y=%\"a\", z=(1 ?0;q  :AA==: );p", {"u": "t", "v": "1.5", "w": '"x, y=1"', "x": "@5", "y": '%"a"', "z": "(1 ?0;q  :AA==: )"}),
        ("l=()", {"l": "()"}),
        ("l=( )", {"l": "( )"}),
    ],
)  # fmt: skip
def test_a_dictionary_is_read(text, members):
    assert fields.read_dictionary(text) == members


@pytest.mark.parametrize(
    "text",
    ["a=1,", "a=1, ", ",a=1", "a=1,,b=2", "a=1 b=2", "a=1;", "a=1; ;b", "a =1", "a= 1", "=1", "A=1", "1=1", "-a=1", "a=", "a=(1", "a=(1,2)", "a=(1(2))", 'a="x', 'a="é"', 'a="\\n"', "a=:A:", "a=:AA=A:", "a=:A*:", "a=:AA", "a=?2", "a=9999999999999999", "a=1.2345", "a=1.", 'a=%"%C3"', 'a=%"%"', "a=@1.5", "ä=1", "a=1\n", "\ta=1"],
)  # fmt: skip
def test_what_is_no_dictionary_is_refused(text):
    with pytest.raises(InvalidRequestError):
        fields.read_dictionary(text)


@given(value=st.booleans())
def test_a_boolean_comes_back(value):
    assert fields.read_boolean(fields.write_item(value)) is value


@given(value=integers)
def test_an_integer_comes_back(value):
    assert fields.read_integer(fields.write_item(value)) == value


@given(members=dictionaries)
def test_a_dictionary_comes_back(members):
    assert fields.read_dictionary(fields.write_dictionary(members)) == members


def test_the_key_alone_is_written_for_true():
    assert fields.write_dictionary({"a": True, "b": False, "c": 1, "d": b"x"}) == "a, b=?0, c=1, d=:eA==:"


@pytest.mark.parametrize("value", [10**15, -(10**15), 2**63, 10**5000], ids=["16", "-16", "19", "5001"])
def test_an_integer_that_no_field_can_have_is_refused(value):
    with pytest.raises(InvalidRequestError):
        fields.write_item(value)


@pytest.mark.parametrize("read", READERS)
@given(text=strategies.field_texts | st.text(alphabet='?01;a=b*":()% ,.-@', max_size=30))
def test_any_text_is_read_or_refused(read, text):
    try:
        read(text)
    except Error as error:
        assert str(error)
        assert len(str(error)) < 1000


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    "text", ["a" * 50_000, "a;" * 25_000, "a=(" + "1 " * 25_000, "a,\t" * 20_000 + "!", 'a="' + "\\\\" * 25_000, ";a=1" * 20_000, "1" + ";a" * 25_000 + "!", "( " * 25_000, " " * 50_000 + "!"],
    ids=lambda text: repr(text[:8]),
)  # fmt: skip
def test_a_long_text_takes_no_long_time(read, text):
    # Quadratic, each of these would run for minutes.
    try:
        read(text)
    except Error as error:
        assert len(str(error)) < 1000
