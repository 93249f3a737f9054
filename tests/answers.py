"""A server that answers what a test says, lies included, and keeps what it was asked."""

from __future__ import annotations

import re
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Answer = tuple[int, dict[str, str | None], bytes | Iterable[bytes]]


class Answers(ThreadingHTTPServer):
    """Answers what `answer` returns: status, headers and body. A header that is None is left out, Content-Length too.

    The connection is closed behind each answer.
    """

    daemon_threads = True

    def __init__(self, answer: Callable[[Asked], Answer], certificate: Path | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Asked)
        self.asked: list[Asked] = []
        self.answer = answer
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self.server_port}"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def __enter__(self) -> Answers:
        threading.Thread(target=self.serve_forever, args=[0.01], daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        """Clients that go away in the middle are what many tests are about."""


class Asked(BaseHTTPRequestHandler):
    server: Answers

    def handle_one_request(self):
        self.close_connection = True
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            return
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append(self)
        status, headers, body = self.server.answer(self)
        blocks = [body] if isinstance(body, bytes) else body
        own = {"Content-Length": str(len(body))} if isinstance(body, bytes) else {}
        self.send_response_only(status)
        for name, value in {**own, **headers}.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        with suppress(OSError):
            for block in blocks:
                self.wfile.write(block)
            self.wfile.flush()

    def log_message(self, *args):
        pass


class ServedFile:
    """A file as an honest server has it: ranges, If-Range, ETag and date; `lie` changes the answer in a test."""

    def __init__(self, data: bytes, **headers: str | None) -> None:
        self.data = data
        self.headers = {"ETag": '"one"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT", **{
            name.replace("_", "-"): value for name, value in headers.items()}}  # fmt: skip
        self.lie: Callable[[Asked, Answer], Answer] = lambda asked, answer: answer

    def __call__(self, asked: Asked) -> Answer:
        return self.lie(asked, self._honest(asked))

    def _honest(self, asked: Asked) -> Answer:
        match = re.fullmatch(r"bytes=(\d+)-", asked.headers.get("Range", ""))
        condition = asked.headers.get("If-Range")
        if not match or (condition and condition not in (self.headers["ETag"], self.headers["Last-Modified"])):
            return 200, dict(self.headers), self.data
        first = int(match[1])
        if first >= len(self.data):
            return 416, {"Content-Range": f"bytes */{len(self.data)}"}, b""
        return (
            206,
            {**self.headers, "Content-Range": f"bytes {first}-{len(self.data) - 1}/{len(self.data)}"},
            self.data[first:],
        )


class Authority:
    """A private CA, and the certificates that it signs; files in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.certificate = folder / "ca.pem"
        self._key = folder / "ca.key"
        self._openssl(
            "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-days", "2",
            "-subj", "/CN=Test CA", "-keyout", self._key, "-out", self.certificate,
        )  # fmt: skip

    def sign(self, name: str, alternative: str = "IP:127.0.0.1", days: int = 1) -> Path:
        """Return a file with a key and a certificate; of -1 days it has expired."""
        key, request, made = (self._folder / f"{name}.{ending}" for ending in ("key", "csr", "crt"))
        self._openssl(
            "req", "-new", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-subj", f"/CN={name}",
            "-keyout", key, "-out", request,
        )  # fmt: skip
        extensions = self._folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={alternative}\n")
        self._openssl(
            "x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial",
            "-extfile", extensions, "-out", made, "-days", days,
        )  # fmt: skip
        both = self._folder / f"{name}.pem"
        both.write_text(key.read_text() + made.read_text())
        return both

    @staticmethod
    def _openssl(*arguments: object) -> None:
        program = shutil.which("openssl")
        assert program, "openssl is needed"
        subprocess.run([program, *map(str, arguments)], check=True, capture_output=True)
