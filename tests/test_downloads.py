"""How a finished file is asked for, whoever sends it: conditions, names, HEAD, and the web server in front."""

from __future__ import annotations

import os
import random
import re
import time
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path

import pytest
import requests
from werkzeug.http import parse_options_header

from chunks import upload
from proxies import Nginx
from upload_helper import downloads
from upload_helper.protocols.disposition import file_name
from upload_helper.upload import display_name

DATA = random.Random(16).randbytes(1000)
PAGE = Path(__file__).parent.parent / "docs" / "downloads.md"
DAY = 86400


@pytest.fixture
def uid(client):
    return upload(client, DATA, 300)


def ask(client, uid, *, method="GET", headers=None):
    """Return a whole answer, read and closed."""
    with client.open(f"/uploads/{uid}", method=method, headers=headers or {}) as answer:
        answer.get_data()
        return answer


# --- conditions ---

SAME, OTHER, WEAK = '"{uid}"', '"other"', 'W/"{uid}"'
NOW, BEFORE, AFTER = "{now}", "{before}", "{after}"
CONDITIONS = [
    # of one header
    ({"If-None-Match": SAME}, 304), ({"If-None-Match": WEAK}, 304), ({"If-None-Match": f"{OTHER}, {WEAK}"}, 304),
    ({"If-None-Match": "*"}, 304), ({"If-None-Match": OTHER}, 200), ({"If-None-Match": "{uid}"}, 200), ({"If-None-Match": ""}, 200),
    ({"If-Match": SAME}, 200), ({"If-Match": "*"}, 200), ({"If-Match": f"{OTHER},{SAME}"}, 200),
    ({"If-Match": OTHER}, 412), ({"If-Match": WEAK}, 412), ({"If-Match": "{uid}"}, 412), ({"If-Match": ""}, 412),
    ({"If-Modified-Since": NOW}, 304), ({"If-Modified-Since": AFTER}, 304), ({"If-Modified-Since": BEFORE}, 200),
    ({"If-Unmodified-Since": NOW}, 200), ({"If-Unmodified-Since": AFTER}, 200), ({"If-Unmodified-Since": BEFORE}, 412),
    # of several: RFC 9110, section 13.2.2
    ({"If-None-Match": OTHER, "If-Modified-Since": AFTER}, 200), ({"If-None-Match": "", "If-Modified-Since": AFTER}, 200),
    ({"If-None-Match": SAME, "If-Modified-Since": BEFORE}, 304),
    ({"If-Match": SAME, "If-Unmodified-Since": BEFORE}, 200), ({"If-Match": OTHER, "If-Unmodified-Since": AFTER}, 412),
    ({"If-Match": SAME, "If-None-Match": SAME}, 304), ({"If-Match": OTHER, "If-None-Match": SAME}, 412),
    ({"If-Match": SAME, "If-Modified-Since": NOW}, 304), ({"If-Unmodified-Since": BEFORE, "If-None-Match": SAME}, 412),
    # with a range
    ({"Range": "bytes=5-9", "If-None-Match": SAME}, 304), ({"Range": "bytes=5-9", "If-Modified-Since": NOW}, 304),
    ({"Range": "bytes=5-9", "If-Match": OTHER}, 412), ({"Range": "bytes=5-9", "If-Unmodified-Since": BEFORE}, 412),
    ({"Range": "bytes=5-9", "If-Match": SAME, "If-Unmodified-Since": NOW, "If-None-Match": OTHER}, 206),
    ({"Range": "bytes=5000-", "If-None-Match": SAME}, 304), ({"Range": "bytes=5000-", "If-Match": OTHER}, 412),
    ({"Range": "bytes=5-9", "If-Range": SAME}, 206), ({"Range": "bytes=5-9", "If-Range": NOW}, 206),
    ({"Range": "bytes=5-9", "If-Range": WEAK}, 200), ({"Range": "bytes=5-9", "If-Range": "{uid}"}, 200),
    ({"Range": "bytes=5-9", "If-Range": AFTER}, 200), ({"Range": "bytes=5-9", "If-Range": BEFORE}, 200),
    ({"Range": "bytes=5-9", "If-Range": "*"}, 200), ({"Range": "bytes=5-9", "If-Range": f"{SAME}, {OTHER}"}, 200),
    ({"Range": "bytes=5000-", "If-Range": OTHER}, 200), ({"Range": "bytes=5000-", "If-Range": SAME}, 416),
    ({"If-Range": OTHER}, 200),
    # nonsense is no condition
    ({"If-Modified-Since": "yesterday"}, 200), ({"If-Unmodified-Since": "yesterday"}, 200), ({"If-Modified-Since": ""}, 200),
    ({"If-Modified-Since": "Thu, 01 Jan 99999999999999999999 00:00:00 GMT"}, 200), ({"If-Unmodified-Since": "1 Jan 2020 00:00:00 +99999999999999"}, 200),
    ({"If-Modified-Since": "Thu, 01 Jan 0001 00:00:00 +2359"}, 200), ({"Range": "bytes=5-9", "If-Range": "1 Jan 9999 23:59:59 -2359"}, 200),
    ({"If-None-Match": "W/" * 3000}, 200), ({"If-None-Match": '"' * 7999}, 200), ({"If-None-Match": "a" + " " * 8000 + "b"}, 200),
]  # fmt: skip


def filled(headers: dict[str, str], uid: str, modified: str) -> dict[str, str]:
    at = parsedate_to_datetime(modified).timestamp()
    dates = {"now": modified, "before": formatdate(at - DAY, usegmt=True), "after": formatdate(at + DAY, usegmt=True)}
    return {name: value.format(uid=uid, **dates) for name, value in headers.items()}


@pytest.mark.parametrize(("headers", "status"), CONDITIONS, ids=lambda value: ascii(value)[:60])
def test_conditions_are_judged_in_their_order(client, uid, headers, status):
    asked = filled(headers, uid, ask(client, uid).headers["Last-Modified"])
    answer = ask(client, uid, headers=asked)
    assert answer.status_code == status
    assert answer.headers["Cache-Control"] == "private, no-cache"
    if status == 200:
        assert answer.data == DATA
    elif status == 206:
        assert answer.data == DATA[5:10]
    elif status == 304:
        assert answer.data == b""
        assert answer.headers["ETag"] == f'"{uid}"'
        assert "Content-Length" not in answer.headers
    else:
        assert answer.mimetype == "application/json"
        assert answer.json["code"] in ("precondition_failed", "requested_range_not_satisfiable")
        assert "ETag" not in answer.headers
    # A condition holds for HEAD as it does for GET, a range does not.
    head = ask(client, uid, method="HEAD", headers=asked)
    assert head.status_code == (status if status in (304, 412) else 200)
    assert head.data == b""


def test_nonsense_in_conditions_takes_no_time(client, uid):
    headers = {"If-None-Match": "a" + " " * 8000 + "b", "If-Match": '"' * 8000 + ",", "Range": "bytes=" + " ,\t" * 2500}
    begin = time.process_time()
    ask(client, uid, headers=headers)
    assert time.process_time() - begin < 0.1


# --- ranges ---


@pytest.mark.parametrize(
    ("asked", "due"),
    [
        ("BYTES=5-9", range(5, 10)), ("bytes=,5-9", range(5, 10)), ("bytes= 5-9 , ,", range(5, 10)), ("bytes=00005-09", range(5, 10)),
        ("bytes=5-9,20-29", None), ("bytes=0-,0-", None), ("bytes=9-5", None), ("octets=5-9", None), ("bytes 5-9", None),
        ("bytes=", None), ("bytes=-", None), ("bytes=5", None), ("bytes=5-9;", None), ("bytes=5-9x", None), ("bytes=+5-9", None),
        ("bytes=\u0665-\u0669", None), ("bytes=" + "9" * 200 + "-", None), ("bytes=5000-1", range(0)), ("bytes=-0", range(0)),
        ("bytes=-00", range(0)), ("bytes=1000-1000", range(0)), ("bytes=999-1000", range(999, 1000)),
    ],
    ids=lambda value: ascii(value)[:30],
)  # fmt: skip
def test_one_range_is_sent_and_for_anything_else_the_whole_file(client, uid, asked, due):
    answer = ask(client, uid, headers={"Range": asked.encode().decode("latin-1")})
    if due is None:
        assert (answer.status_code, answer.data) == (200, DATA)
        assert "Content-Range" not in answer.headers
    elif not due:
        assert answer.status_code == 416
        assert answer.headers["Content-Range"] == "bytes */1000"
        assert answer.headers["Accept-Ranges"] == "bytes"
        assert answer.headers["Cache-Control"] == "private, no-cache"
    else:
        assert (answer.status_code, answer.data) == (206, DATA[due.start : due.stop])
        assert answer.headers["Content-Range"] == f"bytes {due.start}-{due.stop - 1}/1000"
        assert answer.headers["ETag"] == f'"{uid}"'


def test_parts_that_are_longer_than_a_block_are_whole(client, monkeypatch):
    monkeypatch.setattr(downloads, "_BLOCK", 64)
    uid = upload(client, DATA, 300)
    assert ask(client, uid).data == DATA
    for first, last in ((0, 63), (0, 64), (1, 128), (63, 999), (0, 999)):
        assert ask(client, uid, headers={"Range": f"bytes={first}-{last}"}).data == DATA[first : last + 1]


@pytest.mark.parametrize(
    "headers", [{}, {"Range": "bytes=0-5"}, {"Range": "bytes=5000-"}, {"If-None-Match": "*"}], ids=str
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_no_answer_leaves_the_file_open(client, uid, folder, method, headers):
    answer = client.open(f"/uploads/{uid}", method=method, headers=headers)
    answer.close()
    held = [path for path in Path("/proc/self/fd").iterdir() if str(folder) in str(path.resolve())]
    assert held == []


def test_head_tells_what_get_sends(client, uid):
    got, head = ask(client, uid), ask(client, uid, method="HEAD", headers={"Range": "bytes=0-5"})
    assert (head.status_code, head.data) == (200, b"")
    for name in ("Content-Length", "ETag", "Last-Modified", "Content-Type", "Content-Disposition", "Accept-Ranges",
                 "X-Content-Type-Options", "Content-Security-Policy"):  # fmt: skip
        assert head.headers[name] == got.headers[name], name
    assert head.headers["Content-Length"] == "1000"
    assert head.headers["Cache-Control"] in ("private, no-cache", "no-store")


def test_file_that_goes_in_the_last_moment_is_not_found(client, uid, monkeypatch):
    attach = downloads._attach

    def attach_too_late(answer, upload, *arguments):
        # After the last look at it, as a move by another process would.
        Path(upload.path).unlink()
        attach(answer, upload, *arguments)

    monkeypatch.setattr(downloads, "_attach", attach_too_late)
    answer = ask(client, uid)
    assert (answer.status_code, answer.json["code"]) == (404, "not_found")


def test_link_that_takes_the_place_of_the_file_in_the_last_moment_is_not_followed(client, uid, tmp_path, monkeypatch):
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * 1000)
    attach = downloads._attach

    def attach_too_late(answer, upload, *arguments):
        Path(upload.path).unlink()
        Path(upload.path).symlink_to(secret)
        attach(answer, upload, *arguments)

    monkeypatch.setattr(downloads, "_attach", attach_too_late)
    answer = ask(client, uid)
    assert (answer.status_code, answer.json["code"]) == (500, "storage_error")


# --- names ---

NAMES = [
    "map.tif", "my map.tif", 'a"b.tif', "a'b.tif", "a;b=c, d.tif", "100% sure.tif", "a%20b.tif", "a%22b.tif", "日本.shp", "Straße.tif",
    "Übersicht (1).tif", "é.tif", "e\u0301.tif", "＂quoted＂.tif", "＼＼.tif", "\N{PILE OF POO}.tif", "naïve%.tif", "a*b'c.tif", "+&=.tif", "x" * 255,
    "filename*=UTF-8''x.tif", "=?utf-8?q?x?=.tif",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_every_client_reads_a_name_that_is_right_or_at_least_plain(client, name):
    disposition = ask(client, upload(client, DATA, 1000, name=name)).headers["Content-Disposition"]
    shown = display_name(name)
    assert disposition.isascii()
    assert disposition.startswith("attachment; ")
    assert file_name(disposition) == shown
    assert parse_options_header(disposition)[1]["filename"] == shown
    # What is left for a client that does not know filename*; some browsers take escapes out of it, so there are none.
    exact = disposition.rpartition("; filename*=")[0]
    plain = re.fullmatch(r'attachment; filename=("?)([^"%\\]+)\1', exact or disposition)
    assert plain, disposition
    assert plain[2].rpartition(".")[2] == shown.rpartition(".")[2]
    assert (plain[2] == shown) == (not exact)


@pytest.mark.parametrize(
    ("name", "plain"),
    [("日本.shp", "__.shp"), ("Übersicht.tif", "Ubersicht.tif"), ("Straße.tif", "Stra_e.tif"), ("100%.tif", "100_.tif"), ('a"b.tif', "a_b.tif")],
)  # fmt: skip
def test_old_clients_get_a_name_that_is_alike(client, name, plain):
    disposition = ask(client, upload(client, DATA, 1000, name=name)).headers["Content-Disposition"]
    assert f"; filename={plain}; " in disposition


# --- X-Sendfile ---


@pytest.fixture
def apache(host):
    """Return a client of a host behind a server that knows X-Sendfile."""
    host.config["USE_X_SENDFILE"] = True
    return host.test_client()


def test_server_is_told_the_path_and_sent_no_bytes(apache, folder):
    uid = upload(apache, DATA, 300, name="a.html")
    for headers in ({}, {"Range": "bytes=0-5"}, {"Range": "bytes=5000-"}):
        answer = ask(apache, uid, headers=headers)
        assert (answer.status_code, answer.data) == (200, b"")
        assert Path(answer.headers["X-Sendfile"]).read_bytes() == DATA
        # Else the server in front would wait for bytes that never come.
        assert answer.headers["Content-Length"] == "0"
        assert "Content-Range" not in answer.headers
        assert answer.headers["ETag"] == f'"{uid}"'
        assert answer.headers["Content-Disposition"] == "attachment; filename=a.html"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_server_is_told_no_path_where_no_file_is_due(apache):
    uid = upload(apache, DATA, 300)
    known = {"If-None-Match": f'"{uid}"'}
    for answer in (
        ask(apache, uid, method="HEAD"),
        ask(apache, uid, headers=known),
        ask(apache, uid, headers={"If-Match": '"x"'}),
        ask(apache, uid, headers={"X-Role": "none"}),
        ask(apache, uid, headers={"X-User": "berta"}),
    ):
        assert "X-Sendfile" not in answer.headers
    assert ask(apache, uid, method="HEAD").content_length == 1000
    assert ask(apache, uid, headers=known).status_code == 304


def test_path_with_other_than_ascii_letters_makes_a_header_all_the_same(make_host, tmp_path):
    folder = tmp_path / "eine Größe 日本"
    host = make_host(folder=folder)
    host.config["USE_X_SENDFILE"] = True
    client = host.test_client()
    path = ask(client, upload(client, DATA, 300)).headers["X-Sendfile"]
    # Headers are Latin-1 to WSGI, and these are the bytes of the path.
    assert Path(os.fsdecode(path.encode("latin-1"))).read_bytes() == DATA


# --- nginx ---

ORIGIN = "https://maps.example.org"


@pytest.fixture
def accelerated(make_host):
    return make_host(accel_redirect="/protected-uploads/").test_client()


def test_nginx_is_told_the_place_below_the_folder_and_judges_conditions_itself(accelerated, folder):
    uid = upload(accelerated, DATA, 300)
    for headers in ({}, {"Range": "bytes=5000-"}, {"If-None-Match": "*"}, {"If-Match": '"x"'}):
        answer = ask(accelerated, uid, headers=headers)
        assert (answer.status_code, answer.data) == (200, b"")
        place = answer.headers["X-Accel-Redirect"]
        assert place.startswith("/protected-uploads/")
        assert (folder / place.removeprefix("/protected-uploads/")).read_bytes() == DATA
        assert not {"ETag", "Last-Modified", "Accept-Ranges", "X-Sendfile"} & set(answer.headers.keys())


def test_nginx_is_told_no_place_where_no_file_is_due(accelerated):
    uid = upload(accelerated, DATA, 300)
    head = ask(accelerated, uid, method="HEAD")
    assert (head.status_code, head.content_length) == (200, 1000)
    # nginx's tag is another one, and two tags of one file would confuse whoever compares them.
    assert "ETag" not in head.headers
    refused = ask(accelerated, uid, headers={"X-Role": "none"})
    for answer in (head, refused, ask(accelerated, uid, headers={"X-User": "berta"})):
        assert "X-Accel-Redirect" not in answer.headers


@pytest.fixture
def nginx(gunicorn, folder, tmp_path):
    """Run nginx with the location that the documentation prints, in front of gunicorn; return its URL and gunicorn's."""
    (printed,) = re.findall(r"^```nginx file=downloads\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    location = printed.replace("alias /srv/myapp/uploads/;", f"alias {folder}/;")
    assert location != printed
    server = gunicorn(
        workers=1, UPLOAD_HELPER_ACCEL_REDIRECT="/protected-uploads/", UPLOAD_HELPER_CORS_ORIGINS=[ORIGIN]
    )  # fmt: skip
    ours = f"location /uploads {{ proxy_pass {server.origin}; proxy_set_header Host $host:$server_port; }}"
    with Nginx(tmp_path / "nginx", ours + location) as running:
        yield running


def send(url: str, data: bytes, name: str) -> str:
    query = {"fileName": name, "totalSize": len(data), "chunkCount": 1, "chunkNumber": 0}
    headers = {"Content-Type": "application/octet-stream", "X-User": "anna"}
    return requests.post(f"{url}/uploads", params=query, data=data, headers=headers, timeout=30).json()["uploadUid"]


def test_nginx_sends_the_file_to_who_may_have_it_and_to_nobody_else(nginx):
    uid = send(nginx.url, DATA, "日本.html")

    def get(path: str = f"/uploads/{uid}", method: str = "GET", **headers: str) -> requests.Response:
        named = {"X-User": "anna", **{name.replace("_", "-"): value for name, value in headers.items()}}
        return requests.request(method, nginx.url + path, headers=named, timeout=30)

    whole = get(Origin=ORIGIN)
    assert (whole.status_code, whole.content) == (200, DATA)
    assert "X-Accel-Redirect" not in whole.headers
    part = get(Range="bytes=5-9", Origin=ORIGIN)
    assert (part.status_code, part.content) == (206, DATA[5:10])
    assert part.headers["Content-Range"] == "bytes 5-9/1000"
    unchanged = get(If_None_Match=whole.headers["ETag"], Origin=ORIGIN)
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    for answer in (whole, part):
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert file_name(answer.headers["Content-Disposition"]) == "日本.html"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"] == "sandbox"
    for answer in (whole, part, unchanged):
        assert answer.headers["Cache-Control"] == "private, no-cache"
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert answer.headers["Access-Control-Allow-Credentials"] == "true"
        assert "ETag" in answer.headers["Access-Control-Expose-Headers"]
        assert "Origin" in answer.headers["Vary"]
    assert "Access-Control-Allow-Origin" not in get(Origin="https://evil.example").headers

    assert get(Range="bytes=5000-").status_code == 416
    assert get(If_Match='"x"').status_code == 412
    assert get(If_Match=whole.headers["ETag"]).status_code == 200
    assert get(Range="bytes=5-9", If_Range=whole.headers["ETag"]).status_code == 206
    assert get(Range="bytes=5-9", If_Range='"x"').content == DATA
    several = get(Range="bytes=0-0,5-9")
    assert (several.status_code, several.content) == (200, DATA)
    head = get(method="HEAD")
    assert (head.status_code, head.headers["Content-Length"], head.headers["Last-Modified"]) == (
        200, "1000", whole.headers["Last-Modified"],
    )  # fmt: skip

    assert get(X_User="berta").status_code == 404
    assert get(X_Role="none").status_code == 403
    assert get(f"/protected-uploads/{uid}/data").status_code == 404
    assert get(method="DELETE").status_code == 204
    assert get().status_code == 404
