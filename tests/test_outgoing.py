"""Finished files on their way out: what a stranger's bytes may look like to a browser, and ranges of every kind."""

from __future__ import annotations

import random
import time
from email.utils import formatdate

import pytest

from chunks import RAW, fields, send, upload
from hostile import refusal

DATA = random.Random(15).randbytes(1000)


@pytest.fixture
def uid(client):
    return upload(client, DATA, 300)


def get(client, uid, **headers):
    with client.get(
        f"/uploads/{uid}", headers={name.replace("_", "-"): value for name, value in headers.items()}
    ) as answer:
        answer.get_data()
        return answer


@pytest.mark.parametrize(
    "name", ["x.html", "x.svg", "x.js", "x.pdf", "index.htm", "x.xhtml", "x.swf", "x", ".htaccess"]
)
@pytest.mark.parametrize("accept", ["*/*", "text/html", "image/svg+xml"])
def test_download_is_saved_and_never_shown_as_a_page_of_this_site(client, name, accept):
    page = b"<script>alert(1)</script>"
    uid = upload(client, page, 300, name=name)
    answer = get(client, uid, Accept=accept)
    assert answer.data == page
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"] == "sandbox"
    assert "private" in answer.headers["Cache-Control"]
    assert "public" not in answer.headers["Cache-Control"]


def test_type_of_a_part_that_the_client_names_is_not_kept(client):
    body = (
        b"--b\r\n"
        b'Content-Disposition: form-data; name="content"; filename="x.html"\r\nContent-Type: text/html\r\n\r\n<p>\r\n--b--'
    )
    answer = client.post("/uploads", data=body, content_type="multipart/form-data; boundary=b",
                         query_string=fields(b"<p>", 3, 0, name="x.html"))  # fmt: skip
    assert get(client, answer.json["uploadUid"]).headers["Content-Type"] == "application/octet-stream"


# Range, and the first and last byte that are due; None for all of the file, () for none.
RANGES = [
    ("bytes=0-0", (0, 0)), ("bytes=0-", (0, 999)), ("bytes=9-", (9, 999)), ("bytes=-5", (995, 999)), ("bytes=-1", (999, 999)),
    ("bytes=-1000", (0, 999)), ("bytes=-5000", (0, 999)), ("bytes=999-", (999, 999)), ("bytes=990-5000", (990, 999)),
    ("bytes=0-999", (0, 999)), ("bytes= 5-9", (5, 9)), ("bytes=10-10", (10, 10)),
    ("bytes=1000-", ()), ("bytes=1000-1001", ()), ("bytes=99999999999999999999-", ()),
    ("bytes=0-99999999999999999999999", (0, 999)),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "due"), RANGES)
def test_range_gives_exactly_its_bytes(client, uid, asked, due):
    answer = get(client, uid, Range=asked)
    if not due:
        refusal(answer, 416)
        assert answer.headers["Content-Range"] == "bytes */1000"
        return
    first, last = due
    assert answer.status_code == 206
    assert answer.data == DATA[first : last + 1]
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/1000"
    assert answer.content_length == last - first + 1
    assert answer.headers["Content-Security-Policy"] == "sandbox"


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=" + ",".join(f"{i}-{i}" for i in range(1000)), "bytes=" + ",".join(["0-"] * 1000), "bytes=0-0,5-9", "bytes=0-9,5-15",
        "bytes=5-1", "bytes=a-b", "bytes", "bytes=", "bytes=-", "bytes=-0", "bytes=--5", "bytes=1-2-3", "bytes=0-0\u0665", "=", "x",
        "bytes=" + "9" * 5000 + "-", "bytes=0x0-0x5", "bytes=1_0-20", "bytes=\xb2-5",
    ],
    ids=lambda text: ascii(text)[:30],
)  # fmt: skip
def test_ranges_that_are_many_or_nonsense_are_never_amplified(client, uid, asked):
    # Ignoring them and refusing them are both right (RFC 9110, 14.2).
    answer = get(client, uid, Range=asked.encode().decode("latin-1"))
    assert answer.status_code in (200, 206, 416)
    assert len(answer.data) <= 1000
    if answer.status_code == 416:
        refusal(answer, 416)
    else:
        assert answer.data in DATA


def test_range_in_another_unit_is_ignored(client, uid):
    answer = get(client, uid, Range="items=0-5")
    assert (answer.status_code, answer.data == DATA) == (200, True)


@pytest.mark.parametrize("asked", ["bytes=0-0", "bytes=-5", "bytes=0-"])
def test_range_of_an_empty_file_is_all_of_it_or_none(client, asked):
    answer = get(client, upload(client, b"", 300), Range=asked)
    assert answer.status_code in (200, 416)
    assert answer.status_code == 416 or answer.data == b""


def test_part_is_only_sent_of_the_file_that_the_client_knows(client, uid):
    whole = get(client, uid)
    part = get(client, uid, Range="bytes=5-9", If_Range=whole.headers["ETag"])
    assert (part.status_code, part.data) == (206, DATA[5:10])
    part = get(client, uid, Range="bytes=5-9", If_Range=whole.headers["Last-Modified"])
    assert (part.status_code, part.data) == (206, DATA[5:10])
    for other in ('"other"', 'W/"other"', formatdate(1, usegmt=True), "nonsense", '"'):
        all_of_it = get(client, uid, Range="bytes=5-9", If_Range=other)
        assert (all_of_it.status_code, all_of_it.data == DATA) == (200, True)


def test_what_has_not_changed_is_not_sent_again(client, uid):
    whole = get(client, uid)
    assert not whole.headers["ETag"].startswith("W/")
    again = get(client, uid, If_None_Match=whole.headers["ETag"])
    assert (again.status_code, again.data) == (304, b"")
    assert get(client, uid, If_None_Match='"other"').status_code == 200
    assert get(client, uid, If_Modified_Since=formatdate(time.time() + 9, usegmt=True)).status_code == 304


def test_files_of_two_uploads_have_two_tags(client, uid):
    assert get(client, uid).headers["ETag"] != get(client, upload(client, DATA, 300)).headers["ETag"]


def test_unfinished_file_is_not_sent(client):
    uid = send(client, DATA, 300, 0).json["uploadUid"]
    refusal(get(client, uid), 409, "incomplete")
    refusal(get(client, uid, Range="bytes=0-0"), 409, "incomplete")


def test_file_that_somebody_took_away_is_an_error_and_no_empty_file(client, folder, uid):
    (folder / uid / "data").unlink()
    answer = get(client, uid)
    assert answer.status_code in (404, 500)
    refusal(answer, answer.status_code)


def test_file_that_lost_bytes_is_an_error_and_no_shorter_file(client, folder, uid):
    with (folder / uid / "data").open("r+b") as file:
        file.truncate(500)
    refusal(get(client, uid), 500, "storage_error")


def test_upload_that_was_moved_away_or_deleted_is_gone(client, host, uid, tmp_path):
    with host.app_context():
        host.extensions["upload_helper"].helper.get_upload(uid).move_to(tmp_path / "target")
    refusal(get(client, uid), 404, "not_found")
    other = upload(client, DATA, 300)
    assert client.delete(f"/uploads/{other}").status_code == 204
    refusal(get(client, other), 404, "not_found")
    refusal(client.delete(f"/uploads/{other}"), 404, "not_found")


def test_answer_about_an_upload_is_not_kept_by_caches(client, uid):
    for url in (f"/uploads/{uid}/status", f"/uploads?identifier=x&fileName=file.bin&totalSize={len(DATA)}"):
        send(client, DATA, 1000, 0, identifier="x")
        answer = client.get(url)
        assert answer.status_code == 404 or answer.headers["Cache-Control"] == "no-store"
    listed = client.get("/uploads", headers={"X-User": "ann"})
    assert listed.headers["Cache-Control"] == "no-store"


def test_chunk_that_is_a_page_is_not_answered_as_one(client):
    answer = client.post(
        "/uploads", query_string=fields(b"x", 1, 0, name="<script>alert(1)</script>"), data=b"xx", headers=RAW
    )
    assert answer.status_code == 400
    assert answer.mimetype == "application/json"
