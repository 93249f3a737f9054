"""What hypothesis draws from: names, texts that break parsers, messages, and files cut into chunks."""

from __future__ import annotations

import hashlib

from hypothesis import strategies as st

from upload_helper import ChunkRequest
from upload_helper.protocols.chunked import CHECKSUM_ALGORITHMS
from upload_helper.upload import LARGEST_INTEGER, LONGEST_IDENTIFIER

# Characters that something between the wire and the disk gives a meaning to, and a few from far away.
_SHARP = "/\\.:;%&=?#\"'`<>|*~^$\x00\t\r\n\x1b\x7f\x85 \u0301\u0345\u202e\u2066\u2028\ufeff９éßı漢𝄞"

# Text as it can be in a message: anything but half surrogate pairs, which UTF-8 does not have.
texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(_SHARP), max_size=60)

_parts = st.sampled_from(
    ["..", ".", "", "con", "NUL.txt", "COM¹", "aux .x", "a.php", ".htaccess", "日本", "é", "e\u0301"]
)

names = texts | st.lists(_parts | texts, max_size=6).map("/".join) | st.lists(_parts | texts, max_size=6).map("".join)

# Values that fields and headers may have: numbers in every dress, structure of other formats, words of the protocol.
_nasty = st.sampled_from([
    "", "0", "-1", "+1", "1.0", "1e3", " 1", "1 ", "0x1", "1_0", "１", "٣", "NaN", "inf", "true", "null", "[]", "{}",
    "9" * 18, "9" * 19, "9" * 20, "9" * 5000, "\x00", "%00", "%2e%2e%2f", "../../x", "0" * 32, "f" * 32, "*", "*/*",
    "bytes=0-0", "bytes=-5", "bytes=9-", "bytes=5-1", "bytes=a-b", "bytes=0-0,1-1", "bytes", "chunked", "gzip",
    "application/json", "application/msgpack", "multipart/form-data", "multipart/form-data; boundary=",
    "multipart/form-data; boundary=b", "multipart/form-data; boundary*=utf-8''%E2%82%AC", "application/octet-stream",
    "text/html;q=x", "http://[", "null", "same-origin", "cross-site", "Wed, 21 Oct 99999 07:28:00 GMT", '"', 'W/"x"',
    "sha256:" + "0" * 64, "sha256:x", "md4:00",
])  # fmt: skip

field_texts = _nasty | names

_HEADER_TEXT = st.text(st.characters(codec="latin-1", exclude_characters="\r\n\x00"), max_size=40)
header_values = _nasty.map(lambda text: text.replace("\x00", "").encode().decode("latin-1")) | _HEADER_TEXT

HEADERS = [
    "Accept", "Content-Type", "Content-Encoding", "Content-Length", "Transfer-Encoding", "Origin", "Sec-Fetch-Site",
    "Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "X-User", "X-Upload-Helper", "Cookie", "Expect",
    "X-HTTP-Method-Override", "Authorization", "Referer",
]  # fmt: skip
FIELDS = [
    "uploadUid", "fileName", "totalSize", "chunkCount", "chunkNumber", "content", "identifier", "checksum", "fileChecksum",
    "cmd",
]  # fmt: skip

header_sets = st.dictionaries(st.sampled_from(HEADERS), header_values, max_size=5)
field_sets = st.dictionaries(st.sampled_from(FIELDS) | texts, field_texts, max_size=9)

# What can be in a JSON or msgpack object, to no end in particular.
plain_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | field_texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
members = st.dictionaries(st.sampled_from(FIELDS) | texts, plain_values, max_size=9)

_numbers = st.integers(0, LARGEST_INTEGER)


@st.composite
def checksums(draw: st.DrawFn) -> str:
    """Return '' or the checksum of something."""
    algorithm = draw(st.sampled_from(["", *CHECKSUM_ALGORITHMS]))
    return f"{algorithm}:{hashlib.new(algorithm, draw(st.binary(max_size=4))).hexdigest()}" if algorithm else ""


messages = st.builds(
    ChunkRequest,
    fileName=names,
    totalSize=_numbers,
    chunkCount=_numbers,
    chunkNumber=_numbers,
    content=st.binary(max_size=300),
    uploadUid=texts,
    identifier=st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.just("x" * LONGEST_IDENTIFIER),
    checksum=checksums(),
    fileChecksum=checksums(),
)


@st.composite
def files(draw: st.DrawFn, *, most: int = 60) -> list[bytes]:
    """Return a file as its chunks: mostly of one size with a last one that differs, sometimes of any sizes."""
    data = draw(st.binary(max_size=most))
    if draw(st.booleans()):
        size = draw(st.integers(1, max(1, len(data))))
        return [data[i : i + size] for i in range(0, len(data), size)] or [b""]
    count = draw(st.integers(1, max(1, min(5, len(data)))))
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), min_size=count - 1, max_size=count - 1)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
