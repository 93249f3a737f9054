"""Names that clients give their files: what is kept of them, and that none of them ever becomes a path."""

from __future__ import annotations

import string
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given

from chunks import RAW, fields, send, upload
from hostile import ENCODINGS, decoded, refusal, tree
from strategies import names
from upload_helper import InvalidRequestError
from upload_helper.upload import FALLBACK_NAME, LONGEST_NAME, display_name, extension

DATA = b"0123456789"

CLEANED = [
    ("../../x", "x"),
    ("../../../etc/passwd", "passwd"),
    ("C:\\w\\x.tif", "x.tif"),
    ("\\\\server\\share\\x.tif", "x.tif"),
    ("/abs", "abs"),
    ("a/b\\c/d.shp", "d.shp"),
    ("..\\../x", "x"),
    ("%2e%2e%2fx", "%2e%2e%2fx"),
    ("file:///etc/passwd", "passwd"),
    ("a\x00.php\x00.jpg", "a.php.jpg"),
    ("a\r\nSet-Cookie: x=1", "aSet-Cookie: x=1"),
    ("a\u2028b\u2029c\x85d\x1b[31me", "abcd[31me"),
    ("fit\u202eexe.tif", "fitexe.tif"),
    ("\u2066a\u2069\u200e\u200f\u061cb", "ab"),
    ("日本.shp", "日本.shp"),
    ("Straße.tif", "Straße.tif"),
    ("Strasse.TIF", "Strasse.TIF"),
    ("e\u0301.tif", "é.tif"),
    ("a\u202e\u030a.tif", "å.tif"),
    ("e\x00\u0301.tif", "é.tif"),
    ("𝄞 🗺️.gpkg", "𝄞 🗺️.gpkg"),
    ("CON", "_CON"),
    ("con.txt", "_con.txt"),
    ("nul.txt", "_nul.txt"),
    ("nul .txt", "_nul .txt"),
    ("Aux.tar.gz", "_Aux.tar.gz"),
    ("com1", "_com1"),
    ("LPT9.x", "_LPT9.x"),
    ("COM¹.x", "_COM¹.x"),
    ("c\x00on", "_con"),
    ("console.log", "console.log"),
    ("common", "common"),
    ("trailing. . ", "trailing"),
    ("trailing.txt.", "trailing.txt"),
    (" leading", "leading"),
    ("", FALLBACK_NAME),
    (".", FALLBACK_NAME),
    ("..", FALLBACK_NAME),
    ("...", FALLBACK_NAME),
    (" . . ", FALLBACK_NAME),
    ("\u202e..\u202c", FALLBACK_NAME),
    ("a/", FALLBACK_NAME),
    ("a/..", FALLBACK_NAME),
    ("\x00", FALLBACK_NAME),
    (".htaccess", ".htaccess"),
    ("x" * 255, "x" * 255),
    ("folder/" * 200 + "x.tif", "x.tif"),
]

TOO_LONG = ["x" * 256, "ß" * 128, "漢" * 86, "a/" + "x" * 256, "x" * 1_000_000]


@pytest.mark.parametrize(("raw", "kept"), CLEANED)
def test_name_is_the_last_part_without_what_could_do_harm(raw, kept):
    assert display_name(raw) == kept


@pytest.mark.parametrize("raw", TOO_LONG, ids=lambda raw: f"{len(raw)} characters")
def test_too_long_name_is_refused(raw):
    with pytest.raises(InvalidRequestError, match="255"):
        display_name(raw)


def test_half_a_surrogate_pair_is_refused():
    with pytest.raises(InvalidRequestError, match="surrogate"):
        display_name("a\ud800.tif")


def test_long_run_of_combining_marks_costs_no_more_than_other_text():
    # Putting marks in their canonical order takes quadratic time.
    started = time.process_time()
    with pytest.raises(InvalidRequestError):
        display_name("\u0345" * 16_000 + "\u0315" * 16_000 + "\u0300" * 16_000)
    assert time.process_time() - started < 0.2


@given(names)
def test_kept_name_is_a_plain_file_name_everywhere(raw):
    try:
        name = display_name(raw)
    except InvalidRequestError:
        return
    assert 0 < len(name.encode()) <= LONGEST_NAME
    assert not set(name) & {"/", "\\", *map(chr, range(32)), "\x7f"}
    assert name not in (".", "..")
    assert name == name.strip(" ").rstrip(".")
    assert unicodedata.is_normalized("NFC", name)
    stem = name.partition(".")[0].rstrip().upper()
    assert stem not in ("CON", "PRN", "AUX", "NUL", *(f"{d}{n}" for d in ("COM", "LPT") for n in string.digits))


@given(names)
def test_kept_name_is_kept_as_it_is_when_it_comes_back(raw):
    # A client that goes on with the name that the status told it sends the same file.
    try:
        name = display_name(raw)
    except InvalidRequestError:
        return
    assert display_name(name) == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.php.jpg", "jpg"), ("a.JPG", "jpg"), ("a.jpg.PHP", "php"), (".htaccess", "htaccess"), ("README", ""),
        ("a.tar.gz", "gz"), ("a.jpg ", "jpg "), ("日本.SHP", "shp"),
    ],
)  # fmt: skip
def test_extension_is_the_last_one_in_lower_case(name, expected):
    assert extension(name) == expected


ODD_NAMES = [
    "../../x.tif",
    "C:\\w\\x.tif",
    "日本.shp",
    "e\u0301.tif",
    "a\r\nX-Evil: 1.tif",
    "nul.txt",
    "..",
    "a\x00b.tif",
]


@pytest.mark.parametrize("raw", ODD_NAMES)
@pytest.mark.parametrize("encode", ENCODINGS)
def test_name_comes_through_every_encoding_and_never_into_a_path(client, folder, encode, raw):
    answer = client.post("/uploads", **encode({**fields(DATA, 5, 0), "fileName": raw}, DATA[:5]))
    assert answer.status_code == 200, answer.text
    uid = decoded(answer)["uploadUid"]
    assert client.get(f"/uploads/{uid}/status").json["fileName"] == display_name(raw)
    letters = set(string.ascii_lowercase + string.digits + ".-")
    assert all(set(path.name) <= letters for path in folder.rglob("*"))
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("encode", ENCODINGS)
def test_too_long_name_is_refused_in_every_encoding(client, folder, encode):
    refusal(client.post("/uploads", **encode({**fields(DATA, 5, 0), "fileName": "ß" * 128}, DATA[:5])), 400)
    assert tree(folder) is None


@pytest.mark.parametrize(
    "raw", ["日本.shp", "a\"b';c.tif", "a\r\nX-Evil: 1", "a%0d%0aX-Evil: 1", "<b>.html", "é\u202e.exe"]
)
def test_download_names_the_file_without_a_header_of_the_clients_own(client, raw):
    uid = upload(client, DATA, 5, name=raw)
    with client.get(f"/uploads/{uid}") as answer:
        assert "X-Evil" not in answer.headers
        disposition = answer.headers["Content-Disposition"]
    assert disposition.startswith("attachment; filename")
    assert disposition.isascii()
    assert not set(disposition) & {"\r", "\n"}


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("map.tif", 200), ("map.TIF", 200), ("a.php.tif", 200), ("x/y.tif", 200), ("map.tif.", 200), ("map.tif ", 200),
        ("map.ti\x00f", 200), ("map.tif.php", 415), ("map", 415), (".htaccess", 415), ("tif", 415), ("map.tif/", 415),
        ("map.tif\u200b", 415), ("map.tıf", 415), ("map.tif:x", 415), ("..", 415),
    ],
)  # fmt: skip
@pytest.mark.parametrize("encode", ENCODINGS)
def test_only_allowed_extensions_are_taken(make_host, folder, encode, name, status):
    client = make_host(allowed_extensions=["TIF", ".shp"]).test_client()
    answer = client.post("/uploads", **encode({**fields(DATA, 5, 0), "fileName": name}, DATA[:5]))
    assert answer.status_code == status, answer.text
    if status != 200:
        assert "shp, tif" in refusal(answer, 415, "unsupported_type")["error"]
        assert tree(folder) is None


def test_name_of_a_later_chunk_must_be_the_same_and_may_be_spelt_in_another_normal_form(client):
    uid = send(client, DATA, 5, 0, name="é.tif").json["uploadUid"]
    refusal(send(client, DATA, 5, 1, name="è.tif", uid=uid), 400, "invalid_request")
    assert send(client, DATA, 5, 1, name="folder/e\u0301.tif", uid=uid).status_code == 200


def test_file_outside_is_not_touched_by_a_name_that_points_there(client, folder, tmp_path):
    outside = tmp_path / "outside.txt"
    outside.write_text("untouched")
    for raw in (str(outside), "../outside.txt", "../../outside.txt", "..\\outside.txt"):
        uid = upload(client, DATA, 5, name=raw)
        client.delete(f"/uploads/{uid}")
    assert outside.read_text() == "untouched"
    assert sorted(path.name for path in Path(tmp_path).iterdir()) == ["outside.txt", "uploads"]


def test_name_in_the_query_is_decoded_once(client):
    rest = "totalSize=10&chunkCount=2&chunkNumber=0"
    answer = client.post(f"/uploads?fileName=..%252f..%252fx.tif&{rest}", data=DATA[:5], headers=RAW)
    uid = answer.json["uploadUid"]
    assert client.get(f"/uploads/{uid}/status").json["fileName"] == "..%2f..%2fx.tif"
