"""The messages of browser libraries and of FilePond, without a server: what fields say, and what an answer does."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

import strategies
from upload_helper import errors
from upload_helper.protocols import filepond
from upload_helper.protocols.dialects import (
    DIALECTS,
    DROPZONE,
    FIELDS,
    FINE_UPLOADER,
    FLOW,
    PLUPLOAD,
    RESUMABLE,
    SIMPLE_UPLOADER,
    AllSent,
    Dialect,
    NamedChunk,
    StoredFile,
    WholeFile,
    build_answer,
    build_refusal,
    dialect_of,
    is_chunk,
    parse_answer,
    passes,
)  # fmt: skip
from upload_helper.upload import LARGEST_INTEGER, UNKNOWN_SIZE

SIZED = [dialect for dialect in DIALECTS if dialect.total_size]
IDENTIFIERS = strategies.texts.filter(bool)


@st.composite
def chunks(draw, dialect: Dialect):
    """Return a chunk as the library makes it: of equal ones, the last of which has up to twice their size."""
    size = draw(st.integers(1, 1 << 40))
    count = draw(st.integers(1, 1000))
    number = draw(st.integers(0, count - 1))
    name = draw(strategies.texts) if dialect.file_name else ""
    if not dialect.total_size:
        return NamedChunk(number, count, UNKNOWN_SIZE, draw(IDENTIFIERS), name)
    total = (count - 1) * size + draw(st.integers(0 if count == 1 else 1, 2 * size - 1))
    # Fine Uploader says of each chunk how large it is, and not how large the others are.
    size = total if not dialect.chunk_size and count == 1 else size
    path = draw(strategies.texts) if dialect.relative_path else ""
    return NamedChunk(number, count, total, draw(IDENTIFIERS), name, path, size)


chunks_of_dialects = st.sampled_from(DIALECTS).flatmap(lambda dialect: st.tuples(st.just(dialect), chunks(dialect)))


def fields(dialect: Dialect, **changes: str | None) -> dict[str, str]:
    """Return the fields of the second of three chunks, some of them changed, by the names that NamedChunk has."""
    sized = bool(dialect.total_size)
    chunk = NamedChunk(1, 3, 25 if sized else UNKNOWN_SIZE, "one", "a.tif", chunk_size=10 if sized else 0)
    sent = dialect.build(chunk)
    for name, value in changes.items():
        field = getattr(dialect, name) or name
        if value is None:
            del sent[field]
        else:
            sent[field] = value
    return sent


@given(chunks_of_dialects)
def test_what_is_built_is_parsed_again(pair):
    dialect, chunk = pair
    sent = dialect.build(chunk)
    assert dialect_of(sent) is dialect
    assert is_chunk(sent) or (dialect is PLUPLOAD and chunk.count == 1)
    assert dialect.parse(sent) == chunk


@given(chunks_of_dialects.filter(lambda pair: pair[1].total_size != UNKNOWN_SIZE))
def test_chunks_of_a_file_are_as_long_as_the_file(pair):
    _, chunk = pair
    last = NamedChunk(chunk.count - 1, chunk.count, chunk.total_size, "one", chunk_size=chunk.chunk_size)
    assert (chunk.count - 1) * chunk.chunk_size + last.length == chunk.total_size


@given(st.dictionaries(st.sampled_from([*sorted(FIELDS), ""]), strategies.field_texts))
def test_any_fields_are_a_message_or_an_error(sent):
    for dialect in DIALECTS:
        try:
            chunk = dialect.parse(sent)
        except errors.Error as error:
            assert error.status == 400
        else:
            assert 0 <= chunk.number < chunk.count <= LARGEST_INTEGER
            assert chunk.identifier


# As the libraries send them, taken from requests of theirs.
SENT = [
    (
        (
            "resumableChunkNumber=1 resumableChunkSize=20480 resumableCurrentChunkSize=30720 resumableTotalSize=30720"
            " resumableType=image/tiff resumableIdentifier=30720-tif resumableFilename=日本.tif"
            " resumableRelativePath=x/日本.tif resumableTotalChunks=1"
        ),
        RESUMABLE,
        NamedChunk(0, 1, 30720, "30720-tif", "日本.tif", "x/日本.tif", 20480),
        30720,
    ),
    (
        (
            "flowChunkNumber=3 flowChunkSize=10 flowCurrentChunkSize=15 flowTotalSize=35 flowIdentifier=35-a"
            " flowFilename=a flowRelativePath=a flowTotalChunks=3"
        ),
        FLOW,
        NamedChunk(2, 3, 35, "35-a", "a", "a", 10),
        15,
    ),
    (
        (
            "chunkNumber=2 chunkSize=10 currentChunkSize=10 totalSize=35 identifier=35-a filename=a relativePath=a"
            " totalChunks=3"
        ),
        SIMPLE_UPLOADER,
        NamedChunk(1, 3, 35, "35-a", "a", "a", 10),
        10,
    ),
    (
        "dzuuid=9f8e dzchunkindex=3 dztotalfilesize=35 dzchunksize=10 dztotalchunkcount=4 dzchunkbyteoffset=30",
        DROPZONE,
        NamedChunk(3, 4, 35, "9f8e", chunk_size=10),
        5,
    ),
    (
        "qqpartindex=3 qqpartbyteoffset=30 qqchunksize=5 qqtotalparts=4 qqtotalfilesize=35 qqfilename=a qquuid=9f8e",
        FINE_UPLOADER,
        NamedChunk(3, 4, 35, "9f8e", "a", chunk_size=10),
        5,
    ),
    ("name=a chunk=1 chunks=4", PLUPLOAD, NamedChunk(1, 4, UNKNOWN_SIZE, "a", "a"), None),
    ("name=a chunk=1 chunks=4 identifier=o_1", PLUPLOAD, NamedChunk(1, 4, UNKNOWN_SIZE, "o_1", "a"), None),
    (
        (
            "resumableChunkNumber=1 resumableChunkSize=10 resumableCurrentChunkSize=0 resumableTotalSize=0"
            " resumableIdentifier=0-a resumableFilename=a resumableTotalChunks=1"
        ),
        RESUMABLE,
        NamedChunk(0, 1, 0, "0-a", "a", chunk_size=10),
        0,
    ),
]


@pytest.mark.parametrize(("sent", "dialect", "chunk", "length"), SENT)
def test_requests_of_the_libraries_are_understood(sent, dialect, chunk, length):
    found = dict(field.split("=") for field in sent.split())
    assert dialect_of(found) is dialect
    assert dialect.parse(found) == chunk
    assert chunk.length == length


REQUIRED = [(dialect, name) for dialect in DIALECTS for name in sorted(dialect.required)]


@pytest.mark.parametrize(("dialect", "name"), REQUIRED, ids=lambda value: getattr(value, "name", value))
def test_missing_field_is_named(dialect, name):
    sent = fields(dialect)
    del sent[name]
    with pytest.raises(errors.InvalidRequestError, match=name):
        dialect.parse(sent)


NUMBERS = [
    (dialect, name)
    for dialect in DIALECTS
    for name in ("number", "count", "total_size", "chunk_size", "length", "offset")
    if getattr(dialect, name)
]
BAD_NUMBERS = ["", "-1", "+1", "1.0", "1e1", " 1", "0x1", "١", "１", "NaN", "1" * 20, "1" * 5000, str(2**63), "1\n"]


@pytest.mark.parametrize("value", BAD_NUMBERS)
@pytest.mark.parametrize(("dialect", "name"), NUMBERS, ids=lambda value: getattr(value, "name", value))
def test_what_is_no_number_is_refused(dialect, name, value):
    with pytest.raises(errors.InvalidRequestError, match=getattr(dialect, name)):
        dialect.parse(fields(dialect, **{name: value}))


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize(("number", "count"), [(-1, 3), (3, 3), (4, 3), (0, 0), (10**9, 3)])
def test_number_is_one_of_the_chunks(dialect, number, count):
    with pytest.raises(errors.InvalidRequestError):
        dialect.parse(fields(dialect, number=str(number + dialect.first), count=str(count)))


CONTRADICTIONS = [
    {"count": "5"}, {"count": str(10**9)}, {"total_size": "19"}, {"total_size": "40"},
    {"total_size": str(10**18)},
]  # fmt: skip


@pytest.mark.parametrize("dialect", SIZED, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("changes", [*CONTRADICTIONS, {"chunk_size": "0"}, {"chunk_size": "9"}, {"chunk_size": "13"}])
def test_numbers_that_contradict_each_other_are_refused(dialect, changes):
    if any(not getattr(dialect, name) for name in changes):
        # Fine Uploader says the same in other fields.
        changes = {"offset": changes["chunk_size"]}
    with pytest.raises(errors.InvalidRequestError):
        dialect.parse(fields(dialect, **changes))


@pytest.mark.parametrize("value", ["0", "9", "11", "15"])
@pytest.mark.parametrize("name", ["length", "offset"])
@pytest.mark.parametrize("dialect", SIZED, ids=lambda dialect: dialect.name)
def test_declared_length_and_offset_are_those_of_the_chunk(dialect, name, value):
    if getattr(dialect, name):
        with pytest.raises(errors.InvalidRequestError):
            dialect.parse(fields(dialect, **{name: value}))


@pytest.mark.parametrize("dialect", [d for d in DIALECTS if not d.by_name], ids=lambda dialect: dialect.name)
def test_empty_identifier_is_refused(dialect):
    with pytest.raises(errors.InvalidRequestError, match="empty"):
        dialect.parse(fields(dialect, identifier=""))


def test_field_without_a_name_means_nothing():
    assert DROPZONE.parse(fields(DROPZONE, file_name="x") | {"": "7"}).file_name == ""


@pytest.mark.parametrize(
    "names",
    [
        (), ("file",), ("name",), ("qquuid", "qqfilename", "qqtotalfilesize"), ("identifier", "filename"),
        ("uploadUid", "fileName", "totalSize", "chunkCount", "chunkNumber", "identifier"),
        ("identifier", "fileName", "totalSize", "chunkCount"),
    ],
)  # fmt: skip
def test_other_forms_are_of_no_library(names):
    assert dialect_of(names) is None


def test_identifiers_of_libraries_do_not_meet():
    keys = {dialect.key(NamedChunk(0, 3, 25, "one", chunk_size=10)) for dialect in DIALECTS}
    assert len(keys) == len(DIALECTS)


@pytest.mark.parametrize("dialect", [RESUMABLE, FLOW, SIMPLE_UPLOADER, PLUPLOAD], ids=lambda dialect: dialect.name)
def test_guessable_identifier_of_a_file_cut_otherwise_is_another(dialect):
    sized = bool(dialect.total_size)
    cuts = [
        NamedChunk(0, 3, 25, "one", chunk_size=10 if sized else 0),
        NamedChunk(0, 4, 25, "one", chunk_size=8 * sized),
    ]
    assert dialect.key(cuts[0]) != dialect.key(cuts[1])


@pytest.mark.parametrize(
    ("sent", "part_name", "length", "file"),
    [
        ({}, "a.tif", None, WholeFile("a.tif")),
        ({"name": "Frida"}, "a.tif", None, WholeFile("a.tif")),
        ({"name": "b.tif"}, "blob", None, WholeFile("b.tif")),
        ({"name": "b.tif", "chunk": "0", "chunks": "1"}, "a.tif", None, WholeFile("b.tif")),
        ({"name": "b.tif"}, "", 7, WholeFile("b.tif", 7)),
        ({"qqfilename": "b.tif", "qqtotalfilesize": "7"}, "blob", None, WholeFile("b.tif", 7)),
        ({"qqfilename": "b.tif"}, "", 7, WholeFile("b.tif", 7)),
    ],
)
def test_whole_file_has_its_name_from_where_the_library_puts_it(sent, part_name, length, file):
    assert WholeFile.parse(sent, part_name, length) == file


@given(IDENTIFIERS, IDENTIFIERS, st.integers(0, LARGEST_INTEGER), st.integers(0, LARGEST_INTEGER))
def test_question_whether_all_is_there_is_parsed_again(identifier, name, size, count):
    sent = AllSent(identifier, name, size, count)
    assert AllSent.parse(sent.build()) == sent
    assert sent.key == FINE_UPLOADER.key(NamedChunk(0, 1, size, identifier))


@pytest.mark.parametrize("name", ["qquuid", "qqfilename", "qqtotalfilesize", "qqtotalparts"])
@pytest.mark.parametrize("value", [None, "", "-1"])
def test_incomplete_question_whether_all_is_there_is_refused(name, value):
    sent = {**AllSent("one", "a", 1, 1).build(), name: value}
    if value == "-1" and name in ("qquuid", "qqfilename"):
        assert "-1" in AllSent.parse(sent).build().values()
        return
    with pytest.raises(errors.InvalidRequestError, match=name):
        AllSent.parse({name: value for name, value in sent.items() if value is not None})


files = st.builds(StoredFile, strategies.texts, strategies.texts, strategies.texts, st.integers(0, LARGEST_INTEGER))


@given(
    st.lists(files, min_size=1, max_size=3)
    | st.builds(StoredFile, strategies.texts, strategies.texts).map(lambda f: [f])
)
def test_answer_is_parsed_again(stored):
    members = build_answer(stored)
    assert members["success"] is True
    assert (members["uploadUid"], members["url"]) == (stored[0].upload_uid, stored[0].url)
    assert parse_answer(members) == stored


@given(st.dictionaries(st.sampled_from(["success", "uploadUid", "url", "uploads"]), strategies.plain_values))
def test_any_answer_is_understood_or_refused(members):
    with suppress(errors.InvalidRequestError):
        assert all(file.upload_uid == str(file.upload_uid) for file in parse_answer(members))


PASSING = [
    errors.BodyCutError("x"), errors.BodyStalledError("x"), errors.SupersededError("x"), errors.StorageFullError("x"),
    errors.TooManyUploadsError("x"),
]  # fmt: skip
PERMANENT = [
    errors.InvalidRequestError("x"), errors.ForbiddenError("x"), errors.NotFoundError(), errors.ChunkConflictError("x"),
    errors.LengthRequiredError("x"), errors.TooLargeError("x"), errors.UnsupportedTypeError("x"),
    errors.StorageError("x"), errors.MethodNotAllowedError("x"), errors.LengthMismatchError("x"),
    errors.FinishedError("x"), errors.ChecksumMismatchError("x"),
]  # fmt: skip
# Later versions of Resumable.js end an upload at more statuses.
LATER = frozenset({400, 401, 403, 404, 409, 415, 500, 501})


def refuse(dialect: Dialect, error: errors.Error) -> tuple[int, dict]:
    passing = passes(error)
    members = build_refusal(dialect, error.as_json(), passing=passing)
    return dialect.refused(error.status, passing=passing), members


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("error", PASSING, ids=lambda error: error.code)
def test_what_passes_is_sent_again(dialect, error):
    status, members = refuse(dialect, error)
    assert dialect.outcome(status, members) == "retry"
    assert status >= 400
    assert status not in LATER or not dialect.permanent
    assert (members["success"], members["code"]) == (False, error.code)


@pytest.mark.parametrize("dialect", [RESUMABLE, FLOW, SIMPLE_UPLOADER, FINE_UPLOADER], ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("error", PERMANENT, ids=lambda error: error.code)
def test_what_does_not_pass_ends_the_upload(dialect, error):
    status, members = refuse(dialect, error)
    assert dialect.outcome(status, members) == "stop"
    assert status >= 400
    assert (members["success"], members["code"], members["error"]) == (False, error.code, str(error))


def test_status_that_the_library_understands_stays():
    assert RESUMABLE.refused(415, passing=False) == 415
    assert FLOW.refused(413, passing=False) == 413
    assert DROPZONE.refused(409, passing=False) == 409
    assert FLOW.refused(507, passing=True) == 507


def test_fine_uploader_begins_anew_what_is_not_there():
    members = build_refusal(FINE_UPLOADER, errors.IncompleteError("x").as_json(), passing=False)
    assert (members["reset"], members["preventRetry"]) == (True, False)


def test_success_is_done():
    assert FINE_UPLOADER.outcome(200, {"success": True}) == "done"
    assert FINE_UPLOADER.outcome(200, {}) == "retry"


# --- FilePond ---

sizes = st.integers(0, LARGEST_INTEGER)
header_names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60).map(str.strip)
patches = st.builds(filepond.Patch, strategies.texts, sizes, sizes, header_names)
asks = st.builds(filepond.Ask, st.sampled_from(filepond.KINDS), strategies.texts)
standings = st.builds(filepond.Standing, sizes, st.just(UNKNOWN_SIZE) | sizes)


@given(patches)
def test_patch_is_parsed_again(patch):
    try:
        headers, query = patch.build()
    except errors.InvalidRequestError:
        # U+0085 and U+00A0 end in bytes that are cut off at the end of a header.
        assert patch.file_name.encode().decode("latin-1").strip() != patch.file_name.encode().decode("latin-1")
    else:
        assert all(value.isascii() or value.encode("latin-1") for value in headers.values())
        assert filepond.Patch.parse(headers, query) == patch


@given(st.builds(filepond.Create, sizes) | standings)
def test_headers_of_filepond_are_parsed_again(message):
    assert type(message).parse(message.build()) == message


@given(asks)
def test_ask_is_parsed_again(ask):
    assert filepond.Ask.parse(ask.build()) == ask


HEADERS = ["upload-offset", "upload-length", "upload-name"]


@given(st.dictionaries(st.sampled_from(HEADERS), strategies.header_values), strategies.field_sets)
def test_any_headers_are_a_message_or_an_error(headers, query):
    for parse in (
        filepond.Create.parse, filepond.Standing.parse, lambda headers: filepond.Patch.parse(headers, query),
        lambda headers: filepond.Ask.parse(query),
    ):  # fmt: skip
        try:
            parse(headers)
        except errors.Error as error:
            assert error.status == 400


@pytest.mark.parametrize("value", ["", "-1", "1.5", "1,2", "1 2", "٣", "1" * 20, str(2**63)])
@pytest.mark.parametrize("name", ["upload-offset", "upload-length"])
def test_header_that_is_no_number_is_refused(name, value):
    headers, query = filepond.Patch("one", 1, 2, "a").build()
    with pytest.raises(errors.InvalidRequestError, match=name.title()):
        filepond.Patch.parse({**headers, name: value}, query)


@pytest.mark.parametrize("name", ["\xff", "\xc3", "é", "a" * 5000])
def test_name_that_is_not_utf8_or_far_too_long_is_refused(name):
    headers, query = filepond.Patch("one", 1, 2, "a").build()
    with pytest.raises(errors.InvalidRequestError, match="Upload-Name"):
        filepond.Patch.parse({**headers, "upload-name": name}, query)


@pytest.mark.parametrize("name", ["a\r\nSet-Cookie: x", "\x00", " a", "\ud800"])
def test_name_that_no_header_can_carry_is_not_built(name):
    with pytest.raises(errors.InvalidRequestError, match="can't stand in a header"):
        filepond.Patch("one", 1, 2, name).build()


@pytest.mark.parametrize("query", [{}, {"load": "a", "restore": "b"}, {"patch": "a"}])
def test_unclear_question_is_refused(query):
    with pytest.raises(errors.InvalidRequestError, match="ask for one"):
        filepond.Ask.parse(query)


@pytest.mark.parametrize("body", [b"", b"x", b"0" * 31, b"0" * 33, "٠".encode() * 32, b"\xff" * 32, b"{}"])
def test_what_is_no_transfer_id_is_none(body):
    assert filepond.parse_id(body) == ""


def test_transfer_id_is_parsed_again():
    assert filepond.parse_id(filepond.build_id("0f" * 16)) == "0f" * 16
    assert filepond.parse_id(b"0f" * 16 + b"\r\n") == "0f" * 16


@pytest.mark.parametrize(
    ("sent", "its"),
    [
        ({"filepond": "{}"}, True), ({"filepond": '{"crop": [1]}'}, True), ({}, False), ({"filepond": "[]"}, False),
        ({"filepond": "{"}, False), ({"filepond": "[" * 10_000}, False), ({"file": "{}"}, False),
        ({"filepond": '{"a":' * 10_000}, False),
    ],
)  # fmt: skip
def test_form_of_filepond_has_its_metadata_as_json(sent, its):
    assert filepond.is_form("filepond", sent) is its
