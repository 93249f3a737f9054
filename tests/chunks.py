"""A client of the chunk protocol, as small as can be."""

from __future__ import annotations

from typing import Any

RAW = {"Content-Type": "application/octet-stream"}


def split(data: bytes, size: int) -> list[bytes]:
    """Cut a file into chunks."""
    return [data[i : i + size] for i in range(0, len(data), size)] or [b""]


def fields(
    data: bytes, size: int, number: int, *, uid: str = "", name: str = "file.bin", **more: Any
) -> dict[str, Any]:
    """Return the fields of a chunk without its content."""
    count = len(split(data, size))
    return {
        "uploadUid": uid,
        "fileName": name,
        "totalSize": len(data),
        "chunkCount": count,
        "chunkNumber": number,
        **more,
    }


def send(client: Any, data: bytes, size: int, number: int, *, url: str = "/uploads", headers: Any = None, **more: Any):
    """Send one chunk raw through a Flask test client."""
    content = split(data, size)[number]
    return client.post(
        url, query_string=fields(data, size, number, **more), data=content, headers={**RAW, **(headers or {})}
    )


def upload(client: Any, data: bytes, size: int, **more: Any) -> str:
    """Send all chunks in order; return the uid."""
    uid = ""
    for number in range(len(split(data, size))):
        answer = send(client, data, size, number, uid=uid, **more)
        assert answer.status_code == 200, answer.text
        uid = answer.json["uploadUid"]
    return uid


def fetch(client: Any, uid: str) -> bytes:
    """Return the bytes of a finished upload."""
    with client.get(f"/uploads/{uid}") as answer:
        assert answer.status_code == 200, answer.text
        return answer.data
