"""A server on this machine that does what bad servers do, for the tests of downloads."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from workflow_scripts.data.archives.download import download

BODY = bytes(range(256)) * 2000  # 512,000 bytes
MD5, SHA256 = "md5:" + hashlib.md5(BODY).hexdigest(), "sha256:" + hashlib.sha256(BODY).hexdigest()
GIT = "git:" + hashlib.sha1(b"blob 512000\0" + BODY).hexdigest()
PAGE = b"\n <!DOCTYPE HTML><html><head><title>Quota\n exceeded</title></head></html>"


class Server:
    """A web server; ``routes`` maps a path to what answers it, ``asked`` lists (path, Range header, bytes sent)."""

    def __init__(self) -> None:
        self.routes: dict[str, Callable[[Handler], None]] = {}
        self.asked: list[list] = []
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"server_of_test": self}))
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def url(self, path: str, answer: Callable[[Handler], None]) -> str:
        self.routes[path] = answer
        return f"http://127.0.0.1:{self.http.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of_test: Server

    def do_GET(self) -> None:
        self.close_connection = True
        self.asked = [self.path, self.headers.get("Range"), 0]
        self.server_of_test.asked.append(self.asked)
        self.server_of_test.routes[self.path.split("?")[0]](self)

    def answer(self, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
        """Send a response; ``length`` is the Content-Length it claims."""
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body) if length is None else length)} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Connection", "close")
        self.end_headers()
        self.asked[2] += len(body)  # before the client has them, and looks here
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        pass


def good(body: bytes = BODY, etag: str = '"1"') -> Callable[[Handler], None]:
    """Answers ranges, as servers of static files do."""
    def answer(request: Handler) -> None:
        match = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        if not match or request.headers.get("If-Range", etag) != etag:
            return request.answer(200, body, ETag=etag)
        start = int(match[1])
        if start >= len(body):
            return request.answer(416, b"", Content_Range=f"bytes */{len(body)}")
        return request.answer(206, body[start:], ETag=etag, Content_Range=f"bytes {start}-{len(body) - 1}/{len(body)}")
    return answer


def fixed(status: int, body: bytes, length: int | None = None, **headers: str) -> Callable[[Handler], None]:
    """The same answer always: no ranges."""
    return lambda request: request.answer(status, body, length, **headers)


def in_turn(*answers: Callable[[Handler], None]) -> Callable[[Handler], None]:
    """One answer after the other, then the last again."""
    left = list(answers)
    return lambda request: (left.pop(0) if len(left) > 1 else left[0])(request)


def chunked(*blocks: bytes) -> Callable[[Handler], None]:
    """An answer without a length."""
    def answer(request: Handler) -> None:
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.send_header("Connection", "close")
        request.end_headers()
        for block in (*blocks, b""):
            request.wfile.write(b"%x\r\n%s\r\n" % (len(block), block))
    return answer


@contextmanager
def serving() -> Iterator[Server]:
    """A server while the block runs."""
    server = Server()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()


def fetcher(folder: Path) -> Callable[..., Path]:
    """``download`` of addresses to ``folder``/archives/x.tar, with short pauses."""
    def fetch(*urls: str, **options: object) -> Path:
        options = {"what": "dataset 'x'", "timeout": 5, "retries": 2, "backoff": 0.01, **options}
        return download(urls, folder / "archives" / "x.tar", **options)
    return fetch


def left(folder: Path) -> list[str]:
    """Files of a folder that are not lock files."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))
