"""What a client speaks makes no difference: its upload is listed, finished, handed out, quota'd and swept as any other."""

from __future__ import annotations

import base64
import io
import os
import random
import time
from collections.abc import Callable
from typing import Any

import pytest

import upload_helper as uh
from chunks import send

DATA = random.Random(41).randbytes(3000)
NAME = "Straße 日本.tif"
USER = {"X-User": "ann"}
TUS = {"Tus-Resumable": "1.0.0"}
TUS_BODY = {**TUS, "Content-Type": "application/offset+octet-stream"}
RUFH_BODY = {"Content-Type": "application/partial-upload"}
METADATA = {"Upload-Metadata": "filename " + base64.b64encode(NAME.encode()).decode()}
DISPOSITION = {"Content-Disposition": "attachment; filename*=UTF-8''Stra%C3%9Fe%20%E6%97%A5%E6%9C%AC.tif"}

Step = Callable[[Any], Any]


def by_tus(client: Any) -> tuple[str, Step]:
    url = client.post("/uploads", headers={**USER, **TUS, **METADATA, "Upload-Length": "3000"}).headers["Location"]
    client.patch(url, headers={**USER, **TUS_BODY, "Upload-Offset": "0"}, data=DATA[:1000])
    rest = {**USER, **TUS_BODY, "Upload-Offset": "1000"}
    return url.rpartition("/")[2], lambda c: c.patch(url, headers=rest, data=DATA[1000:])


def by_rufh(client: Any) -> tuple[str, Step]:
    begin = {**USER, **DISPOSITION, "Upload-Complete": "?0", "Upload-Length": "3000"}
    url = client.post("/uploads", headers=begin, data=DATA[:1000]).headers["Location"]
    rest = {**USER, **RUFH_BODY, "Upload-Offset": "1000", "Upload-Complete": "?1"}
    return url.rpartition("/")[2], lambda c: c.patch(url, headers=rest, data=DATA[1000:])


def by_filepond(client: Any) -> tuple[str, Step]:
    form = {"filepond": "{}"}
    begin = {**USER, "Upload-Length": "3000"}
    uid = client.post("/uploads", headers=begin, data=form, content_type="multipart/form-data").text

    def patch(client: Any, offset: int, body: bytes) -> Any:
        headers = {**USER, **TUS_BODY, "Upload-Offset": str(offset), "Upload-Length": "3000"}
        del headers["Tus-Resumable"]
        headers["Upload-Name"] = NAME.encode().decode("latin-1")
        return client.patch(f"/uploads?patch={uid}", headers=headers, data=body)

    assert patch(client, 0, DATA[:1000]).status_code == 204
    return uid, lambda c: patch(c, 1000, DATA[1000:])


def by_chunks(client: Any) -> tuple[str, Step]:
    uid = send(client, DATA, 1500, 0, name=NAME, headers=USER).json["uploadUid"]
    return uid, lambda c: send(c, DATA, 1500, 1, uid=uid, name=NAME, headers=USER)


def by_library(prefix: str, first: int, **more: str) -> Callable[[Any], tuple[str, Step]]:
    def form(number: int) -> dict[str, Any]:
        fields = {
            "resumable": {
                "resumableChunkNumber": number, "resumableTotalChunks": 2, "resumableChunkSize": 1500,
                "resumableCurrentChunkSize": 1500, "resumableTotalSize": 3000, "resumableIdentifier": "3000-a",
                "resumableFilename": NAME, "resumableRelativePath": NAME,
            },
            "dropzone": {
                "dzuuid": "9b3d4c1e", "dzchunkindex": number, "dztotalfilesize": 3000, "dzchunksize": 1500,
                "dztotalchunkcount": 2, "dzchunkbyteoffset": number * 1500,
            },
            "plupload": {"name": NAME, "chunk": number, "chunks": 2},
        }[prefix]  # fmt: skip
        start = (number - first) * 1500
        return {**fields, "file": (io.BytesIO(DATA[start : start + 1500]), NAME)}

    def post(client: Any, number: int) -> Any:
        return client.post("/uploads", data=form(number), headers=USER, content_type="multipart/form-data")

    def begin(client: Any) -> tuple[str, Step]:
        return post(client, first).json["uploadUid"], lambda c: post(c, first + 1)

    return begin


BEGINNINGS = {
    "tus": by_tus, "rufh": by_rufh, "filepond": by_filepond, "chunks": by_chunks,
    "resumable": by_library("resumable", 1), "dropzone": by_library("dropzone", 0), "plupload": by_library("plupload", 0),
}  # fmt: skip


@pytest.fixture(params=BEGINNINGS)
def begin(request: pytest.FixtureRequest) -> Callable[[Any], tuple[str, Step]]:
    """Return a function that begins an upload, and returns its uid and a function that sends the rest."""
    return BEGINNINGS[request.param]


@pytest.fixture
def events(host: Any) -> Any:
    """Return what the signals of the host have told, as it comes."""
    heard: list[tuple[str, str, str]] = []
    signals = {"created": uh.upload_created, "finished": uh.upload_finished, "deleted": uh.upload_deleted}
    receivers = []
    for name, signal in signals.items():

        def hear(sender: Any, upload: uh.Upload, name: str = name) -> None:
            heard.append((name, upload.uploadUid, upload.owner))

        receivers.append(hear)
        signal.connect(hear, host)
    yield heard
    for signal, receiver in zip(signals.values(), receivers, strict=True):
        signal.disconnect(receiver, host)


def listed(client: Any, user: dict[str, str] = USER) -> dict[str, dict[str, Any]]:
    return {one["uploadUid"]: one for one in client.get("/uploads", headers=user).json["uploads"]}


def test_upload_is_one_from_its_beginning_to_its_end(host, client, begin, events, folder):
    uid, send_rest = begin(client)
    assert listed(client)[uid]["state"] == "open"
    assert listed(client, {"X-User": "bob"}) == {}
    assert client.get(f"/uploads/{uid}", headers=USER).json["code"] == "incomplete"
    assert client.get(f"/uploads/{uid}", headers={"X-User": "bob"}).status_code == 404
    with host.app_context(), pytest.raises(uh.IncompleteError):
        uh.current_helper.get_upload(uid)
    assert send_rest(client).status_code in (200, 201, 204)
    status = client.get(f"/uploads/{uid}/status", headers=USER).json
    assert (status["state"], status["fileName"], status["totalSize"]) == ("finished", NAME, 3000)
    assert status["receivedBytes"] == 3000
    with client.get(f"/uploads/{uid}", headers={**USER, "Range": "bytes=-5"}) as answer:
        assert answer.data == DATA[-5:]
    with host.app_context():
        with uh.current_helper.get_upload(uid).open() as file:
            assert file.read() == DATA
        target = folder.parent / "taken.tif"
        uh.current_helper.get_upload(uid).move_to(target)
    assert target.read_bytes() == DATA
    assert listed(client) == {}
    assert events == [("created", uid, "ann"), ("finished", uid, "ann")]


def test_upload_can_be_deleted_by_its_url_in_between(client, begin, events):
    uid, send_rest = begin(client)
    assert client.delete(f"/uploads/{uid}", headers=USER).status_code == 204
    assert listed(client) == {}
    assert events[-1] == ("deleted", uid, "ann")
    assert send_rest(client).status_code >= 400 or uid not in listed(client)


@pytest.mark.parametrize("finished", [True, False], ids=["finished", "unfinished"])
def test_upload_is_swept(make_host, begin, finished, folder):
    host = make_host(expiry=60)
    client = host.test_client()
    uid, send_rest = begin(client)
    if finished:
        send_rest(client)
    with host.app_context():
        assert uh.current_helper.sweep() == 0
        past = time.time() - 61
        for path in [folder / uid, *(folder / uid).iterdir()]:
            os.utime(path, (past, past))
        assert uh.current_helper.sweep() == 1
    assert listed(client) == {}


def test_upload_counts_against_the_quota_of_its_owner(make_host, begin):
    client = make_host(max_open_uploads=1).test_client()
    uid, send_rest = begin(client)
    for other in BEGINNINGS.values():
        if other is begin:
            # plupload begins anew with the same name, as it should.
            continue
        try:
            other(client)
        except (KeyError, AssertionError, TypeError):
            # Refused, and so there is no uid in the answer.
            continue
    assert set(listed(client)) == {uid}
    assert send_rest(client).status_code in (200, 201, 204)


def test_file_that_is_too_large_makes_no_upload(make_host, begin, folder):
    client = make_host(max_file_size=900).test_client()
    with pytest.raises((KeyError, AssertionError, TypeError)):
        begin(client)
    assert listed(client) == {}


def test_whole_files_are_uploads_like_any_other(client):
    form = {"file": (io.BytesIO(DATA), NAME), "note": "x"}
    uid = client.post("/uploads", data=form, headers=USER, content_type="multipart/form-data").json["uploadUid"]
    assert listed(client)[uid]["fileName"] == NAME
    with client.get(f"/uploads/{uid}", headers=USER) as answer:
        assert answer.data == DATA
